//! Which next hops a destination has: the routes of every source, looked through one after the other.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::parse::is_link_local;
use crate::desired::{Backend, Desired, Encap, RouteAction};
use crate::network::{IfIndex, Link, Mac, Network};
use crate::rib::{Alternative, Rib, Source, Way};

/// Sources that are looked through after the node's own, in no particular order.
const SOURCES: [Source; 5] = [Source::Static, Source::Kernel, Source::Ebgp, Source::Ibgp, Source::Adopted];

/// Routes by prefix and source.
pub(super) type LeftOut = BTreeSet<(IpNet, Source)>;

static NOTHING: LeftOut = LeftOut::new();

/// A gateway or on-link host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hop {
    /// What the neighbour protocol resolves.
    pub address: IpAddr,
    /// The interface it is on.
    pub ifindex: IfIndex,
}

/// What a route does with its packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Receive,
    /// The host's stack decides.
    Host,
    Vip,
    Blackhole,
    Prohibit,
    Unreachable,
    /// On-link on this interface: the destination is its own gateway.
    Glean(IfIndex),
    /// Next hops with their weights, at least one.
    Forward(Vec<(Hop, u32)>),
}

/// How packets reach a usable backend.
#[derive(Clone, Debug)]
pub(super) struct Path {
    pub hops: Vec<(Hop, u32)>,
    /// Outer source, or anything for L2.
    pub source: IpAddr,
    /// Low bits of it that are the flow's.
    pub varied: u8,
    pub inner_source: Mac,
    pub inner_mtu: u32,
}

/// One VRF of the three inputs, and what of them finds no room.
#[derive(Clone, Debug)]
pub(super) struct Routes<'a> {
    pub desired: &'a Desired,
    pub network: &'a Network,
    pub rib: &'a Rib,
    /// Its name; the default one where absent.
    pub vrf: Option<&'a str>,
    /// Learned routes that packets do not find; gateways and backends are looked up with them all the same.
    pub left_out: LeftOut,
}

impl<'a> Routes<'a> {
    /// The hops that answer, or have not been asked; all of them where none does.
    pub(super) fn answering(&self, hops: &[(Hop, u32)]) -> Vec<(Hop, u32)> {
        let answers = |(hop, _): &&(Hop, u32)| !self.network.failed.contains(&(hop.ifindex, hop.address));
        let answering: Vec<(Hop, u32)> = hops.iter().filter(answers).copied().collect();
        if answering.is_empty() { hops.to_vec() } else { answering }
    }

