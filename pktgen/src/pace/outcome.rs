//! What was asked of the pace and what became of it.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Departures, Pace, Percentiles};
use crate::send::Sent;

/// A run is invalid when its rate is off by more than this share.
pub const RATE_ERROR_MAX: f64 = 0.005;

/// The pace of a run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PaceOutcome {
    /// What was asked for.
    #[serde(flatten)]
    pub pace: Pace,
    /// Mean rate asked for over the time of the run, in its unit a second; none: as many as go, or a trace's own times.
    pub requested: Option<f64>,
    /// Mean rate achieved, in the same unit.
    pub achieved: f64,
    /// What went at most in a short run before, where rates are percentages of it, in packets a second.
    pub maximum_pps: Option<f64>,
    /// How far the achieved rate is from the requested one, as a share of it.
    pub rate_error: Option<f64>,
    /// Whether it is within 0.5 %. A trial that is not says nothing about what it was to load.
    pub valid: bool,
    /// Delay that was given up on rather than made up for, outages included, of the thread that had most.
    pub postponed_ns: u64,
    /// Gaps between the departures of each thread.
    pub gap_ns: Option<Percentiles>,
    /// Differences between these gaps and those of the schedule.
    pub gap_error_ns: Option<Percentiles>,
}

impl PaceOutcome {
    /// What `sent` is, measured by `pace`.
    pub fn new(pace: &Pace, sent: &[&Sent]) -> Self {
        let elapsed = Duration::from_nanos(sent.iter().map(|thread| thread.elapsed_ns).max().unwrap_or(0));
        // Bits add up from bytes and packets.
        let units: f64 = sent.iter().map(|thread| pace.unit.total(thread.packets, thread.bytes)).sum();
        let seconds = elapsed.as_secs_f64();
        let achieved = if seconds > 0.0 { units / seconds } else { 0.0 };
        let requested = pace.requested(elapsed);
        let rate_error = requested.map(|requested| (achieved - requested).abs() / requested);
        let mut departures = Departures::default();
        sent.iter().for_each(|thread| departures.merge(&thread.departures));
        let recorded = departures.gaps().count > 0;
        Self {
            pace: pace.clone(),
            requested,
            achieved,
            maximum_pps: None,
            rate_error,
            valid: rate_error.is_none_or(|error| error <= RATE_ERROR_MAX),
            postponed_ns: sent.iter().map(|thread| thread.postponed_ns).max().unwrap_or(0),
            gap_ns: recorded.then(|| departures.gaps()),
            gap_error_ns: recorded.then(|| departures.errors()),
        }
    }
}

impl fmt::Display for PaceOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.pace.unit;
        match (self.requested, self.rate_error) {
            (Some(requested), Some(error)) => {
                let verdict = if self.valid { "" } else { ": INVALID, off by more than 0.5 %" };
                let error = error * 100.0;
                writeln!(
                    f,
                    "pace      {requested:.0} {unit} requested, {:.0} achieved ({error:.3} % off{verdict})",
                    self.achieved
                )?;
            }
            _ => writeln!(f, "pace      as requested: {:.0} {unit} achieved", self.achieved)?,
        }
        if let Some(maximum) = self.maximum_pps {
            writeln!(f, "          rates are percentages of {maximum:.0} pps, measured by a short run before")?;
        }
        if self.postponed_ns > 0 {
            writeln!(f, "          {:.3} ms of delay were not made up for", self.postponed_ns as f64 / 1e6)?;
        }
        if let (Some(gap), Some(error)) = (&self.gap_ns, &self.gap_error_ns) {
            writeln!(
                f,
                "gaps      p50 {} p99 {} p99.9 {} max {} ns between departures",
                gap.p50, gap.p99, gap.p999, gap.max
            )?;
            writeln!(
                f,
                "          p50 {} p99 {} p99.9 {} max {} ns off the schedule's",
                error.p50, error.p99, error.p999, error.max
            )?;
        }
        Ok(())
    }
}
