//! VIPs, their usable backends and their rings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use tables::maglev;

use super::notice::{BackendProblem, CompileError, Notice};
use super::ports::{Egress, Ports};
use super::routes::{Routes, SetIndex, is_link_local};
use crate::desired::{Backend, Desired, Encap, Service, StaticRoute};
use crate::health::Standing;
use crate::ids::{Ids, NextHopKey, RingMembers};
use crate::network::{IfIndex, Network};
use crate::quic::ServerId;
use crate::rib::Source;
use crate::tables::{BackendId, Outer, RING_SLOTS, Ring, Slot, VipId, VipKey};

/// IPv4 and IPv6 headers, and what VXLAN puts behind them: UDP, VXLAN and the inner Ethernet header (RFC 7348 §5).
const IPV4_BYTES: u32 = 20;
const IPV6_BYTES: u32 = 40;
const VXLAN_BYTES: u32 = 8 + 8 + 14;
/// What GUE variant 1 puts behind an IP header: UDP.
const GUE_BYTES: u32 = 8;

/// A backend that packets can be sent to.
#[derive(Clone, Copy, Debug)]
pub(super) struct UsableBackend {
    pub(super) address: IpAddr,
    pub(super) weight: u16,
    /// It keeps what it has and gets nothing new, as long as there is another.
    pub(super) draining: bool,
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
    /// Others that health checks go to as clients' packets would.
    pub(super) checked: Vec<(BackendId, UsableBackend)>,
}

impl Vip<'_> {
    /// Its backends with what each gets of the flows that begin now: nothing while it drains and another does not.
    fn shares(&self) -> RingMembers {
        let all_drain = self.backends.iter().all(|(_, backend)| backend.draining);
        let share = |backend: &UsableBackend| if backend.draining && !all_drain { 0 } else { backend.weight };
        self.backends.iter().map(|(id, backend)| (*id, backend.address, share(backend))).collect()
    }
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
        if let Some(vip) = service.checked_vip().filter(|vip| is_own(vip.prefix.network().into(), routes)) {
            let (service, address) = (service.name.clone(), vip.prefix.network());
            notices.push(Notice::CheckOfHost { service, address });
        }
        for key in VipKey::of(service) {
            if key.port.is_none() && is_own(key.prefix, routes) {
                let (service, address) = (service.name.clone(), key.prefix.addr());
                notices.push(Notice::VipOfHost { service, address });
            } else {
                by_key.entry(key).or_insert((service, index));
            }
        }
    }
    let too_many_vips = |_| CompileError::TooMany { what: "VIPs", limit: Ids::LAST_VIP as usize };
    let too_many_backends = |_| CompileError::TooMany { what: "backends", limit: Ids::LAST_BACKEND as usize };
    let mut vips = Vec::with_capacity(by_key.len());
    for (key, (service, index)) in by_key {
        let id = VipId(ids.vips.get(&key).map_err(too_many_vips)?);
        let (mut backends, mut others) = (Vec::new(), Vec::new());
        let of_service = usable.get(index);
        // A ring that changes remembers who was before. Where that is whoever happened to answer first, flows that others balanced, or this
        // node until it forgot, are lost: a first ring is of all whom checks find.
        let waits = of_service.is_some_and(|of_service| of_service.starting) && former(id, ids).is_none();
        for backend in of_service.into_iter().flat_map(|of_service| &of_service.usable) {
            let id = ids.backends.get(&(key, backend.address)).map_err(too_many_backends)?;
            if waits { &mut others } else { &mut backends }.push((BackendId(id), *backend));
        }
        for backend in of_service.into_iter().flat_map(|of_service| &of_service.unhealthy) {
            let id = ids.backends.get(&(key, backend.address)).map_err(too_many_backends)?;
            others.push((BackendId(id), *backend));
        }
        let checked = if service.checked_vip() == Some(key) { others } else { Vec::new() };
        vips.push(Vip { key, id, service, backends, checked });
    }
    Ok(vips)
}

/// The ring that the next one comes after: none where nobody serves.
fn former(vip: VipId, ids: &Ids) -> Option<&Ring> {
    let (_, ring) = ids.rings.get(&vip)?;
    ring.iter().any(|slot| slot.now() != BackendId(0)).then_some(ring)
}

