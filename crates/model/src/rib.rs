//! The routing information base: what every protocol knows about every prefix, and which of it is preferred.
//!
//! Preference, best first: the node's own addresses, VIPs, connected, static, kernel, external BGP, internal BGP, adopted.
//! Routes of the first four follow from the network and the resources; those of the others are kept here, by prefix, a slot
//! an [`Origin`]. Routes with the same way out share a [`Set`]: there are as many sets as there are different ways, not as
//! many as there are prefixes, so what becomes of a way out is decided once.
//!
//! Changes are remembered until [`Rib::take_changes`]: the FIB follows by difference.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::network::IfIndex;

/// Where a route comes from, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// An address of this node.
    Local,
    /// A VIP of this node.
    Vip,
    /// The prefix of an interface address.
    Connected,
    /// A `StaticRoute`.
    Static,
    /// The kernel's routing table: what other daemons and `ip route` have put there.
    Kernel,
    /// Learned from an external peer.
    Ebgp,
    /// Learned from an internal peer.
    Ibgp,
    /// Found in the pinned FIB after a restart, kept until the sources have spoken again.
    Adopted,
    /// The default route to the host's stack that stands in where routes of the kernel find no room in the FIB.
    Fallback,
}

/// Who tells of routes. Each has one route for a prefix at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The kernel's routing table.
    Kernel,
    /// BGP's choice, whether learned from external or internal peers.
    Bgp,
    /// What a restarted process found forwarding.
    Adopted,
}

/// The paths that BGP chose for a prefix: best path and its equals (RFC 4271 §9.1.2, multipath). A gateway is an address that
/// other routes lead to, or a [`Gateway`] where it may be on a known link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpRoute<G = IpAddr> {
    /// Gateways, at least one.
    pub gateways: Vec<G>,
    /// Gateways of the other paths that could be used; none where nobody asks for them.
    pub alternatives: Vec<G>,
    /// Learned from internal peers.
    pub internal: bool,
}

/// One gateway of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gateway {
    /// Its address; of either family, whatever the prefix is of (RFC 8950).
    pub address: IpAddr,
    /// The interface that it is on; `None` where other routes lead to it.
    pub ifindex: Option<IfIndex>,
    /// Share relative to the other gateways, at least 1.
    pub weight: u32,
}

impl Gateway {
    /// A gateway that other routes lead to.
    pub fn recursive(address: IpAddr) -> Self {
        Self { address, ifindex: None, weight: 1 }
    }

    /// A gateway on a link.
    pub fn on_link(address: IpAddr, ifindex: IfIndex) -> Self {
        Self { address, ifindex: Some(ifindex), weight: 1 }
    }
}

impl From<IpAddr> for Gateway {
    fn from(address: IpAddr) -> Self {
        Self::recursive(address)
    }
}

/// The way out that a route gives its packets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// Through gateways, ascending, each once, at least one.
    Gateways(SmallVec<[Gateway; 1]>),
    /// The destination is on this link.
    Link(IfIndex),
    /// The host's stack decides.
    Host,
    /// Drop silently.
    Blackhole,
    /// Drop and answer that it is prohibited.
    Prohibit,
    /// Drop and answer that there is no route.
    Unreachable,
}

impl Way {
    /// Through these gateways; `None` without any. Equal ones add their weights.
    pub fn through(gateways: impl IntoIterator<Item = Gateway>) -> Option<Self> {
        let mut all: SmallVec<[Gateway; 1]> = gateways.into_iter().collect();
        all.sort_unstable();
        all.dedup_by(|next, kept| {
            let same = (next.address, next.ifindex) == (kept.address, kept.ifindex);
            kept.weight = if same { kept.weight.saturating_add(next.weight) } else { kept.weight };
            same
        });
        (!all.is_empty()).then_some(Self::Gateways(all))
    }
}

