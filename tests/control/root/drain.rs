//! Draining and dying backends under live connections: two backends that are addresses of one server, so that a connection can be seen to
//! move and go on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use testkit::netns::{Process, add_address};

use crate::harness::Lab;

const DOCUMENTS: &str = "
apiVersion: margay.io/v1
kind: Node
metadata: {name: gw}
spec: {interfaces: [{name: left0}, {name: right0}]}
---
apiVersion: margay.io/v1
kind: VirtualService
metadata: {name: echo}
spec:
  addresses: [192.0.2.10]
  port: 8080
  protocol: TCP
  encap: {type: L2}
  healthCheck: {type: TCP, interval: 200ms, timeout: 150ms}
  backends: [{address: 10.2.0.11}, {address: 10.2.0.12}]
";

const SERVERS: [&str; 2] = ["10.2.0.11", "10.2.0.12"];

/// Sends back what it gets.
const ECHO: &str = "
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(4096):
            self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512
Server(('', 8080), Echo).serve_forever()
";

fn connect(lab: &Lab, count: usize) -> Vec<TcpStream> {
    let connect = move || {
        let connect =
            |_| TcpStream::connect_timeout(&"192.0.2.10:8080".parse().unwrap(), Duration::from_secs(10)).unwrap();
        (0..count).map(connect).collect()
    };
    let streams: Vec<TcpStream> = lab.client.thread(connect).join().unwrap().unwrap();
    streams.iter().for_each(|stream| stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap());
    streams
}

/// A word there and back on every connection.
fn talk(streams: &mut [TcpStream]) {
    for stream in streams.iter_mut() {
        stream.write_all(b"margay").unwrap();
    }
    for stream in streams {
        let mut back = [0; 6];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"margay");
    }
}

/// Packets sent to each server.
fn packets(lab: &Lab) -> [u64; 2] {
    SERVERS.map(|server| lab.get(&["backends", server])[0]["packets"].as_u64().unwrap())
}

fn state(lab: &Lab, server: &str) -> String {
    lab.get(&["backends", server])[0]["state"].as_str().unwrap().to_owned()
}

/// Both backends up behind a running agent, and their server.
fn lab(name: &str, documents: &str) -> (Lab, Process) {
    let mut lab = Lab::new(name, documents);
    for server in SERVERS {
        add_address(&lab.server, "eth0", format!("{server}/24").parse().unwrap()).unwrap();
    }
    lab.server.ip(&["address", "add", "192.0.2.10/32", "dev", "lo"]).unwrap();
    let echo = lab.server.spawn("/usr/bin/python3", &["-c", ECHO]).unwrap();
    lab.start();
    lab.until("both are up", |lab| SERVERS.iter().all(|server| state(lab, server) == "up"));
    (lab, echo)
}

