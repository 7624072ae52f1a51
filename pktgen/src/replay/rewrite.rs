//! Changes to captured frames: `--rewrite eth.dst=02::1,vlan=100,ip.src=198.18.0.0/16`, and what each further loop adds.
//!
//! Only the outermost IP header and the TCP or UDP header right behind it are touched; what is inside a tunnel or quoted in
//! an ICMP error stays as it was captured. Checksums are adjusted by the difference (RFC 1624), so a packet whose
//! checksum was wrong in the capture is wrong by the same amount when it is sent; a UDP checksum of zero stays zero (RFC 768).

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use packet::checksum::update_bytes;
use packet::layer::{Layer, Mac};
use packet::proto::{self, ethertype, ip};

/// VLAN tags and IPv6 extension headers that are looked behind.
const TAGS_MAX: usize = 4;
const EXTENSIONS_MAX: usize = 8;

/// Text that is no rewriting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no rewriting: {hint}")]
pub struct BadRewrite {
    text: String,
    hint: &'static str,
}

impl BadRewrite {
    fn new(text: &str, hint: &'static str) -> Self {
        Self { text: text.to_owned(), hint }
    }
}

/// What a VLAN rule does to the outermost tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vlan {
    /// Sets its identifier; a frame without tag gets one (802.1Q, priority 0).
    Set(u16),
    /// Takes it off.
    Strip,
}

/// Addresses in `from` (all of its family where it is none) move into `to`, keeping their host bits as far as these fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    from: Option<IpNet>,
    to: IpNet,
}

impl FromStr for Mapping {
    type Err = BadRewrite;

    fn from_str(text: &str) -> Result<Self, BadRewrite> {
        let hint = "write an address, a prefix as 198.18.0.0/16, or 10.0.0.0/8->198.18.0.0/16";
        let net = |text: &str| {
            let text = text.trim();
            text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        };
        let bad = || BadRewrite::new(text, hint);
        let (from, to) = match text.split_once("->") {
            Some((from, to)) => (Some(net(from).ok_or_else(bad)?), to),
            None => (None, text),
        };
        let to = net(to).ok_or_else(bad)?;
        if from.is_some_and(|from| from.addr().is_ipv4() != to.addr().is_ipv4()) {
            return Err(BadRewrite::new(text, "both prefixes must be of one family"));
        }
        Ok(Self { from, to })
    }
}

impl Mapping {
    /// Moves the address in `bytes`, which has the length of its family; one of the other family stays.
    fn apply(&self, bytes: &mut [u8]) {
        let Some(address) = address(bytes) else { return };
        if address.is_ipv4() != self.to.addr().is_ipv4() || self.from.is_some_and(|from| !from.contains(&address)) {
            return;
        }
        merge(bytes, self.to.network(), self.to.netmask());
    }
}

/// A value as the program was given it and for which fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    EthDst(Mac),
    EthSrc(Mac),
    Vlan(Vlan),
    IpSrc(Mapping),
    IpDst(Mapping),
}

/// `--rewrite`: rules that are applied to every frame once, before the first is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite(Vec<Rule>);

impl FromStr for Rewrite {
    type Err = BadRewrite;

    fn from_str(text: &str) -> Result<Self, BadRewrite> {
        let mut rules = Vec::new();
        for rule in text.split(',').map(str::trim).filter(|rule| !rule.is_empty()) {
            let hint = "write FIELD=VALUE; fields are eth.dst, eth.src, vlan, ip.src, ip.dst and ip (both)";
            let (field, value) = rule.split_once('=').ok_or_else(|| BadRewrite::new(rule, hint))?;
            let value = value.trim();
            match field.trim() {
                "eth.dst" => rules.push(Rule::EthDst(mac(value)?)),
                "eth.src" => rules.push(Rule::EthSrc(mac(value)?)),
                "vlan" => rules.push(Rule::Vlan(vlan(value)?)),
                "ip.src" => rules.push(Rule::IpSrc(value.parse()?)),
                "ip.dst" => rules.push(Rule::IpDst(value.parse()?)),
                "ip" => {
                    let mapping = value.parse()?;
                    rules.extend([Rule::IpSrc(mapping), Rule::IpDst(mapping)]);
                }
                _ => return Err(BadRewrite::new(rule, hint)),
            }
        }
        Ok(Self(rules))
    }
}

