//! The loaded program against the oracle: random configurations, random packets, no difference.
//!
//! `ORACLE_SEED`, `ORACLE_FIRST`, `ORACLE_CONFIGURATIONS` and `ORACLE_FRAMES` run another plan, or one configuration again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod root {
    use testkit::netns::Netns;
    use testkit::oracle::{Plan, run};
    use testkit::program::prepare;

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
}
