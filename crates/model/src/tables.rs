//! The contents of the dataplane's tables in plain Rust: what `compile` produces, what `dataplane::encode` turns into map
//! entries, and what a restart reads back. A table is a sorted map, so the difference of two generations is a merge.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::denylist::Denylist;
use crate::desired::{MaxMss, Service, SourceValidation, TunnelKind};
use crate::network::{IfIndex, Mac};
use crate::quic::{Lengths, ServerId};

pub use ::tables::buckets::GROUP_BUCKETS;
pub use ::tables::maglev::RING_SLOTS;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);
    };
}
id!(
    /// Index of a port; 0 counts packets of interfaces that have none.
    PortId
);
id!(
    /// Index of a VRF; 0 is the default one.
    VrfId
);
id!(
    /// Index of a VIP and of its ring.
    VipId
);
id!(
    /// Number of an address or prefix that VIPs have, and of its group among those of VIPs; 0 is none.
    VipAddressId
);
id!(
    /// Index of a backend of one VIP; 0 is no backend.
    BackendId
);
id!(
    /// Index of a next-hop group; 0 is no group.
    GroupId
);
id!(
    /// Index of a next hop; 0 is no next hop.
    NextHopId
);
id!(
    /// Index of an adjacency; 0 is no adjacency.
    AdjacencyId
);

/// Frames of one interface: untagged ones of `ifindex`, or those of `ifindex` with the VLAN tag `vlan`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortKey {
    /// Interface that carries the XDP program.
    pub ifindex: IfIndex,
    /// VLAN identifier, `None` for untagged frames.
    pub vlan: Option<u16>,
}

/// A place where packets come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Counters and slow-path sockets are indexed by it.
    pub id: PortId,
    /// Its own Ethernet address.
    pub mac: Mac,
    /// First op of its untracked policy in [`Tables::filter`], `None` where no policy applies.
    pub filter: Option<u16>,
    /// Which sources it lets in.
    pub validation: SourceValidation,
    /// Where its packets' routes are.
    pub vrf: VrfId,
}

impl VrfId {
    /// The VRF of whatever names none.
    pub const DEFAULT: Self = Self(0);
}

/// The ports that packets from where a group leads to may come in by, one bit each; the bit of port 0, which is none, says that there is
/// a way back at all. A port looks for its own bit and no other, so one word has what each port asks for: of one that takes
/// feasible paths the alternatives, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origins(pub u64);

impl Origins {
    /// No way back.
    pub const NONE: Self = Self(0);
    /// A way back that leads by no port.
    pub const ROUTED: Self = Self(1);
    /// Any port: addresses that answer from elsewhere, as those of services do.
    pub const ANY: Self = Self(u64::MAX);

    /// A way back by this port.
    #[must_use]
    pub fn by(port: PortId) -> Self {
        Self(1 | Self::bit(port).0)
    }

    /// What this port looks for.
    #[must_use]
    pub fn bit(port: PortId) -> Self {
        Self(1_u64.checked_shl(port.0).unwrap_or(0))
    }

    /// Those that the others do not have.
    #[must_use]
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Those that the others have, too.
    #[must_use]
    pub fn among(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }
}

impl std::ops::BitOrAssign for Origins {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// What a filter op compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterTest {
    /// Source address in the prefix (same family only).
    Source(IpNet),
    /// Destination address in the prefix (same family only).
    Destination(IpNet),
    /// Source port in `first..=last`; absent in fragments but the first, and in protocols without ports.
    SourcePort(u16, u16),
    /// Destination port in `first..=last`; absent likewise.
    DestinationPort(u16, u16),
    /// IP protocol number.
    Protocol(u8),
    /// IP version, 4 or 6.
    IpVersion(u8),
    /// ICMP or ICMPv6 type and, where given, code; absent in other protocols and in fragments but the first.
    Icmp {
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: Option<u8>,
    },
}

/// Where a filter goes after an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterNext {
    /// The op with this index, always a later one.
    Op(u16),
    /// Accept the packet.
    Allow,
    /// Drop it: policy.
    Deny,
}

