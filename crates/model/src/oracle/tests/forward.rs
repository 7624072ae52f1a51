//! Stages 5 and 6.

use super::*;

fn there() -> Ip {
    udp("10.0.0.2", "10.0.1.2", (1000, 2000))
}

#[test]
fn forwarded_with_one_hop_less() {
    let judgement = world().judge(&frame(&there().bytes()));
    assert_eq!(judgement.verdict, Verdict::Redirect(ETH1));
    let mut expected = frame_to(NEIGHBOR, &[], 0x0800, &there().ttl(63).bytes());
    expected[6..12].copy_from_slice(&ETH1_MAC.0);
    assert_eq!(judgement.frame, expected);
    let back = udp("10.0.1.2", "10.0.0.2", (1, 2));
    assert_eq!(world().verdict(&frame(&back.bytes())), Verdict::Tx);
}

#[test]
fn tags_come_and_go() {
    let world = world();
    let tagged = world.judge(&frame_to(HERE, &[100], 0x0800, &there().bytes()));
    assert_eq!(tagged.frame[12..14], [0x08, 0], "eth1 has no tag");
    let onto = world.judge(&frame(&udp("10.0.0.2", "10.0.2.2", (1, 2)).bytes()));
    assert_eq!((onto.verdict, &onto.frame[12..18]), (Verdict::Tx, &[0x81, 0, 0, 100, 0x08, 0][..]));
    let priority = world.judge(&frame_to(HERE, &[0xe000], 0x0800, &udp("10.0.0.3", "10.0.0.2", (1, 2)).bytes()));
    assert_eq!((priority.verdict, &priority.frame[12..14]), (Verdict::Tx, &[0x08, 0][..]));
}

#[test]
fn what_a_route_can_say() {
    let world = world()
        .static_route("203.0.113.0/24", RouteAction::Blackhole)
        .static_route("203.0.113.128/25", RouteAction::Prohibit);
    let verdict = |destination| world.verdict(&frame(&udp("10.0.0.2", destination, (1, 2)).ttl(1).bytes()));
    assert_eq!(verdict("198.51.100.1"), punt(PuntReason::NoRoute));
    assert_eq!(verdict("10.0.1.1"), Verdict::Pass);
    assert_eq!(verdict("203.0.113.1"), drop(DropReason::Blackhole));
    assert_eq!(verdict("203.0.113.129"), punt(PuntReason::Prohibit));
}

#[test]
fn link_local_sources_are_received_and_never_forwarded() {
    let verdict = |destination| world().verdict(&frame(&udp("169.254.0.1", destination, (1, 2)).ttl(1).bytes()));
    assert_eq!(verdict("10.0.0.1"), Verdict::Pass);
    assert_eq!(verdict("10.0.1.2"), drop(DropReason::SrcInvalid));
    assert_eq!(verdict("10.0.1.77"), drop(DropReason::SrcInvalid));
    let from_fe80 = udp("fe80::1", "2001:db8:1::2", (1, 2));
    assert_eq!(world().verdict(&frame(&from_fe80.bytes())), drop(DropReason::SrcInvalid));
}

#[test]
fn ttl_then_mtu_then_neighbor() {
    let mut world = world();
    world.network.neighbors.clear();
    let verdict = |packet: Ip| world.verdict(&frame(&packet.bytes()));
    for ttl in [0, 1] {
        assert_eq!(verdict(there().ttl(ttl).len(1501)), punt(PuntReason::TtlExceeded));
    }
    let glean = world.judge(&frame(&there().len(1501).bytes()));
    assert_eq!(glean.verdict, punt(PuntReason::Neighbor), "a glean next hop has no MTU yet");
    let world = world.via("203.0.113.0/24", &["10.0.1.2"]);
    let far = |len| udp("10.0.0.2", "203.0.113.1", (1, 2)).len(len);
    assert_eq!(world.verdict(&frame(&far(1501).bytes())), drop(DropReason::MtuNoDf));
    let too_big = world.judge(&frame(&far(1501).dont_fragment().bytes()));
    assert_eq!((too_big.verdict, too_big.meta.unwrap().mtu), (punt(PuntReason::PacketTooBig), Some(1500)));
    let unresolved = world.judge(&frame(&far(1500).ttl(2).bytes()));
    assert_eq!(unresolved.verdict, punt(PuntReason::Neighbor));
    assert_eq!(unresolved.frame, frame(&far(1500).ttl(2).bytes()), "as it came");
    let meta = unresolved.meta.unwrap();
    assert_eq!((meta.neighbor, meta.decrement_ttl), (Some((ETH1, ip("10.0.1.2"))), true));
}

#[test]
fn ipv6_is_never_fragmented() {
    let packet = udp("2001:db8::2", "2001:db8:1::2", (1, 2)).len(1501);
    assert_eq!(world().verdict(&frame(&packet.bytes())), punt(PuntReason::PacketTooBig));
}

#[test]
fn unresolved_hosts_are_asked_for_where_they_are() {
    let judgement = world().judge(&frame(&udp("10.0.0.2", "10.0.2.77", (1, 2)).bytes()));
    assert_eq!(judgement.verdict, punt(PuntReason::Neighbor));
    assert_eq!(judgement.meta.unwrap().neighbor, Some((VLAN, ip("10.0.2.77"))));
}

#[test]
fn padding_is_forwarded() {
    let padded = [there().bytes(), vec![0xee; 18]].concat();
    let sent = world().judge(&frame(&padded)).frame;
    assert_eq!(sent[14..], [there().ttl(63).bytes(), vec![0xee; 18]].concat());
}

#[test]
fn without_a_worker_each_punt_has_its_own_end() {
    assert_eq!(punt(PuntReason::Neighbor).without_worker(), Verdict::Pass);
    assert_eq!(punt(PuntReason::NoRoute).without_worker(), drop(DropReason::PuntNoWorker));
    assert_eq!(Verdict::Tx.without_worker(), Verdict::Tx);
}
