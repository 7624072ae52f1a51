//! Medians, spread and ratios; as a table for people, as JSON with every round for everything else.

use std::fmt;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::machine::Machine;

/// The case that the others are related to.
const UNIT: &str = "kernel/hash-hot";

/// One round of one case, ns per packet.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Round {
    /// A program that returns at once.
    pub(super) empty_ns: u64,
    /// The harness around nothing.
    pub(super) without_ns: u64,
    /// The harness around what is measured.
    pub(super) with_ns: u64,
}

impl Round {
    fn net_ns(self) -> i64 {
        i64::try_from(self.with_ns).unwrap_or(i64::MAX) - i64::try_from(self.without_ns).unwrap_or(0)
    }
}

/// One case over all rounds.
#[derive(Debug, Serialize)]
pub(super) struct CaseReport {
    name: &'static str,
    about: &'static str,
    /// Median over rounds of `with_ns - without_ns`.
    net_ns: i64,
    /// Lowest and highest round.
    spread_ns: (i64, i64),
    /// `net_ns` in units of a hit of one hot key in the kernel's hash map; absent where that was not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    rounds: Vec<Round>,
}

impl CaseReport {
    pub(super) fn new(name: &'static str, about: &'static str, rounds: Vec<Round>) -> Self {
        let mut net: Vec<i64> = rounds.iter().map(|round| round.net_ns()).collect();
        net.sort_unstable();
        let at = |index: usize| net.get(index).copied().unwrap_or(0);
        let spread_ns = (at(0), at(net.len().saturating_sub(1)));
        Self { name, about, net_ns: at(net.len() / 2), spread_ns, ratio: None, rounds }
    }
}

/// A whole run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    /// Packets a program saw in each round.
    repeat: u32,
    /// What `ratio` counts in.
    unit: &'static str,
    cases: Vec<CaseReport>,
}

impl Report {
    pub(super) fn new(machine: Machine, repeat: u32, mut cases: Vec<CaseReport>) -> Self {
        let unit = cases.iter().find(|case| case.name == UNIT).map(|case| case.net_ns).filter(|ns| *ns > 0);
        for case in &mut cases {
            case.ratio = unit.map(|unit| (case.net_ns as f64 / unit as f64 * 100.0).round() / 100.0);
        }
        Self { machine, repeat, unit: UNIT, cases }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = self.cases.first().map_or(0, |case| case.rounds.len());
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "{} packets in each of {rounds} rounds; ns per packet, net of the harness\n", self.repeat)?;
        let mut table = Table::new();
        table.load_preset(NOTHING).set_header(["case", "median", "lowest", "highest", UNIT, "what"]);
        for case in &self.cases {
            let ratio = case.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("x {ratio:.2}"));
            let (lowest, highest) = case.spread_ns;
            table.add_row([
                case.name.to_owned(),
                case.net_ns.to_string(),
                lowest.to_string(),
                highest.to_string(),
                ratio,
                case.about.to_owned(),
            ]);
        }
        for column in 1..=4 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        write!(f, "{}", table.trim_fmt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(nets: &[u64]) -> Vec<Round> {
        nets.iter().map(|net| Round { empty_ns: 30, without_ns: 50, with_ns: 50 + net }).collect()
    }

    #[test]
    fn medians_spread_and_ratios() {
        let cases = vec![
            CaseReport::new("lb", "", rounds(&[300, 100, 90, 110, 95])),
            CaseReport::new(UNIT, "", rounds(&[40, 39, 41])),
        ];
        let report = Report::new(Machine::read(), 1, cases);
        let lb = &report.cases[0];
        assert_eq!((lb.net_ns, lb.spread_ns, lb.ratio), (100, (90, 300), Some(2.5)));
        assert_eq!(report.cases[1].ratio, Some(1.0));
    }

    #[test]
    fn without_the_unit_there_is_no_ratio() {
        let report = Report::new(Machine::read(), 1, vec![CaseReport::new("lb", "", rounds(&[1]))]);
        assert_eq!(report.cases[0].ratio, None);
        assert!(report.to_string().contains("lb"));
    }

    #[test]
    fn noise_may_be_negative() {
        let round = Round { empty_ns: 30, without_ns: 50, with_ns: 48 };
        assert_eq!(CaseReport::new("x", "", vec![round]).net_ns, -2);
    }
}
