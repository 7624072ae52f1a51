//! Packets per second, loss and latency: the subcommands that put the searches of `search/` to devices in labs.
//!
//! Every subcommand sets all its devices up at once, each in a lab of its own, verifies each, and measures them in turn,
//! round after round, with the same frames from the same core: what disturbs the machine for a while hits one round of all, not
//! all rounds of one. What could not run is in the result with the reason. Every trial is recorded.

pub(crate) mod generators;
pub(crate) mod latency;
pub(crate) mod ndr;
pub(crate) mod rate;
pub(crate) mod reconf;
pub(crate) mod rfc2544;
pub(crate) mod rfc9004;
pub(crate) mod routes;
pub(crate) mod soak;
mod station;
mod stop;

use std::fmt::Display;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use packet::layer::{Layer, Mac};
use serde::Serialize;

use crate::lab::cores::Cores;
use crate::lab::dut::{self, Surroundings};
use crate::lab::traffic::SHORTEST;
use crate::lab::watch::Watch;
use crate::machine::Interface;
use crate::result::{BenchResult, Deviation, Keep, NotRun, Object};
use station::Station;
pub(crate) use stop::Stop;

/// What all methods over a lab take.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Common {
    /// Devices under test, `*` standing for any text; a number may be any other (nft/rules-250).
    #[arg(long = "dut", value_name = "NAME,...", value_delimiter = ',', conflicts_with = "from")]
    duts: Vec<String>,
    /// List the devices under test and end.
    #[arg(long)]
    list: bool,
    /// Send on this interface instead of in labs: the device under test is whatever is between it and --to.
    #[arg(long, value_name = "IF", requires = "to")]
    from: Option<String>,
    /// Count on this interface.
    #[arg(long, value_name = "IF", requires = "from")]
    to: Option<String>,
    /// Ethernet address of the device under test on the side of --from; that of --to where left out.
    #[arg(long, value_name = "MAC", requires = "from", value_parser = mac)]
    next_hop: Option<Mac>,
    /// Flows.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    flows: u32,
    /// Bytes of a frame without check sequence.
    #[arg(long, value_name = "BYTES", default_value_t = SHORTEST)]
    size: usize,
    /// The `margay` to measure; the one beside this program where left out.
    #[arg(long, value_name = "PATH")]
    margay: Option<PathBuf>,
    /// Print the rows as JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    keep: Keep,
}

fn mac(text: &str) -> anyhow::Result<Mac> {
    match packet::notation::parse(&format!("eth {text} > ::")).as_deref() {
        Ok([Layer::Eth(eth)]) => Ok(eth.src),
        _ => bail!("write an Ethernet address as 02:00:00:00:00:01 or 02::1"),
    }
}

/// A run of a method: its devices, and what becomes of it.
struct Session {
    stations: Vec<Station>,
    result: BenchResult,
    stop: Stop,
    /// Whether the machine was there.
    watch: Watch,
}

impl Common {
    /// Sets the devices up, those of `default` where none were named, and verifies each. `None`: there is nothing to do but
    /// what was printed.
    fn session(&self, default: &[&str]) -> anyhow::Result<Option<Session>> {
        if self.list {
            dut::STANDARD.iter().for_each(|name| println!("{name}"));
            return Ok(None);
        }
        let stop = Stop::install()?;
        let mut result = BenchResult::start(None);
        let cores = Cores::assign(1)?;
        let mut stations = Vec::new();
        if let (Some(from), Some(to)) = (&self.from, &self.to) {
            result.machine.interfaces = [from, to].map(|name| Interface::read(name)).to_vec();
            stations.push(Station::between(from, to, self.next_hop, self.flows, self.size, &cores)?);
            let watch = Watch::start(cores.all());
            return Ok(Some(Session { stations, result, stop, watch }));
        }
        let names: Vec<String> = if self.duts.is_empty() {
            default.iter().map(|name| (*name).to_owned()).collect()
        } else {
            self.duts.clone()
        };
        let surroundings = Surroundings { margay: self.margay.clone() };
        let duts = dut::select(&names, &surroundings)?;
        ensure_root()?;
        crate::lab::sweep()?;
        for dut in duts {
            stop.check()?;
            let name = dut.name();
            let programs = dut.programs();
            match Station::set_up(dut, self.flows, self.size, &cores) {
                Ok(station) => {
                    progress(format_args!("{name}: set up and verified"));
                    stations.push(station);
                    for path in programs {
                        let object = Object::of_file(&path)?;
                        if !result.tool.objects.contains(&object) {
                            result.tool.objects.push(object);
                        }
                    }
                }
                Err(error) => {
                    progress(format_args!("{name}: not run: {error:#}"));
                    result.not_run.push(NotRun { what: name, why: format!("{error:#}") });
                }
            }
        }
        ensure!(!stations.is_empty(), "no device under test can run here; the reasons are above");
        let watch = Watch::start(cores.all());
        Ok(Some(Session { stations, result, stop, watch }))
    }

