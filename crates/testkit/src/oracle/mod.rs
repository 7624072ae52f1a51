//! Random configurations and packets: the loaded program must say what the oracle says.
//!
//! Everything follows from one seed. A configuration is loaded with its smallest and with the full feature set and sees the
//! same frames both times; verdict, bytes, punt metadata and, at its end, every counter of every port are compared. The
//! first difference is shrunk (configuration and frame) before it is reported.

pub mod frames;
pub mod rng;
mod shrink;
pub mod world;

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, bail};
use margay::dataplane::PortCounters;
use model::tables::PortId;
use model::verdict::Verdict;

use crate::program::{Arrival, Difference, FeatureSet, Program, World, compare, count, oracle};
use rng::Rng;

/// How much to try.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What everything follows from.
    pub seed: u64,
    /// Number of the first configuration.
    pub first: u64,
    /// Configurations.
    pub configurations: u64,
    /// Frames for each.
    pub frames: u64,
}

/// What was tried.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Configurations, each with two feature sets.
    pub configurations: u64,
    /// Frames, each with two feature sets.
    pub frames: u64,
    /// How often the oracle gave each verdict.
    pub verdicts: BTreeMap<String, u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} frames over {} configurations, two feature sets each:", self.frames, self.configurations)?;
        self.verdicts.iter().try_for_each(|(verdict, count)| writeln!(f, "{count:>9} {verdict}"))
    }
}

/// Configuration `number` of a seed, and the source of its frames.
#[must_use]
pub fn configuration(seed: u64, number: u64) -> (World, Rng) {
    let mut rng = Rng::new(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let world = World::random(&mut rng);
    (world, rng)
}

/// Runs the plan in the current network namespace, which [`prepare`](crate::program::prepare) has made.
///
/// # Errors
/// The first difference, shrunk, with all that is needed to see it again; or what the kernel refuses.
pub fn run(plan: Plan) -> Result<Report> {
    let mut report = Report::default();
    for number in plan.first..plan.first + plan.configurations {
        let (world, rng) = configuration(plan.seed, number);
        for features in FeatureSet::ALL {
            let mut rng = rng.clone();
            let arrivals: Vec<Arrival> = (0..plan.frames).map(|_| frames::arrival(&mut rng, &world)).collect();
            let Some((arrival, difference)) = trial(&world, features, &arrivals, &mut report)? else { continue };
            let story = match arrival {
                Some(arrival) => shrink::shrink(world, features, arrival)?.to_string(),
                None => difference.to_string(),
            };
            bail!(
                "configuration {number} of seed {}, {features}: {story}\n\
                 again: ORACLE_SEED={} ORACLE_FIRST={number} ORACLE_CONFIGURATIONS=1 ORACLE_FRAMES={}",
                plan.seed,
                plan.seed,
                plan.frames
            );
        }
        report.configurations += 1;
        report.frames += plan.frames;
    }
    Ok(report)
}

/// The first frame that the program and the oracle judge differently, or no frame and a difference in the counters.
fn trial(
    world: &World,
    features: FeatureSet,
    arrivals: &[Arrival],
    report: &mut Report,
) -> Result<Option<(Option<Arrival>, Difference)>> {
    let mut program = Program::load(world, features)?;
    let oracle = oracle(world, features);
    let mut expected: BTreeMap<PortId, PortCounters> = BTreeMap::new();
    for arrival in arrivals {
        let judgement = oracle.judge(&arrival.frame, arrival.ifindex);
        if let Some(difference) = compare(world, &mut program, arrival, &judgement)? {
            return Ok(Some((Some(arrival.clone()), difference)));
        }
        let port = match judgement.port {
            Some(index) => program.port(world, index)?,
            None => PortId(0),
        };
        count(expected.entry(port).or_default(), judgement.verdict.without_worker(), arrival.frame.len());
        if features == FeatureSet::Smallest {
            let verdict = match judgement.verdict {
                Verdict::Redirect(_) => "redirect".to_owned(),
                other => other.to_string(),
            };
            *report.verdicts.entry(verdict).or_default() += 1;
        }
    }
    for (port, found) in program.counters()? {
        let expected = expected.remove(&port).unwrap_or_default();
        if found != expected || found.accounted() != found.rx {
            let what = format!("counters of port {}: {found:?}, the oracle's: {expected:?}", port.0);
            return Ok(Some((None, Difference { what })));
        }
    }
    Ok(None)
}
