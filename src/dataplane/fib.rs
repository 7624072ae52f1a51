//! The FIB of both families in its maps: written by plain stores, grown by replacement, freed memory used again only when no
//! program can be in it any more.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use libbpf_rs::{MapCore as _, MapHandle, MapType};
use model::compile::Changed;
use model::tables::{GroupId, VrfId};
use tables::fib::{BLOCK_REACH, Depth, Family, Fib, Full, Ip4, Ip6, LINE, Prefix, ROOT_BITS, Retired, Usage};

use super::abi::types::limits;
use super::error::Error;
use super::grace::{All, Grace, Waits};
use super::mapped::Mapped;
use super::vrf::{self, Vrfs};

// One layout, two languages.
const _: () = {
    assert!(limits::FIB_ROOT_BITS.0 == ROOT_BITS as u32);
    assert!(limits::FIB_LINE.0 as usize == LINE);
    assert!(limits::FIB4_ROOTS_A_LINE.0 as usize == Ip4::ROOTS_A_LINE);
    assert!(limits::FIB6_ROOTS_A_LINE.0 as usize == Ip6::ROOTS_A_LINE);
    assert!(limits::FIB4_DEFAULT_WORD.0 as usize == Ip4::DEFAULT_WORD);
    assert!(limits::FIB6_DEFAULT_WORD.0 as usize == Ip6::DEFAULT_WORD);
    assert!(limits::FIB_BLOCK_REACH.0 as usize == BLOCK_REACH);
    assert!(limits::GROUPS_MAX.0 as usize == tables::fib::GROUP_MAX as usize + 1);
};

/// Bytes that a prefix takes at most on the average, in the least regular of full tables, beside the lines of root references.
const BYTES_PER_PREFIX: [usize; 2] = [2, 32];

/// Words that a prefix takes at least, in a full table, beside these lines; IPv4 may need no others.
const FEWEST_WORDS: [usize; 2] = [0, 4];

/// Names of the maps: of the default VRF's families, and of the other VRFs.
pub(super) const MAPS: [&str; 3] = ["fib4", "fib6", "vrfs"];
/// The last of them, where a map that is outgrown is told of.
pub(super) const VRFS: usize = 2;

/// The wanted prefixes of both families.
pub(super) type Wanted = BTreeMap<IpNet, GroupId>;

/// The tables, and the memory that waits for its readers.
#[derive(Debug)]
pub(super) struct Fibs {
    ip4: Fib<Ip4, Mapped>,
    ip6: Fib<Ip6, Mapped>,
    vrfs: Vrfs,
    grace: Grace,
    /// The present prefixes of the family are known: what an earlier process has left are only answers.
    known: [bool; 2],
    /// The family was filled with what is wanted in this generation.
    filled: [bool; 2],
}

/// The wanted prefixes of the other VRFs.
pub(super) type WantedByVrf = BTreeMap<VrfId, Wanted>;

/// A table has no room left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgrown {
    /// Index into [`MAPS`].
    pub(super) family: usize,
    /// Words it had.
    pub(super) words: usize,
}

impl Outgrown {
    pub(super) fn into_error(self) -> Error {
        Error::Full {
            table: MAPS.get(self.family).copied().unwrap_or(MAPS[0]),
            wanted: self.words + 1,
            limit: self.words,
        }
    }
}

/// Wanted prefixes of a family.
fn count(wanted: &Wanted, family: usize) -> usize {
    wanted.keys().filter(|net| net.addr().is_ipv4() == (family == 0)).count()
}

pub(super) fn words_of(map: &MapHandle) -> usize {
    map.value_size() as usize / size_of::<u32>()
}

/// One value of a map.
pub(super) fn mapped(map: &MapHandle, name: &'static str, index: usize) -> Result<Mapped, Error> {
    let failed = |source: std::io::Error| Error::Map { map: name, operation: "mmap", source: source.into() };
    Mapped::new(map, words_of(map), index).map_err(failed)
}

/// Opens what is in a map; what is no table is cleared, and packets go without these routes until the first generation.
pub(super) fn open<F: Family>(map: &MapHandle, name: &'static str, index: usize) -> Result<Fib<F, Mapped>, Error> {
    if let Some(fib) = Fib::adopt(mapped(map, name, index)?) {
        return Ok(fib);
    }
    tracing::error!(map = name, index, "the pinned table is damaged and is made anew");
    let words = mapped(map, name, index)?;
    tables::fib::Words::words(&words).iter().for_each(|word| word.store(0, std::sync::atomic::Ordering::Release));
    Ok(Fib::new(words))
}

