//! What a restart takes over from the pinned tables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use model::network::IfIndex;
use model::tables::{NextHop, Tables};

/// The routes that a former process forwarded through gateways. Local, VIP, connected and dropping entries follow from the
/// network and the resources and are not adopted; an on-link host's own entry neither.
pub(super) fn routes(tables: &Tables) -> BTreeMap<IpNet, Vec<(IpAddr, IfIndex)>> {
    tables
        .fib
        .iter()
        .filter_map(|(prefix, group)| {
            let buckets = &tables.groups.get(group)?.buckets;
            let hops: BTreeSet<_> = buckets.iter().collect();
            let gateways: Option<BTreeSet<(IpAddr, IfIndex)>> = hops
                .into_iter()
                .map(|id| match tables.next_hops.get(id) {
                    Some(NextHop::Forward { address, ifindex, .. }) if IpNet::from(*address) != *prefix => {
                        Some((*address, *ifindex))
                    }
                    _ => None,
                })
                .collect();
            let gateways: Vec<_> = gateways.filter(|gateways| !gateways.is_empty())?.into_iter().collect();
            Some((*prefix, gateways))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::tables::{AdjacencyId, Group, GroupId, NextHopId};

    #[test]
    fn only_routes_through_gateways_are_adopted() {
        let forward = |address: &str| NextHop::Forward {
            address: address.parse().unwrap(),
            ifindex: IfIndex(2),
            adjacency: AdjacencyId(1),
        };
        let next_hops = [
            (1, forward("10.0.0.1")),
            (2, forward("10.0.0.2")),
            (3, NextHop::Receive { vip: None }),
            (4, NextHop::Glean { ifindex: IfIndex(2) }),
            (5, NextHop::Blackhole),
        ];
        let groups = [(1, vec![1, 1]), (2, vec![2, 1]), (3, vec![3, 3]), (4, vec![4, 4]), (5, vec![5, 5])];
        let fib = [
            ("198.51.100.0/24", 1),
            ("203.0.113.0/24", 2),
            ("10.0.0.9/32", 3),
            ("10.0.0.0/24", 4),
            ("192.0.2.0/24", 5),
            ("10.0.0.1/32", 1),
            ("100.64.0.0/10", 77),
        ];
        let tables = Tables {
            next_hops: next_hops.into_iter().map(|(id, hop)| (NextHopId(id), hop)).collect(),
            groups: groups
                .into_iter()
                .map(|(id, hops)| (GroupId(id), Group { buckets: hops.into_iter().map(NextHopId).collect() }))
                .collect(),
            fib: fib.into_iter().map(|(prefix, group)| (prefix.parse().unwrap(), GroupId(group))).collect(),
            ..Tables::default()
        };
        let gateway = |address: &str| (address.parse::<IpAddr>().unwrap(), IfIndex(2));
        let adopted = routes(&tables);
        let expected = [
            ("198.51.100.0/24", vec![gateway("10.0.0.1")]),
            ("203.0.113.0/24", vec![gateway("10.0.0.1"), gateway("10.0.0.2")]),
        ];
        let expected: BTreeMap<IpNet, Vec<_>> =
            expected.into_iter().map(|(prefix, gateways)| (prefix.parse().unwrap(), gateways)).collect();
        assert_eq!(adopted, expected);
    }
}
