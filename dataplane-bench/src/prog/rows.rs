//! Rounds to rows: medians, quartiles, the table for people.

use std::fmt::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::bench::{Label, Round};
use crate::machine::Machine;
use crate::result::ProgRow;

/// The case that the table relates the others to.
const UNIT: &str = "baseline/hash-hit-hot";

/// The row of a case.
pub(super) fn row(label: Label, rounds: &[Round]) -> ProgRow {
    let round_ns: Vec<f64> = rounds.iter().map(|round| round.with_ns as f64).collect();
    let net_ns: Vec<f64> = rounds.iter().map(|round| round.with_ns as f64 - round.without_ns as f64).collect();
    let sorted = sorted(&round_ns);
    ProgRow {
        case: label.case,
        about: label.about,
        baseline: label.baseline,
        ns_median: quantile(&sorted, 0.5),
        ns_p25: quantile(&sorted, 0.25),
        ns_p75: quantile(&sorted, 0.75),
        ns_net: quantile(&self::sorted(&net_ns), 0.5),
        rounds: rounds.len() as u32,
        round_ns,
        net_ns,
        rival: label.rival.map(str::to_owned),
        scale: label.scale,
    }
}

/// Whole ns; no negative zero.
fn ns(value: f64) -> String {
    format!("{}", value.round() as i64)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// Between the two nearest values, in proportion; 0 of nothing.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * sorted.len().saturating_sub(1) as f64;
    let value = |index: f64| sorted.get(index as usize).copied().unwrap_or(0.0);
    let (below, above) = (value(at.floor()), value(at.ceil()));
    below + (above - below) * at.fract()
}

/// What a person reads.
pub(super) fn table(rows: &[ProgRow], machine: &Machine, load: [f64; 3], repeat: u32) -> String {
    let unit = rows.iter().find(|row| row.case == UNIT).map(|row| row.ns_net).filter(|ns| *ns > 0.0);
    let rounds = rows.first().map_or(0, |row| row.rounds);
    let mut text = String::new();
    let [one, five, fifteen] = load;
    // Writing to a String does not fail.
    let _ = writeln!(text, "{machine}, load {one} {five} {fifteen}");
    let _ = writeln!(text, "{repeat} packets in each of {rounds} rounds; ns per packet, net of the harness\n");
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["case", "net", "p25", "p75", "raw", "ratio", "what"]);
    for row in rows {
        let net = sorted(&row.net_ns);
        table.add_row([
            row.case.clone(),
            ns(row.ns_net),
            ns(quantile(&net, 0.25)),
            ns(quantile(&net, 0.75)),
            ns(row.ns_median),
            unit.map_or_else(|| "-".to_owned(), |unit| format!("x {:.2}", row.ns_net / unit)),
            row.about.clone(),
        ]);
    }
    for column in 1..=5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let _ = writeln!(text, "{}", table.trim_fmt());
    let _ = write!(text, "ratio: to {UNIT}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(nets: &[u64]) -> Vec<Round> {
        nets.iter().map(|net| Round { without_ns: 50, with_ns: 50 + net }).collect()
    }

    fn named(case: &str, nets: &[u64]) -> ProgRow {
        row(Label { case: case.to_owned(), ..Label::default() }, &rounds(nets))
    }

    #[test]
    fn medians_and_quartiles() {
        let row = named("lb", &[300, 100, 90, 110, 95]);
        assert_eq!((row.ns_median, row.ns_p25, row.ns_p75, row.ns_net), (150.0, 145.0, 160.0, 100.0));
        assert_eq!((row.rounds, row.round_ns[0], row.net_ns[0]), (5, 350.0, 300.0));
        let even = named("lb", &[1, 2, 3, 4]);
        assert_eq!((even.ns_net, even.ns_p25, even.ns_p75), (2.5, 51.75, 53.25));
    }

    #[test]
    fn noise_may_be_negative() {
        assert_eq!(row(Label::default(), &[Round { without_ns: 50, with_ns: 48 }]).ns_net, -2.0);
    }

    #[test]
    fn ratios_need_their_unit() {
        let (unit, lb) = (named(UNIT, &[40]), named("lb", &[100]));
        let line = |rows: &[ProgRow]| {
            let text = table(rows, &Machine::read(), [0.0; 3], 1);
            text.lines().find(|line| line.contains(" lb ")).unwrap().to_owned()
        };
        assert!(line(&[unit, lb.clone()]).contains("x 2.50"));
        assert!(!line(&[lb]).contains('x'));
    }
}
