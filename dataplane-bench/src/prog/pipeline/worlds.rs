//! The configurations that the pipeline is measured with. Each goes the whole way of a real one, model -> compile ->
//! tables -> maps, so a case measures what a user gets. Interfaces are made up: nothing is attached and nothing leaves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::denylist::Denied;
use model::desired::{
    AttachMode, Backend, Desired, Encap, EndpointInterface, HostEndpoint, Interface, Peers, Policy, RouteAction, Rule,
    RuleAction, Service, SourceValidation, StaticRoute, Tunnel, TunnelKind, protocol,
};
use model::network::{IfIndex, Link, Mac, Network, Vlan};
use model::rib::{BgpRoute, Rib};

use crate::prog::baseline::keys::Routes;

/// The loopback interface, where BPF_PROG_TEST_RUN has packets come in.
pub(super) const INGRESS: IfIndex = IfIndex(1);
pub(super) const EGRESS: IfIndex = IfIndex(2);
const VLAN_INGRESS: IfIndex = IfIndex(3);
/// Prefixes of the cases that have many, and flows of those.
pub(super) const MANY: u32 = 65_536;
pub(super) const BACKENDS: u16 = 100;
pub(super) const DENIED: u32 = 10_000;
/// Most flows of a sweep.
pub(super) const MOST_FLOWS: u32 = 1 << 22;
/// The first of the VIPs, where there are many.
const FIRST_VIP: u32 = 0xc000_020a;
/// Gateways of a full table.
const GATEWAYS: u32 = 250;

const GATEWAY4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2));
const GATEWAY6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2));
/// Behind the IPv6 gateway: the IPv6 backends.
const BACKENDS6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0), 48));
/// Interface addresses.
const ADDRESSES: [(IfIndex, IpNet); 4] = [
    (INGRESS, IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 1), 24))),
    (INGRESS, IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 64))),
    (EGRESS, IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 1, 0, 1), 24))),
    (EGRESS, IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1), 64))),
];

/// Whether a router sends an address, of IPv4 in the low bits, to a gateway: not one of a connected network, nor a link-local
/// one.
pub(super) fn is_far(address: u128, is_ip6: bool) -> bool {
    let link_local = !is_ip6 && Ipv4Addr::from(address as u32).is_link_local();
    let address = if is_ip6 { IpAddr::V6(Ipv6Addr::from(address)) } else { v4(address as u32) };
    !link_local && !ADDRESSES.iter().any(|(_, net)| net.contains(&address))
}

/// The inputs of compile.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) desired: Desired,
    pub(super) network: Network,
    pub(super) rib: Rib,
}

fn v4(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(n))
}

/// `count` prefixes of 24 bits from `first` on.
fn slash24(first: u32, count: u32) -> impl Iterator<Item = IpNet> {
    (0..count).filter_map(move |n| IpNet::new(v4(first + (n << 8)), 24).ok())
}

/// `count` prefixes of 48 bits from 2400:: on.
fn slash48(count: u32) -> impl Iterator<Item = IpNet> {
    (0..count).filter_map(|n| IpNet::new(IpAddr::V6(Ipv6Addr::from(0x2400u128 << 112 | u128::from(n) << 80)), 48).ok())
}

/// A router with two ports, a VLAN on the first, and `prefixes` of each family behind a gateway: 100.0.0.0/24 and up,
/// 2400::/48 and up.
pub(super) fn router(prefixes: u32) -> World {
    let mut world = World { desired: Desired::default(), network: Network::default(), rib: Rib::default() };
    let mac = |last: u32| Mac([2, 0, 0, 0, 0, last as u8]);
    for (index, name) in [(INGRESS, "in"), (EGRESS, "out")] {
        let link = Link { name: name.to_owned(), mac: mac(index.0), mtu: 1500, up: true, rx_queues: 1, vlan: None };
        world.network.links.insert(index, link);
        world.desired.node.interfaces.push(Interface {
            name: name.to_owned(),
            mode: AttachMode::Native,
            source_validation: SourceValidation::Off,
            max_mss: Default::default(),
            vrf: None,
        });
    }
    world.network.addresses.extend(ADDRESSES);
    for gateway in [GATEWAY4, GATEWAY6] {
        world.network.neighbors.insert((EGRESS, gateway), mac(0xfe));
    }
    let via = |gateway: IpAddr| BgpRoute { gateways: vec![gateway], alternatives: Vec::new(), internal: false };
    slash24(0x6400_0000, prefixes.max(BACKENDS.into())).for_each(|prefix| world.rib.set_bgp(prefix, &via(GATEWAY4)));
    slash48(prefixes).for_each(|prefix| world.rib.set_bgp(prefix, &via(GATEWAY6)));
    world.rib.set_bgp(BACKENDS6, &via(GATEWAY6));
    world
}

