//! Errors and warnings with the place they are about.

use std::collections::HashMap;
use std::fmt;

use crate::document::{Mark, Path, Tree};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is not taken.
    Error,
    /// It works, but perhaps not as was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing that is wrong, where it is and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Name of the file as it was given; empty when it is about the directory as a whole.
    pub file: String,
    /// Line and column of the value it is about.
    pub at: Mark,
    /// Error or warning.
    pub severity: Severity,
    /// Kind and name of the document, as `VirtualService web`; empty where neither is known.
    pub document: String,
    /// Field, as `spec.backends[2].weight`; empty when it is about the document as a whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    /// `file:line:column: error: VirtualService web: spec.port: must be 1 to 65535, is 0`, and the help on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if self.at.line > 0 {
                write!(f, "{}:{}:", self.at.line, self.at.column)?;
            }
            f.write_str(" ")?;
        }
        write!(f, "{}: ", self.severity)?;
        for part in [&self.document, &self.field] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// What documents are loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be enforced on a node: what the datapath does not do is an error.
    Agent,
    /// To answer questions about policy, of all nodes: everything that can be evaluated is taken.
    Evaluation,
}

/// A document whose kind and name are known.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) file: String,
    pub(super) tree: Tree,
    pub(super) kind: &'static str,
    /// Of the kinds that live in one.
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

impl Document {
    /// A document of which nothing is known yet but where it stands.
    pub(super) fn unknown(file: &str, tree: Tree) -> Self {
        Self { file: file.to_owned(), tree, kind: "", namespace: None, name: String::new() }
    }

    /// Kind and name, as `VirtualService web` or `NetworkPolicy prod/web`.
    pub(super) fn label(&self) -> String {
        match (self.kind, self.name.as_str()) {
            (kind, "") => kind.to_owned(),
            ("", name) => name.to_owned(),
            (kind, _) => format!("{kind} {}", self.full_name()),
        }
    }

    /// Namespace and name.
    pub(super) fn full_name(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }

    /// Where `path` stands, to be told in the message about another place.
    pub(super) fn place(&self, path: &Path) -> String {
        format!("{} ({}:{})", self.label(), self.file, self.locate(path).line)
    }

    /// Where `path`, which leads through what was read, stands in the file.
    pub(super) fn locate(&self, path: &Path) -> Mark {
        self.tree.locate(&self.tree.written(path))
    }

    /// True when nothing is known against what is at, in and around `path`.
    pub(super) fn is_sound(&self, path: &Path) -> bool {
        !self.tree.is_broken(&self.tree.written(path))
    }
}

/// Diagnostics listed before the rest is only counted.
const MAX_LISTED: usize = 1000;

/// Everything found so far.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) purpose: Purpose,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// How many there were when the list was full, and whether an error was among them.
    left_off: usize,
    left_off_error: bool,
}

impl Report {
    pub(super) fn new(purpose: Purpose) -> Self {
        Self { purpose, diagnostics: Vec::new(), left_off: 0, left_off_error: false }
    }

    /// Adds an error. Nothing is said about a value that contains, or is, one already found broken.
    pub(super) fn error(&mut self, document: &Document, path: &Path, message: impl Into<String>) {
        self.add(Severity::Error, document, path, message.into(), None);
    }

    /// Adds an error with its remedy.
    pub(super) fn error_help(
        &mut self,
        document: &Document,
        path: &Path,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Error, document, path, message.into(), Some(help.into()));
    }

    /// Adds an error about a field of Calico's that means something which margay does not do.
    pub(super) fn not_enforced(&mut self, document: &Document, path: &Path, what: &str) {
        self.add(Severity::Error, document, path, format!("not enforced yet: {what}"), None);
    }

    /// Adds a warning.
    pub(super) fn warning(
        &mut self,
        document: &Document,
        path: &Path,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.add(Severity::Warning, document, path, message.into(), help);
    }

    fn add(&mut self, severity: Severity, document: &Document, path: &Path, message: String, help: Option<String>) {
        // The place of an element is found by counting: not to be done a million times.
        if self.diagnostics.len() >= MAX_LISTED {
            self.left_off += 1;
            self.left_off_error |= severity == Severity::Error;
            return;
        }
        if !document.is_sound(path) {
            return;
        }
        self.diagnostics.push(Diagnostic {
            file: document.file.clone(),
            at: document.locate(path),
            severity,
            document: document.label(),
            field: document.tree.written(path).to_string(),
            message,
            help,
        });
    }

    pub(super) fn has_errors(&self) -> bool {
        self.left_off_error || self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }

    /// The list, in the order of `files` and lines, and how many are not in it.
    pub(super) fn finish(mut self, files: &[(String, String)]) -> Vec<Diagnostic> {
        let order: HashMap<&str, usize> = files.iter().enumerate().map(|(i, (name, _))| (name.as_str(), i)).collect();
        self.diagnostics.sort_by_key(|d| (order.get(d.file.as_str()).copied(), d.at));
        if self.left_off > 0 {
            let severity = if self.left_off_error { Severity::Error } else { Severity::Warning };
            self.diagnostics.push(Diagnostic {
                file: String::new(),
                at: Mark::default(),
                severity,
                document: String::new(),
                field: String::new(),
                message: format!("{} more are not listed", self.left_off),
                help: None,
            });
        }
        self.diagnostics
    }
}
