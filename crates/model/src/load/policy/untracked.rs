//! The part of the model that the datapath enforces: untracked ingress policy of the tier `default`.

use std::cmp::Ordering;

use crate::desired::{self, EndpointInterface, HostEndpoint, Peers, PortRange, RuleAction};
use crate::policy::{Action, Endpoint, EndpointKind, Entity, HostInterface, Policies, Policy, Port, Rule, Scope, Tier};

/// The host endpoints of `node`, by name.
pub(in super::super) fn host_endpoints(policies: &Policies, node: &str) -> Vec<HostEndpoint> {
    let hosts = policies.endpoints.iter().filter(|endpoint| endpoint.node == node);
    hosts.filter_map(host_endpoint).collect()
}

fn host_endpoint(endpoint: &Endpoint) -> Option<HostEndpoint> {
    let EndpointKind::Host { interface, .. } = &endpoint.kind else { return None };
    let interface = match interface {
        HostInterface::Named(name) => EndpointInterface::Named(name.clone()),
        HostInterface::ByAddress => EndpointInterface::ByAddress(endpoint.addresses.clone()),
        HostInterface::All => return None,
    };
    Some(HostEndpoint { name: endpoint.name.clone(), interface, labels: endpoint.labels.clone() })
}

/// Untracked policies in the order of evaluation, each with those of `endpoints` that it selects.
pub(in super::super) fn policies(policies: &Policies, endpoints: &[HostEndpoint]) -> Vec<desired::Policy> {
    let default = policies.tiers.iter().filter(|tier| tier.name == Tier::DEFAULT);
    let mut untracked: Vec<&Policy> =
        default.flat_map(|tier| &tier.policies).filter(|policy| policy.scope == Scope::Untracked).collect();
    untracked.sort_by(|a, b| by_name(a, b));
    let selected = |policy: &Policy| {
        let picked = endpoints.iter().filter(|endpoint| policy.selector.matches(&endpoint.labels));
        picked.map(|endpoint| endpoint.name.clone()).collect()
    };
    let rules = |policy: &Policy| policy.ingress.iter().flatten().filter_map(rule).collect();
    untracked
        .into_iter()
        .map(|policy| desired::Policy {
            name: policy.id.name.clone(),
            endpoints: selected(policy),
            rules: rules(policy),
        })
        .collect()
}

fn by_name(a: &Policy, b: &Policy) -> Ordering {
    a.order.total_cmp(&b.order).then_with(|| a.id.name.cmp(&b.id.name))
}

/// A rule as it is enforced; `None` where it says more than is.
fn rule(rule: &Rule) -> Option<desired::Rule> {
    let action = match rule.action {
        Action::Allow => RuleAction::Allow,
        Action::Deny => RuleAction::Deny,
        Action::Pass => RuleAction::Pass,
        Action::Log => return None,
    };
    Some(desired::Rule {
        action,
        ip_version: rule.ip_version,
        protocol: rule.protocol,
        not_protocol: rule.not_protocol,
        icmp: rule.icmp,
        not_icmp: rule.not_icmp,
        source: peers(&rule.source)?,
        destination: peers(&rule.destination)?,
    })
}

fn peers(entity: &Entity) -> Option<Peers> {
    if entity.selector.is_some() || entity.not_selector.is_some() {
        return None;
    }
    Some(Peers {
        nets: entity.nets.clone(),
        not_nets: entity.not_nets.clone(),
        ports: ranges(&entity.ports)?,
        not_ports: ranges(&entity.not_ports)?,
    })
}

fn ranges(ports: &[Port]) -> Option<Vec<PortRange>> {
    let range = |port: &Port| match port {
        Port::Range(range) => Some(*range),
        Port::Named(_) => None,
    };
    ports.iter().map(range).collect()
}
