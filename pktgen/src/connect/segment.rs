//! Packets of a connection as values: read from frames, written to frames. TCP (RFC 9293 §3.1), UDP (RFC 768), and the
//! ICMP errors that answer them.
//!
//! A checksum may be that of the pseudo header alone: that is how a packet looks which the sender left to an offload that
//! never ran, as on a veth pair. Such packets are taken; every other wrong checksum is refused.

use std::net::{IpAddr, SocketAddr};

use packet::checksum::{self, Checksum};
use packet::layer::Mac;
use packet::proto::{self, ethertype, ip};
use packet::view::{Frame, Ip};

/// Control bits of a TCP header.
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 0x10;
}

/// Shortest frame without FCS (IEEE 802.3).
const FRAME_MIN: usize = 60;
/// Option kind 2 and its length (RFC 9293 §3.2).
const MSS_OPTION: [u8; 2] = [2, 4];
const TTL: u8 = 64;
/// Type of "destination unreachable" in ICMP and ICMPv6.
const UNREACHABLE_4: u8 = proto::icmp4::UNREACHABLE;
const UNREACHABLE_6: u8 = proto::icmp6::UNREACHABLE;

/// A TCP segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Sequence number of the first byte.
    pub seq: u32,
    /// Next sequence number expected, with [`flag::ACK`].
    pub ack: u32,
    /// Control bits.
    pub flags: u8,
    /// Receive window.
    pub window: u16,
    /// Maximum segment size option.
    pub mss: Option<u16>,
    /// Data.
    pub payload: &'a [u8],
}

impl Segment<'_> {
    /// Whether a control bit is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sequence numbers that it takes: data, SYN and FIN.
    pub fn len(&self) -> u32 {
        let payload = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        payload + u32::from(self.has(flag::SYN)) + u32::from(self.has(flag::FIN))
    }

    /// Takes no sequence number.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// A TCP segment.
    Tcp(Segment<'a>),
    /// A UDP payload.
    Udp(&'a [u8]),
    /// A router or host reports that a packet of this protocol, from the destination to the source of this one, was not
    /// delivered.
    Unreachable {
        /// Protocol of the packet.
        protocol: u8,
    },
}

/// A packet with its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Sender; of an ICMP error, where the quoted packet was going.
    pub src: SocketAddr,
    /// Receiver; of an ICMP error, where the quoted packet came from.
    pub dst: SocketAddr,
    /// What it says.
    pub body: Body<'a>,
}

/// Why a frame is no packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another protocol, a fragment, or malformed.
    Foreign,
    /// TCP or UDP checksum wrong.
    Checksum,
}

impl<'a> Packet<'a> {
    /// Reads a frame.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refused> {
        let frame = Frame::parse(bytes).map_err(|_| Refused::Foreign)?;
        let ip = frame.ip.filter(|ip| ip.fragment.is_none()).ok_or(Refused::Foreign)?;
        let transport = frame.payload().ok_or(Refused::Foreign)?;
        match (ip.protocol, ip.icmp) {
            (ip::ICMP, Some((UNREACHABLE_4, _))) | (ip::ICMPV6, Some((UNREACHABLE_6, _))) => {
                unreachable(&ip, transport).ok_or(Refused::Foreign)
            }
            (ip::TCP | ip::UDP, _) => {
                let (sport, dport) = ip.ports.ok_or(Refused::Foreign)?;
                let body = if ip.protocol == ip::TCP { tcp(transport) } else { udp(transport) };
                let body = body.ok_or(Refused::Foreign)?;
                if !intact(&ip, transport) {
                    return Err(Refused::Checksum);
                }
                Ok(Self { src: (ip.src, sport).into(), dst: (ip.dst, dport).into(), body })
            }
            _ => Err(Refused::Foreign),
        }
    }
}

fn intact(ip: &Ip, transport: &[u8]) -> bool {
    let at = if ip.protocol == ip::TCP { 16 } else { 6 };
    let Some(sum) = word(transport, at) else { return false };
    if ip.protocol == ip::UDP && sum == 0 && ip.src.is_ipv4() {
        return true;
    }
    let Some(pseudo) = Checksum::pseudo(ip.src, ip.dst, ip.protocol, transport.len()) else { return false };
    !pseudo.finish() == sum || pseudo.bytes(transport).finish() == 0
}

