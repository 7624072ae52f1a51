//! The whole way of a flow: every policy that it passes, from its source's to its destination's.
//!
//! ```text
//! workload: its egress ┐                                                               ┌ workload: its ingress
//! host: untracked, host┴ out of a host endpoint: forward ── into one: untracked, pre-DNAT ┤ forward ┘
//!                                                                                      └ host: host
//! ```
//! A flow that begins or ends outside of all endpoints passes nothing there. Which interfaces of the nodes between lead to
//! the destination is not known here: whoever asks names their host endpoints.

use super::evaluate::{Decision, Direction, Packet, Pipeline, Question, Verdict};
use super::{Endpoint, Policies};

/// What becomes of a workload's packets to its own host after the workload's egress policy (`defaultEndpointToHostAction`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointToHost {
    /// They are dropped: Felix's default.
    #[default]
    Drop,
    /// They are accepted; the host's own policy is not asked.
    Accept,
    /// The policy of the host endpoint for all interfaces is asked, where there is one.
    Return,
}

/// A flow.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// The endpoint that it comes from; `None` from outside.
    pub source: Option<&'a Endpoint>,
    /// The endpoint that it goes to; `None` to outside.
    pub destination: Option<&'a Endpoint>,
    /// Host endpoint of the interface by which it leaves the node that forwards it.
    pub leaves: Option<&'a Endpoint>,
    /// Host endpoint of the interface by which it enters a node; the destination itself where that is a host endpoint.
    pub enters: Option<&'a Endpoint>,
    /// Its first packet.
    pub packet: &'a Packet,
    /// What becomes of packets from a workload to its own host.
    pub endpoint_to_host: EndpointToHost,
}

/// One policy that a flow passed.
#[derive(Clone, Debug, PartialEq)]
pub struct Step<'a> {
    /// Whose.
    pub endpoint: &'a Endpoint,
    /// Which of it.
    pub pipeline: Pipeline,
    /// In which direction.
    pub direction: Direction,
    /// What it said.
    pub decision: Decision<'a>,
}

/// What becomes of a flow.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement<'a> {
    /// It may pass.
    pub allowed: bool,
    /// All that were asked, those of the destination even where the source's policy denies.
    pub steps: Vec<Step<'a>>,
    /// It was dropped on its way from a workload to the workload's own host, by no policy.
    pub to_host_dropped: bool,
}

impl<'a> Judgement<'a> {
    /// The first step that denied; where none did, the last. In one direction, or in both.
    pub fn decisive(&self, direction: Option<Direction>) -> Option<&Step<'a>> {
        let mut steps = self.steps.iter().filter(|step| direction.is_none_or(|wanted| step.direction == wanted));
        let denied = steps.clone().find(|step| step.decision.verdict == Verdict::Deny);
        denied.or_else(|| steps.next_back())
    }
}

impl Policies {
    /// Asks every policy on a flow's way.
    pub fn judge<'a>(&'a self, flow: &Flow<'a>) -> Judgement<'a> {
        let mut way = Way { policies: self, packet: flow.packet, steps: Vec::new() };
        let dropped = way.own_host(flow).unwrap_or_else(|| {
            way.follow(flow);
            false
        });
        let denied = way.steps.iter().any(|step| step.decision.verdict == Verdict::Deny);
        Judgement { allowed: !dropped && !denied, steps: way.steps, to_host_dropped: dropped }
    }
}

struct Way<'a> {
    policies: &'a Policies,
    packet: &'a Packet,
    steps: Vec<Step<'a>>,
}

impl<'a> Way<'a> {
    /// Asks one policy.
    fn ask(&mut self, endpoint: &'a Endpoint, pipeline: Pipeline, direction: Direction) -> Verdict {
        let decision = self.policies.decide(&Question { endpoint, pipeline, direction, packet: self.packet });
        let verdict = decision.verdict;
        self.steps.push(Step { endpoint, pipeline, direction, decision });
        verdict
    }

    /// From a workload to the node that it is on; `None` where it is not such a flow, else whether it was dropped by no policy.
    fn own_host(&mut self, flow: &Flow<'a>) -> Option<bool> {
        let (source, host) = (flow.source?, flow.destination?);
        if source.namespace().is_none() || host.namespace().is_some() || source.node != host.node {
            return None;
        }
        if self.ask(source, Pipeline::Workload, Direction::Egress) == Verdict::Deny {
            return Some(false);
        }
        match flow.endpoint_to_host {
            EndpointToHost::Drop => return Some(true),
            EndpointToHost::Accept => {}
            // It comes in by the workload's interface, which only an endpoint for all of them stands for.
            EndpointToHost::Return => {
                if host.is_wildcard() {
                    self.host(host, Direction::Ingress, Pipeline::Host);
                }
            }
        }
        Some(false)
    }

    fn follow(&mut self, flow: &Flow<'a>) {
        match flow.source {
            Some(workload) if workload.namespace().is_some() => {
                self.ask(workload, Pipeline::Workload, Direction::Egress);
            }
            Some(host) => self.host(host, Direction::Egress, Pipeline::Host),
            None => {}
        }
        if let Some(leaves) = flow.leaves {
            self.host(leaves, Direction::Egress, Pipeline::Forward);
        }
        let to_host = flow.destination.filter(|destination| destination.namespace().is_none());
        let last = if to_host.is_some() { Pipeline::Host } else { Pipeline::Forward };
        if let Some(enters) = flow.enters.or(to_host) {
            self.host(enters, Direction::Ingress, last);
        }
        if let Some(workload) = flow.destination.filter(|destination| destination.namespace().is_some()) {
            self.ask(workload, Pipeline::Workload, Direction::Ingress);
        }
    }

    /// By an interface of a host. What untracked or pre-DNAT policy allows is not asked about again by the same endpoint.
    fn host(&mut self, endpoint: &'a Endpoint, direction: Direction, last: Pipeline) {
        let before: &[Pipeline] = match direction {
            Direction::Ingress => &[Pipeline::Untracked, Pipeline::PreDnat],
            Direction::Egress => &[Pipeline::Untracked],
        };
        for pipeline in before {
            if self.ask(endpoint, *pipeline, direction) != Verdict::Next {
                return;
            }
        }
        self.ask(endpoint, last, direction);
    }
}
