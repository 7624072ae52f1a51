//! Which neighbours are resolved and kept fresh, and when the kernel is asked next.
//!
//! Packets that the program forwards never touch the kernel's neighbour entries, so to the kernel they look unused: every
//! gateway and on-link host of the tables is asked for, before a packet needs it and again while it is in use. An
//! unresolved one is asked for with growing pauses. No I/O: the clock comes in, requests go out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use model::network::{IfIndex, Network};
use model::tables::{NextHop, Tables};

/// First pause between requests for an address that does not answer; the kernel itself tries for 3 s.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// Where a neighbour is, and its address.
pub(super) type Neighbor = (IfIndex, IpAddr);

/// A request to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) neighbor: Neighbor,
    /// Keep it fresh; false lets go of it.
    pub(super) managed: bool,
}

/// Neighbours that the tables forward to.
#[derive(Debug, Default)]
pub(super) struct Neighbors {
    wanted: BTreeMap<Neighbor, Attempt>,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    next: Instant,
    pause: Duration,
}

impl Neighbors {
    /// Takes over what a new generation forwards to, and the gateways that it would forward to if they answered. New neighbours
    /// are due at once; returned are requests that let go of those that are no longer wanted and still known.
    pub(super) fn want(
        &mut self,
        tables: &Tables,
        failed: &BTreeSet<Neighbor>,
        network: &Network,
        now: Instant,
    ) -> Vec<Request> {
        let mut former = std::mem::take(&mut self.wanted);
        let fresh = Attempt { next: now, pause: FIRST_PAUSE };
        let wanted: BTreeSet<Neighbor> = forwarded(tables).chain(failed.iter().copied()).collect();
        self.wanted =
            wanted.into_iter().map(|neighbor| (neighbor, former.remove(&neighbor).unwrap_or(fresh))).collect();
        let known = |neighbor: &Neighbor| network.neighbors.contains_key(neighbor);
        former.into_keys().filter(known).map(|neighbor| Request { neighbor, managed: false }).collect()
    }

    /// A neighbour was resolved or lost: an unresolved one is due soon, however long it had been silent.
    pub(super) fn changed(&mut self, neighbor: Neighbor, now: Instant) {
        if let Some(attempt) = self.wanted.get_mut(&neighbor) {
            *attempt = Attempt { next: now + FIRST_PAUSE, pause: FIRST_PAUSE };
        }
    }

    /// The requests that are due.
    pub(super) fn due(&mut self, network: &Network, now: Instant) -> Vec<Request> {
        let mut requests = Vec::new();
        for (neighbor, attempt) in self.wanted.iter_mut().filter(|(_, attempt)| attempt.next <= now) {
            requests.push(Request { neighbor: *neighbor, managed: true });
            let resolved = network.neighbors.contains_key(neighbor);
            attempt.next = now + if resolved { LAST_PAUSE } else { attempt.pause };
            attempt.pause = if resolved { FIRST_PAUSE } else { (attempt.pause * 2).min(LAST_PAUSE) };
        }
        requests
    }

    /// When [`Neighbors::due`] has something next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.wanted.values().map(|attempt| attempt.next).min()
    }

    /// True when a next hop uses the neighbour.
    pub(super) fn in_use(&self, neighbor: &Neighbor) -> bool {
        self.wanted.contains_key(neighbor)
    }
}

fn forwarded(tables: &Tables) -> impl Iterator<Item = Neighbor> + '_ {
    tables.next_hops.values().filter_map(|hop| match hop {
        NextHop::Forward { address, ifindex, .. } => Some((*ifindex, *address)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::network::Mac;
    use model::tables::{AdjacencyId, NextHopId};

    fn tables(gateways: &[&str]) -> Tables {
        let hop = |address: &&str| NextHop::Forward {
            address: address.parse().unwrap(),
            ifindex: IfIndex(2),
            adjacency: AdjacencyId(1),
        };
        let next_hops =
            gateways.iter().enumerate().map(|(i, address)| (NextHopId(i as u32 + 1), hop(address))).collect();
        Tables { next_hops, ..Tables::default() }
    }

    fn neighbor(address: &str) -> Neighbor {
        (IfIndex(2), address.parse().unwrap())
    }

    #[test]
    fn a_silent_gateway_is_asked_for_with_growing_pauses() {
        let (mut neighbors, mut network, mut now) = (Neighbors::default(), Network::default(), Instant::now());
        assert!(neighbors.want(&tables(&["10.0.0.1"]), &BTreeSet::new(), &network, now).is_empty());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(neighbors.due(&network, now), [Request { neighbor: neighbor("10.0.0.1"), managed: true }]);
            assert!(neighbors.due(&network, now).is_empty(), "asked once");
            let next = neighbors.next_due().unwrap();
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);

        network.neighbors.insert(neighbor("10.0.0.1"), Mac([2; 6]));
        neighbors.due(&network, now);
        assert_eq!(neighbors.next_due().unwrap() - now, LAST_PAUSE, "refreshed while in use");
        network.neighbors.clear();
        neighbors.changed(neighbor("10.0.0.1"), now);
        assert_eq!(neighbors.next_due().unwrap() - now, FIRST_PAUSE, "lost: asked for soon");
    }

    #[test]
    fn a_new_generation_keeps_the_pauses_and_lets_go_of_what_is_gone() {
        let (mut neighbors, mut network, now) = (Neighbors::default(), Network::default(), Instant::now());
        network.neighbors.insert(neighbor("10.0.0.2"), Mac([2; 6]));
        neighbors.want(&tables(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]), &BTreeSet::new(), &network, now);
        assert_eq!(neighbors.due(&network, now).len(), 3);
        let released = neighbors.want(&tables(&["10.0.0.1"]), &BTreeSet::new(), &network, now);
        assert_eq!(released, [Request { neighbor: neighbor("10.0.0.2"), managed: false }], "the other is not known");
        assert!(neighbors.due(&network, now).is_empty());
        assert!(neighbors.in_use(&neighbor("10.0.0.1")) && !neighbors.in_use(&neighbor("10.0.0.2")));
        // A gateway that others stand in for is in no group, and is asked for all the same.
        let failed = BTreeSet::from([neighbor("10.0.0.9")]);
        neighbors.want(&tables(&["10.0.0.1"]), &failed, &network, now);
        assert_eq!(neighbors.due(&network, now), [Request { neighbor: neighbor("10.0.0.9"), managed: true }]);
        neighbors.want(&tables(&["10.0.0.1"]), &BTreeSet::new(), &network, now);
        assert!(!neighbors.in_use(&neighbor("10.0.0.9")));
    }
}
