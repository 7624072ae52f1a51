//! Health checks end to end: real servers that die, a real BGP peer that hears of it, and an agent that is killed meanwhile.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use testkit::netns::{Process, add_address};

use crate::bird::{Bird, session};
use crate::harness::Lab;

/// The servers' addresses; all on the server's one link.
const SERVERS: [&str; 2] = ["10.2.0.11", "10.2.0.12"];

const DOCUMENTS: &str = "
apiVersion: margay.io/v1
kind: Node
metadata: {name: gw}
spec: {interfaces: [{name: left0}, {name: right0}]}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 64512, nodeToNodeMeshEnabled: false}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: router}
spec: {peerIP: 10.1.0.2, asNumber: 64513, keepaliveTime: 3s, maxRestartTime: 60s}
---
apiVersion: margay.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  addresses: [192.0.2.10]
  port: 8080
  protocol: TCP
  healthCheck: CHECK
  backends: [{address: 10.2.0.11}, {address: 10.2.0.12}]
";

/// A lab whose service is checked like this, with a router that hears what is announced.
fn lab(name: &str, check: &str) -> (Lab, Bird) {
    let lab = Lab::new(name, &DOCUMENTS.replace("CHECK", check));
    for server in SERVERS {
        add_address(&lab.server, "eth0", format!("{server}/24").parse().unwrap()).unwrap();
    }
    let session = session("margay", "10.1.0.2", 64513, "10.1.0.1 as 64512", &["ipv4"], "");
    let bird = Bird::start(&lab.client, "10.1.0.2", &session);
    (lab, bird)
}

/// A web server at one of the addresses; it serves an empty directory.
fn web_server(lab: &Lab, address: &str) -> Process {
    let root = lab.directory.path().join("www");
    std::fs::create_dir_all(&root).unwrap();
    let root = root.display().to_string();
    let mut command = lab.server.command("/usr/bin/python3");
    command.args(["-m", "http.server", "8080", "--bind", address, "--directory", &root]);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    Process::start(command).unwrap()
}

fn backend(lab: &Lab, address: &str) -> Value {
    lab.get(&["backends", address]).remove(0)
}

fn is(lab: &Lab, address: &str, state: &str) -> bool {
    backend(lab, address)["state"] == state
}

fn announced(bird: &Bird) -> bool {
    bird.ask("show route 192.0.2.10/32").contains("via 10.1.0.1")
}

fn problems(lab: &Lab) -> String {
    lab.status()["problems"].to_string()
}

/// When the agent said this last, in seconds of the day.
fn said_at(lab: &Lab, words: &str) -> f64 {
    let log = lab.words();
    let line = log.lines().rev().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}: not in\n{log}"));
    let time = line.split(['T', 'Z']).nth(1).unwrap();
    time.split(':').fold(0.0, |seconds, part| seconds * 60.0 + part.parse::<f64>().unwrap())
}

fn seconds_of_the_day() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() % 86_400.0
}

