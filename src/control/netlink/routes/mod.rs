//! Routes of the kernel: what BIRD, FRR and `ip route` have put into one of its tables, or several, followed live.
//!
//! ```text
//! notifications ─┐                                       ┌ at most SLOTS batches unanswered
//!                ├ wire -> table (pure) -> by prefix -> Update -> owner -> RIB
//! dumps ─────────┘   start, loss, doubt, audit
//! ```
//! - The groups are joined before the first dump, so nothing falls between.
//! - Notifications are always read, whatever the owner does: changes wait by prefix, each once. A dump is read only while
//!   few wait, which the kernel does not mind. So neither memory nor the owner's time is at the mercy of a daemon that
//!   installs a million routes.
//! - Lost notifications (ENOBUFS) are made good by a dump that is laid over what is held; nothing is taken away meanwhile.
//! - Audits are such dumps, too: what they find was missed, and is counted.

mod dump;
mod socket;
mod table;
mod tables;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use model::desired::{Desired, KernelRoutes};
use model::rib::{Alternatives, Way};
use rtnetlink::MulticastGroup;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

pub use dump::dump;
pub use wire::Malformed;

use dump::Dump;
use socket::{Heard, Netlink};
use tables::Tables;
use wire::messages;

/// Prefixes in one update.
const BATCH: usize = 2_048;
/// Updates that the owner has not dealt with.
const SLOTS: usize = 4;
/// Prefixes that may wait before a dump is read on.
const MOST_WAITING: usize = 16 * BATCH;
/// Notifications that are read at once, before others have their turn.
const BURST: usize = 256;
/// Bursts of notifications that the end of a dump waits for at most; they go on and on where a daemon does.
const MOST_OUTSTANDING: usize = 4_096;
/// Room for notifications that have not been read: about 150 000 routes, which daemons install in about a second.
const ROOM: usize = 128 << 20;
/// Time for the kernel to be through with what it does not tell about.
const SETTLE: Duration = Duration::from_millis(20);
/// Shortest pause before a dump that left something open is repeated. It is no shorter than the dump took.
const DOUBT_PAUSE: Duration = Duration::from_millis(100);
/// Pause before sockets are opened again after an error.
const RETRY: Duration = Duration::from_secs(1);
/// Prefixes that the log names of those that an audit found to differ.
const NAMED: usize = 5;

/// Why the kernel's routes cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket, or one that fails.
    #[error("netlink: {0}")]
    Socket(#[from] io::Error),
    /// The kernel does not dump its table.
    #[error("the kernel refuses to dump its routes: {0}")]
    Refused(io::Error),
    /// It sends what cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Every dump was interrupted.
    #[error("the kernel's table changes faster than it can be dumped; try again")]
    Unsteady,
}

/// What is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The default VRF's table, and how often all are audited.
    pub routes: KernelRoutes,
    /// Tables of the other VRFs.
    pub vrfs: BTreeSet<u32>,
}

impl Settings {
    /// What the configuration asks for.
    pub fn of(desired: &Desired) -> Option<Self> {
        let vrfs = desired.vrfs.iter().filter_map(|vrf| vrf.table).collect();
        desired.node.kernel_routes.map(|routes| Self { routes, vrfs })
    }
}

impl From<KernelRoutes> for Settings {
    fn from(routes: KernelRoutes) -> Self {
        Self { routes, vrfs: BTreeSet::new() }
    }
}

/// How notifications are heard. Other than the default is for tests.
#[derive(Clone, Copy, Debug)]
pub struct Hearing {
    /// Bytes of notifications that may wait to be read.
    pub room: usize,
    /// Hear of changes of routes at all; false leaves them to audits.
    pub routes: bool,
}

impl Default for Hearing {
    fn default() -> Self {
        Self { room: ROOM, routes: true }
    }
}

