//! VIPs, backends, rings and announcements.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::build::*;
use crate::compile::{Compiled, Notice};
use crate::denylist::Denied;
use crate::desired::*;
use crate::health::{HealthCheck, Probe, ServiceHealth, Standing, Via};
use crate::quic::{Quic, ServerId};
use crate::tables::{BackendId, InnerSources, Outer, RING_SLOTS, SourceRange, TunnelPeer, VipId, VipKey};

fn backend<'a>(compiled: &'a Compiled, vip: &str, address: &str) -> Option<&'a crate::tables::Backend> {
    let key = VipKey::of_port(ip(vip), 80, protocol::TCP);
    let id = compiled.tables.vips[&key];
    compiled.tables.backends.values().find(|backend| backend.vip == id && backend.address == ip(address))
}

fn shares(compiled: &Compiled, vip: &str) -> Vec<(String, usize)> {
    let key = VipKey::of_port(ip(vip), 80, protocol::TCP);
    let ring = &compiled.tables.rings[&compiled.tables.vips[&key]];
    assert_eq!(ring.len(), RING_SLOTS);
    let mut shares = std::collections::BTreeMap::<String, usize>::new();
    for id in ring.iter().map(|slot| slot.now()) {
        let name = if id == BackendId(0) { "none".into() } else { compiled.names.backends[&id].1.to_string() };
        *shares.entry(name).or_default() += 1;
    }
    shares.into_iter().collect()
}

fn announced(compiled: &Compiled) -> Vec<String> {
    compiled.announce.iter().map(ToString::to_string).collect()
}

/// A service of a world of two ports, at these addresses, without its port and, if told so, without a protocol.
fn of_any(vips: &[&str], protocol: Option<u8>) -> World {
    let mut world = World::two_ports().service("web", vips, &["10.0.0.2"]);
    let service = world.desired.services.last_mut().unwrap();
    (service.port, service.protocol) = (None, protocol);
    world
}

#[test]
fn prefixes_are_announced_as_they_are() {
    let compiled = of_any(&["192.0.2.0/24", "2001:db8:100::/48"], Some(protocol::UDP)).compile();
    let expected: BTreeSet<IpNet> = [net("192.0.2.0/24"), net("2001:db8:100::/48")].into();
    assert_eq!(compiled.announce, expected);
    assert_eq!(compiled.route("192.0.2.0/24").unwrap(), "vip");
    assert_eq!(compiled.tables.vips.len(), 2);
    let nobody = World::two_ports().service("web", &["192.0.2.0/24"], &["203.0.113.9"]).compile();
    assert!(nobody.announce.is_empty(), "no backend is usable");
}

#[test]
fn a_prefix_leaves_the_host_its_own() {
    let compiled = of_any(&["10.0.0.0/16"], None).compile();
    assert_eq!(compiled.route("10.0.0.1/32").unwrap(), "receive");
    assert_eq!(compiled.route("10.0.0.0/16").unwrap(), "vip");
    assert_eq!(compiled.notices, []);
}

#[test]
fn a_service_of_all_ports_does_not_take_an_address_of_the_node() {
    for protocol in [None, Some(protocol::TCP)] {
        let compiled = of_any(&["10.0.0.1", "192.0.2.10"], protocol).compile();
        assert_eq!(compiled.tables.vips.keys().map(|key| key.prefix).collect::<Vec<_>>(), [net("192.0.2.10/32")]);
        let notice = Notice::VipOfHost { service: "web".into(), address: ip("10.0.0.1") };
        assert_eq!(compiled.notices, [notice]);
        assert_eq!(compiled.announce, [net("192.0.2.10/32")].into());
    }
}

#[test]
fn clients_stay_and_leave_who_drains() {
    let mut world = World::two_ports().service("web", &["192.0.2.10"], &["10.0.0.2", "10.0.0.3"]);
    assert!(!world.compile().features.affinity);
    world.desired.services[0].affinity = Some(Duration::from_secs(10_800));
    world.desired.services[0].backends[1].drain = true;
    let compiled = world.compile();
    assert!(compiled.features.affinity);
    assert_eq!(compiled.tables.affinity.values().copied().collect::<Vec<_>>(), [Duration::from_secs(10_800)]);
    let draining = |address: &str| backend(&compiled, "192.0.2.10", address).unwrap().draining;
    assert_eq!([draining("10.0.0.2"), draining("10.0.0.3")], [false, true]);
}

