//! `rate`: what devices forward when they are offered more than that, the forwarding rate at maximum offered load of RFC 2285
//! section 3.6.2, as short trials (1 s, 10 of them) whose median counts.

use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::{Budget, Common, Station, generators, progress, quartiles, seconds};
use crate::result::RateRow;

/// Devices where none are named: each kind once, at a size that tells.
const DEFAULT: [&str; 15] = [
    "xdp/redirect",
    "xdp/fib-lookup",
    "kernel/forward",
    "kernel/forward+conntrack",
    "nft/rules-100",
    "nft/set-10000",
    "iptables-legacy/rules-100",
    "iptables/service-nat-1000",
    "xdp-tools/filter-deny-10000",
    "dpdk/testpmd-af_packet",
    "dpdk/testpmd-af_xdp",
    "margay/forward",
    "margay/policy-100",
    "margay/denylist-10000",
    "margay/lb-100",
];

/// Loss below which the device was not the limit.
const GENERATOR_BOUND: f64 = 0.01;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Measure generators on a veth pair instead of devices.
    #[arg(long, conflicts_with_all = ["duts", "from"])]
    generators: bool,
    /// Rounds over all devices.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long a trial is (0.5, 200ms).
    #[arg(long, value_name = "TIME", default_value = "1", value_parser = seconds)]
    trial: Duration,
    /// Begin no further round after this time.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    budget: Option<Duration>,
}

/// Measures and prints.
///
/// # Errors
/// Nothing can run, or a trial cannot be made.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let (trial, budget) = (options.trial, options.budget);
    if options.generators {
        return generators::run(&options.common, options.rounds, trial, budget);
    }
    let Some(mut session) = options.common.session(&DEFAULT)? else { return Ok(()) };
    let budget = Budget::new(budget);
    let mut rates: Vec<Rates> = session.stations.iter().map(|_| Rates::default()).collect();
    for round in 1..=options.rounds {
        for (station, rates) in session.stations.iter_mut().zip(&mut rates) {
            session.stop.check()?;
            let outcome = station.awake(|station| station.trial("rate", None, trial, &mut session.result.trials))?;
            let per_second = |packets: u64| packets as f64 / outcome.sent.seconds.max(f64::MIN_POSITIVE);
            rates.sent.push(per_second(outcome.sent.packets));
            rates.received.push(per_second(outcome.received));
        }
        progress(format_args!("round {round} of {}", options.rounds));
        if budget.spent() {
            break;
        }
    }
    session.result.rates = session.stations.iter().zip(&rates).map(|(station, rates)| rates.row(station)).collect();
    let table = table(&session.result.rates);
    options.common.finish(session, |result| &result.rates, table)
}

/// What one device was offered and what it forwarded, packets a second in each trial.
#[derive(Debug, Default)]
struct Rates {
    sent: Vec<f64>,
    received: Vec<f64>,
}

impl Rates {
    fn row(&self, station: &Station) -> RateRow {
        let [p25, median, p75] = quartiles(&self.received);
        let [_, sent, _] = quartiles(&self.sent);
        let mut note = format!("{}; {}", station.about, station.placement);
        if median > sent * (1.0 - GENERATOR_BOUND) {
            note.push_str("; the generator is the limit: the device can do more");
        }
        RateRow {
            dut: station.name.clone(),
            scenario: format!("maximum offered load, {}", station.traffic.describe()),
            baseline: !station.name.starts_with("margay/"),
            rival: crate::lab::dut::rival(&station.name),
            frame_bytes: u32::try_from(station.traffic.frame_bytes).unwrap_or(u32::MAX),
            flows: station.traffic.flows.into(),
            cores: None,
            unit: "pps".to_owned(),
            median,
            p25,
            p75,
            values: self.received.clone(),
            sent_median: Some(sent),
            scale: station.scale.clone(),
            note: Some(note),
        }
    }
}

/// Rows for people.
pub(super) fn table(rows: &[RateRow]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["", "Mpps", "25 %", "75 %", "offered", "flows", "cores"]);
    let mpps = |pps: f64| format!("{:.3}", pps / 1e6);
    for row in rows {
        table.add_row([
            row.dut.clone(),
            mpps(row.median),
            mpps(row.p25),
            mpps(row.p75),
            row.sent_median.map(mpps).unwrap_or_default(),
            row.flows.to_string(),
            row.cores.map(|cores| cores.to_string()).unwrap_or_default(),
        ]);
    }
    table
}
