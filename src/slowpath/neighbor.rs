//! Packets that wait for a link-layer address: a bounded queue per next hop, in the order in which they came.
//!
//! A next hop is asked for once, again every second while packets wait, and given up after three seconds (the times of
//! Linux: `retrans_time_ms` and `mcast_solicit`). Both bounds drop the oldest packet, as RFC 4861 §7.2.2 wants it: the sender
//! of the newest is the likeliest to be still there. Nothing in here knows what a frame is or reads a clock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use model::network::IfIndex;

/// Frames that wait for one next hop.
const PER_NEXT_HOP: usize = 64;
/// Frames that wait in all: a scan of a connected subnet ties up no more than this.
pub(super) const TOTAL: usize = 1024;
/// Time between two requests for one next hop.
const RETRY: Duration = Duration::from_secs(1);
/// Time after which a next hop counts as unreachable.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A next hop: the interface it is on, the VLAN device where there is one, and its address.
pub(super) type NextHop = (IfIndex, IpAddr);

/// What waits for one next hop.
#[derive(Debug)]
struct Waiting<F> {
    frames: VecDeque<(u64, F)>,
    /// When the first of them came.
    since: Instant,
    /// When the next hop is asked for again.
    retry: Instant,
}

/// Frames that wait, by next hop. `F` is a frame with whatever belongs to it.
#[derive(Debug)]
pub(super) struct NeighborQueue<F> {
    waiting: HashMap<NextHop, Waiting<F>>,
    /// Who waits longest: number of arrival to next hop.
    arrivals: BTreeMap<u64, NextHop>,
    next_arrival: u64,
}

/// What to do after a frame was queued.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Queued<F> {
    /// The next hop is to be asked for.
    pub(super) resolve: bool,
    /// The oldest frame, which had to make room.
    pub(super) dropped: Option<F>,
}

/// What a moment brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due<F> {
    /// Next hops to be asked for again.
    pub(super) retry: Vec<NextHop>,
    /// Frames whose next hop did not answer, oldest first within one next hop.
    pub(super) unreachable: Vec<F>,
}

impl<F> NeighborQueue<F> {
    pub(super) fn new() -> Self {
        Self { waiting: HashMap::new(), arrivals: BTreeMap::new(), next_arrival: 0 }
    }

    /// Frames that wait.
    pub(super) fn frames(&self) -> usize {
        self.arrivals.len()
    }

    /// Next hops that are being resolved.
    pub(super) fn next_hops(&self) -> usize {
        self.waiting.len()
    }

    /// Queues a frame.
    pub(super) fn push(&mut self, next_hop: NextHop, frame: F, now: Instant) -> Queued<F> {
        let full_for = |frames: usize| frames >= PER_NEXT_HOP;
        let dropped = if self.waiting.get(&next_hop).is_some_and(|w| full_for(w.frames.len())) {
            self.drop_oldest_of(next_hop)
        } else if self.frames() >= TOTAL {
            let oldest = self.arrivals.first_key_value().map(|(_, next_hop)| *next_hop);
            oldest.and_then(|next_hop| self.drop_oldest_of(next_hop))
        } else {
            None
        };
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        self.arrivals.insert(arrival, next_hop);
        let mut resolve = false;
        let waiting = self.waiting.entry(next_hop).or_insert_with(|| {
            resolve = true;
            Waiting { frames: VecDeque::new(), since: now, retry: now + RETRY }
        });
        waiting.frames.push_back((arrival, frame));
        Queued { resolve, dropped }
    }

    /// Takes what waits for a next hop, in order of arrival.
    pub(super) fn take(&mut self, next_hop: NextHop) -> impl Iterator<Item = F> + use<F> {
        let frames = self.waiting.remove(&next_hop).map(|w| w.frames).unwrap_or_default();
        for (arrival, _) in &frames {
            self.arrivals.remove(arrival);
        }
        frames.into_iter().map(|(_, frame)| frame)
    }

    /// Requests to repeat and frames to give up at `now`.
    pub(super) fn due(&mut self, now: Instant) -> Due<F> {
        let mut due = Due { retry: Vec::new(), unreachable: Vec::new() };
        let given_up: Vec<NextHop> =
            self.waiting.iter().filter(|(_, w)| now >= w.since + TIMEOUT).map(|(next_hop, _)| *next_hop).collect();
        for next_hop in given_up {
            due.unreachable.extend(self.take(next_hop));
        }
        for (next_hop, waiting) in &mut self.waiting {
            if now >= waiting.retry {
                waiting.retry = now + RETRY;
                due.retry.push(*next_hop);
            }
        }
        due
    }

