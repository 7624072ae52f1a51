//! What the two ends of a run say to each other: JSON, one message a line, over the standard streams of a command.
//!
//! ```text
//! near                       far
//! Hello          ->
//!                <-  Hello                 version, boot
//! Open           ->                        interface
//!                <-  Opened                its Ethernet address
//! Prepare        ->                        scenario, magic, what to check
//!                <-  Ready                 program attached, sockets open
//!                <-  Progress ...          every 200 ms
//! Finish         ->                        everything has been sent
//!                <-  Histogram, Arrivals ... Done
//! ```
//! `Failed` may come instead of any answer. A message has at most [`MESSAGE_MAX`] bytes; longer ones are refused unread.

use std::io::{self, BufRead, Read as _, Write};

use hdrhistogram::Histogram;
use packet::layer::Mac;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::low_bits;
use crate::progress::Snapshot;
use crate::receive::check::{Extents, Sequence};
use crate::receive::latency;
use crate::receive::redirect::Arrivals;
use crate::receive::side::Link;
use crate::receive::{Faults, Options};
use crate::report::Endpoint;
use crate::scenario::Scenario;
use crate::traffic::Plan;
use crate::umem::KernelCounts;

/// Longest message in bytes.
pub const MESSAGE_MAX: usize = 4 << 20;
/// What both ends must speak.
pub const PROTOCOL: u32 = 1;
/// Flows whose arrivals go into one message.
pub const ARRIVALS_MAX: usize = 8192;

/// Why the other end cannot be understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The stream broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// Too long.
    #[error("a message of more than {MESSAGE_MAX} bytes")]
    TooLong,
    /// No message.
    #[error("a line that is no message: {0}")]
    Json(#[from] serde_json::Error),
}

/// Who is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Version of pktgen.
    pub version: String,
    /// Of /proc/sys/kernel/random/boot_id: two ends with the same one share their clocks.
    pub boot_id: String,
}

impl Hello {
    /// Of this end.
    pub fn own() -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned(), boot_id: boot_id.trim().to_owned() }
    }
}

/// From the end that sends packets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToFar {
    /// First of all.
    Hello(Hello),
    /// Find an interface.
    Open {
        /// Its name.
        interface: String,
    },
    /// Get ready to receive.
    Prepare(Box<Prepare>),
    /// Everything has been sent.
    Finish,
}

/// What is going to be sent, and what to do with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prepare {
    /// Of the run.
    pub magic: u32,
    /// The packets, with their Ethernet addresses.
    pub scenario: Scenario,
    /// What to check.
    pub options: Options,
}

/// From the end that receives packets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromFar {
    /// Answer to the other one.
    Hello(Hello),
    /// The interface is there.
    Opened {
        /// Its Ethernet address.
        mac: Mac,
    },
    /// Packets may come.
    Ready {
        /// The interface, for the report.
        endpoint: Endpoint,
        /// Of the packets that are expected.
        fingerprint: u32,
    },
    /// What has come so far.
    Progress(Snapshot),
    /// Latencies.
    Histogram {
        /// Of which packets.
        of: HistogramOf,
        /// Value in nanoseconds and how often.
        counts: Vec<(u64, u64)>,
    },
    /// First arrivals by flow.
    Arrivals {
        /// Flow of the first of them.
        first: u32,
        /// Packets.
        counts: Vec<u64>,
    },
    /// The end.
    Done(Box<Done>),
    /// It cannot go on.
    Failed(String),
}

/// Whose latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistogramOf {
    /// Of a stream.
    Stream(usize),
    /// From the receiving program to user space.
    Handover,
}

/// What was received, but for what was said before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Counted in XDP.
    pub delivered: Arrivals,
    /// What came to user space.
    pub judged: Option<DoneJudged>,
    /// How the interface fared.
    pub link: Link,
}

/// What came to user space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoneJudged {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// First and last arrival on the far end's clock.
    pub span_ns: Option<(u64, u64)>,
    /// Corruption and rewriting.
    pub faults: Faults,
    /// Sequence numbers.
    pub sequence: Sequence,
    /// Reordering.
    pub extents: Extents,
    /// The kernel's counts.
    pub kernel: KernelCounts,
    /// Packets whose arrival was taken in XDP and in user space; none: latencies were not measured.
    pub latencies: Option<(u64, u64)>,
}

