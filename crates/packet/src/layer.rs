//! Headers as values: what the builder writes, the dissector finds and the notation says.
//!
//! A field of type [`Override`] is computed by the builder when it is `None` (lengths, checksums, the number of the next
//! header) and written as given when it is `Some`, cut to the width of the field: that is how malformed packets are made.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A field that is computed unless a value is forced.
pub type Override = Option<u32>;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// One layer of a frame, outermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Ethernet II header.
    Eth(Eth),
    /// VLAN tag.
    Vlan(Vlan),
    /// ARP for IPv4 over Ethernet.
    Arp(Arp),
    /// IPv4 header.
    Ip4(Ip4),
    /// IPv6 header.
    Ip6(Ip6),
    /// IPv6 hop-by-hop, destination options or routing header.
    Ext(Ext),
    /// IPv6 fragment header.
    Frag(Frag),
    /// Authentication header.
    Ah(Ah),
    /// TCP header.
    Tcp(Tcp),
    /// UDP header.
    Udp(Udp),
    /// SCTP common header.
    Sctp(Sctp),
    /// SCTP DATA chunk.
    SctpData(SctpData),
    /// ICMP or ICMPv6 header.
    Icmp(Icmp),
    /// VXLAN header; an Ethernet layer follows.
    Vxlan(Vxlan),
    /// Geneve header.
    Geneve(Geneve),
    /// GRE header.
    Gre(Gre),
    /// GUE header of variant 0. Variant 1 has none: an IP layer follows UDP.
    Gue(Gue),
    /// QUIC header, as far as it is not protected.
    Quic(Quic),
    /// This many bytes counting 0, 1, 2, ... 255, 0, ...
    Data(usize),
    /// Bytes as they are.
    Raw(Vec<u8>),
    /// Ethernet padding: bytes beyond every length field. Only as the last layer.
    Pad(Vec<u8>),
}

/// Ethernet II header (IEEE 802.3 §3.2.6).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Eth {
    /// Source address.
    pub src: Mac,
    /// Destination address.
    pub dst: Mac,
    /// Ethertype, from the next layer.
    pub ethertype: Override,
}

/// VLAN tag (IEEE 802.1Q §9.6).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Vlan {
    /// VLAN identifier, 12 bits.
    pub id: u16,
    /// Priority code point, 3 bits.
    pub pcp: u8,
    /// Drop eligible indicator.
    pub dei: bool,
    /// Ethertype of the layer before; 0x8100 unless said.
    pub tpid: Option<u16>,
    /// Ethertype of what follows, from the next layer.
    pub ethertype: Override,
}

/// ARP for IPv4 over Ethernet (RFC 826).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Reply (operation 2) instead of request (1).
    pub reply: bool,
    /// Sender protocol address.
    pub sender: Ipv4Addr,
    /// Target protocol address.
    pub target: Ipv4Addr,
    /// Sender hardware address; the Ethernet source unless said.
    pub sender_mac: Option<Mac>,
    /// Target hardware address; zero in a request, the Ethernet destination in a reply unless said.
    pub target_mac: Option<Mac>,
}

/// IPv4 header (RFC 791 §3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip4 {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Time to live.
    pub ttl: u8,
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// Reserved flag.
    pub rf: bool,
    /// Don't fragment.
    pub df: bool,
    /// More fragments.
    pub mf: bool,
    /// Fragment offset in bytes, a multiple of 8.
    pub frag: u16,
    /// Options, a multiple of 4 bytes, at most 40.
    pub opts: Vec<u8>,
    /// Protocol, from the next layer.
    pub proto: Override,
    /// Total length.
    pub len: Override,
    /// Header checksum.
    pub csum: Override,
    /// Header length in 32-bit words.
    pub ihl: Override,
    /// Version.
    pub ver: Override,
}

impl Ip4 {
    /// An ordinary header: TTL 64, no flags, no options.
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr) -> Self {
        Self {
            src,
            dst,
            ttl: 64,
            tos: 0,
            id: 0,
            rf: false,
            df: false,
            mf: false,
            frag: 0,
            opts: Vec::new(),
            proto: None,
            len: None,
            csum: None,
            ihl: None,
            ver: None,
        }
    }
}

/// IPv6 header (RFC 8200 §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip6 {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// Hop limit.
    pub hlim: u8,
    /// Traffic class.
    pub tc: u8,
    /// Flow label, 20 bits.
    pub flow: u32,
    /// Next header, from the next layer.
    pub next: Override,
    /// Payload length.
    pub len: Override,
    /// Version.
    pub ver: Override,
}

impl Ip6 {
    /// An ordinary header: hop limit 64, traffic class and flow label 0.
    pub fn new(src: Ipv6Addr, dst: Ipv6Addr) -> Self {
        Self { src, dst, hlim: 64, tc: 0, flow: 0, next: None, len: None, ver: None }
    }
}

