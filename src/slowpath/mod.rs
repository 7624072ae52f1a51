//! AF_XDP workers: one pinned thread a core takes what the fast path cannot finish.
//!
//! Worker `w` of `W` serves the receive queues `w`, `w + W`, ... of every interface through one UMEM, so that a frame that
//! came in by one interface leaves by another without a copy. The control thread talks to the workers by messages only:
//! [`ToWorker`] in, [`FromWorker`] out; a worker asks neither the kernel's neighbour table nor the routes.

mod answer;
mod error;
mod l2;
mod meta;
mod neighbor;
mod rate;
mod sockets;
mod stats;
mod umem;
mod view;
mod wake;
mod worker;
mod xskmap;

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use crossbeam::channel::{Sender, bounded, unbounded};
use model::network::{IfIndex, Mac};
use model::tables::PortId;

use sockets::SocketSet;
use stats::Published;
use wake::Wake;
use worker::{Channels, Peer, Worker};
use xskmap::XskMap;

pub use error::Error;
pub use meta::Punt;
pub use stats::{FrameStats, HandoffStats, IcmpStats, NeighborStats, SocketStats, WorkerStats};
pub use view::{LinkView, NetworkView};

/// Sockets of one port. Ports of the same device (an interface and its VLANs) share the device's sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSockets {
    /// Row of the XSKMAP: its key is `port * QUEUES_PER_PORT + queue`.
    pub port: PortId,
    /// The interface whose addresses answer for the port: the VLAN device for a VLAN, else the same as `device`.
    pub interface: IfIndex,
    /// The interface that carries the program and the sockets.
    pub device: IfIndex,
    /// Kernel name of `device`.
    pub name: String,
    /// Receive queues of `device` that are served, from 0, at most `QUEUES_PER_PORT`.
    pub queues: u32,
}

/// How the slow path starts.
#[derive(Debug)]
pub struct Config {
    /// Ports to serve.
    pub ports: Vec<PortSockets>,
    /// Cores of the workers, one worker each; one unpinned worker where empty.
    pub cores: Vec<usize>,
    /// The pipeline's XSKMAP.
    pub xsk_map: OwnedFd,
    /// Frames of a worker's UMEM, of 4 KiB each; raised where the sockets need more.
    pub frames: u32,
}

/// From the control thread to every worker.
#[derive(Clone, Debug)]
pub enum ToWorker {
    /// Links and addresses have changed.
    View(Arc<NetworkView>),
    /// A neighbour is resolved: what waits for it leaves.
    Resolved {
        /// Interface that the neighbour is on, the VLAN device where there is one.
        ifindex: IfIndex,
        /// Its IP address.
        address: IpAddr,
        /// Its link-layer address.
        mac: Mac,
    },
    /// A neighbour does not answer: what waits for it is answered and dropped.
    Unreachable {
        /// Interface that the neighbour would be on.
        ifindex: IfIndex,
        /// Its IP address.
        address: IpAddr,
    },
    /// The ports to serve from now on, all of them. Interfaces that are new get sockets, those that are gone lose theirs.
    Ports(Arc<[PortSockets]>),
    /// Close the sockets and end.
    Stop,
}

/// From a worker to the control thread.
#[derive(Debug)]
pub enum FromWorker {
    /// A packet waits for this neighbour: resolve it and answer [`ToWorker::Resolved`] or [`ToWorker::Unreachable`]. Repeated
    /// every second while packets wait.
    Resolve {
        /// Interface that the neighbour is on.
        ifindex: IfIndex,
        /// Its IP address.
        address: IpAddr,
    },
    /// [`ToWorker::Ports`] could not be followed; sockets that could be bound stay bound.
    Failed(Error),
}

/// Frames of a worker's UMEM where nothing else is asked for: 32 MiB, enough for four sockets.
pub const DEFAULT_FRAMES: u32 = 8192;
/// Frames between two workers.
const HANDOFFS: usize = 256;

/// The running workers. Dropping it stops them.
#[derive(Debug)]
pub struct SlowPath {
    workers: Vec<Handle>,
}

#[derive(Debug)]
struct Handle {
    commands: Sender<ToWorker>,
    wake: Arc<Wake>,
    published: Arc<Published>,
    thread: Option<JoinHandle<()>>,
}

