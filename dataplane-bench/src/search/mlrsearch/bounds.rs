//! What the trials so far say about a load: is it a lower bound of a target, an upper one, or not known yet?

use std::collections::BTreeMap;

use super::grid::{Load, Width};

/// A goal, or one of the coarser targets on the way to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Target {
    pub(super) loss_ratio: f64,
    pub(super) exceed_ratio: f64,
    pub(super) width: Width,
    /// Trials at least this long decide; shorter ones only hint.
    pub(super) trial_s: f64,
    pub(super) duration_sum_s: f64,
    pub(super) expansion: u32,
}

/// One trial at some load.
#[derive(Clone, Copy, Debug)]
struct Seen {
    duration_s: f64,
    loss_ratio: f64,
}

/// The relevant bounds of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Bounds {
    /// The greatest load that is a lower bound and below `upper`.
    pub(super) lower: Option<Load>,
    /// The least load that is an upper bound.
    pub(super) upper: Option<Load>,
}

/// All trials, by load.
#[derive(Debug, Default)]
pub(super) struct Database {
    loads: BTreeMap<Load, Vec<Seen>>,
}

impl Database {
    pub(super) fn add(&mut self, load: Load, duration_s: f64, loss_ratio: f64) {
        self.loads.entry(load).or_default().push(Seen { duration_s, loss_ratio });
    }

    /// The relevant bounds. Loss may fall where the load rises (an inversion); lower bounds above an upper one do not
    /// count.
    pub(super) fn bounds(&self, target: &Target) -> Bounds {
        let mut bounds = Bounds::default();
        for (&load, trials) in &self.loads {
            match classify(trials, target) {
                Some(true) => bounds.lower = Some(load),
                Some(false) => {
                    bounds.upper = Some(load);
                    break;
                }
                None => {}
            }
        }
        bounds
    }

    /// The loss ratio that stands for `load` in the conditional throughput (RFC 9971, appendix B): of the long trials,
    /// that at the quantile which the exceed ratio leaves; time not yet measured counts as lost completely.
    pub(super) fn conditional_loss(&self, load: Load, target: &Target) -> f64 {
        let mut long: Vec<Seen> = self.loads.get(&load).map_or_else(Vec::new, |trials| {
            trials.iter().copied().filter(|seen| seen.duration_s >= target.trial_s).collect()
        });
        long.sort_by(|a, b| a.loss_ratio.total_cmp(&b.loss_ratio));
        let measured: f64 = long.iter().map(|seen| seen.duration_s).sum();
        let mut left = target.duration_sum_s.max(measured) * (1.0 - target.exceed_ratio);
        for alike in long.chunk_by(|a, b| a.loss_ratio == b.loss_ratio) {
            left -= alike.iter().map(|seen| seen.duration_s).sum::<f64>();
            if let Some(seen) = alike.first().filter(|_| left <= 0.0) {
                return seen.loss_ratio;
            }
        }
        1.0
    }
}

