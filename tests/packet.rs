//! The packet cases below `tests/packet`, each with the smallest and the full feature set, through the
//! program and the oracle.
//!
//! `PACKET_CASE=decap/` runs the files whose path contains it; `UPDATE_EXPECTED=1` writes what happens into `out`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod root {
    use std::path::{Path, PathBuf};

    use testkit::case::{Topology, Totals, files, run};
    use testkit::netns::Netns;
    use testkit::program::prepare;

    /// The kernel verifies each case's programs on one core.
    const THREADS: usize = 2;

    /// Runs the files one after the other; what failed comes back in words.
    fn run_all(dir: &Path, paths: &[PathBuf], update: bool) -> (Totals, Vec<String>) {
        let topology = Topology::read(dir).unwrap();
        let mut totals = Totals::default();
        let mut failed = Vec::new();
        for path in paths {
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            match run(path, &topology, &mut totals, update) {
                Ok(true) => println!("{name}: rewritten"),
                Ok(false) => {}
                Err(error) => failed.push(format!("{name}: {error:#}")),
            }
        }
        (totals, failed)
    }

    #[test]
    fn packet_cases() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packet");
        let update = std::env::var_os("UPDATE_EXPECTED").is_some();
        let wanted = std::env::var("PACKET_CASE").unwrap_or_default();
        let netns = Netns::new("packet").unwrap();
        prepare(&netns).unwrap();
        let mut paths = files(&dir).unwrap();
        paths.retain(|path| path.strip_prefix(&dir).unwrap().to_str().unwrap().contains(&wanted));
        assert!(!paths.is_empty(), "no case matches");
        let threads: Vec<_> = paths
            .chunks(paths.len().div_ceil(THREADS))
            .map(|share| {
                let (dir, share) = (dir.clone(), share.to_vec());
                netns.thread(move || run_all(&dir, &share, update))
            })
            .collect();
        let (mut cases, mut steps, mut failed) = (0, 0, Vec::new());
        for thread in threads {
            let (totals, of_thread) = thread.join().unwrap().unwrap();
            cases += totals.cases;
            steps += totals.steps;
            failed.extend(of_thread);
        }
        println!("{cases} cases, {steps} steps, each with two feature sets");
        assert!(failed.is_empty(), "{} cases failed\n{}", failed.len(), failed.join("\n"));
        assert_eq!(cases, paths.len());
    }
}
