//! Packets as bytes, as values and as one line of text. No I/O, no unsafe code.
//!
//! ```text
//! text --notation::encode--> layers --build::frame--> bytes --view::Frame::parse--> what a forwarder asks
//!      <--notation::decode--        <---dissect------        icmp::*  the answer to send
//! ```
//!
//! A frame that the notation prints is the frame that it reads: [`notation::decode`] never loses a byte.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod build;
pub mod checksum;
mod dissect;
pub mod echo;
pub mod field;
pub mod icmp;
pub mod layer;
pub mod notation;
pub mod proto;
mod read;
pub mod view;

pub use dissect::dissect;
pub use layer::Layer;
