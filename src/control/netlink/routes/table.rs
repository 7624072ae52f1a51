//! What the kernel's routing table holds, from notifications and dumps. No I/O, no clock.
//!
//! - Routes of a prefix stand in the kernel's order: by metric, of one metric as they were put there. The first that leads
//!   somewhere is the way out that is told.
//! - A route is its prefix, its metric and a body, which routes share as they do in the kernel. What a body's nexthop object
//!   leads to is looked up once a body.
//! - Some changes the kernel makes without a word: IPv4 routes go with the last of their interfaces that is up, with their
//!   source address and with their nexthop object. They go here with the event that they go with there.
//! - A dump is laid over what is held ([`KernelRoutes::begin`], [`dumped`](KernelRoutes::dumped),
//!   [`finish`](KernelRoutes::finish)); nothing is taken away before it is complete. What a notification has touched since
//!   its begin is not believed to the dump, whose view may be older. A dump while the table changes can leave routes out: so
//!   a route is only taken away when a quiet dump does not show it, or three in a row that were not quiet.
//!
//! Changes are collected by prefix until [`KernelRoutes::take_changes`]: what comes and goes meanwhile costs nothing more.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ipnet::IpNet;
use model::network::IfIndex;
use model::rib::{Alternatives, Gateway, Way};
use smallvec::SmallVec;

use super::wire::{Action, Body, Hop, Message, NextHop, Place, Route};

/// Dumps that must not show a route before it is given up while the table changes.
const DOUBTFUL_ROUNDS: u32 = 3;

/// Routes of the kernel and what has become different.
#[derive(Debug)]
pub(super) struct KernelRoutes {
    table: u32,
    routes: BTreeMap<IpNet, SmallVec<[Entry; 1]>>,
    bodies: Bodies,
    next_hops: BTreeMap<u32, Object>,
    /// Interfaces that are administratively down or gone.
    down: BTreeSet<IfIndex>,
    dirty: BTreeSet<IpNet>,
    /// Nexthop objects that are not what they were.
    changed_next_hops: BTreeSet<u32>,
    /// Number of the last dump.
    round: u32,
    dump: Option<Dump>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    metric: u32,
    body: BodyId,
    /// The last dump that showed it, or in whose time a notification did.
    seen: u32,
}

#[derive(Clone, Debug)]
struct Object {
    next_hop: Option<NextHop>,
    seen: u32,
}

type Key = (IpNet, u32);

/// A dump under way.
#[derive(Debug, Default)]
struct Dump {
    /// What notifications were about since it began.
    touched: HashSet<Key>,
    touched_next_hops: BTreeSet<u32>,
    /// The routes of one prefix and metric, as far as they have come.
    current: Option<(Key, SmallVec<[Body; 1]>)>,
    /// What was not as the dump shows it.
    differences: BTreeSet<IpNet>,
    /// The kernel says, or losses say, that it is not of one state.
    interrupted: bool,
    /// It contradicts a notification, which was believed.
    contradicted: bool,
}

/// What a dump has brought to light.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Prefixes that were not as the kernel has them, and are now.
    pub(super) differences: BTreeSet<IpNet>,
    /// Something is left undecided: another dump is needed.
    pub(super) undecided: bool,
}

impl KernelRoutes {
    /// Knows nothing yet.
    pub(super) fn new(table: u32) -> Self {
        Self {
            table,
            routes: BTreeMap::new(),
            bodies: Bodies::default(),
            next_hops: BTreeMap::new(),
            down: BTreeSet::new(),
            dirty: BTreeSet::new(),
            changed_next_hops: BTreeSet::new(),
            round: 0,
            dump: None,
        }
    }

    /// Follows another table from now on. Routes of the former stay until a dump has brought those of this one.
    pub(super) fn set_table(&mut self, table: u32) {
        self.table = table;
        self.dump = None;
    }

    /// Forgets everything: all routes go.
    pub(super) fn clear(&mut self) {
        self.dirty.extend(std::mem::take(&mut self.routes).into_keys());
        self.bodies = Bodies::default();
        self.next_hops.clear();
        self.changed_next_hops.clear();
        self.dump = None;
    }

    /// Prefixes with a route.
    pub(super) fn len(&self) -> usize {
        self.routes.len()
    }

    /// True where [`take_changes`](Self::take_changes) has something.
    pub(super) fn has_changes(&self) -> bool {
        !self.dirty.is_empty() || !self.changed_next_hops.is_empty()
    }

