//! Histograms as files that HdrHistogram's own tools read.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::report::Latency;

/// Steps to half of what is left up to 100 %, as HdrHistogram prints them.
const TICKS_PER_HALF: u32 = 5;

/// Percentiles in microseconds (`.hgrm`), to be plotted by HdrHistogram's plotter.
///
/// # Errors
/// What writing says.
pub fn percentiles(histogram: &Histogram<u64>, out: &mut impl Write) -> io::Result<()> {
    const PER_MICROSECOND: f64 = 1000.0;
    writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
    let mut count = 0;
    for value in histogram.iter_quantiles(TICKS_PER_HALF) {
        let quantile = value.quantile();
        let at = value.value_iterated_to() as f64 / PER_MICROSECOND;
        count += value.count_since_last_iteration();
        write!(out, "{at:>12.3} {quantile:>14.12} {count:>10}")?;
        if quantile < 1.0 {
            write!(out, " {:>14.2}", 1.0 / (1.0 - quantile))?;
        }
        writeln!(out)?;
    }
    let (mean, deviation) = (histogram.mean() / PER_MICROSECOND, histogram.stdev() / PER_MICROSECOND);
    writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]")?;
    let (max, total) = (histogram.max() as f64 / PER_MICROSECOND, histogram.len());
    writeln!(out, "#[Max     = {max:12.3}, Total count    = {total:12}]")?;
    let (buckets, counters) = (histogram.buckets(), histogram.distinct_values());
    writeln!(out, "#[Buckets = {buckets:12}, SubBuckets     = {counters:12}]")
}

/// An interval log in nanoseconds: one interval, the whole run, for all packets and for each stream by the tag `stream-N`.
/// Histograms are in the compressed V2 encoding.
///
/// # Errors
/// What writing or encoding says.
pub fn interval_log(latency: &Latency, out: &mut impl Write) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(&format!("pktgen latencies in ns by {}", latency.clock))
        .with_start_time(SystemTime::now())
        .begin_log_with(out, &mut serializer)?;
    let mut write = |histogram: &Histogram<u64>, tag: Option<Tag<'_>>| {
        let (start, length) = (Duration::ZERO, Duration::ZERO);
        log.write_histogram(histogram, start, length, tag).map_err(|e| io::Error::other(e.to_string()))
    };
    write(&latency.histogram, None)?;
    for (number, stream) in latency.stream_histograms.iter().enumerate() {
        write(stream, Tag::new(&format!("stream-{number}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::latency::{Latencies, histogram};
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn percentiles_are_those_of_the_tools() {
        let mut values = histogram();
        (1..=1000).for_each(|value| values.record(value * 1000).unwrap());
        let mut text = Vec::new();
        percentiles(&values, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]);
        let half = lines.iter().find(|line| line.get(1) == Some(&"0.500000000000")).unwrap();
        assert_eq!((half[2], half[3]), ("500", "2.00"));
        assert!((half[0].parse::<f64>().unwrap() - 500.0).abs() < 1.0, "{half:?}");
        let last = lines.iter().rfind(|line| line.get(1) == Some(&"1.000000000000")).unwrap();
        assert_eq!(last[2..], ["1000"]);
        assert!(text.contains("Total count    =         1000]"), "{text}");
    }

    #[test]
    fn the_log_comes_back() {
        let mut latencies = Latencies::new(2);
        for (stream, value) in [(0, 700u64), (1, 5_000_000), (1, 5_000_001)] {
            latencies.streams[stream].record(value).unwrap();
        }
        let mut log = Vec::new();
        interval_log(&Latency::new(&latencies), &mut log).unwrap();
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(&log) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let encoded = interval.encoded_histogram().as_bytes();
                let bytes = base64(encoded);
                let decoded: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
                found.push((interval.tag().map(|tag| tag.as_str().to_owned()), decoded));
            }
        }
        let tags: Vec<_> = found.iter().map(|(tag, _)| tag.as_deref()).collect();
        assert_eq!(tags, [None, Some("stream-0"), Some("stream-1")]);
        assert_eq!(found[0].1, latencies.overall());
        assert_eq!((&found[1].1, &found[2].1), (&latencies.streams[0], &latencies.streams[1]));
    }

    /// RFC 4648 §4.
    fn base64(text: &[u8]) -> Vec<u8> {
        let digit = |byte: &u8| {
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".iter().position(|known| known == byte)
        };
        let bits: Vec<usize> = text.iter().filter_map(digit).collect();
        let bytes = bits.chunks(4).flat_map(|digits| {
            let word = digits.iter().fold(0, |word, digit| word << 6 | digit) << (6 * (4 - digits.len()));
            (0..digits.len() - 1).map(move |at| (word >> (16 - 8 * at) & 0xff) as u8)
        });
        bytes.collect()
    }
}
