//! One sending thread: writes frames of a source into the slots of a back end, when the schedule wants them.
//!
//! A frame is written only into a reserved slot, so everything that a source has written is given to the kernel. Waiting is
//! sleeping as long as the scheduler is exact enough, then spinning; a back end that waits by itself gets frames ahead of time,
//! but never further than [`AHEAD_NS`], so that a stop is honoured within milliseconds. What is late by no more than a back end's
//! own batches leaves at once; longer delays are the [`Schedule`]'s to make up for, or to give up on (outages, a rate out of
//! reach), which shows in the achieved rate.

use std::time::Duration;

use crate::backend::{Tx, TxError};
use crate::clock::now_ns;
use crate::interface::Interface;
use crate::pace::{Departures, Pace, Schedule};
use crate::progress::Progress;
use crate::source::Source;

/// Frames, and time, that may be sent at once when they are late: about what the shortest queues on the way hold.
const AT_ONCE_FRAMES: f64 = 64.0;
const AT_ONCE_NS: f64 = 250_000.0;
/// How far ahead of their time frames are given to a back end that waits by itself.
pub const AHEAD_NS: u64 = 5_000_000;
/// Longest wait inside such a back end: soft interrupts are off meanwhile.
const WAIT_INSIDE_NS: u64 = 50_000;
/// What such a back end needs from the call to the first frame.
const LEAD_NS: u64 = 80_000;
/// Waits are slept up to this before their end: the scheduler is no more exact.
const SPIN_NS: u64 = 100_000;
/// Longest sleep, for the sake of a stop.
const SLEEP_MAX_NS: u64 = 2_000_000;
/// Between two looks at the interface.
const LOOK_NS: u64 = 1_000_000;
/// Signals that may interrupt the last frames.
const FINISH_TRIES: u32 = 100;
/// How long the kernel may take to send what it has been given.
const SETTLE_NS: u64 = 1_000_000_000;

/// Frames due within this time leave together, so that a dense schedule costs less than its gaps; 0: each by itself.
pub fn together_ns(gap_ns: f64) -> u64 {
    match gap_ns {
        gap if gap >= 4_000.0 => 0,
        gap if gap >= 1_000.0 => 4_000,
        _ => 16_000,
    }
}

/// How late frames may be and leave at once; `gap_ns` is infinite for traces, whose gaps are not regular.
fn at_once_ns(gap_ns: f64) -> u64 {
    let frames_ns = if gap_ns.is_finite() { AT_ONCE_FRAMES * gap_ns } else { 0.0 };
    frames_ns.max(AT_ONCE_NS) as u64
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Packets of the whole run.
    pub count: Option<u64>,
    /// Time since the start.
    pub duration: Option<Duration>,
}

/// What one thread is to do.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// Interface that it sends on, to notice that it is down or gone.
    pub interface: &'a Interface,
    /// Rate of all threads together, and which of them this is.
    pub pace: &'a Pace,
    /// This thread.
    pub thread: u32,
    /// All threads.
    pub threads: u32,
    /// When everything starts, CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// How many packets to send at most.
    pub packets: Option<u64>,
    /// When to stop at the latest, from then.
    pub duration: Option<Duration>,
    /// For who wants to watch, or to stop it.
    pub progress: &'a Progress,
}

/// What one thread has sent.
#[derive(Debug, Default)]
pub struct Sent {
    /// Packets given to the kernel.
    pub packets: u64,
    /// Bytes of frames.
    pub bytes: u64,
    /// Time that these packets fill: from the start to the last one, and the gap behind it where one is due.
    pub elapsed_ns: u64,
    /// Packets that the kernel took but has not confirmed to have sent.
    pub unconfirmed: u64,
    /// Times that the interface was down.
    pub outages: u64,
    /// How long it was down in all.
    pub outage_ns: u64,
    /// Delay of the schedule that was given up on, outages included.
    pub postponed_ns: u64,
    /// Gaps between departures; empty without a schedule.
    pub departures: Departures,
    /// Why it ended early; `None`: it did not.
    pub broke_off: Option<TxError>,
}

