//! `projectcalico.org/v3`: Calico's kinds with all of their fields.
//!
//! Every field of Calico's is here, enforced or not: a field that margay does not enforce is told from one that nobody knows.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::common::{Address, Cidr, Duration, NumberOrText};

/// Traffic directions of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum PolicyType {
    /// Towards the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

/// Actions of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Action {
    /// Accept.
    Allow,
    /// Drop.
    Deny,
    /// Write a log line and go on. Not enforced yet.
    Log,
    /// Leave the tier.
    Pass,
}

/// `GlobalNetworkPolicy`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct GlobalNetworkPolicySpec {
    /// Tier; `default` where absent. No other is enforced yet.
    pub tier: Option<String>,
    /// Place among the policies of its tier, lowest first; last where absent. Equal ones go by name.
    pub order: Option<f64>,
    /// Endpoints it applies to, by their labels; all where absent. At most 1024 characters.
    pub selector: Option<String>,
    /// Directions. Where absent: Egress when there are only egress rules, both when there are both, else Ingress.
    pub types: Vec<PolicyType>,
    /// Rules for packets towards the endpoint, first match first; at most 1024.
    pub ingress: Vec<RuleSpec>,
    /// Rules for packets from the endpoint. Not enforced yet.
    pub egress: Vec<RuleSpec>,
    /// Applied before connection tracking. Untracked policy is the only one enforced so far.
    pub do_not_track: Option<bool>,
    /// Applied before destination NAT. Not enforced yet.
    #[serde(rename = "preDNAT")]
    pub pre_dnat: Option<bool>,
    /// Applied to forwarded packets too; required with doNotTrack.
    pub apply_on_forward: Option<bool>,
    /// Namespaces of the workloads it applies to. Not enforced yet.
    pub namespace_selector: Option<String>,
    /// Service accounts of the workloads it applies to. Not enforced yet.
    pub service_account_selector: Option<String>,
    /// Hints; `AssumeNeededOnEveryNode` is the only one, and is always so here.
    pub performance_hints: Vec<PerformanceHint>,
}

/// Hints about where a policy is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum PerformanceHint {
    /// Keep it ready on every node, whatever endpoints are there.
    AssumeNeededOnEveryNode,
}

/// A rule: the conjunction of what is set.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RuleSpec {
    /// What happens to a packet that matches.
    pub action: Action,
    /// 4 or 6.
    #[serde(rename = "ipVersion")]
    #[schemars(range(min = 4, max = 6))]
    pub ip_version: Option<u8>,
    /// TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite, or a number from 1 to 255.
    pub protocol: Option<NumberOrText>,
    /// ICMP type and code; needs protocol ICMP or ICMPv6.
    pub icmp: Option<IcmpSpec>,
    /// Any protocol but this.
    pub not_protocol: Option<NumberOrText>,
    /// Any ICMP type and code but these; needs protocol ICMP or ICMPv6.
    #[serde(rename = "notICMP")]
    pub not_icmp: Option<IcmpSpec>,
    /// The packet's source.
    #[serde(default)]
    pub source: EntityRule,
    /// The packet's destination.
    #[serde(default)]
    pub destination: EntityRule,
    /// HTTP requests. Not enforced yet.
    pub http: Option<HttpMatch>,
    /// Annotations of the rule.
    pub metadata: Option<RuleMetadata>,
}

/// ICMP type and code.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IcmpSpec {
    /// 0 to 254.
    #[serde(rename = "type")]
    #[schemars(range(min = 0, max = 254))]
    pub kind: Option<u8>,
    /// 0 to 255; needs a type.
    pub code: Option<u8>,
}

/// One end of a packet.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct EntityRule {
    /// Address in one of these; at most 256.
    pub nets: Vec<Cidr>,
    /// Address in none of these; at most 256.
    pub not_nets: Vec<Cidr>,
    /// Endpoints and network sets by their labels. Not enforced yet.
    pub selector: Option<String>,
    /// Endpoints and network sets that the address does not belong to. Not enforced yet.
    pub not_selector: Option<String>,
    /// Namespaces of the selected endpoints. Not enforced yet.
    pub namespace_selector: Option<String>,
    /// A Kubernetes service. Not enforced yet.
    pub services: Option<ServiceMatch>,
    /// Ports: numbers, ranges "a:b"; named ports are not enforced yet. At most 50; needs protocol TCP, UDP or SCTP.
    pub ports: Vec<NumberOrText>,
    /// Any port but these, in the same forms.
    pub not_ports: Vec<NumberOrText>,
    /// Kubernetes service accounts. Not enforced yet.
    pub service_accounts: Option<ServiceAccountMatch>,
}

