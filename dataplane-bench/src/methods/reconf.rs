//! `reconf`: what a change of configuration costs while traffic flows. The load is held at what the device bears without
//! loss; the effective blocked time is what was lost over the load (as FD.io CSIT's reconf tests have it).

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::{Budget, Common, LEAST_LOAD, Station, Stop, progress, seconds};
use crate::result::{NotRun, ReconfRow, Trial};
use crate::search::rfc2544;

/// Devices where none are named: those with changes.
const DEFAULT: [&str; 8] = [
    "kernel/forward",
    "nft/rules-1000",
    "nft/set-10000",
    "iptables-legacy/rules-1000",
    "iptables/service-nat-1000",
    "margay/forward",
    "margay/policy-1000",
    "margay/lb-100",
];
/// Quiet before a change and after it.
const BEFORE: Duration = Duration::from_millis(300);
const AFTER: Duration = Duration::from_millis(700);
/// Longest that a change is waited for with the load on.
const LONGEST: Duration = Duration::from_secs(20);

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Times that each change is made; the median counts.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Share of the drop-free rate that is held, percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 50.0)]
    load: f64,
    /// Begin no further round after this time.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    budget: Option<Duration>,
}

/// What one change has cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    offered: u64,
    lost: u64,
    took: Duration,
}

/// A device's change, and what it has cost so far.
struct Change {
    station: usize,
    name: &'static str,
    load_pps: f64,
    costs: Vec<Cost>,
}

/// Measures and prints.
///
/// # Errors
/// Nothing can run, or a trial cannot be made.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(
        options.load > 0.0 && options.load <= 100.0,
        "--load is a share of the drop-free rate: above 0, at most 100"
    );
    let Some(mut session) = options.common.session(&DEFAULT)? else { return Ok(()) };
    let budget = Budget::new(options.budget);
    let mut changes = Vec::new();
    for (at, station) in session.stations.iter_mut().enumerate() {
        session.stop.check()?;
        let (record, stop) = (&mut session.result.trials, &session.stop);
        let load_pps = station.awake(|station| Ok(drop_free(station, record, stop)? * options.load / 100.0))?;
        let names = station.running.as_ref().map(|running| running.changes()).unwrap_or_default();
        if names.is_empty() {
            let why = "it has no configuration to change".to_owned();
            session.result.not_run.push(NotRun { what: format!("reconf of {}", station.name), why });
        }
        changes.extend(names.into_iter().map(|name| Change { station: at, name, load_pps, costs: Vec::new() }));
    }
    for round in 0..options.rounds {
        for change in &mut changes {
            session.stop.check()?;
            let Some(station) = session.stations.get_mut(change.station) else { continue };
            let (name, load) = (change.name, change.load_pps);
            let cost = station.awake(|station| cost(station, name, round, load)).with_context(|| name.to_owned())?;
            session.result.trials.push(trial(station, change, cost));
            change.costs.push(cost);
        }
        progress(format_args!("round {} of {}", round + 1, options.rounds));
        if budget.spent() {
            break;
        }
    }
    let rows =
        changes.iter().filter_map(|change| Some(row(session.stations.get(change.station)?, change, options.load)));
    session.result.reconf = rows.collect();
    let table = table(&session.result.reconf);
    options.common.finish(session, |result| &result.reconf, table)
}

fn drop_free(station: &Station, record: &mut Vec<Trial>, stop: &Stop) -> anyhow::Result<f64> {
    let greatest = station.greatest_load(record)?;
    let constants = rfc2544::Constants { trial_s: 0.2, resolution: 0.1, ..rfc2544::Constants::default() };
    let least = LEAST_LOAD.min(greatest / 2.0);
    let mut trials = station.searched("reconf/drop-free", record, stop);
    Ok(rfc2544::throughput(&constants, least, greatest, &mut trials)?.throughput_pps.unwrap_or(least))
}

/// Holds the load, makes the change, and ends the load a while after the change is in force.
fn cost(station: &mut Station, name: &str, step: u32, load_pps: f64) -> anyhow::Result<Cost> {
    let running = station.running.as_mut().context("there is nothing to change")?;
    let watch = pktgen::progress::Progress::default();
    let load = station.cores.generator.clone();
    let load = crate::lab::sender::Load {
        pps: Some(load_pps),
        duration: LONGEST,
        packets: None,
        cores: load,
        backend: None,
        timed: false,
        steps: Vec::new(),
    };
    let (path, traffic) = (&station.path, &station.traffic);
    thread::scope(|scope| {
        let sending = scope.spawn(|| path.watched(traffic, &load, &watch));
        thread::sleep(BEFORE);
        let start = Instant::now();
        let changed = running.change(name, step);
        let took = start.elapsed();
        thread::sleep(AFTER);
        watch.stop();
        let trial = sending.join().map_err(|_| anyhow::anyhow!("the generator panicked"))??;
        changed?;
        ensure!(took + BEFORE < LONGEST, "the change took longer ({took:?}) than the load was held");
        let lost = trial.sent.packets.saturating_sub(trial.received);
        Ok(Cost { offered: trial.sent.packets, lost, took })
    })
}

fn trial(station: &Station, change: &Change, cost: Cost) -> Trial {
    Trial {
        test: format!("reconf/{}", change.name),
        dut: station.name.clone(),
        frame_bytes: u32::try_from(station.traffic.frame_bytes).ok(),
        load_pps: change.load_pps,
        duration_s: cost.offered as f64 / change.load_pps,
        wanted: cost.offered,
        sent: cost.offered,
        received: cost.offered - cost.lost,
    }
}

/// The round whose loss is the median.
fn row(station: &Station, change: &Change, share: f64) -> ReconfRow {
    let mut costs = change.costs.clone();
    costs.sort_by_key(|cost| cost.lost);
    let median = costs.get(costs.len() / 2).copied().unwrap_or(Cost { offered: 0, lost: 0, took: Duration::ZERO });
    let blocked = |lost: u64| lost as f64 / change.load_pps * 1e3;
    let most = costs.last().map_or(0.0, |cost| blocked(cost.lost));
    ReconfRow {
        dut: station.name.clone(),
        change: change.name.to_owned(),
        load_pps: change.load_pps,
        offered: median.offered,
        lost: median.lost,
        blocked_ms: blocked(median.lost),
        change_ms: Some(median.took.as_secs_f64() * 1e3),
        note: Some(format!(
            "median of {} rounds, the worst blocked {most:.2} ms; at {share:.0} % of the drop-free rate; {}",
            costs.len(),
            station.placement
        )),
    }
}

fn table(rows: &[ReconfRow]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["", "change", "Mpps", "lost", "blocked ms", "took ms"]);
    for row in rows {
        table.add_row([
            row.dut.clone(),
            row.change.clone(),
            format!("{:.4}", row.load_pps / 1e6),
            row.lost.to_string(),
            format!("{:.3}", row.blocked_ms),
            row.change_ms.map(|ms| format!("{ms:.0}")).unwrap_or_default(),
        ]);
    }
    table
}
