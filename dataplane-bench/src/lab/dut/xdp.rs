//! Devices in XDP that are not margay: the bare redirect, below which nothing on these links can be, and xdp-tools'
//! filter.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use pktgen::interface::Interface;

use super::kernel::forwarding;
use super::netfilter::{denied, denied_source};
use super::{Dut, Running, State, scale};
use crate::lab::cores::Cores;
use crate::lab::traffic::{Expected, Traffic};
use crate::lab::{Lab, OUT, OUT_MAC, TO_MAC, path, sink};
use crate::result::Scale;

/// New link-layer addresses and `bpf_redirect`.
pub(super) struct Redirect;

impl Dut for Redirect {
    fn name(&self) -> String {
        "xdp/redirect".to_owned()
    }

    fn about(&self) -> String {
        "XDP program that does nothing but redirect: the floor".to_owned()
    }

    fn traffic(&self, flows: u32) -> (Traffic, Expected) {
        let traffic = Traffic::ipv4(flows);
        let expected = Expected { hops: 0, ..Expected::forwarded(&traffic) };
        (traffic, expected)
    }

    fn prepare(&self, lab: &Arc<Lab>, _: &Cores) -> anyhow::Result<Box<dyn Running>> {
        let link = path::inside(Some(&lab.device), || {
            let (ingress, egress) = (Interface::new(&lab.ingress)?, Interface::new(OUT)?);
            sink::Device::redirect(ingress.index(), egress.index(), OUT_MAC, TO_MAC)
        })??;
        Ok(Box::new(Attached { _link: link }))
    }
}

struct Attached {
    _link: sink::Device,
}

impl Running for Attached {}

/// `bpf_fib_lookup`, TTL, link-layer addresses and `bpf_redirect`.
pub(super) struct Router;

impl Dut for Router {
    fn name(&self) -> String {
        "xdp/fib-lookup".to_owned()
    }

    fn about(&self) -> String {
        "XDP program that asks the kernel's table (bpf_fib_lookup) and redirects, as xdp-forward does".to_owned()
    }

    fn prepare(&self, lab: &Arc<Lab>, _: &Cores) -> anyhow::Result<Box<dyn Running>> {
        // The helper answers only where the kernel would forward.
        forwarding(lab)?;
        let link = path::inside(Some(&lab.device), || sink::Device::router(Interface::new(&lab.ingress)?.index()))??;
        Ok(Box::new(Attached { _link: link }))
    }
}

/// `xdp-filter` with a list of denied sources, in front of the kernel's forwarding.
pub(super) struct Filter {
    pub(super) entries: u32,
}

impl Dut for Filter {
    fn name(&self) -> String {
        format!("xdp-tools/filter-deny-{}", self.entries)
    }

    fn about(&self) -> String {
        format!("xdp-filter, IPv4 only, {} denied sources, then kernel forwarding", self.entries)
    }

    fn denied(&self) -> Option<Traffic> {
        Some(denied(self.entries))
    }

    fn scale(&self) -> Option<Scale> {
        Some(scale("xdp-tools/filter-deny", "entries", self.entries))
    }

    fn prepare(&self, lab: &Arc<Lab>, _: &Cores) -> anyhow::Result<Box<dyn Running>> {
        forwarding(lab)?;
        let files = tempfile::tempdir()?;
        let batch = files.path().join("entries");
        std::fs::write(&batch, entries(self.entries)?)?;
        // A bpffs of its own for as long as the shell lives: what xdp-filter pins by fixed names is not seen elsewhere and
        // leaves nothing. The interface keeps the program, and the program its maps.
        let load = format!(
            "mount -t bpf bpf /sys/fs/bpf && xdp-filter load --mode native --features ipv4 {interface} && \
             xdp-filter ip --mode src {first} && bpftool batch file {batch} >/dev/null",
            interface = lab.ingress,
            first = denied_source(0),
            batch = batch.display(),
        );
        lab.device.run("unshare", &["--mount", "sh", "-c", &load]).context("xdp-filter")?;
        Ok(Box::new(State))
    }

    fn programs(&self) -> Vec<PathBuf> {
        vec![PathBuf::from("/usr/sbin/xdp-filter")]
    }
}

/// What fills the filter's map: keys are addresses, values 64-bit counters with the flags of a source in their low bits.
/// bpftool gives each core the same.
fn entries(count: u32) -> anyhow::Result<String> {
    let mut text = String::new();
    for n in 1..count {
        let [a, b, c, d] = denied_source(n).octets();
        // 1 is xdp-filter's MAP_FLAG_SRC.
        writeln!(
            text,
            "map update pinned /sys/fs/bpf/xdp-filter/filter_ipv4 key {a} {b} {c} {d} value 1 0 0 0 0 0 0 0"
        )?;
    }
    Ok(text)
}