/// A Kubernetes service.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ServiceMatch {
    /// Name.
    pub name: Option<String>,
    /// Namespace.
    pub namespace: Option<String>,
}

/// Kubernetes service accounts.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ServiceAccountMatch {
    /// By name.
    pub names: Vec<String>,
    /// By label.
    pub selector: Option<String>,
}

/// HTTP requests.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpMatch {
    /// Methods.
    pub methods: Vec<String>,
    /// Paths.
    pub paths: Vec<HttpPath>,
}

/// A path of an HTTP request.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpPath {
    /// The whole path.
    pub exact: Option<String>,
    /// How it begins.
    pub prefix: Option<String>,
}

/// Annotations of a rule; they have no effect.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RuleMetadata {
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
}

/// `HostEndpoint`: an interface of a node as policy sees it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct HostEndpointSpec {
    /// Name of the node. Those of other nodes are left alone.
    pub node: Option<String>,
    /// Interface, at most 15 bytes. `*` is not enforced yet.
    pub interface_name: Option<String>,
    /// Where there is no interfaceName: the interface that has one of these addresses.
    #[serde(rename = "expectedIPs")]
    pub expected_ips: Vec<Address>,
    /// Must be `projectcalico-default-allow` alone.
    pub profiles: Vec<String>,
    /// Names for ports. Not enforced yet.
    pub ports: Vec<EndpointPort>,
}

/// A named port of an endpoint.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EndpointPort {
    /// Name.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: NumberOrText,
    /// Port.
    pub port: u16,
}

/// A key of a Kubernetes secret.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct BgpPassword {
    /// Where the password is. Not enforced yet.
    pub secret_key_ref: Option<SecretKeyRef>,
}

/// Which key of which secret.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Secret.
    pub name: Option<String>,
    /// Key in it.
    pub key: Option<String>,
    /// The secret may be missing.
    pub optional: Option<bool>,
}

/// A CIDR in a list of Calico's.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServiceIpBlock {
    /// The prefix.
    pub cidr: Cidr,
}

/// A community with a name.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NamedCommunity {
    /// Name that prefixAdvertisements refer to.
    pub name: String,
    /// `aa:nn` (RFC 1997) or `aa:nn:mm` (RFC 8092).
    pub value: String,
}

/// Communities of the announced prefixes in a CIDR.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PrefixAdvertisement {
    /// Which prefixes.
    pub cidr: Cidr,
    /// Names of communities, or their values.
    #[serde(default)]
    pub communities: Vec<String>,
}

/// Which addresses sessions are accepted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum BindMode {
    /// All.
    None,
    /// The node's own. Not enforced yet.
    NodeIP,
}

/// How load balancer addresses are announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum LoadBalancerAggregation {
    /// Whole ranges.
    Enabled,
    /// Address by address. Not enforced yet.
    Disabled,
}

/// `BGPConfiguration`: `default` for all nodes, `node.<name>` on top of it for one.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct BgpConfigurationSpec {
    /// Log level. Only `Info`, which is Calico's default, is taken: margay logs as its environment says.
    pub log_severity_screen: Option<String>,
    /// Sessions between all nodes. Only `false` for now, which is also the default here.
    pub node_to_node_mesh_enabled: Option<bool>,
    /// Autonomous system of the node, a number or `a.b`; 64512 where absent.
    pub as_number: Option<NumberOrText>,
    /// TCP port on which sessions are accepted; 179 where absent.
    #[schemars(range(min = 1, max = 65535))]
    pub listen_port: Option<u16>,
    /// Which addresses to listen on. Only `None`, all of them, is enforced.
    pub bind_mode: Option<BindMode>,
    /// Communities with names, which prefixAdvertisements refer to.
    pub communities: Vec<NamedCommunity>,
    /// Communities to announce prefixes with.
    pub prefix_advertisements: Vec<PrefixAdvertisement>,
    /// Announced as they stand.
    #[serde(rename = "serviceClusterIPs")]
    pub service_cluster_ips: Vec<ServiceIpBlock>,
    /// Announced as they stand.
    #[serde(rename = "serviceExternalIPs")]
    pub service_external_ips: Vec<ServiceIpBlock>,
    /// Announced as they stand.
    #[serde(rename = "serviceLoadBalancerIPs")]
    pub service_load_balancer_ips: Vec<ServiceIpBlock>,
    /// How load balancer addresses are announced. Only `Enabled`, whole ranges, is enforced.
    pub service_load_balancer_aggregation: Option<LoadBalancerAggregation>,
    /// Password of the mesh. Not enforced yet.
    pub node_mesh_password: Option<BgpPassword>,
    /// Restart time in the mesh. Not enforced yet.
    pub node_mesh_max_restart_time: Option<Duration>,
    /// Interfaces whose prefixes are not looked at. Not enforced yet.
    pub ignored_interfaces: Vec<String>,
    /// Address that workloads peer with. Not enforced yet.
    #[serde(rename = "localWorkloadPeeringIPV4")]
    pub local_workload_peering_ipv4: Option<String>,
    /// Address that workloads peer with. Not enforced yet.
    #[serde(rename = "localWorkloadPeeringIPV6")]
    pub local_workload_peering_ipv6: Option<String>,
    /// Who programs the routes between nodes. Not enforced yet.
    pub program_cluster_routes: Option<String>,
    /// Kernel priority of routes. Not enforced yet.
    #[serde(rename = "ipv4NormalRoutePriority")]
    pub ipv4_normal_route_priority: Option<i32>,
    /// Kernel priority of routes. Not enforced yet.
    #[serde(rename = "ipv6NormalRoutePriority")]
    pub ipv6_normal_route_priority: Option<i32>,
}

