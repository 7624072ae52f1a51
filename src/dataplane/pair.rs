//! A table of prefixes of both families, each family in a map of its own.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use libbpf_rs::MapHandle;
use model::compile::Changed;
use model::denylist::Denied;
use model::tables::GroupId;
use tables::fib::{Depth, Family, Fib, Full, Ip6, LINE, Prefix, Usage};

use super::abi::types;
use super::error::Error;
use super::fib::{mapped, new_map, open};
use super::grace::Waits;
use super::mapped::Mapped;

/// Words that a prefix takes at least, in a full table, beside the lines of root references; IPv4 may need no others.
const FEWEST_WORDS: [usize; 2] = [0, 4];

/// Bytes that a prefix takes at most on the average, in the least regular of full tables, beside these lines: IPv4 where they have room
/// for blocks and where they have none, and IPv6.
const BYTES_PER_PREFIX: [usize; 3] = [2, 8, 32];

/// What a prefix leads to, as a table holds it: from 1 to [`tables::fib::GROUP_MAX`].
pub(super) trait Answer: Copy {
    fn number(self) -> u16;
}

impl Answer for GroupId {
    fn number(self) -> u16 {
        self.0 as u16
    }
}

impl Answer for Denied {
    fn number(self) -> u16 {
        use types::denied as d;
        let bit = |is_set: bool, bit: types::denied| if is_set { bit.0 as u16 } else { 0 };
        bit(self.source, d::DENIED_SOURCE) | bit(self.destination, d::DENIED_DESTINATION)
    }
}

/// The wanted prefixes of both families.
pub(super) type Wanted<V> = BTreeMap<IpNet, V>;

/// The tables of both families. `F4` is how IPv4 is laid out.
#[derive(Debug)]
pub(super) struct Pair<F4: Family> {
    ip4: Fib<F4, Mapped>,
    ip6: Fib<Ip6, Mapped>,
    /// The present prefixes of the family are known: what an earlier process has left are only answers.
    known: [bool; 2],
    /// The family was filled with what is wanted in this generation.
    filled: [bool; 2],
}

/// A table of one family with its map.
#[derive(Debug)]
pub(super) enum Larger<F4: Family> {
    Ip4(MapHandle, Fib<F4, Mapped>),
    Ip6(MapHandle, Fib<Ip6, Mapped>),
}

impl<F4: Family> Larger<F4> {
    pub(super) fn map(&self) -> &MapHandle {
        let (Self::Ip4(map, _) | Self::Ip6(map, _)) = self;
        map
    }
}

fn is_of(net: &IpNet, family: usize) -> bool {
    net.addr().is_ipv4() == (family == 0)
}

/// Wanted prefixes of a family.
fn count<V>(wanted: &Wanted<V>, family: usize) -> usize {
    wanted.keys().filter(|net| is_of(net, family)).count()
}