    /// How many prefixes wait to be told.
    pub(super) fn waiting(&self) -> usize {
        self.dirty.len()
    }

    /// The ways out of at most `limit` prefixes whose way may be another now; `None`: there is none.
    pub(super) fn take_changes(&mut self, limit: usize) -> Vec<(IpNet, Option<Way>)> {
        self.follow_next_hops();
        let mut changes = Vec::with_capacity(limit.min(self.dirty.len()));
        while changes.len() < limit
            && let Some(prefix) = self.dirty.pop_first()
        {
            changes.push((prefix, self.way(prefix)));
        }
        changes
    }

    /// The way out of every prefix that has one.
    pub(super) fn ways(&mut self) -> BTreeMap<IpNet, Way> {
        self.follow_next_hops();
        self.routes.keys().filter_map(|prefix| Some((*prefix, self.way(*prefix)?))).collect()
    }

    fn way(&self, prefix: IpNet) -> Option<Way> {
        self.routes.get(&prefix)?.iter().find_map(|entry| self.bodies.way(entry.body).cloned())
    }

    /// What the routes of a prefix lead by that stand behind the one which is told.
    pub(super) fn alternatives(&self, prefix: IpNet) -> Alternatives {
        let routes = self.routes.get(&prefix).into_iter().flatten();
        routes.filter_map(|entry| self.bodies.way(entry.body)).skip(1).flat_map(Way::leads_by).collect()
    }

    /// Has every prefix told again that has several routes.
    pub(super) fn tell_alternatives(&mut self) {
        let several = self.routes.iter().filter(|(_, routes)| routes.len() > 1);
        self.dirty.extend(several.map(|(prefix, _)| *prefix));
    }

    /// Takes a notification in. True where it shows that notifications were missed, or says that the kernel has changed
    /// routes of which it tells nothing: a dump is needed.
    pub(super) fn notified(&mut self, message: Message) -> bool {
        match message {
            Message::NewRoute(route, place) => self.new_route(route, place),
            Message::DelRoute(route) => self.del_route(&route),
            Message::NewNextHop(id, next_hop) => {
                self.touch_next_hop(id);
                self.set_next_hop(id, next_hop);
                false
            }
            Message::DelNextHop(id) => {
                self.touch_next_hop(id);
                self.next_hops.remove(&id);
                self.changed_next_hops.insert(id);
                self.remove_where(|body| body.next_hop == id);
                false
            }
            Message::Link { ifindex, up: true } => {
                self.down.remove(&ifindex);
                false
            }
            Message::Link { ifindex, up: false } => self.link_down(ifindex),
            Message::AddressGone { ifindex, address } => self
                .bodies
                .any(|body| body.source == Some(address) || body.hops.iter().any(|hop| hop.ifindex == ifindex)),
            Message::Done | Message::Refused(_) | Message::Ignored => false,
        }
    }

    fn new_route(&mut self, route: Route, place: Place) -> bool {
        let Route { table, prefix, metric, body } = route;
        if table != self.table {
            return false;
        }
        self.touch((prefix, metric));
        let unknown = body.next_hop != 0 && !self.next_hops.contains_key(&body.next_hop);
        let mut list = self.take_list(prefix, metric);
        let held = list.iter().position(|entry| self.bodies.get(entry.body) == Some(&body));
        let joins = body.joins;
        let id = self.intern(body);
        let entry = Entry { metric, body: id, seen: self.round };
        let first_that_joins = list.iter().position(|entry| self.joins(entry.body));
        // The IPv6 messages have all hops of a route: one that joins others stands in their place.
        let same_kind =
            if prefix.addr().is_ipv6() { list.iter().position(|entry| self.joins(entry.body) == joins) } else { None };
        let replaced = same_kind.unwrap_or(0);
        // No route takes another's place that is there already: a dump was ahead of this notification, and what it leaves is
        // for the next one to show.
        let overtaken = matches!((&place, held), (Place::Replace, Some(at)) if at != replaced);
        match (place, held) {
            (Place::Only, _) => list = std::iter::once(entry).collect(),
            (_, Some(at)) if overtaken => {
                list.remove(at);
                if let Some(replaced) = list.get_mut(if at < replaced { replaced - 1 } else { replaced }) {
                    *replaced = entry;
                }
            }
            (_, Some(at)) => {
                if let Some(held) = list.get_mut(at) {
                    held.seen = entry.seen;
                }
            }
            (Place::Replace, None) => match list.get_mut(replaced) {
                Some(replaced) => *replaced = entry,
                None => list.push(entry),
            },
            (Place::Last | Place::First, None) if joins && first_that_joins.is_some() => {
                if let Some(joined) = first_that_joins.and_then(|at| list.get_mut(at)) {
                    *joined = entry;
                }
            }
            (Place::First, None) if prefix.addr().is_ipv4() => list.insert(0, entry),
            (Place::Last | Place::First, None) => list.push(entry),
        }
        self.put_list(prefix, metric, list);
        unknown || overtaken
    }

