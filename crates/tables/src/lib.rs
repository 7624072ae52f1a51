//! The algorithms behind the tables, pure and deterministic.
//!
//! Two gateways with the same configuration build the same rings and hash a flow to the same slot, whatever the order
//! in which they learned it: nothing here depends on addresses in memory, on a random seed or on the process.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod buckets;
pub mod classifier;
pub mod dleft;
pub mod fib;
pub mod flows;
pub mod hash;
pub mod maglev;
pub mod quic;
pub mod vips;
