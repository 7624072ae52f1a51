//! What is checked and reported.

use std::time::Duration;

use clap::ValueEnum;
use pktgen::receive::{Check, Field, Options};
use pktgen::threshold::Threshold;
use pktgen::units;

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
    pub(crate) fail_if: Vec<Threshold>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl CheckArgs {
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
