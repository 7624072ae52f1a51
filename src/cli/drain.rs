//! `margay drain`: takes a backend out for new flows, waits until it is quiet, and says what it still has.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::client::Client;
use super::output::{self, Format};
use super::rows::escape;
use super::{AgentArgs, Error, OutputArgs};
use crate::control::api::types::{BackendState, DrainRequest, Drained, Draining, List};

/// How often the agent is asked.
const EVERY: Duration = Duration::from_secs(1);

/// A backend, and how long to wait for it.
#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// Address of the backend.
    backend: IpAddr,
    /// Only in this VirtualService; in every one that has the backend where absent.
    #[arg(long)]
    service: Option<String>,
    /// Wait at most so many seconds until the backend is quiet; exits 3 where it is not.
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    /// Seconds without a packet after which the backend is quiet.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, requires = "wait", value_parser = clap::value_parser!(u64).range(1..))]
    quiet: u64,
    /// Give it back: it gets new flows again.
    #[arg(long, conflicts_with = "wait")]
    undo: bool,
    #[command(flatten)]
    agent: AgentArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn drain(args: &DrainArgs) -> Result<ExitCode, Error> {
    let client = Client::new(&args.agent.socket);
    let request = DrainRequest { backend: args.backend, service: args.service.clone(), undo: args.undo };
    let drained: Vec<Drained> = client.post("/v1/drain", &request)?;
    if args.output.output == Format::Table {
        for Drained { service, backend, draining } in &drained {
            let what = if *draining { "drains: no new flows while another serves" } else { "gets new flows" };
            output::text(&format!("{backend} of {service} {what}\n"))?;
        }
    }
    match args.wait {
        Some(seconds) => wait(args, &client, Duration::from_secs(seconds)),
        None => {
            if args.output.output == Format::Json {
                output::json(&drained)?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Asks until no packet has come for long enough, and says how it goes.
fn wait(args: &DrainArgs, client: &Client, patience: Duration) -> Result<ExitCode, Error> {
    let mut path = format!("/v1/drain?backend={}", escape(&args.backend.to_string()));
    if let Some(service) = &args.service {
        path += &format!("&service={}", escape(service));
    }
    let (began, quiet) = (Instant::now(), Duration::from_secs(args.quiet));
    let mut watch = Watch::new(began);
    loop {
        let now: List<Draining> = client.get(&path)?;
        let rate = watch.see(total(&now), Instant::now());
        let silent = watch.silent(Instant::now());
        let over = silent >= quiet || began.elapsed() >= patience;
        match args.output.output {
            Format::Table => output::text(&line(&now, rate, silent))?,
            Format::Json if over => output::json(&now)?,
            Format::Json => {}
        }
        if silent >= quiet {
            return Ok(ExitCode::SUCCESS);
        }
        if over {
            eprintln!("margay: {} is not quiet after {} s", args.backend, patience.as_secs());
            return Ok(ExitCode::from(3));
        }
        std::thread::sleep(EVERY.min(patience.saturating_sub(began.elapsed())));
    }
}

fn total(rows: &List<Draining>) -> u64 {
    rows.items.iter().map(|row| row.packets).sum()
}

fn line(rows: &List<Draining>, rate: Option<f64>, silent: Duration) -> String {
    let flows: usize = rows.items.iter().map(|row| row.flows).sum();
    let drains = rows.items.iter().filter(|row| row.state == BackendState::Draining).count();
    let rate = rate.map_or_else(String::new, |rate| format!("{rate:.1} packets/s, "));
    let down = if drains == rows.items.len() { "" } else { "; not everywhere up" };
    format!("{rate}{flows} flows remembered, no packet for {} s{down}\n", silent.as_secs())
}

/// Packets as they go by.
struct Watch {
    last: Option<(u64, Instant)>,
    changed: Instant,
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self { last: None, changed: now }
    }

    /// Takes a count in: packets a second since the one before. A count that is less began anew, which is a change, too.
    fn see(&mut self, packets: u64, now: Instant) -> Option<f64> {
        let former = self.last.replace((packets, now));
        let (before, then) = former?;
        if before != packets {
            self.changed = now;
        }
        #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
        let difference = packets.saturating_sub(before) as f64;
        Some(difference / now.saturating_duration_since(then).as_secs_f64().max(0.001))
    }

    fn silent(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_begins_after_the_last_change() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut watch = Watch::new(began);
        assert_eq!(watch.see(100, at(0)), None, "nothing to compare with");
        assert_eq!(watch.see(150, at(1)), Some(50.0));
        assert_eq!((watch.see(150, at(4)), watch.silent(at(4))), (Some(0.0), Duration::from_secs(3)));
        assert_eq!((watch.see(151, at(5)), watch.silent(at(5))), (Some(1.0), Duration::ZERO));
        assert_eq!(
            (watch.see(0, at(6)), watch.silent(at(6))),
            (Some(0.0), Duration::ZERO),
            "the agent's count began anew"
        );
    }
}
