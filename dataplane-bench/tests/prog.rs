//! The measuring itself: that it measures what it says, not what it finds. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::{Command, Output};

use serde_json::Value;

fn prog(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dataplane-bench")).arg("prog").args(arguments).output().unwrap()
}

mod root {
    use super::*;

    #[test]
    fn every_round_of_every_case_is_told() {
        let output = prog(&["--json", "--rounds", "3", "--repeat", "20000", "--case", "*hot"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let cases = report["cases"].as_array().unwrap();
        let names: Vec<&str> = cases.iter().map(|case| case["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["kernel/hash-hot", "kernel/lpm-hot", "forward/hot", "lb/ipip4-hot", "lb/ipip6-hot"]);
        for case in cases {
            let rounds = case["rounds"].as_array().unwrap();
            assert_eq!(rounds.len(), 3);
            let spread = case["spread_ns"].as_array().unwrap();
            let net = case["net_ns"].as_i64().unwrap();
            assert!(spread[0].as_i64().unwrap() <= net && net <= spread[1].as_i64().unwrap(), "{case}");
            // A balanced packet costs more than any noise; a hot hash hit may not.
            assert!(net > 0 || !case["name"].as_str().unwrap().starts_with("lb/"), "{case}");
            for round in rounds {
                for part in ["empty_ns", "without_ns", "with_ns"] {
                    assert!(round[part].as_u64().is_some_and(|ns| ns > 0), "{round}");
                }
            }
        }
        assert!(report["machine"]["kernel"].as_str().is_some_and(|kernel| !kernel.is_empty()));
        assert_eq!(report["cases"][0]["ratio"].as_f64(), Some(1.0));
    }
}

#[test]
fn an_unknown_case_names_those_there_are() {
    let output = prog(&["--case", "nonsense"]);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("no case is called 'nonsense'") && error.contains("lb/ipip4-hot"), "{error}");
}

#[test]
fn no_rounds_is_refused() {
    assert!(!prog(&["--rounds", "0"]).status.success());
}
