//! What policy says about a packet, rule by rule.
//!
//! 1. Tiers in order. In each, the policies that select the endpoint, in order; in each, the rules in order: Allow and Deny
//!    decide, Log goes on, Pass leaves the tier.
//! 2. A tier in which a policy applied and no rule decided ends with the tier's default action; one in which none applied, or
//!    only staged ones, is skipped.
//! 3. After the last tier the endpoint's profiles, in order; when none matches, the packet is dropped.
//!
//! Pipelines differ in which policies they ask and in their end: untracked and pre-DNAT policy has neither ends of tiers nor profiles,
//! because tracked policy comes after it; forwarded packets are let through where no policy decides.

use std::fmt;
use std::net::IpAddr;

use super::Policies;
use super::endpoint::{Endpoint, EndpointKind, HostInterface};
use super::rule::{Action, Member, Rule, Seen};
use super::tier::{Policy, PolicyId, Scope, Stage, Tier, TierAction};
use crate::desired::Failsafe;

/// Towards an endpoint or from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Towards it; for a host endpoint: in by its interface.
    Ingress,
    /// From it; for a host endpoint: out by its interface.
    Egress,
}

/// A packet that begins a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// IP protocol number.
    pub protocol: u8,
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Source and destination port, where the protocol has them.
    pub ports: Option<(u16, u16)>,
    /// ICMP or ICMPv6 type and code.
    pub icmp: Option<(u8, u8)>,
}

/// What is asked of an endpoint's policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipeline {
    /// Of a workload: its own packets.
    Workload,
    /// Of a host endpoint: before connection tracking.
    Untracked,
    /// Of a host endpoint: before destination NAT; ingress only.
    PreDnat,
    /// Of a host endpoint: packets that the host forwards.
    Forward,
    /// Of a host endpoint: packets of the host itself.
    Host,
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Whose policy.
    pub endpoint: &'a Endpoint,
    /// Which of it.
    pub pipeline: Pipeline,
    /// For which direction.
    pub direction: Direction,
    /// About which packet.
    pub packet: &'a Packet,
}

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass.
    Allow,
    /// It is dropped.
    Deny,
    /// Untracked and pre-DNAT policy leaves it to what comes next.
    Next,
}

/// What decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason<'a> {
    /// A failsafe port.
    Failsafe,
    /// A rule of a policy.
    Rule(RuleRef<'a>),
    /// The default action of a tier; the first policy that applied and did not decide.
    EndOfTier {
        /// The tier.
        tier: &'a str,
        /// The policy.
        policy: &'a PolicyId,
    },
    /// A rule of a profile.
    Profile {
        /// The profile.
        name: &'a str,
        /// Direction of the rule.
        direction: Direction,
        /// Which rule of the direction, from 0.
        index: usize,
    },
    /// A profile that does not exist: it denies.
    MissingProfile(&'a str),
    /// No profile has a rule that matches.
    NoProfile,
    /// No policy of this pipeline decides.
    NoPolicy,
}

/// Which rule of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleRef<'a> {
    /// Tier of the policy.
    pub tier: &'a str,
    /// The policy.
    pub policy: &'a PolicyId,
    /// Direction of the rule.
    pub direction: Direction,
    /// Which rule of the direction, from 0.
    pub index: usize,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Workload => "workload",
            Self::Untracked => "untracked",
            Self::PreDnat => "pre-DNAT",
            Self::Forward => "forward",
            Self::Host => "host",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Next => "next",
        })
    }
}

impl fmt::Display for RuleRef<'_> {
    /// `tier default: NetworkPolicy prod/web: ingress[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tier {}: {}: {}[{}]", self.tier, self.policy, self.direction, self.index)
    }
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failsafe => f.write_str("failsafe port"),
            Self::Rule(rule) => rule.fmt(f),
            Self::EndOfTier { tier, policy } => write!(f, "tier {tier}: end, after {policy}"),
            Self::Profile { name, direction, index } => write!(f, "profile {name}: {direction}[{index}]"),
            Self::MissingProfile(name) => write!(f, "profile {name} does not exist"),
            Self::NoProfile => f.write_str("no profile matches"),
            Self::NoPolicy => f.write_str("no policy decides"),
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// What decided that.
    pub reason: Reason<'a>,
    /// Log rules that the packet matched on its way.
    pub logged: Vec<RuleRef<'a>>,
    /// Staged policies with each of which alone, committed, the verdict would be another.
    pub staged: Vec<StagedDecision<'a>>,
}