/// A router with a full table: the prefixes of the baselines' tables, and a route each for the hot cases, behind 250 gateways.
pub(super) fn full_router() -> World {
    let mut world = router(1);
    for last in 2..GATEWAYS + 2 {
        world.network.neighbors.insert((EGRESS, v4(0x0a01_0000 + last)), Mac([2, 0, 0, 0, 3, last as u8]));
    }
    let via = |next_hop: u32| {
        let gateway = v4(0x0a01_0002 + next_hop % GATEWAYS);
        BgpRoute { gateways: vec![gateway], alternatives: Vec::new(), internal: false }
    };
    // Routes of IPv6 over an IPv4 next hop (RFC 8950), so that both families share the gateways.
    for (length, address, next_hop) in Routes::Ip4Million.draw().iter() {
        let net = IpNet::new(v4(address as u32), length);
        net.into_iter().for_each(|net| world.rib.set_bgp(net, &via(next_hop)));
    }
    for (length, address, next_hop) in Routes::Ip6TwoHundredThousand.draw().iter() {
        let net = IpNet::new(IpAddr::V6(Ipv6Addr::from(address)), length);
        net.into_iter().for_each(|net| world.rib.set_bgp(net, &via(next_hop)));
    }
    world
}

/// A router with VLAN 100 on its first port.
pub(super) fn vlan_router() -> World {
    let mut world = router(1);
    let name = "in.100".to_owned();
    let vlan = Some(Vlan { parent: INGRESS, id: 100 });
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    world.network.links.insert(VLAN_INGRESS, Link { name: name.clone(), mac, mtu: 1500, up: true, rx_queues: 1, vlan });
    world.desired.node.interfaces.push(Interface {
        name,
        mode: AttachMode::Native,
        source_validation: SourceValidation::Off,
        max_mss: Default::default(),
        vrf: None,
    });
    world
}

/// A router with six VIPs, 192.0.2.10 and up and one of IPv6, and the first `backends` of 100 behind each.
pub(super) fn balancer(backends: u16) -> World {
    let mut world = router(1);
    let routed4 = |n: u16| v4(0x6400_0001 + (u32::from(n) << 8));
    let routed6 = |n: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, n + 1));
    let attached = |n: u16| v4(0x0a01_0064 + u32::from(n));
    let beside = |n: u16| v4(0x0a00_0064 + u32::from(n));
    for n in 0..BACKENDS {
        world.network.neighbors.insert((INGRESS, beside(n)), Mac([2, 0, 0, 0, 2, n as u8]));
        world.network.neighbors.insert((EGRESS, attached(n)), Mac([2, 0, 0, 0, 1, n as u8]));
    }
    let mut serve = |name: &str, vip: &str, protocol, address: &dyn Fn(u16) -> IpAddr, encap: Encap| {
        let backends = (0..backends).map(|n| Backend { address: address(n), weight: 1, encap, drain: false });
        world.desired.services.push(Service {
            name: name.to_owned(),
            addresses: vip.parse::<IpAddr>().map(IpNet::from).into_iter().collect(),
            port: Some(80),
            protocol: Some(protocol),
            advertise: true,
            health: None,
            affinity: None,
            quic: None,
            backends: backends.collect(),
        });
    };
    let vxlan = Encap::Vxlan { vni: 4096, mac: Mac([2, 0, 0, 0, 2, 1]) };
    serve("ipip4", "192.0.2.10", protocol::TCP, &routed4, Encap::Ipip);
    serve("udp", "192.0.2.10", protocol::UDP, &routed4, Encap::Ipip);
    serve("ipip6", "2001:db8:100::10", protocol::TCP, &routed6, Encap::Ipip);
    serve("v4-on-v6", "192.0.2.11", protocol::TCP, &routed6, Encap::Ipip);
    serve("vxlan", "192.0.2.12", protocol::TCP, &routed4, vxlan);
    serve("l2", "192.0.2.13", protocol::TCP, &attached, Encap::L2);
    serve("one-arm", "192.0.2.14", protocol::TCP, &beside, Encap::Ipip);
    world.desired.node.flow_table_entries = 4 * MANY;
    world
}

