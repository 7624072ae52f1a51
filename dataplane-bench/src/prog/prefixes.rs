//! Routing tables to measure look-ups in: prefixes drawn by length as in a full table of the Internet, and an answer to
//! compare with.

use std::collections::HashMap;

use fastrand::Rng;

/// Prefixes of each length, in a thousand. Lengths roughly as in the public tables of 2025; one in a hundred is longer
/// than 24 bits, as a network's own routes are, so that the second level of a DIR-24-8 is met.
const LENGTHS4: [(u8, u32); 18] = [
    (8, 1),
    (12, 1),
    (13, 1),
    (14, 1),
    (15, 2),
    (16, 13),
    (17, 8),
    (18, 14),
    (19, 25),
    (20, 44),
    (21, 52),
    (22, 110),
    (23, 100),
    (24, 618),
    (26, 2),
    (28, 3),
    (30, 3),
    (32, 2),
];
const LENGTHS6: [(u8, u32); 14] = [
    (28, 2),
    (29, 30),
    (30, 3),
    (32, 120),
    (33, 25),
    (34, 20),
    (36, 60),
    (40, 90),
    (42, 20),
    (44, 120),
    (45, 15),
    (46, 35),
    (47, 30),
    (48, 430),
];
/// Next hops that the prefixes lead to.
const NEXT_HOPS: u32 = 255;

/// A routing table. Addresses are numbers, IPv4 in the low 32 bits.
#[derive(Clone, Debug)]
pub(crate) struct Prefixes {
    bits: u8,
    /// In the order in which they were drawn: length, address.
    order: Vec<(u8, u128)>,
    next_hops: HashMap<(u8, u128), u32>,
}

impl Prefixes {
    /// `count` prefixes of IPv4 (1.0.0.0 to 223.255.255.255 but the loopback and link-local networks), the same ones for the same seed.
    pub(crate) fn ip4(count: usize, seed: u64) -> Self {
        Self::draw(32, count, &LENGTHS4, seed, |rng| {
            let address = rng.u32(0x0100_0000..0xe000_0000);
            // Neither loopback nor link-local: no router takes such routes.
            let special = address >> 24 == 127 || address >> 16 == 0xa9fe;
            u128::from(if special { address ^ (1 << 29) } else { address })
        })
    }

    /// `count` prefixes of IPv6 (2000::/3).
    pub(crate) fn ip6(count: usize, seed: u64) -> Self {
        Self::draw(128, count, &LENGTHS6, seed, |rng| 1 << 125 | rng.u128(..) >> 3)
    }

    fn draw(bits: u8, count: usize, lengths: &[(u8, u32)], seed: u64, address: impl Fn(&mut Rng) -> u128) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut table = Self { bits, order: Vec::with_capacity(count), next_hops: HashMap::with_capacity(count) };
        let total: u32 = lengths.iter().map(|(_, share)| share).sum();
        while table.order.len() < count {
            let mut left = rng.u32(..total);
            let drawn = lengths.iter().find(|(_, share)| {
                let found = left < *share;
                left = left.saturating_sub(*share);
                found
            });
            let Some((length, _)) = drawn else { continue };
            let prefix = (*length, table.network(address(&mut rng), *length));
            let next_hop = rng.u32(1..=NEXT_HOPS);
            // The short lengths run out of prefixes: what was drawn twice is drawn again.
            if let std::collections::hash_map::Entry::Vacant(entry) = table.next_hops.entry(prefix) {
                entry.insert(next_hop);
                table.order.push(prefix);
            }
        }
        table
    }

    fn network(&self, address: u128, length: u8) -> u128 {
        let host = u32::from(self.bits - length);
        address.checked_shr(host).and_then(|network| network.checked_shl(host)).unwrap_or(0)
    }

    /// Every prefix: length, address, next hop.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u8, u128, u32)> + '_ {
        let next_hop = |prefix| self.next_hops.get(prefix).copied().unwrap_or(0);
        self.order.iter().map(move |prefix| (prefix.0, prefix.1, next_hop(prefix)))
    }

    /// The next hop of the longest prefix that covers `address`: tried from the longest to the shortest, one after the
    /// other, so that there is nothing in it to get wrong.
    pub(crate) fn lookup(&self, address: u128) -> Option<u32> {
        (0..=self.bits).rev().find_map(|length| self.next_hops.get(&(length, self.network(address, length))).copied())
    }

    /// `count` addresses, each in a prefix drawn at random, with random host bits.
    pub(crate) fn addresses(&self, count: usize, seed: u64) -> Vec<u128> {
        let mut rng = Rng::with_seed(seed);
        let address = |rng: &mut Rng| {
            let (length, network) = rng.choice(&self.order).copied().unwrap_or_default();
            let host = u32::from(self.bits - length);
            network | (rng.u128(..) & 1u128.checked_shl(host).map_or(u128::MAX, |size| size - 1))
        };
        (0..count).map(|_| address(&mut rng)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_the_same_for_the_same_seed_and_mostly_slash_24() {
        let table = Prefixes::ip4(10_000, 1);
        assert!(table.iter().eq(Prefixes::ip4(10_000, 1).iter()));
        assert!(!table.iter().eq(Prefixes::ip4(10_000, 2).iter()));
        assert_eq!(table.iter().count(), 10_000);
        let slash24 = table.iter().filter(|(length, ..)| *length == 24).count();
        assert!((5_500..6_800).contains(&slash24), "{slash24}");
        assert!(table.iter().any(|(length, ..)| length > 24));
    }

    #[test]
    fn drawn_addresses_are_covered() {
        for table in [Prefixes::ip4(1000, 3), Prefixes::ip6(1000, 3)] {
            assert!(table.addresses(1000, 4).into_iter().all(|address| table.lookup(address).is_some()));
        }
    }

    #[test]
    fn the_longest_prefix_wins() {
        let mut table = Prefixes::ip4(0, 0);
        for (length, address, next_hop) in [(8, 0x0a00_0000, 1), (24, 0x0a01_0200, 2), (32, 0x0a01_0203, 3)] {
            table.order.push((length, address));
            table.next_hops.insert((length, address), next_hop);
        }
        let answers = [0x0a00_0001, 0x0a01_0201, 0x0a01_0203, 0x0b00_0000].map(|address| table.lookup(address));
        assert_eq!(answers, [Some(1), Some(2), Some(3), None]);
    }
}