/// What would be if a staged policy were committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedDecision<'a> {
    /// The policy.
    pub policy: &'a PolicyId,
    /// The verdict with it.
    pub verdict: Verdict,
    /// What would decide that.
    pub reason: Reason<'a>,
}

impl Policies {
    /// What the policy of an endpoint says about a packet.
    pub fn decide<'a>(&'a self, question: &Question<'a>) -> Decision<'a> {
        let seen = Seen {
            packet: question.packet,
            source: self.members(question.packet.source),
            destination: self.members(question.packet.destination),
        };
        let walk = |trial: Option<&'a Policy>| Walk {
            policies: self,
            question,
            seen: &seen,
            trial: trial.map(|policy| (policy, policy.id.enforced())),
            logged: Vec::new(),
        };
        let mut enforced = walk(None);
        let (verdict, reason) = enforced.run();
        let logged = enforced.logged;
        let staged = self.tiers.iter().flat_map(|tier| &tier.policies);
        let staged = staged.filter(|policy| matches!(policy.stage, Stage::Set | Stage::Delete)).filter_map(|policy| {
            let (other, reason) = walk(Some(policy)).run();
            (other != verdict).then_some(StagedDecision { policy: &policy.id, verdict: other, reason })
        });
        Decision { verdict, reason, logged, staged: staged.collect() }
    }

    /// Everything that an address belongs to.
    fn members(&self, address: IpAddr) -> Vec<Member<'_>> {
        let endpoints = self.endpoints.iter().filter(|endpoint| endpoint.addresses.contains(&address));
        let sets = self.sets.iter().filter(|set| set.nets.iter().any(|net| net.contains(&address)));
        endpoints
            .map(|endpoint| Member { labels: &endpoint.labels, ports: &endpoint.ports })
            .chain(sets.map(|set| Member { labels: &set.labels, ports: &[] }))
            .collect()
    }
}

/// One pass through an endpoint's policies.
struct Walk<'a, 'w> {
    policies: &'a Policies,
    question: &'w Question<'a>,
    seen: &'w Seen<'a>,
    /// A staged policy that is taken as committed, and the one that it replaces.
    trial: Option<(&'a Policy, PolicyId)>,
    logged: Vec<RuleRef<'a>>,
}

/// What a tier says.
enum Outcome<'a> {
    Decided(Verdict, Reason<'a>),
    Passed,
}

impl<'a> Walk<'a, '_> {
    fn run(&mut self) -> (Verdict, Reason<'a>) {
        let next = match self.question.pipeline {
            Pipeline::Untracked | Pipeline::PreDnat => Verdict::Next,
            Pipeline::Workload | Pipeline::Forward | Pipeline::Host => Verdict::Allow,
        };
        if self.is_failsafe() {
            return (next, Reason::Failsafe);
        }
        for tier in &self.policies.tiers {
            if let Outcome::Decided(verdict, reason) = self.tier(tier) {
                return (verdict, reason);
            }
        }
        match self.question.pipeline {
            Pipeline::Workload | Pipeline::Host => self.profiles(),
            Pipeline::Untracked | Pipeline::PreDnat | Pipeline::Forward => (next, Reason::NoPolicy),
        }
    }

