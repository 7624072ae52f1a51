//! The sections as tables, defined once for the page, for Markdown and for CSV.

use super::figure::{Quartiles, Unit, count, ratio};
use super::rivals;
use crate::result::BenchResult;

/// A cell: shown with its unit to people, as the bare value to programs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Text(String),
    Number(f64, Unit),
    Whole(u64),
    Ratio(f64),
    /// Values behind a median: to programs only, apart by spaces.
    List(Vec<f64>),
    Missing,
}

impl Cell {
    fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    fn maybe(value: Option<f64>, unit: Unit) -> Self {
        value.map_or(Self::Missing, |value| Self::Number(value, unit))
    }

    fn note(note: Option<&String>) -> Self {
        Self::text(note.cloned().unwrap_or_default())
    }

    /// Right-aligned, as numbers are.
    pub(crate) fn is_numeric(&self) -> bool {
        !matches!(self, Self::Text(_))
    }

    /// For people.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(value, unit) => unit.show(*value),
            Self::Whole(value) => count(*value),
            Self::Ratio(value) => ratio(*value),
            Self::List(values) => count(values.len() as u64),
            Self::Missing => "–".to_owned(),
        }
    }

    /// For programs.
    pub(crate) fn plain(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(value, _) | Self::Ratio(value) => value.to_string(),
            Self::Whole(value) => value.to_string(),
            Self::List(values) => values.iter().map(f64::to_string).collect::<Vec<_>>().join(" "),
            Self::Missing => String::new(),
        }
    }
}

/// A column: its name in CSV with the unit in it, and its heading for people; without one it is in CSV only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) heading: &'static str,
}

/// A section.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Also the name of the CSV file.
    pub(crate) name: &'static str,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Vec<Cell>>,
}

impl Table {
    fn new(name: &'static str, columns: &[(&'static str, &'static str)], rows: Vec<Vec<Cell>>) -> Self {
        let columns = columns.iter().map(|(name, heading)| Column { name, heading }).collect();
        Self { name, columns, rows }
    }

    /// The columns that people see: heading, and whether its cells are numbers.
    pub(crate) fn headings(&self) -> Vec<(&'static str, bool)> {
        let numeric = |index: usize| self.rows.iter().filter_map(|row| row.get(index)).all(Cell::is_numeric);
        let shown = self.columns.iter().enumerate().filter(|(_, column)| !column.heading.is_empty());
        shown.map(|(index, column)| (column.heading, numeric(index))).collect()
    }

    /// The cells that people see.
    pub(crate) fn shown<'a>(&'a self, row: &'a [Cell]) -> impl Iterator<Item = &'a Cell> {
        let visible = self.columns.iter().zip(row).filter(|(column, _)| !column.heading.is_empty());
        visible.map(|(_, cell)| cell)
    }
}

/// ns per packet.
pub(crate) fn prog(result: &BenchResult) -> Table {
    let columns = [
        ("case", "case"),
        ("about", "what"),
        ("baseline", ""),
        ("ns_net", "net"),
        ("net_p25", "25 %"),
        ("net_p75", "75 %"),
        ("ns_median", "with harness"),
        ("ns_p25", ""),
        ("ns_p75", ""),
        ("rounds", "rounds"),
        ("rival", "rival"),
        ("ratio", "rival / case"),
        ("net_ns", ""),
        ("round_ns", ""),
    ];
    let row = |row: &crate::result::ProgRow| {
        let rival = rivals::of_case(result, row);
        let times = rival.and_then(|rival| rivals::cost_ratio(row, rival));
        let net = Quartiles::of(&row.net_ns);
        let ns = |value: f64| Cell::Number(value, Unit::NsPerPacket);
        vec![
            Cell::text(&row.case),
            Cell::text(&row.about),
            Cell::text(row.baseline.to_string()),
            ns(row.ns_net),
            Cell::maybe(net.map(|net| net.p25), Unit::NsPerPacket),
            Cell::maybe(net.map(|net| net.p75), Unit::NsPerPacket),
            ns(row.ns_median),
            ns(row.ns_p25),
            ns(row.ns_p75),
            Cell::Whole(u64::from(row.rounds)),
            Cell::text(row.rival.clone().unwrap_or_default()),
            times.map_or(Cell::Missing, |times| Cell::Ratio(times.median)),
            Cell::List(row.net_ns.clone()),
            Cell::List(row.round_ns.clone()),
        ]
    };
    Table::new("prog", &columns, result.prog.iter().map(row).collect())
}

