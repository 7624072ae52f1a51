//! The loads that a search may use, and arithmetic on them.
//!
//! Loads are steps of a grid with a constant factor between neighbours, so that a relative width is the same number of
//! steps everywhere and bounds compare exactly. Every goal's width is a whole number of steps, at most one hundredth
//! smaller than asked for. The grid runs from the least load (step 0) to the greatest.

use std::ops::{Add, Sub};

use crate::search::Error;

/// A load, in steps above the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Load(i64);

/// A distance of two loads in steps, that is, a ratio of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Width(i64);

impl Add<Width> for Load {
    type Output = Load;

    fn add(self, width: Width) -> Load {
        Load(self.0.saturating_add(width.0))
    }
}

impl Sub<Width> for Load {
    type Output = Load;

    fn sub(self, width: Width) -> Load {
        Load(self.0.saturating_sub(width.0))
    }
}

impl Sub for Load {
    type Output = Width;

    fn sub(self, other: Load) -> Width {
        Width(self.0 - other.0)
    }
}

impl Width {
    pub(super) const ZERO: Width = Width(0);

    pub(super) fn times(self, factor: u32) -> Width {
        Width(self.0.saturating_mul(i64::from(factor)))
    }
}

/// How near a goal's width in steps must come to the width asked for. Not nearer than the upper limit, so that rounding
/// in the last digit never makes it too wide.
const QUALITY: std::ops::RangeInclusive<f64> = 0.99..=0.999_999;

/// More steps than any sensible set of widths needs; only widths that differ by orders of magnitude get here.
const MOST_STEPS: f64 = 1e7;

/// The grid of one search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    least: f64,
    greatest: f64,
    top: i64,
}

/// A known point of the grid: step and packets per second.
type Point = (i64, f64);

impl Grid {
    /// The coarsest grid from `least` to `greatest` packets per second on which all `widths` (relative to the upper
    /// load, 0 to 1 exclusive) are met.
    pub(super) fn new<E>(least: f64, greatest: f64, widths: &[f64]) -> Result<Self, Error<E>> {
        let range = greatest.ln() - least.ln();
        let logs: Vec<f64> = widths.iter().map(|width| -(-width).ln_1p()).collect();
        let mut steps = 1.0;
        while steps <= MOST_STEPS {
            let step = range / steps;
            let misses = logs.iter().filter_map(|log| {
                let exact = log / step;
                let whole = exact.floor();
                // The least number of steps at which this width reaches the next whole number.
                (!QUALITY.contains(&(whole / exact))).then(|| (whole + 1.0) / QUALITY.end() / exact * steps)
            });
            let Some(next) = misses.reduce(f64::max) else {
                return Ok(Self { least, greatest, top: steps as i64 });
            };
            steps = next.max(steps + 1.0).ceil();
        }
        Err(Error::Invalid("the widths of the goals differ too much for one search: search for each alone".to_owned()))
    }

    pub(super) const LEAST: Load = Load(0);

    pub(super) fn greatest(&self) -> Load {
        Load(self.top)
    }

    /// The load in packets per second. It is found by halving in the logarithm; whatever else has been asked for, one
    /// step is always the same number to the last digit.
    pub(super) fn pps(&self, load: Load) -> f64 {
        if load.0 <= 0 {
            return self.least;
        }
        let (mut low, mut high) = self.ends();
        while load.0 < high.0 {
            let middle = between(low, high);
            match load.0.cmp(&middle.0) {
                std::cmp::Ordering::Less => high = middle,
                std::cmp::Ordering::Equal => return middle.1,
                std::cmp::Ordering::Greater => low = middle,
            }
        }
        high.1
    }

    /// The greatest load of the grid that is at most `pps`; the least where `pps` is below all.
    pub(super) fn at_most(&self, pps: f64) -> Load {
        let (mut low, mut high) = self.ends();
        if pps >= self.greatest {
            return self.greatest();
        }
        while high.0 - low.0 > 1 {
            let middle = between(low, high);
            if middle.1 <= pps {
                low = middle;
            } else {
                high = middle;
            }
        }
        Load(low.0)
    }

    /// The most steps that are no wider than `relative` (to the upper load).
    pub(super) fn width(&self, relative: f64) -> Width {
        Width(self.at_most(self.least / (1.0 - relative)).0.max(1))
    }

    /// `width`, no wider than the grid.
    pub(super) fn capped(&self, width: Width) -> Width {
        Width(width.0.min(self.top))
    }

    fn ends(&self) -> (Point, Point) {
        ((0, self.least), (self.top, self.greatest))
    }

