//! Tables that packets search while they change: two halves of buckets, a key in one bucket of either (d-left hashing, Broder and
//! Mitzenmacher, INFOCOM 2001). An entry is bits of the key's hash and a value, in one word: it comes and goes by one store and never
//! moves, so packets find every other one at any time.

/// Entries of a bucket.
pub const BUCKET_ENTRIES: usize = 4;

/// Entries of a bucket, 0 for none.
pub type Bucket = [u64; BUCKET_ENTRIES];

/// Both buckets of a key are full, which is not to be expected below a half of all entries, or have an entry with the same bits of its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The contents of a table: two halves of `BUCKETS` buckets, a power of two. Values are not 0, and have `VALUE_BITS` bits; the others of
/// an entry are the hash's behind those that choose the bucket of the first half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table<const BUCKETS: usize, const VALUE_BITS: u32> {
    buckets: Vec<Bucket>,
}

/// Where an entry stands: its bucket, and its place in it.
type At = (usize, usize);

impl<const BUCKETS: usize, const VALUE_BITS: u32> Default for Table<BUCKETS, VALUE_BITS> {
    fn default() -> Self {
        Self { buckets: vec![[0; BUCKET_ENTRIES]; 2 * BUCKETS] }
    }
}

impl<const BUCKETS: usize, const VALUE_BITS: u32> Table<BUCKETS, VALUE_BITS> {
    /// Buckets of each half.
    pub const BUCKETS: usize = BUCKETS;
    /// Bits of an entry below those of the hash.
    pub const VALUE_BITS: u32 = VALUE_BITS;
    /// Entries there is room for.
    pub const ENTRIES: usize = 2 * BUCKETS * BUCKET_ENTRIES;

    const VALUE: u64 = (1 << VALUE_BITS) - 1;

    /// The table as it is, by the index of its buckets.
    pub fn adopt(buckets: impl IntoIterator<Item = (usize, Bucket)>) -> Self {
        let mut table = Self::default();
        for (index, bucket) in buckets {
            if let Some(place) = table.buckets.get_mut(index) {
                *place = bucket;
            }
        }
        table
    }

    /// Buckets that hold anything, by their index.
    pub fn buckets(&self) -> impl Iterator<Item = (usize, &Bucket)> {
        self.buckets.iter().enumerate().filter(|(_, bucket)| **bucket != [0; BUCKET_ENTRIES])
    }

    /// What packets whose key has this hash find.
    #[must_use]
    pub fn find(&self, hash: u64) -> Option<u64> {
        self.place_of(hash).map(|at| self.word(at) & Self::VALUE)
    }

    /// The table of these hashes with their values and of no others. What is in both tables stays in its place, and a new entry does not
    /// take the place of one that goes, as long as another is free.
    ///
    /// # Errors
    /// A key finds no place.
    pub fn with(&self, wanted: impl IntoIterator<Item = (u64, u64)>) -> Result<Self, Full> {
        let mut next = Self::default();
        let mut new = Vec::new();
        for (hash, value) in wanted {
            match self.place_of(hash) {
                Some(at) if next.place_of(hash).is_none() => next.put(at, hash, value),
                _ => new.push((hash, value)),
            }
        }
        for (hash, value) in new {
            let at = next.free_place(self, hash).ok_or(Full)?;
            next.put(at, hash, value);
        }
        Ok(next)
    }

    /// The buckets that may have it: one of each half, by their index in the table.
    fn buckets_of(hash: u64) -> [usize; 2] {
        let first = hash >> (u64::BITS - BUCKETS.ilog2());
        let second = hash >> (u64::BITS - 2 * BUCKETS.ilog2());
        [first as usize, BUCKETS + second as usize % BUCKETS]
    }

    /// An entry without its value. Keys that have these bits in common, and the first bucket, have the second in common, too.
    fn print(hash: u64) -> u64 {
        hash << BUCKETS.ilog2() & !Self::VALUE
    }

