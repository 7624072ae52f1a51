//! Trees from boxes.

use std::collections::HashMap;

use super::node::{BOX_WORDS, EMPTY, LEAF_MAX, PARTS_MAX, Ref, STEPS_MAX, encode};
use super::{Area, DIMENSIONS, Rule};

/// Trees at most.
pub const TREES_MAX: usize = 4;

/// Boxes of a leaf that need no further cut.
const LEAF_GOOD: usize = 8;
/// A cut may make this many boxes and parts of one box.
const SPREAD: usize = 3;
/// Where a leaf would be too full: this many.
const SPREAD_MAX: usize = 64;
/// Of so many boxes in a region those are looked for that are within an earlier one.
const SHADOWS_MAX: usize = 256;
/// A box is wide in a dimension where it takes at least one in so many of its ranks.
const WIDE: u32 = 4;
/// The boxes cannot be told apart with so few steps and boxes in a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{boxes} rules overlap everywhere, at most {LEAF_MAX} may")]
pub struct TooLarge {
    /// Boxes in the fullest leaf.
    pub boxes: usize,
}

/// What a classifier is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nodes on the longest way of all trees.
    pub depth: usize,
    /// Boxes of the fullest leaf.
    pub fullest: usize,
}

/// Trees as words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classifier {
    /// What references lead to.
    pub words: Vec<u64>,
    /// The trees.
    pub roots: Vec<u64>,
    /// What it is like.
    pub stats: Stats,
}

/// The classifier of these boxes over ranks below `ranks` in each dimension.
///
/// # Errors
/// More boxes than a leaf may have overlap, in a way that no cut through any dimension tells apart.
pub fn build(rules: &[Rule], ranks: [u32; DIMENSIONS]) -> Result<Classifier, TooLarge> {
    let whole: Area = ranks.map(|ranks| (0, u16::try_from(ranks.saturating_sub(1)).unwrap_or(u16::MAX)));
    let mut builder = Builder { classifier: Classifier::default(), leaves: HashMap::new() };
    let mut rules = rules.to_vec();
    in_order(&mut rules, &whole);
    for group in groups(&rules, ranks) {
        let root = builder.tree(group, whole, 0)?;
        if root != EMPTY {
            builder.classifier.roots.push(root.0);
        }
    }
    Ok(builder.classifier)
}

/// Boxes that are narrow in the same ones of the dimensions that tell most apart; groups together where one leaf has them all.
fn groups(rules: &[Rule], ranks: [u32; DIMENSIONS]) -> Vec<Vec<Rule>> {
    let is_wide = |rule: &Rule, dimension: usize| {
        let (first, last) = rule.area.get(dimension).copied().unwrap_or_default();
        let all = ranks.get(dimension).copied().unwrap_or(1);
        (u32::from(last - first) + 1) * WIDE > all
    };
    let mut groups: Vec<Vec<Rule>> = vec![Vec::new(); TREES_MAX];
    for rule in rules {
        let group = usize::from(is_wide(rule, 0)) | usize::from(is_wide(rule, 1)) << 1;
        groups.get_mut(group).into_iter().for_each(|group| group.push(*rule));
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    while let [.., larger, smaller] = groups.as_mut_slice() {
        if larger.len() + smaller.len() > LEAF_GOOD {
            break;
        }
        larger.append(smaller);
        groups.pop();
    }
    groups
}

/// How a region is cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    dimension: usize,
    shift: u32,
    /// Boxes in a part, on the average.
    average: f64,
}

struct Builder {
    classifier: Classifier,
    leaves: HashMap<Vec<Rule>, Ref>,
}

impl Builder {
    /// The tree of these boxes in a region that they all touch.
    fn tree(&mut self, mut rules: Vec<Rule>, region: Area, depth: usize) -> Result<Ref, TooLarge> {
        in_order(&mut rules, &region);
        self.classifier.stats.depth = self.classifier.stats.depth.max(depth);
        if rules.len() <= LEAF_GOOD || depth == STEPS_MAX {
            return self.leaf(rules);
        }
        match best_cut(&rules, &region) {
            Some(cut) => self.node(&rules, region, cut, depth),
            None => self.leaf(rules),
        }
    }

    fn leaf(&mut self, rules: Vec<Rule>) -> Result<Ref, TooLarge> {
        let boxes = rules.len();
        self.classifier.stats.fullest = self.classifier.stats.fullest.max(boxes);
        if boxes == 0 {
            return Ok(EMPTY);
        }
        if boxes > LEAF_MAX {
            return Err(TooLarge { boxes });
        }
        let words = &mut self.classifier.words;
        Ok(*self.leaves.entry(rules).or_insert_with_key(|rules| {
            let index = words.len();
            words.extend(rules.iter().flat_map(encode));
            Ref::leaf(index, boxes)
        }))
    }

