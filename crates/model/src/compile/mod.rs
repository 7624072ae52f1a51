//! From desired state, network and routes to the contents of every table. Pure and deterministic.
//!
//! - The same inputs and [`Ids`] give the same tables; the order of documents is of no consequence.
//! - Every reference in the tables leads to an entry.
//! - A generation that does not fit leaves [`Ids`] as it was, so that the one in force stays in force.
//!
//! The FIB is the one table that is not made anew: a [`Compiler`] keeps it and brings it up to date where routes, or what
//! becomes of their ways out, have changed. What it ends in is what [`compile`] makes of the same inputs at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use smallvec::SmallVec;

use crate::desired::{AttachMode, Desired, MaxMss, SourceValidation, TunnelKind};
use crate::ids::{Exhausted, Ids, Limits, Members, NextHopKey, Wanted};
use crate::network::{IfIndex, Network};
use crate::rib::{Learned, Rib, Source};
use crate::tables::{
    Adjacency, Backend, BackendId, Features, Group, GroupId, NextHop, NextHopId, Origins, Parameters, PortId, Tables,
    VipId, VrfId,
};

mod compiler;
mod filter;
mod notice;
mod ports;
mod routes;
mod services;
#[cfg(test)]
mod tests;
mod tunnels;
mod vrfs;

pub use compiler::{Changed, Compiler, LeftOut};
pub use filter::{FILTER_OPS_MAX, FilterOrigin};
pub use notice::{BackendProblem, CompileError, Notice};
use ports::Ports;
use routes::{Routes, Scope, SetIndex, Sets};
use services::Vip;
use vrfs::{Leaving, Vrfs};

/// One generation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    /// What the maps shall hold.
    pub tables: Tables,
    /// What the program must be able to do.
    pub features: Features,
    /// Numbers that it is specialised with.
    pub parameters: Parameters,
    /// Interfaces that carry the program, ascending: for a port that is a VLAN device, its parent.
    pub attach: Vec<(IfIndex, AttachMode)>,
    /// Prefixes to announce over BGP.
    pub announce: BTreeSet<IpNet>,
    /// What does not take effect as configured, sorted.
    pub notices: Vec<Notice>,
    /// What the routes behind the FIB are made of.
    pub routing: Routing,
    /// Gateways that others stand in for until they answer: somebody has to ask for them.
    pub failed_gateways: BTreeSet<(IfIndex, IpAddr)>,
    /// Next hops were left out that there is room for in the next generation.
    pub wants_another: bool,
    /// What the indices stand for.
    pub names: Names,
}

/// Names for indices, for lists, metrics and explanations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Interface of each port.
    pub ports: BTreeMap<PortId, String>,
    /// VRFs, the default one aside.
    pub vrfs: BTreeMap<VrfId, String>,
    /// `VirtualService` of each VIP.
    pub vips: BTreeMap<VipId, String>,
    /// `VirtualService` and address of each backend.
    pub backends: BTreeMap<BackendId, (String, IpAddr)>,
    /// Where each op of [`Tables::filter`] comes from, by the same index.
    pub filter: Vec<FilterOrigin>,
}

/// Which route of a prefix forwards, and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// Routes that follow from the network and the resources.
    own: BTreeMap<IpNet, (Source, GroupId)>,
    /// The group of each set of the RIB, by its number; `None`: it leads nowhere.
    learned: Vec<Option<GroupId>>,
    /// Sets of the RIB, by number, that lead somewhere and have no group, because there is no room.
    without_group: BTreeSet<usize>,
    /// Neighbours that go without host routes, because there is no room for their groups.
    neighbors_without_group: BTreeSet<IpNet>,
    /// The group of the host's stack, where the kernel has routes.
    host: Option<GroupId>,
    /// The host's stack has what no other route has: routes of the kernel have found no room.
    fallback: [bool; 2],
    /// Addresses whose longest match all this depends on.
    watched: BTreeSet<IpAddr>,
    /// Gateways that nothing leads to.
    unreachable: BTreeSet<IpAddr>,
    /// Routes by interfaces of other VRFs.
    leaving: Vec<Leaving>,
    /// How many routes of the other VRFs do not take effect.
    of_vrfs: Vec<Notice>,
    /// What forwards in the other VRFs.
    vrfs: BTreeMap<VrfId, BTreeMap<IpNet, (Source, GroupId)>>,
}

impl Routing {
    /// The route of a prefix that forwards.
    fn best(&self, prefix: IpNet, rib: &Rib) -> Option<(Source, GroupId)> {
        self.own.get(&prefix).copied().or_else(|| self.best_of(rib.routes(prefix))).or_else(|| self.stand_in(prefix))
    }

