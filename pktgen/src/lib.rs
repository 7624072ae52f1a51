//! An AF_XDP packet generator with a receiver that checks every packet.
//!
//! ```text
//! Traffic -> Frames (templates) -> send threads -> TX rings -> interface ~~> the network under test
//!                                                                                     |
//! Report <- Judgement <- Checker, histogram <- receive thread <- RX rings <- XSKMAP <-'
//! ```
//!
//! Each packet names its run, flow, sequence number and send time ([`stamp`]); what arrives is judged against what
//! was sent, flow by flow ([`check`]). `unsafe` is in [`umem`] (shared memory) and [`interface`] (ioctl).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod check;
pub mod clock;
pub mod interface;
pub mod pace;
pub mod receive;
pub mod redirect;
pub mod replay;
pub mod report;
pub mod run;
pub mod send;
pub mod source;
pub mod stamp;
pub mod template;
pub mod threshold;
pub mod umem;
pub mod units;
