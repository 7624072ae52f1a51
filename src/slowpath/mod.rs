//! AF_XDP workers: one pinned thread a core takes what the fast path cannot finish.
//!
//! Worker `w` of `W` serves the receive queues `w`, `w + W`, ... of every interface through one UMEM, so that a frame that
//! came in by one interface leaves by another without a copy. The control thread talks to the workers by messages only:
//! [`ToWorker`] in, [`FromWorker`] out; a worker asks neither the kernel's neighbour table nor the routes.

mod error;
mod stats;
mod view;

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use model::network::{IfIndex, Mac};
use model::tables::PortId;

pub use error::Error;
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
