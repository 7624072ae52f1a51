//! Stable identifiers: the same content keeps its index from generation to generation, and across restarts.
//!
//! - An index is looked up by what it stands for (a port's interface, a backend's VIP and address, a gateway), never by
//!   its place in a list, so an unrelated change moves nothing.
//! - An index freed in one generation is not given out in the next: a packet that read the old table a moment ago never
//!   finds another meaning under it.
//! - A next-hop group belongs to a set of gateways as configured or learned. What the set resolves to may change: that is
//!   one store in the group, whatever the number of prefixes behind it. A set that replaces another takes over its group.
//! - A generation that fails to compile leaves no trace ([`Ids::roll_back`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use smallvec::SmallVec;
use tables::buckets::spread;

use crate::network::IfIndex;
use crate::tables::{
    AdjacencyId, BackendId, Group, GroupId, NextHop, NextHopId, Origins, PortId, PortKey, Ring, Tables, VipAddressId,
    VipId, VipKey, VrfId,
};

/// What a next hop stands for. The order is that of the buckets: address, then interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NextHopKey {
    Forward {
        address: IpAddr,
        ifindex: IfIndex,
    },
    Glean {
        ifindex: IfIndex,
    },
    /// An address of the node, named where VIPs have it, too.
    Receive {
        vip: Option<IpAddr>,
    },
    Host,
    Vip(IpNet),
    Blackhole,
    Prohibit,
    Unreachable,
}

/// One gateway of a set. `ifindex` is set for a gateway on a link and absent for one that other routes lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GatewayKey {
    pub(crate) address: IpAddr,
    pub(crate) ifindex: Option<IfIndex>,
    pub(crate) weight: u32,
}

/// What a next-hop group stands for: where it leads, and where packets from there may come in beside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupKey {
    pub(crate) leads: Leads,
    /// None of those that lead there anyway.
    pub(crate) beside: Origins,
}

/// Where a next-hop group leads. Gateways are ascending, their weights without a common divisor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leads {
    Direct(NextHopKey),
    /// The number tells sets apart whose gateways are the same and of which different ones are usable: what one source
    /// can reach is not always what another one can.
    Gateways(SmallVec<[GatewayKey; 2]>, u8),
    /// Found after a restart beside another with the same content.
    Adopted(GroupId),
}

impl GroupKey {
    /// The address or prefix, where it is one that VIPs have: its group goes by the address's number.
    fn vip_address(&self) -> Option<IpNet> {
        match self.leads {
            Leads::Direct(NextHopKey::Vip(prefix)) => Some(prefix),
            Leads::Direct(NextHopKey::Receive { vip: Some(address) }) => Some(address.into()),
            _ => None,
        }
    }
}

/// Where gateways were when they were last usable. A set of gateways is known by this while one of them is not: its group
/// stays its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownGateways {
    former: BTreeMap<(VrfId, IpAddr), Option<IfIndex>>,
    present: BTreeMap<(VrfId, IpAddr), Option<IfIndex>>,
}

impl KnownGateways {
    pub(crate) fn remember(&mut self, vrf: VrfId, key: GatewayKey) {
        self.present.insert((vrf, key.address), key.ifindex);
    }

    /// The gateway as it was, with a weight of 1.
    pub(crate) fn last(&mut self, vrf: VrfId, address: IpAddr) -> GatewayKey {
        let known = (vrf, address);
        let ifindex = self.present.get(&known).or_else(|| self.former.get(&known)).copied().flatten();
        self.present.insert(known, ifindex);
        GatewayKey { address, ifindex, weight: 1 }
    }

    /// Forgets those that no route has named since.
    fn turn(&mut self) {
        self.former = std::mem::take(&mut self.present);
    }
}

/// A table has no index left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted;

/// How much the tables of forwarding hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Prefixes of the IPv4 and of the IPv6 FIB, as far as learned routes are concerned.
    pub prefixes: [usize; 2],
    /// Prefixes of both families of every other VRF, likewise.
    pub vrf_prefixes: usize,
    /// Next-hop groups.
    pub groups: usize,
    /// Next hops, and as many adjacencies.
    pub next_hops: usize,
    /// Of groups and of next hops, how many only what the node cannot do without may take: own addresses, VIPs, connected and
    /// static routes, backends.
    pub set_aside: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            prefixes: [1 << 21, 1 << 19],
            vrf_prefixes: 1 << 17,
            groups: Ids::LAST_GROUP as usize,
            next_hops: Ids::LAST_OTHER as usize,
            set_aside: 2_048,
        }
    }
}

