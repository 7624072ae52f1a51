//! Longest-prefix match in a few megabytes, changed while readers look.
//!
//! A table is an array of words that any number of readers share with one writer: 2^18 root references, one for each value of an
//! address's first bits, and the blocks that they lead to (see `block`). What a look-up costs is the cache lines it loads, so root
//! references of IPv4 are two a line, and a block lies beside the reference that leads to it, in the same line, where there is room
//! (see `line`): most look-ups load that line and no other.
//!
//! # How it changes under its readers
//! Blocks never change once a reference leads to them, but for the references that they hold. A change makes new blocks in
//! free memory, bottom up, and then stores one reference, with release order, in the lowest place above all that is new. A
//! reader that follows references, with acquire order or by address dependency, sees the old part or the new one, whole.
//! A prefix that is shorter than what the first array tells apart is a store for each of its slots: every address
//! goes from the old answer to the new one, not all at the same time.
//!
//! A block beside its root reference is a block as any other: nothing is written over that a reader can be in. Its successor has to
//! be made elsewhere while readers may be in it, and is put in force there. When they have gone, [`Fib::reclaim`] copies it into the
//! memory that has become free, stores the reference to the copy, and retires where it was. The copy answers as the block
//! does, down to the references in it; a reader is in one of the two. One that is in the older one may follow a reference to a
//! block that a later change retires: it began before that, and memory waits for every reader that began before.
//!
//! Blocks that a change has made superfluous wait in [`Fib::retired`] until the owner knows that every reader which may
//! have seen them has finished, and hands them to [`Fib::reclaim`]: with programs in the kernel as readers, that is an RCU
//! grace period.
//!
//! A change that finds no room stores nothing: the table answers as before, and [`Full`] says so.

mod arena;
mod block;
mod build;
mod family;
mod line;
mod read;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::AtomicU32;

pub use arena::{Full, Words};
pub use block::{BLOCK_REACH, GROUP_MAX, LINE, ROOT_BITS};
pub use family::{Family, Ip4, Ip4Dense, Ip6};
pub use read::find;

use arena::{Arena, Block};
use block::{Cell, Image, Ref, Target};
use build::{Change, Leveled, build};
use family::Slot;
use line::root_word;
use sweep::{Fragment, Route, fragments};

/// A prefix: address, host bits zero, and length.
pub type Prefix<F> = (<F as Family>::Address, u8);

/// Blocks that move beside their root references at a time, so that no one waits long.
const HOME_BATCH: usize = 16_384;

/// Blocks that no reference leads to any more, though readers may still be in them.
#[derive(Debug, Default)]
#[must_use = "blocks that are not reclaimed are lost"]
pub struct Retired(Vec<Block>);

impl Retired {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a table takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prefixes.
    pub prefixes: usize,
    /// Words in use, those that wait for their readers included.
    pub words: usize,
    /// Words there are.
    pub capacity: usize,
}

/// How far look-ups go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Blocks by the number of others that a look-up meets before them.
    pub levels: Vec<usize>,
    /// Root references of a family whose lines have room for blocks that lead out of their line: such a look-up loads two. Blocks
    /// that are too large stay there; others go home when their readers have gone ([`Fib::reclaim`]).
    pub away: usize,
}

impl Depth {
    fn count<F: Family>(&mut self, ((index, _), level): Leveled, change: impl Fn(usize) -> usize) {
        if self.levels.len() <= level {
            self.levels.resize(level + 1, 0);
        }
        if let Some(blocks) = self.levels.get_mut(level) {
            *blocks = change(*blocks);
        }
        if F::ROOTS_A_LINE < LINE && level == 0 && index >= F::FIRST_BLOCK {
            self.away = change(self.away);
        }
        while self.levels.pop_if(|blocks| *blocks == 0).is_some() {}
    }
}

/// The writer's side of a table of one family.
#[derive(Debug)]
pub struct Fib<F: Family, W> {
    arena: Arena<W>,
    routes: BTreeMap<Prefix<F>, u16>,
    /// Prefixes of each length, so that lengths without any are not looked for.
    lengths: Vec<usize>,
    retired: Retired,
    depth: Depth,
    stores: usize,
}

