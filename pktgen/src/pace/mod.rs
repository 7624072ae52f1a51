//! When frames are due: a [`Schedule`] is pure arithmetic on what has been sent, and never asks a clock.
//!
//! A schedule counts work, in packets or in bits, and says at which time after the start the next frame is due. A delay that the
//! [`send`](crate::send) loop reports with [`Schedule::delayed`] is made up for at a rate of at most [`CATCH_UP`] above the
//! schedule's own, so that a sender that was held up does not hit its peer with a burst that nobody asked for; a delay above
//! [`CATCH_UP_NS`] is given up on. `n` threads share a schedule by taking every `n`-th part of its rate, shifted against each
//! other.

mod course;
mod departures;
mod outcome;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use course::{Course, CourseError};
pub use departures::{Departures, Percentiles};
pub use outcome::{PaceOutcome, RATE_ERROR_MAX};
use schemars::JsonSchema;
use serde::Serialize;

/// Ethernet's own per frame, in bytes: FCS, and on the wire preamble, start delimiter and gap (IEEE 802.3 §3.1.1, §4.4.2).
const FCS_BYTES: usize = 4;
const WIRE_BYTES: usize = FCS_BYTES + 8 + 12;
/// Fastest schedule: a frame a nanosecond is beyond every interface.
pub const PPS_MAX: f64 = 1e9;

/// Delay that is made up for: a hypervisor takes a core away for tens of milliseconds, and the rate holds all the same.
pub const CATCH_UP_NS: u64 = 100_000_000;
/// Share of the rate that is sent on top of it while a delay is made up for.
pub const CATCH_UP: f64 = 0.25;

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Packets.
    Packets,
    /// Bits on the wire: frame, FCS, preamble and the gap between frames.
    BitsL1,
    /// Bits of frames with FCS.
    BitsL2,
}

impl Unit {
    /// What a frame of `len` bytes without FCS counts.
    pub fn of(self, len: usize) -> f64 {
        match self {
            Self::Packets => 1.0,
            // Frames are shorter than 2^53 bits.
            Self::BitsL1 => ((len + WIRE_BYTES) * 8) as f64,
            Self::BitsL2 => ((len + FCS_BYTES) * 8) as f64,
        }
    }
}

impl Unit {
    /// What so many packets of so many bytes together count.
    pub fn total(self, packets: u64, bytes: u64) -> f64 {
        let (packets, bytes) = (packets as f64, bytes as f64);
        match self {
            Self::Packets => packets,
            Self::BitsL1 => (bytes + packets * WIRE_BYTES as f64) * 8.0,
            Self::BitsL2 => (bytes + packets * FCS_BYTES as f64) * 8.0,
        }
    }
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Packets => "pps",
            Self::BitsL1 => "bit/s (L1)",
            Self::BitsL2 => "bit/s (L2)",
        })
    }
}

/// The course of the rate. Rates are in units a second, all threads together.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "shape")]
pub enum Shape {
    /// As many as go.
    Max,
    /// Evenly spaced.
    Constant {
        /// Units a second.
        rate: f64,
    },
    /// Exponentially distributed gaps.
    Poisson {
        /// Mean, units a second.
        rate: f64,
        /// Of the random numbers.
        seed: u64,
    },
    /// Frames back to back, then a pause.
    Bursts {
        /// Frames of a burst.
        frames: u64,
        /// From the start of a burst to that of the next.
        every: Duration,
    },
    /// Linear from one rate to another, which is then kept.
    Ramp {
        /// At the start, units a second.
        from: f64,
        /// At the end, units a second.
        to: f64,
        /// Length of the ramp.
        over: Duration,
    },
    /// One rate after the other; the last one is kept.
    Steps {
        /// Units a second, and for how long.
        steps: Vec<(f64, Duration)>,
    },
    /// The times of the source itself, which only traces have.
    Trace {
        /// 2 is twice as fast.
        speed: f64,
    },
}

