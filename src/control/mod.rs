//! The companion control thread: one owner of state, one task per source of events.

pub mod bgp;
pub mod netlink;
