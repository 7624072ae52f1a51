//! From prefixes to what they mean: which addresses have which group.

use super::block::ROOTS;
use super::family::Slot;
use super::place_of;

/// A prefix, left-aligned, with its group.
pub(super) type Route = (Slot, u16);
/// From this address on, this group.
pub(super) type Fragment = (u128, u16);

/// What the routes, ascending by address and then length and all inside `slot`, make of it; `inherited` is the group of what they
/// leave. The first fragment begins where the slot does, and neighbours differ.
pub(super) fn fragments(slot: Slot, inherited: u16, routes: impl IntoIterator<Item = Route>, into: &mut Vec<Fragment>) {
    into.clear();
    into.push((slot.base, inherited));
    // Prefixes that are open at this address, the longest last.
    let mut open: Vec<Route> = Vec::new();
    for (prefix, group) in routes {
        while let Some((ended, _)) = open.pop_if(|(prefix_open, _)| prefix_open.last() < prefix.base) {
            begin(into, ended.last() + 1, open.last().map_or(inherited, |(_, group)| *group));
        }
        begin(into, prefix.base, group);
        open.push((prefix, group));
    }
    while let Some((ended, _)) = open.pop() {
        if ended.last() < slot.last() {
            begin(into, ended.last() + 1, open.last().map_or(inherited, |(_, group)| *group));
        }
    }
}

fn begin(fragments: &mut Vec<Fragment>, start: u128, group: u16) {
    // A longer prefix that begins at the same address takes its place.
    fragments.pop_if(|(before, _)| *before == start);
    if fragments.last().is_none_or(|(_, before)| *before != group) {
        fragments.push((start, group));
    }
}

/// What the slot of each root reference has from prefixes that are not longer, in any order.
pub(super) fn inherited(short: &[Route]) -> Vec<u16> {
    let mut inherited = vec![(0u8, 0u16); ROOTS];
    for (prefix, group) in short {
        let covered = inherited.get_mut(place_of(prefix.base)..=place_of(prefix.last())).unwrap_or_default();
        for longest in covered.iter_mut().filter(|(longest, _)| *longest <= prefix.depth) {
            *longest = (prefix.depth, *group);
        }
    }
    inherited.into_iter().map(|(_, group)| group).collect()
}
