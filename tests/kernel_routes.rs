//! The kernel's routes as the control thread sees them, followed live in a namespace.
//!
//! What is followed is compared with what `ip route` was told to do and, after each scenario, with a dump.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use margay::control::netlink::routes::{self, Hearing, Settings, Status, Update};
use model::desired::KernelRoutes;
use model::network::IfIndex;
use model::rib::{Gateway, Way};
use testkit::netns::{End, Netns, veth};
use tokio::sync::{mpsc, watch};

const MAIN: u32 = 254;

/// Longest that anything here takes, but for the big tables.
const PATIENCE: Duration = Duration::from_secs(20);

/// here: up0 (10.9.0.1, fd09::1) and up1 (10.8.0.1, fd08::1), each with its other end in a namespace of its own.
struct Lab {
    here: Netns,
    _there: Netns,
}

impl Lab {
    fn new() -> Self {
        let (here, there) = (Netns::new("kroutes").unwrap(), Netns::new("kroutes").unwrap());
        for (name, n) in [("up0", 9), ("up1", 8)] {
            let nets = |host: u8| -> Vec<IpNet> {
                vec![format!("10.{n}.0.{host}/24").parse().unwrap(), format!("fd0{n}::{host}/64").parse().unwrap()]
            };
            veth(
                End { netns: &here, name, addresses: &nets(1) },
                End { netns: &there, name: &format!("far{n}"), addresses: &nets(2) },
            )
            .unwrap();
        }
        Self { here, _there: there }
    }

    fn ip(&self, command: &str) {
        self.here.ip(&command.split(' ').collect::<Vec<_>>()).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Takes away what matches. `ip` gives a flush up after 30 seconds, which a million routes may take.
    fn flush(&self, what: &str) {
        let mut command = vec!["route", "flush"];
        command.extend(what.split(' '));
        let done = (0..10).map(|_| self.here.ip(&command)).find(Result::is_ok);
        assert!(done.is_some(), "the table is not flushed: {what}");
    }

    fn batch(&self, commands: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), commands).unwrap();
        self.here.ip(&["-batch", file.path().to_str().unwrap()]).unwrap();
    }

    fn index(&self, name: &str) -> IfIndex {
        let line = self.here.ip(&["-o", "link", "show", name]).unwrap();
        IfIndex(line.split(':').next().unwrap().parse().unwrap())
    }

    /// `via address dev name weight n`, or one word, as a way out.
    fn way(&self, text: &str) -> Way {
        let words: Vec<&str> = text.split(' ').collect();
        match words[0] {
            "host" => Way::Host,
            "blackhole" => Way::Blackhole,
            "prohibit" => Way::Prohibit,
            "unreachable" => Way::Unreachable,
            "dev" => Way::Link(self.index(words[1])),
            _ => Way::through(words.chunks(6).map(|hop| Gateway {
                address: hop[1].parse().unwrap(),
                ifindex: Some(self.index(hop[3])),
                weight: hop.get(5).map_or(1, |weight| weight.parse().unwrap()),
            }))
            .unwrap(),
        }
    }

    /// Runs a scenario in the namespace, on a runtime of one thread as the agent's.
    fn run<F: Future<Output = ()>>(&self, scenario: impl FnOnce() -> F + Send) {
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.here.enter().unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(scenario());
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }
}

/// What the owner would hold.
struct Followed {
    updates: mpsc::Receiver<Update>,
    settings: watch::Sender<Option<Settings>>,
    ways: BTreeMap<IpNet, Way>,
    status: Status,
    /// The smallest number of routes since it was last set.
    least: usize,
}

impl Followed {
    /// Follows the main table without audits, and has read it once.
    async fn start() -> Self {
        Self::start_with(Hearing::default(), 0).await
    }

    async fn start_with(hearing: Hearing, audit_seconds: u32) -> Self {
        let main = KernelRoutes { table: MAIN, audit_seconds, alternatives: false };
        let (settings, watched) = watch::channel(Some(main.into()));
        let (sender, updates) = mpsc::channel(4);
        tokio::spawn(routes::follow(watched, hearing, sender, |update| update));
        let (ways, status) = (BTreeMap::new(), Status::default());
        let mut followed = Self { updates, settings, ways, status, least: 0 };
        followed.until("synchronised", PATIENCE, |f| f.status.synchronised).await;
        followed
    }

