//! A gateway in a namespace of its own between a client and a server, and the agent that runs on it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use testkit::netns::{End, Netns, Process, veth};

/// Longest that anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// client (10.1.0.2, fd01::2) -- left0 gateway right0 -- server (10.2.0.2, fd02::2); the gateway's kernel does not forward.
pub(crate) struct Lab {
    pub(crate) gateway: Netns,
    pub(crate) client: Arc<Netns>,
    pub(crate) server: Arc<Netns>,
    pub(crate) directory: TempDir,
    pub(crate) pin_dir: PathBuf,
    agent: Option<Process>,
}

impl Lab {
    /// A lab whose configuration directory holds `documents` as `lab.yaml`.
    pub(crate) fn new(name: &str, documents: &str) -> Self {
        let [gateway, client, server] = [(); 3].map(|()| Netns::new("control").unwrap());
        let nets = |addresses: &[&str]| addresses.iter().map(|a| a.parse().unwrap()).collect::<Vec<_>>();
        for (near, far, n) in [("left0", &client, 1), ("right0", &server, 2)] {
            let (ours, theirs) = (
                nets(&[&format!("10.{n}.0.1/24"), &format!("fd0{n}::1/64")]),
                nets(&[&format!("10.{n}.0.2/24"), &format!("fd0{n}::2/64")]),
            );
            veth(
                End { netns: &gateway, name: near, addresses: &ours },
                End { netns: far, name: "eth0", addresses: &theirs },
            )
            .unwrap();
            far.ip(&["route", "add", "default", "via", &format!("10.{n}.0.1")]).unwrap();
            far.ip(&["-6", "route", "add", "default", "via", &format!("fd0{n}::1")]).unwrap();
            // A frame that is redirected into a veth is received by NAPI, which its peer only has with GRO.
            far.run("ethtool", &["-K", "eth0", "gro", "on", "tx", "off"]).unwrap();
        }
        Self::between(name, documents, gateway, Arc::new(client), Arc::new(server))
    }

    /// A lab in namespaces that are connected already.
    pub(crate) fn between(name: &str, documents: &str, gateway: Netns, client: Arc<Netns>, server: Arc<Netns>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("config")).unwrap();
        let pin_dir = PathBuf::from(format!("/sys/fs/bpf/margay-control-{name}-{}", std::process::id()));
        let lab = Self { gateway, client, server, directory, pin_dir, agent: None };
        lab.write("lab.yaml", documents);
        lab
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("config")
    }

    /// Writes a file of the configuration the way that editors do.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let unready = self.directory.path().join(name);
        std::fs::write(&unready, text).unwrap();
        std::fs::rename(unready, self.config().join(name)).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.config().join(name)).unwrap();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("margay.sock")
    }

    /// `margay run` on this lab.
    pub(crate) fn command(&self) -> std::process::Command {
        self.command_with(&self.socket(), "127.0.0.1:9100")
    }

    /// The same with another socket and another address of the metrics. Its own words go to `agent.log`.
    pub(crate) fn command_with(&self, socket: &Path, metrics: &str) -> std::process::Command {
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = self.gateway.command(env!("CARGO_BIN_EXE_margay"));
        command.arg("run").arg("--config").arg(self.config()).arg("--pin-dir").arg(&self.pin_dir);
        command.arg("--state-dir").arg(self.directory.path().join("state"));
        command.arg("--socket").arg(socket).args(["--metrics", metrics]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.directory.path().join("agent.log")
    }

    pub(crate) fn words(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Starts the agent and waits until its first generation is in force.
    pub(crate) fn start(&mut self) {
        self.agent = Some(Process::start(self.command()).unwrap());
        self.until("a generation is in force", |lab| {
            lab.try_status().is_some_and(|status| status["generation"].as_u64() > Some(0))
        });
    }

    /// Ends the agent with a signal and waits for its end.
    pub(crate) fn stop(&mut self, signal: &str) {
        let mut agent = self.agent.take().unwrap();
        let pid = agent.id().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
        agent.child().wait().unwrap();
    }

    /// `margay <arguments>` against this lab's agent.
    pub(crate) fn margay(&self, arguments: &[&str]) -> Output {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_margay"));
        command
            .args(arguments)
            .env("MARGAY_SOCKET", self.socket())
            .env("MARGAY_PIN_DIR", &self.pin_dir)
            .output()
            .unwrap()
    }

    fn try_status(&self) -> Option<Value> {
        serde_json::from_slice(&self.margay(&["status", "-o", "json"]).stdout).ok()
    }

    pub(crate) fn status(&self) -> Value {
        self.try_status().unwrap_or_else(|| panic!("no status; the agent says:\n{}", self.words()))
    }

    /// `margay get <arguments> -o json`, its rows.
    pub(crate) fn get(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.margay(&[&["get"], arguments, &["-o", "json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    /// `margay explain <arguments> -o json`.
    pub(crate) fn explain(&self, arguments: &[&str]) -> Value {
        let output = self.margay(&[&["explain"], arguments, &["-o", "json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The value of a metric, over all its series whose labels contain `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> u64 {
        let text = self.gateway.run("curl", &["-sf", "http://127.0.0.1:9100/metrics"]).unwrap();
        let series = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name) && line.contains(labels));
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    }

    /// Waits until `holds`.
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}; the agent says:\n{}", self.words());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// True when the kernel says that an interface of the gateway carries an XDP program.
    pub(crate) fn carries_program(&self, interface: &str) -> bool {
        self.gateway.ip(&["-d", "link", "show", interface]).unwrap().contains("prog/xdp")
    }

    /// Pings an address at or behind the server until it answers and nothing but the program has a part in it. The first
    /// packets wait for their neighbours in the slow path, which may send them before the adjacencies are written; any answer
    /// of the agent comes after that.
    pub(crate) fn until_forwarded(&self, address: &str) {
        self.client.ping_until_answered(address, PATIENCE).unwrap();
        let (client, server) = match address.contains(':') {
            true => ("[fd01::2]:1", format!("[{address}]:2")),
            false => ("10.1.0.2:1", format!("{address}:2")),
        };
        for (from, to, port) in [(client, server.as_str(), "left0"), (&server, client, "right0")] {
            let way = self.explain(&["udp", from, to, "-i", port]);
            assert_eq!(way["verdict"], "redirect", "{way:#}");
        }
    }

    /// Pings the server from the client: replies of `count` requests, 50 ms apart.
    pub(crate) fn ping(&self, address: &str, count: u32) -> u32 {
        let mut ping = self.client.command("ping");
        ping.args(["-q", "-i", "0.05", "-W", "5", "-c", &count.to_string(), address]);
        let output = String::from_utf8(ping.output().unwrap().stdout).unwrap();
        let received = output.split(" received").next().and_then(|text| text.rsplit(' ').next());
        received.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{output}"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent said:\n{}", self.words());
        }
        self.agent = None;
        let detached = self.margay(&["detach"]);
        if !std::thread::panicking() {
            assert!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
            assert!(!Path::new(&self.pin_dir).exists(), "pins are left");
        }
    }
}
