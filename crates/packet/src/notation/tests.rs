use super::*;
use crate::layer::*;
use crate::proto;
use proptest::prelude::*;

#[track_caller]
fn hex(text: &str) -> String {
    encode(text).unwrap_or_else(|e| panic!("{text}: {e}")).iter().map(|b| format!("{b:02x}")).collect()
}

/// Canonical texts: decoding what they encode to prints them again.
#[test]
fn canonical_texts_come_back() {
    let eth = "eth 02:00:00:00:00:01 > 02:00:00:00:00:02";
    for rest in [
        "ip4 192.0.2.1 > 10.200.1.1 / tcp 31337 > 80 S seq=1 / data 16",
        "vlan 100 / ip4 192.0.2.1 > 10.200.1.1 ttl=1 tos=3 id=7 df / tcp 31337 > 80 SA seq=1 ack=2 win=5 urg=1 opts=020405b4",
        "vlan 5 pcp=7 dei tpid=0x88a8 / vlan 6 / ip6 2001:db8::1 > 2001:db8::2 hlim=1 tc=2 flow=3 / udp 1 > 2 / hex ff",
        "ip4 192.0.2.1 > 10.200.1.1 opts=01010101 / udp 1 > 2 csum=0x0000 / pad 14",
        "ip4 192.0.2.1 > 10.200.1.1 id=9 mf / udp 1 > 2 len=1480 csum=0xbeef / data 16",
        "ip4 192.0.2.1 > 10.200.1.1 id=9 frag=1480 proto=udp / data 16 / pad hex 00ff",
        "ip4 192.0.2.1 > 10.200.1.1 len=100 csum=0x0001 ihl=4 ver=5 / sctp 7 > 8 tag=5 / data 4",
        "ip6 2001:db8::1 > 2001:db8::2 / hbh / routing / dstopts body=010c000000000000000000000000 / frag id=1 more / ah spi=1 seq=2 / tcp 1 > 2 R",
        "ip6 2001:db8::1 > 2001:db8::2 / frag id=1 off=8 proto=tcp / data 8",
        "ip6 2001:db8::1 > 2001:db8::2",
        "ip4 10.0.0.1 > 10.0.0.2 / icmp echo id=1 seq=2 / data 8",
        "ip4 10.0.0.1 > 10.0.0.2 / icmp unreachable code=4 mtu=1480 / ip4 10.0.0.2 > 10.9.0.1 df len=1500 / udp 1 > 2 len=1480 csum=0x1111 / data 8",
        "ip4 10.0.0.1 > 10.0.0.2 / icmp ttl-exceeded / ip4 10.0.0.2 > 10.9.0.1 ttl=1 / icmp echo id=1 seq=1",
        "ip4 10.0.0.1 > 10.0.0.2 / icmp type=13 code=1 rest=0x00010002 csum=0x0bad",
        "ip6 fe80::1 > ff02::1:ff00:2 hlim=255 / icmp6 neighbor-solicit fe80::2 sll=02:00:00:00:00:01",
        "ip6 fe80::1 > fe80::2 hlim=255 / icmp6 neighbor-advert fe80::2 SR tll=02:00:00:00:00:01",
        "ip6 fe80::1 > fe80::2 / icmp6 packet-too-big mtu=1280 / ip6 fe80::2 > fe80::1 / tcp 1 > 2 A",
        "ip4 10.0.0.1 > 10.0.0.2 / ip6 fe80::1 > fe80::2 / ip4 10.0.0.3 > 10.0.0.4 / tcp 1 > 2 bits=0x910 off=7",
        "ip6 2001:db8::1 > 2001:db8::2 / udp 49152 > 4789 csum=0x0000 / vxlan vni=4096 / eth 02:00:00:00:00:03 > 02:00:00:00:00:04 / ip4 10.0.0.1 > 10.0.0.2 / tcp 1 > 2 S",
        "ip4 10.0.0.1 > 10.0.0.2 / sctp 7 > 8 tag=5 / sctp-data tsn=9 ppid=46 / data 8",
        "ip4 10.0.0.1 > 10.0.0.2 / sctp 7 > 8 / sctp-data flags=0 sid=1 ssn=2 len=19 / data 4",
        "ip4 10.0.0.1 > 10.0.0.2 / gre / ip4 10.0.0.3 > 10.0.0.4 / udp 1 > 2",
        "ip6 fd00::1 > fd00::2 / gre key=7 seq=8 sum / ip6 fd00::3 > fd00::4 / tcp 1 > 2 S",
        "ip4 10.0.0.1 > 10.0.0.2 / gre key=0 csum=0x0bad / eth 02:00:00:00:00:03 > 02:00:00:00:00:04 / vlan 5 / ip4 10.0.0.3 > 10.0.0.4",
        "ip4 10.0.0.1 > 10.0.0.2 / gre type=0x88be / hex ff",
        "ip4 10.0.0.1 > 10.0.0.2 / udp 5 > 6080 / gue / ip4 10.0.0.3 > 10.0.0.4 / udp 1 > 2",
        "ip4 10.0.0.1 > 10.0.0.2 / udp 5 > 6080 / gue flags=1 opts=00000001 / ip6 fd00::3 > fd00::4 / icmp6 echo",
        "ip4 10.0.0.1 > 10.0.0.2 / udp 5 > 6080 csum=0x0000 / gue control proto=icmp / hex ff",
        "ip6 fd00::1 > fd00::2 / udp 5 > 6080 / ip4 10.0.0.3 > 10.0.0.4 / tcp 1 > 2 A",
        "ip4 10.0.0.1 > 10.0.0.2 / udp 5 > 6080 / ip6 fd00::3 > fd00::4 / udp 1 > 2",
        "ip4 10.0.0.1 > 10.0.0.2 / udp 5 > 6081 / geneve vni=9 opts=0102800100000000 / eth 02:00:00:00:00:03 > 02:00:00:00:00:04 / ip6 fd00::3 > fd00::4 / udp 1 > 2",
        "ip6 fd00::1 > fd00::2 / udp 5 > 6081 / geneve vni=9 flags=64 res=3 / ip4 10.0.0.3 > 10.0.0.4 / tcp 1 > 2 S",
        "ip4 10.0.0.1 > 10.0.0.2 / udp 5 > 443 / quic long bits=32 version=0 dcid=0102030405060708 scid=09 / hex ff",
        "ip6 fd00::1 > fd00::2 / udp 5 > 443 / quic short bits=1 dcid=0102030405060708 / hex ff",
        "arp who-has 10.0.0.1 tell 10.0.0.2",
        "arp reply 10.0.0.1 to 10.0.0.2 tha=02:00:00:00:00:09",
        "data 46",
    ] {
        let text = format!("{eth} / {rest}");
        let bytes = encode(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(decode(&bytes), text);
    }
}

#[test]
fn bytes_are_those_of_the_standards() {
    // A DNS packet's header with its known checksum 0xb861.
    assert_eq!(
        hex("ip4 192.168.0.1 > 192.168.0.199 proto=udp len=0x73 df"),
        "45000073000040004011b861c0a80001c0a800c7"
    );
    assert_eq!(
        hex("eth 02::1 > 02::a:2 / vlan 100 / arp who-has 10.0.0.1 tell 10.0.0.2"),
        concat!(
            "020000000a02020000000001",
            "81000064",
            "0806",
            "0001080006040001",
            "020000000001",
            "0a000002",
            "000000000000",
            "0a000001"
        )
    );
    assert_eq!(hex("vxlan vni=0x123456"), "0800000012345600");
    // GRE with checksum, key and sequence number: RFC 2784 §2.1, RFC 2890 §2.
    assert_eq!(hex("gre key=0x01020304 seq=5 sum / hex ff"), "b00088b5c43d00000102030400000005ff");
    assert_eq!(&hex("gue flags=0x8000 opts=0a0b0c0d / ip4 1.1.1.1 > 2.2.2.2")[..16], "010480000a0b0c0d");
    assert_eq!(hex("geneve vni=0x123456 opts=01020304"), "010088b51234560001020304");
    // RFC 3720 appendix B.4: the CRC32c of 32 zero bytes is written aa 36 91 8a.
    assert_eq!(
        hex(&format!("sctp 0 > 0 / hex {}", "00".repeat(20))),
        format!("{}aa36918a{}", "00".repeat(8), "00".repeat(20))
    );
}

#[test]
fn short_ethernet_addresses() {
    for (short, full) in [
        ("02::1", "02:00:00:00:00:01"),
        ("::", "00:00:00:00:00:00"),
        ("2:0::", "02:00:00:00:00:00"),
        ("1:2:3:4:5:6", "01:02:03:04:05:06"),
        ("1:2:3:4:5::", "01:02:03:04:05:00"),
    ] {
        let text = decode(&encode(&format!("eth {short} > ff::1 / data 1")).unwrap());
        assert_eq!(text, format!("eth {full} > ff:00:00:00:00:01 / data 1"));
    }
}

#[test]
fn errors_name_the_layer_the_token_and_the_fix() {
    for (text, expected) in [
        ("", "layer 1 is empty"),
        ("eth 02::1 > 02::2 / / data 1", "layer 2 is empty"),
        ("eth 02::1 > 02::2 / ipv4 1.1.1.1 > 2.2.2.2", "layer 2: 'ipv4' is no layer (use eth, vlan"),
        ("eth 02::1 02::2", "layer 1 (eth): '02::2' should have '>' in its place"),
        ("eth 02::1 >", "layer 1 (eth): what follows > is missing (write eth SRC > DST"),
        ("eth 02::1 > 2::3::4", "layer 1 (eth): '2::3::4' should have an Ethernet address"),
        ("ip4 1.1.1.1 > 2.2.2.2 ttl=256", "layer 1 (ip4): 'ttl=256' should have a number from 0 to 255"),
        ("ip4 1.1.1.1 > 2.2.2.2 hlim=2", "layer 1 (ip4): 'hlim=2' is no field of it or said twice (write ip4 SRC"),
        ("ip4 1.1.1.1 > 2.2.2.2 df df", "'df' is no field of it or said twice"),
        (
            "ip4 1.1.1.1 > 2.2.2.2 frag=7",
            "layer 1 (ip4): frag has 7 bytes, but must have an offset that is a multiple of 8",
        ),
        ("ip4 1.1.1.1 > 2.2.2.2 opts=01", "layer 1 (ip4): opts has 1 bytes, but must have a multiple of 4"),
        ("ip4 1.1.1.1 > 2.2.2.2 proto=gre", "'proto=gre' should have tcp, udp"),
        (
            "ip6 ::1 > ::2 / frag off=4",
            "layer 2 (frag): 'off=4' should have an offset in bytes that is a multiple of 8",
        ),
        ("tcp 1 > 2 S", "layer 1 (tcp): its checksum needs an ip4 or ip6 layer in front"),
        ("ip4 1.1.1.1 > 2.2.2.2 / icmp6 echo", "layer 2 (icmp6): its checksum needs an ip6 layer in front"),
        ("ip4 1.1.1.1 > 2.2.2.2 / data 65535", "layer 1 (ip4): 65555 bytes do not fit its length field"),
        ("pad 4 / data 1", "layer 1 (pad): padding lies beyond every length"),
        ("quic fast", "layer 1 (quic): 'fast' should have long or short"),
        ("quic long dcid=000102030405060708090a0b0c0d0e0f1011121314", "dcid has 21 bytes, but must have at most 20"),
        ("geneve opts=01", "layer 1 (geneve): vni= is missing"),
        ("gue opts=01", "layer 1 (gue): opts has 1 bytes, but must have a multiple of 4"),
        ("gre key=x", "layer 1 (gre): 'key=x' should have a number"),
        ("icmp ping", "layer 1 (icmp): 'ping' should have echo, echo-reply"),
        ("icmp6 packet-too-big", "layer 1 (icmp6): mtu= is missing"),
        ("vxlan", "layer 1 (vxlan): vni= is missing"),
        ("hex 0g", "layer 1 (hex): '0g' should have pairs of hexadecimal digits"),
        ("data x", "layer 1 (data): 'x' should have a number of bytes"),
        ("udp 1 > 65536", "layer 1 (udp): '65536' should have a port from 0 to 65535"),
    ] {
        let error = encode(text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn wrong_checksums_show() {
    for (text, at) in [
        ("eth 02::1 > 02::2 / ip4 10.0.0.1 > 10.0.0.2 / tcp 1 > 2 S", 24),
        ("eth 02::1 > 02::2 / ip4 10.0.0.1 > 10.0.0.2 / tcp 1 > 2 S", 50),
        ("eth 02::1 > 02::2 / ip6 fe80::1 > fe80::2 / icmp6 echo", 56),
        ("eth 02::1 > 02::2 / ip6 fe80::1 > fe80::2 / sctp 1 > 2", 62),
    ] {
        let mut bytes = encode(text).unwrap();
        assert!(!decode(&bytes).contains("csum="), "{}", decode(&bytes));
        bytes[at] ^= 1;
        assert_eq!(decode(&bytes).matches("csum=").count(), 1, "{}", decode(&bytes));
    }
}

/// Frames built here and taken apart by an independent parser.
#[test]
fn etherparse_agrees() {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    for (l3, v6) in [
        ("ip4 192.0.2.1 > 198.51.100.7 ttl=9 id=77 df opts=01010101", false),
        ("ip6 2001:db8::1 > 2001:db8::7 hlim=9 / hbh / dstopts", true),
    ] {
        for (l4, data) in [("tcp 1 > 2 SA seq=5 ack=6 win=7 opts=020405b4", 33), ("udp 1 > 2", 7), ("udp 1 > 2", 0)] {
            let bytes = encode(&format!("eth 02::1 > 02::2 / vlan 9 / {l3} / {l4} / data {data} / pad 3")).unwrap();
            let sliced = SlicedPacket::from_ethernet(&bytes).unwrap();
            assert_eq!(sliced.vlan_ids().first().unwrap().value(), 9);
            match (&sliced.net, &sliced.transport) {
                (Some(NetSlice::Ipv4(ip)), Some(transport)) if !v6 => {
                    let header = ip.header().to_header();
                    assert_eq!((header.time_to_live, header.identification, header.dont_fragment), (9, 77, true));
                    assert_eq!(header.header_checksum, header.calc_header_checksum());
                    check_transport(
                        transport,
                        |udp, payload| udp.calc_checksum_ipv4(&header, payload).unwrap(),
                        |tcp, payload| tcp.calc_checksum_ipv4(&header, payload).unwrap(),
                        data,
                    );
                }
                (Some(NetSlice::Ipv6(ip)), Some(transport)) if v6 => {
                    let header = ip.header().to_header();
                    assert_eq!(header.hop_limit, 9);
                    check_transport(
                        transport,
                        |udp, payload| udp.calc_checksum_ipv6(&header, payload).unwrap(),
                        |tcp, payload| tcp.calc_checksum_ipv6(&header, payload).unwrap(),
                        data,
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn check_transport(
        transport: &TransportSlice,
        udp_sum: impl Fn(&etherparse::UdpHeader, &[u8]) -> u16,
        tcp_sum: impl Fn(&etherparse::TcpHeader, &[u8]) -> u16,
        data: usize,
    ) {
        match transport {
            TransportSlice::Udp(udp) => {
                assert_eq!(udp.payload().len(), data);
                assert_eq!(udp.checksum(), udp_sum(&udp.to_header(), udp.payload()));
            }
            TransportSlice::Tcp(tcp) => {
                assert!(tcp.syn() && tcp.ack() && !tcp.fin() && !tcp.rst());
                assert_eq!(tcp.payload().len(), data);
                assert_eq!(tcp.checksum(), tcp_sum(&tcp.to_header(), tcp.payload()));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn icmp_agrees_with_etherparse() {
    use etherparse::{Icmpv4Type, Icmpv6Type, SlicedPacket, TransportSlice};
    let bytes = encode("eth 02::1 > 02::2 / ip4 10.0.0.1 > 10.0.0.2 / icmp unreachable code=4 mtu=1400 / ip4 10.0.0.2 > 10.0.0.3 / udp 1 > 2").unwrap();
    let Some(TransportSlice::Icmpv4(icmp)) = SlicedPacket::from_ethernet(&bytes).unwrap().transport else { panic!() };
    assert_eq!(
        icmp.icmp_type(),
        Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded {
            next_hop_mtu: 1400
        })
    );
    assert_eq!(icmp.icmp_type().calc_checksum(icmp.payload()), icmp.checksum());
    let bytes = encode("eth 02::1 > 02::2 / ip6 fe80::1 > fe80::2 / icmp6 packet-too-big mtu=1400 / data 9").unwrap();
    let Some(TransportSlice::Icmpv6(icmp)) = SlicedPacket::from_ethernet(&bytes).unwrap().transport else { panic!() };
    assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: 1400 });
    let ends = ["fe80::1", "fe80::2"].map(|a| a.parse::<std::net::Ipv6Addr>().unwrap().octets());
    assert!(icmp.is_checksum_valid(ends[0], ends[1]));
}

fn override_of(max: u32) -> impl Strategy<Value = Override> {
    prop_oneof![4 => Just(None), 1 => (0..=max).prop_map(Some)]
}

fn transport() -> impl Strategy<Value = Layer> {
    prop_oneof![
        (
            any::<(u16, u16, u32, u32)>(),
            0..0x1000u16,
            any::<(u16, u16)>(),
            0..10usize,
            override_of(15),
            override_of(0xffff)
        )
            .prop_map(|((sport, dport, seq, ack), flags, (win, urg), words, off, csum)| Layer::Tcp(Tcp {
                sport,
                dport,
                seq,
                ack,
                flags,
                win,
                urg,
                opts: vec![1; words * 4],
                off,
                csum
            })),
        (any::<(u16, u16)>(), override_of(0xffff), override_of(0xffff))
            .prop_map(|((sport, dport), len, csum)| Layer::Udp(Udp { sport, dport, len, csum })),
        (any::<(u16, u16, u32)>(), override_of(u32::MAX)).prop_map(|((sport, dport, tag), csum)| Layer::Sctp(Sctp {
            sport,
            dport,
            tag,
            csum
        })),
    ]
}

fn network() -> impl Strategy<Value = Vec<Layer>> {
    let v4 = (any::<(u32, u32, u8, u8, u16)>(), any::<(bool, bool, bool)>(), 0..11usize, any::<[Option<u8>; 2]>())
        .prop_map(|((src, dst, ttl, tos, id), (rf, df, mf), words, [ihl, ver])| {
            vec![Layer::Ip4(Ip4 {
                ttl,
                tos,
                id,
                rf,
                df,
                mf,
                opts: vec![1; words * 4],
                ihl: ihl.filter(|ihl| *ihl < 16).map(u32::from),
                ver: ver.filter(|ver| *ver < 16).map(u32::from),
                ..Ip4::new(src.into(), dst.into())
            })]
        });
    let v6 = (any::<(u128, u128, u8, u8)>(), 0..0x10_0000u32, any::<[bool; 4]>(), any::<(u32, u16, bool)>()).prop_map(
        |((src, dst, hlim, tc), flow, [hbh, routing, frag, ah], (id, off, more))| {
            let ext =
                |kind: ExtKind| Layer::Ext(Ext { kind, body: kind.default_body().to_vec(), next: None, len: None });
            let mut layers = vec![Layer::Ip6(Ip6 { hlim, tc, flow, ..Ip6::new(src.into(), dst.into()) })];
            layers.extend(hbh.then(|| ext(ExtKind::HopByHop)));
            layers.extend(routing.then(|| ext(ExtKind::Routing)));
            layers.extend(ah.then(|| Layer::Ah(Ah { spi: id, icv: vec![7; 16], ..Ah::default() })));
            layers.extend(frag.then_some(Layer::Frag(Frag { id, off: off & 0x18, more, next: None })));
            layers
        },
    );
    prop_oneof![v4, v6]
}

/// What may stand between two IP headers.
fn tunnel() -> impl Strategy<Value = Vec<Layer>> {
    let udp = |dport: u16| Layer::Udp(Udp { sport: 9, dport, ..Udp::default() });
    let eth = || Layer::Eth(Eth { src: [2; 6], dst: [4; 6], ethertype: None });
    let words = |most: usize| {
        proptest::collection::vec(any::<u8>(), 0..most).prop_map(|mut b| {
            b.truncate(b.len() & !3);
            b
        })
    };
    prop_oneof![
        Just(Vec::new()),
        (any::<[Option<u32>; 2]>(), any::<bool>(), override_of(0xffff), any::<bool>()).prop_map(
            move |([key, seq], sum, csum, framed)| {
                let gre = Gre { key, seq, sum, ethertype: None, csum: csum.filter(|_| sum) };
                std::iter::once(Layer::Gre(gre)).chain(framed.then(eth)).collect()
            }
        ),
        (any::<u16>(), words(124)).prop_map(move |(flags, opts)| {
            vec![udp(proto::GUE_PORT), Layer::Gue(Gue { control: false, flags, opts, proto: None })]
        }),
        Just(vec![udp(proto::GUE_PORT)]),
        (0..0x100_0000u32, any::<u8>(), words(252), override_of(255), any::<bool>()).prop_map(
            move |(vni, flags, opts, res, framed)| {
                let geneve = Layer::Geneve(Geneve { vni, flags, opts, ethertype: None, res });
                [udp(proto::GENEVE_PORT), geneve].into_iter().chain(framed.then(eth)).collect()
            }
        ),
        (0..0x100_0000u32).prop_map(move |vni| {
            vec![udp(proto::VXLAN_PORT), Layer::Vxlan(Vxlan { vni, ..Vxlan::default() }), eth()]
        }),
    ]
}

/// What may stand behind a transport header of its kind.
fn application() -> impl Strategy<Value = Vec<Layer>> {
    let cid = || proptest::collection::vec(any::<u8>(), 0..=20);
    prop_oneof![
        3 => Just(Vec::new()),
        1 => (any::<(u8, u32, u16, u16, u32)>(), override_of(0xffff)).prop_map(|((flags, tsn, sid, ssn, ppid), len)| vec![
            Layer::Sctp(Sctp::default()), Layer::SctpData(SctpData { flags, tsn, sid, ssn, ppid, len })
        ]),
        1 => (0..64u8, any::<u32>(), cid(), cid()).prop_map(|(bits, version, dcid, scid)| vec![
            Layer::Udp(Udp { dport: proto::QUIC_PORT, ..Udp::default() }), Layer::Quic(Quic::Long { bits, version, dcid, scid })
        ]),
        1 => (0..64u8, cid()).prop_map(|(bits, dcid)| vec![
            Layer::Udp(Udp { dport: proto::QUIC_PORT, ..Udp::default() }), Layer::Quic(Quic::Short { bits, dcid })
        ]),
    ]
}

prop_compose! {
    /// Every combination of headers that the builder writes, well-formed or not.
    fn layers()(
        macs: (Mac, Mac), tags in proptest::collection::vec((0..0x1000u16, 0..8u8, any::<bool>()), 0..3),
        outer in network(), inner in proptest::option::of((tunnel(), network())), l4 in transport(), app in application(), data in 0..64usize, pad in 0..20usize,
    ) -> Vec<Layer> {
        let mut layers = vec![Layer::Eth(Eth { src: macs.0, dst: macs.1, ethertype: None })];
        layers.extend(tags.into_iter().map(|(id, pcp, dei)| Layer::Vlan(Vlan { id, pcp, dei, ..Vlan::default() })));
        layers.extend(outer);
        layers.extend(inner.into_iter().flat_map(|(tunnel, inner)| tunnel.into_iter().chain(inner)));
        if app.is_empty() { layers.push(l4) } else { layers.extend(app) }
        layers.extend([Layer::Data(data), Layer::Pad(vec![0; pad])]);
        layers
    }
}

proptest! {
    #[test]
    fn text_of_layers_encodes_to_their_bytes(layers in layers()) {
        prop_assert_eq!(encode(&print(&layers)), Ok(build::frame(&layers).unwrap()));
    }

    #[test]
    fn decoding_loses_nothing(layers in layers(), flip in proptest::option::of((any::<usize>(), any::<u8>())), cut in any::<usize>()) {
        let mut bytes = build::frame(&layers).unwrap();
        if let Some((at, value)) = flip {
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(cut % (bytes.len() * 4));
        }
        let text = decode(&bytes);
        prop_assert_eq!(encode(&text), Ok(bytes), "{}", text);
        // Whole frames are never given up to hexadecimal.
        prop_assert!(flip.is_some() || text.starts_with("eth "), "{}", text);
    }

    #[test]
    fn garbage_is_printed_without_loss(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(encode(&decode(&bytes)), Ok(bytes));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[ -~]{0,80}") {
        let _ = encode(&text);
    }
}

/// Every example of the page is a frame, and every layer is on the page.
#[test]
fn the_page_is_true() {
    let page = include_str!("../../../../docs/packet-notation.md");
    let mut checked = 0;
    for block in page.split("```").skip(1).step_by(2) {
        for line in block.lines().filter(|line| line.starts_with("eth ")) {
            let frame = encode(line).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert_eq!(encode(&decode(&frame)), Ok(frame), "{line}");
            checked += 1;
        }
    }
    assert!(checked >= 15, "{checked}");
    for usage in USAGE {
        let name = usage.split(' ').next().unwrap();
        assert!(page.contains(&format!("`{name}")), "{name}");
    }
}
