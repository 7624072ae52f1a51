//! Counters of ports, backends and next hops, per CPU in the kernel, summed here.

use std::collections::BTreeMap;

use libbpf_rs::{MapCore, MapFlags};
use model::tables::{BackendId, NextHopId, PortId};
use model::verdict::{DropReason, PuntReason};
use serde::{Deserialize, Serialize};

use super::abi::{self, types};
use super::error::Error;
use super::object::SharedMaps;

/// Packets and bytes of the frames as they came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

/// What became of the packets of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCounters {
    /// Came in.
    pub rx: Count,
    /// Handed to the host's stack.
    pub pass: Count,
    /// Sent by the interface they came in by.
    pub tx: Count,
    /// Sent by another interface.
    pub redirect: Count,
    /// Handed to the slow path, by name of the reason; reasons that never occurred are left out.
    pub punt: BTreeMap<String, Count>,
    /// Dropped, likewise.
    pub drop: BTreeMap<String, Count>,
}

impl PortCounters {
    /// Everything but `rx`, summed; equal to `rx` whenever no packet is under way.
    pub fn accounted(&self) -> Count {
        let mut sum = Count::default();
        for count in [self.pass, self.tx, self.redirect].iter().chain(self.punt.values()).chain(self.drop.values()) {
            sum += *count;
        }
        sum
    }

    fn from_abi(counters: &[Count]) -> Option<Self> {
        let at = |index: u32| counters.get(index as usize).copied();
        let named = |base: u32, names: Vec<&'static str>| {
            (base..)
                .zip(names)
                .filter_map(|(index, name)| Some((name.to_owned(), at(index)?)))
                .filter(|(_, count)| *count != Count::default())
                .collect()
        };
        use types::counter as c;
        Some(Self {
            rx: at(c::COUNTER_RX.0)?,
            pass: at(c::COUNTER_PASS.0)?,
            tx: at(c::COUNTER_TX.0)?,
            redirect: at(c::COUNTER_REDIRECT.0)?,
            punt: named(c::COUNTER_PUNT.0, PuntReason::ALL.iter().map(|r| r.name()).collect()),
            drop: named(c::COUNTER_DROP.0, DropReason::ALL.iter().map(|r| r.name()).collect()),
        })
    }
}

fn summed(map: &impl MapCore, name: &'static str, index: u32) -> Result<Vec<Count>, Error> {
    let per_cpu = map
        .lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY)
        .map_err(|source| Error::Map { map: name, operation: "read", source })?
        .unwrap_or_default();
    let width = size_of::<types::pkt_count>();
    let mut sums: Vec<Count> = Vec::new();
    for cpu in per_cpu {
        for (index, bytes) in cpu.chunks_exact(width).enumerate() {
            let c: types::pkt_count = abi::from_bytes(bytes).ok_or(Error::Layout(name))?;
            let count = Count { packets: c.packets, bytes: c.bytes };
            match sums.get_mut(index) {
                Some(sum) => *sum += count,
                None => sums.push(count),
            }
        }
    }
    Ok(sums)
}

/// The counters of one port.
pub(super) fn port(maps: &SharedMaps, id: PortId) -> Result<PortCounters, Error> {
    PortCounters::from_abi(&summed(maps.get("counters")?, "counters", id.0)?).ok_or(Error::Layout("counters"))
}

/// The counter of one backend.
pub(super) fn backend(maps: &SharedMaps, id: BackendId) -> Result<Count, Error> {
    Ok(summed(maps.get("backend_counters")?, "backend_counters", id.0)?.first().copied().unwrap_or_default())
}

/// The counter of one next hop.
pub(super) fn next_hop(maps: &SharedMaps, id: NextHopId) -> Result<Count, Error> {
    Ok(summed(maps.get("next_hop_counters")?, "next_hop_counters", id.0)?.first().copied().unwrap_or_default())
}

/// Begins anew, for an index of the array `name` that is going to mean something else.
pub(super) fn reset(maps: &SharedMaps, name: &'static str, key: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::Map { map: name, operation: "clear", source };
    let zero = vec![vec![0; size_of::<types::pkt_count>()]; libbpf_rs::num_possible_cpus().map_err(failed)?];
    maps.get(name)?.update_percpu(key, &zero, MapFlags::ANY).map_err(failed)
}
