//! Tables to map entries and back: the only place that touches ABI integers.
//!
//! Addresses are written as their octets stand on the wire; ports that the program compares with packet bytes are
//! big-endian, all else is host order. What cannot be represented (an id beyond its map) is refused before a byte is
//! written.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use model::desired::{MaxMss, SourceValidation, TunnelKind};
use model::network::{IfIndex, Mac};
use model::tables::{
    Adjacency, AdjacencyId, BackendId, FilterNext, FilterOp, FilterTest, Group, GroupId, NextHop, NextHopId, Origins,
    Port, PortId, PortKey, Ring, Tables, VipId, VrfId,
};

use self::services::{
    NO_VIP, backend, decode_backend, decode_vips, quic_servers, vip_addresses, vip_buckets, vip_rows,
};
use self::tunnels::{inner_sources, tunnel_peer};
use super::abi::{self, Abi, types};
use super::error::Error;

mod services;
mod tunnels;

pub(super) use services::{RING_BYTES, decode_ring, ring, serves, stamp};
pub(super) use tunnels::{sources, sources_base};

/// Entries of one map by key, as bytes.
pub(super) type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// Ops of one half of the filter map.
pub(super) const FILTER_HALF: usize = types::limits::FILTER_OPS_MAX.0 as usize / 2;
/// Ranges of one half of the map of inner sources.
pub(super) const SOURCES_HALF: usize = types::limits::TUNNEL_SOURCES_MAX.0 as usize / 2;

/// Where what is written as a whole, and comes into force by references to it, begins in its map: in either half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bases {
    pub(super) filter: usize,
    pub(super) sources: usize,
}

/// One map whose entries follow from the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Adjacencies,
    NextHops,
    Origins,
    Groups,
    Backends,
    QuicServers,
    VipAddresses,
    VipBuckets,
    Vips,
    TunnelSources,
    TunnelPeers,
    Vnis,
    Filter,
    ClampsIn,
    ClampsOut,
    Ports,
    VlanPorts,
}

impl Table {
    /// Every table, what is referred to before what refers to it: the order of writes; deletes go the other way.
    pub(super) const ORDER: [Self; 17] = [
        Self::Adjacencies,
        Self::NextHops,
        Self::Origins,
        Self::Groups,
        Self::Backends,
        Self::TunnelSources,
        Self::TunnelPeers,
        Self::Vnis,
        Self::Filter,
        Self::QuicServers,
        Self::ClampsIn,
        Self::ClampsOut,
        Self::Vips,
        Self::VipBuckets,
        Self::VipAddresses,
        Self::VlanPorts,
        Self::Ports,
    ];

    /// Name of the map.
    pub(super) const fn map(self) -> &'static str {
        match self {
            Self::Adjacencies => "adjacencies",
            Self::NextHops => "next_hops",
            Self::Origins => "origins",
            Self::Groups => "groups",
            Self::Backends => "backends",
            Self::QuicServers => "quic_servers",
            Self::Vips => "vips",
            Self::VipBuckets => "vip_buckets",
            Self::VipAddresses => "vip_addresses",
            Self::TunnelSources => "tunnel_sources",
            Self::TunnelPeers => "tunnel_peers",
            Self::Vnis => "vnis",
            Self::Filter => "filter",
            Self::ClampsIn => "clamps_in",
            Self::ClampsOut => "clamps_out",
            Self::Ports => "ports",
            Self::VlanPorts => "vlan_ports",
        }
    }

    /// Counters by the same index, if there are any.
    pub(super) const fn counters(self) -> Option<&'static str> {
        match self {
            Self::NextHops => Some("next_hop_counters"),
            Self::Backends => Some("backend_counters"),
            _ => None,
        }
    }

    /// An array has every key: an entry is deleted by zeroing it.
    pub(super) const fn is_array(self) -> bool {
        !matches!(self, Self::TunnelPeers | Self::Vnis | Self::ClampsOut | Self::VlanPorts)
    }

    /// Most entries.
    pub(super) const fn limit(self) -> usize {
        use types::limits as l;
        (match self {
            Self::Adjacencies => l::ADJACENCIES_MAX.0,
            Self::NextHops => l::NEXT_HOPS_MAX.0,
            Self::Origins | Self::Groups => l::GROUPS_MAX.0,
            Self::Backends => l::BACKENDS_MAX.0,
            Self::Vips | Self::VipAddresses => l::VIPS_MAX.0,
            Self::VipBuckets => 2 << l::VIP_BUCKET_BITS.0,
            Self::QuicServers => 2 << l::QUIC_BUCKET_BITS.0,
            Self::TunnelSources => l::TUNNEL_SOURCES_MAX.0,
            Self::TunnelPeers | Self::Vnis => l::TUNNEL_PEERS_MAX.0,
            Self::Filter => l::FILTER_OPS_MAX.0,
            Self::ClampsIn | Self::ClampsOut => l::PORTS_MAX.0,
            Self::Ports => l::IFINDEX_MAX.0,
            Self::VlanPorts => l::VLAN_PORTS_MAX.0,
        }) as usize
    }
}

