//! Rules and selectors, of whatever policy they stand in.

use ipnet::IpNet;

use super::super::check::{Checker, family};
use crate::desired::{IcmpMatch, PortRange, protocol};
use crate::document::Path;
use crate::document::deserialize::one_of;
use crate::policy::{self, Entity, NAMESPACE_LABEL, Port, Rule, SERVICE_ACCOUNT_LABEL};
use crate::resources::calico::{Action, EntityRule, IcmpSpec, RuleSpec, ServiceAccountMatch};
use crate::resources::common::{Cidr, NumberOrText};
use crate::selector::Selector;

/// Most rules of a policy and direction.
const MAX_RULES: usize = 1024;
/// Most prefixes of one list.
const MAX_NETS: usize = 256;
/// Most ports of one list.
const MAX_PORTS: usize = 50;
/// Longest name of a port.
const MAX_PORT_NAME: usize = 128;
/// Longest selector, in characters.
const MAX_SELECTOR: usize = 1024;
/// What the labels of a namespace begin with on those that are in it.
pub(super) const NAMESPACE_PREFIX: &str = "pcns.";
/// What the labels of a service account begin with on those that have it.
pub(super) const SERVICE_ACCOUNT_PREFIX: &str = "pcsa.";
/// Parses a selector and says what is wrong with it.
pub(in super::super) fn selector(text: &str, at: &Path, check: &mut Checker<'_>) -> Option<Selector> {
    let selector = any_selector(text, at, check)?;
    if selector.mentions_global() {
        check.error(at, "global() can only be used in the namespaceSelector of a rule");
        return None;
    }
    Some(selector)
}

/// The same where `global()` has a meaning.
fn any_selector(text: &str, at: &Path, check: &mut Checker<'_>) -> Option<Selector> {
    let length = text.chars().count();
    if length > MAX_SELECTOR {
        check.error(at, format!("a selector has at most {MAX_SELECTOR} characters, this has {length}"));
        return None;
    }
    Selector::parse(text).map_err(|error| check.error(at, error.to_string())).ok()
}

/// The rules of one direction, of a policy in `namespace` or in none.
pub(super) fn rules(list: &[RuleSpec], at: &Path, namespace: Option<&str>, check: &mut Checker<'_>) -> Vec<Rule> {
    check.at_most(at, list.len(), MAX_RULES, "rules");
    let rules = list.iter().enumerate();
    rules.map(|(i, rule)| lower_rule(rule, &at.index(i), namespace, check)).collect()
}

fn lower_rule(spec: &RuleSpec, at: &Path, namespace: Option<&str>, check: &mut Checker<'_>) -> Rule {
    let action = match spec.action {
        Action::Allow => policy::Action::Allow,
        Action::Deny => policy::Action::Deny,
        Action::Pass => policy::Action::Pass,
        Action::Log => {
            check.evaluated_only(&at.key("action"), "action Log");
            policy::Action::Log
        }
    };
    if spec.http.is_some() {
        check.unevaluated(&at.key("http"), "http", "only packets are looked at: leave it out");
    }
    let named = |text: &Option<NumberOrText>, field: &str, check: &mut Checker<'_>| {
        text.as_ref().and_then(|text| protocol_number(text, &at.key(field), check))
    };
    let protocol = named(&spec.protocol, "protocol", check);
    let not_protocol = named(&spec.not_protocol, "notProtocol", check);
    let ip_version = families(spec, at, check);
    icmp_family(protocol, spec.ip_version, &at.key("protocol"), check);
    icmp_family(not_protocol, spec.ip_version, &at.key("notProtocol"), check);
    let carries = Carries { at, protocol, named: spec.protocol.is_some(), namespace };
    Rule {
        icmp: icmp(spec.icmp.as_ref(), "icmp", &carries, check),
        not_icmp: icmp(spec.not_icmp.as_ref(), "notICMP", &carries, check),
        source: entity(&spec.source, "source", &carries, check),
        destination: entity(&spec.destination, "destination", &carries, check),
        action,
        ip_version,
        protocol,
        not_protocol,
    }
}

