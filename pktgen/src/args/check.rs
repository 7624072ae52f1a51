//! What is checked and reported.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use pktgen::receive::{Check, Field, Options};
use pktgen::threshold::Threshold;
use pktgen::units;

use crate::output::{self, Output};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CheckArg {
    Full,
    Count,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// How packets are checked: each one compared with what was sent, or only counted in XDP, for the highest rates.
    #[arg(long, value_enum, default_value = "full", value_name = "HOW")]
    check: CheckArg,
    /// Header fields that the network is meant to change: src, dst, sport, dport, dscp, ecn, flags, ttl_raised, other.
    #[arg(long, value_name = "FIELD,...", value_delimiter = ',', requires = "to")]
    expect_rewrite: Vec<Field>,
    /// Measure latencies: CLOCK_MONOTONIC from writing a packet to its arrival in XDP.
    #[arg(long, requires = "to")]
    latency: bool,
    /// Never sleep while receiving: shorter latencies for a core at full load.
    #[arg(long, requires = "to")]
    busy: bool,
    /// How long nothing must arrive after the last packet was sent, as 500ms or seconds.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = units::duration)]
    drain: Duration,
    /// Exit with 3 where this holds: loss>0, rate<1e6, p99>50000 (latencies in ns). May be repeated.
    #[arg(long, value_name = "CONDITION")]
    fail_if: Vec<Threshold>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print a line of JSON every second, `{"progress": ...}`, and in the end `{"report": ...}`.
    #[arg(long, conflicts_with = "json")]
    json_lines: bool,
    /// Show the run on the terminal as it goes; q ends it.
    #[arg(long, conflicts_with = "json_lines")]
    pub(crate) tui: bool,
    /// Write the report as JSON to a file, too.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the latencies to a file: HdrHistogram percentiles where it ends in .hgrm, else its interval log (V2, compressed).
    #[arg(long, value_name = "FILE", requires = "latency")]
    hdr: Option<PathBuf>,
}

impl CheckArgs {
    /// Where the report goes. Files are tried now: an hour's run must not end in an error that could be known before.
    pub(crate) fn output(&self) -> anyhow::Result<Output> {
        for path in self.out.iter().chain(&self.hdr) {
            output::require_writable(path)?;
        }
        Ok(Output {
            json: self.json,
            json_lines: self.json_lines,
            out: self.out.clone(),
            hdr: self.hdr.clone(),
            fail_if: self.fail_if.clone(),
        })
    }

    /// What the receiving side is to do.
    pub(super) fn options(&self) -> Options {
        let check = match self.check {
            CheckArg::Full => Check::Full,
            CheckArg::Count => Check::Count,
        };
        Options {
            check,
            latency: self.latency,
            expect: self.expect_rewrite.iter().copied().collect(),
            drain: self.drain,
            busy: self.busy,
        }
    }
}
