//! The session with one peer: connections, negotiation, timers and graceful restart, as events in and actions out.
//!
//! - At most one connection is established; collisions are resolved as RFC 4271 §6.8 asks. The RFC leaves a race: each side
//!   decides when it has both OPENs, and one may be established on a connection by then that the other closes. So an OPEN
//!   waits, unanswered, where its connection is going to lose: see `Session::must_wait`.
//! - The caller owns sockets and clocks. It gives each connection an id, feeds back what happens to it and drops whatever
//!   arrives for an id that an [`Action::Close`] has named. It reads no more from a connection that
//!   [is full](Session::is_full).
//! - [`Action::Up`] and [`Action::Down`] alternate, and routes only arrive between them.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;

use crate::connection::{Agreed, Connection, Step};
use crate::notification::{Notification, cease, code};
use crate::update::{self, Decoded, Update};
use crate::wire::{self, Fault, MAX_MESSAGE_BYTES, Message};
use crate::{Family, wire::HEADER_BYTES};

/// Largest restart time that fits the capability, in seconds (RFC 4724 §3).
pub const MAX_RESTART_SECONDS: u16 = 4095;
/// How long stale routes of a peer that has come back are kept if it never sends End-of-RIB.
pub const STALE_SECONDS: u64 = 360;

/// How long an OPEN waits for what the peer says on another connection or next on this one.
const COLLISION_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes that may wait behind an OPEN that waits. Until it is answered the peer may send a KEEPALIVE or what ends the connection.
const HELD_BYTES: usize = 4 * MAX_MESSAGE_BYTES;
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_CAP: Duration = Duration::from_secs(30);

/// Send Hold Time in seconds (RFC 9687 §6): the longer of eight minutes and twice the hold time.
#[must_use]
pub fn send_hold_seconds(hold_seconds: u16) -> u32 {
    rustbgpd_fsm::default_send_hold_time(hold_seconds)
}

/// One peer, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our autonomous system.
    pub local_asn: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// The peer's autonomous system; the session is internal where equal to ours.
    pub peer_asn: u32,
    /// Hold time that we propose, in seconds: 0 or at least 3 (RFC 4271 §4.2).
    pub hold_seconds: u16,
    /// How long the peer shall keep our routes while we restart, in seconds; 0 for no graceful restart in either role.
    pub restart_seconds: u16,
    /// Our forwarding state survives a restart of this process (Forwarding State bit, RFC 4724 §3).
    pub forwarding_preserved: bool,
    /// Wait for the peer's connection, never connect.
    pub passive: bool,
    /// Seed of the jitter (RFC 4271 §10).
    pub seed: u64,
}

/// Names a connection; the caller chooses it and never reuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// We connected.
    Outgoing,
    /// The peer did.
    Incoming,
}

/// The timers of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// When to connect again.
    Connect,
    /// How long a restarting peer may stay away (RFC 4724 §4.2).
    Restart,
    /// How long stale routes are kept once it is back.
    Stale,
    /// Silence that the peer is allowed.
    Hold(ConnectionId),
    /// When to send the next KEEPALIVE.
    Keepalive(ConnectionId),
    /// How long an OPEN may wait because of another connection.
    Collision(ConnectionId),
}

/// Why a session is stopped by configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Administrative shutdown: Cease/2.
    Shutdown,
    /// The peer is no longer configured: Cease/3.
    Deconfigured,
    /// Its configuration has changed in a way that a session cannot survive: Cease/6.
    Reconfigured,
    /// This process restarts: close without a word, so that the peer keeps our routes (RFC 4724 §4.1).
    Restart,
}

/// What happens to a session.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Begin to connect or to wait.
    Start,
    /// End everything.
    Stop(StopReason),
    /// TCP is up.
    Connected(ConnectionId, Direction),
    /// The connection that [`Action::Connect`] asked for could not be made.
    ConnectFailed,
    /// Bytes have arrived.
    Received(ConnectionId, &'a [u8]),
    /// The connection is gone.
    Closed(ConnectionId),
    /// The peer has not taken our bytes for the send hold time (RFC 9687).
    SendHoldExpired(ConnectionId),
    /// A timer is over.
    Timer(Timer),
}

