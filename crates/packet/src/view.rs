//! A frame as a forwarder sees it: zero-copy, with the checks and their order of `docs/datapath.md` section 1.
//!
//! Offsets count from the start of the slice that was parsed. Nothing is read beyond the IP packet's own length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum;
use crate::layer::Mac;
use crate::proto::{self, ethertype, ip};
use crate::read::{array, u8, u16, u32};

/// IPv6 extension headers that are walked; one more is [`ParseError::Ip6ExthdrLimit`].
pub const EXTENSION_HEADERS_MAX: usize = 6;

/// Why the datapath would drop a frame while parsing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    /// `ETH_SHORT`
    #[error("frame shorter than its Ethernet header and VLAN tags")]
    EthShort,
    /// `IP4_SHORT`
    #[error("IPv4 packet shorter than its header or its total length")]
    Ip4Short,
    /// `IP4_HEADER`
    #[error("IPv4 version, header length or total length invalid")]
    Ip4Header,
    /// `IP4_CSUM`
    #[error("IPv4 header checksum wrong")]
    Ip4Csum,
    /// `IP6_SHORT`
    #[error("IPv6 packet shorter than its header or its payload length")]
    Ip6Short,
    /// `IP6_HEADER`
    #[error("IPv6 version invalid")]
    Ip6Header,
    /// `IP6_EXTHDR_LIMIT`
    #[error("more than six IPv6 extension headers")]
    Ip6ExthdrLimit,
    /// `L4_SHORT`
    #[error("TCP, UDP, SCTP or ICMP header cut off")]
    L4Short,
    /// `SRC_INVALID`
    #[error("source address is multicast, loopback or unspecified")]
    SrcInvalid,
}

impl ParseError {
    /// The name of the drop reason in `bpf/drop_reasons.h`.
    pub fn drop_reason(self) -> &'static str {
        match self {
            Self::EthShort => "ETH_SHORT",
            Self::Ip4Short => "IP4_SHORT",
            Self::Ip4Header => "IP4_HEADER",
            Self::Ip4Csum => "IP4_CSUM",
            Self::Ip6Short => "IP6_SHORT",
            Self::Ip6Header => "IP6_HEADER",
            Self::Ip6ExthdrLimit => "IP6_EXTHDR_LIMIT",
            Self::L4Short => "L4_SHORT",
            Self::SrcInvalid => "SRC_INVALID",
        }
    }
}

/// A parsed Ethernet frame.
///
/// ```
/// use margay_packet::{notation, view::Frame};
/// let bytes = notation::encode("eth 02::1 > 02::2 / vlan 7 / ip4 192.0.2.1 > 198.51.100.1 / udp 53 > 1024").unwrap();
/// let frame = Frame::parse(&bytes).unwrap();
/// assert_eq!(frame.vlans(), [7]);
/// assert_eq!(frame.ip.unwrap().ports, Some((53, 1024)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The whole frame.
    pub bytes: &'a [u8],
    /// Ethernet destination.
    pub eth_dst: Mac,
    /// Ethernet source.
    pub eth_src: Mac,
    tags: [u16; 2],
    tag_count: usize,
    /// Ethertype behind the tags.
    pub ethertype: u16,
    /// Where the network header starts: bytes of link-layer header.
    pub l3: usize,
    /// The IP packet, when it is one.
    pub ip: Option<Ip>,
}

/// A parsed IP packet. Offsets count from the start of what was parsed, so the frame for [`Frame::ip`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Where the IP header starts.
    pub l3: usize,
    /// Source address; tells the family.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// Protocol: the last header of an IPv6 chain.
    pub protocol: u8,
    /// Where the transport header (or a fragment's data) starts.
    pub l4: usize,
    /// Bytes of the IP packet, all its headers included; padding behind it is not.
    pub len: usize,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class: DSCP and ECN.
    pub tos: u8,
    /// Must not be fragmented on the way: IPv4 with DF; every IPv6 packet.
    pub dont_fragment: bool,
    /// Set for fragments, the first included, and for IPv6 packets with a fragment header.
    pub fragment: Option<Fragment>,
    /// Source and destination port of TCP, UDP and SCTP; `None` in fragments other than the first.
    pub ports: Option<(u16, u16)>,
    /// Type and code of ICMP (over IPv4) and ICMPv6 (over IPv6); `None` in fragments other than the first.
    pub icmp: Option<(u8, u8)>,
}

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification; 16 bits in IPv4.
    pub id: u32,
    /// Offset of its data in bytes.
    pub offset: usize,
    /// More fragments follow.
    pub more: bool,
}

