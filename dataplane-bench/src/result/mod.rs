//! `result.json`: one or several runs on one machine, with everything that a reader needs to doubt them.
//!
//! The format is `margay.bench/v1`, published as docs/schema/bench-result.json. A subcommand that measures starts a
//! [`BenchResult`], fills its section and keeps it with [`Keep`]; `report` merges such files and draws them.

mod keep;
mod rows;
mod store;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Instant, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(crate) use keep::Keep;
pub(crate) use rows::{
    BackToBackRow, LatencyRow, LossRow, NdrRow, ProgRow, RateRow, ReconfRow, RoutesRow, Scale, SoakRow, Trial,
};
pub(crate) use store::{StoreError, json, load, write_atomically};

use crate::machine::{self, Machine};

/// The version of the format, and the only one that is read.
pub(crate) const SCHEMA: &str = "margay.bench/v1";

/// A whole result. Sections that were not measured are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct BenchResult {
    /// Always `margay.bench/v1`.
    #[schemars(extend("const" = SCHEMA))]
    pub(crate) schema: String,
    /// What measured.
    pub(crate) tool: Tool,
    /// Where.
    pub(crate) machine: Machine,
    /// The runs that the sections come from, in the order of their start.
    pub(crate) runs: Vec<Run>,
    /// ns per packet by BPF_PROG_TEST_RUN.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) prog: Vec<ProgRow>,
    /// Rates of generators and devices under test.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) rates: Vec<RateRow>,
    /// Bounds of drop-rate searches and of RFC 2544 throughput.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ndr: Vec<NdrRow>,
    /// Loss against load.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) loss: Vec<LossRow>,
    /// Longest bursts without loss.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) back_to_back: Vec<BackToBackRow>,
    /// Latency at load.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) latency: Vec<LatencyRow>,
    /// Blocked time while configuration changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) reconf: Vec<ReconfRow>,
    /// What routes cost the control side (`routes`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) routes: Vec<RoutesRow>,
    /// Critical loads of long searches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) soak: Vec<SoakRow>,
    /// What was asked for and could not be measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) not_run: Vec<NotRun>,
    /// Where a method was not followed to the letter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) deviations: Vec<Deviation>,
    /// Every trial.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) trials: Vec<Trial>,
    /// When this value was made, for [`Run::seconds`].
    #[serde(skip)]
    clock: Clock,
}

/// What measured, and what of it was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Tool {
    /// Version of dataplane-bench.
    pub(crate) version: String,
    /// Commit of the checkout that the executable lies in, `, changed` behind it where tracked files differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) git: Option<String>,
    /// BPF objects and executables that were measured.
    #[serde(default)]
    pub(crate) objects: Vec<Object>,
}

/// A BPF object or an executable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Object {
    /// Name, for a file its path as given.
    pub(crate) name: String,
    /// SHA-256 of its bytes, lower-case hexadecimal.
    pub(crate) sha256: String,
}

/// One call of one subcommand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Run {
    /// The command line, word by word; the first word is the program.
    pub(crate) command: Vec<String>,
    /// Start, UTC, RFC 3339.
    pub(crate) started: String,
    /// Duration, seconds.
    pub(crate) seconds: f64,
    /// Load averages over 1, 5 and 15 minutes at the start: a busy machine measures itself.
    pub(crate) load: [f64; 3],
    /// Seed of every random choice, where the method has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,
    /// Shortened to see that it works: the figures are rough.
    #[serde(default)]
    pub(crate) quick: bool,
    /// When the machine itself was away while devices were measured, by core; empty where nobody watched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) stalls: Vec<Stalls>,
}

/// How a core of the machine was there for what ran on it. A stall is a millisecond or more in which even a real-time thread did
/// not get it: a hypervisor's doing, or firmware's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Stalls {
    /// The core.
    pub(crate) core: u32,
    /// Stalls a second.
    pub(crate) per_second: f64,
    /// Share of the time spent in them, percent.
    pub(crate) percent: f64,
    /// The longest, milliseconds.
    pub(crate) longest_ms: f64,
}

/// Something that was asked for and could not be measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct NotRun {
    /// Case, device under test or step.
    pub(crate) what: String,
    /// Why, with what would help.
    pub(crate) why: String,
}

/// A place where a method was not followed to the letter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Deviation {
    /// Standard and section: `RFC 2544, section 24`.
    pub(crate) from: String,
    /// What was done instead and what that does to the figure.
    pub(crate) what: String,
}

#[derive(Clone, Debug)]
struct Clock(Instant);

impl Default for Clock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl PartialEq for Clock {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Object {
    /// Names and hashes `bytes`.
    pub(crate) fn of(name: impl Into<String>, bytes: &[u8]) -> Self {
        let sha256 = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { name: name.into(), sha256 }
    }

    /// Hashes a file.
    ///
    /// # Errors
    ///
    /// What reading it says.
    pub(crate) fn of_file(path: &Path) -> std::io::Result<Self> {
        Ok(Self::of(path.display().to_string(), &fs::read(path)?))
    }
}

impl BenchResult {
    /// Starts the run of this process: machine, load, time and command line are those of now.
    pub(crate) fn start(seed: Option<u64>) -> Self {
        let run = Run {
            command: std::env::args().collect(),
            started: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            seconds: 0.0,
            load: machine::load_average(),
            seed,
            quick: false,
            stalls: Vec::new(),
        };
        Self {
            schema: SCHEMA.to_owned(),
            tool: Tool { version: env!("CARGO_PKG_VERSION").to_owned(), git: checkout(), objects: Vec::new() },
            machine: Machine::read(),
            runs: vec![run],
            prog: Vec::new(),
            rates: Vec::new(),
            ndr: Vec::new(),
            loss: Vec::new(),
            back_to_back: Vec::new(),
            latency: Vec::new(),
            reconf: Vec::new(),
            routes: Vec::new(),
            soak: Vec::new(),
            not_run: Vec::new(),
            deviations: Vec::new(),
            trials: Vec::new(),
            clock: Clock::default(),
        }
    }

