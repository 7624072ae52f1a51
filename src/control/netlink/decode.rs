//! Route netlink messages as changes of the [`Network`]. Pure; what has no meaning here (bridge ports, proxy entries,
//! multicast neighbours, devices without an Ethernet address) is `None`.

use std::net::IpAddr;

use ipnet::IpNet;
use model::network::{IfIndex, Link, Mac, Network, Vlan};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

/// What the kernel knows about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighborEntry {
    /// It has a valid link-layer address (REACHABLE, STALE, DELAY, PROBE, NOARP or PERMANENT).
    Resolved(Mac),
    /// Being resolved, or the entry is gone.
    Unresolved,
    /// It was asked for, and did not answer.
    Failed,
}

/// One difference in the kernel's view of the node.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The whole of it: at the start, and whenever notifications were lost. Whatever it does not hold is gone.
    Snapshot(Network),
    /// A link appeared, changed, or (`None`) is gone with its addresses and neighbours.
    Link(IfIndex, Option<Link>),
    /// An interface address is there or gone.
    Address {
        /// Interface that has it.
        ifindex: IfIndex,
        /// The address with the length of its connected prefix.
        net: IpNet,
        /// False when it was removed.
        present: bool,
    },
    /// A neighbour changed.
    Neighbor {
        /// Interface that it is on.
        ifindex: IfIndex,
        /// Its network address.
        address: IpAddr,
        /// What is known now.
        entry: NeighborEntry,
    },
}

impl Change {
    /// Puts the change into effect; true when `network` is different now.
    pub fn apply(self, network: &mut Network) -> bool {
        match self {
            Self::Snapshot(mut snapshot) => {
                // One that failed may be asked for again at this moment: it has not answered yet.
                let is_silent = |key: &&(IfIndex, IpAddr)| {
                    !snapshot.neighbors.contains_key(*key) && snapshot.links.get(&key.0).is_some_and(|link| link.up)
                };
                let silent: Vec<_> = network.failed.iter().filter(is_silent).copied().collect();
                snapshot.failed.extend(silent);
                // Of the health of backends the kernel knows nothing.
                snapshot.health.clone_from(&network.health);
                let changed = *network != snapshot;
                *network = snapshot;
                changed
            }
            Self::Link(index, Some(link)) => {
                if !link.up {
                    network.failed.retain(|(of, _)| *of != index);
                }
                network.links.insert(index, link.clone()) != Some(link)
            }
            Self::Link(index, None) => {
                network.addresses.retain(|(of, _)| *of != index);
                network.neighbors.retain(|(of, _), _| *of != index);
                network.failed.retain(|(of, _)| *of != index);
                network.links.remove(&index).is_some()
            }
            Self::Address { ifindex, net, present: true } => network.addresses.insert((ifindex, net)),
            Self::Address { ifindex, net, present: false } => network.addresses.remove(&(ifindex, net)),
            Self::Neighbor { ifindex, address, entry: NeighborEntry::Resolved(mac) } => {
                let answers_again = network.failed.remove(&(ifindex, address));
                network.neighbors.insert((ifindex, address), mac) != Some(mac) || answers_again
            }
            Self::Neighbor { ifindex, address, entry: NeighborEntry::Failed } => {
                let was_resolved = network.neighbors.remove(&(ifindex, address)).is_some();
                network.failed.insert((ifindex, address)) || was_resolved
            }
            // One that failed and is asked for again, or forgotten by the kernel, has not answered yet.
            Self::Neighbor { ifindex, address, entry: NeighborEntry::Unresolved } => {
                network.neighbors.remove(&(ifindex, address)).is_some()
            }
        }
    }
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    <[u8; 6]>::try_from(bytes).ok().map(Mac)
}

fn vlan_id(info: &[LinkInfo]) -> Option<u16> {
    info.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(vlan)) => vlan.iter().find_map(|attribute| match attribute {
            InfoVlan::Id(id) => Some(*id),
            _ => None,
        }),
        _ => None,
    })
}

