//! Where routes lead: the node's own routes, and every way out of the RIB, gateways looked up, as `docs/datapath.md` ("What
//! the tables hold") has it.
//!
//! Own routes (addresses, VIPs, connected, static) come in by source, best first, so whatever is there already wins. Of the
//! RIB only the sets are gone through, never the routes: a million routes through two gateways are one set to look up.
//! Gateways of a source are looked up in what better sources have brought, never in its own routes: no route leads to
//! itself.
//!
//! All this within one VRF: of the network, the resources and the routes only what belongs to it is looked at. Where a route of it
//! leads to another one's interface, it is left out.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::notice::Notice;
use super::ports::Ports;
use super::{origins, origins_of};
use crate::desired::{Desired, Gateway, RouteAction, SourceValidation, StaticRoute};
use crate::ids::{GatewayKey, GroupKey, KnownGateways, Leads, NextHopKey};
use crate::network::{IfIndex, Network};
use crate::rib::{self, Alternative, Alternatives, Learned, Origin, Rib, SetId, Source, Way};
use crate::tables::{Origins, VrfId};

/// Index of a set of next hops in [`Sets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SetIndex(usize);

/// Next hops with their weights, ascending, each once.
pub(super) type Hops = Vec<(NextHopKey, u32)>;

/// Sets of next hops, each once. Whatever shares a key shares a group: sets with the same key have the same shares, though not
/// the same weights, which count where a gateway leads through another route.
#[derive(Debug, Default)]
pub(super) struct Sets {
    by_key: BTreeMap<GroupKey, SmallVec<[SetIndex; 1]>>,
    sets: Vec<(GroupKey, Hops)>,
}

impl Sets {
    fn add(&mut self, key: GroupKey, hops: Hops) -> SetIndex {
        let named = self.by_key.entry(key.clone()).or_default();
        let same = named.iter().find(|index| self.sets.get(index.0).is_some_and(|(_, known)| *known == hops));
        if let Some(index) = same {
            return *index;
        }
        let index = SetIndex(self.sets.len());
        named.push(index);
        self.sets.push((key, hops));
        index
    }

    /// The set of one next hop that is no gateway, or of one on-link host.
    pub(super) fn direct(&mut self, hop: NextHopKey) -> SetIndex {
        self.direct_beside(hop, Origins::NONE)
    }

    /// The same, and packets may come in beside.
    pub(super) fn direct_beside(&mut self, hop: NextHopKey, beside: Origins) -> SetIndex {
        let leads = match hop {
            NextHopKey::Forward { address, ifindex } => {
                let gateway = GatewayKey { address, ifindex: Some(ifindex), weight: 1 };
                Leads::Gateways(SmallVec::from_elem(gateway, 1), 0)
            }
            other => Leads::Direct(other),
        };
        self.add(GroupKey { leads, beside }, vec![(hop, 1)])
    }

    /// The set of gateways of which these are usable, at least one. It is known by all: while one cannot be used, the others
    /// stand in for it in the same group, and no prefix moves.
    fn gateways(&mut self, all: &[GatewayKey], usable: &[(GatewayKey, Hops)], beside: Origins) -> SetIndex {
        let mut hops: BTreeMap<NextHopKey, u32> = BTreeMap::new();
        for (gateway, behind) in usable {
            for (hop, weight) in behind {
                let sum = hops.entry(*hop).or_default();
                *sum = sum.saturating_add(weight.saturating_mul(gateway.weight));
            }
        }
        let hops: Hops = hops.into_iter().collect();
        let gateways = gateway_keys(all);
        let shares = in_lowest_terms(&hops);
        let key = |number: u8| GroupKey { leads: Leads::Gateways(gateways.clone(), number), beside };
        let means_another = |number: &u8| {
            let named = self.by_key.get(&key(*number)).into_iter().flatten();
            named.into_iter().any(|index| in_lowest_terms(self.get(*index).1) != shares)
        };
        let number = (0..u8::MAX).find(|number| !means_another(number)).unwrap_or(u8::MAX);
        self.add(key(number), hops)
    }

