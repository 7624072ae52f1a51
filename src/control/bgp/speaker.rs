//! The task that owns everything BGP: peers, sessions, the RIB and the listeners. Commands and reports in, events out.
//!
//! Nothing in here blocks, and no state is shared: what others may see is published as snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bgp::rib::Changes;
use bgp::{Action, AdjRibOut, Community, ConnectionId, Direction, DownReason, Event, PeerId, Rib, State, StopReason};
use ipnet::IpNet;
use model::desired::{Bgp, BgpPeer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::peer::{Link, Peer, Snapshot, Up};
use super::socket;
use super::transport::{self, Connected, Report};
use super::{BgpEvent, PeerChange};

/// Reports that wait to be handled; connections wait when there are more.
const REPORTS: usize = 64;
/// Pause before a listener that could not be opened is tried again.
const LISTEN_RETRY: Duration = Duration::from_secs(5);
/// How long connections may take to send their last words at the end.
const FAREWELL: Duration = Duration::from_secs(3);
/// A moment that never comes, for a clock with nothing to wait for.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// What the speaker is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Configure(Option<Box<Bgp>>, Ipv4Addr),
    Announce(BTreeSet<IpNet>),
    ForwardingPreserved(bool),
    Shutdown { graceful: bool, done: oneshot::Sender<()> },
}

/// A listener, or the attempt to have one.
#[derive(Debug)]
struct Listener {
    address: SocketAddr,
    open: Option<(Arc<TcpListener>, AbortHandle)>,
    retry: Instant,
    /// The last error, which is logged once.
    failure: Option<String>,
    /// Peers with their TCP MD5 keys, as the kernel has them.
    keys: BTreeMap<IpAddr, String>,
}

/// The speaker's state.
#[derive(Debug)]
pub(super) struct Task {
    config: Option<Bgp>,
    router_id: Ipv4Addr,
    forwarding_preserved: bool,
    rib: Rib,
    /// Of one link-local address there may be one on each link.
    peers: BTreeMap<PeerId, Peer>,
    listeners: Vec<Listener>,
    /// What others want announced; `None` until they have said so once, and no End-of-RIB goes out before that.
    routes: Option<BTreeSet<IpNet>>,
    announced: bgp::export::Announced,
    /// There has been a configuration, be it that there is no BGP.
    configured: bool,
    converged: bool,
    next_connection: u64,
    next_peer: u32,
    reports: mpsc::Sender<Report>,
    tasks: JoinSet<()>,
    events: mpsc::UnboundedSender<BgpEvent>,
    snapshots: watch::Sender<Vec<Snapshot>>,
}

/// Runs the speaker until it is told to shut down or nobody can tell it anything any more.
pub(super) async fn run(
    mut commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<BgpEvent>,
    snapshots: watch::Sender<Vec<Snapshot>>,
) {
    let (reports, mut inbox) = mpsc::channel(REPORTS);
    let mut task = Task {
        config: None,
        router_id: Ipv4Addr::UNSPECIFIED,
        forwarding_preserved: true,
        rib: Rib::new(0, Ipv4Addr::UNSPECIFIED),
        peers: BTreeMap::new(),
        listeners: Vec::new(),
        routes: None,
        announced: BTreeMap::new(),
        configured: false,
        converged: false,
        next_connection: 0,
        next_peer: 0,
        reports,
        tasks: JoinSet::new(),
        events,
        snapshots,
    };
    loop {
        let deadline = task.next_deadline();
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Configure(config, router_id)) => task.configure(config.map(|c| *c), router_id),
                Some(Command::Announce(routes)) => task.announce(routes),
                Some(Command::ForwardingPreserved(preserved)) => task.forwarding_preserved = preserved,
                Some(Command::Shutdown { graceful, done }) => {
                    task.shutdown(graceful).await;
                    let _ = done.send(());
                    return;
                }
                None => return task.shutdown(true).await,
            },
            Some(report) = inbox.recv() => task.report(report),
            Some(_) = task.tasks.join_next(), if !task.tasks.is_empty() => continue,
            () = sleep_until(deadline) => task.tick(),
        }
        task.check_converged();
        task.publish();
    }
}

