//! What a run has done so far, for those who look on: written by its threads once a burst, read at any time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hdrhistogram::Histogram;

use crate::clock::now_ns;
use crate::receive::check::Sequence;
use crate::receive::latency;
use crate::report::Quantiles;

/// Counts of a run in the making, and the means to end it early.
#[derive(Debug)]
pub struct Progress {
    started_ns: u64,
    sent: Pair,
    delivered: Pair,
    received: Pair,
    corrupt: AtomicU64,
    rewritten: AtomicU64,
    duplicate: AtomicU64,
    reordered: AtomicU64,
    streams: OnceLock<Vec<Stream>>,
    latencies: Mutex<Histogram<u64>>,
    /// The last ones of a far end, which keeps the histogram.
    far_latency: Mutex<Option<Quantiles>>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Pair {
    packets: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Debug)]
struct Stream {
    name: String,
    received: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            started_ns: now_ns(),
            sent: Pair::default(),
            delivered: Pair::default(),
            received: Pair::default(),
            corrupt: AtomicU64::new(0),
            rewritten: AtomicU64::new(0),
            duplicate: AtomicU64::new(0),
            reordered: AtomicU64::new(0),
            streams: OnceLock::new(),
            latencies: Mutex::new(latency::histogram()),
            far_latency: Mutex::new(None),
            stop: Arc::new(AtomicBool::new(false)),
        }
    }
}

impl Progress {
    /// A burst was sent.
    pub fn sent(&self, packets: u64, bytes: u64) {
        self.sent.add(packets, bytes);
    }

    /// A burst was taken off a ring.
    pub fn received(&self, packets: u64, bytes: u64) {
        self.received.add(packets, bytes);
    }

