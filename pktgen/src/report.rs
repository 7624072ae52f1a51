//! The outcome of a run, as JSON and as text.

use std::fmt;
use std::net::IpAddr;

use crate::check::Counts;
use crate::receive::Received;
use crate::redirect::XdpMode;
use crate::send::Sent;
use crate::template::Frames;
use crate::umem::KernelCounts;

/// One side of a run.
#[derive(Clone, Debug, Default, serde::Serialize)]
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
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
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

/// Latencies in nanoseconds.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Latency {
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

/// What was received and how it compares with what was sent.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Judgement {
    /// Intact packets, duplicates included.
    pub volume: Volume,
    /// Packets that never arrived intact.
    pub lost: u64,
    /// Share of those sent.
    pub loss_ratio: f64,
    /// Duplicates, reordering, corruption.
    #[serde(flatten)]
    pub counts: Counts,
    /// Latencies, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ns: Option<Latency>,
    /// What the kernel counted on the receiving sockets.
    pub kernel: KernelCounts,
}

/// A flow that lost packets.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LostFlow {
    /// Number.
    pub flow: u32,
    /// Source address.
    pub source: IpAddr,
    /// Source port.
    pub port: u16,
    /// Packets sent.
    pub sent: u64,
    /// Packets lost.
    pub lost: u64,
}

/// The outcome of a run.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// Sending side.
    pub from: Endpoint,
    /// Receiving side.
    pub to: Option<Endpoint>,
    /// What was asked for; none: as much as goes.
    pub asked_pps: Option<f64>,
    /// What was sent.
    pub sent: Volume,
    /// Packets that the kernel took but has not confirmed to have sent.
    pub unconfirmed: u64,
    /// What was received, where there is a receiving side.
    pub received: Option<Judgement>,
    /// The flows that lost most, ten at most.
    pub lost_flows: Vec<LostFlow>,
}

impl Report {
    pub(crate) fn new(frames: &Frames, asked_pps: Option<f64>, sent: &[Sent], received: Option<&Received>) -> Self {
        let packets = sent.iter().map(|thread| thread.packets).sum();
        let bytes = sent.iter().map(|thread| thread.bytes).sum();
        let elapsed_ns = sent.iter().map(|thread| thread.elapsed_ns).max().unwrap_or(0);
        let unconfirmed: usize = sent.iter().map(|thread| thread.unconfirmed).sum();
        debug_assert_eq!(
            packets,
            (0..frames.traffic().flows).flat_map(|f| sent.iter().filter_map(move |s| s.of_flow(f))).sum::<u64>()
        );
        Self {
            from: Endpoint::default(),
            to: None,
            asked_pps,
            sent: Volume::new(packets, bytes, elapsed_ns),
            unconfirmed: u64::try_from(unconfirmed).unwrap_or(u64::MAX),
            received: received.map(|received| Judgement::new(packets, received)),
            lost_flows: Vec::new(),
        }
    }

    /// The value of a figure by the name that thresholds use; `None` where this run has not measured it.
    pub fn figure(&self, figure: Figure) -> Option<f64> {
        let received = self.received.as_ref();
        let count = |value: fn(&Judgement) -> u64| received.map(|received| value(received) as f64);
        let latency = |value: fn(&Latency) -> u64| received?.latency_ns.as_ref().map(|latency| value(latency) as f64);
        match figure {
            Figure::Rate => Some(self.sent.rate_pps),
            Figure::Loss => count(|received| received.lost),
            Figure::LossRatio => received.map(|received| received.loss_ratio),
            Figure::Duplicate => count(|received| received.counts.duplicate),
            Figure::Reordered => count(|received| received.counts.reordered),
            Figure::Late => count(|received| received.counts.late),
            Figure::Corrupt => count(|received| received.counts.corrupt),
            Figure::P50 => latency(|latency| latency.p50),
            Figure::P99 => latency(|latency| latency.p99),
            Figure::P999 => latency(|latency| latency.p999),
            Figure::Max => latency(|latency| latency.max),
        }
    }
}

impl Judgement {
    fn new(sent: u64, received: &Received) -> Self {
        let counts = received.checker.counts();
        // Late packets may be first arrivals: they are not called lost.
        let lost = sent.saturating_sub(received.checker.unique() + counts.late);
        Self {
            volume: Volume::new(counts.intact, received.bytes, received.elapsed_ns),
            lost,
            loss_ratio: if sent > 0 { lost as f64 / sent as f64 } else { 0.0 },
            counts,
            latency_ns: received.latency.as_ref().map(|histogram| Latency {
                min: histogram.min(),
                p50: histogram.value_at_quantile(0.5),
                p90: histogram.value_at_quantile(0.9),
                p99: histogram.value_at_quantile(0.99),
                p999: histogram.value_at_quantile(0.999),
                max: histogram.max(),
            }),
            kernel: received.kernel,
        }
    }
}

/// What a threshold can be set on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Packets a second sent.
    Rate,
    /// Packets lost.
    Loss,
    /// Share of packets lost.
    LossRatio,
    /// Duplicates.
    Duplicate,
    /// Reordered packets.
    Reordered,
    /// Late packets.
    Late,
    /// Corrupt packets.
    Corrupt,
    /// Median latency, ns.
    P50,
    /// 99 % latency, ns.
    P99,
    /// 99.9 % latency, ns.
    P999,
    /// Longest latency, ns.
    Max,
}

impl Figure {
    /// Every figure with its name.
    pub const ALL: [(&'static str, Self); 11] = [
        ("rate", Self::Rate),
        ("loss", Self::Loss),
        ("loss_ratio", Self::LossRatio),
        ("duplicate", Self::Duplicate),
        ("reordered", Self::Reordered),
        ("late", Self::Late),
        ("corrupt", Self::Corrupt),
        ("p50", Self::P50),
        ("p99", Self::P99),
        ("p999", Self::P999),
        ("max", Self::Max),
    ];
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sent      {} on {}", volume(&self.sent), endpoint(&self.from))?;
        if let Some(asked) = self.asked_pps {
            writeln!(f, "          {asked:.0} pps asked for")?;
        }
        if self.unconfirmed > 0 {
            writeln!(f, "          {} of them not confirmed by the kernel", self.unconfirmed)?;
        }
        let Some(received) = &self.received else { return Ok(()) };
        let to = self.to.as_ref().map(endpoint).unwrap_or_default();
        writeln!(f, "received  {} on {to}", volume(&received.volume))?;
        writeln!(f, "lost      {} ({:.6} %)", received.lost, received.loss_ratio * 100.0)?;
        let counts = &received.counts;
        writeln!(
            f,
            "faults    {} duplicate, {} reordered, {} late, {} corrupt, {} foreign",
            counts.duplicate, counts.reordered, counts.late, counts.corrupt, counts.foreign
        )?;
        if let Some(latency) = &received.latency_ns {
            writeln!(
                f,
                "latency   min {} p50 {} p90 {} p99 {} p99.9 {} max {} ns",
                latency.min, latency.p50, latency.p90, latency.p99, latency.p999, latency.max
            )?;
        }
        if received.kernel != KernelCounts::default() {
            writeln!(
                f,
                "kernel    {} dropped, {} RX ring full, {} fill ring empty (the receiver's own loss)",
                received.kernel.rx_dropped, received.kernel.rx_ring_full, received.kernel.fill_ring_empty
            )?;
        }
        for flow in &self.lost_flows {
            writeln!(
                f,
                "flow {:>8} from {} port {}: {} of {} lost",
                flow.flow, flow.source, flow.port, flow.lost, flow.sent
            )?;
        }
        Ok(())
    }
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
