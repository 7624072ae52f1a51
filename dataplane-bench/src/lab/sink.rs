//! The counting end of a lab, and devices to hold others against: the programs of `bpf/lab.bpf.c`.

use std::mem::MaybeUninit;

use anyhow::{Context as _, ensure};
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{Link, MapCore as _, MapFlags, MapHandle};
use packet::layer::Mac;

#[allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    dead_code,
    non_camel_case_types,
    clippy::all,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::undocumented_unsafe_blocks,
    reason = "generated"
)]
mod skel {
    include!(concat!(env!("OUT_DIR"), "/lab.skel.rs"));
}

/// What the sink has counted since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Packets to the networks of benchmarks.
    pub(crate) packets: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Packets to anywhere else, which were left to the kernel.
    pub(crate) others: u64,
}

/// The attached sink; it is detached on drop.
#[derive(Debug)]
pub(crate) struct Sink {
    _link: Link,
    counts: MapHandle,
    samples: MapHandle,
    latencies: MapHandle,
    /// Holds `sampling`.
    data: MapHandle,
}

const ZERO: [u8; 4] = [0; 4];

/// Buckets of a power of two, and all of them, as in the program.
const PER_POWER: usize = 128;
const BUCKETS: usize = 26 * PER_POWER;

/// How many packets took how long, in buckets of a width that is at most 1/128 of their start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Latencies {
    counts: Vec<u64>,
}

impl Latencies {
    /// What has been added since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let before = before.counts.iter().copied().chain(std::iter::repeat(0));
        Self { counts: self.counts.iter().zip(before).map(|(now, before)| now - before).collect() }
    }

    /// Packets.
    pub(crate) fn packets(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The value in ns that this share of the packets, 0 to 1, does not exceed; `None` without packets.
    pub(crate) fn quantile(&self, share: f64) -> Option<u64> {
        let rank = ((self.packets() as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map(highest_in)
    }

    /// The lowest value, ns.
    pub(crate) fn min(&self) -> Option<u64> {
        self.counts.iter().position(|count| *count > 0).map(lowest_in)
    }

    /// `[value in ns, percentile]` at every bucket that has packets, ascending.
    pub(crate) fn curve(&self) -> Vec<[f64; 2]> {
        let all = self.packets().max(1) as f64;
        let mut seen = 0;
        let counted = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        counted
            .map(|(bucket, count)| {
                seen += count;
                [highest_in(bucket) as f64, seen as f64 / all * 100.0]
            })
            .collect()
    }
}

/// The lowest value of a bucket.
fn lowest_in(bucket: usize) -> u64 {
    let power = (bucket / PER_POWER).saturating_sub(1);
    let within = if bucket < PER_POWER { bucket } else { PER_POWER + bucket % PER_POWER };
    u64::try_from(within).unwrap_or(0) << power
}

/// The highest value of a bucket.
fn highest_in(bucket: usize) -> u64 {
    lowest_in(bucket + 1) - 1
}

impl Sink {
    /// Most frames that can be kept.
    pub(crate) const SAMPLES: u32 = 1024;

    /// Attaches it, in the driver, to an interface of the caller's namespace.
    ///
    /// # Errors
    /// No privilege, or the interface has a program already.
    pub(crate) fn attach(ifindex: u32) -> anyhow::Result<Self> {
        let mut storage = MaybeUninit::uninit();
        let mut open = skel::LabSkelBuilder::default().open(&mut storage).context("opening the sink")?;
        open.progs.lab_redirect.set_autoload(false);
        open.progs.lab_router.set_autoload(false);
        let skel = open.load().context("the kernel does not take the sink (are you root?)")?;
        let link = skel
            .progs
            .lab_sink
            .attach_xdp(i32::try_from(ifindex)?)
            .context("the sink cannot be attached: has the interface a program already (`ip link`)?")?;
        let handle = |map: &dyn MapCoreObject| map.handle();
        Ok(Self {
            _link: link,
            counts: handle(&skel.maps.counts)?,
            samples: handle(&skel.maps.samples)?,
            latencies: handle(&skel.maps.latencies)?,
            data: handle(&skel.maps.bss)?,
        })
    }

    /// What it has counted, all cores together.
    ///
    /// # Errors
    /// The map cannot be read.
    pub(crate) fn count(&self) -> anyhow::Result<Count> {
        let cores = self.counts.lookup_percpu(&ZERO, MapFlags::ANY)?.context("the sink has no counters")?;
        let word = |core: &[u8], at: usize| {
            let bytes = core.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_ne_bytes)
        };
        Ok(cores.iter().fold(Count::default(), |sum, core| Count {
            packets: sum.packets + word(core, 0),
            bytes: sum.bytes + word(core, 8),
            others: sum.others + word(core, 16),
        }))
    }

    /// From now on, keeps the start of the next `frames` frames.
    ///
    /// # Errors
    /// More than [`Self::SAMPLES`], or the map cannot be written.
    pub(crate) fn sample(&self, frames: u32) -> anyhow::Result<()> {
        ensure!(frames <= Self::SAMPLES, "the sink keeps {} frames", Self::SAMPLES);
        let value = [frames.to_ne_bytes(), ZERO, ZERO].concat();
        self.data.update(&ZERO, &value, MapFlags::ANY).context("the sink's data cannot be written")
    }

    /// Has it take latencies from now on, or no more.
    ///
    /// # Errors
    /// The map cannot be written.
    pub(crate) fn time(&self, on: bool) -> anyhow::Result<()> {
        let value = [ZERO, ZERO, u32::from(on).to_ne_bytes()].concat();
        self.data.update(&ZERO, &value, MapFlags::ANY).context("the sink's data cannot be written")
    }

    /// The latencies that it has taken since it was attached.
    ///
    /// # Errors
    /// The map cannot be read.
    pub(crate) fn latencies(&self) -> anyhow::Result<Latencies> {
        let mut counts = Vec::with_capacity(BUCKETS);
        for bucket in 0..u32::try_from(BUCKETS)? {
            let cores = self.latencies.lookup_percpu(&bucket.to_ne_bytes(), MapFlags::ANY)?;
            let words = cores.into_iter().flatten().filter_map(|core| Some(u64::from_ne_bytes(*core.first_chunk()?)));
            counts.push(words.sum());
        }
        Ok(Latencies { counts })
    }

    /// The frames that were kept, as far as they were: 128 bytes of each at most.
    ///
    /// # Errors
    /// A map cannot be read.
    pub(crate) fn samples(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let data = self.data.lookup(&ZERO, MapFlags::ANY)?.context("the sink has no data")?;
        let kept = data.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes);
        (0..kept.min(Self::SAMPLES))
            .map(|at| {
                let sample = self.samples.lookup(&at.to_ne_bytes(), MapFlags::ANY)?.context("a frame is missing")?;
                let (len, bytes) = sample.split_first_chunk::<4>().context("a frame has no length")?;
                let len = usize::try_from(u32::from_ne_bytes(*len))?.min(bytes.len());
                Ok(bytes.iter().copied().take(len).collect())
            })
            .collect()
    }
}

