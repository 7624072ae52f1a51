//! Answers of the slow path: ICMP errors and echo replies, as IP packets without a link-layer header.
//!
//! What must not be answered is [`Refused`] (RFC 1122 §3.2.2, RFC 1812 §4.3.2.7, RFC 4443 §2.4(e)): errors, redirects, fragments other
//! than the first, senders that are not one host, packets to more than one host. Whether the frame came as a link-layer
//! broadcast, and how many errors a second may be sent, is the caller's to check.
//!
//! Left out: options are not copied from the offending packet, and a source route is not reversed.

use std::net::{IpAddr, Ipv4Addr};

use crate::checksum::{self, Checksum};
use crate::proto::{self, ethertype, icmp4, icmp6, ip};
use crate::read::put;
use crate::view::{Ip, ParseError};

/// Longest ICMP error over IPv4, IP header included (RFC 1812 §4.3.2.3).
pub const ERROR_MAX_V4: usize = 576;
/// Longest ICMPv6 error, IP header included: the minimum MTU (RFC 4443 §2.4(c)).
pub const ERROR_MAX_V6: usize = 1280;

/// Hop limit and TTL of what is sent.
const TTL: u8 = 64;
/// Precedence 6, internetwork control: what RFC 1812 §4.3.2.5 asks of ICMP errors.
const TOS_ERROR: u8 = 0xc0;

/// What to tell the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// TTL or hop limit used up on the way (type 11 code 0; ICMPv6 type 3 code 0).
    TimeExceeded,
    /// No way to the destination.
    Unreachable(Unreachable),
    /// Larger than the next link takes: fragmentation needed with the MTU of RFC 1191 §4, or packet too big. The MTU
    /// is that of the IP packet; an IPv4 header has room for 65535.
    PacketTooBig {
        /// Largest IP packet that fits, in bytes.
        mtu: u32,
    },
}

/// Why a destination cannot be reached; each family has its own code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// No route: network unreachable (RFC 792 code 0), no route to destination (RFC 4443 §3.1 code 0).
    NoRoute,
    /// The neighbour does not answer: host unreachable (code 1), address unreachable (code 3).
    Address,
    /// Nothing listens: port unreachable (code 3; code 4).
    Port,
    /// Forbidden: communication administratively prohibited (RFC 1812 §5.2.7.1 code 13; code 1).
    Prohibited,
}

/// Why no answer may or can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The packet does not parse.
    #[error("the packet is malformed: {0}")]
    Malformed(#[from] ParseError),
    /// Neither IPv4 nor IPv6.
    #[error("the packet is not IP")]
    NotIp,
    /// An ICMP error or redirect is never answered by an error.
    #[error("the packet is itself an ICMP error")]
    IsError,
    /// Only the first fragment is answered.
    #[error("the packet is a fragment other than the first")]
    LaterFragment,
    /// The source is multicast, broadcast, unspecified, loopback or reserved: nobody to answer.
    #[error("the source address does not name one host")]
    Source,
    /// The destination is multicast or broadcast.
    #[error("the destination address is multicast or broadcast")]
    Destination,
    /// The address to answer from is of the other family, or not one host's.
    #[error("the address to answer from does not fit the packet")]
    From,
    /// Not an echo request, or a fragment of one.
    #[error("the packet is not an echo request")]
    NotEcho,
    /// The caller's buffer is too small.
    #[error("the answer needs {needed} bytes")]
    Buffer {
        /// What would be enough.
        needed: usize,
    },
}

/// Writes the error about `packet` (from its IP header on; padding behind it is not quoted), sent by `from`, into `out`.
///
/// Returns the length of the IP packet in `out`: at most [`ERROR_MAX_V4`] or [`ERROR_MAX_V6`]. As much of the offending
/// packet is quoted as fits.
///
/// # Errors
/// [`Refused`], with `out` in any state.
pub fn error(packet: &[u8], error: Error, from: IpAddr, out: &mut [u8]) -> Result<usize, Refused> {
    let about = parse(packet)?;
    may_answer(&about, error)?;
    if about.src.is_ipv4() != from.is_ipv4() || !is_one_host(from) {
        return Err(Refused::From);
    }
    let (header_len, max) =
        if from.is_ipv4() { (proto::IPV4_LEN, ERROR_MAX_V4) } else { (proto::IPV6_LEN, ERROR_MAX_V6) };
    let quote_len = about.len.min(max - header_len - proto::ICMP_LEN);
    let quote = packet.get(..quote_len).unwrap_or_default();
    let len = header_len + proto::ICMP_LEN + quote_len;
    let out = out.get_mut(..len).ok_or(Refused::Buffer { needed: len })?;
    let (kind, code, rest) = numbers(error, from.is_ipv4());
    let icmp = [kind, code, 0, 0];
    let sum = match (from, about.src) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            put(out, 0, &header_v4(src, dst, TOS_ERROR, len));
            Checksum::default()
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let payload = u16::try_from(len - proto::IPV6_LEN).unwrap_or_default();
            put(out, 0, &[0x60, 0, 0, 0]);
            put(out, 4, &payload.to_be_bytes());
            put(out, 6, &[ip::ICMPV6, TTL]);
            put(out, 8, &src.octets());
            put(out, 24, &dst.octets());
            Checksum::pseudo_v6(src, dst, ip::ICMPV6, payload.into())
        }
        _ => return Err(Refused::From),
    };
    put(out, header_len, &icmp);
    put(out, header_len + 2, &sum.bytes(&icmp).bytes(&rest).bytes(quote).finish().to_be_bytes());
    put(out, header_len + 4, &rest);
    put(out, header_len + proto::ICMP_LEN, quote);
    Ok(len)
}

