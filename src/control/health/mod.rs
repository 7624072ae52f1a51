//! Health checks of backends: asked on a thread of their own, so that neither a big generation nor a slow handshake makes the other late.
//!
//! One task there holds the [`Schedule`] and every check under way, within a bound; there is no thread and no task a target. What changes a
//! verdict is told to the owner of the state at once, everything else a few times a second.

mod echo;
mod http;
mod probe;
mod tls;
mod tunnel;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::desired::Desired;
use model::health::{CheckId, HttpProbe, Probe, Report, Schedule, Standing, Target};
use model::network::Network;
use model::tables::VipKey;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::event::Event;
use super::forwarding::Forwarding;
use crate::dataplane::Encapsulator;
use echo::Echo;
use probe::Prepared;
use tunnel::{Passage, Settings, Tunnel};
use ways::Ways;

/// What changes no verdict is told this often.
const REPORT_EVERY: Duration = Duration::from_millis(250);
/// Most checks under way at a time, as far as there are file descriptors for them.
const UNDER_WAY: usize = 4096;
/// File descriptors that are left for everything else.
const SPARE_DESCRIPTORS: u64 = 512;
/// A check that begins this long after it was due is late.
const LATE: Duration = Duration::from_millis(200);

/// What the checking thread tells.
#[derive(Debug)]
pub struct News {
    /// Targets with what is known of them, the last word on each.
    pub reports: Vec<(Target, Report)>,
    /// Checks that began late, since the start.
    pub late: u64,
    /// Gone when it has been taken in. Until then nothing more is told: what many verdicts at a time lead to is one generation for all
    /// that came during the one before.
    taken: oneshot::Sender<()>,
}

/// What the checking thread is told.
enum Order {
    /// Who is to be checked, and whether it is in use.
    Check(BTreeMap<Target, bool>),
    /// The ways of targets that are checked via tunnel, in the generation in force.
    Ways(Settings, Ways),
    /// What sends their packets, from now on.
    Program(Arc<Encapsulator>),
}

/// What the owner of the state knows about backends.
pub(super) struct Health {
    thread: JoinHandle<()>,
    orders: mpsc::UnboundedSender<Order>,
    /// What was last told of ways, and of which program.
    ways: Option<(Settings, Ways)>,
    program: Option<u64>,
    reports: BTreeMap<Target, Report>,
    late: u64,
    /// The configuration has changed since targets were last derived from it.
    stale: bool,
}

impl Health {
    /// Starts the checking thread. It ends with the receiver of its events.
    pub(super) fn start(events: mpsc::Sender<Event>) -> io::Result<Self> {
        let (orders, ordered) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("margay-health".into());
        let thread = thread.spawn(move || runtime.block_on(run(ordered, events)))?;
        let reports = BTreeMap::new();
        Ok(Self { thread, orders, ways: None, program: None, reports, late: 0, stale: true })
    }

    /// The configuration is another one.
    pub(super) fn configured(&mut self) {
        self.stale = true;
    }

