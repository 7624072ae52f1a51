//! Changed, unchanged or inconclusive.
//!
//! A figure has changed when chance does not explain it (Benjamini-Hochberg at 5 % over all rows) and it moved further than
//! the margin below which nobody cares. It is unchanged when the whole interval lies within the margin: that is shown,
//! not assumed from a test that found nothing. All else is inconclusive.

use super::items::{Item, Values};
use super::stats::{self, Shift};

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Better,
    Worse,
    Unchanged,
    Inconclusive,
}

/// One figure of two results.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Change {
    pub(super) name: String,
    /// Medians, or lower bounds.
    pub(super) old: f64,
    pub(super) new: f64,
    #[serde(skip)]
    pub(super) unit: crate::report::figure::Unit,
    pub(super) lower_is_better: bool,
    /// Estimate and 95 % interval of the change, percent of the old figure; absent where the values allow none.
    pub(super) change_percent: f64,
    pub(super) low_percent: Option<f64>,
    pub(super) high_percent: Option<f64>,
    /// Probability of such a difference by chance, adjusted for the number of rows.
    pub(super) p: Option<f64>,
    pub(super) verdict: Verdict,
}

/// Compares what both sides have, in the order of the new one.
pub(super) fn changes(old: &[Item], new: &[Item], margin_percent: f64) -> Vec<Change> {
    let pairs: Vec<(&Item, &Item)> =
        new.iter().filter_map(|new| Some((old.iter().find(|old| old.name == new.name)?, new))).collect();
    let shifts: Vec<Option<Shift>> = pairs.iter().map(|(old, new)| relative(old, new)).collect();
    let tested: Vec<f64> = shifts.iter().flatten().map(|shift| shift.p).collect();
    let mut adjusted = stats::adjusted(&tested).into_iter();
    let judged = pairs.into_iter().zip(shifts).map(|((old, new), shift)| {
        let p = shift.and_then(|_| adjusted.next());
        judge(old, new, shift, p, margin_percent)
    });
    judged.collect()
}

/// The change in percent of the old figure; None where a side has one value only.
fn relative(old: &Item, new: &Item) -> Option<Shift> {
    let base = old.values.middle().abs().max(old.least);
    let percent = |value: f64| value / base * 100.0;
    match (&old.values, &new.values) {
        (Values::Many(old), Values::Many(new)) => {
            let shift = stats::shift(old, new)?;
            let Shift { estimate, low, high, p } = shift;
            Some(Shift { estimate: percent(estimate), low: percent(low), high: percent(high), p })
        }
        // Disjoint intervals are a change for certain, as far as the bounds hold.
        (Values::Between(old_low, old_high), Values::Between(new_low, new_high)) => {
            let (low, high) = (new_low - old_high, new_high - old_low);
            let p = if low > 0.0 || high < 0.0 { 0.0 } else { 1.0 };
            Some(Shift { estimate: percent(new_low - old_low), low: percent(low), high: percent(high), p })
        }
        _ => None,
    }
}

