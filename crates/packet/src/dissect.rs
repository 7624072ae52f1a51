//! Bytes to layers, without loss: [`build::frame`] of the layers is the frame again.
//!
//! Headers are recognised as far as they make sense; the rest is raw bytes. Overrides are kept only where leaving them out
//! would change the frame, which the builder itself decides, so there is no second idea of what a right checksum is.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::build;
use crate::layer::{
    Ah, Arp, Eth, Ext, ExtKind, Frag, Geneve, Gre, Gue, Icmp, Ip4, Ip6, Layer, Neighbor, Override, Quic, Sctp,
    SctpData, Tcp, Udp, Vlan, Vxlan,
};
use crate::proto::{self, ethertype, icmp4, icmp6, ip};
use crate::read::{array, u8, u16, u32};

/// More headers than this are raw bytes.
const LAYERS_MAX: usize = 24;

/// The layers of an Ethernet frame, outermost first. What is no known header is [`Layer::Data`] or [`Layer::Raw`].
pub fn dissect(frame: &[u8]) -> Vec<Layer> {
    (0..=LAYERS_MAX).rev().find_map(|limit| exact(frame, limit)).unwrap_or_else(|| vec![Layer::Raw(frame.to_vec())])
}

/// The layers with at most `limit` headers, if the builder makes the frame of them again.
fn exact(frame: &[u8], limit: usize) -> Option<Vec<Layer>> {
    let mut layers = headers(frame, limit);
    let same = |layers: &[Layer]| build::frame(layers).is_ok_and(|bytes| bytes == frame);
    let forced = layers.clone();
    for layer in &mut layers {
        layer.overrides_mut().into_iter().for_each(|field| *field = None);
    }
    if same(&layers) {
        return Some(layers);
    }
    layers = forced;
    if !same(&layers) {
        return None;
    }
    for index in (0..layers.len()).rev() {
        let count = layers.get_mut(index).map_or(0, |layer| layer.overrides_mut().len());
        for field in 0..count {
            let value = override_at(&mut layers, index, field).and_then(Option::take);
            if !same(&layers)
                && let Some(place) = override_at(&mut layers, index, field)
            {
                *place = value;
            }
        }
    }
    Some(layers)
}

fn override_at(layers: &mut [Layer], index: usize, field: usize) -> Option<&mut Override> {
    layers.get_mut(index)?.overrides_mut().into_iter().nth(field)
}

/// What the bytes at the cursor are, as the header before says.
#[derive(Clone, Copy)]
enum Expect {
    Eth,
    Type(u16),
    /// Protocol, and whether the header before is IPv6's or one of its extensions.
    Protocol(u8, bool),
    /// SCTP's chunks, of which only a DATA chunk is known.
    Chunk,
    Vxlan,
    Geneve,
    Gue,
    Quic,
    Nothing,
}

struct Found {
    layer: Layer,
    len: usize,
    next: Expect,
}

/// Headers with every override set, then the rest and the padding.
fn headers(frame: &[u8], limit: usize) -> Vec<Layer> {
    let mut layers = Vec::new();
    let (mut rest, mut pad): (&[u8], &[u8]) = (frame, &[]);
    let mut expect = Expect::Eth;
    let mut in_ip = false;
    let mut eth = Eth::default();
    while layers.len() < limit
        && let Some(found) = header(rest, expect, &eth)
    {
        if let Layer::Eth(header) = &found.layer {
            eth = header.clone();
        }
        // Only the outermost IP header's length separates padding: an inner one is short by override.
        if let Some(len) = ip_len(&found.layer)
            && !std::mem::replace(&mut in_ip, true)
            && (found.len..rest.len()).contains(&len)
        {
            (rest, pad) = rest.split_at(len);
        }
        rest = rest.get(found.len..).unwrap_or_default();
        expect = found.next;
        layers.push(found.layer);
    }
    if !rest.is_empty() || layers.is_empty() {
        let counted = !layers.is_empty() && rest.iter().copied().eq(build::data(rest.len()));
        layers.push(if counted { Layer::Data(rest.len()) } else { Layer::Raw(rest.to_vec()) });
    }
    if !pad.is_empty() {
        layers.push(Layer::Pad(pad.to_vec()));
    }
    layers
}

