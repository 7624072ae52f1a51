//! Stage 1.

use super::*;

/// Ethernet payload of a packet that is forwarded out of eth1 unless its headers are wrong.
fn good() -> Ip {
    tcp("10.0.0.2", "10.0.1.2", (1000, 80))
}

fn good6() -> Ip {
    tcp("2001:db8::2", "2001:db8:1::2", (1000, 80))
}

#[test]
fn ethernet_header_and_tags_cut_off() {
    let world = world();
    for len in 0..14 {
        assert_eq!(world.verdict(&frame(&good().bytes())[..len]), drop(DropReason::EthShort), "{len}");
    }
    let tagged = frame_to(HERE, &[100, 7], 0x0800, &[]);
    for len in 14..22 {
        assert_eq!(world.verdict(&tagged[..len]), drop(DropReason::EthShort), "{len}");
    }
    let judgement = world.judge(&tagged[..14]);
    assert_eq!((judgement.port, judgement.frame.len()), (Some(ETH0), 0));
}

#[test]
fn ports_of_tags() {
    let world = world();
    let port = |tags: &[u16]| world.judge(&frame_to(HERE, tags, 0x0800, &good().bytes()));
    assert_eq!(port(&[]).port, Some(ETH0));
    assert_eq!(port(&[0]).port, Some(ETH0));
    assert_eq!(port(&[0xe000]).port, Some(ETH0), "priority alone");
    assert_eq!(port(&[100]).port, Some(VLAN));
    assert_eq!(port(&[0xf064]).port, Some(VLAN), "priority and drop eligible beside the identifier");
    for tags in [&[101u16][..], &[100, 100], &[0, 100], &[1, 2]] {
        let judgement = port(tags);
        assert_eq!((judgement.port, judgement.verdict), (None, Verdict::Pass), "{tags:?}");
        assert_eq!(judgement.frame, frame_to(HERE, tags, 0x0800, &good().bytes()));
    }
}

#[test]
fn frames_of_no_port_pass_whatever_they_hold() {
    let world = world();
    let oracle = Oracle::new(&world.desired, &world.network, &world.rib);
    for ifindex in [HOST, IfIndex(99)] {
        assert_eq!(oracle.judge(&frame(&[0x45]), ifindex).verdict, Verdict::Pass);
    }
    assert_eq!(oracle.judge(&[0; 13], IfIndex(99)).verdict, drop(DropReason::EthShort));
}

#[test]
fn only_the_ports_own_address_and_groups_are_looked_at() {
    let world = world();
    let broken = [0x45];
    assert_eq!(world.verdict(&frame_to(PEER, &[], 0x0800, &broken)), Verdict::Pass);
    assert_eq!(world.verdict(&frame_to(HERE, &[], 0x0800, &broken)), drop(DropReason::Ip4Short));
    assert_eq!(world.verdict(&frame_to(Mac([0xff; 6]), &[], 0x0800, &broken)), drop(DropReason::Ip4Short));
    assert_eq!(world.verdict(&frame_to(Mac([0xff; 6]), &[], 0x0800, &good().bytes())), Verdict::Pass);
}

#[test]
fn host_scope_destinations_pass() {
    let world = world().via("0.0.0.0/0", &["10.0.1.2"]).via("::/0", &["2001:db8:1::2"]);
    for destination in ["224.0.0.5", "255.255.255.255", "169.254.1.1"] {
        assert_eq!(world.verdict(&frame(&udp("10.0.0.2", destination, (1, 2)).bytes())), Verdict::Pass);
    }
    for destination in ["ff02::1", "fe80::1", "fe80::a0"] {
        assert_eq!(world.verdict(&frame(&udp("2001:db8::2", destination, (1, 2)).bytes())), Verdict::Pass);
    }
    assert_eq!(world.verdict(&frame(&udp("10.0.0.2", "203.0.113.1", (1, 2)).bytes())), Verdict::Redirect(ETH1));
}

#[test]
fn other_ethertypes() {
    let mut world = world();
    let lldp = frame_to(Mac([0x01, 0x80, 0xc2, 0, 0, 0x0e]), &[], 0x88cc, &[0]);
    let beyond = frame_to(Mac([0x01, 0x80, 0xc2, 0, 0, 0x10]), &[], 0x88cc, &[0]);
    let arp = frame_to(HERE, &[], 0x0806, &[0]);
    let other = frame_to(HERE, &[], 0x8847, &[0]);
    for frame in [&lldp, &beyond, &arp, &other] {
        assert_eq!(world.verdict(frame), Verdict::Pass);
    }
    policy::add(&mut world, vec![]);
    assert_eq!(world.verdict(&lldp), Verdict::Pass);
    assert_eq!(world.verdict(&arp), Verdict::Pass);
    assert_eq!(world.verdict(&beyond), drop(DropReason::Ethertype));
    assert_eq!(world.verdict(&other), drop(DropReason::Ethertype));
    assert_eq!(world.verdict(&frame_to(HERE, &[100], 0x8847, &[0])), Verdict::Pass, "no policy on the VLAN port");
}

