//! `projectcalico.org/v3`: the kinds of policy beside GlobalNetworkPolicy and HostEndpoint, with all of their fields.
//!
//! The agent refuses them as not enforced yet; `margay policy test` answers from them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::calico::{EndpointPort, PerformanceHint, PolicyType, RuleSpec};
use super::common::{Address, Cidr, NumberOrText};
use super::kubernetes::{EgressRule, IngressRule, LabelSelector};

/// What becomes of a packet that a tier's policies leave undecided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TierAction {
    /// Drop.
    Deny,
    /// Ask the next tier.
    Pass,
}

/// `Tier`: policies that are asked together.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TierSpec {
    /// Place among the tiers, lowest first; last where absent. Equal ones go by name.
    pub order: Option<f64>,
    /// What becomes of a packet that the tier's policies apply to and leave undecided; Deny where absent.
    pub default_action: Option<TierAction>,
}

/// `NetworkPolicy`: policy for the workloads of its namespace.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct NetworkPolicySpec {
    /// Tier; `default` where absent.
    pub tier: Option<String>,
    /// Place among the policies of its tier, lowest first; last where absent. Equal ones go by name.
    pub order: Option<f64>,
    /// Workloads of the namespace, by their labels; all where absent. At most 1024 characters.
    pub selector: Option<String>,
    /// Directions. Where absent: Egress when there are only egress rules, both when there are both, else Ingress.
    pub types: Vec<PolicyType>,
    /// Rules for packets towards the endpoint, first match first; at most 1024.
    pub ingress: Vec<RuleSpec>,
    /// Rules for packets from the endpoint, first match first; at most 1024.
    pub egress: Vec<RuleSpec>,
    /// Workloads by the labels of their service account.
    pub service_account_selector: Option<String>,
    /// Hints; they have no effect here.
    pub performance_hints: Vec<PerformanceHint>,
}

/// What a staged policy would do when it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum StagedAction {
    /// Make the policy of its name, or replace it.
    Set,
    /// Take away the policy of its name.
    Delete,
    /// As Set, while it is being learnt.
    Learn,
    /// Nothing.
    Ignore,
}

/// `StagedNetworkPolicy`: what a NetworkPolicy would decide.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct StagedNetworkPolicySpec {
    /// What it stands for; Set where absent.
    pub staged_action: Option<StagedAction>,
    /// As in NetworkPolicy.
    pub tier: Option<String>,
    /// As in NetworkPolicy.
    pub order: Option<f64>,
    /// As in NetworkPolicy.
    pub selector: Option<String>,
    /// As in NetworkPolicy.
    pub types: Vec<PolicyType>,
    /// As in NetworkPolicy.
    pub ingress: Vec<RuleSpec>,
    /// As in NetworkPolicy.
    pub egress: Vec<RuleSpec>,
    /// As in NetworkPolicy.
    pub service_account_selector: Option<String>,
    /// As in NetworkPolicy.
    pub performance_hints: Vec<PerformanceHint>,
}

/// `StagedGlobalNetworkPolicy`: what a GlobalNetworkPolicy would decide.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct StagedGlobalNetworkPolicySpec {
    /// What it stands for; Set where absent.
    pub staged_action: Option<StagedAction>,
    /// As in GlobalNetworkPolicy.
    pub tier: Option<String>,
    /// As in GlobalNetworkPolicy.
    pub order: Option<f64>,
    /// As in GlobalNetworkPolicy.
    pub selector: Option<String>,
    /// As in GlobalNetworkPolicy.
    pub types: Vec<PolicyType>,
    /// As in GlobalNetworkPolicy.
    pub ingress: Vec<RuleSpec>,
    /// As in GlobalNetworkPolicy.
    pub egress: Vec<RuleSpec>,
    /// As in GlobalNetworkPolicy.
    pub do_not_track: Option<bool>,
    /// As in GlobalNetworkPolicy.
    #[serde(rename = "preDNAT")]
    pub pre_dnat: Option<bool>,
    /// As in GlobalNetworkPolicy.
    pub apply_on_forward: Option<bool>,
    /// As in GlobalNetworkPolicy.
    pub namespace_selector: Option<String>,
    /// As in GlobalNetworkPolicy.
    pub service_account_selector: Option<String>,
    /// As in GlobalNetworkPolicy.
    pub performance_hints: Vec<PerformanceHint>,
}

/// `StagedKubernetesNetworkPolicy`: what a Kubernetes NetworkPolicy would decide.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct StagedKubernetesNetworkPolicySpec {
    /// What it stands for; Set where absent.
    pub staged_action: Option<StagedAction>,
    /// As in Kubernetes' NetworkPolicy.
    pub pod_selector: LabelSelector,
    /// As in Kubernetes' NetworkPolicy.
    pub ingress: Vec<IngressRule>,
    /// As in Kubernetes' NetworkPolicy.
    pub egress: Vec<EgressRule>,
    /// As in Kubernetes' NetworkPolicy.
    pub policy_types: Vec<PolicyType>,
}

