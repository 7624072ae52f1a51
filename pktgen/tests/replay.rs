//! `pktgen run --replay` on real interfaces, in namespaces of each test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod root {
    use std::path::Path;
    use std::process::Output;
    use std::time::Duration;

    use packet::notation::encode;
    use pcap_file::DataLink;
    use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
    use serde_json::Value;
    use testkit::netns::{End, Netns, veth};

    fn wire() -> Netns {
        let ns = Netns::new("connect-replay").unwrap();
        let end = |name| End { netns: &ns, name, addresses: &[] };
        veth(end("w0"), end("w1")).unwrap();
        ns
    }

    /// `count` frames, a millisecond apart, from ten clients; what the writer gave for a file.
    fn capture(path: &Path, datalink: DataLink, count: u16, len: usize) {
        let header = PcapHeader { datalink, ..PcapHeader::default() };
        let mut writer = PcapWriter::with_header(std::fs::File::create(path).unwrap(), header).unwrap();
        for number in 0..count {
            let client = number % 10;
            let text =
                format!("eth 02::1 > 02::2 / ip4 10.0.0.{client} > 192.0.2.1 / udp {} > 9 / data {len}", 1000 + client);
            let frame = encode(&text).unwrap();
            let time = Duration::from_millis(number.into());
            writer.write_packet(&PcapPacket::new(time, frame.len() as u32, &frame)).unwrap();
        }
    }

    fn run(ns: &Netns, file: &Path, args: &[&str]) -> Output {
        let all = [&["run", "w0", "--replay", file.to_str().unwrap()], args].concat();
        ns.command(env!("CARGO_BIN_EXE_pktgen")).args(all).output().unwrap()
    }

    #[track_caller]
    fn report(ns: &Netns, file: &Path, args: &[&str]) -> Value {
        let output = run(ns, file, &[args, &["--json"]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{errors}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"))
    }

    #[test]
    fn frames_go_out_with_their_times_and_are_counted() {
        let (ns, dir) = (wire(), tempfile::tempdir().unwrap());
        let file = dir.path().join("a.pcap");
        capture(&file, DataLink::ETHERNET, 300, 100);
        for backend in ["xsk", "packet", "live"] {
            let report = report(&ns, &file, &["--to", "w1", "--backend", backend]);
            assert_eq!(report["sent"]["packets"], 300, "{report:#}");
            let seconds = report["sent"]["seconds"].as_f64().unwrap();
            // 299 ms at least, whatever the machine does; never faster than captured.
            assert!(seconds >= 0.299, "{backend}: {seconds}");
            // Nothing is compared: what arrives is counted, with what the kernel itself says on the wire.
            let received = &report["received"];
            assert!(received["delivered"]["packets"].as_u64().unwrap() >= 300, "{report:#}");
            assert!(received.get("checked").is_none_or(Value::is_null), "{report:#}");
        }
    }

    #[test]
    fn speed_loops_and_counts() {
        let (ns, dir) = (wire(), tempfile::tempdir().unwrap());
        let file = dir.path().join("a.pcap");
        capture(&file, DataLink::ETHERNET, 100, 100);
        let twice = report(&ns, &file, &["--speed", "0.5", "--queues", "0,1", "--backend", "packet"]);
        assert_eq!(twice["sent"]["packets"], 100);
        assert!(twice["sent"]["seconds"].as_f64().unwrap() >= 0.198, "{twice:#}");
        let loops = report(&ns, &file, &["--speed", "max", "--loop", "7"]);
        assert_eq!(loops["sent"]["packets"], 700);
        let counted = report(&ns, &file, &["--speed", "max", "--loop", "0", "--count", "1234"]);
        assert_eq!(counted["sent"]["packets"], 1234);
        let paced = report(&ns, &file, &["--pps", "1000", "--loop", "2"]);
        assert!(paced["sent"]["seconds"].as_f64().unwrap() >= 0.19, "{paced:#}");
    }

    /// What is written on the way is what the other end sees, with right checksums: the kernel there takes every datagram.
    #[test]
    fn rewritten_frames_are_good_packets() {
        let (near, far) = (Netns::new("connect-replay").unwrap(), Netns::new("connect-replay").unwrap());
        veth(
            End { netns: &near, name: "w0", addresses: &[] },
            End { netns: &far, name: "w1", addresses: &["198.18.0.1/24".parse().unwrap()] },
        )
        .unwrap();
        far.ip(&["link", "set", "w1", "address", "02:00:00:00:00:99"]).unwrap();
        let socket = far.thread(|| std::net::UdpSocket::bind("198.18.0.1:9").unwrap()).join().unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.pcap");
        capture(&file, DataLink::ETHERNET, 10, 33);
        let rules = "eth.dst=02::99,ip.dst=198.18.0.1,ip.src=198.18.0.128/25";
        report(&near, &file, &["--rewrite", rules, "--loop", "2", "--per-loop", "ip.src=20,port.src=5"]);
        let mut from: Vec<_> = (0..20)
            .map(|_| {
                let mut data = [0; 100];
                let (len, from) = socket.recv_from(&mut data).unwrap();
                assert_eq!((len, &data[..4]), (33, &[0, 1, 2, 3][..]));
                from.to_string()
            })
            .collect();
        from.sort();
        let expected = |turn: u16| {
            (0..10).map(move |client| format!("198.18.0.{}:{}", 128 + client + 20 * turn, 1000 + client + 5 * turn))
        };
        let mut expected: Vec<_> = expected(0).chain(expected(1)).collect();
        expected.sort();
        assert_eq!(from, expected);
    }

    #[test]
    fn files_that_cannot_be_replayed_are_named() {
        let (ns, dir) = (wire(), tempfile::tempdir().unwrap());
        let (whole, cooked, long) = (dir.path().join("a.pcap"), dir.path().join("b.pcap"), dir.path().join("c.pcap"));
        capture(&whole, DataLink::ETHERNET, 3, 100);
        capture(&cooked, DataLink::LINUX_SLL, 3, 100);
        capture(&long, DataLink::ETHERNET, 3, 1600);
        let bytes = std::fs::read(&whole).unwrap();
        let (cut, text) = (dir.path().join("d.pcap"), dir.path().join("e.pcap"));
        std::fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
        std::fs::write(&text, "no capture").unwrap();
        for (file, args, expected) in [
            (&cut, &[][..], "d.pcap: cut off inside packet 3"),
            (&cooked, &[], "b.pcap: packet 1 has link type LINUX_SLL"),
            (&long, &[], "c.pcap: packet 1 has 1642 bytes, but frames of at most 1514"),
            (&text, &[], "e.pcap: neither pcap nor pcapng"),
            (&dir.path().join("f.pcap"), &[], "f.pcap: cannot be read"),
            (&whole, &["--loop", "0"], "--loop 0 does not end by itself"),
            (&whole, &["--to", "w1", "--latency"], "--latency needs stamps"),
        ] {
            let output = run(&ns, file, args);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(1) && errors.contains(expected), "{errors}");
        }
        let output = run(&ns, &whole, &["--flows", "3"]);
        assert!(output.status.code() == Some(2), "{output:?}");
    }
}