/// One step of a compiled policy: a test with a way out for each answer. Policies are straight-line programs of these;
/// every jump goes forward, so a packet takes at most as many steps as there are ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterOp {
    /// What is compared.
    pub test: FilterTest,
    /// The field compares equal.
    pub on_match: FilterNext,
    /// It does not.
    pub on_miss: FilterNext,
    /// The packet has no such field.
    pub on_absent: FilterNext,
}

/// Outer sources that packets of one encapsulation are judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TunnelPeer {
    /// Encapsulation.
    pub kind: TunnelKind,
    /// Outer source prefix; the longest match counts.
    pub source: IpNet,
}

/// Which inner sources may come from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InnerSources {
    /// None: no peer, but an address of this node among those of peers.
    Own,
    /// Any but addresses of this node and VIPs.
    Any,
    /// Those in some of [`Tables::tunnel_sources`].
    Ranges {
        /// Index of the first.
        first: u32,
        /// At least one.
        count: u32,
    },
}

/// Addresses from the first to the last as numbers, IPv4 as ::ffff:a.b.c.d.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceRange {
    /// First address.
    pub first: u128,
    /// Last address.
    pub last: u128,
}

/// A VIP: packets to it are load-balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VipKey {
    /// Destination address, or the prefix of all of them, host bits zero.
    pub prefix: IpNet,
    /// Destination port; any where absent.
    pub port: Option<u16>,
    /// IP protocol number; any where absent, and then of any port.
    pub protocol: Option<u8>,
}

impl VipKey {
    /// The VIPs of a service.
    pub fn of(service: &Service) -> impl Iterator<Item = Self> {
        let Service { port, protocol, .. } = *service;
        service.addresses.iter().map(move |prefix| Self { prefix: *prefix, port, protocol })
    }

    /// One port of one address.
    pub fn of_port(address: IpAddr, port: u16, protocol: u8) -> Self {
        Self { prefix: address.into(), port: Some(port), protocol: Some(protocol) }
    }
}

/// A slot of a ring: whose flows are that fall into it. Backends below 2^15; four bytes, since there are many.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Slot(u32);

impl Slot {
    const BACKEND: u32 = 0x7fff;
    const CHANGED: u32 = 1 << 31;

    /// One that has changed: flows that are not remembered and began earlier are of `before`.
    pub fn changed(now: BackendId, before: BackendId) -> Self {
        Self(now.0 & Self::BACKEND | (before.0 & Self::BACKEND) << 16 | Self::CHANGED)
    }

    /// The backend of new flows, 0 for none.
    pub fn now(self) -> BackendId {
        BackendId(self.0 & Self::BACKEND)
    }

    /// The backend of flows that began before the slot changed; the same as [`now`](Self::now) where it has not.
    pub fn before(self) -> BackendId {
        BackendId(self.0 >> 16 & Self::BACKEND)
    }

    /// Flows of the slot may be of different backends: the flow table tells.
    pub fn has_changed(self) -> bool {
        self.0 & Self::CHANGED != 0
    }
}

/// One whose flows are all of one backend.
impl From<BackendId> for Slot {
    fn from(id: BackendId) -> Self {
        Self(Self::changed(id, id).0 & !Self::CHANGED)
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.now().0)?;
        if self.has_changed() { write!(f, " (before {})", self.before().0) } else { Ok(()) }
    }
}

/// A Maglev ring, `RING_SLOTS` long; all slots 0 where no backend is usable.
pub type Ring = Arc<[Slot]>;

/// Outer header of packets for a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// No outer header: L2 direct server return.
    None,
    /// IP in IP.
    Ipip {
        /// Outer source.
        source: IpAddr,
        /// Outer destination, same family as the source.
        destination: IpAddr,
        /// Low bits of the source that are each flow's own, below 32; they are clear here.
        varied: u8,
    },
    /// GUE.
    Gue {
        /// Outer source.
        source: IpAddr,
        /// Outer destination, same family as the source.
        destination: IpAddr,
    },
    /// VXLAN.
    Vxlan {
        /// Outer source.
        source: IpAddr,
        /// Outer destination, same family as the source.
        destination: IpAddr,
        /// VXLAN network identifier.
        vni: u32,
        /// Inner Ethernet source.
        inner_source: Mac,
        /// Inner Ethernet destination.
        inner_destination: Mac,
    },
}

