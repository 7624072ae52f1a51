//! The memory of a table: words that readers look at while blocks are made, put in force, and given back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};

use super::block::{BLOCK_REACH, Image, LINE, Ref};
use super::family::Family;
use super::line::Lines;

/// The memory of a table, shared with its readers.
pub trait Words {
    /// All of it, zero at first.
    fn words(&self) -> &[AtomicU32];
}

impl Words for Vec<AtomicU32> {
    fn words(&self) -> &[AtomicU32] {
        self
    }
}

impl<W: Words + ?Sized> Words for std::sync::Arc<W> {
    fn words(&self) -> &[AtomicU32] {
        (**self).words()
    }
}

/// There is no room for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the table is full: {used} of {capacity} words are in use")]
pub struct Full {
    /// Words in use, those that wait for their readers included.
    pub used: usize,
    /// Words there are.
    pub capacity: usize,
}

/// A block: its first word, and how many.
pub(super) type Block = (usize, usize);

/// Blocks outside of the root references' lines lie at even words.
const GRAIN: usize = 2;

#[derive(Debug)]
pub(super) struct Arena<W> {
    words: W,
    /// Memory beside root references.
    lines: Lines,
    /// Behind it: the first word there is.
    first: usize,
    /// Free memory: where it begins, and how many words. Neighbours are one.
    free: BTreeMap<usize, usize>,
    /// The same by size.
    by_size: BTreeSet<(usize, usize)>,
    /// Behind this, nothing was ever used.
    top: usize,
    used: usize,
}

fn whole_grains(words: usize) -> usize {
    words.next_multiple_of(GRAIN)
}

/// Words to leave out before a block of `size` words that would begin at `index`: a block that fits in one cache line lies in one, as
/// long as there is room.
fn gap(index: usize, size: usize) -> usize {
    let to_line = LINE - index % LINE;
    if size <= LINE && size > to_line { to_line } else { 0 }
}

impl<W: Words> Arena<W> {
    pub(super) fn new<F: Family>(words: W) -> Self {
        Self {
            words,
            lines: Lines::new::<F>(),
            first: F::FIRST_BLOCK,
            free: BTreeMap::new(),
            by_size: BTreeSet::new(),
            top: F::FIRST_BLOCK,
            used: 0,
        }
    }

    pub(super) fn words(&self) -> &[AtomicU32] {
        self.words.words()
    }

