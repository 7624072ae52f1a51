//! Which plot tells what: rows of a result -> charts.

use super::chart::{Axis, Bar, Bars, Group, Lines, Series};
use super::figure::{self, Quartiles, Unit, ratio};
use super::palette::{self, Palette};
use super::rivals;
use crate::result::{BenchResult, LatencyRow, RateRow, Scale};

/// A plot that shares a line of the page with another.
const HALF: (f64, f64) = (506.0, 220.0);

/// ns per packet: kernel primitives first, then the pipeline by area.
pub(crate) fn costs(result: &BenchResult) -> Option<Bars> {
    let mut groups: Vec<Group> = Vec::new();
    for row in &result.prog {
        let area = row.case.split('/').next().unwrap_or_default();
        let heading = if row.baseline { "kernel primitives and other projects' programs" } else { area };
        let rival = rivals::of_case(result, row);
        let times = rival.and_then(|rival| Some((rival, rivals::cost_ratio(row, rival)?)));
        let net = Quartiles::of(&row.net_ns);
        let bar = Bar {
            label: row.case.clone(),
            class: palette::bar(!row.baseline),
            value: row.ns_net,
            low: net.map(|net| net.p25),
            high: net.map(|net| net.p75),
            mark: None,
            note: times.map_or_else(String::new, |(rival, times)| {
                let name = rival.case.strip_prefix("baseline/").unwrap_or(&rival.case);
                if times.median >= 1.0 {
                    format!("{} cheaper than {name}", ratio(times.median))
                } else {
                    format!("{} dearer than {name}", ratio(1.0 / times.median))
                }
            }),
        };
        match groups.iter_mut().find(|group| group.heading == heading) {
            Some(group) => group.bars.push(bar),
            None => groups.push(Group { heading: heading.to_owned(), bars: vec![bar] }),
        }
    }
    (!groups.is_empty()).then(|| Bars {
        title: "Cost per packet by case".to_owned(),
        axis_label: "ns per packet, net of the harness, log scale; whiskers: 25th to 75th percentile of the rounds"
            .to_owned(),
        unit: Unit::NsPerPacket,
        log: true,
        // Net of the harness, the cheapest cases are around zero.
        least: 1.0,
        groups,
    })
}

/// Rates by scenario: of generators, or of devices. Devices span decades (rule sets), generators do not.
pub(crate) fn rates(result: &BenchResult, generators: bool) -> Option<Bars> {
    let mut groups: Vec<Group> = Vec::new();
    let rows = || result.rates.iter().filter(|row| rivals::is_generator(row) == generators);
    for row in rows() {
        let heading = row.scenario.clone();
        let bar = rate_bar(result, row);
        match groups.iter_mut().find(|group| group.heading == heading) {
            Some(group) => group.bars.push(bar),
            None => groups.push(Group { heading, bars: vec![bar] }),
        }
    }
    let medians = || rows().map(|row| row.median).filter(|median| *median > 0.0);
    let (lowest, highest) = (medians().fold(f64::INFINITY, f64::min), medians().fold(0.0, f64::max));
    let log = highest > lowest * 30.0;
    (!groups.is_empty()).then(|| Bars {
        title: if generators { "Rates of the generators" } else { "Rates of the devices under test" }.to_owned(),
        axis_label: format!(
            "received per second{}; whiskers: 25th to 75th percentile of the trials",
            if log { ", log scale" } else { "" }
        ),
        unit: Unit::Pps,
        log,
        least: 10_f64.powf(lowest.max(1.0).log10().floor()),
        groups,
    })
}

fn rate_bar(result: &BenchResult, row: &RateRow) -> Bar {
    let note = match (rivals::of_rate(result, row), rivals::on_one_core(result, row)) {
        (_, Some(single)) => rivals::rate_ratio(row, single).map(|times| format!("{} one core", ratio(times))),
        (Some(rival), None) => {
            let name = rival.dut.strip_prefix("generator/").unwrap_or(&rival.dut);
            rivals::rate_ratio(row, rival).map(|times| format!("{} {name}", ratio(times)))
        }
        (None, None) => None,
    };
    let name = row.dut.strip_prefix("generator/").unwrap_or(&row.dut);
    let cores = row.cores.filter(|cores| *cores > 1).map_or_else(String::new, |cores| format!(", {cores} cores"));
    let size =
        if row.frame_bytes == 60 || row.frame_bytes == 64 { String::new() } else { format!(", {} B", row.frame_bytes) };
    Bar {
        label: format!("{name}, {}{cores}{size}", figure::flows(row.flows)),
        class: palette::bar(rivals::is_ours(&row.dut)),
        value: row.median,
        low: Some(row.p25),
        high: Some(row.p75),
        mark: None,
        note: note.unwrap_or_default(),
    }
}

