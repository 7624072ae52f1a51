//! Several balancers behind a router that spreads flows over them, thousands of connections that live, and one balancer after the other
//! that dies, comes back with nothing in its memory, is killed and upgraded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../control/harness.rs"]
#[allow(dead_code, reason = "the tests of one agent use more of it")]
mod harness;
mod traffic;
mod world;

mod root {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use crate::harness::Lab;
    use crate::traffic::{Crowd, Passers};
    use crate::world::{BACKENDS, BALANCERS, VIP, World, documents};

    /// Connections that live when a backend begins to drain.
    const CONNECTIONS: usize = 10_000;
    /// Of them, most that may break: 0.05 %.
    const MOST_BROKEN: usize = CONNECTIONS * 5 / 10_000;
    /// Connections that begin while it drains.
    const LATE: usize = 1_000;

    fn raise_descriptors() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let wanted = (CONNECTIONS + LATE) as u64 + 1_000;
        assert!(maximum.is_none_or(|most| most >= wanted), "this test needs {wanted} descriptors: ulimit -Hn");
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).unwrap();
    }

    /// Packets that a balancer has sent to backends.
    fn packets(lab: &Lab) -> u64 {
        lab.get(&["backends"]).iter().map(|row| row["packets"].as_u64().unwrap()).sum()
    }

    type Ways = Vec<Option<usize>>;

    /// Numbers of the flows that the router sends by another balancer than before; of those, how many go from one that lives to another.
    fn moved(before: &Ways, after: &Ways, dead: usize) -> (Vec<usize>, usize) {
        let moved: Vec<usize> = (0..before.len()).filter(|flow| before[*flow] != after[*flow]).collect();
        let among = moved.iter().filter(|flow| before[**flow] != Some(dead) && after[**flow] != Some(dead)).count();
        (moved, among)
    }

    /// The connections of before the drain, those that began after it, and where the router sends either.
    struct Flows {
        old: Crowd,
        late: Crowd,
        ways: [Ways; 2],
    }

    impl Flows {
        /// After the router has divided the flows anew: everyone has talked; connections that broke and flows that moved, old and late. None of those
        /// that stayed where they were has broken.
        fn settled(&mut self, world: &World, what: &str) {
            let broken = [self.old.broken().len(), self.late.broken().len()];
            let ways = [&self.old, &self.late].map(|crowd| world.ways(&crowd.ends()));
            self.old.until_said(2);
            self.late.until_said(2);
            for (n, (name, crowd)) in [("began before", &self.old), ("began after", &self.late)].into_iter().enumerate()
            {
                let (moved, among) = moved(&self.ways[n], &ways[n], 1);
                eprintln!(
                    "{what}: of {} that {name} the drain {} moved, {among} of them between balancers that live; broken: {}",
                    crowd.ends().len(),
                    moved.len(),
                    crowd.broken().len() - broken[n],
                );
                assert!(2 * (crowd.broken().len() - broken[n]) <= moved.len(), "{what}: those of changed slots alone");
                assert!(moved.len() > crowd.ends().len() / 3, "{what}: the router moves flows");
                assert!(among > crowd.ends().len() / 10, "{what}: those of living balancers, too");
                let stayed = |flow: &&(usize, &str)| self.ways[n][flow.0] == ways[n][flow.0];
                let wronged: Vec<_> = crowd.broken().into_iter().filter(|flow| stayed(&flow)).collect();
                assert_eq!(wronged, [], "{what}: nothing has happened to these");
            }
            self.ways = ways;
        }
    }

    #[test]
    fn ten_thousand_connections_outlive_a_balancer_that_dies_amid_a_drain() {
        raise_descriptors();
        let mut world = World::new();
        world.balancers.iter_mut().for_each(Lab::start);
        world.balancers.iter().for_each(World::until_announced);
        let old = Crowd::open(&world.client, CONNECTIONS, &World::sources(), VIP);
        assert_eq!(old.broken(), []);
        let shares = world.balancers.iter().map(packets).collect::<Vec<_>>();
        let whole: u64 = shares.iter().sum();
        assert!(shares.iter().all(|share| *share > whole / 4), "the router spreads them: {shares:?}");

        // A backend drains on all of them; who comes now is another's.
        let passers = Passers::start(&world.client, World::sources()[0], VIP);
        for lab in &world.balancers {
            lab.write("lab.yaml", &documents(true));
        }
        for lab in &world.balancers {
            lab.until("it drains", |lab| lab.get(&["backends", BACKENDS[0]])[0]["state"] == "draining");
        }
        let late = Crowd::open(&world.client, LATE, &World::sources(), VIP);
        let ways = [&old, &late].map(|crowd| world.ways(&crowd.ends()));
        assert!((1..=BALANCERS).all(|n| ways[0].iter().filter(|way| **way == Some(n)).count() > CONNECTIONS / 4));
        let mut flows = Flows { old, late, ways };

        World::kill(&mut world.balancers[0]);
        flows.settled(&world, "one dies");
        World::bring_back(&mut world.balancers[0]);
        flows.settled(&world, "it comes back");
        assert!(packets(&world.balancers[0]) > CONNECTIONS as u64 / 2, "it has its part again");
        assert!(flows.old.broken().len() <= MOST_BROKEN, "{:?}", flows.old.broken());

        // Nothing of this moves a flow.
        let broken = [flows.old.broken().len(), flows.late.broken().len()];
        world.balancers[1].stop("-KILL");
        flows.old.until_said(1);
        world.balancers[1].start();
        let upgraded = &mut world.balancers[2];
        upgraded.stop("-TERM");
        // The next version brings another program.
        let denylist =
            "apiVersion: margay.io/v1\nkind: Denylist\nmetadata: {name: abuse}\nspec: {sources: [198.51.100.0/24]}\n";
        upgraded.write("denylist.yaml", denylist);
        upgraded.start();
        flows.old.until_said(2);
        flows.late.until_said(2);
        assert_eq!([flows.old.broken().len(), flows.late.broken().len()], broken, "{:?}", flows.old.broken());
        let passed = passers.stop();
        eprintln!("passers: {passed:?}");
        assert_eq!(passed.refused, 0);
        assert!(passed.broken * 100 <= passed.served, "{passed:?}");
    }
}
