//! Back-to-back frames: how long a burst at the greatest rate a device takes without loss, and what that says about its
//! buffer (RFC 2544 section 26.4 as updated by RFC 9004).
//!
//! A burst fills the buffer at the rate by which it exceeds what the device forwards meanwhile. The time that a burst
//! of the length found lasts therefore overstates the buffer; RFC 9004 corrects it by the throughput.

use super::{Error, Outcome, Summary, Trials, require};

/// The constants of the test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Constants {
    /// Searches for the longest burst, whose results are averaged (RFC 9004 section 6.3).
    pub(crate) tests: u32,
    /// The longest burst tried, in seconds: 2 s, the least trial of RFC 2544 section 26.4. A device that takes it is not
    /// limited by its buffer.
    pub(crate) longest_s: f64,
    /// Where a search ends: distance of the longest passing from the shortest failing burst, relative to the latter,
    /// but never finer than a frame.
    pub(crate) resolution: f64,
    /// How often a burst that lost frames is tried again; it passes when one of the trials does (binary search with loss
    /// verification, ETSI GS NFV-TST 009 section 12.3.3).
    pub(crate) verifications: u32,
}

impl Default for Constants {
    fn default() -> Self {
        Self { tests: 50, longest_s: 2.0, resolution: 0.005, verifications: 0 }
    }
}

/// The back-to-back frames of one frame size.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BackToBack {
    /// The longest burst without loss, in frames, of every test.
    pub(crate) tests: Vec<u64>,
    /// Average, least, greatest and deviation of `tests`.
    pub(crate) frames: Summary,
    /// Seconds that the average burst lasts at the greatest rate.
    pub(crate) implied_buffer_s: f64,
    /// Seconds at the greatest rate that the buffer holds: the implied time less the share that was forwarded meanwhile.
    pub(crate) corrected_buffer_s: f64,
    /// Every trial, in order.
    pub(crate) trials: Vec<Outcome>,
    /// What deviates from the RFCs or limits the result, in words.
    pub(crate) deviations: Vec<String>,
}

/// Measures bursts at `max_pps`, the greatest rate for the frame size, on a device with this throughput for it.
///
/// # Errors
/// [`Error::Invalid`] for constants that make no sense and where the device forwards the greatest rate, so that no burst
/// fills its buffer (RFC 9004 section 6.1); [`Error::Trial`] for the first failed trial.
pub(crate) fn back_to_back<T: Trials>(
    constants: &Constants,
    throughput_pps: f64,
    max_pps: f64,
    trials: &mut T,
) -> Result<BackToBack, Error<T::Error>> {
    require(&[
        (constants.tests > 0, "the back-to-back test needs at least one search"),
        (constants.longest_s.is_finite() && constants.longest_s > 0.0, "the longest burst must last longer than 0 s"),
        (constants.resolution >= 0.0 && constants.resolution < 1.0, "the resolution must be from 0 to below 1"),
        (max_pps.is_finite() && max_pps * constants.longest_s >= 1.0, "the longest burst must have at least one frame"),
        (throughput_pps >= 0.0, "the throughput must be known before bursts are measured (RFC 9004 section 5)"),
        (
            throughput_pps < max_pps,
            "the device forwards the greatest rate: no burst fills its buffer (RFC 9004 section 6.1)",
        ),
    ])?;
    let longest = (constants.longest_s * max_pps) as u64;
    let mut bursts = Bursts { constants, max_pps, trials, made: Vec::new() };
    let mut tests = Vec::new();
    for _ in 0..constants.tests {
        tests.push(bursts.longest_passing(longest)?);
    }
    let counts: Vec<f64> = tests.iter().map(|&frames| frames as f64).collect();
    let frames = Summary::of(&counts).ok_or_else(|| Error::Invalid("no burst was measured".to_owned()))?;
    let implied_buffer_s = frames.mean / max_pps;
    Ok(BackToBack {
        deviations: deviations(constants, &tests, longest),
        tests,
        frames,
        implied_buffer_s,
        corrected_buffer_s: implied_buffer_s - implied_buffer_s * throughput_pps / max_pps,
        trials: bursts.made,
    })
}

fn deviations(constants: &Constants, tests: &[u64], longest: u64) -> Vec<String> {
    let mut deviations = Vec::new();
    let (count, seconds) = (constants.tests, constants.longest_s);
    if count < 50 {
        deviations.push(format!("{count} tests, RFC 9004 section 6.3 wants at least 50"));
    }
    if seconds < 2.0 {
        deviations.push(format!("bursts of at most {seconds} s, RFC 2544 section 26.4 wants trials of at least 2 s"));
    }
    let whole = tests.iter().filter(|&&frames| frames == longest).count();
    if whole > 0 {
        deviations.push(format!("{whole} of {count} tests took the longest burst, {seconds} s: the buffer is larger"));
    }
    deviations
}