#[test]
fn servers_that_die_leave_the_ring_and_the_last_one_takes_the_vip_with_it() {
    let check = "{type: HTTP, path: /, interval: 100ms, timeout: 100ms, rise: 2, fall: 2}";
    let (mut lab, bird) = lab("health", check);
    let [first, second] = SERVERS.map(|address| web_server(&lab, address));
    lab.start();
    lab.until("both are up", |lab| SERVERS.iter().all(|server| is(lab, server, "up")));
    lab.until("announced", |_| announced(&bird));
    assert!(backend(&lab, SERVERS[0])["share_percent"].as_f64().unwrap() > 49.0);
    assert_eq!(problems(&lab), "[]");

    drop(first);
    lab.until("the dead one is down", |lab| is(lab, SERVERS[0], "down"));
    let [dead, living] = SERVERS.map(|server| backend(&lab, server));
    assert_eq!(dead["health"]["reason"], "connection refused", "{dead:#}");
    assert_eq!((&dead["usable"], dead["share_percent"].as_f64()), (&Value::Bool(false), Some(0.0)));
    assert_eq!(living["share_percent"].as_f64(), Some(100.0), "{living:#}");
    let wanted = "backend 10.2.0.11 of VirtualService web is down: connection refused";
    assert!(problems(&lab).contains(wanted), "{}", problems(&lab));
    let way = lab.explain(&["tcp", "10.1.0.2:1", "192.0.2.10:8080", "-i", "left0"]);
    let said = "192.0.2.10:8080/TCP of VirtualService web; 10.2.0.11 is down: connection refused";
    assert!(way["steps"].as_array().unwrap().iter().any(|step| step["text"] == said), "{way:#}");
    assert!(announced(&bird), "one is left");
    assert!(lab.metric("margay_backend_checks_total", "backend=\"10.2.0.11\",result=\"failed\"") >= 2);
    assert_eq!(lab.metric("margay_backend_state", "backend=\"10.2.0.11\",state=\"down\""), 1);

    drop(second);
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while announced(&bird) {
        assert!(std::time::Instant::now() < deadline, "not withdrawn: {}", lab.words());
        std::thread::sleep(Duration::from_millis(1));
    }
    let gone = seconds_of_the_day();
    let verdict = said_at(&lab, "backend=10.2.0.12:8080");
    println!("from the last verdict to the withdrawal as the peer shows it: {:.1} ms", (gone - verdict) * 1e3);
    assert!(gone > verdict && gone - verdict < 5.0, "{verdict} {gone}");
    assert_eq!(lab.get(&["vips"])[0]["announced"], false);

    let _back = web_server(&lab, SERVERS[1]);
    lab.until("announced again", |_| announced(&bird));
    assert_eq!(backend(&lab, SERVERS[1])["share_percent"].as_f64(), Some(100.0));
}

/// A restart takes nobody in that was out, nobody out that was in, and withdraws nothing.
#[test]
fn a_restart_flaps_nothing() {
    let check = "{type: TCP, interval: 200ms, timeout: 200ms}";
    let (mut lab, bird) = lab("health-restart", check);
    let living = web_server(&lab, SERVERS[0]);
    lab.start();
    lab.until("one is up, one is down", |lab| is(lab, SERVERS[0], "up") && is(lab, SERVERS[1], "down"));
    lab.until("announced", |_| announced(&bird));

    lab.stop("-KILL");
    let before = lab.words().len();
    lab.start();
    assert_eq!(backend(&lab, SERVERS[0])["share_percent"].as_f64(), Some(100.0), "from the first generation on");
    lab.until("both are judged", |lab| {
        SERVERS.iter().all(|server| backend(lab, server)["health"]["succeeded"] != 0 || is(lab, server, "down"))
    });
    assert!(announced(&bird));
    assert_eq!(lab.metric("margay_config_map_writes_total", ""), 0, "{}", lab.words());
    assert!(!lab.words()[before..].contains("backend=10.2.0.11:8080"), "never anything else:\n{}", lab.words());

    // What dies while nobody looks is used until as many checks have failed as of any other.
    lab.stop("-KILL");
    drop(living);
    lab.start();
    lab.until("withdrawn", |_| !announced(&bird));
    assert!(is(&lab, SERVERS[0], "down"));
}

/// Servers that answer wrongly or not at all, and the words for it; none of them holds up the check of another.
#[test]
fn what_is_wrong_is_said() {
    let check = "{type: HTTP, path: /nothing, interval: 300ms, timeout: 200ms, statuses: [200-299]}";
    let (mut lab, bird) = lab("health-words", check);
    let _wrong = web_server(&lab, SERVERS[0]);
    // Connections are accepted by the kernel, and nobody reads them.
    let silent = "import socket, time\ns = socket.create_server(('10.2.0.12', 8080), backlog=4096)\ntime.sleep(600)";
    let _silent = lab.server.spawn("/usr/bin/python3", &["-c", silent]).unwrap();
    lab.start();
    let reason = |lab: &Lab, server| backend(lab, server)["health"]["last"]["error"].as_str().map(str::to_owned);
    let wrong = Some("HTTP status 404".to_owned());
    lab.until("the wrong status", |lab| reason(lab, SERVERS[0]) == wrong);
    lab.until("silence", |lab| reason(lab, SERVERS[1]).is_some_and(|text| text == "no HTTP answer within 200ms"));
    assert!(!announced(&bird));
    let checks = |lab: &Lab, server| backend(lab, server)["health"]["failed"].as_u64().unwrap();
    let before = SERVERS.map(|server| checks(&lab, server));
    lab.until("both go on being asked", |lab| {
        SERVERS.iter().zip(before).all(|(server, before)| checks(lab, server) >= before + 10)
    });

    // Another expectation, without a restart.
    lab.write("lab.yaml", &DOCUMENTS.replace("CHECK", &check.replace("299", "499")));
    lab.until("404 is fine now", |lab| is(lab, SERVERS[0], "up"));
    lab.until("announced", |_| announced(&bird));

    // Checks that are not believed.
    lab.write("lab.yaml", &DOCUMENTS.replace("CHECK", &check.replace("}", ", panicThreshold: 50}")));
    lab.until("all are used", |lab| SERVERS.iter().all(|server| backend(lab, server)["usable"] == true));
    assert!(problems(&lab).contains("fewer healthy backends than its panicThreshold"), "{}", problems(&lab));
    assert!(announced(&bird));
}

