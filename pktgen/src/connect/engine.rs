//! All connections of a thread: when they start, which packet belongs to which, whose timer fires. Pure: frames and
//! time in, frames out.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::time::Duration;

use slab::Slab;

use super::clients::{Client, Clients};
use super::machine::{Context, Exchange, Machine, Outgoing, Turn, ns};
use super::segment::{self, Body, Link, Packet, Refused};
use super::stats::Stats;
use super::tcp::WINDOW;
use super::wheel::{Timer, Wheel};

/// Packets that wait for the TX ring at most before no more are read and no more connections begun.
const OUT_MAX: usize = 4096;
/// Client ends that are tried for one that is free.
const CLIENTS_TRIED: usize = 64;
/// How far behind its schedule an open loop may be before starts are given up: 10 ms, so that a pause of the machine
/// does not become a burst.
const LAG_MAX_NS: u64 = 10_000_000;

/// When connections begin.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Open loop: connections a second, whatever becomes of them.
    pub cps: Option<f64>,
    /// Connections open at once at most; without `cps` as many are kept open.
    pub concurrent: Option<u64>,
    /// Connections in all.
    pub count: Option<u64>,
    /// How long connections are begun.
    pub duration: Option<Duration>,
}

/// Starts that the load grants.
#[derive(Debug)]
struct Starts {
    load: Load,
    begun_ns: u64,
    /// Time of the next start in the open loop.
    next_ns: f64,
    interval_ns: f64,
    started: u64,
    /// Starts of the schedule that were given up.
    missed: u64,
}

impl Starts {
    fn new(load: Load, now: u64) -> Self {
        let interval_ns = load.cps.map_or(0.0, |cps| 1e9 / cps);
        Self { load, begun_ns: now, next_ns: now as f64, interval_ns, started: 0, missed: 0 }
    }

    fn over(&self, now: u64) -> bool {
        self.load.count.is_some_and(|count| self.started >= count)
            || self.load.duration.is_some_and(|duration| now >= self.begun_ns + ns(duration))
    }

    /// Whether another connection may begin.
    fn grant(&mut self, now: u64, open: u64) -> bool {
        if self.over(now) || self.load.concurrent.is_some_and(|concurrent| open >= concurrent) {
            return false;
        }
        if self.load.cps.is_none() {
            return true;
        }
        let earliest = now.saturating_sub(LAG_MAX_NS) as f64;
        if self.next_ns < earliest {
            let missed = ((earliest - self.next_ns) / self.interval_ns).floor();
            self.missed += missed as u64;
            self.next_ns += missed * self.interval_ns;
        }
        self.next_ns <= now as f64
    }

    fn started(&mut self) {
        self.started += 1;
        self.next_ns += self.interval_ns;
    }
}

/// Where the packets go.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// The server.
    pub target: SocketAddr,
    /// Ethernet addresses.
    pub link: Link,
}

struct Entry<M> {
    machine: M,
    /// The tick at which its one timer that counts is set; the others in the wheel are stale.
    armed: u64,
    ended: bool,
}

/// The connections of one thread.
pub struct Engine<M> {
    exchange: Exchange,
    path: Path,
    clients: Clients,
    starts: Starts,
    table: Slab<Entry<M>>,
    index: HashMap<Client, u32>,
    wheel: Wheel,
    fired: Vec<Timer>,
    out: VecDeque<Outgoing>,
    /// Keys of the initial sequence numbers (RFC 6528).
    secret: RandomState,
    stats: Stats,
    open: u64,
    peak: u64,
    winding_down: bool,
    last_end_ns: u64,
}

impl<M: Machine> Engine<M> {
    /// Without connections, at time `now`.
    pub fn new(exchange: Exchange, path: Path, clients: Clients, load: Load, stats: Stats, now: u64) -> Self {
        Self {
            exchange,
            path,
            clients,
            starts: Starts::new(load, now),
            table: Slab::new(),
            index: HashMap::new(),
            wheel: Wheel::new(now),
            fired: Vec::new(),
            out: VecDeque::new(),
            secret: RandomState::new(),
            stats,
            open: 0,
            peak: 0,
            winding_down: false,
            last_end_ns: now,
        }
    }

    /// Whether it can take more: the caller reads no packets while it cannot.
    pub fn has_room(&self) -> bool {
        self.out.len() < OUT_MAX
    }

    /// A frame came.
    pub fn receive(&mut self, frame: &[u8], now: u64) {
        self.stats.counts.packets_received += 1;
        let packet = match Packet::parse(frame) {
            Ok(packet) => packet,
            Err(Refused::Checksum) => {
                self.stats.counts.bad_checksum += 1;
                return;
            }
            Err(Refused::Foreign) => {
                self.stats.counts.unexpected += 1;
                return;
            }
        };
        let client = (packet.src == self.path.target && M::speaks(&packet)).then_some(packet.dst);
        let client = client.and_then(|to| Some(Client { host: self.clients.host(to.ip())?, port: to.port() }));
        let key = client.and_then(|client| self.index.get(&client).copied());
        let Some(key) = key else {
            self.stats.counts.unexpected += 1;
            return;
        };
        self.turn(key, now, |machine, cx| machine.receive(cx, &packet.body));
    }

