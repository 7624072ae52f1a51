//! `--result FILE`, the same for every subcommand that measures.

use std::path::PathBuf;

use super::{BenchResult, StoreError, json, write_atomically};

/// Where a run's result goes.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Keep {
    /// Write the result to this file, for `report` and `compare`.
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
    /// Mark the result as a quick one, whose figures are rough.
    #[arg(long, requires = "result")]
    mark_quick: bool,
}

impl Keep {
    /// Ends the run and writes it, where a file was named.
    ///
    /// # Errors
    ///
    /// The file cannot be written; what was there before is kept.
    pub(crate) fn finish(&self, result: &mut BenchResult) -> Result<(), StoreError> {
        result.finish();
        if let (Some(run), true) = (result.runs.last_mut(), self.mark_quick) {
            run.quick = true;
        }
        let Some(path) = &self.result else { return Ok(()) };
        write_atomically(path, &json(result)?)
    }
}