/// Sends until the source ends, the time is up, somebody stops it, or the interface is gone for good.
pub fn send<T: Tx + ?Sized, S: Source + ?Sized>(tx: &mut T, source: &mut S, job: &Job<'_>) -> Sent {
    let mut thread = Thread {
        tx,
        source,
        job,
        schedule: Schedule::new(job.pace, job.thread, job.threads),
        end_ns: job.duration.map_or(u64::MAX, |duration| {
            job.start_ns.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
        }),
        together_ns: together_ns(job.pace.gap_ns(job.threads)),
        at_once_ns: at_once_ns(job.pace.gap_ns(job.threads)),
        dues: Vec::new(),
        looked_ns: 0,
        sent: Sent::default(),
    };
    // Sleeps end up to 50 µs late by default. Where this fails they still do; the spin takes up less of it then.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    wait_until(job.start_ns, job.progress);
    if let Err(error) = thread.run() {
        thread.sent.broke_off = Some(error);
    }
    let now = now_ns();
    thread.sent.unconfirmed = thread.tx.settle(SETTLE_NS);
    let filled = thread.due().map_or(now, |due| due.min(thread.end_ns).max(now.min(thread.end_ns)));
    thread.sent.elapsed_ns = filled.saturating_sub(job.start_ns);
    thread.sent.postponed_ns = thread.schedule.postponed_ns();
    thread.sent
}

struct Thread<'a, T: ?Sized, S: ?Sized> {
    tx: &'a mut T,
    source: &'a mut S,
    job: &'a Job<'a>,
    schedule: Schedule,
    end_ns: u64,
    /// Frames due within this time leave together.
    together_ns: u64,
    /// Delay that needs no making up for.
    at_once_ns: u64,
    /// Due times of the frames that are not flushed yet, by the schedule alone.
    dues: Vec<u64>,
    /// When the interface was looked at last.
    looked_ns: u64,
    sent: Sent,
}

/// Why no more frames were written for now.
enum Pause {
    /// No slot, or the frames written are to leave before more are written.
    Flush,
    /// The next frame is due then.
    Until(u64),
    /// There are no more.
    End,
}

