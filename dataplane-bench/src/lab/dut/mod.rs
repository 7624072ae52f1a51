//! Devices under test: how each is set up in a lab, what it does to traffic, and which changes it can be put through.
//!
//! A device says what becomes of the traffic that it is given, and [`verify`] holds it to that before anything is
//! measured. One that cannot run on this machine is reported with the reason, never left out.

mod dpdk;
mod kernel;
mod margay;
mod netfilter;
mod xdp;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use wildmatch::WildMatch;

use super::cores::{Cores, Work};
use super::path::Path;
use super::sender::Load;
use super::traffic::{Expected, Traffic};
use super::{Lab, frame, sink::Sink};
use crate::result::Scale;

/// Packets of the trial that verifies a device, and their rate: any machine keeps up with it.
const VERIFY_PACKETS: u64 = 500;
const VERIFY_PPS: f64 = 2_000.0;

/// A device that can be put between two ports of a lab.
pub(crate) trait Dut: Send {
    /// `kernel/forward`.
    fn name(&self) -> String;

    /// How it is configured, in a few words.
    fn about(&self) -> String;

    /// Where it does its work.
    fn work(&self) -> Work {
        Work::Kernel
    }

    /// The traffic that it is measured with, and what becomes of it.
    fn traffic(&self, flows: u32) -> (Traffic, Expected) {
        let traffic = Traffic::ipv4(flows);
        let expected = Expected::forwarded(&traffic);
        (traffic, expected)
    }

    /// Traffic that its rules must drop, where it has any.
    fn denied(&self) -> Option<Traffic> {
        None
    }

    /// Rules, entries or services, where that is varied.
    fn scale(&self) -> Option<Scale> {
        None
    }

    /// Sets it up. It works until the returned value is dropped; a lab has one device in its life.
    ///
    /// # Errors
    /// Why it cannot run here.
    fn prepare(&self, lab: &Arc<Lab>, cores: &Cores) -> anyhow::Result<Box<dyn Running>>;

