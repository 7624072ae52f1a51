//! Text to trees. YAML 1.2 core schema, of which JSON is a part.
//!
//! Bounded: depth by [`MAX_DEPTH`], size by [`MAX_VALUES`] values a file, counted after aliases are expanded, so that no
//! document costs more than its limit whatever it refers to. The parser is pulled event by event; nothing recurses.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::{Entry, Mark, State, Tree, Value};

/// Deepest nesting of sequences and mappings.
const MAX_DEPTH: usize = 64;
/// Most values in one file, each scalar, sequence and mapping counted, aliases expanded.
const MAX_VALUES: usize = 2_000_000;

/// Text that is not YAML, or is more than the limits allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct SyntaxError {
    pub(crate) at: Mark,
    pub(crate) message: String,
    pub(crate) help: Option<&'static str>,
}

impl SyntaxError {
    fn new(at: Mark, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), help: None }
    }
}

/// A collection that is still open.
struct Open {
    tree: Tree,
    anchor: usize,
    /// The key that waits for its value, in a mapping.
    key: Option<(String, Mark)>,
    /// The line of each key so far.
    keys: HashMap<String, u32>,
}

/// The documents of a file; those without content are left out.
///
/// On an error the documents before it are given too: they are whole.
pub(crate) fn parse(text: &str) -> (Vec<Tree>, Option<SyntaxError>) {
    let mut loader = Loader::default();
    for event in Parser::new_from_str(text) {
        let result = match event {
            Ok((event, span)) => loader.event(event, mark(&span)),
            Err(error) => {
                let at = *error.marker();
                let mut wrong = SyntaxError::new(point(at.line(), at.col()), format!("not YAML: {}", error.info()));
                wrong.help = error.info().contains("tab").then_some("indent with spaces");
                Err(wrong)
            }
        };
        if let Err(error) = result {
            return (loader.documents, Some(error));
        }
    }
    (loader.documents, None)
}

fn mark(span: &Span) -> Mark {
    point(span.start.line(), span.start.col())
}

/// The parser counts lines from 1 and columns from 0.
fn point(line: usize, column: usize) -> Mark {
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Mark { line: narrow(line), column: narrow(column.saturating_add(1)) }
}

#[derive(Default)]
struct Loader {
    documents: Vec<Tree>,
    open: Vec<Open>,
    /// Anchored values with the number of values in each.
    anchors: HashMap<usize, (Tree, usize)>,
    values: usize,
}

impl Loader {
    fn event(&mut self, event: Event<'_>, at: Mark) -> Result<(), SyntaxError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref(), at)?;
                self.count(1, at)?;
                let tree = Tree { at, value, state: State::Sound };
                if anchor != 0 {
                    self.anchors.insert(anchor, (tree.clone(), 1));
                }
                self.put(tree)
            }
            Event::SequenceStart(anchor, _) => self.begin(Value::Seq(Vec::new()), anchor, at),
            Event::MappingStart(anchor, _) => self.begin(Value::Map(Vec::new()), anchor, at),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let Some((tree, size)) = self.anchors.get(&anchor) else {
                    return Err(SyntaxError::new(at, "alias of a value that is not complete"));
                };
                let size = *size;
                self.values = self.values.saturating_add(size);
                if self.values > MAX_VALUES {
                    return Err(too_many(at));
                }
                // Errors in it are the anchor's: that is where they are mended.
                let tree = tree.clone();
                if self.open.len() + depth(&tree) > MAX_DEPTH {
                    return Err(too_deep(at));
                }
                self.put(tree)
            }
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => Ok(()),
        }
    }

    fn count(&mut self, values: usize, at: Mark) -> Result<(), SyntaxError> {
        self.values = self.values.saturating_add(values);
        if self.values > MAX_VALUES { Err(too_many(at)) } else { Ok(()) }
    }

    fn begin(&mut self, value: Value, anchor: usize, at: Mark) -> Result<(), SyntaxError> {
        self.count(1, at)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(at));
        }
        if let Some(Open { tree: Tree { value: Value::Map(_), .. }, key: None, .. }) = self.open.last() {
            return Err(SyntaxError::new(at, "a key must be text"));
        }
        self.open.push(Open { tree: Tree { at, value, state: State::Sound }, anchor, key: None, keys: HashMap::new() });
        Ok(())
    }

    fn end(&mut self) -> Result<(), SyntaxError> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        if open.anchor != 0 {
            let size = open.tree.size();
            // The copy that the anchor keeps is memory too.
            self.count(size, open.tree.at)?;
            self.anchors.insert(open.anchor, (open.tree.clone(), size));
        }
        self.put(open.tree)
    }

    /// A complete value takes its place in what encloses it.
    fn put(&mut self, tree: Tree) -> Result<(), SyntaxError> {
        let Some(parent) = self.open.last_mut() else {
            if !matches!(tree.value, Value::Null) {
                self.documents.push(tree);
            }
            return Ok(());
        };
        match &mut parent.tree.value {
            Value::Map(entries) => match parent.key.take() {
                Some((key, key_at)) => entries.push(Entry { key, key_at, value: tree }),
                None => {
                    let at = tree.at;
                    let key = key_text(tree)?;
                    if key == "<<" {
                        return Err(SyntaxError::new(at, "merge keys (<<) are not part of YAML 1.2"));
                    }
                    if let Some(line) = parent.keys.insert(key.clone(), at.line) {
                        return Err(SyntaxError::new(at, format!("'{key}' stands here twice, first in line {line}")));
                    }
                    parent.key = Some((key, at));
                }
            },
            Value::Seq(items) => items.push(tree),
            _ => {}
        }
        Ok(())
    }
}

