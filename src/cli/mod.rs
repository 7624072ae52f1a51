//! What a person types: arguments, the requests that they make, and the answers as tables or JSON.
//!
//! Exit codes are part of the interface: 0 ok, 1 failure or a flow that is not as expected (`policy test`), 2 usage or invalid
//! configuration, 3 degraded (`status`), different (`get routes --diff`) or not quiet yet (`drain --wait`),
//! 4 no permission or the agent cannot be reached.

mod client;
mod drain;
mod explain;
mod generate;
mod local;
mod output;
mod policy;
mod rows;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::control;
use crate::control::api::ListKind;
use crate::control::api::types::{Filter, KernelDiff, Status};
use client::Client;
use output::Format;

/// Where everything is pinned unless told otherwise.
const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/margay";
/// Where what was commanded is kept unless told otherwise.
const DEFAULT_STATE_DIR: &str = "/var/lib/margay";
/// Where the agent listens unless told otherwise.
const DEFAULT_SOCKET: &str = "/run/margay/margay.sock";

/// XDP/AF_XDP forwarding appliance and per-node dataplane.
#[derive(Debug, Parser)]
#[command(name = "margay", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent: load and attach the program, follow configuration, kernel and BGP.
    Run(Box<RunArgs>),
    /// Check a configuration directory and list every error in it; nothing is touched.
    Validate(ConfigArgs),
    /// Health of the running agent; exits 3 when something is wrong.
    Status {
        #[command(flatten)]
        agent: AgentArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// List what the running agent works with.
    Get(GetArgs),
    /// Give a backend no new flows while another serves, and leave it those that it has; or give it back.
    Drain(drain::DrainArgs),
    /// Show a packet's way through the loaded program, without side effects.
    Explain(explain::ExplainArgs),
    /// Try policy before it is in force.
    Policy {
        #[command(subcommand)]
        command: policy::PolicyCommand,
    },
    /// Take everything out of the kernel: links, programs, maps. Stop the agent first.
    Detach {
        #[command(flatten)]
        pins: PinArgs,
    },
    /// What the program can do, and which of it the running agent uses.
    Features {
        #[command(flatten)]
        agent: AgentArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Write the JSON Schema of the configuration's kinds.
    Schema {
        /// Write one file a kind here; one document of all, by kind, goes to standard output where absent.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Write a completion script to standard output.
    Completions {
        /// Shell that it is for.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages.
    Man {
        /// Directory that they are written to.
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Directory of YAML and JSON resources.
    #[arg(long, env = "MARGAY_CONFIG")]
    config: PathBuf,
    /// Name of this node's resources; the only Node document's where absent.
    #[arg(long, env = "MARGAY_NODE")]
    node: Option<String>,
}

#[derive(Debug, Args)]
struct PinArgs {
    /// Directory on a BPF file system where maps, programs and links are pinned.
    #[arg(long, env = "MARGAY_PIN_DIR", default_value = DEFAULT_PIN_DIR)]
    pin_dir: PathBuf,
}

#[derive(Debug, Args)]
struct AgentArgs {
    /// Unix socket of the agent.
    #[arg(long, env = "MARGAY_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

#[derive(Debug, Args)]
struct OutputArgs {
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    pins: PinArgs,
    #[command(flatten)]
    agent: AgentArgs,
    /// Directory where what was commanded (drain) is kept over restarts.
    #[arg(long, env = "MARGAY_STATE_DIR", default_value = DEFAULT_STATE_DIR)]
    state_dir: PathBuf,
    /// Address that Prometheus metrics are served on, under /metrics; not served where absent.
    #[arg(long, env = "MARGAY_METRICS")]
    metrics: Option<SocketAddr>,
    /// What is logged: a level, or directives as `info,margay::control=debug`.
    #[arg(long, env = "MARGAY_LOG", default_value = "info")]
    log: tracing_subscriber::EnvFilter,
}

#[derive(Debug, Args)]
struct GetArgs {
    /// What to list.
    #[arg(value_enum)]
    what: ListKind,
    /// Only what matches; see the list's own help for what it compares.
    filter: Option<String>,
    /// Most rows.
    #[arg(long, default_value_t = control::api::types::DEFAULT_LIMIT)]
    limit: usize,
    /// Of routes: those of a VRF; of the default one where absent.
    #[arg(long)]
    vrf: Option<String>,
    /// Of routes: how they differ from another table; exits 3 where they do.
    #[arg(long, value_enum, conflicts_with = "filter")]
    diff: Option<DiffWith>,
    #[command(flatten)]
    agent: AgentArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What routes are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DiffWith {
    /// The kernel's routing table, as it is at this moment.
    Kernel,
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The agent could not be asked.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The agent could not start or go on.
    #[error(transparent)]
    Run(#[from] control::RunError),
    /// The arguments or the configuration are wrong.
    #[error("{0}")]
    Usage(String),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Standard output could not be written.
    #[error("cannot write the answer: {0}")]
    Output(#[from] std::io::Error),
    /// The answer could not be put into JSON.
    #[error("cannot write the answer as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The process may not do what it has to.
    #[error(transparent)]
    Privilege(#[from] control::PrivilegeError),
    /// Another process has the pin directory.
    #[error(transparent)]
    Lock(#[from] control::LockError),
    /// The kernel side could not be taken down.
    #[error(transparent)]
    Dataplane(#[from] crate::dataplane::Error),
}

impl Error {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Run(control::RunError::Config(_)) => 2,
            Self::Client(error) => error.exit_code(),
            Self::Privilege(_) | Self::Run(control::RunError::Privilege(_)) => 4,
            Self::Run(_) | Self::File { .. } | Self::Output(_) | Self::Json(_) | Self::Lock(_) | Self::Dataplane(_) => {
                1
            }
        }
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    match Cli::parse().command.execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("margay: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

impl Command {
    fn execute(self) -> Result<ExitCode, Error> {
        match self {
            Self::Run(args) => run(*args),
            Self::Validate(args) => local::validate(&args),
            Self::Status { agent, output } => status(&agent, output.output),
            Self::Get(args) => get(&args),
            Self::Drain(args) => drain::drain(&args),
            Self::Explain(args) => explain::explain(args),
            Self::Policy { command } => command.execute(),
            Self::Detach { pins } => local::detach(&pins.pin_dir),
            Self::Features { agent, output } => local::features(&agent.socket, output.output),
            Self::Schema { dir } => generate::schema(dir.as_deref()),
            Self::Completions { shell } => generate::completions(shell, Cli::command()),
            Self::Man { dir } => generate::man(&dir, Cli::command()),
        }
    }
}

fn run(args: RunArgs) -> Result<ExitCode, Error> {
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(args.log).with_ansi(colours).with_writer(std::io::stderr).init();
    control::run(control::Options {
        config_dir: args.config.config,
        node: args.config.node,
        pin_dir: args.pins.pin_dir,
        state_dir: args.state_dir,
        socket: args.agent.socket,
        metrics: args.metrics,
    })?;
    Ok(ExitCode::SUCCESS)
}

fn status(agent: &AgentArgs, format: Format) -> Result<ExitCode, Error> {
    let status: Status = Client::new(&agent.socket).get("/v1/status")?;
    match format {
        Format::Json => output::json(&status)?,
        Format::Table => output::text(&rows::status(&status))?,
    }
    Ok(if status.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

/// What is held and forwarded of the kernel's table; 3 where it is not the same.
fn kernel_diff(args: &GetArgs) -> Result<ExitCode, Error> {
    let mut path = format!("/v1/routes/diff/kernel?limit={}", args.limit);
    if let Some(vrf) = &args.vrf {
        path += &format!("&vrf={}", rows::escape(vrf));
    }
    let diff: KernelDiff = Client::new(&args.agent.socket).get(&path)?;
    match args.output.output {
        Format::Json => output::json(&diff)?,
        Format::Table => output::text(&rows::kernel_diff(&diff))?,
    }
    Ok(if diff.differences.total == 0 { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

fn get(args: &GetArgs) -> Result<ExitCode, Error> {
    match args.diff {
        Some(DiffWith::Kernel) if args.what == ListKind::Routes => return kernel_diff(args),
        Some(_) => return Err(Error::Usage("only routes are compared: margay get routes --diff kernel".to_owned())),
        None => {}
    }
    if args.vrf.is_some() && args.what != ListKind::Routes {
        return Err(Error::Usage("only routes are in VRFs: margay get routes --vrf NAME".to_owned()));
    }
    let filter = Filter { of: args.filter.clone(), vrf: args.vrf.clone(), limit: Some(args.limit) };
    let list = rows::Lister { client: Client::new(&args.agent.socket), filter, format: args.output.output };
    list.show(args.what)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
