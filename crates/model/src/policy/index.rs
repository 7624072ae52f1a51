//! What each of many selectors picks among many things with labels, kept up to date change by change.
//!
//! A selector is looked up by a label that everything it picks must have, with a value where one is known: of several by the one that
//! the fewest others are looked up by. Only those of which no such label is known are asked always. When labels change, a selector that mentions none of them is not asked. The work of a change
//! is therefore that of what it touches, not of what there is.
//!
//! Invariant: a thing is a member of a selector exactly when the selector matches the thing's labels.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Labels;
use crate::selector::{Requirement, Selector};

/// A difference in what a selector picks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change<S, I> {
    /// The selector picks it now.
    Joined(S, I),
    /// The selector picks it no more.
    Left(S, I),
}

/// Selectors, called `S`, and things with labels, called `I`.
#[derive(Clone, Debug)]
pub struct SelectorIndex<S, I> {
    selectors: BTreeMap<S, Asked<I>>,
    items: BTreeMap<I, Item<S>>,
    /// Selectors by a label and value that are necessary.
    by_value: HashMap<String, HashMap<String, BTreeSet<S>>>,
    /// Selectors by a label that is necessary.
    by_label: HashMap<String, BTreeSet<S>>,
    /// Selectors of which no necessary label is known.
    rest: BTreeSet<S>,
    /// Things by their labels and values.
    labelled: HashMap<String, HashMap<String, BTreeSet<I>>>,
    evaluations: u64,
}

#[derive(Clone, Debug)]
struct Asked<I> {
    selector: Selector,
    members: BTreeSet<I>,
    key: Key,
}

/// What a selector is looked up by.
#[derive(Clone, Debug)]
enum Key {
    /// Nothing: it is asked always.
    Rest,
    Label(String),
    Values(String, Vec<String>),
}

