//! The measuring itself: that it measures what it says, not what it finds. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::{Command, Output};

use serde_json::Value;

fn prog(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dataplane-bench")).arg("prog").args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The rows of a short run.
fn rows(arguments: &[&str]) -> Vec<Value> {
    let output = prog(&[&["--json", "--rounds", "3", "--repeat", "5000"], arguments].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice::<Value>(&output.stdout).unwrap().as_array().unwrap().clone()
}

fn names(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["case"].as_str().unwrap()).collect()
}

mod root {
    use super::*;

    #[test]
    fn rows_have_the_published_fields_and_every_round() {
        let rows = rows(&["--cases", "baseline/empty,hash-hit-hot,forward/hot,lb/*-hot"]);
        let expected = ["baseline/empty", "baseline/hash-hit-hot", "forward/hot", "lb/ipip4-hot", "lb/ipip6-hot"];
        assert_eq!(names(&rows)[..5], expected);
        for row in &rows {
            let number = |field: &str| row[field].as_f64().unwrap_or_else(|| panic!("{field} of {row}"));
            assert!(number("ns_p25") <= number("ns_median") && number("ns_median") <= number("ns_p75"), "{row}");
            assert_eq!(row["rounds"], 3);
            let values =
                |field: &str| row[field].as_array().unwrap().iter().map(|ns| ns.as_f64().unwrap()).collect::<Vec<_>>();
            let (mut raw, mut net) = (values("round_ns"), values("net_ns"));
            assert!(raw.iter().all(|ns| *ns > 0.0), "{row}");
            raw.sort_by(f64::total_cmp);
            net.sort_by(f64::total_cmp);
            assert_eq!((raw[1], net[1]), (number("ns_median"), number("ns_net")), "{row}");
            let case = row["case"].as_str().unwrap();
            assert_eq!(row["baseline"].as_bool().unwrap(), case.starts_with("baseline/"), "{row}");
            // A balanced packet costs more than any noise: it hashes, looks up five tables and moves the head.
            assert!(!case.starts_with("lb/") || number("ns_net") > 0.0, "{row}");
        }
    }

    #[test]
    fn the_result_file_holds_the_rows_and_what_was_measured() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("prog.json");
        let rows = rows(&["--cases", "parse", "--result", path.to_str().unwrap()]);
        let result: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(result["prog"].as_array().unwrap(), &rows);
        let objects: Vec<&str> =
            result["tool"]["objects"].as_array().unwrap().iter().map(|o| o["name"].as_str().unwrap()).collect();
        assert!(objects.contains(&"pipeline.bpf.o"), "{objects:?}");
    }

    #[test]
    fn a_random_walk_through_a_big_array_costs_more_than_one_element() {
        // Not a matter of noise: 64 MiB fit no second-level cache, 8 bytes fit a register.
        let rows = rows(&["--cases", "array-"]);
        assert_eq!(names(&rows), ["baseline/array-hot", "baseline/array-16m-random"]);
        assert!(rows[1]["ns_net"].as_f64() > rows[0]["ns_net"].as_f64(), "{rows:?}");
    }

    /// Points of a curve of ours, and beside them a line for what has one figure.
    #[test]
    fn points_of_a_sweep_are_drawn() {
        let directory = tempfile::tempdir().unwrap();
        let [result, page] = ["sweep.json", "sweep.html"].map(|name| directory.path().join(name));
        let points = "sweep/vips-1-one,sweep/vips-16-*,sweep/vips-1-all,forward/hot";
        let rows = rows(&["--cases", points, "--result", result.to_str().unwrap()]);
        assert_eq!(names(&rows).len(), 5, "{:?}", names(&rows));
        let mut report = Command::new(env!("CARGO_BIN_EXE_dataplane-bench"));
        let report = report.arg("report").arg(&result).arg("--html").arg(&page).output().unwrap();
        assert!(report.status.success(), "{}", stderr(&report));
        let html = std::fs::read_to_string(page).unwrap();
        let plot = html.rsplit("Cost per packet against the number of VIPs").next().unwrap();
        let plot = plot.split("</svg>").next().unwrap();
        assert_eq!(plot.matches("<circle").count(), 4, "{plot}");
        assert!(plot.contains("curve base") && plot.contains("forward/hot"), "{plot}");
    }

    #[test]
    fn a_missing_privilege_is_told() {
        // Root by name, with nothing that root may do.
        let bench = env!("CARGO_BIN_EXE_dataplane-bench");
        let mut command = Command::new("setpriv");
        let output =
            command.args(["--bounding-set=-all", "--", bench, "prog", "--cases", "baseline/empty"]).output().unwrap();
        let error = stderr(&output);
        assert!(!output.status.success() && error.contains("needs root"), "{error}");
    }

    #[test]
    fn helpers_of_the_network_stack_work_in_a_namespace_of_the_run() {
        assert_eq!(names(&rows(&["--cases", "fib-lookup,redirect"])).len(), 4);
        // Nothing of it is left on the machine.
        assert!(!std::fs::read_to_string("/proc/net/dev").unwrap().contains("bench0:"));
    }
}