    /// Ends the run that [`start`](Self::start) began.
    pub(crate) fn finish(&mut self) {
        if let Some(run) = self.runs.last_mut() {
            run.seconds = (self.clock.0.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        }
    }

    /// Takes the sections of another result over, behind its own.
    ///
    /// # Errors
    ///
    /// The differences, when the two were not measured by one tool on one machine: such figures do not belong on one page,
    /// and `compare` is what reads them side by side.
    pub(crate) fn merge(&mut self, other: Self) -> Result<(), Vec<String>> {
        let mut differences = self.machine.differences(&other.machine);
        if self.tool.version != other.tool.version {
            differences.push(format!("version: {} and {}", self.tool.version, other.tool.version));
        }
        if !differences.is_empty() {
            return Err(differences);
        }
        // A commit in the middle of a long run moves no executable: it is told, not refused.
        match (&mut self.tool.git, other.tool.git) {
            (Some(ours), Some(theirs)) if !ours.contains(&theirs) => *ours = format!("{ours}; {theirs}"),
            (ours @ None, theirs) => *ours = theirs,
            _ => {}
        }
        self.runs.extend(other.runs);
        self.runs.sort_by(|a, b| a.started.cmp(&b.started));
        extend_new(&mut self.tool.objects, other.tool.objects);
        extend_new(&mut self.machine.interfaces, other.machine.interfaces);
        extend_new(&mut self.not_run, other.not_run);
        extend_new(&mut self.deviations, other.deviations);
        self.prog.extend(other.prog);
        self.rates.extend(other.rates);
        self.ndr.extend(other.ndr);
        self.loss.extend(other.loss);
        self.back_to_back.extend(other.back_to_back);
        self.latency.extend(other.latency);
        self.reconf.extend(other.reconf);
        self.routes.extend(other.routes);
        self.soak.extend(other.soak);
        self.trials.extend(other.trials);
        Ok(())
    }
}

fn extend_new<T: PartialEq>(all: &mut Vec<T>, more: Vec<T>) {
    for item in more {
        if !all.contains(&item) {
            all.push(item);
        }
    }
}

/// The commit of the checkout that the executable lies in. An installed one lies in none; git is the only reader of its
/// own format, and where it is missing or distrusts the directory, nothing is claimed.
fn checkout() -> Option<String> {
    let executable = std::env::current_exe().ok()?;
    let directory = executable.parent()?;
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(directory).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|changes| !changes.is_empty());
    Some(if changed { format!("{commit}, changed") } else { commit })
}

#[cfg(test)]
mod tests {
    use schemars::generate::SchemaSettings;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_published_schema_is_this_one() {
        let generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
        let mut schema = generator.into_root_schema_for::<BenchResult>();
        schema.insert("title".to_owned(), json!(SCHEMA));
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema/bench-result.json");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(path, &text).unwrap();
        }
        assert!(
            fs::read_to_string(path).unwrap_or_default() == text,
            "docs/schema/bench-result.json is out of date: run this test with UPDATE_EXPECTED=1"
        );
    }

    #[test]
    fn what_is_written_matches_the_schema_and_reads_back() {
        let mut result = BenchResult::start(Some(7));
        result.prog.push(ProgRow { case: "lb/ipip4-hot".to_owned(), net_ns: vec![1.5], ..ProgRow::default() });
        result.rates.push(RateRow { dut: "generator/live".to_owned(), ..RateRow::default() });
        result.ndr.push(NdrRow { relevant_upper_pps: Some(3.0), ..NdrRow::default() });
        result.latency.push(LatencyRow { histogram: vec![[1.0, 50.0]], ..LatencyRow::default() });
        result.finish();
        let value = serde_json::to_value(&result).unwrap();
        let schema: serde_json::Value = serde_json::from_str(
            &fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema/bench-result.json")).unwrap(),
        )
        .unwrap();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(serde_json::from_value::<BenchResult>(value).unwrap(), result);
    }

    #[test]
    fn merging_keeps_every_row_and_names_shared_things_once() {
        let part = |started: &str| {
            let mut part = BenchResult::start(None);
            part.runs[0].started = started.to_owned();
            part.tool.objects.push(Object::of("bench.bpf.o", b"abc"));
            part.not_run.push(NotRun { what: "dpdk".to_owned(), why: "not installed".to_owned() });
            part.prog.push(ProgRow::default());
            part
        };
        let mut all = part("2026-02-01T00:00:00Z");
        all.merge(part("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!((all.prog.len(), all.tool.objects.len(), all.not_run.len()), (2, 1, 1));
        assert_eq!(all.runs[0].started, "2026-01-01T00:00:00Z");
        assert_eq!(all.tool.objects[0].sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn results_of_two_machines_are_not_one() {
        let mut other = BenchResult::start(None);
        other.machine.cpu = "another".to_owned();
        other.tool.version = "0.0.0".to_owned();
        let differences = BenchResult::start(None).merge(other).unwrap_err();
        assert_eq!(differences.len(), 2, "{differences:?}");
        assert!(differences[0].starts_with("cpu: ") && differences[1].ends_with(" and 0.0.0"), "{differences:?}");
    }
}
