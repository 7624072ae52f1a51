//! Calico's selector language: `role == 'edge' && !has(drained)`.
//!
//! ```text
//! selector := [or]                       nothing selects everything
//! or       := and ('||' and)*
//! and      := unary ('&&' unary)*
//! unary    := '!'* (comparison | '(' or ')')
//! comparison := label ('==' | '!=' | 'contains' | 'starts with' | 'ends with') string
//!             | label ('in' | 'not in') '{' [string (',' string)* [',']] '}'
//!             | 'has(' label ')' | 'all()' | 'global()'
//! ```
//!
//! Invariants: [`parse`] never recurses deeper than [`MAX_DEPTH`]; the canonical text ([`fmt::Display`]) parses to an equal
//! selector; equal selectors have equal canonical text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Deepest nesting of parentheses.
pub const MAX_DEPTH: usize = 64;

/// Longest label name, in bytes.
const MAX_LABEL: usize = 512;

/// A parsed selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Expr);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expr {
    All,
    Global,
    Has(String),
    Compare(String, Comparison, String),
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Not(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Contains,
    StartsWith,
    EndsWith,
}

/// Text that is not a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at character {position} of the selector")]
pub struct SelectorError {
    /// What is wrong.
    pub message: String,
    /// Which character it is about, from 1.
    pub position: usize,
}

impl Selector {
    /// Parses a selector; blank text selects everything.
    ///
    /// # Errors
    /// With the position of the character that does not fit the grammar.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { text, at: 0 };
        parser.skip_blanks();
        if parser.rest().is_empty() {
            return Ok(Self(Expr::All));
        }
        let expr = parser.or(0)?;
        if parser.rest().is_empty() { Ok(Self(expr)) } else { Err(parser.error("expected '&&', '||' or the end")) }
    }

    /// True when the selector picks something with these labels.
    ///
    /// `!=` and `not in` hold where the label is absent; `==`, `in`, `contains`, `starts with` and `ends with` do not.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.matches(labels)
    }

    /// Everything.
    pub fn all() -> Self {
        Self(Expr::All)
    }

    /// What has the label `label`.
    pub fn has(label: &str) -> Self {
        Self(Expr::Has(label.to_owned()))
    }

    /// What has the label `label` with this value.
    pub fn equal(label: &str, value: &str) -> Self {
        Self(Expr::Compare(label.to_owned(), Comparison::Equal, value.to_owned()))
    }

    /// What has the label `label` with one of these values.
    pub fn one_of(label: &str, values: impl IntoIterator<Item = String>) -> Self {
        Self(Expr::In(label.to_owned(), values.into_iter().collect()))
    }

    /// What all of `selectors` pick; everything where there are none.
    pub fn and(selectors: impl IntoIterator<Item = Self>) -> Self {
        Self(one_or(selectors.into_iter().map(|selector| selector.0).collect(), Expr::And))
    }

    /// What this does not pick.
    #[must_use]
    pub fn negated(self) -> Self {
        Self(complement(self.0))
    }

    /// True when the answer may depend on the label `label`.
    pub fn mentions(&self, label: &str) -> bool {
        self.0.any(&|expr| match expr {
            Expr::Has(of) | Expr::Compare(of, ..) | Expr::In(of, _) | Expr::NotIn(of, _) => of == label,
            _ => false,
        })
    }

    /// True when `global()` is part of it.
    pub fn mentions_global(&self) -> bool {
        self.0.any(&|expr| matches!(expr, Expr::Global))
    }

    /// A selector of parents (namespaces, service accounts) as one of their children, who carry a parent's labels behind `prefix`.
    /// Where those that have a parent carry a label `member`, `all()` picks them and `global()` the others.
    #[must_use]
    pub fn of_parents(self, prefix: &str, member: Option<&str>) -> Self {
        Self(self.0.of_parents(prefix, member))
    }

    /// What something must have to be picked, as far as a look at the selector tells: all of it. Empty where nothing is known.
    pub fn requirements(&self) -> Vec<Requirement<'_>> {
        let parts = match &self.0 {
            Expr::And(parts) => parts.iter().map(Expr::requirement).collect(),
            expr => vec![expr.requirement()],
        };
        parts.into_iter().filter(|requirement| *requirement != Requirement::Nothing).collect()
    }
}

