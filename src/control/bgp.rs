//! The BGP speaker: sockets and clocks around the sessions of the `bgp` crate.
//!
//! [`Speaker`] is a handle to one task that owns peers, sessions and the RIB (`speaker`); each connection is a task of its
//! own (`transport`). The handle never waits: commands go into a queue and what it shows is the latest snapshot. Sockets
//! belong to the network namespace of the thread that runs the tasks.

mod peer;
mod socket;
mod speaker;
mod transport;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use model::desired::Bgp;
use model::network::IfIndex;
use model::rib::{BgpRoute, Gateway};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use speaker::Command;

/// What the speaker reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BgpEvent {
    /// Changes of the Loc-RIB, in order: the route that a prefix has now, `None` for none.
    Routes(Vec<(IpNet, Option<BgpRoute<Gateway>>)>),
    /// Every configured peer has sent End-of-RIB, or its restart or connect time is over. Sent once: from now on a route
    /// that BGP does not know does not exist.
    Converged,
    /// A session has come up or gone down.
    Peer {
        /// Document name of the peer.
        name: String,
        /// Its address.
        address: IpAddr,
        /// What happened.
        change: PeerChange,
    },
    /// A listener could not be opened; it is tried again every few seconds.
    ListenFailed {
        /// Address and port that it should have.
        address: SocketAddr,
        /// The kernel's reason.
        error: String,
    },
}

/// A change of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// Established.
    Up,
    /// No longer established.
    Down {
        /// In words.
        reason: String,
    },
}

/// A peer as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Document name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its autonomous system.
    pub asn: u32,
    /// State of the session (RFC 4271 §8.2.2): `Idle`, `Connect`, `Active`, `OpenSent`, `OpenConfirm` or `Established`.
    pub state: String,
    /// Seconds since the session was established.
    pub uptime_seconds: Option<u64>,
    /// Families that both sides speak: `ipv4`, `ipv6`.
    pub families: Vec<String>,
    /// Prefixes that it has announced.
    pub prefixes_received: usize,
    /// Those of them that can be used.
    pub prefixes_accepted: usize,
    /// Prefixes that it is told of.
    pub prefixes_sent: usize,
    /// Agreed hold time; absent while the session is down.
    pub hold_seconds: Option<u16>,
    /// Why the last session or attempt ended, until the next success.
    pub last_error: Option<String>,
    /// How often an established session has ended.
    pub flaps: u64,
    /// UPDATEs with malformed attributes (RFC 7606).
    pub malformed_updates: u64,
}

/// A handle to the speaker. Dropping it ends the speaker as a graceful restart does.
#[derive(Debug)]
pub struct Speaker {
    commands: mpsc::UnboundedSender<Command>,
    snapshots: watch::Receiver<Vec<peer::Snapshot>>,
}

impl Speaker {
    /// Starts the speaker on the current tokio runtime. No socket is opened before it is configured.
    #[must_use]
    pub fn start(events: mpsc::UnboundedSender<BgpEvent>) -> Self {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (sender, snapshots) = watch::channel(Vec::new());
        tokio::spawn(speaker::run(receiver, events, sender));
        Self { commands, snapshots }
    }

    /// Says whether forwarding survives a restart of this process (Forwarding State bit, RFC 4724 §3): true unless said
    /// otherwise. To be called before [`configure`](Self::configure).
    pub fn forwarding_preserved(&mut self, preserved: bool) {
        self.send(Command::ForwardingPreserved(preserved));
    }

    /// Sets the configuration. Sessions of unchanged peers go on; changed and removed ones end with Cease. A new AS or
    /// router id ends them all, so a router id that is derived from addresses should be derived once.
    pub fn configure(&mut self, config: Option<Bgp>, router_id: Ipv4Addr) {
        self.send(Command::Configure(config.map(Box::new), router_id));
    }

    /// Sets what is announced besides the prefixes of the configuration; the difference goes out. End-of-RIB is held back
    /// until the first call, so that peers of a restarted node keep its routes until it knows what it has (RFC 4724 §4.1).
    pub fn announce(&mut self, routes: BTreeSet<IpNet>) {
        self.send(Command::Announce(routes));
    }

    /// The state of every configured peer, by address.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.snapshots.borrow().iter().map(status).collect()
    }

    /// Ends all sessions and waits until the last words are out, a few seconds at most: Cease/Administrative Shutdown, or
    /// for a graceful restart just a closed connection, after which peers keep our routes (RFC 4724 §4.2).
    pub async fn shutdown(self, graceful: bool) {
        let (done, finished) = oneshot::channel();
        self.send(Command::Shutdown { graceful, done });
        let _ = finished.await;
    }

    fn send(&self, command: Command) {
        // The task ends only with the runtime or with this handle.
        let _ = self.commands.send(command);
    }
}

fn status(snapshot: &peer::Snapshot) -> PeerStatus {
    PeerStatus {
        name: snapshot.name.clone(),
        address: snapshot.address,
        asn: snapshot.asn,
        state: snapshot.state.to_string(),
        uptime_seconds: snapshot.since.map(|since| since.elapsed().as_secs()),
        families: snapshot.families.iter().map(ToString::to_string).collect(),
        prefixes_received: snapshot.received,
        prefixes_accepted: snapshot.accepted,
        prefixes_sent: snapshot.sent,
        hold_seconds: snapshot.hold_seconds,
        last_error: snapshot.last_error.clone(),
        flaps: snapshot.flaps,
        malformed_updates: snapshot.malformed,
    }
}

/// A route of the crate as the model's: the crate does not know the model.
fn route(route: bgp::BgpRoute) -> BgpRoute<Gateway> {
    let gateway = |gateway: bgp::rib::Gateway| Gateway {
        ifindex: gateway.interface.map(IfIndex),
        ..Gateway::recursive(gateway.address)
    };
    BgpRoute {
        gateways: route.gateways.into_iter().map(gateway).collect(),
        alternatives: route.alternatives.into_iter().map(gateway).collect(),
        internal: route.internal,
    }
}
