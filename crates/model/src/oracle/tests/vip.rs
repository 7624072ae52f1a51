//! Stages 4 and 6.

use super::*;
use tables::hash::FlowKey;

const VIP: &str = "198.51.100.1";
const VIP6: &str = "2001:db8:100::1";

fn backend(address: &str, encap: Encap) -> Backend {
    Backend { address: ip(address), weight: 1, encap, drain: false }
}

fn vxlan() -> Encap {
    Encap::Vxlan { vni: 0x0a_0b_0c, mac: Mac([2, 0, 0, 0, 0, 0x12]) }
}

fn one(address: &str, encap: Encap) -> World {
    world().service(VIP, vec![backend(address, encap)]).service(VIP6, vec![backend(address, encap)])
}

fn syn() -> Ip {
    tcp("203.0.113.9", VIP, (31_337, 80))
}

fn syn6() -> Ip {
    tcp("2001:db8:f::9", VIP6, (31_337, 80))
}

fn hash_of(packet: &Ip) -> u64 {
    let ports = Some((31_337, 80));
    let (source, destination) = (packet.source, packet.destination);
    hash::flow_hash(&FlowKey { source, destination, ports, protocol: packet.protocol })
}

/// Outer headers of the four pairs of families.
#[test]
fn ip_in_ip() {
    for inner in [syn().tos(0xb9), syn6().tos(0xb9)] {
        let protocol = if inner.source.is_ipv4() { 4 } else { 41 };
        let hash = hash_of(&inner);
        let v4 = packet("10.0.1.1", "10.0.1.2", protocol, &inner.clone().ttl(63).bytes()).tos(0xb9).dont_fragment();
        let v6 = Ip {
            flow_label: (hash & 0xf_ffff) as u32,
            ..packet("2001:db8:1::1", "2001:db8:1::2", protocol, &inner.clone().ttl(63).bytes()).tos(0xb9)
        };
        for (address, outer) in [("10.0.1.2", v4), ("2001:db8:1::2", v6)] {
            let judgement = one(address, Encap::Ipip).judge(&frame(&inner.bytes()));
            assert_eq!(judgement.verdict, Verdict::Redirect(ETH1));
            assert_eq!(judgement.frame[..12], [NEIGHBOR.0, ETH1_MAC.0].concat());
            assert_eq!(judgement.frame[12..14], ethertype(&outer.bytes()).to_be_bytes());
            assert_eq!(judgement.frame[14..], outer.bytes());
        }
    }
}

#[test]
fn vxlan_headers() {
    for inner in [syn(), syn6()] {
        let hash = hash_of(&inner);
        let after = inner.clone().ttl(63).bytes();
        let mut payload = transport((49_152 + (hash & 0x3fff) as u16, 4789), 8);
        payload[4..6].copy_from_slice(&(30 + after.len() as u16).to_be_bytes());
        payload.extend([8, 0, 0, 0, 0x0a, 0x0b, 0x0c, 0]);
        payload.extend([2, 0, 0, 0, 0, 0x12]);
        payload.extend(ETH1_MAC.0);
        payload.extend(ethertype(&after).to_be_bytes());
        payload.extend(after);
        let v4 = packet("10.0.1.1", "10.0.1.2", UDP, &payload).dont_fragment();
        let v6 = Ip { flow_label: (hash & 0xf_ffff) as u32, ..packet("2001:db8:1::1", "2001:db8:1::2", UDP, &payload) };
        for (address, outer) in [("10.0.1.2", v4), ("2001:db8:1::2", v6)] {
            let judgement = one(address, vxlan()).judge(&frame(&inner.bytes()));
            assert_eq!(judgement.frame[14..], outer.bytes());
        }
    }
}

#[test]
fn l2_goes_to_the_backends_own_address() {
    let judgement = one("10.0.1.2", Encap::L2).judge(&frame(&[syn().bytes(), vec![0; 6]].concat()));
    assert_eq!(judgement.verdict, Verdict::Redirect(ETH1));
    assert_eq!(judgement.frame[..12], [NEIGHBOR.0, ETH1_MAC.0].concat());
    assert_eq!(judgement.frame[14..], [syn().ttl(63).bytes(), vec![0; 6]].concat());
}

