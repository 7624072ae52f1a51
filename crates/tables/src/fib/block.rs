//! What the words of a table mean: references, and the two kinds of block that they lead to.
//!
//! A reference is one word, so storing it is what puts a block in force:
//!
//! | bits 30 to 28 | bits 27 to 0 |
//! |---|---|
//! | 0 | group, below 2^15; 0 is no route |
//! | 1 | a node that begins at this word |
//! | 2 | a node of bytes that begins at this word |
//! | 4 to 7 | a range of 1 to 4 steps that begins at this word |
//!
//! Bit 31 says that the block is the first one for the second half of an IPv6 address.
//!
//! **Node**: the next six bits of the address. A bit map of 64 bits has a one where another value begins; the values follow, two
//! a word, one for each one. The rank of the address's bit, the number of ones up to it, is the place of its value: no
//! pointer, and where a table has few values in a node, all of it in one cache line. (The idea of compressing equal neighbours
//! is that of Poptrie's leaf vector, Asai and Ohara, SIGCOMM 2015; leaves lie in the node itself here.)
//!
//! **Node of bytes**: the same with four values a word, for groups below 256 and nothing deeper. Few nodes have more than 256 groups
//! of next hops, and half the size is what lets most nodes lie beside the reference that leads to them.
//!
//! **Range**: the next 32 bits of the address against 2^steps - 1 sorted bounds, which the values follow. What few prefixes of
//! many lengths would spread over a chain of nodes is found in one block.
//!
//! A value is a group, or, with bit 15, the distance in words from the block's beginning to a reference for what is deeper.

/// Words of a cache line.
pub const LINE: usize = 16;
/// Bits of the address that choose its root reference.
pub const ROOT_BITS: u8 = 18;
/// Root references.
pub(super) const ROOTS: usize = 1 << ROOT_BITS;
/// Bits of the address that a node is indexed with.
pub(super) const NODE_BITS: u8 = 6;
/// Values of a node.
pub(super) const FAN: usize = 1 << NODE_BITS;
/// Bits of the address that a range compares.
pub(super) const RANGE_BITS: u8 = 32;
/// Values of the largest range.
pub(super) const RANGE_MAX: usize = 1 << RANGE_STEPS_MAX;
const RANGE_STEPS_MAX: u32 = 4;
/// Words of the largest block: a node with 64 children.
pub(super) const BLOCK_MAX: usize = 2 + FAN / 2 + FAN;
/// Behind the beginning of a block there are at least so many words: what a program in the kernel is verified to touch, for which
/// a rank is a number of eight bits.
pub const BLOCK_REACH: usize = 256;
const _: () = assert!(BLOCK_REACH >= BLOCK_MAX && BLOCK_REACH.is_power_of_two());
/// Greatest number of a group.
pub const GROUP_MAX: u16 = 0x7fff;

const KIND_SHIFT: u32 = 28;
const KIND_MASK: u32 = 7;
/// Set where an address's second 64 bits begin.
const LOW_HALF: u32 = 1 << 31;
const INDEX_MASK: u32 = (1 << KIND_SHIFT) - 1;
const KIND_NODE: u32 = 1;
const KIND_BYTES: u32 = 2;
/// The kind of a range of `steps` is this more.
const KIND_RANGE: u32 = 3;
const VALUE_DEEPER: u16 = 0x8000;

/// One word that leads to a group or a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ref(pub(super) u32);

/// What a reference leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Group(u16),
    Node { index: usize, width: Width },
    Range { index: usize, steps: u32 },
}

/// How large a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// A group below 256.
    Byte,
    /// Half a word.
    Half,
}

impl Width {
    /// Values in a word.
    pub(super) fn a_word(self) -> usize {
        match self {
            Self::Byte => 4,
            Self::Half => 2,
        }
    }
}

impl Ref {
    /// The reference of a block for addresses whose first `depth` bits have been looked at.
    pub(super) fn at_depth(self, depth: u8) -> Self {
        if depth == 64 { Self(self.0 | LOW_HALF) } else { self }
    }

    /// Whether the second half of the address is looked at from here on.
    pub(super) fn begins_low_half(self) -> bool {
        self.0 & LOW_HALF != 0
    }

    pub(super) fn group(group: u16) -> Self {
        Self(u32::from(group & GROUP_MAX))
    }

    /// The same, for a copy of the block that begins at another word.
    pub(super) fn moved(self, index: usize) -> Self {
        Self(self.0 & !INDEX_MASK | (index as u32 & INDEX_MASK))
    }

