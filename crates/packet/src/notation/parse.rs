//! Text to layers.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{NotationError, USAGE};
use crate::layer::{
    Ah, Arp, Eth, Ext, ExtKind, Frag, Geneve, Gre, Gue, Icmp, Ip4, Ip6, Layer, Mac, Neighbor, Override, Quic, Sctp,
    SctpData, Tcp, Udp, Vlan, Vxlan,
};
use crate::proto::{icmp4, icmp6, ip};

type Result<T> = std::result::Result<T, NotationError>;

/// More bytes than any IP packet has are refused in one layer.
const DATA_MAX: u32 = 0xffff;

/// The layers that `text` describes, outermost first.
///
/// # Errors
/// As [`encode`](super::encode), but for [`NotationError::Build`].
pub fn parse(text: &str) -> Result<Vec<Layer>> {
    let tokens: Vec<&str> = text.split_whitespace().collect();
    tokens.split(|token| *token == "/").enumerate().map(|(index, tokens)| layer(index + 1, tokens)).collect()
}

fn layer(number: usize, tokens: &[&str]) -> Result<Layer> {
    let (name, rest) = tokens.split_first().ok_or(NotationError::Empty { layer: number })?;
    let usage_name = if *name == "hex" { "data" } else { name };
    let usage = USAGE
        .into_iter()
        .find(|usage| usage.split(' ').next() == Some(usage_name))
        .ok_or_else(|| NotationError::UnknownLayer { layer: number, name: (*name).to_owned() })?;
    let mut fields = Fields { layer: number, name, usage, tokens: rest.to_vec() };
    let layer = match *name {
        "eth" => eth(&mut fields),
        "vlan" => vlan(&mut fields),
        "arp" => arp(&mut fields),
        "ip4" => ip4(&mut fields),
        "ip6" => ip6(&mut fields),
        "hbh" => ext(&mut fields, ExtKind::HopByHop),
        "dstopts" => ext(&mut fields, ExtKind::Destination),
        "routing" => ext(&mut fields, ExtKind::Routing),
        "frag" => frag(&mut fields),
        "ah" => ah(&mut fields),
        "tcp" => tcp(&mut fields),
        "udp" => udp(&mut fields),
        "sctp" => sctp(&mut fields),
        "icmp" => icmp(&mut fields, false),
        "icmp6" => icmp(&mut fields, true),
        "sctp-data" => sctp_data(&mut fields),
        "vxlan" => vxlan(&mut fields),
        "geneve" => geneve(&mut fields),
        "gre" => gre(&mut fields),
        "gue" => gue(&mut fields),
        "quic" => quic(&mut fields),
        "hex" => fields.rest_as_hex().map(Layer::Raw),
        "pad" => pad(&mut fields),
        _ => data(&mut fields),
    }?;
    fields.finish()?;
    Ok(layer)
}

fn eth(f: &mut Fields) -> Result<Layer> {
    let (src, dst) = f.pair("SRC > DST", "an Ethernet address as 02:00:00:00:00:01 or 02::1", mac)?;
    Ok(Layer::Eth(Eth { src, dst, ethertype: f.number("type", 0xffff)? }))
}

fn vlan(f: &mut Fields) -> Result<Layer> {
    let id = f.positional("ID", "a VLAN identifier from 0 to 4095", |text| below(text, 0xfff))?;
    Ok(Layer::Vlan(Vlan {
        id: narrow16(id),
        pcp: f.u8("pcp", 7, 0)?,
        dei: f.flag("dei"),
        tpid: f.number("tpid", 0xffff)?.map(narrow16),
        ethertype: f.number("type", 0xffff)?,
    }))
}

fn arp(f: &mut Fields) -> Result<Layer> {
    let what = "who-has or reply";
    let reply = f.positional(what, what, |word| match word {
        "who-has" => Some(false),
        "reply" => Some(true),
        _ => None,
    })?;
    let first = f.positional("an address", "an IPv4 address", |text| text.parse::<Ipv4Addr>().ok())?;
    let joint = if reply { "to" } else { "tell" };
    f.positional(joint, joint, |word| (word == joint).then_some(()))?;
    let second = f.positional("an address", "an IPv4 address", |text| text.parse::<Ipv4Addr>().ok())?;
    let (sender, target) = if reply { (first, second) } else { (second, first) };
    Ok(Layer::Arp(Arp { reply, sender, target, sender_mac: f.mac("sha")?, target_mac: f.mac("tha")? }))
}

