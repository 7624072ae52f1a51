//! Is it what was sent? Every packet is a pure function of its stamp, so the frame is written again and compared.
//!
//! Both are aligned from the end of the packet: headers that were put in front on the way, or taken off, change nothing.
//! Behind the headers every byte must be the same. In the innermost IP and transport header, fields that differ are named,
//! the TTL may fall, and checksums must be as right as they were: since the payload is the same, the sums of the two headers
//! must agree modulo 0xffff (RFC 1624), whatever was rewritten.

use packet::checksum::Checksum;
use packet::proto::ip;

use super::field::{Field, FieldSet};
use crate::stamp::{self, Stamp};

/// What was sent, as far as the receiver must know it.
pub trait Reference: Send + Sync {
    /// Number of flows.
    fn flows(&self) -> u32;
    /// Number of streams.
    fn streams(&self) -> usize;
    /// The stream that a flow belongs to.
    fn stream_of(&self, flow: u32) -> usize;
    /// Bytes of the longest frame.
    fn longest(&self) -> usize;
    /// Writes the frame of packet `seq` of `flow` to the start of `out` and returns its length; 0 where there is no such flow.
    fn write(&self, flow: u32, seq: u32, sent_ns: u32, out: &mut [u8]) -> usize;
    /// Where its headers are; `None` for flows without a stamp.
    fn shape(&self, flow: u32, seq: u32) -> Option<Shape>;
}

/// Where things are in a frame, as offsets from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// End of the outermost IP packet, which is the end of the stamp.
    pub end: usize,
    /// The innermost IP header.
    pub l3: usize,
    /// True where that is IPv6.
    pub v6: bool,
    /// Transport protocol of the innermost packet.
    pub protocol: u8,
    /// Its transport header; the end of the headers where there is none.
    pub l4: usize,
    /// First byte behind the transport header; `end` where the header itself carries the stamp.
    pub payload: usize,
}

/// What came out of the receiving socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Not of this run.
    Foreign,
    /// Of this run, but with a stamp that cannot be read.
    Damaged,
    /// Of this run.
    Ours(Verdict),
}

/// One packet of the run, compared with what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which packet.
    pub stamp: Stamp,
    /// The payload differs, a checksum is wrong, or bytes are missing.
    pub corrupt: bool,
    /// Header fields that differ.
    pub changed: FieldSet,
    /// By how much the TTL or hop limit has fallen; `None` where it cannot be compared or has risen.
    pub hops: Option<u8>,
}

/// Judges frames. It has a buffer of its own: one for each thread.
pub struct Judge<'a> {
    reference: &'a dyn Reference,
    magic: u32,
    sent: Vec<u8>,
}

impl<'a> Judge<'a> {
    /// For a run of `reference` with this magic.
    pub fn new(reference: &'a dyn Reference, magic: u32) -> Self {
        Self { reference, magic, sent: vec![0; reference.longest()] }
    }

    /// Judges one frame, from its Ethernet header on.
    pub fn judge(&mut self, frame: &[u8]) -> Arrival {
        let Some((outer, end)) = stamp::outermost(frame) else { return Arrival::Foreign };
        let packet = frame.get(..end).unwrap_or_default();
        let stamp = match stamp::read(packet.get(outer..).unwrap_or_default(), self.magic) {
            None => return Arrival::Foreign,
            Some(Err(_)) => return Arrival::Damaged,
            Some(Ok(stamp)) => stamp,
        };
        if stamp.flow >= self.reference.flows() {
            return Arrival::Foreign;
        }
        let len = self.reference.write(stamp.flow, stamp.seq, stamp.sent_ns, &mut self.sent);
        let Some(shape) = self.reference.shape(stamp.flow, stamp.seq).filter(|shape| shape.end <= len) else {
            return Arrival::Foreign;
        };
        let sent = self.sent.get(shape.l3..shape.end).unwrap_or_default();
        let corrupt = Verdict { stamp, corrupt: true, changed: FieldSet::default(), hops: None };
        // The innermost packet must lie inside the outermost one.
        let Some(inner) = end.checked_sub(sent.len()).filter(|inner| *inner >= outer) else {
            return Arrival::Ours(corrupt);
        };
        if inner > outer && !outer_header_holds(packet.get(outer..inner).unwrap_or_default()) {
            return Arrival::Ours(corrupt);
        }
        let got = packet.get(inner..).unwrap_or_default();
        if got == sent {
            return Arrival::Ours(Verdict { corrupt: false, hops: Some(0), ..corrupt });
        }
        let headers = shape.payload - shape.l3;
        let same_payload = got.get(headers..) == sent.get(headers..);
        let compared = same_payload.then(|| Headers::new(&shape, sent, got)).flatten().and_then(|both| both.compare());
        Arrival::Ours(compared.map_or(corrupt, |(changed, hops)| Verdict { stamp, corrupt: false, changed, hops }))
    }
}

