//! References, leaves, and how they are read.

use super::{DIMENSIONS, Point, RANKS_MAX, Rule};

/// Boxes of a leaf at most.
pub const LEAF_MAX: usize = 32;
/// Nodes that a look-up goes through at most in one tree.
pub const STEPS_MAX: usize = 8;
/// Parts of a node at most.
pub(super) const PARTS_MAX: usize = 1 << 13;
/// Words of a box in a leaf: its area, and its answer.
pub(super) const BOX_WORDS: usize = 3;

/// A reference: where its words begin, and for a leaf (no bit of [`NODE`]) its boxes, for a node the dimension, how many low bits of the
/// rank are not looked at, and the part that the first child is of.
///
/// ```text
/// bits  63    62..61     60..57  56..44 (leaf: boxes)  43..28       27..0
///       node  dimension  shift   0                     first part   index
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ref(pub(super) u64);

const NODE: u64 = 1 << 63;
const DIMENSION_SHIFT: u32 = 61;
const CUT_SHIFT: u32 = 57;
const BOXES_SHIFT: u32 = 44;
const FIRST_SHIFT: u32 = 28;
const INDEX_MASK: u64 = (1 << FIRST_SHIFT) - 1;

/// A leaf without boxes: nothing matches.
pub(super) const EMPTY: Ref = Ref(0);

impl Ref {
    pub(super) fn leaf(index: usize, boxes: usize) -> Self {
        Self((boxes as u64) << BOXES_SHIFT | index as u64 & INDEX_MASK)
    }

    pub(super) fn node(index: usize, dimension: usize, shift: u32, first: u16) -> Self {
        let dimension = (dimension as u64 & 3) << DIMENSION_SHIFT;
        let cut = u64::from(shift) << CUT_SHIFT | u64::from(first) << FIRST_SHIFT;
        Self(NODE | dimension | cut | index as u64 & INDEX_MASK)
    }

    fn index(self) -> usize {
        (self.0 & INDEX_MASK) as usize
    }

    /// Where the child of a node is that leads to a point; `None` for a leaf.
    fn child(self, point: Point) -> Option<usize> {
        if self.0 & NODE == 0 {
            return None;
        }
        let rank = point.get((self.0 >> DIMENSION_SHIFT & 3) as usize).copied().unwrap_or(0);
        let part = rank >> (self.0 >> CUT_SHIFT & 15);
        Some(self.index() + usize::from(part.wrapping_sub((self.0 >> FIRST_SHIFT) as u16)))
    }

    fn boxes(self) -> usize {
        (self.0 >> BOXES_SHIFT & 0x1fff) as usize
    }
}

/// The highest bit of each rank of four in a word.
const HIGHEST: u64 = 0x8000_8000_8000_8000;

/// Four ranks in a word, the first in the low bits.
fn pack(ranks: Point) -> u64 {
    ranks.into_iter().rev().fold(0, |word, rank| word << 16 | u64::from(rank))
}

/// A box as the words of a leaf: the first ranks, the last ones with the highest bits set, and the answer.
pub(super) fn encode(rule: &Rule) -> [u64; BOX_WORDS] {
    [pack(rule.area.map(|(first, _)| first)), pack(rule.area.map(|(_, last)| last)) | HIGHEST, rule.answer.into()]
}

/// Whether a point, with the highest bits not set, lies between the first and the last ranks of a box: where a rank is below the first
/// or above the last, its difference borrows the highest bit.
fn is_between(point: u64, first: u64, last: u64) -> bool {
    ((point | HIGHEST) - first) & (last - point) & HIGHEST == HIGHEST
}

/// The first answer for a point in the tree below a reference. `None`: nothing matches there.
fn find_below(words: &[u64], root: u64, point: Point) -> Option<u32> {
    let mut at = Ref(root);
    for _ in 0..STEPS_MAX {
        match at.child(point) {
            Some(index) => at = Ref(*words.get(index)?),
            None => break,
        }
    }
    let leaf = words.get(at.index()..at.index() + at.boxes() * BOX_WORDS)?;
    let (boxes, _) = leaf.as_chunks::<BOX_WORDS>();
    let packed = pack(point);
    boxes.iter().find(|[first, last, _]| is_between(packed, *first, *last)).map(|[_, _, answer]| *answer as u32)
}

/// The first answer for a point among the trees that these words begin with; `None`: nothing matches.
#[must_use]
pub fn find(words: &[u64], roots: &[u64], point: Point) -> Option<u32> {
    roots.iter().filter_map(|root| find_below(words, *root, point)).min()
}

const _: () = assert!(LEAF_MAX < 1 << 13 && DIMENSIONS == 4 && RANKS_MAX <= 1 << 15);
