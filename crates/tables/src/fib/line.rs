//! The memory that root references share a cache line with: a block that lies there costs a look-up no line of its own.

use std::collections::BTreeSet;

use super::arena::Block;
use super::block::{LINE, ROOTS};
use super::family::Family;

/// The word of a root reference.
pub(super) fn root_word<F: Family>(place: usize) -> usize {
    place / F::ROOTS_A_LINE * LINE + place % F::ROOTS_A_LINE
}

/// Which words of which lines are in use.
#[derive(Debug)]
pub(super) struct Lines {
    roots_a_line: usize,
    /// A line each: a one for each word in use.
    used: Vec<u16>,
    /// Lines where memory was given back: a block that found no room may find some now.
    freed: BTreeSet<usize>,
}

/// Ones for `size` words from word `at` of a line; `None`: they are not in it.
fn mask(at: usize, size: usize) -> Option<u16> {
    let ones = u16::MAX.checked_shr(LINE.checked_sub(size)? as u32).unwrap_or(0);
    (at + size <= LINE).then(|| ones << at)
}

impl Lines {
    pub(super) fn new<F: Family>() -> Self {
        let references = mask(0, F::ROOTS_A_LINE).unwrap_or(u16::MAX);
        Self { roots_a_line: F::ROOTS_A_LINE, used: vec![references; ROOTS / F::ROOTS_A_LINE], freed: BTreeSet::new() }
    }

    /// Takes memory for a block that root reference `place` leads to. The last reference of a line has its block at the end of the
    /// line, the others at the beginning, so that what is free between them is in one piece.
    pub(super) fn take(&mut self, place: usize, size: usize) -> Option<usize> {
        let (line, number) = (place / self.roots_a_line, place % self.roots_a_line);
        let at = if number + 1 == self.roots_a_line { LINE.checked_sub(size)? } else { self.roots_a_line };
        let (used, wanted) = (self.used.get_mut(line)?, mask(at, size)?);
        if *used & wanted != 0 {
            return None;
        }
        *used |= wanted;
        Some(line * LINE + at)
    }

    pub(super) fn give_back(&mut self, (index, size): Block) {
        let line = index / LINE;
        if let (Some(used), Some(free)) = (self.used.get_mut(line), mask(index % LINE, size)) {
            *used &= !free;
            self.freed.insert(line);
        }
    }

    /// Counts a block as used that was there before. `None`: it lies over something else.
    pub(super) fn adopt(&mut self, (index, size): Block) -> Option<()> {
        let (used, block) = (self.used.get_mut(index / LINE)?, mask(index % LINE, size)?);
        let before = std::mem::replace(used, *used | block);
        (before & block == 0).then_some(())
    }

    /// Root references of a line where memory was given back since this was last asked for it.
    pub(super) fn next_freed(&mut self) -> Option<std::ops::Range<usize>> {
        let line = self.freed.pop_first()?;
        Some(line * self.roots_a_line..(line + 1) * self.roots_a_line)
    }

    pub(super) fn has_freed(&self) -> bool {
        !self.freed.is_empty()
    }

    /// Words of blocks.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> usize {
        self.used.iter().map(|used| used.count_ones() as usize - self.roots_a_line).sum()
    }
}
