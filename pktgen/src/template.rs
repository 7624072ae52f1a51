//! Frames of a run: one template for each size, and what differs between packets written over a copy of it.
//!
//! Flows differ in source port, and when the ports are used up in source address. The sums of everything that stays the
//! same are taken once, so a packet costs a copy, a few stores and the CRC of its payload.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::build::{self, BuildError};
use packet::checksum::{self, Checksum};
use packet::layer::{Eth, Ip4, Ip6, Layer, Mac, Tcp, Udp};
use packet::proto;

use crate::stamp::{self, FLOWS_MAX, STAMP_LEN, Stamp};

/// Longest frame: what a page takes beside the headroom of XDP and the kernel's own bookkeeping.
pub const FRAME_MAX: usize = 3506;
/// MSS, two NOPs, timestamps (RFC 9293 §3.2, RFC 7323 §3.2).
const SYN_OPTIONS: [u8; 16] = [2, 4, 5, 0xb4, 1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// UDP with a stamp in the payload.
    Udp,
    /// TCP SYNs with MSS and timestamp options.
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
            template(&traffic, magic, l4, fill)
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
        match self.traffic.protocol {
            Protocol::Udp => self.stamp_udp(stamp, l4_sum, out),
            Protocol::TcpSyn => self.stamp_syn(stamp, l4_sum, out),
        }
    }

    fn stamp_udp(&self, stamp: Stamp, sum: Checksum, out: &mut [u8]) {
        let payload = self.l4 + proto::UDP_LEN;
        let words = stamp::udp_words(self.magic, stamp);
        put(out, payload, &words);
        let crc = stamp::payload_crc(out.get(payload..).unwrap_or_default());
        put(out, payload + STAMP_LEN - 2, &crc.to_be_bytes());
        let csum = match sum.bytes(&words).word(crc).finish() {
            0 => 0xffff,
            csum => csum,
        };
        put(out, self.l4 + 6, &csum.to_be_bytes());
    }

    fn stamp_syn(&self, stamp: Stamp, sum: Checksum, out: &mut [u8]) {
        let seq = stamp.seq.to_be_bytes();
        let ack = stamp::syn_ack_number(self.magic, stamp.flow).to_be_bytes();
        let tsval = stamp.sent_ns.to_be_bytes();
        put(out, self.l4 + 4, &seq);
        put(out, self.l4 + 8, &ack);
        put(out, self.l4 + proto::TCP_LEN + 8, &tsval);
        let csum = sum.bytes(&seq).bytes(&ack).bytes(&tsval).finish();
        put(out, self.l4 + 16, &csum.to_be_bytes());
    }

    /// Sizes go round over the packets of a flow, and each flow starts elsewhere in the round.
    fn template(&self, flow: u32, seq: u32) -> Option<&Template> {
        let count = u32::try_from(self.templates.len()).ok()?;
        let index = (flow % count).wrapping_add(seq) % count;
        self.templates.get(usize::try_from(index).ok()?)
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

fn template(traffic: &Traffic, magic: u32, l4: usize, fill: usize) -> Result<Template, TrafficError> {
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
            let window = stamp::syn_window(magic);
            let tcp =
                Tcp { win: window, opts: SYN_OPTIONS.to_vec(), csum: Some(0), ..Tcp::new(0, traffic.dport, Tcp::SYN) };
            (Layer::Tcp(tcp), build::data(fill).collect::<Vec<u8>>(), 16)
        }
    };
    let mut bytes = build::frame(&[eth, ip, transport, Layer::Raw(payload)])?;
    // The template's own checksum is that of a zero source; it is left out of the sums and written by each packet.
    put(&mut bytes, l4 + csum_at, &[0, 0]);
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
    use crate::stamp::{Arrival, judge};
    use packet::notation;
    use proptest::prelude::*;

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
                 hex feedbeef010002190000000301020304"
            ),
            "{text}"
        );
        let syn = Frames::new(traffic(true, Protocol::TcpSyn, vec![90]), 0xfeedbeef).unwrap();
        assert_eq!(
            notation::decode(&frame(&syn, stamp)),
            "eth 02:00:00:00:00:01 > 02:00:00:00:00:02 / ip6 2001:db8::2 > 2001:db8:1::1 / tcp 65001 > 9 S seq=3 \
             ack=4261413401 win=48879 opts=020405b40101080a0102030400000000"
        );
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        for (v6, protocol, min) in [
            (false, Protocol::Udp, 60),
            (true, Protocol::Udp, 80),
            (false, Protocol::TcpSyn, 70),
            (true, Protocol::TcpSyn, 90),
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

    proptest! {
        /// Checksums that are put together from parts are right, and the receiver reads what the sender wrote.
        #[test]
        fn every_packet_is_intact(
            v6: bool, syn: bool, size in 90..FRAME_MAX, magic: u32, flow in 0..FLOWS_MAX, seq: u32, sent_ns: u32,
        ) {
            let protocol = if syn { Protocol::TcpSyn } else { Protocol::Udp };
            let frames = Frames::new(traffic(v6, protocol, vec![size]), magic).unwrap();
            let stamp = Stamp { flow, seq, sent_ns };
            let bytes = frame(&frames, stamp);
            prop_assert_eq!(bytes.len(), size);
            let text = notation::decode(&bytes);
            prop_assert!(!text.contains("csum="), "{}", text);
            prop_assert_eq!(judge(magic, &bytes), Arrival::Intact(stamp));
        }

        /// A changed byte behind the Ethernet header is never taken for the packet that was sent.
        #[test]
        fn corruption_is_noticed(v6: bool, syn: bool, at in 14..200usize, bit in 0..8u32) {
            let protocol = if syn { Protocol::TcpSyn } else { Protocol::Udp };
            let frames = Frames::new(traffic(v6, protocol, vec![200]), 0x1234_5678).unwrap();
            let stamp = Stamp { flow: 7, seq: 8, sent_ns: 9 };
            let mut bytes = frame(&frames, stamp);
            bytes[at] ^= 1 << bit;
            // IPv6 has no checksum over traffic class, flow label and hop limit: routers may change them.
            let free = v6 && (matches!(at, 15..=17 | 21) || at == 14 && bit < 4);
            prop_assert_eq!(judge(0x1234_5678, &bytes) == Arrival::Intact(stamp), free, "{}", at);
        }

        #[test]
        fn garbage_is_never_intact(mut bytes in proptest::collection::vec(any::<u8>(), 0..150), v6: bool, tunnel: u8) {
            let start: &[u8] = if v6 { &[0x86, 0xdd, 0x60] } else { &[8, 0, 0x45] };
            if let Some(place) = bytes.get_mut(12..15) {
                place.copy_from_slice(start);
            }
            if let Some(place) = bytes.get_mut(if v6 { 20 } else { 23 }) {
                *place = [4, 41, 6, 17][usize::from(tunnel % 4)];
            }
            prop_assert!(!matches!(judge(0x0102_0304, &bytes), Arrival::Intact(_)));
        }

        #[test]
        fn tunnels_are_looked_through(v6: bool, vxlan: bool, outer_v6: bool) {
            let frames = Frames::new(traffic(v6, Protocol::Udp, vec![100]), 5).unwrap();
            let stamp = Stamp { flow: 7, seq: 8, sent_ns: 9 };
            let inner = frame(&frames, stamp);
            let ip = if outer_v6 { "ip6 fd00::1 > fd00::2" } else { "ip4 10.0.0.1 > 10.0.0.2" };
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let text = if vxlan {
                format!("eth 02::3 > 02::4 / {ip} / udp 5 > 4789 csum=0 / vxlan vni=7 / hex {}", hex(&inner))
            } else {
                format!("eth 02::3 > 02::4 / {ip} proto={} / hex {}", if v6 { 41 } else { 4 }, hex(&inner[14..]))
            };
            prop_assert_eq!(judge(5, &notation::encode(&text).unwrap()), Arrival::Intact(stamp));
            prop_assert_eq!(judge(6, &notation::encode(&text).unwrap()), Arrival::Foreign);
        }
    }
}