/// A link from RTM_NEWLINK. Its queue count is not in the message: 1 until ethtool has answered.
pub(super) fn link(message: &LinkMessage) -> Option<(IfIndex, Link)> {
    // The same group carries bridge port notifications (AF_BRIDGE), which are about another object.
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let flags = message.header.flags;
    let mut link = Link {
        name: String::new(),
        mac: Mac::default(),
        mtu: 0,
        up: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        rx_queues: 1,
        vlan: None,
    };
    let (mut parent, mut tag) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = mac(bytes).unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(index) => parent = Some(IfIndex(*index)),
            LinkAttribute::LinkInfo(info) => tag = vlan_id(info),
            _ => {}
        }
    }
    link.vlan = parent.zip(tag).map(|(parent, id)| Vlan { parent, id });
    (!link.name.is_empty()).then_some((IfIndex(message.header.index), link))
}

/// An address from RTM_NEWADDR or RTM_DELADDR. IFA_LOCAL is the node's own; IFA_ADDRESS is the far end of a
/// point-to-point link, and the same thing everywhere else.
pub(super) fn address(message: &AddressMessage) -> Option<(IfIndex, IpNet)> {
    let find = |local: bool| {
        message.attributes.iter().find_map(move |attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    let own = find(true).or_else(|| find(false))?;
    let net = IpNet::new(own, message.header.prefix_len).ok()?;
    Some((IfIndex(message.header.index), net))
}

/// A neighbour from RTM_NEWNEIGH, or from RTM_DELNEIGH with `gone`.
pub(super) fn neighbor(message: &NeighbourMessage, gone: bool) -> Option<(IfIndex, IpAddr, NeighborEntry)> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })?;
    if address.is_multicast() || address.is_unspecified() || address.is_loopback() {
        return None;
    }
    let link_layer = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => mac(bytes),
        _ => None,
    });
    let entry = match (message.header.state, link_layer) {
        _ if gone => NeighborEntry::Unresolved,
        (NeighbourState::Failed, _) => NeighborEntry::Failed,
        (
            NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Noarp
            | NeighbourState::Permanent,
            Some(Mac(octets)),
        ) if octets != [0; 6] && octets.first().is_some_and(|first| first & 1 == 0) => {
            NeighborEntry::Resolved(Mac(octets))
        }
        _ => NeighborEntry::Unresolved,
    };
    Some((IfIndex(message.header.ifindex), address, entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbour(state: NeighbourState, bytes: Option<[u8; 6]>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 3;
        message.header.state = state;
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet([10, 0, 0, 2].into())));
        message.attributes.extend(bytes.map(|bytes| NeighbourAttribute::LinkLayerAddress(bytes.to_vec())));
        message
    }

    #[test]
    fn neighbour_states() {
        let address: IpAddr = "10.0.0.2".parse().unwrap();
        let octets = [2, 0, 0, 0, 0, 1];
        let entry = |state, bytes, gone| {
            let (index, of, entry) = neighbor(&neighbour(state, bytes), gone).unwrap();
            assert_eq!((index, of), (IfIndex(3), address));
            entry
        };
        for state in [NeighbourState::Reachable, NeighbourState::Stale, NeighbourState::Delay, NeighbourState::Probe] {
            assert_eq!(entry(state, Some(octets), false), NeighborEntry::Resolved(Mac(octets)));
            assert_eq!(entry(state, None, false), NeighborEntry::Unresolved);
            assert_eq!(entry(state, Some(octets), true), NeighborEntry::Unresolved);
        }
        assert_eq!(entry(NeighbourState::Failed, Some(octets), false), NeighborEntry::Failed);
        assert_eq!(entry(NeighbourState::Incomplete, Some(octets), false), NeighborEntry::Unresolved);
        assert_eq!(entry(NeighbourState::Permanent, Some([1, 0, 0x5e, 0, 0, 1]), false), NeighborEntry::Unresolved);
    }

    #[test]
    fn proxy_and_multicast_entries_are_not_neighbours() {
        let mut proxy = neighbour(NeighbourState::Permanent, Some([2; 6]));
        proxy.header.flags = NeighbourFlags::Proxy;
        assert_eq!(neighbor(&proxy, false), None);
        let mut group = neighbour(NeighbourState::Noarp, Some([2; 6]));
        group.attributes[0] = NeighbourAttribute::Destination(NeighbourAddress::Inet([224, 0, 0, 1].into()));
        assert_eq!(neighbor(&group, false), None);
    }

    #[test]
    fn bridge_port_notifications_are_not_links() {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName("eth0".into()));
        message.header.index = 2;
        assert_eq!(link(&message).unwrap().0, IfIndex(2));
        message.header.interface_family = AddressFamily::Bridge;
        assert_eq!(link(&message), None);
    }

    #[test]
    fn a_vlan_device_knows_parent_and_tag() {
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        message.attributes = vec![
            LinkAttribute::IfName("eth0.7".into()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 9]),
            LinkAttribute::Mtu(1496),
            LinkAttribute::Link(5),
            LinkAttribute::LinkInfo(vec![LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(7)]))]),
        ];
        let (_, link) = link(&message).unwrap();
        assert_eq!(link.vlan, Some(Vlan { parent: IfIndex(5), id: 7 }));
        assert_eq!((link.mtu, link.up, link.mac), (1496, true, Mac([2, 0, 0, 0, 0, 9])));
    }

    #[test]
    fn a_neighbour_that_failed_stays_so_until_it_answers_or_its_link_is_down() {
        let link = |up| Link { name: "a".into(), mac: Mac::default(), mtu: 1500, up, rx_queues: 1, vlan: None };
        let (index, address): (_, IpAddr) = (IfIndex(1), "10.0.0.2".parse().unwrap());
        let mut network = Network::default();
        let neighbor = |entry| Change::Neighbor { ifindex: index, address, entry };
        Change::Link(index, Some(link(true))).apply(&mut network);
        assert!(!neighbor(NeighborEntry::Unresolved).apply(&mut network), "what is asked for has not failed");
        assert!(neighbor(NeighborEntry::Resolved(Mac([2; 6]))).apply(&mut network));
        assert!(neighbor(NeighborEntry::Failed).apply(&mut network));
        assert!(network.neighbors.is_empty() && network.failed.contains(&(index, address)));
        for entry in [NeighborEntry::Unresolved, NeighborEntry::Failed] {
            assert!(!neighbor(entry).apply(&mut network), "{entry:?} again and again");
        }
        let snapshot = Network { failed: Default::default(), ..network.clone() };
        assert!(!Change::Snapshot(snapshot.clone()).apply(&mut network), "the kernel asks at this moment");
        assert!(neighbor(NeighborEntry::Resolved(Mac([2; 6]))).apply(&mut network));
        assert!(network.failed.is_empty());
        neighbor(NeighborEntry::Failed).apply(&mut network);
        Change::Link(index, Some(link(false))).apply(&mut network);
        assert!(network.failed.is_empty(), "nothing is known of it once the link is back");
    }

    #[test]
    fn the_end_of_a_link_takes_its_addresses_and_neighbours() {
        let mut network = Network::default();
        let link = Link { name: "a".into(), mac: Mac::default(), mtu: 1500, up: true, rx_queues: 1, vlan: None };
        let address: IpAddr = "10.0.0.2".parse().unwrap();
        for index in [IfIndex(1), IfIndex(2)] {
            assert!(Change::Link(index, Some(link.clone())).apply(&mut network));
            assert!(!Change::Link(index, Some(link.clone())).apply(&mut network), "nothing new");
            let net = "10.0.0.1/24".parse().unwrap();
            assert!(Change::Address { ifindex: index, net, present: true }.apply(&mut network));
            let entry = NeighborEntry::Resolved(Mac([2; 6]));
            assert!(Change::Neighbor { ifindex: index, address, entry }.apply(&mut network));
        }
        assert!(Change::Link(IfIndex(1), None).apply(&mut network));
        assert_eq!(network.links.len(), 1);
        assert_eq!(network.addresses_of(IfIndex(1)).count(), 0);
        assert_eq!(network.neighbors.keys().copied().collect::<Vec<_>>(), [(IfIndex(2), address)]);
    }
}