    fn stand_in(&self, prefix: IpNet) -> Option<(Source, GroupId)> {
        let stands_in = prefix.prefix_len() == 0 && self.fallback.get(family(prefix)) == Some(&true);
        self.host.filter(|_| stands_in).map(|group| (Source::Fallback, group))
    }

    /// True where something is left out because there is no room for its group.
    fn lacks_groups(&self) -> bool {
        !self.without_group.is_empty() || !self.neighbors_without_group.is_empty()
    }

    /// True where there is no room for the group of a learned route, and no route of the node itself before it.
    fn has_no_group(&self, prefix: IpNet, route: &Learned) -> bool {
        self.without_group.contains(&route.set.index()) && !self.own.contains_key(&prefix)
    }

    fn best_of(&self, routes: &[Learned]) -> Option<(Source, GroupId)> {
        let group = |learned: &Learned| Some((learned.source, (*self.learned.get(learned.set.index())?)?));
        routes.iter().find_map(group)
    }
}

impl Compiled {
    /// Where the route of a prefix that forwards comes from, and its group.
    pub fn best_route(&self, prefix: IpNet, rib: &Rib) -> Option<(Source, GroupId)> {
        self.routing.best(prefix, rib)
    }

    /// Routes of a VRF that forward, by prefix; nothing of the default one.
    pub fn vrf_routes(&self, vrf: VrfId) -> &BTreeMap<IpNet, (Source, GroupId)> {
        static NONE: BTreeMap<IpNet, (Source, GroupId)> = BTreeMap::new();
        self.routing.vrfs.get(&vrf).unwrap_or(&NONE)
    }
}

/// Compiles one generation at once. `ids` carries identifiers from one generation to the next.
///
/// # Errors
/// When something does not fit its table. `ids` is as before then.
pub fn compile(desired: &Desired, network: &Network, rib: &Rib, ids: &mut Ids) -> Result<Compiled, CompileError> {
    let mut compiler = Compiler::new(std::mem::take(ids));
    let compiled = compiler.compile_all(desired, network, rib);
    let (compiled_ids, generation) = compiler.into_parts();
    *ids = compiled_ids;
    compiled.map(|()| generation)
}

/// Everything but the FIB of one generation.
fn without_fib(
    desired: &Desired,
    network: &Network,
    rib: &Rib,
    ids: &mut Ids,
    limits: &Limits,
) -> Result<Compiled, CompileError> {
    ids.begin();
    let was_resting = ids.is_resting();
    let mut compiled = generation(desired, network, rib, ids, limits);
    match &mut compiled {
        Ok(compiled) => {
            ids.commit();
            compiled.wants_another = compiled.routing.lacks_groups() && (was_resting || ids.is_resting());
        }
        Err(_) => ids.roll_back(),
    }
    compiled
}