    fn del_route(&mut self, route: &Route) -> bool {
        let Route { table, prefix, metric, body } = route;
        if *table != self.table {
            return false;
        }
        self.touch((*prefix, *metric));
        let mut list = self.take_list(*prefix, *metric);
        let exact = list.iter().position(|entry| self.bodies.get(entry.body) == Some(body));
        let known = if let Some(at) = exact {
            list.remove(at);
            true
        } else if body.joins
            && let Some(at) = list.iter().position(|entry| self.joins(entry.body))
        {
            self.remove_hops(&mut list, at, &body.hops)
        } else {
            false
        };
        self.put_list(*prefix, *metric, list);
        !known
    }

    /// Takes hops out of an IPv6 route; false where it does not have them all.
    fn remove_hops(&mut self, list: &mut SmallVec<[Entry; 1]>, at: usize, gone: &[Hop]) -> bool {
        let Some(entry) = list.get(at).copied() else { return false };
        let Some(mut body) = self.bodies.get(entry.body).cloned() else { return false };
        let is_gone = |hop: &Hop| gone.iter().any(|g| (g.gateway, g.ifindex) == (hop.gateway, hop.ifindex));
        let before = body.hops.len();
        body.hops.retain(|hop| !is_gone(hop));
        let all = before - body.hops.len() == gone.len();
        if body.hops.is_empty() {
            list.remove(at);
        } else {
            let id = self.intern(body);
            if let Some(entry) = list.get_mut(at) {
                entry.body = id;
                entry.seen = self.round;
            }
        }
        all
    }

    /// Routes whose every interface is down go, in the kernel without a word (`fib_sync_down_dev`). A dump is needed to be
    /// sure; it is not waited for.
    fn link_down(&mut self, ifindex: IfIndex) -> bool {
        self.down.insert(ifindex);
        if !self.bodies.any(|body| body.hops.iter().any(|hop| hop.ifindex == ifindex)) {
            return false;
        }
        let down = std::mem::take(&mut self.down);
        self.remove_where(|body| !body.hops.is_empty() && body.hops.iter().all(|hop| down.contains(&hop.ifindex)));
        self.down = down;
        true
    }

    fn remove_where(&mut self, gone: impl Fn(&Body) -> bool) {
        let gone = self.bodies.all(gone);
        if gone.is_empty() {
            return;
        }
        for (prefix, metric) in self.keys_of(&gone) {
            self.touch((prefix, metric));
            let mut list = self.take_list(prefix, metric);
            list.retain(|entry| !gone.contains(&entry.body));
            self.put_list(prefix, metric, list);
        }
    }

    fn keys_of(&self, bodies: &HashSet<BodyId>) -> Vec<Key> {
        let of = |(prefix, list): (&IpNet, &SmallVec<[Entry; 1]>)| {
            let keys = list.iter().filter(|entry| bodies.contains(&entry.body)).map(|entry| (*prefix, entry.metric));
            keys.collect::<SmallVec<[Key; 1]>>()
        };
        self.routes.iter().flat_map(of).collect()
    }

    fn set_next_hop(&mut self, id: u32, next_hop: Option<NextHop>) {
        let former = self.next_hops.insert(id, Object { next_hop: next_hop.clone(), seen: self.round });
        if former.is_none_or(|former| former.next_hop != next_hop) {
            self.changed_next_hops.insert(id);
        }
    }

