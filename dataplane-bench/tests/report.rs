//! `report` and `compare` as their user meets them, over a made-up result that has every section.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/result.json");

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dataplane-bench")).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn fixture() -> Value {
    serde_json::from_str(&fs::read_to_string(FIXTURE).unwrap()).unwrap()
}

/// A directory with files that are the fixture with something changed.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn changed(&self, name: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut value = fixture();
        change(&mut value);
        fs::write(self.path(name), value.to_string()).unwrap();
        self.text(name)
    }
}

fn page(result: &str) -> String {
    let files = Files::new();
    let output = bench(&["report", result, "--html", &files.text("report.html")]);
    assert!(output.status.success(), "{}", stderr(&output));
    fs::read_to_string(files.path("report.html")).unwrap()
}

fn names<'a>(result: &'a Value, section: &str, field: &str) -> Vec<&'a str> {
    result[section].as_array().unwrap().iter().map(|row| row[field].as_str().unwrap()).collect()
}

#[test]
fn the_page_has_every_section_and_every_row() {
    let (page, result) = (page(FIXTURE), fixture());
    for id in [
        "headlines",
        "cost",
        "scale",
        "generators",
        "rates",
        "ndr",
        "loss",
        "bursts",
        "latency",
        "reconf",
        "soak",
        "not-run",
        "deviations",
        "machine",
    ] {
        assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
    }
    for (section, field) in
        [("prog", "case"), ("rates", "dut"), ("ndr", "goal"), ("latency", "load"), ("reconf", "change")]
    {
        for name in names(&result, section, field) {
            assert!(page.contains(&format!(">{name}<")), "{section}: {name}");
        }
    }
    for fact in [
        "AMD EPYC 7B13",
        "6.18.0",
        "0xa0011d3",
        "Retpolines",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    ] {
        assert!(page.contains(fact), "{fact}");
    }
}

#[test]
fn the_page_stands_alone() {
    let page = page(FIXTURE);
    let outside = page.replace("http://www.w3.org/2000/svg", "");
    for forbidden in ["http:", "https:", "<script", "<link", "<img", "<iframe", "@import", "url(", " src="] {
        assert!(!outside.contains(forbidden), "{forbidden}");
    }
    // A verifier's message with angle brackets is text, not an element.
    assert!(page.contains("&lt;R1 invalid mem access&gt;"));
}

#[test]
fn the_plots_are_well_formed_and_drawn() {
    let page = page(FIXTURE);
    let plots: Vec<&str> = page.split("<svg").skip(1).map(|rest| rest.split_once("</svg>").unwrap().0).collect();
    // Cost, four of scale, generators, rates, searches, loss, four of latency, reconfiguration.
    assert_eq!(plots.len(), 14);
    for plot in plots {
        let text = format!("<svg{plot}</svg>");
        let document = roxmltree::Document::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let root = document.root_element();
        let title = root.attribute("aria-label").unwrap();
        let shapes = |name: &str| {
            document
                .descendants()
                .filter(|node| node.has_tag_name((root.tag_name().namespace().unwrap(), name)))
                .count()
        };
        assert!(shapes("rect") + shapes("polyline") > 0, "{title} is empty");
        assert_eq!(shapes("title"), 1, "{title}");
        let size: Vec<f64> = root.attribute("viewBox").unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
        for node in document.descendants() {
            for (name, limit) in
                [("x", size[2]), ("x1", size[2]), ("x2", size[2]), ("y", size[3]), ("y1", size[3]), ("y2", size[3])]
            {
                if let Some(value) = node.attribute(name) {
                    let value: f64 = value.parse().unwrap();
                    assert!((0.0..=limit).contains(&value), "{title}: {name}={value} is outside of {size:?}");
                }
            }
        }
    }
}

#[test]
fn sections_that_were_not_measured_are_not_on_the_page() {
    let files = Files::new();
    let only_costs = files.changed("costs.json", |result| {
        for section in
            ["rates", "ndr", "loss", "back_to_back", "latency", "reconf", "soak", "not_run", "deviations", "trials"]
        {
            result.as_object_mut().unwrap().remove(section);
        }
    });
    let page = page(&only_costs);
    assert!(page.contains("id=\"cost\"") && page.contains("id=\"machine\""));
    assert!(!page.contains("id=\"latency\"") && !page.contains("id=\"rates\""));
}

