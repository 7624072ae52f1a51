//! Routes, next hops and neighbours as the API shows them.

use std::collections::BTreeMap;

use ipnet::IpNet;
use model::compile::Compiled;
use model::network::{IfIndex, Network};
use model::tables::{GroupId, NextHop as TableHop, NextHopId, Tables, VrfId};

use crate::control::api::types::{Member, Neighbor, NextHop, NextHopKind};
use crate::control::neighbors::Neighbors;

/// The name of an interface, its index where there is none.
pub(super) fn interface_name(network: &Network, ifindex: IfIndex) -> String {
    network.links.get(&ifindex).map_or_else(|| format!("if{ifindex}"), |link| link.name.clone())
}

/// One next hop with its adjacency.
pub(super) fn next_hop(tables: &Tables, network: &Network, id: NextHopId, hop: &TableHop) -> NextHop {
    let plain = |kind| NextHop { id: id.0, kind, address: None, interface: None, mac: None, mtu: None, sent: None };
    match hop {
        TableHop::Forward { address, ifindex, adjacency } => {
            let adjacency = tables.adjacencies.get(adjacency);
            NextHop {
                address: Some(*address),
                interface: Some(interface_name(network, *ifindex)),
                mac: adjacency.and_then(|adjacency| adjacency.destination),
                mtu: adjacency.map(|adjacency| adjacency.mtu),
                ..plain(NextHopKind::Forward)
            }
        }
        TableHop::Glean { ifindex } => {
            NextHop { interface: Some(interface_name(network, *ifindex)), ..plain(NextHopKind::Glean) }
        }
        TableHop::Receive { .. } => plain(NextHopKind::Receive),
        TableHop::Host => plain(NextHopKind::Host),
        TableHop::Vip(_) => plain(NextHopKind::Vip),
        TableHop::Blackhole => plain(NextHopKind::Blackhole),
        TableHop::Prohibit => plain(NextHopKind::Prohibit),
        TableHop::Unreachable => plain(NextHopKind::Unreachable),
    }
}

/// The members of a group, largest share first.
pub(super) fn members(tables: &Tables, network: &Network, group: GroupId) -> Vec<Member> {
    let buckets = tables.groups.get(&group).map(|group| group.buckets.as_slice()).unwrap_or_default();
    let mut shares: BTreeMap<NextHopId, usize> = BTreeMap::new();
    for hop in buckets {
        *shares.entry(*hop).or_default() += 1;
    }
    let mut members: Vec<Member> = shares
        .into_iter()
        .filter_map(|(id, count)| {
            let next_hop = next_hop(tables, network, id, tables.next_hops.get(&id)?);
            Some(Member { share_percent: percent(count, buckets.len()), buckets: count, next_hop })
        })
        .collect();
    members.sort_by(|a, b| b.share_percent.total_cmp(&a.share_percent));
    members
}

/// `count` of `of` in percent.
#[expect(clippy::cast_precision_loss, reason = "rings and groups have far fewer than 2^23 entries")]
pub(super) fn percent(count: usize, of: usize) -> f32 {
    if of == 0 { 0.0 } else { count as f32 * 100.0 / of as f32 }
}

/// The FIB entry that packets take to a prefix, where no more specific one has them, or to an address.
pub(super) fn longest_match(fib: &BTreeMap<IpNet, GroupId>, to: impl Into<IpNet>) -> Option<(IpNet, GroupId)> {
    std::iter::successors(Some(to.into()), IpNet::supernet)
        .find_map(|prefix| fib.get(&prefix.trunc()).map(|group| (prefix.trunc(), *group)))
}

/// The index of the VRF called `name`.
pub(super) fn vrf_id(compiled: &Compiled, name: &str) -> Option<VrfId> {
    compiled.names.vrfs.iter().find(|(_, known)| *known == name).map(|(vrf, _)| *vrf)
}

/// What forwards in a VRF.
pub(super) fn fib_of(compiled: &Compiled, vrf: VrfId) -> &BTreeMap<IpNet, GroupId> {
    compiled.tables.vrfs.get(&vrf).unwrap_or(&compiled.tables.fib)
}

/// All resolved neighbours.
pub(super) fn neighbors<'a>(network: &'a Network, wanted: &'a Neighbors) -> impl Iterator<Item = Neighbor> + 'a {
    network.neighbors.iter().map(|(key, mac)| Neighbor {
        address: key.1,
        interface: interface_name(network, key.0),
        mac: *mac,
        in_use: wanted.in_use(key),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn the_longest_prefix_wins() {
        let fib = [("0.0.0.0/0", 1), ("10.0.0.0/8", 2), ("10.1.0.0/16", 3), ("10.1.2.3/32", 4), ("2001:db8::/32", 5)];
        let fib: BTreeMap<IpNet, GroupId> =
            fib.into_iter().map(|(prefix, group)| (prefix.parse().unwrap(), GroupId(group))).collect();
        let group = |address: &str| longest_match(&fib, address.parse::<IpAddr>().unwrap()).map(|(_, group)| group.0);
        assert_eq!(group("192.0.2.1"), Some(1));
        assert_eq!(group("10.9.9.9"), Some(2));
        assert_eq!(group("10.1.2.4"), Some(3));
        assert_eq!(group("10.1.2.3"), Some(4));
        assert_eq!(group("2001:db8::1"), Some(5));
        assert_eq!(group("2001:db9::1"), None);
        let prefix = |prefix: &str| longest_match(&fib, prefix.parse::<IpNet>().unwrap()).map(|(_, group)| group.0);
        assert_eq!((prefix("10.1.0.0/16"), prefix("10.1.0.0/15"), prefix("10.1.2.0/24")), (Some(3), Some(2), Some(3)));
    }
}
