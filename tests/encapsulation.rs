//! What health checks via tunnel are sent in is what clients' packets are sent in, byte for byte, and nothing is counted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod root {
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use margay::dataplane::{Encapsulated, Encapsulator};
    use model::desired::{AttachMode, Backend, Encap, Interface, MaxMss, Service};
    use model::health::{HealthCheck, Probe, ServiceHealth, Standing, Via};
    use model::network::{IfIndex, Link, Mac, Vlan};
    use model::tables::{BackendId, VipKey};
    use model::verdict::{DropReason, PuntReason, Verdict};
    use packet::notation::{decode, encode};
    use testkit::netns::Netns;
    use testkit::program::{Arrival, FeatureSet, Program, World, prepare};

    const INGRESS: IfIndex = IfIndex(11);
    const UNTAGGED: IfIndex = IfIndex(12);
    const PARENT: IfIndex = IfIndex(13);
    const TAGGED: IfIndex = IfIndex(14);
    const CLIENTS: [&str; 2] = ["203.0.113.9", "2001:db8:9::9"];
    /// On the link without a tag, and on the VLAN.
    const BACKENDS: [&str; 4] = ["10.1.0.11", "fd01::11", "10.2.0.11", "fd02::11"];
    const SILENT: &str = "10.1.0.99";
    const ENCAPS: [Encap; 4] =
        [Encap::L2, Encap::Ipip, Encap::Gue, Encap::Vxlan { vni: 4096, mac: Mac([2, 0, 0, 0, 0, 0x99]) }];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Two links towards backends, one of them a VLAN, and one that packets come in by.
    fn world() -> World {
        let mut world = World::default();
        let nets = [
            (INGRESS, "p0", None, ["10.0.0.1/24", "fd00::1/64"]),
            (UNTAGGED, "p1", None, ["10.1.0.1/24", "fd01::1/64"]),
            (PARENT, "p2", None, ["10.9.0.1/24", "fd09::1/64"]),
            (TAGGED, "p2.100", Some(Vlan { parent: PARENT, id: 100 }), ["10.2.0.1/24", "fd02::1/64"]),
        ];
        for (n, (index, name, vlan, addresses)) in (1..).zip(nets) {
            let mac = Mac([2, 0, 0, 0, 1, n]);
            let link = Link { name: name.to_owned(), mac, mtu: 1500, up: true, rx_queues: 1, vlan };
            world.network.links.insert(index, link);
            world.network.addresses.extend(addresses.map(|net| (index, net.parse().unwrap())));
            world.desired.node.interfaces.push(Interface {
                name: name.to_owned(),
                mode: AttachMode::Native,
                source_validation: Default::default(),
                max_mss: Default::default(),
                vrf: None,
            });
        }
        for (n, backend) in (1..).zip(BACKENDS) {
            let link = if n <= 2 { UNTAGGED } else { TAGGED };
            world.network.neighbors.insert((link, ip(backend)), Mac([2, 0, 0, 0, 2, n]));
        }
        world
    }

    /// The addresses of a service, one of each family.
    fn vips(service: usize) -> [String; 2] {
        [format!("192.0.2.{}", service + 10), format!("2001:db8:100::{}", service + 10)]
    }

    /// A service for each of these backends.
    fn serve(world: &mut World, backends: &[(&str, Encap)], health: Option<&ServiceHealth>) {
        let service = |(n, (backend, encap)): (usize, &(&str, Encap))| {
            let service = |vip: &String| Service {
                name: format!("web {vip}"),
                addresses: vec![ip(vip).into()],
                port: Some(80),
                protocol: Some(6),
                advertise: false,
                health: health.cloned(),
                affinity: None,
                quic: None,
                backends: vec![Backend { address: ip(backend), weight: 1, encap: *encap, drain: false }],
            };
            vips(n).each_ref().map(service)
        };
        world.desired.services = backends.iter().enumerate().flat_map(service).collect();
    }

    /// Packets of either family for its VIP, those on the plain path and others; each is small.
    fn packets(service: usize, family: usize) -> Vec<String> {
        let (name, from, to) = (["ip4", "ip6"][family], CLIENTS[family], &vips(service)[family]);
        let mut packets: Vec<String> = ["ttl=64", "ttl=2", "ttl=255"]
            .map(|ttl| format!("{name} {from} > {to} {} / tcp 31337 > 80 S opts=020405b4", ttl_of(family, ttl)))
            .to_vec();
        packets.push(format!("{name} {from} > {to} / tcp 31338 > 80 PA seq=7 ack=9 / data 33"));
        packets.push(match family {
            0 => format!("ip4 {from} > {to} tos=0x20 opts=01010101 / tcp 31339 > 80 S"),
            _ => format!("ip6 {from} > {to} tc=0x20 / dstopts / tcp 31339 > 80 S"),
        });
        packets
    }

    fn ttl_of(family: usize, ttl: &str) -> String {
        if family == 0 { ttl.to_owned() } else { ttl.replace("ttl", "hlim") }
    }

    /// The bytes of a packet without a link-layer header.
    fn bytes(packet: &str) -> Vec<u8> {
        encode(&format!("eth 02::1 > 02::2 / {packet}")).unwrap().split_off(14)
    }

    fn backend_of(program: &Program, vip: &str) -> BackendId {
        let tables = &program.compiled().tables;
        let vip = tables.vips[&VipKey::of_port(ip(vip), 80, 6)];
        let mut rows = tables.backends.iter().chain(&tables.checked).filter(|(_, row)| row.vip == vip);
        *rows.next().unwrap().0
    }

    fn in_namespace<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let netns = Netns::new("encapsulation").unwrap();
        prepare(&netns).unwrap();
        netns.thread(work).join().unwrap().unwrap()
    }

    fn encapsulator(program: &Program) -> Encapsulator {
        program.dataplane().encapsulator().unwrap()
    }

    #[test]
    fn a_check_leaves_as_a_clients_packet_does() {
        in_namespace(|| {
            for prefixes in [false, true] {
                let mut world = world();
                if prefixes {
                    world.desired.node.encap_prefix_v4 = Some("100.64.0.0/16".parse().unwrap());
                    world.desired.node.encap_prefix_v6 = Some("fd99::/64".parse().unwrap());
                    (world.desired.node.vxlan_port, world.desired.node.gue_port) = (8472, 6081);
                    for interface in &mut world.desired.node.interfaces[1..] {
                        interface.max_mss = MaxMss { ipv4: Some(1_300), ipv6: Some(1_280) };
                    }
                }
                let all: Vec<_> = BACKENDS.iter().flat_map(|backend| ENCAPS.map(|encap| (*backend, encap))).collect();
                serve(&mut world, &all, None);
                FeatureSet::ALL.iter().for_each(|features| compare(&world, *features, all.len()));
            }
        });
    }

    fn compare(world: &World, features: FeatureSet, services: usize) {
        let mut program = Program::load(world, features).unwrap();
        let encapsulator = encapsulator(&program);
        for (service, family) in (0..services).flat_map(|service| [(service, 0), (service, 1)]) {
            let backend = backend_of(&program, &vips(service)[family]);
            for packet in packets(service, family) {
                let frame = encode(&format!("eth 02::ff > 02:00:00:00:01:01 / {packet}")).unwrap();
                let client = program.explain(&Arrival { ifindex: INGRESS, frame }).unwrap();
                let Verdict::Redirect(ifindex) = client.verdict else { panic!("{packet}: {client:?}") };
                let frame = client.frame;
                let sent = encapsulator.encapsulate(backend, &bytes(&packet)).unwrap();
                let Encapsulated::Frame { frame: found, .. } = &sent else { panic!("{packet}: {sent:?}") };
                let texts = [decode(found), decode(&frame)];
                assert_eq!(sent, Encapsulated::Frame { ifindex, frame }, "{packet}\n{texts:#?}");
            }
            assert_eq!(program.dataplane().backend_count(backend).unwrap().packets, 0, "nothing is counted");
        }
        assert!(program.counters().unwrap().values().all(|port| port.rx.packets == 0));
    }

    /// The row of a backend that does not serve takes checks and nobody else's packets.
    #[test]
    fn a_backend_that_is_down_is_asked_and_gets_nothing() {
        in_namespace(|| {
            let check = HealthCheck {
                probe: Probe::Tcp,
                via: Via::Tunnel,
                port: None,
                interval: Duration::from_secs(2),
                timeout: Duration::from_secs(1),
                rise: 2,
                fall: 3,
                jitter_percent: 10,
            };
            let health = ServiceHealth { check: Arc::new(check), panic_percent: 0 };
            let mut world = world();
            serve(&mut world, &[(BACKENDS[0], Encap::Ipip)], Some(&health));
            let mut frames = Vec::new();
            for standing in [Standing::Up, Standing::Down("no answer".to_owned()), Standing::Starting] {
                for service in &world.desired.services {
                    world.network.health.set(service.target(&service.backends[0]).unwrap(), standing.clone());
                }
                let mut program = Program::load(&world, FeatureSet::Smallest).unwrap();
                for family in [0, 1] {
                    let packet = &packets(0, family)[0];
                    let frame = encode(&format!("eth 02::ff > 02:00:00:00:01:01 / {packet}")).unwrap();
                    let client = program.explain(&Arrival { ifindex: INGRESS, frame }).unwrap();
                    let expected = match standing {
                        Standing::Up => Verdict::Redirect(UNTAGGED),
                        _ => Verdict::Drop(DropReason::VipNoBackend),
                    };
                    assert_eq!(client.verdict, expected, "{standing:?}");
                    let backend = backend_of(&program, &vips(0)[family]);
                    frames.push(encapsulator(&program).encapsulate(backend, &bytes(packet)).unwrap());
                }
            }
            assert!(matches!(frames[0], Encapsulated::Frame { ifindex: UNTAGGED, .. }));
            assert_eq!((&frames[..2], &frames[..2]), (&frames[2..4], &frames[4..]));
        });
    }

    #[test]
    fn what_does_not_leave_says_why() {
        in_namespace(|| {
            for (encap, mtu) in [(Encap::L2, 1_500), (Encap::Ipip, 1_480)] {
                let mut world = world();
                serve(&mut world, &[(SILENT, encap)], None);
                let program = Program::load(&world, FeatureSet::Smallest).unwrap();
                let (encapsulator, backend) = (encapsulator(&program), backend_of(&program, &vips(0)[0]));
                let sent = |packet: &str| encapsulator.encapsulate(backend, &bytes(packet)).unwrap();
                let unresolved = Encapsulated::Unresolved { ifindex: UNTAGGED, address: ip(SILENT) };
                assert_eq!(sent("ip4 203.0.113.9 > 192.0.2.10 / tcp 5 > 80 S"), unresolved, "{encap:?}");
                let large = sent("ip4 203.0.113.9 > 192.0.2.10 df / tcp 5 > 80 A / data 1461");
                let verdict = Verdict::Punt(PuntReason::PacketTooBig);
                assert_eq!(large, Encapsulated::Refused { verdict, mtu: Some(mtu) });
                let refused = |verdict| Encapsulated::Refused { verdict, mtu: None };
                let no_backend = refused(Verdict::Drop(DropReason::VipNoBackend));
                let packet = bytes("ip4 203.0.113.9 > 192.0.2.10 / tcp 5 > 80 S");
                for nobody in [0, backend.0 + 2, 32_767, 32_768, u32::MAX] {
                    assert_eq!(encapsulator.encapsulate(BackendId(nobody), &packet).unwrap(), no_backend);
                }
                let short = refused(Verdict::Drop(DropReason::Ip4Short));
                assert_eq!(encapsulator.encapsulate(backend, &packet[..19]).unwrap(), short);
                assert_eq!(encapsulator.encapsulate(backend, &[]).unwrap(), short);
            }
        });
    }
}
