//! VIPs, their usable backends and their rings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use tables::maglev;

use super::notice::{BackendProblem, CompileError, Notice};
use super::ports::{Egress, Ports};
use super::routes::{Routes, SetIndex, is_link_local};
use crate::desired::{Backend, Desired, Encap, Service, StaticRoute};
use crate::ids::{Ids, NextHopKey, RingMembers};
use crate::network::{IfIndex, Network};
use crate::rib::Source;
use crate::tables::{BackendId, Outer, RING_SLOTS, Ring, Slot, VipId, VipKey};

/// IPv4 and IPv6 headers, and what VXLAN puts behind them: UDP, VXLAN and the inner Ethernet header (RFC 7348 §5).
const IPV4_BYTES: u32 = 20;
const IPV6_BYTES: u32 = 40;
const VXLAN_BYTES: u32 = 8 + 8 + 14;

/// A backend that packets can be sent to.
#[derive(Clone, Copy, Debug)]
pub(super) struct UsableBackend {
    pub(super) address: IpAddr,
    pub(super) weight: u16,
    pub(super) outer: Outer,
    pub(super) set: SetIndex,
    pub(super) inner_mtu: u32,
}

/// One VIP with its usable backends, by address.
#[derive(Debug)]
pub(super) struct Vip<'a> {
    pub(super) key: VipKey,
    pub(super) id: VipId,
    pub(super) service: &'a Service,
    pub(super) backends: Vec<(BackendId, UsableBackend)>,
}

/// The VIPs of all services in the order of their keys, with indices for them and their backends.
pub(super) fn vips<'a>(
    desired: &'a Desired,
    network: &Network,
    ports: &Ports,
    routes: &mut Routes<'_>,
    ids: &mut Ids,
    notices: &mut Vec<Notice>,
) -> Result<Vec<Vip<'a>>, CompileError> {
    let mut by_key: BTreeMap<VipKey, (&Service, usize)> = BTreeMap::new();
    let mut usable = Vec::with_capacity(desired.services.len());
    for (index, service) in desired.services.iter().enumerate() {
        usable.push(usable_backends(service, desired, network, ports, routes, notices));
        for address in &service.addresses {
            let key = VipKey { address: *address, port: service.port, protocol: service.protocol };
            by_key.entry(key).or_insert((service, index));
        }
    }
    let too_many_vips = |_| CompileError::TooMany { what: "VIPs", limit: Ids::LAST_VIP as usize };
    let too_many_backends = |_| CompileError::TooMany { what: "backends", limit: Ids::LAST_BACKEND as usize };
    let mut vips = Vec::with_capacity(by_key.len());
    for (key, (service, index)) in by_key {
        let id = VipId(ids.vips.get(&key).map_err(too_many_vips)?);
        let mut backends = Vec::new();
        for backend in usable.get(index).into_iter().flatten() {
            let id = ids.backends.get(&(key, backend.address)).map_err(too_many_backends)?;
            backends.push((BackendId(id), *backend));
        }
        vips.push(Vip { key, id, service, backends });
    }
    Ok(vips)
}

fn usable_backends(
    service: &Service,
    desired: &Desired,
    network: &Network,
    ports: &Ports,
    routes: &mut Routes<'_>,
    notices: &mut Vec<Notice>,
) -> Vec<UsableBackend> {
    let mut usable: BTreeMap<IpAddr, UsableBackend> = BTreeMap::new();
    for backend in &service.backends {
        match usable_backend(backend, desired, network, ports, routes) {
            Ok(path) => {
                usable.entry(backend.address).or_insert(path);
            }
            Err(problem) => {
                let (service, backend) = (service.name.clone(), backend.address);
                notices.push(Notice::BackendUnusable { service, backend, problem });
            }
        }
    }
    usable.into_values().collect()
}

