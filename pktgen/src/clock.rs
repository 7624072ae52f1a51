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

/// Median time that a reading of the clock takes, in nanoseconds; as coarse as the clock is.
pub fn read_cost_ns() -> u64 {
    const READINGS: u64 = 64;
    let mut costs: Vec<u64> = (0..31)
        .map(|_| {
            let start = now_ns();
            let end = (0..READINGS).fold(start, |_, _| now_ns());
            (end - start) / READINGS
        })
        .collect();
    costs.sort_unstable();
    costs.get(costs.len() / 2).copied().unwrap_or(0)
}
