//! Whether two handfuls of noisy values differ, and by how much: the Wilcoxon-Mann-Whitney rank-sum test and the confidence
//! interval of the Hodges-Lehmann shift that belongs to it.
//!
//! Both use ranks only: rounds of a benchmark are skewed to the slow side and few, so that means and their standard errors
//! mislead. The test rejects at a level exactly when the interval of that level leaves out zero. Nothing is random.
//! Hollander, Wolfe, Chicken: Nonparametric Statistical Methods, 3rd edition, sections 4.1 to 4.3.

/// Above this many pairs the normal approximation is as good as the exact distribution.
const EXACT_PAIRS: usize = 2_500;
/// 97.5th percentile of the normal distribution: both intervals and tests are two-sided, at 95 %.
const Z: f64 = 1.959_964;
const ALPHA: f64 = 0.05;

/// How far the second values are from the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shift {
    /// Hodges-Lehmann estimate: the median of all differences between a new and an old value.
    pub(super) estimate: f64,
    /// Ends of its 95 % confidence interval.
    pub(super) low: f64,
    pub(super) high: f64,
    /// Two-sided probability of such ranks where there is no difference.
    pub(super) p: f64,
}

/// None where one side has no value.
pub(super) fn shift(old: &[f64], new: &[f64]) -> Option<Shift> {
    let mut differences: Vec<f64> = new.iter().flat_map(|new| old.iter().map(move |old| new - old)).collect();
    differences.sort_unstable_by(f64::total_cmp);
    let estimate = crate::report::figure::quantile(&differences, 0.5)?;
    let pairs = differences.len();
    let above = differences.iter().filter(|difference| **difference > 0.0).count() as f64;
    let ties = differences.iter().filter(|difference| **difference == 0.0).count();
    let u = above + ties as f64 / 2.0;
    let exact =
        (pairs <= EXACT_PAIRS && ties == 0 && !tied(old) && !tied(new)).then(|| Null::new(old.len(), new.len()));
    let spread = deviation(old, new);
    let p = match &exact {
        Some(null) => null.two_sided(u),
        None if spread == 0.0 => 1.0,
        None => {
            let distance = ((u - pairs as f64 / 2.0).abs() - 0.5).max(0.0);
            2.0 * (1.0 - normal(distance / spread))
        }
    };
    // The k-th lowest and the k-th highest difference, k the critical value of the rank sum.
    let critical = match &exact {
        Some(null) => null.critical(ALPHA / 2.0),
        None => (pairs as f64 / 2.0 - Z * spread - 0.5).max(0.0) as usize,
    };
    let (low, high) = if critical == 0 {
        // Too few values for any interval at this level.
        (f64::NEG_INFINITY, f64::INFINITY)
    } else {
        (*differences.get(critical - 1)?, *differences.get(pairs - critical)?)
    };
    Some(Shift { estimate, low, high, p: p.min(1.0) })
}

fn tied(values: &[f64]) -> bool {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.windows(2).any(|pair| matches!(pair, [a, b] if a == b))
}

/// Standard deviation of the rank sum where there is no difference, corrected for ties.
fn deviation(old: &[f64], new: &[f64]) -> f64 {
    let mut all: Vec<f64> = old.iter().chain(new).copied().collect();
    all.sort_unstable_by(f64::total_cmp);
    let total = all.len() as f64;
    let tied: f64 = all.chunk_by(|a, b| a == b).map(|run| (run.len() as f64).powi(3) - run.len() as f64).sum();
    let (m, n) = (old.len() as f64, new.len() as f64);
    let variance = m * n / 12.0 * (total + 1.0 - tied / (total * (total - 1.0)));
    if variance.is_finite() { variance.max(0.0).sqrt() } else { 0.0 }
}

/// The exact distribution of U where there is no difference and no tie.
struct Null {
    /// Probability that U is at most the index.
    at_most: Vec<f64>,
}

