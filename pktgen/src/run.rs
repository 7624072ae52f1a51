//! A run: sockets, program, threads, report.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use core_affinity::CoreId;

use crate::interface::{Interface, InterfaceError};
use crate::receive::{Received, receive};
use crate::redirect::{Redirect, RedirectError};
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
    /// Cores for the sending threads in their order, then the receiving one; empty: wherever the scheduler puts them.
    pub cores: Vec<usize>,
    /// Measure latencies.
    pub latency: bool,
    /// How long silence must last after the last packet was sent.
    pub drain: Duration,
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
    /// Packets cannot be taken from the receiving interface.
    #[error(transparent)]
    Redirect(#[from] RedirectError),
    /// No queue, or more than flows.
    #[error("{queues} sending queues for {flows} flows: give at least one queue, and a flow for each")]
    Queues {
        /// Queues.
        queues: usize,
        /// Flows.
        flows: u32,
    },
    /// Not a core for each thread.
    #[error("{threads} threads need {threads} cores, but --cores names {cores}")]
    Cores {
        /// Threads.
        threads: usize,
        /// Cores.
        cores: usize,
    },
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
    /// Receiving broke off.
    #[error("receiving failed: {0}")]
    Receive(io::Error),
    /// A thread panicked.
    #[error("a thread of the run panicked")]
    Thread,
}

/// Runs to the end and reports.
///
/// # Errors
/// [`RunError`].
pub fn run(mut config: Config) -> Result<Report, RunError> {
    let flows = config.traffic.flows;
    let threads = config.queues.len() + usize::from(config.to.is_some());
    let share_count = u32::try_from(config.queues.len()).ok().filter(|count| (1..=flows).contains(count));
    let step = share_count.ok_or(RunError::Queues { queues: config.queues.len(), flows })?;
    if !config.cores.is_empty() && config.cores.len() != threads {
        return Err(RunError::Cores { threads, cores: config.cores.len() });
    }
    let from = Interface::new(&config.from)?;
    if config.traffic.src_mac == [0; 6] {
        config.traffic.src_mac = from.mac()?;
    }
    let magic = magic();
    let frames = Frames::new(config.traffic.clone(), magic)?;
    let to = config.to.as_deref().map(Interface::new).transpose()?;
    let redirect = to.as_ref().map(|to| Redirect::attach(to, magic)).transpose()?;
    let mut sockets = Sockets::open(&from, &config.queues, to.as_ref(), frames.longest())?;
    for (queue, receiver) in &sockets.receivers {
        if let Some(redirect) = &redirect {
            redirect.register(*queue, receiver)?;
        }
    }
    from.wait_running(LINK_PATIENCE)?;
    if let Some(to) = &to {
        to.wait_running(LINK_PATIENCE)?;
    }

    let sent_all = AtomicBool::new(false);
    let (senders, mut receivers) = (sockets.take_senders(), sockets.take_receivers());
    let config = &config;
    let core = |thread: usize| config.cores.get(thread).copied();
    let receiving_core = core(threads - 1);
    let (sent, received) = std::thread::scope(|scope| {
        let receiving = to.as_ref().map(|_| {
            scope.spawn(|| {
                pin(receiving_core)?;
                receive(&mut receivers, magic, flows, config.latency, config.drain, &sent_all)
                    .map_err(RunError::Receive)
            })
        });
        let frames = &frames;
        let mut sending = Vec::new();
        for ((mut sender, first), thread) in senders.into_iter().zip(0..step).zip(0..) {
            let sending_core = core(thread);
            sending.push(scope.spawn(move || {
                pin(sending_core)?;
                let rate = config.rate_pps.map(|rate| rate / f64::from(step));
                let share = Share { first, step, flows };
                send(&mut sender, frames, share, config.limit, rate, config.latency)
                    .map_err(|source| RunError::Send { interface: config.from.clone(), source })
            }));
        }
        // All are joined before anything is returned, so that the receiver always learns that it may stop.
        let sent: Vec<_> = sending.into_iter().map(|thread| thread.join().unwrap_or(Err(RunError::Thread))).collect();
        sent_all.store(true, Ordering::Release);
        let received = receiving.map(|thread| thread.join().unwrap_or(Err(RunError::Thread)));
        Ok::<_, RunError>((sent.into_iter().collect::<Result<Vec<Sent>, _>>()?, received.transpose()?))
    })?;
    let mut report = Report::new(&frames, config.rate_pps, &sent, received.as_ref());
    report.from = sockets.endpoint(&from, None);
    report.to = to.as_ref().map(|to| sockets.endpoint(to, redirect.as_ref()));
    report.lost_flows = received.as_ref().map_or_else(Vec::new, |received| lost_flows(&frames, &sent, received));
    Ok(report)
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
fn lost_flows(frames: &Frames, sent: &[Sent], received: &Received) -> Vec<LostFlow> {
    let mut lost: Vec<LostFlow> = (0..frames.traffic().flows)
        .filter_map(|flow| {
            let sent: u64 = sent.iter().filter_map(|thread| thread.of_flow(flow)).sum();
            let lost = sent.saturating_sub(received.checker.arrivals(flow));
            let (source, port) = frames.source(flow);
            (lost > 0).then_some(LostFlow { flow, source, port, sent, lost })
        })
        .collect();
    lost.sort_by_key(|flow| (std::cmp::Reverse(flow.lost), flow.flow));
    lost.truncate(LOST_FLOWS_MAX);
    lost
}

/// All sockets of a run. Sending and receiving on one interface share them.
struct Sockets {
    senders: Vec<Sender>,
    /// Receiving queues of the interface to receive on.
    receivers: BTreeMap<u32, Receiver>,
    /// The other half of sockets that only send.
    idle: Vec<Receiver>,
    zero_copy: BTreeMap<String, bool>,
}

impl Sockets {
    fn open(from: &Interface, queues: &[u32], to: Option<&Interface>, longest: usize) -> Result<Self, RunError> {
        let mut sockets =
            Self { senders: Vec::new(), receivers: BTreeMap::new(), idle: Vec::new(), zero_copy: BTreeMap::new() };
        let mut open = |interface: &Interface, queue: u32| -> Result<(Sender, Receiver), OpenError> {
            let opened = umem::open(interface.name(), queue, longest)?;
            let all = sockets.zero_copy.entry(interface.name().to_owned()).or_insert(true);
            *all &= opened.zero_copy;
            Ok((opened.sender, opened.receiver))
        };
        let shared = to.is_some_and(|to| to.index() == from.index());
        for queue in queues {
            let (sender, receiver) = open(from, *queue)?;
            sockets.senders.push(sender);
            if shared {
                sockets.receivers.insert(*queue, receiver);
            } else {
                sockets.idle.push(receiver);
            }
        }
        if let Some(to) = to {
            for queue in 0..to.rx_queues() {
                if let Entry::Vacant(place) = sockets.receivers.entry(queue) {
                    let (_, receiver) = open(to, queue)?;
                    place.insert(receiver);
                }
            }
        }
        Ok(sockets)
    }

    fn take_senders(&mut self) -> Vec<Sender> {
        std::mem::take(&mut self.senders)
    }

    fn take_receivers(&mut self) -> Vec<Receiver> {
        std::mem::take(&mut self.receivers).into_values().collect()
    }

    fn endpoint(&self, interface: &Interface, redirect: Option<&Redirect>) -> Endpoint {
        Endpoint {
            interface: interface.name().to_owned(),
            driver: interface.driver(),
            zero_copy: self.zero_copy.get(interface.name()).copied().unwrap_or(false),
            xdp_mode: redirect.map(Redirect::mode),
        }
    }
}