/// Local address of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum SourceAddress {
    /// The Node's `spec.encap.sourceIPv4` or `sourceIPv6`.
    #[serde(rename = "UseNodeIP")]
    UseNodeIp,
    /// As the kernel chooses.
    None,
}

/// Next hop of announcements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum NextHopMode {
    /// As the kind of session has it.
    Auto,
    /// Always this node. Not enforced yet.
    #[serde(rename = "Self")]
    Own,
    /// Always the original one. Not enforced yet.
    Keep,
}

/// Whether nodes that a peerSelector picks peer back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ReversePeering {
    /// By themselves.
    Auto,
    /// Where another BGPPeer says so.
    Manual,
}

/// `BGPPeer`: a neighbour of some or all nodes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct BgpPeerSpec {
    /// The node that has this peer; all nodes where neither this nor nodeSelector is set.
    pub node: Option<String>,
    /// The nodes that have this peer, by their labels.
    pub node_selector: Option<String>,
    /// Address, or address and port: `192.0.2.1`, `192.0.2.1:1790`, `[2001:db8::1]:1790`; a link-local one with its interface:
    /// `fe80::1%eth0`.
    #[serde(rename = "peerIP")]
    pub peer_ip: Option<String>,
    /// Nodes to peer with. Not enforced yet.
    pub peer_selector: Option<String>,
    /// Workloads to peer with. Not enforced yet.
    pub local_workload_selector: Option<String>,
    /// Autonomous system of the peer, a number or `a.b`.
    pub as_number: Option<NumberOrText>,
    /// Another autonomous system to show to this peer. Not enforced yet.
    #[serde(rename = "localASNumber")]
    pub local_as_number: Option<NumberOrText>,
    /// Next hop of announcements. Only `Auto` is enforced.
    pub next_hop_mode: Option<NextHopMode>,
    /// Announce the original next hop. Not enforced yet.
    pub keep_original_next_hop: Option<bool>,
    /// Password in a Kubernetes secret. Not enforced yet: use the annotation margay.io/password.
    pub password: Option<BgpPassword>,
    /// Local address of the session; as the kernel chooses where absent.
    pub source_address: Option<SourceAddress>,
    /// Time that the peer keeps our routes when the session breaks (RFC 4724), 0s for none, at most 4095s; 120s where absent.
    pub max_restart_time: Option<Duration>,
    /// Time between keepalives, 1s to 21845s; the hold time is three times this. 80s where absent, as in BIRD.
    pub keepalive_time: Option<Duration>,
    /// Times that our own AS may stand in a path. Not enforced yet.
    #[serde(rename = "numAllowedLocalASNumbers")]
    pub num_allowed_local_as_numbers: Option<i32>,
    /// Hops to the peer, 1 to 255, that packets may have come at most (RFC 5082).
    pub ttl_security: Option<u8>,
    /// Gateway to the peer. Not enforced yet.
    pub reachable_by: Option<String>,
    /// BGPFilters. Not enforced yet.
    pub filters: Vec<String>,
    /// Whether nodes that peerSelector picks peer back; without a peerSelector it has no meaning.
    pub reverse_peering: Option<ReversePeering>,
}