impl Null {
    /// Counts the orders of `m` and `n` values by U: the coefficients of a Gaussian binomial.
    fn new(m: usize, n: usize) -> Self {
        // A step is a factor (1 - x^(n+i)) / (1 - x^i).
        let size = m * n + 1;
        let mut counts = vec![0.0_f64; size];
        if let Some(first) = counts.first_mut() {
            *first = 1.0;
        }
        for i in 1..=m {
            for at in (n + i..size).rev() {
                let below = counts.get(at - n - i).copied().unwrap_or(0.0);
                if let Some(count) = counts.get_mut(at) {
                    *count -= below;
                }
            }
            for at in i..size {
                let below = counts.get(at - i).copied().unwrap_or(0.0);
                if let Some(count) = counts.get_mut(at) {
                    *count += below;
                }
            }
        }
        let total: f64 = counts.iter().sum();
        let mut sum = 0.0;
        let at_most = counts.iter().map(|count| {
            sum += count;
            sum / total
        });
        Self { at_most: at_most.collect() }
    }

    fn two_sided(&self, u: f64) -> f64 {
        let pairs = self.at_most.len().saturating_sub(1) as f64;
        let tail = u.min(pairs - u).max(0.0) as usize;
        2.0 * self.at_most.get(tail).copied().unwrap_or(1.0)
    }

    /// How many of the lowest values of U have together at most this probability.
    fn critical(&self, probability: f64) -> usize {
        self.at_most.iter().take_while(|sum| **sum <= probability).count()
    }
}

/// Distribution function of the normal distribution for `z` >= 0, to 1e-7 (Abramowitz and Stegun, 26.2.17).
fn normal(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let polynomial = [1.330_274_429, -1.821_255_978, 1.781_477_937, -0.356_563_782, 0.319_381_530]
        .iter()
        .fold(0.0, |sum, c| (sum + c) * t);
    1.0 - (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * polynomial
}

/// Benjamini and Hochberg (1995): each probability as the share of false alarms among all that are at least as unlikely. With
/// dozens of rows, one in twenty would be "significant" by chance.
pub(super) fn adjusted(probabilities: &[f64]) -> Vec<f64> {
    let total = probabilities.len() as f64;
    let mut order: Vec<(usize, f64)> = probabilities.iter().copied().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut least = 1.0_f64;
    let mut adjusted = vec![1.0; probabilities.len()];
    for (step, (index, p)) in order.into_iter().enumerate() {
        least = least.min(p * total / (total - step as f64));
        if let Some(place) = adjusted.get_mut(index) {
            *place = least;
        }
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-4
    }

    /// Figures of R: wilcox.test(new, old, conf.int = TRUE, exact = TRUE).
    #[test]
    fn exact_figures_are_those_of_r() {
        let old = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
        let new = [1.15, 0.88, 0.90, 0.74, 1.21];
        let shift = shift(&old, &new).unwrap();
        assert!(close(shift.p, 0.2544), "{shift:?}");
        assert!(close(shift.estimate, -0.305) && close(shift.low, -0.76) && close(shift.high, 0.15), "{shift:?}");
    }

    #[test]
    fn ties_and_constants_do_not_break_it() {
        let same = shift(&[5.0; 9], &[5.0; 9]).unwrap();
        assert_eq!((same.estimate, same.p), (0.0, 1.0));
        let apart = shift(&[5.0; 9], &[6.0; 9]).unwrap();
        assert!(apart.p < 0.001 && apart.low == 1.0 && apart.high == 1.0, "{apart:?}");
        assert_eq!(shift(&[], &[1.0]), None);
        let few = shift(&[1.0, 2.0, 3.0], &[11.0, 12.0, 13.0]).unwrap();
        assert!(few.p > 0.05 && few.low.is_infinite(), "three values prove nothing: {few:?}");
    }

    #[test]
    fn the_test_and_the_interval_agree() {
        let mut random = fastrand::Rng::with_seed(5);
        for round in 0..300 {
            let mut draw = |by: f64, n: usize| (0..n).map(|_| by + random.f64() * 10.0).collect::<Vec<_>>();
            let by = f64::from(round % 7);
            let (old, new) = (draw(0.0, 9), draw(by, 7));
            let shift = shift(&old, &new).unwrap();
            let outside = shift.low > 0.0 || shift.high < 0.0;
            assert_eq!(shift.p <= ALPHA, outside, "{shift:?}");
        }
    }

    #[test]
    fn probabilities_are_adjusted_for_their_number() {
        // R: p.adjust(c(0.01, 0.04, 0.03, 0.5), "BH")
        let wanted = [0.04, 0.053_333, 0.053_333, 0.5];
        for (got, wanted) in adjusted(&[0.01, 0.04, 0.03, 0.5]).iter().zip(wanted) {
            assert!(close(*got, wanted), "{got} {wanted}");
        }
    }
}
