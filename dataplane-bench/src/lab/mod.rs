//! A generator, a device under test and a sink, wired up in network namespaces of their own.
//!
//! ```text
//! namespace <lab>-gen                     namespace <lab>-dut
//!   from 198.18.0.2  ===== veth =====  in  198.18.0.1
//!                                              | the device under test
//!   to   198.19.0.2  ===== veth =====  out 198.19.0.1
//! ```
//!
//! Addresses are those set aside for benchmarks: 198.18.0.0/15 (RFC 2544 appendix C.2.2) and 2001:2::/48 (RFC 5180
//! section 8). Neighbours are permanent, so no trial pays for ARP. Checksum offload is off: XDP sees frames as they are
//! on a wire. A lab is gone when it is dropped; what a killed process left is cleared by the next one ([`sweep`]).

pub(crate) mod cores;
pub(crate) mod dut;
pub(crate) mod frame;
pub(crate) mod path;
pub(crate) mod sender;
pub(crate) mod sink;
pub(crate) mod traffic;
pub(crate) mod watch;

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context as _;
use packet::layer::Mac;
use rustix::process::{Pid, test_kill_process};
use testkit::netns::Netns;

/// What the names of namespaces and pin directories start with; the process id and a number follow.
const PREFIX: &str = "bench";

/// Ethernet addresses of the four ends.
pub(crate) const FROM_MAC: Mac = [0x02, 0, 0, 0x18, 0, 0x02];
pub(crate) const IN_MAC: Mac = [0x02, 0, 0, 0x18, 0, 0x01];
pub(crate) const OUT_MAC: Mac = [0x02, 0, 0, 0x19, 0, 0x01];
pub(crate) const TO_MAC: Mac = [0x02, 0, 0, 0x19, 0, 0x02];
/// Those of a second way out, where a method asks for one.
pub(crate) const OUT2_MAC: Mac = [0x02, 0, 0, 0x20, 0, 0x01];
pub(crate) const TO2_MAC: Mac = [0x02, 0, 0, 0x20, 0, 0x02];

/// The gateway behind `out`, and the prefixes that are reached through it.
pub(crate) const NEXT_HOP4: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 2);
pub(crate) const NEXT_HOP6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0x8000, 0, 0, 0, 2);
pub(crate) const BEHIND4: &str = "198.19.0.0/16";
pub(crate) const BEHIND6: &str = "2001:2:0:8000::/49";

/// The interface that the generator sends on, and the one that leaves the device.
pub(crate) const FROM: &str = "from";
pub(crate) const OUT: &str = "out";

/// One lab.
#[derive(Debug)]
pub(crate) struct Lab {
    /// Holds `from` and `to`.
    pub(crate) generator: Arc<Netns>,
    /// Holds `in` and `out`, and the device under test.
    pub(crate) device: Arc<Netns>,
    /// The interface that packets enter the device by. It and the sink's are unique on the machine: the kernel's polling
    /// threads bear their names and are found by them.
    pub(crate) ingress: String,
    /// The sink's interface.
    pub(crate) to: String,
    queues: u32,
}

impl Lab {
    /// Puts a lab up whose links have this many queues.
    ///
    /// # Errors
    /// What `ip` or `ethtool` wrote; not root, most of the time.
    pub(crate) fn new(queues: u32) -> anyhow::Result<Self> {
        let generator = Arc::new(Netns::new(&format!("{PREFIX}-gen"))?);
        let device = Arc::new(Netns::new(&format!("{PREFIX}-dut"))?);
        let lab = Self { generator, device, ingress: unique("in"), to: unique("to"), queues };
        for netns in [&lab.generator, &lab.device] {
            quiet(netns)?;
        }
        link((&lab.generator, FROM, FROM_MAC), (&lab.device, &lab.ingress, IN_MAC), queues)?;
        link((&lab.generator, &lab.to, TO_MAC), (&lab.device, OUT, OUT_MAC), queues)?;
        lab.address()?;
        Ok(lab)
    }

    /// A second way out of the device, by a link called `out`; tells the name of its end at the generator.
    ///
    /// # Errors
    /// As for a lab.
    pub(crate) fn second_exit(&self, out: &str, address: &str, peer: &str) -> anyhow::Result<String> {
        let to = unique("to");
        link((&self.generator, &to, TO2_MAC), (&self.device, out, OUT2_MAC), self.queues)?;
        self.device.ip(&["address", "add", address, "dev", out])?;
        let mac = mac_text(TO2_MAC);
        self.device.ip(&["neighbor", "replace", peer, "lladdr", &mac, "dev", out, "nud", "permanent"])?;
        Ok(to)
    }

    /// Queues of each link.
    pub(crate) fn queues(&self) -> u32 {
        self.queues
    }

    /// Where a device may keep files of its own: nothing but names, made and removed by who uses it.
    pub(crate) fn name(&self) -> &str {
        self.device.name()
    }