/// The checksum of an IPv4 header that was put in front. The UDP checksum of a tunnel may be zero and is not looked at.
fn outer_header_holds(header: &[u8]) -> bool {
    let first = header.first().copied().unwrap_or_default();
    first >> 4 != 4
        || header.get(..usize::from(first & 0xf) * 4).is_some_and(|header| packet::checksum::internet(header) == 0)
}

/// The innermost headers, as sent and as they arrived. Both slices of a pair have the same length.
struct Headers<'a> {
    v6: bool,
    protocol: u8,
    ip: [&'a [u8]; 2],
    l4: [&'a [u8]; 2],
    /// Both packets, from the IP header to the end.
    whole: [&'a [u8]; 2],
}

impl<'a> Headers<'a> {
    fn new(shape: &Shape, sent: &'a [u8], got: &'a [u8]) -> Option<Self> {
        let (l4, payload) = (shape.l4.checked_sub(shape.l3)?, shape.payload.checked_sub(shape.l3)?);
        let ip = [sent.get(..l4)?, got.get(..l4)?];
        let l4 = [sent.get(l4..payload)?, got.get(l4..payload)?];
        Some(Self { v6: shape.v6, protocol: shape.protocol, ip, l4, whole: [sent, got] })
    }

    /// Fields that differ and the fall of the TTL; `None` where a checksum does not hold.
    fn compare(&self) -> Option<(FieldSet, Option<u8>)> {
        let [sent, got] = self.ip;
        let mut changed = FieldSet::default();
        let pairs = |[sent, got]: [&'a [u8]; 2]| {
            sent.iter().zip(got).enumerate().filter(|(_, (a, b))| a != b).map(|(at, (a, b))| (at, *a, *b))
        };
        for (at, a, b) in pairs(self.ip) {
            if self.v6 { Field::of_ipv6(at, a ^ b, &mut changed) } else { Field::of_ipv4(at, a ^ b, &mut changed) }
        }
        for (at, ..) in pairs(self.l4) {
            changed.extend(Field::of_transport(self.protocol, at));
        }
        if !self.v6 && !same_sum(Checksum::default().bytes(sent), Checksum::default().bytes(got)) {
            return None;
        }
        if !self.transport_holds()? {
            return None;
        }
        let ttl = |header: &[u8]| header.get(if self.v6 { 7 } else { 8 }).copied();
        let hops = ttl(sent).zip(ttl(got)).and_then(|(sent, got)| sent.checked_sub(got));
        if hops.is_none() {
            changed.insert(Field::TtlRaised);
        }
        Some((changed, hops))
    }

    /// Whether the transport checksum is as right as it was.
    fn transport_holds(&self) -> Option<bool> {
        let [sent, got] = self.l4;
        let word = |header: &[u8], at: usize| header.get(at..at + 2).map(|word| word == [0, 0]);
        match self.protocol {
            // No checksum stays none (RFC 768, RFC 6935).
            ip::UDP if word(sent, 6) == Some(true) => Some(word(got, 6)? || self.sum_holds(true)),
            ip::UDP if word(got, 6) == Some(true) => Some(false),
            ip::UDP | ip::TCP | ip::ICMPV6 => Some(self.sum_holds(true)),
            ip::ICMP => Some(self.sum_holds(false)),
            ip::SCTP if sent != got => Some(self.sctp_holds()),
            _ => Some(true),
        }
    }

    fn sum_holds(&self, pseudo: bool) -> bool {
        let addresses = if self.v6 { 8..40 } else { 12..20 };
        let [sent, got] = [0, 1].map(|side| {
            let ip = self.ip.get(side).and_then(|ip| ip.get(addresses.clone())).filter(|_| pseudo).unwrap_or_default();
            let l4 = self.l4.get(side).copied().unwrap_or_default();
            Checksum::default().bytes(ip).bytes(l4)
        });
        same_sum(sent, got)
    }

    /// The CRC32c of an SCTP packet (RFC 9260 §6.8, appendix A), or one that was wrong when it was sent.
    fn sctp_holds(&self) -> bool {
        let holds = |packet: &[u8], header: &[u8]| {
            let (Some(before), Some(stored), Some(behind)) = (header.get(..8), header.get(8..12), packet.get(12..))
            else {
                return false;
            };
            let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]), behind);
            crc.to_le_bytes() == stored
        };
        let [sent, got] =
            self.whole.map(|whole| whole.get(self.ip.first().map_or(0, |ip| ip.len())..).unwrap_or_default());
        let [sent_header, got_header] = self.l4;
        holds(got, got_header) || !holds(sent, sent_header)
    }
}