/// What a path that was not chosen leads by: packets of its prefix may come from there, though none go there (RFC 3704 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alternative {
    /// An interface.
    Link(IfIndex),
    /// Whatever leads to this address.
    Gateway(IpAddr),
}

impl From<Gateway> for Alternative {
    fn from(gateway: Gateway) -> Self {
        gateway.ifindex.map_or(Self::Gateway(gateway.address), Self::Link)
    }
}

/// What the paths of a prefix lead by that were not chosen.
pub type Alternatives = BTreeSet<Alternative>;

impl Way {
    /// What it leads by.
    pub fn leads_by(&self) -> Alternatives {
        match self {
            Self::Gateways(gateways) => gateways.iter().map(|gateway| (*gateway).into()).collect(),
            Self::Link(ifindex) => [Alternative::Link(*ifindex)].into(),
            Self::Host | Self::Blackhole | Self::Prohibit | Self::Unreachable => Alternatives::new(),
        }
    }

    /// True where packets are dropped: those that come from there, too, whatever the alternatives.
    fn drops(&self) -> bool {
        matches!(self, Self::Blackhole | Self::Prohibit | Self::Unreachable)
    }
}

/// Number of a set: routes of one origin with one way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetId(u32);

impl SetId {
    /// As an index: numbers are given out from 0, and again when a set has gone.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Routes of one origin with one way out, and the same alternatives to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Who tells of them.
    pub origin: Origin,
    /// Where they lead.
    pub way: Way,
    /// What else leads there.
    pub alternatives: Alternatives,
    /// How many prefixes there are; none, where the last has gone a moment ago.
    pub routes: usize,
}

/// One route of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Learned {
    /// Where it comes from: what it is preferred by.
    pub source: Source,
    /// Its way out.
    pub set: SetId,
}

/// Routes that do not follow from the resources or the network alone.
#[derive(Clone, Debug, Default)]
pub struct Rib {
    /// Routes of a prefix, best first, at most one of each origin.
    routes: BTreeMap<IpNet, SmallVec<[Learned; 1]>>,
    sets: Vec<Option<Set>>,
    by_way: BTreeMap<(Origin, Way, Alternatives), SetId>,
    free: Vec<SetId>,
    /// Prefixes of each family and length, whatever their origin.
    lengths: [Lengths; 2],
    /// Routes to addresses that are never routed.
    martians: BTreeMap<Origin, BTreeSet<IpNet>>,
    changed: Vec<IpNet>,
    sets_changed: Vec<SetId>,
    /// What the kernel's other tables hold, by number: VRFs take their routes from there.
    tables: BTreeMap<u32, Rib>,
    tables_changed: bool,
}

/// How many prefixes of each length there are.
#[derive(Clone, Debug)]
struct Lengths([usize; 129]);

impl Default for Lengths {
    fn default() -> Self {
        Self([0; 129])
    }
}

/// What has become different since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RibChanges {
    /// Prefixes, ascending, each once.
    pub prefixes: Vec<IpNet>,
    /// Numbers that stand for a way out since then, or for none, in no order.
    pub sets: Vec<SetId>,
}

impl Rib {
    /// Puts BGP's choice for a prefix in the place of the former one.
    pub fn set_bgp(&mut self, prefix: IpNet, route: &BgpRoute<impl Copy + Into<Gateway>>) {
        let source = if route.internal { Source::Ibgp } else { Source::Ebgp };
        let alternatives = route.alternatives.iter().map(|gateway| Alternative::from((*gateway).into())).collect();
        match Way::through(route.gateways.iter().map(|gateway| (*gateway).into())) {
            Some(way) => self.set(prefix, source, way, alternatives),
            None => self.remove(prefix, Origin::Bgp),
        }
    }

    /// Puts the kernel's route to a prefix in the place of the former one.
    pub fn set_kernel(&mut self, prefix: IpNet, way: Way) {
        self.set_kernel_beside(prefix, way, Alternatives::new());
    }

