//! A packet's way through the loaded program, with the names of what it met.

use std::fmt::Write as _;
use std::net::IpAddr;

use model::compile::{FilterOrigin, Notice};
use model::network::IfIndex;
use model::tables::{AdjacencyId, BackendId, GROUP_BUCKETS, GroupId, NextHopId, Origins, Outer, PortKey, VipId, VrfId};
use model::verdict::{PuntReason, Verdict};
use tables::hash::{self, FlowKey};

use super::forwarding::{self, interface_name, members, next_hop};
use super::policies::protocol_name;
use super::services::vip_name;
use super::{best_route, frame, help, kernel, policies};
use crate::control::api::QueryError;
use crate::control::api::types::{
    ExplainRequest, Explanation, MAX_FRAME_BYTES, Member, NextHop, NextHopKind, Packet, RoutedBy, Step,
};
use crate::control::owner::Owner;
use crate::dataplane::{PacketFlow, SHORTEST_FRAME, Stage, Step as TableStep, flows};

/// Most backends that are named because they do not serve.
const NOT_SERVING: usize = 4;

/// Runs the packet and tells its way.
///
/// # Errors
/// [`QueryError`] where the interface is no port, the packet is none, or the kernel refuses to run it.
pub(super) fn explain(owner: &mut Owner, request: &ExplainRequest) -> Result<Explanation, QueryError> {
    let (ifindex, vrf, frame) = input(owner, request)?;
    let run = owner.forwarding.dataplane_mut().explain(&frame, ifindex).map_err(kernel)?;
    let reasons = owner.forwarding.reasons();
    let (flow, inner_flow) = flows(&frame, &run.steps);
    let mut names = Namer { owner, vrf, flow, inner_flow, route: None };
    let steps = run.steps.iter().filter_map(|step| names.step(step)).collect();
    let route = names.route;
    let (verdict, detail) = match run.verdict {
        Verdict::Pass => ("pass", None),
        Verdict::Tx => ("tx", Some(interface_name(&owner.network, ifindex))),
        Verdict::Redirect(egress) => ("redirect", Some(interface_name(&owner.network, egress))),
        Verdict::Punt(reason) => ("punt", Some(format!("{reason}: {}", help(&reasons.punts, reason.name())))),
        Verdict::Drop(reason) => ("drop", Some(format!("{reason}: {}", help(&reasons.drops, reason.name())))),
    };
    Ok(Explanation {
        interface: request.interface.clone(),
        steps,
        route,
        verdict: verdict.to_owned(),
        detail,
        frame: run.frame.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
    })
}

/// The frame, the device that it comes in by, and the VRF whose routes it takes. Frames of a VLAN come in tagged, by the parent.
fn input(owner: &Owner, request: &ExplainRequest) -> Result<(IfIndex, VrfId, Vec<u8>), QueryError> {
    let names = &owner.forwarding.compiled().names.ports;
    let port = names.iter().find(|(_, name)| **name == request.interface).map(|(id, _)| *id);
    let ports = &owner.forwarding.compiled().tables.ports;
    let found = port.and_then(|id| ports.iter().find(|(_, port)| port.id == id));
    let Some((PortKey { ifindex, vlan }, port)) = found else {
        let known: Vec<&str> = names.values().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(QueryError::Invalid(format!("interface {} is no port; ports are: {known}", request.interface)));
    };
    let frame = match &request.packet {
        Packet::Tuple(tuple) => frame::frame(tuple, port.mac, *vlan)?,
        Packet::Frame(hex) => frame::from_hex(hex, MAX_FRAME_BYTES)?,
    };
    if frame.len() < SHORTEST_FRAME {
        return Err(QueryError::Invalid(format!("the frame has {} bytes, {SHORTEST_FRAME} at least", frame.len())));
    }
    Ok((*ifindex, port.vrf, frame))
}

/// Goes along with the packet.
struct Namer<'a> {
    owner: &'a Owner,
    vrf: VrfId,
    /// The flow of the packet as it is at this stage, and of the one inside.
    flow: Option<PacketFlow>,
    inner_flow: Option<PacketFlow>,
    /// How the last next hop was chosen.
    route: Option<RoutedBy>,
}

