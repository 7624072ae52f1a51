//! The tables of the VRFs beside the default one: a value of one map each, in the layout of IPv6 for both families.
//!
//! IPv4 prefixes stand as ::ffff:a.b.c.d/96+n (RFC 4291 §2.5.5.2). So that no IPv6 route answers for them, ::ffff:0:0/96 leads to a group in
//! every VRF that no other prefix has and that says: nothing matches. The IPv4 default route has a word of its own, as that of IPv6 has.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use libbpf_rs::{MapCore as _, MapHandle};
use model::tables::{GroupId, VrfId};
use tables::fib::{Family as _, Fib, Full, Ip6, Prefix, Usage};

use super::abi::types::limits;
use super::error::Error;
use super::fib::{MAPS, VRFS, Wanted, WantedByVrf, mapped, new_map, open, words_of};
use super::grace::Waits;
use super::mapped::Mapped;
use super::pair::{new_routes, old_routes};

// One layout, two languages.
const _: () = {
    assert!(limits::VRF_DEFAULT4_WORD.0 as usize == Ip6::DEFAULT_WORD + 1);
    assert!((limits::VRF_DEFAULT4_WORD.0 as usize) < Ip6::FIRST_BLOCK);
    assert!(limits::VRF_UNMATCHED.0 > limits::VIP_GROUPS.0 + model::tables::VipAddressId::LAST.0);
    assert!(limits::VRFS_MAX.0 == model::ids::Ids::LAST_VRF);
    assert!((limits::VRF_WORDS_MIN.0 as usize).is_multiple_of(STEP));
};

/// Values are a whole number of pages, whatever the size of a page: 64 KiB.
const STEP: usize = (64 << 10) / size_of::<u32>();
/// Where IPv4 addresses begin.
const MAPPED: u128 = 0xffff << 32;
/// Bits of an IPv6 address before an IPv4 address.
const MAPPED_BITS: u8 = 96;
/// The group that says that no IPv4 route matches.
const UNMATCHED: u16 = limits::VRF_UNMATCHED.0 as u16;

/// All of them, by index.
#[derive(Debug)]
pub(super) struct Vrfs {
    words: usize,
    tables: Vec<Table>,
}

#[derive(Debug)]
struct Table {
    fib: Fib<Ip6, Mapped>,
    /// The present prefixes are known: what an earlier process has left are only answers.
    known: bool,
    /// Stores beside those of the table itself.
    stores: usize,
}

/// What a VRF's value shall hold: prefixes, ascending, and the group of the IPv4 default route, 0 for none.
struct Layout {
    routes: Vec<(Prefix<Ip6>, u16)>,
    default4: u16,
}

impl Layout {
    /// The table of a VRF; nothing where there is no such VRF.
    fn of(wanted: Option<&Wanted>) -> Self {
        let mut layout = Self { routes: Vec::new(), default4: 0 };
        let Some(wanted) = wanted else { return layout };
        layout.routes.push(((MAPPED, MAPPED_BITS), UNMATCHED));
        for (net, group) in wanted {
            let group = group.0 as u16;
            match net {
                IpNet::V4(net) if net.prefix_len() == 0 => layout.default4 = group,
                IpNet::V4(net) => {
                    let address = MAPPED | u128::from(u32::from(net.network()));
                    layout.routes.push(((address, MAPPED_BITS + net.prefix_len()), group));
                }
                IpNet::V6(net) => layout.routes.push(((net.network().into(), net.prefix_len()), group)),
            }
        }
        layout.routes.sort_unstable();
        layout
    }
}

/// A prefix of a table as what it stands for.
fn net((address, length): Prefix<Ip6>) -> Option<IpNet> {
    if address >> 32 == MAPPED >> 32 && length >= MAPPED_BITS {
        return Ipv4Net::new(Ipv4Addr::from(address as u32), length - MAPPED_BITS).ok().map(IpNet::V4);
    }
    Ipv6Net::new(Ipv6Addr::from(address), length).ok().map(IpNet::V6)
}

impl Table {
    fn new(fib: Fib<Ip6, Mapped>, known: bool) -> Self {
        Self { fib, known, stores: 0 }
    }

    fn default4(&self) -> Option<&std::sync::atomic::AtomicU32> {
        self.fib.words().get(limits::VRF_DEFAULT4_WORD.0 as usize)
    }

    fn set_default4(&mut self, group: u16) {
        let Some(word) = self.default4() else { return };
        let changes = word.load(Ordering::Relaxed) != u32::from(group);
        if changes {
            word.store(group.into(), Ordering::Release);
        }
        self.stores += usize::from(changes);
    }

    fn answers(&self) -> Wanted {
        let answers = self.fib.answers().into_iter().filter(|(_, group)| *group != UNMATCHED);
        let default4 = self.default4().map_or(0, |word| word.load(Ordering::Relaxed));
        let default4 = (default4 != 0).then_some((IpNet::V4(Ipv4Net::default()), GroupId(default4)));
        answers.filter_map(|(prefix, group)| Some((net(prefix)?, GroupId(group.into())))).chain(default4).collect()
    }

    fn write(&mut self, layout: &Layout) -> Result<(), Full> {
        if self.known {
            let new = new_routes(&self.fib, layout.routes.iter().copied());
            new.into_iter()
                .try_for_each(|((address, length), group)| self.fib.insert(address, length, group).map(drop))?;
        } else {
            self.fib.replace(layout.routes.iter().copied())?;
            self.known = true;
        }
        if layout.default4 != 0 {
            self.set_default4(layout.default4);
        }
        Ok(())
    }

