//! `report`: results of one machine, merged and written for readers.

mod chart;
mod csv;
mod facts;
pub(crate) mod figure;
mod headline;
mod markdown;
mod page;
mod palette;
mod plots;
pub(crate) mod rivals;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::result::{self, BenchResult, NotRun};

/// What to read and what to write.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Results, written with `--result`; several are merged.
    #[arg(required = true, value_name = "RESULT")]
    results: Vec<PathBuf>,
    /// Write one HTML file with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write Markdown.
    #[arg(long, value_name = "FILE")]
    md: Option<PathBuf>,
    /// Write CSV, one file a section, into this directory.
    #[arg(long, value_name = "DIR")]
    csv: Option<PathBuf>,
    /// Write the merged result.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Record that a step was not run and why.
    #[arg(long, value_name = "STEP=REASON", value_parser = not_run)]
    not_run: Vec<NotRun>,
}

fn not_run(text: &str) -> Result<NotRun, String> {
    match text.split_once('=') {
        Some((what, why)) if !what.is_empty() && !why.is_empty() => {
            Ok(NotRun { what: what.to_owned(), why: why.to_owned() })
        }
        _ => Err("expected STEP=REASON, such as 'latency=timed out'".to_owned()),
    }
}

/// Merges, writes what was asked for and prints the headlines.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut result = merged(&options.results)?;
    result.not_run.extend(options.not_run.iter().cloned());
    if let Some(path) = &options.json {
        result::write_atomically(path, &result::json(&result)?)?;
    }
    if let Some(path) = &options.html {
        result::write_atomically(path, page::page(&result).as_bytes())?;
    }
    if let Some(path) = &options.md {
        result::write_atomically(path, markdown::markdown(&result).as_bytes())?;
    }
    if let Some(directory) = &options.csv {
        write_csv(directory, &result)?;
    }
    for headline in headline::headlines(&result) {
        println!("{}", headline.line());
    }
    for missing in &result.not_run {
        println!("not run: {}: {}", missing.what, missing.why);
    }
    Ok(())
}

fn merged(paths: &[PathBuf]) -> anyhow::Result<BenchResult> {
    let mut merged: Option<BenchResult> = None;
    for path in paths {
        let next = result::load(path)?;
        let Some(merged) = &mut merged else {
            merged = Some(next);
            continue;
        };
        if let Err(differences) = merged.merge(next) {
            bail!(
                "{} is of another machine or version and cannot be on one page with those before it \
                 (`compare` lays two results side by side): {}",
                path.display(),
                differences.join("; ")
            );
        }
    }
    merged.context("no result is named")
}

fn write_csv(directory: &Path, result: &BenchResult) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make the directory {}", directory.display()))?;
    for table in table::all(result) {
        result::write_atomically(&directory.join(format!("{}.csv", table.name)), &csv::csv(&table)?)?;
    }
    Ok(())
}
