//! Namespaces of the run's own: interfaces, a route, a neighbour and pinned maps that nothing else on the machine sees and
//! that go with the process, however it ends.
#![expect(unsafe_code, reason = "leaving the machine's namespaces")]

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use libbpf_rs::OpenObject;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::net::{AddressFamily, SocketType};
use rustix::thread::UnshareFlags;

/// Where packets come in, and where they would go out.
pub(super) const INGRESS: &str = "bench0";
pub(super) const EGRESS: &str = "bench1";
const ADDRESS: &str = "198.18.0.1/24";
const GATEWAY: &str = "198.18.0.2";

/// The namespaces that this thread is in.
#[derive(Debug)]
pub(super) struct Sandbox {
    /// Index of the interface that packets come in by.
    pub(super) ingress: u32,
    /// Index of the interface that the route leads out of.
    pub(super) egress: u32,
    /// Ethernet address of the gateway.
    pub(super) neighbour: [u8; 6],
}

impl Sandbox {
    /// Moves this thread into a new network namespace with two veth interfaces and a route to `destination`, and into a new
    /// mount namespace. BPF_PROG_TEST_RUN and whatever this thread starts from now on live there.
    pub(super) fn enter(destination: Ipv4Addr) -> anyhow::Result<Self> {
        // SAFETY: memory, descriptors and signal handlers stay shared with the process: nothing that Rust relies on changes.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }
            .context("making a network namespace (this needs root)")?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).context("making the mounts private")?;
        let neighbour = [2, 0, 0, 0, 0, 0xfe];
        let mac = neighbour.map(|byte| format!("{byte:02x}")).join(":");
        ip(&format!("link add {INGRESS} type veth peer name {EGRESS}"))?;
        for name in ["lo", INGRESS, EGRESS] {
            ip(&format!("link set {name} up"))?;
        }
        ip(&format!("address add {ADDRESS} dev {EGRESS}"))?;
        ip(&format!("neighbour add {GATEWAY} lladdr {mac} dev {EGRESS} nud permanent"))?;
        ip(&format!("route add {destination}/32 via {GATEWAY}"))?;
        for name in [INGRESS, EGRESS] {
            let path = format!("/proc/sys/net/ipv4/conf/{name}/forwarding");
            fs::write(&path, "1").with_context(|| path.clone())?;
        }
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).context("opening a socket")?;
        let index = |name| rustix::net::netdevice::name_to_index(&socket, name).context(name);
        Ok(Self { ingress: index(INGRESS)?, egress: index(EGRESS)?, neighbour })
    }

    /// Tells an object the interfaces: `struct interfaces` of `helper.h`.
    pub(super) fn tell(&self, open: &mut OpenObject) -> anyhow::Result<()> {
        let mut rodata = open
            .maps_mut()
            .find(|map| map.name() == ".rodata.interfaces")
            .context("the object does not ask for interfaces")?;
        let value: Vec<u8> = [self.ingress, self.egress].into_iter().flat_map(u32::to_ne_bytes).collect();
        let to = rodata.initial_value_mut().and_then(|to| to.get_mut(..value.len()));
        to.context("struct interfaces has another layout")?.copy_from_slice(&value);
        Ok(())
    }
}

/// Runs `ip` in the namespace.
fn ip(arguments: &str) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    let output = command.args(arguments.split(' ')).stdin(Stdio::null()).output().context("starting ip (iproute2)")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {arguments}: {}", stderr.trim());
    Ok(())
}

/// A BPF file system on a directory of its own.
#[derive(Debug)]
pub(super) struct BpfFs {
    directory: tempfile::TempDir,
}

impl BpfFs {
    /// Mounts it; inside a [`Sandbox`] nobody else sees it.
    pub(super) fn mount() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("making a directory for pinned maps")?;
        mount("bpf", directory.path(), "bpf", MountFlags::empty(), None).context("mounting a BPF file system")?;
        Ok(Self { directory })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        // Before the directory is removed. Where it fails, the directory is left and the mount goes with the namespace.
        let _ = unmount(self.directory.path(), UnmountFlags::DETACH);
    }
}
