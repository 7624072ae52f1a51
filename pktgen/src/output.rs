//! Where a report goes: standard output, a file, the exit code.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pktgen::hdr;
use pktgen::progress::{Line, Progress};
use pktgen::report::Report;
use pktgen::threshold::Threshold;

/// Between two lines of `--json-lines`.
const LINE: Duration = Duration::from_secs(1);
/// How soon the end of a run is noticed.
const LOOK: Duration = Duration::from_millis(10);

/// One line of `--json-lines`.
#[derive(serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum LiveLine<'a> {
    Progress(&'a Line),
    Report(&'a Report),
}

/// A line that can be read at once.
fn json_line(out: &mut impl Write, line: &LiveLine<'_>) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, line).context("cannot write to standard output")?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// What is written, and where.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) json_lines: bool,
    pub(crate) out: Option<PathBuf>,
    pub(crate) hdr: Option<PathBuf>,
    pub(crate) fail_if: Vec<Threshold>,
}

/// Asks whether a file can be written before minutes are spent on what is to be in it.
pub(crate) fn require_writable(path: &Path) -> anyhow::Result<()> {
    let file = File::options().append(true).create(true).open(path);
    file.map(drop).with_context(|| format!("cannot write {}", path.display()))
}

impl Output {
    /// Waits for the end of the run; with `--json-lines`, says every second how far it is.
    pub(crate) fn watch(
        &self,
        progress: &Progress,
        ended: impl Fn() -> bool,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let mut before = progress.snapshot();
        let mut next = Instant::now() + LINE;
        while !ended() {
            std::thread::sleep(LOOK);
            if self.json_lines && Instant::now() >= next {
                next += LINE;
                let now = progress.snapshot();
                json_line(out, &LiveLine::Progress(&Line::between(&before, &now)))?;
                before = now;
            }
        }
        Ok(())
    }

    /// Prints the report, then writes the files, so that nothing is lost where they cannot be written. True where no condition of
    /// `--fail-if` holds.
    pub(crate) fn report(&self, report: &Report, out: &mut impl Write) -> anyhow::Result<bool> {
        if self.json_lines {
            json_line(out, &LiveLine::Report(report))?;
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
        for (path, content) in [(&self.out, Content::Report), (&self.hdr, Content::Latencies)] {
            if let Some(path) = path {
                write_file(path, |file| content.write(path, report, file))
                    .with_context(|| format!("cannot write {} (the report above is complete)", path.display()))?;
            }
        }
        Ok(exceeded.is_empty())
    }
}

#[derive(Clone, Copy)]
enum Content {
    Report,
    Latencies,
}

impl Content {
    fn write(self, path: &Path, report: &Report, file: &mut File) -> io::Result<()> {
        match self {
            Self::Report => {
                serde_json::to_writer_pretty(&mut *file, report)?;
                file.write_all(b"\n")
            }
            Self::Latencies => {
                let percentiles = path.extension().is_some_and(|extension| extension == "hgrm");
                let latency = report.received.as_ref().and_then(|received| received.checked.as_ref()?.latency.as_ref());
                match latency {
                    Some(latency) if percentiles => hdr::percentiles(&latency.histogram, file),
                    Some(latency) => hdr::interval_log(latency, file),
                    None => Err(io::Error::other("no latencies were measured")),
                }
            }
        }
    }
}

/// Writes all or nothing: a file that was there before stays as it was until the new one is complete. What is no regular file
/// (a pipe, a terminal) is written to as it is.
fn write_file(path: &Path, content: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    if !path.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return content(&mut File::create(path)?);
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let write = || {
        let mut file = File::create(&partial)?;
        content(&mut file)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    write().inspect_err(|_| {
        // The first error is what matters; a file that was never made cannot be removed.
        let _ = std::fs::remove_file(&partial);
    })
}
