//! The sockets of one worker: which interfaces and queues it serves, over one UMEM.
//!
//! A new interface is added to the UMEM in use. When one goes, or the UMEM is too small, or a driver cannot do the
//! zero-copy that the others do, everything is made anew over a new UMEM; frames that wait for a neighbour are carried over.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::num::NonZeroU32;
use std::os::fd::AsFd as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use model::network::IfIndex;
use rustix::event::{PollFd, PollFlags};
use tracing::{info, warn};

use super::umem::{Burst, FRAMES_PER_SOCKET, Frame, Socket, Umem};
use super::xskmap::{self, XskMap};
use super::{Error, PortSockets, SocketStats, neighbor};

/// Frames beside those in the rings: what waits for neighbours, and as much again to work with.
const FRAMES_RESERVED: u32 = 2 * neighbor::TOTAL as u32;
/// The kernel releases a closed socket's queue from a work queue, so a new socket can find it busy for a moment.
const BUSY_RETRY: Duration = Duration::from_millis(10);
const BUSY_LIMIT: Duration = Duration::from_secs(1);

/// A place for a socket.
type Place = (IfIndex, u32);

/// What one worker should serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Interface name of each place.
    places: BTreeMap<Place, String>,
    /// XSKMAP key to place; VLAN ports share the places of their device.
    keys: BTreeMap<u32, Place>,
}

impl Plan {
    /// Every `workers`-th queue from `worker` on, of every port.
    fn new(worker: usize, workers: usize, ports: &[PortSockets]) -> Self {
        let mut plan = Self::default();
        for port in ports {
            for queue in (0..port.queues.min(xskmap::QUEUES_PER_PORT)).skip(worker).step_by(workers.max(1)) {
                plan.places.insert((port.device, queue), port.name.clone());
                plan.keys.insert(xskmap::key(port.port, queue), (port.device, queue));
            }
        }
        plan
    }
}

/// A bound socket and what was counted for it.
#[derive(Debug)]
struct Bound {
    place: Place,
    name: String,
    socket: Socket,
    rx: u64,
    tx: u64,
    tx_full: u64,
}

/// Why a frame was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsent {
    /// The transmit ring is full: the interface is down or slower than what is sent.
    Full,
    /// No socket on the interface.
    NoSocket,
}

/// UMEM and sockets of one worker.
#[derive(Debug)]
pub(super) struct SocketSet {
    worker: usize,
    workers: usize,
    min_frames: u32,
    pub(super) umem: Umem,
    zero_copy: bool,
    bound: Vec<Bound>,
    /// First socket of each interface, to send by.
    egress: HashMap<IfIndex, usize>,
    /// Keys that are in the map now.
    keys: BTreeSet<u32>,
    map: XskMap,
}

impl SocketSet {
    /// Binds what worker `worker` of `workers` serves and puts it into the map. What could not be bound is in the second
    /// half of the result; the rest works.
    ///
    /// # Errors
    /// [`Error::Umem`].
    pub(super) fn open(
        worker: usize,
        workers: usize,
        min_frames: u32,
        ports: &[PortSockets],
        map: XskMap,
    ) -> Result<(Self, Vec<Error>), Error> {
        let plan = Plan::new(worker, workers, ports);
        let umem = new_umem(worker, min_frames, &plan)?;
        let mut set = Self {
            worker,
            workers,
            min_frames,
            umem,
            zero_copy: true,
            bound: Vec::new(),
            egress: HashMap::new(),
            keys: BTreeSet::new(),
            map,
        };
        let failures = set.bind_all(&plan)?;
        Ok((set, failures))
    }

    /// Serves `ports` from now on. `carry` is called where the UMEM was made anew: with the old one and the new one, to
    /// bring over the frames that the worker holds; what it leaves is lost. True where that happened.
    ///
    /// # Errors
    /// [`Error::Umem`]: nothing has changed then.
    pub(super) fn set_ports(
        &mut self,
        ports: &[PortSockets],
        carry: impl FnOnce(&mut Umem, &mut Umem),
    ) -> Result<(bool, Vec<Error>), Error> {
        let plan = Plan::new(self.worker, self.workers, ports);
        self.retract(&plan);
        let gone = self.bound.iter().any(|bound| !plan.places.contains_key(&bound.place));
        let fits = frames_needed(self.min_frames, &plan) as usize <= self.umem.len();
        if !gone && fits {
            let failures = self.bind_missing(&plan);
            // A driver without zero-copy among ones with it: all sockets of a UMEM do the same.
            if failures.is_empty() || !self.zero_copy || self.bound.is_empty() {
                return Ok((false, failures));
            }
        }
        let mut old = std::mem::replace(&mut self.umem, new_umem(self.worker, self.min_frames, &plan)?);
        self.close_all();
        carry(&mut old, &mut self.umem);
        drop(old);
        self.zero_copy = true;
        Ok((true, self.bind_all(&plan)?))
    }