fn ip4(f: &mut Fields) -> Result<Layer> {
    let (src, dst) = f.pair("SRC > DST", "an IPv4 address", |text| text.parse::<Ipv4Addr>().ok())?;
    Ok(Layer::Ip4(Ip4 {
        src,
        dst,
        ttl: f.u8("ttl", 255, 64)?,
        tos: f.u8("tos", 255, 0)?,
        id: f.u16("id", 0xffff, 0)?,
        rf: f.flag("rf"),
        df: f.flag("df"),
        mf: f.flag("mf"),
        frag: f.u16("frag", 0x1fff * 8, 0)?,
        opts: f.hex("opts")?.unwrap_or_default(),
        proto: f.protocol()?,
        len: f.number("len", 0xffff)?,
        csum: f.number("csum", 0xffff)?,
        ihl: f.number("ihl", 15)?,
        ver: f.number("ver", 15)?,
    }))
}

fn ip6(f: &mut Fields) -> Result<Layer> {
    let (src, dst) = f.pair("SRC > DST", "an IPv6 address", |text| text.parse::<Ipv6Addr>().ok())?;
    Ok(Layer::Ip6(Ip6 {
        src,
        dst,
        hlim: f.u8("hlim", 255, 64)?,
        tc: f.u8("tc", 255, 0)?,
        flow: f.u32("flow", 0xf_ffff, 0)?,
        next: f.protocol()?,
        len: f.number("len", 0xffff)?,
        ver: f.number("ver", 15)?,
    }))
}

fn ext(f: &mut Fields, kind: ExtKind) -> Result<Layer> {
    let body = f.hex("body")?.unwrap_or_else(|| kind.default_body().to_vec());
    Ok(Layer::Ext(Ext { kind, body, next: f.protocol()?, len: f.number("len", 255)? }))
}

fn frag(f: &mut Fields) -> Result<Layer> {
    let off = f.value("off").map(|text| {
        let off = below(text, 0xfff8).filter(|off| off % 8 == 0);
        off.ok_or_else(|| f.bad(&format!("off={text}"), "an offset in bytes that is a multiple of 8, at most 65528"))
    });
    Ok(Layer::Frag(Frag {
        id: f.u32("id", u32::MAX, 0)?,
        off: narrow16(off.transpose()?.unwrap_or(0)),
        more: f.flag("more"),
        next: f.protocol()?,
    }))
}

fn ah(f: &mut Fields) -> Result<Layer> {
    Ok(Layer::Ah(Ah {
        spi: f.u32("spi", u32::MAX, 0)?,
        seq: f.u32("seq", u32::MAX, 0)?,
        icv: f.hex("icv")?.unwrap_or_else(|| vec![0; super::print::AH_ICV]),
        next: f.protocol()?,
        len: f.number("len", 255)?,
    }))
}

fn tcp(f: &mut Fields) -> Result<Layer> {
    let (sport, dport) = f.ports()?;
    let letters = f.letters(super::print::TCP_FLAGS);
    let bits = f.number("bits", 0xfff)?.map(narrow16);
    Ok(Layer::Tcp(Tcp {
        sport,
        dport,
        seq: f.u32("seq", u32::MAX, 0)?,
        ack: f.u32("ack", u32::MAX, 0)?,
        flags: bits.unwrap_or(0) | letters,
        win: f.u16("win", 0xffff, 0xffff)?,
        urg: f.u16("urg", 0xffff, 0)?,
        opts: f.hex("opts")?.unwrap_or_default(),
        off: f.number("off", 15)?,
        csum: f.number("csum", 0xffff)?,
    }))
}

fn udp(f: &mut Fields) -> Result<Layer> {
    let (sport, dport) = f.ports()?;
    Ok(Layer::Udp(Udp { sport, dport, len: f.number("len", 0xffff)?, csum: f.number("csum", 0xffff)? }))
}

fn sctp(f: &mut Fields) -> Result<Layer> {
    let (sport, dport) = f.ports()?;
    Ok(Layer::Sctp(Sctp { sport, dport, tag: f.u32("tag", u32::MAX, 0)?, csum: f.number("csum", u32::MAX)? }))
}

