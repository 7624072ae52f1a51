//! Runs whose receiving end is in another network namespace, behind a command.

mod root {
    use std::io::Write as _;
    use std::process::{Output, Stdio};
    use std::time::{Duration, Instant};

    use serde_json::{Value, json};
    use testkit::netns::{End, Netns, veth};

    use crate::fault_box::FaultBox;

    const PKTGEN: &str = env!("CARGO_BIN_EXE_pktgen");
    const WIRE: [&str; 2] = ["w0", "w1"];

    /// A wire from `w0` of the one to `w1` of the other.
    fn wire() -> (Netns, Netns) {
        let (near, far) = (Netns::new("rx-near").unwrap(), Netns::new("rx-far").unwrap());
        veth(End { netns: &near, name: "w0", addresses: &[] }, End { netns: &far, name: "w1", addresses: &[] })
            .unwrap();
        (near, far)
    }

    /// `pktgen` is found by name at the far end, as with SSH.
    fn run(near: &Netns, [from, to]: [&str; 2], via: &str, args: &[&str]) -> Output {
        let directory = std::path::Path::new(PKTGEN).parent().unwrap();
        let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
        let common = ["run", from, "--to", to, "--via", via, "--pps", "20k", "--json"];
        near.command(PKTGEN).args(common).args(args).env("PATH", path).output().unwrap()
    }

    fn via(far: &Netns) -> String {
        format!("nsenter --net={} --", far.path().display())
    }

    #[track_caller]
    fn refused(near: &Netns, via: &str, args: &[&str], expected: &str) {
        let output = run(near, WIRE, via, args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && errors.contains(expected), "{expected}: {errors}");
    }

    #[test]
    fn the_far_end_counts_and_judges() {
        let (near, far) = wire();
        let output = run(&near, WIRE, &via(&far), &["--flows", "9", "--count", "10000", "--latency"]);
        let errors = String::from_utf8_lossy(&output.stderr);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"));
        let received = &report["received"];
        assert_eq!(received["delivered"]["packets"], 10_000, "{report:#}");
        assert_eq!(received["checked"]["first"], 10_000, "{report:#}");
        assert_eq!((&received["lost"], &received["missed"]), (&json!(0), &json!(0)), "{report:#}");
        assert_eq!(received["checked"]["latency"]["count"], 10_000, "{report:#}");
        assert_eq!(report["to"]["interface"], "w1");
        assert_eq!(report["lost_flows"], json!([]));
    }

    /// The far end may be in the same place; between the two is a box that drops one flow.
    #[test]
    fn loss_is_known_by_flow() {
        let faulty = FaultBox::new(|packet, out| {
            if packet.flow() != 3 {
                out.push(packet.clone());
            }
        });
        let args = ["--flows", "10", "--count", "10000", "--dst-mac", "02::1"];
        let output = run(&faulty.generator, ["out", "back"], &via(&faulty.generator), &args);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["received"]["lost"], 1000, "{report:#}");
        assert_eq!(report["lost_flows"].as_array().unwrap().len(), 1, "{report:#}");
        assert_eq!((&report["lost_flows"][0]["flow"], &report["lost_flows"][0]["lost"]), (&json!(3), &json!(1000)));
    }

    #[test]
    fn a_far_end_that_cannot_says_why() {
        let (near, far) = wire();
        refused(&near, &format!("{} env PATH=/nonexistent", via(&far)), &["--count", "1"], "is pktgen installed there");
        refused(&near, "/nonexistent/ssh root@far", &["--count", "1"], "/nonexistent/ssh root@far pktgen agent");
        far.ip(&["link", "set", "w1", "name", "other"]).unwrap();
        refused(&near, &via(&far), &["--count", "1"], "w1");
    }

    #[test]
    fn other_versions_and_clocks_are_refused() {
        let (near, _far) = wire();
        let says = |hello: Value| format!("printf '%s\\n' '{}' #", json!({ "hello": hello }));
        let other = json!({ "protocol": 99, "version": "9.9", "boot_id": "" });
        refused(&near, &says(other), &["--count", "1"], "pktgen 9.9 at the other end");
        let elsewhere = json!({ "protocol": 1, "version": "0.1.0", "boot_id": "another" });
        refused(&near, &says(elsewhere), &["--count", "1", "--latency"], "one-way latency needs one clock");
        refused(&near, "echo nonsense #", &["--count", "1"], "no message");
    }

    /// It closes its input before its first word, so that whatever it is told then breaks the pipe.
    #[test]
    fn what_a_far_end_said_before_it_ended_is_heard() {
        let (near, _far) = wire();
        let says = |messages: [Value; 2]| format!("<&- printf '%s\\n' '{}' '{}' #", messages[0], messages[1]);
        let hello = json!({ "hello": { "protocol": 1, "version": "0.1.0", "boot_id": "" } });
        let opened = json!({ "opened": { "mac": [2, 0, 0, 0, 0, 1] } });
        let failed = json!({ "failed": "there is no room" });
        refused(&near, &says([hello.clone(), failed]), &["--count", "1"], "there is no room");
        refused(&near, &says([hello, opened]), &["--count", "1"], "has ended early");
    }

    #[test]
    fn a_far_end_that_dies_ends_the_run() {
        let (near, far) = wire();
        let start = Instant::now();
        let output = run(&near, WIRE, &format!("timeout 3 {}", via(&far)), &["--for", "300s"]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && errors.contains("has ended early"), "{errors}");
        assert!(start.elapsed() < Duration::from_secs(200));
        // Its program went with it.
        assert!(!far.ip(&["link", "show", "w1"]).unwrap().contains("xdp"));
    }

    #[test]
    fn the_agent_ends_with_its_input() {
        let (_near, far) = wire();
        let mut agent = far.command(PKTGEN);
        let mut agent = agent.arg("agent").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let hello = json!({ "hello": { "protocol": 1, "version": "0.1.0", "boot_id": "" } });
        let mut input = agent.stdin.take().unwrap();
        writeln!(input, "{hello}\n{}", json!({ "open": { "interface": "w1" } })).unwrap();
        drop(input);
        let output = agent.wait_with_output().unwrap();
        let said: Vec<Value> =
            String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0]["hello"]["protocol"] == 1 && said[1]["opened"]["mac"].is_array(), "{said:?}");
        assert!(said[2]["failed"].as_str().unwrap().contains("closed the connection"), "{said:?}");
    }
}
