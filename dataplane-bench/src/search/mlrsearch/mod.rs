//! Multiple Loss Ratio search (RFC 9971): the loads that bound several goals, found in one search.
//!
//! A goal says how much loss a trial may have, how long trials last, for how long a load is tried, and which share of
//! that time may exceed the loss. Every trial counts for every goal. The answer for a goal is the relevant lower and
//! upper bound, no further apart than the goal's width, and the conditional throughput: what the device forwarded at
//! the lower bound.
//!
//! The order of trials follows the reference implementation (MLRsearch 1.2.1 on PyPI), so that both arrive at the same
//! bounds over the same trials; `tests/reference` holds its answers.

mod bounds;
mod grid;
mod select;
#[cfg(test)]
mod tests;

use std::fmt;

use self::bounds::{Bounds, Database, Target};
use self::grid::{Grid, Load, Width};
use self::select::{Candidate, Selector};
use super::{Error, Outcome, Trials, require};

/// What to search for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Goal {
    /// What it is called in results, as "NDR".
    pub(crate) name: String,
    /// The loss ratio up to which a trial is good, 0 to 1 exclusive.
    pub(crate) loss_ratio: f64,
    /// The share of the duration sum that bad trials may take at a lower bound, 0 to 1 exclusive.
    pub(crate) exceed_ratio: f64,
    /// How near the bounds must be, relative to the upper one, 0 to 1 exclusive.
    pub(crate) width: f64,
    /// Shortest trial used on the way, in seconds.
    pub(crate) initial_trial_s: f64,
    /// Trials at least this long decide, in seconds.
    pub(crate) final_trial_s: f64,
    /// Time over which a load is tried before it is decided, in seconds.
    pub(crate) duration_sum_s: f64,
    /// Coarser targets passed on the way, each with twice the width and a shorter duration sum than the next.
    pub(crate) preceding_targets: u32,
    /// Factor by which an external step grows when it finds no bound. At least 2.
    pub(crate) expansion: u32,
}

impl Goal {
    /// No drops, with the constants that FD.io CSIT publishes: 1 s trials for 21 s, half of which may fail, width 0.5 %.
    pub(crate) fn ndr() -> Self {
        Self {
            name: "NDR 0 %".to_owned(),
            loss_ratio: 0.0,
            exceed_ratio: 0.5,
            width: 0.005,
            initial_trial_s: 1.0,
            final_trial_s: 1.0,
            duration_sum_s: 21.0,
            preceding_targets: 2,
            expansion: 2,
        }
    }

    /// Drops of 0.5 %, else as [`Goal::ndr`].
    pub(crate) fn pdr() -> Self {
        Self { name: "PDR 0.5 %".to_owned(), loss_ratio: 0.005, ..Self::ndr() }
    }

    /// The throughput of RFC 2544 (RFC 9971, section 4.10.2): the lower bound has passed one trial of 60 s without loss.
    pub(crate) fn rfc2544() -> Self {
        Self {
            name: "RFC 2544".to_owned(),
            exceed_ratio: 0.0,
            final_trial_s: 60.0,
            duration_sum_s: 60.0,
            ..Self::ndr()
        }
    }

    /// In what this goal is laxer than the throughput of RFC 2544; empty when its lower bound is one.
    pub(crate) fn deviations(&self) -> Vec<String> {
        let mut deviations = Vec::new();
        let mut unless = |holds: bool, text: String| {
            if !holds {
                deviations.push(text);
            }
        };
        unless(
            self.loss_ratio == 0.0,
            format!("{} of a trial may be lost; RFC 2544 allows no loss", percent(self.loss_ratio)),
        );
        // Budgets make odd durations; a hundredth of a second is what a reader wants.
        let trial = (self.final_trial_s * 100.0).round() / 100.0;
        unless(
            self.final_trial_s >= 60.0,
            format!("trials of {trial} s; RFC 2544 wants at least 60 s, and shorter ones find more"),
        );
        let exceed = percent(self.exceed_ratio);
        unless(
            self.exceed_ratio == 0.0,
            format!("{exceed} of the time at a load may exceed the loss; RFC 2544 allows none"),
        );
        deviations
    }