#[test]
fn server_ids_are_those_of_usable_backends() {
    let mut world = World::two_ports().service("web", &["192.0.2.10", "192.0.2.11"], &["10.0.0.2", "203.0.113.9"]);
    let [own, other] = [[1, 2], [1, 3]].map(|octets| ServerId::new(&octets).unwrap());
    let servers = [(own, ip("10.0.0.2")), (other, ip("203.0.113.9"))].into();
    world.desired.services[0].quic = Some(Quic { lengths: [0, 2, 0, 0, 0, 0, 0, 0], servers });
    let compiled = world.compile();
    assert!(compiled.features.quic);
    assert_eq!(compiled.tables.quic.len(), 2);
    assert_eq!(compiled.tables.quic_servers.len(), 2, "one a VIP");
    for ((vip, id), backend) in &compiled.tables.quic_servers {
        let backend = &compiled.tables.backends[backend];
        assert_eq!((*id, backend.vip, backend.address), (own, *vip, ip("10.0.0.2")));
    }
}

#[test]
fn every_address_is_a_vip_with_its_own_backends() {
    let compiled = World::two_ports().service("web", &["192.0.2.10", "2001:db8:100::10"], &["10.0.0.2"]).compile();
    assert_eq!(compiled.tables.vips.len(), 2);
    assert_eq!(compiled.tables.backends.len(), 2);
    assert_ne!(
        backend(&compiled, "192.0.2.10", "10.0.0.2").unwrap().vip,
        backend(&compiled, "2001:db8:100::10", "10.0.0.2").unwrap().vip
    );
    assert_eq!(compiled.route("2001:db8:100::10/128").unwrap(), "vip");
    assert!(compiled.features.vip);
    assert_eq!(compiled.names.vips.values().collect::<Vec<_>>(), ["web", "web"]);
}

#[test]
fn the_path_to_a_backend() {
    let world = World::two_ports().neighbor(2, "10.0.0.2", 2).static_route("10.9.0.0/16", &["10.1.0.2"]);
    let backends = ["10.0.0.2", "10.0.0.3", "10.9.0.1", "2001:db8::2"];
    let compiled = world.service("web", &["192.0.2.10"], &backends).compile();
    let path = |address| compiled.hops(backend(&compiled, "192.0.2.10", address).unwrap().group).join(" ");
    assert_eq!(path("10.0.0.2"), "10.0.0.2@2");
    assert_eq!(path("10.0.0.3"), "10.0.0.3@2?", "gleaned: its own gateway");
    assert_eq!(path("10.9.0.1"), "10.1.0.2@3?");
    assert_eq!(path("2001:db8::2"), "2001:db8::2@2?");
    assert_eq!(compiled.route("10.0.0.3/32"), None, "packets to the backend itself are gleaned as ever");
}

#[test]
fn outer_source_and_inner_mtu() {
    let mut world = World::two_ports().service("web", &["192.0.2.10"], &["10.0.0.2", "2001:db8::2"]);
    world.link_mut(2).mtu = 9000;
    let compiled = world.compile();
    let four = backend(&compiled, "192.0.2.10", "10.0.0.2").unwrap();
    assert_eq!(four.outer, Outer::Ipip { source: ip("10.0.0.1"), destination: ip("10.0.0.2"), varied: 0 });
    assert_eq!(four.inner_mtu, 8980);
    let six = backend(&compiled, "192.0.2.10", "2001:db8::2").unwrap();
    assert_eq!(six.outer, Outer::Ipip { source: ip("2001:db8::1"), destination: ip("2001:db8::2"), varied: 0 });
    assert_eq!(six.inner_mtu, 8960);

    let mut spread = world.clone();
    spread.desired.node.encap_prefix_v4 = Some(net("172.16.0.0/12"));
    spread.desired.node.encap_prefix_v6 = Some(net("fd00:16::/64"));
    let compiled = spread.compile();
    let outer = |address| backend(&compiled, "192.0.2.10", address).unwrap().outer;
    let (four, six) = (ip("10.0.0.2"), ip("2001:db8::2"));
    assert_eq!(outer("10.0.0.2"), Outer::Ipip { source: ip("172.16.0.0"), destination: four, varied: 20 });
    assert_eq!(outer("2001:db8::2"), Outer::Ipip { source: ip("fd00:16::"), destination: six, varied: 31 });

    let gue = world.clone().encap(Encap::Gue).compile();
    let four = backend(&gue, "192.0.2.10", "10.0.0.2").unwrap();
    assert_eq!(four.outer, Outer::Gue { source: ip("10.0.0.1"), destination: ip("10.0.0.2") });
    assert_eq!((four.inner_mtu, backend(&gue, "192.0.2.10", "2001:db8::2").unwrap().inner_mtu), (8972, 8952));

    world.desired.node.encap_source_v4 = Some("192.0.2.1".parse().unwrap());
    let compiled = world.encap(Encap::Vxlan { vni: 7, mac: mac(9) }).compile();
    let four = backend(&compiled, "192.0.2.10", "10.0.0.2").unwrap();
    let (source, destination) = (ip("192.0.2.1"), ip("10.0.0.2"));
    let (inner_source, inner_destination) = (mac(2), mac(9));
    assert_eq!(four.outer, Outer::Vxlan { source, destination, vni: 7, inner_source, inner_destination });
    assert_eq!(four.inner_mtu, 8950);
    assert_eq!(backend(&compiled, "192.0.2.10", "2001:db8::2").unwrap().inner_mtu, 8930);
}