fn tcp(bytes: &[u8]) -> Option<Body<'_>> {
    let header = usize::from(bytes.get(12)? >> 4) * 4;
    let payload = bytes.get(header..).filter(|_| header >= proto::TCP_LEN)?;
    let options = bytes.get(proto::TCP_LEN..header)?;
    Some(Body::Tcp(Segment {
        seq: long(bytes, 4)?,
        ack: long(bytes, 8)?,
        flags: *bytes.get(13)?,
        window: word(bytes, 14)?,
        mss: mss(options),
        payload,
    }))
}

/// The MSS option; malformed options end the search.
fn mss(mut options: &[u8]) -> Option<u16> {
    loop {
        match options {
            [0, ..] | [] => return None,
            [1, rest @ ..] => options = rest,
            [2, 4, high, low, ..] => return Some(u16::from_be_bytes([*high, *low])),
            [_, len, ..] if *len >= 2 => options = options.get(usize::from(*len)..)?,
            _ => return None,
        }
    }
}

fn udp(bytes: &[u8]) -> Option<Body<'_>> {
    let len = usize::from(word(bytes, 4)?);
    Some(Body::Udp(bytes.get(proto::UDP_LEN..len)?))
}

/// The addresses and ports that an ICMP error quotes, which may be cut off behind the ports (RFC 792, RFC 4443 §3.1).
fn unreachable<'a>(outer: &Ip, transport: &[u8]) -> Option<Packet<'a>> {
    let quoted = transport.get(proto::ICMP_LEN..)?;
    let (src, dst, protocol, l4): (IpAddr, IpAddr, u8, usize) = if outer.src.is_ipv4() {
        let address = |at: usize| Some(IpAddr::from(*quoted.get(at..)?.first_chunk::<4>()?));
        let header = usize::from(quoted.first()? & 0xf) * 4;
        (address(12)?, address(16)?, *quoted.get(9)?, header)
    } else {
        let address = |at: usize| Some(IpAddr::from(*quoted.get(at..)?.first_chunk::<16>()?));
        (address(8)?, address(24)?, *quoted.get(6)?, proto::IPV6_LEN)
    };
    let (sport, dport) = (word(quoted, l4)?, word(quoted, l4 + 2)?);
    Some(Packet { src: (dst, dport).into(), dst: (src, sport).into(), body: Body::Unreachable { protocol } })
}

/// Ethernet addresses of every frame that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The interface's.
    pub src: Mac,
    /// The next hop's.
    pub dst: Mac,
}

/// Bytes of the frame that [`write`] makes of a packet.
pub fn frame_len(packet: &Packet<'_>) -> usize {
    let l3 = if packet.src.is_ipv4() { proto::IPV4_LEN } else { proto::IPV6_LEN };
    (proto::ETHERNET_LEN + l3 + transport_len(packet)).max(FRAME_MIN)
}

fn transport_len(packet: &Packet<'_>) -> usize {
    match packet.body {
        Body::Tcp(segment) => proto::TCP_LEN + segment.mss.map_or(0, |_| 4) + segment.payload.len(),
        Body::Udp(payload) => proto::UDP_LEN + payload.len(),
        Body::Unreachable { .. } => 0,
    }
}

