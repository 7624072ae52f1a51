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
    /// Found broken and reported: later passes read on as if it were not there.
    pub(crate) broken: bool,
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

    /// The text of a key, if it is text.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn child(&self, step: &Step) -> Option<&Tree> {
        match (&self.value, step) {
            (Value::Seq(items), Step::Index(i)) => items.get(*i),
            (Value::Map(_), Step::Key(key)) => self.get(key),
            _ => None,
        }
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
            if here.broken {
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
        self.broken
            || match &self.value {
                Value::Seq(items) => items.iter().any(Tree::has_broken),
                Value::Map(entries) => entries.iter().any(|e| e.value.has_broken()),
                _ => false,
            }
    }

    /// Marks the value at `path` as broken; the nearest enclosing one where it is absent.
    fn break_off(&mut self, path: &Path) {
        let mut here = self;
        for step in &path.0 {
            // Asked first and fetched then: a mutable borrow cannot be given up on the way.
            if here.child(step).is_none() {
                break;
            }
            let next = match (&mut here.value, step) {
                (Value::Seq(items), Step::Index(i)) => items.get_mut(*i),
                (Value::Map(entries), Step::Key(key)) => {
                    entries.iter_mut().find(|e| e.key == *key).map(|e| &mut e.value)
                }
                _ => None,
            };
            match next {
                Some(child) => here = child,
                None => return,
            }
        }
        here.broken = true;
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
pub(crate) struct Path(Vec<Step>);

impl Path {
    /// The document's `spec`, where nearly everything starts.
    pub(crate) fn spec() -> Self {
        Self::default().key("spec")
    }

    /// The value of a key below this.
    #[must_use]
    pub(crate) fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }

    /// An element of a sequence below this.
    #[must_use]
    pub(crate) fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
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
