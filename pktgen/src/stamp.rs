//! What every packet carries so that its arrival can be judged: flow, sequence number, time, checksum.
//!
//! ```text
//! UDP payload, 18 bytes, then filler         TCP SYN
//!  0  magic of the run         u32            acknowledgment number: top byte of magic, then flow (24 bits)
//!  4  version 1                u8             window: low half of magic
//!     flow                     u24            sequence number: sequence number in the flow
//!  8  sequence number in flow  u32            timestamp option, TSval: send time
//! 12  send time, low bits, ns  u32            the TCP checksum protects all of it
//! 16  CRC32c of the payload without these two bytes, low half   u16
//! ```
//! All big-endian. 18 bytes of payload make a UDP frame of 60 bytes, the shortest on Ethernet. Times are the low 32 bits of
//! CLOCK_MONOTONIC, so latencies under 4.29 s are told apart.

use std::net::IpAddr;

use packet::checksum::Checksum;
use packet::proto::{self, ethertype, ip};
use packet::view::{Frame, Ip};

/// Bytes of the stamp in a UDP payload.
pub const STAMP_LEN: usize = 18;
/// Largest number of flows: 24 bits.
pub const FLOWS_MAX: u32 = 1 << 24;

const VERSION: u8 = 1;
const SYN: u8 = 0x02;
/// Where TSval is in a SYN made by [`crate::template`]: behind the MSS option, two NOPs and the option's head.
const TSVAL_AT: usize = 20 + 8;

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

/// What came out of the receiving socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A packet of this run, as it was sent.
    Intact(Stamp),
    /// A packet of this run whose IP, UDP or TCP checksum or CRC is wrong.
    Corrupt,
    /// Not of this run.
    Foreign,
}

/// CRC of a UDP payload around the field that holds it.
pub(crate) fn payload_crc(payload: &[u8]) -> u16 {
    let (head, rest) = payload.split_at_checked(STAMP_LEN - 2).unwrap_or((payload, &[]));
    let tail = rest.get(2..).unwrap_or_default();
    u16::try_from(crc32c::crc32c_append(crc32c::crc32c(head), tail) & 0xffff).unwrap_or_default()
}

/// The first 16 bytes of a UDP payload.
pub(crate) fn udp_words(magic: u32, stamp: Stamp) -> [u8; 16] {
    let version_flow = u32::from(VERSION) << 24 | stamp.flow & (FLOWS_MAX - 1);
    let mut out = [0; 16];
    for (place, word) in out.as_chunks_mut::<4>().0.iter_mut().zip([magic, version_flow, stamp.seq, stamp.sent_ns]) {
        *place = word.to_be_bytes();
    }
    out
}

/// Acknowledgment number of a SYN.
pub(crate) fn syn_ack_number(magic: u32, flow: u32) -> u32 {
    magic & 0xff00_0000 | flow & (FLOWS_MAX - 1)
}

/// Window of a SYN.
pub(crate) fn syn_window(magic: u32) -> u16 {
    u16::try_from(magic & 0xffff).unwrap_or_default()
}

/// Judges a received frame: looks through one IP in IP or VXLAN header, then at checksums and stamp.
pub fn judge(magic: u32, frame: &[u8]) -> Arrival {
    let Ok(parsed) = Frame::parse(frame) else { return Arrival::Corrupt };
    let Some((ip, packet)) = parsed.ip.zip(parsed.packet()) else { return Arrival::Foreign };
    let outer = Ip { l4: ip.l4 - ip.l3, l3: 0, ..ip };
    match innermost(outer, packet) {
        Ok(Some((ip, packet))) => judge_packet(magic, &ip, packet),
        Ok(None) => Arrival::Foreign,
        Err(()) => Arrival::Corrupt,
    }
}

/// The packet inside of one tunnel header, or the packet itself.
fn innermost(ip: Ip, packet: &[u8]) -> Result<Option<(Ip, &[u8])>, ()> {
    let payload = packet.get(ip.l4..ip.len).unwrap_or_default();
    let (ethertype, inner) = match (ip.protocol, ip.ports) {
        (ip::IPV4, _) => (ethertype::IPV4, payload),
        (ip::IPV6, _) => (ethertype::IPV6, payload),
        (ip::UDP, Some((_, proto::VXLAN_PORT))) => {
            let inner = payload.get(proto::UDP_LEN + proto::VXLAN_LEN..).unwrap_or_default();
            let frame = Frame::parse(inner).map_err(|_| ())?;
            (frame.ethertype, inner.get(frame.l3..).unwrap_or_default())
        }
        _ => return Ok(Some((ip, packet))),
    };
    match Ip::parse(inner, ethertype) {
        Some(Ok(parsed)) => Ok(Some((parsed, inner))),
        Some(Err(_)) => Err(()),
        None => Ok(None),
    }
}

fn judge_packet(magic: u32, ip: &Ip, packet: &[u8]) -> Arrival {
    let l4 = packet.get(ip.l4..ip.len).unwrap_or_default();
    match ip.protocol {
        ip::UDP => judge_udp(magic, ip, l4),
        ip::TCP => judge_syn(magic, ip, l4),
        _ => Arrival::Foreign,
    }
}

fn judge_udp(magic: u32, ip: &Ip, udp: &[u8]) -> Arrival {
    let payload = udp.get(proto::UDP_LEN..).unwrap_or_default();
    let word = |at: usize| payload.get(at..)?.first_chunk().copied().map(u32::from_be_bytes);
    let (Some(found), Some(version_flow), Some(seq), Some(sent_ns)) = (word(0), word(4), word(8), word(12)) else {
        return Arrival::Foreign;
    };
    if found != magic {
        return Arrival::Foreign;
    }
    let crc = payload.get(STAMP_LEN - 2..).and_then(|rest| rest.first_chunk().copied()).map(u16::from_be_bytes);
    // A zero checksum means none (RFC 768); pktgen never sends one.
    let unsummed = udp.get(6..8) == Some(&[0, 0]);
    let good = crc == Some(payload_crc(payload)) && !unsummed && checksum_holds(ip, udp);
    if version_flow >> 24 != u32::from(VERSION) || !good {
        return Arrival::Corrupt;
    }
    Arrival::Intact(Stamp { flow: version_flow & (FLOWS_MAX - 1), seq, sent_ns })
}

fn judge_syn(magic: u32, ip: &Ip, tcp: &[u8]) -> Arrival {
    let word = |at: usize| tcp.get(at..)?.first_chunk().copied().map(u32::from_be_bytes);
    let (Some(seq), Some(ack), Some(offset_flags_window)) = (word(4), word(8), word(12)) else {
        return Arrival::Foreign;
    };
    let flags = offset_flags_window >> 16 & 0xff;
    if flags != u32::from(SYN)
        || ack & 0xff00_0000 != magic & 0xff00_0000
        || offset_flags_window & 0xffff != magic & 0xffff
    {
        return Arrival::Foreign;
    }
    let Some(sent_ns) = word(TSVAL_AT).filter(|_| checksum_holds(ip, tcp)) else { return Arrival::Corrupt };
    Arrival::Intact(Stamp { flow: ack & (FLOWS_MAX - 1), seq, sent_ns })
}

fn checksum_holds(ip: &Ip, l4: &[u8]) -> bool {
    let (src, dst): (IpAddr, IpAddr) = (ip.src, ip.dst);
    Checksum::pseudo(src, dst, ip.protocol, l4.len()).is_some_and(|pseudo| pseudo.bytes(l4).finish() == 0)
}
