//! The receiving side of a run.
//!
//! ```text
//! interface -> XDP program: counts (delivered) -> RX ring of its queue -> thread: judge -> checker, latencies (received)
//!                                             `-> ring full: missed, the receiver's own loss
//! ```
//! Queues are shared out over the receiving threads. Flows are sharded over [`Checkers`], since a flow may arrive on several
//! queues; frames are judged before a checker is locked.

pub mod check;
pub mod end;
mod field;
pub mod judge;
pub mod latency;
pub mod redirect;
pub mod side;

use std::io;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use field::{BadField, Field, FieldSet};

use crate::clock::now_ns;
use crate::progress::Progress;
use crate::umem::{Frame, KernelCounts, Receiver};
use check::{Checker, Extents, Sequence};
use judge::{Arrival, Judge, Reference, Verdict, take_note};
use latency::Latencies;

/// A run ends after this much time at the latest, or twice the time of silence asked for: packets may go round in circles.
const DRAIN_MAX_NS: u64 = 10_000_000_000;
const IDLE: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// How much is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// Every packet is taken to user space and compared with what was sent.
    #[default]
    Full,
    /// Packets are counted in XDP and dropped: for rates that user space cannot follow.
    Count,
    /// The same for every IP packet that arrives, stamped or not: for replayed captures.
    Any,
}

/// What the receiving side is asked to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Options {
    /// How much is checked.
    pub check: Check,
    /// Measure latencies.
    pub latency: bool,
    /// Header fields that the network is meant to change.
    pub expect: FieldSet,
    /// How long silence must last after the last packet was sent.
    pub drain: Duration,
    /// Look at the rings without ever sleeping.
    pub busy: bool,
}

/// What was found wrong with packets, whatever their sequence numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Faults {
    /// Payload, length or a checksum wrong, or stamp damaged.
    pub corrupt: u64,
    /// Those of them whose stamp cannot be read: which packet it was is not known.
    pub damaged: u64,
    /// Packets with a changed field that was not expected to change.
    pub rewritten: u64,
    /// How many of them by field, in the order of [`Field::ALL`].
    pub fields: [u64; Field::ALL.len()],
    /// Packets of which only expected fields were changed.
    pub expected: u64,
    /// Packets that reached a socket but are not of this run.
    pub foreign: u64,
    /// Smallest and largest fall of TTL or hop limit.
    pub hops: Option<(u8, u8)>,
}

impl Faults {
    fn count(&mut self, arrival: &Arrival, expect: FieldSet) {
        let verdict = match arrival {
            Arrival::Foreign => {
                self.foreign += 1;
                return;
            }
            Arrival::Damaged => {
                self.corrupt += 1;
                self.damaged += 1;
                return;
            }
            Arrival::Ours(verdict) => verdict,
        };
        if verdict.corrupt {
            self.corrupt += 1;
            return;
        }
        self.headers(verdict, expect);
    }

    fn headers(&mut self, verdict: &Verdict, expect: FieldSet) {
        if let Some(hops) = verdict.hops {
            let (min, max) = self.hops.unwrap_or((hops, hops));
            self.hops = Some((min.min(hops), max.max(hops)));
        }
        if verdict.changed.is_empty() {
            return;
        }
        let wrong = verdict.changed.without(expect);
        if wrong.is_empty() {
            self.expected += 1;
            return;
        }
        self.rewritten += 1;
        for ((_, field), count) in Field::ALL.into_iter().zip(&mut self.fields) {
            *count += u64::from(wrong.contains(field));
        }
    }
}

impl std::ops::AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.corrupt += other.corrupt;
        self.damaged += other.damaged;
        self.rewritten += other.rewritten;
        for (mine, other) in self.fields.iter_mut().zip(other.fields) {
            *mine += other;
        }
        self.expected += other.expected;
        self.foreign += other.foreign;
        self.hops = match (self.hops, other.hops) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (mine, other) => mine.or(other),
        };
    }
}

/// Checkers of a run, sharded by flow: flow f is judged by number f modulo their count.
#[derive(Debug)]
pub struct Checkers {
    shards: Vec<Mutex<Checker>>,
}

impl Checkers {
    /// For `flows` flows judged by `threads` threads: one shard where there is one thread, which then locks once for a burst.
    pub fn new(flows: u32, threads: usize) -> Self {
        let count = if threads <= 1 { 1 } else { (threads * 4).next_power_of_two() };
        let flows = usize::try_from(flows).unwrap_or(usize::MAX);
        Self { shards: (0..count).map(|_| Mutex::new(Checker::new(flows.div_ceil(count)))).collect() }
    }

