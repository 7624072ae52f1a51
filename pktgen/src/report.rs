//! The outcome of a run, as JSON and as text.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use hdrhistogram::Histogram;

use crate::backend::Sending;
use crate::clock;
use crate::pace::{Pace, PaceOutcome};
use crate::receive::Field;
use crate::receive::check::Sequence;
use crate::receive::latency::Latencies;
use crate::receive::redirect::XdpMode;
use crate::receive::side::{Judged, Link, Outcome};
use crate::send::Sent;
use crate::threshold;
use crate::umem::KernelCounts;

/// One side of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Endpoint {
    /// Interface.
    pub interface: String,
    /// Its driver, where it says.
    pub driver: Option<String>,
    /// Every socket is zero-copy.
    pub zero_copy: bool,
    /// How the receiving program runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xdp_mode: Option<XdpMode>,
}

/// Packets in one direction.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, schemars::JsonSchema)]
pub struct Volume {
    /// Packets.
    pub packets: u64,
    /// Bytes of frames, without FCS.
    pub bytes: u64,
    /// From the first packet to the last.
    pub seconds: f64,
    /// Packets a second over that time.
    pub rate_pps: f64,
}

impl Volume {
    fn new(packets: u64, bytes: u64, elapsed_ns: u64) -> Self {
        let seconds = elapsed_ns as f64 / 1e9;
        let rate_pps = if seconds > 0.0 { packets as f64 / seconds } else { 0.0 };
        Self { packets, bytes, seconds, rate_pps }
    }
}

/// Where latencies lie, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Quantiles {
    /// How many were measured.
    pub count: u64,
    /// Shortest.
    pub min: u64,
    /// Half of the packets were not slower.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// Longest.
    pub max: u64,
}

impl Quantiles {
    /// Of a histogram in nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            min: histogram.min(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

/// Latencies, and what is known about how they were measured. Nothing has been subtracted from them.
#[derive(Clone, Debug, serde::Serialize, schemars::JsonSchema)]
pub struct Latency {
    /// All packets.
    #[serde(flatten)]
    pub overall: Quantiles,
    /// By stream, in the order of the scenario.
    pub streams: Vec<Quantiles>,
    /// The clock of both ends.
    pub clock: &'static str,
    /// Packets whose arrival was taken in XDP.
    pub arrived_in_xdp: u64,
    /// Packets whose arrival was taken in user space, for want of room for a note in front of them.
    pub arrived_in_user_space: u64,
    /// What the measurement itself adds.
    pub bias: Bias,
    /// All packets.
    #[serde(skip)]
    pub histogram: Histogram<u64>,
    /// By stream.
    #[serde(skip)]
    pub stream_histograms: Vec<Histogram<u64>>,
}

/// What the measurement of latencies adds to them, or would add.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, schemars::JsonSchema)]
pub struct Bias {
    /// Median time that one reading of the clock takes, in nanoseconds.
    pub clock_read_ns: u64,
    /// From the receiving program to user space: in latencies only where arrival is taken in user space.
    pub xdp_to_user_space: Option<Quantiles>,
}

/// Reordering of RFC 4737.
#[derive(Clone, Debug, Default, serde::Serialize, schemars::JsonSchema)]
pub struct Reordering {
    /// Largest extent (§4.2.2): arrivals since the earliest packet of the flow that had been sent later.
    pub extent_max: u64,
    /// Mean extent of the reordered packets.
    pub extent_mean: f64,
    /// How the extents are spread, by powers of two.
    pub extents: Vec<ExtentBucket>,
}

/// Reordered packets with similar extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct ExtentBucket {
    /// Largest extent in it; the smallest is one more than half of it.
    pub up_to: u64,
    /// Packets.
    pub packets: u64,
}

/// TTL or hop limit: by how much it had fallen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Hops {
    /// At least.
    pub min: u8,
    /// At most.
    pub max: u8,
}