/// The usable backends of a VIP by their QUIC server IDs.
pub(super) fn quic_servers(vip: &Vip<'_>) -> BTreeMap<(VipId, ServerId), BackendId> {
    let by_address: BTreeMap<IpAddr, BackendId> = vip.backends.iter().map(|(id, b)| (b.address, *id)).collect();
    let servers = vip.service.quic.iter().flat_map(|quic| &quic.servers);
    servers.filter_map(|(server, address)| Some(((vip.id, *server), *by_address.get(address)?))).collect()
}

/// True for an address of this node: what no VIP of one port takes there is the host's.
fn is_own(prefix: IpNet, routes: &Routes<'_>) -> bool {
    routes.own.get(&prefix).is_some_and(|route| route.source == Source::Local)
}

/// The backends of a service that packets can be sent to, and those that could be sent to were they healthy: these keep their indices,
/// so that one that comes and goes is counted as one.
struct OfService {
    usable: Vec<UsableBackend>,
    unhealthy: Vec<UsableBackend>,
    /// Of some nothing is known yet.
    starting: bool,
}

fn usable_backends(
    service: &Service,
    desired: &Desired,
    network: &Network,
    ports: &Ports,
    routes: &mut Routes<'_>,
    notices: &mut Vec<Notice>,
) -> OfService {
    let health = &network.health;
    let panics = health.panics(service);
    let mut usable: BTreeMap<IpAddr, UsableBackend> = BTreeMap::new();
    let mut unhealthy = Vec::new();
    let mut starting = 0;
    for backend in &service.backends {
        let path = usable_backend(backend, desired, network, ports, routes);
        let problem = match (path, health.of_backend(service, backend)) {
            (Ok(path), standing) => {
                if standing.is_up() || panics {
                    usable.entry(backend.address).or_insert(path);
                } else {
                    unhealthy.push(path);
                }
                match standing {
                    Standing::Up => continue,
                    Standing::Starting => {
                        starting += 1;
                        continue;
                    }
                    Standing::Down(reason) => BackendProblem::Down { reason: reason.clone() },
                }
            }
            (Err(problem), _) => problem,
        };
        let (service, backend) = (service.name.clone(), backend.address);
        notices.push(Notice::BackendUnusable { service, backend, problem });
    }
    if panics {
        notices.push(Notice::ServicePanics { service: service.name.clone() });
    }
    if starting > 0 {
        notices.push(Notice::BackendsStarting { service: service.name.clone(), backends: starting });
    }
    OfService { usable: usable.into_values().collect(), unhealthy, starting: starting > 0 }
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
        Encap::Ipip => {
            let node = &desired.node;
            let prefix = if address.is_ipv6() { node.encap_prefix_v6 } else { node.encap_prefix_v4 };
            let (source, varied) = match prefix {
                Some(prefix) => (prefix.network(), varied_bits(prefix)),
                None => (source()?, 0),
            };
            (Outer::Ipip { source, destination: address, varied }, ip_bytes)
        }
        Encap::Gue => (Outer::Gue { source: source()?, destination: address }, ip_bytes + GUE_BYTES),
        Encap::Vxlan { vni, mac } => {
            let (source, destination) = (source()?, address);
            let (inner_source, inner_destination) = (egress.mac, mac);
            (Outer::Vxlan { source, destination, vni, inner_source, inner_destination }, ip_bytes + VXLAN_BYTES)
        }
    };
    let (weight, draining) = (backend.weight, backend.drain);
    Ok(UsableBackend { address, weight, draining, outer, set, inner_mtu: mtu.saturating_sub(overhead) })
}

