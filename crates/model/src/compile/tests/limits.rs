//! Where there is no room: what is left out is told, what covers it answers, and it is taken in when there is room again.

use proptest::prelude::*;

use super::build::*;
use super::differences::{happen, happening, meaning, start};
use super::invariants::assert_resolved;
use crate::compile::compiler::{Compiler, LeftOut};
use crate::desired::SourceValidation;
use crate::ids::{Ids, Limits};
use crate::network::IfIndex;
use crate::rib::{Gateway as Learned, Origin, Source, Way};

/// Compiles until nothing rests any more that was to be taken.
fn settle(compiler: &mut Compiler, world: &mut World) {
    for _ in 0..5 {
        compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap();
        if !compiler.compiled().wants_another {
            return;
        }
    }
    panic!("it never settles");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_left_out_is_told_and_nothing_else_is_different(
        bursts in prop::collection::vec(prop::collection::vec(happening(), 1..6), 1..12),
        prefixes in 0usize..8,
        groups in 0usize..6,
        next_hops in 0usize..6,
    ) {
        let mut world = start();
        let whole = world.clone().compile();
        let family = |ipv4| whole.tables.fib.keys().filter(|prefix| prefix.addr().is_ipv4() == ipv4).count();
        // Its own routes, backends and the host's stack have room in any case.
        let limits = Limits {
            prefixes: [family(true) + prefixes, family(false) + prefixes],
            groups: whole.tables.groups.len() + 12 + groups,
            next_hops: whole.tables.next_hops.len() + 12 + next_hops,
            vrf_prefixes: 0,
            set_aside: 10,
        };
        let mut compiler = Compiler::with_limits(Ids::default(), limits);
        for burst in &bursts {
            let (desired, network) = (world.desired.clone(), world.network.clone());
            world = burst.iter().fold(world, happen);
            let only_routes = desired == world.desired && network == world.network;
            if !(only_routes && compiler.follow(&mut world.rib)) {
                settle(&mut compiler, &mut world);
            }
            let compiled = compiler.compiled();
            assert_resolved(compiled, &world.rib);
            prop_assert!(compiled.tables.groups.len() <= limits.groups);
            prop_assert!(compiled.tables.next_hops.len() <= limits.next_hops);
            let whole = world.clone().compile();
            let left_out = compiler.routes_left_out(&world.rib);
            let (there, wanted) = (meaning(compiled), meaning(&whole));
            for (prefix, meaning) in &wanted {
                let source = whole.best_route(*prefix, &world.rib).unwrap().0;
                let is_left_out = left_out.contains(&(*prefix, source));
                prop_assert!(there.get(prefix) == Some(meaning) || is_left_out, "{} of {:?}", prefix, source);
            }
            for ipv4 in [true, false] {
                let is_family = |prefix: &ipnet::IpNet| prefix.addr().is_ipv4() == ipv4;
                let default = net(if ipv4 { "0.0.0.0/0" } else { "::/0" });
                let kernels = left_out.iter().any(|(prefix, source)| is_family(prefix) && *source == Source::Kernel);
                let source = compiled.best_route(default, &world.rib).map(|(source, _)| source);
                let stands_in = source == Some(Source::Fallback) && compiled.route(&default.to_string()).unwrap() == "host";
                let others = there.contains_key(&default) && source != Some(Source::Fallback);
                prop_assert_eq!(stands_in, kernels && !others, "{:?}", left_out);
            }
            let LeftOut { prefixes, groups } = compiler.left_out(&world.rib);
            let told = compiled.notices().iter().filter(|notice| notice.contains("full")).count();
            let full = prefixes.iter().chain([&groups]).filter(|routes| **routes > 0).count();
            prop_assert_eq!(told, full);
            let fits = whole.tables.groups.len() + limits.set_aside <= limits.groups
                && whole.tables.next_hops.len() + limits.set_aside <= limits.next_hops;
            prop_assert!(!fits || groups == 0, "left out for nothing");
        }
    }
}

/// A kernel route that goes takes the last use of a group with it, the one that stands in: nothing but a route has changed, and there is room.
#[test]
fn room_that_a_route_leaves_is_taken() {
    let mut world = World::two_ports();
    world.desired.node.interfaces[0].source_validation = SourceValidation::Loose;
    world.rib.set_kernel(net("198.51.100.0/24"), Way::Link(IfIndex(2)));
    let groups = world.clone().compile().tables.groups.len();
    let limits = Limits { groups: groups + 2, set_aside: 2, ..Limits::default() };
    let mut compiler = Compiler::with_limits(Ids::default(), limits);
    settle(&mut compiler, &mut world);
    world = world.bgp("100.64.0.0/24", &["10.0.0.2", "10.1.0.2"]);
    settle(&mut compiler, &mut world);
    assert_eq!(compiler.left_out(&world.rib).groups, 1);
    world.rib.remove(net("198.51.100.0/24"), Origin::Kernel);
    assert!(!compiler.follow(&mut world.rib));
    settle(&mut compiler, &mut world);
    assert_eq!(compiler.left_out(&world.rib).groups, 0);
    assert!(compiler.compiled().route("100.64.0.0/24").is_some());
    assert!(compiler.follow(&mut world.rib), "and then routes are only routes again");
}