/// All table entries of one generation, and the rings beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Encoded {
    pub(super) entries: BTreeMap<Table, Entries>,
    pub(super) rings: BTreeMap<VipId, Ring>,
}

impl Encoded {
    fn put<K: Abi, V: Abi>(&mut self, table: Table, key: &K, value: &V) {
        self.entries.entry(table).or_default().insert(abi::bytes_of(key).to_vec(), abi::bytes_of(value).to_vec());
    }

    /// The entries of one table.
    pub(super) fn table(&self, table: Table) -> &Entries {
        static NONE: Entries = Entries::new();
        self.entries.get(&table).unwrap_or(&NONE)
    }

    fn check_limits(&self, tables: &Tables) -> Result<(), Error> {
        let highest = |table: Table, id: Option<u32>| match id {
            Some(id) if id as usize >= table.limit() => {
                Err(Error::Full { table: table.map(), wanted: id as usize + 1, limit: table.limit() })
            }
            _ => Ok(()),
        };
        highest(Table::Adjacencies, tables.adjacencies.keys().map(|id| id.0).max())?;
        highest(Table::NextHops, tables.next_hops.keys().map(|id| id.0).max())?;
        highest(Table::Groups, tables.groups.keys().map(|id| id.0).max())?;
        highest(Table::Backends, tables.backends.keys().chain(tables.checked.keys()).map(|id| id.0).max())?;
        let rings = types::limits::VIPS_MAX.0;
        if let Some(last) = tables.rings.keys().last().filter(|last| last.0 >= rings) {
            return Err(Error::Full { table: "rings", wanted: last.0 as usize + 1, limit: rings as usize });
        }
        highest(Table::Ports, tables.ports.keys().map(|key| key.ifindex.0).max())?;
        for table in Table::ORDER {
            let wanted = self.table(table).len();
            if wanted > table.limit() {
                return Err(Error::Full { table: table.map(), wanted, limit: table.limit() });
            }
        }
        if tables.filter.len() > FILTER_HALF {
            return Err(Error::Full { table: "filter", wanted: tables.filter.len(), limit: FILTER_HALF });
        }
        let sources = tables.tunnel_sources.len();
        if sources > SOURCES_HALF {
            return Err(Error::Full { table: "tunnel_sources", wanted: sources, limit: SOURCES_HALF });
        }
        Ok(())
    }
}

fn ip_addr(address: IpAddr) -> types::ip_addr {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    types::ip_addr { word: words(octets) }
}

fn words(octets: [u8; 16]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, chunk) in words.iter_mut().zip(octets.chunks_exact(4)) {
        *word = u32::from_ne_bytes(chunk.try_into().unwrap_or_default());
    }
    words
}