fn icmp(f: &mut Fields, v6: bool) -> Result<Layer> {
    let csum = f.number("csum", 0xffff)?;
    let mut h = Icmp { v6, csum, ..Icmp::default() };
    if let Some(kind) = f.number("type", 255)? {
        h.kind = narrow8(kind);
        h.code = f.u8("code", 255, 0)?;
        h.rest = f.u32("rest", u32::MAX, 0)?.to_be_bytes();
        return Ok(Layer::Icmp(h));
    }
    let expected = if v6 {
        "echo, echo-reply, unreachable, packet-too-big, ttl-exceeded, neighbor-solicit, neighbor-advert or type=N"
    } else {
        "echo, echo-reply, unreachable, ttl-exceeded or type=N"
    };
    let kind = f.positional("the message", expected, |word| kind_of(v6, word))?;
    h.kind = kind;
    match (v6, kind) {
        (false, icmp4::ECHO | icmp4::ECHO_REPLY) | (true, icmp6::ECHO | icmp6::ECHO_REPLY) => {
            let (id, seq) = (f.u32("id", 0xffff, 0)?, f.u32("seq", 0xffff, 0)?);
            h.rest = (id << 16 | seq).to_be_bytes();
        }
        (true, icmp6::NEIGHBOR_SOLICIT | icmp6::NEIGHBOR_ADVERT) => {
            let target = f.positional("TARGET", "an IPv6 address", |text| text.parse::<Ipv6Addr>().ok())?;
            if kind == icmp6::NEIGHBOR_ADVERT {
                h.rest = (u32::from(f.letters(super::print::ADVERT_FLAGS)) << 29).to_be_bytes();
            }
            h.neighbor = Some(Neighbor { target, sll: f.mac("sll")?, tll: f.mac("tll")? });
        }
        _ => {
            h.code = f.u8("code", 255, 0)?;
            if v6 && kind == icmp6::PACKET_TOO_BIG {
                let mtu = f.number("mtu", u32::MAX)?.ok_or_else(|| f.missing("mtu="))?;
                h.rest = mtu.to_be_bytes();
            } else if !v6 && kind == icmp4::UNREACHABLE {
                h.rest = f.u32("mtu", 0xffff, 0)?.to_be_bytes();
            }
        }
    }
    Ok(Layer::Icmp(h))
}

fn kind_of(v6: bool, word: &str) -> Option<u8> {
    Some(match (v6, word) {
        (false, "echo") => icmp4::ECHO,
        (false, "echo-reply") => icmp4::ECHO_REPLY,
        (false, "unreachable") => icmp4::UNREACHABLE,
        (false, "ttl-exceeded") => icmp4::TIME_EXCEEDED,
        (true, "echo") => icmp6::ECHO,
        (true, "echo-reply") => icmp6::ECHO_REPLY,
        (true, "unreachable") => icmp6::UNREACHABLE,
        (true, "packet-too-big") => icmp6::PACKET_TOO_BIG,
        (true, "ttl-exceeded") => icmp6::TIME_EXCEEDED,
        (true, "neighbor-solicit") => icmp6::NEIGHBOR_SOLICIT,
        (true, "neighbor-advert") => icmp6::NEIGHBOR_ADVERT,
        _ => return None,
    })
}

fn vxlan(f: &mut Fields) -> Result<Layer> {
    let vni = f.number("vni", 0xff_ffff)?.ok_or_else(|| f.missing("vni="))?;
    let (flags, res1, res2) = (f.number("flags", 255)?, f.number("res1", 0xff_ffff)?, f.number("res2", 255)?);
    Ok(Layer::Vxlan(Vxlan { vni, flags, res1, res2 }))
}

fn sctp_data(f: &mut Fields) -> Result<Layer> {
    Ok(Layer::SctpData(SctpData {
        flags: f.u8("flags", 255, 3)?,
        tsn: f.u32("tsn", u32::MAX, 0)?,
        sid: f.u16("sid", 0xffff, 0)?,
        ssn: f.u16("ssn", 0xffff, 0)?,
        ppid: f.u32("ppid", u32::MAX, 0)?,
        len: f.number("len", 0xffff)?,
    }))
}

fn geneve(f: &mut Fields) -> Result<Layer> {
    let vni = f.number("vni", 0xff_ffff)?.ok_or_else(|| f.missing("vni="))?;
    let (flags, opts) = (f.u8("flags", 255, 0)?, f.hex("opts")?.unwrap_or_default());
    Ok(Layer::Geneve(Geneve { vni, flags, opts, ethertype: f.number("type", 0xffff)?, res: f.number("res", 255)? }))
}