/// A pace that cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PaceError {
    /// Not a rate.
    #[error("a rate of {0:e} a second: give more than 0, and at most 1e9 packets or 1e13 bits")]
    Rate(f64),
    /// A burst or step of nothing.
    #[error("{0}: give at least one frame a burst, and a time above 0 for bursts, ramps and steps")]
    Empty(&'static str),
    /// Not a factor.
    #[error("a speed of {0}: give more than 0")]
    Speed(f64),
}

/// What is asked for: a course of the rate, and what it counts.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Pace {
    /// Course.
    #[serde(flatten)]
    pub shape: Shape,
    /// What rates count.
    pub unit: Unit,
}

impl Pace {
    /// As many as go.
    pub const MAX: Self = Self { shape: Shape::Max, unit: Unit::Packets };

    /// Evenly spaced packets.
    pub const fn constant_pps(rate: f64) -> Self {
        Self { shape: Shape::Constant { rate }, unit: Unit::Packets }
    }

    /// The same course with every rate multiplied: shares of a maximum become rates.
    #[must_use]
    pub fn times(mut self, factor: f64) -> Self {
        match &mut self.shape {
            Shape::Max | Shape::Trace { .. } => {}
            Shape::Constant { rate } | Shape::Poisson { rate, .. } => *rate *= factor,
            // A burst is as long; it comes more often.
            Shape::Bursts { every, .. } => *every = every.div_f64(factor),
            Shape::Ramp { from, to, .. } => (*from, *to) = (*from * factor, *to * factor),
            Shape::Steps { steps } => steps.iter_mut().for_each(|(rate, _)| *rate *= factor),
        }
        self
    }

    /// # Errors
    /// [`PaceError`]: zero, negative, not a number, or beyond every interface.
    pub fn check(&self) -> Result<(), PaceError> {
        let most = if self.unit == Unit::Packets { PPS_MAX } else { PPS_MAX * 1e4 };
        let rate = |rate: f64| if rate > 0.0 && rate <= most { Ok(()) } else { Err(PaceError::Rate(rate)) };
        match &self.shape {
            Shape::Max => Ok(()),
            Shape::Constant { rate: r } | Shape::Poisson { rate: r, .. } => rate(*r),
            Shape::Bursts { frames, every } if *frames == 0 || every.is_zero() => Err(PaceError::Empty("bursts")),
            Shape::Bursts { .. } => Ok(()),
            Shape::Ramp { over, .. } if over.is_zero() => Err(PaceError::Empty("a ramp")),
            Shape::Ramp { from, to, .. } => rate(*from).and_then(|()| rate(*to)),
            Shape::Steps { steps } if steps.is_empty() || steps.iter().any(|(_, time)| time.is_zero()) => {
                Err(PaceError::Empty("steps"))
            }
            Shape::Steps { steps } => steps.iter().try_for_each(|(r, _)| rate(*r)),
            Shape::Trace { speed } if *speed > 0.0 && speed.is_finite() => Ok(()),
            Shape::Trace { speed } => Err(PaceError::Speed(*speed)),
        }
    }

    /// The shortest regular gap between frames of one of `threads` threads, in nanoseconds; of frames of 60 bytes, where bits
    /// are counted. 0: there is none.
    pub fn gap_ns(&self, threads: u32) -> f64 {
        let rate = match &self.shape {
            Shape::Max | Shape::Bursts { .. } => return 0.0,
            Shape::Trace { .. } => return f64::INFINITY,
            Shape::Constant { rate } | Shape::Poisson { rate, .. } => *rate,
            Shape::Ramp { from, to, .. } => from.max(*to),
            Shape::Steps { steps } => steps.iter().fold(0.0, |most, (rate, _)| rate.max(most)),
        };
        self.unit.of(60) * f64::from(threads) * 1e9 / rate
    }

    /// Frames that leave together from one of `threads` threads, where frames due within `together_ns` do.
    pub fn batch(&self, threads: u32, together_ns: u64) -> u32 {
        match &self.shape {
            Shape::Max => u32::MAX,
            Shape::Bursts { frames, .. } => u32::try_from(*frames).unwrap_or(u32::MAX),
            // A gap of at least a nanosecond was checked.
            _ => ((together_ns as f64 / self.gap_ns(threads)).ceil() as u32).max(1),
        }
    }

