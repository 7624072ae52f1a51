//! The tests of RFC 2544 that a generator and a checking receiver can make: throughput, latency, frame loss rate and
//! system recovery. The back-to-back test has its own update, see [`super::rfc9004`]; the reset test needs a hand on
//! the device.
//!
//! The constants are the RFC's unless told otherwise, and every result carries in words what was told otherwise.

use super::{Error, Outcome, Summary, Trials, require};

/// Frame sizes for Ethernet in bytes, frame check sequence included (section 9.1).
pub(crate) const FRAME_SIZES: [u32; 7] = [64, 128, 256, 512, 1024, 1280, 1518];

/// Preamble, start of frame and the gap between frames, in bytes.
const FRAME_OVERHEAD: u32 = 20;

/// Frames per second that fill an Ethernet of `bits_per_second`; `frame_bytes` with the frame check sequence (RFC 2544
/// appendix B).
pub(crate) fn line_rate(bits_per_second: f64, frame_bytes: u32) -> f64 {
    bits_per_second / (f64::from(frame_bytes.saturating_add(FRAME_OVERHEAD)) * 8.0)
}

/// The constants of the tests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Constants {
    /// Length of a trial in seconds (section 24).
    pub(crate) trial_s: f64,
    /// Where the search for the throughput ends: distance of the best passing from the least failing load, relative to
    /// the latter. The RFC leaves it to the tester.
    pub(crate) resolution: f64,
    /// Length of a latency trial in seconds (section 26.2).
    pub(crate) latency_s: f64,
    /// Latency trials (section 26.2).
    pub(crate) latency_trials: u32,
    /// By how much of the greatest load the frame loss test goes down (section 26.3).
    pub(crate) loss_step: f64,
    /// Overload before recovery, in seconds (section 26.5).
    pub(crate) recovery_s: f64,
    /// Recovery trials. The RFC asks for "a number".
    pub(crate) recovery_trials: u32,
}

impl Default for Constants {
    fn default() -> Self {
        Self {
            trial_s: 60.0,
            resolution: 0.005,
            latency_s: 120.0,
            latency_trials: 20,
            loss_step: 0.1,
            recovery_s: 60.0,
            recovery_trials: 10,
        }
    }
}

/// What deviates from the RFC, in words.
type Deviations = Vec<String>;

/// `text` where `holds` is false.
fn deviation(holds: bool, text: String) -> Deviations {
    if holds { Vec::new() } else { vec![text] }
}

impl Constants {
    fn trial_deviations(&self) -> Deviations {
        let trial = self.trial_s;
        deviation(trial >= 60.0, format!("trials of {trial} s, RFC 2544 section 24 wants at least 60 s"))
    }

    fn check<E>(&self) -> Result<(), Error<E>> {
        let time = |value: f64| value.is_finite() && value > 0.0;
        let ratio = |value: f64| value > 0.0 && value < 1.0;
        require(&[
            (time(self.trial_s), "the trial duration must be above 0"),
            (ratio(self.resolution), "the resolution of the throughput must be above 0 and below 1"),
            (time(self.latency_s), "the duration of a latency trial must be above 0"),
            (self.latency_trials > 0, "the latency test needs at least one trial"),
            (ratio(self.loss_step), "the step of the frame loss test must be above 0 and below 1"),
            (time(self.recovery_s), "the overload before recovery must be longer than 0"),
            (self.recovery_trials > 0, "the recovery test needs at least one trial"),
        ])
    }
}

/// The throughput (section 26.1).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Throughput {
    /// The greatest load that was offered without any loss, in packets per second; `None` where all lost some.
    pub(crate) throughput_pps: Option<f64>,
    /// The least load that lost some; `None` where `max_pps` passed.
    pub(crate) failed_pps: Option<f64>,
    /// Every trial, in order.
    pub(crate) trials: Vec<Outcome>,
    /// What deviates from the RFC, in words.
    pub(crate) deviations: Deviations,
}

