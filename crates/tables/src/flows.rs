//! Entries of the flow table: lines of eight, a cache line each. A flow is known by the high half of its hash and the line by the low
//! one, so an entry takes eight bytes, and comes and goes by one store. Two flows of a line that are alike share a backend: that is
//! stickiness for one that would do without.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::hash;

/// Entries of a line.
pub const WAYS: usize = 8;

/// How far nanoseconds since boot are shifted to the stamp of an established flow.
pub const SEEN_SHIFT: u32 = 32;
/// The same, of a flow that is not established.
pub const BEGAN_SHIFT: u32 = 22;
/// Bits of a stamp, the lowest of an entry.
pub const STAMP_MASK: u64 = 0x7fff;
/// The bit of established flows.
pub const ESTABLISHED: u64 = 0x8000;
/// Where the backend begins.
pub const BACKEND_SHIFT: u32 = 16;

/// What is remembered of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(pub u64);

impl Entry {
    /// Backend of the flow.
    pub fn backend(self) -> u32 {
        (self.0 >> BACKEND_SHIFT) as u32 & 0xffff
    }

    /// The high half of the flow's hash.
    pub fn print(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The slot of a ring that the flow falls into.
    pub fn ring_slot(self) -> usize {
        hash::ring_slot(u64::from(self.print()) << 32)
    }

    /// The flow has sent more than what opened it.
    pub fn is_established(self) -> bool {
        self.0 & ESTABLISHED != 0
    }

    /// Nanoseconds, to one tick of the stamp's clock, since an established flow was last seen, or another one began. `now_ns`: since
    /// boot, of the monotonic clock.
    pub fn age_ns(self, now_ns: u64) -> u64 {
        if self.is_established() {
            return ((now_ns >> SEEN_SHIFT).wrapping_sub(self.0) & STAMP_MASK) << SEEN_SHIFT;
        }
        // Stamps of a flood run ahead of the clock.
        let age = (now_ns >> BEGAN_SHIFT).wrapping_sub(self.0) & STAMP_MASK;
        if age > STAMP_MASK / 2 { 0 } else { age << BEGAN_SHIFT }
    }
}

/// What is remembered in a table.
pub fn entries(table: &[AtomicU64]) -> impl Iterator<Item = Entry> + '_ {
    table.iter().map(|entry| Entry(entry.load(Ordering::Relaxed))).filter(|entry| entry.0 != 0)
}

/// Lines of a table for so many flows: a power of two, at least `least`.
pub fn lines_for(flows: usize, least: usize) -> usize {
    flows.div_ceil(WAYS).next_power_of_two().max(least)
}

/// Takes what one table remembers over into one of another size; what is there already stays. Of the line's number the smaller table knows
/// fewer bits: a flow stands in every line of a larger one that it may be looked for in. Where there is no place it is left out,
/// those that are not established first.
pub fn take_over(from: &[AtomicU64], to: &[AtomicU64]) {
    let (lines, new_lines) = (from.len() / WAYS, to.len() / WAYS);
    if lines == 0 || new_lines == 0 {
        return;
    }
    for established in [true, false] {
        for (line, entries) in from.chunks_exact(WAYS).enumerate() {
            for entry in entries.iter().map(|entry| entry.load(Ordering::Relaxed)) {
                if entry == 0 || Entry(entry).is_established() != established {
                    continue;
                }
                let mut number = line % new_lines;
                while number < new_lines {
                    if let Some(places) = to.get(number * WAYS..(number + 1) * WAYS) {
                        put(places, entry);
                    }
                    number += lines;
                }
            }
        }
    }
}

fn put(line: &[AtomicU64], entry: u64) {
    let is_known = |place: &AtomicU64| Entry(place.load(Ordering::Relaxed)).print() == Entry(entry).print();
    if line.iter().any(|place| place.load(Ordering::Relaxed) != 0 && is_known(place)) {
        return;
    }
    // A packet may take the place first: it is the next one then.
    let taken = |place: &AtomicU64| place.compare_exchange(0, entry, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    let _ = line.iter().any(taken);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(lines: usize) -> Vec<AtomicU64> {
        (0..lines * WAYS).map(|_| AtomicU64::new(0)).collect()
    }

    fn entry(hash: u64, backend: u64, established: bool) -> u64 {
        hash >> 32 << 32 | backend << BACKEND_SHIFT | if established { ESTABLISHED } else { 0 } | 7
    }

    fn find(table: &[AtomicU64], hash: u64) -> Option<u32> {
        let line = hash as u32 as usize & (table.len() / WAYS - 1);
        let found = entries(&table[line * WAYS..(line + 1) * WAYS]).find(|entry| entry.print() == (hash >> 32) as u32);
        found.map(Entry::backend)
    }

    #[test]
    fn an_entry_is_what_the_program_writes() {
        let seen = Entry(0x1234_5678_0042_8003);
        assert_eq!((seen.print(), seen.backend(), seen.is_established()), (0x1234_5678, 0x42, true));
        assert_eq!(seen.age_ns(5 << 32), 2 << 32);
        let began = Entry(0x1234_5678_0042_0003);
        assert_eq!((began.is_established(), began.age_ns((3 + 10) << 22)), (false, 10 << 22));
        // The clock's bits that do not fit come round.
        assert_eq!(Entry(0x7fff).age_ns(0x8001 << 22), 2 << 22);
        assert_eq!(Entry(0x0001_0005).age_ns(3 << 22), 0, "ahead of the clock");
        for hash in [0, 0x8000_0000_0000_0000, 0x1234_5678_9abc_def0, u64::MAX] {
            assert_eq!(Entry(entry(hash, 1, true)).ring_slot(), hash::ring_slot(hash));
        }
    }

    #[test]
    fn flows_are_found_in_tables_of_any_size() {
        let hash = |n: u64| (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let from = table(256);
        for n in 0..500 {
            let line = hash(n) as u32 as usize & 255;
            put(&from[line * WAYS..(line + 1) * WAYS], entry(hash(n), n + 1, true));
        }
        let known: Vec<u64> = (0..500).filter(|n| find(&from, hash(*n)).is_some()).collect();
        assert!(known.len() > 490, "{}", known.len());
        for lines in [128, 256, 1024] {
            let to = table(lines);
            take_over(&from, &to);
            let lost = known.iter().filter(|n| find(&to, hash(**n)) != Some(**n as u32 + 1)).count();
            assert!(lost <= 25, "{lost} of {} with {lines} lines", known.len());
            let before = entries(&to).count();
            take_over(&from, &to);
            assert_eq!(entries(&to).count(), before, "once is enough");
        }
    }

    #[test]
    fn established_flows_come_first() {
        let (from, to) = (table(4), table(1));
        for line in 0..4u64 {
            for way in 0..WAYS as u64 {
                let hash = (line * 8 + way + 1) << 32 | line;
                from[(line * 8 + way) as usize].store(entry(hash, 1 + way, way < 2), Ordering::Relaxed);
            }
        }
        take_over(&from, &to);
        assert_eq!(entries(&to).filter(|entry| entry.is_established()).count(), WAYS);
    }

    #[test]
    fn lines_are_powers_of_two() {
        assert_eq!([0, 1024, 1025, 65_536].map(|flows| lines_for(flows, 128)), [128, 128, 256, 8_192]);
    }
}