/// Whether a load with these `trials` is a lower bound of `target`; `None` while more trials could still turn it (RFC
/// 9971, appendix A). Time missing to the duration sum is filled with good trials, then with bad ones; the load is
/// decided when both agree.
///
/// Short trials: good ones never make a lower bound, they only excuse as many bad ones as the exceed ratio allows. Bad
/// ones beyond that count as bad long ones: what fails in a short time would have failed in a long one.
fn classify(trials: &[Seen], target: &Target) -> Option<bool> {
    let time = |long: bool, good: bool| -> f64 {
        let counted = trials.iter().filter(|seen| {
            (seen.duration_s >= target.trial_s) == long && (seen.loss_ratio <= target.loss_ratio) == good
        });
        counted.map(|seen| seen.duration_s).sum()
    };
    let ratio = target.exceed_ratio;
    let excused = time(false, true) * ratio / (1.0 - ratio);
    let bad = time(true, false) + (time(false, false) - excused).max(0.0);
    let good = time(true, true);
    let whole = (good + bad).max(target.duration_sum_s);
    let allowed = whole * ratio;
    let (if_all_good, if_all_bad) = (bad <= allowed, whole - good <= allowed);
    (if_all_good == if_all_bad).then_some(if_all_good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::mlrsearch::grid::Grid;

    fn target(exceed_ratio: f64) -> Target {
        let width = Grid::new::<()>(1.0, 2.0, &[0.1]).unwrap().width(0.1);
        Target { loss_ratio: 0.0, exceed_ratio, width, trial_s: 1.0, duration_sum_s: 21.0, expansion: 2 }
    }

    fn seen(duration_s: f64, loss_ratio: f64, times: usize) -> Vec<Seen> {
        vec![Seen { duration_s, loss_ratio }; times]
    }

    #[test]
    fn a_load_is_decided_as_soon_as_nothing_can_turn_it() {
        let half = target(0.5);
        assert_eq!(classify(&seen(1.0, 0.0, 10), &half), None);
        assert_eq!(classify(&seen(1.0, 0.0, 11), &half), Some(true));
        assert_eq!(classify(&seen(1.0, 0.1, 10), &half), None);
        assert_eq!(classify(&seen(1.0, 0.1, 11), &half), Some(false));
        assert_eq!(classify(&[seen(1.0, 0.1, 10), seen(1.0, 0.0, 10)].concat(), &half), None);
        // Without a share that may fail, one bad trial decides, and only the whole sum makes a lower bound.
        let none = target(0.0);
        assert_eq!(classify(&seen(1.0, 1e-9, 1), &none), Some(false));
        assert_eq!(classify(&seen(1.0, 0.0, 20), &none), None);
        assert_eq!(classify(&seen(1.0, 0.0, 21), &none), Some(true));
    }

    /// The example of RFC 9971, appendix C: 122 trials at one load, looked at from four goals at six moments.
    #[test]
    fn the_rfcs_example_is_classified_as_printed() {
        let goal = |trial_s, duration_sum_s, loss_ratio, exceed_ratio| Target {
            trial_s,
            duration_sum_s,
            loss_ratio,
            ..target(exceed_ratio)
        };
        let goals = [
            goal(60.0, 60.0, 0.0, 0.0),
            goal(60.0, 120.0, 0.0, 0.5),
            goal(1.0, 120.0, 0.005, 0.5),
            goal(60.0, 60.0, 0.005, 0.2),
        ];
        let added = [
            seen(1.0, 0.0, 59),
            seen(1.0, 0.01, 1),
            seen(1.0, 0.01, 59),
            seen(1.0, 0.0, 1),
            seen(60.0, 0.001, 1),
            seen(60.0, 0.0, 1),
        ];
        let (lower, upper) = (Some(true), Some(false));
        let printed = [
            [None, None, None, None],
            [upper, None, None, None],
            [upper, None, None, upper],
            [upper, None, lower, upper],
            // The last column is printed as a lower bound from here on, with an exceed ratio of 42.857 %, later 27 %:
            // more than the 20 % of the goal, so an upper bound by the code of appendix A.
            [upper, None, lower, upper],
            [upper, lower, lower, upper],
        ];
        let mut trials = Vec::new();
        for (point, (added, printed)) in added.into_iter().zip(printed).enumerate() {
            trials.extend(added);
            assert_eq!(goals.map(|goal| classify(&trials, &goal)), printed, "point {}", point + 1);
        }
        let mut database = Database::default();
        for trial in trials {
            database.add(Grid::LEAST, trial.duration_s, trial.loss_ratio);
        }
        let losses = goals.map(|goal| database.conditional_loss(Grid::LEAST, &goal));
        assert_eq!(losses[1..], [0.0, 0.0, 0.001]);
    }

    #[test]
    fn short_trials_excuse_or_condemn_but_never_prove() {
        let half = target(0.5);
        assert_eq!(classify(&seen(0.5, 0.0, 1000), &half), None);
        assert_eq!(classify(&seen(0.5, 0.1, 22), &half), Some(false));
        assert_eq!(classify(&[seen(0.5, 0.1, 22), seen(0.5, 0.0, 22)].concat(), &half), None);
    }

    #[test]
    fn the_conditional_loss_is_a_quantile_with_the_unmeasured_lost() {
        let load = Grid::LEAST;
        let mut database = Database::default();
        for loss in [0.0, 0.3, 0.1, 0.2, 0.0] {
            database.add(load, 1.0, loss);
        }
        let with = |duration_sum_s| Target { duration_sum_s, ..target(0.5) };
        assert_eq!(database.conditional_loss(load, &with(5.0)), 0.1);
        assert_eq!(database.conditional_loss(load, &with(4.0)), 0.1);
        assert_eq!(database.conditional_loss(load, &with(10.0)), 0.3);
        assert_eq!(database.conditional_loss(load, &with(21.0)), 1.0);
    }
}
