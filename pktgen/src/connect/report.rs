//! The outcome of a run, as JSON and as text.

use std::fmt;
use std::net::SocketAddr;

use hdrhistogram::Histogram;

use super::engine::Engine;
use super::machine::Machine;
use super::stats::Counts;
use crate::report::Endpoint;
use crate::threshold;
use crate::umem::KernelCounts;

/// A distribution of latencies in nanoseconds.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Latency {
    /// Values.
    pub samples: u64,
    /// Shortest.
    pub min: u64,
    /// Half of them were not longer.
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

impl Latency {
    /// None of an empty histogram.
    fn of(histogram: &Histogram<u64>) -> Option<Self> {
        (!histogram.is_empty()).then(|| Self {
            samples: histogram.len(),
            min: histogram.min(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        })
    }
}

/// The outcome of `pktgen connect`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ConnectReport {
    /// Interface.
    pub from: Endpoint,
    /// Server.
    pub target: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Connections a second that were asked for.
    pub asked_cps: Option<f64>,
    /// From the beginning to the end of the last connection.
    pub seconds: f64,
    /// Connections that went as wanted, a second.
    pub cps: f64,
    /// Connections open at once at most: opening, open and closing, TIME-WAIT not counted.
    pub peak_concurrent: u64,
    /// Connections open when the run was broken off; 0 where it was not.
    pub unfinished: u64,
    /// Connections of the schedule that were never begun because this machine was too slow.
    pub not_started: u64,
    /// What happened.
    #[serde(flatten)]
    pub counts: Counts,
    /// From the first SYN to the SYN, ACK.
    pub connect_ns: Option<Latency>,
    /// From a request to the first byte of its answer.
    pub first_byte_ns: Option<Latency>,
    /// From the first packet to the end of completed connections.
    pub complete_ns: Option<Latency>,
    /// What the kernel counted on the sockets.
    pub kernel: KernelCounts,
}

impl ConnectReport {
    pub(super) fn new<M: Machine>(
        engine: &Engine<M>,
        from: Endpoint,
        target: SocketAddr,
        protocol: &'static str,
        asked_cps: Option<f64>,
        kernel: KernelCounts,
    ) -> Self {
        let stats = engine.stats();
        let seconds = engine.elapsed_ns() as f64 / 1e9;
        Self {
            from,
            target,
            protocol,
            asked_cps,
            seconds,
            cps: if seconds > 0.0 { stats.counts.completed as f64 / seconds } else { 0.0 },
            peak_concurrent: engine.peak(),
            unfinished: engine.open(),
            not_started: engine.missed(),
            counts: stats.counts,
            connect_ns: Latency::of(&stats.connect),
            first_byte_ns: Latency::of(&stats.first_byte),
            complete_ns: Latency::of(&stats.complete),
            kernel,
        }
    }

    /// Connections that did not go as wanted.
    pub fn failed(&self) -> u64 {
        self.counts.attempted - self.counts.completed
    }

    /// The value of a figure; `None` where the run has not measured it.
    pub fn figure(&self, figure: ConnectFigure) -> Option<f64> {
        let counts = &self.counts;
        let latency = |latency: &Option<Latency>, value: fn(&Latency) -> u64| latency.as_ref().map(|l| value(l) as f64);
        match figure {
            ConnectFigure::Cps => Some(self.cps),
            ConnectFigure::Failed => Some(self.failed() as f64),
            ConnectFigure::Completed => Some(counts.completed as f64),
            ConnectFigure::Resets => Some(counts.resets.total() as f64),
            ConnectFigure::Timeouts => Some(counts.timeouts.total() as f64),
            ConnectFigure::Retransmissions => Some(counts.retransmissions as f64),
            ConnectFigure::Unexpected => Some(counts.unexpected as f64),
            ConnectFigure::NotStarted => Some(self.not_started as f64),
            ConnectFigure::ConnectP50 => latency(&self.connect_ns, |latency| latency.p50),
            ConnectFigure::ConnectP99 => latency(&self.connect_ns, |latency| latency.p99),
            ConnectFigure::FirstByteP99 => latency(&self.first_byte_ns, |latency| latency.p99),
            ConnectFigure::CompleteP99 => latency(&self.complete_ns, |latency| latency.p99),
        }
    }
}