fn usable_backend(
    backend: &Backend,
    desired: &Desired,
    network: &Network,
    ports: &Ports,
    routes: &mut Routes<'_>,
) -> Result<UsableBackend, BackendProblem> {
    let address = backend.address;
    routes.watched.insert(address);
    let set = backend_set(address, routes)?;
    let hops: Vec<(IpAddr, IfIndex)> = routes
        .sets
        .get(set)
        .1
        .iter()
        .filter_map(|(hop, _)| match hop {
            NextHopKey::Forward { address, ifindex } => Some((*address, *ifindex)),
            _ => None,
        })
        .collect();
    if backend.encap == Encap::L2 && hops.iter().any(|(gateway, _)| *gateway != address) {
        return Err(BackendProblem::NotOnLink);
    }
    let egress = |ifindex: &IfIndex| ports.egress.get(ifindex);
    let mtu = hops.iter().filter_map(|(_, ifindex)| egress(ifindex)).map(|egress| egress.mtu).min();
    let first = hops.first().and_then(|(_, ifindex)| Some((*ifindex, egress(ifindex)?)));
    let (Some(mtu), Some((ifindex, egress))) = (mtu, first) else { return Err(BackendProblem::NoRoute) };

    let ip_bytes = if address.is_ipv4() { IPV4_BYTES } else { IPV6_BYTES };
    let source = || encap_source(desired, network, ifindex, egress, address.is_ipv6());
    let (outer, overhead) = match backend.encap {
        Encap::L2 => (Outer::None, 0),
        Encap::Ipip => (Outer::Ipip { source: source()?, destination: address }, ip_bytes),
        Encap::Vxlan { vni, mac } => {
            let (source, destination) = (source()?, address);
            let (inner_source, inner_destination) = (egress.mac, mac);
            (Outer::Vxlan { source, destination, vni, inner_source, inner_destination }, ip_bytes + VXLAN_BYTES)
        }
    };
    Ok(UsableBackend { address, weight: backend.weight, outer, set, inner_mtu: mtu.saturating_sub(overhead) })
}

/// The next hops towards a backend: its route's, or itself on a link.
fn backend_set(address: IpAddr, routes: &mut Routes<'_>) -> Result<SetIndex, BackendProblem> {
    let (_, route) = routes.lookup(address).ok_or(BackendProblem::NoRoute)?;
    match routes.sets.get(route.set).1 {
        [(NextHopKey::Forward { .. }, _), ..] => Ok(route.set),
        [(NextHopKey::Glean { ifindex }, _)] => {
            let hop = NextHopKey::Forward { address, ifindex: *ifindex };
            Ok(routes.sets.direct(hop))
        }
        [(NextHopKey::Host, _)] if matches!(route.source, Source::Connected | Source::Kernel) => {
            Err(BackendProblem::NotAPort)
        }
        [(NextHopKey::Receive { .. } | NextHopKey::Host | NextHopKey::Vip(_), _)] => Err(BackendProblem::Local),
        _ => Err(BackendProblem::NoRoute),
    }
}

fn encap_source(
    desired: &Desired,
    network: &Network,
    ifindex: IfIndex,
    egress: &Egress,
    ipv6: bool,
) -> Result<IpAddr, BackendProblem> {
    let node = &desired.node;
    let configured = if ipv6 { node.encap_source_v6.map(IpAddr::V6) } else { node.encap_source_v4.map(IpAddr::V4) };
    let mut of_interface = network
        .addresses_of(ifindex)
        .map(|net| net.addr())
        .filter(|address| address.is_ipv6() == ipv6 && !is_link_local(*address));
    configured
        .or_else(|| of_interface.next())
        .ok_or_else(|| BackendProblem::NoSource { interface: egress.name.clone() })
}

