//! `rfc2544`: throughput, frame loss rate, latency and system recovery with the RFC's frame sizes and constants. What is told otherwise is
//! listed in the result; nothing said, every trial is a minute, and a device takes most of a day.

use std::time::Duration;

use anyhow::ensure;

use super::ndr::table;
use super::station::TrialError;
use super::{Common, LEAST_LOAD, Session, Station, deviate, progress, seconds};
use crate::result::{LatencyRow, LossRow, NdrRow, NotRun};
use crate::search::rfc2544::{self, Constants, FRAME_SIZES};
use crate::search::{Error, Summary};

/// Bytes of the frame check sequence, which the RFC's sizes include.
const FCS_BYTES: u32 = 4;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Frame sizes with the check sequence; left out: those of the RFC, section 9.1.
    #[arg(long, value_name = "BYTES,...", value_delimiter = ',', conflicts_with = "size")]
    frame_sizes: Vec<u32>,
    /// How long a trial is; the RFC wants 60 s.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = seconds)]
    trial: Duration,
    /// How long a latency trial is; the RFC wants 120 s.
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = seconds)]
    latency_trial: Duration,
    /// Speed of the link in bit/s, where it has one: no load is above its line rate.
    #[arg(long, value_name = "BITS")]
    line_rate: Option<f64>,
    /// How long the overload of a recovery trial is; the RFC wants 60 s.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = seconds)]
    overload: Duration,
    /// Recovery trials.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    recovery_trials: u32,
    /// Latency trials; the RFC wants 20.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    latency_trials: u32,
}

/// Measures and prints.
///
/// # Errors
/// Nothing can run, or a trial cannot be made.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let sizes = if options.frame_sizes.is_empty() { FRAME_SIZES.to_vec() } else { options.frame_sizes.clone() };
    ensure!(sizes.iter().all(|size| (64..=1518).contains(size)), "frames of Ethernet have 64 to 1518 bytes");
    let Some(mut session) = options.common.session(&["margay/forward"])? else { return Ok(()) };
    let constants = Constants {
        trial_s: options.trial.as_secs_f64(),
        latency_s: options.latency_trial.as_secs_f64(),
        latency_trials: options.latency_trials,
        recovery_s: options.overload.as_secs_f64(),
        recovery_trials: options.recovery_trials,
        ..Constants::default()
    };
    let mut stations = std::mem::take(&mut session.stations);
    for station in &mut stations {
        for size in &sizes {
            session.stop.check()?;
            station.traffic.frame_bytes = usize::try_from(size - FCS_BYTES)?;
            let line_rate = options.line_rate.map(|bits| rfc2544::line_rate(bits, *size));
            station.awake(|station| measure(station, &constants, line_rate, &mut session))?;
            progress(format_args!("{}: frames of {size} bytes", station.name));
        }
    }
    session.stations = stations;
    let table = table(&session.result.ndr);
    options.common.finish(session, |result| &result.ndr, table)
}

fn measure(
    station: &Station,
    constants: &Constants,
    line_rate: Option<f64>,
    session: &mut Session,
) -> anyhow::Result<()> {
    let Session { result, stop, .. } = session;
    let frame_bytes = u32::try_from(station.traffic.frame_bytes)?;
    let reached = station.greatest_load(&mut result.trials)?;
    let greatest = reached.min(line_rate.unwrap_or(f64::INFINITY));
    let least = LEAST_LOAD.min(greatest / 2.0);
    let mut trials = station.searched("rfc2544/throughput", &mut result.trials, stop);
    let found = rfc2544::throughput(constants, least, greatest, &mut trials)?;
    result.ndr.push(NdrRow {
        dut: station.name.clone(),
        goal: "RFC 2544 throughput".to_owned(),
        frame_bytes: Some(frame_bytes),
        flows: Some(station.traffic.flows.into()),
        relevant_lower_pps: found.throughput_pps.unwrap_or(0.0),
        relevant_upper_pps: found.failed_pps,
        trials: u32::try_from(found.trials.len())?,
        seconds: found.trials.iter().map(|trial| trial.duration_s).sum(),
        note: Some(format!("{}; {}", station.about, station.placement)),
        ..NdrRow::default()
    });
    deviate(result, "RFC 2544, section 26.1", found.deviations);

    let mut trials = station.searched("rfc2544/loss", &mut result.trials, stop);
    let loss = rfc2544::frame_loss(constants, greatest, &mut trials)?;
    result.loss.extend(loss.points.iter().map(|point| LossRow {
        dut: station.name.clone(),
        frame_bytes,
        load_pps: point.outcome.offered,
        load_percent: point.share * 100.0,
        offered: point.outcome.wanted,
        lost: point.outcome.lost(),
    }));
    deviate(result, "RFC 2544, section 26.3", loss.deviations);

    let Some(throughput) = found.throughput_pps else { return Ok(()) };
    let mut all: Vec<LatencyRow> = Vec::new();
    let latency = rfc2544::latency(constants, throughput, |load, duration| {
        let row =
            stop.check().and_then(|()| super::latency::measure(station, load, Duration::try_from_secs_f64(duration)?));
        let row = row.map_err(TrialError)?;
        let median = row.p50;
        all.push(row);
        Ok::<_, TrialError>(median)
    })?;
    // One row for all trials: the one whose median is nearest to the mean that the RFC asks for.
    let apart = |row: &LatencyRow| (row.p50 - latency.latency.mean).abs();
    if let Some(mut row) = all.into_iter().min_by(|a, b| apart(a).total_cmp(&apart(b))) {
        row.load = "100 % of the throughput".to_owned();
        row.load_percent = 100.0;
        row.note = Some(format!(
            "RFC 2544 section 26.2 over {} trials: mean {:.0}, least {:.0}, greatest {:.0} ns",
            latency.latency.count, latency.latency.mean, latency.latency.min, latency.latency.max
        ));
        result.latency.push(row);
    }
    let mut deviations = latency.deviations;
    deviations
        .push("every packet is timed and a trial counts with its median; the RFC times one packet of each".to_owned());
    deviate(result, "RFC 2544, section 26.2", deviations);
    let recovered = rfc2544::recovery(constants, throughput, greatest, |overload, held, reduced| {
        let recovered =
            stop.check().and_then(|()| station.recovery(overload, Duration::try_from_secs_f64(held)?, reduced));
        recovered.map_err(TrialError)
    });
    match recovered {
        Ok(found) => {
            let Summary { mean, max, count, .. } = found.recovery_s;
            progress(format_args!("{}: recovers in {mean:.3} s, at most {max:.3} s, {count} trials", station.name));
            if let Some(row) = result.ndr.last_mut() {
                let note = row.note.get_or_insert_default();
                note.push_str(&format!(
                    "; recovery from {:.0} pps (section 26.5): mean {mean:.3} s, greatest {max:.3} s, {count} trials",
                    found.overload_pps
                ));
            }
            deviate(result, "RFC 2544, section 26.5", found.deviations);
        }
        Err(Error::Invalid(why)) => {
            result.not_run.push(NotRun { what: format!("recovery of {}", station.name), why });
        }
        Err(error) => return Err(error.into()),
    }
    let below = line_rate.is_none_or(|line_rate| reached < line_rate);
    let what = "the greatest load is what the generator reaches, not a line rate".to_owned();
    deviate(result, "RFC 2544, section 20", below.then_some(what).into_iter().collect());
    Ok(())
}
