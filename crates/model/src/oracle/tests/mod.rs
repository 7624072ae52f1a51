//! One test for each sentence of `docs/datapath.md` that decides something, in its order.

mod forward;
mod parse;
mod policy;
mod routes;
mod tunnel;
mod vip;

use std::net::IpAddr;

use ipnet::IpNet;

use super::*;
use crate::desired::{self, Gateway, Interface, RouteAction, SourceValidation, StaticRoute, Tunnel};
use crate::network::{Mac, Vlan};
use crate::rib::BgpRoute;

const ETH0: IfIndex = IfIndex(2);
const ETH1: IfIndex = IfIndex(3);
const VLAN: IfIndex = IfIndex(4);
const HOST: IfIndex = IfIndex(5);
const HERE: Mac = Mac([2, 0, 0, 0, 0, 0xa0]);
const ETH1_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xa1]);
const PEER: Mac = Mac([2, 0, 0, 0, 0, 1]);
const NEIGHBOR: Mac = Mac([2, 0, 0, 0, 0, 2]);
const TCP: u8 = protocol::TCP;
const UDP: u8 = protocol::UDP;

/// A node with two ports, a VLAN device on the first and an interface that is no port.
///
/// eth0 10.0.0.1/24 2001:db8::1/64, eth1 10.0.1.1/24 2001:db8:1::1/64, eth0.100 10.0.2.1/24, host0 10.9.0.1/24. Host 2 of
/// each of the ports' prefixes is resolved.
#[derive(Default)]
struct World {
    desired: Desired,
    network: Network,
    rib: Rib,
}

fn world() -> World {
    let mut world = World::default();
    let names = ["eth0", "eth1", "eth0.100"];
    world.desired.node.interfaces = names
        .map(|name| Interface {
            name: name.to_owned(),
            mode: desired::AttachMode::Native,
            source_validation: SourceValidation::Off,
            max_mss: Default::default(),
            vrf: None,
        })
        .to_vec();
    let link = |name: &str, mac, vlan| Link { name: name.to_owned(), mac, mtu: 1500, up: true, rx_queues: 1, vlan };
    let vlan = Some(Vlan { parent: ETH0, id: 100 });
    world.network.links = BTreeMap::from([
        (ETH0, link("eth0", HERE, None)),
        (ETH1, link("eth1", ETH1_MAC, None)),
        (VLAN, link("eth0.100", HERE, vlan)),
        (HOST, link("host0", Mac([2, 0, 0, 0, 0, 0xa5]), None)),
    ]);
    for (ifindex, address) in [
        (ETH0, "10.0.0.1/24"),
        (ETH0, "2001:db8::1/64"),
        (ETH0, "fe80::a0/64"),
        (ETH1, "10.0.1.1/24"),
        (ETH1, "2001:db8:1::1/64"),
        (VLAN, "10.0.2.1/24"),
        (HOST, "10.9.0.1/24"),
    ] {
        world.network.addresses.insert((ifindex, net(address)));
    }
    for (ifindex, address) in [
        (ETH0, "10.0.0.2"),
        (ETH0, "2001:db8::2"),
        (ETH1, "10.0.1.2"),
        (ETH1, "2001:db8:1::2"),
        (VLAN, "10.0.2.2"),
        (HOST, "10.9.0.2"),
    ] {
        world.network.neighbors.insert((ifindex, ip(address)), NEIGHBOR);
    }
    world
}

impl World {
    fn judge(&self, frame: &[u8]) -> Judgement {
        Oracle::new(&self.desired, &self.network, &self.rib).judge(frame, ETH0)
    }

    fn verdict(&self, frame: &[u8]) -> Verdict {
        self.judge(frame).verdict
    }

    fn static_route(mut self, prefix: &str, action: RouteAction) -> Self {
        let name = format!("route-{}", self.desired.static_routes.len());
        self.desired.static_routes.push(StaticRoute { name, prefix: net(prefix), action, advertise: false, vrf: None });
        self
    }

