//! What policy applies to and what its selectors find: endpoints, network sets, profiles.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::rule::{Action, Rule};
use crate::desired::Failsafe;

/// Labels, by name.
pub type Labels = BTreeMap<String, String>;

/// A workload's interface, or one or all of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Workload or host.
    pub kind: EndpointKind,
    /// Name of its document.
    pub name: String,
    /// Node that it is on.
    pub node: String,
    /// Its addresses; of a host endpoint those that its document expects.
    pub addresses: Vec<IpAddr>,
    /// All labels that selectors see: its own, those that Calico gives it, and those of its profiles.
    pub labels: Labels,
    /// Names of profiles, in the order in which they are asked.
    pub profiles: Vec<String>,
    /// Ports that rules can name.
    pub ports: Vec<NamedPort>,
}

/// What an endpoint stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    /// A workload: a WorkloadEndpoint or a Pod.
    Workload {
        /// Its namespace.
        namespace: String,
    },
    /// A host's interface, or all of them: a HostEndpoint.
    Host {
        /// Which.
        interface: HostInterface,
        /// Ports of the node that its policy never closes.
        failsafe_inbound: Vec<Failsafe>,
        /// Ports elsewhere that its policy never closes.
        failsafe_outbound: Vec<Failsafe>,
    },
}

/// How a host endpoint finds its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostInterface {
    /// By name.
    Named(String),
    /// All that no other host endpoint stands for.
    All,
    /// The one that has one of its addresses.
    ByAddress,
}

impl Endpoint {
    /// Namespace of a workload.
    pub fn namespace(&self) -> Option<&str> {
        match &self.kind {
            EndpointKind::Workload { namespace } => Some(namespace),
            EndpointKind::Host { .. } => None,
        }
    }

    /// Whether it stands for all interfaces of a host.
    pub fn is_wildcard(&self) -> bool {
        matches!(self.kind, EndpointKind::Host { interface: HostInterface::All, .. })
    }
}

impl fmt::Display for Endpoint {
    /// `prod/web` for a workload, `uplink` for a host endpoint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace() {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A port that rules can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// Name.
    pub name: String,
    /// IP protocol number.
    pub protocol: u8,
    /// Port.
    pub port: u16,
}

/// Prefixes that selectors find by labels (`NetworkSet`, `GlobalNetworkSet`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSet {
    /// Namespace of a NetworkSet.
    pub namespace: Option<String>,
    /// Document name.
    pub name: String,
    /// All labels that selectors see.
    pub labels: Labels,
    /// The prefixes.
    pub nets: Vec<IpNet>,
}

/// What decides when no policy does (`Profile`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Rules for packets towards the endpoint.
    pub ingress: Vec<Rule>,
    /// Rules for packets from the endpoint.
    pub egress: Vec<Rule>,
    /// Labels of every endpoint that has it.
    pub labels: Labels,
}

impl Profile {
    /// A profile that lets everything pass.
    pub fn allow_all() -> Self {
        Self { ingress: vec![Rule::any(Action::Allow)], egress: vec![Rule::any(Action::Allow)], labels: Labels::new() }
    }
}
