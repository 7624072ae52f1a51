//! Builders: a node with ports, in one line a thing.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::compile::{CompileError, Compiled, compile};
use crate::desired::*;
use crate::ids::Ids;
use crate::network::{IfIndex, Link, Mac, Network, Vlan};
use crate::rib::{BgpRoute, Rib, Source};
use crate::tables::{FilterNext, Group, GroupId, NextHop, NextHopId};

/// The three inputs, and identifiers that live on from compile to compile.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) desired: Desired,
    pub(super) network: Network,
    pub(super) rib: Rib,
    pub(super) ids: Ids,
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(super) fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

impl World {
    /// eth0 (index 2) with 10.0.0.1/24 and 2001:db8::1/64, eth1 (index 3) with 10.1.0.1/24: both ports and up.
    pub(super) fn two_ports() -> Self {
        Self::default()
            .link(2, "eth0")
            .link(3, "eth1")
            .port("eth0")
            .port("eth1")
            .address(2, "10.0.0.1/24")
            .address(2, "2001:db8::1/64")
            .address(3, "10.1.0.1/24")
    }

    pub(super) fn link(mut self, ifindex: u32, name: &str) -> Self {
        let link = Link { name: name.into(), mac: mac(ifindex as u8), mtu: 1500, up: true, rx_queues: 1, vlan: None };
        self.network.links.insert(IfIndex(ifindex), link);
        self
    }

    pub(super) fn vlan(self, ifindex: u32, name: &str, parent: u32, id: u16) -> Self {
        let mut this = self.link(ifindex, name);
        this.link_mut(ifindex).vlan = Some(Vlan { parent: IfIndex(parent), id });
        this
    }

    pub(super) fn link_mut(&mut self, ifindex: u32) -> &mut Link {
        self.network.links.get_mut(&IfIndex(ifindex)).unwrap()
    }

    pub(super) fn port(mut self, name: &str) -> Self {
        self.desired.node.interfaces.push(Interface {
            name: name.into(),
            mode: AttachMode::Native,
            source_validation: SourceValidation::Off,
            max_mss: Default::default(),
            vrf: None,
        });
        self
    }

    pub(super) fn address(mut self, ifindex: u32, net_: &str) -> Self {
        self.network.addresses.insert((IfIndex(ifindex), net(net_)));
        self
    }

    pub(super) fn neighbor(mut self, ifindex: u32, address: &str, last: u8) -> Self {
        self.network.neighbors.insert((IfIndex(ifindex), ip(address)), mac(last));
        self
    }

    /// A neighbour that does not answer.
    pub(super) fn failed(mut self, ifindex: u32, address: &str) -> Self {
        let key = (IfIndex(ifindex), ip(address));
        self.network.neighbors.remove(&key);
        self.network.failed.insert(key);
        self
    }

    pub(super) fn bgp(mut self, prefix: &str, gateways: &[&str]) -> Self {
        let route =
            BgpRoute { gateways: gateways.iter().map(|g| ip(g)).collect(), alternatives: Vec::new(), internal: false };
        self.rib.set_bgp(net(prefix), &route);
        self
    }

    pub(super) fn adopted(mut self, prefix: &str, gateway: &str, ifindex: u32) -> Self {
        self.rib.set_adopted(net(prefix), [(ip(gateway), IfIndex(ifindex))]);
        self
    }

    /// The same beside paths that were not chosen.
    pub(super) fn bgp_beside(mut self, prefix: &str, gateways: &[&str], alternatives: &[&str]) -> Self {
        let [gateways, alternatives] = [gateways, alternatives].map(|all| all.iter().map(|g| ip(g)).collect());
        self.rib.set_bgp(net(prefix), &BgpRoute { gateways, alternatives, internal: false });
        self
    }

    pub(super) fn validation(mut self, interface: &str, validation: SourceValidation) -> Self {
        let mut interfaces = self.desired.node.interfaces.iter_mut();
        interfaces.find(|found| found.name == interface).unwrap().source_validation = validation;
        self
    }

    /// Gateways as `address`, `address*weight` or `address@interface`.
    pub(super) fn static_route(mut self, prefix: &str, gateways: &[&str]) -> Self {
        let gateway = |text: &&str| {
            let (text, weight) = text.split_once('*').map_or((*text, 1), |(t, w)| (t, w.parse().unwrap()));
            let (text, interface) = text.split_once('@').map_or((text, None), |(t, i)| (t, Some(i.to_owned())));
            Gateway { address: ip(text), interface, weight }
        };
        let action = RouteAction::Via(gateways.iter().map(gateway).collect());
        self.desired.static_routes.push(StaticRoute {
            name: format!("to {prefix}"),
            prefix: net(prefix),
            action,
            advertise: true,
            vrf: None,
        });
        self
    }

    pub(super) fn static_action(mut self, prefix: &str, action: RouteAction) -> Self {
        let name = format!("to {prefix}");
        self.desired.static_routes.push(StaticRoute { name, prefix: net(prefix), action, advertise: false, vrf: None });
        self
    }