/// Equal modulo 0xffff: one's complement has two zeros.
fn same_sum(a: Checksum, b: Checksum) -> bool {
    a.finish() % 0xffff == b.finish() % 0xffff
}

/// What the receiving program has put in front of a frame: time of arrival (CLOCK_MONOTONIC, ns) and the frame itself. The mark stands
/// where an ethertype would and is none that the program takes.
pub fn take_note(bytes: &[u8]) -> (Option<u64>, &[u8]) {
    match bytes.split_first_chunk::<16>() {
        Some(([time @ .., 0, 0, 0, 0, 0xff, 0xff, 0, 0], frame)) => {
            (time.first_chunk().copied().map(u64::from_ne_bytes), frame)
        }
        _ => (None, bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::field::Field;
    use packet::{checksum, notation};
    use proptest::prelude::*;

    const MAGIC: u32 = 0x1234_5678;

    /// Packets of one notation line, whose last 18 bytes are the stamp; transport checksums are made right.
    struct Line {
        bytes: Vec<u8>,
        shape: Shape,
    }

    impl Line {
        fn new(text: &str, protocol: u8, header: usize) -> Self {
            let bytes = notation::encode(text).unwrap();
            let (l3, end) = stamp::outermost(&bytes).unwrap();
            let v6 = bytes[l3] >> 4 == 6;
            let l4 = l3 + if v6 { 40 } else { 20 };
            Self { bytes, shape: Shape { end, l3, v6, protocol, l4, payload: l4 + header } }
        }

        fn udp4() -> Self {
            Self::new("eth 02::1 > 02::2 / ip4 198.18.0.1 > 198.19.0.1 / udp 5 > 9 / data 40", ip::UDP, 8)
        }

        fn all() -> Vec<Self> {
            let v4 = "eth 02::1 > 02::2 / ip4 198.18.0.1 > 198.19.0.1";
            let v6 = "eth 02::1 > 02::2 / ip6 2001:db8::1 > 2001:db8::2";
            let tcp = "tcp 5 > 9 S / data 18";
            [(v4, "udp 5 > 9 / data 41", ip::UDP, 8), (v6, "udp 5 > 9 / data 40", ip::UDP, 8), (v4, tcp, ip::TCP, 20)]
                .into_iter()
                .chain([(v6, tcp, ip::TCP, 20), (v4, "icmp echo id=1 seq=2 / data 30", ip::ICMP, 8)])
                .map(|(ip, rest, protocol, header)| Self::new(&format!("{ip} / {rest}"), protocol, header))
                .collect()
        }

        fn frame(&self, stamp: Stamp) -> Vec<u8> {
            let mut out = self.bytes.clone();
            assert_eq!(self.write(stamp.flow, stamp.seq, stamp.sent_ns, &mut out), out.len());
            out
        }

        fn judge(&self, frame: &[u8]) -> Arrival {
            Judge::new(self, MAGIC).judge(frame)
        }
    }

    /// Makes the checksums of an innermost packet right.
    fn sum(shape: &Shape, out: &mut [u8]) {
        let csum_at = match shape.protocol {
            ip::UDP => 6,
            ip::TCP => 16,
            _ => 2,
        };
        out[shape.l4 + csum_at..][..2].fill(0);
        let addresses = if shape.v6 { 8..40 } else { 12..20 };
        let mut sum = Checksum::default().bytes(&out[shape.l4..shape.end]);
        if shape.protocol != ip::ICMP {
            let len = (shape.end - shape.l4) as u16;
            sum = Checksum::default()
                .bytes(&out[shape.l3..][addresses])
                .word(shape.protocol.into())
                .word(len)
                .bytes(&out[shape.l4..shape.end]);
        }
        let csum = if sum.finish() == 0 { 0xffff } else { sum.finish() };
        out[shape.l4 + csum_at..][..2].copy_from_slice(&csum.to_be_bytes());
        if !shape.v6 {
            out[shape.l3 + 10..][..2].fill(0);
            let csum = checksum::internet(&out[shape.l3..shape.l4]);
            out[shape.l3 + 10..][..2].copy_from_slice(&csum.to_be_bytes());
        }
    }

    impl Reference for Line {
        fn flows(&self) -> u32 {
            100
        }
        fn streams(&self) -> usize {
            1
        }
        fn stream_of(&self, _flow: u32) -> usize {
            0
        }
        fn longest(&self) -> usize {
            self.bytes.len()
        }
        fn write(&self, flow: u32, seq: u32, sent_ns: u32, out: &mut [u8]) -> usize {
            let end = self.shape.end;
            out[..self.bytes.len()].copy_from_slice(&self.bytes);
            stamp::write(&mut out[end - stamp::STAMP_LEN..end], MAGIC, Stamp { flow, seq, sent_ns });
            sum(&self.shape, out);
            self.bytes.len()
        }
        fn shape(&self, _flow: u32, _seq: u32) -> Option<Shape> {
            Some(self.shape)
        }
    }

    const STAMP: Stamp = Stamp { flow: 7, seq: 8, sent_ns: 9 };

    fn clean(hops: u8, changed: &[Field]) -> Arrival {
        let changed = changed.iter().copied().collect();
        Arrival::Ours(Verdict { stamp: STAMP, corrupt: false, changed, hops: Some(hops) })
    }

    fn corrupt() -> Arrival {
        Arrival::Ours(Verdict { stamp: STAMP, corrupt: true, changed: FieldSet::default(), hops: None })
    }

    #[test]
    fn what_was_sent_is_intact_and_padding_is_ignored() {
        for line in Line::all() {
            let mut frame = line.frame(STAMP);
            assert_eq!(line.judge(&frame), clean(0, &[]));
            frame.extend([0xee; 9]);
            assert_eq!(line.judge(&frame), clean(0, &[]));
            let tagged = [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat();
            assert_eq!(line.judge(&tagged), clean(0, &[]));
        }
    }

    #[test]
    fn rewritten_fields_are_named() {
        use Field::{Dport, Dscp, Dst, Ecn, Other, Sport, Src};
        let [udp4, udp6, tcp4] =
            <[Line; 3]>::try_from(Line::all().into_iter().take(3).collect::<Vec<_>>()).ok().unwrap();
        for (line, at, value, fields) in [
            (&udp4, udp4.shape.l3 + 1, 0xb8, &[Dscp][..]),
            (&udp4, udp4.shape.l3 + 1, 0x03, &[Ecn]),
            (&udp4, udp4.shape.l3 + 4, 0x55, &[Other]),
            (&udp4, udp4.shape.l3 + 12, 10, &[Src]),
            (&udp4, udp4.shape.l3 + 19, 10, &[Dst]),
            (&udp4, udp4.shape.l4, 10, &[Sport]),
            (&udp4, udp4.shape.l4 + 3, 10, &[Dport]),
            (&udp6, udp6.shape.l3, 0x6b, &[Dscp]),
            (&udp6, udp6.shape.l3 + 1, 0x30, &[Ecn]),
            (&udp6, udp6.shape.l3 + 1, 0x05, &[Other]),
            (&udp6, udp6.shape.l3 + 8, 0x30, &[Src]),
            (&udp6, udp6.shape.l3 + 39, 0x30, &[Dst]),
            (&tcp4, tcp4.shape.l4 + 13, 0x12, &[Field::Flags]),
            (&tcp4, tcp4.shape.l4 + 15, 0x12, &[Other]),
        ] {
            let mut frame = line.frame(STAMP);
            frame[at] = value;
            let unsummed = frame.clone();
            sum(&line.shape, &mut frame);
            assert_eq!(line.judge(&frame), clean(0, fields), "{at}");
            // Without the checksum it is damage, but for what no checksum covers.
            let covered = unsummed != frame;
            assert_eq!(line.judge(&unsummed), if covered { corrupt() } else { clean(0, fields) }, "{at}");
        }
    }

    #[test]
    fn ttl_may_fall_but_not_rise() {
        for line in Line::all() {
            let mut frame = line.frame(STAMP);
            let at = line.shape.l3 + if line.shape.v6 { 7 } else { 8 };
            frame[at] -= 3;
            sum(&line.shape, &mut frame);
            assert_eq!(line.judge(&frame), clean(3, &[]));
            frame[at] += 4;
            sum(&line.shape, &mut frame);
            let Arrival::Ours(verdict) = line.judge(&frame) else { panic!() };
            assert!(verdict.changed.contains(Field::TtlRaised) && !verdict.corrupt && verdict.hops.is_none());
        }
    }

    #[test]
    fn tunnels_on_the_way_change_nothing() {
        for line in Line::all() {
            let inner = line.frame(STAMP);
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            for outer in ["ip4 10.0.0.1 > 10.0.0.2", "ip6 fd00::1 > fd00::2"] {
                let number = if line.shape.v6 { 41 } else { 4 };
                for text in [
                    format!("{outer} proto={number} / hex {}", hex(&inner[14..])),
                    format!("{outer} / udp 5 > 4789 csum=0 / vxlan vni=7 / hex {}", hex(&inner)),
                    format!("{outer} proto=47 / hex 00000800 / hex {}", hex(&inner[14..])),
                ] {
                    let frame = notation::encode(&format!("eth 02::3 > 02::4 / {text}")).unwrap();
                    assert_eq!(line.judge(&frame), clean(0, &[]), "{text}");
                    let mut damaged = frame.clone();
                    damaged[15] ^= 4;
                    let broken = if outer.starts_with("ip4") { corrupt() } else { clean(0, &[]) };
                    assert_eq!(line.judge(&damaged), broken, "{text}");
                }
            }
        }
    }

    /// And the other way round: what was sent in a tunnel is looked at from its innermost packet on.
    #[test]
    fn the_end_of_a_tunnel_changes_nothing() {
        let inner = Line::udp4();
        let outer = notation::encode("eth 02::1 > 02::2 / ip4 10.0.0.1 > 10.0.0.2 proto=4 len=88 / data 68").unwrap();
        let bytes = [&outer[..34], &inner.bytes[14..]].concat();
        let shape = Shape {
            end: bytes.len(),
            l3: inner.shape.l3 + 20,
            l4: inner.shape.l4 + 20,
            payload: inner.shape.payload + 20,
            ..inner.shape
        };
        let line = Line { bytes, shape };
        assert_eq!(line.judge(&line.frame(STAMP)), clean(0, &[]));
        assert_eq!(line.judge(&inner.frame(STAMP)), clean(0, &[]));
    }

    #[test]
    fn checksums_that_were_wrong_may_stay_so() {
        struct Wrong(Line);
        impl Reference for Wrong {
            fn flows(&self) -> u32 {
                self.0.flows()
            }
            fn streams(&self) -> usize {
                1
            }
            fn stream_of(&self, _flow: u32) -> usize {
                0
            }
            fn longest(&self) -> usize {
                self.0.longest()
            }
            fn write(&self, flow: u32, seq: u32, sent_ns: u32, out: &mut [u8]) -> usize {
                let len = self.0.write(flow, seq, sent_ns, out);
                out[self.0.shape.l4 + 6] ^= 0x40;
                len
            }
            fn shape(&self, flow: u32, seq: u32) -> Option<Shape> {
                self.0.shape(flow, seq)
            }
        }
        let wrong = Wrong(Line::udp4());
        let mut frame = vec![0; wrong.longest()];
        wrong.write(STAMP.flow, STAMP.seq, STAMP.sent_ns, &mut frame);
        assert_eq!(Judge::new(&wrong, MAGIC).judge(&frame), clean(0, &[]));
        // A router that counts the TTL down and adjusts the header's checksum.
        frame[22] -= 1;
        let [high, low] = checksum::update(u16::from_be_bytes([frame[24], frame[25]]), 0x0100, 0).to_be_bytes();
        (frame[24], frame[25]) = (high, low);
        assert_eq!(Judge::new(&wrong, MAGIC).judge(&frame), clean(1, &[]));
        // One that repairs the checksum has changed what was sent.
        sum(&wrong.0.shape, &mut frame);
        assert_eq!(Judge::new(&wrong, MAGIC).judge(&frame), corrupt());
    }

    #[test]
    fn notes_are_taken_off() {
        let frame = Line::udp4().frame(STAMP);
        assert_eq!(take_note(&frame), (None, &frame[..]));
        let note = [&7u64.to_ne_bytes()[..], &[0, 0, 0, 0, 0xff, 0xff, 0, 0], &frame].concat();
        assert_eq!(take_note(&note), (Some(7), &frame[..]));
    }

    proptest! {
        /// One flipped bit behind the Ethernet header is never taken for what was sent, but for what may change on the way.
        #[test]
        fn every_flip_is_seen(which in 0..5usize, at in 14..120usize, bit in 0..8u8) {
            let line = Line::all().swap_remove(which);
            let at = 14 + (at - 14) % (line.bytes.len() - 14);
            let mut frame = line.frame(STAMP);
            frame[at] ^= 1 << bit;
            let judged = line.judge(&frame);
            let stamp = line.shape.end - stamp::STAMP_LEN;
            if at == line.shape.l3 + 7 && line.shape.v6 {
                // The hop limit, which no checksum covers.
                prop_assert!(matches!(judged, Arrival::Ours(Verdict { corrupt: false, .. })), "{:?}", judged);
            } else if (stamp + 12..stamp + 16).contains(&at) {
                // Another time, and with it another packet; its checksum does not hold.
                prop_assert!(matches!(judged, Arrival::Ours(Verdict { corrupt: true, .. })), "{:?}", judged);
            } else {
                prop_assert_ne!(judged, clean(0, &[]));
            }
        }

        #[test]
        fn garbage_is_foreign(mut bytes in proptest::collection::vec(any::<u8>(), 0..150), v6: bool) {
            let start: &[u8] = if v6 { &[0x86, 0xdd, 0x60] } else { &[8, 0, 0x45] };
            if let Some(place) = bytes.get_mut(12..15) {
                place.copy_from_slice(start);
            }
            prop_assert_eq!(Line::udp4().judge(&bytes), Arrival::Foreign);
        }

        /// A stamp behind anything at all: no panic, and never intact.
        #[test]
        fn garbage_with_a_stamp_is_not_intact(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), flow in 0..100u32) {
            let line = Line::udp4();
            let len = (20 + bytes.len() + stamp::STAMP_LEN) as u16;
            let head = notation::encode(&format!("eth 02::1 > 02::2 / ip4 1.2.3.4 > 5.6.7.8 len={len} proto=17")).unwrap();
            let mut stamp = [0; stamp::STAMP_LEN];
            stamp::write(&mut stamp, MAGIC, Stamp { flow, ..STAMP });
            bytes.splice(0..0, head);
            bytes.extend(stamp);
            let judged = line.judge(&bytes);
            prop_assert!(matches!(judged, Arrival::Ours(Verdict { corrupt: true, .. })), "{:?}", judged);
        }
    }
}