impl Namer<'_> {
    /// One stage in words; the verdict is told apart.
    fn step(&mut self, step: &TableStep) -> Option<Step> {
        let (stage, text) = match step.stage {
            Stage::Parse => ("parse", self.parse(step)),
            Stage::Port => ("port", self.port(step.id)),
            Stage::Decap => {
                self.flow = self.inner_flow.take();
                self.route = None;
                let kind = match step.id {
                    1 => "IPIP".into(),
                    2 => format!("VXLAN, VNI {}", step.detail),
                    _ => "GUE".into(),
                };
                ("decap", kind)
            }
            Stage::Denylist => ("denylist", denied(step.id).into()),
            Stage::Source => ("source", self.source(step)),
            Stage::Filter => ("policy", self.filter(step.id)),
            Stage::Vip => ("vip", self.vip(VipId(step.id))),
            Stage::Flow => ("flow", self.flow(step)),
            Stage::Quic => ("quic", format!("the connection ID names {}", self.backend_name(step.id))),
            Stage::Ring => ("maglev", format!("slot {}: {}", step.detail, self.backend_name(step.id))),
            Stage::Backend => ("backend", self.backend(BackendId(step.id))),
            Stage::Fib => ("fib", self.fib(GroupId(step.id))),
            Stage::NextHop => ("next hop", self.next_hop(NextHopId(step.id))),
            Stage::Adjacency => ("adjacency", self.adjacency(AdjacencyId(step.id))),
            Stage::Mss => ("mss", format!("maximum segment size lowered from {} to {} bytes", step.detail, step.id)),
            Stage::Punt => ("punt", self.punt(step)),
            Stage::Verdict => return None,
        };
        Some(Step { stage: stage.to_owned(), text })
    }

    fn parse(&self, step: &TableStep) -> String {
        match step.id {
            0x0800 => format!("IPv4 {}", protocol_name(u8::try_from(step.detail).unwrap_or_default())),
            0x86dd => format!("IPv6 {}", protocol_name(u8::try_from(step.detail).unwrap_or_default())),
            ethertype => format!("ethertype 0x{ethertype:04x}"),
        }
    }

    fn port(&self, id: u32) -> String {
        let names = &self.owner.forwarding.compiled().names;
        let vrf = names.vrfs.get(&self.vrf).map(|vrf| format!(", VRF {vrf}")).unwrap_or_default();
        names.ports.get(&model::tables::PortId(id)).map_or_else(|| "no port".to_owned(), |port| format!("{port}{vrf}"))
    }

    fn source(&self, step: &TableStep) -> String {
        let (tables, network) = (&self.owner.forwarding.compiled().tables, &self.owner.network);
        let back = members(tables, network, GroupId(step.id));
        let mode = match step.detail {
            1 => "loose",
            2 => "strict",
            _ => "feasible",
        };
        match (step.id, self.flow) {
            (0, _) | (_, None) => format!("{mode}: no route back"),
            (id, Some(flow)) => {
                let back: Vec<_> = back.iter().map(member).collect();
                let answer = format!("{mode}: back to {} by group {id}: {}", flow.own.source, back.join(", "));
                match mode {
                    "feasible" => format!("{answer}; may come from {}", self.origins(GroupId(id))),
                    _ => answer,
                }
            }
        }
    }

    /// The ports that packets from where a group leads to may come in by.
    fn origins(&self, group: GroupId) -> String {
        let compiled = self.owner.forwarding.compiled();
        let origins = compiled.tables.origins.get(&group).copied().unwrap_or_default();
        let ports = compiled.names.ports.iter().filter(|(id, _)| Origins::bit(**id).among(origins) != Origins::NONE);
        let names: Vec<&str> = ports.map(|(_, name)| name.as_str()).collect();
        if names.is_empty() { "no port".to_owned() } else { names.join(", ") }
    }

    fn filter(&self, op: u32) -> String {
        let compiled = self.owner.forwarding.compiled();
        let origin = compiled.names.filter.get(op as usize);
        let Some(origin) = origin else { return "unknown rule".to_owned() };
        match origin {
            FilterOrigin::NoRule => "no rule matches: allowed".to_owned(),
            FilterOrigin::Failsafe => "failsafe port: allowed".to_owned(),
            FilterOrigin::Rule { policy, rule } => {
                let found = self.owner.config.loaded.desired.policies.iter().find(|one| one.name == *policy);
                let words = found.and_then(|policy| policy.rules.get(*rule)).map(policies::rule).unwrap_or_default();
                format!("{policy}, rule {}: {words}", rule + 1)
            }
        }
    }

    fn vip(&self, id: VipId) -> String {
        let compiled = self.owner.forwarding.compiled();
        let key = compiled.tables.vips.iter().find(|(_, of)| **of == id).map(|(key, _)| vip_name(key));
        match (compiled.names.vips.get(&id), key) {
            (Some(service), Some(key)) => format!("{key} of VirtualService {service}{}", self.not_serving(service)),
            _ => "no service".to_owned(),
        }
    }

    /// Backends of a service that flows do not, or no longer, go to, and why; the first of them.
    fn not_serving(&self, service: &str) -> String {
        let unusable = self.owner.forwarding.compiled().notices.iter().filter_map(|notice| match notice {
            Notice::BackendUnusable { service: of, backend, problem } if of == service => {
                Some(format!("{backend} {problem}"))
            }
            _ => None,
        });
        let services = self.owner.config.loaded.desired.services.iter().filter(|of| of.name == service);
        let draining = services.flat_map(|service| service.backends.iter().filter(|backend| backend.drain));
        let mut all = unusable.chain(draining.map(|backend| format!("{} drains", backend.address)));
        let first: Vec<String> = all.by_ref().take(NOT_SERVING).collect();
        match (first.is_empty(), all.count()) {
            (true, _) => String::new(),
            (false, 0) => format!("; {}", first.join(", ")),
            (false, others) => format!("; {}, and {others} others", first.join(", ")),
        }
    }

    fn flow(&self, step: &TableStep) -> String {
        match (step.id, u32::try_from(step.detail).unwrap_or_default()) {
            (0, backend) => format!("the slot has changed, not remembered: {}", self.backend_name(backend)),
            (backend, _) => format!("the slot has changed, remembered: {}", self.backend_name(backend)),
        }
    }

    fn backend_name(&self, id: u32) -> String {
        let names = &self.owner.forwarding.compiled().names.backends;
        names.get(&BackendId(id)).map_or_else(|| "no backend".to_owned(), |(_, address)| address.to_string())
    }

    fn backend(&mut self, id: BackendId) -> String {
        let Some(backend) = self.owner.forwarding.compiled().tables.backends.get(&id).copied() else {
            return "no backend".to_owned();
        };
        let outer = match backend.outer {
            Outer::None => "unchanged to its link-layer address".to_owned(),
            Outer::Ipip { source, destination, varied } => {
                let flow_hash = self.flow.map_or(0, |flow| hash::flow_hash(&flow.balanced));
                format!("IPIP {} -> {destination}", hash::outer_source(source, varied, flow_hash))
            }
            Outer::Gue { source, destination } => format!("GUE {source} -> {destination}"),
            Outer::Vxlan { source, destination, vni, inner_destination, .. } => {
                format!("VXLAN {source} -> {destination}, VNI {vni}, inner destination {inner_destination}")
            }
        };
        let route = self.routed(backend.address, backend.group, self.flow.map(|flow| flow.balanced));
        format!("{}: {outer}, at most {} bytes; by {route}", backend.address, backend.inner_mtu)
    }

    fn fib(&mut self, group: GroupId) -> String {
        match self.flow {
            Some(flow) => self.routed(flow.own.destination, group, Some(flow.forwarded)),
            None => format!("group {}", group.0),
        }
    }

    /// Remembers which route leads to `destination`, and puts it into words. `flow`: what chooses among next hops.
    fn routed(&mut self, destination: IpAddr, group: GroupId, flow: Option<FlowKey>) -> String {
        let compiled = self.owner.forwarding.compiled();
        let fib = forwarding::fib_of(compiled, self.vrf);
        let matched = forwarding::longest_match(fib, destination).map(|(prefix, _)| prefix);
        let prefix = matched.filter(|_| group.0 != 0);
        let source = prefix.and_then(|prefix| best_route(self.owner, self.vrf, prefix));
        let source = source.map(|(source, _)| source);
        let members = members(&compiled.tables, &self.owner.network, group);
        let hash = flow.as_ref().map_or(0, hash::flow_hash);
        let text = match (prefix, source) {
            (Some(prefix), Some(source)) => format!("{prefix} {source}, "),
            _ => String::new(),
        };
        let text = match group.0 {
            0 => "no route".to_owned(),
            id => format!("{text}group {id}: {}", members.iter().map(member).collect::<Vec<_>>().join(", ")),
        };
        self.route = Some(RoutedBy {
            vrf: compiled.names.vrfs.get(&self.vrf).cloned(),
            destination,
            prefix,
            source,
            group: group.0,
            members,
            bucket: hash::bucket(hash, compiled.parameters.hash_seed),
            flow_hash: format!("{hash:016x}"),
            next_hop: None,
        });
        text
    }

    fn next_hop(&mut self, id: NextHopId) -> String {
        let tables = &self.owner.forwarding.compiled().tables;
        let Some(hop) = tables.next_hops.get(&id).map(|hop| next_hop(tables, &self.owner.network, id, hop)) else {
            return "none".to_owned();
        };
        let text = name(&hop);
        let Some(route) = &mut self.route else { return text };
        route.next_hop = Some(hop);
        format!("bucket {} of {GROUP_BUCKETS}: {text}", route.bucket)
    }

    fn adjacency(&self, id: AdjacencyId) -> String {
        let Some(adjacency) = self.owner.forwarding.compiled().tables.adjacencies.get(&id) else {
            return "none".to_owned();
        };
        let to = adjacency.destination.map_or_else(|| "unresolved".to_owned(), |mac| format!("to {mac}"));
        let vlan = adjacency.vlan.map(|vlan| format!(", VLAN {vlan}")).unwrap_or_default();
        let dev = interface_name(&self.owner.network, adjacency.ifindex);
        format!("dev {dev}, from {} {to}{vlan}, MTU {}", adjacency.source, adjacency.mtu)
    }

    fn punt(&self, step: &TableStep) -> String {
        let reason = PuntReason::ALL.get(step.id as usize).map_or("unknown reason", |reason| reason.name());
        if step.detail > 0 { format!("{reason}, MTU {}", step.detail) } else { reason.to_owned() }
    }
}

