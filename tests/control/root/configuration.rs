//! Files, interfaces and neighbours that change under a running agent.

use crate::harness::Lab;

const NODE: &str = "
apiVersion: margay.io/v1
kind: Node
metadata: {name: gw}
spec: {interfaces: [{name: left0}, {name: right0}]}
";

const SERVICE: &str = "
apiVersion: margay.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  addresses: [192.0.2.10, \"2001:db8:100::10\"]
  port: 80
  protocol: TCP
  encap: {type: IPIP}
  backends: [{address: 10.2.0.2}, {address: 10.77.0.1}]
";

#[test]
fn a_broken_file_keeps_the_generation_and_is_listed_with_its_line() {
    let mut lab = Lab::new("broken", NODE);
    lab.start();
    lab.until("healthy", |lab| lab.status()["problems"].as_array().unwrap().is_empty());
    assert_eq!(lab.margay(&["status"]).status.code(), Some(0));
    let generation = lab.status()["generation"].clone();
    let routes = lab.get(&["routes"]);

    lab.write("service.yaml", &SERVICE.replace("port: 80", "prot: 80"));
    lab.write(
        "other.yaml",
        "apiVersion: margay.io/v1\nkind: Denylist\nmetadata: {name: d}\nspec: {sources: [300.0.0.0/8]}\n",
    );
    lab.until("the failure is seen", |lab| lab.status()["config"]["valid"] == false);
    let status = lab.status();
    let diagnostics = status["config"]["diagnostics"].to_string();
    for part in ["service.yaml:7:", "prot", "other.yaml:4:", "300.0.0.0/8"] {
        assert!(diagnostics.contains(part), "{part} in {diagnostics}");
    }
    assert_eq!(status["generation"], generation, "the generation in force stays");
    assert_eq!(lab.get(&["routes"]), routes);
    assert_eq!(lab.margay(&["status"]).status.code(), Some(3), "degraded");

    lab.remove("other.yaml");
    lab.write("service.yaml", SERVICE);
    lab.until("the service is there", |lab| lab.get(&["vips"]).len() == 2);
    let status = lab.status();
    assert_eq!(status["config"]["valid"], true);
    assert!(status["generation"].as_u64() > generation.as_u64());
    assert!(status["problems"].to_string().contains("10.77.0.1"), "the backend without a route is a problem: {status}");
    let unusable = lab.get(&["backends", "10.77.0.1"]);
    assert!(
        unusable.iter().all(|backend| backend["usable"] == false && backend["share_percent"] == 0.0),
        "{unusable:?}"
    );

    lab.remove("service.yaml");
    lab.until("the service is gone", |lab| lab.get(&["vips"]).is_empty());
}

#[test]
fn an_interface_that_does_not_exist_is_a_problem_of_its_own_until_it_does() {
    let mut lab = Lab::new("missing", &NODE.replace("{name: right0}", "{name: right0}, {name: late0}"));
    lab.start();
    let state = |lab: &Lab, name: &str| {
        let interfaces = lab.status()["interfaces"].as_array().unwrap().clone();
        interfaces.into_iter().find(|one| one["name"] == name).unwrap()["state"].clone()
    };
    lab.until("the others forward", |lab| state(lab, "left0") == "forwarding" && state(lab, "right0") == "forwarding");
    assert_eq!(state(&lab, "late0"), "missing");
    let problems = lab.status()["problems"].to_string();
    assert!(problems.contains("late0"), "{problems}");
    assert!(lab.carries_program("left0") && lab.carries_program("right0"));

    lab.gateway.ip(&["link", "add", "late0", "type", "veth", "peer", "name", "late1"]).unwrap();
    lab.gateway.ip(&["link", "set", "late1", "up"]).unwrap();
    lab.gateway.ip(&["link", "set", "late0", "up"]).unwrap();
    lab.until("the late one forwards", |lab| state(lab, "late0") == "forwarding");
    assert!(lab.carries_program("late0"));
    lab.gateway.ip(&["link", "del", "late0"]).unwrap();
    lab.until("it is gone again", |lab| state(lab, "late0") == "missing");

    lab.write("lab.yaml", &NODE.replace(", {name: right0}", ""));
    lab.until("an interface that is not wanted any more loses the program", |lab| !lab.carries_program("right0"));
    assert!(lab.carries_program("left0"));
}

#[test]
fn a_neighbours_new_address_is_followed() {
    let mut lab = Lab::new("neighbour", &(NODE.to_owned() + "---" + SERVICE));
    lab.start();
    let hop =
        |lab: &Lab| lab.get(&["nexthops", "10.2.0.2"]).first().and_then(|hop| hop["mac"].as_str().map(str::to_owned));
    lab.until("the backend's neighbour is resolved without any traffic", |lab| hop(lab).is_some());
    lab.server.ip(&["link", "set", "eth0", "down"]).unwrap();
    lab.until("a problem", |lab| lab.status()["problems"].to_string().contains("right0"));
    lab.server.ip(&["link", "set", "eth0", "address", "02:00:00:00:77:01"]).unwrap();
    lab.server.ip(&["link", "set", "eth0", "up"]).unwrap();
    lab.until("the new address", |lab| hop(lab).as_deref() == Some("02:00:00:00:77:01"));
    let way = lab.explain(&["tcp", "10.1.0.2:1000", "192.0.2.10:80", "-i", "left0"]);
    assert!(way["frame"].as_str().unwrap().starts_with("020000007701"), "{way}");
}

#[test]
fn one_agent_a_pin_directory_and_detach_waits_for_its_end() {
    let mut lab = Lab::new("lock", NODE);
    lab.start();
    let refused = lab.margay(&["detach"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("agent is running"));
    let mut second = lab.command_with(&lab.directory.path().join("second.sock"), "127.0.0.1:9101");
    assert!(!second.status().unwrap().success());
    assert!(lab.words().contains("an agent is running on this pin directory"), "{}", lab.words());

    lab.stop("-TERM");
    assert!(lab.carries_program("left0"), "what is pinned stays");
    assert!(!lab.socket().exists());
    assert!(lab.margay(&["detach"]).status.success());
    assert!(!lab.carries_program("left0") && !lab.carries_program("right0"));
    assert!(!lab.pin_dir.exists());
}

#[test]
fn questions_that_make_no_sense_are_answered_with_what_is_wrong() {
    let mut lab = Lab::new("questions", NODE);
    lab.start();
    for (arguments, part) in [
        (["get", "routes", "nonsense"].as_slice(), "neither a prefix nor an address"),
        (&["get", "nexthops", "left0"], "not an address"),
        (&["explain", "udp", "10.0.0.1:1", "10.0.0.2:2", "-i", "eth9"], "ports are: left0, right0"),
    ] {
        let output = lab.margay(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(words.contains(part), "{words}");
    }
    let curl = |arguments: &[&str]| {
        let socket = lab.socket();
        let all =
            [&["-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", socket.to_str().unwrap()], arguments];
        lab.gateway.run("curl", &all.concat()).unwrap()
    };
    assert_eq!(curl(&["http://m/v1/status"]), "200");
    assert_eq!(curl(&["http://m/v1/nonsense"]), "404");
    assert_eq!(curl(&["http://m/v1/routes?limit=x"]), "400");
    assert_eq!(curl(&["http://m/v1/routes?unknown=1"]), "400");
    assert_eq!(curl(&["-H", "Content-Type: application/json", "-d", "{}", "http://m/v1/explain"]), "422");
    let large = "x".repeat(100_000);
    assert_eq!(curl(&["-H", "Content-Type: application/json", "-d", &large, "http://m/v1/explain"]), "413");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(lab.socket()).unwrap().permissions().mode() & 0o777, 0o660);
}