pub(super) fn address(words: [u32; 4]) -> IpAddr {
    let mut octets = [0; 16];
    for (chunk, word) in octets.chunks_exact_mut(4).zip(words) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    let v6 = Ipv6Addr::from(octets);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

fn mapped_prefix_len(net: IpNet) -> u32 {
    u32::from(net.prefix_len()) + if net.addr().is_ipv4() { 96 } else { 0 }
}

fn prefix_mask(bits: u32) -> types::ip_addr {
    types::ip_addr { word: words(u128::MAX.checked_shl(128 - bits).unwrap_or(0).to_be_bytes()) }
}

fn vni_bytes(vni: u32) -> [u8; 3] {
    let [_, a, b, c] = vni.to_be_bytes();
    [a, b, c]
}

fn vlan_tag(vlan: u16) -> [u8; 4] {
    let [hi, lo] = vlan.to_be_bytes();
    [0x81, 0x00, hi, lo]
}

fn validation(validation: SourceValidation) -> u8 {
    use types::source_validation as v;
    (match validation {
        SourceValidation::Off => v::VALIDATE_OFF.0,
        SourceValidation::Loose => v::VALIDATE_LOOSE.0,
        SourceValidation::Strict => v::VALIDATE_STRICT.0,
        SourceValidation::Feasible => v::VALIDATE_FEASIBLE.0,
    }) as u8
}

fn port(port: &Port, filter_base: usize) -> types::port {
    types::port {
        id: port.id.0 as u16,
        filter: port
            .filter
            .map_or(types::limits::FILTER_NONE.0 as u16, |first| first.saturating_add(filter_base as u16)),
        mac: port.mac.0,
        validation: validation(port.validation),
        vrf: port.vrf.0 as u8,
    }
}

fn clamp(most: MaxMss) -> types::clamp {
    types::clamp { mss4: most.ipv4.unwrap_or(0), mss6: most.ipv6.unwrap_or(0) }
}

fn filter_next(next: FilterNext, base: usize) -> u16 {
    match next {
        FilterNext::Op(index) => index.saturating_add(base as u16),
        FilterNext::Allow => types::filter_next::FILTER_ALLOW.0 as u16,
        FilterNext::Deny => types::filter_next::FILTER_DENY.0 as u16,
    }
}

fn filter_op(op: &FilterOp, base: usize) -> types::filter_op {
    use types::filter_field as f;
    let number = |n: u32| types::ip_addr { word: [n, 0, 0, 0] };
    let net = |n: IpNet| (ip_addr(n.network()), prefix_mask(mapped_prefix_len(n)));
    let range = |first: u16, last: u16| (types::ip_addr { word: [first.into(), last.into(), 0, 0] }, number(0));
    let (field, (value, mask)) = match op.test {
        FilterTest::Source(n @ IpNet::V4(_)) => (f::FILTER_SRC4, net(n)),
        FilterTest::Source(n @ IpNet::V6(_)) => (f::FILTER_SRC6, net(n)),
        FilterTest::Destination(n @ IpNet::V4(_)) => (f::FILTER_DST4, net(n)),
        FilterTest::Destination(n @ IpNet::V6(_)) => (f::FILTER_DST6, net(n)),
        FilterTest::SourcePort(first, last) => (f::FILTER_SPORT, range(first, last)),
        FilterTest::DestinationPort(first, last) => (f::FILTER_DPORT, range(first, last)),
        FilterTest::Protocol(p) => (f::FILTER_PROTO, (number(p.into()), number(0))),
        FilterTest::IpVersion(v) => (f::FILTER_IP_VERSION, (number(v.into()), number(0))),
        FilterTest::Icmp { kind, code } => (
            f::FILTER_ICMP,
            (
                number(u32::from(kind) << 8 | u32::from(code.unwrap_or(0))),
                number(if code.is_some() { 0xffff } else { 0xff00 }),
            ),
        ),
    };
    types::filter_op {
        value,
        mask,
        field: field.0 as u16,
        on_match: filter_next(op.on_match, base),
        on_miss: filter_next(op.on_miss, base),
        on_absent: filter_next(op.on_absent, base),
    }
}

/// Marks the first bucket of a group whose buckets are all the same.
const SINGLE: u32 = types::group_flags::GROUP_SINGLE.0;

fn group(group: &Group) -> types::group {
    let mut bucket = [0; 64];
    for (to, id) in bucket.iter_mut().zip(&group.buckets) {
        *to = id.0;
    }
    if let [first, rest @ ..] = &mut bucket
        && rest.iter().all(|id| id == first)
    {
        *first |= SINGLE;
    }
    types::group { bucket }
}

fn next_hop(nh: &NextHop) -> types::next_hop {
    use types::next_hop_kind as k;
    let only = |kind: types::next_hop_kind| types::next_hop { kind: kind.0, ..Default::default() };
    let of_vips = |kind, address| types::next_hop { address: ip_addr(address), ..only(kind) };
    match *nh {
        NextHop::Forward { address, ifindex, adjacency } => types::next_hop {
            kind: k::NH_FORWARD.0,
            adjacency: adjacency.0,
            ifindex: ifindex.0,
            address: ip_addr(address),
        },
        NextHop::Glean { ifindex } => types::next_hop { kind: k::NH_GLEAN.0, ifindex: ifindex.0, ..Default::default() },
        NextHop::Receive { vip: Some(address) } => of_vips(k::NH_RECEIVE, address),
        NextHop::Receive { vip: None } => only(k::NH_RECEIVE),
        NextHop::Host => only(k::NH_HOST),
        NextHop::Vip(prefix) => {
            types::next_hop { adjacency: prefix.prefix_len().into(), ..of_vips(k::NH_VIP, prefix.addr()) }
        }
        NextHop::Blackhole => only(k::NH_BLACKHOLE),
        NextHop::Prohibit => only(k::NH_PROHIBIT),
        NextHop::Unreachable => only(k::NH_UNREACHABLE),
    }
}

fn adjacency(adj: &Adjacency) -> types::adjacency {
    let mut rewrite = [0; 16];
    let tag = adj.vlan.map(vlan_tag);
    let header = adj.destination.unwrap_or_default().0.into_iter().chain(adj.source.0).chain(tag.into_iter().flatten());
    for (to, octet) in rewrite.iter_mut().zip(header) {
        *to = octet;
    }
    types::adjacency {
        ifindex: adj.ifindex.0,
        mtu: adj.mtu.min(u16::MAX.into()) as u16,
        flags: if adj.destination.is_some() { types::adjacency_flags::ADJ_COMPLETE.0 as u8 } else { 0 },
        rewrite_len: if tag.is_some() { 16 } else { 12 },
        rewrite,
    }
}

/// Map entries of `tables`, from `bases` on what has halves, VIPs where they are in `present`.
///
/// # Errors
/// [`Error::Full`] where a table does not fit its map.
pub(super) fn encode(tables: &Tables, bases: Bases, present: &Encoded) -> Result<Encoded, Error> {
    let mut e = Encoded { rings: tables.rings.clone(), ..Default::default() };
    for (key, value) in &tables.ports {
        let value = port(value, bases.filter);
        match key.vlan {
            None => e.put(Table::Ports, &key.ifindex.0, &value),
            Some(vlan) => {
                e.put(Table::VlanPorts, &types::vlan_port_key { ifindex: key.ifindex.0, vlan: vlan.into() }, &value);
            }
        }
    }
    for (port, most) in &tables.clamps_in {
        e.put(Table::ClampsIn, &port.0, &clamp(*most));
    }
    for (device, most) in &tables.clamps_out {
        e.put(Table::ClampsOut, &device.0, &clamp(*most));
    }
    if !tables.filter.is_empty() {
        e.entries.insert(Table::Filter, filter(tables, bases.filter));
    }
    for (peer, inner) in &tables.tunnel_peers {
        e.put(Table::TunnelPeers, &tunnel_peer(peer), &inner_sources(*inner, bases.sources));
        if let TunnelKind::Vxlan { vni } = peer.kind {
            e.put(Table::Vnis, &vni, &1u32);
        }
    }
    if !tables.tunnel_sources.is_empty() {
        e.entries.insert(Table::TunnelSources, sources(tables, bases.sources));
    }
    for (id, row) in vip_addresses(tables) {
        e.put(Table::VipAddresses, &id.0, &row);
    }
    for (id, row) in vip_rows(tables) {
        e.put(Table::Vips, &id.0, &row);
    }
    let buckets = vip_buckets(tables, present.table(Table::VipBuckets))?;
    if !buckets.is_empty() {
        e.entries.insert(Table::VipBuckets, buckets);
    }
    let servers = quic_servers(tables, present.table(Table::QuicServers))?;
    if !servers.is_empty() {
        e.entries.insert(Table::QuicServers, servers);
    }
    for (id, value) in &tables.backends {
        e.put(Table::Backends, &id.0, &backend(value, tables));
    }
    for (id, value) in &tables.checked {
        e.put(Table::Backends, &id.0, &types::backend { vip_id: NO_VIP, ..backend(value, tables) });
    }
    for (id, value) in &tables.groups {
        e.put(Table::Groups, &id.0, &group(value));
    }
    // What is zero reads as nothing at a restart.
    for (id, value) in tables.origins.iter().filter(|(_, value)| **value != Origins::NONE) {
        e.put(Table::Origins, &id.0, &value.0);
    }
    for (id, value) in &tables.next_hops {
        e.put(Table::NextHops, &id.0, &next_hop(value));
    }
    for (id, value) in &tables.adjacencies {
        e.put(Table::Adjacencies, &id.0, &adjacency(value));
    }
    e.check_limits(tables)?;
    Ok(e)
}

/// The entry of a group.
pub(super) fn group_entry(id: GroupId, value: &Group) -> (Vec<u8>, Vec<u8>) {
    (abi::bytes_of(&id.0).to_vec(), abi::bytes_of(&group(value)).to_vec())
}

/// The entries of the policy, written from `filter_base` on.
pub(super) fn filter(tables: &Tables, filter_base: usize) -> Entries {
    let entry = |(index, op): (u32, &FilterOp)| {
        (abi::bytes_of(&index).to_vec(), abi::bytes_of(&filter_op(op, filter_base)).to_vec())
    };
    (filter_base as u32..).zip(&tables.filter).map(entry).collect()
}

// ---- back ----------------------------------------------------------------------------------------------------------

fn mac(octets: &[u8]) -> Mac {
    Mac(octets.try_into().unwrap_or_default())
}

fn vni(bytes: [u8; 3]) -> u32 {
    let [a, b, c] = bytes;
    u32::from_be_bytes([0, a, b, c])
}

fn decode_port(p: &types::port, filter_base: usize) -> Port {
    let filter =
        (u32::from(p.filter) != types::limits::FILTER_NONE.0).then(|| p.filter.saturating_sub(filter_base as u16));
    let known = [SourceValidation::Loose, SourceValidation::Strict, SourceValidation::Feasible];
    let validation = known.into_iter().find(|known| validation(*known) == p.validation).unwrap_or_default();
    Port { id: PortId(p.id.into()), mac: Mac(p.mac), filter, validation, vrf: VrfId(p.vrf.into()) }
}

fn decode_next_hop(nh: &types::next_hop) -> Option<NextHop> {
    use types::next_hop_kind as k;
    let address_of_vips = (nh.address.word != [0; 4]).then(|| address(nh.address.word));
    Some(match nh.kind {
        n if n == k::NH_FORWARD.0 => NextHop::Forward {
            address: address(nh.address.word),
            ifindex: IfIndex(nh.ifindex),
            adjacency: AdjacencyId(nh.adjacency),
        },
        n if n == k::NH_GLEAN.0 => NextHop::Glean { ifindex: IfIndex(nh.ifindex) },
        n if n == k::NH_RECEIVE.0 => NextHop::Receive { vip: address_of_vips },
        n if n == k::NH_HOST.0 => NextHop::Host,
        n if n == k::NH_VIP.0 => NextHop::Vip(IpNet::new(address_of_vips?, nh.adjacency.try_into().ok()?).ok()?),
        n if n == k::NH_BLACKHOLE.0 => NextHop::Blackhole,
        n if n == k::NH_PROHIBIT.0 => NextHop::Prohibit,
        n if n == k::NH_UNREACHABLE.0 => NextHop::Unreachable,
        _ => return None,
    })
}

fn decode_adjacency(a: &types::adjacency) -> Adjacency {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, _, _, v0, v1] = a.rewrite;
    let complete = u32::from(a.flags) & types::adjacency_flags::ADJ_COMPLETE.0 != 0;
    Adjacency {
        ifindex: IfIndex(a.ifindex),
        vlan: (a.rewrite_len == 16).then(|| u16::from_be_bytes([v0, v1])),
        mtu: a.mtu.into(),
        source: mac(&[s0, s1, s2, s3, s4, s5]),
        destination: complete.then(|| mac(&[d0, d1, d2, d3, d4, d5])),
    }
}

