//! A packet's way through the loaded program, with the names of what it met.

use std::fmt::Write as _;

use model::compile::FilterOrigin;
use model::network::IfIndex;
use model::tables::{AdjacencyId, BackendId, GroupId, NextHopId, Outer, PortKey, VipId};
use model::verdict::{PuntReason, Verdict};

use super::forwarding::{interface_name, members, next_hop};
use super::policies::protocol_name;
use super::services::vip_name;
use super::{frame, help, kernel, policies};
use crate::control::api::QueryError;
use crate::control::api::types::{ExplainRequest, Explanation, MAX_FRAME_BYTES, Member, NextHopKind, Packet, Step};
use crate::control::owner::Owner;
use crate::dataplane::{SHORTEST_FRAME, Stage, Step as TableStep};

/// Runs the packet and tells its way.
///
/// # Errors
/// [`QueryError`] where the interface is no port, the packet is none, or the kernel refuses to run it.
pub(super) fn explain(owner: &mut Owner, request: &ExplainRequest) -> Result<Explanation, QueryError> {
    let (ifindex, frame) = input(owner, request)?;
    let run = owner.forwarding.dataplane_mut().explain(&frame, ifindex).map_err(kernel)?;
    let names = Namer { owner };
    let reasons = owner.forwarding.reasons();
    let steps = run.steps.iter().filter_map(|step| names.step(step)).collect();
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
        verdict: verdict.to_owned(),
        detail,
        frame: run.frame.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
    })
}

/// The frame and the device that it comes in by. Frames of a VLAN come in tagged, by the parent.
fn input(owner: &Owner, request: &ExplainRequest) -> Result<(IfIndex, Vec<u8>), QueryError> {
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
    Ok((*ifindex, frame))
}

struct Namer<'a> {
    owner: &'a Owner,
}

impl Namer<'_> {
    /// One stage in words; the verdict is told apart.
    fn step(&self, step: &TableStep) -> Option<Step> {
        let (stage, text) = match step.stage {
            Stage::Parse => ("parse", self.parse(step)),
            Stage::Port => ("port", self.port(step.id)),
            Stage::Decap => ("decap", if step.id == 1 { "IPIP".into() } else { format!("VXLAN, VNI {}", step.detail) }),
            Stage::Denylist => {
                ("denylist", if step.id == 1 { "source is listed" } else { "source is not listed" }.into())
            }
            Stage::Filter => ("policy", self.filter(step.id)),
            Stage::Vip => ("vip", self.vip(VipId(step.id))),
            Stage::Flow => ("flow", self.flow(step.id)),
            Stage::Ring => ("maglev", format!("slot {}: {}", step.detail, self.backend_name(step.id))),
            Stage::Backend => ("backend", self.backend(BackendId(step.id))),
            Stage::Fib => ("fib", self.group(GroupId(step.id))),
            Stage::NextHop => ("next hop", self.next_hop(NextHopId(step.id))),
            Stage::Adjacency => ("adjacency", self.adjacency(AdjacencyId(step.id))),
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
        let names = &self.owner.forwarding.compiled().names.ports;
        names.get(&model::tables::PortId(id)).map_or_else(|| "no port".to_owned(), Clone::clone)
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
            (Some(service), Some(key)) => format!("{key} of VirtualService {service}"),
            _ => "no service".to_owned(),
        }
    }

    fn flow(&self, backend: u32) -> String {
        if backend == 0 { "not remembered".to_owned() } else { format!("remembered: {}", self.backend_name(backend)) }
    }

    fn backend_name(&self, id: u32) -> String {
        let names = &self.owner.forwarding.compiled().names.backends;
        names.get(&BackendId(id)).map_or_else(|| "no backend".to_owned(), |(_, address)| address.to_string())
    }

    fn backend(&self, id: BackendId) -> String {
        let Some(backend) = self.owner.forwarding.compiled().tables.backends.get(&id) else {
            return "no backend".to_owned();
        };
        let outer = match backend.outer {
            Outer::None => "unchanged to its link-layer address".to_owned(),
            Outer::Ipip { source, destination } => format!("IPIP {source} -> {destination}"),
            Outer::Vxlan { source, destination, vni, inner_destination, .. } => {
                format!("VXLAN {source} -> {destination}, VNI {vni}, inner destination {inner_destination}")
            }
        };
        format!("{}: {outer}, at most {} bytes", backend.address, backend.inner_mtu)
    }

    fn group(&self, id: GroupId) -> String {
        if id.0 == 0 {
            return "no route".to_owned();
        }
        let compiled = self.owner.forwarding.compiled();
        let members = members(&compiled.tables, &self.owner.network, id);
        format!("group {}: {}", id.0, members.iter().map(member).collect::<Vec<_>>().join(", "))
    }

    fn next_hop(&self, id: NextHopId) -> String {
        let tables = &self.owner.forwarding.compiled().tables;
        let hop = tables.next_hops.get(&id).map(|hop| next_hop(tables, &self.owner.network, id, hop));
        hop.map_or_else(|| "none".to_owned(), |next_hop| member(&Member { share_percent: 100.0, next_hop }))
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

fn member(member: &Member) -> String {
    let hop = &member.next_hop;
    let dev = hop.interface.as_deref().map(|name| format!(" dev {name}")).unwrap_or_default();
    let share = if member.share_percent < 99.9 { format!(" {:.0}%", member.share_percent) } else { String::new() };
    match (hop.kind, hop.address) {
        (NextHopKind::Forward, Some(address)) => format!("via {address}{dev}{share}"),
        (NextHopKind::Glean, _) => format!("connected{dev}{share}"),
        (NextHopKind::Receive, _) => format!("this node{share}"),
        (NextHopKind::Host, _) => format!("the host's stack{share}"),
        (NextHopKind::Vip, _) => format!("VIP address{share}"),
        (NextHopKind::Blackhole, _) => format!("blackhole{share}"),
        (NextHopKind::Prohibit, _) => format!("prohibit{share}"),
        (NextHopKind::Unreachable, _) => format!("unreachable{share}"),
        (NextHopKind::Forward, None) => format!("forward{dev}{share}"),
    }
}