    fn check<E>(&self) -> Result<(), Error<E>> {
        let ratio = |value: f64| (0.0..1.0).contains(&value);
        let time = |value: f64| value.is_finite() && value > 0.0;
        require(&[
            (ratio(self.loss_ratio), "the loss ratio of a goal must be from 0 to below 1"),
            (ratio(self.exceed_ratio), "the exceed ratio of a goal must be from 0 to below 1"),
            (ratio(self.width) && self.width > 0.0, "the width of a goal must be above 0 and below 1"),
            (time(self.initial_trial_s), "the initial trial duration of a goal must be above 0"),
            (time(self.final_trial_s), "the final trial duration of a goal must be above 0"),
            (
                self.final_trial_s >= self.initial_trial_s,
                "the final trials of a goal cannot be shorter than the initial ones",
            ),
            (
                self.duration_sum_s.is_finite() && self.duration_sum_s >= self.final_trial_s,
                "the duration sum of a goal cannot be shorter than one of its final trials",
            ),
            (self.expansion >= 2, "the expansion coefficient of a goal must be at least 2"),
            (
                self.preceding_targets > 0 || self.initial_trial_s >= self.duration_sum_s,
                "a goal without preceding targets needs initial trials as long as its duration sum",
            ),
        ])
    }

    /// The targets of the goal, the final one first. Going back, widths double, and duration sums shrink by a constant
    /// factor to one initial trial.
    fn targets(&self, grid: &Grid) -> Vec<Target> {
        let shrink = (self.initial_trial_s / self.duration_sum_s).powf(1.0 / f64::from(self.preceding_targets.max(1)));
        let mut width = grid.width(self.width);
        let mut targets = Vec::new();
        for back in 0..=self.preceding_targets {
            let duration_sum_s = match back {
                0 => self.duration_sum_s,
                _ if back == self.preceding_targets => self.initial_trial_s,
                _ => self.duration_sum_s * shrink.powf(f64::from(back)),
            };
            targets.push(Target {
                loss_ratio: self.loss_ratio,
                exceed_ratio: self.exceed_ratio,
                width,
                trial_s: self.final_trial_s.min(duration_sum_s),
                duration_sum_s,
                expansion: self.expansion,
            });
            width = width.times(2);
        }
        targets
    }
}

fn percent(ratio: f64) -> String {
    format!("{} %", ratio * 100.0)
}

/// What holds for the search as a whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Config {
    /// Least load to measure, in packets per second; above 0. A goal whose lower bound would be below it has none.
    pub(crate) min_load: f64,
    /// Greatest load to measure, in packets per second.
    pub(crate) max_load: f64,
    /// Length of a first trial at the greatest load whose result is ignored, in seconds; 0 for none.
    pub(crate) warmup_s: f64,
    /// Time of trials after which the search gives up, in seconds.
    pub(crate) limit_s: f64,
    /// Ends the search as soon as a goal turns out to have no lower bound.
    pub(crate) fail_fast: bool,
}

impl Config {
    /// A search from `min_load` to `max_load` packets per second with one second of warm-up and a limit of 20 minutes.
    pub(crate) fn new(min_load: f64, max_load: f64) -> Self {
        Self { min_load, max_load, warmup_s: 1.0, limit_s: 1200.0, fail_fast: false }
    }

    fn check<E>(&self) -> Result<(), Error<E>> {
        require(&[
            (self.min_load.is_finite() && self.min_load > 0.0, "the least load must be above 0"),
            (self.max_load.is_finite() && self.max_load > self.min_load, "the greatest load must be above the least"),
            (self.warmup_s.is_finite() && self.warmup_s >= 0.0, "the warm-up cannot be negative"),
            (self.limit_s > 0.0, "the time limit of the search must be above 0"),
        ])
    }
}

/// Why a trial was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The result is ignored.
    Warmup,
    /// The first trial of a search.
    Greatest,
    /// At the rate forwarded at the greatest load.
    ForwardingRate,
    /// Next to it, to start from an interval.
    Interval,
    /// In the middle of the bounds of the coarser target.
    Halve,
    /// The lower bound of the coarser target, for the finer one.
    ConfirmLower,
    /// Its upper bound.
    ConfirmUpper,
    /// No lower bound yet.
    Down,
    /// No upper bound yet.
    Up,
    /// Between the bounds, near the upper one.
    DownInside,
    /// Between the bounds, near the lower one.
    UpInside,
    /// Between the bounds.
    Bisect,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warmup => "warm-up, ignored",
            Self::Greatest => "greatest load",
            Self::ForwardingRate => "forwarding rate",
            Self::Interval => "next to the forwarding rate",
            Self::Halve => "halves the coarser bounds",
            Self::ConfirmLower => "confirms the coarser lower bound",
            Self::ConfirmUpper => "confirms the coarser upper bound",
            Self::Down => "no lower bound yet",
            Self::Up => "no upper bound yet",
            Self::DownInside => "a step below the upper bound",
            Self::UpInside => "a step above the lower bound",
            Self::Bisect => "between the bounds",
        })
    }
}

