//! "What the tables hold".

use super::*;

fn to(destination: &str) -> Vec<u8> {
    let source = if ip(destination).is_ipv4() { "10.0.0.2" } else { "2001:db8::2" };
    frame(&udp(source, destination, (1, 2)).bytes())
}

fn bgp(mut world: World, prefix: &str, gateways: &[&str], internal: bool) -> World {
    let gateways = gateways.iter().map(|gateway| ip(gateway)).collect();
    world.rib.set_bgp(net(prefix), &BgpRoute { gateways, alternatives: Vec::new(), internal });
    world
}

#[test]
fn own_addresses_and_ends_of_a_subnet_are_received() {
    let mut world = world();
    world.network.addresses.insert((ETH1, net("10.0.3.0/31")));
    for received in ["10.0.0.1", "10.9.0.1", "10.0.1.0", "10.0.1.255", "2001:db8::1", "10.0.3.0"] {
        assert_eq!(world.verdict(&to(received)), Verdict::Pass, "{received}");
    }
    assert_eq!(world.verdict(&to("10.0.3.1")), punt(PuntReason::Neighbor), "a /31 has two hosts (RFC 3021)");
    assert_eq!(world.verdict(&to("2001:db8:1::")), punt(PuntReason::Neighbor), "IPv6 has no broadcast");
}

#[test]
fn the_host_sends_on_what_is_behind_other_interfaces() {
    assert_eq!(world().verdict(&to("10.9.0.2")), Verdict::Pass);
    assert_eq!(world().verdict(&to("10.9.0.77")), Verdict::Pass);
}

#[test]
fn a_link_that_is_down_keeps_its_addresses_only() {
    let mut world = world().via("203.0.113.0/24", &["10.0.1.2", "10.0.0.2"]);
    world.network.links.get_mut(&ETH1).unwrap().up = false;
    assert_eq!(world.verdict(&to("10.0.1.1")), Verdict::Pass);
    assert_eq!(world.verdict(&to("10.0.1.2")), punt(PuntReason::NoRoute));
    assert_eq!(world.verdict(&to("203.0.113.1")), Verdict::Tx, "the other gateway takes all");
}

#[test]
fn the_longest_prefix_then_the_best_source() {
    let world = world().via("203.0.113.0/24", &["10.0.1.2"]);
    let world = bgp(world, "203.0.113.0/24", &["10.0.0.2"], false);
    assert_eq!(world.verdict(&to("203.0.113.1")), Verdict::Redirect(ETH1), "static before BGP");
    let world = bgp(world, "203.0.113.0/25", &["10.0.0.2"], true);
    assert_eq!(world.verdict(&to("203.0.113.1")), Verdict::Tx, "longer before better");
    let world = bgp(world, "10.0.1.0/24", &["10.0.0.2"], false);
    assert_eq!(world.verdict(&to("10.0.1.2")), Verdict::Redirect(ETH1), "connected before BGP");
}

#[test]
fn neighbours_refine_the_connected_prefix_and_override_nothing() {
    let world = world().static_route("10.0.1.2/32", RouteAction::Blackhole);
    assert_eq!(world.verdict(&to("10.0.1.2")), drop(DropReason::Blackhole));
    let mut elsewhere = super::world();
    elsewhere.network.neighbors.insert((ETH0, ip("10.0.1.77")), NEIGHBOR);
    assert_eq!(elsewhere.verdict(&to("10.0.1.77")), punt(PuntReason::Neighbor), "known on another interface");
}

#[test]
fn the_same_prefix_on_two_interfaces_is_the_lower_ones() {
    let mut world = world();
    world.network.addresses.insert((ETH1, net("10.0.0.9/24")));
    let judgement = world.judge(&to("10.0.0.77"));
    assert_eq!(judgement.meta.unwrap().neighbor, Some((ETH0, ip("10.0.0.77"))));
}

