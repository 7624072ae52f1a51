//! Sequence numbers, flow by flow: loss, duplicates, reordering and how far (RFC 4737, RFC 5560).
//!
//! A flow remembers one more than its highest number and how many first arrivals it had: 16 bytes, so 2^24 flows fit. What is
//! missing below is kept as gaps: a run of numbers and the arrival that jumped over it. A packet below the highest is a late
//! first arrival if it lies in a gap and a duplicate if it does not, however far behind it is. The arrival that opened its
//! gap is also the earliest one with a higher number, so the reordering extent of RFC 4737 §4.2.2 is exact: as many arrivals
//! as came since. Duplicates are not counted as arrivals there (§3.3).
//!
//! At most [`GAPS_MAX`] gaps are kept. When they are used up, a flow that opens another one is marked, and what arrives for it
//! below its highest number and outside its known gaps is `late`: first arrival or duplicate can no longer be told.

use std::collections::BTreeMap;

/// Gaps that one checker remembers, about 64 bytes each.
pub const GAPS_MAX: usize = 1 << 20;
/// In [`Flow::next`]: a gap of this flow was not kept.
const FORGOTTEN: u64 = 1 << 63;
/// Extents are counted by powers of two up to this one.
const BUCKETS: usize = 32;

/// What became of sequence numbers. Arrivals = first + duplicate + late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Sequence {
    /// First arrivals.
    pub first: u64,
    /// Second and further arrivals of a packet.
    pub duplicate: u64,
    /// First arrivals behind a packet of the same flow that was sent later (RFC 4737 §3.3).
    pub reordered: u64,
    /// Arrivals that are one or the other: more gaps were open than are remembered.
    pub late: u64,
}

impl std::ops::AddAssign for Sequence {
    fn add_assign(&mut self, other: Self) {
        self.first += other.first;
        self.duplicate += other.duplicate;
        self.reordered += other.reordered;
        self.late += other.late;
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// One more than the highest number seen, and the mark.
    next: u64,
    /// First arrivals.
    arrived: u64,
}

/// Numbers that have not arrived, from the key's to `last`.
#[derive(Clone, Copy, Debug)]
struct Gap {
    last: u64,
    /// How many first arrivals the flow had had before the one that jumped over it.
    opened_by: u64,
}

/// Judges sequence numbers, one after the other.
#[derive(Clone, Debug)]
pub struct Checker {
    flows: Vec<Flow>,
    /// By index into `flows` and first missing number.
    gaps: BTreeMap<(u32, u64), Gap>,
    gaps_max: usize,
    total: Sequence,
    extents: Extents,
}

impl Checker {
    /// For flows 0 to `flows` - 1.
    pub fn new(flows: usize) -> Self {
        Self {
            flows: vec![Flow::default(); flows],
            gaps: BTreeMap::new(),
            gaps_max: GAPS_MAX,
            total: Sequence::default(),
            extents: Extents::default(),
        }
    }

    /// One that knows only how many first arrivals each flow had.
    pub fn of_arrivals(arrivals: impl IntoIterator<Item = u64>) -> Self {
        let flows = arrivals.into_iter().map(|arrived| Flow { next: FORGOTTEN | arrived, arrived }).collect();
        Self { flows, ..Self::new(0) }
    }

    /// Counts the arrival of number `seq`, of which the low 32 bits are known, in `flow`. Unknown flows are ignored.
    pub fn arrived(&mut self, flow: u32, seq: u32) {
        let Some(entry) = usize::try_from(flow).ok().and_then(|flow| self.flows.get_mut(flow)) else { return };
        let next = entry.next & !FORGOTTEN;
        let seq = unwrap_seq(next, seq);
        if seq >= next {
            let gap = Gap { last: seq.saturating_sub(1), opened_by: entry.arrived };
            entry.next = entry.next & FORGOTTEN | (seq + 1);
            entry.arrived += 1;
            self.total.first += 1;
            if seq > next {
                self.open(flow, next, gap);
            }
            return;
        }
        let open = self.gaps.range((flow, 0)..=(flow, seq)).next_back().map(|((_, first), gap)| (*first, *gap));
        match open {
            Some((first, gap)) if gap.last >= seq => {
                let extent = entry.arrived - gap.opened_by;
                entry.arrived += 1;
                self.total.first += 1;
                self.total.reordered += 1;
                self.extents.record(extent);
                self.fill(flow, first, gap, seq);
            }
            _ if entry.next & FORGOTTEN != 0 => self.total.late += 1,
            _ => self.total.duplicate += 1,
        }
    }