/// One trial of a search, in the order made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trial {
    /// The load asked for, in packets per second.
    pub(crate) load_pps: f64,
    /// The duration asked for, in seconds.
    pub(crate) duration_s: f64,
    /// What came of it.
    pub(crate) outcome: Outcome,
    /// Why it was made.
    pub(crate) why: Why,
    /// The goal that asked for it, by its place in the list; `None` for the initial trials, which serve all.
    pub(crate) goal: Option<usize>,
}

/// The answer for one goal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GoalResult {
    /// What was searched for.
    pub(crate) goal: Goal,
    /// The relevant lower bound in packets per second. `None`: the least load is too much already.
    pub(crate) lower_pps: Option<f64>,
    /// The relevant upper bound in packets per second. `None`: the greatest load is a lower bound.
    pub(crate) upper_pps: Option<f64>,
    /// The rate forwarded at the lower bound, at the quantile of its trials that the exceed ratio leaves.
    pub(crate) conditional_throughput_pps: Option<f64>,
    /// The bounds are as near as the goal wants them, or one of them is a limit of the search.
    pub(crate) reached: bool,
}

impl GoalResult {
    /// Both bounds are there and near enough (RFC 9971, section 4.8.4.1).
    pub(crate) fn is_regular(&self) -> bool {
        self.reached && self.lower_pps.is_some() && self.upper_pps.is_some()
    }
}

/// Why a search has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All goals are reached.
    Done,
    /// The time limit.
    OutOfTime,
    /// A goal has no lower bound, and the search was to end then.
    NoLowerBound,
}

/// All that a search has found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Search {
    /// One result a goal, in the order of the goals.
    pub(crate) goals: Vec<GoalResult>,
    /// Every trial made, warm-up included.
    pub(crate) trials: Vec<Trial>,
    /// Time spent in trials, in seconds.
    pub(crate) seconds: f64,
    /// Why it ended.
    pub(crate) end: End,
}

/// Searches for all `goals` at once. A search that ends early still tells the bounds found so far.
///
/// Trials count with the duration asked for (the trial effective duration of RFC 9971 is the trial duration): a trial
/// cut short must report what it did not send.
///
/// # Errors
/// [`Error::Invalid`] for a goal or a configuration that makes no sense, [`Error::Trial`] for the first failed trial.
pub(crate) fn search<T: Trials>(goals: &[Goal], config: &Config, trials: &mut T) -> Result<Search, Error<T::Error>> {
    config.check()?;
    require(&[(!goals.is_empty(), "a search needs at least one goal")])?;
    goals.iter().try_for_each(Goal::check)?;
    let widths: Vec<f64> = goals.iter().map(|goal| goal.width).collect();
    let grid = Grid::new(config.min_load, config.max_load, &widths)?;
    let targets: Vec<Vec<Target>> = goals.iter().map(|goal| goal.targets(&grid)).collect();

    let mut run = Run { grid, config, trials, database: Database::default(), made: Vec::new(), seconds: 0.0 };
    let (low, high) = run.initial(&targets)?;
    let start = Bounds { lower: Some(low), upper: Some(high) };
    let selectors = targets.iter().filter_map(|targets| Selector::new(targets.clone(), start)).collect();
    let end = run.refine(selectors, high - low)?;
    let results = goals.iter().zip(&targets);
    let goals = results.filter_map(|(goal, targets)| Some(run.result(goal, targets.first()?))).collect();
    Ok(Search { goals, trials: run.made, seconds: run.seconds, end })
}

/// A search on its way.
struct Run<'a, T> {
    grid: Grid,
    config: &'a Config,
    trials: &'a mut T,
    database: Database,
    made: Vec<Trial>,
    seconds: f64,
}

