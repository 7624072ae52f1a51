//! Maglev hashing (Eisenbud et al., NSDI 2016, §3.4) with weights.
//!
//! Every backend walks its own permutation of the slots and takes the next free one when its turn comes; turns follow
//! virtual time, the n-th turn of a backend at n / weight, so shares follow weights from the first slot on. Permutation
//! and order of turns come from the backend's key alone: the ring is the same wherever and in whatever order the
//! backends are listed, and a backend that comes or goes leaves nearly every other slot where it was: one of a hundred
//! equal ones moves 0.6 % of the others' slots on average, 0.75 % at worst of 40 sets.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Slots of a ring: a prime, so that every step walks through all of them.
pub const RING_SLOTS: usize = 65_537;

/// A backend of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Stable identity, different for each member: an address, never an index.
    pub key: &'a [u8],
    /// Share of the slots relative to the others; 0 for none.
    pub weight: u16,
}

/// Where a member is in its permutation of the slots.
struct Walk {
    next: u32,
    step: u32,
    weight: u64,
    turn: u64,
    index: u32,
}

/// Fills a ring: for each slot the index of its member in `members`. Empty where no member has a weight.
///
/// Shares are exact to one slot as long as all weights fit the ring; with keys that repeat, each of the equal members
/// still gets its share, but which one a slot gets depends on their order.
#[must_use]
pub fn ring(members: &[Member<'_>]) -> Vec<u32> {
    let mut walks = walks(members);
    let mut slots = Slots::new();
    // The lowest time is on top; equal times in the order of `walks`, which the keys determine.
    let mut turns: BinaryHeap<Reverse<(u64, u32)>> =
        walks.iter().zip(0..).map(|(walk, rank)| Reverse((walk.time(), rank))).collect();
    while slots.left > 0 {
        let Some(mut top) = turns.peek_mut() else { return Vec::new() };
        let Some(walk) = walks.get_mut(top.0.1 as usize) else { return Vec::new() };
        slots.take(walk);
        top.0.0 = walk.time();
    }
    slots.owner
}

/// The members that take part, in the order of their keys.
fn walks(members: &[Member<'_>]) -> Vec<Walk> {
    let mut taking_part: Vec<(&Member<'_>, u32)> =
        members.iter().zip(0..).filter(|(member, _)| member.weight > 0).collect();
    taking_part.sort_by_key(|(member, _)| member.key);
    let walk = |(member, index): (&Member<'_>, u32)| {
        let offset = digest(member.key, 0) % RING_SLOTS as u64;
        let step = digest(member.key, 1) % (RING_SLOTS as u64 - 1) + 1;
        Walk { next: offset as u32, step: step as u32, weight: u64::from(member.weight), turn: 0, index }
    };
    taking_part.into_iter().map(walk).collect()
}

impl Walk {
    /// Virtual time of the next turn. A member has at most as many turns as there are slots, so nothing overflows.
    fn time(&self) -> u64 {
        ((self.turn + 1) << 32) / self.weight
    }

    /// The next slot of the permutation, free or not.
    fn advance(&mut self) -> u32 {
        let slot = self.next;
        let next = slot + self.step;
        self.next = if next >= RING_SLOTS as u32 { next - RING_SLOTS as u32 } else { next };
        slot
    }
}

/// The ring while it is filled. Most probes find a slot taken: the bit map stays in the first-level cache.
struct Slots {
    owner: Vec<u32>,
    taken: Vec<u64>,
    left: usize,
}

impl Slots {
    fn new() -> Self {
        Self { owner: vec![0; RING_SLOTS], taken: vec![0; RING_SLOTS.div_ceil(64)], left: RING_SLOTS }
    }

    /// Gives the member its next free slot. There must be one left.
    fn take(&mut self, walk: &mut Walk) {
        walk.turn += 1;
        loop {
            let slot = walk.advance();
            let Some(word) = self.taken.get_mut(slot as usize / 64) else { return };
            let bit = 1 << (slot % 64);
            if *word & bit == 0 {
                *word |= bit;
                self.left -= 1;
                if let Some(owner) = self.owner.get_mut(slot as usize) {
                    *owner = walk.index;
                }
                return;
            }
        }
    }
}

/// FNV-1a over seed and key, finished by the mixer of splitmix64 because FNV's low bits are weak. Part of what gateways
/// behind one anycast address must agree on: never change it.
fn digest(key: &[u8], seed: u8) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let mut z = std::iter::once(&seed).chain(key).fold(0xcbf2_9ce4_8422_2325, fnv);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Key = [u8; 4];

    fn keys(count: u32, salt: u32) -> Vec<Key> {
        (0..count).map(|n| (salt.wrapping_mul(0x9E37_79B9) + n).to_be_bytes()).collect()
    }

    fn equal(keys: &[Key]) -> Vec<Member<'_>> {
        keys.iter().map(|key| Member { key, weight: 1 }).collect()
    }

    fn shares(ring: &[u32], members: usize) -> Vec<usize> {
        let mut shares = vec![0; members];
        for owner in ring {
            shares[*owner as usize] += 1;
        }
        shares
    }

    /// The ring as keys, so that rings of different member lists compare.
    fn by_key(members: &[Member<'_>]) -> Vec<Vec<u8>> {
        ring(members).iter().map(|index| members[*index as usize].key.to_vec()).collect()
    }

    fn removal_moves(members: &[Member<'_>], removed: usize) -> usize {
        let rest: Vec<_> = members.iter().enumerate().filter(|(i, _)| *i != removed).map(|(_, m)| *m).collect();
        let gone = members[removed].key;
        let (before, after) = (by_key(members), by_key(&rest));
        assert!(after.iter().all(|key| key != gone));
        before.iter().zip(&after).filter(|(b, a)| *b != gone && b != a).count()
    }

    #[test]
    fn nobody_makes_an_empty_ring() {
        assert_eq!(ring(&[]), Vec::<u32>::new());
        assert_eq!(ring(&[Member { key: b"a", weight: 0 }]), Vec::<u32>::new());
    }

    #[test]
    fn one_member_has_every_slot() {
        let members = [Member { key: b"drained", weight: 0 }, Member { key: b"a", weight: 1000 }];
        assert_eq!(ring(&members), vec![1; RING_SLOTS]);
    }

    /// Slots of a fixed ring: gateways of different builds serve one anycast address, so the ring never changes.
    #[test]
    fn known_ring() {
        let ring = ring(&[Member { key: b"a", weight: 1 }, Member { key: b"b", weight: 2 }]);
        let digest = ring.iter().fold(0u64, |h, o| (h ^ u64::from(*o)).wrapping_mul(0x0100_0000_01b3));
        assert_eq!(digest, KNOWN_RING);
    }
    const KNOWN_RING: u64 = 12_799_849_481_092_579_989;

    #[test]
    fn one_of_a_hundred_leaves_the_others_alone() {
        let (mut worst, mut sum, runs) = (0, 0, 40);
        for run in 0..runs {
            let keys = keys(100, run);
            let moves = removal_moves(&equal(&keys), run as usize * 7 % 100);
            worst = worst.max(moves);
            sum += moves;
        }
        let mean = sum / runs as usize;
        assert!(mean * 1000 <= RING_SLOTS * 7 && worst * 100 <= RING_SLOTS, "mean {mean}, worst {worst}");
    }

    #[test]
    fn four_thousand_members_share_within_a_slot() {
        let keys = keys(4_000, 1);
        let shares = shares(&ring(&equal(&keys)), keys.len());
        assert!(shares.iter().all(|share| (16..=17).contains(share)));
    }

    #[test]
    #[ignore = "a figure, meaningful in a release build"]
    fn build_time() {
        for count in [1, 2, 8, 100, 4_000] {
            let keys = keys(count, 1);
            let members = equal(&keys);
            let start = std::time::Instant::now();
            let runs = 20;
            for _ in 0..runs {
                std::hint::black_box(ring(std::hint::black_box(&members)));
            }
            println!("{count} members: {:?}", start.elapsed() / runs);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn shares_follow_weights(weights in proptest::collection::vec(1u16..=1000, 1..40), salt: u32) {
            let keys = keys(weights.len() as u32, salt);
            let members: Vec<_> = keys.iter().zip(&weights).map(|(key, w)| Member { key, weight: *w }).collect();
            let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            for (share, weight) in shares(&ring(&members), weights.len()).iter().zip(&weights) {
                let exact = RING_SLOTS as f64 * f64::from(*weight) / total;
                prop_assert!((*share as f64 - exact).abs() <= (exact * 0.01).max(1.0), "{share} for {exact}");
            }
        }

        #[test]
        fn order_is_of_no_consequence(weights in proptest::collection::vec(1u16..=1000, 1..20), salt: u32, turn in 0usize..20) {
            let keys = keys(weights.len() as u32, salt);
            let members: Vec<_> = keys.iter().zip(&weights).map(|(key, w)| Member { key, weight: *w }).collect();
            let mut turned = members.clone();
            turned.rotate_left(turn % members.len());
            prop_assert_eq!(by_key(&members), by_key(&turned));
        }

        #[test]
        fn weighted_removal_disturbs_little(weights in proptest::collection::vec(1u16..=100, 2..40), salt: u32, at: prop::sample::Index) {
            let keys = keys(weights.len() as u32, salt);
            let members: Vec<_> = keys.iter().zip(&weights).map(|(key, w)| Member { key, weight: *w }).collect();
            let moves = removal_moves(&members, at.index(members.len()));
            prop_assert!(moves * 100 <= RING_SLOTS * 3, "{moves} slots of others moved");
        }
    }
}
