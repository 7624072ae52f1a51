//! How fast, for how long, and from which cores.

use std::time::Duration;

use anyhow::bail;
use pktgen::backend::Backend;
use pktgen::pace::Pace;
use pktgen::send::Limit;
use pktgen::units;

#[derive(Debug, clap::Args)]
pub(super) struct PaceArgs {
    /// Packets a second (250k, 1.5M), or `max`.
    #[arg(long = "pps", alias = "rate", id = "rate", value_name = "PPS", default_value = "max", value_parser = rate)]
    rate: Rate,
    /// Stop after this many packets.
    #[arg(long, value_name = "N", value_parser = units::count)]
    count: Option<u64>,
    /// Stop after this time: 10s, 500ms, or seconds.
    #[arg(long = "for", id = "duration", value_name = "TIME", value_parser = units::duration)]
    duration: Option<Duration>,
    /// How to send: xsk (AF_XDP), live (XDP live frames), packet (AF_PACKET TX ring), or auto, by what the driver can.
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = backend)]
    backend: Choice,
    /// Queues to send on, one thread each.
    #[arg(long, value_name = "QUEUE,...", value_delimiter = ',', default_value = "0")]
    pub(super) queues: Vec<u32>,
    /// Cores for the sending threads in their order, then for the receiving one.
    #[arg(long, value_name = "CORE,...", value_delimiter = ',')]
    pub(super) cores: Vec<usize>,
}

/// Packets a second; none: as many as go.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rate(Option<f64>);

/// A back end; none: as the interface's driver allows.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Choice(Option<Backend>);

impl PaceArgs {
    /// How fast.
    pub(super) fn pace(&self) -> Pace {
        self.rate.0.map_or(Pace::MAX, Pace::constant_pps)
    }

    /// How to send; none: as the interface's driver allows.
    pub(super) fn backend(&self) -> Option<Backend> {
        self.backend.0
    }

    /// When to stop.
    pub(super) fn limit(&self) -> Limit {
        Limit { count: self.count, duration: self.duration }
    }
}

fn rate(text: &str) -> anyhow::Result<Rate> {
    if text == "max" {
        return Ok(Rate(None));
    }
    let pps = units::number(text)?;
    if pps < 1.0 {
        bail!("write at least one packet a second, or max");
    }
    Ok(Rate(Some(pps)))
}

fn backend(text: &str) -> anyhow::Result<Choice> {
    Ok(Choice(if text == "auto" { None } else { Some(text.parse()?) }))
}
