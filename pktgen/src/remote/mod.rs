//! A run whose receiving interface is on another host, or in another network namespace.
//!
//! The near end starts a command, `ssh root@far pktgen agent` for one, and speaks to what it starts over the standard streams. Nothing
//! listens on a port: who may do this, and who may read along, is for that command to say.

pub mod agent;
pub mod wire;

use std::io::BufReader;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use packet::layer::Mac;

use crate::progress::Progress;
use crate::receive::latency::Latencies;
use crate::receive::side::{Judged, Outcome};
use crate::receive::{Checkers, Options, Received};
use crate::report::Endpoint;
use crate::scenario::Scenario;
use crate::traffic::Plan;
use wire::{Done, DoneJudged, FromFar, Hello, HistogramOf, PROTOCOL, Prepare, ToFar, WireError};

/// How soon it is noticed that everything has been sent.
const LOOK: Duration = Duration::from_millis(20);
/// How long the far end may take to end when it has been asked to.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// Why there is no far end, or no longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The command cannot be started.
    #[error("cannot start `{command}`: {source}")]
    Start {
        /// The command.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be understood.
    #[error("`{command}`: {source}")]
    Wire {
        /// The command.
        command: String,
        /// Why.
        source: WireError,
    },
    /// It has ended.
    #[error("`{command}` has ended early ({status}): is pktgen installed there, and may it run as root?")]
    Ended {
        /// The command.
        command: String,
        /// How.
        status: String,
    },
    /// It says that it cannot do what it is asked to.
    #[error("the far end (`{command}`): {message}")]
    Failed {
        /// The command.
        command: String,
        /// What it says.
        message: String,
    },
    /// Another version.
    #[error(
        "pktgen {near} here and pktgen {far} at the other end do not understand each other: install the same version"
    )]
    Version {
        /// Here.
        near: String,
        /// There.
        far: String,
    },
    /// Not to be compiled at the far end.
    #[error("a capture is not sent to the far end: replay it with a receiver on this host, or without one")]
    Capture,
    /// No common clock.
    #[error(
        "one-way latency needs one clock, and the far end runs on another kernel (its boot_id differs): leave out --latency, or \
         receive on this host"
    )]
    Clocks,
}

/// A far end; its command is ended when this is dropped.
#[derive(Debug)]
pub struct Far {
    command: String,
    child: Child,
    to: Option<ChildStdin>,
    from: Option<BufReader<ChildStdout>>,
    mac: Mac,
    endpoint: Endpoint,
}

