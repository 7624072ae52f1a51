//! Untracked policy as a decision list.
//!
//! Every rule becomes groups of tests: all groups must hold. A positive group holds when one of its tests matches; a
//! negated one when none does. A test of a field that the packet does not have settles for "rule does not match" either
//! way: a fragment without ports is no more in a set of ports than outside of it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde::Serialize;

use super::notice::{CompileError, Notice};
use super::ports::Ports;
use crate::desired::{Desired, EndpointInterface, Failsafe, HostEndpoint, Peers, Policy, PortRange, Rule, RuleAction};
use crate::network::{IfIndex, Network};
use crate::tables::{FilterNext, FilterOp, FilterTest, PortKey};

/// Ops that one generation may have: half of the map, the other half is in force meanwhile.
pub const FILTER_OPS_MAX: usize = 8_192;

/// Which configuration a filter op comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum FilterOrigin {
    /// A failsafe port.
    Failsafe,
    /// The end: no rule matched.
    NoRule,
    /// A rule of a policy.
    #[serde(rename_all = "camelCase")]
    Rule {
        /// The policy's document name.
        policy: String,
        /// Index of the rule in the policy, from 0.
        rule: usize,
    },
}

/// Tests of which one must match, or none where negated.
struct TestGroup {
    negated: bool,
    tests: Vec<FilterTest>,
}

/// A rule of the list: all groups hold, then `verdict`.
struct Clause {
    groups: Vec<TestGroup>,
    verdict: FilterNext,
    origin: FilterOrigin,
}

/// The compiled policies of all ports.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) ops: Vec<FilterOp>,
    pub(super) origins: Vec<FilterOrigin>,
}

/// Compiles the policies of the host endpoints and sets where each port's program starts. Ports with the same policies
/// share one program.
pub(super) fn filter(
    desired: &Desired,
    network: &Network,
    ports: &mut Ports,
    notices: &mut Vec<Notice>,
) -> Result<Filter, CompileError> {
    let mut filter = Filter::default();
    let mut starts: BTreeMap<Vec<usize>, Option<u16>> = BTreeMap::new();
    for (key, endpoint) in endpoints(desired, network, ports, notices) {
        let policies: Vec<usize> = desired
            .policies
            .iter()
            .enumerate()
            .filter(|(_, policy)| policy.endpoints.contains(&endpoint.name))
            .map(|(index, _)| index)
            .collect();
        let start = match starts.get(&policies) {
            Some(start) => *start,
            None => {
                let has_policy = !policies.is_empty();
                let start = has_policy.then(|| filter.append(&clauses(desired, &policies))).transpose()?;
                starts.insert(policies, start);
                start
            }
        };
        if let Some(port) = ports.table.get_mut(&key) {
            port.filter = start;
        }
    }
    Ok(filter)
}

/// The host endpoint of each port: one that names it before one that has its address, then the first by name.
fn endpoints<'a>(
    desired: &'a Desired,
    network: &Network,
    ports: &Ports,
    notices: &mut Vec<Notice>,
) -> BTreeMap<PortKey, &'a HostEndpoint> {
    let mut sorted: Vec<&HostEndpoint> = desired.host_endpoints.iter().collect();
    sorted.sort_by_key(|endpoint| (matches!(endpoint.interface, EndpointInterface::ByAddress(_)), &endpoint.name));
    let mut chosen: BTreeMap<PortKey, &HostEndpoint> = BTreeMap::new();
    for endpoint in sorted {
        let mut stands_for_one = false;
        for (device, egress) in &ports.egress {
            if !stands_for(endpoint, *device, &egress.name, network) {
                continue;
            }
            stands_for_one = true;
            let first = *chosen.entry(egress.key).or_insert(endpoint);
            if first.name != endpoint.name {
                let (endpoint, other) = (endpoint.name.clone(), first.name.clone());
                notices.push(Notice::EndpointShadowed { endpoint, other, interface: egress.name.clone() });
            }
        }
        if !stands_for_one {
            notices.push(Notice::EndpointWithoutPort { endpoint: endpoint.name.clone() });
        }
    }
    chosen
}

fn stands_for(endpoint: &HostEndpoint, device: IfIndex, name: &str, network: &Network) -> bool {
    match &endpoint.interface {
        EndpointInterface::Named(interface) => interface == name,
        EndpointInterface::ByAddress(addresses) => {
            network.addresses_of(device).any(|net| addresses.contains(&net.addr()))
        }
    }
}

