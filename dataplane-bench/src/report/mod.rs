//! `report`: results of one machine, merged and written for readers.

use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::result::{self, BenchResult, NotRun};

/// What to read and what to write.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Results, written with `--result`; several are merged.
    #[arg(required = true, value_name = "RESULT")]
    results: Vec<PathBuf>,
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

/// Merges and writes.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut merged: Option<BenchResult> = None;
    for path in &options.results {
        let next = result::load(path)?;
        match &mut merged {
            None => merged = Some(next),
            Some(merged) => {
                if let Err(differences) = merged.merge(next) {
                    bail!(
                        "{} is of another machine or build and cannot be on one page with those before it \
                         (`compare` lays two results side by side): {}",
                        path.display(),
                        differences.join("; ")
                    );
                }
            }
        }
    }
    let mut merged = merged.context("no result is named")?;
    merged.not_run.extend(options.not_run.iter().cloned());
    if let Some(path) = &options.json {
        result::write_atomically(path, &result::json(&merged)?)?;
    }
    Ok(())
}
