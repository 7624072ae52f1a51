//! Sending threads: opens a back end for each, runs them together, and says what they did. What is sent is the sources' business,
//! what is received somebody else's.

use std::time::Duration;

use core_affinity::CoreId;

use crate::backend::live::{Live, LiveError};
use crate::backend::packet::{PacketError, PacketRing};
use crate::backend::xsk::Xsk;
use crate::backend::{Backend, Sending, Tx, choose};
use crate::clock::now_ns;
use crate::interface::{Interface, TxCounts};
use crate::pace::Pace;
use crate::progress::Progress;
use crate::send::{Job, Limit, Sent, send, together_ns};
use crate::source::Source;
use crate::umem::{self, OpenError, Receiver};

/// Threads need so long to start, so that they start together.
const START_NS: u64 = 2_000_000;
/// How long counters may lag behind.
const COUNTING_NS: u64 = 50_000_000;

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransmitError {
    /// There is no AF_XDP socket.
    #[error(transparent)]
    Xsk(#[from] OpenError),
    /// Live frames cannot be sent.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// There is no TX ring.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// A thread cannot run where it should.
    #[error("cannot run on core {0}: is it online, and allowed by taskset or cgroup?")]
    Pin(usize),
    /// A thread panicked.
    #[error("a sending thread panicked")]
    Thread,
}

/// How to send.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Interface to send on.
    pub interface: &'a Interface,
    /// How; `None`: what [`choose`] says.
    pub backend: Option<Backend>,
    /// One thread each. Only AF_XDP is bound to a queue; for other back ends their number counts.
    pub queues: &'a [u32],
    /// Cores of the threads; empty: wherever the scheduler puts them.
    pub cores: &'a [usize],
    /// How fast, all threads together.
    pub pace: &'a Pace,
    /// Write the time of departure into frames that have a place for it, where the back end knows it.
    pub late_stamps: bool,
}

/// One back end for each thread, open.
pub struct Transmitters<'a> {
    plan: Plan<'a>,
    choice: (Backend, String),
    all: Vec<Box<dyn Tx>>,
    zero_copy: bool,
}

impl std::fmt::Debug for Transmitters<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transmitters").field("plan", &self.plan).field("choice", &self.choice).finish_non_exhaustive()
    }
}

/// What was sent.
#[derive(Debug)]
pub struct Transmitted<S> {
    /// By each thread, and its source as it is afterwards.
    pub threads: Vec<(Sent, S)>,
    /// The sum, and what the interface says.
    pub sending: Sending,
}

impl<'a> Transmitters<'a> {
    /// Opens them for frames up to `longest` bytes. `adopt` may take the receiving halves of AF_XDP sockets, with their queue and
    /// whether they are zero-copy; what it gives back only keeps the fill ring populated.
    ///
    /// # Errors
    /// [`TransmitError`].
    pub fn open(
        plan: Plan<'a>,
        longest: usize,
        mut adopt: impl FnMut(u32, Receiver, bool) -> Option<Receiver>,
    ) -> Result<Self, TransmitError> {
        let choice = match plan.backend {
            Some(backend) => (backend, "as asked for".to_owned()),
            None => choose(plan.interface, longest),
        };
        let backend = choice.0;
        let threads = u32::try_from(plan.queues.len()).unwrap_or(u32::MAX);
        let batch = plan.pace.batch(threads, together_ns(plan.pace.gap_ns(threads)));
        let mut opened = Self { plan, choice, all: Vec::new(), zero_copy: backend == Backend::Xsk };
        for queue in plan.queues {
            let tx: Box<dyn Tx> = match backend {
                Backend::Live => Box::new(Live::new(plan.interface, longest, plan.late_stamps, batch)?),
                Backend::Packet => Box::new(PacketRing::new(plan.interface, longest)?),
                Backend::Xsk => {
                    let socket = umem::open(plan.interface.name(), *queue, longest)?;
                    opened.zero_copy &= socket.zero_copy;
                    let idle = adopt(*queue, socket.receiver, socket.zero_copy);
                    Box::new(Xsk::new(socket.sender, idle, longest))
                }
            };
            opened.all.push(tx);
        }
        Ok(opened)
    }

    /// Whether frames are sent from the driver's own buffers.
    pub fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Sends what the sources give, one for each thread, with the number of packets that it is to send at most.
    ///
    /// # Errors
    /// [`TransmitError`]; a thread that broke off says so in its [`Sent`].
    pub fn send<S: Source>(
        self,
        sources: impl IntoIterator<Item = (S, Option<u64>)>,
        limit: Limit,
        progress: &Progress,
    ) -> Result<Transmitted<S>, TransmitError> {
        let Plan { interface, queues, cores, pace, .. } = self.plan;
        let threads = u32::try_from(queues.len()).unwrap_or(u32::MAX);
        let before = interface.tx_counts();
        let start_ns = now_ns() + START_NS;
        let joined: Vec<_> = std::thread::scope(|scope| {
            let mut started = Vec::new();
            for ((mut tx, (mut source, packets)), thread) in self.all.into_iter().zip(sources).zip(0..) {
                let core = usize::try_from(thread).ok().and_then(|thread| cores.get(thread).copied());
                let duration = limit.duration;
                let job = Job { interface, pace, thread, threads, start_ns, packets, duration, progress };
                started.push(scope.spawn(move || {
                    pin(core)?;
                    let sent = send(tx.as_mut(), &mut source, &job);
                    Ok((sent, source))
                }));
            }
            started.into_iter().map(|thread| thread.join().unwrap_or(Err(TransmitError::Thread))).collect()
        });
        let threads = joined.into_iter().collect::<Result<Vec<_>, _>>()?;
        let sent: Vec<&Sent> = threads.iter().map(|(sent, _)| sent).collect();
        let packets = sent.iter().map(|sent| sent.packets).sum();
        let counts = before.and_then(|before| counted(interface, before, packets));
        let sending = Sending::new(self.choice, &sent, counts);
        Ok(Transmitted { threads, sending })
    }
}

/// What the interface has counted since, once that is everything, or it has had time enough: some count later than they send.
fn counted(interface: &Interface, before: TxCounts, packets: u64) -> Option<TxCounts> {
    let deadline = now_ns() + COUNTING_NS;
    loop {
        let counts = interface.tx_counts()?.since(before);
        if counts.packets + counts.dropped >= packets || now_ns() >= deadline {
            return Some(counts);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs the calling thread on that core only.
///
/// # Errors
/// It may not run there.
pub fn pin(core: Option<usize>) -> Result<(), TransmitError> {
    match core {
        Some(id) if !core_affinity::set_for_current(CoreId { id }) => Err(TransmitError::Pin(id)),
        _ => Ok(()),
    }
}
