//! Any text is a selector or an error within the text, and a selector's canonical text means the same.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use model::selector::Selector;

fuzz_target!(|text: &str| {
    match Selector::parse(text) {
        Ok(selector) => {
            let canonical = selector.to_string();
            let again = Selector::parse(&canonical).expect("canonical text is a selector");
            assert_eq!(again.to_string(), canonical);
            let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
            assert_eq!(again.matches(&labels), selector.matches(&labels));
        }
        Err(error) => assert!((1..=text.chars().count() + 1).contains(&error.position)),
    }
});