    /// The same, with what the routes behind it lead by.
    pub fn set_kernel_beside(&mut self, prefix: IpNet, way: Way, alternatives: Alternatives) {
        self.set(prefix, Source::Kernel, way, alternatives);
    }

    /// Puts what a former process forwarded in the place of what it was said to forward.
    pub fn set_adopted(&mut self, prefix: IpNet, gateways: impl IntoIterator<Item = (IpAddr, IfIndex)>) {
        let gateways = gateways.into_iter().map(|(address, ifindex)| Gateway::on_link(address, ifindex));
        match Way::through(gateways) {
            Some(way) => self.set(prefix, Source::Adopted, way, Alternatives::new()),
            None => self.remove(prefix, Origin::Adopted),
        }
    }

    /// What is known of another table of the kernel.
    pub fn table(&self, table: u32) -> Option<&Self> {
        self.tables.get(&table)
    }

    /// Puts the route of another table of the kernel in the place of the former one, with what the routes behind it lead by; `None` takes
    /// it away.
    pub fn set_in_table(&mut self, table: u32, prefix: IpNet, way: Option<(Way, Alternatives)>) {
        let of_table = self.tables.entry(table).or_default();
        match way {
            Some((way, alternatives)) => of_table.set_kernel_beside(prefix, way, alternatives),
            None => of_table.remove(prefix, Origin::Kernel),
        }
        self.tables_changed |= of_table.has_changes();
        if of_table.is_empty() && of_table.martians(Origin::Kernel).is_empty() {
            self.tables.remove(&table);
        }
    }

    fn set(&mut self, prefix: IpNet, source: Source, way: Way, mut alternatives: Alternatives) {
        let prefix = prefix.trunc();
        let Some(origin) = source.origin() else { return };
        if is_martian(prefix) {
            if self.martians.entry(origin).or_default().insert(prefix) {
                self.changed.push(prefix);
            }
            return;
        }
        if way.drops() {
            alternatives.clear();
        } else if !alternatives.is_empty() {
            alternatives = &alternatives - &way.leads_by();
        }
        let set = self.intern(origin, way, alternatives);
        let learned = Learned { source, set };
        let known =
            self.routes.get(&prefix).and_then(|routes| routes.iter().find(|r| r.source.origin() == Some(origin)));
        if known == Some(&learned) {
            return;
        }
        self.hold(set);
        let routes = self.routes.entry(prefix).or_default();
        if routes.is_empty() {
            count(&mut self.lengths, prefix, |n| n + 1);
        }
        let former = routes.iter().position(|route| route.source.origin() == Some(origin)).map(|at| routes.remove(at));
        let at = routes.partition_point(|route| route.source < source);
        routes.insert(at, learned);
        self.changed.push(prefix);
        if let Some(former) = former {
            self.release(former.set);
        }
    }

    /// Takes away what an origin tells of a prefix.
    pub fn remove(&mut self, prefix: IpNet, origin: Origin) {
        let prefix = prefix.trunc();
        if self.martians.get_mut(&origin).is_some_and(|martians| martians.remove(&prefix)) {
            self.changed.push(prefix);
        }
        let Some(routes) = self.routes.get_mut(&prefix) else { return };
        let Some(at) = routes.iter().position(|route| route.source.origin() == Some(origin)) else { return };
        let former = routes.remove(at);
        if routes.is_empty() {
            self.routes.remove(&prefix);
            count(&mut self.lengths, prefix, |n| n.saturating_sub(1));
        }
        self.changed.push(prefix);
        self.release(former.set);
    }

    /// Takes away everything that an origin tells; says how many routes those were.
    pub fn clear(&mut self, origin: Origin) -> usize {
        let told = |routes: &[Learned]| routes.iter().any(|route| route.source.origin() == Some(origin));
        let prefixes: Vec<IpNet> =
            self.routes.iter().filter(|(_, routes)| told(routes)).map(|(prefix, _)| *prefix).collect();
        for prefix in &prefixes {
            self.remove(*prefix, origin);
        }
        self.martians.remove(&origin);
        prefixes.len()
    }