/// Rates: of generators, or of devices.
pub(crate) fn rates(result: &BenchResult, generators: bool) -> Table {
    let columns = [
        ("dut", if generators { "generator" } else { "device" }),
        ("scenario", "scenario"),
        ("frame_bytes", "frame, bytes"),
        ("flows", "flows"),
        ("cores", "cores"),
        ("median_pps", "received"),
        ("p25_pps", "25 %"),
        ("p75_pps", "75 %"),
        ("trials", "trials"),
        ("sent_median_pps", "sent"),
        ("baseline", "beside"),
        ("ratio", "ratio"),
        ("note", "note"),
        ("values_pps", ""),
    ];
    let row = |row: &crate::result::RateRow| {
        let rival = rivals::of_rate(result, row);
        let times = rival.and_then(|rival| rivals::rate_ratio(row, rival));
        let pps = |value: f64| Cell::Number(value, Unit::Pps);
        vec![
            Cell::text(&row.dut),
            Cell::text(&row.scenario),
            Cell::Whole(u64::from(row.frame_bytes)),
            Cell::Whole(row.flows),
            row.cores.map_or(Cell::Missing, |cores| Cell::Whole(u64::from(cores))),
            pps(row.median),
            pps(row.p25),
            pps(row.p75),
            Cell::Whole(row.values.len() as u64),
            Cell::maybe(row.sent_median, Unit::Pps),
            Cell::text(rival.map(|rival| rival.dut.clone()).unwrap_or_default()),
            times.map_or(Cell::Missing, Cell::Ratio),
            Cell::note(row.note.as_ref()),
            Cell::List(row.values.clone()),
        ]
    };
    let rows = result.rates.iter().filter(|row| rivals::is_generator(row) == generators).map(row).collect();
    Table::new(if generators { "generators" } else { "rates" }, &columns, rows)
}

/// Bounds of searches.
pub(crate) fn ndr(result: &BenchResult) -> Table {
    let columns = [
        ("dut", "device"),
        ("goal", "goal"),
        ("frame_bytes", "frame, bytes"),
        ("flows", "flows"),
        ("relevant_lower_pps", "lower bound"),
        ("relevant_upper_pps", "upper bound"),
        ("conditional_throughput_pps", "conditional throughput"),
        ("trials", "trials"),
        ("seconds", "seconds"),
        ("note", "note"),
    ];
    let row = |row: &crate::result::NdrRow| {
        vec![
            Cell::text(&row.dut),
            Cell::text(&row.goal),
            row.frame_bytes.map_or(Cell::Missing, |bytes| Cell::Whole(u64::from(bytes))),
            row.flows.map_or(Cell::Missing, Cell::Whole),
            Cell::Number(row.relevant_lower_pps, Unit::Pps),
            Cell::maybe(row.relevant_upper_pps, Unit::Pps),
            Cell::maybe(row.conditional_throughput_pps, Unit::Pps),
            Cell::Whole(u64::from(row.trials)),
            Cell::Number(row.seconds, Unit::Count),
            Cell::note(row.note.as_ref()),
        ]
    };
    Table::new("ndr", &columns, result.ndr.iter().map(row).collect())
}

/// Loss against load.
pub(crate) fn loss(result: &BenchResult) -> Table {
    let columns = [
        ("dut", "device"),
        ("frame_bytes", "frame, bytes"),
        ("load_percent", "load"),
        ("load_pps", "offered"),
        ("offered", "frames"),
        ("lost", "lost"),
        ("loss_percent", "loss"),
    ];
    let row = |row: &crate::result::LossRow| {
        vec![
            Cell::text(&row.dut),
            Cell::Whole(u64::from(row.frame_bytes)),
            Cell::Number(row.load_percent, Unit::Percent),
            Cell::Number(row.load_pps, Unit::Pps),
            Cell::Whole(row.offered),
            Cell::Whole(row.lost),
            Cell::Number(row.lost as f64 / row.offered.max(1) as f64 * 100.0, Unit::Percent),
        ]
    };
    Table::new("loss", &columns, result.loss.iter().map(row).collect())
}