/// `NetworkSet` and `GlobalNetworkSet`: prefixes that selectors find by the labels of the document.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct NetworkSetSpec {
    /// The prefixes.
    pub nets: Vec<Cidr>,
}

/// `Profile`: what decides about an endpoint's packets when no policy does, and labels that the endpoint gets.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ProfileSpec {
    /// Rules for packets towards the endpoint, first match first; at most 1024.
    pub ingress: Vec<RuleSpec>,
    /// Rules for packets from the endpoint, first match first; at most 1024.
    pub egress: Vec<RuleSpec>,
    /// Labels of every endpoint that has this profile.
    pub labels_to_apply: BTreeMap<String, String>,
}

/// `WorkloadEndpoint`: an interface of a container or virtual machine.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct WorkloadEndpointSpec {
    /// Node that it runs on; required.
    pub node: Option<String>,
    /// Who started it, as `k8s`; the label projectcalico.org/orchestrator.
    pub orchestrator: Option<String>,
    /// Name of the workload; no effect.
    pub workload: Option<String>,
    /// Name of its interface; no effect.
    pub endpoint: Option<String>,
    /// Container; no effect.
    #[serde(rename = "containerID")]
    pub container_id: Option<String>,
    /// Pod; no effect.
    pub pod: Option<String>,
    /// Service account; the label projectcalico.org/serviceaccount.
    pub service_account_name: Option<String>,
    /// Its addresses, as prefixes of one address.
    pub ip_networks: Vec<Cidr>,
    /// Addresses that are translated to its own; no effect on policy.
    #[serde(rename = "ipNATs")]
    pub ip_nats: Vec<IpNat>,
    /// Gateway; no effect on policy.
    pub ipv4_gateway: Option<Address>,
    /// Gateway; no effect on policy.
    pub ipv6_gateway: Option<Address>,
    /// Profiles, first match first.
    pub profiles: Vec<String>,
    /// Interface on the node, at most 15 bytes.
    pub interface_name: Option<String>,
    /// MAC address; no effect on policy.
    pub mac: Option<String>,
    /// Names for ports.
    pub ports: Vec<WorkloadPort>,
    /// Prefixes that it may send from beside its own addresses; no effect on policy.
    pub allow_spoofed_source_prefixes: Vec<Cidr>,
    /// Rate limits; no effect on policy.
    pub qos_controls: Option<QosControls>,
}

/// An address that is translated to another.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IpNat {
    /// The workload's own address.
    #[serde(rename = "internalIP")]
    pub internal_ip: Address,
    /// The address that others see.
    #[serde(rename = "externalIP")]
    pub external_ip: Address,
}

/// A port of a workload.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WorkloadPort {
    /// Name; a port without one is of no use to policy.
    pub name: Option<String>,
    /// TCP, UDP or SCTP.
    pub protocol: NumberOrText,
    /// Port.
    pub port: u16,
    /// Port of the node that leads here; no effect on policy.
    pub host_port: Option<u16>,
    /// Address of the node that hostPort is on; no effect on policy.
    #[serde(rename = "hostIP")]
    pub host_ip: Option<Address>,
}

impl From<&EndpointPort> for WorkloadPort {
    fn from(port: &EndpointPort) -> Self {
        let EndpointPort { name, protocol, port } = port.clone();
        Self { name: Some(name), protocol, port, host_port: None, host_ip: None }
    }
}

/// Rate limits of a workload; they have no effect on policy.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct QosControls {
    /// Bits per second towards it.
    pub ingress_bandwidth: Option<u64>,
    /// Bits per second from it.
    pub egress_bandwidth: Option<u64>,
    /// Bits of a burst towards it.
    pub ingress_burst: Option<u64>,
    /// Bits of a burst from it.
    pub egress_burst: Option<u64>,
    /// Bits per second within a burst towards it.
    pub ingress_peakrate: Option<u64>,
    /// Bits per second within a burst from it.
    pub egress_peakrate: Option<u64>,
    /// Bytes of the smallest burst towards it.
    pub ingress_minburst: Option<u64>,
    /// Bytes of the smallest burst from it.
    pub egress_minburst: Option<u64>,
    /// Packets per second towards it, 1 to 10000.
    pub ingress_packet_rate: Option<u32>,
    /// Packets per second from it, 1 to 10000.
    pub egress_packet_rate: Option<u32>,
    /// Packets of a burst towards it.
    pub ingress_packet_burst: Option<u32>,
    /// Packets of a burst from it.
    pub egress_packet_burst: Option<u32>,
    /// Connections towards it at a time.
    pub ingress_max_connections: Option<u32>,
    /// Connections from it at a time.
    pub egress_max_connections: Option<u32>,
    /// Differentiated services code point of its packets, a name or 0 to 63.
    pub dscp: Option<NumberOrText>,
}
