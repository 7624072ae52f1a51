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
