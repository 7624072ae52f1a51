//! The oracle: what must become of a frame, by `docs/datapath.md`.
//!
//! It answers from the resources, the network and the routes alone, with linear scans and a parser of its own, and knows
//! nothing of compiled tables: where it and the loaded program agree, two readings of the contract agree. Only the algorithms
//! of `tables` (flow hash, ring, buckets), which have tests of their own, are shared. It judges fresh state: empty flow
//! tables, groups built at once, slow-path workers present and tokens left.

mod emit;
mod parse;
mod policy;
mod route;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, PoisonError};

use ipnet::IpNet;
use tables::hash;
use tables::{buckets, maglev};

use self::parse::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Fragment, Packet, Tag};
use self::route::{Action, Hop, Path, Routes};
use crate::desired::{self, Backend, Desired, Encap, Service, SourceValidation, TunnelKind, Vrf, protocol};
use crate::health::Standing;
use crate::network::{IfIndex, Link, Network};
use crate::rib::{Rib, Source};
use crate::verdict::{DropReason, PuntReason, Verdict};

/// What a VRF without a table of the kernel's knows.
static NO_RIB: LazyLock<Rib> = LazyLock::new(Rib::default);

/// What must become of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Where it goes.
    pub verdict: Verdict,
    /// Its bytes then: as sent, as the host's stack gets it, or as punted (without `struct punt_meta`). Empty for a drop.
    pub frame: Vec<u8>,
    /// What `struct punt_meta` tells the worker beside the reason; `None` unless punted.
    pub meta: Option<PuntMeta>,
    /// The interface whose port counts the frame; `None` counts on port 0.
    pub port: Option<IfIndex>,
}

/// What a punt tells the slow path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PuntMeta {
    /// Too big: the largest packet that fits, in bytes.
    pub mtu: Option<u32>,
    /// Neighbour unresolved: the interface it is on, the VLAN device where there is one, and its address.
    pub neighbor: Option<(IfIndex, IpAddr)>,
    /// The TTL has still to be decremented.
    pub decrement_ttl: bool,
}

/// The end of a packet's way; the frame is added by the caller.
struct Outcome {
    verdict: Verdict,
    meta: PuntMeta,
}

impl Outcome {
    fn punt(reason: PuntReason, meta: PuntMeta) -> Self {
        Self { verdict: Verdict::Punt(reason), meta }
    }
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, meta: PuntMeta::default() }
    }
}

impl From<DropReason> for Outcome {
    fn from(reason: DropReason) -> Self {
        Verdict::Drop(reason).into()
    }
}

/// A frame on its way: link-layer header without ethertype, then the packet and what padding follows it.
struct Frame {
    link_layer: Vec<u8>,
    ethertype: u16,
    payload: Vec<u8>,
}

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        [&self.link_layer, self.ethertype.to_be_bytes().as_slice(), &self.payload].concat()
    }
}

/// Usable backends of one VIP with their paths, and the index of one of them for each slot.
struct Ring<'a> {
    backends: Vec<(&'a Backend, Path)>,
    slots: Vec<u32>,
    /// The same as if none of them drained: whose flows are that began before. The other one's where none does.
    before: Option<Vec<u32>>,
}

/// The judge of one configuration.
pub struct Oracle<'a> {
    /// The default VRF.
    routes: Routes<'a>,
    /// The others, by name.
    vrfs: BTreeMap<&'a str, Routes<'a>>,
    decap_ipip: bool,
    decap_vxlan: bool,
    decap_gue: bool,
    /// Rings by place in `Desired::services`, made when first asked for.
    rings: Mutex<BTreeMap<usize, std::sync::Arc<Ring<'a>>>>,
}

