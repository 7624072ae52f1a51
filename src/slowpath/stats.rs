//! What the workers count. A worker keeps its own numbers and publishes a copy a few times a second; readers merge.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

/// One worker at the time of its last publication.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerStats {
    /// Index of the worker: it serves receive queues `worker`, `worker` + number of workers, ... of every port.
    pub worker: usize,
    /// Core that it is pinned to.
    pub core: Option<usize>,
    /// Frames taken from the receive rings, by the name of the punt reason (`bpf/drop_reasons.h`).
    pub punts: BTreeMap<&'static str, u64>,
    /// Frames whose metadata or headers do not make sense; they are dropped.
    pub malformed: u64,
    /// Answers that were not sent because no frame was free.
    pub no_frame: u64,
    /// ICMP answers.
    pub icmp: IcmpStats,
    /// Packets that wait for a link-layer address.
    pub neighbor: NeighborStats,
    /// Frames handed to another worker because only that one has a socket on the egress interface.
    pub handoff: HandoffStats,
    /// The UMEM; the three parts add up to the total.
    pub frames: FrameStats,
    /// Times the sockets and the UMEM were made anew because interfaces came or went.
    pub rebuilds: u64,
    /// AF_XDP sockets.
    pub sockets: Vec<SocketStats>,
    /// From a frame taken off the receive ring to its answer put on a transmit ring, in nanoseconds.
    #[serde(serialize_with = "summary")]
    pub answer_ns: Histogram<u64>,
    /// From a frame taken off the receive ring to itself put on a transmit ring, its neighbour resolved, in nanoseconds.
    #[serde(serialize_with = "summary")]
    pub resolve_ns: Histogram<u64>,
}

/// ICMP and ICMPv6 messages sent for the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IcmpStats {
    /// Errors sent.
    pub errors: u64,
    /// Echo replies sent from a VIP.
    pub echo_replies: u64,
    /// Errors that the rate limit held back (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f).
    pub rate_limited: u64,
    /// Packets that must not be answered: errors themselves, fragments, group addresses (RFC 1122 §3.2.2, RFC 4443 §2.4 e).
    pub forbidden: u64,
    /// Errors without an address of the family to send them from.
    pub no_source: u64,
}

/// Packets that wait for a link-layer address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NeighborStats {
    /// Next hops being resolved.
    pub next_hops: u64,
    /// Frames that wait.
    pub frames: u64,
    /// Frames sent once their neighbour was resolved.
    pub forwarded: u64,
    /// Oldest frames dropped because the queue was full.
    pub dropped_full: u64,
    /// Frames dropped because the neighbour did not answer.
    pub dropped_unreachable: u64,
    /// Frames for a link that the node no longer has.
    pub dropped_no_link: u64,
    /// Frames larger than the link's MTU; the sender is told where the packet must not be fragmented.
    pub dropped_mtu: u64,
}

/// Frames between workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HandoffStats {
    /// Frames given to another worker.
    pub sent: u64,
    /// Frames taken from another worker.
    pub received: u64,
    /// Frames dropped: the other worker's channel was full.
    pub dropped: u64,
    /// Frames dropped: no worker has a socket on the interface.
    pub no_socket: u64,
}

/// Where the frames of the UMEM are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FrameStats {
    /// Size of the UMEM in frames.
    pub total: u64,
    /// In a fill ring or on its way out by a transmit ring.
    pub in_kernel: u64,
    /// Ready for use.
    pub free: u64,
    /// Waiting for a neighbour.
    pub held: u64,
}

/// One AF_XDP socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SocketStats {
    /// Interface name.
    pub interface: String,
    /// Receive queue.
    pub queue: u32,
    /// Zero-copy: the driver reads and writes the UMEM itself.
    pub zero_copy: bool,
    /// Frames received.
    pub rx: u64,
    /// Frames put on the transmit ring.
    pub tx: u64,
    /// Frames dropped because the transmit ring was full.
    pub tx_full: u64,
    /// Frames that the kernel dropped for want of room in the receive ring.
    pub rx_ring_full: u64,
    /// Times that the kernel found the fill ring empty.
    pub fill_empty: u64,
    /// Frames that the kernel dropped for another reason, among them those larger than a frame of the UMEM.
    pub rx_dropped: u64,
}

/// What a worker has published last.
#[derive(Debug)]
pub(super) struct Published(Mutex<WorkerStats>);

impl Published {
    pub(super) fn new(stats: WorkerStats) -> Self {
        Self(Mutex::new(stats))
    }

    pub(super) fn set(&self, stats: &WorkerStats) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone_from(stats);
    }

    pub(super) fn get(&self) -> WorkerStats {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Longest latency that is told apart: a next hop is given up long before.
const LATENCY_MAX: Duration = Duration::from_secs(10);

impl WorkerStats {
    pub(super) fn new(worker: usize, core: Option<usize>) -> Self {
        Self {
            worker,
            core,
            punts: BTreeMap::new(),
            malformed: 0,
            no_frame: 0,
            icmp: IcmpStats::default(),
            neighbor: NeighborStats::default(),
            handoff: HandoffStats::default(),
            frames: FrameStats::default(),
            rebuilds: 0,
            sockets: Vec::new(),
            answer_ns: latency(),
            resolve_ns: latency(),
        }
    }
}

/// An empty latency histogram: nanoseconds, two significant digits.
fn latency() -> Histogram<u64> {
    let max = u64::try_from(LATENCY_MAX.as_nanos()).unwrap_or(u64::MAX);
    let Ok(histogram) = Histogram::new_with_max(max, 2) else {
        unreachable!("the bounds are constants: a maximum of at least 2 and at most 5 significant digits")
    };
    histogram
}

/// Latency as people read it; the histogram itself stays in the process.
#[derive(Serialize)]
struct Summary {
    count: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

fn summary<S: Serializer>(histogram: &Histogram<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    Summary {
        count: histogram.len(),
        p50: histogram.value_at_quantile(0.5),
        p90: histogram.value_at_quantile(0.9),
        p99: histogram.value_at_quantile(0.99),
        p999: histogram.value_at_quantile(0.999),
        max: histogram.max(),
    }
    .serialize(serializer)
}
