//! What holds for any configuration: determinism, no dangling reference, no dependence on order.

use std::collections::BTreeSet;

use ipnet::IpNet;
use proptest::prelude::*;

use super::build::*;
use crate::compile::Compiled;
use crate::desired::RouteAction;
use crate::ids::Ids;
use crate::rib::Rib;
use crate::tables::{BackendId, GROUP_BUCKETS, NextHop, RING_SLOTS};

/// Every reference leads to an entry, and nothing is there that nothing refers to.
pub(super) fn assert_resolved(compiled: &Compiled, rib: &Rib) {
    let tables = &compiled.tables;
    let mut groups: BTreeSet<_> = tables.fib.values().copied().collect();
    for backend in tables.backends.values() {
        assert!(tables.vips.values().any(|vip| *vip == backend.vip));
        groups.insert(backend.group);
    }
    // Those of ways out that only routes behind better ones have are there, too: they wait for their turn.
    assert!(groups.iter().all(|group| tables.groups.contains_key(group)));
    groups.extend(compiled.routing.learned.iter().copied().flatten().chain(compiled.routing.host));
    assert_eq!(groups, tables.groups.keys().copied().collect());
    let mut hops = BTreeSet::new();
    for group in tables.groups.values() {
        assert_eq!(group.buckets.len(), GROUP_BUCKETS);
        hops.extend(group.buckets.iter().copied());
    }
    assert_eq!(hops, tables.next_hops.keys().copied().collect());
    let adjacencies: BTreeSet<_> = tables
        .next_hops
        .values()
        .filter_map(|hop| match hop {
            NextHop::Forward { adjacency, .. } => Some(*adjacency),
            _ => None,
        })
        .collect();
    assert_eq!(adjacencies, tables.adjacencies.keys().copied().collect());
    assert_eq!(tables.vips.values().collect::<BTreeSet<_>>(), tables.rings.keys().collect());
    for (vip, ring) in &tables.rings {
        assert_eq!(ring.len(), RING_SLOTS);
        let used: BTreeSet<BackendId> =
            ring.iter().flat_map(|slot| [slot.now(), slot.before()]).filter(|id| *id != BackendId(0)).collect();
        assert!(used.iter().all(|id| tables.backends[id].vip == *vip));
    }
    let zero = tables.vips.values().any(|id| id.0 == 0) || tables.backends.keys().any(|id| id.0 == 0);
    assert!(!zero && tables.groups.keys().all(|id| id.0 > 0) && tables.next_hops.keys().all(|id| id.0 > 0));
    assert_eq!(compiled.names.filter.len(), tables.filter.len());
    let best = |prefix: &IpNet| compiled.best_route(*prefix, rib).map(|(_, group)| group);
    assert!(tables.fib.iter().all(|(prefix, group)| best(prefix) == Some(*group)));
}

const GATEWAYS: [&str; 8] =
    ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.1.0.2", "10.9.0.1", "10.5.0.2", "172.16.0.1", "2001:db8::2"];
const PREFIXES: [&str; 8] = [
    "10.9.0.0/16",
    "10.0.0.0/25",
    "10.0.0.2/32",
    "172.16.0.0/12",
    "0.0.0.0/0",
    "10.0.0.0/24",
    "2001:db8:9::/48",
    "2001:db8::/64",
];

/// One thing that may be there.
#[derive(Clone, Debug)]
enum Thing {
    Neighbor(u32, usize),
    Static(usize, Vec<usize>),
    Blackhole(usize),
    Bgp(usize, Vec<usize>),
    Adopted(usize, usize, u32),
    Service(u8, Vec<usize>),
    Down(u32),
}

fn thing() -> impl Strategy<Value = Thing> {
    let gateways = || prop::collection::vec(0..GATEWAYS.len(), 1..4);
    prop_oneof![
        (2u32..5, 0..GATEWAYS.len()).prop_map(|(i, g)| Thing::Neighbor(i, g)),
        (0..PREFIXES.len(), gateways()).prop_map(|(p, g)| Thing::Static(p, g)),
        (0..PREFIXES.len()).prop_map(Thing::Blackhole),
        (0..PREFIXES.len(), gateways()).prop_map(|(p, g)| Thing::Bgp(p, g)),
        (0..PREFIXES.len(), 0..GATEWAYS.len(), 2u32..5).prop_map(|(p, g, i)| Thing::Adopted(p, g, i)),
        (0u8..4, gateways()).prop_map(|(n, g)| Thing::Service(n, g)),
        (2u32..4).prop_map(Thing::Down),
    ]
}

