//! Any text is a file of flows that can be judged, or a list of errors that is not empty, each with a place inside the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::policy::{EndpointToHost, Expectation, Policies};

fuzz_target!(|text: &str| {
    let policies = Policies::default();
    let lines = u32::try_from(text.split(['\n', '\r']).count()).expect("short input");
    match Expectation::read("fuzz.yaml", text, &policies) {
        Ok(flows) => {
            for flow in &flows {
                // Without endpoints nothing is asked.
                assert!(flow.judge(&policies, EndpointToHost::Drop).allowed);
            }
        }
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty());
            assert!(diagnostics.iter().all(|diagnostic| diagnostic.at.line <= lines + 1));
        }
    }
});