#[derive(Clone, Debug)]
struct Entry {
    id: u32,
    generation: u64,
}

/// Indices of one table, 1 to `last`.
#[derive(Clone, Debug)]
pub(crate) struct Pool<K> {
    last: u32,
    live: BTreeMap<K, Entry>,
    fresh: Vec<K>,
    numbers: Numbers,
    generation: u64,
}

/// Which numbers are free, the lowest first.
#[derive(Clone, Debug, Default)]
struct Numbers {
    highest: u32,
    free: BTreeSet<u32>,
    /// Freed in the generation before; free after the next.
    resting: Vec<u32>,
}

impl Numbers {
    fn take(&mut self, last: u32) -> Result<u32, Exhausted> {
        if let Some(id) = self.free.pop_first() {
            return Ok(id);
        }
        if self.highest >= last {
            return Err(Exhausted);
        }
        self.highest += 1;
        Ok(self.highest)
    }

    /// How many there are to be taken.
    fn available(&self, last: u32) -> usize {
        self.free.len() + last.saturating_sub(self.highest) as usize
    }

    fn rest(&mut self, freed: Vec<u32>) {
        self.free.extend(std::mem::replace(&mut self.resting, freed));
    }

    /// Marks what a former process left in use.
    fn adopt(used: &BTreeSet<u32>) -> Self {
        let highest = used.last().copied().unwrap_or(0);
        Self { highest, free: (1..=highest).filter(|id| !used.contains(id)).collect(), resting: Vec::new() }
    }
}

impl<K: Ord + Clone> Pool<K> {
    fn adopt(last: u32, used: impl IntoIterator<Item = (K, u32)>) -> Self {
        let live: BTreeMap<K, Entry> = used
            .into_iter()
            .filter(|(_, id)| (1..=last).contains(id))
            .map(|(key, id)| (key, Entry { id, generation: 0 }))
            .collect();
        let numbers = Numbers::adopt(&live.values().map(|entry| entry.id).collect());
        Self { last, live, fresh: Vec::new(), numbers, generation: 0 }
    }

    fn begin(&mut self) {
        self.generation += 1;
        self.fresh.clear();
    }

    /// The index of `key`, kept or new.
    pub(crate) fn get(&mut self, key: &K) -> Result<u32, Exhausted> {
        if let Some(entry) = self.live.get_mut(key) {
            entry.generation = self.generation;
            return Ok(entry.id);
        }
        let id = self.numbers.take(self.last)?;
        self.live.insert(key.clone(), Entry { id, generation: self.generation });
        self.fresh.push(key.clone());
        Ok(id)
    }

    /// Another key for what `former` stands for.
    fn rename(&mut self, former: &K, key: K) {
        if let Some(entry) = self.live.remove(former) {
            self.live.insert(key, entry);
        }
    }

    fn is_live(&self, key: &K) -> bool {
        self.live.contains_key(key)
    }

    fn commit(&mut self) {
        let mut freed = Vec::new();
        let generation = self.generation;
        self.live.retain(|_, entry| {
            let keep = entry.generation == generation;
            if !keep {
                freed.push(entry.id);
            }
            keep
        });
        self.numbers.rest(freed);
        self.fresh.clear();
    }

    fn roll_back(&mut self) {
        for key in std::mem::take(&mut self.fresh) {
            if let Some(entry) = self.live.remove(&key) {
                self.numbers.free.insert(entry.id);
            }
        }
    }
}

/// Members of a group with their weights.
pub(crate) type Members = Vec<(NextHopKey, u32)>;

#[derive(Clone, Debug)]
struct GroupEntry {
    id: GroupId,
    members: Members,
    buckets: Buckets,
}

/// What each bucket of a group holds. Most groups are the same from generation to generation and share it.
#[derive(Clone, Debug)]
pub(crate) struct Buckets {
    all: Arc<[NextHopKey]>,
    distinct: Arc<[NextHopKey]>,
}

impl Buckets {
    fn new(all: Vec<NextHopKey>) -> Self {
        let mut distinct = all.clone();
        distinct.sort_unstable();
        distinct.dedup();
        Self { all: all.into(), distinct: distinct.into() }
    }

