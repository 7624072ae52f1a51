//! The two shapes that a loss curve is fitted with (draft-vpolak-bmwg-plrsearch-03, section 6.1.3).
//!
//! Both give the average loss rate over the load, are increasing and convex, never zero, and tend to a constant
//! forwarded rate: `mrr`. `spread` says how early loss begins. They tend to zero differently, so that the distance of
//! their answers tells how much the answer depends on the shape. All in logarithms: loss of interest is 1e-7 and less.

use std::f64::consts::PI;

/// A fitting function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The integral of the logistic function.
    Stretch,
    /// The double integral of the normal density.
    Erf,
}

/// One curve: a shape with its parameters, both in packets per second and above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Curve {
    pub(super) shape: Shape,
    pub(super) mrr: f64,
    pub(super) spread: f64,
}

impl Curve {
    /// Logarithm of the packets lost per second at `load`, which is above 0.
    pub(super) fn log_loss_rate(&self, load: f64) -> f64 {
        let (from, to) = (-self.mrr / self.spread, (load - self.mrr) / self.spread);
        let relative = match self.shape {
            Shape::Stretch => stretch(from, to),
            Shape::Erf => erf(from, to),
        };
        relative + self.spread.ln()
    }

    /// The load between `least` and `greatest` at which the loss ratio is `exp(log_ratio)`, to one in a million; the
    /// nearer limit where that is outside.
    pub(super) fn critical_load(&self, log_ratio: f64, least: f64, greatest: f64) -> f64 {
        let (mut low, mut high) = (least.ln(), greatest.ln());
        while high - low > 1e-6 {
            let middle = (low + high) / 2.0;
            if self.log_loss_rate(middle.exp()) - middle > log_ratio {
                high = middle;
            } else {
                low = middle;
            }
        }
        ((low + high) / 2.0).exp()
    }
}

/// `ln(1 + exp(x))`.
pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Logarithm of `(1 + e^from) (softplus(to) - softplus(from))`.
///
/// The difference is `ln(1 + d)` with `d = e^from (e^(to - from) - 1) / (1 + e^from)`; `ln d` neither overflows nor
/// cancels.
fn stretch(from: f64, to: f64) -> f64 {
    let gap = to - from;
    let log_expm1 = if gap > 1.0 { gap + (-(-gap).exp()).ln_1p() } else { gap.exp_m1().ln() };
    let log_d = from + log_expm1 - softplus(from);
    // ln(1 + d) is d where d is below what 1 + d can tell.
    let log_difference = if log_d < -36.0 { log_d } else { softplus(log_d).ln() };
    softplus(from) + log_difference
}

/// Logarithm of `(ierfc(-to) - ierfc(-from)) / (1 + erf(-from))`; ierfc is the integral of erfc from its argument up.
fn erf(from: f64, to: f64) -> f64 {
    let (more, less) = (log_ierfc(-to), log_ierfc(-from));
    more + (-(less - more).exp_m1()).ln() - libm::erfc(from).ln()
}

/// Logarithm of `exp(-x^2) / sqrt(pi) - x erfc(x)`.
fn log_ierfc(x: f64) -> f64 {
    if x < 6.0 {
        return ((-x * x).exp() / PI.sqrt() - x * libm::erfc(x)).ln();
    }
    // The terms cancel; from here on the asymptotic series is exact to 1e-10 (Abramowitz and Stegun 7.2.14).
    let ratio = 1.0 / (4.0 * x * x);
    let (mut term, mut sum) = (1.0, 1.0);
    for m in 1..12 {
        let m = f64::from(m);
        term *= -ratio * (2.0 * m) * (2.0 * m + 1.0) / m;
        sum += term;
    }
    sum.ln() - x * x - (2.0 * PI.sqrt() * x * x).ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHAPES: [Shape; 2] = [Shape::Stretch, Shape::Erf];

    /// The formulas as the draft has them, where they are far from overflow and cancellation.
    fn published(shape: Shape, b: f64, m: f64, a: f64) -> f64 {
        match shape {
            Shape::Stretch => {
                a * (1.0 + (m / a).exp()) * (((b / a).exp() + (m / a).exp()) / (1.0 + (m / a).exp())).ln()
                    / (m / a).exp()
            }
            Shape::Erf => {
                let gauss = |x: f64| (-x * x).exp();
                (a * (gauss((b - m) / a) - gauss(m / a)) / PI.sqrt()
                    + m * libm::erfc(m / a)
                    + (b - m) * libm::erfc((m - b) / a))
                    / (1.0 + libm::erf(m / a))
            }
        }
    }

    #[test]
    fn the_curves_are_the_published_ones() {
        for shape in SHAPES {
            for (b, m, a) in [(1.0, 1.0, 0.5), (0.7, 1.0, 0.3), (3.0, 1.0, 0.4), (2.0, 5.0, 2.0), (5.0, 5.0, 1.5)] {
                let ours = Curve { shape, mrr: m, spread: a }.log_loss_rate(b).exp();
                let theirs = published(shape, b, m, a);
                assert!((ours / theirs - 1.0).abs() < 1e-9, "{shape:?} {b} {m} {a}: {ours} {theirs}");
            }
        }
    }

    #[test]
    fn the_series_meets_the_formula() {
        let (below, above) = (log_ierfc(6.0 - 1e-9), log_ierfc(6.0));
        assert!((below - above).abs() < 1e-6, "{below} {above}");
        // A table value: ierfc(1) = 0.0502545.
        assert!((log_ierfc(1.0).exp() - 0.050_254_5).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn curves_are_finite_and_rise_over_any_range(
            mrr in 0.0..8.0_f64, power in 0.0..1.0_f64, load in 0.0..9.0_f64, more in 1e-6..1.0_f64,
        ) {
            let mrr = 10_f64.powf(mrr) + 1.0;
            let (load, spread) = (10_f64.powf(load), mrr.powf(power));
            for shape in SHAPES {
                let curve = Curve { shape, mrr, spread };
                let (here, there) = (curve.log_loss_rate(load), curve.log_loss_rate(load * (1.0 + more)));
                prop_assert!(here.is_finite() && there.is_finite(), "{shape:?}: {here} {there}");
                prop_assert!(there - here > -1e-6, "{shape:?}: {here} {there}");
            }
        }

        #[test]
        fn the_critical_load_has_the_ratio(mrr in 1e4..1e6_f64, power in 0.5..0.95_f64) {
            for shape in SHAPES {
                let curve = Curve { shape, mrr, spread: mrr.powf(power) };
                let target = 1e-7_f64.ln();
                let load = curve.critical_load(target, 10.0, 1e7);
                let above = |load: f64| curve.log_loss_rate(load) - load.ln() > target;
                prop_assert!(load < 10.1 || !above(load * (1.0 - 2e-6)), "{shape:?} {load}");
                prop_assert!(above(load * (1.0 + 2e-6)), "{shape:?} {load}");
            }
        }
    }
}