    pub(super) fn load(&self, index: usize) -> u32 {
        // Pairs with `publish`: who sees a reference sees the block.
        self.words().get(index).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Puts a reference in force.
    pub(super) fn publish(&self, index: usize, reference: Ref) {
        if let Some(word) = self.words().get(index) {
            word.store(reference.0, Ordering::Release);
        }
    }

    /// Places a block that no reader knows of yet; one that root reference `root` leads to, beside it if there is room.
    pub(super) fn place(&mut self, image: &Image, root: Option<usize>) -> Result<(Ref, Block), Full> {
        let size = image.words.len();
        let beside = root.and_then(|place| self.lines.take(place, size));
        let index = match beside {
            Some(index) => index,
            None => self.take(whole_grains(size))?,
        };
        for (word, value) in self.words.words().iter().skip(index).zip(&image.words) {
            word.store(*value, Ordering::Relaxed);
        }
        Ok((image.reference(index), (index, size)))
    }

    /// Copies a block beside the root reference that leads to it, if it lies elsewhere and there is room; tells where.
    pub(super) fn copy_home(&mut self, place: usize, (index, size): Block) -> Option<usize> {
        let home = if index < self.first { None } else { self.lines.take(place, size) }?;
        let words = self.words.words();
        for (to, from) in words.iter().skip(home).zip(words.iter().skip(index)).take(size) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        Some(home)
    }

    /// Root references beside which memory was given back since this was last asked for them.
    pub(super) fn next_freed(&mut self) -> Option<std::ops::Range<usize>> {
        self.lines.next_freed()
    }

    /// Whether there are such root references.
    pub(super) fn has_freed(&self) -> bool {
        self.lines.has_freed()
    }

    fn take(&mut self, size: usize) -> Result<usize, Full> {
        let exact = self.by_size.range((size, 0)..=(size, usize::MAX)).next().copied();
        let found = exact
            .filter(|(_, index)| gap(*index, size) == 0)
            .map(|free| self.cut(free, free.1, size))
            .or_else(|| self.grow(size))
            .or_else(|| self.fit(size));
        let index = found.ok_or(Full { used: self.used(), capacity: self.capacity() })?;
        self.used += size;
        Ok(index)
    }

    /// Takes what was never used before.
    fn grow(&mut self, size: usize) -> Option<usize> {
        let gap = gap(self.top, size);
        let index = self.top + gap;
        // The last word is behind the reach of the last block: a program may load two bytes at its last one.
        if index + BLOCK_REACH.max(size) >= self.words().len() {
            return None;
        }
        let before = self.top;
        self.top = index + size;
        if gap > 0 {
            self.put(before, gap);
        }
        Some(index)
    }

    /// Takes a part of the smallest free memory that is large enough, in one line where a few tries find such a place.
    fn fit(&mut self, size: usize) -> Option<usize> {
        const TRIES: usize = 8;
        let mut candidates = self.by_size.range((size, 0)..).take(TRIES).copied();
        let aligned = candidates.find(|(words, index)| size + gap(*index, size) <= *words);
        if let Some(free) = aligned {
            return Some(self.cut(free, free.1 + gap(free.1, size), size));
        }
        let any = self.by_size.range((size, 0)..).next().copied()?;
        Some(self.cut(any, any.1, size))
    }

    /// Takes `size` words at `index` out of free memory, which keeps what is before and behind them.
    fn cut(&mut self, (words, start): (usize, usize), index: usize, size: usize) -> usize {
        self.free.remove(&start);
        self.by_size.remove(&(words, start));
        for (start, end) in [(start, index), (index + size, start + words)] {
            if start < end {
                self.free.insert(start, end - start);
                self.by_size.insert((end - start, start));
            }
        }
        index
    }

    /// Adds free memory, and joins it with its neighbours.
    fn put(&mut self, mut index: usize, mut words: usize) {
        if let Some((start, before)) = self.free.range(..index).next_back().map(|(start, words)| (*start, *words))
            && start + before == index
        {
            self.free.remove(&start);
            self.by_size.remove(&(before, start));
            (index, words) = (start, before + words);
        }
        if let Some(behind) = self.free.remove(&(index + words)) {
            self.by_size.remove(&(behind, index + words));
            words += behind;
        }
        if index + words == self.top {
            self.top = index;
            return;
        }
        self.free.insert(index, words);
        self.by_size.insert((words, index));
    }

    /// Gives a block back that no reader can know of.
    pub(super) fn give_back(&mut self, (index, words): Block) {
        if index < self.first {
            return self.lines.give_back((index, words));
        }
        let size = whole_grains(words);
        self.used = self.used.saturating_sub(size);
        self.put(index, size);
    }

    /// Counts blocks as used that were there before: everything between them becomes free. `None`: they overlap or lie outside.
    pub(super) fn adopt(&mut self, mut blocks: Vec<Block>) -> Option<()> {
        blocks.sort_unstable();
        for (index, words) in blocks {
            if index < self.first {
                self.lines.adopt((index, words))?;
                continue;
            }
            let size = whole_grains(words);
            if index % GRAIN != 0 || index < self.top || index + BLOCK_REACH >= self.words().len() {
                return None;
            }
            let before = self.top;
            self.top = index + size;
            self.used += size;
            if before < index {
                self.put(before, index - before);
            }
        }
        Some(())
    }

    /// Words of blocks that lie beside root references.
    #[cfg(test)]
    pub(super) fn words_beside_roots(&self) -> usize {
        self.lines.in_use()
    }

    /// Words in use, all of the root references' lines included.
    pub(super) fn used(&self) -> usize {
        self.first + self.used
    }

    pub(super) fn capacity(&self) -> usize {
        self.words().len()
    }
}