/// A backend of one VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The VIP that it serves; a flow-table entry of another VIP never matches.
    pub vip: VipId,
    /// Its address, for lists.
    pub address: IpAddr,
    /// Outer header.
    pub outer: Outer,
    /// Next-hop group that the outer (or, for L2, the unchanged) packet takes.
    pub group: GroupId,
    /// Largest inner IP packet, in bytes, that fits the path once encapsulated.
    pub inner_mtu: u32,
    /// It gets nothing new.
    pub draining: bool,
}

/// A next-hop group: flows spread over buckets. A bucket holds [`NextHopId`]; 64 buckets, weights by share of buckets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// `GROUP_BUCKETS` entries.
    pub buckets: Vec<NextHopId>,
}

impl GroupId {
    /// The highest of groups that are no VIP address's: those above are, in the order of the addresses' numbers. So the FIB's own answer says
    /// that a packet is for a VIP, and for which address.
    pub const LAST: Self = Self(28_671);

    /// The VIP address that the group is of.
    pub fn vip_address(self) -> Option<VipAddressId> {
        self.0.checked_sub(Self::LAST.0).filter(|number| *number > 0).map(VipAddressId)
    }
}

impl VipAddressId {
    /// The highest.
    pub const LAST: Self = Self(4_095);

    /// The group of the address.
    pub fn group(self) -> GroupId {
        GroupId(GroupId::LAST.0 + self.0)
    }
}

/// What a next hop does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NextHop {
    /// Send to this gateway or on-link host.
    Forward {
        /// Address that the neighbour protocol resolves.
        address: IpAddr,
        /// Outgoing interface, the VLAN device where there is one.
        ifindex: IfIndex,
        /// Its rewrite; incomplete until the neighbour is resolved.
        adjacency: AdjacencyId,
    },
    /// On-link, neighbour not known: the packet's destination is resolved.
    Glean {
        /// Outgoing interface.
        ifindex: IfIndex,
    },
    /// An address of this node, once no VIP there takes the packet.
    Receive {
        /// The address, where VIPs have it, too.
        vip: Option<IpAddr>,
    },
    /// Not forwarded here: the host's stack decides (subnet broadcast, prefixes of interfaces that are no ports).
    Host,
    /// A VIP address, or the prefix of several.
    Vip(IpNet),
    /// Drop silently.
    Blackhole,
    /// Drop and answer administratively prohibited.
    Prohibit,
    /// Drop and answer that there is no route.
    Unreachable,
}

/// A prebuilt link-layer rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjacency {
    /// Interface that the frame leaves by: the parent, for a VLAN.
    pub ifindex: IfIndex,
    /// Tag pushed, for a VLAN.
    pub vlan: Option<u16>,
    /// Largest layer-3 packet, in bytes.
    pub mtu: u32,
    /// Source of the Ethernet header.
    pub source: Mac,
    /// Destination of the Ethernet header; `None` while the neighbour is unresolved.
    pub destination: Option<Mac>,
}

