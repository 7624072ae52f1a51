//! VIPs, their backends and their rings.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use model::desired::protocol;
use model::network::Mac;
use model::quic::{Lengths, ServerId};
use model::tables::{
    AdjacencyId, Backend, BackendId, GroupId, NextHop, NextHopId, Outer, RING_SLOTS, Ring, Slot, Tables, VipAddressId,
    VipId, VipKey,
};
use tables::dleft;
use tables::quic::{self, Servers};
use tables::vips::{self, Key, Vips};

use super::{Encoded, Entries, Table, address, ip_addr, vni, vni_bytes};
use crate::dataplane::abi::{self, types};
use crate::dataplane::error::Error;

/// A ring as the map's value: its slots, and when it changed.
pub(in crate::dataplane) const RING_BYTES: usize = (RING_SLOTS + 1) * size_of::<u32>();

// One layout, two languages.
const _: () = {
    assert!(types::limits::BUCKET_ENTRIES.0 as usize == dleft::BUCKET_ENTRIES);
    assert!(1 << types::limits::VIP_BUCKET_BITS.0 == Vips::BUCKETS);
    assert!(1 << types::limits::QUIC_BUCKET_BITS.0 == Servers::BUCKETS);
    assert!(types::bucket_value::BUCKET_VIP_BITS.0 == Vips::VALUE_BITS);
    assert!(types::bucket_value::BUCKET_SERVER_BITS.0 == Servers::VALUE_BITS);
    assert!(types::limits::VIP_GROUPS.0 == GroupId::LAST.0);
};

const OUTER_IPV6: u8 = types::backend_flags::BACKEND_OUTER_IPV6.0 as u8;
const DRAINS: u8 = types::backend_flags::BACKEND_DRAINS.0 as u8;

/// Beside the family in the row of a VIP.
const PREFIX: u8 = types::vip_family::VIP_PREFIX.0 as u8;

type Numbers = BTreeMap<IpNet, VipAddressId>;

fn numbers(tables: &Tables) -> Numbers {
    tables.vip_addresses().map(|(id, prefix)| (prefix, id)).collect()
}

