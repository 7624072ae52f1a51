//! The packet cases below `tests/packet`, each with the smallest and the full feature set, through the program and the oracle.
//!
//! `PACKET_CASE=decap/` runs the files whose path contains it; `UPDATE_EXPECTED=1` writes what happens into `out`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod root {
    use std::path::Path;

    use testkit::case::{Topology, Totals, files, run};
    use testkit::netns::Netns;
    use testkit::program::prepare;

    #[test]
    fn packet_cases() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packet");
        let update = std::env::var_os("UPDATE_EXPECTED").is_some();
        let wanted = std::env::var("PACKET_CASE").unwrap_or_default();
        let netns = Netns::new("packet").unwrap();
        prepare(&netns).unwrap();
        let topology = Topology::read(&dir).unwrap();
        let work = move || {
            let mut totals = Totals::default();
            let mut failed = Vec::new();
            for path in files(&dir).unwrap() {
                let name = path.strip_prefix(&dir).unwrap().display().to_string();
                if !name.contains(&wanted) {
                    continue;
                }
                match run(&path, &topology, &mut totals, update) {
                    Ok(true) => println!("{name}: rewritten"),
                    Ok(false) => {}
                    Err(error) => failed.push(format!("{name}: {error:#}")),
                }
            }
            (totals, failed)
        };
        let (totals, failed) = netns.thread(work).join().unwrap().unwrap();
        println!("{} cases, {} steps, each with two feature sets", totals.cases, totals.steps);
        assert!(failed.is_empty(), "{} cases failed\n{}", failed.len(), failed.join("\n"));
        assert!(totals.cases > 0, "no case matches");
    }
}