fn gre(f: &mut Fields) -> Result<Layer> {
    let csum = f.number("csum", 0xffff)?;
    Ok(Layer::Gre(Gre {
        key: f.number("key", u32::MAX)?,
        seq: f.number("seq", u32::MAX)?,
        // A forced checksum is one, too.
        sum: f.flag("sum") || csum.is_some(),
        ethertype: f.number("type", 0xffff)?,
        csum,
    }))
}

fn gue(f: &mut Fields) -> Result<Layer> {
    Ok(Layer::Gue(Gue {
        control: f.flag("control"),
        flags: f.u16("flags", 0xffff, 0)?,
        opts: f.hex("opts")?.unwrap_or_default(),
        proto: f.protocol()?,
    }))
}

fn quic(f: &mut Fields) -> Result<Layer> {
    let long = f.positional("long or short", "long or short", |word| match word {
        "long" => Some(true),
        "short" => Some(false),
        _ => None,
    })?;
    let bits = f.u8("bits", 0x3f, 0)?;
    let dcid = f.hex("dcid")?;
    Ok(Layer::Quic(if long {
        let version = f.u32("version", u32::MAX, 1)?;
        Quic::Long { bits, version, dcid: dcid.unwrap_or_default(), scid: f.hex("scid")?.unwrap_or_default() }
    } else {
        Quic::Short { bits, dcid: dcid.unwrap_or_else(|| vec![0; Quic::SHORT_DCID]) }
    }))
}

fn data(f: &mut Fields) -> Result<Layer> {
    let len = f.positional("the number of bytes", "a number of bytes up to 65535", |text| below(text, DATA_MAX))?;
    Ok(Layer::Data(narrow16(len).into()))
}

fn pad(f: &mut Fields) -> Result<Layer> {
    if f.flag("hex") {
        return f.rest_as_hex().map(Layer::Pad);
    }
    let len = f.positional("the number of bytes", "a number of bytes up to 65535", |text| below(text, DATA_MAX))?;
    Ok(Layer::Pad(vec![0; narrow16(len).into()]))
}

/// The tokens of one layer that nobody has asked for yet.
struct Fields<'a> {
    layer: usize,
    name: &'a str,
    usage: &'static str,
    tokens: Vec<&'a str>,
}

impl<'a> Fields<'a> {
    fn bad(&self, token: &str, expected: &str) -> NotationError {
        NotationError::BadValue {
            layer: self.layer,
            name: self.name.to_owned(),
            token: token.to_owned(),
            expected: expected.to_owned(),
        }
    }

    fn missing(&self, what: &'static str) -> NotationError {
        NotationError::Missing { layer: self.layer, name: self.name.to_owned(), what, usage: self.usage }
    }

    /// The first token that is no field.
    fn positional<T>(&mut self, what: &'static str, expected: &str, read: impl Fn(&str) -> Option<T>) -> Result<T> {
        let at = self.tokens.iter().position(|token| !token.contains('=')).ok_or_else(|| self.missing(what))?;
        let token = self.tokens.remove(at);
        read(token).ok_or_else(|| self.bad(token, expected))
    }

    fn pair<T>(&mut self, what: &'static str, expected: &str, read: impl Fn(&str) -> Option<T>) -> Result<(T, T)> {
        let first = self.positional(what, expected, &read)?;
        self.positional("> and what follows it", "'>' in its place", |token| (token == ">").then_some(()))?;
        Ok((first, self.positional("what follows >", expected, &read)?))
    }

    fn ports(&mut self) -> Result<(u16, u16)> {
        self.pair("SPORT > DPORT", "a port from 0 to 65535", |text| text.parse().ok())
    }

