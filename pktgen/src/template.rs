//! Frames of a run: one template for each size, and what differs between packets written over a copy of it.
//!
//! Flows differ in source port, and when the ports are used up in source address. The sums of everything that stays the
//! same are taken once, so a packet costs a copy, a few stores and the CRC of its payload.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::build::{self, BuildError};
use packet::checksum::{self, Checksum};
use packet::layer::{Eth, Ip4, Ip6, Layer, Mac, Tcp, Udp};
use packet::proto;

use crate::receive::judge::{Reference, Shape};
use crate::stamp::{self, FLOWS_MAX, STAMP_LEN, Stamp};

/// Longest frame: what a page takes beside the headroom of XDP and the kernel's own bookkeeping.
pub const FRAME_MAX: usize = 3506;
/// An experimental option (RFC 6994) that takes a stamp.
const SYN_OPTIONS: [u8; 20] = [254, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// UDP with a stamp in the payload.
    Udp,
    /// TCP SYNs with the stamp in an experimental option (RFC 6994).
    TcpSyn,
}

/// The packets of a run.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Ethernet source.
    pub src_mac: Mac,
    /// Ethernet destination: the first router.
    pub dst_mac: Mac,
    /// Source address of flow 0; later ones count on from it.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// UDP or TCP SYN.
    pub protocol: Protocol,
    /// Source port of flow 0; the flows of one address use this to 65535.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Number of flows, at least 1.
    pub flows: u32,
    /// Frame sizes in bytes without FCS, in the order in which they are sent; at least one.
    pub sizes: Vec<usize>,
}

/// Why a run cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrafficError {
    /// Addresses of two families.
    #[error("source {src} and destination {dst} are not of one family (give two IPv4 or two IPv6 addresses)")]
    Families {
        /// Source.
        src: IpAddr,
        /// Destination.
        dst: IpAddr,
    },
    /// No room for headers and stamp, or more than a frame takes.
    #[error("size {size}: these frames have {min} to {FRAME_MAX} bytes, without FCS")]
    Size {
        /// What was asked for.
        size: usize,
        /// The smallest possible.
        min: usize,
    },
    /// Nothing to send, or more than a stamp can name.
    #[error("{flows} flows: give 1 to {FLOWS_MAX}")]
    Flows {
        /// What was asked for.
        flows: u32,
    },
    /// The builder refused.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// Frames of one size, ready to be copied.
#[derive(Clone, Debug)]
struct Template {
    bytes: Vec<u8>,
    /// Sum of the IPv4 header without source address and checksum.
    ip_sum: Checksum,
    /// Sum of pseudo header and transport header and payload without source address and port, stamp and checksum.
    l4_sum: Checksum,
}

/// Writes the packets of a run.
#[derive(Clone, Debug)]
pub struct Frames {
    traffic: Traffic,
    magic: u32,
    templates: Vec<Template>,
    l4: usize,
}

impl Frames {
    /// Prepares the frames of `traffic` for a run with this magic.
    ///
    /// # Errors
    /// [`TrafficError`].
    pub fn new(traffic: Traffic, magic: u32) -> Result<Self, TrafficError> {
        if traffic.src.is_ipv4() != traffic.dst.is_ipv4() {
            return Err(TrafficError::Families { src: traffic.src, dst: traffic.dst });
        }
        if !(1..=FLOWS_MAX).contains(&traffic.flows) {
            return Err(TrafficError::Flows { flows: traffic.flows });
        }
        let l4 = l4_at(traffic.src);
        let min = min_size(traffic.src, traffic.protocol);
        let template = |size: &usize| {
            let fill = size.checked_sub(min).filter(|_| *size <= FRAME_MAX);
            let fill = fill.ok_or(TrafficError::Size { size: *size, min })?;
            template(&traffic, l4, fill)
        };
        let templates = traffic.sizes.iter().map(template).collect::<Result<Vec<_>, _>>()?;
        if templates.is_empty() {
            return Err(TrafficError::Size { size: 0, min });
        }
        Ok(Self { traffic, magic, templates, l4 })
    }

    /// The packets.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Longest frame in bytes.
    pub fn longest(&self) -> usize {
        self.templates.iter().map(|template| template.bytes.len()).max().unwrap_or(0)
    }

    /// Bytes of the frame that carries packet `seq` of `flow`.
    pub fn len(&self, flow: u32, seq: u32) -> usize {
        self.template(flow, seq).map_or(0, |template| template.bytes.len())
    }

    /// Source address and port of `flow`.
    pub fn source(&self, flow: u32) -> (IpAddr, u16) {
        let ports = 0x1_0000 - u32::from(self.traffic.sport);
        let port = u32::from(self.traffic.sport) + flow % ports;
        let address = match self.traffic.src {
            IpAddr::V4(first) => Ipv4Addr::from(u32::from(first).wrapping_add(flow / ports)).into(),
            IpAddr::V6(first) => Ipv6Addr::from(u128::from(first).wrapping_add((flow / ports).into())).into(),
        };
        (address, u16::try_from(port).unwrap_or(u16::MAX))
    }