/// A server of a few lines in Python.
fn python(lab: &Lab, program: &str) -> Process {
    lab.server.spawn("/usr/bin/python3", &["-c", program]).unwrap()
}

fn configure(lab: &Lab, check: &str) {
    lab.write("lab.yaml", &DOCUMENTS.replace("CHECK", check));
}

fn last_error(lab: &Lab, address: &str) -> Option<String> {
    backend(lab, address)["health"]["last"]["error"].as_str().map(str::to_owned)
}

#[test]
fn https_asks_by_name_and_verifies_where_it_is_told_to() {
    let check = "{type: HTTPS, interval: 300ms, host: www.example.org}";
    let (mut lab, bird) = lab("health-https", check);
    let path = |name: &str| lab.directory.path().join(name).display().to_string();
    let [authority, key, request, certificate, extensions] =
        ["ca.pem", "key.pem", "request", "leaf.pem", "san"].map(path);
    std::fs::write(&extensions, "subjectAltName=DNS:www.example.org").unwrap();
    let own_key = ["req", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-subj"];
    let openssl = |arguments: &[&[&str]]| drop(lab.server.run("openssl", &arguments.concat()).unwrap());
    openssl(&[&own_key, &["/CN=authority", "-x509", "-days", "2", "-out", &authority]]);
    std::fs::rename(&key, path("ca.key")).unwrap();
    openssl(&[&own_key, &["/CN=server", "-new", "-out", &request]]);
    let signed = ["-CA", &authority, "-CAkey", &path("ca.key"), "-CAcreateserial", "-days", "2"];
    openssl(&[&["x509", "-req", "-in", &request, "-extfile", &extensions, "-out", &certificate], &signed]);
    let program = format!(
        "import http.server, ssl\nserver = http.server.ThreadingHTTPServer(('{}', 8080), http.server.SimpleHTTPRequestHandler)\n\
         context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\ncontext.load_cert_chain('{certificate}', '{key}')\n\
         server.socket = context.wrap_socket(server.socket, server_side=True)\nserver.serve_forever()",
        SERVERS[0]
    );
    let _tls = python(&lab, &program);
    let _plain = web_server(&lab, SERVERS[1]);
    lab.start();
    lab.until("whoever it is", |lab| is(lab, SERVERS[0], "up"));
    lab.until("announced", |_| announced(&bird));
    lab.until("no TLS there", |lab| last_error(lab, SERVERS[1]).is_some_and(|error| error.starts_with("TLS: ")));

    configure(&lab, "{type: HTTPS, interval: 300ms, host: www.example.org, verify: true}");
    let unknown = |lab: &Lab| last_error(lab, SERVERS[0]).is_some_and(|error| error.contains("UnknownIssuer"));
    lab.until("an issuer that nobody knows", |lab| unknown(lab));
    lab.until("down", |lab| is(lab, SERVERS[0], "down"));
    let verified = format!("{{type: HTTPS, interval: 300ms, host: NAME, verify: true, caFile: {authority}}}");
    configure(&lab, &verified.replace("NAME", "www.example.org"));
    lab.until("verified", |lab| is(lab, SERVERS[0], "up"));
    configure(&lab, &verified.replace("NAME", "www.example.com"));
    lab.until("another name", |lab| {
        last_error(lab, SERVERS[0]).is_some_and(|error| error.contains("not valid for name"))
    });
    lab.until("down", |lab| is(lab, SERVERS[0], "down"));
    configure(&lab, &verified.replace(&authority, "/nonexistent.pem"));
    let absent = |lab: &Lab| last_error(lab, SERVERS[0]).is_some_and(|error| error.contains("caFile /nonexistent.pem"));
    lab.until("no such file", absent);
}

#[test]
fn udp_is_healthy_as_expected_or_unless_refused() {
    let expecting = "{type: UDP, interval: 200ms, timeout: 150ms, send: ping, expect: pong}";
    let (mut lab, bird) = lab("health-udp", expecting);
    let answering = |lab: &Lab, address: &str, answer: &str| {
        let open = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)";
        let answer = format!("    if data == b'ping' and '{answer}': s.sendto(b'{answer}', peer)");
        python(
            lab,
            &format!("{open}\ns.bind(('{address}', 8080))\nwhile True:\n    data, peer = s.recvfrom(2048)\n{answer}"),
        )
    };
    let first = answering(&lab, SERVERS[0], "a pong it is");
    let second = answering(&lab, SERVERS[1], "what?");
    lab.start();
    lab.until("as expected", |lab| is(lab, SERVERS[0], "up"));
    let unexpected = Some("the UDP answer, 5 bytes, is not the one expected".to_owned());
    lab.until("something else", |lab| last_error(lab, SERVERS[1]) == unexpected && is(lab, SERVERS[1], "down"));
    lab.until("announced", |_| announced(&bird));
    drop(second);
    lab.until("nobody there", |lab| last_error(lab, SERVERS[1]).as_deref() == Some("port unreachable"));

    let _silent = answering(&lab, SERVERS[1], "");
    let silence = Some("no UDP answer within 150ms".to_owned());
    lab.until("silence", |lab| last_error(lab, SERVERS[1]) == silence);
    configure(&lab, "{type: UDP, interval: 200ms, timeout: 150ms}");
    lab.until("silence is not refusal", |lab| SERVERS.iter().all(|server| is(lab, server, "up")));
    drop(first);
    lab.until("refused", |lab| {
        is(lab, SERVERS[0], "down") && last_error(lab, SERVERS[0]).as_deref() == Some("port unreachable")
    });

    // The same octets, written otherwise; the answer has them in the middle.
    configure(&lab, "{type: UDP, interval: 200ms, timeout: 150ms, sendHex: '70696e67', expectHex: '6f6e67'}");
    let _first = answering(&lab, SERVERS[0], "a pong it is");
    lab.until("as expected", |lab| is(lab, SERVERS[0], "up"));
}

