//! Network namespaces for tests: each test makes its own, and nothing outlives it.
//!
//! Names are unique on the machine (prefix, process, counter). A namespace is deleted when its [`Netns`] is dropped and a
//! program is killed when its [`Process`] is dropped; declare processes after the namespaces that they run in. Programs
//! are started through `nsenter --net`, not `ip netns exec`, so that they see the mounts of the test (bpffs among them).

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipnet::IpNet;

/// Why a namespace, a link or a program in one could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program could not be started at all.
    #[error("cannot start `{command}`: {source}")]
    Start {
        /// Program and arguments.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// The program ran and failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Failed {
        /// Program and arguments.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// A thread could not move into the namespace.
    #[error("cannot enter network namespace {name}: {source}")]
    Enter {
        /// Name of the namespace.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// Runs a program to its end and returns its standard output.
fn output(mut command: Command) -> Result<String, Error> {
    let shown = || format!("{command:?}").replace('"', "");
    let shown = shown();
    let out =
        command.stdin(Stdio::null()).output().map_err(|source| Error::Start { command: shown.clone(), source })?;
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    } else {
        let stderr = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        Err(Error::Failed { command: shown, status: out.status, stderr })
    }
}

fn ip(args: &[&str]) -> Result<String, Error> {
    let mut command = Command::new("ip");
    command.args(args);
    output(command)
}

/// A network namespace under `/run/netns`, with loopback up; deleted on drop.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace whose name starts with `prefix`.
    ///
    /// # Errors
    /// [`Error::Failed`] where the caller is not root or `ip` is missing.
    pub fn new(prefix: &str) -> Result<Self, Error> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("{prefix}-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name])?;
        let ns = Self { name };
        ns.ip(&["link", "set", "lo", "up"])?;
        Ok(ns)
    }

    /// Its name, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run in this namespace; the caller sets arguments and pipes.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs a program here to its end and returns its standard output.
    ///
    /// # Errors
    /// [`Error`] with the program's standard error.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String, Error> {
        let mut command = self.command(program);
        command.args(args);
        output(command)
    }

    /// Starts a program here that runs until it ends or the returned [`Process`] is dropped.
    ///
    /// # Errors
    /// [`Error::Start`].
    pub fn spawn(&self, program: &str, args: &[&str]) -> Result<Process, Error> {
        let mut command = self.command(program);
        command.args(args).stdin(Stdio::null());
        Process::start(command)
    }

    /// `ip <args>` on this namespace.
    ///
    /// # Errors
    /// [`Error`] with what `ip` wrote.
    pub fn ip(&self, args: &[&str]) -> Result<String, Error> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend_from_slice(args);
        ip(&all)
    }

    /// Sets a kernel parameter of this namespace, e.g. `net.ipv6.conf.all.forwarding`.
    ///
    /// # Errors
    /// [`Error`] with what `sysctl` wrote.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), Error> {
        self.run("sysctl", &["-q", "-w", &format!("{key}={value}")]).map(drop)
    }

    /// Pings `address` from here until it answers, for at most `patience`. A link that has just come up may take a second until
    /// routes over it can be used, and ping gives up at once where there is none.
    ///
    /// # Errors
    /// [`Error`] of the last ping.
    pub fn ping_until_answered(&self, address: &str, patience: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + patience;
        loop {
            match self.run("ping", &["-n", "-q", "-c1", "-W1", address]) {
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
                answered => return answered.map(drop),
            }
        }
    }

    /// Moves the calling thread into this namespace, for good: sockets that it opens from now on live here.
    ///
    /// # Errors
    /// [`Error::Enter`].
    pub fn enter(&self) -> Result<(), Error> {
        let enter = || -> io::Result<()> {
            let file = File::open(self.path())?;
            rustix::thread::move_into_link_name_space(file.as_fd(), Some(rustix::thread::LinkNameSpaceType::Network))?;
            Ok(())
        };
        enter().map_err(|source| Error::Enter { name: self.name.clone(), source })
    }

    /// Runs `work` on a new thread inside this namespace.
    ///
    /// # Errors
    /// The thread's result is [`Error::Enter`] where it could not move; a panic of `work` is the join's error.
    pub fn thread<T, F>(&self, work: F) -> JoinHandle<Result<T, Error>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        // A handle of its own: the thread may start after this one was moved, but never after it was deleted.
        let name = self.name.clone();
        std::thread::spawn(move || {
            let here = std::mem::ManuallyDrop::new(Self { name });
            here.enter()?;
            Ok(work())
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the name says which process left it.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The namespace that it lives in.
    pub netns: &'a Netns,
    /// Interface name, at most 15 bytes.
    pub name: &'a str,
    /// Its addresses with the length of the connected prefix.
    pub addresses: &'a [IpNet],
}

/// Makes a veth pair between two namespaces, gives both ends their addresses and brings them up. IPv6 addresses are usable
/// at once (no duplicate address detection).
///
/// # Errors
/// [`Error`] with what `ip` wrote.
pub fn veth(left: End<'_>, right: End<'_>) -> Result<(), Error> {
    ip(&[
        "link",
        "add",
        left.name,
        "netns",
        &left.netns.name,
        "type",
        "veth",
        "peer",
        "name",
        right.name,
        "netns",
        &right.netns.name,
    ])?;
    for end in [left, right] {
        // The link-local address would otherwise stay tentative for a second.
        end.netns.sysctl(&format!("net.ipv6.conf.{}.accept_dad", end.name), "0")?;
        for address in end.addresses {
            add_address(end.netns, end.name, *address)?;
        }
        end.netns.ip(&["link", "set", end.name, "up"])?;
    }
    Ok(())
}

/// Adds an address to an interface.
///
/// # Errors
/// [`Error`] with what `ip` wrote.
pub fn add_address(netns: &Netns, interface: &str, address: IpNet) -> Result<(), Error> {
    let address_text = address.to_string();
    let mut args = vec!["address", "add", address_text.as_str(), "dev", interface];
    if matches!(address, IpNet::V6(_)) {
        args.push("nodad");
    }
    netns.ip(&args).map(drop)
}

/// A program that is killed and reaped when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command`.
    ///
    /// # Errors
    /// [`Error::Start`].
    pub fn start(mut command: Command) -> Result<Self, Error> {
        let shown = format!("{command:?}").replace('"', "");
        let child = command.spawn().map_err(|source| Error::Start { command: shown, source })?;
        Ok(Self { child })
    }

    /// Its process id: `nsenter` has become the program.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes and its exit status.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Ends it at once (SIGKILL) and waits for it.
    pub fn kill(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    mod root {
        use super::*;

        #[test]
        fn a_pair_of_namespaces_reaches_each_other_and_is_gone_afterwards() {
            let (a, b) = (Netns::new("testkit").unwrap(), Netns::new("testkit").unwrap());
            let paths = [a.path(), b.path()];
            let nets = |text: &[&str]| text.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpNet>>();
            veth(
                End { netns: &a, name: "left", addresses: &nets(&["192.0.2.1/24", "2001:db8::1/64"]) },
                End { netns: &b, name: "right", addresses: &nets(&["192.0.2.2/24", "2001:db8::2/64"]) },
            )
            .unwrap();
            a.ping_until_answered("192.0.2.2", Duration::from_secs(10)).unwrap();
            a.ping_until_answered("2001:db8::2", Duration::from_secs(10)).unwrap();

            let listener = b.thread(|| std::net::TcpListener::bind("192.0.2.2:1179").unwrap()).join().unwrap().unwrap();
            let client = a.thread(|| std::net::TcpStream::connect("192.0.2.2:1179")).join().unwrap().unwrap();
            assert_eq!(client.unwrap().local_addr().unwrap().ip(), "192.0.2.1".parse::<std::net::IpAddr>().unwrap());
            drop(listener);

            drop((a, b));
            assert!(paths.iter().all(|path| !path.exists()));
        }

        #[test]
        fn a_process_ends_with_its_handle() {
            let ns = Netns::new("testkit").unwrap();
            let process = ns.spawn("sleep", &["60"]).unwrap();
            let proc = PathBuf::from(format!("/proc/{}", process.id()));
            assert!(proc.exists());
            drop(process);
            assert!(!proc.exists());
        }

        #[test]
        fn a_failing_program_is_reported_with_its_words() {
            let ns = Netns::new("testkit").unwrap();
            let error = ns.ip(&["link", "set", "nosuch", "up"]).unwrap_err().to_string();
            assert!(error.contains("nosuch"), "{error}");
        }
    }
}
