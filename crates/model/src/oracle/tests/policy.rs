//! Stage 3.

use super::*;
use crate::denylist::Denied;
use crate::desired::{
    EndpointInterface, Failsafe, HostEndpoint, IcmpMatch, Peers, Policy, PortRange, Rule, RuleAction,
};

/// A rule that denies everything until it is narrowed.
pub(super) fn deny() -> Rule {
    Rule {
        action: RuleAction::Deny,
        ip_version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: Peers::default(),
        destination: Peers::default(),
    }
}

fn with_action(action: RuleAction) -> Rule {
    Rule { action, ..deny() }
}

/// Adds a policy for eth0, with the host endpoint where there is none yet.
pub(super) fn add(world: &mut World, rules: Vec<Rule>) {
    if world.desired.host_endpoints.is_empty() {
        endpoint(world, "uplink", EndpointInterface::Named("eth0".into()));
    }
    let name = format!("policy-{}", world.desired.policies.len());
    world.desired.policies.push(Policy { name, endpoints: vec!["uplink".into()], rules });
}

fn endpoint(world: &mut World, name: &str, interface: EndpointInterface) {
    world.desired.host_endpoints.push(HostEndpoint { name: name.into(), interface, labels: BTreeMap::new() });
}

fn ports(first: u16, last: u16) -> Vec<PortRange> {
    vec![PortRange { first, last }]
}

fn port_80() -> Ip {
    tcp("10.0.0.2", "10.0.1.2", (1000, 80))
}

const DENIED: Verdict = Verdict::Drop(DropReason::PolicyDeny);
const SENT: Verdict = Verdict::Redirect(ETH1);

/// The verdict on `packet` with one rule on eth0.
fn ruled(rule: Rule, packet: &Ip) -> Verdict {
    let mut world = world();
    add(&mut world, vec![rule]);
    world.verdict(&frame(&packet.bytes()))
}

#[test]
fn the_denylist_comes_before_everything_and_holds_on_every_port() {
    let mut world = world();
    let denied =
        [("10.0.0.0/30", Denied::SOURCE), ("2001:db8::/127", Denied::SOURCE), ("10.0.1.9/32", Denied::DESTINATION)];
    world.desired.denylist = denied.map(|(prefix, denied)| (net(prefix), denied)).into_iter().collect();
    add(&mut world, vec![with_action(RuleAction::Allow)]);
    let listed = drop(DropReason::Denylist);
    assert_eq!(world.verdict(&frame(&port_80().bytes())), listed);
    assert_eq!(world.verdict(&frame(&tcp("10.0.0.2", "10.0.1.2", (1000, 22)).bytes())), listed, "failsafe or not");
    assert_eq!(world.verdict(&frame_to(Mac([0xff; 6]), &[], 0x0800, &port_80().bytes())), listed);
    assert_eq!(world.verdict(&frame_to(HERE, &[100], 0x0800, &port_80().bytes())), listed);
    assert_eq!(world.verdict(&frame(&tcp("10.0.0.4", "10.0.1.2", (1, 80)).bytes())), SENT);
    assert_eq!(world.verdict(&frame(&tcp("10.0.0.4", "10.0.1.9", (1, 80)).bytes())), listed);
    assert_eq!(world.verdict(&frame(&tcp("10.0.1.9", "10.0.1.2", (1, 80)).bytes())), SENT, "it may send");
    assert_eq!(world.verdict(&frame(&tcp("2001:db8::2", "2001:db8:1::2", (1, 80)).bytes())), SENT);
}

#[test]
fn the_first_match_decides_and_no_match_goes_on() {
    let narrow = |action| Rule { protocol: Some(TCP), ..with_action(action) };
    for (rules, verdict) in [
        (vec![], SENT),
        (vec![narrow(RuleAction::Allow), deny()], SENT),
        (vec![narrow(RuleAction::Pass), deny()], SENT),
        (vec![narrow(RuleAction::Deny), with_action(RuleAction::Allow)], DENIED),
        (vec![Rule { protocol: Some(UDP), ..deny() }], SENT),
    ] {
        let mut one = world();
        add(&mut one, rules.clone());
        assert_eq!(one.verdict(&frame(&port_80().bytes())), verdict, "{rules:?}");
        let mut two = world();
        for rule in &rules {
            add(&mut two, vec![rule.clone()]);
        }
        assert_eq!(two.verdict(&frame(&port_80().bytes())), verdict, "one policy a rule: {rules:?}");
    }
}

