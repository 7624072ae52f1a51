//! Kubernetes' ClusterNetworkPolicy.
//!
//! A rule that says what cannot be evaluated (nodes, DNS names, named ports) fails closed, as in Calico: Deny and Pass become a
//! rule that denies everything, Accept is left out. It is told of.

use super::super::Item;
use super::super::check::Checker;
use super::super::diagnostic::Report;
use super::kubernetes::{Protocols, add_ports, combine, namespaces, pods};
use crate::desired::{PortRange, protocol};
use crate::document::Path;
use crate::policy::{Action, Entity, Policy, PolicyId, PolicyKind, Port, Rule, Scope, Stage, Tier};
use crate::resources::calico::PolicyType;
use crate::resources::kubernetes::{
    ClusterAction, ClusterEgressPeer, ClusterEgressRule, ClusterIngressRule, ClusterNetworkPolicySpec, ClusterPeer,
    ClusterPort, ClusterPorts, ClusterProtocol, ClusterTier,
};
use crate::selector::Selector;

/// Most peers of a rule, and most networks of a peer.
const MAX_PEERS: usize = 25;
/// Most rules of a direction.
const MAX_RULES: usize = 25;

/// What is said of a rule that cannot be evaluated.
struct Unevaluated {
    at: Path,
    what: &'static str,
}

/// ClusterNetworkPolicies, in Kubernetes' two tiers.
pub(super) fn policies(items: &[Item<ClusterNetworkPolicySpec>], tiers: &mut [Tier], report: &mut Report) {
    for item in items {
        let mut check = Checker { document: &item.document, report };
        let name = match item.spec.tier {
            ClusterTier::Admin => Tier::KUBE_ADMIN,
            ClusterTier::Baseline => Tier::KUBE_BASELINE,
        };
        let policy = policy(&item.spec, &mut check);
        if let Some(tier) = tiers.iter_mut().find(|tier| tier.name == name) {
            tier.policies.push(policy);
        }
    }
}

fn policy(spec: &ClusterNetworkPolicySpec, check: &mut Checker<'_>) -> Policy {
    let at = Path::spec();
    check.at_most(&at.key("ingress"), spec.ingress.len(), MAX_RULES, "rules");
    check.at_most(&at.key("egress"), spec.egress.len(), MAX_RULES, "rules");
    let ingress = spec.ingress.iter().enumerate();
    let ingress: Vec<Rule> =
        ingress.flat_map(|(i, rule)| ingress_rule(rule, &at.key("ingress").index(i), check)).collect();
    let egress = spec.egress.iter().enumerate();
    let egress: Vec<Rule> = egress.flat_map(|(i, rule)| egress_rule(rule, &at.key("egress").index(i), check)).collect();
    let name = check.document.name.clone();
    Policy {
        id: PolicyId { kind: PolicyKind::KubernetesClusterNetworkPolicy, namespace: None, name },
        order: f64::from(check.range(&at.key("priority"), spec.priority, 0, 1_000)),
        stage: Stage::Enforced,
        scope: Scope::Normal { forward: false },
        selector: subject(&spec.subject, &at.key("subject"), check),
        // Its tiers pass what no rule decides: a direction without rules is none.
        ingress: Some(ingress).filter(|rules| !rules.is_empty()),
        egress: Some(egress).filter(|rules| !rules.is_empty()),
    }
}

fn subject(spec: &ClusterPeer, at: &Path, check: &mut Checker<'_>) -> Selector {
    let pods_alone = pods(None, at, check);
    Selector::and([pods_alone, peer(spec, at, check)])
}

/// The pods that a peer stands for.
fn peer(spec: &ClusterPeer, at: &Path, check: &mut Checker<'_>) -> Selector {
    match (&spec.namespaces, &spec.pods) {
        (Some(of), None) => namespaces(of, &at.key("namespaces"), check),
        (None, Some(some)) => {
            let at = at.key("pods");
            let of = namespaces(&some.namespace_selector, &at.key("namespaceSelector"), check);
            Selector::and([of, pods(Some(&some.pod_selector), &at.key("podSelector"), check)])
        }
        _ => {
            check.error(at, "needs exactly one of namespaces and pods");
            super::rule::nothing()
        }
    }
}

fn ingress_rule(spec: &ClusterIngressRule, at: &Path, check: &mut Checker<'_>) -> Vec<Rule> {
    let from = at.key("from");
    count(spec.from.len(), &from, check);
    let peers = spec.from.iter().enumerate();
    let peers: Vec<Entity> = peers
        .map(|(i, spec)| Entity { selector: Some(peer(spec, &from.index(i), check)), ..Entity::default() })
        .collect();
    let protocols = protocols(&spec.protocols, &at.key("protocols"), check);
    lower(spec.action, protocols, Ok(peers), PolicyType::Ingress, check)
}