    /// Time has passed: timers fire, connections begin.
    pub fn advance(&mut self, now: u64) {
        let mut fired = std::mem::take(&mut self.fired);
        self.wheel.fire(now, &mut fired);
        for timer in fired.drain(..) {
            let entry = usize::try_from(timer.key).ok().and_then(|key| self.table.get_mut(key));
            // A slot may belong to another connection by now, whose timer is another.
            let Some(entry) = entry.filter(|entry| entry.armed == timer.tick) else { continue };
            entry.armed = u64::MAX;
            self.turn(timer.key, now, M::expire);
        }
        self.fired = fired;
        if self.starts.over(now) && !self.winding_down {
            self.wind_down(now);
        }
        while self.has_room() && self.starts.grant(now, self.open) {
            if !self.begin(now) {
                self.stats.counts.exhausted += 1;
                break;
            }
        }
    }

    fn wind_down(&mut self, now: u64) {
        self.winding_down = true;
        for (key, entry) in &mut self.table {
            entry.machine.wind_down(now);
            if let Ok(key) = u32::try_from(key) {
                arm(&mut self.wheel, key, entry);
            }
        }
    }

    fn begin(&mut self, now: u64) -> bool {
        let mut tried = self.clients.by_ref().take(CLIENTS_TRIED);
        let Some(client) = tried.find(|client| !self.index.contains_key(client)) else { return false };
        let Ok(key) = u32::try_from(self.table.vacant_key()) else { return false };
        // A clock of 4 microseconds plus a keyed hash of the connection: numbers of one pair go up (RFC 6528 §3).
        let iss = (now / 4000).wrapping_add(self.secret.hash_one(client)) & 0xffff_ffff;
        let mut cx = Context { now, exchange: &self.exchange, stats: &mut self.stats, out: &mut self.out };
        let machine = M::open(&mut cx, client, u32::try_from(iss).unwrap_or(0));
        let mut entry = Entry { machine, armed: u64::MAX, ended: false };
        arm(&mut self.wheel, key, &mut entry);
        self.table.insert(entry);
        self.index.insert(client, key);
        self.stats.counts.attempted += 1;
        self.starts.started();
        self.open += 1;
        self.peak = self.peak.max(self.open);
        true
    }

    fn turn(&mut self, key: u32, now: u64, act: impl FnOnce(&mut M, &mut Context<'_>) -> Turn) {
        let Ok(slot) = usize::try_from(key) else { return };
        let Some(entry) = self.table.get_mut(slot) else { return };
        let mut cx = Context { now, exchange: &self.exchange, stats: &mut self.stats, out: &mut self.out };
        let turn = act(&mut entry.machine, &mut cx);
        if let Some(end) = turn.ended.filter(|_| !entry.ended) {
            entry.ended = true;
            self.open -= 1;
            self.last_end_ns = now;
            self.stats.ended(end, now - entry.machine.opened());
        }
        if turn.free {
            self.index.remove(&entry.machine.client());
            self.table.remove(slot);
        } else {
            arm(&mut self.wheel, key, entry);
        }
    }

    /// Whether a frame waits to be sent.
    pub fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// Writes the next frame to the start of `out`, which takes the MTU and an Ethernet header; returns its length.
    pub fn write_next(&mut self, out: &mut [u8]) -> Option<usize> {
        let next = self.out.pop_front()?;
        let len = segment::write(&self.packet(&next), self.path.link, out);
        self.stats.counts.packets_sent += u64::from(len.is_some());
        len
    }

    fn packet(&self, out: &Outgoing) -> Packet<'_> {
        let src = (self.clients.address(out.client.host), out.client.port).into();
        let body = match out.flags {
            0 => Body::Udp(out.payload(&self.exchange)),
            _ => Body::Tcp(out.segment(&self.exchange, WINDOW)),
        };
        Packet { src, dst: self.path.target, body }
    }

    /// No connection is open and none will begin. Connections in TIME-WAIT are not waited for.
    pub fn is_finished(&self, now: u64) -> bool {
        self.starts.over(now) && self.open == 0 && self.out.is_empty()
    }

    /// When the next connection of an open loop is due.
    pub fn next_start_ns(&self) -> Option<u64> {
        self.starts.load.cps.filter(|_| !self.winding_down).map(|_| self.starts.next_ns as u64)
    }

    /// Connections that are open now: opening, open or closing.
    pub fn open(&self) -> u64 {
        self.open
    }

    /// Connections open at once at most so far.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    /// Starts that an open loop has given up because the machine was too slow.
    pub fn missed(&self) -> u64 {
        self.starts.missed
    }

    /// Time from the beginning to the last end of a connection.
    pub fn elapsed_ns(&self) -> u64 {
        self.last_end_ns - self.starts.begun_ns
    }

    /// What has been counted.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}

/// Makes sure that a timer fires no later than the deadline. One that fires earlier sets the next.
fn arm<M: Machine>(wheel: &mut Wheel, key: u32, entry: &mut Entry<M>) {
    let deadline = entry.machine.deadline();
    if super::wheel::tick(deadline) < entry.armed {
        entry.armed = wheel.set(key, deadline);
    }
}