    /// Remembers a gap, or marks the flow where too many are open.
    fn open(&mut self, flow: u32, first: u64, gap: Gap) {
        if self.gaps.len() < self.gaps_max {
            self.gaps.insert((flow, first), gap);
        } else if let Some(entry) = usize::try_from(flow).ok().and_then(|flow| self.flows.get_mut(flow)) {
            entry.next |= FORGOTTEN;
        }
    }

    /// Takes `seq` out of the gap that starts at `first`. What is left of it was opened by the same arrival.
    fn fill(&mut self, flow: u32, first: u64, gap: Gap, seq: u64) {
        if seq == first {
            self.gaps.remove(&(flow, first));
        } else {
            self.gaps.insert((flow, first), Gap { last: seq - 1, ..gap });
        }
        if seq < gap.last {
            self.open(flow, seq + 1, gap);
        }
    }

    /// Totals so far.
    pub fn sequence(&self) -> Sequence {
        self.total
    }

    /// Reordering extents of all reordered packets.
    pub fn extents(&self) -> Extents {
        self.extents
    }

    /// First arrivals of one flow.
    pub fn arrivals(&self, flow: u32) -> u64 {
        usize::try_from(flow).ok().and_then(|flow| self.flows.get(flow)).map_or(0, |flow| flow.arrived)
    }
}

/// Reordering extents: how many, how far at most, and how they are spread over powers of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Extents {
    max: u64,
    sum: u64,
    /// Bucket k: extents above 2^(k-1), up to 2^k.
    buckets: [u64; BUCKETS],
}

impl Extents {
    fn record(&mut self, extent: u64) {
        self.max = self.max.max(extent);
        self.sum += extent;
        let bucket = usize::try_from(extent.max(1).next_power_of_two().trailing_zeros()).unwrap_or(usize::MAX);
        if let Some(bucket) = self.buckets.get_mut(bucket.min(BUCKETS - 1)) {
            *bucket += 1;
        }
    }

    /// The longest; 0 where nothing was reordered.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The sum of all.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The buckets that are not empty: upper end, packets.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets.iter().enumerate().filter(|(_, packets)| **packets > 0).map(|(at, packets)| (1 << at, *packets))
    }
}

