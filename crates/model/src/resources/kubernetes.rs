//! Kubernetes' own documents, as far as policy looks at them.
//!
//! Of a policy every field counts and an unknown one is an error. Pods, Namespaces and ServiceAccounts are written by others for
//! other purposes: what policy has no use for is read over.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::calico::PolicyType;
use super::common::{Address, Cidr, Document, Metadata, NumberOrText};

/// A policy document, with the status that an API server may have put there.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PolicyDocument<S> {
    /// API group and version.
    pub api_version: String,
    /// Kind of the resource.
    pub kind: String,
    /// Name, namespace, labels and annotations.
    pub metadata: Metadata,
    /// What is asked for.
    pub spec: S,
    /// Not looked at.
    #[serde(default)]
    pub status: Unread,
}

impl<S> Document for PolicyDocument<S> {
    type Spec = S;

    fn into_parts(self) -> (Metadata, S) {
        (self.metadata, self.spec)
    }
}

/// A document that is not about policy alone.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Object<S: Default, T: Default> {
    /// API group and version.
    pub api_version: String,
    /// Kind of the resource.
    pub kind: String,
    /// Name, namespace, labels and annotations.
    pub metadata: Metadata,
    /// What is asked for.
    #[serde(default)]
    pub spec: S,
    /// What there is.
    #[serde(default)]
    pub status: T,
}

impl<S: Default, T: Default> Document for Object<S, T> {
    type Spec = (S, T);

    fn into_parts(self) -> (Metadata, (S, T)) {
        (self.metadata, (self.spec, self.status))
    }
}

/// A mapping of which nothing is looked at.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct Unread {}

/// `Pod` (v1).
pub type Pod = Object<PodSpec, PodStatus>;
/// `Namespace` (v1) and `ServiceAccount` (v1): their metadata is all that counts.
pub type Labelled = Object<Unread, Unread>;

/// What policy looks at of a Pod's spec.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    /// Node that it runs on; without one it is no endpoint yet.
    pub node_name: Option<String>,
    /// It has its node's addresses and is no endpoint of its own.
    pub host_network: bool,
    /// Service account; `default` where absent.
    pub service_account_name: Option<String>,
    /// Its containers.
    pub containers: Vec<Container>,
    /// Those that run before them; one with restartPolicy Always runs on.
    pub init_containers: Vec<Container>,
}

/// What policy looks at of a container.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// Ports that it listens on.
    pub ports: Vec<ContainerPort>,
    /// Of an init container: `Always` where it runs on.
    pub restart_policy: Option<String>,
}

/// A port of a container.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// Name that policies refer to it by.
    pub name: Option<String>,
    /// Port.
    pub container_port: u16,
    /// TCP, UDP or SCTP; TCP where absent.
    pub protocol: Option<NumberOrText>,
}

/// What policy looks at of a Pod's status.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStatus {
    /// `Succeeded` and `Failed` pods have no addresses any more.
    pub phase: Option<String>,
    /// Address, where podIPs is absent.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// Addresses, at most one a family.
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<PodIp>,
}

/// An address of a Pod.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct PodIp {
    /// The address.
    pub ip: Address,
}

/// A label selector of Kubernetes: everything that is listed must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels with their values.
    pub match_labels: BTreeMap<String, String>,
    /// Further conditions.
    pub match_expressions: Vec<LabelRequirement>,
}

/// A condition on a label.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LabelRequirement {
    /// The label.
    pub key: String,
    /// What must hold.
    pub operator: LabelOperator,
    /// Values for In and NotIn.
    #[serde(default)]
    pub values: Vec<String>,
}

/// What must hold of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// It has one of the values.
    In,
    /// It has none of the values, or is absent.
    NotIn,
    /// It is there.
    Exists,
    /// It is absent.
    DoesNotExist,
}

/// `NetworkPolicy` (networking.k8s.io/v1).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct KubernetesNetworkPolicySpec {
    /// Pods of the namespace that it applies to; all where it is empty.
    pub pod_selector: LabelSelector,
    /// What is let in.
    pub ingress: Vec<IngressRule>,
    /// What is let out.
    pub egress: Vec<EgressRule>,
    /// Directions. Where absent: Ingress, and Egress where there are egress rules.
    pub policy_types: Vec<PolicyType>,
}

/// What is let in: from any of the peers to any of the ports.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct IngressRule {
    /// Ports; all where empty.
    pub ports: Vec<NetworkPolicyPort>,
    /// Sources; all where empty.
    pub from: Vec<NetworkPolicyPeer>,
}

/// What is let out: to any of the ports of any of the peers.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct EgressRule {
    /// Ports; all where empty.
    pub ports: Vec<NetworkPolicyPort>,
    /// Destinations; all where empty.
    pub to: Vec<NetworkPolicyPeer>,
}

