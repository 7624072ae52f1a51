//! Any bytes are a capture or are refused, and what was read can be rewritten and replayed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pktgen::replay::{Capture, Options, Replay, Snapped};
use pktgen::source::Source as _;

fuzz_target!(|bytes: &[u8]| {
    let Ok(capture) = Capture::parse(bytes, Snapped::Pad) else { return };
    assert!(!capture.is_empty());
    assert!(capture.iter().is_sorted_by_key(|record| record.offset_ns));
    let options = Options {
        loops: Some(2),
        rewrite: "vlan=7,ip=10.0.0.0/8,ip.src=fd00::/16".parse().expect("rules"),
        per_loop: "ip=1,port=1".parse().expect("steps"),
    };
    let replay = Replay::new(&capture, options);
    let mut out = vec![0; replay.longest()];
    let mut source = replay.source(0, 1);
    let mut count = 0;
    while source.due_ns().is_some() {
        assert!(source.next(0, &mut out).is_some_and(|written| written.len <= out.len()));
        count += 1;
    }
    assert_eq!(Some(count), replay.packets());
});