    /// Each next hop that has a bucket, once, ascending.
    pub(crate) fn distinct(&self) -> &[NextHopKey] {
        &self.distinct
    }

    /// The buckets by what stands for their next hops, in the order of [`distinct`](Self::distinct).
    pub(crate) fn by<T: Copy>(&self, stands_for: &[T]) -> Vec<T> {
        match (stands_for, self.distinct.len()) {
            ([only], 1) => vec![*only; self.all.len()],
            _ => {
                let place = |hop| self.distinct.binary_search(hop).ok();
                self.all.iter().filter_map(|hop| stands_for.get(place(hop)?).copied()).collect()
            }
        }
    }
}

/// A group of the next generation.
#[derive(Clone, Debug)]
pub(crate) struct Assigned {
    pub(crate) id: GroupId,
    /// What each bucket holds.
    pub(crate) buckets: Buckets,
}

/// Sets of next hops that are to have a group.
pub(crate) type Wanted = BTreeMap<GroupKey, Members>;

/// Groups of the generation in force and, while one is compiled, of the next.
#[derive(Clone, Debug)]
pub(crate) struct GroupPool {
    live: BTreeMap<GroupKey, GroupEntry>,
    numbers: Numbers,
    next: Option<(BTreeMap<GroupKey, GroupEntry>, Numbers, Vec<u32>)>,
}

impl GroupPool {
    /// Assigns every set its group, with as few buckets moved as possible: the first ones always, of the others as many as
    /// leave `set_aside` numbers free. To be called once a generation.
    fn assign(
        &mut self,
        first: Wanted,
        others: Wanted,
        limits: &Limits,
    ) -> Result<BTreeMap<GroupKey, Assigned>, Exhausted> {
        let last = limits.groups as u32;
        let mut numbers = self.numbers.clone();
        let is_wanted = |key: &GroupKey| first.contains_key(key) || others.contains_key(key);
        let mut orphans: BTreeMap<&GroupKey, &GroupEntry> =
            self.live.iter().filter(|(key, _)| !is_wanted(key)).collect();
        let mut by_member: BTreeMap<NextHopKey, Vec<&GroupKey>> = BTreeMap::new();
        if first.keys().chain(others.keys()).any(|key| !self.live.contains_key(key)) {
            for (key, entry) in &self.live {
                for (member, _) in &entry.members {
                    by_member.entry(*member).or_default().push(key);
                }
            }
        }

        let mut next = BTreeMap::new();
        let in_order = first.into_iter().map(|set| (set, true)).chain(others.into_iter().map(|set| (set, false)));
        for ((key, mut members), is_first) in in_order {
            members.sort_unstable();
            let entry = if let Some(kept) = self.live.get(&key) {
                kept.with_members(kept.id, members)
            } else {
                let overlap = overlaps(&members, &by_member);
                let heir = self.twins(&key).find(|twin| orphans.contains_key(twin));
                let heir = heir.or_else(|| most_overlap(&overlap, |candidate| orphans.contains_key(candidate)));
                // Whoever leads the same way knows which flow goes where.
                let base = self.twins(&key).next().or(heir).or_else(|| most_overlap(&overlap, |_| true));
                let base = base.and_then(|base| self.live.get(base));
                let id = match heir.and_then(|heir| orphans.remove(heir)) {
                    Some(predecessor) => predecessor.id,
                    None if !is_first && numbers.available(last) <= limits.set_aside => continue,
                    None => GroupId(numbers.take(last)?),
                };
                match base {
                    Some(base) => base.with_members(id, members),
                    None => GroupEntry { id, buckets: Buckets::new(spread(&[], &members)), members },
                }
            };
            next.insert(key, entry);
        }
        let assigned = next
            .iter()
            .map(|(key, entry)| (key.clone(), Assigned { id: entry.id, buckets: entry.buckets.clone() }))
            .collect();
        let freed = orphans.values().map(|entry| entry.id.0).collect();
        self.next = Some((next, numbers, freed));
        Ok(assigned)
    }

    /// The groups that lead the same way and differ in where packets may come in.
    fn twins(&self, key: &GroupKey) -> impl Iterator<Item = &GroupKey> {
        let first = GroupKey { beside: Origins::NONE, ..key.clone() };
        self.live.range(first..).map(|(twin, _)| twin).take_while(|twin| twin.leads == key.leads)
    }