fn ip_len(layer: &Layer) -> Option<usize> {
    match layer {
        Layer::Ip4(Ip4 { len: Some(len), .. }) => usize::try_from(*len).ok(),
        Layer::Ip6(Ip6 { len: Some(len), .. }) => usize::try_from(*len).ok().map(|len| len + proto::IPV6_LEN),
        _ => None,
    }
}

fn header(b: &[u8], expect: Expect, eth: &Eth) -> Option<Found> {
    match expect {
        Expect::Eth => {
            let ethertype = u16(b, 12)?;
            let layer = Layer::Eth(Eth { dst: array(b, 0)?, src: array(b, 6)?, ethertype: Some(ethertype.into()) });
            Some(Found { layer, len: proto::ETHERNET_LEN, next: Expect::Type(ethertype) })
        }
        Expect::Type(tpid @ (ethertype::VLAN | ethertype::QINQ)) => vlan(b, tpid),
        Expect::Type(ethertype::ARP) => arp(b, eth),
        Expect::Type(ethertype::IPV4) | Expect::Protocol(ip::IPV4, _) => ip4(b),
        Expect::Type(ethertype::IPV6) | Expect::Protocol(ip::IPV6, _) => ip6(b),
        Expect::Protocol(ip::HOP_BY_HOP, true) => ext(b, ExtKind::HopByHop),
        Expect::Protocol(ip::DST_OPTS, true) => ext(b, ExtKind::Destination),
        Expect::Protocol(ip::ROUTING, true) => ext(b, ExtKind::Routing),
        Expect::Protocol(ip::FRAGMENT, true) => frag(b),
        Expect::Protocol(ip::AH, v6) => ah(b, v6),
        Expect::Protocol(ip::GRE, _) => gre(b),
        Expect::Protocol(ip::TCP, _) => tcp(b),
        Expect::Protocol(ip::UDP, _) => udp(b),
        Expect::Protocol(ip::SCTP, _) => sctp(b),
        Expect::Protocol(ip::ICMP, false) => icmp(b, false),
        Expect::Protocol(ip::ICMPV6, true) => icmp(b, true),
        Expect::Type(ethertype::TEB) => header(b, Expect::Eth, eth),
        Expect::Chunk => sctp_data(b),
        Expect::Vxlan => vxlan(b),
        Expect::Geneve => geneve(b),
        Expect::Gue => gue(b),
        Expect::Quic => quic(b),
        Expect::Type(_) | Expect::Protocol(..) | Expect::Nothing => None,
    }
}

fn vlan(b: &[u8], tpid: u16) -> Option<Found> {
    let (tci, ethertype) = (u16(b, 0)?, u16(b, 2)?);
    let layer = Layer::Vlan(Vlan {
        id: tci & 0xfff,
        pcp: (tci >> 13).try_into().ok()?,
        dei: tci & 0x1000 != 0,
        tpid: (tpid != ethertype::VLAN).then_some(tpid),
        ethertype: Some(ethertype.into()),
    });
    Some(Found { layer, len: proto::VLAN_LEN, next: Expect::Type(ethertype) })
}

fn arp(b: &[u8], eth: &Eth) -> Option<Found> {
    if array(b, 0)? != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let reply = match u16(b, 6)? {
        1 => false,
        2 => true,
        _ => return None,
    };
    let (sender_mac, target_mac) = (array(b, 8)?, array(b, 18)?);
    let layer = Layer::Arp(Arp {
        reply,
        sender: Ipv4Addr::from(u32(b, 14)?),
        target: Ipv4Addr::from(u32(b, 24)?),
        sender_mac: (sender_mac != eth.src).then_some(sender_mac),
        target_mac: (target_mac != if reply { eth.dst } else { [0; 6] }).then_some(target_mac),
    });
    Some(Found { layer, len: proto::ARP_LEN, next: Expect::Nothing })
}

