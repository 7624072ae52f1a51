//! Frames of templates, flow after flow and round after round: the share of one sending thread.

use crate::clock::low_bits;
use crate::source::{Source, Written};
use crate::stamp::Stamp;
use crate::template::Frames;

/// The flows `first`, `first + step`, ... of a run.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// First flow.
    pub first: u32,
    /// Number of sending threads.
    pub step: u32,
    /// All flows of the run.
    pub flows: u32,
}

/// One thread's frames. Of `count` packets of the whole run, flow f of n gets every n-th.
#[derive(Clone, Debug)]
pub struct Turns<'a> {
    frames: &'a Frames,
    share: Share,
    count: Option<u64>,
    /// Sequence number that comes next, and flow that it is the turn of.
    position: (u64, u32),
}

impl<'a> Turns<'a> {
    /// The share's frames.
    pub fn new(frames: &'a Frames, share: Share, count: Option<u64>) -> Self {
        Self { frames, share, count, position: (0, share.first) }
    }

    /// How many packets of `flow` have been written; `None` where it is another thread's.
    pub fn sent_of(&self, flow: u32) -> Option<u64> {
        (flow % self.share.step == self.share.first).then(|| {
            let (seq, turn) = self.position;
            (seq + u64::from(flow < turn)).min(self.quota(flow))
        })
    }

    /// Packets of one flow, were time no limit.
    fn quota(&self, flow: u32) -> u64 {
        let flows = u64::from(self.share.flows.max(1));
        self.count.map_or(u64::MAX, |count| count / flows + u64::from(u64::from(flow) < count % flows))
    }
}

impl Source for Turns<'_> {
    fn longest(&self) -> usize {
        self.frames.longest()
    }

    fn next(&mut self, now_ns: u64, out: &mut [u8]) -> Option<Written> {
        let (seq, flow) = self.position;
        // Quotas differ by one at most and fall with the flow, so the first packet that is not due ends the share.
        if seq >= self.quota(flow) {
            return None;
        }
        // Sequence numbers have 32 bits on the wire.
        let stamp = Stamp { flow, seq: low_bits(seq), sent_ns: low_bits(now_ns) };
        let len = self.frames.len(flow, stamp.seq);
        self.frames.write(stamp, out.get_mut(..len)?);
        self.position = match flow.checked_add(self.share.step).filter(|flow| *flow < self.share.flows) {
            Some(flow) => (seq, flow),
            None => (seq + 1, self.share.first),
        };
        Some(Written { len, late: None })
    }
}