#[test]
fn policy_holds_for_group_frames_and_for_one_port() {
    let mut world = world();
    add(&mut world, vec![deny()]);
    assert_eq!(world.verdict(&frame_to(Mac([0xff; 6]), &[], 0x0800, &port_80().bytes())), DENIED);
    assert_eq!(world.verdict(&frame(&udp("10.0.0.2", "224.0.0.5", (1, 2)).bytes())), DENIED);
    assert_eq!(world.verdict(&frame_to(HERE, &[100], 0x0800, &port_80().bytes())), SENT);
}

#[test]
fn which_endpoint_a_port_has() {
    let by_address = |addresses: &[&str]| EndpointInterface::ByAddress(addresses.iter().map(|a| ip(a)).collect());
    let denied = |endpoints: Vec<(&str, EndpointInterface)>| {
        let mut world = world();
        for (name, interface) in endpoints {
            endpoint(&mut world, name, interface);
        }
        add(&mut world, vec![deny()]);
        world.verdict(&frame(&port_80().bytes())) == DENIED
    };
    let eth0 = || EndpointInterface::Named("eth0".into());
    assert!(denied(vec![("uplink", by_address(&["192.0.2.9", "2001:db8::1"]))]));
    assert!(!denied(vec![("uplink", by_address(&["10.0.1.1"]))]), "an address of eth1");
    assert!(!denied(vec![("uplink", EndpointInterface::Named("eth1".into()))]));
    assert!(denied(vec![("a", by_address(&["10.0.0.1"])), ("uplink", eth0())]), "a name wins");
    assert!(!denied(vec![("uplink", eth0()), ("a", eth0())]), "then the first by name");
    assert!(denied(vec![("z", eth0()), ("uplink", eth0())]));
}

#[test]
fn failsafe_ports_stay_open_whatever_the_policy_says() {
    let mut world = world();
    add(&mut world, vec![deny()]);
    let node = &mut world.desired.node;
    node.failsafe_inbound = vec![Failsafe { protocol: TCP, port: 22, net: Some(net("10.0.0.0/24")) }];
    node.failsafe_outbound = vec![Failsafe { protocol: UDP, port: 53, net: None }];
    let verdict = |packet: Ip| world.verdict(&frame(&packet.bytes()));
    assert_eq!(verdict(tcp("10.0.0.2", "10.0.1.2", (1000, 22))), SENT);
    assert_eq!(verdict(tcp("10.0.3.2", "10.0.1.2", (1000, 22))), DENIED, "not from this net");
    assert_eq!(verdict(udp("10.0.0.2", "10.0.1.2", (1000, 22))), DENIED, "not this protocol");
    assert_eq!(verdict(tcp("10.0.0.2", "10.0.1.2", (22, 1000))), DENIED, "not a reply");
    assert_eq!(verdict(udp("10.0.0.2", "10.0.1.2", (53, 1000))), SENT);
    assert_eq!(verdict(udp("2001:db8::2", "2001:db8:1::2", (53, 1000))), SENT);
    assert_eq!(verdict(udp("10.0.0.2", "10.0.1.2", (1000, 53))), DENIED);
    assert_eq!(verdict(tcp("10.0.0.2", "10.0.1.2", (1000, 22)).fragment(1)), DENIED, "a fragment has no port");
}

#[test]
fn protocols_and_versions() {
    let rule = deny;
    assert_eq!(ruled(Rule { protocol: Some(TCP), ..rule() }, &port_80()), DENIED);
    assert_eq!(ruled(Rule { protocol: Some(UDP), ..rule() }, &port_80()), SENT);
    assert_eq!(ruled(Rule { not_protocol: Some(UDP), ..rule() }, &port_80()), DENIED);
    assert_eq!(ruled(Rule { not_protocol: Some(TCP), ..rule() }, &port_80()), SENT);
    assert_eq!(ruled(Rule { ip_version: Some(4), ..rule() }, &port_80()), DENIED);
    assert_eq!(ruled(Rule { ip_version: Some(6), ..rule() }, &port_80()), SENT);
}

