//! The few figures that tell the story: of each kind of measurement one ratio, with its rival and what was measured.
//!
//! The choice must not flatter: of each area of the pipeline it is the dearest case that has a rival, of each device the
//! largest scale, else the first row; a figure that speaks against ours is shown like any other.

use super::figure::{self, Quartiles, Unit, count, number, ratio};
use super::rivals;
use crate::result::{BenchResult, LatencyRow, NdrRow, ProgRow, RateRow};

/// One card at the top of the page.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Headline {
    /// `9.8×`, or `equal`.
    pub(crate) figure: String,
    /// `less time per packet`.
    pub(crate) meaning: String,
    /// The comparison speaks for ours, or neither way.
    pub(crate) good: bool,
    /// What was measured.
    pub(crate) subject: String,
    /// Name and value of ours, then of the rival.
    pub(crate) pair: [(String, f64); 2],
    pub(crate) unit: Unit,
    /// Spread or circumstances.
    pub(crate) detail: String,
}

impl Headline {
    /// The card as one line of text.
    pub(crate) fn line(&self) -> String {
        let [(ours, value), (rival, other)] = &self.pair;
        format!(
            "{} {}: {} ({ours} {}, {rival} {}{}{})",
            self.figure,
            self.meaning,
            self.subject,
            self.unit.show(*value),
            self.unit.show(*other),
            if self.detail.is_empty() { "" } else { "; " },
            self.detail
        )
    }
}

/// Figure and meaning of a ratio that is above 1 when ours is better.
fn verdict(better: f64, words: [&str; 2]) -> (String, String, bool) {
    let [for_ours, against] = words;
    if better >= 1.02 {
        (ratio(better), for_ours.to_owned(), true)
    } else if better <= 0.98 {
        (ratio(1.0 / better), against.to_owned(), false)
    } else {
        ("equal".to_owned(), "within 2 %".to_owned(), true)
    }
}

/// All of them, in the order of the page's sections.
pub(crate) fn headlines(result: &BenchResult) -> Vec<Headline> {
    let mut all = costs(result);
    all.extend(rates(result));
    all.extend(drop_free(result));
    all.extend(latencies(result));
    all.extend(blocked(result));
    all
}

fn costs(result: &BenchResult) -> Vec<Headline> {
    let mut dearest: Vec<(&str, &ProgRow, &ProgRow, Quartiles)> = Vec::new();
    for row in result.prog.iter().filter(|row| !row.baseline) {
        // A case of ours as rival tells what a feature adds: for the bars, not for here.
        let Some(rival) = rivals::of_case(result, row).filter(|rival| rival.baseline) else { continue };
        let Some(times) = rivals::cost_ratio(row, rival) else { continue };
        let area = row.case.split('/').next().unwrap_or_default();
        match dearest.iter_mut().find(|(known, ..)| *known == area) {
            Some(known) if known.1.ns_net >= row.ns_net => {}
            Some(known) => *known = (area, row, rival, times),
            None => dearest.push((area, row, rival, times)),
        }
    }
    let card = |(_, row, rival, times): (&str, &ProgRow, &ProgRow, Quartiles)| {
        let (figure, meaning, good) = verdict(times.median, ["less time per packet", "more time per packet"]);
        let (low, high) = if good { (times.p25, times.p75) } else { (1.0 / times.p75, 1.0 / times.p25) };
        let (low, high) = (ratio(low), ratio(high));
        Headline {
            figure,
            meaning,
            good,
            subject: if row.about.is_empty() { row.case.clone() } else { row.about.clone() },
            pair: [(row.case.clone(), row.ns_net), (rival.case.clone(), rival.ns_net)],
            unit: Unit::NsPerPacket,
            detail: format!("by round {low} to {high}"),
        }
    };
    dearest.into_iter().map(card).collect()
}

fn rates(result: &BenchResult) -> Vec<Headline> {
    let mut chosen: Vec<&RateRow> = Vec::new();
    for row in result.rates.iter().filter(|row| rivals::is_ours(&row.dut) && rivals::of_rate(result, row).is_some()) {
        let size = |row: &RateRow| row.scale.as_ref().map_or(0.0, |scale| scale.value);
        match chosen.iter_mut().find(|known| known.dut == row.dut) {
            Some(known) if size(row) > size(known) => *known = row,
            Some(_) => {}
            None => chosen.push(row),
        }
    }
    let card = |row: &RateRow| {
        let rival = rivals::of_rate(result, row)?;
        let times = rivals::rate_ratio(row, rival)?;
        let (figure, meaning, good) = verdict(times, ["more packets per second", "fewer packets per second"]);
        let mut detail = vec![format!("{}-byte frames, {}", row.frame_bytes, figure::flows(row.flows))];
        detail.extend(other_tools(result, row, rival));
        Some(Headline {
            figure,
            meaning,
            good,
            subject: row.scenario.clone(),
            pair: [(row.dut.clone(), row.median), (rival.dut.clone(), rival.median)],
            unit: Unit::Pps,
            detail: detail.join(", "),
        })
    };
    chosen.into_iter().filter_map(card).collect()
}