    /// `None`: no such kind, so the word is no reference.
    pub(super) fn target(self) -> Option<Target> {
        let index = (self.0 & INDEX_MASK) as usize;
        match self.0 >> KIND_SHIFT & KIND_MASK {
            0 => u16::try_from(self.0).ok().filter(|group| *group <= GROUP_MAX).map(Target::Group),
            KIND_NODE => Some(Target::Node { index, width: Width::Half }),
            KIND_BYTES => Some(Target::Node { index, width: Width::Byte }),
            kind => {
                let steps = kind.checked_sub(KIND_RANGE).filter(|steps| (1..=RANGE_STEPS_MAX).contains(steps))?;
                Some(Target::Range { index, steps })
            }
        }
    }
}

/// One value of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Group(u16),
    Deeper(Ref),
}

impl Cell {
    pub(super) fn of(reference: Ref) -> Self {
        match reference.target() {
            Some(Target::Group(group)) => Self::Group(group),
            _ => Self::Deeper(reference),
        }
    }

    pub(super) fn reference(self) -> Ref {
        match self {
            Self::Group(group) => Ref::group(group),
            Self::Deeper(reference) => reference,
        }
    }
}

/// The words of a block that is not placed yet, and the kind of its reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) words: Vec<u32>,
    kind: u32,
}

impl Image {
    /// A node: values with the 32 bits at which they begin, ascending, of which the first six count.
    pub(super) fn node(entries: &[(u32, Cell)]) -> Self {
        let mut bits = 0u64;
        let mut runs: Vec<Cell> = Vec::with_capacity(entries.len());
        for (begin, cell) in entries {
            let same = runs.last().is_some_and(|last| last == cell && matches!(cell, Cell::Group(_)));
            if !same {
                bits |= 1 << (begin >> (u32::BITS - u32::from(NODE_BITS)));
                runs.push(*cell);
            }
        }
        let mut words = vec![bits as u32, (bits >> 32) as u32];
        let small = |cell: &Cell| match cell {
            Cell::Group(group) => u8::try_from(*group).ok(),
            Cell::Deeper(_) => None,
        };
        if let Some(bytes) = runs.iter().map(small).collect::<Option<Vec<u8>>>() {
            words.extend(
                bytes
                    .chunks(Width::Byte.a_word())
                    .map(|values| values.iter().rev().fold(0, |word, value| word << 8 | u32::from(*value))),
            );
            return Self { words, kind: KIND_BYTES };
        }
        append_values(&mut words, &runs, runs.len());
        Self { words, kind: KIND_NODE }
    }

    /// A range: values with the bounds at which they begin, ascending, the first one's being 0. `None`: too many.
    pub(super) fn range(entries: &[(u32, Cell)]) -> Option<Self> {
        let steps = entries.len().next_power_of_two().trailing_zeros().max(1);
        if entries.is_empty() || steps > RANGE_STEPS_MAX {
            return None;
        }
        let size = 1usize << steps;
        let bounds = entries.iter().skip(1).map(|(bound, _)| *bound);
        let mut words: Vec<u32> = bounds.chain(std::iter::repeat(u32::MAX)).take(size - 1).collect();
        // Bounds that stand for nothing may be met by the greatest address: its value is repeated behind them.
        let cells: Vec<Cell> = entries.iter().map(|(_, cell)| *cell).collect();
        append_values(&mut words, &cells, size);
        Some(Self { words, kind: KIND_RANGE + steps })
    }

    pub(super) fn reference(&self, index: usize) -> Ref {
        Ref(self.kind << KIND_SHIFT | (index as u32 & INDEX_MASK))
    }
}

/// Values, two a word, and behind them the references of those that are deeper. The last value is repeated up to `size`.
fn append_values(words: &mut Vec<u32>, cells: &[Cell], size: usize) {
    let first_reference = words.len() + size.div_ceil(2);
    let mut references = Vec::new();
    let mut values: Vec<u16> = cells
        .iter()
        .map(|cell| match cell {
            Cell::Group(group) => group & GROUP_MAX,
            Cell::Deeper(reference) => {
                references.push(reference.0);
                // A block has fewer than 2^15 words.
                VALUE_DEEPER | (first_reference + references.len() - 1) as u16
            }
        })
        .collect();
    values.resize(size, values.last().copied().unwrap_or(0));
    words.extend(values.chunks(2).map(|pair| {
        let [low, high] = [0, 1].map(|at| pair.get(at).copied().map_or(0, u32::from));
        low | high << 16
    }));
    words.extend(references);
}

/// Where the values of a node, or of a range, begin.
pub(super) const NODE_VALUES: usize = 2;
pub(super) fn range_values(steps: u32) -> usize {
    (1 << steps) - 1
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Group(u16),
    /// The distance from the block's beginning to the reference.
    Deeper(usize),
}

impl Value {
    pub(super) fn of(value: u16) -> Self {
        if value & VALUE_DEEPER == 0 { Self::Group(value) } else { Self::Deeper(usize::from(value & GROUP_MAX)) }
    }
}
