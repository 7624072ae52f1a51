//! Adj-RIB-In of every peer and the Loc-RIB that is chosen from them (RFC 4271 §9.1).
//!
//! Which paths of a prefix forward, in this order:
//!
//! 1. A path is left out that cannot be used: our AS is in its AS_PATH (§9.1.2), it was originated by us (RFC 4456 §8), or
//!    its next hop is not a usable unicast address (§5.1.3): of the prefix's family, or of IPv6 for an IPv4 prefix (RFC 8950).
//! 2. Highest degree of preference: LOCAL_PREF of an internal peer, 100 where absent or from an external one (§9.1.1).
//! 3. Shortest AS_PATH (§9.1.2.2 a).
//! 4. Lowest ORIGIN (b).
//! 5. Lowest MULTI_EXIT_DISC, only among paths from the same neighbouring AS (c).
//! 6. External before internal (d).
//!
//! Step (e), the metric to the next hop, has nothing to compare here: next hops are resolved by whoever forwards. The paths
//! that are left are equal; they are the multipath set, and [`BgpRoute`] has the next hops of at most [`MAX_PATHS`] of
//! them. Where there are more, and for the best path itself, the order is:
//!
//! 7. Lowest BGP identifier, or ORIGINATOR_ID (f, RFC 4456 §9), then shortest CLUSTER_LIST.
//! 8. Lowest peer address (g).
//!
//! What the other usable paths lead by is told beside, where it is asked for ([`Rib::tell_alternatives`]): packets may come
//! from there (RFC 3704 §2.3), though none go there.
//!
//! Paths of a restarting peer count as they did before until they are replaced or flushed (RFC 4724 §4.2).

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use smallvec::SmallVec;

use crate::Family;
use crate::update::{Attributes, Update};

/// Most equal paths that one route uses.
pub const MAX_PATHS: usize = 64;

/// LOCAL_PREF of a path that has none.
const DEFAULT_PREFERENCE: u32 = 100;

/// Names a peer; the caller chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// A peer whose session is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// Its address.
    pub address: IpAddr,
    /// The session is internal.
    pub internal: bool,
    /// Our addresses on the session: no path leads through ourselves.
    pub local: Vec<IpAddr>,
    /// The link that we share with it, if we do: link-local next hops are there.
    pub link: Option<Link>,
}

/// A link that a session runs over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index of our interface on it.
    pub interface: u32,
    /// The networks that our addresses on it are of.
    pub networks: Vec<IpNet>,
}

/// Where packets of a path go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gateway {
    /// Its address.
    pub address: IpAddr,
    /// Index of the interface that it is on, where the address is link-local.
    pub interface: Option<u32>,
}

/// A route of the Loc-RIB: where packets for a prefix go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpRoute {
    /// Gateways, ascending, at least one.
    pub gateways: Vec<Gateway>,
    /// Gateways of the usable paths that were not chosen, ascending; none where they are not asked for.
    pub alternatives: Vec<Gateway>,
    /// Learned from internal peers.
    pub internal: bool,
}

/// What has changed in the Loc-RIB: the new route of a prefix, `None` where there is none any more.
pub type Changes = Vec<(IpNet, Option<BgpRoute>)>;

#[derive(Clone, Debug)]
struct Path {
    peer: PeerId,
    /// The peer's epoch when it was learned; an older one than the peer's is stale.
    epoch: u32,
    /// Where it leads; `None` where step 1 of the choice leaves it out.
    gateway: Option<Gateway>,
    attributes: Arc<Attributes>,
}

#[derive(Clone, Debug)]
struct PeerState {
    peer: Peer,
    epoch: u32,
    received: usize,
    accepted: usize,
}

/// The routing information bases.
#[derive(Debug)]
pub struct Rib {
    local_asn: u32,
    router_id: Ipv4Addr,
    alternatives: bool,
    peers: HashMap<PeerId, PeerState>,
    table: HashMap<IpNet, SmallVec<[Path; 2]>>,
}

impl Rib {
    /// An empty RIB of a speaker.
    #[must_use]
    pub fn new(local_asn: u32, router_id: Ipv4Addr) -> Self {
        Self { local_asn, router_id, alternatives: false, peers: HashMap::new(), table: HashMap::new() }
    }

    /// Tells of every route, or no more, what the paths lead by that were not chosen.
    pub fn tell_alternatives(&mut self, wanted: bool) -> Changes {
        if std::mem::replace(&mut self.alternatives, wanted) == wanted {
            return Changes::new();
        }
        let several = self.table.iter().filter(|(_, paths)| paths.len() > 1);
        let told = several.filter_map(|(prefix, paths)| {
            let route = self.choose(paths)?;
            let others = wanted && route.alternatives.is_empty();
            (!others).then_some((*prefix, Some(route)))
        });
        told.collect()
    }