/// What arrived, and how it compares with what was sent.
#[derive(Clone, Debug, serde::Serialize, schemars::JsonSchema)]
pub struct Judgement {
    /// What the interface delivered: packets of this run, counted in XDP.
    pub delivered: Volume,
    /// Packets that the network lost: neither delivered nor missed by the receiver. With `check: count`, where duplicates are not told
    /// apart, sent less delivered.
    pub lost: u64,
    /// Share of those sent.
    pub loss_ratio: f64,
    /// Packets that were delivered but did not reach user space: the receiver's own loss.
    pub missed: u64,
    /// How the interface fared.
    pub link: Link,
    /// What came to user space; none where packets were only counted.
    pub checked: Option<Checked>,
}

/// What came to user space. Every packet is corrupt by damage (`damaged`), or one of first, duplicate and late.
#[derive(Clone, Debug, serde::Serialize, schemars::JsonSchema)]
pub struct Checked {
    /// Packets of this run, duplicates and corrupt ones included.
    pub volume: Volume,
    /// By sequence number.
    #[serde(flatten)]
    pub sequence: Sequence,
    /// How far packets were reordered.
    pub reordering: Reordering,
    /// Packets with a wrong payload, length or checksum, or a damaged stamp.
    pub corrupt: u64,
    /// Those of them whose stamp could not be read.
    pub damaged: u64,
    /// Packets with changed header fields, those aside that were expected to change.
    pub rewritten: u64,
    /// How many of them by field; a packet may count under several.
    pub rewritten_fields: BTreeMap<&'static str, u64>,
    /// Packets of which only expected fields were changed.
    pub rewritten_as_expected: u64,
    /// Packets of others that reached the sockets.
    pub foreign: u64,
    /// Fall of the TTL.
    pub hops: Option<Hops>,
    /// Latencies, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// What the kernel counted on the receiving sockets.
    pub kernel: KernelCounts,
}

/// A flow that lost packets.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct LostFlow {
    /// Number.
    pub flow: u32,
    /// Source address.
    pub source: IpAddr,
    /// Source port, where the protocol has ports.
    pub port: Option<u16>,
    /// Packets sent.
    pub sent: u64,
    /// Packets lost.
    pub lost: u64,
}

/// What became of one stream.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct StreamReport {
    /// Its name.
    pub name: String,
    /// Number of flows.
    pub flows: u32,
    /// Its packets carry stamps: only such are checked.
    pub stamped: bool,
    /// Packets written to be sent.
    pub packets: u64,
    /// Bytes of their frames, without FCS.
    pub bytes: u64,
    /// First arrivals, where arrivals are checked.
    pub arrived: Option<u64>,
}

/// The outcome of a run.
#[derive(Clone, Debug, serde::Serialize, schemars::JsonSchema)]
pub struct Report {
    /// Sending side.
    pub from: Endpoint,
    /// Receiving side.
    pub to: Option<Endpoint>,
    /// What was given to the kernel to send.
    pub sent: Volume,
    /// How, and what became of it as far as the interface knows.
    pub sending: Sending,
    /// The pace asked for and achieved.
    pub pace: PaceOutcome,
    /// What was received, where there is a receiving side.
    pub received: Option<Judgement>,
    /// The flows that lost most, ten at most.
    pub lost_flows: Vec<LostFlow>,
    /// The streams of the scenario.
    pub streams: Vec<StreamReport>,
    /// Seed of everything random in it.
    pub seed: u64,
}

impl Report {
    pub(crate) fn new(
        pace: &Pace,
        sending: Sending,
        sent: &[&Sent],
        received: Option<&Outcome>,
        streams: Vec<StreamReport>,
    ) -> Self {
        let packets: u64 = sent.iter().map(|thread| thread.packets).sum();
        // Packets without a stamp are nobody's to miss.
        let unstamped: u64 = streams.iter().filter(|stream| !stream.stamped).map(|stream| stream.packets).sum();
        let expected = packets.saturating_sub(unstamped);
        let bytes = sent.iter().map(|thread| thread.bytes).sum();
        let elapsed_ns = sent.iter().map(|thread| thread.elapsed_ns).max().unwrap_or(0);
        Self {
            from: Endpoint::default(),
            to: None,
            sent: Volume::new(packets, bytes, elapsed_ns),
            sending,
            pace: PaceOutcome::new(pace, sent),
            received: received.map(|received| Judgement::new(expected, received)),
            lost_flows: Vec::new(),
            streams,
            seed: 0,
        }
    }