    /// The interface has delivered so much in all.
    pub fn delivered(&self, packets: u64, bytes: u64) {
        self.delivered.packets.store(packets, Ordering::Relaxed);
        self.delivered.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Corrupt and rewritten packets of a burst.
    pub fn faults(&self, corrupt: u64, rewritten: u64) {
        if corrupt + rewritten > 0 {
            self.corrupt.fetch_add(corrupt, Ordering::Relaxed);
            self.rewritten.fetch_add(rewritten, Ordering::Relaxed);
        }
    }

    /// What the sequence numbers say in all.
    pub fn sequence(&self, sequence: Sequence) {
        self.duplicate.store(sequence.duplicate, Ordering::Relaxed);
        self.reordered.store(sequence.reordered, Ordering::Relaxed);
    }

    /// Names the streams of the run, once.
    pub fn name_streams(&self, names: impl IntoIterator<Item = String>) {
        self.streams
            .get_or_init(|| names.into_iter().map(|name| Stream { name, received: AtomicU64::new(0) }).collect());
    }

    /// Packets of a burst by stream; the counts are taken.
    pub fn streams(&self, counts: &mut [u64]) {
        for (stream, count) in self.streams.get().into_iter().flatten().zip(counts) {
            if *count > 0 {
                stream.received.fetch_add(std::mem::take(count), Ordering::Relaxed);
            }
        }
    }

    /// Latencies measured since the last call.
    pub fn latencies(&self, recent: &Histogram<u64>) {
        // All have the same bounds.
        let _ = self.latencies.lock().unwrap_or_else(PoisonError::into_inner).add(recent);
    }

    /// What a far end has received so far.
    pub fn mirror(&self, far: &Snapshot) {
        let store = |count: &AtomicU64, value| count.store(value, Ordering::Relaxed);
        self.delivered(far.delivered.0, far.delivered.1);
        store(&self.received.packets, far.received.0);
        store(&self.received.bytes, far.received.1);
        for (count, value) in [
            (&self.corrupt, far.corrupt),
            (&self.rewritten, far.rewritten),
            (&self.duplicate, far.duplicate),
            (&self.reordered, far.reordered),
        ] {
            store(count, value);
        }
        for (stream, (_, received)) in self.streams.get().into_iter().flatten().zip(&far.streams) {
            store(&stream.received, *received);
        }
        if let Some(latency) = far.latency {
            *self.far_latency.lock().unwrap_or_else(PoisonError::into_inner) = Some(latency);
        }
    }

    /// Ends the run: senders stop, receivers wait for what is under way.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the run is to end.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// What [`stop`](Self::stop) sets, for a signal handler.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// What has been done so far. The latencies are those since the last call.
    pub fn snapshot(&self) -> Snapshot {
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let latency = (!latencies.is_empty()).then(|| Quantiles::of(&latencies));
        latencies.reset();
        drop(latencies);
        let latency = latency.or_else(|| self.far_latency.lock().unwrap_or_else(PoisonError::into_inner).take());
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Snapshot {
            elapsed_ns: now_ns() - self.started_ns,
            sent: self.sent.load(),
            delivered: self.delivered.load(),
            received: self.received.load(),
            corrupt: load(&self.corrupt),
            rewritten: load(&self.rewritten),
            duplicate: load(&self.duplicate),
            reordered: load(&self.reordered),
            streams: self.streams.get().into_iter().flatten().map(|s| (s.name.clone(), load(&s.received))).collect(),
            latency,
        }
    }
}

impl Pair {
    fn add(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn load(&self) -> (u64, u64) {
        (self.packets.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// What a run had done at one time; pairs are packets and bytes.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Snapshot {
    /// Since the start.
    pub elapsed_ns: u64,
    /// Sent.
    pub sent: (u64, u64),
    /// Delivered by the receiving interface.
    pub delivered: (u64, u64),
    /// Received in user space.
    pub received: (u64, u64),
    /// Corrupt packets.
    pub corrupt: u64,
    /// Packets with header fields that were not expected to change.
    pub rewritten: u64,
    /// Duplicates.
    pub duplicate: u64,
    /// Reordered packets.
    pub reordered: u64,
    /// Streams by name with the packets received.
    pub streams: Vec<(String, u64)>,
    /// Latencies since the snapshot before.
    pub latency: Option<Quantiles>,
}

/// One line of `--json-lines`: totals so far, and rates since the line before.
#[derive(Clone, Debug, serde::Serialize, schemars::JsonSchema)]
pub struct Line {
    /// Seconds since the start.
    pub seconds: f64,
    /// Sent.
    pub sent: Flow,
    /// Delivered by the receiving interface.
    pub delivered: Flow,
    /// Received in user space; what is missing towards `delivered` is under way in a ring, or missed.
    pub received: Flow,
    /// Corrupt packets.
    pub corrupt: u64,
    /// Rewritten packets.
    pub rewritten: u64,
    /// Duplicates.
    pub duplicate: u64,
    /// Reordered packets.
    pub reordered: u64,
    /// Latencies since the line before, in nanoseconds.
    pub latency: Option<Quantiles>,
}

/// Packets going by.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, schemars::JsonSchema)]
pub struct Flow {
    /// Packets so far.
    pub packets: u64,
    /// Bytes so far.
    pub bytes: u64,
    /// Packets a second since the line before.
    pub rate_pps: f64,
}

impl Line {
    /// What happened between two snapshots.
    pub fn between(before: &Snapshot, now: &Snapshot) -> Self {
        let seconds = now.elapsed_ns.saturating_sub(before.elapsed_ns) as f64 / 1e9;
        let flow = |before: (u64, u64), (packets, bytes): (u64, u64)| {
            let rate_pps = if seconds > 0.0 { packets.saturating_sub(before.0) as f64 / seconds } else { 0.0 };
            Flow { packets, bytes, rate_pps }
        };
        Self {
            seconds: now.elapsed_ns as f64 / 1e9,
            sent: flow(before.sent, now.sent),
            delivered: flow(before.delivered, now.delivered),
            received: flow(before.received, now.received),
            corrupt: now.corrupt,
            rewritten: now.rewritten,
            duplicate: now.duplicate,
            reordered: now.reordered,
            latency: now.latency,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_totals_and_rates() {
        let progress = Progress::default();
        progress.name_streams(["a".to_owned(), "b".to_owned()]);
        progress.sent(100, 6000);
        let before = Snapshot { elapsed_ns: 1_000_000_000, ..progress.snapshot() };
        progress.sent(50, 3000);
        progress.delivered(120, 7200);
        progress.streams(&mut [3, 4]);
        let mut recent = latency::histogram();
        recent.record(1000).unwrap();
        progress.latencies(&recent);
        let now = Snapshot { elapsed_ns: 1_500_000_000, ..progress.snapshot() };
        let line = Line::between(&before, &now);
        assert_eq!((line.sent.packets, line.sent.bytes, line.sent.rate_pps), (150, 9000, 100.0));
        assert_eq!((line.delivered.packets, line.delivered.rate_pps), (120, 240.0));
        assert_eq!(line.latency.map(|latency| latency.count), Some(1));
        assert_eq!(now.streams, [("a".to_owned(), 3), ("b".to_owned(), 4)]);
        assert_eq!(progress.snapshot().latency.map(|latency| latency.count), None);
    }
}
