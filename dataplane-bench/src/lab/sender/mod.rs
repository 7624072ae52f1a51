//! What sends: pktgen, in this process, for trials; and the senders that it is held against.

pub(crate) mod pktgen;
pub(crate) mod rival;
mod sendmmsg;

pub(crate) use pktgen::Load;

/// What a sender has done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sent {
    /// Packets.
    pub(crate) packets: u64,
    /// From the first to the last, in seconds.
    pub(crate) seconds: f64,
}
