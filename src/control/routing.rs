//! The RIB and the BGP speaker as the owner sees them.
//!
//! Routes that a former process forwarded stay in the RIB behind every other source until BGP has converged and the kernel's
//! table has been read, so a restart takes nothing away that is still announced or still there.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use model::desired::{Bgp, Desired};
use model::network::Network;
use model::rib::{Origin, Rib};
use tokio::sync::mpsc;
use tracing::info;

use super::bgp::{BgpEvent, PeerStatus, Speaker};
use super::event::Event;
use super::forwarding::Forwarding;
use super::netlink::routes;

/// A listener that failed is tried again more often than this; after it, silence means that it works.
const LISTEN_SILENCE: Duration = Duration::from_secs(30);

/// Routes of all sources, and BGP.
pub(super) struct Routing {
    rib: Rib,
    speaker: Option<Speaker>,
    configured: Option<(Option<Bgp>, Ipv4Addr)>,
    announced: Option<BTreeSet<IpNet>>,
    /// Derived once: a change would end every session.
    router_id: Option<Ipv4Addr>,
    /// BGP is configured and there is no router identifier.
    unidentified: bool,
    listen_failure: Option<(Instant, String)>,
    /// BGP has told all it knows, or is not configured.
    converged: bool,
    kernel: routes::Status,
}

impl Routing {
    /// Starts the speaker; nothing is opened before [`Routing::configure`].
    pub(super) fn new(forwarding: &Forwarding, events: mpsc::Sender<Event>) -> Self {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let mut speaker = Speaker::start(sender);
        let mut rib = Rib::default();
        for (prefix, gateways) in forwarding.adopted_routes() {
            rib.set_adopted(prefix, gateways);
        }
        speaker.forwarding_preserved(forwarding.has_adopted());
        tokio::spawn(async move {
            while let Some(event) = receiver.recv().await {
                if events.send(Event::Bgp(event)).await.is_err() {
                    return;
                }
            }
        });
        Self {
            rib,
            speaker: Some(speaker),
            configured: None,
            announced: None,
            router_id: None,
            unidentified: false,
            listen_failure: None,
            converged: false,
            kernel: routes::Status::default(),
        }
    }

    /// Routes of all origins.
    pub(super) fn rib(&self) -> &Rib {
        &self.rib
    }

    /// Routes for the compiler, which takes their changes.
    pub(super) fn rib_mut(&mut self) -> &mut Rib {
        &mut self.rib
    }

    /// Peers and their sessions.
    pub(super) fn peers(&self) -> Vec<PeerStatus> {
        self.speaker.as_ref().map(Speaker::peers).unwrap_or_default()
    }

    /// What is wrong beside the sessions.
    pub(super) fn problem(&self) -> Option<String> {
        if self.unidentified {
            return Some("BGP does not run: the node has no IPv4 address to identify it; set spec.routerID".to_owned());
        }
        let (at, failure) = self.listen_failure.as_ref()?;
        (at.elapsed() < LISTEN_SILENCE).then(|| format!("BGP cannot listen on {failure}"))
    }

    /// Takes in what the speaker reports; true when routes are different now.
    pub(super) fn changed(&mut self, event: BgpEvent) -> bool {
        match event {
            BgpEvent::Routes(routes) => {
                for (prefix, route) in routes {
                    match route {
                        Some(route) => self.rib.set_bgp(prefix, &route),
                        None => self.rib.remove(prefix, Origin::Bgp),
                    }
                }
                self.rib.has_changes()
            }
            BgpEvent::Converged => {
                self.converged = true;
                self.forget_adopted()
            }
            // The speaker logs it and the status shows it.
            BgpEvent::Peer { .. } => false,
            BgpEvent::ListenFailed { address, error } => {
                self.listen_failure = Some((Instant::now(), format!("{address}: {error}")));
                false
            }
        }
    }