/// Searches the throughput between `min_pps` and `max_pps` by halving. The greatest load is tried first: a device at
/// line rate needs one trial.
///
/// # Errors
/// [`Error::Invalid`] for loads or constants that make no sense, [`Error::Trial`] for the first failed trial.
pub(crate) fn throughput<T: Trials>(
    constants: &Constants,
    min_pps: f64,
    max_pps: f64,
    trials: &mut T,
) -> Result<Throughput, Error<T::Error>> {
    constants.check()?;
    require(&[
        (min_pps.is_finite() && min_pps > 0.0, "the least load must be above 0"),
        (max_pps.is_finite() && max_pps > min_pps, "the greatest load must be above the least"),
    ])?;
    let mut made = Vec::new();
    let mut passes = |load: f64| {
        let outcome = trials.trial(load, constants.trial_s).map_err(Error::Trial)?;
        made.push(outcome);
        Ok(outcome.lost() == 0)
    };
    let (throughput_pps, failed_pps) = if passes(max_pps)? {
        (Some(max_pps), None)
    } else if !passes(min_pps)? {
        (None, Some(min_pps))
    } else {
        let (mut low, mut high) = (min_pps, max_pps);
        while high - low > constants.resolution * high {
            let middle = low + (high - low) / 2.0;
            if passes(middle)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        (Some(low), Some(high))
    };
    Ok(Throughput { throughput_pps, failed_pps, trials: made, deviations: constants.trial_deviations() })
}

/// The frame loss rate at one load (section 26.3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LossPoint {
    /// Share of the greatest load, 0 to 1.
    pub(crate) share: f64,
    /// Frames lost over frames wanted.
    pub(crate) loss_ratio: f64,
    /// The trial.
    pub(crate) outcome: Outcome,
}

/// Frame loss over load.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FrameLoss {
    /// From the greatest load down.
    pub(crate) points: Vec<LossPoint>,
    /// What deviates from the RFC, in words.
    pub(crate) deviations: Deviations,
}

/// Goes down from `max_pps` until two trials in succession lose nothing.
///
/// # Errors
/// [`Error::Invalid`] for a load or constants that make no sense, [`Error::Trial`] for the first failed trial.
pub(crate) fn frame_loss<T: Trials>(
    constants: &Constants,
    max_pps: f64,
    trials: &mut T,
) -> Result<FrameLoss, Error<T::Error>> {
    constants.check()?;
    require(&[(max_pps.is_finite() && max_pps > 0.0, "the greatest load must be above 0")])?;
    let step = constants.loss_step;
    let mut deviations = constants.trial_deviations();
    // A step of 0.1 is not exactly a tenth; neither is the RFC's.
    let coarse = format!("steps of {} %, RFC 2544 section 26.3 wants at most 10 %", step * 100.0);
    deviations.extend(deviation(step <= 0.1, coarse));
    let mut points: Vec<LossPoint> = Vec::new();
    let mut lossless = 0;
    for down in 0.. {
        let share = 1.0 - f64::from(down) * step;
        // What rounding leaves of the last step is no load.
        if share < step / 2.0 || lossless == 2 {
            break;
        }
        let outcome = trials.trial(max_pps * share, constants.trial_s).map_err(Error::Trial)?;
        lossless = if outcome.lost() == 0 { lossless + 1 } else { 0 };
        points.push(LossPoint { share, loss_ratio: outcome.loss_ratio(), outcome });
    }
    Ok(FrameLoss { points, deviations })
}

/// The latency at the throughput (section 26.2).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Latency {
    /// The load, in packets per second.
    pub(crate) load_pps: f64,
    /// Over the trials, in the unit of the trials.
    pub(crate) latency: Summary,
    /// What deviates from the RFC, in words.
    pub(crate) deviations: Deviations,
}

/// Repeats `trial`, which offers the load for the duration and returns the latency of a frame sent in the middle of it.
///
/// # Errors
/// [`Error::Invalid`] for constants that make no sense, [`Error::Trial`] for the first failed trial.
pub(crate) fn latency<E>(
    constants: &Constants,
    throughput_pps: f64,
    mut trial: impl FnMut(f64, f64) -> Result<f64, E>,
) -> Result<Latency, Error<E>> {
    constants.check()?;
    require(&[(
        throughput_pps.is_finite() && throughput_pps > 0.0,
        "latency is measured at the throughput: there is none",
    )])?;
    let (length, times) = (constants.latency_s, constants.latency_trials);
    let mut deviations =
        deviation(length >= 120.0, format!("latency trials of {length} s, RFC 2544 section 26.2 wants at least 120 s"));
    deviations
        .extend(deviation(times >= 20, format!("{times} latency trials, RFC 2544 section 26.2 wants at least 20")));
    let latency = repeat(times, || trial(throughput_pps, length))?;
    Ok(Latency { load_pps: throughput_pps, latency, deviations })
}

