//! Lowering of Calico's policy kinds: GlobalNetworkPolicy and HostEndpoint.
//!
//! Enforced is untracked ingress policy of the tier `default`. What else a document asks for is an error: a policy that is
//! enforced in part is a hole in a firewall.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::Item;
use super::check::{Checker, family};
use super::diagnostic::Report;
use crate::desired::{
    EndpointInterface, HostEndpoint, IcmpMatch, Peers, Policy, PortRange, Rule, RuleAction, protocol,
};
use crate::document::Path;
use crate::document::deserialize::one_of;
use crate::resources::calico::{
    Action, EntityRule, GlobalNetworkPolicySpec, HostEndpointSpec, IcmpSpec, PolicyType, RuleSpec,
};
use crate::resources::common::{Cidr, NumberOrText};
use crate::selector::Selector;

/// Most rules of a policy and direction.
const MAX_RULES: usize = 1024;
/// Most prefixes of one list.
const MAX_NETS: usize = 256;
/// Most ports of one list.
const MAX_PORTS: usize = 50;
/// Longest selector, in characters.
const MAX_SELECTOR: usize = 1024;
/// The profile that lets host traffic pass.
const ALLOW_PROFILE: &str = "projectcalico-default-allow";
/// Calico's protocol names.
const PROTOCOLS: [(&str, u8); 6] = [
    ("TCP", protocol::TCP),
    ("UDP", protocol::UDP),
    ("ICMP", protocol::ICMP),
    ("ICMPv6", protocol::ICMPV6),
    ("SCTP", protocol::SCTP),
    ("UDPLite", protocol::UDPLITE),
];

/// The host endpoints of this node, by name.
pub(super) fn host_endpoints(items: &[Item<HostEndpointSpec>], node: &str, report: &mut Report) -> Vec<HostEndpoint> {
    let mut result = Vec::new();
    for item in items {
        let mut check = Checker { document: &item.document, report };
        let (spec, at) = (&item.spec, Path::spec());
        match spec.node.as_deref() {
            Some(name) if name == node => {}
            Some(name) if !name.is_empty() => continue,
            _ => check.error(&at, "needs the field 'node'"),
        }
        for (i, _) in spec.ports.iter().enumerate() {
            check.not_enforced(&at.key("ports").index(i), "named ports");
        }
        if spec.profiles != [ALLOW_PROFILE] {
            check.error_help(
                &at.key("profiles"),
                "not enforced yet: profiles other than projectcalico-default-allow, and none at all, which drops all \
                 host traffic that no tracked policy allows",
                format!("write profiles: [{ALLOW_PROFILE}]"),
            );
        }
        if let Some(interface) = endpoint_interface(spec, &mut check) {
            let labels = item.metadata.labels.clone();
            result.push(HostEndpoint { name: item.document.name.clone(), interface, labels });
        }
    }
    result.sort_by(|a, b| a.name.cmp(&b.name));
    result
}

fn endpoint_interface(spec: &HostEndpointSpec, check: &mut Checker<'_>) -> Option<EndpointInterface> {
    let at = Path::spec();
    match spec.interface_name.as_deref() {
        Some("*") => {
            check.not_enforced(&at.key("interfaceName"), "interfaceName '*', a policy for all interfaces together");
            None
        }
        Some(name) if !name.is_empty() => {
            check.interface_name(&at.key("interfaceName"), name);
            Some(EndpointInterface::Named(name.to_owned()))
        }
        _ if spec.expected_ips.is_empty() => {
            check.error(&at, "needs 'interfaceName' or 'expectedIPs'");
            None
        }
        _ => Some(EndpointInterface::ByAddress(spec.expected_ips.iter().map(|a| a.0).collect())),
    }
}

/// All policies in the order of evaluation.
pub(super) fn policies(
    items: &[Item<GlobalNetworkPolicySpec>],
    endpoints: &[HostEndpoint],
    report: &mut Report,
) -> Vec<Policy> {
    let mut ordered: Vec<(f64, Policy)> = Vec::with_capacity(items.len());
    for item in items {
        let mut check = Checker { document: &item.document, report };
        let policy = policy(item, endpoints, &mut check);
        let order = item.spec.order.unwrap_or(f64::INFINITY);
        if order.is_nan() {
            check.error(&Path::spec().key("order"), "must be a number");
        }
        ordered.push((order, policy));
    }
    ordered.sort_by(|(a, x), (b, y)| a.total_cmp(b).then_with(|| x.name.cmp(&y.name)));
    ordered.into_iter().map(|(_, policy)| policy).collect()
}

