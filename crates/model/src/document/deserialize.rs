//! A tree read as a serde type, with every error in it.
//!
//! serde stops at the first error. [`read`] therefore marks the value that an error lies in as broken and reads again, until the
//! rest is right: each round finds one error, and none is found twice. Where the rest cannot do without a value, some value
//! of its type stands in for it, and if none does, what encloses it is broken too.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::{Entry, Mark, Path, State, Step, Tree, Value};

/// Errors listed for one document before giving up on it.
const MAX_ERRORS: usize = 100;
/// Values read for one document, all rounds together: a large document is given up on after fewer errors.
const MAX_READS: usize = 20_000_000;

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) path: Path,
    pub(crate) at: Mark,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

/// Reads `tree` as a `T`; `None` when not even what is left after leaving out the broken parts makes one.
pub(crate) fn read<T: de::DeserializeOwned>(tree: &mut Tree) -> (Option<T>, Vec<Problem>) {
    let mut problems: Vec<Problem> = Vec::new();
    // An error takes a round to be found, one to stand in for the value and one to give up on what encloses it.
    let rounds = (MAX_READS / tree.size()).clamp(8, 3 * MAX_ERRORS);
    for _ in 0..rounds {
        let mut error = match T::deserialize(&*tree) {
            Ok(value) => return (Some(value), problems),
            Err(error) => error,
        };
        error.steps.reverse();
        let path = Path(error.steps);
        let culprit = error.missing.map_or_else(|| path.clone(), |field| path.key(field));
        if !tree.is_broken(&culprit) {
            let at = error.at.unwrap_or_else(|| tree.locate(&path));
            problems.push(Problem { path: path.clone(), at, message: error.message, help: error.help });
        }
        if problems.len() >= MAX_ERRORS {
            break;
        }
        if error.missing.is_some_and(|field| tree.stand_in(&path, field)) {
            continue;
        }
        // A stand-in that does not do is broken already.
        let broken = if tree.is_broken(&path) { path.parent() } else { path };
        if broken == Path::default() {
            break;
        }
        tree.break_off(&broken);
    }
    (None, problems)
}

/// An error on its way up from where it was found.
#[derive(Debug)]
pub(crate) struct Error {
    /// Innermost step first.
    steps: Vec<Step>,
    at: Option<Mark>,
    message: String,
    help: Option<String>,
    missing: Option<&'static str>,
}

impl Error {
    fn inside(mut self, step: Step, at: Mark) -> Self {
        self.at.get_or_insert(at);
        self.steps.push(step);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    /// The first line is the message, what follows it is the help.
    fn custom<T: fmt::Display>(text: T) -> Self {
        let text = text.to_string();
        let (message, help) = match text.split_once('\n') {
            Some((message, help)) => (message.to_owned(), Some(help.to_owned())),
            None => (text, None),
        };
        Self { steps: Vec::new(), at: None, message, help, missing: None }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let error = Self::custom(format!("expected {}, found {}", plain(expected), describe(found)));
        let help = match found {
            Unexpected::Bool(b) if wants_text(expected) => Some(format!("write \"{b}\" in quotes")),
            Unexpected::Signed(n) if wants_text(expected) => Some(format!("write \"{n}\" in quotes")),
            Unexpected::Other(number) if wants_text(expected) => Some(format!("write \"{number}\" in quotes")),
            Unexpected::Str(text) if text.parse::<f64>().is_ok() && !wants_text(expected) => {
                Some(format!("write {text} without quotes"))
            }
            Unexpected::Str("yes" | "Yes" | "on" | "On") => Some("write true".to_owned()),
            Unexpected::Str("no" | "No" | "off" | "Off") => Some("write false".to_owned()),
            _ => None,
        };
        Self { help, ..error }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format!("expected {}, found {}", plain(expected), describe(found)))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self { help: Some(one_of(field, expected)), ..Self::custom(format!("unknown field '{field}'")) }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self { help: Some(one_of(variant, expected)), ..Self::custom(format!("'{variant}' is not known here")) }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { missing: Some(field), ..Self::custom(format!("needs the field '{field}'")) }
    }
}

