//! Layers to text: what has no default first, then the fields that differ from theirs, in the order of the header.

use std::fmt::{self, Write};

use super::parse::PROTOCOLS;
use crate::layer::{Arp, Gre, Icmp, Ip4, Ip6, Layer, Mac, Override, Quic, SctpData, Tcp, Vlan};
use crate::proto::{icmp4, icmp6};

/// Letters of the TCP flags, lowest bit first: FIN SYN RST PSH ACK URG ECE CWR.
pub(super) const TCP_FLAGS: &str = "FSRPAUEC";
/// Letters of the flags of a neighbor advertisement, lowest bit first: override, solicited, router.
pub(super) const ADVERT_FLAGS: &str = "OSR";
/// Bytes of the integrity check value of an `ah` that does not say.
pub(super) const AH_ICV: usize = 12;

/// The canonical text of `layers`, as [`dissect`](crate::dissect()) finds them: what no frame has (a body of neighbor
/// discovery behind another ICMP type) has no text.
pub fn print(layers: &[Layer]) -> String {
    let mut text = String::new();
    for layer in layers {
        if !text.is_empty() {
            text.push_str(" / ");
        }
        text.push_str(layer.name());
        // Writing to a String cannot fail.
        let _ = fields(&mut text, layer);
    }
    text
}

fn fields(out: &mut String, layer: &Layer) -> fmt::Result {
    match layer {
        Layer::Eth(h) => {
            write!(out, " {} > {}", mac(h.src), mac(h.dst))?;
            wide(out, "type", h.ethertype)
        }
        Layer::Vlan(h) => vlan(out, h),
        Layer::Arp(h) => arp(out, h),
        Layer::Ip4(h) => ip4(out, h),
        Layer::Ip6(h) => ip6(out, h),
        Layer::Ext(h) => {
            if h.body != h.kind.default_body() {
                write!(out, " body={}", hex(&h.body))?;
            }
            protocol(out, h.next)?;
            forced(out, "len", h.len)
        }
        Layer::Frag(h) => {
            number(out, "id", h.id, 0)?;
            number(out, "off", h.off.into(), 0)?;
            flag(out, "more", h.more)?;
            protocol(out, h.next)
        }
        Layer::Ah(h) => {
            number(out, "spi", h.spi, 0)?;
            number(out, "seq", h.seq, 0)?;
            if h.icv != [0; AH_ICV] {
                write!(out, " icv={}", hex(&h.icv))?;
            }
            protocol(out, h.next)?;
            forced(out, "len", h.len)
        }
        Layer::Tcp(h) => tcp(out, h),
        Layer::Udp(h) => {
            write!(out, " {} > {}", h.sport, h.dport)?;
            forced(out, "len", h.len)?;
            wide(out, "csum", h.csum)
        }
        Layer::Sctp(h) => {
            write!(out, " {} > {}", h.sport, h.dport)?;
            number(out, "tag", h.tag, 0)?;
            h.csum.map_or(Ok(()), |csum| write!(out, " csum={csum:#010x}"))
        }
        Layer::Icmp(h) => {
            icmp(out, h)?;
            wide(out, "csum", h.csum)
        }
        Layer::Vxlan(h) => {
            write!(out, " vni={}", h.vni)?;
            h.flags.map_or(Ok(()), |flags| write!(out, " flags={flags:#04x}"))?;
            forced(out, "res1", h.res1)?;
            forced(out, "res2", h.res2)
        }
        Layer::SctpData(h) => sctp_data(out, h),
        Layer::Geneve(h) => {
            write!(out, " vni={}", h.vni)?;
            number(out, "flags", h.flags.into(), 0)?;
            bytes(out, "opts", &h.opts)?;
            wide(out, "type", h.ethertype)?;
            forced(out, "res", h.res)
        }
        Layer::Gre(h) => gre(out, h),
        Layer::Gue(h) => {
            flag(out, "control", h.control)?;
            number(out, "flags", h.flags.into(), 0)?;
            bytes(out, "opts", &h.opts)?;
            protocol(out, h.proto)
        }
        Layer::Quic(h) => quic(out, h),
        Layer::Data(len) => write!(out, " {len}"),
        Layer::Raw(bytes) if bytes.is_empty() => Ok(()),
        Layer::Raw(bytes) => write!(out, " {}", hex(bytes)),
        Layer::Pad(bytes) if bytes.iter().all(|byte| *byte == 0) => write!(out, " {}", bytes.len()),
        Layer::Pad(bytes) => write!(out, " hex {}", hex(bytes)),
    }
}

