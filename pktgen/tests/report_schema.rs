//! `docs/schema` is what the types say. Rewritten with `UPDATE_EXPECTED=1 cargo test -p pktgen --test report_schema`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

#[test]
fn committed_schemas_are_current() {
    let report = schemars::schema_for!(pktgen::report::Report);
    let progress = schemars::schema_for!(pktgen::progress::Line);
    for (name, schema) in [("pktgen-report.json", report), ("pktgen-progress.json", progress)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema").join(name);
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == text, "docs/schema/{name} is not current: run this test with UPDATE_EXPECTED=1");
    }
}
