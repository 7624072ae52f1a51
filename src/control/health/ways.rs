//! Where checks via tunnel go, as the generation in force has it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::compile::{Compiled, Notice};
use model::desired::{Backend as Configured, Desired, Service};
use model::network::{IfIndex, Network};
use model::tables::{Backend, BackendId, NextHop, Outer, VipId, VipKey};

/// How a backend of a VIP is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The row of the tables that its packets go by.
    pub(super) backend: BackendId,
    /// What packets get in front; nothing for L2.
    pub(super) encap: Option<&'static str>,
    /// An address of the VIP's family on an interface towards the backend.
    pub(super) source: Option<IpAddr>,
}

/// Every target of which a generation in force says how it is reached, or why it is not.
pub(super) type Ways = BTreeMap<(VipKey, IpAddr), Result<Way, String>>;

type Rows<'a> = BTreeMap<(VipId, IpAddr), (BackendId, &'a Backend)>;

/// The ways of all services that are checked via tunnel. Before all routes are known, those that have none yet are left out: nothing is to
/// be said of them.
pub(super) fn ways(desired: &Desired, network: &Network, compiled: &Compiled, routes_known: bool) -> Ways {
    let services = desired.services.iter().filter_map(|service| Some((service, service.checked_vip()?)));
    let mut services = services.peekable();
    if services.peek().is_none() {
        return Ways::new();
    }
    let rows = compiled.tables.backends.iter().chain(&compiled.tables.checked);
    let rows: Rows<'_> = rows.map(|(id, row)| ((row.vip, row.address), (*id, row))).collect();
    let mut ways = Ways::new();
    for (service, vip) in services {
        for Configured { address, .. } in &service.backends {
            let row = compiled.tables.vips.get(&vip).and_then(|id| rows.get(&(*id, *address)));
            let way = match row {
                _ if network.is_local(vip.prefix.network()) => Err(of_host(vip)),
                Some((id, row)) => Ok(way(vip, *id, row, network, compiled)),
                None if routes_known => Err(format!("no packet is sent to it: {}", why(service, *address, compiled))),
                None => continue,
            };
            ways.insert((vip, *address), way);
        }
    }
    ways
}

fn of_host(vip: VipKey) -> String {
    format!("{} is an address of this node: a check of it ends here", vip.prefix.network())
}

fn way(vip: VipKey, backend: BackendId, row: &Backend, network: &Network, compiled: &Compiled) -> Way {
    let addresses = egress(row, compiled).into_iter().flat_map(|ifindex| network.addresses_of(ifindex));
    let source = addresses.map(|net| net.addr()).find(|address| {
        let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        address.is_ipv4() == vip.prefix.addr().is_ipv4() && !link_local
    });
    Way { backend, encap: encap(&row.outer), source }
}

/// Why the tables have no row for a backend, as the notices say it.
fn why(service: &Service, backend: IpAddr, compiled: &Compiled) -> String {
    let problem = compiled.notices.iter().find_map(|notice| match notice {
        Notice::BackendUnusable { service: name, backend: address, problem }
            if *name == service.name && *address == backend =>
        {
            Some(problem)
        }
        _ => None,
    });
    problem.map_or_else(|| "its VIP is not in force".to_owned(), |problem| format!("it {problem}"))
}

/// An interface that packets for the backend leave by.
fn egress(row: &Backend, compiled: &Compiled) -> Option<IfIndex> {
    let group = compiled.tables.groups.get(&row.group)?;
    match compiled.tables.next_hops.get(group.buckets.first()?)? {
        NextHop::Forward { ifindex, .. } => Some(*ifindex),
        _ => None,
    }
}

fn encap(outer: &Outer) -> Option<&'static str> {
    match outer {
        Outer::None => None,
        Outer::Ipip { .. } => Some("IPIP"),
        Outer::Gue { .. } => Some("GUE"),
        Outer::Vxlan { .. } => Some("VXLAN"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use ipnet::IpNet;
    use model::desired::{Encap, protocol};
    use model::health::{HealthCheck, Probe, ServiceHealth, Via};

    use super::*;

    #[test]
    fn nothing_is_said_of_who_has_no_route_before_routes_are_known() {
        let check = HealthCheck {
            probe: Probe::Tcp,
            via: Via::Tunnel,
            port: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            jitter_percent: 10,
        };
        let backend: IpAddr = "10.1.0.11".parse().unwrap();
        let vip: IpNet = "192.0.2.0/24".parse().unwrap();
        let service = Service {
            name: "web".to_owned(),
            addresses: vec![vip],
            port: Some(80),
            protocol: Some(protocol::TCP),
            advertise: true,
            health: Some(ServiceHealth { check: Arc::new(check), panic_percent: 0 }),
            affinity: None,
            quic: None,
            backends: vec![Configured { address: backend, weight: 1, encap: Encap::Ipip, drain: false }],
        };
        let key = VipKey { prefix: vip, port: Some(80), protocol: Some(protocol::TCP) };
        let desired = Desired { services: vec![service], ..Desired::default() };
        let (mut network, compiled) = (Network::default(), Compiled::default());
        assert!(ways(&desired, &network, &compiled, false).is_empty());
        let said = Err("no packet is sent to it: its VIP is not in force".to_owned());
        assert_eq!(ways(&desired, &network, &compiled, true), Ways::from([((key, backend), said)]));
        network.addresses.insert((IfIndex(1), "192.0.2.0/32".parse().unwrap()));
        let said = Err("192.0.2.0 is an address of this node: a check of it ends here".to_owned());
        assert_eq!(ways(&desired, &network, &compiled, false), Ways::from([((key, backend), said)]));
        assert!(ways(&Desired::default(), &network, &compiled, true).is_empty());
    }
}