    pub(super) fn get(&self, index: SetIndex) -> (Option<&GroupKey>, &[(NextHopKey, u32)]) {
        match self.sets.get(index.0) {
            Some((key, hops)) => (Some(key), hops),
            None => (None, &[]),
        }
    }
}

/// Gateways as a set is known by them: ascending, each once, weights without a common divisor.
fn gateway_keys(gateways: &[GatewayKey]) -> SmallVec<[GatewayKey; 2]> {
    let mut merged: BTreeMap<(IpAddr, Option<IfIndex>), u32> = BTreeMap::new();
    for gateway in gateways {
        let weight = merged.entry((gateway.address, gateway.ifindex)).or_default();
        *weight = weight.saturating_add(gateway.weight);
    }
    let divisor = common_divisor(merged.values());
    let key = |((address, ifindex), weight): (_, u32)| GatewayKey { address, ifindex, weight: weight / divisor };
    merged.into_iter().map(key).collect()
}

/// Next hops with their shares: weights without a common divisor.
fn in_lowest_terms(hops: &[(NextHopKey, u32)]) -> Hops {
    let divisor = common_divisor(hops.iter().map(|(_, weight)| weight));
    hops.iter().map(|(hop, weight)| (*hop, weight / divisor)).collect()
}

fn common_divisor<'a>(weights: impl Iterator<Item = &'a u32>) -> u32 {
    weights.copied().reduce(greatest_common_divisor).unwrap_or(1).max(1)
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

/// One VRF, and what belongs to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub(super) desired: &'a Desired,
    pub(super) network: &'a Network,
    pub(super) rib: &'a Rib,
    pub(super) ports: &'a Ports,
    pub(super) vrf: VrfId,
}

impl<'a> Scope<'a> {
    fn holds(&self, ifindex: IfIndex) -> bool {
        self.ports.vrf_of(ifindex) == self.vrf
    }

    pub(super) fn addresses(self) -> impl Iterator<Item = (IfIndex, IpNet)> + 'a {
        self.network.addresses.iter().filter(move |(ifindex, _)| self.holds(*ifindex)).copied()
    }

    fn static_routes(self) -> impl Iterator<Item = &'a StaticRoute> {
        let name = self.ports.vrf_name(self.vrf);
        self.desired.static_routes.iter().filter(move |route| route.vrf.as_deref() == name)
    }

    /// A port of this VRF that packets can leave by.
    fn is_usable(&self, ifindex: IfIndex) -> bool {
        let up = self.network.links.get(&ifindex).is_some_and(|link| link.up);
        up && self.ports.egress.contains_key(&ifindex) && self.holds(ifindex)
    }

    /// No port: the host's stack sends by it, whatever the route's VRF.
    fn is_elsewhere(&self, ifindex: IfIndex) -> bool {
        !self.ports.egress.contains_key(&ifindex)
    }

    /// A port of another VRF.
    fn is_of_another(&self, ifindex: IfIndex) -> bool {
        self.ports.egress.contains_key(&ifindex) && !self.holds(ifindex)
    }
}

/// Routes of the node itself by prefix, and where the sets of the RIB lead.
#[derive(Debug)]
pub(super) struct Routes<'a> {
    pub(super) own: BTreeMap<IpNet, Route>,
    pub(super) sets: Sets,
    /// By the number of the RIB's set; `None`: it leads nowhere.
    pub(super) learned: Vec<Option<SetIndex>>,
    /// What leads to the host's stack, where the kernel has routes.
    pub(super) host: Option<SetIndex>,
    /// Addresses whose longest match the result depends on, beside the own routes.
    pub(super) watched: BTreeSet<IpAddr>,
    /// Gateways that nothing leads to.
    pub(super) unreachable: BTreeSet<IpAddr>,
    /// Sets of the RIB that have a way by an interface of another VRF, by interface.
    pub(super) leaving: BTreeMap<IfIndex, Vec<SetId>>,
    pub(super) rib: &'a Rib,
    lengths: [BTreeSet<u8>; 2],
}