    /// Takes in what the kernel's table has become; true when routes are different now.
    pub(super) fn kernel_changed(&mut self, mut update: routes::Update) -> bool {
        for (prefix, way) in &update.changes {
            match way {
                Some(way) => {
                    let alternatives = update.alternatives.remove(prefix).unwrap_or_default();
                    self.rib.set_kernel_beside(*prefix, way.clone(), alternatives);
                }
                None => self.rib.remove(*prefix, Origin::Kernel),
            }
        }
        for (table, changes) in &update.of_vrfs {
            changes.iter().for_each(|(prefix, way)| self.rib.set_in_table(*table, *prefix, way.clone()));
        }
        self.kernel = update.status.clone();
        self.forget_adopted();
        self.rib.has_changes()
    }

    /// How far the kernel's table is followed.
    pub(super) fn kernel(&self) -> &routes::Status {
        &self.kernel
    }

    /// Every source of routes has spoken, or cannot.
    pub(super) fn is_settled(&self) -> bool {
        self.converged && (self.kernel.synchronised || self.kernel.failure.is_some())
    }

    /// Follows the configuration. The router identifier is the configured one, else the lowest IPv4 address when it is
    /// first needed (RFC 4271 §1.1, RFC 6286).
    pub(super) fn configure(&mut self, desired: &Desired, network: &Network) {
        if desired.bgp.is_none() {
            self.converged = true;
            self.forget_adopted();
        }
        self.router_id = self.router_id.or_else(|| lowest_address(desired, network));
        let router_id = desired.node.router_id.or(self.router_id);
        self.unidentified = desired.bgp.is_some() && router_id.is_none();
        if self.unidentified {
            return;
        }
        let router_id = router_id.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let wanted = Some((desired.bgp.clone(), router_id));
        if wanted != self.configured {
            self.configured = wanted;
            self.listen_failure = None;
            if let Some(speaker) = &mut self.speaker {
                speaker.configure(desired.bgp.clone(), router_id);
            }
        }
    }

    /// Announces the prefixes of a generation.
    pub(super) fn announce(&mut self, prefixes: &BTreeSet<IpNet>) {
        if self.announced.as_ref() != Some(prefixes)
            && let Some(speaker) = &mut self.speaker
        {
            speaker.announce(prefixes.clone());
            self.announced = Some(prefixes.clone());
        }
    }

    /// Ends the sessions. With graceful restart the connections just close, and peers keep sending to what stays pinned.
    pub(super) async fn stop(&mut self) {
        let graceful = match &self.configured {
            Some((Some(bgp), _)) => bgp.peers.iter().any(|peer| peer.restart_seconds > 0),
            _ => false,
        };
        if let Some(speaker) = self.speaker.take() {
            speaker.shutdown(graceful).await;
        }
    }

    /// Lets adopted routes go once every source has spoken.
    fn forget_adopted(&mut self) -> bool {
        if !self.converged || !self.kernel.synchronised || self.rib.count(Origin::Adopted) == 0 {
            return false;
        }
        let count = self.rib.clear(Origin::Adopted);
        info!(count, "adopted routes are let go; what is still announced or in the kernel's table stays");
        count > 0
    }
}

/// The lowest address of the default VRF, which BGP is in.
fn lowest_address(desired: &Desired, network: &Network) -> Option<Ipv4Addr> {
    let in_vrf = |ifindex| network.links.get(ifindex).is_some_and(|link| desired.node.vrf_of(&link.name).is_some());
    let of_default = network.addresses.iter().filter(|(ifindex, _)| !in_vrf(ifindex));
    let addresses = of_default.filter_map(|(_, net)| match net.addr() {
        IpAddr::V4(address) if !address.is_loopback() && !address.is_link_local() => Some(address),
        _ => None,
    });
    addresses.min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::network::IfIndex;

    #[test]
    fn the_router_is_identified_by_its_lowest_address() {
        let mut network = Network::default();
        let desired = Desired::default();
        assert_eq!(lowest_address(&desired, &network), None);
        for (index, net) in
            [(1, "127.0.0.1/8"), (2, "192.0.2.1/24"), (3, "10.0.0.7/24"), (3, "169.254.1.1/16"), (3, "fd00::1/64")]
        {
            network.addresses.insert((IfIndex(index), net.parse().unwrap()));
        }
        assert_eq!(lowest_address(&desired, &network), Some(Ipv4Addr::new(10, 0, 0, 7)));
    }
}