#[test]
fn connections_stay_with_a_backend_that_drains_and_leave_one_that_dies() {
    let (mut lab, _echo) = lab("drain", DOCUMENTS);
    let mut old = connect(&lab, 40);
    talk(&mut old);
    let [first, second] = packets(&lab);
    assert!(first > 0 && second > 0, "{first} {second}: each has some of them");

    // What began stays, and keeps the backend from being quiet.
    let output = lab.margay(&["drain", "10.2.0.11"]);
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(words, "10.2.0.11 of echo drains: no new flows while another serves\n");
    assert_eq!(state(&lab, SERVERS[0]), "draining");
    assert_eq!(lab.get(&["backends", SERVERS[0]])[0]["share_percent"].as_f64(), Some(0.0));
    let [before, _] = packets(&lab);
    talk(&mut old);
    let [after, _] = packets(&lab);
    assert!(after > before, "its connections are still its own");
    let mut new = connect(&lab, 40);
    talk(&mut new);
    let [still, _] = packets(&lab);
    assert_eq!(still, after, "nothing of the new ones");
    let busy = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| lab.margay(&["drain", "10.2.0.11", "--wait", "3", "--quiet", "2", "-o", "json"]));
        while !waiting.is_finished() {
            talk(&mut old);
            std::thread::sleep(Duration::from_millis(100));
        }
        waiting.join().unwrap()
    });
    assert_eq!(busy.status.code(), Some(3), "{}", String::from_utf8_lossy(&busy.stderr));
    let report: serde_json::Value = serde_json::from_slice(&busy.stdout).unwrap();
    let row = &report["items"][0];
    assert_eq!((row["state"].as_str(), row["backend"].as_str()), (Some("draining"), Some(SERVERS[0])), "{report:#}");
    assert!(row["flows"].as_u64().unwrap() > 0 && row["silent_seconds"].as_u64().unwrap() <= 3, "{report:#}");

    // Over a restart, and the configuration being read again.
    lab.stop("-KILL");
    talk(&mut old);
    lab.start();
    assert_eq!(state(&lab, SERVERS[0]), "draining");
    assert_eq!(lab.metric("margay_config_map_writes_total", ""), 0, "{}", lab.words());
    talk(&mut old);
    talk(&mut new);
    lab.write("lab.yaml", &DOCUMENTS.replace("interval: 200ms", "interval: 250ms"));
    lab.until("the other check", |lab| lab.get(&["backends", SERVERS[0]])[0]["health"]["succeeded"] != 0);
    assert_eq!(state(&lab, SERVERS[0]), "draining");
    let done = lab.margay(&["drain", "10.2.0.11", "--service", "echo", "--wait", "20", "--quiet", "2"]);
    let words = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && words.contains("no packet for 2 s"), "{words}");

    // Back again: nobody has to move.
    assert!(lab.margay(&["drain", "10.2.0.11", "--undo"]).status.success());
    assert_eq!(state(&lab, SERVERS[0]), "up");
    let [before, _] = packets(&lab);
    talk(&mut old);
    talk(&mut new);
    assert!(packets(&lab)[0] > before, "whose they were");

    // One that dies has nothing any more: its connections go to the other, wherever they were remembered.
    lab.server.ip(&["address", "del", "10.2.0.11/24", "dev", "eth0"]).unwrap();
    lab.until("down", |lab| state(lab, SERVERS[0]) == "down");
    let [_, before] = packets(&lab);
    talk(&mut old);
    talk(&mut new);
    assert!(packets(&lab)[1] >= before + 160, "a word and its acknowledgement on each of eighty");
    for wrong in [&["drain", "10.9.9.9"][..], &["drain", "10.2.0.11", "--service", "ehco"], &["drain", "10.2.0"]] {
        let output = lab.margay(wrong);
        assert!(!output.status.success() && !output.stderr.is_empty(), "{wrong:?}");
    }
}

/// Changed slots are so for as long as it is told, and those of connections that go elsewhere for as long as these live.
#[test]
fn slots_that_have_changed_count_as_unchanged_after_a_while() {
    let documents = DOCUMENTS.replace("{name: right0}]", "{name: right0}], flowTable: {settleSeconds: 6}");
    let (lab, _echo) = lab("settle", &documents);
    let changed = |lab: &Lab| lab.get(&["vips"])[0]["changed_slots"].as_u64().unwrap();
    // Those of the moment when one was checked and the other was not yet.
    lab.until("none has changed", |lab| changed(lab) == 0);
    let mut old = connect(&lab, 20);
    talk(&mut old);

    assert!(lab.margay(&["drain", "10.2.0.11"]).status.success());
    talk(&mut old);
    assert!(changed(&lab) > 30_000, "the half of them: {}", changed(&lab));
    talk(&mut old);
    lab.until("few are left", |lab| changed(lab) <= 20);
    assert!(changed(&lab) > 0, "those of the connections that the draining one has");
    let [before, _] = packets(&lab);
    talk(&mut old);
    assert!(packets(&lab)[0] > before, "they are still its own");
}
