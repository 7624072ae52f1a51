//! `compare`: what changed between two results, or along a series of them.

mod items;
mod series;
mod stats;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::ensure;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::report::figure::number;
use crate::result::{self, BenchResult};
use items::{By, Item};
use series::Group;
use verdict::{Change, Verdict};

/// A condition of `--fail-if` holds.
const EXIT_THRESHOLD: u8 = 3;

/// What to compare.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Results, the old one first; more than two are split into groups of equals.
    #[arg(required = true, num_args = 2.., value_name = "RESULT")]
    results: Vec<PathBuf>,
    /// What figures are counted in; ratios where the machines differ or the reference case moved.
    #[arg(long, value_enum)]
    by: Option<By>,
    /// Changes up to this many percent are none.
    #[arg(long, value_name = "PERCENT", default_value_t = 3.0, value_parser = margin)]
    margin: f64,
    /// Exit with 3 where a figure got worse by more: `regression>5%`.
    #[arg(long, value_name = "CONDITION")]
    fail_if: Option<Regression>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn margin(text: &str) -> Result<f64, String> {
    let percent = text.trim_end_matches('%').trim().parse::<f64>().map_err(|error| error.to_string())?;
    if (0.0..100.0).contains(&percent) { Ok(percent) } else { Err("expected 0 to 100 percent".to_owned()) }
}

/// `regression>5%`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Regression(f64);

impl FromStr for Regression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let compact: String = text.split_whitespace().collect();
        let percent = compact.strip_prefix("regression>").map(|rest| rest.strip_suffix('%').unwrap_or(rest));
        match percent
            .and_then(|percent| percent.parse::<f64>().ok())
            .filter(|percent| percent.is_finite() && *percent >= 0.0)
        {
            Some(percent) => Ok(Self(percent)),
            None => Err(format!("'{text}' is no condition: expected regression>PERCENT, such as regression>5%")),
        }
    }
}

/// A comparison as it is printed.
#[derive(Debug, Serialize)]
struct Comparison {
    /// `absolute` or `ratio`.
    by: &'static str,
    warnings: Vec<String>,
    changes: Vec<Change>,
    only_old: Vec<String>,
    only_new: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    series: Vec<Series>,
}

/// An item along more than two results.
#[derive(Debug, Serialize)]
struct Series {
    name: String,
    groups: Vec<Group>,
}

/// Compares and prints; exits with 3 where `--fail-if` holds.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let results = options.results.iter().map(|path| result::load(path)).collect::<Result<Vec<_>, _>>()?;
    let (Some(last), Some(before)) = (results.last(), results.len().checked_sub(2).and_then(|i| results.get(i))) else {
        anyhow::bail!("two results are needed");
    };
    let (by, mut warnings) = choose(&results, options);
    let all: Vec<Vec<Item>> = results.iter().map(|result| items::items(result, by)).collect();
    let (old, new) = (items::items(before, by), items::items(last, by));
    let changes = verdict::changes(&old, &new, options.margin);
    ensure!(!changes.is_empty(), "the results have no row in common: were the same subcommands run for both?");
    if results.iter().any(|result| result.runs.iter().any(|run| run.quick)) {
        warnings.push("a quick result is among them: its figures are rough".to_owned());
    }
    let absent = |from: &[Item], other: &[Item]| {
        let unmatched = from.iter().filter(|item| other.iter().all(|other| other.name != item.name));
        unmatched.map(|item| item.name.clone()).collect::<Vec<_>>()
    };
    let (only_old, only_new) = (absent(&old, &new), absent(&new, &old));
    let series = if results.len() > 2 { series_of(&all) } else { Vec::new() };
    let by = if by == By::Ratio { "ratio" } else { "absolute" };
    let comparison = Comparison { by, warnings, changes, only_old, only_new, series };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&comparison)?);
    } else {
        print(&comparison, &options.results);
    }
    let failed: Vec<&Change> = comparison.changes.iter().filter(|change| fails(change, options.fail_if)).collect();
    for change in &failed {
        eprintln!("regression: {} {}", change.name, percent(change.change_percent));
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { EXIT_THRESHOLD.into() })
}

fn fails(change: &Change, condition: Option<Regression>) -> bool {
    condition.is_some_and(|Regression(limit)| change.verdict == Verdict::Worse && change.change_percent.abs() > limit)
}