/// Writes a TCP or UDP packet to the start of `out`, padded with zeros to the shortest frame. Returns its bytes; `None` where
/// it does not fit, is longer than IP allows, or its ends are of two families. ICMP errors are only read.
pub fn write(packet: &Packet<'_>, link: Link, out: &mut [u8]) -> Option<usize> {
    let len = frame_len(packet);
    let transport_len = transport_len(packet);
    let protocol = match packet.body {
        Body::Tcp(_) => ip::TCP,
        Body::Udp(_) => ip::UDP,
        Body::Unreachable { .. } => return None,
    };
    let pseudo = Checksum::pseudo(packet.src.ip(), packet.dst.ip(), protocol, transport_len)?;
    let out = out.get_mut(..len)?;
    let (eth, rest) = out.split_at_mut_checked(proto::ETHERNET_LEN)?;
    let rest = match (packet.src.ip(), packet.dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            ethernet(eth, link, ethertype::IPV4);
            let (header, rest) = rest.split_first_chunk_mut::<{ proto::IPV4_LEN }>()?;
            let total = u16::try_from(proto::IPV4_LEN + transport_len).ok()?.to_be_bytes();
            // An atomic packet: DF and no identification (RFC 6864 §4).
            *header = [0x45, 0, total[0], total[1], 0, 0, 0x40, 0, TTL, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            put(header, 12, &src.octets());
            put(header, 16, &dst.octets());
            let sum = checksum::internet(header);
            put(header, 10, &sum.to_be_bytes());
            rest
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            ethernet(eth, link, ethertype::IPV6);
            let (header, rest) = rest.split_first_chunk_mut::<{ proto::IPV6_LEN }>()?;
            header.fill(0);
            put(header, 0, &[0x60]);
            put(header, 4, &u16::try_from(transport_len).ok()?.to_be_bytes());
            put(header, 6, &[protocol, TTL]);
            put(header, 8, &src.octets());
            put(header, 24, &dst.octets());
            rest
        }
        _ => return None,
    };
    let (transport, padding) = rest.split_at_mut_checked(transport_len)?;
    padding.fill(0);
    put(transport, 0, &packet.src.port().to_be_bytes());
    put(transport, 2, &packet.dst.port().to_be_bytes());
    let csum_at = match packet.body {
        Body::Tcp(segment) => write_tcp(transport, &segment),
        Body::Udp(payload) => {
            put(transport, 4, &u16::try_from(transport_len).ok()?.to_be_bytes());
            put(transport, 6, &[0, 0]);
            put(transport, proto::UDP_LEN, payload);
            6
        }
        Body::Unreachable { .. } => return None,
    };
    let sum = match pseudo.bytes(transport).finish() {
        0 if protocol == ip::UDP => 0xffff,
        sum => sum,
    };
    put(transport, csum_at, &sum.to_be_bytes());
    Some(len)
}

fn ethernet(out: &mut [u8], link: Link, ethertype: u16) {
    put(out, 0, &link.dst);
    put(out, 6, &link.src);
    put(out, 12, &ethertype.to_be_bytes());
}

/// Everything but the ports; returns where the checksum goes, which is zero so far.
fn write_tcp(out: &mut [u8], segment: &Segment<'_>) -> usize {
    let header: u8 = if segment.mss.is_some() { 24 } else { 20 };
    put(out, 4, &segment.seq.to_be_bytes());
    put(out, 8, &segment.ack.to_be_bytes());
    put(out, 12, &[header << 2, segment.flags]);
    put(out, 14, &segment.window.to_be_bytes());
    put(out, 16, &[0; 4]);
    if let Some(mss) = segment.mss {
        put(out, 20, &MSS_OPTION);
        put(out, 22, &mss.to_be_bytes());
    }
    put(out, header.into(), segment.payload);
    16
}