    /// Takes next hops that are lost out of every group that has others, as the next generation will: each such group with what
    /// its buckets hold now.
    fn lose(&mut self, loss: Loss) -> Vec<(GroupId, Buckets)> {
        let is_lost = |hop: &NextHopKey| match (hop, loss) {
            (NextHopKey::Forward { ifindex, .. }, Loss::Link(link)) => *ifindex == link,
            (NextHopKey::Forward { ifindex, address }, Loss::Neighbor(link, lost)) => {
                (*ifindex, *address) == (link, lost)
            }
            _ => false,
        };
        let mut changed = Vec::new();
        for entry in self.live.values_mut() {
            let lost = entry.buckets.distinct.iter().filter(|hop| is_lost(hop)).count();
            if lost == 0 || lost == entry.buckets.distinct.len() {
                continue;
            }
            let survivors = entry.members.iter().filter(|(hop, _)| !is_lost(hop)).copied().collect();
            *entry = entry.with_members(entry.id, survivors);
            changed.push((entry.id, entry.buckets.clone()));
        }
        changed
    }

    fn commit(&mut self) {
        if let Some((live, mut numbers, freed)) = self.next.take() {
            numbers.rest(freed);
            self.live = live;
            self.numbers = numbers;
        }
    }
}

impl GroupEntry {
    fn with_members(&self, id: GroupId, members: Members) -> Self {
        let same = self.members == members;
        let buckets = if same { self.buckets.clone() } else { Buckets::new(spread(&self.buckets.all, &members)) };
        Self { id, members, buckets }
    }
}

/// How many of `members` each present group has.
fn overlaps<'a>(
    members: &Members,
    by_member: &BTreeMap<NextHopKey, Vec<&'a GroupKey>>,
) -> BTreeMap<&'a GroupKey, usize> {
    let mut overlaps: BTreeMap<&GroupKey, usize> = BTreeMap::new();
    for key in members.iter().filter_map(|(member, _)| by_member.get(member)).flatten() {
        *overlaps.entry(key).or_default() += 1;
    }
    overlaps
}

fn most_overlap<'a>(
    overlaps: &BTreeMap<&'a GroupKey, usize>,
    eligible: impl Fn(&GroupKey) -> bool,
) -> Option<&'a GroupKey> {
    let candidates = overlaps.iter().filter(|(key, _)| eligible(key));
    candidates.reduce(|best, other| if other.1 > best.1 { other } else { best }).map(|(key, _)| *key)
}

/// Next hops that are lost all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Those on an interface.
    Link(IfIndex),
    /// The one that does not answer.
    Neighbor(IfIndex, IpAddr),
}

impl From<IfIndex> for Loss {
    fn from(link: IfIndex) -> Self {
        Self::Link(link)
    }
}

/// What a VRF is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum VrfKey {
    Named(String),
    /// Found after a restart, which tells no names: its ports say which one it is.
    Adopted(VrfId),
}

/// Backends of a ring with their addresses and weights.
pub(crate) type RingMembers = Vec<(BackendId, IpAddr, u16)>;

/// The identifiers that one generation hands to the next.
#[derive(Clone, Debug)]
pub struct Ids {
    pub(crate) ports: Pool<PortKey>,
    pub(crate) vrfs: Pool<VrfKey>,
    /// The VRFs of the ports that a former process left.
    adopted_vrfs: BTreeMap<PortKey, VrfId>,
    pub(crate) vips: Pool<VipKey>,
    pub(crate) vip_addresses: Pool<IpNet>,
    pub(crate) backends: Pool<(VipKey, IpAddr)>,
    pub(crate) next_hops: Pool<NextHopKey>,
    pub(crate) adjacencies: Pool<(IfIndex, IpAddr)>,
    pub(crate) groups: GroupPool,
    pub(crate) gateways: KnownGateways,
    /// Rings as last built, with the members they were built from: most generations change none. Of those that a former process
    /// has left, the members are not known.
    pub(crate) rings: BTreeMap<VipId, (Option<RingMembers>, Ring)>,
}

impl Default for Ids {
    fn default() -> Self {
        Self::adopt(&Tables::default())
    }
}