#[test]
fn ipv4_checks_in_order() {
    let world = world();
    let with = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good().bytes();
        change(&mut bytes);
        world.verdict(&frame_to(HERE, &[], 0x0800, &bytes))
    };
    assert_eq!(with(|b| b.truncate(19)), drop(DropReason::Ip4Short));
    assert_eq!(with(|b| b[0] = 0x55), drop(DropReason::Ip4Header));
    assert_eq!(with(|b| b[0] = 0x44), drop(DropReason::Ip4Header));
    assert_eq!(with(|b| b[0] = 0x4f), drop(DropReason::Ip4Short), "header length beyond the frame");
    assert_eq!(with(|b| b[8] ^= 1), drop(DropReason::Ip4Csum));
    let total_length = |b: &mut Vec<u8>, len: u8| {
        b[3] = len;
        seal(&mut b[..20]);
    };
    let mut bytes = good().bytes();
    total_length(&mut bytes, 19);
    assert_eq!(world.verdict(&frame(&bytes)), drop(DropReason::Ip4Header));
    total_length(&mut bytes, 41);
    assert_eq!(world.verdict(&frame(&bytes)), drop(DropReason::Ip4Short));
    assert_eq!(with(|_| ()), Verdict::Redirect(ETH1));
}

#[test]
fn options_are_parsed_over_and_padding_is_no_packet() {
    let world = world();
    let mut bytes = good().bytes();
    bytes.splice(20..20, [1, 1, 1, 0]);
    bytes[0] = 0x46;
    bytes[3] += 4;
    seal(&mut bytes[..24]);
    bytes.extend([0xee; 2]);
    let sent = world.judge(&frame(&bytes));
    bytes[8] = 63;
    seal(&mut bytes[..24]);
    assert_eq!(sent.frame[14..], bytes);
    // Ports end with the packet, not with the frame.
    let mut short = packet("10.0.0.2", "10.0.1.2", TCP, &[0, 1]).bytes();
    short.extend([0; 24]);
    assert_eq!(world.verdict(&frame(&short)), drop(DropReason::L4Short));
}

#[test]
fn ipv6_checks_in_order() {
    let world = world();
    let with = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good6().bytes();
        change(&mut bytes);
        world.verdict(&frame_to(HERE, &[], 0x86dd, &bytes))
    };
    assert_eq!(with(|b| b.truncate(39)), drop(DropReason::Ip6Short));
    assert_eq!(with(|b| b[0] = 0x45), drop(DropReason::Ip6Header));
    assert_eq!(with(|b| b[5] += 1), drop(DropReason::Ip6Short));
    assert_eq!(with(|b| b.truncate(59)), drop(DropReason::Ip6Short));
    assert_eq!(with(|_| ()), Verdict::Redirect(ETH1));
}

/// A packet with these extension headers, each with its length field, in front of TCP.
fn chain(headers: &[(u8, u8, usize)], last: u8) -> Ip {
    let mut payload = Vec::new();
    for (place, (kind, length, bytes)) in headers.iter().enumerate() {
        let next = headers.get(place + 1).map_or(last, |(kind, ..)| *kind);
        let mut header = vec![next, *length];
        header.resize(*bytes, 0);
        if *kind == 44 {
            header[1] = 0;
            header[2..4].copy_from_slice(&u16::from(*length).to_be_bytes());
        }
        payload.extend(header);
    }
    payload.extend(transport((1000, 80), 20));
    packet("2001:db8::2", "2001:db8:1::2", headers[0].0, &payload)
}

#[test]
fn extension_headers_are_walked() {
    let world = policy_on_port_80();
    let denied = drop(DropReason::PolicyDeny);
    let verdict = |packet: Ip| world.verdict(&frame(&packet.bytes()));
    assert_eq!(verdict(chain(&[(0, 0, 8)], TCP)), denied);
    assert_eq!(verdict(chain(&[(60, 2, 24)], TCP)), denied);
    assert_eq!(verdict(chain(&[(51, 4, 24)], TCP)), denied, "AH counts in words of four bytes");
    assert_eq!(verdict(chain(&[(44, 0, 8)], TCP)), denied, "an atomic fragment is a whole packet");
    assert_eq!(verdict(chain(&[(44, 1, 8)], TCP)), denied, "the first fragment shows its ports");
    assert_eq!(verdict(chain(&[(44, 8, 8)], TCP)), Verdict::Redirect(ETH1), "later ones do not");
    assert_eq!(verdict(chain(&[(44, 8, 8)], 60)), Verdict::Redirect(ETH1), "nothing is walked behind them");
    assert_eq!(verdict(chain(&[(0, 0, 8)], 59)), Verdict::Redirect(ETH1), "no next header");
    assert_eq!(verdict(chain(&[(0, 0, 8), (43, 0, 8), (60, 0, 8), (51, 0, 8), (60, 0, 8), (60, 0, 8)], TCP)), denied);
}

