//! Numbers of the registries that packets are made of (IANA, IEEE), and lengths of fixed headers in bytes.

/// Ethertypes (IEEE 802).
pub mod ethertype {
    /// IPv4 (RFC 894).
    pub const IPV4: u16 = 0x0800;
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// IPv6 (RFC 2464).
    pub const IPV6: u16 = 0x86dd;
    /// Customer VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// Service VLAN tag (IEEE 802.1ad).
    pub const QINQ: u16 = 0x88a8;
    /// Ethernet in GRE or Geneve (RFC 1701, RFC 8926 §3.4).
    pub const TEB: u16 = 0x6558;
    /// Local experimental ethertype 1 (IEEE 802), written where nothing says what follows.
    pub const EXPERIMENTAL: u16 = 0x88b5;
}

/// IP protocol numbers and IPv6 extension header types.
pub mod ip {
    /// IPv6 hop-by-hop options (RFC 8200 §4.3).
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003).
    pub const IPV4: u8 = 4;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// IPv6 in IP (RFC 4213).
    pub const IPV6: u8 = 41;
    /// IPv6 routing header (RFC 8200 §4.4).
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header (RFC 8200 §4.5).
    pub const FRAGMENT: u8 = 44;
    /// GRE (RFC 2784).
    pub const GRE: u8 = 47;
    /// Authentication header (RFC 4302).
    pub const AH: u8 = 51;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// No next header (RFC 8200 §4.7).
    pub const NO_NEXT: u8 = 59;
    /// IPv6 destination options (RFC 8200 §4.6).
    pub const DST_OPTS: u8 = 60;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
    /// Experimentation and testing 1 (RFC 3692), written where nothing says what follows.
    pub const EXPERIMENTAL: u8 = 253;
}

/// ICMP types (RFC 792).
pub mod icmp4 {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Source quench (RFC 6633 deprecates it).
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// Code of unreachable: fragmentation needed and DF set (RFC 1191 §4).
    pub const CODE_FRAGMENTATION_NEEDED: u8 = 4;
}

/// ICMPv6 types (RFC 4443, RFC 4861).
pub mod icmp6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Neighbor solicitation.
    pub const NEIGHBOR_SOLICIT: u8 = 135;
    /// Neighbor advertisement.
    pub const NEIGHBOR_ADVERT: u8 = 136;
    /// Redirect.
    pub const REDIRECT: u8 = 137;
}

/// UDP port of VXLAN (RFC 7348 §5).
pub const VXLAN_PORT: u16 = 4789;
/// UDP port of Geneve (RFC 8926 §3.3).
pub const GENEVE_PORT: u16 = 6081;
/// UDP port of GUE (draft-ietf-intarea-gue-09 §8).
pub const GUE_PORT: u16 = 6080;
/// UDP port of HTTP/3, where a dissector looks for QUIC (RFC 9114 §3.1).
pub const QUIC_PORT: u16 = 443;
/// Ethernet header without tags.
pub const ETHERNET_LEN: usize = 14;
/// VLAN tag.
pub const VLAN_LEN: usize = 4;
/// IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// IPv6 header.
pub const IPV6_LEN: usize = 40;
/// TCP header without options.
pub const TCP_LEN: usize = 20;
/// UDP header.
pub const UDP_LEN: usize = 8;
/// ICMP and ICMPv6 header.
pub const ICMP_LEN: usize = 8;
/// SCTP common header.
pub const SCTP_LEN: usize = 12;
/// Header of an SCTP DATA chunk.
pub const SCTP_DATA_LEN: usize = 16;
/// Geneve header without options.
pub const GENEVE_LEN: usize = 8;
/// VXLAN header.
pub const VXLAN_LEN: usize = 8;
/// ARP for IPv4 over Ethernet.
pub const ARP_LEN: usize = 28;
