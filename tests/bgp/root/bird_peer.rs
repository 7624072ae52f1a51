//! BIRD as the peer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::desired::{BgpPeer, Community};
use model::network::IfIndex;
use model::rib::Gateway;
use testkit::netns::Netns;

use crate::bird::{Bird, session, statics};
use crate::harness::{Driven, Lab, THEM, US, address, bgp, eventually, nets, peer};

const BOTH: [&str; 2] = ["ipv4", "ipv6"];
const LOAD: Duration = Duration::from_secs(20);

#[test]
fn both_families_over_ipv4_external_and_active() {
    let lab = Lab::new(1);
    let config = statics(1000) + &session("m", "10.77.0.2", THEM, "10.77.0.1 as 65001", &BOTH, "passive yes;");
    let bird = Bird::start(&lab.theirs[0], "10.77.0.2", &config);
    lab.drive(|mut d| async move {
        let mut config = bgp(vec![peer("10.77.0.2")]);
        config.communities = vec![(
            "192.0.2.0/24".parse().unwrap(),
            vec![Community::Standard(65001, 80), Community::Large(65001, 1, 2)],
        )];
        d.configure(config);
        d.speaker.announce(nets(&["192.0.2.80/32", "2001:db8::80/128"]));
        d.until_routes(2000, LOAD).await;
        for (prefix, route) in &d.rib {
            let gateway = if prefix.addr().is_ipv4() { "10.77.0.2" } else { "2001:db8:77:0::2" };
            assert_eq!((route.gateways.as_slice(), route.internal), ([address(gateway).into()].as_slice(), false));
        }
        d.until("End-of-RIB of both families", LOAD, |d| d.converged == 1).await;
        let status = d.status(address("10.77.0.2")).unwrap();
        assert_eq!((status.prefixes_received, status.prefixes_accepted, status.prefixes_sent), (2000, 2000, 2));
        assert_eq!((status.hold_seconds, status.flaps), (Some(9), 0));
        assert_eq!(status.families, ["ipv4", "ipv6"]);

        eventually("our prefixes at BIRD", LOAD, || {
            let routes = bird.routes("m");
            ["192.0.2.80/32", "2001:db8::80/128", "BGP.as_path: 65001", "(65001,80)", "(65001, 1, 2)"]
                .iter()
                .all(|words| routes.contains(words))
        })
        .await;
        assert!(bird.routes("m").contains("BGP.next_hop: 10.77.0.1"));
        assert!(bird.routes("m").contains("BGP.next_hop: 2001:db8:77::1"));

        // 500 of each family go, within a second where the machine lets the processes run.
        let mut fastest = Duration::MAX;
        for _ in 0..3 {
            let start = Instant::now();
            for name in ["four_b", "six_b"] {
                bird.ask(&format!("disable {name}"));
            }
            d.until_routes(1000, LOAD).await;
            fastest = fastest.min(start.elapsed());
            if fastest < Duration::from_secs(1) {
                break;
            }
            for name in ["four_b", "six_b"] {
                bird.ask(&format!("enable {name}"));
            }
            d.until_routes(2000, LOAD).await;
        }
        assert!(fastest < Duration::from_secs(1), "1,000 prefixes withdrawn in {fastest:?}");

        // What we no longer announce goes at BIRD.
        d.speaker.announce(nets(&["2001:db8::80/128"]));
        eventually("our prefix gone at BIRD", LOAD, || !bird.routes("m").contains("192.0.2.80/32")).await;
        assert!(bird.routes("m").contains("2001:db8::80/128"));
        d.speaker.shutdown(false).await;
        eventually("the session down at BIRD", LOAD, || {
            bird.ask("show protocols all m").contains("Received: Administrative shutdown")
        })
        .await;
    });
}

#[test]
fn a_session_a_family_internal_and_passive() {
    let lab = Lab::new(1);
    let config = statics(1000)
        + &session("four", "10.77.0.2", US, "10.77.0.1 as 65001", &["ipv4"], "")
        + &session("six", "2001:db8:77::2", US, "2001:db8:77::1 as 65001", &["ipv6"], "");
    let bird = Bird::start(&lab.theirs[0], "10.77.0.2", &config);
    lab.drive(|mut d| async move {
        let passive = |address: &str| BgpPeer { asn: US, passive: true, ..peer(address) };
        d.configure(bgp(vec![passive("10.77.0.2"), passive("2001:db8:77::2")]));
        d.speaker.announce(nets(&["192.0.2.80/32", "2001:db8::80/128"]));
        d.until_routes(2000, LOAD).await;
        assert!(d.rib.values().all(|route| route.internal));
        for (peer, family) in [("10.77.0.2", "ipv4"), ("2001:db8:77::2", "ipv6")] {
            let status = d.status(address(peer)).unwrap();
            assert_eq!((status.prefixes_accepted, status.prefixes_sent), (1000, 1));
            assert_eq!(status.families, [family]);
        }
        eventually("our prefixes at BIRD", LOAD, || {
            bird.routes("four").contains("192.0.2.80/32") && bird.routes("six").contains("2001:db8::80/128")
        })
        .await;
        assert!(bird.routes("four").contains("BGP.local_pref: 100"));
    });
}

