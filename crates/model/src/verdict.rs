//! The outcomes of a packet, by the names of `bpf/drop_reasons.h`.
//!
//! Order and names are those of the header: the position is the number that the program counts under. A test reads the
//! header and compares, so that neither side moves alone.

use std::fmt;

use crate::network::IfIndex;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// To the host's stack.
    Pass,
    /// Out of the interface that it came in by.
    Tx,
    /// Out of another interface.
    Redirect(IfIndex),
    /// To the slow path.
    Punt(PuntReason),
    /// Gone.
    Drop(DropReason),
}

impl Verdict {
    /// What the program does instead where no worker serves the queue (`docs/datapath.md`, Punts).
    #[must_use]
    pub fn without_worker(self) -> Self {
        match self {
            Self::Punt(reason) => match reason.fallback() {
                Fallback::Pass => Self::Pass,
                Fallback::Drop => Self::Drop(DropReason::PuntNoWorker),
            },
            other => other,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Tx => f.write_str("tx"),
            Self::Redirect(ifindex) => write!(f, "redirect({ifindex})"),
            Self::Punt(reason) => write!(f, "punt({reason})"),
            Self::Drop(reason) => write!(f, "drop({reason})"),
        }
    }
}

/// What happens to a punt that no worker takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fallback {
    /// The host's stack gets the packet.
    Pass,
    /// Dropped as [`DropReason::PuntNoWorker`].
    Drop,
}

