//! The owner of the state: events in, generations out.
//!
//! - One task holds everything and nothing in it is locked. Sources and the API reach it through one channel.
//! - Changes are collected for a moment, so that a burst makes one generation; a neighbour that was resolved is applied at
//!   once. The moment grows with the time that a generation takes, so that a big table cannot starve the sessions.
//! - A generation that cannot be compiled or written changes nothing: the one before keeps forwarding, the failure is a
//!   problem in the status, and it is tried again.

use std::time::{Duration, Instant};

use model::ids::Loss;
use model::network::Network;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::api::types::{DrainRequest, Drained};
use super::api::{Query, QueryError, Reply};
use super::drains::{self, Drains};
use super::event::{Asked, Event, KernelTable};
use super::folding::Folding;
use super::forwarding::Forwarding;
use super::health::Health;
use super::neighbors::{Neighbors, Request};
use super::netlink::{Change, NeighborEntry, routes};
use super::routing::Routing;
use super::workers::Workers;
use super::{Options, answer};
use crate::config;
use crate::slowpath::{FromWorker, ToWorker};

/// Shortest and longest time for which changes are collected.
const SETTLE: std::ops::RangeInclusive<Duration> = Duration::from_millis(2)..=Duration::from_millis(200);
/// Pause before a generation that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Comparisons with the kernel's table before a difference is one, and the pause between them: a route that the kernel has
/// and margay has not heard of yet is on its way.
const COMPARISONS: u32 = 3;
const COMPARISON_PAUSE: Duration = Duration::from_millis(300);
/// Pause before an interface that refused the program, or a slow path that did not start, is tried again.
const PATIENT_RETRY: Duration = Duration::from_secs(30);

/// The configuration in force and what is wrong with the files, if anything.
#[derive(Debug)]
pub(super) struct Configuration {
    /// In force, with what looks wrong about it.
    pub(super) loaded: config::Loaded,
    /// Why the files as they are now are not in force.
    pub(super) failure: Option<config::Error>,
    /// When the files became, or ceased to be, what is in force.
    pub(super) since: Instant,
}

impl Configuration {
    /// What is wrong with the files: the errors that keep them from being in force; else what looks wrong about them, and
    /// interfaces that are not there. Interfaces come and go: a missing one is told of with its place and refuses nothing.
    pub(super) fn diagnostics(&self, network: Option<&Network>) -> Vec<String> {
        match &self.failure {
            Some(config::Error::Invalid(diagnostics)) => diagnostics.iter().map(ToString::to_string).collect(),
            Some(other) => vec![other.to_string()],
            None => {
                let absent = network.map(|network| config::check_network(&self.loaded, network)).unwrap_or_default();
                self.loaded.warnings.iter().chain(&absent).map(ToString::to_string).collect()
            }
        }
    }
}

/// All state of the control thread.
pub(super) struct Owner {
    pub(super) options: Options,
    pub(super) started: Instant,
    pub(super) config: Configuration,
    pub(super) network: Network,
    pub(super) routing: Routing,
    pub(super) neighbors: Neighbors,
    pub(super) forwarding: Forwarding,
    pub(super) health: Health,
    pub(super) drains: Drains,
    pub(super) workers: Workers,
    folding: Folding,
    requests: mpsc::UnboundedSender<Request>,
    events: mpsc::Sender<Event>,
    /// Which of the kernel's tables are followed.
    kernel_routes: watch::Sender<Option<routes::Settings>>,
    /// When the next generation is compiled; `None` while nothing has changed.
    due: Option<Instant>,
    /// It is due because of changes that settle.
    settling: bool,
    /// The kernel has been read. Before that, a generation would be one of a node without links.
    network_known: bool,
}

impl Owner {
    pub(super) fn new(
        options: Options,
        mut config: config::Loaded,
        forwarding: Forwarding,
        health: Health,
        events: mpsc::Sender<Event>,
        requests: mpsc::UnboundedSender<Request>,
        kernel_routes: watch::Sender<Option<routes::Settings>>,
    ) -> Self {
        let now = Instant::now();
        let mut drains = Drains::open(&options.state_dir, &config.desired.node.name);
        drains.apply(&mut config.desired);
        let routing = Routing::new(&forwarding, events.clone());
        Self {
            options,
            started: now,
            config: Configuration { loaded: config, failure: None, since: now },
            network: Network::default(),
            routing,
            neighbors: Neighbors::default(),
            forwarding,
            health,
            drains,
            workers: Workers::new(events.clone()),
            folding: Folding::default(),
            requests,
            events,
            kernel_routes,
            due: None,
            settling: false,
            network_known: false,
        }
    }

