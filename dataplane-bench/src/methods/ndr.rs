//! `ndr`: the loads that devices bear without loss and with little, by MLRsearch (RFC 9971) with the goals that FD.io CSIT
//! publishes results for.

use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::{Common, FEW, LEAST_LOAD, Station, deviate, progress, seconds};
use crate::result::NdrRow;
use crate::search::mlrsearch::{Config, End, Goal, GoalResult, Search, search};

/// Duration sums that a search of both goals takes, warm-up and coarser targets included, as a rule.
const SUMS: f64 = 10.0;
/// Trials of a duration sum.
const TRIALS: f64 = 21.0;
/// Shorter trials tell nothing: a scheduler's tick is 4 ms.
const SHORTEST_TRIAL: f64 = 0.04;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// How long a trial is that decides (0.5, 200ms).
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    trial: Option<Duration>,
    /// How long a load is tried.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    duration_sum: Option<Duration>,
    /// How close bounds must be, percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.5)]
    width: f64,
    /// Search for RFC 2544's throughput, too: no loss in a trial of 60 s.
    #[arg(long)]
    rfc2544: bool,
    /// Time for all devices together: trials become as short as it takes, and the result says so.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    budget: Option<Duration>,
}

impl Options {
    fn goals(&self, budget: Option<f64>) -> Vec<Goal> {
        let mut goals = vec![Goal::ndr(), Goal::pdr()];
        for goal in &mut goals {
            let affordable = budget.map(|budget| (budget / SUMS).min(goal.duration_sum_s));
            let sum = self.duration_sum.map(|time| time.as_secs_f64()).or(affordable).unwrap_or(goal.duration_sum_s);
            let trial = self.trial.map_or(sum / TRIALS, |time| time.as_secs_f64()).max(SHORTEST_TRIAL);
            goal.duration_sum_s = sum.max(trial);
            goal.initial_trial_s = trial;
            goal.final_trial_s = trial;
            goal.width = self.width / 100.0;
        }
        if self.rfc2544 {
            goals.push(Goal::rfc2544());
        }
        goals
    }
}

/// Searches and prints.
///
/// # Errors
/// Nothing can run, or a trial cannot be made.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let Some(mut session) = options.common.session(&FEW)? else { return Ok(()) };
    let each = options.budget.map(|budget| budget.as_secs_f64() / session.stations.len() as f64);
    let goals = options.goals(each);
    for station in &mut session.stations {
        session.stop.check()?;
        let (record, stop) = (&mut session.result.trials, &session.stop);
        let found = station.awake(|station| {
            let greatest = station.greatest_load(record)?;
            let mut config = Config::new(LEAST_LOAD.min(greatest / 2.0), greatest);
            if let Some(each) = each {
                config.warmup_s = goals.first().map_or(1.0, |goal| goal.final_trial_s);
                config.limit_s = each;
            }
            Ok(search(&goals, &config, &mut station.searched("ndr", record, stop))?)
        })?;
        progress(format_args!("{}: {} trials", station.name, found.trials.len()));
        session.result.ndr.extend(found.goals.iter().map(|goal| row(station, &found, goal)));
    }
    for goal in &goals {
        deviate(&mut session.result, "RFC 2544, throughput", goal.deviations());
    }
    let table = table(&session.result.ndr);
    options.common.finish(session, |result| &result.ndr, table)
}

fn row(station: &Station, search: &Search, found: &GoalResult) -> NdrRow {
    let mut note = format!(
        "{}; {}; trials of {:.2} s for {:.1} s",
        station.about, station.placement, found.goal.final_trial_s, found.goal.duration_sum_s
    );
    if found.upper_pps.is_none() {
        note.push_str("; the generator is the limit: the device bears the greatest load");
    } else if found.lower_pps.is_none() {
        note.push_str("; the least load loses");
    } else if search.end != End::Done && !found.is_regular() {
        note.push_str("; out of time: the bounds are wider than the goal wants");
    }
    NdrRow {
        dut: station.name.clone(),
        goal: found.goal.name.clone(),
        frame_bytes: u32::try_from(station.traffic.frame_bytes).ok(),
        flows: Some(station.traffic.flows.into()),
        relevant_lower_pps: found.lower_pps.unwrap_or(0.0),
        relevant_upper_pps: found.upper_pps,
        conditional_throughput_pps: found.conditional_throughput_pps,
        trials: u32::try_from(search.trials.len()).unwrap_or(u32::MAX),
        seconds: search.seconds,
        note: Some(note),
    }
}

/// Rows for people.
pub(super) fn table(rows: &[NdrRow]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["", "goal", "Mpps: lower", "upper", "forwarded", "trials", "s"]);
    let mpps = |pps: f64| format!("{:.4}", pps / 1e6);
    for row in rows {
        table.add_row([
            row.dut.clone(),
            row.goal.clone(),
            mpps(row.relevant_lower_pps),
            row.relevant_upper_pps.map(mpps).unwrap_or_default(),
            row.conditional_throughput_pps.map(mpps).unwrap_or_default(),
            row.trials.to_string(),
            format!("{:.1}", row.seconds),
        ]);
    }
    table
}