#[test]
fn the_smallest_mtu_of_several_paths() {
    let mut world = World::two_ports().static_route("10.9.0.0/16", &["10.0.0.2", "10.1.0.2"]);
    world.link_mut(3).mtu = 1400;
    let compiled = world.service("web", &["192.0.2.10"], &["10.9.0.1"]).compile();
    assert_eq!(backend(&compiled, "192.0.2.10", "10.9.0.1").unwrap().inner_mtu, 1380);
}

#[test]
fn l2_backends_are_on_link() {
    let world = World::two_ports().neighbor(2, "10.0.0.2", 2).static_route("10.9.0.0/16", &["10.1.0.2"]);
    let compiled =
        world.service("web", &["192.0.2.10"], &["10.0.0.2", "10.0.0.3", "10.9.0.1"]).encap(Encap::L2).compile();
    let direct = backend(&compiled, "192.0.2.10", "10.0.0.2").unwrap();
    assert_eq!((direct.outer, direct.inner_mtu), (Outer::None, 1500));
    assert!(backend(&compiled, "192.0.2.10", "10.0.0.3").is_some());
    assert!(backend(&compiled, "192.0.2.10", "10.9.0.1").is_none());
    assert_eq!(
        compiled.notices(),
        [
            "backend 10.9.0.1 of VirtualService web is not on the link of a configured interface, which encap type L2 needs"
        ]
    );
}

#[test]
fn unusable_backends_are_named_and_left_out() {
    let mut world = World::two_ports().link(4, "mgmt").address(4, "10.4.0.1/24").link(5, "bare").port("bare");
    world = world.static_route("10.5.0.0/16", &["10.5.0.1@bare"]).static_action("10.6.0.0/16", RouteAction::Blackhole);
    let backends = ["10.0.0.2", "10.0.0.1", "10.4.0.2", "10.5.0.2", "10.6.0.2", "172.16.0.1", "192.0.2.10"];
    let compiled = world.service("web", &["192.0.2.10"], &backends).compile();
    assert_eq!(shares(&compiled, "192.0.2.10"), [("10.0.0.2".to_owned(), RING_SLOTS)]);
    assert_eq!(
        compiled.notices(),
        [
            "backend 10.0.0.1 of VirtualService web is an address of this node",
            "backend 10.4.0.2 of VirtualService web is behind an interface that the Node does not list",
            "backend 10.5.0.2 of VirtualService web has no outer source: set encap.sourceIPv4 or sourceIPv6 of the Node, or give bare an address",
            "backend 10.6.0.2 of VirtualService web has no route",
            "backend 172.16.0.1 of VirtualService web has no route",
            "backend 192.0.2.10 of VirtualService web is an address of this node",
        ]
    );
}

#[test]
fn rings_follow_weights_and_usability() {
    let mut world = World::two_ports().service("web", &["192.0.2.10"], &["10.0.0.2", "10.0.0.3"]);
    world.desired.services[0].backends[1].weight = 3;
    let compiled = world.compile();
    let quarter = RING_SLOTS / 4;
    for (name, share) in shares(&compiled, "192.0.2.10") {
        let expected = if name == "10.0.0.2" { quarter } else { RING_SLOTS - quarter };
        assert!(share.abs_diff(expected) <= 1, "{name} has {share}");
    }
    let nobody = World::two_ports().service("web", &["192.0.2.10"], &["172.16.0.1"]).compile();
    assert_eq!(shares(&nobody, "192.0.2.10"), [("none".to_owned(), RING_SLOTS)]);
}

