//! Reading and writing of results. A file is replaced as a whole or not at all: a full disk or a killed process leaves the
//! old one.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tempfile::NamedTempFile;

use super::{BenchResult, SCHEMA};

/// Why a result could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not JSON: {source}; expected a result that dataplane-bench wrote with --result")]
    NotJson { path: PathBuf, source: serde_json::Error },
    #[error("{path} has no \"schema\": it is no result of dataplane-bench, or one from before {SCHEMA}; measure again")]
    NoSchema { path: PathBuf },
    #[error("{path} has the schema '{found}' and this version reads '{SCHEMA}': use the version that wrote it")]
    Schema { path: PathBuf, found: String },
    #[error("{path}: field {field}: {source}; the format is in docs/schema/bench-result.json")]
    Field { path: PathBuf, field: String, source: serde_json::Error },
    #[error("cannot write {path}: {source}{}", if *.kept { "; what was there before is unchanged" } else { "" })]
    Write { path: PathBuf, kept: bool, source: io::Error },
    #[error("the result cannot be written as JSON: {0}")]
    Encode(serde_json::Error),
}

/// Reads a result.
///
/// # Errors
///
/// The file, the field in it and the reason.
pub(crate) fn load(path: &Path) -> Result<BenchResult, StoreError> {
    let owned = || path.to_owned();
    let text = fs::read(path).map_err(|source| StoreError::Read { path: owned(), source })?;
    decode(path, &text)
}

fn decode(path: &Path, text: &[u8]) -> Result<BenchResult, StoreError> {
    #[derive(Deserialize)]
    struct Head {
        schema: Option<serde_json::Value>,
    }
    let owned = || path.to_owned();
    // The version first: a later one may differ in any field.
    let head: Head = match serde_json::from_slice(text) {
        Ok(head) => head,
        Err(error) if error.is_data() => return Err(StoreError::NoSchema { path: owned() }),
        Err(source) => return Err(StoreError::NotJson { path: owned(), source }),
    };
    match head.schema {
        None => return Err(StoreError::NoSchema { path: owned() }),
        Some(schema) if schema != SCHEMA => {
            let found = schema.as_str().map_or_else(|| schema.to_string(), str::to_owned);
            return Err(StoreError::Schema { path: owned(), found });
        }
        Some(_) => {}
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    serde_path_to_error::deserialize(&mut json).map_err(|error| StoreError::Field {
        path: owned(),
        field: error.path().to_string(),
        source: error.into_inner(),
    })
}

/// The bytes of a result's file.
///
/// # Errors
///
/// None that a result can cause: its numbers and texts all have a JSON form.
pub(crate) fn json(result: &BenchResult) -> Result<Vec<u8>, StoreError> {
    let mut text = serde_json::to_vec_pretty(result).map_err(StoreError::Encode)?;
    text.push(b'\n');
    Ok(text)
}

/// Writes a file beside its place, down to the disk, and moves it there.
///
/// # Errors
///
/// The path and the reason; a file that was there before is unchanged and nothing is left beside it.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let write = || {
        let mut file = NamedTempFile::new_in(directory)?;
        file.write_all(bytes)?;
        // Files are made for their owner alone; a report is for whoever may read the directory.
        file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|source| StoreError::Write { path: path.to_owned(), kept: path.exists(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        decode(Path::new("r.json"), text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_bad_file_is_named_with_the_place_and_the_fix() {
        for (text, wanted) in [
            ("", "r.json is not JSON: EOF"),
            ("{\"schema\": ", "r.json is not JSON: EOF while parsing a value at line 1 column 11"),
            ("[]", "r.json has no \"schema\""),
            ("{\"cases\": []}", "r.json has no \"schema\""),
            (
                "{\"schema\": \"margay.bench/v2\"}",
                "has the schema 'margay.bench/v2' and this version reads 'margay.bench/v1'",
            ),
            ("{\"schema\": 1}", "has the schema '1'"),
            ("{\"schema\": \"margay.bench/v1\"}", "missing field `tool`"),
        ] {
            let error = read(text);
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn a_bad_field_is_named_by_its_path() {
        let mut value = serde_json::to_value(BenchResult::start(None)).unwrap();
        value["prog"] = serde_json::json!([{"case": "a", "about": "", "baseline": false, "ns_median": "fast"}]);
        let error = read(&value.to_string());
        assert!(
            error.contains("r.json: field prog[0].ns_median: invalid type: string \"fast\", expected f64"),
            "{error}"
        );
    }

    #[test]
    fn a_failed_write_keeps_the_old_file_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.md");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let error = write_atomically(&directory.path().join("none/report.md"), b"new").unwrap_err();
        assert!(error.to_string().contains("No such file or directory"), "{error}");
        // A directory in the way: the last step fails, and what was prepared goes away again.
        fs::create_dir(directory.path().join("taken")).unwrap();
        write_atomically(&directory.path().join("taken"), b"new").unwrap_err();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
