//! What the API answers: shared by the server and the command line, so that `-o json` is the API's own document.
//!
//! Every list is a [`List`]: bounded, with the number of rows that there are. Addresses, prefixes and Ethernet addresses
//! are text in their usual notation; durations are whole seconds.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use model::desired::AttachMode;
use model::network::Mac;
use model::rib::Source;
use model::tables::Features;
use serde::{Deserialize, Serialize};

use crate::dataplane::Count;

pub use crate::control::bgp::PeerStatus as Peer;

/// Rows a list holds where the request names no limit.
pub const DEFAULT_LIMIT: usize = 1_000;
/// Most rows that a request can ask for.
pub const MAX_LIMIT: usize = 1_000_000;
/// Largest frame that can be explained, in bytes.
pub const MAX_FRAME_BYTES: usize = 9_600;

/// The first rows of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List<T> {
    /// Rows, at most the limit of the request.
    pub items: Vec<T>,
    /// Rows that match, returned or not.
    pub total: usize,
}

impl<T> List<T> {
    /// Takes the first `limit` rows and counts the rest.
    pub fn take(mut rows: impl Iterator<Item = T>, limit: usize) -> Self {
        let items: Vec<T> = rows.by_ref().take(limit).collect();
        let total = items.len() + rows.count();
        Self { items, total }
    }
}

/// Filter and bound of a list; which filters mean something depends on the list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// A prefix or address (routes: longest match of an address; next hops, neighbours, flows, peers: the address) or a
    /// name (VIPs, backends, policies, drops by reason).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// Name of a VRF, of routes; the default one where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// Most rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Health of the node at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of margay that is running.
    pub version: String,
    /// Name of the node.
    pub node: String,
    /// Process that runs it.
    pub pid: u32,
    /// Since when it runs.
    pub uptime_seconds: u64,
    /// Generation in force; 0 while none has been compiled.
    pub generation: u64,
    /// Where maps, programs and links are pinned.
    pub pin_dir: PathBuf,
    /// What the loaded program can do.
    pub features: Features,
    /// State of the configuration.
    pub config: ConfigStatus,
    /// Interfaces of the node resource.
    pub interfaces: Vec<InterfaceStatus>,
    /// VRFs beside the default one.
    pub vrfs: Vec<VrfStatus>,
    /// Sizes of the tables.
    pub tables: TableSizes,
    /// The kernel's routes.
    pub kernel_routes: KernelRoutesStatus,
    /// BGP peers configured, and those with an Established session.
    pub sessions: SessionCount,
    /// Everything that is wrong, each with what to do about it. Empty: healthy.
    pub problems: Vec<String>,
}

/// Whether the files on disk are what forwards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// Directory that is watched.
    pub directory: PathBuf,
    /// True when the files as they are now are in force.
    pub valid: bool,
    /// How long that has been so.
    pub since_seconds: u64,
    /// Why the files are not in force, or what looks wrong about them where they are: with file and line.
    pub diagnostics: Vec<String>,
}

/// One interface that margay is to forward on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Kernel name.
    pub name: String,
    /// Kernel index; absent where there is no such interface.
    pub ifindex: Option<u32>,
    /// How the program is to be attached.
    pub mode: AttachMode,
    /// What it does.
    pub state: InterfaceState,
    /// The VRF that it is in; absent for the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
}

/// One VRF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrfStatus {
    /// Its name.
    pub name: String,
    /// The kernel's table that it takes routes from; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Prefixes of that table with a route.
    pub kernel_routes: usize,
    /// FIB entries, both families.
    pub routes: usize,
}

/// What an interface does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterfaceState {
    /// The program is attached and the link has carrier.
    Forwarding,
    /// The program is attached; the link is down.
    Down,
    /// The program could not be attached.
    Failed,
    /// There is no such interface.
    Missing,
}

/// Entries in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSizes {
    /// FIB entries, both families.
    pub fib: usize,
    /// Next-hop groups.
    pub groups: usize,
    /// Next hops.
    pub next_hops: usize,
    /// Neighbours that the kernel has resolved.
    pub neighbors: usize,
    /// VIPs.
    pub vips: usize,
    /// Backends, each counted once a VIP.
    pub backends: usize,
    /// Filter ops of all policies.
    pub filter_ops: usize,
    /// Denied prefixes.
    pub denylist: usize,
    /// Memory of those of IPv4.
    pub denied4: FibMemory,
    /// Memory of those of IPv6.
    pub denied6: FibMemory,
    /// Adopted routes that no source has claimed yet after a restart.
    pub adopted: usize,
    /// Memory of the IPv4 FIB.
    pub fib4: FibMemory,
    /// Memory of the IPv6 FIB.
    pub fib6: FibMemory,
    /// Memory of all VRFs but the default one.
    pub vrfs: FibMemory,
    /// What load balancing remembers.
    pub balancing: BalancingMemory,
}