/// Reads one message; `None` at the end of the stream.
///
/// # Errors
/// [`WireError`].
pub fn read<T: DeserializeOwned>(from: &mut impl BufRead) -> Result<Option<T>, WireError> {
    let mut line = Vec::new();
    let limit = u64::try_from(MESSAGE_MAX).unwrap_or(u64::MAX) + 1;
    from.take(limit).read_until(b'\n', &mut line)?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        Some(_) if line.len() > MESSAGE_MAX => Err(WireError::TooLong),
        Some(_) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

/// Writes one message.
///
/// # Errors
/// [`WireError`].
pub fn write(to: &mut impl Write, message: &impl Serialize) -> Result<(), WireError> {
    let mut line = serde_json::to_vec(message)?;
    if line.len() >= MESSAGE_MAX {
        return Err(WireError::TooLong);
    }
    line.push(b'\n');
    to.write_all(&line)?;
    Ok(to.flush()?)
}

/// A sum over some packets of a plan: two ends with the same one expect the same packets.
pub fn fingerprint(plan: &Plan) -> u32 {
    const FLOWS: u64 = 64;
    const PACKETS: u32 = 3;
    let mut frame = vec![0; plan.longest()];
    let flows = (0..FLOWS).map(|at| low_bits(at * u64::from(plan.flows()) / FLOWS));
    let packets = flows.flat_map(|flow| (0..PACKETS).map(move |seq| (flow, seq)));
    packets.fold(plan.flows(), |sum, (flow, seq)| {
        let written = plan.write(flow, seq, 0, &mut frame);
        crc32c::crc32c_append(sum, frame.get(..written.len).unwrap_or_default())
    })
}

/// The values of a histogram, and how often each.
pub fn counts(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value())).collect()
}

/// The histogram of these counts.
pub fn histogram(counts: &[(u64, u64)]) -> Histogram<u64> {
    let mut histogram = latency::histogram();
    for (value, count) in counts {
        histogram.saturating_record_n(*value, *count);
    }
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Stream;
    use proptest::prelude::*;

    #[test]
    fn messages_come_back() {
        let layers = "eth 02::1 > 02::2 / vlan 7 / ip4 192.0.2.1 > 198.51.100.1 ttl=9 / udp 5 > 6";
        let stream = Stream::new("a", packet::notation::parse(layers).unwrap());
        let options = Options { latency: true, ..Options::default() };
        let prepare = Prepare { magic: 7, scenario: Scenario { seed: 1, streams: vec![stream] }, options };
        let messages = [ToFar::Hello(Hello::own()), ToFar::Prepare(Box::new(prepare)), ToFar::Finish];
        let mut stream = Vec::new();
        messages.iter().for_each(|message| write(&mut stream, message).unwrap());
        let mut reader = &stream[..];
        for message in &messages {
            assert_eq!(read::<ToFar>(&mut reader).unwrap().as_ref(), Some(message));
        }
        assert_eq!(read::<ToFar>(&mut reader).unwrap(), None);
    }

    #[test]
    fn long_and_broken_messages_are_refused() {
        let long = vec![b'x'; MESSAGE_MAX + 10];
        assert!(matches!(read::<ToFar>(&mut &long[..]), Err(WireError::TooLong)));
        assert!(matches!(read::<ToFar>(&mut &b"{\"finish"[..]), Err(WireError::Io(_))));
        assert!(matches!(read::<ToFar>(&mut &b"\"stop\"\n"[..]), Err(WireError::Json(_))));
        let counts = vec![u64::MAX; MESSAGE_MAX / 10];
        assert!(matches!(write(&mut Vec::new(), &FromFar::Arrivals { first: 0, counts }), Err(WireError::TooLong)));
    }

    proptest! {
        #[test]
        fn histograms_come_back(values in proptest::collection::vec(1..5_000_000_000u64, 0..200)) {
            let mut sent = latency::histogram();
            values.iter().for_each(|value| sent.saturating_record(*value));
            prop_assert_eq!(histogram(&counts(&sent)), sent);
        }
    }
}