    /// A session is up. Paths that were retained stay, as stale ones.
    pub fn up(&mut self, id: PeerId, peer: Peer) {
        match self.peers.get_mut(&id) {
            Some(state) => state.peer = peer,
            None => {
                self.peers.insert(id, PeerState { peer, epoch: 0, received: 0, accepted: 0 });
            }
        }
    }

    /// A session is down: the paths of the retained families become stale, the rest and what was stale already is gone.
    pub fn down(&mut self, id: PeerId, retained: &[Family]) -> Changes {
        let Some(epoch) = self.peers.get(&id).map(|state| state.epoch) else { return Changes::new() };
        let changes =
            self.remove_paths(id, |prefix, path| path.epoch < epoch || !retained.contains(&Family::of(prefix)));
        if let Some(state) = self.peers.get_mut(&id) {
            state.epoch = state.epoch.wrapping_add(1);
        }
        if retained.is_empty() {
            self.peers.remove(&id);
        }
        changes
    }

    /// Removes the paths of a family that are still stale.
    pub fn flush_stale(&mut self, id: PeerId, family: Family) -> Changes {
        let Some(epoch) = self.peers.get(&id).map(|state| state.epoch) else { return Changes::new() };
        self.remove_paths(id, |prefix, path| path.epoch < epoch && Family::of(prefix) == family)
    }

    /// Takes in what a peer has announced and withdrawn.
    pub fn update(&mut self, id: PeerId, update: &Update) -> Changes {
        let mut changes = Changes::new();
        if !self.peers.contains_key(&id) {
            return changes;
        }
        for prefix in &update.withdrawn {
            self.change(*prefix, &mut changes, |paths, _| paths.retain(|path| path.peer != id), id);
        }
        for (attributes, prefixes) in &update.announced {
            for prefix in prefixes {
                let gateway = self.gateway(id, *prefix, attributes);
                let attributes = Arc::clone(attributes);
                self.change(
                    *prefix,
                    &mut changes,
                    |paths, epoch| {
                        let path = Path { peer: id, epoch, gateway, attributes };
                        match paths.iter_mut().find(|p| p.peer == id) {
                            Some(old) => *old = path,
                            None => paths.push(path),
                        }
                    },
                    id,
                );
            }
        }
        changes
    }

    /// Prefixes received from a peer, and how many of them can be used.
    #[must_use]
    pub fn counts(&self, id: PeerId) -> (usize, usize) {
        self.peers.get(&id).map_or((0, 0), |state| (state.received, state.accepted))
    }

    /// Number of prefixes that have a path.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// No prefix has a path.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The route of a prefix.
    #[must_use]
    pub fn route(&self, prefix: IpNet) -> Option<BgpRoute> {
        self.choose(self.table.get(&prefix)?)
    }

    fn choose(&self, paths: &[Path]) -> Option<BgpRoute> {
        choose(paths, &self.peers, self.alternatives)
    }

    /// Changes the paths of one prefix and notes what that does to its route and to the peer's counts.
    fn change(
        &mut self,
        prefix: IpNet,
        changes: &mut Changes,
        apply: impl FnOnce(&mut SmallVec<[Path; 2]>, u32),
        id: PeerId,
    ) {
        let epoch = self.peers.get(&id).map_or(0, |state| state.epoch);
        let paths = self.table.entry(prefix).or_default();
        let before = choose(paths, &self.peers, self.alternatives);
        let of = |paths: &[Path]| paths.iter().find(|p| p.peer == id).map(|p| p.gateway.is_some());
        let had = of(paths);
        apply(paths, epoch);
        let has = of(paths);
        let after = choose(paths, &self.peers, self.alternatives);
        if paths.is_empty() {
            self.table.remove(&prefix);
        }
        if let Some(state) = self.peers.get_mut(&id) {
            state.received = (state.received + usize::from(has.is_some())).saturating_sub(usize::from(had.is_some()));
            state.accepted =
                (state.accepted + usize::from(has == Some(true))).saturating_sub(usize::from(had == Some(true)));
        }
        if before != after {
            changes.push((prefix, after));
        }
    }

    fn remove_paths(&mut self, id: PeerId, gone: impl Fn(IpNet, &Path) -> bool) -> Changes {
        let mut changes = Changes::new();
        let prefixes: Vec<IpNet> = self
            .table
            .iter()
            .filter(|(prefix, paths)| paths.iter().any(|path| path.peer == id && gone(**prefix, path)))
            .map(|(prefix, _)| *prefix)
            .collect();
        for prefix in prefixes {
            self.change(prefix, &mut changes, |paths, _| paths.retain(|path| path.peer != id), id);
        }
        changes
    }

