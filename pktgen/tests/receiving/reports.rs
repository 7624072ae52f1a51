//! Where reports go, and runs that end in another way than they were meant to.

mod root {
    use std::process::{Output, Stdio};
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal, kill_process};
    use serde_json::Value;
    use testkit::netns::{End, Netns, veth};

    const PKTGEN: &str = env!("CARGO_BIN_EXE_pktgen");

    /// Two wires in one namespace: what is sent on `a0` never comes to `b1`.
    fn wires() -> Netns {
        let ns = Netns::new("rx-wires").unwrap();
        for (left, right) in [("a0", "a1"), ("b0", "b1")] {
            veth(End { netns: &ns, name: left, addresses: &[] }, End { netns: &ns, name: right, addresses: &[] })
                .unwrap();
        }
        ns
    }

    fn run(ns: &Netns, args: &[&str]) -> Output {
        ns.command(PKTGEN).args(["run", "a0", "--pps", "5k"]).args(args).output().unwrap()
    }

    #[test]
    fn lines_come_while_it_runs() {
        let ns = wires();
        let output = run(&ns, &["--to", "a1", "--for", "3500ms", "--json-lines", "--latency"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (last, progress) = lines.split_last().unwrap();
        assert!(progress.len() >= 3, "{text}");
        let sent = |line: &Value| line["progress"]["sent"]["packets"].as_u64().unwrap();
        assert!(progress.windows(2).all(|pair| sent(&pair[0]) <= sent(&pair[1])), "{text}");
        let second = &progress[1]["progress"];
        assert!(second["delivered"]["packets"].as_u64() > Some(0), "{text}");
        assert!(second["received"]["packets"].as_u64() > Some(0), "{text}");
        assert!(second["latency"]["p99"].as_u64() > Some(0), "{text}");
        assert_eq!(last["report"]["received"]["lost"], 0, "{text}");
    }

    #[test]
    fn files_are_written_or_the_run_is_not_lost() {
        let ns = wires();
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let (report, percentiles, log) = (path("report.json"), path("run.hgrm"), path("run.hlog"));
        let args = ["--to", "a1", "--count", "1000", "--latency", "--out", &report];
        assert!(run(&ns, &[&args[..], &["--hdr", &percentiles]].concat()).status.success());
        assert!(run(&ns, &[&args[..], &["--hdr", &log]].concat()).status.success());
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        let written: Value = serde_json::from_str(&read(&report)).unwrap();
        assert_eq!(written["received"]["checked"]["latency"]["count"], 1000);
        assert!(read(&percentiles).contains("Total count    =         1000]"));
        assert!(read(&log).contains("HISTF") && read(&log).contains("Tag=stream-0,"));

        // What cannot be written is said before anything is sent.
        let refused = run(&ns, &["--to", "a1", "--for", "300s", "--out", &path("none/report.json")]);
        let errors = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(1) && errors.contains("none/report.json"), "{errors}");
    }

    /// A disk that is full in the end: the report has been printed, and the exit code says that something is wrong.
    #[test]
    fn a_full_disk_costs_the_file_not_the_run() {
        let ns = wires();
        let script = format!(
            "mount -t tmpfs -o size=8k tmpfs /mnt && head -c 8192 /dev/zero >/mnt/full; \
             exec {PKTGEN} run a0 --to a1 --pps 5k --count 1000 --json --out /mnt/report.json"
        );
        let output = ns.command("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("cannot write /mnt/report.json") && errors.contains("No space left"), "{errors}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["received"]["checked"]["first"], 1000);
    }

    #[test]
    fn a_signal_ends_the_run_with_its_report() {
        let ns = wires();
        let mut command = ns.command(PKTGEN);
        command.args(["run", "a0", "--to", "a1", "--pps", "1k", "--for", "300s", "--json-lines"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        // The first line says that it runs.
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        lines.next().unwrap().unwrap();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let last = lines.map(Result::unwrap).last().unwrap();
        let last: Value = serde_json::from_str(&last).unwrap();
        assert!(last["report"]["received"]["delivered"]["packets"].as_u64() > Some(0), "{last}");
        assert_eq!(last["report"]["received"]["lost"], 0, "{last}");
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }

    #[test]
    fn a_receiving_interface_that_goes_is_reported() {
        let ns = wires();
        let mut command = ns.command(PKTGEN);
        command.args(["run", "a0", "--to", "b1", "--dst-mac", "02::1", "--pps", "1k", "--for", "300s", "--json-lines"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        // The first line says that it runs, the second one that its threads have had a second for it.
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        (0..2).for_each(|_| drop(lines.next().unwrap().unwrap()));
        ns.ip(&["link", "set", "b1", "down"]).unwrap();
        // It looks every 20 ms, when it is let.
        std::thread::sleep(Duration::from_secs(2));
        ns.ip(&["link", "set", "b1", "up"]).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        ns.ip(&["link", "delete", "b0"]).unwrap();
        let last = lines.map(Result::unwrap).last().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(start.elapsed() < Duration::from_secs(200));
        let errors = String::from_utf8_lossy(&output.stderr);
        let last: Value = serde_json::from_str(&last).unwrap_or_else(|e| panic!("{e}: {errors}"));
        // Its end may be seen as one more outage.
        let link = &last["report"]["received"]["link"];
        assert!(link["outages"].as_u64() >= Some(1) && link["gone"] == true, "{link}: {errors}");
        assert!(output.status.code() == Some(1) && errors.contains("b1 has gone"), "{errors}");
    }

    #[test]
    fn a_live_view_needs_a_terminal_and_cores_must_differ() {
        let ns = wires();
        for (args, expected) in [
            (&["--to", "a1", "--count", "1", "--tui"][..], "--tui needs a terminal"),
            (&["--to", "a1", "--count", "1", "--cores", "0,0"], "core 0 is given to a sending and a receiving thread"),
        ] {
            let output = run(&ns, args);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(1) && errors.contains(expected), "{errors}");
        }
    }
}
