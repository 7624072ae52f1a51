//! Quantities as a person writes them: `250k`, `1.5M`, `10s`, `500ms`.

use std::time::Duration;

/// Text that is no quantity. Says what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no {what} (write {usage})")]
pub struct BadQuantity {
    text: String,
    what: &'static str,
    usage: &'static str,
}

/// A number of at least 0 with a decimal suffix: `k`, `M` or `G`.
///
/// # Errors
/// [`BadQuantity`].
pub fn number(text: &str) -> Result<f64, BadQuantity> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k') => (text.strip_suffix('k'), 1e3),
        Some(b'M') => (text.strip_suffix('M'), 1e6),
        Some(b'G') => (text.strip_suffix('G'), 1e9),
        _ => (Some(text), 1.0),
    };
    let number = digits.and_then(|digits| digits.trim().parse::<f64>().ok()).map(|number| number * unit);
    number.filter(|number| number.is_finite() && *number >= 0.0).ok_or_else(|| BadQuantity {
        text: text.to_owned(),
        what: "number",
        usage: "250000, 250k or 1.5M",
    })
}

/// A whole [`number`].
///
/// # Errors
/// [`BadQuantity`].
pub fn count(text: &str) -> Result<u64, BadQuantity> {
    // f64 tells whole numbers apart up to 2^53.
    number(text)
        .ok()
        .filter(|number| number.fract() == 0.0 && *number < 9e15)
        .map(|number| number as u64)
        .ok_or_else(|| BadQuantity { text: text.to_owned(), what: "whole number", usage: "250000, 250k or 1M" })
}

/// Time with a unit (`1m 30s`, `500ms`), or seconds without.
///
/// # Errors
/// [`BadQuantity`].
pub fn duration(text: &str) -> Result<Duration, BadQuantity> {
    let bad = || BadQuantity { text: text.to_owned(), what: "time", usage: "10s, 500ms, or seconds as 0.5" };
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| bad()),
        Err(_) => humantime::parse_duration(text).map_err(|_| bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read() {
        assert_eq!((number("1.5M"), number("0"), count("16k")), (Ok(1.5e6), Ok(0.0), Ok(16_000)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
    }

    #[test]
    fn mistakes_say_what_to_write() {
        for text in ["", "fast", "-1", "1e400", "k", "NaN"] {
            assert!(number(text).unwrap_err().to_string().contains("250k"), "{text}");
        }
        assert!(count("1.5").unwrap_err().to_string().contains("whole number"));
        assert!(duration("-1").unwrap_err().to_string().contains("500ms"));
    }
}
