//! One thread's share of a run: which packet is next.

use std::cmp::Ordering;

use rand_core::RngCore as _;

use super::arithmetic::{Ranks, SplitMix, below, mix};
use super::error::{Fault, Place, TrafficError};
use super::plan::{Plan, StreamPlan};
use crate::clock::low_bits;
use crate::scenario::Order;
use crate::source::{Source, Written};
use crate::stamp::Stamp;

/// The flows `thread`, `thread + threads`, ... of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which thread, from 0.
    pub thread: u32,
    /// How many there are.
    pub threads: u32,
}

impl Share {
    /// Everything.
    pub const ALL: Self = Self { thread: 0, threads: 1 };
}

/// Writes the packets of one share. Streams take turns by weight, in each the flows by its order.
#[derive(Debug)]
pub struct PlanSource {
    plan: Plan,
    share: Share,
    /// Packets that are still to be written.
    left: u64,
    /// Position in the round of streams.
    turn: usize,
    cursors: Vec<Cursor>,
}

/// What has been written of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Packets.
    pub packets: u64,
    /// Bytes of frames, without FCS.
    pub bytes: u64,
}

/// Where a stream has got to.
#[derive(Debug)]
struct Cursor {
    /// Number in the run of the share's first flow in the stream.
    first: u32,
    /// Flows of the share in the stream.
    flows: u32,
    walk: Walk,
    written: Volume,
}

#[derive(Debug)]
enum Walk {
    /// Round after round: the number that all flows are at, the flow whose turn it is, and how many of its fragments have
    /// been sent of how many.
    Rounds { seq: u64, at: u32, sent: u32, pieces: u32 },
    /// Any flow may be next, so each counts its own packets. Of the one that was drawn last so many fragments are left.
    Drawn { random: SplitMix, ranks: Option<Ranks>, sent: Vec<u64>, flow: u32, left: u32 },
}

impl Cursor {
    /// The flow that is next, counted within the share, and its sequence number.
    #[inline]
    fn next(&mut self, stream: &StreamPlan) -> (u32, u64) {
        match &mut self.walk {
            Walk::Rounds { seq, at, sent, pieces } => {
                let next = (*at, *seq + u64::from(*sent));
                *sent += 1;
                if *sent == *pieces {
                    (*sent, *at) = (0, *at + 1);
                    if *at == self.flows {
                        (*seq, *at) = (*seq + u64::from(*pieces), 0);
                        *pieces = stream.pieces(low_bits(*seq));
                    }
                }
                next
            }
            Walk::Drawn { random, ranks, sent, flow, left } => {
                if *left == 0 {
                    *flow = match ranks {
                        Some(ranks) => ranks.draw(random),
                        None => below(random.next_u64(), self.flows),
                    };
                }
                let Some(count) = usize::try_from(*flow).ok().and_then(|flow| sent.get_mut(flow)) else {
                    return (*flow, 0);
                };
                if *left == 0 {
                    *left = stream.pieces(low_bits(*count));
                }
                *left -= 1;
                *count += 1;
                (*flow, *count - 1)
            }
        }
    }

    /// Whether the next packet is a fragment of the same datagram.
    #[inline]
    fn is_within(&self) -> bool {
        match &self.walk {
            Walk::Rounds { sent, .. } => *sent > 0,
            Walk::Drawn { left, .. } => *left > 0,
        }
    }

    fn sent_of(&self, flow: u32) -> Option<u64> {
        match &self.walk {
            Walk::Rounds { seq, at, sent, pieces } => Some(match flow.cmp(at) {
                Ordering::Less => seq + u64::from(*pieces),
                Ordering::Equal => seq + u64::from(*sent),
                Ordering::Greater => *seq,
            }),
            Walk::Drawn { sent, .. } => usize::try_from(flow).ok().and_then(|flow| sent.get(flow)).copied(),
        }
    }
}

impl PlanSource {
    pub(super) fn new(plan: &Plan, share: Share) -> Result<Self, TrafficError> {
        let mut cursors = Vec::new();
        for (index, stream) in (0..).map_while(|index| plan.stream(index)).enumerate() {
            let flows = stream.flows();
            let thread = share.thread % share.threads.max(1);
            let skip = (share.threads + thread - flows.start % share.threads) % share.threads;
            let (first, count) = (flows.start + skip, flows.end - flows.start);
            if count < share.threads {
                let fault = Box::new(Fault::Threads { flows: count, threads: share.threads });
                return Err(TrafficError { stream: index, name: stream.name().to_owned(), place: Place::Flows, fault });
            }
            let own = (flows.end - first).div_ceil(share.threads);
            let ranks = if let Order::Zipf(exponent) = stream.order { Ranks::new(own, exponent) } else { None };
            let walk = match stream.order {
                Order::Sequential => Walk::Rounds { seq: 0, at: 0, sent: 0, pieces: stream.pieces(0) },
                Order::Random | Order::Zipf(_) => Walk::Drawn {
                    random: SplitMix(mix(mix(plan.seed(), first.into()), share.threads.into())),
                    ranks,
                    sent: vec![0; usize::try_from(own).unwrap_or(0)],
                    flow: 0,
                    left: 0,
                },
            };
            cursors.push(Cursor { first, flows: own, walk, written: Volume::default() });
        }
        Ok(Self { plan: plan.clone(), share, left: u64::MAX, turn: 0, cursors })
    }

    /// Ends after this share of `count` packets of the whole run.
    #[must_use]
    pub fn limited(mut self, count: u64) -> Self {
        let (thread, threads) = (u64::from(self.share.thread), u64::from(self.share.threads.max(1)));
        self.left = count / threads + u64::from(thread < count % threads);
        self
    }

    /// What has been written of each stream.
    pub fn written(&self) -> impl ExactSizeIterator<Item = Volume> {
        self.cursors.iter().map(|cursor| cursor.written)
    }

    /// How many packets of `flow` have been written; `None` where it is another thread's.
    pub fn sent_of(&self, flow: u32) -> Option<u64> {
        let cursor = self.cursors.get(self.plan.stream_of(flow)?)?;
        let behind = flow.checked_sub(cursor.first)?;
        (behind % self.share.threads == 0).then(|| cursor.sent_of(behind / self.share.threads)).flatten()
    }

    /// The packets.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}

impl Source for PlanSource {
    fn longest(&self) -> usize {
        self.plan.longest()
    }

    #[inline]
    fn next(&mut self, now_ns: u64, out: &mut [u8]) -> Option<Written> {
        self.left = self.left.checked_sub(1)?;
        let turns = self.plan.turns();
        let index = usize::try_from(*turns.get(self.turn)?).ok()?;
        let stream = self.plan.stream(index)?;
        let cursor = self.cursors.get_mut(index)?;
        let (nth, seq) = cursor.next(stream);
        if !cursor.is_within() {
            self.turn = if self.turn + 1 == turns.len() { 0 } else { self.turn + 1 };
        }
        let flow = cursor.first + nth * self.share.threads;
        let stamp = Stamp { flow, seq: low_bits(seq), sent_ns: low_bits(now_ns) };
        let written = stream.write(self.plan.magic(), stamp, out);
        cursor.written.packets += 1;
        cursor.written.bytes += written.len as u64;
        Some(written)
    }
}
