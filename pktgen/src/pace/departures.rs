//! How exactly frames left: gaps between departures, and how far each was from what the schedule asked for.

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::Serialize;

/// Longest gap that is told apart: an hour.
const GAP_MAX_NS: u64 = 3_600_000_000_000;

/// Departures of one thread, or of several merged.
#[derive(Clone, Debug, Default)]
pub struct Departures {
    histograms: Option<Histograms>,
    /// Last departure and its due time.
    last: Option<(u64, u64)>,
}

#[derive(Clone, Debug)]
struct Histograms {
    gaps: Histogram<u64>,
    errors: Histogram<u64>,
}

impl Histograms {
    /// The bounds are constants that a histogram takes.
    fn new() -> Option<Self> {
        let new = || Histogram::new_with_bounds(1, GAP_MAX_NS, 3).ok();
        Some(Self { gaps: new()?, errors: new()? })
    }
}

/// Percentiles of times in nanoseconds, within 0.1 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Percentiles {
    /// Number of them.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Half are no longer.
    pub p50: u64,
    /// 99 % are no longer.
    pub p99: u64,
    /// 99.9 % are no longer.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            mean: histogram.mean(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
        }
    }
}

impl Departures {
    /// A frame that was due at `due_ns` left at `left_ns`; frames come in the order in which they left.
    pub fn record(&mut self, due_ns: u64, left_ns: u64) {
        if let Some((due_before, left_before)) = self.last {
            let (gap, wanted) = (left_ns.saturating_sub(left_before), due_ns.saturating_sub(due_before));
            if let Some(histograms) = self.histograms() {
                histograms.gaps.saturating_record(gap);
                histograms.errors.saturating_record(gap.abs_diff(wanted));
            }
        }
        self.last = Some((due_ns, left_ns));
    }

    /// The next departure has none before it: after an outage.
    pub fn interrupt(&mut self) {
        self.last = None;
    }

    /// Adds what another thread has recorded.
    pub fn merge(&mut self, other: &Self) {
        if let (Some(mine), Some(other)) = (self.histograms(), &other.histograms) {
            // Both have the same bounds.
            let _ = mine.gaps.add(&other.gaps);
            let _ = mine.errors.add(&other.errors);
        }
    }

    /// They take 400 KB, so only who records has them.
    fn histograms(&mut self) -> Option<&mut Histograms> {
        if self.histograms.is_none() {
            self.histograms = Histograms::new();
        }
        self.histograms.as_mut()
    }

    /// Gaps between departures of one thread.
    pub fn gaps(&self) -> Percentiles {
        self.histograms.as_ref().map(|histograms| Percentiles::of(&histograms.gaps)).unwrap_or_default()
    }

    /// Differences between gaps and what the schedule asked for.
    pub fn errors(&self) -> Percentiles {
        self.histograms.as_ref().map(|histograms| Percentiles::of(&histograms.errors)).unwrap_or_default()
    }
}
