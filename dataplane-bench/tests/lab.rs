//! Labs and the devices in them, with the loads of a slow machine: that they come and go, forward what is sent and drop what
//! they deny. No figure is judged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dataplane-bench")).args(arguments).output().unwrap()
}

/// The words of a run that must fail.
#[track_caller]
fn error(arguments: &[&str]) -> String {
    let output = bench(arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_unknown_device_names_those_there_are() {
    let error = error(&["rate", "--dut", "vpp/forward"]);
    assert!(error.contains("'vpp/forward'") && error.contains("kernel/forward+conntrack"), "{error}");
}

#[test]
fn the_list_of_devices_is_that_of_the_standard_set() {
    let output = bench(&["rate", "--list"]);
    let list = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && list.lines().any(|line| line == "margay/lb-100"), "{list}");
}

mod root {
    use std::os::unix::process::CommandExt as _;
    use std::process::Child;

    use serde_json::Value;
    use testkit::netns::{End, Netns, veth};

    use super::*;

    /// The devices that come up in a moment and need nothing that a plain Debian would lack.
    const CHEAP: &str = "xdp/*,kernel/*,nft/rules-10,nft/set-300,iptables-legacy/rules-10,iptables-nft/rules-10,iptables/service-nat-10";

    /// Namespaces and pins of the labs of a process.
    fn left_by(process: u32) -> Vec<String> {
        let names = ["/run/netns", "/sys/fs/bpf"].map(std::fs::read_dir).into_iter().flatten().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.contains(&format!("-{process}-"))).collect()
    }

    /// Runs to its end; the output and what is left of its labs.
    fn run(arguments: &[&str]) -> (Output, Vec<String>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dataplane-bench"));
        command.args(arguments).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let child = command.spawn().unwrap();
        let process = child.id();
        (child.wait_with_output().unwrap(), left_by(process))
    }

    fn short(duts: &str) -> Vec<&str> {
        vec!["rate", "--json", "--rounds", "2", "--trial", "0.05", "--dut", duts]
    }

    /// Each has been verified before it was measured: every packet of a low rate arrived with the right rewrite, and
    /// none of what its rules deny.
    #[test]
    fn cheap_devices_forward_and_deny_and_leave_nothing() {
        let (output, left) = run(&short(CHEAP));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        assert!(!errors.contains("not run"), "{errors}");
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
        let rows = rows.as_array().unwrap();
        assert_eq!(rows.len(), 9, "{rows:#?}");
        for row in rows {
            let values: Vec<f64> =
                row["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
            assert!(values.len() == 2 && values.iter().all(|value| *value > 0.0), "{row:#}");
            assert!(row["p25"].as_f64() <= row["median"].as_f64() && row["median"].as_f64() <= row["p75"].as_f64());
            assert!(row["sent_median"].as_f64() > Some(0.0), "{row:#}");
        }
        assert_eq!(left, Vec::<String>::new());
    }

    /// More entries than its map takes: the device is set up half and taken away again, and the others go on.
    #[test]
    fn a_device_that_fails_half_way_is_reported_and_cleared_away() {
        let (output, left) = run(&short("xdp-tools/filter-deny-20000,kernel/forward"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("xdp-tools/filter-deny-20000: not run: xdp-filter"), "{errors}");
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((rows.as_array().unwrap().len(), &rows[0]["dut"]), (1, &"kernel/forward".into()));
        assert_eq!(left, Vec::<String>::new());
    }

    #[test]
    fn a_missing_margay_is_a_reason_not_a_gap() {
        let mut arguments = short("margay/forward,kernel/forward");
        arguments.extend(["--margay", "/nonexistent/margay"]);
        let (output, left) = run(&arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.contains("margay/forward: not run"), "{errors}");
        assert_eq!(left, Vec::<String>::new());
    }

    fn start(arguments: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dataplane-bench"));
        command.args(arguments).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command.process_group(0).spawn().unwrap()
    }

    fn wait_for_lab(child: &mut Child) {
        for _ in 0..200 {
            if left_by(child.id()).len() >= 2 {
                return;
            }
            assert!(child.try_wait().unwrap().is_none(), "it has ended before it had a lab");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("no lab");
    }

    /// Interrupted, a run ends after the trial at hand with its lab; killed, it leaves it to the next run.
    #[test]
    fn an_interrupted_run_clears_up_and_a_killed_one_is_cleared_up_after() {
        let long = ["rate", "--rounds", "1000", "--trial", "0.1", "--dut", "kernel/forward"];
        let mut interrupted = start(&long);
        wait_for_lab(&mut interrupted);
        let id = interrupted.id();
        assert!(Command::new("kill").args(["-INT", &id.to_string()]).status().unwrap().success());
        assert!(!interrupted.wait().unwrap().success());
        assert_eq!(left_by(id), Vec::<String>::new());

        let mut killed = start(&long);
        wait_for_lab(&mut killed);
        killed.kill().unwrap();
        killed.wait().unwrap();
        assert!(left_by(killed.id()).len() >= 2);
        assert!(bench(&short("kernel/forward")).status.success());
        assert_eq!(left_by(killed.id()), Vec::<String>::new());
    }

    /// Two interfaces with a wire between them, as --from and --to.
    #[test]
    fn given_interfaces_are_measured_where_they_are() {
        let ns = Netns::new("labs-given").unwrap();
        let end = |name| End { netns: &ns, name, addresses: &[] };
        veth(end("w0"), end("w1")).unwrap();
        let bench = |arguments: &[&str]| {
            let mut command = ns.command(env!("CARGO_BIN_EXE_dataplane-bench"));
            command.args(["rate", "--json", "--rounds", "1", "--trial", "0.05"]).args(arguments).output().unwrap()
        };
        let output = bench(&["--from", "w0", "--to", "w1"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(rows[0]["dut"], "w0 > w1");
        assert!(rows[0]["median"].as_f64().unwrap() > 0.0);

        let output = bench(&["--from", "nowhere", "--to", "w1"]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && errors.contains("nowhere"), "{errors}");
    }

    #[test]
    fn without_privilege_it_says_so() {
        // The build directory need not be readable for nobody.
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("dataplane-bench");
        std::fs::copy(env!("CARGO_BIN_EXE_dataplane-bench"), &copy).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).unwrap();
        let mut command = Command::new(copy);
        command.args(["rate", "--dut", "kernel/forward"]).uid(65534).gid(65534);
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && errors.contains("needs root"), "{errors}");
    }

    /// Every sender that can be driven here is in the rows, counted at the far end.
    #[test]
    fn generators_are_counted_at_the_far_end() {
        let (output, left) = run(&["rate", "--generators", "--json", "--rounds", "1", "--trial", "0.1"]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
        let names: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["dut"].as_str().unwrap()).collect();
        for name in ["generator/af_packet-sendmmsg", "generator/xsk"] {
            assert!(names.contains(&name), "{names:?}: {errors}");
        }
        for row in rows.as_array().unwrap() {
            assert!(row["median"].as_f64().unwrap() > 0.0, "{row:#}");
        }
        assert_eq!(left, Vec::<String>::new());
    }
}
