//! The FIB by difference.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{CompileError, Compiled, Notice, Routing, family, without_fib};
use crate::desired::Desired;
use crate::ids::{Ids, Limits, Loss};
use crate::marks::Slots;
use crate::network::Network;
use crate::rib::{Learned, Origin, Rib, RibChanges, SetId, Source, Way};
use crate::tables::{Group, GroupId, Slot};

/// Which prefixes of the FIB are not what they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Any may be.
    Everything,
    /// These, in no order.
    Prefixes(Vec<IpNet>),
}

impl Changed {
    fn add(&mut self, prefix: IpNet) {
        if let Self::Prefixes(prefixes) = self {
            prefixes.push(prefix);
        }
    }

    /// True where nothing is different.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Prefixes(prefixes) if prefixes.is_empty())
    }
}

/// Keeps a generation and brings it up to date.
///
/// A change of routes that know where they lead costs what the change costs ([`follow`](Self::follow)). Anything else
/// compiles all but the FIB anew, and decides again about the routes whose way out leads elsewhere now: about none of a
/// million where a gateway is lost that others can stand in for, because their group stays and only its buckets change.
#[derive(Debug)]
pub struct Compiler {
    ids: Ids,
    compiled: Compiled,
    /// What the RIB told and a failed compilation has not used.
    due: RibChanges,
    limits: Limits,
    fib: Capacity,
    changed: Changed,
    compiled_once: bool,
}

/// How much of the FIB is in use, and what did not fit.
#[derive(Debug)]
struct Capacity {
    room: [usize; 2],
    used: [usize; 2],
    /// Prefixes that the FIB has no room for.
    left_out: [BTreeSet<IpNet>; 2],
    /// Prefixes whose route of the kernel's is left out, because there is no room for it here or for its group.
    with_the_kernel: [BTreeSet<IpNet>; 2],
}

/// Routes that there is no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Prefixes that the IPv4 and the IPv6 FIB has no room for.
    pub prefixes: [usize; 2],
    /// Routes whose next-hop groups there is no room for.
    pub groups: usize,
}

/// The default routes.
const DEFAULTS: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
];

impl Compiler {
    /// Nothing compiled yet; `ids` are those of a former process, or new.
    pub fn new(ids: Ids) -> Self {
        Self::with_limits(ids, Limits::default())
    }

    /// The same for tables that hold so much.
    pub fn with_limits(ids: Ids, limits: Limits) -> Self {
        let fib = Capacity {
            room: limits.prefixes,
            used: [0; 2],
            left_out: Default::default(),
            with_the_kernel: Default::default(),
        };
        Self {
            ids,
            compiled: Compiled::default(),
            due: RibChanges::default(),
            limits,
            fib,
            changed: Changed::Everything,
            compiled_once: false,
        }
    }

    /// The generation as it is now.
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// How many routes there is no room for.
    pub fn left_out(&self, rib: &Rib) -> LeftOut {
        let Routing { without_group, neighbors_without_group, .. } = &self.compiled.routing;
        let of_sets = rib.sets().filter(|(id, _)| without_group.contains(&id.index())).map(|(_, set)| set.routes);
        LeftOut {
            prefixes: [0, 1].map(|family: usize| self.fib.left_out.get(family).map_or(0, BTreeSet::len)),
            groups: of_sets.sum::<usize>() + neighbors_without_group.len(),
        }
    }

    /// The routes that there is no room for, by prefix and source; host routes of neighbours are connected ones.
    pub fn routes_left_out(&self, rib: &Rib) -> BTreeSet<(IpNet, Source)> {
        let routing = &self.compiled.routing;
        let of_prefixes = self.fib.left_out.iter().flatten();
        let of_prefixes =
            of_prefixes.flat_map(|prefix| rib.routes(*prefix).iter().map(move |route| (*prefix, route.source)));
        let of_groups = rib.iter().flat_map(|(prefix, routes)| {
            let without = move |route: &&Learned| routing.has_no_group(prefix, route);
            routes.iter().filter(without).map(move |route| (prefix, route.source))
        });
        let neighbors = routing.neighbors_without_group.iter().map(|prefix| (*prefix, Source::Connected));
        of_prefixes.chain(of_groups).chain(neighbors).collect()
    }

    pub(super) fn into_parts(self) -> (Ids, Compiled) {
        (self.ids, self.compiled)
    }

    /// What of the FIB has changed since [`written`](Self::written).
    pub fn changed(&self) -> &Changed {
        &self.changed
    }