impl std::ops::AddAssign for Extents {
    fn add_assign(&mut self, other: Self) {
        self.max = self.max.max(other.max);
        self.sum += other.sum;
        for (mine, other) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += other;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(seqs: impl IntoIterator<Item = u32>) -> Checker {
        let mut checker = Checker::new(2);
        seqs.into_iter().for_each(|seq| checker.arrived(1, seq));
        checker
    }

    fn extents(checker: &Checker) -> Vec<(u64, u64)> {
        checker.extents().buckets().collect()
    }

    #[test]
    fn a_flow_takes_16_bytes() {
        assert_eq!(size_of::<Flow>(), 16);
    }

    #[test]
    fn in_order_is_clean() {
        let mut checker = run(0..1000);
        assert_eq!(checker.sequence(), Sequence { first: 1000, ..Sequence::default() });
        assert_eq!((checker.arrivals(0), checker.arrivals(1), checker.gaps.len()), (0, 1000, 0));
        checker.arrived(2, 0);
        assert_eq!(checker.sequence().first, 1000);
    }

    #[test]
    fn each_fault_has_its_counter() {
        let checker = run([0, 1, 3, 2, 2, 5]);
        assert_eq!(checker.sequence(), Sequence { first: 5, duplicate: 1, reordered: 1, late: 0 });
        assert_eq!(extents(&checker), [(1, 1)]);
        // However far behind: 1 comes after 1000 others that came after it was jumped over.
        let checker = run([0].into_iter().chain(2..1002).chain([1, 1]));
        assert_eq!(checker.sequence(), Sequence { first: 1002, duplicate: 1, reordered: 1, late: 0 });
        assert_eq!((checker.extents().max(), checker.gaps.len()), (1000, 0));
    }

    #[test]
    fn extents_are_those_of_rfc_4737() {
        // 4 is late: the first with a higher number came three arrivals before.
        let checker = run([1, 2, 3, 5, 6, 7, 4, 8].map(|seq| seq - 1));
        assert_eq!((checker.sequence().reordered, checker.extents().max()), (1, 3));
        // A block that is late: 7 jumped over all of 4, 5 and 6, and they came 3, 4 and 5 arrivals later.
        let checker = run([1, 2, 3, 7, 8, 9, 4, 5, 6].map(|seq| seq - 1));
        assert_eq!((checker.sequence().reordered, checker.extents().sum(), checker.extents().max()), (3, 12, 5));
        // Duplicates are no arrivals.
        let checker = run([0, 2, 2, 2, 1]);
        assert_eq!((checker.sequence().duplicate, checker.extents().max()), (2, 1));
    }

    #[test]
    fn numbers_wrap_at_32_bits() {
        let mut checker = run([0x7fff_ffff, 0xffff_fffe, 0xffff_ffff, 0, 1]);
        assert_eq!(checker.sequence(), Sequence { first: 5, ..Sequence::default() });
        checker.arrived(1, 0xffff_ffff);
        assert_eq!(checker.sequence().duplicate, 1);
        checker.arrived(1, 0xffff_fffd);
        assert_eq!(checker.extents().max(), 4);
    }

    #[test]
    fn what_is_forgotten_is_late() {
        let mut checker = Checker { gaps_max: 1, ..Checker::new(2) };
        // Flow 0 takes the one gap, then splits it, which leaves no room for the upper part.
        [0, 9, 5].into_iter().for_each(|seq| checker.arrived(0, seq));
        assert_eq!(checker.sequence(), Sequence { first: 3, reordered: 1, ..Sequence::default() });
        [7, 5, 2].into_iter().for_each(|seq| checker.arrived(0, seq));
        assert_eq!(checker.sequence(), Sequence { first: 4, reordered: 2, late: 2, duplicate: 0 });
        // Flow 1 has forgotten nothing as long as it opens no gap.
        [0, 1, 1].into_iter().for_each(|seq| checker.arrived(1, seq));
        assert_eq!(checker.sequence().duplicate, 1);
    }

    /// The definitions, word by word, over everything that has arrived.
    #[derive(Default)]
    struct Naive {
        arrivals: Vec<u64>,
        duplicate: u64,
        extents: Vec<u64>,
    }

    impl Naive {
        fn arrived(&mut self, seq: u64) {
            if self.arrivals.contains(&seq) {
                self.duplicate += 1;
                return;
            }
            let i = self.arrivals.len();
            if let Some(j) = self.arrivals.iter().position(|earlier| *earlier > seq) {
                self.extents.push((i - j) as u64);
            }
            self.arrivals.push(seq);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definitions(steps in proptest::collection::vec((0..3u32, 0..60u32), 0..400), start in prop_oneof![Just(0u64), Just((1u64 << 32) - 300)]) {
            let mut checker = Checker::new(3);
            let mut naive: [Naive; 3] = Default::default();
            // Numbers start where they wrap during the run; the first arrival tells the checker nothing of that.
            for flow in 0..3 {
                checker.flows[flow as usize].next = start;
            }
            for (at, (flow, back)) in steps.into_iter().enumerate() {
                let seq = (start + 2 * at as u64 / 3 + 60).saturating_sub(back.into()).max(start);
                checker.arrived(flow, (seq & 0xffff_ffff) as u32);
                naive[flow as usize].arrived(seq);
            }
            let mut expected = Extents::default();
            naive.iter().flat_map(|flow| &flow.extents).for_each(|extent| expected.record(*extent));
            prop_assert_eq!(checker.extents(), expected);
            let first: usize = naive.iter().map(|flow| flow.arrivals.len()).sum();
            prop_assert_eq!(checker.sequence(), Sequence {
                first: first as u64,
                duplicate: naive.iter().map(|flow| flow.duplicate).sum(),
                reordered: naive.iter().map(|flow| flow.extents.len() as u64).sum(),
                late: 0,
            });
        }
    }
}
