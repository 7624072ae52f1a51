//! Tables of prefixes in their maps, the FIB and what is denied: written by plain stores, grown by replacement, freed memory used again
//! only when no program can be in it any more.

use std::collections::BTreeMap;

use libbpf_rs::{MapCore as _, MapHandle, MapType};
use model::compile::Changed;
use model::denylist::Denylist;
use model::tables::{GroupId, VrfId};
use tables::fib::{BLOCK_REACH, Depth, Family, Fib, Full, Ip4, Ip4Dense, Ip6, LINE, ROOT_BITS, Retired, Usage};

use super::abi::types::limits;
use super::error::Error;
use super::grace::{All, Grace};
use super::mapped::Mapped;
use super::pair::{self, Pair};
use super::vrf::{self, Vrfs};

// One layout, two languages.
const _: () = {
    assert!(limits::FIB_ROOT_BITS.0 == ROOT_BITS as u32);
    assert!(limits::FIB_LINE.0 as usize == LINE);
    assert!(limits::FIB4_ROOTS_A_LINE.0 as usize == Ip4::ROOTS_A_LINE);
    assert!(limits::FIB6_ROOTS_A_LINE.0 as usize == Ip6::ROOTS_A_LINE);
    assert!(limits::FIB6_ROOTS_A_LINE.0 as usize == Ip4Dense::ROOTS_A_LINE);
    assert!(limits::FIB4_DEFAULT_WORD.0 as usize == Ip4::DEFAULT_WORD);
    assert!(limits::FIB6_DEFAULT_WORD.0 as usize == Ip6::DEFAULT_WORD);
    assert!(limits::FIB_BLOCK_REACH.0 as usize == BLOCK_REACH);
    assert!(limits::GROUPS_MAX.0 as usize == tables::fib::GROUP_MAX as usize + 1);
};

/// Names of the maps: of the default VRF's families, of what is denied of both, and of the other VRFs.
pub(super) const MAPS: [&str; 5] = ["fib4", "fib6", "denied4", "denied6", "vrfs"];
/// Where what is denied begins among them.
const DENIED: usize = 2;
/// The last of them, where a map that is outgrown is told of.
pub(super) const VRFS: usize = 4;

/// Words of each map that are there however few prefixes there are.
const LEAST_WORDS: [u32; VRFS] =
    [limits::FIB4_WORDS_MIN.0, limits::FIB6_WORDS_MIN.0, limits::DENIED_WORDS_MIN.0, limits::DENIED_WORDS_MIN.0];

/// The wanted routes of both families.
pub(super) type Wanted = pair::Wanted<GroupId>;

/// The wanted routes of the other VRFs.
pub(super) type WantedByVrf = BTreeMap<VrfId, Wanted>;

/// Prefixes that are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefixes<'a> {
    /// The default VRF's routes.
    pub(super) routes: &'a Wanted,
    /// Those of the others.
    pub(super) vrfs: &'a WantedByVrf,
    /// What is denied.
    pub(super) denylist: &'a Denylist,
}

/// The tables, and the memory that waits for its readers.
#[derive(Debug)]
pub(super) struct Fibs {
    routes: Pair<Ip4>,
    denied: Pair<Ip4Dense>,
    /// What the latter were made from last.
    denylist: Option<Denylist>,
    vrfs: Vrfs,
    grace: Grace,
}

/// A table has no room left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgrown {
    /// Index into [`MAPS`].
    pub(super) map: usize,
    /// Words it had.
    pub(super) words: usize,
}

impl Outgrown {
    fn name(self) -> &'static str {
        MAPS.get(self.map).copied().unwrap_or(MAPS[0])
    }

    pub(super) fn into_error(self) -> Error {
        Error::Full { table: self.name(), wanted: self.words + 1, limit: self.words }
    }
}

pub(super) fn words_of(map: &MapHandle) -> usize {
    map.value_size() as usize / size_of::<u32>()
}

/// One value of a map.
pub(super) fn mapped(map: &MapHandle, name: &'static str, index: usize) -> Result<Mapped, Error> {
    let failed = |source: std::io::Error| Error::Map { map: name, operation: "mmap", source: source.into() };
    Mapped::new(map, words_of(map), index).map_err(failed)
}

/// Opens what is in a map; what is no table is cleared, and packets go without these prefixes until the first generation.
pub(super) fn open<F: Family>(map: &MapHandle, name: &'static str, index: usize) -> Result<Fib<F, Mapped>, Error> {
    if let Some(fib) = Fib::adopt(mapped(map, name, index)?) {
        return Ok(fib);
    }
    tracing::error!(map = name, index, "the pinned table is damaged and is made anew");
    let words = mapped(map, name, index)?;
    tables::fib::Words::words(&words).iter().for_each(|word| word.store(0, std::sync::atomic::Ordering::Release));
    Ok(Fib::new(words))
}