    /// Whoever follows the FIB has taken over what [`changed`](Self::changed) told.
    pub fn written(&mut self) {
        self.changed = Changed::Prefixes(Vec::new());
    }

    /// Compiles everything but the FIB anew, and of the FIB what that makes different. True where anything is different.
    ///
    /// # Errors
    /// When something does not fit its table. Everything stays as it was then; changes of the RIB are not forgotten.
    pub fn compile(&mut self, desired: &Desired, network: &Network, rib: &mut Rib) -> Result<bool, CompileError> {
        rib.forget_unused_sets();
        let RibChanges { prefixes, sets } = rib.take_changes();
        self.due.prefixes.extend(prefixes);
        self.due.sets.extend(sets);
        if !self.compiled_once {
            self.compile_all(desired, network, rib)?;
            return Ok(true);
        }
        let mut compiled = without_fib(desired, network, rib, &mut self.ids, &self.limits)?;
        let RibChanges { prefixes: mut due, sets } = std::mem::take(&mut self.due);
        let fib = std::mem::take(&mut self.compiled.tables.fib);
        self.compiled.notices.retain(|notice| !counts_routes(notice));
        compiled.routing.fallback = self.compiled.routing.fallback;
        if self.compiled.routing.host != compiled.routing.host {
            due.extend(DEFAULTS);
        }
        let same = self.compiled == compiled;
        due.extend(differences(&self.compiled.routing.own, &compiled.routing.own));
        due.extend(led_elsewhere(&self.compiled.routing, &compiled.routing, &sets, rib));
        compiled.tables.fib = fib;
        self.compiled = compiled;
        self.decide(due, rib);
        Ok(!same || !self.changed.is_empty())
    }

    /// Compiles everything anew.
    pub(super) fn compile_all(&mut self, desired: &Desired, network: &Network, rib: &Rib) -> Result<(), CompileError> {
        self.compiled = without_fib(desired, network, rib, &mut self.ids, &self.limits)?;
        self.due = RibChanges::default();
        self.compiled.tables.fib = self.fib.fill(&self.compiled.routing, rib);
        self.changed = Changed::Everything;
        self.compiled_once = true;
        self.fall_back(rib);
        self.tell(rib);
        Ok(())
    }

    /// Lets slots count as unchanged: from the next generation on the ring alone is the answer there.
    pub fn clear(&mut self, slots: &Slots) {
        for (vip, indices) in slots {
            if let Some((_, ring)) = self.ids.rings.get_mut(vip) {
                let slot = |(index, slot): (usize, &Slot)| {
                    if indices.contains(&index) { Slot::from(slot.now()) } else { *slot }
                };
                *ring = ring.iter().enumerate().map(slot).collect();
            }
        }
    }

    /// An interface or a neighbour is lost: its next hops leave every group that has others, whatever stands behind it, before
    /// anything is compiled. The groups that changed; the next [`compile`](Self::compile) finds them as they are now to be.
    pub fn lose(&mut self, loss: impl Into<Loss>) -> Vec<GroupId> {
        let changed = self.ids.lose(loss.into());
        let groups = &mut self.compiled.tables.groups;
        changed
            .into_iter()
            .map(|(id, buckets)| {
                groups.insert(id, Group { buckets });
                id
            })
            .collect()
    }

    /// Follows changes of the RIB that concern the FIB alone; false, and nothing is done, where they concern more and
    /// [`compile`](Self::compile) is needed: a way out that was not there, or a route to a gateway, backend or neighbour.
    pub fn follow(&mut self, rib: &mut Rib) -> bool {
        let watched = &self.compiled.routing.watched;
        let matters = |prefix: &IpNet| watched.range(prefix.network()..=prefix.broadcast()).next().is_some();
        let undone = !self.due.prefixes.is_empty() || !self.due.sets.is_empty();
        // A way out that nobody has any more is room for one that is left out.
        let makes_room = self.compiled.routing.lacks_groups() && rib.sets().any(|(_, set)| set.routes == 0);
        if !self.compiled_once || undone || makes_room || !rib.only_routes_changed(matters) {
            return false;
        }
        let changes = rib.take_changes();
        self.decide(changes.prefixes, rib);
        true
    }