/// The decision list of a port under these policies. Failsafe ports come first, then the rules of each policy in order.
fn clauses(desired: &Desired, policies: &[usize]) -> Vec<Clause> {
    let policies: Vec<&Policy> = policies.iter().filter_map(|index| desired.policies.get(*index)).collect();
    let node = &desired.node;
    let inbound = failsafes(&node.failsafe_inbound, FilterTest::DestinationPort);
    let outbound = failsafes(&node.failsafe_outbound, FilterTest::SourcePort);
    let rules = policies.iter().flat_map(|policy| {
        policy.rules.iter().enumerate().map(|(rule, what)| Clause {
            groups: groups(what),
            verdict: match what.action {
                // There is one tier and no default action behind it, so leaving the tier lets the packet go on.
                RuleAction::Allow | RuleAction::Pass => FilterNext::Allow,
                RuleAction::Deny => FilterNext::Deny,
            },
            origin: FilterOrigin::Rule { policy: policy.name.clone(), rule },
        })
    });
    inbound.chain(outbound).chain(rules).collect()
}

/// Failsafe ports as clauses, one for each protocol and net: every op is a step for every packet, so ports that share
/// both are one group, and neighbouring ports one range.
fn failsafes(ports: &[Failsafe], test: fn(u16, u16) -> FilterTest) -> impl Iterator<Item = Clause> {
    let mut by_peer: BTreeMap<(u8, Option<IpNet>), BTreeSet<u16>> = BTreeMap::new();
    for failsafe in ports {
        by_peer.entry((failsafe.protocol, failsafe.net)).or_default().insert(failsafe.port);
    }
    by_peer.into_iter().map(move |((protocol, net), ports)| {
        let tests = ranges(&ports).into_iter().map(|(first, last)| test(first, last)).collect();
        let mut groups = vec![any_of(vec![FilterTest::Protocol(protocol)]), any_of(tests)];
        groups.extend(net.map(|net| any_of(vec![FilterTest::Source(net)])));
        Clause { groups, verdict: FilterNext::Allow, origin: FilterOrigin::Failsafe }
    })
}

/// Runs of neighbouring ports.
fn ranges(ports: &BTreeSet<u16>) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*port) => *last = *port,
            _ => ranges.push((*port, *port)),
        }
    }
    ranges
}

fn any_of(tests: Vec<FilterTest>) -> TestGroup {
    TestGroup { negated: false, tests }
}

fn none_of(tests: Vec<FilterTest>) -> TestGroup {
    TestGroup { negated: true, tests }
}

/// The groups of a rule, cheap tests first.
fn groups(rule: &Rule) -> Vec<TestGroup> {
    let icmp = |m: crate::desired::IcmpMatch| FilterTest::Icmp { kind: m.kind, code: m.code };
    let mut groups: Vec<TestGroup> = [
        rule.ip_version.map(|version| any_of(vec![FilterTest::IpVersion(version)])),
        rule.protocol.map(|protocol| any_of(vec![FilterTest::Protocol(protocol)])),
        rule.not_protocol.map(|protocol| none_of(vec![FilterTest::Protocol(protocol)])),
        rule.icmp.map(|m| any_of(vec![icmp(m)])),
        rule.not_icmp.map(|m| none_of(vec![icmp(m)])),
    ]
    .into_iter()
    .flatten()
    .collect();
    groups.extend(peer_groups(&rule.source, FilterTest::Source, FilterTest::SourcePort));
    groups.extend(peer_groups(&rule.destination, FilterTest::Destination, FilterTest::DestinationPort));
    groups
}

fn peer_groups(
    peers: &Peers,
    net: fn(IpNet) -> FilterTest,
    port: fn(u16, u16) -> FilterTest,
) -> impl Iterator<Item = TestGroup> {
    let nets = |nets: &[IpNet]| nets.iter().map(|n| net(n.trunc())).collect::<Vec<_>>();
    // notNets of one family only: Calico leaves the rule out for the other.
    let version = match peers.not_nets.as_slice() {
        [] => None,
        nets if nets.iter().all(|net| net.addr().is_ipv4()) => Some(4),
        nets if nets.iter().all(|net| net.addr().is_ipv6()) => Some(6),
        _ => None,
    };
    let ports = |ports: &[PortRange]| ports.iter().map(|range| port(range.first, range.last)).collect::<Vec<_>>();
    [
        any_of(version.map(FilterTest::IpVersion).into_iter().collect()),
        any_of(nets(&peers.nets)),
        none_of(nets(&peers.not_nets)),
        any_of(ports(&peers.ports)),
        none_of(ports(&peers.not_ports)),
    ]
    .into_iter()
    .filter(|group| !group.tests.is_empty())
}

