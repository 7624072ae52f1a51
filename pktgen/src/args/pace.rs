//! How fast, for how long, by which back end, and from which cores.

use std::time::Duration;

use anyhow::{Context as _, bail};
use pktgen::backend::Backend;
use pktgen::pace::{Course, Pace, Shape, Unit};
use pktgen::send::Limit;
use pktgen::units;

#[derive(Debug, clap::Args)]
pub(super) struct PaceArgs {
    /// Packets a second: 250k, 1.5M, max, 50% of the maximum (which a short run finds out), 10k..1M for a ramp over the whole
    /// run, 10k:5s,1M:5s for one after the other.
    #[arg(long = "pps", alias = "rate", value_name = "RATE", default_value = "max")]
    pps: Course,
    /// Bits a second instead, in the same forms but for percentages.
    #[arg(long, value_name = "RATE", conflicts_with = "pps")]
    bps: Option<Course>,
    /// What --bps counts: 2 for frames with FCS, 1 for everything on the wire, preamble and gaps too.
    #[arg(long, value_name = "1|2", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2), requires = "bps")]
    layer: u8,
    /// Exponentially distributed gaps, by random numbers of this seed.
    #[arg(long, value_name = "SEED", num_args = 0..=1, default_missing_value = "1", conflicts_with = "burst")]
    poisson: Option<u64>,
    /// Frames back to back, then a pause, so that the rate is that of --pps on average.
    #[arg(long, value_name = "FRAMES", value_parser = units::count, conflicts_with = "bps")]
    burst: Option<u64>,
    /// From the start of a burst to that of the next, instead of --pps.
    #[arg(long, value_name = "TIME", value_parser = units::duration, requires = "burst", conflicts_with = "pps")]
    burst_every: Option<Duration>,
    /// Stop after this many packets.
    #[arg(long, value_name = "N", value_parser = units::count)]
    count: Option<u64>,
    /// Stop after this time: 10s, 500ms, or seconds.
    #[arg(long = "for", id = "duration", value_name = "TIME", value_parser = units::duration)]
    duration: Option<Duration>,
    /// How to send: xsk (AF_XDP), live (XDP live frames), packet (AF_PACKET TX ring), or auto, by what the driver can.
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = backend)]
    backend: Choice,
    /// Sending threads. AF_XDP sends on queues 0, 1, ...
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,
    /// Queues to send on, one thread each, instead of --threads.
    #[arg(long, value_name = "QUEUE,...", value_delimiter = ',', conflicts_with = "threads")]
    queues: Vec<u32>,
    /// Cores for the sending threads in their order, then for the receiving one.
    #[arg(long, value_name = "CORE,...", value_delimiter = ',')]
    pub(super) cores: Vec<usize>,
}

/// A back end; none: as the interface's driver allows.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Choice(Option<Backend>);

impl PaceArgs {
    /// How fast.
    pub(super) fn pace(&self) -> anyhow::Result<Pace> {
        let (course, unit) = match (&self.bps, self.layer) {
            (None, _) => (&self.pps, Unit::Packets),
            (Some(bps), 1) => (bps, Unit::BitsL1),
            (Some(bps), _) => (bps, Unit::BitsL2),
        };
        if course.of_maximum && unit != Unit::Packets {
            bail!("--bps takes no percentages: give them to --pps");
        }
        let shape =
            course.shape(self.duration).context("a ramp takes the whole run: say how long that is with --for")?;
        let shape = match (shape, self.poisson, self.burst, self.burst_every) {
            (Shape::Constant { rate }, Some(seed), ..) => Shape::Poisson { rate, seed },
            (_, Some(_), ..) => bail!("--poisson takes one rate: give --pps or --bps a number"),
            (_, _, Some(frames), Some(every)) => Shape::Bursts { frames, every },
            (Shape::Constant { rate }, _, Some(frames), None) => {
                // Counts of packets are below 2^53.
                let every = Duration::try_from_secs_f64(frames as f64 / rate);
                Shape::Bursts { frames, every: every.context("bursts that far apart never come")? }
            }
            (_, _, Some(_), None) => bail!("--burst takes one rate or --burst-every: give --pps a number"),
            (shape, ..) => shape,
        };
        let pace = Pace { shape, unit };
        pace.check()?;
        Ok(pace)
    }