    /// Brings the FIB up to date at these prefixes.
    fn decide(&mut self, due: Vec<IpNet>, rib: &Rib) {
        let Self { compiled: Compiled { routing, tables, .. }, fib, changed, .. } = self;
        for prefix in due {
            fib.decide(&mut tables.fib, prefix, routing, rib, changed);
        }
        for family in 0..2 {
            while let Some(prefix) = fib.next_left_out(family) {
                fib.decide(&mut tables.fib, prefix, routing, rib, changed);
            }
        }
        self.fall_back(rib);
        self.tell(rib);
    }

    /// While routes of the kernel find no room, packets that no other route has go to the host's stack, which has them.
    fn fall_back(&mut self, rib: &Rib) {
        let Self { compiled: Compiled { routing, tables, .. }, fib, changed, .. } = self;
        for (family, default) in DEFAULTS.into_iter().enumerate() {
            let wanted = fib.with_the_kernel.get(family).is_some_and(|prefixes| !prefixes.is_empty());
            if let Some(fallback) = routing.fallback.get_mut(family)
                && std::mem::replace(fallback, wanted) != wanted
            {
                fib.decide(&mut tables.fib, default, routing, rib, changed);
            }
        }
    }

    /// Counts the routes that do not take effect.
    fn tell(&mut self, rib: &Rib) {
        let LeftOut { prefixes, groups } = self.left_out(rib);
        let Compiled { notices, routing, .. } = &mut self.compiled;
        notices.retain(|notice| !counts_routes(notice));
        notices.extend(routing.leaving.iter().filter_map(|leaving| leaving.notice(rib)));
        notices.extend(routing.of_vrfs.iter().cloned());
        let full = prefixes.into_iter().filter(|routes| *routes > 0);
        notices.extend(full.map(|routes| Notice::FibFull { routes }));
        notices.extend((groups > 0).then_some(Notice::GroupsFull { routes: groups }));
        for (of, origin) in [(Origin::Kernel, "the kernel"), (Origin::Bgp, "BGP")] {
            let martians = rib.martians(of);
            let notice =
                |first: &IpNet| Notice::Martians { origin: origin.to_owned(), routes: martians.len(), first: *first };
            notices.extend(martians.first().map(notice));
        }
        if !routing.unreachable.is_empty() {
            let mut routes: BTreeMap<IpAddr, usize> = BTreeMap::new();
            for (_, set) in rib.sets().filter(|(_, set)| set.routes > 0) {
                let Way::Gateways(gateways) = &set.way else { continue };
                let recursive = gateways.iter().filter(|gateway| gateway.ifindex.is_none());
                for gateway in recursive.filter(|gateway| routing.unreachable.contains(&gateway.address)) {
                    *routes.entry(gateway.address).or_default() += set.routes;
                }
            }
            notices
                .extend(routes.into_iter().map(|(gateway, routes)| Notice::BgpGatewayUnreachable { gateway, routes }));
        }
        notices.sort_unstable();
    }
}

/// Notices that change with every route.
fn counts_routes(notice: &Notice) -> bool {
    matches!(
        notice,
        Notice::FibFull { .. }
            | Notice::GroupsFull { .. }
            | Notice::BgpGatewayUnreachable { .. }
            | Notice::Martians { .. }
            | Notice::RoutesLeaveVrf { .. }
            | Notice::VrfFull { .. }
    )
}

type Fib = BTreeMap<IpNet, GroupId>;

impl Capacity {
    /// The routes that forward, as many as there is room for.
    fn fill(&mut self, routing: &Routing, rib: &Rib) -> Fib {
        self.used = [0; 2];
        self.left_out = Default::default();
        self.with_the_kernel = Default::default();
        for prefix in routing.own.keys() {
            self.count(*prefix, |used| used + 1);
        }
        let mut own = routing.own.iter().map(|(prefix, (_, group))| (*prefix, *group)).peekable();
        let mut all = Vec::with_capacity(routing.own.len() + rib.len());
        for (prefix, routes) in rib.iter() {
            all.extend(std::iter::from_fn(|| own.next_if(|(other, _)| *other <= prefix)));
            if routing.own.contains_key(&prefix) {
                continue;
            }
            match routing.best_of(routes) {
                Some((_, group)) if self.has_room_for(prefix) => {
                    self.count(prefix, |used| used + 1);
                    all.push((prefix, group));
                }
                Some(_) => self.leave_out(prefix),
                None => {}
            }
            self.note_the_kernels(prefix, routing, routes);
        }
        all.extend(own);
        all.into_iter().collect()
    }

