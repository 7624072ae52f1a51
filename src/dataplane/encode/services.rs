//! VIPs, their backends and their rings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::network::Mac;
use model::tables::{
    AdjacencyId, Backend, BackendId, GroupId, NextHop, NextHopId, Outer, RING_SLOTS, Ring, Slot, Tables, VipAddressId,
    VipId, VipKey,
};
use tables::vips::{Bucket, Entry, Vips};

use super::{Encoded, Entries, Table, address, ip_addr, vni, vni_bytes};
use crate::dataplane::abi::{self, types};
use crate::dataplane::error::Error;

/// A ring as the map's value: its slots, and when it changed.
pub(in crate::dataplane) const RING_BYTES: usize = (RING_SLOTS + 1) * size_of::<u32>();

// One layout, two languages.
const _: () = {
    assert!(types::limits::VIP_BUCKETS.0 as usize == tables::vips::BUCKETS);
    assert!(types::limits::VIP_BUCKET_ENTRIES.0 as usize == tables::vips::BUCKET_ENTRIES);
    let last = Entry::new(u16::MAX, 0, 0, 0).0;
    assert!(last == (u16::MAX as u64) << types::vip_entry::VIP_ENTRY_ADDRESS_SHIFT.0);
    let last = Entry::new(0, u16::MAX, 0, 0).0;
    assert!(last == (u16::MAX as u64) << types::vip_entry::VIP_ENTRY_PORT_SHIFT.0);
    assert!(types::limits::VIP_GROUPS.0 == GroupId::LAST.0);
    let last = Entry::new(0, 0, u8::MAX, 0).0;
    assert!(last == (u8::MAX as u64) << types::vip_entry::VIP_ENTRY_PROTOCOL_SHIFT.0);
};

/// The table of VIPs that these entries are.
fn vips_of(entries: &Entries) -> Vips {
    let bucket = |(key, value): (&Vec<u8>, &Vec<u8>)| {
        let index: u32 = abi::from_bytes(key)?;
        Some((index as usize, abi::from_bytes::<types::vip_bucket>(value)?.entry))
    };
    Vips::adopt(entries.iter().filter_map(bucket))
}

/// The VIPs in a table's entries.
pub(in crate::dataplane) fn vip_ids(entries: &Entries) -> impl Iterator<Item = VipId> {
    vips_of(entries).entries().map(|entry| VipId(entry.vip())).collect::<BTreeSet<VipId>>().into_iter()
}

/// Entries of the table of VIPs: what `present` has stays where it is.
pub(super) fn vips(tables: &Tables, present: &Entries) -> Result<Entries, Error> {
    let numbers: BTreeMap<IpAddr, VipAddressId> = tables.vip_addresses().map(|(id, address)| (address, id)).collect();
    let entry = |(key, vip): (&VipKey, &VipId)| {
        let address = numbers.get(&key.address)?;
        Some((key.address, Entry::new(address.0 as u16, key.port, key.protocol, vip.0)))
    };
    let vips = vips_of(present).with(tables.vips.iter().filter_map(entry));
    let limit = Table::Vips.limit() * tables::vips::BUCKET_ENTRIES;
    let vips = vips.map_err(|_| Error::Full { table: Table::Vips.map(), wanted: tables.vips.len(), limit })?;
    let bytes = |(index, bucket): (usize, &Bucket)| {
        let value = types::vip_bucket { entry: *bucket };
        (abi::bytes_of(&(index as u32)).to_vec(), abi::bytes_of(&value).to_vec())
    };
    Ok(vips.buckets().map(bytes).collect())
}

/// The next hop and the adjacency of a group that has no other.
fn only_way(id: GroupId, tables: &Tables) -> Option<(NextHopId, AdjacencyId)> {
    let [first, rest @ ..] = tables.groups.get(&id)?.buckets.as_slice() else { return None };
    match tables.next_hops.get(first)? {
        NextHop::Forward { adjacency, .. } if rest.iter().all(|id| id == first) => Some((*first, *adjacency)),
        _ => None,
    }
}

/// The row of a backend.
pub(super) fn backend(backend: &Backend, tables: &Tables) -> types::backend {
    use types::outer_kind as k;
    let (next_hop, adjacency) = only_way(backend.group, tables).unwrap_or_default();
    let base = types::backend {
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
            outer_ipv6: destination.is_ipv6().into(),
            source: ip_addr(source),
            destination: ip_addr(destination),
            ..base
        },
        Outer::Vxlan { source, destination, vni, inner_source, inner_destination } => types::backend {
            outer_kind: k::OUTER_VXLAN.0 as u8,
            outer_ipv6: destination.is_ipv6().into(),
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
    }
}

/// The VIPs of a table whose addresses are known by their numbers.
pub(super) fn decode_vips(e: &Encoded, t: &Tables) -> BTreeMap<VipKey, VipId> {
    let addresses: BTreeMap<VipAddressId, IpAddr> = t.vip_addresses().collect();
    let vip = |entry: Entry| {
        let address = *addresses.get(&VipAddressId(entry.address().into()))?;
        Some((VipKey { address, port: entry.port(), protocol: entry.protocol() }, VipId(entry.vip())))
    };
    vips_of(e.table(Table::Vips)).entries().filter_map(vip).collect()
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
