//! From resources to table contents, without I/O.
//!
//! ```text
//! YAML documents -> resources -> Desired ┐
//! netlink, checks ->             Network ├ compile() -> Tables, Features, Parameters
//! BGP            ->              Rib     ┘
//!                                        └ oracle() -> verdict and bytes for a packet, asked by tests only
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod compile;
pub mod denylist;
pub mod desired;
mod document;
pub mod file;
pub mod health;
pub mod ids;
pub mod load;
pub mod marks;
pub mod network;
pub mod oracle;
pub mod policy;
pub mod quic;
pub mod resources;
pub mod rib;
pub mod schema;
pub mod selector;
pub mod tables;
pub mod verdict;

pub use compile::{Compiled, compile};
pub use document::Mark;
pub use ids::Ids;
