//! Random frames for one configuration, biased to what it does something with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::desired::{Encap, Service, TunnelKind, protocol};
use model::network::{IfIndex, Mac};
use model::quic::Quic;
use packet::Layer;
use packet::build;
use packet::layer::{Ah, Arp, Eth, Ext, ExtKind, Frag, Gre, Gue, Icmp, Ip4, Ip6, Sctp, Tcp, Udp, Vlan, Vxlan};

use super::rng::Rng;
use super::world::{VNIS, host};
use crate::program::{Arrival, INTERFACES, World};

/// The kernel's test runs take no shorter frame than an Ethernet header.
pub const SHORTEST: usize = 14;
/// One page less headroom and `struct skb_shared_info`: what a test run takes without fragments of its own.
const LONGEST: usize = 3300;

/// The frame to judge next.
#[must_use]
pub fn arrival(rng: &mut Rng, world: &World) -> Arrival {
    let (ifindex, tags, mac) = arrival_port(rng, world);
    let mut frame = loop {
        // A combination that makes no frame, a transport checksum without addresses say, is drawn again.
        if let Some(frame) = build(rng, world, &tags, mac) {
            break frame;
        }
    };
    damage(rng, &mut frame);
    Arrival { ifindex, frame }
}

/// An interface, tags and the Ethernet destination: mostly those of a port.
fn arrival_port(rng: &mut Rng, world: &World) -> (IfIndex, Vec<Vlan>, Mac) {
    let is_port = |name: &str| world.desired.node.interfaces.iter().any(|interface| interface.name == name);
    let all = rng.chance(6);
    let links: Vec<_> = world.network.links.iter().filter(|(_, link)| all || is_port(&link.name)).collect();
    let Some((index, link)) = rng.any(links) else { return (IfIndex(11), Vec::new(), Mac::default()) };
    let (ifindex, mut tags) = match link.vlan {
        Some(vlan) => (vlan.parent, vec![Vlan { id: vlan.id, ..Vlan::default() }]),
        None => (*index, Vec::new()),
    };
    if rng.chance(4) {
        tags.insert(0, Vlan { id: rng.of([0, 0, 5, 7, 100]), ..Vlan::default() });
    }
    if rng.chance(2) {
        tags.push(Vlan { id: rng.of([0, 5, 4095]), ..Vlan::default() });
    }
    for tag in &mut tags {
        tag.pcp = rng.of([0, 0, 0, 7]);
        tag.dei = rng.chance(10);
        tag.tpid = rng.chance(10).then_some(0x88a8);
    }
    let ifindex = if rng.chance(2) { rng.of(INTERFACES).1 } else { ifindex };
    let mac = match rng.below(40) {
        0 => Mac([0xff; 6]),
        1 => Mac([0x01, 0, 0x5e, 0, 0, 5]),
        2 => Mac([0x33, 0x33, 0, 0, 0, 1]),
        3 => Mac([2, 0, 0, 0, 9, 9]),
        _ => link.mac,
    };
    (ifindex, tags, mac)
}

fn build(rng: &mut Rng, world: &World, tags: &[Vlan], mac: Mac) -> Option<Vec<u8>> {
    let mut layers = vec![Layer::Eth(Eth { src: [2, 0, 0, 0, 0, 9], dst: mac.0, ethertype: None })];
    layers.extend(tags.iter().cloned().map(Layer::Vlan));
    match rng.below(100) {
        0 | 1 => layers.push(Layer::Arp(Arp {
            reply: rng.chance(50),
            sender: Ipv4Addr::new(10, 1, 0, 7),
            target: Ipv4Addr::new(10, 1, 0, 1),
            sender_mac: None,
            target_mac: None,
        })),
        2 | 3 => {
            if let Some(Layer::Eth(eth)) = layers.first_mut() {
                eth.ethertype = Some(rng.of([0x88cc, 0x8847, 0x0842, 0x0801, 0x86dc, 0x8100, 5]));
                if rng.chance(40) {
                    eth.dst = [0x01, 0x80, 0xc2, 0, 0, rng.of([0, 0x0e, 0x0f, 0x10])];
                }
            }
            layers.push(Layer::Data(rng.below(60)));
        }
        _ => layers.extend(ip_packet(rng, world, 0)),
    }
    size(rng, world, &mut layers);
    if rng.chance(15) {
        layers.push(Layer::Pad((0..1 + rng.below(20)).map(|n| 0xe0 | n as u8).collect()));
    }
    build::frame(&layers).ok().filter(|frame| frame.len() <= LONGEST)
}