    fn tier(&mut self, tier: &'a Tier) -> Outcome<'a> {
        let direction = self.question.direction;
        let mut undecided: Option<&'a PolicyId> = None;
        for policy in &tier.policies {
            let Some(rules) = policy.rules(direction).filter(|_| self.applies(policy)) else { continue };
            for (index, rule) in rules.iter().enumerate() {
                if !rule.matches(self.seen) {
                    continue;
                }
                let here = RuleRef { tier: &tier.name, policy: &policy.id, direction, index };
                match rule.action {
                    Action::Allow => return Outcome::Decided(Verdict::Allow, Reason::Rule(here)),
                    Action::Deny => return Outcome::Decided(Verdict::Deny, Reason::Rule(here)),
                    Action::Pass => return Outcome::Passed,
                    Action::Log => self.logged.push(here),
                }
            }
            undecided.get_or_insert(&policy.id);
        }
        let ends = matches!(self.question.pipeline, Pipeline::Workload | Pipeline::Forward | Pipeline::Host);
        match undecided {
            Some(policy) if ends && tier.default_action == TierAction::Deny => {
                Outcome::Decided(Verdict::Deny, Reason::EndOfTier { tier: &tier.name, policy })
            }
            _ => Outcome::Passed,
        }
    }

    /// True when the policy is in force, is asked in this pipeline, and selects the endpoint.
    fn applies(&self, policy: &Policy) -> bool {
        let in_force = match (policy.stage, &self.trial) {
            (Stage::Enforced, trial) => trial.as_ref().is_none_or(|(_, replaced)| *replaced != policy.id),
            (Stage::Set, Some((trial, _))) => trial.id == policy.id,
            _ => false,
        };
        let endpoint = self.question.endpoint;
        let asked = match (self.question.pipeline, policy.scope) {
            (Pipeline::Workload | Pipeline::Host, Scope::Normal { .. }) => true,
            (Pipeline::Forward, Scope::Normal { forward }) => forward,
            // Calico ignores it where an endpoint stands for all interfaces.
            (Pipeline::Untracked, Scope::Untracked) => !endpoint.is_wildcard(),
            (Pipeline::PreDnat, Scope::PreDnat) => self.question.direction == Direction::Ingress,
            _ => false,
        };
        in_force && asked && policy.selector.matches(&endpoint.labels)
    }

    fn profiles(&self) -> (Verdict, Reason<'a>) {
        for name in &self.question.endpoint.profiles {
            let Some(profile) = self.policies.profiles.get(name) else {
                return (Verdict::Deny, Reason::MissingProfile(name));
            };
            let rules: &[Rule] = match self.question.direction {
                Direction::Ingress => &profile.ingress,
                Direction::Egress => &profile.egress,
            };
            let decides = |rule: &Rule| rule.action != Action::Log && rule.matches(self.seen);
            if let Some((index, rule)) = rules.iter().enumerate().find(|(_, rule)| decides(rule)) {
                let verdict = if rule.action == Action::Allow { Verdict::Allow } else { Verdict::Deny };
                return (verdict, Reason::Profile { name, direction: self.question.direction, index });
            }
        }
        (Verdict::Deny, Reason::NoProfile)
    }

    /// Failsafe ports go ahead of every pipeline of a host endpoint but that of forwarded packets. Untracked policy sees replies too.
    fn is_failsafe(&self) -> bool {
        let EndpointKind::Host { failsafe_inbound, failsafe_outbound, .. } = &self.question.endpoint.kind else {
            return false;
        };
        let packet = self.question.packet;
        let Some((source_port, destination_port)) = packet.ports else { return false };
        let (own, replies, remote) = match self.question.direction {
            Direction::Ingress => (failsafe_inbound, failsafe_outbound, packet.source),
            Direction::Egress => (failsafe_outbound, failsafe_inbound, packet.destination),
        };
        let has = |list: &[Failsafe], port: u16| {
            list.iter().any(|failsafe| {
                failsafe.protocol == packet.protocol
                    && failsafe.port == port
                    && failsafe.net.is_none_or(|net| net.contains(&remote))
            })
        };
        match self.question.pipeline {
            Pipeline::Workload | Pipeline::Forward => false,
            Pipeline::Host | Pipeline::PreDnat => has(own, destination_port),
            Pipeline::Untracked => has(own, destination_port) || has(replies, source_port),
        }
    }
}

impl Policies {
    /// The host endpoint that an interface of a node has: the one that names it; else one that expects one of its addresses; else the
    /// one for all interfaces. Of several the first by name.
    pub fn host_endpoint_of(&self, node: &str, interface: &str, addresses: &[IpAddr]) -> Option<&Endpoint> {
        let first = |is: &dyn Fn(&Endpoint, &HostInterface) -> bool| {
            let candidates = self.endpoints.iter().filter(|endpoint| match &endpoint.kind {
                EndpointKind::Host { interface, .. } => endpoint.node == node && is(endpoint, interface),
                EndpointKind::Workload { .. } => false,
            });
            candidates.min_by_key(|endpoint| &endpoint.name)
        };
        first(&|_, of| matches!(of, HostInterface::Named(name) if name == interface))
            .or_else(|| {
                first(&|endpoint, of| {
                    *of == HostInterface::ByAddress && addresses.iter().any(|a| endpoint.addresses.contains(a))
                })
            })
            .or_else(|| first(&|_, of| *of == HostInterface::All))
    }
}
