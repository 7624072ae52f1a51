use super::*;
use crate::receive::judge::{Arrival, Judge, Reference as _};
use crate::scenario::{Each, Order, Scenario, Sizes, Stream, Vary};
use crate::source::Source as _;
use crate::stamp::STAMP_LEN;
use packet::notation;
use proptest::prelude::*;

const ETH: &str = "eth 02::1 > 02::2";
const MAGIC: u32 = 0xfeed_beef;

fn stream(rest: &str) -> Stream {
    Stream::new("test", notation::parse(&format!("{ETH} / {rest}")).unwrap())
}

fn scenario(streams: Vec<Stream>) -> Scenario {
    Scenario { seed: 42, streams }
}

fn plan(stream: Stream) -> Plan {
    Plan::new(&scenario(vec![stream]), MAGIC).unwrap()
}

fn frame(plan: &Plan, flow: u32, seq: u32) -> Vec<u8> {
    let mut out = vec![0xee; plan.longest()];
    let written = plan.write(flow, seq, 0x0102_0304, &mut out);
    out.truncate(written.len);
    out
}

fn text(plan: &Plan, flow: u32, seq: u32) -> String {
    notation::decode(&frame(plan, flow, seq))
}

fn vary(field: &str, count: u32) -> Vary {
    Vary { field: field.to_owned(), count, step: 1, order: Order::Sequential, each: Each::Flow }
}

#[track_caller]
fn fault(stream: Stream) -> String {
    Plan::new(&scenario(vec![stream]), MAGIC).unwrap_err().to_string()
}

#[test]
fn frames_are_what_the_notation_calls_them() {
    let eth = "eth 02:00:00:00:00:01 > 02:00:00:00:00:02";
    let udp = plan(Stream { flows: 1 << 20, ..stream("ip4 198.18.0.1 > 198.19.0.1 df / udp 65000 > 9") });
    let start =
        format!("{eth} / ip4 198.18.0.2 > 198.19.0.1 df / udp 65001 > 9 / hex feedbeef020002190000000301020304");
    assert!(text(&udp, 537, 3).starts_with(&start), "{}", text(&udp, 537, 3));
    assert_eq!(udp.longest(), 60);

    let syn = plan(Stream { flows: 9, ..stream("ip6 2001:2::1 > 2001:2:0:1::1 / tcp 1024 > 80 S opts=020405b4") });
    let start = format!(
        "{eth} / ip6 2001:2::1 > 2001:2:0:1::1 / tcp 1028 > 80 S opts=020405b4fe14feedbeef020000040000000001020304"
    );
    assert!(text(&syn, 4, 0).starts_with(&start), "{}", text(&syn, 4, 0));
    assert_eq!(syn.longest(), 14 + 40 + 20 + 24);
    let shape = syn.shape(4, 0).unwrap();
    assert_eq!((shape.end, shape.l3, shape.l4, shape.payload, shape.v6), (98, 14, 54, 98, true));

    let vxlan = "vlan 7 / ip4 10.0.0.1 > 10.0.0.2 / udp 5 > 4789 / vxlan vni=7 / eth 02::3 > 02::4 / ip6 fd00::1 > fd00::2 / udp 7 > 8";
    let vxlan = plan(Stream { flows: 3, ..stream(vxlan) });
    let found = text(&vxlan, 2, 0);
    assert!(found.contains("udp 5 > 4789 / vxlan vni=7") && found.contains("udp 9 > 8 / hex"), "{found}");
    let shape = vxlan.shape(0, 0).unwrap();
    assert_eq!((shape.l3, shape.l4, shape.payload, shape.end), (68, 108, 116, 134));
}

#[test]
fn sizes_go_round() {
    let parts = vec![(60, 2), (61, 1)];
    let plan = plan(Stream {
        sizes: Sizes::Mix { parts, raise: false },
        flows: 4,
        ..stream("ip4 1.1.1.1 > 2.2.2.2 / udp 1 > 2")
    });
    let lens: Vec<usize> = (0..6).map(|seq| frame(&plan, 0, seq).len()).collect();
    assert_eq!(lens, [60, 61, 60, 60, 61, 60]);
    assert_eq!(frame(&plan, 1, 0).len(), 61);
}

