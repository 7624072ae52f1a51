//! The tables that are followed: the default VRF's, and those of the other VRFs. Pure, as each of them is.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use model::rib::{Alternatives, Way};

use super::VrfChanges;
use super::table::{KernelRoutes, Outcome};
use super::wire::Message;

/// Ways out by prefix; `None`: there is none any more.
pub(super) type Changes = Vec<(IpNet, Option<Way>)>;

/// One table, or several at once.
#[derive(Debug)]
pub(super) struct Tables {
    table: u32,
    default: KernelRoutes,
    /// By number. One that is not followed any more stays until it has been told that its routes have gone.
    vrfs: BTreeMap<u32, KernelRoutes>,
    followed: BTreeSet<u32>,
}

impl Tables {
    /// One table, of which nothing is known yet.
    pub(super) fn new(table: u32) -> Self {
        Self { table, default: KernelRoutes::new(table), vrfs: BTreeMap::new(), followed: BTreeSet::new() }
    }

    /// Follows these tables from now on. The default VRF's routes stay until a dump has brought those of its table. True where a table
    /// is new.
    pub(super) fn set(&mut self, table: u32, followed: &BTreeSet<u32>) -> bool {
        let mut is_new = self.table != table;
        self.table = table;
        self.default.set_table(table);
        for vrf in followed.difference(&self.followed) {
            self.vrfs.entry(*vrf).or_insert_with(|| KernelRoutes::new(*vrf));
            is_new = true;
        }
        self.followed.clone_from(followed);
        let gone = self.vrfs.iter_mut().filter(|(vrf, _)| !followed.contains(vrf));
        gone.for_each(|(_, routes)| routes.clear());
        is_new
    }

    /// Forgets everything: all routes go.
    pub(super) fn clear(&mut self) {
        self.followed.clear();
        self.all().for_each(KernelRoutes::clear);
    }

    /// Their numbers.
    pub(super) fn numbers(&self) -> Vec<u32> {
        std::iter::once(self.table).chain(self.followed.iter().copied()).collect()
    }

    fn all(&mut self) -> impl Iterator<Item = &mut KernelRoutes> {
        std::iter::once(&mut self.default).chain(self.vrfs.values_mut())
    }

    /// Those that a message is about: of a route, the one that it is in.
    fn concerned(&mut self, message: &Message) -> impl Iterator<Item = &mut KernelRoutes> {
        let table = match message {
            Message::NewRoute(route, _) | Message::DelRoute(route) => Some(route.table),
            _ => None,
        };
        let (default, followed) = ((self.table, &mut self.default), &self.followed);
        let vrfs = self.vrfs.iter_mut().filter(|(vrf, _)| followed.contains(vrf)).map(|(vrf, routes)| (*vrf, routes));
        let all = std::iter::once(default).chain(vrfs);
        all.filter(move |(number, _)| table.is_none_or(|table| table == *number)).map(|(_, routes)| routes)
    }

    /// As [`KernelRoutes::notified`].
    pub(super) fn notified(&mut self, message: Message) -> bool {
        // All of them, whatever one says.
        self.concerned(&message).fold(false, |missed, routes| routes.notified(message.clone()) | missed)
    }

    /// As [`KernelRoutes::dumped`].
    pub(super) fn dumped(&mut self, message: Message) {
        self.concerned(&message).for_each(|routes| routes.dumped(message.clone()));
    }

    /// As [`KernelRoutes::begin`].
    pub(super) fn begin(&mut self) {
        self.all().for_each(KernelRoutes::begin);
    }

    /// As [`KernelRoutes::interrupted`].
    pub(super) fn interrupted(&mut self) {
        self.all().for_each(KernelRoutes::interrupted);
    }

    /// As [`KernelRoutes::finish`], of all of them.
    pub(super) fn finish(&mut self) -> Outcome {
        self.all().map(KernelRoutes::finish).fold(Outcome::default(), |mut all, outcome| {
            all.differences.extend(outcome.differences);
            all.undecided |= outcome.undecided;
            all
        })
    }