fn mac(text: &str) -> Result<Mac, BadRewrite> {
    // The notation of the packet tests knows how addresses are written.
    match packet::notation::parse(&format!("eth {text} > ::")).as_deref() {
        Ok([Layer::Eth(eth)]) => Ok(eth.src),
        _ => Err(BadRewrite::new(text, "write an Ethernet address as 02:00:00:00:00:01 or 02::1")),
    }
}

fn vlan(text: &str) -> Result<Vlan, BadRewrite> {
    match text.parse() {
        Ok(id @ 0..=4094) => Ok(Vlan::Set(id)),
        _ if text == "none" => Ok(Vlan::Strip),
        _ => Err(BadRewrite::new(text, "write a VLAN as 0 to 4094, or none to take the tag off")),
    }
}

impl Rewrite {
    /// Changes a frame; a VLAN rule may make it four bytes longer or shorter.
    pub fn apply(&self, frame: &mut Vec<u8>) {
        for rule in &self.0 {
            match rule {
                Rule::EthDst(mac) => overwrite(frame, 0, mac),
                Rule::EthSrc(mac) => overwrite(frame, 6, mac),
                Rule::Vlan(vlan) => retag(frame, *vlan),
                Rule::IpSrc(mapping) => readdress(frame, End::Source, |bytes| mapping.apply(bytes)),
                Rule::IpDst(mapping) => readdress(frame, End::Destination, |bytes| mapping.apply(bytes)),
            }
        }
    }

    /// Bits of the address that stay the same when a loop adds to it: those of the prefix that it was moved into.
    fn prefix(&self, end: End, address: IpAddr) -> Option<IpNet> {
        self.0.iter().rev().find_map(|rule| match (rule, end) {
            (Rule::IpSrc(mapping), End::Source) | (Rule::IpDst(mapping), End::Destination) => {
                mapping.to.contains(&address).then_some(mapping.to)
            }
            _ => None,
        })
    }
}

fn retag(frame: &mut Vec<u8>, vlan: Vlan) {
    let Some(outer) = word(frame, 12) else { return };
    let tagged = matches!(outer, ethertype::VLAN | ethertype::QINQ);
    match vlan {
        Vlan::Set(id) if tagged => {
            let priority = word(frame, 14).unwrap_or(0) & 0xf000;
            overwrite(frame, 14, &(priority | id).to_be_bytes());
        }
        Vlan::Set(id) => {
            let [a, b] = ethertype::VLAN.to_be_bytes();
            let [c, d] = id.to_be_bytes();
            frame.splice(12..12, [a, b, c, d]);
        }
        Vlan::Strip if tagged && frame.len() >= 16 => drop(frame.drain(12..16)),
        Vlan::Strip => {}
    }
}

/// One end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

/// Where the headers of a frame are that can be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Headers {
    l3: usize,
    v6: bool,
    /// TCP or UDP header: its place and that of the checksum in it. None behind a fragment's offset and for other protocols.
    ports: Option<(usize, usize)>,
    /// A checksum that covers the addresses: TCP, UDP, ICMPv6. It is that of the whole datagram in a first fragment, too.
    pseudo: Option<usize>,
    protocol: u8,
}

/// Bytes of Ethernet header and VLAN tags.
pub(super) fn link_len(frame: &[u8]) -> usize {
    link(frame).map_or(proto::ETHERNET_LEN, |(_, l3)| l3)
}

/// What follows the VLAN tags, and where.
fn link(frame: &[u8]) -> Option<(u16, usize)> {
    let mut ethertype = word(frame, 12)?;
    let mut l3 = proto::ETHERNET_LEN;
    for _ in 0..TAGS_MAX {
        if matches!(ethertype, ethertype::VLAN | ethertype::QINQ) {
            ethertype = word(frame, l3 + 2)?;
            l3 += proto::VLAN_LEN;
        }
    }
    Some((ethertype, l3))
}

