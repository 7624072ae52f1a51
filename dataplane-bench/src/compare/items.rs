//! What two results have in common: one item for each figure, with the values behind it.

use crate::report::figure::Unit;
use crate::result::{BenchResult, ProgRow, RateRow};

/// The case that costs are counted in where ns of two runs cannot be laid side by side.
pub(super) const REFERENCE: &str = "baseline/hash-hit-hot";

/// Below this a net cost is noise; changes are told as shares of at least this, ns.
const LEAST_NS: f64 = 1.0;

/// The values behind a figure.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    /// Of rounds or trials.
    Many(Vec<f64>),
    /// The truth lies between.
    Between(f64, f64),
    /// One figure, of which nothing says how far it would move.
    One(f64),
}

impl Values {
    /// The figure that is shown.
    pub(super) fn middle(&self) -> f64 {
        match self {
            Self::Many(values) => crate::report::figure::Quartiles::of(values).map_or(f64::NAN, |q| q.median),
            Self::Between(low, _) | Self::One(low) => *low,
        }
    }
}

/// One figure of one result.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    /// Section and row, unique within a result: what is equal here is compared.
    pub(super) name: String,
    pub(super) unit: Unit,
    /// Lower figures are better.
    pub(super) lower_is_better: bool,
    /// The smallest figure that a share is taken of, and the smallest change that counts.
    pub(super) least: f64,
    pub(super) values: Values,
}

/// What figures are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum By {
    /// ns and packets per second as they are.
    Absolute,
    /// Costs in hits of one hot hash key, rates in those of the baseline of their scenario.
    Ratio,
}

/// All items of a result, in its order.
pub(super) fn items(result: &BenchResult, by: By) -> Vec<Item> {
    let mut all: Vec<Item> = Vec::new();
    let reference = (by == By::Ratio).then(|| reference(result)).flatten();
    for row in &result.prog {
        // In ratios, the reference is one by definition.
        if by == By::Absolute || reference.is_none_or(|reference| reference.case != row.case) {
            all.push(cost(row, reference));
        }
    }
    all.extend(result.rates.iter().filter_map(|row| rate(result, row, by)));
    if by == By::Absolute {
        all.extend(absolute(result));
    }
    all
}

/// The reference case of a result.
pub(super) fn reference(result: &BenchResult) -> Option<&ProgRow> {
    result.prog.iter().find(|row| row.case == REFERENCE && row.ns_net >= LEAST_NS)
}

fn cost(row: &ProgRow, reference: Option<&ProgRow>) -> Item {
    let values = if row.net_ns.is_empty() { vec![row.ns_net] } else { row.net_ns.clone() };
    let (unit, least, values) = match reference {
        Some(reference) => {
            (Unit::Count, LEAST_NS / reference.ns_net, over(&values, &reference.net_ns, reference.ns_net))
        }
        None => (Unit::NsPerPacket, LEAST_NS, values),
    };
    Item { name: format!("prog {}", row.case), unit, lower_is_better: true, least, values: Values::Many(values) }
}

fn rate(result: &BenchResult, row: &RateRow, by: By) -> Option<Item> {
    let cores = row.cores.filter(|cores| *cores > 1).map_or_else(String::new, |cores| format!(", {cores} cores"));
    let flows = crate::report::figure::flows(row.flows);
    let name = format!("rate {}, {}, {} B, {flows}{cores}", row.dut, row.scenario, row.frame_bytes);
    let values = if row.values.is_empty() { vec![row.median] } else { row.values.clone() };
    let (unit, values) = match by {
        By::Absolute => (Unit::Pps, values),
        // Without a baseline beside it a rate says nothing on another machine.
        By::Ratio => {
            let baseline = crate::report::rivals::of_rate(result, row)?;
            (Unit::Count, over(&values, &baseline.values, baseline.median))
        }
    };
    Some(Item { name, unit, lower_is_better: false, least: f64::MIN_POSITIVE, values: Values::Many(values) })
}

/// Bounds, latencies and blocked times: they have no counterpart that they could be counted in.
fn absolute(result: &BenchResult) -> Vec<Item> {
    let item = |name: String, unit, lower_is_better, values| Item {
        name,
        unit,
        lower_is_better,
        least: f64::MIN_POSITIVE,
        values,
    };
    let mut all = Vec::new();
    for row in &result.ndr {
        let frame = row.frame_bytes.map_or_else(String::new, |bytes| format!(", {bytes} B"));
        let name = format!("{} {}{frame}", row.goal, row.dut);
        let upper = row.relevant_upper_pps.unwrap_or(f64::INFINITY);
        all.push(item(name, Unit::Pps, false, Values::Between(row.relevant_lower_pps, upper)));
    }
    for row in &result.soak {
        let (low, high) = (row.critical_pps - 2.0 * row.stdev_pps, row.critical_pps + 2.0 * row.stdev_pps);
        all.push(item(format!("soak {}", row.dut), Unit::Pps, false, Values::Between(low, high)));
    }
    for row in &result.back_to_back {
        let values = if row.values.is_empty() { vec![row.burst_frames] } else { row.values.clone() };
        let name = format!("burst {}, {} B", row.dut, row.frame_bytes);
        all.push(item(name, Unit::Count, false, Values::Many(values)));
    }
    for row in &result.latency {
        for (percentile, value) in [("50 %", row.p50), ("99 %", row.p99)] {
            let name = format!("latency {} at {}, {percentile}", row.dut, row.load);
            all.push(item(name, Unit::Latency, true, Values::One(value)));
        }
    }
    for row in &result.reconf {
        let name = format!("blocked {}, {}", row.dut, row.change);
        all.push(item(name, Unit::Ms, true, Values::One(row.blocked_ms)));
    }
    for row in &result.routes {
        all.push(item(format!("routes {}", row.what), Unit::Latency, true, Values::One(row.median_ns)));
    }
    all
}

/// Round by round where both have the same rounds, so that a slow moment drops out; else by the median.
fn over(values: &[f64], by: &[f64], median: f64) -> Vec<f64> {
    if values.len() == by.len() && by.iter().all(|by| *by > 0.0) {
        values.iter().zip(by).map(|(value, by)| value / by).collect()
    } else {
        values.iter().map(|value| value / median).collect()
    }
}
