//! margay: an XDP/AF_XDP forwarding appliance and per-node dataplane.
//!
//! ```text
//! YAML dir ┐                                                ┌ features -> program specialised and swapped in
//! BGP      ├ events -> state owner, generation N -> compile() -> Tables(N) -> reconcile(difference) -> maps
//! netlink  ┘
//! wire -> parse -> decap -> denylist, policy -> VIP -> FIB -> adjacency or encap -> tx / redirect
//!           ├ punt(reason) -> AF_XDP socket -> pinned worker -> wire
//!           ├ host traffic -> pass
//!           └ drop(reason)
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod cli;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod metrics;
pub mod slowpath;