fn key4(net: &IpNet) -> Option<Prefix<Ip4>> {
    match net {
        IpNet::V4(net) => Some((net.network().into(), net.prefix_len())),
        IpNet::V6(_) => None,
    }
}

fn key6(net: &IpNet) -> Option<Prefix<Ip6>> {
    match net {
        IpNet::V6(net) => Some((net.network().into(), net.prefix_len())),
        IpNet::V4(_) => None,
    }
}

/// The prefixes of one family, with their groups.
fn of_family<F: Family>(
    wanted: &Wanted,
    key: impl Fn(&IpNet) -> Option<Prefix<F>>,
) -> impl Iterator<Item = (Prefix<F>, u16)> {
    wanted.iter().filter_map(move |(net, group)| Some((key(net)?, group.0 as u16)))
}

impl Fibs {
    /// The tables in these maps.
    pub(super) fn open([ip4, ip6, vrfs]: [&MapHandle; 3]) -> Result<Self, Error> {
        let [name4, name6, _] = MAPS;
        Ok(Self {
            ip4: open(ip4, name4, 0)?,
            ip6: open(ip6, name6, 0)?,
            vrfs: Vrfs::open(vrfs)?,
            grace: Grace::new()?,
            known: [false; 2],
            filled: [false; 2],
        })
    }

    /// What an earlier process has left, as prefixes that answer the same.
    pub(super) fn answers(&self) -> Wanted {
        let ip4 = self.ip4.answers().into_iter().filter_map(|((address, length), group)| {
            Some((IpNet::V4(Ipv4Net::new(Ipv4Addr::from(address), length).ok()?), GroupId(group.into())))
        });
        let ip6 = self.ip6.answers().into_iter().filter_map(|((address, length), group)| {
            Some((IpNet::V6(Ipv6Net::new(Ipv6Addr::from(address), length).ok()?), GroupId(group.into())))
        });
        ip4.chain(ip6).collect()
    }

    /// The same of the other VRFs.
    pub(super) fn answers_by_vrf(&self) -> WantedByVrf {
        self.vrfs.answers()
    }

    /// Every table, and who waits for their readers.
    fn parts(&mut self) -> (All<'_>, &mut Grace) {
        let default: [&mut dyn Waits; 2] = [&mut self.ip4, &mut self.ip6];
        (default.into_iter().chain(self.vrfs.waits()).collect(), &mut self.grace)
    }

    fn begin_to_wait(&mut self) {
        let (mut all, grace) = self.parts();
        grace.begin(&mut all);
    }

    /// Begins a generation: what was filled with another one's prefixes does not count.
    pub(super) fn begin(&mut self) {
        self.filled = [false; 2];
    }

    /// Inserts and replaces what has changed; the first time, when only answers are known, it makes everything as wanted.
    /// Tells how many stores it took.
    pub(super) fn write(&mut self, wanted: &Wanted, changed: &Changed) -> Result<usize, Outgrown> {
        let (mut all, grace) = self.parts();
        grace.poll(&mut all);
        let before = self.stores();
        let [known4, known6] = self.known;
        let [filled4, filled6] = self.filled;
        if !filled4 {
            self.with_patience(0, |fibs| insert_new(&mut fibs.ip4, known4, wanted, changed, key4))?;
        }
        if !filled6 {
            self.with_patience(1, |fibs| insert_new(&mut fibs.ip6, known6, wanted, changed, key6))?;
        }
        self.known = [true; 2];
        Ok(self.stores() - before)
    }

    /// Takes away what is not wanted any more; tells how many stores it took.
    pub(super) fn take_away(&mut self, wanted: &Wanted, changed: &Changed) -> Result<usize, Outgrown> {
        let before = self.stores();
        let [filled4, filled6] = self.filled;
        if !filled4 {
            self.with_patience(0, |fibs| remove_old(&mut fibs.ip4, wanted, changed, key4))?;
        }
        if !filled6 {
            self.with_patience(1, |fibs| remove_old(&mut fibs.ip6, wanted, changed, key6))?;
        }
        self.filled = [false; 2];
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
        self.ip4.stores() + self.ip6.stores() + self.vrfs.stores()
    }