    /// The value of a figure by the name that thresholds use; `None` where this run has not measured it.
    pub fn figure(&self, figure: Figure) -> Option<f64> {
        let received = self.received.as_ref();
        let checked = received.and_then(|received| received.checked.as_ref());
        let count = |value: fn(&Checked) -> u64| checked.map(|checked| value(checked) as f64);
        let latency = |value: fn(&Quantiles) -> u64| Some(value(&checked?.latency.as_ref()?.overall) as f64);
        match figure {
            Figure::Rate => Some(self.sent.rate_pps),
            Figure::RateError => self.pace.rate_error,
            Figure::Delivered => received.map(|received| received.delivered.packets as f64),
            Figure::DeliveredRate => received.map(|received| received.delivered.rate_pps),
            Figure::Loss => received.map(|received| received.lost as f64),
            Figure::LossRatio => received.map(|received| received.loss_ratio),
            Figure::Missed => received.map(|received| received.missed as f64),
            Figure::Duplicate => count(|checked| checked.sequence.duplicate),
            Figure::Reordered => count(|checked| checked.sequence.reordered),
            Figure::ReorderExtent => count(|checked| checked.reordering.extent_max),
            Figure::Late => count(|checked| checked.sequence.late),
            Figure::Corrupt => count(|checked| checked.corrupt),
            Figure::Rewritten => count(|checked| checked.rewritten),
            Figure::P50 => latency(|latency| latency.p50),
            Figure::P90 => latency(|latency| latency.p90),
            Figure::P99 => latency(|latency| latency.p99),
            Figure::P999 => latency(|latency| latency.p999),
            Figure::Max => latency(|latency| latency.max),
        }
    }
}

impl Judgement {
    fn new(sent: u64, outcome: &Outcome) -> Self {
        let arrivals = &outcome.delivered;
        let elapsed_ns = arrivals.span_ns.map_or(0, |(first, last)| last - first);
        let mut delivered = Volume::new(arrivals.packets, arrivals.bytes, elapsed_ns);
        delivered.rate_pps = arrivals.rate_pps().unwrap_or(0.0);
        let (missed, lost) = match &outcome.judged {
            None => (0, sent.saturating_sub(arrivals.packets)),
            Some(judged) => {
                let missed = arrivals.packets.saturating_sub(judged.received.packets);
                // Late ones may be first arrivals, damaged and missed ones were delivered: none of them is called lost.
                let arrived = judged.sequence.first + judged.sequence.late + judged.received.faults.damaged;
                (missed, sent.saturating_sub(arrived + missed))
            }
        };
        Self {
            delivered,
            lost,
            loss_ratio: if sent > 0 { lost as f64 / sent as f64 } else { 0.0 },
            missed,
            link: outcome.link,
            checked: outcome.judged.as_ref().map(Checked::new),
        }
    }
}

impl Checked {
    fn new(judged: &Judged) -> Self {
        let received = &judged.received;
        let faults = &received.faults;
        let span_ns = received.span_ns.map_or(0, |(first, last)| last - first);
        let fields = Field::ALL.iter().zip(faults.fields).filter(|(_, count)| *count > 0);
        Self {
            volume: Volume::new(received.packets, received.bytes, span_ns),
            sequence: judged.sequence,
            reordering: Reordering::new(judged),
            corrupt: faults.corrupt,
            damaged: faults.damaged,
            rewritten: faults.rewritten,
            rewritten_fields: fields.map(|((name, _), count)| (*name, count)).collect(),
            rewritten_as_expected: faults.expected,
            foreign: faults.foreign,
            hops: faults.hops.map(|(min, max)| Hops { min, max }),
            latency: received.latency.as_ref().map(Latency::new),
            kernel: received.kernel,
        }
    }
}