macro_rules! reasons {
    ($(#[$doc:meta])* $type:ident { $($(#[$help:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type {
            $($(#[$help])* $variant,)*
        }

        impl $type {
            /// Every reason, in the order of the program's numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name in the program, the metrics and the documents.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The reason called `name`.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.name() == name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

reasons! {
    /// Why a packet is dropped.
    DropReason {
        /// Frame shorter than its Ethernet header and VLAN tags.
        EthShort = "ETH_SHORT",
        /// IPv4 packet shorter than its header or its total length.
        Ip4Short = "IP4_SHORT",
        /// IPv4 version, header length or total length invalid.
        Ip4Header = "IP4_HEADER",
        /// IPv4 header checksum wrong.
        Ip4Csum = "IP4_CSUM",
        /// IPv6 packet shorter than its header or its payload length.
        Ip6Short = "IP6_SHORT",
        /// IPv6 version invalid.
        Ip6Header = "IP6_HEADER",
        /// More than six IPv6 extension headers.
        Ip6ExthdrLimit = "IP6_EXTHDR_LIMIT",
        /// TCP, UDP, SCTP or ICMP header cut off.
        L4Short = "L4_SHORT",
        /// Source address that no packet may have, or link-local in a packet to be forwarded.
        SrcInvalid = "SRC_INVALID",
        /// Destination address that no packet may have.
        DstInvalid = "DST_INVALID",
        /// Neither IP nor ARP on an interface with policy.
        Ethertype = "ETHERTYPE",
        /// Tunnel packet from a source that no Tunnel names.
        TunPeerUnknown = "TUN_PEER_UNKNOWN",
        /// VXLAN network identifier that no Tunnel names.
        TunVniUnknown = "TUN_VNI_UNKNOWN",
        /// VXLAN header invalid or inner frame not IP.
        TunHeader = "TUN_HEADER",
        /// Fragment of a tunnel packet.
        TunFragment = "TUN_FRAGMENT",
        /// Tunnel packet for this node inside a tunnel packet.
        TunNested = "TUN_NESTED",
        /// Outer congestion mark on an inner packet that cannot carry it (RFC 6040).
        TunEcn = "TUN_ECN",
        /// Source or destination is on a Denylist.
        Denylist = "DENYLIST",
        /// Denied by an untracked policy.
        PolicyDeny = "POLICY_DENY",
        /// VIP address without a service on this port.
        VipNoService = "VIP_NO_SERVICE",
        /// No usable backend behind the VIP.
        VipNoBackend = "VIP_NO_BACKEND",
        /// Fragment for a VIP: its ports are unknown.
        VipFragment = "VIP_FRAGMENT",
        /// Route says blackhole.
        Blackhole = "BLACKHOLE",
        /// IPv4 packet larger than the next hop's MTU that may be fragmented.
        MtuNoDf = "MTU_NO_DF",
        /// Punt over the rate limit of its reason.
        PuntRate = "PUNT_RATE",
        /// Punt without a slow-path worker on the queue.
        PuntNoWorker = "PUNT_NO_WORKER",
        /// No headroom for the outer header.
        AdjustHead = "ADJUST_HEAD",
        /// A table refers to an entry that does not exist.
        Internal = "INTERNAL",
        /// Source validation: no route back to the source.
        SrcUnrouted = "SRC_UNROUTED",
        /// Source validation: the route back to the source leads by another interface.
        SrcInterface = "SRC_INTERFACE",
        /// Inner source that the Tunnel does not have behind this peer.
        TunSource = "TUN_SOURCE",
        /// Tunnel packet from an address of this node, or with one or a VIP as inner source.
        TunReflected = "TUN_REFLECTED",
        /// ICMP error for a VIP that quotes too little of the packet it is about.
        VipErrorShort = "VIP_ERROR_SHORT",
    }
}

reasons! {
    /// Why a packet goes to the slow path.
    PuntReason {
        /// Next hop's link-layer address unresolved.
        Neighbor = "NEIGHBOR",
        /// Next hop's link-layer address unresolved, packet already encapsulated.
        NeighborEncap = "NEIGHBOR_ENCAP",
        /// TTL or hop limit used up.
        TtlExceeded = "TTL_EXCEEDED",
        /// No route to the destination.
        NoRoute = "NO_ROUTE",
        /// Route says prohibit.
        Prohibit = "PROHIBIT",
        /// Larger than the path's MTU and not to be fragmented.
        PacketTooBig = "PACKET_TOO_BIG",
        /// Echo request to a VIP.
        VipEcho = "VIP_ECHO",
    }
}

impl PuntReason {
    /// What happens where no worker serves the queue.
    #[must_use]
    pub const fn fallback(self) -> Fallback {
        match self {
            Self::Neighbor | Self::TtlExceeded => Fallback::Pass,
            Self::NeighborEncap | Self::NoRoute | Self::Prohibit | Self::PacketTooBig | Self::VipEcho => Fallback::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = include_str!("../../../bpf/drop_reasons.h");

    /// The arguments of each `X(...)` of one list of the header, without the help text.
    fn rows(list: &str) -> Vec<Vec<&'static str>> {
        let at = HEADER.find(&format!("#define {list}(X)")).unwrap();
        HEADER[at..]
            .lines()
            .skip(1)
            .map_while(|line| line.trim().strip_prefix("X("))
            .map(|row| row.split('"').next().unwrap().split(',').map(str::trim).filter(|a| !a.is_empty()).collect())
            .collect()
    }

    #[test]
    fn drop_reasons_are_those_of_the_header_in_its_order() {
        let header: Vec<_> = rows("DROP_REASONS").into_iter().map(|row| row[0]).collect();
        let here: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(header, here);
    }

    #[test]
    fn punt_reasons_and_their_fallbacks_are_those_of_the_header_in_its_order() {
        let header: Vec<_> = rows("PUNT_REASONS").into_iter().map(|row| (row[0], row[1])).collect();
        let here: Vec<_> = PuntReason::ALL
            .iter()
            .map(|reason| (reason.name(), if reason.fallback() == Fallback::Pass { "PASS" } else { "DROP" }))
            .collect();
        assert_eq!(header, here);
    }

    #[test]
    fn names_lead_back_to_the_reason() {
        assert_eq!(DropReason::from_name("TUN_ECN"), Some(DropReason::TunEcn));
        assert_eq!(PuntReason::from_name("TUN_ECN"), None);
    }
}
