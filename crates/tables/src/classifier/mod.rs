//! First match of many rules in a few loads: rules as boxes in four dimensions, found by trees of cuts.
//!
//! A dimension is a rank: what of a field no rule tells apart has one number, from 0 in the field's order, so that rules are intervals of
//! ranks whatever they are of, and as dense at one end of a field as at the other. A rule is one box or several; of those that
//! a point lies in, the first rule's counts.
//!
//! Boxes that are wide in a dimension would be in every part of a cut through it. So boxes are grouped by where they are narrow, and each
//! group has a tree (EffiCuts, Vamanan, Voskuilen and Vijaykumar, SIGCOMM 2010); a point asks every tree, and the first
//! of their answers is the answer. A node cuts its region into parts of equal size (HiCuts, Gupta and McKeown, Hot Interconnects 1999) and is
//! part of the reference that leads to it, so that a step is one load. A leaf is a list of boxes in the order of their rules.
//!
//! The answers are in 64-bit words without pointers: [`find`] reads them as a program in the kernel does.

mod build;
mod node;
#[cfg(test)]
mod tests;

pub use build::{Classifier, Stats, TREES_MAX, TooLarge, build};
pub use node::{LEAF_MAX, STEPS_MAX, find};

/// Dimensions.
pub const DIMENSIONS: usize = 4;

/// Ranks of a dimension at most.
pub const RANKS_MAX: u32 = 1 << 15;

/// A point: a rank below [`RANKS_MAX`] in each dimension.
pub type Point = [u16; DIMENSIONS];

/// Points from the first to the last rank, both included, in each dimension.
pub type Area = [(u16, u16); DIMENSIONS];

/// A box, and what it answers: lower ones come first. Below 2^32 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Where it matches.
    pub area: Area,
    /// Its place in the order, and what is found where it is the first that matches.
    pub answer: u32,
}
