//! Resilient buckets of a next-hop group: weights become shares of 64 buckets, and a change moves as few as it can.
//!
//! - From nothing, a member holds its exact share rounded up or down.
//! - A member that leaves moves its own buckets and no other.
//! - A member that joins takes at most its share, rounded up, from those that have most too many; under one bucket, it
//!   may get none.
//! - The same members again change nothing but what weights that changed make necessary.

use std::collections::BTreeMap;

/// Buckets of a next-hop group.
pub const GROUP_BUCKETS: usize = 64;

/// A member's place in the distribution. Numbers are in units of 1 / (sum of weights) of a bucket, so they are exact.
struct Member<T> {
    value: T,
    /// What it should hold less what it holds; negative for one that holds too much.
    lack: i128,
    /// Holds nothing though a whole bucket is due.
    joining: bool,
}

/// Spreads [`GROUP_BUCKETS`] buckets over `members`, each with a weight, keeping what it can of `previous` (of the same
/// length, or empty). Members of weight 0 and repeated members are left out; a member whose share is under half a bucket
/// may get none. The result is empty where no member is left. The order of `members` is of no consequence.
#[must_use]
pub fn spread<T: Copy + Ord>(previous: &[T], members: &[(T, u32)]) -> Vec<T> {
    let weights: BTreeMap<T, u32> = members.iter().copied().filter(|(_, weight)| *weight > 0).collect();
    let total: i128 = weights.values().map(|weight| i128::from(*weight)).sum();
    let Some((first, _)) = weights.first_key_value() else { return Vec::new() };

    let mut buckets: Vec<Option<T>> =
        (0..GROUP_BUCKETS).map(|i| previous.get(i).copied().filter(|value| weights.contains_key(value))).collect();
    let mut held: BTreeMap<T, i128> = BTreeMap::new();
    for value in buckets.iter().flatten() {
        *held.entry(*value).or_default() += 1;
    }
    let somebody_left = previous.iter().any(|value| !weights.contains_key(value));
    let mut members: Vec<Member<T>> = weights
        .iter()
        .map(|(value, weight)| {
            let holds = held.get(value).copied().unwrap_or(0);
            let lack = GROUP_BUCKETS as i128 * i128::from(*weight) - holds * total;
            Member { value: *value, lack, joining: false }
        })
        .collect();

    for bucket in buckets.iter_mut().filter(|bucket| bucket.is_none()) {
        let Some(taker) = most_lacking(&mut members, false) else { break };
        *bucket = Some(taker.value);
        taker.lack -= total;
        *held.entry(taker.value).or_default() += 1;
    }
    for member in &mut members {
        member.joining = !held.contains_key(&member.value) && member.lack >= total;
    }
    let joiners = members.iter().any(|member| member.joining);
    if joiners || !somebody_left {
        while let Some((giver, taker)) = next_move(&mut members, joiners, total) {
            let Some(bucket) = buckets.iter_mut().rev().find(|bucket| **bucket == Some(giver)) else { break };
            *bucket = Some(taker);
        }
    }
    buckets.into_iter().map(|bucket| bucket.unwrap_or(*first)).collect()
}

/// The member that lacks most, the first of equals.
fn most_lacking<T>(members: &mut [Member<T>], only_joining: bool) -> Option<&mut Member<T>> {
    let eligible = members.iter_mut().filter(|member| member.joining || !only_joining);
    eligible.reduce(|best, member| if member.lack > best.lack { member } else { best })
}

