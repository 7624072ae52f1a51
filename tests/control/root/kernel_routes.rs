//! The kernel's routes through the whole agent: from `ip route`, BIRD and FRR on the gateway to packets.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bird::{Bird, session};
use crate::frr::Frr;
use crate::harness::Lab;

const DOCUMENTS: &str = "
apiVersion: margay.io/v1
kind: Node
metadata: {name: gw}
spec: {interfaces: [{name: left0}, {name: right0}], kernelRoutes: {auditSeconds: 5}}
";

/// The n-th of a table's prefixes, none of which can be summarised with its neighbours.
fn prefix(n: u32) -> String {
    format!("{}/24", Ipv4Addr::from((20 << 24) + (n << 8)))
}

/// A file of commands that add so many routes.
fn batch(lab: &Lab, count: u32) -> String {
    let commands = (0..count).fold(String::new(), |mut text, n| {
        writeln!(text, "route add {} via 10.2.0.2", prefix(n)).unwrap();
        text
    });
    let file = lab.directory.path().join("batch");
    std::fs::write(&file, commands).unwrap();
    file.display().to_string()
}

/// Pings from the client, 10 ms apart.
fn pings(lab: &Lab, address: &str, count: u32) -> Child {
    let mut ping = lab.client.command("ping");
    ping.args(["-q", "-i", "0.01", "-W", "5", "-c", &count.to_string(), address]).stdout(Stdio::piped());
    ping.spawn().unwrap()
}

/// Every ping has had its reply.
fn all_replied(ping: Child, count: u32) {
    let output = String::from_utf8(ping.wait_with_output().unwrap().stdout).unwrap();
    assert!(output.contains(&format!("{count} received")), "{output}");
}

/// `get routes --diff kernel`: the exit code and the document.
fn diff(lab: &Lab) -> (i32, Value) {
    let output = lab.margay(&["get", "routes", "--diff", "kernel", "-o", "json"]);
    let document = serde_json::from_slice(&output.stdout);
    let document = document.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), document)
}

/// Asserts that what is held is what the kernel has, and forwards; returns the number of routes.
fn equal(lab: &Lab) -> u64 {
    let (code, diff) = diff(lab);
    assert_eq!((code, &diff["differences"]["total"]), (0, &Value::from(0)), "{diff:#}\n{}", lab.words());
    assert_eq!(diff["kernel"], diff["margay"]);
    diff["kernel"]["routes"].as_u64().unwrap()
}

/// Waits until nothing is on its way any more, and asserts that all is [`equal`] then.
fn finally_equal(lab: &Lab) -> u64 {
    let end = Instant::now() + Duration::from_secs(120);
    while diff(lab).0 != 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(200));
    }
    equal(lab)
}

fn synchronised(lab: &Lab) {
    lab.until("synchronised", |lab| lab.status()["kernel_routes"]["synchronised"] == true);
    lab.until("healthy", |lab| lab.status()["problems"].as_array().unwrap().is_empty());
}

