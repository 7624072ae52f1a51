//! What the owner of the state hears about, from all sources through one channel.

use std::collections::BTreeMap;

use ipnet::IpNet;
use model::rib::Way;
use tokio::sync::oneshot;

use super::api::{Query, QueryError, Reply};
use super::bgp::BgpEvent;
use super::health::News;
use super::netlink::Change;
use super::netlink::routes;
use crate::slowpath::FromWorker;

/// One event.
#[derive(Debug)]
pub enum Event {
    /// The configuration directory may have changed, or SIGHUP asked to read it again.
    ConfigChanged,
    /// The kernel's links, addresses or neighbours changed.
    Network(Change),
    /// The kernel's routes changed.
    KernelRoutes(routes::Update),
    /// The kernel's table as it is now, for a question that was asked before.
    KernelTable(KernelTable),
    /// Routes or sessions changed.
    Bgp(BgpEvent),
    /// Checks of backends have ended.
    Health(News),
    /// A slow-path worker asks for something.
    Worker(FromWorker),
    /// A request over the API; the answer goes back by the channel.
    Api(Query, oneshot::Sender<Result<Reply, QueryError>>),
    /// A scrape of the metrics, answered in the text format of Prometheus.
    Metrics(oneshot::Sender<String>),
    /// SIGTERM or SIGINT.
    Stop,
}

/// A comparison with one of the kernel's tables.
#[derive(Debug)]
pub struct Asked {
    /// The VRF that follows it; the default one where absent.
    pub vrf: Option<String>,
    /// Its number.
    pub table: u32,
    /// Differences that the answer lists.
    pub limit: usize,
}

/// The kernel's table, dumped to be compared with what is held.
#[derive(Debug)]
pub struct KernelTable {
    /// What was asked.
    pub asked: Asked,
    /// The way out of each prefix, or why there is no dump.
    pub ways: Result<BTreeMap<IpNet, Way>, routes::Error>,
    /// Dumps that may yet follow where this one differs: what is on its way is no difference.
    pub attempts_left: u32,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Reply, QueryError>>,
}