#[test]
fn out_of_the_same_interface_and_onto_a_vlan() {
    assert_eq!(one("10.0.0.2", Encap::Ipip).verdict(&frame(&syn().bytes())), Verdict::Tx);
    let judgement = one("10.0.2.2", Encap::Ipip).judge(&frame(&syn().bytes()));
    assert_eq!(judgement.verdict, Verdict::Tx, "the parent is the one it came in by");
    assert_eq!(judgement.frame[12..18], [0x81, 0, 0, 100, 0x08, 0]);
    assert_eq!(judgement.frame[30..34], [10, 0, 2, 1]);
}

#[test]
fn the_ring_chooses() {
    let world = world().service(VIP, vec![backend("10.0.1.2", Encap::Ipip), backend("10.0.0.2", Encap::Ipip)]);
    let (mut tx, mut redirect) = (0, 0);
    for port in 1..=1000 {
        match world.verdict(&frame(&tcp("203.0.113.9", VIP, (port, 80)).bytes())) {
            Verdict::Tx => tx += 1,
            Verdict::Redirect(ETH1) => redirect += 1,
            other => panic!("{other}"),
        }
    }
    assert!(tx > 400 && redirect > 400, "{tx} {redirect}");
}

#[test]
fn without_a_usable_backend() {
    let nobody = drop(DropReason::VipNoBackend);
    assert_eq!(world().service(VIP, vec![]).verdict(&frame(&syn().bytes())), nobody);
    for (address, encap) in [
        ("203.0.113.1", Encap::Ipip),
        ("10.9.0.2", Encap::Ipip),
        ("10.0.0.1", Encap::Ipip),
        (VIP, Encap::Ipip),
        ("10.0.1.0", Encap::Ipip),
    ] {
        assert_eq!(one(address, encap).verdict(&frame(&syn().bytes())), nobody, "{address}");
    }
    let remote = || one("10.77.0.1", Encap::L2).via("10.77.0.0/16", &["10.0.1.2"]);
    assert_eq!(remote().verdict(&frame(&syn().bytes())), nobody, "L2 needs the same link");
    let mut no_source = one("2001:db8:1::2", Encap::Ipip);
    no_source.network.addresses.remove(&(ETH1, net("2001:db8:1::1/64")));
    let no_source = no_source.via("2001:db8:1::/64", &["2001:db8::2"]);
    assert_eq!(no_source.verdict(&frame(&syn().bytes())), Verdict::Tx, "another way, another source");
    let mut nothing = one("10.77.0.1", Encap::Ipip);
    nothing.desired.static_routes.push(StaticRoute {
        name: "blackhole".into(),
        prefix: net("10.77.0.0/16"),
        action: RouteAction::Blackhole,
        advertise: false,
        vrf: None,
    });
    assert_eq!(nothing.verdict(&frame(&syn().bytes())), nobody);
}

#[test]
fn outer_source() {
    let mut world = one("10.0.1.2", Encap::Ipip);
    world.desired.node.encap_source_v4 = Some("10.0.0.1".parse().unwrap());
    assert_eq!(world.judge(&frame(&syn().bytes())).frame[26..30], [10, 0, 0, 1]);
    let mut world = one("fd00::2", Encap::Ipip);
    for address in ["fe80::9/64", "fd00::1/64"] {
        world.network.addresses.insert((HOST, net(address)));
        world.network.addresses.insert((VLAN, net(address)));
    }
    world.network.neighbors.insert((VLAN, ip("fd00::2")), NEIGHBOR);
    let judgement = world.judge(&frame(&syn().bytes()));
    assert_eq!(judgement.frame[26..42], ip_octets("fd00::1"), "not the link-local one: {judgement:?}");
}