/// The recovery from overload (section 26.5).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Recovery {
    /// The overload: 110 % of the throughput, at most the line rate. Packets per second.
    pub(crate) overload_pps: f64,
    /// Half of it, offered afterwards.
    pub(crate) reduced_pps: f64,
    /// Seconds from the reduction to the last loss, over the trials.
    pub(crate) recovery_s: Summary,
    /// What deviates from the RFC, in words.
    pub(crate) deviations: Deviations,
}

/// Repeats `trial(overload_pps, overload_s, reduced_pps)`, which offers the overload and then, without a gap, the
/// reduced load, and returns the seconds from the change to the last frame lost, 0 where none was.
///
/// # Errors
/// [`Error::Invalid`] for loads or constants that make no sense, [`Error::Trial`] for the first failed trial.
pub(crate) fn recovery<E>(
    constants: &Constants,
    throughput_pps: f64,
    max_pps: f64,
    mut trial: impl FnMut(f64, f64, f64) -> Result<f64, E>,
) -> Result<Recovery, Error<E>> {
    constants.check()?;
    require(&[
        (throughput_pps.is_finite() && throughput_pps > 0.0, "recovery is measured from the throughput: there is none"),
        (max_pps >= throughput_pps, "the greatest load cannot be below the throughput"),
    ])?;
    let overload_pps = (throughput_pps * 1.1).min(max_pps);
    let reduced_pps = overload_pps / 2.0;
    let length = constants.recovery_s;
    let mut deviations =
        deviation(length >= 60.0, format!("overload of {length} s, RFC 2544 section 26.5 wants at least 60 s"));
    deviations.extend(deviation(
        overload_pps > throughput_pps,
        "the device forwards the greatest load: it was not overloaded".to_owned(),
    ));
    let recovery_s = repeat(constants.recovery_trials, || trial(overload_pps, length, reduced_pps))?;
    Ok(Recovery { overload_pps, reduced_pps, recovery_s, deviations })
}

