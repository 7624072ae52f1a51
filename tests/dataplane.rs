//! Pins, adoption, reconcile and attach, on real maps and links.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod root {
    use std::collections::BTreeMap;
    use std::net::IpAddr;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::Duration;

    use ipnet::IpNet;
    use margay::dataplane::{Applied, Attach, Count, Dataplane, Encapsulated, Error, Stage, detach_all};
    use model::compile::{Compiler, compile};
    use model::denylist::{Denied, Denylist};
    use model::desired::{AttachMode, Desired, Interface, MaxMss, SourceValidation, TunnelKind};
    use model::ids::{Ids, Limits};
    use model::network::{IfIndex, Link, Mac, Network};
    use model::quic::ServerId;
    use model::rib::{Gateway, Origin, Rib, Way};
    use model::tables::{
        Adjacency, AdjacencyId, Backend, BackendId, Features, FilterNext, FilterOp, FilterTest, GROUP_BUCKETS, Group,
        GroupId, InnerSources, NextHop, NextHopId, Outer, Parameters, Port, PortId, PortKey, RING_SLOTS, Slot,
        SourceRange, Tables, TunnelPeer, VipAddressId, VipId, VipKey, VrfId,
    };
    use model::verdict::{DropReason, Verdict};
    use testkit::netns::{End, Netns, veth};

    /// A pin directory of the test's own, gone with it.
    struct PinDir(PathBuf);

    impl PinDir {
        fn new(name: &str) -> Self {
            Self(PathBuf::from(format!("/sys/fs/bpf/margay-test-{name}-{}", std::process::id())))
        }
    }

    impl Drop for PinDir {
        fn drop(&mut self) {
            detach_all(&self.0).unwrap();
        }
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    /// Sources that are denied.
    fn denied<const N: usize>(prefixes: [&str; N]) -> Denylist {
        prefixes.map(|prefix| (net(prefix), Denied::SOURCE)).into_iter().collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// One of everything, both families, with an incomplete adjacency and a VLAN.
    fn tables(ifindex: IfIndex) -> Tables {
        let mut t = Tables::default();
        t.ports.insert(
            PortKey { ifindex, vlan: None },
            Port {
                id: PortId(1),
                mac: Mac([2, 0, 0, 0, 0, 1]),
                filter: Some(0),
                validation: SourceValidation::Strict,
                vrf: VrfId::DEFAULT,
            },
        );
        t.ports.insert(
            PortKey { ifindex, vlan: Some(100) },
            Port {
                id: PortId(2),
                mac: Mac([2, 0, 0, 0, 0, 1]),
                filter: None,
                validation: SourceValidation::Loose,
                vrf: VrfId::DEFAULT,
            },
        );
        t.clamps_in.insert(PortId(2), MaxMss { ipv4: Some(1_400), ipv6: None });
        t.clamps_out.insert(IfIndex(4_000_000), MaxMss { ipv4: None, ipv6: Some(1_380) });
        t.denylist = denied(["198.51.100.0/24", "2001:db8:bad::/48"]);
        t.filter = vec![FilterOp {
            test: FilterTest::Protocol(6),
            on_match: FilterNext::Deny,
            on_miss: FilterNext::Allow,
            on_absent: FilterNext::Allow,
        }];
        t.tunnel_peers = BTreeMap::from([
            (TunnelPeer { kind: TunnelKind::Ipip, source: net("10.0.0.0/24") }, InnerSources::Any),
            (TunnelPeer { kind: TunnelKind::Ipip, source: net("10.0.0.1/32") }, InnerSources::Own),
            (
                TunnelPeer { kind: TunnelKind::Vxlan { vni: 4096 }, source: net("2001:db8::/64") },
                InnerSources::Ranges { first: 1, count: 1 },
            ),
        ]);
        t.tunnel_sources = vec![SourceRange { first: 1, last: 2 }, SourceRange { first: 7, last: 1 << 100 }];
        t.adjacencies.insert(
            AdjacencyId(1),
            Adjacency {
                ifindex,
                vlan: None,
                mtu: 1500,
                source: Mac([2, 0, 0, 0, 0, 1]),
                destination: Some(Mac([2, 0, 0, 0, 0, 2])),
            },
        );
        t.adjacencies.insert(
            AdjacencyId(2),
            Adjacency { ifindex, vlan: Some(100), mtu: 9000, source: Mac([2, 0, 0, 0, 0, 1]), destination: None },
        );
        let forward = |address, adjacency| NextHop::Forward { address, ifindex, adjacency: AdjacencyId(adjacency) };
        t.next_hops.insert(NextHopId(1), forward(ip("192.0.2.2"), 1));
        t.next_hops.insert(NextHopId(2), forward(ip("2001:db8::2"), 2));
        t.next_hops.insert(NextHopId(3), NextHop::Receive { vip: None });
        t.next_hops.insert(NextHopId(4), NextHop::Vip(ip("203.0.113.1").into()));
        t.next_hops.insert(NextHopId(5), NextHop::Vip(net("2001:db8:100::/48")));
        let [vip, vips] = [1, 2].map(|number| VipAddressId(number).group());
        for (id, hop) in [(GroupId(1), 1), (GroupId(2), 2), (GroupId(3), 3), (vip, 4), (vips, 5)] {
            t.groups.insert(id, Group { buckets: vec![NextHopId(hop); GROUP_BUCKETS] });
        }
        t.fib.insert(net("0.0.0.0/0"), GroupId(1));
        t.fib.insert(net("2001:db8:1::/48"), GroupId(2));
        t.fib.insert(net("192.0.2.1/32"), GroupId(3));
        t.fib.insert(net("203.0.113.1/32"), vip);
        t.fib.insert(net("2001:db8:100::/48"), vips);
        t.affinity.insert(VipId(3), Duration::from_secs(10_800));
        t.quic.insert(VipId(2), [0, 4, 0, 0, 0, 0, 9, 0]);
        t.quic_servers.insert((VipId(2), ServerId::new(&[1, 2, 3, 4]).unwrap()), BackendId(1));
        t.quic_servers.insert((VipId(2), ServerId::new(&[7; 9]).unwrap()), BackendId(2));
        t.vips.insert(VipKey::of_port(ip("203.0.113.1"), 80, 6), VipId(1));
        let prefix = net("2001:db8:100::/48");
        t.vips.insert(VipKey { prefix, port: Some(53), protocol: Some(17) }, VipId(2));
        for (vip, protocol) in [(3, Some(6)), (4, Some(17)), (5, Some(132)), (6, None)] {
            t.vips.insert(VipKey { prefix, port: None, protocol }, VipId(vip));
        }
        t.vips.insert(VipKey { prefix: net("203.0.113.1/32"), port: None, protocol: None }, VipId(7));
        for vip in 1..=7 {
            t.rings.insert(VipId(vip), Arc::from(vec![Slot::from(BackendId(1)); RING_SLOTS]));
        }
        t.backends.insert(
            BackendId(1),
            Backend {
                vip: VipId(1),
                address: ip("10.1.0.1"),
                outer: Outer::Ipip { source: ip("192.0.0.0"), destination: ip("10.1.0.1"), varied: 16 },
                group: GroupId(1),
                inner_mtu: 1480,
                draining: false,
            },
        );
        t.backends.insert(
            BackendId(2),
            Backend {
                vip: VipId(1),
                address: ip("2001:db8::7"),
                outer: Outer::Gue { source: ip("2001:db8::1"), destination: ip("2001:db8::7") },
                group: GroupId(2),
                inner_mtu: 1452,
                draining: true,
            },
        );
        // It goes down: checks find it, and nobody else.
        t.checked.insert(BackendId(3), Backend { draining: false, ..t.backends[&BackendId(2)] });
        t
    }

    fn apply(dataplane: &mut Dataplane, tables: &Tables, attach: &[Attach]) -> Applied {
        dataplane.apply(tables, Features::FULL, &Parameters::default(), attach).unwrap()
    }

    /// A namespace with a veth pair; its thread runs `work` with the first end's index.
    fn with_veth<T: Send + 'static>(work: impl FnOnce(&Netns, IfIndex) -> T + Send + 'static) -> T {
        let ns = Arc::new(Netns::new("dp-dataplane").unwrap());
        veth(End { netns: &ns, name: "eth0", addresses: &[] }, End { netns: &ns, name: "peer0", addresses: &[] })
            .unwrap();
        let inner = Arc::clone(&ns);
        let thread = ns.thread(move || {
            let index = rustix::net::netdevice::name_to_index(
                rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).unwrap(),
                "eth0",
            )
            .unwrap();
            work(&inner, IfIndex(index))
        });
        thread.join().unwrap().unwrap()
    }

    fn attach(ifindex: IfIndex, mode: AttachMode) -> Attach {
        Attach { ifindex, name: "eth0".to_owned(), mode }
    }

    #[test]
    fn a_restart_finds_the_tables_and_writes_nothing() {
        let pins = PinDir::new("restart");
        let dir = pins.0.clone();
        with_veth(move |_, ifindex| {
            let wanted = tables(ifindex);
            let links = [attach(ifindex, AttachMode::Native)];
            let mut first = Dataplane::open(dir.clone()).unwrap();
            assert_eq!(first.adopted(), None);
            let applied = apply(&mut first, &wanted, &links);
            assert!(applied.writes > 20 && applied.program_replaced && applied.links_changed == 1, "{applied:?}");
            drop(first);

            let mut second = Dataplane::open(dir).unwrap();
            let mut adopted = second.adopted().unwrap().clone();
            // What carries no ids is compared in the maps, not decoded.
            assert!(adopted.denylist.is_empty() && adopted.filter.is_empty() && adopted.tunnel_peers.is_empty());
            assert!(adopted.clamps_in.is_empty() && adopted.clamps_out.is_empty());
            adopted.clamps_in = wanted.clamps_in.clone();
            adopted.clamps_out = wanted.clamps_out.clone();
            assert!(adopted.checked.is_empty(), "they serve nobody");
            adopted.checked = wanted.checked.clone();
            adopted.denylist = wanted.denylist.clone();
            adopted.filter = wanted.filter.clone();
            adopted.tunnel_peers = wanted.tunnel_peers.clone();
            adopted.tunnel_sources = wanted.tunnel_sources.clone();
            adopted.affinity = wanted.affinity.clone();
            adopted.quic = wanted.quic.clone();
            adopted.quic_servers = wanted.quic_servers.clone();
            assert_eq!(adopted, wanted);
            let applied = apply(&mut second, &wanted, &links);
            assert_eq!((applied.writes, applied.links_changed), (0, 0));
        });
    }

    /// The group that the program finds for an IPv4 destination.
    fn found(dataplane: &mut Dataplane, tables: &Tables, ifindex: IfIndex, to: &str) -> Option<u32> {
        let [a, b, c, d, e, f] = tables.ports.values().next().unwrap().mac.0;
        let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        let frame = format!("eth 02::ff > {mac} / ip4 192.0.2.77 > {to} / udp 1 > 2");
        let explanation = dataplane.explain(&packet::notation::encode(&frame).unwrap(), ifindex).unwrap();
        explanation.steps.iter().rev().find(|step| step.stage == Stage::Fib).map(|step| step.id)
    }

    /// More prefixes than the first map has room for, ten long ones in each slot, so that they do not fit beside its reference:
    /// the table moves to a larger map, the program with it, and a successor finds both.
    #[test]
    fn a_fib_that_outgrows_its_map_moves_to_a_larger_one() {
        let pins = PinDir::new("growth");
        let dir = pins.0.clone();
        with_veth(move |_, ifindex| {
            let links = [attach(ifindex, AttachMode::Native)];
            let mut wanted = tables(ifindex);
            wanted.denylist = Denylist::default();
            for port in wanted.ports.values_mut() {
                (port.filter, port.validation) = (None, SourceValidation::Off);
            }
            let mut first = Dataplane::open(dir.clone()).unwrap();
            apply(&mut first, &wanted, &links);
            let small = first.fib_words().unwrap();
            assert_eq!(found(&mut first, &wanted, ifindex, "20.0.0.1"), Some(1), "the default route");

            let many = (0x0500_0000u32..0x0900_0000).step_by(1 << 14);
            let many = many.flat_map(|slot| (0..10).map(move |number| slot + number * 0x400 + 7));
            let many = many.map(|address| IpNet::new(IpAddr::from(address.to_be_bytes()), 32).unwrap());
            wanted.fib.extend(many.map(|prefix| (prefix, GroupId(3))));
            let applied = apply(&mut first, &wanted, &links);
            assert!(applied.program_replaced, "{applied:?}");
            let large = first.fib_words().unwrap();
            assert!(large[0] > small[0] && large[1] == small[1], "{small:?} {large:?}");
            let answers = ["5.0.0.7", "5.0.0.8", "8.255.228.7", "200.0.0.1"];
            let expected = [Some(3), Some(1), Some(3), Some(1)];
            assert_eq!(answers.map(|to| found(&mut first, &wanted, ifindex, to)), expected);
            assert_eq!(apply(&mut first, &wanted, &links), Applied::default(), "and stays there");
            drop(first);

            let mut second = Dataplane::open(dir).unwrap();
            assert_eq!(second.fib_words().unwrap(), large);
            assert_eq!(second.adopted().unwrap().fib, wanted.fib);
            assert_eq!(apply(&mut second, &wanted, &links).writes, 0);
            assert_eq!(answers.map(|to| found(&mut second, &wanted, ifindex, to)), expected);
        });
    }

    /// Whether a packet between these IPv4 addresses is dropped because one of them is denied.
    fn is_denied(dataplane: &mut Dataplane, tables: &Tables, ifindex: IfIndex, addresses: [&str; 2]) -> bool {
        let mac = tables.ports.values().next().unwrap().mac;
        let [from, to] = addresses;
        let frame = format!("eth 02::ff > {mac} / ip4 {from} > {to} / udp 1 > 2");
        let explanation = dataplane.explain(&packet::notation::encode(&frame).unwrap(), ifindex).unwrap();
        explanation.verdict == Verdict::Drop(DropReason::Denylist)
    }

    /// A denylist moves to a larger map, changes by difference, costs nothing where it is the same, and a successor finds it.
    #[test]
    fn a_denylist_grows_and_changes_by_difference() {
        let pins = PinDir::new("denylist");
        let dir = pins.0.clone();
        with_veth(move |_, ifindex| {
            let links = [attach(ifindex, AttachMode::Native)];
            let mut wanted = tables(ifindex);
            for port in wanted.ports.values_mut() {
                (port.filter, port.validation) = (None, SourceValidation::Off);
            }
            let mut first = Dataplane::open(dir.clone()).unwrap();
            apply(&mut first, &wanted, &links);
            let small = first.denied_words().unwrap();
            let packets = [["198.51.100.7", "20.0.0.1"], ["5.0.0.7", "20.0.0.1"], ["20.0.0.1", "5.0.0.7"]];
            let denied = |dataplane: &mut Dataplane, wanted: &Tables| {
                packets.map(|addresses| is_denied(dataplane, wanted, ifindex, addresses))
            };
            assert_eq!(denied(&mut first, &wanted), [true, false, false]);

            let address = |n: u32| IpAddr::from((0x0500_0007 + n * 0x1_0003).to_be_bytes());
            let many = (0..40_000).map(|n| (IpNet::new(address(n), 32).unwrap(), Denied::SOURCE));
            let before = wanted.denylist.prefixes().clone();
            wanted.denylist = before.into_iter().chain(many).collect();
            assert!(apply(&mut first, &wanted, &links).program_replaced, "it looks at another map");
            let large = first.denied_words().unwrap();
            assert!(large[0] > small[0] && large[1] == small[1], "{small:?} {large:?}");
            assert_eq!(denied(&mut first, &wanted), [true, true, false]);
            assert_eq!(apply(&mut first, &wanted, &links), Applied::default(), "the same list");

            let mut other = wanted.denylist.prefixes().clone();
            other.remove(&net("198.51.100.0/24"));
            other.insert(net("5.0.0.0/16"), Denied::DESTINATION);
            wanted.denylist = other.into_iter().collect();
            let applied = apply(&mut first, &wanted, &links);
            // One that goes, one that is around another, and that; and a root reference each.
            assert!((1..20).contains(&applied.writes), "{applied:?}");
            assert_eq!(denied(&mut first, &wanted), [false, true, true]);
            drop(first);

            let mut second = Dataplane::open(dir).unwrap();
            assert_eq!(second.denied_words().unwrap(), large);
            assert_eq!(apply(&mut second, &wanted, &links).writes, 0);
            assert_eq!(denied(&mut second, &wanted), [false, true, true]);
            wanted.denylist = Denylist::default();
            apply(&mut second, &wanted, &links);
            assert_eq!(denied(&mut second, &wanted), [false; 3]);
            assert_eq!(second.denied_usage().map(|usage| usage.prefixes), [0; 2]);
        });
    }

    /// More VRFs than the map has values for, and more prefixes than a value has room for: a larger map and a program that looks
    /// there; a successor finds every VRF as it was.
    #[test]
    fn vrfs_that_outgrow_their_map_move_to_a_larger_one() {
        let pins = PinDir::new("vrfs");
        let dir = pins.0.clone();
        with_veth(move |_, ifindex| {
            let links = [attach(ifindex, AttachMode::Native)];
            let mut wanted = tables(ifindex);
            wanted.denylist = Denylist::default();
            for port in wanted.ports.values_mut() {
                (port.filter, port.validation) = (None, SourceValidation::Off);
            }
            let mut first = Dataplane::open(dir.clone()).unwrap();
            apply(&mut first, &wanted, &links);
            let set = |wanted: &mut Tables, vrf: u32| wanted.ports.values_mut().for_each(|port| port.vrf = VrfId(vrf));
            let route = |prefix: &str, group| (net(prefix), GroupId(group));

            wanted.vrfs.insert(VrfId(1), BTreeMap::from([route("198.51.100.0/24", 2), route("::/8", 3)]));
            wanted.vrfs.insert(VrfId(3), BTreeMap::from([route("0.0.0.0/0", 3), route("198.51.100.0/24", 1)]));
            set(&mut wanted, 1);
            let applied = apply(&mut first, &wanted, &links);
            assert!(applied.program_replaced, "{applied:?}");
            let answers = ["198.51.100.7", "20.0.0.1"];
            assert_eq!(answers.map(|to| found(&mut first, &wanted, ifindex, to)), [Some(2), Some(0)]);
            set(&mut wanted, 3);
            assert!(!apply(&mut first, &wanted, &links).program_replaced, "the port alone");
            assert_eq!(answers.map(|to| found(&mut first, &wanted, ifindex, to)), [Some(1), Some(3)]);
            set(&mut wanted, 2);
            apply(&mut first, &wanted, &links);
            assert_eq!(answers.map(|to| found(&mut first, &wanted, ifindex, to)), [Some(0); 2], "of no VRF");
            set(&mut wanted, 3);

            let small = first.vrf_usage().capacity;
            let many = (0u32..12_000).map(|n| (0x0500_0000 + n * 0x3_0007, GroupId(1 + n % 3)));
            let many =
                many.map(|(address, group)| (IpNet::new(IpAddr::from(address.to_be_bytes()), 32).unwrap(), group));
            wanted.vrfs.get_mut(&VrfId(3)).unwrap().extend(many);
            assert!(apply(&mut first, &wanted, &links).program_replaced);
            assert!(first.vrf_usage().capacity > small, "{:?}", first.vrf_usage());
            assert_eq!(answers.map(|to| found(&mut first, &wanted, ifindex, to)), [Some(1), Some(3)]);
            assert_eq!(apply(&mut first, &wanted, &links), Applied::default(), "and stays there");
            drop(first);

            let mut second = Dataplane::open(dir).unwrap();
            assert_eq!(second.adopted().unwrap().vrfs.keys().collect::<Vec<_>>(), [&VrfId(1), &VrfId(3)]);
            assert_eq!(second.adopted().unwrap().vrfs[&VrfId(3)], wanted.vrfs[&VrfId(3)]);
            assert_eq!(apply(&mut second, &wanted, &links).writes, 0);
            wanted.vrfs.remove(&VrfId(3));
            set(&mut wanted, 1);
            apply(&mut second, &wanted, &links);
            assert_eq!(answers.map(|to| found(&mut second, &wanted, ifindex, to)), [Some(2), Some(0)]);
            assert_eq!(second.vrf_usage().prefixes, 3, "what is left, and what says that nothing of IPv4 matches");
        });
    }

    #[test]
    fn only_differences_are_written_and_deleted() {
        with_veth(|_, ifindex| {
            let mut wanted = tables(ifindex);
            let mut dataplane = Dataplane::open_unpinned().unwrap();
            apply(&mut dataplane, &wanted, &[]);
            assert_eq!(apply(&mut dataplane, &wanted, &[]), Applied::default());

            wanted.fib.remove(&net("2001:db8:1::/48"));
            wanted.fib.insert(net("10.0.0.0/24"), GroupId(1));
            assert_eq!(apply(&mut dataplane, &wanted, &[]).writes, 2);

            // A policy that changes is written beside the old one, then the port is turned to it, then the old one goes.
            wanted.filter[0].test = FilterTest::Protocol(17);
            assert_eq!(apply(&mut dataplane, &wanted, &[]).writes, 3);
        });
    }

    /// The index of a next hop that has gone begins at nothing for the one that has it next.
    #[test]
    fn a_next_hop_is_counted_as_long_as_it_is_the_same() {
        with_veth(|_, ifindex| {
            let mut wanted = tables(ifindex);
            wanted.filter = Vec::new();
            let port = Port {
                id: PortId(1),
                mac: Mac([2, 0, 0, 0, 0, 1]),
                filter: None,
                validation: SourceValidation::Off,
                vrf: VrfId::DEFAULT,
            };
            wanted.ports.insert(PortKey { ifindex, vlan: None }, port);
            let mut dataplane = Dataplane::open_unpinned().unwrap();
            apply(&mut dataplane, &wanted, &[]);
            let frame = "eth 02::ff > 02::1 / ip4 192.0.2.77 > 198.18.0.1 / udp 1 > 2 / data 18";
            let frame = packet::notation::encode(frame).unwrap();
            for _ in 0..3 {
                dataplane.test_run(&frame, ifindex).unwrap();
            }
            dataplane.explain(&frame, ifindex).unwrap();
            let sent = |dataplane: &Dataplane, id| dataplane.next_hop_count(NextHopId(id)).unwrap();
            assert_eq!(sent(&dataplane, 1), Count { packets: 3, bytes: 3 * frame.len() as u64 });
            assert_eq!(sent(&dataplane, 2), Count::default());

            let mut without = wanted.clone();
            without.fib.remove(&net("0.0.0.0/0"));
            without.vips.clear();
            without.rings.clear();
            without.backends.clear();
            without.groups.remove(&GroupId(1));
            without.next_hops.remove(&NextHopId(1));
            apply(&mut dataplane, &without, &[]);
            assert_eq!(sent(&dataplane, 1), Count::default());
            apply(&mut dataplane, &wanted, &[]);
            dataplane.test_run(&frame, ifindex).unwrap();
            assert_eq!(sent(&dataplane, 1).packets, 1);
        });
    }

    /// A backend that goes down leaves the ring, and its row is for checks alone until it is back: what it was sent is forgotten, as of one that
    /// has no row any more.
    #[test]
    fn a_backend_that_is_down_has_a_row_for_checks_alone() {
        with_veth(|_, ifindex| {
            let mut wanted = tables(ifindex);
            wanted.filter = Vec::new();
            for port in wanted.ports.values_mut() {
                (port.filter, port.validation) = (None, SourceValidation::Off);
            }
            let mut dataplane = Dataplane::open_unpinned().unwrap();
            apply(&mut dataplane, &wanted, &[]);
            let frame = "eth 02::ff > 02::1 / ip4 192.0.2.77 > 203.0.113.1 / tcp 1 > 80 S";
            let frame = packet::notation::encode(frame).unwrap();
            dataplane.test_run(&frame, ifindex).unwrap();
            let sent = |dataplane: &Dataplane| dataplane.backend_count(BackendId(1)).unwrap().packets;
            let asked = |dataplane: &Dataplane| {
                dataplane.encapsulator().unwrap().encapsulate(BackendId(1), &frame[14..]).unwrap()
            };
            let (verdict, as_it_serves) = (Verdict::Drop(DropReason::VipNoBackend), asked(&dataplane));
            assert!(matches!(as_it_serves, Encapsulated::Frame { .. }), "{as_it_serves:?}");
            assert_eq!(sent(&dataplane), 1);

            let mut down = wanted.clone();
            let row = down.backends.remove(&BackendId(1)).unwrap();
            down.checked.insert(BackendId(1), row);
            down.rings.insert(VipId(1), Arc::from(vec![Slot::default(); RING_SLOTS]));
            assert_eq!(apply(&mut dataplane, &down, &[]).writes, 2, "ring and row");
            assert_eq!(apply(&mut dataplane, &down, &[]).writes, 0);
            assert_eq!(dataplane.explain(&frame, ifindex).unwrap().verdict, verdict);
            assert_eq!((sent(&dataplane), asked(&dataplane)), (0, as_it_serves.clone()));
            // A slot that still names it, as for as long as a generation is being written, leads to nobody.
            down.rings.insert(VipId(1), wanted.rings[&VipId(1)].clone());
            apply(&mut dataplane, &down, &[]);
            assert_eq!(dataplane.explain(&frame, ifindex).unwrap().verdict, verdict);

            assert_eq!(apply(&mut dataplane, &wanted, &[]).writes, 1, "the row");
            dataplane.test_run(&frame, ifindex).unwrap();
            assert_eq!((sent(&dataplane), asked(&dataplane)), (1, as_it_serves));
        });
    }

    /// Routes of the kernel that find no room are the host's until there is room, and that is a store in the FIB each time.
    #[test]
    fn the_host_stands_in_for_routes_of_the_kernel_that_find_no_room() {
        with_veth(|_, ifindex| {
            let mut desired = Desired::default();
            desired.node.interfaces = vec![Interface {
                name: "eth0".to_owned(),
                mode: AttachMode::Native,
                source_validation: SourceValidation::Off,
                max_mss: Default::default(),
                vrf: None,
            }];
            let mut network = Network::default();
            let mac = Mac([2, 0, 0, 0, 0, 1]);
            let link = Link { name: "eth0".to_owned(), mac, mtu: 1500, up: true, rx_queues: 1, vlan: None };
            network.links.insert(ifindex, link);
            network.addresses.insert((ifindex, net("192.0.2.1/24")));
            network.neighbors.insert((ifindex, ip("192.0.2.2")), Mac([2, 0, 0, 0, 0, 2]));
            let own = compile(&desired, &network, &Rib::default(), &mut Ids::default()).unwrap().tables.fib.len();

            let mut rib = Rib::default();
            let way = Way::through([Gateway::on_link(ip("192.0.2.2"), ifindex)]).unwrap();
            for prefix in ["198.51.100.0/24", "198.51.101.0/24"] {
                rib.set_kernel(net(prefix), way.clone());
            }
            let limits = Limits { prefixes: [own + 1, 0], ..Limits::default() };
            let mut compiler = Compiler::with_limits(Ids::default(), limits);
            compiler.compile(&desired, &network, &mut rib).unwrap();
            let mut dataplane = Dataplane::open_unpinned().unwrap();
            apply(&mut dataplane, &compiler.compiled().tables, &[]);
            compiler.written();

            let becomes = |dataplane: &Dataplane| {
                ["198.51.100.9", "198.51.101.9", "203.0.113.9"].map(|to| {
                    let frame = format!("eth 02::2 > 02::1 / ip4 192.0.2.2 > {to} / udp 1 > 2 / data 18");
                    let run = dataplane.test_run(&packet::notation::encode(&frame).unwrap(), ifindex).unwrap();
                    ["aborted", "drop", "pass", "tx", "redirect"][run.action as usize]
                })
            };
            assert_eq!(becomes(&dataplane), ["tx", "pass", "pass"], "what the host may know of is the host's");
            let mut follow = |rib: &mut Rib| {
                assert!(compiler.follow(rib), "by the short way");
                dataplane.apply_routes(&compiler.compiled().tables.fib, compiler.changed()).unwrap();
                compiler.written();
                becomes(&dataplane)
            };
            rib.remove(net("198.51.100.0/24"), Origin::Kernel);
            assert_eq!(follow(&mut rib), ["drop", "tx", "drop"], "there is room, and nobody stands in any more");
            rib.set_kernel(net("198.51.100.0/24"), way);
            assert_eq!(follow(&mut rib), ["pass", "tx", "pass"]);
        });
    }

    #[test]
    fn a_table_that_does_not_fit_is_refused_before_anything_is_written() {
        with_veth(|_, ifindex| {
            let mut dataplane = Dataplane::open_unpinned().unwrap();
            let good = tables(ifindex);
            apply(&mut dataplane, &good, &[]);
            let mut bad = good.clone();
            bad.fib.clear();
            bad.filter = vec![bad.filter[0]; 8193];
            let refused = dataplane.apply(&bad, Features::FULL, &Parameters::default(), &[]).unwrap_err();
            assert_eq!(refused.to_string(), "filter: 8193 entries wanted, the limit is 8192");
            assert_eq!(apply(&mut dataplane, &good, &[]), Applied::default());
        });
    }

    #[test]
    fn links_follow_what_is_wanted_and_outlive_the_process() {
        let pins = PinDir::new("links");
        let dir = pins.0.clone();
        with_veth(move |ns, ifindex| {
            let shows_xdp = || ns.ip(&["link", "show", "eth0"]).unwrap().contains("xdp");
            let mut dataplane = Dataplane::open(dir.clone()).unwrap();
            apply(&mut dataplane, &tables(ifindex), &[attach(ifindex, AttachMode::Native)]);
            assert!(shows_xdp());
            drop(dataplane);
            assert!(shows_xdp(), "the pinned link keeps the program on the interface");

            let mut dataplane = Dataplane::open(dir.clone()).unwrap();
            assert_eq!(apply(&mut dataplane, &tables(ifindex), &[]).links_changed, 1);
            assert!(!shows_xdp());

            apply(&mut dataplane, &tables(ifindex), &[attach(ifindex, AttachMode::Generic)]);
            assert!(ns.ip(&["link", "show", "eth0"]).unwrap().contains("xdpgeneric"));
            drop(dataplane);
            let detached = detach_all(&dir).unwrap();
            assert_eq!(detached.interfaces, [ifindex]);
            assert!(detached.maps > 10 && !shows_xdp() && !dir.exists(), "{detached:?}");
            assert_eq!(detach_all(&dir).unwrap().maps, 0, "detaching twice is fine");
        });
    }

    #[test]
    fn native_mode_is_refused_where_the_driver_has_none() {
        with_veth(|_, ifindex| {
            let loopback = Attach { ifindex: IfIndex(1), name: "lo".to_owned(), mode: AttachMode::Native };
            let mut dataplane = Dataplane::open_unpinned().unwrap();
            let refused = dataplane
                .apply(&tables(ifindex), Features::default(), &Parameters::default(), std::slice::from_ref(&loopback))
                .unwrap_err();
            assert!(matches!(refused, Error::Attach { .. }));
            let text = refused.to_string();
            assert!(text.contains("interface lo") && text.contains("mode: generic"), "{text}");
            apply(&mut dataplane, &tables(ifindex), &[Attach { mode: AttachMode::Generic, ..loopback }]);
        });
    }

    #[test]
    fn another_program_on_the_interface_is_refused_by_name() {
        with_veth(|_, ifindex| {
            let links = [attach(ifindex, AttachMode::Native)];
            let mut first = Dataplane::open_unpinned().unwrap();
            apply(&mut first, &tables(ifindex), &links);
            let mut second = Dataplane::open_unpinned().unwrap();
            let refused =
                second.apply(&tables(ifindex), Features::FULL, &Parameters::default(), &links).unwrap_err().to_string();
            assert!(refused.contains("eth0") && refused.contains("another XDP program"), "{refused}");
        });
    }

    #[test]
    fn the_flow_table_is_resized_in_place() {
        with_veth(|_, ifindex| {
            let mut dataplane = Dataplane::open_unpinned().unwrap();
            let links = [attach(ifindex, AttachMode::Native)];
            apply(&mut dataplane, &tables(ifindex), &links);
            let larger = Parameters { flow_table_entries: 131_072, ..Default::default() };
            let applied = dataplane.apply(&tables(ifindex), Features::FULL, &larger, &links).unwrap();
            assert!(applied.program_replaced && applied.writes == 0 && applied.links_changed == 0, "{applied:?}");
            let applied = dataplane.apply(&tables(ifindex), Features::FULL, &larger, &links).unwrap();
            assert_eq!(applied, Applied::default());
        });
    }
}