#[test]
fn a_seventh_extension_header_is_too_many() {
    let world = world();
    let six = [(60, 0, 8); 6];
    assert_eq!(world.verdict(&frame(&chain(&six, 60).bytes())), drop(DropReason::Ip6ExthdrLimit));
    let mut nothing_behind = chain(&six, 60);
    nothing_behind.payload.truncate(48);
    assert_eq!(world.verdict(&frame(&nothing_behind.bytes())), drop(DropReason::Ip6ExthdrLimit));
}

#[test]
fn extension_headers_cut_off() {
    let world = world();
    for len in [0, 7, 15] {
        let mut packet = chain(&[(60, 1, 16)], TCP);
        packet.payload.truncate(len);
        assert_eq!(world.verdict(&frame(&packet.bytes())), drop(DropReason::Ip6Short), "{len}");
    }
    // The header ends with the packet, not with the frame.
    let mut packet = chain(&[(60, 1, 16)], TCP);
    packet.payload.truncate(15);
    let padded = [packet.bytes(), vec![0; 30]].concat();
    assert_eq!(world.verdict(&frame(&padded)), drop(DropReason::Ip6Short));
}

#[test]
fn addresses_that_no_packet_may_have() {
    let world = world().via("0.0.0.0/0", &["10.0.1.2"]).via("::/0", &["2001:db8:1::2"]);
    let verdict = |source, destination| world.verdict(&frame(&udp(source, destination, (1, 2)).bytes()));
    for source in ["224.0.0.1", "239.255.255.255", "127.0.0.1", "127.255.0.1", "255.255.255.255", "0.0.0.0"] {
        assert_eq!(verdict(source, "10.0.1.2"), drop(DropReason::SrcInvalid), "{source}");
    }
    for source in ["ff02::1", "::1", "::", "::ffff:10.0.0.2"] {
        assert_eq!(verdict(source, "2001:db8:1::2"), drop(DropReason::SrcInvalid), "{source}");
    }
    for destination in ["127.0.0.1", "0.0.0.0", "0.1.2.3"] {
        assert_eq!(verdict("10.0.0.2", destination), drop(DropReason::DstInvalid), "{destination}");
        assert_eq!(verdict("127.0.0.1", destination), drop(DropReason::SrcInvalid), "source first");
    }
    for destination in ["::1", "::", "::ffff:10.0.1.2"] {
        assert_eq!(verdict("2001:db8::2", destination), drop(DropReason::DstInvalid), "{destination}");
    }
    assert_eq!(verdict("0.0.0.0", "255.255.255.255"), Verdict::Pass);
    assert_eq!(verdict("0.0.0.0", "224.0.0.1"), Verdict::Pass);
    assert_eq!(verdict("::", "ff02::1:ff00:1"), Verdict::Pass);
    assert_eq!(verdict("240.0.0.1", "10.0.1.2"), Verdict::Redirect(ETH1));
}

#[test]
fn transport_headers_cut_off() {
    let world = world();
    for protocol in [TCP, UDP, protocol::SCTP, protocol::ICMP] {
        let packet = packet("10.0.0.2", "10.0.1.2", protocol, &[0; 3]);
        assert_eq!(world.verdict(&frame(&packet.bytes())), drop(DropReason::L4Short));
        assert_eq!(world.verdict(&frame(&packet.clone().fragment(0x2000).bytes())), drop(DropReason::L4Short));
        assert_eq!(world.verdict(&frame(&packet.fragment(1).bytes())), Verdict::Redirect(ETH1));
    }
    for other in [protocol::ICMPV6, protocol::UDPLITE, 59] {
        assert_eq!(world.verdict(&frame(&packet("10.0.0.2", "10.0.1.2", other, &[]).bytes())), Verdict::Redirect(ETH1));
    }
    let icmpv6 = packet("2001:db8::2", "2001:db8:1::2", protocol::ICMPV6, &[128, 0, 0]);
    assert_eq!(world.verdict(&frame(&icmpv6.bytes())), drop(DropReason::L4Short));
    let icmp = packet("2001:db8::2", "2001:db8:1::2", protocol::ICMP, &[]);
    assert_eq!(world.verdict(&frame(&icmp.bytes())), Verdict::Redirect(ETH1));
}

/// Denies TCP to port 80 on eth0.
fn policy_on_port_80() -> World {
    let mut world = world();
    let mut rule = policy::deny();
    rule.protocol = Some(TCP);
    rule.destination.ports = vec![desired::PortRange { first: 80, last: 80 }];
    policy::add(&mut world, vec![rule]);
    world
}
