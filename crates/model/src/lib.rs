//! From resources to table contents, without I/O.
//!
//! ```text
//! YAML documents -> resources -> Desired ┐
//! netlink        ->              Network ├ compile() -> Tables, Features, Parameters
//! BGP            ->              Rib     ┘
//!                                        └ oracle() -> verdict and bytes for a packet, asked by tests only
//! ```

pub mod desired;
pub mod network;
pub mod rib;
pub mod tables;