/// An IP packet with what it carries; `depth` is the number of tunnels around it.
fn ip_packet(rng: &mut Rng, world: &World, depth: usize) -> Vec<Layer> {
    let kind = rng.below(100);
    let share = if world.desired.tunnels.is_empty() { 5 } else { 22 };
    if depth < 3 && kind < share {
        return tunnel_packet(rng, world, depth);
    }
    let vips: Vec<_> = world.desired.services.iter().flat_map(|s| s.addresses.iter().map(move |a| (*a, s))).collect();
    if kind < 52
        && let Some((prefix, service)) = rng.any(&vips)
    {
        let address = host(rng, prefix);
        let source = world.of_family(rng, address, source);
        let port = service.port.filter(|_| rng.chance(85)).unwrap_or_else(|| port(rng, world));
        let transport = transport_to(rng, service);
        let sport = rng.of([1, 22, 53, 31_337, 31_338, 31_339, 50_000]);
        let mut upper = upper(rng, transport, sport, port);
        if let (Some(quic), protocol::UDP, true) = (&service.quic, transport, rng.chance(80)) {
            upper.truncate(1);
            upper.push(Layer::Raw(quic_packet(rng, quic)));
        }
        return headers(rng, source, address, transport, upper);
    }
    if depth < 2
        && (52..56).contains(&kind)
        && let Some((prefix, service)) = rng.any(&vips)
    {
        let address = host(rng, prefix);
        return error_about_answer(rng, world, address, service);
    }
    let destination = destination(rng, world);
    let source = world.of_family(rng, destination, source);
    let icmp = if destination.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
    let transport = rng.of([6, 6, 17, 17, 132, icmp, icmp, 1, 58, 50, 59, 136, 4, 41, protocol::GRE]);
    let (sport, dport) = (port(rng, world), port(rng, world));
    let mut upper = upper(rng, transport, sport, dport);
    // Forwarding looks at what is inside, as far as it is there.
    if depth < 3 && transport == protocol::GRE {
        upper = gre(rng, world, depth);
    } else if depth < 3 && transport == icmp && rng.chance(50) {
        let v6 = transport == protocol::ICMPV6;
        let kind = if v6 { rng.of([1, 2, 3, 4, 100]) } else { rng.of([3, 4, 5, 11, 12]) };
        upper = vec![Layer::Icmp(Icmp { v6, kind, csum: Some(0), ..Icmp::default() })];
        upper.extend(ip_packet(rng, world, depth + 1));
    }
    headers(rng, source, destination, transport, upper)
}

/// What a QUIC packet begins with: mostly a connection ID that names a server, and as much as there has to be behind it.
fn quic_packet(rng: &mut Rng, quic: &Quic) -> Vec<u8> {
    let configured = quic.lengths.iter().zip(0u8..).filter(|(length, _)| **length != 0);
    let codepoint = match rng.any(configured.map(|(_, codepoint)| codepoint).collect::<Vec<u8>>()) {
        Some(codepoint) if rng.chance(85) => codepoint,
        _ => rng.below(8) as u8,
    };
    let mut id = vec![codepoint << 5 | rng.below(32) as u8];
    match rng.any(quic.servers.keys().copied().collect::<Vec<_>>()) {
        Some(server) if rng.chance(85) => id.extend(server.padded().iter().take(server.length().into())),
        _ => id.extend([rng.bits() as u8; 4]),
    }
    id.extend(vec![0x5a; rng.of([0, 3, 4, 4, 4, 5])]);
    let mut packet = match rng.chance(50) {
        true => vec![0x40],
        false => vec![0xc0, 0, 0, 0, 1, if rng.chance(90) { id.len() as u8 } else { rng.bits() as u8 }],
    };
    packet.extend(id);
    packet.extend(vec![0xa5; if rng.chance(85) { 20 } else { rng.below(20) }]);
    packet
}

