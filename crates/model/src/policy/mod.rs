//! Calico's and Kubernetes' policy as a model of its own, and what it says about a packet.
//!
//! ```text
//! documents -> load -> Policies: tiers -> policies -> rules, profiles, endpoints, network sets
//!                                └ decide(): one endpoint, one pipeline, one packet -> verdict and what decided
//!                                  └ judge(): the whole way of a flow, end to end
//! ```
//! Nothing is compiled: rules are walked as they are written, and selectors are asked about labels, so that the answer is the
//! measure for everything that is faster. What the kernel enforces is another matter, and `load` refuses more for the agent.

mod endpoint;
mod evaluate;
mod expect;
mod flow;
mod index;
mod rule;
mod tier;

pub use endpoint::{Endpoint, EndpointKind, HostInterface, Labels, NamedPort, NetworkSet, Profile};
pub use evaluate::{Decision, Direction, Packet, Pipeline, Question, Reason, RuleRef, StagedDecision, Verdict};
pub use expect::{Expectation, Expected};
pub use flow::{EndpointToHost, Flow, Judgement, Step};
pub use index::{Change, SelectorIndex};
pub use rule::{Action, Entity, Port, Rule};
pub use tier::{Policy, PolicyId, PolicyKind, Scope, Stage, Tier, TierAction};

use std::collections::BTreeMap;

/// The profile that allows everything, which Calico always has.
pub const ALLOW_PROFILE: &str = "projectcalico-default-allow";
/// Label with the namespace of everything that is in one.
pub const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
/// Label with what started a workload: `k8s` for Pods.
pub const ORCHESTRATOR_LABEL: &str = "projectcalico.org/orchestrator";
/// Label with a workload's service account.
pub const SERVICE_ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";

/// All policy there is, for all nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Policies {
    /// In the order in which they are asked.
    pub tiers: Vec<Tier>,
    /// By name.
    pub profiles: BTreeMap<String, Profile>,
    /// Workload and host endpoints, by kind, namespace and name.
    pub endpoints: Vec<Endpoint>,
    /// Network sets, by namespace and name.
    pub sets: Vec<NetworkSet>,
}

impl Default for Policies {
    /// What Calico has when nothing is written: its own tiers and the profile that allows everything.
    fn default() -> Self {
        Self {
            tiers: Tier::built_in(),
            profiles: BTreeMap::from([(ALLOW_PROFILE.to_owned(), Profile::allow_all())]),
            endpoints: Vec::new(),
            sets: Vec::new(),
        }
    }
}

impl Policies {
    /// The workload `name` in `namespace`.
    pub fn workload(&self, namespace: &str, name: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.name == name && endpoint.namespace() == Some(namespace))
    }

    /// The host endpoint `name`.
    pub fn host(&self, name: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.name == name && endpoint.namespace().is_none())
    }
}
