//! `margay.io/v1`: what Calico has no word for.

use std::net::{Ipv4Addr, Ipv6Addr};

use schemars::JsonSchema;
use serde::Deserialize;

use super::common::{Address, Cidr, NumberOrText};
use super::health::HealthCheckSpec;
use crate::desired::{AttachMode, SourceValidation};

/// `Node`: the interfaces, cores and limits of one machine.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NodeSpec {
    /// BGP identifier; the numerically lowest IPv4 address of the node where absent.
    #[serde(rename = "routerID")]
    #[schemars(with = "Option<Address>")]
    pub router_id: Option<Ipv4>,
    /// Interfaces that carry the XDP program; 1 to 63.
    pub interfaces: Vec<InterfaceSpec>,
    /// Which cores do what.
    #[serde(default)]
    pub cores: Cores,
    /// The slow path.
    #[serde(default)]
    pub slow_path: SlowPath,
    /// The flow table.
    #[serde(default)]
    pub flow_table: FlowTable,
    /// The kernel's routes.
    #[serde(default)]
    pub kernel_routes: KernelRoutes,
    /// Encapsulation.
    #[serde(default)]
    pub encap: NodeEncap,
    /// What health checks via tunnel need of the kernel.
    #[serde(default)]
    pub health_checks: NodeHealthChecks,
    /// Ports of this node that untracked policy never closes; Felix's list where absent, none where empty.
    pub failsafe_inbound_host_ports: Option<Vec<FailsafePort>>,
    /// Ports elsewhere that this node reaches whatever the policy says; Felix's list where absent, none where empty.
    pub failsafe_outbound_host_ports: Option<Vec<FailsafePort>>,
}

/// How the kernel tells packets of health checks via tunnel from others.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NodeHealthChecks {
    /// Mark of their packets, 1 to 4294967295; 12397 where absent.
    #[schemars(range(min = 1, max = 4_294_967_295u32))]
    pub mark: Option<u32>,
    /// Routing table that packets with the mark take, 1 to 4294967295 but not 253 to 255; 12397 where absent.
    #[schemars(range(min = 1, max = 4_294_967_295u32))]
    pub table: Option<u32>,
}

/// An IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4(pub Ipv4Addr);

impl<'de> Deserialize<'de> for Ipv4 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Address::deserialize(deserializer)?.0 {
            std::net::IpAddr::V4(address) => Ok(Self(address)),
            std::net::IpAddr::V6(address) => {
                Err(serde::de::Error::custom(format!("must be an IPv4 address, is {address}")))
            }
        }
    }
}

/// An IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6(pub Ipv6Addr);

impl<'de> Deserialize<'de> for Ipv6 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Address::deserialize(deserializer)?.0 {
            std::net::IpAddr::V6(address) => Ok(Self(address)),
            std::net::IpAddr::V4(address) => {
                Err(serde::de::Error::custom(format!("must be an IPv6 address, is {address}")))
            }
        }
    }
}

/// One interface that margay forwards on.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct InterfaceSpec {
    /// Kernel name, 1 to 15 bytes.
    pub name: String,
    /// Where the program is attached; native where absent.
    #[serde(default)]
    #[schemars(with = "AttachModeSchema")]
    pub mode: AttachMode,
    /// Which sources are let in, by the route back to them (RFC 3704); any where absent.
    #[serde(default)]
    #[schemars(with = "SourceValidationSchema")]
    pub source_validation: SourceValidation,
    /// Name of the VRF that it belongs to; the default one where absent.
    pub vrf: Option<String>,
    /// Largest maximum segment size that TCP connections may agree on by it; any where absent.
    #[serde(default, rename = "maxMSS")]
    pub max_mss: MaxMssSpec,
}

/// Largest maximum segment size of TCP, bytes. SYNs that come in or leave by the interface and tell a larger one are made to tell this.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaxMssSpec {
    /// Over IPv4, 536 to 65495.
    #[schemars(range(min = 536, max = 65_495))]
    pub ipv4: Option<u32>,
    /// Over IPv6, 1220 to 65475.
    #[schemars(range(min = 1220, max = 65_475))]
    pub ipv6: Option<u32>,
}

/// The words of [`SourceValidation`].
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase", inline)]
#[expect(dead_code, reason = "stands for SourceValidation in the schema")]
enum SourceValidationSchema {
    /// Any.
    Off,
    /// Those that a route other than the default leads to.
    Loose,
    /// Those that the best route leads to by this interface.
    Strict,
    /// Those, and what a path that was not chosen leads to by this interface.
    Feasible,
}

/// The words of [`AttachMode`].
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase", inline)]
#[expect(dead_code, reason = "stands for AttachMode in the schema")]
enum AttachModeSchema {
    /// In the driver; refused where the driver cannot.
    Native,
    /// In the kernel's generic hook: any driver, much slower.
    Generic,
}

