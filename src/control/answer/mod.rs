//! Answers to the API from the state. Nothing is changed; what only the kernel knows (counters, flows, a packet's way) is
//! read for the question.

mod explain;
mod forwarding;
mod frame;
mod kernel;
mod policies;
mod scrape;
mod services;
mod status;

use std::net::IpAddr;

use ipnet::IpNet;
use model::rib::Source;
use model::tables::{GroupId, NextHopId, VrfId};

use super::api::types::{DEFAULT_LIMIT, Drop, Filter, List, MAX_LIMIT, NextHop, NextHopKind, Route, WorkerCounter};
use super::api::{ListKind, Query, QueryError, Reply};
use super::owner::Owner;
use crate::dataplane::Reason;

pub(super) use kernel::kernel_diff;
pub(super) use scrape::scrape;

/// Answers a query.
///
/// # Errors
/// [`QueryError`], with what is wrong about the question or why the kernel could not be asked.
pub(super) fn answer(owner: &mut Owner, query: &Query) -> Result<Reply, QueryError> {
    match query {
        Query::Status => Ok(Reply::Status(Box::new(status::status(owner)))),
        Query::Explain(request) => Ok(Reply::Explanation(Box::new(explain::explain(owner, request)?))),
        Query::List(kind, filter) => list(owner, *kind, filter),
        Query::Draining(of) => Ok(Reply::Draining(services::draining(owner, of)?)),
        Query::Drain(_) => Err(QueryError::Invalid("nothing is changed by an answer".to_owned())),
        // The owner dumps the table first.
        Query::KernelDiff { .. } => Err(QueryError::Invalid("the kernel's table was not read".to_owned())),
    }
}

fn list(owner: &Owner, kind: ListKind, filter: &Filter) -> Result<Reply, QueryError> {
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    let of = filter.of.as_deref();
    Ok(match kind {
        ListKind::Routes => Reply::Routes(routes(owner, filter, limit)?),
        ListKind::Nexthops => Reply::NextHops(next_hops(owner, of, limit)?),
        ListKind::Neighbors => {
            let rows = forwarding::neighbors(&owner.network, &owner.neighbors);
            Reply::Neighbors(List::take(
                rows.filter(|row| named(of, &[&row.address.to_string(), &row.interface])),
                limit,
            ))
        }
        ListKind::Vips => {
            let rows = services::vips(owner)?.into_iter();
            Reply::Vips(List::take(rows.filter(|row| named(of, &[&row.service, &row.address])), limit))
        }
        ListKind::Backends => {
            let rows = services::backends(owner)?.into_iter();
            Reply::Backends(List::take(rows.filter(|row| named(of, &[&row.service, &row.address.to_string()])), limit))
        }
        ListKind::Peers => {
            let rows = status::peers(owner).into_iter();
            Reply::Peers(List::take(rows.filter(|row| named(of, &[&row.name, &row.address.to_string()])), limit))
        }
        ListKind::Policies => {
            let rows = (1..).zip(&owner.config.loaded.desired.policies).map(|(n, policy)| policies::policy(n, policy));
            Reply::Policies(List::take(rows.filter(|row| named(of, &[&row.name])), limit))
        }
        ListKind::Drops => {
            let rows = drops(owner)?.into_iter();
            Reply::Drops(List::take(rows.filter(|row| named(of, &[&row.interface, &row.reason])), limit))
        }
        ListKind::Flows => Reply::Flows(services::flows(owner, of, limit)?),
        ListKind::Workers => {
            let rows = worker_counters(owner).into_iter();
            Reply::Workers(List::take(rows.filter(|row| of.is_none_or(|of| row.counter.contains(of))), limit))
        }
    })
}

/// True where there is no filter, or it is one of the names (letter case aside).
fn named(filter: Option<&str>, names: &[&str]) -> bool {
    filter.is_none_or(|filter| names.iter().any(|name| name.eq_ignore_ascii_case(filter)))
}

/// The VRF called `name`.
///
/// # Errors
/// There is none; which there are is told.
pub(super) fn vrf(owner: &Owner, name: &str) -> Result<VrfId, QueryError> {
    let compiled = owner.forwarding.compiled();
    forwarding::vrf_id(compiled, name).ok_or_else(|| {
        let known: Vec<&str> = compiled.names.vrfs.values().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        QueryError::Invalid(format!("there is no VRF '{name}'; VRFs are: {known}"))
    })
}

/// Where the route of a prefix that forwards in a VRF comes from, and its group.
fn best_route(owner: &Owner, vrf: VrfId, prefix: IpNet) -> Option<(Source, GroupId)> {
    let compiled = owner.forwarding.compiled();
    match vrf {
        VrfId::DEFAULT => compiled.best_route(prefix, owner.routing.rib()),
        _ => compiled.vrf_routes(vrf).get(&prefix).copied(),
    }
}

