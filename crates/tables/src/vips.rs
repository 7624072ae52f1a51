//! VIPs by address, port and protocol: two halves of buckets, a key in one bucket of either (d-left hashing, Broder and
//! Mitzenmacher, INFOCOM 2001). In an entry a number stands for the address; which buckets may have it follows from the address itself. An
//! entry comes and goes by one store and never moves, so packets find every other one at any time.

use std::net::IpAddr;

use crate::hash;

/// Buckets of each half.
pub const BUCKETS: usize = 2_048;
/// Entries of a bucket.
pub const BUCKET_ENTRIES: usize = 4;

/// Bits of an entry below its key: the VIP.
const VIP_BITS: u32 = 24;

/// Entries of a bucket, 0 for none.
pub type Bucket = [u64; BUCKET_ENTRIES];

/// A VIP of this address.
pub type Wanted = (IpAddr, Entry);

/// Both buckets of a key are full: not to be expected below a half of all entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// An entry: address number, port, protocol and VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry(pub u64);

impl Entry {
    /// The entry of a VIP, numbers from 1, the VIP's below 2^24. The port is in host order.
    #[must_use]
    pub const fn new(address: u16, port: u16, protocol: u8, vip: u32) -> Self {
        let key = (address as u64) << 48 | (port.to_be() as u64) << 32 | (protocol as u64) << VIP_BITS;
        Self(key | (vip & ((1 << VIP_BITS) - 1)) as u64)
    }

