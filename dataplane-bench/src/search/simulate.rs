//! Devices whose answer is known. Plain arithmetic only, so that `tests/reference/generate.py` computes the same.

use std::convert::Infallible;

use serde::Deserialize;

use super::{Outcome, Trials};

/// How a device loses packets. Rates in packets per second.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Device {
    /// Forwards up to `capacity` and loses the rest.
    Step { capacity: f64 },
    /// Loses nothing up to `low`; from there the loss ratio grows with the square, to `loss` at `high`.
    Knee { low: f64, high: f64, loss: f64 },
    /// A step whose capacity is multiplied by the next of `factors` for each trial.
    Noisy { capacity: f64, factors: Vec<f64> },
    /// A step that can queue `buffer` packets, so that short trials pass more.
    Buffer { capacity: f64, buffer: f64 },
    /// A step that also loses `loss` of every load from `from` to `to`.
    Inverted { capacity: f64, from: f64, to: f64, loss: f64 },
    /// The generator sends at most `capacity`; all that is sent is forwarded.
    SlowSender { capacity: f64 },
}

/// A device and the number of trials that it has seen.
#[derive(Clone, Debug)]
pub(crate) struct Simulated {
    device: Device,
    pub(crate) trials: usize,
    /// The least and the greatest load offered so far.
    pub(crate) range: (f64, f64),
}

impl Simulated {
    pub(crate) fn new(device: Device) -> Self {
        Self { device, trials: 0, range: (f64::INFINITY, 0.0) }
    }

    /// Packets lost of `wanted` in the trial at hand.
    fn lost(&self, load: f64, duration: f64, wanted: f64) -> f64 {
        let above = |capacity: f64| (wanted - (capacity * duration).floor()).max(0.0);
        match &self.device {
            Device::Step { capacity } | Device::SlowSender { capacity } => above(*capacity),
            Device::Knee { low, high, loss } => {
                let part = ((load - low) / (high - low)).max(0.0);
                (wanted * (part * part * loss).min(1.0)).floor()
            }
            Device::Noisy { capacity, factors } => above(capacity * factors[self.trials % factors.len()]),
            Device::Buffer { capacity, buffer } => (above(*capacity) - buffer).max(0.0),
            Device::Inverted { from, to, loss, .. } if (*from..*to).contains(&load) => (wanted * loss).floor(),
            Device::Inverted { capacity, .. } => above(*capacity),
        }
    }
}

impl Trials for Simulated {
    type Error = Infallible;

    fn trial(&mut self, load: f64, duration: f64) -> Result<Outcome, Infallible> {
        let wanted = (load * duration).floor();
        let lost = self.lost(load, duration, wanted) as u64;
        let wanted = wanted as u64;
        let sent = if matches!(self.device, Device::SlowSender { .. }) { wanted - lost } else { wanted };
        self.trials += 1;
        self.range = (self.range.0.min(load), self.range.1.max(load));
        Ok(Outcome { offered: load, duration_s: duration, sent, received: wanted - lost, wanted })
    }
}

/// A device that loses a Poisson-distributed number of packets about a known average.
pub(crate) struct Poisson<F> {
    rng: fastrand::Rng,
    /// The average loss ratio at a load.
    loss_ratio: F,
}

impl<F: FnMut(f64) -> f64> Poisson<F> {
    pub(crate) fn new(seed: u64, loss_ratio: F) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), loss_ratio }
    }

    /// A sample with this mean, by adding up the gaps between events. Above a thousand the spread no longer matters to
    /// any search, and the normal distribution serves.
    fn sample(&mut self, mean: f64) -> f64 {
        if mean > 1000.0 {
            let sum: f64 = (0..12).map(|_| self.rng.f64()).sum();
            return (mean + mean.sqrt() * (sum - 6.0)).round();
        }
        let (mut events, mut time) = (0.0, 0.0);
        loop {
            time -= (1.0 - self.rng.f64()).ln();
            if time > mean {
                return events;
            }
            events += 1.0;
        }
    }
}

impl<F: FnMut(f64) -> f64> Trials for Poisson<F> {
    type Error = Infallible;

    fn trial(&mut self, load: f64, duration: f64) -> Result<Outcome, Infallible> {
        let wanted = (load * duration).floor();
        let mean = wanted * (self.loss_ratio)(load);
        let lost = self.sample(mean).min(wanted);
        let (wanted, lost) = (wanted as u64, lost as u64);
        Ok(Outcome { offered: load, duration_s: duration, sent: wanted, received: wanted - lost, wanted })
    }
}
