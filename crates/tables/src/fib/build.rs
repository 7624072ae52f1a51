//! From fragments to blocks.

use super::arena::{Arena, Block, Full, Words};
use super::block::{Cell, Image, NODE_BITS, RANGE_BITS, RANGE_MAX, ROOT_BITS, Ref};
use super::family::{Family, Slot};
use super::place_of;
use super::sweep::Fragment;

/// What a change has made so far, none of it in force.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// References to store, and where.
    pub(super) publish: Vec<(usize, Ref)>,
    /// New blocks.
    pub(super) placed: Vec<Leveled>,
    /// Blocks that no reference leads to once these are stored.
    pub(super) retired: Vec<Leveled>,
}

/// A block, and how many others a look-up meets before it.
pub(super) type Leveled = (Block, usize);

impl Change {
    /// Places a block for `slot` and remembers it.
    pub(super) fn place<W: Words>(
        &mut self,
        arena: &mut Arena<W>,
        slot: Slot,
        level: usize,
        image: &Image,
    ) -> Result<Ref, Full> {
        let root = (slot.depth == ROOT_BITS).then(|| place_of(slot.base));
        let (reference, block) = arena.place(image, root)?;
        self.placed.push((block, level));
        Ok(reference.at_depth(slot.depth))
    }
}

/// A part of a slot: a group, or what it is made of.
#[derive(Debug)]
enum Part {
    Group(u16),
    Deeper(Slot, Vec<Fragment>),
}

/// Makes the blocks of a slot out of its fragments.
pub(super) fn build<F: Family, W: Words>(
    arena: &mut Arena<W>,
    slot: Slot,
    level: usize,
    fragments: &[Fragment],
    change: &mut Change,
) -> Result<Ref, Full> {
    if let [(_, group)] = fragments {
        return Ok(Ref::group(*group));
    }
    let parts = parts::<F>(slot, fragments, NODE_BITS, usize::MAX).unwrap_or_default();
    if is_sparse(&parts)
        && let Some(parts) = parts_of_range::<F>(slot, fragments)
        && let Some(image) = Image::range(&cells::<F, W>(arena, level + 1, parts, change)?)
    {
        return change.place(arena, slot, level, &image);
    }
    let image = Image::node(&cells::<F, W>(arena, level + 1, parts, change)?);
    change.place(arena, slot, level, &image)
}

fn cells<F: Family, W: Words>(
    arena: &mut Arena<W>,
    level: usize,
    parts: Vec<(u32, Part)>,
    change: &mut Change,
) -> Result<Vec<(u32, Cell)>, Full> {
    parts.into_iter().map(|(begin, part)| Ok((begin, cell::<F, W>(arena, level, part, change)?))).collect()
}

fn cell<F: Family, W: Words>(
    arena: &mut Arena<W>,
    level: usize,
    part: Part,
    change: &mut Change,
) -> Result<Cell, Full> {
    match part {
        Part::Group(group) => Ok(Cell::Group(group)),
        Part::Deeper(slot, fragments) => Ok(Cell::of(build::<F, W>(arena, slot, level, &fragments, change)?)),
    }
}

/// A node of which a quarter of the values leads deeper is one of a chain with little in each: a range does better.
fn is_sparse(parts: &[(u32, Part)]) -> bool {
    let deeper = parts.iter().filter(|(_, part)| matches!(part, Part::Deeper(..))).count();
    deeper * 4 >= parts.len() && deeper > 0
}

fn parts_of_range<F: Family>(slot: Slot, fragments: &[Fragment]) -> Option<Vec<(u32, Part)>> {
    parts::<F>(slot, fragments, RANGE_BITS, RANGE_MAX)
}

/// The parts that a block tells apart which compares so many bits behind this slot, each with the bits where it begins; `None`:
/// there are more than `most`.
fn parts<F: Family>(slot: Slot, fragments: &[Fragment], bits: u8, most: usize) -> Option<Vec<(u32, Part)>> {
    let width = slot.window::<F>(bits);
    let mut rest = Cursor::new(fragments);
    let mut parts: Vec<(u32, Part)> = Vec::with_capacity(fragments.len().min(RANGE_MAX));
    let mut at = Some(slot.part(0, width));
    while let Some(cell) = at {
        if parts.len() == most {
            return None;
        }
        let part = rest.part(cell);
        let is_group = matches!(part, Part::Group(_));
        parts.push((slot.bits_behind(cell.base), part));
        // A group reaches to the cell in which something else begins; what is deeper is a cell of its own.
        let next = if is_group { rest.next_start() } else { cell.last().checked_add(1) };
        at = next.filter(|next| slot.holds(*next)).map(|next| Slot::new(next, slot.depth + width));
    }
    Some(parts)
}

/// Goes through fragments slot by slot.
struct Cursor<'a> {
    /// The fragment that has begun, and those behind it.
    rest: &'a [Fragment],
}

impl<'a> Cursor<'a> {
    fn new(fragments: &'a [Fragment]) -> Self {
        Self { rest: fragments }
    }

    fn next_start(&self) -> Option<u128> {
        self.rest.get(1).map(|(start, _)| *start)
    }

    /// What there is in `slot`, which lies behind all that were asked for.
    fn part(&mut self, slot: Slot) -> Part {
        let begun = self.rest.iter().take_while(|(start, _)| *start <= slot.base).count().saturating_sub(1);
        self.rest = self.rest.get(begun..).unwrap_or_default();
        let inside = self.rest.iter().take_while(|(start, _)| *start <= slot.last()).count();
        let (group, last) = match (self.rest.first(), inside.checked_sub(1)) {
            (Some((_, group)), Some(last)) => (*group, last),
            _ => return Part::Group(0),
        };
        if last == 0 {
            return Part::Group(group);
        }
        let mut fragments = vec![(slot.base, group)];
        fragments.extend(self.rest.iter().take(inside).skip(1));
        self.rest = self.rest.get(last..).unwrap_or_default();
        Part::Deeper(slot, fragments)
    }
}
