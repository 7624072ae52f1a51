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
    pub(super) placed: Vec<Block>,
    /// Blocks that no reference leads to once these are stored.
    pub(super) retired: Vec<Block>,
}

impl Change {
    /// Places a block for `slot` and remembers it.
    pub(super) fn place<W: Words>(&mut self, arena: &mut Arena<W>, slot: Slot, image: &Image) -> Result<Ref, Full> {
        let root = (slot.depth == ROOT_BITS).then(|| place_of(slot.base));
        let (reference, block) = arena.place(image, root)?;
        self.placed.push(block);
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
    fragments: &[Fragment],
    change: &mut Change,
) -> Result<Ref, Full> {
    if let [(_, group)] = fragments {
        return Ok(Ref::group(*group));
    }
    let parts = node_parts::<F>(slot, fragments);
    if is_sparse(&parts)
        && let Some(parts) = range_parts::<F>(slot, fragments)
    {
        let cells = parts.into_iter().map(|(bound, part)| Ok((bound, cell::<F, W>(arena, part, change)?)));
        if let Some(image) = Image::range(&cells.collect::<Result<Vec<_>, _>>()?) {
            return change.place(arena, slot, &image);
        }
    }
    let cells: Result<Vec<Cell>, Full> = parts.into_iter().map(|part| cell::<F, W>(arena, part, change)).collect();
    change.place(arena, slot, &Image::node(&cells?))
}

fn cell<F: Family, W: Words>(arena: &mut Arena<W>, part: Part, change: &mut Change) -> Result<Cell, Full> {
    match part {
        Part::Group(group) => Ok(Cell::Group(group)),
        Part::Deeper(slot, fragments) => Ok(Cell::of(build::<F, W>(arena, slot, &fragments, change)?)),
    }
}

/// A node of which a quarter of the values leads deeper is one of a chain with little in each: a range does better.
fn is_sparse(parts: &[Part]) -> bool {
    let deeper = parts.iter().filter(|part| matches!(part, Part::Deeper(..))).count();
    let new_run = |pair: &[Part]| !matches!(pair, [Part::Group(one), Part::Group(two)] if one == two);
    let runs = 1 + parts.windows(2).filter(|pair| new_run(pair)).count();
    deeper * 4 >= runs && deeper > 0
}

/// The parts that a node of this slot tells apart.
fn node_parts<F: Family>(slot: Slot, fragments: &[Fragment]) -> Vec<Part> {
    let width = slot.window::<F>(NODE_BITS);
    let mut rest = Cursor::new(fragments);
    (0..1u32 << width).map(|place| rest.part(slot.part(place << (32 - width), width))).collect()
}

/// The parts that a range of this slot tells apart, each with its bound; `None`: too many.
fn range_parts<F: Family>(slot: Slot, fragments: &[Fragment]) -> Option<Vec<(u32, Part)>> {
    let width = slot.window::<F>(RANGE_BITS);
    let mut rest = Cursor::new(fragments);
    let mut parts: Vec<(u32, Part)> = Vec::with_capacity(RANGE_MAX);
    let mut at = Some(slot.part(0, width));
    while let Some(cell) = at {
        if parts.len() == RANGE_MAX {
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