impl Task {
    fn configure(&mut self, config: Option<Bgp>, router_id: Ipv4Addr) {
        let speaker = |c: &Option<Bgp>| c.as_ref().map(|c| c.asn);
        let same_speaker = speaker(&self.config) == speaker(&config) && self.router_id == router_id;
        let place = |peer: &BgpPeer| (peer.address, peer.interface.clone());
        let mut wanted: BTreeMap<_, BgpPeer> =
            config.iter().flat_map(|c| &c.peers).map(|peer| (place(peer), peer.clone())).collect();
        for (id, present) in self.peers.iter().map(|(id, peer)| (*id, peer.config.clone())).collect::<Vec<_>>() {
            let reason = match wanted.get(&place(&present)) {
                Some(new) if same_speaker && survives(&present, new) => {
                    if let (Some(peer), Some(new)) = (self.peers.get_mut(&id), wanted.remove(&place(&present))) {
                        peer.config = new;
                    }
                    continue;
                }
                Some(_) => StopReason::Reconfigured,
                None => StopReason::Deconfigured,
            };
            self.remove(id, reason);
        }
        self.router_id = router_id;
        self.configured = true;
        if let Some(config) = &config
            && !same_speaker
        {
            self.rib = Rib::new(config.asn, router_id);
        }
        let changes = self.rib.tell_alternatives(config.as_ref().is_some_and(|c| c.alternatives));
        self.changed(changes);
        let asn = config.as_ref().map_or(0, |c| c.asn);
        self.config = config;
        self.listen();
        for new in wanted.into_values() {
            let id = PeerId(self.next_peer);
            self.next_peer = self.next_peer.wrapping_add(1);
            self.peers.insert(id, Peer::new(id, &new, asn, router_id, self.forwarding_preserved));
            self.feed(id, Event::Start);
        }
        self.export();
    }

