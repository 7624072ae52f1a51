//! The counting end of a lab, and the smallest device: the programs of `bpf/lab.bpf.c`.

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
    /// Holds `sampling`.
    data: MapHandle,
}

const ZERO: [u8; 4] = [0; 4];

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
        let value = [frames.to_ne_bytes(), ZERO].concat();
        self.data.update(&ZERO, &value, MapFlags::ANY).context("the sink's data cannot be written")
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

/// The attached redirect from the caller's interface to another of the same namespace; it is detached on drop.
#[derive(Debug)]
pub(crate) struct Redirect {
    _link: Link,
}

impl Redirect {
    /// Attaches it.
    ///
    /// # Errors
    /// No privilege, or the interface has a program already.
    pub(crate) fn attach(ingress: u32, egress: u32, source: Mac, destination: Mac) -> anyhow::Result<Self> {
        let mut storage = MaybeUninit::uninit();
        let mut open = skel::LabSkelBuilder::default().open(&mut storage).context("opening the redirect")?;
        open.progs.lab_sink.set_autoload(false);
        let constants = open.maps.rodata_data.as_deref_mut().context("the object has no read-only data")?;
        constants.egress_ifindex = egress;
        constants.egress_source = source;
        constants.egress_destination = destination;
        let skel = open.load().context("the kernel does not take the redirect (are you root?)")?;
        let link = skel.progs.lab_redirect.attach_xdp(i32::try_from(ingress)?).context("it cannot be attached")?;
        Ok(Self { _link: link })
    }
}