fn put(out: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = out.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet::notation::{decode, encode};
    use proptest::prelude::*;

    const LINK: Link = Link { src: [2, 0, 0, 0, 0, 1], dst: [2, 0, 0, 0, 0, 2] };

    fn written(packet: &Packet<'_>) -> Vec<u8> {
        let mut out = [0xaa; 2000];
        let len = write(packet, LINK, &mut out).unwrap();
        assert_eq!(len, frame_len(packet));
        out[..len].to_vec()
    }

    fn ends(src: &str, dst: &str, body: Body<'static>) -> Packet<'static> {
        Packet { src: src.parse().unwrap(), dst: dst.parse().unwrap(), body }
    }

    #[test]
    fn the_notation_agrees() {
        let syn = Segment { seq: 7, flags: flag::SYN, window: 65535, mss: Some(1460), ..Segment::default() };
        for (packet, expected) in [
            (
                ends("10.1.0.1:1000", "192.0.2.1:80", Body::Tcp(syn)),
                "eth 02::1 > 02::2 / ip4 10.1.0.1 > 192.0.2.1 df / tcp 1000 > 80 S seq=7 opts=020405b4 / pad 2",
            ),
            (
                ends(
                    "[2001:db8::1]:1000",
                    "[2001:db8::2]:80",
                    Body::Tcp(Segment {
                        seq: 8,
                        ack: 9,
                        flags: flag::ACK | flag::PSH,
                        window: 100,
                        mss: None,
                        payload: &[0, 1, 2],
                    }),
                ),
                "eth 02::1 > 02::2 / ip6 2001:db8::1 > 2001:db8::2 / tcp 1000 > 80 PA seq=8 ack=9 win=100 / data 3",
            ),
            (
                ends("[2001:db8::1]:1000", "[2001:db8::2]:53", Body::Udp(&[0, 1])),
                "eth 02::1 > 02::2 / ip6 2001:db8::1 > 2001:db8::2 / udp 1000 > 53 / data 2",
            ),
        ] {
            let bytes = written(&packet);
            assert_eq!(decode(&bytes), decode(&encode(expected).unwrap()));
            assert_eq!(Packet::parse(&bytes), Ok(packet));
        }
    }

    #[test]
    fn checksums_are_judged() {
        let text = "eth 02::1 > 02::2 / ip4 10.1.0.1 > 192.0.2.1 / tcp 1000 > 80 A";
        let parse = |text: &str| Packet::parse(&encode(text).unwrap()).map(|packet| packet.src.port());
        assert_eq!(parse(text), Ok(1000));
        assert_eq!(parse(&format!("{text} csum=1")), Err(Refused::Checksum));
        assert_eq!(parse(&text.replace("tcp 1000 > 80 A", "udp 9 > 80 csum=0")), Ok(9));
        // What a veth peer leaves to an offload: the sum of the pseudo header, not complemented.
        let sum = 0x0a01 + 0x0001 + 0xc000 + 0x0201 + 6 + 20;
        assert_eq!(parse(&format!("{text} csum={sum}")), Ok(1000));
    }

    #[test]
    fn icmp_errors_name_the_connection() {
        for (text, src, dst) in [
            (
                "ip4 192.0.2.254 > 10.1.0.1 / icmp unreachable code=3 / ip4 10.1.0.1 > 192.0.2.1 len=100 / udp 1000 > 53 len=80 csum=1",
                "192.0.2.1:53",
                "10.1.0.1:1000",
            ),
            (
                "ip6 2001:db8::fe > 2001:db8::1 / icmp6 unreachable code=4 / ip6 2001:db8::1 > 2001:db8::2 / udp 1000 > 53 / data 9",
                "[2001:db8::2]:53",
                "[2001:db8::1]:1000",
            ),
        ] {
            let bytes = encode(&format!("eth 02::2 > 02::1 / {text}")).unwrap();
            let body = Body::Unreachable { protocol: ip::UDP };
            assert_eq!(
                Packet::parse(&bytes),
                Ok(Packet { src: src.parse().unwrap(), dst: dst.parse().unwrap(), body })
            );
        }
        let echo = encode("eth 02::2 > 02::1 / ip4 192.0.2.254 > 10.1.0.1 / icmp echo").unwrap();
        assert_eq!(Packet::parse(&echo), Err(Refused::Foreign));
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let packet = ends("10.1.0.1:1", "192.0.2.1:2", Body::Udp(&[7; 100]));
        assert_eq!(write(&packet, LINK, &mut [0; 100]), None);
        assert_eq!(write(&ends("10.1.0.1:1", "[::1]:2", Body::Udp(&[])), LINK, &mut [0; 100]), None);
    }

    proptest! {
        #[test]
        fn segments_come_back(
            seq: u32, ack: u32, flags in 0..64u8, window: u16, mss: Option<u16>,
            payload in proptest::collection::vec(any::<u8>(), 0..100), v6: bool,
        ) {
            let segment = Segment { seq, ack, flags, window, mss, payload: &payload };
            let (src, dst) = if v6 { ("[fd00::1]:1", "[fd00::2]:2") } else { ("10.0.0.1:1", "10.0.0.2:2") };
            let packet = Packet { src: src.parse().unwrap(), dst: dst.parse().unwrap(), body: Body::Tcp(segment) };
            let bytes = written(&packet);
            prop_assert_eq!(Packet::parse(&bytes), Ok(packet));
        }

        #[test]
        fn garbage_is_refused(mut bytes in proptest::collection::vec(any::<u8>(), 14..120), v6: bool, protocol in 0..3usize) {
            bytes.splice(12..14, if v6 { [0x86, 0xdd] } else { [0x08, 0] });
            let at = if v6 { 20 } else { 23 };
            for (at, byte) in [(14, if v6 { 0x60 } else { 0x45 }), (at, [6, 17, if v6 { 58 } else { 1 }][protocol])] {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            let _ = Packet::parse(&bytes);
        }
    }
}