fn sctp_data(out: &mut String, h: &SctpData) -> fmt::Result {
    number(out, "flags", h.flags.into(), 3)?;
    number(out, "tsn", h.tsn, 0)?;
    number(out, "sid", h.sid.into(), 0)?;
    number(out, "ssn", h.ssn.into(), 0)?;
    number(out, "ppid", h.ppid, 0)?;
    forced(out, "len", h.len)
}

fn gre(out: &mut String, h: &Gre) -> fmt::Result {
    forced(out, "key", h.key)?;
    forced(out, "seq", h.seq)?;
    flag(out, "sum", h.sum && h.csum.is_none())?;
    wide(out, "type", h.ethertype)?;
    wide(out, "csum", h.csum)
}

fn quic(out: &mut String, h: &Quic) -> fmt::Result {
    match h {
        Quic::Long { bits, version, dcid, scid } => {
            out.push_str(" long");
            number(out, "bits", (*bits).into(), 0)?;
            number(out, "version", *version, 1)?;
            bytes(out, "dcid", dcid)?;
            bytes(out, "scid", scid)
        }
        Quic::Short { bits, dcid } => {
            out.push_str(" short");
            number(out, "bits", (*bits).into(), 0)?;
            if *dcid == [0; Quic::SHORT_DCID] { Ok(()) } else { write!(out, " dcid={}", hex(dcid)) }
        }
    }
}

/// Nothing is the default.
fn bytes(out: &mut String, name: &str, value: &[u8]) -> fmt::Result {
    if value.is_empty() { Ok(()) } else { write!(out, " {name}={}", hex(value)) }
}

fn vlan(out: &mut String, h: &Vlan) -> fmt::Result {
    write!(out, " {}", h.id)?;
    number(out, "pcp", h.pcp.into(), 0)?;
    flag(out, "dei", h.dei)?;
    wide(out, "tpid", h.tpid.map(u32::from))?;
    wide(out, "type", h.ethertype)
}

fn arp(out: &mut String, h: &Arp) -> fmt::Result {
    if h.reply {
        write!(out, " reply {} to {}", h.sender, h.target)?;
    } else {
        write!(out, " who-has {} tell {}", h.target, h.sender)?;
    }
    address(out, "sha", h.sender_mac)?;
    address(out, "tha", h.target_mac)
}

fn ip4(out: &mut String, h: &Ip4) -> fmt::Result {
    write!(out, " {} > {}", h.src, h.dst)?;
    number(out, "ttl", h.ttl.into(), 64)?;
    number(out, "tos", h.tos.into(), 0)?;
    number(out, "id", h.id.into(), 0)?;
    flag(out, "rf", h.rf)?;
    flag(out, "df", h.df)?;
    flag(out, "mf", h.mf)?;
    number(out, "frag", h.frag.into(), 0)?;
    if !h.opts.is_empty() {
        write!(out, " opts={}", hex(&h.opts))?;
    }
    protocol(out, h.proto)?;
    forced(out, "len", h.len)?;
    wide(out, "csum", h.csum)?;
    forced(out, "ihl", h.ihl)?;
    forced(out, "ver", h.ver)
}

fn ip6(out: &mut String, h: &Ip6) -> fmt::Result {
    write!(out, " {} > {}", h.src, h.dst)?;
    number(out, "hlim", h.hlim.into(), 64)?;
    number(out, "tc", h.tc.into(), 0)?;
    number(out, "flow", h.flow, 0)?;
    protocol(out, h.next)?;
    forced(out, "len", h.len)?;
    forced(out, "ver", h.ver)
}

