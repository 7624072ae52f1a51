//! One worker: a thread that takes punted frames off its sockets, finishes them and sends them.
//!
//! Everything in here belongs to the thread alone; messages are the only way in and out. Frames are taken in bursts, the
//! rings are told once a burst, and what other threads read is published a few times a second.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender};
use model::network::{IfIndex, Mac};
use model::tables::PortId;
use model::verdict::PuntReason;
use packet::icmp::{self, Refused, Unreachable};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::error;

use super::answer;
use super::l2::{self, Header};
use super::meta::Punt;
use super::neighbor::{NeighborQueue, NextHop};
use super::rate::RateLimit;
use super::sockets::{SocketSet, Unsent};
use super::stats::{Published, WorkerStats};
use super::umem::{BURST, Burst, Frame, Umem};
use super::view::NetworkView;
use super::wake::Wake;
use super::{FrameStats, FromWorker, PortSockets, ToWorker};

/// How often the numbers are published, and the longest sleep.
const PUBLISH: Duration = Duration::from_millis(250);
/// How long a frame that the driver had no room for waits.
const SEND_AGAIN: Duration = Duration::from_millis(1);

/// A frame on its way to the worker that has a socket on the egress interface.
#[derive(Debug)]
pub(super) struct Handoff {
    device: IfIndex,
    bytes: Box<[u8]>,
    sent_for: SentFor,
    taken: Instant,
}

/// Another worker, as this one sees it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) frames: Sender<Handoff>,
    pub(super) wake: Arc<Wake>,
}

/// Why a frame is sent: it tells which latency is recorded.
#[derive(Clone, Copy, Debug)]
enum SentFor {
    Answer,
    Resolved,
}

/// A frame that waits for its next hop.
#[derive(Debug)]
struct Held {
    frame: Frame,
    punt: Punt,
    taken: Instant,
}

/// Ends of the channels of one worker.
#[derive(Debug)]
pub(super) struct Channels {
    pub(super) commands: Receiver<ToWorker>,
    pub(super) handoffs: Receiver<Handoff>,
    pub(super) wake: Arc<Wake>,
    /// The worker that serves queue 0 of every interface, so has a socket on each; `None` for that worker itself.
    pub(super) first: Option<Peer>,
    pub(super) events: Sender<FromWorker>,
    pub(super) published: Arc<Published>,
}

/// The state of one worker.
#[derive(Debug)]
pub(super) struct Worker {
    channels: Channels,
    sockets: SocketSet,
    /// Interface that answers for each port.
    ingress: HashMap<PortId, IfIndex>,
    /// Interfaces that some worker has a socket on.
    devices: HashSet<IfIndex>,
    view: Arc<NetworkView>,
    neighbors: NeighborQueue<Held>,
    limit: RateLimit,
    /// By [`PuntReason::ALL`].
    punts: [u64; PuntReason::ALL.len()],
    stats: WorkerStats,
    published_at: Instant,
}

impl Worker {
    pub(super) fn new(channels: Channels, sockets: SocketSet, ports: &[PortSockets], stats: WorkerStats) -> Self {
        let now = Instant::now();
        let mut worker = Self {
            channels,
            sockets,
            ingress: HashMap::new(),
            devices: HashSet::new(),
            view: Arc::default(),
            neighbors: NeighborQueue::new(),
            limit: RateLimit::new(now),
            punts: [0; PuntReason::ALL.len()],
            stats,
            published_at: now,
        };
        worker.know(ports);
        worker.publish(now);
        worker
    }

    /// Works until it is told to stop; the sockets are closed then.
    pub(super) fn run(mut self) {
        let mut burst = Burst::with_capacity(BURST);
        loop {
            // Cleared first, so that what comes in from here on wakes the poll below.
            self.channels.wake.clear();
            while let Ok(command) = self.channels.commands.try_recv() {
                if self.obey(command).is_break() {
                    self.publish(Instant::now());
                    return;
                }
            }
            let mut busy = self.take_handoffs();
            for index in 0..self.sockets.len() {
                let received = self.sockets.receive(index, &mut burst);
                busy |= received == BURST;
                if received > 0 {
                    let taken = Instant::now();
                    for frame in burst.drain(..) {
                        self.punted(frame, taken);
                    }
                }
            }
            let now = Instant::now();
            self.expire(now);
            let unsent = self.sockets.flush();
            self.sockets.umem.check(self.neighbors.frames());
            if now >= self.published_at + PUBLISH {
                self.publish(now);
            }
            if !busy {
                self.sleep(now, unsent);
            }
        }
    }

