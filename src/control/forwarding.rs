//! Generations: compiled from the state, written to the kernel by difference, attached to the interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use model::compile::{CompileError, Compiled, Compiler, LeftOut, Notice};
use model::desired::Desired;
use model::ids::{Ids, Loss};
use model::marks::{Living, Marks};
use model::network::{IfIndex, Network};
use model::rib::Rib;
use model::tables::{VipId, VipKey};
use tracing::{debug, error, info, warn};

use super::adoption;
use crate::dataplane::{self, Applied, Attach, Dataplane, Reasons};

/// Longest time between two looks through the flow table while slots are marked, and how many there are in the time that these stay so at least.
const LOOK: Duration = Duration::from_secs(300);
const LOOKS: u32 = 4;
/// How much longer than they are told clients stay at most: what two ticks of the flow table's clock are.
const STAYS_MORE: Duration = Duration::from_secs(9);

/// Why the state is not in force.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It does not fit.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The kernel refused it.
    #[error(transparent)]
    Dataplane(#[from] dataplane::Error),
}

/// How the last generations went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Effort {
    pub(super) compile: Duration,
    pub(super) apply: Duration,
    /// Map entries written or deleted by all generations.
    pub(super) writes: u64,
    /// Generations that failed.
    pub(super) failures: u64,
}

/// The generation in force and the kernel side of it.
pub(super) struct Forwarding {
    dataplane: Dataplane,
    compiler: Compiler,
    generation: u64,
    /// The kernel does not have what was compiled last.
    unwritten: bool,
    /// What was told of the generation in force.
    notices: Vec<Notice>,
    /// Interfaces that the program could not be attached to, and why.
    refused: BTreeMap<IfIndex, String>,
    failure: Option<String>,
    effort: Effort,
    /// Programs that have been in force.
    programs: u64,
    reasons: Reasons,
    /// Slots of rings that have changed, counted from `began`.
    marks: Marks,
    began: Instant,
    /// When flows were last looked through for slots that need them no more.
    looked: Instant,
}

impl Forwarding {
    /// Opens the pin directory and takes over what a former process left there.
    pub(super) fn open(pin_dir: &Path) -> Result<Self, dataplane::Error> {
        let dataplane = Dataplane::open(pin_dir.to_owned())?;
        let ids = dataplane.adopted().map(Ids::adopt).unwrap_or_default();
        if let Some(tables) = dataplane.adopted() {
            info!(fib = tables.fib.len(), vips = tables.vips.len(), "took over the tables of a former process");
        }
        Ok(Self {
            dataplane,
            compiler: Compiler::new(ids),
            generation: 0,
            unwritten: true,
            notices: Vec::new(),
            refused: BTreeMap::new(),
            failure: None,
            effort: Effort::default(),
            programs: 0,
            reasons: Reasons::read()?,
            marks: Marks::default(),
            began: Instant::now(),
            looked: Instant::now(),
        })
    }

    /// True when a former process left tables in force.
    pub(super) fn has_adopted(&self) -> bool {
        self.dataplane.adopted().is_some()
    }

    /// Routes through gateways that a former process forwarded.
    pub(super) fn adopted_routes(&self) -> BTreeMap<IpNet, Vec<(IpAddr, IfIndex)>> {
        self.dataplane.adopted().map(adoption::routes).unwrap_or_default()
    }

    /// The backends that get packets, by the VIPs that they serve: before the first generation those of a former process.
    pub(super) fn serving(&self) -> BTreeSet<(VipKey, IpAddr)> {
        let adopted = self.dataplane.adopted().filter(|_| self.generation == 0);
        let tables = adopted.unwrap_or(&self.compiled().tables);
        let keys: BTreeMap<VipId, VipKey> = tables.vips.iter().map(|(key, id)| (*id, *key)).collect();
        let backends = tables.backends.values();
        backends.filter_map(|backend| Some((*keys.get(&backend.vip)?, backend.address))).collect()
    }

    /// Number of the generation in force; 0 before the first.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// How many programs have been in force: another number, another program.
    pub(super) fn programs(&self) -> u64 {
        self.programs
    }

    /// The generation in force.
    pub(super) fn compiled(&self) -> &Compiled {
        self.compiler.compiled()
    }

