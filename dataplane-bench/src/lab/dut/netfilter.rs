//! Rule sets of nftables and iptables on the kernel's forwarding, of the shapes that are met in the field: a list of denied
//! sources walked rule by rule, the same as a set, and the services of a cluster node.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::bail;

use super::kernel::{feed, forwarding};
use super::{Dut, Running, scale};
use crate::lab::Lab;
use crate::lab::cores::Cores;
use crate::lab::traffic::{Expected, Traffic};
use crate::result::Scale;

/// The n-th denied source.
pub(super) fn denied_source(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 128, 0).to_bits() + n)
}

/// One flow from the last of `count` denied sources.
pub(super) fn denied(count: u32) -> Traffic {
    Traffic { source: denied_source(count.saturating_sub(1)).into(), ..Traffic::ipv4(1) }
}

/// What a rule set is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Nft,
    IptablesLegacy,
    IptablesNft,
}

impl Tool {
    fn family(self) -> &'static str {
        match self {
            Self::Nft => "nft/rules",
            Self::IptablesLegacy => "iptables-legacy/rules",
            Self::IptablesNft => "iptables-nft/rules",
        }
    }

    /// Puts a whole rule set in force in place of the one before, in one transaction.
    fn load(self, lab: &Lab, text: &str) -> anyhow::Result<()> {
        match self {
            Self::Nft => feed(lab, "nft", &["-f", "-"], text),
            // The lock file is the machine's, not the namespace's.
            Self::IptablesLegacy => feed(lab, "iptables-legacy-restore", &["--wait", "10"], text),
            Self::IptablesNft => feed(lab, "iptables-nft-restore", &[], text),
        }
    }
}

/// Denied sources, one rule each, none of which is the traffic's: every packet passes all of them.
pub(super) struct Rules {
    pub(super) tool: Tool,
    pub(super) rules: u32,
}

impl Rules {
    /// With a step, the same rules with a comment that makes them another set.
    fn text(tool: Tool, rules: u32, step: u32) -> anyhow::Result<String> {
        let mut text = String::new();
        let sources = (0..rules).map(denied_source);
        if tool == Tool::Nft {
            // Declared before it is deleted, so that there is one to delete the first time.
            text.push_str("table ip bench {}\ndelete table ip bench\ntable ip bench {\n");
            writeln!(text, "comment \"generation {step}\"")?;
            text.push_str("chain forward {\ntype filter hook forward priority filter; policy accept;\n");
            for source in sources {
                writeln!(text, "ip saddr {source} drop")?;
            }
            text.push_str("}\n}\n");
        } else {
            text.push_str("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n");
            for source in sources {
                writeln!(text, "-A FORWARD -s {source}/32 -j DROP")?;
            }
            text.push_str("COMMIT\n");
        }
        Ok(text)
    }
}

impl Dut for Rules {
    fn name(&self) -> String {
        format!("{}-{}", self.tool.family(), self.rules)
    }

    fn about(&self) -> String {
        format!("kernel forwarding, {} rules that drop a source each, none matches", self.rules)
    }

    fn denied(&self) -> Option<Traffic> {
        Some(denied(self.rules))
    }

    fn scale(&self) -> Option<Scale> {
        Some(scale(self.tool.family(), "rules", self.rules))
    }

    fn prepare(&self, lab: &Arc<Lab>, _: &Cores) -> anyhow::Result<Box<dyn Running>> {
        forwarding(lab)?;
        let (tool, rules) = (self.tool, self.rules);
        let mut running = Reloaded {
            lab: Arc::clone(lab),
            tool,
            change: "replace the rule set",
            text: Box::new(move |step| Rules::text(tool, rules, step)),
        };
        running.change(running.change, 1)?;
        Ok(Box::new(running))
    }
}

/// Denied sources in a hash set that one rule looks up.
pub(super) struct Set {
    pub(super) entries: u32,
}

impl Set {
    fn text(entries: u32, step: u32) -> anyhow::Result<String> {
        let elements: Vec<String> = (0..entries).map(|n| denied_source(n).to_string()).collect();
        Ok(format!(
            "table ip bench {{}}\ndelete table ip bench\ntable ip bench {{\ncomment \"generation {step}\"\n\
             set denied {{ type ipv4_addr; elements = {{ {} }}; }}\n\
             chain forward {{ type filter hook forward priority filter; policy accept; ip saddr @denied drop; }}\n}}\n",
            elements.join(", ")
        ))
    }
}

impl Dut for Set {
    fn name(&self) -> String {
        format!("nft/set-{}", self.entries)
    }

    fn about(&self) -> String {
        format!("kernel forwarding, one rule that drops the {} sources of a hash set", self.entries)
    }

    fn denied(&self) -> Option<Traffic> {
        Some(denied(self.entries))
    }

    fn scale(&self) -> Option<Scale> {
        Some(scale("nft/set", "entries", self.entries))
    }

    fn prepare(&self, lab: &Arc<Lab>, _: &Cores) -> anyhow::Result<Box<dyn Running>> {
        forwarding(lab)?;
        let entries = self.entries;
        let mut running = Reloaded {
            lab: Arc::clone(lab),
            tool: Tool::Nft,
            change: "replace the rule set",
            text: Box::new(move |step| Self::text(entries, step)),
        };
        running.change(running.change, 1)?;
        Ok(Box::new(running))
    }
}

/// Services of a cluster node in the chains that kube-proxy writes: a list of services walked rule by rule, endpoints
/// chosen at random, DNAT. The traffic is for the last service; only the first packet of a flow walks the list.
pub(super) struct ServiceNat {
    pub(super) services: u32,
}

