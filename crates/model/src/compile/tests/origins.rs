//! Where packets may come in: what source validation looks at.

use super::build::*;
use crate::compile::Compiled;
use crate::compile::compiler::{Changed, Compiler};
use crate::desired::SourceValidation::{Feasible, Loose, Off, Strict};
use crate::ids::{Ids, Limits};
use crate::network::IfIndex;
use crate::rib::{Alternative, Gateway, Way};
use crate::tables::{Origins, PortId};

const ETH0: Origins = Origins(0b011);
const ETH1: Origins = Origins(0b101);
const BOTH: Origins = Origins(0b111);

fn origins(compiled: &Compiled, prefix: &str) -> Origins {
    compiled.tables.origins[&compiled.group_of(prefix)]
}

fn world() -> World {
    World::two_ports()
        .bgp_beside("198.51.100.0/24", &["10.0.0.2"], &["10.1.0.2"])
        .bgp_beside("198.51.101.0/24", &["10.0.0.2"], &[])
        .bgp_beside("198.51.102.0/24", &["10.1.0.2"], &["10.0.0.2", "172.16.0.1"])
}

#[test]
fn the_ports_are_those_of_the_test() {
    let ports = world().compile().names.ports;
    assert_eq!((ports[&PortId(1)].as_str(), ports[&PortId(2)].as_str()), ("eth0", "eth1"));
}

#[test]
fn alternatives_count_where_a_port_asks_for_them() {
    let compiled = world().validation("eth0", Strict).validation("eth1", Feasible).compile();
    assert_eq!(origins(&compiled, "198.51.100.0/24"), BOTH);
    assert_eq!(origins(&compiled, "198.51.101.0/24"), ETH0);
    assert_eq!(origins(&compiled, "198.51.102.0/24"), ETH1, "eth0 does not ask");
    assert_ne!(compiled.group_of("198.51.100.0/24"), compiled.group_of("198.51.101.0/24"));
    let compiled = world().validation("eth0", Feasible).compile();
    assert_eq!(origins(&compiled, "198.51.102.0/24"), BOTH);
}

#[test]
fn where_no_port_asks_there_are_no_groups_for_them() {
    let without = World::two_ports()
        .bgp("198.51.100.0/24", &["10.0.0.2"])
        .bgp("198.51.101.0/24", &["10.0.0.2"])
        .bgp("198.51.102.0/24", &["10.1.0.2"])
        .compile();
    for validation in [Loose, Strict] {
        let compiled = world().validation("eth0", validation).validation("eth1", validation).compile();
        assert_eq!(compiled.tables.groups, without.tables.groups);
        assert_eq!(compiled.tables.fib, without.tables.fib);
    }
    assert_eq!(world().compile().tables, without.tables);
}

#[test]
fn what_drops_takes_nothing_and_routes_of_the_kernel_have_links_beside() {
    let mut world = World::two_ports().validation("eth0", Feasible).validation("eth1", Feasible);
    let beside = || [Alternative::Link(IfIndex(3))].into();
    for (prefix, way) in [
        ("203.0.113.0/24", Way::Blackhole),
        ("198.51.100.0/24", Way::Host),
        ("198.51.101.0/24", Way::Link(IfIndex(2))),
        ("198.51.102.0/24", Way::Link(IfIndex(3))),
    ] {
        world.rib.set_kernel_beside(net(prefix), way, beside());
    }
    let mut world = world.neighbor(2, "198.51.101.9", 9);
    let compiled = world.compile();
    assert_eq!(origins(&compiled, "203.0.113.0/24"), Origins::NONE);
    assert_eq!(origins(&compiled, "198.51.100.0/24"), ETH1);
    assert_eq!(origins(&compiled, "198.51.101.0/24"), BOTH);
    assert_eq!(origins(&compiled, "198.51.101.9/32"), BOTH, "a neighbour is what the link is");
    assert_eq!(origins(&compiled, "198.51.102.0/24"), ETH1);
    world.link_mut(3).up = false;
    assert_eq!(origins(&world.compile(), "198.51.101.0/24"), ETH0);
}

