//! The flags of a run that its scenario file gives: they are read as if they stood on the command line, unless they do.

use std::collections::BTreeSet;
use std::ffi::OsString;

use anyhow::{Context as _, bail};
use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, CommandFactory as _, Parser as _};
use pktgen::scenario::file::Loaded;

use super::Args;

/// Flags that only make sense on the command line, or that the streams of the file say.
const NOT_IN_A_FILE: [&str; 16] = [
    "scenario", "frame", "protocol", "src", "dst", "ipv6", "sport", "dport", "vlan", "flows", "order", "size",
    "no-stamp", "seed", "help", "version",
];

/// What the command line says, and the scenario file that it names.
///
/// # Errors
/// A file that cannot be read or is wrong. Wrong arguments end the process as clap does it.
pub(crate) fn parse(line: impl IntoIterator<Item = OsString>) -> anyhow::Result<(Args, Option<Loaded>)> {
    let mut line: Vec<OsString> = line.into_iter().collect();
    let Some(name) = scenario(&line) else { return Ok((Args::parse_from(line), None)) };
    let text = std::fs::read_to_string(&name).with_context(|| format!("cannot read {}", name.display()))?;
    let loaded = Loaded::parse(&name.to_string_lossy(), &text).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("\n"))
    })?;
    line.extend(flags(&loaded, &line)?);
    match Args::try_parse_from(line) {
        Ok(args) => Ok((args, Some(loaded))),
        Err(error) => match blamed(&error, &loaded) {
            Some(diagnostic) => bail!(diagnostic),
            None => error.exit(),
        },
    }
}

/// The file after `--scenario`.
fn scenario(line: &[OsString]) -> Option<std::path::PathBuf> {
    let mut words = line.iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--scenario") => return words.next().map(Into::into),
            Some("--") => return None,
            Some(word) => {
                if let Some(name) = word.strip_prefix("--scenario=") {
                    return Some(name.into());
                }
            }
            None => {}
        }
    }
    None
}

/// The file's flags that the line does not have, as they would be typed.
fn flags(loaded: &Loaded, line: &[OsString]) -> anyhow::Result<Vec<OsString>> {
    let command = Args::command();
    let run = command.find_subcommand("run").context("there is no subcommand run")?;
    let said: BTreeSet<&str> = line
        .iter()
        .filter_map(|word| word.to_str()?.strip_prefix("--"))
        .map(|flag| flag.split_once('=').map_or(flag, |(flag, _)| flag))
        .collect();
    let mut flags = Vec::new();
    let mut errors = Vec::new();
    for (name, values) in &loaded.run {
        let known = run.get_arguments().find(|arg| names(arg).any(|known| known == *name));
        let Some(arg) = known.filter(|_| !NOT_IN_A_FILE.contains(&name.as_str())) else {
            let known: Vec<&str> = run
                .get_arguments()
                .filter_map(clap::Arg::get_long)
                .filter(|flag| !NOT_IN_A_FILE.contains(flag))
                .collect();
            let mut error = loaded.run_error(name, "no flag of a run that may stand in a file");
            error.help = Some(model::file::one_of(name, &known));
            errors.push(error.to_string());
            continue;
        };
        if names(arg).any(|flag| said.contains(flag)) || name == "from" && has_interface(line) {
            continue;
        }
        match (arg.get_action(), values.as_slice()) {
            (ArgAction::SetTrue, [value]) if value == "true" => flags.push(format!("--{name}").into()),
            (ArgAction::SetTrue, [value]) if value == "false" => {}
            (ArgAction::SetTrue, _) => errors.push(loaded.run_error(name, "write true or false").to_string()),
            (_, values) => flags.extend(values.iter().map(|value| format!("--{name}={value}").into())),
        }
    }
    if errors.is_empty() { Ok(flags) } else { bail!(errors.join("\n")) }
}

/// Long names of an argument.
fn names(arg: &clap::Arg) -> impl Iterator<Item = &str> {
    arg.get_long().into_iter().chain(arg.get_all_aliases().unwrap_or_default())
}

/// Whether the word behind `run` is the interface to send on.
fn has_interface(line: &[OsString]) -> bool {
    let behind = line.iter().skip_while(|word| *word != "run").nth(1);
    behind.and_then(|word| word.to_str()).is_some_and(|word| !word.starts_with('-'))
}