    fn address(&self) -> anyhow::Result<()> {
        let (gen_ns, dut) = (&self.generator, &self.device);
        let (ingress, to) = (self.ingress.as_str(), self.to.as_str());
        let text = |mac| mac_text(mac);
        for (netns, name, v4, v6, peers) in [
            (gen_ns, FROM, "198.18.0.2/24", "2001:2::2/64", [("198.18.0.1", IN_MAC), ("2001:2::1", IN_MAC)]),
            (dut, ingress, "198.18.0.1/24", "2001:2::1/64", [("198.18.0.2", FROM_MAC), ("2001:2::2", FROM_MAC)]),
            (dut, OUT, "198.19.0.1/24", "2001:2:0:8000::1/64", [("198.19.0.2", TO_MAC), ("2001:2:0:8000::2", TO_MAC)]),
            (
                gen_ns,
                to,
                "198.19.0.2/24",
                "2001:2:0:8000::2/64",
                [("198.19.0.1", OUT_MAC), ("2001:2:0:8000::1", OUT_MAC)],
            ),
        ] {
            netns.ip(&["address", "add", v4, "dev", name])?;
            netns.ip(&["address", "add", v6, "dev", name, "nodad"])?;
            for (peer, mac) in peers {
                netns.ip(&["neighbor", "replace", peer, "lladdr", &text(mac), "dev", name, "nud", "permanent"])?;
            }
        }
        let (next4, next6) = (NEXT_HOP4.to_string(), NEXT_HOP6.to_string());
        dut.ip(&["route", "add", BEHIND4, "via", &next4])?;
        dut.ip(&["-6", "route", "add", BEHIND6, "via", &next6])?;
        Ok(())
    }
}

/// A link without a device: what is sent on `from` is counted at its other end, in the same namespace.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) netns: Arc<Netns>,
    pub(crate) to: String,
}

impl Pair {
    /// Puts it up with this many queues.
    ///
    /// # Errors
    /// As for a lab.
    pub(crate) fn new(queues: u32) -> anyhow::Result<Self> {
        let netns = Arc::new(Netns::new(&format!("{PREFIX}-gen"))?);
        quiet(&netns)?;
        let to = unique("to");
        link((&netns, FROM, FROM_MAC), (&netns, &to, TO_MAC), queues)?;
        Ok(Self { netns, to })
    }
}

/// An interface name that no other lab on the machine has.
fn unique(name: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!("{name}{}x{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// A stack that says nothing of its own and forwards nothing unless a device turns it on.
fn quiet(netns: &Netns) -> anyhow::Result<()> {
    for (key, value) in [
        ("net.ipv4.ip_forward", "0"),
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
        ("net.ipv4.conf.all.send_redirects", "0"),
        ("net.ipv6.conf.all.forwarding", "0"),
        ("net.ipv6.conf.default.accept_ra", "0"),
        ("net.ipv6.conf.default.router_solicitations", "0"),
        ("net.ipv6.conf.default.accept_dad", "0"),
    ] {
        netns.sysctl(key, value)?;
    }
    Ok(())
}

/// A veth pair. Receiving by NAPI, which GRO turns on and which must be on before the pair comes up, is what lets XDP send
/// into the other end.
fn link(near: (&Netns, &str, Mac), far: (&Netns, &str, Mac), queues: u32) -> anyhow::Result<()> {
    let queues = queues.to_string();
    let sizes = ["numrxqueues", queues.as_str(), "numtxqueues", queues.as_str()];
    let (near_mac, far_mac) = (mac_text(near.2), mac_text(far.2));
    let mut args = vec!["link", "add", near.1, "address", near_mac.as_str()];
    args.extend(sizes);
    args.extend(["type", "veth", "peer", "name", far.1, "netns", far.0.name(), "address", far_mac.as_str()]);
    args.extend(sizes);
    near.0.ip(&args)?;
    for (netns, name, _) in [near, far] {
        netns.run("ethtool", &["-K", name, "tx", "off", "gro", "on"])?;
    }
    for (netns, name, _) in [near, far] {
        netns.ip(&["link", "set", name, "up"])?;
    }
    Ok(())
}

/// `02:00:00:18:00:01`.
pub(crate) fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Where a device of this lab may pin, on the bpf file system.
pub(crate) fn pin_dir(lab: &Lab) -> PathBuf {
    PathBuf::from("/sys/fs/bpf").join(lab.name())
}

/// Removes what the labs of dead processes have left: their namespaces and pins.
///
/// # Errors
/// `ip` cannot delete a namespace.
pub(crate) fn sweep() -> anyhow::Result<()> {
    for directory in ["/run/netns", "/sys/fs/bpf"] {
        // Either may not be there yet.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !owner(&name).is_some_and(is_dead) {
                continue;
            }
            if directory == "/run/netns" {
                let mut delete = std::process::Command::new("ip");
                let status = delete.args(["netns", "delete", &name]).status().context("cannot start ip")?;
                anyhow::ensure!(status.success(), "cannot delete the namespace {name} that a killed run has left");
            } else {
                fs::remove_dir_all(entry.path()).with_context(|| {
                    format!("cannot remove {}, which a killed run has left", entry.path().display())
                })?;
            }
        }
    }
    Ok(())
}

/// The process that a lab's name tells of: `bench-<part>-<process>-<number>`.
fn owner(name: &str) -> Option<i32> {
    let mut parts = name.strip_prefix(PREFIX)?.strip_prefix('-')?.split('-');
    let (part, process, number) = (parts.next()?, parts.next()?, parts.next()?);
    let ours = matches!(part, "gen" | "dut") && parts.next().is_none() && number.parse::<u32>().is_ok();
    process.parse().ok().filter(|_| ours)
}

fn is_dead(process: i32) -> bool {
    Pid::from_raw(process).is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_labs_have_an_owner() {
        assert_eq!(owner("bench-gen-4711-0"), Some(4711));
        for name in ["bench-gen-4711", "bench-x-1-2", "margay-gen-1-2", "bench-gen-1-2-3", "bench-dut-1-x", "bench"] {
            assert_eq!(owner(name), None, "{name}");
        }
        assert!(!is_dead(i32::try_from(std::process::id()).unwrap()));
    }
}