fn ip4(b: &[u8]) -> Option<Found> {
    let first = u8(b, 0)?;
    let flags = u16(b, 6)?;
    let claimed = usize::from(first & 0xf) * 4;
    let len = if (proto::IPV4_LEN..=b.len()).contains(&claimed) { claimed } else { proto::IPV4_LEN };
    let frag = (flags & 0x1fff) * 8;
    let protocol = u8(b, 9)?;
    let layer = Layer::Ip4(Ip4 {
        src: Ipv4Addr::from(u32(b, 12)?),
        dst: Ipv4Addr::from(u32(b, 16)?),
        ttl: u8(b, 8)?,
        tos: u8(b, 1)?,
        id: u16(b, 4)?,
        rf: flags & 0x8000 != 0,
        df: flags & 0x4000 != 0,
        mf: flags & 0x2000 != 0,
        frag,
        opts: b.get(proto::IPV4_LEN..len)?.to_vec(),
        proto: Some(protocol.into()),
        len: Some(u16(b, 2)?.into()),
        csum: Some(u16(b, 10)?.into()),
        ihl: Some((first & 0xf).into()),
        ver: Some((first >> 4).into()),
    });
    Some(Found { layer, len, next: if frag == 0 { Expect::Protocol(protocol, false) } else { Expect::Nothing } })
}

fn ip6(b: &[u8]) -> Option<Found> {
    let word = u32(b, 0)?;
    let next = u8(b, 6)?;
    let layer = Layer::Ip6(Ip6 {
        src: Ipv6Addr::from(array::<16>(b, 8)?),
        dst: Ipv6Addr::from(array::<16>(b, 24)?),
        hlim: u8(b, 7)?,
        tc: (word >> 20 & 0xff).try_into().ok()?,
        flow: word & 0xf_ffff,
        next: Some(next.into()),
        len: Some(u16(b, 4)?.into()),
        ver: Some(word >> 28),
    });
    Some(Found { layer, len: proto::IPV6_LEN, next: Expect::Protocol(next, true) })
}

fn ext(b: &[u8], kind: ExtKind) -> Option<Found> {
    let (next, units) = (u8(b, 0)?, u8(b, 1)?);
    let len = (usize::from(units) + 1) * 8;
    let body = b.get(2..len)?.to_vec();
    let layer = Layer::Ext(Ext { kind, body, next: Some(next.into()), len: Some(units.into()) });
    Some(Found { layer, len, next: Expect::Protocol(next, true) })
}

fn frag(b: &[u8]) -> Option<Found> {
    let (next, off) = (u8(b, 0)?, u16(b, 2)?);
    let layer = Layer::Frag(Frag { id: u32(b, 4)?, off: off & !7, more: off & 1 != 0, next: Some(next.into()) });
    Some(Found { layer, len: 8, next: if off & !7 == 0 { Expect::Protocol(next, true) } else { Expect::Nothing } })
}

fn ah(b: &[u8], v6: bool) -> Option<Found> {
    let (next, words) = (u8(b, 0)?, u8(b, 1)?);
    let len = (usize::from(words) + 2) * 4;
    let icv = b.get(12..len)?.to_vec();
    let layer =
        Layer::Ah(Ah { spi: u32(b, 4)?, seq: u32(b, 8)?, icv, next: Some(next.into()), len: Some(words.into()) });
    Some(Found { layer, len, next: Expect::Protocol(next, v6) })
}

fn tcp(b: &[u8]) -> Option<Found> {
    let word = u16(b, 12)?;
    let claimed = usize::from(word >> 12) * 4;
    let len = if (proto::TCP_LEN..=b.len()).contains(&claimed) { claimed } else { proto::TCP_LEN };
    let layer = Layer::Tcp(Tcp {
        sport: u16(b, 0)?,
        dport: u16(b, 2)?,
        seq: u32(b, 4)?,
        ack: u32(b, 8)?,
        flags: word & 0xfff,
        win: u16(b, 14)?,
        urg: u16(b, 18)?,
        opts: b.get(proto::TCP_LEN..len)?.to_vec(),
        off: Some((word >> 12).into()),
        csum: Some(u16(b, 16)?.into()),
    });
    Some(Found { layer, len, next: Expect::Nothing })
}