/// As [`error`], into a new buffer.
///
/// # Errors
/// [`Refused`].
pub fn error_packet(packet: &[u8], about: Error, from: IpAddr) -> Result<Vec<u8>, Refused> {
    let mut out = vec![0; ERROR_MAX_V6];
    let len = error(packet, about, from, &mut out)?;
    out.truncate(len);
    Ok(out)
}

/// Turns an echo request (from its IP header on) into its reply, in place: addresses exchanged, TTL or hop limit 64.
///
/// Returns the length of the reply, which starts at the first byte: shorter than the request by its IPv4 options, which
/// were meant for the way here. IPv6 extension headers and fragments are refused: a VIP answers plain pings.
///
/// # Errors
/// [`Refused`], with `packet` unchanged.
pub fn echo_reply(packet: &mut [u8]) -> Result<usize, Refused> {
    let request = parse(packet)?;
    if request.fragment.is_some() {
        return Err(Refused::NotEcho);
    }
    if !is_one_host(request.src) {
        return Err(Refused::Source);
    }
    if !is_one_host(request.dst) {
        return Err(Refused::Destination);
    }
    let reply = match (request.icmp, request.src) {
        (Some((icmp4::ECHO, 0)), IpAddr::V4(_)) => icmp4::ECHO_REPLY,
        (Some((icmp6::ECHO, 0)), IpAddr::V6(_)) if request.l4 == proto::IPV6_LEN => icmp6::ECHO_REPLY,
        _ => return Err(Refused::NotEcho),
    };
    let message = packet.get(request.l4..request.len).unwrap_or_default();
    let [kind, code, c0, c1] = message.first_chunk().copied().ok_or(Refused::NotEcho)?;
    if message.len() < proto::ICMP_LEN {
        return Err(Refused::NotEcho);
    }
    // ICMPv6: exchanging the addresses leaves the pseudo header's sum as it was.
    let csum = checksum::update_bytes(u16::from_be_bytes([c0, c1]), &[kind, code], &[reply, code]);
    let icmp = [[reply, code], csum.to_be_bytes()].concat();
    match (request.dst, request.src) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let len = proto::IPV4_LEN + request.len - request.l4;
            packet.copy_within(request.l4..request.len, proto::IPV4_LEN);
            put(packet, 0, &header_v4(src, dst, request.tos, len));
            put(packet, proto::IPV4_LEN, &icmp);
            Ok(len)
        }
        (src, dst) => {
            let octets = |address| if let IpAddr::V6(address) = address { address.octets() } else { [0; 16] };
            put(packet, 7, &[TTL]);
            put(packet, 8, &octets(src));
            put(packet, 24, &octets(dst));
            put(packet, proto::IPV6_LEN, &icmp);
            Ok(request.len)
        }
    }
}

fn parse(packet: &[u8]) -> Result<Ip, Refused> {
    let ethertype = match packet.first().map(|first| first >> 4) {
        Some(4) => ethertype::IPV4,
        Some(6) => ethertype::IPV6,
        _ => return Err(Refused::NotIp),
    };
    Ok(Ip::parse(packet, ethertype).ok_or(Refused::NotIp)??)
}

