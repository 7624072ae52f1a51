//! What a run counts while connections come and go.

use hdrhistogram::{CreationError, Histogram};

/// Longest latency that a histogram holds: ten minutes.
const LATENCY_MAX_NS: u64 = 600_000_000_000;

/// The part of a connection's life in which something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Handshake.
    Connect,
    /// Request and response, and holding.
    Data,
    /// Close.
    Close,
}

/// One count for each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ByPhase {
    /// During the handshake.
    pub connect: u64,
    /// During request and response, or while held open.
    pub data: u64,
    /// During the close.
    pub close: u64,
}

impl ByPhase {
    /// Adds one.
    pub fn count(&mut self, phase: Phase) {
        match phase {
            Phase::Connect => self.connect += 1,
            Phase::Data => self.data += 1,
            Phase::Close => self.close += 1,
        }
    }

    /// All phases.
    pub fn total(&self) -> u64 {
        self.connect + self.data + self.close
    }
}

/// How a connection ended. Each ends once, so `attempted` is the sum of these and of those still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every request was answered as wanted, and the connection was closed on both sides (or by `--abort`).
    Completed,
    /// The other side closed before its answer was complete.
    CutShort,
    /// The other side reset it.
    Reset(Phase),
    /// Nothing came for too long.
    TimedOut(Phase),
    /// A router or host reported that packets cannot be delivered.
    Unreachable,
}

/// Counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Connections begun.
    pub attempted: u64,
    /// Handshakes done; UDP: sockets that got an answer.
    pub established: u64,
    /// Connections that went as wanted to their end.
    pub completed: u64,
    /// Connections that the other side closed before its answer was complete.
    pub cut_short: u64,
    /// Connections that the other side reset.
    pub resets: ByPhase,
    /// Connections given up.
    pub timeouts: ByPhase,
    /// Connections ended by an ICMP or ICMPv6 destination unreachable.
    pub unreachable: u64,
    /// Requests answered.
    pub requests: u64,
    /// Segments sent again.
    pub retransmissions: u64,
    /// Bytes of payload sent, retransmissions not counted.
    pub bytes_sent: u64,
    /// Bytes of payload received in order.
    pub bytes_received: u64,
    /// Frames sent.
    pub packets_sent: u64,
    /// Frames received.
    pub packets_received: u64,
    /// Segments behind a gap: thrown away and asked for again.
    pub out_of_order: u64,
    /// Packets to a client address that belong to no connection or make no sense in its state.
    pub unexpected: u64,
    /// Packets with a wrong TCP or UDP checksum.
    pub bad_checksum: u64,
    /// Starts put off because every client address and port was in use.
    pub exhausted: u64,
}

/// Counters and latencies.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Counters.
    pub counts: Counts,
    /// From the first SYN to the SYN, ACK (with its retransmissions).
    pub connect: Histogram<u64>,
    /// From a request to the first byte of its answer.
    pub first_byte: Histogram<u64>,
    /// From the first packet to the end of completed connections.
    pub complete: Histogram<u64>,
}

impl Stats {
    /// Nothing counted.
    ///
    /// # Errors
    /// None with the bounds that are set here.
    pub fn new() -> Result<Self, CreationError> {
        // Three significant digits.
        let histogram = || Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3);
        Ok(Self { counts: Counts::default(), connect: histogram()?, first_byte: histogram()?, complete: histogram()? })
    }

    /// Counts the end of a connection that began `age_ns` ago.
    pub fn ended(&mut self, end: End, age_ns: u64) {
        match end {
            End::Completed => {
                self.counts.completed += 1;
                self.complete.saturating_record(age_ns);
            }
            End::CutShort => self.counts.cut_short += 1,
            End::Reset(phase) => self.counts.resets.count(phase),
            End::TimedOut(phase) => self.counts.timeouts.count(phase),
            End::Unreachable => self.counts.unreachable += 1,
        }
    }
}