impl<'a> Routes<'a> {
    /// The node's own routes in a VRF, and the sets of its RIB looked up. `sets` are those of other VRFs.
    pub(super) fn collect(scope: Scope<'a>, sets: Sets, known: &mut KnownGateways, notices: &mut Vec<Notice>) -> Self {
        let mut routes = Self {
            own: BTreeMap::new(),
            sets,
            learned: Vec::new(),
            host: None,
            watched: BTreeSet::new(),
            unreachable: BTreeSet::new(),
            leaving: BTreeMap::new(),
            rib: scope.rib,
            lengths: Default::default(),
        };
        let is_default = scope.vrf == VrfId::DEFAULT;
        let services = if is_default { scope.desired.services.as_slice() } else { &[] };
        let of_vips: BTreeSet<IpNet> = services.iter().flat_map(|s| &s.addresses).copied().collect();
        routes.add_own_addresses(scope, &of_vips);
        routes.add_vips(&of_vips);
        routes.add_subnet_ends(scope);
        routes.add_connected(scope);
        routes.add_static(scope, known, notices);
        // Ways through the kernel's routes first: they may lead to what BGP has learned.
        for origin in [Origin::Kernel, Origin::Bgp, Origin::Adopted] {
            routes.add_learned(origin, scope, known);
        }
        routes.add_neighbors(scope);
        // Where sources are validated, nobody knows where those of routes that found no room come in.
        let beside = if scope.ports.validate() { Origins::ANY.without(Origins::ROUTED) } else { Origins::NONE };
        let has_routes = is_default && scope.rib.count(Origin::Kernel) > 0;
        routes.host = has_routes.then(|| routes.sets.direct_beside(NextHopKey::Host, beside));
        routes
    }

    /// Longest match of `address` among all routes that lead somewhere.
    pub(super) fn lookup(&self, address: IpAddr) -> Option<(IpNet, Route)> {
        let own = self.own_route(address);
        let longer = own.map_or(0, |(prefix, _)| prefix.prefix_len() + 1);
        let leads = |learned: &Learned| {
            let set = *self.learned.get(learned.set.index())?;
            Some(Route { source: learned.source, set: set? })
        };
        let learned = self.rib.covering(address, longer);
        let mut learned = learned.filter_map(|(prefix, routes)| Some((prefix, routes.iter().find_map(leads)?)));
        learned.next().or(own)
    }

    fn own_route(&self, address: IpAddr) -> Option<(IpNet, Route)> {
        let lengths = self.lengths.get(family(address)).into_iter().flatten().rev();
        lengths
            .filter_map(|length| IpNet::new(address, *length).ok())
            .map(|net| net.trunc())
            .find_map(|prefix| self.own.get(&prefix).map(|route| (prefix, *route)))
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
        if let Entry::Vacant(vacant) = self.own.entry(prefix) {
            vacant.insert(Route { source, set });
            if let Some(lengths) = self.lengths.get_mut(family(prefix.addr())) {
                lengths.insert(prefix.prefix_len());
            }
        }
    }

    /// Own addresses first: what is both, as in overlapping prefixes, is this node's.
    fn add_own_addresses(&mut self, scope: Scope<'_>, of_vips: &BTreeSet<IpNet>) {
        for (_, net) in scope.addresses() {
            let vip = of_vips.get(&net.addr().into()).map(IpNet::addr);
            let set = self.sets.direct(NextHopKey::Receive { vip });
            self.insert(net.addr().into(), Source::Local, set);
        }
    }

    fn add_vips(&mut self, of_vips: &BTreeSet<IpNet>) {
        for prefix in of_vips {
            let set = self.sets.direct(NextHopKey::Vip(*prefix));
            self.insert(*prefix, Source::Vip, set);
        }
    }

