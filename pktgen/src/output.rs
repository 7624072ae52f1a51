//! Where a report goes: standard output, a file, the exit code.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use pktgen::report::Report;
use pktgen::threshold::Threshold;

/// What is written, and where.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) json_lines: bool,
    pub(crate) out: Option<PathBuf>,
    pub(crate) fail_if: Vec<Threshold>,
}

/// Asks whether a file can be written before minutes are spent on what is to be in it.
pub(crate) fn require_writable(path: &Path) -> anyhow::Result<()> {
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    file.map(drop).with_context(|| format!("cannot write {}", path.display()))
}

impl Output {
    /// Prints the report, then writes the files, so that nothing is lost where they cannot be written. True where no condition of
    /// `--fail-if` holds.
    pub(crate) fn report(&self, report: &Report, out: &mut impl Write) -> anyhow::Result<bool> {
        if self.json_lines {
            serde_json::to_writer(&mut *out, &serde_json::json!({ "report": report }))?;
            writeln!(out)?;
        } else if self.json {
            serde_json::to_writer_pretty(&mut *out, report).context("cannot write the report")?;
            writeln!(out)?;
        } else {
            write!(out, "{report}")?;
        }
        out.flush()?;
        let exceeded: Vec<_> = self.fail_if.iter().filter_map(|threshold| threshold.check(report)).collect();
        for exceeded in &exceeded {
            eprintln!("pktgen: failed: {exceeded}");
        }
        if let Some(path) = &self.out {
            write_json(path, report)
                .with_context(|| format!("cannot write {} (the report above is complete)", path.display()))?;
        }
        Ok(exceeded.is_empty())
    }
}

/// Writes all or nothing: a file that was there before stays as it was until the new one is complete.
fn write_json(path: &Path, report: &Report) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let write = || {
        let mut file = std::fs::File::create(&partial)?;
        serde_json::to_writer_pretty(&mut file, report)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    write().inspect_err(|_| {
        // The error is what matters; a file that was never made cannot be removed.
        let _ = std::fs::remove_file(&partial);
    })
}
