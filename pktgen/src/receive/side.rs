//! The receiving side as a whole: program, sockets and threads on one interface.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use core_affinity::CoreId;

use super::check::{Extents, Sequence};
use super::judge::Reference;
use super::redirect::{Arrivals, Redirect, RedirectError};
use super::{Check, Checkers, Options, Received, Receiving, receive, wait};
use crate::interface::{Interface, InterfaceError};
use crate::progress::Progress;
use crate::report::Endpoint;
use crate::umem::{self, OpenError, Receiver};

/// How long a link may take to come back after a program was attached.
const LINK_PATIENCE: Duration = Duration::from_secs(10);
/// How often the live counts are brought up to date, and an end is noticed.
const LOOK: Duration = Duration::from_millis(20);
/// Packets that may wait for the receiver, on all queues together: 16 ms at a million a second.
const DEPTH: u32 = 16384;
/// And on each queue at least.
const DEPTH_MIN: u32 = 2048;
/// Room in front of a packet for the note of its arrival.
const NOTE_LEN: usize = 16;

/// Why nothing can be received, or receiving broke off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SideError {
    /// The interface does not answer.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// Packets cannot be taken from it.
    #[error(transparent)]
    Redirect(#[from] RedirectError),
    /// A socket cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A thread cannot run where it should.
    #[error("cannot receive on core {0}: is it online, and allowed by taskset or cgroup?")]
    Pin(usize),
    /// The kernel refused.
    #[error("receiving on {interface} failed: {source}")]
    Receive {
        /// Interface.
        interface: String,
        /// What it answered.
        source: io::Error,
    },
    /// A thread panicked.
    #[error("a receiving thread panicked")]
    Thread,
}

/// One interface to receive on.
#[derive(Debug)]
pub struct Side {
    interface: Interface,
    redirect: Redirect,
    receivers: BTreeMap<u32, Receiver>,
    zero_copy: bool,
    options: Options,
}

/// What was received.
#[derive(Debug)]
pub struct Outcome {
    /// What XDP counted.
    pub delivered: Arrivals,
    /// What came to user space; none where it was only counted.
    pub judged: Option<Judged>,
    /// How the interface fared.
    pub link: Link,
}

/// How the receiving interface fared during a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Link {
    /// Times that it went down or lost its carrier.
    pub outages: u64,
    /// It has vanished, which ended the run.
    pub gone: bool,
}

/// Looks at an interface from time to time.
#[derive(Debug, Default)]
struct Watch {
    link: Link,
    down: bool,
}

impl Watch {
    fn look(&mut self, interface: &Interface, progress: &Progress) {
        match interface.is_running() {
            Ok(running) => {
                self.link.outages += u64::from(!running && !self.down);
                self.down = !running;
            }
            Err(_) => {
                self.link.gone = true;
                progress.stop();
            }
        }
    }
}

/// What came to user space.
#[derive(Debug)]
pub struct Judged {
    /// All threads together.
    pub received: Received,
    /// Totals of the sequence numbers.
    pub sequence: Sequence,
    /// How far packets were reordered.
    pub extents: Extents,
    /// Sequence numbers by flow.
    pub checkers: Checkers,
}

impl Side {
    /// Attaches the program to `interface`.
    ///
    /// # Errors
    /// [`SideError`].
    pub fn attach(interface: Interface, magic: u32, options: &Options) -> Result<Self, SideError> {
        let redirect = Redirect::attach(&interface, magic, options)?;
        Ok(Self { interface, redirect, receivers: BTreeMap::new(), zero_copy: true, options: options.clone() })
    }

    /// The interface.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Takes the receiving half of a socket that is bound to `queue` already: there can be no other.
    pub fn adopt(&mut self, queue: u32, receiver: Receiver, zero_copy: bool) {
        self.zero_copy &= zero_copy;
        self.receivers.insert(queue, receiver);
    }

    /// Opens a socket for every queue that has none, registers all and waits until the link is up. `longest` is the longest
    /// packet in bytes.
    ///
    /// # Errors
    /// [`SideError`].
    pub fn open(&mut self, longest: usize) -> Result<(), SideError> {
        if self.options.check == Check::Full {
            let queues = self.interface.rx_queues();
            let depth = (DEPTH / queues).clamp(DEPTH_MIN, DEPTH);
            for queue in 0..queues {
                if !self.receivers.contains_key(&queue) {
                    let opened = umem::open_deep(self.interface.name(), queue, longest + NOTE_LEN, depth)?;
                    self.adopt(queue, opened.receiver, opened.zero_copy);
                }
            }
            for (queue, receiver) in &self.receivers {
                self.redirect.register(*queue, receiver)?;
            }
        }
        Ok(self.interface.wait_running(LINK_PATIENCE)?)
    }

