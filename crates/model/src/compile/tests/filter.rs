//! Policies as decision lists: every rule of the page, and random policies against a plain reading of their rules.

use proptest::prelude::*;

use super::build::*;
use crate::compile::filter::evaluate::{Fields, allowed};
use crate::compile::{CompileError, Compiled, FILTER_OPS_MAX, FilterOrigin};
use crate::desired::*;
use crate::network::IfIndex;
use crate::tables::{FilterTest, PortKey};

fn packet(source: &str, destination: &str, protocol: u8, ports: Option<(u16, u16)>) -> Fields {
    Fields { source: ip(source), destination: ip(destination), ports, protocol, icmp: None }
}

fn tcp(destination_port: u16) -> Fields {
    packet("198.51.100.9", "10.0.0.1", protocol::TCP, Some((40_000, destination_port)))
}

fn start(compiled: &Compiled, ifindex: u32) -> Option<u16> {
    compiled.tables.ports[&PortKey { ifindex: IfIndex(ifindex), vlan: None }].filter
}

/// The verdict on eth0 under one policy of these rules, without failsafe ports.
fn verdict(rules: &[Rule], packet: &Fields) -> bool {
    let compiled = World::two_ports().no_failsafe().policy("eth0", rules.to_vec()).compile();
    allowed(&compiled.tables.filter, start(&compiled, 2), packet)
}

fn ports(ranges: &[(u16, u16)]) -> Vec<PortRange> {
    ranges.iter().map(|(first, last)| PortRange { first: *first, last: *last }).collect()
}

fn deny(change: impl FnOnce(&mut Rule)) -> Rule {
    let mut denying = rule(RuleAction::Deny);
    change(&mut denying);
    denying
}

#[test]
fn without_policy_there_is_no_filter() {
    let compiled = World::two_ports().compile();
    assert_eq!((start(&compiled, 2), compiled.features.filter), (None, false));
}

#[test]
fn a_policy_applies_to_its_port_only() {
    let compiled = World::two_ports().policy("eth0", vec![rule(RuleAction::Deny)]).compile();
    assert!(!allowed(&compiled.tables.filter, start(&compiled, 2), &tcp(80)));
    assert_eq!(start(&compiled, 3), None);
    assert!(compiled.features.filter);
}

#[test]
fn the_first_match_decides_and_the_end_allows() {
    let closed = deny(|rule| rule.destination.ports = ports(&[(23, 23), (6000, 6100)]));
    for (port, open) in [(22, true), (23, false), (24, true), (5999, true), (6000, false), (6100, false), (6101, true)]
    {
        assert_eq!(verdict(std::slice::from_ref(&closed), &tcp(port)), open, "{port}");
        assert!(verdict(&[rule(RuleAction::Allow), closed.clone()], &tcp(port)));
        assert!(verdict(&[rule(RuleAction::Pass), closed.clone()], &tcp(port)));
    }
}

#[test]
fn a_rule_is_a_conjunction() {
    let both = deny(|rule| {
        rule.protocol = Some(protocol::TCP);
        rule.source.nets = vec![net("198.51.100.0/24"), net("203.0.113.0/24")];
        rule.destination.ports = ports(&[(80, 80)]);
    });
    assert!(!verdict(std::slice::from_ref(&both), &tcp(80)));
    assert!(verdict(std::slice::from_ref(&both), &tcp(81)));
    assert!(verdict(std::slice::from_ref(&both), &packet("192.0.2.1", "10.0.0.1", protocol::TCP, Some((1, 80)))));
    assert!(verdict(&[both], &packet("198.51.100.9", "10.0.0.1", protocol::UDP, Some((1, 80)))));
}

#[test]
fn fragments_are_neither_in_nor_out_of_ports() {
    let fragment = packet("198.51.100.9", "10.0.0.1", protocol::TCP, None);
    assert!(verdict(&[deny(|rule| rule.destination.ports = ports(&[(0, 65_535)]))], &fragment));
    assert!(verdict(&[deny(|rule| rule.destination.not_ports = ports(&[(80, 80)]))], &fragment));
    assert!(verdict(&[deny(|rule| rule.source.not_ports = ports(&[(80, 80), (81, 81)]))], &fragment));
    assert!(!verdict(&[deny(|rule| rule.destination.not_ports = ports(&[(80, 80)]))], &tcp(81)));
}

