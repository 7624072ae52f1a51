//! Which routes there are and what their next hops are.

use super::build::*;
use crate::desired::RouteAction;
use crate::network::IfIndex;
use crate::rib::Source;
use crate::tables::PortKey;

#[test]
fn addresses_prefixes_and_their_ends() {
    let compiled = World::two_ports().compile();
    assert_eq!(compiled.route("10.0.0.1/32").unwrap(), "receive");
    assert_eq!(compiled.route("10.0.0.0/32").unwrap(), "host");
    assert_eq!(compiled.route("10.0.0.255/32").unwrap(), "host");
    assert_eq!(compiled.route("10.0.0.0/24").unwrap(), "glean@2");
    assert_eq!(compiled.route("2001:db8::1/128").unwrap(), "receive");
    assert_eq!(compiled.route("2001:db8::/128"), None);
    assert_eq!(compiled.route("2001:db8::/64").unwrap(), "glean@2");
    assert_eq!(compiled.notices(), Vec::<String>::new());
}

#[test]
fn point_to_point_prefixes_have_no_broadcast() {
    let compiled = World::two_ports().address(3, "192.0.2.0/31").compile();
    assert_eq!(compiled.route("192.0.2.0/32").unwrap(), "receive");
    assert_eq!(compiled.route("192.0.2.1/32"), None);
    assert_eq!(compiled.route("192.0.2.0/31").unwrap(), "glean@3");
}

#[test]
fn of_link_local_only_the_own_addresses_are_there() {
    let world = World::two_ports().address(2, "fe80::1/64").address(2, "169.254.0.1/16");
    let compiled = world.neighbor(2, "fe80::2", 9).neighbor(2, "169.254.0.2", 9).compile();
    for own in ["fe80::1/128", "169.254.0.1/32"] {
        assert_eq!(compiled.route(own).unwrap(), "receive", "{own}");
    }
    for end in ["169.254.0.0/32", "169.254.255.255/32"] {
        assert_eq!(compiled.route(end).unwrap(), "host", "{end}");
    }
    assert_eq!(compiled.tables.fib.len(), World::two_ports().compile().tables.fib.len() + 4);
}

#[test]
fn other_interfaces_are_left_to_the_host() {
    let compiled = World::two_ports().link(4, "mgmt").address(4, "10.4.0.1/24").neighbor(4, "10.4.0.2", 9).compile();
    assert_eq!(compiled.route("10.4.0.1/32").unwrap(), "receive");
    assert_eq!(compiled.route("10.4.0.0/24").unwrap(), "host");
    assert_eq!(compiled.route("10.4.0.2/32"), None);
}

#[test]
fn the_same_prefix_twice_goes_to_the_lowest_index() {
    let mut world = World::two_ports().address(3, "10.0.0.9/24");
    assert_eq!(world.compile().route("10.0.0.0/24").unwrap(), "glean@2");
    world.link_mut(2).up = false;
    assert_eq!(world.compile().route("10.0.0.0/24").unwrap(), "glean@3");
}

#[test]
fn a_link_that_is_down_keeps_its_addresses_only() {
    let world = World::two_ports().neighbor(3, "10.1.0.7", 7).static_route("10.9.0.0/16", &["10.1.0.7"]);
    let mut world = world.static_route("10.8.0.0/16", &["10.1.0.7@eth1"]).adopted("10.7.0.0/16", "10.1.0.7", 3);
    world.link_mut(3).up = false;
    let compiled = world.compile();
    assert_eq!(compiled.route("10.1.0.1/32").unwrap(), "receive");
    for gone in ["10.1.0.0/24", "10.1.0.7/32", "10.9.0.0/16", "10.8.0.0/16", "10.7.0.0/16"] {
        assert_eq!(compiled.route(gone), None, "{gone}");
    }
}

#[test]
fn neighbors_refine_what_would_be_gleaned() {
    let mut world = World::two_ports().neighbor(2, "10.0.0.7", 7).neighbor(2, "10.0.0.1", 8).neighbor(3, "10.0.0.8", 9);
    let compiled = world.compile();
    assert_eq!(compiled.route("10.0.0.7/32").unwrap(), "10.0.0.7@2");
    assert_eq!(compiled.route("10.0.0.1/32").unwrap(), "receive", "the node's own address is no neighbour");
    assert_eq!(compiled.route("10.0.0.8/32"), None, "gleaned on the other interface");
}

