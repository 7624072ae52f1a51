//! YAML documents as trees that know where every value stands.
//!
//! [`parse`] makes the trees, within limits that hold against hostile input; [`read`](deserialize::read) turns one into
//! a serde type and reports every error in it, not only the first; [`Path`] names a place in a document the way
//! a person would (`spec.backends[2].weight`).

pub(crate) mod deserialize;
mod parse;

use std::fmt;

pub(crate) use parse::parse;

/// A place in a file; both numbers start at 1, and 0 means the place is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) at: Mark,
    pub(crate) value: Value,
    /// Whether it is to be believed.
    pub(crate) state: State,
}

/// What reading has found out about a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing is known against it.
    Sound,
    /// Wrong and reported: read on as if it were not there.
    Broken,
    /// Wrong or absent, and reported, but what encloses it cannot do without: read as some value of the right type.
    StandIn,
}

/// A value of YAML 1.2's core schema.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    /// With its text: `1.10` is a number to YAML, and an AS number to whoever wrote it.
    Float(f64, String),
    Text(String),
    Seq(Vec<Tree>),
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Mark,
    pub(crate) value: Tree,
}

impl Tree {
    /// The value of a key, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Tree> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
            _ => None,
        }
    }

    /// Takes out the value of a key, if this is a mapping that has it.
    pub(crate) fn take(&mut self, key: &str) -> Option<Tree> {
        match &mut self.value {
            Value::Map(entries) => {
                let at = entries.iter().position(|e| e.key == key)?;
                Some(entries.swap_remove(at).value)
            }
            _ => None,
        }
    }

    /// The text of a key, if it is text.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Number of values in it, itself among them. The recursion is as deep as [`parse`] lets a document be.
    pub(crate) fn size(&self) -> usize {
        match &self.value {
            Value::Seq(items) => items.iter().map(Tree::size).sum::<usize>() + 1,
            Value::Map(entries) => entries.iter().map(|e| e.value.size()).sum::<usize>() + 1,
            _ => 1,
        }
    }

    fn child(&self, step: &Step) -> Option<&Tree> {
        match (&self.value, step) {
            (Value::Seq(items), Step::Index(i)) => items.get(*i),
            (Value::Map(_), Step::Key(key)) => self.get(key),
            _ => None,
        }
    }

    /// A path through what was read, where broken elements of sequences are not counted, as a path through what was written.
    pub(crate) fn written(&self, path: &Path) -> Path {
        let mut here = Some(self);
        let mut steps = Vec::with_capacity(path.0.len());
        for step in &path.0 {
            let step = match (step, here.map(|tree| &tree.value)) {
                (Step::Index(wanted), Some(Value::Seq(items))) => {
                    let mut sound = items.iter().enumerate().filter(|(_, item)| item.state != State::Broken);
                    Step::Index(sound.nth(*wanted).map_or(*wanted, |(index, _)| index))
                }
                (step, _) => step.clone(),
            };
            here = here.and_then(|tree| tree.child(&step));
            steps.push(step);
        }
        Path(steps)
    }

    /// Where `path` stands; the nearest enclosing value where it is absent.
    pub(crate) fn locate(&self, path: &Path) -> Mark {
        let mut here = self;
        for step in &path.0 {
            match here.child(step) {
                Some(child) => here = child,
                None => break,
            }
        }
        here.at
    }

    /// True when something at or below `path` was found broken.
    pub(crate) fn is_broken(&self, path: &Path) -> bool {
        let mut here = self;
        for step in &path.0 {
            if here.state != State::Sound {
                return true;
            }
            match here.child(step) {
                Some(child) => here = child,
                None => return false,
            }
        }
        here.has_broken()
    }

    fn has_broken(&self) -> bool {
        self.state != State::Sound
            || match &self.value {
                Value::Seq(items) => items.iter().any(Tree::has_broken),
                Value::Map(entries) => entries.iter().any(|e| e.value.has_broken()),
                _ => false,
            }
    }

    /// Does something to the value at the end of `steps`, or to the nearest enclosing one where it is absent.
    fn change<R>(&mut self, steps: &[Step], action: impl FnOnce(&mut Tree) -> R) -> R {
        let Some((first, rest)) = steps.split_first() else { return action(self) };
        let child = match (&mut self.value, first) {
            (Value::Seq(items), Step::Index(i)) => items.get_mut(*i),
            (Value::Map(entries), Step::Key(key)) => entries.iter_mut().find(|e| e.key == *key).map(|e| &mut e.value),
            _ => None,
        };
        match child {
            Some(child) => child.change(rest, action),
            None => action(self),
        }
    }

    /// Marks the value at `path` as broken.
    fn break_off(&mut self, path: &Path) {
        self.change(&path.0, |tree| tree.state = State::Broken);
    }

    /// Puts a stand-in for `key` into the mapping at `path`. False when there is one already, and it did not do.
    fn stand_in(&mut self, path: &Path, key: &str) -> bool {
        self.change(&path.0, |mapping| {
            let at = mapping.at;
            let Value::Map(entries) = &mut mapping.value else { return false };
            match entries.iter_mut().find(|e| e.key == key) {
                Some(entry) if entry.value.state == State::StandIn => return false,
                Some(entry) => entry.value.state = State::StandIn,
                None => {
                    let value = Tree { at, value: Value::Null, state: State::StandIn };
                    entries.push(Entry { key: key.to_owned(), key_at: at, value });
                }
            }
            true
        })
    }
}

/// A step from a value into one of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// The way from a document's root to a value; empty for the document itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(Vec<Step>);

impl Path {
    /// The document's `spec`, where nearly everything starts.
    pub(crate) fn spec() -> Self {
        Self::default().key("spec")
    }

    /// The value of a key below this.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }

    /// An element of a sequence below this.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }

    /// What encloses this; the document where this is the document.
    fn parent(&self) -> Self {
        Self(self.0.split_last().map(|(_, rest)| rest.to_vec()).unwrap_or_default())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if key.contains(['.', '[', ' ']) => write!(f, "['{key}']")?,
                Step::Key(key) if i == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
