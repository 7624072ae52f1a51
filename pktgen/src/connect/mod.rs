//! `pktgen connect`: connections that are opened, used and closed, to load a balancer or a connection tracker.
//!
//! ```text
//!  Clients (prefix x ports) -> Engine -> TX ring -> interface ~~> load balancer, conntrack, server
//!                               |  ^                                  |
//!              Machine: tcp, udp   '-- RX rings <- XSKMAP <- program <'   everything else -> kernel
//! ```
//!
//! The clients are addresses that this host does not have. A program takes what comes for them to AF_XDP sockets, so the kernel
//! never sees a segment that it would answer with RST. One thread serves all queues: answers arrive on the queue that
//! the NIC's hash chooses, whoever sent the request.

pub mod clients;
pub mod engine;
pub mod filter;
pub mod machine;
pub mod nexthop;
pub mod report;
pub mod segment;
pub mod stats;
pub mod tcp;
pub mod udp;
pub mod wheel;

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use packet::layer::Mac;
use packet::proto::ip;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::backend::xsk::Xsk;
use crate::backend::{Tx as _, TxError};
use crate::clock::now_ns;
use crate::interface::{Interface, InterfaceError};
use crate::receive::redirect::RedirectError;
use crate::report::Endpoint;
use crate::source::Written;
use crate::umem::{self, BURST, Frame, KernelCounts, OpenError, Receiver, Sender};

use clients::Clients;
use engine::{Engine, Load, Path};
use filter::Filter;
use machine::{Exchange, Machine, Response};
use nexthop::NextHopError;
use report::ConnectReport;
use segment::Link;
use stats::Stats;

/// How long a link may take to come back after a program was attached.
const LINK_PATIENCE: Duration = Duration::from_secs(10);
/// Longest sleep while nothing happens.
const IDLE_NS: u64 = 1_000_000;
/// Waits shorter than this are spun: the scheduler is no more exact.
const SPIN_NS: u64 = 60_000;
/// How long the kernel may take to send what it has been given.
const SETTLE_NS: u64 = 1_000_000_000;
/// Bytes of a request at most: sequence numbers of one connection must not wrap onto themselves.
const STREAM_MAX: u64 = 1 << 30;
/// Headers in front of a UDP payload, IPv6.
const UDP_HEADERS: usize = 48;

/// What connections are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Handshake, requests, close.
    Tcp,
    /// Requests.
    Udp,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Interface.
    pub interface: String,
    /// Server, or the balancer in front of it.
    pub target: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Client addresses; the other side routes them to the interface's address.
    pub clients: IpNet,
    /// Client ports.
    pub ports: RangeInclusive<u16>,
    /// Ethernet destination; none: that of the next hop by the kernel's route.
    pub dst_mac: Option<Mac>,
    /// What each connection does.
    pub exchange: Exchange,
    /// When they begin.
    pub load: Load,
    /// Core for the thread.
    pub core: Option<usize>,
}

