//! The loaded program against the oracle: random configurations, random packets, no difference.
//!
//! `ORACLE_SEED`, `ORACLE_FIRST`, `ORACLE_CONFIGURATIONS` and `ORACLE_FRAMES` run another plan, or one configuration again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod root {
    use model::network::Mac;
    use testkit::netns::Netns;
    use testkit::oracle::{Plan, configuration, frames, run};
    use testkit::program::{FeatureSet, Program, compare, oracle, prepare};

    fn setting(name: &str, default: u64) -> u64 {
        std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: no number")))
    }

    /// As many threads as there are cores for this: the kernel verifies programs on one core each.
    const THREADS: u64 = 2;

    #[test]
    fn the_program_says_what_the_oracle_says() {
        let plan = Plan {
            seed: setting("ORACLE_SEED", 2026),
            first: setting("ORACLE_FIRST", 0),
            configurations: setting("ORACLE_CONFIGURATIONS", 200),
            frames: setting("ORACLE_FRAMES", 1_000),
        };
        println!("seed {}", plan.seed);
        let netns = Netns::new("oracle").unwrap();
        prepare(&netns).unwrap();
        let share = plan.configurations.div_ceil(THREADS);
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let first = plan.first + thread * share;
                let configurations = share.min(plan.configurations.saturating_sub(thread * share));
                netns.thread(move || run(Plan { first, configurations, ..plan }))
            })
            .collect();
        let (mut frames, mut configurations) = (0, 0);
        for thread in threads {
            let report = thread.join().unwrap().unwrap().unwrap_or_else(|difference| panic!("{difference:#}"));
            println!("{report}");
            frames += report.frames;
            configurations += report.configurations;
        }
        assert_eq!((configurations, frames), (plan.configurations, plan.configurations * plan.frames));
    }

    /// The comparison can fail: another address of a neighbour, known to the oracle alone, is found in the first frame to it.
    #[test]
    fn a_planted_difference_is_found() {
        let netns = Netns::new("oracle").unwrap();
        prepare(&netns).unwrap();
        let work = || {
            let (world, mut rng) = configuration(2026, 0);
            let mut planted = world.clone();
            planted.network.neighbors.values_mut().for_each(|mac| *mac = Mac([2, 0, 0, 0, 0xff, 0xff]));
            let mut program = Program::load(&world, FeatureSet::Smallest).unwrap();
            let (right, wrong) = (oracle(&world, FeatureSet::Smallest), oracle(&planted, FeatureSet::Smallest));
            let mut found = 0;
            for _ in 0..2_000 {
                let arrival = frames::arrival(&mut rng, &world);
                let mut differs = |oracle: &model::oracle::Oracle<'_>| {
                    let judgement = oracle.judge(&arrival.frame, arrival.ifindex);
                    compare(&world, &mut program, &arrival, &judgement).unwrap()
                };
                assert!(differs(&right).is_none());
                found += u32::from(differs(&wrong).is_some());
            }
            found
        };
        let found = netns.thread(work).join().unwrap().unwrap();
        assert!(found > 0, "configuration 0 forwards nothing");
    }
}