impl<'a> Frame<'a> {
    /// Parses Ethernet, up to two VLAN tags, and IP when the ethertype says so.
    ///
    /// # Errors
    /// The first check of `docs/datapath.md` section 1 that fails. Frames that are not IP only fail by `EthShort`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let eth_dst = array(bytes, 0).ok_or(ParseError::EthShort)?;
        let eth_src = array(bytes, 6).ok_or(ParseError::EthShort)?;
        let mut ethertype = u16(bytes, 12).ok_or(ParseError::EthShort)?;
        let mut l3 = proto::ETHERNET_LEN;
        let (mut tags, mut tag_count) = ([0; 2], 0);
        for tag in &mut tags {
            if !matches!(ethertype, ethertype::VLAN | ethertype::QINQ) {
                break;
            }
            *tag = u16(bytes, l3).ok_or(ParseError::EthShort)? & 0xfff;
            ethertype = u16(bytes, l3 + 2).ok_or(ParseError::EthShort)?;
            l3 += proto::VLAN_LEN;
            tag_count += 1;
        }
        let packet = bytes.get(l3..).unwrap_or_default();
        let ip = Ip::parse(packet, ethertype).transpose()?.map(|ip| Ip { l3, l4: ip.l4 + l3, ..ip });
        Ok(Self { bytes, eth_dst, eth_src, tags, tag_count, ethertype, l3, ip })
    }

    /// Identifiers of the VLAN tags, outermost first; at most two.
    pub fn vlans(&self) -> &[u16] {
        self.tags.get(..self.tag_count).unwrap_or_default()
    }

    /// The IP packet without Ethernet header and padding.
    pub fn packet(&self) -> Option<&'a [u8]> {
        let ip = self.ip?;
        self.bytes.get(ip.l3..ip.l3 + ip.len)
    }

    /// The transport header and what follows it, without padding.
    pub fn payload(&self) -> Option<&'a [u8]> {
        let ip = self.ip?;
        self.bytes.get(ip.l4..ip.l3 + ip.len)
    }

    /// True for a multicast or broadcast destination (IEEE 802.3 §3.2.3).
    pub fn is_group(&self) -> bool {
        let [first, ..] = self.eth_dst;
        first & 1 == 1
    }
}

impl Ip {
    /// Parses a packet of this ethertype, which starts at the first byte; `None` when that is not IP.
    pub fn parse(packet: &[u8], ethertype: u16) -> Option<Result<Self, ParseError>> {
        match ethertype {
            ethertype::IPV4 => Some(parse_v4(packet)),
            ethertype::IPV6 => Some(parse_v6(packet)),
            _ => None,
        }
    }

    /// True for a fragment other than the first: its bytes are no transport header.
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset > 0)
    }

    /// Stage 1.7 and 1.8: the source, then what the transport header says.
    fn complete(mut self, packet: &[u8]) -> Result<Self, ParseError> {
        if !source_valid(self.src, self.dst) {
            return Err(ParseError::SrcInvalid);
        }
        if self.is_later_fragment() {
            return Ok(self);
        }
        let l4 = packet.get(self.l4..self.len).unwrap_or_default();
        let header = || array::<4>(l4, 0).ok_or(ParseError::L4Short);
        match (self.protocol, self.src) {
            (ip::TCP | ip::UDP | ip::SCTP, _) => {
                let [a, b, c, d] = header()?;
                self.ports = Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
            }
            (ip::ICMP, IpAddr::V4(_)) | (ip::ICMPV6, IpAddr::V6(_)) => {
                let [kind, code, ..] = header()?;
                self.icmp = Some((kind, code));
            }
            _ => {}
        }
        Ok(self)
    }
}

