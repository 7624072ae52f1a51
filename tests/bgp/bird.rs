//! A real BIRD in a namespace.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use testkit::netns::{Netns, Process};

/// A running BIRD; ends when dropped.
pub(crate) struct Bird {
    _process: Process,
    directory: TempDir,
}

/// Static routes 198.18.0.0/32 and 2001:db8:100::/128 counted up, in two halves that can be withdrawn apart.
pub(crate) fn statics(count: u32) -> String {
    let mut text = String::new();
    for (half, range) in [("a", 0..count / 2), ("b", count / 2..count)] {
        for (family, name) in [("ipv4", "four"), ("ipv6", "six")] {
            writeln!(text, "protocol static {name}_{half} {{ {family};").unwrap();
            for n in range.clone() {
                match family {
                    "ipv4" => writeln!(text, "route 198.18.{}.{}/32 blackhole;", n >> 8, n & 255),
                    _ => writeln!(text, "route 2001:db8:100::{n:x}/128 blackhole;"),
                }
                .unwrap();
            }
            text.push_str("}\n");
        }
    }
    text
}

/// A `protocol bgp` with both families; `options` go in as they are.
pub(crate) fn session(name: &str, local: &str, asn: u32, neighbor: &str, families: &[&str], options: &str) -> String {
    let mut text = format!(
        "protocol bgp {name} {{ local {local} as {asn}; neighbor {neighbor}; hold time 9; connect delay time 1; \
         connect retry time 1; error wait time 1, 2; graceful restart on; {options}\n"
    );
    for family in families {
        writeln!(text, "{family} {{ import all; export where source = RTS_STATIC; }};").unwrap();
    }
    text.push_str("}\n");
    text
}

impl Bird {
    pub(crate) fn start(netns: &Netns, router_id: &str, config: &str) -> Self {
        Self::start_with(netns, router_id, config, &[])
    }

    /// Starts it with more arguments: `-R` tells it that it restarts and that forwarding went on meanwhile.
    pub(crate) fn start_with(netns: &Netns, router_id: &str, config: &str, more: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let config = format!("log \"{}\" all;\nrouter id {router_id};\nprotocol device {{}}\n{config}", path("log"));
        std::fs::write(path("conf"), config).unwrap();
        let (conf, control, pid) = (path("conf"), path("control"), path("pid"));
        let arguments = [&["-f", "-c", &conf, "-s", &control, "-P", &pid], more].concat();
        let process = netns.spawn("bird", &arguments).unwrap();
        let bird = Self { _process: process, directory };
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !bird.socket().exists() {
            assert!(std::time::Instant::now() < end, "BIRD does not start");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        bird
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    /// What `birdc` prints.
    pub(crate) fn ask(&self, command: &str) -> String {
        let output = Command::new("birdc").arg("-s").arg(self.socket()).args(command.split(' ')).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Prefixes that it has from a protocol, with the words of `show route all`.
    pub(crate) fn routes(&self, protocol: &str) -> String {
        self.ask(&format!("show route protocol {protocol} all"))
    }
}