    /// Makes one prefix what it is to be.
    fn decide(&mut self, fib: &mut Fib, prefix: IpNet, routing: &Routing, rib: &Rib, changed: &mut Changed) {
        if self.store(fib, prefix, routing.best(prefix, rib)) {
            changed.add(prefix);
        }
        self.note_the_kernels(prefix, routing, rib.routes(prefix));
    }

    /// True where the FIB has changed.
    fn store(&mut self, fib: &mut Fib, prefix: IpNet, best: Option<(Source, GroupId)>) -> bool {
        let Some((source, group)) = best else {
            self.no_more_left_out(prefix);
            let removed = fib.remove(&prefix).is_some();
            if removed {
                self.count(prefix, |used| used.saturating_sub(1));
            }
            return removed;
        };
        match fib.entry(prefix) {
            Entry::Occupied(mut present) => present.insert(group) != group,
            // The node's own routes are few and come first.
            Entry::Vacant(_) if source.origin().is_some() && !self.has_room_for(prefix) => {
                self.leave_out(prefix);
                false
            }
            Entry::Vacant(vacant) => {
                vacant.insert(group);
                self.count(prefix, |used| used + 1);
                self.no_more_left_out(prefix);
                true
            }
        }
    }

    /// Remembers a prefix whose route of the kernel's is left out, and forgets one whose is not.
    fn note_the_kernels(&mut self, prefix: IpNet, routing: &Routing, routes: &[Learned]) {
        let family = family(prefix);
        let Some(noted) = self.with_the_kernel.get_mut(family) else { return };
        let left_out = self.left_out.get(family).is_some_and(|prefixes| prefixes.contains(&prefix));
        let kernels = routes.iter().find(|route| route.source == Source::Kernel);
        if kernels.is_some_and(|route| left_out || routing.has_no_group(prefix, route)) {
            noted.insert(prefix);
        } else if !noted.is_empty() {
            noted.remove(&prefix);
        }
    }

    fn has_room(&self, family: usize) -> bool {
        self.used.get(family) < self.room.get(family)
    }

    /// A default route always has room: it is what answers for those that have none.
    fn has_room_for(&self, prefix: IpNet) -> bool {
        prefix.prefix_len() == 0 || self.has_room(family(prefix))
    }

    /// A default route takes no room: while it stands in for routes, it must not be what they find none for.
    fn count(&mut self, prefix: IpNet, change: impl Fn(usize) -> usize) {
        if prefix.prefix_len() > 0
            && let Some(used) = self.used.get_mut(family(prefix))
        {
            *used = change(*used);
        }
    }

    fn leave_out(&mut self, prefix: IpNet) {
        self.left_out.get_mut(family(prefix)).map(|left_out| left_out.insert(prefix));
    }

    fn no_more_left_out(&mut self, prefix: IpNet) {
        self.left_out.get_mut(family(prefix)).map(|left_out| left_out.remove(&prefix));
    }

    /// A prefix that was left out and for which there is room now.
    fn next_left_out(&mut self, family: usize) -> Option<IpNet> {
        if self.has_room(family) { self.left_out.get_mut(family)?.pop_first() } else { None }
    }
}

/// Prefixes that are not the same in both.
fn differences<T: PartialEq>(former: &BTreeMap<IpNet, T>, present: &BTreeMap<IpNet, T>) -> Vec<IpNet> {
    let gone = former.keys().filter(|prefix| !present.contains_key(*prefix));
    let other = present.iter().filter(|(prefix, value)| former.get(*prefix) != Some(*value));
    gone.chain(other.map(|(prefix, _)| prefix)).copied().collect()
}

/// Prefixes of the sets that lead to another group than before, or to none for another reason. Prefixes of sets that are new
/// are told of anyway.
fn led_elsewhere(former: &Routing, present: &Routing, new: &[SetId], rib: &Rib) -> Vec<IpNet> {
    let new: BTreeSet<SetId> = new.iter().copied().collect();
    let group = |routing: &Routing, set: SetId| {
        let group = routing.learned.get(set.index()).copied().flatten();
        (group, routing.without_group.contains(&set.index()))
    };
    let elsewhere = |set: &SetId| !new.contains(set) && group(former, *set) != group(present, *set);
    let sets: BTreeSet<SetId> = rib.sets().map(|(id, _)| id).filter(elsewhere).collect();
    if sets.is_empty() {
        return Vec::new();
    }
    let of_them = rib.iter().filter(|(_, routes)| routes.iter().any(|route| sets.contains(&route.set)));
    of_them.map(|(prefix, _)| prefix).collect()
}
