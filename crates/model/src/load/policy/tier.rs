//! Tiers, and Calico's policies in them.

use std::collections::BTreeSet;

use super::super::Item;
use super::super::check::Checker;
use super::super::diagnostic::{Purpose, Report};
use super::rule::{NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX, given, nothing, rules, selector};
use crate::document::Path;
use crate::document::deserialize::one_of;
use crate::policy::{
    NAMESPACE_LABEL, Policy, PolicyId, PolicyKind, SERVICE_ACCOUNT_LABEL, Scope, Stage, Tier, TierAction,
};
use crate::resources::calico::{GlobalNetworkPolicySpec, PolicyType, RuleSpec};
use crate::resources::policy::{
    self as resource, NetworkPolicySpec, StagedAction, StagedGlobalNetworkPolicySpec, StagedNetworkPolicySpec, TierSpec,
};
use crate::selector::Selector;

/// Calico's tiers and those of the documents, in order and empty.
pub(super) fn tiers(items: &[Item<TierSpec>], report: &mut Report) -> Vec<Tier> {
    let mut tiers = Tier::built_in();
    for item in items {
        let mut check = Checker { document: &item.document, report };
        let tier = tier(item, &mut check);
        match tiers.iter().find(|built_in| built_in.name == tier.name) {
            Some(built_in) => protect(built_in, &tier, item, &mut check),
            None => tiers.push(tier),
        }
    }
    tiers.sort_by(Tier::cmp_order);
    tiers
}

fn tier(item: &Item<TierSpec>, check: &mut Checker<'_>) -> Tier {
    let name = &item.document.name;
    if name.contains('.') {
        check.error(&Path::default().key("metadata").key("name"), "the name of a tier has no dots");
    }
    let action = match item.spec.default_action {
        None | Some(resource::TierAction::Deny) => TierAction::Deny,
        Some(resource::TierAction::Pass) => TierAction::Pass,
    };
    Tier::new(name, order(item.spec.order, check), action)
}

/// Calico's own tiers can be written down, but not changed.
fn protect(built_in: &Tier, written: &Tier, item: &Item<TierSpec>, check: &mut Checker<'_>) {
    let at = Path::spec();
    if item.spec.order.is_some() && written.order.total_cmp(&built_in.order).is_ne() {
        check.error(&at.key("order"), format!("the order of tier {} is {}", built_in.name, built_in.order));
    }
    if item.spec.default_action.is_some() && written.default_action != built_in.default_action {
        let message = format!("the default action of tier {} is {:?}", built_in.name, built_in.default_action);
        check.error(&at.key("defaultAction"), message);
    }
}

/// A place in an order; behind all others where absent.
pub(super) fn order(order: Option<f64>, check: &mut Checker<'_>) -> f64 {
    let order = order.unwrap_or(f64::INFINITY);
    if order.is_nan() {
        check.error(&Path::spec().key("order"), "must be a number");
    }
    order
}

/// What Calico's four kinds of policy have in common.
pub(super) struct Written<'a> {
    kind: PolicyKind,
    tier: &'a Option<String>,
    order: Option<f64>,
    selector: &'a Option<String>,
    types: &'a [PolicyType],
    ingress: &'a [RuleSpec],
    egress: &'a [RuleSpec],
    service_account_selector: &'a Option<String>,
    namespace_selector: Option<&'a String>,
    do_not_track: bool,
    pre_dnat: bool,
    apply_on_forward: bool,
    staged: Option<StagedAction>,
}

impl<'a> From<&'a NetworkPolicySpec> for Written<'a> {
    fn from(spec: &'a NetworkPolicySpec) -> Self {
        Self {
            kind: PolicyKind::NetworkPolicy,
            tier: &spec.tier,
            order: spec.order,
            selector: &spec.selector,
            types: &spec.types,
            ingress: &spec.ingress,
            egress: &spec.egress,
            service_account_selector: &spec.service_account_selector,
            namespace_selector: None,
            do_not_track: false,
            pre_dnat: false,
            apply_on_forward: false,
            staged: None,
        }
    }
}