    /// Units that are due in the first `elapsed` of the run, and the mean rate that this is; `None` where only the source
    /// knows (traces) or everything goes (max).
    pub fn requested(&self, elapsed: Duration) -> Option<f64> {
        let seconds = elapsed.as_secs_f64();
        let due = match &self.shape {
            Shape::Max | Shape::Trace { .. } => return None,
            Shape::Constant { rate } | Shape::Poisson { rate, .. } => return Some(*rate),
            Shape::Bursts { frames, every } => return Some(*frames as f64 / every.as_secs_f64()),
            Shape::Ramp { from, to, over } => {
                let over = over.as_secs_f64();
                let ramp = seconds.min(over);
                from * ramp + (to - from) * ramp * ramp / (2.0 * over) + to * (seconds - ramp)
            }
            Shape::Steps { steps } => {
                let mut left = seconds;
                let mut due = 0.0;
                for (index, (rate, time)) in steps.iter().enumerate() {
                    let time = if index + 1 == steps.len() { left } else { time.as_secs_f64().min(left) };
                    due += rate * time;
                    left -= time;
                }
                due
            }
        };
        (seconds > 0.0).then(|| due / seconds)
    }
}

/// When the frames of one thread are due.
#[derive(Clone, Debug)]
pub struct Schedule {
    pace: Pace,
    /// This thread takes one of so many parts.
    threads: f64,
    /// Units done by this thread.
    done: f64,
    /// Packets of other threads before the first of this one, so that together they are as even as one.
    ahead: f64,
    /// Frames of the present burst.
    burst: u64,
    /// Due time of the next frame, nanoseconds after the start, without what was postponed.
    due_ns: f64,
    random: fastrand::Rng,
    postponed_ns: u64,
    lag: Lag,
}

/// A delay that is being made up for, nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Lag {
    /// How much it was.
    ns: f64,
    /// For the frame that was due then.
    since_ns: f64,
}

impl Lag {
    /// What is left of it for the frame that is due at `due_ns` by the schedule alone.
    fn left_ns(self, due_ns: f64) -> f64 {
        // A rate that is so much higher has gaps that are this much shorter.
        const SHORTER: f64 = CATCH_UP / (1.0 + CATCH_UP);
        (self.ns - (due_ns - self.since_ns) * SHORTER).max(0.0)
    }
}

impl Schedule {
    /// The part of thread `thread` of `threads`.
    pub fn new(pace: &Pace, thread: u32, threads: u32) -> Self {
        let (part, threads) = (f64::from(thread), f64::from(threads.max(1)));
        // A thread's gaps are its own.
        let seed = if let Shape::Poisson { seed, .. } = pace.shape { seed } else { 0 };
        let mut schedule = Self {
            pace: pace.clone(),
            threads,
            done: 0.0,
            ahead: if pace.unit == Unit::Packets { part } else { 0.0 },
            burst: 0,
            due_ns: 0.0,
            random: fastrand::Rng::with_seed(seed.wrapping_add(u64::from(thread) << 32)),
            postponed_ns: 0,
            lag: Lag::default(),
        };
        schedule.due_ns = match &schedule.pace.shape {
            Shape::Poisson { .. } => schedule.gap_ns(1.0),
            Shape::Bursts { every, .. } => part * every.as_secs_f64() * 1e9,
            Shape::Max | Shape::Trace { .. } => 0.0,
            _ => schedule.course_ns(),
        };
        schedule
    }

    /// When the next frame is to leave, nanoseconds after the start; `None`: frames have no due times. `source_ns` is the
    /// source's own.
    pub fn due_ns(&self, source_ns: Option<u64>) -> Option<u64> {
        let planned = self.planned_ns(source_ns)?;
        Some((planned + self.lag.left_ns(planned)).ceil() as u64 + self.postponed_ns)
    }