impl SlowPath {
    /// Starts the workers in the network namespace of the caller and waits until their sockets are in the map. Requests for
    /// neighbours go to `events`.
    ///
    /// A worker that panics aborts the process: the pinned program goes on forwarding, and a new process starts clean.
    ///
    /// # Errors
    /// The first failure of any worker; none is left running then.
    pub fn start(config: Config, events: Sender<FromWorker>) -> Result<Self, Error> {
        let cores: Vec<Option<usize>> =
            if config.cores.is_empty() { vec![None] } else { config.cores.into_iter().map(Some).collect() };
        let ports: Arc<[PortSockets]> = config.ports.into();
        let (first_frames, mut first_handoffs) = bounded(HANDOFFS);
        let mut slow_path = Self { workers: Vec::new() };
        let (ready, started) = bounded(cores.len());
        for (worker, core) in cores.iter().copied().enumerate() {
            let wake = Arc::new(Wake::new().map_err(|source| Error::Wake { worker, source })?);
            let (commands, inbox) = unbounded();
            let stats = WorkerStats::new(worker, core);
            let published = Arc::new(Published::new(stats.clone()));
            let first = slow_path
                .workers
                .first()
                .map(|first| Peer { frames: first_frames.clone(), wake: Arc::clone(&first.wake) });
            let handoffs = std::mem::replace(&mut first_handoffs, crossbeam::channel::never());
            let channels = Channels {
                commands: inbox,
                handoffs,
                wake: Arc::clone(&wake),
                first,
                events: events.clone(),
                published: Arc::clone(&published),
            };
            let map = config.xsk_map.try_clone().map_err(|source| Error::Thread { worker, source })?;
            let start = Start { stats, workers: cores.len(), frames: config.frames, ports: Arc::clone(&ports), map };
            let ready = ready.clone();
            let thread = Builder::new()
                .name(format!("margay-worker{worker}"))
                .spawn(move || start.run(channels, &ready))
                .map_err(|source| Error::Thread { worker, source })?;
            slow_path.workers.push(Handle { commands, wake, published, thread: Some(thread) });
        }
        drop(ready);
        for worker in 0..cores.len() {
            started.recv().unwrap_or(Err(Error::Ended(worker)))?;
        }
        Ok(slow_path)
    }

    /// Sends a message to every worker. It does not wait.
    pub fn send(&self, message: &ToWorker) {
        for worker in &self.workers {
            // A worker that has ended was told to stop.
            let _ = worker.commands.send(message.clone());
            worker.wake.wake();
        }
    }

    /// What the workers have counted, at most a quarter of a second old.
    #[must_use]
    pub fn stats(&self) -> Vec<WorkerStats> {
        self.workers.iter().map(|worker| worker.published.get()).collect()
    }

    /// Stops the workers and waits until their sockets are closed.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for SlowPath {
    fn drop(&mut self) {
        self.send(&ToWorker::Stop);
        for thread in self.workers.iter_mut().filter_map(|worker| worker.thread.take()) {
            // A worker that panicked has taken the process with it.
            let _ = thread.join();
        }
    }
}

/// What a worker's thread starts with.
#[derive(Debug)]
struct Start {
    stats: WorkerStats,
    workers: usize,
    frames: u32,
    ports: Arc<[PortSockets]>,
    map: OwnedFd,
}

impl Start {
    fn run(self, channels: Channels, ready: &Sender<Result<(), Error>>) {
        let _guard = AbortOnPanic;
        match self.open(channels) {
            Ok(worker) => {
                let _ = ready.send(Ok(()));
                worker.run();
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    }

    fn open(self, channels: Channels) -> Result<Worker, Error> {
        let worker = self.stats.worker;
        if let Some(core) = self.stats.core {
            pin(core).map_err(|source| Error::Pin { worker, core, source })?;
        }
        let (sockets, failures) =
            SocketSet::open(worker, self.workers, self.frames, &self.ports, XskMap::new(self.map))?;
        match failures.into_iter().next() {
            Some(failure) => Err(failure),
            None => Ok(Worker::new(channels, sockets, &self.ports, self.stats)),
        }
    }
}

fn pin(core: usize) -> std::io::Result<()> {
    let mut cores = rustix::thread::CpuSet::new();
    if core >= rustix::thread::CpuSet::MAX_CPU {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    cores.set(core);
    Ok(rustix::thread::sched_setaffinity(None, &cores)?)
}

/// Ends the process when the thread that owns it unwinds: half a slow path would be silent loss.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}