    async fn until(&mut self, what: &str, limit: Duration, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + limit;
        while !holds(self) {
            let left = end.saturating_duration_since(Instant::now());
            let update = tokio::time::timeout(left, self.updates.recv()).await;
            let update = update.unwrap_or_else(|_| {
                panic!("not within {limit:?}: {what}; {} routes, {:?}", self.ways.len(), self.status)
            });
            self.take_in(update.unwrap());
        }
    }

    fn take_in(&mut self, update: Update) {
        for (prefix, way) in update.changes {
            match way {
                Some(way) => drop(self.ways.insert(prefix, way)),
                None => drop(self.ways.remove(&prefix)),
            }
            self.least = self.least.min(self.ways.len());
        }
        self.status = update.status;
    }

    /// Waits until a prefix has this way out, or none where it is empty.
    async fn until_way(&mut self, lab: &Lab, command: &str, prefix: &str, way: &str) {
        let expected = (!way.is_empty()).then(|| lab.way(way));
        let prefix: IpNet = prefix.parse().unwrap();
        self.until(&format!("{command}: {prefix} {way}"), PATIENCE, |f| f.ways.get(&prefix) == expected.as_ref()).await;
    }

    /// Waits until what is followed is what a dump shows.
    async fn until_equal(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        loop {
            let kernel = routes::dump(MAIN).await.unwrap();
            let settled = Instant::now() + Duration::from_millis(500);
            while let Ok(Some(update)) = tokio::time::timeout_at(settled.into(), self.updates.recv()).await {
                self.take_in(update);
            }
            if self.ways == kernel {
                return;
            }
            let differing = |(prefix, way): (&IpNet, &Way)| self.ways.get(prefix) != Some(way);
            let missing: Vec<_> = kernel.iter().filter(|route| differing(*route)).take(5).collect();
            let extra: Vec<_> = self.ways.keys().filter(|prefix| !kernel.contains_key(prefix)).take(5).collect();
            assert!(Instant::now() < end, "not the kernel's: {missing:?}, not in the kernel: {extra:?}");
        }
    }
}

