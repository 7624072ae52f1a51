//! Random configurations: what the resources, the kernel and BGP could say about one node, valid but never tidy.
//!
//! Prefixes overlap, gateways are missing, links are down, VIPs lie in connected prefixes: everything that validation lets
//! through. Addresses come from few and small ranges, so that routes, policies and packets meet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::compile::{Compiler, compile};
use model::denylist::Denied;
use model::desired::{
    AttachMode, Backend, Encap, EndpointInterface, Failsafe, Gateway, HostEndpoint, IcmpMatch, Interface, MaxMss,
    Peers, Policy, PortRange, RouteAction, Rule, RuleAction, Service, SourceValidation, StaticRoute, Tunnel,
    TunnelKind, Vrf, protocol,
};
use model::health::{HealthCheck, Probe, ServiceHealth, Standing, Via};
use model::ids::{Ids, Limits};
use model::network::{IfIndex, Link, Mac, Vlan};
use model::quic::{Quic, ServerId};
use model::rib::{Alternative, BgpRoute, Gateway as Learned, Way};

use super::rng::Rng;
use crate::program::{INTERFACES, World};

/// Index of the first VLAN device. They need not exist: frames arrive on their parents.
const FIRST_VLAN: u32 = 21;
const TRANSPORTS: [u8; 3] = [protocol::TCP, protocol::UDP, protocol::SCTP];
const SERVICE_PORTS: [u16; 5] = [80, 443, 53, 4789, 65_535];

impl World {
    /// A configuration.
    #[must_use]
    pub fn random(rng: &mut Rng) -> Self {
        let mut world = Self::default();
        world.desired.node.name = "node".to_owned();
        // The bucket of a reason must never run dry: the oracle knows no time.
        world.desired.node.punt_rate = 1_000_000_000;
        world.vrfs(rng);
        world.links(rng);
        world.addresses(rng);
        world.neighbors(rng);
        world.services(rng);
        world.static_routes(rng);
        world.learned_routes(rng);
        world.tunnels(rng);
        if rng.chance(60) {
            let sides = [Denied::SOURCE, Denied::SOURCE, Denied::DESTINATION, Denied::SOURCE.or(Denied::DESTINATION)];
            world.desired.denylist = (0..rng.below(4)).map(|_| (world.prefix(rng), rng.of(sides))).collect();
        }
        world.policies(rng);
        world.kernel_routes(rng);
        world.failures(rng);
        world.limits(rng);
        world
    }

    fn vrfs(&mut self, rng: &mut Rng) {
        if rng.chance(30) {
            let tables = [("blue", Some(100)), ("red", Some(101)), ("bare", None)];
            let vrf = |(name, table): (&str, _)| Vrf { name: name.to_owned(), table };
            self.desired.vrfs = tables.map(vrf).into_iter().take(1 + rng.below(3)).collect();
        }
    }

    /// A VRF, more often than not the default one.
    fn vrf(&self, rng: &mut Rng) -> Option<String> {
        let names = self.desired.vrfs.iter().map(|vrf| vrf.name.clone());
        if rng.chance(45) { rng.any(names.collect::<Vec<_>>()) } else { None }
    }

    fn links(&mut self, rng: &mut Rng) {
        let ports = 1 + rng.below(4);
        for (place, (name, index)) in INTERFACES.into_iter().enumerate() {
            let is_port = place < ports;
            if is_port || (name == "h0" && rng.chance(60)) {
                self.link(rng, name, index, None);
            }
            // A parent need not be a port for its VLAN devices to be.
            if is_port && rng.chance(92) {
                self.interface(rng, name);
            }
        }
        for number in 0..rng.below(4) {
            let (parent_name, parent) = rng.of(INTERFACES.get(..ports).unwrap_or_default());
            let id = rng.of([1, 5, 100, 4094]);
            let taken = |link: &Link| link.vlan == Some(Vlan { parent, id });
            if self.network.links.values().any(taken) {
                continue;
            }
            let name = format!("{parent_name}.{id}");
            self.link(rng, &name, IfIndex(FIRST_VLAN + number as u32), Some(Vlan { parent, id }));
            if rng.chance(80) {
                self.interface(rng, &name);
            }
        }
    }