/// Moves one bucket's worth from the member with most too many to the one with most too few; returns giver and taker.
/// Who joins takes as long as that brings the two nearer to their shares; members that were there before are left alone
/// until one of them is off by a whole bucket.
fn next_move<T: Copy>(members: &mut [Member<T>], only_joining: bool, total: i128) -> Option<(T, T)> {
    let taker_lack = most_lacking(members, only_joining)?.lack;
    let giver = members.iter_mut().reduce(|most, member| if member.lack < most.lack { member } else { most })?;
    let near = taker_lack <= 0 || taker_lack - giver.lack <= total;
    let rounding = taker_lack < total && giver.lack > -total;
    if near || (rounding && !only_joining) {
        return None;
    }
    giver.lack += total;
    let from = giver.value;
    let taker = most_lacking(members, only_joining)?;
    taker.lack -= total;
    Some((from, taker.value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(buckets: &[u32], value: u32) -> usize {
        buckets.iter().filter(|b| **b == value).count()
    }

    fn moved(before: &[u32], after: &[u32]) -> Vec<(u32, u32)> {
        before.iter().zip(after).filter(|(a, b)| a != b).map(|(a, b)| (*a, *b)).collect()
    }

    #[test]
    fn equal_members_get_equal_shares() {
        let buckets = spread(&[], &[(1, 1), (2, 1), (3, 1), (4, 1)]);
        assert_eq!(buckets.len(), GROUP_BUCKETS);
        for member in 1..=4 {
            assert_eq!(count(&buckets, member), 16);
        }
    }

    #[test]
    fn weights_are_shares() {
        let buckets = spread(&[], &[(1, 1), (2, 3)]);
        assert_eq!((count(&buckets, 1), count(&buckets, 2)), (16, 48));
    }

    #[test]
    fn nobody_gets_nothing() {
        assert_eq!(spread::<u32>(&[], &[]), Vec::<u32>::new());
        assert_eq!(spread(&[7; GROUP_BUCKETS], &[(7, 0)]), Vec::<u32>::new());
    }

    #[test]
    fn a_new_weight_is_honoured() {
        let before = spread(&[], &[(1, 1), (2, 1)]);
        let after = spread(&before, &[(1, 1), (2, 3)]);
        assert_eq!((count(&after, 1), count(&after, 2)), (16, 48));
        assert!(moved(&before, &after).iter().all(|change| *change == (1, 2)));
    }

    #[test]
    fn all_replaced() {
        let before = spread(&[], &[(1, 1)]);
        assert_eq!(spread(&before, &[(2, 1)]), vec![2; GROUP_BUCKETS]);
    }

    fn group() -> impl Strategy<Value = Vec<(u32, u32)>> {
        proptest::collection::btree_map(1u32..200, 1u32..=256, 1..24).prop_map(|m| m.into_iter().collect())
    }

    proptest! {
        #[test]
        fn shares_are_rounded_up_or_down(members in group()) {
            let total: u32 = members.iter().map(|(_, w)| w).sum();
            let buckets = spread(&[], &members);
            for (value, weight) in &members {
                let exact = GROUP_BUCKETS as f64 * f64::from(*weight) / f64::from(total);
                prop_assert!((count(&buckets, *value) as f64 - exact).abs() < 1.0);
            }
        }

        #[test]
        fn order_is_of_no_consequence(members in group(), previous in group()) {
            let previous = spread(&[], &previous);
            let mut reversed = members.clone();
            reversed.reverse();
            prop_assert_eq!(spread(&previous, &members), spread(&previous, &reversed));
        }

        #[test]
        fn leaving_moves_only_its_own(members in group(), leaver: prop::sample::Index) {
            prop_assume!(members.len() > 1);
            let before = spread(&[], &members);
            let gone = members[leaver.index(members.len())].0;
            // One that held nothing leaves unnoticed: that is a change of the others' shares.
            prop_assume!(count(&before, gone) > 0);
            let rest: Vec<_> = members.iter().copied().filter(|(v, _)| *v != gone).collect();
            let after = spread(&before, &rest);
            prop_assert!(moved(&before, &after).iter().all(|(from, _)| *from == gone));
            prop_assert_eq!(count(&after, gone), 0);
        }

        #[test]
        fn joining_moves_at_most_its_share(members in group(), weight in 1u32..=256) {
            let joiner = 1000;
            let before = spread(&[], &members);
            let mut more = members.clone();
            more.push((joiner, weight));
            let after = spread(&before, &more);
            let total: u32 = more.iter().map(|(_, w)| w).sum();
            let share = (GROUP_BUCKETS as u32 * weight).div_ceil(total) as usize;
            let changes = moved(&before, &after);
            prop_assert!(changes.len() <= share, "{} moved for {share}", changes.len());
            prop_assert!(changes.iter().all(|(_, to)| *to == joiner));
            prop_assert!(count(&after, joiner) + 1 >= share, "{} of {share}", count(&after, joiner));
        }

        #[test]
        fn again_is_the_same(members in group()) {
            let once = spread(&[], &members);
            prop_assert_eq!(spread(&once, &members), once.clone());
        }
    }
}
