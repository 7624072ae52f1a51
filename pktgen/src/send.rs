//! One sending thread: its share of the flows, round after round, at its share of the rate.

use std::io;
use std::time::Duration;

use crate::clock::{low_bits, now_ns};
use crate::pace::Pacer;
use crate::progress::Progress;
use crate::stamp::Stamp;
use crate::template::Frames;
use crate::umem::{BURST, Frame, Sender};

/// Packets that a delay may make up for: 1 ms of the rate, within these bounds.
const CREDIT: std::ops::RangeInclusive<f64> = 32.0..=1024.0;
/// Waits shorter than this are spun: the scheduler is no more exact.
const SPIN_NS: u64 = 100_000;
/// How long the kernel may take to send what it has been given.
const COMPLETION_PATIENCE_NS: u64 = 1_000_000_000;

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

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Packets of the whole run; flow f of n gets every n-th.
    pub count: Option<u64>,
    /// Time since the start.
    pub duration: Option<Duration>,
}

impl Limit {
    /// Packets of one flow, were time no limit.
    fn quota(&self, flow: u32, flows: u32) -> u64 {
        let flows = u64::from(flows.max(1));
        self.count.map_or(u64::MAX, |count| count / flows + u64::from(u64::from(flow) < count % flows))
    }
}

/// What one thread has sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    share: Share,
    limit: Limit,
    /// Sequence number that comes next, and flow that it is the turn of.
    position: (u64, u32),
    /// Packets.
    pub packets: u64,
    /// Bytes of frames.
    pub bytes: u64,
    /// Time from the first packet to the last.
    pub elapsed_ns: u64,
    /// Packets that the kernel took but has not confirmed to have sent.
    pub unconfirmed: usize,
}

impl Sent {
    /// How many packets of `flow` have been sent; `None` where it is another thread's.
    pub fn of_flow(&self, flow: u32) -> Option<u64> {
        (flow % self.share.step == self.share.first).then(|| {
            let (seq, turn) = self.position;
            (seq + u64::from(flow < turn)).min(self.limit.quota(flow, self.share.flows))
        })
    }
}

/// Sends until the limit is reached. `precise`: a time stamp for each packet, else one for each burst.
///
/// # Errors
/// What the kernel answered to a wake-up.
pub fn send(
    sender: &mut Sender,
    frames: &Frames,
    share: Share,
    limit: Limit,
    rate_pps: Option<f64>,
    precise: bool,
    progress: &Progress,
) -> io::Result<Sent> {
    let start = now_ns();
    let stop = limit.duration.map(|duration| start + u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2));
    let credit = rate_pps.map_or(*CREDIT.start(), |rate| (rate / 1000.0).clamp(*CREDIT.start(), *CREDIT.end()));
    let mut pacer = Pacer::new(rate_pps, credit as u32, start);
    let mut sent =
        Sent { share, limit, position: (0, share.first), packets: 0, bytes: 0, elapsed_ns: 0, unconfirmed: 0 };
    let mut burst: Vec<Frame> = Vec::with_capacity(BURST);
    let mut bytes = [0u64; BURST];
    loop {
        let now = now_ns();
        if progress.stopped() || stop.is_some_and(|stop| now >= stop) || !due(sent.position, share, limit) {
            break;
        }
        let granted = pacer.take(now, BURST);
        if granted == 0 {
            sender.kick()?;
            pause(pacer.wait_ns());
            continue;
        }
        let start_of_burst = sent.position;
        let mut stamp_ns = now;
        while burst.len() < granted && due(sent.position, share, limit) {
            let Some(mut frame) = sender.alloc() else { break };
            let (seq, flow) = sent.position;
            // Sequence numbers have 32 bits on the wire.
            let seq = low_bits(seq);
            if precise {
                stamp_ns = now_ns();
            }
            let stamp = Stamp { flow, seq, sent_ns: low_bits(stamp_ns) };
            let len = frames.len(flow, seq);
            if !sender.write(&mut frame, len, |out| frames.write(stamp, out)) {
                sender.free(frame);
                return Err(io::Error::other("a packet does not fit into a frame of the UMEM"));
            }
            if let Some(place) = bytes.get_mut(burst.len()) {
                *place = u64::try_from(len).unwrap_or(0);
            }
            burst.push(frame);
            step(&mut sent.position, share);
        }
        let accepted = sender.send(&mut burst)?;
        sent.packets += u64::try_from(accepted).unwrap_or(0);
        let accepted_bytes = bytes.iter().take(accepted).sum::<u64>();
        sent.bytes += accepted_bytes;
        progress.sent(u64::try_from(accepted).unwrap_or(0), accepted_bytes);
        pacer.give_back(granted - accepted);
        if !burst.is_empty() {
            // The TX ring was full: these packets are written again later, with a later stamp.
            burst.drain(..).for_each(|frame| sender.free(frame));
            sent.position = start_of_burst;
            for _ in 0..accepted {
                step(&mut sent.position, share);
            }
        }
        sent.elapsed_ns = now_ns() - start;
    }
    sent.unconfirmed = drain(sender)?;
    Ok(sent)
}

/// Whether the packet at this position is to be sent. Quotas differ by one at most and fall with the flow, so the first packet
/// that is not ends the thread's share.
fn due(position: (u64, u32), share: Share, limit: Limit) -> bool {
    let (seq, flow) = position;
    seq < limit.quota(flow, share.flows)
}

fn step(position: &mut (u64, u32), share: Share) {
    let (seq, flow) = *position;
    *position = match flow.checked_add(share.step).filter(|flow| *flow < share.flows) {
        Some(flow) => (seq, flow),
        None => (seq + 1, share.first),
    };
}

fn pause(ns: u64) {
    if ns > SPIN_NS {
        std::thread::sleep(Duration::from_nanos(ns - SPIN_NS / 2));
    } else {
        std::hint::spin_loop();
    }
}

/// Lets the kernel send what it has; returns how many packets it has not confirmed in time.
fn drain(sender: &mut Sender) -> io::Result<usize> {
    let deadline = now_ns() + COMPLETION_PATIENCE_NS;
    while sender.in_kernel() > 0 && now_ns() < deadline {
        sender.kick()?;
        std::thread::yield_now();
    }
    Ok(sender.in_kernel())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The threads together send every packet once, and each knows how many of a flow were its.
        #[test]
        fn shares_add_up(count in 0..400u64, flows in 1..40u32, threads in 1..5u32, cut in 0..500usize) {
            let threads = threads.min(flows);
            let limit = Limit { count: Some(count), duration: None };
            let mut seen = std::collections::BTreeSet::new();
            for first in 0..threads {
                let share = Share { first, step: threads, flows };
                let mut position = (0, first);
                let mut mine = vec![0; flows as usize];
                for _ in 0..cut {
                    if !due(position, share, limit) {
                        break;
                    }
                    prop_assert!(seen.insert(position));
                    mine[position.1 as usize] += 1;
                    step(&mut position, share);
                }
                let sent = Sent { share, limit, position, packets: 0, bytes: 0, elapsed_ns: 0, unconfirmed: 0 };
                for flow in (first..flows).step_by(threads as usize) {
                    prop_assert_eq!(sent.of_flow(flow), Some(mine[flow as usize]));
                    prop_assert_eq!(sent.of_flow(flow + 1), (threads == 1).then(|| sent.of_flow(flow + 1).unwrap_or(0)));
                }
            }
            if cut as u64 >= count {
                prop_assert_eq!(seen.len() as u64, count);
            }
        }
    }
}