/// How far the kernel's table is followed.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The default VRF's table; `None` where none is followed.
    pub table: Option<u32>,
    /// Since they are followed, all routes of every table have been told.
    pub synchronised: bool,
    /// Prefixes of the default VRF's table with a route.
    pub routes: usize,
    /// Dumps, audits among them.
    pub dumps: u64,
    /// Audits.
    pub audits: u64,
    /// The end of the last audit.
    pub audited: Option<Instant>,
    /// Prefixes that audits found to differ, all since the start. They were repaired.
    pub repaired: u64,
    /// How often notifications were lost.
    pub overruns: u64,
    /// Why it is not followed at the moment.
    pub failure: Option<String>,
}

/// Ways out by prefix, with what the routes behind them lead by; `None`: there is none any more.
pub type VrfChanges = Vec<(IpNet, Option<(Way, Alternatives)>)>;

/// What has become different.
#[derive(Debug, Default)]
pub struct Update {
    /// Ways out by prefix; `None`: the kernel has none any more.
    pub changes: Vec<(IpNet, Option<Way>)>,
    /// Of these prefixes, what the routes behind the first lead by, where an interface asks for it.
    pub alternatives: BTreeMap<IpNet, Alternatives>,
    /// Both of the other VRFs' tables.
    pub of_vrfs: BTreeMap<u32, VrfChanges>,
    /// With these changes told.
    pub status: Status,
    /// Given back when the update has been dealt with.
    _slot: Option<OwnedSemaphorePermit>,
}

/// Why there is a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// Nothing is known yet.
    Start,
    /// Notifications were lost.
    Overrun,
    /// The kernel changes routes without a word, or has told of what was not known.
    Silence,
    /// The dump before left something open.
    Doubt,
    /// It is time.
    Audit,
}

/// A dump under way.
#[derive(Clone, Copy, Debug)]
struct Running {
    reason: Reason,
    begun: Instant,
    /// From its end to the next audit; zero for none.
    audit_pause: Duration,
}

/// Follows the tables of the settings until the receiver of events is gone. `wrap` puts an update into its type.
pub async fn follow<E>(
    settings: watch::Receiver<Option<Settings>>,
    hearing: Hearing,
    events: mpsc::Sender<E>,
    wrap: impl Fn(Update) -> E,
) {
    let mut follower = Follower {
        settings,
        hearing,
        events,
        wrap,
        slots: Arc::new(Semaphore::new(SLOTS)),
        routes: Tables::new(0),
        status: Status::default(),
        alternatives: false,
        news: false,
        complete: false,
        wanted: None,
        dump_time: Duration::ZERO,
    };
    while !follower.events.is_closed() {
        let settings = follower.settings.borrow_and_update().clone();
        let ended = match settings {
            Some(settings) => follower.follow(settings).await,
            None => follower.rest().await,
        };
        if let Err(error) = ended {
            warn!(%error, "lost the kernel's routes, starting over; what is held stays");
            follower.status.failure = Some(error.to_string());
            follower.news = true;
            follower.tell().await;
            tokio::time::sleep(RETRY).await;
        }
    }
}

struct Follower<E, W> {
    settings: watch::Receiver<Option<Settings>>,
    hearing: Hearing,
    events: mpsc::Sender<E>,
    wrap: W,
    slots: Arc<Semaphore>,
    routes: Tables,
    status: Status,
    /// What stands behind the first route of a prefix is told, too.
    alternatives: bool,
    /// The status is not what was told.
    news: bool,
    /// A dump of the table has been complete.
    complete: bool,
    /// When the next dump is due, and why.
    wanted: Option<(Instant, Reason)>,
    dump_time: Duration,
}

/// A place among the updates under way, and in the channel. Nothing where the receiver is gone.
async fn room<E>(
    slots: &Arc<Semaphore>,
    events: &mpsc::Sender<E>,
) -> Option<(OwnedSemaphorePermit, mpsc::OwnedPermit<E>)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    Some((slot, events.clone().reserve_owned().await.ok()?))
}

