//! The BGP speaker against real peers: BIRD, GoBGP, and one that sends nonsense. Each test has its own network namespaces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bird;
mod gobgp;
mod harness;

mod root {
    mod bird_peer;
    mod gobgp_peer;
    mod malformed;
    mod two_speakers;
}