/// A necessary condition of a selector: what does not meet it is never picked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement<'a> {
    /// None is known.
    Nothing,
    /// This label, with whatever value.
    Label(&'a str),
    /// This label with one of these values; where there is no value, nothing is ever picked.
    Values(&'a str, BTreeSet<&'a str>),
}

impl Requirement<'_> {
    /// How little it leaves: the larger, the better to look things up by.
    fn strength(&self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Label(_) => 1,
            Self::Values(..) => 2,
        }
    }
}

impl Expr {
    fn any(&self, is: &impl Fn(&Expr) -> bool) -> bool {
        is(self)
            || match self {
                Self::Not(inner) => inner.any(is),
                Self::And(parts) | Self::Or(parts) => parts.iter().any(|part| part.any(is)),
                _ => false,
            }
    }

    fn of_parents(self, prefix: &str, member: Option<&str>) -> Self {
        let named = |label: String| format!("{prefix}{label}");
        let all = |parts: Vec<Expr>| parts.into_iter().map(|part| part.of_parents(prefix, member)).collect();
        match self {
            Self::All => member.map_or(Self::All, |member| Self::Has(member.to_owned())),
            Self::Global => member.map_or(Self::Global, |member| complement(Self::Has(member.to_owned()))),
            Self::Has(label) => Self::Has(named(label)),
            Self::Compare(label, comparison, text) => Self::Compare(named(label), comparison, text),
            Self::In(label, set) => Self::In(named(label), set),
            Self::NotIn(label, set) => Self::NotIn(named(label), set),
            Self::Not(inner) => complement(inner.of_parents(prefix, member)),
            Self::And(parts) => Self::And(all(parts)),
            Self::Or(parts) => Self::Or(all(parts)),
        }
    }

    fn requirement(&self) -> Requirement<'_> {
        match self {
            Self::Has(label) => Requirement::Label(label),
            Self::Compare(_, Comparison::NotEqual, _) => Requirement::Nothing,
            Self::Compare(label, Comparison::Equal, text) => {
                Requirement::Values(label, BTreeSet::from([text.as_str()]))
            }
            Self::Compare(label, ..) => Requirement::Label(label),
            Self::In(label, set) => Requirement::Values(label, set.iter().map(String::as_str).collect()),
            Self::And(parts) => {
                parts.iter().map(Self::requirement).max_by_key(Requirement::strength).unwrap_or(Requirement::Nothing)
            }
            Self::Or(parts) => parts.iter().map(Self::requirement).reduce(either).unwrap_or(Requirement::Nothing),
            Self::All | Self::Global | Self::NotIn(..) | Self::Not(_) => Requirement::Nothing,
        }
    }
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            // What carries labels here is global: it lives in no namespace.
            Self::All | Self::Global => true,
            Self::Has(label) => labels.contains_key(label),
            Self::Compare(label, comparison, text) => {
                let value = labels.get(label);
                match comparison {
                    Comparison::Equal => value == Some(text),
                    Comparison::NotEqual => value != Some(text),
                    Comparison::Contains => value.is_some_and(|v| v.contains(text.as_str())),
                    Comparison::StartsWith => value.is_some_and(|v| v.starts_with(text.as_str())),
                    Comparison::EndsWith => value.is_some_and(|v| v.ends_with(text.as_str())),
                }
            }
            Self::In(label, set) => labels.get(label).is_some_and(|v| set.contains(v)),
            Self::NotIn(label, set) => !labels.get(label).is_some_and(|v| set.contains(v)),
            Self::Not(inner) => !inner.matches(labels),
            Self::And(parts) => parts.iter().all(|p| p.matches(labels)),
            Self::Or(parts) => parts.iter().any(|p| p.matches(labels)),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Has(label) => write!(f, "has({label})"),
            Self::Compare(label, comparison, text) => {
                let operator = match comparison {
                    Comparison::Equal => "==",
                    Comparison::NotEqual => "!=",
                    Comparison::Contains => "contains",
                    Comparison::StartsWith => "starts with",
                    Comparison::EndsWith => "ends with",
                };
                write!(f, "{label} {operator} {}", Quoted(text))
            }
            Self::In(label, set) => write!(f, "{label} in {}", Set(set)),
            Self::NotIn(label, set) => write!(f, "{label} not in {}", Set(set)),
            Self::Not(inner) => write!(f, "!{inner}"),
            Self::And(parts) => joined(f, parts, " && "),
            Self::Or(parts) => joined(f, parts, " || "),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, parts: &[Expr], operator: &str) -> fmt::Result {
    f.write_str("(")?;
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            f.write_str(operator)?;
        }
        write!(f, "{part}")?;
    }
    f.write_str(")")
}