    fn via(self, prefix: &str, gateways: &[&str]) -> Self {
        let gateway = |address: &&str| Gateway { address: ip(address), interface: None, weight: 1 };
        self.static_route(prefix, RouteAction::Via(gateways.iter().map(gateway).collect()))
    }

    fn tunnel(mut self, kind: TunnelKind, peers: &[&str]) -> Self {
        let name = format!("tunnel-{}", self.desired.tunnels.len());
        self.desired.tunnels.push(Tunnel {
            name,
            kind,
            peers: peers.iter().map(|peer| net(peer)).collect(),
            sources: None,
        });
        self
    }

    fn service(mut self, vip: &str, backends: Vec<Backend>) -> Self {
        self.desired.services.push(Service {
            name: format!("service-{}", self.desired.services.len()),
            addresses: vec![net_of(vip)],
            port: Some(80),
            protocol: Some(TCP),
            advertise: false,
            health: None,
            affinity: None,
            quic: None,
            backends,
        });
        self
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A prefix, or that of one address.
fn net_of(text: &str) -> IpNet {
    if text.contains('/') { net(text) } else { ip(text).into() }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn drop(reason: DropReason) -> Verdict {
    Verdict::Drop(reason)
}

fn punt(reason: PuntReason) -> Verdict {
    Verdict::Punt(reason)
}

fn frame_to(destination: Mac, tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [destination.0, PEER.0].concat();
    for tag in tags {
        frame.extend([0x81, 0, (tag >> 8) as u8, *tag as u8]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A frame to eth0's own address; the ethertype follows from the packet.
fn frame(packet: &[u8]) -> Vec<u8> {
    frame_to(HERE, &[], ethertype(packet), packet)
}

fn ethertype(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }
}

/// An IPv4 or IPv6 packet under construction.
#[derive(Clone)]
struct Ip {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ttl: u8,
    tos: u8,
    id: u16,
    /// IPv4 flags and fragment offset.
    fragment: u16,
    flow_label: u32,
    payload: Vec<u8>,
}

fn packet(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Ip {
    let payload = payload.to_vec();
    Ip {
        source: ip(source),
        destination: ip(destination),
        protocol,
        ttl: 64,
        tos: 0,
        id: 0,
        fragment: 0,
        flow_label: 0,
        payload,
    }
}

fn tcp(source: &str, destination: &str, ports: (u16, u16)) -> Ip {
    packet(source, destination, TCP, &transport(ports, 20))
}

fn udp(source: &str, destination: &str, ports: (u16, u16)) -> Ip {
    packet(source, destination, UDP, &transport(ports, 8))
}

/// Ports and zeros up to `len` bytes.
fn transport((source, destination): (u16, u16), len: usize) -> Vec<u8> {
    let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    bytes.resize(len, 0);
    bytes
}

impl Ip {
    fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    fn tos(self, tos: u8) -> Self {
        Self { tos, ..self }
    }

    fn fragment(self, fragment: u16) -> Self {
        Self { fragment, ..self }
    }

    fn dont_fragment(self) -> Self {
        self.fragment(0x4000)
    }

    /// The packet made `len` bytes long.
    fn len(mut self, len: usize) -> Self {
        self.payload.resize(len - if self.source.is_ipv4() { 20 } else { 40 }, 0);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let len = (20 + self.payload.len()) as u16;
                let mut header = vec![0x45, self.tos];
                header.extend(len.to_be_bytes());
                header.extend(self.id.to_be_bytes());
                header.extend(self.fragment.to_be_bytes());
                header.extend([self.ttl, self.protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                seal(&mut header);
                [header, self.payload.clone()].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let word = 6u32 << 28 | u32::from(self.tos) << 20 | self.flow_label;
                let mut header = word.to_be_bytes().to_vec();
                header.extend((self.payload.len() as u16).to_be_bytes());
                header.extend([self.protocol, self.ttl]);
                header.extend(source.octets());
                header.extend(destination.octets());
                [header, self.payload.clone()].concat()
            }
            _ => panic!("two families in one packet"),
        }
    }
}

/// Writes the header checksum of an IPv4 header.
fn seal(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}
