//! Averages over a posterior in two parameters, by importance sampling.
//!
//! The posterior is a product of hundreds of trials: a needle in the square of the parameters. It is approached in
//! rounds. Each samples a normal distribution, weighs the samples by likelihood over density, and fits the next
//! distribution to them. A power of the weights, as large as leaves enough effective samples, keeps one round from
//! collapsing onto its best sample; when that power is 1, the distribution covers the posterior and a last, larger
//! round gives the averages. Samples come from a seeded generator: the same trials give the same answer.

use std::f64::consts::TAU;

/// A point of the parameter space, each coordinate in (-1, 1), the prior uniform.
pub(super) type Point = [f64; 2];

/// Samples of a round; the last one takes four times as many.
const SAMPLES: usize = 200;

/// Effective samples that the weights of a round must leave.
const EFFECTIVE: f64 = 0.25;

/// Rounds after which the current power of the weights has to do.
const ROUNDS: usize = 60;

/// By how much the distribution sampled is wider (in variance) than the one fitted, so that it has weight where the
/// posterior has.
const WIDER: f64 = 2.5;

/// A normal distribution in two dimensions, cut off outside the square.
#[derive(Clone, Copy, Debug)]
pub(super) struct Focus {
    center: Point,
    /// The covariance: xx, xy, yy.
    covariance: [f64; 3],
}

impl Default for Focus {
    /// Covers the whole square.
    fn default() -> Self {
        Self { center: [0.0, 0.0], covariance: [1.0, 0.0, 1.0] }
    }
}

impl Focus {
    /// The lower triangle whose product with its transpose is the covariance.
    fn root(&self) -> [f64; 3] {
        let [xx, xy, yy] = self.covariance;
        let x = xx.sqrt();
        [x, xy / x, (yy - xy * xy / xx).max(0.0).sqrt()]
    }

    /// A sample, and the logarithm of its density but for a constant.
    fn sample(&self, rng: &mut fastrand::Rng) -> (Point, f64) {
        let [a, b, c] = self.root();
        let mut draw = || {
            let (u, v) = normal_pair(rng);
            ([self.center[0] + a * u, self.center[1] + b * u + c * v], -(u * u + v * v) / 2.0)
        };
        let inside = |point: &Point| point.iter().all(|x| x.abs() < 1.0);
        // The centre is inside; a corner leaves a quarter of the samples.
        (0..1000).map(|_| draw()).find(|(point, _)| inside(point)).unwrap_or((self.center, 0.0))
    }

    /// The distribution of weighted points, made wider.
    fn fit(points: &[(Point, f64)]) -> Self {
        let average = |of: &dyn Fn(&Point) -> f64| points.iter().map(|(point, weight)| weight * of(point)).sum::<f64>();
        let (cx, cy) = (average(&|[x, _]| *x), average(&|[_, y]| *y));
        let xx = average(&|[x, _]| (x - cx) * (x - cx));
        let xy = average(&|[x, y]| (x - cx) * (y - cy));
        let yy = average(&|[_, y]| (y - cy) * (y - cy));
        // A floor keeps the root real when all weight is on one line or point.
        let floor = 1e-18;
        Self { center: [cx, cy], covariance: [WIDER * xx + floor, WIDER * xy, WIDER * yy + floor] }
    }
}

/// Two independent samples of the standard normal distribution (Box and Muller 1958).
fn normal_pair(rng: &mut fastrand::Rng) -> (f64, f64) {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    let (sin, cos) = (TAU * rng.f64()).sin_cos();
    (radius * cos, radius * sin)
}

/// Average and variance of a value under the posterior.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moments {
    pub(super) average: f64,
    pub(super) variance: f64,
}

