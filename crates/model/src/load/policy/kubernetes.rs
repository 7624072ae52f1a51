//! Kubernetes' NetworkPolicy and ClusterNetworkPolicy, as the policies of Calico's model that mean the same.
//!
//! A rule becomes one rule a protocol and peer. What Calico's conversion would drop or widen is an error here.

use std::collections::BTreeMap;

use super::super::Item;
use super::super::check::Checker;
use super::super::diagnostic::Report;
use super::rule::{NAMESPACE_PREFIX, nothing, port_match};
use crate::desired::PortRange;
use crate::document::Path;
use crate::policy::{
    Action, Entity, NAMESPACE_LABEL, ORCHESTRATOR_LABEL, Policy, PolicyId, PolicyKind, Port, Rule, Scope, Stage, Tier,
};
use crate::resources::calico::PolicyType;
use crate::resources::common::{Cidr, NumberOrText};
use crate::resources::kubernetes::{
    EgressRule, IngressRule, IpBlock, KubernetesNetworkPolicySpec, LabelOperator, LabelRequirement, LabelSelector,
    NetworkPolicyPeer, NetworkPolicyPort,
};
use crate::resources::policy::{StagedAction, StagedKubernetesNetworkPolicySpec};
use crate::selector::Selector;

/// Place of Kubernetes' policies in the default tier.
const ORDER: f64 = 1_000.0;

/// Ports of each protocol; `None` for all of them. Without a protocol: everything.
pub(super) type Protocols = BTreeMap<Option<u8>, Option<Vec<Port>>>;

/// NetworkPolicies of Kubernetes, in the default tier.
pub(super) fn policies(items: &[Item<KubernetesNetworkPolicySpec>], tiers: &mut [Tier], report: &mut Report) {
    for item in items {
        let mut check = Checker { document: &item.document, report };
        put(policy(&item.spec, PolicyKind::KubernetesNetworkPolicy, Stage::Enforced, &mut check), tiers);
    }
}

/// Staged ones.
pub(super) fn staged(items: &[Item<StagedKubernetesNetworkPolicySpec>], tiers: &mut [Tier], report: &mut Report) {
    for item in items {
        let mut check = Checker { document: &item.document, report };
        let StagedKubernetesNetworkPolicySpec { staged_action, pod_selector, ingress, egress, policy_types } =
            item.spec.clone();
        let stage = match staged_action {
            None | Some(StagedAction::Set | StagedAction::Learn) => Stage::Set,
            Some(StagedAction::Delete) => Stage::Delete,
            Some(StagedAction::Ignore) => Stage::Ignore,
        };
        let spec = KubernetesNetworkPolicySpec { pod_selector, ingress, egress, policy_types };
        put(policy(&spec, PolicyKind::StagedKubernetesNetworkPolicy, stage, &mut check), tiers);
    }
}

fn put(policy: Policy, tiers: &mut [Tier]) {
    if let Some(tier) = tiers.iter_mut().find(|tier| tier.name == Tier::DEFAULT) {
        tier.policies.push(policy);
    }
}

fn policy(spec: &KubernetesNetworkPolicySpec, kind: PolicyKind, stage: Stage, check: &mut Checker<'_>) -> Policy {
    let at = Path::spec();
    let namespace = check.document.namespace.clone().unwrap_or_default();
    let ingress = |(i, rule): (usize, &IngressRule), check: &mut Checker<'_>| {
        let at = at.key("ingress").index(i);
        let protocols = protocols(&rule.ports, &at.key("ports"), check);
        allow(&protocols, peers(&rule.from, &at.key("from"), &namespace, check), PolicyType::Ingress)
    };
    let egress = |(i, rule): (usize, &EgressRule), check: &mut Checker<'_>| {
        let at = at.key("egress").index(i);
        let protocols = protocols(&rule.ports, &at.key("ports"), check);
        allow(&protocols, peers(&rule.to, &at.key("to"), &namespace, check), PolicyType::Egress)
    };
    let ingress: Vec<Rule> = spec.ingress.iter().enumerate().flat_map(|rule| ingress(rule, check)).collect();
    let egress: Vec<Rule> = spec.egress.iter().enumerate().flat_map(|rule| egress(rule, check)).collect();
    let (is_ingress, is_egress) = directions(spec, check);
    let pods = pods(Some(&spec.pod_selector), &at.key("podSelector"), check);
    Policy {
        id: PolicyId { kind, namespace: Some(namespace.clone()), name: check.document.name.clone() },
        order: ORDER,
        stage,
        scope: Scope::Normal { forward: false },
        selector: Selector::and([Selector::equal(NAMESPACE_LABEL, &namespace), pods]),
        ingress: is_ingress.then_some(ingress),
        egress: is_egress.then_some(egress),
    }
}