fn key4<F: Family<Address = u32>>(net: &IpNet) -> Option<Prefix<F>> {
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

/// The prefixes of one family, with their answers.
fn of_family<F: Family, V: Answer>(
    wanted: &Wanted<V>,
    key: impl Fn(&IpNet) -> Option<Prefix<F>>,
) -> impl Iterator<Item = (Prefix<F>, u16)> {
    wanted.iter().filter_map(move |(net, answer)| Some((key(net)?, answer.number())))
}

impl<F4: Family<Address = u32>> Pair<F4> {
    /// The tables in these maps, which go by these names.
    pub(super) fn open([ip4, ip6]: [&MapHandle; 2], [name4, name6]: [&'static str; 2]) -> Result<Self, Error> {
        Ok(Self { ip4: open(ip4, name4, 0)?, ip6: open(ip6, name6, 0)?, known: [false; 2], filled: [false; 2] })
    }

    /// What an earlier process has left, as prefixes that answer the same.
    pub(super) fn answers(&self) -> impl Iterator<Item = (IpNet, u16)> {
        let ip4 = self.ip4.answers().into_iter().filter_map(|((address, length), answer)| {
            Some((IpNet::V4(Ipv4Net::new(Ipv4Addr::from(address), length).ok()?), answer))
        });
        let ip6 = self.ip6.answers().into_iter().filter_map(|((address, length), answer)| {
            Some((IpNet::V6(Ipv6Net::new(Ipv6Addr::from(address), length).ok()?), answer))
        });
        ip4.chain(ip6)
    }

    pub(super) fn waits(&mut self) -> [&mut dyn Waits; 2] {
        [&mut self.ip4, &mut self.ip6]
    }

    /// Begins a generation, or ends one: what was filled with another one's prefixes does not count.
    pub(super) fn begin(&mut self) {
        self.filled = [false; 2];
    }

    fn is_filled(&self, family: usize) -> bool {
        self.filled.get(family) == Some(&true)
    }

    /// Inserts and replaces what has changed of a family; the first time, when only answers are known, it makes everything as wanted.
    pub(super) fn write<V: Answer>(
        &mut self,
        family: usize,
        wanted: &Wanted<V>,
        changed: &Changed,
    ) -> Result<(), Full> {
        if self.is_filled(family) {
            return Ok(());
        }
        let is_known = self.known.get(family) == Some(&true);
        match family {
            0 => insert_new(&mut self.ip4, is_known, wanted, changed, key4::<F4>)?,
            _ => insert_new(&mut self.ip6, is_known, wanted, changed, key6)?,
        }
        self.known.get_mut(family).into_iter().for_each(|known| *known = true);
        Ok(())
    }

    /// Takes away what is not wanted any more of a family.
    pub(super) fn take_away<V: Answer>(
        &mut self,
        family: usize,
        wanted: &Wanted<V>,
        changed: &Changed,
    ) -> Result<(), Full> {
        match family {
            _ if self.is_filled(family) => Ok(()),
            0 => remove_old(&mut self.ip4, wanted, changed, key4::<F4>),
            _ => remove_old(&mut self.ip6, wanted, changed, key6),
        }
    }

    pub(super) fn stores(&self) -> usize {
        self.ip4.stores() + self.ip6.stores()
    }

    /// The family whose table cannot hold what is wanted, with the words that it has.
    pub(super) fn too_small_for<V>(&self, wanted: &Wanted<V>) -> Option<(usize, usize)> {
        let fewest = [(F4::FIRST_BLOCK, FEWEST_WORDS[0]), (Ip6::FIRST_BLOCK, FEWEST_WORDS[1])];
        self.usage().into_iter().zip(fewest).enumerate().find_map(|(family, (usage, (first_block, fewest)))| {
            let prefixes = count(wanted, family);
            // Words that are in use now may be of the same prefixes.
            let too_small = usage.prefixes < prefixes && first_block + prefixes * fewest > usage.capacity;
            too_small.then_some((family, usage.capacity))
        })
    }

    /// A larger table of a family for what is wanted, filled: of `least` words and those that its prefixes are expected to take.
    pub(super) fn larger<V: Answer>(
        &self,
        (family, name): (usize, &'static str),
        (words, least): (usize, usize),
        wanted: &Wanted<V>,
    ) -> Result<Larger<F4>, Error> {
        let bytes = match family {
            0 if F4::ROOTS_A_LINE < LINE => BYTES_PER_PREFIX[0],
            0 => BYTES_PER_PREFIX[1],
            _ => BYTES_PER_PREFIX[2],
        };
        let mut words = (words + words / 4).max(least + count(wanted, family) * bytes / size_of::<u32>());
        loop {
            let filled = match family {
                0 => {
                    filled(name, words, of_family::<F4, V>(wanted, key4::<F4>))?.map(|(map, fib)| Larger::Ip4(map, fib))
                }
                _ => filled(name, words, of_family::<Ip6, V>(wanted, key6))?.map(|(map, fib)| Larger::Ip6(map, fib)),
            };
            match filled {
                Some(larger) => return Ok(larger),
                // The estimate was too low for a table as irregular as this one.
                None => words += words / 4,
            }
        }
    }

    /// Goes on with a larger table.
    pub(super) fn take(&mut self, larger: Larger<F4>) {
        let family = match larger {
            Larger::Ip4(_, fib) => {
                self.ip4 = fib;
                0
            }
            Larger::Ip6(_, fib) => {
                self.ip6 = fib;
                1
            }
        };
        for flag in [&mut self.known, &mut self.filled].into_iter().filter_map(|flags| flags.get_mut(family)) {
            *flag = true;
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.ip4.is_settled() && self.ip6.is_settled()
    }

    /// How far look-ups in both families go.
    pub(super) fn depth(&self) -> [&Depth; 2] {
        [self.ip4.depth(), self.ip6.depth()]
    }

    /// Prefixes, and words in use and reserved, of both families.
    pub(super) fn usage(&self) -> [Usage; 2] {
        [self.ip4.usage(), self.ip6.usage()]
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

/// Inserts what has changed and is wanted. Where the present prefixes are not known, everything becomes as wanted.
fn insert_new<F: Family, V: Answer>(
    fib: &mut Fib<F, Mapped>,
    known: bool,
    wanted: &Wanted<V>,
    changed: &Changed,
    key: impl Fn(&IpNet) -> Option<Prefix<F>>,
) -> Result<(), Full> {
    if !known {
        return fib.replace(of_family::<F, V>(wanted, key));
    }
    let new: Vec<(Prefix<F>, u16)> = match changed {
        Changed::Prefixes(prefixes) => {
            let answer = |net: &IpNet| Some((key(net)?, wanted.get(net)?.number()));
            prefixes.iter().filter_map(answer).collect()
        }
        Changed::Everything => new_routes(fib, of_family::<F, V>(wanted, key)),
    };
    new.into_iter().try_for_each(|((address, length), answer)| fib.insert(address, length, answer).map(drop))
}

/// Takes away what has changed and is not wanted.
fn remove_old<F: Family, V: Answer>(
    fib: &mut Fib<F, Mapped>,
    wanted: &Wanted<V>,
    changed: &Changed,
    key: impl Fn(&IpNet) -> Option<Prefix<F>>,
) -> Result<(), Full> {
    let old: Vec<Prefix<F>> = match changed {
        Changed::Prefixes(prefixes) => {
            prefixes.iter().filter(|net| !wanted.contains_key(*net)).filter_map(key).collect()
        }
        Changed::Everything => old_routes(fib, of_family::<F, V>(wanted, key)),
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