#[test]
fn icmp_types_and_codes() {
    let message = |kind, code| Fields { icmp: Some((kind, code)), ..packet("192.0.2.1", "10.0.0.1", 1, None) };
    let echo = deny(|rule| rule.icmp = Some(IcmpMatch { kind: 8, code: None }));
    assert!(!verdict(std::slice::from_ref(&echo), &message(8, 3)));
    assert!(verdict(std::slice::from_ref(&echo), &message(0, 0)));
    assert!(verdict(&[echo], &tcp(80)));
    let not_net = deny(|rule| rule.not_icmp = Some(IcmpMatch { kind: 3, code: Some(0) }));
    assert!(verdict(std::slice::from_ref(&not_net), &message(3, 0)));
    assert!(!verdict(std::slice::from_ref(&not_net), &message(3, 1)));
    assert!(verdict(&[not_net], &tcp(80)), "a packet without an ICMP type is not excluded from one");
}

#[test]
fn nets_of_one_family_leave_the_other_alone() {
    let v6 = packet("2001:db8:7::1", "2001:db8::1", protocol::TCP, Some((1, 80)));
    let not_these = deny(|rule| rule.source.not_nets = vec![net("10.0.0.0/8")]);
    assert!(!verdict(std::slice::from_ref(&not_these), &tcp(80)));
    assert!(verdict(&[not_these], &v6), "Calico leaves the rule out for the other family");
    let neither = deny(|rule| rule.source.not_nets = vec![net("10.0.0.0/8"), net("2001:db8:8::/48")]);
    assert!(!verdict(&[neither], &v6));
    let these = deny(|rule| rule.destination.nets = vec![net("0.0.0.0/0")]);
    assert!(!verdict(std::slice::from_ref(&these), &tcp(80)));
    assert!(verdict(&[these], &v6));
    let version = deny(|rule| rule.ip_version = Some(6));
    assert!(verdict(std::slice::from_ref(&version), &tcp(80)));
    assert!(!verdict(&[version], &v6));
}

#[test]
fn failsafe_ports_come_before_policy() {
    let mut world = World::two_ports().policy("eth0", vec![rule(RuleAction::Deny)]);
    world.desired.node.failsafe_inbound =
        vec![Failsafe { protocol: protocol::TCP, port: 22, net: Some(net("198.51.100.0/24")) }];
    world.desired.node.failsafe_outbound = vec![Failsafe { protocol: protocol::UDP, port: 53, net: None }];
    let compiled = world.compile();
    let open = |packet: Fields| allowed(&compiled.tables.filter, start(&compiled, 2), &packet);
    assert!(open(tcp(22)));
    assert!(!open(packet("192.0.2.1", "10.0.0.1", protocol::TCP, Some((1, 22)))), "outside its net");
    assert!(!open(packet("198.51.100.9", "10.0.0.1", protocol::UDP, Some((1, 22)))), "another protocol");
    assert!(open(packet("192.0.2.1", "10.0.0.1", protocol::UDP, Some((53, 40_000)))), "a reply");
    assert!(!open(packet("192.0.2.1", "10.0.0.1", protocol::UDP, Some((40_000, 53)))), "a request");
    assert_eq!(compiled.names.filter.first(), Some(&FilterOrigin::Failsafe));
}

#[test]
fn failsafe_ports_of_a_protocol_share_their_ops() {
    let mut world = World::two_ports().no_failsafe().policy("eth0", Vec::new());
    let open = |port| Failsafe { protocol: protocol::TCP, port, net: None };
    world.desired.node.failsafe_inbound = [2379, 65_535, 2380, 22, 65_534, 22].map(open).to_vec();
    let compiled = world.compile();
    let tests: Vec<FilterTest> = compiled.tables.filter.iter().map(|op| op.test).collect();
    let ports = FilterTest::DestinationPort;
    let (end, tests) = tests.split_last().unwrap();
    assert_eq!(*end, FilterTest::IpVersion(4), "the end is an op of its own");
    assert_eq!(tests, [FilterTest::Protocol(6), ports(22, 22), ports(2379, 2380), ports(65_534, 65_535)]);
}

#[test]
fn a_policy_without_rules_is_a_policy() {
    let compiled = World::two_ports().no_failsafe().policy("eth0", Vec::new()).compile();
    assert!(allowed(&compiled.tables.filter, start(&compiled, 2), &tcp(80)));
    assert_eq!((start(&compiled, 2), compiled.tables.filter.len()), (Some(0), 1));
}

