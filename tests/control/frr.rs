//! A real FRR in a namespace: zebra, and bgpd that learns what zebra installs.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use testkit::netns::{Netns, Process};

/// Where the package puts its daemons.
const DAEMONS: &str = "/usr/lib/frr";

/// A running FRR; ends when dropped.
pub(crate) struct Frr {
    _processes: [Process; 2],
    _directory: TempDir,
}

impl Frr {
    /// Starts it with bgpd's configuration.
    pub(crate) fn start(netns: &Netns, bgp: &str) -> Self {
        let directory = TempDir::new().unwrap();
        // The daemons run as the user of their package.
        let owned = Command::new("chown").arg("frr:frr").arg(directory.path()).status().unwrap();
        assert!(owned.success(), "the package frr makes its user; scripts/setup installs it");
        let processes = [("zebra", "", "zserv.api"), ("bgpd", bgp, "bgpd.vty")].map(|(name, config, ready)| {
            let process = daemon(netns, directory.path(), name, config);
            let end = Instant::now() + Duration::from_secs(10);
            while !directory.path().join(ready).exists() {
                assert!(Instant::now() < end, "{name} does not start");
                std::thread::sleep(Duration::from_millis(20));
            }
            process
        });
        Self { _processes: processes, _directory: directory }
    }
}

fn daemon(netns: &Netns, directory: &Path, name: &str, config: &str) -> Process {
    let path = |file: String| directory.join(file).display().to_string();
    let [conf, pid, log] = ["conf", "pid", "log"].map(|kind| path(format!("{name}.{kind}")));
    std::fs::write(&conf, config).unwrap();
    let (sockets, zebra, log) = (directory.display().to_string(), path("zserv.api".to_owned()), format!("file:{log}"));
    let arguments =
        ["-f", &conf, "-i", &pid, "--vty_socket", &sockets, "-z", &zebra, "--log", &log, "-P", "0", "-A", "127.0.0.1"];
    netns.spawn(&format!("{DAEMONS}/{name}"), &arguments).unwrap()
}
