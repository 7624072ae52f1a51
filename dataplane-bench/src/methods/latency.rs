//! `latency`: how long packets take through devices at 0, 10, 50 and 90 % of the load that each bears without loss.
//!
//! pktgen writes the time at which a packet leaves into its stamp, and the sink's program takes the time at which it
//! arrives, of every packet and on the same clock: no process has to be woken for either, and none is in the figures. What the
//! method itself takes is measured on a pair of veth ends without a device and told beside; it is not subtracted.

use std::time::Duration;

use anyhow::Context as _;
use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::{Common, FEW, LEAST_LOAD, Station, deviate, progress, seconds};
use crate::lab::Pair;
use crate::lab::cores::Cores;
use crate::lab::path::Path;
use crate::lab::sender::Load;
use crate::lab::sink::Latencies;
use crate::lab::traffic::Traffic;
use crate::result::LatencyRow;
use crate::search::rfc2544;

/// Shares of the drop-free rate, percent. 0 stands for [`BACKGROUND`].
const LOADS: [f64; 4] = [0.0, 10.0, 50.0, 90.0];
/// Load of an idle device, packets a second: enough to have percentiles, too little to queue.
const BACKGROUND: f64 = 1_000.0;
const CLOCK: &str =
    "CLOCK_MONOTONIC: from the time in pktgen's stamp, taken when the packet leaves, to the sink's XDP program";

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// How long each load is held.
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = seconds)]
    duration: Duration,
    /// How long a trial of the search for the drop-free rate is.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = seconds)]
    trial: Duration,
    /// Time for all devices together: loads are held and searched for as long as fits.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    budget: Option<Duration>,
}

/// Measures and prints.
///
/// # Errors
/// Nothing can run, or a trial cannot be made.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let Some(mut session) = options.common.session(&FEW)? else { return Ok(()) };
    let devices = u32::try_from(session.stations.len())?.max(1);
    // Four loads, and a search of some eight trials of a quarter of that.
    let part = options.budget.map(|budget| budget / devices / 8);
    let (held, trial) = part.map_or((options.duration, options.trial), |part| (part, part / 4));
    let bias = options.common.from.is_none().then(|| bias(held.min(Duration::from_secs(2)))).transpose()?;
    let mut drop_free = Vec::new();
    for station in &mut session.stations {
        session.stop.check()?;
        let (record, stop) = (&mut session.result.trials, &session.stop);
        drop_free.push(station.awake(|station| {
            let greatest = station.greatest_load(record)?;
            let constants =
                rfc2544::Constants { trial_s: trial.as_secs_f64(), resolution: 0.05, ..rfc2544::Constants::default() };
            let least = LEAST_LOAD.min(greatest / 2.0);
            let mut trials = station.searched("latency/drop-free", record, stop);
            Ok(rfc2544::throughput(&constants, least, greatest, &mut trials)?.throughput_pps.unwrap_or(least))
        })?);
        progress(format_args!("{}: drop-free rate found", station.name));
    }
    for share in LOADS {
        for (station, drop_free) in session.stations.iter_mut().zip(&drop_free) {
            session.stop.check()?;
            let load = if share > 0.0 { drop_free * share / 100.0 } else { BACKGROUND.min(drop_free / 2.0) };
            let mut row = station.awake(|station| measure(station, load, held))?;
            row.load = if share > 0.0 {
                format!("{share:.0} % of the drop-free rate")
            } else {
                format!("background, {load:.0} pps")
            };
            row.load_percent = share;
            if let Some(bias) = &bias {
                row.bias_ns = bias.quantile(0.5).map(|ns| ns as f64);
                row.bias = "median of a pair of veth ends without a device, at 1,000 pps; not subtracted".to_owned();
            }
            session.result.latency.push(row);
        }
        progress(format_args!("latencies at {share:.0} %"));
    }
    let what = format!("the drop-free rate is found by halving to 5 % with trials of {:.2} s", trial.as_secs_f64());
    deviate(&mut session.result, "RFC 2544, section 26.1", vec![what]);
    let table = table(&session.result.latency);
    options.common.finish(session, |result| &result.latency, table)
}

/// Latencies through a device at one load.
pub(super) fn measure(station: &Station, load: f64, duration: Duration) -> anyhow::Result<LatencyRow> {
    let (trial, latencies) = station.path.timed(&station.traffic, &station.load(Some(load), duration))?;
    let lost = trial.sent.packets.saturating_sub(trial.received);
    let mut note = format!("{}; {}", station.about, station.placement);
    if lost > 0 {
        note.push_str(&format!("; {lost} of {} packets lost", trial.sent.packets));
    }
    let at = |share| latencies.quantile(share).map(|ns| ns as f64);
    let none = "no packet of it arrived";
    Ok(LatencyRow {
        dut: station.name.clone(),
        load_pps: load,
        frame_bytes: u32::try_from(station.traffic.frame_bytes).ok(),
        samples: latencies.packets(),
        min: latencies.min().map(|ns| ns as f64).context(none)?,
        p50: at(0.5).context(none)?,
        p90: at(0.9).context(none)?,
        p99: at(0.99).context(none)?,
        p999: at(0.999).context(none)?,
        max: at(1.0).context(none)?,
        clock: CLOCK.to_owned(),
        histogram: latencies.curve(),
        note: Some(note),
        ..LatencyRow::default()
    })
}

/// The same without a device.
fn bias(duration: Duration) -> anyhow::Result<Latencies> {
    let pair = Pair::new(1)?;
    let path = Path::along(&pair)?;
    let load = Load {
        pps: Some(BACKGROUND),
        duration,
        packets: None,
        cores: Cores::assign(1)?.generator,
        backend: None,
        timed: false,
        steps: Vec::new(),
    };
    Ok(path.timed(&Traffic::ipv4(1), &load)?.1)
}

fn table(rows: &[LatencyRow]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["", "load", "Mpps", "us: min", "50 %", "90 %", "99 %", "99.9 %", "max"]);
    let us = |ns: f64| format!("{:.1}", ns / 1e3);
    for row in rows {
        table.add_row([
            row.dut.clone(),
            row.load.clone(),
            format!("{:.4}", row.load_pps / 1e6),
            us(row.min),
            us(row.p50),
            us(row.p90),
            us(row.p99),
            us(row.p999),
            us(row.max),
        ]);
    }
    table
}
