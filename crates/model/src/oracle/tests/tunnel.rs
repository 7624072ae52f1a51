//! Stage 2.

use super::*;
use crate::denylist::Denied;

const VNI: u32 = 0x01_02_03;

fn ipip_world() -> World {
    world().tunnel(TunnelKind::Ipip, &["10.0.0.0/28", "2001:db8::/64"])
}

fn vxlan_world() -> World {
    world().tunnel(TunnelKind::Vxlan { vni: VNI }, &["10.0.0.0/28"])
}

fn inner() -> Ip {
    tcp("192.0.2.1", "10.0.1.2", (1000, 80))
}

fn ipip(inner: &Ip) -> Ip {
    let protocol = if inner.source.is_ipv4() { 4 } else { 41 };
    packet("10.0.0.2", "10.0.0.1", protocol, &inner.bytes())
}

fn vxlan(inner: &Ip) -> Ip {
    let mut payload = transport((55_555, 4789), 8);
    payload.extend([0x08, 0, 0, 0, 1, 2, 3, 0]);
    payload.extend(frame_to(PEER, &[], ethertype(&inner.bytes()), &inner.bytes()));
    packet("10.0.0.2", "10.0.0.1", UDP, &payload)
}

#[test]
fn every_pair_of_families_is_taken_in() {
    let world = ipip_world();
    let inner6 = tcp("2001:db8:f::1", "2001:db8:1::2", (1000, 80));
    let forwarded = |inner: Ip| frame_to(NEIGHBOR, &[], ethertype(&inner.bytes()), &inner.ttl(63).bytes());
    for (outer_source, outer_destination) in [("10.0.0.2", "10.0.0.1"), ("2001:db8::2", "2001:db8:1::1")] {
        for (protocol, inner) in [(4, inner()), (41, inner6.clone())] {
            let outer = packet(outer_source, outer_destination, protocol, &inner.bytes());
            let judgement = world.judge(&frame(&outer.bytes()));
            assert_eq!(judgement.verdict, Verdict::Redirect(ETH1));
            let mut expected = forwarded(inner);
            expected[6..12].copy_from_slice(&ETH1_MAC.0);
            assert_eq!(judgement.frame, expected);
        }
    }
}

#[test]
fn vxlan_is_taken_in() {
    let judgement = vxlan_world().judge(&frame(&vxlan(&inner()).bytes()));
    assert_eq!(judgement.verdict, Verdict::Redirect(ETH1));
    assert_eq!(judgement.frame[14..], inner().ttl(63).bytes());
}

#[test]
fn without_a_tunnel_of_that_kind_or_for_others_it_is_an_ordinary_packet() {
    assert_eq!(world().verdict(&frame(&ipip(&inner()).bytes())), Verdict::Pass);
    assert_eq!(world().verdict(&frame(&vxlan(&inner()).bytes())), Verdict::Pass);
    assert_eq!(ipip_world().verdict(&frame(&vxlan(&inner()).bytes())), Verdict::Pass);
    assert_eq!(vxlan_world().verdict(&frame(&ipip(&inner()).bytes())), Verdict::Pass);
    let elsewhere = packet("10.0.0.2", "10.0.1.2", 4, &inner().bytes());
    let judgement = ipip_world().judge(&frame(&elsewhere.bytes()));
    assert_eq!(judgement.verdict, Verdict::Redirect(ETH1));
    assert_eq!(judgement.frame[14..], elsewhere.ttl(63).bytes());
}

#[test]
fn a_program_with_every_decap_asks_for_peers() {
    let world = world();
    let oracle = Oracle::new(&world.desired, &world.network, &world.rib).with_every_decap();
    let verdict = |packet: Ip| oracle.judge(&frame(&packet.bytes()), ETH0).verdict;
    assert_eq!(verdict(ipip(&inner())), drop(DropReason::TunPeerUnknown));
    assert_eq!(verdict(vxlan(&inner())), drop(DropReason::TunVniUnknown));
}

#[test]
fn host_scope_packets_are_not_decapsulated() {
    let world = ipip_world();
    let group = frame_to(Mac([0xff; 6]), &[], 0x0800, &ipip(&inner()).bytes());
    assert_eq!(world.judge(&group).frame, group);
    let link_local = frame(&packet("2001:db8::2", "fe80::a0", 4, &inner().bytes()).bytes());
    assert_eq!(world.judge(&link_local).frame, link_local);
}

#[test]
fn fragments_of_tunnel_packets() {
    for fragment in [0x2000, 1, 0x2001] {
        let packet = ipip(&inner()).fragment(fragment);
        assert_eq!(ipip_world().verdict(&frame(&packet.bytes())), drop(DropReason::TunFragment));
    }
    let first = vxlan(&inner()).fragment(0x2000);
    assert_eq!(vxlan_world().verdict(&frame(&first.bytes())), drop(DropReason::TunFragment));
    let later = vxlan(&inner()).fragment(8);
    assert_eq!(vxlan_world().verdict(&frame(&later.bytes())), Verdict::Pass);
}

