//! The receiver against faults of known kind and number: every counter is exact.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod fault_box;
mod remote;
mod reports;

mod root {
    use std::process::Output;
    use std::time::Duration;

    use serde_json::{Value, json};
    use testkit::netns::Netns;

    use crate::fault_box::{FaultBox, Packet};

    const PACKETS: u64 = 20_000;

    fn run(netns: &Netns, args: &[&str]) -> Output {
        let common = ["run", "out", "--to", "back", "--dst-mac", "02::1", "--pps", "20k", "--size", "100", "--json"];
        netns.command(env!("CARGO_BIN_EXE_pktgen")).args(common).args(args).output().unwrap()
    }

    /// Sends [`PACKETS`] packets through a box with this fault and returns what is said about what was received.
    #[track_caller]
    fn received(args: &[&str], fault: impl FnMut(&mut Packet, &mut Vec<Packet>) + Send + 'static) -> Value {
        let faulty = FaultBox::new(fault);
        let count = PACKETS.to_string();
        let output = run(&faulty.generator, &[&["--count", &count], args].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"));
        assert_eq!(report["sent"]["packets"], PACKETS);
        report["received"].clone()
    }

    /// Every counter, those that are not named being zero.
    #[track_caller]
    fn assert_counts(received: &Value, expected: &Value) {
        let checked = &received["checked"];
        let zero = json!(0);
        for (name, value) in [
            ("delivered", &received["delivered"]["packets"]),
            ("received", &checked["volume"]["packets"]),
            ("lost", &received["lost"]),
            ("missed", &received["missed"]),
        ]
        .into_iter()
        .chain(
            ["first", "duplicate", "reordered", "late", "corrupt", "damaged", "rewritten", "foreign"]
                .map(|name| (name, &checked[name])),
        )
        .chain([("rewritten_as_expected", &checked["rewritten_as_expected"])])
        {
            let all = ["delivered", "received", "first"].contains(&name);
            let default = if all { json!(PACKETS) } else { zero.clone() };
            assert_eq!(value, expected.get(name).unwrap_or(&default), "{name}: {received:#}");
        }
    }

    #[test]
    fn drops_are_exact() {
        let received = received(&["--flows", "7"], |packet, out| {
            if packet.seq() % 10 != 3 {
                out.push(packet.clone());
            }
        });
        // 20000 packets of 7 flows: 2857 or 2858 each, so numbers 3, 13, ... 2853 of each are dropped.
        let lost = 7 * 286;
        let rest = PACKETS - lost;
        assert_counts(&received, &json!({ "delivered": rest, "received": rest, "first": rest, "lost": lost }));
    }

    #[test]
    fn duplicates_are_exact() {
        let received = received(&[], |packet, out| {
            let copies = if packet.seq() % 100 == 9 { 3 } else { 1 };
            out.extend(std::iter::repeat_n(packet.clone(), copies));
        });
        let all = PACKETS + 400;
        assert_counts(&received, &json!({ "delivered": all, "received": all, "duplicate": 400 }));
    }

    /// Every hundredth packet is overtaken by a known number of later ones of its flow.
    #[test]
    fn reordering_and_its_extents_are_exact() {
        for displacement in [1u32, 5, 999] {
            let mut held: Option<(Packet, u32)> = None;
            let received = received(&[], move |packet, out| {
                if packet.seq() % 1000 == 0 {
                    held = Some((packet.clone(), packet.seq() + displacement));
                    return;
                }
                out.push(packet.clone());
                if let Some((late, _)) = held.take_if(|(_, after)| *after == packet.seq()) {
                    out.push(late);
                }
            });
            assert_counts(&received, &json!({ "reordered": 20 }));
            let up_to = displacement.next_power_of_two();
            assert_eq!(
                received["checked"]["reordering"],
                json!({
                    "extent_max": displacement,
                    "extent_mean": f64::from(displacement),
                    "extents": [{ "up_to": up_to, "packets": 20 }],
                })
            );
        }
    }

    #[test]
    fn corruption_is_exact() {
        let received = received(&[], |packet, out| {
            let (seq, stamp) = (packet.seq(), packet.stamp());
            match seq % 100 {
                // Payload, UDP checksum, IP checksum: the packet can be named all the same.
                0 => packet.bytes[50] ^= 1,
                1 => packet.bytes[40] ^= 1,
                2 => packet.bytes[24] ^= 1,
                // Bytes missing in the middle, with lengths and checksum of the header as they should be.
                3 => {
                    packet.bytes.drain(50..52);
                    packet.set_ip(3, (packet.bytes.len() - 14) as u8);
                }
                // The stamp itself: who it was is not known.
                4 => packet.bytes[stamp + 11] ^= 1,
                5 => packet.bytes[stamp + 16] ^= 1,
                // The magic: it is not even known to be of this run, so it has not been delivered.
                6 => packet.bytes[stamp] ^= 1,
                _ => {}
            }
            out.push(packet.clone());
        });
        assert_counts(
            &received,
            &json!({
                "delivered": PACKETS - 200, "received": PACKETS - 200, "first": PACKETS - 600,
                "corrupt": 1200, "damaged": 400, "lost": 200,
            }),
        );
    }

    #[test]
    fn rewriting_is_exact_by_field() {
        let rewrite = |packet: &mut Packet, out: &mut Vec<Packet>| {
            match packet.seq() % 100 {
                0..10 => packet.set_udp(3, 99),
                10..12 => packet.set_ip(19, 77),
                12 => packet.set_udp(0, 99),
                13 => packet.set_ip(1, 0xb8),
                14 => packet.set_ip(8, 255),
                15 => {
                    packet.set_ip(15, 3);
                    packet.set_udp(2, 3);
                }
                16 => packet.set_ip(1, 0x01),
                _ => packet.set_ip(8, packet.bytes[22] - 2),
            }
            out.push(packet.clone());
        };
        let received_all = received(&[], rewrite);
        assert_counts(&received_all, &json!({ "rewritten": 3400 }));
        assert_eq!(
            received_all["checked"]["rewritten_fields"],
            json!({ "dport": 2200, "dst": 400, "sport": 200, "src": 200, "dscp": 200, "ecn": 200, "ttl_raised": 200 })
        );
        assert_eq!(received_all["checked"]["hops"], json!({ "min": 0, "max": 2 }));

        let received = received(&["--expect-rewrite", "dport,dst"], rewrite);
        assert_counts(&received, &json!({ "rewritten": 1000, "rewritten_as_expected": 2400 }));
        assert_eq!(
            received["checked"]["rewritten_fields"],
            json!({ "sport": 200, "src": 200, "dscp": 200, "ecn": 200, "ttl_raised": 200 })
        );
    }

    /// All at once, in flows of which one is let alone.
    #[test]
    fn faults_do_not_hide_each_other() {
        let mut held: Option<Packet> = None;
        let received = received(&["--flows", "2"], move |packet, out| {
            if packet.flow() == 0 {
                out.push(packet.clone());
                return;
            }
            match packet.seq() % 50 {
                0 => return,
                1 => out.push(packet.clone()),
                2 => packet.bytes[60] ^= 0x80,
                3 => packet.set_udp(3, 1),
                4 => {
                    held = Some(packet.clone());
                    return;
                }
                _ => {}
            }
            out.push(packet.clone());
            if packet.seq() % 50 == 14 {
                out.extend(held.take());
            }
        });
        assert_counts(
            &received,
            &json!({
                "delivered": PACKETS, "received": PACKETS, "first": PACKETS - 200, "lost": 200, "duplicate": 200,
                "corrupt": 200, "rewritten": 200, "reordered": 200,
            }),
        );
        assert_eq!(received["checked"]["reordering"]["extent_max"], 10);
    }

    #[test]
    fn counting_alone_needs_no_user_space() {
        let received = received(&["--check", "count"], |packet, out| {
            if packet.seq() % 10 != 0 {
                out.push(packet.clone());
            }
        });
        assert_eq!(received["delivered"]["packets"], PACKETS - 2000);
        assert_eq!((&received["lost"], &received["missed"]), (&json!(2000), &json!(0)));
        assert_eq!(received["checked"], Value::Null);
    }

    /// Never shorter than the box delays; how much longer depends on the machine, so the bound above is wide.
    #[test]
    fn latency_is_at_least_the_delay() {
        let delayed = |delay: u64| {
            let received = received(&["--latency"], move |packet, out| {
                packet.delay = Duration::from_millis(delay);
                out.push(packet.clone());
            });
            assert_counts(&received, &json!({}));
            let latency = received["checked"]["latency"].clone();
            let [min, p50] = ["min", "p50"].map(|figure| latency[figure].as_u64().unwrap());
            // The histogram is exact to a thousandth.
            assert!(min >= delay * 999_000 && p50 <= delay * 1_000_000 + 1_000_000_000, "{latency:#}");
            assert_eq!(latency["clock"], "CLOCK_MONOTONIC");
            assert_eq!((&latency["arrived_in_xdp"], &latency["arrived_in_user_space"]), (&json!(PACKETS), &json!(0)));
            assert!(latency["bias"]["xdp_to_user_space"]["count"] == PACKETS);
            min
        };
        let (short, long) = (delayed(20), delayed(170));
        let difference = long as i64 - short as i64;
        assert!(
            (100_000_000..200_000_000).contains(&difference),
            "{difference} ns between delays that are 150 ms apart"
        );
    }
}