fn tcp(out: &mut String, h: &Tcp) -> fmt::Result {
    write!(out, " {} > {}", h.sport, h.dport)?;
    if h.flags > 0xff {
        write!(out, " bits={:#05x}", h.flags)?;
    } else {
        letters(out, TCP_FLAGS, h.flags)?;
    }
    number(out, "seq", h.seq, 0)?;
    number(out, "ack", h.ack, 0)?;
    number(out, "win", h.win.into(), 0xffff)?;
    number(out, "urg", h.urg.into(), 0)?;
    if !h.opts.is_empty() {
        write!(out, " opts={}", hex(&h.opts))?;
    }
    forced(out, "off", h.off)?;
    wide(out, "csum", h.csum)
}

fn icmp(out: &mut String, h: &Icmp) -> fmt::Result {
    let rest = u32::from_be_bytes(h.rest);
    let name = match (h.v6, h.kind) {
        (false, icmp4::ECHO) | (true, icmp6::ECHO) if h.code == 0 => "echo",
        (false, icmp4::ECHO_REPLY) | (true, icmp6::ECHO_REPLY) if h.code == 0 => "echo-reply",
        (false, icmp4::UNREACHABLE) if rest <= 0xffff => "unreachable",
        (true, icmp6::UNREACHABLE) if rest == 0 => "unreachable",
        (true, icmp6::PACKET_TOO_BIG) => "packet-too-big",
        (false, icmp4::TIME_EXCEEDED) | (true, icmp6::TIME_EXCEEDED) if rest == 0 => "ttl-exceeded",
        (true, icmp6::NEIGHBOR_SOLICIT) if h.code == 0 && rest == 0 && h.neighbor.is_some() => "neighbor-solicit",
        (true, icmp6::NEIGHBOR_ADVERT) if h.code == 0 && rest << 3 == 0 && h.neighbor.is_some() => "neighbor-advert",
        _ => {
            write!(out, " type={}", h.kind)?;
            number(out, "code", h.code.into(), 0)?;
            if rest != 0 {
                write!(out, " rest={rest:#010x}")?;
            }
            return Ok(());
        }
    };
    write!(out, " {name}")?;
    if let Some(neighbor) = &h.neighbor {
        write!(out, " {}", neighbor.target)?;
        letters(out, ADVERT_FLAGS, u16::try_from(rest >> 29).unwrap_or_default())?;
        address(out, "sll", neighbor.sll)?;
        return address(out, "tll", neighbor.tll);
    }
    if name.starts_with("echo") {
        number(out, "id", rest >> 16, 0)?;
        return number(out, "seq", rest & 0xffff, 0);
    }
    number(out, "code", h.code.into(), 0)?;
    if h.v6 && h.kind == icmp6::PACKET_TOO_BIG {
        return write!(out, " mtu={rest}");
    }
    number(out, "mtu", rest, 0)
}

fn number(out: &mut String, name: &str, value: u32, default: u32) -> fmt::Result {
    if value == default { Ok(()) } else { write!(out, " {name}={value}") }
}

fn flag(out: &mut String, name: &str, set: bool) -> fmt::Result {
    if set { write!(out, " {name}") } else { Ok(()) }
}

fn forced(out: &mut String, name: &str, value: Override) -> fmt::Result {
    value.map_or(Ok(()), |value| write!(out, " {name}={value}"))
}

/// Ethertypes and checksums: four hexadecimal digits.
fn wide(out: &mut String, name: &str, value: Override) -> fmt::Result {
    value.map_or(Ok(()), |value| write!(out, " {name}={value:#06x}"))
}

fn protocol(out: &mut String, value: Override) -> fmt::Result {
    let Some(value) = value else { return Ok(()) };
    match PROTOCOLS.iter().find(|(_, number)| u32::from(*number) == value) {
        Some((name, _)) => write!(out, " proto={name}"),
        None => write!(out, " proto={value}"),
    }
}

fn letters(out: &mut String, alphabet: &str, bits: u16) -> fmt::Result {
    if bits == 0 {
        return Ok(());
    }
    let set = alphabet.chars().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
    write!(out, " {}", set.map(|(_, letter)| letter).collect::<String>())
}

fn address(out: &mut String, name: &str, value: Option<Mac>) -> fmt::Result {
    value.map_or(Ok(()), |value| write!(out, " {name}={}", mac(value)))
}

fn mac(octets: Mac) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