/// Where policyTypes is absent, as Kubernetes' API server fills it in: Ingress, and Egress where there are egress rules.
fn directions(spec: &KubernetesNetworkPolicySpec, check: &mut Checker<'_>) -> (bool, bool) {
    let at = Path::spec().key("policyTypes");
    for (i, kind) in spec.policy_types.iter().enumerate() {
        if spec.policy_types.get(..i).unwrap_or_default().contains(kind) {
            check.error(&at.index(i), "is listed twice");
        }
    }
    if spec.policy_types.is_empty() {
        return (true, !spec.egress.is_empty());
    }
    let has = |kind: PolicyType| spec.policy_types.contains(&kind);
    for (kind, field, empty) in [
        (PolicyType::Ingress, "ingress", spec.ingress.is_empty()),
        (PolicyType::Egress, "egress", spec.egress.is_empty()),
    ] {
        if !has(kind) && !empty {
            let help = format!("add {kind:?} to policyTypes, or take the rules away");
            check.warning(
                &Path::spec().key(field),
                format!("is of no effect without policyTypes {kind:?}"),
                Some(help),
            );
        }
    }
    (has(PolicyType::Ingress), has(PolicyType::Egress))
}

/// One rule a protocol and peer, by the protocols' names.
fn allow(protocols: &Protocols, peers: Vec<Entity>, direction: PolicyType) -> Vec<Rule> {
    combine(Action::Allow, protocols, &peers, direction)
}

/// The rules that a list of peers and one of protocols stand for together.
pub(super) fn combine(action: Action, protocols: &Protocols, peers: &[Entity], direction: PolicyType) -> Vec<Rule> {
    let rule = |protocol: Option<u8>, ports: &Option<Vec<Port>>, peer: &Entity| {
        let ports = ports.clone().unwrap_or_default();
        let (source, destination) = match direction {
            PolicyType::Ingress => (peer.clone(), Entity { ports, ..Entity::default() }),
            PolicyType::Egress => (Entity::default(), Entity { ports, ..peer.clone() }),
        };
        Rule { protocol, source, destination, ..Rule::any(action) }
    };
    protocols.iter().flat_map(|(protocol, ports)| peers.iter().map(move |peer| rule(*protocol, ports, peer))).collect()
}

fn protocols(list: &[NetworkPolicyPort], at: &Path, check: &mut Checker<'_>) -> Protocols {
    let mut protocols = Protocols::new();
    for (i, port) in list.iter().enumerate() {
        let at = at.index(i);
        let name = port.protocol.clone().unwrap_or_else(|| NumberOrText::Text("TCP".to_owned()));
        let Some(protocol) = check.transport(&at.key("protocol"), &name) else { continue };
        add_ports(&mut protocols, protocol, ports(port, &at, check));
    }
    if protocols.is_empty() {
        protocols.insert(None, None);
    }
    protocols
}

/// Adds ports of a protocol, or all of them.
pub(super) fn add_ports(protocols: &mut Protocols, protocol: u8, ports: Option<Vec<Port>>) {
    let entry = protocols.entry(Some(protocol)).or_insert_with(|| Some(Vec::new()));
    match (entry.as_mut(), ports) {
        (Some(known), Some(more)) => known.extend(more),
        _ => *entry = None,
    }
}

/// The ports that one element stands for; `None` for all. One that cannot be read stands for none.
fn ports(spec: &NetworkPolicyPort, at: &Path, check: &mut Checker<'_>) -> Option<Vec<Port>> {
    let Some(port) = &spec.port else {
        if spec.end_port.is_some() {
            check.error(&at.key("endPort"), "endPort needs a port to begin with");
        }
        return None;
    };
    let first = port_match(port, &at.key("port"), check);
    let end = at.key("endPort");
    Some(match (first, spec.end_port) {
        (Some(Port::Range(range)), Some(last)) if range.first <= last => {
            vec![Port::Range(PortRange { first: range.first, last })]
        }
        (Some(Port::Range(range)), Some(last)) => {
            check.error(&end, format!("the range begins behind its end: {} > {last}", range.first));
            Vec::new()
        }
        (Some(Port::Named(name)), Some(_)) => {
            check.error(&end, format!("endPort needs a number to begin with, and port is the name '{name}'"));
            Vec::new()
        }
        (Some(port), None) => vec![port],
        (None, _) => Vec::new(),
    })
}

