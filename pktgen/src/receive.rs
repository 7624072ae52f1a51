//! The receiving thread: every queue of the interface, one checker, one histogram.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::check::Checker;
use crate::clock::{low_bits, now_ns};
use crate::stamp::{Arrival, judge};
use crate::umem::{Frame, KernelCounts, Receiver};

/// Longest latency that a stamp can tell: its clock has 32 bits of nanoseconds.
const LATENCY_MAX_NS: u64 = u32::MAX as u64;
/// A run ends after this much time at the latest, or twice the time of silence asked for: packets may go round in circles.
const DRAIN_MAX_NS: u64 = 10_000_000_000;
const IDLE: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// What has been received.
#[derive(Debug)]
pub struct Received {
    /// Judgement of every packet.
    pub checker: Checker,
    /// Bytes of intact frames as they arrived.
    pub bytes: u64,
    /// Time from the first arrival to the last.
    pub elapsed_ns: u64,
    /// Latencies in nanoseconds, where asked for.
    pub latency: Option<Histogram<u64>>,
    /// What the kernel counted on the sockets.
    pub kernel: KernelCounts,
}

/// Receives until `sent_all` is set and nothing has come for `drain` since, or what comes does not end.
///
/// # Errors
/// What `poll` or `getsockopt` answered.
pub fn receive(
    receivers: &mut [Receiver],
    magic: u32,
    flows: u32,
    latency: bool,
    drain: Duration,
    sent_all: &AtomicBool,
) -> io::Result<Received> {
    // Bounds of the histogram are constants that it takes.
    let histogram = if latency { Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).ok() } else { None };
    let checker = Checker::new(flows);
    let mut received =
        Received { checker, bytes: 0, elapsed_ns: 0, latency: histogram, kernel: KernelCounts::default() };
    let drain_ns = u64::try_from(drain.as_nanos()).unwrap_or(u64::MAX);
    let mut first_ns = None;
    let (mut quiet_since, mut sent_ns) = (None, None);
    let mut burst = Vec::new();
    loop {
        let mut count = 0;
        for receiver in receivers.iter_mut() {
            let arrived = receiver.receive(&mut burst);
            if arrived > 0 {
                let now = now_ns();
                let first = *first_ns.get_or_insert(now);
                received.elapsed_ns = now - first;
                received.judge(receiver, magic, &burst, now);
                receiver.give_back(&mut burst);
                receiver.kick()?;
                count += arrived;
            }
        }
        if sent_all.load(Ordering::Acquire) {
            let now = now_ns();
            let quiet_ns = if count == 0 { now - *quiet_since.get_or_insert(now) } else { 0 };
            let over_ns = now - *sent_ns.get_or_insert(now);
            if quiet_ns >= drain_ns || over_ns >= DRAIN_MAX_NS.max(drain_ns.saturating_mul(2)) {
                break;
            }
        }
        if count > 0 {
            quiet_since = None;
            continue;
        }
        let mut fds: Vec<PollFd<'_>> =
            receivers.iter().map(|receiver| PollFd::from_borrowed_fd(receiver.as_fd(), PollFlags::IN)).collect();
        match poll(&mut fds, Some(&IDLE)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for receiver in receivers.iter() {
        received.kernel += receiver.kernel_counts()?;
    }
    Ok(received)
}

impl Received {
    fn judge(&mut self, receiver: &Receiver, magic: u32, burst: &[Frame], now: u64) {
        for frame in burst {
            let arrival = receiver.read(frame, |bytes| judge(magic, bytes)).unwrap_or(Arrival::Foreign);
            if let Arrival::Intact(stamp) = arrival {
                self.bytes += u64::try_from(frame.len()).unwrap_or(0);
                if let Some(histogram) = &mut self.latency {
                    histogram.saturating_record(low_bits(now).wrapping_sub(stamp.sent_ns).into());
                }
            }
            self.checker.arrived(arrival);
        }
    }
}
