//! The bytes that the stages change or put in front of a packet. Checksums are made anew, never adjusted: an independent
//! answer to the program's incremental ones (RFC 1624).

use std::net::IpAddr;

use tables::hash;

use super::Frame;
use super::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Packet, array, internet_sum};
use crate::desired::protocol;
use crate::network::Mac;

/// UDP header.
pub(super) const UDP_OVERHEAD: usize = 8;
/// UDP, VXLAN and inner Ethernet header.
pub(super) const VXLAN_OVERHEAD: usize = 8 + 8 + 14;

/// Writes the packet's TOS or traffic class.
pub(super) fn set_tos(payload: &mut [u8], packet: &Packet) {
    if packet.is_ipv6() {
        if let [first, second, ..] = payload {
            *first = 0x60 | packet.tos >> 4;
            *second = packet.tos << 4 | *second & 0x0f;
        }
        return;
    }
    if let Some(tos) = payload.get_mut(1) {
        *tos = packet.tos;
    }
    renew_checksum(payload, packet);
}

/// Takes one off the TTL or hop limit.
pub(super) fn decrement_ttl(payload: &mut [u8], packet: &Packet) {
    let at = if packet.is_ipv6() { 7 } else { 8 };
    if let Some(ttl) = payload.get_mut(at) {
        *ttl -= 1;
    }
    if !packet.is_ipv6() {
        renew_checksum(payload, packet);
    }
}

/// Makes a SYN that tells a larger maximum segment size than `most` tell this (RFC 9293 §3.7.1), as far as its options are well formed. What was
/// wrong with its checksum stays so: the sum over the segment is the same as before.
pub(super) fn clamp_mss(payload: &mut [u8], packet: &Packet, most: u16) {
    const SYN: u8 = 1 << 1;
    const RST: u8 = 1 << 2;
    let Some(segment) = payload.get_mut(packet.transport..packet.len).filter(|_| packet.ports.is_some()) else {
        return;
    };
    let (Some(flags), Some(offset)) = (segment.get(13).copied(), segment.get(12).copied()) else { return };
    let header = usize::from(offset >> 4) * 4;
    if packet.protocol != protocol::TCP || flags & (SYN | RST) != SYN || header > segment.len() {
        return;
    }
    let before = internet_sum(segment);
    let mut changed = false;
    let mut at = 20;
    while at < header {
        let byte =
            |at: usize| segment.get(..header).and_then(|options| options.get(at)).map_or(0, |byte| usize::from(*byte));
        match (byte(at), byte(at + 1)) {
            (0, _) => break,
            (1, _) => at += 1,
            (_, len) if len < 2 || at + len > header => break,
            (kind, len) => {
                let told = array(segment, at + 2).map(u16::from_be_bytes);
                if kind == 2 && len == 4 && told.is_some_and(|told| told > most) {
                    segment
                        .get_mut(at + 2..at + 4)
                        .into_iter()
                        .for_each(|field| field.copy_from_slice(&most.to_be_bytes()));
                    changed = true;
                }
                at += len;
            }
        }
    }
    if changed {
        segment.get_mut(16..18).into_iter().for_each(|field| field.fill(0));
        let sum = u32::from(before) + u32::from(!internet_sum(segment));
        let sum = (sum & 0xffff) + (sum >> 16);
        // Of the two that mean nothing, the one that an inverted sum is.
        let sum = if sum == 0xffff { 0 } else { sum as u16 };
        segment.get_mut(16..18).into_iter().for_each(|field| field.copy_from_slice(&sum.to_be_bytes()));
    }
}

/// IPv4 only: the header, options included, ends where the transport header begins.
fn renew_checksum(payload: &mut [u8], packet: &Packet) {
    let Some(header) = payload.get_mut(..packet.transport) else { return };
    if let Some(field) = header.get_mut(10..12) {
        field.fill(0);
    }
    let sum = !internet_sum(header);
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

/// Puts an outer IP header for `len` bytes of payload in front. TOS comes from the inner packet.
pub(super) fn push_ip(
    frame: &mut Frame,
    inner: &Packet,
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
    len: usize,
    flow_hash: u64,
) {
    let header = match (source, destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.ethertype = ETHERTYPE_IPV6;
            let word = 6 << 28 | u32::from(inner.tos) << 20 | hash::flow_label(flow_hash);
            let mut header = word.to_be_bytes().to_vec();
            header.extend(be16(len));
            header.extend([protocol, 64]);
            header.extend(source.octets());
            header.extend(destination.octets());
            header
        }
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.ethertype = ETHERTYPE_IPV4;
            let mut header = vec![0x45, inner.tos];
            header.extend(be16(len + 20));
            header.extend([0, 0, 0x40, 0, 64, protocol]);
            let addresses = [source.octets(), destination.octets()].concat();
            let sum = internet_sum(&[header.as_slice(), &addresses].concat());
            header.extend((!sum).to_be_bytes());
            header.extend(addresses);
            header
        }
        // The path's source is of the backend's family.
        _ => return,
    };
    frame.payload.splice(..0, header);
}

/// Puts UDP, VXLAN (RFC 7348) and the inner Ethernet header in front of a packet of `len` bytes.
pub(super) fn push_vxlan(
    frame: &mut Frame,
    vni: u32,
    destination: Mac,
    source: Mac,
    len: usize,
    flow_hash: u64,
    port: u16,
) {
    let mut header = vec![0x08, 0, 0, 0];
    header.extend((vni << 8).to_be_bytes());
    header.extend(destination.0);
    header.extend(source.0);
    header.extend(frame.ethertype.to_be_bytes());
    let behind_udp = header.len();
    frame.payload.splice(..0, header);
    push_udp(frame, len + behind_udp, flow_hash, port);
}

/// Puts UDP without a checksum in front of `len` bytes.
pub(super) fn push_udp(frame: &mut Frame, len: usize, flow_hash: u64, port: u16) {
    let mut header = hash::source_port(flow_hash).to_be_bytes().to_vec();
    header.extend(port.to_be_bytes());
    header.extend(be16(len + UDP_OVERHEAD));
    header.extend([0, 0]);
    frame.payload.splice(..0, header);
}

/// A length field; an IP packet's length always fits.
fn be16(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}
