//! Latencies: from the time in the stamp to the arrival, both CLOCK_MONOTONIC.
//!
//! Arrival is when the receiving program saw the packet, where it could put a note in front of it, and otherwise when it was
//! taken off the RX ring; the two are counted apart. The time between them is the receiver's own bias and has a
//! histogram of its own. Nothing is subtracted.

use hdrhistogram::Histogram;

use crate::clock::low_bits;
use crate::progress::Progress;

/// Longest latency that a stamp can tell: its clock has 32 bits of nanoseconds.
pub const LATENCY_MAX_NS: u64 = u32::MAX as u64;
const DIGITS: u8 = 3;
/// How often live figures are brought up to date.
const PUBLISH_NS: u64 = 200_000_000;

/// Histograms in nanoseconds.
#[derive(Debug)]
pub struct Latencies {
    /// One for each stream.
    pub streams: Vec<Histogram<u64>>,
    /// From the receiving program to user space.
    pub handover: Histogram<u64>,
    /// Packets whose arrival was noted by the receiving program.
    pub noted: u64,
    /// Packets whose arrival is that in user space.
    pub unnoted: u64,
    /// Since the live figures were last brought up to date.
    recent: Histogram<u64>,
    published_ns: u64,
}

impl Latencies {
    /// Empty ones for so many streams.
    pub fn new(streams: usize) -> Self {
        Self {
            streams: (0..streams).map(|_| histogram()).collect(),
            handover: histogram(),
            noted: 0,
            unnoted: 0,
            recent: histogram(),
            published_ns: 0,
        }
    }

    pub(super) fn record(&mut self, stream: usize, sent_ns: u32, arrived_ns: Option<u64>, now_ns: u64) {
        let arrived = arrived_ns.unwrap_or(now_ns);
        if let Some(arrived) = arrived_ns {
            self.noted += 1;
            self.handover.saturating_record(now_ns.saturating_sub(arrived));
        } else {
            self.unnoted += 1;
        }
        let latency = low_bits(arrived).wrapping_sub(sent_ns).into();
        if let Some(histogram) = self.streams.get_mut(stream) {
            histogram.saturating_record(latency);
        }
        self.recent.saturating_record(latency);
    }

    pub(super) fn publish(&mut self, progress: &Progress, now_ns: u64) {
        if now_ns.saturating_sub(self.published_ns) >= PUBLISH_NS {
            self.published_ns = now_ns;
            progress.latencies(&self.recent);
            self.recent.reset();
        }
    }

    /// Adds what another thread has measured.
    pub fn merge(&mut self, other: &Self) {
        for (mine, other) in self.streams.iter_mut().zip(&other.streams) {
            // Both have the same bounds, so nothing is out of range.
            let _ = mine.add(other);
        }
        let _ = self.handover.add(&other.handover);
        self.noted += other.noted;
        self.unnoted += other.unnoted;
    }

    /// All streams in one.
    pub fn overall(&self) -> Histogram<u64> {
        let mut all = histogram();
        for stream in &self.streams {
            let _ = all.add(stream);
        }
        all
    }
}

/// An empty histogram from 1 ns to [`LATENCY_MAX_NS`], exact to a thousandth.
#[expect(clippy::expect_used, reason = "the bounds are constants that the crate takes")]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, DIGITS).expect("1 < bound / 2, digits up to 5")
}
