//! Stage 3 of `docs/datapath.md`: denylist, failsafe ports and untracked policy, evaluated rule by rule.

use std::net::IpAddr;

use ipnet::IpNet;

use super::parse::Packet;
use crate::desired::{Desired, EndpointInterface, HostEndpoint, IcmpMatch, Peers, Policy, PortRange, Rule, RuleAction};
use crate::network::{IfIndex, Network};
use crate::verdict::DropReason;

/// The policies of a port in order; empty where it has none.
pub(super) fn policies_of<'a>(desired: &'a Desired, network: &Network, port: IfIndex) -> Vec<&'a Policy> {
    let Some(endpoint) = endpoint_of(desired, network, port) else { return Vec::new() };
    desired.policies.iter().filter(|policy| policy.endpoints.contains(&endpoint.name)).collect()
}

fn endpoint_of<'a>(desired: &'a Desired, network: &Network, port: IfIndex) -> Option<&'a HostEndpoint> {
    let name = &network.links.get(&port)?.name;
    let named = |endpoint: &&HostEndpoint| matches!(&endpoint.interface, EndpointInterface::Named(n) if n == name);
    let addressed = |endpoint: &&HostEndpoint| match &endpoint.interface {
        EndpointInterface::ByAddress(list) => network.addresses_of(port).any(|net| list.contains(&net.addr())),
        EndpointInterface::Named(_) => false,
    };
    let first = |candidates: Vec<&'a HostEndpoint>| candidates.into_iter().min_by_key(|endpoint| &endpoint.name);
    first(desired.host_endpoints.iter().filter(named).collect())
        .or_else(|| first(desired.host_endpoints.iter().filter(addressed).collect()))
}

/// `None` lets the packet go on.
pub(super) fn decide(desired: &Desired, policies: &[&Policy], packet: &Packet) -> Option<DropReason> {
    if desired.denylist.of(packet.source).source || desired.denylist.of(packet.destination).destination {
        return Some(DropReason::Denylist);
    }
    if policies.is_empty() || is_failsafe(desired, packet) {
        return None;
    }
    let rule = policies.iter().flat_map(|policy| &policy.rules).find(|rule| matches(rule, packet))?;
    (rule.action == RuleAction::Deny).then_some(DropReason::PolicyDeny)
}

fn is_failsafe(desired: &Desired, packet: &Packet) -> bool {
    let Some((source_port, destination_port)) = packet.ports else { return false };
    let covers = |net: &Option<IpNet>| net.is_none_or(|net| net.contains(&packet.source));
    let node = &desired.node;
    node.failsafe_inbound.iter().any(|f| f.protocol == packet.protocol && f.port == destination_port && covers(&f.net))
        || node
            .failsafe_outbound
            .iter()
            .any(|f| f.protocol == packet.protocol && f.port == source_port && covers(&f.net))
}

fn matches(rule: &Rule, packet: &Packet) -> bool {
    let version = if packet.is_ipv6() { 6 } else { 4 };
    rule.ip_version.is_none_or(|v| v == version)
        && rule.protocol.is_none_or(|p| p == packet.protocol)
        && rule.not_protocol.is_none_or(|p| p != packet.protocol)
        && rule.icmp.is_none_or(|m| packet.icmp.is_some_and(|icmp| icmp_matches(m, icmp)))
        && rule.not_icmp.is_none_or(|m| packet.icmp.is_some_and(|icmp| !icmp_matches(m, icmp)))
        && end_matches(&rule.source, packet.source, packet.ports.map(|(source, _)| source))
        && end_matches(&rule.destination, packet.destination, packet.ports.map(|(_, destination)| destination))
}

fn icmp_matches(wanted: IcmpMatch, (kind, code): (u8, u8)) -> bool {
    wanted.kind == kind && wanted.code.is_none_or(|c| c == code)
}

fn end_matches(peers: &Peers, address: IpAddr, port: Option<u16>) -> bool {
    let of_family =
        |nets: &[IpNet]| nets.is_empty() || nets.iter().any(|net| net.addr().is_ipv4() == address.is_ipv4());
    let holds = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
    let has = |ranges: &[PortRange]| port.map(|port| ranges.iter().any(|r| (r.first..=r.last).contains(&port)));
    of_family(&peers.nets)
        && of_family(&peers.not_nets)
        && (peers.nets.is_empty() || holds(&peers.nets))
        && !holds(&peers.not_nets)
        && (peers.ports.is_empty() || has(&peers.ports) == Some(true))
        && (peers.not_ports.is_empty() || has(&peers.not_ports) == Some(false))
}