#[test]
fn vxlan_headers_that_are_none() {
    let world = vxlan_world();
    let with = |change: fn(&mut Vec<u8>)| {
        let mut packet = vxlan(&inner());
        change(&mut packet.payload);
        world.verdict(&frame(&packet.bytes()))
    };
    assert_eq!(with(|p| p.truncate(29)), drop(DropReason::TunHeader));
    assert_eq!(with(|p| p[8] = 0xf7), drop(DropReason::TunHeader));
    assert_eq!(with(|p| p[28..30].copy_from_slice(&[0x81, 0])), drop(DropReason::TunHeader));
    assert_eq!(with(|p| p[28..30].copy_from_slice(&[0x08, 6])), drop(DropReason::TunHeader));
    assert_eq!(with(|p| p.truncate(30)), drop(DropReason::Ip4Short));
    assert_eq!(with(|p| p[8] = 0xff), Verdict::Redirect(ETH1), "other flags are not looked at");
    let tagged_and_unknown = with(|p| {
        p[28] = 0x81;
        p[12] = 9;
    });
    assert_eq!(tagged_and_unknown, drop(DropReason::TunHeader), "the header is asked before the peer");
}

#[test]
fn peers_and_network_identifiers() {
    let stranger = Ip { source: ip("10.0.0.77"), ..ipip(&inner()) };
    assert_eq!(ipip_world().verdict(&frame(&stranger.bytes())), drop(DropReason::TunPeerUnknown));
    let stranger = Ip { source: ip("10.0.0.77"), ..vxlan(&inner()) };
    assert_eq!(vxlan_world().verdict(&frame(&stranger.bytes())), drop(DropReason::TunPeerUnknown));
    let mut unknown = vxlan(&inner());
    unknown.payload[12] = 9;
    assert_eq!(vxlan_world().verdict(&frame(&unknown.bytes())), drop(DropReason::TunVniUnknown));
    let other = vxlan_world().tunnel(TunnelKind::Vxlan { vni: 0x09_02_03 }, &["10.0.0.77/32"]);
    assert_eq!(other.verdict(&frame(&unknown.bytes())), drop(DropReason::TunPeerUnknown), "a peer of another VNI");
}

#[test]
fn the_inner_packet_is_parsed_like_any_other() {
    let world = ipip_world();
    let mut bytes = inner().bytes();
    bytes[8] ^= 1;
    assert_eq!(world.verdict(&frame(&packet("10.0.0.2", "10.0.0.1", 4, &bytes).bytes())), drop(DropReason::Ip4Csum));
    assert_eq!(
        world.verdict(&frame(&packet("10.0.0.2", "10.0.0.1", 41, &inner().bytes()).bytes())),
        drop(DropReason::Ip6Header)
    );
    // It ends where the outer packet ends, whatever follows on the wire.
    let mut outer = ipip(&inner());
    outer.payload.truncate(39);
    let padded = [outer.bytes(), vec![0; 20]].concat();
    assert_eq!(world.verdict(&frame(&padded)), drop(DropReason::Ip4Short));
}

#[test]
fn congestion_marks() {
    let world = ipip_world();
    let tos = |outer: u8, inner_tos: u8| {
        let inner = inner().tos(inner_tos);
        world.judge(&frame(&ipip(&inner).tos(outer).bytes()))
    };
    assert_eq!(tos(0xb8 | 3, 0).verdict, drop(DropReason::TunEcn));
    for (outer, before, after) in [(3, 1, 3), (3, 2, 3), (3, 3, 3), (2, 0, 0), (1, 2, 2), (0xff, 0x2a, 0x2b)] {
        assert_eq!(tos(outer, before).frame[14..], inner().tos(after).ttl(63).bytes(), "{outer} {before}");
    }
    let inner6 = Ip { flow_label: 0xabcde, ..tcp("2001:db8:f::1", "2001:db8:1::2", (1, 2)) }.tos(0xa2);
    let sent = world.judge(&frame(&ipip(&inner6).tos(3).bytes()));
    assert_eq!(sent.frame[14..], inner6.tos(0xa3).ttl(63).bytes());
}

#[test]
fn the_link_layer_header_and_what_follows_the_packet_stay() {
    let world = ipip_world();
    let local = tcp("192.0.2.1", "10.0.2.1", (1000, 80));
    let outer = [ipip(&local).bytes(), vec![0xee; 3]].concat();
    let judgement = world.judge(&frame_to(HERE, &[100], 0x0800, &outer));
    assert_eq!(judgement.verdict, Verdict::Pass);
    assert_eq!(judgement.frame, frame_to(HERE, &[100], 0x0800, &[local.bytes(), vec![0xee; 3]].concat()));
    let inner6 = tcp("2001:db8:f::1", "2001:db8:1::1", (1000, 80));
    let judgement = world.judge(&frame(&ipip(&inner6).bytes()));
    assert_eq!(judgement.frame, frame(&inner6.bytes()), "the ethertype is the inner one");
}

#[test]
fn a_host_scope_inner_destination_passes() {
    let hello = udp("192.0.2.1", "224.0.0.5", (1, 2));
    let judgement = ipip_world().judge(&frame(&ipip(&hello).bytes()));
    assert_eq!((judgement.verdict, judgement.frame), (Verdict::Pass, frame(&hello.bytes())));
}