/// A map of a skeleton, outliving it.
trait MapCoreObject {
    fn handle(&self) -> anyhow::Result<MapHandle>;
}

impl MapCoreObject for libbpf_rs::MapMut<'_> {
    fn handle(&self) -> anyhow::Result<MapHandle> {
        Ok(MapHandle::try_from(self)?)
    }
}

/// A device on the caller's interface; it is detached on drop.
#[derive(Debug)]
pub(crate) struct Device {
    _link: Link,
}

impl Device {
    /// Attaches the redirect to another interface of the same namespace, with these link-layer addresses.
    ///
    /// # Errors
    /// No privilege, or the interface has a program already.
    pub(crate) fn redirect(ingress: u32, egress: u32, source: Mac, destination: Mac) -> anyhow::Result<Self> {
        let mut storage = MaybeUninit::uninit();
        let mut open = skel::LabSkelBuilder::default().open(&mut storage).context("opening the redirect")?;
        open.progs.lab_sink.set_autoload(false);
        open.progs.lab_router.set_autoload(false);
        let constants = open.maps.rodata_data.as_deref_mut().context("the object has no read-only data")?;
        constants.egress_ifindex = egress;
        constants.egress_source = source;
        constants.egress_destination = destination;
        let skel = open.load().context("the kernel does not take the redirect (are you root?)")?;
        let link = skel.progs.lab_redirect.attach_xdp(i32::try_from(ingress)?).context("it cannot be attached")?;
        Ok(Self { _link: link })
    }

    /// Attaches the router on the kernel's tables.
    ///
    /// # Errors
    /// No privilege, or the interface has a program already.
    pub(crate) fn router(ingress: u32) -> anyhow::Result<Self> {
        let mut storage = MaybeUninit::uninit();
        let mut open = skel::LabSkelBuilder::default().open(&mut storage).context("opening the router")?;
        open.progs.lab_sink.set_autoload(false);
        open.progs.lab_redirect.set_autoload(false);
        let skel = open.load().context("the kernel does not take the router (are you root?)")?;
        let link = skel.progs.lab_router.attach_xdp(i32::try_from(ingress)?).context("it cannot be attached")?;
        Ok(Self { _link: link })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `bucket_of` of the program.
    fn bucket_of(ns: u32) -> usize {
        let power = ns.checked_ilog2().unwrap_or(0).saturating_sub(7);
        ((power as usize) << 7) + (ns >> power) as usize
    }

    #[test]
    fn buckets_hold_their_values_and_follow_each_other() {
        for ns in [0, 1, 127, 128, 129, 255, 256, 257, 1000, 65_535, 1 << 20, u32::MAX] {
            let bucket = bucket_of(ns);
            assert!(bucket < BUCKETS && (lowest_in(bucket)..=highest_in(bucket)).contains(&ns.into()), "{ns}");
            assert!(highest_in(bucket) - lowest_in(bucket) <= u64::from(ns) / 128, "{ns}");
        }
        for bucket in 1..BUCKETS {
            assert_eq!(bucket_of(u32::try_from(lowest_in(bucket)).unwrap()), bucket);
        }
    }

    #[test]
    fn quantiles_and_curve_tell_the_same() {
        let mut counts = vec![0; BUCKETS];
        for (ns, packets) in [(100, 50), (1000, 49), (50_000, 1)] {
            counts[bucket_of(ns)] = packets;
        }
        let latencies = Latencies { counts };
        assert_eq!((latencies.packets(), latencies.min()), (100, Some(100)));
        assert_eq!(latencies.quantile(0.5), Some(100));
        assert_eq!(latencies.quantile(0.51), Some(highest_in(bucket_of(1000))));
        assert_eq!(latencies.quantile(1.0), Some(highest_in(bucket_of(50_000))));
        assert_eq!(latencies.curve().iter().map(|point| point[1]).collect::<Vec<_>>(), [50.0, 99.0, 100.0]);
        assert_eq!(latencies.since(&latencies).quantile(0.5), None);
    }
}