    fn interface(&mut self, rng: &mut Rng, name: &str) {
        let vrf = self.vrf(rng);
        // Drawn aside: the worlds of a seed stay what they are.
        let aside = &mut Rng::new(rng.clone().bits());
        let max_mss = MaxMss {
            ipv4: aside.of([None, None, Some(536), Some(1400), Some(65_495)]),
            ipv6: aside.of([None, None, Some(1220), Some(1380), Some(65_475)]),
        };
        self.desired.node.interfaces.push(Interface {
            vrf,
            max_mss,
            name: name.to_owned(),
            mode: AttachMode::Native,
            // Random sources seldom have a way back by the port that they come in by: most ports take any.
            source_validation: rng.of([
                SourceValidation::Off,
                SourceValidation::Off,
                SourceValidation::Off,
                SourceValidation::Off,
                SourceValidation::Loose,
                SourceValidation::Strict,
                SourceValidation::Feasible,
            ]),
        });
    }

    fn link(&mut self, rng: &mut Rng, name: &str, index: IfIndex, vlan: Option<Vlan>) {
        let parent = vlan.and_then(|vlan| self.network.links.get(&vlan.parent)).map(|link| link.mac);
        let own = Mac([2, 0, 0, 0, 1, index.0 as u8]);
        let link = Link {
            name: name.to_owned(),
            mac: if rng.chance(70) { parent.unwrap_or(own) } else { own },
            mtu: rng.of([1500, 1500, 1500, 1280, 1400, 2000, 3000]),
            up: rng.chance(94),
            rx_queues: 1,
            vlan,
        };
        self.network.links.insert(index, link);
    }