fn policy(item: &Item<GlobalNetworkPolicySpec>, endpoints: &[HostEndpoint], check: &mut Checker<'_>) -> Policy {
    let (spec, at) = (&item.spec, Path::spec());
    kind_of_policy(spec, check);
    directions(spec, check);
    if let Some(tier) = spec.tier.as_deref().filter(|t| !["", "default"].contains(t)) {
        check.not_enforced(&at.key("tier"), &format!("tier '{tier}', any other than 'default'"));
    }
    for (field, set) in
        [("namespaceSelector", &spec.namespace_selector), ("serviceAccountSelector", &spec.service_account_selector)]
    {
        if set.as_deref().is_some_and(|text| !text.is_empty()) {
            check.not_enforced(&at.key(field), &format!("{field}, a policy for workloads"));
        }
    }
    check.at_most(&at.key("ingress"), spec.ingress.len(), MAX_RULES, "rules");
    let selected = selector(spec.selector.as_deref().unwrap_or_default(), &at.key("selector"), check);
    let picks = |labels: &BTreeMap<String, String>| selected.as_ref().is_some_and(|s| s.matches(labels));
    let rules = spec.ingress.iter().enumerate();
    Policy {
        name: item.document.name.clone(),
        endpoints: endpoints.iter().filter(|e| picks(&e.labels)).map(|e| e.name.clone()).collect(),
        rules: rules.filter_map(|(i, rule)| lower_rule(rule, &at.key("ingress").index(i), check)).collect(),
    }
}

/// Parses a selector and says what is wrong with it.
pub(super) fn selector(text: &str, at: &Path, check: &mut Checker<'_>) -> Option<Selector> {
    let length = text.chars().count();
    if length > MAX_SELECTOR {
        check.error(at, format!("a selector has at most {MAX_SELECTOR} characters, this has {length}"));
        return None;
    }
    if text.contains("global(") {
        check.error(at, "global() can only be used in the namespaceSelector of a rule");
        return None;
    }
    Selector::parse(text).map_err(|error| check.error(at, error.to_string())).ok()
}

/// Untracked, or an error that says what it is.
fn kind_of_policy(spec: &GlobalNetworkPolicySpec, check: &mut Checker<'_>) {
    let at = Path::spec();
    let [untracked, pre_dnat, forwarded] =
        [spec.do_not_track, spec.pre_dnat, spec.apply_on_forward].map(|flag| flag == Some(true));
    if untracked && pre_dnat {
        check.error(&at.key("preDNAT"), "doNotTrack and preDNAT cannot both be true");
    } else if pre_dnat {
        check.not_enforced(&at.key("preDNAT"), "preDNAT policy");
    } else if !untracked {
        check.report.error_help(
            check.document,
            &at.key("doNotTrack"),
            "not enforced yet: tracked policy, which is what doNotTrack false or absent asks for",
            "write doNotTrack: true and applyOnForward: true where stateless rules will do",
        );
    }
    if (untracked || pre_dnat) && !forwarded {
        let flag = if untracked { "doNotTrack" } else { "preDNAT" };
        let message = format!("{flag} requires applyOnForward: true");
        check.error(&at.key("applyOnForward"), message);
    }
}

fn directions(spec: &GlobalNetworkPolicySpec, check: &mut Checker<'_>) {
    let at = Path::spec();
    for (i, kind) in spec.types.iter().enumerate() {
        if *kind == PolicyType::Egress {
            check.not_enforced(&at.key("types").index(i), "egress policy");
        }
        if spec.types.get(..i).unwrap_or_default().contains(kind) {
            check.error(&at.key("types").index(i), "is listed twice");
        }
    }
    // Where types are absent, egress rules imply egress policy.
    if !spec.egress.is_empty() {
        check.not_enforced(&at.key("egress"), "egress policy");
    }
}