#[test]
fn what_cannot_be_sent_says_why() {
    let udp = || stream("ip4 1.1.1.1 > 2.2.2.2 / udp 1 > 2");
    for (stream, expected) in [
        (Stream { sizes: Sizes::one(59), ..udp() }, "size 59: these frames have 60 to 9022 bytes"),
        (Stream { sizes: Sizes::one(9023), ..udp() }, "size 9023: these frames"),
        (Stream { sizes: Sizes::one(79), ..stream("ip6 ::1 > ::2 / udp 1 > 2") }, "size 79: these frames have 80 to"),
        (Stream { sizes: Sizes::one(101), ..stream("ip4 1.1.1.1 > 2.2.2.2 / sctp 1 > 2") }, "the nearest size is 102"),
        (Stream { sizes: Sizes::Mix { parts: vec![], raise: false }, ..udp() }, "give at least one size"),
        (Stream { flows: 0, ..udp() }, "give 1 to 16777216"),
        (Stream { flows: (1 << 24) + 1, ..udp() }, "16777217 flows"),
        (Stream { order: Order::Zipf(-1.0), ..udp() }, "zipf -1"),
        (stream("arp who-has 1.1.1.1 tell 2.2.2.2"), "this frame has none"),
        (stream("ip4 1.1.1.1 > 2.2.2.2 len=200 / udp 1 > 2"), "which is forced"),
        (
            Stream { sizes: Sizes::one(80), ..stream("ip4 1.1.1.1 > 2.2.2.2 / udp 1 > 2 len=30") },
            "ends within the stamp",
        ),
        (Stream { vary: vec![vary("src", 2)], ..udp() }, "'src' is no field (write layer.field"),
        (Stream { vary: vec![vary("ip6.src", 2)], ..udp() }, "no layer 'ip6' (it has eth, ip4, udp)"),
        (Stream { vary: vec![vary("ip4.1.src", 2)], ..udp() }, "no layer 'ip4' number 1"),
        (Stream { vary: vec![vary("udp.port", 2)], ..udp() }, "no field 'port' that can vary (it has sport, dport"),
        (Stream { vary: vec![vary("udp.sport", 65537)], ..udp() }, "16 bits, give 1 to 65536"),
        (Stream { vary: vec![vary("ip4.src", 2), vary("ip4.src", 2)], ..udp() }, "shares bits"),
    ] {
        let error = fault(stream);
        assert!(error.contains(expected), "{error}");
    }
    let no_weight = scenario(vec![Stream { weight: 0, ..udp() }]);
    assert!(Plan::new(&no_weight, 1).unwrap_err().to_string().contains("weights must"));
    let threads = plan(udp()).source(Share { thread: 0, threads: 2 }).unwrap_err();
    assert!(threads.to_string().contains("1 flows for 2 sending threads"), "{threads}");
}

#[test]
fn an_odometer_counts_flows() {
    let fields = vec![vary("udp.dport", 3), Vary { step: 256, ..vary("ip4.dst", 2) }, vary("vlan.id", 5)];
    let plan =
        plan(Stream { flows: 30, vary: fields, ..stream("vlan 4094 pcp=7 / ip4 1.1.1.1 > 2.2.255.2 / udp 1 > 2") });
    for (flow, expected) in [
        (0, "vlan 4094 pcp=7 / ip4 1.1.1.1 > 2.2.255.2 / udp 1 > 2"),
        (2, "vlan 4094 pcp=7 / ip4 1.1.1.1 > 2.2.255.2 / udp 1 > 4"),
        (4, "vlan 4094 pcp=7 / ip4 1.1.1.1 > 2.3.0.2 / udp 1 > 3"),
        (6, "vlan 4095 pcp=7 / ip4 1.1.1.1 > 2.2.255.2 / udp 1 > 2"),
        (29, "vlan 2 pcp=7 / ip4 1.1.1.1 > 2.3.0.2 / udp 1 > 4"),
    ] {
        let found = text(&plan, flow, 5);
        assert!(found.contains(expected), "{flow}: {found}");
    }
}

