//! The validated model: what the resources ask for, with every reference resolved and every value in range.
//!
//! `resources` parses documents and produces this; `compile` turns it into table contents and the oracle answers
//! questions from it. Nothing in here is a kernel layout.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::denylist::Denylist;
use crate::health::ServiceHealth;
use crate::network::Mac;
use crate::policy::Policies;
use crate::quic::Quic;

/// Everything one node is asked to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// This node.
    pub node: Node,
    /// Load-balanced services, one entry a `VirtualService` document.
    pub services: Vec<Service>,
    /// Routing tables beside the default one.
    pub vrfs: Vec<Vrf>,
    /// Tunnels whose packets are decapsulated.
    pub tunnels: Vec<Tunnel>,
    /// Configured routes.
    pub static_routes: Vec<StaticRoute>,
    /// Prefixes whose packets are dropped on every interface.
    pub denylist: Denylist,
    /// Host endpoints of this node that untracked policy applies to.
    pub host_endpoints: Vec<HostEndpoint>,
    /// Untracked ingress policies, already in evaluation order (order, then name).
    pub policies: Vec<Policy>,
    /// All policy, of which the above is the part that is enforced. Loaded for the agent it is no more than that.
    pub policy: Policies,
    /// BGP; `None` when no peer and no BGPConfiguration is configured.
    pub bgp: Option<Bgp>,
}

/// The node itself (`margay.io/v1` `Node`).
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Name of the node; the resources refer to it.
    pub name: String,
    /// BGP identifier; the numerically lowest IPv4 address of the node where absent.
    pub router_id: Option<Ipv4Addr>,
    /// Interfaces that carry the XDP program, in configured order.
    pub interfaces: Vec<Interface>,
    /// Core of the control thread; unpinned where absent.
    pub control_core: Option<usize>,
    /// Cores of the slow-path workers, one worker each; one unpinned worker where empty.
    pub worker_cores: Vec<usize>,
    /// Receive queues an interface that the slow path serves, as far as the interface has them. A punt on a queue that is not
    /// served falls back as if there were no worker, so all are served unless told otherwise.
    pub slow_path_queues: u32,
    /// Flow table capacity in flows.
    pub flow_table_entries: u32,
    /// When a slot that has changed counts as unchanged; never where absent.
    pub settle: Option<Duration>,
    /// The kernel's routing table that is followed; none where absent.
    pub kernel_routes: Option<KernelRoutes>,
    /// UDP port on which VXLAN arrives and to which it is sent.
    pub vxlan_port: u16,
    /// UDP port on which GUE arrives and to which it is sent; another than VXLAN's.
    pub gue_port: u16,
    /// Outer source of encapsulated packets, IPv4; the egress interface's address where absent.
    pub encap_source_v4: Option<Ipv4Addr>,
    /// Outer source of encapsulated packets, IPv6; the egress interface's address where absent.
    pub encap_source_v6: Option<std::net::Ipv6Addr>,
    /// Where the outer source of IP in IP is taken from, flow by flow, IPv4; else as for other encapsulations.
    pub encap_prefix_v4: Option<IpNet>,
    /// The same, IPv6.
    pub encap_prefix_v6: Option<IpNet>,
    /// Mark of the packets of health checks via tunnel.
    pub check_mark: u32,
    /// The kernel's routing table for packets with that mark; no other use of it is known.
    pub check_table: u32,
    /// Punts a second and reason that one core lets through to the slow path.
    pub punt_rate: u32,
    /// Ports that untracked policy never closes, towards this node (Felix `FailsafeInboundHostPorts`).
    pub failsafe_inbound: Vec<Failsafe>,
    /// Ports that this node reaches whatever the policy says; their replies are let in (`FailsafeOutboundHostPorts`).
    pub failsafe_outbound: Vec<Failsafe>,
}

/// Mark, and table, of health checks via tunnel. None of its bits is one that Calico, Cilium or kube-proxy give a meaning.
const CHECK_MARK: u32 = 0x306d;

impl Node {
    /// True where an interface lets in what comes by a path that is not chosen.
    pub fn asks_for_alternatives(&self) -> bool {
        self.interfaces.iter().any(|interface| interface.source_validation == SourceValidation::Feasible)
    }
}