    /// Checks what the configuration wants checked. `in_use` are the backends that get packets at this moment, a former process's
    /// included: they do until checks have failed. Nothing of that is asked unless the configuration has changed.
    pub(super) fn follow(
        &mut self,
        desired: &Desired,
        network: &mut Network,
        in_use: impl FnOnce() -> BTreeSet<(VipKey, IpAddr)>,
    ) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        if self.reports.is_empty() && desired.services.iter().all(|service| service.health.is_none()) {
            return;
        }
        let in_use = in_use();
        let mut wanted: BTreeMap<Target, bool> = BTreeMap::new();
        for service in desired.services.iter().filter(|service| service.health.is_some()) {
            let keys: Vec<VipKey> = VipKey::of(service).collect();
            for backend in &service.backends {
                let Some(target) = service.target(backend) else { continue };
                let serves = keys.iter().any(|key| in_use.contains(&(*key, backend.address)));
                *wanted.entry(target).or_default() |= serves;
            }
        }
        self.reports.retain(|target, _| wanted.contains_key(target));
        network.health.retain(|target| wanted.contains_key(target));
        for (target, in_use) in &wanted {
            let known = network.health.of(target);
            if *in_use && *known == Standing::Starting && !self.reports.contains_key(target) {
                network.health.set(target.clone(), Standing::Up);
            }
        }
        // Without the thread, which only ends with the process, there is nobody to ask.
        let _ = self.orders.send(Order::Check(wanted));
    }

    /// A generation is in force: tells the ways that it has for checks via tunnel.
    pub(super) fn in_force(
        &mut self,
        desired: &Desired,
        network: &Network,
        forwarding: &Forwarding,
        routes_known: bool,
    ) {
        let ways = ways::ways(desired, network, forwarding.compiled(), routes_known);
        if ways.is_empty() && self.ways.as_ref().is_some_and(|(_, former)| former.is_empty()) {
            return;
        }
        let program = forwarding.programs();
        if !ways.is_empty() && self.program != Some(program) {
            match forwarding.dataplane().encapsulator() {
                Ok(encapsulator) => {
                    self.program = Some(program);
                    let _ = self.orders.send(Order::Program(Arc::new(encapsulator)));
                }
                Err(error) => error!(%error, "the program that sends checks via tunnel cannot be loaded"),
            }
        }
        let settings = Settings { mark: desired.node.check_mark, table: desired.node.check_table };
        let told = Some((settings, ways));
        if self.ways != told {
            self.ways = told.clone();
            let _ = told.map(|(settings, ways)| self.orders.send(Order::Ways(settings, ways)));
        }
    }

    /// Ends the checks, when what they needed of the kernel has been given back.
    pub(super) fn stop(self) {
        drop(self.orders);
        if self.thread.join().is_err() {
            error!("the checking thread did not end by itself");
        }
    }

    /// Takes in what is told; true where a backend stands differently.
    pub(super) fn learn(&mut self, news: News, network: &mut Network) -> bool {
        let mut changed = false;
        let News { reports, late, taken } = news;
        drop(taken);
        self.late = late;
        for (target, report) in reports {
            changed |= network.health.set(target.clone(), report.progress.standing().clone());
            self.reports.insert(target, report);
        }
        changed
    }

    /// What is known of a target and of its last check; `None` before the first.
    pub(super) fn report(&self, target: &Target) -> Option<&Report> {
        self.reports.get(target)
    }

    /// What is wrong with the checks as a whole.
    pub(super) fn problem(&self) -> Option<&'static str> {
        self.thread
            .is_finished()
            .then_some("no backend is checked any more: the last verdicts stay; restart margay and report its log")
    }

    /// Checks that began late, since the start.
    pub(super) fn late(&self) -> u64 {
        self.late
    }
}

/// What came of a check.
struct Ended {
    id: CheckId,
    took: Duration,
    outcome: Result<(), String>,
}

/// The checking thread.
async fn run(ordered: mpsc::UnboundedReceiver<Order>, events: mpsc::Sender<Event>) {
    let mut tunnel = Tunnel::new(Instant::now());
    check(ordered, events, &mut tunnel).await;
    tunnel.close().await;
}

