//! Flows and their backends while backends come and go: the loaded program, its maps, and generations that follow each other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod root {
    use std::collections::BTreeSet;
    use std::net::{IpAddr, Ipv4Addr};
    use std::path::PathBuf;
    use std::time::Duration;

    use margay::dataplane::{Applied, Dataplane, detach_all};
    use model::compile::Compiler;
    use model::desired::{AttachMode, Backend, Desired, Encap, Interface, Service, SourceValidation};
    use model::ids::Ids;
    use model::marks::{Living, Marks, OVER};
    use model::network::{IfIndex, Link, Mac, Network};
    use model::rib::Rib;
    use model::tables::Slot;
    use testkit::netns::Netns;
    use testkit::program::prepare;

    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    const REDIRECT: u32 = 4;

    /// A gateway with one VIP for TCP and one for UDP, and backends on the link of its second port, which are known by the last two
    /// bytes of their Ethernet address.
    struct Gateway {
        desired: Desired,
        network: Network,
        compiler: Compiler,
        dataplane: Dataplane,
        ingress: IfIndex,
    }

    fn address(backend: u16) -> IpAddr {
        let [high, low] = backend.to_be_bytes();
        Ipv4Addr::new(10, 1, high + 1, low).into()
    }

    impl Gateway {
        fn new(dataplane: Dataplane, flow_table_entries: u32) -> Self {
            let mut desired = Desired::default();
            let mut network = Network::default();
            let ports = [(IfIndex(11), "p0", "10.0.0.1/24"), (IfIndex(12), "p1", "10.1.0.1/16")];
            for (n, (index, name, net)) in (1..).zip(ports) {
                let mac = Mac([2, 0, 0, 0, 1, n]);
                let link = Link { name: name.to_owned(), mac, mtu: 1500, up: true, rx_queues: 1, vlan: None };
                network.links.insert(index, link);
                network.addresses.insert((index, net.parse().unwrap()));
                desired.node.interfaces.push(Interface {
                    name: name.to_owned(),
                    mode: AttachMode::Native,
                    source_validation: SourceValidation::Off,
                    max_mss: Default::default(),
                    vrf: None,
                });
            }
            for backend in 0..1_000 {
                let [high, low] = u16::to_be_bytes(backend);
                network.neighbors.insert((IfIndex(12), address(backend)), Mac([2, 0, 0, 0, high, low]));
            }
            for (name, protocol) in [("tcp", TCP), ("udp", UDP)] {
                desired.services.push(Service {
                    name: name.to_owned(),
                    addresses: vec![IpAddr::from(VIP).into()],
                    port: Some(80),
                    protocol: Some(protocol),
                    advertise: false,
                    health: None,
                    affinity: None,
                    quic: None,
                    backends: Vec::new(),
                });
            }
            desired.node.flow_table_entries = flow_table_entries;
            let compiler = Compiler::new(dataplane.adopted().map(Ids::adopt).unwrap_or_default());
            Self { desired, network, compiler, dataplane, ingress: IfIndex(11) }
        }

        /// Puts backends with their weights in force.
        fn serve(&mut self, backends: impl IntoIterator<Item = (u16, u16)>) -> Applied {
            let backend = |(n, weight)| Backend { address: address(n), weight, encap: Encap::Ipip, drain: false };
            let backends: Vec<Backend> = backends.into_iter().map(backend).collect();
            self.desired.services.iter_mut().for_each(|service| service.backends.clone_from(&backends));
            self.compiler.compile(&self.desired, &self.network, &mut Rib::default()).unwrap();
            let compiled = self.compiler.compiled();
            assert_eq!(compiled.notices, []);
            self.dataplane.apply(&compiled.tables, compiled.features, &compiled.parameters, &[]).unwrap()
        }

        /// Has clients stay with their backends for so many seconds.
        fn stay(&mut self, seconds: u64) {
            let services = self.desired.services.iter_mut();
            services.for_each(|service| service.affinity = Some(Duration::from_secs(seconds)));
        }

        /// Drains a backend or has it back.
        fn drain(&mut self, backend: u16, drain: bool) {
            let backends = self.desired.services.iter_mut().flat_map(|service| &mut service.backends);
            backends.filter(|of| of.address == address(backend)).for_each(|of| of.drain = drain);
            self.compiler.compile(&self.desired, &self.network, &mut Rib::default()).unwrap();
            let compiled = self.compiler.compiled();
            self.dataplane.apply(&compiled.tables, compiled.features, &compiled.parameters, &[]).unwrap();
        }

        /// The backend that a packet of a flow goes to.
        fn send(&self, flow: u32, protocol: u8, flags: u8) -> u16 {
            let run = self.dataplane.test_run(&frame(flow, protocol, flags), self.ingress).unwrap();
            assert_eq!(run.action, REDIRECT, "flow {flow}");
            u16::from_be_bytes([run.frame[4], run.frame[5]])
        }

        fn open(&self, flow: u32) -> u16 {
            let backend = self.send(flow, TCP, SYN);
            assert_eq!(self.send(flow, TCP, ACK), backend, "flow {flow}: what follows its SYN");
            backend
        }

        fn slots(&self) -> Vec<Slot> {
            let tables = &self.compiler.compiled().tables;
            let tcp = tables.vips.iter().find(|(key, _)| key.protocol == Some(TCP)).unwrap().1;
            let ring = self.dataplane.ring(*tcp).unwrap();
            assert_eq!(Some(ring), tables.rings.get(tcp));
            ring.to_vec()
        }

        fn changed(&self) -> usize {
            self.slots().iter().filter(|slot| slot.has_changed()).count()
        }
    }

    /// A packet of 64 bytes: the flow is in source address and port.
    fn frame(flow: u32, protocol: u8, flags: u8) -> Vec<u8> {
        let [a, b, c, d] = flow.to_be_bytes();
        let mut frame = vec![2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 9, 9, 8, 0];
        frame.extend([0x45, 0, 0, 50, 0, 0, 0, 0, 64, protocol, 0, 0, 198, 18, a, b]);
        frame.extend(VIP.octets());
        let sum = packet::checksum::internet(&frame[14..]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame.extend([c, d, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags]);
        frame.resize(64, 0);
        frame
    }

    /// Runs `test` in a namespace where the ports exist.
    fn with_ports<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
        let ns = Netns::new("dp-balancing").unwrap();
        prepare(&ns).unwrap();
        ns.thread(test).join().unwrap().unwrap()
    }

    fn of_equal_weight(backends: impl IntoIterator<Item = u16>) -> impl Iterator<Item = (u16, u16)> {
        backends.into_iter().map(|n| (n, 1))
    }

    /// One of a hundred goes, comes back, and another with it: of a million flows only those of the one that goes find another backend.
    #[test]
    fn a_million_flows_keep_their_backends_while_others_come_and_go() {
        let flows = 1_000_000u32;
        with_ports(move || {
            // Room for twice those of all flows whose slots change.
            let mut gateway = Gateway::new(Dataplane::open_unpinned().unwrap(), 262_144);
            gateway.serve(of_equal_weight(0..100));
            let chosen: Vec<u16> = (0..flows).map(|flow| gateway.open(flow)).collect();
            assert_eq!(gateway.changed(), 0);
            assert!(gateway.dataplane.flows().unwrap().is_empty(), "the ring answers for every flow");

            gateway.serve(of_equal_weight((0..100).filter(|n| *n != 42)));
            assert!((1..700).contains(&gateway.changed()), "{}", gateway.changed());
            let mut moved = Vec::new();
            for (flow, before) in (0..).zip(&chosen) {
                let now = gateway.send(flow, TCP, ACK);
                assert!(now == *before || *before == 42, "flow {flow} of backend {before} went to {now}");
                moved.push(now);
            }
            assert!(!moved.contains(&42));
            let remembered = gateway.dataplane.flows().unwrap();
            assert!(remembered.len() <= flows as usize / 50, "{} of {flows} flows", remembered.len());

            gateway.serve(of_equal_weight(0..101));
            for (flow, before) in (0..).zip(&moved) {
                assert_eq!(gateway.send(flow, TCP, ACK), *before, "flow {flow}");
            }
            let new: Vec<u16> = (flows..2 * flows).map(|flow| gateway.open(flow)).collect();
            for backend in [42, 100] {
                let share = new.iter().filter(|chosen| **chosen == backend).count();
                assert!(share * 101 > new.len() / 2, "{share} of {} new flows for {backend}", new.len());
            }
        });
    }

    /// Slots that changed long ago need the flow table for those who still go where they began, and for nobody when these are gone.
    #[test]
    fn the_ring_is_the_answer_again_once_no_flow_goes_elsewhere() {
        with_ports(|| {
            let mut gateway = Gateway::new(Dataplane::open_unpinned().unwrap(), 65_536);
            let (all, without) = (|| of_equal_weight(0..20), || of_equal_weight((0..20).filter(|n| *n != 7)));
            gateway.serve(all());
            let chosen: Vec<u16> = (0..30_000).map(|flow| gateway.open(flow)).collect();
            gateway.serve(without());
            let mut marks = Marks::default();
            marks.follow(&gateway.compiler.compiled().tables.rings, Duration::ZERO);
            let go_on = |gateway: &Gateway, flows: std::ops::Range<usize>, twice: bool| {
                for (flow, before) in flows.clone().zip(&chosen[flows]).filter(|(_, before)| **before != 7) {
                    for _ in 0..=u8::from(twice) {
                        assert_eq!(gateway.send(flow as u32, TCP, ACK), *before, "flow {flow}");
                    }
                }
            };
            go_on(&gateway, 0..10_000, true);

            let living = |gateway: &Gateway| -> Vec<Living> {
                let backends = &gateway.compiler.compiled().tables.backends;
                let flows = gateway.dataplane.flows().unwrap().into_iter().filter(|flow| flow.may_go_on());
                flows.map(|f| Living { vip: backends[&f.backend].vip, slot: f.slot, backend: f.backend }).collect()
            };
            let slots = gateway.slots();
            let elsewhere = living(&gateway).into_iter().filter(|flow| slots[flow.slot].now() != flow.backend);
            let held: BTreeSet<usize> = elsewhere.map(|flow| flow.slot).collect();
            assert!((10..gateway.changed()).contains(&held.len()), "{} of {}", held.len(), gateway.changed());
            assert!(marks.done(OVER - Duration::from_secs(1), |_| OVER, living(&gateway)).is_empty());
            gateway.compiler.clear(&marks.done(OVER, |_| OVER, living(&gateway)));
            assert_eq!(gateway.serve(without()).writes, 2, "the rings of both VIPs");
            let marked: BTreeSet<usize> =
                (0..).zip(gateway.slots()).filter(|s| s.1.has_changed()).map(|s| s.0).collect();
            assert_eq!(marked, held);
            go_on(&gateway, 0..10_000, false);

            gateway.compiler.clear(&marks.done(OVER, |_| OVER, []));
            gateway.serve(without());
            assert_eq!(gateway.changed(), 0);
            let slots: Vec<Slot> = slots.iter().map(|slot| slot.now().into()).collect();
            assert_eq!(gateway.slots(), slots);
        });
    }

    /// Port `port` of a client.
    fn of(client: u32, port: u32) -> u32 {
        client << 16 | port
    }

    /// All connections of a client go to one backend, whatever their ports and protocol, and stay with it when another comes, and when their own
    /// drains: of that only those that there are already.
    #[test]
    fn clients_stay_with_their_backends() {
        let clients = 2_000u32;
        with_ports(move || {
            let mut gateway = Gateway::new(Dataplane::open_unpinned().unwrap(), 65_536);
            gateway.stay(10_800);
            gateway.serve(of_equal_weight(0..10));
            let chosen: Vec<u16> = (0..clients).map(|client| gateway.open(of(client, 1))).collect();
            let same = |gateway: &Gateway, port: u32, protocol: u8, flags: u8| {
                (0..)
                    .zip(&chosen)
                    .filter(|(client, was)| gateway.send(of(*client, port), protocol, flags) == **was)
                    .count()
            };
            let all = clients as usize;
            assert_eq!([same(&gateway, 2, TCP, SYN), same(&gateway, 3, TCP, ACK), same(&gateway, 4, UDP, 0)], [all; 3]);
            assert!(gateway.dataplane.flows().unwrap().is_empty(), "the ring answers for every client");

            gateway.serve(of_equal_weight(0..11));
            assert!(gateway.changed() > 4_000, "{}", gateway.changed());
            assert_eq!(
                [same(&gateway, 5, TCP, SYN), same(&gateway, 5, TCP, ACK), same(&gateway, 1, TCP, ACK)],
                [all; 3]
            );

            gateway.drain(3, true);
            let mut moved = Vec::new();
            for (client, was) in (0..).zip(&chosen) {
                assert_eq!(gateway.send(of(client, 1), TCP, ACK), *was, "client {client}: what it has");
                let new = gateway.open(of(client, 6));
                assert!(new == *was || *was == 3, "client {client} of {was} went to {new}");
                assert_ne!(new, 3);
                assert_eq!([gateway.open(of(client, 7)), gateway.open(of(client, 8))], [new; 2], "client {client}");
                assert_eq!(gateway.send(of(client, 1), TCP, ACK), *was, "client {client}: what it has");
                moved.push(new);
            }
            assert!(moved != chosen);
            gateway.drain(3, false);
            for (client, new) in (0..).zip(&moved) {
                assert_eq!(gateway.open(of(client, 9)), *new, "client {client}: where it is now");
            }
        });
    }

    /// After the time-out a client goes by the ring as it is then; one that is seen does not.
    #[test]
    fn a_client_that_was_away_for_longer_is_a_new_one() {
        with_ports(|| {
            let mut gateway = Gateway::new(Dataplane::open_unpinned().unwrap(), 65_536);
            gateway.stay(1);
            gateway.serve(of_equal_weight(0..4));
            let chosen: Vec<u16> = (0..400).map(|client| gateway.open(of(client, 1))).collect();
            gateway.serve(of_equal_weight(0..6));
            // Those whose connections live, which they do before and after: the first half.
            let live = |gateway: &Gateway| {
                for (client, was) in (0..200).zip(&chosen) {
                    assert_eq!(gateway.open(of(client, 2)), *was, "client {client}");
                }
            };
            live(&gateway);
            // Two ticks of the flow table's clock are what a second is rounded up to; five last 21 s.
            for _ in 0..7 {
                std::thread::sleep(Duration::from_secs(3));
                live(&gateway);
            }
            let slots = gateway.slots();
            let ring = |client: u32| {
                let source = Ipv4Addr::from(0xc612_0000 | client).into();
                let now = slots[tables::hash::ring_slot(tables::hash::client_hash(source, VIP.into()))].now();
                gateway.compiler.compiled().tables.backends[&now].address
            };
            let mut gone = 0;
            for (client, was) in (0..400).zip(&chosen) {
                let now = gateway.open(of(client, 3));
                if client < 200 {
                    assert_eq!(now, *was, "client {client} was there");
                } else {
                    assert_eq!(address(now), ring(client), "client {client}");
                    gone += u32::from(now != *was);
                }
            }
            assert!(gone > 20, "{gone}");
        });
    }

    /// Weights that change and change back: a flow of whatever moment goes on where it began.
    #[test]
    fn flows_that_began_between_two_changes_are_remembered() {
        with_ports(|| {
            let mut gateway = Gateway::new(Dataplane::open_unpinned().unwrap(), 65_536);
            gateway.serve([(1, 200), (2, 1)]);
            let first: Vec<u16> = (0..2_000).map(|flow| gateway.open(flow)).collect();
            gateway.serve([(1, 1), (2, 200)]);
            let second: Vec<u16> = (2_000..4_000).map(|flow| gateway.open(flow)).collect();
            gateway.serve([(1, 200), (2, 1)]);
            let count = |chosen: &[u16], backend| chosen.iter().filter(|n| **n == backend).count();
            assert!(count(&first, 1) > 1_900 && count(&second, 2) > 1_900);
            for (flow, before) in (0..).zip(first.iter().chain(&second)) {
                assert_eq!(gateway.send(flow, TCP, ACK), *before, "flow {flow}");
            }
            let third: Vec<u16> = (4_000..6_000).map(|flow| gateway.open(flow)).collect();
            assert!(count(&third, 1) > 1_900);
        });
    }

    /// Clients that use their ports again, as proxies do all the time, would keep a backend that drains busy for ever. A SYN that is sent
    /// again, or by somebody else amid a connection, moves nothing.
    #[test]
    fn ports_that_are_used_again_begin_anew() {
        with_ports(|| {
            let mut gateway = Gateway::new(Dataplane::open_unpinned().unwrap(), 65_536);
            gateway.serve([(1, 200), (2, 1)]);
            let first: Vec<u16> = (0..600).map(|flow| gateway.open(flow)).collect();
            gateway.serve([(1, 1), (2, 200)]);
            // Of one half two packets are seen after the change, of the other one.
            let again = |flow: u32| 2 - flow % 2;
            for (flow, before) in (0..).zip(&first) {
                (0..again(flow)).for_each(|_| assert_eq!(gateway.send(flow, TCP, ACK), *before, "flow {flow}"));
                assert_eq!(gateway.send(flow, TCP, SYN), *before, "flow {flow}: amid a connection");
            }
            std::thread::sleep(Duration::from_secs(9));
            for (flow, before) in (0..).zip(&first) {
                if flow % 4 < 2 {
                    assert_eq!(gateway.send(flow, TCP, ACK), *before, "flow {flow}: the connection goes on");
                    assert_eq!(gateway.send(flow, TCP, SYN), *before, "flow {flow}: and nobody's SYN ends it");
                } else if *before == 1 {
                    gateway.open(flow);
                }
            }
            let third: Vec<u16> =
                (0..600).filter(|flow| flow % 4 >= 2).map(|flow| gateway.send(flow, TCP, ACK)).collect();
            assert!(third.iter().filter(|backend| **backend == 2).count() > 280, "{third:?}");
        });
    }

    /// Without handshake nobody can tell a flow that begins from one that goes on: for a minute it is taken for the latter.
    #[test]
    fn datagrams_go_on_where_they_went_before_the_change() {
        with_ports(|| {
            let mut gateway = Gateway::new(Dataplane::open_unpinned().unwrap(), 65_536);
            gateway.serve([(1, 200), (2, 1)]);
            let chosen: Vec<u16> = (0..500).map(|flow| gateway.send(flow, UDP, 0)).collect();
            gateway.serve([(1, 1), (2, 200)]);
            for (flow, before) in (0..).zip(&chosen) {
                assert_eq!(gateway.send(flow, UDP, 0), *before, "flow {flow}");
            }
        });
    }

    #[test]
    fn a_restart_and_another_size_of_the_table_forget_nothing() {
        struct Pins(PathBuf);
        impl Drop for Pins {
            fn drop(&mut self) {
                detach_all(&self.0).unwrap();
            }
        }
        with_ports(|| {
            let pins = Pins(PathBuf::from(format!("/sys/fs/bpf/margay-test-balancing-{}", std::process::id())));
            let mut gateway = Gateway::new(Dataplane::open(pins.0.clone()).unwrap(), 16_384);
            gateway.serve([(1, 200), (2, 1)]);
            let mut chosen: Vec<u16> = (0..1_000).map(|flow| gateway.open(flow)).collect();
            gateway.serve([(1, 1), (2, 200)]);
            chosen.extend((1_000..2_000).map(|flow| gateway.open(flow)));
            let stay = |gateway: &Gateway, when: &str| {
                let moved = (0..).zip(&chosen).filter(|(flow, before)| gateway.send(*flow, TCP, ACK) != **before);
                assert_eq!(moved.count(), 0, "{when}");
            };
            stay(&gateway, "before");
            let ring = gateway.slots();
            drop(gateway);

            let mut gateway = Gateway::new(Dataplane::open(pins.0.clone()).unwrap(), 16_384);
            assert_eq!(gateway.serve([(1, 1), (2, 200)]).writes, 0);
            assert_eq!(gateway.slots(), ring);
            stay(&gateway, "after a restart");
            for entries in [65_536, 8_192] {
                gateway.desired.node.flow_table_entries = entries;
                gateway.serve([(1, 1), (2, 200)]);
                stay(&gateway, &format!("with {entries} entries"));
                let usage = gateway.dataplane.balancing_usage().unwrap();
                assert_eq!((usage.entries_max, usage.flow_table_bytes), (entries as usize, 8 * entries as usize));
                assert_eq!(usage.remembered, gateway.dataplane.flows().unwrap().len());
                assert!(usage.established > 1_000 && usage.established <= usage.remembered, "{usage:?}");
                assert_eq!((usage.rings, usage.ring_bytes), (2, 2 * 65_538 * 4));
            }
            drop(gateway);
        });
    }

    /// Ten times as many connections are opened as there is room for, all in slots that have changed: who is established stays, and who
    /// opens a connection in between completes it.
    #[test]
    fn a_flood_of_new_flows_takes_no_place_of_established_ones() {
        const ENTRIES: u32 = 4_096;
        with_ports(|| {
            let mut gateway = Gateway::new(Dataplane::open_unpinned().unwrap(), ENTRIES);
            gateway.serve([(1, 1)]);
            gateway.serve([(1, 1), (2, 256)]);
            let mut established: Vec<u16> = Vec::new();
            for flow in 0..ENTRIES / 20 {
                established.push(gateway.open(flow));
                gateway.send(flow, TCP, ACK);
            }
            assert!(established.iter().filter(|n| **n == 2).count() > 180);
            let (mut opened, mut completed) = (0, 0);
            for n in 0..ENTRIES * 10 / 128 {
                let good = 1_000_000 + n;
                let backend = gateway.send(good, TCP, SYN);
                for spoofed in 0..128 {
                    gateway.send(2_000_000 + n * 128 + spoofed, TCP, SYN);
                }
                opened += 1;
                completed += u32::from(gateway.send(good, TCP, ACK) == backend);
            }
            assert!(completed * 100 >= opened * 99, "{completed} of {opened}");
            for (flow, before) in (0..).zip(&established) {
                assert_eq!(gateway.send(flow, TCP, ACK), *before, "flow {flow}");
            }
        });
    }
}
