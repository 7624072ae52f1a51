//! Every directory under `examples/` that holds resources is valid for its own node, without a warning. The scenarios in
//! `examples/pktgen` have a test of their own, in pktgen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

/// The directories that hold YAML documents, at any depth.
fn configurations(dir: &Path, found: &mut Vec<PathBuf>) {
    let entries: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    if entries.iter().any(|path| path.extension().is_some_and(|extension| extension == "yaml")) {
        found.push(dir.to_owned());
    }
    entries
        .iter()
        .filter(|path| path.is_dir() && !path.ends_with("pktgen"))
        .for_each(|path| configurations(path, found));
}

#[test]
fn every_example_is_valid() {
    let mut found = Vec::new();
    configurations(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"), &mut found);
    assert!(found.len() >= 5, "{found:?}");
    for dir in found {
        let node = dir.file_name().unwrap().to_str().unwrap();
        let loaded = margay::config::load_dir(&dir, Some(node)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.warnings, [], "{}", dir.display());
        assert_eq!(loaded.desired.node.name, node);
        assert!(!loaded.desired.node.interfaces.is_empty(), "{}", dir.display());
    }
}