    /// Network and broadcast addresses.
    fn add_subnet_ends(&mut self, scope: Scope<'_>) {
        let host = self.sets.direct(NextHopKey::Host);
        for (_, net) in scope.addresses() {
            if net.addr().is_ipv4() && net.prefix_len() < 31 {
                self.insert(net.network().into(), Source::Local, host);
                self.insert(net.broadcast().into(), Source::Local, host);
            }
        }
    }

    /// Of the same prefix on several interfaces, the lowest index comes first.
    fn add_connected(&mut self, scope: Scope<'_>) {
        for (ifindex, net) in scope.addresses() {
            let up = scope.network.links.get(&ifindex).is_some_and(|link| link.up);
            if !up || is_link_local(net.addr()) || net.prefix_len() == net.max_prefix_len() {
                continue;
            }
            let on_port = scope.ports.egress.contains_key(&ifindex);
            let hop = if on_port { NextHopKey::Glean { ifindex } } else { NextHopKey::Host };
            let set = self.sets.direct(hop);
            self.insert(net.trunc(), Source::Connected, set);
        }
    }

    fn add_static(&mut self, scope: Scope<'_>, known: &mut KnownGateways, notices: &mut Vec<Notice>) {
        let mut resolved = Vec::new();
        for route in scope.static_routes() {
            let set = match &route.action {
                RouteAction::Blackhole => self.sets.direct(NextHopKey::Blackhole),
                RouteAction::Prohibit => self.sets.direct(NextHopKey::Prohibit),
                RouteAction::Via(gateways) => {
                    let [mut all, mut unusable] = [const { Vec::new() }; 2];
                    let mut usable = Vec::new();
                    for gateway in gateways {
                        let weight = u32::from(gateway.weight);
                        notices.extend(leaves(route, gateway, scope));
                        match self.static_gateway(gateway, scope) {
                            Some(ifindex) => usable.push(on_link(gateway.address, ifindex, weight)),
                            None => unusable.push(GatewayKey { weight, ..known.last(scope.vrf, gateway.address) }),
                        }
                    }
                    all.extend(usable.iter().map(|(key, _)| *key).chain(unusable.iter().copied()));
                    usable.iter().for_each(|(key, _)| known.remember(scope.vrf, *key));
                    let (name, prefix) = (route.name.clone(), route.prefix);
                    if usable.is_empty() {
                        notices.push(Notice::StaticRouteUnreachable { route: name, prefix });
                        continue;
                    }
                    let missing = |key: GatewayKey| {
                        let (route, gateway) = (name.clone(), key.address);
                        Notice::StaticGatewayUnreachable { route, prefix, gateway }
                    };
                    notices.extend(unusable.into_iter().map(missing));
                    self.sets.gateways(&all, &usable, Origins::NONE)
                }
            };
            resolved.push((route.prefix.trunc(), set));
        }
        for (prefix, set) in resolved {
            self.insert(prefix, Source::Static, set);
        }
    }

    /// The interface that a configured gateway is on.
    fn static_gateway(&self, gateway: &Gateway, scope: Scope<'_>) -> Option<IfIndex> {
        match &gateway.interface {
            Some(name) => scope.network.link_by_name(name).map(|(ifindex, _)| ifindex).filter(|i| scope.is_usable(*i)),
            None => self.gleaned(gateway.address),
        }
    }