fn ip_octets(text: &str) -> Vec<u8> {
    match ip(text) {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[test]
fn checks_before_the_outer_header_in_order() {
    let world = one("10.0.1.2", Encap::Ipip);
    let verdict = |packet: Ip| world.verdict(&frame(&packet.bytes()));
    let from_link_local = tcp("169.254.0.1", VIP, (31_337, 80)).ttl(1);
    assert_eq!(verdict(from_link_local), drop(DropReason::SrcInvalid));
    for ttl in [0, 1] {
        assert_eq!(verdict(syn().ttl(ttl).len(1600)), punt(PuntReason::TtlExceeded));
    }
    assert_eq!(verdict(syn().ttl(2)), Verdict::Redirect(ETH1));
    assert_eq!(verdict(syn().len(1481)), drop(DropReason::MtuNoDf));
    assert_eq!(verdict(syn().dont_fragment().len(1481)), punt(PuntReason::PacketTooBig));
    assert_eq!(verdict(syn().len(1480)), Verdict::Redirect(ETH1));
}

#[test]
fn gue_headers() {
    for inner in [syn(), syn6()] {
        let hash = hash_of(&inner);
        let after = inner.clone().ttl(63).bytes();
        let mut payload = transport((49_152 + (hash & 0x3fff) as u16, 6080), 8);
        payload[4..6].copy_from_slice(&(8 + after.len() as u16).to_be_bytes());
        payload.extend(after);
        let v4 = packet("10.0.1.1", "10.0.1.2", UDP, &payload).dont_fragment();
        let v6 = Ip { flow_label: (hash & 0xf_ffff) as u32, ..packet("2001:db8:1::1", "2001:db8:1::2", UDP, &payload) };
        for (address, outer) in [("10.0.1.2", v4), ("2001:db8:1::2", v6)] {
            let judgement = one(address, Encap::Gue).judge(&frame(&inner.bytes()));
            assert_eq!(judgement.frame[14..], outer.bytes());
        }
    }
}

#[test]
fn inner_mtu_by_encap() {
    for (address, encap, mtu) in [
        ("10.0.1.2", Encap::Ipip, 1480),
        ("2001:db8:1::2", Encap::Ipip, 1460),
        ("10.0.1.2", Encap::Gue, 1472),
        ("2001:db8:1::2", Encap::Gue, 1452),
        ("10.0.1.2", vxlan(), 1450),
        ("2001:db8:1::2", vxlan(), 1430),
        ("10.0.1.2", Encap::L2, 1500),
    ] {
        let world = one(address, encap);
        for packet in [syn().dont_fragment(), syn6()] {
            let fits = packet.clone().len(mtu);
            assert_eq!(world.verdict(&frame(&[fits.bytes(), vec![0; 9]].concat())), Verdict::Redirect(ETH1));
            let larger = frame(&packet.len(mtu + 1).bytes());
            let judgement = world.judge(&larger);
            assert_eq!(judgement.verdict, punt(PuntReason::PacketTooBig));
            assert_eq!(judgement.meta.unwrap().mtu, Some(mtu as u32));
            assert_eq!(judgement.frame, larger);
        }
    }
}

#[test]
fn unresolved_backends() {
    let mut world = one("10.0.1.2", Encap::Ipip);
    world.network.neighbors.clear();
    let judgement = world.judge(&frame(&syn().bytes()));
    assert_eq!(judgement.verdict, punt(PuntReason::NeighborEncap));
    assert_eq!(judgement.frame[..12], [Mac::default().0, ETH1_MAC.0].concat());
    assert_eq!(judgement.frame[34..], syn().ttl(63).bytes());
    let meta = judgement.meta.unwrap();
    assert_eq!((meta.neighbor, meta.decrement_ttl), (Some((ETH1, ip("10.0.1.2"))), false));

    let mut l2 = one("10.0.1.2", Encap::L2);
    l2.network.neighbors.clear();
    let judgement = l2.judge(&frame(&syn().bytes()));
    assert_eq!(judgement.verdict, punt(PuntReason::Neighbor));
    assert_eq!(judgement.frame, frame(&syn().bytes()));
    let meta = judgement.meta.unwrap();
    assert_eq!((meta.neighbor, meta.decrement_ttl), (Some((ETH1, ip("10.0.1.2"))), true));
}

#[test]
fn remote_backends_take_the_route_and_the_smallest_mtu() {
    let mut world = one("10.77.0.1", Encap::Ipip).via("10.77.0.0/16", &["10.0.1.2", "10.0.0.2"]);
    world.network.links.get_mut(&ETH1).unwrap().mtu = 1400;
    let judgement = world.judge(&frame(&syn().dont_fragment().len(1381).bytes()));
    assert_eq!(judgement.meta.unwrap().mtu, Some(1380));
    let sent = world.judge(&frame(&syn().bytes()));
    assert_eq!(sent.frame[26..34], [10, 0, 0, 1, 10, 77, 0, 1], "source of the first next hop's interface");
}

#[test]
fn packets_out_of_a_tunnel_are_balanced_too() {
    let world = one("10.0.1.2", Encap::Ipip).tunnel(TunnelKind::Ipip, &["10.0.0.2/32"]);
    let outer = packet("10.0.0.2", "10.0.0.1", 4, &syn().bytes());
    let judgement = world.judge(&frame(&outer.bytes()));
    assert_eq!(judgement.verdict, Verdict::Redirect(ETH1));
    assert_eq!(judgement.frame[34..], syn().ttl(63).bytes());
}

#[test]
fn what_is_not_the_service() {
    let world = one("10.0.1.2", Encap::Ipip);
    let verdict = |packet: Ip| world.verdict(&frame(&packet.bytes()));
    assert_eq!(verdict(tcp("203.0.113.9", VIP, (1, 81))), drop(DropReason::VipNoService));
    assert_eq!(verdict(udp("203.0.113.9", VIP, (1, 80))), drop(DropReason::VipNoService));
    assert_eq!(verdict(syn().fragment(1)), drop(DropReason::VipFragment));
    assert_eq!(verdict(syn().fragment(0x2000)), Verdict::Redirect(ETH1), "the first fragment shows its ports");
    let ping = packet("203.0.113.9", VIP, protocol::ICMP, &[8, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(verdict(ping.clone()), punt(PuntReason::VipEcho));
    assert_eq!(verdict(ping.clone().ttl(1)), punt(PuntReason::VipEcho));
    assert_eq!(verdict(ping.clone().fragment(0x2000)), drop(DropReason::VipNoService));
    assert_eq!(verdict(ping.fragment(1)), drop(DropReason::VipFragment));
    let ping6 = packet("2001:db8:f::9", VIP6, protocol::ICMPV6, &[128, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(verdict(ping6), punt(PuntReason::VipEcho));
    let reply = packet("203.0.113.9", VIP, protocol::ICMP, &[0, 0, 0, 0]);
    assert_eq!(verdict(reply), drop(DropReason::VipNoService));
}

/// An ICMP error from a router about `quote`, for the VIP.
fn error(kind: u8, quote: &[u8]) -> Ip {
    let quote_is_v6 = quote.first().is_some_and(|first| first >> 4 == 6);
    let payload = [&[kind, 4, 0, 0, 0, 0, 5, 0], quote].concat();
    if quote_is_v6 {
        packet("2001:db8:f::fe", VIP6, protocol::ICMPV6, &payload)
    } else {
        packet("203.0.113.254", VIP, protocol::ICMP, &payload)
    }
}

/// What the backend answers to `packet`.
fn answer(packet: &Ip) -> Vec<u8> {
    let ports = [&packet.payload[2..4], &packet.payload[..2], &packet.payload[4..]].concat();
    Ip { source: packet.destination, destination: packet.source, payload: ports, ..packet.clone() }.bytes()
}

#[test]
fn errors_go_where_the_flow_goes() {
    let world = one("10.0.1.2", Encap::Gue);
    for (packet, kinds) in [(syn(), vec![3, 4, 11, 12]), (syn6(), vec![1, 2, 3, 4])] {
        let quote = answer(&packet);
        let header = if packet.source.is_ipv4() { 20 } else { 40 };
        for kind in kinds {
            for len in [header + 4, header + 8, quote.len()] {
                let error = error(kind, &quote[..len]);
                let judgement = world.judge(&frame(&error.bytes()));
                assert_eq!(judgement.verdict, Verdict::Redirect(ETH1), "{kind}, {len} bytes");
                assert_eq!(judgement.frame[42..], error.clone().ttl(63).bytes());
                let port = u16::from_be_bytes([judgement.frame[34], judgement.frame[35]]);
                assert_eq!(port, 49_152 + (hash_of(&packet) & 0x3fff) as u16, "the flow's own");
            }
        }
        for len in [0, 1, header - 1, header, header + 3] {
            let error = error(if header == 20 { 3 } else { 2 }, &quote[..len]);
            if len > 0 || header == 20 {
                assert_eq!(world.verdict(&frame(&error.bytes())), drop(DropReason::VipErrorShort), "{len} bytes");
            }
        }
    }
    let nobody = |error: Ip| assert_eq!(world.verdict(&frame(&error.bytes())), drop(DropReason::VipNoService));
    nobody(error(5, &answer(&syn())));
    nobody(error(3, &syn().bytes()));
    nobody(error(3, &Ip { source: ip("198.51.100.9"), ..syn() }.bytes()));
}