impl Far {
    /// Starts `via`, words as a shell splits them, with `pktgen agent` behind, and finds `interface` there. `latency`: whether latencies
    /// will be measured, which needs a common clock.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn open(via: &str, interface: &str, latency: bool) -> Result<Self, RemoteError> {
        let command = format!("{via} pktgen agent");
        let started = Command::new("sh")
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = started.map_err(|source| RemoteError::Start { command: command.clone(), source })?;
        let (to, from) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        let mut far = Self { command, child, to, from, mac: Mac::default(), endpoint: Endpoint::default() };
        let own = Hello::own();
        far.say(&ToFar::Hello(own.clone()))?;
        let FromFar::Hello(hello) = far.hear()? else { return Err(far.misheard()) };
        if hello.protocol != PROTOCOL {
            return Err(RemoteError::Version { near: own.version, far: hello.version });
        }
        if latency && (hello.boot_id != own.boot_id || own.boot_id.is_empty()) {
            return Err(RemoteError::Clocks);
        }
        far.say(&ToFar::Open { interface: interface.to_owned() })?;
        let FromFar::Opened { mac } = far.hear()? else { return Err(far.misheard()) };
        far.mac = mac;
        Ok(far)
    }

    /// The Ethernet address of its interface.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Its interface, for the report.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// Makes it ready to receive; when this returns, packets may be sent.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn prepare(&mut self, scenario: &Scenario, plan: &Plan, options: &Options) -> Result<(), RemoteError> {
        let prepare = Prepare { magic: plan.magic(), scenario: scenario.clone(), options: options.clone() };
        self.say(&ToFar::Prepare(Box::new(prepare)))?;
        let FromFar::Ready { endpoint, fingerprint } = self.hear()? else { return Err(self.misheard()) };
        if fingerprint != wire::fingerprint(plan) {
            return Err(self.failed("it would expect other packets than are sent: install the same version".to_owned()));
        }
        self.endpoint = endpoint;
        Ok(())
    }

    /// Listens until the far end is done, which it is some time after `sent_all` was set.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn run(
        &mut self,
        flows: u32,
        streams: usize,
        sent_all: &AtomicBool,
        progress: &Progress,
    ) -> Result<Outcome, RemoteError> {
        let Some(mut from) = self.from.take() else { return Err(self.misheard()) };
        let (messages, heard) = mpsc::channel();
        // Ends with the stream, which ends with the far end.
        std::thread::spawn(move || {
            while let Some(message) = wire::read::<FromFar>(&mut from).transpose()
                && messages.send(message).is_ok()
            {}
        });
        let mut gathered = Gathered::new(flows, streams);
        let mut asked = false;
        loop {
            if !asked && sent_all.load(Ordering::Acquire) {
                self.say(&ToFar::Finish)?;
                asked = true;
            }
            match heard.recv_timeout(LOOK) {
                Ok(Ok(FromFar::Progress(snapshot))) => progress.mirror(&snapshot),
                Ok(Ok(FromFar::Histogram { of, counts })) => gathered.histogram(of, &counts),
                Ok(Ok(FromFar::Arrivals { first, counts })) => gathered.arrivals(first, &counts),
                Ok(Ok(FromFar::Done(done))) => return Ok(gathered.outcome(*done)),
                Ok(Ok(FromFar::Failed(message))) => return Err(self.failed(message)),
                Ok(Ok(_)) => return Err(self.misheard()),
                Ok(Err(source)) => return Err(RemoteError::Wire { command: self.command.clone(), source }),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
            }
        }
    }

    /// A far end that no longer listens is no error yet: what it said before, why it has ended for one, is still to be heard, and says
    /// more than a broken pipe. Whoever listens next hears that, or that it has ended.
    fn say(&mut self, message: &ToFar) -> Result<(), RemoteError> {
        match self.to.as_mut().map(|to| wire::write(to, message)) {
            Some(Ok(())) | None => Ok(()),
            Some(Err(WireError::Io(_))) => {
                self.to = None;
                Ok(())
            }
            Some(Err(source)) => Err(RemoteError::Wire { command: self.command.clone(), source }),
        }
    }

    fn hear(&mut self) -> Result<FromFar, RemoteError> {
        match self.from.as_mut().map(wire::read) {
            Some(Ok(Some(FromFar::Failed(message)))) => Err(self.failed(message)),
            Some(Ok(Some(message))) => Ok(message),
            Some(Err(source)) => Err(RemoteError::Wire { command: self.command.clone(), source }),
            Some(Ok(None)) | None => Err(self.ended()),
        }
    }

    fn failed(&self, message: String) -> RemoteError {
        RemoteError::Failed { command: self.command.clone(), message }
    }

    fn misheard(&self) -> RemoteError {
        self.failed("it says something out of turn".to_owned())
    }

    fn ended(&mut self) -> RemoteError {
        let status = self.end().map_or_else(|| "still running".to_owned(), |status| status.to_string());
        RemoteError::Ended { command: self.command.clone(), status }
    }

    /// Closes its standard input, upon which it ends, and waits for that.
    fn end(&mut self) -> Option<std::process::ExitStatus> {
        drop(self.to.take());
        let deadline = Instant::now() + END_PATIENCE;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(LOOK);
        }
        None
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        if self.end().is_none() {
            // Both fail only where it has ended after all.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What the far end says in parts.
struct Gathered {
    latencies: Latencies,
    arrivals: Vec<u64>,
}

impl Gathered {
    fn new(flows: u32, streams: usize) -> Self {
        Self { latencies: Latencies::new(streams), arrivals: vec![0; usize::try_from(flows).unwrap_or(0)] }
    }

    fn histogram(&mut self, of: HistogramOf, counts: &[(u64, u64)]) {
        let place = match of {
            HistogramOf::Stream(stream) => self.latencies.streams.get_mut(stream),
            HistogramOf::Handover => Some(&mut self.latencies.handover),
        };
        if let Some(place) = place {
            *place = wire::histogram(counts);
        }
    }

    fn arrivals(&mut self, first: u32, counts: &[u64]) {
        let places = self.arrivals.iter_mut().skip(usize::try_from(first).unwrap_or(usize::MAX));
        places.zip(counts).for_each(|(place, count)| *place = *count);
    }

    fn outcome(mut self, done: Done) -> Outcome {
        let judged = done.judged.map(|judged| {
            let DoneJudged { packets, bytes, span_ns, faults, sequence, extents, kernel, latencies } = judged;
            let latency = latencies.map(|(noted, unnoted)| {
                (self.latencies.noted, self.latencies.unnoted) = (noted, unnoted);
                self.latencies
            });
            let received = Received { packets, bytes, faults, span_ns, latency, kernel };
            Judged { received, sequence, extents, checkers: Checkers::of_arrivals(self.arrivals) }
        });
        Outcome { delivered: done.delivered, judged, link: done.link }
    }
}
