//! One configured peer: its session, its timers and its connections.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bgp::{
    Action, AdjRibOut, Config, ConnectionId, DownReason, Event, Family, PeerId, Session, State, StopReason, Timer,
};
use model::desired::BgpPeer;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::socket::Distance;
use super::transport::{Outbox, Place, Target};

/// How long a peer that has never been up may take before forwarding no longer waits for it, where it has no restart time.
const CONNECT_GRACE: Duration = Duration::from_secs(30);
/// How long a session that is up may take to send all its routes.
const LOAD_GRACE: Duration = Duration::from_secs(60);
/// Silence after which a peer without End-of-RIB counts as having sent all its routes.
const QUIET: Duration = Duration::from_secs(2);

/// One connection of a peer.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) outbox: Outbox,
    pub(super) place: Place,
    /// What was read last has been taken in, and nothing has been read since.
    pub(super) waits: bool,
}

/// The session while it is established.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) connection: ConnectionId,
    pub(super) established: bgp::Established,
    pub(super) since: Instant,
    pub(super) out: AdjRibOut,
    /// Families whose End-of-RIB is still to come.
    pub(super) loading: Vec<Family>,
    /// A malformed attribute has been logged already.
    pub(super) complained: bool,
}

/// One configured peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) config: BgpPeer,
    pub(super) internal: bool,
    pub(super) session: Session,
    pub(super) timers: BTreeMap<Timer, Instant>,
    pub(super) links: HashMap<ConnectionId, Link>,
    pub(super) connecting: Option<AbortHandle>,
    /// Why the last attempt to connect failed.
    pub(super) connect_error: Option<String>,
    pub(super) up: Option<Up>,
    pub(super) flaps: u64,
    pub(super) malformed: u64,
    /// Until when forwarding waits for its routes after a start; `None` once it need not any more.
    pub(super) waiting: Option<Instant>,
}

impl Peer {
    /// A peer that has not been started.
    pub(super) fn new(id: PeerId, config: &BgpPeer, asn: u32, router_id: Ipv4Addr, forwarding_preserved: bool) -> Self {
        let session = Session::new(Config {
            local_asn: asn,
            router_id,
            peer_asn: config.asn,
            hold_seconds: config.keepalive_seconds.saturating_mul(3),
            restart_seconds: config.restart_seconds,
            forwarding_preserved,
            passive: config.passive,
            seed: fastrand::u64(..),
        });
        let grace = match config.restart_seconds {
            0 => CONNECT_GRACE,
            seconds => Duration::from_secs(seconds.into()),
        };
        Self {
            id,
            internal: asn == config.asn,
            session,
            timers: BTreeMap::new(),
            links: HashMap::new(),
            connecting: None,
            connect_error: None,
            up: None,
            flaps: 0,
            malformed: 0,
            waiting: Some(Instant::now() + grace),
            config: config.clone(),
        }
    }

    /// How far away it may be.
    pub(super) fn distance(&self) -> Distance {
        match (self.config.ttl_security, self.internal) {
            (Some(hops), _) => Distance::Hops(hops),
            (None, true) => Distance::Any,
            (None, false) => Distance::Connected,
        }
    }

    /// Where and how to connect to it.
    pub(super) fn target(&self) -> Target {
        Target {
            peer: SocketAddr::new(self.config.address, self.config.port),
            interface: self.config.interface.clone(),
            source: self.config.source,
            distance: self.distance(),
            password: self.config.password.clone(),
        }
    }

    /// How long it may take no bytes (RFC 9687).
    pub(super) fn send_hold(&self) -> Duration {
        let hold = self.config.keepalive_seconds.saturating_mul(3);
        Duration::from_secs(bgp::session::send_hold_seconds(hold).into())
    }

