//! Tables for people, JSON for programs, and a reader that may hang up at any time.

use std::io::{self, Write as _};

use comfy_table::{Table, presets};
use serde::Serialize;

use super::Error;

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// The API's document.
    Json,
}

/// A row of a table.
pub(crate) trait Row {
    /// Titles of the columns.
    const HEADER: &'static [&'static str];
    /// One text a column.
    fn cells(&self) -> Vec<String>;
}

/// Writes a text; a reader that has gone away (`| head`) is no error.
pub(crate) fn text(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes a document as indented JSON.
pub(crate) fn json(document: &impl Serialize) -> Result<(), Error> {
    text(&(serde_json::to_string_pretty(document)? + "\n"))
}

/// Rows as a table without borders.
pub(crate) fn table<R: Row>(rows: &[R]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(R::HEADER.iter().copied());
    for row in rows {
        table.add_row(row.cells());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}