    fn addresses(&mut self, rng: &mut Rng) {
        for index in self.indexes() {
            let subnet = (index.0 - 10) as u8;
            if rng.chance(90) {
                let len = rng.of([24, 24, 24, 24, 16, 25, 29, 30, 31, 32]);
                let host = Ipv4Addr::new(10, subnet, rng.of([0, 0, 0, 1]), rng.of([1, 1, 2, 5, 126]));
                self.address(index, v4(host, len));
            }
            if rng.chance(85) {
                let len = rng.of([64, 64, 64, 48, 112, 126, 127, 128]);
                let host = Ipv6Addr::new(0x2001, 0xdb8, subnet.into(), 0, 0, 0, 0, rng.of([1, 1, 2, 5]));
                self.address(index, v6(host, len));
            }
            if rng.chance(60) {
                self.address(index, v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, index.0 as u16), 64));
            }
            if !self.desired.vrfs.is_empty() && rng.chance(40) {
                // As somewhere else, which is right in another VRF.
                let nets = self.nets(None);
                rng.any(nets).into_iter().for_each(|net| self.address(index, net));
            }
            if rng.chance(8) {
                self.address(index, v4(Ipv4Addr::new(169, 254, subnet, 1), 16));
            }
            if rng.chance(15) {
                // A second address, perhaps in the prefix of another interface.
                let other = rng.of([subnet, 1, 2]);
                self.address(index, v4(Ipv4Addr::new(10, other, 0, 9), rng.of([24, 16, 28])));
                self.address(index, v6(Ipv6Addr::new(0x2001, 0xdb8, other.into(), 0, 0, 0, 0, 9), 64));
            }
        }
        let node = &mut self.desired.node;
        if rng.chance(30) {
            node.encap_source_v4 = Some(Ipv4Addr::new(10, 1, 0, 1));
        }
        if rng.chance(30) {
            node.encap_source_v6 = Some(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1));
        }
        if rng.chance(30) {
            node.encap_prefix_v4 = Some(v4(Ipv4Addr::new(172, 16, 0, 0), rng.of([12, 16, 24, 30, 31])));
        }
        if rng.chance(30) {
            node.encap_prefix_v6 =
                Some(v6(Ipv6Addr::new(0xfd00, 0x16, 0, 0, 0, 0, 0, 0), rng.of([32, 64, 96, 112, 127])));
        }
        if rng.chance(20) {
            node.vxlan_port = 8472;
        }
        if rng.chance(20) {
            node.gue_port = 5555;
        }
    }

    fn address(&mut self, index: IfIndex, net: IpNet) {
        self.network.addresses.insert((index, net));
    }

    fn neighbors(&mut self, rng: &mut Rng) {
        for index in self.indexes() {
            for _ in 0..rng.below(24) {
                let address = if rng.chance(90) { self.on_link(rng, Some(index)) } else { self.anywhere(rng) };
                let mac = Mac([2, 0, 0, 0, 2, rng.below(250) as u8]);
                if !self.network.is_local(address) {
                    self.network.neighbors.insert((index, address), mac);
                }
            }
        }
    }

    fn services(&mut self, rng: &mut Rng) {
        let mut taken = BTreeSet::new();
        for number in 0..rng.below(5) {
            let (port, transport) = match rng.below(8) {
                0 => (None, None),
                1 | 2 => (None, Some(rng.of(TRANSPORTS))),
                _ => (Some(rng.of(SERVICE_PORTS)), Some(rng.of(TRANSPORTS))),
            };
            let mut addresses: Vec<IpNet> = Vec::new();
            for _ in 0..1 + rng.below(3) {
                let address = match rng.below(20) {
                    0 => self.on_link(rng, None),
                    1 => self.local(rng),
                    n if n % 2 == 0 => Ipv4Addr::new(198, 51, 100, rng.below(3) as u8).into(),
                    _ => Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, rng.below(3) as u16).into(),
                };
                let prefix = if rng.chance(75) { address.into() } else { vip_prefix(rng, address) };
                if taken.insert((prefix, port, transport)) {
                    addresses.push(prefix);
                }
            }
            if addresses.is_empty() {
                continue;
            }
            let backends: BTreeMap<IpAddr, Backend> = (0..rng.below(6))
                .map(|_| {
                    let address = match rng.below(10) {
                        0..=4 => self.neighbor(rng),
                        5 | 6 => self.on_link(rng, None),
                        _ => self.remote(rng),
                    };
                    let encap = match rng.below(7) {
                        0 | 1 => Encap::Ipip,
                        5 | 6 => Encap::Gue,
                        2 | 3 => Encap::Vxlan { vni: rng.of(VNIS), mac: Mac([2, 0, 0, 0, 3, rng.below(9) as u8]) },
                        _ => Encap::L2,
                    };
                    (address, Backend { address, weight: rng.of([1, 1, 1, 2, 10, 1000]), encap, drain: false })
                })
                .collect();
            self.desired.services.push(Service {
                name: format!("service-{number}"),
                addresses,
                port,
                protocol: transport,
                advertise: rng.chance(50),
                health: health(rng),
                affinity: rng.chance(30).then(|| Duration::from_secs(rng.of([1, 10_800, 86_400]))),
                quic: if transport == Some(protocol::UDP) { quic(rng, backends.keys()) } else { None },
                backends: backends.into_values().collect(),
            });
            self.judge_backends(rng);
        }
    }

    /// Lets checks have found out something, or nothing, about each backend of the last service.
    fn judge_backends(&mut self, rng: &mut Rng) {
        let Some(service) = self.desired.services.last() else { return };
        // With one of whom nothing is known, nobody of a service serves: some services are enough for that.
        let waits = service.backends.len() == 4;
        for target in service.backends.iter().filter_map(|backend| service.target(backend)) {
            let standing = match rng.below(10) {
                0 if waits => continue,
                1 if waits => Standing::Starting,
                2..=4 => Standing::Down("no answer".to_owned()),
                _ => Standing::Up,
            };
            self.network.health.set(target, standing);
        }
    }

    fn static_routes(&mut self, rng: &mut Rng) {
        let mut prefixes = BTreeSet::new();
        for number in 0..rng.below(10) {
            let (prefix, vrf) = (self.prefix(rng), self.vrf(rng));
            if !prefixes.insert((prefix, vrf.clone())) {
                continue;
            }
            let action = match rng.below(8) {
                0 => RouteAction::Blackhole,
                1 => RouteAction::Prohibit,
                _ => RouteAction::Via(self.gateways(rng, prefix)),
            };
            let name = format!("route-{number}");
            self.desired.static_routes.push(StaticRoute { name, prefix, action, advertise: false, vrf });
        }
    }

    fn gateways(&self, rng: &mut Rng, prefix: IpNet) -> Vec<Gateway> {
        let mut gateways: Vec<Gateway> = Vec::new();
        for _ in 0..1 + rng.below(4) {
            let given = rng.chance(25);
            let link_local = given && prefix.addr().is_ipv6() && rng.chance(50);
            let address = if link_local {
                Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, rng.below(8) as u16 + 0x100).into()
            } else {
                self.of_family(rng, prefix.addr(), |world, rng| match rng.below(8) {
                    0 => world.remote(rng),
                    1 => world.local(rng),
                    2 | 3 => world.on_link(rng, None),
                    _ => world.neighbor(rng),
                })
            };
            let names: Vec<_> = self.network.links.values().map(|link| link.name.clone()).collect();
            let interface = if given { rng.any(names) } else { None };
            if !gateways.iter().any(|known| known.address == address) {
                gateways.push(Gateway { address, interface, weight: rng.of([1, 1, 1, 2, 3, 100, 256]) });
            }
        }
        gateways
    }

    fn learned_routes(&mut self, rng: &mut Rng) {
        for _ in 0..rng.below(16) {
            let prefix = self.prefix(rng);
            let wanted = 1 + rng.below(4);
            let gateways: BTreeSet<IpAddr> = (0..wanted)
                .map(|_| {
                    self.of_family(rng, prefix.addr(), |world, rng| {
                        if rng.chance(75) { world.neighbor(rng) } else { world.anywhere(rng) }
                    })
                })
                .collect();
            let alternatives = (0..rng.below(3)).map(|_| {
                self.of_family(rng, prefix.addr(), |world, rng| {
                    if rng.chance(75) { world.neighbor(rng) } else { world.anywhere(rng) }
                })
            });
            let alternatives: Vec<IpAddr> = alternatives.collect();
            let internal = rng.chance(40);
            let route = BgpRoute { gateways: gateways.into_iter().collect(), alternatives, internal };
            self.rib.set_bgp(prefix, &route);
        }
        for _ in 0..rng.below(4) {
            let prefix = self.prefix(rng);
            let wanted = 1 + rng.below(3);
            let gateways: BTreeSet<(IpAddr, IfIndex)> = (0..wanted)
                .map(|_| {
                    let index = rng.of(self.indexes());
                    (self.of_family(rng, prefix.addr(), |world, rng| world.on_link(rng, Some(index))), index)
                })
                .collect();
            self.rib.set_adopted(prefix, gateways);
        }
    }

    fn kernel_routes(&mut self, rng: &mut Rng) {
        let more = if self.desired.vrfs.is_empty() { 0 } else { 10 };
        for _ in 0..rng.below(6 + more) {
            let prefix = self.prefix(rng);
            let way = match rng.below(9) {
                0 => Way::Host,
                1 => Way::Blackhole,
                2 => Way::Prohibit,
                3 => Way::Unreachable,
                4 => Way::Link(rng.of(self.indexes())),
                _ => {
                    let gateways = (0..1 + rng.below(3)).map(|_| {
                        let index = rng.of(self.indexes());
                        Learned {
                            weight: rng.of([1, 1, 2, 5]),
                            ..Learned::on_link(self.on_link(rng, Some(index)), index)
                        }
                    });
                    let gateways: Vec<Learned> = gateways.collect();
                    match Way::through(gateways) {
                        Some(way) => way,
                        None => continue,
                    }
                }
            };
            let beside = (0..rng.below(3)).map(|_| Alternative::Link(rng.of(self.indexes()))).collect();
            let tables = self.desired.vrfs.iter().map(|vrf| vrf.table).chain([None]);
            match rng.of(tables.collect::<Vec<_>>()) {
                Some(table) => self.rib.set_in_table(table, prefix, Some((way, beside))),
                None => self.rib.set_kernel_beside(prefix, way, beside),
            }
        }
    }

    /// Neighbours that do not answer, some of them gateways.
    fn failures(&mut self, rng: &mut Rng) {
        if rng.chance(50) {
            return;
        }
        for _ in 0..1 + rng.below(8) {
            let index = rng.of(self.indexes());
            let key = (index, if rng.chance(50) { self.neighbor(rng) } else { self.on_link(rng, Some(index)) });
            self.network.neighbors.remove(&key);
            self.network.failed.insert(key);
        }
    }

    /// Tables that are a little smaller than what is wanted. What the node cannot do without fits in any case.
    fn limits(&mut self, rng: &mut Rng) {
        if rng.chance(60) || !self.desired.vrfs.is_empty() {
            return;
        }
        let Ok(whole) = compile(&self.desired, &self.network, &self.rib, &mut Ids::default()) else { return };
        let of_family = |ipv4| whole.tables.fib.keys().filter(|prefix| prefix.addr().is_ipv4() == ipv4).count();
        let mut fewer = |count: usize| count.saturating_sub(rng.below(5));
        let limits = Limits {
            prefixes: [fewer(of_family(true)), fewer(of_family(false))],
            groups: fewer(whole.tables.groups.len()),
            set_aside: 0,
            ..Limits::default()
        };
        let mut compiler = Compiler::with_limits(Ids::default(), limits);
        if compiler.compile(&self.desired, &self.network, &mut self.rib.clone()).is_ok() {
            self.limits = limits;
        }
    }

    fn tunnels(&mut self, rng: &mut Rng) {
        for number in 0..rng.below(4) {
            let kind = match rng.below(5) {
                0 | 1 => TunnelKind::Ipip,
                2 => TunnelKind::Gue,
                _ => TunnelKind::Vxlan { vni: rng.of(VNIS) },
            };
            let peers = (0..1 + rng.below(4)).map(|_| self.prefix(rng)).collect();
            let sources = rng.chance(40).then(|| (0..1 + rng.below(5)).map(|_| self.prefix(rng)).collect());
            self.desired.tunnels.push(Tunnel { name: format!("tunnel-{number}"), kind, peers, sources });
        }
    }

    fn policies(&mut self, rng: &mut Rng) {
        if rng.chance(35) {
            return;
        }
        let names: Vec<_> = self.network.links.values().map(|link| link.name.clone()).collect();
        for number in 0..1 + rng.below(4) {
            let interface = if rng.chance(70) {
                EndpointInterface::Named(rng.of(&names))
            } else {
                EndpointInterface::ByAddress((0..1 + rng.below(2)).map(|_| self.local(rng)).collect())
            };
            let name = format!("endpoint-{number}");
            self.desired.host_endpoints.push(HostEndpoint { name, interface, labels: BTreeMap::new() });
        }
        let endpoints: Vec<_> = self.desired.host_endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
        for number in 0..rng.below(4) {
            let rules = (0..rng.below(7)).map(|_| self.rule(rng)).collect();
            let endpoints = rng.some_of(&endpoints, 70);
            self.desired.policies.push(Policy { name: format!("policy-{number}"), endpoints, rules });
        }
        if rng.chance(60) {
            let node = &mut self.desired.node;
            node.failsafe_inbound = Vec::new();
            node.failsafe_outbound = Vec::new();
            for _ in 0..rng.below(3) {
                let failsafe = self.failsafe(rng);
                self.desired.node.failsafe_inbound.push(failsafe);
            }
            for _ in 0..rng.below(3) {
                let failsafe = self.failsafe(rng);
                self.desired.node.failsafe_outbound.push(failsafe);
            }
        }
    }

    fn failsafe(&self, rng: &mut Rng) -> Failsafe {
        let net = if rng.chance(50) { Some(self.prefix(rng)) } else { None };
        Failsafe { protocol: rng.of(TRANSPORTS), port: rng.of([22, 53, 80, 179]), net }
    }

    /// Ports only with a transport protocol, ICMP types only with ICMP: what validation accepts.
    fn rule(&self, rng: &mut Rng) -> Rule {
        let mut rule = Rule {
            action: rng.of([RuleAction::Deny, RuleAction::Deny, RuleAction::Allow, RuleAction::Pass]),
            ip_version: rng.of([None, None, None, None, Some(4), Some(6)]),
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: self.peers(rng),
            destination: self.peers(rng),
        };
        match rng.below(6) {
            0 | 1 => {
                rule.protocol = Some(rng.of(TRANSPORTS));
                rule.source.ports = port_ranges(rng, 25);
                rule.source.not_ports = port_ranges(rng, 15);
                rule.destination.ports = port_ranges(rng, 50);
                rule.destination.not_ports = port_ranges(rng, 20);
            }
            2 => {
                let (of_protocol, kind) = rng.of([(protocol::ICMP, 8), (protocol::ICMPV6, 128)]);
                let wanted = IcmpMatch { kind, code: rng.of([None, Some(0), Some(3)]) };
                rule.protocol = Some(of_protocol);
                rule.icmp = rng.chance(60).then_some(wanted);
                rule.not_icmp = rng.chance(30).then_some(wanted);
            }
            3 => rule.protocol = Some(rng.of([4, 41, 6, 17, 50, 132])),
            4 => rule.not_protocol = Some(rng.of([6, 17, 1, 58])),
            _ => {}
        }
        rule
    }

    fn peers(&self, rng: &mut Rng) -> Peers {
        let nets = |percent: u32, rng: &mut Rng| -> Vec<IpNet> {
            if rng.chance(percent) { (0..1 + rng.below(3)).map(|_| self.prefix(rng)).collect() } else { Vec::new() }
        };
        Peers { nets: nets(35, rng), not_nets: nets(20, rng), ..Peers::default() }
    }

    // ---- where addresses come from

    /// Every interface.
    #[must_use]
    pub fn indexes(&self) -> Vec<IfIndex> {
        self.network.links.keys().copied().collect()
    }

    /// Interface addresses with their prefixes; no link-local ones, which configurations must not route.
    fn nets(&self, of: Option<IfIndex>) -> Vec<IpNet> {
        let link_local = |address: IpAddr| match address {
            IpAddr::V4(a) => a.is_link_local(),
            IpAddr::V6(a) => a.is_unicast_link_local(),
        };
        let wanted = |(index, net): &&(IfIndex, IpNet)| of.is_none_or(|of| *index == of) && !link_local(net.addr());
        self.network.addresses.iter().filter(wanted).map(|(_, net)| *net).collect()
    }

    /// An address of this node.
    pub fn local(&self, rng: &mut Rng) -> IpAddr {
        let all: Vec<_> = self.nets(None).iter().map(IpNet::addr).collect();
        rng.any(all).unwrap_or(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1)))
    }

    /// An address in a connected prefix, of one interface where given.
    pub fn on_link(&self, rng: &mut Rng, index: Option<IfIndex>) -> IpAddr {
        match rng.any(self.nets(index)) {
            Some(net) => host(rng, net),
            None => self.remote(rng),
        }
    }

    /// A neighbour that is resolved.
    pub fn neighbor(&self, rng: &mut Rng) -> IpAddr {
        let all: Vec<_> = self.network.neighbors.keys().map(|(_, address)| *address).collect();
        rng.any(all).unwrap_or(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2)))
    }

    /// An address that is on no link, from ranges that routes are made for.
    pub fn remote(&self, rng: &mut Rng) -> IpAddr {
        if rng.chance(50) {
            Ipv4Addr::new(10, 100 + rng.below(3) as u8, rng.of([0, 1]), rng.below(6) as u8).into()
        } else {
            let subnet = 0xf000 + rng.below(3) as u16;
            Ipv6Addr::new(0x2001, 0xdb8, subnet, rng.of([0, 1]), 0, 0, 0, rng.below(6) as u16).into()
        }
    }

    /// Any of the above, or a VIP.
    pub fn anywhere(&self, rng: &mut Rng) -> IpAddr {
        let vips = self.desired.services.iter().flat_map(|service| &service.addresses);
        match rng.below(10) {
            0 => self.local(rng),
            1 => match rng.any(vips.copied().collect::<Vec<IpNet>>()) {
                Some(prefix) => host(rng, prefix),
                None => self.remote(rng),
            },
            2..=4 => self.on_link(rng, None),
            _ => self.remote(rng),
        }
    }

    /// An address from `draw` of the family of `like`; drawn again until it is.
    pub fn of_family(&self, rng: &mut Rng, like: IpAddr, draw: impl Fn(&Self, &mut Rng) -> IpAddr) -> IpAddr {
        for _ in 0..32 {
            let address = draw(self, rng);
            if address.is_ipv4() == like.is_ipv4() {
                return address;
            }
        }
        match like {
            IpAddr::V4(_) => Ipv4Addr::new(10, 100, 0, 1).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0xf000, 0, 0, 0, 0, 1).into(),
        }
    }

    /// A prefix around some address.
    fn prefix(&self, rng: &mut Rng) -> IpNet {
        let net = match self.anywhere(rng) {
            IpAddr::V4(a) => v4(a, rng.of([0, 8, 14, 16, 23, 24, 24, 25, 30, 31, 32, 32])),
            IpAddr::V6(a) => v6(a, rng.of([0, 32, 46, 48, 63, 64, 64, 65, 112, 127, 128, 128])),
        };
        net.trunc()
    }
}