#[test]
fn neighbors_override_no_other_route() {
    let world = World::two_ports().neighbor(2, "10.0.0.70", 7).neighbor(2, "10.0.0.2", 2);
    let compiled = world.static_route("10.0.0.64/26", &["10.0.0.2"]).compile();
    assert_eq!(compiled.route("10.0.0.70/32"), None);
    assert_eq!(compiled.route("10.0.0.64/26").unwrap(), "10.0.0.2@2");
}

#[test]
fn sources_have_precedence() {
    let mut world = World::two_ports()
        .service("web", &["192.0.2.10", "10.0.0.1"], &[])
        .bgp("192.0.2.10/32", &["10.0.0.2"])
        .bgp("10.0.0.0/24", &["10.1.0.2"])
        .static_route("10.9.0.0/16", &["10.0.0.2"])
        .bgp("10.9.0.0/16", &["10.1.0.2"])
        .bgp("10.8.0.0/16", &["10.1.0.2"])
        .adopted("10.8.0.0/16", "10.0.0.2", 2)
        .adopted("10.7.0.0/16", "10.0.0.2", 2);
    let compiled = world.compile();
    assert_eq!(compiled.route("10.0.0.1/32").unwrap(), "receive", "local before VIP");
    assert_eq!(compiled.route("192.0.2.10/32").unwrap(), "vip", "VIP before BGP");
    assert_eq!(compiled.route("10.0.0.0/24").unwrap(), "glean@2", "connected before BGP");
    assert_eq!(compiled.route("10.9.0.0/16").unwrap(), "10.0.0.2@2?", "static before BGP");
    assert_eq!(compiled.route("10.8.0.0/16").unwrap(), "10.1.0.2@3?", "BGP before adopted");
    assert_eq!(compiled.route("10.7.0.0/16").unwrap(), "10.0.0.2@2?", "adopted where nothing better is");
    let sources: Vec<Source> = compiled.routes(&world.rib).into_iter().map(|(_, source)| source).collect();
    for source in [Source::Local, Source::Vip, Source::Connected, Source::Static, Source::Ebgp, Source::Adopted] {
        assert!(sources.contains(&source), "{source:?}");
    }
}

#[test]
fn an_unusable_route_leaves_the_prefix_to_the_next_source() {
    let compiled =
        World::two_ports().static_route("10.9.0.0/16", &["172.16.0.1"]).bgp("10.9.0.0/16", &["10.1.0.2"]).compile();
    assert_eq!(compiled.route("10.9.0.0/16").unwrap(), "10.1.0.2@3?");
    assert_eq!(
        compiled.notices(),
        ["StaticRoute to 10.9.0.0/16 (10.9.0.0/16) is not installed: none of its gateways can be reached"]
    );
}

#[test]
fn weights_behind_a_route_are_multiplied_as_they_were_given() {
    let compiled = World::two_ports()
        .static_route("172.16.0.0/16", &["10.0.0.2*2", "10.0.0.3*2"])
        .static_route("172.17.0.0/16", &["10.0.0.2", "10.0.0.3"])
        .bgp("10.9.0.0/16", &["172.16.0.1", "10.1.0.2"])
        .bgp("10.8.0.0/16", &["172.17.0.1", "10.1.0.2"])
        .compile();
    assert_eq!(compiled.group_of("172.16.0.0/16"), compiled.group_of("172.17.0.0/16"), "the same shares");
    assert_eq!(compiled.share("10.9.0.0/16", "10.1.0.2"), 13, "1 of 2 + 2 + 1");
    assert_eq!(compiled.share("10.8.0.0/16", "10.1.0.2"), 21, "1 of 1 + 1 + 1");
}

#[test]
fn learned_routes_to_addresses_that_are_never_routed_are_refused() {
    let world = World::two_ports().bgp("127.0.0.0/9", &["10.0.0.2"]).bgp("10.9.0.0/16", &["10.0.0.2"]);
    let compiled = world.bgp("fe80::/64", &["10.0.0.2"]).compile();
    assert_eq!((compiled.route("127.0.0.0/9"), compiled.route("fe80::/64")), (None, None));
    assert_eq!(compiled.route("10.9.0.0/16").unwrap(), "10.0.0.2@2?");
    let refused = "2 routes of BGP are refused, 127.0.0.0/9 the first: their addresses are never routed (RFC 6890)";
    assert_eq!(compiled.notices(), [refused]);
}

