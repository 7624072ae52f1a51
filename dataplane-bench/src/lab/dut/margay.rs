//! margay itself: the released binary on a configuration directory, as an operator starts it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use testkit::netns::Process;

use super::kernel::MANY_ROUTES;
use super::netfilter::{denied, denied_source};
use super::{Dut, Running, Surroundings, scale};
use crate::lab::cores::Cores;
use crate::lab::traffic::{Expected, Traffic};
use crate::lab::{BEHIND4, BEHIND6, Lab, NEXT_HOP4, NEXT_HOP6, OUT, pin_dir};
use crate::result::Scale;

/// How long it may take until what it was told is in force.
const PATIENCE: Duration = Duration::from_secs(30);
/// Rules of a policy; more are several policies.
const POLICY_RULES: u32 = 1000;
/// VIP and port of the balancer.
const VIP: Ipv4Addr = Ipv4Addr::new(198, 19, 128, 1);
const VIP_PORT: u16 = 80;

/// What it is configured for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Forward,
    Policy(u32),
    Denylist(u32),
    Balancer(u32),
}

/// margay.
pub(super) struct Margay {
    role: Role,
    /// None: there is none beside this program.
    binary: Option<PathBuf>,
}

impl Margay {
    pub(super) fn by_name(name: &str, surroundings: &Surroundings) -> Option<Self> {
        let number = |text: &str| text.parse().ok().filter(|n| (1..=1_000_000).contains(n));
        let role = match name.split_once('-') {
            None if name == "forward" => Role::Forward,
            Some(("policy", n)) => Role::Policy(number(n)?),
            Some(("denylist", n)) => Role::Denylist(number(n)?),
            Some(("lb", n)) => Role::Balancer(number(n).filter(|n| *n <= 10_000)?),
            _ => return None,
        };
        Some(Self { role, binary: surroundings.margay.clone().or_else(beside) })
    }

    fn document(&self, generation: u32) -> anyhow::Result<String> {
        let mut text = String::new();
        match self.role {
            Role::Forward => {}
            Role::Policy(rules) => policies(&mut text, rules, generation)?,
            Role::Denylist(count) => {
                // One more in every other generation.
                let count = count + generation % 2;
                text.push_str(
                    "---\napiVersion: margay.io/v1\nkind: Denylist\nmetadata: {name: bench}\nspec:\n  sources:\n",
                );
                for n in 0..count {
                    writeln!(text, "  - {}/32", denied_source(n))?;
                }
            }
            Role::Balancer(backends) => {
                service(&mut text, "bench", VIP, (0..backends).map(backend))?;
            }
        }
        Ok(text)
    }
}

/// The `margay` in the directory of this program.
fn beside() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.with_file_name("margay");
    path.is_file().then_some(path)
}

fn backend(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 19, 64, 0).to_bits() + n)
}

fn service(
    text: &mut String,
    name: &str,
    vip: Ipv4Addr,
    backends: impl Iterator<Item = Ipv4Addr>,
) -> anyhow::Result<()> {
    writeln!(text, "---\napiVersion: margay.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec:")?;
    writeln!(text, "  addresses: [{vip}]\n  port: {VIP_PORT}\n  protocol: UDP\n  encap: {{type: IPIP}}\n  backends:")?;
    for backend in backends {
        writeln!(text, "  - {{address: {backend}}}")?;
    }
    Ok(())
}

/// Rules that deny a source each, in order, none of which is the traffic's.
fn policies(text: &mut String, rules: u32, generation: u32) -> anyhow::Result<()> {
    for first in (0..rules).step_by(POLICY_RULES as usize) {
        writeln!(
            text,
            "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: bench-{first}}}\n\
             spec:\n  order: {first}\n  doNotTrack: true\n  applyOnForward: true\n  types: [Ingress]\n  ingress:"
        )?;
        for n in first..rules.min(first + POLICY_RULES) {
            // The last rule changes from generation to generation, but denies its source in each.
            let length = if n + 1 == rules && generation % 2 == 1 { 31 } else { 32 };
            let source = Ipv4Addr::from_bits(denied_source(n).to_bits() & (u32::MAX << (32 - length)));
            writeln!(text, "  - {{action: Deny, source: {{nets: [{source}/{length}]}}}}")?;
        }
    }
    Ok(())
}

