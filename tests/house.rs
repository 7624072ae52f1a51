//! The rules of the house that a compiler does not check.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

/// Files that may contain `unsafe`: the UMEM, raw BPF calls, mapped maps and views of ABI structs, a socket option of TCP MD5, and
/// a TUN device with the frames that go on from it.
const UNSAFE: &[&str] = &[
    "src/control/bgp/socket.rs",
    "src/control/health/tunnel/raw.rs",
    "src/dataplane/abi.rs",
    "src/dataplane/link.rs",
    "src/dataplane/mapped.rs",
    "src/slowpath/umem.rs",
    "src/slowpath/xskmap.rs",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `dir` that end in one of `extensions`, with their path from the root of the repository.
fn files(dir: &str, extensions: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut pending = vec![root().join(dir)];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if extensions.iter().any(|extension| path.extension().is_some_and(|e| e == *extension)) {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "no files below {dir}");
    found
}

/// The lines of a file without their comments, numbered from 1.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).map(|(number, line)| {
        let begin = [line.find("//"), line.find("/*")].into_iter().flatten().min();
        let line = if line.trim_start().starts_with('*') { "" } else { line };
        (number, begin.and_then(|begin| line.get(..begin)).unwrap_or(line))
    })
}

/// `word` as a whole identifier in `line`.
fn mentions(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !part(line[..at].chars().next_back()) && !part(line[at + word.len()..].chars().next())
    })
}

/// Every line of `files` that mentions one of `words`, as `file:line: text`.
fn offences(files: &[(String, String)], words: &[&str]) -> Vec<String> {
    let lines = files.iter().flat_map(|(name, text)| code(text).map(move |(number, line)| (name, number, line)));
    lines
        .filter(|(_, _, line)| words.iter().any(|word| mentions(line, word)))
        .map(|(name, number, line)| format!("{name}:{number}: {}", line.trim()))
        .collect()
}

fn none(offences: &[String], rule: &str) {
    assert!(offences.is_empty(), "{rule}\n{}", offences.join("\n"));
}

#[test]
fn control_does_not_know_libbpf() {
    let found = offences(&files("src/control", &["rs"]), &["libbpf_rs", "libbpf_sys", "xsk_rs"]);
    none(&found, "src/control speaks to the kernel's BPF through src/dataplane only");
}

#[test]
fn dataplane_and_slow_path_do_not_know_tokio() {
    let mut all = files("src/dataplane", &["rs"]);
    all.extend(files("src/slowpath", &["rs"]));
    none(
        &offences(&all, &["tokio", "rtnetlink", "axum"]),
        "src/dataplane and src/slowpath wait for nothing but the kernel",
    );
}

#[test]
fn crates_do_no_io() {
    let words = ["tokio", "libbpf_rs", "libbpf_sys", "xsk_rs", "rtnetlink", "socket2"];
    for name in ["bgp", "model", "packet", "tables"] {
        let manifest = fs::read_to_string(root().join(format!("crates/{name}/Cargo.toml"))).unwrap();
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap().replace('-', "_");
        let found: Vec<_> = words.iter().filter(|word| mentions(&dependencies, word)).collect();
        assert!(found.is_empty(), "crates/{name} depends on {found:?}");
        let source = files(&format!("crates/{name}/src"), &["rs"]);
        none(&offences(&source, &words), "crates do no I/O");
    }
}

#[test]
fn drops_have_a_reason() {
    let programs: Vec<_> = files("bpf", &["h", "c"])
        .into_iter()
        .filter(|(name, _)| !name.ends_with("verdict.h") && !name.ends_with("vmlinux.h"))
        .collect();
    none(
        &offences(&programs, &["XDP_DROP", "XDP_ABORTED"]),
        "a drop goes through bpf/lib/verdict.h, which counts its reason",
    );
}

#[test]
fn unsafe_stays_where_it_is_wrapped() {
    let mut all = files("src", &["rs"]);
    for name in ["bgp", "model", "packet", "tables"] {
        all.extend(files(&format!("crates/{name}/src"), &["rs"]));
    }
    let elsewhere: Vec<_> = all.iter().filter(|(name, _)| !UNSAFE.contains(&name.as_str())).cloned().collect();
    let found: Vec<_> = offences(&elsewhere, &["unsafe"]);
    none(&found, "unsafe belongs into the files that wrap it");
    for name in UNSAFE {
        let text = all.iter().find(|(of, _)| of == name).map(|(_, text)| text.as_str());
        let text = text.unwrap_or_else(|| panic!("{name} is gone: take it off the list"));
        assert!(code(text).any(|(_, line)| mentions(line, "unsafe")), "{name} has no unsafe: take it off the list");
    }
}

#[test]
fn the_checks_see_what_they_look_for() {
    let file = |text: &str| vec![("f".to_owned(), text.to_owned())];
    assert_eq!(offences(&file("use tokio::net;\n// tokio\n"), &["tokio"]), ["f:1: use tokio::net;"]);
    assert!(offences(&file("mytokio tokio_x"), &["tokio"]).is_empty());
    assert_eq!(offences(&file("\treturn XDP_DROP;"), &["XDP_DROP"]).len(), 1);
}
