//! Policies in words.

use model::desired::{IcmpMatch, Peers, PortRange, Rule, RuleAction, protocol};

use crate::control::api::types::Policy;

/// The name of an IP protocol.
pub(super) fn protocol_name(number: u8) -> String {
    match number {
        protocol::ICMP => "ICMP".to_owned(),
        protocol::IPIP => "IPIP".to_owned(),
        protocol::TCP => "TCP".to_owned(),
        protocol::UDP => "UDP".to_owned(),
        protocol::IPV6 => "IPv6".to_owned(),
        protocol::ICMPV6 => "ICMPv6".to_owned(),
        protocol::SCTP => "SCTP".to_owned(),
        protocol::UDPLITE => "UDPLite".to_owned(),
        number => number.to_string(),
    }
}

/// A policy with its place in the order.
pub(super) fn policy(position: usize, policy: &model::desired::Policy) -> Policy {
    Policy {
        name: policy.name.clone(),
        position,
        endpoints: policy.endpoints.clone(),
        rules: policy.rules.iter().map(rule).collect(),
    }
}

/// One rule on one line: `Deny TCP from 10.0.0.0/8 to port 23,6000:6100`.
pub(super) fn rule(rule: &Rule) -> String {
    let action = match rule.action {
        RuleAction::Allow => "Allow",
        RuleAction::Deny => "Deny",
        RuleAction::Pass => "Pass",
    };
    let mut words = vec![action.to_owned()];
    words.extend(rule.ip_version.map(|version| format!("IPv{version}")));
    words.extend(rule.protocol.map(protocol_name));
    words.extend(rule.not_protocol.map(|protocol| format!("not {}", protocol_name(protocol))));
    words.extend(rule.icmp.map(|icmp| format!("type {}", icmp_words(icmp))));
    words.extend(rule.not_icmp.map(|icmp| format!("not type {}", icmp_words(icmp))));
    words.extend(peers("from", &rule.source));
    words.extend(peers("to", &rule.destination));
    words.join(" ")
}

fn icmp_words(icmp: IcmpMatch) -> String {
    match icmp.code {
        Some(code) => format!("{} code {code}", icmp.kind),
        None => icmp.kind.to_string(),
    }
}

fn peers(direction: &str, peers: &Peers) -> Option<String> {
    let parts: Vec<String> = [
        list("", &peers.nets, ToString::to_string),
        list("not ", &peers.not_nets, ToString::to_string),
        list("port ", &peers.ports, port_range),
        list("not port ", &peers.not_ports, port_range),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!parts.is_empty()).then(|| format!("{direction} {}", parts.join(" ")))
}

fn list<T>(title: &str, items: &[T], show: impl Fn(&T) -> String) -> Option<String> {
    let words: Vec<String> = items.iter().map(show).collect();
    (!words.is_empty()).then(|| format!("{title}{}", words.join(",")))
}

fn port_range(range: &PortRange) -> String {
    if range.first == range.last { range.first.to_string() } else { format!("{}:{}", range.first, range.last) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_reads_like_a_sentence() {
        let empty = Rule {
            action: RuleAction::Allow,
            ip_version: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: Peers::default(),
            destination: Peers::default(),
        };
        assert_eq!(rule(&empty), "Allow");
        let ports = vec![PortRange { first: 23, last: 23 }, PortRange { first: 6000, last: 6100 }];
        let deny = Rule {
            action: RuleAction::Deny,
            protocol: Some(protocol::TCP),
            source: Peers { nets: vec!["10.0.0.0/8".parse().unwrap()], ..Peers::default() },
            destination: Peers { ports, ..Peers::default() },
            ..empty.clone()
        };
        assert_eq!(rule(&deny), "Deny TCP from 10.0.0.0/8 to port 23,6000:6100");
        let icmp = Some(IcmpMatch { kind: 3, code: Some(4) });
        let not = Rule { not_icmp: icmp, protocol: Some(1), ip_version: Some(4), ..empty };
        assert_eq!(rule(&not), "Allow IPv4 ICMP not type 3 code 4");
    }
}