    /// The load to measure where `wish` is asked for and bounds are known: strictly between them, and at least `width`
    /// away from each where there is room for it. Without a bound the limit of the grid takes its place, but may
    /// itself be measured: what comes closer to it than `width` is moved onto it. `None`: nothing left to measure.
    pub(super) fn fit(&self, wish: Load, width: Width, lower: Option<Load>, upper: Option<Load>) -> Option<Load> {
        let wish = wish.clamp(Self::LEAST, self.greatest());
        if lower.is_some_and(|lower| wish <= lower) || upper.is_some_and(|upper| wish >= upper) {
            return None;
        }
        let (low, high) = (lower.unwrap_or(Self::LEAST), upper.unwrap_or(self.greatest()));
        if width >= high - low {
            return match (lower, upper) {
                (None, _) => Some(low),
                (_, None) => Some(high),
                _ => None,
            };
        }
        let (mut soft_low, mut soft_high) = (low + width, high - width);
        if soft_low > soft_high {
            soft_low = middle(low, high, width);
            soft_high = soft_low;
        }
        Some(if wish < soft_low {
            lower.map_or(low, |_| soft_low)
        } else if wish > soft_high {
            upper.map_or(high, |_| soft_high)
        } else {
            wish
        })
    }
}

/// The middle step of two points that are at least two steps apart, and its load: their weighted geometric mean.
fn between(low: Point, high: Point) -> Point {
    let step = (low.0 + high.0) / 2;
    let share = (step - low.0) as f64 / (high.0 - low.0) as f64;
    (step, low.1 * ((high.1.ln() - low.1.ln()) * share).exp())
}

/// Where to cut an interval wider than `goal`. An even cut is not the quickest: cutting off `goal` times a power of two
/// lets later cuts end at exactly `goal`. Of the two such cuts next to the middle the more even one is taken, and the
/// smaller part is the lower one.
pub(super) fn middle(low: Load, high: Load, goal: Width) -> Load {
    let (span, mut part) = ((high - low).0, goal.0);
    if span < 2 * part {
        if part % 2 == 1 {
            return Load(low.0 + span / 2);
        }
        // Halves of an even goal are met exactly too.
        part /= 2;
    } else if span == 2 * part {
        return low + goal;
    }
    while span > 4 * part {
        part *= 2;
    }
    Load(low.0 + if 3 * part > span { part } else { span - 2 * part })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grid(least: f64, greatest: f64, widths: &[f64]) -> Grid {
        Grid::new::<()>(least, greatest, widths).unwrap()
    }

    #[test]
    fn widths_are_met_and_hardly_undercut() {
        for widths in [&[0.005][..], &[0.005, 0.02, 0.3], &[0.05]] {
            let grid = grid(1e3, 1.5e7, widths);
            for &wanted in widths {
                let upper = Grid::LEAST + grid.width(wanted);
                let got = 1.0 - grid.least / grid.pps(upper);
                assert!(got <= wanted && got > 0.98 * wanted, "{wanted}: {got}");
            }
        }
        assert!(Grid::new::<()>(1.0, 1e9, &[0.9, 1e-6]).is_err());
    }

    #[test]
    fn cuts_end_at_the_goal() {
        let cut = |span, goal| middle(Load(0), Load(span), Width(goal)).0;
        assert_eq!(cut(8, 4), 4);
        assert_eq!(cut(7, 5), 3);
        assert_eq!(cut(7, 4), 3);
        assert_eq!(cut(16, 4), 8);
        assert_eq!(cut(15, 4), 7);
        assert_eq!(cut(11, 4), 4);
    }

    proptest! {
        #[test]
        fn a_step_is_found_again(least in 1.0..1e6, ratio in 1.01..1e6, width in 0.001..0.5, at in 0.0..1.0) {
            let grid = grid(least, least * ratio, &[width]);
            let load = Load((at * grid.top as f64) as i64);
            let pps = grid.pps(load);
            prop_assert_eq!(grid.at_most(pps), load);
            prop_assert!(pps >= grid.least && pps <= grid.greatest);
            prop_assert!(load.0 == grid.top || grid.pps(Load(load.0 + 1)) > pps);
        }

        #[test]
        fn a_cut_is_inside(span in 2_i64..100_000, goal in 1_i64..1000) {
            prop_assume!(span > goal);
            let cut = middle(Load(0), Load(span), Width(goal)).0;
            prop_assert!(cut >= 1 && 2 * cut <= span);
        }

        #[test]
        fn what_fits_is_strictly_between_the_bounds(
            wish in -50_i64..2000, width in 1_i64..200, low in proptest::option::of(0_i64..500), high in proptest::option::of(500_i64..1000),
        ) {
            let grid = grid(1e3, 1e6, &[0.005]);
            let fit = grid.fit(Load(wish), Width(width), low.map(Load), high.map(Load));
            if let Some(Load(fit)) = fit {
                prop_assert!(fit >= 0 && fit <= grid.top);
                prop_assert!(low.is_none_or(|low| fit > low) && high.is_none_or(|high| fit < high));
            }
        }
    }
}