/// True when packets may come from `src`. The unspecified address may only ask everybody (DHCP, duplicate detection).
fn source_valid(src: IpAddr, dst: IpAddr) -> bool {
    if src.is_unspecified() {
        return dst.is_multicast() || dst == IpAddr::V4(Ipv4Addr::BROADCAST);
    }
    !src.is_multicast() && !src.is_loopback()
}

fn parse_v4(packet: &[u8]) -> Result<Ip, ParseError> {
    let short = ParseError::Ip4Short;
    let header: [u8; proto::IPV4_LEN] = array(packet, 0).ok_or(short)?;
    let [first, tos, ..] = header;
    let header_len = usize::from(first & 0xf) * 4;
    let options = packet.get(..header_len).ok_or(short)?;
    if first >> 4 != 4 || header_len < proto::IPV4_LEN {
        return Err(ParseError::Ip4Header);
    }
    if checksum::internet(options) != 0 {
        return Err(ParseError::Ip4Csum);
    }
    let len = usize::from(u16(packet, 2).ok_or(short)?);
    if len < header_len {
        return Err(ParseError::Ip4Header);
    }
    if len > packet.len() {
        return Err(short);
    }
    let flags = u16(packet, 6).ok_or(short)?;
    let (offset, more) = (usize::from(flags & 0x1fff) * 8, flags & 0x2000 != 0);
    let id = u16(packet, 4).ok_or(short)?.into();
    let ip = Ip {
        l3: 0,
        src: Ipv4Addr::from(u32(packet, 12).ok_or(short)?).into(),
        dst: Ipv4Addr::from(u32(packet, 16).ok_or(short)?).into(),
        protocol: u8(packet, 9).ok_or(short)?,
        l4: header_len,
        len,
        ttl: u8(packet, 8).ok_or(short)?,
        tos,
        dont_fragment: flags & 0x4000 != 0,
        fragment: (offset > 0 || more).then_some(Fragment { id, offset, more }),
        ports: None,
        icmp: None,
    };
    ip.complete(packet)
}

fn parse_v6(packet: &[u8]) -> Result<Ip, ParseError> {
    let short = ParseError::Ip6Short;
    if packet.len() < proto::IPV6_LEN {
        return Err(short);
    }
    let len = usize::from(u16(packet, 4).ok_or(short)?) + proto::IPV6_LEN;
    let packet = packet.get(..len).ok_or(short)?;
    let word = u32(packet, 0).ok_or(short)?;
    if word >> 28 != 6 {
        return Err(ParseError::Ip6Header);
    }
    let chain = walk(packet, u8(packet, 6).ok_or(short)?)?;
    let ip = Ip {
        l3: 0,
        src: Ipv6Addr::from(array::<16>(packet, 8).ok_or(short)?).into(),
        dst: Ipv6Addr::from(array::<16>(packet, 24).ok_or(short)?).into(),
        protocol: chain.protocol,
        l4: chain.l4,
        len,
        ttl: u8(packet, 7).ok_or(short)?,
        tos: u8::try_from(word >> 20 & 0xff).unwrap_or_default(),
        dont_fragment: true,
        fragment: chain.fragment,
        ports: None,
        icmp: None,
    };
    ip.complete(packet)
}

struct Chain {
    protocol: u8,
    l4: usize,
    fragment: Option<Fragment>,
}