    /// Where the sets of one origin lead.
    fn add_learned(&mut self, origin: Origin, scope: Scope<'_>, known: &mut KnownGateways) {
        let mut looked_up: BTreeMap<IpAddr, Option<(GatewayKey, Hops)>> = BTreeMap::new();
        let rib = self.rib;
        let mut resolved = Vec::new();
        for (id, learned) in rib.sets().filter(|(_, set)| set.origin == origin) {
            let alternatives = self.alternatives(&learned.alternatives, scope, &mut looked_up);
            let beside = |hops: &[(NextHopKey, u32)]| alternatives.without(origins_of(hops, scope.ports));
            let one = |sets: &mut Sets, hop| sets.direct_beside(hop, beside(&[(hop, 1)]));
            let way = match &learned.way {
                Way::Gateways(gateways) => {
                    let mut all: SmallVec<[GatewayKey; 2]> = SmallVec::new();
                    let mut usable: SmallVec<[(GatewayKey, Hops); 2]> = SmallVec::new();
                    for gateway in gateways {
                        let rib::Gateway { address, ifindex, weight } = *gateway;
                        let found = match ifindex {
                            Some(ifindex) => scope.is_usable(ifindex).then(|| on_link(address, ifindex, weight)),
                            None => {
                                let recursive = looked_up.entry(address);
                                let found = recursive.or_insert_with(|| self.recursive_gateway(address)).clone();
                                found.map(|(key, hops)| (GatewayKey { weight, ..key }, hops))
                            }
                        };
                        let as_told = || match ifindex {
                            Some(_) => GatewayKey { address, ifindex, weight },
                            None => GatewayKey { weight, ..known.last(scope.vrf, address) },
                        };
                        all.push(found.as_ref().map_or_else(as_told, |(key, _)| *key));
                        // What was told with its interface needs no memory, and has nothing to say of others.
                        if let (None, Some((key, _))) = (ifindex, &found) {
                            known.remember(scope.vrf, *key);
                        }
                        usable.extend(found);
                    }
                    if usable.is_empty() {
                        // The kernel forwards where margay has no port; what a former process forwarded is nobody's now.
                        let elsewhere =
                            |gateway: &rib::Gateway| gateway.ifindex.is_some_and(|ifindex| scope.is_elsewhere(ifindex));
                        let host = origin == Origin::Kernel && gateways.iter().all(elsewhere);
                        host.then(|| one(&mut self.sets, NextHopKey::Host))
                    } else {
                        let hops: Hops = usable.iter().flat_map(|(_, hops)| hops).copied().collect();
                        Some(self.sets.gateways(&all, &usable, beside(&hops)))
                    }
                }
                Way::Link(ifindex) if scope.is_usable(*ifindex) => {
                    Some(one(&mut self.sets, NextHopKey::Glean { ifindex: *ifindex }))
                }
                Way::Link(ifindex) => scope.is_elsewhere(*ifindex).then(|| one(&mut self.sets, NextHopKey::Host)),
                Way::Host => Some(one(&mut self.sets, NextHopKey::Host)),
                Way::Blackhole => Some(self.sets.direct(NextHopKey::Blackhole)),
                Way::Prohibit => Some(self.sets.direct(NextHopKey::Prohibit)),
                Way::Unreachable => Some(self.sets.direct(NextHopKey::Unreachable)),
            };
            if origin == Origin::Kernel {
                self.note_leaving(id, &learned.way, scope);
            }
            resolved.push((id, way));
        }
        self.unreachable.extend(looked_up.iter().filter(|(_, found)| found.is_none()).map(|(gateway, _)| *gateway));
        self.watched.extend(looked_up.into_keys());
        for (id, way) in resolved {
            if self.learned.len() <= id.index() {
                self.learned.resize(id.index() + 1, None);
            }
            if let Some(slot) = self.learned.get_mut(id.index()) {
                *slot = way;
            }
        }
    }

    /// The ports that ask for it and that paths which were not chosen lead by.
    fn alternatives(
        &self,
        alternatives: &Alternatives,
        scope: Scope<'_>,
        looked_up: &mut BTreeMap<IpAddr, Option<(GatewayKey, Hops)>>,
    ) -> Origins {
        let mut all = Origins::NONE;
        for alternative in alternatives {
            match alternative {
                Alternative::Link(ifindex) if scope.is_usable(*ifindex) => {
                    all |= origins(&NextHopKey::Glean { ifindex: *ifindex }, scope.ports);
                }
                Alternative::Link(_) => {}
                Alternative::Gateway(address) => {
                    let found = looked_up.entry(*address).or_insert_with(|| self.recursive_gateway(*address));
                    all |= found.as_ref().map_or(Origins::NONE, |(_, hops)| origins_of(hops, scope.ports));
                }
            }
        }
        all.among(scope.ports.asking_for_alternatives())
    }