/// How many low bits of outer sources from this prefix are the flow's.
fn varied_bits(prefix: IpNet) -> u8 {
    (prefix.max_prefix_len() - prefix.prefix_len()).min(31)
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

/// What a ring is made of: addresses with their shares.
type Keys = Vec<(IpAddr, u16)>;

/// The rings of all VIPs. One that has not changed is taken over; VIPs with the same backends share the work.
pub(super) fn rings(vips: &[Vip<'_>], ids: &mut Ids) -> BTreeMap<VipId, Ring> {
    let mut rings = BTreeMap::new();
    let mut to_build: BTreeMap<Keys, Vec<(&Vip<'_>, RingMembers)>> = BTreeMap::new();
    for vip in vips {
        let shares = vip.shares();
        match ids.rings.get(&vip.id).filter(|(built_from, _)| built_from.as_ref() == Some(&shares)) {
            Some((_, ring)) => {
                rings.insert(vip.id, Ring::clone(ring));
            }
            None => {
                let keys = shares.iter().map(|(_, address, share)| (*address, *share)).collect();
                to_build.entry(keys).or_default().push((vip, shares));
            }
        }
    }
    let mut undrained: BTreeMap<Keys, Vec<u32>> = BTreeMap::new();
    for (keys, vips) in to_build {
        let slots = slots(&keys);
        for (vip, shares) in vips {
            let ring = match former(vip.id, ids) {
                Some(former) => ring(vip, &slots, former),
                None if vip.backends.iter().any(|(_, backend)| backend.draining) => {
                    let keys: Vec<_> =
                        vip.backends.iter().map(|(_, backend)| (backend.address, backend.weight)).collect();
                    let before = undrained.entry(keys).or_insert_with_key(|keys| self::slots(keys));
                    first_ring(vip, &slots, before)
                }
                None => first_ring(vip, &slots, &slots),
            };
            ids.rings.insert(vip.id, (Some(shares), Ring::clone(&ring)));
            rings.insert(vip.id, ring);
        }
    }
    rings
}

fn backend_at(vip: &Vip<'_>, index: u32) -> BackendId {
    vip.backends.get(index as usize).map_or(BackendId(0), |(id, _)| *id)
}

/// A ring that nothing was before it here, with these slots, indices of the VIP's backends. What others balanced, or this node until it
/// forgot, went by `before`: the ring in which nobody drained.
fn first_ring(vip: &Vip<'_>, slots: &[u32], before: &[u32]) -> Ring {
    if slots.is_empty() {
        return vec![Slot::default(); RING_SLOTS].into();
    }
    let slot = |(now, before): (&u32, &u32)| {
        let (now, before) = (backend_at(vip, *now), backend_at(vip, *before));
        if now == before { Slot::from(now) } else { Slot::changed(now, before) }
    };
    slots.iter().zip(before).map(slot).collect()
}

/// The ring with these slots, indices of the VIP's backends, after the former one. A slot that changes keeps who it had before for the
/// flows that began then. Where it changes once more, that stays: what began in between is remembered flow by flow. A backend that
/// is gone, or down, is nobody's; one that drains is that of the flows that it has.
fn ring(vip: &Vip<'_>, slots: &[u32], former: &Ring) -> Ring {
    if slots.is_empty() {
        return vec![Slot::default(); RING_SLOTS].into();
    }
    let mut serving = vec![false; vip.backends.iter().map(|(id, _)| id.0 as usize + 1).max().unwrap_or(0)];
    for (id, _) in &vip.backends {
        if let Some(serves) = serving.get_mut(id.0 as usize) {
            *serves = true;
        }
    }
    let serves = |id: &BackendId| serving.get(id.0 as usize) == Some(&true);
    let slot = |(index, former): (&u32, &Slot)| {
        let now = backend_at(vip, *index);
        let before = [former.before(), former.now()].into_iter().find(serves).unwrap_or(now);
        if former.has_changed() || before != now { Slot::changed(now, before) } else { Slot::from(now) }
    };
    slots.iter().zip(former.iter()).map(slot).collect()
}

/// The Maglev ring of these backends by their shares: the index of one for each slot, nothing where there is none.
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
    let of_vips = vips.map(|vip| vip.key.prefix);
    let advertised = |route: &&StaticRoute| route.advertise && route.vrf.is_none();
    let of_static = desired.static_routes.iter().filter(advertised).map(|route| route.prefix.trunc());
    let installed =
        of_static.filter(|prefix| routes.own.get(prefix).is_some_and(|route| route.source == Source::Static));
    let configured = desired.bgp.iter().flat_map(|bgp| &bgp.advertise).map(|prefix| prefix.trunc());
    of_vips.chain(installed).chain(configured).collect()
}
