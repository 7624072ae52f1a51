//! The Internet checksum (RFC 1071): whole, incremental (RFC 1624), and with the pseudo headers of IPv4 and IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A one's complement sum in the making.
///
/// ```
/// use margay_packet::checksum::Checksum;
/// assert_eq!(Checksum::default().bytes(&[0x00, 0x01, 0xf2, 0x03]).finish(), !0xf204);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Checksum(u64);

impl Checksum {
    /// The pseudo header of TCP and UDP over IPv4 (RFC 9293 §3.1, RFC 768); `len` is that of header and data.
    pub fn pseudo_v4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: u16) -> Self {
        Self::default().bytes(&src.octets()).bytes(&dst.octets()).word(protocol.into()).word(len)
    }

    /// The pseudo header of every upper layer over IPv6 (RFC 8200 §8.1).
    pub fn pseudo_v6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, len: u32) -> Self {
        Self::default().bytes(&src.octets()).bytes(&dst.octets()).bytes(&len.to_be_bytes()).word(protocol.into())
    }

    /// The pseudo header for a pair of addresses, `None` when they are not of one family.
    pub fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Option<Self> {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Some(Self::pseudo_v4(src, dst, protocol, u16::try_from(len).ok()?)),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Some(Self::pseudo_v6(src, dst, protocol, u32::try_from(len).ok()?)),
            _ => None,
        }
    }

    /// Adds bytes; an odd last byte counts as if a zero followed, so only the last call may have an odd length.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<2>();
        self.0 += words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum::<u64>();
        if let [last] = rest {
            self.0 += u64::from(*last) << 8;
        }
        self
    }

    /// Adds one word, in host order.
    pub fn word(mut self, word: u16) -> Self {
        self.0 += u64::from(word);
        self
    }

    /// The checksum to write: the complement of the folded sum, in host order. UDP writes 0xffff for 0.
    pub fn finish(self) -> u16 {
        !fold(self.0)
    }
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// The Internet checksum of `bytes`; 0 when they contain their own correct checksum.
pub fn internet(bytes: &[u8]) -> u16 {
    Checksum::default().bytes(bytes).finish()
}

/// The checksum after one 16-bit word changed from `old` to `new`: HC' = ~(~HC + ~m + m') (RFC 1624 §3, eqn. 3).
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

/// The checksum after a run of bytes at an even offset changed from `old` to `new`.
pub fn update_bytes(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    let removed = fold(Checksum::default().bytes(old).0);
    let added = fold(Checksum::default().bytes(new).0);
    update(checksum, removed, added)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn example_of_rfc_1071() {
        assert_eq!(internet(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn example_of_rfc_1624() {
        // §4: HC = 0xdd2f, m = 0x5555, m' = 0x3285; eqn. 2 would answer 0xffff.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn incremental_equals_whole(mut bytes in proptest::collection::vec(any::<u8>(), 2..80), at in any::<usize>(), new: [u8; 2]) {
            // One non-zero word keeps +0 and -0 apart, as every real header does.
            bytes.splice(0..2, [0x45, 0x01]);
            bytes.resize(bytes.len().max(4) & !1, 0);
            let at = 2 + at % (bytes.len() / 2 - 1) * 2;
            let before = internet(&bytes);
            let old = [bytes[at], bytes[at + 1]];
            bytes[at..at + 2].copy_from_slice(&new);
            prop_assert_eq!(update_bytes(before, &old, &new), internet(&bytes));
        }

        #[test]
        fn pseudo_header_agrees_with_etherparse(src: [u8; 16], dst: [u8; 16], payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let header = etherparse::UdpHeader { source_port: 5, destination_port: 6, length: 8 + payload.len() as u16, checksum: 0 };
            let theirs = header.calc_checksum_ipv6_raw(src, dst, &payload).unwrap();
            let ours = Checksum::pseudo_v6(src.into(), dst.into(), 17, 8 + payload.len() as u32)
                .word(5).word(6).word(header.length).bytes(&payload).finish();
            prop_assert_eq!(if ours == 0 { 0xffff } else { ours }, theirs);
        }
    }
}
