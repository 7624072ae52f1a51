//! `pktgen connect` against the kernel's own TCP and UDP, in namespaces of each test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod root {
    use std::collections::HashSet;
    use std::io::{Read as _, Write as _};
    use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
    use std::process::Output;
    use std::thread::JoinHandle;
    use std::time::Duration;

    use serde_json::Value;
    use testkit::netns::{End, Netns, veth};

    const REQUEST: &str = r"GET / HTTP/1.0\r\n\r\n";
    const REQUEST_LEN: u64 = 18;

    /// A client that has none of the client addresses, and a server that routes them to it.
    struct Pair {
        client: Netns,
        server: Netns,
    }

    fn pair() -> Pair {
        let (client, server) = (Netns::new("connect-client").unwrap(), Netns::new("connect-server").unwrap());
        let near = ["10.0.0.1/24".parse().unwrap(), "fd00::1/64".parse().unwrap()];
        let far = ["10.0.0.2/24".parse().unwrap(), "fd00::2/64".parse().unwrap()];
        veth(
            End { netns: &client, name: "out", addresses: &near },
            End { netns: &server, name: "in", addresses: &far },
        )
        .unwrap();
        server.ip(&["route", "add", "10.1.0.0/16", "via", "10.0.0.1"]).unwrap();
        server.ip(&["route", "add", "fd01::/64", "via", "fd00::1"]).unwrap();
        Pair { client, server }
    }

    impl Pair {
        fn connect(&self, args: &[&str]) -> Output {
            let all = [&["connect", "out"], args].concat();
            self.client.command(env!("CARGO_BIN_EXE_pktgen")).args(all).output().unwrap()
        }

        /// Runs to the end with exit code `code`, with IPv4 clients where `args` name none; the report.
        #[track_caller]
        fn report(&self, code: i32, args: &[&str]) -> Value {
            let clients = if args.contains(&"--clients") { &[][..] } else { &["--clients", "10.1.0.0/24"] };
            let output = self.connect(&[args, clients, &["--json"]].concat());
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{errors}");
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"))
        }

        #[track_caller]
        fn error(&self, args: &[&str]) -> String {
            let output = self.connect(args);
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            String::from_utf8(output.stderr).unwrap()
        }

        /// Serves `count` connections, each on a thread of its own, and returns the addresses that they came from.
        fn serve(&self, address: &'static str, count: usize, serve: fn(TcpStream)) -> JoinHandle<HashSet<IpAddr>> {
            let listener = self.server.thread(move || TcpListener::bind(address).unwrap()).join().unwrap().unwrap();
            // A connection that never comes fails the test; it does not hold it up for good.
            let patience = Some(Duration::from_secs(100));
            rustix::net::sockopt::set_socket_timeout(&listener, rustix::net::sockopt::Timeout::Recv, patience).unwrap();
            std::thread::spawn(move || {
                let accepted: Vec<_> = (0..count)
                    .map(|_| {
                        let (stream, from) = listener.accept().unwrap();
                        (std::thread::spawn(move || serve(stream)), from.ip())
                    })
                    .collect();
                accepted.into_iter().map(|(thread, from)| (thread.join().unwrap(), from).1).collect()
            })
        }

        fn nft(&self, rule: &str) {
            let rules = format!("table inet t {{ chain c {{ type filter hook prerouting priority -300; {rule}; }}; }}");
            self.server.run("nft", &[&rules]).unwrap();
        }
    }

    /// Reads one request; false where the client closes or resets first.
    fn request(stream: &mut TcpStream) -> bool {
        let mut request = [0; REQUEST_LEN as usize];
        stream.read_exact(&mut request).is_ok_and(|()| request.ends_with(b"\r\n\r\n"))
    }

    /// 5000 bytes, then the server closes.
    fn page(mut stream: TcpStream) {
        if request(&mut stream) {
            stream.write_all(&[b'x'; 5000]).unwrap();
        }
    }

    /// 100 bytes for every request, until the client closes.
    fn keep_alive(mut stream: TcpStream) {
        while request(&mut stream) {
            stream.write_all(&[b'x'; 100]).unwrap();
        }
    }

    /// The beginning of an answer, then a reset.
    fn broken(mut stream: TcpStream) {
        if request(&mut stream) {
            stream.write_all(&[b'x'; 1000]).unwrap();
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        }
    }

    fn closed(mut stream: TcpStream) {
        // An error where the client resets.
        let _ = stream.read(&mut [0; 1]);
    }

    #[track_caller]
    fn assert_counts(report: &Value, expected: &[(&str, u64)]) {
        for (path, count) in expected {
            let pointer = format!("/{}", path.replace('.', "/"));
            assert_eq!(report.pointer(&pointer).and_then(Value::as_u64), Some(*count), "{path}: {report:#}");
        }
    }

    /// Every connection went from SYN to the last FIN, and nothing else happened.
    #[track_caller]
    fn assert_clean(report: &Value, count: u64) {
        assert_counts(report, &[("attempted", count), ("established", count), ("completed", count)]);
        let bad = ["cut_short", "unreachable", "unexpected", "bad_checksum", "exhausted", "unfinished"];
        assert_counts(report, &bad.map(|name| (name, 0)));
        for phase in ["connect", "data", "close"] {
            assert_counts(report, &[(&format!("resets.{phase}"), 0), (&format!("timeouts.{phase}"), 0)]);
        }
    }

    #[test]
    fn requests_are_answered_over_both_families() {
        let pair = pair();
        for (to, clients) in [("10.0.0.2:80", "10.1.0.0/24"), ("[fd00::2]:80", "fd01::/120")] {
            let server = pair.serve(to, 200, page);
            let args = ["--to", to, "--clients", clients, "--request", REQUEST, "--concurrent", "20", "--count", "200"];
            let report = pair.report(0, &[&args[..], &["--fail-if", "failed>0"]].concat());
            let from = server.join().unwrap();
            let prefix: ipnet::IpNet = clients.parse().unwrap();
            assert!(from.len() > 100 && from.iter().all(|address| prefix.contains(address)), "{from:?}");
            assert_clean(&report, 200);
            let bytes = [("bytes_sent", 200 * REQUEST_LEN), ("bytes_received", 200 * 5000), ("requests", 200)];
            assert_counts(&report, &bytes);
            let latency = |name: &str, figure: &str| report[name][figure].as_u64().unwrap();
            assert_eq!(latency("connect_ns", "samples"), 200);
            assert!(latency("connect_ns", "min") > 0);
            assert!(latency("complete_ns", "min") > latency("connect_ns", "min"));
            assert!(report["peak_concurrent"].as_u64().unwrap() <= 20, "{report:#}");
            assert_eq!((&report["protocol"], &report["from"]["xdp_mode"]), (&"tcp".into(), &"native".into()));
        }
    }

    #[test]
    fn requests_follow_each_other_and_the_client_closes() {
        let pair = pair();
        let server = pair.serve("10.0.0.2:80", 50, keep_alive);
        let args = [
            &["--to", "10.0.0.2:80", "--request", REQUEST, "--response", "100", "--requests-per-connection", "5"][..],
            &["--cps", "200", "--count", "50", "--hold", "100ms"],
        ]
        .concat();
        let report = pair.report(0, &args);
        server.join().unwrap();
        assert_clean(&report, 50);
        assert_counts(&report, &[("requests", 250), ("bytes_received", 250 * 100)]);
        // Each is held for 100 ms at 200 a second.
        assert!(report["peak_concurrent"].as_u64().unwrap() > 10, "{report:#}");
    }

    #[test]
    fn aborts_reach_the_server() {
        let pair = pair();
        let server = pair.serve("10.0.0.2:80", 30, |mut stream| {
            let error = stream.read(&mut [0; 1]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        });
        let report = pair.report(0, &["--to", "10.0.0.2:80", "--concurrent", "30", "--count", "30", "--abort"]);
        server.join().unwrap();
        assert_clean(&report, 30);
    }

    #[test]
    fn a_closed_port_refuses_every_connection() {
        let pair = pair();
        let args = ["--to", "10.0.0.2:81", "--concurrent", "10", "--count", "100", "--fail-if", "failed>0"];
        let report = pair.report(3, &args);
        assert_counts(&report, &[("attempted", 100), ("resets.connect", 100), ("established", 0), ("completed", 0)]);
    }

    #[test]
    fn a_black_hole_times_every_handshake_out() {
        let pair = pair();
        pair.nft("tcp dport 80 drop");
        let args = ["--to", "10.0.0.2:80", "--concurrent", "50", "--count", "50", "--syn-timeout", "1500ms"];
        let report = pair.report(0, &args);
        let expected = [("attempted", 50), ("timeouts.connect", 50), ("retransmissions", 50), ("packets_sent", 100)];
        assert_counts(&report, &expected);
    }

    #[test]
    fn resets_in_the_middle_are_counted_as_such() {
        let pair = pair();
        let server = pair.serve("10.0.0.2:80", 40, broken);
        let args = ["--to", "10.0.0.2:80", "--concurrent", "10", "--count", "40", "--request", REQUEST];
        let report = pair.report(0, &args);
        server.join().unwrap();
        assert_counts(&report, &[("established", 40), ("resets.data", 40), ("completed", 0)]);
    }

    #[test]
    fn a_server_that_closes_early_cuts_the_answer_short() {
        let pair = pair();
        let server = pair.serve("10.0.0.2:80", 20, page);
        let args = ["--to", "10.0.0.2:80", "--concurrent", "10", "--count", "20", "--request", REQUEST];
        let report = pair.report(0, &[&args[..], &["--response", "5001"]].concat());
        server.join().unwrap();
        assert_counts(&report, &[("established", 20), ("cut_short", 20), ("bytes_received", 20 * 5000)]);
    }

    #[test]
    fn loss_is_repaired() {
        let pair = pair();
        // Every tenth segment from the client, and of those to it every ninth.
        pair.nft("tcp dport 80 numgen inc mod 10 == 0 drop");
        // What is dropped on its way out is an error to the server's kernel, which gives a half-open connection up then. It goes to a
        // port that nobody has.
        let back = "table inet u { chain c { type filter hook output priority 0; tcp sport 80 numgen inc mod 9 == 0 tcp dport set 9; }; }";
        pair.server.run("nft", &[back]).unwrap();
        let server = pair.serve("10.0.0.2:80", 60, page);
        let args = ["--to", "10.0.0.2:80", "--concurrent", "60", "--count", "60", "--request", REQUEST];
        let report = pair.report(0, &[&args[..], &["--syn-timeout", "60s", "--timeout", "60s"]].concat());
        server.join().unwrap();
        assert_counts(&report, &[("completed", 60), ("bytes_received", 60 * 5000)]);
        assert!(report["retransmissions"].as_u64().unwrap() > 0, "{report:#}");
    }

    #[test]
    fn connections_are_held_open_at_once() {
        let pair = pair();
        let server = pair.serve("10.0.0.2:80", 500, closed);
        let args = ["--to", "10.0.0.2:80", "--concurrent", "500", "--count", "500", "--hold", "1s"];
        let report = pair.report(0, &args);
        server.join().unwrap();
        assert_clean(&report, 500);
        assert_counts(&report, &[("peak_concurrent", 500)]);
    }

    #[test]
    fn datagrams_are_echoed_lost_or_refused() {
        let pair = pair();
        let socket = pair.server.thread(|| UdpSocket::bind("10.0.0.2:53").unwrap()).join().unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let server = std::thread::spawn(move || {
            let mut data = [0; 2000];
            for _ in 0..300 {
                let (len, from) = socket.recv_from(&mut data).unwrap();
                socket.send_to(&data[..len], from).unwrap();
            }
        });
        let udp = ["--udp", "--concurrent", "10", "--request-bytes", "200", "--timeout", "5s"];
        let args = ["--to", "10.0.0.2:53", "--count", "100", "--requests-per-connection", "3", "--response", "200"];
        let report = pair.report(0, &[&udp[..], &args].concat());
        server.join().unwrap();
        let bytes = 300 * 200;
        let expected = [("completed", 100), ("requests", 300), ("bytes_sent", bytes), ("bytes_received", bytes)];
        assert_counts(&report, &expected);

        // ICMP says that nobody listens; the kernel limits how often it does, per client address.
        let report = pair.report(0, &[&udp[..], &["--to", "10.0.0.2:54", "--count", "20"]].concat());
        assert_counts(&report, &[("attempted", 20), ("unreachable", 20), ("completed", 0)]);

        pair.nft("udp dport 55 drop");
        let args = ["--to", "10.0.0.2:55", "--count", "20", "--concurrent", "20", "--timeout", "500ms"];
        let report = pair.report(0, &[&["--udp", "--request-bytes", "9"][..], &args].concat());
        assert_counts(&report, &[("timeouts.data", 20), ("established", 0)]);
    }

    #[test]
    fn mistakes_are_named() {
        let pair = pair();
        let load = ["--concurrent", "1", "--count", "1"];
        let error = |args: &[&str]| pair.error(&[args, &load].concat());
        for (args, expected) in [
            (&["--to", "203.0.113.1:80", "--clients", "10.1.0.0/24"][..], "no route to 203.0.113.1"),
            (&["--to", "10.0.0.2:80", "--clients", "fd01::/64"], "not of one family"),
            (&["--to", "10.0.0.2:80", "--clients", "10.0.0.0/24"], "lies in the client prefix"),
            (&["--to", "10.0.0.77:80", "--clients", "10.1.0.0/24"], "10.0.0.77 on out does not answer"),
            (&["--to", "127.0.0.1:80", "--clients", "10.1.0.0/24"], "leaves by interface 1, not by out"),
            (&["--to", "10.0.0.2:80", "--clients", "10.1.0.1/32", "--udp"], "UDP needs a request"),
            (
                &["--to", "10.0.0.2:80", "--clients", "10.1.0.1/32", "--requests-per-connection", "2"],
                "need a request and a response",
            ),
        ] {
            let error = error(args);
            assert!(error.contains(expected), "{args:?}: {error}");
        }
        let many = ["--to", "10.0.0.2:80", "--clients", "10.1.0.1/32", "--ports", "1-2", "--count", "1"];
        let error = pair.error(&[&many[..], &["--concurrent", "3"]].concat());
        assert!(error.contains("have only 2 addresses and ports"), "{error}");

        let args = ["connect", "nowhere", "--to", "10.0.0.2:80", "--clients", "10.1.0.0/24"];
        let output = pair.client.command(env!("CARGO_BIN_EXE_pktgen")).args(args).args(load).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("nowhere"), "{output:?}");

        let args = ["--bounding-set=-all", "--inh-caps=-all", env!("CARGO_BIN_EXE_pktgen"), "connect", "out"];
        let target = ["--to", "10.0.0.2:80", "--clients", "10.1.0.0/24"];
        let output = pair.client.command("setpriv").args(args).args(target).args(load).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && errors.contains("CAP_BPF"), "{errors}");
    }
}