/// Stacks that pktgen must be able to send; `{}` where a forced checksum may stand.
const STACKS: [&str; 19] = [
    "ip4 198.18.0.1 > 198.19.0.1 / udp 1024 > 80",
    "ip6 2001:2::1 > 2001:2:0:1::1 / udp 1024 > 80",
    "vlan 5 / ip4 198.18.0.1 > 198.19.0.1 opts=94040000 / tcp 1024 > 80 A",
    "ip6 2001:2::1 > 2001:2:0:1::1 / hbh / tcp 1024 > 80 S opts=020405b4",
    "ip4 198.18.0.1 > 198.19.0.1 / icmp echo",
    "ip6 2001:2::1 > 2001:2:0:1::1 / icmp6 echo",
    "vlan 5 tpid=0x88a8 / vlan 6 / ip4 198.18.0.1 > 198.19.0.1 / udp 1024 > 80 / hex c0ffee",
    "ip4 10.0.0.1 > 10.0.0.2 / ip4 198.18.0.1 > 198.19.0.1 / udp 1024 > 80",
    "ip4 10.0.0.1 > 10.0.0.2 / ip6 2001:2::1 > 2001:2:0:1::1 / tcp 1024 > 80 S",
    "ip6 fd00::1 > fd00::2 / ip4 198.18.0.1 > 198.19.0.1 / icmp echo",
    "ip4 10.0.0.1 > 10.0.0.2 / udp 9 > 4789 / vxlan vni=7 / eth 02::3 > 02::4 / ip4 198.18.0.1 > 198.19.0.1 / udp 1024 > 80",
    "ip4 198.18.0.1 > 198.19.0.1 / sctp 1024 > 80 tag=7",
    "ip4 198.18.0.1 > 198.19.0.1 / udp 1024 > 443 / quic short",
    "ip6 2001:2::1 > 2001:2:0:1::1 / udp 1024 > 443 / quic long dcid=0102030405060708 scid=01",
    "ip4 10.0.0.1 > 10.0.0.2 / gre key=1 seq=2 sum / ip6 2001:2::1 > 2001:2:0:1::1 / udp 1024 > 80",
    "ip4 10.0.0.1 > 10.0.0.2 / udp 9 > 6080 / gue / ip4 198.18.0.1 > 198.19.0.1 / sctp 1024 > 80",
    "ip6 fd00::1 > fd00::2 / udp 9 > 6080 / ip4 198.18.0.1 > 198.19.0.1 / tcp 1024 > 80 S",
    "ip4 10.0.0.1 > 10.0.0.2 / udp 9 > 6081 / geneve vni=7 / eth 02::3 > 02::4 / ip4 198.18.0.1 > 198.19.0.1 / icmp echo",
    "ip6 fd00::1 > fd00::2 / udp 9 > 4789 / vxlan vni=7 / eth 02::3 > 02::4 / vlan 9 / ip6 2001:2::1 > 2001:2:0:1::1 / tcp 1024 > 80",
];