#[test]
fn icmp_asks_hosts_of_both_families() {
    let (mut lab, bird) = lab("health-icmp", "{type: ICMP, interval: 200ms, timeout: 150ms}");
    add_address(&lab.server, "eth0", "fd02::11/64".parse().unwrap()).unwrap();
    let documents = std::fs::read_to_string(lab.config().join("lab.yaml")).unwrap();
    lab.write("lab.yaml", &documents.replace("{address: 10.2.0.12}", "{address: 10.2.0.12}, {address: 'fd02::11'}"));
    lab.start();
    let all = ["10.2.0.11", "10.2.0.12", "fd02::11"];
    lab.until("all are up", |lab| all.iter().all(|server| is(lab, server, "up")));
    lab.until("announced", |_| announced(&bird));
    for gone in ["10.2.0.12/24", "fd02::11/64"] {
        lab.server.ip(&["address", "del", gone, "dev", "eth0"]).unwrap();
    }
    lab.until("two are gone", |lab| all[1..].iter().all(|server| is(lab, server, "down")));
    for gone in &all[1..] {
        let error = last_error(&lab, gone);
        let known = ["no echo reply within 150ms", "no route to host"];
        assert!(known.iter().any(|known| error.as_deref() == Some(known)), "{error:?}");
    }
    assert!(is(&lab, all[0], "up") && announced(&bird));
    add_address(&lab.server, "eth0", "fd02::11/64".parse().unwrap()).unwrap();
    lab.until("one is back", |lab| is(lab, "fd02::11", "up"));
}