    /// Until a frame or a message comes, something is due, or the numbers are to be published. A driver that was too busy
    /// to take all frames says nothing when it is ready, so it is asked again soon.
    fn sleep(&self, now: Instant, unsent: bool) {
        let soon = if unsent { now + SEND_AGAIN } else { self.published_at + PUBLISH };
        let until = self.neighbors.deadline().map_or(soon, |deadline| deadline.min(soon));
        let timeout = Timespec::try_from(until.saturating_duration_since(now)).ok();
        let mut fds = Vec::with_capacity(self.sockets.len() + 1);
        fds.push(PollFd::from_borrowed_fd(self.channels.wake.as_fd(), PollFlags::IN));
        self.sockets.poll_fds(&mut fds);
        // An interrupted poll is a short one; nothing else can fail here.
        let _ = poll(&mut fds, timeout.as_ref());
    }

    fn obey(&mut self, command: ToWorker) -> ControlFlow<()> {
        match command {
            ToWorker::View(view) => self.view = view,
            ToWorker::Resolved { ifindex, address, mac } => self.resolved((ifindex, address), mac),
            ToWorker::Unreachable { ifindex, address } => {
                for held in self.neighbors.take((ifindex, address)) {
                    self.unreachable(held);
                }
            }
            ToWorker::Ports(ports) => self.set_ports(&ports),
            ToWorker::Stop => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    fn know(&mut self, ports: &[PortSockets]) {
        self.ingress = ports.iter().map(|port| (port.port, port.interface)).collect();
        self.devices = ports.iter().filter(|port| port.queues > 0).map(|port| port.device).collect();
    }

    fn set_ports(&mut self, ports: &[PortSockets]) {
        self.know(ports);
        let neighbors = &mut self.neighbors;
        let carry = |old: &mut Umem, new: &mut Umem| {
            neighbors.map_frames(|held| {
                let mut frame = new.alloc()?;
                let bytes = old.bytes(&held.frame);
                if !new.write(&mut frame, bytes) {
                    new.free(frame);
                    return None;
                }
                old.free(held.frame);
                Some(Held { frame, ..held })
            });
        };
        let failures = match self.sockets.set_ports(ports, carry) {
            Ok((rebuilt, failures)) => {
                self.stats.rebuilds += u64::from(rebuilt);
                failures
            }
            Err(error) => vec![error],
        };
        for failure in failures {
            error!(worker = self.stats.worker, error = %failure, "slow path incomplete");
            self.tell(FromWorker::Failed(failure));
        }
    }

    /// The control thread may be behind; what it misses of requests is repeated, and failures are in the log.
    fn tell(&self, event: FromWorker) {
        let _ = self.channels.events.try_send(event);
    }

    /// One frame off a receive ring.
    fn punted(&mut self, frame: Frame, taken: Instant) {
        let umem = &mut self.sockets.umem;
        let behind_header = |punt: &Punt| umem.bytes(&frame).len() > punt.l2_len;
        let Some(punt) = umem.meta(&frame).and_then(Punt::decode).filter(behind_header) else {
            self.stats.malformed += 1;
            umem.free(frame);
            return;
        };
        if let Some(count) = self.punts.get_mut(punt.reason as usize) {
            *count += 1;
        }
        let held = Held { frame, punt, taken };
        match punt.reason {
            PuntReason::Neighbor | PuntReason::NeighborEncap => self.wait(held),
            PuntReason::TtlExceeded => self.refuse(held, icmp::Error::TimeExceeded),
            PuntReason::NoRoute => self.refuse(held, icmp::Error::Unreachable(Unreachable::NoRoute)),
            PuntReason::Prohibit => self.refuse(held, icmp::Error::Unreachable(Unreachable::Prohibited)),
            PuntReason::PacketTooBig => self.refuse(held, icmp::Error::PacketTooBig { mtu: punt.mtu }),
            PuntReason::VipEcho => self.echo(held),
        }
    }

    /// Holds a packet until its next hop is resolved.
    fn wait(&mut self, held: Held) {
        let view = Arc::clone(&self.view);
        let Some(link) = view.link(held.punt.egress) else {
            self.stats.neighbor.dropped_no_link += 1;
            return self.sockets.umem.free(held.frame);
        };
        // The program asks the MTU of the adjacency, and a neighbour that was never resolved has none.
        let packet = self.sockets.umem.bytes(&held.frame).get(held.punt.l2_len..).and_then(answer::parse);
        if let Some(ip) = packet.filter(|ip| held.punt.decrement_ttl && ip.len > link.mtu as usize) {
            self.stats.neighbor.dropped_mtu += 1;
            let error = icmp::Error::PacketTooBig { mtu: link.mtu };
            return if ip.dont_fragment { self.refuse(held, error) } else { self.sockets.umem.free(held.frame) };
        }
        let next_hop = (held.punt.egress, held.punt.address);
        let queued = self.neighbors.push(next_hop, held, Instant::now());
        if let Some(dropped) = queued.dropped {
            self.stats.neighbor.dropped_full += 1;
            self.sockets.umem.free(dropped.frame);
        }
        if queued.resolve {
            self.tell(FromWorker::Resolve { ifindex: next_hop.0, address: next_hop.1 });
        }
    }

    /// Sends what waits for a next hop, in order.
    fn resolved(&mut self, next_hop: NextHop, mac: Mac) {
        let view = Arc::clone(&self.view);
        for mut held in self.neighbors.take(next_hop) {
            let umem = &mut self.sockets.umem;
            let Some(link) = view.link(next_hop.0) else {
                self.stats.neighbor.dropped_no_link += 1;
                umem.free(held.frame);
                continue;
            };
            let packet = umem.bytes_mut(&mut held.frame).get_mut(held.punt.l2_len..).unwrap_or_default();
            let forwarded = !held.punt.decrement_ttl || l2::decrement_ttl(packet);
            let header = Header::new(mac, link, packet).filter(|_| forwarded);
            if !header.is_some_and(|header| readdress(umem, &mut held.frame, held.punt.l2_len, &header)) {
                self.stats.malformed += 1;
                umem.free(held.frame);
                continue;
            }
            self.stats.neighbor.forwarded += 1;
            self.send(link.device, held.frame, SentFor::Resolved, held.taken);
        }
    }

    /// Gives up next hops that do not answer and asks again for the others.
    fn expire(&mut self, now: Instant) {
        if self.neighbors.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        let due = self.neighbors.due(now);
        for (ifindex, address) in due.retry {
            self.tell(FromWorker::Resolve { ifindex, address });
        }
        for held in due.unreachable {
            self.unreachable(held);
        }
    }

    /// The next hop does not answer. Whoever sent an encapsulated packet here is this node: there is nobody to tell.
    fn unreachable(&mut self, held: Held) {
        self.stats.neighbor.dropped_unreachable += 1;
        match held.punt.reason {
            PuntReason::Neighbor => self.refuse(held, icmp::Error::Unreachable(Unreachable::Address)),
            _ => self.sockets.umem.free(held.frame),
        }
    }

    /// Drops a packet and tells its sender why, as far as that is allowed.
    fn refuse(&mut self, held: Held, error: icmp::Error) {
        let view = Arc::clone(&self.view);
        let umem = &mut self.sockets.umem;
        let Some(mut reply) = umem.alloc() else {
            self.stats.no_frame += 1;
            return umem.free(held.frame);
        };
        let ingress = self.ingress.get(&held.punt.port).copied().unwrap_or(IfIndex(0));
        let about = umem.bytes(&held.frame);
        let sender = about.get(held.punt.l2_len..).and_then(answer::parse).map(|ip| ip.src);
        let built = answer::error_frame(about, held.punt.l2_len, error, &view, ingress, umem.room_mut(&mut reply));
        umem.free(held.frame);
        let icmp = &mut self.stats.icmp;
        match built {
            Ok((link, len)) if umem.resize(&mut reply, len) => {
                if sender.is_some_and(|sender| self.limit.allow(sender, Instant::now())) {
                    icmp.errors += 1;
                    return self.send(link.device, reply, SentFor::Answer, held.taken);
                }
                icmp.rate_limited += 1;
            }
            Err(Refused::From) => icmp.no_source += 1,
            Ok(_) | Err(Refused::Malformed(_) | Refused::NotIp | Refused::Buffer { .. }) => self.stats.malformed += 1,
            Err(_) => icmp.forbidden += 1,
        }
        umem.free(reply);
    }

    /// Answers an echo request for the VIP, in the frame that it came in.
    fn echo(&mut self, mut held: Held) {
        let view = Arc::clone(&self.view);
        let umem = &mut self.sockets.umem;
        let link = self.ingress.get(&held.punt.port).and_then(|ingress| view.link(*ingress));
        let (Some(link), Some(sender)) = (link, l2::source(umem.bytes(&held.frame))) else {
            self.stats.icmp.no_source += 1;
            return umem.free(held.frame);
        };
        let packet = umem.bytes_mut(&mut held.frame).get_mut(held.punt.l2_len..).unwrap_or_default();
        let Ok(len) = icmp::echo_reply(packet) else {
            self.stats.icmp.forbidden += 1;
            return umem.free(held.frame);
        };
        let header = Header::new(sender, link, packet);
        let fits = umem.resize(&mut held.frame, held.punt.l2_len + len)
            && header.is_some_and(|header| readdress(umem, &mut held.frame, held.punt.l2_len, &header));
        if !fits {
            self.stats.malformed += 1;
            return umem.free(held.frame);
        }
        self.stats.icmp.echo_replies += 1;
        self.send(link.device, held.frame, SentFor::Answer, held.taken);
    }

    /// Puts a frame on the wire of an interface, by another worker where only that one has a socket there.
    fn send(&mut self, device: IfIndex, frame: Frame, sent_for: SentFor, taken: Instant) {
        match self.sockets.send(device, frame) {
            Ok(()) => self.record(sent_for, taken),
            Err((frame, Unsent::Full)) => self.sockets.umem.free(frame),
            Err((frame, Unsent::NoSocket)) => {
                self.hand_off(device, self.sockets.umem.bytes(&frame).into(), sent_for, taken);
                self.sockets.umem.free(frame);
            }
        }
    }

    /// Gives a frame to the worker that has a socket on every interface, if this is not that one.
    fn hand_off(&mut self, device: IfIndex, bytes: Box<[u8]>, sent_for: SentFor, taken: Instant) {
        let handoff = &mut self.stats.handoff;
        let Some(first) = self.channels.first.as_ref().filter(|_| self.devices.contains(&device)) else {
            handoff.no_socket += 1;
            return;
        };
        match first.frames.try_send(Handoff { device, bytes, sent_for, taken }) {
            Ok(()) => {
                handoff.sent += 1;
                first.wake.wake();
            }
            Err(_) => handoff.dropped += 1,
        }
    }

    /// Sends what other workers have no socket for. True where more is waiting.
    fn take_handoffs(&mut self) -> bool {
        for _ in 0..BURST {
            let Ok(handoff) = self.channels.handoffs.try_recv() else { return false };
            self.stats.handoff.received += 1;
            let umem = &mut self.sockets.umem;
            let Some(mut frame) = umem.alloc() else {
                self.stats.no_frame += 1;
                continue;
            };
            if umem.write(&mut frame, &handoff.bytes) {
                self.send(handoff.device, frame, handoff.sent_for, handoff.taken);
            } else {
                self.stats.malformed += 1;
                umem.free(frame);
            }
        }
        true
    }

    fn record(&mut self, sent_for: SentFor, taken: Instant) {
        let histogram = match sent_for {
            SentFor::Answer => &mut self.stats.answer_ns,
            SentFor::Resolved => &mut self.stats.resolve_ns,
        };
        histogram.saturating_record(u64::try_from(taken.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    fn publish(&mut self, now: Instant) {
        self.published_at = now;
        let (stats, umem) = (&mut self.stats, &self.sockets.umem);
        stats.punts = PuntReason::ALL.iter().zip(self.punts).map(|(reason, count)| (reason.name(), count)).collect();
        stats.neighbor.frames = self.neighbors.frames() as u64;
        stats.neighbor.next_hops = self.neighbors.next_hops() as u64;
        stats.frames = FrameStats {
            total: umem.len() as u64,
            in_kernel: umem.in_kernel() as u64,
            free: umem.free_frames() as u64,
            held: self.neighbors.frames() as u64,
        };
        stats.sockets = self.sockets.stats();
        self.channels.published.set(stats);
    }
}

/// Puts a link-layer header in place of the first `l2_len` bytes of a frame.
fn readdress(umem: &Umem, frame: &mut Frame, l2_len: usize, header: &Header) -> bool {
    let len = umem.bytes(frame).len();
    let new_len = header.replace(umem.room_mut(frame), len, l2_len);
    new_len.is_some_and(|len| umem.resize(frame, len))
}