/// All table contents of one generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Where packets come in.
    pub ports: BTreeMap<PortKey, Port>,
    /// Largest maximum segment sizes of TCP, by the port that packets come in by.
    pub clamps_in: BTreeMap<PortId, MaxMss>,
    /// The same by the device that they leave by.
    pub clamps_out: BTreeMap<IfIndex, MaxMss>,
    /// Prefixes whose packets are dropped.
    pub denylist: Denylist,
    /// Compiled policies of all ports; an index is a `u16`.
    pub filter: Vec<FilterOp>,
    /// By which ports packets may come from where a group leads to; empty where no port validates sources. See [`Origins`].
    pub origins: BTreeMap<GroupId, Origins>,
    /// Tunnel peers.
    pub tunnel_peers: BTreeMap<TunnelPeer, InnerSources>,
    /// Inner sources behind them; those of one peer ascend and do not overlap.
    pub tunnel_sources: Vec<SourceRange>,
    /// VIPs.
    pub vips: BTreeMap<VipKey, VipId>,
    /// Rings of the VIPs.
    pub rings: BTreeMap<VipId, Ring>,
    /// Backends.
    pub backends: BTreeMap<BackendId, Backend>,
    /// Backends that no packet of a client goes to, and health checks do as if it went there.
    pub checked: BTreeMap<BackendId, Backend>,
    /// VIPs whose clients stay with their backends, and for how long.
    pub affinity: BTreeMap<VipId, Duration>,
    /// VIPs whose packets go by QUIC connection IDs.
    pub quic: BTreeMap<VipId, Lengths>,
    /// Backends by the server IDs in them.
    pub quic_servers: BTreeMap<(VipId, ServerId), BackendId>,
    /// Forwarding: prefix (host bits zero) to group.
    pub fib: BTreeMap<IpNet, GroupId>,
    /// The same of every VRF but the default one.
    pub vrfs: BTreeMap<VrfId, BTreeMap<IpNet, GroupId>>,
    /// Next-hop groups.
    pub groups: BTreeMap<GroupId, Group>,
    /// Next hops.
    pub next_hops: BTreeMap<NextHopId, NextHop>,
    /// Adjacencies.
    pub adjacencies: BTreeMap<AdjacencyId, Adjacency>,
}

impl Tables {
    /// The addresses and prefixes that VIPs have, by number.
    pub fn vip_addresses(&self) -> impl Iterator<Item = (VipAddressId, IpNet)> {
        let of_group = |(id, group): (&GroupId, &Group)| {
            let number = id.vip_address()?;
            match self.next_hops.get(group.buckets.first()?)? {
                NextHop::Vip(prefix) => Some((number, *prefix)),
                NextHop::Receive { vip: Some(address) } => Some((number, (*address).into())),
                _ => None,
            }
        };
        self.groups.range(VipAddressId(1).group()..).filter_map(of_group)
    }
}

/// What the program must be able to do for some tables; the rest is compiled out at load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// IP-in-IP decapsulation.
    pub decap_ipip: bool,
    /// VXLAN decapsulation.
    pub decap_vxlan: bool,
    /// GUE decapsulation.
    pub decap_gue: bool,
    /// Denied sources.
    pub denied_sources: bool,
    /// Denied destinations.
    pub denied_destinations: bool,
    /// Untracked policy.
    pub filter: bool,
    /// Source validation.
    pub source_validation: bool,
    /// Largest maximum segment sizes of TCP.
    pub max_mss: bool,
    /// VIPs.
    pub vip: bool,
    /// QUIC connection IDs.
    pub quic: bool,
    /// Clients that stay with their backends.
    pub affinity: bool,
    /// VLAN tags.
    pub vlan: bool,
    /// VRFs.
    pub vrf: bool,
    /// AF_XDP slow path.
    pub slow_path: bool,
}

impl Features {
    /// Everything on.
    pub const FULL: Self = Self {
        decap_ipip: true,
        decap_vxlan: true,
        decap_gue: true,
        denied_sources: true,
        denied_destinations: true,
        filter: true,
        source_validation: true,
        max_mss: true,
        vip: true,
        quic: true,
        affinity: true,
        vlan: true,
        vrf: true,
        slow_path: true,
    };
}

/// Numbers that the program is specialised with beside its features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// UDP port of GUE.
    pub gue_port: u16,
    /// Punts a second, reason and core.
    pub punt_rate: u32,
    /// Flow table capacity.
    pub flow_table_entries: u32,
    /// The node's own, in the choice among next hops.
    pub hash_seed: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { vxlan_port: 4789, gue_port: 6080, punt_rate: 1_000, flow_table_entries: 65_536, hash_seed: 0 }
    }
}
