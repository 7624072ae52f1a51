//! A run: sockets, program, threads, report.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use packet::layer::Mac;

use crate::backend::{Backend, TxError};
use crate::interface::{Interface, InterfaceError};
use crate::pace::{Pace, PaceError};
use crate::packets::{PacketSource, Packets};
use crate::progress::Progress;
use crate::receive::end::{End, EndError, Found};
use crate::receive::side::{Judged, SideError};
use crate::receive::{Check, Options};
use crate::replay::{CaptureError, Replay};
use crate::report::{Endpoint, LostFlow, Report, StreamReport};
use crate::scenario::Scenario;
use crate::send::{Limit, Sent};
use crate::traffic::{Plan, PlanSource, Share, TrafficError};
use crate::transmit::{self, TransmitError, Transmitters};

/// How long a link may take to come back after a program was attached.
const LINK_PATIENCE: Duration = Duration::from_secs(10);
/// Flows with loss that a report names.
const LOST_FLOWS_MAX: usize = 10;
/// The run that finds out what goes at most.
const MAXIMUM_TIME: Duration = Duration::from_millis(500);

/// What to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Interface to send on.
    pub from: String,
    /// Interface to receive on; none: only send.
    pub to: Option<String>,
    /// Command that runs its arguments where that interface is, `ssh root@far`; none: it is here.
    pub via: Option<String>,
    /// The packets.
    pub scenario: Scenario,
    /// A capture whose frames are sent in place of these packets; they are only counted when they arrive.
    pub replay: Option<Replay>,
    /// Ethernet source of frames that were described without; none: the interface's own.
    pub src_mac: Option<Mac>,
    /// Their destination, the first router; none: the interface to receive on.
    pub dst_mac: Option<Mac>,
    /// How fast, all threads together.
    pub pace: Pace,
    /// The rates of the pace are shares of what goes at most, which a short run finds out first.
    pub of_maximum: bool,
    /// How to send; `None`: what [`choose`] says.
    pub backend: Option<Backend>,
    /// When to stop.
    pub limit: Limit,
    /// Queues to send on, one thread each. Only AF_XDP is bound to a queue; for other back ends it is their number that counts.
    pub queues: Vec<u32>,
    /// Cores for the sending threads in their order, then for the receiving ones; empty: wherever the scheduler puts them.
    pub cores: Vec<usize>,
    /// What the receiving side does.
    pub receive: Options,
}

