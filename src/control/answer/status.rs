//! Health at a glance: what is in force, and everything that is wrong.

use std::collections::BTreeMap;
use std::time::Instant;

use tables::fib::{Depth, Usage};

use super::forwarding;
use crate::control::api::types::{
    BalancingMemory, ConfigStatus, FibMemory, InterfaceState, InterfaceStatus, KernelRoutesStatus, Peer, SessionCount,
    Status, TableSizes, VrfStatus,
};
use crate::control::owner::Owner;

/// The status document.
pub(super) fn status(owner: &Owner) -> Status {
    let compiled = owner.forwarding.compiled();
    let interfaces = interfaces(owner);
    let peers = peers(owner);
    let sessions = SessionCount {
        configured: peers.len(),
        established: peers.iter().filter(|peer| peer.state == ESTABLISHED).count(),
    };
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: owner.config.loaded.desired.node.name.clone(),
        pid: std::process::id(),
        uptime_seconds: owner.started.elapsed().as_secs(),
        generation: owner.forwarding.generation(),
        pin_dir: owner.options.pin_dir.clone(),
        features: compiled.features,
        config: ConfigStatus {
            directory: owner.options.config_dir.clone(),
            valid: owner.config.failure.is_none(),
            since_seconds: Instant::now().saturating_duration_since(owner.config.since).as_secs(),
            diagnostics: owner.config.diagnostics(Some(&owner.network)),
        },
        problems: problems(owner, &interfaces, &peers),
        interfaces,
        vrfs: vrfs(owner),
        tables: sizes(owner),
        kernel_routes: kernel_routes(owner),
        sessions,
    }
}

/// Name of the state of a session that exchanges routes.
pub(super) const ESTABLISHED: &str = "Established";

fn problems(owner: &Owner, interfaces: &[InterfaceStatus], peers: &[Peer]) -> Vec<String> {
    let mut problems = Vec::new();
    if owner.config.failure.is_some() {
        problems.push("the configuration has errors; mend the files, they are read again at once".to_owned());
    }
    if owner.forwarding.generation() == 0 && owner.forwarding.failure().is_none() {
        problems.push("no generation is in force yet: the kernel's links are being read".to_owned());
    }
    problems.extend(owner.forwarding.failure().map(|failure| format!("the new state is not in force: {failure}")));
    problems.extend(owner.routing.problem());
    let kernel = owner.routing.kernel();
    problems.extend(kernel.failure.as_ref().map(|failure| format!("the kernel's routes are not followed: {failure}")));
    problems.extend(owner.workers.failure().map(|failure| format!("slow path: {failure}")));
    problems.extend(owner.health.problem().map(str::to_owned));
    problems.extend(owner.drains.problem().map(str::to_owned));
    problems.extend(owner.forwarding.compiled().notices.iter().map(ToString::to_string));
    problems.extend(owner.forwarding.refused().values().cloned());
    for interface in interfaces.iter().filter(|interface| interface.state == InterfaceState::Down) {
        problems.push(format!("interface {} is down or has no carrier", interface.name));
    }
    for peer in peers.iter().filter(|peer| peer.state != ESTABLISHED) {
        let reason = peer.last_error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
        problems.push(format!("BGP session with {} ({}) is {}{reason}", peer.name, peer.address, peer.state));
    }
    problems
}

/// Interfaces of the node resource and what they do.
pub(super) fn interfaces(owner: &Owner) -> Vec<InterfaceStatus> {
    let status = |interface: &model::desired::Interface| {
        let found = owner.network.link_by_name(&interface.name);
        let state = match found {
            None => InterfaceState::Missing,
            Some((ifindex, link)) => {
                let device = link.vlan.map_or(ifindex, |vlan| vlan.parent);
                match (owner.forwarding.is_attached(device), link.up) {
                    (false, _) => InterfaceState::Failed,
                    (true, false) => InterfaceState::Down,
                    (true, true) => InterfaceState::Forwarding,
                }
            }
        };
        InterfaceStatus {
            name: interface.name.clone(),
            ifindex: found.map(|(ifindex, _)| ifindex.0),
            mode: interface.mode,
            state,
            vrf: interface.vrf.clone(),
        }
    };
    owner.config.loaded.desired.node.interfaces.iter().map(status).collect()
}

fn vrfs(owner: &Owner) -> Vec<VrfStatus> {
    let compiled = owner.forwarding.compiled();
    let status = |vrf: &model::desired::Vrf| {
        let rib = vrf.table.and_then(|table| owner.routing.rib().table(table));
        let fib = forwarding::vrf_id(compiled, &vrf.name).and_then(|id| compiled.tables.vrfs.get(&id));
        VrfStatus {
            name: vrf.name.clone(),
            table: vrf.table,
            kernel_routes: rib.map_or(0, |rib| rib.count(model::rib::Origin::Kernel)),
            routes: fib.map_or(0, BTreeMap::len),
        }
    };
    owner.config.loaded.desired.vrfs.iter().map(status).collect()
}

/// How far the kernel's routes are followed.
pub(super) fn kernel_routes(owner: &Owner) -> KernelRoutesStatus {
    let status = owner.routing.kernel();
    KernelRoutesStatus {
        table: status.table,
        synchronised: status.synchronised && status.table.is_some(),
        routes: status.routes,
        audits: status.audits,
        last_audit_seconds: status.audited.map(|at| at.elapsed().as_secs()),
        repaired: status.repaired,
        overruns: status.overruns,
    }
}

/// Peers and their sessions.
pub(super) fn peers(owner: &Owner) -> Vec<Peer> {
    owner.routing.peers()
}

/// Entries in force.
pub(super) fn sizes(owner: &Owner) -> TableSizes {
    const WORD: usize = size_of::<u32>();
    let tables = &owner.forwarding.compiled().tables;
    let dataplane = owner.forwarding.dataplane();
    let memory = |(usage, depth): (Usage, &Depth)| FibMemory {
        prefixes: usage.prefixes,
        bytes_used: usage.words * WORD,
        bytes_reserved: usage.capacity * WORD,
        levels: depth.levels.clone(),
        away: depth.away,
    };
    let ([usage4, usage6], [depth4, depth6]) = (dataplane.fib_usage(), dataplane.fib_depth());
    let [denied4, denied6] = dataplane.denied_usage();
    TableSizes {
        fib: tables.fib.len(),
        groups: tables.groups.len(),
        next_hops: tables.next_hops.len(),
        neighbors: owner.network.neighbors.len(),
        vips: tables.vips.len(),
        backends: tables.backends.len(),
        filter_ops: tables.filter.len(),
        denylist: tables.denylist.len(),
        denied4: memory((denied4, &Depth::default())),
        denied6: memory((denied6, &Depth::default())),
        adopted: owner.routing.rib().count(model::rib::Origin::Adopted),
        fib4: memory((usage4, depth4)),
        fib6: memory((usage6, depth6)),
        vrfs: memory((dataplane.vrf_usage(), &Depth::default())),
        balancing: balancing(owner),
    }
}

fn balancing(owner: &Owner) -> BalancingMemory {
    let usage = owner.forwarding.dataplane().balancing_usage().unwrap_or_default();
    BalancingMemory {
        flows: usage.remembered,
        flows_established: usage.established,
        flows_max: usage.entries_max,
        flow_table_bytes: usage.flow_table_bytes,
        rings: usage.rings,
        ring_bytes: usage.ring_bytes,
    }
}
