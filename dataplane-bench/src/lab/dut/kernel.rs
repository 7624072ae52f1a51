//! What the kernel does by itself.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};

use super::{Dut, Running, State};
use crate::lab::cores::Cores;
use crate::lab::{BEHIND4, Lab, NEXT_HOP4, OUT, TO_MAC, mac_text};

/// Routes that come and go in one of the changes.
pub(super) const MANY_ROUTES: u32 = 10_000;

/// `ip_forward` and one route.
pub(super) struct Forward {
    /// Every packet is looked up in the connection table, too.
    pub(super) conntrack: bool,
}

impl Dut for Forward {
    fn name(&self) -> String {
        if self.conntrack { "kernel/forward+conntrack" } else { "kernel/forward" }.to_owned()
    }

    fn about(&self) -> String {
        if self.conntrack { "net.ipv4.ip_forward, one nft rule on ct state" } else { "net.ipv4.ip_forward" }.to_owned()
    }

    fn prepare(&self, lab: &Arc<Lab>, _: &Cores) -> anyhow::Result<Box<dyn Running>> {
        forwarding(lab)?;
        if self.conntrack {
            // Connection tracking has no switch: it runs in a namespace as soon as a rule asks for its state.
            let rules =
                "table ip bench { chain forward { type filter hook forward priority 0; ct state invalid drop; }; }";
            lab.device.run("nft", &[rules])?;
            return Ok(Box::new(State));
        }
        Ok(Box::new(Routes { lab: Arc::clone(lab) }))
    }
}

/// Has the lab's device forward by its own routes.
pub(super) fn forwarding(lab: &Lab) -> anyhow::Result<()> {
    lab.device.sysctl("net.ipv4.ip_forward", "1")?;
    lab.device.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    Ok(())
}

/// The kernel's routes, which can be changed while it forwards.
struct Routes {
    lab: Arc<Lab>,
}

impl Running for Routes {
    fn changes(&self) -> Vec<&'static str> {
        vec!["replace the route", "add or delete 10,000 routes"]
    }

    fn change(&mut self, name: &str, step: u32) -> anyhow::Result<()> {
        match name {
            "replace the route" => replace_route(&self.lab, step),
            "add or delete 10,000 routes" => many_routes(&self.lab, step),
            _ => bail!("there is no change called {name}"),
        }
    }
}

/// Moves the route in use to another gateway on the same link, or back.
pub(super) fn replace_route(lab: &Lab, step: u32) -> anyhow::Result<()> {
    let other = Ipv4Addr::from_bits(NEXT_HOP4.to_bits() + 1);
    let gateway = if step.is_multiple_of(2) { other } else { NEXT_HOP4 }.to_string();
    let mac = mac_text(TO_MAC);
    lab.device.ip(&["neighbor", "replace", &gateway, "lladdr", &mac, "dev", OUT, "nud", "permanent"])?;
    lab.device.ip(&["route", "replace", BEHIND4, "via", &gateway])?;
    Ok(())
}

/// Adds routes beside the one in use, or takes them away.
pub(super) fn many_routes(lab: &Lab, step: u32) -> anyhow::Result<()> {
    let verb = if step.is_multiple_of(2) { "add" } else { "delete" };
    let mut batch = String::new();
    for n in 0..MANY_ROUTES {
        // 100.64.0.0/10 (RFC 6598): nothing that is sent goes there.
        let prefix = Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() + (n << 8));
        writeln!(batch, "route {verb} {prefix}/24 via {NEXT_HOP4}")?;
    }
    feed(lab, "ip", &["-batch", "-"], &batch)
}

/// Runs a program in the device's namespace with this on its standard input.
pub(super) fn feed(lab: &Lab, program: &str, args: &[&str], input: &str) -> anyhow::Result<()> {
    let mut command = lab.device.command(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    let mut pipe = child.stdin.take().with_context(|| format!("{program} has no standard input"))?;
    // A program that ends early says why on its standard error.
    let written = pipe.write_all(input.as_bytes());
    drop(pipe);
    let output = child.wait_with_output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}", words.trim());
    written.with_context(|| format!("writing to {program}"))
}