/// Cores of the process's threads.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Cores {
    /// Core of the control thread; not pinned where absent.
    pub control: Option<u16>,
    /// Cores of the slow-path workers, one worker each; one worker, not pinned, where empty.
    #[serde(default)]
    pub workers: Vec<u16>,
}

/// The slow path.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SlowPath {
    /// Receive queues served on each interface, 1 to 64; all of them, up to 64, where absent.
    #[schemars(range(min = 1, max = 64))]
    pub queues: Option<u32>,
    /// Packets a second that each core hands over for each reason, 1 to 10000000; 1000 where absent.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub rate: Option<u32>,
}

/// The flow table.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FlowTable {
    /// Flows it holds, 1024 to 16777216; 65536 where absent.
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub entries: Option<u32>,
    /// Seconds after which a place in a ring that has changed counts as unchanged, up to 31536000, 0 for never; 3600 where absent. Flows that are
    /// remembered hold it as long as they go elsewhere.
    #[schemars(range(min = 0, max = 31_536_000))]
    pub settle_seconds: Option<u32>,
}

/// The kernel's routing table as a source of routes: what BIRD, FRR and `ip route` put there.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KernelRoutes {
    /// Follow it; true where absent.
    pub enabled: Option<bool>,
    /// Its number, 1 to 4294967295; 254, the main table, where absent.
    #[schemars(range(min = 1))]
    pub table: Option<u32>,
    /// Seconds between audits, each a dump compared with what is held: 1 to 86400, 0 for none; 60 where absent.
    #[schemars(range(min = 0, max = 86_400))]
    pub audit_seconds: Option<u32>,
}

/// Encapsulation settings of the node.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NodeEncap {
    /// Outer IPv4 source; the egress interface's address where absent.
    #[serde(rename = "sourceIPv4")]
    #[schemars(with = "Option<Address>")]
    pub source_ipv4: Option<Ipv4>,
    /// Outer IPv6 source; the egress interface's address where absent.
    #[serde(rename = "sourceIPv6")]
    #[schemars(with = "Option<Address>")]
    pub source_ipv6: Option<Ipv6>,
    /// Prefix that IP in IP to IPv4 backends takes its outer sources from, one a flow; /8 to /31. `sourceIPv4` or the interface's
    /// address where absent.
    #[serde(rename = "sourcePrefixIPv4")]
    pub source_prefix_ipv4: Option<Cidr>,
    /// The same for IPv6 backends; /32 to /127, of which the last 31 bits vary at most.
    #[serde(rename = "sourcePrefixIPv6")]
    pub source_prefix_ipv6: Option<Cidr>,
    /// UDP port of VXLAN; 4789 where absent.
    #[schemars(range(min = 1, max = 65535))]
    pub vxlan_port: Option<u16>,
    /// UDP port of GUE, another than that of VXLAN; 6080 where absent.
    #[schemars(range(min = 1, max = 65535))]
    pub gue_port: Option<u16>,
}

/// A failsafe port, as in Calico's FelixConfiguration.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FailsafePort {
    /// TCP, UDP or SCTP.
    pub protocol: NumberOrText,
    /// Port, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Peers it holds for; every peer where absent.
    pub net: Option<Cidr>,
}

/// `VirtualService`: one port, or all of them, on one or more VIP addresses, and the backends behind it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VirtualServiceSpec {
    /// VIP addresses and prefixes of them, of either family; at least one.
    pub addresses: Vec<Cidr>,
    /// Port, 1 to 65535; all of the protocol where absent.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// TCP, UDP or SCTP; where absent, and then without a port, everything for the addresses.
    pub protocol: Option<NumberOrText>,
    /// Announce the addresses over BGP while a backend is usable; true where absent.
    pub advertise: Option<bool>,
    /// How packets reach the backends that say nothing of their own; IPIP where absent.
    pub encap: Option<EncapSpec>,
    /// How the servers are checked; a route to them is enough where absent.
    pub health_check: Option<HealthCheckSpec>,
    /// ClientIP: all connections of a client go to one backend; None, where absent: each goes by itself.
    pub session_affinity: Option<SessionAffinity>,
    /// More of it.
    pub session_affinity_config: Option<SessionAffinityConfig>,
    /// How the servers make QUIC connection IDs that name them, one way or, while that is changed, two; absent: by address and port.
    #[serde(default)]
    pub quic: Vec<QuicSpec>,
    /// The servers.
    pub backends: Vec<BackendSpec>,
}

/// The words of Kubernetes for what stays together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum SessionAffinity {
    /// Nothing.
    None,
    /// What comes from one address.
    #[serde(rename = "ClientIP")]
    ClientIp,
}

/// More about session affinity, as Kubernetes writes it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SessionAffinityConfig {
    /// Of ClientIP.
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIpConfig>,
}

