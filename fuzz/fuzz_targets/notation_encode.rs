//! Any text is read or refused; what it encodes to is printed as text for the same frame.
#![no_main]

use libfuzzer_sys::fuzz_target;
use packet::notation;

fuzz_target!(|text: &str| {
    let Ok(frame) = notation::encode(text) else { return };
    let canonical = notation::decode(&frame);
    assert_eq!(notation::encode(&canonical).expect("canonical text is readable"), frame, "{canonical}");
});