impl Default for Node {
    fn default() -> Self {
        let tcp = |port| Failsafe { protocol: protocol::TCP, port, net: None };
        let udp = |port| Failsafe { protocol: protocol::UDP, port, net: None };
        Self {
            name: String::new(),
            router_id: None,
            interfaces: Vec::new(),
            control_core: None,
            worker_cores: Vec::new(),
            slow_path_queues: 64,
            flow_table_entries: 65_536,
            settle: Some(Duration::from_secs(3_600)),
            kernel_routes: Some(KernelRoutes::default()),
            vxlan_port: 4789,
            gue_port: 6080,
            encap_source_v4: None,
            encap_source_v6: None,
            encap_prefix_v4: None,
            encap_prefix_v6: None,
            check_mark: CHECK_MARK,
            check_table: CHECK_MARK,
            punt_rate: 1_000,
            failsafe_inbound: [tcp(22), udp(68)]
                .into_iter()
                .chain([179, 2379, 2380, 5473, 6443, 6666, 6667].map(tcp))
                .collect(),
            failsafe_outbound: [udp(53), udp(67)]
                .into_iter()
                .chain([179, 2379, 2380, 5473, 6443, 6666, 6667].map(tcp))
                .collect(),
        }
    }
}

/// The kernel's routing table as a source of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelRoutes {
    /// Its number.
    pub table: u32,
    /// Seconds between audits; 0 for none.
    pub audit_seconds: u32,
    /// An interface asks what the routes of a prefix behind the first lead by.
    pub alternatives: bool,
}

impl Default for KernelRoutes {
    /// The main table, audited every minute.
    fn default() -> Self {
        Self { table: 254, audit_seconds: 60, alternatives: false }
    }
}

/// IP protocol numbers that the model names (IANA protocol-numbers).
pub mod protocol {
    /// Internet Control Message Protocol.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003).
    pub const IPIP: u8 = 4;
    /// Transmission Control Protocol.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
    /// IPv6 in IP (RFC 2473, RFC 4213).
    pub const IPV6: u8 = 41;
    /// Generic Routing Encapsulation (RFC 2784).
    pub const GRE: u8 = 47;
    /// ICMP for IPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// Stream Control Transmission Protocol.
    pub const SCTP: u8 = 132;
    /// UDP-Lite (RFC 3828).
    pub const UDPLITE: u8 = 136;

    /// Calico's names for protocols.
    pub const NAMES: [(&str, u8); 6] =
        [("TCP", TCP), ("UDP", UDP), ("ICMP", ICMP), ("ICMPv6", ICMPV6), ("SCTP", SCTP), ("UDPLite", UDPLITE)];

    /// The number that Calico's name stands for.
    pub fn by_name(name: &str) -> Option<u8> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
    }
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// In the driver; refused where the driver cannot.
    #[default]
    Native,
    /// In the kernel's generic hook: any driver, much slower.
    Generic,
}

/// Which sources an interface lets in, by the route back to them (RFC 3704).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceValidation {
    /// Any.
    #[default]
    Off,
    /// Those that a route other than the default leads to, by whatever interface (RFC 3704 §2.4).
    Loose,
    /// Those that the best route leads to by this interface, the default route included (RFC 3704 §2.2).
    Strict,
    /// Those, and what a path of the same prefix that was not chosen leads to by this interface (RFC 3704 §2.3).
    Feasible,
}

/// A routing table for the interfaces that name it, apart from all others (`VRF`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vrf {
    /// Document name.
    pub name: String,
    /// The kernel's routing table that it takes routes from; none where absent.
    pub table: Option<u32>,
}

/// One interface that margay forwards on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Kernel name.
    pub name: String,
    /// How the program is attached.
    pub mode: AttachMode,
    /// Which sources it lets in.
    pub source_validation: SourceValidation,
    /// The VRF that it belongs to; the default one where absent.
    pub vrf: Option<String>,
    /// Largest maximum segment size that TCP may be told of by what comes in or leaves by it.
    pub max_mss: MaxMss,
}

/// Largest maximum segment size that a SYN may tell (RFC 9293 §3.7.1), bytes; any where absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaxMss {
    /// Over IPv4.
    pub ipv4: Option<u16>,
    /// Over IPv6.
    pub ipv6: Option<u16>,
}

