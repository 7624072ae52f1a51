//! Which core does what. A veth pair has no interrupt: what receives is polled by the core that sent, unless the polling
//! has a thread of its own (threaded NAPI) that can be put elsewhere.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use testkit::netns::Netns;

use super::Lab;

/// How long the kernel may take to start a polling thread.
const PATIENCE: Duration = Duration::from_secs(2);

/// Cores of a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    /// The generator's threads, one each.
    pub(crate) generator: Vec<usize>,
    /// The device's work.
    pub(crate) device: usize,
    /// The sink's, where there is one to spare; else the sink runs where the device sends.
    pub(crate) sink: Option<usize>,
}

/// Where the device works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// In the kernel's receive path: it is moved to the device's core by threaded NAPI.
    Kernel,
    /// In a process that polls on the device's core: the kernel's receive path stays on the generator's.
    Process,
}

impl Cores {
    /// The generator on the first cores that this process may run on, the device on the last, the sink before it where
    /// there are enough.
    ///
    /// # Errors
    /// Fewer than two cores, or not enough for so many generator threads beside a device.
    pub(crate) fn assign(threads: usize) -> anyhow::Result<Self> {
        let ids = core_affinity::get_core_ids().context("the kernel does not tell which cores there are")?;
        Self::among(&ids.iter().map(|core| core.id).collect::<Vec<_>>(), threads)
    }

    fn among(cores: &[usize], threads: usize) -> anyhow::Result<Self> {
        ensure!(
            threads >= 1 && cores.len() > threads,
            "{threads} generator threads and a device need {} cores; this process may run on {}",
            threads + 1,
            cores.len()
        );
        let (generator, rest) = cores.split_at(threads);
        let (device, rest) = rest.split_last().context("no core is left for the device")?;
        Ok(Self { generator: generator.to_vec(), device: *device, sink: rest.last().copied() })
    }

    /// All of them, each once.
    pub(crate) fn all(&self) -> impl Iterator<Item = usize> {
        self.generator.iter().copied().chain([self.device]).chain(self.sink)
    }

    /// Puts the lab's receive paths where they belong.
    ///
    /// # Errors
    /// The kernel has no threaded NAPI (before 5.12), or does not let its threads be moved.
    pub(crate) fn place(&self, lab: &Lab, work: Work) -> anyhow::Result<()> {
        if work == Work::Kernel {
            poll_on(&lab.device, &lab.ingress, lab.queues(), self.device)?;
        }
        if let Some(core) = self.sink {
            poll_on(&lab.generator, &lab.to, lab.queues(), core)?;
        }
        Ok(())
    }

    /// For a row of results.
    pub(crate) fn describe(&self, work: Work) -> String {
        let how = match work {
            Work::Kernel => "its receive path by threaded NAPI",
            Work::Process => "its process; the kernel's receive path with the generator",
        };
        format!("{self} ({how})")
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let generator: Vec<String> = self.generator.iter().map(usize::to_string).collect();
        write!(f, "generator on core {}, device on {}", generator.join(","), self.device)?;
        match self.sink {
            Some(core) => write!(f, ", sink on {core}"),
            None => write!(f, ", sink where the device sends"),
        }
    }
}

/// Gives the queues of an interface polling threads of their own, on this core.
fn poll_on(netns: &Netns, interface: &str, queues: u32, core: usize) -> anyhow::Result<()> {
    // /sys shows the namespace of who mounted it, so it is mounted anew by a process that is in there.
    let write = format!("mount -t sysfs lab /sys && echo 1 >/sys/class/net/{interface}/threaded");
    netns
        .run("unshare", &["--mount", "sh", "-c", &write])
        .with_context(|| format!("cannot have {interface} polled by a thread of its own"))?;
    let mut set = CpuSet::new();
    set.set(core);
    let deadline = Instant::now() + PATIENCE;
    let name = format!("napi/{interface}-");
    loop {
        let threads = kernel_threads(&name);
        if u32::try_from(threads.len()).unwrap_or(u32::MAX) >= queues {
            for thread in threads {
                sched_setaffinity(Some(thread), &set)
                    .with_context(|| format!("cannot move the polling of {interface} to core {core}"))?;
            }
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the kernel has no polling thread for {interface}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Threads of the kernel whose names start so.
fn kernel_threads(prefix: &str) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let id: i32 = entry.file_name().to_str()?.parse().ok()?;
            let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
            comm.starts_with(prefix).then(|| Pid::from_raw(id)).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sink_gets_a_core_only_where_one_is_left() {
        let two = Cores::among(&[0, 1], 1).unwrap();
        assert_eq!(two, Cores { generator: vec![0], device: 1, sink: None });
        let four = Cores::among(&[2, 3, 6, 7], 2).unwrap();
        assert_eq!(four, Cores { generator: vec![2, 3], device: 7, sink: Some(6) });
        let error = Cores::among(&[0, 1], 2).unwrap_err().to_string();
        assert!(error.contains("need 3 cores"), "{error}");
    }
}