fn egress_rule(spec: &ClusterEgressRule, at: &Path, check: &mut Checker<'_>) -> Vec<Rule> {
    let to = at.key("to");
    count(spec.to.len(), &to, check);
    let peers = spec.to.iter().enumerate().map(|(i, spec)| egress_peer(spec, &to.index(i), check));
    let peers = peers.collect::<Result<Vec<Entity>, Unevaluated>>();
    let protocols = protocols(&spec.protocols, &at.key("protocols"), check);
    lower(spec.action, protocols, peers, PolicyType::Egress, check)
}

fn count(peers: usize, at: &Path, check: &mut Checker<'_>) {
    if peers == 0 {
        check.error_help(at, "needs at least one peer", "write namespaces: {} for all pods");
    }
    check.at_most(at, peers, MAX_PEERS, "peers");
}

fn egress_peer(spec: &ClusterEgressPeer, at: &Path, check: &mut Checker<'_>) -> Result<Entity, Unevaluated> {
    let given = [
        spec.namespaces.is_some(),
        spec.pods.is_some(),
        !spec.networks.is_empty(),
        spec.nodes.is_some(),
        !spec.domain_names.is_empty(),
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        check.error(at, "needs exactly one of namespaces, pods, networks, nodes and domainNames");
    } else if spec.nodes.is_some() {
        return Err(Unevaluated { at: at.key("nodes"), what: "nodes" });
    } else if !spec.domain_names.is_empty() {
        return Err(Unevaluated { at: at.key("domainNames"), what: "domainNames" });
    } else if !spec.networks.is_empty() {
        let at = at.key("networks");
        check.at_most(&at, spec.networks.len(), MAX_PEERS, "networks");
        let nets = spec.networks.iter().enumerate().map(|(i, net)| check.calico_prefix(&at.index(i), *net));
        return Ok(Entity { nets: nets.collect(), ..Entity::default() });
    }
    let pods = ClusterPeer { namespaces: spec.namespaces.clone(), pods: spec.pods.clone() };
    let selector =
        if given.iter().filter(|given| **given).count() == 1 { peer(&pods, at, check) } else { super::rule::nothing() };
    Ok(Entity { selector: Some(selector), ..Entity::default() })
}

fn lower(
    action: ClusterAction,
    protocols: Result<Protocols, Unevaluated>,
    peers: Result<Vec<Entity>, Unevaluated>,
    direction: PolicyType,
    check: &mut Checker<'_>,
) -> Vec<Rule> {
    let calico = match action {
        ClusterAction::Accept => Action::Allow,
        ClusterAction::Deny => Action::Deny,
        ClusterAction::Pass => Action::Pass,
    };
    match (protocols, peers) {
        (Ok(protocols), Ok(peers)) => combine(calico, &protocols, &peers, direction),
        (Err(problem), _) | (_, Err(problem)) => failed(action, &problem, check),
    }
}

/// What stands for a rule that cannot be evaluated.
fn failed(action: ClusterAction, problem: &Unevaluated, check: &mut Checker<'_>) -> Vec<Rule> {
    let (instead, rules) = match action {
        ClusterAction::Accept => ("the rule is left out", Vec::new()),
        ClusterAction::Deny | ClusterAction::Pass => ("the rule denies everything", vec![Rule::any(Action::Deny)]),
    };
    let message = format!("cannot be evaluated: {}; {instead}", problem.what);
    check.warning(&problem.at, message, None);
    rules
}

fn protocols(list: &[ClusterProtocol], at: &Path, check: &mut Checker<'_>) -> Result<Protocols, Unevaluated> {
    let mut protocols = Protocols::new();
    for (i, spec) in list.iter().enumerate() {
        let at = at.index(i);
        let carried = [
            ("tcp", protocol::TCP, &spec.tcp),
            ("udp", protocol::UDP, &spec.udp),
            ("sctp", protocol::SCTP, &spec.sctp),
        ];
        let given = carried.iter().filter(|(_, _, ports)| ports.is_some()).count();
        if given + usize::from(spec.destination_named_port.is_some()) != 1 {
            check.error(&at, "needs exactly one of tcp, udp, sctp and destinationNamedPort");
        } else if spec.destination_named_port.is_some() {
            return Err(Unevaluated { at: at.key("destinationNamedPort"), what: "destinationNamedPort" });
        }
        for (field, protocol, spec) in carried {
            let Some(ClusterPorts { destination_port }) = spec else { continue };
            let at = at.key(field).key("destinationPort");
            let range = destination_port.as_ref().map(|spec| vec![port_range(spec, &at, check)]);
            add_ports(&mut protocols, protocol, range.map(|ports| ports.into_iter().flatten().collect()));
        }
    }
    if protocols.is_empty() {
        protocols.insert(None, None);
    }
    Ok(protocols)
}

fn port_range(spec: &ClusterPort, at: &Path, check: &mut Checker<'_>) -> Option<Port> {
    let (first, last) = match (spec.number, spec.range) {
        (Some(number), None) => (number, number),
        (None, Some(range)) => (range.start, range.end),
        _ => {
            check.error(at, "needs exactly one of number and range");
            return None;
        }
    };
    if first == 0 || first > last {
        check.error(at, format!("ports are 1 to 65535, lowest first; these are {first} to {last}"));
        return None;
    }
    Some(Port::Range(PortRange { first, last }))
}
