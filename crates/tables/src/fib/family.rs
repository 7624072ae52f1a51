//! The two address families, as the algorithms see them: addresses are numbers of 128 bits, aligned to the left.

use std::fmt::Debug;

use super::block::{LINE, ROOTS};

/// An address family.
pub trait Family: Copy + Debug + 'static {
    /// An address in host order.
    type Address: Copy + Ord + Debug + Send + 'static;
    /// Bits of an address.
    const BITS: u8;
    /// Root references in a cache line; blocks that they lead to lie behind them, in the same line, where they fit.
    const ROOTS_A_LINE: usize;
    /// The word behind the lines of root references: the group of the default route.
    const DEFAULT_WORD: usize = ROOTS / Self::ROOTS_A_LINE * LINE;
    /// The first word of the memory for blocks that lie in no root reference's line.
    const FIRST_BLOCK: usize = Self::DEFAULT_WORD + 2;
    /// The address in the high bits.
    fn left(address: Self::Address) -> u128;
    /// The address that is in the high bits.
    fn from_left(key: u128) -> Self::Address;
}

/// IPv4, with so many root references in a line.
#[derive(Clone, Copy, Debug)]
pub struct Ip4Of<const ROOTS_A_LINE: usize>;

/// IPv4 of a table that holds routes, most of which a look-up finds in one line: 8 MB of them. Of a million scattered prefixes these are
/// five in six.
pub type Ip4 = Ip4Of<2>;

/// IPv4 of a table that may hold little, whose lines are then in a cache: 1 MB of them.
pub type Ip4Dense = Ip4Of<LINE>;

/// IPv6.
#[derive(Clone, Copy, Debug)]
pub struct Ip6;

impl<const ROOTS_A_LINE: usize> Family for Ip4Of<ROOTS_A_LINE> {
    type Address = u32;
    const BITS: u8 = 32;
    const ROOTS_A_LINE: usize = ROOTS_A_LINE;

    fn left(address: u32) -> u128 {
        u128::from(address) << 96
    }

    fn from_left(key: u128) -> u32 {
        (key >> 96) as u32
    }
}

impl Family for Ip6 {
    type Address = u128;
    const BITS: u8 = 128;
    // Prefixes of one registry crowd below few references, in blocks that are larger than a line: it would stay empty.
    const ROOTS_A_LINE: usize = LINE;

    fn left(address: u128) -> u128 {
        address
    }

    fn from_left(key: u128) -> u128 {
        key
    }
}

/// The addresses that begin with the first `depth` bits of `base`, whose others are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) base: u128,
    pub(super) depth: u8,
}

impl Slot {
    pub(super) fn new(key: u128, depth: u8) -> Self {
        Self { base: key & !tail(depth), depth }
    }

    /// The last address.
    pub(super) fn last(self) -> u128 {
        self.base | tail(self.depth)
    }

    pub(super) fn holds(self, key: u128) -> bool {
        key & !tail(self.depth) == self.base
    }

    /// How many bits a block of up to `bits` can look at: programs have 64 of an address at hand.
    pub(super) fn window<F: Family>(self, bits: u8) -> u8 {
        let end = if self.depth < 64 { F::BITS.min(64) } else { F::BITS };
        bits.min(end - self.depth)
    }

    /// The bits behind the depth, in the high bits of a word.
    pub(super) fn bits_behind(self, key: u128) -> u32 {
        (key.checked_shl(u32::from(self.depth)).unwrap_or(0) >> 96) as u32
    }

    /// The part of this slot whose next `width` bits are the high bits of `bits`.
    pub(super) fn part(self, bits: u32, width: u8) -> Self {
        let bits = (u128::from(bits) << 96).checked_shr(u32::from(self.depth)).unwrap_or(0);
        Self::new(self.base | bits, self.depth + width)
    }
}

/// Ones behind the first `depth` bits.
fn tail(depth: u8) -> u128 {
    u128::MAX.checked_shr(u32::from(depth)).unwrap_or(0)
}