/// Walks the extension headers; a fragment other than the first ends the chain (RFC 8200 §4.5).
fn walk(packet: &[u8], first: u8) -> Result<Chain, ParseError> {
    let short = ParseError::Ip6Short;
    let mut chain = Chain { protocol: first, l4: proto::IPV6_LEN, fragment: None };
    for walked in 0.. {
        let units = match chain.protocol {
            ip::HOP_BY_HOP | ip::ROUTING | ip::DST_OPTS | ip::FRAGMENT | ip::AH if walked == EXTENSION_HEADERS_MAX => {
                return Err(ParseError::Ip6ExthdrLimit);
            }
            ip::HOP_BY_HOP | ip::ROUTING | ip::DST_OPTS => 8,
            ip::AH => 4,
            ip::FRAGMENT => 0,
            _ => break,
        };
        let [next, count] = array(packet, chain.l4).ok_or(short)?;
        let len = match units {
            8 => (usize::from(count) + 1) * 8,
            4 => (usize::from(count) + 2) * 4,
            _ => 8,
        };
        let header = packet.get(chain.l4..chain.l4 + len).ok_or(short)?;
        if chain.protocol == ip::FRAGMENT {
            let word = u16(header, 2).ok_or(short)?;
            let (id, offset, more) = (u32(header, 4).ok_or(short)?, usize::from(word & !7), word & 1 == 1);
            chain.fragment = Some(Fragment { id, offset, more });
        }
        chain.protocol = next;
        chain.l4 += len;
        if chain.fragment.is_some_and(|fragment| fragment.offset > 0) {
            break;
        }
    }
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notation::encode;
    use proptest::prelude::*;

    #[track_caller]
    fn parse(text: &str) -> Result<Ip, ParseError> {
        Frame::parse(&encode(&format!("eth 02::1 > 02::2 / {text}")).unwrap()).map(|frame| frame.ip.unwrap())
    }

    #[test]
    fn what_a_forwarder_asks() {
        let bytes =
            encode("eth 02::1 > 03::2 / vlan 5 tpid=0x88a8 / vlan 6 / ip4 192.0.2.1 > 10.0.0.1 ttl=7 tos=9 df opts=01010101 / tcp 5 > 6 S / data 3 / pad 9")
                .unwrap();
        let frame = Frame::parse(&bytes).unwrap();
        assert_eq!((frame.eth_src, frame.eth_dst), ([2, 0, 0, 0, 0, 1], [3, 0, 0, 0, 0, 2]));
        assert!(frame.is_group());
        assert_eq!((frame.vlans(), frame.ethertype, frame.l3), (&[5, 6][..], ethertype::IPV4, 22));
        let ip = frame.ip.unwrap();
        assert_eq!((ip.src, ip.dst), ("192.0.2.1".parse().unwrap(), "10.0.0.1".parse().unwrap()));
        assert_eq!((ip.protocol, ip.l3, ip.l4, ip.len, ip.ttl, ip.tos), (6, 22, 46, 24 + 20 + 3, 7, 9));
        assert_eq!((ip.dont_fragment, ip.fragment, ip.ports, ip.icmp), (true, None, Some((5, 6)), None));
        assert_eq!(frame.packet().unwrap(), &bytes[22..22 + 47]);
        assert_eq!(frame.payload().unwrap(), &bytes[46..22 + 47]);
    }

    #[test]
    fn ipv6_chains() {
        let v6 = "ip6 2001:db8::1 > 2001:db8::2";
        let six = "hbh / dstopts / routing / dstopts / ah / frag id=9 more";
        let ip = parse(&format!("{v6} / {six} / udp 1 > 2")).unwrap();
        assert_eq!((ip.protocol, ip.l4, ip.ports), (17, 14 + 40 + 4 * 8 + 24 + 8, Some((1, 2))));
        assert_eq!(ip.fragment, Some(Fragment { id: 9, offset: 0, more: true }));
        assert_eq!(parse(&format!("{v6} / dstopts / {six} / udp 1 > 2")), Err(ParseError::Ip6ExthdrLimit));
        let later = parse(&format!("{v6} / frag id=9 off=16 proto=60 / hex 06ff")).unwrap();
        assert_eq!((later.protocol, later.ports, later.is_later_fragment()), (60, None, true));
        assert_eq!(parse(&format!("{v6} / dstopts len=9 / udp 1 > 2")), Err(ParseError::Ip6Short));
        assert_eq!(parse(&format!("{v6} proto=43 / hex 06")), Err(ParseError::Ip6Short));
        assert_eq!(parse(v6).unwrap().protocol, 59);
    }

    #[test]
    fn checks_fail_by_the_name_and_in_the_order_of_the_contract() {
        let v4 = "ip4 192.0.2.1 > 10.0.0.1";
        let v6 = "ip6 2001:db8::1 > 2001:db8::2";
        for (text, expected) in [
            ("hex 0001".to_owned(), Some("ETH_SHORT")),
            ("eth 02::1 > 02::2 type=0x8100 / hex 0005".to_owned(), Some("ETH_SHORT")),
            ("eth 02::1 > 02::2 type=0x0800 / hex 45".to_owned(), Some("IP4_SHORT")),
            (format!("eth 02::1 > 02::2 / {v4} ihl=15 / data 1"), Some("IP4_SHORT")),
            (format!("eth 02::1 > 02::2 / {v4} ihl=4 / data 1"), Some("IP4_HEADER")),
            (format!("eth 02::1 > 02::2 / {v4} ver=5 csum=1 / data 1"), Some("IP4_HEADER")),
            (format!("eth 02::1 > 02::2 / {v4} csum=1 len=19 / data 1"), Some("IP4_CSUM")),
            (format!("eth 02::1 > 02::2 / {v4} len=19 / data 1"), Some("IP4_HEADER")),
            (format!("eth 02::1 > 02::2 / {v4} len=22 / data 1"), Some("IP4_SHORT")),
            (format!("eth 02::1 > 02::2 / {v6} len=2 / data 1"), Some("IP6_SHORT")),
            (format!("eth 02::1 > 02::2 / {v6} ver=4 / data 1"), Some("IP6_HEADER")),
            (format!("eth 02::1 > 02::2 / {v4} proto=tcp / data 3"), Some("L4_SHORT")),
            (format!("eth 02::1 > 02::2 / {v4} proto=icmp / data 3 / pad 5"), Some("L4_SHORT")),
            (format!("eth 02::1 > 02::2 / {v4} proto=icmp6 / data 3"), None),
            (format!("eth 02::1 > 02::2 / {v6} proto=sctp / data 3"), Some("L4_SHORT")),
            (format!("eth 02::1 > 02::2 / {v4} frag=8 proto=tcp / data 3"), None),
            ("eth 02::1 > 02::2 / ip4 127.0.0.1 > 10.0.0.1 proto=tcp".to_owned(), Some("SRC_INVALID")),
            ("eth 02::1 > 02::2 / ip4 239.0.0.1 > 10.0.0.1".to_owned(), Some("SRC_INVALID")),
            ("eth 02::1 > 02::2 / ip4 0.0.0.0 > 10.0.0.1".to_owned(), Some("SRC_INVALID")),
            ("eth 02::1 > 02::2 / ip4 0.0.0.0 > 255.255.255.255 / udp 68 > 67".to_owned(), None),
            ("eth 02::1 > 02::2 / ip6 ::1 > 2001:db8::2".to_owned(), Some("SRC_INVALID")),
            ("eth 02::1 > 02::2 / ip6 :: > ff02::1".to_owned(), None),
            ("eth 02::1 > 02::2 / arp who-has 10.0.0.1 tell 10.0.0.2".to_owned(), None),
        ] {
            let bytes = encode(&text).unwrap();
            assert_eq!(Frame::parse(&bytes).err().map(ParseError::drop_reason), expected, "{text}");
        }
    }

    /// Names must be those that the programs count under.
    #[test]
    fn drop_reasons_are_those_of_the_programs() {
        let header = include_str!("../../../bpf/drop_reasons.h");
        for error in [
            ParseError::EthShort,
            ParseError::Ip4Short,
            ParseError::Ip4Header,
            ParseError::Ip4Csum,
            ParseError::Ip6Short,
            ParseError::Ip6Header,
            ParseError::Ip6ExthdrLimit,
            ParseError::L4Short,
            ParseError::SrcInvalid,
        ] {
            assert!(header.contains(&format!("X({}, ", error.drop_reason())), "{error:?}");
        }
    }

    proptest! {
        #[test]
        fn offsets_stay_inside(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), v6: bool) {
            for (at, byte) in [(12, if v6 { 0x86 } else { 8 }), (13, if v6 { 0xdd } else { 0 }), (14, if v6 { 0x60 } else { 0x45 })] {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            if let Ok(frame) = Frame::parse(&bytes)
                && let Some(ip) = frame.ip
            {
                prop_assert!(ip.l3 < ip.l4 && ip.l4 <= ip.l3 + ip.len && ip.l3 + ip.len <= bytes.len());
                prop_assert!(frame.packet().is_some() && frame.payload().is_some());
            }
        }
    }
}
