//! Figures as people read them: three significant digits, a unit, the thousands apart.

/// Median and quartiles of some values, interpolated as in type 7 of Hyndman and Fan (1996).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quartiles {
    pub(crate) p25: f64,
    pub(crate) median: f64,
    pub(crate) p75: f64,
}

impl Quartiles {
    /// None for no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Some(Self { p25: quantile(&sorted, 0.25)?, median: quantile(&sorted, 0.5)?, p75: quantile(&sorted, 0.75)? })
    }
}

/// The quantile `q` (0..=1) of ascending values.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let at = q.clamp(0.0, 1.0) * (sorted.len().checked_sub(1)? as f64);
    let below = *sorted.get(at.floor() as usize)?;
    let above = *sorted.get(at.ceil() as usize)?;
    Some(below + (above - below) * at.fract())
}

/// A number with three significant digits and the thousands apart: `0.412`, `41.2`, `1,858`.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let digits = match value.abs() {
        0.0 => 0,
        small if small < 0.001 => return format!("{value:.1e}"),
        size if size < 1.0 => 3,
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    thousands(text)
}

/// A count with the thousands apart.
pub(crate) fn count(value: u64) -> String {
    thousands(&value.to_string())
}

fn thousands(text: &str) -> String {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, fraction) = rest.split_once('.').map_or((rest, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut out = sign.to_owned();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// The unit of a quantity, which decides how it is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Nanoseconds of processor time per packet: never scaled, so that rows compare at a glance.
    NsPerPacket,
    /// Packets per second: kpps and Mpps.
    Pps,
    /// A latency in ns: shown in µs or ms where that is shorter.
    Latency,
    /// Milliseconds.
    Ms,
    /// Percent.
    Percent,
    /// A plain count.
    Count,
}

impl Unit {
    /// The value with its unit.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::NsPerPacket => format!("{} ns", number(value)),
            Self::Pps if value.abs() >= 1e6 => format!("{} Mpps", number(value / 1e6)),
            Self::Pps if value.abs() >= 1e3 => format!("{} kpps", number(value / 1e3)),
            Self::Pps => format!("{} pps", number(value)),
            Self::Latency if value.abs() >= 1e6 => format!("{} ms", number(value / 1e6)),
            Self::Latency if value.abs() >= 1e3 => format!("{} µs", number(value / 1e3)),
            Self::Latency => format!("{} ns", number(value)),
            Self::Ms => format!("{} ms", number(value)),
            Self::Percent => format!("{} %", number(value)),
            Self::Count => number(value),
        }
    }

    /// A tick of an axis: as short as it can be.
    pub(crate) fn tick(self, value: f64) -> String {
        match self {
            Self::Count if value >= 1e6 && value % 1e5 == 0.0 => format!("{}M", number(value / 1e6)),
            Self::Count if value >= 1e4 && value % 1e3 == 0.0 => format!("{}k", number(value / 1e3)),
            _ => self.show(value),
        }
    }
}

/// `1 flow`, `65,536 flows`, `1M flows`.
pub(crate) fn flows(flows: u64) -> String {
    match flows {
        1 => "1 flow".to_owned(),
        flows => format!("{} flows", Unit::Count.tick(flows as f64)),
    }
}

/// `2.3×`, with digits enough to tell 0.97 from 1.
pub(crate) fn ratio(value: f64) -> String {
    match value {
        value if !value.is_finite() => "–".to_owned(),
        value if value >= 100.0 => format!("{}×", number(value)),
        value if value >= 10.0 => format!("{value:.0}×"),
        value if value >= 2.0 => format!("{value:.1}×"),
        value => format!("{value:.2}×"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        for (unit, value, text) in [
            (Unit::NsPerPacket, 1858.4, "1,858 ns"),
            (Unit::NsPerPacket, -0.4, "-0.4 ns"),
            (Unit::Pps, 3_754_321.0, "3.75 Mpps"),
            (Unit::Pps, 412_345.0, "412 kpps"),
            (Unit::Pps, 999.0, "999 pps"),
            (Unit::Latency, 12_345.0, "12.3 µs"),
            (Unit::Latency, 2.5e6, "2.5 ms"),
            (Unit::Percent, 0.0001, "1.0e-4 %"),
            (Unit::Count, 1_000_000.0, "1,000,000"),
            (Unit::Count, f64::NAN, "–"),
        ] {
            assert_eq!(unit.show(value), text);
        }
        assert_eq!([65_536.0, 100_000.0, 2_500_000.0].map(|n| Unit::Count.tick(n)), ["65,536", "100k", "2.5M"]);
        assert_eq!([9.84, 0.97, 12.4, 1234.0].map(ratio), ["9.8×", "0.97×", "12×", "1,234×"]);
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn quartiles_are_interpolated() {
        let four = Quartiles::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((four.p25, four.median, four.p75), (1.75, 2.5, 3.25));
        assert_eq!(Quartiles::of(&[7.0]).unwrap().p75, 7.0);
        assert_eq!(Quartiles::of(&[]), None);
    }
}