    /// Prefixes of the default VRF's table with a route.
    pub(super) fn len(&self) -> usize {
        self.default.len()
    }

    /// True where [`take_changes`](Self::take_changes) has something.
    pub(super) fn has_changes(&self) -> bool {
        self.default.has_changes() || self.vrfs.values().any(KernelRoutes::has_changes)
    }

    /// How many prefixes wait to be told.
    pub(super) fn waiting(&self) -> usize {
        self.default.waiting() + self.vrfs.values().map(KernelRoutes::waiting).sum::<usize>()
    }

    /// What the routes of a prefix of the default VRF's table lead by that stand behind the one which is told.
    pub(super) fn alternatives(&self, prefix: IpNet) -> Alternatives {
        self.default.alternatives(prefix)
    }

    /// Has every prefix told again that has several routes.
    pub(super) fn tell_alternatives(&mut self) {
        self.all().for_each(KernelRoutes::tell_alternatives);
    }

    /// What has become different in the default VRF's table, and in the others, of at most `limit` prefixes. Of the others with
    /// what stands behind, where that is asked for.
    pub(super) fn take_changes(&mut self, limit: usize, alternatives: bool) -> (Changes, BTreeMap<u32, VrfChanges>) {
        let default = self.default.take_changes(limit);
        let mut left = limit.saturating_sub(default.len());
        let mut of_vrfs = BTreeMap::new();
        for (vrf, routes) in &mut self.vrfs {
            let changes = routes.take_changes(left);
            left = left.saturating_sub(changes.len());
            let behind = |prefix| if alternatives { routes.alternatives(prefix) } else { Alternatives::new() };
            let changes = changes.into_iter().map(|(prefix, way)| (prefix, way.map(|way| (way, behind(prefix)))));
            let changes: VrfChanges = changes.collect();
            if !changes.is_empty() {
                of_vrfs.insert(*vrf, changes);
            }
        }
        let followed = &self.followed;
        self.vrfs.retain(|vrf, routes| followed.contains(vrf) || routes.has_changes());
        (default, of_vrfs)
    }

    /// The way out of every prefix of the default VRF's table that has one.
    pub(super) fn ways(&mut self) -> BTreeMap<IpNet, Way> {
        self.default.ways()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::netlink::routes::wire::{Action, Body, Place, Route};

    fn route(table: u32) -> Message {
        let body = Body {
            action: Action::Blackhole,
            next_hop: 0,
            hops: Default::default(),
            joins: false,
            source: None,
            rest: 0,
        };
        let prefix = "10.0.0.0/8".parse().unwrap();
        Message::NewRoute(Route { table, prefix, metric: 0, body }, Place::Only)
    }

    #[test]
    fn every_table_has_its_own_routes_and_takes_them_along() {
        let mut tables = Tables::new(254);
        assert!(tables.set(254, &BTreeSet::from([7, 8])));
        assert!(!tables.set(254, &BTreeSet::from([7, 8])), "nothing new");
        assert_eq!(tables.numbers(), [254, 7, 8]);
        for table in [254, 7, 9] {
            tables.notified(route(table));
        }
        let prefix: IpNet = "10.0.0.0/8".parse().unwrap();
        let has = vec![(prefix, Some(Way::Blackhole))];
        assert_eq!(tables.take_changes(1, true), (has, BTreeMap::new()), "one at a time");
        let has = vec![(prefix, Some((Way::Blackhole, Alternatives::new())))];
        let none_of_others = (vec![], BTreeMap::from([(7, has)]));
        assert_eq!(tables.take_changes(9, true), none_of_others, "none of a table that nobody follows");
        tables.set(254, &BTreeSet::from([8]));
        tables.notified(route(7));
        assert_eq!(tables.take_changes(9, true), (vec![], BTreeMap::from([(7, vec![(prefix, None)])])));
        assert!(!tables.has_changes() && tables.len() == 1);
    }
}
