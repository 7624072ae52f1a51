//! The documents as they are written: one serde type a kind.
//!
//! The types say what can be written. Ranges, references and everything between documents is judged by
//! [`load`](crate::load), which lowers them to [`Desired`](crate::desired::Desired).

pub mod calico;
pub mod common;
pub mod health;
pub mod kubernetes;
pub mod margay;
pub mod policy;