    /// When it would leave if nothing had been late but what was given up on.
    pub fn on_time_ns(&self, source_ns: Option<u64>) -> Option<u64> {
        Some(self.planned_ns(source_ns)?.ceil() as u64 + self.postponed_ns)
    }

    fn planned_ns(&self, source_ns: Option<u64>) -> Option<f64> {
        match self.pace.shape {
            Shape::Max => None,
            // A trace of 104 days has times below 2^53 ns.
            Shape::Trace { speed } => Some(source_ns.unwrap_or(0) as f64 / speed),
            _ => Some(self.due_ns),
        }
    }

    /// The frame that was due, of `len` bytes, is on its way: what comes next?
    pub fn advance(&mut self, len: usize) {
        let work = self.pace.unit.of(len);
        self.done += work;
        match &self.pace.shape {
            Shape::Max | Shape::Trace { .. } => {}
            Shape::Poisson { .. } => self.due_ns += self.gap_ns(work),
            Shape::Bursts { frames, every } => {
                self.burst += 1;
                if self.burst == *frames {
                    self.burst = 0;
                    self.due_ns += every.as_secs_f64() * self.threads * 1e9;
                }
            }
            Shape::Constant { .. } | Shape::Ramp { .. } | Shape::Steps { .. } => self.due_ns = self.course_ns(),
        }
    }

    /// The next frame leaves so much later than due, and the ones behind it catch up. Returns whether the delay is given up
    /// on instead, because it is too long: everything that is left is due so much later then.
    pub fn delayed(&mut self, late_ns: u64, source_ns: Option<u64>) -> bool {
        let Some(planned) = self.planned_ns(source_ns) else { return false };
        let lag_ns = self.lag.left_ns(planned) + late_ns as f64;
        let too_long = lag_ns > CATCH_UP_NS as f64;
        if too_long {
            self.postponed_ns = self.postponed_ns.saturating_add(lag_ns as u64);
            self.lag = Lag::default();
        } else {
            self.lag = Lag { ns: lag_ns, since_ns: planned };
        }
        too_long
    }

    /// What was given up on.
    pub fn postponed_ns(&self) -> u64 {
        self.postponed_ns
    }

    /// When everything before the next frame has been done at a rate that follows from the time alone.
    fn course_ns(&self) -> f64 {
        let done = self.done * self.threads + self.ahead;
        let seconds = match &self.pace.shape {
            Shape::Constant { rate } => done / rate,
            Shape::Ramp { from, to, over } => ramp(*from, *to, *over, done),
            Shape::Steps { steps } => stairs(steps, done),
            Shape::Max | Shape::Poisson { .. } | Shape::Bursts { .. } | Shape::Trace { .. } => 0.0,
        };
        seconds * 1e9
    }

    /// The next exponentially distributed gap.
    fn gap_ns(&mut self, work: f64) -> f64 {
        let Shape::Poisson { rate, .. } = self.pace.shape else { return 0.0 };
        // 1 - u is in (0, 1], so the logarithm is finite.
        -(1.0 - self.random.f64()).ln() * work * self.threads * 1e9 / rate
    }
}

/// When `done` units are done on a ramp, in seconds: the inverse of the integral of the rate.
fn ramp(from: f64, to: f64, over: Duration, done: f64) -> f64 {
    let over = over.as_secs_f64();
    let slope = (to - from) / over;
    let all = (from + to) / 2.0 * over;
    if done >= all {
        return over + (done - all) / to;
    }
    // The numerically stable root: no cancellation where the slope is small or zero.
    2.0 * done / (from + (from * from + 2.0 * slope * done).max(0.0).sqrt())
}

/// When `done` units are done on stairs, in seconds.
fn stairs(steps: &[(f64, Duration)], done: f64) -> f64 {
    let (mut start, mut left) = (0.0, done);
    for (index, (rate, time)) in steps.iter().enumerate() {
        let time = time.as_secs_f64();
        if index + 1 == steps.len() || left < rate * time {
            return start + left / rate;
        }
        left -= rate * time;
        start += time;
    }
    start
}