#[test]
fn actions_without_gateways() {
    let compiled = World::two_ports()
        .static_action("10.9.0.0/16", RouteAction::Blackhole)
        .static_action("10.8.0.0/16", RouteAction::Prohibit)
        .compile();
    assert_eq!(compiled.route("10.9.0.0/16").unwrap(), "blackhole");
    assert_eq!(compiled.route("10.8.0.0/16").unwrap(), "prohibit");
}

#[test]
fn gateways_with_and_without_neighbor() {
    let compiled =
        World::two_ports().neighbor(2, "10.0.0.2", 2).static_route("10.9.0.0/16", &["10.0.0.2", "10.1.0.2"]).compile();
    assert_eq!(compiled.route("10.9.0.0/16").unwrap(), "10.0.0.2@2 10.1.0.2@3?");
    assert_eq!(compiled.share("10.9.0.0/16", "10.0.0.2"), 32);
}

#[test]
fn weights_are_shares_of_the_buckets() {
    let compiled = World::two_ports().static_route("10.9.0.0/16", &["10.0.0.2*3", "10.1.0.2"]).compile();
    assert_eq!(compiled.share("10.9.0.0/16", "10.0.0.2"), 48);
    assert_eq!(compiled.share("10.9.0.0/16", "10.1.0.2"), 16);
}

#[test]
fn a_gateway_that_cannot_be_reached_is_left_out() {
    let world = World::two_ports().static_route("10.9.0.0/16", &["10.0.0.2", "172.16.0.1", "10.0.0.1"]);
    let compiled = world.bgp("10.8.0.0/16", &["172.16.0.1"]).bgp("10.7.0.0/16", &["10.0.0.2", "172.16.0.1"]).compile();
    assert_eq!(compiled.route("10.9.0.0/16").unwrap(), "10.0.0.2@2?", "neither unreachable nor the node itself");
    assert_eq!(compiled.route("10.8.0.0/16"), None);
    assert_eq!(compiled.route("10.7.0.0/16").unwrap(), "10.0.0.2@2?");
    assert!(compiled.notices().contains(&"BGP next hop 172.16.0.1 cannot be reached: 2 routes do without it".into()));
}

#[test]
fn bgp_gateways_behind_static_routes() {
    let compiled = World::two_ports()
        .static_route("172.16.0.0/16", &["10.0.0.2*2", "10.1.0.2"])
        .bgp("10.9.0.0/16", &["172.16.0.1", "10.1.0.2"])
        .bgp("0.0.0.0/0", &["10.0.0.2"])
        .bgp("10.8.0.0/16", &["8.8.8.8"])
        .compile();
    assert_eq!(compiled.route("10.9.0.0/16").unwrap(), "10.0.0.2@2? 10.1.0.2@3?");
    assert_eq!(compiled.share("10.9.0.0/16", "10.0.0.2"), 32, "2 of 2 + 1 + 1");
    assert_eq!(compiled.route("10.8.0.0/16"), None, "BGP gateways are not looked up in BGP routes");
}

#[test]
fn a_longer_static_route_wins_over_the_link() {
    let compiled =
        World::two_ports().static_route("10.0.0.128/25", &["10.1.0.2"]).bgp("10.9.0.0/16", &["10.0.0.200"]).compile();
    assert_eq!(compiled.route("10.9.0.0/16").unwrap(), "10.1.0.2@3?");
}

#[test]
fn link_local_gateways_need_their_interface() {
    let world = World::two_ports().neighbor(3, "fe80::2", 2);
    let compiled = world.static_route("2001:db8:9::/48", &["fe80::2@eth1"]).compile();
    assert_eq!(compiled.route("2001:db8:9::/48").unwrap(), "fe80::2@3");
    let compiled = World::two_ports().static_route("2001:db8:9::/48", &["fe80::2"]).compile();
    assert_eq!(compiled.route("2001:db8:9::/48"), None);
}