impl Dut for Margay {
    fn name(&self) -> String {
        match self.role {
            Role::Forward => "margay/forward".to_owned(),
            Role::Policy(rules) => format!("margay/policy-{rules}"),
            Role::Denylist(entries) => format!("margay/denylist-{entries}"),
            Role::Balancer(backends) => format!("margay/lb-{backends}"),
        }
    }

    fn about(&self) -> String {
        match self.role {
            Role::Forward => "margay run, a static route".to_owned(),
            Role::Policy(rules) => format!("margay run, {rules} policy rules that deny a source each, none matches"),
            Role::Denylist(entries) => format!("margay run, {entries} denied sources"),
            Role::Balancer(backends) => format!("margay run, a VIP with {backends} IPIP backends"),
        }
    }

    fn traffic(&self, flows: u32) -> (Traffic, Expected) {
        let Role::Balancer(backends) = self.role else {
            let traffic = Traffic::ipv4(flows);
            let expected = Expected::forwarded(&traffic);
            return (traffic, expected);
        };
        let traffic = Traffic { destination: VIP.into(), port: VIP_PORT, ..Traffic::ipv4(flows) };
        let destinations = (0..backends).map(|n| IpAddr::from(backend(n))).collect();
        let expected = Expected { destinations, encapsulated: true, ..Expected::forwarded(&traffic) };
        (traffic, expected)
    }

    fn denied(&self) -> Option<Traffic> {
        match self.role {
            Role::Policy(count) | Role::Denylist(count) => Some(denied(count)),
            Role::Forward | Role::Balancer(_) => None,
        }
    }

    fn scale(&self) -> Option<Scale> {
        match self.role {
            Role::Forward => None,
            Role::Policy(value) => Some(scale("margay/policy", "rules", value)),
            Role::Denylist(value) => Some(scale("margay/denylist", "entries", value)),
            Role::Balancer(value) => Some(scale("margay/lb", "backends", value)),
        }
    }

    fn prepare(&self, lab: &Arc<Lab>, _: &Cores) -> anyhow::Result<Box<dyn Running>> {
        let binary = self.binary.clone().context(
            "there is no margay beside this program: build it with the same profile, or name one with --margay PATH",
        )?;
        let files = tempfile::tempdir()?;
        fs::create_dir(files.path().join("config"))?;
        let role = Margay { role: self.role, binary: None };
        let mut agent = Agent { lab: Arc::clone(lab), binary, role, files, process: None };
        agent.write("node.yaml", &node(lab))?;
        agent.write("role.yaml", &agent.role.document(0)?)?;
        agent.start()?;
        Ok(Box::new(agent))
    }

    fn programs(&self) -> Vec<PathBuf> {
        self.binary.iter().cloned().collect()
    }
}

/// The node, its ports, its routes and the endpoint that policies apply to.
fn node(lab: &Lab) -> String {
    let ingress = &lab.ingress;
    format!(
        "apiVersion: margay.io/v1\nkind: Node\nmetadata: {{name: bench}}\n\
         spec:\n  routerID: 198.18.0.1\n  interfaces:\n  - {{name: {ingress}}}\n  - {{name: {OUT}}}\n\
         ---\napiVersion: margay.io/v1\nkind: StaticRoute\nmetadata: {{name: behind-ipv4}}\n\
         spec: {{prefix: {BEHIND4}, nextHops: [{{address: {NEXT_HOP4}}}]}}\n\
         ---\napiVersion: margay.io/v1\nkind: StaticRoute\nmetadata: {{name: behind-ipv6}}\n\
         spec: {{prefix: \"{BEHIND6}\", nextHops: [{{address: \"{NEXT_HOP6}\"}}]}}\n\
         ---\napiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {{name: ingress}}\n\
         spec: {{node: bench, interfaceName: {ingress}, profiles: [projectcalico-default-allow]}}\n"
    )
}

/// A running agent.
struct Agent {
    lab: Arc<Lab>,
    binary: PathBuf,
    role: Margay,
    /// Configuration, socket and log.
    files: TempDir,
    process: Option<Process>,
}

const ROUTES: &str = "add or delete 10,000 static routes";
const SWAP: &str = "replace the policy";
const LISTED: &str = "add or delete an entry of the denylist";
const SERVICE: &str = "add or delete a VIP";
const KILL: &str = "kill -9 and restart";