/// "did you mean ..." where one of the words is near, else all of them.
pub fn one_of(word: &str, expected: &[&str]) -> String {
    let lower = word.to_lowercase();
    let near = |candidate: &&&str| strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
    match expected.iter().min_by_key(near) {
        Some(best) if near(&best) <= 1 + best.len() / 4 => {
            format!("did you mean '{best}'? expected one of {}", expected.join(", "))
        }
        _ => format!("expected one of {}", expected.join(", ")),
    }
}

/// serde's names for types, in words.
fn plain(expected: &dyn de::Expected) -> String {
    match expected.to_string().as_str() {
        "u8" => "a number from 0 to 255".to_owned(),
        "u16" => "a number from 0 to 65535".to_owned(),
        "u32" => "a number from 0 to 4294967295".to_owned(),
        "u64" | "usize" => "a number not below 0".to_owned(),
        "i64" | "i32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        text if text.starts_with("struct ") || text == "a map" => "a mapping".to_owned(),
        text => text.to_owned(),
    }
}

fn wants_text(expected: &dyn de::Expected) -> bool {
    expected.to_string() == "a string"
}

fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(b) => format!("the boolean {b}"),
        Unexpected::Unsigned(n) => n.to_string(),
        Unexpected::Signed(n) => n.to_string(),
        Unexpected::Float(n) => n.to_string(),
        Unexpected::Str(text) => format!("\"{}\"", shorten(text)),
        Unexpected::Unit => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string(),
    }
}

/// A value as an error message may repeat it: hostile ones are long.
pub(crate) fn shorten(text: &str) -> String {
    if text.chars().count() <= 60 { text.to_owned() } else { text.chars().take(60).chain(['…']).collect() }
}

impl<'de> Deserializer<'de> for &'de Tree {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Int(n) => match (i64::try_from(*n), u64::try_from(*n)) {
                (Ok(n), _) => visitor.visit_i64(n),
                (_, Ok(n)) => visitor.visit_u64(n),
                _ => Err(de::Error::custom(format!("{n} is out of range"))),
            },
            Value::Float(n, _) => visitor.visit_f64(*n),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::Seq(items) => visitor.visit_seq(Items { items: items.iter().enumerate() }),
            Value::Map(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    /// A number where text is wanted is named with the text it was written as.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Float(_, text) => Err(de::Error::invalid_type(Unexpected::Other(text), &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    /// Nothing is the empty list, as it is to Kubernetes.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Null => visitor.visit_seq(Items { items: [].iter().enumerate() }),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Null => visitor.visit_map(Entries { entries: [].iter(), value: None }),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    /// Only enums of bare words exist in the resources.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.value {
            Value::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => {
                let error: Error = de::Error::custom(format!("expected one of {}", variants.join(", ")));
                Err(error)
            }
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
        identifier ignored_any
    }
}

struct Items<'de> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Tree>>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        match self.items.find(|(_, item)| item.state != State::Broken) {
            Some((i, item)) => seed.deserialize(item).map(Some).map_err(|e| e.inside(Step::Index(i), item.at)),
            None => Ok(None),
        }
    }
}

struct Entries<'de> {
    entries: std::slice::Iter<'de, Entry>,
    value: Option<&'de Entry>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(entry) = self.entries.find(|entry| entry.value.state != State::Broken) else { return Ok(None) };
        self.value = Some(entry);
        let key: de::value::StrDeserializer<'de, Error> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|e| e.inside(Step::Key(entry.key.clone()), entry.key_at))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some(entry) = self.value.take() else { return Err(de::Error::custom("a value before its key")) };
        let value = match entry.value.state {
            State::StandIn => seed.deserialize(StandIn),
            _ => seed.deserialize(&entry.value),
        };
        value.map_err(|e| e.inside(Step::Key(entry.key.clone()), entry.value.at))
    }
}

/// Some value of whatever type is asked for.
struct StandIn;

impl<'de> Deserializer<'de> for StandIn {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i64(0)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(false)
    }

    /// Where text is parsed, it is an address or a prefix.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str("0.0.0.0")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_none()
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { items: [].iter().enumerate() })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let first = variants.first().copied().unwrap_or_default();
        visitor.visit_enum(first.into_deserializer())
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple
        tuple_struct map struct identifier ignored_any
    }
}
