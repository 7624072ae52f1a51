//! When slots of rings that have changed count as unchanged again.
//!
//! A changed slot costs a look-up in the flow table for every packet of it, and the table room for its flows. Once it has been as it is
//! for long enough, who went elsewhere before the change is either over or remembered; and where none of those who are remembered goes elsewhere any
//! more, the ring alone is the answer. No I/O: clock and flows come in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::tables::{BackendId, Ring, VipId};

/// A flow that has been silent for so long is over: what the flow table takes it for, too.
pub const OVER: Duration = Duration::from_secs(3_600);

/// Slots by VIP.
pub type Slots = BTreeMap<VipId, BTreeSet<usize>>;

/// A flow that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Living {
    /// Whose it is.
    pub vip: VipId,
    /// Slot of the VIP's ring.
    pub slot: usize,
    /// Where it goes.
    pub backend: BackendId,
}

/// Changed slots, and since when each has been as it is.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    rings: BTreeMap<VipId, (Ring, BTreeMap<usize, Duration>)>,
}

impl Marks {
    /// Takes notice of the rings in force. `now` is counted from any moment, the same for every call.
    pub fn follow(&mut self, rings: &BTreeMap<VipId, Ring>, now: Duration) {
        self.rings.retain(|vip, _| rings.contains_key(vip));
        for (vip, ring) in rings {
            let former = self.rings.get(vip);
            if former.is_some_and(|(former, _)| Ring::ptr_eq(former, ring)) {
                continue;
            }
            let since = |index: usize| {
                let (former, since) = former?;
                since.get(&index).filter(|_| former.get(index) == ring.get(index)).copied()
            };
            let changed = ring.iter().enumerate().filter(|(_, slot)| slot.has_changed());
            let changed = changed.map(|(index, _)| (index, since(index).unwrap_or(now))).collect();
            self.rings.insert(*vip, (Ring::clone(ring), changed));
        }
    }

    /// How many slots of a VIP are marked.
    pub fn count(&self, vip: VipId) -> usize {
        self.rings.get(&vip).map_or(0, |(_, changed)| changed.len())
    }

    /// No slot is marked.
    pub fn is_empty(&self) -> bool {
        self.rings.values().all(|(_, changed)| changed.is_empty())
    }

    /// Slots that count as unchanged now: they have been as they are for as long as `after` says of their VIP, and none of the flows that
    /// live goes elsewhere.
    pub fn done(
        &self,
        now: Duration,
        after: impl Fn(VipId) -> Duration,
        living: impl IntoIterator<Item = Living>,
    ) -> Slots {
        let mut done = Slots::new();
        for (vip, (_, changed)) in &self.rings {
            let after = after(*vip);
            let old = changed.iter().filter(|(_, since)| now.saturating_sub(**since) >= after);
            let old: BTreeSet<usize> = old.map(|(index, _)| *index).collect();
            if !old.is_empty() {
                done.insert(*vip, old);
            }
        }
        for Living { vip, slot, backend } in living {
            let goes_on = self.rings.get(&vip).and_then(|(ring, _)| ring.get(slot)).is_some_and(|s| s.now() == backend);
            if let Some(slots) = done.get_mut(&vip).filter(|_| !goes_on) {
                slots.remove(&slot);
            }
        }
        done.retain(|_, slots| !slots.is_empty());
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Slot;

    const VIP: VipId = VipId(1);

    fn changed(now: u32, before: u32) -> Slot {
        Slot::changed(BackendId(now), BackendId(before))
    }

    fn rings(slots: &[Slot]) -> BTreeMap<VipId, Ring> {
        BTreeMap::from([(VIP, slots.into())])
    }

    fn living(slot: usize, backend: u32) -> Living {
        Living { vip: VIP, slot, backend: BackendId(backend) }
    }

    #[test]
    fn a_slot_is_done_when_nobody_can_go_elsewhere() {
        let mut marks = Marks::default();
        let start = Duration::from_secs(100);
        marks.follow(&rings(&[Slot::from(BackendId(1)), changed(1, 2), changed(3, 1)]), start);
        assert!(!marks.is_empty());
        let almost = start + OVER - Duration::from_secs(1);
        assert_eq!(marks.done(almost, |_| OVER, []), Slots::new());
        let both = Slots::from([(VIP, BTreeSet::from([1, 2]))]);
        assert_eq!(marks.done(start + OVER, |_| OVER, []), both);
        assert_eq!(marks.done(start + OVER, |_| OVER, [living(1, 1), living(2, 3)]), both, "they go where new ones go");
        let last = Slots::from([(VIP, BTreeSet::from([2]))]);
        assert_eq!(marks.done(start + OVER, |_| OVER, [living(1, 1), living(1, 2)]), last, "one goes where it began");
        assert_eq!(marks.done(start + OVER, |_| OVER, [living(1, 2), living(2, 1)]), Slots::new());
    }

    #[test]
    fn another_change_of_a_slot_begins_anew_and_that_of_others_does_not() {
        let mut marks = Marks::default();
        marks.follow(&rings(&[changed(1, 2), changed(1, 2)]), Duration::ZERO);
        marks.follow(&rings(&[changed(1, 2), changed(3, 2)]), OVER / 2);
        assert_eq!(marks.done(OVER, |_| OVER, []), Slots::from([(VIP, BTreeSet::from([0]))]));
        marks.follow(&rings(&[Slot::from(BackendId(1)), changed(3, 2)]), OVER);
        assert_eq!(marks.done(OVER + OVER / 2, |_| OVER, []), Slots::from([(VIP, BTreeSet::from([1]))]));
        marks.follow(&BTreeMap::new(), OVER);
        assert!(marks.is_empty());
    }
}
