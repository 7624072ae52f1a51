//! How pktgen sends: every back end on veth pairs in namespaces of each test's own, and what it says when it cannot.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod root {
    use std::process::Output;
    use std::time::{Duration, Instant};

    use packet::layer::{Eth, Ip4, Layer, Udp};
    use packet::{build, notation};
    use pktgen::backend::live::{self, Live};
    use pktgen::backend::packet::PacketRing;
    use pktgen::backend::xsk::Xsk;
    use pktgen::backend::{Tx, TxError};
    use pktgen::clock::{low_bits, now_ns};
    use pktgen::interface::Interface;
    use pktgen::source::{LateStamp, Written};
    use pktgen::umem;
    use serde_json::Value;
    use socket2::{Domain, Protocol, Socket, Type};
    use testkit::netns::{End, Netns, veth};

    const BACKENDS: [&str; 3] = ["live", "xsk", "packet"];
    /// Longest frame that arrives.
    const RECEIVED: usize = 9100;

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

    /// Fails; what it says.
    #[track_caller]
    fn refusal(netns: &Netns, args: &[&str]) -> String {
        let output = pktgen(netns, &[&["run"], args].concat());
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }

    /// Two ends of one wire in one namespace. GRO on the far end makes the near one take redirected frames.
    fn wire() -> Netns {
        let ns = Netns::new("packet-send").unwrap();
        // So that the kernel sends nothing of its own.
        ns.sysctl("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
        let end = |name| End { netns: &ns, name, addresses: &[] };
        veth(end("w0"), end("w1")).unwrap();
        ns.run("ethtool", &["-K", "w1", "gro", "on"]).unwrap();
        ns
    }

    /// Received packets and bytes of an interface.
    fn received(ns: &Netns, interface: &str) -> (u64, u64) {
        let links: Value =
            serde_json::from_str(&ns.ip(&["-json", "-stats", "link", "show", interface]).unwrap()).unwrap();
        let rx = &links[0]["stats64"]["rx"];
        (rx["packets"].as_u64().unwrap(), rx["bytes"].as_u64().unwrap())
    }

    fn transmitter(backend: &str, interface: &Interface, longest: usize, timed: bool) -> Box<dyn Tx> {
        match backend {
            "live" => Box::new(Live::new(interface, longest, timed, 1).unwrap()),
            "packet" => Box::new(PacketRing::new(interface, longest).unwrap()),
            _ => {
                let opened = umem::open(interface.name(), 0, longest).unwrap();
                Box::new(Xsk::new(opened.sender, Some(opened.receiver), longest))
            }
        }
    }

    /// A UDP frame of `len` bytes with a 32-bit time in its last bytes, all checksums right.
    fn frame(len: usize, time: u32) -> (Vec<u8>, LateStamp) {
        let payload = len - 14 - 20 - 8;
        let mut data: Vec<u8> = build::data(payload).collect();
        let at = payload - 4;
        data[at..].copy_from_slice(&time.to_be_bytes());
        let udp = Udp { sport: 1, dport: 2, len: None, csum: None };
        let ip = Ip4::new("198.18.0.1".parse().unwrap(), "198.19.0.1".parse().unwrap());
        let eth = Eth { src: [2, 0, 0, 0, 0, 1], dst: [2, 0, 0, 0, 0, 2], ethertype: None };
        let bytes = build::frame(&[Layer::Eth(eth), Layer::Ip4(ip), Layer::Udp(udp), Layer::Raw(data)]).unwrap();
        assert_eq!(bytes.len(), len);
        (bytes, LateStamp { time_at: (len - 4) as u16, csum_at: Some(14 + 20 + 6) })
    }

    /// A socket that gets everything that arrives in the calling thread's namespace.
    fn tap() -> Socket {
        let everything = i32::from((libc::ETH_P_ALL as u16).to_be());
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(everything))).unwrap();
        socket.set_recv_buffer_size(4 << 20).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }

    /// Frames of these lengths as they arrive; `timed`: with a place for the time of departure.
    fn through(backend: &'static str, lens: Vec<usize>, timed: bool) -> Vec<Vec<u8>> {
        let ns = wire();
        for end in ["w0", "w1"] {
            ns.ip(&["link", "set", end, "mtu", "9000"]).unwrap();
        }
        let work = move || {
            let near = Interface::new("w0").unwrap();
            let tap = tap();
            let longest = *lens.iter().max().unwrap();
            let mut tx = transmitter(backend, &near, longest, timed);
            for len in &lens {
                let (bytes, late) = frame(*len, 7);
                tx.slot().unwrap()[..*len].copy_from_slice(&bytes);
                tx.push(Written { len: *len, late: timed.then_some(late) }, 0);
            }
            tx.flush(&mut |_| {}).unwrap();
            assert_eq!(tx.settle(1_000_000_000), 0);
            let mut buffer = vec![0; RECEIVED];
            let mut arrived = Vec::new();
            while arrived.len() < lens.len() {
                let len = std::io::Read::read(&mut &tap, &mut buffer).unwrap();
                // Whatever else the kernel sends on a new interface.
                if buffer[..len].starts_with(&[2, 0, 0, 0, 0, 2]) {
                    arrived.push(buffer[..len].to_vec());
                }
            }
            arrived
        };
        ns.thread(work).join().unwrap().unwrap()
    }

    /// Every length goes a way of its own: inline words with an odd rest, the helper, one chunk, several.
    #[test]
    fn frames_arrive_as_they_were_written() {
        for (backend, longest) in [("live", live::FRAME_MAX), ("xsk", 9014), ("packet", 9014)] {
            let lens = vec![60, 61, 64, 67, 68, 127, 128, 129, 130, 590, 1514, 1515, longest, 60];
            let arrived = through(backend, lens.clone(), false);
            for (len, bytes) in lens.iter().zip(&arrived) {
                assert_eq!(*bytes, frame(*len, 7).0, "{backend}, {len} bytes");
            }
        }
    }

    /// The time of departure is written into the frame, and its checksum stays right at even and odd offsets.
    #[test]
    fn live_frames_are_stamped_when_they_leave() {
        let before = now_ns();
        let arrived = through("live", vec![60, 61, 62, 63, 127, 128, 129, 1513, 1514], true);
        for bytes in &arrived {
            let time = u32::from_be_bytes(*bytes.last_chunk().unwrap());
            let since = time.wrapping_sub(low_bits(before));
            assert!(u64::from(since) < 10_000_000_000, "{since} ns in {} bytes", bytes.len());
            let text = notation::decode(bytes);
            assert!(!text.contains("csum="), "{text}");
        }
    }

    /// A back end has slots until it is full, says so, and has slots again after a flush.
    #[test]
    fn a_full_ring_says_so_and_recovers() {
        for backend in BACKENDS {
            let ns = wire();
            let work = move || {
                let near = Interface::new("w0").unwrap();
                let mut tx = transmitter(backend, &near, 60, false);
                let (bytes, _) = frame(60, 7);
                let mut pushed = 0;
                for _ in 0..100 {
                    let mut burst = 0;
                    while let Some(slot) = tx.slot() {
                        slot[..60].copy_from_slice(&bytes);
                        tx.push(Written { len: 60, late: None }, 0);
                        burst += 1;
                        assert!(burst < 100_000, "{backend} is never full");
                    }
                    tx.flush(&mut |_| {}).unwrap();
                    pushed += burst;
                }
                assert_eq!(tx.settle(2_000_000_000), 0, "{backend}");
                assert!(pushed > 1000, "{backend}: {pushed}");
                let counts = near.tx_counts().unwrap();
                assert_eq!(counts.packets + counts.dropped, pushed, "{backend}");
            };
            ns.thread(work).join().unwrap().unwrap();
        }
    }

    /// Frames of a schedule leave when they are due, never before.
    #[test]
    fn live_frames_wait_until_they_are_due() {
        let ns = wire();
        let work = || {
            let near = Interface::new("w0").unwrap();
            let mut tx = transmitter("live", &near, 60, false);
            let (bytes, _) = frame(60, 7);
            let start = now_ns() + 2_000_000;
            let dues: Vec<u64> = (0..50).map(|index| start + index * 20_000).collect();
            for due in &dues {
                tx.slot().unwrap()[..60].copy_from_slice(&bytes);
                tx.push(Written { len: 60, late: None }, *due);
            }
            let mut left = Vec::new();
            tx.flush(&mut |at| left.push(at)).unwrap();
            assert_eq!(left.len(), dues.len());
            assert!(left.iter().zip(&dues).all(|(left, due)| left >= due), "{left:?}");
            assert!(left.is_sorted());
        };
        ns.thread(work).join().unwrap().unwrap();
    }

    #[test]
    fn every_back_end_delivers_every_packet() {
        for backend in BACKENDS {
            let ns = wire();
            let run = ["w0", "--to", "w1", "--backend", backend, "--pps", "20k", "--count", "5000", "--flows", "100"];
            let report = report(&ns, 0, &[&run[..], &["--drain", "0.2", "--fail-if", "loss>0"]].concat());
            assert_eq!(report["sent"]["packets"], 5000, "{report:#}");
            assert_eq!(report["received"]["lost"], 0, "{report:#}");
            assert_eq!(report["sending"]["backend"], backend, "{report:#}");
            assert_eq!(report["sending"]["interface"]["packets"], 5000, "{report:#}");
            // One less than packets, and than that one for each delay that was given up on.
            let gaps = report["pace"]["gap_ns"]["count"].as_u64().unwrap();
            assert!((3000..=4999).contains(&gaps), "{report:#}");
        }
    }

    /// Threads share flows and rate.
    #[test]
    fn threads_share_the_work() {
        let ns = Netns::new("packet-send").unwrap();
        let ends = ["name", "w0", "numtxqueues", "2", "numrxqueues", "2", "type", "veth", "peer", "name", "w1"];
        ns.ip(&[&["link", "add"], &ends[..], &["numtxqueues", "2", "numrxqueues", "2"]].concat()).unwrap();
        for end in ["w0", "w1"] {
            ns.ip(&["link", "set", end, "up"]).unwrap();
        }
        for backend in BACKENDS {
            let run = ["w0", "--to", "w1", "--backend", backend, "--threads", "2", "--pps", "20k", "--count", "4001"];
            let report = report(&ns, 0, &[&run[..], &["--flows", "7", "--drain", "0.2"]].concat());
            assert_eq!(report["sent"]["packets"], 4001, "{backend}: {report:#}");
            assert_eq!(report["received"]["lost"], 0, "{backend}: {report:#}");
            assert_eq!(report["sending"]["threads"], 2);
        }
    }

    /// `auto` goes by what the interface can and gives its reason; what cannot be sent live is refused with the reason.
    #[test]
    fn auto_says_why_and_nothing_falls_back_silently() {
        let ns = wire();
        let count = ["--dst-mac", "02::1", "--count", "10"];
        let chosen = report(&ns, 0, &[&["w0"], &count[..]].concat());
        assert_eq!(chosen["sending"]["backend"], "live", "{chosen:#}");
        assert!(chosen["sending"]["why"].as_str().unwrap().contains("takes redirected frames"), "{chosen:#}");
        ns.run("ethtool", &["-K", "w1", "gro", "off"]).unwrap();
        let chosen = report(&ns, 0, &[&["w0"], &count[..]].concat());
        assert_eq!(chosen["sending"]["backend"], "xsk", "{chosen:#}");
        assert!(chosen["sending"]["why"].as_str().unwrap().contains("no redirected frames"), "{chosen:#}");
        let errors = refusal(&ns, &[&["w0", "--backend", "live"], &count[..]].concat());
        assert!(errors.contains("ethtool -K PEER gro on"), "{errors}");
    }

    #[test]
    fn a_frame_too_long_for_a_page_is_named() {
        let ns = wire();
        let work = || {
            let near = Interface::new("w0").unwrap();
            (Live::new(&near, live::FRAME_MAX + 1, false, 1).unwrap_err(), umem::open("w0", 0, 20_000).unwrap_err())
        };
        let (live, xsk) = ns.thread(work).join().unwrap().unwrap();
        assert!(live.to_string().contains(&live::FRAME_MAX.to_string()), "{live}");
        assert!(xsk.to_string().contains("20000"), "{xsk}");
    }

    /// Root without any capability.
    #[test]
    fn a_missing_capability_is_named() {
        let ns = wire();
        for (backend, capability) in [("live", "CAP_BPF"), ("xsk", "CAP_NET_RAW"), ("packet", "CAP_NET_RAW")] {
            let bin = env!("CARGO_BIN_EXE_pktgen");
            let run = [bin, "run", "w0", "--dst-mac", "02::1", "--count", "1", "--backend", backend];
            let drop = ["--bounding-set=-all", "--inh-caps=-all"];
            let output = ns.command("setpriv").args(drop).args(run).output().unwrap();
            let errors = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{errors}");
            assert!(errors.contains(capability), "{backend}: {errors}");
        }
    }

    /// The rate is measured first, then kept; a rate out of reach makes the run invalid.
    #[test]
    fn percentages_and_rates_out_of_reach() {
        let ns = wire();
        let run = ["w0", "--dst-mac", "02::1", "--backend", "packet", "--for", "300ms"];
        let part = report(&ns, 0, &[&run[..], &["--pps", "10%"]].concat());
        let (maximum, requested) = (&part["pace"]["maximum_pps"], &part["pace"]["requested"]);
        assert!(maximum.as_f64().unwrap() > 1000.0, "{part:#}");
        assert!((requested.as_f64().unwrap() / maximum.as_f64().unwrap() - 0.1).abs() < 1e-6, "{part:#}");
        let beyond = report(&ns, 0, &[&run[..], &["--pps", "900M"]].concat());
        assert_eq!(beyond["pace"]["valid"], false, "{beyond:#}");
        assert!(beyond["pace"]["postponed_ns"].as_u64().unwrap() > 0, "{beyond:#}");
        for rate in ["0", "-1", "1e300", "2G", "101%"] {
            let output = pktgen(&ns, &[&["run"], &run[..], &[&format!("--pps={rate}")]].concat());
            assert_ne!(output.status.code(), Some(0), "{rate}");
        }
    }

    /// The other end is deleted in the middle of a run: it ends at once, with the counts and the reason.
    #[test]
    fn a_vanished_interface_ends_the_run() {
        for backend in BACKENDS {
            let ns = wire();
            let run = ["run", "w0", "--dst-mac", "02::1", "--pps", "5k", "--for", "60", "--json", "--backend", backend];
            let mut command = ns.command(env!("CARGO_BIN_EXE_pktgen"));
            let child = command.args(run).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            let child = child.spawn().unwrap();
            wait_for(|| received(&ns, "w1").0 > 100);
            ns.ip(&["link", "del", "w1"]).unwrap();
            let deleted = Instant::now();
            let output = child.wait_with_output().unwrap();
            assert!(deleted.elapsed() < Duration::from_secs(10), "{backend}");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{backend}: {errors}");
            assert!(errors.contains("gone"), "{backend}: {errors}");
            let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"));
            assert!(report["sent"]["packets"].as_u64().unwrap() > 100, "{backend}: {report:#}");
        }
    }

    /// The interface goes down and comes back: the outage is reported and not made up for, and sending goes on.
    #[test]
    fn an_interface_that_comes_back_is_sent_on_again() {
        for backend in BACKENDS {
            let ns = wire();
            let run =
                ["run", "w0", "--dst-mac", "02::1", "--pps", "2k", "--count", "2000", "--json", "--backend", backend];
            let mut command = ns.command(env!("CARGO_BIN_EXE_pktgen"));
            let child = command.args(run).stdout(std::process::Stdio::piped()).spawn().unwrap();
            wait_for(|| received(&ns, "w1").0 > 100);
            ns.ip(&["link", "set", "w0", "down"]).unwrap();
            std::thread::sleep(Duration::from_millis(300));
            let while_down = received(&ns, "w1").0;
            ns.ip(&["link", "set", "w0", "up"]).unwrap();
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{backend}");
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(report["sent"]["packets"], 2000, "{backend}: {report:#}");
            assert!(report["sending"]["outages"].as_u64().unwrap() >= 1, "{backend}: {report:#}");
            assert!(report["sending"]["outage_ns"].as_u64().unwrap() > 100_000_000, "{backend}: {report:#}");
            assert!(report["pace"]["postponed_ns"].as_u64().unwrap() > 100_000_000, "{backend}: {report:#}");
            assert!(received(&ns, "w1").0 > while_down + 500, "{backend}: {report:#}");
        }
    }

    #[track_caller]
    fn wait_for(mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline, "nothing came of it");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_probe_measures_what_it_says_and_sends_only_when_it_may() {
        let ns = wire();
        let probe = |args: &[&str]| {
            let output = pktgen(&ns, &[&["probe", "w0", "--json"], args].concat());
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice::<Value>(&output.stdout).unwrap()
        };
        let silent = probe(&["--no-send"]);
        assert_eq!((received(&ns, "w1").0, &silent["rates"]), (0, &Value::Array(Vec::new())));
        assert_eq!((&silent["live_frames"], &silent["auto"]), (&"yes".into(), &"live".into()));
        let loud = probe(&["--time", "100ms"]);
        let rates = loud["rates"].as_array().unwrap();
        let names: Vec<&Value> = rates.iter().map(|rate| &rate["backend"]).collect();
        assert_eq!(names, BACKENDS);
        for rate in rates {
            assert!(rate["sent_pps"].as_f64().unwrap() > 1000.0, "{rate:#}");
        }
        assert!(matches!(TxError::from(std::io::Error::from_raw_os_error(libc::ENETDOWN)), TxError::Down));
    }
}