    /// Takes the value of `key=value`.
    fn value(&mut self, key: &str) -> Option<&'a str> {
        let split = |token: &'a str| token.split_once('=').filter(|(name, _)| *name == key).map(|(_, value)| value);
        let at = self.tokens.iter().position(|token| split(token).is_some())?;
        split(self.tokens.remove(at))
    }

    fn flag(&mut self, name: &str) -> bool {
        let at = self.tokens.iter().position(|token| *token == name);
        at.map(|at| self.tokens.remove(at)).is_some()
    }

    fn number(&mut self, key: &str, max: u32) -> Result<Override> {
        let Some(text) = self.value(key) else { return Ok(None) };
        let bad = || self.bad(&format!("{key}={text}"), &format!("a number from 0 to {max} ({max:#x})"));
        below(text, max).ok_or_else(bad).map(Some)
    }

    fn u32(&mut self, key: &str, max: u32, default: u32) -> Result<u32> {
        Ok(self.number(key, max)?.unwrap_or(default))
    }

    fn u16(&mut self, key: &str, max: u16, default: u16) -> Result<u16> {
        Ok(self.number(key, max.into())?.map_or(default, narrow16))
    }

    fn u8(&mut self, key: &str, max: u8, default: u8) -> Result<u8> {
        Ok(self.number(key, max.into())?.map_or(default, narrow8))
    }

    fn hex(&mut self, key: &str) -> Result<Option<Vec<u8>>> {
        let Some(text) = self.value(key) else { return Ok(None) };
        hex(text).ok_or_else(|| self.bad(&format!("{key}={text}"), "pairs of hexadecimal digits")).map(Some)
    }

    fn mac(&mut self, key: &str) -> Result<Option<Mac>> {
        let Some(text) = self.value(key) else { return Ok(None) };
        mac(text).ok_or_else(|| self.bad(&format!("{key}={text}"), "an Ethernet address as 02::1")).map(Some)
    }

    fn protocol(&mut self) -> Result<Override> {
        let Some(text) = self.value("proto") else { return Ok(None) };
        let named = PROTOCOLS.iter().find(|(name, _)| *name == text).map(|(_, number)| u32::from(*number));
        let number = named.or_else(|| below(text, 255));
        let bad = || self.bad(&format!("proto={text}"), "tcp, udp, sctp, icmp, icmp6 or a number from 0 to 255");
        number.ok_or_else(bad).map(Some)
    }

    /// Takes a token made of letters of `alphabet` (the first is the lowest bit), once each.
    fn letters(&mut self, alphabet: &str) -> u16 {
        let bits = |token: &str| {
            let once = |bits: u16, letter| {
                let bit = 1 << alphabet.find(letter)?;
                (bits & bit == 0).then_some(bits | bit)
            };
            token.chars().try_fold(0, once)
        };
        let at = self.tokens.iter().position(|token| bits(token).is_some());
        at.map(|at| self.tokens.remove(at)).and_then(bits).unwrap_or(0)
    }

    fn rest_as_hex(&mut self) -> Result<Vec<u8>> {
        let tokens = std::mem::take(&mut self.tokens);
        let text = tokens.concat();
        hex(&text).ok_or_else(|| self.bad(&tokens.join(" "), "pairs of hexadecimal digits"))
    }

    fn finish(&self) -> Result<()> {
        self.tokens.first().map_or(Ok(()), |token| {
            Err(NotationError::UnknownField {
                layer: self.layer,
                name: self.name.to_owned(),
                token: (*token).to_owned(),
                usage: self.usage,
            })
        })
    }
}

/// Names that `proto=` takes beside numbers.
pub(super) const PROTOCOLS: [(&str, u8); 5] =
    [("tcp", ip::TCP), ("udp", ip::UDP), ("sctp", ip::SCTP), ("icmp", ip::ICMP), ("icmp6", ip::ICMPV6)];

/// A decimal or 0x number up to `max`.
fn below(text: &str, max: u32) -> Option<u32> {
    let number = match text.strip_prefix("0x") {
        Some(digits) if digits.starts_with(|c: char| c.is_ascii_hexdigit()) => u32::from_str_radix(digits, 16),
        _ if text.starts_with('+') => return None,
        _ => text.parse(),
    };
    number.ok().filter(|number| *number <= max)
}

// Both are called on numbers that a maximum has been asked of.
fn narrow16(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn narrow8(number: u32) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    rest.is_empty().then_some(())?;
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Six octets; `::` stands for the zero octets that are missing.
fn mac(text: &str) -> Option<Mac> {
    let octets = |part: &str| -> Option<Vec<u8>> {
        let octet = |text: &str| {
            let good = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
            good.then(|| u8::from_str_radix(text, 16).ok())?
        };
        if part.is_empty() { Some(Vec::new()) } else { part.split(':').map(octet).collect() }
    };
    match text.split_once("::") {
        None => octets(text)?.try_into().ok(),
        Some((head, tail)) => {
            let (mut head, tail) = (octets(head)?, octets(tail)?);
            let zeros = 6usize.checked_sub(head.len() + tail.len()).filter(|zeros| *zeros > 0)?;
            head.extend(std::iter::repeat_n(0, zeros));
            head.extend(tail);
            head.try_into().ok()
        }
    }
}