    /// What it is, for the report.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            interface: self.interface.name().to_owned(),
            driver: self.interface.driver(),
            zero_copy: self.zero_copy && !self.receivers.is_empty(),
            xdp_mode: Some(self.redirect.mode()),
        }
    }

    /// Packets of this run that the interface has delivered so far.
    ///
    /// # Errors
    /// The counts cannot be read.
    pub fn delivered(&self) -> Result<Arrivals, RedirectError> {
        self.redirect.arrivals()
    }

    /// Receives until `sent_all` is set and silence has followed. One thread for each of `cores`; without any, `threads`
    /// of them wherever the scheduler puts them, and never more than there are queues.
    ///
    /// # Errors
    /// [`SideError`].
    pub fn run(
        &mut self,
        reference: &dyn Reference,
        magic: u32,
        sent_all: &AtomicBool,
        progress: &Progress,
        cores: &[usize],
        threads: usize,
    ) -> Result<Outcome, SideError> {
        let threads = if cores.is_empty() { threads } else { cores.len() }.clamp(1, self.receivers.len().max(1));
        let checkers = Checkers::new(reference.flows(), threads);
        let last_ns = AtomicU64::new(0);
        let options = self.options.clone();
        let run = Receiving {
            reference,
            magic,
            options: &options,
            checkers: &checkers,
            sent_all,
            last_ns: &last_ns,
            progress,
        };
        if self.options.check != Check::Full {
            let mut watch = Watch::default();
            wait(&run, || self.look(&run, &mut watch))?;
            return Ok(Outcome { delivered: self.redirect.arrivals()?, judged: None, link: watch.link });
        }
        let (received, link) = self.receive(&run, cores, threads)?;
        let (sequence, extents) = checkers.totals();
        let delivered = self.redirect.arrivals()?;
        Ok(Outcome { delivered, judged: Some(Judged { received, sequence, extents, checkers }), link })
    }

    /// The receiving threads, while this one looks on.
    fn receive(&mut self, run: &Receiving<'_>, cores: &[usize], threads: usize) -> Result<(Received, Link), SideError> {
        let mut shares: Vec<Vec<Receiver>> = (0..threads).map(|_| Vec::new()).collect();
        for ((_, receiver), thread) in std::mem::take(&mut self.receivers).into_iter().zip((0..threads).cycle()) {
            if let Some(share) = shares.get_mut(thread) {
                share.push(receiver);
            }
        }
        let name = self.interface.name();
        std::thread::scope(|scope| {
            let mut running = Vec::new();
            for (mut share, thread) in shares.into_iter().zip(0..) {
                let core = cores.get(thread).copied();
                running.push(scope.spawn(move || {
                    if let Some(id) = core.filter(|id| !core_affinity::set_for_current(CoreId { id: *id })) {
                        return Err(SideError::Pin(id));
                    }
                    let received = receive(&mut share, run);
                    received.map_err(|source| SideError::Receive { interface: name.to_owned(), source })
                }));
            }
            let mut watch = Watch::default();
            while running.iter().any(|thread| !thread.is_finished()) {
                std::thread::sleep(LOOK);
                self.look(run, &mut watch).inspect_err(|_| run.progress.stop())?;
            }
            let ended: Vec<_> =
                running.into_iter().map(|thread| thread.join().unwrap_or(Err(SideError::Thread))).collect();
            let mut all = Received::default();
            ended.into_iter().try_for_each(|one| one.map(|one| all.merge(one)))?;
            Ok((all, watch.link))
        })
    }

    /// Brings the live counts up to date; packets delivered so far.
    fn look(&self, run: &Receiving<'_>, watch: &mut Watch) -> Result<u64, SideError> {
        watch.look(&self.interface, run.progress);
        let arrivals = self.redirect.arrivals()?;
        run.progress.delivered(arrivals.packets, arrivals.bytes);
        run.progress.sequence(run.checkers.totals().0);
        Ok(arrivals.packets)
    }
}