impl<F: Family, W: Words> Fib<F, W> {
    /// A table without a prefix, in memory that is zero.
    pub fn new(words: W) -> Self {
        let lengths = vec![0; usize::from(F::BITS) + 1];
        Self {
            arena: Arena::new::<F>(words),
            routes: BTreeMap::new(),
            lengths,
            retired: Retired::default(),
            depth: Depth::default(),
            stores: 0,
        }
    }

    /// A table in memory that another writer has left. It knows no prefixes yet, and [`Fib::replace`] changes only what is
    /// different. `None`: what is there is no table.
    pub fn adopt(words: W) -> Option<Self> {
        let mut fib = Self::new(words);
        let mut blocks = Vec::new();
        for place in read::places_in_use::<F>(fib.words()) {
            fib.blocks_below(slot_of(place), fib.root(place), 0, &mut blocks)?;
        }
        blocks.iter().for_each(|block| fib.depth.count::<F>(*block, |count| count + 1));
        fib.arena.adopt(blocks.into_iter().map(|(block, _)| block).collect())?;
        Some(fib)
    }

    /// The memory.
    pub fn words(&self) -> &[AtomicU32] {
        self.arena.words()
    }

    /// Every prefix with its group, ascending.
    pub fn routes(&self) -> impl Iterator<Item = (Prefix<F>, u16)> + '_ {
        self.routes.iter().map(|(prefix, group)| (*prefix, *group))
    }

    /// The group of a prefix.
    pub fn get(&self, address: F::Address, length: u8) -> Option<u16> {
        self.routes.get(&normal::<F>(address, length)).copied()
    }

    /// The longest prefix that covers an address.
    pub fn longest(&self, address: F::Address) -> Option<(Prefix<F>, u16)> {
        self.covering(F::left(address), 0, F::BITS)
    }

    /// References stored since the table was opened: a prefix that changes no answer stores none.
    pub fn stores(&self) -> usize {
        self.stores
    }

    /// What the table takes.
    pub fn usage(&self) -> Usage {
        Usage { prefixes: self.routes.len(), words: self.arena.used(), capacity: self.arena.capacity() }
    }

    /// How far look-ups go.
    pub fn depth(&self) -> &Depth {
        &self.depth
    }

    /// Leads a prefix to a group, 1 to [`GROUP_MAX`]; tells which it led to before. Host bits are passed over.
    ///
    /// # Errors
    /// No room: nothing has changed.
    pub fn insert(&mut self, address: F::Address, length: u8, group: u16) -> Result<Option<u16>, Full> {
        self.change(normal::<F>(address, length), Some(group & GROUP_MAX))
    }

    /// Takes a prefix away; tells which group it led to.
    ///
    /// # Errors
    /// No room: nothing has changed. Taking away can need room, as what covered the prefix is written anew.
    pub fn remove(&mut self, address: F::Address, length: u8) -> Result<Option<u16>, Full> {
        self.change(normal::<F>(address, length), None)
    }

    fn change(&mut self, prefix: Prefix<F>, group: Option<u16>) -> Result<Option<u16>, Full> {
        let before = self.set(prefix, group);
        if before == group {
            return Ok(before);
        }
        let dirty = Slot::new(F::left(prefix.0), prefix.1);
        let mut change = Change::default();
        match self.update(dirty, group, &mut change) {
            Ok(()) => {
                self.put_in_force(change);
                Ok(before)
            }
            Err(full) => {
                self.set(prefix, before);
                change.placed.into_iter().for_each(|(block, _)| self.arena.give_back(block));
                Err(full)
            }
        }
    }

    /// Replaces all prefixes, ascending or not, the last of equal ones counting. Parts whose answers stay the same are left as
    /// they are.
    ///
    /// # Errors
    /// No room: some parts answer as the new prefixes want it, the others as before; more memory and another try finish it.
    pub fn replace(&mut self, routes: impl IntoIterator<Item = (Prefix<F>, u16)>) -> Result<(), Full> {
        self.routes = routes
            .into_iter()
            .map(|((address, length), group)| (normal::<F>(address, length), group & GROUP_MAX))
            .collect();
        self.lengths.fill(0);
        for length in self.routes.keys().map(|(_, length)| usize::from(*length)) {
            if let Some(count) = self.lengths.get_mut(length) {
                *count += 1;
            }
        }
        let short = self.routes.iter().filter(|((_, length), _)| (1..=ROOT_BITS).contains(length));
        let short: Vec<Route> = short.map(|(prefix, group)| (slot_of_prefix::<F>(*prefix), *group)).collect();
        let inherited = sweep::inherited(&short);
        let mut places = read::places_in_use::<F>(self.words());
        places.extend(inherited.iter().enumerate().filter(|(_, group)| **group != 0).map(|(place, _)| place));
        places.extend(self.routes.keys().filter(|(_, length)| *length > ROOT_BITS).map(|(a, _)| place_of(F::left(*a))));
        places.sort_unstable();
        places.dedup();
        let (mut wanted, mut present) = (Vec::new(), Vec::new());
        for place in places {
            let slot = slot_of(place);
            let old = self.root(place);
            fragments(slot, inherited.get(place).copied().unwrap_or(0), self.inside(slot), &mut wanted);
            present.clear();
            self.fragments_of(slot, old, &mut present);
            if wanted == present {
                continue;
            }
            let mut change = Change::default();
            match build::<F, W>(&mut self.arena, slot, 0, &wanted, &mut change) {
                Ok(new) => change.publish.push((root_word::<F>(place), new)),
                Err(full) => {
                    change.placed.into_iter().for_each(|(block, _)| self.arena.give_back(block));
                    return Err(full);
                }
            }
            self.retire_below(slot, old, 0, &mut change);
            self.put_in_force(change);
        }
        let default = self.routes.get(&normal::<F>(F::from_left(0), 0)).copied().unwrap_or(0);
        if self.arena.load(F::DEFAULT_WORD) != u32::from(default) {
            self.arena.publish(F::DEFAULT_WORD, Ref::group(default));
            self.stores += 1;
        }
        Ok(())
    }

    /// What the table answers, as prefixes that do not overlap, ascending, but for the default route.
    pub fn answers(&self) -> Vec<(Prefix<F>, u16)> {
        let mut all = Vec::new();
        let mut part = Vec::new();
        for place in read::places_in_use::<F>(self.words()) {
            let slot = slot_of(place);
            part.clear();
            self.fragments_of(slot, self.root(place), &mut part);
            for (index, (start, group)) in part.iter().enumerate() {
                let last = part.get(index + 1).map_or(slot.last(), |(next, _)| next - 1);
                if *group != 0 {
                    prefixes_between::<F>(*start, last, |prefix| all.push((prefix, *group)));
                }
            }
        }
        let default = self.arena.load(F::DEFAULT_WORD) as u16;
        if default != 0 {
            all.insert(0, ((F::from_left(0), 0), default));
        }
        all
    }

    /// Whether something is left for [`retired`](Self::retired) and [`reclaim`](Self::reclaim) to do.
    pub fn is_settled(&self) -> bool {
        self.retired.is_empty() && !self.arena.has_freed()
    }

    /// Blocks that have become superfluous since this was last asked.
    pub fn retired(&mut self) -> Retired {
        std::mem::take(&mut self.retired)
    }

    /// Takes blocks back for new use. No reader that began before they were retired may still be looking. Where room has
    /// become free beside root references, blocks move there, which retires them where they were.
    pub fn reclaim(&mut self, retired: Retired) {
        retired.0.into_iter().for_each(|block| self.arena.give_back(block));
        self.bring_home();
    }

    /// Moves blocks beside the root references that lead to them, a bounded number at a time.
    fn bring_home(&mut self) {
        let mut moved = 0;
        while moved < HOME_BATCH
            && let Some(places) = self.arena.next_freed()
        {
            for place in places {
                let reference = self.root(place);
                let Some(block) = read::size_of(self.arena.words(), reference) else { continue };
                if let Some(home) = self.arena.copy_home(place, block) {
                    self.arena.publish(root_word::<F>(place), reference.moved(home));
                    self.retired.0.push(block);
                    self.depth.away = self.depth.away.saturating_sub(1);
                    moved += 1;
                }
            }
        }
    }

    fn set(&mut self, prefix: Prefix<F>, group: Option<u16>) -> Option<u16> {
        let before = match group {
            Some(group) => self.routes.insert(prefix, group),
            None => self.routes.remove(&prefix),
        };
        if let Some(count) = self.lengths.get_mut(usize::from(prefix.1)) {
            match (before, group) {
                (None, Some(_)) => *count += 1,
                (Some(_), None) => *count -= 1,
                _ => {}
            }
        }
        before
    }

    fn put_in_force(&mut self, change: Change) {
        self.stores += change.publish.len();
        for (word, reference) in change.publish {
            self.arena.publish(word, reference);
        }
        change.placed.iter().for_each(|block| self.depth.count::<F>(*block, |count| count + 1));
        for block in change.retired {
            self.depth.count::<F>(block, |count| count.saturating_sub(1));
            self.retired.0.push(block.0);
        }
    }

    fn root(&self, place: usize) -> Ref {
        Ref(self.arena.load(root_word::<F>(place)))
    }

    /// Makes the table right for what has changed in `dirty`.
    fn update(&mut self, dirty: Slot, group: Option<u16>, change: &mut Change) -> Result<(), Full> {
        if dirty.depth == 0 {
            change.publish.push((F::DEFAULT_WORD, Ref::group(group.unwrap_or(0))));
            return Ok(());
        }
        let first = place_of(dirty.base);
        for place in first..=place_of(dirty.last()) {
            let slot = slot_of(place);
            let old = self.root(place);
            let inherited = self.covering(slot.base, 1, ROOT_BITS).map_or(0, |(_, group)| group);
            let new = self.rebuilt((slot, 0), old, inherited, dirty, change)?;
            if new != old {
                change.publish.push((root_word::<F>(place), new));
            }
        }
        Ok(())
    }

    /// The reference for a slot after a change in `dirty`; the same one where the change is further down.
    fn rebuilt(
        &mut self,
        (slot, level): (Slot, usize),
        old: Ref,
        inherited: u16,
        dirty: Slot,
        change: &mut Change,
    ) -> Result<Ref, Full> {
        let is_node = match old.target() {
            Some(Target::Node { .. }) => true,
            Some(Target::Range { .. }) => false,
            _ => return self.built((slot, level), old, inherited, change),
        };
        // Few prefixes are laid out anew: the best layout for them may be another.
        if dirty.depth <= slot.depth || self.inside(slot).nth(block::RANGE_MAX).is_none() {
            return self.built((slot, level), old, inherited, change);
        }
        let mut entries = read::entries::<F>(self.arena.words(), slot, old);
        let before: Vec<Cell> = entries.iter().map(|entry| entry.cell).collect();
        let touched = |entry: &read::Entry| entry.slot.holds(dirty.base) || dirty.holds(entry.slot.base);
        let below = match (entries.iter().filter(|entry| touched(entry)).count(), entries.iter().find(|e| touched(e))) {
            (1, Some(entry)) => entry.word.map(|word| (*entry, word)),
            _ => None,
        };
        if let Some((entry, word)) = below {
            let reference = entry.cell.reference();
            let inherited = self.inherited_by(slot, entry.slot, inherited);
            let new = self.rebuilt((entry.slot, level + 1), reference, inherited, dirty, change)?;
            let is_group = matches!(new.target(), Some(Target::Group(_)));
            if !(is_node && is_group) {
                if new != reference {
                    change.publish.push((word, new));
                }
                return Ok(old);
            }
            entries.iter_mut().filter(|entry| touched(entry)).for_each(|entry| entry.cell = Cell::of(new));
        } else if is_node {
            for entry in entries.iter_mut().filter(|entry| touched(entry)) {
                let inherited = self.inherited_by(slot, entry.slot, inherited);
                let reference = entry.cell.reference();
                entry.cell = Cell::of(self.rebuilt((entry.slot, level + 1), reference, inherited, dirty, change)?);
            }
        } else {
            return self.built((slot, level), old, inherited, change);
        }
        let cells: Vec<Cell> = entries.iter().map(|entry| entry.cell).collect();
        if cells == before {
            return Ok(old);
        }
        change.retired.extend(read::size_of(self.arena.words(), old).map(|block| (block, level)));
        let entries: Vec<(u32, Cell)> =
            entries.iter().map(|entry| (slot.bits_behind(entry.slot.base), entry.cell)).collect();
        change.place(&mut self.arena, slot, level, &Image::node(&entries))
    }

    /// The group of the longest prefix over `part` that is longer than `slot` is deep, else what the slot inherits.
    fn inherited_by(&self, slot: Slot, part: Slot, inherited: u16) -> u16 {
        self.covering(part.base, slot.depth + 1, part.depth).map_or(inherited, |(_, group)| group)
    }

    /// A slot made anew from its prefixes; as it is where they answer the same.
    fn built(
        &mut self,
        (slot, level): (Slot, usize),
        old: Ref,
        inherited: u16,
        change: &mut Change,
    ) -> Result<Ref, Full> {
        let (mut wanted, mut present) = (Vec::new(), Vec::new());
        fragments(slot, inherited, self.inside(slot), &mut wanted);
        self.fragments_of(slot, old, &mut present);
        if wanted == present {
            return Ok(old);
        }
        self.retire_below(slot, old, level, change);
        build::<F, W>(&mut self.arena, slot, level, &wanted, change)
    }

    /// The longest prefix over `key` with a length from `shortest` to `longest`.
    fn covering(&self, key: u128, shortest: u8, longest: u8) -> Option<(Prefix<F>, u16)> {
        (shortest..=longest).rev().find_map(|length| {
            self.lengths.get(usize::from(length)).filter(|count| **count > 0)?;
            let prefix = (F::from_left(Slot::new(key, length).base), length);
            self.routes.get(&prefix).map(|group| (prefix, *group))
        })
    }

    /// The prefixes inside a slot, ascending.
    fn inside(&self, slot: Slot) -> impl Iterator<Item = Route> + '_ {
        let range = (F::from_left(slot.base), 0)..=(F::from_left(slot.last()), F::BITS);
        self.routes
            .range(range)
            .map(|(prefix, group)| (slot_of_prefix::<F>(*prefix), *group))
            .filter(move |(prefix, _)| prefix.depth > slot.depth)
    }

    /// What is below a reference, as fragments of its slot.
    fn fragments_of(&self, slot: Slot, reference: Ref, into: &mut Vec<Fragment>) {
        match reference.target() {
            Some(Target::Group(group)) => {
                if into.last().is_none_or(|(_, before)| *before != group) {
                    into.push((slot.base, group));
                }
            }
            _ => {
                for entry in read::entries::<F>(self.arena.words(), slot, reference) {
                    self.fragments_of(entry.slot, entry.cell.reference(), into);
                }
            }
        }
    }

    fn retire_below(&self, slot: Slot, reference: Ref, level: usize, change: &mut Change) {
        // What this writer has built is a table.
        let _ = self.blocks_below(slot, reference, level, &mut change.retired);
    }

    /// The blocks below a reference; `None`: they do not make a table.
    fn blocks_below(&self, slot: Slot, reference: Ref, level: usize, blocks: &mut Vec<Leveled>) -> Option<()> {
        let words = self.arena.words();
        if let Target::Group(_) = reference.target()? {
            return Some(());
        }
        // Every block has a word of its own, and no address bits are left below the last one.
        if blocks.len() > words.len() || slot.depth >= F::BITS {
            return None;
        }
        let block = read::size_of(words, reference).filter(|(index, size)| index + size <= words.len())?;
        blocks.push((block, level));
        for entry in read::entries::<F>(words, slot, reference) {
            self.blocks_below(entry.slot, entry.cell.reference(), level + 1, blocks)?;
        }
        Some(())
    }
}

fn normal<F: Family>(address: F::Address, length: u8) -> Prefix<F> {
    let length = length.min(F::BITS);
    (F::from_left(Slot::new(F::left(address), length).base), length)
}

fn slot_of_prefix<F: Family>((address, length): Prefix<F>) -> Slot {
    Slot::new(F::left(address), length)
}

fn slot_of(place: usize) -> Slot {
    Slot::new((place as u128) << (128 - u32::from(ROOT_BITS)), ROOT_BITS)
}

fn place_of(key: u128) -> usize {
    (key >> (128 - u32::from(ROOT_BITS))) as usize
}

/// The fewest prefixes that are `first` to `last`.
fn prefixes_between<F: Family>(mut first: u128, last: u128, mut each: impl FnMut(Prefix<F>)) {
    loop {
        let fits = |length: &u8| {
            let prefix = Slot::new(first, *length);
            prefix.base == first && prefix.last() <= last
        };
        let Some(length) = (0..=F::BITS).find(fits) else { return };
        each((F::from_left(first), length));
        match Slot::new(first, length).last().checked_add(1).filter(|next| *next <= last) {
            Some(next) => first = next,
            None => return,
        }
    }
}