/// The flow table, which all cores share, and the rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancingMemory {
    /// Flows remembered: those of ring slots that have changed.
    pub flows: usize,
    /// Those of them that have sent more than what opened them.
    pub flows_established: usize,
    /// Room for flows.
    pub flows_max: usize,
    /// Bytes of the flow table.
    pub flow_table_bytes: usize,
    /// Rings, one a VIP.
    pub rings: usize,
    /// Their bytes.
    pub ring_bytes: usize,
}

/// The look-up structure of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FibMemory {
    /// Prefixes.
    pub prefixes: usize,
    /// Bytes in use, those that wait for their last readers included.
    pub bytes_used: usize,
    /// Bytes of the map.
    pub bytes_reserved: usize,
    /// Blocks by the number of others that a look-up meets before them: as many levels as a look-up goes through at most.
    pub levels: Vec<usize>,
    /// IPv4 look-ups begin in a cache line with room for a block: how many of these blocks lie outside.
    pub away: usize,
}

/// How far the kernel's routing table is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelRoutesStatus {
    /// Number of the table; absent where none is followed.
    pub table: Option<u32>,
    /// All its routes are held.
    pub synchronised: bool,
    /// Prefixes with a route.
    pub routes: usize,
    /// Audits since the start.
    pub audits: u64,
    /// Since when the last has been over.
    pub last_audit_seconds: Option<u64>,
    /// Prefixes that audits found to differ, since the start; they were repaired.
    pub repaired: u64,
    /// How often notifications were lost, since the start; each time the table was read again.
    pub overruns: u64,
}

/// BGP sessions at a glance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCount {
    /// Peers configured.
    pub configured: usize,
    /// Sessions that are Established.
    pub established: usize,
}

/// A FIB entry with what is behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub prefix: IpNet,
    /// Where it comes from.
    pub source: Source,
    /// Next-hop group.
    pub group: u32,
    /// Members of the group with their share of its buckets.
    pub next_hops: Vec<Member>,
}

/// The kernel's table, and what is held and forwarded of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelDiff {
    /// The VRF that follows it; absent for the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// Number of the kernel's table.
    pub table: u32,
    /// The table as the kernel has just dumped it.
    pub kernel: TableDigest,
    /// The table as it is held.
    pub margay: TableDigest,
    /// Routes that forward, because no better source has one to the same prefix.
    pub forwarded: usize,
    /// Differences by prefix; none: both are equal and what should forward does.
    pub differences: List<RouteDifference>,
}

/// A table in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDigest {
    /// Prefixes.
    pub routes: usize,
    /// SHA-256 over a line for each prefix and its way out, by prefix.
    pub sha256: String,
}

/// How a route differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DifferenceKind {
    /// The kernel has it, and it is not held.
    Missing,
    /// It is held, and the kernel does not have it.
    Extra,
    /// It leads elsewhere.
    Different,
    /// It is held and does not forward: its way out is down, or the FIB is full.
    NotForwarded,
}

/// A route that is not the same in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteDifference {
    /// Destination.
    pub prefix: IpNet,
    /// How it differs.
    pub kind: DifferenceKind,
    /// The kernel's way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margay: Option<String>,
}

/// A next hop's share of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Share of the group's flows, in percent.
    pub share_percent: f32,
    /// Buckets of the group's 64.
    pub buckets: usize,
    /// The next hop.
    #[serde(flatten)]
    pub next_hop: NextHop,
}

/// What a next hop does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NextHopKind {
    /// Sends to a gateway or an on-link host.
    Forward,
    /// Resolves the packet's own destination.
    Glean,
    /// Is this node.
    Receive,
    /// Leaves it to the host's stack.
    Host,
    /// Is a VIP's address.
    Vip,
    /// Drops.
    Blackhole,
    /// Drops with an answer.
    Prohibit,
    /// Drops with the answer that there is no route.
    Unreachable,
}