    /// Step 1: where packets are sent along this path, if they can be.
    fn gateway(&self, id: PeerId, prefix: IpNet, attributes: &Attributes) -> Option<Gateway> {
        let peer = &self.peers.get(&id)?.peer;
        let loops = attributes.as_path.contains(&self.local_asn) || attributes.originator == Some(self.router_id);
        let gateway = along(attributes, peer.link.as_ref());
        // That IPv4 prefixes with an IPv6 next hop were agreed on is known from the session.
        let right_family = prefix.addr().is_ipv4() || gateway.address.is_ipv6();
        let unicast = match gateway.address {
            IpAddr::V4(address) => {
                !address.is_unspecified()
                    && !address.is_multicast()
                    && !address.is_loopback()
                    && !address.is_broadcast()
            }
            // An IPv4-mapped address is no next hop for IPv6 packets, whatever some speakers send over IPv4.
            IpAddr::V6(address) => {
                !address.is_unspecified()
                    && !address.is_multicast()
                    && !address.is_loopback()
                    && address.to_ipv4_mapped().is_none()
                    && (!address.is_unicast_link_local() || gateway.interface.is_some())
            }
        };
        (!loops && right_family && unicast && !peer.local.contains(&gateway.address)).then_some(gateway)
    }
}

/// The gateway of a path. The link-local address is for where the global one cannot be reached over the link of the session:
/// it is missing, or of a network that we have no address of there.
fn along(attributes: &Attributes, link: Option<&Link>) -> Gateway {
    let next_hop = attributes.next_hop;
    let reached = |link: &Link| {
        let link_local = matches!(next_hop, IpAddr::V6(address) if address.is_unicast_link_local());
        !link_local && link.networks.iter().any(|network| network.contains(&next_hop))
    };
    match (attributes.link_local, link) {
        (Some(address), Some(link)) if !reached(link) => {
            Gateway { address: IpAddr::V6(address), interface: Some(link.interface) }
        }
        _ => Gateway { address: next_hop, interface: None },
    }
}

/// Keeps the candidates with the lowest key.
fn keep_lowest<'a, K: Ord>(candidates: &mut SmallVec<[&'a Path; 4]>, key: impl Fn(&'a Path) -> K) {
    if let Some(lowest) = candidates.iter().map(|path| key(path)).min() {
        candidates.retain(|path| key(path) == lowest);
    }
}

/// The multipath set of a prefix as a route; the steps are numbered in the head of the file.
fn choose(paths: &[Path], peers: &HashMap<PeerId, PeerState>, alternatives: bool) -> Option<BgpRoute> {
    let peer = |path: &Path| peers.get(&path.peer).map(|state| &state.peer);
    let internal = |path: &Path| peer(path).is_some_and(|p| p.internal);

    // 1. Usable.
    let mut candidates: SmallVec<[&Path; 4]> = paths.iter().filter(|path| path.gateway.is_some()).collect();
    if candidates.len() > 1 {
        // 2. Degree of preference.
        keep_lowest(&mut candidates, |path| {
            std::cmp::Reverse(path.attributes.local_pref.unwrap_or(DEFAULT_PREFERENCE))
        });
        // 3. AS_PATH.
        keep_lowest(&mut candidates, |path| path.attributes.as_path.len());
        // 4. ORIGIN.
        keep_lowest(&mut candidates, |path| path.attributes.origin);
        // 5. MULTI_EXIT_DISC: a path goes where another one from the same AS has a lower value; none counts as zero.
        let key = |path: &Path| (path.attributes.as_path.first().copied(), path.attributes.med.unwrap_or(0));
        let meds: SmallVec<[(Option<u32>, u32); 4]> = candidates.iter().map(|path| key(path)).collect();
        candidates.retain(|path| {
            let (neighbour, med) = key(path);
            !meds.iter().any(|(other, lower)| *other == neighbour && *lower < med)
        });
        // 6. External before internal.
        keep_lowest(&mut candidates, internal);
    }
    if candidates.len() > MAX_PATHS {
        // 7. and 8.
        candidates.sort_by_key(|path| {
            let router_id = path.attributes.originator.or(peer(path).map(|p| p.router_id));
            (router_id, path.attributes.clusters, peer(path).map(|p| p.address))
        });
        candidates.truncate(MAX_PATHS);
    }
    let first = candidates.first()?;
    let gateways: BTreeSet<Gateway> = candidates.iter().filter_map(|path| path.gateway).collect();
    let mut others = BTreeSet::new();
    if alternatives && candidates.len() < paths.len() {
        others.extend(paths.iter().filter_map(|path| path.gateway).filter(|gateway| !gateways.contains(gateway)));
    }
    Some(BgpRoute {
        gateways: gateways.into_iter().collect(),
        alternatives: others.into_iter().collect(),
        internal: internal(first),
    })
}

#[cfg(test)]
mod tests;