    /// An IPIP service on TCP port 80.
    pub(super) fn service(mut self, name: &str, vips: &[&str], backends: &[&str]) -> Self {
        self.desired.services.push(Service {
            name: name.into(),
            addresses: vips.iter().map(|a| if a.contains('/') { net(a) } else { ip(a).into() }).collect(),
            port: Some(80),
            protocol: Some(protocol::TCP),
            advertise: true,
            health: None,
            affinity: None,
            quic: None,
            backends: backends
                .iter()
                .map(|address| Backend { address: ip(address), weight: 1, encap: Encap::Ipip, drain: false })
                .collect(),
        });
        self
    }

    pub(super) fn encap(mut self, encap: Encap) -> Self {
        for backend in &mut self.desired.services.last_mut().unwrap().backends {
            backend.encap = encap;
        }
        self
    }

    /// A host endpoint on `interface` and one policy of these rules for it.
    pub(super) fn policy(mut self, interface: &str, rules: Vec<Rule>) -> Self {
        let name = format!("{interface}-endpoint");
        if !self.desired.host_endpoints.iter().any(|endpoint| endpoint.name == name) {
            let interface = EndpointInterface::Named(interface.into());
            self.desired.host_endpoints.push(HostEndpoint {
                name: name.clone(),
                interface,
                labels: Default::default(),
            });
        }
        let policy = format!("policy-{}", self.desired.policies.len());
        self.desired.policies.push(Policy { name: policy, endpoints: vec![name], rules });
        self
    }

    pub(super) fn no_failsafe(mut self) -> Self {
        self.desired.node.failsafe_inbound.clear();
        self.desired.node.failsafe_outbound.clear();
        self
    }

    pub(super) fn try_compile(&mut self) -> Result<Compiled, CompileError> {
        compile(&self.desired, &self.network, &self.rib, &mut self.ids)
    }

    pub(super) fn compile(&mut self) -> Compiled {
        self.try_compile().unwrap()
    }
}

/// A rule that matches everything.
pub(super) fn rule(action: RuleAction) -> Rule {
    Rule {
        action,
        ip_version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: Peers::default(),
        destination: Peers::default(),
    }
}

/// What a route of the compiled FIB does: one word a distinct next hop, in order.
pub(super) trait Readable {
    fn group_of(&self, prefix: &str) -> GroupId;
    fn hops(&self, group: GroupId) -> Vec<String>;
    fn route(&self, prefix: &str) -> Option<String>;
    /// The prefixes of the FIB with the sources of their routes.
    fn routes(&self, rib: &Rib) -> Vec<(IpNet, Source)>;
    fn notices(&self) -> Vec<String>;
    fn share(&self, prefix: &str, gateway: &str) -> usize;
}

impl Readable for Compiled {
    fn group_of(&self, prefix: &str) -> GroupId {
        self.tables.fib[&net(prefix)]
    }

    fn hops(&self, group: GroupId) -> Vec<String> {
        let Group { buckets } = &self.tables.groups[&group];
        let distinct: std::collections::BTreeSet<NextHopId> = buckets.iter().copied().collect();
        let mut words: Vec<String> = distinct.iter().map(|id| word(self, self.tables.next_hops[id])).collect();
        words.sort();
        words
    }

    fn routes(&self, rib: &Rib) -> Vec<(IpNet, Source)> {
        let source = |prefix: &IpNet| (*prefix, self.best_route(*prefix, rib).unwrap().0);
        self.tables.fib.keys().map(source).collect()
    }

    fn route(&self, prefix: &str) -> Option<String> {
        self.tables.fib.get(&net(prefix)).map(|group| self.hops(*group).join(" "))
    }

    fn notices(&self) -> Vec<String> {
        self.notices.iter().map(ToString::to_string).collect()
    }

    fn share(&self, prefix: &str, gateway: &str) -> usize {
        let buckets = &self.tables.groups[&self.group_of(prefix)].buckets;
        let is_it = |id: &&NextHopId| match self.tables.next_hops[id] {
            NextHop::Forward { address, .. } => address == ip(gateway),
            _ => false,
        };
        buckets.iter().filter(is_it).count()
    }
}

fn word(compiled: &Compiled, hop: NextHop) -> String {
    match hop {
        NextHop::Forward { address, ifindex, adjacency } => {
            let resolved = compiled.tables.adjacencies[&adjacency].destination.is_some();
            format!("{address}@{ifindex}{}", if resolved { "" } else { "?" })
        }
        NextHop::Glean { ifindex } => format!("glean@{ifindex}"),
        NextHop::Receive { .. } => "receive".into(),
        NextHop::Host => "host".into(),
        NextHop::Vip(_) => "vip".into(),
        NextHop::Blackhole => "blackhole".into(),
        NextHop::Prohibit => "prohibit".into(),
        NextHop::Unreachable => "unreachable".into(),
    }
}

/// True where the op leads to a later one or ends.
pub(super) fn leads_forward(next: FilterNext, at: usize, ops: usize) -> bool {
    match next {
        FilterNext::Op(to) => usize::from(to) > at && usize::from(to) < ops,
        FilterNext::Allow | FilterNext::Deny => true,
    }
}