    fn intern(&mut self, origin: Origin, way: Way, alternatives: Alternatives) -> SetId {
        let key = (origin, way, alternatives);
        if let Some(id) = self.by_way.get(&key) {
            return *id;
        }
        let id = self.free.pop().unwrap_or(SetId(self.sets.len() as u32));
        let set = Some(Set { origin, way: key.1.clone(), alternatives: key.2.clone(), routes: 0 });
        match self.sets.get_mut(id.index()) {
            Some(slot) => *slot = set,
            None => self.sets.push(set),
        }
        self.by_way.insert(key, id);
        self.sets_changed.push(id);
        id
    }

    fn hold(&mut self, id: SetId) {
        if let Some(Some(set)) = self.sets.get_mut(id.index()) {
            set.routes += 1;
        }
    }

    fn release(&mut self, id: SetId) {
        let Some(Some(set)) = self.sets.get_mut(id.index()) else { return };
        set.routes = set.routes.saturating_sub(1);
    }

    /// Lets go of ways out that no route has any more. They are kept until then: a route that comes and goes does not make
    /// a new way out each time.
    pub(crate) fn forget_unused_sets(&mut self) {
        for (id, slot) in (0..).map(SetId).zip(&mut self.sets) {
            if let Some(set) = slot.take_if(|set| set.routes == 0) {
                self.by_way.remove(&(set.origin, set.way, set.alternatives));
                self.free.push(id);
                self.sets_changed.push(id);
            }
        }
        self.tables.values_mut().for_each(Self::forget_unused_sets);
    }

    /// Prefixes with their routes, best first, by prefix.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, &[Learned])> {
        self.routes.iter().map(|(prefix, routes)| (*prefix, routes.as_slice()))
    }

    /// The routes of a prefix, best first.
    pub fn routes(&self, prefix: IpNet) -> &[Learned] {
        self.routes.get(&prefix).map(SmallVec::as_slice).unwrap_or_default()
    }

    /// How many routes an origin tells of.
    pub fn count(&self, origin: Origin) -> usize {
        self.sets().filter(|(_, set)| set.origin == origin).map(|(_, set)| set.routes).sum()
    }

    /// Routes of an origin that are refused because their addresses are never routed, ascending.
    pub fn martians(&self, origin: Origin) -> &BTreeSet<IpNet> {
        static NONE: BTreeSet<IpNet> = BTreeSet::new();
        self.martians.get(&origin).unwrap_or(&NONE)
    }

    /// Prefixes of any origin.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// True where nothing is learned.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The sets in use, by number.
    pub fn sets(&self) -> impl Iterator<Item = (SetId, &Set)> {
        (0..).zip(&self.sets).filter_map(|(id, set)| Some((SetId(id), set.as_ref()?)))
    }

    /// One set.
    pub fn set_of(&self, id: SetId) -> Option<&Set> {
        self.sets.get(id.index()).and_then(Option::as_ref)
    }

    /// The routes to `address` of each prefix that holds it and is at least `shortest` long, longest first.
    pub fn covering(&self, address: IpAddr, shortest: u8) -> impl Iterator<Item = (IpNet, &[Learned])> {
        let lengths = self.lengths.get(usize::from(address.is_ipv6())).map_or(&[][..], |lengths| &lengths.0);
        let host = IpNet::from(address).prefix_len();
        (shortest..=host)
            .rev()
            .filter(|length| lengths.get(usize::from(*length)).is_some_and(|count| *count > 0))
            .filter_map(move |length| {
                let prefix = IpNet::new(address, length).ok()?.trunc();
                Some((prefix, self.routes.get(&prefix)?.as_slice()))
            })
    }

    /// What is different since the last call; of other tables nothing is told but that there is something.
    pub fn take_changes(&mut self) -> RibChanges {
        self.tables_changed = false;
        for table in self.tables.values_mut() {
            table.changed.clear();
            table.sets_changed.clear();
        }
        let mut prefixes = std::mem::take(&mut self.changed);
        prefixes.sort_unstable();
        prefixes.dedup();
        RibChanges { prefixes, sets: std::mem::take(&mut self.sets_changed) }
    }

    /// True where [`take_changes`](Self::take_changes) has something to tell.
    pub fn has_changes(&self) -> bool {
        !self.sets_changed.is_empty() || !self.changed.is_empty() || self.tables_changed
    }

    /// True where no way out is new or has gone since [`take_changes`](Self::take_changes), and no prefix for which
    /// `matters` has changed.
    pub(crate) fn only_routes_changed(&self, matters: impl Fn(&IpNet) -> bool) -> bool {
        self.sets_changed.is_empty() && !self.tables_changed && !self.changed.iter().any(matters)
    }
}

