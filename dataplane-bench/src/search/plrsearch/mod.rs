//! Probabilistic Loss Ratio search: the load at which a device loses, in the long run, one packet in ten million
//! (draft-vpolak-bmwg-plrsearch-03, as FD.io CSIT runs it for its soak tests).
//!
//! No trial is long enough to see that loss directly. So trials are made near the load in question for half an hour,
//! curves of two shapes are fitted to all of them by Bayesian inference, and the answer is average and standard
//! deviation of the load at which the curves have the target loss.

mod fit;
mod integrate;

use self::fit::{Curve, Shape, softplus};
use self::integrate::{Focus, Moments, Point, integrate};
use super::{Error, Outcome, Trials, require};

/// What a search needs to know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Config {
    /// Least load to measure, in packets per second; above 0.
    pub(crate) min_load: f64,
    /// Greatest load to measure, in packets per second.
    pub(crate) max_load: f64,
    /// The loss ratio of the critical load, 0 to 1 exclusive.
    pub(crate) loss_ratio: f64,
    /// Length of the first trial in seconds.
    pub(crate) first_trial_s: f64,
    /// By how much each trial is longer than the one before, in seconds.
    pub(crate) longer_by_s: f64,
    /// Time of trials after which the search ends, in seconds.
    pub(crate) limit_s: f64,
    /// Seed of the sampling: the same trials and seed give the same answer.
    pub(crate) seed: u64,
}

impl Config {
    /// CSIT's constants: loss ratio 1e-7, half an hour, trials of 5.1 s, each 0.1 s longer.
    pub(crate) fn new(min_load: f64, max_load: f64) -> Self {
        Self { min_load, max_load, loss_ratio: 1e-7, first_trial_s: 5.1, longer_by_s: 0.1, limit_s: 1800.0, seed: 0 }
    }

    fn check<E>(&self) -> Result<(), Error<E>> {
        require(&[
            (self.min_load.is_finite() && self.min_load > 0.0, "the least load must be above 0"),
            (self.max_load.is_finite() && self.max_load > self.min_load, "the greatest load must be above the least"),
            (self.loss_ratio > 0.0 && self.loss_ratio < 1.0, "the target loss ratio must be above 0 and below 1"),
            (self.first_trial_s.is_finite() && self.first_trial_s > 0.0, "the first trial must be longer than 0 s"),
            (self.longer_by_s.is_finite() && self.longer_by_s >= 0.0, "trials cannot become shorter"),
            (self.limit_s.is_finite() && self.limit_s > 0.0, "the time limit of the search must be above 0"),
        ])
    }
}

/// A load with its uncertainty, in packets per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    /// The average over the posterior.
    pub(crate) average_pps: f64,
    /// The standard deviation.
    pub(crate) deviation_pps: f64,
}

impl From<Moments> for Estimate {
    fn from(moments: Moments) -> Self {
        Self { average_pps: moments.average, deviation_pps: moments.variance.sqrt() }
    }
}

/// One trial of a search, in the order made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trial {
    /// The load asked for, in packets per second.
    pub(crate) load_pps: f64,
    /// The duration asked for, in seconds.
    pub(crate) duration_s: f64,
    /// What came of it.
    pub(crate) outcome: Outcome,
    /// The critical load as all trials so far tell it.
    pub(crate) estimate: Estimate,
}

/// All that a search has found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Soak {
    /// The critical load over both shapes.
    pub(crate) critical: Estimate,
    /// As the stretch function tells it.
    pub(crate) stretch: Estimate,
    /// As the erf function tells it.
    pub(crate) erf: Estimate,
    /// Every trial made.
    pub(crate) trials: Vec<Trial>,
    /// Time spent in trials, in seconds.
    pub(crate) seconds: f64,
}

/// Makes trials until the time limit; at least one.
///
/// # Errors
/// [`Error::Invalid`] for a configuration that makes no sense, [`Error::Trial`] for the first failed trial.
pub(crate) fn search<T: Trials>(config: &Config, trials: &mut T) -> Result<Soak, Error<T::Error>> {
    config.check()?;
    let mut posterior = Posterior::new(config);
    let mut losses = Losses { loads: vec![config.max_load], lossless: 0 };
    let mut made: Vec<Trial> = Vec::new();
    let mut seconds = 0.0;
    let mut load_pps = config.min_load + (config.max_load - config.min_load) / 2.0;
    loop {
        let duration_s = config.first_trial_s + config.longer_by_s * made.len() as f64;
        let outcome = trials.trial(load_pps, duration_s).map_err(Error::Trial)?;
        seconds += duration_s.max(outcome.duration_s);
        losses.add(load_pps, &outcome, config.loss_ratio);
        let [stretch, erf] = posterior.learn(load_pps, outcome);
        let critical = mixture(stretch, erf);
        made.push(Trial { load_pps, duration_s, outcome, estimate: critical.into() });
        if seconds >= config.limit_s {
            let (critical, stretch, erf) = (critical.into(), stretch.into(), erf.into());
            return Ok(Soak { critical, stretch, erf, trials: made, seconds });
        }
        let next = match made.len() {
            1 => config.max_load,
            // Above the critical load what was forwarded is a better guess than a curve through few points.
            2 | 3 => outcome.forwarding_rate() / (1.0 - config.loss_ratio),
            _ => losses.raise(critical.average),
        };
        load_pps = next.clamp(config.min_load, config.max_load);
    }
}