#[test]
fn nets() {
    let source = |nets: &[&str], not_nets: &[&str]| {
        let list = |nets: &[&str]| nets.iter().map(|n| net(n)).collect();
        Rule { source: Peers { nets: list(nets), not_nets: list(not_nets), ..Peers::default() }, ..deny() }
    };
    assert_eq!(ruled(source(&["10.0.0.0/24"], &[]), &port_80()), DENIED);
    assert_eq!(ruled(source(&["10.0.1.0/24"], &[]), &port_80()), SENT);
    assert_eq!(ruled(source(&["10.0.1.0/24", "10.0.0.2/32"], &[]), &port_80()), DENIED);
    assert_eq!(ruled(source(&["10.0.0.0/24"], &["10.0.0.2/32"]), &port_80()), SENT);
    assert_eq!(ruled(source(&[], &["10.0.1.0/24"]), &port_80()), DENIED);
    // All of the other family: the rule is not there for this one.
    assert_eq!(ruled(source(&["2001:db8::/32"], &[]), &port_80()), SENT);
    assert_eq!(ruled(source(&[], &["2001:db8::/32"]), &port_80()), SENT);
    assert_eq!(ruled(source(&["10.0.0.0/8", "2001:db8::/32"], &["2001:db8::/48", "10.3.0.0/16"]), &port_80()), DENIED);
    let mut both_ends = source(&["10.0.0.0/24"], &[]);
    both_ends.destination.nets = vec![net("10.0.2.0/24")];
    assert_eq!(ruled(both_ends, &port_80()), SENT);
}

#[test]
fn ports_and_packets_without() {
    let destination = |ports, not_ports| Rule { destination: Peers { ports, not_ports, ..Peers::default() }, ..deny() };
    assert_eq!(ruled(destination(ports(80, 80), vec![]), &port_80()), DENIED);
    assert_eq!(ruled(destination(ports(81, 90), vec![]), &port_80()), SENT);
    assert_eq!(ruled(destination(ports(70, 80), ports(80, 80)), &port_80()), SENT);
    assert_eq!(ruled(destination(vec![], ports(81, 90)), &port_80()), DENIED);
    let fragment = port_80().fragment(1);
    assert_eq!(ruled(destination(ports(0, 65_535), vec![]), &fragment), SENT);
    assert_eq!(ruled(destination(vec![], ports(1, 1)), &fragment), SENT);
    let ping = packet("10.0.0.2", "10.0.1.2", protocol::ICMP, &[8, 0, 0, 0]);
    assert_eq!(ruled(destination(vec![], ports(1, 1)), &ping), SENT);
    let by_source = Rule { source: Peers { ports: ports(1000, 1000), ..Peers::default() }, ..deny() };
    assert_eq!(ruled(by_source, &port_80()), DENIED);
}

#[test]
fn icmp_types_and_codes() {
    let echo = IcmpMatch { kind: 8, code: None };
    let ping = packet("10.0.0.2", "10.0.1.2", protocol::ICMP, &[8, 3, 0, 0]);
    let rule = |icmp, not_icmp| Rule { icmp, not_icmp, ..deny() };
    assert_eq!(ruled(rule(Some(echo), None), &ping), DENIED);
    assert_eq!(ruled(rule(Some(IcmpMatch { kind: 8, code: Some(3) }), None), &ping), DENIED);
    assert_eq!(ruled(rule(Some(IcmpMatch { kind: 8, code: Some(0) }), None), &ping), SENT);
    assert_eq!(ruled(rule(None, Some(echo)), &ping), SENT);
    assert_eq!(ruled(rule(None, Some(IcmpMatch { kind: 8, code: Some(0) })), &ping), DENIED);
    assert_eq!(ruled(rule(None, Some(echo)), &port_80()), SENT, "no type to be another");
    assert_eq!(ruled(rule(None, Some(IcmpMatch { kind: 3, code: None })), &ping.fragment(1)), SENT);
}
