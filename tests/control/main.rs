//! The agent as a whole, in namespaces: the command line against a running `margay run`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod harness;
mod offline;

mod root {
    mod configuration;
    mod forwarding;
    mod restart;
}