    /// The link, where it is up and a port of this VRF.
    pub(super) fn usable_port(&self, ifindex: IfIndex) -> Option<&'a Link> {
        self.network.links.get(&ifindex).filter(|link| link.up && self.is_port(link) && self.is_here(ifindex))
    }

    /// True where an interface is in this VRF; what is no port is in the default one.
    fn is_here(&self, ifindex: IfIndex) -> bool {
        let name = self.network.links.get(&ifindex).map(|link| link.name.as_str());
        let configured = self.desired.node.interfaces.iter().find(|interface| Some(interface.name.as_str()) == name);
        configured.and_then(|interface| interface.vrf.as_deref()) == self.vrf
    }

    /// True for an address of an interface of this VRF.
    pub(super) fn lookup_own(&self, address: IpAddr) -> bool {
        self.network.addresses.iter().any(|(ifindex, net)| net.addr() == address && self.is_here(*ifindex))
    }

    pub(super) fn is_port(&self, link: &Link) -> bool {
        self.desired.node.interfaces.iter().any(|interface| interface.name == link.name)
    }

    /// What becomes of packets to `destination`: the longest match among the routes that there is room for. What none of them
    /// has is the host's stack's while one of the kernel's routes is left out.
    pub(super) fn lookup(&self, destination: IpAddr) -> Option<Action> {
        let fallback = || self.falls_back(destination).then_some(Action::Host);
        self.refined(destination, 0, &self.left_out).or_else(fallback)
    }

    /// True where only the host's stack may have a route, because one of the kernel's is left out.
    pub(super) fn falls_back(&self, address: IpAddr) -> bool {
        let kernels = |(prefix, source): &(IpNet, Source)| {
            *source == Source::Kernel && prefix.addr().is_ipv4() == address.is_ipv4()
        };
        self.left_out.iter().any(kernels) && self.refined(address, 0, &self.left_out).is_none()
    }

    /// The same, where it is not the default route.
    pub(super) fn lookup_beside_default(&self, destination: IpAddr) -> Option<Action> {
        self.refined(destination, 1, &self.left_out)
    }

    /// The interfaces that lead to `destination` by paths of the route that answers which were not chosen.
    pub(super) fn alternatives(&self, destination: IpAddr) -> Vec<IfIndex> {
        // Where a neighbour refines a route, it is what would be gleaned if there were room for all.
        let refined = self.host_route(destination, &self.left_out).is_some();
        let left_out = if refined { &NOTHING } else { &self.left_out };
        let Some((len, source, _)) = self.best_with_source(destination, &SOURCES, left_out) else { return Vec::new() };
        let Ok(prefix) = IpNet::new(destination, len) else { return Vec::new() };
        let routes = self.rib.routes(prefix.trunc());
        let route = routes.iter().find(|route| route.source == source).and_then(|route| self.rib.set_of(route.set));
        let leads_by = |alternative: &Alternative| match alternative {
            Alternative::Link(ifindex) => self.usable_port(*ifindex).map(|_| *ifindex).into_iter().collect(),
            Alternative::Gateway(address) => {
                self.recursive(*address).into_iter().map(|(hop, _)| hop.ifindex).collect::<Vec<_>>()
            }
        };
        route.into_iter().flat_map(|route| &route.alternatives).flat_map(leads_by).collect()
    }

    /// The longest match of `destination` that is so long at least, best source first; neighbours refine what would be gleaned.
    fn refined(&self, destination: IpAddr, shortest: u8, left_out: &LeftOut) -> Option<Action> {
        if let Some(hop) = self.host_route(destination, left_out) {
            return Some(Action::Forward(vec![(hop, 1)]));
        }
        self.best(destination, &SOURCES, left_out).filter(|(len, _)| *len >= shortest).map(|(_, action)| action)
    }

    /// The neighbour itself, where it is known and its packets would be gleaned if there were room for all routes: it has a route of its own,
    /// also where the one around it is left out, unless that one is.
    fn host_route(&self, destination: IpAddr, left_out: &LeftOut) -> Option<Hop> {
        let Some((_, Action::Glean(ifindex))) = self.best(destination, &SOURCES, &NOTHING) else { return None };
        let known = self.network.neighbors.contains_key(&(ifindex, destination));
        let has_room = !left_out.contains(&(destination.into(), Source::Connected));
        (known && has_room).then_some(Hop { address: destination, ifindex })
    }

    /// The longest match among local, VIP and connected routes and those of `sources` that are not left out, with its length.
    fn best(&self, destination: IpAddr, sources: &[Source], left_out: &LeftOut) -> Option<(u8, Action)> {
        self.best_with_source(destination, sources, left_out).map(|(len, _, action)| (len, action))
    }

    /// The same, with its source.
    fn best_with_source(
        &self,
        destination: IpAddr,
        sources: &[Source],
        left_out: &LeftOut,
    ) -> Option<(u8, Source, Action)> {
        let mut found = self.own(destination);
        for source in sources {
            let routes = self.of_source(*source, destination, left_out);
            found.extend(routes.into_iter().map(|(len, action)| (len, *source, action)));
        }
        // Of equal lengths and sources the first one stays.
        found.into_iter().reduce(|best, next| {
            let better = next.0 > best.0 || (next.0 == best.0 && next.1 < best.1);
            if better { next } else { best }
        })
    }

    /// Local, VIP and connected routes that hold `destination`, by interface index.
    fn own(&self, destination: IpAddr) -> Vec<(u8, Source, Action)> {
        let host_len = if destination.is_ipv4() { 32 } else { 128 };
        let mut found = Vec::new();
        let services = if self.vrf.is_none() { self.desired.services.as_slice() } else { &[] };
        let of_vips = services.iter().flat_map(|service| &service.addresses).filter(|net| net.contains(&destination));
        let of_vips: Vec<u8> = of_vips.map(IpNet::prefix_len).collect();
        let is_vip = of_vips.contains(&host_len);
        for (ifindex, net) in self.network.addresses.iter().filter(|(ifindex, _)| self.is_here(*ifindex)) {
            if net.addr() == destination {
                // Whatever else the address is on another interface, it is this node's.
                found.insert(0, (host_len, Source::Local, Action::Receive));
            } else if is_subnet_end(*net, destination) && !is_vip {
                found.push((host_len, Source::Local, Action::Host));
            }
            let Some(link) = self.network.links.get(ifindex).filter(|link| link.up) else { continue };
            if net.contains(&destination) && net.prefix_len() < host_len && !is_link_local(net.addr()) {
                let action = if self.is_port(link) { Action::Glean(*ifindex) } else { Action::Host };
                found.push((net.prefix_len(), Source::Connected, action));
            }
        }
        found.extend(of_vips.into_iter().map(|len| (len, Source::Vip, Action::Vip)));
        found
    }

    /// The routes of one source that hold `destination` and have a usable next hop.
    fn of_source(&self, source: Source, destination: IpAddr, left_out: &LeftOut) -> Vec<(u8, Action)> {
        match source {
            Source::Local | Source::Vip | Source::Connected | Source::Fallback => Vec::new(),
            Source::Static => self.static_routes(destination),
            Source::Kernel | Source::Ebgp | Source::Ibgp | Source::Adopted => {
                let holding = self.rib.iter().filter(|(prefix, _)| prefix.contains(&destination));
                let in_room = holding.filter(|(prefix, _)| !left_out.contains(&(*prefix, source)));
                let of_source = in_room.filter_map(|(prefix, routes)| {
                    let route = routes.iter().find(|route| route.source == source)?;
                    Some((prefix.prefix_len(), self.way(source, &self.rib.set_of(route.set)?.way)?))
                });
                of_source.collect()
            }
        }
    }

    /// Where a learned route leads, if anywhere. The kernel's routes by interfaces that are no ports are the kernel's.
    fn way(&self, source: Source, way: &Way) -> Option<Action> {
        // An interface that is no port is nobody's but the host's, whatever the route's VRF.
        let elsewhere = |ifindex: &IfIndex| match self.network.links.get(ifindex) {
            Some(link) => !self.is_port(link),
            None => true,
        };
        match way {
            Way::Gateways(gateways) => {
                let hops = gateways.iter().flat_map(|gateway| match gateway.ifindex {
                    Some(ifindex) => {
                        let hop = Hop { address: gateway.address, ifindex };
                        self.usable_port(ifindex).map(|_| (hop, gateway.weight)).into_iter().collect()
                    }
                    None => self.recursive(gateway.address),
                });
                let links = || gateways.iter().all(|gateway| gateway.ifindex.as_ref().is_some_and(elsewhere));
                let host = || (source == Source::Kernel && links()).then_some(Action::Host);
                forward(hops.collect()).or_else(host)
            }
            Way::Link(ifindex) if self.usable_port(*ifindex).is_some() => Some(Action::Glean(*ifindex)),
            Way::Link(ifindex) => elsewhere(ifindex).then_some(Action::Host),
            Way::Host => Some(Action::Host),
            Way::Blackhole => Some(Action::Blackhole),
            Way::Prohibit => Some(Action::Prohibit),
            Way::Unreachable => Some(Action::Unreachable),
        }
    }

    fn static_routes(&self, destination: IpAddr) -> Vec<(u8, Action)> {
        let here = self.desired.static_routes.iter().filter(|route| route.vrf.as_deref() == self.vrf);
        let holding = here.filter(|route| route.prefix.contains(&destination));
        let actions = holding.filter_map(|route| {
            let action = match &route.action {
                RouteAction::Blackhole => Action::Blackhole,
                RouteAction::Prohibit => Action::Prohibit,
                RouteAction::Via(gateways) => {
                    let hops = gateways.iter().filter_map(|gateway| {
                        let hop = match &gateway.interface {
                            Some(name) => self.on_interface(gateway.address, name)?,
                            None => self.on_link(gateway.address)?,
                        };
                        Some((hop, u32::from(gateway.weight)))
                    });
                    forward(hops.collect())?
                }
            };
            Some((route.prefix.prefix_len(), action))
        });
        actions.collect()
    }

    fn on_interface(&self, address: IpAddr, name: &str) -> Option<Hop> {
        let (ifindex, _) = self.network.link_by_name(name)?;
        self.usable_port(ifindex)?;
        Some(Hop { address, ifindex })
    }

    /// A gateway inside a connected prefix.
    fn on_link(&self, address: IpAddr) -> Option<Hop> {
        match self.best(address, &[], &NOTHING)?.1 {
            Action::Glean(ifindex) => Some(Hop { address, ifindex }),
            _ => None,
        }
    }

    /// A gateway that was learned without its link: on one, or behind a static or kernel route.
    fn recursive(&self, address: IpAddr) -> Vec<(Hop, u32)> {
        match self.best(address, &[Source::Static, Source::Kernel], &NOTHING).map(|(_, action)| action) {
            Some(Action::Glean(ifindex)) => vec![(Hop { address, ifindex }, 1)],
            Some(Action::Forward(hops)) => hops,
            _ => Vec::new(),
        }
    }

    /// How packets reach `backend`; `None` where it is not usable.
    pub(super) fn path(&self, backend: &Backend) -> Option<Path> {
        let hops = match self.refined(backend.address, 0, &NOTHING)? {
            Action::Glean(ifindex) => vec![(Hop { address: backend.address, ifindex }, 1)],
            Action::Forward(hops) => hops,
            _ => return None,
        };
        if backend.encap == Encap::L2 && hops.iter().any(|(hop, _)| hop.address != backend.address) {
            return None;
        }
        let (first, _) = hops.iter().min()?;
        let mtus = hops.iter().filter_map(|(hop, _)| self.network.links.get(&hop.ifindex)).map(|link| link.mtu);
        let ipv6 = backend.address.is_ipv6();
        let overhead = match (backend.encap, ipv6) {
            (Encap::L2, _) => 0,
            (Encap::Ipip, false) => 20,
            (Encap::Ipip, true) => 40,
            (Encap::Gue, false) => 20 + 8,
            (Encap::Gue, true) => 40 + 8,
            (Encap::Vxlan { .. }, false) => 20 + 8 + 8 + 14,
            (Encap::Vxlan { .. }, true) => 40 + 8 + 8 + 14,
        };
        let node = &self.desired.node;
        let prefix = if ipv6 { node.encap_prefix_v6 } else { node.encap_prefix_v4 };
        let prefix = prefix.filter(|_| backend.encap == Encap::Ipip);
        let source = match backend.encap {
            Encap::L2 => Ipv6Addr::UNSPECIFIED.into(),
            Encap::Ipip if prefix.is_some() => prefix?.network(),
            Encap::Ipip | Encap::Gue | Encap::Vxlan { .. } => self.encap_source(first.ifindex, ipv6)?,
        };
        let of_hosts = prefix.map_or(0, |prefix| prefix.max_prefix_len() - prefix.prefix_len());
        Some(Path {
            source,
            varied: of_hosts.min(31),
            inner_source: self.network.links.get(&first.ifindex)?.mac,
            inner_mtu: mtus.min()?.saturating_sub(overhead),
            hops,
        })
    }

    fn encap_source(&self, egress: IfIndex, ipv6: bool) -> Option<IpAddr> {
        let node = &self.desired.node;
        let configured = if ipv6 { node.encap_source_v6.map(IpAddr::V6) } else { node.encap_source_v4.map(IpAddr::V4) };
        configured.or_else(|| {
            let mut addresses = self.network.addresses_of(egress).map(|net| net.addr());
            addresses.find(|address| address.is_ipv6() == ipv6 && !is_link_local(*address))
        })
    }
}

/// The IPv4 network or broadcast address of an interface's prefix (RFC 3021: a /31 has none).
fn is_subnet_end(net: IpNet, destination: IpAddr) -> bool {
    net.addr().is_ipv4() && net.prefix_len() < 31 && (net.network() == destination || net.broadcast() == destination)
}

/// Equal hops add their weights; none is no route.
fn forward(hops: Vec<(Hop, u32)>) -> Option<Action> {
    let mut merged: Vec<(Hop, u32)> = Vec::new();
    for (hop, weight) in hops {
        match merged.iter_mut().find(|(known, _)| *known == hop) {
            Some((_, sum)) => *sum += weight,
            None => merged.push((hop, weight)),
        }
    }
    (!merged.is_empty()).then_some(Action::Forward(merged))
}