    /// When it next needs to be looked at.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.timers.values().copied().chain(self.waiting).min()
    }

    /// Takes one timer that is over.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Timer> {
        let timer = self.timers.iter().find(|(_, at)| **at <= now).map(|(timer, _)| *timer)?;
        self.timers.remove(&timer);
        Some(timer)
    }

    /// Feeds the session; what concerns timers and bytes is done here, the rest is returned.
    pub(super) fn handle(&mut self, event: Event<'_>) -> Vec<Action> {
        let mut rest = Vec::new();
        if let Event::Received(id, _) = event
            && let Some(link) = self.links.get_mut(&id)
        {
            link.waits = true;
        }
        for action in self.session.handle(event) {
            match action {
                Action::SetTimer(timer, after) => {
                    self.timers.insert(timer, Instant::now() + after);
                }
                Action::StopTimer(timer) => {
                    self.timers.remove(&timer);
                }
                Action::Send(id, bytes) => {
                    if let Some(link) = self.links.get(&id) {
                        link.outbox.send(bytes);
                    }
                }
                Action::Close(id) => {
                    self.links.remove(&id);
                }
                action => rest.push(action),
            }
        }
        for (id, link) in &mut self.links {
            if link.waits && !self.session.is_full(*id) {
                link.waits = false;
                link.outbox.read_on();
            }
        }
        rest
    }

    /// Sends UPDATEs for as long as the connection takes them.
    pub(super) fn pump(&mut self) {
        let Some(up) = &mut self.up else { return };
        let Some(link) = self.links.get(&up.connection) else { return };
        while link.outbox.room() {
            let Some(message) = up.out.next_message() else { return };
            link.outbox.send(message);
        }
    }

    /// The session has come up: forwarding may wait for its routes.
    pub(super) fn wait_for_routes(&mut self) {
        let Some(up) = &self.up else { return };
        let grace = if up.established.graceful_restart { LOAD_GRACE } else { QUIET };
        if self.waiting.is_some() {
            self.waiting = Some(Instant::now() + grace);
        }
    }

    /// Routes have arrived.
    pub(super) fn routes_arrived(&mut self) {
        // A peer without End-of-RIB is done once it has nothing more to say.
        if self.up.as_ref().is_some_and(|up| !up.established.graceful_restart) {
            self.wait_for_routes();
        }
    }

    /// All routes of a family have arrived.
    pub(super) fn end_of_rib(&mut self, family: Family) {
        if let Some(up) = &mut self.up {
            up.loading.retain(|f| *f != family);
            if up.loading.is_empty() {
                self.waiting = None;
            }
        }
    }

    /// What a person sees.
    pub(super) fn snapshot(&self, counts: (usize, usize)) -> Snapshot {
        let up = self.up.as_ref();
        Snapshot {
            name: self.config.name.clone(),
            address: self.config.address,
            asn: self.config.asn,
            state: self.session.state(),
            since: up.map(|up| up.since),
            families: up.map(|up| up.established.families.clone()).unwrap_or_default(),
            received: counts.0,
            accepted: counts.1,
            sent: up.map_or(0, |up| up.out.len()),
            hold_seconds: up.map(|up| up.established.hold_seconds),
            // A connection that cannot be made says more than the end of the one before.
            last_error: self
                .connect_error
                .as_ref()
                .filter(|_| up.is_none())
                .map(|error| format!("cannot connect: {error}"))
                .or_else(|| self.session.last_error().map(DownReason::to_string)),
            flaps: self.flaps,
            malformed: self.malformed,
        }
    }

    /// Ends every connection.
    pub(super) fn stop(&mut self, reason: StopReason) -> Vec<Action> {
        if let Some(connecting) = self.connecting.take() {
            connecting.abort();
        }
        self.waiting = None;
        self.handle(Event::Stop(reason))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BgpPeer { address, interface, .. } = &self.config;
        match interface {
            Some(interface) => write!(f, "{address}%{interface}"),
            None => write!(f, "{address}"),
        }
    }
}

/// The state of a peer at one moment.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) asn: u32,
    pub(super) state: State,
    pub(super) since: Option<Instant>,
    pub(super) families: Vec<Family>,
    pub(super) received: usize,
    pub(super) accepted: usize,
    pub(super) sent: usize,
    pub(super) hold_seconds: Option<u16>,
    pub(super) last_error: Option<String>,
    pub(super) flaps: u64,
    pub(super) malformed: u64,
}
