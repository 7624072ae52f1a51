//! The senders that pktgen is held against: sendmmsg, and what Debian has for the purpose.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use pcap_file::pcap::{PcapPacket, PcapWriter};
use pktgen::interface::Interface;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use testkit::netns::{Netns, Process};

use super::{Sent, sendmmsg};
use crate::lab::path::{Path, Trial};
use crate::lab::traffic::Traffic;
use crate::lab::{FROM_MAC, frame};

/// Frames of the capture that tcpreplay sends again and again: enough that its loop is not what is measured.
const CAPTURED: u32 = 10_000;
/// How long a program may take until its first packet arrives.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// A sender beside pktgen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rival {
    /// AF_PACKET, sendmmsg, batches of 64 frames.
    Sendmmsg,
    /// `tcpreplay --topspeed --preload-pcap`.
    Tcpreplay,
    /// netsniff-ng's `trafgen`: AF_PACKET TX ring without queueing discipline.
    Trafgen,
}

impl Rival {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Sendmmsg, Self::Tcpreplay, Self::Trafgen];

    /// As rows name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sendmmsg => "generator/af_packet-sendmmsg",
            Self::Tcpreplay => "generator/tcpreplay",
            Self::Trafgen => "generator/trafgen",
        }
    }

    /// How it is driven.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Sendmmsg => "AF_PACKET, 64 frames a call",
            Self::Tcpreplay => "--topspeed --preload-pcap --loop 0, a capture of 10,000 frames",
            Self::Trafgen => "one process, TX ring, no queueing discipline",
        }
    }

    /// Sends for this long at full speed from one core and counts what arrives.
    ///
    /// # Errors
    /// The program is not there, ends, or nothing of it arrives.
    pub(crate) fn trial(
        self,
        path: &Path,
        netns: &Netns,
        traffic: &Traffic,
        core: usize,
        duration: Duration,
    ) -> anyhow::Result<Trial> {
        let files = tempfile::tempdir().context("a directory for the sender's files")?;
        let (from, next_hop) = path.first_link();
        let frame = |flow| frame::build(traffic, flow, FROM_MAC, next_hop);
        let program = match self {
            Self::Sendmmsg => {
                let frames = (0..traffic.flows.min(sendmmsg::BATCH as u32)).map(frame).collect::<Result<_, _>>()?;
                return path.counted(|| {
                    ensure!(core_affinity::set_for_current(core_affinity::CoreId { id: core }), "no core {core}");
                    Ok(sendmmsg::Sender::open(Interface::new(from)?.index(), frames)?.run(duration)?)
                });
            }
            Self::Tcpreplay => {
                let frames = (0..CAPTURED).map(|n| frame(n % traffic.flows));
                let capture = capture(&files, frames)?;
                vec!["tcpreplay", "--topspeed", "--preload-pcap", "--quiet", "--loop", "0", "--intf1", from]
                    .into_iter()
                    .map(str::to_owned)
                    .chain([capture])
                    .collect::<Vec<_>>()
            }
            Self::Trafgen => {
                ensure!(traffic.flows == 1, "trafgen is given one frame");
                let bytes: Vec<String> = frame(0)?.iter().map(|byte| format!("0x{byte:02x}")).collect();
                let config = files.path().join("frame.cfg");
                std::fs::write(&config, format!("{{ {} }}\n", bytes.join(", ")))?;
                let config = config.display().to_string();
                ["trafgen", "--cpus", "1", "--no-cpu-stats", "--dev", from, "--conf", config.as_str()]
                    .map(str::to_owned)
                    .to_vec()
            }
        };
        let mut command = netns.command("taskset");
        command.arg("--cpu-list").arg(core.to_string()).args(&program).stdin(Stdio::null()).stdout(Stdio::null());
        // Its own words would run into a pipe that nobody reads while it sends.
        let words = files.path().join("words");
        command.stderr(File::create(&words)?);
        let process = Group::start(command)?;
        running(process, path, duration).with_context(|| {
            let words = std::fs::read_to_string(&words).unwrap_or_default();
            format!("{}: {}", self.name(), words.lines().next_back().unwrap_or("it says nothing"))
        })
    }
}

/// A program and what it has forked: trafgen sends from a child, which outlives its parent's death.
struct Group(Process);

impl Group {
    fn start(mut command: Command) -> anyhow::Result<Self> {
        command.process_group(0);
        Ok(Self(Process::start(command)?))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The group has the number of its first process, which is not given again before that is reaped.
        let _ = kill_process_group(Pid::from_child(self.0.child()), Signal::KILL);
    }
}

/// What arrives within `duration` from a program that sends until it is killed.
fn running(mut process: Group, path: &Path, duration: Duration) -> anyhow::Result<Trial> {
    let sink = path.sink();
    let idle = sink.count()?.packets;
    let deadline = Instant::now() + START_PATIENCE;
    while sink.count()?.packets == idle {
        if let Some(status) = process.0.child().try_wait()? {
            bail!("it has ended ({status})");
        }
        ensure!(Instant::now() < deadline, "nothing of it arrives");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Its first packets pay for page faults and caches.
    std::thread::sleep(Duration::from_millis(100));
    let (start, before) = (Instant::now(), sink.count()?.packets);
    std::thread::sleep(duration);
    let (received, seconds) = (sink.count()?.packets - before, start.elapsed().as_secs_f64());
    ensure!(process.0.child().try_wait()?.is_none(), "it has ended before its time");
    drop(process);
    // On a pair of veth ends nothing is lost between a sender and an XDP program: what arrives is what it sent.
    Ok(Trial { sent: Sent { packets: received, seconds }, received })
}

/// A file with these frames.
fn capture(files: &TempDir, frames: impl Iterator<Item = anyhow::Result<Vec<u8>>>) -> anyhow::Result<String> {
    let path = files.path().join("frames.pcap");
    let mut writer = PcapWriter::new(std::io::BufWriter::new(File::create(&path)?))?;
    for (n, frame) in (0u32..).zip(frames) {
        let frame = frame?;
        let length = u32::try_from(frame.len())?;
        writer.write_packet(&PcapPacket::new(Duration::from_micros(n.into()), length, &frame))?;
    }
    writer.into_writer().flush()?;
    Ok(path.display().to_string())
}
