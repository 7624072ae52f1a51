//! VIPs by address, port and protocol: two halves of buckets, a key in one bucket of either (d-left hashing, Broder and
//! Mitzenmacher, INFOCOM 2001). An entry has 40 bits of the key's hash; whether the VIP is meant, its own row says. An
//! entry comes and goes by one store and never moves, so packets find every other one at any time.

use std::net::{IpAddr, Ipv4Addr};

use crate::hash;

/// Buckets of each half.
pub const BUCKETS: usize = 2_048;
/// Entries of a bucket.
pub const BUCKET_ENTRIES: usize = 4;

/// Bits of an entry below those of the hash: the VIP.
const VIP_BITS: u32 = 24;

/// Entries of a bucket, 0 for none.
pub type Bucket = [u64; BUCKET_ENTRIES];

/// What stands for the address in the key of a prefix's VIP: its number, as 0.0.x.y, to where no packet goes. Asked for where a packet's
/// own address has led to nothing.
#[must_use]
pub const fn prefix(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(0, 0, high, low))
}

/// What a VIP answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Destination address.
    pub address: IpAddr,
    /// Destination port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// Both buckets of a key are full, which is not to be expected below a half of all entries, or have an entry with the same bits of its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// An entry: bits of a key's hash, and the VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry(pub u64);

/// Where a key may stand, and what tells it from others there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// One bucket of each half, by their index in the table.
    buckets: [usize; 2],
    /// The high bits of its entry.
    print: u64,
}

impl Key {
    /// The bits behind the first bucket's, so that keys which have these in common have both buckets in common.
    fn place(self) -> Place {
        let hash = hash::service_hash(self.address, self.port, self.protocol);
        let first = hash >> (u64::BITS - BUCKETS.ilog2());
        let second = hash >> (u64::BITS - 2 * BUCKETS.ilog2());
        let buckets = [first as usize, BUCKETS + second as usize % BUCKETS];
        Place { buckets, print: hash << BUCKETS.ilog2() >> VIP_BITS }
    }
}

impl Entry {
    /// The entry of a VIP, an index from 1 and below 2^24.
    fn new(print: u64, vip: u32) -> Self {
        Self(print << VIP_BITS | u64::from(vip & ((1 << VIP_BITS) - 1)))
    }

    /// The VIP.
    pub fn vip(self) -> u32 {
        self.0 as u32 & ((1 << VIP_BITS) - 1)
    }

    fn is_of(self, print: u64) -> bool {
        self.0 != 0 && self.0 >> VIP_BITS == print
    }
}

/// The contents of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vips {
    buckets: Vec<Bucket>,
}

impl Default for Vips {
    fn default() -> Self {
        Self { buckets: vec![[0; BUCKET_ENTRIES]; 2 * BUCKETS] }
    }
}

impl Vips {
    /// The table as it is, by the index of its buckets.
    pub fn adopt(buckets: impl IntoIterator<Item = (usize, Bucket)>) -> Self {
        let mut vips = Self::default();
        for (index, bucket) in buckets {
            if let Some(place) = vips.buckets.get_mut(index) {
                *place = bucket;
            }
        }
        vips
    }

    /// Buckets that hold anything, by their index.
    pub fn buckets(&self) -> impl Iterator<Item = (usize, &Bucket)> {
        self.buckets.iter().enumerate().filter(|(_, bucket)| **bucket != [0; BUCKET_ENTRIES])
    }

