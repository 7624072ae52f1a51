//! VIPs, backends and flows as the API shows them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use model::desired::{Backend as DesiredBackend, Encap, Service};
use model::health::Standing;
use model::tables::{BackendId, VipId, VipKey};

use super::forwarding::percent;
use super::kernel;
use super::policies::protocol_name;
use crate::control::api::QueryError;
use crate::control::api::types::{
    Backend, BackendHealth, BackendState, DrainFilter, Draining, Flow, LastCheck, List, Vip,
};
use crate::control::owner::Owner;
use crate::dataplane::{self, Count};

/// `192.0.2.1:80/TCP`, `[2001:db8::/64]:*/UDP`, `192.0.2.0/24:*/*`: the name of a VIP.
pub(super) fn vip_name(key: &VipKey) -> String {
    let [port, protocol] = vip_port(key);
    let end = match key.prefix {
        IpNet::V4(_) => address_name(key),
        IpNet::V6(_) => format!("[{}]", address_name(key)),
    };
    format!("{end}:{port}/{protocol}")
}

/// An address without its length, a prefix with it.
fn address_name(key: &VipKey) -> String {
    let VipKey { prefix, .. } = key;
    if prefix.prefix_len() == prefix.max_prefix_len() { prefix.addr().to_string() } else { prefix.to_string() }
}

/// Port and protocol, `*` for any.
fn vip_port(key: &VipKey) -> [String; 2] {
    let any = || "*".to_owned();
    [key.port.map_or_else(any, |port| port.to_string()), key.protocol.map_or_else(any, protocol_name)]
}

fn encap_name(encap: &Encap) -> String {
    match encap {
        Encap::Ipip => "IPIP".to_owned(),
        Encap::Gue => "GUE".to_owned(),
        Encap::Vxlan { vni, .. } => format!("VXLAN {vni}"),
        Encap::L2 => "L2".to_owned(),
    }
}

/// A VIP of a service with the backends that it may use.
struct Served<'a> {
    service: &'a Service,
    key: VipKey,
    id: VipId,
}

impl Served<'_> {
    /// Its backends as configured, with their entry where they are usable.
    fn backends<'a>(&'a self, owner: &'a Owner) -> impl Iterator<Item = (&'a DesiredBackend, Option<BackendId>)> {
        let tables = &owner.forwarding.compiled().tables;
        let by_address: BTreeMap<IpAddr, BackendId> =
            tables.backends.iter().filter(|(_, b)| b.vip == self.id).map(|(id, b)| (b.address, *id)).collect();
        self.service.backends.iter().map(move |backend| (backend, by_address.get(&backend.address).copied()))
    }
}

fn served(owner: &Owner) -> impl Iterator<Item = Served<'_>> {
    owner.config.loaded.desired.services.iter().flat_map(move |service| {
        VipKey::of(service).filter_map(move |key| {
            let id = *owner.forwarding.compiled().tables.vips.get(&key)?;
            Some(Served { service, key, id })
        })
    })
}

fn count(owner: &Owner, id: Option<BackendId>) -> Result<Count, QueryError> {
    id.map_or(Ok(Count::default()), |id| owner.forwarding.dataplane().backend_count(id).map_err(kernel))
}

/// All VIPs in force.
pub(super) fn vips(owner: &Owner) -> Result<Vec<Vip>, QueryError> {
    let announced = &owner.forwarding.compiled().announce;
    let row = |vip: Served<'_>| {
        let mut total = Count::default();
        let mut usable = 0;
        for (_, id) in vip.backends(owner) {
            usable += usize::from(id.is_some());
            total += count(owner, id)?;
        }
        Ok(Vip {
            service: vip.service.name.clone(),
            name: vip_name(&vip.key),
            address: address_name(&vip.key),
            port: vip.key.port,
            protocol: vip.key.protocol.map(protocol_name),
            backends: vip.service.backends.len(),
            usable,
            announced: announced.contains(&vip.key.prefix),
            changed_slots: owner.forwarding.changed_slots(vip.id),
            packets: total.packets,
            bytes: total.bytes,
        })
    };
    served(owner).map(row).collect()
}

/// All backends, each once a VIP.
pub(super) fn backends(owner: &Owner) -> Result<Vec<Backend>, QueryError> {
    let tables = &owner.forwarding.compiled().tables;
    let mut rows = Vec::new();
    for vip in served(owner) {
        let ring = tables.rings.get(&vip.id);
        let mut slots: BTreeMap<BackendId, usize> = BTreeMap::new();
        for slot in ring.into_iter().flat_map(|ring| ring.iter()) {
            *slots.entry(slot.now()).or_default() += 1;
        }
        for (backend, id) in vip.backends(owner) {
            let packets = count(owner, id)?;
            let share = id.and_then(|id| slots.get(&id)).copied().unwrap_or_default();
            rows.push(Backend {
                service: vip.service.name.clone(),
                vip: vip_name(&vip.key),
                address: backend.address,
                encap: encap_name(&backend.encap),
                weight: backend.weight,
                share_percent: percent(share, ring.map_or(0, |ring| ring.len())),
                usable: id.is_some(),
                state: state(owner, vip.service, backend, id.is_some()),
                health: health(owner, vip.service, backend),
                inner_mtu: id.and_then(|id| tables.backends.get(&id)).map(|entry| entry.inner_mtu),
                packets: packets.packets,
                bytes: packets.bytes,
            });
        }
    }
    Ok(rows)
}