    /// Changes a family; where there is no room, once more with what has been retired in the meantime.
    fn with_patience(&mut self, family: usize, change: impl Fn(&mut Self) -> Result<(), Full>) -> Result<(), Outgrown> {
        change(self).or_else(|_| {
            let (mut all, grace) = self.parts();
            grace.wait(&mut all);
            change(self).map_err(|full| Outgrown { family, words: full.capacity })
        })
    }

    /// A table that cannot hold what is wanted, if there is one.
    pub(super) fn too_small_for(&self, wanted: &Wanted) -> Option<Outgrown> {
        let fewest = [(Ip4::FIRST_BLOCK, FEWEST_WORDS[0]), (Ip6::FIRST_BLOCK, FEWEST_WORDS[1])];
        [self.ip4.usage(), self.ip6.usage()].into_iter().zip(fewest).enumerate().find_map(
            |(family, (usage, (first_block, fewest)))| {
                let prefixes = count(wanted, family);
                // Words that are in use now may be of the same prefixes.
                let too_small = usage.prefixes < prefixes && first_block + prefixes * fewest > usage.capacity;
                too_small.then_some(Outgrown { family, words: usage.capacity })
            },
        )
    }

    /// A larger table for what is wanted, filled, which [`take`](Self::take) puts in the place of the one that is outgrown.
    /// Programs of the former map look on there.
    pub(super) fn larger(
        &self,
        outgrown: Outgrown,
        (wanted, of_vrfs): (&Wanted, &WantedByVrf),
    ) -> Result<Larger, Error> {
        let Outgrown { family, words } = outgrown;
        if family == VRFS {
            return vrf::larger(&self.vrfs, of_vrfs).map(|(map, vrfs)| Larger::Vrfs(map, vrfs));
        }
        let prefixes = count(wanted, family);
        let (least, bytes) = match family {
            0 => (limits::FIB4_WORDS_MIN, BYTES_PER_PREFIX[0]),
            _ => (limits::FIB6_WORDS_MIN, BYTES_PER_PREFIX[1]),
        };
        let mut words = (words + words / 4).max(least.0 as usize + prefixes * bytes / size_of::<u32>());
        loop {
            let filled = if family == 0 {
                filled(MAPS[0], words, of_family::<Ip4>(wanted, key4))?.map(|(map, fib)| Larger::Ip4(map, fib))
            } else {
                filled(MAPS[1], words, of_family::<Ip6>(wanted, key6))?.map(|(map, fib)| Larger::Ip6(map, fib))
            };
            match filled {
                Some(larger) => return Ok(larger),
                // The estimate was too low for a table as irregular as this one.
                None => words += words / 4,
            }
        }
    }

    /// Goes on with a larger table.
    pub(super) fn take(&mut self, larger: Larger) {
        let family = match larger {
            Larger::Ip4(_, fib) => {
                self.ip4 = fib;
                0
            }
            Larger::Ip6(_, fib) => {
                self.ip6 = fib;
                1
            }
            Larger::Vrfs(_, vrfs) => {
                self.vrfs = vrfs;
                VRFS
            }
        };
        for flag in [&mut self.known, &mut self.filled].into_iter().filter_map(|flags| flags.get_mut(family)) {
            *flag = true;
        }
        // What of the former table waits is of no use to the new one.
        self.grace.forget(|table| table.min(VRFS) == family);
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
        self.ip4.is_settled() && self.ip6.is_settled() && self.vrfs.are_settled()
    }

    /// How far look-ups in both families go.
    pub(super) fn depth(&self) -> [&Depth; 2] {
        [self.ip4.depth(), self.ip6.depth()]
    }

    /// Prefixes, and bytes in use and reserved, of both families.
    pub(super) fn usage(&self) -> [Usage; 2] {
        [self.ip4.usage(), self.ip6.usage()]
    }

    /// The same of all other VRFs together.
    pub(super) fn usage_of_vrfs(&self) -> Usage {
        self.vrfs.usage()
    }
}

/// A table with its map.
#[derive(Debug)]
pub(super) enum Larger {
    Ip4(MapHandle, Fib<Ip4, Mapped>),
    Ip6(MapHandle, Fib<Ip6, Mapped>),
    Vrfs(MapHandle, Vrfs),
}