/// How long a client stays with its backend.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClientIpConfig {
    /// Seconds after which a client that has not been seen is a new one, 1 to 86400; 10800 where absent.
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<u32>,
}

/// A real server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BackendSpec {
    /// Where packets for it are sent.
    pub address: Address,
    /// Its share relative to the others, 1 to 1000; 1 where absent.
    #[schemars(range(min = 1, max = 1000))]
    pub weight: Option<u32>,
    /// How packets reach it; as the service says where absent.
    pub encap: Option<EncapSpec>,
    /// Keep its flows and give it no new ones while another backend serves; false where absent.
    pub drain: Option<bool>,
    /// Server IDs in its QUIC connection IDs, in hexadecimal, one for each length that the service's configurations have.
    #[serde(default, rename = "quicServerIDs")]
    pub quic_server_ids: Vec<String>,
}

/// A configuration of QUIC-LB (draft-ietf-quic-load-balancers), with the server ID in plaintext.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct QuicSpec {
    /// The first three bits of its connection IDs, 0 to 6.
    #[schemars(range(min = 0, max = 6))]
    pub config_rotation: u8,
    /// Octets of its server IDs, 1 to 15.
    #[serde(rename = "serverIDLength")]
    #[schemars(range(min = 1, max = 15))]
    pub server_id_length: u8,
}

/// The words for encapsulations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum EncapType {
    /// IP in IP.
    #[serde(rename = "IPIP")]
    Ipip,
    /// VXLAN.
    #[serde(rename = "VXLAN")]
    Vxlan,
    /// GUE variant 1.
    #[serde(rename = "GUE")]
    Gue,
    /// The backend's own Ethernet address, nothing in front: direct server return on one link.
    L2,
}

/// How packets travel to a backend.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EncapSpec {
    /// IPIP, VXLAN, GUE or L2.
    #[serde(rename = "type")]
    pub kind: EncapType,
    /// VXLAN network identifier, 0 to 16777215; VXLAN only, and required there.
    #[schemars(range(min = 0, max = 16_777_215))]
    pub vni: Option<u32>,
    /// Ethernet address of the backend's VXLAN device; VXLAN only, and required there.
    #[schemars(regex(pattern = r"^[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}$"))]
    pub mac: Option<String>,
}

/// The words for tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TunnelType {
    /// IP protocols 4 and 41.
    #[serde(rename = "IPIP")]
    Ipip,
    /// VXLAN.
    #[serde(rename = "VXLAN")]
    Vxlan,
    /// GUE, variants 0 and 1.
    #[serde(rename = "GUE")]
    Gue,
}

/// `Tunnel`: encapsulated packets that this node takes in.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TunnelSpec {
    /// IPIP, VXLAN or GUE.
    #[serde(rename = "type")]
    pub kind: TunnelType,
    /// VXLAN network identifier, 0 to 16777215; VXLAN only, and required there.
    #[schemars(range(min = 0, max = 16_777_215))]
    pub vni: Option<u32>,
    /// Outer sources that are accepted; at least one.
    pub peers: Vec<Cidr>,
    /// Inner sources that are behind these peers; where absent, any but addresses of this node and VIPs.
    pub sources: Option<Vec<Cidr>>,
}

/// `StaticRoute`: a configured route. One of `nextHops`, `blackhole` and `prohibit`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct StaticRouteSpec {
    /// Destination.
    pub prefix: Cidr,
    /// Gateways; flows are spread over them by weight.
    pub next_hops: Option<Vec<NextHopSpec>>,
    /// Drop silently.
    pub blackhole: Option<bool>,
    /// Drop and answer with ICMP administratively prohibited.
    pub prohibit: Option<bool>,
    /// Announce it over BGP; false where absent. Only in the default VRF.
    pub advertise: Option<bool>,
    /// Name of the VRF that it is in; the default one where absent.
    pub vrf: Option<String>,
}

/// One gateway.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NextHopSpec {
    /// Its address, of the route's family.
    pub address: Address,
    /// Interface it is on; needed where the address is link-local.
    pub interface: Option<String>,
    /// Its share of the flows, 1 to 256; 1 where absent.
    #[schemars(range(min = 1, max = 256))]
    pub weight: Option<u32>,
}

/// `VRF`: a routing table for the interfaces that name it, apart from all others.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VrfSpec {
    /// Number of the kernel's routing table that it takes routes from, 1 to 4294967295, none of the kernel's own (253, 254, 255); none where
    /// absent.
    #[schemars(range(min = 1))]
    pub table: Option<u32>,
}

/// `Denylist`: prefixes whose packets are dropped on every interface, before anything else. At least one.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct DenylistSpec {
    /// Packets from there.
    pub sources: Vec<Cidr>,
    /// Packets to there.
    pub destinations: Vec<Cidr>,
}
