//! What tests need around the code: network namespaces and the runners of the packet cases and the oracle.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod case;
pub mod netns;
pub mod oracle;
pub mod program;
