//! Tiers and policies, in the order in which they are asked.

use std::cmp::Ordering;
use std::fmt;

use super::Direction;
use super::rule::Rule;
use crate::selector::Selector;

/// Policies that are asked together (`Tier`).
#[derive(Clone, Debug, PartialEq)]
pub struct Tier {
    /// Document name.
    pub name: String,
    /// Place among the tiers.
    pub order: f64,
    /// What becomes of a packet that the tier's policies apply to and leave undecided.
    pub default_action: TierAction,
    /// By order, then by name; staged ones among them.
    pub policies: Vec<Policy>,
}

/// What becomes of a packet that a tier's policies leave undecided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TierAction {
    /// It is dropped.
    Deny,
    /// The next tier is asked.
    Pass,
}

impl Tier {
    /// Admin policy of Kubernetes, before everything else.
    pub const KUBE_ADMIN: &'static str = "kube-admin";
    /// Where a policy is that names no tier.
    pub const DEFAULT: &'static str = "default";
    /// Baseline policy of Kubernetes, after everything else.
    pub const KUBE_BASELINE: &'static str = "kube-baseline";

    /// The tiers that are always there, empty.
    pub fn built_in() -> Vec<Self> {
        let tier = |name: &str, order, default_action| Self::new(name, order, default_action);
        vec![
            tier(Self::KUBE_ADMIN, 1_000.0, TierAction::Pass),
            tier(Self::DEFAULT, 1_000_000.0, TierAction::Deny),
            tier(Self::KUBE_BASELINE, 10_000_000.0, TierAction::Pass),
        ]
    }

    /// A tier without policies.
    pub fn new(name: &str, order: f64, default_action: TierAction) -> Self {
        Self { name: name.to_owned(), order, default_action, policies: Vec::new() }
    }

    /// Which of two tiers is asked first: by order, then by name.
    pub fn cmp_order(&self, other: &Self) -> Ordering {
        self.order.total_cmp(&other.order).then_with(|| self.name.cmp(&other.name))
    }
}

/// One policy of any kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Kind, namespace and name.
    pub id: PolicyId,
    /// Place among the policies of its tier; infinite where it has none.
    pub order: f64,
    /// Whether it decides, or only tells what it would decide.
    pub stage: Stage,
    /// Which packets it is asked about.
    pub scope: Scope,
    /// Endpoints that it applies to, by all labels that they have.
    pub selector: Selector,
    /// Rules for packets towards the endpoint; `None` where it does not apply to those.
    pub ingress: Option<Vec<Rule>>,
    /// Rules for packets from the endpoint; `None` where it does not apply to those.
    pub egress: Option<Vec<Rule>>,
}

impl Policy {
    /// The rules of a direction, if it applies to that.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// Which of two policies of a tier is asked first: by order, then by the text `name/namespace/kind`, as Calico does.
    pub fn cmp_order(&self, other: &Self) -> Ordering {
        self.order.total_cmp(&other.order).then_with(|| self.id.sort_key().cmp(&other.id.sort_key()))
    }
}

/// Whether a policy decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It does.
    Enforced,
    /// It would, in place of the enforced policy of its name.
    Set,
    /// It would take the enforced policy of its name away.
    Delete,
    /// It never would.
    Ignore,
}

/// Which packets a policy is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of workloads and of hosts themselves.
    Normal {
        /// Those that a host forwards, too.
        forward: bool,
    },
    /// Those of a host's interfaces, before connection tracking.
    Untracked,
    /// Those that come in by a host's interfaces, before destination NAT.
    PreDnat,
}

/// Kinds of policy, named as Calico names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyKind {
    /// Calico's, of a namespace.
    NetworkPolicy,
    /// Calico's, of no namespace.
    GlobalNetworkPolicy,
    /// A staged NetworkPolicy.
    StagedNetworkPolicy,
    /// A staged GlobalNetworkPolicy.
    StagedGlobalNetworkPolicy,
    /// A staged policy of Kubernetes.
    StagedKubernetesNetworkPolicy,
    /// Kubernetes', of a namespace.
    KubernetesNetworkPolicy,
    /// Kubernetes', of no namespace.
    KubernetesClusterNetworkPolicy,
}

impl PolicyKind {
    /// The kind that one of this kind becomes when it is committed.
    fn enforced(self) -> Self {
        match self {
            Self::StagedNetworkPolicy => Self::NetworkPolicy,
            Self::StagedGlobalNetworkPolicy => Self::GlobalNetworkPolicy,
            Self::StagedKubernetesNetworkPolicy => Self::KubernetesNetworkPolicy,
            kind => kind,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::GlobalNetworkPolicy => "GlobalNetworkPolicy",
            Self::StagedNetworkPolicy => "StagedNetworkPolicy",
            Self::StagedGlobalNetworkPolicy => "StagedGlobalNetworkPolicy",
            Self::StagedKubernetesNetworkPolicy => "StagedKubernetesNetworkPolicy",
            Self::KubernetesNetworkPolicy => "KubernetesNetworkPolicy",
            Self::KubernetesClusterNetworkPolicy => "KubernetesClusterNetworkPolicy",
        }
    }
}

/// Which policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyId {
    /// Kind.
    pub kind: PolicyKind,
    /// Namespace, of the kinds that live in one.
    pub namespace: Option<String>,
    /// Document name.
    pub name: String,
}

impl PolicyId {
    /// The policy that this one, staged, would make, replace or take away; itself where it is not staged.
    pub fn enforced(&self) -> Self {
        Self { kind: self.kind.enforced(), ..self.clone() }
    }

    fn sort_key(&self) -> String {
        format!("{}/{}/{}", self.name, self.namespace.as_deref().unwrap_or_default(), self.kind.name())
    }
}

impl fmt::Display for PolicyId {
    /// `NetworkPolicy prod/web`, `GlobalNetworkPolicy edge`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind.name(), self.name),
            None => write!(f, "{} {}", self.kind.name(), self.name),
        }
    }
}