impl Ids {
    /// Highest port index; 0 counts packets of interfaces that are no port.
    pub const LAST_PORT: u32 = 63;
    /// Highest VRF index.
    pub const LAST_VRF: u32 = 255;
    /// Highest VIP index.
    pub const LAST_VIP: u32 = 4_095;
    /// Highest index of next-hop groups but those of VIP addresses.
    pub const LAST_GROUP: u32 = GroupId::LAST.0;
    /// Highest index of backends: what a slot of a ring has room for.
    pub const LAST_BACKEND: u32 = 32_767;
    /// Highest index of next hops and adjacencies.
    pub const LAST_OTHER: u32 = 65_535;

    /// Identifiers as a former process left them in the pinned tables, so that a restart changes nothing that is still
    /// wanted. References that lead nowhere and indices out of range are passed over.
    #[must_use]
    pub fn adopt(tables: &Tables) -> Self {
        let vip_keys: BTreeMap<VipId, VipKey> = tables.vips.iter().map(|(key, id)| (*id, *key)).collect();
        let backends = tables.backends.iter();
        let backends = backends.filter_map(|(id, b)| Some(((*vip_keys.get(&b.vip)?, b.address), id.0)));
        let next_hops = tables.next_hops.iter().map(|(id, hop)| (key_of(*hop), id.0));
        let adjacencies = tables.next_hops.values().filter_map(|hop| match hop {
            NextHop::Forward { address, ifindex, adjacency } => Some(((*ifindex, *address), adjacency.0)),
            _ => None,
        });
        Self {
            vrfs: Pool::adopt(Self::LAST_VRF, tables.vrfs.keys().map(|id| (VrfKey::Adopted(*id), id.0))),
            adopted_vrfs: tables.ports.iter().map(|(key, port)| (*key, port.vrf)).collect(),
            ports: Pool::adopt(Self::LAST_PORT, tables.ports.iter().map(|(key, port)| (*key, port.id.0))),
            vips: Pool::adopt(Self::LAST_VIP, tables.vips.iter().map(|(key, id)| (*key, id.0))),
            vip_addresses: Pool::adopt(
                VipAddressId::LAST.0,
                tables.vip_addresses().map(|(id, address)| (address, id.0)),
            ),
            backends: Pool::adopt(Self::LAST_BACKEND, backends),
            next_hops: Pool::adopt(Self::LAST_OTHER, next_hops),
            adjacencies: Pool::adopt(Self::LAST_OTHER, adjacencies),
            groups: GroupPool::adopt(tables),
            gateways: KnownGateways::default(),
            rings: tables.rings.iter().map(|(vip, ring)| (*vip, (None, Ring::clone(ring)))).collect(),
        }
    }

    /// Opens a generation.
    pub(crate) fn begin(&mut self) {
        self.ports.begin();
        self.vrfs.begin();
        self.vips.begin();
        self.vip_addresses.begin();
        self.backends.begin();
        self.next_hops.begin();
        self.adjacencies.begin();
        self.groups.next = None;
    }

    /// Ends a generation that compiled: what it did not ask for is freed.
    pub(crate) fn commit(&mut self) {
        self.ports.commit();
        self.vrfs.commit();
        self.adopted_vrfs.clear();
        self.vips.commit();
        self.vip_addresses.commit();
        self.backends.commit();
        self.next_hops.commit();
        self.adjacencies.commit();
        self.groups.commit();
        self.gateways.turn();
        let vips: BTreeSet<u32> = self.vips.live.values().map(|entry| entry.id).collect();
        self.rings.retain(|vip, _| vips.contains(&vip.0));
    }

    /// Ends a generation that did not: as if it had never been begun.
    pub(crate) fn roll_back(&mut self) {
        self.ports.roll_back();
        self.vrfs.roll_back();
        self.vips.roll_back();
        self.vip_addresses.roll_back();
        self.backends.roll_back();
        self.next_hops.roll_back();
        self.adjacencies.roll_back();
        self.groups.next = None;
        self.gateways.present.clear();
    }

    /// Assigns sets of next hops their groups: the first ones always, of the others those that there is room for. Which of the
    /// others have a group already comes before which of them are new.
    pub(crate) fn assign_groups(
        &mut self,
        mut first: Wanted,
        others: Wanted,
        limits: &Limits,
    ) -> Result<BTreeMap<GroupKey, Assigned>, Exhausted> {
        let others = self.fitting(&first, others, limits);
        let of_vips: Vec<(GroupKey, Members)> = first.extract_if(.., |key, _| key.vip_address().is_some()).collect();
        let mut assigned = self.groups.assign(first, others, limits)?;
        for (key, members) in of_vips {
            if let Some(address) = key.vip_address() {
                let id = VipAddressId(self.vip_addresses.get(&address)?).group();
                assigned.insert(key, Assigned { id, buckets: Buckets::new(spread(&[], &members)) });
            }
        }
        Ok(assigned)
    }