/// The half of the filter map that the ports use.
pub(super) fn filter_base(entries: &Encoded) -> usize {
    let ports = entries.table(Table::Ports).values().chain(entries.table(Table::VlanPorts).values());
    let upper = ports
        .filter_map(|bytes| abi::from_bytes::<types::port>(bytes))
        .any(|p| u32::from(p.filter) != types::limits::FILTER_NONE.0 && usize::from(p.filter) >= FILTER_HALF);
    if upper { FILTER_HALF } else { 0 }
}

/// The tables that carry identity — ports, VIPs, rings, backends, groups, next hops, adjacencies — from the entries that a
/// restart found; FIB and denylist are not among them. Policy, tunnels and segment sizes carry no ids: their entries are compared as they stand.
pub(super) fn decode(e: &Encoded) -> Tables {
    fn rows<'a, K: Abi, V: Abi>(e: &'a Encoded, table: Table) -> impl Iterator<Item = (K, V)> + 'a {
        e.table(table).iter().filter_map(|(k, v)| Some((abi::from_bytes(k)?, abi::from_bytes(v)?)))
    }
    let base = filter_base(e);
    let mut t = Tables { rings: e.rings.clone(), ..Default::default() };
    for (ifindex, value) in rows::<u32, types::port>(e, Table::Ports) {
        t.ports.insert(PortKey { ifindex: IfIndex(ifindex), vlan: None }, decode_port(&value, base));
    }
    for (key, value) in rows::<types::vlan_port_key, types::port>(e, Table::VlanPorts) {
        let key = PortKey { ifindex: IfIndex(key.ifindex), vlan: u16::try_from(key.vlan).ok() };
        t.ports.insert(key, decode_port(&value, base));
    }
    // Those that are there for health checks serve nobody: nothing follows from them.
    for (id, value) in rows::<u32, types::backend>(e, Table::Backends).filter(|(_, row)| row.vip_id != NO_VIP) {
        t.backends.insert(BackendId(id), decode_backend(&value));
    }
    for (id, value) in rows::<u32, types::group>(e, Table::Groups) {
        t.groups.insert(GroupId(id), Group { buckets: value.bucket.map(|id| NextHopId(id & !SINGLE)).to_vec() });
    }
    for (id, value) in rows::<u32, u64>(e, Table::Origins) {
        t.origins.insert(GroupId(id), Origins(value));
    }
    for (id, value) in rows::<u32, types::next_hop>(e, Table::NextHops) {
        if let Some(nh) = decode_next_hop(&value) {
            t.next_hops.insert(NextHopId(id), nh);
        }
    }
    t.vips = decode_vips(e);
    for (id, value) in rows::<u32, types::adjacency>(e, Table::Adjacencies) {
        t.adjacencies.insert(AdjacencyId(id), decode_adjacency(&value));
    }
    t
}