/// A next hop and its adjacency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NextHop {
    /// Index in its table.
    pub id: u32,
    /// What it does.
    pub kind: NextHopKind,
    /// Gateway or on-link host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Outgoing interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Its link-layer address; absent while unresolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Largest packet, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// What has left by it; told by the list of next hops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Count>,
}

impl NextHop {
    /// False while packets for it wait for ARP or ND.
    pub fn resolved(&self) -> bool {
        self.kind != NextHopKind::Forward || self.mac.is_some()
    }
}

/// A neighbour that the kernel has resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Neighbor {
    /// Network address.
    pub address: IpAddr,
    /// Interface that it is on.
    pub interface: String,
    /// Link-layer address.
    pub mac: Mac,
    /// A next hop uses it.
    pub in_use: bool,
}

/// A VIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vip {
    /// `VirtualService` that it belongs to.
    pub service: String,
    /// `address:port/protocol`, as backends, flows and metrics name it.
    pub name: String,
    /// Address or prefix.
    pub address: String,
    /// Port; all where absent.
    pub port: Option<u16>,
    /// IP protocol; all where absent.
    pub protocol: Option<String>,
    /// Backends configured.
    pub backends: usize,
    /// Backends that get packets.
    pub usable: usize,
    /// Announced over BGP now.
    pub announced: bool,
    /// Slots of its ring that have changed, of 65,537: their flows are looked for in the flow table.
    pub changed_slots: usize,
    /// Packets sent to its backends.
    pub packets: u64,
    /// Bytes of them, as they came in.
    pub bytes: u64,
}

/// A backend of one VIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// `VirtualService` that it belongs to.
    pub service: String,
    /// The VIP, `address:port/protocol`.
    pub vip: String,
    /// The backend's address.
    pub address: IpAddr,
    /// How packets reach it.
    pub encap: String,
    /// Configured weight.
    pub weight: u16,
    /// Share of the ring, in percent: of new flows; 0 where it gets none.
    pub share_percent: f32,
    /// It gets packets: a route leads to it, and it is not down.
    pub usable: bool,
    /// What it is.
    pub state: BackendState,
    /// What is known from health checks; absent where the service has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<BackendHealth>,
    /// Largest packet that fits the path once encapsulated, in bytes; absent where there is no path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner_mtu: Option<u32>,
    /// Packets sent to it.
    pub packets: u64,
    /// Bytes of them, as they came in.
    pub bytes: u64,
}

/// What a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendState {
    /// A route leads to it and checks, if any, succeed.
    Up,
    /// It keeps its flows and gets new ones only where no other backend serves.
    Draining,
    /// Checks fail. Where too many do, it is used all the same.
    Down,
    /// Its first check is not over: it is not used yet.
    Starting,
    /// No route leads to it, or not the one that it needs; `margay status` says why.
    Unusable,
}

impl BackendState {
    /// All of them, with their names.
    pub const NAMES: [(Self, &'static str); 5] = [
        (Self::Up, "up"),
        (Self::Draining, "draining"),
        (Self::Down, "down"),
        (Self::Starting, "starting"),
        (Self::Unusable, "unusable"),
    ];
}

/// What health checks say of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendHealth {
    /// What is asked of whom.
    pub check: String,
    /// It is asked as the VIP, in what clients' packets to it are sent in.
    #[serde(default)]
    pub via_tunnel: bool,
    /// For how long it has been up, down or starting.
    pub since_seconds: u64,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Checks in a row that speak against what it is.
    pub against: u32,
    /// How many it takes: fall of one that is up, rise of one that is down.
    pub needed: u32,
    /// The last check; absent before the first is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastCheck>,
    /// Checks that succeeded, since the check began to be made.
    pub succeeded: u64,
    /// Checks that failed.
    pub failed: u64,
}

/// How a check went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCheck {
    /// Since when it has been over.
    pub seconds_ago: u64,
    /// How long it took.
    pub took_microseconds: u64,
    /// What was wrong; absent where it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A backend that is to be drained, or given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// Its address.
    pub backend: IpAddr,
    /// The service that it is drained in; every one that has it where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Give it back.
    #[serde(default)]
    pub undo: bool,
}

/// What became of a [`DrainRequest`] in one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// The service.
    pub service: String,
    /// The backend.
    pub backend: IpAddr,
    /// It drains now.
    pub draining: bool,
}