    /// Decides again where routes by nexthop objects that have changed lead.
    fn follow_next_hops(&mut self) {
        let mut changed = std::mem::take(&mut self.changed_next_hops);
        if changed.is_empty() {
            return;
        }
        let groups = self.next_hops.iter().filter(|(_, object)| match &object.next_hop {
            Some(NextHop::Group(members)) => members.iter().any(|(id, _)| changed.contains(id)),
            _ => false,
        });
        let groups: Vec<u32> = groups.map(|(id, _)| *id).collect();
        changed.extend(groups);
        let mut led_elsewhere = HashSet::new();
        for id in self.bodies.all(|body| changed.contains(&body.next_hop)) {
            let way = self.bodies.get(id).and_then(|body| way(body, &self.next_hops));
            if self.bodies.set_way(id, way) {
                led_elsewhere.insert(id);
            }
        }
        if !led_elsewhere.is_empty() {
            let keys = self.keys_of(&led_elsewhere);
            self.dirty.extend(keys.into_iter().map(|(prefix, _)| prefix));
        }
    }

    fn joins(&self, body: BodyId) -> bool {
        self.bodies.get(body).is_some_and(|body| body.joins)
    }

    fn intern(&mut self, body: Body) -> BodyId {
        let next_hops = &self.next_hops;
        self.bodies.intern(body, |body| way(body, next_hops))
    }

    fn touch(&mut self, key: Key) {
        if let Some(dump) = &mut self.dump {
            dump.touched.insert(key);
            // It was told, if late.
            dump.differences.remove(&key.0);
        }
    }

    fn touch_next_hop(&mut self, id: u32) {
        if let Some(dump) = &mut self.dump {
            dump.touched_next_hops.insert(id);
        }
    }

    /// Takes the routes of one prefix and metric out of the table, for [`put_list`](Self::put_list) to put back.
    fn take_list(&mut self, prefix: IpNet, metric: u32) -> SmallVec<[Entry; 1]> {
        let list = self.routes.get(&prefix).into_iter().flatten();
        list.filter(|entry| entry.metric == metric).copied().collect()
    }

    /// Puts routes of one prefix and metric in the place of the former.
    fn put_list(&mut self, prefix: IpNet, metric: u32, list: SmallVec<[Entry; 1]>) {
        let all = self.routes.entry(prefix).or_default();
        let former: SmallVec<[Entry; 1]> = all.iter().filter(|entry| entry.metric == metric).copied().collect();
        let bodies = |list: &[Entry]| list.iter().map(|entry| entry.body).collect::<SmallVec<[BodyId; 2]>>();
        let same = bodies(&former) == bodies(&list);
        for entry in &list {
            self.bodies.hold(entry.body);
        }
        all.retain(|entry| entry.metric != metric);
        let at = all.partition_point(|entry| entry.metric < metric);
        all.insert_many(at, list);
        if all.is_empty() {
            self.routes.remove(&prefix);
        }
        for entry in former {
            self.bodies.release(entry.body);
        }
        if !same {
            self.dirty.insert(prefix);
        }
    }

    /// A dump begins: interfaces, then nexthop objects, then routes. Of one that was under way nothing is known.
    pub(super) fn begin(&mut self) {
        self.round += 1;
        self.dump = Some(Dump::default());
    }

    /// Notifications were lost, or the kernel says that the dump is not of one state.
    pub(super) fn interrupted(&mut self) {
        if let Some(dump) = &mut self.dump {
            dump.interrupted = true;
        }
    }

    /// Takes a message of the dump in.
    pub(super) fn dumped(&mut self, message: Message) {
        match message {
            Message::NewRoute(Route { table, prefix, metric, body }, _) if table == self.table => {
                let key = (prefix, metric);
                let Some(dump) = &mut self.dump else { return };
                match &mut dump.current {
                    Some((current, bodies)) if *current == key => bodies.push(body),
                    current => {
                        let former = current.replace((key, SmallVec::from_iter([body])));
                        self.believe(former);
                    }
                }
            }
            Message::NewNextHop(id, next_hop)
                if self.dump.as_ref().is_some_and(|dump| !dump.touched_next_hops.contains(&id)) =>
            {
                self.set_next_hop(id, next_hop);
                if let Some(object) = self.next_hops.get_mut(&id) {
                    object.seen = self.round;
                }
            }
            Message::Link { ifindex, up } => {
                if up {
                    self.down.remove(&ifindex);
                } else {
                    self.down.insert(ifindex);
                }
            }
            _ => {}
        }
    }

