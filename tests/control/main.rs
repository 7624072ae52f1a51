//! The agent as a whole, in namespaces: the command line against a running `margay run`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../bgp/bird.rs"]
#[allow(dead_code, reason = "the BGP tests use more of it")]
mod bird;
mod frr;
mod harness;
mod offline;

mod root {
    mod configuration;
    mod drain;
    mod forwarding;
    mod health;
    mod health_tunnel;
    mod kernel_routes;
    mod mss;
    mod restart;
    mod routing;
    mod vrfs;
}