/// What a threshold can be set on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFigure {
    /// Completed connections a second.
    Cps,
    /// Connections that did not go as wanted.
    Failed,
    /// Connections that did.
    Completed,
    /// Connections reset, all phases.
    Resets,
    /// Connections given up, all phases.
    Timeouts,
    /// Segments sent again.
    Retransmissions,
    /// Packets that made no sense.
    Unexpected,
    /// Connections never begun.
    NotStarted,
    /// Median time to connect, ns.
    ConnectP50,
    /// 99 % time to connect, ns.
    ConnectP99,
    /// 99 % time to the first byte, ns.
    FirstByteP99,
    /// 99 % time to the end, ns.
    CompleteP99,
}

impl ConnectFigure {
    /// Every figure with its name.
    pub const ALL: [(&'static str, Self); 12] = [
        ("cps", Self::Cps),
        ("failed", Self::Failed),
        ("completed", Self::Completed),
        ("resets", Self::Resets),
        ("timeouts", Self::Timeouts),
        ("retransmissions", Self::Retransmissions),
        ("unexpected", Self::Unexpected),
        ("not_started", Self::NotStarted),
        ("connect_p50", Self::ConnectP50),
        ("connect_p99", Self::ConnectP99),
        ("first_byte_p99", Self::FirstByteP99),
        ("complete_p99", Self::CompleteP99),
    ];
}

impl threshold::Figure for ConnectFigure {
    type Report = ConnectReport;
    const NAMED: &'static [(&'static str, Self)] = &Self::ALL;
    const UNMEASURED: &'static str = "no connection got that far";

    fn value(self, report: &ConnectReport) -> Option<f64> {
        report.figure(self)
    }
}

impl fmt::Display for ConnectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(
            f,
            "attempted  {} {} connections to {} in {:.3} s, {:.0} completed a second",
            counts.attempted, self.protocol, self.target, self.seconds, self.cps
        )?;
        if let Some(asked) = self.asked_cps {
            writeln!(f, "           {asked:.0} a second asked for, {} never begun for want of time", self.not_started)?;
        }
        writeln!(f, "completed  {}, {} requests answered", counts.completed, counts.requests)?;
        writeln!(f, "concurrent {} at most", self.peak_concurrent)?;
        let (resets, timeouts) = (&counts.resets, &counts.timeouts);
        writeln!(
            f,
            "resets     {} (connect {}, data {}, close {})",
            resets.total(),
            resets.connect,
            resets.data,
            resets.close
        )?;
        writeln!(
            f,
            "time-outs  {} (connect {}, data {}, close {})",
            timeouts.total(),
            timeouts.connect,
            timeouts.data,
            timeouts.close
        )?;
        writeln!(
            f,
            "failed     {} in all; {} cut short, {} unreachable, {} unfinished",
            self.failed(),
            counts.cut_short,
            counts.unreachable,
            self.unfinished
        )?;
        writeln!(f, "bytes      {} sent, {} received", counts.bytes_sent, counts.bytes_received)?;
        writeln!(
            f,
            "packets    {} sent, {} received, {} retransmitted, {} out of order, {} unexpected, {} bad checksums",
            counts.packets_sent,
            counts.packets_received,
            counts.retransmissions,
            counts.out_of_order,
            counts.unexpected,
            counts.bad_checksum
        )?;
        if counts.exhausted > 0 {
            writeln!(
                f,
                "           every client address and port was in use {} times: widen --clients",
                counts.exhausted
            )?;
        }
        for (name, latency) in
            [("connect", &self.connect_ns), ("first byte", &self.first_byte_ns), ("complete", &self.complete_ns)]
        {
            if let Some(l) = latency {
                writeln!(
                    f,
                    "{name:<10} min {} p50 {} p90 {} p99 {} p99.9 {} max {} ns",
                    l.min, l.p50, l.p90, l.p99, l.p999, l.max
                )?;
            }
        }
        if self.kernel != KernelCounts::default() {
            writeln!(
                f,
                "kernel     {} dropped, {} RX ring full, {} fill ring empty (this machine's own loss)",
                self.kernel.rx_dropped, self.kernel.rx_ring_full, self.kernel.fill_ring_empty
            )?;
        }
        Ok(())
    }
}