/// Which of the three extension headers that share a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtKind {
    /// Hop-by-hop options (RFC 8200 §4.3).
    HopByHop,
    /// Destination options (RFC 8200 §4.6).
    Destination,
    /// Routing (RFC 8200 §4.4).
    Routing,
}

impl ExtKind {
    /// What follows the first two bytes unless said: a PadN of six bytes, or a routing header of type 0 with no segments.
    pub fn default_body(self) -> [u8; 6] {
        match self {
            Self::HopByHop | Self::Destination => [1, 4, 0, 0, 0, 0],
            Self::Routing => [0; 6],
        }
    }
}

/// IPv6 hop-by-hop, destination options or routing header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ext {
    /// Which one.
    pub kind: ExtKind,
    /// Everything behind the first two bytes; its length is 6 more than a multiple of 8.
    pub body: Vec<u8>,
    /// Next header, from the next layer.
    pub next: Override,
    /// Header extension length: in 8-byte units, without the first.
    pub len: Override,
}

/// IPv6 fragment header (RFC 8200 §4.5).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Frag {
    /// Identification.
    pub id: u32,
    /// Fragment offset in bytes, a multiple of 8.
    pub off: u16,
    /// More fragments.
    pub more: bool,
    /// Next header, from the next layer.
    pub next: Override,
}

/// Authentication header (RFC 4302 §2).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ah {
    /// Security parameters index.
    pub spi: u32,
    /// Sequence number.
    pub seq: u32,
    /// Integrity check value, a multiple of 4 bytes.
    pub icv: Vec<u8>,
    /// Next header, from the next layer.
    pub next: Override,
    /// Payload length: in 4-byte units, minus 2.
    pub len: Override,
}

/// TCP header (RFC 9293 §3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// The 12 bits between data offset and window: 4 reserved, then CWR ECE URG ACK PSH RST SYN FIN.
    pub flags: u16,
    /// Window.
    pub win: u16,
    /// Urgent pointer.
    pub urg: u16,
    /// Options, a multiple of 4 bytes, at most 40.
    pub opts: Vec<u8>,
    /// Data offset in 32-bit words.
    pub off: Override,
    /// Checksum.
    pub csum: Override,
}

impl Tcp {
    /// Flag SYN.
    pub const SYN: u16 = 0x02;

    /// A segment with these flags, window 65535, numbers 0 and no options.
    pub fn new(sport: u16, dport: u16, flags: u16) -> Self {
        Self { sport, dport, seq: 0, ack: 0, flags, win: 0xffff, urg: 0, opts: Vec::new(), off: None, csum: None }
    }
}

/// UDP header (RFC 768).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Udp {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Length of header and data.
    pub len: Override,
    /// Checksum.
    pub csum: Override,
}

/// SCTP common header (RFC 9260 §3.1).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Sctp {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Verification tag.
    pub tag: u32,
    /// CRC32c (RFC 9260 §6.8), as the number that the bytes spell in network order.
    pub csum: Override,
}

/// Header of an SCTP DATA chunk (RFC 9260 §3.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SctpData {
    /// Flags: 3 for an unfragmented message.
    pub flags: u8,
    /// Transmission sequence number.
    pub tsn: u32,
    /// Stream identifier.
    pub sid: u16,
    /// Stream sequence number.
    pub ssn: u16,
    /// Payload protocol identifier.
    pub ppid: u32,
    /// Length of header and data, without the bytes that pad to a multiple of 4.
    pub len: Override,
}

impl Default for SctpData {
    /// A whole message, numbers 0.
    fn default() -> Self {
        Self { flags: 3, tsn: 0, sid: 0, ssn: 0, ppid: 0, len: None }
    }
}

/// ICMP (RFC 792) or ICMPv6 (RFC 4443) header.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Icmp {
    /// ICMPv6: other type numbers, and a checksum over the pseudo header too.
    pub v6: bool,
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes behind the checksum: identifier and sequence number, MTU, pointer, flags.
    pub rest: [u8; 4],
    /// Target and options of a neighbor solicitation or advertisement.
    pub neighbor: Option<Neighbor>,
    /// Checksum.
    pub csum: Override,
}

/// Body of a neighbor solicitation or advertisement (RFC 4861 §4.3, §4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Target address.
    pub target: Ipv6Addr,
    /// Option 1: source link-layer address.
    pub sll: Option<Mac>,
    /// Option 2: target link-layer address.
    pub tll: Option<Mac>,
}

/// VXLAN header (RFC 7348 §5).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Vxlan {
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// Flags; 0x08 (the I flag) unless said.
    pub flags: Override,
    /// The 24 reserved bits behind the flags.
    pub res1: Override,
    /// The 8 reserved bits behind the VNI.
    pub res2: Override,
}

/// Geneve header (RFC 8926 §3.4).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Geneve {
    /// Virtual network identifier, 24 bits.
    pub vni: u32,
    /// The byte behind the option length: control, critical options, reserved.
    pub flags: u8,
    /// Options, a multiple of 4 bytes, at most 252.
    pub opts: Vec<u8>,
    /// Protocol type: the ethertype of the next layer.
    pub ethertype: Override,
    /// The 8 reserved bits behind the VNI.
    pub res: Override,
}