/// A world of these things; of several for one place, the first stays, as the loader has it.
fn world(things: &[Thing]) -> World {
    let mut world = World::two_ports().link(4, "mgmt").address(4, "10.4.0.1/24");
    let names = |indices: &[usize]| {
        let distinct: BTreeSet<usize> = indices.iter().copied().collect();
        distinct.into_iter().map(|g| GATEWAYS[g]).collect::<Vec<_>>()
    };
    for thing in things {
        let prefix_taken =
            |world: &World, p: &usize| world.desired.static_routes.iter().any(|r| r.prefix == net(PREFIXES[*p]));
        world = match thing {
            Thing::Neighbor(ifindex, g) => world.neighbor(*ifindex, GATEWAYS[*g], *g as u8),
            Thing::Static(p, g) if !prefix_taken(&world, p) => world.static_route(PREFIXES[*p], &names(g)),
            Thing::Blackhole(p) if !prefix_taken(&world, p) => {
                world.static_action(PREFIXES[*p], RouteAction::Blackhole)
            }
            Thing::Bgp(p, g) => world.bgp(PREFIXES[*p], &names(g)),
            Thing::Adopted(p, g, ifindex) => world.adopted(PREFIXES[*p], GATEWAYS[*g], *ifindex),
            Thing::Service(n, g) if world.desired.services.iter().all(|s| s.name != format!("s{n}")) => {
                world.service(&format!("s{n}"), &[&format!("192.0.2.{n}")], &names(g))
            }
            Thing::Down(ifindex) => {
                world.link_mut(*ifindex).up = false;
                world
            }
            Thing::Static(..) | Thing::Blackhole(_) | Thing::Service(..) => world,
        };
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_generation_is_whole(generations in prop::collection::vec(prop::collection::vec(thing(), 0..12), 1..4)) {
        let mut ids = Ids::default();
        for things in &generations {
            let mut world = world(things);
            world.ids = ids;
            let compiled = world.compile();
            assert_resolved(&compiled, &world.rib);
            prop_assert_eq!(&world.compile(), &compiled, "the same again");
            let mut restarted = world.clone();
            restarted.ids = Ids::adopt(&compiled.tables);
            let again = restarted.compile();
            assert_resolved(&again, &restarted.rib);
            ids = world.ids;
        }
    }

    #[test]
    fn order_is_of_no_consequence(things in prop::collection::vec(thing(), 0..12), turn in 0usize..12) {
        let mut one = world(&things);
        let mut other = one.clone();
        let turn = |len: usize| if len == 0 { 0 } else { turn % len };
        let (services, statics) = (other.desired.services.len(), other.desired.static_routes.len());
        other.desired.services.rotate_left(turn(services));
        other.desired.static_routes.rotate_left(turn(statics));
        for service in &mut other.desired.services {
            service.backends.reverse();
        }
        prop_assert_eq!(one.compile(), other.compile());
    }
}

/// 10,000 routes and 1,000 services: `cargo test --release -p margay-model compile_time -- --ignored --nocapture`.
#[test]
#[ignore = "a figure, meaningful in a release build"]
fn compile_time() {
    let mut world = World::two_ports().neighbor(2, "10.0.0.2", 2);
    for n in 0..10_000u32 {
        let prefix = format!("100.{}.{}.0/24", n >> 8, n & 255);
        world = world.bgp(&prefix, &["10.0.0.2", "10.1.0.2"]);
    }
    for n in 0..1_000u32 {
        let backends: Vec<String> = (0..4).map(|b| format!("100.{}.{}.{}", n >> 8, n & 255, b + 1)).collect();
        let names: Vec<&str> = backends.iter().map(String::as_str).collect();
        world = world.service(&format!("s{n}"), &[&format!("198.18.{}.{}", n >> 8, n & 255)], &names);
    }
    let start = std::time::Instant::now();
    world.compile();
    println!("first generation: {:?}", start.elapsed());
    let start = std::time::Instant::now();
    world.compile();
    println!("the same again: {:?}", start.elapsed());
}