impl Fibs {
    /// The tables in the maps of these [names](MAPS).
    pub(super) fn open<'a>(map: impl Fn(&'static str) -> Result<&'a MapHandle, Error>) -> Result<Self, Error> {
        let [ip4, ip6, denied4, denied6, vrfs] = MAPS;
        Ok(Self {
            routes: Pair::open([map(ip4)?, map(ip6)?], [ip4, ip6])?,
            denied: Pair::open([map(denied4)?, map(denied6)?], [denied4, denied6])?,
            denylist: None,
            vrfs: Vrfs::open(map(vrfs)?)?,
            grace: Grace::new()?,
        })
    }

    /// The routes that an earlier process has left, as prefixes that answer the same.
    pub(super) fn answers(&self) -> Wanted {
        self.routes.answers().map(|(net, group)| (net, GroupId(group.into()))).collect()
    }

    /// The same of the other VRFs.
    pub(super) fn answers_by_vrf(&self) -> WantedByVrf {
        self.vrfs.answers()
    }

    /// Every table, and who waits for their readers.
    fn parts(&mut self) -> (All<'_>, &mut Grace) {
        let pairs = self.routes.waits().into_iter().chain(self.denied.waits());
        (pairs.chain(self.vrfs.waits()).collect(), &mut self.grace)
    }

    fn begin_to_wait(&mut self) {
        let (mut all, grace) = self.parts();
        grace.begin(&mut all);
    }

    /// Begins a generation: what was filled with another one's prefixes does not count.
    pub(super) fn begin(&mut self) {
        self.routes.begin();
        self.denied.begin();
    }

    /// Inserts and replaces what of the routes has changed. Tells how many stores it took.
    pub(super) fn write(&mut self, wanted: &Wanted, changed: &Changed) -> Result<usize, Outgrown> {
        let (mut all, grace) = self.parts();
        grace.poll(&mut all);
        let before = self.stores();
        for family in 0..2 {
            self.with_patience(family, |fibs| fibs.routes.write(family, wanted, changed))?;
        }
        Ok(self.stores() - before)
    }

    /// Takes away what is not wanted any more; tells how many stores it took.
    pub(super) fn take_away(&mut self, wanted: &Wanted, changed: &Changed) -> Result<usize, Outgrown> {
        let before = self.stores();
        for family in 0..2 {
            self.with_patience(family, |fibs| fibs.routes.take_away(family, wanted, changed))?;
        }
        self.routes.begin();
        self.begin_to_wait();
        Ok(self.stores() - before)
    }

    fn is_denied_already(&self, wanted: &Denylist) -> bool {
        self.denylist.as_ref().is_some_and(|present| present.is_same(wanted))
    }

    /// Denies what is wanted beside what is denied; nothing to do where that is the same list. Tells how many stores it took.
    pub(super) fn deny(&mut self, wanted: &Denylist) -> Result<usize, Outgrown> {
        if self.is_denied_already(wanted) {
            return Ok(0);
        }
        let before = self.stores();
        for family in 0..2 {
            let write = |fibs: &mut Self| fibs.denied.write(family, wanted.prefixes(), &Changed::Everything);
            self.with_patience(DENIED + family, write)?;
        }
        Ok(self.stores() - before)
    }

    /// Denies nothing but what is wanted; tells how many stores it took.
    pub(super) fn deny_only(&mut self, wanted: &Denylist) -> Result<usize, Outgrown> {
        if self.is_denied_already(wanted) {
            return Ok(0);
        }
        let before = self.stores();
        for family in 0..2 {
            let take_away = |fibs: &mut Self| fibs.denied.take_away(family, wanted.prefixes(), &Changed::Everything);
            self.with_patience(DENIED + family, take_away)?;
        }
        self.denied.begin();
        self.denylist = Some(wanted.clone());
        self.begin_to_wait();
        Ok(self.stores() - before)
    }

    /// Makes the other VRFs answer as is wanted, but for what is to be taken away. Tells how many stores it took.
    pub(super) fn write_vrfs(&mut self, wanted: &WantedByVrf) -> Result<usize, Outgrown> {
        let before = self.stores();
        self.with_patience(VRFS, |fibs| fibs.vrfs.write(wanted))?;
        Ok(self.stores() - before)
    }

    /// Takes away what is not wanted any more in the other VRFs; tells how many stores it took.
    pub(super) fn take_away_from_vrfs(&mut self, wanted: &WantedByVrf) -> Result<usize, Outgrown> {
        let before = self.stores();
        self.with_patience(VRFS, |fibs| fibs.vrfs.take_away(wanted))?;
        self.begin_to_wait();
        Ok(self.stores() - before)
    }

    fn stores(&self) -> usize {
        self.routes.stores() + self.denied.stores() + self.vrfs.stores()
    }

    /// Changes a table; where there is no room, once more with what has been retired in the meantime.
    fn with_patience(&mut self, map: usize, change: impl Fn(&mut Self) -> Result<(), Full>) -> Result<(), Outgrown> {
        change(self).or_else(|_| {
            let (mut all, grace) = self.parts();
            grace.wait(&mut all);
            change(self).map_err(|full| Outgrown { map, words: full.capacity })
        })
    }

    /// A table that cannot hold what is wanted, if there is one.
    pub(super) fn too_small_for(&self, wanted: Prefixes<'_>) -> Option<Outgrown> {
        let of_routes = || self.routes.too_small_for(wanted.routes);
        let of_denied = || {
            let (family, words) = self.denied.too_small_for(wanted.denylist.prefixes())?;
            Some((DENIED + family, words))
        };
        let (map, words) = of_routes().or_else(of_denied)?;
        Some(Outgrown { map, words })
    }

    /// A larger table for what is wanted, filled, which [`take`](Self::take) puts in the place of the one that is outgrown.
    /// Programs of the former map look on there.
    pub(super) fn larger(&self, outgrown: Outgrown, wanted: Prefixes<'_>) -> Result<Larger, Error> {
        let Outgrown { map, words } = outgrown;
        let name = outgrown.name();
        let Some(least) = LEAST_WORDS.get(map) else {
            let (map, vrfs) = vrf::larger(&self.vrfs, wanted.vrfs)?;
            return Ok(Larger { name, table: Table::Vrfs(map, vrfs) });
        };
        let words = (words, *least as usize);
        let table = match map.checked_sub(DENIED) {
            Some(family) => Table::Denied(self.denied.larger((family, name), words, wanted.denylist.prefixes())?),
            None => Table::Routes(self.routes.larger((map, name), words, wanted.routes)?),
        };
        Ok(Larger { name, table })
    }

    /// Goes on with a larger table.
    pub(super) fn take(&mut self, larger: Larger) {
        match larger.table {
            Table::Routes(table) => self.routes.take(table),
            Table::Denied(table) => self.denied.take(table),
            Table::Vrfs(_, vrfs) => self.vrfs = vrfs,
        }
        // What of the former table waits is of no use to the new one.
        self.grace.forget(|table| MAPS.get(table.min(VRFS)) == Some(&larger.name));
    }

    /// Lets blocks go home whose places the last readers have left; true where nothing is left to do. Never waits for readers.
    pub(super) fn fold(&mut self) -> bool {
        self.begin_to_wait();
        if self.grace.is_waiting() {
            return false;
        }
        // More than move at a time.
        let (all, _) = self.parts();
        all.into_iter().for_each(|table| table.reclaim(Retired::default()));
        self.routes.is_settled() && self.denied.is_settled() && self.vrfs.are_settled()
    }

    /// How far look-ups in both families of the routes go.
    pub(super) fn depth(&self) -> [&Depth; 2] {
        self.routes.depth()
    }

    /// Routes, and words in use and reserved, of both families.
    pub(super) fn usage(&self) -> [Usage; 2] {
        self.routes.usage()
    }

    /// The same of what is denied.
    pub(super) fn usage_of_denied(&self) -> [Usage; 2] {
        self.denied.usage()
    }

    /// The same of all other VRFs together.
    pub(super) fn usage_of_vrfs(&self) -> Usage {
        self.vrfs.usage()
    }
}

