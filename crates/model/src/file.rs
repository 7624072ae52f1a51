//! A YAML document of somebody else's types, read with the places, the words and the limits that resources are read with.

use serde::de::DeserializeOwned;

use crate::document::{Mark, Tree, deserialize, parse};
use crate::load::{Diagnostic, Severity};

pub use crate::document::Path;
pub use crate::document::deserialize::one_of;

/// One document of a file.
#[derive(Debug)]
pub struct Document {
    file: String,
    tree: Tree,
}

impl Document {
    /// The only document in `text`, which is called `file` in errors.
    ///
    /// # Errors
    /// Where it is not YAML, or not one document.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let error = |at, message: String, help: Option<&str>| {
            vec![Diagnostic {
                file: file.to_owned(),
                at,
                severity: Severity::Error,
                document: String::new(),
                field: String::new(),
                message,
                help: help.map(str::to_owned),
            }]
        };
        let (trees, wrong) = parse(text);
        if let Some(wrong) = wrong {
            return Err(error(wrong.at, wrong.message, wrong.help));
        }
        let mut trees = trees.into_iter();
        let start = Mark { line: 1, column: 1 };
        let tree = trees.next().ok_or_else(|| error(start, "the file is empty".to_owned(), None))?;
        match trees.next() {
            Some(second) => Err(error(second.at, "a second document".to_owned(), Some("one document in a file"))),
            None => Ok(Self { file: file.to_owned(), tree }),
        }
    }

    /// Reads it as a `T`.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order in which it was found.
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<T, Vec<Diagnostic>> {
        // Reading marks what is broken; places are asked for afterwards.
        let (value, problems) = deserialize::read(&mut self.tree.clone());
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => Err(problems
                .into_iter()
                .map(|problem| Diagnostic {
                    at: problem.at,
                    help: problem.help,
                    ..self.error(&problem.path, problem.message)
                })
                .collect()),
        }
    }

    /// Where the value at `path` stands.
    pub fn locate(&self, path: &Path) -> Mark {
        self.tree.locate(path)
    }

    /// An error about the value at `path`.
    pub fn error(&self, path: &Path, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            file: self.file.clone(),
            at: self.tree.locate(path),
            severity: Severity::Error,
            document: String::new(),
            field: path.to_string(),
            message: message.into(),
            help: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn errors_have_places() {
        let mut document = Document::parse("a.yaml", "a: 1\nb: [2, x]\nc: y\n").unwrap();
        let errors = document.read::<BTreeMap<String, Vec<u8>>>().unwrap_err();
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(texts[0].starts_with("a.yaml:1:4: error: a: expected a list"), "{texts:?}");
        assert!(texts[1].starts_with("a.yaml:2:8: error: b[1]: expected a number"), "{texts:?}");
        let path = Path::default().key("b").index(0);
        assert_eq!(document.error(&path, "no").to_string(), "a.yaml:2:5: error: b[0]: no");
    }

    #[test]
    fn one_document_it_is() {
        for (text, expected) in
            [("", "the file is empty"), ("a: 1\n---\nb: 2\n", "a second document"), ("a: [", "not YAML")]
        {
            let error = Document::parse("a.yaml", text).unwrap_err()[0].to_string();
            assert!(error.starts_with("a.yaml:") && error.contains(expected), "{error}");
        }
    }
}
