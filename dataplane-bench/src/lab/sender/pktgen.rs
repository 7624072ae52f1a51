//! pktgen as the generator of trials, in this process.

use std::time::Duration;

use anyhow::Context as _;
use packet::layer::Mac;
use pktgen::backend::Backend;
use pktgen::pace::{Pace, Shape, Unit};
use pktgen::progress::Progress;
use pktgen::receive::Options;
use pktgen::run::Config;
use pktgen::scenario::quick::{Families, Quick};
use pktgen::scenario::{Scenario, Sizes, Stream};
use pktgen::send::Limit;

use super::Sent;
use crate::lab::traffic::{FIRST_PORT, Traffic};

/// How traffic is offered.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Packets a second; as many as go where absent.
    pub(crate) pps: Option<f64>,
    /// When to stop, whichever comes first.
    pub(crate) duration: Duration,
    /// The same in packets.
    pub(crate) packets: Option<u64>,
    /// A sending thread each.
    pub(crate) cores: Vec<usize>,
    /// The way to the wire; pktgen's choice where absent.
    pub(crate) backend: Option<Backend>,
    /// Every packet bears the time at which it leaves, as exactly as the back end knows it.
    pub(crate) timed: bool,
    /// Instead of `pps`: packets a second and for how long, one after the other.
    pub(crate) steps: Vec<(f64, Duration)>,
}

/// How a back end sends.
pub(crate) fn about(backend: Backend) -> &'static str {
    match backend {
        Backend::Live => "XDP live frames (BPF_PROG_TEST_RUN)",
        Backend::Xsk => "AF_XDP TX ring, copied by the kernel on veth",
        Backend::Packet => "AF_PACKET TX ring, no queueing discipline",
    }
}

/// Sends from an interface of the caller's namespace; `progress` can end it early.
///
/// # Errors
/// Those of pktgen.
pub(crate) fn send(from: &str, to: Mac, traffic: &Traffic, load: &Load, progress: &Progress) -> anyhow::Result<Sent> {
    let report = pktgen::run::run_watched(config(from, to, traffic, load)?, progress).context("pktgen")?;
    Ok(Sent { packets: report.sent.packets, seconds: report.sent.seconds })
}

fn pace(load: &Load) -> Pace {
    match load.pps {
        _ if !load.steps.is_empty() => Pace { shape: Shape::Steps { steps: load.steps.clone() }, unit: Unit::Packets },
        Some(pps) => Pace::constant_pps(pps),
        None => Pace::MAX,
    }
}

fn config(from: &str, to: Mac, traffic: &Traffic, load: &Load) -> Result<Config, Families> {
    let quick = Quick { sport: FIRST_PORT, dport: traffic.port, ..Quick::udp(traffic.source, traffic.destination) };
    let sizes = Sizes::one(traffic.frame_bytes);
    let stream = Stream { flows: traffic.flows, sizes, ..quick.stream()? };
    Ok(Config {
        from: from.to_owned(),
        to: None,
        via: None,
        scenario: Scenario::one(stream),
        src_mac: None,
        dst_mac: Some(to),
        pace: pace(load),
        of_maximum: false,
        replay: None,
        backend: load.backend,
        limit: Limit { count: load.packets, duration: Some(load.duration) },
        queues: (0..u32::try_from(load.cores.len()).unwrap_or(1)).collect(),
        cores: load.cores.clone(),
        receive: Options { latency: load.timed, ..Options::default() },
    })
}