/// ns and pps mean the same in both results only where the machine is the same and in the same mood.
fn choose(results: &[BenchResult], options: &Options) -> (By, Vec<String>) {
    let mut warnings = Vec::new();
    let mut by = By::Absolute;
    for pair in results.windows(2) {
        let [old, new] = pair else { continue };
        let differences = old.machine.differences(&new.machine);
        if !differences.is_empty() {
            warnings.push(format!("the machines differ ({})", differences.join("; ")));
            by = By::Ratio;
        } else if let (Some(old), Some(new)) = (items::reference(old), items::reference(new)) {
            let moved = (new.ns_net / old.ns_net - 1.0) * 100.0;
            if moved.abs() > options.margin {
                warnings.push(format!(
                    "{}, which is no code of ours, moved by {}: the machine did",
                    items::REFERENCE,
                    percent(moved)
                ));
                by = By::Ratio;
            }
        }
    }
    if by == By::Ratio && options.by.is_none() {
        let skipped = "bounds, latencies and blocked times have no ratio and are left out (--by absolute shows them)";
        warnings.push(format!(
            "costs are counted in {} and rates in the baseline of their scenario; {skipped}",
            items::REFERENCE
        ));
        if results.iter().any(|result| !result.prog.is_empty() && items::reference(result).is_none()) {
            warnings.push(format!("a result has no {}: its costs are compared in ns all the same", items::REFERENCE));
        }
    }
    (options.by.unwrap_or(by), warnings)
}

/// Groups of every item that all results have and that falls into more than one.
fn series_of(all: &[Vec<Item>]) -> Vec<Series> {
    let Some(newest) = all.last() else { return Vec::new() };
    let split = |item: &Item| {
        let through: Option<Vec<&Item>> =
            all.iter().map(|items| items.iter().find(|other| other.name == item.name)).collect();
        let groups = series::groups(&through?);
        (groups.len() > 1).then(|| Series { name: item.name.clone(), groups })
    };
    newest.iter().filter_map(split).collect()
}

fn percent(value: f64) -> String {
    format!("{value:+.1} %")
}

fn print(comparison: &Comparison, paths: &[PathBuf]) {
    for warning in &comparison.warnings {
        println!("warning: {warning}");
    }
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["", "old", "new", "change", "95 % interval", "p", "verdict"]);
    for change in &comparison.changes {
        let interval = change.low_percent.zip(change.high_percent);
        let verdict = match change.verdict {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Unchanged => "unchanged",
            Verdict::Inconclusive => "inconclusive",
        };
        table.add_row([
            change.name.clone(),
            change.unit.show(change.old),
            change.unit.show(change.new),
            percent(change.change_percent),
            interval.map_or_else(|| "–".to_owned(), |(low, high)| format!("{low:+.1} .. {high:+.1} %")),
            change.p.map_or_else(|| "–".to_owned(), |p| format!("{p:.3}")),
            verdict.to_owned(),
        ]);
    }
    for column in 1..=5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{}", table.trim_fmt());
    let count = |verdict: Verdict| comparison.changes.iter().filter(|change| change.verdict == verdict).count();
    println!(
        "\n{} better, {} worse, {} unchanged, {} inconclusive",
        count(Verdict::Better),
        count(Verdict::Worse),
        count(Verdict::Unchanged),
        count(Verdict::Inconclusive)
    );
    for (side, names) in [("old", &comparison.only_old), ("new", &comparison.only_new)] {
        if !names.is_empty() {
            println!("only in the {side} result: {}", names.join("; "));
        }
    }
    for series in &comparison.series {
        println!(
            "{}: {}",
            series.name,
            series.groups.iter().map(|group| told(group, paths)).collect::<Vec<_>>().join(" -> ")
        );
    }
}

/// `31.2 (a.json .. c.json)`.
fn told(group: &Group, paths: &[PathBuf]) -> String {
    let name = |index: usize| {
        paths
            .get(index)
            .and_then(|path: &PathBuf| Path::file_name(path))
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let names = if group.first == group.last {
        name(group.first)
    } else {
        format!("{} .. {}", name(group.first), name(group.last))
    };
    format!("{} ({names})", number(group.mean))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_or_refused() {
        for text in ["regression>5%", "regression > 5 %", "regression>5"] {
            assert_eq!(text.parse::<Regression>().unwrap(), Regression(5.0), "{text}");
        }
        for text in ["", "regression", "regression<5%", "loss>0", "regression>-1%", "regression>NaN"] {
            assert!(text.parse::<Regression>().unwrap_err().contains("expected regression>PERCENT"), "{text}");
        }
    }
}