/// A protocol that the service takes, mostly.
fn transport_to(rng: &mut Rng, service: &Service) -> u8 {
    let any = rng.of([6, 17, 132, 50, 47, 4, 41, 51, 58, 1]);
    let other = rng.of([1, 6, 17, 50, 58, 132]);
    if rng.chance(92) { service.protocol.unwrap_or(any) } else { other }
}

/// An ICMP error for a VIP that quotes an answer of its own, or what looks like one.
fn error_about_answer(rng: &mut Rng, world: &World, address: IpAddr, service: &Service) -> Vec<Layer> {
    let v6 = address.is_ipv6();
    let (icmp, kind) =
        if v6 { (protocol::ICMPV6, rng.of([1, 2, 2, 3, 4])) } else { (protocol::ICMP, rng.of([3, 3, 4, 5, 11, 12])) };
    let client = world.of_family(rng, address, source);
    let router = world.of_family(rng, address, source);
    let quoted = if rng.chance(90) { address } else { world.of_family(rng, address, source) };
    let sport = service.port.filter(|_| rng.chance(90)).unwrap_or_else(|| port(rng, world));
    let transport = transport_to(rng, service);
    let dport = rng.of([1, 22, 31_337, 50_000]);
    let answer = upper(rng, transport, sport, dport);
    let mut quote = headers(rng, quoted, client, transport, answer);
    if rng.chance(30) {
        quote.truncate(1);
        quote.push(Layer::Raw(vec![0; rng.below(9)]));
    }
    let mut layers = vec![Layer::Icmp(Icmp { v6, kind, csum: Some(0), ..Icmp::default() })];
    layers.extend(quote);
    headers(rng, router, address, icmp, layers)
}

/// GRE around a packet, with the words that it may have.
fn gre(rng: &mut Rng, world: &World, depth: usize) -> Vec<Layer> {
    let word = |rng: &mut Rng| if rng.chance(30) { Some(rng.bits() as u32) } else { None };
    let ethertype = if rng.chance(5) { Some(rng.of([0x0800, 0x86dd, 0x6558, 0x880b])) } else { None };
    let mut layers =
        vec![Layer::Gre(Gre { key: word(rng), seq: word(rng), sum: rng.chance(20), ethertype, ..Gre::default() })];
    layers.extend(ip_packet(rng, world, depth + 1));
    layers
}

/// IP in IP, VXLAN or GUE, mostly from a peer to this node.
fn tunnel_packet(rng: &mut Rng, world: &World, depth: usize) -> Vec<Layer> {
    let tunnels = &world.desired.tunnels;
    let tunnel = if rng.chance(90) { rng.any(tunnels) } else { None };
    let outer_destination = if rng.chance(85) { world.local(rng) } else { world.anywhere(rng) };
    let peers = tunnel.as_ref().map(|tunnel| tunnel.peers.clone()).unwrap_or_default();
    let outer_source = world.of_family(rng, outer_destination, |world, rng| match rng.any(&peers) {
        Some(net) if rng.chance(85) => host(rng, net),
        _ => world.anywhere(rng),
    });
    let inner = ip_packet(rng, world, depth + 1);
    let vni = match tunnel.as_ref().map(|tunnel| tunnel.kind) {
        Some(TunnelKind::Ipip) => None,
        Some(TunnelKind::Gue) => {
            let layers = gue(rng, world, inner);
            return headers(rng, outer_source, outer_destination, protocol::UDP, layers);
        }
        Some(TunnelKind::Vxlan { vni }) => Some(if rng.chance(85) { vni } else { rng.of(VNIS) }),
        None => rng.chance(50).then(|| rng.of(VNIS)),
    };
    let Some(vni) = vni else {
        let mut transport = if matches!(inner.first(), Some(Layer::Ip4(_))) { 4 } else { 41 };
        if rng.chance(2) {
            transport = 45 - transport;
        }
        return headers(rng, outer_source, outer_destination, transport, inner);
    };
    let port = if rng.chance(95) { world.desired.node.vxlan_port } else { 4790 };
    let flags = if rng.chance(5) { Some(rng.of([0, 0xf7, 0xff])) } else { None };
    let ethertype = if rng.chance(3) { Some(rng.of([0x8100, 0x0806, 0x0800, 0x86dd])) } else { None };
    let mut layers = vec![
        Layer::Udp(Udp { sport: 50_000, dport: port, ..Udp::default() }),
        Layer::Vxlan(Vxlan { vni, flags, ..Vxlan::default() }),
        Layer::Eth(Eth { src: [2, 0, 0, 0, 7, 7], dst: [2, 0, 0, 0, 7, 8], ethertype }),
    ];
    if rng.chance(2) {
        layers.push(Layer::Vlan(Vlan { id: 5, ..Vlan::default() }));
    }
    layers.extend(inner);
    headers(rng, outer_source, outer_destination, protocol::UDP, layers)
}

