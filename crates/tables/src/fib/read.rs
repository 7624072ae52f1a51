//! What a reader does, and how the blocks of a table are read back.

use std::sync::atomic::{AtomicU32, Ordering};

use super::block::{
    BLOCK_REACH, Cell, FAN, NODE_BITS, NODE_VALUES, RANGE_BITS, ROOT_BITS, ROOTS, Ref, Target, Value, Width,
    range_values,
};
use super::family::{Family, Slot};
use super::line::root_word;

fn word(words: &[AtomicU32], index: usize) -> u32 {
    // Pairs with the store that put the block in force.
    words.get(index).map_or(0, |word| word.load(Ordering::Acquire))
}

/// Value number `rank` of those that begin at word `index`.
fn value(words: &[AtomicU32], index: usize, rank: usize, width: Width) -> Value {
    let values = word(words, index + rank / width.a_word());
    match width {
        Width::Byte => Value::Group((values >> (rank % 4 * 8)) as u16 & 0xff),
        Width::Half => Value::of((values >> (rank % 2 * 16)) as u16),
    }
}

fn bits_of(words: &[AtomicU32], node: usize) -> u64 {
    u64::from(word(words, node)) | u64::from(word(words, node + 1)) << 32
}

/// The group of the longest prefix that covers `address`, 0 where there is none. What the program in the kernel does, step by
/// step; any number of readers may run beside a writer.
pub fn find<F: Family>(words: &[AtomicU32], address: F::Address) -> u16 {
    let key = F::left(address);
    let (high, low) = ((key >> 64) as u64, key as u64);
    let mut reference = Ref(word(words, root_word::<F>((high >> (64 - ROOT_BITS)) as usize)));
    let mut window = high << ROOT_BITS;
    // The program is verified to stay inside the table by this, and finds nothing in a block that lies behind it.
    let in_reach = |block: usize| block + BLOCK_REACH < words.len();
    // As many nodes as an address can have, in its two halves.
    for _ in 0..=F::BITS.div_ceil(NODE_BITS) {
        if reference.begins_low_half() {
            window = low;
        }
        let (block, value) = match reference.target() {
            Some(Target::Group(0)) | None => break,
            Some(Target::Group(group)) => return group,
            Some(Target::Node { index, .. } | Target::Range { index, .. }) if !in_reach(index) => break,
            Some(Target::Node { index: block, width }) => {
                let place = window >> (64 - NODE_BITS);
                let up_to = (2u64 << place).wrapping_sub(1);
                let rank = (bits_of(words, block) & up_to).count_ones();
                window <<= NODE_BITS;
                (block, value(words, block + NODE_VALUES, (rank as usize).saturating_sub(1), width))
            }
            Some(Target::Range { index: block, steps }) => {
                let bits = (window >> 32) as u32;
                let mut rank = 0;
                for step in (0..steps).rev() {
                    let half = 1usize << step;
                    rank += usize::from(bits >= word(words, block + rank + half - 1)) * half;
                }
                window <<= RANGE_BITS;
                (block, value(words, block + range_values(steps), rank, Width::Half))
            }
        };
        match value {
            Value::Group(0) => break,
            Value::Group(group) => return group,
            Value::Deeper(distance) => reference = Ref(word(words, block + distance)),
        }
    }
    word(words, F::DEFAULT_WORD) as u16
}

/// The root references that lead anywhere.
pub(super) fn places_in_use<F: Family>(words: &[AtomicU32]) -> Vec<usize> {
    (0..ROOTS).filter(|place| word(words, root_word::<F>(*place)) != 0).collect()
}

/// Where a value stands that leads deeper, and for which part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) slot: Slot,
    pub(super) cell: Cell,
    /// The word that holds the reference; `None` for a group.
    pub(super) word: Option<usize>,
}

/// The values of a block of `slot`, in order; each holds from its slot's beginning to the next one's.
pub(super) fn entries<F: Family>(words: &[AtomicU32], slot: Slot, reference: Ref) -> Vec<Entry> {
    let entry = |slot, block: usize, value| match value {
        Value::Group(group) => Entry { slot, cell: Cell::Group(group), word: None },
        Value::Deeper(distance) => {
            let at = block + distance;
            Entry { slot, cell: Cell::Deeper(Ref(word(words, at))), word: Some(at) }
        }
    };
    match reference.target() {
        Some(Target::Node { index: block, width: of_values }) => {
            let width = slot.window::<F>(NODE_BITS);
            let (bits, mut ones) = (bits_of(words, block), 0usize);
            let places = (0..FAN).step_by(FAN >> width);
            places
                .map(|place| {
                    ones += (bits >> place & 1) as usize;
                    let value = value(words, block + NODE_VALUES, ones.saturating_sub(1), of_values);
                    entry(slot.part((place as u32) << (32 - NODE_BITS), width), block, value)
                })
                .collect()
        }
        Some(Target::Range { index: block, steps }) => {
            let width = slot.window::<F>(RANGE_BITS);
            let bounds = std::iter::once(0).chain((0..range_values(steps)).map(|rank| word(words, block + rank)));
            let values = (0..1usize << steps).map(|rank| value(words, block + range_values(steps), rank, Width::Half));
            let mut all: Vec<(u32, Value)> = bounds.zip(values).collect();
            // Repeated values stand for nothing.
            all.dedup_by_key(|(_, value)| *value);
            all.into_iter().map(|(bound, value)| entry(slot.part(bound, width), block, value)).collect()
        }
        _ => Vec::new(),
    }
}

/// How many words a block has.
pub(super) fn size_of(words: &[AtomicU32], reference: Ref) -> Option<(usize, usize)> {
    let (block, first, count, width) = match reference.target()? {
        Target::Group(_) => return None,
        Target::Node { index, width } => (index, NODE_VALUES, bits_of(words, index).count_ones() as usize, width),
        Target::Range { index, steps } => (index, range_values(steps), 1usize << steps, Width::Half),
    };
    let mut values: Vec<Value> = (0..count).map(|rank| value(words, block + first, rank, width)).collect();
    values.dedup();
    let deeper = values.iter().filter(|value| matches!(value, Value::Deeper(_))).count();
    Some((block, first + count.div_ceil(width.a_word()) + deeper))
}
