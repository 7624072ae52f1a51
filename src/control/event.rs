//! What the owner of the state hears about, from all sources through one channel.

use tokio::sync::oneshot;

use super::api::{Query, QueryError, Reply};
use super::bgp::BgpEvent;
use super::netlink::Change;
use crate::slowpath::FromWorker;

/// One event.
#[derive(Debug)]
pub enum Event {
    /// The configuration directory may have changed, or SIGHUP asked to read it again.
    ConfigChanged,
    /// The kernel's links, addresses or neighbours changed.
    Network(Change),
    /// Routes or sessions changed.
    Bgp(BgpEvent),
    /// A slow-path worker asks for something.
    Worker(FromWorker),
    /// A request over the API; the answer goes back by the channel.
    Api(Query, oneshot::Sender<Result<Reply, QueryError>>),
    /// A scrape of the metrics, answered in the text format of Prometheus.
    Metrics(oneshot::Sender<String>),
    /// SIGTERM or SIGINT.
    Stop,
}