impl Headers {
    /// `None` for what is not IP, or is cut off in its IP header.
    fn find(frame: &[u8]) -> Option<Self> {
        let (ethertype, l3) = link(frame)?;
        let (v6, protocol, l4) = match ethertype {
            ethertype::IPV4 => {
                let first = *frame.get(l3)?;
                frame.get(l3..l3 + proto::IPV4_LEN)?;
                // Version 4, and a fragment without the transport header has none.
                let l4 = (word(frame, l3 + 6)? & 0x1fff == 0).then_some(l3 + usize::from(first & 0xf) * 4);
                (false, *frame.get(l3 + 9)?, l4)
            }
            ethertype::IPV6 => {
                frame.get(l3..l3 + proto::IPV6_LEN)?;
                let (protocol, l4) = chain(frame, l3);
                (true, protocol, l4)
            }
            _ => return None,
        };
        let checksum = match protocol {
            ip::TCP => Some(16),
            ip::UDP => Some(6),
            ip::ICMPV6 if v6 => Some(2),
            _ => None,
        };
        let pseudo = l4.zip(checksum).map(|(l4, checksum)| l4 + checksum).filter(|at| word(frame, *at).is_some());
        let ports = l4.zip(pseudo).filter(|_| protocol != ip::ICMPV6);
        Some(Self { l3, v6, ports, pseudo, protocol })
    }

    fn address(&self, end: End) -> std::ops::Range<usize> {
        let (first, len) = if self.v6 { (self.l3 + 8, 16) } else { (self.l3 + 12, 4) };
        match end {
            End::Source => first..first + len,
            End::Destination => first + len..first + 2 * len,
        }
    }

    /// Addresses and ports; both directions of a connection have the same sum.
    fn flow(&self, frame: &[u8]) -> u64 {
        let sum = |range: std::ops::Range<usize>| {
            let bytes = frame.get(range).unwrap_or_default();
            bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
            })
        };
        let addresses = sum(self.address(End::Source)).wrapping_add(sum(self.address(End::Destination)));
        let ports = self.ports.map_or(0, |(l4, _)| sum(l4..l4 + 2).wrapping_add(sum(l4 + 2..l4 + 4)));
        addresses ^ ports.rotate_left(17) ^ u64::from(self.protocol)
    }
}

/// The last header of an IPv6 chain and its place; no place behind a fragment's offset or where the chain is cut off.
fn chain(frame: &[u8], l3: usize) -> (u8, Option<usize>) {
    let mut protocol = frame.get(l3 + 6).copied().unwrap_or(ip::NO_NEXT);
    let mut at = l3 + proto::IPV6_LEN;
    for _ in 0..EXTENSIONS_MAX {
        let units = match protocol {
            ip::HOP_BY_HOP | ip::ROUTING | ip::DST_OPTS => 8,
            ip::AH => 4,
            ip::FRAGMENT => 0,
            _ => return (protocol, Some(at)),
        };
        let Some([next, count]) = word(frame, at).map(u16::to_be_bytes) else { return (protocol, None) };
        let later = protocol == ip::FRAGMENT && word(frame, at + 2).is_none_or(|offset| offset & 0xfff8 != 0);
        protocol = next;
        at += match units {
            8 => (usize::from(count) + 1) * 8,
            4 => (usize::from(count) + 2) * 4,
            _ => 8,
        };
        if later {
            return (protocol, None);
        }
    }
    (protocol, None)
}

/// A number that is the same for all frames of a connection, in both directions.
pub(super) fn flow(frame: &[u8]) -> u64 {
    Headers::find(frame).map_or(0, |headers| headers.flow(frame))
}

fn readdress(frame: &mut [u8], end: End, change: impl Fn(&mut [u8])) {
    if let Some(headers) = Headers::find(frame) {
        replace(frame, headers, headers.address(end), true, change);
    }
}

/// Changes bytes at an even offset and adjusts the checksums over them; `address`: those over addresses, too.
fn replace(frame: &mut [u8], headers: Headers, at: std::ops::Range<usize>, address: bool, change: impl Fn(&mut [u8])) {
    let mut old = [0; 16];
    let Some(place) = frame.get_mut(at.clone()) else { return };
    let Some(old) = old.get_mut(..place.len()) else { return };
    old.copy_from_slice(place);
    change(place);
    let mut new = [0; 16];
    let Some(new) = new.get_mut(..place.len()) else { return };
    new.copy_from_slice(place);
    if address && !headers.v6 {
        adjust(frame, headers.l3 + 10, old, new, false);
    }
    if let Some(checksum) = headers.pseudo {
        adjust(frame, checksum, old, new, headers.protocol == ip::UDP);
    }
}

