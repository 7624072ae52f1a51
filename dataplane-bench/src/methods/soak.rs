//! `soak`: the load at which a device loses one packet in ten million in the long run, by PLRsearch.

use std::time::Duration;

use anyhow::ensure;
use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::{Common, LEAST_LOAD, deviate, progress, seconds};
use crate::result::SoakRow;
use crate::search::plrsearch::{Config, search};

/// CSIT's time for a device.
const FULL: Duration = Duration::from_secs(1800);

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Loss ratio of the load that is looked for.
    #[arg(long, value_name = "RATIO", default_value_t = 1e-7)]
    plr: f64,
    /// Time for each device.
    #[arg(long = "for", value_name = "TIME", default_value = "30m", value_parser = seconds)]
    duration: Duration,
    /// How long the first trial is; each is a fiftieth of it longer than the one before.
    #[arg(long, value_name = "TIME", default_value = "5.1s", value_parser = seconds)]
    trial: Duration,
}

/// Searches and prints.
///
/// # Errors
/// Nothing can run, or a trial cannot be made.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(options.plr > 0.0 && options.plr < 1.0, "--plr is a share of packets, above 0 and below 1");
    let Some(mut session) = options.common.session(&["margay/forward"])? else { return Ok(()) };
    for station in &mut session.stations {
        session.stop.check()?;
        let (record, stop) = (&mut session.result.trials, &session.stop);
        let found = station.awake(|station| {
            let greatest = station.greatest_load(record)?;
            let config = Config {
                loss_ratio: options.plr,
                limit_s: options.duration.as_secs_f64(),
                first_trial_s: options.trial.as_secs_f64(),
                longer_by_s: options.trial.as_secs_f64() / 51.0,
                ..Config::new(LEAST_LOAD.min(greatest / 2.0), greatest)
            };
            Ok(search(&config, &mut station.searched("soak", record, stop))?)
        })?;
        progress(format_args!("{}: {} trials", station.name, found.trials.len()));
        session.result.soak.push(SoakRow {
            dut: station.name.clone(),
            frame_bytes: u32::try_from(station.traffic.frame_bytes).ok(),
            target_loss_ratio: options.plr,
            critical_pps: found.critical.average_pps,
            stdev_pps: found.critical.deviation_pps,
            trials: u32::try_from(found.trials.len())?,
            seconds: found.seconds,
            note: Some(format!("{}; {}", station.about, station.placement)),
        });
    }
    if options.duration < FULL {
        let what = format!("{:.0} s for each device, CSIT takes half an hour", options.duration.as_secs_f64());
        deviate(&mut session.result, "PLRsearch", vec![what]);
    }
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["", "Mpps", "+-", "trials", "s"]);
    for row in &session.result.soak {
        table.add_row([
            row.dut.clone(),
            format!("{:.4}", row.critical_pps / 1e6),
            format!("{:.4}", row.stdev_pps / 1e6),
            row.trials.to_string(),
            format!("{:.0}", row.seconds),
        ]);
    }
    options.common.finish(session, |result| &result.soak, table)
}