    fn remove(&mut self, id: PeerId, reason: StopReason) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let actions = peer.stop(reason);
        self.act(id, actions);
        self.peers.remove(&id);
        let changes = self.rib.down(id, &[]);
        self.changed(changes);
    }

    fn announce(&mut self, routes: BTreeSet<IpNet>) {
        let first = self.routes.replace(routes).is_none();
        self.export();
        if first {
            for peer in self.peers.values_mut() {
                if let Some(up) = &mut peer.up {
                    up.out.end_of_rib();
                }
                peer.pump();
            }
        }
    }

    /// Works out what is announced and tells every peer the difference.
    fn export(&mut self) {
        let Some(config) = &self.config else { return };
        let mut sets: BTreeMap<BTreeSet<Community>, Arc<BTreeSet<Community>>> = BTreeMap::new();
        let routes = self.routes.iter().flatten().chain(&config.advertise);
        self.announced = routes
            .map(|prefix| {
                let set: BTreeSet<Community> = config
                    .communities
                    .iter()
                    .filter(|(cidr, _)| cidr.contains(prefix))
                    .flat_map(|(_, communities)| communities.iter().copied().map(community))
                    .collect();
                let shared = sets.entry(set).or_insert_with_key(|set| Arc::new(set.clone()));
                (prefix.trunc(), Arc::clone(shared))
            })
            .collect();
        for peer in self.peers.values_mut() {
            if let Some(up) = &mut peer.up {
                up.out.set(&self.announced);
            }
            peer.pump();
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Accepted(stream, from) => self.accepted(stream, from),
            // One that was made under an earlier configuration of the peer has the wrong options, and no peer by its number.
            Report::Connected(peer, connected) => self.connected(peer, *connected),
            Report::ConnectFailed(id, error) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    debug!(%peer, %error, "cannot connect");
                    peer.connecting = None;
                    peer.connect_error = Some(error.to_string());
                    self.feed(id, Event::ConnectFailed);
                }
            }
            Report::Received(peer, id, bytes) => self.feed(peer, Event::Received(id, &bytes)),
            Report::Closed(peer, id) => self.feed(peer, Event::Closed(id)),
            Report::SendHoldExpired(peer, id) => self.feed(peer, Event::SendHoldExpired(id)),
            Report::Room(peer, id) => {
                if let Some(peer) = self.peers.get_mut(&peer)
                    && peer.up.as_ref().is_some_and(|up| up.connection == id)
                {
                    peer.pump();
                }
            }
        }
    }

    fn accepted(&mut self, stream: TcpStream, from: SocketAddr) {
        let address = from.ip();
        // The same address on another link is another node.
        let is_there = |peer: &&Peer| match &peer.config.interface {
            Some(interface) => socket::interface_index(&stream, interface).ok() == Some(transport::scope(from)),
            None => true,
        };
        let Some(peer) = self.peers.values().filter(|peer| peer.config.address == address).find(is_there) else {
            debug!(peer = %from, "refused a connection of an unknown peer");
            return;
        };
        // GTSM has to hold before the first byte is read.
        if let Err(error) = socket::session(&stream, address, peer.distance()) {
            warn!(%peer, %error, "cannot set the options of a session");
            return;
        }
        self.tasks.spawn(transport::greet(stream, peer.id, self.reports.clone()));
    }

    fn connected(&mut self, of: PeerId, connected: Connected) {
        let Some(peer) = self.peers.get_mut(&of) else { return };
        let Connected { stream, direction, place } = connected;
        peer.connect_error = None;
        if direction == Direction::Outgoing {
            peer.connecting = None;
        }
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let (outbox, task) = transport::run(stream, of, id, peer.send_hold(), self.reports.clone());
        self.tasks.spawn(task);
        peer.links.insert(id, Link { outbox, place, waits: false });
        self.feed(of, Event::Connected(id, direction));
    }

    /// Feeds an event to a peer's session and does what it asks for.
    fn feed(&mut self, id: PeerId, event: Event<'_>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let before = peer.session.state();
        let actions = peer.handle(event);
        let after = peer.session.state();
        if before != after && after != State::Established && before != State::Established {
            debug!(%peer, from = %before, to = %after, "session state");
        }
        self.act(id, actions);
    }

    fn act(&mut self, id: PeerId, actions: Vec<Action>) {
        let mut changes = Changes::new();
        for action in actions {
            let Some(peer) = self.peers.get_mut(&id) else { break };
            match action {
                Action::Connect => {
                    let task = transport::connect(peer.target(), id, self.reports.clone());
                    peer.connecting = Some(self.tasks.spawn(task));
                }
                Action::Up(connection, established) => self.up(id, connection, established),
                Action::Down { reason, retained } => {
                    self.down(id, reason);
                    changes.extend(self.rib.down(id, &retained));
                }
                Action::Update(update) => {
                    peer.routes_arrived();
                    if !update.malformed.is_empty() {
                        complain(peer, &update.malformed);
                    }
                    changes.extend(self.rib.update(id, &update));
                }
                Action::EndOfRib(family) => {
                    debug!(%peer, %family, "End-of-RIB");
                    peer.end_of_rib(family);
                }
                Action::FlushStale(family) => changes.extend(self.rib.flush_stale(id, family)),
                Action::Refresh(family) => {
                    if let Some(up) = &mut peer.up {
                        up.out.refresh(family);
                    }
                    peer.pump();
                }
                // Done by the peer itself.
                Action::Send(..) | Action::Close(_) | Action::SetTimer(..) | Action::StopTimer(_) => {}
            }
        }
        self.changed(changes);
    }

    fn up(&mut self, id: PeerId, connection: ConnectionId, established: bgp::Established) {
        let (Some(peer), Some(config)) = (self.peers.get_mut(&id), &self.config) else { return };
        let Some(link) = peer.links.get(&connection) else { return };
        debug!(%peer, asn = peer.config.asn, hold_seconds = established.hold_seconds, "session established");
        let rib_peer = bgp::rib::Peer {
            router_id: established.router_id,
            address: peer.config.address,
            internal: peer.internal,
            local: link.place.local.clone(),
            link: link.place.link.clone(),
        };
        self.rib.up(peer.id, rib_peer);
        let mut out = AdjRibOut::new(config.asn, peer.internal, &established, link.place.next_hops);
        out.set(&self.announced);
        if self.routes.is_some() {
            out.end_of_rib();
        }
        for family in &established.families {
            if !out.speaks(*family) {
                warn!(%peer, %family, "no address of this family on the interface of the session, its prefixes are not announced");
            }
        }
        let loading = established.families.clone();
        peer.up = Some(Up { connection, established, since: Instant::now(), out, loading, complained: false });
        peer.wait_for_routes();
        peer.pump();
        let (name, address) = (peer.config.name.clone(), peer.config.address);
        self.emit(BgpEvent::Peer { name, address, change: PeerChange::Up });
    }

    fn down(&mut self, id: PeerId, reason: DownReason) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.up = None;
        peer.flaps += 1;
        debug!(%peer, %reason, "session down");
        let change = PeerChange::Down { reason: reason.to_string() };
        let (name, address) = (peer.config.name.clone(), peer.config.address);
        self.emit(BgpEvent::Peer { name, address, change });
    }

    fn changed(&mut self, changes: Changes) {
        if !changes.is_empty() {
            let routes = changes.into_iter().map(|(prefix, route)| (prefix, route.map(super::route))).collect();
            self.emit(BgpEvent::Routes(routes));
        }
    }

    fn emit(&self, event: BgpEvent) {
        // Nobody listens any more only while everything ends.
        let _ = self.events.send(event);
    }

    /// Opens, keeps or closes listeners, one for each family that has a peer, and gives them the keys of the peers.
    fn listen(&mut self) {
        let wanted: BTreeSet<SocketAddr> = self
            .config
            .iter()
            .flat_map(|config| config.peers.iter().map(|peer| (peer.address, config.listen_port)))
            .map(|(peer, port)| match peer {
                IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
                IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
            })
            .collect();
        self.listeners.retain(|listener| wanted.contains(&listener.address));
        for address in wanted {
            if !self.listeners.iter().any(|listener| listener.address == address) {
                self.listeners.push(Listener::new(address));
            }
        }
        for mut listener in std::mem::take(&mut self.listeners) {
            if listener.open.is_none() && listener.retry <= Instant::now() {
                self.open(&mut listener);
            }
            self.secure(&mut listener);
            self.listeners.push(listener);
        }
    }

    fn open(&mut self, listener: &mut Listener) {
        match socket::listening(listener.address).and_then(TcpListener::from_std) {
            Ok(open) => {
                let open = Arc::new(open);
                let task = self.tasks.spawn(accept(Arc::clone(&open), self.reports.clone()));
                listener.open = Some((open, task));
            }
            Err(error) => {
                let error = error.to_string();
                if listener.failure.as_ref() != Some(&error) {
                    warn!(address = %listener.address, error, "cannot listen for BGP, trying again");
                    listener.failure = Some(error.clone());
                }
                listener.retry = Instant::now() + LISTEN_RETRY;
                self.emit(BgpEvent::ListenFailed { address: listener.address, error });
            }
        }
    }

    /// Brings keys and TTL of a listener in line with the configuration.
    fn secure(&self, listener: &mut Listener) {
        let (Some((open, _)), Some(config)) = (&listener.open, &self.config) else { return };
        let ipv6 = listener.address.is_ipv6();
        let peers = || config.peers.iter().filter(|peer| peer.address.is_ipv6() == ipv6);
        let wanted: BTreeMap<IpAddr, String> =
            peers().filter_map(|peer| Some((peer.address, peer.password.clone()?))).collect();
        let gone = listener.keys.keys().filter(|peer| !wanted.contains_key(*peer)).map(|peer| (*peer, ""));
        let new = wanted.iter().filter(|(peer, key)| listener.keys.get(*peer) != Some(*key));
        for (peer, key) in gone.chain(new.map(|(peer, key)| (*peer, key.as_str()))) {
            if let Err(error) = socket::set_md5(open, peer, key) {
                warn!(%peer, %error, "cannot set the TCP MD5 key of a peer");
            }
        }
        if peers().any(|peer| peer.ttl_security.is_some())
            && let Err(error) = socket::answer_gtsm(open, ipv6)
        {
            warn!(address = %listener.address, %error, "cannot set the TTL of a listener");
        }
        listener.keys = wanted;
    }

    fn next_deadline(&self) -> Instant {
        let listeners = self.listeners.iter().filter(|l| l.open.is_none()).map(|l| l.retry);
        let peers = self.peers.values().filter_map(Peer::next_deadline);
        listeners.chain(peers).min().unwrap_or_else(|| Instant::now() + NEVER)
    }

    /// Lets every timer that is over have its effect.
    fn tick(&mut self) {
        let now = Instant::now();
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            while let Some(timer) = self.peers.get_mut(&id).and_then(|peer| peer.expired(now)) {
                self.feed(id, Event::Timer(timer));
            }
            if let Some(peer) = self.peers.get_mut(&id)
                && peer.waiting.is_some_and(|until| until <= now)
            {
                peer.waiting = None;
            }
        }
        if self.listeners.iter().any(|l| l.open.is_none() && l.retry <= now) {
            self.listen();
        }
    }

    /// Says once that every peer has had its chance to send its routes.
    fn check_converged(&mut self) {
        if self.configured && !self.converged && self.peers.values().all(|peer| peer.waiting.is_none()) {
            self.converged = true;
            self.emit(BgpEvent::Converged);
        }
    }

    fn publish(&self) {
        let snapshots = self.peers.values().map(|peer| peer.snapshot(self.rib.counts(peer.id)));
        let mut snapshots: Vec<Snapshot> = snapshots.collect();
        snapshots.sort_by(|a, b| (a.address, &a.name).cmp(&(b.address, &b.name)));
        self.snapshots.send_replace(snapshots);
    }

    async fn shutdown(&mut self, graceful: bool) {
        let reason = if graceful { StopReason::Restart } else { StopReason::Shutdown };
        self.listeners.clear();
        for peer in self.peers.values_mut() {
            peer.stop(reason);
        }
        self.peers.clear();
        self.publish();
        let farewell = async { while self.tasks.join_next().await.is_some() {} };
        // What has not been said by then is not said.
        let _ = timeout(FAREWELL, farewell).await;
    }
}