impl<T: Tx + ?Sized, S: Source + ?Sized> Thread<'_, T, S> {
    fn run(&mut self) -> Result<(), TxError> {
        while !self.job.progress.stopped() {
            let now = now_ns();
            if now >= self.end_ns {
                break;
            }
            if now.saturating_sub(self.looked_ns) >= LOOK_NS && !self.look(now)? {
                continue;
            }
            self.notice_delay(now);
            let before = (self.sent.packets, self.sent.bytes);
            let pause = self.write(now);
            self.job.progress.sent(self.sent.packets - before.0, self.sent.bytes - before.1);
            match self.flush(now) {
                Ok(()) | Err(TxError::Interrupted) => {}
                Err(TxError::Down) => self.looked_ns = 0,
                Err(error) => return Err(error),
            }
            match pause {
                Pause::Flush => {}
                Pause::Until(due) => wait_until(due.min(now.saturating_add(SLEEP_MAX_NS)), self.job.progress),
                Pause::End => break,
            }
        }
        self.finish()
    }

    /// What was written is sent, whatever interrupts it: its source counts it as sent.
    fn finish(&mut self) -> Result<(), TxError> {
        for _ in 0..FINISH_TRIES {
            match self.flush(now_ns()) {
                Err(TxError::Interrupted) => {}
                other => return other,
            }
        }
        Ok(())
    }

    /// When the next frame is due, CLOCK_MONOTONIC; `None`: at once.
    fn due(&self) -> Option<u64> {
        self.schedule.due_ns(self.source.due_ns()).map(|due| due.saturating_add(self.job.start_ns))
    }

    /// Writes what is due, or soon enough for a back end that waits.
    fn write(&mut self, now: u64) -> Pause {
        let horizon = if self.tx.waits() { now.saturating_add(LEAD_NS) } else { now };
        let mut before: Option<u64> = None;
        let mut leader: Option<u64> = None;
        loop {
            if self.job.packets.is_some_and(|packets| self.sent.packets >= packets) {
                return Pause::End;
            }
            let due = self.due();
            if let Some(due) = due {
                if due >= self.end_ns {
                    return Pause::End;
                }
                let follows = before.is_some_and(|before| due.saturating_sub(before) <= WAIT_INSIDE_NS);
                if due > horizon && !(self.tx.waits() && follows && due <= now.saturating_add(AHEAD_NS)) {
                    return if before.is_some() && self.tx.waits() {
                        Pause::Flush
                    } else {
                        Pause::Until(if self.tx.waits() { due.saturating_sub(LEAD_NS) } else { due })
                    };
                }
            }
            let on_time =
                self.schedule.on_time_ns(self.source.due_ns()).map(|due| due.saturating_add(self.job.start_ns));
            let Some(slot) = self.tx.slot() else { return Pause::Flush };
            let Some(frame) = self.source.next(due.unwrap_or(now).max(now), slot) else { return Pause::End };
            // Frames that are close together leave together, when the last of them is due.
            let leave = match due {
                Some(due) if leader.is_none_or(|leader| due > leader.saturating_add(self.together_ns)) => {
                    leader = Some(due);
                    due.saturating_add(self.together_ns).max(1)
                }
                _ => 0,
            };
            self.tx.push(frame, leave);
            self.dues.extend(on_time);
            before = due.or(before);
            self.schedule.advance(frame.len);
            self.sent.packets += 1;
            self.sent.bytes += u64::try_from(frame.len).unwrap_or(0);
        }
    }

    /// Gives the kernel what was written, and notes when it left.
    fn flush(&mut self, now: u64) -> Result<(), TxError> {
        let Self { tx, dues, sent, .. } = self;
        if dues.is_empty() {
            return tx.flush(&mut |_| {});
        }
        let mut flushed = dues.iter();
        let mut last = now;
        let result = tx.flush(&mut |left| {
            if left > 0 {
                last = left;
            }
            if let Some(due) = flushed.next() {
                sent.departures.record(*due, last);
            }
        });
        // What the back end does not know of left when it was given to the kernel.
        if !tx.waits() {
            flushed.for_each(|due| sent.departures.record(*due, now));
            dues.clear();
        } else {
            let rest = flushed.len();
            dues.drain(..dues.len() - rest);
        }
        result
    }

    fn notice_delay(&mut self, now: u64) {
        let late = self.due().map_or(0, |due| now.saturating_sub(due));
        if late > self.at_once_ns && self.schedule.delayed(late, self.source.due_ns()) {
            self.sent.departures.interrupt();
        }
    }

    /// Whether the interface is up; if it is not, waits until it is, or there is no more time.
    fn look(&mut self, now: u64) -> Result<bool, TxError> {
        self.looked_ns = now;
        if self.job.interface.is_running()? {
            return Ok(true);
        }
        self.sent.outages += 1;
        loop {
            std::thread::sleep(Duration::from_nanos(SLEEP_MAX_NS));
            let running = self.job.interface.is_running()?;
            let at = now_ns();
            if running || at >= self.end_ns || self.job.progress.stopped() {
                self.sent.outage_ns += at - now;
                self.looked_ns = at;
                return Ok(false);
            }
        }
    }
}

/// Sleeps, then spins until `at_ns`, or somebody says stop.
fn wait_until(at_ns: u64, progress: &Progress) {
    loop {
        let left = at_ns.saturating_sub(now_ns());
        if left == 0 || progress.stopped() {
            return;
        }
        if left > SPIN_NS {
            std::thread::sleep(Duration::from_nanos((left - SPIN_NS).min(SLEEP_MAX_NS)));
        } else {
            std::hint::spin_loop();
        }
    }
}