    /// Every entry.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.buckets.iter().flatten().filter(|word| **word != 0).map(|word| Entry(*word))
    }

    /// The VIP that packets for this key may be for: the program asks its row.
    pub fn find(&self, key: Key) -> Option<u32> {
        let (bucket, place) = self.place_of(key.place())?;
        self.buckets.get(bucket)?.get(place).map(|word| Entry(*word).vip())
    }

    /// The table of these keys with their VIPs and of no others. What is in both tables stays in its place, and a new entry does not
    /// take the place of one that goes, as long as another is free.
    ///
    /// # Errors
    /// A key finds no place.
    pub fn with(&self, wanted: impl IntoIterator<Item = (Key, u32)>) -> Result<Self, Full> {
        let mut next = Self::default();
        let mut new = Vec::new();
        for (key, vip) in wanted {
            let key = key.place();
            match self.place_of(key) {
                Some(at) if next.place_of(key).is_none() => next.put(at, Entry::new(key.print, vip)),
                _ => new.push((key, vip)),
            }
        }
        for (key, vip) in new {
            let at = next.free_place(self, key).ok_or(Full)?;
            next.put(at, Entry::new(key.print, vip));
        }
        Ok(next)
    }

    fn put(&mut self, (bucket, place): (usize, usize), entry: Entry) {
        if let Some(word) = self.buckets.get_mut(bucket).and_then(|bucket| bucket.get_mut(place)) {
            *word = entry.0;
        }
    }

    /// Where an entry of this key stands.
    fn place_of(&self, key: Place) -> Option<(usize, usize)> {
        key.buckets.into_iter().find_map(|index| {
            let place = self.buckets.get(index)?.iter().position(|word| Entry(*word).is_of(key.print))?;
            Some((index, place))
        })
    }

    /// A free place in the emptier of the two buckets, the first of equals; in a place that `former` did not use, where there is one. None
    /// where another key has the same bits.
    fn free_place(&self, former: &Self, key: Place) -> Option<(usize, usize)> {
        if self.place_of(key).is_some() {
            return None;
        }
        let places = key.buckets.into_iter().flat_map(|index| (0..BUCKET_ENTRIES).map(move |place| (index, place)));
        let word = |vips: &Self, (bucket, place): (usize, usize)| {
            vips.buckets.get(bucket).and_then(|bucket| bucket.get(place)).copied().unwrap_or(0)
        };
        let used = |index: usize| self.buckets.get(index).map_or(0, |b| b.iter().filter(|word| **word != 0).count());
        let free = places.filter(|at| word(self, *at) == 0);
        free.min_by_key(|at| (word(former, *at) != 0, used(at.0)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    const LAST: u32 = 4_095;

    #[test]
    fn an_entry_has_a_hash_and_a_vip() {
        let key = key(4, 1, 80);
        let hash = hash::service_hash(key.address, key.port, key.protocol);
        let Place { buckets, print } = key.place();
        assert_eq!(Entry::new(print, LAST).vip(), LAST);
        // As the program takes them from the hash.
        assert_eq!(Entry::new(print, 0).0, hash << 11 >> 24 << 24);
        assert_eq!(buckets, [(hash >> 53) as usize, 2_048 + (hash >> 42 & 2_047) as usize]);
    }

    fn key(family: u8, number: u16, port: u16) -> Key {
        let n = u32::from(number);
        let address: IpAddr = match family {
            0 => prefix(number),
            4 => Ipv4Addr::from(0xc633_6400 + n).into(),
            _ => Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(n)).into(),
        };
        Key { address, port, protocol: 6 }
    }

    /// As many as there can be, in the patterns that configurations have, in half as many places again and more.
    #[test]
    fn all_vips_find_a_place() {
        for family in [0, 4, 6] {
            let one_address = (1..=4_095u16).map(|n| key(family, 1, n));
            let one_port = (1..=4_095u16).map(|n| key(family, n, 80));
            let both = (1..=2_047u16).flat_map(|n| [80, 443].map(|port| key(family, n, port)));
            for keys in [one_address.collect::<Vec<_>>(), one_port.collect(), both.collect()] {
                let wanted: Vec<(Key, u32)> = keys.into_iter().zip(1..).collect();
                let vips = Vips::default().with(wanted.iter().copied()).unwrap();
                assert!(wanted.iter().all(|(key, vip)| vips.find(*key) == Some(*vip)));
                let fullest = vips.buckets().map(|(_, b)| b.iter().filter(|word| **word != 0).count()).max();
                assert!(fullest < Some(BUCKET_ENTRIES), "{fullest:?}");
            }
        }
    }

    #[test]
    fn too_many_of_a_bucket_are_told() {
        let buckets = key(4, 1, 1).place().buckets;
        let crowd = (0..=u16::MAX).flat_map(|port| (0..=255).map(move |protocol| Key { protocol, ..key(4, 1, port) }));
        let crowd: Vec<Key> = crowd.filter(|key| key.place().buckets == buckets).take(9).collect();
        assert_eq!(crowd.len(), 9);
        assert!(Vips::default().with(crowd.iter().copied().zip(1..).take(8)).is_ok());
        assert_eq!(Vips::default().with(crowd.into_iter().zip(1..)), Err(Full));
    }

    /// Nobody has found two addresses with 51 bits of their hashes in common; the same key for two VIPs is as bad.
    #[test]
    fn two_with_the_same_bits_are_refused() {
        let twice = [(key(4, 1, 80), 1), (key(4, 1, 80), 2)];
        let vips = Vips::default().with(twice.into_iter().take(1)).unwrap();
        assert_eq!(Vips::default().with(twice), Err(Full));
        assert_eq!(vips.with(twice), Err(Full));
    }

    proptest! {
        /// Histories: the table has what is wanted, and nothing that stays has moved.
        #[test]
        fn what_stays_does_not_move(
            steps in prop::collection::vec(prop::collection::btree_map((1u16..40, 0u16..8), 1u32..1_000, 0..200), 1..8),
        ) {
            let mut vips = Vips::default();
            for services in steps {
                let wanted: Vec<(Key, u32)> =
                    services.iter().map(|((number, port), vip)| (key(4, *number, *port), *vip)).collect();
                let next = vips.with(wanted.iter().copied()).unwrap();
                prop_assert_eq!(next.entries().count(), wanted.len());
                for (key, vip) in &wanted {
                    prop_assert_eq!(next.find(*key), Some(*vip));
                    if let Some(place) = vips.place_of(key.place()) {
                        prop_assert_eq!(next.place_of(key.place()), Some(place));
                    }
                }
                let buckets: BTreeMap<usize, Bucket> = next.buckets().map(|(index, bucket)| (index, *bucket)).collect();
                prop_assert_eq!(&Vips::adopt(buckets), &next);
                vips = next;
            }
        }
    }
}