#[test]
fn ways_out_beyond_the_groups_are_left_out_and_taken_in_when_there_is_room() {
    let mut world = World::two_ports().bgp("100.64.0.0/16", &["10.0.0.2"]);
    let limits = Limits { groups: world.clone().compile().tables.groups.len() + 5, set_aside: 2, ..Limits::default() };
    let mut compiler = Compiler::with_limits(Ids::default(), limits);
    settle(&mut compiler, &mut world);
    for n in 1..=6 {
        world = world.bgp(&format!("100.64.{n}.0/24"), &[&format!("10.0.0.{}", 10 + n), "10.1.0.2"]);
    }
    settle(&mut compiler, &mut world);
    let in_fib = |compiler: &Compiler| -> Vec<bool> {
        (1..=6).map(|n| compiler.compiled().route(&format!("100.64.{n}.0/24")).is_some()).collect()
    };
    assert_eq!(in_fib(&compiler), [true, true, true, false, false, false], "two are set aside");
    assert!(compiler.compiled().route("100.64.0.0/16").is_some(), "what covers them answers");
    let full = |n: usize| format!("next-hop groups are full: {n} routes with next hops of their own are left out");
    assert_eq!(compiler.compiled().notices(), [full(3)]);
    assert_eq!(compiler.left_out(&world.rib), LeftOut { prefixes: [0, 0], groups: 3 });

    // More of the same find it full, and who has a group keeps it.
    world = world.bgp("100.63.0.0/24", &["10.0.0.9", "10.1.0.2"]);
    settle(&mut compiler, &mut world);
    assert_eq!(in_fib(&compiler), [true, true, true, false, false, false]);
    assert_eq!(compiler.compiled().notices(), [full(4)]);

    // The node's own have what is set aside, and then what others leave.
    for n in 0..4 {
        world = world.static_route(&format!("172.16.{n}.0/24"), &[&format!("10.0.0.{}", 30 + n)]);
        settle(&mut compiler, &mut world);
        assert!(compiler.compiled().route(&format!("172.16.{n}.0/24")).is_some());
    }
    assert_eq!(compiler.left_out(&world.rib).groups, 8, "all of the routes, the covering one, too");

    world.desired.static_routes.clear();
    for n in 1..=3 {
        world.rib.remove(net(&format!("100.64.{n}.0/24")), Origin::Bgp);
    }
    settle(&mut compiler, &mut world);
    assert_eq!(compiler.compiled().notices(), [full(1)]);
    world.rib.remove(net("100.63.0.0/24"), Origin::Bgp);
    settle(&mut compiler, &mut world);
    assert_eq!(in_fib(&compiler), [false, false, false, true, true, true]);
    assert_eq!(compiler.compiled().notices(), Vec::<String>::new());
}

#[test]
fn neighbours_without_room_are_gleaned() {
    let mut world = World::two_ports();
    let limits = Limits { groups: world.clone().compile().tables.groups.len() + 4, set_aside: 2, ..Limits::default() };
    for n in 2..9 {
        world = world.neighbor(2, &format!("10.0.0.{n}"), n);
    }
    let mut compiler = Compiler::with_limits(Ids::default(), limits);
    settle(&mut compiler, &mut world);
    let hosts = (2..9).filter(|n| compiler.compiled().route(&format!("10.0.0.{n}/32")).is_some()).count();
    assert_eq!(hosts, 2);
    assert_eq!(compiler.left_out(&world.rib).groups, 5);
    // A backend needs its group, and has it.
    world = world.service("web", &["192.0.2.10"], &["10.0.0.8"]);
    settle(&mut compiler, &mut world);
    let tables = &compiler.compiled().tables;
    assert!(tables.backends.values().all(|backend| tables.groups.contains_key(&backend.group)));
}

#[test]
fn what_the_kernel_has_and_the_fib_has_no_room_for_is_left_to_the_host() {
    let mut world = World::two_ports();
    let own = world.clone().compile().tables.fib.keys().filter(|prefix| prefix.addr().is_ipv4()).count();
    let limits = Limits { prefixes: [own + 2, 100], ..Limits::default() };
    let mut compiler = Compiler::with_limits(Ids::default(), limits);
    let by_the_kernel = |world: &mut World, n: u32| {
        let way = Way::through([Learned::on_link(ip("10.0.0.2"), IfIndex(2))]).unwrap();
        world.rib.set_kernel(net(&format!("100.64.{n}.0/24")), way);
    };
    // Routes of BGP that are left out are nothing to the host.
    for n in 0..4 {
        world = world.bgp(&format!("100.64.{n}.0/24"), &["10.0.0.2"]);
    }
    settle(&mut compiler, &mut world);
    assert_eq!(compiler.left_out(&world.rib), LeftOut { prefixes: [2, 0], groups: 0 });
    assert_eq!(compiler.compiled().route("0.0.0.0/0"), None);
    by_the_kernel(&mut world, 7);
    settle(&mut compiler, &mut world);
    assert_eq!(compiler.compiled().route("100.64.7.0/24"), None);
    assert_eq!(compiler.compiled().route("0.0.0.0/0").unwrap(), "host");
    assert_eq!(compiler.compiled().best_route(net("0.0.0.0/0"), &world.rib).unwrap().0, Source::Fallback);
    assert_eq!(compiler.compiled().route("::/0"), None, "the other family has room");
    // A default route is better, has room in any case, and leaves the place when it goes.
    world = world.bgp("0.0.0.0/0", &["10.0.0.3"]);
    assert!(!compiler.follow(&mut world.rib), "a new way out");
    settle(&mut compiler, &mut world);
    assert_eq!(compiler.compiled().route("0.0.0.0/0").unwrap(), "10.0.0.3@2?");
    world.rib.remove(net("0.0.0.0/0"), Origin::Bgp);
    settle(&mut compiler, &mut world);
    assert_eq!(compiler.compiled().route("0.0.0.0/0").unwrap(), "host");
    world.rib.remove(net("100.64.7.0/24"), Origin::Kernel);
    assert!(compiler.follow(&mut world.rib));
    assert_eq!(compiler.compiled().route("0.0.0.0/0"), None);
    assert_eq!(compiler.left_out(&world.rib).prefixes, [2, 0]);
}