impl Filter {
    /// Appends a program and returns where it starts.
    fn append(&mut self, clauses: &[Clause]) -> Result<u16, CompileError> {
        // What is behind an unconditional clause is never reached.
        let end = clauses.iter().position(|clause| clause.groups.is_empty());
        let (clauses, otherwise) = match end.and_then(|end| Some((clauses.get(..end)?, clauses.get(end)?))) {
            Some((reachable, last)) => (reachable, Some(last)),
            None => (clauses, None),
        };
        let start = self.ops.len();
        let length: usize = clauses.iter().flat_map(|clause| &clause.groups).map(|group| group.tests.len()).sum();
        let too_long = |ops| CompileError::FilterTooLong { ops, limit: FILTER_OPS_MAX };
        if start + length + 1 > FILTER_OPS_MAX {
            return Err(too_long(start + length));
        }
        for clause in clauses {
            let clause_end = self.ops.len() + clause.groups.iter().map(|group| group.tests.len()).sum::<usize>();
            self.append_clause(clause, op(clause_end));
        }
        // The end is an op of its own, so that the op that decides always belongs to what decided.
        let default = otherwise.map_or(FilterNext::Allow, |clause| clause.verdict);
        let (on_match, on_miss, on_absent) = (default, default, default);
        self.ops.push(FilterOp { test: FilterTest::IpVersion(4), on_match, on_miss, on_absent });
        self.origins.push(otherwise.map_or(FilterOrigin::NoRule, |clause| clause.origin.clone()));
        Ok(op_index(start))
    }

    fn append_clause(&mut self, clause: &Clause, next_clause: FilterNext) {
        for (index, group) in clause.groups.iter().enumerate() {
            let group_end = self.ops.len() + group.tests.len();
            let holds = if index + 1 == clause.groups.len() { clause.verdict } else { op(group_end) };
            for (index, test) in group.tests.iter().enumerate() {
                let last = index + 1 == group.tests.len();
                let next_test = op(self.ops.len() + 1);
                let (on_match, on_miss, on_absent) = if group.negated {
                    (next_clause, if last { holds } else { next_test }, next_clause)
                } else {
                    let otherwise = if last { next_clause } else { next_test };
                    (holds, otherwise, otherwise)
                };
                self.ops.push(FilterOp { test: *test, on_match, on_miss, on_absent });
                self.origins.push(clause.origin.clone());
            }
        }
    }
}

/// Indices stay under [`FILTER_OPS_MAX`], which is checked before any is made.
fn op_index(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}

fn op(index: usize) -> FilterNext {
    FilterNext::Op(op_index(index))
}

/// The outcome of a filter for packets that carry these fields: what the tests of policies compare against.
#[cfg(test)]
pub(super) mod evaluate {
    use std::net::IpAddr;

    use super::*;

    /// The fields of a packet; `None` where it has none.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Fields {
        pub(crate) source: IpAddr,
        pub(crate) destination: IpAddr,
        pub(crate) ports: Option<(u16, u16)>,
        pub(crate) protocol: u8,
        pub(crate) icmp: Option<(u8, u8)>,
    }

    /// Runs the program as the datapath does. True: let through.
    pub(crate) fn allowed(ops: &[FilterOp], start: Option<u16>, packet: &Fields) -> bool {
        let Some(mut at) = start else { return true };
        loop {
            let op = ops[at as usize];
            let next = match test(op.test, packet) {
                Some(true) => op.on_match,
                Some(false) => op.on_miss,
                None => op.on_absent,
            };
            match next {
                FilterNext::Allow => return true,
                FilterNext::Deny => return false,
                FilterNext::Op(next) => {
                    assert!(next > at, "jumps go forward");
                    at = next;
                }
            }
        }
    }

    fn test(test: FilterTest, packet: &Fields) -> Option<bool> {
        Some(match test {
            FilterTest::Source(net) => net.contains(&packet.source),
            FilterTest::Destination(net) => net.contains(&packet.destination),
            FilterTest::SourcePort(first, last) => (first..=last).contains(&packet.ports?.0),
            FilterTest::DestinationPort(first, last) => (first..=last).contains(&packet.ports?.1),
            FilterTest::Protocol(protocol) => packet.protocol == protocol,
            FilterTest::IpVersion(version) => packet.source.is_ipv4() == (version == 4),
            FilterTest::Icmp { kind, code } => {
                let (k, c) = packet.icmp?;
                k == kind && code.is_none_or(|code| code == c)
            }
        })
    }
}
