//! VRFs beside the default one: compiled anew each generation, in the same groups, next hops and adjacencies.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::Forwarding;
use super::notice::Notice;
use super::ports::Ports;
use super::routes::{Routes, Scope, Sets};
use crate::ids::{KnownGateways, Limits};
use crate::network::Network;
use crate::rib::{Origin, Rib, SetId, Source};
use crate::tables::{GroupId, VrfId};

/// Routes of one VRF that forward.
type Table = BTreeMap<IpNet, (Source, GroupId)>;

/// The routes of every VRF.
#[derive(Debug)]
pub(super) struct Vrfs<'a>(BTreeMap<VrfId, Routes<'a>>);

impl<'a> Vrfs<'a> {
    /// Looks every VRF's routes up in what is the VRF's own. `scope` is the default one's, `no_rib` what a VRF without a table knows.
    pub(super) fn collect(
        scope: Scope<'a>,
        no_rib: &'a Rib,
        sets: &mut Sets,
        known: &mut KnownGateways,
        notices: &mut Vec<Notice>,
    ) -> Self {
        let mut vrfs = BTreeMap::new();
        for vrf in &scope.desired.vrfs {
            let Some(id) = scope.ports.vrfs.get(&vrf.name) else { continue };
            let rib = vrf.table.and_then(|table| scope.rib.table(table)).unwrap_or(no_rib);
            let mut routes = Routes::collect(Scope { rib, vrf: *id, ..scope }, std::mem::take(sets), known, notices);
            *sets = std::mem::take(&mut routes.sets);
            vrfs.insert(*id, routes);
        }
        Self(vrfs)
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = &Routes<'a>> {
        self.0.values()
    }

    /// What each VRF's table holds, and how many routes there is no room for.
    pub(super) fn tables(&self, forwarding: &Forwarding, limits: &Limits) -> BTreeMap<VrfId, (Table, usize)> {
        self.0.iter().map(|(vrf, routes)| (*vrf, table(routes, forwarding, limits.vrf_prefixes))).collect()
    }

    /// What there is to say about the routes of these tables.
    pub(super) fn notices(&self, scope: Scope<'_>, tables: &BTreeMap<VrfId, (Table, usize)>) -> Vec<Notice> {
        let ports = scope.ports;
        let mut notices = Vec::new();
        for (vrf, routes) in &self.0 {
            let name = ports.vrf_name(*vrf).unwrap_or_default().to_owned();
            let leaving = Leaving::of(routes, *vrf, ports, scope.network);
            notices.extend(leaving.iter().filter_map(|leaving| leaving.notice(routes.rib)));
            let martians = routes.rib.martians(Origin::Kernel);
            notices.extend(martians.first().map(|first| Notice::Martians {
                origin: format!("the kernel in VRF {name}"),
                routes: martians.len(),
                first: *first,
            }));
            let left_out = tables.get(vrf).map_or(0, |(_, left_out)| *left_out);
            notices.extend((left_out > 0).then_some(Notice::VrfFull { vrf: name, routes: left_out }));
        }
        notices
    }
}

/// The routes that forward, and how many there is no room for. The node's own are few and come first.
fn table(routes: &Routes<'_>, forwarding: &Forwarding, room: usize) -> (Table, usize) {
    let own = routes.own.iter();
    let own = own.filter_map(|(prefix, route)| Some((*prefix, (route.source, forwarding.group_of(route.set)?))));
    let mut table: Table = own.collect();
    let mut left_out = routes.own.len() - table.len();
    for (prefix, learned) in routes.rib.iter().filter(|(prefix, _)| !routes.own.contains_key(prefix)) {
        let leads = learned.iter().find_map(|route| Some((route.source, (*routes.learned.get(route.set.index())?)?)));
        let Some((source, set)) = leads else { continue };
        match forwarding.group_of(set) {
            Some(group) if table.len() < room => drop(table.insert(prefix, (source, group))),
            _ => left_out += 1,
        }
    }
    (table, left_out)
}

/// The groups of a VRF's routes.
pub(super) fn groups(table: &Table) -> BTreeMap<IpNet, GroupId> {
    table.iter().map(|(prefix, (_, group))| (*prefix, *group)).collect()
}

/// Routes that have a way by an interface of another VRF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaving {
    vrf: String,
    interface: String,
    other: String,
    sets: Vec<SetId>,
    /// The interface's own prefixes: the kernel has them in its main table, whatever margay makes of the interface.
    connected: BTreeSet<IpNet>,
    first: Option<IpNet>,
}

impl Leaving {
    pub(super) fn of(routes: &Routes<'_>, vrf: VrfId, ports: &Ports, network: &Network) -> Vec<Self> {
        let leaving = routes.leaving.iter().map(|(ifindex, sets)| {
            let connected: BTreeSet<IpNet> = network.addresses_of(*ifindex).map(|net| net.trunc()).collect();
            let mut all = routes.rib.iter().filter(|(prefix, _)| !connected.contains(prefix));
            let first = all.find(|(_, routes)| routes.iter().any(|route| sets.contains(&route.set)));
            Self {
                vrf: ports.vrf_in_words(vrf),
                interface: ports.egress.get(ifindex).map_or_else(|| format!("if{ifindex}"), |e| e.name.clone()),
                other: ports.vrf_in_words(ports.vrf_of(*ifindex)),
                sets: sets.clone(),
                connected: connected.clone(),
                first: first.map(|(prefix, _)| prefix),
            }
        });
        leaving.collect()
    }

    /// What to say about them, while there are any.
    pub(super) fn notice(&self, rib: &Rib) -> Option<Notice> {
        let routes: usize = self.sets.iter().filter_map(|set| rib.set_of(*set)).map(|set| set.routes).sum();
        let in_sets = |prefix: &&IpNet| rib.routes(**prefix).iter().any(|route| self.sets.contains(&route.set));
        let routes = routes.saturating_sub(self.connected.iter().filter(in_sets).count());
        let Self { vrf, interface, other, first, .. } = self.clone();
        let first = first.filter(|_| routes > 0)?;
        Some(Notice::RoutesLeaveVrf { vrf, interface, other, routes, first })
    }
}