    fn take_away(&mut self, layout: &Layout) -> Result<(), Full> {
        self.set_default4(layout.default4);
        let old = old_routes(&self.fib, layout.routes.iter().copied());
        old.into_iter().try_for_each(|(address, length)| self.fib.remove(address, length).map(drop))
    }
}

/// The index of a VRF's value.
fn index(vrf: VrfId) -> Option<usize> {
    (vrf.0 as usize).checked_sub(1)
}

impl Vrfs {
    /// The tables in this map.
    pub(super) fn open(map: &MapHandle) -> Result<Self, Error> {
        let table = |index| Ok(Table::new(open(map, MAPS[VRFS], index)?, false));
        let tables: Result<_, Error> = (0..map.max_entries() as usize).map(table).collect();
        Ok(Self { words: words_of(map), tables: tables? })
    }

    /// What an earlier process has left, as prefixes that answer the same.
    pub(super) fn answers(&self) -> WantedByVrf {
        let tables = (1..).map(VrfId).zip(&self.tables);
        // A table that is in use is never empty.
        tables.filter(|(_, table)| !table.fib.answers().is_empty()).map(|(vrf, table)| (vrf, table.answers())).collect()
    }

    pub(super) fn waits(&mut self) -> impl Iterator<Item = &mut dyn Waits> {
        self.tables.iter_mut().map(|table| &mut table.fib as &mut dyn Waits)
    }

    /// Inserts and replaces what is not as wanted.
    pub(super) fn write(&mut self, wanted: &WantedByVrf) -> Result<(), Full> {
        let full = Full { used: self.words, capacity: self.words };
        for (vrf, wanted) in wanted {
            let table = index(*vrf).and_then(|index| self.tables.get_mut(index));
            table.ok_or(full)?.write(&Layout::of(Some(wanted)))?;
        }
        Ok(())
    }

    /// Takes away what is not wanted.
    pub(super) fn take_away(&mut self, wanted: &WantedByVrf) -> Result<(), Full> {
        for (vrf, table) in (1..).map(VrfId).zip(&mut self.tables) {
            let layout = Layout::of(wanted.get(&vrf));
            if !table.known {
                table.write(&layout)?;
            }
            table.take_away(&layout)?;
        }
        Ok(())
    }

    pub(super) fn stores(&self) -> usize {
        self.tables.iter().map(|table| table.fib.stores() + table.stores).sum()
    }

    pub(super) fn are_settled(&self) -> bool {
        self.tables.iter().all(|table| table.fib.is_settled())
    }

    /// What all of them take together.
    pub(super) fn usage(&self) -> Usage {
        self.tables.iter().map(|table| table.fib.usage()).fold(Usage::default(), |sum, usage| Usage {
            prefixes: sum.prefixes + usage.prefixes,
            words: sum.words + usage.words,
            capacity: sum.capacity + usage.capacity,
        })
    }
}

/// A map for as many VRFs as are wanted, filled, with larger values where the number is not what the present one lacks.
pub(super) fn larger(present: &Vrfs, wanted: &WantedByVrf) -> Result<(MapHandle, Vrfs), Error> {
    let highest = wanted.keys().filter_map(|vrf| index(*vrf)).max().map_or(1, |highest| highest + 1);
    let (count, mut words) = (present.tables.len().max(highest), present.words);
    if count == present.tables.len() {
        words = (words + words / 4).next_multiple_of(STEP);
    }
    loop {
        match filled(count, words, wanted)? {
            Some(larger) => return Ok(larger),
            None => words = (words + words / 4).next_multiple_of(STEP),
        }
    }
}

/// A new map of so many values with these routes; `None`: they do not fit.
fn filled(count: usize, words: usize, wanted: &WantedByVrf) -> Result<Option<(MapHandle, Vrfs)>, Error> {
    let name = MAPS[VRFS];
    let map = new_map(name, words, count as u32)?;
    let table = |index| Ok(Table::new(Fib::new(mapped(&map, name, index)?), false));
    let tables: Result<_, Error> = (0..count).map(table).collect();
    let mut vrfs = Vrfs { words, tables: tables? };
    Ok(vrfs.write(wanted).is_ok().then_some((map, vrfs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_stand_in_one_table_and_come_back() {
        let nets = ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.1/32", "::/0", "2001:db8::/32", "::/8"];
        let wanted: Wanted = nets.iter().zip(1..).map(|(net, group)| (net.parse().unwrap(), GroupId(group))).collect();
        let layout = Layout::of(Some(&wanted));
        assert!(layout.routes.is_sorted());
        assert_eq!(layout.default4, 1);
        assert!(layout.routes.contains(&((MAPPED, 96), UNMATCHED)));
        let back = layout.routes.iter().filter(|(_, group)| *group != UNMATCHED);
        let back: Wanted = back.map(|(prefix, group)| (net(*prefix).unwrap(), GroupId(u32::from(*group)))).collect();
        let without_default4 = wanted.into_iter().filter(|(net, _)| *net != IpNet::V4(Ipv4Net::default()));
        assert_eq!(back, without_default4.collect());
        assert!(Layout::of(None).routes.is_empty(), "no VRF, no table");
    }
}