/// Strings have no escapes, so that the quote is the one that the text does not have.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

struct Set<'a>(&'a BTreeSet<String>);

impl fmt::Display for Set<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, text) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{}", Quoted(text))?;
        }
        f.write_str("}")
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Byte offset of what comes next; always at the beginning of a character.
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn error(&self, message: &str) -> SelectorError {
        let before = self.text.get(..self.at).unwrap_or_default();
        SelectorError { message: message.to_owned(), position: before.chars().count() + 1 }
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    /// Takes `token` and the blanks behind it, if it is next.
    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
            self.skip_blanks();
        }
        found
    }

    /// Takes the word `word` if it is next: what follows must not go on with it.
    fn take_word(&mut self, word: &str) -> bool {
        let found = self.rest().strip_prefix(word).is_some_and(|rest| !rest.starts_with(is_label_char));
        found && self.take(word)
    }

    /// Takes `name` and the empty parentheses that make a call of it.
    fn take_call(&mut self, name: &str) -> bool {
        let Some(rest) = self.rest().strip_prefix(name) else { return false };
        let Some(rest) = rest.strip_prefix('(') else { return false };
        let Some(rest) = rest.trim_start_matches([' ', '\t']).strip_prefix(')') else { return false };
        self.at = self.text.len() - rest.len();
        self.skip_blanks();
        true
    }

    fn or(&mut self, depth: usize) -> Result<Expr, SelectorError> {
        let mut parts = vec![self.and(depth)?];
        while self.take("||") {
            parts.push(self.and(depth)?);
        }
        Ok(one_or(parts, Expr::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Expr, SelectorError> {
        let mut parts = vec![self.unary(depth)?];
        while self.take("&&") {
            parts.push(self.unary(depth)?);
        }
        Ok(one_or(parts, Expr::And))
    }

    fn unary(&mut self, depth: usize) -> Result<Expr, SelectorError> {
        let mut negated = false;
        while self.take("!") {
            negated = !negated;
        }
        let open = self.rest();
        let inner = if self.take("(") {
            if depth >= MAX_DEPTH {
                self.at = self.text.len() - open.len();
                return Err(self.error(&format!("more than {MAX_DEPTH} parentheses inside each other")));
            }
            let inner = self.or(depth + 1)?;
            if !self.take(")") {
                return Err(self.error("expected ')'"));
            }
            inner
        } else {
            self.comparison()?
        };
        Ok(match (negated, inner) {
            (false, inner) => inner,
            (true, inner) => complement(inner),
        })
    }

    fn comparison(&mut self) -> Result<Expr, SelectorError> {
        if self.take_call("all") {
            return Ok(Expr::All);
        }
        if self.take_call("global") {
            return Ok(Expr::Global);
        }
        if self.take("has(") {
            let label = self.label()?;
            return if self.take(")") { Ok(Expr::Has(label)) } else { Err(self.error("expected ')'")) };
        }
        let label = self.label()?;
        for (token, comparison) in [("==", Comparison::Equal), ("!=", Comparison::NotEqual)] {
            if self.take(token) {
                return Ok(Expr::Compare(label, comparison, self.string()?));
            }
        }
        for (word, comparison) in [
            ("contains", Comparison::Contains),
            ("startswith", Comparison::StartsWith),
            ("endswith", Comparison::EndsWith),
        ] {
            if self.take_word(word) {
                return Ok(Expr::Compare(label, comparison, self.string()?));
            }
        }
        for (first, comparison) in [("starts", Comparison::StartsWith), ("ends", Comparison::EndsWith)] {
            if self.take_word(first) {
                if !self.take_word("with") {
                    return Err(self.error("expected 'with'"));
                }
                return Ok(Expr::Compare(label, comparison, self.string()?));
            }
        }
        if self.take_word("in") {
            return Ok(Expr::In(label, self.set()?));
        }
        if self.take_word("notin") {
            return Ok(Expr::NotIn(label, self.set()?));
        }
        if self.take_word("not") {
            if !self.take_word("in") {
                return Err(self.error("expected 'in'"));
            }
            return Ok(Expr::NotIn(label, self.set()?));
        }
        Err(self.error("expected ==, !=, in, not in, contains, starts with or ends with"))
    }

    fn label(&mut self) -> Result<String, SelectorError> {
        let rest = self.rest();
        let length = rest.find(|c| !is_label_char(c)).unwrap_or(rest.len());
        match rest.get(..length) {
            None | Some("") => Err(self.error("expected a label")),
            Some(label) if label.len() > MAX_LABEL => Err(self.error("the label is longer than 512 characters")),
            Some(label) => {
                self.at += label.len();
                self.skip_blanks();
                Ok(label.to_owned())
            }
        }
    }

    fn string(&mut self) -> Result<String, SelectorError> {
        let rest = self.rest();
        let Some(quote) = rest.chars().next().filter(|c| ['\'', '"'].contains(c)) else {
            return Err(self.error("expected a string in quotes"));
        };
        let Some((text, _)) = rest.get(1..).and_then(|rest| rest.split_once(quote)) else {
            return Err(self.error("the string does not end"));
        };
        self.at += text.len() + 2;
        self.skip_blanks();
        Ok(text.to_owned())
    }

    fn set(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        if !self.take("{") {
            return Err(self.error("expected '{'"));
        }
        let mut set = BTreeSet::new();
        while !self.take("}") {
            set.insert(self.string()?);
            if !self.take(",") && !self.rest().starts_with('}') {
                return Err(self.error("expected ',' or '}'"));
            }
        }
        Ok(set)
    }
}

fn is_label_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}

/// What is necessary where either of two conditions will do.
fn either<'a>(a: Requirement<'a>, b: Requirement<'a>) -> Requirement<'a> {
    match (a, b) {
        (Requirement::Values(label, mut values), Requirement::Values(other, more)) if label == other => {
            values.extend(more);
            Requirement::Values(label, values)
        }
        (
            Requirement::Label(label) | Requirement::Values(label, _),
            Requirement::Label(other) | Requirement::Values(other, _),
        ) if label == other => Requirement::Label(label),
        _ => Requirement::Nothing,
    }
}

/// What `inner` does not pick; twice is not at all.
fn complement(inner: Expr) -> Expr {
    match inner {
        Expr::Not(inner) => *inner,
        inner => Expr::Not(Box::new(inner)),
    }
}

/// The one part there is, or all of them under `many`.
fn one_or(mut parts: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    if parts.len() > 1 {
        return many(parts);
    }
    parts.pop().unwrap_or(Expr::All)
}
