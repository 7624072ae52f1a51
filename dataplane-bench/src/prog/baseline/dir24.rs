//! DIR-24-8: the longest prefix of an IPv4 address in one or two memory accesses (Gupta, Lin, McKeown, "Routing Lookups
//! in Hardware at Memory Access Speeds", INFOCOM 1998).
//!
//! The first table has an entry for each of the 2^24 values of the first three bytes: a next hop, or with the top bit
//! set the number of a block of 256 entries in the second table, one for each value of the last byte.

use crate::prog::prefixes::Prefixes;

/// Set where an entry of the first table names a block of the second.
const LONG: u16 = 0x8000;
const BLOCK: usize = 256;

/// Too many next hops or too many /24 with longer prefixes in them: 15 bits name 32,768 of either.
#[derive(Debug, thiserror::Error)]
#[error("{what} {number} does not fit the 15 bits of an entry")]
pub(super) struct TooMany {
    what: &'static str,
    number: usize,
}

/// Both tables. Entry 0 is no route.
#[derive(Debug)]
pub(super) struct Dir24_8 {
    pub(super) first: Vec<u16>,
    pub(super) second: Vec<u16>,
}

impl Dir24_8 {
    /// Builds the tables from IPv4 prefixes: shorter ones first, longer ones over them.
    pub(super) fn build(prefixes: &Prefixes) -> Result<Self, TooMany> {
        let mut tables = Self { first: vec![0; 1 << 24], second: Vec::new() };
        let mut sorted: Vec<(u8, u128, u32)> = prefixes.iter().collect();
        sorted.sort_unstable();
        for (length, network, next_hop) in sorted {
            let too_many = || TooMany { what: "next hop", number: next_hop as usize };
            let entry = u16::try_from(next_hop).ok().filter(|entry| entry & LONG == 0).ok_or_else(too_many)?;
            let network = network as usize;
            if length <= 24 {
                let from = network >> 8;
                if let Some(range) = tables.first.get_mut(from..from + (1 << (24 - length))) {
                    range.fill(entry);
                }
            } else {
                let from = tables.block_of(network >> 8)? + (network & (BLOCK - 1));
                if let Some(range) = tables.second.get_mut(from..from + (1 << (32 - length))) {
                    range.fill(entry);
                }
            }
        }
        Ok(tables)
    }

    /// First entry of the block for a value of the first three bytes; made where there is none yet, with the shorter
    /// prefix's next hop in all of it.
    fn block_of(&mut self, index: usize) -> Result<usize, TooMany> {
        let Some(entry) = self.first.get_mut(index) else { return Ok(0) };
        if *entry & LONG != 0 {
            return Ok(usize::from(*entry & !LONG) * BLOCK);
        }
        let number = self.second.len() / BLOCK;
        let name = u16::try_from(number).ok().filter(|name| name & LONG == 0);
        let name = name.ok_or(TooMany { what: "block", number })?;
        self.second.extend(std::iter::repeat_n(*entry, BLOCK));
        *entry = LONG | name;
        Ok(number * BLOCK)
    }

    /// What the program in the kernel computes.
    pub(super) fn lookup(&self, address: u32) -> Option<u32> {
        let entry = *self.first.get((address >> 8) as usize)?;
        let entry = match entry & LONG {
            0 => entry,
            _ => *self.second.get(usize::from(entry & !LONG) * BLOCK + (address & 0xff) as usize)?,
        };
        (entry != 0).then_some(u32::from(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_slow_answer_inside_and_outside_of_the_table() {
        let prefixes = Prefixes::ip4(20_000, 7);
        let tables = Dir24_8::build(&prefixes).unwrap();
        assert!(!tables.second.is_empty());
        let mut rng = fastrand::Rng::with_seed(8);
        let anywhere = (0..20_000).map(|_| u128::from(rng.u32(..)));
        for address in prefixes.addresses(20_000, 9).into_iter().chain(anywhere) {
            assert_eq!(tables.lookup(address as u32), prefixes.lookup(address), "{address:08x}");
        }
    }
}
