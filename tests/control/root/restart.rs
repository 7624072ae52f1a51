//! The agent dies and comes back while packets flow.

use crate::harness::Lab;

const DOCUMENTS: &str = "
apiVersion: margay.io/v1
kind: Node
metadata: {name: gw}
spec: {interfaces: [{name: left0}, {name: right0}]}
---
apiVersion: margay.io/v1
kind: Denylist
metadata: {name: abuse}
spec: {sources: [198.51.100.0/24]}
---
apiVersion: margay.io/v1
kind: VirtualService
metadata: {name: web}
spec: {addresses: [192.0.2.10], port: 80, protocol: TCP, encap: {type: IPIP}, backends: [{address: 10.2.0.2}]}
";

#[test]
fn a_killed_agent_leaves_forwarding_and_the_next_one_writes_nothing() {
    let mut lab = Lab::new("restart", DOCUMENTS);
    lab.start();
    lab.until("healthy", |lab| lab.status()["problems"].as_array().unwrap().is_empty());
    lab.until_forwarded("10.2.0.2");
    let (routes, backends) = (lab.get(&["routes"]), lab.get(&["backends"]));
    assert!(lab.metric("margay_config_map_writes_total", "") > 0);

    lab.stop("-KILL");
    assert_eq!(lab.ping("10.2.0.2", 10), 10, "forwarding goes on without an agent");

    lab.start();
    lab.until("healthy", |lab| lab.status()["problems"].as_array().unwrap().is_empty());
    assert_eq!(lab.metric("margay_config_map_writes_total", ""), 0, "{}", lab.words());
    assert_eq!(lab.get(&["routes"]), routes, "the same indices, too");
    assert_eq!(lab.get(&["backends"]).len(), backends.len());
    assert_eq!(lab.ping("10.2.0.2", 5), 5);
}

#[test]
fn no_packet_is_lost_over_a_kill_and_a_restart() {
    let mut lab = Lab::new("flow", DOCUMENTS);
    lab.start();
    lab.until("healthy", |lab| lab.status()["problems"].as_array().unwrap().is_empty());
    lab.until_forwarded("10.2.0.2");
    let mut ping = lab.client.command("ping");
    ping.args(["-q", "-i", "0.01", "-W", "5", "-c", "300", "10.2.0.2"]).stdout(std::process::Stdio::piped());
    let ping = ping.spawn().unwrap();
    lab.stop("-KILL");
    lab.start();
    let output = String::from_utf8(ping.wait_with_output().unwrap().stdout).unwrap();
    assert!(output.contains("300 received"), "{output}");
}

#[test]
fn what_changed_while_it_was_dead_is_all_that_is_written() {
    let mut lab = Lab::new("changed", DOCUMENTS);
    lab.start();
    lab.until("healthy", |lab| lab.status()["problems"].as_array().unwrap().is_empty());
    lab.stop("-TERM");
    lab.write("lab.yaml", &DOCUMENTS.replace("198.51.100.0/24", "198.51.100.0/24, 203.0.113.0/24"));
    lab.start();
    lab.until("healthy", |lab| lab.status()["problems"].as_array().unwrap().is_empty());
    assert_eq!(lab.status()["tables"]["denylist"], 2);
    assert_eq!(lab.metric("margay_config_map_writes_total", ""), 1, "{}", lab.words());
}