#[test]
fn routes_with_the_same_gateways_share_a_group() {
    let mut world = World::two_ports().neighbor(2, "10.0.0.2", 2);
    for n in 0..200 {
        world = world.bgp(&format!("100.64.{n}.0/24"), &["10.0.0.2", "10.1.0.2"]);
    }
    let compiled =
        world.static_route("10.9.0.0/16", &["10.1.0.2*7", "10.0.0.2*7"]).bgp("10.8.0.0/16", &["10.0.0.2"]).compile();
    for n in 0..200 {
        assert_eq!(compiled.group_of(&format!("100.64.{n}.0/24")), compiled.group_of("10.9.0.0/16"));
    }
    assert_eq!(compiled.group_of("10.8.0.0/16"), compiled.group_of("10.0.0.2/32"));
}

#[test]
fn a_neighbor_that_moves_is_one_adjacency() {
    let mut world = World::two_ports().neighbor(2, "10.0.0.2", 2);
    for n in 0..50 {
        world = world.bgp(&format!("100.64.{n}.0/24"), &["10.0.0.2"]);
    }
    let before = world.compile();
    let after = world.clone().neighbor(2, "10.0.0.2", 3).compile();
    assert_eq!(before.tables.fib, after.tables.fib);
    assert_eq!(before.tables.groups, after.tables.groups);
    assert_eq!(before.tables.next_hops, after.tables.next_hops);
    let changed =
        before.tables.adjacencies.iter().filter(|(id, adjacency)| after.tables.adjacencies[id] != **adjacency);
    assert_eq!(changed.count(), 1);
}

#[test]
fn a_set_that_loses_a_gateway_keeps_its_group_and_the_other_flows() {
    let mut world = World::two_ports();
    for n in 0..50 {
        world = world.bgp(&format!("100.64.{n}.0/24"), &["10.0.0.2", "10.0.0.3", "10.1.0.2"]);
    }
    let before = world.compile();
    world.link_mut(3).up = false;
    let after = world.compile();
    let prefix = "100.64.7.0/24";
    assert_eq!(before.group_of(prefix), after.group_of(prefix));
    let pairs = before.tables.groups[&before.group_of(prefix)]
        .buckets
        .iter()
        .zip(&after.tables.groups[&after.group_of(prefix)].buckets);
    let gone: Vec<_> = pairs.filter(|(b, a)| b != a).map(|(b, _)| *b).collect();
    assert_eq!(gone.len(), before.share(prefix, "10.1.0.2"));
    assert!(gone.windows(2).all(|w| w[0] == w[1]), "only buckets of the one that left moved");
}

#[test]
fn vlan_devices_are_ports_of_their_parent() {
    let world = World::two_ports().vlan(5, "eth1.100", 3, 100).port("eth1.100").address(5, "10.5.0.1/24");
    let compiled = world.neighbor(5, "10.5.0.2", 2).compile();
    let key = PortKey { ifindex: IfIndex(3), vlan: Some(100) };
    assert!(compiled.tables.ports.contains_key(&key));
    assert_eq!(compiled.attach.iter().map(|(i, _)| i.0).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(compiled.route("10.5.0.2/32").unwrap(), "10.5.0.2@5");
    let adjacency = compiled.tables.adjacencies.values().find(|a| a.vlan.is_some()).unwrap();
    assert_eq!((adjacency.ifindex, adjacency.vlan), (IfIndex(3), Some(100)));
    assert!(compiled.features.vlan);
    assert!(!World::two_ports().compile().features.vlan);
}

#[test]
fn ports_that_are_not_there_or_not_forwarded_on() {
    let world = World::two_ports().vlan(5, "eth1.100", 3, 100).vlan(6, "eth1.100.7", 5, 7);
    let compiled = world.port("eth9").port("eth1.100.7").compile();
    assert_eq!(
        compiled.notices(),
        [
            "interface eth9 of Node  does not exist",
            "interface eth1.100.7 is a VLAN inside the VLAN device eth1.100: frames with two tags are left to the kernel"
        ]
    );
    assert_eq!(compiled.tables.ports.len(), 2);
    assert!(compiled.features.slow_path);
    assert!(!World::default().compile().features.slow_path);
}