#[test]
fn a_backend_that_goes_leaves_the_others_their_slots() {
    let addresses: Vec<String> = (2..12).map(|n| format!("10.0.0.{n}")).collect();
    let names: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut world = World::two_ports().service("web", &["192.0.2.10"], &names);
    let before = world.compile();
    world.desired.services[0].backends.remove(4);
    let after = world.compile();
    let ring = |compiled: &Compiled| compiled.tables.rings.values().next().unwrap().clone();
    let gone = backend_id(&before, "10.0.0.6");
    let slots = |compiled: &Compiled| ring(compiled).iter().map(|slot| slot.now()).collect::<Vec<_>>();
    let moved = slots(&before).iter().zip(slots(&after)).filter(|(b, a)| **b != gone && *b != a).count();
    assert!(moved * 100 < RING_SLOTS * 3, "{moved}");
}

/// Which slots have changed, and who has their earlier flows, through a history of weights and backends.
#[test]
fn a_slot_that_has_changed_knows_whose_it_was() {
    let mut world = World::two_ports().service("web", &["192.0.2.10"], &["10.0.0.2", "10.0.0.3"]);
    let ring = |compiled: &Compiled| compiled.tables.rings.values().next().unwrap().clone();
    let first = world.compile();
    let [two, three] = ["10.0.0.2", "10.0.0.3"].map(|address| backend_id(&first, address));
    assert!(ring(&first).iter().all(|slot| !slot.has_changed() && slot.before() == slot.now()));

    world.desired.services[0].backends[1].weight = 3;
    let second = ring(&world.compile());
    for (first, second) in ring(&first).iter().zip(second.iter()) {
        assert_eq!(second.has_changed(), first.now() != second.now());
        assert_eq!(second.before(), first.now());
    }
    // Back again: what began in between is elsewhere.
    world.desired.services[0].backends[1].weight = 1;
    let third = ring(&world.compile());
    for ((first, second), third) in ring(&first).iter().zip(second.iter()).zip(third.iter()) {
        assert_eq!((third.now(), third.before()), (first.now(), first.now()));
        assert_eq!(third.has_changed(), second.has_changed());
    }
    // Who is gone has no flows.
    let gone = world.desired.services[0].backends.pop().unwrap();
    let fourth = ring(&world.compile());
    assert!(fourth.iter().all(|slot| slot.now() == two && slot.before() == two));
    world.desired.services[0].backends.push(gone);
    let fifth = ring(&world.compile());
    assert!(fifth.iter().all(|slot| slot.before() == two && (slot.now() == two || slot.has_changed())));
    assert!(fifth.iter().any(|slot| slot.now() != two && slot.now() != three), "an index rests before it is another's");
}

fn ring(compiled: &Compiled) -> crate::tables::Ring {
    compiled.tables.rings.values().next().unwrap().clone()
}

/// A world whose one service has these backends and checks them.
fn checked(backends: &[&str], panic_percent: u32) -> World {
    let mut world = World::two_ports().service("web", &["192.0.2.10"], backends);
    let check = HealthCheck {
        probe: Probe::Tcp,
        via: Via::Direct,
        port: None,
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
        jitter_percent: 10,
    };
    world.desired.services[0].health = Some(ServiceHealth { check: Arc::new(check), panic_percent });
    backends.iter().for_each(|backend| stands(&mut world, backend, Standing::Up));
    world
}

fn stands(world: &mut World, backend: &str, standing: Standing) {
    let service = &world.desired.services[0];
    let backend = service.backends.iter().find(|found| found.address == ip(backend)).unwrap();
    world.network.health.set(service.target(backend).unwrap(), standing);
}

fn down() -> Standing {
    Standing::Down("connection refused".to_owned())
}