/// `ip <command>`, a prefix, and its way out from then on.
type Step = (&'static str, &'static str, &'static str);

async fn play(lab: &Lab, followed: &mut Followed, steps: &[Step]) {
    for (command, prefix, way) in steps {
        lab.ip(command);
        followed.until_way(lab, command, prefix, way).await;
    }
    followed.until_equal(PATIENCE).await;
}

mod root {
    use super::*;

    #[test]
    fn routes_of_ipv4_are_followed() {
        let lab = Lab::new();
        let steps: &[Step] = &[
            ("route add 203.0.113.0/24 via 10.9.0.2", "203.0.113.0/24", "via 10.9.0.2 dev up0"),
            ("route replace 203.0.113.0/24 via 10.9.0.3", "203.0.113.0/24", "via 10.9.0.3 dev up0"),
            ("route add 203.0.113.0/24 via 10.9.0.4 metric 10", "203.0.113.0/24", "via 10.9.0.3 dev up0"),
            ("route del 203.0.113.0/24 via 10.9.0.3", "203.0.113.0/24", "via 10.9.0.4 dev up0"),
            ("route append 203.0.113.0/24 via 10.9.0.5 metric 10", "203.0.113.0/24", "via 10.9.0.4 dev up0"),
            ("route prepend 203.0.113.0/24 via 10.9.0.6 metric 10", "203.0.113.0/24", "via 10.9.0.6 dev up0"),
            ("route replace 203.0.113.0/24 via 10.9.0.7 metric 10", "203.0.113.0/24", "via 10.9.0.7 dev up0"),
            ("route del 203.0.113.0/24 via 10.9.0.7 metric 10", "203.0.113.0/24", "via 10.9.0.4 dev up0"),
            ("route del 203.0.113.0/24 via 10.9.0.4 metric 10", "203.0.113.0/24", "via 10.9.0.5 dev up0"),
            ("route del 203.0.113.0/24", "203.0.113.0/24", ""),
            (
                "route add 198.51.100.0/24 nexthop via 10.9.0.2 weight 3 nexthop via 10.8.0.2",
                "198.51.100.0/24",
                "via 10.9.0.2 dev up0 weight 3 via 10.8.0.2 dev up1 weight 1",
            ),
            ("route add 192.0.2.0/24 via inet6 fd09::2", "192.0.2.0/24", "via fd09::2 dev up0"),
            ("route add 192.0.2.0/25 via inet6 fe80::9 dev up1", "192.0.2.0/25", "via fe80::9 dev up1"),
            ("route add blackhole 100.64.0.0/10", "100.64.0.0/10", "blackhole"),
            ("route add unreachable 100.65.0.0/16", "100.65.0.0/16", "unreachable"),
            ("route add prohibit 100.66.0.0/16", "100.66.0.0/16", "prohibit"),
            ("route add throw 100.67.0.0/16", "100.67.0.0/16", "host"),
            ("route add 100.68.0.0/16 dev up1", "100.68.0.0/16", "dev up1"),
            ("route add default via 10.8.0.2", "0.0.0.0/0", "via 10.8.0.2 dev up1"),
            ("route add 10.0.0.0/8 via 10.9.0.2 mtu 1400", "10.0.0.0/8", "via 10.9.0.2 dev up0"),
            ("route append 10.0.0.0/8 via 10.9.0.2 mtu 1300", "10.0.0.0/8", "via 10.9.0.2 dev up0"),
            ("route del 10.0.0.0/8 via 10.9.0.2 mtu 1400", "10.0.0.0/8", "via 10.9.0.2 dev up0"),
            ("route del 10.0.0.0/8 via 10.9.0.2 mtu 1300", "10.0.0.0/8", ""),
            ("route add 10.0.0.0/8 tos 4 via 10.9.0.2", "10.0.0.0/8", ""),
            ("route add 10.0.0.0/8 table 7 via 10.9.0.2", "10.0.0.0/8", ""),
        ];
        lab.run(async || {
            let mut followed = Followed::start().await;
            play(&lab, &mut followed, steps).await;
            assert_eq!(followed.status.dumps, 1, "notifications alone: {:?}", followed.status);

            let settings = |table| Some(KernelRoutes { table, audit_seconds: 0, alternatives: false }.into());
            followed.settings.send(settings(7)).unwrap();
            let only = BTreeMap::from([("10.0.0.0/8".parse().unwrap(), lab.way("via 10.9.0.2 dev up0"))]);
            followed.until("the other table", PATIENCE, |f| f.ways == only && f.status.synchronised).await;
            followed.settings.send(settings(4711)).unwrap();
            followed.until("a table that is not there", PATIENCE, |f| f.ways.is_empty() && f.status.synchronised).await;
            followed.settings.send(settings(MAIN)).unwrap();
            followed.until("the main table", PATIENCE, |f| f.ways.len() > 5 && f.status.synchronised).await;
            followed.until_equal(PATIENCE).await;
            followed.settings.send(None).unwrap();
            followed.until("none", PATIENCE, |f| f.ways.is_empty() && f.status.table.is_none()).await;
        });
    }

    #[test]
    fn routes_of_ipv6_are_followed() {
        let lab = Lab::new();
        let steps: &[Step] = &[
            ("-6 route add 2001:db8::/48 via fd09::2", "2001:db8::/48", "via fd09::2 dev up0"),
            (
                "-6 route append 2001:db8::/48 via fd08::2",
                "2001:db8::/48",
                "via fd09::2 dev up0 weight 1 via fd08::2 dev up1 weight 1",
            ),
            (
                "-6 route append 2001:db8::/48 nexthop via fd09::3 nexthop via fd09::4",
                "2001:db8::/48",
                "via fd09::2 dev up0 weight 1 via fd08::2 dev up1 weight 1 \
                 via fd09::3 dev up0 weight 1 via fd09::4 dev up0 weight 1",
            ),
            (
                "-6 route del 2001:db8::/48 via fd09::2",
                "2001:db8::/48",
                "via fd08::2 dev up1 weight 1 via fd09::3 dev up0 weight 1 via fd09::4 dev up0 weight 1",
            ),
            ("-6 route replace 2001:db8::/48 via fd08::9", "2001:db8::/48", "via fd08::9 dev up1"),
            ("-6 route del 2001:db8::/48", "2001:db8::/48", ""),
            (
                "-6 route add 2001:db8:1::/48 nexthop via fd09::2 weight 4 nexthop via fd08::2",
                "2001:db8:1::/48",
                "via fd09::2 dev up0 weight 4 via fd08::2 dev up1 weight 1",
            ),
            (
                "-6 route replace 2001:db8:1::/48 nexthop via fd09::5 nexthop via fd08::5 weight 2",
                "2001:db8:1::/48",
                "via fd09::5 dev up0 weight 1 via fd08::5 dev up1 weight 2",
            ),
            ("-6 route del 2001:db8:1::/48", "2001:db8:1::/48", ""),
            ("-6 route add 2001:db8:2::/48 dev up0", "2001:db8:2::/48", "dev up0"),
            (
                "-6 route replace 2001:db8:2::/48 nexthop via fd09::5 nexthop via fd08::5",
                "2001:db8:2::/48",
                "via fd09::5 dev up0 weight 1 via fd08::5 dev up1 weight 1",
            ),
            ("-6 route replace 2001:db8:2::/48 dev up1", "2001:db8:2::/48", "dev up1"),
            ("-6 route append 2001:db8:2::/48 dev up0", "2001:db8:2::/48", "dev up1"),
            ("-6 route del 2001:db8:2::/48 dev up1", "2001:db8:2::/48", "dev up0"),
            ("-6 route add blackhole 2001:db8:3::/48", "2001:db8:3::/48", "blackhole"),
            ("-6 route add unreachable 2001:db8:4::/48", "2001:db8:4::/48", "unreachable"),
            ("-6 route add prohibit 2001:db8:5::/48", "2001:db8:5::/48", "prohibit"),
            ("-6 route add default via fe80::1 dev up0", "::/0", "via fe80::1 dev up0"),
            ("-6 route add default via fe80::2 dev up1 metric 9", "::/0", "via fe80::2 dev up1"),
            ("-6 route del default metric 9", "::/0", "via fe80::1 dev up0"),
            ("-6 route add 2001:db8:6::/48 from 2001:db8::/32 via fd09::2", "2001:db8:6::/48", ""),
        ];
        lab.run(async || {
            let mut followed = Followed::start().await;
            play(&lab, &mut followed, steps).await;
            assert_eq!(followed.status.dumps, 1, "notifications alone: {:?}", followed.status);
            assert!(
                followed.ways.keys().all(|prefix| !prefix.to_string().starts_with('f') || prefix.prefix_len() == 64)
            );
        });
    }

    #[test]
    fn nexthop_objects_are_followed() {
        let both = "via 10.9.0.2 dev up0 weight 1 via 10.8.0.2 dev up1 weight 3";
        let steps: &[Step] = &[
            ("nexthop add id 1 via 10.9.0.2 dev up0", "10.50.0.0/16", ""),
            ("nexthop add id 2 via 10.8.0.2 dev up1", "10.50.0.0/16", ""),
            ("nexthop add id 10 group 1/2,3", "10.50.0.0/16", ""),
            ("route add 10.50.0.0/16 nhid 10", "10.50.0.0/16", both),
            ("route add 10.51.0.0/16 nhid 1", "10.51.0.0/16", "via 10.9.0.2 dev up0"),
            ("nexthop replace id 1 via 10.9.0.7 dev up0", "10.51.0.0/16", "via 10.9.0.7 dev up0"),
            (
                "nexthop replace id 1 via 10.9.0.8 dev up0",
                "10.50.0.0/16",
                "via 10.9.0.8 dev up0 weight 1 via 10.8.0.2 dev up1 weight 3",
            ),
            ("nexthop replace id 10 group 2", "10.50.0.0/16", "via 10.8.0.2 dev up1"),
            ("nexthop add id 40 group 1/2 type resilient buckets 32", "10.52.0.0/16", ""),
            (
                "route add 10.52.0.0/16 nhid 40",
                "10.52.0.0/16",
                "via 10.9.0.8 dev up0 weight 1 via 10.8.0.2 dev up1 weight 1",
            ),
            ("nexthop add id 30 blackhole", "10.53.0.0/16", ""),
            ("route add 10.53.0.0/16 nhid 30", "10.53.0.0/16", "blackhole"),
            ("nexthop add id 31 dev up1", "10.54.0.0/16", ""),
            ("route add 10.54.0.0/16 nhid 31", "10.54.0.0/16", "dev up1"),
            ("nexthop add id 60 via fd09::2 dev up0", "2001:db8:60::/48", ""),
            ("-6 route add 2001:db8:60::/48 nhid 60", "2001:db8:60::/48", "via fd09::2 dev up0"),
            ("route add 10.60.0.0/16 nhid 60", "10.60.0.0/16", "via fd09::2 dev up0"),
            ("nexthop replace id 60 via fd08::2 dev up1", "2001:db8:60::/48", "via fd08::2 dev up1"),
            ("nexthop del id 60", "2001:db8:60::/48", ""),
            ("nexthop del id 1", "10.51.0.0/16", ""),
            ("nexthop del id 10", "10.50.0.0/16", ""),
        ];
        for compatible in ["1", "0"] {
            let lab = Lab::new();
            lab.here.sysctl("net.ipv4.nexthop_compat_mode", compatible).unwrap();
            lab.run(async || {
                let mut followed = Followed::start().await;
                play(&lab, &mut followed, steps).await;
            });
        }
    }

    #[test]
    fn what_the_kernel_does_without_a_word_is_followed_too() {
        let lab = Lab::new();
        lab.batch(
            "addr add 10.9.0.77/24 dev up0
             route add 203.0.113.0/24 via 10.9.0.2
             route add 198.51.100.0/24 nexthop via 10.9.0.2 nexthop via 10.8.0.2
             route add 192.0.2.0/24 via 10.9.0.2 src 10.9.0.77
             route add 2001:db8::/48 via fd09::2
             route add 2001:db8:1::/48 nexthop via fd09::2 nexthop via fd08::2",
        );
        lab.run(async || {
            let mut followed = Followed::start().await;
            let held = |f: &Followed, prefix: &str| f.ways.contains_key(&prefix.parse::<IpNet>().unwrap());
            lab.ip("addr del 10.9.0.77/24 dev up0");
            followed.until("gone with its source", PATIENCE, |f| !held(f, "192.0.2.0/24")).await;
            followed.until_equal(PATIENCE).await;
            lab.ip("link set up0 down");
            followed.until("gone with its link", PATIENCE, |f| !held(f, "203.0.113.0/24")).await;
            assert!(held(&followed, "198.51.100.0/24"), "it has another link");
            followed.until_equal(PATIENCE).await;
            lab.ip("link set up0 up");
            lab.ip("route add 203.0.113.0/24 via 10.9.0.2");
            followed.until("there again", PATIENCE, |f| held(f, "203.0.113.0/24")).await;
            followed.until_equal(PATIENCE).await;
            lab.here.sysctl("net.ipv6.route.skip_notify_on_dev_down", "1").unwrap();
            lab.ip("link set up1 down");
            lab.ip("link set up0 down");
            followed.until("gone with the last", PATIENCE, |f| !held(f, "198.51.100.0/24")).await;
            followed.until_equal(PATIENCE).await;
            lab.ip("link set up0 up");
            lab.ip("link set up1 up");
            lab.ip("route add 203.0.113.0/24 via 10.9.0.2");
            followed.until_equal(PATIENCE).await;
            lab.ip("link del up0");
            followed.until("gone with the interface", PATIENCE, |f| !held(f, "203.0.113.0/24")).await;
            followed.until_equal(PATIENCE).await;
            lab.ip("addr flush dev up1");
            followed.until_equal(PATIENCE).await;
        });
    }

    /// `count` routes from 20.0.0.0/24 up.
    fn commands(verb: &str, count: u32, gateway: &str) -> String {
        (0..count).fold(String::new(), |mut text, n| {
            let net = std::net::Ipv4Addr::from((20 << 24) + (n << 8));
            writeln!(text, "route {verb} {net}/24 via {gateway}").unwrap();
            text
        })
    }

    #[test]
    fn lost_notifications_are_made_good_and_nothing_is_taken_away_meanwhile() {
        const ROUTES: u32 = 20_000;
        let lab = Lab::new();
        lab.batch(&commands("add", ROUTES, "10.9.0.2"));
        lab.run(async || {
            let hearing = Hearing { room: 4096, ..Hearing::default() };
            let mut followed = Followed::start_with(hearing, 0).await;
            let before = followed.ways.len();
            assert!(before >= ROUTES as usize);
            followed.least = before;
            // Nobody reads meanwhile: this blocks the runtime on purpose.
            lab.batch(&commands("replace", ROUTES, "10.9.0.3"));
            let wanted = lab.way("via 10.9.0.3 dev up0");
            followed
                .until("all replaced", PATIENCE, |f| {
                    f.ways.values().filter(|way| **way == wanted).count() == ROUTES as usize
                })
                .await;
            assert!(followed.status.overruns > 0, "{:?}", followed.status);
            assert_eq!(followed.least, before, "no route was missing at any time");
            followed.until_equal(PATIENCE).await;
            lab.batch(&commands("del", ROUTES / 2, "10.9.0.3"));
            followed.until_equal(PATIENCE).await;
            assert_eq!(followed.ways.len(), before - ROUTES as usize / 2);
        });
    }

    #[test]
    fn an_audit_finds_and_repairs_what_was_not_heard_of() {
        let lab = Lab::new();
        lab.run(async || {
            let hearing = Hearing { routes: false, ..Hearing::default() };
            let mut followed = Followed::start_with(hearing, 1).await;
            let held = followed.ways.len();
            lab.batch(&commands("add", 100, "10.9.0.2"));
            followed.until("an audit", PATIENCE, |f| f.status.repaired == 100 && f.ways.len() == held + 100).await;
            lab.ip("route flush root 20.0.0.0/8");
            followed.until("another", PATIENCE, |f| f.status.repaired == 200 && f.ways.len() == held).await;
            assert!(followed.status.audits >= 2 && followed.status.audited.is_some());
            followed.until_equal(PATIENCE).await;
        });
        // With nothing to find, audits find nothing, whatever happens meanwhile.
        lab.run(async || {
            let mut followed = Followed::start_with(Hearing::default(), 1).await;
            let churn = std::thread::scope(|scope| {
                let churn = scope.spawn(|| {
                    for _ in 0..10 {
                        lab.batch(&commands("add", 5_000, "10.9.0.2"));
                        lab.ip("route flush root 20.0.0.0/8");
                    }
                });
                churn.join()
            });
            churn.unwrap();
            followed.until("audits", PATIENCE, |f| f.status.audits >= 3).await;
            assert_eq!(followed.status.repaired, 0, "{:?}", followed.status);
            followed.until_equal(PATIENCE).await;
        });
    }

    async fn many(lab: &Lab, count: u32) {
        let begin = Instant::now();
        lab.batch(&commands("add", count, "10.9.0.2"));
        let installed = begin.elapsed();
        let begin = Instant::now();
        let dumped = routes::dump(MAIN).await.unwrap().len();
        let dump = begin.elapsed();
        let begin = Instant::now();
        let mut followed = Followed::start().await;
        eprintln!(
            "{count} routes: installed by ip -batch in {installed:?}, dumped in {dump:?}, first synchronised in {:?}",
            begin.elapsed()
        );
        assert_eq!(followed.ways.len(), dumped);
        let begin = Instant::now();
        lab.flush("via 10.9.0.2");
        let flushed = begin.elapsed();
        followed.until_equal(Duration::from_secs(60)).await;
        eprintln!("flushed in {flushed:?}, followed after {:?}, {:?}", begin.elapsed(), followed.status);
        assert_eq!(followed.ways.len(), dumped - count as usize);
    }

    #[test]
    fn a_big_table_is_read_and_its_flush_followed() {
        let lab = Lab::new();
        lab.run(async || many(&lab, 50_000).await);
    }

    /// As root: `cargo test --release -p margay --test kernel_routes -- --ignored --nocapture a_full_table`. It takes two to four
    /// minutes, most of them `ip`'s, and 2 GB of memory.
    #[test]
    #[ignore = "a million routes take minutes and a release build"]
    fn a_full_table_is_read_and_its_flush_followed() {
        let lab = Lab::new();
        lab.run(async || many(&lab, 1_000_000).await);
    }
}
