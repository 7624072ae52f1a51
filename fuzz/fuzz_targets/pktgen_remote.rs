//! Whatever the other end of a two-host run says is a message or refused, and a message is written as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pktgen::remote::wire::{self, FromFar, ToFar};

fuzz_target!(|bytes: &[u8]| {
    let mut near = bytes;
    while let Ok(Some(message)) = wire::read::<ToFar>(&mut near) {
        let mut line = Vec::new();
        if wire::write(&mut line, &message).is_ok() {
            // A frame may have no text of its own, and then comes back as another or not at all; it must not break the stream.
            let _ = wire::read::<ToFar>(&mut &line[..]);
        }
    }
    let mut far = bytes;
    while let Ok(Some(message)) = wire::read::<FromFar>(&mut far) {
        if let FromFar::Histogram { counts, .. } = &message {
            wire::histogram(counts);
        }
        let mut line = Vec::new();
        if wire::write(&mut line, &message).is_ok() {
            assert_eq!(wire::read::<FromFar>(&mut &line[..]).expect("written here"), Some(message));
        }
    }
});
