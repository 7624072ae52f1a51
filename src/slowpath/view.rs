//! What a worker must know about the node's links to write frames and to answer for the node.
//!
//! A view is built once per change by the control thread and shared by all workers; a worker never asks the kernel.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::desired::Node;
use model::network::{IfIndex, Link, Mac, Network};

/// One link, ready to send on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkView {
    /// Interface that the frame leaves by: the parent, for a VLAN device.
    pub device: IfIndex,
    /// Tag that is pushed, for a VLAN device.
    pub vlan: Option<u16>,
    /// Source of the Ethernet header.
    pub mac: Mac,
    /// Largest layer-3 packet, in bytes.
    pub mtu: u32,
    /// Its own addresses, in order.
    pub addresses: Vec<IpAddr>,
    /// Its VRF; the default one where absent.
    pub vrf: Option<String>,
}

/// Every link of the node and the addresses that an ICMP error can come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkView {
    links: HashMap<IfIndex, LinkView>,
    /// First global address of each family by VRF, of whatever link of it: what links without one borrow.
    global_v4: HashMap<Option<String>, Ipv4Addr>,
    global_v6: HashMap<Option<String>, Ipv6Addr>,
}

impl NetworkView {
    /// What there is of the network, and which links are in which VRF.
    pub fn new(network: &Network, node: &Node) -> Self {
        let mut view = Self::default();
        for (index, link) in &network.links {
            let vrf = node.vrf_of(&link.name).map(str::to_owned);
            let addresses: Vec<IpAddr> = network.addresses_of(*index).map(|net| net.addr()).collect();
            for address in &addresses {
                match address {
                    IpAddr::V4(v4) if is_global_v4(v4) => drop(view.global_v4.entry(vrf.clone()).or_insert(*v4)),
                    IpAddr::V6(v6) if is_global_v6(v6) => drop(view.global_v6.entry(vrf.clone()).or_insert(*v6)),
                    IpAddr::V4(_) | IpAddr::V6(_) => {}
                }
            }
            view.links.insert(*index, link_view(*index, link, addresses, vrf));
        }
        view
    }

    /// The link with this index.
    pub fn link(&self, ifindex: IfIndex) -> Option<&LinkView> {
        self.links.get(&ifindex)
    }

    /// Source of an ICMPv4 error about a packet that came in by `ingress`: an address of that interface
    /// (RFC 1812 §4.3.2.4), a global one before a link-local one, else any global address of its VRF.
    pub fn source_v4(&self, ingress: IfIndex) -> Option<Ipv4Addr> {
        let own =
            || self.addresses(ingress).filter_map(|address| if let IpAddr::V4(v4) = address { Some(v4) } else { None });
        own().find(is_global_v4).or_else(|| self.borrowed(&self.global_v4, ingress)).or_else(|| own().next())
    }

    /// Source of an ICMPv6 error about a packet that came in by `ingress` (RFC 4443 §2.2), chosen alike.
    pub fn source_v6(&self, ingress: IfIndex) -> Option<Ipv6Addr> {
        let own =
            || self.addresses(ingress).filter_map(|address| if let IpAddr::V6(v6) = address { Some(v6) } else { None });
        own().find(is_global_v6).or_else(|| self.borrowed(&self.global_v6, ingress)).or_else(|| own().next())
    }

    fn borrowed<T: Copy>(&self, of_vrfs: &HashMap<Option<String>, T>, ingress: IfIndex) -> Option<T> {
        of_vrfs.get(&self.links.get(&ingress)?.vrf).copied()
    }

    fn addresses(&self, ifindex: IfIndex) -> impl Iterator<Item = IpAddr> + '_ {
        self.links.get(&ifindex).into_iter().flat_map(|link| link.addresses.iter().copied())
    }
}

impl From<&Network> for NetworkView {
    /// Of a node without VRFs.
    fn from(network: &Network) -> Self {
        Self::new(network, &Node::default())
    }
}

fn link_view(index: IfIndex, link: &Link, addresses: Vec<IpAddr>, vrf: Option<String>) -> LinkView {
    LinkView {
        device: link.vlan.map_or(index, |vlan| vlan.parent),
        vlan: link.vlan.map(|vlan| vlan.id),
        mac: link.mac,
        mtu: link.mtu,
        addresses,
        vrf,
    }
}

/// Reachable from another link. Private addresses (RFC 1918, RFC 4193) are: they are what most gateways have.
fn is_global_v4(address: &Ipv4Addr) -> bool {
    !(address.is_loopback() || address.is_link_local() || address.is_unspecified() || address.is_multicast())
}

fn is_global_v6(address: &Ipv6Addr) -> bool {
    !(address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified() || address.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::network::Vlan;

    fn network(addresses: &[(u32, &str)]) -> Network {
        let link = |name: &str, vlan| Link {
            name: name.into(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            up: true,
            rx_queues: 1,
            vlan,
        };
        Network {
            links: [
                (IfIndex(1), link("lo", None)),
                (IfIndex(2), link("eth0", None)),
                (IfIndex(3), link("eth0.10", Some(Vlan { parent: IfIndex(2), id: 10 }))),
            ]
            .into(),
            addresses: addresses.iter().map(|(i, net)| (IfIndex(*i), net.parse().unwrap())).collect(),
            ..Network::default()
        }
    }

    #[test]
    fn own_global_address_first_then_the_nodes_then_link_local() {
        let view = NetworkView::from(&network(&[
            (1, "127.0.0.1/8"),
            (1, "::1/128"),
            (2, "169.254.0.1/16"),
            (2, "192.0.2.1/24"),
            (2, "fe80::1/64"),
            (3, "fe80::1/64"),
        ]));
        assert_eq!(view.source_v4(IfIndex(2)), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(view.source_v4(IfIndex(3)), Some("192.0.2.1".parse().unwrap()), "borrowed from eth0");
        assert_eq!(view.source_v6(IfIndex(3)), Some("fe80::1".parse().unwrap()), "no global one anywhere");
        assert_eq!(NetworkView::from(&network(&[(1, "127.0.0.1/8")])).source_v4(IfIndex(2)), None);
    }

    #[test]
    fn addresses_are_borrowed_within_a_vrf() {
        let network = network(&[(2, "192.0.2.1/24"), (2, "2001:db8::1/64"), (3, "fe80::1/64")]);
        let mut node = Node::default();
        node.interfaces.push(model::desired::Interface {
            name: "eth0.10".to_owned(),
            mode: Default::default(),
            source_validation: Default::default(),
            max_mss: Default::default(),
            vrf: Some("blue".to_owned()),
        });
        let view = NetworkView::new(&network, &node);
        assert_eq!(view.source_v4(IfIndex(3)), None);
        assert_eq!(view.source_v6(IfIndex(3)), Some("fe80::1".parse().unwrap()));
        assert_eq!(view.source_v4(IfIndex(1)), Some("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn a_vlan_device_sends_by_its_parent() {
        let view = NetworkView::from(&network(&[]));
        let link = view.link(IfIndex(3)).unwrap();
        assert_eq!((link.device, link.vlan), (IfIndex(2), Some(10)));
    }
}