    /// Rates are shares of the maximum.
    pub(super) fn of_maximum(&self) -> bool {
        self.bps.is_none() && self.pps.of_maximum
    }

    /// How to send; none: as the interface's driver allows.
    pub(super) fn backend(&self) -> Option<Backend> {
        self.backend.0
    }

    /// Queues of the sending threads.
    pub(super) fn queues(&self) -> Vec<u32> {
        if self.queues.is_empty() { (0..self.threads).collect() } else { self.queues.clone() }
    }

    /// When to stop.
    pub(super) fn limit(&self) -> Limit {
        Limit { count: self.count, duration: self.duration }
    }
}

fn backend(text: &str) -> anyhow::Result<Choice> {
    Ok(Choice(if text == "auto" { None } else { Some(text.parse()?) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        pace: PaceArgs,
    }

    fn args(line: &str) -> Result<PaceArgs, String> {
        let line = Line::try_parse_from(std::iter::once("pktgen").chain(line.split_whitespace()));
        line.map(|line| line.pace).map_err(|e| e.to_string())
    }

    fn pace(line: &str) -> Result<Pace, String> {
        args(line)?.pace().map_err(|e| e.to_string())
    }

    #[test]
    fn every_pace_can_be_said() {
        let packets = |shape| Ok(Pace { shape, unit: Unit::Packets });
        assert_eq!(pace(""), Ok(Pace::MAX));
        assert_eq!(pace("--pps 1M"), Ok(Pace::constant_pps(1e6)));
        assert_eq!(pace("--pps 1k --poisson"), packets(Shape::Poisson { rate: 1e3, seed: 1 }));
        assert_eq!(pace("--pps 1k --poisson 7"), packets(Shape::Poisson { rate: 1e3, seed: 7 }));
        let every = Duration::from_millis(32);
        assert_eq!(pace("--pps 1k --burst 32"), packets(Shape::Bursts { frames: 32, every }));
        assert_eq!(pace("--burst 32 --burst-every 32ms"), packets(Shape::Bursts { frames: 32, every }));
        let over = Duration::from_secs(10);
        assert_eq!(pace("--pps 1k..2k --for 10s"), packets(Shape::Ramp { from: 1e3, to: 2e3, over }));
        let gigabit = Shape::Constant { rate: 1e9 };
        assert_eq!(pace("--bps 1G --layer 1"), Ok(Pace { shape: gigabit.clone(), unit: Unit::BitsL1 }));
        assert_eq!(pace("--bps 1G"), Ok(Pace { shape: gigabit, unit: Unit::BitsL2 }));
        let half = args("--pps 50% --burst 10").unwrap();
        assert!(half.of_maximum());
        let every = Duration::from_secs(20);
        assert_eq!(half.pace().map_err(|e| e.to_string()), packets(Shape::Bursts { frames: 10, every }));
    }

    #[test]
    fn threads_and_queues_are_one_thing() {
        assert_eq!(args("").unwrap().queues(), [0]);
        assert_eq!(args("--threads 3").unwrap().queues(), [0, 1, 2]);
        assert_eq!(args("--queues 4,2").unwrap().queues(), [4, 2]);
        assert_eq!(args("--backend live").unwrap().backend(), Some(Backend::Live));
        assert_eq!(args("--backend auto").unwrap().backend(), None);
    }

    #[test]
    fn mistakes_are_named() {
        for (line, expected) in [
            ("--pps 0", "`0` is no rate"),
            ("--pps=-5", "`-5` is no rate"),
            ("--pps 1e300", "at most 1e9 packets"),
            ("--pps 2G", "at most 1e9 packets"),
            ("--pps 1k..2k", "say how long that is with --for"),
            ("--bps 50%", "no percentages"),
            ("--bps 1G --pps 1k", "cannot be used with"),
            ("--layer 1", "--bps <RATE>"),
            ("--poisson", "--poisson takes one rate"),
            ("--burst 3", "--burst takes one rate"),
            ("--burst 0 --pps 1k", "at least one frame a burst"),
            ("--backend best", "xsk, live, packet or auto"),
            ("--threads 0", "0 is not in 1..=1024"),
            ("--threads 2 --queues 0,1", "cannot be used with"),
        ] {
            let error = pace(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