/// What the program has found on the Denylists.
fn denied(id: u32) -> &'static str {
    match id {
        0 => "not listed",
        1 => "source is listed",
        _ => "destination is listed",
    }
}

fn member(member: &Member) -> String {
    let share =
        if member.buckets < GROUP_BUCKETS { format!(" {}/{GROUP_BUCKETS}", member.buckets) } else { String::new() };
    name(&member.next_hop) + &share
}

fn name(hop: &NextHop) -> String {
    let dev = hop.interface.as_deref().map(|name| format!(" dev {name}")).unwrap_or_default();
    match (hop.kind, hop.address) {
        (NextHopKind::Forward, Some(address)) => format!("via {address}{dev}"),
        (NextHopKind::Forward, None) => format!("forward{dev}"),
        (NextHopKind::Glean, _) => format!("connected{dev}"),
        (NextHopKind::Receive, _) => "this node".to_owned(),
        (NextHopKind::Host, _) => "the host's stack".to_owned(),
        (NextHopKind::Vip, _) => "VIP address".to_owned(),
        (NextHopKind::Blackhole, _) => "blackhole".to_owned(),
        (NextHopKind::Prohibit, _) => "prohibit".to_owned(),
        (NextHopKind::Unreachable, _) => "unreachable".to_owned(),
    }
}