struct Bursts<'a, T> {
    constants: &'a Constants,
    max_pps: f64,
    trials: &'a mut T,
    made: Vec<Outcome>,
}

impl<T: Trials> Bursts<'_, T> {
    /// The longest burst of at most `longest` frames that passes; 0 where one frame does not. The longest comes first:
    /// a device that takes it needs one trial.
    fn longest_passing(&mut self, longest: u64) -> Result<u64, Error<T::Error>> {
        if self.passes(longest)? {
            return Ok(longest);
        }
        let (mut low, mut high) = (0, longest);
        while (high - low) as f64 > (self.constants.resolution * high as f64).max(1.0) {
            let middle = low + (high - low) / 2;
            if self.passes(middle)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn passes(&mut self, frames: u64) -> Result<bool, Error<T::Error>> {
        // A quarter of a frame more, so that rate times duration is not a frame less by rounding.
        let duration_s = (frames as f64 + 0.25) / self.max_pps;
        for _ in 0..=self.constants.verifications {
            let outcome = self.trials.trial(self.max_pps, duration_s).map_err(Error::Trial)?;
            self.made.push(outcome);
            if outcome.lost() == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::search::simulate::{Device, Simulated};

    const FINE: Constants = Constants { tests: 3, longest_s: 2.0, resolution: 0.0, verifications: 0 };

    fn buffered(capacity: f64, buffer: f64) -> Simulated {
        Simulated::new(Device::Buffer { capacity, buffer })
    }

    #[test]
    fn the_corrected_time_is_the_buffer() {
        let (line, capacity, buffer) = (1e6, 4e5, 30_000.0);
        let found = back_to_back(&Constants::default(), capacity, line, &mut buffered(capacity, buffer)).unwrap();
        assert_eq!(found.tests.len(), 50);
        assert!(found.deviations.is_empty(), "{:?}", found.deviations);
        // Three fifths of a burst stay in the buffer.
        assert!((found.frames.mean / 50_000.0 - 1.0).abs() < 0.005, "{:?}", found.frames);
        assert!((found.implied_buffer_s / 0.05 - 1.0).abs() < 0.005);
        assert!((found.corrected_buffer_s / (buffer / line) - 1.0).abs() < 0.005, "{}", found.corrected_buffer_s);
        assert_eq!(
            (found.frames.min, found.frames.max, found.frames.deviation),
            (found.frames.mean, found.frames.mean, 0.0)
        );
    }

    #[test]
    fn what_no_burst_can_tell_is_refused_or_said() {
        let refused = back_to_back(&FINE, 1e6, 1e6, &mut buffered(1e6, 10.0)).unwrap_err().to_string();
        assert!(refused.contains("forwards the greatest rate"), "{refused}");
        assert!(back_to_back(&FINE, f64::NAN, 1e6, &mut buffered(1e5, 10.0)).is_err());
        let huge = back_to_back(&FINE, 9e5, 1e6, &mut buffered(9e5, 1e9)).unwrap();
        assert_eq!(huge.tests, [2_000_000; 3]);
        assert_eq!(huge.deviations.len(), 2, "{:?}", huge.deviations);
        assert!(huge.deviations[1].contains("3 of 3 tests took the longest burst"));
        let dead = back_to_back(&FINE, 0.0, 1e6, &mut buffered(0.0, 0.0)).unwrap();
        assert_eq!((dead.tests, dead.corrected_buffer_s), (vec![0; 3], 0.0));
    }

    #[test]
    fn a_verified_loss_is_one_that_comes_back() {
        // Every second trial is disturbed.
        let device = || Simulated::new(Device::Noisy { capacity: 5e5, factors: vec![0.5, 3.0] });
        let once = back_to_back(&FINE, 4e5, 1e6, &mut device()).unwrap();
        let verified = back_to_back(&Constants { verifications: 1, ..FINE }, 4e5, 1e6, &mut device()).unwrap();
        assert_eq!(verified.tests, [2_000_000; 3]);
        assert!(once.frames.mean < verified.frames.mean);
    }

    proptest! {
        #[test]
        fn the_longest_burst_is_found_to_the_frame(capacity in 0.0..0.95_f64, buffer in 0_u32..40_000) {
            let line = 1e6;
            let mut device = buffered(capacity * line, f64::from(buffer));
            let found = back_to_back(&FINE, capacity * line, line, &mut device).unwrap();
            let frames = found.tests[0];
            let mut passes = |frames: u64| device.trial(line, (frames as f64 + 0.25) / line).unwrap().lost() == 0;
            prop_assert!(frames == 0 || passes(frames));
            prop_assert!(!passes(frames + 1));
        }
    }
}