fn lower_rule(spec: &RuleSpec, at: &Path, check: &mut Checker<'_>) -> Option<Rule> {
    let action = match spec.action {
        Action::Allow => Some(RuleAction::Allow),
        Action::Deny => Some(RuleAction::Deny),
        Action::Pass => Some(RuleAction::Pass),
        Action::Log => {
            check.not_enforced(&at.key("action"), "action Log");
            None
        }
    };
    if spec.http.is_some() {
        check.not_enforced(&at.key("http"), "http");
    }
    let named = |text: &Option<NumberOrText>, field: &str, check: &mut Checker<'_>| {
        text.as_ref().and_then(|text| protocol_number(text, &at.key(field), check))
    };
    let protocol = named(&spec.protocol, "protocol", check);
    let not_protocol = named(&spec.not_protocol, "notProtocol", check);
    let ip_version = families(spec, at, check);
    icmp_family(protocol, spec.ip_version, &at.key("protocol"), check);
    icmp_family(not_protocol, spec.ip_version, &at.key("notProtocol"), check);
    let carries = Carries { at, protocol, named: spec.protocol.is_some() };
    Some(Rule {
        icmp: icmp(spec.icmp.as_ref(), "icmp", &carries, check),
        not_icmp: icmp(spec.not_icmp.as_ref(), "notICMP", &carries, check),
        source: peers(&spec.source, "source", &carries, check),
        destination: peers(&spec.destination, "destination", &carries, check),
        action: action?,
        ip_version,
        protocol,
        not_protocol,
    })
}

/// The protocol that a rule is limited to, and where the rule stands.
struct Carries<'a> {
    at: &'a Path,
    protocol: Option<u8>,
    /// A protocol is named, be it a wrong one.
    named: bool,
}

impl Carries<'_> {
    /// True when the rule lacks the protocol that it needs; a protocol that is itself wrong has been told of.
    fn lacks_protocol(&self, check: &Checker<'_>) -> bool {
        (self.protocol.is_some() || !self.named) && check.document.is_sound(&self.at.key("protocol"))
    }
}

fn protocol_number(text: &NumberOrText, at: &Path, check: &mut Checker<'_>) -> Option<u8> {
    match text {
        NumberOrText::Number(number) => {
            let valid = u8::try_from(*number).ok().filter(|n| *n > 0);
            if valid.is_none() {
                check.error(at, format!("a protocol number must be 1 to 255, is {number}"));
            }
            valid
        }
        NumberOrText::Text(name) => {
            let known = PROTOCOLS.iter().find(|(known, _)| known == name).map(|(_, number)| *number);
            if known.is_none() {
                let names = PROTOCOLS.map(|(name, _)| name);
                check.error_help(
                    at,
                    format!("'{name}' is not a protocol"),
                    format!("{}, or a number", one_of(name, &names)),
                );
            }
            known
        }
    }
}

/// ICMP is of IPv4 and ICMPv6 of IPv6; Calico refuses to mix them.
fn icmp_family(protocol: Option<u8>, ip_version: Option<u8>, at: &Path, check: &mut Checker<'_>) {
    match (protocol, ip_version) {
        (Some(protocol::ICMP), Some(6)) => check.error(at, "ICMP needs ipVersion 4, and it is 6"),
        (Some(protocol::ICMPV6), Some(4)) => check.error(at, "ICMPv6 needs ipVersion 6, and it is 4"),
        _ => {}
    }
}

/// The family that a rule is limited to, by its word or by its prefixes.
fn families(spec: &RuleSpec, at: &Path, check: &mut Checker<'_>) -> Option<u8> {
    if let Some(version) = spec.ip_version.filter(|v| ![4, 6].contains(v)) {
        check.error(&at.key("ipVersion"), format!("must be 4 or 6, is {version}"));
        return None;
    }
    let mut first: Option<IpNet> = None;
    for (side, entity) in [("source", &spec.source), ("destination", &spec.destination)] {
        for (list, nets) in [("nets", &entity.nets), ("notNets", &entity.not_nets)] {
            for (i, Cidr(net)) in nets.iter().enumerate() {
                let path = at.key(side).key(list).index(i);
                let version = if net.addr().is_ipv4() { 4 } else { 6 };
                if let Some(wanted) = spec.ip_version.filter(|v| *v != version) {
                    check.error(&path, format!("{net} is IPv{version}, ipVersion is {wanted}"));
                } else if let Some(other) = first.filter(|f| f.addr().is_ipv4() != net.addr().is_ipv4()) {
                    let message = format!(
                        "{net} is {}, {other} in the same rule is {}",
                        family(net.addr()),
                        family(other.addr())
                    );
                    check.error_help(&path, message, "make two rules of it, one a family");
                }
                first.get_or_insert(*net);
            }
        }
    }
    spec.ip_version.or(first.map(|net| if net.addr().is_ipv4() { 4 } else { 6 }))
}