    /// Keeps the result and prints its rows.
    fn finish<T: Serialize>(
        &self,
        mut session: Session,
        rows: impl Fn(&BenchResult) -> &Vec<T>,
        table: impl Display,
    ) -> anyhow::Result<()> {
        if let Some(run) = session.result.runs.last_mut() {
            run.stalls = session.watch.end();
        }
        self.keep.finish(&mut session.result)?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(rows(&session.result))?);
        } else {
            println!("{table}");
            for NotRun { what, why } in &session.result.not_run {
                println!("{what}: not run: {why}");
            }
        }
        Ok(())
    }
}

/// Devices of the methods that take long for each, where none are named: margay's three uses and what else would do them.
const FEW: [&str; 6] = [
    "kernel/forward",
    "nft/rules-100",
    "iptables-legacy/rules-100",
    "margay/forward",
    "margay/policy-100",
    "margay/lb-100",
];

/// The least load that searches ask for, packets a second: a device that loses at less is not worth the name.
const LEAST_LOAD: f64 = 500.0;

/// Seconds as text.
fn seconds(text: &str) -> anyhow::Result<Duration> {
    let (number, unit) = match text.as_bytes() {
        [.., b'm', b's'] => (text.trim_end_matches("ms"), 1e-3),
        [.., b's'] => (text.trim_end_matches('s'), 1.0),
        [.., b'm'] => (text.trim_end_matches('m'), 60.0),
        [.., b'h'] => (text.trim_end_matches('h'), 3600.0),
        _ => (text, 1.0),
    };
    let number: f64 = number.parse().context("write a time as 10, 0.5s, 200ms, 30m or 2h")?;
    let time = Duration::try_from_secs_f64(number * unit).context("write a time as 10, 0.5s, 200ms, 30m or 2h")?;
    ensure!(!time.is_zero(), "a time is longer than nothing");
    Ok(time)
}

/// Adds what deviates from a standard, each thing once.
fn deviate(result: &mut BenchResult, from: &str, what: Vec<String>) {
    for what in what {
        let deviation = Deviation { from: from.to_owned(), what };
        if !result.deviations.contains(&deviation) {
            result.deviations.push(deviation);
        }
    }
}

/// Labs need it, and each of their parts would say so in its own words.
fn ensure_root() -> anyhow::Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "this needs root: it makes network namespaces and loads BPF programs (run it with sudo)"
    );
    Ok(())
}

/// A line for who waits.
fn progress(line: impl Display) {
    eprintln!("{line}");
}

/// Time that may be spent; rounds end with the one that is under way when it is over.
#[derive(Clone, Copy, Debug)]
struct Budget {
    start: Instant,
    time: Option<Duration>,
}

impl Budget {
    fn new(time: Option<Duration>) -> Self {
        Self { start: Instant::now(), time }
    }

    fn spent(&self) -> bool {
        self.time.is_some_and(|time| self.start.elapsed() >= time)
    }
}

/// Median and quartiles, by linear interpolation between the closest ranks; zeros of no values.
fn quartiles(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    [0.25, 0.5, 0.75].map(|share| {
        let rank = share * sorted.len().saturating_sub(1) as f64;
        let at = |rank: f64| sorted.get(rank as usize).copied().unwrap_or(0.0);
        at(rank.floor()) + (at(rank.ceil()) - at(rank.floor())) * rank.fract()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, expected) in [("10", 10.0), ("0.5s", 0.5), ("200ms", 0.2), ("30m", 1800.0), ("2h", 7200.0)] {
            assert_eq!(seconds(text).unwrap().as_secs_f64(), expected, "{text}");
        }
        for text in ["", "s", "-1", "0", "1d", "1e400"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quartiles_lie_between_the_closest_ranks() {
        assert_eq!(quartiles(&[]), [0.0; 3]);
        assert_eq!(quartiles(&[7.0]), [7.0; 3]);
        assert_eq!(quartiles(&[4.0, 1.0, 3.0, 2.0]), [1.75, 2.5, 3.25]);
    }
}