    fn word(&self, (bucket, place): At) -> u64 {
        self.buckets.get(bucket).and_then(|bucket| bucket.get(place)).copied().unwrap_or(0)
    }

    fn put(&mut self, (bucket, place): At, hash: u64, value: u64) {
        if let Some(word) = self.buckets.get_mut(bucket).and_then(|bucket| bucket.get_mut(place)) {
            *word = Self::print(hash) | value & Self::VALUE;
        }
    }

    /// Where an entry with these bits stands.
    fn place_of(&self, hash: u64) -> Option<At> {
        let is_of = |word: &u64| *word != 0 && *word & !Self::VALUE == Self::print(hash);
        Self::buckets_of(hash).into_iter().find_map(|index| {
            let place = self.buckets.get(index)?.iter().position(is_of)?;
            Some((index, place))
        })
    }

    /// A free place in the emptier of the two buckets, the first of equals; in a place that `former` did not use, where there is one. None
    /// where another key has the same bits.
    fn free_place(&self, former: &Self, hash: u64) -> Option<At> {
        if self.place_of(hash).is_some() {
            return None;
        }
        let places = Self::buckets_of(hash).into_iter().flat_map(|index| (0..BUCKET_ENTRIES).map(move |n| (index, n)));
        let used = |index: usize| self.buckets.get(index).map_or(0, |b| b.iter().filter(|word| **word != 0).count());
        let free = places.filter(|at| self.word(*at) == 0);
        free.min_by_key(|at| (former.word(*at) != 0, used(at.0)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Small = Table<64, 16>;

    /// A hash with these buckets of the first and second half, and no bits in common with others of another `n`.
    fn hash(first: u64, second: u64, n: u64) -> u64 {
        first << 58 | second << 52 | n << 20
    }

    #[test]
    fn an_entry_has_a_hash_and_a_value() {
        let hash = 0x1234_5678_9abc_def0;
        let table = Small::default().with([(hash, 7)]).unwrap();
        let (bucket, entries) = table.buckets().next().unwrap();
        assert_eq!(bucket, (hash >> 58) as usize);
        assert_eq!(entries, &[hash << 6 >> 16 << 16 | 7, 0, 0, 0]);
        assert_eq!(table.find(hash), Some(7));
        assert_eq!(table.find(hash ^ 1 << 20), None);
    }

    #[test]
    fn too_many_of_a_bucket_are_told() {
        let crowd = (0..9).map(|n| (hash(3, 5, n), 1));
        assert!(Small::default().with(crowd.clone().take(8)).is_ok());
        assert_eq!(Small::default().with(crowd), Err(Full));
    }

    #[test]
    fn two_with_the_same_bits_are_refused() {
        let twice = [(hash(3, 5, 1), 1), (hash(3, 5, 1), 2)];
        let table = Small::default().with(twice.into_iter().take(1)).unwrap();
        assert_eq!(Small::default().with(twice), Err(Full));
        assert_eq!(table.with(twice), Err(Full));
    }

    proptest! {
        /// Histories: the table has what is wanted, and nothing that stays has moved.
        #[test]
        fn what_stays_does_not_move(
            steps in prop::collection::vec(prop::collection::btree_map(0u64..400, 1u64..1_000, 0..120), 1..8),
        ) {
            let mut table = Small::default();
            let hash = |key: &u64| (key + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            for step in steps {
                let next = table.with(step.iter().map(|(key, value)| (hash(key), *value))).unwrap();
                prop_assert_eq!(next.buckets().flat_map(|(_, b)| b).filter(|word| **word != 0).count(), step.len());
                for (key, value) in &step {
                    prop_assert_eq!(next.find(hash(key)), Some(*value));
                    if let Some(place) = table.place_of(hash(key)) {
                        prop_assert_eq!(next.place_of(hash(key)), Some(place));
                    }
                }
                let buckets: BTreeMap<usize, Bucket> = next.buckets().map(|(index, bucket)| (index, *bucket)).collect();
                prop_assert_eq!(&Small::adopt(buckets), &next);
                table = next;
            }
        }
    }
}
