//! From the description of packets to their bytes.
//!
//! ```text
//! Stream -> template of each size (bytes, places that change, sums of what does not)
//!        -> fields (value of each for a flow and packet)        -> Plan::write(flow, seq, time) -> a frame
//!        -> turns (sizes in a flow, streams in the run)          -> PlanSource: which flow and number is next
//! ```
//! A packet is a pure function of flow, sequence number and time of sending: sending keeps no packets, and the receiver
//! computes what should have arrived. A frame costs a copy, a few stores and additions; nothing is allocated.

mod arithmetic;
mod error;
mod field;
mod fragment;
mod plan;
mod source;
mod template;

pub use error::{Fault, Place, TrafficError};
pub use plan::{Plan, StreamInfo};
pub use source::{PlanSource, Share, Volume};

/// Longest frame in bytes, without FCS: an IP packet of 9000 bytes behind two VLAN tags.
pub const FRAME_MAX: usize = 9022;
/// Shortest frame in bytes, without FCS (IEEE 802.3 §4.2.3.3).
pub const FRAME_MIN: usize = 60;

#[cfg(test)]
mod tests;