fn generation(
    desired: &Desired,
    network: &Network,
    rib: &Rib,
    ids: &mut Ids,
    limits: &Limits,
) -> Result<Compiled, CompileError> {
    let mut notices = Vec::new();
    let mut ports = ports::ports(desired, network, ids, &mut notices)?;
    let filter = filter::filter(desired, network, &mut ports, &mut notices)?;
    let scope = Scope { desired, network, rib, ports: &ports, vrf: VrfId::DEFAULT };
    let mut routes = Routes::collect(scope, Sets::default(), &mut ids.gateways, &mut notices);
    let vips = services::vips(desired, network, &ports, &mut routes, ids, &mut notices)?;
    let no_rib = Rib::default();
    let vrfs = Vrfs::collect(scope, &no_rib, &mut routes.sets, &mut ids.gateways, &mut notices);
    let forwarding = Forwarding::build(network, &ports, &routes, &vrfs, &vips, ids, limits)?;
    let tables_of_vrfs = vrfs.tables(&forwarding, limits);
    let failed = |(ifindex, gateway): &(IfIndex, IpAddr)| {
        Some(Notice::GatewayFailed { gateway: *gateway, interface: ports.egress.get(ifindex)?.name.clone() })
    };
    notices.extend(forwarding.failed.iter().filter_map(failed));
    notices.sort_unstable();

    let (tunnel_peers, tunnel_sources) = tunnels::tunnels(scope)?;
    let tables = Tables {
        denylist: desired.denylist.clone(),
        filter: filter.ops,
        tunnel_peers,
        tunnel_sources,
        vips: vips.iter().map(|vip| (vip.key, vip.id)).collect(),
        rings: services::rings(&vips, ids),
        backends: backends(&vips, &forwarding, |vip| &vip.backends),
        checked: backends(&vips, &forwarding, |vip| &vip.checked),
        affinity: vips.iter().filter_map(|vip| Some((vip.id, vip.service.affinity?))).collect(),
        quic: vips.iter().filter_map(|vip| Some((vip.id, vip.service.quic.as_ref()?.lengths))).collect(),
        quic_servers: vips.iter().flat_map(services::quic_servers).collect(),
        fib: BTreeMap::new(),
        vrfs: tables_of_vrfs.iter().map(|(vrf, (table, _))| (*vrf, vrfs::groups(table))).collect(),
        groups: forwarding.groups.clone(),
        next_hops: forwarding.next_hops.clone(),
        adjacencies: forwarding.adjacencies.clone(),
        clamps_in: clamps_in(&ports),
        clamps_out: ports.max_mss.clone(),
        ports: ports.table.clone(),
        origins: forwarding.origins.clone(),
    };
    let names = Names {
        ports: ports.egress.values().filter_map(|e| Some((ports.table.get(&e.key)?.id, e.name.clone()))).collect(),
        vrfs: ports.vrfs.iter().map(|(name, vrf)| (*vrf, name.clone())).collect(),
        vips: vips.iter().map(|vip| (vip.id, vip.service.name.clone())).collect(),
        backends: vips
            .iter()
            .flat_map(|vip| vip.backends.iter().map(|(id, b)| (*id, (vip.service.name.clone(), b.address))))
            .collect(),
        filter: filter.origins,
    };
    Ok(Compiled {
        features: features(desired, &tables),
        parameters: Parameters {
            vxlan_port: desired.node.vxlan_port,
            gue_port: desired.node.gue_port,
            punt_rate: desired.node.punt_rate,
            flow_table_entries: desired.node.flow_table_entries,
            hash_seed: tables::hash::seed(&desired.node.name),
        },
        announce: services::announce(desired, &vips, &routes),
        routing: Routing {
            leaving: Leaving::of(&routes, VrfId::DEFAULT, &ports, network),
            of_vrfs: vrfs.notices(scope, &tables_of_vrfs),
            vrfs: tables_of_vrfs.into_iter().map(|(vrf, (table, _))| (vrf, table)).collect(),
            ..routing(routes, &forwarding)
        },
        failed_gateways: forwarding.failed,
        wants_another: false,
        attach: ports.attach,
        tables,
        notices,
        names,
    })
}

/// By port, what is known by device.
fn clamps_in(ports: &Ports) -> BTreeMap<PortId, MaxMss> {
    let port = |device| ports.table.get(&ports.egress.get(device)?.key);
    ports.max_mss.iter().filter_map(|(device, most)| Some((port(device)?.id, *most))).collect()
}

/// What source validation asks about a next hop. A route's next hops count whether their weight gives them a bucket or not: packets come
/// by them.
fn origins(hop: &NextHopKey, ports: &Ports) -> Origins {
    match hop {
        NextHopKey::Forward { ifindex, .. } | NextHopKey::Glean { ifindex } => {
            let port = ports.egress.get(ifindex).and_then(|egress| ports.table.get(&egress.key));
            port.map_or(Origins::ROUTED, |port| Origins::by(port.id))
        }
        NextHopKey::Host => Origins::ROUTED,
        NextHopKey::Vip(_) => Origins::ANY,
        NextHopKey::Receive { .. } | NextHopKey::Blackhole | NextHopKey::Prohibit | NextHopKey::Unreachable => {
            Origins::NONE
        }
    }
}

/// The same about all next hops of a route.
fn origins_of(hops: &[(NextHopKey, u32)], ports: &Ports) -> Origins {
    let mut all = Origins::NONE;
    hops.iter().for_each(|(hop, _)| all |= origins(hop, ports));
    all
}

fn features(desired: &Desired, tables: &Tables) -> Features {
    let tunnels = &desired.tunnels;
    let denied = tables.denylist.anywhere();
    Features {
        decap_ipip: tunnels.iter().any(|tunnel| tunnel.kind == TunnelKind::Ipip),
        decap_vxlan: tunnels.iter().any(|tunnel| matches!(tunnel.kind, TunnelKind::Vxlan { .. })),
        decap_gue: tunnels.iter().any(|tunnel| tunnel.kind == TunnelKind::Gue),
        denied_sources: denied.source,
        denied_destinations: denied.destination,
        filter: tables.ports.values().any(|port| port.filter.is_some()),
        source_validation: tables.ports.values().any(|port| port.validation != SourceValidation::Off),
        max_mss: !tables.clamps_out.is_empty(),
        vip: !tables.vips.is_empty(),
        quic: !tables.quic.is_empty(),
        affinity: !tables.affinity.is_empty(),
        vlan: tables.ports.keys().any(|key| key.vlan.is_some())
            || tables.adjacencies.values().any(|adjacency| adjacency.vlan.is_some()),
        vrf: tables.ports.values().any(|port| port.vrf != VrfId::DEFAULT),
        slow_path: !tables.ports.is_empty(),
    }
}

