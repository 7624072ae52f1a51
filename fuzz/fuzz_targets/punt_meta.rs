//! Whatever lies in front of a punted frame, decoding it does not panic and keeps within the ABI.
#![no_main]

use libfuzzer_sys::fuzz_target;
use margay::slowpath::Punt;

fuzz_target!(|bytes: [u8; 32]| {
    if let Some(punt) = Punt::decode(&bytes) {
        assert!(usize::from(bytes[0]) < model::verdict::PuntReason::ALL.len());
        assert_eq!(punt.l2_len, usize::from(u16::from_ne_bytes([bytes[2], bytes[3]])));
    }
});
