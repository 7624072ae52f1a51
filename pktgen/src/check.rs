//! What arrived against what was sent: loss, duplicates, reordering, corruption.
//!
//! Each flow remembers its last [`WINDOW`] sequence numbers. A packet older than those is `late`: whether it is a first
//! arrival or a duplicate is no longer known, so it counts as neither. Reordered is RFC 4737's: a sequence number below one
//! that has already arrived.

use crate::stamp::{Arrival, Stamp};

/// Sequence numbers of a flow that are remembered.
pub const WINDOW: u64 = 256;
const WORDS: usize = 4;

/// Totals of a run. `intact` = first arrivals + duplicates + late ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Packets of this run as they were sent.
    pub intact: u64,
    /// Second and further arrivals of a packet.
    pub duplicate: u64,
    /// First arrivals behind a packet of the same flow that was sent later.
    pub reordered: u64,
    /// Arrivals so far behind that they cannot be judged.
    pub late: u64,
    /// Packets of this run with a wrong checksum; each is also lost.
    pub corrupt: u64,
    /// Other packets that reached the socket, or flows that were never sent.
    pub foreign: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// One more than the highest sequence number seen.
    next: u64,
    /// Bit n: `next - 1 - n` has arrived.
    seen: [u64; WORDS],
    /// First arrivals.
    arrived: u64,
}

/// Judges arrivals, one after the other.
#[derive(Clone, Debug)]
pub struct Checker {
    flows: Vec<Flow>,
    counts: Counts,
}

impl Checker {
    /// For a run of this many flows.
    pub fn new(flows: u32) -> Self {
        let flows = usize::try_from(flows).unwrap_or(usize::MAX);
        Self { flows: vec![Flow::default(); flows], counts: Counts::default() }
    }

    /// Counts one frame.
    pub fn arrived(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Intact(stamp) => self.intact(stamp),
            Arrival::Corrupt => self.counts.corrupt += 1,
            Arrival::Foreign => self.counts.foreign += 1,
        }
    }

    fn intact(&mut self, stamp: Stamp) {
        let Some(flow) = usize::try_from(stamp.flow).ok().and_then(|flow| self.flows.get_mut(flow)) else {
            self.counts.foreign += 1;
            return;
        };
        self.counts.intact += 1;
        let seq = unwrap_seq(flow.next, stamp.seq);
        if seq >= flow.next {
            shift(&mut flow.seen, seq + 1 - flow.next);
            flow.next = seq + 1;
            mark(&mut flow.seen, 0);
            flow.arrived += 1;
            return;
        }
        let age = flow.next - 1 - seq;
        if age >= WINDOW {
            self.counts.late += 1;
        } else if mark(&mut flow.seen, age) {
            self.counts.duplicate += 1;
        } else {
            self.counts.reordered += 1;
            flow.arrived += 1;
        }
    }

    /// Totals so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// First arrivals of one flow.
    pub fn arrivals(&self, flow: u32) -> u64 {
        usize::try_from(flow).ok().and_then(|flow| self.flows.get(flow)).map_or(0, |flow| flow.arrived)
    }

    /// First arrivals of all flows.
    pub fn unique(&self) -> u64 {
        self.flows.iter().map(|flow| flow.arrived).sum()
    }
}

/// The number with these low 32 bits that is nearest to `next`, never below 0.
fn unwrap_seq(next: u64, seq: u32) -> u64 {
    const SPAN: u64 = 1 << 32;
    let base = next & !(SPAN - 1) | u64::from(seq);
    if base + SPAN / 2 < next {
        base + SPAN
    } else if base > next + SPAN / 2 && base >= SPAN {
        base - SPAN
    } else {
        base
    }
}

/// Makes room for `by` newer numbers at bit 0.
fn shift(seen: &mut [u64; WORDS], by: u64) {
    if by >= WINDOW {
        *seen = [0; WORDS];
        return;
    }
    let (words, bits) = (usize::try_from(by / 64).unwrap_or(WORDS), by % 64);
    let old = *seen;
    let word = |at: Option<usize>| at.and_then(|at| old.get(at)).copied().unwrap_or(0);
    for (at, place) in seen.iter_mut().enumerate() {
        let high = word(at.checked_sub(words));
        let low = word(at.checked_sub(words + 1));
        *place = if bits == 0 { high } else { high << bits | low >> (64 - bits) };
    }
}

/// Sets bit `age` and says whether it was set before.
fn mark(seen: &mut [u64; WORDS], age: u64) -> bool {
    let Some(word) = usize::try_from(age / 64).ok().and_then(|at| seen.get_mut(at)) else { return false };
    let bit = 1 << (age % 64);
    let was = *word & bit != 0;
    *word |= bit;
    was
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn run(seqs: impl IntoIterator<Item = u32>) -> Checker {
        let mut checker = Checker::new(2);
        for seq in seqs {
            checker.arrived(Arrival::Intact(Stamp { flow: 1, seq, sent_ns: 0 }));
        }
        checker
    }

    #[test]
    fn in_order_is_clean() {
        let checker = run(0..1000);
        assert_eq!(checker.counts(), Counts { intact: 1000, ..Counts::default() });
        assert_eq!((checker.arrivals(0), checker.arrivals(1), checker.unique()), (0, 1000, 1000));
    }

    #[test]
    fn each_fault_has_its_counter() {
        assert_eq!(
            run([0, 1, 3, 2, 2, 5]).counts(),
            Counts { intact: 6, duplicate: 1, reordered: 1, ..Counts::default() }
        );
        assert_eq!(run([1000, 745, 744]).counts(), Counts { intact: 3, reordered: 1, late: 1, ..Counts::default() });
        let mut checker = run([]);
        checker.arrived(Arrival::Corrupt);
        checker.arrived(Arrival::Foreign);
        checker.arrived(Arrival::Intact(Stamp { flow: 2, seq: 0, sent_ns: 0 }));
        assert_eq!(checker.counts(), Counts { corrupt: 1, foreign: 2, ..Counts::default() });
    }

    #[test]
    fn numbers_wrap_at_32_bits() {
        let mut checker = run([0x7fff_ffff, 0xffff_fffe, 0xffff_ffff, 0, 1]);
        assert_eq!(checker.counts(), Counts { intact: 5, ..Counts::default() });
        checker.arrived(Arrival::Intact(Stamp { flow: 1, seq: 0xffff_ffff, sent_ns: 0 }));
        assert_eq!(checker.counts().duplicate, 1);
    }

    proptest! {
        /// Within the window the bitmap knows what a set knows.
        #[test]
        fn agrees_with_a_set(steps in proptest::collection::vec(0..300u32, 0..400), base in 0..1000u32) {
            let mut checker = Checker::new(2);
            let (mut set, mut expected, mut highest) = (BTreeSet::new(), Counts::default(), None::<u32>);
            for (at, back) in steps.into_iter().enumerate() {
                let seq = (base + 2 * at as u32 + 300).saturating_sub(back);
                checker.arrived(Arrival::Intact(Stamp { flow: 1, seq, sent_ns: 0 }));
                expected.intact += 1;
                match highest {
                    Some(top) if seq <= top && u64::from(top - seq) >= WINDOW => expected.late += 1,
                    _ if !set.insert(seq) => expected.duplicate += 1,
                    Some(top) if seq < top => expected.reordered += 1,
                    _ => {}
                }
                highest = highest.max(Some(seq));
            }
            prop_assert_eq!(checker.counts(), expected);
            prop_assert_eq!(checker.unique(), expected.intact - expected.duplicate - expected.late);
        }
    }
}