/// A service of one backend, beside all others.
const SMALL: &str = "---
apiVersion: margay.io/v1
kind: VirtualService
metadata: {name: small}
spec:
  addresses: [192.0.2.11]
  port: 8080
  protocol: TCP
  healthCheck: {type: TCP, interval: 100ms, timeout: 100ms, fall: 2}
  backends: [{address: 10.2.0.12}]
";

/// As many backends as anybody has, half of which never answer: these are down in their time, and hold nobody up.
#[test]
fn thousands_of_backends_half_of_which_never_answer() {
    const EACH: u32 = 2_500;
    let backends = |net: u32| (0..EACH).map(move |n| format!("10.{net}.{}.{}", n >> 8, n & 255));
    let list: String = backends(3).chain(backends(4)).map(|address| format!("\n  - {{address: {address}}}")).collect();
    let check = "{type: TCP, interval: 10s, timeout: 2s}";
    let documents = DOCUMENTS.replace("CHECK", check);
    let (mut lab, bird) = lab("health-many", check);
    let head = documents.split(" [{address: 10.2.0.11}").next().unwrap();
    lab.write("lab.yaml", &format!("{head}{list}\n{SMALL}"));
    for net in ["10.3.0.0/16", "10.4.0.0/16"] {
        lab.gateway.ip(&["route", "add", net, "via", "10.2.0.2"]).unwrap();
    }
    // One is the server's own, whatever the address; the other is taken in, and nothing comes back.
    lab.server.ip(&["route", "add", "local", "10.3.0.0/16", "dev", "lo"]).unwrap();
    lab.server.ip(&["route", "add", "blackhole", "10.4.0.0/16"]).unwrap();
    let program =
        "import socket\ns = socket.create_server(('', 8080), backlog=4096)\nwhile True: s.accept()[0].close()";
    let _server = python(&lab, program);
    lab.until("it listens", |lab| lab.server.run("ss", &["-ltn"]).unwrap().contains(":8080"));
    let began = std::time::Instant::now();
    lab.start();
    let states = |lab: &Lab| {
        let rows = lab.get(&["backends", "web", "--limit", "10000"]);
        let count = |state: &str| rows.iter().filter(|row| row["state"] == state).count();
        (count("up"), count("down"), count("starting"))
    };
    let judged = (EACH as usize, EACH as usize, 0);
    lab.until("all are judged", |lab| states(lab) == judged);
    println!("{} backends judged within {:.1} s of the start", 2 * EACH, began.elapsed().as_secs_f64());
    lab.until("announced", |_| announced(&bird));
    let generation = lab.status()["generation"].as_u64().unwrap();
    println!("in generation {generation}; {} checks began late", lab.metric("margay_health_checks_late_total", ""));
    assert!(generation < 500, "{generation}: verdicts that come together are one generation");
    let silent = backend(&lab, "10.4.0.0");
    assert_eq!(silent["health"]["reason"], "no connection within 2s", "{silent:#}");
    assert_eq!(lab.get(&["vips", "web"])[0]["usable"], EACH);

    // What happens to one is not held up by the thousands.
    let small = || bird.ask("show route 192.0.2.11/32").contains("via 10.1.0.1");
    lab.until("the small one is announced", |_| small());
    lab.server.ip(&["address", "del", "10.2.0.12/24", "dev", "eth0"]).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while small() {
        assert!(std::time::Instant::now() < deadline, "not withdrawn: {}", lab.words());
        std::thread::sleep(Duration::from_millis(1));
    }
    let (gone, verdict) = (seconds_of_the_day(), said_at(&lab, "backend is down backend=10.2.0.12:8080"));
    println!("with {} other backends, from the verdict to the withdrawal: {:.1} ms", 2 * EACH, (gone - verdict) * 1e3);
    let effort = ["compile", "apply"].map(|what| lab.metric(&format!("margay_config_{what}_microseconds"), ""));
    println!("of these the generation took {effort:?} us to compile and to be written");
    assert!(gone > verdict && gone - verdict < 5.0, "{verdict} {gone}");
    assert!(announced(&bird));

    // A round of all of them later nothing is different.
    lab.until("another round", |lab| backend(lab, "10.3.0.0")["health"]["succeeded"].as_u64() > Some(1));
    lab.until("and of the silent", |lab| backend(lab, "10.4.0.0")["health"]["failed"].as_u64() > Some(1));
    assert_eq!(states(&lab), judged);
}
