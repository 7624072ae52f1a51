//! Replay: the frames of a capture as a [`Source`], with the times of the capture, changed on the way, in loops.
//!
//! ```text
//! file -> Capture -> Rewrite (once, in memory) -> Replay -> ReplaySource of each thread -> PerLoop (turn by turn)
//! ```
//!
//! Frames of a connection, both directions, belong to one thread and so leave in their order. Replayed frames carry no
//! stamp: a receiver can count them but not check them.

mod capture;
mod rewrite;

use std::sync::Arc;

pub use capture::{Capture, CaptureError, CaptureErrorKind, LinkType, Record, Snapped};
pub use rewrite::{BadRewrite, Mapping, PerLoop, Rewrite, Vlan};

use crate::source::{Source, Written};

/// How a capture is replayed.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many times; none: until the run's own limit.
    pub loops: Option<u64>,
    /// Changes to every frame.
    pub rewrite: Rewrite,
    /// Changes from loop to loop.
    pub per_loop: PerLoop,
}

impl Default for Options {
    fn default() -> Self {
        Self { loops: Some(1), rewrite: Rewrite::default(), per_loop: PerLoop::default() }
    }
}

/// A capture that is ready to be sent; clones share its frames.
#[derive(Clone, Debug)]
pub struct Replay {
    capture: Arc<Capture>,
    options: Arc<Options>,
    /// From the first frame of a loop to the first of the next.
    period_ns: u64,
}

impl Replay {
    /// Applies the rewriting to a capture. Between loops lies the mean gap of the capture.
    pub fn new(capture: &Capture, options: Options) -> Self {
        let mut changed = capture.empty();
        let mut frame = Vec::new();
        for record in capture.iter() {
            frame.clear();
            frame.extend_from_slice(record.frame);
            options.rewrite.apply(&mut frame);
            changed.push(record.offset_ns, &frame, frame.len());
        }
        let duration_ns = capture.duration_ns();
        let gaps = u64::try_from(capture.len().saturating_sub(1)).unwrap_or(u64::MAX).max(1);
        let period_ns = duration_ns.saturating_add(duration_ns / gaps);
        Self { capture: Arc::new(changed), options: Arc::new(options), period_ns }
    }

    /// Frames that will be sent; `None`: no end.
    pub fn packets(&self) -> Option<u64> {
        let each = u64::try_from(self.capture.len()).unwrap_or(u64::MAX);
        self.options.loops.map(|loops| loops.saturating_mul(each))
    }

    /// Bytes of the longest frame.
    pub fn longest(&self) -> usize {
        self.capture.longest()
    }

    /// Whether an interface with this MTU takes every frame; VLAN tags are extra.
    ///
    /// # Errors
    /// [`CaptureErrorKind::TooLong`] for the first that is longer.
    pub fn fits(&self, mtu: usize) -> Result<(), CaptureError> {
        self.capture.fits(mtu)
    }

    /// What one of `threads` threads sends: the connections that fall to it.
    pub fn source(&self, thread: u32, threads: u32) -> ReplaySource {
        let of = |frame: &[u8]| rewrite::flow(frame).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let mine = |frame: &[u8]| of(frame) % u64::from(threads.max(1)) == u64::from(thread);
        let frames = self.capture.iter().enumerate().filter(|(_, record)| mine(record.frame)).map(|(index, _)| index);
        ReplaySource { replay: self.clone(), frames: frames.collect(), next: 0, turn: 0, count: u64::MAX }
    }
}

/// The frames of one thread.
#[derive(Debug)]
pub struct ReplaySource {
    replay: Replay,
    frames: Vec<usize>,
    next: usize,
    turn: u64,
    /// Frames of the whole run.
    count: u64,
}

impl ReplaySource {
    /// Stops after the first `count` frames of the run, whichever thread they fall to.
    #[must_use]
    pub fn limited(self, count: u64) -> Self {
        Self { count, ..self }
    }

    fn record(&self) -> Option<Record<'_>> {
        if self.replay.options.loops.is_some_and(|loops| self.turn >= loops) {
            return None;
        }
        let index = *self.frames.get(self.next)?;
        let each = u64::try_from(self.replay.capture.len()).unwrap_or(u64::MAX);
        let number = self.turn.saturating_mul(each).saturating_add(u64::try_from(index).unwrap_or(u64::MAX));
        self.replay.capture.get(index).filter(|_| number < self.count)
    }
}

impl Source for ReplaySource {
    fn longest(&self) -> usize {
        self.replay.longest()
    }

    fn due_ns(&self) -> Option<u64> {
        let offset_ns = self.record()?.offset_ns;
        Some(self.turn.saturating_mul(self.replay.period_ns).saturating_add(offset_ns))
    }

    fn next(&mut self, _now_ns: u64, out: &mut [u8]) -> Option<Written> {
        let record = self.record()?;
        let len = record.frame.len();
        let out = out.get_mut(..len)?;
        out.copy_from_slice(record.frame);
        self.replay.options.per_loop.apply(out, self.turn, &self.replay.options.rewrite);
        self.next += 1;
        if self.next == self.frames.len() {
            (self.next, self.turn) = (0, self.turn + 1);
        }
        Some(Written { len, late: None })
    }
}

#[cfg(test)]
mod tests;