impl Reordering {
    fn new(judged: &Judged) -> Self {
        let (extents, reordered) = (&judged.extents, judged.sequence.reordered);
        Self {
            extent_max: extents.max(),
            extent_mean: if reordered > 0 { extents.sum() as f64 / reordered as f64 } else { 0.0 },
            extents: extents.buckets().map(|(up_to, packets)| ExtentBucket { up_to, packets }).collect(),
        }
    }
}

impl Latency {
    pub(crate) fn new(latencies: &Latencies) -> Self {
        let histogram = latencies.overall();
        Self {
            overall: Quantiles::of(&histogram),
            histogram,
            stream_histograms: latencies.streams.clone(),
            streams: latencies.streams.iter().map(Quantiles::of).collect(),
            clock: "CLOCK_MONOTONIC",
            arrived_in_xdp: latencies.noted,
            arrived_in_user_space: latencies.unnoted,
            bias: Bias {
                clock_read_ns: clock::read_cost_ns(),
                xdp_to_user_space: (latencies.noted > 0).then(|| Quantiles::of(&latencies.handover)),
            },
        }
    }
}

/// What a threshold can be set on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Packets a second sent.
    Rate,
    /// Share by which that differs from the rate asked for.
    RateError,
    /// Packets that the interface delivered.
    Delivered,
    /// Packets a second delivered.
    DeliveredRate,
    /// Packets lost.
    Loss,
    /// Share of packets lost.
    LossRatio,
    /// Packets that the receiver itself lost.
    Missed,
    /// Duplicates.
    Duplicate,
    /// Reordered packets.
    Reordered,
    /// Largest reordering extent.
    ReorderExtent,
    /// Late packets.
    Late,
    /// Corrupt packets.
    Corrupt,
    /// Rewritten packets.
    Rewritten,
    /// Median latency, ns.
    P50,
    /// 90 % latency, ns.
    P90,
    /// 99 % latency, ns.
    P99,
    /// 99.9 % latency, ns.
    P999,
    /// Longest latency, ns.
    Max,
}

impl Figure {
    /// Every figure with its name.
    pub const ALL: [(&'static str, Self); 18] = [
        ("rate", Self::Rate),
        ("rate_error", Self::RateError),
        ("delivered", Self::Delivered),
        ("delivered_rate", Self::DeliveredRate),
        ("loss", Self::Loss),
        ("loss_ratio", Self::LossRatio),
        ("missed", Self::Missed),
        ("duplicate", Self::Duplicate),
        ("reordered", Self::Reordered),
        ("reorder_extent", Self::ReorderExtent),
        ("late", Self::Late),
        ("corrupt", Self::Corrupt),
        ("rewritten", Self::Rewritten),
        ("p50", Self::P50),
        ("p90", Self::P90),
        ("p99", Self::P99),
        ("p999", Self::P999),
        ("max", Self::Max),
    ];
}

impl threshold::Figure for Figure {
    type Report = Report;
    const NAMED: &'static [(&'static str, Self)] = &Self::ALL;
    const UNMEASURED: &'static str = "loss needs --to, faults --check full, latencies --latency";

    fn value(self, report: &Report) -> Option<f64> {
        report.figure(self)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sent      {} on {}", volume(&self.sent), endpoint(&self.from))?;
        write!(f, "{}{}", self.sending, self.pace)?;
        let Some(received) = &self.received else { return Ok(()) };
        let to = self.to.as_ref().map(endpoint).unwrap_or_default();
        writeln!(f, "delivered {} on {to}", volume(&received.delivered))?;
        match received.link {
            Link { gone: true, .. } => writeln!(f, "          the interface has gone, which ended the run")?,
            Link { outages: 0, .. } => {}
            Link { outages, .. } => writeln!(f, "          it was down {outages} times")?,
        }
        writeln!(f, "lost      {} ({:.6} %)", received.lost, received.loss_ratio * 100.0)?;
        if let Some(checked) = &received.checked {
            checked.text(received.missed, f)?;
        }
        if let [_, _, ..] = self.streams.as_slice() {
            for stream in &self.streams {
                let arrived = stream.arrived.map_or_else(String::new, |arrived| format!(", {arrived} arrived"));
                writeln!(f, "stream    {}: {} packets, {} bytes{arrived}", stream.name, stream.packets, stream.bytes)?;
            }
        }
        for flow in &self.lost_flows {
            writeln!(
                f,
                "flow {:>8} from {}{}: {} of {} lost",
                flow.flow,
                flow.source,
                flow.port.map_or_else(String::new, |port| format!(" port {port}")),
                flow.lost,
                flow.sent
            )?;
        }
        Ok(())
    }
}

