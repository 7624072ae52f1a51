//! What load a device bears: the searches, apart from what they are run on.
//!
//! A search is a pure controller. It asks a [`Trials`] for one trial after another and knows nothing of interfaces,
//! generators or clocks, so it is tested against simulated devices whose answer is known. `docs/bench-methods.md`
//! says what each method's result means.

pub(crate) mod mlrsearch;
pub(crate) mod plrsearch;
pub(crate) mod rfc2544;
pub(crate) mod rfc9004;
#[cfg(test)]
mod simulate;

/// What one trial has shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// The load that was asked for, in packets per second.
    pub(crate) offered: f64,
    /// How long the trial took, in seconds.
    pub(crate) duration_s: f64,
    /// Packets that left the generator.
    pub(crate) sent: u64,
    /// Packets that came back.
    pub(crate) received: u64,
    /// Packets that load and duration ask for.
    pub(crate) wanted: u64,
}

impl Outcome {
    /// Packets lost. What the generator could not send counts as lost: it was not offered at the load that the trial
    /// stands for. Packets received beyond those sent count as lost too: they came from elsewhere or twice, so as
    /// many of our own are unaccounted for (both as in RFC 9971 and CSIT).
    pub(crate) fn lost(&self) -> u64 {
        self.sent.abs_diff(self.received).saturating_add(self.wanted.abs_diff(self.sent))
    }

    /// Lost packets over wanted ones (over sent ones, where the generator has sent too many), 0 to 1 as a rule.
    pub(crate) fn loss_ratio(&self) -> f64 {
        match self.wanted.max(self.sent) {
            0 => 0.0,
            all => self.lost() as f64 / all as f64,
        }
    }

    /// Packets per second that got through, relative to the load asked for.
    pub(crate) fn forwarding_rate(&self) -> f64 {
        self.offered * (1.0 - self.loss_ratio())
    }
}

/// What a search can ask for: offer `load_pps` for `duration_s` and count.
pub(crate) trait Trials {
    /// Why a trial could not be made at all. Loss is no error.
    type Error;

    /// One trial. The device is idle before it, and late packets are waited for after it.
    fn trial(&mut self, load_pps: f64, duration_s: f64) -> Result<Outcome, Self::Error>;
}

/// Why a search has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error<E> {
    /// The search was asked for something impossible: which field, and what it may be.
    #[error("{0}")]
    Invalid(String),
    /// A trial failed.
    #[error(transparent)]
    Trial(E),
}

/// `Err(Invalid)` with the text of the first requirement that does not hold.
fn require<E>(requirements: &[(bool, &str)]) -> Result<(), Error<E>> {
    match requirements.iter().find(|(holds, _)| !holds) {
        Some((_, text)) => Err(Error::Invalid((*text).to_owned())),
        None => Ok(()),
    }
}

/// Repeated measurements of one quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    /// Number of measurements, at least 1.
    pub(crate) count: usize,
    pub(crate) mean: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Standard deviation of the sample (over count - 1); 0 for one measurement.
    pub(crate) deviation: f64,
}

impl Summary {
    /// `None` without values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
        let min = values.iter().copied().reduce(f64::min)?;
        let max = values.iter().copied().reduce(f64::max)?;
        Some(Self { count, mean, min, max, deviation: (squares / (count - 1).max(1) as f64).sqrt() })
    }
}