/// VXLAN network identifiers that tunnels, backends and packets use.
pub const VNIS: [u32; 4] = [1, 4096, 0x01_02_03, 0xff_ff_ff];

fn v4(address: Ipv4Addr, len: u8) -> IpNet {
    Ipv4Net::new(address, len).map_or(IpNet::V4(Ipv4Net::default()), IpNet::V4)
}

fn v6(address: Ipv6Addr, len: u8) -> IpNet {
    Ipv6Net::new(address, len).map_or(IpNet::V6(Ipv6Net::default()), IpNet::V6)
}

/// An address of the prefix: near its start, its end, or anywhere.
pub fn host(rng: &mut Rng, net: IpNet) -> IpAddr {
    let offset = match rng.below(10) {
        0 => u64::MAX,
        1 => rng.bits(),
        _ => rng.below(8) as u64,
    };
    match net {
        IpNet::V4(net) => {
            let mask = u32::from(net.hostmask());
            Ipv4Addr::from(u32::from(net.network()) | (offset as u32 & mask)).into()
        }
        IpNet::V6(net) => {
            let mask = u128::from(net.hostmask());
            Ipv6Addr::from(u128::from(net.network()) | (u128::from(offset) & mask)).into()
        }
    }
}

/// A prefix around a VIP address.
fn vip_prefix(rng: &mut Rng, address: IpAddr) -> IpNet {
    let net = match address {
        IpAddr::V4(a) => v4(a, rng.of([16, 23, 24, 24, 30, 31])),
        IpAddr::V6(a) => v6(a, rng.of([47, 48, 64, 64, 126, 127])),
    };
    net.trunc()
}