    /// Binds everything into a UMEM without sockets: zero-copy if every driver has it, else copy mode.
    fn bind_all(&mut self, plan: &Plan) -> Result<Vec<Error>, Error> {
        let failures = self.bind_missing(plan);
        let Some(first) = failures.first() else { return Ok(failures) };
        warn!(worker = self.worker, cause = %first, "no zero-copy: AF_XDP sockets copy");
        self.zero_copy = false;
        if !self.bound.is_empty() {
            // The UMEM stays zero-copy once a socket was.
            let mut fresh = new_umem(self.worker, self.min_frames, plan)?;
            self.close_all();
            std::mem::swap(&mut self.umem, &mut fresh);
        }
        Ok(self.bind_missing(plan))
    }

    /// Binds the places of the plan that have no socket and publishes all keys.
    fn bind_missing(&mut self, plan: &Plan) -> Vec<Error> {
        let mut failures = Vec::new();
        for (place, name) in &plan.places {
            if self.bound.iter().any(|bound| bound.place == *place) {
                continue;
            }
            match bind(&mut self.umem, name, place.1, self.zero_copy) {
                Ok(socket) => {
                    info!(interface = %name, queue = place.1, zero_copy = self.zero_copy, "AF_XDP socket bound");
                    self.egress.entry(place.0).or_insert(self.bound.len());
                    self.bound.push(Bound { place: *place, name: name.clone(), socket, rx: 0, tx: 0, tx_full: 0 });
                }
                Err(source) => failures.push(Error::Bind { interface: name.clone(), queue: place.1, source }),
            }
            // The other sockets would be closed again.
            if self.zero_copy && !failures.is_empty() {
                return failures;
            }
        }
        failures.extend(self.publish(plan));
        failures
    }

    /// Puts every socket into the map; the program sends frames from here on.
    fn publish(&mut self, plan: &Plan) -> Vec<Error> {
        let mut failures = Vec::new();
        for (key, place) in &plan.keys {
            let Some(bound) = self.bound.iter().find(|bound| bound.place == *place) else { continue };
            match self.map.insert(*key, bound.socket.raw_fd()) {
                Ok(()) => {
                    self.keys.insert(*key);
                }
                Err(source) => {
                    failures.push(Error::Map { interface: bound.name.clone(), queue: place.1, key: *key, source })
                }
            }
        }
        failures
    }

    /// Takes the keys that the plan does not have out of the map: their frames fall back as their punt reason says.
    fn retract(&mut self, plan: &Plan) {
        let gone: Vec<u32> = self.keys.iter().filter(|key| !plan.keys.contains_key(*key)).copied().collect();
        for key in gone {
            self.keys.remove(&key);
            if let Err(error) = self.map.remove(key) {
                warn!(key, %error, "XSKMAP entry stays");
            }
        }
    }

    /// Takes every key out of the map and closes every socket.
    pub(super) fn close_all(&mut self) {
        self.retract(&Plan::default());
        self.egress.clear();
        self.bound.clear();
    }

    /// Sockets, by the index that the other methods take.
    pub(super) fn len(&self) -> usize {
        self.bound.len()
    }

    /// Takes sent frames back, then up to a burst of received ones.
    pub(super) fn receive(&mut self, index: usize, burst: &mut Burst) -> usize {
        let Some(bound) = self.bound.get_mut(index) else { return 0 };
        bound.socket.complete(&mut self.umem);
        let count = bound.socket.rx(&mut self.umem, burst);
        bound.rx += count as u64;
        count
    }

    /// Puts a frame on the transmit ring of an interface.
    ///
    /// # Errors
    /// The frame, with the reason.
    pub(super) fn send(&mut self, device: IfIndex, frame: Frame) -> Result<(), (Frame, Unsent)> {
        let Some(bound) = self.egress.get(&device).and_then(|index| self.bound.get_mut(*index)) else {
            return Err((frame, Unsent::NoSocket));
        };
        let frame = match bound.socket.tx(&mut self.umem, frame) {
            Ok(()) => {
                bound.tx += 1;
                return Ok(());
            }
            Err(frame) => frame,
        };
        // A full ring may only be waiting to be told.
        bound.socket.kick();
        bound.socket.complete(&mut self.umem);
        match bound.socket.tx(&mut self.umem, frame) {
            Ok(()) => {
                bound.tx += 1;
                Ok(())
            }
            Err(frame) => {
                bound.tx_full += 1;
                Err((frame, Unsent::Full))
            }
        }
    }

