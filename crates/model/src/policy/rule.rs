//! A rule, and whether it matches a packet.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Packet;
use super::endpoint::{Labels, NamedPort};
use crate::desired::{IcmpMatch, PortRange};
use crate::selector::Selector;

/// What a rule does with a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Accept.
    Allow,
    /// Drop.
    Deny,
    /// Write a log line and ask the next rule.
    Log,
    /// Leave the tier.
    Pass,
}

/// One rule: the conjunction of everything that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Outcome.
    pub action: Action,
    /// Only this family: 4 or 6.
    pub ip_version: Option<u8>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Any protocol but this.
    pub not_protocol: Option<u8>,
    /// ICMP or ICMPv6 type and code.
    pub icmp: Option<IcmpMatch>,
    /// Any ICMP type and code but these.
    pub not_icmp: Option<IcmpMatch>,
    /// The packet's source.
    pub source: Entity,
    /// The packet's destination.
    pub destination: Entity,
}

impl Rule {
    /// A rule that matches every packet.
    pub fn any(action: Action) -> Self {
        Self {
            action,
            ip_version: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: Entity::default(),
            destination: Entity::default(),
        }
    }
}

/// Constraints on one end of a packet. An empty list sets nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entity {
    /// Address in one of these. Where none is of the packet's family, the rule does not match.
    pub nets: Vec<IpNet>,
    /// Address in none of these. Where none is of the packet's family, the rule does not match.
    pub not_nets: Vec<IpNet>,
    /// Port in one of these.
    pub ports: Vec<Port>,
    /// Port in none of these.
    pub not_ports: Vec<Port>,
    /// Address of an endpoint or in a network set that this picks, by all labels that they have.
    pub selector: Option<Selector>,
    /// Address of no endpoint and in no network set that this picks.
    pub not_selector: Option<Selector>,
}

/// Ports by number or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// By number.
    Range(PortRange),
    /// As the endpoint that has the address names it.
    Named(String),
}

/// An endpoint or network set that one end of a packet belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a> {
    pub(super) labels: &'a Labels,
    pub(super) ports: &'a [NamedPort],
}

/// A packet, and what its two ends belong to.
pub(super) struct Seen<'a> {
    pub(super) packet: &'a Packet,
    pub(super) source: Vec<Member<'a>>,
    pub(super) destination: Vec<Member<'a>>,
}

impl Rule {
    pub(super) fn matches(&self, seen: &Seen<'_>) -> bool {
        let packet = seen.packet;
        let version = if packet.source.is_ipv4() { 4 } else { 6 };
        let source = End { address: packet.source, port: packet.ports.map(|p| p.0), packet, members: &seen.source };
        let destination =
            End { address: packet.destination, port: packet.ports.map(|p| p.1), packet, members: &seen.destination };
        self.ip_version.is_none_or(|v| v == version)
            && self.protocol.is_none_or(|p| p == packet.protocol)
            && self.not_protocol.is_none_or(|p| p != packet.protocol)
            && self.icmp.is_none_or(|m| packet.icmp.is_some_and(|icmp| icmp_matches(m, icmp)))
            && self.not_icmp.is_none_or(|m| packet.icmp.is_some_and(|icmp| !icmp_matches(m, icmp)))
            && source.is_in(&self.source)
            && destination.is_in(&self.destination)
    }
}

fn icmp_matches(wanted: IcmpMatch, (kind, code): (u8, u8)) -> bool {
    wanted.kind == kind && wanted.code.is_none_or(|c| c == code)
}

/// One end of a packet.
struct End<'a> {
    address: IpAddr,
    port: Option<u16>,
    packet: &'a Packet,
    members: &'a [Member<'a>],
}

impl End<'_> {
    fn is_in(&self, entity: &Entity) -> bool {
        let of_family =
            |nets: &[IpNet]| nets.is_empty() || nets.iter().any(|net| net.addr().is_ipv4() == self.address.is_ipv4());
        let holds = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&self.address));
        of_family(&entity.nets)
            && of_family(&entity.not_nets)
            && (entity.nets.is_empty() || holds(&entity.nets))
            && !holds(&entity.not_nets)
            && entity.selector.as_ref().is_none_or(|selector| self.picked(selector))
            && !entity.not_selector.as_ref().is_some_and(|selector| self.picked(selector))
            && self.port_is_in(entity)
    }

    fn picked(&self, selector: &Selector) -> bool {
        self.members.iter().any(|member| selector.matches(member.labels))
    }

    /// A named port counts for what the rule's selector picks; a name that nothing there has is the port of nothing.
    fn port_is_in(&self, entity: &Entity) -> bool {
        let Some(port) = self.port else { return entity.ports.is_empty() && entity.not_ports.is_empty() };
        let has = |wanted: &Port, selector: Option<&Selector>| match wanted {
            Port::Range(range) => (range.first..=range.last).contains(&port),
            Port::Named(name) => self
                .members
                .iter()
                .filter(|member| selector.is_none_or(|selector| selector.matches(member.labels)))
                .flat_map(|member| member.ports)
                .any(|named| named.name == *name && named.protocol == self.packet.protocol && named.port == port),
        };
        let selector = entity.selector.as_ref();
        (entity.ports.is_empty() || entity.ports.iter().any(|wanted| has(wanted, selector)))
            && !entity.not_ports.iter().any(|wanted| has(wanted, None))
    }
}