#[test]
fn every_primitive_is_listed() {
    let output = prog(&["--list", "--cases", "baseline/*"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let listed: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let expected = [
        "empty",
        "hash-hit-hot",
        "hash-hit-64k",
        "hash-hit-1m",
        "hash-miss",
        "lru-hit-hot",
        "lru-hit-64k",
        "lru-hit-1m",
        "lru-insert",
        "lpm4-1k",
        "lpm4-100k",
        "lpm4-1m-random",
        "lpm6-1k",
        "lpm6-200k-random",
        "dir24-8-1m-random",
        "array-hot",
        "array-16m-random",
        "percpu-counter",
        "fib-lookup-forward",
        "fib-lookup-router",
        "redirect",
        "redirect-map",
        "adjust-head",
        "adjust-tail",
        "ktime",
        "jiffies",
        "csum-diff",
        "tail-call",
    ];
    assert_eq!(listed, expected.map(|name| format!("baseline/{name}")));
}

#[test]
fn a_sweep_is_listed_where_it_is_asked_for() {
    let listed = |arguments: &[&str]| String::from_utf8(prog(arguments).stdout).unwrap();
    let sweep = listed(&["--list", "--sweep"]);
    for case in [
        "sweep/flows-1 ",
        "sweep/flows-4194304",
        "sweep/remembered-65536",
        "sweep/vips-4000-all",
        "baseline/lru-hit-1m",
        "forward/hot",
    ] {
        assert!(sweep.lines().any(|line| line.starts_with(case)), "{case}: {sweep}");
    }
    assert!(!listed(&["--list"]).contains("sweep/"));
    assert!(!prog(&["--list", "--sweep", "--cases", "lb/*"]).status.success());
}

#[test]
fn every_area_is_listed() {
    let text = String::from_utf8(prog(&["--list"]).stdout).unwrap();
    for area in ["parse/", "fib/", "forward/", "lb/", "policy/", "denylist/", "drop/", "tunnel/"] {
        assert!(text.lines().any(|line| line.starts_with(area)), "{area}");
    }
}

#[test]
fn an_unknown_case_names_those_there_are() {
    let output = prog(&["--cases", "nonsense"]);
    assert!(!output.status.success());
    let error = stderr(&output);
    assert!(error.contains("no case is called 'nonsense'") && error.contains("lb/ipip4-hot"), "{error}");
}

#[test]
fn no_rounds_and_no_such_core_are_refused() {
    assert!(!prog(&["--rounds", "0"]).status.success());
    let output = prog(&["--core", "4096", "--cases", "baseline/empty"]);
    assert!(!output.status.success() && stderr(&output).contains("there is no core 4096"), "{}", stderr(&output));
}