#[test]
fn both_families_over_ipv6() {
    let lab = Lab::new(1);
    let config = statics(1000) + &session("m", "2001:db8:77::2", THEM, "2001:db8:77::1 as 65001", &BOTH, "");
    let bird = Bird::start(&lab.theirs[0], "10.77.0.2", &config);
    lab.drive(|mut d| async move {
        d.configure(bgp(vec![peer("2001:db8:77::2")]));
        d.speaker.announce(nets(&["192.0.2.80/32", "2001:db8::80/128"]));
        d.until_routes(2000, LOAD).await;
        eventually("our prefixes at BIRD", LOAD, || {
            let routes = bird.routes("m");
            routes.contains("BGP.next_hop: 10.77.0.1") && routes.contains("BGP.next_hop: 2001:db8:77::1")
        })
        .await;
    });
}

/// The link-local address of an interface, which the kernel makes when the link has come up: up to a second later.
fn link_local(netns: &Netns, interface: &str) -> String {
    let end = Instant::now() + LOAD;
    loop {
        let text = netns.ip(&["-6", "-o", "addr", "show", "dev", interface, "scope", "link"]).unwrap();
        if let Some(address) = text.split_whitespace().find_map(|word| word.strip_suffix("/64")) {
            return address.to_owned();
        }
        assert!(Instant::now() < end, "{interface} has no link-local address");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// RFC 8950, and RFC 2545 where the global next hop is on no network of the link.
#[test]
fn ipv4_routes_over_ipv6_have_ipv6_next_hops() {
    for (options, next_hop) in [("", Some("2001:db8:77::2")), ("next hop address 2001:db8:99::2;", None)] {
        let lab = Lab::new(1);
        let session = session("m", "2001:db8:77::2", THEM, "2001:db8:77::1 as 65001", &BOTH, "")
            .replace("ipv4 {", &format!("ipv4 {{ extended next hop on; {options}"))
            .replace("ipv6 {", &format!("ipv6 {{ {options}"));
        for (netns, interface) in [(&lab.ours, "peer0"), (&*lab.theirs[0], "uplink")] {
            link_local(netns, interface);
        }
        let bird = Bird::start(&lab.theirs[0], "10.77.0.2", &(statics(10) + &session));
        let link: String = lab.ours.ip(&["-o", "link", "show", "peer0"]).unwrap();
        let ifindex = Some(IfIndex(link.split(':').next().unwrap().parse().unwrap()));
        lab.drive(move |mut d| async move {
            d.configure(bgp(vec![peer("2001:db8:77::2")]));
            d.speaker.announce(nets(&["192.0.2.80/32", "2001:db8::80/128"]));
            d.until_routes(20, LOAD).await;
            for (prefix, route) in &d.rib {
                let [gateway] = route.gateways.as_slice() else { panic!("{prefix}: {route:?}") };
                match next_hop {
                    Some(next_hop) => assert_eq!(*gateway, address(next_hop).into(), "{prefix}"),
                    None => {
                        let IpAddr::V6(link_local) = gateway.address else { panic!("{prefix}: {route:?}") };
                        assert!(
                            link_local.is_unicast_link_local() && gateway.ifindex == ifindex,
                            "{prefix}: {route:?}"
                        );
                    }
                }
            }
            eventually("our prefixes at BIRD", LOAD, || {
                let routes = bird.routes("m");
                ["192.0.2.80/32", "2001:db8::80/128"].iter().all(|prefix| routes.contains(prefix))
            })
            .await;
            let routes = bird.routes("m");
            assert_eq!(routes.matches("BGP.next_hop: 2001:db8:77::1 fe80::").count(), 2, "{routes}");
            d.speaker.announce(nets(&[]));
            eventually("our prefixes gone at BIRD", LOAD, || !bird.routes("m").contains("BGP.next_hop")).await;
        });
    }
}

/// A link without global IPv6 addresses: the session, and the next hops of both families, are link-local.
#[test]
fn a_link_local_peer_needs_no_other_address() {
    let lab = Lab::new(1);
    let alone = |netns: &Netns, interface: &str, global: &str| {
        netns.ip(&["addr", "del", global, "dev", interface]).unwrap();
        link_local(netns, interface)
    };
    let ours = alone(&lab.ours, "peer0", "2001:db8:77:0::1/64");
    let theirs = alone(&lab.theirs[0], "uplink", "2001:db8:77:0::2/64");
    for passive in [false, true] {
        let option = if passive { "" } else { "passive yes;" };
        let session = session("m", "", THEM, &format!("{ours}%uplink as 65001"), &BOTH, option)
            .replace("ipv4 {", "ipv4 { extended next hop on;");
        let bird = Bird::start(&lab.theirs[0], "10.77.0.2", &(statics(10) + &session));
        let ours = ours.clone();
        let there = BgpPeer { interface: Some("peer0".to_owned()), passive, ..peer(&theirs) };
        lab.drive(move |mut d| async move {
            let on_link = |gateway: &Gateway| gateway.address == there.address && gateway.ifindex.is_some();
            d.configure(bgp(vec![there.clone()]));
            d.speaker.announce(nets(&["192.0.2.80/32", "2001:db8::80/128"]));
            d.until_routes(20, LOAD).await;
            assert!(d.rib.values().all(|route| route.gateways.iter().all(on_link)), "{:?}", d.rib);
            eventually("our prefixes at BIRD", LOAD, || {
                let routes = bird.routes("m");
                ["192.0.2.80/32", "2001:db8::80/128"].iter().all(|prefix| routes.contains(prefix))
            })
            .await;
            assert!(bird.routes("m").contains(&format!("via {ours} on uplink")), "{}", bird.routes("m"));
            // On another link, nobody has that address.
            d.configure(bgp(vec![BgpPeer { interface: Some("lo".to_owned()), ..there.clone() }]));
            d.until("the session down", LOAD, |d| !d.downs.is_empty()).await;
            d.pass(Duration::from_secs(3)).await;
            assert_ne!(d.status(there.address).unwrap().state, "Established");
        });
    }
}

#[test]
fn a_killed_speaker_keeps_its_routes_at_the_peer() {
    let lab = Lab::new(1);
    let config = statics(10) + &session("m", "10.77.0.2", THEM, "10.77.0.1 as 65001", &BOTH, "");
    let bird = Bird::start(&lab.theirs[0], "10.77.0.2", &config);
    let ours = || {
        let routes = bird.routes("m");
        routes.contains("192.0.2.80/32") && routes.contains("2001:db8::80/128")
    };
    // The runtime goes with its sockets, as when the process is killed.
    lab.drive(|mut d| async move {
        d.configure(bgp(vec![peer("10.77.0.2")]));
        d.speaker.announce(nets(&["192.0.2.80/32", "2001:db8::80/128"]));
        d.until_routes(20, LOAD).await;
        d.until("everything sent", LOAD, |d| d.converged == 1).await;
        d.pass(Duration::from_millis(300)).await;
    });
    let gone = || {
        bird.ask("show protocols m").contains("graceful restart")
            || !bird.ask("show protocols m").contains("Established")
    };
    let end = Instant::now() + LOAD;
    while !gone() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(gone(), "BIRD still sees the session: {}", bird.ask("show protocols all m"));
    assert!(ours(), "BIRD has dropped our routes: {}", bird.ask("show protocols all m"));

    // The next one announces less, and only once it knows what it has.
    lab.drive(|mut d| async move {
        d.configure(bgp(vec![peer("10.77.0.2")]));
        d.until_routes(20, LOAD).await;
        d.pass(Duration::from_secs(1)).await;
        let routes = bird.routes("m");
        assert!(routes.contains("192.0.2.80/32"), "gone before we have said what we have: {routes}");
        d.speaker.announce(nets(&["2001:db8::80/128"]));
        eventually("the stale route gone at BIRD", LOAD, || !bird.routes("m").contains("192.0.2.80/32")).await;
        assert!(bird.routes("m").contains("2001:db8::80/128"));
        assert_eq!(d.status(address("10.77.0.2")).unwrap().flaps, 0);
    });
}

/// Kills BIRD, checks that its routes stay, starts it again with half of them and returns the smallest number of routes
/// that there was.
fn restart(arguments: &'static [&'static str]) -> usize {
    let lab = Lab::new(1);
    let with = |count| statics(count) + &session("m", "10.77.0.2", THEM, "10.77.0.1 as 65001", &BOTH, "");
    let bird = Bird::start(&lab.theirs[0], "10.77.0.2", &with(100));
    let (netns, fewer) = (Arc::clone(&lab.theirs[0]), with(50));
    let (sender, least) = std::sync::mpsc::channel();
    lab.drive(move |mut d| async move {
        d.configure(bgp(vec![peer("10.77.0.2")]));
        d.speaker.announce(nets(&[]));
        d.until_routes(200, LOAD).await;
        d.least = d.rib.len();
        drop(bird);
        d.until("session down", LOAD, |d| !d.downs.is_empty()).await;
        d.pass(Duration::from_secs(1)).await;
        assert_eq!(d.least, 200, "stale routes forward");
        let _bird = Bird::start_with(&netns, "10.77.0.2", &fewer, arguments);
        d.until_established("10.77.0.2").await;
        d.until_routes(100, LOAD).await;
        sender.send(d.least).unwrap();
    });
    least.recv().unwrap()
}

#[test]
fn routes_of_a_peer_that_kept_forwarding_stay_until_it_has_spoken() {
    assert_eq!(restart(&["-R"]), 100);
}

#[test]
fn routes_of_a_peer_that_lost_its_forwarding_state_go_when_it_is_back() {
    assert_eq!(restart(&[]), 0);
}

#[test]
fn keys_and_hop_limits_protect_a_session() {
    let lab = Lab::new(1);
    let options = "password \"secret\"; ttl security on;";
    let config = statics(10)
        + &session("four", "10.77.0.2", THEM, "10.77.0.1 as 65001", &["ipv4"], options)
        + &session("six", "2001:db8:77::2", THEM, "2001:db8:77::1 as 65001", &["ipv6"], options);
    let bird = Bird::start(&lab.theirs[0], "10.77.0.2", &config);
    lab.drive(|mut d| async move {
        let secured = |address: &str, passive, password: &str| BgpPeer {
            passive,
            password: Some(password.to_owned()),
            ttl_security: Some(1),
            ..peer(address)
        };
        // A wrong key keeps the session down.
        d.configure(bgp(vec![secured("10.77.0.2", false, "wrong")]));
        d.pass(Duration::from_secs(3)).await;
        assert_ne!(d.status(address("10.77.0.2")).unwrap().state, "Established");
        for passive in [false, true] {
            let peers = ["10.77.0.2", "2001:db8:77::2"].map(|address| secured(address, passive, "secret"));
            d.configure(bgp(peers.to_vec()));
            d.until_routes(20, LOAD).await;
            // Let the next round start from nothing.
            d.speaker.configure(None, std::net::Ipv4Addr::new(10, 77, 0, 1));
            d.until_routes(0, LOAD).await;
        }
        drop(bird);
    });
}

#[test]
fn other_peers_and_prefixes_do_not_touch_a_session() {
    let lab = Lab::new(2);
    let config =
        |n: u8| statics(10) + &session("m", &format!("10.77.{n}.2"), THEM, &format!("10.77.{n}.1 as 65001"), &BOTH, "");
    let birds =
        [Bird::start(&lab.theirs[0], "10.77.0.2", &config(0)), Bird::start(&lab.theirs[1], "10.77.1.2", &config(1))];
    lab.drive(|mut d| async move {
        d.configure(bgp(vec![peer("10.77.0.2")]));
        d.speaker.announce(nets(&["192.0.2.80/32"]));
        d.until_routes(20, LOAD).await;
        // Another peer comes: the routes of both are equal and share the traffic.
        d.configure(bgp(vec![peer("10.77.0.2"), peer("10.77.1.2")]));
        d.until("two gateways for every prefix", LOAD, |d| d.rib.values().all(|r| r.gateways.len() == 2)).await;
        d.configure(bgp(vec![BgpPeer { name: "renamed".to_owned(), ..peer("10.77.0.2") }]));
        d.until("one gateway for every prefix", LOAD, |d| d.rib.values().all(|r| r.gateways.len() == 1)).await;
        let status = d.status(address("10.77.0.2")).unwrap();
        assert_eq!((status.name.as_str(), status.flaps), ("renamed", 0));
        assert!(birds[1].ask("show protocols all m").contains("Received: Peer de-configured"));
        assert_eq!(d.downs.len(), 1);
    });
}

#[test]
fn a_port_that_is_taken_is_reported_and_tried_again() {
    let lab = Lab::new(1);
    let thief = lab.ours.thread(|| std::net::TcpListener::bind("0.0.0.0:179").unwrap()).join().unwrap().unwrap();
    lab.drive(move |mut d: Driven| async move {
        d.configure(bgp(vec![peer("10.77.0.2")]));
        d.until("the failure is reported", LOAD, |d| !d.listen_failures.is_empty()).await;
        assert!(d.listen_failures[0].starts_with("0.0.0.0:179: "), "{:?}", d.listen_failures);
        drop(thief);
        eventually("a listener", LOAD, || std::net::TcpStream::connect("10.77.0.1:179").is_ok()).await;
    });
}