/// What a session wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a connection.
    Connect,
    /// Send bytes.
    Send(ConnectionId, Bytes),
    /// Close a connection once what was sent before has gone out.
    Close(ConnectionId),
    /// Start a timer, or start it anew.
    SetTimer(Timer, Duration),
    /// Stop a timer.
    StopTimer(Timer),
    /// The session is established on this connection.
    Up(ConnectionId, Established),
    /// The session has ended; routes of the retained families are stale now, the others are gone.
    Down {
        /// Why.
        reason: DownReason,
        /// Families whose routes are kept (RFC 4724 §4.2).
        retained: Vec<Family>,
    },
    /// Routes of the peer have changed.
    Update(Update),
    /// The peer has sent all its routes of a family.
    EndOfRib(Family),
    /// Remove the routes of a family that are still stale.
    FlushStale(Family),
    /// Send all routes of a family again (RFC 2918).
    Refresh(Family),
}

/// What an established session has agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// The peer's BGP identifier.
    pub router_id: Ipv4Addr,
    /// Hold time in seconds; 0 for none.
    pub hold_seconds: u16,
    /// Families that both sides speak, ascending.
    pub families: Vec<Family>,
    /// AS numbers are four octets on the wire (RFC 6793).
    pub four_octet_as: bool,
    /// The peer offers graceful restart, hence sends End-of-RIB.
    pub graceful_restart: bool,
    /// IPv4 prefixes may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// The transport broke.
    Closed,
    /// The peer has opened a new connection: it has restarted (RFC 4724 §4.2).
    PeerRestarted,
    /// We have sent this.
    Sent(Notification),
    /// The peer has sent this.
    Received(Notification),
    /// The peer's NOTIFICATION could not be read.
    MalformedNotification,
    /// We restart.
    Restart,
}

impl std::fmt::Display for DownReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("connection closed"),
            Self::PeerRestarted => f.write_str("peer has restarted"),
            Self::Sent(n) => write!(f, "sent {n}"),
            Self::Received(n) => write!(f, "received {n}"),
            Self::MalformedNotification => f.write_str("received a malformed NOTIFICATION"),
            Self::Restart => f.write_str("restarting"),
        }
    }
}

/// Session states (RFC 4271 §8.2.2); of two connections the one that is further counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Stopped.
    Idle,
    /// Connecting.
    Connect,
    /// Waiting for the peer, or for the time to connect again.
    Active,
    /// OPEN sent.
    OpenSent,
    /// OPEN received.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// The session with one peer.
#[derive(Debug)]
pub struct Session {
    config: Config,
    started: bool,
    connecting: bool,
    connections: Vec<Connection>,
    established: Option<(ConnectionId, Agreed)>,
    /// No session has been up since this process started: the Restart State bit is set.
    restarting: bool,
    /// Families with stale routes.
    stale: Vec<Family>,
    attempts: u32,
    last_error: Option<DownReason>,
    jitter: fastrand::Rng,
    actions: Vec<Action>,
}

