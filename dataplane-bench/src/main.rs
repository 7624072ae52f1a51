//! `dataplane-bench`: what margay costs, beside what it stands on, in one run.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod compare;
mod lab;
mod machine;
mod methods;
mod prog;
mod report;
mod result;
#[allow(dead_code, reason = "the subcommands that drive the searches come next")]
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
    /// Merge results and write them for readers.
    Report(report::Options),
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Prog(options) => prog::run(&options)?,
        Command::Rate(options) => methods::rate::run(&options)?,
        Command::Compare(options) => return compare::run(&options),
        Command::Report(options) => report::run(&options)?,
    }
    Ok(ExitCode::SUCCESS)
}