/// Waits for a dump to have more; for ever where there is none.
async fn more(dump: Option<&mut Dump>) {
    match dump {
        Some(dump) => dump.readable().await,
        None => std::future::pending().await,
    }
}

impl<E, W: Fn(Update) -> E> Follower<E, W> {
    /// No table is followed, until the settings change.
    async fn rest(&mut self) -> Result<(), Error> {
        self.routes.clear();
        self.complete = false;
        self.status = Status { synchronised: true, ..Status::default() };
        self.news = true;
        while self.routes.has_changes() || self.news {
            self.tell().await;
        }
        tokio::select! {
            changed = self.settings.changed() => {
                if changed.is_err() {
                    self.events.closed().await;
                }
            }
            () = self.events.closed() => {}
        }
        Ok(())
    }

    /// Follows these tables, until the settings change or a socket fails.
    async fn follow(&mut self, settings: Settings) -> Result<(), Error> {
        let Settings { routes: settings, vrfs } = settings;
        let groups: &[MulticastGroup] = match self.hearing.routes {
            true => &[
                MulticastGroup::Link,
                MulticastGroup::Ipv4Ifaddr,
                MulticastGroup::Nexthop,
                MulticastGroup::Ipv4Route,
                MulticastGroup::Ipv6Route,
            ],
            false => &[MulticastGroup::Link],
        };
        let mut listener = Netlink::listening(groups, self.hearing.room)?;
        let is_new = self.routes.set(settings.table, &vrfs);
        if std::mem::replace(&mut self.alternatives, settings.alternatives) != settings.alternatives {
            self.routes.tell_alternatives();
        }
        if is_new || self.status.table != Some(settings.table) {
            self.complete = false;
            self.status.synchronised = false;
        }
        self.status.table = Some(settings.table);
        self.wanted = None;
        self.want(Instant::now(), Reason::Start);
        let audit_pause = Duration::from_secs(settings.audit_seconds.into());
        let mut dump: Option<(Dump, Running)> = None;
        // A dump that has been read, and the bursts since.
        let mut ended: Option<(Running, usize)> = None;
        loop {
            let due = self.wanted.map(|(at, _)| at).filter(|_| dump.is_none() && ended.is_none());
            let few_wait = self.routes.waiting() < MOST_WAITING;
            tokio::select! {
                changed = self.settings.changed() => {
                    if changed.is_err() {
                        self.events.closed().await;
                    }
                    return Ok(());
                }
                () = self.events.closed() => return Ok(()),
                () = listener.readable() => {
                    let all_heard = self.hear(&mut listener)?;
                    if let Some((running, bursts)) = ended.take() {
                        ended = self.conclude(running, bursts + 1, all_heard);
                    }
                }
                () = more(dump.as_mut().map(|(dump, _)| dump)), if few_wait => {
                    if let Some((running, _)) = &mut dump
                        && running.read(&mut self.routes)?
                        && let Some((_, running)) = dump.take()
                    {
                        let all_heard = self.hear(&mut listener)?;
                        ended = self.conclude(running, 0, all_heard);
                    }
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Some((_, reason)) = self.wanted.take() {
                        self.routes.begin();
                        let running = Running { reason, begun: Instant::now(), audit_pause };
                        dump = Some((Dump::start(self.routes.numbers())?, running));
                    }
                }
                room = room(&self.slots, &self.events), if self.routes.has_changes() || self.news => {
                    let Some((slot, permit)) = room else { return Ok(()) };
                    let update = self.update(slot);
                    permit.send((self.wrap)(update));
                }
            }
            // Sockets that always have more must not keep others on this thread waiting.
            tokio::task::yield_now().await;
        }
    }

    /// A dump is needed at `at`, if not sooner. What is due sooner keeps its reason: any dump answers every reason.
    fn want(&mut self, at: Instant, reason: Reason) {
        if self.wanted.is_none_or(|(former, _)| at < former) {
            self.wanted = Some((at, reason));
        }
    }