impl<'a> Oracle<'a> {
    /// An oracle for these inputs.
    #[must_use]
    pub fn new(desired: &'a Desired, network: &'a Network, rib: &'a Rib) -> Self {
        let any = |wanted: fn(&TunnelKind) -> bool| desired.tunnels.iter().any(|tunnel| wanted(&tunnel.kind));
        let of_default = Routes { desired, network, rib, vrf: None, left_out: BTreeSet::new() };
        let vrf = |vrf: &'a Vrf| {
            let rib = vrf.table.and_then(|table| rib.table(table)).unwrap_or(&NO_RIB);
            (vrf.name.as_str(), Routes { vrf: Some(vrf.name.as_str()), rib, ..of_default.clone() })
        };
        Self {
            vrfs: desired.vrfs.iter().map(vrf).collect(),
            routes: of_default,
            decap_ipip: any(|kind| *kind == TunnelKind::Ipip),
            decap_vxlan: any(|kind| matches!(kind, TunnelKind::Vxlan { .. })),
            decap_gue: any(|kind| *kind == TunnelKind::Gue),
            rings: Mutex::default(),
        }
    }

    /// Judges a program that was loaded with every decap stage, whether or not a Tunnel asks for it.
    #[must_use]
    pub fn with_every_decap(self) -> Self {
        Self { decap_ipip: true, decap_vxlan: true, decap_gue: true, ..self }
    }

    /// Judges a program whose tables have no room for these routes, by prefix and source; a neighbour's host route is connected.
    #[must_use]
    pub fn without_room_for(mut self, left_out: BTreeSet<(IpNet, Source)>) -> Self {
        self.routes.left_out = left_out;
        self
    }

    /// What must become of `frame`, from its Ethernet header on, that came in on `ifindex`.
    #[must_use]
    pub fn judge(&self, frame: &[u8], ifindex: IfIndex) -> Judgement {
        let Some(ethernet) = Ethernet::parse(frame) else {
            let port = self.port(ifindex, &[]).map(|(index, _)| index);
            return Judgement { verdict: Verdict::Drop(DropReason::EthShort), frame: Vec::new(), meta: None, port };
        };
        let Some((port, link)) = self.port(ifindex, &ethernet.tags) else {
            return Judgement { verdict: Verdict::Pass, frame: frame.to_vec(), meta: None, port: None };
        };
        let mut frame = Frame {
            link_layer: frame.get(..ethernet.len - 2).unwrap_or_default().to_vec(),
            ethertype: ethernet.ethertype,
            payload: frame.get(ethernet.len..).unwrap_or_default().to_vec(),
        };
        let outcome = match self.walk(&ethernet, &mut frame, port, link, ifindex) {
            Ok(outcome) => outcome,
            Err(reason) => reason.into(),
        };
        let (bytes, meta) = match outcome.verdict {
            Verdict::Drop(_) => (Vec::new(), None),
            Verdict::Punt(_) => (frame.bytes(), Some(outcome.meta)),
            Verdict::Pass | Verdict::Tx | Verdict::Redirect(_) => (frame.bytes(), None),
        };
        Judgement { verdict: outcome.verdict, frame: bytes, meta, port: Some(port) }
    }

    /// The routes that packets of a port take.
    fn routes_of(&self, port: &str) -> &Routes<'a> {
        let vrf = self.routes.desired.node.vrf_of(port);
        vrf.and_then(|vrf| self.vrfs.get(vrf)).unwrap_or(&self.routes)
    }

    /// 1.2: the port that frames with these tags belong to.
    fn port(&self, ifindex: IfIndex, tags: &[Tag]) -> Option<(IfIndex, &'a Link)> {
        let links = &self.routes.network.links;
        let found = match tags {
            [] | [Tag { customer: true, id: 0 }] => {
                links.get_key_value(&ifindex).filter(|(_, link)| link.vlan.is_none())
            }
            [Tag { customer: true, id }] => {
                links.iter().find(|(_, l)| l.vlan.is_some_and(|vlan| vlan.parent == ifindex && vlan.id == *id))
            }
            _ => None,
        };
        found.filter(|(_, link)| self.routes.is_port(link)).map(|(index, link)| (*index, link))
    }

    /// The stages in order. `frame` is what the packet has become.
    fn walk(
        &self,
        ethernet: &Ethernet,
        frame: &mut Frame,
        port: IfIndex,
        link: &Link,
        ifindex: IfIndex,
    ) -> Result<Outcome, DropReason> {
        if !ethernet.is_group() && ethernet.destination != link.mac.0 {
            return Ok(Verdict::Pass.into());
        }
        let policies = policy::policies_of(self.routes.desired, self.routes.network, port);
        match ethernet.ethertype {
            ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => {}
            ETHERTYPE_ARP => return Ok(Verdict::Pass.into()),
            _ if ethernet.is_link_local_group() || policies.is_empty() => return Ok(Verdict::Pass.into()),
            _ => return Err(DropReason::Ethertype),
        }
        let mut packet = Packet::parse(frame.ethertype, &frame.payload)?;
        self.validate(packet.source, port, &link.name)?;
        let routes = self.routes_of(&link.name);
        let mut host_scope = ethernet.is_group() || packet.is_host_scope();
        let mut decapsulated = false;
        // Tunnels and services are in the default VRF.
        if !host_scope
            && routes.vrf.is_none()
            && let Some(kind) = self.tunnel_kind(&packet)
            && self.is_received(packet.destination)
        {
            packet = self.decapsulate(frame, &packet, kind)?;
            host_scope = packet.is_host_scope();
            decapsulated = true;
        }
        if let Some(reason) = policy::decide(self.routes.desired, &policies, &packet) {
            return Err(reason);
        }
        if host_scope {
            return Ok(Verdict::Pass.into());
        }
        let flow = match parse::quoted(&packet, &frame.payload) {
            parse::Quote::Flow(flow) => flow,
            _ => packet.flow(),
        };
        match self.service(&flow).filter(|_| routes.vrf.is_none()) {
            Some(of) => self.load_balance(frame, &packet, &flow, of, (link, ifindex)),
            None => self.route(routes, frame, &packet, decapsulated, (link, ifindex)),
        }
    }

    /// 1.9: whether the interface lets this source in.
    fn validate(&self, source: IpAddr, port: IfIndex, name: &str) -> Result<(), DropReason> {
        let configured = self.routes.desired.node.interfaces.iter().find(|interface| interface.name == name);
        let mode = configured.map(|interface| interface.source_validation).unwrap_or_default();
        if mode == SourceValidation::Off || source.is_unspecified() || parse::is_link_local(source) {
            return Ok(());
        }
        let routes = self.routes_of(name);
        // Nobody knows where a source comes in whose route found no room.
        if routes.falls_back(source) {
            return Ok(());
        }
        let back = match mode {
            SourceValidation::Loose => routes.lookup_beside_default(source),
            _ => routes.lookup(source),
        };
        let mut by: Vec<IfIndex> = match back {
            Some(Action::Vip) => return Ok(()),
            Some(Action::Forward(hops)) => hops.iter().map(|(hop, _)| hop.ifindex).collect(),
            Some(Action::Glean(ifindex)) => vec![ifindex],
            Some(Action::Host) => Vec::new(),
            None | Some(Action::Receive | Action::Blackhole | Action::Prohibit | Action::Unreachable) => {
                return Err(DropReason::SrcUnrouted);
            }
        };
        if mode == SourceValidation::Feasible {
            by.extend(routes.alternatives(source));
        }
        if mode != SourceValidation::Loose && !by.contains(&port) {
            return Err(DropReason::SrcInterface);
        }
        Ok(())
    }

    /// Stage 2: which tunnel the packet belongs to, if that kind is decapsulated here.
    fn tunnel_kind(&self, packet: &Packet) -> Option<Tunnel> {
        match (packet.protocol, packet.ports) {
            (protocol::IPIP, _) if self.decap_ipip => Some(Tunnel::Ipip(ETHERTYPE_IPV4)),
            (protocol::IPV6, _) if self.decap_ipip => Some(Tunnel::Ipip(ETHERTYPE_IPV6)),
            (protocol::UDP, Some((_, port))) if self.decap_vxlan && port == self.routes.desired.node.vxlan_port => {
                Some(Tunnel::Vxlan)
            }
            (protocol::UDP, Some((_, port))) if self.decap_gue && port == self.routes.desired.node.gue_port => {
                Some(Tunnel::Gue)
            }
            _ => None,
        }
    }

    fn is_received(&self, destination: IpAddr) -> bool {
        self.routes.lookup(destination) == Some(Action::Receive)
    }

    /// 2.1 to 2.6: leaves the inner packet in `frame`.
    fn decapsulate(&self, frame: &mut Frame, outer: &Packet, tunnel: Tunnel) -> Result<Packet, DropReason> {
        if outer.fragment != Fragment::Whole {
            return Err(DropReason::TunFragment);
        }
        let packet = frame.payload.get(..outer.len).unwrap_or_default();
        let (ethertype, inner_at, kind) = match tunnel {
            Tunnel::Ipip(ethertype) => (ethertype, outer.transport, TunnelKind::Ipip),
            Tunnel::Gue => {
                let (ethertype, header) = parse::gue(packet, outer.transport + 8).ok_or(DropReason::TunHeader)?;
                (ethertype, outer.transport + 8 + header, TunnelKind::Gue)
            }
            Tunnel::Vxlan => {
                let header: [u8; 30] = parse::array(packet, outer.transport).ok_or(DropReason::TunHeader)?;
                let [_, _, _, _, _, _, _, _, flags, _, _, _, v0, v1, v2, _, .., e0, e1] = header;
                let ethertype = u16::from_be_bytes([e0, e1]);
                if flags & 0x08 == 0 || !matches!(ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6) {
                    return Err(DropReason::TunHeader);
                }
                let vni = u32::from_be_bytes([0, v0, v1, v2]);
                (ethertype, outer.transport + 30, TunnelKind::Vxlan { vni })
            }
        };
        let tunnels = &self.routes.desired.tunnels;
        let mut of_kind = tunnels.iter().filter(|tunnel| tunnel.kind == kind).peekable();
        if matches!(kind, TunnelKind::Vxlan { .. }) && of_kind.peek().is_none() {
            return Err(DropReason::TunVniUnknown);
        }
        // The longest of all peers that hold the source; of several as long, the first.
        let lengths = |tunnel: &'a desired::Tunnel| {
            let holding = tunnel.peers.iter().filter(|net| net.contains(&outer.source));
            holding.map(|net| (net.prefix_len(), tunnel)).max_by_key(|(len, _)| *len)
        };
        let longest = of_kind.filter_map(lengths).reduce(|a, b| if b.0 > a.0 { b } else { a });
        let (_, tunnel) = longest.ok_or(DropReason::TunPeerUnknown)?;
        if self.routes.lookup_own(outer.source) {
            return Err(DropReason::TunReflected);
        }
        let mut inner = Packet::parse(ethertype, packet.get(inner_at..).unwrap_or_default())?;
        let listed = tunnel.sources.as_ref().map(|nets| nets.iter().any(|net| net.contains(&inner.source)));
        match (self.routes.lookup(inner.source), listed) {
            (Some(Action::Receive), _) | (Some(Action::Vip), None) => return Err(DropReason::TunReflected),
            (_, Some(false)) => return Err(DropReason::TunSource),
            _ => {}
        }
        frame.payload = frame.payload.split_off(inner_at);
        frame.ethertype = ethertype;
        const CE: u8 = 3;
        if outer.tos & CE == CE {
            if inner.tos & CE == 0 {
                return Err(DropReason::TunEcn);
            }
            inner.tos |= CE;
            emit::set_tos(&mut frame.payload, &inner);
        }
        Ok(inner)
    }

    /// The service that takes a flow: of those at the longest prefix of VIPs around its destination, the one that says most about it.
    fn service(&self, flow: &hash::FlowKey) -> Option<(usize, &'a Service)> {
        let of_host = match self.routes.lookup(flow.destination)? {
            Action::Vip => false,
            Action::Receive => true,
            _ => return None,
        };
        let has_ports = [protocol::TCP, protocol::UDP, protocol::SCTP].contains(&flow.protocol);
        let (icmp, headers): (_, &[u8]) =
            if flow.destination.is_ipv6() { (protocol::ICMPV6, &[0, 43, 44, 51, 60]) } else { (protocol::ICMP, &[]) };
        if flow.protocol == icmp || headers.contains(&flow.protocol) {
            return None;
        }
        let services = self.routes.desired.services.iter().enumerate();
        let around = |service: &Service| {
            let holding = service.addresses.iter().filter(|prefix| prefix.contains(&flow.destination));
            holding.map(|prefix| prefix.prefix_len()).collect::<Vec<u8>>()
        };
        let longest = services.clone().flat_map(|(_, service)| around(service)).max()?;
        let takes = |service: &Service| {
            around(service).contains(&longest)
                && service.protocol.is_none_or(|protocol| protocol == flow.protocol)
                && service.port.is_none_or(|port| flow.ports.is_some_and(|(_, to)| to == port))
                // What the host has is taken from it port by port only.
                && !(of_host && (service.port.is_none() || longest < if icmp == protocol::ICMP { 32 } else { 128 }))
        };
        let taking = services.filter(|(_, service)| takes(service));
        let best = taking.max_by_key(|(_, service)| (service.port.is_some(), service.protocol.is_some()));
        // A fragment that does not show its flow goes where all of its client goes, if anywhere.
        best.filter(|(_, service)| has_ports == flow.ports.is_some() || service.affinity.is_some())
    }

    /// Stage 5.
    fn load_balance(
        &self,
        frame: &mut Frame,
        packet: &Packet,
        flow: &hash::FlowKey,
        (index, service): (usize, &'a Service),
        (link, ifindex): (&Link, IfIndex),
    ) -> Result<Outcome, DropReason> {
        let ring = self.ring(index, service);
        let hash = hash::flow_hash(flow);
        let opens = packet.opens_connection(&frame.payload);
        let stays = service.affinity.is_some();
        let of_slot = if stays { hash::client_hash(flow.source, flow.destination) } else { hash };
        let backend_of = |slots: &[u32]| {
            let index = *slots.get(hash::ring_slot(of_slot))?;
            ring.backends.get(index as usize)
        };
        let before = ring.before.as_ref().and_then(|before| backend_of(before));
        // What goes on goes where it went; of a client that begins as much, while its backend before takes what is new.
        let before = before.filter(|(backend, _)| !opens || (stays && !backend.drain));
        let chosen = || before.or_else(|| backend_of(&ring.slots));
        let named = self.named_by_quic(service, packet, &frame.payload);
        let named = named.and_then(|address| ring.backends.iter().find(|(backend, _)| backend.address == address));
        let (backend, path) = named.or_else(chosen).ok_or(DropReason::VipNoBackend)?;
        if parse::is_link_local(packet.source) {
            return Err(DropReason::SrcInvalid);
        }
        if packet.ttl <= 1 {
            return Ok(Verdict::Punt(PuntReason::TtlExceeded).into());
        }
        if packet.len > path.inner_mtu as usize {
            return too_big(packet, path.inner_mtu);
        }
        let hop = self.bucket(&path.hops, hash)?;
        self.clamp_mss(frame, packet, link, hop.ifindex);
        if backend.encap == Encap::L2 && self.neighbor(hop).is_none() {
            return Ok(unresolved(hop.ifindex, hop.address));
        }
        emit::decrement_ttl(&mut frame.payload, packet);
        match backend.encap {
            Encap::L2 => {}
            Encap::Ipip => {
                let inner = if packet.is_ipv6() { protocol::IPV6 } else { protocol::IPIP };
                let source = hash::outer_source(path.source, path.varied, hash);
                emit::push_ip(frame, packet, (source, backend.address), inner, packet.len, hash);
            }
            Encap::Gue => {
                emit::push_udp(frame, packet.len, hash, self.routes.desired.node.gue_port);
                let len = packet.len + emit::UDP_OVERHEAD;
                emit::push_ip(frame, packet, (path.source, backend.address), protocol::UDP, len, hash);
            }
            Encap::Vxlan { vni, mac } => {
                let port = self.routes.desired.node.vxlan_port;
                emit::push_vxlan(frame, vni, mac, path.inner_source, packet.len, hash, port);
                let len = packet.len + emit::VXLAN_OVERHEAD;
                emit::push_ip(frame, packet, (path.source, backend.address), protocol::UDP, len, hash);
            }
        }
        let resolved = self.neighbor(hop).is_some();
        let verdict = self.rewrite(frame, hop, ifindex)?;
        if resolved {
            return Ok(verdict.into());
        }
        let meta = PuntMeta { neighbor: Some((hop.ifindex, hop.address)), ..PuntMeta::default() };
        Ok(Outcome::punt(PuntReason::NeighborEncap, meta))
    }

    /// The backend that the packet's connection ID names.
    fn named_by_quic(&self, service: &Service, packet: &Packet, bytes: &[u8]) -> Option<IpAddr> {
        let quic = service.quic.as_ref()?;
        let port = packet.ports.filter(|_| packet.protocol == protocol::UDP);
        let server = parse::quic_server(packet, bytes, &quic.lengths).filter(|_| port.is_some())?;
        quic.servers.get(&server).copied()
    }

    fn ring(&self, index: usize, service: &'a Service) -> std::sync::Arc<Ring<'a>> {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = rings.entry(index).or_insert_with(|| {
            let health = &self.routes.network.health;
            let all = health.panics(service);
            let waits = |backend: &Backend| {
                *health.of_backend(service, backend) == Standing::Starting && self.routes.path(backend).is_some()
            };
            let waits = service.backends.iter().any(waits);
            let serves = |backend: &&Backend| !waits && (all || health.of_backend(service, backend).is_up());
            let usable = service.backends.iter().filter(serves).filter_map(|b| Some((b, self.routes.path(b)?)));
            let backends: Vec<_> = usable.collect();
            let keys: Vec<[u8; 16]> = backends.iter().map(|(backend, _)| ring_key(backend.address)).collect();
            let slots = |takes_part: &dyn Fn(&Backend) -> bool| {
                let weight = |backend: &Backend| if takes_part(backend) { backend.weight } else { 0 };
                let member = |(key, (backend, _)): (_, &(&Backend, Path))| (key, weight(backend));
                let members = keys.iter().zip(&backends).map(member);
                let members: Vec<_> = members.map(|(key, weight)| maglev::Member { key, weight }).collect();
                maglev::ring(&members)
            };
            let undrained = slots(&|_| true);
            let draining = backends.iter().filter(|(backend, _)| backend.drain).count();
            if draining == 0 || draining == backends.len() {
                return std::sync::Arc::new(Ring { slots: undrained, before: None, backends });
            }
            let slots = slots(&|backend| !backend.drain);
            std::sync::Arc::new(Ring { slots, before: Some(undrained), backends })
        });
        std::sync::Arc::clone(ring)
    }

    /// Stage 4.
    fn route(
        &self,
        routes: &Routes<'a>,
        frame: &mut Frame,
        packet: &Packet,
        decapsulated: bool,
        (link, ifindex): (&Link, IfIndex),
    ) -> Result<Outcome, DropReason> {
        let action = match routes.lookup(packet.destination) {
            None => return Ok(Verdict::Punt(PuntReason::NoRoute).into()),
            Some(Action::Receive) if decapsulated && self.tunnel_kind(packet).is_some() => {
                return Err(DropReason::TunNested);
            }
            Some(Action::Receive | Action::Host) => return Ok(Verdict::Pass.into()),
            Some(Action::Vip) => return vip_address(packet, &frame.payload),
            Some(Action::Blackhole) => return Err(DropReason::Blackhole),
            Some(Action::Prohibit) => return Ok(Verdict::Punt(PuntReason::Prohibit).into()),
            Some(Action::Unreachable) => return Ok(Verdict::Punt(PuntReason::NoRoute).into()),
            Some(action @ (Action::Glean(_) | Action::Forward(_))) => action,
        };
        if parse::is_link_local(packet.source) {
            return Err(DropReason::SrcInvalid);
        }
        if packet.ttl <= 1 {
            return Ok(Verdict::Punt(PuntReason::TtlExceeded).into());
        }
        let hop = match action {
            Action::Forward(hops) => self.bucket(&hops, hash::flow_hash(&parse::spread(packet, &frame.payload)))?,
            Action::Glean(ifindex) => {
                self.clamp_mss(frame, packet, link, ifindex);
                return Ok(unresolved(ifindex, packet.destination));
            }
            _ => return Err(DropReason::Internal),
        };
        let mtu = self.routes.network.links.get(&hop.ifindex).ok_or(DropReason::Internal)?.mtu;
        if packet.len > mtu as usize {
            return too_big(packet, mtu);
        }
        self.clamp_mss(frame, packet, link, hop.ifindex);
        if self.neighbor(hop).is_none() {
            return Ok(unresolved(hop.ifindex, hop.address));
        }
        emit::decrement_ttl(&mut frame.payload, packet);
        Ok(self.rewrite(frame, hop, ifindex)?.into())
    }

    /// What comes in by `link` and leaves by `out` tells TCP of no larger segments than either lets through.
    fn clamp_mss(&self, frame: &mut Frame, packet: &Packet, link: &Link, out: IfIndex) {
        let most = |name: &str| {
            let interface = self.routes.desired.node.interfaces.iter().find(|interface| interface.name == name)?;
            if packet.is_ipv6() { interface.max_mss.ipv6 } else { interface.max_mss.ipv4 }
        };
        let out = self.routes.network.links.get(&out).and_then(|link| most(&link.name));
        if let Some(most) = most(&link.name).into_iter().chain(out).min() {
            emit::clamp_mss(&mut frame.payload, packet, most);
        }
    }

    fn neighbor(&self, hop: Hop) -> Option<crate::network::Mac> {
        self.routes.network.neighbors.get(&(hop.ifindex, hop.address)).copied()
    }

    /// The next hop of a flow: the bucket of a group that was built at once.
    fn bucket(&self, hops: &[(Hop, u32)], flow_hash: u64) -> Result<Hop, DropReason> {
        let bucket = hash::bucket(flow_hash, hash::seed(&self.routes.desired.node.name));
        buckets::spread(&[], &self.routes.answering(hops)).get(bucket).copied().ok_or(DropReason::Internal)
    }

    /// Stage 6; an unresolved destination is all zero.
    fn rewrite(&self, frame: &mut Frame, hop: Hop, ifindex: IfIndex) -> Result<Verdict, DropReason> {
        let link = self.routes.network.links.get(&hop.ifindex).ok_or(DropReason::Internal)?;
        let destination = self.neighbor(hop).unwrap_or_default();
        frame.link_layer = [destination.0, link.mac.0].concat();
        if let Some(vlan) = link.vlan {
            frame.link_layer.extend(parse::ETHERTYPE_VLAN.to_be_bytes());
            frame.link_layer.extend(vlan.id.to_be_bytes());
        }
        let egress = link.vlan.map_or(hop.ifindex, |vlan| vlan.parent);
        Ok(if egress == ifindex { Verdict::Tx } else { Verdict::Redirect(egress) })
    }
}

/// A tunnel packet: IP in IP with the ethertype of what is inside, GUE or VXLAN.
#[derive(Clone, Copy, Debug)]
enum Tunnel {
    Ipip(u16),
    Gue,
    Vxlan,
}

/// A packet for a VIP address that no service takes.
fn vip_address(packet: &Packet, bytes: &[u8]) -> Result<Outcome, DropReason> {
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REQUEST_V6: u8 = 128;
    let request = if packet.is_ipv6() { ECHO_REQUEST_V6 } else { ECHO_REQUEST };
    match packet.fragment {
        Fragment::Whole if packet.icmp.is_some_and(|(kind, _)| kind == request) => {
            Ok(Verdict::Punt(PuntReason::VipEcho).into())
        }
        Fragment::Whole if parse::quoted(packet, bytes) == parse::Quote::Short => Err(DropReason::VipErrorShort),
        Fragment::Later => Err(DropReason::VipFragment),
        Fragment::Whole | Fragment::First => Err(DropReason::VipNoService),
    }
}

fn too_big(packet: &Packet, mtu: u32) -> Result<Outcome, DropReason> {
    if !packet.dont_fragment {
        return Err(DropReason::MtuNoDf);
    }
    Ok(Outcome::punt(PuntReason::PacketTooBig, PuntMeta { mtu: Some(mtu), ..PuntMeta::default() }))
}

fn unresolved(ifindex: IfIndex, address: IpAddr) -> Outcome {
    let meta = PuntMeta { neighbor: Some((ifindex, address)), decrement_ttl: true, mtu: None };
    Outcome::punt(PuntReason::Neighbor, meta)
}

/// What the ring knows a backend by.
fn ring_key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