/// Beside a generator the other projects' tools, each once: `12× tcpreplay`.
fn other_tools(result: &BenchResult, row: &RateRow, baseline: &RateRow) -> Vec<String> {
    let tool = |other: &&RateRow| {
        rivals::is_generator(other)
            && !rivals::is_ours(&other.dut)
            && other.dut != baseline.dut
            && other.scenario == row.scenario
            && other.frame_bytes == row.frame_bytes
    };
    let tools = result.rates.iter().filter(tool).filter(|_| rivals::is_generator(row));
    let mut told: Vec<String> = Vec::new();
    for other in tools {
        let name = other.dut.strip_prefix("generator/").unwrap_or(&other.dut);
        if let Some(times) = rivals::rate_ratio(row, other)
            && !told.iter().any(|told| told.ends_with(name))
        {
            told.push(format!("{} {name}", ratio(times)));
        }
    }
    told
}

fn drop_free(result: &BenchResult) -> Vec<Headline> {
    // The strictest goal: searches list it first.
    let Some(goal) = result.ndr.first().map(|row| &row.goal) else { return Vec::new() };
    let ours = result.ndr.iter().filter(|row| rivals::is_ours(&row.dut) && row.goal == *goal);
    let card = |row: &NdrRow| {
        let rival = rivals::of_dut(result, &row.dut, result.ndr.iter().map(|row| row.dut.as_str()))?;
        let same = |other: &&NdrRow| {
            other.dut == rival
                && other.goal == row.goal
                && other.frame_bytes == row.frame_bytes
                && other.flows == row.flows
        };
        let rival = result.ndr.iter().find(same)?;
        let both = row.relevant_lower_pps > 0.0 && rival.relevant_lower_pps > 0.0;
        let times = both.then(|| row.relevant_lower_pps / rival.relevant_lower_pps)?;
        let (figure, meaning, good) = verdict(times, ["the load", "lower load"]);
        Some(Headline {
            figure,
            meaning: format!("{meaning} at {}", row.goal),
            good,
            subject: "highest load that met the loss goal".to_owned(),
            pair: [(row.dut.clone(), row.relevant_lower_pps), (rival.dut.clone(), rival.relevant_lower_pps)],
            unit: Unit::Pps,
            detail: format!("lower bounds after {} and {} trials", row.trials, rival.trials),
        })
    };
    ours.filter_map(card).collect()
}

fn latencies(result: &BenchResult) -> Option<Headline> {
    // The load nearest to half: idle flatters everybody and the edge nobody.
    let distance = |row: &&LatencyRow| (row.load_percent - 50.0).abs();
    let ours = result.latency.iter().filter(|row| rivals::is_ours(&row.dut));
    let row = ours.min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
    let rival = rivals::of_dut(result, &row.dut, result.latency.iter().map(|row| row.dut.as_str()))?;
    let rival = result.latency.iter().find(|other| other.dut == rival && other.load_percent == row.load_percent)?;
    let times = (row.p99 > 0.0).then(|| rival.p99 / row.p99)?;
    let (figure, meaning, good) = verdict(times, ["lower latency, 99th percentile", "higher latency, 99th percentile"]);
    Some(Headline {
        figure,
        meaning,
        good,
        subject: format!("latency at {}", row.load),
        pair: [(row.dut.clone(), row.p99), (rival.dut.clone(), rival.p99)],
        unit: Unit::Latency,
        detail: format!("at {} and {}", Unit::Pps.show(row.load_pps), Unit::Pps.show(rival.load_pps)),
    })
}

fn blocked(result: &BenchResult) -> Option<Headline> {
    let ours = result.reconf.iter().filter(|row| rivals::is_ours(&row.dut));
    let row = ours.max_by(|a, b| a.blocked_ms.total_cmp(&b.blocked_ms))?;
    let rival = result.reconf.iter().filter(|other| !rivals::is_ours(&other.dut));
    let rival = rival.max_by(|a, b| a.blocked_ms.total_cmp(&b.blocked_ms))?;
    Some(Headline {
        figure: format!("{} ms", number(row.blocked_ms)),
        meaning: "blocked by the worst change".to_owned(),
        good: row.blocked_ms <= rival.blocked_ms,
        subject: format!("{}, beside {}", row.change, rival.change),
        pair: [(row.dut.clone(), row.blocked_ms), (rival.dut.clone(), rival.blocked_ms)],
        unit: Unit::Ms,
        detail: format!("{} of {} frames lost", count(row.lost), count(row.offered)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, net: f64, rival: Option<&str>) -> ProgRow {
        let (case, rival) = (name.to_owned(), rival.map(str::to_owned));
        let baseline = name.starts_with("baseline/");
        ProgRow { case, rival, baseline, ns_net: net, net_ns: vec![net; 3], ..ProgRow::default() }
    }

    #[test]
    fn the_dearest_case_of_an_area_stands_for_it_even_where_it_loses() {
        let mut result = BenchResult::start(None);
        result.prog = vec![
            case("baseline/lpm4-1m-random", 100.0, None),
            case("fib/hot", 2.0, Some("baseline/lpm4-1m-random")),
            case("fib/1m-random", 200.0, Some("baseline/lpm4-1m-random")),
            case("lb/hot", 50.0, Some("baseline/not-measured")),
        ];
        let all = headlines(&result);
        assert_eq!(all.len(), 1);
        assert_eq!(
            (all[0].figure.as_str(), all[0].meaning.as_str(), all[0].good),
            ("2.0×", "more time per packet", false)
        );
        assert_eq!(all[0].pair[0].0, "fib/1m-random");
    }

    #[test]
    fn a_difference_below_two_percent_is_none() {
        assert_eq!(verdict(1.01, ["a", "b"]).0, "equal");
        assert_eq!(verdict(0.5, ["a", "b"]), ("2.0×".to_owned(), "b".to_owned(), false));
    }
}