prop_compose! {
    /// A stream of one of the stacks in which any of its fields vary in any way.
    fn streams()(
        stack in prop::sample::select(&STACKS[..]),
        size in prop::option::of(160..1600usize),
        flows in 1..=(1u32 << 24),
        picks in prop::collection::vec((any::<prop::sample::Index>(), 1..0x1_0000u32, any::<u128>(), 0..3u8, any::<bool>()), 0..5),
        stamp: bool,
    ) -> Stream {
        let sizes = size.map_or(Sizes::Shortest, |size| Sizes::Mix { parts: vec![(size, 1)], raise: true });
        let mut stream = Stream { flows, stamp, sizes, ..stream(stack) };
        for (pick, count, step, order, each) in picks {
            let layer = pick.get(&stream.layers);
            let index = stream.layers.iter().filter(|other| other.name() == layer.name()).position(|other| std::ptr::eq(other, layer));
            let mut known = packet::field::fields(layer);
            known.retain(|field| !STRUCTURAL.contains(&field.name));
            if known.is_empty() {
                continue;
            }
            let field = pick.get(&known);
            let count = if field.bits < 16 { count % (1 << field.bits) + 1 } else { count };
            let field = format!("{}.{}.{}", layer.name(), index.unwrap(), field.name);
            let order = [Order::Sequential, Order::Random, Order::Zipf(1.1)][usize::from(order)];
            stream.vary.push(Vary { field, count, step, order, each: if each { Each::Flow } else { Each::Packet } });
        }
        stream
    }
}

/// Fields that say what follows: another value makes other layers of the same bytes.
const STRUCTURAL: [&str; 12] =
    ["type", "ver", "ihl", "len", "proto", "off", "csum", "frag", "mf", "code", "flags", "version"];