    /// Routes of one prefix and metric as the dump has them, in its order, before those that it has not shown.
    fn believe(&mut self, dumped: Option<(Key, SmallVec<[Body; 1]>)>) {
        let Some((key, bodies)) = dumped else { return };
        let (prefix, metric) = key;
        if self.is_only(key, &bodies) {
            return;
        }
        let touched = self.dump.as_ref().is_some_and(|dump| dump.touched.contains(&key));
        let former = self.take_list(prefix, metric);
        let held = |body: &Body| former.iter().any(|entry| self.bodies.get(entry.body) == Some(body));
        let mut list = former.clone();
        if touched {
            let known = bodies.iter().all(held);
            for entry in &mut list {
                let shown = self.bodies.get(entry.body).is_some_and(|body| bodies.contains(body));
                entry.seen = if shown { self.round } else { entry.seen };
            }
            if let Some(dump) = &mut self.dump {
                dump.contradicted |= !known;
            }
        } else {
            list.retain(|entry| !self.bodies.get(entry.body).is_some_and(|body| bodies.contains(body)));
            // Of an IPv6 route whose hops have changed, the former hops are not another route.
            if bodies.iter().any(|body| body.joins) {
                list.retain(|entry| !self.bodies.get(entry.body).is_some_and(|body| body.joins));
            }
            let shown: SmallVec<[Entry; 1]> = bodies
                .into_iter()
                .map(|body| Entry { metric, body: self.intern(body), seen: self.round })
                .chain(list)
                .collect();
            list = shown;
            let bodies = |list: &[Entry]| list.iter().map(|entry| entry.body).collect::<SmallVec<[BodyId; 2]>>();
            if bodies(&list) != bodies(&former)
                && let Some(dump) = &mut self.dump
            {
                dump.differences.insert(prefix);
            }
        }
        self.put_list(prefix, metric, list);
    }

    /// True, and the dump has shown it, where one route is all that the prefix has, here as there: nearly always.
    fn is_only(&mut self, (prefix, metric): Key, dumped: &[Body]) -> bool {
        let (Some([entry]), [body]) = (self.routes.get_mut(&prefix).map(SmallVec::as_mut_slice), dumped) else {
            return false;
        };
        let same = entry.metric == metric && self.bodies.get(entry.body) == Some(body);
        if same {
            entry.seen = self.round;
        }
        same
    }

    /// The dump is complete, and every notification from before its end has been taken in: what it has not shown goes.
    pub(super) fn finish(&mut self) -> Outcome {
        let current = self.dump.as_mut().and_then(|dump| dump.current.take());
        self.believe(current);
        let Some(dump) = self.dump.take() else { return Outcome::default() };
        let quiet = !dump.interrupted && dump.touched.is_empty() && dump.touched_next_hops.is_empty();
        let (round, oldest) = (self.round, self.round.saturating_sub(DOUBTFUL_ROUNDS - 1));
        let is_gone = |seen: u32| if quiet { seen != round } else { seen < oldest };
        let mut outcome = Outcome { differences: dump.differences, undecided: dump.contradicted || dump.interrupted };
        let mut gone = Vec::new();
        for (prefix, list) in &self.routes {
            for entry in list.iter().filter(|entry| entry.seen != round) {
                if is_gone(entry.seen) {
                    gone.push((*prefix, entry.metric));
                } else {
                    outcome.undecided = true;
                }
            }
        }
        gone.dedup();
        for (prefix, metric) in gone {
            let mut list = self.take_list(prefix, metric);
            list.retain(|entry| !is_gone(entry.seen));
            self.put_list(prefix, metric, list);
            outcome.differences.insert(prefix);
        }
        let lost: Vec<u32> =
            self.next_hops.iter().filter(|(_, object)| is_gone(object.seen)).map(|(id, _)| *id).collect();
        for id in lost {
            self.next_hops.remove(&id);
            self.changed_next_hops.insert(id);
        }
        outcome
    }
}