/// UDP, and the header of GUE's variant 0 where it is not variant 1.
fn gue(rng: &mut Rng, world: &World, inner: Vec<Layer>) -> Vec<Layer> {
    let dport = if rng.chance(95) { world.desired.node.gue_port } else { 6081 };
    let csum = if rng.chance(50) { Some(0) } else { None };
    let mut layers = vec![Layer::Udp(Udp { sport: 50_000, dport, csum, ..Udp::default() })];
    if rng.chance(40) {
        let flags = if rng.chance(5) { 1 << rng.below(16) } else { 0 };
        let opts = vec![0; if rng.chance(5) { 4 * (1 + rng.below(3)) } else { 0 }];
        let proto = if rng.chance(5) { Some(rng.of([4, 6, 17, 41])) } else { None };
        layers.push(Layer::Gue(Gue { control: rng.chance(5), flags, opts, proto }));
    } else if rng.chance(3) {
        return vec![layers.remove(0), Layer::Raw(vec![rng.bits() as u8; rng.below(6)])];
    }
    layers.extend(inner);
    layers
}

/// The IP header, options and extension headers in front of `upper`.
fn headers(rng: &mut Rng, source: IpAddr, destination: IpAddr, transport: u8, upper: Vec<Layer>) -> Vec<Layer> {
    let ttl = rng.of([64, 64, 64, 64, 64, 64, 255, 2, 2, 1, 0]);
    let tos = if rng.chance(30) { rng.bits() as u8 } else { 0 };
    let fragment = rng.below(14);
    let mut layers = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = Ip4 { ttl, tos, proto: Some(transport.into()), ..Ip4::new(source, destination) };
            header.df = rng.chance(50);
            header.rf = rng.chance(2);
            header.mf = matches!(fragment, 0 | 2);
            header.frag = if matches!(fragment, 1 | 2) { rng.of([8, 1480, 65_528]) } else { 0 };
            header.id = rng.bits() as u16;
            if rng.chance(8) {
                header.opts = vec![1; 4 * (1 + rng.below(10))];
            }
            if rng.chance(2) {
                header.len = Some(rng.of([0, 19, 20, 21, 24, 28, 40, 2000]));
            }
            if rng.chance(1) {
                header.ihl = Some(rng.of([0, 4, 5, 6, 15]));
            }
            vec![Layer::Ip4(header)]
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let chain = extension_headers(rng, fragment);
            let mut header = Ip6 { hlim: ttl, tc: tos, ..Ip6::new(source, destination) };
            header.flow = rng.bits() as u32 & 0xf_ffff;
            header.next = chain.is_empty().then_some(transport.into());
            if rng.chance(2) {
                header.len = Some(rng.of([0, 1, 4, 8, 20, 2000]));
            }
            let mut layers = vec![Layer::Ip6(header)];
            layers.extend(chain);
            if let Some(Layer::Ext(Ext { next, .. }) | Layer::Frag(Frag { next, .. }) | Layer::Ah(Ah { next, .. })) =
                layers.last_mut()
            {
                *next = Some(transport.into());
            }
            layers
        }
        _ => Vec::new(),
    };
    layers.extend(upper);
    layers
}

fn extension_headers(rng: &mut Rng, fragment: usize) -> Vec<Layer> {
    let mut chain = Vec::new();
    if rng.chance(12) {
        for _ in 0..rng.below(8) {
            chain.push(extension_header(rng));
        }
    }
    if fragment < 4 {
        let off = if matches!(fragment, 1 | 2) { rng.of([8, 1448, 65_528]) } else { 0 };
        let at = rng.below(chain.len() + 1);
        let header = Frag { id: rng.bits() as u32, off, more: matches!(fragment, 0 | 2), next: None };
        chain.insert(at, Layer::Frag(header));
    }
    chain
}