fn is_one(prefix: IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

/// The number of a VIP's prefix; 0 where it is one address, which packets are compared with.
fn number_of_prefix(key: &VipKey, numbers: &Numbers) -> u16 {
    let number = numbers.get(&key.prefix).filter(|_| !is_one(key.prefix));
    number.map_or(0, |number| number.0 as u16)
}

/// Lengths of server IDs, four bits each.
fn quic(lengths: Option<&Lengths>) -> u32 {
    let lengths = lengths.into_iter().flatten().rev();
    lengths.fold(0, |word, length| word << 4 | u32::from(length & 0xf))
}

/// A time-out as the program counts, of ticks of 4.3 s, not less than it is.
fn affinity(stays: Option<&Duration>) -> u16 {
    let ticks = |stays: &Duration| (stays.as_nanos() >> types::flow_entry::FLOW_SEEN_SHIFT.0) + 2;
    stays.map_or(0, |stays| u16::try_from(ticks(stays)).unwrap_or(u16::MAX))
}

/// What each VIP answers to.
pub(super) fn vip_rows(tables: &Tables) -> impl Iterator<Item = (VipId, types::vip)> {
    let numbers = numbers(tables);
    let row = move |key: &VipKey, id: &VipId| types::vip {
        quic: quic(tables.quic.get(id)),
        affinity: affinity(tables.affinity.get(id)),
        address: ip_addr(key.prefix.addr()),
        port: key.port.unwrap_or(0).to_be(),
        proto: key.protocol.unwrap_or(0),
        family: u8::from(key.prefix.addr().is_ipv6()) | if is_one(key.prefix) { 0 } else { PREFIX },
        prefix_len: key.prefix.prefix_len(),
        number: number_of_prefix(key, &numbers),
        ..Default::default()
    };
    tables.vips.iter().map(move |(key, id)| (*id, row(key, id)))
}

/// What no bucket says of addresses and prefixes: rows that are not all zero.
pub(super) fn vip_addresses(tables: &Tables) -> BTreeMap<VipAddressId, types::vip_address> {
    let numbers = numbers(tables);
    let mut rows: BTreeMap<VipAddressId, types::vip_address> = BTreeMap::new();
    for (key, vip) in &tables.vips {
        let Some(number) = numbers.get(&key.prefix) else { continue };
        if key.port.is_some() && is_one(key.prefix) {
            continue;
        }
        let row = rows.entry(*number).or_default();
        row.prefix = u32::from(!is_one(key.prefix));
        match (key.port, key.protocol) {
            (Some(_), _) => {}
            (None, None) => row.any = vip.0,
            (None, Some(protocol::TCP)) => row.tcp = vip.0,
            (None, Some(protocol::UDP)) => row.udp = vip.0,
            (None, Some(_)) => row.sctp = vip.0,
        }
    }
    rows
}

/// Entries of the buckets that VIPs are found by: what `present` has stays where it is.
pub(super) fn vip_buckets(tables: &Tables, present: &Entries) -> Result<Entries, Error> {
    let numbers = numbers(tables);
    let vip = |(key, id): (&VipKey, &VipId)| {
        let address = match number_of_prefix(key, &numbers) {
            0 => key.prefix.addr(),
            number => vips::prefix(number),
        };
        Some((Key { address, port: key.port?, protocol: key.protocol? }.hash(), id.0.into()))
    };
    let vips = Vips::adopt(buckets(present)).with(tables.vips.iter().filter_map(vip));
    let (table, wanted, limit) = (Table::VipBuckets.map(), tables.vips.len(), Vips::ENTRIES);
    Ok(vips.map_err(|dleft::Full| Error::Full { table, wanted, limit })?.buckets().map(entry).collect())
}

/// Entries of the table of QUIC servers: what `present` has stays where it is.
pub(super) fn quic_servers(tables: &Tables, present: &Entries) -> Result<Entries, Error> {
    let server = |((vip, id), backend): (&(VipId, ServerId), &BackendId)| {
        (quic::hash(vip.0, id.length(), id.padded()), backend.0.into())
    };
    let servers = Servers::adopt(buckets(present)).with(tables.quic_servers.iter().map(server));
    let (table, wanted, limit) = (Table::QuicServers.map(), tables.quic_servers.len(), quic::SERVERS_MAX);
    Ok(servers.map_err(|dleft::Full| Error::Full { table, wanted, limit })?.buckets().map(entry).collect())
}

/// The buckets of a map, by their index.
fn buckets(present: &Entries) -> impl Iterator<Item = (usize, dleft::Bucket)> {
    present.iter().filter_map(|(key, value)| {
        let index: u32 = abi::from_bytes(key)?;
        Some((index as usize, abi::from_bytes::<types::hash_bucket>(value)?.entry))
    })
}

/// A bucket as an entry of its map.
fn entry((index, bucket): (usize, &dleft::Bucket)) -> (Vec<u8>, Vec<u8>) {
    let value = types::hash_bucket { entry: *bucket };
    (abi::bytes_of(&(index as u32)).to_vec(), abi::bytes_of(&value).to_vec())
}

/// The next hop and the adjacency of a group that has no other.
fn only_way(id: GroupId, tables: &Tables) -> Option<(NextHopId, AdjacencyId)> {
    let [first, rest @ ..] = tables.groups.get(&id)?.buckets.as_slice() else { return None };
    match tables.next_hops.get(first)? {
        NextHop::Forward { adjacency, .. } if rest.iter().all(|id| id == first) => Some((*first, *adjacency)),
        _ => None,
    }
}

/// Of a row that packets do not find: none is for this VIP.
pub(super) const NO_VIP: u32 = 0;

/// True for the row of a backend that packets find.
pub(in crate::dataplane) fn serves(row: &[u8]) -> bool {
    abi::from_bytes::<types::backend>(row).is_some_and(|row| row.vip_id != NO_VIP)
}

/// The row of a backend.
pub(super) fn backend(backend: &Backend, tables: &Tables) -> types::backend {
    use types::outer_kind as k;
    let (next_hop, adjacency) = only_way(backend.group, tables).unwrap_or_default();
    let flags = if backend.draining { DRAINS } else { 0 };
    let base = types::backend {
        flags,
        next_hop: next_hop.0 as u16,
        adjacency: adjacency.0 as u16,
        vip_id: backend.vip.0,
        group: backend.group.0,
        inner_mtu: backend.inner_mtu.min(u16::MAX.into()) as u16,
        destination: ip_addr(backend.address),
        ..Default::default()
    };
    match backend.outer {
        Outer::None => types::backend { outer_kind: k::OUTER_NONE.0 as u8, ..base },
        Outer::Ipip { source, destination, .. } | Outer::Gue { source, destination } => types::backend {
            outer_kind: if matches!(backend.outer, Outer::Gue { .. }) { k::OUTER_GUE } else { k::OUTER_IPIP }.0 as u8,
            varied: if let Outer::Ipip { varied, .. } = backend.outer { varied } else { 0 },
            flags: flags | if destination.is_ipv6() { OUTER_IPV6 } else { 0 },
            source: ip_addr(source),
            destination: ip_addr(destination),
            ..base
        },
        Outer::Vxlan { source, destination, vni, inner_source, inner_destination } => types::backend {
            outer_kind: k::OUTER_VXLAN.0 as u8,
            flags: flags | if destination.is_ipv6() { OUTER_IPV6 } else { 0 },
            source: ip_addr(source),
            destination: ip_addr(destination),
            vni: vni_bytes(vni),
            inner_source: inner_source.0,
            inner_destination: inner_destination.0,
            ..base
        },
    }
}

/// The backend of a row.
pub(super) fn decode_backend(b: &types::backend) -> Backend {
    let destination = address(b.destination.word);
    let outer = match u32::from(b.outer_kind) {
        k if k == types::outer_kind::OUTER_IPIP.0 => {
            Outer::Ipip { source: address(b.source.word), destination, varied: b.varied }
        }
        k if k == types::outer_kind::OUTER_GUE.0 => Outer::Gue { source: address(b.source.word), destination },
        k if k == types::outer_kind::OUTER_VXLAN.0 => Outer::Vxlan {
            source: address(b.source.word),
            destination,
            vni: vni(b.vni),
            inner_source: Mac(b.inner_source),
            inner_destination: Mac(b.inner_destination),
        },
        _ => Outer::None,
    };
    Backend {
        vip: VipId(b.vip_id),
        address: destination,
        outer,
        group: GroupId(b.group),
        inner_mtu: b.inner_mtu.into(),
        draining: b.flags & DRAINS != 0,
    }
}

/// The VIPs of a table.
pub(super) fn decode_vips(e: &Encoded) -> BTreeMap<VipKey, VipId> {
    let vip = |(id, row): (&Vec<u8>, &Vec<u8>)| {
        let row: types::vip = abi::from_bytes(row)?;
        let prefix = IpNet::new(address(row.address.word), row.prefix_len).ok()?;
        let port = Some(u16::from_be(row.port)).filter(|port| *port != 0);
        let protocol = Some(row.proto).filter(|protocol| *protocol != 0);
        Some((VipKey { prefix, port, protocol }, VipId(abi::from_bytes(id)?)))
    };
    e.table(Table::Vips).iter().filter_map(vip).collect()
}

/// A moment as rings are stamped by it, `now_ns` since boot.
pub(in crate::dataplane) fn stamp(now_ns: u64) -> u32 {
    (now_ns >> types::flow_entry::FLOW_SEEN_SHIFT.0) as u32
}

/// A ring as the map's value, which has changed at this moment.
pub(in crate::dataplane) fn ring(ring: &Ring, changed: u32) -> Vec<u8> {
    let word = |slot: &Slot| {
        let changed = u32::from(slot.has_changed()) << types::ring_slot::RING_CHANGED_SHIFT.0;
        slot.now().0 | slot.before().0 << types::ring_slot::RING_BEFORE_SHIFT.0 | changed
    };
    ring.iter().map(word).chain([changed]).flat_map(u32::to_ne_bytes).collect()
}

/// The ring that a value is, and when it has changed.
pub(in crate::dataplane) fn decode_ring(value: &[u8]) -> Option<(Ring, u32)> {
    let mask = types::ring_slot::RING_BACKEND_MASK.0;
    let slot = |bytes: &[u8]| {
        let word = u32::from_ne_bytes(bytes.try_into().unwrap_or_default());
        let (now, before) = (BackendId(word & mask), BackendId(word >> types::ring_slot::RING_BEFORE_SHIFT.0 & mask));
        if word >> types::ring_slot::RING_CHANGED_SHIFT.0 == 1 { Slot::changed(now, before) } else { now.into() }
    };
    let slots: Ring = value.chunks_exact(4).take(RING_SLOTS).map(slot).collect();
    let changed = u32::from_ne_bytes(value.get(RING_SLOTS * size_of::<u32>()..)?.try_into().ok()?);
    (slots.len() == RING_SLOTS).then_some((slots, changed))
}