fn routes(owner: &Owner, filter: &Filter, limit: usize) -> Result<List<Route>, QueryError> {
    let compiled = owner.forwarding.compiled();
    let vrf = filter.vrf.as_deref().map_or(Ok(VrfId::DEFAULT), |name| vrf(owner, name))?;
    let (tables, fib) = (&compiled.tables, forwarding::fib_of(compiled, vrf));
    let row = |prefix: IpNet| {
        let (source, group) = best_route(owner, vrf, prefix)?;
        let next_hops = forwarding::members(tables, &owner.network, group);
        Some(Route { prefix, source, group: group.0, next_hops })
    };
    let Some(text) = filter.of.as_deref() else {
        // Of a full table only the rows that are wanted are looked up.
        let first = fib.keys().take(limit).filter_map(|prefix| row(*prefix));
        return Ok(List { items: first.collect(), total: fib.len() });
    };
    let wanted = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
        QueryError::Invalid(format!("'{text}' is neither a prefix nor an address; give 10.0.0.0/8 or 10.0.0.1"))
    })?;
    let found = forwarding::longest_match(fib, wanted).and_then(|(prefix, _)| row(prefix));
    Ok(List::take(found.into_iter(), limit))
}

fn next_hops(owner: &Owner, of: Option<&str>, limit: usize) -> Result<List<NextHop>, QueryError> {
    let address = match of {
        Some(text) => {
            Some(text.parse::<IpAddr>().map_err(|_| QueryError::Invalid(format!("'{text}' is not an address")))?)
        }
        None => None,
    };
    let tables = &owner.forwarding.compiled().tables;
    let rows = tables.next_hops.iter().map(|(id, hop)| forwarding::next_hop(tables, &owner.network, *id, hop));
    let mut list = List::take(rows.filter(|row| address.is_none() || row.address == address), limit);
    for row in &mut list.items {
        if row.kind == NextHopKind::Forward {
            row.sent = Some(owner.forwarding.dataplane().next_hop_count(NextHopId(row.id)).map_err(kernel)?);
        }
    }
    Ok(list)
}

/// Every port with its interface's name, port 0 (frames of no port) as `-`.
fn ports(owner: &Owner) -> impl Iterator<Item = (model::tables::PortId, &str)> {
    let named = owner.forwarding.compiled().names.ports.iter().map(|(id, name)| (*id, name.as_str()));
    std::iter::once((model::tables::PortId(0), "-")).chain(named)
}

fn kernel(error: crate::dataplane::Error) -> QueryError {
    QueryError::Dataplane(format!("the kernel could not be asked: {error}"))
}

/// The help of the reason called `name`.
fn help<'a>(reasons: &'a [Reason], name: &str) -> &'a str {
    reasons.iter().find(|reason| reason.name == name).map_or("", |reason| &reason.help)
}

fn drops(owner: &Owner) -> Result<Vec<Drop>, QueryError> {
    let reasons = owner.forwarding.reasons();
    let mut rows = Vec::new();
    for (port, interface) in ports(owner) {
        let counters = owner.forwarding.dataplane().port_counters(port).map_err(kernel)?;
        let kinds = [("drop", counters.drop, &reasons.drops), ("punt", counters.punt, &reasons.punts)];
        for (verdict, counts, reasons) in kinds {
            rows.extend(counts.into_iter().map(|(reason, count)| Drop {
                interface: interface.to_owned(),
                verdict: verdict.to_owned(),
                help: help(reasons, &reason).to_owned(),
                reason,
                packets: count.packets,
                bytes: count.bytes,
            }));
        }
    }
    Ok(rows)
}

/// The numbers of the workers' own document, each under its path.
fn worker_counters(owner: &Owner) -> Vec<WorkerCounter> {
    let mut rows = Vec::new();
    for stats in owner.workers.stats() {
        let worker = stats.worker;
        if let Ok(document) = serde_json::to_value(&stats) {
            flatten("", &document, &mut |counter, value| {
                if counter != "worker" && counter != "core" {
                    rows.push(WorkerCounter { worker, counter, value });
                }
            });
        }
    }
    rows
}

/// Visits every number of a document by its path; a list entry goes by its interface and queue.
fn flatten(path: &str, value: &serde_json::Value, visit: &mut impl FnMut(String, u64)) {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        serde_json::Value::Number(number) => visit(path.to_owned(), number.as_u64().unwrap_or_default()),
        serde_json::Value::Bool(flag) => visit(path.to_owned(), u64::from(*flag)),
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                flatten(&join(name), value, visit);
            }
        }
        serde_json::Value::Array(entries) => {
            for entry in entries {
                let part =
                    |name: &str| entry.get(name).map(|part| part.to_string().replace('"', "")).unwrap_or_default();
                flatten(&join(&format!("{}/{}", part("interface"), part("queue"))), entry, visit);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workers_document_becomes_rows() {
        let document = serde_json::json!({
            "malformed": 1, "icmp": {"errors": 2}, "sockets": [{"interface": "eth0", "queue": 3, "rx": 4, "zero_copy": true}]
        });
        let mut rows = Vec::new();
        flatten("", &document, &mut |counter, value| rows.push((counter, value)));
        let expected = [
            ("icmp.errors", 2),
            ("malformed", 1),
            ("sockets.eth0/3.queue", 3),
            ("sockets.eth0/3.rx", 4),
            ("sockets.eth0/3.zero_copy", 1),
        ];
        assert_eq!(rows, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn a_filter_is_a_whole_name() {
        assert!(named(None, &["x"]));
        assert!(named(Some("no_route"), &["eth0", "NO_ROUTE"]));
        assert!(!named(Some("NO"), &["eth0", "NO_ROUTE"]));
    }
}
