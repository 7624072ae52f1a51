//! Ports: which interfaces margay forwards on, and what leaving by one takes.

use std::collections::BTreeMap;

use super::notice::{CompileError, Notice};
use crate::desired::{AttachMode, Desired, Interface, MaxMss};
use crate::ids::Ids;
use crate::network::{IfIndex, Link, Mac, Network};
use crate::tables::{Port, PortKey, VrfId};

/// A port as the way out of the node.
#[derive(Clone, Debug)]
pub(super) struct Egress {
    pub(super) name: String,
    pub(super) key: PortKey,
    pub(super) mac: Mac,
    pub(super) mtu: u32,
}

/// The node's ports.
#[derive(Debug, Default)]
pub(super) struct Ports {
    pub(super) table: BTreeMap<PortKey, Port>,
    /// By the device that addresses and neighbours belong to: the VLAN device, where there is one.
    pub(super) egress: BTreeMap<IfIndex, Egress>,
    /// The VRFs of interfaces that are not in the default one.
    pub(super) in_vrfs: BTreeMap<IfIndex, VrfId>,
    /// VRFs by name, the default one aside.
    pub(super) vrfs: BTreeMap<String, VrfId>,
    /// What is asked of the maximum segment sizes by each, where anything is.
    pub(super) max_mss: BTreeMap<IfIndex, MaxMss>,
    /// What carries the program, each once, ascending.
    pub(super) attach: Vec<(IfIndex, AttachMode)>,
}

impl Ports {
    /// The VRF of an interface, whether it is a port or not.
    pub(super) fn vrf_of(&self, ifindex: IfIndex) -> VrfId {
        self.in_vrfs.get(&ifindex).copied().unwrap_or_default()
    }

    /// A VRF as notices call it.
    pub(super) fn vrf_in_words(&self, vrf: VrfId) -> String {
        self.vrf_name(vrf).map_or_else(|| "the default VRF".to_owned(), |name| format!("VRF {name}"))
    }

    /// The name of a VRF; `None` for the default one.
    pub(super) fn vrf_name(&self, vrf: VrfId) -> Option<&str> {
        self.vrfs.iter().find(|(_, id)| **id == vrf).map(|(name, _)| name.as_str())
    }
}

/// Finds the configured interfaces. The program of a VLAN device's frames is attached to its parent, in the parent's own
/// mode where that is configured, too.
pub(super) fn ports(
    desired: &Desired,
    network: &Network,
    ids: &mut Ids,
    notices: &mut Vec<Notice>,
) -> Result<Ports, CompileError> {
    let mut found: BTreeMap<PortKey, (IfIndex, &Link, &Interface)> = BTreeMap::new();
    let mut of_vrfs: BTreeMap<&str, (Vec<IfIndex>, Vec<PortKey>)> = BTreeMap::new();
    let mut attach: BTreeMap<IfIndex, (bool, AttachMode)> = BTreeMap::new();
    for interface in &desired.node.interfaces {
        let Some((ifindex, link)) = network.link_by_name(&interface.name) else {
            let (node, interface) = (desired.node.name.clone(), interface.name.clone());
            notices.push(Notice::InterfaceMissing { node, interface });
            continue;
        };
        let key = match link.vlan {
            None => PortKey { ifindex, vlan: None },
            Some(vlan) => PortKey { ifindex: vlan.parent, vlan: Some(vlan.id) },
        };
        if let Some(vrf) = &interface.vrf {
            let (devices, keys) = of_vrfs.entry(vrf).or_default();
            devices.push(ifindex);
            keys.push(key);
        }
        if let Some(parent) =
            network.links.get(&key.ifindex).filter(|parent| link.vlan.is_some() && parent.vlan.is_some())
        {
            notices.push(Notice::VlanInVlan { interface: link.name.clone(), parent: parent.name.clone() });
            continue;
        }
        found.insert(key, (ifindex, link, interface));
        let own = key.vlan.is_none();
        let mode = attach.entry(key.ifindex).or_insert((own, interface.mode));
        if own && !mode.0 {
            *mode = (true, interface.mode);
        }
    }

    let mut ports = Ports { attach: attach.into_iter().map(|(i, (_, mode))| (i, mode)).collect(), ..Ports::default() };
    for vrf in &desired.vrfs {
        let (devices, keys) = of_vrfs.remove(vrf.name.as_str()).unwrap_or_default();
        let too_many = |_| CompileError::TooMany { what: "VRFs", limit: Ids::LAST_VRF as usize };
        let id = ids.vrf(&vrf.name, &keys).map_err(too_many)?;
        ports.vrfs.insert(vrf.name.clone(), id);
        ports.in_vrfs.extend(devices.into_iter().map(|device| (device, id)));
    }
    for (key, (device, link, interface)) in found {
        let id = ids.port(key).map_err(|_| CompileError::TooMany { what: "ports", limit: Ids::LAST_PORT as usize })?;
        let (vrf, validation) = (ports.vrf_of(device), interface.source_validation);
        if interface.max_mss != MaxMss::ANY {
            ports.max_mss.insert(device, interface.max_mss);
        }
        ports.table.insert(key, Port { id, mac: link.mac, filter: None, validation, vrf });
        ports.egress.insert(device, Egress { name: link.name.clone(), key, mac: link.mac, mtu: link.mtu });
    }
    Ok(ports)
}
