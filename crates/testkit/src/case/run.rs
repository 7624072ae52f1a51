//! Running a case: program and oracle, each feature set, whole frames and exact counters.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use margay::dataplane::PortCounters;
use model::network::{IfIndex, Network};
use model::tables::PortId;
use model::verdict::{DropReason, PuntReason, Verdict};

use super::{Case, MetaSpec, Step, Topology, valid};
use crate::program::{Arrival, FeatureSet, Meta, Program, Sockets, World, count, oracle};

/// What was run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Files.
    pub cases: usize,
    /// Frames, each with two feature sets.
    pub steps: usize,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    verdict: Verdict,
    /// Empty for a drop.
    frame: Vec<u8>,
}

impl Outcome {
    /// The text of `out`: the frame is left out where it is the one that came in.
    fn print(&self, network: &Network, arrival: &Arrival) -> String {
        let verdict = match self.verdict {
            Verdict::Redirect(index) => {
                let name = network.links.get(&index).map_or_else(|| index.to_string(), |link| link.name.clone());
                format!("redirect({name})")
            }
            other => other.to_string(),
        };
        if matches!(self.verdict, Verdict::Drop(_)) || self.frame == arrival.frame {
            return verdict;
        }
        format!("{verdict} {}", packet::notation::decode(&self.frame))
    }

    fn parse(text: &str, network: &Network, arrival: &Arrival) -> Result<Self> {
        let (verdict, frame) = text.split_once(' ').unwrap_or((text, ""));
        let (kind, argument) = match verdict.strip_suffix(')').and_then(|v| v.split_once('(')) {
            Some((kind, argument)) => (kind, Some(argument)),
            None => (verdict, None),
        };
        let verdict = match (kind, argument) {
            ("pass", None) => Verdict::Pass,
            ("tx", None) => Verdict::Tx,
            ("redirect", Some(name)) => {
                let (index, _) = network.link_by_name(name).with_context(|| format!("no link {name}"))?;
                Verdict::Redirect(index)
            }
            ("punt", Some(name)) => {
                Verdict::Punt(PuntReason::from_name(name).with_context(|| format!("no punt reason {name}"))?)
            }
            ("drop", Some(name)) => {
                Verdict::Drop(DropReason::from_name(name).with_context(|| format!("no drop reason {name}"))?)
            }
            _ => bail!("'{verdict}' is no verdict (write pass, tx, redirect(LINK), punt(REASON) or drop(REASON))"),
        };
        let frame = match (verdict, frame) {
            (Verdict::Drop(_), "") => Vec::new(),
            (Verdict::Drop(_), _) => bail!("a drop has no frame"),
            (_, "") => arrival.frame.clone(),
            (_, text) => packet::notation::encode(text)?,
        };
        Ok(Self { verdict, frame })
    }
}

/// Runs one file with every feature set. With `update`, writes what happens as what is expected, and says so by `true`.
///
/// # Errors
/// The first step that does something else than the file or the oracle says.
pub fn run(path: &Path, topology: &Topology, totals: &mut Totals, update: bool) -> Result<bool> {
    let case = Case::read(path)?;
    ensure!(!case.step.is_empty(), "a case without a step");
    let world = case.world(topology)?;
    let outs = run_steps(&case, &world, FeatureSet::Smallest, update)?;
    if case.full {
        let full = run_steps(&case, &world, FeatureSet::Full, update)?;
        ensure!(full == outs, "the feature sets differ: {outs:?} and {full:?}");
    }
    totals.cases += 1;
    totals.steps += case.step.len();
    let changed = case.step.iter().zip(&outs).any(|(step, out)| step.out != *out);
    if update && changed {
        rewrite(path, &outs)?;
    }
    Ok(update && changed)
}