impl<T: Trials> Run<'_, T> {
    fn measure(
        &mut self,
        load: Load,
        duration_s: f64,
        why: Why,
        goal: Option<usize>,
    ) -> Result<Outcome, Error<T::Error>> {
        let load_pps = self.grid.pps(load);
        let outcome = self.trials.trial(load_pps, duration_s).map_err(Error::Trial)?;
        if why != Why::Warmup {
            self.database.add(load, duration_s, outcome.loss_ratio());
        }
        self.seconds += duration_s.max(outcome.duration_s);
        self.made.push(Trial { load_pps, duration_s, outcome, why, goal });
        Ok(outcome)
    }

    /// Finds an interval to start from: the rate forwarded at the greatest load, and a load next to it, to suit the most
    /// demanding of the initial targets. One load twice where that is a limit of the search.
    fn initial(&mut self, targets: &[Vec<Target>]) -> Result<(Load, Load), Error<T::Error>> {
        let first = || targets.iter().filter_map(|targets| targets.last());
        let loss_ratio = first().map(|target| target.loss_ratio).fold(1.0, f64::min);
        let duration_s = first().map(|target| target.trial_s).fold(0.0, f64::max);
        let width = first().map(|target| target.width).fold(Width::ZERO, Width::max);

        let greatest = self.grid.greatest();
        if self.config.warmup_s > 0.0 {
            self.measure(greatest, self.config.warmup_s, Why::Warmup, None)?;
        }
        // The load at which the rate forwarded would just be within the loss ratio, were all load above it lost.
        let grid = self.grid;
        let bearable = |outcome: Outcome| grid.at_most(outcome.forwarding_rate() * (1.0 / (1.0 - loss_ratio)));

        let outcome = self.measure(greatest, duration_s, Why::Greatest, None)?;
        let Some(second) = grid.fit(bearable(outcome), width, None, Some(greatest)) else {
            return Ok((greatest, greatest));
        };
        let outcome = self.measure(second, duration_s, Why::ForwardingRate, None)?;
        let third = if outcome.loss_ratio() > loss_ratio {
            grid.fit(bearable(outcome), width, None, Some(second))
        } else {
            grid.fit(second + width, width, Some(second), Some(greatest))
        };
        let Some(third) = third else { return Ok((second, second)) };
        self.measure(third, duration_s, Why::Interval, None)?;
        Ok((second.min(third), second.max(third)))
    }

    /// Makes the best of the trials that the goals ask for, until none asks. On a tie the earlier goal is served.
    /// `shared`: the least external step, passed on from one goal to the next.
    fn refine(&mut self, mut selectors: Vec<Selector>, mut shared: Width) -> Result<End, Error<T::Error>> {
        while self.seconds < self.config.limit_s {
            let mut best: Option<(usize, Candidate)> = None;
            for (goal, selector) in selectors.iter_mut().enumerate() {
                let Some(candidate) = selector.nominate(&self.database, &self.grid, shared) else {
                    if self.config.fail_fast && self.database.bounds(selector.target()).lower.is_none() {
                        return Ok(End::NoLowerBound);
                    }
                    continue;
                };
                if best.is_none_or(|(_, best)| candidate.beats(&best, &self.grid)) {
                    best = Some((goal, candidate));
                }
            }
            let Some((goal, candidate)) = best else { return Ok(End::Done) };
            self.measure(candidate.load, candidate.duration_s, candidate.why, Some(goal))?;
            let wider = selectors.get_mut(goal).and_then(|selector| selector.measured(candidate.load, &self.database));
            shared = wider.unwrap_or(candidate.width);
        }
        Ok(End::OutOfTime)
    }

    fn result(&self, goal: &Goal, target: &Target) -> GoalResult {
        let Bounds { lower, upper } = self.database.bounds(target);
        let pps = |load: Load| self.grid.pps(load);
        GoalResult {
            goal: goal.clone(),
            lower_pps: lower.map(pps),
            upper_pps: upper.map(pps),
            conditional_throughput_pps: lower
                .map(|load| pps(load) * (1.0 - self.database.conditional_loss(load, target))),
            reached: match (lower, upper) {
                (Some(lower), Some(upper)) => upper - lower <= target.width,
                (Some(lower), None) => lower == self.grid.greatest(),
                (None, Some(upper)) => upper == Grid::LEAST,
                (None, None) => false,
            },
        }
    }
}
