//! Which keys a look-up is measured with, in which order, and what it must find.

use std::collections::BTreeMap;
use std::rc::Rc;

use fastrand::Rng;

use crate::prog::prefixes::Prefixes;

/// What the names of the cases call 1m and 64k.
pub(super) const N_1M: usize = 1 << 20;
pub(super) const N_64K: usize = 1 << 16;
/// Entries of the big array: 64 MiB of 4 bytes.
pub(super) const CELLS: usize = 1 << 24;
/// Entries of the per-CPU array of counters.
const COUNTERS: usize = 64;
/// Every table and every order is the same in each run.
const SEED: u64 = 0x6d61_7267_6179;

/// A routing table that look-ups are measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::prog) enum Routes {
    Ip4Thousand,
    Ip4HundredThousand,
    Ip4Million,
    Ip6Thousand,
    Ip6TwoHundredThousand,
}

impl Routes {
    pub(super) fn count(self) -> usize {
        match self {
            Self::Ip4Thousand | Self::Ip6Thousand => 1_000,
            Self::Ip4HundredThousand => 100_000,
            Self::Ip4Million => 1_000_000,
            Self::Ip6TwoHundredThousand => 200_000,
        }
    }

    /// Addresses that are looked up in it.
    pub(in crate::prog) fn addresses(self) -> usize {
        match self {
            Self::Ip4Thousand | Self::Ip6Thousand => N_64K,
            Self::Ip4HundredThousand | Self::Ip6TwoHundredThousand => 4 * N_64K,
            Self::Ip4Million => N_1M,
        }
    }

    pub(in crate::prog) fn is_ip6(self) -> bool {
        matches!(self, Self::Ip6Thousand | Self::Ip6TwoHundredThousand)
    }

    /// The addresses that are looked up in it, in their order.
    pub(in crate::prog) fn destinations(self, prefixes: &Prefixes) -> Vec<u128> {
        prefixes.addresses(self.addresses(), SEED)
    }

    pub(in crate::prog) fn draw(self) -> Prefixes {
        let draw = if self.is_ip6() { Prefixes::ip6 } else { Prefixes::ip4 };
        draw(self.count(), SEED + self as u64)
    }
}

/// Keys, in the order of their use. The number of keys is a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Keys {
    /// One key that is in every table.
    One,
    /// 0 to 65,535, shuffled.
    Below64k,
    /// 0 to 2^20 - 1, shuffled.
    Below1m,
    /// 65,536 keys that no hash holds.
    Absent,
    /// 2^20 of the 2^24 indices of the big array.
    Cells,
    /// The indices of the counters, shuffled.
    Counters,
    /// Addresses in the prefixes of a table.
    In(Routes),
    /// The destination of the route that bpf_fib_lookup is asked for.
    Destination,
}

/// 192.0.2.9, behind the route and the neighbour of the run's network namespace.
pub(super) const DESTINATION: u32 = 0xc000_0209;

/// Keys and routing tables of the cases that were chosen; made when they are asked for, and once.
#[derive(Debug, Default)]
pub(super) struct Sets {
    routes: BTreeMap<Routes, Rc<Prefixes>>,
    keys: BTreeMap<Keys, Rc<Vec<u128>>>,
}

impl Sets {
    pub(super) fn routes(&mut self, routes: Routes) -> Rc<Prefixes> {
        Rc::clone(self.routes.entry(routes).or_insert_with(|| Rc::new(routes.draw())))
    }

    pub(super) fn keys(&mut self, keys: Keys) -> Rc<Vec<u128>> {
        if let Some(made) = self.keys.get(&keys) {
            return Rc::clone(made);
        }
        let mut rng = Rng::with_seed(SEED);
        let mut shuffled = |first: usize, count: usize| {
            let mut numbers: Vec<u128> = (first..first + count).map(|number| number as u128).collect();
            rng.shuffle(&mut numbers);
            numbers
        };
        let made = match keys {
            Keys::One => vec![1],
            Keys::Below64k => shuffled(0, N_64K),
            Keys::Below1m => shuffled(0, N_1M),
            Keys::Absent => shuffled(N_1M, N_64K),
            Keys::Cells => (0..N_1M).map(|_| u128::from(rng.u32(..CELLS as u32))).collect(),
            Keys::Counters => shuffled(0, COUNTERS),
            Keys::In(routes) => routes.destinations(&self.routes(routes)),
            Keys::Destination => vec![u128::from(DESTINATION)],
        };
        let made = Rc::new(made);
        self.keys.insert(keys, Rc::clone(&made));
        made
    }
}

impl Keys {
    /// How many different ones there are.
    pub(super) fn count(self) -> usize {
        match self {
            Self::One | Self::Destination => 1,
            Self::Below64k | Self::Absent => N_64K,
            Self::Below1m | Self::Cells => N_1M,
            Self::Counters => COUNTERS,
            Self::In(routes) => routes.addresses(),
        }
    }

    /// The keys are addresses of IPv6.
    pub(super) fn is_ip6(self) -> bool {
        matches!(self, Self::In(routes) if routes.is_ip6())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_keys_is_a_power_of_two_and_they_are_not_in_order() {
        let mut sets = Sets::default();
        for keys in [Keys::One, Keys::Below64k, Keys::Below1m, Keys::Absent, Keys::Cells, Keys::In(Routes::Ip6Thousand)]
        {
            let made = sets.keys(keys);
            assert!(made.len().is_power_of_two(), "{keys:?}");
            let steps = made.windows(2).filter(|pair| pair[1] == pair[0].wrapping_add(1)).count();
            assert!(steps < 10, "{keys:?}");
        }
    }

    #[test]
    fn absent_keys_are_in_no_table() {
        let mut sets = Sets::default();
        let largest = sets.keys(Keys::Below1m).iter().max().copied();
        assert!(sets.keys(Keys::Absent).iter().all(|key| Some(*key) > largest));
    }
}