/// What is down serves nobody: neither new flows nor those that began at it, in whatever place they are remembered.
#[test]
fn a_backend_that_is_down_is_nobodys() {
    let mut world = checked(&["10.0.0.2", "10.0.0.3", "10.0.0.4"], 0);
    // Slots that remember more than one backend.
    world.desired.services[0].backends[0].weight = 3;
    let before = world.compile();
    world.desired.services[0].backends[0].weight = 1;
    world.compile();
    let dead = backend_id(&before, "10.0.0.3");
    stands(&mut world, "10.0.0.3", down());
    let after = world.compile();
    assert!(!after.tables.backends.contains_key(&dead), "entries of the flow table that name it are void");
    assert!(ring(&after).iter().all(|slot| slot.now() != dead && slot.before() != dead));
    assert_eq!(after.notices(), ["backend 10.0.0.3 of VirtualService web is down: connection refused"]);
    for (former, slot) in ring(&before).iter().zip(ring(&after).iter()) {
        let lives = former.before() != dead;
        assert!(!lives || slot.before() == former.before() || slot.before() == former.now(), "{former:?} {slot:?}");
    }
    // It has its index again, and whoever took its flows keeps them.
    stands(&mut world, "10.0.0.3", Standing::Up);
    let again = world.compile();
    assert_eq!(backend_id(&again, "10.0.0.3"), dead);
    assert!(ring(&again).iter().all(|slot| slot.before() != dead));
    assert!(ring(&again).iter().filter(|slot| slot.now() == dead).all(|slot| slot.has_changed()));
    assert_eq!(again.notices(), [""; 0]);
}

#[test]
fn a_service_without_a_healthy_backend_is_not_announced() {
    let mut world = checked(&["10.0.0.2", "10.0.0.3"], 0);
    assert_eq!(announced(&world.compile()), ["192.0.2.10/32"]);
    stands(&mut world, "10.0.0.2", down());
    assert_eq!(announced(&world.compile()), ["192.0.2.10/32"]);
    stands(&mut world, "10.0.0.3", down());
    let compiled = world.compile();
    assert_eq!(announced(&compiled), [""; 0]);
    assert_eq!(shares(&compiled, "192.0.2.10"), [("none".to_owned(), RING_SLOTS)]);
    stands(&mut world, "10.0.0.3", Standing::Starting);
    let compiled = world.compile();
    assert_eq!(announced(&compiled), [""; 0], "what nothing is known of is not used");
    assert!(
        compiled.notices().iter().any(|notice| notice.starts_with("1 backends of VirtualService web are not used"))
    );
    stands(&mut world, "10.0.0.2", Standing::Up);
    assert_eq!(announced(&world.compile()), [""; 0], "while nobody serves all are asked first");
    stands(&mut world, "10.0.0.3", down());
    assert_eq!(announced(&world.compile()), ["192.0.2.10/32"]);
    stands(&mut world, "10.0.0.3", Standing::Starting);
    assert_eq!(announced(&world.compile()), ["192.0.2.10/32"], "and then nobody waits for one more");
}

/// Checks find backends one after the other. A first ring is of all of them, so that it is the one of every other balancer, and with nobody
/// before whom it is not known to have been.
#[test]
fn a_first_ring_waits_for_a_verdict_on_every_backend() {
    let backends = ["10.0.0.2", "10.0.0.3", "10.0.0.4"];
    for drains in [false, true] {
        let mut other = World::two_ports().service("web", &["192.0.2.10"], &backends);
        let mut world = checked(&backends, 0);
        backends.iter().for_each(|backend| stands(&mut world, backend, Standing::Starting));
        for world in [&mut other, &mut world] {
            world.desired.services[0].backends[1].drain = drains;
        }
        for (judged, backend) in backends.iter().enumerate() {
            let compiled = world.compile();
            assert_eq!(announced(&compiled), [""; 0], "{judged} are judged");
            assert!(compiled.tables.backends.is_empty());
            stands(&mut world, backend, Standing::Up);
        }
        let (other, first) = (other.compile(), world.compile());
        assert_eq!(announced(&first), ["192.0.2.10/32"]);
        let by_address = |compiled: &Compiled| -> Vec<_> {
            let name = |id| compiled.names.backends[&id].1;
            ring(compiled).iter().map(|slot| (name(slot.now()), name(slot.before()), slot.has_changed())).collect()
        };
        assert!(by_address(&first) == by_address(&other), "that of a balancer that checks nobody");
        assert_eq!(ring(&first).iter().any(|slot| slot.has_changed()), drains);
    }
}