    /// For a run that was judged elsewhere, with so many first arrivals of each flow.
    pub fn of_arrivals(arrivals: impl IntoIterator<Item = u64>) -> Self {
        Self { shards: vec![Mutex::new(Checker::of_arrivals(arrivals))] }
    }

    fn split(&self, flow: u32) -> (usize, u32) {
        let count = u32::try_from(self.shards.len()).unwrap_or(1);
        (usize::try_from(flow % count).unwrap_or(0), flow / count)
    }

    /// Counts a burst of arrivals: flow and sequence number.
    pub fn arrived(&self, burst: impl IntoIterator<Item = (u32, u32)>) {
        let mut held: Option<(usize, MutexGuard<'_, Checker>)> = None;
        for (flow, seq) in burst {
            let (shard, index) = self.split(flow);
            if held.as_ref().is_none_or(|(number, _)| *number != shard) {
                // Never two at once.
                drop(held.take());
                held = self.shards.get(shard).map(|checker| (shard, lock(checker)));
            }
            if let Some((_, checker)) = &mut held {
                checker.arrived(index, seq);
            }
        }
    }

    /// First arrivals of a flow.
    pub fn arrivals(&self, flow: u32) -> u64 {
        let (shard, index) = self.split(flow);
        self.shards.get(shard).map_or(0, |checker| lock(checker).arrivals(index))
    }

    /// Totals of all flows.
    pub fn totals(&self) -> (Sequence, Extents) {
        let mut totals = (Sequence::default(), Extents::default());
        for checker in &self.shards {
            let checker = lock(checker);
            totals.0 += checker.sequence();
            totals.1 += checker.extents();
        }
        totals
    }
}

/// A thread that panicked with the lock held has ended the run anyway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all receiving threads share.
pub struct Receiving<'a> {
    /// What was sent.
    pub reference: &'a dyn Reference,
    /// Of this run.
    pub magic: u32,
    /// What to do.
    pub options: &'a Options,
    /// Sequence numbers.
    pub checkers: &'a Checkers,
    /// Set when nothing more will be sent.
    pub sent_all: &'a AtomicBool,
    /// When any thread last received something, CLOCK_MONOTONIC in ns.
    pub last_ns: &'a AtomicU64,
    /// Live counts.
    pub progress: &'a Progress,
}

/// What one thread has received, or all together.
#[derive(Debug, Default)]
pub struct Received {
    /// Packets that came out of the sockets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Corruption and rewriting.
    pub faults: Faults,
    /// When the first packet was taken off a ring, and the last.
    pub span_ns: Option<(u64, u64)>,
    /// Latencies, where asked for.
    pub latency: Option<Latencies>,
    /// What the kernel counted on the sockets.
    pub kernel: KernelCounts,
}

impl Received {
    /// Adds what another thread has received.
    pub fn merge(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.faults += other.faults;
        self.span_ns = match (self.span_ns, other.span_ns) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (mine, other) => mine.or(other),
        };
        match (&mut self.latency, other.latency) {
            (Some(mine), Some(other)) => mine.merge(&other),
            (mine @ None, other) => *mine = other,
            (Some(_), None) => {}
        }
        self.kernel += other.kernel;
    }
}

