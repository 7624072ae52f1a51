//! Values of the metrics, read for each scrape.

use model::rib::Origin;
use tracing::warn;

use super::services::{backends, vips};
use super::{ports, status, worker_counters};
use crate::control::api::QueryError;
use crate::control::api::types::{Backend, BackendState, InterfaceState};
use crate::control::owner::Owner;
use crate::metrics;

/// One scrape in the text format of Prometheus. What cannot be read is left out and logged.
pub(in crate::control) fn scrape(owner: &Owner) -> String {
    metrics::render(|| {
        process(owner);
        interfaces(owner);
        tables(owner);
        sessions(owner);
        workers(owner);
        if let Err(error) = services(owner) {
            warn!(%error, "metrics of backends are missing from this scrape");
        }
        if let Err(error) = next_hops(owner) {
            warn!(%error, "metrics of next hops are missing from this scrape");
        }
    })
}

fn process(owner: &Owner) {
    let effort = owner.forwarding.effort();
    let micros = |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    metrics::BUILD_INFO.set(&[env!("CARGO_PKG_VERSION")], 1);
    metrics::UPTIME.set(&[], owner.started.elapsed().as_secs());
    metrics::CONFIG_VALID.set(&[], u64::from(owner.config.failure.is_none()));
    metrics::GENERATION.set(&[], owner.forwarding.generation());
    metrics::COMPILE_TIME.set(&[], micros(effort.compile));
    metrics::APPLY_TIME.set(&[], micros(effort.apply));
    metrics::APPLY_WRITES.set(&[], effort.writes);
    metrics::APPLY_FAILURES.set(&[], effort.failures);
    metrics::PROBLEMS.set(&[], status::status(owner).problems.len() as u64);
}

fn interfaces(owner: &Owner) {
    for interface in status::interfaces(owner) {
        metrics::PORT_UP.set(&[&interface.name], u64::from(interface.state == InterfaceState::Forwarding));
    }
    for (port, name) in ports(owner) {
        let counters = match owner.forwarding.dataplane().port_counters(port) {
            Ok(counters) => counters,
            Err(error) => {
                warn!(interface = name, %error, "counters are missing from this scrape");
                continue;
            }
        };
        metrics::PORT_RX_PACKETS.set(&[name], counters.rx.packets);
        metrics::PORT_RX_BYTES.set(&[name], counters.rx.bytes);
        for (verdict, count) in [("pass", counters.pass), ("tx", counters.tx), ("redirect", counters.redirect)] {
            metrics::PORT_VERDICT_PACKETS.set(&[name, verdict], count.packets);
            metrics::PORT_VERDICT_BYTES.set(&[name, verdict], count.bytes);
        }
        for (reason, count) in &counters.punt {
            metrics::PORT_PUNT_PACKETS.set(&[name, reason], count.packets);
            metrics::PORT_PUNT_BYTES.set(&[name, reason], count.bytes);
        }
        for (reason, count) in &counters.drop {
            metrics::PORT_DROP_PACKETS.set(&[name, reason], count.packets);
            metrics::PORT_DROP_BYTES.set(&[name, reason], count.bytes);
        }
    }
}

fn tables(owner: &Owner) {
    let sizes = status::sizes(owner);
    let entries = [
        ("fib", sizes.fib),
        ("groups", sizes.groups),
        ("next_hops", sizes.next_hops),
        ("vips", sizes.vips),
        ("backends", sizes.backends),
        ("filter_ops", sizes.filter_ops),
        ("denylist", sizes.denylist),
    ];
    for (table, count) in entries {
        metrics::TABLE_ENTRIES.set(&[table], count as u64);
    }
    let balancing = sizes.balancing;
    metrics::FLOWS.set(&["established"], balancing.flows_established as u64);
    metrics::FLOWS.set(&["opening"], (balancing.flows - balancing.flows_established) as u64);
    metrics::FLOWS_MAX.set(&[], balancing.flows_max as u64);
    metrics::BALANCING_BYTES.set(&["flow_table"], balancing.flow_table_bytes as u64);
    metrics::BALANCING_BYTES.set(&["rings"], balancing.ring_bytes as u64);
    metrics::FIB_ADOPTED.set(&[], sizes.adopted as u64);
    for (origin, name) in [(Origin::Kernel, "kernel"), (Origin::Bgp, "bgp"), (Origin::Adopted, "adopted")] {
        metrics::RIB_ROUTES.set(&[name], owner.routing.rib().count(origin) as u64);
    }
    let kernel = status::kernel_routes(owner);
    metrics::KERNEL_SYNCHRONISED.set(&[], u64::from(kernel.synchronised));
    metrics::KERNEL_AUDITS.set(&[], kernel.audits);
    metrics::KERNEL_REPAIRED.set(&[], kernel.repaired);
    metrics::KERNEL_OVERRUNS.set(&[], kernel.overruns);
    metrics::FIB_AWAY.set(&["ip4"], sizes.fib4.away as u64);
    for (family, memory) in [("ip4", sizes.fib4), ("ip6", sizes.fib6)] {
        metrics::FIB_DEPTH.set(&[family], memory.levels.len() as u64);
        for (level, blocks) in (1..).zip(&memory.levels) {
            metrics::FIB_BLOCKS.set(&[family, &i32::to_string(&level)], *blocks as u64);
        }
        metrics::FIB_BYTES.set(&[family, "used"], memory.bytes_used as u64);
        metrics::FIB_BYTES.set(&[family, "reserved"], memory.bytes_reserved as u64);
    }
    for (family, memory) in [("ip4", sizes.denied4), ("ip6", sizes.denied6)] {
        metrics::DENYLIST_BYTES.set(&[family, "used"], memory.bytes_used as u64);
        metrics::DENYLIST_BYTES.set(&[family, "reserved"], memory.bytes_reserved as u64);
    }
    let adjacencies = owner.forwarding.compiled().tables.adjacencies.values();
    let unresolved = adjacencies.clone().filter(|adjacency| adjacency.destination.is_none()).count();
    metrics::NEIGHBORS.set(&["resolved"], (adjacencies.count() - unresolved) as u64);
    metrics::NEIGHBORS.set(&["unresolved"], unresolved as u64);
    metrics::NEIGHBORS.set(&["failed"], owner.network.failed.len() as u64);
    let left_out = owner.forwarding.left_out(owner.routing.rib());
    let [ip4, ip6] = left_out.prefixes;
    for (table, routes) in [("fib4", ip4), ("fib6", ip6), ("groups", left_out.groups)] {
        metrics::ROUTES_LEFT_OUT.set(&[table], routes as u64);
    }
}