#[test]
fn headlines_are_printed_with_their_rivals() {
    let output = bench(&["report", FIXTURE]);
    let text = stdout(&output);
    for wanted in [
        "less time per packet: route lookup among a million prefixes, random destinations (fib/1m-random",
        "baseline/lpm4-1m-random",
        "generator/sendmmsg",
        "× tcpreplay",
        "the load at NDR 0 %",
        "not run: dpdk-testpmd/af_packet",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

/// Rewritten with `UPDATE_EXPECTED=1`.
#[test]
fn markdown_is_as_expected() {
    let files = Files::new();
    let output = bench(&["report", FIXTURE, "--md", &files.text("report.md")]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = fs::read_to_string(files.path("report.md")).unwrap();
    let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/report.md");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&expected, &text).unwrap();
    }
    let expected = fs::read_to_string(expected).unwrap_or_default();
    for (line, (got, wanted)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(got, wanted, "line {}", line + 1);
    }
    assert_eq!(text.lines().count(), expected.lines().count());
}

#[test]
fn csv_has_one_file_a_section_with_every_value() {
    let files = Files::new();
    let output = bench(&["report", FIXTURE, "--csv", &files.text("csv")]);
    assert!(output.status.success(), "{}", stderr(&output));
    let result = fixture();
    let read = |name: &str| fs::read_to_string(files.path("csv").join(format!("{name}.csv"))).unwrap();
    for section in
        ["prog", "ndr", "loss", "back_to_back", "latency", "reconf", "soak", "not_run", "deviations", "trials"]
    {
        assert_eq!(read(section).lines().count(), result[section].as_array().unwrap().len() + 1, "{section}");
    }
    assert_eq!(
        read("generators").lines().count() + read("rates").lines().count(),
        result["rates"].as_array().unwrap().len() + 2
    );
    let (text, first) = (read("prog"), &result["prog"][0]);
    assert!(text.starts_with("case,about,baseline,ns_net,"), "{text}");
    let nets: Vec<String> =
        first["net_ns"].as_array().unwrap().iter().map(|ns| ns.as_f64().unwrap().to_string()).collect();
    assert!(text.lines().nth(1).unwrap().contains(&nets.join(" ")), "{text}");
    // A comma within a text does not make a column.
    assert!(read("rates").contains("\"1,000 rules, none matches\""));
}

#[test]
fn parts_of_one_machine_are_merged_and_of_two_are_refused() {
    let files = Files::new();
    let only = |section: &'static str| {
        move |result: &mut Value| {
            for other in ["prog", "rates", "ndr", "loss", "back_to_back", "latency", "reconf", "soak", "trials"] {
                if other != section {
                    result.as_object_mut().unwrap().remove(other);
                }
            }
        }
    };
    let (costs, rates) = (files.changed("costs.json", only("prog")), files.changed("rates.json", only("rates")));
    let merged = files.text("merged.json");
    let output = bench(&["report", &costs, &rates, "--json", &merged, "--not-run", "latency=timed out after 60 s"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let value: Value = serde_json::from_str(&fs::read_to_string(&merged).unwrap()).unwrap();
    assert_eq!((value["prog"].as_array().unwrap().len(), value["rates"].as_array().unwrap().len()), (28, 24));
    assert_eq!(value["runs"].as_array().unwrap().len(), 4);
    assert_eq!(value["not_run"][2], json!({"what": "latency", "why": "timed out after 60 s"}));

    let foreign = files.changed("foreign.json", |result| result["machine"]["kernel"] = json!("5.15.0"));
    let output = bench(&["report", &costs, &foreign]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("kernel: 6.18.0 and 5.15.0"), "{}", stderr(&output));
}

#[test]
fn bad_input_names_the_file_the_field_and_the_fix() {
    let files = Files::new();
    fs::write(files.path("text.json"), "ns per packet: 41\n").unwrap();
    fs::write(files.path("cut.json"), &fs::read_to_string(FIXTURE).unwrap()[..5_000]).unwrap();
    files.changed("later.json", |result| result["schema"] = json!("margay.bench/v2"));
    files.changed("field.json", |result| result["latency"][3]["p99"] = json!("slow"));
    files.changed("missing.json", |result| {
        result["rates"][2].as_object_mut().unwrap().remove("median");
    });
    for (name, wanted) in [
        ("none.json", "No such file or directory"),
        ("text.json", "is not JSON"),
        ("cut.json", "is not JSON"),
        ("later.json", "has the schema 'margay.bench/v2' and this version reads 'margay.bench/v1'"),
        ("field.json", "field latency[3].p99: invalid type: string \"slow\""),
        ("missing.json", "rates[2]: missing field `median`"),
    ] {
        for subcommand in [vec!["report", name], vec!["compare", FIXTURE, name]] {
            let paths: Vec<String> = subcommand
                .iter()
                .map(|word| if *word == name { files.text(name) } else { (*word).to_owned() })
                .collect();
            let output = bench(&paths.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(output.status.code(), Some(1), "{paths:?}");
            let error = stderr(&output);
            assert!(error.contains(wanted) && error.contains(name), "{paths:?}: {error}");
        }
    }
    let output = bench(&["report", FIXTURE, "--html", &files.text("no/such/report.html")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no/such/report.html: No such file or directory"), "{}", stderr(&output));
    assert_eq!(bench(&["report", FIXTURE, "--not-run", "latency"]).status.code(), Some(2));
}

/// The fixture with the rounds of one case longer by a factor.
fn slower(files: &Files, name: &str, case: &str, factor: f64) -> String {
    files.changed(name, |result| {
        let row = result["prog"].as_array_mut().unwrap().iter_mut().find(|row| row["case"] == case).unwrap();
        for ns in row["net_ns"].as_array_mut().unwrap() {
            *ns = json!(ns.as_f64().unwrap() * factor);
        }
        row["ns_net"] = json!(row["ns_net"].as_f64().unwrap() * factor);
    })
}

#[test]
fn a_planted_regression_is_found_and_nothing_else() {
    let files = Files::new();
    let new = slower(&files, "new.json", "lb/ipip4-64k", 1.25);
    let same = bench(&["compare", FIXTURE, FIXTURE, "--fail-if", "regression>0%"]);
    assert!(same.status.success(), "{}", stderr(&same));
    assert!(stdout(&same).contains("0 better, 0 worse"), "{}", stdout(&same));

    let output = bench(&["compare", FIXTURE, &new, "--fail-if", "regression>5%"]);
    assert_eq!(output.status.code(), Some(3), "{}", stdout(&output));
    assert!(stdout(&output).contains("0 better, 1 worse"), "{}", stdout(&output));
    assert!(stderr(&output).starts_with("regression: prog lb/ipip4-64k +2"), "{}", stderr(&output));
    // The other way round it is an improvement, and below the limit it is none that fails.
    assert!(bench(&["compare", &new, FIXTURE, "--fail-if", "regression>5%"]).status.success());
    assert!(bench(&["compare", FIXTURE, &new, "--fail-if", "regression>50%"]).status.success());

    let output = bench(&["compare", FIXTURE, &new, "--json"]);
    let comparison: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(comparison["by"], "absolute");
    let changes = comparison["changes"].as_array().unwrap();
    let worse: Vec<&Value> = changes.iter().filter(|change| change["verdict"] == "worse").collect();
    assert_eq!(worse.len(), 1, "{worse:?}");
    assert!(worse[0]["low_percent"].as_f64().unwrap() > 10.0 && worse[0]["p"].as_f64().unwrap() < 0.05, "{worse:?}");
    assert_eq!(bench(&["compare", FIXTURE, &new, "--fail-if", "slower"]).status.code(), Some(2));
    assert_eq!(bench(&["compare", FIXTURE]).status.code(), Some(2));
}

/// Everything twice as slow, on another processor: ratios did not move.
#[test]
fn on_another_machine_ratios_are_compared() {
    let files = Files::new();
    let slow = files.changed("slow.json", |result| {
        result["machine"]["cpu"] = json!("slower one");
        for row in result["prog"].as_array_mut().unwrap() {
            row["ns_net"] = json!(row["ns_net"].as_f64().unwrap() * 2.0);
            for ns in row["net_ns"].as_array_mut().unwrap() {
                *ns = json!(ns.as_f64().unwrap() * 2.0);
            }
        }
    });
    let output = bench(&["compare", FIXTURE, &slow]);
    let text = stdout(&output);
    assert!(text.contains("warning: the machines differ (cpu: AMD EPYC 7B13 and slower one)"), "{text}");
    assert!(text.contains("0 better, 0 worse"), "{text}");
    let absolute = stdout(&bench(&["compare", FIXTURE, &slow, "--by", "absolute"]));
    assert!(!absolute.contains(" 0 worse"), "{absolute}");
}

#[test]
fn a_series_falls_into_groups() {
    let files = Files::new();
    let jump = ["c.json", "d.json"].map(|name| slower(&files, name, "lb/ipip4-64k", 1.5));
    let before = files.changed("b.json", |_| {});
    let output = bench(&["compare", FIXTURE, &before, &jump[0], &jump[1]]);
    let text = stdout(&output);
    let line = text.lines().find(|line| line.contains(" -> ")).unwrap_or_else(|| panic!("{text}"));
    assert!(
        line.starts_with("prog lb/ipip4-64k: ")
            && line.contains("(result.json .. b.json)")
            && line.contains("(c.json .. d.json)"),
        "{line}"
    );
    assert_eq!(text.matches(" -> ").count(), 1, "{text}");
}

mod root {
    use super::*;

    /// A file system of 48 KiB in a mount namespace of its own: the page does not fit.
    #[test]
    fn a_full_disk_keeps_the_old_report() {
        let files = Files::new();
        let script = r#"
            set -e
            mount -t tmpfs -o size=48k none "$1"
            echo 'the old report' > "$1/report.html"
            "$2" report "$3" --html "$1/report.html" && exit 9 || status=$?
            cat "$1/report.html"
            ls -A "$1"
            exit $status
        "#;
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(files.0.path())
            .args([env!("CARGO_BIN_EXE_dataplane-bench"), FIXTURE])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let error = stderr(&output);
        assert!(
            error.contains("report.html: No space left on device")
                && error.contains("what was there before is unchanged"),
            "{error}"
        );
        assert_eq!(stdout(&output), "the old report\nreport.html\n");
    }
}
