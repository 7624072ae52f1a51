//! `pktgen`: arguments and wiring only.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod args;
mod output;
mod tui;

use std::io::{BufReader, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, bail};
use pktgen::interface::Interface;
use pktgen::progress::Progress;
use pktgen::remote::agent;
use pktgen::scenario::file::Loaded;
use pktgen::{connect, run};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use args::{Command, ConnectArgs, ProbeArgs, RunArgs};

/// A condition of `--fail-if` holds.
const EXIT_THRESHOLD: u8 = 3;

fn main() -> anyhow::Result<ExitCode> {
    let (args, scenario) = args::parse(std::env::args_os())?;
    match args.command {
        Command::Run(args) => run_command(&args, scenario.as_ref()),
        Command::Connect(args) => connect_command(&args),
        Command::Agent => {
            agent::serve(BufReader::new(std::io::stdin()), &mut std::io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Probe(args) => probe(&args),
    }
}

fn run_command(args: &RunArgs, scenario: Option<&Loaded>) -> anyhow::Result<ExitCode> {
    if args.check.tui {
        tui::require_terminal()?;
    }
    let output = args.check.output()?;
    let config = args.config(scenario)?;
    let title = match &config.to {
        Some(to) => format!("pktgen {} to {to}", config.from),
        None => format!("pktgen {}", config.from),
    };
    let progress = Progress::default();
    stop_on_signals(&progress.stop_flag())?;
    let mut out = std::io::stdout().lock();
    let report = std::thread::scope(|scope| {
        let run = scope.spawn(|| run::run_watched(config, &progress));
        let watched = if args.check.tui {
            tui::watch(&title, &progress, || run.is_finished()).context("cannot draw on the terminal")
        } else {
            output.watch(&progress, || run.is_finished(), &mut out)
        };
        if watched.is_err() {
            progress.stop();
        }
        let report = run.join().map_err(|_| anyhow::anyhow!("the run panicked"))?;
        watched.and(report.map_err(anyhow::Error::from))
    })?;
    let passed = output.report(&report, &mut out)?;
    if let (Some(received), Some(to)) = (&report.received, &report.to)
        && received.link.gone
    {
        bail!("{} has gone: the report is that of the time before", to.interface);
    }
    if let Some(why) = &report.sending.broke_off {
        bail!("sending broke off: {why}");
    }
    Ok(if passed { ExitCode::SUCCESS } else { EXIT_THRESHOLD.into() })
}

fn connect_command(args: &ConnectArgs) -> anyhow::Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signals(&stop)?;
    let report = connect::run(&args.config()?, &stop)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report).context("cannot write the report")?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    let exceeded: Vec<_> = args.fail_if.iter().filter_map(|threshold| threshold.check(&report)).collect();
    for exceeded in &exceeded {
        eprintln!("pktgen: failed: {exceeded}");
    }
    Ok(if exceeded.is_empty() { ExitCode::SUCCESS } else { EXIT_THRESHOLD.into() })
}

/// The first signal ends the run, and what it has measured is reported; a second one ends the program.
fn stop_on_signals(stop: &Arc<AtomicBool>) -> std::io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(stop))?;
        flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}

fn probe(args: &ProbeArgs) -> anyhow::Result<ExitCode> {
    let interface = Interface::new(&args.interface)?;
    let probe = pktgen::backend::probe::probe(&interface, (!args.no_send).then_some(args.time));
    if args.json {
        println!("{}", serde_json::to_string_pretty(&probe)?);
    } else {
        print!("{probe}");
    }
    Ok(ExitCode::SUCCESS)
}