/// The rings of all VIPs. One that has not changed is taken over; VIPs with the same backends share the work.
pub(super) fn rings(vips: &[Vip<'_>], ids: &mut Ids) -> BTreeMap<VipId, Ring> {
    let mut rings = BTreeMap::new();
    let mut to_build: BTreeMap<Vec<(IpAddr, u16)>, Vec<&Vip<'_>>> = BTreeMap::new();
    for vip in vips {
        let members = members(vip);
        match ids.rings.get(&vip.id).filter(|(built_from, _)| built_from.as_ref() == Some(&members)) {
            Some((_, ring)) => {
                rings.insert(vip.id, Ring::clone(ring));
            }
            None => {
                let keys = vip.backends.iter().map(|(_, backend)| (backend.address, backend.weight)).collect();
                to_build.entry(keys).or_default().push(vip);
            }
        }
    }
    for (keys, vips) in to_build {
        let slots = slots(&keys);
        for vip in vips {
            let former = ids.rings.get(&vip.id).map(|(_, ring)| ring);
            let ring = ring(vip, &slots, former);
            ids.rings.insert(vip.id, (Some(members(vip)), Ring::clone(&ring)));
            rings.insert(vip.id, ring);
        }
    }
    rings
}

/// The ring with these slots, indices of the VIP's backends, after the former one. A slot that changes keeps who it had before for the
/// flows that began then. Where it changes once more, that stays: what began in between is remembered flow by flow. A backend that
/// is gone is nobody's.
fn ring(vip: &Vip<'_>, slots: &[u32], former: Option<&Ring>) -> Ring {
    let backend = |index: &u32| vip.backends.get(*index as usize).map_or(BackendId(0), |(id, _)| *id);
    if slots.is_empty() {
        return vec![Slot::default(); RING_SLOTS].into();
    }
    let Some(former) = former else { return slots.iter().map(|index| Slot::from(backend(index))).collect() };
    let mut serving = vec![false; vip.backends.iter().map(|(id, _)| id.0 as usize + 1).max().unwrap_or(0)];
    for (id, _) in &vip.backends {
        if let Some(serves) = serving.get_mut(id.0 as usize) {
            *serves = true;
        }
    }
    let serves = |id: &BackendId| serving.get(id.0 as usize) == Some(&true);
    let slot = |(index, former): (&u32, &Slot)| {
        let now = backend(index);
        let before = [former.before(), former.now()].into_iter().find(serves).unwrap_or(now);
        if former.has_changed() || before != now { Slot::changed(now, before) } else { Slot::from(now) }
    };
    slots.iter().zip(former.iter()).map(slot).collect()
}

fn members(vip: &Vip<'_>) -> RingMembers {
    vip.backends.iter().map(|(id, backend)| (*id, backend.address, backend.weight)).collect()
}

/// The Maglev ring of these backends: the index of one for each slot, nothing where there is none.
fn slots(backends: &[(IpAddr, u16)]) -> Vec<u32> {
    let keys: Vec<([u8; 16], u16)> = backends.iter().map(|(address, weight)| (ring_key(*address), *weight)).collect();
    let members: Vec<maglev::Member<'_>> =
        keys.iter().map(|(key, weight)| maglev::Member { key, weight: *weight }).collect();
    maglev::ring(&members)
}

/// What a ring knows a backend by: 16 bytes, IPv4 mapped (RFC 4291 §2.5.5.2).
fn ring_key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// What BGP is to announce: VIPs with a usable backend, static routes that forward, and the configured prefixes.
pub(super) fn announce(desired: &Desired, vips: &[Vip<'_>], routes: &Routes<'_>) -> BTreeSet<IpNet> {
    let vips = vips.iter().filter(|vip| vip.service.advertise && !vip.backends.is_empty());
    let of_vips = vips.map(|vip| IpNet::from(vip.key.address));
    let advertised = |route: &&StaticRoute| route.advertise && route.vrf.is_none();
    let of_static = desired.static_routes.iter().filter(advertised).map(|route| route.prefix.trunc());
    let installed =
        of_static.filter(|prefix| routes.own.get(prefix).is_some_and(|route| route.source == Source::Static));
    let configured = desired.bgp.iter().flat_map(|bgp| &bgp.advertise).map(|prefix| prefix.trunc());
    of_vips.chain(installed).chain(configured).collect()
}
