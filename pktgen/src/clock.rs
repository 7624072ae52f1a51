//! CLOCK_MONOTONIC in nanoseconds: the clock of sender and receiver, which are one process.

use rustix::time::{ClockId, clock_gettime};

/// Now.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The low 32 bits of a number, as a stamp carries them.
pub fn low_bits(number: u64) -> u32 {
    u32::try_from(number & 0xffff_ffff).unwrap_or(0)
}
