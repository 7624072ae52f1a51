//! Stage 1 of `docs/datapath.md`: Ethernet and IP headers, checked in the documented order.
//!
//! This is a parser of its own: it shares no code with `packet` nor with the program that it judges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tables::hash::FlowKey;

use crate::desired::protocol;
use crate::quic::ServerId;
use crate::verdict::DropReason;

pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
pub(super) const ETHERTYPE_VLAN: u16 = 0x8100;
pub(super) const ETHERTYPE_QINQ: u16 = 0x88a8;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;

const EXTENSION_HEADERS_MAX: usize = 6;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// The 16 bits in network order at `at`.
pub(super) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

/// The `N` bytes at `at`.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag {
    /// Of a customer VLAN (0x8100) and not of a service (0x88a8).
    pub customer: bool,
    pub id: u16,
}

/// An Ethernet header with its VLAN tags.
#[derive(Clone, Debug)]
pub(super) struct Ethernet {
    pub destination: [u8; 6],
    /// Outermost first, two at most.
    pub tags: Vec<Tag>,
    pub ethertype: u16,
    /// Bytes before the packet.
    pub len: usize,
}

impl Ethernet {
    /// 1.1; `None` is `ETH_SHORT`.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        let mut ethertype = be16(frame, 12)?;
        let mut len = 14;
        let mut tags = Vec::new();
        while tags.len() < 2 && matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_QINQ) {
            tags.push(Tag { customer: ethertype == ETHERTYPE_VLAN, id: be16(frame, len)? & 0x0fff });
            ethertype = be16(frame, len + 2)?;
            len += 4;
        }
        Some(Self { destination: array(frame, 0)?, tags, ethertype, len })
    }

    /// Multicast or broadcast.
    pub(super) fn is_group(&self) -> bool {
        self.destination.first().is_some_and(|octet| octet & 1 == 1)
    }

    /// 01:80:c2:00:00:00 to 0f, which no bridge forwards (IEEE 802.1Q §8.6.3).
    pub(super) fn is_link_local_group(&self) -> bool {
        let [a, b, c, d, e, f] = self.destination;
        [a, b, c, d, e] == [0x01, 0x80, 0xc2, 0, 0] && f < 0x10
    }
}

/// Which part of a datagram a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment {
    /// All of it.
    Whole,
    First,
    /// Any but the first: no transport header.
    Later,
}

/// What the later stages ask about an IP packet.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub fragment: Fragment,
    /// Source and destination port.
    pub ports: Option<(u16, u16)>,
    /// ICMP type and code.
    pub icmp: Option<(u8, u8)>,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// IPv4's DF; true for IPv6, which routers never fragment.
    pub dont_fragment: bool,
    /// Bytes of the packet, without link-layer padding.
    pub len: usize,
    /// Where the transport header begins.
    pub transport: usize,
}

impl Packet {
    /// 1.5 to 1.8: the packet of `ethertype` at the start of `bytes`.
    pub(super) fn parse(ethertype: u16, bytes: &[u8]) -> Result<Self, DropReason> {
        let mut packet = if ethertype == ETHERTYPE_IPV4 { ipv4(bytes)? } else { ipv6(bytes)? };
        packet.check_addresses()?;
        packet.read_transport(bytes)?;
        Ok(packet)
    }

    /// Its own addresses and ports.
    pub(super) fn flow(&self) -> FlowKey {
        let Self { source, destination, ports, protocol, .. } = *self;
        FlowKey { source, destination, ports, protocol }
    }

    /// A TCP segment with SYN and neither ACK nor RST: the first of a connection. `bytes` are those of the packet.
    pub(super) fn opens_connection(&self, bytes: &[u8]) -> bool {
        const RST: u8 = 1 << 2;
        const SYN: u8 = 1 << 1;
        const ACK: u8 = 1 << 4;
        let flags = bytes.get(..self.len).and_then(|packet| packet.get(self.transport + 13));
        self.protocol == protocol::TCP
            && self.ports.is_some()
            && flags.is_some_and(|flags| flags & (RST | SYN | ACK) == SYN)
    }

    pub(super) fn is_ipv6(&self) -> bool {
        self.destination.is_ipv6()
    }