    fn node(&mut self, rules: &[Rule], region: Area, cut: Cut, depth: usize) -> Result<Ref, TooLarge> {
        let Cut { dimension, shift, .. } = cut;
        let (first, last) = side(&region, dimension);
        let (first_part, last_part) = (first >> shift, last >> shift);
        let mut parts: Vec<Vec<Rule>> = vec![Vec::new(); usize::from(last_part - first_part) + 1];
        for rule in rules {
            let (from, to) = within(rule, &region, dimension);
            let of_rule = usize::from((from >> shift) - first_part)..=usize::from((to >> shift) - first_part);
            parts.get_mut(of_rule).into_iter().flatten().for_each(|part| part.push(*rule));
        }
        // Parts that every one of their boxes goes through in this dimension are the same where the boxes are.
        let mut same: HashMap<Vec<Rule>, Ref> = HashMap::new();
        let index = self.classifier.words.len();
        self.classifier.words.resize(index + parts.len(), 0);
        for (at, part) in parts.into_iter().enumerate() {
            let number = first_part + at as u16;
            let begins = (number << shift).max(first);
            let ends = ((u32::from(number) + 1) << shift).saturating_sub(1).min(last.into()) as u16;
            let through =
                |rule: &Rule| side(&rule.area, dimension).0 <= begins && side(&rule.area, dimension).1 >= ends;
            let is_through = part.iter().all(through);
            let child = match same.get(&part).filter(|_| is_through) {
                Some(child) => *child,
                None => {
                    let mut of_part = region;
                    of_part.get_mut(dimension).into_iter().for_each(|side| *side = (begins, ends));
                    let child = self.tree(part.clone(), of_part, depth + 1)?;
                    if is_through {
                        same.insert(part, child);
                    }
                    child
                }
            };
            self.classifier.words.get_mut(index + at).into_iter().for_each(|word| *word = child.0);
        }
        Ok(Ref::node(index, dimension, shift, first_part))
    }
}

fn side(area: &Area, dimension: usize) -> (u16, u16) {
    area.get(dimension).copied().unwrap_or_default()
}

/// In order, and nothing behind a box that fills the region.
fn in_order(rules: &mut Vec<Rule>, region: &Area) {
    rules.sort_by_key(|rule| rule.answer);
    let fills =
        |rule: &Rule| (0..DIMENSIONS).all(|dimension| within(rule, region, dimension) == side(region, dimension));
    if let Some(first) = rules.iter().position(fills) {
        rules.truncate(first + 1);
    }
    if rules.len() <= SHADOWS_MAX {
        let mut seen: Vec<Area> = Vec::with_capacity(rules.len());
        rules.retain(|rule| {
            let area: Area = std::array::from_fn(|dimension| within(rule, region, dimension));
            let is_shadowed = seen.iter().any(|earlier| holds_all(earlier, &area));
            if !is_shadowed {
                seen.push(area);
            }
            !is_shadowed
        });
    }
}

/// Whether an area is within another.
fn holds_all(outer: &Area, inner: &Area) -> bool {
    outer.iter().zip(inner).all(|(outer, inner)| outer.0 <= inner.0 && outer.1 >= inner.1)
}

/// What of a box is in a region, in a dimension.
fn within(rule: &Rule, region: &Area, dimension: usize) -> (u16, u16) {
    let ((from, to), (first, last)) = (side(&rule.area, dimension), side(region, dimension));
    (from.max(first), to.min(last))
}

/// The cut that leaves the fewest boxes in a part; `None` where none leaves fewer. More than a leaf takes are cut at any price there can be.
fn best_cut(rules: &[Rule], region: &Area) -> Option<Cut> {
    let worthwhile = |cut: &Cut| cut.average < rules.len() as f64 * 0.9;
    let best = |spread| {
        let cuts = (0..DIMENSIONS).flat_map(|dimension| cuts(rules, region, dimension, spread));
        cuts.min_by(|a, b| a.average.total_cmp(&b.average)).filter(worthwhile)
    };
    best(SPREAD).or_else(|| best(SPREAD_MAX).filter(|_| rules.len() > LEAF_MAX))
}

/// The cuts through a dimension that make `spread` boxes and parts of one box at most.
fn cuts(rules: &[Rule], region: &Area, dimension: usize, spread: usize) -> Vec<Cut> {
    let (first, last) = side(region, dimension);
    if rules.iter().all(|rule| within(rule, region, dimension) == (first, last)) {
        return Vec::new();
    }
    let budget = rules.len() * spread + 64;
    (0..16)
        .filter_map(|shift| {
            let parts = usize::from((last >> shift) - (first >> shift)) + 1;
            if !(2..=PARTS_MAX).contains(&parts) {
                return None;
            }
            let in_parts: usize = rules
                .iter()
                .map(|rule| {
                    let (from, to) = within(rule, region, dimension);
                    usize::from((to >> shift) - (from >> shift)) + 1
                })
                .sum();
            let price = in_parts + parts / BOX_WORDS;
            (price <= budget).then_some(Cut { dimension, shift, average: in_parts as f64 / parts as f64 })
        })
        .collect()
}
