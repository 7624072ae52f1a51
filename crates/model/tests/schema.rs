//! `docs/schema` is what the types say. Rewritten with `UPDATE_EXPECTED=1 cargo test -p margay-model --test schema`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
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
        // Kinds begin with a capital; the other formats that are published there have tests of their own.
        .filter(|(name, _)| name.starts_with(char::is_uppercase))
        .collect();
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&committed), names(&generated));
    for (name, text) in &generated {
        assert!(committed[name] == *text, "docs/schema/{name} is not current: run this test with UPDATE_EXPECTED=1");
    }
}

/// Collects the names of properties in a schema, at any depth.
fn properties(schema: &serde_json::Value, names: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(object) => {
            for (key, value) in object {
                if let ("properties", serde_json::Value::Object(fields)) = (key.as_str(), value) {
                    names.extend(fields.keys().cloned());
                }
                properties(value, names);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| properties(item, names)),
        _ => {}
    }
}

#[test]
fn every_field_is_in_the_documentation() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let pages = ["configuration.md", "policy.md"];
    let text: String = pages.iter().map(|page| fs::read_to_string(docs.join(page)).unwrap()).collect();
    let mut code = String::new();
    for (i, part) in text.replace("```", "").split('`').enumerate() {
        if i % 2 == 1 {
            code += part;
            code.push(' ');
        }
    }
    let words: BTreeSet<&str> = code.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let mut names = BTreeSet::new();
    for schema in margay_model::schema::schemas().values() {
        properties(schema.as_value(), &mut names);
    }
    assert!(names.len() > 100, "{names:?}");
    let absent: Vec<&String> = names.iter().filter(|name| !words.contains(name.as_str())).collect();
    assert!(absent.is_empty(), "neither in docs/configuration.md nor in docs/policy.md: {absent:?}");
}
