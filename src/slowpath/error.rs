//! Why the slow path cannot start or go on.

use std::io;

use thiserror::Error;

/// A failure that names what it is about.
#[derive(Debug, Error)]
pub enum Error {
    /// Memory for the frames could not be registered.
    #[error("UMEM of worker {worker} ({frames} frames): {source}{}", hint(source))]
    Umem {
        /// Index of the worker.
        worker: usize,
        /// Frames asked for.
        frames: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// A socket could not be bound.
    #[error("AF_XDP socket on {interface} queue {queue}: {source}{}", hint(source))]
    Bind {
        /// Interface name.
        interface: String,
        /// Receive queue.
        queue: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// A bound socket could not be put into the pipeline's XSKMAP.
    #[error("XSKMAP key {key} ({interface} queue {queue}): {source}")]
    Map {
        /// Interface name.
        interface: String,
        /// Receive queue.
        queue: u32,
        /// Key in the map.
        key: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The worker could not be pinned to its core.
    #[error("worker {worker} on core {core}: {source} (the core must exist and be allowed to the process)")]
    Pin {
        /// Index of the worker.
        worker: usize,
        /// Core that was asked for.
        core: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The worker's thread could not be started.
    #[error("thread of worker {worker}: {source}")]
    Thread {
        /// Index of the worker.
        worker: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The wake-up descriptor of a worker could not be made.
    #[error("wake-up descriptor of worker {worker}: {source}")]
    Wake {
        /// Index of the worker.
        worker: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// A worker ended before its sockets were ready.
    #[error("worker {0} ended while it started")]
    Ended(usize),
}

fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOBUFS) => " (RLIMIT_MEMLOCK is too small: LimitMEMLOCK= of the unit)",
        Some(libc::EBUSY) => " (another process has a socket on this queue)",
        Some(libc::EPERM | libc::EACCES) => " (CAP_NET_RAW and CAP_BPF are needed)",
        Some(libc::ENODEV) => " (the interface does not exist)",
        Some(libc::EINVAL) => " (the interface has fewer receive queues)",
        _ => "",
    }
}