fn port_ranges(rng: &mut Rng, percent: u32) -> Vec<PortRange> {
    if !rng.chance(percent) {
        return Vec::new();
    }
    let mut ranges = Vec::new();
    for _ in 0..1 + rng.below(3) {
        let first: u16 = rng.of([0, 22, 53, 79, 80, 443, 1000, 4789, 65_535]);
        let last = first.saturating_add(rng.of([0, 0, 1, 500, 65_535]));
        ranges.push(PortRange { first, last });
    }
    ranges
}

/// Connection IDs of half of the UDP services.
fn quic<'a>(rng: &mut Rng, backends: impl Iterator<Item = &'a IpAddr>) -> Option<Quic> {
    let mut quic = Quic::default();
    for _ in 0..rng.below(3) {
        let length: u8 = rng.of([1, 2, 7, 8, 9, 15]);
        *quic.lengths.get_mut(rng.below(7))? = length;
    }
    for (n, address) in backends.enumerate() {
        for length in quic.lengths.into_iter().filter(|length| *length != 0) {
            let octets: Vec<u8> = (0..length).map(|at| if at == 0 { n as u8 } else { 0xe0 | at }).collect();
            quic.servers.extend(ServerId::new(&octets).filter(|_| rng.chance(90)).map(|id| (id, *address)));
        }
    }
    (quic.lengths != [0; 8] && rng.chance(80)).then_some(quic)
}

/// Checks of every third service.
fn health(rng: &mut Rng) -> Option<ServiceHealth> {
    let panic_percent = rng.of([0, 0, 50, 100]);
    let check = HealthCheck {
        probe: Probe::Tcp,
        via: rng.of([Via::Direct, Via::Tunnel]),
        port: rng.chance(50).then_some(8080),
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
        jitter_percent: 10,
    };
    rng.chance(33).then(|| ServiceHealth { check: Arc::new(check), panic_percent })
}