/// Which backend's draining is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainFilter {
    /// Its address.
    pub backend: IpAddr,
    /// The service; every one that has it where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// What a backend of a VIP still has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// The service.
    pub service: String,
    /// The VIP, `address:port/protocol`.
    pub vip: String,
    /// The backend.
    pub backend: IpAddr,
    /// What it is.
    pub state: BackendState,
    /// Packets sent to it, since it was first used.
    pub packets: u64,
    /// Flows that are remembered for it: all those of a draining one that have sent a packet since it began to drain.
    pub flows: usize,
    /// For how long none of them has sent anything; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_seconds: Option<u64>,
}

/// A policy in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// `GlobalNetworkPolicy` document.
    pub name: String,
    /// Place in the order of evaluation, from 1.
    pub position: usize,
    /// Host endpoints that it selects.
    pub endpoints: Vec<String>,
    /// Its ingress rules, in words.
    pub rules: Vec<String>,
}

/// Packets that were dropped or punted for one reason on one interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drop {
    /// Interface; `-` for frames of what is no port.
    pub interface: String,
    /// `drop` or `punt`.
    pub verdict: String,
    /// Name of the reason.
    pub reason: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// The reason in words.
    pub help: String,
}

/// A flow that the flow table remembers: one of a slot of its VIP's ring that has changed. What it is called is not remembered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Name of the service.
    pub service: String,
    /// Address, port and protocol of the VIP.
    pub vip: String,
    /// Slot of the VIP's ring.
    pub slot: usize,
    /// Backend that it goes to.
    pub backend: IpAddr,
    /// It has sent more than what opened it.
    pub established: bool,
    /// Seconds since it was last seen, where it is established, else since it began.
    pub age_seconds: u64,
}

/// A named count of a slow-path worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerCounter {
    /// Worker, from 0.
    pub worker: usize,
    /// What is counted.
    pub counter: String,
    /// How much.
    pub value: u64,
}

/// One packet to explain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Interface that it comes in by.
    pub interface: String,
    /// The packet.
    pub packet: Packet,
}

/// A packet by its bytes or by what matters about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Packet {
    /// A whole Ethernet frame, in hexadecimal.
    Frame(String),
    /// A packet that is made up: to the interface's own Ethernet address, TTL 64.
    Tuple(Tuple),
}

/// A five-tuple.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuple {
    /// `tcp`, `udp`, `sctp` or `icmp` (ICMPv6 for IPv6 addresses).
    pub protocol: String,
    /// Source address.
    pub source: IpAddr,
    /// Source port, 0 for ICMP.
    pub source_port: u16,
    /// Destination address.
    pub destination: IpAddr,
    /// Destination port, 0 for ICMP.
    pub destination_port: u16,
    /// TCP flags as letters of `FSRPAU`; SYN where empty.
    #[serde(default)]
    pub flags: String,
}

/// A packet's way through the loaded program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Interface that it came in by.
    pub interface: String,
    /// The stages it met, in order.
    pub steps: Vec<Step>,
    /// How its next hop was chosen; absent where it ended before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RoutedBy>,
    /// `pass`, `tx`, `redirect`, `punt` or `drop`.
    pub verdict: String,
    /// Reason of a punt or drop; interface of a tx or redirect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The frame afterwards, in hexadecimal.
    pub frame: String,
}

/// How the next hop of a packet was chosen: of the packet inside, where a tunnel was taken off; of the way to the backend, where
/// a VIP was met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoutedBy {
    /// The VRF whose routes these are; absent for the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// The address that a route was needed to: the packet's destination, or its backend.
    pub destination: IpAddr,
    /// The longest prefix that holds it; absent where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<IpNet>,
    /// Where the route comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Next-hop group; 0 where there is no route.
    pub group: u32,
    /// Members of the group.
    pub members: Vec<Member>,
    /// The bucket that the flow hashed to, from 0.
    pub bucket: usize,
    /// The flow hash, 16 hexadecimal digits.
    pub flow_hash: String,
    /// The next hop in that bucket, with its adjacency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<NextHop>,
}

/// What one stage decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Stage of docs/datapath.md.
    pub stage: String,
    /// What it decided, with names.
    pub text: String,
}

/// An error's body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong and what to do.
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_counts_what_it_leaves_out() {
        assert_eq!(List::take(0..10, 3), List { items: vec![0, 1, 2], total: 10 });
        assert_eq!(List::take(0..2, 3), List { items: vec![0, 1], total: 2 });
        assert_eq!(List::take(0..2, 0), List::<i32> { items: vec![], total: 2 });
    }
}
