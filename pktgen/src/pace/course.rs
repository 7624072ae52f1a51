//! Rates as they are written on a command line or in a scenario.

use std::str::FromStr;
use std::time::Duration;

use super::Shape;
use crate::units;

/// The course of a rate: `max`, `1M`, `10k..1M` (a ramp over the whole run) or `10k:5s,1M:5s` (one after the other). Rates
/// may be percentages of what goes at most, then all of them: `50%`, `10%..100%`.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    rates: Rates,
    /// Rates are shares of the maximum.
    pub of_maximum: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Rates {
    Max,
    Constant(f64),
    Ramp(f64, f64),
    Steps(Vec<(f64, Duration)>),
}

/// No course of a rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CourseError {
    /// Not a number above zero.
    #[error("`{0}` is no rate: write 250k, 1.5M, 50% or max, a ramp as 10k..1M, steps as 10k:5s,1M:5s; more than 0")]
    Rate(String),
    /// A step without a time.
    #[error("`{0}` is no step: write its rate and how long it lasts as 10k:5s")]
    Step(String),
    /// More than everything.
    #[error("{0} is more than the maximum: give at most 100%")]
    TooMuch(String),
    /// Percentages and numbers.
    #[error("percentages and rates do not mix: give one or the other")]
    Mixed,
}

impl Course {
    /// As many as go.
    pub const MAX: Self = Self { rates: Rates::Max, of_maximum: false };

    /// Its shape; a ramp takes `run`. `None`: it is a ramp, and how long the run takes is not known.
    pub fn shape(&self, run: Option<Duration>) -> Option<Shape> {
        Some(match &self.rates {
            Rates::Max => Shape::Max,
            Rates::Constant(rate) => Shape::Constant { rate: *rate },
            Rates::Ramp(from, to) => Shape::Ramp { from: *from, to: *to, over: run? },
            Rates::Steps(steps) => Shape::Steps { steps: steps.clone() },
        })
    }
}

impl FromStr for Course {
    type Err = CourseError;

    fn from_str(text: &str) -> Result<Self, CourseError> {
        if text == "max" {
            return Ok(Self::MAX);
        }
        let mut percentages = 0;
        let mut numbers = 0;
        let mut rate = |text: &str| {
            let refused = || CourseError::Rate(text.to_owned());
            let (digits, share) = text.strip_suffix('%').map_or((text, false), |digits| (digits, true));
            let number = units::number(digits).map_err(|_| refused())?;
            if number <= 0.0 {
                return Err(refused());
            }
            if share {
                percentages += 1;
                if number > 100.0 {
                    return Err(CourseError::TooMuch(text.to_owned()));
                }
                return Ok(number / 100.0);
            }
            numbers += 1;
            Ok(number)
        };
        let rates = if let Some((from, to)) = text.split_once("..") {
            Rates::Ramp(rate(from)?, rate(to)?)
        } else if text.contains(':') {
            let step = |step: &str| {
                let refused = || CourseError::Step(step.to_owned());
                let (pps, time) = step.split_once(':').ok_or_else(refused)?;
                let time = units::duration(time).ok().filter(|time| !time.is_zero()).ok_or_else(refused)?;
                Ok((rate(pps)?, time))
            };
            Rates::Steps(text.split(',').map(step).collect::<Result<_, CourseError>>()?)
        } else {
            Rates::Constant(rate(text)?)
        };
        if percentages > 0 && numbers > 0 {
            return Err(CourseError::Mixed);
        }
        Ok(Self { rates, of_maximum: percentages > 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        let run = Some(Duration::from_secs(10));
        let shape = |text: &str| text.parse::<Course>().unwrap().shape(run).unwrap();
        assert_eq!(shape("max"), Shape::Max);
        assert_eq!(shape("1.5M"), Shape::Constant { rate: 1.5e6 });
        assert_eq!(shape("10k..1M"), Shape::Ramp { from: 1e4, to: 1e6, over: Duration::from_secs(10) });
        let steps = vec![(1e4, Duration::from_secs(5)), (1e6, Duration::from_millis(500))];
        assert_eq!(shape("10k:5s,1M:500ms"), Shape::Steps { steps });
        assert_eq!(shape("0.5"), Shape::Constant { rate: 0.5 });
        let half: Course = "50%".parse().unwrap();
        assert!(half.of_maximum && half.shape(None) == Some(Shape::Constant { rate: 0.5 }));
        assert!("10%..100%".parse::<Course>().unwrap().of_maximum);
        assert_eq!("1..2".parse::<Course>().unwrap().shape(None), None);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("0", "`0` is no rate"),
            ("-1", "`-1` is no rate"),
            ("fast", "`fast` is no rate"),
            ("1..0", "`0` is no rate"),
            ("0%", "`0%` is no rate"),
            ("101%", "101% is more than the maximum"),
            ("50%..1M", "do not mix"),
            ("10k:5s,1M", "`1M` is no step"),
            ("10k:0s", "`10k:0s` is no step"),
            ("nan", "`nan` is no rate"),
            ("inf", "`inf` is no rate"),
            ("", "`` is no rate"),
        ] {
            let error = text.parse::<Course>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
