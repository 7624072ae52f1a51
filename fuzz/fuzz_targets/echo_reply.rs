//! Whatever a raw socket reads is no answer, or one that brings a token back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use packet::echo::token_of;

fuzz_target!(|bytes: &[u8]| {
    for ipv6 in [false, true] {
        if let Some(token) = token_of(ipv6, bytes) {
            assert!(bytes.ends_with(&token) && bytes.len() >= 16);
        }
    }
});