impl<'a> From<&'a StagedNetworkPolicySpec> for Written<'a> {
    fn from(spec: &'a StagedNetworkPolicySpec) -> Self {
        Self {
            kind: PolicyKind::StagedNetworkPolicy,
            tier: &spec.tier,
            order: spec.order,
            selector: &spec.selector,
            types: &spec.types,
            ingress: &spec.ingress,
            egress: &spec.egress,
            service_account_selector: &spec.service_account_selector,
            namespace_selector: None,
            do_not_track: false,
            pre_dnat: false,
            apply_on_forward: false,
            staged: Some(spec.staged_action.unwrap_or(StagedAction::Set)),
        }
    }
}

impl<'a> From<&'a GlobalNetworkPolicySpec> for Written<'a> {
    fn from(spec: &'a GlobalNetworkPolicySpec) -> Self {
        Self {
            kind: PolicyKind::GlobalNetworkPolicy,
            tier: &spec.tier,
            order: spec.order,
            selector: &spec.selector,
            types: &spec.types,
            ingress: &spec.ingress,
            egress: &spec.egress,
            service_account_selector: &spec.service_account_selector,
            namespace_selector: spec.namespace_selector.as_ref(),
            do_not_track: spec.do_not_track == Some(true),
            pre_dnat: spec.pre_dnat == Some(true),
            apply_on_forward: spec.apply_on_forward == Some(true),
            staged: None,
        }
    }
}

impl<'a> From<&'a StagedGlobalNetworkPolicySpec> for Written<'a> {
    fn from(spec: &'a StagedGlobalNetworkPolicySpec) -> Self {
        Self {
            kind: PolicyKind::StagedGlobalNetworkPolicy,
            tier: &spec.tier,
            order: spec.order,
            selector: &spec.selector,
            types: &spec.types,
            ingress: &spec.ingress,
            egress: &spec.egress,
            service_account_selector: &spec.service_account_selector,
            namespace_selector: spec.namespace_selector.as_ref(),
            do_not_track: spec.do_not_track == Some(true),
            pre_dnat: spec.pre_dnat == Some(true),
            apply_on_forward: spec.apply_on_forward == Some(true),
            staged: Some(spec.staged_action.unwrap_or(StagedAction::Set)),
        }
    }
}