    /// Remembers a set with a way by another VRF's interface.
    fn note_leaving(&mut self, id: SetId, way: &Way, scope: Scope<'_>) {
        let gateways = match way {
            Way::Gateways(gateways) => gateways.as_slice(),
            _ => &[],
        };
        let link = match way {
            Way::Link(ifindex) => Some(*ifindex),
            _ => None,
        };
        let ifindexes: BTreeSet<IfIndex> = gateways.iter().filter_map(|gateway| gateway.ifindex).chain(link).collect();
        for ifindex in ifindexes.into_iter().filter(|ifindex| scope.is_of_another(*ifindex)) {
            self.leaving.entry(ifindex).or_default().push(id);
        }
    }

    /// A gateway that was learned without its link: on one, or behind a static or kernel route.
    fn recursive_gateway(&self, address: IpAddr) -> Option<(GatewayKey, Hops)> {
        let (_, route) = self.lookup(address)?;
        match self.sets.get(route.set).1 {
            [(NextHopKey::Glean { ifindex }, _)] => Some(on_link(address, *ifindex, 1)),
            hops @ [(NextHopKey::Forward { .. }, _), ..] => {
                Some((GatewayKey { address, ifindex: None, weight: 1 }, hops.to_vec()))
            }
            _ => None,
        }
    }

    /// Resolved neighbours refine the prefix that they would be gleaned from, and no other route.
    fn add_neighbors(&mut self, scope: Scope<'_>) {
        let on_port = |ifindex: &IfIndex| scope.ports.egress.contains_key(ifindex) && scope.holds(*ifindex);
        let on_ports = scope.network.neighbors.keys().filter(|(ifindex, _)| on_port(ifindex));
        let on_ports: Vec<_> = on_ports.collect();
        self.watched.extend(on_ports.iter().map(|(_, address)| *address));
        let refining = on_ports.into_iter().filter(|(ifindex, address)| self.gleaned(*address) == Some(*ifindex));
        // What leads to the neighbours of a link beside it leads to each of them.
        let beside = |address: IpAddr| {
            let key = self.lookup(address).and_then(|(_, route)| self.sets.get(route.set).0);
            key.map_or(Origins::NONE, |key| key.beside)
        };
        let refining: Vec<_> = refining.map(|(ifindex, address)| (ifindex, address, beside(*address))).collect();
        for (ifindex, address, beside) in refining {
            let set = self.sets.direct_beside(NextHopKey::Forward { address: *address, ifindex: *ifindex }, beside);
            self.insert((*address).into(), Source::Connected, set);
        }
    }
}

impl Ports {
    /// True where one of them asks where packets come from.
    pub(super) fn validate(&self) -> bool {
        self.table.values().any(|port| port.validation != SourceValidation::Off)
    }

    /// The ports that take what comes by paths that were not chosen.
    fn asking_for_alternatives(&self) -> Origins {
        let mut asking = Origins::NONE;
        for port in self.table.values().filter(|port| port.validation == SourceValidation::Feasible) {
            asking |= Origins::by(port.id);
        }
        asking
    }
}

/// What to say of a gateway whose interface is in another VRF than its route.
fn leaves(route: &StaticRoute, gateway: &Gateway, scope: Scope<'_>) -> Option<Notice> {
    let interface = gateway.interface.as_ref()?;
    let (ifindex, _) = scope.network.link_by_name(interface).filter(|(ifindex, _)| scope.is_of_another(*ifindex))?;
    Some(Notice::StaticRouteLeavesVrf {
        route: route.name.clone(),
        prefix: route.prefix,
        vrf: scope.ports.vrf_in_words(scope.vrf),
        interface: interface.clone(),
        other: scope.ports.vrf_in_words(scope.ports.vrf_of(ifindex)),
    })
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