fn udp(b: &[u8]) -> Option<Found> {
    let dport = u16(b, 2)?;
    let layer =
        Layer::Udp(Udp { sport: u16(b, 0)?, dport, len: Some(u16(b, 4)?.into()), csum: Some(u16(b, 6)?.into()) });
    let next = match dport {
        proto::VXLAN_PORT => Expect::Vxlan,
        proto::GENEVE_PORT => Expect::Geneve,
        proto::GUE_PORT => Expect::Gue,
        proto::QUIC_PORT => Expect::Quic,
        _ => Expect::Nothing,
    };
    Some(Found { layer, len: proto::UDP_LEN, next })
}

fn sctp(b: &[u8]) -> Option<Found> {
    let layer = Layer::Sctp(Sctp { sport: u16(b, 0)?, dport: u16(b, 2)?, tag: u32(b, 4)?, csum: Some(u32(b, 8)?) });
    Some(Found { layer, len: proto::SCTP_LEN, next: Expect::Chunk })
}

/// A DATA chunk that is the last of its packet.
fn sctp_data(b: &[u8]) -> Option<Found> {
    let len = u16(b, 2)?;
    let padded = usize::from(len).next_multiple_of(4);
    if u8(b, 0)? != 0 || usize::from(len) < proto::SCTP_DATA_LEN || !(usize::from(len)..=padded).contains(&b.len()) {
        return None;
    }
    let layer = Layer::SctpData(SctpData {
        flags: u8(b, 1)?,
        tsn: u32(b, 4)?,
        sid: u16(b, 8)?,
        ssn: u16(b, 10)?,
        ppid: u32(b, 12)?,
        len: Some(len.into()),
    });
    Some(Found { layer, len: proto::SCTP_DATA_LEN, next: Expect::Nothing })
}

fn icmp(b: &[u8], v6: bool) -> Option<Found> {
    let kind = u8(b, 0)?;
    let (code, rest) = (u8(b, 1)?, u32(b, 4)?);
    let neighbor = match (v6, kind, code) {
        (true, icmp6::NEIGHBOR_SOLICIT, 0) if rest == 0 => nd_body(b),
        (true, icmp6::NEIGHBOR_ADVERT, 0) if rest << 3 == 0 => nd_body(b),
        _ => None,
    };
    let body_len = neighbor
        .as_ref()
        .map_or(0, |body| 16 + 8 * (usize::from(body.sll.is_some()) + usize::from(body.tll.is_some())));
    let quotes = match (v6, kind) {
        (false, icmp4::UNREACHABLE | icmp4::TIME_EXCEEDED | icmp4::PARAMETER_PROBLEM | icmp4::REDIRECT) => ip::IPV4,
        (true, icmp6::UNREACHABLE..=icmp6::PARAMETER_PROBLEM) => ip::IPV6,
        _ => ip::NO_NEXT,
    };
    let csum = Some(u16(b, 2)?.into());
    let layer = Layer::Icmp(Icmp { v6, kind, code, rest: rest.to_be_bytes(), neighbor, csum });
    Some(Found { layer, len: proto::ICMP_LEN + body_len, next: Expect::Protocol(quotes, v6) })
}

fn nd_body(b: &[u8]) -> Option<Neighbor> {
    let target = Ipv6Addr::from(array::<16>(b, proto::ICMP_LEN)?);
    let option = |at: usize, kind: u8| if array(b, at) == Some([kind, 1]) { array(b, at + 2) } else { None };
    let sll = option(24, 1);
    let tll = option(if sll.is_some() { 32 } else { 24 }, 2);
    Some(Neighbor { target, sll, tll })
}