/// Policies of one of Calico's kinds, put into their tiers. `known` are the names of all tiers, be they broken ones.
pub(super) fn add<'a, S: 'a>(items: &'a [Item<S>], tiers: &mut [Tier], known: &BTreeSet<&str>, report: &mut Report)
where
    Written<'a>: From<&'a S>,
{
    for item in items {
        let mut check = Checker { document: &item.document, report };
        let written = Written::from(&item.spec);
        let policy = policy(&written, item.document.namespace.as_deref(), &mut check);
        let name = given(written.tier).unwrap_or(Tier::DEFAULT);
        let at = Path::spec().key("tier");
        if name != Tier::DEFAULT {
            check.evaluated_only(&at, &format!("tier '{name}', any other than 'default'"));
        }
        match tiers.iter_mut().find(|tier| tier.name == name) {
            Some(tier) => tier.policies.push(policy),
            None if known.contains(name) || check.report.purpose == Purpose::Agent => {}
            None => {
                let names: Vec<&str> = known.iter().copied().collect();
                check.error_help(&at, format!("there is no Tier {name}"), one_of(name, &names));
            }
        }
    }
}

fn policy(spec: &Written<'_>, namespace: Option<&str>, check: &mut Checker<'_>) -> Policy {
    let at = Path::spec();
    let id = PolicyId { kind: spec.kind, namespace: namespace.map(str::to_owned), name: check.document.name.clone() };
    let scope = scope(spec, check);
    let stage = stage(spec, check);
    let (is_ingress, is_egress) = directions(spec, scope, check);
    let ingress = rules(spec.ingress, &at.key("ingress"), namespace, check);
    let egress = rules(spec.egress, &at.key("egress"), namespace, check);
    Policy {
        id,
        order: order(spec.order, check),
        stage,
        scope,
        selector: subject(spec, namespace, check),
        ingress: is_ingress.then_some(ingress),
        egress: is_egress.then_some(egress),
    }
}

fn stage(spec: &Written<'_>, check: &mut Checker<'_>) -> Stage {
    match spec.staged {
        None => Stage::Enforced,
        Some(StagedAction::Set | StagedAction::Learn) => Stage::Set,
        Some(StagedAction::Ignore) => Stage::Ignore,
        Some(StagedAction::Delete) => {
            if !spec.ingress.is_empty() || !spec.egress.is_empty() || given(spec.selector).is_some() {
                let help = "leave out all but stagedAction and tier";
                check.error_help(
                    &Path::spec().key("stagedAction"),
                    "Delete is of a policy that says nothing else",
                    help,
                );
            }
            Stage::Delete
        }
    }
}

/// Which packets it is for; untracked where anything else is an error.
fn scope(spec: &Written<'_>, check: &mut Checker<'_>) -> Scope {
    let at = Path::spec();
    if spec.do_not_track && spec.pre_dnat {
        check.error(&at.key("preDNAT"), "doNotTrack and preDNAT cannot both be true");
    } else if spec.pre_dnat {
        check.evaluated_only(&at.key("preDNAT"), "preDNAT policy");
    } else if !spec.do_not_track && check.report.purpose == Purpose::Agent {
        check.error_help(
            &at.key("doNotTrack"),
            "not enforced yet: tracked policy, which is what doNotTrack false or absent asks for",
            "write doNotTrack: true and applyOnForward: true where stateless rules will do",
        );
    }
    if (spec.do_not_track || spec.pre_dnat) && !spec.apply_on_forward {
        let flag = if spec.do_not_track { "doNotTrack" } else { "preDNAT" };
        let message = format!("{flag} requires applyOnForward: true");
        check.error(&at.key("applyOnForward"), message);
    }
    match (spec.do_not_track, spec.pre_dnat) {
        (true, _) => Scope::Untracked,
        (false, true) => Scope::PreDnat,
        (false, false) => Scope::Normal { forward: spec.apply_on_forward },
    }
}

/// Ingress and egress. Where types are absent, egress rules imply egress policy, and ingress policy is implied unless there are only those.
fn directions(spec: &Written<'_>, scope: Scope, check: &mut Checker<'_>) -> (bool, bool) {
    let at = Path::spec();
    for (i, kind) in spec.types.iter().enumerate() {
        let path = at.key("types").index(i);
        if *kind == PolicyType::Egress {
            check.evaluated_only(&path, "egress policy");
            if scope == Scope::PreDnat {
                check.error(&path, "preDNAT policy has no egress: it is for packets that come in");
            }
        }
        if spec.types.get(..i).unwrap_or_default().contains(kind) {
            check.error(&path, "is listed twice");
        }
    }
    if !spec.egress.is_empty() {
        check.evaluated_only(&at.key("egress"), "egress policy");
        if scope == Scope::PreDnat {
            check.error(&at.key("egress"), "preDNAT policy has no egress: it is for packets that come in");
        }
    }
    if spec.types.is_empty() {
        (!spec.ingress.is_empty() || spec.egress.is_empty(), !spec.egress.is_empty())
    } else {
        (spec.types.contains(&PolicyType::Ingress), spec.types.contains(&PolicyType::Egress))
    }
}

/// The endpoints that a policy applies to; none where a selector of it cannot be read.
fn subject(spec: &Written<'_>, namespace: Option<&str>, check: &mut Checker<'_>) -> Selector {
    let at = Path::spec();
    let mut parts = Vec::new();
    if let Some(text) = given(spec.selector) {
        parts.push(selector(text, &at.key("selector"), check).unwrap_or_else(nothing));
    }
    parts.extend(namespace.map(|namespace| Selector::equal(NAMESPACE_LABEL, namespace)));
    let parents = [
        ("namespaceSelector", spec.namespace_selector, NAMESPACE_PREFIX, NAMESPACE_LABEL),
        (
            "serviceAccountSelector",
            spec.service_account_selector.as_ref(),
            SERVICE_ACCOUNT_PREFIX,
            SERVICE_ACCOUNT_LABEL,
        ),
    ];
    for (field, text, prefix, member) in parents {
        let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
        check.evaluated_only(&at.key(field), &format!("{field}, a policy for workloads"));
        let parents = selector(text, &at.key(field), check);
        parts.push(parents.map_or_else(nothing, |parents| parents.of_parents(prefix, Some(member))));
    }
    Selector::and(parts)
}