    /// Number of the address.
    pub fn address(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// Port, host order.
    pub fn port(self) -> u16 {
        u16::from_be((self.0 >> 32) as u16)
    }

    /// IP protocol.
    pub fn protocol(self) -> u8 {
        (self.0 >> VIP_BITS) as u8
    }

    /// The VIP.
    pub fn vip(self) -> u32 {
        self.0 as u32 & ((1 << VIP_BITS) - 1)
    }

    fn is_of_key(self, other: Self) -> bool {
        (self.0 ^ other.0) >> VIP_BITS == 0
    }

    /// The buckets that may have it: one of each half, by their index in the table.
    fn buckets(self, address: IpAddr) -> [usize; 2] {
        let hash = hash::service_hash(address, self.port(), self.protocol());
        let first = hash >> (u64::BITS - BUCKETS.ilog2());
        let second = hash >> (u64::BITS - 2 * BUCKETS.ilog2());
        [first as usize, BUCKETS + second as usize % BUCKETS]
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

    /// The VIP of an entry's key, as the program finds it.
    pub fn find(&self, (address, key): Wanted) -> Option<u32> {
        let buckets = key.buckets(address).into_iter().filter_map(|index| self.buckets.get(index));
        let mut found = buckets.flatten().map(|word| Entry(*word)).filter(|entry| entry.is_of_key(key));
        found.next().map(Entry::vip)
    }

    /// The table that holds these entries and no others. What is in both tables stays in its place, and a new entry does not
    /// take the place of one that goes, as long as another is free.
    ///
    /// # Errors
    /// An entry finds no place.
    pub fn with(&self, wanted: impl IntoIterator<Item = Wanted>) -> Result<Self, Full> {
        let mut next = Self::default();
        let mut new = Vec::new();
        for wanted in wanted {
            match self.place_of(wanted) {
                Some((bucket, place)) => next.put(bucket, place, wanted.1),
                None => new.push(wanted),
            }
        }
        for wanted in new {
            let (bucket, place) = next.free_place(self, wanted).ok_or(Full)?;
            next.put(bucket, place, wanted.1);
        }
        Ok(next)
    }

    fn put(&mut self, bucket: usize, place: usize, entry: Entry) {
        if let Some(word) = self.buckets.get_mut(bucket).and_then(|bucket| bucket.get_mut(place)) {
            *word = entry.0;
        }
    }

    /// Where an entry of this key stands.
    fn place_of(&self, (address, key): Wanted) -> Option<(usize, usize)> {
        key.buckets(address).into_iter().find_map(|index| {
            let place = self.buckets.get(index)?.iter().position(|word| Entry(*word).is_of_key(key))?;
            Some((index, place))
        })
    }

    /// A free place in the emptier of the two buckets, the first of equals; in a place that `former` did not use, where there is one.
    fn free_place(&self, former: &Self, (address, entry): Wanted) -> Option<(usize, usize)> {
        let places =
            entry.buckets(address).into_iter().flat_map(|index| (0..BUCKET_ENTRIES).map(move |place| (index, place)));
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
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_is_what_it_was_made_of() {
        let entry = Entry::new(0xfffe, 443, 17, 4_095);
        assert_eq!((entry.address(), entry.port(), entry.protocol(), entry.vip()), (0xfffe, 443, 17, 4_095));
        // The port as it stands on the wire, so that a program compares what it has loaded.
        assert_eq!(Entry::new(1, 0x1234, 6, 2).0, 0x0001_3412_0600_0002);
    }

    /// An entry of an address of its own, by the number.
    fn wanted(family: u8, number: u16, port: u16, vip: u32) -> Wanted {
        let n = u32::from(number);
        let address: IpAddr = match family {
            4 => Ipv4Addr::from(0xc633_6400 + n).into(),
            _ => Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(n)).into(),
        };
        (address, Entry::new(number, port, 6, vip))
    }

    /// As many as there can be, in the patterns that configurations have, in half as many places again and more.
    #[test]
    fn all_vips_find_a_place() {
        for family in [4, 6] {
            let one_address = (1..=4_095u16).map(|n| wanted(family, 1, n, n.into()));
            let one_port = (1..=4_095u16).map(|n| wanted(family, n, 80, n.into()));
            let both = (1..=2_047u16).flat_map(|n| [80, 443].map(|port| wanted(family, n, port, u32::from(n) * 2)));
            for wanted in [one_address.collect::<Vec<_>>(), one_port.collect(), both.collect()] {
                let vips = Vips::default().with(wanted.iter().copied()).unwrap();
                assert!(wanted.iter().all(|wanted| vips.find(*wanted) == Some(wanted.1.vip())));
                let fullest = vips.buckets().map(|(_, b)| b.iter().filter(|word| **word != 0).count()).max();
                assert!(fullest < Some(BUCKET_ENTRIES), "{fullest:?}");
            }
        }
    }

    #[test]
    fn too_many_of_a_bucket_are_told() {
        let (address, first) = wanted(4, 1, 1, 1);
        let place = first.buckets(address);
        let crowd = (0..=u16::MAX).flat_map(|port| (0..=255).map(move |protocol| Entry::new(1, port, protocol, 1)));
        let crowd = crowd.filter(|entry| entry.buckets(address) == place).take(9);
        let crowd: Vec<Wanted> = crowd.map(|entry| (address, entry)).collect();
        assert_eq!(crowd.len(), 9);
        assert!(Vips::default().with(crowd.iter().take(8).copied()).is_ok());
        assert_eq!(Vips::default().with(crowd), Err(Full));
    }

    proptest! {
        /// Histories: the table has what is wanted, and nothing that stays has moved.
        #[test]
        fn what_stays_does_not_move(
            steps in prop::collection::vec(prop::collection::btree_map((1u16..40, 0u16..8), 1u32..1_000, 0..200), 1..8),
        ) {
            let mut vips = Vips::default();
            for services in steps {
                let entry = |((address, port), vip): (&(u16, u16), &u32)| wanted(4, *address, *port, *vip);
                let entries: Vec<Wanted> = services.iter().map(entry).collect();
                let next = vips.with(entries.iter().copied()).unwrap();
                let mut present: Vec<Entry> = next.entries().collect();
                present.sort_unstable();
                let mut sorted: Vec<Entry> = entries.iter().map(|(_, entry)| *entry).collect();
                sorted.sort_unstable();
                prop_assert_eq!(&present, &sorted);
                for wanted in &entries {
                    prop_assert_eq!(next.find(*wanted), Some(wanted.1.vip()));
                    if let Some(place) = vips.place_of(*wanted) {
                        prop_assert_eq!(next.place_of(*wanted), Some(place));
                    }
                }
                let buckets: BTreeMap<usize, Bucket> = next.buckets().map(|(index, bucket)| (index, *bucket)).collect();
                prop_assert_eq!(&Vips::adopt(buckets), &next);
                vips = next;
            }
        }
    }
}
