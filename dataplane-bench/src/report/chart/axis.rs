//! Where a value stands on an axis, and where its ticks are.

use super::super::figure::{Unit, number};

/// The kind of an axis and its range.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Axis {
    /// From zero.
    Linear { max: f64, unit: Unit },
    /// By decades. What is below the range stands at its start.
    Log { min: f64, max: f64, unit: Unit },
    /// Percentiles by the nines behind them, as HDR histograms are drawn: 0, 90, 99, 99.9 are equally far apart.
    Percentile { max: f64 },
}

impl Axis {
    /// From zero to a round figure above all values.
    pub(crate) fn linear(values: impl IntoIterator<Item = f64>, unit: Unit) -> Self {
        let highest = values.into_iter().filter(|value| value.is_finite()).fold(0.0, f64::max);
        let step = step(highest);
        let max = if highest > 0.0 { (highest / step).ceil() * step } else { 1.0 };
        Self::Linear { max, unit }
    }

    /// Whole steps of 1, 2 and 5 around all values above zero.
    pub(crate) fn log(values: impl IntoIterator<Item = f64>, unit: Unit) -> Self {
        let positive = values.into_iter().filter(|value| value.is_finite() && *value > 0.0);
        let (min, max) = positive.fold((f64::INFINITY, 0.0_f64), |(min, max), value| (min.min(value), max.max(value)));
        if max == 0.0 {
            return Self::Log { min: 1.0, max: 10.0, unit };
        }
        let decade = |value: f64| 10_f64.powf(value.log10().floor());
        let steps = |value: f64| [1.0, 2.0, 5.0, 10.0].map(|m| m * decade(value));
        let low = steps(min).into_iter().rev().find(|step| *step <= min * 1.000_001).unwrap_or(min);
        let high = steps(max).into_iter().find(|step| *step >= max * 0.999_999).unwrap_or(max);
        // Less than a decade would make a wall of a ripple.
        if high / low < 9.0 {
            let low = decade(min);
            return Self::Log { min: low, max: high.max(low * 10.0), unit };
        }
        Self::Log { min: low, max: high, unit }
    }

    /// Up to the highest of some percentiles below 100.
    pub(crate) fn percentile(values: impl IntoIterator<Item = f64>) -> Self {
        let below_all = values.into_iter().filter(|p| *p < 100.0);
        let nines = below_all.map(nines).fold(2.0, f64::max);
        Self::Percentile { max: nines.min(6.0) }
    }

    /// Share of the axis's length, 0..=1.
    pub(crate) fn at(self, value: f64) -> f64 {
        let share = match self {
            Self::Linear { max, .. } => value / max,
            Self::Log { min, max, .. } => (value.max(min) / min).ln() / (max / min).ln(),
            Self::Percentile { max } => nines(value.min(99.999_999)) / max,
        };
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Positions of the ticks with their texts; an empty text for those between the labelled ones.
    pub(crate) fn ticks(self) -> Vec<(f64, String)> {
        match self {
            Self::Linear { max, unit } => {
                let step = step(max);
                let count = (max / step).round() as u32;
                (0..=count).map(|i| f64::from(i) * step).map(|value| (self.at(value), unit.tick(value))).collect()
            }
            Self::Log { min, max, unit } => {
                let (first, last) = (min.log10().floor() as i32, max.log10().ceil() as i32);
                // Over few decades the 2 and the 5 have a text too, or an axis could be without any.
                let labelled: &[u32] = if (max / min).log10() <= 2.0 { &[1, 2, 5] } else { &[1] };
                let decade = |power: i32| (1..10).map(move |m| (m, f64::from(m) * 10_f64.powi(power)));
                let within = |value: f64| value >= min * 0.999 && value <= max * 1.001;
                (first..=last)
                    .flat_map(decade)
                    .filter(|(_, value)| within(*value))
                    .map(|(m, value)| {
                        let text = if labelled.contains(&m) { unit.tick(value) } else { String::new() };
                        (self.at(value), text)
                    })
                    .collect()
            }
            Self::Percentile { max } => {
                let known = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999];
                let shown = known.into_iter().filter(|p| nines(*p) <= max + 1e-9);
                shown.map(|p| (self.at(p), if p < 99.9 { number(p) } else { p.to_string() })).collect()
            }
        }
    }
}

/// 0 -> 0, 90 -> 1, 99 -> 2, 99.9 -> 3.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}

/// A round step that cuts 0..=`highest` into four to eight parts.
fn step(highest: f64) -> f64 {
    if highest <= 0.0 {
        return 1.0;
    }
    let decade = 10_f64.powf(highest.log10().floor());
    let parts = highest / decade;
    decade
        * if parts <= 1.6 {
            0.25
        } else if parts <= 4.0 {
            0.5
        } else {
            1.0
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|(_, text)| text).filter(|text| !text.is_empty()).collect()
    }

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        let axis = Axis::linear([3.75e6, 0.4e6], Unit::Pps);
        assert_eq!(texts(axis).last().unwrap(), "4 Mpps");
        assert_eq!(texts(Axis::log([4.0, 1858.0], Unit::NsPerPacket)), ["10 ns", "100 ns", "1,000 ns"]);
        assert_eq!(texts(Axis::log([30.0, 90.0], Unit::NsPerPacket)), ["10 ns", "20 ns", "50 ns", "100 ns"]);
        assert_eq!(texts(Axis::percentile([50.0, 99.99])), ["0", "50", "90", "99", "99.9", "99.99"]);
    }

    #[test]
    fn nothing_to_draw_is_no_reason_to_fail() {
        for axis in [
            Axis::linear([], Unit::Pps),
            Axis::log([0.0, -3.0, f64::NAN], Unit::Ms),
            Axis::log([5.0], Unit::Ms),
            Axis::percentile([100.0]),
        ] {
            assert!(!axis.ticks().is_empty(), "{axis:?}");
            for value in [f64::NEG_INFINITY, -1.0, 0.0, 1.0, 1e300, f64::NAN] {
                assert!((0.0..=1.0).contains(&axis.at(value)), "{axis:?} {value}");
            }
        }
    }
}