/// The ends that a list of peers stands for; any where it is empty.
fn peers(list: &[NetworkPolicyPeer], at: &Path, namespace: &str, check: &mut Checker<'_>) -> Vec<Entity> {
    if list.is_empty() {
        return vec![Entity::default()];
    }
    list.iter().enumerate().map(|(i, spec)| peer(spec, &at.index(i), namespace, check)).collect()
}

fn peer(spec: &NetworkPolicyPeer, at: &Path, namespace: &str, check: &mut Checker<'_>) -> Entity {
    let selects = spec.pod_selector.is_some() || spec.namespace_selector.is_some();
    match &spec.ip_block {
        Some(block) => {
            if selects {
                check.error(&at.key("ipBlock"), "ipBlock cannot stand beside podSelector or namespaceSelector");
            }
            ip_block(block, &at.key("ipBlock"), check)
        }
        None => {
            if !selects {
                check.error_help(
                    at,
                    "a peer needs podSelector, namespaceSelector or ipBlock",
                    "write podSelector: {} for all pods of the namespace",
                );
            }
            let own = || Selector::equal(NAMESPACE_LABEL, namespace);
            let of = spec.namespace_selector.as_ref();
            let of = of.map_or_else(own, |of| namespaces(of, &at.key("namespaceSelector"), check));
            let pods = pods(spec.pod_selector.as_ref(), &at.key("podSelector"), check);
            Entity { selector: Some(Selector::and([of, pods])), ..Entity::default() }
        }
    }
}

fn ip_block(block: &IpBlock, at: &Path, check: &mut Checker<'_>) -> Entity {
    let net = check.calico_prefix(&at.key("cidr"), block.cidr);
    for (i, Cidr(except)) in block.except.iter().enumerate() {
        if !net.contains(except) || *except == net {
            let message = format!("{except} is not a part of {net}");
            check.error(&at.key("except").index(i), message);
        }
    }
    let except = block.except.iter().enumerate();
    let not_nets = except.map(|(i, net)| check.calico_prefix(&at.key("except").index(i), *net)).collect();
    Entity { nets: vec![net], not_nets, ..Entity::default() }
}

/// Pods by their own labels.
pub(super) fn pods(selector: Option<&LabelSelector>, at: &Path, check: &mut Checker<'_>) -> Selector {
    let pod = Selector::equal(ORCHESTRATOR_LABEL, "k8s");
    let labels = selector.map(|selector| label_selector(selector, at, check));
    Selector::and([pod].into_iter().chain(labels))
}

/// What is in namespaces that have labels.
pub(super) fn namespaces(selector: &LabelSelector, at: &Path, check: &mut Checker<'_>) -> Selector {
    let labels = label_selector(selector, at, check).of_parents(NAMESPACE_PREFIX, None);
    // Without this, a namespace without a label could not be told from what is in no namespace.
    Selector::and([Selector::has(NAMESPACE_LABEL), labels])
}

fn label_selector(spec: &LabelSelector, at: &Path, check: &mut Checker<'_>) -> Selector {
    let labels = spec.match_labels.iter().map(|(label, value)| Selector::equal(label, value));
    let requirements = spec.match_expressions.iter().enumerate();
    let at = at.key("matchExpressions");
    let requirements = requirements.map(|(i, requirement)| label_requirement(requirement, &at.index(i), check));
    Selector::and(labels.chain(requirements))
}

fn label_requirement(spec: &LabelRequirement, at: &Path, check: &mut Checker<'_>) -> Selector {
    let wants_values = matches!(spec.operator, LabelOperator::In | LabelOperator::NotIn);
    if spec.key.is_empty() {
        check.error(&at.key("key"), "must not be empty");
        return nothing();
    }
    if wants_values == spec.values.is_empty() {
        let message = if wants_values { "needs values" } else { "takes no values" };
        check.error(&at.key("values"), format!("{:?} {message}", spec.operator));
        return nothing();
    }
    let values = spec.values.iter().cloned();
    match spec.operator {
        LabelOperator::In => Selector::one_of(&spec.key, values),
        LabelOperator::NotIn => Selector::one_of(&spec.key, values).negated(),
        LabelOperator::Exists => Selector::has(&spec.key),
        LabelOperator::DoesNotExist => Selector::has(&spec.key).negated(),
    }
}