fn too_many(at: Mark) -> SyntaxError {
    SyntaxError::new(at, format!("more than {MAX_VALUES} values in a file, aliases expanded"))
}

fn too_deep(at: Mark) -> SyntaxError {
    SyntaxError::new(at, format!("nested deeper than {MAX_DEPTH} levels"))
}

/// Levels of collections in a tree.
fn depth(tree: &Tree) -> usize {
    match &tree.value {
        Value::Seq(items) => items.iter().map(depth).max().unwrap_or(0) + 1,
        Value::Map(entries) => entries.iter().map(|e| depth(&e.value)).max().unwrap_or(0) + 1,
        _ => 0,
    }
}

/// Keys are text; a number or boolean that is a key stays as it was written.
fn key_text(tree: Tree) -> Result<String, SyntaxError> {
    match tree.value {
        Value::Text(text) | Value::Float(_, text) => Ok(text),
        Value::Int(n) => Ok(n.to_string()),
        Value::Bool(b) => Ok(b.to_string()),
        Value::Null | Value::Seq(_) | Value::Map(_) => Err(SyntaxError::new(tree.at, "a key must be text")),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Mark) -> Result<Value, SyntaxError> {
    let plain = || resolve(text);
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain { plain() } else { Value::Text(text.to_owned()) });
    };
    let wrong = || SyntaxError::new(at, format!("'{text}' is not a {tag}"));
    if !tag.is_yaml_core_schema() {
        return Err(SyntaxError::new(at, format!("tag {tag} is not known")));
    }
    match (tag.suffix.as_str(), plain()) {
        ("str", _) => Ok(Value::Text(text.to_owned())),
        ("int", value @ Value::Int(_)) | ("bool", value @ Value::Bool(_)) | ("null", value @ Value::Null) => Ok(value),
        ("float", Value::Int(n)) => Ok(Value::Float(n as f64, text.to_owned())),
        ("float", value @ Value::Float(..)) => Ok(value),
        _ => Err(wrong()),
    }
}

/// The core schema's resolution of plain scalars (YAML 1.2.2 section 10.3.2).
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN, text.to_owned()),
        _ => {}
    }
    let digits = |radix, digits: &str| {
        (!digits.starts_with(['+', '-'])).then(|| i128::from_str_radix(digits, radix).ok()).flatten()
    };
    let integer = match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
        (Some(hex), _) => digits(16, hex),
        (_, Some(octal)) => digits(8, octal),
        _ => text.parse().ok(),
    };
    if let Some(n) = integer {
        return Value::Int(n);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
        return Value::Float(f64::INFINITY * sign, text.to_owned());
    }
    // Rust reads "inf" and "nan" as numbers, YAML does not.
    let numeric = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    match text.parse::<f64>() {
        Ok(number) if numeric && unsigned.contains(|c: char| c.is_ascii_digit()) => {
            Value::Float(number, text.to_owned())
        }
        _ => Value::Text(text.to_owned()),
    }
}