/// The same with room for twice as many flows as a sweep has.
pub(super) fn balancer_remembering(backends: u16) -> World {
    let mut world = balancer(backends);
    world.desired.node.flow_table_entries = 2 * MOST_FLOWS;
    world
}

/// The addresses of so many VIPs, each once in a while and not in their order; a power of two of them.
pub(super) fn vip_addresses(vips: u32) -> Vec<u128> {
    let places = vips.next_power_of_two();
    // Odd, so that every place is reached.
    let place = |n: u32| n.wrapping_mul(2_654_435_761) & (places - 1);
    (0..places).map(|n| u128::from(FIRST_VIP + place(n) % vips)).collect()
}

/// A router with `vips` VIPs, 192.0.2.10 and up, and the same `backends` behind each.
pub(super) fn balancer_of_vips(vips: u32, backends: u16) -> World {
    let mut world = router(1);
    for n in 0..vips {
        let backend = |n: u16| Backend {
            address: v4(0x6400_0001 + (u32::from(n) << 8)),
            weight: 1,
            encap: Encap::Ipip,
            drain: false,
        };
        world.desired.services.push(Service {
            name: format!("vip-{n}"),
            addresses: vec![v4(FIRST_VIP + n).into()],
            port: Some(80),
            protocol: Some(protocol::TCP),
            advertise: true,
            health: None,
            affinity: None,
            quic: None,
            backends: (0..backends).map(backend).collect(),
        });
    }
    world
}

/// A router whose first port has `count` rules that deny one source prefix each.
pub(super) fn policy(count: u32) -> World {
    let mut world = router(1);
    let deny = |net: IpNet| Rule {
        action: RuleAction::Deny,
        ip_version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: Peers { nets: vec![net], ..Peers::default() },
        destination: Peers::default(),
    };
    let name = "in".to_owned();
    let rules = slash24(0xcb00_0000, count).map(deny).collect();
    world.desired.policies.push(Policy { name: "deny".to_owned(), endpoints: vec![name.clone()], rules });
    let interface = EndpointInterface::Named(name.clone());
    world.desired.host_endpoints.push(HostEndpoint { name, interface, labels: Default::default() });
    world
}

/// A router that drops 10,000 source prefixes, 203.0.0.0/24 and up, and what is sent to 198.18.0.0/24.
pub(super) fn denylist() -> World {
    let mut world = router(1);
    world.desired.denylist = slash24(0xcb00_0000, DENIED).map(|net| (net, Denied::SOURCE)).collect();
    world.desired.static_routes.extend(slash24(0xc612_0000, 1).map(|prefix| StaticRoute {
        name: "sink".to_owned(),
        prefix,
        action: RouteAction::Blackhole,
        advertise: false,
        vrf: None,
    }));
    world
}

/// A router that drops what is for one of a million scattered prefixes: those of [`full_router`].
pub(super) fn million_denied() -> World {
    let mut world = router(1);
    let prefixes = Routes::Ip4Million.draw();
    let net = |(length, address, _): (u8, u128, u32)| IpNet::new(v4(address as u32), length).ok();
    world.desired.denylist = prefixes.iter().filter_map(net).map(|net| (net, Denied::DESTINATION)).collect();
    world
}

/// A router that takes tunnels in from 10.0.0.0/24.
pub(super) fn tunnel_end() -> World {
    let mut world = router(1);
    for (name, kind) in [("ipip", TunnelKind::Ipip), ("vxlan", TunnelKind::Vxlan { vni: 4096 })] {
        let peers = slash24(0x0a00_0000, 1).collect();
        world.desired.tunnels.push(Tunnel { name: name.to_owned(), kind, peers, sources: None });
    }
    world
}