/// Half one, half the other: their distance adds to the variance.
fn mixture(one: Moments, other: Moments) -> Moments {
    let apart = (one.average - other.average) / 2.0;
    Moments {
        average: (one.average + other.average) / 2.0,
        variance: (one.variance + other.variance) / 2.0 + apart * apart,
    }
}

/// Keeps trials from staying where nothing is lost. A lossless trial says little: below the critical load any curve fits.
/// After one, the load rises towards the least load known to lose; each further one makes that weigh twice as much and
/// discards the lowest such loads, so that a device that lost by accident is tried at greater loads again.
struct Losses {
    /// Loads that lost at least the target ratio, ascending; as often as they are to weigh.
    loads: Vec<f64>,
    /// Trials without any loss in succession.
    lossless: i32,
}

impl Losses {
    fn add(&mut self, load: f64, outcome: &Outcome, loss_ratio: f64) {
        self.lossless = self.lossless.saturating_add(1);
        if outcome.loss_ratio() >= loss_ratio {
            let copies = usize::try_from(self.lossless.saturating_mul(4)).unwrap_or(4);
            self.loads.resize(self.loads.len() + copies, load);
            self.loads.sort_by(f64::total_cmp);
        }
        if outcome.lost() > 0 {
            self.lossless = 0;
        }
    }

    fn raise(&mut self, load: f64) -> f64 {
        if self.lossless == 0 {
            return load;
        }
        let least = self.loads.first().copied().filter(|&least| least > load);
        if self.loads.len() > 3 {
            self.loads.drain(..3);
        }
        let weight = 2_f64.powi(1_i32.saturating_sub(self.lossless));
        least.map_or(load, |least| (least + weight * load) / (1.0 + weight))
    }
}

/// What the trials say about the parameters of both shapes.
struct Posterior<'a> {
    config: &'a Config,
    /// Loads and what came of them. Trials that should have sent nothing say nothing and are left out.
    seen: Vec<(f64, Outcome)>,
    /// Where the parameters were last, for stretch and erf.
    foci: [Focus; 2],
    rng: fastrand::Rng,
}

impl<'a> Posterior<'a> {
    fn new(config: &'a Config) -> Self {
        Self { config, seen: Vec::new(), foci: [Focus::default(); 2], rng: fastrand::Rng::with_seed(config.seed) }
    }

    /// One more trial. The critical load by the stretch and by the erf function.
    fn learn(&mut self, load: f64, outcome: Outcome) -> [Moments; 2] {
        if outcome.wanted > 0 {
            self.seen.push((load, outcome));
        }
        let config = self.config;
        let log_ratio = config.loss_ratio.ln();
        let [stretch, erf] = &mut self.foci;
        [(Shape::Stretch, stretch), (Shape::Erf, erf)].map(|(shape, focus)| {
            let log_likelihood = |point: &Point| log_likelihood(&curve(shape, point, config.max_load), &self.seen);
            let critical = |point: &Point| {
                curve(shape, point, config.max_load).critical_load(log_ratio, config.min_load, config.max_load)
            };
            let (moments, next) = integrate(log_likelihood, critical, *focus, &mut self.rng);
            *focus = next;
            moments
        })
    }
}

/// The curve of a point in the parameter space: the prior. `mrr` has a Lomax distribution in units of the greatest load,
/// the logarithm of `spread` is uniform up to that of `mrr`.
fn curve(shape: Shape, &[x, y]: &Point, max_load: f64) -> Curve {
    let mrr = max_load * (1.0 / (x + 1.0) - 0.5) + 1.0;
    Curve { shape, mrr, spread: mrr.powf((y + 1.0) / 2.0) }
}