#[test]
fn one_level_only() {
    let world = ipip_world();
    let nested = packet("10.0.0.2", "10.0.1.1", 4, &inner().bytes());
    assert_eq!(world.verdict(&frame(&ipip(&nested).bytes())), drop(DropReason::TunNested));
    let for_another = packet("10.0.0.2", "10.0.1.2", 4, &inner().bytes());
    assert_eq!(world.verdict(&frame(&ipip(&for_another).bytes())), Verdict::Redirect(ETH1));
    // VXLAN inside IP in IP, where VXLAN is not decapsulated, is an ordinary packet.
    assert_eq!(world.verdict(&frame(&ipip(&vxlan(&inner())).bytes())), Verdict::Pass);
    let both = world.tunnel(TunnelKind::Vxlan { vni: 7 }, &["10.0.0.9/32"]);
    assert_eq!(both.verdict(&frame(&ipip(&vxlan(&inner())).bytes())), drop(DropReason::TunNested));
}

#[test]
fn denylist_and_policy_see_the_inner_packet() {
    let mut world = ipip_world();
    world.desired.denylist = [(net("192.0.2.0/24"), Denied::SOURCE)].into_iter().collect();
    assert_eq!(world.verdict(&frame(&ipip(&inner()).bytes())), drop(DropReason::Denylist));
    world.desired.denylist = [(net("10.0.0.2/32"), Denied::SOURCE)].into_iter().collect();
    assert_eq!(world.verdict(&frame(&ipip(&inner()).bytes())), Verdict::Redirect(ETH1));
}

#[test]
fn inner_sources_behind_peers() {
    let from = |source: &str| frame(&ipip(&tcp(source, "10.0.1.2", (1000, 80))).bytes());
    let mut world = ipip_world().tunnel(TunnelKind::Ipip, &["10.0.0.2/32"]);
    assert_eq!(world.verdict(&from("203.0.113.9")), Verdict::Redirect(ETH1));
    world.desired.tunnels[1].sources = Some(vec![net("192.0.2.0/24")]);
    assert_eq!(world.verdict(&from("192.0.2.9")), Verdict::Redirect(ETH1));
    assert_eq!(world.verdict(&from("203.0.113.9")), drop(DropReason::TunSource), "the longest peer's");
    world.desired.tunnels[1].sources = Some(vec![net("10.0.0.0/8")]);
    assert_eq!(world.verdict(&from("10.0.1.1")), drop(DropReason::TunReflected), "this node's, listed or not");
}

#[test]
fn nobody_else_sends_from_this_node_or_a_vip() {
    let outside = Ip { source: ip("10.0.0.1"), ..ipip(&inner()) };
    assert_eq!(ipip_world().verdict(&frame(&outside.bytes())), drop(DropReason::TunReflected));
    let from = |source: &str| frame(&ipip(&tcp(source, "10.0.1.2", (1000, 80))).bytes());
    assert_eq!(ipip_world().verdict(&from("10.0.1.1")), drop(DropReason::TunReflected));
    let mut world = ipip_world().service("198.51.100.1", Vec::new());
    assert_eq!(world.verdict(&from("198.51.100.1")), drop(DropReason::TunReflected));
    world.desired.tunnels[0].sources = Some(vec![net("198.51.100.0/24")]);
    assert_eq!(world.verdict(&from("198.51.100.1")), Verdict::Redirect(ETH1));
}

#[test]
fn gue_of_both_variants() {
    let world = world().tunnel(TunnelKind::Gue, &["10.0.0.0/28"]);
    let gue = |header: &[u8], inner: &[u8]| {
        let payload = [&transport((55_555, 6080), 8), header, inner].concat();
        frame(&packet("10.0.0.2", "10.0.0.1", UDP, &payload).bytes())
    };
    let inner = inner().bytes();
    assert_eq!(world.verdict(&gue(&[], &inner)), Verdict::Redirect(ETH1));
    assert_eq!(world.verdict(&gue(&[0, 4, 0, 0], &inner)), Verdict::Redirect(ETH1));
    let refused: [&[u8]; 9] = [
        &[0x20, 4, 0, 0],
        &[1, 4, 0, 0, 0, 0, 0, 0],
        &[0, 4, 0x80, 0],
        &[0, 4, 0, 1],
        &[0, 6, 0, 0],
        &[0x50, 4, 0, 0],
        &[0x80, 4, 0, 0],
        &[0xc0, 4, 0, 0],
        &[0, 0, 0, 0],
    ];
    for header in refused {
        assert_eq!(world.verdict(&gue(header, &inner)), drop(DropReason::TunHeader), "{header:?}");
    }
    for cut in [&[][..], &[0], &[0, 4], &[0, 4, 0]] {
        assert_eq!(world.verdict(&gue(&[], cut)), drop(DropReason::TunHeader), "{cut:?}");
    }
    assert_eq!(world.verdict(&gue(&[0, 41, 0, 0], &inner)), drop(DropReason::Ip6Header), "IPv6 it is not");
}