/// Endpoints of each service.
const ENDPOINTS: u32 = 3;
/// Port that services listen on, and that of their endpoints.
const SERVICE_PORT: u16 = 80;
const ENDPOINT_PORT: u16 = 8080;

impl ServiceNat {
    fn service(n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::new(198, 19, 128, 0).to_bits() + n)
    }

    fn endpoint(service: u32, n: u32) -> Ipv4Addr {
        // 198.19.64.0/18; services share addresses where there are more.
        Ipv4Addr::from_bits(Ipv4Addr::new(198, 19, 64, 0).to_bits() + (service * ENDPOINTS + n) % (1 << 14))
    }

    fn text(services: u32, step: u32) -> anyhow::Result<String> {
        // On even steps there is one service more, in front of all others.
        let services: Vec<u32> =
            if step.is_multiple_of(2) { (0..=services).rev().collect() } else { (0..services).collect() };
        let mut chains = String::from(
            "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
             :KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n",
        );
        let mut rules = String::from(
            "-A PREROUTING -m comment --comment \"service portals\" -j KUBE-SERVICES\n\
             -A POSTROUTING -m comment --comment \"postrouting rules\" -j KUBE-POSTROUTING\n\
             -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
             -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
             -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
             -A KUBE-POSTROUTING -j MASQUERADE\n",
        );
        for n in services {
            let address = Self::service(n);
            writeln!(chains, ":KUBE-SVC-{n} - [0:0]")?;
            writeln!(rules, "-A KUBE-SERVICES -d {address}/32 -p udp -m udp --dport {SERVICE_PORT} -j KUBE-SVC-{n}")?;
            for e in 0..ENDPOINTS {
                let endpoint = Self::endpoint(n, e);
                let left = ENDPOINTS - e;
                let chance = if left > 1 {
                    format!("-m statistic --mode random --probability {:.10} ", 1.0 / f64::from(left))
                } else {
                    String::new()
                };
                writeln!(chains, ":KUBE-SEP-{n}-{e} - [0:0]")?;
                writeln!(rules, "-A KUBE-SVC-{n} {chance}-j KUBE-SEP-{n}-{e}")?;
                writeln!(rules, "-A KUBE-SEP-{n}-{e} -s {endpoint}/32 -j KUBE-MARK-MASQ")?;
                writeln!(
                    rules,
                    "-A KUBE-SEP-{n}-{e} -p udp -m udp -j DNAT --to-destination {endpoint}:{ENDPOINT_PORT}"
                )?;
            }
        }
        rules.push_str("-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT\n");
        Ok(chains + &rules)
    }
}

impl Dut for ServiceNat {
    fn name(&self) -> String {
        format!("iptables/service-nat-{}", self.services)
    }

    fn about(&self) -> String {
        format!(
            "kernel forwarding, iptables-legacy DNAT in kube-proxy's chains, {} services of {ENDPOINTS} endpoints, \
             established flows",
            self.services
        )
    }

    fn traffic(&self, flows: u32) -> (Traffic, Expected) {
        let last = self.services - 1;
        let traffic = Traffic { destination: Self::service(last).into(), port: SERVICE_PORT, ..Traffic::ipv4(flows) };
        let endpoints = (0..ENDPOINTS).map(|e| Self::endpoint(last, e).into()).collect();
        let expected = Expected { destinations: endpoints, port: ENDPOINT_PORT, ..Expected::forwarded(&traffic) };
        (traffic, expected)
    }

    fn scale(&self) -> Option<Scale> {
        Some(scale("iptables/service-nat", "services", self.services))
    }

    fn prepare(&self, lab: &Arc<Lab>, _: &Cores) -> anyhow::Result<Box<dyn Running>> {
        forwarding(lab)?;
        let services = self.services;
        let mut running = Reloaded {
            lab: Arc::clone(lab),
            tool: Tool::IptablesLegacy,
            change: "add or remove a service",
            text: Box::new(move |step| Self::text(services, step)),
        };
        running.change(running.change, 1)?;
        Ok(Box::new(running))
    }
}

/// A rule set that is put in force as a whole, again and again.
struct Reloaded {
    lab: Arc<Lab>,
    tool: Tool,
    change: &'static str,
    text: Box<dyn Fn(u32) -> anyhow::Result<String>>,
}

impl Running for Reloaded {
    fn changes(&self) -> Vec<&'static str> {
        vec![self.change]
    }

    fn change(&mut self, name: &str, step: u32) -> anyhow::Result<()> {
        if name != self.change {
            bail!("there is no change called {name}");
        }
        self.tool.load(&self.lab, &(self.text)(step)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_sets_have_as_many_rules_as_they_say() {
        for (tool, verdict) in [(Tool::Nft, " drop\n"), (Tool::IptablesLegacy, "-j DROP\n")] {
            assert_eq!(Rules::text(tool, 37, 1).unwrap().matches(verdict).count(), 37);
        }
        assert_eq!(Set::text(300, 1).unwrap().matches(", ").count(), 299);
        let nat = |step| ServiceNat::text(50, step).unwrap().matches("-j DNAT").count();
        assert_eq!((nat(1), nat(2)), (150, 153));
    }

    #[test]
    fn the_denied_source_is_that_of_the_last_rule() {
        let text = Rules::text(Tool::Nft, 700, 1).unwrap();
        let last = text.lines().rfind(|line| line.contains("saddr")).unwrap();
        assert!(last.contains(&denied(700).source.to_string()), "{last}");
    }
}