fn next_hops(owner: &Owner) -> Result<(), QueryError> {
    for hop in super::next_hops(owner, None, usize::MAX)?.items {
        if let (Some(address), Some(interface), Some(sent)) = (hop.address, hop.interface, hop.sent)
            && sent.packets > 0
        {
            let labels = [&address.to_string(), interface.as_str()];
            metrics::NEXT_HOP_PACKETS.set(&labels, sent.packets);
            metrics::NEXT_HOP_BYTES.set(&labels, sent.bytes);
        }
    }
    Ok(())
}

fn services(owner: &Owner) -> Result<(), QueryError> {
    for vip in vips(owner)? {
        let name = &vip.name;
        metrics::VIP_BACKENDS.set(&[name, "usable"], vip.usable as u64);
        metrics::VIP_CHANGED.set(&[name], vip.changed_slots as u64);
        metrics::VIP_BACKENDS.set(&[name, "unusable"], (vip.backends - vip.usable) as u64);
    }
    for backend in backends(owner)? {
        let labels = [backend.vip.as_str(), &backend.address.to_string()];
        metrics::BACKEND_PACKETS.set(&labels, backend.packets);
        metrics::BACKEND_BYTES.set(&labels, backend.bytes);
        backend_health(&backend, &labels[..]);
    }
    metrics::CHECKS_LATE.set(&[], owner.health.late());
    Ok(())
}

fn backend_health(backend: &Backend, labels: &[&str]) {
    for (state, name) in BackendState::NAMES {
        metrics::BACKEND_STATE.set(&[labels, &[name]].concat(), u64::from(backend.state == state));
    }
    let Some(health) = &backend.health else { return };
    for (result, checks) in [("ok", health.succeeded), ("failed", health.failed)] {
        metrics::BACKEND_CHECKS.set(&[labels, &[result]].concat(), checks);
    }
    if let Some(last) = &health.last {
        metrics::BACKEND_CHECK_TIME.set(labels, last.took_microseconds);
    }
}

fn sessions(owner: &Owner) {
    for peer in status::peers(owner) {
        metrics::BGP_SESSION_UP.set(&[&peer.name], u64::from(peer.state == status::ESTABLISHED));
        metrics::BGP_PREFIXES.set(&[&peer.name, "received"], peer.prefixes_received as u64);
        metrics::BGP_PREFIXES.set(&[&peer.name, "advertised"], peer.prefixes_sent as u64);
    }
}

/// The workers' counters go under the metric that their path belongs to.
fn workers(owner: &Owner) {
    for row in worker_counters(owner) {
        let worker = row.worker.to_string();
        let mut path = row.counter.split('.');
        match (path.next(), path.next(), path.next()) {
            (Some("punts"), Some(reason), _) => metrics::WORKER_PUNTS.set(&[&worker, reason], row.value),
            (Some("frames"), Some(place), _) => metrics::WORKER_FRAMES.set(&[&worker, place], row.value),
            (Some("sockets"), Some(socket), Some(event)) if !matches!(event, "queue" | "zero_copy") => {
                let (interface, queue) = socket.rsplit_once('/').unwrap_or((socket, ""));
                metrics::SOCKET_FRAMES.set(&[interface, queue, event], row.value);
            }
            // What waits at the moment is no counter; the held frames are among WORKER_FRAMES.
            (Some("neighbor"), Some("next_hops" | "frames"), _) => {}
            (Some(area @ ("icmp" | "neighbor" | "handoff")), Some(event), _) => {
                metrics::WORKER_EVENTS.set(&[&worker, &format!("{area}_{event}")], row.value);
            }
            (Some(timed @ ("answer_ns" | "resolve_ns")), Some(part), _) if part != "count" => {
                metrics::WORKER_LATENCY.set(&[&worker, timed.trim_end_matches("_ns"), part], row.value);
            }
            (Some(event), None, _) => metrics::WORKER_EVENTS.set(&[&worker, event], row.value),
            _ => {}
        }
    }
}