    /// Writes the frame of `stamp` into `out`, which has [`len`](Self::len) bytes.
    pub fn write(&self, stamp: Stamp, out: &mut [u8]) {
        let Some(template) = self.template(stamp.flow, stamp.seq) else { return };
        if out.len() != template.bytes.len() {
            return;
        }
        out.copy_from_slice(&template.bytes);
        let (address, port) = self.source(stamp.flow);
        let mut l4_sum = template.l4_sum.word(port);
        match address {
            IpAddr::V4(address) => {
                let octets = address.octets();
                l4_sum = l4_sum.bytes(&octets);
                put(out, proto::ETHERNET_LEN + 12, &octets);
                put(out, proto::ETHERNET_LEN + 10, &template.ip_sum.bytes(&octets).finish().to_be_bytes());
            }
            IpAddr::V6(address) => {
                let octets = address.octets();
                l4_sum = l4_sum.bytes(&octets);
                put(out, proto::ETHERNET_LEN + 8, &octets);
            }
        }
        put(out, self.l4, &port.to_be_bytes());
        let at = out.len() - STAMP_LEN;
        stamp::write(out.get_mut(at..).unwrap_or_default(), self.magic, stamp);
        // An odd offset swaps the bytes of every word.
        let odd = (at - self.l4) % 2;
        let mut padded = [0; STAMP_LEN + 2];
        put(&mut padded, odd, out.get(at..).unwrap_or_default());
        let csum = match l4_sum.bytes(&padded).finish() {
            0 if self.traffic.protocol == Protocol::Udp => 0xffff,
            csum => csum,
        };
        put(out, self.l4 + self.csum_at(), &csum.to_be_bytes());
    }

    fn csum_at(&self) -> usize {
        match self.traffic.protocol {
            Protocol::Udp => 6,
            Protocol::TcpSyn => 16,
        }
    }

    /// Sizes go round over the packets of a flow, and each flow starts elsewhere in the round.
    fn template(&self, flow: u32, seq: u32) -> Option<&Template> {
        let count = u32::try_from(self.templates.len()).ok()?;
        let index = (flow % count).wrapping_add(seq) % count;
        self.templates.get(usize::try_from(index).ok()?)
    }
}

impl Reference for Frames {
    fn flows(&self) -> u32 {
        self.traffic.flows
    }

    fn streams(&self) -> usize {
        1
    }

    fn stream_of(&self, _flow: u32) -> usize {
        0
    }

    fn longest(&self) -> usize {
        self.longest()
    }

    fn write(&self, flow: u32, seq: u32, sent_ns: u32, out: &mut [u8]) -> usize {
        let len = self.len(flow, seq);
        self.write(Stamp { flow, seq, sent_ns }, out.get_mut(..len).unwrap_or_default());
        len
    }

    fn shape(&self, flow: u32, seq: u32) -> Option<Shape> {
        let (protocol, header) = match self.traffic.protocol {
            Protocol::Udp => (proto::ip::UDP, proto::UDP_LEN),
            Protocol::TcpSyn => (proto::ip::TCP, proto::TCP_LEN + SYN_OPTIONS.len()),
        };
        let v6 = self.traffic.src.is_ipv6();
        let (l3, l4) = (proto::ETHERNET_LEN, self.l4);
        Some(Shape { end: self.len(flow, seq), l3, v6, protocol, l4, payload: l4 + header })
    }
}

fn l4_at(src: IpAddr) -> usize {
    proto::ETHERNET_LEN + if src.is_ipv4() { proto::IPV4_LEN } else { proto::IPV6_LEN }
}

/// Shortest frame from such an address.
pub fn min_size(src: IpAddr, protocol: Protocol) -> usize {
    let transport = match protocol {
        Protocol::Udp => proto::UDP_LEN + STAMP_LEN,
        Protocol::TcpSyn => proto::TCP_LEN + SYN_OPTIONS.len(),
    };
    l4_at(src) + transport
}