fn run_steps(case: &Case, world: &World, features: FeatureSet, update: bool) -> Result<Vec<String>> {
    let mut program = Program::load(world, features)?;
    let _sockets = if case.workers { Some(Sockets::open(&program)?) } else { None };
    let mut before = program.counters()?;
    let mut outs = Vec::new();
    for (number, step) in case.step.iter().enumerate() {
        let place = || format!("step {}, {features}", number + 1);
        let (port, _) = world
            .network
            .link_by_name(&step.port)
            .with_context(|| format!("no link {}", step.port))
            .with_context(place)?;
        let arrival = Arrival { ifindex: port, frame: packet::notation::encode(&step.r#in).with_context(place)? };
        let out = run_step(case, world, &mut program, features, step, &arrival, update).with_context(place)?;
        let after = program.counters()?;
        check_counters(&before, &after, &out, &arrival, step).with_context(place)?;
        before = after;
        outs.push(out.outcome.print(&world.network, &arrival));
    }
    for (port, counters) in before {
        ensure!(counters.accounted() == counters.rx, "port {}: {counters:?} does not add up", port.0);
    }
    Ok(outs)
}

/// What a step did, and which port must have counted it.
struct Ran {
    outcome: Outcome,
    port: PortId,
}

fn run_step(
    case: &Case,
    world: &World,
    program: &mut Program,
    features: FeatureSet,
    step: &Step,
    arrival: &Arrival,
    update: bool,
) -> Result<Ran> {
    let judgement = oracle(world, features).judge(&arrival.frame, arrival.ifindex);
    let port = match judgement.port {
        Some(index) => program.port(world, index)?,
        None => PortId(0),
    };
    let judged = if case.workers { judgement.verdict } else { judgement.verdict.without_worker() };
    let before = program.dataplane().port_counters(port)?;
    // The explaining instance knows where a redirect leads; what it leaves untouched is counted by the run.
    let explained = program.explain(arrival)?.verdict;
    let run = program.run(arrival)?;
    let verdict = counted(&before, &program.dataplane().port_counters(port)?, explained)?;
    let action = match verdict {
        Verdict::Drop(_) => 1,
        Verdict::Pass => 2,
        Verdict::Tx => 3,
        Verdict::Redirect(_) | Verdict::Punt(_) => 4,
    };
    ensure!(run.action == action, "XDP action {} but counted as {verdict}", run.action);
    let frame = if action == 1 { Vec::new() } else { run.frame };
    let outcome = Outcome { verdict, frame };

    if !update {
        let expected = Outcome::parse(&step.out, &world.network, arrival).context("out")?;
        let print = |outcome: &Outcome| outcome.print(&world.network, arrival);
        ensure!(outcome == expected, "\n  expected: {}\n  found:    {}", print(&expected), print(&outcome));
    }
    // The oracle knows no time: a bucket that has run dry is the case's word against nobody's.
    let rated = verdict == Verdict::Drop(DropReason::PuntRate) && matches!(judgement.verdict, Verdict::Punt(_));
    ensure!(verdict == judged || rated, "the program says {verdict}, the oracle {judged}");
    if !matches!(verdict, Verdict::Drop(_)) {
        let text = packet::notation::decode;
        let (found, asked) = (&outcome.frame, &judgement.frame);
        ensure!(found == asked, "the oracle has another frame\n  program: {}\n  oracle:  {}", text(found), text(asked));
    }
    check_meta(world, step, verdict, &run.meta, port)?;
    let ports = valid::Ports { vxlan: world.desired.node.vxlan_port, gue: world.desired.node.gue_port };
    if !outcome.frame.is_empty() && valid::frame(&arrival.frame, ports).is_ok() {
        valid::frame(&outcome.frame, ports).context("a right frame came in and a wrong one goes out")?;
    }
    Ok(Ran { outcome, port })
}

/// The verdict whose counter has moved.
fn counted(before: &PortCounters, after: &PortCounters, explained: Verdict) -> Result<Verdict> {
    let mut candidates = vec![Verdict::Pass, Verdict::Tx, explained];
    candidates.extend(PuntReason::ALL.iter().map(|reason| Verdict::Punt(*reason)));
    candidates.extend(DropReason::ALL.iter().map(|reason| Verdict::Drop(*reason)));
    let bytes = usize::try_from(after.rx.bytes - before.rx.bytes)?;
    let explains = |verdict: &Verdict| {
        let mut expected = before.clone();
        count(&mut expected, *verdict, bytes);
        expected == *after
    };
    let found = candidates.into_iter().find(explains);
    found.with_context(|| format!("counters moved strangely: from {before:?} to {after:?}"))
}

/// Exactly the counters of one frame have moved, on one port.
fn check_counters(
    before: &BTreeMap<PortId, PortCounters>,
    after: &BTreeMap<PortId, PortCounters>,
    ran: &Ran,
    arrival: &Arrival,
    step: &Step,
) -> Result<()> {
    let mut expected = before.clone();
    count(expected.entry(ran.port).or_default(), ran.outcome.verdict, arrival.frame.len());
    ensure!(expected == *after, "counters: {after:?}, expected {expected:?}");
    for (name, moved) in &step.count {
        let total = |counters: &BTreeMap<PortId, PortCounters>| -> Result<u64> {
            counters.values().map(|c| counter(c, name)).sum()
        };
        let found = total(after)? - total(before)?;
        ensure!(found == *moved, "counter {name} moved by {found}, expected {moved}");
    }
    Ok(())
}

/// Packets of a counter by its name: `rx`, `pass`, `tx`, `redirect`, `punt.REASON`, `drop.REASON`.
fn counter(counters: &PortCounters, name: &str) -> Result<u64> {
    let packets = |found: Option<&margay::dataplane::Count>| found.map_or(0, |count| count.packets);
    Ok(match name.split_once('.') {
        None if name == "rx" => counters.rx.packets,
        None if name == "pass" => counters.pass.packets,
        None if name == "tx" => counters.tx.packets,
        None if name == "redirect" => counters.redirect.packets,
        Some(("punt", reason)) if PuntReason::from_name(reason).is_some() => packets(counters.punt.get(reason)),
        Some(("drop", reason)) if DropReason::from_name(reason).is_some() => packets(counters.drop.get(reason)),
        _ => bail!("no counter {name}"),
    })
}

fn check_meta(world: &World, step: &Step, verdict: Verdict, bytes: &[u8], port: PortId) -> Result<()> {
    let Verdict::Punt(reason) = verdict else {
        ensure!(bytes.is_empty(), "{} bytes of metadata without a punt", bytes.len());
        ensure!(step.meta.is_none(), "meta is for punts");
        return Ok(());
    };
    let meta = Meta::read(bytes)?;
    ensure!(usize::from(meta.reason) == reason as usize && meta.port == port.0, "metadata {meta:?}");
    let Some(expected) = &step.meta else { return Ok(()) };
    let egress = world.network.links.get(&IfIndex(meta.egress)).map(|link| link.name.clone());
    let address = (!meta.address.is_unspecified()).then(|| meta.address.to_canonical());
    let found = MetaSpec { mtu: meta.mtu, egress, address, decrement_ttl: meta.flags == 1 };
    ensure!(found == *expected, "metadata {found:?}, expected {expected:?}");
    Ok(())
}

/// Writes each step's `out`, each on a line of its own, back into the file.
fn rewrite(path: &Path, outs: &[String]) -> Result<()> {
    let text = std::fs::read_to_string(path)?;
    let mut outs = outs.iter();
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("out = ") {
            Some(_) => lines.push(format!("out = \"{}\"", outs.next().context("more lines with out than steps")?)),
            None => lines.push(line.to_owned()),
        }
    }
    ensure!(outs.next().is_none(), "every step needs a line that starts with `out = `");
    std::fs::write(path, lines.join("\n") + "\n")?;
    Ok(())
}
