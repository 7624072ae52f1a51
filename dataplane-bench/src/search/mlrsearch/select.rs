//! Which trial would help one goal most.
//!
//! A goal is approached through coarser targets. For each target the loads that bounded the one before are confirmed
//! first; where one of them fails, the search leaves the interval in steps that grow (external search); once there are
//! two bounds, it cuts between them (internal search) until they are within the target's width.

use super::Why;
use super::bounds::{Bounds, Database, Target};
use super::grid::{Grid, Load, Width, middle};

/// The trial that a goal asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) load: Load,
    pub(super) duration_s: f64,
    /// The step that led here; the next external search of any goal starts with it.
    pub(super) width: Width,
    pub(super) why: Why,
}

impl Candidate {
    /// Whether this is worth measuring before `other`: small loads first, as they end a hopeless search early and their
    /// upper bounds hold for all above; then longer trials, then wider steps.
    pub(super) fn beats(&self, other: &Candidate, grid: &Grid) -> bool {
        let (mine, others) = (grid.capped(self.width), grid.capped(other.width));
        let order = self.load.cmp(&other.load).then(other.duration_s.total_cmp(&self.duration_s));
        order.then(others.cmp(&mine)).is_lt()
    }
}

/// The way of one goal through its targets.
#[derive(Debug)]
pub(super) struct Selector {
    /// Targets not reached yet, the final one first, the current one last.
    ahead: Vec<Target>,
    current: Target,
    /// The bounds of the target before, or the interval found by the initial trials.
    start: Bounds,
    /// How far the next external step goes.
    step: Width,
    /// What the last nomination was for.
    last: Option<Why>,
}

impl Selector {
    /// `targets`: the final one first.
    pub(super) fn new(mut targets: Vec<Target>, start: Bounds) -> Option<Self> {
        let current = targets.pop()?;
        let mut selector = Self { ahead: targets, current, start, step: current.width, last: None };
        selector.begin();
        Some(selector)
    }

    /// Sets the first external step of the current target: beyond the interval that it starts from.
    fn begin(&mut self) {
        let span = self.start.lower.zip(self.start.upper).map_or(self.current.width, |(lower, upper)| upper - lower);
        self.next_step_after(span);
    }

    fn next_step_after(&mut self, width: Width) {
        self.step = width.max(self.current.width).times(self.current.expansion);
    }

    pub(super) fn target(&self) -> &Target {
        &self.current
    }

    /// The next trial for this goal; `None` once the final target is reached, or cannot be.
    pub(super) fn nominate(&mut self, database: &Database, grid: &Grid, shared: Width) -> Option<Candidate> {
        loop {
            let bounds = database.bounds(&self.current);
            if let Some((load, width, why)) = self.choose(bounds, grid, shared.max(self.step)) {
                self.last = Some(why);
                return Some(Candidate { load, duration_s: self.current.trial_s, width, why });
            }
            self.current = self.ahead.pop()?;
            self.start = bounds;
            self.begin();
        }
    }

    /// The trial that was nominated has been made: an external step that found no bound on the far side grows. The new
    /// step, if so.
    pub(super) fn measured(&mut self, load: Load, database: &Database) -> Option<Width> {
        let bounds = database.bounds(&self.current);
        let missed = match self.last? {
            Why::Down | Why::DownInside => bounds.upper == Some(load),
            Why::Up | Why::UpInside => bounds.lower == Some(load),
            _ => false,
        };
        missed.then(|| {
            self.step = self.step.times(self.current.expansion);
            self.step
        })
    }

    fn choose(&mut self, bounds: Bounds, grid: &Grid, step: Width) -> Option<(Load, Width, Why)> {
        self.halve(bounds)
            .or_else(|| self.confirm(self.start.lower, bounds, Why::ConfirmLower))
            .or_else(|| self.confirm(self.start.upper, bounds, Why::ConfirmUpper))
            .or_else(|| self.leave(bounds, grid, step))
            .or_else(|| self.cut(bounds, grid, step))
    }

    /// The interval of the target before, up to twice too wide, is cut before its ends are confirmed: that saves
    /// confirming one of them.
    fn halve(&mut self, bounds: Bounds) -> Option<(Load, Width, Why)> {
        let (lower, upper) = self.start.lower.zip(self.start.upper)?;
        let width = self.current.width;
        if upper - lower > width.times(2) || upper - lower <= width {
            return None;
        }
        let load = middle(lower, upper, width);
        self.confirm(Some(load), bounds, Why::Halve)
    }

    /// `load`, where it would still tell something.
    fn confirm(&mut self, load: Option<Load>, bounds: Bounds, why: Why) -> Option<(Load, Width, Why)> {
        let load = load.filter(|load| self.tells(bounds, *load))?;
        self.next_step_after(self.current.width);
        Some((load, self.current.width, why))
    }

    /// Whether a trial at `load` can narrow the bounds, and they need it.
    fn tells(&self, bounds: Bounds, load: Load) -> bool {
        let wide = bounds.lower.zip(bounds.upper).is_none_or(|(lower, upper)| upper - lower > self.current.width);
        wide && bounds.lower.is_none_or(|lower| lower < load) && bounds.upper.is_none_or(|upper| load < upper)
    }

    /// External search, where a bound is missing.
    fn leave(&self, bounds: Bounds, grid: &Grid, step: Width) -> Option<(Load, Width, Why)> {
        let (wish, why) = match (bounds.lower, bounds.upper) {
            (None, Some(upper)) if upper > Grid::LEAST => (upper - step, Why::Down),
            (Some(lower), None) if lower < grid.greatest() => (lower + step, Why::Up),
            _ => return None,
        };
        let load = grid.fit(wish, self.current.width, bounds.lower, bounds.upper)?;
        Some((load, step, why))
    }

    /// Internal search. Where the interval reaches beyond the one that the search started from, a step away from the
    /// bound on that side may be a better guess than the middle.
    fn cut(&mut self, bounds: Bounds, grid: &Grid, step: Width) -> Option<(Load, Width, Why)> {
        let (lower, upper) = bounds.lower.zip(bounds.upper)?;
        if upper - lower <= self.current.width {
            return None;
        }
        let half = middle(lower, upper, self.current.width);
        let fit = |wish| grid.fit(wish, self.current.width, Some(lower), Some(upper));
        let down = self
            .start
            .upper
            .filter(|start| half < *start)
            .and_then(|start| fit(upper - step).filter(|load| half < *load && *load < start));
        if let Some(load) = down {
            return Some((load, step, Why::DownInside));
        }
        let up = self
            .start
            .lower
            .filter(|start| *start < half)
            .and_then(|start| fit(lower + step).filter(|load| start < *load && *load < half));
        if let Some(load) = up {
            return Some((load, step, Why::UpInside));
        }
        let width = (half - lower).min(upper - half);
        self.next_step_after(width);
        Some((half, width, Why::Bisect))
    }
}
