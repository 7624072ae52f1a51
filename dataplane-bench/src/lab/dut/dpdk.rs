//! DPDK's testpmd on the lab's links, without hugepages and without taking an interface from the kernel: its af_packet and
//! af_xdp drivers. It writes new link-layer addresses and sends (`--forward-mode=mac`); it routes nothing.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{ChildStdin, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use testkit::netns::Process;

use super::{Dut, Running};
use crate::lab::cores::{Cores, Work};
use crate::lab::traffic::{Expected, Traffic};
use crate::lab::{Lab, OUT, TO_MAC, mac_text};

/// Memory that it may take, in MiB, and packets' worth of buffers.
const MEMORY_MIB: &str = "256";
const BUFFERS: &str = "16384";
/// How long it may take to come up.
const PATIENCE: Duration = Duration::from_secs(20);
/// What it says when it forwards.
const READY: &str = "Press enter to exit";

/// The driver that it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    AfPacket,
    AfXdp,
}

/// testpmd.
pub(super) struct Testpmd(Driver);

impl Testpmd {
    pub(super) fn by_name(name: &str) -> Option<Self> {
        match name {
            "testpmd-af_packet" => Some(Self(Driver::AfPacket)),
            "testpmd-af_xdp" => Some(Self(Driver::AfXdp)),
            _ => None,
        }
    }

    /// Its two virtual devices.
    fn devices(&self, lab: &Lab) -> [String; 2] {
        let name = match self.0 {
            Driver::AfPacket => "net_af_packet",
            Driver::AfXdp => "net_af_xdp",
        };
        [format!("{name}0,iface={}", lab.ingress), format!("{name}1,iface={OUT}")]
    }
}

impl Dut for Testpmd {
    fn name(&self) -> String {
        match self.0 {
            Driver::AfPacket => "dpdk/testpmd-af_packet",
            Driver::AfXdp => "dpdk/testpmd-af_xdp",
        }
        .to_owned()
    }

    fn about(&self) -> String {
        "dpdk-testpmd --forward-mode=mac, one polling core, no hugepages".to_owned()
    }

    fn work(&self) -> Work {
        Work::Process
    }

    fn traffic(&self, flows: u32) -> (Traffic, Expected) {
        let traffic = Traffic::ipv4(flows);
        let expected = Expected { hops: 0, ..Expected::forwarded(&traffic) };
        (traffic, expected)
    }

    fn prepare(&self, lab: &Arc<Lab>, cores: &Cores) -> anyhow::Result<Box<dyn Running>> {
        let files = tempfile::tempdir()?;
        // The first core is that of its command line, which sleeps; the second forwards.
        let first = cores.generator.first().copied().unwrap_or(cores.device);
        let [ingress, egress] = self.devices(lab);
        // Its words are what tells that it is ready; they must not wait in a buffer.
        let mut command = lab.device.command("stdbuf");
        command.args(["-o0", "dpdk-testpmd"]).arg("--lcores").arg(format!("0@{first},1@{}", cores.device));
        command.args(["--no-huge", "-m", MEMORY_MIB, "--no-shconf", "--no-pci", "--no-telemetry"]);
        command.args(["--vdev", &ingress, "--vdev", &egress, "--", "--forward-mode=mac", "--auto-start"]);
        command.args(["--nb-cores=1", "--no-mlockall", "--total-num-mbufs", BUFFERS]);
        command.arg(format!("--eth-peer=1,{}", mac_text(TO_MAC)));
        // Where it would leave its files in /var/run otherwise.
        command.env("RUNTIME_DIRECTORY", files.path());
        let words = files.path().join("words");
        let log = File::create(&words)?;
        // It ends when there is nothing more to read: its standard input stays open.
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let mut process = Process::start(command)?;
        let stdin = process.child().stdin.take();
        let mut running = Poller { process, _stdin: stdin, files };
        running.wait()?;
        Ok(Box::new(running))
    }

    fn programs(&self) -> Vec<PathBuf> {
        vec![PathBuf::from("/usr/bin/dpdk-testpmd")]
    }
}

/// testpmd at work. It polls, so it is stopped while others are measured.
struct Poller {
    process: Process,
    _stdin: Option<ChildStdin>,
    files: TempDir,
}

impl Poller {
    fn wait(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut words = String::new();
            File::open(self.files.path().join("words"))?.read_to_string(&mut words)?;
            if words.contains(READY) {
                return Ok(());
            }
            let status = self.process.child().try_wait()?;
            let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
            ensure!(status.is_none(), "dpdk-testpmd has ended: {last}");
            ensure!(Instant::now() < deadline, "dpdk-testpmd does not come up: {last}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        ensure!(self.process.child().try_wait()?.is_none(), "dpdk-testpmd has died");
        let id = Pid::from_child(self.process.child());
        kill_process(id, signal).context("dpdk-testpmd")
    }
}

impl Running for Poller {
    fn pause(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    fn resume(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }
}
