//! The companion control thread: one owner of state, one task per source of events.
//!
//! ```text
//! files ┐
//! BGP   │
//! kernel├ Event -> owner -> generation N+1: compile -> dataplane -> slow path, BGP
//! checks│                   └ neighbours that it forwards to: resolved and kept fresh
//! API   ┘
//! ```
//! Everything here runs on one thread but the health checks, which have one; `kill -9` at any moment leaves the programs, maps and links in the kernel working.

mod adoption;
mod affinity;
mod answer;
pub mod api;
pub mod bgp;
mod drains;
mod event;
mod folding;
mod forwarding;
mod health;
mod lock;
mod neighbors;
pub mod netlink;
mod owner;
mod privilege;
mod routing;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use crate::{config, dataplane};
use event::Event;
use forwarding::Forwarding;
use health::Health;
pub use lock::{LockError, PinLock};
use neighbors::Request;
use netlink::Resolver;
use netlink::routes::Hearing;
use owner::Owner;
pub use privilege::{PrivilegeError, check as check_privilege};

/// Events that wait for the owner; sources wait when there are more.
const EVENTS: usize = 1024;

/// How the agent is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of resources.
    pub config_dir: PathBuf,
    /// Name of this node's resources; the only `Node` document's where absent.
    pub node: Option<String>,
    /// Where maps, programs and links are pinned.
    pub pin_dir: PathBuf,
    /// Where what is commanded is kept over restarts.
    pub state_dir: PathBuf,
    /// Unix socket of the API.
    pub socket: PathBuf,
    /// Address of the metrics.
    pub metrics: Option<SocketAddr>,
}

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration is invalid or cannot be read; nothing was touched.
    #[error("{0}")]
    Config(#[from] config::Error),
    /// The process may not do what it has to.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// The API or the metrics cannot be served.
    #[error(transparent)]
    Api(#[from] api::ServeError),
    /// The kernel side cannot be opened.
    #[error(transparent)]
    Dataplane(#[from] dataplane::Error),
    /// Another agent has the pin directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The kernel's links and neighbours cannot be had.
    #[error(transparent)]
    Netlink(#[from] netlink::NetlinkError),
    /// Threads, signals or the runtime.
    #[error("cannot start the control thread: {0}")]
    Start(#[from] io::Error),
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`] where it cannot start. What is pinned keeps forwarding either way.
pub fn run(options: Options) -> Result<(), RunError> {
    let config = config::load_dir(&options.config_dir, options.node.as_deref())?;
    config.warnings.iter().for_each(|warning| warn!("{warning}"));
    check_privilege()?;
    let core = config.desired.node.control_core;
    let thread = std::thread::Builder::new().name("margay-control".into()).spawn(move || {
        core.into_iter().for_each(affinity::pin);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(control(options, config))
    })?;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Opens everything, starts the sources, and is the owner until the end.
async fn control(options: Options, config: config::Loaded) -> Result<(), RunError> {
    let (events, receiver) = mpsc::channel(EVENTS);
    let forwarding = Forwarding::open(&options.pin_dir)?;
    let _lock = PinLock::take(&options.pin_dir)?;
    api::serve(events.clone(), &options.socket, options.metrics).await?;
    info!(node = config.desired.node.name, socket = %options.socket.display(), "margay {}", env!("CARGO_PKG_VERSION"));

    let (ticks, ticked) = mpsc::unbounded_channel();
    let _watcher = config::watch(&options.config_dir, ticks)?;
    tokio::spawn(follow_files(ticked, events.clone()));
    tokio::spawn(netlink::follow(events.clone(), Event::Network));
    for (kind, event) in [
        (SignalKind::terminate(), (|| Event::Stop) as fn() -> Event),
        (SignalKind::interrupt(), || Event::Stop),
        (SignalKind::hangup(), || Event::ConfigChanged),
    ] {
        tokio::spawn(follow_signal(signal(kind)?, events.clone(), event));
    }
    let (kernel_routes, followed) = watch::channel(netlink::routes::Settings::of(&config.desired));
    tokio::spawn(netlink::routes::follow(followed, Hearing::default(), events.clone(), Event::KernelRoutes));
    let (requests, requested) = mpsc::unbounded_channel();
    tokio::spawn(resolve(Resolver::new()?, requested));

    let socket = options.socket.clone();
    let health = Health::start(events.clone())?;
    Owner::new(options, config, forwarding, health, events, requests, kernel_routes).run(receiver).await;
    // A new process may have taken the path over; removing what is gone is fine, too.
    let _ = std::fs::remove_file(socket);
    Ok(())
}

/// A tick for each burst of changes in the directory, and one for what changed before it was watched.
async fn follow_files(mut ticks: mpsc::UnboundedReceiver<()>, events: mpsc::Sender<Event>) {
    loop {
        if events.send(Event::ConfigChanged).await.is_err() || ticks.recv().await.is_none() {
            return;
        }
    }
}

async fn follow_signal(mut signal: tokio::signal::unix::Signal, events: mpsc::Sender<Event>, event: fn() -> Event) {
    while signal.recv().await.is_some() {
        if events.send(event()).await.is_err() {
            return;
        }
    }
}

/// Passes requests on to the kernel, one after the other.
async fn resolve(resolver: Resolver, mut requests: mpsc::UnboundedReceiver<Request>) {
    while let Some(Request { neighbor: (ifindex, address), managed }) = requests.recv().await {
        if let Err(error) = resolver.resolve(ifindex, address, managed).await {
            // A link that is down or gone, mostly: its neighbours are asked for again when it is back.
            debug!(%ifindex, %address, %error, "the kernel does not resolve this neighbour");
        }
    }
}