fn judge(old: &Item, new: &Item, shift: Option<Shift>, p: Option<f64>, margin: f64) -> Change {
    let (before, after) = (old.values.middle(), new.values.middle());
    let base = before.abs().max(old.least);
    // A nanosecond more or less is no change, however few there were.
    let margin = margin.max(old.least / base * 100.0);
    let estimate = shift.map_or((after - before) / base * 100.0, |shift| shift.estimate);
    let verdict = match shift {
        Some(shift) if shift.low >= -margin && shift.high <= margin => Verdict::Unchanged,
        Some(shift)
            if p.is_some_and(|p| p < 0.05) && (shift.low > 0.0 || shift.high < 0.0) && estimate.abs() > margin =>
        {
            if (estimate < 0.0) == new.lower_is_better {
                Verdict::Better
            } else {
                Verdict::Worse
            }
        }
        _ => Verdict::Inconclusive,
    };
    let finite = |value: f64| Some(value).filter(|value| value.is_finite());
    Change {
        name: new.name.clone(),
        old: before,
        new: after,
        unit: new.unit,
        lower_is_better: new.lower_is_better,
        change_percent: estimate,
        low_percent: shift.and_then(|shift| finite(shift.low)),
        high_percent: shift.and_then(|shift| finite(shift.high)),
        p,
        verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figure::Unit;

    fn item(name: usize, values: Vec<f64>) -> Item {
        let name = format!("prog case-{name}");
        Item { name, unit: Unit::NsPerPacket, lower_is_better: true, least: 1.0, values: Values::Many(values) }
    }

    /// Rounds of a noisy machine: a few percent of jitter, now and then a slow round.
    fn rounds(random: &mut fastrand::Rng, ns: f64, count: usize) -> Vec<f64> {
        let jitter = |random: &mut fastrand::Rng| (0..4).map(|_| random.f64() - 0.5).sum::<f64>() * 0.04;
        let round = |_| {
            let slow = if random.u8(..) < 12 { 1.0 + random.f64() * 0.5 } else { 1.0 };
            ns * (1.0 + jitter(random)) * slow
        };
        (0..count).map(round).collect()
    }

    #[test]
    fn the_same_values_in_another_order_raise_no_alarm() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let old: Vec<Item> = (0..60).map(|case| item(case, rounds(&mut random, 100.0, 9))).collect();
            let shuffled = |item: &Item| {
                let Values::Many(mut values) = item.values.clone() else { unreachable!() };
                random.shuffle(&mut values);
                Item { values: Values::Many(values), ..item.clone() }
            };
            let new: Vec<Item> = old.iter().map(shuffled).collect();
            for change in changes(&old, &new, 3.0) {
                assert!(matches!(change.verdict, Verdict::Unchanged | Verdict::Inconclusive), "{change:?}");
                assert!(change.p.unwrap() > 0.9, "{change:?}");
            }
        }
    }

    #[test]
    fn two_runs_of_one_build_raise_few_alarms_and_a_planted_change_is_found() {
        let (mut false_alarms, mut found, mut rows) = (0, 0, 0);
        for seed in 0..40 {
            let mut random = fastrand::Rng::with_seed(1_000 + seed);
            let old: Vec<Item> = (0..40).map(|case| item(case, rounds(&mut random, 100.0, 15))).collect();
            let mut new: Vec<Item> = (0..40).map(|case| item(case, rounds(&mut random, 100.0, 15))).collect();
            new[7] = item(7, rounds(&mut random, 110.0, 15));
            for (case, change) in changes(&old, &new, 3.0).into_iter().enumerate() {
                match change.verdict {
                    Verdict::Worse if case == 7 => found += 1,
                    Verdict::Better | Verdict::Worse => false_alarms += 1,
                    Verdict::Unchanged | Verdict::Inconclusive => rows += 1,
                }
            }
        }
        println!("{found} found, {false_alarms} false alarms");
        assert!(found >= 36, "{found} of 40 found");
        assert!(false_alarms <= 3, "{false_alarms} false alarms beside {rows} rows");
    }

    #[test]
    fn what_is_shown_equal_is_unchanged_and_what_is_not_is_inconclusive() {
        let flat = |value: f64| (0..9).map(|i| value + f64::from(i) * 0.01).collect::<Vec<_>>();
        let verdict = |old: Vec<f64>, new: Vec<f64>| changes(&[item(0, old)], &[item(0, new)], 3.0)[0].verdict;
        assert_eq!(verdict(flat(100.0), flat(100.5)), Verdict::Unchanged);
        assert_eq!(verdict(flat(100.0), flat(90.0)), Verdict::Better);
        assert_eq!(verdict(flat(100.0), flat(110.0)), Verdict::Worse);
        assert_eq!(verdict(vec![100.0; 3], vec![150.0; 3]), Verdict::Inconclusive);
        // Net of the harness there may be nothing left; a nanosecond is not a change of 400 %.
        assert_eq!(verdict(flat(0.1), flat(0.12)), Verdict::Unchanged);
    }

    #[test]
    fn bounds_change_when_they_are_apart() {
        let bounds =
            |low, high| Item { values: Values::Between(low, high), lower_is_better: false, ..item(0, Vec::new()) };
        let verdict = |old, new| changes(&[old], &[new], 3.0)[0].verdict;
        assert_eq!(verdict(bounds(100.0, 101.0), bounds(110.0, 111.0)), Verdict::Better);
        assert_eq!(verdict(bounds(100.0, 101.0), bounds(80.0, 81.0)), Verdict::Worse);
        assert_eq!(verdict(bounds(100.0, 101.0), bounds(100.5, 101.5)), Verdict::Unchanged);
        assert_eq!(verdict(bounds(100.0, f64::INFINITY), bounds(200.0, f64::INFINITY)), Verdict::Inconclusive);
    }
}
