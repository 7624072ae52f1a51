//! `docs/schema` is what the types say. Rewritten with `UPDATE_EXPECTED=1 cargo test -p margay-model --test schema`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

#[test]
fn committed_schemas_are_current() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema");
    let generated: BTreeMap<String, String> = margay_model::schema::schemas()
        .into_iter()
        .map(|(kind, schema)| (format!("{kind}.json"), serde_json::to_string_pretty(&schema).unwrap() + "\n"))
        .collect();
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::create_dir_all(&directory).unwrap();
        for (name, text) in &generated {
            fs::write(directory.join(name), text).unwrap();
        }
    }
    let committed: BTreeMap<String, String> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap())
        })
        .collect();
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&committed), names(&generated));
    for (name, text) in &generated {
        assert!(committed[name] == *text, "docs/schema/{name} is not current: run this test with UPDATE_EXPECTED=1");
    }
}