fn extension_header(rng: &mut Rng) -> Layer {
    let body = vec![0; 6 + 8 * rng.of([0, 0, 0, 1, 4])];
    let kind = rng.of([ExtKind::HopByHop, ExtKind::Destination, ExtKind::Routing]);
    let len = if rng.chance(4) { Some(rng.of([0, 1, 2, 255])) } else { None };
    if rng.chance(20) {
        Layer::Ah(Ah { icv: vec![0xaa; rng.of([0, 4, 12, 16])], len, ..Ah::default() })
    } else {
        Layer::Ext(Ext { kind, body, next: None, len })
    }
}

/// The header of `transport`, now and then cut off.
fn upper(rng: &mut Rng, transport: u8, sport: u16, dport: u16) -> Vec<Layer> {
    if rng.chance(3) {
        return vec![Layer::Raw(vec![0; rng.below(5)])];
    }
    let header = match transport {
        protocol::TCP => Layer::Tcp(tcp(&mut Rng::new(rng.clone().bits()), sport, dport)),
        protocol::UDP => Layer::Udp(Udp { sport, dport, ..Udp::default() }),
        protocol::SCTP => Layer::Sctp(Sctp { sport, dport, ..Sctp::default() }),
        protocol::ICMP | protocol::ICMPV6 => {
            let v6 = transport == protocol::ICMPV6;
            let kind = rng.of([8, 8, 128, 128, 0, 3, 129, 135]);
            // The checksum is forced: ICMPv6 over IPv4 has none to compute.
            Layer::Icmp(Icmp { v6, kind, code: rng.of([0, 0, 3]), csum: Some(0), ..Icmp::default() })
        }
        _ => Layer::Raw(vec![0; 8]),
    };
    vec![header, Layer::Data(rng.of([0, 0, 4, 11, 60]))]
}

/// What opens a connection, nearly always, with options that are well formed, nearly always.
fn tcp(rng: &mut Rng, sport: u16, dport: u16) -> Tcp {
    const ACK: u16 = 0x10;
    let flags = rng.of([Tcp::SYN, Tcp::SYN, Tcp::SYN | ACK, Tcp::SYN | ACK, ACK, Tcp::SYN | 0x04]);
    let mut opts = Vec::new();
    for _ in 0..rng.below(6) {
        let [high, low] = rng.of([0, 500, 536, 1_200, 1_380, 1_400, 1_401, 1_460, 8_960, 65_535u16]).to_be_bytes();
        opts.extend_from_slice(rng.of([
            &[1][..],
            &[1, 1],
            &[2, 4, high, low],
            &[2, 4, high, low],
            &[2, 4, high, low],
            &[4, 2],
            &[3, 3, 7],
            &[8, 10, 0, 0, 0, 1, 0, 0, 0, 0],
            &[2, 3, high],
            &[30, 1],
            &[0],
            &[2],
        ]));
    }
    opts.truncate(40);
    opts.resize(opts.len().next_multiple_of(4), rng.of([0, 1, 2]));
    let off = if rng.chance(4) { Some(rng.below(16) as u32) } else { None };
    let csum = if rng.chance(4) { Some(rng.below(65_536) as u32) } else { None };
    Tcp { opts, off, csum, ..Tcp::new(sport, dport, flags) }
}

/// Any source, often one that a denylist, a policy or a check has an opinion about.
fn source(world: &World, rng: &mut Rng) -> IpAddr {
    if rng.chance(6) {
        return rng.of([
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::LOCALHOST.into(),
            Ipv4Addr::BROADCAST.into(),
            Ipv4Addr::new(224, 0, 0, 1).into(),
            Ipv4Addr::new(169, 254, 7, 7).into(),
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::LOCALHOST.into(),
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7).into(),
            IpAddr::V6(Ipv4Addr::new(10, 1, 0, 7).to_ipv6_mapped()),
        ]);
    }
    let rules = world.desired.policies.iter().flat_map(|policy| &policy.rules);
    let of_rules = rules.flat_map(|rule| rule.source.nets.iter().chain(&rule.source.not_nets));
    let nets: Vec<_> = world.desired.denylist.prefixes().keys().chain(of_rules).copied().collect();
    match rng.any(nets) {
        Some(net) if rng.chance(35) => host(rng, net),
        _ => world.anywhere(rng),
    }
}

