//! The report for a README: headlines, then the tables.

use super::headline::headlines;
use super::table::{self, Table};
use super::{facts, figure};
use crate::result::BenchResult;

/// The whole document. Trials are in the JSON and the CSV.
pub(crate) fn markdown(result: &BenchResult) -> String {
    let mut out = format!("# dataplane-bench: {}\n\n", facts::title(result));
    out += &format!("{}  \n{}\n\n", escaped(&result.machine.to_string()), escaped(&facts::when(result)));
    if let Some(warning) = facts::warning(result) {
        out += &format!("**{}**\n\n", escaped(&warning));
    }
    let headlines = headlines(result);
    if !headlines.is_empty() {
        out += "## In short\n";
        for headline in &headlines {
            let line = headline.line();
            let (figure, rest) = line.split_once(' ').unwrap_or((&line, ""));
            out += &format!("- **{}** {}\n", escaped(figure), escaped(rest));
        }
        out.push('\n');
    }
    for table in table::all(result).iter().filter(|table| table.name != "trials") {
        out += &format!("## {}\n{}\n", heading(table.name), rows(table));
    }
    out += "## Machine\n| | |\n|---|---|\n";
    for (name, value) in facts::machine(result) {
        out += &format!("| {name} | {} |\n", escaped(&value));
    }
    if !result.tool.objects.is_empty() {
        out += "\n## What was measured\n| object | SHA-256 |\n|---|---|\n";
        for object in &result.tool.objects {
            out += &format!("| {} | `{}` |\n", escaped(&object.name), escaped(&object.sha256));
        }
    }
    out += "\n## To measure again\n```sh\n";
    for run in &result.runs {
        out += &format!("{}  # {}, {} s\n", facts::command(run), run.started, figure::number(run.seconds));
    }
    out + "```\n"
}

fn heading(name: &str) -> &'static str {
    match name {
        "prog" => "Cost per packet",
        "generators" => "Generators",
        "rates" => "Rates",
        "ndr" => "Drop-rate searches",
        "loss" => "Loss against load",
        "back_to_back" => "Back-to-back frames",
        "latency" => "Latency",
        "reconf" => "Reconfiguration at load",
        "routes" => "Routes",
        "soak" => "Soak",
        "not_run" => "Not run",
        "deviations" => "Where the methods were not followed to the letter",
        _ => "Trials",
    }
}

fn rows(table: &Table) -> String {
    let headings = table.headings();
    let names: Vec<&str> = headings.iter().map(|(heading, _)| *heading).collect();
    let rules: Vec<&str> = headings.iter().map(|(_, numeric)| if *numeric { "---:" } else { "---" }).collect();
    let mut out = format!("| {} |\n| {} |\n", names.join(" | "), rules.join(" | "));
    for row in &table.rows {
        let cells: Vec<String> = table.shown(row).map(|cell| escaped(&cell.shown())).collect();
        out += &format!("| {} |\n", cells.join(" | "));
    }
    out
}

/// Text that Markdown shows as it is, in a cell of a table.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '*' | '_' | '`' | '[' | ']' | '<' | '>' | '\\' | '#' => out.extend(['\\', c]),
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
