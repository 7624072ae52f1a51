//! The configuration directory: read as a whole, checked, watched.
//!
//! ```text
//! *.yaml *.yml *.json -> model::load -> Desired, or every error with file, line and field
//!                                       check_network(): what only this machine can answer
//! watch(): a tick whenever the directory may have changed
//! ```

mod watch;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

pub use model::load::{Diagnostic, InterfaceMention, Loaded, Severity};
use model::network::Network;

pub use watch::{Watcher, watch};

/// Why a configuration directory could not be read or watched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory or one of its files cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The directory cannot be watched.
    #[error("cannot watch {path}: {source}")]
    Watch {
        /// Which.
        path: PathBuf,
        /// Why.
        source: notify::Error,
    },
    /// The documents are not valid; every error is in the list, with warnings among them.
    #[error("{}", render(.0))]
    Invalid(Vec<Diagnostic>),
}

/// Diagnostics as a person reads them: one after the other, and how many there are.
pub fn render(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{diagnostic}");
    }
    let errors = diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
    let warnings = diagnostics.len() - errors;
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    match (errors, warnings) {
        (0, n) => text + &count(n, "warning"),
        (n, 0) => text + &count(n, "error"),
        (e, w) => text + &count(e, "error") + ", " + &count(w, "warning"),
    }
}

/// The documents' files of a directory with their text, by name. Names are paths, as an editor opens them.
///
/// `path` may also be a single file, which is read whatever its name ends with.
///
/// # Errors
/// [`Error::Read`] when the directory or a file in it cannot be read, or a file is not UTF-8.
pub fn read_dir(path: &Path) -> Result<Vec<(String, String)>, Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    };
    if path.is_file() {
        let text = fs::read_to_string(path).map_err(failed(path))?;
        return Ok(vec![(path.display().to_string(), text)]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed(path))? {
        let file = entry.map_err(failed(path))?.path();
        // Asked of the target: Kubernetes mounts each file as a symbolic link.
        if is_document(&file) && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    let text = |file: PathBuf| {
        let text = fs::read_to_string(&file).map_err(failed(&file))?;
        Ok((file.display().to_string(), text))
    };
    files.into_iter().map(text).collect()
}

/// True for the names that are read: `*.yaml`, `*.yml` and `*.json` that do not begin with a dot.
fn is_document(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
}

/// Reads and validates a configuration directory for the node `node_name`, or for its only `Node` document.
///
/// # Errors
/// [`Error::Read`]; [`Error::Invalid`] with every error of every file.
pub fn load_dir(path: &Path, node_name: Option<&str>) -> Result<Loaded, Error> {
    model::load::load(&read_dir(path)?, node_name).map_err(Error::Invalid)
}

/// What is wrong with a configuration on this very machine: interfaces that it does not have.
///
/// A Node's interface and that of a next hop must be there; a HostEndpoint waits for its own, which is a warning.
pub fn check_network(loaded: &Loaded, network: &Network) -> Vec<Diagnostic> {
    let existing: Vec<&str> = network.links.values().map(|link| link.name.as_str()).collect();
    let missing = loaded.interfaces.iter().filter(|mention| network.link_by_name(&mention.interface).is_none());
    let diagnostic = |mention: &InterfaceMention| {
        let severity = if mention.required { Severity::Error } else { Severity::Warning };
        let help = format!("this machine has {}", existing.join(", "));
        mention.diagnostic(severity, format!("there is no interface '{}'", mention.interface), Some(help))
    };
    missing.map(diagnostic).collect()
}