/// Why a run did not take place, or broke off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The interface does not answer.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// A socket cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The program cannot be attached.
    #[error(transparent)]
    Redirect(#[from] RedirectError),
    /// There is no way to the target.
    #[error(transparent)]
    NextHop(#[from] NextHopError),
    /// Clients and target cannot talk to each other.
    #[error("clients {clients} and target {target} are not of one family")]
    Family {
        /// Clients.
        clients: IpNet,
        /// Target.
        target: SocketAddr,
    },
    /// The target would be its own client.
    #[error("the target {target} lies in the client prefix {clients}")]
    TargetIsClient {
        /// Clients.
        clients: IpNet,
        /// Target.
        target: SocketAddr,
    },
    /// More at once than there are client ends.
    #[error("{concurrent} connections at once, but {clients} have only {pairs} addresses and ports: widen the prefix")]
    TooFewClients {
        /// Asked for.
        concurrent: u64,
        /// Clients.
        clients: IpNet,
        /// Client ends.
        pairs: u64,
    },
    /// Settings that contradict each other.
    #[error("{0}")]
    Settings(&'static str),
    /// No histogram.
    #[error("cannot count latencies: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// The thread cannot run where it should.
    #[error("cannot run on core {0}: is it online, and allowed by taskset or cgroup?")]
    Pin(usize),
    /// Sending or receiving broke off.
    #[error("sending and receiving on {interface} broke off: {source}")]
    Broken {
        /// Interface.
        interface: String,
        /// Why.
        source: TxError,
    },
}

/// Runs to the end and reports: no further connections after count or time, those that are open finish or time out. When
/// `stop` becomes true they are left as they are.
///
/// # Errors
/// [`ConnectError`].
pub fn run(config: &Config, stop: &AtomicBool) -> Result<ConnectReport, ConnectError> {
    match config.protocol {
        Protocol::Tcp => drive::<tcp::Connection>(config, stop),
        Protocol::Udp => drive::<udp::Exchanges>(config, stop),
    }
}

fn check(config: &Config, mtu: usize) -> Result<(), ConnectError> {
    let (clients, target) = (config.clients.trunc(), config.target);
    if clients.addr().is_ipv4() != target.is_ipv4() {
        return Err(ConnectError::Family { clients, target });
    }
    if clients.contains(&target.ip()) {
        return Err(ConnectError::TargetIsClient { clients, target });
    }
    let exchange = &config.exchange;
    let requests = u64::from(exchange.requests.max(1));
    if requests > 1
        && (!exchange.has_request() || exchange.response == Response::Close)
        && config.protocol == Protocol::Tcp
    {
        return Err(ConnectError::Settings(
            "several requests on a connection need a request and a response of a known length: give --request and --response BYTES",
        ));
    }
    let stream = (exchange.request.len() as u64).saturating_mul(requests);
    if stream >= STREAM_MAX {
        return Err(ConnectError::Settings("more than 1 GiB of requests on a connection"));
    }
    if config.protocol == Protocol::Udp {
        if !exchange.has_request() {
            return Err(ConnectError::Settings("UDP needs a request: give --request or --request-bytes"));
        }
        if exchange.request.len() + UDP_HEADERS > mtu {
            return Err(ConnectError::Settings("the UDP request does not fit into a packet of the interface's MTU"));
        }
        if exchange.abort {
            return Err(ConnectError::Settings("--abort is for TCP: UDP has no reset"));
        }
    }
    Ok(())
}

fn drive<M: Machine>(config: &Config, stop: &AtomicBool) -> Result<ConnectReport, ConnectError> {
    let interface = Interface::new(&config.interface)?;
    let mtu = interface.mtu()?;
    check(config, mtu)?;
    if let Some(core) = config.core
        && !core_affinity::set_for_current(core_affinity::CoreId { id: core })
    {
        return Err(ConnectError::Pin(core));
    }
    let clients = Clients::new(config.clients, config.ports.clone(), now_ns());
    if let Some(concurrent) = config.load.concurrent.filter(|concurrent| *concurrent > clients.pairs()) {
        return Err(ConnectError::TooFewClients { concurrent, clients: config.clients, pairs: clients.pairs() });
    }
    let mut sockets = Sockets::open(config, &interface, mtu)?;
    let dst = match config.dst_mac {
        Some(mac) => mac,
        None => nexthop::resolve(&interface, config.target.ip())?,
    };
    let path = Path { target: config.target, link: Link { src: interface.mac()?, dst } };
    let headers = if config.target.is_ipv4() { 40 } else { 60 };
    let mut exchange = config.exchange.clone();
    exchange.mss = exchange.mss.min(u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX)).max(1);
    let mut engine = Engine::<M>::new(exchange, path, clients, config.load, Stats::new()?, now_ns());
    let failed = |source| ConnectError::Broken { interface: config.interface.clone(), source };
    while !stop.load(Ordering::Relaxed) && sockets.step(&mut engine).map_err(failed)? {}
    let kernel = sockets.kernel_counts().map_err(|source| failed(source.into()))?;
    let from = sockets.endpoint(&interface);
    let protocol = match config.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    Ok(ConnectReport::new(&engine, from, config.target, protocol, config.load.cps, kernel))
}

/// The sockets of every queue: all receive, the first sends.
struct Sockets {
    filter: Filter,
    tx: Xsk,
    receivers: Vec<Receiver>,
    /// The other halves of sockets that only receive; their rings live as long.
    _idle: Vec<Sender>,
    zero_copy: bool,
    burst: Vec<Frame>,
}

impl Sockets {
    fn open(config: &Config, interface: &Interface, mtu: usize) -> Result<Self, ConnectError> {
        let protocol = match config.protocol {
            Protocol::Tcp => ip::TCP,
            Protocol::Udp => ip::UDP,
        };
        let filter = Filter::attach(interface, config.clients.trunc(), protocol)?;
        let longest = mtu + packet::proto::ETHERNET_LEN;
        let first = umem::open(interface.name(), 0, longest)?;
        filter.register(0, &first.receiver)?;
        let (mut receivers, mut idle, mut zero_copy) = (vec![first.receiver], Vec::new(), first.zero_copy);
        for queue in 1..interface.rx_queues() {
            let opened = umem::open(interface.name(), queue, longest)?;
            filter.register(queue, &opened.receiver)?;
            receivers.push(opened.receiver);
            idle.push(opened.sender);
            zero_copy &= opened.zero_copy;
        }
        interface.wait_running(LINK_PATIENCE)?;
        let tx = Xsk::new(first.sender, None, longest);
        Ok(Self { filter, tx, receivers, _idle: idle, zero_copy, burst: Vec::with_capacity(BURST) })
    }

    /// Receives, lets time pass, sends. False when the run is over.
    fn step<M: Machine>(&mut self, engine: &mut Engine<M>) -> Result<bool, TxError> {
        let mut busy = false;
        for receiver in &mut self.receivers {
            while engine.has_room() && receiver.receive(&mut self.burst) > 0 {
                let now = now_ns();
                for frame in &self.burst {
                    receiver.read(frame, |bytes| engine.receive(bytes, now));
                }
                receiver.give_back(&mut self.burst);
                busy = true;
            }
            receiver.kick()?;
        }
        engine.advance(now_ns());
        busy |= self.send(engine)?;
        let now = now_ns();
        if engine.is_finished(now) {
            self.tx.settle(SETTLE_NS);
            return Ok(false);
        }
        if !busy {
            self.idle(engine, now)?;
        }
        Ok(true)
    }

    /// Writes what is due into the TX ring; whether there was anything.
    fn send<M: Machine>(&mut self, engine: &mut Engine<M>) -> Result<bool, TxError> {
        let mut any = false;
        while engine.has_output() {
            let Some(slot) = self.tx.slot() else {
                self.flush()?;
                // No frame came back: the kernel is behind, and answers must be read meanwhile.
                if self.tx.slot().is_none() {
                    return Ok(any);
                }
                continue;
            };
            if let Some(len) = engine.write_next(slot) {
                self.tx.push(Written { len, late: None }, 0);
            }
            any = true;
        }
        self.flush()?;
        Ok(any)
    }

    /// What an interface that is down has not taken is lost like any packet: TCP sends it again.
    fn flush(&mut self) -> Result<(), TxError> {
        match self.tx.flush(&mut |_| {}) {
            Err(TxError::Down | TxError::Interrupted) => Ok(()),
            other => other,
        }
    }

    fn idle<M: Machine>(&self, engine: &Engine<M>, now: u64) -> io::Result<()> {
        let wait = engine.next_start_ns().map_or(IDLE_NS, |start| start.saturating_sub(now)).min(IDLE_NS);
        if wait < SPIN_NS {
            std::hint::spin_loop();
            return Ok(());
        }
        let mut fds: Vec<PollFd<'_>> =
            self.receivers.iter().map(|receiver| PollFd::from_borrowed_fd(receiver.as_fd(), PollFlags::IN)).collect();
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::try_from(wait).unwrap_or(0) };
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn kernel_counts(&self) -> io::Result<KernelCounts> {
        let mut all = KernelCounts::default();
        for receiver in &self.receivers {
            all += receiver.kernel_counts()?;
        }
        Ok(all)
    }

    fn endpoint(&self, interface: &Interface) -> Endpoint {
        Endpoint {
            interface: interface.name().to_owned(),
            driver: interface.driver(),
            zero_copy: self.zero_copy,
            xdp_mode: Some(self.filter.mode()),
        }
    }
}

#[cfg(test)]
mod tests;