    /// When [`NeighborQueue::due`] has something to say next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|w| w.retry.min(w.since + TIMEOUT)).min()
    }

    /// Replaces every frame, or drops it where `f` has nothing to replace it with; the order stays.
    pub(super) fn map_frames(&mut self, mut f: impl FnMut(F) -> Option<F>) {
        for waiting in self.waiting.values_mut() {
            for (arrival, frame) in std::mem::take(&mut waiting.frames) {
                match f(frame) {
                    Some(frame) => waiting.frames.push_back((arrival, frame)),
                    None => {
                        self.arrivals.remove(&arrival);
                    }
                }
            }
        }
    }

    fn drop_oldest_of(&mut self, next_hop: NextHop) -> Option<F> {
        let waiting = self.waiting.get_mut(&next_hop)?;
        let (arrival, frame) = waiting.frames.pop_front()?;
        self.arrivals.remove(&arrival);
        if waiting.frames.is_empty() {
            self.waiting.remove(&next_hop);
        }
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_hop(host: u8) -> NextHop {
        (IfIndex(2), IpAddr::from([192, 0, 2, host]))
    }

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn frames_leave_in_the_order_in_which_they_came() {
        let (mut queue, now) = (NeighborQueue::new(), Instant::now());
        for frame in 0..50 {
            let queued = queue.push(next_hop(1), frame, now);
            assert_eq!(queued, Queued { resolve: frame == 0, dropped: None });
            queue.push(next_hop(2), 100 + frame, now);
        }
        assert_eq!((queue.frames(), queue.next_hops()), (100, 2));
        assert!(queue.take(next_hop(1)).eq(0..50));
        assert!(queue.take(next_hop(1)).eq(0..0), "they are gone");
        assert_eq!((queue.frames(), queue.next_hops()), (50, 1));
    }

    #[test]
    fn a_full_next_hop_drops_its_own_oldest() {
        let (mut queue, now) = (NeighborQueue::new(), Instant::now());
        queue.push(next_hop(1), 1000, now);
        for frame in 0..PER_NEXT_HOP {
            assert_eq!(queue.push(next_hop(2), frame, now).dropped, None);
        }
        let queued = queue.push(next_hop(2), 999, now);
        assert_eq!(queued, Queued { resolve: false, dropped: Some(0) }, "not the older frame of another next hop");
        assert!(queue.take(next_hop(2)).eq((1..PER_NEXT_HOP).chain([999])));
    }

    #[test]
    fn a_full_queue_drops_the_oldest_of_all_and_forgets_its_next_hop() {
        let (mut queue, now) = (NeighborQueue::new(), Instant::now());
        let hop = |n: usize| (IfIndex(2), IpAddr::from(u32::try_from(n).unwrap().to_be_bytes()));
        for frame in 0..TOTAL {
            assert_eq!(queue.push(hop(frame), frame, now).dropped, None);
        }
        for frame in TOTAL..TOTAL + 5 {
            assert_eq!(queue.push(hop(frame), frame, now).dropped, Some(frame - TOTAL));
            assert_eq!((queue.frames(), queue.next_hops()), (TOTAL, TOTAL));
        }
        assert!(queue.push(hop(0), 7, now).resolve, "asked for again");
    }

    #[test]
    fn asked_for_every_second_and_given_up_after_three() {
        let (mut queue, start) = (NeighborQueue::new(), Instant::now());
        assert_eq!(queue.deadline(), None);
        queue.push(next_hop(1), 1, start);
        queue.push(next_hop(1), 2, after(start, 900));
        assert_eq!(queue.deadline(), Some(after(start, 1000)), "a later frame does not put the request off");
        let quiet = Due { retry: vec![], unreachable: vec![] };
        let retry = Due { retry: vec![next_hop(1)], unreachable: vec![] };
        assert_eq!(queue.due(after(start, 999)), quiet);
        assert_eq!(queue.due(after(start, 1000)), retry);
        assert_eq!(queue.due(after(start, 1001)), quiet);
        assert_eq!(queue.due(after(start, 2000)), retry);
        assert_eq!(queue.deadline(), Some(after(start, 3000)));
        assert_eq!(queue.due(after(start, 3000)), Due { retry: vec![], unreachable: vec![1, 2] });
        assert_eq!((queue.frames(), queue.deadline()), (0, None));
        assert!(queue.push(next_hop(1), 3, after(start, 3001)).resolve, "the next packet starts anew");
    }

    #[test]
    fn frames_are_replaced_in_place() {
        let (mut queue, now) = (NeighborQueue::new(), Instant::now());
        for frame in 0..10 {
            queue.push(next_hop(1), frame, now);
        }
        queue.map_frames(|frame| (frame % 2 == 0).then_some(frame * 10));
        assert_eq!(queue.frames(), 5);
        assert!(queue.take(next_hop(1)).eq([0, 20, 40, 60, 80]));
    }
}
