//! Which routes forward: the best source of each prefix, its gateways looked up, as `docs/datapath.md` ("What the tables
//! hold") has it.
//!
//! Routes come in by source, best first, so whatever is there already wins. Gateways of a source are looked up in what
//! better sources have brought, never in its own routes: no route leads to itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::notice::Notice;
use super::ports::Ports;
use crate::desired::{Desired, Gateway, RouteAction};
use crate::ids::{GatewayKey, GroupKey, NextHopKey};
use crate::network::{IfIndex, Network};
use crate::rib::{Rib, Source};

/// IPv4 prefixes that fit the FIB.
const FIB4_MAX: usize = 1 << 21;
/// IPv6 prefixes that fit the FIB.
const FIB6_MAX: usize = 1 << 19;

/// Index of a set of next hops in [`Sets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SetIndex(usize);

/// Next hops with their weights, ascending, each once.
pub(super) type Hops = Vec<(NextHopKey, u32)>;

/// Sets of next hops, each once: whatever shares a key shares a group.
#[derive(Debug, Default)]
pub(super) struct Sets {
    by_key: BTreeMap<GroupKey, SetIndex>,
    sets: Vec<(GroupKey, Hops)>,
}

impl Sets {
    fn add(&mut self, key: GroupKey, hops: impl FnOnce() -> Hops) -> SetIndex {
        if let Some(index) = self.by_key.get(&key) {
            return *index;
        }
        let index = SetIndex(self.sets.len());
        self.by_key.insert(key.clone(), index);
        self.sets.push((key, hops()));
        index
    }

    /// The set of one next hop that is no gateway, or of one on-link host.
    pub(super) fn direct(&mut self, hop: NextHopKey) -> SetIndex {
        let key = match hop {
            NextHopKey::Forward { address, ifindex } => {
                GroupKey::Gateways(SmallVec::from_elem(GatewayKey { address, ifindex: Some(ifindex), weight: 1 }, 1))
            }
            other => GroupKey::Direct(other),
        };
        self.add(key, || vec![(hop, 1)])
    }

    /// The set of these gateways, which must not be empty.
    fn gateways(&mut self, gateways: &[(GatewayKey, Hops)]) -> SetIndex {
        let mut merged: BTreeMap<(IpAddr, Option<IfIndex>), u32> = BTreeMap::new();
        for (gateway, _) in gateways {
            let weight = merged.entry((gateway.address, gateway.ifindex)).or_default();
            *weight = weight.saturating_add(gateway.weight);
        }
        let divisor = merged.values().copied().reduce(greatest_common_divisor).unwrap_or(1).max(1);
        let keys = merged.into_iter().map(|((address, ifindex), weight)| GatewayKey {
            address,
            ifindex,
            weight: weight / divisor,
        });
        self.add(GroupKey::Gateways(keys.collect()), || {
            let mut hops: BTreeMap<NextHopKey, u32> = BTreeMap::new();
            for (gateway, behind) in gateways {
                for (hop, weight) in behind {
                    let sum = hops.entry(*hop).or_default();
                    *sum = sum.saturating_add(weight.saturating_mul(gateway.weight));
                }
            }
            hops.into_iter().collect()
        })
    }

    pub(super) fn get(&self, index: SetIndex) -> (Option<&GroupKey>, &[(NextHopKey, u32)]) {
        match self.sets.get(index.0) {
            Some((key, hops)) => (Some(key), hops),
            None => (None, &[]),
        }
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// A route that forwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) source: Source,
    pub(super) set: SetIndex,
}

/// The routes that forward, by prefix.
#[derive(Debug, Default)]
pub(super) struct Routes {
    pub(super) by_prefix: BTreeMap<IpNet, Route>,
    pub(super) sets: Sets,
    lengths: [BTreeSet<u8>; 2],
    count: [usize; 2],
    left_out: [usize; 2],
}

impl Routes {
    /// The best routes of all sources.
    pub(super) fn collect(
        desired: &Desired,
        network: &Network,
        rib: &Rib,
        ports: &Ports,
        notices: &mut Vec<Notice>,
    ) -> Self {
        let mut routes = Self::default();
        routes.add_local(network);
        routes.add_vips(desired);
        routes.add_connected(network, ports);
        routes.add_static(desired, network, ports, notices);
        routes.add_bgp(rib, notices);
        routes.add_adopted(rib, network, ports);
        routes.add_neighbors(network, ports);
        let left_out = routes.left_out.into_iter().filter(|count| *count > 0);
        notices.extend(left_out.map(|routes| Notice::FibFull { routes }));
        routes
    }