/// Where a body leads.
fn way(body: &Body, next_hops: &BTreeMap<u32, Object>) -> Option<Way> {
    match body.action {
        Action::Host => Some(Way::Host),
        Action::Blackhole => Some(Way::Blackhole),
        Action::Unreachable => Some(Way::Unreachable),
        Action::Prohibit => Some(Way::Prohibit),
        Action::Unicast if body.next_hop == 0 => by_hops(&body.hops),
        Action::Unicast => match next_hops.get(&body.next_hop)?.next_hop.as_ref()? {
            NextHop::Group(members) => {
                let hops: Option<SmallVec<[Hop; 1]>> = members
                    .iter()
                    .map(|(id, weight)| match next_hops.get(id)?.next_hop.as_ref()? {
                        NextHop::Hop(hop) => Some(Hop { weight: *weight, ..*hop }),
                        // A group of one may be a blackhole; more the kernel does not allow.
                        _ => None,
                    })
                    .collect();
                match (hops, members.as_slice()) {
                    (Some(hops), _) => by_hops(&hops),
                    (None, [(id, _)]) => by_object(next_hops.get(id)?.next_hop.as_ref()?),
                    // A member that margay knows nothing about or does not do: the kernel does.
                    (None, _) => Some(Way::Host),
                }
            }
            other => by_object(other),
        },
    }
}

fn by_object(next_hop: &NextHop) -> Option<Way> {
    match next_hop {
        NextHop::Hop(hop) => by_hops(std::slice::from_ref(hop)),
        NextHop::Blackhole => Some(Way::Blackhole),
        NextHop::Host => Some(Way::Host),
        NextHop::Group(_) => None,
    }
}

/// Through gateways, or out of one interface. Several interfaces without gateways, and both together, are left to the host.
fn by_hops(hops: &[Hop]) -> Option<Way> {
    let gateway = |hop: &Hop| {
        let ifindex = Some(hop.ifindex).filter(|ifindex| ifindex.0 != 0);
        Some(Gateway { address: hop.gateway?, ifindex, weight: hop.weight })
    };
    match hops {
        [] => None,
        [Hop { gateway: None, ifindex, .. }] => Some(Way::Link(*ifindex)),
        _ => match hops.iter().map(gateway).collect::<Option<Vec<_>>>() {
            Some(gateways) => Way::through(gateways),
            None => Some(Way::Host),
        },
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct BodyId(u32);

/// Bodies, each once, with where they lead.
#[derive(Debug, Default)]
struct Bodies {
    slots: Vec<Option<Slot>>,
    index: HashMap<Body, BodyId>,
    free: Vec<BodyId>,
}

#[derive(Debug)]
struct Slot {
    body: Body,
    way: Option<Way>,
    users: usize,
}

impl Bodies {
    /// The number of a body. It is kept as long as it is held by someone.
    fn intern(&mut self, body: Body, way: impl FnOnce(&Body) -> Option<Way>) -> BodyId {
        if let Some(id) = self.index.get(&body) {
            return *id;
        }
        let way = way(&body);
        let id = self.free.pop().unwrap_or(BodyId(self.slots.len() as u32));
        let slot = Some(Slot { body: body.clone(), way, users: 0 });
        match self.slots.get_mut(id.0 as usize) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
        self.index.insert(body, id);
        id
    }

    fn slot(&self, id: BodyId) -> Option<&Slot> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    fn get(&self, id: BodyId) -> Option<&Body> {
        self.slot(id).map(|slot| &slot.body)
    }

    fn way(&self, id: BodyId) -> Option<&Way> {
        self.slot(id)?.way.as_ref()
    }

    /// Sets where a body leads; true where that is elsewhere.
    fn set_way(&mut self, id: BodyId, way: Option<Way>) -> bool {
        let Some(Some(slot)) = self.slots.get_mut(id.0 as usize) else { return false };
        std::mem::replace(&mut slot.way, way) != slot.way
    }

    fn hold(&mut self, id: BodyId) {
        if let Some(Some(slot)) = self.slots.get_mut(id.0 as usize) {
            slot.users += 1;
        }
    }

    fn release(&mut self, id: BodyId) {
        let Some(slot) = self.slots.get_mut(id.0 as usize) else { return };
        if let Some(used) = slot {
            used.users = used.users.saturating_sub(1);
        }
        if let Some(unused) = slot.take_if(|slot| slot.users == 0) {
            self.index.remove(&unused.body);
            self.free.push(id);
        }
    }

    fn all(&self, matches: impl Fn(&Body) -> bool) -> HashSet<BodyId> {
        let slots = (0..).map(BodyId).zip(&self.slots);
        slots.filter(|(_, slot)| slot.as_ref().is_some_and(|slot| matches(&slot.body))).map(|(id, _)| id).collect()
    }

    fn any(&self, matches: impl Fn(&Body) -> bool) -> bool {
        self.slots.iter().flatten().any(|slot| matches(&slot.body))
    }
}

#[cfg(test)]
mod tests;