/// The protocol that a rule is limited to, and where the rule stands.
struct Carries<'a> {
    at: &'a Path,
    protocol: Option<u8>,
    /// A protocol is named, be it a wrong one.
    named: bool,
    /// Namespace of the policy.
    namespace: Option<&'a str>,
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
            let known = protocol::by_name(name);
            if known.is_none() {
                let names = protocol::NAMES.map(|(name, _)| name);
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

fn entity(spec: &EntityRule, side: &str, rule: &Carries<'_>, check: &mut Checker<'_>) -> Entity {
    let at = rule.at.key(side);
    for (i, Cidr(net)) in spec.not_nets.iter().enumerate() {
        if net.prefix_len() == 0 {
            check.error(&at.key("notNets").index(i), format!("nothing is outside {net}: the rule never matches"));
        }
    }
    if spec.services.is_some() {
        check.unevaluated(
            &at.key("services"),
            "services",
            "EndpointSlices are not read: write the addresses as nets, or select the endpoints",
        );
    }
    let not_selector = given(&spec.not_selector).and_then(|text| {
        check.evaluated_only(&at.key("notSelector"), "notSelector in a rule");
        selector(text, &at.key("notSelector"), check)
    });
    Entity {
        nets: nets(&spec.nets, &at.key("nets"), check),
        not_nets: nets(&spec.not_nets, &at.key("notNets"), check),
        ports: ports(&spec.ports, &at.key("ports"), rule, check),
        not_ports: ports(&spec.not_ports, &at.key("notPorts"), rule, check),
        selector: entity_selector(spec, &at, rule.namespace, check),
        not_selector,
    }
}

/// Text that is there and not empty.
pub(super) fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// Everything that an end of a rule selects by, as one selector of endpoints and network sets.
///
/// In a policy with a namespace, any of them limits the rule to that namespace, unless a namespaceSelector says otherwise.
fn entity_selector(spec: &EntityRule, at: &Path, namespace: Option<&str>, check: &mut Checker<'_>) -> Option<Selector> {
    let namespaces = given(&spec.namespace_selector).map(|text| {
        let at = at.key("namespaceSelector");
        check.evaluated_only(&at, "namespaceSelector in a rule");
        let parents = any_selector(text, &at, check);
        parents.map_or_else(nothing, |parents| parents.of_parents(NAMESPACE_PREFIX, Some(NAMESPACE_LABEL)))
    });
    let mut parts: Vec<Selector> = Vec::new();
    if let Some(accounts) = &spec.service_accounts {
        check.evaluated_only(&at.key("serviceAccounts"), "serviceAccounts");
        parts.extend(service_accounts(accounts, &at.key("serviceAccounts"), check));
    }
    if let Some(text) = given(&spec.selector) {
        check.evaluated_only(&at.key("selector"), "selector in a rule");
        parts.push(selector(text, &at.key("selector"), check).unwrap_or_else(nothing));
    }
    let selects = !parts.is_empty() || given(&spec.not_selector).is_some();
    let own = namespace.filter(|_| selects).map(|namespace| Selector::equal(NAMESPACE_LABEL, namespace));
    parts.extend(namespaces.or(own));
    (!parts.is_empty()).then(|| Selector::and(parts))
}

fn service_accounts(spec: &ServiceAccountMatch, at: &Path, check: &mut Checker<'_>) -> Vec<Selector> {
    let mut parts = Vec::new();
    if let Some(text) = given(&spec.selector) {
        let accounts = selector(text, &at.key("selector"), check);
        parts.push(accounts.map_or_else(nothing, |accounts| accounts.of_parents(SERVICE_ACCOUNT_PREFIX, None)));
    }
    if !spec.names.is_empty() {
        parts.push(Selector::one_of(SERVICE_ACCOUNT_LABEL, spec.names.iter().cloned()));
    }
    parts
}

/// What a selector that cannot be read picks.
pub(super) fn nothing() -> Selector {
    Selector::all().negated()
}

pub(super) fn nets(list: &[Cidr], at: &Path, check: &mut Checker<'_>) -> Vec<IpNet> {
    check.at_most(at, list.len(), MAX_NETS, "prefixes");
    list.iter().enumerate().map(|(i, net)| check.calico_prefix(&at.index(i), *net)).collect()
}

fn ports(list: &[NumberOrText], at: &Path, rule: &Carries<'_>, check: &mut Checker<'_>) -> Vec<Port> {
    check.at_most(at, list.len(), MAX_PORTS, "ports");
    let carried = matches!(rule.protocol, Some(protocol::TCP | protocol::UDP | protocol::SCTP));
    if !list.is_empty() && !carried && rule.lacks_protocol(check) {
        check.error(at, "ports need protocol TCP, UDP or SCTP");
    }
    list.iter().enumerate().filter_map(|(i, port)| port_match(port, &at.index(i), check)).collect()
}

/// A number, a range `first:last`, or a name.
pub(super) fn port_match(port: &NumberOrText, at: &Path, check: &mut Checker<'_>) -> Option<Port> {
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
    let (first, last) = match port {
        NumberOrText::Number(n) => (u32::try_from(*n).ok(), u32::try_from(*n).ok()),
        NumberOrText::Text(text) => match text.split_once(':') {
            Some((first, last)) => (number(first), number(last)),
            None if is_port_name(text) => {
                check.evaluated_only(at, &format!("the named port '{text}'"));
                return Some(Port::Named(text.clone()));
            }
            None => (number(text), number(text)),
        },
    };
    let valid = |port: Option<u32>| port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0);
    match (valid(first), valid(last)) {
        (Some(first), Some(last)) if first <= last => Some(Port::Range(PortRange { first, last })),
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

/// True for what Calico takes as the name of a port: not a number, of letters, digits and `._-`.
pub(super) fn is_port_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=MAX_PORT_NAME).contains(&text.len()) && text.chars().all(allowed) && !text.bytes().all(|b| b.is_ascii_digit())
}
