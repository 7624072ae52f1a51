//! The local API: HTTP and JSON over a Unix socket, served by the control runtime.
//!
//! A handler turns a request into a [`Query`], sends it to the owner of the state as an event and awaits the answer; it
//! never sees the state. Bodies, answers and connections are bounded, and a request that takes too long gets 503.

mod limit;
mod server;
pub mod types;

pub use server::{ServeError, serve};

use serde::Serialize;
use types::{
    Backend, DrainFilter, DrainRequest, Drained, Draining, Drop, ExplainRequest, Explanation, Filter, Flow, KernelDiff,
    List, Neighbor, NextHop, Peer, Policy, Route, Status, Vip, WorkerCounter,
};

/// What can be asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// Health at a glance.
    Status,
    /// One of the lists.
    List(ListKind, Filter),
    /// How what is held and forwarded differs from the kernel's table, which is dumped for it.
    KernelDiff {
        /// The VRF whose table it is; the default one where absent.
        vrf: Option<String>,
        /// Most differences that are listed.
        limit: usize,
    },
    /// A packet's way.
    Explain(Box<ExplainRequest>),
    /// Drain a backend, or give it back.
    Drain(DrainRequest),
    /// How far a backend is drained.
    Draining(DrainFilter),
}

/// The lists, each under `/v1/<name>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lower")]
pub enum ListKind {
    /// FIB entries with group, next hops and adjacency [filter: prefix, or address for its longest match].
    Routes,
    /// Next hops and their adjacencies [filter: address].
    Nexthops,
    /// Neighbours that the kernel has resolved [filter: address or interface].
    Neighbors,
    /// VIPs [filter: service or address].
    Vips,
    /// Backends of the VIPs [filter: service or address].
    Backends,
    /// BGP peers and their sessions [filter: name or address].
    Peers,
    /// Policies in evaluation order [filter: name].
    Policies,
    /// Drops and punts by interface and reason [filter: interface or reason].
    Drops,
    /// Flows that the flow table remembers [filter: address].
    Flows,
    /// Counters of the slow-path workers [filter: counter].
    Workers,
}

impl ListKind {
    /// Last part of its path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Routes => "routes",
            Self::Nexthops => "nexthops",
            Self::Neighbors => "neighbors",
            Self::Vips => "vips",
            Self::Backends => "backends",
            Self::Peers => "peers",
            Self::Policies => "policies",
            Self::Drops => "drops",
            Self::Flows => "flows",
            Self::Workers => "workers",
        }
    }
}

/// The answer to a [`Query`]: the document itself.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each variant is named after the document that it holds")]
pub enum Reply {
    Status(Box<Status>),
    Routes(List<Route>),
    NextHops(List<NextHop>),
    Neighbors(List<Neighbor>),
    Vips(List<Vip>),
    Backends(List<Backend>),
    Peers(List<Peer>),
    Policies(List<Policy>),
    Drops(List<Drop>),
    Flows(List<Flow>),
    Workers(List<WorkerCounter>),
    KernelDiff(Box<KernelDiff>),
    Explanation(Box<Explanation>),
    Drained(Vec<Drained>),
    Draining(List<Draining>),
}

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The request makes no sense as it stands.
    #[error("{0}")]
    Invalid(String),
    /// The dataplane could not say.
    #[error("{0}")]
    Dataplane(String),
}