fn template(traffic: &Traffic, l4: usize, fill: usize) -> Result<Template, TrafficError> {
    let (src, dst) = (traffic.src, traffic.dst);
    let ip = match (src, dst) {
        (IpAddr::V4(_), IpAddr::V4(dst)) => Layer::Ip4(Ip4 { df: true, ..Ip4::new(Ipv4Addr::UNSPECIFIED, dst) }),
        (IpAddr::V6(_), IpAddr::V6(dst)) => Layer::Ip6(Ip6::new(Ipv6Addr::UNSPECIFIED, dst)),
        (src, dst) => return Err(TrafficError::Families { src, dst }),
    };
    let eth = Layer::Eth(Eth { src: traffic.src_mac, dst: traffic.dst_mac, ethertype: None });
    let (transport, payload, csum_at) = match traffic.protocol {
        Protocol::Udp => {
            let udp = Udp { sport: 0, dport: traffic.dport, len: None, csum: Some(0) };
            let filler = build::data(fill);
            (Layer::Udp(udp), std::iter::repeat_n(0, STAMP_LEN).chain(filler).collect(), 6)
        }
        Protocol::TcpSyn => {
            let tcp = Tcp { opts: SYN_OPTIONS.to_vec(), csum: Some(0), ..Tcp::new(0, traffic.dport, Tcp::SYN) };
            (Layer::Tcp(tcp), build::data(fill).collect::<Vec<u8>>(), 16)
        }
    };
    let mut bytes = build::frame(&[eth, ip, transport, Layer::Raw(payload)])?;
    // The template's own checksum is that of a zero source; it is left out of the sums and written by each packet.
    put(&mut bytes, l4 + csum_at, &[0, 0]);
    let at = bytes.len() - STAMP_LEN;
    put(&mut bytes, at, &[0; STAMP_LEN]);
    let ip_sum = match src {
        IpAddr::V4(_) => {
            put(&mut bytes, proto::ETHERNET_LEN + 10, &[0, 0]);
            Checksum::default().bytes(bytes.get(proto::ETHERNET_LEN..l4).unwrap_or_default())
        }
        IpAddr::V6(_) => Checksum::default(),
    };
    let segment = bytes.get(l4..).unwrap_or_default();
    let protocol = match traffic.protocol {
        Protocol::Udp => proto::ip::UDP,
        Protocol::TcpSyn => proto::ip::TCP,
    };
    let zero = if src.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let pseudo = Checksum::pseudo(zero, dst, protocol, segment.len()).ok_or(TrafficError::Families { src, dst })?;
    // An odd length pads the last byte; everything added later is whole words.
    let l4_sum = pseudo.word(!checksum::internet(segment));
    Ok(Template { ip_sum, l4_sum, bytes })
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet::notation;

    fn traffic(v6: bool, protocol: Protocol, sizes: Vec<usize>) -> Traffic {
        let (src, dst) = if v6 { ("2001:db8::1", "2001:db8:1::1") } else { ("198.18.0.1", "198.19.0.1") };
        Traffic {
            src_mac: [2, 0, 0, 0, 0, 1],
            dst_mac: [2, 0, 0, 0, 0, 2],
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            protocol,
            sport: 65000,
            dport: 9,
            flows: FLOWS_MAX,
            sizes,
        }
    }

    fn frame(frames: &Frames, stamp: Stamp) -> Vec<u8> {
        let mut out = vec![0xee; frames.len(stamp.flow, stamp.seq)];
        frames.write(stamp, &mut out);
        out
    }

    #[test]
    fn frames_are_what_the_notation_calls_them() {
        let stamp = Stamp { flow: 537, seq: 3, sent_ns: 0x01020304 };
        let udp = Frames::new(traffic(false, Protocol::Udp, vec![60]), 0xfeedbeef).unwrap();
        let text = notation::decode(&frame(&udp, stamp));
        assert!(
            text.starts_with(
                "eth 02:00:00:00:00:01 > 02:00:00:00:00:02 / ip4 198.18.0.2 > 198.19.0.1 df / udp 65001 > 9 / \
                 hex feedbeef020002190000000301020304"
            ),
            "{text}"
        );
        let syn = Frames::new(traffic(true, Protocol::TcpSyn, vec![94]), 0xfeedbeef).unwrap();
        let text = notation::decode(&frame(&syn, stamp));
        assert!(
            text.starts_with(
                "eth 02:00:00:00:00:01 > 02:00:00:00:00:02 / ip6 2001:db8::2 > 2001:db8:1::1 / tcp 65001 > 9 S \
                 opts=fe14feedbeef020002190000000301020304"
            ),
            "{text}"
        );
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        for (v6, protocol, min) in [
            (false, Protocol::Udp, 60),
            (true, Protocol::Udp, 80),
            (false, Protocol::TcpSyn, 74),
            (true, Protocol::TcpSyn, 94),
        ] {
            assert!(Frames::new(traffic(v6, protocol, vec![min]), 1).is_ok());
            for size in [min - 1, FRAME_MAX + 1] {
                let refused = Frames::new(traffic(v6, protocol, vec![min, size]), 1).unwrap_err();
                assert_eq!(refused, TrafficError::Size { size, min });
            }
        }
        let mixed = Traffic { dst: "::1".parse().unwrap(), ..traffic(false, Protocol::Udp, vec![60]) };
        assert!(matches!(Frames::new(mixed, 1), Err(TrafficError::Families { .. })));
    }

    #[test]
    fn sizes_go_round() {
        let frames = Frames::new(traffic(false, Protocol::Udp, vec![60, 61, 62]), 1).unwrap();
        let lens: Vec<usize> = (0..6).map(|seq| frames.len(1, seq)).collect();
        assert_eq!(lens, [61, 62, 60, 61, 62, 60]);
    }
}