/// Receives on some of the queues until everything has been sent and nothing has come for the time of silence, or what
/// comes does not end.
///
/// # Errors
/// What `poll` or `getsockopt` answered.
pub fn receive(receivers: &mut [Receiver], run: &Receiving<'_>) -> io::Result<Received> {
    let mut received = Received::default();
    if run.options.latency {
        received.latency = Some(Latencies::new(run.reference.streams()));
    }
    let mut judge = Judge::new(run.reference, run.magic);
    let mut end = Silence::new(run);
    let mut burst = Vec::new();
    let mut scratch = Scratch {
        stamps: Vec::new(),
        streams: vec![0; run.reference.streams()],
        parts: receivers.iter().map(|_| Vec::new()).collect(),
    };
    loop {
        let mut count = 0;
        for (receiver, number) in receivers.iter_mut().zip(0..) {
            let arrived = receiver.receive(&mut burst);
            if arrived > 0 {
                let now = now_ns();
                run.last_ns.fetch_max(now, Ordering::Relaxed);
                received.span_ns = Some((received.span_ns.map_or(now, |(first, _)| first), now));
                received.judge((receiver, number), &mut judge, run, &burst, &mut scratch, now);
                receiver.give_back(&mut burst);
                receiver.kick()?;
                count += arrived;
            }
        }
        if end.reached(run) {
            break;
        }
        if count > 0 || run.options.busy {
            continue;
        }
        if let Some(latency) = &mut received.latency {
            latency.publish(run.progress, now_ns());
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

/// Waits in `--check count`, where nothing comes to user space: `look` says how many packets XDP has counted.
///
/// # Errors
/// What `look` says.
pub(crate) fn wait<E>(run: &Receiving<'_>, mut look: impl FnMut() -> Result<u64, E>) -> Result<(), E> {
    let mut end = Silence::new(run);
    let mut before = 0;
    while !end.reached(run) {
        std::thread::sleep(Duration::from_nanos(IDLE.tv_nsec.unsigned_abs()));
        let now = look()?;
        if now != before {
            run.last_ns.fetch_max(now_ns(), Ordering::Relaxed);
            before = now;
        }
    }
    Ok(())
}

/// The end of a run: everything sent, then silence.
struct Silence {
    drain_ns: u64,
    since_ns: Option<u64>,
}

impl Silence {
    fn new(run: &Receiving<'_>) -> Self {
        Self { drain_ns: u64::try_from(run.options.drain.as_nanos()).unwrap_or(u64::MAX / 4), since_ns: None }
    }

    fn reached(&mut self, run: &Receiving<'_>) -> bool {
        if !run.sent_all.load(Ordering::Acquire) {
            return false;
        }
        let now = now_ns();
        let sent = *self.since_ns.get_or_insert(now);
        let quiet_ns = now.saturating_sub(run.last_ns.load(Ordering::Relaxed).max(sent));
        quiet_ns >= self.drain_ns || now - sent >= DRAIN_MAX_NS.max(self.drain_ns.saturating_mul(2))
    }
}

/// Buffers of a thread, for one burst.
struct Scratch {
    stamps: Vec<(u32, u32)>,
    /// Packets by stream.
    streams: Vec<u64>,
    /// By queue, what there is of a packet that takes several frames.
    parts: Vec<Vec<u8>>,
}

impl Scratch {
    /// Lets `judge` see a whole packet; `None` until its last frame has come.
    fn whole<T>(
        &mut self,
        (receiver, queue): (&Receiver, usize),
        frame: &Frame,
        judge: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        let parts = self.parts.get_mut(queue)?;
        if parts.is_empty() && !frame.goes_on() {
            return receiver.read(frame, judge);
        }
        receiver.read(frame, |bytes| parts.extend_from_slice(bytes))?;
        if frame.goes_on() {
            return None;
        }
        let judged = judge(parts);
        parts.clear();
        Some(judged)
    }
}

impl Received {
    fn judge(
        &mut self,
        queue: (&Receiver, usize),
        judge: &mut Judge<'_>,
        run: &Receiving<'_>,
        burst: &[Frame],
        scratch: &mut Scratch,
        now: u64,
    ) {
        let before = (self.packets, self.bytes, self.faults.corrupt, self.faults.rewritten);
        for frame in burst {
            let judged = scratch.whole(queue, frame, |bytes| {
                let (arrived_ns, frame) = take_note(bytes);
                (judge.judge(frame), arrived_ns, frame.len())
            });
            let Some((arrival, arrived_ns, len)) = judged else { continue };
            self.faults.count(&arrival, run.options.expect);
            if arrival == Arrival::Foreign {
                continue;
            }
            self.packets += 1;
            self.bytes += u64::try_from(len).unwrap_or(0);
            let Arrival::Ours(verdict) = arrival else { continue };
            scratch.stamps.push((verdict.stamp.flow, verdict.stamp.seq));
            let stream = run.reference.stream_of(verdict.stamp.flow);
            if let Some(count) = scratch.streams.get_mut(stream) {
                *count += 1;
            }
            if let Some(latency) = &mut self.latency {
                latency.record(stream, verdict.stamp.sent_ns, arrived_ns, now);
            }
        }
        run.checkers.arrived(scratch.stamps.drain(..));
        run.progress.received(self.packets - before.0, self.bytes - before.1);
        run.progress.faults(self.faults.corrupt - before.2, self.faults.rewritten - before.3);
        run.progress.streams(&mut scratch.streams);
        if let Some(latency) = &mut self.latency {
            latency.publish(run.progress, now);
        }
    }
}