#[test]
fn ports_with_the_same_policies_share_a_program() {
    let mut world = World::two_ports().policy("eth0", vec![rule(RuleAction::Deny)]).policy("eth1", Vec::new());
    let endpoints: Vec<String> = world.desired.host_endpoints.iter().map(|e| e.name.clone()).collect();
    for policy in &mut world.desired.policies {
        policy.endpoints.clone_from(&endpoints);
    }
    let compiled = world.compile();
    assert!(start(&compiled, 2).is_some());
    assert_eq!(start(&compiled, 2), start(&compiled, 3));
}

#[test]
fn ops_know_where_they_come_from() {
    let closed = |port| deny(|rule| rule.destination.ports = ports(&[(port, port)]));
    let origin = |rule| FilterOrigin::Rule { policy: "policy-0".into(), rule };
    let compiled = World::two_ports().no_failsafe().policy("eth0", vec![closed(1), closed(2)]).compile();
    assert_eq!(compiled.names.filter, [origin(0), origin(1), FilterOrigin::NoRule]);
    assert_eq!(compiled.tables.filter[1].test, FilterTest::DestinationPort(2, 2));
    let rest = rule(RuleAction::Allow);
    let compiled = World::two_ports().no_failsafe().policy("eth0", vec![closed(1), rest, closed(2)]).compile();
    assert_eq!(compiled.names.filter, [origin(0), origin(1)], "what decides is named, whatever it tests");
}

#[test]
fn the_endpoint_of_a_port() {
    let mut world = World::two_ports().no_failsafe().policy("eth0", vec![rule(RuleAction::Deny)]);
    let by_address = |name: &str, address: &str| HostEndpoint {
        name: name.into(),
        interface: EndpointInterface::ByAddress(vec![ip(address)]),
        labels: Default::default(),
    };
    world.desired.host_endpoints.push(by_address("a-by-address", "10.0.0.1"));
    world.desired.host_endpoints.push(by_address("other", "10.1.0.1"));
    world.desired.host_endpoints.push(by_address("nowhere", "192.0.2.99"));
    world.desired.policies[0].endpoints.push("other".into());
    let compiled = world.compile();
    assert!(start(&compiled, 2).is_some() && start(&compiled, 3).is_some());
    assert_eq!(
        compiled.notices(),
        [
            "HostEndpoint nowhere stands for no configured interface of this node",
            "HostEndpoint a-by-address is not applied: eth0-endpoint stands for eth0 already",
        ]
    );
}

#[test]
fn too_long_is_refused_and_changes_nothing() {
    let mut world = World::two_ports().service("web", &["192.0.2.10"], &["10.0.0.2"]);
    let before = world.compile();
    let nets = (0..FILTER_OPS_MAX as u32).map(|n| std::net::IpAddr::from((n << 8).to_be_bytes()).into()).collect();
    let mut long = world.clone().service("more", &["192.0.2.11"], &["10.0.0.3"]);
    long = long.policy("eth0", vec![deny(|rule| rule.source.nets = nets)]);
    let error = long.try_compile().unwrap_err();
    assert!(matches!(error, CompileError::FilterTooLong { limit: FILTER_OPS_MAX, .. }), "{error}");
    world.ids = long.ids;
    assert_eq!(world.compile(), before);
}

/// A plain reading of the rules, without ops.
fn reads(rules: &[Rule], packet: &Fields) -> bool {
    let matched = rules.iter().find(|rule| rule_matches(rule, packet));
    matched.is_none_or(|rule| rule.action != RuleAction::Deny)
}

fn rule_matches(rule: &Rule, packet: &Fields) -> bool {
    let version = if packet.source.is_ipv4() { 4 } else { 6 };
    let icmp = |m: IcmpMatch, (kind, code): (u8, u8)| m.kind == kind && m.code.is_none_or(|c| c == code);
    rule.ip_version.is_none_or(|v| v == version)
        && rule.protocol.is_none_or(|p| p == packet.protocol)
        && rule.not_protocol.is_none_or(|p| p != packet.protocol)
        && rule.icmp.is_none_or(|m| packet.icmp.is_some_and(|i| icmp(m, i)))
        && rule.not_icmp.is_none_or(|m| packet.icmp.is_some_and(|i| !icmp(m, i)))
        && end_matches(&rule.source, packet.source, packet.ports.map(|p| p.0))
        && end_matches(&rule.destination, packet.destination, packet.ports.map(|p| p.1))
}

