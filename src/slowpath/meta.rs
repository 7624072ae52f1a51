//! What the program says about a punted frame: `struct punt_meta` of `bpf/abi.h`, in front of the packet.

use std::net::{IpAddr, Ipv6Addr};

use model::network::IfIndex;
use model::tables::PortId;
use serde::Serialize;

/// Size of `struct punt_meta`.
pub(super) const META_LEN: usize = 32;
/// The packet is forwarded and its TTL has not been decremented yet (`PUNT_DECREMENT_TTL`).
const DECREMENT_TTL: u8 = 1;

/// Offsets of the fields of `struct punt_meta`.
mod offset {
    pub(super) const REASON: usize = 0;
    pub(super) const FLAGS: usize = 1;
    pub(super) const L2_LEN: usize = 2;
    pub(super) const MTU: usize = 4;
    pub(super) const PORT: usize = 8;
    pub(super) const EGRESS_IFINDEX: usize = 12;
    pub(super) const ADDRESS: usize = 16;
}

/// Why a frame was punted (`PUNT_REASONS` of `bpf/drop_reasons.h`, in its order).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(u8)]
pub enum PuntReason {
    /// The next hop's link-layer address is unresolved.
    Neighbor,
    /// Likewise, and the packet is already encapsulated.
    NeighborEncap,
    /// TTL or hop limit used up.
    TtlExceeded,
    /// No route to the destination.
    NoRoute,
    /// The route says prohibit.
    Prohibit,
    /// Larger than the path's MTU and not to be fragmented.
    PacketTooBig,
    /// Echo request to a VIP.
    VipEcho,
}

impl PuntReason {
    /// Every reason, in the order of the ABI.
    pub const ALL: [Self; 7] = [
        Self::Neighbor,
        Self::NeighborEncap,
        Self::TtlExceeded,
        Self::NoRoute,
        Self::Prohibit,
        Self::PacketTooBig,
        Self::VipEcho,
    ];

    /// Its name in `bpf/drop_reasons.h`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Neighbor => "NEIGHBOR",
            Self::NeighborEncap => "NEIGHBOR_ENCAP",
            Self::TtlExceeded => "TTL_EXCEEDED",
            Self::NoRoute => "NO_ROUTE",
            Self::Prohibit => "PROHIBIT",
            Self::PacketTooBig => "PACKET_TOO_BIG",
            Self::VipEcho => "VIP_ECHO",
        }
    }
}

/// The decoded metadata of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Punt {
    /// Why.
    pub reason: PuntReason,
    /// TTL or hop limit is still to be decremented.
    pub decrement_ttl: bool,
    /// Bytes before the IP header.
    pub l2_len: usize,
    /// `PACKET_TOO_BIG`: largest packet that fits, in bytes.
    pub mtu: u32,
    /// Where it came in.
    pub port: PortId,
    /// `NEIGHBOR`: interface that the next hop is on.
    pub egress: IfIndex,
    /// `NEIGHBOR`: what to resolve.
    pub address: IpAddr,
}

impl Punt {
    /// Reads the metadata; `None` for a reason that this version does not know.
    #[must_use]
    pub fn decode(bytes: &[u8; META_LEN]) -> Option<Self> {
        let [reason, flags] = field(bytes, offset::REASON)?;
        const { assert!(offset::FLAGS == offset::REASON + 1) };
        let address: [u8; 16] = field(bytes, offset::ADDRESS)?;
        Some(Self {
            reason: PuntReason::ALL.get(usize::from(reason)).copied()?,
            decrement_ttl: flags & DECREMENT_TTL != 0,
            l2_len: usize::from(u16::from_ne_bytes(field(bytes, offset::L2_LEN)?)),
            mtu: u32::from_ne_bytes(field(bytes, offset::MTU)?),
            port: PortId(u32::from_ne_bytes(field(bytes, offset::PORT)?)),
            egress: IfIndex(u32::from_ne_bytes(field(bytes, offset::EGRESS_IFINDEX)?)),
            // RFC 4291 §2.5.5.2: IPv4 is ::ffff:a.b.c.d.
            address: Ipv6Addr::from(address).to_canonical(),
        })
    }
}

fn field<const N: usize>(bytes: &[u8; META_LEN], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}