#[test]
fn gateways_need_a_connected_prefix_or_an_interface() {
    let with = |address: &str, interface: Option<&str>| {
        let gateway = Gateway { address: ip(address), interface: interface.map(str::to_owned), weight: 1 };
        let prefix = if ip(address).is_ipv4() { "203.0.113.0/24" } else { "2001:db8:f::/48" };
        world().static_route(prefix, RouteAction::Via(vec![gateway]))
    };
    assert_eq!(with("10.77.0.1", None).verdict(&to("203.0.113.1")), punt(PuntReason::NoRoute));
    assert_eq!(with("10.9.0.2", None).verdict(&to("203.0.113.1")), punt(PuntReason::NoRoute), "not behind a port");
    assert_eq!(with("10.0.1.1", None).verdict(&to("203.0.113.1")), punt(PuntReason::NoRoute), "own address");
    assert_eq!(with("fe80::2", None).verdict(&to("2001:db8:f::1")), punt(PuntReason::NoRoute));
    let on_eth1 = with("fe80::2", Some("eth1")).judge(&to("2001:db8:f::1"));
    assert_eq!(on_eth1.meta.unwrap().neighbor, Some((ETH1, ip("fe80::2"))));
    assert_eq!(with("10.9.0.2", Some("host0")).verdict(&to("203.0.113.1")), punt(PuntReason::NoRoute));
}

#[test]
fn a_route_without_a_usable_gateway_is_not_there() {
    let world = world().via("203.0.113.0/24", &["10.77.0.1"]).via("0.0.0.0/0", &["10.0.1.2"]);
    assert_eq!(world.verdict(&to("203.0.113.1")), Verdict::Redirect(ETH1));
    let world = bgp(world, "203.0.113.0/24", &["10.0.0.2"], true);
    assert_eq!(world.verdict(&to("203.0.113.1")), Verdict::Tx);
}

#[test]
fn bgp_gateways_behind_a_static_route() {
    let world = bgp(world(), "203.0.113.0/24", &["10.77.0.1"], true);
    assert_eq!(world.verdict(&to("203.0.113.1")), punt(PuntReason::NoRoute));
    let world = world.via("10.77.0.0/16", &["10.0.1.2"]);
    assert_eq!(world.verdict(&to("203.0.113.1")), Verdict::Redirect(ETH1));
    let world = world.static_route("10.77.0.1/32", RouteAction::Blackhole);
    assert_eq!(world.verdict(&to("203.0.113.1")), punt(PuntReason::NoRoute));
    let through_bgp =
        bgp(bgp(super::world(), "203.0.113.0/24", &["10.77.0.1"], true), "10.77.0.0/16", &["10.0.1.2"], false);
    assert_eq!(through_bgp.verdict(&to("203.0.113.1")), punt(PuntReason::NoRoute), "not behind another BGP route");
}

#[test]
fn adopted_routes_come_last_and_name_their_interface() {
    let mut world = world();
    world.rib.set_adopted(net("203.0.113.0/24"), [(ip("10.0.1.2"), ETH1)]);
    assert_eq!(world.verdict(&to("203.0.113.1")), Verdict::Redirect(ETH1));
    let world = bgp(world, "203.0.113.0/24", &["10.0.0.2"], true);
    assert_eq!(world.verdict(&to("203.0.113.1")), Verdict::Tx);
}

#[test]
fn flows_spread_by_weight() {
    let gateway = |address, weight| Gateway { address: ip(address), interface: None, weight };
    let action = RouteAction::Via(vec![gateway("10.0.1.2", 3), gateway("10.0.0.2", 1)]);
    let world = world().static_route("203.0.113.0/24", action);
    let sent = (1..=1000).map(|port| world.verdict(&frame(&udp("10.0.0.2", "203.0.113.1", (port, 2)).bytes())));
    let redirected = sent.filter(|verdict| *verdict == Verdict::Redirect(ETH1)).count();
    assert!((650..850).contains(&redirected), "{redirected}");
}