/// Version 0 without the routing that RFC 2784 took away.
fn gre(b: &[u8]) -> Option<Found> {
    let (flags, ethertype) = (u16(b, 0)?, u16(b, 2)?);
    let (sum, key, seq) = (flags & 0x8000 != 0, flags & 0x2000 != 0, flags & 0x1000 != 0);
    if flags & 0x4fff != 0 || sum && u16(b, 6)? != 0 {
        return None;
    }
    let mut at = if sum { 8 } else { 4 };
    let mut field = |there: bool| -> Option<Option<u32>> {
        if !there {
            return Some(None);
        }
        at += 4;
        u32(b, at - 4).map(Some)
    };
    let (key, seq) = (field(key)?, field(seq)?);
    let csum = if sum { Some(u16(b, 4)?.into()) } else { None };
    let header = Gre { key, seq, sum, ethertype: Some(ethertype.into()), csum };
    let len = header.header_len();
    Some(Found { layer: Layer::Gre(header), len, next: Expect::Type(ethertype) })
}

fn geneve(b: &[u8]) -> Option<Found> {
    let (first, second) = (u32(b, 0)?, u32(b, 4)?);
    let len = proto::GENEVE_LEN + 4 * usize::try_from(first >> 24 & 0x3f).ok()?;
    let opts = b.get(proto::GENEVE_LEN..len)?.to_vec();
    // Another version is another header.
    if first >> 30 != 0 {
        return None;
    }
    let ethertype = u16(b, 2)?;
    let layer = Layer::Geneve(Geneve {
        vni: second >> 8,
        flags: u8(b, 1)?,
        opts,
        ethertype: Some(ethertype.into()),
        res: Some(second & 0xff),
    });
    Some(Found { layer, len, next: Expect::Type(ethertype) })
}

/// Variant 0, or variant 1, which is an IP header: its version has the variant's bits.
fn gue(b: &[u8]) -> Option<Found> {
    let (first, proto) = (u8(b, 0)?, u8(b, 1)?);
    match first >> 4 {
        0..=3 => {}
        4 => return ip4(b),
        6 => return ip6(b),
        _ => return None,
    }
    let len = 4 + 4 * usize::from(first & 0x1f);
    let (control, flags) = (first & 0x20 != 0, u16(b, 2)?);
    let opts = b.get(4..len)?.to_vec();
    let layer = Layer::Gue(Gue { control, flags, opts, proto: Some(proto.into()) });
    let next = if control { Expect::Nothing } else { Expect::Protocol(proto, false) };
    Some(Found { layer, len, next })
}

fn quic(b: &[u8]) -> Option<Found> {
    let first = u8(b, 0)?;
    let cid = |at: usize| -> Option<Vec<u8>> {
        let len = usize::from(u8(b, at)?);
        (len <= Quic::CID_MAX).then_some(())?;
        Some(b.get(at + 1..at + 1 + len)?.to_vec())
    };
    let (header, len) = match first >> 6 {
        3 => {
            let dcid = cid(5)?;
            let scid = cid(6 + dcid.len())?;
            let len = 7 + dcid.len() + scid.len();
            (Quic::Long { bits: first & 0x3f, version: u32(b, 1)?, dcid, scid }, len)
        }
        1 => {
            let dcid = b.get(1..1 + Quic::SHORT_DCID)?.to_vec();
            (Quic::Short { bits: first & 0x3f, dcid }, 1 + Quic::SHORT_DCID)
        }
        _ => return None,
    };
    Some(Found { layer: Layer::Quic(header), len, next: Expect::Nothing })
}

fn vxlan(b: &[u8]) -> Option<Found> {
    let (first, second) = (u32(b, 0)?, u32(b, 4)?);
    let layer = Layer::Vxlan(Vxlan {
        vni: second >> 8,
        flags: Some(first >> 24),
        res1: Some(first & 0xff_ffff),
        res2: Some(second & 0xff),
    });
    Some(Found { layer, len: proto::VXLAN_LEN, next: Expect::Eth })
}
