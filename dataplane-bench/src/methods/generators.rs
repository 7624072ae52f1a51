//! `rate --generators`: what senders put on a veth pair, counted by an XDP program at its other end.
//!
//! The far end is polled by the core that sends, as veth does by itself: one core is all that a sender and its delivery have, and
//! two senders have two. Every sender sends the same frame, in turn, round after round.

use std::time::Duration;

use pktgen::backend::Backend;

use super::rate::table;
use super::{Budget, Common, Session, Stop, ensure_root, progress, quartiles};
use crate::lab::Pair;
use crate::lab::path::{Path, Trial};
use crate::lab::sender::rival::Rival;
use crate::lab::sender::{Load, pktgen as sender};
use crate::lab::traffic::Traffic;
use crate::lab::watch::Watch;
use crate::result::{self, BenchResult, NotRun, RateRow};

/// Flows of the rows with many.
const MANY: u32 = 1 << 20;

/// A sender in one of its forms.
struct Contestant {
    kind: Kind,
    flows: u32,
    cores: usize,
    sent: Vec<f64>,
    received: Vec<f64>,
    failed: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pktgen(Backend),
    Rival(Rival),
}

impl Kind {
    fn name(self) -> String {
        match self {
            Self::Pktgen(backend) => format!("generator/{}", backend.name()),
            Self::Rival(rival) => rival.name().to_owned(),
        }
    }
}

impl Contestant {
    fn new(kind: Kind, flows: u32, cores: usize) -> Self {
        Self { kind, flows, cores, sent: Vec::new(), received: Vec::new(), failed: None }
    }

    fn label(&self) -> String {
        let Self { kind, flows, cores, .. } = self;
        format!("{}, {flows} flows, {cores} cores", kind.name())
    }

    fn trial(&self, pair: &Pair, path: &Path, cores: &[usize], duration: Duration) -> anyhow::Result<Trial> {
        let traffic = Traffic::ipv4(self.flows);
        match self.kind {
            Kind::Pktgen(backend) => {
                let cores = cores.iter().copied().take(self.cores).collect();
                path.trial(
                    &traffic,
                    &Load {
                        pps: None,
                        duration,
                        packets: None,
                        cores,
                        backend: Some(backend),
                        timed: false,
                        steps: Vec::new(),
                    },
                )
            }
            Kind::Rival(rival) => {
                rival.trial(path, &pair.netns, &traffic, cores.first().copied().unwrap_or(0), duration)
            }
        }
    }

    fn row(&self) -> RateRow {
        let [p25, median, p75] = quartiles(&self.received);
        let about = match self.kind {
            Kind::Pktgen(backend) => sender::about(backend),
            Kind::Rival(rival) => rival.about(),
        };
        RateRow {
            dut: self.kind.name(),
            scenario: "generators on a veth pair, the sink on the sender's core".to_owned(),
            baseline: matches!(self.kind, Kind::Rival(_)),
            rival: matches!(self.kind, Kind::Pktgen(_)).then(|| Rival::Sendmmsg.name().to_owned()),
            frame_bytes: u32::try_from(Traffic::ipv4(1).frame_bytes).unwrap_or(0),
            flows: self.flows.into(),
            cores: u32::try_from(self.cores).ok(),
            unit: "pps".to_owned(),
            median,
            p25,
            p75,
            values: self.received.clone(),
            sent_median: Some(quartiles(&self.sent)[1]),
            note: Some(about.to_owned()),
            ..RateRow::default()
        }
    }
}

/// Every sender with one flow on one core; pktgen's also with a million flows, and with two cores.
fn contestants(cores: usize) -> Vec<Contestant> {
    let mut all: Vec<Contestant> =
        Rival::ALL.map(|rival| Contestant::new(Kind::Rival(rival), 1, 1)).into_iter().collect();
    for backend in Backend::ALL {
        let kind = Kind::Pktgen(backend);
        all.extend([Contestant::new(kind, 1, 1), Contestant::new(kind, MANY, 1)]);
        if cores >= 2 {
            all.push(Contestant::new(kind, MANY, 2));
        }
    }
    all
}

/// Measures and prints.
///
/// # Errors
/// No lab can be made.
pub(super) fn run(common: &Common, rounds: u32, duration: Duration, budget: Option<Duration>) -> anyhow::Result<()> {
    ensure_root()?;
    crate::lab::sweep()?;
    let stop = Stop::install()?;
    let mut result = BenchResult::start(None);
    let cores: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).take(2).collect();
    let pair = Pair::new(u32::try_from(cores.len())?.max(1))?;
    let path = Path::along(&pair)?;
    let mut all = contestants(cores.len());
    let budget = Budget::new(budget);
    let watch = Watch::start(cores.iter().copied());
    for round in 1..=rounds {
        for contestant in all.iter_mut().filter(|contestant| contestant.failed.is_none()) {
            stop.check()?;
            match contestant.trial(&pair, &path, &cores, duration) {
                Ok(trial) => {
                    let seconds = trial.sent.seconds.max(f64::MIN_POSITIVE);
                    contestant.sent.push(trial.sent.packets as f64 / seconds);
                    contestant.received.push(trial.received as f64 / seconds);
                    result.trials.push(record(contestant, &trial));
                }
                Err(error) => {
                    progress(format_args!("{}: not run: {error:#}", contestant.label()));
                    contestant.failed = Some(format!("{error:#}"));
                }
            }
        }
        progress(format_args!("round {round} of {rounds}"));
        if budget.spent() {
            break;
        }
    }
    for contestant in &all {
        if let Some(why) = &contestant.failed {
            result.not_run.push(NotRun { what: contestant.label(), why: why.clone() });
        }
    }
    result.rates = all.iter().filter(|contestant| !contestant.received.is_empty()).map(Contestant::row).collect();
    let table = table(&result.rates);
    common.finish(Session { stations: Vec::new(), result, stop, watch }, |result| &result.rates, table)
}

fn record(contestant: &Contestant, trial: &Trial) -> result::Trial {
    let seconds = trial.sent.seconds.max(f64::MIN_POSITIVE);
    result::Trial {
        test: "rate/generators".to_owned(),
        dut: contestant.label(),
        frame_bytes: u32::try_from(Traffic::ipv4(1).frame_bytes).ok(),
        load_pps: trial.sent.packets as f64 / seconds,
        duration_s: seconds,
        wanted: trial.sent.packets,
        sent: trial.sent.packets,
        received: trial.received,
    }
}
