//! Any text is policy or a list of errors that is not empty, each with a place inside the text; and policy answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::load::load_policy;
use model::policy::{EndpointToHost, Expectation};

fuzz_target!(|text: &str| {
    let files = [("fuzz.yaml".to_owned(), text.to_owned())];
    let lines = u32::try_from(text.split(['\n', '\r']).count()).expect("short input");
    match load_policy(&files) {
        Ok(loaded) => {
            let flow = "- {from: 10.0.0.1, to: 10.0.0.2, port: 80}";
            let flows = Expectation::read("flows", flow, &loaded.policies).expect("a flow between addresses");
            let _ = flows.iter().map(|flow| flow.judge(&loaded.policies, EndpointToHost::Return)).count();
        }
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty());
            for diagnostic in diagnostics {
                assert!(diagnostic.at.line <= lines + 1, "{diagnostic}");
                assert!(!diagnostic.message.is_empty());
            }
        }
    }
});