impl Larger {
    /// Name of the map.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Ip4(..) => MAPS[0],
            Self::Ip6(..) => MAPS[1],
            Self::Vrfs(..) => MAPS[VRFS],
        }
    }

    /// Another handle of the map.
    pub(super) fn map(&self) -> Result<MapHandle, Error> {
        let (Self::Ip4(map, _) | Self::Ip6(map, _) | Self::Vrfs(map, _)) = self;
        MapHandle::try_from(map).map_err(|source| Error::Map { map: self.name(), operation: "duplicate", source })
    }

    /// Its size.
    pub(super) fn words(&self) -> usize {
        let (Self::Ip4(map, _) | Self::Ip6(map, _) | Self::Vrfs(map, _)) = self;
        words_of(map)
    }
}

/// A table and the map that it is in.
type Placed<F> = (MapHandle, Fib<F, Mapped>);

/// A new map of so many words with these routes; `None`: they do not fit.
fn filled<F: Family>(
    name: &'static str,
    words: usize,
    wanted: impl Iterator<Item = (Prefix<F>, u16)>,
) -> Result<Option<Placed<F>>, Error> {
    let map = new_map(name, words, 1)?;
    let mut fib = Fib::new(mapped(&map, name, 0)?);
    Ok(fib.replace(wanted).is_ok().then_some((map, fib)))
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

/// Inserts what has changed and is wanted. Where the present prefixes are not known, everything becomes as wanted.
fn insert_new<F: Family>(
    fib: &mut Fib<F, Mapped>,
    known: bool,
    wanted: &Wanted,
    changed: &Changed,
    key: impl Fn(&IpNet) -> Option<Prefix<F>>,
) -> Result<(), Full> {
    if !known {
        return fib.replace(of_family::<F>(wanted, key));
    }
    let new: Vec<(Prefix<F>, u16)> = match changed {
        Changed::Prefixes(prefixes) => {
            let group = |net: &IpNet| Some((key(net)?, wanted.get(net)?.0 as u16));
            prefixes.iter().filter_map(group).collect()
        }
        Changed::Everything => new_routes(fib, of_family::<F>(wanted, key)),
    };
    new.into_iter().try_for_each(|((address, length), group)| fib.insert(address, length, group).map(drop))
}

/// Takes away what has changed and is not wanted.
fn remove_old<F: Family>(
    fib: &mut Fib<F, Mapped>,
    wanted: &Wanted,
    changed: &Changed,
    key: impl Fn(&IpNet) -> Option<Prefix<F>>,
) -> Result<(), Full> {
    let old: Vec<Prefix<F>> = match changed {
        Changed::Prefixes(prefixes) => {
            prefixes.iter().filter(|net| !wanted.contains_key(*net)).filter_map(key).collect()
        }
        Changed::Everything => old_routes(fib, of_family::<F>(wanted, key)),
    };
    old.into_iter().try_for_each(|(address, length)| fib.remove(address, length).map(drop))
}

/// Those of the wanted routes, ascending, that a table does not have.
pub(super) fn new_routes<F: Family>(
    fib: &Fib<F, Mapped>,
    wanted: impl Iterator<Item = (Prefix<F>, u16)>,
) -> Vec<(Prefix<F>, u16)> {
    let mut present = fib.routes().peekable();
    let mut is_new = |(prefix, group): &(Prefix<F>, u16)| {
        while present.next_if(|(before, _)| before < prefix).is_some() {}
        present.next_if(|(same, _)| same == prefix).is_none_or(|(_, before)| before != *group)
    };
    wanted.filter(|route| is_new(route)).collect()
}

/// The prefixes of a table that no wanted route, ascending, has.
pub(super) fn old_routes<F: Family>(
    fib: &Fib<F, Mapped>,
    wanted: impl Iterator<Item = (Prefix<F>, u16)>,
) -> Vec<Prefix<F>> {
    let mut wanted = wanted.peekable();
    let mut is_old = |prefix: &Prefix<F>| {
        while wanted.next_if(|(before, _)| before < prefix).is_some() {}
        wanted.peek().is_none_or(|(next, _)| next != prefix)
    };
    fib.routes().map(|(prefix, _)| prefix).filter(|prefix| is_old(prefix)).collect()
}