    /// How many routes there is no room for.
    pub(super) fn left_out(&self, rib: &Rib) -> LeftOut {
        self.compiler.left_out(rib)
    }

    /// The kernel side.
    pub(super) fn dataplane(&self) -> &Dataplane {
        &self.dataplane
    }

    /// The kernel side, to run the program on a packet.
    pub(super) fn dataplane_mut(&mut self) -> &mut Dataplane {
        &mut self.dataplane
    }

    /// Drop and punt reasons in the program's own words.
    pub(super) fn reasons(&self) -> &Reasons {
        &self.reasons
    }

    /// How the last generations went.
    pub(super) fn effort(&self) -> Effort {
        self.effort
    }

    /// How long the last generation took.
    pub(super) fn last_duration(&self) -> Duration {
        self.effort.compile + self.effort.apply
    }

    /// Why the state is not in force, if it is not.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Interfaces that the program could not be attached to, and why.
    pub(super) fn refused(&self) -> &BTreeMap<IfIndex, String> {
        &self.refused
    }

    /// True where the program is attached.
    pub(super) fn is_attached(&self, ifindex: IfIndex) -> bool {
        self.dataplane.attached().any(|(attached, _)| attached == ifindex)
    }

    /// Compiles the state and puts it into force.
    pub(super) fn advance(&mut self, desired: &Desired, network: &Network, rib: &mut Rib) -> Result<(), Error> {
        let outcome = self.try_advance(desired, network, rib);
        self.record(outcome)
    }

    /// Puts changes of routes into force that concern the FIB alone. False, and nothing is done, where
    /// [`advance`](Self::advance) is needed.
    pub(super) fn follow(&mut self, rib: &mut Rib) -> Result<bool, Error> {
        if self.unwritten || !self.compiler.follow(rib) {
            return Ok(false);
        }
        self.unwritten = true;
        let fib = &self.compiler.compiled().tables.fib;
        let applied = self.dataplane.apply_routes(fib, self.compiler.changed());
        let outcome = applied.map(|applied| self.in_force(applied)).map_err(Error::from);
        self.record(outcome).map(|()| true)
    }

    /// Moves the flows of an interface or a neighbour that was lost, wherever a group has another next hop, before a generation is
    /// compiled.
    pub(super) fn lose(&mut self, loss: Loss) {
        if self.unwritten {
            return;
        }
        let groups = self.compiler.lose(loss);
        match self.dataplane.apply_groups(&self.compiler.compiled().tables, &groups) {
            Ok(writes) => self.effort.writes += writes as u64,
            // The generation that follows finds them different and writes them, or says why it cannot.
            Err(failure) => {
                error!(%failure, "next hops that were lost could not be taken out of their groups at once");
                self.unwritten = true;
            }
        }
    }

    /// Takes a step in bringing back what changes have led out of its cache lines; true where nothing is left to do.
    pub(super) fn fold(&mut self) -> bool {
        self.dataplane.fold()
    }

    /// Slots of a VIP that have changed: their flows are looked for in the flow table.
    pub(super) fn changed_slots(&self, vip: VipId) -> usize {
        self.marks.count(vip)
    }

    /// When slots that have changed are next looked through.
    pub(super) fn next_look(&self, desired: &Desired) -> Option<Instant> {
        let after = desired.node.settle?;
        (!self.marks.is_empty()).then(|| self.looked + LOOK.min(after / LOOKS))
    }

    /// Lets slots count as unchanged that no flow needs to be remembered for; true where there are any, from the next generation on.
    pub(super) fn clear_marks(&mut self, desired: &Desired, now: Instant) -> bool {
        self.looked = now;
        let Some(settle) = desired.node.settle else { return false };
        let since_began = now - self.began;
        let tables = &self.compiler.compiled().tables;
        // Until then clients that are not remembered go where they went before.
        let stays = |vip: VipId| tables.affinity.get(&vip).map_or(Duration::ZERO, |stays| *stays + STAYS_MORE);
        let after = |vip: VipId| settle.max(stays(vip));
        if self.marks.done(since_began, after, []).is_empty() {
            return false;
        }
        let flows = match self.dataplane.flows() {
            Ok(flows) => flows,
            Err(failure) => {
                warn!(%failure, "the flow table cannot be read, changed slots stay marked");
                return false;
            }
        };
        let living = flows.into_iter().filter_map(|flow| {
            let vip = tables.backends.get(&flow.backend)?.vip;
            let lives = flow.may_go_on() || (flow.established && flow.age < stays(vip));
            lives.then_some(Living { vip, slot: flow.slot, backend: flow.backend })
        });
        let done = self.marks.done(since_began, after, living);
        self.compiler.clear(&done);
        debug!(slots = done.values().map(BTreeSet::len).sum::<usize>(), "changed slots are as good as unchanged");
        !done.is_empty()
    }

