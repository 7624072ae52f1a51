//! ns per packet of the loaded pipeline, net of the harness around it.
//!
//! Every round runs each case three times back to back: an empty program, the harness alone, the harness with what is
//! measured in it. A figure is the difference of the last two within a round; the result is the median over rounds, so
//! that a slow moment of the machine hits all cases alike or drops out.

mod cases;
mod harness;
mod report;

use anyhow::{Context, bail, ensure};
use wildmatch::WildMatch;

use crate::machine::Machine;
use cases::Case;
use harness::{Bench, Storage};
use report::{CaseReport, Report, Round};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Print JSON with every round instead of a table.
    #[arg(long)]
    json: bool,
    /// Rounds over all cases.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Packets a program sees in each round.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Only cases whose name matches: `*` stands for any text.
    #[arg(long, default_value = "*")]
    case: String,
    /// Core to measure on; the last one where absent.
    #[arg(long)]
    core: Option<usize>,
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let machine = Machine::read();
    pin(options.core)?;
    let wanted = WildMatch::new(&options.case);
    let all = cases::all();
    let names: Vec<&str> = all.iter().map(|case| case.name).collect();
    let cases: Vec<&Case> = all.iter().filter(|case| wanted.matches(case.name)).collect();
    if cases.is_empty() {
        bail!("no case is called '{}'; there are {}", options.case, names.join(", "));
    }

    let mut storage: Vec<Storage> = cases.iter().map(|_| Storage::uninit()).collect();
    let mut benches = Vec::with_capacity(cases.len());
    for (case, storage) in cases.iter().zip(&mut storage) {
        benches.push(Bench::prepare(case, storage).with_context(|| format!("case {}", case.name))?);
    }
    // Once through without looking: flow table, caches and page tables as they are under load.
    for bench in &mut benches {
        bench.round(options.repeat)?;
    }
    let mut rounds: Vec<Vec<Round>> = benches.iter().map(|_| Vec::new()).collect();
    for _ in 0..options.rounds {
        for (bench, rounds) in benches.iter_mut().zip(&mut rounds) {
            rounds.push(bench.round(options.repeat)?);
        }
    }
    let reports = cases.iter().zip(rounds).map(|(case, rounds)| CaseReport::new(case.name, case.about, rounds));
    let report = Report::new(machine, options.repeat, reports.collect());
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(())
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
