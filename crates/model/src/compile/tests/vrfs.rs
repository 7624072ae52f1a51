//! VRFs: what belongs to which, and what does not cross.

use super::build::*;
use crate::compile::{Compiled, Compiler, compile};
use crate::desired::{SourceValidation, Vrf};
use crate::ids::{Ids, Limits};
use crate::network::IfIndex;
use crate::rib::{Gateway, Source, Way};
use crate::tables::{Features, Origins, PortKey, VrfId};

const TABLE: u32 = 10;

fn vrf(mut world: World, name: &str, table: Option<u32>, ports: &[&str]) -> World {
    world.desired.vrfs.push(Vrf { name: name.to_owned(), table });
    for interface in &mut world.desired.node.interfaces {
        if ports.contains(&interface.name.as_str()) {
            interface.vrf = Some(name.to_owned());
        }
    }
    world
}

/// eth1 (index 3) in VRF blue with the same addresses as eth0.
fn blue() -> World {
    let world = World::two_ports().address(3, "10.0.0.1/24").address(3, "2001:db8::1/64");
    vrf(world, "blue", Some(TABLE), &["eth1"])
}

fn in_vrf(mut world: World, name: &str) -> World {
    world.desired.static_routes.last_mut().unwrap().vrf = Some(name.to_owned());
    world
}

fn kernel(mut world: World, prefix: &str, way: Way) -> World {
    world.rib.set_in_table(TABLE, net(prefix), Some((way, Default::default())));
    world
}

fn gateway(address: &str, ifindex: u32) -> Way {
    Way::through([Gateway::on_link(ip(address), IfIndex(ifindex))]).unwrap()
}

/// The route of a prefix in the first VRF, as [`Compiled::route`] writes those of the default one.
fn route(compiled: &Compiled, prefix: &str) -> Option<String> {
    let mut compiled = compiled.clone();
    compiled.tables.fib = compiled.tables.vrfs.get(&VrfId(1)).unwrap().clone();
    compiled.route(prefix)
}

#[test]
fn addresses_prefixes_and_neighbours_belong_to_the_vrf_of_their_interface() {
    let compiled = blue().neighbor(2, "10.0.0.7", 7).neighbor(3, "10.0.0.7", 8).compile();
    assert_eq!(compiled.route("10.0.0.7/32").unwrap(), "10.0.0.7@2");
    assert_eq!(route(&compiled, "10.0.0.7/32").unwrap(), "10.0.0.7@3");
    assert_eq!((compiled.route("10.1.0.1/32"), route(&compiled, "10.1.0.1/32").unwrap()), (None, "receive".to_owned()));
    for (prefix, ours, theirs) in [
        ("10.0.0.1/32", "receive", "receive"),
        ("10.0.0.255/32", "host", "host"),
        ("10.0.0.0/24", "glean@2", "glean@3"),
        ("2001:db8::/64", "glean@2", "glean@3"),
    ] {
        assert_eq!((compiled.route(prefix).unwrap(), route(&compiled, prefix).unwrap()), (ours.into(), theirs.into()));
    }
    let port = |ifindex| &compiled.tables.ports[&PortKey { ifindex: IfIndex(ifindex), vlan: None }];
    assert_eq!((port(2).vrf, port(3).vrf), (VrfId::DEFAULT, VrfId(1)));
    assert_eq!(compiled.features, Features { slow_path: true, vrf: true, ..Features::default() });
    assert_eq!(compiled.names.vrfs[&VrfId(1)], "blue");
    assert_eq!(compiled.notices(), Vec::<String>::new());
    assert!(!World::two_ports().compile().features.vrf);
}