/// Longest bursts without loss.
pub(crate) fn back_to_back(result: &BenchResult) -> Table {
    let columns = [
        ("dut", "device"),
        ("frame_bytes", "frame, bytes"),
        ("burst_frames", "longest burst, frames"),
        ("repetitions", "repetitions"),
        ("burst_pps", "burst rate"),
        ("throughput_pps", "throughput"),
        ("buffer_ms", "implied buffer"),
        ("corrected_buffer_ms", "corrected buffer"),
        ("note", "note"),
        ("values_frames", ""),
    ];
    let row = |row: &crate::result::BackToBackRow| {
        vec![
            Cell::text(&row.dut),
            Cell::Whole(u64::from(row.frame_bytes)),
            Cell::Number(row.burst_frames, Unit::Count),
            Cell::Whole(row.values.len() as u64),
            Cell::Number(row.burst_pps, Unit::Pps),
            Cell::Number(row.throughput_pps, Unit::Pps),
            Cell::Number(row.buffer_ms, Unit::Ms),
            Cell::Number(row.corrected_buffer_ms, Unit::Ms),
            Cell::note(row.note.as_ref()),
            Cell::List(row.values.clone()),
        ]
    };
    Table::new("back_to_back", &columns, result.back_to_back.iter().map(row).collect())
}

/// Latency at load; the curves are in the JSON.
pub(crate) fn latency(result: &BenchResult) -> Table {
    let columns = [
        ("dut", "device"),
        ("load", "load"),
        ("load_percent", ""),
        ("load_pps", "offered"),
        ("frame_bytes", "frame, bytes"),
        ("samples", "samples"),
        ("min_ns", "lowest"),
        ("p50_ns", "50 %"),
        ("p90_ns", "90 %"),
        ("p99_ns", "99 %"),
        ("p999_ns", "99.9 %"),
        ("max_ns", "highest"),
        ("bias_ns", "bias"),
        ("clock", "clock"),
        ("note", "note"),
    ];
    let row = |row: &crate::result::LatencyRow| {
        let ns = |value: f64| Cell::Number(value, Unit::Latency);
        vec![
            Cell::text(&row.dut),
            Cell::text(&row.load),
            Cell::Number(row.load_percent, Unit::Percent),
            Cell::Number(row.load_pps, Unit::Pps),
            row.frame_bytes.map_or(Cell::Missing, |bytes| Cell::Whole(u64::from(bytes))),
            Cell::Whole(row.samples),
            ns(row.min),
            ns(row.p50),
            ns(row.p90),
            ns(row.p99),
            ns(row.p999),
            ns(row.max),
            Cell::maybe(row.bias_ns, Unit::Latency),
            Cell::text(&row.clock),
            Cell::note(row.note.as_ref()),
        ]
    };
    Table::new("latency", &columns, result.latency.iter().map(row).collect())
}

/// Blocked time.
pub(crate) fn reconf(result: &BenchResult) -> Table {
    let columns = [
        ("dut", "device"),
        ("change", "change"),
        ("load_pps", "load"),
        ("offered", "frames"),
        ("lost", "lost"),
        ("blocked_ms", "blocked"),
        ("change_ms", "the change took"),
        ("note", "note"),
    ];
    let row = |row: &crate::result::ReconfRow| {
        vec![
            Cell::text(&row.dut),
            Cell::text(&row.change),
            Cell::Number(row.load_pps, Unit::Pps),
            Cell::Whole(row.offered),
            Cell::Whole(row.lost),
            Cell::Number(row.blocked_ms, Unit::Ms),
            Cell::maybe(row.change_ms, Unit::Ms),
            Cell::note(row.note.as_ref()),
        ]
    };
    Table::new("reconf", &columns, result.reconf.iter().map(row).collect())
}