/// Bounds of searches: the bar ends at the lower bound, the whisker spans to the upper, the tick is conditional throughput.
pub(crate) fn bounds(result: &BenchResult) -> Option<Bars> {
    let mut groups: Vec<Group> = Vec::new();
    for row in &result.ndr {
        let heading = match row.frame_bytes {
            Some(bytes) => format!("{}, {bytes}-byte frames", row.goal),
            None => row.goal.clone(),
        };
        let bar = Bar {
            label: row.dut.clone(),
            class: palette::bar(rivals::is_ours(&row.dut)),
            value: row.relevant_lower_pps,
            low: row.relevant_upper_pps.map(|_| row.relevant_lower_pps),
            high: row.relevant_upper_pps,
            mark: row.conditional_throughput_pps,
            note: match row.relevant_upper_pps {
                Some(upper) => format!("to {}", Unit::Pps.show(upper)),
                None => "and no upper bound: the highest load met the goal".to_owned(),
            },
        };
        match groups.iter_mut().find(|group| group.heading == heading) {
            Some(group) => group.bars.push(bar),
            None => groups.push(Group { heading, bars: vec![bar] }),
        }
    }
    (!groups.is_empty()).then(|| Bars {
        title: "Bounds of the drop-rate searches".to_owned(),
        axis_label: "relevant lower to upper bound; tick: conditional throughput".to_owned(),
        unit: Unit::Pps,
        log: false,
        least: 0.0,
        groups,
    })
}

/// Latency by percentile: a plot for each load, a curve for each device, all on one scale.
pub(crate) fn latencies(result: &BenchResult, palette: &Palette) -> Vec<Lines> {
    let drawn = |row: &&LatencyRow| !row.histogram.is_empty();
    let rows = || result.latency.iter().filter(drawn);
    let values = rows().flat_map(|row| row.histogram.iter().map(|[value, _]| *value));
    let y = Axis::log(values, Unit::Latency);
    let x = Axis::percentile(rows().flat_map(|row| row.histogram.iter().map(|[_, percentile]| *percentile)));
    // By share, not by words: what background load an idle device bears differs, and is beside its curve.
    let mut loads: Vec<(f64, &str)> = Vec::new();
    for row in rows() {
        if !loads.iter().any(|(percent, _)| *percent == row.load_percent) {
            loads.push((row.load_percent, if row.load_percent == 0.0 { "no load but the probe" } else { &row.load }));
        }
    }
    let plot = |(percent, load): (f64, &str)| Lines {
        title: format!("Latency by percentile at {load}"),
        x,
        y,
        x_label: "percentile".to_owned(),
        y_label: format!("{load}: one-way latency, log scale"),
        size: HALF,
        series: rows()
            .filter(|row| row.load_percent == percent)
            .map(|row| Series {
                label: format!("{}, {}", row.dut, Unit::Pps.show(row.load_pps)),
                class: palette.class(&row.dut),
                points: row.histogram.iter().filter(|[_, p]| *p < 100.0).map(|[value, p]| (*p, *value)).collect(),
                dots: false,
            })
            .collect(),
    };
    loads.into_iter().map(plot).collect()
}

/// Cost against scale, one plot for each thing that is counted: of programs in ns, of devices in pps.
pub(crate) fn scales(result: &BenchResult) -> Vec<Lines> {
    let costs: Vec<(&Scale, f64, bool)> =
        result.prog.iter().filter_map(|row| Some((row.scale.as_ref()?, row.ns_net, row.baseline))).collect();
    let rates: Vec<(&Scale, f64, bool)> = result
        .rates
        .iter()
        .filter_map(|row| Some((row.scale.as_ref()?, row.median, !rivals::is_ours(&row.dut))))
        .collect();
    let mut plots = scaled(&costs, Unit::NsPerPacket);
    for (thing, plot) in &mut plots {
        plot.series.extend(usual_ways(result, thing, plot));
        let drawn = plot.series.iter().flat_map(|series| &series.points);
        plot.y = Axis::log(drawn.map(|(_, y)| *y), Unit::NsPerPacket);
    }
    plots.into_iter().chain(scaled(&rates, Unit::Pps)).map(|(_, plot)| plot).collect()
}

/// What the points of a plot are to be compared with, where it is one figure, whatever their number: a line across.
fn usual_ways(result: &BenchResult, thing: &str, plot: &Lines) -> Vec<Series> {
    let mut lines: Vec<Series> = Vec::new();
    let points = plot.series.iter().flat_map(|series| &series.points).map(|(x, _)| *x);
    let (first, last) = points.fold((f64::INFINITY, 0.0_f64), |(first, last), x| (first.min(x), last.max(x)));
    for row in result.prog.iter().filter(|row| row.scale.as_ref().is_some_and(|scale| scale.unit == thing)) {
        let rival = row.rival.as_ref().and_then(|name| result.prog.iter().find(|other| other.case == *name));
        let Some(rival) = rival.filter(|rival| rival.scale.is_none()) else { continue };
        if lines.iter().all(|line| line.label != rival.case) {
            let y = rival.ns_net.max(1.0);
            let class = "base".to_owned();
            let points = vec![(first, y), (last, y)];
            lines.push(Series { label: rival.case.clone(), class, points, dots: false });
        }
    }
    lines
}

