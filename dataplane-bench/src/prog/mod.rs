//! ns per packet of margay's pipeline beside the kernel's primitives and other projects' programs, in one run.
//!
//! Every round goes over all cases; a case runs the harness around nothing and the harness around what is measured back
//! to back. A figure is their difference within a round and the result its median over rounds, so that a slow moment of
//! the machine hits all cases alike or drops out.

mod baseline;
mod bench;
mod kernel;
mod object;
mod pipeline;
pub(crate) mod prefixes;
mod rows;
mod sandbox;

use anyhow::{Context, bail, ensure};
use wildmatch::WildMatch;

use crate::result::{BenchResult, Keep, ProgRow};
use bench::{Bench, Label, Round};
use object::Objects;
use sandbox::Sandbox;

/// What the names of points of a sweep begin with.
const POINT: &str = "sweep/";
/// What `--sweep` measures.
const SWEEP: &str = "sweep/*,baseline/hash-hit*,baseline/lru-hit*,forward/hot";

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Print the rows as JSON, with every round, instead of a table.
    #[arg(long)]
    json: bool,
    /// Only cases whose name matches one of these, separated by commas: with `*` the whole name, else a part of it. An
    /// `--object` is measured in any case; with an empty pattern nothing else is. Points of a sweep are named by patterns
    /// that begin with `sweep/`.
    #[arg(long, value_name = "PATTERN", default_value = "*")]
    cases: String,
    /// Cost of load balancing against the number of flows and of VIPs, beside the kernel's hash maps and plain forwarding; the same as
    /// `--cases 'sweep/*,baseline/hash-hit*,baseline/lru-hit*,forward/hot'`. `dataplane-bench report` draws it.
    #[arg(long, conflicts_with = "cases")]
    sweep: bool,
    /// Rounds over all cases.
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Packets a program sees in each round.
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    repeat: u32,
    /// Core to measure on; the last one where absent.
    #[arg(long)]
    core: Option<usize>,
    /// Name the cases and measure nothing.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    objects: Objects,
    #[command(flatten)]
    keep: Keep,
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let patterns = if options.sweep { SWEEP } else { &options.cases };
    let selection = Selection::parse(patterns);
    let labels: Vec<Label> = baseline::labels().into_iter().chain(pipeline::labels()).collect();
    let chosen: Vec<&Label> = labels.iter().filter(|label| selection.holds(&label.case)).collect();
    if chosen.is_empty() && (options.objects.is_empty() || !patterns.is_empty()) {
        let names: Vec<&str> = labels.iter().map(|label| label.case.as_str()).collect();
        bail!("no case is called '{patterns}'; there are {}", names.join(", "));
    }
    if options.list {
        for label in chosen {
            println!("{:32} {}", label.case, label.about);
        }
        return Ok(());
    }

    let mut result = BenchResult::start(None);
    result.tool.objects.extend(kernel::objects());
    result.tool.objects.extend(object::hashes(&options.objects)?);
    pin(options.core)?;
    let sandbox = Sandbox::enter(baseline::destination())?;
    let mut benches = baseline::prepare(|case| selection.holds(case), &sandbox)?;
    benches.extend(object::prepare(&options.objects, &sandbox)?);
    benches.extend(pipeline::prepare(|case| selection.holds(case))?);
    result.prog = measure(benches, options.rounds, options.repeat)?;
    options.keep.finish(&mut result)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&result.prog)?);
    } else {
        let load = result.runs.first().map_or([0.0; 3], |run| run.load);
        println!("{}", rows::table(&result.prog, &result.machine, load, options.repeat));
    }
    Ok(())
}

fn measure(mut benches: Vec<Bench>, rounds: u32, repeat: u32) -> anyhow::Result<Vec<ProgRow>> {
    // Once through without looking: flow tables, caches and page tables as they are under load.
    for bench in &mut benches {
        bench.settle()?;
        bench.round(repeat, true)?;
    }
    let mut measured: Vec<Vec<Round>> = benches.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for (bench, measured) in benches.iter_mut().zip(&mut measured) {
            // What runs second finds warmer caches or a hotter core: each is second in turn.
            measured.push(bench.round(repeat, round.is_multiple_of(2))?);
        }
    }
    Ok(benches.into_iter().zip(measured).map(|(bench, rounds)| rows::row(bench.label, &rounds)).collect())
}

/// Which cases to measure.
#[derive(Debug)]
struct Selection(Vec<(WildMatch, bool)>);

impl Selection {
    fn parse(patterns: &str) -> Self {
        let whole = |pattern: &str| if pattern.contains('*') { pattern.to_owned() } else { format!("*{pattern}*") };
        let patterns = patterns.split(',').map(str::trim).filter(|pattern| !pattern.is_empty());
        Self(patterns.map(|pattern| (WildMatch::new(&whole(pattern)), pattern.starts_with(POINT))).collect())
    }

    /// Points of a sweep are many: nobody who asks for all cases wants them.
    fn holds(&self, case: &str) -> bool {
        let named = |(pattern, asks): &(WildMatch, bool)| pattern.matches(case) && (*asks || !case.starts_with(POINT));
        self.0.iter().any(named)
    }
}

/// BPF_PROG_TEST_RUN measures where its caller runs.
fn pin(core: Option<usize>) -> anyhow::Result<()> {
    let cores = core_affinity::get_core_ids().context("the kernel does not tell which cores there are")?;
    let chosen = match core {
        Some(id) => cores.iter().find(|core| core.id == id).with_context(|| format!("there is no core {id}"))?,
        None => cores.last().context("no core to run on")?,
    };
    ensure!(core_affinity::set_for_current(*chosen), "cannot run on core {}", chosen.id);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn patterns_name_wholes_with_a_star_and_parts_without() {
        let holds = |patterns, case| Selection::parse(patterns).holds(case);
        assert!(holds("*", "lb/ipip4-hot") && holds("lb/*", "lb/ipip4-hot") && holds("ipip4", "lb/ipip4-hot"));
        assert!(!holds("ipip*", "lb/ipip4-hot") && !holds("lb/*", "baseline/lb"));
        assert!(!holds("*", "sweep/flows-1") && !holds("flows", "sweep/flows-1") && holds("sweep/", "sweep/flows-1"));
        assert!(
            holds(SWEEP, "sweep/vips-4000-all") && holds(SWEEP, "baseline/lru-hit-1m") && !holds(SWEEP, "lb/l2-hot")
        );
        assert!(holds("fib, lb/*", "lb/l2-hot") && holds("fib, lb/*", "fib/v4-hot") && !holds("fib,,", "lb/l2-hot"));
    }

    #[test]
    fn names_are_unique_and_rivals_exist() {
        let labels: Vec<Label> = baseline::labels().into_iter().chain(pipeline::labels()).collect();
        let names: BTreeSet<&str> = labels.iter().map(|label| label.case.as_str()).collect();
        assert_eq!(names.len(), labels.len());
        assert!(labels.iter().filter_map(|label| label.rival).all(|rival| names.contains(rival)));
    }
}
