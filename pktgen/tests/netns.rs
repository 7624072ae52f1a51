//! pktgen on real interfaces: veth pairs in namespaces of each test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod root {
    use std::process::Output;

    use serde_json::Value;
    use testkit::netns::{End, Netns, veth};

    /// Modest, so that a loaded machine keeps up with it.
    const RATE: &str = "20k";

    fn pktgen(netns: &Netns, args: &[&str]) -> Output {
        netns.command(env!("CARGO_BIN_EXE_pktgen")).args(args).output().unwrap()
    }

    /// Runs to the end with exit code `code`; the report.
    #[track_caller]
    fn report(netns: &Netns, code: i32, args: &[&str]) -> Value {
        let output = pktgen(netns, &[&["run"], args, &["--json"]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{errors}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"))
    }

    #[track_caller]
    fn assert_clean(report: &Value, packets: u64) {
        let received = &report["received"];
        let checked = &received["checked"];
        assert_eq!(report["sent"]["packets"], packets, "{report:#}");
        assert_eq!(received["delivered"]["packets"], packets, "{report:#}");
        assert_eq!(checked["volume"]["packets"], packets, "{report:#}");
        assert_eq!(checked["first"], packets, "{report:#}");
        for fault in ["lost", "missed"] {
            assert_eq!(received[fault], 0, "{fault}: {report:#}");
        }
        for fault in ["duplicate", "reordered", "late", "corrupt", "damaged", "rewritten", "foreign"] {
            assert_eq!(checked[fault], 0, "{fault}: {report:#}");
        }
    }

    /// Two ends of one wire in one namespace.
    fn wire() -> Netns {
        let ns = Netns::new("packet-wire").unwrap();
        let end = |name| End { netns: &ns, name, addresses: &[] };
        veth(end("w0"), end("w1")).unwrap();
        ns
    }

    /// `gen` with interfaces `out` and `back`, and a router between them that forwards from one to the other.
    fn routed() -> (Netns, Netns) {
        let (gen_ns, router) = (Netns::new("packet-gen").unwrap(), Netns::new("packet-router").unwrap());
        let far = ["10.0.2.1/24".parse().unwrap(), "fd00:2::1/64".parse().unwrap()];
        let left = End { netns: &router, name: "in", addresses: &[] };
        let right = End { netns: &router, name: "out", addresses: &far };
        veth(End { netns: &gen_ns, name: "out", addresses: &[] }, left).unwrap();
        veth(End { netns: &gen_ns, name: "back", addresses: &[] }, right).unwrap();
        for (key, value) in [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv4.conf.all.rp_filter", "0"),
            ("net.ipv4.conf.in.rp_filter", "0"),
        ] {
            router.sysctl(key, value).unwrap();
        }
        router.ip(&["link", "set", "in", "address", "02:00:00:00:00:01"]).unwrap();
        router.ip(&["route", "add", "198.19.0.0/16", "via", "10.0.2.2"]).unwrap();
        router.ip(&["route", "add", "2001:2:0:1::/64", "via", "fd00:2::2"]).unwrap();
        for neighbor in ["10.0.2.2", "fd00:2::2"] {
            router.ip(&["neigh", "add", neighbor, "lladdr", "02:00:00:00:00:02", "dev", "out"]).unwrap();
        }
        (gen_ns, router)
    }

    const ROUTED: [&str; 8] = ["out", "--to", "back", "--dst-mac", "02::1", "--rate", RATE, "--drain"];

    #[test]
    fn a_wire_loses_nothing() {
        let ns = wire();
        let report = report(
            &ns,
            0,
            &[
                "w0",
                "--to",
                "w1",
                "--flows",
                "100",
                "--count",
                "100000",
                "--rate",
                RATE,
                "--latency",
                "--fail-if",
                "loss>0",
            ],
        );
        assert_clean(&report, 100_000);
        assert_eq!(report["received"]["delivered"]["bytes"], 100_000 * 60);
        // Never above the rate, whatever else the machine does; that the whole rate is reached is shown with a fake clock.
        let rate = report["sent"]["rate_pps"].as_f64().unwrap();
        assert!(rate > 0.0 && rate <= 20_010.0, "{rate}");
        let latency = |figure: &str| report["received"]["checked"]["latency"][figure].as_u64().unwrap();
        assert!(latency("min") > 0 && latency("min") <= latency("p50") && latency("p99") <= latency("max"));
        assert_eq!(report["to"]["xdp_mode"], "native");
        assert_eq!(report["from"]["driver"], "veth");
    }

    #[test]
    fn syns_ipv6_and_mixed_sizes_arrive() {
        let ns = wire();
        for args in [
            &["--protocol", "tcp-syn"][..],
            &["--protocol", "tcp-syn", "--ipv6", "--latency"],
            &["--ipv6", "--size", "imix"],
            &["--size", "60,1514,61"],
        ] {
            let all = [&["w0", "--to", "w1", "--flows", "7", "--count", "5000", "--rate", RATE], args].concat();
            assert_clean(&report(&ns, 0, &all), 5000);
        }
    }

    #[test]
    fn a_router_passes_everything() {
        let (gen_ns, _router) = routed();
        for family in [&[][..], &["--ipv6"]] {
            let args = [&ROUTED, &["0.5", "--flows", "50", "--count", "10000"][..], family].concat();
            let report = report(&gen_ns, 0, &args);
            assert_clean(&report, 10_000);
            assert_eq!(report["received"]["checked"]["hops"], serde_json::json!({ "min": 1, "max": 1 }));
        }
    }

    /// The router drops one flow of ten: exactly its packets are lost, it is named, and the threshold makes it exit 3.
    #[test]
    fn what_a_router_drops_is_reported_exactly() {
        let (gen_ns, router) = routed();
        router.ip(&["rule", "add", "ipproto", "udp", "sport", "1027", "blackhole"]).unwrap();
        let args = [&ROUTED, &["0.5", "--flows", "10", "--count", "20000", "--fail-if", "loss>0"][..]].concat();
        let report = report(&gen_ns, 3, &args);
        assert_eq!(report["received"]["lost"], 2000, "{report:#}");
        assert_eq!(report["received"]["checked"]["first"], 18_000, "{report:#}");
        assert_eq!(report["received"]["loss_ratio"], 0.1);
        let expected =
            serde_json::json!([{ "flow": 3, "source": "198.18.0.1", "port": 1027, "sent": 2000, "lost": 2000 }]);
        assert_eq!(report["lost_flows"], expected);
    }

    /// The router sends every packet of one flow twice.
    #[test]
    fn duplicates_are_reported_exactly() {
        let (gen_ns, router) = routed();
        let rules = "table ip t { chain c { type filter hook prerouting priority -300; \
                     udp sport 1027 dup to 10.0.2.2 device \"out\"; }; }";
        router.run("nft", &[rules]).unwrap();
        let args = [&ROUTED, &["0.5", "--flows", "10", "--count", "20000"][..]].concat();
        let report = report(&gen_ns, 0, &args);
        assert_eq!(report["received"]["checked"]["duplicate"], 2000, "{report:#}");
        assert_eq!(report["received"]["lost"], 0, "{report:#}");
    }

    #[test]
    fn a_busy_interface_and_a_missing_one_are_named() {
        let ns = wire();
        let output = pktgen(&ns, &["run", "nowhere", "--dst-mac", "02::1", "--count", "1"]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && errors.contains("nowhere"), "{errors}");

        let output = pktgen(&ns, &["run", "w0", "--dst-mac", "02::1", "--count", "1", "--queues", "9"]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains("queue 9 of w0") && errors.contains("no such queue"), "{errors}");

        let mut other =
            ns.spawn(env!("CARGO_BIN_EXE_pktgen"), &["run", "w0", "--to", "w1", "--for", "60", "--rate", "1"]).unwrap();
        let attached = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            ns.ip(&["link", "show", "w1"]).unwrap().contains("xdp")
        });
        assert!(attached && other.child().try_wait().unwrap().is_none());
        let output = pktgen(&ns, &["run", "w0", "--to", "w1", "--count", "1"]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains("w1 has an XDP program already"), "{errors}");
        drop(other);
        // Nothing is left behind by a killed run.
        assert_clean(&report(&ns, 0, &["w0", "--to", "w1", "--count", "100", "--rate", RATE]), 100);
    }

    #[test]
    fn probe_says_what_the_driver_can() {
        let ns = wire();
        let output = pktgen(&ns, &["probe", "w0", "--json"]);
        let probe: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&probe["driver"], &probe["af_xdp"]), (&"veth".into(), &"copy".into()));
        assert_eq!(probe["native_xdp"], true);
        assert_eq!(probe["rx_queues"], 1);
    }
}