impl From<&Requirement<'_>> for Key {
    fn from(requirement: &Requirement<'_>) -> Self {
        match requirement {
            Requirement::Nothing => Self::Rest,
            Requirement::Label(label) => Self::Label((*label).to_owned()),
            Requirement::Values(label, values) => {
                Self::Values((*label).to_owned(), values.iter().map(|value| (*value).to_owned()).collect())
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Item<S> {
    labels: Labels,
    /// Those that pick it.
    selectors: BTreeSet<S>,
}

impl<S, I> Default for SelectorIndex<S, I> {
    fn default() -> Self {
        Self {
            selectors: BTreeMap::new(),
            items: BTreeMap::new(),
            by_value: HashMap::new(),
            by_label: HashMap::new(),
            rest: BTreeSet::new(),
            labelled: HashMap::new(),
            evaluations: 0,
        }
    }
}

impl<S: Clone + Ord, I: Clone + Ord> SelectorIndex<S, I> {
    /// What a selector picks; `None` where there is no such selector.
    pub fn members(&self, selector: &S) -> Option<&BTreeSet<I>> {
        self.selectors.get(selector).map(|asked| &asked.members)
    }

    /// How often a selector was asked about labels, since the beginning.
    pub fn evaluations(&self) -> u64 {
        self.evaluations
    }

    /// Adds a selector, or puts it in the place of the one of this name.
    pub fn put_selector(&mut self, name: S, selector: Selector) -> Vec<Change<S, I>> {
        let before = self.take_selector(&name);
        let keys: Vec<Key> = selector.requirements().iter().map(Key::from).collect();
        let candidates = self.candidate_items(&keys);
        self.evaluations += u64::try_from(candidates.len()).unwrap_or(u64::MAX);
        let picks = |item: &I| self.items.get(item).is_some_and(|item| selector.matches(&item.labels));
        let members: BTreeSet<I> = candidates.into_iter().filter(picks).collect();
        for item in &members {
            if let Some(item) = self.items.get_mut(item) {
                item.selectors.insert(name.clone());
            }
        }
        let left = before.difference(&members).map(|item| Change::Left(name.clone(), item.clone()));
        let joined = members.difference(&before).map(|item| Change::Joined(name.clone(), item.clone()));
        let changes = left.chain(joined).collect();
        let key = keys.into_iter().min_by_key(|key| self.selectors_behind(key)).unwrap_or(Key::Rest);
        self.file(&name, &key);
        self.selectors.insert(name, Asked { selector, members, key });
        changes
    }

    /// Takes a selector away.
    pub fn remove_selector(&mut self, name: &S) -> Vec<Change<S, I>> {
        self.take_selector(name).into_iter().map(|item| Change::Left(name.clone(), item)).collect()
    }

    /// Adds a thing, or changes its labels.
    pub fn put_item(&mut self, name: I, labels: Labels) -> Vec<Change<S, I>> {
        let Item { labels: old, selectors: before } =
            self.items.remove(&name).unwrap_or(Item { labels: Labels::new(), selectors: BTreeSet::new() });
        let is_new = old.is_empty() && before.is_empty();
        let changed = different(&old, &labels);
        self.relabel(&name, &old, &labels);
        let touches = |asked: &Asked<I>| is_new || changed.iter().any(|label| asked.selector.mentions(label));
        let mut candidates = self.candidate_selectors(&labels);
        candidates.extend(before.iter().cloned());
        let mut after = before.clone();
        let mut changes = Vec::new();
        for selector in candidates {
            let Some(asked) = self.selectors.get_mut(&selector).filter(|asked| touches(asked)) else { continue };
            self.evaluations += 1;
            if asked.selector.matches(&labels) {
                if after.insert(selector.clone()) {
                    asked.members.insert(name.clone());
                    changes.push(Change::Joined(selector, name.clone()));
                }
            } else if after.remove(&selector) {
                asked.members.remove(&name);
                changes.push(Change::Left(selector, name.clone()));
            }
        }
        self.items.insert(name, Item { labels, selectors: after });
        changes
    }

    /// Takes a thing away. No selector is asked.
    pub fn remove_item(&mut self, name: &I) -> Vec<Change<S, I>> {
        let Some(item) = self.items.remove(name) else { return Vec::new() };
        self.relabel(name, &item.labels, &Labels::new());
        for selector in &item.selectors {
            if let Some(asked) = self.selectors.get_mut(selector) {
                asked.members.remove(name);
            }
        }
        item.selectors.into_iter().map(|selector| Change::Left(selector, name.clone())).collect()
    }

    /// Takes a selector out of everything; what it picked.
    fn take_selector(&mut self, name: &S) -> BTreeSet<I> {
        let Some(Asked { members, key, .. }) = self.selectors.remove(name) else { return BTreeSet::new() };
        for item in &members {
            if let Some(item) = self.items.get_mut(item) {
                item.selectors.remove(name);
            }
        }
        match &key {
            Key::Rest => drop(self.rest.remove(name)),
            Key::Label(label) => remove(&mut self.by_label, label, name),
            Key::Values(label, values) => {
                if let Some(by_value) = self.by_value.get_mut(label) {
                    values.iter().for_each(|value| remove(by_value, value, name));
                    if by_value.is_empty() {
                        self.by_value.remove(label);
                    }
                }
            }
        }
        members
    }

    /// Puts a selector where it is found by its key.
    fn file(&mut self, name: &S, key: &Key) {
        match key {
            Key::Rest => drop(self.rest.insert(name.clone())),
            Key::Label(label) => {
                self.by_label.entry(label.clone()).or_default().insert(name.clone());
            }
            Key::Values(label, values) => {
                let by_value = self.by_value.entry(label.clone()).or_default();
                for value in values {
                    by_value.entry(value.clone()).or_default().insert(name.clone());
                }
            }
        }
    }

    /// How many selectors are found together with one that has this key, and what is better where there are as many.
    fn selectors_behind(&self, key: &Key) -> (usize, u8) {
        match key {
            Key::Rest => (self.rest.len(), 2),
            Key::Label(label) => (self.by_label.get(label).map_or(0, BTreeSet::len), 1),
            Key::Values(label, values) => {
                let by_value = self.by_value.get(label);
                let behind = values.iter().filter_map(|value| by_value?.get(value)).map(BTreeSet::len);
                (behind.max().unwrap_or(0), 0)
            }
        }
    }

    /// Selectors that may pick something with these labels.
    fn candidate_selectors(&self, labels: &Labels) -> BTreeSet<S> {
        let of_value = labels.iter().filter_map(|(label, value)| self.by_value.get(label)?.get(value));
        let of_label = labels.keys().filter_map(|label| self.by_label.get(label));
        of_value.chain(of_label).chain([&self.rest]).flatten().cloned().collect()
    }

    /// Things that a selector with these keys may pick, by the key that leaves the fewest.
    fn candidate_items(&self, keys: &[Key]) -> BTreeSet<I> {
        let sets = |key: &Key| -> Option<Vec<&BTreeSet<I>>> {
            match key {
                Key::Rest => None,
                Key::Label(label) => Some(self.labelled.get(label).into_iter().flat_map(HashMap::values).collect()),
                Key::Values(label, values) => {
                    let labelled = self.labelled.get(label);
                    Some(values.iter().filter_map(|value| labelled?.get(value)).collect())
                }
            }
        };
        let fewest = keys.iter().filter_map(sets).min_by_key(|sets| sets.iter().map(|set| set.len()).sum::<usize>());
        match fewest {
            Some(sets) => sets.into_iter().flatten().cloned().collect(),
            None => self.items.keys().cloned().collect(),
        }
    }

    /// Keeps `labelled` in step with a thing's labels.
    fn relabel(&mut self, name: &I, old: &Labels, new: &Labels) {
        for (label, value) in old.iter().filter(|(label, value)| new.get(*label) != Some(value)) {
            if let Some(values) = self.labelled.get_mut(label) {
                remove(values, value, name);
                if values.is_empty() {
                    self.labelled.remove(label);
                }
            }
        }
        for (label, value) in new.iter().filter(|(label, value)| old.get(*label) != Some(value)) {
            let values = self.labelled.entry(label.clone()).or_default();
            values.entry(value.clone()).or_default().insert(name.clone());
        }
    }
}

/// Labels that are in one of two and not with the same value in the other.
fn different<'a>(old: &'a Labels, new: &'a Labels) -> Vec<&'a str> {
    let gone = old.iter().filter(|(label, value)| new.get(*label) != Some(value));
    let come = new.iter().filter(|(label, _)| !old.contains_key(*label));
    gone.chain(come).map(|(label, _)| label.as_str()).collect()
}

/// Takes `name` from the set of `key`, and the set too when it is empty.
fn remove<T: Ord>(sets: &mut HashMap<String, BTreeSet<T>>, key: &str, name: &T) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(name);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