/// Waits until margay holds as many routes as were installed; says what the slowest answer of the agent took meanwhile.
fn until_held(lab: &Lab, count: u64, limit: Duration) -> Duration {
    let end = Instant::now() + limit;
    let mut slowest = Duration::ZERO;
    loop {
        let asked = Instant::now();
        let held = lab.status()["kernel_routes"]["routes"].as_u64().unwrap();
        slowest = slowest.max(asked.elapsed());
        if held >= count {
            return slowest;
        }
        assert!(Instant::now() < end, "{held} of {count} after {limit:?}: {}", lab.words());
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn routes_of_ip_route_forward_and_differences_are_told() {
    let mut lab = Lab::new("kernel", DOCUMENTS);
    lab.gateway.ip(&["link", "add", "mgmt0", "type", "veth", "peer", "name", "mgmt1"]).unwrap();
    lab.gateway.ip(&["addr", "add", "10.99.0.1/24", "dev", "mgmt0"]).unwrap();
    lab.gateway.ip(&["link", "set", "mgmt0", "up"]).unwrap();
    lab.gateway.ip(&["link", "set", "mgmt1", "up"]).unwrap();
    for host in ["198.51.100.7/32", "2001:db8:7::7/128"] {
        lab.server.ip(&["addr", "add", host, "dev", "lo"]).unwrap();
    }
    lab.start();
    synchronised(&lab);
    let way = |to: &str| {
        let way = lab.explain(&["udp", "10.1.0.2:1", &format!("{to}:2"), "-i", "left0"]);
        let detail = way["detail"].as_str().unwrap_or_default().split(':').next().unwrap();
        format!("{} {detail}", way["verdict"].as_str().unwrap()).trim_end().to_owned()
    };
    assert_eq!(way("198.51.100.7"), "punt NO_ROUTE");
    lab.gateway.ip(&["route", "add", "198.51.100.0/24", "via", "10.2.0.2"]).unwrap();
    lab.gateway.ip(&["-6", "route", "add", "2001:db8:7::/48", "via", "fd02::2"]).unwrap();
    lab.gateway.ip(&["route", "add", "blackhole", "198.51.100.128/25"]).unwrap();
    lab.gateway.ip(&["route", "add", "default", "via", "10.99.0.2"]).unwrap();
    lab.until("they forward", |lab| {
        lab.get(&["routes", "--limit", "1000"]).iter().filter(|route| route["source"] == "kernel").count() == 4
    });
    assert_eq!(way("198.51.100.7"), "redirect right0");
    assert_eq!(way("198.51.100.200"), "drop BLACKHOLE");
    assert_eq!(way("192.0.2.1"), "pass", "by an interface that is no port: the host's stack decides");
    assert_eq!(lab.ping("198.51.100.7", 10), 10);
    assert_eq!(lab.ping("2001:db8:7::7", 10), 10);
    // What the slow path sent while the neighbours were asked for is not the program's.
    for next_hop in ["10.2.0.2", "fd02::2"] {
        let sent = lab.get(&["nexthops", next_hop])[0]["sent"]["packets"].as_u64().unwrap();
        assert!((9..=10).contains(&sent), "{next_hop}: {sent}");
        assert_eq!(lab.metric("margay_next_hop_packets_total", &format!(r#"next_hop="{next_hop}""#)), sent);
    }
    equal(&lab);
    assert_eq!(lab.metric("margay_rib_routes", r#"source="kernel""#), lab.status()["kernel_routes"]["routes"]);
    let text = String::from_utf8(lab.margay(&["get", "routes", "--diff", "kernel"]).stdout).unwrap();
    assert!(text.contains("no difference") && text.contains("sha256"), "{text}");
    lab.until("an audit", |lab| lab.status()["kernel_routes"]["audits"].as_u64() > Some(0));
    assert_eq!(lab.metric("margay_kernel_routes_repaired_total", ""), 0);

    // A port without carrier: the kernel keeps the route, margay cannot forward by it.
    lab.server.ip(&["link", "set", "eth0", "down"]).unwrap();
    lab.until("told", |lab| diff(lab).0 == 3);
    let (_, document) = diff(&lab);
    let row = document["differences"]["items"].as_array().unwrap();
    let row = row.iter().find(|row| row["prefix"] == "198.51.100.0/24").unwrap_or_else(|| panic!("{document:#}"));
    assert_eq!((&row["kind"], &row["kernel"]), (&"not-forwarded".into(), &"via 10.2.0.2 dev right0".into()));
    let text = String::from_utf8(lab.margay(&["get", "routes", "--diff", "kernel"]).stdout).unwrap();
    assert!(text.contains("not forwarded") && text.contains("via 10.2.0.2 dev right0"), "{text}");

    lab.write("lab.yaml", &DOCUMENTS.replace("auditSeconds: 5", "enabled: false"));
    lab.until("no longer followed", |lab| lab.status()["kernel_routes"]["table"].is_null());
    lab.until("let go", |lab| lab.get(&["routes"]).iter().all(|route| route["source"] != "kernel"));
    let refused = lab.margay(&["get", "routes", "--diff", "kernel"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("kernelRoutes"), "{refused:?}");
    assert_eq!(lab.margay(&["get", "vips", "--diff", "kernel"]).status.code(), Some(2));
}

/// A running lab with a route that answers, a file of commands that add `count` others, and how many routes are held.
fn before_a_storm(name: &str, count: u32) -> (Lab, String, u64) {
    let mut lab = Lab::new(name, DOCUMENTS);
    lab.server.ip(&["addr", "add", "198.51.100.7/32", "dev", "lo"]).unwrap();
    lab.gateway.ip(&["route", "add", "198.51.100.0/24", "via", "10.2.0.2"]).unwrap();
    lab.start();
    synchronised(&lab);
    lab.until_forwarded("198.51.100.7");
    let held = equal(&lab);
    let file = batch(&lab, count);
    (lab, file, held)
}

/// A changed route costs a look-up a second cache line until nothing changes any more.
#[test]
fn what_changes_have_moved_goes_home_when_it_is_quiet() {
    let (lab, _, _) = before_a_storm("quiet", 0);
    let away = |lab: &Lab| lab.metric("margay_fib_away_blocks", r#"family="ip4""#);
    lab.until("all at home", |lab| away(lab) == 0);
    // In the first line and the second one of a /17: their blocks are there, and so are their readers.
    let both = |command: &str| {
        let change = |prefix: &str| format!("route {command} {prefix} via 10.1.0.2\n");
        let file = lab.directory.path().join(command);
        std::fs::write(&file, change("198.51.101.0/24") + &change("10.2.0.128/25")).unwrap();
        lab.gateway.ip(&["-batch", file.to_str().unwrap()]).unwrap();
    };
    let seen = || {
        both("add");
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            if away(&lab) == 2 {
                return true;
            }
        }
        // They may have been so for the second that nobody was let look.
        both("del");
        lab.until("they are home without", |lab| away(lab) == 0);
        false
    };
    assert!((0..10).any(|_| seen()), "both have successors elsewhere");
    lab.until("they are home", |lab| away(lab) == 0);
    assert_eq!(lab.status()["tables"]["fib4"]["away"], 0);
    assert_eq!(lab.metric("margay_fib_depth", r#"family="ip4""#), 1);
    let blocks = lab.metric("margay_fib_blocks", r#"family="ip4",level="1""#);
    assert!((4..8).contains(&blocks), "{blocks}");
    equal(&lab);
}

#[test]
fn no_packet_of_a_route_that_stays_is_lost_while_others_storm() {
    let (lab, file, held) = before_a_storm("storm", 50_000);

    let ping = pings(&lab, "198.51.100.7", 800);
    for _ in 0..2 {
        lab.gateway.ip(&["-batch", &file]).unwrap();
        lab.gateway.ip(&["route", "flush", "root", "20.0.0.0/8"]).unwrap();
        // The API answers in the midst of it.
        assert!(lab.status()["generation"].as_u64() > Some(0));
    }
    all_replied(ping, 800);
    assert_eq!(finally_equal(&lab), held);
    assert_eq!(lab.status()["kernel_routes"]["repaired"], 0, "{}", lab.words());
}

/// `cargo test --release -p margay --test control -- --ignored --nocapture an_overflowed`
///
/// The recovery itself is tested with a small buffer in `tests/kernel_routes.rs`.
#[test]
#[ignore = "as many changes as overflow the agent's own buffer take a minute and a release build"]
fn an_overflowed_socket_is_made_good_without_a_lost_packet() {
    const PINGS: u32 = 3_000;
    let (lab, file, held) = before_a_storm("flood", 50_000);
    let undo = std::fs::read_to_string(&file).unwrap().replace("route add", "route del");
    let undone = lab.directory.path().join("undo");
    std::fs::write(&undone, undo).unwrap();

    let pid = lab.status()["pid"].to_string();
    let signal = |signal: &str| assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    let ping = pings(&lab, "198.51.100.7", PINGS);
    // Nobody reads the notifications until there is no room for more.
    signal("-STOP");
    for _ in 0..8 {
        lab.gateway.ip(&["-batch", &file]).unwrap();
        lab.gateway.ip(&["-batch", undone.to_str().unwrap()]).unwrap();
    }
    lab.gateway.ip(&["route", "add", "203.0.113.0/24", "via", "10.2.0.2"]).unwrap();
    signal("-CONT");
    lab.until("told of the loss", |lab| lab.status()["kernel_routes"]["overruns"].as_u64() > Some(0));
    assert_eq!(finally_equal(&lab), held + 1);
    all_replied(ping, PINGS);
    assert!(lab.metric("margay_kernel_routes_overruns_total", "") > 0);
    eprintln!("{:#}", lab.status()["kernel_routes"]);
}

#[test]
fn a_restart_keeps_what_the_kernel_still_has() {
    const ROUTES: u32 = 2_000;
    let mut lab = Lab::new("again", DOCUMENTS);
    lab.server.ip(&["addr", "add", "20.0.1.7/32", "dev", "lo"]).unwrap();
    let file = batch(&lab, ROUTES);
    lab.gateway.ip(&["-batch", &file]).unwrap();
    lab.gateway.ip(&["route", "add", "blackhole", "198.51.100.0/24"]).unwrap();
    lab.start();
    synchronised(&lab);
    equal(&lab);
    lab.until_forwarded("20.0.1.7");
    let ping = pings(&lab, "20.0.1.7", 300);
    lab.stop("-KILL");
    lab.gateway.ip(&["route", "del", &prefix(7)]).unwrap();
    lab.start();
    synchronised(&lab);
    all_replied(ping, 300);
    equal(&lab);
    assert_eq!(lab.status()["tables"]["adopted"], 0);
    assert_eq!(lab.get(&["routes", &prefix(7)]).len(), 0, "deleted while nobody listened");

    lab.stop("-KILL");
    lab.start();
    synchronised(&lab);
    equal(&lab);
    assert_eq!(lab.metric("margay_config_map_writes_total", ""), 0, "nothing has changed: {}", lab.words());
}

/// Static routes by the server, as BIRD writes them.
fn statics(count: u32, way: &str) -> String {
    let routes = (0..count).fold(String::new(), |mut text, n| {
        writeln!(text, "route {} {way};", prefix(n)).unwrap();
        text
    });
    format!("protocol static many {{ ipv4;\n{routes}}}\n")
}

/// Starts a daemon that installs `count` routes, looks at packets and tables, and has them withdrawn.
fn driven<T>(name: &str, count: u32, limit: Duration, start: impl FnOnce(&Lab) -> T, withdraw: impl FnOnce(&T)) {
    let mut lab = Lab::new(name, DOCUMENTS);
    lab.server.ip(&["addr", "add", "20.0.1.7/32", "dev", "lo"]).unwrap();
    lab.start();
    synchronised(&lab);
    let before = equal(&lab);
    let begin = Instant::now();
    let daemon = start(&lab);
    let slowest = until_held(&lab, before + u64::from(count), limit);
    let loaded = begin.elapsed();
    assert_eq!(finally_equal(&lab), before + u64::from(count));
    let asked = Instant::now();
    let (_, compared) = diff(&lab);
    let comparison = asked.elapsed();
    eprintln!(
        "{name}: {count} routes held {loaded:?} after the start, slowest status {slowest:?}, diff {comparison:?}"
    );
    eprintln!("{compared:#}\n{:#}", lab.status()["kernel_routes"]);
    lab.until_forwarded("20.0.1.7");
    assert_eq!(lab.ping("20.0.1.7", 5), 5);
    let begin = Instant::now();
    withdraw(&daemon);
    let end = begin + limit;
    while lab.status()["kernel_routes"]["routes"].as_u64() != Some(before) {
        assert!(Instant::now() < end, "not withdrawn after {limit:?}: {}", lab.words());
        std::thread::sleep(Duration::from_millis(200));
    }
    eprintln!("{name}: withdrawn after {:?}, {:#}", begin.elapsed(), lab.status()["kernel_routes"]);
    assert_eq!(finally_equal(&lab), before);
}

/// BIRD on the gateway exports static routes to the kernel.
fn from_bird(name: &str, count: u32, limit: Duration) {
    let start = |lab: &Lab| {
        let kernel = "protocol kernel { ipv4 { import none; export where source = RTS_STATIC; }; }\n";
        Bird::start(&lab.gateway, "10.2.0.1", &(kernel.to_owned() + &statics(count, "via 10.2.0.2")))
    };
    driven(name, count, limit, start, |bird| drop(bird.ask("disable many")));
}

/// FRR on the gateway learns them over BGP and installs them, with nexthop objects.
fn from_frr(name: &str, count: u32, limit: Duration) {
    let start = |lab: &Lab| {
        let session = session("frr", "10.2.0.2", 64513, "10.2.0.1 as 64512", &["ipv4"], "");
        let feed = Bird::start(&lab.server, "10.2.0.2", &(statics(count, "blackhole") + &session));
        let bgp = "router bgp 64512\n bgp router-id 10.2.0.1\n no bgp ebgp-requires-policy\n \
                   neighbor 10.2.0.2 remote-as 64513\n";
        (Frr::start(&lab.gateway, bgp), feed)
    };
    driven(name, count, limit, start, |(_, feed)| drop(feed.ask("disable many")));
}

#[test]
fn bird_drives_what_is_forwarded() {
    from_bird("bird", 10_000, Duration::from_secs(30));
}

#[test]
fn frr_drives_what_is_forwarded() {
    from_frr("frr", 10_000, Duration::from_secs(60));
}

/// `cargo test --release -p margay --test control -- --ignored --nocapture a_full_table`
#[test]
#[ignore = "a million routes take minutes and a release build"]
fn a_full_table_of_bird_is_held() {
    from_bird("fullbird", 1_000_000, Duration::from_secs(300));
}

/// See [`a_full_table_of_bird_is_held`].
#[test]
#[ignore = "a million routes take minutes and a release build"]
fn a_full_table_of_frr_is_held() {
    from_frr("fullfrr", 1_000_000, Duration::from_secs(600));
}