    /// Longest match of `address`.
    pub(super) fn lookup(&self, address: IpAddr) -> Option<(IpNet, Route)> {
        let lengths = self.lengths.get(family(address)).into_iter().flatten().rev();
        lengths
            .filter_map(|length| IpNet::new(address, *length).ok())
            .map(|net| net.trunc())
            .find_map(|prefix| self.by_prefix.get(&prefix).map(|route| (prefix, *route)))
    }

    /// The interface that `address` would be gleaned on.
    pub(super) fn gleaned(&self, address: IpAddr) -> Option<IfIndex> {
        let (_, route) = self.lookup(address)?;
        match self.sets.get(route.set).1 {
            [(NextHopKey::Glean { ifindex }, _)] => Some(*ifindex),
            _ => None,
        }
    }

    fn insert(&mut self, prefix: IpNet, source: Source, set: SetIndex) {
        if self.by_prefix.contains_key(&prefix) {
            return;
        }
        let family = family(prefix.addr());
        let limit = if family == 0 { FIB4_MAX } else { FIB6_MAX };
        let (Some(count), Some(lengths), Some(left_out)) =
            (self.count.get_mut(family), self.lengths.get_mut(family), self.left_out.get_mut(family))
        else {
            return;
        };
        if *count == limit {
            *left_out += 1;
            return;
        }
        *count += 1;
        lengths.insert(prefix.prefix_len());
        self.by_prefix.insert(prefix, Route { source, set });
    }

    fn add_local(&mut self, network: &Network) {
        let own = self.sets.direct(NextHopKey::Receive);
        let host = self.sets.direct(NextHopKey::Host);
        // Own addresses first: what is both, as in overlapping prefixes, is this node's.
        for (_, net) in &network.addresses {
            self.insert(net.addr().into(), Source::Local, own);
        }
        for (_, net) in &network.addresses {
            if net.addr().is_ipv4() && net.prefix_len() < 31 {
                self.insert(net.network().into(), Source::Local, host);
                self.insert(net.broadcast().into(), Source::Local, host);
            }
        }
    }

    fn add_vips(&mut self, desired: &Desired) {
        let set = self.sets.direct(NextHopKey::Vip);
        for address in desired.services.iter().flat_map(|service| &service.addresses) {
            self.insert((*address).into(), Source::Vip, set);
        }
    }

    /// Of the same prefix on several interfaces, the lowest index comes first.
    fn add_connected(&mut self, network: &Network, ports: &Ports) {
        for (ifindex, net) in &network.addresses {
            let up = network.links.get(ifindex).is_some_and(|link| link.up);
            if !up || is_link_local(net.addr()) || net.prefix_len() == net.max_prefix_len() {
                continue;
            }
            let on_port = ports.egress.contains_key(ifindex);
            let hop = if on_port { NextHopKey::Glean { ifindex: *ifindex } } else { NextHopKey::Host };
            let set = self.sets.direct(hop);
            self.insert(net.trunc(), Source::Connected, set);
        }
    }

    fn add_static(&mut self, desired: &Desired, network: &Network, ports: &Ports, notices: &mut Vec<Notice>) {
        let mut resolved = Vec::new();
        for route in &desired.static_routes {
            let set = match &route.action {
                RouteAction::Blackhole => self.sets.direct(NextHopKey::Blackhole),
                RouteAction::Prohibit => self.sets.direct(NextHopKey::Prohibit),
                RouteAction::Via(gateways) => {
                    let mut usable = Vec::new();
                    let mut unusable = Vec::new();
                    for gateway in gateways {
                        match self.static_gateway(gateway, network, ports) {
                            Some(ifindex) => usable.push(on_link(gateway.address, ifindex, u32::from(gateway.weight))),
                            None => unusable.push(gateway.address),
                        }
                    }
                    let (name, prefix) = (route.name.clone(), route.prefix);
                    if usable.is_empty() {
                        notices.push(Notice::StaticRouteUnreachable { route: name, prefix });
                        continue;
                    }
                    let missing = |gateway| Notice::StaticGatewayUnreachable { route: name.clone(), prefix, gateway };
                    notices.extend(unusable.into_iter().map(missing));
                    self.sets.gateways(&usable)
                }
            };
            resolved.push((route.prefix.trunc(), set));
        }
        for (prefix, set) in resolved {
            self.insert(prefix, Source::Static, set);
        }
    }