/// Logarithm of the probability of the losses seen, were `curve` the average. Losses of a trial are taken to have a
/// geometric distribution, as in CSIT's code: software loses in bursts, and the Poisson distribution of the draft would
/// take each burst for proof of a different average.
fn log_likelihood(curve: &Curve, seen: &[(f64, Outcome)]) -> f64 {
    let one = |(load, outcome): &(f64, Outcome)| {
        let log_average = curve.log_loss_rate(*load) + (outcome.wanted as f64 / load).ln();
        -(outcome.lost() as f64) * softplus(-log_average) - softplus(log_average)
    };
    seen.iter().map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::simulate::Poisson;

    /// A few long trials instead of many short ones, for the sake of the test.
    fn config(min_load: f64, max_load: f64) -> Config {
        Config { first_trial_s: 20.0, longer_by_s: 0.0, limit_s: 500.0, ..Config::new(min_load, max_load) }
    }

    fn device(curve: Curve, seed: u64) -> Poisson<impl FnMut(f64) -> f64> {
        Poisson::new(seed, move |load| (curve.log_loss_rate(load) - load.ln()).exp())
    }

    fn finds_the_critical_load_of(curve: Curve, seed: u64) {
        let truth = curve.critical_load(1e-7_f64.ln(), 1e3, 1e7);
        let found = search(&config(1e4, 1e7), &mut device(curve, seed)).unwrap();
        let Estimate { average_pps, deviation_pps } = found.critical;
        let what = format!("{average_pps} +- {deviation_pps}, truth {truth}: {found:?}");
        assert!((average_pps - truth).abs() < 3.0 * deviation_pps, "{what}");
        assert!(deviation_pps < 0.02 * truth, "{what}");
        assert_eq!((found.trials.len(), found.seconds), (25, 500.0));
        assert_eq!(found.trials[24].estimate, found.critical);
        assert!(found.trials.iter().all(|trial| (1e4..=1e7).contains(&trial.load_pps)));
    }

    #[test]
    fn a_known_critical_load_is_found_where_loss_grows_slowly() {
        finds_the_critical_load_of(Curve { shape: Shape::Stretch, mrr: 1e6, spread: 2e4 }, 1);
        finds_the_critical_load_of(Curve { shape: Shape::Erf, mrr: 1e6, spread: 1e5 }, 2);
    }

    #[test]
    fn a_known_critical_load_is_found_where_loss_grows_fast() {
        finds_the_critical_load_of(Curve { shape: Shape::Stretch, mrr: 5e6, spread: 3e3 }, 3);
        finds_the_critical_load_of(Curve { shape: Shape::Erf, mrr: 2e5, spread: 1e3 }, 4);
    }

    #[test]
    fn the_same_trials_and_seed_give_the_same_answer() {
        let curve = Curve { shape: Shape::Erf, mrr: 1e6, spread: 1e5 };
        let short = Config { limit_s: 120.0, ..config(1e4, 1e7) };
        let found = |seed| search(&Config { seed, ..short }, &mut device(curve, 5)).unwrap();
        assert_eq!(found(1), found(1));
        assert_ne!(found(1).critical, found(2).critical);
    }

    #[test]
    fn devices_at_the_limits_are_told_as_such() {
        let short = Config { limit_s: 240.0, ..config(1e4, 1e6) };
        let perfect = search(&short, &mut Poisson::new(0, |_| 0.0)).unwrap();
        assert!(perfect.critical.average_pps > 0.9e6, "{perfect:?}");
        let dead = search(&short, &mut Poisson::new(0, |_| 1.0)).unwrap();
        assert!(dead.critical.average_pps < 1.1e4, "{dead:?}");
    }

    #[test]
    fn constants_are_csits() {
        let seconds: Vec<f64> = {
            let soak = Config { limit_s: 15.0, ..Config::new(1e4, 1e6) };
            let found = search(&soak, &mut Poisson::new(0, |_| 0.0)).unwrap();
            found.trials.iter().map(|trial| (trial.duration_s * 10.0).round() / 10.0).collect()
        };
        assert_eq!(seconds, [5.1, 5.2, 5.3]);
        let Config { loss_ratio, limit_s, .. } = Config::new(1.0, 2.0);
        assert_eq!((loss_ratio, limit_s), (1e-7, 1800.0));
    }

    #[test]
    fn nonsense_is_refused_before_anything_is_measured() {
        struct Never;
        impl Trials for Never {
            type Error = std::convert::Infallible;

            fn trial(&mut self, _: f64, _: f64) -> Result<Outcome, Self::Error> {
                panic!("measured")
            }
        }
        let good = Config::new(1.0, 2.0);
        for (bad, text) in [
            (Config { min_load: 0.0, ..good }, "least load"),
            (Config { max_load: 1.0, ..good }, "greatest load"),
            (Config { loss_ratio: 0.0, ..good }, "target loss ratio"),
            (Config { first_trial_s: f64::NAN, ..good }, "first trial"),
            (Config { longer_by_s: -0.1, ..good }, "shorter"),
            (Config { limit_s: 0.0, ..good }, "time limit"),
        ] {
            let error = search(&bad, &mut Never).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