fn may_answer(about: &Ip, error: Error) -> Result<(), Refused> {
    if about.is_later_fragment() {
        return Err(Refused::LaterFragment);
    }
    let is_error = match (about.icmp, about.src) {
        (Some((kind, _)), IpAddr::V4(_)) => matches!(
            kind,
            icmp4::UNREACHABLE
                | icmp4::SOURCE_QUENCH
                | icmp4::REDIRECT
                | icmp4::TIME_EXCEEDED
                | icmp4::PARAMETER_PROBLEM
        ),
        // Errors have the high bit clear (RFC 4443 §2.1), known or not.
        (Some((kind, _)), IpAddr::V6(_)) => kind < 128 || kind == icmp6::REDIRECT,
        (None, _) => false,
    };
    if is_error {
        return Err(Refused::IsError);
    }
    if !is_one_host(about.src) {
        return Err(Refused::Source);
    }
    // Path MTU discovery works for IPv6 multicast too (RFC 4443 §2.4(e.3)).
    let too_big_v6 = matches!(error, Error::PacketTooBig { .. }) && about.dst.is_ipv6();
    if is_group(about.dst) && !too_big_v6 {
        return Err(Refused::Destination);
    }
    Ok(())
}

fn is_group(address: IpAddr) -> bool {
    address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// A unicast address of a host that is not this one; directed broadcasts are known to the routing table only.
fn is_one_host(address: IpAddr) -> bool {
    let reserved = match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            first == 0 || first >= 240
        }
        IpAddr::V6(_) => false,
    };
    !(is_group(address) || address.is_unspecified() || address.is_loopback() || reserved)
}

/// Type, code and the four bytes behind the checksum.
fn numbers(error: Error, v4: bool) -> (u8, u8, [u8; 4]) {
    match (error, v4) {
        (Error::TimeExceeded, true) => (icmp4::TIME_EXCEEDED, 0, [0; 4]),
        (Error::TimeExceeded, false) => (icmp6::TIME_EXCEEDED, 0, [0; 4]),
        (Error::PacketTooBig { mtu }, true) => {
            (icmp4::UNREACHABLE, icmp4::CODE_FRAGMENTATION_NEEDED, mtu.min(0xffff).to_be_bytes())
        }
        (Error::PacketTooBig { mtu }, false) => (icmp6::PACKET_TOO_BIG, 0, mtu.to_be_bytes()),
        (Error::Unreachable(why), true) => {
            let code = match why {
                Unreachable::NoRoute => 0,
                Unreachable::Address => 1,
                Unreachable::Port => 3,
                Unreachable::Prohibited => 13,
            };
            (icmp4::UNREACHABLE, code, [0; 4])
        }
        (Error::Unreachable(why), false) => {
            let code = match why {
                Unreachable::NoRoute => 0,
                Unreachable::Prohibited => 1,
                Unreachable::Address => 3,
                Unreachable::Port => 4,
            };
            (icmp6::UNREACHABLE, code, [0; 4])
        }
    }
}