/// A table with its map.
#[derive(Debug)]
pub(super) struct Larger {
    /// Name of the map.
    pub(super) name: &'static str,
    table: Table,
}

#[derive(Debug)]
enum Table {
    Routes(pair::Larger<Ip4>),
    Denied(pair::Larger<Ip4Dense>),
    Vrfs(MapHandle, Vrfs),
}

impl Larger {
    fn handle(&self) -> &MapHandle {
        match &self.table {
            Table::Routes(table) => table.map(),
            Table::Denied(table) => table.map(),
            Table::Vrfs(map, _) => map,
        }
    }

    /// Another handle of the map.
    pub(super) fn map(&self) -> Result<MapHandle, Error> {
        let failed = |source| Error::Map { map: self.name, operation: "duplicate", source };
        MapHandle::try_from(self.handle()).map_err(failed)
    }

    /// Its size.
    pub(super) fn words(&self) -> usize {
        words_of(self.handle())
    }
}

/// A new map of so many values.
pub(super) fn new_map(name: &'static str, words: usize, values: u32) -> Result<MapHandle, Error> {
    let failed = |source| Error::Map { map: name, operation: "create", source };
    let opts = libbpf_rs::libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as libbpf_rs::libbpf_sys::size_t,
        map_flags: libbpf_rs::libbpf_sys::BPF_F_MMAPABLE,
        ..Default::default()
    };
    let bytes = u32::try_from(words * size_of::<u32>()).map_err(|_| Error::Full {
        table: name,
        wanted: words,
        limit: u32::MAX as usize / size_of::<u32>(),
    })?;
    MapHandle::create(MapType::Array, Some(name), 4, bytes, values, &opts).map_err(failed)
}