/// The rows of some backends of each VIP.
fn backends(
    vips: &[Vip<'_>],
    forwarding: &Forwarding,
    some: impl for<'a> Fn(&'a Vip<'_>) -> &'a [(BackendId, services::UsableBackend)],
) -> BTreeMap<BackendId, Backend> {
    let of_vip = |vip: &Vip<'_>| {
        let vip_id = vip.id;
        let entry = move |(id, b): &(BackendId, services::UsableBackend)| {
            let group = forwarding.group(b.set);
            (
                *id,
                Backend {
                    vip: vip_id,
                    address: b.address,
                    outer: b.outer,
                    group,
                    inner_mtu: b.inner_mtu,
                    draining: b.draining,
                },
            )
        };
        some(vip).iter().map(entry).collect::<Vec<_>>()
    };
    vips.iter().flat_map(of_vip).collect()
}

/// Groups, next hops and adjacencies of the sets in use.
struct Forwarding {
    by_set: BTreeMap<SetIndex, GroupId>,
    groups: BTreeMap<GroupId, Group>,
    next_hops: BTreeMap<NextHopId, NextHop>,
    adjacencies: BTreeMap<crate::tables::AdjacencyId, Adjacency>,
    /// Of every group, where a port validates sources.
    origins: BTreeMap<GroupId, Origins>,
    /// Gateways that do not answer and are in no group, because each has another.
    failed: BTreeSet<(IfIndex, IpAddr)>,
}

