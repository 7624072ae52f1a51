//! Printing a frame and reading the text gives the frame again, whatever the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use packet::{build, dissect, notation};

fuzz_target!(|bytes: &[u8]| {
    let text = notation::decode(bytes);
    assert_eq!(notation::encode(&text).expect("canonical text is readable"), bytes, "{text}");
    // Without the printer's own fallback too.
    assert_eq!(build::frame(&dissect(bytes)).expect("dissected layers make a frame"), bytes, "{text}");
});
