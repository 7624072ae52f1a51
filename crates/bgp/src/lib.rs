//! BGP-4 without I/O: bytes, timers and events in; bytes, timers and routes out.
//!
//! ```text
//! bytes -> Session (framing, negotiation, collisions, graceful restart) -> Update -> Rib -> changes of the Loc-RIB
//! prefixes to announce -> AdjRibOut (differences, packing) -> bytes
//! ```
//! The message codec and the state machine of one connection are crates of others. Their types stay inside `wire`, `update`
//! and `export`, and inside `connection`, so that either could be replaced. Nothing here panics on any input.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod connection;
pub mod export;
pub mod notification;
pub mod rib;
pub mod session;
pub mod update;
pub mod wire;

use std::net::IpAddr;

pub use export::{AdjRibOut, Community, NextHops};
pub use notification::Notification;
pub use rib::{BgpRoute, PeerId, Rib};
pub use session::{
    Action, Config, ConnectionId, Direction, DownReason, Established, Event, Session, State, StopReason, Timer,
};
pub use update::{Attributes, Origin, Update};

/// An address family that is spoken, always unicast (AFI 1 or 2, SAFI 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 unicast.
    Ipv4,
    /// IPv6 unicast.
    Ipv6,
}

impl Family {
    /// Both families, in ascending order.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The family of a prefix.
    #[must_use]
    pub fn of(prefix: ipnet::IpNet) -> Self {
        Self::of_address(prefix.addr())
    }

    /// The family of an address.
    #[must_use]
    pub fn of_address(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        })
    }
}