    /// Multicast, limited broadcast or link-local: such packets are the host's.
    pub(super) fn is_host_scope(&self) -> bool {
        self.destination.is_multicast()
            || self.destination == IpAddr::V4(Ipv4Addr::BROADCAST)
            || is_link_local(self.destination)
    }

    /// 1.7.
    fn check_addresses(&self) -> Result<(), DropReason> {
        let mapped = |address| matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        let broadcast = IpAddr::V4(Ipv4Addr::BROADCAST);
        let (source, destination) = (self.source, self.destination);
        if source.is_multicast() || source.is_loopback() || source == broadcast || mapped(source) {
            return Err(DropReason::SrcInvalid);
        }
        if source.is_unspecified() && !destination.is_multicast() && destination != broadcast {
            return Err(DropReason::SrcInvalid);
        }
        let this_network = matches!(destination, IpAddr::V4(v4) if v4.octets().starts_with(&[0]));
        if destination.is_loopback() || destination.is_unspecified() || this_network || mapped(destination) {
            return Err(DropReason::DstInvalid);
        }
        Ok(())
    }

    /// 1.8.
    fn read_transport(&mut self, bytes: &[u8]) -> Result<(), DropReason> {
        if self.fragment == Fragment::Later {
            return Ok(());
        }
        let header = bytes.get(self.transport..self.len).and_then(|rest| rest.first_chunk::<4>());
        let has_ports = matches!(self.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
        let has_icmp = self.protocol == if self.is_ipv6() { protocol::ICMPV6 } else { protocol::ICMP };
        if has_ports || has_icmp {
            let [a, b, c, d] = *header.ok_or(DropReason::L4Short)?;
            self.ports = has_ports.then_some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
            self.icmp = has_icmp.then_some((a, b));
        }
        Ok(())
    }
}

/// What a forwarded packet is spread over next hops by: of a tunnel the packet inside, of an ICMP error the packet that it is about,
/// turned round. `bytes` begin with the packet.
pub(super) fn spread(packet: &Packet, bytes: &[u8]) -> FlowKey {
    if packet.fragment != Fragment::Whole {
        return FlowKey { ports: None, ..packet.flow() };
    }
    let bytes = bytes.get(..packet.len).unwrap_or_default();
    let error = match packet.icmp {
        Some((kind, _)) if packet.is_ipv6() => kind < 128,
        Some((kind, _)) => [3, 4, 5, 11, 12].contains(&kind),
        None => false,
    };
    let inside = match packet.protocol {
        _ if error => inside(bytes, packet.transport + 8, packet.is_ipv6()).map(|flow| FlowKey {
            source: flow.destination,
            destination: flow.source,
            ports: flow.ports.map(|(source, destination)| (destination, source)),
            ..flow
        }),
        protocol::IPIP => inside(bytes, packet.transport, false),
        protocol::IPV6 => inside(bytes, packet.transport, true),
        protocol::GRE => gre(bytes, packet.transport).and_then(|(at, is_ipv6)| inside(bytes, at, is_ipv6)),
        _ => None,
    };
    inside.unwrap_or_else(|| packet.flow())
}

/// Where the packet in GRE (RFC 2784, RFC 2890) begins, and whether it is IPv6.
fn gre(bytes: &[u8], at: usize) -> Option<(usize, bool)> {
    let (flags, ethertype) = (be16(bytes, at)?, be16(bytes, at + 2)?);
    let optional = [0x8000, 0x2000, 0x1000];
    let known = optional.iter().fold(0, |all, flag| all | flag);
    let words = 1 + optional.iter().filter(|flag| flags & **flag != 0).count();
    let is_ip = [ETHERTYPE_IPV4, ETHERTYPE_IPV6].contains(&ethertype);
    (flags & !known == 0 && is_ip).then_some((at + 4 * words, ethertype == ETHERTYPE_IPV6))
}

/// The flow of a packet of which the start is at `at`: ports only directly behind a header without options, of a whole packet.
fn inside(bytes: &[u8], at: usize, is_ipv6: bool) -> Option<FlowKey> {
    let bytes = bytes.get(at..)?;
    let first = *bytes.first()?;
    let (source, destination, protocol, transport) = if is_ipv6 {
        let header: [u8; 40] = array(bytes, 0)?;
        let address = |at| Some(IpAddr::from(array::<16>(&header, at)?));
        (address(8)?, address(24)?, *header.get(6)?, Some(40))
    } else {
        let header: [u8; 20] = array(bytes, 0)?;
        let address = |at| Some(IpAddr::from(array::<4>(&header, at)?));
        let simple = first == 0x45 && be16(&header, 6)? & 0x3fff == 0;
        (address(12)?, address(16)?, *header.get(9)?, simple.then_some(20))
    };
    if first >> 4 != if is_ipv6 { 6 } else { 4 } {
        return None;
    }
    let has_ports = matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
    let ports = transport.filter(|_| has_ports).and_then(|at| Some((be16(bytes, at)?, be16(bytes, at + 2)?)));
    Some(FlowKey { source, destination, ports, protocol })
}

/// The server ID in the QUIC connection ID of a UDP packet, where it is one of a configuration (RFC 8999, sections 5.1 and 5.2).
pub(super) fn quic_server(packet: &Packet, bytes: &[u8], lengths: &[u8; 8]) -> Option<ServerId> {
    let datagram = bytes.get(packet.transport + 8..packet.len)?;
    let (id, octets) = match *datagram.first()? & 0x80 {
        0 => (datagram.get(1..)?, None),
        _ => (datagram.get(6..)?, Some(*datagram.get(5)?)),
    };
    let length = *lengths.get(usize::from(*id.first()? >> 5))?;
    // The first octet, the server ID, and four of a nonce at least; and a packet that is protected has sixteen more than these.
    let short = octets.is_some_and(|octets| octets < 1 + length + 4);
    if length == 0 || short || id.len() < 1 + 16 {
        return None;
    }
    ServerId::new(id.get(1..1 + usize::from(length))?)
}

/// 169.254/16 or fe80::/10.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// 1.5.
fn ipv4(bytes: &[u8]) -> Result<Packet, DropReason> {
    let header: [u8; 20] = array(bytes, 0).ok_or(DropReason::Ip4Short)?;
    let [version_length, tos, l0, l1, _, _, f0, f1, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = header;
    let header_len = usize::from(version_length & 0x0f) * 4;
    if version_length >> 4 != 4 || header_len < 20 {
        return Err(DropReason::Ip4Header);
    }
    let all = bytes.get(..header_len).ok_or(DropReason::Ip4Short)?;
    if internet_sum(all) != 0xffff {
        return Err(DropReason::Ip4Csum);
    }
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    if len < header_len {
        return Err(DropReason::Ip4Header);
    }
    if len > bytes.len() {
        return Err(DropReason::Ip4Short);
    }
    let flags = u16::from_be_bytes([f0, f1]);
    Ok(Packet {
        source: Ipv4Addr::new(s0, s1, s2, s3).into(),
        destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
        protocol,
        fragment: match (flags & 0x1fff, flags & 0x2000) {
            (0, 0) => Fragment::Whole,
            (0, _) => Fragment::First,
            _ => Fragment::Later,
        },
        ports: None,
        icmp: None,
        ttl,
        tos,
        dont_fragment: flags & 0x4000 != 0,
        len,
        transport: header_len,
    })
}

/// 1.6.
fn ipv6(bytes: &[u8]) -> Result<Packet, DropReason> {
    let header: [u8; 40] = array(bytes, 0).ok_or(DropReason::Ip6Short)?;
    let [v0, v1, _, _, l0, l1, next_header, hop_limit, addresses @ ..] = header;
    if v0 >> 4 != 6 {
        return Err(DropReason::Ip6Header);
    }
    let len = 40 + usize::from(u16::from_be_bytes([l0, l1]));
    let bytes = bytes.get(..len).ok_or(DropReason::Ip6Short)?;
    let address = |at| array::<16>(&addresses, at).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
    let chain = extension_headers(bytes, next_header)?;
    Ok(Packet {
        source: address(0).ok_or(DropReason::Ip6Short)?,
        destination: address(16).ok_or(DropReason::Ip6Short)?,
        protocol: chain.protocol,
        fragment: chain.fragment,
        ports: None,
        icmp: None,
        ttl: hop_limit,
        tos: v0 << 4 | v1 >> 4,
        dont_fragment: true,
        len,
        transport: chain.end,
    })
}

/// What the chain of extension headers leads to.
struct Chain {
    protocol: u8,
    fragment: Fragment,
    end: usize,
}

fn extension_headers(bytes: &[u8], mut protocol: u8) -> Result<Chain, DropReason> {
    let mut end = 40;
    let mut fragment = Fragment::Whole;
    for walked in 0.. {
        if !matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS) {
            break;
        }
        if walked == EXTENSION_HEADERS_MAX {
            return Err(DropReason::Ip6ExthdrLimit);
        }
        let [next, length, f0, f1, ..]: [u8; 8] = array(bytes, end).ok_or(DropReason::Ip6Short)?;
        let kind = std::mem::replace(&mut protocol, next);
        end += match kind {
            FRAGMENT => 8,
            AUTHENTICATION => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        if end > bytes.len() {
            return Err(DropReason::Ip6Short);
        }
        if kind == FRAGMENT {
            let flags = u16::from_be_bytes([f0, f1]);
            if flags & 0xfff8 != 0 {
                fragment = Fragment::Later;
                break;
            }
            if flags & 1 != 0 {
                fragment = Fragment::First;
            }
        }
    }
    Ok(Chain { protocol, fragment, end })
}

/// One's complement sum of 16-bit words (RFC 1071), not inverted.
pub(super) fn internet_sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => u32::from(u16::from_be_bytes([high, low])),
            [high] => u32::from(high) << 8,
            _ => 0,
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// What is behind the UDP header of GUE at `at`: the ethertype of the packet inside, and the bytes in front of it. `None`: not taken in.
pub(super) fn gue(packet: &[u8], at: usize) -> Option<(u16, usize)> {
    match packet.get(at..)? {
        [first, ..] if first >> 4 == 4 => Some((ETHERTYPE_IPV4, 0)),
        [first, ..] if first >> 4 == 6 => Some((ETHERTYPE_IPV6, 0)),
        [0, protocol::IPIP, 0, 0, ..] => Some((ETHERTYPE_IPV4, 4)),
        [0, protocol::IPV6, 0, 0, ..] => Some((ETHERTYPE_IPV6, 4)),
        _ => None,
    }
}

/// What an ICMP error for a VIP quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quote {
    /// Nothing that a VIP sends, or the packet is no such error.
    Other,
    /// Too little.
    Short,
    /// An answer to the packets of this flow.
    Flow(FlowKey),
}

/// The flow that an ICMP error is about, turned round, where it is one of its destination's. `bytes` begin with the packet.
pub(super) fn quoted(packet: &Packet, bytes: &[u8]) -> Quote {
    let is_error = match packet.icmp {
        Some((kind, _)) if packet.is_ipv6() => kind < 128,
        Some((kind, _)) => [3, 4, 11, 12].contains(&kind),
        None => false,
    };
    if !is_error || packet.fragment != Fragment::Whole {
        return Quote::Other;
    }
    let quote = bytes.get(packet.transport + 8..packet.len).unwrap_or_default();
    let header = if packet.is_ipv6() { 40 } else { 20 };
    if quote.len() < header {
        return Quote::Short;
    }
    let plain = match packet.is_ipv6() {
        true => true,
        false => quote.first() == Some(&0x45) && be16(quote, 6).is_some_and(|fragment| fragment & 0x3fff == 0),
    };
    match inside(quote, 0, packet.is_ipv6()) {
        Some(flow) if plain && flow.source == packet.destination => match flow.ports {
            Some((source, destination)) => Quote::Flow(FlowKey {
                source: flow.destination,
                destination: flow.source,
                ports: Some((destination, source)),
                ..flow
            }),
            None if has_ports(flow.protocol) => Quote::Short,
            None => Quote::Flow(FlowKey { source: flow.destination, destination: flow.source, ..flow }),
        },
        _ => Quote::Other,
    }
}

fn has_ports(transport: u8) -> bool {
    [protocol::TCP, protocol::UDP, protocol::SCTP].contains(&transport)
}
