//! `margay <subcommand>`: arguments and wiring only.

use std::process::ExitCode;

fn main() -> ExitCode {
    margay::cli::main()
}
