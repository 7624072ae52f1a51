//! The slow path on real sockets, in network namespaces of its own. `mod root` needs root.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::RwLock;

/// Descriptors are counted for the whole process: the test that counts them holds this for itself, all others share it.
static FILES: RwLock<()> = RwLock::new(());

mod root {
    mod forwarding;
    mod gateway;
    mod pmtu;
    mod sockets;
}