    fn fitting(&self, first: &Wanted, others: Wanted, limits: &Limits) -> Wanted {
        let fresh_of = |hops: &BTreeSet<NextHopKey>| hops.iter().filter(|hop| !self.next_hops.is_live(hop)).count();
        let mut hops: BTreeSet<NextHopKey> = first.values().flatten().map(|(hop, _)| *hop).collect();
        let most_hops = limits.next_hops.saturating_sub(limits.set_aside);
        let last = limits.next_hops as u32;
        let available = self.next_hops.numbers.available(last).min(self.adjacencies.numbers.available(last));
        let mut fresh = available.saturating_sub(fresh_of(&hops) + limits.set_aside);
        let most = limits.groups.saturating_sub(limits.set_aside + first.len());
        let mut fitting = Wanted::new();
        let (kept, new): (Vec<_>, Vec<_>) = others.into_iter().partition(|(key, _)| self.groups.live.contains_key(key));
        for (key, members) in kept.into_iter().chain(new) {
            if fitting.len() >= most {
                break;
            }
            let more: BTreeSet<NextHopKey> =
                members.iter().map(|(hop, _)| *hop).filter(|hop| !hops.contains(hop)).collect();
            let of_them_fresh = fresh_of(&more);
            if hops.len() + more.len() <= most_hops && of_them_fresh <= fresh {
                fresh -= of_them_fresh;
                hops.extend(more);
                fitting.insert(key, members);
            }
        }
        fitting
    }

    /// True where numbers that are not in use wait for the last packets that may read them: there is more room in the next
    /// generation.
    pub(crate) fn is_resting(&self) -> bool {
        let numbers = [&self.groups.numbers, &self.next_hops.numbers, &self.adjacencies.numbers];
        numbers.iter().any(|numbers| !numbers.resting.is_empty())
    }

    /// Takes next hops that are lost out of every group that has others: the groups that changed, by the numbers of their next
    /// hops.
    pub(crate) fn lose(&mut self, loss: Loss) -> Vec<(GroupId, Vec<NextHopId>)> {
        let changed = self.groups.lose(loss);
        let number = |hop: &NextHopKey| NextHopId(self.next_hops.live.get(hop).map_or(0, |entry| entry.id));
        let numbered = |(id, buckets): (GroupId, Buckets)| {
            let numbers: Vec<NextHopId> = buckets.distinct().iter().map(number).collect();
            (id, buckets.by(&numbers))
        };
        changed.into_iter().map(numbered).collect()
    }

    pub(crate) fn port(&mut self, key: PortKey) -> Result<PortId, Exhausted> {
        self.ports.get(&key).map(PortId)
    }

    /// The VRF called `name`, which these ports are in.
    pub(crate) fn vrf(&mut self, name: &str, ports: &[PortKey]) -> Result<VrfId, Exhausted> {
        let key = VrfKey::Named(name.to_owned());
        let adopted = ports.iter().filter_map(|port| self.adopted_vrfs.get(port)).map(|id| VrfKey::Adopted(*id));
        let adopted = adopted.filter(|known| self.vrfs.is_live(known)).min();
        if let Some(known) = adopted.filter(|_| !self.vrfs.is_live(&key)) {
            self.vrfs.rename(&known, key.clone());
        }
        self.vrfs.get(&key).map(VrfId)
    }

    pub(crate) fn next_hop(&mut self, key: NextHopKey) -> Result<NextHopId, Exhausted> {
        self.next_hops.get(&key).map(NextHopId)
    }

    pub(crate) fn adjacency(&mut self, ifindex: IfIndex, address: IpAddr) -> Result<AdjacencyId, Exhausted> {
        self.adjacencies.get(&(ifindex, address)).map(AdjacencyId)
    }
}