#[test]
fn below_the_panic_threshold_all_are_used() {
    let mut world = checked(&["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"], 50);
    for (address, serving) in [("10.0.0.2", 3), ("10.0.0.3", 2), ("10.0.0.4", 4), ("10.0.0.5", 4)] {
        stands(&mut world, address, down());
        let compiled = world.compile();
        assert_eq!(shares(&compiled, "192.0.2.10").len(), serving, "{address}");
        let panics = compiled.notices().iter().any(|notice| notice.contains("panicThreshold"));
        assert_eq!(panics, serving == 4);
        assert_eq!(announced(&compiled), ["192.0.2.10/32"]);
    }
    // Nothing is believed of those that nothing is known of.
    stands(&mut world, "10.0.0.5", Standing::Starting);
    assert_eq!(announced(&world.compile()), [""; 0]);
}

/// What drains keeps its flows where they are, and gets no others, on this node and on one that starts meanwhile.
#[test]
fn a_backend_that_drains_keeps_its_flows() {
    let backends = ["10.0.0.2", "10.0.0.3", "10.0.0.4"];
    let mut world = World::two_ports().service("web", &["192.0.2.10"], &backends);
    let before = world.compile();
    let draining = backend_id(&before, "10.0.0.3");
    world.desired.services[0].backends[1].drain = true;
    let after = world.compile();
    assert!(after.tables.backends.contains_key(&draining));
    for (former, slot) in ring(&before).iter().zip(ring(&after).iter()) {
        assert_ne!(slot.now(), draining);
        assert_eq!(slot.before(), former.now());
        assert_eq!(slot.has_changed(), slot.now() != former.now());
    }
    assert_eq!(announced(&after), ["192.0.2.10/32"]);

    // Another balancer, or this one without its memory, knows no other ring before this one.
    let mut fresh = World::two_ports().service("web", &["192.0.2.10"], &backends);
    fresh.desired.services[0].backends[1].drain = true;
    let fresh = fresh.compile();
    let by_address = |compiled: &Compiled| -> Vec<_> {
        let name = |id| compiled.names.backends[&id].1;
        ring(compiled).iter().map(|slot| (name(slot.now()), name(slot.before()), slot.has_changed())).collect()
    };
    assert_eq!(by_address(&fresh), by_address(&after));

    // Back again, and every flow is where it was.
    world.desired.services[0].backends[1].drain = false;
    let again = world.compile();
    assert!(ring(&again).iter().zip(ring(&before).iter()).all(|(again, before)| again.now() == before.now()));
    assert!(ring(&again).iter().zip(ring(&before).iter()).all(|(again, before)| again.before() == before.now()));
}

#[test]
fn where_all_drain_all_serve() {
    let mut world = checked(&["10.0.0.2", "10.0.0.3"], 0);
    let before = world.compile();
    world.desired.services[0].backends[0].drain = true;
    stands(&mut world, "10.0.0.3", down());
    let compiled = world.compile();
    assert_eq!(shares(&compiled, "192.0.2.10"), [("10.0.0.2".to_owned(), RING_SLOTS)], "the last one that is up");
    assert_eq!(announced(&compiled), ["192.0.2.10/32"]);
    stands(&mut world, "10.0.0.3", Standing::Up);
    world.desired.services[0].backends[1].drain = true;
    assert_eq!(shares(&world.compile(), "192.0.2.10"), shares(&before, "192.0.2.10"));
    // One that drains and is down serves nobody.
    stands(&mut world, "10.0.0.2", down());
    let compiled = world.compile();
    assert_eq!(shares(&compiled, "192.0.2.10"), [("10.0.0.3".to_owned(), RING_SLOTS)]);
    assert!(ring(&compiled).iter().all(|slot| slot.before() == slot.now()));
}

fn backend_id(compiled: &Compiled, address: &str) -> BackendId {
    *compiled.names.backends.iter().find(|(_, (_, a))| *a == ip(address)).unwrap().0
}

