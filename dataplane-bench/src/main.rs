//! `dataplane-bench`: what margay costs, beside what it stands on, in one run.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod compare;
mod lab;
mod machine;
mod methods;
mod prog;
mod report;
mod result;
mod search;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures margay's datapath beside the kernel's primitives.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Nanoseconds a packet spends in the loaded pipeline (BPF_PROG_TEST_RUN).
    Prog(prog::Options),
    /// Tell what changed between results.
    Compare(compare::Options),
    /// Packets a second through devices at their maximum, or from generators.
    Rate(methods::rate::Options),
    /// The loads that devices bear without loss and with little (MLRsearch).
    Ndr(methods::ndr::Options),
    /// Throughput, frame loss rate and latency as RFC 2544 has them.
    Rfc2544(methods::rfc2544::Options),
    /// The longest bursts without loss (RFC 9004).
    Rfc9004(methods::rfc9004::Options),
    /// The load at which devices lose one packet in ten million (PLRsearch).
    Soak(methods::soak::Options),
    /// How long packets take at shares of the drop-free rate.
    Latency(methods::latency::Options),
    /// What changes of configuration cost while traffic flows.
    Reconf(methods::reconf::Options),
    /// What routes cost: a full table loaded, routes changed under traffic, a next hop lost.
    Routes(methods::routes::Options),
    /// Merge results and write them for readers.
    Report(report::Options),
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Prog(options) => prog::run(&options)?,
        Command::Rate(options) => methods::rate::run(&options)?,
        Command::Ndr(options) => methods::ndr::run(&options)?,
        Command::Rfc2544(options) => methods::rfc2544::run(&options)?,
        Command::Rfc9004(options) => methods::rfc9004::run(&options)?,
        Command::Soak(options) => methods::soak::run(&options)?,
        Command::Latency(options) => methods::latency::run(&options)?,
        Command::Reconf(options) => methods::reconf::run(&options)?,
        Command::Routes(options) => methods::routes::run(&options)?,
        Command::Compare(options) => return compare::run(&options),
        Command::Report(options) => report::run(&options)?,
    }
    Ok(ExitCode::SUCCESS)
}