impl GroupPool {
    fn adopt(tables: &Tables) -> Self {
        let last = Ids::LAST_GROUP;
        let mut live = BTreeMap::new();
        let mut in_range: Vec<_> = tables.groups.iter().filter(|(id, _)| (1..=last).contains(&id.0)).collect();
        // Of groups with the same content, a gateway's own has the fewest prefixes: routes that lost their other gateways have
        // the rest.
        let mut prefixes: BTreeMap<GroupId, usize> = BTreeMap::new();
        tables
            .fib
            .values()
            .chain(tables.vrfs.values().flat_map(BTreeMap::values))
            .for_each(|group| *prefixes.entry(*group).or_default() += 1);
        in_range.sort_by_key(|(id, _)| (prefixes.get(id).copied().unwrap_or(0), **id));
        for (id, group) in in_range {
            let buckets: Option<Vec<NextHopKey>> =
                group.buckets.iter().map(|hop| tables.next_hops.get(hop).map(|hop| key_of(*hop))).collect();
            let Some(buckets) = buckets else { continue };
            let distinct: BTreeSet<NextHopKey> = buckets.iter().copied().collect();
            let Some(leads) = leads_of(&distinct) else { continue };
            let beside = beside(*id, group, tables);
            let members = distinct.into_iter().map(|hop| (hop, 1)).collect();
            // Equal keys: weights or gateways that were lost told them apart. The later ones are found by overlap.
            let mut key = GroupKey { leads, beside };
            if live.contains_key(&key) {
                key.leads = Leads::Adopted(*id);
            }
            live.insert(key, GroupEntry { id: *id, members, buckets: Buckets::new(buckets) });
        }
        let used: BTreeSet<u32> = tables.groups.keys().map(|id| id.0).filter(|id| (1..=last).contains(id)).collect();
        let mut numbers = Numbers::adopt(&used);
        let known: BTreeSet<u32> = live.values().map(|entry: &GroupEntry| entry.id.0).collect();
        numbers.resting = used.difference(&known).copied().collect();
        Self { live, numbers, next: None }
    }
}

fn key_of(hop: NextHop) -> NextHopKey {
    match hop {
        NextHop::Forward { address, ifindex, .. } => NextHopKey::Forward { ifindex, address },
        NextHop::Glean { ifindex } => NextHopKey::Glean { ifindex },
        NextHop::Receive { vip } => NextHopKey::Receive { vip },
        NextHop::Host => NextHopKey::Host,
        NextHop::Vip(prefix) => NextHopKey::Vip(prefix),
        NextHop::Blackhole => NextHopKey::Blackhole,
        NextHop::Prohibit => NextHopKey::Prohibit,
        NextHop::Unreachable => NextHopKey::Unreachable,
    }
}

/// Where packets of a group may come in beside its own next hops.
fn beside(id: GroupId, group: &Group, tables: &Tables) -> Origins {
    let port = |key: PortKey| tables.ports.get(&key).map_or(Origins::ROUTED, |port| Origins::by(port.id));
    let mut own = Origins::NONE;
    for hop in group.buckets.iter().filter_map(|hop| tables.next_hops.get(hop)) {
        own |= match hop {
            NextHop::Forward { adjacency, .. } => {
                tables.adjacencies.get(adjacency).map_or(Origins::ROUTED, |adjacency| {
                    port(PortKey { ifindex: adjacency.ifindex, vlan: adjacency.vlan })
                })
            }
            NextHop::Glean { ifindex } => port(PortKey { ifindex: *ifindex, vlan: None }),
            NextHop::Vip(_) => Origins::ANY,
            _ => Origins::ROUTED,
        };
    }
    tables.origins.get(&id).map_or(Origins::NONE, |origins| origins.without(own))
}

/// Where a group with this content leads. Weights and the recursion behind it cannot be read back.
fn leads_of(hops: &BTreeSet<NextHopKey>) -> Option<Leads> {
    let gateways: Option<SmallVec<[GatewayKey; 2]>> = hops
        .iter()
        .map(|hop| match hop {
            NextHopKey::Forward { address, ifindex } => {
                Some(GatewayKey { address: *address, ifindex: Some(*ifindex), weight: 1 })
            }
            _ => None,
        })
        .collect();
    match gateways {
        Some(gateways) => (!gateways.is_empty()).then_some(Leads::Gateways(gateways, 0)),
        None => hops.first().filter(|_| hops.len() == 1).map(|hop| Leads::Direct(*hop)),
    }
}