/// With what is counted in each.
fn scaled(points: &[(&Scale, f64, bool)], unit: Unit) -> Vec<(String, Lines)> {
    let mut counted: Vec<&str> = Vec::new();
    for (scale, ..) in points {
        if !counted.contains(&scale.unit.as_str()) {
            counted.push(&scale.unit);
        }
    }
    counted.into_iter().filter_map(|thing| Some((thing.to_owned(), scaled_by(points, unit, thing)?))).collect()
}

fn scaled_by(points: &[(&Scale, f64, bool)], unit: Unit, thing: &str) -> Option<Lines> {
    let here = || points.iter().filter(|(scale, ..)| scale.unit == thing);
    let mut series: Vec<Series> = Vec::new();
    let (mut ours, mut rivals) = (0, 0);
    for (scale, value, rival) in here() {
        // A log axis has no place for a cost at the noise floor: it is drawn at its start.
        let point = (scale.value, value.max(1.0));
        if let Some(known) = series.iter_mut().find(|known| known.label == scale.family) {
            known.points.push(point);
            continue;
        }
        let next = if *rival { &mut rivals } else { &mut ours };
        *next += 1;
        let class =
            if *rival { format!("rival{}", (*next - 1) % 5 + 1) } else { format!("own{}", (*next - 1) % 3 + 1) };
        series.push(Series { label: scale.family.clone(), class, points: vec![point], dots: true });
    }
    // A family with one point is no curve, and is in the bars already.
    series.retain(|series| series.points.len() > 1);
    for series in &mut series {
        series.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    let drawn = || series.iter().flat_map(|series| &series.points);
    let x = Axis::log(drawn().map(|(x, _)| *x), Unit::Count);
    let y = Axis::log(drawn().map(|(_, y)| *y), unit);
    let (title, what) = match unit {
        Unit::Pps => (format!("Rate against the number of {thing}"), "received per second, log scale"),
        _ => (format!("Cost per packet against the number of {thing}"), "ns per packet, net, log scale"),
    };
    let x_label = format!("{thing}, log scale");
    (!series.is_empty()).then(|| Lines {
        title: title.clone(),
        x,
        y,
        x_label,
        y_label: format!("{title}: {what}"),
        size: HALF,
        series,
    })
}

/// Loss against load: RFC 2544, section 26.3 asks for this plot.
pub(crate) fn losses(result: &BenchResult, palette: &Palette) -> Option<Lines> {
    let mut series: Vec<Series> = Vec::new();
    for row in &result.loss {
        let label = format!("{}, {} B", row.dut, row.frame_bytes);
        let point = (row.load_pps, row.lost as f64 / row.offered.max(1) as f64 * 100.0);
        match series.iter_mut().find(|known| known.label == label) {
            Some(known) => known.points.push(point),
            None => series.push(Series { label, class: palette.class(&row.dut), points: vec![point], dots: true }),
        }
    }
    for series in &mut series {
        series.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    let drawn = || series.iter().flat_map(|series| &series.points);
    (!series.is_empty()).then(|| Lines {
        title: "Loss against load".to_owned(),
        x: Axis::linear(drawn().map(|(x, _)| *x), Unit::Pps),
        y: Axis::linear(drawn().map(|(_, y)| *y), Unit::Percent),
        x_label: "offered load".to_owned(),
        y_label: "frames lost, percent of those offered".to_owned(),
        size: (760.0, 240.0),
        series: series.clone(),
    })
}

/// Blocked time by change.
pub(crate) fn blocked(result: &BenchResult) -> Option<Bars> {
    let mut groups: Vec<Group> = Vec::new();
    for row in &result.reconf {
        let bar = Bar {
            label: row.dut.clone(),
            class: palette::bar(rivals::is_ours(&row.dut)),
            value: row.blocked_ms,
            note: if row.lost == 0 { "no frame lost".to_owned() } else { format!("{} frames lost", row.lost) },
            ..Bar::default()
        };
        match groups.iter_mut().find(|group| group.heading == row.change) {
            Some(group) => group.bars.push(bar),
            None => groups.push(Group { heading: row.change.clone(), bars: vec![bar] }),
        }
    }
    (!groups.is_empty()).then(|| Bars {
        title: "Blocked time while configuration changes".to_owned(),
        axis_label: "effective blocked time: frames lost / load".to_owned(),
        unit: Unit::Ms,
        log: false,
        least: 0.0,
        groups,
    })
}
