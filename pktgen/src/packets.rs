//! What a run sends: packets made to a plan, or the frames of a capture.

use crate::receive::judge::{Reference, Shape};
use crate::replay::{Replay, ReplaySource};
use crate::scenario::Scenario;
use crate::source::{Source, Written};
use crate::traffic::{Plan, PlanSource, Share, TrafficError};

/// What is ready to be sent.
#[derive(Debug)]
pub(crate) enum Packets {
    /// Streams.
    Plan(Plan),
    /// A capture.
    Replay(Replay),
}

impl Packets {
    /// The capture, or else the streams of the scenario.
    ///
    /// # Errors
    /// Packets that cannot be made.
    pub(crate) fn new(scenario: &Scenario, replay: Option<&Replay>, magic: u32) -> Result<Self, TrafficError> {
        Ok(match replay {
            Some(replay) => Self::Replay(replay.clone()),
            None => Self::Plan(Plan::new(scenario, magic)?),
        })
    }

    /// The streams, where there are any.
    pub(crate) fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Plan(plan) => Some(plan),
            Self::Replay(_) => None,
        }
    }

    /// Bytes of the longest frame.
    pub(crate) fn longest(&self) -> usize {
        match self {
            Self::Plan(plan) => Reference::longest(plan),
            Self::Replay(replay) => replay.longest(),
        }
    }

    /// What arrives is compared with this.
    pub(crate) fn reference(&self) -> &dyn Reference {
        match self {
            Self::Plan(plan) => plan,
            Self::Replay(_) => &Unstamped,
        }
    }

    /// What one thread sends, of `count` packets in all.
    ///
    /// # Errors
    /// A stream with too few flows for the threads.
    pub(crate) fn source(&self, share: Share, count: Option<u64>) -> Result<PacketSource, TrafficError> {
        Ok(match self {
            Self::Plan(plan) => {
                let source = plan.source(share)?;
                PacketSource::Plan(match count {
                    Some(count) => source.limited(count),
                    None => source,
                })
            }
            Self::Replay(replay) => {
                let source = replay.source(share.thread, share.threads);
                PacketSource::Replay(source.limited(count.unwrap_or(u64::MAX)))
            }
        })
    }
}

/// The packets of one thread.
#[derive(Debug)]
pub(crate) enum PacketSource {
    /// Of a plan.
    Plan(PlanSource),
    /// Of a capture.
    Replay(ReplaySource),
}

impl PacketSource {
    /// That of a plan.
    pub(crate) fn plan(self) -> Option<PlanSource> {
        match self {
            Self::Plan(source) => Some(source),
            Self::Replay(_) => None,
        }
    }
}

impl Source for PacketSource {
    fn longest(&self) -> usize {
        match self {
            Self::Plan(source) => source.longest(),
            Self::Replay(source) => source.longest(),
        }
    }

    fn due_ns(&self) -> Option<u64> {
        match self {
            Self::Plan(source) => source.due_ns(),
            Self::Replay(source) => source.due_ns(),
        }
    }

    fn next(&mut self, now_ns: u64, out: &mut [u8]) -> Option<Written> {
        match self {
            Self::Plan(source) => source.next(now_ns, out),
            Self::Replay(source) => source.next(now_ns, out),
        }
    }
}

/// Nothing to compare with: what arrives is only counted.
struct Unstamped;

impl Reference for Unstamped {
    fn flows(&self) -> u32 {
        0
    }

    fn streams(&self) -> usize {
        0
    }

    fn stream_of(&self, _flow: u32) -> usize {
        0
    }

    fn longest(&self) -> usize {
        0
    }

    fn write(&self, _flow: u32, _seq: u32, _sent_ns: u32, _out: &mut [u8]) -> usize {
        0
    }

    fn shape(&self, _flow: u32, _seq: u32) -> Option<Shape> {
        None
    }
}