impl MaxMss {
    /// Any of both families.
    pub const ANY: Self = Self { ipv4: None, ipv6: None };
}

/// A port that stays open whatever the policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failsafe {
    /// IP protocol number: TCP, UDP or SCTP.
    pub protocol: u8,
    /// Port, destination of an inbound packet and source of a reply.
    pub port: u16,
    /// Peers it holds for; every peer where absent.
    pub net: Option<IpNet>,
}

/// A service behind one or more VIPs (`VirtualService`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Document name.
    pub name: String,
    /// VIP addresses and prefixes; each makes one VIP with the port and protocol.
    pub addresses: Vec<IpNet>,
    /// Destination port; every port of the protocol where absent.
    pub port: Option<u16>,
    /// IP protocol number: TCP, UDP or SCTP; all that there is to the addresses where absent, and then without a port.
    pub protocol: Option<u8>,
    /// Announce the VIP addresses over BGP while a backend is usable.
    pub advertise: bool,
    /// How the servers are checked; a route is enough where absent.
    pub health: Option<ServiceHealth>,
    /// How long a client stays with its backend; each flow goes by itself where absent.
    pub affinity: Option<Duration>,
    /// What of its packets goes by QUIC connection IDs.
    pub quic: Option<Quic>,
    /// The servers, in configured order; no address stands twice.
    pub backends: Vec<Backend>,
}

/// A real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where packets for it are sent.
    pub address: IpAddr,
    /// Share of the ring relative to the other backends, 1 to 1000.
    pub weight: u16,
    /// How packets reach it.
    pub encap: Encap,
    /// It keeps the flows that it has and gets new ones only where no other backend serves.
    pub drain: bool,
}

/// How a packet travels to its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encap {
    /// IP in IP, whichever two families meet (RFC 2003, RFC 2473, RFC 4213).
    Ipip,
    /// VXLAN (RFC 7348) to the node's VXLAN port.
    Vxlan {
        /// VXLAN network identifier, 24 bits.
        vni: u32,
        /// Destination of the inner Ethernet header: the backend's VXLAN device.
        mac: Mac,
    },
    /// GUE variant 1 (draft-ietf-intarea-gue): UDP to the node's GUE port, the packet right behind.
    Gue,
    /// The frame is sent to the backend's own Ethernet address unchanged but for TTL: direct server return.
    L2,
}

/// Which encapsulation a tunnel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelKind {
    /// IP protocols 4 and 41, any pair of families.
    Ipip,
    /// GUE variant 1, or variant 0 without flags, on the node's GUE port.
    Gue,
    /// VXLAN with this network identifier.
    Vxlan {
        /// VXLAN network identifier, 24 bits.
        vni: u32,
    },
}

/// A tunnel whose packets this node takes in (`Tunnel`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Document name.
    pub name: String,
    /// Encapsulation.
    pub kind: TunnelKind,
    /// Outer sources that are accepted; the outer destination must be an address of this node.
    pub peers: Vec<IpNet>,
    /// Inner sources that are behind these peers; where absent, any but addresses of this node and VIPs.
    pub sources: Option<Vec<IpNet>>,
}

/// A configured route (`StaticRoute`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRoute {
    /// Document name.
    pub name: String,
    /// Destination, host bits zero.
    pub prefix: IpNet,
    /// What happens to its packets.
    pub action: RouteAction,
    /// Announce it over BGP.
    pub advertise: bool,
    /// The VRF that it is in; the default one where absent.
    pub vrf: Option<String>,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// Forward through one of these gateways.
    Via(Vec<Gateway>),
    /// Drop silently.
    Blackhole,
    /// Drop and answer with ICMP administratively prohibited.
    Prohibit,
}

/// One gateway of a configured route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its address, of the same family as the route.
    pub address: IpAddr,
    /// Interface, needed where the address is link-local; else found from the connected prefixes.
    pub interface: Option<String>,
    /// Share of the flows, 1 to 256.
    pub weight: u16,
}