/// The error, with its place in the file where a flag of the file is to blame.
fn blamed(error: &clap::Error, loaded: &Loaded) -> Option<String> {
    let Some(ContextValue::String(arg)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = arg.trim_start_matches('-').split([' ', '=']).next()?;
    loaded.run.get(flag)?;
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    Some(loaded.run_error(flag, first.strip_prefix("error: ").unwrap_or(first)).to_string())
}

/// The published schema: that of the file, with every flag that may stand in it.
#[cfg(test)]
pub(super) fn schema() -> serde_json::Value {
    use serde_json::{Value, json};
    let generator = schemars::generate::SchemaSettings::draft2020_12().for_deserialize().into_generator();
    let mut schema = Value::from(generator.into_root_schema_for::<pktgen::scenario::file::File>());
    let command = Args::command();
    let run = command.find_subcommand("run").unwrap();
    let flags = run.get_arguments().filter(|arg| arg.get_long().is_some_and(|flag| !NOT_IN_A_FILE.contains(&flag)));
    let properties: serde_json::Map<String, Value> = flags
        .map(|arg| {
            let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let schema = match arg.get_action() {
                ArgAction::SetTrue => json!({ "type": "boolean", "description": about }),
                _ => json!({ "$ref": "#/$defs/Setting", "description": about }),
            };
            (arg.get_long().unwrap().to_owned(), schema)
        })
        .collect();
    schema["title"] = json!("pktgen scenario");
    schema["properties"]["run"] = json!({
        "description": "Flags of `pktgen run` by name, without the dashes in front. Flags on the command line override them.",
        "type": "object",
        "properties": properties,
        "additionalProperties": false
    });
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
    }

    /// Rewritten with `UPDATE_EXPECTED=1 cargo test -p pktgen --bin pktgen`.
    #[test]
    fn committed_schema_is_current() {
        let path = root().join("docs/schema/pktgen-scenario.json");
        let current = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&path, &current).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == current, "{} is not current: run this test with UPDATE_EXPECTED=1", path.display());
    }

    /// Every example can be sent, is what the schema says, and needs no more than it says.
    #[test]
    fn examples_are_runs() {
        let validator = jsonschema::draft202012::new(&schema()).unwrap();
        let mut seen = 0;
        for entry in std::fs::read_dir(root().join("examples/pktgen")).unwrap() {
            let path = entry.unwrap().path();
            let line = ["pktgen", "run", "eth0", "--to=eth1", "--dst-mac=02::1", "--scenario", path.to_str().unwrap()];
            let (args, loaded) = parse(line.map(OsString::from)).unwrap_or_else(|e| panic!("{e}"));
            let super::super::Command::Run(run) = args.command else { panic!("run") };
            let config = run.config(loaded.as_ref()).unwrap();
            pktgen::traffic::Plan::new(&config.scenario, 1).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let text = std::fs::read_to_string(&path).unwrap();
            let document: serde_json::Value = model::file::Document::parse("", &text).unwrap().read().unwrap();
            let errors: Vec<String> =
                validator.iter_errors(&document).map(|e| format!("{}: {e}", e.instance_path())).collect();
            assert_eq!(errors, Vec::<String>::new(), "{}", path.display());
            seen += 1;
        }
        assert!(seen >= 5, "{seen}");
    }

    fn file(run: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        let streams = "streams: [{frame: ip4 198.18.0.1 > 198.19.0.1 / udp 1 > 2}]";
        std::fs::write(&path, format!("run: {run}\n{streams}\n")).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (dir, path)
    }

    fn config(run: &str, more: &str) -> anyhow::Result<pktgen::run::Config> {
        let (_dir, path) = file(run);
        let line = format!("pktgen run {more} --scenario {path}");
        let (args, loaded) = parse(line.split_whitespace().map(OsString::from))?;
        let super::super::Command::Run(run) = args.command else { bail!("run") };
        run.config(loaded.as_ref())
    }

    #[test]
    fn flags_of_the_line_override_those_of_the_file() {
        let run = "{from: eth7, to: eth8, for: 2s, count: 5k, queues: [0, 1], latency: true, dst-mac: '02::9'}";
        let from_file = config(run, "").unwrap();
        assert_eq!((from_file.from.as_str(), from_file.to.as_deref()), ("eth7", Some("eth8")));
        assert_eq!(
            (from_file.limit.count, from_file.queues, from_file.receive.latency),
            (Some(5000), vec![0, 1], true)
        );
        let overridden = config(run, "eth1 --count 7 --queues 3 --dst-mac 02::1").unwrap();
        assert_eq!((overridden.from.as_str(), overridden.limit.count, overridden.queues), ("eth1", Some(7), vec![3]));
        assert_eq!(overridden.dst_mac, Some([2, 0, 0, 0, 0, 1]));
    }

    #[test]
    fn mistakes_in_the_file_have_their_place() {
        for (run, expected) in [
            ("{from: eth0, fro: eth1}", "a.yaml:1:24: error: run.fro: no flag of a run"),
            ("{from: eth0, fro: eth1}", "did you mean 'from'?"),
            ("{from: eth0, pps: fast, count: 1}", "a.yaml:1:24: error: run.pps: invalid value 'fast'"),
            ("{from: eth0, latency: 5, count: 1}", "run.latency: write true or false"),
            ("{seed: 1}", "run.seed: no flag of a run that may stand in a file"),
        ] {
            let error = config(run, "").unwrap_err().to_string();
            assert!(error.contains(expected), "{run}: {error}");
        }
    }
}