/// Ports of one protocol.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct NetworkPolicyPort {
    /// TCP, UDP or SCTP; TCP where absent.
    pub protocol: Option<NumberOrText>,
    /// Number or name; all ports of the protocol where absent.
    pub port: Option<NumberOrText>,
    /// Last port of a range that begins with port.
    pub end_port: Option<u16>,
}

/// Pods, or addresses.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct NetworkPolicyPeer {
    /// Pods; those of the policy's own namespace where there is no namespaceSelector.
    pub pod_selector: Option<LabelSelector>,
    /// Namespaces of the pods.
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses; alone.
    pub ip_block: Option<IpBlock>,
}

/// A prefix without some of its parts.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IpBlock {
    /// The prefix.
    pub cidr: Cidr,
    /// Parts of it that are left out.
    #[serde(default)]
    pub except: Vec<Cidr>,
}

/// Tier of a ClusterNetworkPolicy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ClusterTier {
    /// Before all other policy: `kube-admin`.
    Admin,
    /// After all other policy: `kube-baseline`.
    Baseline,
}

/// `ClusterNetworkPolicy` (policy.networking.k8s.io/v1alpha2).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterNetworkPolicySpec {
    /// Before or after namespaced policy.
    pub tier: ClusterTier,
    /// Place in the tier, 0 to 1000, lowest first. Equal ones go by name.
    #[schemars(range(min = 0, max = 1000))]
    pub priority: i32,
    /// Pods that it applies to.
    pub subject: ClusterPeer,
    /// Rules for packets towards the pods, first match first.
    #[serde(default)]
    pub ingress: Vec<ClusterIngressRule>,
    /// Rules for packets from the pods, first match first.
    #[serde(default)]
    pub egress: Vec<ClusterEgressRule>,
}

/// Pods, by exactly one of these.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterPeer {
    /// All pods of these namespaces.
    pub namespaces: Option<LabelSelector>,
    /// Some pods of some namespaces.
    pub pods: Option<NamespacedPods>,
}

/// Some pods of some namespaces.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct NamespacedPods {
    /// Namespaces; all where it is empty.
    pub namespace_selector: LabelSelector,
    /// Pods in them; all where it is empty.
    pub pod_selector: LabelSelector,
}

/// Destinations, by exactly one of these.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterEgressPeer {
    /// All pods of these namespaces.
    pub namespaces: Option<LabelSelector>,
    /// Some pods of some namespaces.
    pub pods: Option<NamespacedPods>,
    /// Addresses.
    pub networks: Vec<Cidr>,
    /// Nodes. A rule that has them cannot be evaluated: see docs/policy.md.
    pub nodes: Option<LabelSelector>,
    /// DNS names. A rule that has them cannot be evaluated: see docs/policy.md.
    pub domain_names: Vec<String>,
}

/// Actions of a ClusterNetworkPolicy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ClusterAction {
    /// Let pass; no other policy is asked.
    Accept,
    /// Drop.
    Deny,
    /// Leave the tier.
    Pass,
}

/// A rule for packets towards the pods.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterIngressRule {
    /// Name; no effect.
    pub name: Option<String>,
    /// What happens to a packet that matches.
    pub action: ClusterAction,
    /// Sources; at least one.
    #[serde(default)]
    pub from: Vec<ClusterPeer>,
    /// Protocols and ports; all where empty.
    #[serde(default)]
    pub protocols: Vec<ClusterProtocol>,
}

/// A rule for packets from the pods.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterEgressRule {
    /// Name; no effect.
    pub name: Option<String>,
    /// What happens to a packet that matches.
    pub action: ClusterAction,
    /// Destinations; at least one.
    #[serde(default)]
    pub to: Vec<ClusterEgressPeer>,
    /// Protocols and ports; all where empty.
    #[serde(default)]
    pub protocols: Vec<ClusterProtocol>,
}

/// A protocol with ports, by exactly one of these.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterProtocol {
    /// TCP.
    pub tcp: Option<ClusterPorts>,
    /// UDP.
    pub udp: Option<ClusterPorts>,
    /// SCTP.
    pub sctp: Option<ClusterPorts>,
    /// A named port. A rule that has one cannot be evaluated: see docs/policy.md.
    pub destination_named_port: Option<String>,
}

/// Ports of a protocol.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterPorts {
    /// Ports; all where absent.
    pub destination_port: Option<ClusterPort>,
}

/// A port, or a range of them: one of the two.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterPort {
    /// A port.
    pub number: Option<u16>,
    /// Ports from start to end.
    pub range: Option<ClusterPortRange>,
}

/// Ports from `start` to `end`, both included.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterPortRange {
    /// Lowest port.
    pub start: u16,
    /// Highest port.
    pub end: u16,
}