fn end_matches(peers: &Peers, address: std::net::IpAddr, port: Option<u16>) -> bool {
    let same_family = |nets: &[ipnet::IpNet]| nets.iter().any(|n| n.addr().is_ipv4() == address.is_ipv4());
    let inside = |nets: &[ipnet::IpNet]| nets.iter().any(|n| n.contains(&address));
    let in_ports = |ranges: &[PortRange], port| ranges.iter().any(|r| r.first <= port && port <= r.last);
    (peers.nets.is_empty() || inside(&peers.nets))
        && (peers.not_nets.is_empty() || (same_family(&peers.not_nets) && !inside(&peers.not_nets)))
        && (peers.ports.is_empty() || port.is_some_and(|port| in_ports(&peers.ports, port)))
        && (peers.not_ports.is_empty() || port.is_some_and(|port| !in_ports(&peers.not_ports, port)))
}

fn a_net() -> impl Strategy<Value = ipnet::IpNet> {
    prop::sample::select(vec!["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "192.0.2.1/32", "::/0", "2001:db8::/32"])
        .prop_map(net)
}

fn an_address() -> impl Strategy<Value = std::net::IpAddr> {
    prop::sample::select(vec!["10.0.0.1", "10.1.0.1", "192.0.2.1", "198.51.100.1"]).prop_map(ip)
}

fn peers() -> impl Strategy<Value = Peers> {
    let range = (0u16..6, 0u16..3).prop_map(|(first, more)| PortRange { first, last: first + more });
    let (nets, not_nets) = (prop::collection::vec(a_net(), 0..3), prop::collection::vec(a_net(), 0..2));
    let (ports, not_ports) = (prop::collection::vec(range.clone(), 0..3), prop::collection::vec(range, 0..2));
    (nets, not_nets, ports, not_ports).prop_map(|(nets, not_nets, ports, not_ports)| Peers {
        nets,
        not_nets,
        ports,
        not_ports,
    })
}

fn a_rule() -> impl Strategy<Value = Rule> {
    let action = prop::sample::select(vec![RuleAction::Allow, RuleAction::Deny, RuleAction::Deny, RuleAction::Pass]);
    let protocol = || prop::option::of(prop::sample::select(vec![1u8, 6, 17]));
    let icmp = || {
        prop::option::weighted(
            0.2,
            (0u8..3, prop::option::of(0u8..2)).prop_map(|(kind, code)| IcmpMatch { kind, code }),
        )
    };
    let version = prop::option::weighted(0.2, prop::sample::select(vec![4u8, 6]));
    (action, version, protocol(), protocol(), icmp(), icmp(), peers(), peers()).prop_map(
        |(action, ip_version, protocol, not_protocol, icmp, not_icmp, source, destination)| Rule {
            action,
            ip_version,
            protocol,
            not_protocol,
            icmp,
            not_icmp,
            source,
            destination,
        },
    )
}

fn a_packet() -> impl Strategy<Value = Fields> {
    let pair = (an_address(), an_address());
    let kind = prop_oneof![
        (prop::sample::select(vec![6u8, 17]), prop::option::of((0u16..8, 0u16..8)))
            .prop_map(|(p, ports)| (p, ports, None)),
        prop::option::of((0u8..3, 0u8..2)).prop_map(|icmp| (1u8, None, icmp)),
    ];
    (pair, kind, any::<bool>()).prop_map(|((source, destination), (protocol, ports, icmp), six)| {
        let (source, destination) = if six { (ip("2001:db8::1"), ip("2001:db9::1")) } else { (source, destination) };
        Fields { source, destination, ports, protocol, icmp }
    })
}

proptest! {
    #[test]
    fn any_policy_does_what_its_rules_say(
        rules in prop::collection::vec(a_rule(), 0..6),
        packets in prop::collection::vec(a_packet(), 1..40),
    ) {
        let compiled = World::two_ports().no_failsafe().policy("eth0", rules.clone()).compile();
        let ops = &compiled.tables.filter;
        for (at, op) in ops.iter().enumerate() {
            for next in [op.on_match, op.on_miss, op.on_absent] {
                prop_assert!(leads_forward(next, at, ops.len()), "op {at}: {op:?}");
            }
        }
        for packet in packets {
            prop_assert_eq!(allowed(ops, start(&compiled, 2), &packet), reads(&rules, &packet), "{:?}", packet);
        }
    }
}