impl Checked {
    fn text(&self, missed: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sequence { duplicate, reordered, late, .. } = self.sequence;
        let Self { corrupt, rewritten, foreign, reordering, kernel, .. } = self;
        writeln!(f, "received  {} packets, {missed} missed by the receiver itself", self.volume.packets)?;
        writeln!(
            f,
            "faults    {duplicate} duplicate, {reordered} reordered, {corrupt} corrupt, {rewritten} rewritten"
        )?;
        if late + foreign > 0 {
            writeln!(f, "          {late} late, {foreign} foreign")?;
        }
        if reordered > 0 {
            writeln!(
                f,
                "reordered by {:.1} arrivals on average, at most {}",
                reordering.extent_mean, reordering.extent_max
            )?;
        }
        for (field, packets) in &self.rewritten_fields {
            writeln!(f, "rewritten {field} in {packets} packets")?;
        }
        if let Some(hops) = self.hops.filter(|hops| hops.max > 0) {
            writeln!(f, "hops      {} to {}", hops.min, hops.max)?;
        }
        if let Some(latency) = &self.latency {
            latency.text(f)?;
        }
        if *kernel != KernelCounts::default() {
            writeln!(
                f,
                "kernel    {} dropped, {} RX ring full, {} fill ring empty (the receiver's own loss)",
                kernel.rx_dropped, kernel.rx_ring_full, kernel.fill_ring_empty
            )?;
        }
        Ok(())
    }
}

impl Latency {
    fn text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "latency   {} ns", quantiles(&self.overall))?;
        if self.streams.len() > 1 {
            for (stream, latency) in self.streams.iter().enumerate() {
                writeln!(f, "  stream {stream} {} ns", quantiles(latency))?;
            }
        }
        let arrival = match (self.arrived_in_xdp, self.arrived_in_user_space) {
            (_, 0) => "in XDP",
            (0, _) => "in user space",
            _ => "in XDP, some in user space",
        };
        writeln!(
            f,
            "          by {}, arrival taken {arrival}; one reading takes {} ns",
            self.clock, self.bias.clock_read_ns
        )?;
        if let Some(handover) = &self.bias.xdp_to_user_space {
            writeln!(f, "          from XDP to user space, not included: {} ns", quantiles(handover))?;
        }
        Ok(())
    }
}

fn quantiles(quantiles: &Quantiles) -> String {
    let Quantiles { min, p50, p90, p99, p999, max, .. } = quantiles;
    format!("min {min} p50 {p50} p90 {p90} p99 {p99} p99.9 {p999} max {max}")
}

fn volume(volume: &Volume) -> String {
    format!(
        "{} packets, {} bytes in {:.3} s ({:.0} pps)",
        volume.packets, volume.bytes, volume.seconds, volume.rate_pps
    )
}

fn endpoint(endpoint: &Endpoint) -> String {
    let driver = endpoint.driver.as_deref().unwrap_or("unknown driver");
    let copy = if endpoint.zero_copy { "zero-copy" } else { "copy" };
    let mode = match endpoint.xdp_mode {
        Some(XdpMode::Native) => ", native XDP",
        Some(XdpMode::Generic) => ", generic XDP",
        None => "",
    };
    format!("{} ({driver}, {copy}{mode})", endpoint.interface)
}
