//! What names a packet of a run: the last 18 bytes of the IP packet.
//!
//! ```text
//!  0  magic of the run                                    u32
//!  4  version 2                                           u8
//!     flow                                                u24
//!  8  sequence number in the flow                         u32
//! 12  time of sending, low bits of CLOCK_MONOTONIC in ns  u32
//! 16  CRC32c of the bytes 0 to 12, low half               u16
//! ```
//! All big-endian. The length in the outermost IP header tells where it is, so it is found behind any transport header, and
//! after encapsulation or decapsulation on the way. The time may be replaced at departure and is not covered by the CRC.
//! Latencies under 4.29 s are told apart.

use packet::proto::{self, ethertype};

/// Bytes of a stamp.
pub const STAMP_LEN: usize = 18;
/// Largest number of flows: 24 bits.
pub const FLOWS_MAX: u32 = 1 << 24;
/// Offset of the time in a stamp.
pub const TIME_AT: usize = 12;

const VERSION: u8 = 2;
const CRC_AT: usize = 16;

/// One packet of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Flow, counting from 0.
    pub flow: u32,
    /// Number of the packet in its flow, counting from 0; 32 bits on the wire.
    pub seq: u32,
    /// When it was sent: low 32 bits of CLOCK_MONOTONIC in nanoseconds.
    pub sent_ns: u32,
}

/// A stamp of this run that is of another version or does not hold its CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stamp is damaged")]
pub struct Damaged;

/// Writes a stamp into `out`; nothing where that has not [`STAMP_LEN`] bytes.
pub fn write(out: &mut [u8], magic: u32, stamp: Stamp) {
    let Ok(out) = <&mut [u8; STAMP_LEN]>::try_from(out) else { return };
    let version_flow = u32::from(VERSION) << 24 | stamp.flow & (FLOWS_MAX - 1);
    for (place, word) in out.as_chunks_mut::<4>().0.iter_mut().zip([magic, version_flow, stamp.seq, stamp.sent_ns]) {
        *place = word.to_be_bytes();
    }
    let crc = crc(out);
    if let Some(place) = out.last_chunk_mut() {
        *place = crc.to_be_bytes();
    }
}

/// The stamp in the last bytes of an IP packet; `None` where there is none with this magic.
pub fn read(tail: &[u8], magic: u32) -> Option<Result<Stamp, Damaged>> {
    let stamp: &[u8; STAMP_LEN] = tail.last_chunk()?;
    let mut words = stamp.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word));
    let (found, version_flow, seq, sent_ns) = (words.next()?, words.next()?, words.next()?, words.next()?);
    if found != magic {
        return None;
    }
    let good = version_flow >> 24 == u32::from(VERSION) && stamp.last_chunk() == Some(&crc(stamp).to_be_bytes());
    Some(if good { Ok(Stamp { flow: version_flow & (FLOWS_MAX - 1), seq, sent_ns }) } else { Err(Damaged) })
}

fn crc(stamp: &[u8; STAMP_LEN]) -> u16 {
    const { assert!(TIME_AT < CRC_AT && CRC_AT + 2 == STAMP_LEN) };
    let covered = stamp.get(..TIME_AT).unwrap_or_default();
    u16::try_from(crc32c::crc32c(covered) & 0xffff).unwrap_or_default()
}

/// Offset of the outermost IP header of a frame and of the end of its packet: behind up to two VLAN tags, before padding.
/// `None` where the frame is no IP, or shorter than its IP header says.
pub fn outermost(frame: &[u8]) -> Option<(usize, usize)> {
    let word = |at: usize| frame.get(at..)?.first_chunk().copied().map(u16::from_be_bytes);
    let mut l3 = proto::ETHERNET_LEN;
    let mut kind = word(l3 - 2)?;
    for _ in 0..2 {
        if kind != ethertype::VLAN && kind != ethertype::QINQ {
            break;
        }
        l3 += proto::VLAN_LEN;
        kind = word(l3 - 2)?;
    }
    let (header, len) = match kind {
        ethertype::IPV4 => (proto::IPV4_LEN, usize::from(word(l3 + 2)?)),
        ethertype::IPV6 => (proto::IPV6_LEN, proto::IPV6_LEN + usize::from(word(l3 + 4)?)),
        _ => return None,
    };
    (len >= header && frame.len() >= l3 + len).then_some((l3, l3 + len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAGIC: u32 = 0xdead_beef;
    const STAMP: Stamp = Stamp { flow: 0xabcdef, seq: 7, sent_ns: 8 };

    #[test]
    fn layout_is_the_documented_one() {
        let mut out = [0; STAMP_LEN];
        write(&mut out, MAGIC, STAMP);
        let crc = (crc32c::crc32c(&out[..12]) & 0xffff) as u16;
        assert_eq!(out[..16], [0xde, 0xad, 0xbe, 0xef, 2, 0xab, 0xcd, 0xef, 0, 0, 0, 7, 0, 0, 0, 8]);
        assert_eq!(out[16..], crc.to_be_bytes());
    }

    #[test]
    fn outermost_packet_is_found() {
        for (text, expected) in [
            ("ip4 192.0.2.1 > 192.0.2.2 / udp 1 > 2 / data 5 / pad 9", Some((14, 14 + 33))),
            ("vlan 5 tpid=0x88a8 / vlan 6 / ip6 2001:db8::1 > 2001:db8::2 / udp 1 > 2 / data 5", Some((22, 22 + 53))),
            ("ip4 192.0.2.1 > 192.0.2.2 / ip4 192.0.2.3 > 192.0.2.4 / udp 1 > 2", Some((14, 14 + 48))),
            ("ip4 192.0.2.1 > 192.0.2.2 len=29 / udp 1 > 2", None),
            ("ip4 192.0.2.1 > 192.0.2.2 len=19 / udp 1 > 2", None),
            ("arp who-has 10.0.0.1 tell 10.0.0.2", None),
            ("vlan 1 / vlan 2 / vlan 3 / ip4 192.0.2.1 > 192.0.2.2", None),
        ] {
            let frame = packet::notation::encode(&format!("eth 02::1 > 02::2 / {text}")).unwrap();
            assert_eq!(outermost(&frame), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn comes_back_and_flips_are_seen(flow in 0..FLOWS_MAX, seq: u32, sent_ns: u32, magic: u32, bit in 0..144usize) {
            let stamp = Stamp { flow, seq, sent_ns };
            let mut out = [0; STAMP_LEN];
            write(&mut out, magic, stamp);
            prop_assert_eq!(read(&out, magic), Some(Ok(stamp)));
            out[bit / 8] ^= 1 << (bit % 8);
            match bit {
                0..32 => prop_assert_eq!(read(&out, magic), None),
                96..128 => prop_assert_eq!(read(&out, magic), Some(Ok(Stamp { sent_ns: sent_ns ^ 1 << (31 - (bit - 96) / 8 * 8 - 7 + bit % 8), ..stamp }))),
                _ => prop_assert_eq!(read(&out, magic), Some(Err(Damaged))),
            }
        }

        #[test]
        fn ends_inside(frame in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Some((l3, end)) = outermost(&frame) {
                prop_assert!(l3 < end && end <= frame.len());
            }
        }
    }
}