/// A host endpoint (`projectcalico.org/v3` `HostEndpoint`) of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEndpoint {
    /// Document name.
    pub name: String,
    /// Which interface it stands for.
    pub interface: EndpointInterface,
    /// Labels that policy selectors see.
    pub labels: BTreeMap<String, String>,
}

/// How a host endpoint finds its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointInterface {
    /// By name.
    Named(String),
    /// The interface that has one of these addresses.
    ByAddress(Vec<IpAddr>),
}

/// An untracked ingress policy (`GlobalNetworkPolicy` with `doNotTrack`), with its selector resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Document name.
    pub name: String,
    /// Names of the host endpoints of this node that its selector picks.
    pub endpoints: Vec<String>,
    /// Ingress rules, first match first.
    pub rules: Vec<Rule>,
}

/// What a rule does with a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// Accept; no later rule or policy is asked.
    Allow,
    /// Drop.
    Deny,
    /// Leave this tier; the packet goes on as if nothing had matched.
    Pass,
}

/// One rule: the conjunction of everything that is set. An empty list sets nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Outcome.
    pub action: RuleAction,
    /// Only this family: 4 or 6.
    pub ip_version: Option<u8>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Any protocol but this.
    pub not_protocol: Option<u8>,
    /// ICMP or ICMPv6 type and code.
    pub icmp: Option<IcmpMatch>,
    /// Any ICMP type and code but these.
    pub not_icmp: Option<IcmpMatch>,
    /// The packet's source.
    pub source: Peers,
    /// The packet's destination.
    pub destination: Peers,
}

/// ICMP type and, where given, code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpMatch {
    /// ICMP type.
    pub kind: u8,
    /// ICMP code; any where absent.
    pub code: Option<u8>,
}

/// Constraints on one end of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Address in one of these; unconstrained where empty.
    pub nets: Vec<IpNet>,
    /// Address in none of these.
    pub not_nets: Vec<IpNet>,
    /// Port in one of these; unconstrained where empty.
    pub ports: Vec<PortRange>,
    /// Port in none of these.
    pub not_ports: Vec<PortRange>,
}

/// Ports `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

/// BGP of this node (`BGPConfiguration` and `BGPPeer`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bgp {
    /// This node's autonomous system.
    pub asn: u32,
    /// TCP port that passive sessions are accepted on.
    pub listen_port: u16,
    /// Prefixes announced whatever the services do (`serviceClusterIPs`, `serviceExternalIPs`, `serviceLoadBalancerIPs`).
    pub advertise: Vec<IpNet>,
    /// Communities put on announced prefixes inside each CIDR (`prefixAdvertisements`).
    pub communities: Vec<(IpNet, Vec<Community>)>,
    /// Peers of this node.
    pub peers: Vec<BgpPeer>,
    /// An interface asks what the paths of a prefix lead by that are not chosen.
    pub alternatives: bool,
}

/// A BGP community.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Community {
    /// RFC 1997, `aa:nn`.
    Standard(u16, u16),
    /// RFC 8092, `aa:nn:mm`.
    Large(u32, u32, u32),
}

/// One BGP peer (`BGPPeer`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpPeer {
    /// Document name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// The interface that it is on, where its address is link-local.
    pub interface: Option<String>,
    /// TCP port to connect to.
    pub port: u16,
    /// Its autonomous system; the session is internal where equal to ours.
    pub asn: u32,
    /// Wait for its connection, never connect (`margay.io/passive: "true"` annotation).
    pub passive: bool,
    /// Local address of the session; chosen by the kernel where absent.
    pub source: Option<IpAddr>,
    /// Seconds between keepalives; the hold time is three times this.
    pub keepalive_seconds: u16,
    /// Seconds that the peer keeps our routes when the session breaks (RFC 4724), 0 for no graceful restart.
    pub restart_seconds: u16,
    /// TCP MD5 key (RFC 2385).
    pub password: Option<String>,
    /// GTSM (RFC 5082): accept only packets with at least 255 - n + 1 hops left.
    pub ttl_security: Option<u8>,
}

impl Node {
    /// The VRF of the interface called `name`; `None` for the default one.
    pub fn vrf_of(&self, name: &str) -> Option<&str> {
        self.interfaces.iter().find(|interface| interface.name == name)?.vrf.as_deref()
    }
}
