//! A device at work, the way through it and the record of its trials.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use packet::layer::Mac;
use pktgen::interface::Interface;

use super::Stop;
use crate::lab::Lab;
use crate::lab::cores::Cores;
use crate::lab::dut::{self, Dut, Running};
use crate::lab::path::{self, Path};
use crate::lab::sender::Load;
use crate::lab::traffic::Traffic;
use crate::result::{Scale, Trial};
use crate::search::{Outcome, Trials};

/// A trial may take this much longer than asked for until all its packets are sent; what is not sent then is lost.
const LATE_SHARE: f64 = 0.005;
const LATE: Duration = Duration::from_millis(1);
/// How long the reduced load of a recovery trial is watched, and how finely.
const RECOVERY: Duration = Duration::from_secs(2);
const RECOVERY_STEP: Duration = Duration::from_millis(10);
/// Time by which the generator may be late in the end.
const JITTER: Duration = Duration::from_millis(5);
/// Share of the rate reached at full speed that can be asked for again and again.
const STEADY_SHARE: f64 = 0.9;

/// One device. Its parts end in the order of the fields.
pub(super) struct Station {
    pub(super) name: String,
    pub(super) about: String,
    /// Which core does what.
    pub(super) placement: String,
    pub(super) traffic: Traffic,
    pub(super) scale: Option<Scale>,
    pub(super) running: Option<Box<dyn Running>>,
    pub(super) path: Path,
    pub(super) cores: Cores,
    _lab: Option<Arc<Lab>>,
}

impl Station {
    /// Sets a device up in a lab of its own and verifies it.
    pub(super) fn set_up(dut: Box<dyn Dut>, flows: u32, size: usize, cores: &Cores) -> anyhow::Result<Self> {
        let lab = Arc::new(Lab::new(1)?);
        let mut running = dut.prepare(&lab, cores)?;
        cores.place(&lab, dut.work())?;
        let path = Path::through(&lab)?;
        dut::verify(&path, dut.as_ref(), &cores.generator)?;
        running.pause()?;
        let traffic = Traffic { frame_bytes: size, ..dut.traffic(flows).0 };
        Ok(Self {
            name: dut.name(),
            about: dut.about(),
            placement: cores.describe(dut.work()),
            traffic,
            scale: dut.scale(),
            running: Some(running),
            path,
            cores: cores.clone(),
            _lab: Some(lab),
        })
    }

    /// Whatever is between two interfaces of this namespace.
    pub(super) fn between(
        from: &str,
        to: &str,
        next_hop: Option<Mac>,
        flows: u32,
        size: usize,
        cores: &Cores,
    ) -> anyhow::Result<Self> {
        Interface::new(from)?;
        let next_hop = match next_hop {
            Some(mac) => mac,
            None => Interface::new(to)?.mac()?,
        };
        Ok(Self {
            name: format!("{from} > {to}"),
            about: "what is between the two interfaces".to_owned(),
            placement: format!("generator on core {:?}", cores.generator),
            traffic: Traffic { frame_bytes: size, ..Traffic::ipv4(flows) },
            scale: None,
            running: None,
            path: Path::between(from, to, next_hop)?,
            cores: cores.clone(),
            _lab: None,
        })
    }

    /// Has the device work while `work` measures it.
    pub(super) fn awake<T>(&mut self, work: impl FnOnce(&mut Self) -> anyhow::Result<T>) -> anyhow::Result<T> {
        if let Some(running) = &mut self.running {
            running.resume()?;
        }
        let done = work(self).with_context(|| self.name.clone());
        if let Some(running) = &mut self.running {
            running.pause()?;
        }
        done
    }

    /// How much is offered in a trial. A load of `None` is as much as the generator can.
    pub(super) fn load(&self, pps: Option<f64>, duration: Duration) -> Load {
        Load {
            pps,
            duration: if pps.is_some() { duration.mul_f64(1.0 + LATE_SHARE) + LATE } else { duration },
            packets: pps.map(|pps| (pps * duration.as_secs_f64()).round().max(1.0) as u64),
            cores: self.cores.generator.clone(),
            backend: None,
            timed: false,
            steps: Vec::new(),
        }
    }

    /// The greatest load that a search may ask for: what the generator reaches on this path, less what it varies by. A
    /// wire has a line rate; a veth pair has none.
    pub(super) fn greatest_load(&self, record: &mut Vec<Trial>) -> anyhow::Result<f64> {
        let mut least = f64::INFINITY;
        for _ in 0..3 {
            let trial = self.trial("greatest load", None, Duration::from_millis(200), record)?;
            least = least.min(trial.sent.packets as f64 / trial.sent.seconds.max(f64::MIN_POSITIVE));
        }
        Ok(least * STEADY_SHARE)
    }

