//! Why packets cannot be made as they are described.

use packet::build::BuildError;

use super::{FRAME_MAX, FRAME_MIN};
use crate::stamp::FLOWS_MAX;

/// A stream that cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stream '{name}': {fault}")]
pub struct TrafficError {
    /// Index of the stream.
    pub stream: usize,
    /// Its name.
    pub name: String,
    /// What of it is wrong.
    pub place: Place,
    /// How.
    pub fault: Box<Fault>,
}

/// A part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Its layers.
    Frame,
    /// Its sizes.
    Size,
    /// Its number of flows.
    Flows,
    /// The order of its flows.
    Order,
    /// The largest IP packet.
    Fragment,
    /// Its weight.
    Weight,
    /// The field of an element of what varies.
    Vary(usize, &'static str),
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The builder refused.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// No Ethernet header in front.
    #[error("a frame starts with an eth layer")]
    NoEthernet,
    /// No place for the stamp.
    #[error("a stamp is the end of an IP packet, and this frame has none (add an IP layer, or say stamp: false)")]
    NoIp,
    /// The length field of the outermost IP header is not the packet's.
    #[error(
        "the stamp is found by the length of the outermost IP header, which is forced (leave out len=, or say stamp: false)"
    )]
    Length,
    /// A checksum covers some of the stamp only.
    #[error("{layer}: its checksum ends within {what} (change len=, force csum=, or say stamp: false)")]
    Partial {
        /// The layer.
        layer: &'static str,
        /// What it covers in part.
        what: String,
    },
    /// No room for headers and stamp, or more than a frame takes.
    #[error("size {size}: these frames have {min} to {FRAME_MAX} bytes, without FCS")]
    Size {
        /// What was asked for.
        size: usize,
        /// The smallest possible.
        min: usize,
    },
    /// A size that these packets cannot have.
    #[error("size {size}: SCTP packets are multiples of 4 bytes (RFC 9260 §3.2); the nearest size is {near}")]
    Unaligned {
        /// What was asked for.
        size: usize,
        /// One that can be.
        near: usize,
    },
    /// No size, or too many.
    #[error("give at least one size of {FRAME_MIN} to {FRAME_MAX} bytes, with weights that add up to at most {max}")]
    Mix {
        /// The longest round.
        max: usize,
    },
    /// Nothing to send, or more than a stamp can name.
    #[error("{flows} flows in all: give 1 to {FLOWS_MAX}")]
    Flows {
        /// What was asked for.
        flows: u64,
    },
    /// More threads than flows.
    #[error("{flows} flows for {threads} sending threads: each thread needs one of its own")]
    Threads {
        /// Flows of the stream.
        flows: u32,
        /// Threads.
        threads: u32,
    },
    /// Zipf's exponent.
    #[error("zipf {0}: write an exponent above 0, as in zipf 1.1")]
    Exponent(String),
    /// No streams, or weights that make no round.
    #[error("weights must have one above 0 and add up to at most {max}, after division by what they have in common")]
    Weights {
        /// The longest round.
        max: usize,
    },
    /// Not a path.
    #[error(
        "'{0}' is no field (write layer.field, or layer.index.field counting from the outermost: ip4.src, ip4.0.dst)"
    )]
    Path(String),
    /// The frame has no such layer.
    #[error("the frame has no layer '{layer}'{} (it has {})", at(*index), have.join(", "))]
    NoLayer {
        /// The layer.
        layer: String,
        /// Which of them, where said.
        index: Option<usize>,
        /// What there is.
        have: Vec<&'static str>,
    },
    /// The layer has no such field.
    #[error("'{layer}' has no field '{field}' that can vary (it has {})", have.join(", "))]
    NoField {
        /// The layer.
        layer: &'static str,
        /// The field.
        field: String,
        /// What there is.
        have: Vec<&'static str>,
    },
    /// Two fields that vary share bits.
    #[error("it shares bits with another field that varies")]
    Twice,
    /// No values, or more than the field has.
    #[error("{count} values: this field has {bits} bits, give 1 to {max}")]
    Values {
        /// What was asked for.
        count: u32,
        /// Bits of the field.
        bits: usize,
        /// The most.
        max: u64,
    },
    /// A packet that is not fragmented.
    #[error("these packets cannot be sent as fragments: {0}")]
    NoFragments(&'static str),
    /// No room in a fragment.
    #[error("fragment {mtu}: these fragments have at least {min} bytes")]
    Mtu {
        /// What was asked for.
        mtu: usize,
        /// The least possible.
        min: usize,
    },
    /// More fields or checksums than a frame may have.
    #[error("more than {max} {what} in one frame")]
    Many {
        /// What.
        what: &'static str,
        /// The most.
        max: usize,
    },
}

fn at(index: Option<usize>) -> String {
    index.map_or_else(String::new, |index| format!(" number {index}"))
}
