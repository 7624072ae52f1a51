//! A speaker in a namespace of its own, driven from the test.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use margay::control::bgp::{BgpEvent, PeerChange, PeerStatus, Speaker};
use model::desired::{Bgp, BgpPeer};
use model::rib::{BgpRoute, Gateway};
use testkit::netns::{self, End, Netns, veth};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

/// Our AS.
pub(crate) const US: u32 = 65001;
/// Their AS in external sessions.
pub(crate) const THEM: u32 = 65002;

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn nets(prefixes: &[&str]) -> BTreeSet<IpNet> {
    prefixes.iter().map(|p| p.parse().unwrap()).collect()
}

/// Our namespace and those of the peers, each on a link of its own.
pub(crate) struct Lab {
    pub(crate) ours: Netns,
    pub(crate) theirs: Vec<Arc<Netns>>,
}

impl Lab {
    /// A lab with `peers` peers. On link n we are 10.77.n.1 and 2001:db8:77:n::1, the peer is 2.
    pub(crate) fn new(peers: usize) -> Self {
        let ours = Netns::new("bgp").unwrap();
        let theirs: Vec<_> = (0..peers).map(|_| Arc::new(Netns::new("bgp").unwrap())).collect();
        for (n, netns) in theirs.iter().enumerate() {
            let of = |host: u8| -> Vec<IpNet> {
                vec![
                    format!("10.77.{n}.{host}/24").parse().unwrap(),
                    format!("2001:db8:77:{n}::{host}/64").parse().unwrap(),
                ]
            };
            let name = format!("peer{n}");
            veth(
                End { netns: &ours, name: &name, addresses: &of(1) },
                End { netns, name: "uplink", addresses: &of(2) },
            )
            .unwrap();
        }
        Self { ours, theirs }
    }

    /// Runs a test of the speaker in our namespace.
    pub(crate) fn drive<F: Future<Output = ()>>(&self, test: impl FnOnce(Driven) -> F + Send + 'static) {
        finish(drive_in(&self.ours, test));
    }
}

/// Runs a speaker in a namespace, on a thread of its own. When the test returns, its sockets close without a word, as those of
/// a killed process do.
pub(crate) fn drive_in<F: Future<Output = ()>>(
    netns: &Netns,
    test: impl FnOnce(Driven) -> F + Send + 'static,
) -> JoinHandle<Result<(), netns::Error>> {
    netns.thread(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test(Driven::start()).await });
    })
}

/// Waits for a driven speaker, and fails as it has failed.
pub(crate) fn finish(thread: JoinHandle<Result<(), netns::Error>>) {
    match thread.join() {
        Ok(entered) => entered.unwrap(),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// An external peer at `address` that we connect to.
pub(crate) fn peer(address_text: &str) -> BgpPeer {
    BgpPeer {
        name: format!("peer-{address_text}"),
        address: address(address_text),
        interface: None,
        port: 179,
        asn: THEM,
        passive: false,
        source: None,
        keepalive_seconds: 3,
        restart_seconds: 120,
        password: None,
        ttl_security: None,
    }
}

pub(crate) fn bgp(peers: Vec<BgpPeer>) -> Bgp {
    Bgp { asn: US, listen_port: 179, advertise: Vec::new(), communities: Vec::new(), peers, alternatives: false }
}

/// A speaker with everything it has reported.
pub(crate) struct Driven {
    pub(crate) speaker: Speaker,
    events: UnboundedReceiver<BgpEvent>,
    pub(crate) rib: BTreeMap<IpNet, BgpRoute<Gateway>>,
    /// The smallest number of routes since this was last set.
    pub(crate) least: usize,
    pub(crate) converged: usize,
    pub(crate) downs: Vec<(IpAddr, String)>,
    pub(crate) listen_failures: Vec<String>,
}

impl Driven {
    pub(crate) fn start() -> Self {
        let (sender, events) = unbounded_channel();
        Self {
            speaker: Speaker::start(sender),
            events,
            rib: BTreeMap::new(),
            least: 0,
            converged: 0,
            downs: Vec::new(),
            listen_failures: Vec::new(),
        }
    }

    pub(crate) fn configure(&mut self, config: Bgp) {
        self.speaker.configure(Some(config), Ipv4Addr::new(10, 77, 0, 1));
    }

    fn take_in(&mut self, event: BgpEvent) {
        match event {
            BgpEvent::Routes(changes) => {
                for (prefix, route) in changes {
                    let before = match &route {
                        Some(route) => self.rib.insert(prefix, route.clone()),
                        None => self.rib.remove(&prefix),
                    };
                    assert_ne!(before, route, "a change of {prefix} that is none");
                    self.least = self.least.min(self.rib.len());
                }
            }
            BgpEvent::Converged => self.converged += 1,
            BgpEvent::Peer { address, change: PeerChange::Down { reason }, .. } => self.downs.push((address, reason)),
            BgpEvent::Peer { change: PeerChange::Up, .. } => {}
            BgpEvent::ListenFailed { address, error } => self.listen_failures.push(format!("{address}: {error}")),
        }
    }

    /// Waits until something holds; says what did not.
    pub(crate) async fn until(&mut self, what: &str, limit: Duration, mut holds: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + limit;
        loop {
            while let Ok(event) = self.events.try_recv() {
                self.take_in(event);
            }
            if holds(self) {
                return;
            }
            assert!(
                Instant::now() < end,
                "after {limit:?} still not: {what}; {} routes, downs {:?}, {:#?}",
                self.rib.len(),
                self.downs,
                self.speaker.peers()
            );
            if let Ok(Some(event)) = timeout(Duration::from_millis(20), self.events.recv()).await {
                self.take_in(event);
            }
        }
    }

    pub(crate) async fn until_established(&mut self, peer: &str) {
        let wanted = address(peer);
        self.until(&format!("session with {peer} established"), Duration::from_secs(20), |d| {
            d.status(wanted).is_some_and(|s| s.state == "Established")
        })
        .await;
    }

    pub(crate) async fn until_routes(&mut self, count: usize, limit: Duration) {
        self.until(&format!("{count} routes"), limit, |d| d.rib.len() == count).await;
    }

    /// Lets the speaker run for a while.
    pub(crate) async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.until("time over", time + Duration::from_secs(60), |_| Instant::now() >= end).await;
    }

    pub(crate) fn status(&self, peer: IpAddr) -> Option<PeerStatus> {
        self.speaker.peers().into_iter().find(|s| s.address == peer)
    }
}

/// Waits, outside the speaker, until something holds.
pub(crate) async fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < end, "after {limit:?} still not: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