/// Any destination, often one that a route or a policy has an opinion about.
fn destination(rng: &mut Rng, world: &World) -> IpAddr {
    if rng.chance(4) {
        return rng.of([
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(0, 1, 2, 3).into(),
            Ipv4Addr::LOCALHOST.into(),
            Ipv4Addr::BROADCAST.into(),
            Ipv4Addr::new(239, 1, 1, 1).into(),
            Ipv4Addr::new(169, 254, 1, 1).into(),
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::LOCALHOST.into(),
            Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 2).into(),
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 11).into(),
            IpAddr::V6(Ipv4Addr::new(10, 1, 0, 2).to_ipv6_mapped()),
        ]);
    }
    let desired = &world.desired;
    let backends = desired.services.iter().flat_map(|service| &service.backends);
    let on_l2 = backends.filter(|backend| backend.encap == Encap::L2).map(|backend| backend.address.into());
    let routes = desired.static_routes.iter().map(|route| route.prefix);
    let learned = world.rib.iter().map(|(prefix, _)| prefix);
    let rules = desired.policies.iter().flat_map(|policy| &policy.rules);
    let of_rules = rules.flat_map(|rule| rule.destination.nets.iter().chain(&rule.destination.not_nets)).copied();
    let denied = desired.denylist.prefixes().keys().copied();
    let nets: Vec<ipnet::IpNet> = routes.chain(learned).chain(of_rules).chain(on_l2).chain(denied).collect();
    match rng.below(10) {
        0..=4 => match rng.any(nets) {
            Some(net) => host(rng, net),
            None => world.remote(rng),
        },
        5..=8 => world.neighbor(rng),
        _ => world.anywhere(rng),
    }
}

fn port(rng: &mut Rng, world: &World) -> u16 {
    let rules = world.desired.policies.iter().flat_map(|policy| &policy.rules);
    let ranges: Vec<_> = rules
        .flat_map(|rule| [&rule.source, &rule.destination])
        .flat_map(|peers| peers.ports.iter().chain(&peers.not_ports))
        .collect();
    let anything = rng.bits() as u16;
    match rng.any(ranges) {
        Some(range) if rng.chance(50) => {
            rng.of([range.first, range.last, range.first.wrapping_sub(1), range.last.wrapping_add(1)])
        }
        _ => rng.of([22, 53, 80, 179, 443, 4789, 8472, 31_337, anything]),
    }
}

/// Now and then fills the frame up to about a size that decides something.
fn size(rng: &mut Rng, world: &World, layers: &mut Vec<Layer>) {
    if !rng.chance(12) {
        return;
    }
    let mtus: Vec<_> = world.network.links.values().map(|link| link.mtu as usize).collect();
    let Some(mtu) = rng.any(mtus) else { return };
    let packet = mtu + rng.of([0, 1, 2, 3]) - rng.of([0, 1, 20, 40, 50, 70]);
    let now = build::frame(layers).map_or(LONGEST, |frame| frame.len() - SHORTEST);
    layers.push(Layer::Data(packet.saturating_sub(now)));
}

/// Now and then cuts the frame or flips bits; half of the time with the IPv4 checksum made right again.
fn damage(rng: &mut Rng, frame: &mut Vec<u8>) {
    if rng.chance(3) {
        frame.truncate(SHORTEST + rng.below(frame.len() - SHORTEST + 1));
    }
    if rng.chance(6) {
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(frame.len().min(120));
            if let Some(byte) = frame.get_mut(at) {
                *byte ^= 1 << rng.below(8);
            }
        }
        if rng.chance(50)
            && let Some(header) = frame.get_mut(14..34)
        {
            repair(header);
        }
    }
    if rng.chance(1) {
        for byte in frame.iter_mut().skip(12 + rng.below(8)) {
            *byte = rng.bits() as u8;
        }
    }
}

/// The checksum of an IPv4 header without options.
fn repair(header: &mut [u8]) {
    if let Some(field) = header.get_mut(10..12) {
        field.fill(0);
    }
    let sum = packet::checksum::internet(header);
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}