fn state(owner: &Owner, service: &Service, backend: &DesiredBackend, usable: bool) -> BackendState {
    match owner.network.health.of_backend(service, backend) {
        Standing::Down(_) => BackendState::Down,
        Standing::Starting => BackendState::Starting,
        Standing::Up if !usable => BackendState::Unusable,
        Standing::Up if backend.drain => BackendState::Draining,
        Standing::Up => BackendState::Up,
    }
}

fn health(owner: &Owner, service: &Service, backend: &DesiredBackend) -> Option<BackendHealth> {
    let target = service.target(backend)?;
    let standing = owner.network.health.of(&target);
    let report = owner.health.report(&target);
    let last = report.and_then(|report| report.last.as_ref()).map(|(at, took, outcome)| LastCheck {
        seconds_ago: at.elapsed().as_secs(),
        took_microseconds: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        error: outcome.as_ref().err().cloned(),
    });
    Some(BackendHealth {
        check: target.to_string(),
        via_tunnel: target.vip.is_some(),
        since_seconds: report.map_or(owner.started, |report| report.since).elapsed().as_secs(),
        reason: match standing {
            Standing::Down(reason) => Some(reason.clone()),
            Standing::Starting | Standing::Up => None,
        },
        against: report.map_or(0, |report| report.progress.against()),
        needed: match standing {
            Standing::Starting => 1,
            Standing::Up => target.check.fall,
            Standing::Down(_) => target.check.rise,
        },
        last,
        succeeded: report.map_or(0, |report| report.succeeded),
        failed: report.map_or(0, |report| report.failed),
    })
}

/// What a backend still has, VIP by VIP.
pub(super) fn draining(owner: &Owner, of: &DrainFilter) -> Result<List<Draining>, QueryError> {
    let mut remembered: BTreeMap<BackendId, (usize, u64)> = BTreeMap::new();
    for flow in owner.forwarding.dataplane().flows().map_err(kernel)? {
        let (flows, silent) = remembered.entry(flow.backend).or_insert((0, u64::MAX));
        *flows += 1;
        *silent = (*silent).min(flow.age.as_secs());
    }
    let mut rows = Vec::new();
    for vip in served(owner) {
        if of.service.as_ref().is_some_and(|only| *only != vip.service.name) {
            continue;
        }
        for (backend, id) in vip.backends(owner).filter(|(backend, _)| backend.address == of.backend) {
            let remembered = id.and_then(|id| remembered.get(&id));
            rows.push(Draining {
                service: vip.service.name.clone(),
                vip: vip_name(&vip.key),
                backend: backend.address,
                state: state(owner, vip.service, backend, id.is_some()),
                packets: count(owner, id)?.packets,
                flows: remembered.map_or(0, |(flows, _)| *flows),
                silent_seconds: remembered.map(|(_, silent)| *silent),
            });
        }
    }
    Ok(List::take(rows.into_iter(), usize::MAX))
}

/// Flows that are remembered; with an address, those of that VIP address or backend.
pub(super) fn flows(owner: &Owner, of: Option<&str>, limit: usize) -> Result<List<Flow>, QueryError> {
    let address = match of {
        Some(text) => {
            Some(text.parse::<IpAddr>().map_err(|_| QueryError::Invalid(format!("'{text}' is not an address")))?)
        }
        None => None,
    };
    let compiled = owner.forwarding.compiled();
    let vips: BTreeMap<VipId, &VipKey> = compiled.tables.vips.iter().map(|(key, id)| (*id, key)).collect();
    let row = |flow: dataplane::Flow| {
        let (service, backend) = compiled.names.backends.get(&flow.backend)?;
        let vip = vips.get(&compiled.tables.backends.get(&flow.backend)?.vip)?;
        if address.is_some_and(|address| !vip.prefix.contains(&address) && *backend != address) {
            return None;
        }
        Some(Flow {
            service: service.clone(),
            vip: vip_name(vip),
            slot: flow.slot,
            backend: *backend,
            established: flow.established,
            age_seconds: flow.age.as_secs(),
        })
    };
    let flows = owner.forwarding.dataplane().flows().map_err(kernel)?;
    Ok(List::take(flows.into_iter().filter_map(row), limit))
}