    fn record(&mut self, outcome: Result<(), Error>) -> Result<(), Error> {
        self.failure = outcome.as_ref().err().map(ToString::to_string);
        self.effort.failures += u64::from(outcome.is_err());
        outcome
    }

    fn try_advance(&mut self, desired: &Desired, network: &Network, rib: &mut Rib) -> Result<(), Error> {
        let begin = Instant::now();
        let differs = self.compiler.compile(desired, network, rib)?;
        self.effort.compile = begin.elapsed();
        if !differs && !self.unwritten && self.refused.is_empty() {
            return Ok(());
        }
        let news = differs || self.unwritten;
        self.unwritten = true;
        let begin = Instant::now();
        let applied = self.apply(network)?;
        self.effort.apply = begin.elapsed();
        self.programs += u64::from(applied.program_replaced);
        if news {
            self.in_force(applied);
            self.marks.follow(&self.compiler.compiled().tables.rings, self.began.elapsed());
        } else {
            self.effort.writes += applied.writes as u64;
            self.unwritten = false;
        }
        Ok(())
    }

    /// The kernel has what was compiled.
    fn in_force(&mut self, applied: Applied) {
        self.compiler.written();
        self.unwritten = false;
        self.effort.writes += applied.writes as u64;
        self.generation += 1;
        let (generation, writes, links) = (self.generation, applied.writes, applied.links_changed);
        if generation == 1 || applied.program_replaced || links > 0 {
            let program_replaced = applied.program_replaced;
            info!(generation, writes, links, program_replaced, "generation in force");
        } else {
            let (compile, apply) = (self.effort.compile, self.effort.apply);
            debug!(generation, writes, ?compile, ?apply, "generation in force");
        }
        let notices = &self.compiler.compiled().notices;
        if self.notices != *notices {
            // Thousands that stay are found at once, by their order.
            let known = |notice: &Notice| {
                self.notices.binary_search(notice).is_ok()
                    || self.notices.iter().any(|known| known.is_about_the_same(notice))
            };
            let news = notices.iter().filter(|notice| !notice.is_of_checks() && !known(notice));
            news.for_each(|notice| warn!("{notice}"));
            self.notices.clone_from(notices);
        }
    }

    /// Writes a generation. An interface that does not take the program is left out; that is its own problem, and it is
    /// tried again with the next generation.
    fn apply(&mut self, network: &Network) -> Result<Applied, Error> {
        let compiled = self.compiler.compiled();
        let name = |ifindex: &IfIndex| network.links.get(ifindex).map(|link| link.name.clone()).unwrap_or_default();
        let mut attach: Vec<Attach> = compiled
            .attach
            .iter()
            .map(|(ifindex, mode)| Attach { ifindex: *ifindex, name: name(ifindex), mode: *mode })
            .collect();
        let mut refused = BTreeMap::new();
        let mut total = Applied::default();
        loop {
            let (features, parameters) = (compiled.features, &compiled.parameters);
            let changed = self.compiler.changed();
            match self.dataplane.apply_changed(&compiled.tables, changed, features, parameters, &attach) {
                Ok(applied) => {
                    total.writes += applied.writes;
                    total.program_replaced |= applied.program_replaced;
                    total.links_changed += applied.links_changed;
                    break;
                }
                Err(failure @ dataplane::Error::Attach { .. }) => {
                    let dataplane::Error::Attach { interface, .. } = &failure else { return Err(failure.into()) };
                    let Some(at) = attach.iter().position(|one| one.name == *interface) else {
                        return Err(failure.into());
                    };
                    let ifindex = attach.remove(at).ifindex;
                    let failure = failure.to_string();
                    if self.refused.get(&ifindex) != Some(&failure) {
                        error!("{failure}");
                    }
                    refused.insert(ifindex, failure);
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        self.refused = refused;
        Ok(total)
    }
}