/// A second peer that announces and withdraws changes where packets come from, and not where they go.
#[test]
fn alternatives_come_and_go_and_no_bucket_moves() {
    let gateways = ["10.0.0.2", "10.0.0.3", "10.0.0.4"];
    let mut world = World::two_ports().validation("eth1", Feasible);
    // Buckets that say how they came about.
    for n in [3, 1, 2, 3] {
        world = world.bgp("198.51.100.0/24", &gateways[..n]).bgp("198.51.101.0/24", &gateways[..n]);
        world.compile();
    }
    world.rib.forget_unused_sets();
    let before = world.compile();
    world = world.bgp_beside("198.51.100.0/24", &gateways, &["10.1.0.2"]);
    let some = world.compile();
    world = world.bgp_beside("198.51.101.0/24", &gateways, &["10.1.0.2"]);
    let all = world.compile();
    world = world.bgp("198.51.100.0/24", &gateways).bgp("198.51.101.0/24", &gateways);
    world.rib.forget_unused_sets();
    let after = world.compile();
    for prefix in ["198.51.100.0/24", "198.51.101.0/24"] {
        let buckets = |compiled: &Compiled| compiled.tables.groups[&compiled.group_of(prefix)].clone();
        for compiled in [&some, &all, &after] {
            assert_eq!(buckets(compiled), buckets(&before), "{prefix}");
        }
        assert_eq!((origins(&all, prefix), origins(&after, prefix)), (BOTH, ETH0));
    }
    assert_eq!((origins(&some, "198.51.100.0/24"), origins(&some, "198.51.101.0/24")), (BOTH, ETH0));
    assert_eq!(after.tables.groups.len(), before.tables.groups.len());
}

/// An interface that is lost takes its alternatives with it: that is a store in the table of origins.
#[test]
fn an_alternative_whose_link_is_lost_moves_no_prefix_that_is_alone_with_it() {
    let mut world = World::two_ports().validation("eth1", Feasible);
    for n in 0..9 {
        world = world.bgp_beside(&format!("198.51.{n}.0/24"), &["10.0.0.2"], &["10.1.0.2"]);
    }
    let mut compiler = Compiler::new(Ids::default());
    compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap();
    compiler.written();
    world.link_mut(3).up = false;
    compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap();
    assert_eq!(origins(compiler.compiled(), "198.51.0.0/24"), ETH0);
    let Changed::Prefixes(changed) = compiler.changed() else { panic!("everything") };
    assert!(!changed.iter().any(|prefix| net("198.51.0.0/16").contains(prefix)), "{changed:?}");
}

#[test]
fn a_restart_finds_groups_that_differ_in_their_origins_alone() {
    let mut world = world().validation("eth0", Feasible).validation("eth1", Feasible);
    // In another order than that of the keys.
    world = world.bgp_beside("198.51.101.0/24", &["10.0.0.2"], &["10.1.0.2"]);
    world = world.bgp("198.51.100.0/24", &["10.0.0.2"]);
    world.compile();
    world = world.bgp_beside("198.51.100.0/24", &["10.0.0.2"], &["10.1.0.2"]);
    world = world.bgp("198.51.101.0/24", &["10.0.0.2"]);
    let before = world.compile();
    world.ids = Ids::adopt(&before.tables);
    assert_eq!(world.compile().tables, before.tables);
}

/// What only the host may have a route for comes in by any port; where nobody asks, that takes no group of its own.
#[test]
fn sources_that_only_the_fallback_has_come_in_anywhere() {
    for (validation, takes) in [(Loose, Some(Origins::ANY)), (Strict, Some(Origins::ANY)), (Off, None)] {
        let mut world = World::two_ports().validation("eth1", validation);
        let own = world.compile();
        let way = Way::through([Gateway::on_link(ip("10.0.0.2"), IfIndex(2))]).unwrap();
        world.rib.set_kernel(net("198.51.100.0/24"), way);
        let limits = Limits { prefixes: [0, 0], ..Limits::default() };
        let mut compiler = Compiler::with_limits(Ids::default(), limits);
        compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap();
        let compiled = compiler.compiled();
        assert_eq!(compiled.route("0.0.0.0/0").unwrap(), "host");
        assert_eq!(compiled.route("::/0"), None, "the other family has room");
        let default = compiled.group_of("0.0.0.0/0");
        assert_eq!(compiled.tables.origins.get(&default).copied(), takes);
        let apart = default != compiled.group_of("10.0.0.255/32");
        assert_eq!(apart, takes.is_some(), "the ends of subnets are the host's, and no origin of packets");
        let more = usize::from(takes.is_some()) + 1;
        assert_eq!(compiled.tables.groups.len(), own.tables.groups.len() + more, "and that of the route");
        let mut restarted = Compiler::with_limits(Ids::adopt(&compiled.tables), limits);
        restarted.compile(&world.desired, &world.network, &mut world.rib).unwrap();
        assert_eq!(restarted.compiled().tables, compiled.tables);
    }
}