/// Why a run did not take place, or broke off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The packets cannot be made.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// Frames without a destination.
    #[error("--dst-mac is missing: give the Ethernet address of the first router, or an interface to receive on")]
    NoDestination,
    /// The interface does not take a frame of the capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// An interface does not answer.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// Nothing can be sent.
    #[error(transparent)]
    Transmit(#[from] TransmitError),
    /// Not a pace.
    #[error(transparent)]
    Pace(#[from] PaceError),
    /// Nothing can be received, or receiving broke off.
    #[error(transparent)]
    Receive(#[from] EndError),
    /// No queue, or more than flows.
    #[error("{queues} sending queues for {flows} flows: give at least one queue, and a flow for each")]
    Queues {
        /// Queues.
        queues: usize,
        /// Flows.
        flows: u32,
    },
    /// Not a core for each thread.
    #[error("{threads} threads need {threads} cores or, to receive on several queues, more, but --cores names {cores}")]
    Cores {
        /// Threads.
        threads: usize,
        /// Cores.
        cores: usize,
    },
    /// A core for both.
    #[error("core {0} is given to a sending and a receiving thread: each would measure how the other is scheduled")]
    SharedCore(usize),
    /// Sending broke off.
    #[error("sending on {interface} failed: {source}")]
    Send {
        /// Interface.
        interface: String,
        /// Why.
        source: TxError,
    },
}

/// Runs to the end and reports.
///
/// # Errors
/// [`RunError`].
pub fn run(config: Config) -> Result<Report, RunError> {
    run_watched(config, &Progress::default())
}

/// The same, with counts that others may read while it runs, and the means to end it early.
///
/// # Errors
/// [`RunError`].
pub fn run_watched(mut config: Config, progress: &Progress) -> Result<Report, RunError> {
    let maximum_pps = if config.of_maximum { Some(maximum(&config, progress)?) } else { None };
    if let Some(maximum) = maximum_pps {
        config.pace = config.pace.times(maximum);
    }
    config.pace.check()?;
    let senders = config.queues.len();
    let from = Interface::new(&config.from)?;
    let to = config.to.as_deref().map(|to| Found::new(to, config.via.as_deref(), &config.receive)).transpose()?;
    if let Some(replay) = &config.replay {
        replay.fits(from.mtu()?)?;
        config.receive.check = Check::Any;
    } else if config.scenario.wants_eth() {
        let src = config.src_mac.map_or_else(|| from.mac(), Ok)?;
        let dst = match (config.dst_mac, &to) {
            (Some(mac), _) => mac,
            (None, Some(to)) => to.mac()?,
            (None, None) => return Err(RunError::NoDestination),
        };
        config.scenario.fill_eth(src, dst);
    }
    let (sending_cores, receiving_cores) = cores(&config)?;
    let magic = magic();
    let packets = Packets::new(&config.scenario, config.replay.as_ref(), magic)?;
    let flows = packets.plan().map_or(u32::MAX, Plan::flows);
    let threads = u32::try_from(senders).ok().filter(|threads| (1..=flows).contains(threads));
    let threads = threads.ok_or(RunError::Queues { queues: senders, flows })?;
    // A stream with too few flows for the threads is known before anything is sent.
    let source = |thread| packets.source(Share { thread, threads }, config.limit.count);
    let sources = (0..threads).map(source).collect::<Result<Vec<_>, _>>()?;
    let longest = packets.longest();
    let attach = |to: Found| to.attach(&config.scenario, packets.plan(), magic, &config.receive);
    let mut end = to.map(attach).transpose()?;
    // Only now: whether a veth takes redirected frames depends on the program at its other end.
    let how = transmit::Plan {
        interface: &from,
        backend: config.backend,
        queues: &config.queues,
        cores: sending_cores,
        pace: &config.pace,
        late_stamps: config.receive.latency,
    };
    // On the interface that receives, the other halves of sending sockets receive.
    let mut shared = end.as_mut().and_then(End::here).filter(|side| side.interface().index() == from.index());
    let transmitters = Transmitters::open(how, longest, |queue, receiver, zero_copy| match &mut shared {
        Some(side) => {
            side.adopt(queue, receiver, zero_copy);
            None
        }
        None => Some(receiver),
    })?;
    if let Some(side) = end.as_mut().and_then(End::here) {
        side.open(longest).map_err(EndError::from)?;
    }
    from.wait_running(LINK_PATIENCE)?;

    let to = end.as_ref().map(End::endpoint);
    progress.name_streams(packets.plan().into_iter().flat_map(Plan::streams).map(|stream| stream.name.to_owned()));
    let sent_all = AtomicBool::new(false);
    let zero_copy = transmitters.zero_copy();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (sent, received) = std::thread::scope(|scope| {
        let receiving = end.as_mut().map(|end| {
            let (reference, sent_all) = (packets.reference(), &sent_all);
            let threads = cores.saturating_sub(senders);
            scope.spawn(move || end.run(reference, magic, sent_all, progress, receiving_cores, threads))
        });
        let sent = transmitters.send(sources.into_iter().map(|source| (source, None)), config.limit, progress);
        // Before anything is returned, so that the receiver always learns that it may stop.
        sent_all.store(true, Ordering::Release);
        let received = receiving.map(|thread| thread.join().unwrap_or(Err(SideError::Thread.into())));
        Ok::<_, RunError>((sent?, received.transpose()?))
    })?;
    let (mut threads, sources): (Vec<Sent>, Vec<PacketSource>) = sent.threads.into_iter().unzip();
    let sources: Vec<PlanSource> = sources.into_iter().filter_map(PacketSource::plan).collect();
    if let Some(source) = threads.iter_mut().find(|sent| sent.packets == 0).and_then(|sent| sent.broke_off.take()) {
        return Err(RunError::Send { interface: config.from.clone(), source });
    }
    let threads: Vec<&Sent> = threads.iter().collect();
    let judged = received.as_ref().and_then(|received| received.judged.as_ref());
    let streams = packets.plan().map_or_else(Vec::new, |plan| streams(plan, &sources, judged));
    let mut report = Report::new(&config.pace, sent.sending, &threads, received.as_ref(), streams);
    report.seed = packets.plan().map_or(0, Plan::seed);
    report.pace.maximum_pps = maximum_pps;
    report.from = Endpoint { interface: from.name().to_owned(), driver: from.driver(), zero_copy, xdp_mode: None };
    report.to = to;
    let lost = packets.plan().zip(judged).map(|(plan, judged)| lost_flows(plan, &sources, judged));
    report.lost_flows = lost.unwrap_or_default();
    Ok(report)
}

/// How many packets of this traffic a second the interface takes, the receiving side as in the run itself.
fn maximum(config: &Config, progress: &Progress) -> Result<f64, RunError> {
    let config = Config {
        pace: Pace::MAX,
        of_maximum: false,
        limit: Limit { count: None, duration: Some(MAXIMUM_TIME) },
        ..config.clone()
    };
    // With counts of its own: nobody looks on.
    let own = Progress::default();
    if progress.stopped() {
        own.stop();
    }
    let report = run_watched(config, &own)?;
    let dropped = report.sending.interface.map_or(0, |counts| counts.dropped);
    let taken = report.sent.packets.saturating_sub(dropped).max(1);
    Ok(taken as f64 / report.sent.seconds.max(1e-9))
}

/// The cores of the sending threads, and those behind them. A receiver on a sender's core would judge the scheduler.
fn cores(config: &Config) -> Result<(&[usize], &[usize]), RunError> {
    let receives = config.to.is_some() && config.via.is_none();
    let wanted = config.queues.len() + usize::from(receives);
    if config.cores.is_empty() {
        return Ok((&[], &[]));
    }
    let Some((sending, receiving)) =
        config.cores.split_at_checked(config.queues.len()).filter(|(_, rest)| receives != rest.is_empty())
    else {
        return Err(RunError::Cores { threads: wanted, cores: config.cores.len() });
    };
    match receiving.iter().find(|core| sending.contains(core)) {
        Some(core) => Err(RunError::SharedCore(*core)),
        None => Ok((sending, receiving)),
    }
}

/// Different in every run, so that stragglers of an earlier one are not counted.
fn magic() -> u32 {
    let mixed = crate::clock::now_ns() ^ u64::from(std::process::id()) << 20;
    crate::clock::low_bits(mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) | 1
}

/// What became of each stream.
fn streams(plan: &Plan, sources: &[PlanSource], judged: Option<&Judged>) -> Vec<StreamReport> {
    let mut streams: Vec<StreamReport> = plan
        .streams()
        .map(|stream| StreamReport {
            name: stream.name.to_owned(),
            flows: stream.flows.end - stream.flows.start,
            stamped: stream.stamped,
            packets: 0,
            bytes: 0,
            arrived: judged
                .filter(|_| stream.stamped)
                .map(|judged| stream.flows.map(|flow| judged.checkers.arrivals(flow)).sum()),
        })
        .collect();
    for source in sources {
        for (stream, written) in streams.iter_mut().zip(source.written()) {
            stream.packets += written.packets;
            stream.bytes += written.bytes;
        }
    }
    streams
}

/// The flows that lost most.
fn lost_flows(plan: &Plan, sources: &[PlanSource], judged: &Judged) -> Vec<LostFlow> {
    let mut lost: Vec<(u64, u32, u64)> = plan
        .streams()
        .filter(|stream| stream.stamped)
        .flat_map(|stream| stream.flows)
        .filter_map(|flow| {
            let sent: u64 = sources.iter().filter_map(|source| source.sent_of(flow)).sum();
            let lost = sent.saturating_sub(judged.checkers.arrivals(flow));
            (lost > 0).then_some((lost, flow, sent))
        })
        .collect();
    lost.sort_by_key(|(lost, flow, _)| (std::cmp::Reverse(*lost), *flow));
    lost.truncate(LOST_FLOWS_MAX);
    lost.into_iter()
        .filter_map(|(lost, flow, sent)| {
            let (source, port) = plan.endpoint(flow)?;
            Some(LostFlow { flow, source, port, sent, lost })
        })
        .collect()
}