/// The moments of `value` under the posterior with this log-likelihood, and the focus to begin with after more trials.
pub(super) fn integrate(
    log_likelihood: impl Fn(&Point) -> f64,
    value: impl Fn(&Point) -> f64,
    mut focus: Focus,
    rng: &mut fastrand::Rng,
) -> (Moments, Focus) {
    let mut round = |focus: &Focus, count: usize| -> (Vec<Point>, Vec<f64>) {
        let sample = |_| {
            let (point, log_density) = focus.sample(rng);
            let log_weight = log_likelihood(&point) - log_density;
            (point, if log_weight.is_nan() { f64::NEG_INFINITY } else { log_weight })
        };
        (0..count).map(sample).unzip()
    };
    for _ in 0..ROUNDS {
        let (points, log_weights) = round(&focus, SAMPLES);
        let power = tempering(&log_weights);
        let weighted: Vec<(Point, f64)> = points.into_iter().zip(normalized(&log_weights, power)).collect();
        focus = Focus::fit(&weighted);
        if power >= 1.0 {
            break;
        }
    }
    let (points, log_weights) = round(&focus, 4 * SAMPLES);
    let weights = normalized(&log_weights, tempering(&log_weights));
    let values: Vec<f64> = points.iter().map(value).collect();
    let average = values.iter().zip(&weights).map(|(value, weight)| value * weight).sum::<f64>();
    let squares = values.iter().zip(&weights).map(|(value, weight)| weight * (value - average) * (value - average));
    (Moments { average, variance: squares.sum() }, focus)
}

/// The greatest power up to 1 of the weights that leaves enough effective samples.
fn tempering(log_weights: &[f64]) -> f64 {
    let enough = |power: f64| {
        let squares: f64 = normalized(log_weights, power).iter().map(|weight| weight * weight).sum();
        1.0 / squares >= EFFECTIVE * log_weights.len() as f64
    };
    if enough(1.0) {
        return 1.0;
    }
    // By halving the logarithm: likelihoods may differ by factors of e^1e6 and more.
    let (mut low, mut high) = (-40.0_f64, 0.0_f64);
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if enough(middle.exp()) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low.exp()
}

/// The weights to a power, with the sum 1.
fn normalized(log_weights: &[f64], power: f64) -> Vec<f64> {
    let greatest = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = log_weights.iter().map(|log| (power * (log - greatest)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A correlated normal posterior, far from where the search for it begins and as narrow as `scale`.
    fn posterior(scale: f64) -> (Moments, Moments) {
        let log_likelihood = |p: &Point| {
            let (x, y) = ((p[0] + 0.6) / scale, (p[1] - 0.7) / scale);
            // Variances 1 and 4, covariance 1.2.
            -0.5 * (4.0 * x * x - 2.4 * x * y + y * y) / (4.0 - 1.44)
        };
        let mut rng = fastrand::Rng::with_seed(1);
        let (x, focus) = integrate(log_likelihood, |p| p[0], Focus::default(), &mut rng);
        let (sum, _) = integrate(log_likelihood, |p| p[0] + p[1], focus, &mut rng);
        (x, sum)
    }

    #[test]
    fn moments_are_those_of_the_posterior_however_narrow() {
        for scale in [1e-2, 1e-4, 1e-7] {
            let (x, sum) = posterior(scale);
            assert!((x.average + 0.6).abs() < 0.1 * scale, "{scale}: {x:?}");
            assert!((x.variance / (scale * scale) - 1.0).abs() < 0.2, "{scale}: {x:?}");
            assert!((sum.average - 0.1).abs() < 0.3 * scale, "{scale}: {sum:?}");
            assert!((sum.variance / (7.4 * scale * scale) - 1.0).abs() < 0.2, "{scale}: {sum:?}");
        }
    }

    #[test]
    fn without_data_the_prior_is_returned() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (moments, _) = integrate(|_| 0.0, |p| p[1], Focus::default(), &mut rng);
        assert!(moments.average.abs() < 0.05 && (moments.variance - 1.0 / 3.0).abs() < 0.05, "{moments:?}");
    }

    #[test]
    fn a_likelihood_that_cannot_be_computed_somewhere_is_no_weight() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (moments, _) = integrate(|p| if p[0] < 0.0 { f64::NAN } else { 0.0 }, |p| p[0], Focus::default(), &mut rng);
        assert!((moments.average - 0.5).abs() < 0.05, "{moments:?}");
    }
}
