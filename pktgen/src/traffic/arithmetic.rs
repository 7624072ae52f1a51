//! Numbers that are a function of numbers: division by a constant, seeded mixing, Zipf's law, weighted turns.
//!
//! Nothing here remembers: what a packet looks like follows from its flow and number, so that the receiver comes to the same.

use rand_distr::{Distribution, Zipf};

/// Division by a number known beforehand, by multiplication (Lemire, Kaser, Kurz: "Faster remainder by direct computation", 2019).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Divisor {
    by: u32,
    /// 2^64 / by, rounded up; 0 for 1.
    inverse: u64,
}

impl Divisor {
    /// Of a number of at least 1; 0 counts as 1.
    pub(super) fn new(by: u32) -> Self {
        let by = by.max(1);
        Self { by, inverse: (u64::MAX / u64::from(by)).wrapping_add(1) }
    }

    pub(super) fn get(self) -> u32 {
        self.by
    }

    /// Quotient and remainder.
    #[inline]
    pub(super) fn split(self, number: u32) -> (u32, u32) {
        if self.by == 1 {
            return (number, 0);
        }
        let quotient = (u128::from(self.inverse) * u128::from(number)) >> 64;
        let quotient = u32::try_from(quotient).unwrap_or(0);
        (quotient, number - quotient * self.by)
    }
}

/// Draw `number` of SplitMix64 from this seed (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[inline]
pub(super) fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(GOLDEN));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A number below `count` out of 64 even bits.
#[inline]
pub(super) fn below(bits: u64, count: u32) -> u32 {
    u32::try_from((u128::from(bits) * u128::from(count)) >> 64).unwrap_or(0)
}

/// SplitMix64: a sequence that its seed tells wholly, on every machine and in every version.
#[derive(Clone, Debug)]
pub(super) struct SplitMix(pub(super) u64);

impl rand_core::RngCore for SplitMix {
    fn next_u32(&mut self) -> u32 {
        u32::try_from(self.next_u64() >> 32).unwrap_or(0)
    }

    fn next_u64(&mut self) -> u64 {
        let drawn = mix(self.0, 0);
        self.0 = self.0.wrapping_add(GOLDEN);
        drawn
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            for (byte, drawn) in chunk.iter_mut().zip(self.next_u64().to_le_bytes()) {
                *byte = drawn;
            }
        }
    }
}

/// Ranks 0, 1, 2, ... below a count, rank r with a probability in proportion to 1 / (r + 1)^s.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranks {
    zipf: Zipf<f64>,
    last: u32,
}

impl Ranks {
    /// `None` where the exponent is no number above 0.
    pub(super) fn new(count: u32, exponent: f64) -> Option<Self> {
        let good = exponent.is_finite() && exponent > 0.0;
        let zipf = good.then(|| Zipf::new(f64::from(count.max(1)), exponent).ok()).flatten()?;
        Some(Self { zipf, last: count.max(1) - 1 })
    }

    pub(super) fn draw(&self, random: &mut SplitMix) -> u32 {
        // Samples are whole numbers from 1 to the count, which has 24 bits or, in a field, 32: exact in f64.
        ((self.zipf.sample(random) - 1.0) as u32).min(self.last)
    }
}

/// Whose turn it is: a round in which each index comes as often as its weight says, as evenly spread as whole numbers allow
/// (smooth weighted round-robin). Weights are reduced first; `None` where a round has more than `longest` turns or none.
pub(super) fn turns(weights: &[u32], longest: usize) -> Option<Vec<u32>> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let weights: Vec<i64> = weights.iter().map(|weight| i64::from(weight / divisor)).collect();
    let total: i64 = weights.iter().sum();
    let round = usize::try_from(total).ok().filter(|round| (1..=longest).contains(round))?;
    let mut credit = vec![0i64; weights.len()];
    let mut order = Vec::with_capacity(round);
    for _ in 0..round {
        credit.iter_mut().zip(&weights).for_each(|(credit, weight)| *credit += weight);
        // The first of the richest: `max_by_key` alone would take the last.
        let richest = credit.iter().enumerate().rev().max_by_key(|(_, credit)| **credit).map(|(index, _)| index)?;
        *credit.get_mut(richest)? -= total;
        order.push(u32::try_from(richest).ok()?);
    }
    Some(order)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_core::RngCore as _;

    #[test]
    fn turns_are_spread_out() {
        assert_eq!(turns(&[5, 1, 1], 100), Some(vec![0, 0, 1, 0, 2, 0, 0]));
        assert_eq!(turns(&[28, 16, 4], 12).map(|turns| turns.len()), Some(12));
        assert_eq!(turns(&[0, 3], 12), Some(vec![1]));
        assert_eq!((turns(&[0], 12), turns(&[1, 100], 100)), (None, None));
    }

    /// The published test vector of SplitMix64 for seed 1234567.
    #[test]
    fn the_sequence_is_splitmix64() {
        let mut random = SplitMix(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    /// 200,000 draws from 1,000 ranks against the mass that the law gives to the first ones and to the rest.
    #[test]
    fn ranks_follow_the_law() {
        for exponent in [0.5, 1.0, 1.1, 2.0] {
            let ranks = Ranks::new(1000, exponent).unwrap();
            let (mut random, mut seen, draws) = (SplitMix(7), vec![0u32; 1000], 200_000);
            (0..draws).for_each(|_| seen[ranks.draw(&mut random) as usize] += 1);
            let mass: Vec<f64> = (1..=1000).map(|rank| f64::from(rank).powf(-exponent)).collect();
            let whole: f64 = mass.iter().sum();
            for (from, to) in [(0, 1), (1, 2), (2, 5), (5, 20), (20, 100), (100, 1000)] {
                let expected = mass[from..to].iter().sum::<f64>() / whole;
                let found = f64::from(seen[from..to].iter().sum::<u32>()) / f64::from(draws);
                // Five standard deviations of a binomial share.
                let slack = 5.0 * (expected * (1.0 - expected) / f64::from(draws)).sqrt();
                assert!((found - expected).abs() <= slack, "s={exponent} {from}..{to}: {found} for {expected}");
            }
        }
        assert!(Ranks::new(10, 0.0).is_none() && Ranks::new(10, f64::NAN).is_none());
    }

    #[test]
    fn mixing_is_even() {
        let mut seen = [0u32; 16];
        (0..160_000).for_each(|number| seen[below(mix(99, number), 16) as usize] += 1);
        // Five standard deviations around 10,000.
        assert!(seen.iter().all(|count| count.abs_diff(10_000) < 500), "{seen:?}");
    }

    proptest! {
        #[test]
        fn division_is_exact(number: u32, by in 1u32..) {
            prop_assert_eq!(Divisor::new(by).split(number), (number / by, number % by));
            let edge = number - number % by;
            prop_assert_eq!(Divisor::new(by).split(edge), (edge / by, 0));
            prop_assert_eq!(Divisor::new(by).split(edge.wrapping_sub(1)).0, edge.wrapping_sub(1) / by);
        }

        #[test]
        fn turns_have_their_share(weights in proptest::collection::vec(0..50u32, 1..8)) {
            let Some(order) = turns(&weights, 400) else { return Ok(()) };
            let total: u32 = weights.iter().sum();
            for (index, weight) in weights.iter().enumerate() {
                let count = order.iter().filter(|turn| **turn as usize == index).count() as u64;
                prop_assert_eq!(count * u64::from(total), u64::from(*weight) * order.len() as u64);
            }
        }
    }
}
