//! What is checked and reported.

use std::time::Duration;

use pktgen::threshold::Threshold;
use pktgen::units;

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Measure latencies: CLOCK_MONOTONIC from writing a packet to taking it off the RX ring.
    #[arg(long, requires = "to")]
    pub(super) latency: bool,
    /// How long nothing must arrive after the last packet was sent, as 500ms or seconds.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = units::duration)]
    pub(super) drain: Duration,
    /// Exit with 3 where this holds: loss>0, rate<1e6, p99>50000 (latencies in ns). May be repeated.
    #[arg(long, value_name = "CONDITION")]
    pub(crate) fail_if: Vec<Threshold>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