/// Blocks of addresses that no route may lead to, however preferred: this network, loopback, link-local, multicast and reserved
/// ones (RFC 1122 §3.2.1.3, RFC 6890; RFC 4291 §2.4).
const MARTIANS: [IpNet; 10] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
];

/// True where a prefix is inside a block that is never routed; the default route and others that hold such blocks are not.
fn is_martian(prefix: IpNet) -> bool {
    MARTIANS.iter().any(|block| block.contains(&prefix))
}

fn count(lengths: &mut [Lengths; 2], prefix: IpNet, change: impl Fn(usize) -> usize) {
    if let Some(lengths) = lengths.get_mut(usize::from(prefix.addr().is_ipv6()))
        && let Some(count) = lengths.0.get_mut(usize::from(prefix.prefix_len()))
    {
        *count = change(*count);
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Vip => "vip",
            Self::Connected => "connected",
            Self::Static => "static",
            Self::Kernel => "kernel",
            Self::Ebgp => "ebgp",
            Self::Ibgp => "ibgp",
            Self::Adopted => "adopted",
            Self::Fallback => "fallback",
        })
    }
}

impl Source {
    /// Who tells of such routes; `None` for those that follow from the network and the resources.
    pub fn origin(self) -> Option<Origin> {
        match self {
            Self::Local | Self::Vip | Self::Connected | Self::Static | Self::Fallback => None,
            Self::Kernel => Some(Origin::Kernel),
            Self::Ebgp | Self::Ibgp => Some(Origin::Bgp),
            Self::Adopted => Some(Origin::Adopted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn bgp(gateways: &[&str], internal: bool) -> BgpRoute {
        BgpRoute { gateways: gateways.iter().map(|gateway| ip(gateway)).collect(), alternatives: Vec::new(), internal }
    }

    fn sources(rib: &Rib, prefix: &str) -> Vec<Source> {
        rib.routes(net(prefix)).iter().map(|route| route.source).collect()
    }

    #[test]
    fn every_origin_has_one_route_a_prefix_and_the_best_comes_first() {
        let mut rib = Rib::default();
        rib.set_adopted(net("10.0.0.0/8"), [(ip("192.0.2.1"), IfIndex(2))]);
        rib.set_bgp(net("10.0.0.0/8"), &bgp(&["192.0.2.2"], true));
        assert_eq!(sources(&rib, "10.0.0.0/8"), [Source::Ibgp, Source::Adopted]);
        rib.set_bgp(net("10.0.0.0/8"), &bgp(&["192.0.2.2"], false));
        rib.set_kernel(net("10.0.0.0/8"), Way::Blackhole);
        assert_eq!(sources(&rib, "10.0.0.0/8"), [Source::Kernel, Source::Ebgp, Source::Adopted]);
        rib.set_bgp(net("10.0.0.0/8"), &bgp(&[], false));
        rib.remove(net("10.0.0.0/8"), Origin::Kernel);
        assert_eq!(sources(&rib, "10.0.0.0/8"), [Source::Adopted]);
        assert_eq!(rib.clear(Origin::Adopted), 1);
        rib.forget_unused_sets();
        assert!(rib.is_empty() && rib.sets().next().is_none());
    }

    #[test]
    fn a_set_outlives_its_routes_until_it_is_forgotten_and_its_coming_and_going_is_told() {
        let mut rib = Rib::default();
        rib.set_bgp(net("10.0.0.0/8"), &bgp(&["192.0.2.2", "192.0.2.1", "192.0.2.2"], false));
        let expected = RibChanges { prefixes: vec![net("10.0.0.0/8")], sets: vec![SetId(0)] };
        assert_eq!(rib.take_changes(), expected);
        rib.set_bgp(net("10.0.0.0/9"), &bgp(&["192.0.2.1", "192.0.2.2", "192.0.2.2"], false));
        assert_eq!(rib.sets().map(|(_, set)| set.routes).collect::<Vec<_>>(), [2]);
        assert_eq!(rib.take_changes(), RibChanges { prefixes: vec![net("10.0.0.0/9")], sets: Vec::new() });
        rib.set_bgp(net("10.0.0.0/9"), &bgp(&["192.0.2.1", "192.0.2.2", "192.0.2.2"], false));
        assert!(!rib.has_changes(), "the same again is no change");
        rib.set_bgp(net("10.0.0.0/8"), &bgp(&["192.0.2.7"], false));
        rib.set_bgp(net("10.0.0.0/9"), &bgp(&["192.0.2.7"], false));
        let sets = |rib: &Rib| rib.sets().map(|(id, set)| (id.index(), set.routes)).collect::<Vec<_>>();
        assert_eq!(sets(&rib), [(0, 0), (1, 2)]);
        rib.forget_unused_sets();
        assert_eq!(sets(&rib), [(1, 2)]);
        rib.set_kernel(net("10.0.0.0/9"), Way::Host);
        assert_eq!(rib.sets().map(|(id, _)| id.index()).collect::<Vec<_>>(), [0, 1], "its number is used again");
        let changes = rib.take_changes();
        assert_eq!((changes.prefixes.len(), changes.sets), (2, vec![SetId(1), SetId(0), SetId(0)]));
    }

    #[test]
    fn martians_are_refused_and_told_of() {
        let mut rib = Rib::default();
        let refused =
            ["127.1.0.0/16", "0.0.0.0/8", "224.0.0.5/32", "255.255.255.255/32", "fe80::/64", "::1/128", "ff02::/16"];
        for prefix in
            refused.into_iter().chain(["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8", "::/0", "::/96"])
        {
            rib.set_bgp(net(prefix), &bgp(&["192.0.2.1"], false));
        }
        assert_eq!((rib.len(), rib.martians(Origin::Bgp).len(), rib.martians(Origin::Kernel).len()), (6, 7, 0));
        rib.take_changes();
        rib.remove(net("127.1.0.0/16"), Origin::Bgp);
        assert!(rib.has_changes());
        assert_eq!(rib.martians(Origin::Bgp).len(), 6);
        rib.clear(Origin::Bgp);
        assert_eq!((rib.len(), rib.martians(Origin::Bgp).len()), (0, 0));
    }

    #[test]
    fn what_covers_an_address_comes_longest_first() {
        let mut rib = Rib::default();
        for prefix in ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "10.2.0.0/16", "::/0"] {
            rib.set_bgp(net(prefix), &bgp(&["192.0.2.1"], false));
        }
        let covering = |address: &str, shortest| {
            rib.covering(ip(address), shortest).map(|(prefix, _)| prefix.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(covering("10.1.2.3", 0), ["10.1.2.3/32", "10.1.0.0/16", "10.0.0.0/8", "0.0.0.0/0"]);
        assert_eq!(covering("10.1.2.4", 9), ["10.1.0.0/16"]);
        assert_eq!(covering("2001:db8::1", 0), ["::/0"]);
    }
}
