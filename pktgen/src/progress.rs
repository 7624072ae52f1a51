//! What a run has done so far, for those who look on: written by its threads once a burst, read at any time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;

use crate::receive::latency;

/// Counts of a run in the making, and the means to end it early.
#[derive(Debug)]
pub struct Progress {
    sent_packets: AtomicU64,
    sent_bytes: AtomicU64,
    received_packets: AtomicU64,
    received_bytes: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
    stop: AtomicBool,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            sent_packets: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            received_packets: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            latencies: Mutex::new(latency::histogram()),
            stop: AtomicBool::new(false),
        }
    }
}

impl Progress {
    /// A burst was sent.
    pub fn sent(&self, packets: u64, bytes: u64) {
        self.sent_packets.fetch_add(packets, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A burst was taken off a ring.
    pub fn received(&self, packets: u64, bytes: u64) {
        self.received_packets.fetch_add(packets, Ordering::Relaxed);
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Latencies measured since the last call.
    pub fn latencies(&self, recent: &Histogram<u64>) {
        // All have the same bounds.
        let _ = self.latencies.lock().unwrap_or_else(PoisonError::into_inner).add(recent);
    }

    /// Ends the run: senders stop, receivers wait for what is under way.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the run is to end.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
