//! `margay policy test`: what policy says about flows, answered from the documents alone.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use model::load::{LoadedPolicy, load_policy};
use model::policy::{self, Direction, Expectation, Expected, Judgement, Packet, Policies};
use serde::Serialize;

use super::output::{self, Format, Row};
use super::{Error, OutputArgs};
use crate::config;

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Judge the flows of files by the policy of a configuration directory, without kernel or agent; exits 1 when one does not become
    /// what is expected of it.
    Test(TestArgs),
}

#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// Files of flows: lists of {from, to, protocol, port, expect}, as docs/policy.md describes them.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Directory of YAML and JSON resources.
    #[arg(long, env = "MARGAY_CONFIG")]
    config: PathBuf,
    /// What becomes of a workload's packets to its own host after its egress policy (Felix' defaultEndpointToHostAction).
    #[arg(long, value_enum, default_value_t = EndpointToHost::Drop)]
    endpoint_to_host: EndpointToHost,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EndpointToHost {
    /// They are dropped.
    Drop,
    /// They are accepted, and the host's policy is not asked.
    Accept,
    /// The host endpoint for all interfaces is asked.
    Return,
}

impl From<EndpointToHost> for policy::EndpointToHost {
    fn from(action: EndpointToHost) -> Self {
        match action {
            EndpointToHost::Drop => Self::Drop,
            EndpointToHost::Accept => Self::Accept,
            EndpointToHost::Return => Self::Return,
        }
    }
}

/// A flow, and what became of it.
#[derive(Serialize)]
struct Tested {
    file: String,
    line: u32,
    from: String,
    to: String,
    packet: String,
    verdict: String,
    /// Absent where nothing is expected.
    expected: Option<String>,
    /// Every policy that was asked.
    steps: Vec<Step>,
    /// Where a workload's packet to its own host was dropped after its egress policy allowed it.
    to_host_dropped: bool,
    #[serde(skip)]
    egress: String,
    #[serde(skip)]
    ingress: String,
}

/// A policy that was asked.
#[derive(Serialize)]
struct Step {
    endpoint: String,
    pipeline: String,
    direction: String,
    verdict: String,
    decided_by: String,
    /// Log rules on the way.
    logged: Vec<String>,
    /// Staged policies with which the verdict would be another.
    staged: Vec<String>,
}

impl Tested {
    fn is_as_expected(&self) -> bool {
        self.expected.as_ref().is_none_or(|expected| *expected == self.verdict)
    }
}

impl Row for Tested {
    const HEADER: &'static [&'static str] =
        &["FLOW", "FROM", "TO", "PACKET", "VERDICT", "EXPECTED", "EGRESS", "INGRESS", "STAGED"];
    fn cells(&self) -> Vec<String> {
        let expected = match &self.expected {
            None => "-".to_owned(),
            Some(expected) if self.is_as_expected() => expected.clone(),
            Some(expected) => format!("{expected} !"),
        };
        let staged: Vec<&str> = self.steps.iter().flat_map(|step| &step.staged).map(String::as_str).collect();
        let staged = if staged.is_empty() { "-".to_owned() } else { staged.join(", ") };
        vec![
            format!("{}:{}", self.file, self.line),
            self.from.clone(),
            self.to.clone(),
            self.packet.clone(),
            self.verdict.clone(),
            expected,
            self.egress.clone(),
            self.ingress.clone(),
            staged,
        ]
    }
}

impl PolicyCommand {
    pub(super) fn execute(self) -> Result<ExitCode, Error> {
        match self {
            Self::Test(args) => test(&args),
        }
    }
}

fn test(args: &TestArgs) -> Result<ExitCode, Error> {
    let invalid = |diagnostics: &[config::Diagnostic]| {
        eprintln!("{}", config::render(diagnostics));
        Ok(ExitCode::from(2))
    };
    let documents = config::read_dir(&args.config).map_err(|error| Error::Usage(error.to_string()))?;
    let LoadedPolicy { policies, warnings } = match load_policy(&documents) {
        Ok(loaded) => loaded,
        Err(diagnostics) => return invalid(&diagnostics),
    };
    if !warnings.is_empty() {
        eprintln!("{}", config::render(&warnings));
    }
    let mut tested = Vec::new();
    for file in &args.files {
        match test_file(file, &policies, args.endpoint_to_host.into())? {
            Ok(flows) => tested.extend(flows),
            Err(diagnostics) => return invalid(&diagnostics),
        }
    }
    match args.output.output {
        Format::Json => output::json(&tested)?,
        Format::Table => output::text(&output::table(&tested))?,
    }
    let wrong = tested.iter().filter(|flow| !flow.is_as_expected()).count();
    if wrong == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{wrong} of {} flows are not as expected", tested.len());
    Ok(ExitCode::from(1))
}

/// The flows of a file, or what is wrong with it.
fn test_file(
    path: &Path,
    policies: &Policies,
    endpoint_to_host: policy::EndpointToHost,
) -> Result<Result<Vec<Tested>, Vec<config::Diagnostic>>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    let file = path.display().to_string();
    Ok(Expectation::read(&file, &text, policies).map(|flows| {
        let judge = |flow: &Expectation<'_>| tested(&file, flow, &flow.judge(policies, endpoint_to_host));
        flows.iter().map(judge).collect()
    }))
}

fn tested(file: &str, flow: &Expectation<'_>, judgement: &Judgement<'_>) -> Tested {
    let (from, to) = flow.ends.clone();
    let mut egress = decided(judgement, Direction::Egress);
    if judgement.to_host_dropped {
        egress += "; then dropped to its own host";
    }
    Tested {
        file: file.to_owned(),
        line: flow.at.line,
        from,
        to,
        packet: packet(&flow.packet),
        verdict: Expected::of(judgement).to_string(),
        expected: flow.expected.map(|expected| expected.to_string()),
        steps: judgement.steps.iter().map(step).collect(),
        to_host_dropped: judgement.to_host_dropped,
        egress,
        ingress: decided(judgement, Direction::Ingress),
    }
}

/// What decided in a direction, and how.
fn decided(judgement: &Judgement<'_>, direction: Direction) -> String {
    judgement.decisive(Some(direction)).map_or_else(
        || "-".to_owned(),
        |step| format!("{}: {}: {}", step.endpoint, step.decision.verdict, step.decision.reason),
    )
}

fn step(step: &policy::Step<'_>) -> Step {
    let staged = step.decision.staged.iter();
    Step {
        endpoint: step.endpoint.to_string(),
        pipeline: step.pipeline.to_string(),
        direction: step.direction.to_string(),
        verdict: step.decision.verdict.to_string(),
        decided_by: step.decision.reason.to_string(),
        logged: step.decision.logged.iter().map(ToString::to_string).collect(),
        staged: staged.map(|staged| format!("{}: {}", staged.policy, staged.verdict)).collect(),
    }
}

/// `TCP 5432`, `ICMP 8/0`, `47`.
fn packet(packet: &Packet) -> String {
    let known = model::desired::protocol::NAMES.iter().find(|(_, number)| *number == packet.protocol);
    let protocol = known.map_or_else(|| packet.protocol.to_string(), |(name, _)| (*name).to_owned());
    match (packet.ports, packet.icmp) {
        (Some((_, port)), _) => format!("{protocol} {port}"),
        (None, Some((kind, code))) => format!("{protocol} {kind}/{code}"),
        (None, None) => protocol,
    }
}
