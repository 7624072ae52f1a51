//! Making the kernel's maps equal to the tables, by difference.
//!
//! What is referred to is written before what refers to it, and deleted after: a packet never meets a reference to an
//! entry that is not there yet. A policy is written into the half of the filter map that no port uses and comes into
//! force by one store a port; a ring is built whole and swapped in.

use std::collections::BTreeMap;

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};
use model::compile::Changed;
use model::tables::{Group, GroupId, RING_SLOTS, Ring, Slot, VipId};

use super::abi;
use super::counters;
use super::encode::{self, Bases, Encoded, Entries, FILTER_HALF, SOURCES_HALF, Table};
use super::error::Error;
use super::fib::{Fibs, Outgrown, Prefixes, Wanted};
use super::object::SharedMaps;

/// Entries that a batch of reads takes at once.
const BATCH: u32 = 4096;

fn failed(map: &'static str, operation: &'static str) -> impl Fn(libbpf_rs::Error) -> Error {
    move |source| Error::Map { map, operation, source }
}

/// What the maps hold, as this process has written or found it.
#[derive(Debug)]
pub(super) struct Kernel {
    state: Encoded,
    /// When each ring has changed, as it is stamped.
    changed: BTreeMap<VipId, u32>,
    fibs: Fibs,
}

/// Why the maps do not hold what is wanted yet.
#[derive(Debug)]
pub(super) enum Failure {
    /// A FIB needs a larger map; whoever has given it one tries again.
    Outgrown(Outgrown),
    Error(Error),
}