impl Agent {
    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Writes a file of the configuration as editors do, as a whole.
    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        fs::write(self.path(name), text)?;
        fs::rename(self.path(name), self.path("config").join(name))?;
        Ok(())
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.path("log"))?;
        let mut command = self.lab.device.command(&self.binary.display().to_string());
        command.arg("run").arg("--config").arg(self.path("config")).arg("--node").arg("bench");
        command.arg("--pin-dir").arg(pin_dir(&self.lab)).arg("--socket").arg(self.path("socket"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(Process::start(command)?);
        self.until("it forwards", |status| {
            let ports = status["interfaces"].as_array()?;
            let forwards = ports.len() == 2 && ports.iter().all(|port| port["state"] == "forwarding");
            (forwards && generation(status)? > 0).then_some(())
        })
    }

    /// What `margay status` says; nothing while it does not answer.
    fn status(&self) -> Option<Value> {
        let mut command = Command::new(&self.binary);
        command.args(["status", "-o", "json", "--socket"]).arg(self.path("socket"));
        serde_json::from_slice(&command.stdin(Stdio::null()).output().ok()?.stdout).ok()
    }

    fn until(&mut self, what: &str, holds: impl Fn(&Value) -> Option<()>) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.status().and_then(|status| holds(&status)).is_some() {
                return Ok(());
            }
            let process = self.process.as_mut().context("margay is not running")?;
            let ended = process.child().try_wait()?;
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            let last = log.lines().next_back().unwrap_or("it says nothing").to_owned();
            if let Some(status) = ended {
                bail!("margay has ended ({status}): {last}");
            }
            ensure!(Instant::now() < deadline, "margay: not within {PATIENCE:?}: {what}; {last}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Writes a file and waits until a generation with it is in force.
    fn reconfigure(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        let before = self.status().and_then(|status| generation(&status)).context("margay does not answer")?;
        self.write(name, text)?;
        self.until("the change is in force", |status| (generation(status)? > before).then_some(()))
    }
}

fn generation(status: &Value) -> Option<u64> {
    status["generation"].as_u64()
}

impl Running for Agent {
    fn changes(&self) -> Vec<&'static str> {
        let own = match self.role.role {
            Role::Forward => ROUTES,
            Role::Policy(_) => SWAP,
            Role::Denylist(_) => LISTED,
            Role::Balancer(_) => SERVICE,
        };
        vec![own, KILL]
    }

    fn change(&mut self, name: &str, step: u32) -> anyhow::Result<()> {
        match name {
            ROUTES => {
                let mut text = String::new();
                for n in (0..MANY_ROUTES).take_while(|_| step.is_multiple_of(2)) {
                    let prefix = Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() + (n << 8));
                    writeln!(
                        text,
                        "---\napiVersion: margay.io/v1\nkind: StaticRoute\nmetadata: {{name: many-{n}}}\n\
                         spec: {{prefix: {prefix}/24, nextHops: [{{address: {NEXT_HOP4}}}]}}"
                    )?;
                }
                self.reconfigure("change.yaml", &text)
            }
            SERVICE => {
                let mut text = String::new();
                if step.is_multiple_of(2) {
                    let other = Ipv4Addr::from_bits(VIP.to_bits() + 1);
                    service(&mut text, "other", other, (0..10).map(|n| backend(1 << 13 | n)))?;
                }
                self.reconfigure("change.yaml", &text)
            }
            SWAP | LISTED => {
                let text = self.role.document(step + 1)?;
                self.reconfigure("role.yaml", &text)
            }
            KILL => {
                if let Some(process) = &mut self.process {
                    process.kill();
                }
                self.start()
            }
            _ => bail!("there is no change called {name}"),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process = None;
        let mut detach = Command::new(&self.binary);
        detach.arg("detach").arg("--pin-dir").arg(pin_dir(&self.lab));
        // Where this fails, the pins stay until the next run sweeps them; the interfaces go with their namespace.
        let _ = detach.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> Margay {
        Margay::by_name(name, &Surroundings::default()).unwrap()
    }

    #[test]
    fn documents_hold_what_the_name_says_in_every_generation() {
        for generation in 0..3 {
            let text = role("policy-2500").document(generation).unwrap();
            assert_eq!((text.matches("Deny").count(), text.matches("kind:").count()), (2500, 3));
        }
        assert_eq!(role("denylist-40").document(0).unwrap().matches("/32").count(), 40);
        assert_eq!(role("lb-7").document(0).unwrap().matches("address:").count(), 7);
        assert!(Margay::by_name("lb-0", &Surroundings::default()).is_none());
    }
}