#[test]
fn routes_are_looked_up_within_their_vrf() {
    let world =
        in_vrf(blue().static_route("192.0.2.0/24", &["10.0.0.2"]), "blue").static_route("192.0.2.0/24", &["10.0.0.2"]);
    let world = kernel(world, "198.51.100.0/24", gateway("10.0.0.3", 3));
    let world = kernel(world, "192.0.2.0/24", Way::Blackhole).bgp("203.0.113.0/24", &["10.0.0.4"]);
    let compiled = kernel(world, "0.0.0.0/0", Way::Link(IfIndex(9))).compile();
    assert_eq!(compiled.route("192.0.2.0/24").unwrap(), "10.0.0.2@2?");
    assert_eq!(route(&compiled, "192.0.2.0/24").unwrap(), "10.0.0.2@3?", "a static route before one of the kernel");
    assert_eq!(route(&compiled, "198.51.100.0/24").unwrap(), "10.0.0.3@3?");
    assert_eq!(route(&compiled, "0.0.0.0/0").unwrap(), "host", "by an interface that is no port");
    assert_eq!((compiled.route("198.51.100.0/24"), compiled.route("0.0.0.0/0")), (None, None));
    assert_eq!(route(&compiled, "203.0.113.0/24"), None, "BGP is in the default VRF");
    assert_eq!(compiled.vrf_routes(VrfId(1))[&net("198.51.100.0/24")].0, Source::Kernel);
    assert_eq!(compiled.announce, [net("192.0.2.0/24")].into());
    assert_eq!(compiled.notices(), Vec::<String>::new());
}

#[test]
fn what_leads_to_another_vrf_is_left_out_and_told_of() {
    let world = in_vrf(blue().static_route("192.0.2.0/24", &["10.0.0.2@eth0"]), "blue")
        .static_route("192.0.3.0/24", &["10.0.0.2@eth1"]);
    let world = kernel(world, "198.51.100.0/24", gateway("10.0.0.3", 2));
    let mut world = kernel(world, "198.51.101.0/24", Way::Link(IfIndex(2)));
    world.rib.set_kernel(net("203.0.113.0/24"), gateway("10.0.0.3", 3));
    // As the kernel has for every address.
    world.rib.set_kernel(net("10.1.0.0/24"), Way::Link(IfIndex(3)));
    let both = [gateway("10.0.0.3", 2), gateway("10.0.0.4", 3)].map(|way| match way {
        Way::Gateways(gateways) => gateways[0],
        _ => unreachable!(),
    });
    let compiled = kernel(world.clone(), "198.51.102.0/24", Way::through(both).unwrap()).compile();
    for prefix in ["192.0.2.0/24", "198.51.100.0/24", "198.51.101.0/24"] {
        assert_eq!(route(&compiled, prefix), None, "{prefix}");
    }
    assert_eq!(route(&compiled, "198.51.102.0/24").unwrap(), "10.0.0.4@3?", "the way that is its own");
    assert_eq!((compiled.route("192.0.3.0/24"), compiled.route("203.0.113.0/24")), (None, None));
    let mut notices = compiled.notices();
    notices.retain(|notice| notice.contains("VRF"));
    assert_eq!(
        notices,
        [
            "StaticRoute to 192.0.2.0/24 (192.0.2.0/24) of VRF blue has a gateway on eth0 of the default VRF: it is left out",
            "StaticRoute to 192.0.3.0/24 (192.0.3.0/24) of the default VRF has a gateway on eth1 of VRF blue: it is left out",
            "3 routes of the kernel in VRF blue, 198.51.100.0/24 one of them, lead by eth0 of the default VRF: that way is left out",
            "1 routes of the kernel in the default VRF, 203.0.113.0/24 one of them, lead by eth1 of VRF blue: that way is left out",
        ]
    );
}