fn repeat<E>(times: u32, mut trial: impl FnMut() -> Result<f64, E>) -> Result<Summary, Error<E>> {
    let values: Vec<f64> = (0..times).map(|_| trial()).collect::<Result<_, E>>().map_err(Error::Trial)?;
    Summary::of(&values).ok_or_else(|| Error::Invalid("a test needs at least one trial".to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::search::simulate::{Device, Simulated};

    const QUICK: Constants = Constants {
        trial_s: 1.0,
        resolution: 0.01,
        latency_s: 2.0,
        latency_trials: 3,
        loss_step: 0.25,
        recovery_s: 1.0,
        recovery_trials: 2,
    };

    fn step(capacity: f64) -> Simulated {
        Simulated::new(Device::Step { capacity })
    }

    #[test]
    fn line_rates_are_those_of_the_appendix() {
        let rates = FRAME_SIZES.map(|size| line_rate(1e7, size) as u32);
        assert_eq!(rates, [14_880, 8_445, 4_528, 2_349, 1_197, 961, 812]);
    }

    #[test]
    fn the_rfcs_constants_deviate_in_nothing() {
        let rfc = Constants::default();
        let found = throughput(&rfc, 1e3, 1e6, &mut step(4e5)).unwrap();
        assert_eq!(found.deviations, Vec::<String>::new());
        assert!(found.trials.iter().all(|trial| trial.duration_s == 60.0));
        assert!(frame_loss(&rfc, 1e6, &mut step(4e5)).unwrap().deviations.is_empty());
        let mut asked = Vec::new();
        let latency = latency(&rfc, 4e5, |load, seconds| {
            asked.push((load, seconds));
            Ok::<_, ()>(7.0)
        });
        assert!(latency.unwrap().deviations.is_empty());
        assert_eq!(asked, vec![(4e5, 120.0); 20]);
        assert!(recovery(&rfc, 4e5, 1e6, |_, _, _| Ok::<_, ()>(0.0)).unwrap().deviations.is_empty());
    }

    #[test]
    fn what_deviates_is_said() {
        let found = throughput(&QUICK, 1e3, 1e6, &mut step(4e5)).unwrap();
        assert_eq!(found.deviations, ["trials of 1 s, RFC 2544 section 24 wants at least 60 s"]);
        assert_eq!(frame_loss(&QUICK, 1e6, &mut step(4e5)).unwrap().deviations.len(), 2);
        assert_eq!(latency(&QUICK, 4e5, |_, _| Ok::<_, ()>(1.0)).unwrap().deviations.len(), 2);
        let recovered = recovery(&QUICK, 1e6, 1e6, |_, _, _| Ok::<_, ()>(0.5)).unwrap();
        assert_eq!(recovered.deviations.len(), 2, "{:?}", recovered.deviations);
    }

    #[test]
    fn limits_that_are_the_answer_need_no_search() {
        let all = throughput(&QUICK, 1e3, 1e6, &mut step(1e6)).unwrap();
        assert_eq!((all.throughput_pps, all.failed_pps, all.trials.len()), (Some(1e6), None, 1));
        let none = throughput(&QUICK, 1e3, 1e6, &mut step(0.0)).unwrap();
        assert_eq!((none.throughput_pps, none.failed_pps, none.trials.len()), (None, Some(1e3), 2));
        let slow = throughput(&QUICK, 1e3, 1e6, &mut Simulated::new(Device::SlowSender { capacity: 5e5 })).unwrap();
        assert!(slow.throughput_pps.unwrap() <= 5e5, "unsent packets are lost packets");
    }

    #[test]
    fn loss_is_followed_down_to_the_second_lossless_trial() {
        let found = frame_loss(&Constants::default(), 1e6, &mut step(7.5e5)).unwrap();
        let shares: Vec<u32> = found.points.iter().map(|point| (point.share * 100.0).round() as u32).collect();
        assert_eq!(shares, [100, 90, 80, 70, 60]);
        let losses: Vec<u32> = found.points.iter().map(|point| (point.loss_ratio * 1000.0).round() as u32).collect();
        assert_eq!(losses, [250, 167, 63, 0, 0]);
        let never = frame_loss(&Constants::default(), 1e6, &mut step(0.0)).unwrap();
        assert_eq!(never.points.len(), 10);
    }

    #[test]
    fn recovery_is_measured_from_a_tenth_above_to_half_of_that() {
        let mut asked = Vec::new();
        let mut seconds = [0.5, 1.5].into_iter();
        let found = recovery(&QUICK, 1e6, 2e6, |overload, length, reduced| {
            asked.push((overload.round(), length, reduced.round()));
            seconds.next().ok_or(())
        })
        .unwrap();
        assert_eq!(asked, vec![(1.1e6, 1.0, 5.5e5); 2]);
        let summary = found.recovery_s;
        assert_eq!((summary.mean, summary.min, summary.max, summary.count), (1.0, 0.5, 1.5, 2));
        assert!((summary.deviation - 0.5_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn nonsense_is_refused() {
        let refused = |found: Result<Throughput, Error<std::convert::Infallible>>| found.unwrap_err().to_string();
        let mut device = step(1.0);
        assert!(refused(throughput(&QUICK, 0.0, 1e6, &mut device)).contains("the least load must be above 0"));
        assert!(refused(throughput(&QUICK, 2e6, 1e6, &mut device)).contains("above the least"));
        let endless = Constants { resolution: 0.0, ..QUICK };
        assert!(refused(throughput(&endless, 1e3, 1e6, &mut device)).contains("resolution"));
        assert!(latency(&QUICK, 0.0, |_, _| Ok::<_, ()>(1.0)).is_err());
        assert_eq!(device.trials, 0);
    }

    proptest! {
        #[test]
        fn the_throughput_passes_and_the_load_above_it_does_not(capacity in 2e3..9e5) {
            let mut device = step(capacity);
            let found = throughput(&QUICK, 1e3, 1e6, &mut device).unwrap();
            let (low, high) = (found.throughput_pps.unwrap(), found.failed_pps.unwrap());
            // One packet more or less in a second is within what a trial of one second can tell.
            prop_assert!(low < capacity + 1.0 && high > capacity - 1.0, "{low} {capacity} {high}");
            prop_assert!(high - low <= 0.01 * high);
            prop_assert!(device.range == (1e3, 1e6));
        }
    }
}