/// What routes cost.
pub(crate) fn routes(result: &BenchResult) -> Table {
    let columns = [
        ("what", "what"),
        ("about", "about"),
        ("count", "times"),
        ("median_ns", "median"),
        ("p99_ns", "99 %"),
        ("max_ns", "longest"),
        ("offered", "frames"),
        ("lost", "lost"),
    ];
    let row = |row: &crate::result::RoutesRow| {
        let time = |ns| Cell::Number(ns, Unit::Latency);
        let frames = |count: Option<u64>| count.map_or(Cell::Missing, Cell::Whole);
        vec![
            Cell::text(&row.what),
            Cell::text(&row.about),
            Cell::Whole(row.count),
            time(row.median_ns),
            time(row.p99_ns),
            time(row.max_ns),
            frames(row.offered),
            frames(row.lost),
        ]
    };
    Table::new("routes", &columns, result.routes.iter().map(row).collect())
}

/// Critical loads.
pub(crate) fn soak(result: &BenchResult) -> Table {
    let columns = [
        ("dut", "device"),
        ("frame_bytes", "frame, bytes"),
        ("target_loss_ratio", "target loss ratio"),
        ("critical_pps", "critical load"),
        ("stdev_pps", "standard deviation"),
        ("trials", "trials"),
        ("seconds", "seconds"),
        ("note", "note"),
    ];
    let row = |row: &crate::result::SoakRow| {
        vec![
            Cell::text(&row.dut),
            row.frame_bytes.map_or(Cell::Missing, |bytes| Cell::Whole(u64::from(bytes))),
            Cell::Number(row.target_loss_ratio, Unit::Count),
            Cell::Number(row.critical_pps, Unit::Pps),
            Cell::Number(row.stdev_pps, Unit::Pps),
            Cell::Whole(u64::from(row.trials)),
            Cell::Number(row.seconds, Unit::Count),
            Cell::note(row.note.as_ref()),
        ]
    };
    Table::new("soak", &columns, result.soak.iter().map(row).collect())
}

/// What was asked for and not measured.
pub(crate) fn not_run(result: &BenchResult) -> Table {
    let row = |row: &crate::result::NotRun| vec![Cell::text(&row.what), Cell::text(&row.why)];
    Table::new("not_run", &[("what", "what"), ("why", "why")], result.not_run.iter().map(row).collect())
}

/// Where methods were not followed to the letter.
pub(crate) fn deviations(result: &BenchResult) -> Table {
    let row = |row: &crate::result::Deviation| vec![Cell::text(&row.from), Cell::text(&row.what)];
    Table::new(
        "deviations",
        &[("from", "from"), ("what", "what was done")],
        result.deviations.iter().map(row).collect(),
    )
}

/// Every trial.
pub(crate) fn trials(result: &BenchResult) -> Table {
    let columns = [
        ("test", "test"),
        ("dut", "device"),
        ("frame_bytes", "frame, bytes"),
        ("load_pps", "load"),
        ("duration_s", "seconds"),
        ("wanted", "wanted"),
        ("sent", "sent"),
        ("received", "received"),
    ];
    let row = |row: &crate::result::Trial| {
        vec![
            Cell::text(&row.test),
            Cell::text(&row.dut),
            row.frame_bytes.map_or(Cell::Missing, |bytes| Cell::Whole(u64::from(bytes))),
            Cell::Number(row.load_pps, Unit::Pps),
            Cell::Number(row.duration_s, Unit::Count),
            Cell::Whole(row.wanted),
            Cell::Whole(row.sent),
            Cell::Whole(row.received),
        ]
    };
    Table::new("trials", &columns, result.trials.iter().map(row).collect())
}

/// Those that have rows, in the order of the page.
pub(crate) fn all(result: &BenchResult) -> Vec<Table> {
    let tables = [
        prog(result),
        rates(result, true),
        rates(result, false),
        ndr(result),
        loss(result),
        back_to_back(result),
        latency(result),
        reconf(result),
        routes(result),
        soak(result),
        not_run(result),
        deviations(result),
        trials(result),
    ];
    tables.into_iter().filter(|table| !table.rows.is_empty()).collect()
}
