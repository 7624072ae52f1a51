//! Does a primitive do what its name says? Asked once, before it is timed.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use libbpf_rs::{MapCore, MapFlags};

use super::keys::{Keys, Routes, Sets};
use super::{LRU_ENTRIES, dir24::Dir24_8};
use crate::prog::bench::Bench;
use crate::prog::sandbox::Sandbox;

/// Packets whose answers are compared, spread over all keys.
const SAMPLE: usize = 512;

/// What the answers must be. That every packet ends as the case says is checked at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// There is nothing to ask.
    None,
    /// The value of a key is its complement.
    Complement,
    /// No value.
    Absent,
    /// Every key is new and takes the place of another.
    Evicts,
    /// The next hop of the longest matching prefix.
    NextHop(Routes),
    /// The key itself.
    Key,
    /// A counter for each packet.
    Counts,
    /// The last byte of the neighbour's Ethernet address.
    Neighbour,
    /// The monotonic clock.
    Clock,
    /// A number that grows by at least 90 in a second.
    Jiffies,
    /// The Internet checksum's change from 0 to the key (RFC 1071).
    Checksum,
}

impl Check {
    pub(super) fn run(self, bench: &mut Bench, keys: Keys, sets: &mut Sets, sandbox: &Sandbox) -> anyhow::Result<()> {
        let keys = sets.keys(keys);
        match self {
            Self::None => Ok(()),
            Self::Complement => answers(bench, &keys, |key| Some(u64::from(!(key as u32)))),
            Self::Absent => answers(bench, &keys, |_| None),
            Self::Key => answers(bench, &keys, |key| Some(key as u64)),
            Self::Neighbour => answers(bench, &keys, |_| sandbox.neighbour.last().map(|byte| u64::from(*byte))),
            Self::NextHop(routes) => {
                let routes = sets.routes(routes);
                answers(bench, &keys, |address| routes.lookup(address).map(u64::from))
            }
            Self::Checksum => sample(bench, &keys, |key, result| {
                let (found, expected) = (fold(result) % 0xffff, fold(u64::from(key as u32)) % 0xffff);
                ensure!(found == expected, "{found:#x}, not {expected:#x}");
                Ok(())
            }),
            Self::Evicts => evicts(bench),
            Self::Counts => counts(bench),
            Self::Clock => clock(bench),
            Self::Jiffies => {
                let before = bench.probe(0)?.result;
                std::thread::sleep(std::time::Duration::from_millis(50));
                let after = bench.probe(0)?.result;
                ensure!(before < after && after - before < 10_000, "{before}, then {after}");
                Ok(())
            }
        }
    }
}

/// Runs packets spread over all keys, one at a time, and has `judge` see each key with its answer.
fn sample(bench: &mut Bench, keys: &[u128], judge: impl Fn(u128, u64) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let step = keys.len().div_ceil(SAMPLE).max(1);
    for (index, key) in keys.iter().enumerate().step_by(step) {
        let result = bench.probe(u32::try_from(index)?)?.result;
        judge(*key, result).with_context(|| format!("key {key:#x}"))?;
    }
    bench.control.next = 0;
    Ok(())
}

fn answers(bench: &mut Bench, keys: &[u128], expected: impl Fn(u128) -> Option<u64>) -> anyhow::Result<()> {
    sample(bench, keys, |key, result| {
        // The control block holds what no look-up finds until one finds something.
        let (found, expected) = (Some(result).filter(|result| *result != u64::MAX), expected(key));
        ensure!(found == expected, "found {found:?}, not {expected:?}");
        Ok(())
    })
}

/// After more inserts than there is room, the map holds no more than fits, the newest key and not the oldest.
fn evicts(bench: &mut Bench) -> anyhow::Result<()> {
    let oldest = !(bench.probe(0)?.result as u32);
    let ran = bench.advance(2 * LRU_ENTRIES as u32)?;
    let newest = !(ran.result as u32);
    let map = bench.subject.loaded.map("lru_full")?;
    let entries = map.keys().collect::<BTreeSet<_>>().len();
    ensure!(entries <= LRU_ENTRIES && entries > LRU_ENTRIES / 2, "{entries} entries of {LRU_ENTRIES}");
    let holds = |key: u32| Ok::<_, libbpf_rs::Error>(map.lookup(&key.to_ne_bytes(), MapFlags::ANY)?.is_some());
    ensure!(holds(newest)? && !holds(oldest)?, "the newest key is not there, or the oldest still is");
    Ok(())
}

fn counts(bench: &mut Bench) -> anyhow::Result<()> {
    const PACKETS: u32 = 1000;
    let total = |bench: &Bench| {
        let map = bench.subject.loaded.map("counters")?;
        let mut total = 0;
        for index in 0..map.max_entries() {
            let cores = map.lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY)?.context("no counter")?;
            for value in cores {
                total += u64::from_ne_bytes(value.as_slice().try_into()?);
            }
        }
        anyhow::Ok(total)
    };
    let before = total(bench)?;
    bench.advance(PACKETS)?;
    let counted = total(bench)? - before;
    ensure!(counted == u64::from(PACKETS), "{counted} counted of {PACKETS}");
    Ok(())
}

fn clock(bench: &mut Bench) -> anyhow::Result<()> {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or(0)
    };
    let before = now();
    let told = bench.probe(0)?.result;
    ensure!((before..=now()).contains(&told), "{told} is not between two readings of the clock");
    Ok(())
}

/// 16-bit one's complement sum.
fn fold(sum: u64) -> u64 {
    let mut sum = sum;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

/// The tables that the program reads agree with the slow answer, on more addresses than a sample through the kernel.
pub(super) fn dir24(tables: &Dir24_8, sets: &mut Sets) -> anyhow::Result<()> {
    let routes = sets.routes(Routes::Ip4Million);
    for address in sets.keys(Keys::In(Routes::Ip4Million)).iter().take(20_000) {
        let (found, expected) = (tables.lookup(*address as u32), routes.lookup(*address));
        ensure!(found == expected, "DIR-24-8 tells {found:?} for {address:#x}, the prefixes tell {expected:?}");
    }
    Ok(())
}