fn adjust(frame: &mut [u8], checksum: usize, old: &[u8], new: &[u8], udp: bool) {
    let Some(sum) = word(frame, checksum) else { return };
    if udp && sum == 0 {
        return;
    }
    let sum = match update_bytes(sum, old, new) {
        0 if udp => 0xffff,
        sum => sum,
    };
    overwrite(frame, checksum, &sum.to_be_bytes());
}

/// `--per-loop ip.src=1,port.src=1`: what is added for each time that the capture has been sent before, so that each loop
/// is new flows. Addresses wrap within the prefix that `--rewrite` moved them into, ports within 16 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerLoop {
    src: u32,
    dst: u32,
    sport: u16,
    dport: u16,
}

impl FromStr for PerLoop {
    type Err = BadRewrite;

    fn from_str(text: &str) -> Result<Self, BadRewrite> {
        let hint = "write FIELD=NUMBER; fields are ip.src, ip.dst, ip (both), port.src, port.dst and port (both)";
        let mut steps = Self::default();
        for step in text.split(',').map(str::trim).filter(|step| !step.is_empty()) {
            let bad = || BadRewrite::new(step, hint);
            let (field, value) = step.split_once('=').ok_or_else(bad)?;
            let (field, value) = (field.trim(), value.trim());
            let number: u32 = value.parse().map_err(|_| bad())?;
            let port = u16::try_from(number).map_err(|_| BadRewrite::new(step, "ports have 16 bits"));
            match field {
                "ip.src" => steps.src = number,
                "ip.dst" => steps.dst = number,
                "ip" => (steps.src, steps.dst) = (number, number),
                "port.src" => steps.sport = port?,
                "port.dst" => steps.dport = port?,
                "port" => (steps.sport, steps.dport) = (port.clone()?, port?),
                _ => return Err(bad()),
            }
        }
        Ok(steps)
    }
}

impl PerLoop {
    /// Changes a frame for its `turn`th repetition; the first time is turn 0 and changes nothing.
    pub fn apply(&self, frame: &mut [u8], turn: u64, rewrite: &Rewrite) {
        if turn == 0 || *self == Self::default() {
            return;
        }
        let Some(headers) = Headers::find(frame) else { return };
        for (end, step) in [(End::Source, self.src), (End::Destination, self.dst)] {
            if step == 0 {
                continue;
            }
            let amount = u64::from(step).wrapping_mul(turn);
            replace(frame, headers, headers.address(end), true, |bytes| {
                let Some(before) = address(bytes) else { return };
                add(bytes, amount);
                if let Some(net) = rewrite.prefix(end, before) {
                    merge(bytes, net.network(), net.netmask());
                }
            });
        }
        let Some((l4, _)) = headers.ports else { return };
        for (at, step) in [(l4, self.sport), (l4 + 2, self.dport)] {
            // The low 16 bits count: ports wrap.
            let amount = u16::try_from(u64::from(step).wrapping_mul(turn) & 0xffff).unwrap_or(0);
            if amount != 0 {
                replace(frame, headers, at..at + 2, false, |bytes| {
                    let port = word(bytes, 0).unwrap_or(0).wrapping_add(amount);
                    overwrite(bytes, 0, &port.to_be_bytes());
                });
            }
        }
    }
}

/// Adds to a big-endian number of 4 or 16 bytes, modulo its size.
fn add(bytes: &mut [u8], amount: u64) {
    if let Ok(octets) = <[u8; 4]>::try_from(&*bytes) {
        let low = u32::try_from(amount & 0xffff_ffff).unwrap_or(0);
        bytes.copy_from_slice(&u32::from_be_bytes(octets).wrapping_add(low).to_be_bytes());
    } else if let Ok(octets) = <[u8; 16]>::try_from(&*bytes) {
        bytes.copy_from_slice(&u128::from_be_bytes(octets).wrapping_add(amount.into()).to_be_bytes());
    }
}