#[test]
fn announcements() {
    let mut world = World::two_ports()
        .service("web", &["192.0.2.10", "2001:db8:100::10"], &["10.0.0.2"])
        .service("down", &["192.0.2.11"], &["172.16.0.1"])
        .service("private", &["192.0.2.12"], &["10.0.0.2"])
        .static_route("10.9.0.0/16", &["10.0.0.2"])
        .static_route("10.8.0.0/16", &["172.16.0.1"])
        .static_action("10.7.0.0/16", RouteAction::Blackhole);
    world.desired.services[2].advertise = false;
    world.desired.bgp = Some(Bgp {
        asn: 64512,
        listen_port: 179,
        advertise: vec![net("192.0.2.0/24")],
        communities: Vec::new(),
        peers: Vec::new(),
        alternatives: false,
    });
    assert_eq!(announced(&world.compile()), ["10.9.0.0/16", "192.0.2.0/24", "192.0.2.10/32", "2001:db8:100::10/128"]);
}

#[test]
fn tunnels_denylist_and_parameters() {
    let mut world = World::two_ports();
    world.desired.tunnels = vec![
        Tunnel {
            name: "a".into(),
            kind: TunnelKind::Ipip,
            peers: vec![net("10.0.0.9/24"), net("10.0.0.0/24")],
            sources: None,
        },
        Tunnel { name: "b".into(), kind: TunnelKind::Vxlan { vni: 7 }, peers: Vec::new(), sources: None },
    ];
    world.desired.denylist = [(net("198.51.100.0/24"), Denied::SOURCE)].into_iter().collect();
    world.desired.node.punt_rate = 77;
    let compiled = world.compile();
    let peer = |source: &str| TunnelPeer { kind: TunnelKind::Ipip, source: net(source) };
    let peers = BTreeMap::from([(peer("10.0.0.0/24"), InnerSources::Any), (peer("10.0.0.1/32"), InnerSources::Own)]);
    assert_eq!(compiled.tables.tunnel_peers, peers);
    assert!(compiled.features.decap_ipip && compiled.features.decap_vxlan && compiled.features.denied_sources);
    assert!(!compiled.features.denied_destinations);
    assert!(compiled.tables.denylist.is_same(&world.desired.denylist), "shared, not copied");
    assert_eq!(compiled.parameters.punt_rate, 77);
    let bare = World::two_ports().compile().features;
    assert!(!bare.decap_ipip && !bare.decap_vxlan && !bare.denied_sources && !bare.vip);
}

