//! `rfc9004`: the longest burst at the greatest rate that a device takes without loss, and what that says about its buffer.

use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::{Budget, Common, FEW, LEAST_LOAD, Session, Station, deviate, progress, seconds};
use crate::result::{BackToBackRow, NotRun};
use crate::search::Error;
use crate::search::rfc2544;
use crate::search::rfc9004::{BackToBack, Constants, back_to_back};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Searches for the longest burst; RFC 9004 wants 50.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    tests: u32,
    /// The longest burst; RFC 2544 wants 2 s.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = seconds)]
    longest: Duration,
    /// How long a trial of the throughput is that bursts are held against.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = seconds)]
    trial: Duration,
    /// Time for all devices together: fewer and shorter trials, and the result says so.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    budget: Option<Duration>,
}

/// Trials with a budget: of the throughput, of bursts, and a search's worth of either.
const QUICK_TRIAL: Duration = Duration::from_millis(200);
const QUICK_LONGEST: Duration = Duration::from_millis(200);

/// Measures and prints.
///
/// # Errors
/// Nothing can run, or a trial cannot be made.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let Some(mut session) = options.common.session(&FEW)? else { return Ok(()) };
    let count = u32::try_from(session.stations.len())?.max(1);
    let mut stations = std::mem::take(&mut session.stations);
    for station in &mut stations {
        session.stop.check()?;
        let budget = options.budget.map(|budget| Budget::new(Some(budget / count)));
        station.awake(|station| measure(station, options, budget, &mut session))?;
        progress(format_args!("{}: done", station.name));
    }
    session.stations = stations;
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["", "frames", "at Mpps", "buffer ms", "corrected ms"]);
    for row in &session.result.back_to_back {
        table.add_row([
            row.dut.clone(),
            format!("{:.0}", row.burst_frames),
            format!("{:.3}", row.burst_pps / 1e6),
            format!("{:.3}", row.buffer_ms),
            format!("{:.3}", row.corrected_buffer_ms),
        ]);
    }
    options.common.finish(session, |result| &result.back_to_back, table)
}

fn measure(station: &Station, options: &Options, budget: Option<Budget>, session: &mut Session) -> anyhow::Result<()> {
    let Session { result, stop, .. } = session;
    let trial = if budget.is_some() { QUICK_TRIAL } else { options.trial };
    let longest = if budget.is_some() { QUICK_LONGEST } else { options.longest };
    let greatest = station.greatest_load(&mut result.trials)?;
    let throughput = rfc2544::Constants { trial_s: trial.as_secs_f64(), resolution: 0.02, ..Default::default() };
    let least = LEAST_LOAD.min(greatest / 2.0);
    let mut trials = station.searched("rfc9004/throughput", &mut result.trials, stop);
    let found = rfc2544::throughput(&throughput, least, greatest, &mut trials)?;
    let throughput_pps = found.throughput_pps.unwrap_or(0.0);
    deviate(result, "RFC 2544, section 26.1", found.deviations);

    // With a budget, one search at a time until it is spent.
    let tests = if budget.is_some() { 1 } else { options.tests };
    let constants = Constants { tests, longest_s: longest.as_secs_f64(), ..Constants::default() };
    let mut all: Vec<f64> = Vec::new();
    let mut last: Option<BackToBack>;
    loop {
        let mut trials = station.searched("rfc9004", &mut result.trials, stop);
        match back_to_back(&constants, throughput_pps, greatest, &mut trials) {
            Ok(found) => {
                all.extend(found.tests.iter().map(|frames| *frames as f64));
                last = Some(found);
            }
            Err(Error::Invalid(why)) => {
                result.not_run.push(NotRun { what: format!("back-to-back frames, {}", station.name), why });
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        if budget.is_none_or(|budget| budget.spent()) || all.len() >= options.tests as usize {
            break;
        }
    }
    let mut deviations = last.take().map(|found| found.deviations).unwrap_or_default();
    if budget.is_some() {
        deviations.retain(|text| !text.contains("tests, RFC"));
        deviations.push(format!("{} tests, RFC 9004 section 6.3 wants at least 50", all.len()));
    }
    let note = deviations.iter().find(|text| text.contains("the buffer is larger")).cloned();
    deviate(result, "RFC 9004", deviations);
    let mean = all.iter().sum::<f64>() / all.len().max(1) as f64;
    let buffer_ms = mean / greatest * 1e3;
    result.back_to_back.push(BackToBackRow {
        dut: station.name.clone(),
        frame_bytes: u32::try_from(station.traffic.frame_bytes)?,
        burst_frames: mean,
        values: all,
        burst_pps: greatest,
        throughput_pps,
        buffer_ms,
        corrected_buffer_ms: buffer_ms * (1.0 - throughput_pps / greatest),
        note,
    });
    Ok(())
}