impl Forwarding {
    fn build(
        network: &Network,
        ports: &Ports,
        routes: &Routes<'_>,
        vrfs: &Vrfs<'_>,
        vips: &[Vip<'_>],
        ids: &mut Ids,
        limits: &Limits,
    ) -> Result<Self, CompileError> {
        let mut failed = BTreeSet::new();
        let mut wanted = |sets: &BTreeSet<SetIndex>| {
            let mut wanted = Wanted::new();
            for set in sets {
                if let (Some(key), hops) = routes.sets.get(*set) {
                    wanted.insert(key.clone(), answering(hops, network, &mut failed));
                }
            }
            wanted
        };
        // What others cover is left out where there is no room: learned routes, and neighbours that would be gleaned.
        let is_covered = |(prefix, route): &(&IpNet, &routes::Route)| {
            route.source == Source::Connected && prefix.prefix_len() == prefix.max_prefix_len()
        };
        let of_all = || std::iter::once(routes).chain(vrfs.routes());
        let (neighbors, own): (Vec<_>, Vec<_>) = of_all().flat_map(|routes| &routes.own).partition(is_covered);
        let of_backends =
            vips.iter().flat_map(|vip| vip.backends.iter().chain(&vip.checked).map(|(_, backend)| backend.set));
        let first = own.iter().map(|(_, route)| route.set).chain(of_backends).chain(routes.host);
        let first: BTreeSet<SetIndex> = first.collect();
        let learned = of_all().flat_map(|routes| routes.learned.iter().copied().flatten());
        let others = learned.chain(neighbors.iter().map(|(_, route)| route.set));
        let others: BTreeSet<SetIndex> = others.collect();
        let (of_first, mut of_others) = (wanted(&first), wanted(&others));
        of_others.retain(|key, _| !of_first.contains_key(key));
        let too_many = |what, limit| move |_| CompileError::TooMany { what, limit };
        let assigned = ids.assign_groups(of_first, of_others, limits);
        let assigned = assigned.map_err(too_many("next-hop groups", limits.groups))?;

        let mut this = Self {
            by_set: BTreeMap::new(),
            groups: BTreeMap::new(),
            next_hops: BTreeMap::new(),
            adjacencies: BTreeMap::new(),
            origins: BTreeMap::new(),
            failed,
        };
        let validates = ports.validate();
        for set in first.union(&others).copied() {
            let (key, hops) = routes.sets.get(set);
            let Some(group) = key.and_then(|key| assigned.get(key)) else { continue };
            this.by_set.insert(set, group.id);
            if validates {
                let of_group = this.origins.entry(group.id).or_default();
                *of_group |= origins_of(hops, ports);
                *of_group |= key.map_or(Origins::NONE, |key| key.beside);
            }
        }
        let too_many = too_many("next hops", limits.next_hops);
        let hops = assigned.values().flat_map(|group| group.buckets.distinct().iter().copied());
        let hops: BTreeSet<NextHopKey> = hops.collect();
        let mut hop_ids = BTreeMap::new();
        for hop in hops {
            hop_ids.insert(hop, this.next_hop(hop, network, ports, ids).map_err(too_many)?);
        }
        for group in assigned.into_values() {
            let id = |hop: &NextHopKey| hop_ids.get(hop).copied().unwrap_or(NextHopId(0));
            let ids: SmallVec<[NextHopId; 4]> = group.buckets.distinct().iter().map(id).collect();
            this.groups.insert(group.id, Group { buckets: group.buckets.by(&ids) });
        }
        Ok(this)
    }

    /// The group of a set, if there is room for it.
    fn group_of(&self, set: SetIndex) -> Option<GroupId> {
        self.by_set.get(&set).copied()
    }

    /// The group of a backend's set: these always have one.
    fn group(&self, set: SetIndex) -> GroupId {
        self.group_of(set).unwrap_or(GroupId(0))
    }

    fn next_hop(
        &mut self,
        key: NextHopKey,
        network: &Network,
        ports: &Ports,
        ids: &mut Ids,
    ) -> Result<NextHopId, Exhausted> {
        let id = ids.next_hop(key)?;
        let hop = match key {
            NextHopKey::Forward { address, ifindex } => {
                let adjacency = ids.adjacency(ifindex, address)?;
                if let Some(egress) = ports.egress.get(&ifindex) {
                    let destination = network.neighbors.get(&(ifindex, address)).copied();
                    let (ifindex, vlan) = (egress.key.ifindex, egress.key.vlan);
                    let entry = Adjacency { ifindex, vlan, mtu: egress.mtu, source: egress.mac, destination };
                    self.adjacencies.insert(adjacency, entry);
                }
                NextHop::Forward { address, ifindex, adjacency }
            }
            NextHopKey::Glean { ifindex } => NextHop::Glean { ifindex },
            NextHopKey::Receive { vip } => NextHop::Receive { vip },
            NextHopKey::Host => NextHop::Host,
            NextHopKey::Vip(prefix) => NextHop::Vip(prefix),
            NextHopKey::Blackhole => NextHop::Blackhole,
            NextHopKey::Prohibit => NextHop::Prohibit,
            NextHopKey::Unreachable => NextHop::Unreachable,
        };
        self.next_hops.insert(id, hop);
        Ok(id)
    }
}

/// The next hops that answer, or have not been asked; all of them where none does. What is passed over is added to `failed`.
fn answering(hops: &[(NextHopKey, u32)], network: &Network, failed: &mut BTreeSet<(IfIndex, IpAddr)>) -> Members {
    let silent = |hop: &NextHopKey| match hop {
        NextHopKey::Forward { address, ifindex } => {
            Some((*ifindex, *address)).filter(|key| network.failed.contains(key))
        }
        _ => None,
    };
    let answering: Members = hops.iter().filter(|(hop, _)| silent(hop).is_none()).copied().collect();
    if answering.is_empty() {
        return hops.to_vec();
    }
    failed.extend(hops.iter().filter_map(|(hop, _)| silent(hop)));
    answering
}

fn routing(routes: Routes<'_>, forwarding: &Forwarding) -> Routing {
    let group = |set: &Option<SetIndex>| set.and_then(|set| forwarding.group_of(set));
    let learned: Vec<Option<GroupId>> = routes.learned.iter().map(group).collect();
    let leads = routes.learned.iter().zip(&learned).enumerate();
    let without_group =
        leads.filter(|(_, (set, group))| set.is_some() && group.is_none()).map(|(set, _)| set).collect();
    let with_group =
        |(prefix, route): (&IpNet, &routes::Route)| Some((*prefix, (route.source, forwarding.group_of(route.set)?)));
    let own: BTreeMap<IpNet, (Source, GroupId)> = routes.own.iter().filter_map(with_group).collect();
    Routing {
        learned,
        without_group,
        neighbors_without_group: routes.own.keys().filter(|prefix| !own.contains_key(*prefix)).copied().collect(),
        own,
        host: routes.host.and_then(|set| forwarding.group_of(set)),
        fallback: [false; 2],
        watched: routes.watched,
        unreachable: routes.unreachable,
        leaving: Vec::new(),
        of_vrfs: Vec::new(),
        vrfs: BTreeMap::new(),
    }
}

fn family(prefix: IpNet) -> usize {
    usize::from(prefix.addr().is_ipv6())
}