#[test]
fn inner_sources_are_ranges_in_order_and_shared() {
    let mut world = World::two_ports();
    let tunnel = |name: &str, kind, peer: &str, sources: &[&str]| Tunnel {
        name: name.into(),
        kind,
        peers: vec![net(peer)],
        sources: Some(sources.iter().map(|source| net(source)).collect()),
    };
    let lists = ["192.0.2.64/26", "192.0.2.0/25", "10.0.0.0/8", "2001:db8::/32", "::/0"];
    world.desired.tunnels = vec![
        tunnel("a", TunnelKind::Ipip, "172.16.0.0/16", &lists[..4]),
        tunnel("b", TunnelKind::Vxlan { vni: 7 }, "172.16.0.0/16", &lists[..4]),
        tunnel("c", TunnelKind::Vxlan { vni: 8 }, "172.16.0.0/16", &lists),
        tunnel("d", TunnelKind::Vxlan { vni: 8 }, "172.16.0.0/16", &lists[..1]),
    ];
    let tables = world.compile().tables;
    let range = |first: &str, last: &str| {
        let number = |text: &str| u128::from(text.parse::<std::net::Ipv6Addr>().unwrap());
        SourceRange { first: number(first), last: number(last) }
    };
    let all_ones = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let expected = [
        range("::ffff:10.0.0.0", "::ffff:10.255.255.255"),
        range("::ffff:192.0.2.0", "::ffff:192.0.2.127"),
        range("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        range("::", "::fffe:ffff:ffff"),
        range("::ffff:10.0.0.0", "::ffff:10.255.255.255"),
        range("::ffff:192.0.2.0", "::ffff:192.0.2.127"),
        range("::1:0:0:0", all_ones),
        range("::ffff:192.0.2.64", "::ffff:192.0.2.127"),
    ];
    assert_eq!(tables.tunnel_sources, expected);
    let of = |kind| tables.tunnel_peers[&TunnelPeer { kind, source: net("172.16.0.0/16") }];
    assert_eq!(of(TunnelKind::Ipip), InnerSources::Ranges { first: 0, count: 3 });
    assert_eq!(of(TunnelKind::Vxlan { vni: 7 }), InnerSources::Ranges { first: 0, count: 3 });
    assert_eq!(of(TunnelKind::Vxlan { vni: 8 }), InnerSources::Ranges { first: 3, count: 4 }, "the first by name");
}

/// Rows that checks via tunnel go by: of who does not serve, at the VIP that is asked, beside what clients' packets find.
#[test]
fn who_does_not_serve_has_a_row_for_checks_via_tunnel() {
    let backends = ["10.0.0.2", "10.0.0.3", "10.0.0.4"];
    let tunnel = |world: &mut World| {
        let health = world.desired.services[0].health.as_mut().unwrap();
        health.check = Arc::new(HealthCheck { via: Via::Tunnel, ..HealthCheck::clone(&health.check) });
    };
    let mut direct = checked(&backends, 0);
    direct.desired.services[0].addresses.push(ip("2001:db8:100::10").into());
    let mut world = checked(&backends, 0);
    world.desired.services[0].addresses.push(ip("2001:db8:100::10").into());
    tunnel(&mut world);
    let rows = |compiled: &Compiled| -> Vec<(VipId, IpAddr)> {
        compiled.tables.checked.values().map(|row| (row.vip, row.address)).collect()
    };
    backends.iter().for_each(|backend| stands(&mut world, backend, Standing::Starting));
    backends.iter().for_each(|backend| stands(&mut direct, backend, Standing::Starting));
    let starting = world.compile();
    let vip = starting.tables.vips[&VipKey::of_port(ip("192.0.2.10"), 80, 6)];
    assert_eq!(rows(&starting), backends.map(|backend| (vip, ip(backend))));
    stands(&mut world, "10.0.0.2", Standing::Up);
    stands(&mut world, "10.0.0.3", down());
    let waiting = world.compile();
    assert_eq!(rows(&waiting).len(), 3, "who is up waits for the first ring, and is asked meanwhile");
    assert!(waiting.tables.backends.is_empty());
    stands(&mut world, "10.0.0.4", Standing::Up);
    let serving = world.compile();
    assert_eq!(rows(&serving), [(vip, ip("10.0.0.3"))]);
    let (id, row) = serving.tables.checked.iter().next().unwrap();
    assert!(serving.tables.groups.contains_key(&row.group), "with its way out");
    assert!(!serving.tables.backends.contains_key(id) && !serving.names.backends.contains_key(id));
    assert_eq!(ring(&serving).iter().filter(|slot| slot.now() == *id || slot.before() == *id).count(), 0);
    assert_eq!(starting.tables.checked[id], *row, "one index for one backend");

    // Nothing else is different from what it is without.
    for (backend, standing) in [("10.0.0.2", Standing::Up), ("10.0.0.3", down()), ("10.0.0.4", Standing::Up)] {
        stands(&mut direct, backend, standing);
    }
    let direct = direct.compile();
    assert!(direct.tables.checked.is_empty());
    let serves = |compiled: &Compiled| -> BTreeSet<(VipId, IpAddr)> {
        compiled.tables.backends.values().map(|row| (row.vip, row.address)).collect()
    };
    assert_eq!((serves(&direct), &direct.announce), (serves(&serving), &serving.announce));
    assert_eq!(shares(&direct, "192.0.2.10"), shares(&serving, "192.0.2.10"));

    // All are used where the checks are not believed, and there is no row of an address that is nobody's.
    world.desired.services[0].health.as_mut().unwrap().panic_percent = 100;
    assert!(world.compile().tables.checked.is_empty());
    world.desired.services[0].health.as_mut().unwrap().panic_percent = 0;
    world.desired.services[0].backends[1].address = ip("198.51.100.7");
    assert!(world.compile().tables.checked.is_empty(), "no route");
}

#[test]
fn checks_via_tunnel_of_an_address_of_the_host_are_told_of() {
    let mut world = checked(&["10.0.0.3"], 0);
    world.desired.services[0].addresses = vec![ip("10.0.0.1").into()];
    stands(&mut world, "10.0.0.3", Standing::Up);
    assert_eq!(world.compile().notices(), [""; 0]);
    let health = world.desired.services[0].health.as_mut().unwrap();
    health.check = Arc::new(HealthCheck { via: Via::Tunnel, ..HealthCheck::clone(&health.check) });
    stands(&mut world, "10.0.0.3", Standing::Up);
    let notices = world.compile().notices();
    let said = "VirtualService web cannot be checked via tunnel: 10.0.0.1 is an address of this node, where its checks would end";
    assert_eq!(notices, [said]);
}
