//! VRFs through the whole agent: from `ip route ... table N` to packets.

use serde_json::Value;

use crate::harness::Lab;

/// left0 and right0 in blue, and the default VRF with nothing.
const DOCUMENTS: &str = "
apiVersion: margay.io/v1
kind: VRF
metadata: {name: blue}
spec: {table: 10}
---
apiVersion: margay.io/v1
kind: Node
metadata: {name: gw}
spec: {interfaces: [{name: left0, vrf: blue}, {name: right0, vrf: blue}], kernelRoutes: {auditSeconds: 5}}
";

const HOSTS: [&str; 2] = ["198.51.100.7", "2001:db8:7::7"];

fn lab(name: &str) -> Lab {
    let lab = Lab::new(name, DOCUMENTS);
    for host in HOSTS {
        lab.server.ip(&["addr", "add", host, "dev", "lo"]).unwrap();
    }
    lab
}

fn healthy(lab: &Lab) {
    lab.until("synchronised", |lab| lab.status()["kernel_routes"]["synchronised"] == true);
    lab.until("healthy", |lab| lab.status()["problems"].as_array().unwrap().is_empty());
}

/// Routes of VRF blue that come from the kernel.
fn from_kernel(lab: &Lab) -> usize {
    lab.get(&["routes", "--vrf", "blue"]).iter().filter(|route| route["source"] == "kernel").count()
}

fn add_routes(lab: &Lab, table: &[&str]) {
    let ip = |words: &[&str]| lab.gateway.ip(&[words, table].concat()).unwrap();
    ip(&["route", "add", "198.51.100.0/24", "via", "10.2.0.2", "dev", "right0"]);
    ip(&["-6", "route", "add", "2001:db8:7::/48", "via", "fd02::2", "dev", "right0"]);
}

fn diff(lab: &Lab, more: &[&str]) -> (i32, Value) {
    let output = lab.margay(&[&["get", "routes", "--diff", "kernel", "-o", "json"], more].concat());
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[test]
fn routes_of_a_table_forward_in_its_vrf_and_nowhere_else() {
    let mut lab = lab("vrf");
    lab.start();
    healthy(&lab);
    let way = |lab: &Lab| lab.explain(&["udp", "10.1.0.2:1", "198.51.100.7:2", "-i", "left0"]);
    let no_route = |way: &Value| way["verdict"] == "punt" && way["detail"].as_str().unwrap().starts_with("NO_ROUTE");
    assert!(no_route(&way(&lab)), "{:#}", way(&lab));

    // In the main table the route is one of the default VRF, by a port of another.
    add_routes(&lab, &[]);
    lab.until("told of", |lab| {
        let problems = lab.status()["problems"].to_string();
        problems.contains("198.51.100.0/24 one of them, lead by right0 of VRF blue") && problems.contains("default VRF")
    });
    assert!(no_route(&way(&lab)), "{:#}", way(&lab));
    assert_eq!(from_kernel(&lab), 0);
    lab.gateway.ip(&["route", "del", "198.51.100.0/24"]).unwrap();
    lab.gateway.ip(&["-6", "route", "del", "2001:db8:7::/48"]).unwrap();

    add_routes(&lab, &["table", "10"]);
    lab.until("they forward", |lab| from_kernel(lab) == 2);
    healthy(&lab);
    for host in HOSTS {
        lab.until_forwarded(host);
        assert_eq!(lab.ping(host, 10), 10);
    }
    let explained = way(&lab);
    assert_eq!(
        (&explained["route"]["vrf"], &explained["route"]["prefix"]),
        (&"blue".into(), &"198.51.100.0/24".into())
    );
    assert_eq!(explained["route"]["source"], "kernel");
    assert_eq!(explained["steps"][0]["text"], "left0, VRF blue", "{explained:#}");
    assert!(lab.get(&["routes"]).iter().all(|route| route["prefix"] != "198.51.100.0/24"), "none of the default VRF");
    assert_eq!(lab.get(&["routes", "198.51.100.9", "--vrf", "blue"])[0]["prefix"], "198.51.100.0/24");
    let status = lab.status();
    assert_eq!((&status["vrfs"][0]["name"], &status["vrfs"][0]["kernel_routes"]), (&"blue".into(), &2.into()));
    assert_eq!((&status["interfaces"][0]["vrf"], &status["features"]["vrf"]), (&"blue".into(), &true.into()));
    let text = String::from_utf8(lab.margay(&["status"]).stdout).unwrap();
    assert!(text.contains("VRF         blue") && text.contains("2 of the kernel's table 10"), "{text}");
    let unknown = lab.margay(&["get", "routes", "--vrf", "green"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no VRF 'green'; VRFs are: blue"), "{unknown:?}");

    let (code, document) = diff(&lab, &["--vrf", "blue"]);
    assert_eq!((code, &document["table"], &document["forwarded"]), (0, &10.into(), &2.into()), "{document:#}");
    lab.until("an audit", |lab| lab.status()["kernel_routes"]["audits"].as_u64() > Some(0));
    assert_eq!(lab.metric("margay_kernel_routes_repaired_total", ""), 0);

    lab.gateway.ip(&["route", "del", "198.51.100.0/24", "table", "10"]).unwrap();
    lab.until("it is gone", |lab| from_kernel(lab) == 1);
    assert!(no_route(&way(&lab)), "{:#}", way(&lab));

    // Without its table the VRF has what is its own.
    lab.write("lab.yaml", &DOCUMENTS.replace("{table: 10}", "{}"));
    lab.until("let go", |lab| from_kernel(lab) == 0);
    assert_eq!(lab.ping("10.2.0.2", 5), 5);
    lab.write("lab.yaml", DOCUMENTS);
    lab.until("followed again", |lab| from_kernel(lab) == 1);
}

#[test]
fn a_restart_finds_its_vrfs_and_writes_nothing() {
    let mut lab = lab("vrfagain");
    add_routes(&lab, &["table", "10"]);
    lab.start();
    healthy(&lab);
    lab.until_forwarded("198.51.100.7");
    let routes = lab.get(&["routes", "--vrf", "blue"]);
    lab.stop("-KILL");
    assert_eq!(lab.ping("198.51.100.7", 10), 10, "forwarding goes on without an agent");
    lab.start();
    healthy(&lab);
    assert_eq!(lab.metric("margay_config_map_writes_total", ""), 0, "{}", lab.words());
    assert_eq!(lab.get(&["routes", "--vrf", "blue"]), routes, "the same indices, too");
    assert_eq!(lab.ping("198.51.100.7", 5), 5);
}