impl Session {
    /// A session that waits for [`Event::Start`].
    #[must_use]
    pub fn new(config: Config) -> Self {
        let jitter = fastrand::Rng::with_seed(config.seed);
        Self {
            config,
            started: false,
            connecting: false,
            connections: Vec::new(),
            established: None,
            restarting: true,
            stale: Vec::new(),
            attempts: 0,
            last_error: None,
            jitter,
            actions: Vec::new(),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        let waiting = match (self.started, self.connecting) {
            (false, _) => State::Idle,
            (true, true) => State::Connect,
            (true, false) => State::Active,
        };
        self.connections.iter().map(Connection::state).max().map_or(waiting, |state| state.max(waiting))
    }

    /// Why a connection last ended, were it established or not.
    #[must_use]
    pub fn last_error(&self) -> Option<&DownReason> {
        self.last_error.as_ref()
    }

    /// True where no more is to be read from a connection for now: its OPEN waits, and enough waits behind it.
    #[must_use]
    pub fn is_full(&self, id: ConnectionId) -> bool {
        let connection = self.connections.iter().find(|c| c.id == id);
        connection.is_some_and(|c| c.waiting.is_some() && c.framer.len() >= HELD_BYTES)
    }

    /// Takes in an event and says what to do, in order.
    pub fn handle(&mut self, event: Event<'_>) -> Vec<Action> {
        match event {
            Event::Start => self.start(),
            Event::Stop(reason) => self.stop(reason),
            Event::Connected(id, direction) => self.connected(id, direction),
            Event::ConnectFailed => {
                self.connecting = false;
                self.retry();
            }
            Event::Received(id, bytes) => self.received(id, bytes),
            Event::Closed(id) => self.finish(id, DownReason::Closed),
            Event::SendHoldExpired(id) => self.fail(id, Notification::new(code::SEND_HOLD_TIMER_EXPIRED, 0)),
            Event::Timer(timer) => self.timer(timer),
        }
        // What an OPEN waits for may have come to pass with any event.
        for id in self.connections.iter().filter(|c| c.waiting.is_some()).map(|c| c.id).collect::<Vec<_>>() {
            self.read(id);
        }
        std::mem::take(&mut self.actions)
    }

    fn start(&mut self) {
        if self.started {
            return;
        }
        self.started = true;
        if !self.config.passive {
            self.connecting = true;
            self.actions.push(Action::Connect);
        }
    }

    fn stop(&mut self, reason: StopReason) {
        self.started = false;
        self.connecting = false;
        for id in self.connections.iter().map(|c| c.id).collect::<Vec<_>>() {
            match reason {
                StopReason::Shutdown => self.fail(id, Notification::cease(cease::ADMINISTRATIVE_SHUTDOWN)),
                StopReason::Deconfigured => self.fail(id, Notification::cease(cease::PEER_DECONFIGURED)),
                StopReason::Reconfigured => self.fail(id, Notification::cease(cease::OTHER_CONFIGURATION_CHANGE)),
                StopReason::Restart => self.finish(id, DownReason::Restart),
            }
        }
        self.actions.push(Action::StopTimer(Timer::Connect));
        self.flush_all();
    }

    fn connected(&mut self, id: ConnectionId, direction: Direction) {
        if direction == Direction::Outgoing {
            self.connecting = false;
        }
        if !self.started {
            self.actions.push(Action::Close(id));
            return;
        }
        // The peer's connection came first while ours was being made. Were our OPEN sent now, the peer could not tell it from a
        // restart.
        if direction == Direction::Outgoing && self.connections.iter().any(|c| c.state() >= State::OpenConfirm) {
            self.actions.push(Action::Close(id));
            return;
        }
        // Of several connections in one direction that are not established, the newest is the one that the peer means.
        let established = self.established.as_ref().map(|(id, _)| *id);
        let old: Vec<_> = self
            .connections
            .iter()
            .filter(|c| c.direction == direction && Some(c.id) != established)
            .map(|c| c.id)
            .collect();
        for old in old {
            self.fail(old, Notification::cease(cease::CONNECTION_COLLISION));
        }
        let (connection, steps) =
            Connection::open(id, direction, self.established.is_some(), self.restarting, &self.config);
        self.connections.push(connection);
        self.apply(id, steps, None);
    }

    fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::Connect => {
                if self.started && !self.connecting && self.connections.is_empty() {
                    self.connecting = true;
                    self.actions.push(Action::Connect);
                }
            }
            Timer::Restart | Timer::Stale => self.flush_all(),
            Timer::Hold(id) => {
                if let Some(connection) = self.connection(id) {
                    let steps = connection.hold_timer_expired();
                    self.apply(id, steps, None);
                }
            }
            Timer::Keepalive(id) => {
                if let Some(connection) = self.connection(id) {
                    let steps = connection.keepalive_timer_expired();
                    self.apply(id, steps, None);
                }
            }
            Timer::Collision(id) => {
                self.answer_open(id);
                self.read(id);
            }
        }
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|c| c.id == id)
    }

    fn received(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connection(id) else { return };
        connection.framer.push(bytes);
        self.read(id);
    }

    /// Takes in the messages that have arrived on a connection, as far as its OPEN need not wait.
    fn read(&mut self, id: ConnectionId) {
        // The connection may end with any message.
        while let Some(connection) = self.connection(id) {
            // A NOTIFICATION ends the connection, whatever that waits for.
            if connection.waiting.is_some() && connection.framer.next_kind() != Ok(Some(wire::NOTIFICATION)) {
                if self.must_wait(id) {
                    return;
                }
                self.answer_open(id);
                continue;
            }
            match connection.framer.next() {
                Ok(None) => return,
                Ok(Some(Message::Open(open))) if connection.state() == State::OpenSent => {
                    connection.waiting = Some(open);
                    // Another connection may be one that the peer never looks at.
                    if self.established.is_none() && self.must_wait(id) {
                        self.set(Timer::Collision(id), COLLISION_PATIENCE);
                    }
                }
                Ok(Some(message)) => self.message(id, message),
                Err(Fault::Answer(notification)) => self.fail(id, notification),
                Err(Fault::Silent) => self.finish(id, DownReason::MalformedNotification),
            }
        }
    }

    /// Must the OPEN that waits on a connection go on waiting? As long as it does, the peer cannot be established there.
    ///
    /// - Before a session is up: while a connection of the other direction, to which this one loses by the identifiers, has
    ///   had no OPEN. Were this one answered, the peer might be established on it when that OPEN comes.
    /// - While a session is up and this connection was accepted after that: until the peer says more. If it only crossed the
    ///   established one on its way, the peer ends it; a peer that has restarted answers our OPEN with a KEEPALIVE.
    fn must_wait(&self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.iter().find(|c| c.id == id) else { return false };
        let Some(open) = &connection.waiting else { return false };
        if let Some((_, agreed)) = &self.established {
            return connection.late && agreed.restart.is_some() && connection.framer.next_kind() == Ok(None);
        }
        let loses = connection.direction != self.kept(open.bgp_identifier);
        let undecided =
            |c: &Connection| c.direction != connection.direction && c.state() == State::OpenSent && c.waiting.is_none();
        loses && self.connections.iter().any(undecided)
    }

    /// Which of two connections stays: the speaker with the higher identifier keeps the one that it has opened (RFC 4271 §6.8,
    /// RFC 6286 §2.3).
    fn kept(&self, peer: Ipv4Addr) -> Direction {
        if (self.config.router_id, self.config.local_asn) > (peer, self.config.peer_asn) {
            Direction::Outgoing
        } else {
            Direction::Incoming
        }
    }

    /// Takes in the OPEN that waits, and with it resolves a collision (RFC 4271 §6.8): at most one connection goes on. A timer
    /// that still runs finds nothing to do.
    fn answer_open(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        let Some(open) = connection.waiting.take() else { return };
        let late = connection.late;
        let kept = self.kept(open.bgp_identifier);
        let has_open = |c: &&Connection| c.state() >= State::OpenConfirm || c.waiting.is_some();
        let other = self.connections.iter().filter(|c| c.id != id).find(has_open);
        let other = other.map(|c| (c.id, c.direction, c.state() == State::Established));
        let loses = match other {
            // One that was opened after the session was up tells of a restart (RFC 4724 §4.2); one that crossed the
            // established one on its way does not, and losing the session to it would flap.
            Some((.., true)) => !late || self.established.as_ref().is_none_or(|(_, agreed)| agreed.restart.is_none()),
            Some((_, other_direction, false)) => other_direction == kept,
            None => false,
        };
        if loses {
            // No KEEPALIVE goes out: with it, the peer might be established here before it reads the NOTIFICATION.
            self.fail(id, Notification::cease(cease::CONNECTION_COLLISION));
            return;
        }
        self.message(id, Message::Open(open));
        let goes_on = self.connection(id).is_some_and(|c| c.state() == State::OpenConfirm);
        match other.filter(|_| goes_on) {
            Some((other, _, true)) => self.finish(other, DownReason::PeerRestarted),
            Some((other, ..)) => self.fail(other, Notification::cease(cease::CONNECTION_COLLISION)),
            None => {}
        }
    }

    fn message(&mut self, id: ConnectionId, message: Message) {
        let Some(connection) = self.connection(id) else { return };
        let steps = connection.received(&message);
        let cause = match &message {
            Message::Notification(n) => Some(DownReason::Received(n.clone())),
            _ => None,
        };
        self.apply(id, steps, cause);
        match message {
            Message::Update(update) => self.update(id, &update),
            Message::Refresh(Some(family)) => {
                if self.established.as_ref().is_some_and(|(up, a)| *up == id && a.update.families.contains(&family)) {
                    self.actions.push(Action::Refresh(family));
                }
            }
            Message::Open(_) | Message::Keepalive | Message::Notification(_) | Message::Refresh(None) => {}
        }
    }

    fn update(&mut self, id: ConnectionId, message: &rustbgpd_wire::UpdateMessage) {
        let Some((up, agreed)) = &self.established else { return };
        if *up != id {
            return;
        }
        match update::decode(message, &agreed.update) {
            Ok(Decoded::Update(update)) => self.actions.push(Action::Update(update)),
            Ok(Decoded::EndOfRib(family)) => {
                self.flush(family);
                self.actions.push(Action::EndOfRib(family));
            }
            Err(notification) => self.fail(id, notification),
        }
    }

    /// Carries out what the state machine of a connection asks for. `cause` is why it may have finished.
    fn apply(&mut self, id: ConnectionId, steps: Vec<Step>, cause: Option<DownReason>) {
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    debug_assert!(bytes.len() >= HEADER_BYTES, "a message could not be encoded");
                    self.actions.push(Action::Send(id, bytes));
                }
                Step::Hold(seconds) => self.set(Timer::Hold(id), Duration::from_secs(seconds.into())),
                Step::Keepalive(seconds) => {
                    let interval = self.jittered(Duration::from_secs(seconds.into()));
                    self.set(Timer::Keepalive(id), interval);
                }
                Step::StopHold => self.actions.push(Action::StopTimer(Timer::Hold(id))),
                Step::Established => self.up(id),
                Step::Finished(sent) => {
                    let reason = sent.map(DownReason::Sent).or_else(|| cause.clone()).unwrap_or(DownReason::Closed);
                    self.finish(id, reason);
                }
            }
        }
    }

    fn up(&mut self, id: ConnectionId) {
        let Some(agreed) = self.connections.iter().find(|c| c.id == id).and_then(|c| c.agreed(&self.config)) else {
            return;
        };
        self.restarting = false;
        self.attempts = 0;
        self.last_error = None;
        self.actions.push(Action::StopTimer(Timer::Connect));
        let mut families = agreed.update.families.clone();
        families.sort_unstable();
        self.actions.push(Action::Up(
            id,
            Established {
                router_id: agreed.router_id,
                hold_seconds: agreed.hold_seconds,
                families,
                four_octet_as: agreed.update.four_octet_as,
                graceful_restart: agreed.restart.is_some(),
                extended_next_hop: agreed.update.extended_next_hop,
            },
        ));
        // A peer that has not kept its forwarding state has no use for stale routes (RFC 4724 §4.2).
        let kept: Vec<Family> = agreed
            .restart
            .iter()
            .flat_map(|r| &r.families)
            .filter(|(_, preserved)| *preserved)
            .map(|(family, _)| *family)
            .collect();
        self.established = Some((id, agreed));
        for family in self.stale.clone() {
            if !kept.contains(&family) {
                self.flush(family);
            }
        }
        if !self.stale.is_empty() {
            self.actions.push(Action::StopTimer(Timer::Restart));
            self.set(Timer::Stale, Duration::from_secs(STALE_SECONDS));
        }
    }

    /// Ends a connection with a NOTIFICATION.
    fn fail(&mut self, id: ConnectionId, notification: Notification) {
        if self.connections.iter().any(|c| c.id == id) {
            self.actions.push(Action::Send(id, wire::encode_notification(&notification)));
            self.finish(id, DownReason::Sent(notification));
        }
    }

    /// Ends a connection.
    fn finish(&mut self, id: ConnectionId, reason: DownReason) {
        let Some(index) = self.connections.iter().position(|c| c.id == id) else { return };
        self.connections.swap_remove(index);
        for timer in [Timer::Hold(id), Timer::Keepalive(id), Timer::Collision(id)] {
            self.actions.push(Action::StopTimer(timer));
        }
        self.actions.push(Action::Close(id));
        let established = self.established.take_if(|(up, _)| *up == id);
        // A connection that loses a collision is no error of the session.
        if established.is_some() || self.connections.is_empty() {
            self.last_error = Some(reason.clone());
        }
        if let Some((_, agreed)) = established {
            self.down(reason, &agreed);
        }
        self.retry();
    }

    fn down(&mut self, reason: DownReason, agreed: &Agreed) {
        // Only the loss of the transport leaves routes behind: a NOTIFICATION in either direction ends them (RFC 4724 §4.2).
        let restart =
            agreed.restart.as_ref().filter(|_| matches!(reason, DownReason::Closed | DownReason::PeerRestarted));
        let seconds = restart.map_or(0, |r| r.seconds);
        let families = restart.map(|r| r.families.iter().map(|(f, _)| *f).collect::<Vec<_>>()).unwrap_or_default();
        // What was stale already is gone for good: restarts do not add up.
        self.stale = if seconds > 0 { families } else { Vec::new() };
        self.actions.push(Action::StopTimer(Timer::Stale));
        if !self.stale.is_empty() {
            self.set(Timer::Restart, Duration::from_secs(seconds.into()));
        }
        self.actions.push(Action::Down { reason, retained: self.stale.clone() });
    }

    fn flush(&mut self, family: Family) {
        if let Some(index) = self.stale.iter().position(|f| *f == family) {
            self.stale.swap_remove(index);
            self.actions.push(Action::FlushStale(family));
            if self.stale.is_empty() {
                self.actions.push(Action::StopTimer(Timer::Restart));
                self.actions.push(Action::StopTimer(Timer::Stale));
            }
        }
    }

    fn flush_all(&mut self) {
        for family in self.stale.clone() {
            self.flush(family);
        }
    }

    /// Plans the next connection: 1 s, doubled each time up to 30 s.
    fn retry(&mut self) {
        if !self.started || self.config.passive || self.connecting || !self.connections.is_empty() {
            return;
        }
        let delay = RETRY_FIRST.saturating_mul(1 << self.attempts.min(5)).min(RETRY_CAP);
        self.attempts = self.attempts.saturating_add(1);
        let delay = self.jittered(delay);
        self.set(Timer::Connect, delay);
    }

    fn set(&mut self, timer: Timer, after: Duration) {
        self.actions.push(Action::SetTimer(timer, after));
    }

    /// Three quarters of a duration up to all of it (RFC 4271 §10).
    fn jittered(&mut self, duration: Duration) -> Duration {
        duration.mul_f64(0.75 + 0.25 * self.jitter.f64())
    }
}

#[cfg(test)]
mod tests;
