//! `--fail-if loss>0`: conditions on the figures of a report.

use std::fmt;
use std::str::FromStr;

use crate::report;

/// What a threshold can be set on: the figures of one kind of report.
pub trait Figure: Copy + fmt::Debug + PartialEq + 'static {
    /// The report.
    type Report;
    /// Every figure with its name.
    const NAMED: &'static [(&'static str, Self)];
    /// When a figure is not measured.
    const UNMEASURED: &'static str;

    /// Its value; `None` where the run has not measured it.
    fn value(self, report: &Self::Report) -> Option<f64>;
}

/// One condition that makes a run a failure.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold<F = report::Figure> {
    figure: F,
    operator: &'static str,
    limit: f64,
    text: String,
}

/// Text that is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is no condition (write FIGURE, then > >= < or <=, then a number, as '{example}>0'; figures are {names})"
)]
pub struct BadThreshold {
    text: String,
    example: &'static str,
    names: String,
}

impl BadThreshold {
    fn new<F: Figure>(text: &str) -> Self {
        let names: Vec<_> = F::NAMED.iter().map(|(name, _)| *name).collect();
        Self { text: text.to_owned(), example: names.last().copied().unwrap_or_default(), names: names.join(", ") }
    }
}

type Comparison = fn(f64, f64) -> bool;

/// The longer ones first.
const OPERATORS: [(&str, Comparison); 4] =
    [(">=", |a, b| a >= b), ("<=", |a, b| a <= b), (">", |a, b| a > b), ("<", |a, b| a < b)];

impl<F: Figure> FromStr for Threshold<F> {
    type Err = BadThreshold;

    fn from_str(text: &str) -> Result<Self, BadThreshold> {
        let parse = || {
            let (operator, (name, limit)) =
                OPERATORS.into_iter().find_map(|(operator, _)| Some((operator, text.split_once(operator)?)))?;
            let (_, figure) = F::NAMED.iter().copied().find(|(known, _)| *known == name.trim())?;
            let limit: f64 = limit.trim().parse().ok().filter(|limit: &f64| limit.is_finite())?;
            Some(Self { figure, operator, limit, text: text.to_owned() })
        };
        parse().ok_or_else(|| BadThreshold::new::<F>(text))
    }
}

/// A condition that holds, or cannot be judged: either way the run has failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Exceeded {
    text: String,
    value: Option<f64>,
    unmeasured: &'static str,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            Some(value) => write!(f, "{}: it is {value}", self.text),
            None => write!(f, "{}: not measured ({})", self.text, self.unmeasured),
        }
    }
}

impl<F: Figure> Threshold<F> {
    /// `None` when the run passes.
    pub fn check(&self, report: &F::Report) -> Option<Exceeded> {
        let value = self.figure.value(report);
        let (_, holds) = OPERATORS.into_iter().find(|(operator, _)| *operator == self.operator)?;
        value.is_none_or(|value| holds(value, self.limit)).then(|| Exceeded {
            text: self.text.clone(),
            value,
            unmeasured: F::UNMEASURED,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Figure;

    #[test]
    fn conditions_are_read() {
        for (text, figure, operator, limit) in [
            ("loss>0", Figure::Loss, ">", 0.0),
            ("p99 >= 1e6", Figure::P99, ">=", 1e6),
            ("rate<1000000", Figure::Rate, "<", 1e6),
            ("loss_ratio<=0.5", Figure::LossRatio, "<=", 0.5),
        ] {
            let parsed: Threshold = text.parse().unwrap();
            assert_eq!((parsed.figure, parsed.operator, parsed.limit), (figure, operator, limit), "{text}");
        }
        for text in ["", "loss", "loss=0", "lost>0", "loss>x", "loss>NaN", ">0"] {
            assert!(
                text.parse::<Threshold>().unwrap_err().to_string().contains("figures are rate, rate_error,"),
                "{text}"
            );
        }
    }
}
