//! The far end: receives packets for a run that is sent from elsewhere. It lives as long as its standard input.

use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::wire::{
    self, ARRIVALS_MAX, Done, DoneJudged, FromFar, Hello, HistogramOf, PROTOCOL, Prepare, ToFar, WireError,
};
use crate::interface::{Interface, InterfaceError};
use crate::progress::Progress;
use crate::receive::side::{Judged, Outcome, Side, SideError};
use crate::traffic::{Plan, TrafficError};

/// Between two `Progress`.
const PROGRESS: Duration = Duration::from_millis(200);

/// Why this end gave up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The near end cannot be understood, or has gone.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The near end has gone.
    #[error("the near end has closed the connection")]
    Gone,
    /// The near end speaks another protocol, or something out of turn.
    #[error("{0}")]
    Protocol(String),
    /// The interface does not answer.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The scenario cannot be compiled here.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// Nothing can be received.
    #[error(transparent)]
    Side(#[from] SideError),
}

/// Serves one run over these streams. When `from` ends early, so does the process: nothing is left behind that waits for a near
/// end that has gone.
///
/// # Errors
/// [`AgentError`]; the near end has been told.
pub fn serve(from: impl BufRead + Send + 'static, to: &mut impl Write) -> Result<(), AgentError> {
    let outcome = run(from, to);
    if let Err(error) = &outcome {
        // It may be gone; then nobody wants to know.
        let _ = wire::write(to, &FromFar::Failed(error.to_string()));
    }
    outcome
}

fn run(mut from: impl BufRead + Send + 'static, to: &mut impl Write) -> Result<(), AgentError> {
    let mut next = || wire::read::<ToFar>(&mut from)?.ok_or(AgentError::Gone);
    let ToFar::Hello(hello) = next()? else { return Err(out_of_turn("hello")) };
    wire::write(to, &FromFar::Hello(Hello::own()))?;
    if hello.protocol != PROTOCOL {
        let Hello { version, protocol, .. } = hello;
        return Err(AgentError::Protocol(format!(
            "pktgen {} speaks protocol {PROTOCOL}, pktgen {version} at the other end {protocol}: install the same version",
            Hello::own().version
        )));
    }
    let ToFar::Open { interface } = next()? else { return Err(out_of_turn("open")) };
    let interface = Interface::new(&interface)?;
    wire::write(to, &FromFar::Opened { mac: interface.mac()? })?;
    let ToFar::Prepare(prepare) = next()? else { return Err(out_of_turn("prepare")) };
    let Prepare { magic, scenario, options } = *prepare;
    let plan = Plan::new(&scenario, magic)?;
    let mut side = Side::attach(interface, magic, &options)?;
    side.open(plan.longest())?;
    wire::write(to, &FromFar::Ready { endpoint: side.endpoint(), fingerprint: wire::fingerprint(&plan) })?;
    let (messages, rest) = mpsc::channel();
    std::thread::spawn(move || {
        while let Some(message) = wire::read::<ToFar>(&mut from).transpose()
            && messages.send(message).is_ok()
        {}
    });
    let outcome = receive(&mut side, &plan, magic, &rest, to)?;
    report(&plan, outcome, to)
}

fn out_of_turn(expected: &str) -> AgentError {
    AgentError::Protocol(format!("the near end was to say '{expected}', and said something else"))
}

/// Receives until `Finish`; a near end that goes away ends it, too.
fn receive(
    side: &mut Side,
    plan: &Plan,
    magic: u32,
    messages: &mpsc::Receiver<Result<ToFar, WireError>>,
    to: &mut impl Write,
) -> Result<Outcome, AgentError> {
    let (progress, sent_all) = (Progress::default(), AtomicBool::new(false));
    // The near end knows their names.
    progress.name_streams((0..plan.streams().len()).map(|stream| stream.to_string()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let receiving = scope.spawn(|| side.run(plan, magic, &sent_all, &progress, &[], threads));
        let mut watch = || {
            while !receiving.is_finished() {
                match messages.recv_timeout(PROGRESS) {
                    Ok(Ok(ToFar::Finish)) => sent_all.store(true, Ordering::Release),
                    Ok(Ok(_)) => return Err(out_of_turn("finish")),
                    Ok(Err(error)) => return Err(error.into()),
                    Err(RecvTimeoutError::Disconnected) => return Err(AgentError::Gone),
                    Err(RecvTimeoutError::Timeout) => wire::write(to, &FromFar::Progress(progress.snapshot()))?,
                }
            }
            Ok(())
        };
        let watched = watch();
        if watched.is_err() {
            progress.stop();
            sent_all.store(true, Ordering::Release);
        }
        let received = receiving.join().unwrap_or(Err(SideError::Thread));
        watched?;
        Ok(received?)
    })
}

fn report(plan: &Plan, outcome: Outcome, to: &mut impl Write) -> Result<(), AgentError> {
    let Outcome { delivered, judged, link } = outcome;
    let judged = judged.map(|judged| details(plan, judged, to)).transpose()?;
    Ok(wire::write(to, &FromFar::Done(Box::new(Done { delivered, judged, link })))?)
}

/// Says what does not fit into one message; returns what does.
fn details(plan: &Plan, judged: Judged, to: &mut impl Write) -> Result<DoneJudged, AgentError> {
    let Judged { received, sequence, extents, checkers } = judged;
    if let Some(latency) = &received.latency {
        let streams =
            latency.streams.iter().enumerate().map(|(stream, histogram)| (HistogramOf::Stream(stream), histogram));
        for (of, histogram) in streams.chain([(HistogramOf::Handover, &latency.handover)]) {
            wire::write(to, &FromFar::Histogram { of, counts: wire::counts(histogram) })?;
        }
    }
    for first in (0..plan.flows()).step_by(ARRIVALS_MAX) {
        let flows = (first..plan.flows()).take(ARRIVALS_MAX);
        wire::write(to, &FromFar::Arrivals { first, counts: flows.map(|flow| checkers.arrivals(flow)).collect() })?;
    }
    Ok(DoneJudged {
        packets: received.packets,
        bytes: received.bytes,
        span_ns: received.span_ns,
        faults: received.faults,
        sequence,
        extents,
        kernel: received.kernel,
        latencies: received.latency.map(|latency| (latency.noted, latency.unnoted)),
    })
}
