//! The routing information base: routes of every source, and which of them forward.
//!
//! Preference, best first: connected, static, external BGP, internal BGP, adopted. The first source that has a route for
//! a prefix wins; equal paths within it form one next-hop group.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Where a route comes from, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// An address of this node.
    Local,
    /// A VIP of this node.
    Vip,
    /// The prefix of an interface address.
    Connected,
    /// A `StaticRoute`.
    Static,
    /// Learned from an external peer.
    Ebgp,
    /// Learned from an internal peer.
    Ibgp,
    /// Found in the pinned FIB after a restart, kept until the sources have spoken again.
    Adopted,
}

/// The paths that BGP chose for a prefix: best path and its equals (RFC 4271 §9.1.2, multipath).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpRoute {
    /// Gateways, ascending, at least one.
    pub gateways: Vec<IpAddr>,
    /// Learned from internal peers.
    pub internal: bool,
}

/// Gateways and outgoing interface that a pinned FIB entry forwarded to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptedRoute {
    /// Gateway and interface pairs, ascending.
    pub gateways: Vec<(IpAddr, crate::network::IfIndex)>,
}

/// Routes that do not follow from the resources or the network alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rib {
    /// BGP's choice for each prefix.
    pub bgp: BTreeMap<IpNet, BgpRoute>,
    /// What a restarted process found forwarding; emptied once BGP has converged or the restart time is over.
    pub adopted: BTreeMap<IpNet, AdoptedRoute>,
}
