//! An AF_XDP packet generator with a receiver that checks every packet.
//!
//! ```text
//! Traffic -> Frames (templates) -> send threads -> TX rings -> interface ~~> the network under test
//!                                                                                     |
//! Report <- Checkers, Latencies <- Judge <- receive threads <- RX rings <- XDP program: counts <-'
//! ```
//!
//! Each packet names its run, flow, sequence number and send time ([`stamp`]); what arrives is judged against what
//! was sent, flow by flow ([`receive`]). `unsafe` is in [`umem`] (shared memory) and [`interface`] (ioctl).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

#[macro_use]
mod skeleton;

pub mod backend;
pub mod clock;
pub mod connect;
pub mod hdr;
pub mod interface;
pub mod pace;
mod packets;
pub mod progress;
pub mod receive;
pub mod remote;
pub mod replay;
pub mod report;
pub mod run;
pub mod scenario;
pub mod send;
pub mod source;
pub mod stamp;
pub mod threshold;
pub mod traffic;
pub mod transmit;
pub mod umem;
pub mod units;