impl Failure {
    /// As an error, where nobody gives it more room.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Error(error) => error,
            Self::Outgrown(outgrown) => outgrown.into_error(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Outgrown> for Failure {
    fn from(outgrown: Outgrown) -> Self {
        Self::Outgrown(outgrown)
    }
}

impl Kernel {
    /// New maps, which hold nothing.
    pub(super) fn new(maps: &SharedMaps) -> Result<Self, Error> {
        Ok(Self { state: Encoded::default(), changed: BTreeMap::new(), fibs: Self::open_fibs(maps)? })
    }

    fn open_fibs(maps: &SharedMaps) -> Result<Fibs, Error> {
        Fibs::open(|name| maps.get(name))
    }

    /// Reads back what an earlier process left in pinned maps.
    pub(super) fn read(maps: &SharedMaps) -> Result<Self, Error> {
        let mut state = Encoded::default();
        for table in Table::ORDER {
            let map = maps.get(table.map())?;
            let entries = if table.is_array() { read_array(map, table)? } else { read_keys(map, table)? };
            state.entries.insert(table, entries);
        }
        let rings = read_rings(maps, state.table(Table::Vips))?;
        let changed = rings.iter().map(|(vip, (_, changed))| (*vip, *changed)).collect();
        state.rings = rings.into_iter().map(|(vip, (ring, _))| (vip, ring)).collect();
        Ok(Self { state, changed, fibs: Self::open_fibs(maps)? })
    }

    /// The entries in force.
    pub(super) fn state(&self) -> &Encoded {
        &self.state
    }

    /// Where the next policy and inner sources are written: in place while they do not change, else the half that is not in force.
    pub(super) fn bases_for(&self, tables: &model::tables::Tables) -> Bases {
        let (filter, sources) = (encode::filter_base(&self.state), encode::sources_base(&self.state));
        let same_filter = encode::filter(tables, filter) == *self.state.table(Table::Filter);
        let same_sources = encode::sources(tables, sources) == *self.state.table(Table::TunnelSources);
        Bases {
            filter: if same_filter { filter } else { FILTER_HALF - filter },
            sources: if same_sources { sources } else { SOURCES_HALF - sources },
        }
    }

    /// The FIB of both families.
    pub(super) fn fibs(&self) -> &Fibs {
        &self.fibs
    }

    /// The same, to be given a larger map.
    pub(super) fn fibs_mut(&mut self) -> &mut Fibs {
        &mut self.fibs
    }

    /// Writes what is new in `desired`, in what is denied, in the VRFs and, where they have changed, in the routes, and adds the number of writes to `writes`. What
    /// is not wanted any more stays until [`clear`](Self::clear). After a failure the next call goes on from there.
    pub(super) fn write(
        &mut self,
        maps: &SharedMaps,
        desired: &Encoded,
        (wanted, changed): (Prefixes<'_>, &Changed),
        writes: &mut usize,
    ) -> Result<(), Failure> {
        for table in Table::ORDER {
            if table == Table::Vips {
                *writes += self.apply_rings(maps, desired)?;
            }
            *writes += self.write_new(maps, table, desired)?;
            if table == Table::Groups {
                *writes += self.fibs.write(wanted.routes, changed)?;
                *writes += self.fibs.write_vrfs(wanted.vrfs)?;
                *writes += self.fibs.deny(wanted.denylist)?;
            }
        }
        Ok(())
    }

    /// Deletes what is not wanted any more, when every program in force looks at what was written.
    pub(super) fn clear(
        &mut self,
        maps: &SharedMaps,
        desired: &Encoded,
        (wanted, changed): (Prefixes<'_>, &Changed),
        writes: &mut usize,
    ) -> Result<(), Failure> {
        for table in Table::ORDER.into_iter().rev() {
            if table == Table::Groups {
                *writes += self.fibs.deny_only(wanted.denylist)?;
                *writes += self.fibs.take_away_from_vrfs(wanted.vrfs)?;
                *writes += self.fibs.take_away(wanted.routes, changed)?;
            }
            *writes += self.delete_old(maps, table, desired)?;
        }
        *writes += self.retire_backends(maps, desired)?;
        *writes += self.delete_rings(maps, desired)?;
        Ok(())
    }

    /// Writes these groups, and nothing else.
    pub(super) fn write_groups<'a>(
        &mut self,
        maps: &SharedMaps,
        groups: impl Iterator<Item = (GroupId, &'a Group)>,
    ) -> Result<usize, Error> {
        let map = maps.get(Table::Groups.map())?;
        let current = self.state.entries.entry(Table::Groups).or_default();
        let mut writes = 0;
        for (id, group) in groups {
            let (key, value) = encode::group_entry(id, group);
            map.update(&key, &value, MapFlags::ANY).map_err(failed(Table::Groups.map(), "update"))?;
            current.insert(key, value);
            writes += 1;
        }
        Ok(writes)
    }

    /// Writes what of the FIB has changed, and nothing else.
    pub(super) fn apply_routes(
        &mut self,
        (fib, changed): (&Wanted, &Changed),
        writes: &mut usize,
    ) -> Result<(), Outgrown> {
        *writes += self.fibs.write(fib, changed)?;
        *writes += self.fibs.take_away(fib, changed)?;
        Ok(())
    }

    fn write_new(&mut self, maps: &SharedMaps, table: Table, desired: &Encoded) -> Result<usize, Error> {
        let map = maps.get(table.map())?;
        let current = self.state.entries.entry(table).or_default();
        let mut writes = 0;
        for (key, value) in desired.table(table) {
            if current.get(key) == Some(value) || retires(table, current.get(key), value) {
                continue;
            }
            map.update(key, value, MapFlags::ANY).map_err(failed(table.map(), "update"))?;
            current.insert(key.clone(), value.clone());
            writes += 1;
        }
        Ok(writes)
    }

    fn delete_old(&mut self, maps: &SharedMaps, table: Table, desired: &Encoded) -> Result<usize, Error> {
        let map = maps.get(table.map())?;
        let wanted = desired.table(table);
        let current = self.state.entries.entry(table).or_default();
        let stale: Vec<_> = current.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        for key in &stale {
            if table.is_array() {
                let zero = vec![0; map.value_size() as usize];
                map.update(key, &zero, MapFlags::ANY).map_err(failed(table.map(), "clear"))?;
            } else {
                map.delete(key).map_err(failed(table.map(), "delete"))?;
            }
            if let Some(counters) = table.counters() {
                counters::reset(maps, counters, key)?;
            }
            current.remove(key);
        }
        Ok(stale.len())
    }

    /// Has rows that packets find be for checks alone: deletes, as far as packets are concerned.
    fn retire_backends(&mut self, maps: &SharedMaps, desired: &Encoded) -> Result<usize, Error> {
        let (table, counters) = (Table::Backends, Table::Backends.counters());
        let map = maps.get(table.map())?;
        let current = self.state.entries.entry(table).or_default();
        let mut writes = 0;
        for (key, value) in desired.table(table) {
            if !retires(table, current.get(key), value) {
                continue;
            }
            map.update(key, value, MapFlags::ANY).map_err(failed(table.map(), "update"))?;
            counters.map_or(Ok(()), |counters| counters::reset(maps, counters, key))?;
            current.insert(key.clone(), value.clone());
            writes += 1;
        }
        Ok(writes)
    }

    fn apply_rings(&mut self, maps: &SharedMaps, desired: &Encoded) -> Result<usize, Error> {
        let rings = maps.get("rings")?;
        let mut writes = 0;
        for (id, ring) in &desired.rings {
            if self.state.rings.get(id) == Some(ring) {
                continue;
            }
            let former = self.state.rings.get(id).zip(self.changed.get(id));
            let changed = match former {
                Some((former, changed)) if only_cleared(former, ring) => *changed,
                _ => encode::stamp(super::since_boot_ns()),
            };
            let inner = new_ring(ring, changed)?;
            let fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&inner));
            rings.update(&id.0.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY).map_err(failed("rings", "update"))?;
            self.state.rings.insert(*id, ring.clone());
            self.changed.insert(*id, changed);
            writes += 1;
        }
        Ok(writes)
    }

    fn delete_rings(&mut self, maps: &SharedMaps, desired: &Encoded) -> Result<usize, Error> {
        let rings = maps.get("rings")?;
        let stale: Vec<VipId> = self.state.rings.keys().filter(|id| !desired.rings.contains_key(id)).copied().collect();
        for id in &stale {
            rings.delete(&id.0.to_ne_bytes()).map_err(failed("rings", "delete"))?;
            self.state.rings.remove(id);
            self.changed.remove(id);
        }
        Ok(stale.len())
    }
}

/// True where packets find what is there, and not what it becomes.
fn retires(table: Table, present: Option<&Vec<u8>>, wanted: &[u8]) -> bool {
    table == Table::Backends && present.is_some_and(|row| encode::serves(row)) && !encode::serves(wanted)
}

fn read_array(map: &MapHandle, table: Table) -> Result<Entries, Error> {
    let batch = map
        .lookup_batch(BATCH.min(map.max_entries()), MapFlags::ANY, MapFlags::ANY)
        .map_err(failed(table.map(), "read"))?;
    Ok(batch.filter(|(_, value)| value.iter().any(|byte| *byte != 0)).collect())
}

fn read_keys(map: &MapHandle, table: Table) -> Result<Entries, Error> {
    let mut entries = Entries::new();
    for key in map.keys() {
        if let Some(value) = map.lookup(&key, MapFlags::ANY).map_err(failed(table.map(), "read"))? {
            entries.insert(key, value);
        }
    }
    Ok(entries)
}

/// Slots have lost their marks, and nothing else is different: for datagrams of flows that are not known nothing begins anew.
fn only_cleared(former: &Ring, ring: &Ring) -> bool {
    let same = |(former, slot): (&Slot, &Slot)| former == slot || (former.now() == slot.now() && !slot.has_changed());
    former.iter().zip(ring.iter()).all(same)
}

fn read_rings(maps: &SharedMaps, vips: &Entries) -> Result<BTreeMap<VipId, (Ring, u32)>, Error> {
    let rings = maps.get("rings")?;
    let mut found = BTreeMap::new();
    for id in vips.keys().filter_map(|key| abi::from_bytes(key).map(VipId)) {
        let Some(inner) = rings.lookup(&id.0.to_ne_bytes(), MapFlags::ANY).map_err(failed("rings", "read"))? else {
            continue;
        };
        let inner = abi::from_bytes::<u32>(&inner).ok_or(Error::Layout("rings"))?;
        let ring = MapHandle::from_map_id(inner).map_err(failed("rings", "open"))?;
        let value = ring.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).map_err(failed("ring", "read"))?;
        let ring = value.as_deref().and_then(encode::decode_ring).ok_or(Error::Layout("ring"))?;
        found.insert(id, ring);
    }
    Ok(found)
}

fn new_ring(ring: &Ring, changed: u32) -> Result<MapHandle, Error> {
    if ring.len() != RING_SLOTS {
        return Err(Error::Layout("ring"));
    }
    let opts = libbpf_rs::libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as libbpf_rs::libbpf_sys::size_t,
        ..Default::default()
    };
    let value = encode::ring(ring, changed);
    let bytes = value.len() as u32;
    let map = MapHandle::create(MapType::Array, Some("ring"), 4, bytes, 1, &opts).map_err(failed("ring", "create"))?;
    map.update(&0u32.to_ne_bytes(), &value, MapFlags::ANY).map_err(failed("ring", "fill"))?;
    Ok(map)
}

#[cfg(test)]
mod tests {
    use model::tables::BackendId;

    use super::*;

    #[test]
    fn marks_that_go_are_no_change() {
        let changed = |now, before| Slot::changed(BackendId(now), BackendId(before));
        let slot = |now| Slot::from(BackendId(now));
        let former: Ring = [changed(1, 2), changed(2, 1), slot(3)].into();
        assert!(only_cleared(&former, &former));
        assert!(only_cleared(&former, &[slot(1), changed(2, 1), slot(3)].into()));
        for other in [[slot(2), changed(2, 1), slot(3)], [changed(1, 2), changed(2, 1), changed(3, 1)]] {
            assert!(!only_cleared(&former, &other.into()));
        }
    }
}
