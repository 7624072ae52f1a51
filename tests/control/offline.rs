//! Commands that need neither root nor an agent.

use std::process::{Command, Output};

fn margay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_margay")).args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn validate_lists_every_error_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let node = "apiVersion: margay.io/v1\nkind: Node\nmetadata: {name: n}\nspec: {interfaces: [{name: eth0}]}\n";
    std::fs::write(directory.path().join("a.yaml"), node).unwrap();
    let valid = margay(&["validate", "--config", path]);
    assert_eq!(code(&valid), 0, "{valid:?}");

    std::fs::write(
        directory.path().join("b.yaml"),
        node.replace("interfaces", "interfacse").replace("name: n", "name: m"),
    )
    .unwrap();
    std::fs::write(directory.path().join("c.yaml"), "kind: [").unwrap();
    let invalid = margay(&["validate", "--config", path, "--node", "n"]);
    let words = String::from_utf8(invalid.stderr.clone()).unwrap();
    assert_eq!(code(&invalid), 2, "{words}");
    assert!(words.contains("b.yaml:4:") && words.contains("interfacse"), "{words}");
    assert!(words.contains("c.yaml:"), "{words}");

    let run = margay(&["run", "--config", path, "--pin-dir", "/sys/fs/bpf/margay-control-never"]);
    assert_eq!(code(&run), 2, "{run:?}");
    assert!(String::from_utf8(run.stderr).unwrap().contains("b.yaml:4:"), "the same errors");
    assert!(!std::path::Path::new("/sys/fs/bpf/margay-control-never").exists(), "nothing was touched");
}

#[test]
fn without_an_agent_the_exit_code_is_4_and_the_words_say_what_to_do() {
    for arguments in
        [["status"].as_slice(), &["get", "routes"], &["explain", "udp", "10.0.0.1:1", "10.0.0.2:2", "-i", "x"]]
    {
        let output = margay(&[arguments, &["--socket", "/nonexistent/margay.sock"]].concat());
        assert_eq!(code(&output), 4, "{output:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("margay run"));
    }
}

#[test]
fn without_privilege_the_exit_code_is_4_and_nothing_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let node = "apiVersion: margay.io/v1\nkind: Node\nmetadata: {name: n}\nspec: {interfaces: [{name: eth0}]}\n";
    std::fs::write(directory.path().join("a.yaml"), node).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_raw", "--inh-caps=-net_raw", env!("CARGO_BIN_EXE_margay"), "run", "--config"]);
    command.arg(directory.path()).args(["--pin-dir", "/sys/fs/bpf/margay-control-never"]);
    let output = command.output().unwrap();
    let words = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(code(&output), 4, "{words}");
    assert!(words.contains("CAP_NET_RAW missing"), "{words}");
    assert!(!std::path::Path::new("/sys/fs/bpf/margay-control-never").exists());
}

#[test]
fn wrong_arguments_are_usage_errors() {
    for arguments in [
        ["explain", "tcp", "10.0.0.1", "10.0.0.2:80", "-i", "x"].as_slice(),
        &["explain", "tcp", "10.0.0.1:1", "[2001:db8::1]:80", "-i", "x"],
        &["get", "nonsense"],
        &["explain", "-i", "x", "--pcap", "/dev/null", "--flags", "S"],
    ] {
        assert_eq!(code(&margay(arguments)), 2, "{arguments:?}");
    }
}