/// A header without options for ICMP. DF and identification 0: it is an atomic datagram (RFC 6864 §4.1).
fn header_v4(src: Ipv4Addr, dst: Ipv4Addr, tos: u8, len: usize) -> [u8; proto::IPV4_LEN] {
    let mut header = [0; proto::IPV4_LEN];
    put(&mut header, 0, &[0x45, tos]);
    put(&mut header, 2, &u16::try_from(len).unwrap_or_default().to_be_bytes());
    put(&mut header, 6, &[0x40, 0, TTL, ip::ICMP]);
    put(&mut header, 12, &src.octets());
    put(&mut header, 16, &dst.octets());
    let csum = checksum::internet(&header);
    put(&mut header, 10, &csum.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notation;
    use proptest::prelude::*;

    fn packet(text: &str) -> Vec<u8> {
        notation::encode(text).unwrap()
    }

    /// The notation of an IP packet, without the Ethernet header that it gets here.
    #[track_caller]
    fn text(packet: &[u8]) -> String {
        let ethertype: [u8; 2] = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
        let frame = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], &ethertype[..], packet].concat();
        etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
        notation::decode(&frame).split_once(" / ").unwrap().1.to_owned()
    }

    #[track_caller]
    fn answer(about: &str, what: Error, from: &str) -> Result<String, Refused> {
        error_packet(&packet(about), what, from.parse().unwrap()).map(|bytes| text(&bytes))
    }

    #[test]
    fn errors_quote_the_packet() {
        let udp = "ip4 192.0.2.1 > 198.51.100.9 ttl=1 / udp 5 > 6 / data 16";
        for (what, head) in [
            (Error::TimeExceeded, "icmp ttl-exceeded"),
            (Error::Unreachable(Unreachable::NoRoute), "icmp unreachable"),
            (Error::Unreachable(Unreachable::Address), "icmp unreachable code=1"),
            (Error::Unreachable(Unreachable::Port), "icmp unreachable code=3"),
            (Error::Unreachable(Unreachable::Prohibited), "icmp unreachable code=13"),
            (Error::PacketTooBig { mtu: 1480 }, "icmp unreachable code=4 mtu=1480"),
        ] {
            assert_eq!(
                answer(udp, what, "203.0.113.1").unwrap(),
                format!("ip4 203.0.113.1 > 192.0.2.1 tos=192 df / {head} / {udp}")
            );
        }
        let tcp = "ip6 2001:db8::1 > 2001:db8::9 hlim=1 / hbh / tcp 5 > 6 S / data 16";
        for (what, head) in [
            (Error::TimeExceeded, "icmp6 ttl-exceeded"),
            (Error::Unreachable(Unreachable::NoRoute), "icmp6 unreachable"),
            (Error::Unreachable(Unreachable::Prohibited), "icmp6 unreachable code=1"),
            (Error::Unreachable(Unreachable::Address), "icmp6 unreachable code=3"),
            (Error::Unreachable(Unreachable::Port), "icmp6 unreachable code=4"),
            (Error::PacketTooBig { mtu: 1460 }, "icmp6 packet-too-big mtu=1460"),
        ] {
            assert_eq!(
                answer(tcp, what, "2001:db8::ff").unwrap(),
                format!("ip6 2001:db8::ff > 2001:db8::1 / {head} / {tcp}")
            );
        }
    }

    #[test]
    fn quotes_are_cut_where_the_rfcs_say_and_padding_is_not_quoted() {
        let from = "203.0.113.1".parse().unwrap();
        let big = packet("ip4 192.0.2.1 > 198.51.100.9 / udp 5 > 6 / data 1400");
        let answer = error_packet(&big, Error::TimeExceeded, from).unwrap();
        assert_eq!((answer.len(), &answer[28..]), (576, &big[..548]));
        let mut small = packet("ip4 192.0.2.1 > 198.51.100.9 / udp 5 > 6");
        small.extend([0xee; 18]);
        assert_eq!(error_packet(&small, Error::TimeExceeded, from).unwrap().len(), 28 + 28);
        let big = packet("ip6 2001:db8::1 > 2001:db8::9 / udp 5 > 6 / data 1400");
        let answer = error_packet(&big, Error::TimeExceeded, "2001:db8::ff".parse().unwrap()).unwrap();
        assert_eq!((answer.len(), &answer[48..]), (1280, &big[..1232]));
        let mut out = [0; 100];
        let small = error(&big, Error::TimeExceeded, "2001:db8::ff".parse().unwrap(), &mut out);
        assert_eq!(small, Err(Refused::Buffer { needed: 1280 }));
    }

    #[test]
    fn some_packets_are_never_answered() {
        let v4 = "192.0.2.1 > 198.51.100.9";
        for (about, why) in [
            (format!("ip4 {v4} / icmp unreachable"), Refused::IsError),
            (format!("ip4 {v4} / icmp ttl-exceeded"), Refused::IsError),
            (format!("ip4 {v4} / icmp type=12"), Refused::IsError),
            (format!("ip4 {v4} / icmp type=5"), Refused::IsError),
            (format!("ip4 {v4} frag=8 proto=udp / data 8"), Refused::LaterFragment),
            (format!("ip4 {v4} ttl=1 csum=1 / udp 1 > 2"), Refused::Malformed(ParseError::Ip4Csum)),
            ("ip4 0.0.0.0 > 255.255.255.255 / udp 1 > 2".to_owned(), Refused::Source),
            ("ip4 255.255.255.255 > 198.51.100.9 / udp 1 > 2".to_owned(), Refused::Source),
            ("ip4 240.0.0.1 > 198.51.100.9 / udp 1 > 2".to_owned(), Refused::Source),
            ("ip4 127.0.0.1 > 198.51.100.9 / udp 1 > 2".to_owned(), Refused::Malformed(ParseError::SrcInvalid)),
            ("ip4 224.0.0.1 > 198.51.100.9 / udp 1 > 2".to_owned(), Refused::Malformed(ParseError::SrcInvalid)),
            ("ip4 192.0.2.1 > 224.0.0.9 / udp 1 > 2".to_owned(), Refused::Destination),
            ("ip4 192.0.2.1 > 255.255.255.255 / udp 1 > 2".to_owned(), Refused::Destination),
            ("hex 00".to_owned(), Refused::NotIp),
        ] {
            assert_eq!(answer(&about, Error::TimeExceeded, "203.0.113.1"), Err(why), "{about}");
        }
        for (about, why) in [
            ("ip6 2001:db8::1 > 2001:db8::9 / icmp6 packet-too-big mtu=1280", Refused::IsError),
            ("ip6 2001:db8::1 > 2001:db8::9 / icmp6 type=100", Refused::IsError),
            ("ip6 2001:db8::1 > 2001:db8::9 / icmp6 type=137", Refused::IsError),
            ("ip6 2001:db8::1 > 2001:db8::9 / dstopts / icmp6 ttl-exceeded", Refused::IsError),
            ("ip6 2001:db8::1 > 2001:db8::9 / frag off=8 proto=udp / data 8", Refused::LaterFragment),
            ("ip6 :: > ff02::1 / udp 1 > 2", Refused::Source),
            ("ip6 2001:db8::1 > ff02::1 / udp 1 > 2", Refused::Destination),
        ] {
            assert_eq!(answer(about, Error::TimeExceeded, "2001:db8::ff"), Err(why), "{about}");
        }
        // First fragments, pings and, for packet too big, IPv6 multicast are answered.
        for (about, what, from) in [
            ("ip4 192.0.2.1 > 198.51.100.9 mf / udp 1 > 2 / data 8", Error::TimeExceeded, "203.0.113.1"),
            ("ip4 192.0.2.1 > 198.51.100.9 / icmp echo", Error::TimeExceeded, "203.0.113.1"),
            ("ip6 2001:db8::1 > 2001:db8::9 / icmp6 echo", Error::TimeExceeded, "2001:db8::ff"),
            ("ip6 2001:db8::1 > ff0e::1 / udp 1 > 2", Error::PacketTooBig { mtu: 1280 }, "2001:db8::ff"),
        ] {
            answer(about, what, from).unwrap_or_else(|e| panic!("{about}: {e}"));
        }
        let other_family = answer("ip4 192.0.2.1 > 198.51.100.9 / udp 1 > 2", Error::TimeExceeded, "2001:db8::ff");
        assert_eq!(other_family, Err(Refused::From));
    }

    #[test]
    fn echo_requests_become_replies() {
        for (request, reply) in [
            (
                "ip4 192.0.2.1 > 198.51.100.9 ttl=3 tos=8 id=99 / icmp echo id=7 seq=8 / data 33",
                "ip4 198.51.100.9 > 192.0.2.1 tos=8 df / icmp echo-reply id=7 seq=8 / data 33",
            ),
            (
                "ip4 192.0.2.1 > 198.51.100.9 opts=0101010101010101 / icmp echo / data 5",
                "ip4 198.51.100.9 > 192.0.2.1 df / icmp echo-reply / data 5",
            ),
            (
                "ip6 2001:db8::1 > 2001:db8::9 hlim=3 tc=8 flow=5 / icmp6 echo id=7 seq=8 / data 33",
                "ip6 2001:db8::9 > 2001:db8::1 tc=8 flow=5 / icmp6 echo-reply id=7 seq=8 / data 33",
            ),
        ] {
            let mut bytes = packet(request);
            bytes.extend([0; 6]);
            let len = echo_reply(&mut bytes).unwrap();
            assert_eq!(text(&bytes[..len]), reply);
        }
        for (request, why) in [
            ("ip4 192.0.2.1 > 198.51.100.9 / icmp echo-reply", Refused::NotEcho),
            ("ip4 192.0.2.1 > 198.51.100.9 mf / icmp echo", Refused::NotEcho),
            ("ip4 192.0.2.1 > 198.51.100.9 / udp 8 > 0", Refused::NotEcho),
            ("ip4 192.0.2.1 > 198.51.100.9 proto=icmp / hex 08000000", Refused::NotEcho),
            ("ip4 192.0.2.1 > 224.0.0.1 / icmp echo", Refused::Destination),
            ("ip4 240.0.2.1 > 198.51.100.9 / icmp echo", Refused::Source),
            ("ip6 2001:db8::1 > 2001:db8::9 / dstopts / icmp6 echo", Refused::NotEcho),
        ] {
            let mut bytes = packet(request);
            let before = bytes.clone();
            assert_eq!(echo_reply(&mut bytes), Err(why), "{request}");
            assert_eq!(bytes, before);
        }
    }

    proptest! {
        #[test]
        fn answers_to_anything_are_valid_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), v6: bool) {
            if let Some(first) = bytes.first_mut() {
                *first = if v6 { 0x60 } else { 0x45 };
            }
            let from = if v6 { "2001:db8::ff" } else { "203.0.113.1" }.parse().unwrap();
            if let Ok(answer) = error_packet(&bytes, Error::TimeExceeded, from) {
                prop_assert!(!text(&answer).contains("csum="));
            }
            let _ = echo_reply(&mut bytes);
        }
    }
}