    /// Takes in what the kernel tells, at most a burst of it; true when there was nothing more.
    fn hear(&mut self, listener: &mut Netlink) -> Result<bool, Error> {
        for _ in 0..BURST {
            let mut missed = false;
            match listener.hear()? {
                Heard::Nothing => return Ok(true),
                Heard::Datagram(datagram) => {
                    let routes = &mut self.routes;
                    let read = messages(datagram, |received| missed |= routes.notified(received.message));
                    if let Err(error) = read {
                        warn!(%error, "a notification is not understood, the table is read again");
                        missed = true;
                    }
                }
                Heard::Overrun => {
                    self.status.overruns += 1;
                    self.news = true;
                    info!("notifications of routes were lost, reading the kernel's table again");
                    self.routes.interrupted();
                    self.want(Instant::now(), Reason::Overrun);
                }
            }
            if missed {
                self.want(Instant::now() + SETTLE, Reason::Silence);
            }
        }
        Ok(false)
    }

    /// Puts a dump that has been read into force once everything from before its end has been heard; gives it back where
    /// that is not so yet.
    fn conclude(&mut self, running: Running, bursts: usize, all_heard: bool) -> Option<(Running, usize)> {
        if !all_heard {
            if bursts < MOST_OUTSTANDING {
                return Some((running, bursts));
            }
            self.routes.interrupted();
        }
        let Running { reason, begun, audit_pause } = running;
        let outcome = self.routes.finish();
        self.dump_time = begun.elapsed();
        self.status.dumps += 1;
        self.status.failure = None;
        self.complete = true;
        self.news = true;
        let (differences, took) = (outcome.differences.len(), self.dump_time);
        debug!(
            ?reason,
            routes = self.routes.len(),
            differences,
            undecided = outcome.undecided,
            ?took,
            "kernel's table read"
        );
        if reason == Reason::Audit {
            self.status.audits += 1;
            self.status.audited = Some(Instant::now());
            self.status.repaired += differences as u64;
            if differences > 0 {
                let named: Vec<String> = outcome.differences.iter().take(NAMED).map(ToString::to_string).collect();
                warn!(
                    differences,
                    prefixes = named.join(" "),
                    "an audit found routes that were not the kernel's; repaired"
                );
            }
        }
        if outcome.undecided {
            self.want(Instant::now() + self.dump_time.max(DOUBT_PAUSE), Reason::Doubt);
        }
        if !audit_pause.is_zero() {
            self.want(Instant::now() + audit_pause, Reason::Audit);
        }
        None
    }

    /// The next changes, with how things stand once they are told.
    fn update(&mut self, slot: OwnedSemaphorePermit) -> Update {
        let (changes, of_vrfs) = self.routes.take_changes(BATCH, self.alternatives);
        let mut alternatives = BTreeMap::new();
        if self.alternatives {
            let of = |(prefix, _): &(IpNet, Option<Way>)| (*prefix, self.routes.alternatives(*prefix));
            alternatives.extend(changes.iter().map(of).filter(|(_, alternatives)| !alternatives.is_empty()));
        }
        self.status.routes = self.routes.len();
        self.status.synchronised |= self.complete && !self.routes.has_changes();
        self.news = false;
        if self.complete && !self.status.synchronised {
            // To be told with the last of them.
            self.news = true;
        }
        Update { changes, alternatives, of_vrfs, status: self.status.clone(), _slot: Some(slot) }
    }

    async fn tell(&mut self) {
        match room(&self.slots, &self.events).await {
            Some((slot, permit)) => {
                let update = self.update(slot);
                permit.send((self.wrap)(update));
            }
            // Nobody is left to be told.
            None => {
                self.news = false;
                self.routes.clear();
                self.routes.take_changes(usize::MAX, false);
            }
        }
    }
}
