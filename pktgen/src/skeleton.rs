//! What libbpf-cargo has made of a program under `bpf/`: generated code, which the lints do not read.

/// Includes the skeleton of this program as module `skel`.
macro_rules! skeleton {
    ($program:literal) => {
        #[allow(
            missing_docs,
            unsafe_code,
            unreachable_pub,
            dead_code,
            non_camel_case_types,
            non_upper_case_globals,
            clippy::all,
            clippy::expect_used,
            clippy::unwrap_used,
            clippy::panic,
            clippy::undocumented_unsafe_blocks,
            reason = "generated"
        )]
        mod skel {
            include!(concat!(env!("OUT_DIR"), "/", $program, ".skel.rs"));
        }
    };
}