impl Listener {
    fn new(address: SocketAddr) -> Self {
        Self { address, open: None, retry: Instant::now(), failure: None, keys: BTreeMap::new() }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.open {
            task.abort();
        }
    }
}

/// Can a session go on under another configuration of its peer? Its name is nothing that the session knows.
fn survives(old: &BgpPeer, new: &BgpPeer) -> bool {
    BgpPeer { name: String::new(), ..old.clone() } == BgpPeer { name: String::new(), ..new.clone() }
}

fn community(community: model::desired::Community) -> Community {
    match community {
        model::desired::Community::Standard(high, low) => Community::Standard(high, low),
        model::desired::Community::Large(a, b, c) => Community::Large(a, b, c),
    }
}

/// Logs the malformed attributes of a peer, loudly once a session.
fn complain(peer: &mut Peer, notes: &[String]) {
    peer.malformed += 1;
    let first = peer.up.as_mut().is_some_and(|up| !std::mem::replace(&mut up.complained, true));
    for note in notes {
        if first {
            warn!(%peer, %note, "malformed attribute in an UPDATE, further ones of this session are not logged");
        } else {
            debug!(%peer, %note, "malformed attribute in an UPDATE");
        }
    }
}

async fn accept(listener: Arc<TcpListener>, reports: mpsc::Sender<Report>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                if reports.send(Report::Accepted(stream, from)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // Out of descriptors or memory, or the connection is gone already: none is cured by haste.
                debug!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::socket::Distance;
    use super::*;

    fn peer() -> BgpPeer {
        BgpPeer {
            name: "tor".to_owned(),
            address: "192.0.2.1".parse().unwrap(),
            interface: None,
            port: 179,
            asn: 65001,
            passive: false,
            source: None,
            keepalive_seconds: 3,
            restart_seconds: 120,
            password: None,
            ttl_security: None,
        }
    }

    #[test]
    fn distance_follows_the_kind_of_session() {
        let distance = |peer: &BgpPeer, asn| Peer::new(PeerId(0), peer, asn, Ipv4Addr::LOCALHOST, true).distance();
        assert_eq!(distance(&peer(), 65000), Distance::Connected);
        assert_eq!(distance(&peer(), 65001), Distance::Any);
        assert_eq!(distance(&BgpPeer { ttl_security: Some(2), ..peer() }, 65000), Distance::Hops(2));
    }

    #[test]
    fn a_new_name_does_not_end_a_session() {
        assert!(survives(&peer(), &BgpPeer { name: "other".to_owned(), ..peer() }));
        assert!(!survives(&peer(), &BgpPeer { keepalive_seconds: 4, ..peer() }));
        assert!(!survives(&peer(), &BgpPeer { password: Some("x".to_owned()), ..peer() }));
    }
}