/// Sets the bits of `mask` to those of `network`.
fn merge(bytes: &mut [u8], network: IpAddr, mask: IpAddr) {
    let apply = |bytes: &mut [u8], network: &[u8], mask: &[u8]| {
        for ((byte, network), mask) in bytes.iter_mut().zip(network).zip(mask) {
            *byte = network & mask | *byte & !mask;
        }
    };
    match (network, mask) {
        (IpAddr::V4(network), IpAddr::V4(mask)) => apply(bytes, &network.octets(), &mask.octets()),
        (IpAddr::V6(network), IpAddr::V6(mask)) => apply(bytes, &network.octets(), &mask.octets()),
        _ => {}
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

fn overwrite(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet::notation::{decode, encode};
    use proptest::prelude::*;

    const TCP: &str = "ip4 10.1.2.3 > 192.0.2.9 df / tcp 1000 > 80 S seq=7 / data 5";
    const UDP6: &str = "ip6 2001:db8::1:2 > 2001:db8:9::5 / dstopts / udp 1000 > 53 / data 3";

    fn eth(rest: &str) -> String {
        format!("eth 02::1 > 02::2 / {rest}")
    }

    #[track_caller]
    fn rewritten(frame: &str, rules: &str) -> String {
        let mut bytes = encode(frame).unwrap();
        rules.parse::<Rewrite>().unwrap().apply(&mut bytes);
        decode(&bytes)
    }

    /// The notation prints a checksum only where it is wrong, so equal text means that it was adjusted.
    #[track_caller]
    fn check(frame: &str, rules: &str, expected: &str) {
        assert_eq!(rewritten(frame, rules), decode(&encode(expected).unwrap()), "{rules}");
    }

    #[test]
    fn headers_change_and_checksums_stay_right() {
        let moved = "ip4 198.18.2.3 > 192.0.2.9 df / tcp 1000 > 80 S seq=7 / data 5";
        check(&eth(TCP), "ip.src=198.18.0.0/16", &eth(moved));
        check(&eth(TCP), "ip.src=10.0.0.0/8->198.18.0.0/16", &eth(moved));
        check(&eth(TCP), "ip.src=11.0.0.0/8->198.18.0.0/16", &eth(TCP));
        check(&eth(TCP), "ip.src=2001:db8::/64", &eth(TCP));
        check(&eth(TCP), "ip=10.0.0.0/7", &eth("ip4 10.1.2.3 > 10.0.2.9 df / tcp 1000 > 80 S seq=7 / data 5"));
        check(&eth(TCP), "eth.dst=04::4, eth.src=06::6", &format!("eth 06::6 > 04::4 / {TCP}"));
        check(&eth(TCP), "vlan=100", &eth(&format!("vlan 100 / {TCP}")));
        check(&eth(&format!("vlan 5 / {TCP}")), "vlan=100,ip.src=198.18.0.0/16", &eth(&format!("vlan 100 / {moved}")));
        check(&eth(&format!("vlan 5 / {TCP}")), "vlan=none", &eth(TCP));
        let moved = "ip6 2001:db8::1:2 > fd00:0:9::5 / dstopts / udp 1000 > 53 / data 3";
        check(&eth(UDP6), "ip.dst=fd00::/32", &eth(moved));
        check(
            &eth("arp who-has 10.0.0.1 tell 10.0.0.2"),
            "ip.src=198.18.0.0/16",
            &eth("arp who-has 10.0.0.1 tell 10.0.0.2"),
        );
    }

    #[test]
    fn what_was_wrong_or_absent_stays_so() {
        let silent = eth("ip4 10.1.2.3 > 192.0.2.9 / udp 1000 > 53 csum=0 / data 3");
        assert!(rewritten(&silent, "ip.src=198.18.0.0/16").contains("csum=0x0000"), "no checksum");
        let wrong = eth("ip4 10.1.2.3 > 192.0.2.9 / tcp 1000 > 53 csum=1 / data 3");
        assert!(rewritten(&wrong, "ip.src=198.18.0.0/16").contains("csum="), "still wrong");
        // A later fragment has no ports: its bytes there are data.
        let later = eth("ip4 10.1.2.3 > 192.0.2.9 frag=8 proto=tcp / data 30");
        check(&later, "ip.src=198.18.0.0/16", &later.replace("10.1.2.3", "198.18.2.3"));
        let six = eth("ip6 2001:db8::1:2 > 2001:db8:9::5 / frag id=9 off=16 proto=17 / data 30");
        check(&six, "ip.src=fd00::/32", &six.replace("2001:db8::1:2", "fd00::1:2"));
    }

    #[test]
    fn loops_add_within_the_prefix() {
        let rewrite: Rewrite = "ip.src=198.18.2.0/24".parse().unwrap();
        let steps: PerLoop = "ip.src=100, port.src=1,ip.dst=1".parse().unwrap();
        let turned = |turn| {
            let mut bytes = encode(&eth(TCP)).unwrap();
            rewrite.apply(&mut bytes);
            steps.apply(&mut bytes, turn, &rewrite);
            decode(&bytes)
        };
        let expected = |src: &str, dst: &str, port: u16| {
            decode(&encode(&eth(&format!("ip4 {src} > {dst} df / tcp {port} > 80 S seq=7 / data 5"))).unwrap())
        };
        assert_eq!(turned(0), expected("198.18.2.3", "192.0.2.9", 1000));
        assert_eq!(turned(1), expected("198.18.2.103", "192.0.2.10", 1001));
        assert_eq!(turned(3), expected("198.18.2.47", "192.0.2.12", 1003));
        assert_eq!(turned(65_536 + 1), expected("198.18.2.103", "192.1.2.10", 1001));
    }

    #[test]
    fn both_directions_are_one_flow() {
        let flow = |text: &str| flow(&encode(&eth(text)).unwrap());
        let there = flow(TCP);
        assert_eq!(there, flow("ip4 192.0.2.9 > 10.1.2.3 / tcp 80 > 1000 SA"));
        assert_ne!(there, flow("ip4 192.0.2.9 > 10.1.2.3 / tcp 80 > 1001 SA"));
        assert_ne!(there, flow("ip4 192.0.2.9 > 10.1.2.4 / tcp 80 > 1000 SA"));
        assert_eq!(flow(UDP6), flow("ip6 2001:db8:9::5 > 2001:db8::1:2 / udp 53 > 1000"));
    }

    #[test]
    fn mistakes_say_what_to_write() {
        for (text, expected) in [
            ("eth.dst", "FIELD=VALUE"),
            ("tcp.dst=1", "fields are"),
            ("eth.src=1", "02::1"),
            ("vlan=4095", "0 to 4094"),
            ("ip.src=10.0.0.0/33", "10.0.0.0/8->"),
            ("ip=10.0.0.0/8->2001:db8::/32", "one family"),
        ] {
            let error = text.parse::<Rewrite>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        for text in ["port.src=65536", "ip.src", "ip.src=x", "seq=1"] {
            assert!(text.parse::<PerLoop>().is_err(), "{text}");
        }
    }

    proptest! {
        /// Whatever is in a frame: nothing panics, and only the VLAN rule changes the length.
        #[test]
        fn garbage_is_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), kind in 0..4u8, turn: u64) {
            for (at, byte) in [(12, [0x08, 0x86, 0x81, 0xff][usize::from(kind)]), (13, [0x00, 0xdd, 0x00, 0xff][usize::from(kind)])] {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            let rewrite: Rewrite = "eth.dst=02::9,ip=10.0.0.0/8,ip.src=fd00::/16".parse().unwrap();
            let len = bytes.len();
            rewrite.apply(&mut bytes);
            let steps: PerLoop = "ip=1,port=1".parse().unwrap();
            steps.apply(&mut bytes, turn, &rewrite);
            prop_assert_eq!(bytes.len(), len);
            let _ = flow(&bytes);
        }

        /// Adding and taking away again restores the frame, so checksums are exact both ways.
        #[test]
        fn differences_cancel(turn in 1..1000u64) {
            let original = encode(&eth(TCP)).unwrap();
            let mut bytes = original.clone();
            let none = Rewrite::default();
            let forth: PerLoop = "ip=1,port=1".parse().unwrap();
            let back: PerLoop = "ip=4294967295,port=65535".parse().unwrap();
            forth.apply(&mut bytes, turn, &none);
            prop_assert_ne!(&bytes, &original);
            back.apply(&mut bytes, turn, &none);
            prop_assert_eq!(bytes, original);
        }
    }
}