    /// Refills the fill rings and tells the kernel of what is on the transmit rings. True while some of that is unsent.
    pub(super) fn flush(&mut self) -> bool {
        let mut unsent = false;
        for bound in &mut self.bound {
            bound.socket.fill(&mut self.umem);
            bound.socket.kick();
            bound.socket.complete(&mut self.umem);
            unsent |= bound.socket.unsent() > 0;
        }
        unsent
    }

    /// Appends what wakes this worker up.
    pub(super) fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.extend(self.bound.iter().map(|bound| PollFd::from_borrowed_fd(bound.socket.as_fd(), PollFlags::IN)));
    }

    /// Numbers of every socket, the kernel's included.
    pub(super) fn stats(&self) -> Vec<SocketStats> {
        self.bound
            .iter()
            .map(|bound| {
                let kernel = bound.socket.kernel_counts();
                SocketStats {
                    interface: bound.name.clone(),
                    queue: bound.place.1,
                    zero_copy: self.zero_copy,
                    rx: bound.rx,
                    tx: bound.tx,
                    tx_full: bound.tx_full,
                    rx_ring_full: kernel.rx_ring_full,
                    fill_empty: kernel.fill_empty,
                    rx_dropped: kernel.rx_dropped,
                }
            })
            .collect()
    }
}

impl Drop for SocketSet {
    fn drop(&mut self) {
        // The map is pinned and outlives the process; a key must not be left to a descriptor that is going away.
        self.close_all();
    }
}

fn frames_needed(min_frames: u32, plan: &Plan) -> u32 {
    let sockets = u32::try_from(plan.places.len()).unwrap_or(u32::MAX);
    sockets.saturating_mul(FRAMES_PER_SOCKET).saturating_add(FRAMES_RESERVED).max(min_frames)
}

fn new_umem(worker: usize, min_frames: u32, plan: &Plan) -> Result<Umem, Error> {
    let frames = frames_needed(min_frames, plan);
    let count = NonZeroU32::new(frames).ok_or(io::ErrorKind::InvalidInput.into());
    count.and_then(Umem::new).map_err(|source| Error::Umem { worker, frames, source })
}

fn bind(umem: &mut Umem, name: &str, queue: u32, zero_copy: bool) -> io::Result<Socket> {
    let limit = Instant::now() + BUSY_LIMIT;
    loop {
        match Socket::bind(umem, name, queue, zero_copy) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < limit => sleep(BUSY_RETRY),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::tables::PortId;

    fn port(port: u32, device: u32, queues: u32) -> PortSockets {
        PortSockets {
            port: PortId(port),
            interface: IfIndex(100 + port),
            device: IfIndex(device),
            name: format!("eth{device}"),
            queues,
        }
    }

    #[test]
    fn workers_share_the_queues_and_vlans_share_the_sockets() {
        let ports = [port(1, 2, 4), port(2, 3, 1), port(3, 2, 4)];
        let plan = Plan::new(0, 2, &ports);
        assert_eq!(
            plan.places.keys().copied().collect::<Vec<_>>(),
            [(IfIndex(2), 0), (IfIndex(2), 2), (IfIndex(3), 0)]
        );
        assert_eq!(plan.keys.keys().copied().collect::<Vec<_>>(), [64, 66, 128, 192, 194]);
        assert_eq!(plan.keys[&192], (IfIndex(2), 0), "the VLAN's frames come in by its device's queue");
        let plan = Plan::new(1, 2, &ports);
        assert_eq!(
            plan.keys.keys().copied().collect::<Vec<_>>(),
            [65, 67, 193, 195],
            "the other one has nothing of eth3"
        );
    }

    #[test]
    fn every_socket_can_have_its_rings_full() {
        let plan = Plan::new(0, 1, &[port(1, 2, 8), port(2, 3, 8)]);
        assert!(frames_needed(0, &plan) > 16 * FRAMES_PER_SOCKET + neighbor::TOTAL as u32);
        assert_eq!(frames_needed(1 << 20, &plan), 1 << 20);
    }
}
