//! What the program says about a punted frame: `struct punt_meta` of `bpf/abi.h`, in front of the packet.
//!
//! Offsets and numbers are those of the object's own types, so a layout that changes there changes here or does not build.

use std::mem::offset_of;
use std::net::{IpAddr, Ipv6Addr};

use model::network::IfIndex;
use model::tables::PortId;
use model::verdict::PuntReason;

use crate::dataplane::types::{punt_flags, punt_meta, punt_reason};

/// Size of `struct punt_meta`.
pub(super) const META_LEN: usize = size_of::<punt_meta>();

const _: () = assert!(PuntReason::ALL.len() == punt_reason::NR_PUNT_REASONS.0 as usize);

/// The decoded metadata of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Punt {
    /// Why.
    pub reason: PuntReason,
    /// TTL or hop limit is still to be decremented.
    pub decrement_ttl: bool,
    /// Bytes before the IP header.
    pub l2_len: usize,
    /// `PACKET_TOO_BIG`: largest packet that fits, in bytes.
    pub mtu: u32,
    /// Where it came in.
    pub port: PortId,
    /// `NEIGHBOR`: interface that the next hop is on.
    pub egress: IfIndex,
    /// `NEIGHBOR`: what to resolve.
    pub address: IpAddr,
}

impl Punt {
    /// Reads the metadata; `None` for a reason that this version does not know.
    #[must_use]
    pub fn decode(bytes: &[u8; META_LEN]) -> Option<Self> {
        let [reason] = field(bytes, offset_of!(punt_meta, reason))?;
        let [flags] = field(bytes, offset_of!(punt_meta, flags))?;
        let word = |offset| field(bytes, offset).map(u32::from_ne_bytes);
        let address: [u8; 16] = field(bytes, offset_of!(punt_meta, address))?;
        Some(Self {
            reason: PuntReason::ALL.get(usize::from(reason)).copied()?,
            decrement_ttl: u32::from(flags) & punt_flags::PUNT_DECREMENT_TTL.0 != 0,
            l2_len: field(bytes, offset_of!(punt_meta, l2_len)).map(u16::from_ne_bytes)?.into(),
            mtu: word(offset_of!(punt_meta, mtu))?,
            port: PortId(word(offset_of!(punt_meta, port))?),
            egress: IfIndex(word(offset_of!(punt_meta, egress_ifindex))?),
            // RFC 4291 §2.5.5.2: IPv4 is ::ffff:a.b.c.d.
            address: Ipv6Addr::from(address).to_canonical(),
        })
    }
}

fn field<const N: usize>(bytes: &[u8; META_LEN], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_field_has_its_place() {
        let mut bytes = [0; META_LEN];
        bytes[0] = 5;
        bytes[1] = 1;
        bytes[2..4].copy_from_slice(&18u16.to_ne_bytes());
        bytes[4..8].copy_from_slice(&1480u32.to_ne_bytes());
        bytes[8..12].copy_from_slice(&7u32.to_ne_bytes());
        bytes[12..16].copy_from_slice(&9u32.to_ne_bytes());
        bytes[16..].copy_from_slice(&"::ffff:192.0.2.1".parse::<Ipv6Addr>().unwrap().octets());
        let punt = Punt {
            reason: PuntReason::PacketTooBig,
            decrement_ttl: true,
            l2_len: 18,
            mtu: 1480,
            port: PortId(7),
            egress: IfIndex(9),
            address: "192.0.2.1".parse().unwrap(),
        };
        assert_eq!(Punt::decode(&bytes), Some(punt));
        bytes[16..].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(Punt::decode(&bytes), Some(Punt { address: "2001:db8::1".parse().unwrap(), ..punt }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_punt_or_none(bytes: [u8; META_LEN]) {
            let punt = Punt::decode(&bytes);
            prop_assert_eq!(punt.is_some(), usize::from(bytes[0]) < PuntReason::ALL.len());
        }
    }
}