/// Checks until nobody is left who gives orders, or takes news.
async fn check(mut ordered: mpsc::UnboundedReceiver<Order>, events: mpsc::Sender<Event>, tunnel: &mut Tunnel) {
    let mut wanted: BTreeMap<Target, bool> = BTreeMap::new();
    let mut schedule = Schedule::new(fastrand::u64(..));
    let mut under_way: JoinSet<Ended> = JoinSet::new();
    let mut known: BTreeMap<Target, Report> = BTreeMap::new();
    let (mut late, mut urgent) = (0, false);
    let mut told = Instant::now();
    let mut taken: Option<oneshot::Receiver<()>> = None;
    let most = raise_descriptors();
    let mut tools = Tools::default();
    loop {
        tunnel.keep_open(Instant::now()).await;
        let now = Instant::now();
        while under_way.len() < most {
            let Some((id, target, due)) = schedule.take_due(now) else { break };
            late += u64::from(now.saturating_duration_since(due) > LATE);
            let prepared = tools.prepare(&target, now).and_then(|tools| Ok((tools, tunnel.passage(&target)?)));
            under_way.spawn(check_once(id, prepared, target));
        }
        if taken.as_mut().is_some_and(|taken| taken.try_recv() != Err(oneshot::error::TryRecvError::Empty)) {
            taken = None;
        }
        let room = under_way.len() < most;
        let next = schedule.next_due().filter(|_| room);
        let tell = (!known.is_empty() && taken.is_none()).then(|| if urgent { now } else { told + REPORT_EVERY });
        let wake = [next, tell.filter(|at| *at > now)].into_iter().flatten().min();
        tokio::select! {
            order = ordered.recv() => {
                match order {
                    Some(Order::Check(targets)) => wanted = targets,
                    Some(Order::Ways(settings, ways)) => tunnel.follow(settings, ways, Instant::now()).await,
                    Some(Order::Program(program)) => tunnel.take_program(program),
                    None => return,
                }
                // Nobody is asked whose way is not known yet.
                let targets = wanted.iter().filter(|(target, _)| tunnel.knows(target));
                schedule.follow(&targets.map(|(target, in_use)| (target.clone(), *in_use)).collect(), Instant::now());
                known.retain(|target, _| wanted.contains_key(target));
            },
            Some(ended) = under_way.join_next(), if !under_way.is_empty() => {
                // A check that panicked or was cancelled has no outcome; none does either.
                let Ok(Ended { id, took, outcome }) = ended else { continue };
                if let Some((target, report, changed)) = schedule.finished(id, took, outcome, Instant::now()) {
                    if changed {
                        tell_of(target, report);
                    }
                    urgent |= changed;
                    known.insert(target.clone(), report.clone());
                }
            },
            permit = events.reserve(), if tell.is_some_and(|at| at <= now) => {
                let Ok(permit) = permit else { return };
                let reports = std::mem::take(&mut known).into_iter().collect();
                let (handled, is_handled) = oneshot::channel();
                permit.send(Event::Health(News { reports, late, taken: handled }));
                (told, urgent, taken) = (Instant::now(), false, Some(is_handled));
            },
            _ = async { taken.as_mut()?.await.ok() }, if taken.is_some() => taken = None,
            () = sleep_until(wake) => {},
        }
    }
}

/// What checks share.
#[derive(Default)]
struct Tools {
    tls: tls::Configurations,
    /// Of IPv4 and of IPv6, opened when first needed.
    echoes: [Option<Echo>; 2],
}

impl Tools {
    fn prepare(&mut self, target: &Target, now: Instant) -> Result<Prepared, String> {
        match &target.check.probe {
            Probe::Http(HttpProbe { tls: Some(tls), .. }) => Ok(Prepared::Tls(self.tls.of(tls, now)?)),
            Probe::Icmp if target.vip.is_none() => {
                let [four, six] = &mut self.echoes;
                let ipv6 = target.address.is_ipv6();
                let echo = if ipv6 { six } else { four };
                if echo.is_none() {
                    *echo = Some(Echo::open(ipv6)?);
                }
                Ok(echo.clone().map_or(Prepared::Nothing, Prepared::Echo))
            }
            Probe::Tcp | Probe::Http(_) | Probe::Udp(_) | Probe::Icmp => Ok(Prepared::Nothing),
        }
    }
}

async fn check_once(id: CheckId, prepared: Result<(Prepared, Option<Passage>), String>, target: Target) -> Ended {
    let began = Instant::now();
    let outcome = match prepared {
        Ok((prepared, passage)) => probe::probe(&target, prepared, passage).await,
        Err(error) => Err(error),
    };
    Ended { id, took: began.elapsed(), outcome }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn tell_of(target: &Target, report: &Report) {
    let backend = std::net::SocketAddr::new(target.address, target.port);
    let via = target.vip.map(|_| target.asked()).map(tracing::field::display);
    match report.progress.standing() {
        Standing::Down(reason) => warn!(%backend, via, reason, "backend is down"),
        Standing::Up => info!(%backend, via, "backend is up"),
        Standing::Starting => {}
    }
}

/// Lets the process have as many descriptors as it may; how many checks can be under way with them.
fn raise_descriptors() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = UNDER_WAY as u64 + SPARE_DESCRIPTORS;
    let have = current.unwrap_or(u64::MAX);
    let raised = maximum.map_or(wanted, |most| most.min(wanted)).max(have);
    let have = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => raised,
        Err(_) => have,
    };
    usize::try_from(have.saturating_sub(SPARE_DESCRIPTORS)).unwrap_or(UNDER_WAY).clamp(64, UNDER_WAY)
}