/// GRE header (RFC 2784, RFC 2890).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Gre {
    /// Key.
    pub key: Option<u32>,
    /// Sequence number.
    pub seq: Option<u32>,
    /// A checksum is there.
    pub sum: bool,
    /// Protocol type: the ethertype of the next layer.
    pub ethertype: Override,
    /// The checksum, of header and payload; only where `sum` is set.
    pub csum: Override,
}

impl Gre {
    /// Bytes of the header.
    pub fn header_len(&self) -> usize {
        4 + 4 * (usize::from(self.sum) + usize::from(self.key.is_some()) + usize::from(self.seq.is_some()))
    }
}

/// GUE header of variant 0 (draft-ietf-intarea-gue-09 §3).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Gue {
    /// A control message instead of data.
    pub control: bool,
    /// Flags, 16 bits.
    pub flags: u16,
    /// The fields that the flags announce, a multiple of 4 bytes, at most 124.
    pub opts: Vec<u8>,
    /// Protocol number of the next layer, or the type of a control message.
    pub proto: Override,
}

/// QUIC header up to the connection identifiers (RFC 9000 §17, RFC 8999 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quic {
    /// Long header: before the keys of the connection are known.
    Long {
        /// The low six bits of the first byte: packet type (2) and type-specific bits (4).
        bits: u8,
        /// Version.
        version: u32,
        /// Destination connection identifier, at most 20 bytes.
        dcid: Vec<u8>,
        /// Source connection identifier, at most 20 bytes.
        scid: Vec<u8>,
    },
    /// Short header. The length of the identifier is not on the wire: 8 bytes are what a dissector takes for it.
    Short {
        /// The low six bits of the first byte: spin, reserved, key phase, packet number length.
        bits: u8,
        /// Destination connection identifier, at most 20 bytes.
        dcid: Vec<u8>,
    },
}

impl Quic {
    /// Bytes of an identifier in a short header, as far as a dissector knows.
    pub const SHORT_DCID: usize = 8;
    /// Longest identifier (RFC 9000 §17.2).
    pub const CID_MAX: usize = 20;
}

impl Layer {
    /// Every override of this layer, in the order of its text.
    pub(crate) fn overrides_mut(&mut self) -> Vec<&mut Override> {
        match self {
            Self::Eth(h) => vec![&mut h.ethertype],
            Self::Vlan(h) => vec![&mut h.ethertype],
            Self::Ip4(h) => vec![&mut h.proto, &mut h.len, &mut h.csum, &mut h.ihl, &mut h.ver],
            Self::Ip6(h) => vec![&mut h.next, &mut h.len, &mut h.ver],
            Self::Ext(h) => vec![&mut h.next, &mut h.len],
            Self::Frag(h) => vec![&mut h.next],
            Self::Ah(h) => vec![&mut h.next, &mut h.len],
            Self::Tcp(h) => vec![&mut h.off, &mut h.csum],
            Self::Udp(h) => vec![&mut h.len, &mut h.csum],
            Self::Sctp(h) => vec![&mut h.csum],
            Self::Icmp(h) => vec![&mut h.csum],
            Self::Vxlan(h) => vec![&mut h.flags, &mut h.res1, &mut h.res2],
            Self::SctpData(h) => vec![&mut h.len],
            Self::Geneve(h) => vec![&mut h.ethertype, &mut h.res],
            Self::Gre(h) => vec![&mut h.ethertype, &mut h.csum],
            Self::Gue(h) => vec![&mut h.proto],
            Self::Quic(_) | Self::Arp(_) | Self::Data(_) | Self::Raw(_) | Self::Pad(_) => Vec::new(),
        }
    }

    /// The word that starts this layer in the notation.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Eth(_) => "eth",
            Self::Vlan(_) => "vlan",
            Self::Arp(_) => "arp",
            Self::Ip4(_) => "ip4",
            Self::Ip6(_) => "ip6",
            Self::Ext(h) => match h.kind {
                ExtKind::HopByHop => "hbh",
                ExtKind::Destination => "dstopts",
                ExtKind::Routing => "routing",
            },
            Self::Frag(_) => "frag",
            Self::Ah(_) => "ah",
            Self::Tcp(_) => "tcp",
            Self::Udp(_) => "udp",
            Self::Sctp(_) => "sctp",
            Self::Icmp(h) => {
                if h.v6 {
                    "icmp6"
                } else {
                    "icmp"
                }
            }
            Self::Vxlan(_) => "vxlan",
            Self::SctpData(_) => "sctp-data",
            Self::Geneve(_) => "geneve",
            Self::Gre(_) => "gre",
            Self::Gue(_) => "gue",
            Self::Quic(_) => "quic",
            Self::Data(_) => "data",
            Self::Raw(_) => "hex",
            Self::Pad(_) => "pad",
        }
    }
}
