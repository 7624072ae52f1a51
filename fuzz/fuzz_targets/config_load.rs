//! Any text is a configuration or a list of errors that is not empty, each with a place inside the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::load::load;

fuzz_target!(|text: &str| {
    let files = [("fuzz.yaml".to_owned(), text.to_owned())];
    if let Err(diagnostics) = load(&files, None) {
        assert!(!diagnostics.is_empty());
        let lines = u32::try_from(text.split(['\n', '\r']).count()).expect("short input");
        for diagnostic in diagnostics {
            assert!(diagnostic.at.line <= lines + 1, "{diagnostic}");
            assert!(!diagnostic.message.is_empty());
        }
    }
});