fn icmp(spec: Option<&IcmpSpec>, field: &str, rule: &Carries<'_>, check: &mut Checker<'_>) -> Option<IcmpMatch> {
    let (spec, at) = (spec?, rule.at.key(field));
    if !matches!(rule.protocol, Some(protocol::ICMP | protocol::ICMPV6)) {
        if rule.lacks_protocol(check) {
            check.error(&at, format!("{field} needs protocol ICMP or ICMPv6"));
        }
        return None;
    }
    match spec.kind {
        Some(kind) => Some(IcmpMatch { kind: check.range(&at.key("type"), kind, 0, 254), code: spec.code }),
        None => {
            if spec.code.is_some() {
                check.error(&at.key("code"), "a code needs a type");
            }
            None
        }
    }
}

fn peers(spec: &EntityRule, side: &str, rule: &Carries<'_>, check: &mut Checker<'_>) -> Peers {
    let at = rule.at.key(side);
    for (field, set) in [
        ("selector", &spec.selector),
        ("notSelector", &spec.not_selector),
        ("namespaceSelector", &spec.namespace_selector),
    ] {
        if set.as_deref().is_some_and(|text| !text.is_empty()) {
            check.not_enforced(&at.key(field), &format!("{field} in a rule"));
        }
    }
    if spec.services.is_some() {
        check.not_enforced(&at.key("services"), "services");
    }
    if spec.service_accounts.is_some() {
        check.not_enforced(&at.key("serviceAccounts"), "serviceAccounts");
    }
    for (i, Cidr(net)) in spec.not_nets.iter().enumerate() {
        if net.prefix_len() == 0 {
            check.error(&at.key("notNets").index(i), format!("nothing is outside {net}: the rule never matches"));
        }
    }
    Peers {
        nets: nets(&spec.nets, &at.key("nets"), check),
        not_nets: nets(&spec.not_nets, &at.key("notNets"), check),
        ports: ports(&spec.ports, &at.key("ports"), rule, check),
        not_ports: ports(&spec.not_ports, &at.key("notPorts"), rule, check),
    }
}

fn nets(list: &[Cidr], at: &Path, check: &mut Checker<'_>) -> Vec<IpNet> {
    check.at_most(at, list.len(), MAX_NETS, "prefixes");
    list.iter().enumerate().map(|(i, net)| check.calico_prefix(&at.index(i), *net)).collect()
}

fn ports(list: &[NumberOrText], at: &Path, rule: &Carries<'_>, check: &mut Checker<'_>) -> Vec<PortRange> {
    check.at_most(at, list.len(), MAX_PORTS, "ports");
    let carried = matches!(rule.protocol, Some(protocol::TCP | protocol::UDP | protocol::SCTP));
    if !list.is_empty() && !carried && rule.lacks_protocol(check) {
        check.error(at, "ports need protocol TCP, UDP or SCTP");
    }
    list.iter().enumerate().filter_map(|(i, port)| port_range(port, &at.index(i), check)).collect()
}

fn port_range(port: &NumberOrText, at: &Path, check: &mut Checker<'_>) -> Option<PortRange> {
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
    let (first, last) = match port {
        NumberOrText::Number(n) => (u32::try_from(*n).ok(), u32::try_from(*n).ok()),
        NumberOrText::Text(text) => match text.split_once(':') {
            Some((first, last)) => (number(first), number(last)),
            None if text.starts_with(|c: char| c.is_ascii_digit()) => (number(text), number(text)),
            None => {
                check.not_enforced(at, &format!("the named port '{text}'"));
                return None;
            }
        },
    };
    let valid = |port: Option<u32>| port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0);
    match (valid(first), valid(last)) {
        (Some(first), Some(last)) if first <= last => Some(PortRange { first, last }),
        (Some(first), Some(last)) => {
            check.error(at, format!("the range begins behind its end: {first} > {last}"));
            None
        }
        _ => {
            check.error(at, format!("'{port}' is not a port from 1 to 65535, nor a range first:last of them"));
            None
        }
    }
}