/// The datagram that these frames are fragments of, put together by what their headers say.
fn reassembled(frames: &[Vec<u8>]) -> Vec<u8> {
    let v6 = frames[0][12..14] == [0x86, 0xdd];
    let start = if v6 { 14 + 48 } else { 14 + 20 };
    let mut out = frames[0][..start].to_vec();
    for (number, frame) in frames.iter().enumerate() {
        let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let (offset, more) = if v6 { (word(56) & !7, word(56) & 1) } else { (word(20) << 3, word(20) >> 13 & 1) };
        assert_eq!(usize::from(offset), out.len() - start, "fragment {number}");
        assert_eq!(more == 0, number + 1 == frames.len());
        let id = if v6 { 58..62 } else { 18..20 };
        assert_eq!(frame[id.clone()], frames[0][id]);
        out.extend(&frame[start..]);
    }
    let len = out.len();
    if v6 {
        // Without the fragment header, as it was before.
        let next = out[54];
        out.drain(54..62);
        out[20] = next;
        out[18..20].copy_from_slice(&((len - 8 - 54) as u16).to_be_bytes());
    } else {
        out[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
        out[20..22].copy_from_slice(&[0, 0]);
        out[24..26].copy_from_slice(&[0, 0]);
        let csum = packet::checksum::internet(&out[14..34]);
        out[24..26].copy_from_slice(&csum.to_be_bytes());
    }
    out
}

#[test]
fn fragments_follow_each_other_and_have_ports_in_the_first() {
    let sizes = Sizes::Mix { parts: vec![(1514, 1), (90, 1)], raise: false };
    let base = stream("ip4 198.18.0.1 > 198.19.0.1 / udp 1024 > 9");
    let plan = plan(Stream { sizes, flows: 2, fragment: Some(576), ..base });
    let mut source = plan.source(Share::ALL).unwrap();
    let mut out = vec![0; plan.longest()];
    let texts: Vec<String> = (0..8)
        .map(|_| {
            let len = source.next(0, &mut out).unwrap().len;
            notation::decode(&out[..len]).split(" / hex").next().unwrap()[44..].to_owned()
        })
        .collect();
    assert_eq!(
        texts.iter().map(|text| text.split(" csum").next().unwrap()).collect::<Vec<_>>(),
        [
            "ip4 198.18.0.1 > 198.19.0.1 mf / udp 1024 > 9 len=1480",
            "ip4 198.18.0.1 > 198.19.0.1 mf frag=552 proto=udp",
            "ip4 198.18.0.1 > 198.19.0.1 frag=1104 proto=udp",
            "ip4 198.18.0.1 > 198.19.0.1 id=1 mf / udp 1025 > 9 len=1480",
            "ip4 198.18.0.1 > 198.19.0.1 id=1 mf frag=552 proto=udp",
            "ip4 198.18.0.1 > 198.19.0.1 id=1 frag=1104 proto=udp",
            "ip4 198.18.0.1 > 198.19.0.1 id=2 / udp 1024 > 9",
            "ip4 198.18.0.1 > 198.19.0.1 id=3 / udp 1025 > 9",
        ]
    );
    assert_eq!((source.sent_of(0), source.sent_of(1)), (Some(4), Some(4)));
    for (rest, mtu, expected) in [
        ("ip4 1.1.1.1 > 2.2.2.2 df / udp 1 > 2", 576, "ip4 has df"),
        ("ip6 ::1 > ::2 / hbh / udp 1 > 2", 576, "extension headers"),
        ("ip4 1.1.1.1 > 2.2.2.2 / udp 1 > 2", 40, "fragment 40: these fragments have at least 52 bytes"),
        ("ip4 1.1.1.1 > 2.2.2.2 / sctp 1 > 2", 576, "SCTP's CRC covers"),
        ("ip4 1.1.1.1 > 2.2.2.2 / ip6 ::1 > ::2 / udp 1 > 2", 76, "do not fit into the first fragment"),
    ] {
        let error = fault(Stream { fragment: Some(mtu), sizes: Sizes::one(1002), ..stream(rest) });
        assert!(error.contains(expected), "{error}");
    }
}

proptest! {
    /// Put together again, fragments are a datagram with right checksums, at whatever times they were sent; each is
    /// recognised by itself.
    #[test]
    fn fragments_make_a_datagram(
        stack in prop::sample::select(&[
            "ip4 198.18.0.1 > 198.19.0.1 / udp 1024 > 80",
            "ip6 2001:2::1 > 2001:2:0:1::1 / udp 1024 > 80",
            "ip4 198.18.0.1 > 198.19.0.1 ttl=9 / icmp echo",
            "ip6 2001:2::1 > 2001:2:0:1::1 / tcp 1024 > 80 A",
            "ip4 10.0.0.1 > 10.0.0.2 / udp 9 > 4789 / vxlan vni=7 / eth 02::3 > 02::4 / ip4 198.18.0.1 > 198.19.0.1 / udp 1024 > 80",
        ][..]),
        size in 200..9000usize, mtu in 200..1500usize, flow in 0..1000u32, datagram in 0..100u32, stamp: bool, times: u64,
    ) {
        let described = stream(stack);
        let names: Vec<_> = described.layers.iter().map(|layer| layer.name()).collect();
        let plan = plan(Stream { flows: 1000, fragment: Some(mtu), sizes: Sizes::one(size), stamp, ..described });
        let pieces = (0..).find(|seq| {
            let first = frame(&plan, flow, *seq);
            let flags = if first[12] == 8 { first[20] & 0x20 } else { first[57] & 1 };
            flags == 0
        }).unwrap() + 1;
        let frames: Vec<Vec<u8>> = (datagram * pieces..(datagram + 1) * pieces).map(|seq| {
            let mut out = vec![0; plan.longest()];
            let sent_ns = (times >> (seq % 32)) as u32;
            let len = plan.write(flow, seq, sent_ns, &mut out).len;
            out.truncate(len);
            out
        }).collect();
        prop_assert!(frames.iter().all(|frame| frame.len() <= mtu + 14 && frame.len() >= 60));
        if stamp {
            for (frame, seq) in frames.iter().zip(datagram * pieces..) {
                let Arrival::Ours(verdict) = Judge::new(&plan, MAGIC).judge(frame) else { panic!("{seq}") };
                prop_assert_eq!((verdict.stamp.seq, verdict.corrupt, verdict.hops), (seq, false, Some(0)));
            }
        }
        let layers = packet::dissect(&reassembled(&frames));
        let text = notation::print(&layers);
        let found: Vec<_> = layers.iter().map(|layer| layer.name()).collect();
        prop_assert!(found.starts_with(&names), "{}", text);
        prop_assert!(!text.contains("csum=") && !text.contains("len="), "{}", text);
    }

    /// Whatever varies, the frame has the described layers, every checksum is right, and the stamp is its end.
    #[test]
    fn every_frame_is_whole(stream in streams(), flow: u32, seq: u32) {
        let (names, stamp) = (stream.layers.iter().map(|layer| layer.name()).collect::<Vec<_>>(), stream.stamp);
        let plan = match Plan::new(&scenario(vec![stream.clone()]), MAGIC) {
            Ok(plan) => plan,
            Err(error) if matches!(*error.fault, Fault::Twice) => return Ok(()),
            Err(error) => panic!("{error}: {stream:?}"),
        };
        let flow = flow % plan.flows();
        let bytes = frame(&plan, flow, seq);
        let layers = packet::dissect(&bytes);
        let text = notation::print(&layers);
        prop_assert!(!text.contains("csum=") && !text.contains("len="), "{} of {:?}", text, stream);
        let found: Vec<_> = layers.iter().map(|layer| layer.name()).collect();
        // VXLAN to another port, or IP of another version, is bytes.
        if !stream.vary.iter().any(|vary| vary.field.ends_with("dport") || vary.field.ends_with("tag")) {
            prop_assert!(found.starts_with(&names[..names.len().min(found.len() - 1)]), "{} of {:?}", text, stream);
        }
        let shape = plan.shape(flow, seq);
        prop_assert_eq!(shape.is_some(), stamp);
        if let Some(shape) = shape {
            prop_assert_eq!(shape.end, bytes.len());
            prop_assert_eq!(&bytes[shape.end - STAMP_LEN..][..4], &MAGIC.to_be_bytes());
            let Arrival::Ours(verdict) = Judge::new(&plan, MAGIC).judge(&bytes) else { panic!("{text}") };
            prop_assert_eq!((verdict.stamp.flow, verdict.stamp.seq, verdict.corrupt), (flow, seq, false));
        }
        prop_assert_eq!(frame(&plan, flow, seq), bytes);
    }

    /// The threads together send every packet once, and each knows how many of a flow were its.
    #[test]
    fn shares_add_up(
        orders in prop::collection::vec((0..3u8, 4..20u32, 1..5u32), 1..4), threads in 1..5u32, steps in 0..300usize,
    ) {
        let streams = orders.iter().map(|(order, flows, weight)| Stream {
            flows: *flows,
            weight: *weight,
            order: [Order::Sequential, Order::Random, Order::Zipf(1.0)][usize::from(*order)],
            ..stream("ip4 198.18.0.1 > 198.19.0.1 / udp 1024 > 80")
        });
        let plan = Plan::new(&scenario(streams.collect()), MAGIC).unwrap();
        let mut sent = vec![0u64; plan.flows() as usize];
        let mut out = vec![0; plan.longest()];
        for thread in 0..threads {
            let mut source = plan.source(Share { thread, threads }).unwrap();
            let mut mine = vec![0u64; plan.flows() as usize];
            for _ in 0..steps {
                prop_assert_eq!(source.next(7, &mut out).unwrap().len, 60);
                let word = |at: usize| u32::from_be_bytes(out[at..at + 4].try_into().unwrap());
                let (flow, seq) = (word(60 - STAMP_LEN + 4) & 0xff_ffff, word(60 - STAMP_LEN + 8));
                prop_assert_eq!(flow % threads, thread);
                prop_assert_eq!(mine[flow as usize], u64::from(seq));
                mine[flow as usize] += 1;
                let mut again = vec![0; 60];
                plan.write(flow, seq, 7, &mut again);
                prop_assert_eq!(&again, &out);
            }
            for flow in 0..plan.flows() {
                let own = flow % threads == thread;
                prop_assert_eq!(source.sent_of(flow), own.then_some(mine[flow as usize]));
                sent[flow as usize] += mine[flow as usize];
            }
        }
        prop_assert_eq!(sent.iter().sum::<u64>(), steps as u64 * u64::from(threads));
    }
}