    /// The interface that a configured gateway is on.
    fn static_gateway(&self, gateway: &Gateway, network: &Network, ports: &Ports) -> Option<IfIndex> {
        match &gateway.interface {
            Some(name) => {
                network.link_by_name(name).map(|(ifindex, _)| ifindex).filter(|i| ports.is_usable(*i, network))
            }
            None => self.gleaned(gateway.address),
        }
    }

    fn add_bgp(&mut self, rib: &Rib, notices: &mut Vec<Notice>) {
        let mut known: BTreeMap<IpAddr, Option<(GatewayKey, Hops)>> = BTreeMap::new();
        let mut unreachable: BTreeMap<IpAddr, (usize, IpNet)> = BTreeMap::new();
        let mut resolved = Vec::with_capacity(rib.bgp.len());
        for (prefix, route) in &rib.bgp {
            let mut usable: SmallVec<[(GatewayKey, Hops); 2]> = SmallVec::new();
            for address in &route.gateways {
                match known.entry(*address).or_insert_with(|| self.bgp_gateway(*address)) {
                    Some(gateway) => usable.push(gateway.clone()),
                    None => unreachable.entry(*address).or_insert((0, *prefix)).0 += 1,
                }
            }
            if !usable.is_empty() {
                let source = if route.internal { Source::Ibgp } else { Source::Ebgp };
                resolved.push((prefix.trunc(), source, self.sets.gateways(&usable)));
            }
        }
        for (prefix, source, set) in resolved {
            self.insert(prefix, source, set);
        }
        let notice = |(gateway, (routes, prefix))| Notice::BgpGatewayUnreachable { gateway, routes, prefix };
        notices.extend(unreachable.into_iter().map(notice));
    }

    /// A gateway that BGP learned: on a link, or behind a static route.
    fn bgp_gateway(&self, address: IpAddr) -> Option<(GatewayKey, Hops)> {
        let (_, route) = self.lookup(address)?;
        match self.sets.get(route.set).1 {
            [(NextHopKey::Glean { ifindex }, _)] => Some(on_link(address, *ifindex, 1)),
            hops @ [(NextHopKey::Forward { .. }, _), ..] => {
                Some((GatewayKey { address, ifindex: None, weight: 1 }, hops.to_vec()))
            }
            _ => None,
        }
    }

    fn add_adopted(&mut self, rib: &Rib, network: &Network, ports: &Ports) {
        for (prefix, route) in &rib.adopted {
            let usable = route.gateways.iter().filter(|(_, ifindex)| ports.is_usable(*ifindex, network));
            let gateways: Vec<_> = usable.map(|(address, ifindex)| on_link(*address, *ifindex, 1)).collect();
            if !gateways.is_empty() {
                let set = self.sets.gateways(&gateways);
                self.insert(prefix.trunc(), Source::Adopted, set);
            }
        }
    }

    /// Resolved neighbours refine the prefix that they would be gleaned from, and no other route.
    fn add_neighbors(&mut self, network: &Network, ports: &Ports) {
        let on_ports = network.neighbors.keys().filter(|(ifindex, _)| ports.egress.contains_key(ifindex));
        let refining: Vec<_> = on_ports.filter(|(ifindex, address)| self.gleaned(*address) == Some(*ifindex)).collect();
        for (ifindex, address) in refining {
            let set = self.sets.direct(NextHopKey::Forward { address: *address, ifindex: *ifindex });
            self.insert((*address).into(), Source::Connected, set);
        }
    }
}

impl Ports {
    /// A port that packets can leave by.
    fn is_usable(&self, ifindex: IfIndex, network: &Network) -> bool {
        self.egress.contains_key(&ifindex) && network.links.get(&ifindex).is_some_and(|link| link.up)
    }
}

fn on_link(address: IpAddr, ifindex: IfIndex, weight: u32) -> (GatewayKey, Hops) {
    let hop = NextHopKey::Forward { address, ifindex };
    (GatewayKey { address, ifindex: Some(ifindex), weight }, vec![(hop, 1)])
}

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

/// 169.254/16 (RFC 3927) and fe80::/10 (RFC 4291 §2.5.6): never routed, so of them only the node's own are in the FIB.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