#[test]
fn completions_pages_and_schemas_are_generated() {
    for shell in ["bash", "zsh", "fish"] {
        let script = margay(&["completions", shell]);
        assert_eq!(code(&script), 0);
        assert!(String::from_utf8(script.stdout).unwrap().contains("explain"));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    assert_eq!(code(&margay(&["man", "--dir", path])), 0);
    let page = std::fs::read_to_string(directory.path().join("margay-explain.1")).unwrap();
    assert!(page.contains("pcap"), "{page}");
    assert_eq!(code(&margay(&["schema", "--dir", path])), 0);
    let schema: serde_json::Value =
        serde_json::from_slice(&std::fs::read(directory.path().join("VirtualService.json")).unwrap()).unwrap();
    assert_eq!(schema["title"], "VirtualService");
}

/// Policy of one namespace with two pods, of which `server` takes TCP port 80 from `client`.
const POLICY: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: prod}\n---\n\
                      apiVersion: v1\nkind: Pod\nmetadata: {name: client, namespace: prod, labels: {role: client}}\n\
                      spec: {nodeName: n1}\nstatus: {podIP: 10.0.0.1}\n---\n\
                      apiVersion: v1\nkind: Pod\nmetadata: {name: server, namespace: prod, labels: {role: server}}\n\
                      spec: {nodeName: n1}\nstatus: {podIP: 10.0.0.2}\n---\n\
                      apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: prod}\n\
                      spec: {podSelector: {matchLabels: {role: server}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]}\n";

/// `policy test` with these documents and flows, and further arguments.
fn policy_test(documents: &str, flows: &str, arguments: &[&str]) -> (i32, String, String) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("policy.yaml"), documents).unwrap();
    let file = directory.path().join("flows");
    std::fs::write(&file, flows).unwrap();
    let (config, file) = (directory.path().to_str().unwrap(), file.to_str().unwrap());
    let output = margay(&[&["policy", "test", file, "--config", config], arguments].concat());
    (code(&output), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn policy_is_tested_without_an_agent() {
    let allowed = "- {from: prod/client, to: prod/server, port: 80, expect: allow}\n";
    let denied = "- {from: prod/client, to: prod/server, port: 81, expect: deny}\n";
    let (code, out, err) = policy_test(POLICY, &(allowed.to_owned() + denied), &[]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("prod/server: allow: tier default: KubernetesNetworkPolicy prod/web: ingress[0]"), "{out}");
    assert!(out.contains("prod/server: deny: tier default: end, after KubernetesNetworkPolicy prod/web"), "{out}");
    assert!(out.contains("prod/client: allow: profile kns.prod: egress[0]"), "{out}");

    // One that is not as expected, among others and with nothing expected.
    let (code, out, err) = policy_test(POLICY, &(allowed.to_owned() + &denied.replace("deny", "allow")), &[]);
    assert_eq!((code, err.trim_end()), (1, "1 of 2 flows are not as expected"), "{out}");
    assert!(out.contains("allow !"), "{out}");
    let (code, _, _) = policy_test(POLICY, &denied.replace(", expect: deny", ""), &[]);
    assert_eq!(code, 0);
}

#[test]
fn a_tested_policy_as_json() {
    let (code, out, _) =
        policy_test(POLICY, "- {from: prod/client, to: prod/server, port: 81, expect: allow}\n", &["-o", "json"]);
    assert_eq!(code, 1);
    let flows: serde_json::Value = serde_json::from_str(&out).unwrap();
    let flow = &flows[0];
    assert_eq!((&flow["verdict"], &flow["expected"], &flow["line"]), (&"deny".into(), &"allow".into(), &1.into()));
    let step = &flow["steps"][1];
    assert_eq!(step["decided_by"], "tier default: end, after KubernetesNetworkPolicy prod/web");
    assert_eq!((&step["endpoint"], &step["direction"]), (&"prod/server".into(), &"ingress".into()));
}

#[test]
fn what_is_wrong_with_a_tested_policy_has_its_place_and_exit_code_2() {
    let (code, out, err) = policy_test(POLICY, "- {from: prod/nobody, to: prod/server, port: 80}\n", &[]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        err.contains("flows:1:10: error: [0].from: there is no workload prod/nobody") && err.contains("1 error"),
        "{err}"
    );
    let (code, _, err) = policy_test(&POLICY.replace("podSelector: {}", "podSelektor: {}"), "[]\n", &[]);
    assert_eq!(code, 2);
    assert!(err.contains("policy.yaml:20:") && err.contains("did you mean 'podSelector'?"), "{err}");
    // The agent takes none of it.
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("policy.yaml"), POLICY).unwrap();
    let output = margay(&["validate", "--config", directory.path().to_str().unwrap()]);
    assert_eq!(self::code(&output), 2);
}