/// What the compiler follows by itself: the notice goes with the routes, and changes of a VRF are a generation.
#[test]
fn the_compiler_follows_vrfs() {
    let mut world = blue();
    world.rib.set_kernel(net("203.0.113.0/24"), gateway("10.0.0.3", 3));
    let mut compiler = Compiler::new(Ids::default());
    compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap();
    let told =
        |compiler: &Compiler| compiler.compiled().notices().iter().filter(|n| n.contains("lead by eth1")).count();
    assert_eq!(told(&compiler), 1);
    world.rib.remove(net("203.0.113.0/24"), crate::rib::Origin::Kernel);
    assert!(compiler.follow(&mut world.rib));
    assert_eq!(told(&compiler), 0);

    world.rib.set_in_table(TABLE, net("198.51.100.0/24"), Some((gateway("10.0.0.3", 3), Default::default())));
    world.rib.set_in_table(TABLE, net("127.0.0.0/8"), Some((gateway("10.0.0.3", 3), Default::default())));
    assert!(world.rib.has_changes() && !compiler.follow(&mut world.rib));
    assert!(compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap());
    assert_eq!(route(compiler.compiled(), "198.51.100.0/24").unwrap(), "10.0.0.3@3?");
    let refused = "1 routes of the kernel in VRF blue are refused, 127.0.0.0/8 the first: their addresses are never routed (RFC 6890)";
    assert_eq!(compiler.compiled().notices(), [refused]);
    compiler.written();
    assert!(!compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap(), "nothing has changed");
    world.rib.set_in_table(TABLE, net("198.51.100.0/24"), None);
    assert!(compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap());
    assert_eq!(route(compiler.compiled(), "198.51.100.0/24"), None);
    let once = compile(&world.desired, &world.network, &world.rib, &mut Ids::default()).unwrap();
    assert_eq!(once.tables.vrfs, compiler.compiled().tables.vrfs);
}

#[test]
fn a_vrf_keeps_its_index_over_generations_and_restarts() {
    let three = || World::two_ports().link(4, "eth2").port("eth2").address(4, "10.2.0.1/24");
    let mut world = vrf(vrf(three(), "red", None, &["eth2"]), "blue", None, &["eth1"]);
    let before = world.compile();
    assert_eq!(before.names.vrfs.values().collect::<Vec<_>>(), ["red", "blue"]);
    let mut ids = Ids::adopt(&before.tables);
    let mut other = vrf(vrf(three(), "blue", None, &["eth1"]), "aqua", None, &["eth0"]);
    let after = compile(&other.desired, &other.network, &other.rib, &mut ids).unwrap();
    let id = |compiled: &Compiled, name: &str| compiled.names.vrfs.iter().find(|(_, n)| *n == name).map(|(id, _)| *id);
    assert_eq!(id(&after, "blue"), id(&before, "blue"), "known by its port");
    assert_eq!(id(&after, "aqua"), Some(VrfId(3)), "not that of another, whose packets may be on their way");
    other.desired.vrfs.retain(|vrf| vrf.name == "blue");
    other.desired.node.interfaces[0].vrf = None;
    let later = compile(&other.desired, &other.network, &other.rib, &mut ids).unwrap();
    assert_eq!(later.names.vrfs.len(), 1);
    assert_eq!(id(&later, "blue"), id(&before, "blue"));
}

#[test]
fn a_full_vrf_leaves_learned_routes_out() {
    let mut world = blue();
    for n in 0..5 {
        world = kernel(world, &format!("198.51.{n}.0/24"), gateway("10.0.0.3", 3));
    }
    let own = blue().compile().tables.vrfs[&VrfId(1)].len();
    let mut compiler = Compiler::with_limits(Ids::default(), Limits { vrf_prefixes: own + 3, ..Limits::default() });
    compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap();
    assert_eq!(compiler.compiled().tables.vrfs[&VrfId(1)].len(), own + 3);
    assert_eq!(compiler.compiled().notices(), ["VRF blue is full: 2 routes are left out"]);
}

#[test]
fn sources_are_validated_within_the_vrf() {
    let mut world = kernel(blue(), "198.51.100.0/24", gateway("10.0.0.3", 3));
    world.desired.node.interfaces[1].source_validation = SourceValidation::Strict;
    let compiled = world.compile();
    let (_, group) = compiled.vrf_routes(VrfId(1))[&net("198.51.100.0/24")];
    let port = compiled.tables.ports[&PortKey { ifindex: IfIndex(3), vlan: None }].id;
    assert_eq!(compiled.tables.origins[&group], Origins::by(port));
}
