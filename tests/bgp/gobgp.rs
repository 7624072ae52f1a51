//! A real GoBGP in a namespace.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use testkit::netns::{Netns, Process};

/// A running gobgpd; ends when dropped.
pub(crate) struct GoBgp {
    _process: Process,
    _directory: TempDir,
    netns: String,
    port: u16,
}

impl GoBgp {
    /// Starts gobgpd with one external neighbour, both families, and waits for its API.
    pub(crate) fn start(netns: &Netns, asn: u32, router_id: &str, neighbor: &str, neighbor_asn: u32) -> Self {
        let directory = TempDir::new().unwrap();
        let config = directory.path().join("gobgpd.toml");
        let family =
            |name: &str| format!("[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{name}\"\n");
        let text = format!(
            "[global.config]\nas = {asn}\nrouter-id = \"{router_id}\"\n[[neighbors]]\n[neighbors.config]\n\
             neighbor-address = \"{neighbor}\"\npeer-as = {neighbor_asn}\n[neighbors.timers.config]\n\
             connect-retry = 1\nhold-time = 9\nkeepalive-interval = 3\n{}{}",
            family("ipv4-unicast"),
            family("ipv6-unicast")
        );
        std::fs::write(&config, text).unwrap();
        // The API listens inside the namespace; any port that is free here does.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let api = format!("127.0.0.1:{port}");
        let arguments = ["-f", config.to_str().unwrap(), "--api-hosts", &api, "-l", "warn"];
        let mut command = netns.command("gobgpd");
        command.args(arguments).stdout(Stdio::null());
        let process = Process::start(command).unwrap();
        let gobgp = Self { _process: process, _directory: directory, netns: netns.path().display().to_string(), port };
        let end = Instant::now() + Duration::from_secs(10);
        while !gobgp.ask("global").contains(router_id) {
            assert!(Instant::now() < end, "gobgpd does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        gobgp
    }

    /// What `gobgp` prints.
    pub(crate) fn ask(&self, command: &str) -> String {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.netns))
            .args(["gobgp", "-p", &self.port.to_string()])
            .args(command.split(' '))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
