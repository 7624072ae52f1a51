//! Identifiers from generation to generation and across a restart.

use super::build::*;
use crate::compile::CompileError;
use crate::ids::Ids;
use crate::tables::{VipId, VipKey};

fn full_world() -> World {
    World::two_ports()
        .vlan(5, "eth1.100", 3, 100)
        .port("eth1.100")
        .address(5, "10.5.0.1/24")
        .neighbor(2, "10.0.0.2", 2)
        .neighbor(3, "10.1.0.2", 3)
        .neighbor(5, "10.5.0.2", 5)
        .static_route("10.9.0.0/16", &["10.0.0.2*3", "10.1.0.2"])
        .bgp("100.64.0.0/24", &["10.0.0.2", "10.1.0.2", "10.5.0.2"])
        .bgp("100.64.1.0/24", &["10.0.0.2"])
        .service("web", &["192.0.2.10", "2001:db8:100::10"], &["10.0.0.2", "10.1.0.7", "10.9.0.1"])
        .service("dns", &["192.0.2.11"], &["10.5.0.2"])
}

#[test]
fn again_is_the_same() {
    let mut world = full_world();
    assert_eq!(world.compile(), world.compile());
}

#[test]
fn an_unrelated_change_moves_nothing() {
    let mut world = full_world();
    let before = world.compile();
    let mut more = world
        .neighbor(2, "10.0.0.1", 1)
        .neighbor(2, "10.0.0.100", 100)
        .bgp("100.63.0.0/24", &["10.5.0.2"])
        .service("a-new-one", &["192.0.2.1"], &["10.0.0.100"]);
    more.desired.services.rotate_right(1);
    let after = more.compile();
    assert!(before.tables.fib.iter().all(|(prefix, group)| after.tables.fib.get(prefix) == Some(group)));
    assert!(before.tables.groups.iter().all(|(id, group)| after.tables.groups.get(id) == Some(group)));
    assert!(before.tables.next_hops.iter().all(|(id, hop)| after.tables.next_hops.get(id) == Some(hop)));
    assert!(before.tables.adjacencies.iter().all(|(id, adj)| after.tables.adjacencies.get(id) == Some(adj)));
    assert!(before.tables.vips.iter().all(|(key, id)| after.tables.vips.get(key) == Some(id)));
    assert!(before.tables.backends.iter().all(|(id, backend)| after.tables.backends.get(id) == Some(backend)));
    assert!(before.tables.rings.iter().all(|(id, ring)| after.tables.rings.get(id) == Some(ring)));
}

#[test]
fn a_freed_index_rests_for_a_generation() {
    let service = |name: &str, vip: &str| World::two_ports().service(name, &[vip], &["10.0.0.2"]).desired;
    let mut world = World::two_ports();
    let mut vip_of = |vip: &str| {
        world.desired = service("s", vip);
        let tables = world.compile().tables;
        tables.vips[&VipKey::of_port(ip(vip), 80, 6)]
    };
    assert_eq!(vip_of("192.0.2.1"), VipId(1));
    assert_eq!(vip_of("192.0.2.2"), VipId(2));
    assert_eq!(vip_of("192.0.2.3"), VipId(3), "1 was freed a moment ago");
    assert_eq!(vip_of("192.0.2.4"), VipId(1));
}

#[test]
fn a_restart_takes_over_what_is_pinned() {
    let mut world = full_world();
    let mut before = world.compile();
    // Neither first-fit nor fresh: holes, and a group that has lived through a change.
    world.desired.services.remove(1);
    world.rib.remove(net("100.64.1.0/24"), crate::rib::Origin::Bgp);
    world.link_mut(5).up = false;
    world.compile();
    world.link_mut(5).up = true;
    before.tables = world.compile().tables;
    world.ids = Ids::adopt(&before.tables);
    assert_eq!(world.compile().tables, before.tables);
}

#[test]
fn a_restart_passes_over_dangling_references() {
    let mut tables = full_world().compile().tables;
    tables.next_hops.pop_first();
    tables.vips.pop_first();
    tables.groups.pop_last();
    let mut world = full_world();
    let fresh = world.compile();
    world.ids = Ids::adopt(&tables);
    let compiled = world.compile();
    assert_eq!(compiled.tables.fib.len(), fresh.tables.fib.len());
    super::invariants::assert_resolved(&compiled, &world.rib);
}

#[test]
fn a_table_that_is_full_refuses_and_recovers() {
    let mut world = World::two_ports();
    let vips: Vec<String> = (0..=Ids::LAST_VIP).map(|n| format!("198.18.{}.{}", n >> 8, n & 255)).collect();
    let names: Vec<&str> = vips.iter().map(String::as_str).collect();
    world = world.service("many", &names, &["10.0.0.2"]);
    let error = world.try_compile().unwrap_err();
    assert_eq!(error, CompileError::TooMany { what: "VIPs", limit: 4095 });
    assert_eq!(error.to_string(), "more VIPs than the 4095 that fit");
    world.desired.services[0].addresses.truncate(3);
    assert_eq!(world.compile().tables.vips.values().map(|id| id.0).collect::<Vec<_>>(), [1, 2, 3]);
}