    /// Files whose contents were measured, for the record.
    fn programs(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// A device at work; dropping it ends it.
pub(crate) trait Running {
    /// Stops what keeps a core busy while others are measured.
    ///
    /// # Errors
    /// It cannot be stopped.
    fn pause(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Goes on after [`Self::pause`].
    ///
    /// # Errors
    /// It has died.
    fn resume(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// The changes of configuration that it can be put through while traffic flows.
    fn changes(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Makes one of [`Self::changes`] for the `step`-th time, and returns when it is in force. Odd steps undo even ones.
    ///
    /// # Errors
    /// It is refused, or takes too long.
    fn change(&mut self, name: &str, _step: u32) -> anyhow::Result<()> {
        bail!("there is no change called {name}")
    }
}

/// A device that is nothing but kernel state of the lab's namespace, which goes with it.
struct State;

impl Running for State {}

/// A point on a curve of cost against scale.
fn scale(family: &str, unit: &str, value: u32) -> Scale {
    Scale { family: family.to_owned(), unit: unit.to_owned(), value: value.into() }
}

/// The device of the standard set that does the same work in the usual way: what a device of ours is held against.
pub(crate) fn rival(name: &str) -> Option<String> {
    let device = name.strip_prefix("margay/")?;
    let numbered = [("policy-", "nft/rules-"), ("denylist-", "nft/set-")];
    let same = numbered.iter().find_map(|(ours, theirs)| Some(format!("{theirs}{}", device.strip_prefix(ours)?)));
    same.or_else(|| match device {
        "forward" => Some("kernel/forward".to_owned()),
        // A service of one VIP: its cost does not hang on the services beside it, that of a chain of rules does.
        "lb-100" => Some("iptables/service-nat-1000".to_owned()),
        _ => None,
    })
}

/// What devices need of their surroundings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// The `margay` to measure; the one beside this program where absent.
    pub(crate) margay: Option<PathBuf>,
}

/// Devices of the standard set, in the order of the report. Any other number may stand in place of theirs.
pub(crate) const STANDARD: [&str; 25] = [
    "xdp/redirect",
    "xdp/fib-lookup",
    "kernel/forward",
    "kernel/forward+conntrack",
    "nft/rules-10",
    "nft/rules-100",
    "nft/rules-1000",
    "nft/set-10000",
    "iptables-legacy/rules-10",
    "iptables-legacy/rules-100",
    "iptables-legacy/rules-1000",
    "iptables-nft/rules-10",
    "iptables-nft/rules-100",
    "iptables-nft/rules-1000",
    "iptables/service-nat-10",
    "iptables/service-nat-1000",
    "xdp-tools/filter-deny-10000",
    "dpdk/testpmd-af_packet",
    "dpdk/testpmd-af_xdp",
    "margay/forward",
    "margay/policy-10",
    "margay/policy-100",
    "margay/policy-1000",
    "margay/denylist-10000",
    "margay/lb-100",
];

/// The devices that names or patterns (`nft/*`) stand for, each once, in the order of the standard set.
///
/// # Errors
/// A name that stands for none.
pub(crate) fn select(names: &[String], surroundings: &Surroundings) -> anyhow::Result<Vec<Box<dyn Dut>>> {
    let mut chosen: Vec<String> = Vec::new();
    for name in names {
        let pattern = WildMatch::new(name);
        let mut found: Vec<String> =
            STANDARD.iter().filter(|known| pattern.matches(known)).map(|known| (*known).to_owned()).collect();
        if found.is_empty() {
            found.push(name.clone());
        }
        for name in found {
            if !chosen.contains(&name) {
                chosen.push(name);
            }
        }
    }
    chosen
        .iter()
        .map(|name| {
            by_name(name, surroundings)
                .with_context(|| format!("no device under test is called '{name}'; there are {}", STANDARD.join(", ")))
        })
        .collect()
}

fn by_name(name: &str, surroundings: &Surroundings) -> Option<Box<dyn Dut>> {
    let (group, device) = name.split_once('/')?;
    let numbered =
        |prefix: &str| device.strip_prefix(prefix)?.parse::<u32>().ok().filter(|n| (1..=1_000_000).contains(n));
    match group {
        "xdp" => match device {
            "redirect" => Some(Box::new(xdp::Redirect)),
            "fib-lookup" => Some(Box::new(xdp::Router)),
            _ => None,
        },
        "xdp-tools" => Some(Box::new(xdp::Filter { entries: numbered("filter-deny-")? })),
        "kernel" => match device {
            "forward" => Some(Box::new(kernel::Forward { conntrack: false })),
            "forward+conntrack" => Some(Box::new(kernel::Forward { conntrack: true })),
            _ => None,
        },
        "nft" => match (numbered("rules-"), numbered("set-")) {
            (Some(rules), _) => Some(Box::new(netfilter::Rules { tool: netfilter::Tool::Nft, rules })),
            (_, Some(entries)) => Some(Box::new(netfilter::Set { entries })),
            _ => None,
        },
        "iptables-legacy" => {
            Some(Box::new(netfilter::Rules { tool: netfilter::Tool::IptablesLegacy, rules: numbered("rules-")? }))
        }
        "iptables-nft" => {
            Some(Box::new(netfilter::Rules { tool: netfilter::Tool::IptablesNft, rules: numbered("rules-")? }))
        }
        "iptables" => Some(Box::new(netfilter::ServiceNat { services: numbered("service-nat-")? })),
        "dpdk" => dpdk::Testpmd::by_name(device).map(|device| Box::new(device) as Box<dyn Dut>),
        "margay" => margay::Margay::by_name(device, surroundings).map(|device| Box::new(device) as Box<dyn Dut>),
        _ => None,
    }
}

/// Sends a few packets and looks at each that comes out: all of them, and as the device says. Then what its rules
/// deny: none of it.
///
/// # Errors
/// What is wrong with the device.
pub(crate) fn verify(path: &Path, dut: &dyn Dut, cores: &[usize]) -> anyhow::Result<()> {
    let (traffic, expected) = dut.traffic(100);
    let load = |pps| Load {
        pps: Some(pps),
        duration: Duration::from_secs(10),
        packets: Some(VERIFY_PACKETS),
        cores: cores.iter().copied().take(1).collect(),
        backend: None,
        timed: false,
        steps: Vec::new(),
    };
    let wanted = u32::try_from(VERIFY_PACKETS)?.min(Sink::SAMPLES);
    path.sink().sample(wanted)?;
    let trial = path.trial(&traffic, &load(VERIFY_PPS))?;
    if let Some(ends) = path.ends() {
        for (n, bytes) in path.sink().samples()?.iter().enumerate() {
            frame::check(bytes, &traffic, &expected, ends).with_context(|| format!("packet {n} that it forwarded"))?;
        }
    }
    ensure!(
        trial.received == trial.sent.packets && trial.received == VERIFY_PACKETS,
        "of {} packets at {VERIFY_PPS} pps, {} arrived",
        trial.sent.packets,
        trial.received
    );
    if let Some(denied) = dut.denied() {
        let trial = path.trial(&denied, &load(VERIFY_PPS))?;
        ensure!(
            trial.received == 0,
            "of {} packets that its rules deny, {} arrived",
            trial.sent.packets,
            trial.received
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(patterns: &[&str]) -> Result<Vec<String>, String> {
        let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
        select(&patterns, &Surroundings::default())
            .map(|duts| duts.iter().map(|dut| dut.name()).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_device_of_the_standard_set_bears_its_name() {
        assert_eq!(names(&["*"]).unwrap(), STANDARD);
    }

    #[test]
    fn rivals_are_of_the_standard_set() {
        for name in STANDARD {
            let rival = rival(name);
            assert_eq!(rival.is_some(), name.starts_with("margay/"), "{name}");
            assert!(rival.is_none_or(|rival| STANDARD.contains(&rival.as_str())), "{name}");
        }
    }

    #[test]
    fn patterns_numbers_and_repetitions() {
        assert_eq!(names(&["kernel/*", "kernel/forward"]).unwrap(), ["kernel/forward", "kernel/forward+conntrack"]);
        assert_eq!(names(&["nft/rules-250"]).unwrap(), ["nft/rules-250"]);
        for name in ["nft/rules-0", "nft/rules-", "kernel", "kernel/fast", "vpp/forward", ""] {
            let error = names(&[name]).unwrap_err();
            assert!(error.contains(&format!("'{name}'")) && error.contains("kernel/forward"), "{error}");
        }
    }
}
