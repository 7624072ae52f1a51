//! Valid configuration, the examples of docs/configuration.md first: they are read from the document itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use margay_model::load::{Loaded, load};

/// The fenced `yaml` blocks of a Markdown text.
fn yaml_blocks(markdown: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in markdown.lines() {
        match (&mut open, line.trim_end()) {
            (None, "```yaml") => open = Some(String::new()),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some(block), line) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks
}

fn documentation() -> Vec<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let blocks = yaml_blocks(&std::fs::read_to_string(path).unwrap());
    blocks.into_iter().enumerate().map(|(i, text)| (format!("block-{i}.yaml"), text)).collect()
}

fn load_documentation() -> Loaded {
    let rendered = |errors: Vec<margay_model::load::Diagnostic>| -> Loaded {
        panic!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    };
    load(&documentation(), Some("gw1")).unwrap_or_else(rendered)
}

#[test]
fn documentation_is_valid_and_gives_no_warning() {
    let loaded = load_documentation();
    assert_eq!(loaded.warnings, []);
    let desired = loaded.desired;
    assert_eq!(desired.node.name, "gw1");
    assert_eq!(desired.services.len(), 1);
    assert_eq!(desired.policies.len(), 1);
    assert_eq!(desired.bgp.unwrap().peers.len(), 1);
}