    /// Offers an overload, then less without a gap, and tells the seconds from the change to the last loss.
    pub(super) fn recovery(&self, overload: f64, held: Duration, reduced: f64) -> anyhow::Result<f64> {
        let load = Load { steps: vec![(overload, held), (reduced, RECOVERY)], ..self.load(None, held + RECOVERY) };
        let (path, traffic, sink) = (&self.path, &self.traffic, self.path.sink());
        thread::scope(|scope| {
            let start = Instant::now();
            let sending = scope.spawn(|| path.trial(traffic, &load));
            thread::sleep(held);
            let mut seen = Vec::new();
            while !sending.is_finished() && start.elapsed() < held + RECOVERY {
                seen.push((start.elapsed().as_secs_f64() - held.as_secs_f64(), sink.count()?.packets));
                thread::sleep(RECOVERY_STEP);
            }
            sending.join().map_err(|_| anyhow::anyhow!("the generator panicked"))??;
            Ok(last_loss(&seen, reduced))
        })
    }

    /// The trials of a search on it.
    pub(super) fn searched<'a>(&'a self, test: &'a str, record: &'a mut Vec<Trial>, stop: &'a Stop) -> Searched<'a> {
        Searched { station: self, test, record, stop }
    }

    /// One trial, recorded. A load of `None` is as much as the generator can.
    pub(super) fn trial(
        &self,
        test: &str,
        pps: Option<f64>,
        duration: Duration,
        record: &mut Vec<Trial>,
    ) -> anyhow::Result<path::Trial> {
        let seconds = duration.as_secs_f64();
        let wanted = pps.map(|pps| (pps * seconds).round().max(1.0) as u64);
        let trial = self.path.trial(&self.traffic, &self.load(pps, duration))?;
        record.push(Trial {
            test: test.to_owned(),
            dut: self.name.clone(),
            frame_bytes: u32::try_from(self.traffic.frame_bytes).ok(),
            load_pps: pps.unwrap_or_else(|| trial.sent.packets as f64 / seconds),
            duration_s: seconds,
            wanted: wanted.unwrap_or(trial.sent.packets),
            sent: trial.sent.packets,
            received: trial.received,
        });
        Ok(trial)
    }
}
/// The trials that a search asks for, on one device.
pub(super) struct Searched<'a> {
    pub(super) station: &'a Station,
    pub(super) test: &'a str,
    pub(super) record: &'a mut Vec<Trial>,
    pub(super) stop: &'a Stop,
}

/// When the last packet was lost of a steady load: from then on, what is missing grows no more. A generator that is late for a moment
/// makes up for it, so what counts at a time is the least that is ever missing from then on. `seen` are times and counts.
fn last_loss(seen: &[(f64, u64)], load: f64) -> f64 {
    let mut least = f64::INFINITY;
    let mut missing: Vec<(f64, f64)> = Vec::with_capacity(seen.len());
    for (time, count) in seen.iter().rev() {
        least = least.min(time * load - *count as f64);
        missing.push((*time, least));
    }
    let in_the_end = missing.first().map_or(0.0, |(_, missing)| *missing);
    let still_losing = missing.iter().position(|(_, missing)| *missing < in_the_end - load * JITTER.as_secs_f64());
    // What was seen right after the last loss; nothing was lost since the start where there is none.
    still_losing.and_then(|at| missing.get(at.checked_sub(1)?)).map_or(0.0, |(time, _)| time.max(0.0))
}

/// Why a trial could not be made, whole.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(super) struct TrialError(pub(super) anyhow::Error);

impl Trials for Searched<'_> {
    type Error = TrialError;

    fn trial(&mut self, load_pps: f64, duration_s: f64) -> Result<Outcome, TrialError> {
        self.offer(load_pps, duration_s).map_err(TrialError)
    }
}

impl Searched<'_> {
    fn offer(&mut self, load_pps: f64, duration_s: f64) -> anyhow::Result<Outcome> {
        self.stop.check()?;
        let duration = Duration::try_from_secs_f64(duration_s).context("the duration of a trial")?;
        let trial = self.station.trial(self.test, Some(load_pps), duration, self.record)?;
        let wanted = (load_pps * duration_s).round().max(1.0) as u64;
        Ok(Outcome { offered: load_pps, duration_s, sent: trial.sent.packets, received: trial.received, wanted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_loss_is_when_no_more_goes_missing() {
        // 1000 packets a second, seen every tenth of one; lost until 0.3.
        let seen = [(0.0, 0), (0.1, 50), (0.2, 90), (0.3, 180), (0.4, 280), (0.5, 380)];
        assert_eq!(last_loss(&seen, 1000.0), 0.3);
        assert_eq!(last_loss(&seen[3..], 1000.0), 0.0);
        assert_eq!(last_loss(&[], 1000.0), 0.0);
        // Late once, lost never.
        assert_eq!(last_loss(&[(0.0, 0), (0.1, 60), (0.2, 200), (0.3, 300)], 1000.0), 0.0);
    }
}