    /// Handles events until [`Event::Stop`].
    pub(super) async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        loop {
            let wake = [self.due, self.neighbors.next_due(), self.folding.next_due(), self.next_look()];
            let wake = wake.into_iter().flatten().min();
            let event = match wake {
                Some(at) => tokio::time::timeout_at(at.into(), events.recv()).await.ok(),
                None => Some(events.recv().await),
            };
            match event {
                Some(Some(Event::Stop) | None) => break,
                Some(Some(event)) => self.handle(event),
                None => {}
            }
            let now = Instant::now();
            if self.due.is_some_and(|due| due <= now) {
                self.next_generation();
            }
            for request in self.neighbors.due(&self.network, now) {
                self.ask_kernel(request);
            }
            if self.next_look().is_some_and(|look| look <= now)
                && self.forwarding.clear_marks(&self.config.loaded.desired, now)
            {
                self.changed(false);
            }
            if self.folding.is_due(now) {
                self.folding.stepped(self.forwarding.fold(), now);
            }
        }
        info!("stopping; programs, maps and links stay in place and keep forwarding");
        self.workers.stop();
        self.routing.stop().await;
        self.health.stop();
    }

    /// When slots that have changed are next looked through.
    fn next_look(&self) -> Option<Instant> {
        self.forwarding.next_look(&self.config.loaded.desired)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::ConfigChanged => self.reload(),
            Event::Network(change) => self.network_changed(change),
            Event::KernelRoutes(update) => self.kernel_routes_changed(update),
            Event::KernelTable(table) => self.compare(table),
            Event::Bgp(event) => {
                let was_settled = self.routing.is_settled();
                if self.routing.changed(event) {
                    self.routes_changed();
                }
                self.routes_settled(was_settled);
            }
            Event::Health(news) => {
                if self.health.learn(news, &mut self.network) {
                    self.changed(true);
                }
            }
            Event::Worker(FromWorker::Resolve { ifindex, address }) => self.resolve_for_worker((ifindex, address)),
            Event::Worker(FromWorker::Failed(failure)) => self.workers.failed(failure.to_string()),
            Event::Api(Query::KernelDiff { vrf, limit }, reply) => self.ask_kernel_table(vrf, limit, reply),
            Event::Api(Query::Drain(request), reply) => drop(reply.send(self.drain(&request))),
            Event::Api(query, reply) => {
                // What the RIB says and what forwards are one state in every answer.
                if self.settling {
                    self.next_generation();
                }
                // A receiver that has gone away has given up waiting.
                drop(reply.send(answer::answer(self, &query)));
            }
            Event::Metrics(reply) => drop(reply.send(answer::scrape(self))),
            Event::Stop => {}
        }
    }

    fn kernel_routes_changed(&mut self, update: routes::Update) {
        let (was_ready, was_settled) = (self.is_ready(), self.routing.is_settled());
        if self.routing.kernel_changed(update) {
            self.routes_changed();
        }
        self.routes_settled(was_settled);
        if !was_ready {
            self.changed(true);
        }
    }

    /// Who has no route now has none: what waited for that is told with the next generation.
    fn routes_settled(&mut self, were_settled: bool) {
        if !were_settled && self.routing.is_settled() {
            self.changed(false);
        }
    }

    /// Enough is known for a first generation. One that takes the place of a former process's waits for the kernel's routes:
    /// of those that drop, or leave packets to the host, nothing is adopted.
    fn is_ready(&self) -> bool {
        let kernel = self.routing.kernel();
        let routes_known = kernel.synchronised || kernel.failure.is_some();
        self.network_known && (routes_known || !self.forwarding.has_adopted() || self.forwarding.generation() > 0)
    }

    /// Marks the state as changed: a generation follows once changes have settled, or at once.
    fn changed(&mut self, at_once: bool) {
        if !self.is_ready() {
            return;
        }
        let settle = self.forwarding.last_duration().clamp(*SETTLE.start(), *SETTLE.end());
        let due = if at_once { Instant::now() } else { Instant::now() + settle };
        self.due = Some(self.due.map_or(due, |former| former.min(due)));
        self.settling = true;
    }

    /// Routes that lead where others lead already are in force at once; what else they concern settles first.
    fn routes_changed(&mut self) {
        if self.settling {
            return;
        }
        match self.forwarding.follow(self.routing.rib_mut()) {
            Ok(true) => self.folding.changed(Instant::now()),
            Ok(false) => self.changed(false),
            Err(failure) => self.failed(&failure),
        }
    }

    fn failed(&mut self, failure: &super::forwarding::Error) {
        let generation = self.forwarding.generation();
        error!(generation, error = %failure, "the new state is not in force, the generation before stays");
        self.due = Some(Instant::now() + RETRY);
    }

    fn reload(&mut self) {
        let was_valid = self.config.failure.is_none();
        match config::load_dir(&self.options.config_dir, self.options.node.as_deref()) {
            Ok(mut loaded) => {
                self.drains.apply(&mut loaded.desired);
                let changed = loaded.desired != self.config.loaded.desired;
                if !was_valid || changed {
                    info!("configuration loaded");
                    self.config.since = Instant::now();
                }
                self.config.loaded = loaded;
                self.config.failure = None;
                self.config.diagnostics(self.network_known.then_some(&self.network)).iter().for_each(|d| warn!("{d}"));
                if changed {
                    self.health.configured();
                    self.changed(false);
                }
            }
            Err(failure) => {
                error!(
                    generation = self.forwarding.generation(),
                    "configuration is invalid, the generation in force stays\n{failure}"
                );
                if was_valid {
                    self.config.since = Instant::now();
                }
                self.config.failure = Some(failure);
            }
        }
    }

    /// Drains a backend or gives it back; it is in force when this returns.
    fn drain(&mut self, request: &DrainRequest) -> Result<Reply, QueryError> {
        let drained = self.drains.command(request, &mut self.config.loaded.desired).map_err(|error| match error {
            drains::Error::Unknown(message) => QueryError::Invalid(message),
            error @ drains::Error::File { .. } => QueryError::Dataplane(error.to_string()),
        })?;
        for Drained { service, backend, draining } in &drained {
            info!(service, %backend, draining, "drained by command");
        }
        if self.is_ready() {
            self.next_generation();
        }
        match self.forwarding.failure() {
            Some(failure) => Err(QueryError::Dataplane(format!("it is noted, and not in force yet: {failure}"))),
            None => Ok(Reply::Drained(drained)),
        }
    }

    fn network_changed(&mut self, mut change: Change) {
        let mut resolved = false;
        if let Change::Neighbor { ifindex, address, entry } = &change {
            match *entry {
                NeighborEntry::Resolved(mac) => {
                    let (ifindex, address) = (*ifindex, *address);
                    self.workers.tell(&ToWorker::Resolved { ifindex, address, mac });
                    resolved = true;
                }
                NeighborEntry::Failed => {
                    let (ifindex, address) = (*ifindex, *address);
                    self.workers.tell(&ToWorker::Unreachable { ifindex, address });
                    // Others, as a scan asks for by thousands, are nobody's gateway.
                    if !self.neighbors.in_use(&(ifindex, address)) {
                        change = Change::Neighbor { ifindex, address, entry: NeighborEntry::Unresolved };
                    } else if !self.network.failed.contains(&(ifindex, address)) {
                        self.forwarding.lose(Loss::Neighbor(ifindex, address));
                    }
                }
                NeighborEntry::Unresolved => {}
            }
        }
        if let Change::Link(ifindex, link) = &change
            && link.as_ref().is_none_or(|link| !link.up)
            && self.network.links.get(ifindex).is_some_and(|former| former.up)
        {
            self.forwarding.lose(Loss::Link(*ifindex));
        }
        let first = !self.network_known && matches!(change, Change::Snapshot(_));
        self.network_known |= first;
        let neighbor = match &change {
            Change::Neighbor { ifindex, address, .. } => Some((*ifindex, *address)),
            _ => None,
        };
        if change.apply(&mut self.network) {
            if let Some(neighbor) = neighbor {
                self.neighbors.changed(neighbor, Instant::now());
            }
            self.changed(resolved);
        }
        if first {
            self.changed(true);
        }
    }

    /// A packet waits in a worker. Where the kernel has the answer already, its notification may have come before the
    /// question: it is repeated.
    fn resolve_for_worker(&mut self, neighbor: super::neighbors::Neighbor) {
        let (ifindex, address) = neighbor;
        match self.network.neighbors.get(&neighbor) {
            Some(mac) => self.workers.tell(&ToWorker::Resolved { ifindex, address, mac: *mac }),
            None => self.ask_kernel(Request { neighbor, managed: self.neighbors.in_use(&neighbor) }),
        }
    }

    /// Dumps the kernel's table beside everything else; it comes back as an event.
    fn ask_kernel_table(&self, vrf: Option<String>, limit: usize, reply: oneshot::Sender<Result<Reply, QueryError>>) {
        match self.kernel_table_of(vrf.as_deref()) {
            Ok(table) => self.dump_kernel_table(Duration::ZERO, Asked { vrf, table, limit }, COMPARISONS, reply),
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    /// The kernel's table that a VRF follows.
    fn kernel_table_of(&self, vrf: Option<&str>) -> Result<u32, QueryError> {
        let followed = self.routing.kernel().table.ok_or_else(|| {
            let none = "no routing table of the kernel is followed; see kernelRoutes in docs/configuration.md";
            QueryError::Invalid(none.to_owned())
        })?;
        let Some(name) = vrf else { return Ok(followed) };
        answer::vrf(self, name)?;
        let configured = self.config.loaded.desired.vrfs.iter().find(|vrf| vrf.name == name);
        let table = configured.and_then(|vrf| vrf.table);
        table.ok_or_else(|| QueryError::Invalid(format!("VRF {name} follows no routing table of the kernel")))
    }

    fn dump_kernel_table(
        &self,
        pause: Duration,
        asked: Asked,
        attempts: u32,
        reply: oneshot::Sender<Result<Reply, QueryError>>,
    ) {
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let (ways, attempts_left) = (routes::dump(asked.table).await, attempts.saturating_sub(1));
            // Without an owner there is nobody to answer.
            let _ = events.send(Event::KernelTable(KernelTable { asked, ways, attempts_left, reply })).await;
        });
    }

    fn compare(&mut self, dumped: KernelTable) {
        if self.settling {
            self.next_generation();
        }
        let KernelTable { asked, ways, attempts_left, reply } = dumped;
        let answer = match ways {
            Ok(ways) => {
                let diff = answer::kernel_diff(self, &asked, &ways);
                if diff.differences.total > 0 && attempts_left > 0 {
                    return self.dump_kernel_table(COMPARISON_PAUSE, asked, attempts_left, reply);
                }
                Ok(Reply::KernelDiff(Box::new(diff)))
            }
            Err(error) => Err(QueryError::Dataplane(error.to_string())),
        };
        let _ = reply.send(answer);
    }

    fn ask_kernel(&self, request: Request) {
        // The receiver lives as long as the runtime; without it there is nothing to resolve for.
        let _ = self.requests.send(request);
    }

    /// Compiles the state as it is, writes the difference, and tells everyone.
    fn next_generation(&mut self) {
        self.due = None;
        self.settling = false;
        let wanted = routes::Settings::of(&self.config.loaded.desired);
        self.kernel_routes.send_if_modified(|followed| std::mem::replace(followed, wanted) != *followed);
        self.routing.configure(&self.config.loaded.desired, &self.network);
        let serving = || self.forwarding.serving();
        self.health.follow(&self.config.loaded.desired, &mut self.network, serving);
        let rib = self.routing.rib_mut();
        if let Err(failure) = self.forwarding.advance(&self.config.loaded.desired, &self.network, rib) {
            self.failed(&failure);
            return;
        }
        if !self.forwarding.refused().is_empty() || self.workers.failure().is_some() {
            // What is in the way, another program or a busy queue, goes without a word.
            self.due = Some(Instant::now() + PATIENT_RETRY);
        }
        let settled = self.routing.is_settled();
        self.health.in_force(&self.config.loaded.desired, &self.network, &self.forwarding, settled);
        let now = Instant::now();
        self.folding.changed(now);
        let compiled = self.forwarding.compiled();
        let released = self.neighbors.want(&compiled.tables, &compiled.failed_gateways, &self.network, now);
        released.into_iter().for_each(|request| self.ask_kernel(request));
        self.network.failed.retain(|neighbor| self.neighbors.in_use(neighbor));
        if self.forwarding.compiled().wants_another {
            self.changed(false);
        }
        self.routing.announce(&self.forwarding.compiled().announce);
        self.workers.follow(&self.config.loaded.desired.node, &self.network, &self.forwarding);
    }
}
