//! A run: sockets, program, threads, report.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use core_affinity::CoreId;

use crate::interface::{Interface, InterfaceError};
use crate::progress::Progress;
use crate::receive::Options;
use crate::receive::side::{Judged, Side, SideError};
use crate::report::{Endpoint, LostFlow, Report};
use crate::send::{Limit, Sent, Share, send};
use crate::template::{Frames, Traffic, TrafficError};
use crate::umem::{self, OpenError, Receiver, Sender};

/// How long a link may take to come back after a program was attached.
const LINK_PATIENCE: Duration = Duration::from_secs(10);
/// Flows with loss that a report names.
const LOST_FLOWS_MAX: usize = 10;

/// What to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Interface to send on.
    pub from: String,
    /// Interface to receive on; none: only send.
    pub to: Option<String>,
    /// The packets; a source address of zeros becomes the interface's own.
    pub traffic: Traffic,
    /// Packets a second, all threads together; `None`: as many as go.
    pub rate_pps: Option<f64>,
    /// When to stop.
    pub limit: Limit,
    /// Queues to send on, one thread each.
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
    /// An interface does not answer.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// A socket cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nothing can be received, or receiving broke off.
    #[error(transparent)]
    Receive(#[from] SideError),
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
    /// A thread cannot run where it should.
    #[error("cannot run on core {0}: is it online, and allowed by taskset or cgroup?")]
    Pin(usize),
    /// Sending broke off.
    #[error("sending on {interface} failed: {source} (has it gone down?)")]
    Send {
        /// Interface.
        interface: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A thread panicked.
    #[error("a thread of the run panicked")]
    Thread,
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
    let flows = config.traffic.flows;
    let senders = config.queues.len();
    let share_count = u32::try_from(senders).ok().filter(|count| (1..=flows).contains(count));
    let step = share_count.ok_or(RunError::Queues { queues: senders, flows })?;
    let from = Interface::new(&config.from)?;
    if config.traffic.src_mac == [0; 6] {
        config.traffic.src_mac = from.mac()?;
    }
    let receiving_cores = receiving_cores(&config)?;
    let magic = magic();
    let frames = Frames::new(config.traffic.clone(), magic)?;
    let to = config.to.as_deref().map(Interface::new).transpose()?;
    let mut side = to.map(|to| Side::attach(to, magic, &config.receive)).transpose()?;
    let mut sockets = Sockets::open(&from, &config.queues, side.as_mut(), frames.longest())?;
    if let Some(side) = &mut side {
        side.open(frames.longest())?;
    }
    from.wait_running(LINK_PATIENCE)?;

    let to = side.as_ref().map(Side::endpoint);
    let sent_all = AtomicBool::new(false);
    let sending_sockets = sockets.take_senders();
    let config = &config;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (sent, received) = std::thread::scope(|scope| {
        let receiving = side.as_mut().map(|side| {
            let (frames, sent_all) = (&frames, &sent_all);
            let threads = cores.saturating_sub(senders);
            scope.spawn(move || side.run(frames, magic, sent_all, progress, receiving_cores, threads))
        });
        let frames = &frames;
        let mut sending = Vec::new();
        for ((mut sender, first), thread) in sending_sockets.into_iter().zip(0..step).zip(0..) {
            let sending_core = config.cores.get(thread).copied();
            sending.push(scope.spawn(move || {
                pin(sending_core)?;
                let rate = config.rate_pps.map(|rate| rate / f64::from(step));
                let share = Share { first, step, flows };
                send(&mut sender, frames, share, config.limit, rate, config.receive.latency, progress)
                    .map_err(|source| RunError::Send { interface: config.from.clone(), source })
            }));
        }
        // All are joined before anything is returned, so that the receiver always learns that it may stop.
        let sent: Vec<_> = sending.into_iter().map(|thread| thread.join().unwrap_or(Err(RunError::Thread))).collect();
        sent_all.store(true, Ordering::Release);
        let received = receiving.map(|thread| thread.join().unwrap_or(Err(SideError::Thread)));
        Ok::<_, RunError>((sent.into_iter().collect::<Result<Vec<Sent>, _>>()?, received.transpose()?))
    })?;
    let mut report = Report::new(&frames, config.rate_pps, &sent, received.as_ref());
    report.from = sockets.endpoint(&from);
    report.to = to;
    let judged = received.as_ref().and_then(|received| received.judged.as_ref());
    report.lost_flows = judged.map_or_else(Vec::new, |judged| lost_flows(&frames, &sent, judged));
    Ok(report)
}

/// The cores behind those of the sending threads. A receiver on a sender's core would judge the scheduler.
fn receiving_cores(config: &Config) -> Result<&[usize], RunError> {
    let wanted = config.queues.len() + usize::from(config.to.is_some());
    if config.cores.is_empty() {
        return Ok(&[]);
    }
    let Some((sending, receiving)) =
        config.cores.split_at_checked(config.queues.len()).filter(|(_, rest)| config.to.is_none() != rest.is_empty())
    else {
        return Err(RunError::Cores { threads: wanted, cores: config.cores.len() });
    };
    match receiving.iter().find(|core| sending.contains(core)) {
        Some(core) => Err(RunError::SharedCore(*core)),
        None => Ok(receiving),
    }
}

/// Different in every run, so that stragglers of an earlier one are not counted.
fn magic() -> u32 {
    let mixed = crate::clock::now_ns() ^ u64::from(std::process::id()) << 20;
    crate::clock::low_bits(mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) | 1
}

fn pin(core: Option<usize>) -> Result<(), RunError> {
    match core {
        Some(id) if !core_affinity::set_for_current(CoreId { id }) => Err(RunError::Pin(id)),
        _ => Ok(()),
    }
}

/// The flows that lost most.
fn lost_flows(frames: &Frames, sent: &[Sent], judged: &Judged) -> Vec<LostFlow> {
    let mut lost: Vec<LostFlow> = (0..frames.traffic().flows)
        .filter_map(|flow| {
            let sent: u64 = sent.iter().filter_map(|thread| thread.of_flow(flow)).sum();
            let lost = sent.saturating_sub(judged.checkers.arrivals(flow));
            let (source, port) = frames.source(flow);
            (lost > 0).then_some(LostFlow { flow, source, port, sent, lost })
        })
        .collect();
    lost.sort_by_key(|flow| (std::cmp::Reverse(flow.lost), flow.flow));
    lost.truncate(LOST_FLOWS_MAX);
    lost
}

/// The sockets that send. On the interface that receives, their other halves receive.
struct Sockets {
    senders: Vec<Sender>,
    /// The other halves of sockets that only send.
    idle: Vec<Receiver>,
    zero_copy: bool,
}

impl Sockets {
    fn open(from: &Interface, queues: &[u32], side: Option<&mut Side>, longest: usize) -> Result<Self, RunError> {
        let mut sockets = Self { senders: Vec::new(), idle: Vec::new(), zero_copy: true };
        let mut shared = side.filter(|side| side.interface().index() == from.index());
        for queue in queues {
            let opened = umem::open(from.name(), *queue, longest)?;
            sockets.zero_copy &= opened.zero_copy;
            sockets.senders.push(opened.sender);
            match &mut shared {
                Some(side) => side.adopt(*queue, opened.receiver, opened.zero_copy),
                None => sockets.idle.push(opened.receiver),
            }
        }
        Ok(sockets)
    }

    fn take_senders(&mut self) -> Vec<Sender> {
        std::mem::take(&mut self.senders)
    }

    fn endpoint(&self, interface: &Interface) -> Endpoint {
        Endpoint {
            interface: interface.name().to_owned(),
            driver: interface.driver(),
            zero_copy: self.zero_copy,
            xdp_mode: None,
        }
    }
}
