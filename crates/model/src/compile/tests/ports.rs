//! What ports ask of the packets that are forwarded by them.

use super::build::*;
use crate::desired::{Interface, MaxMss};
use crate::network::IfIndex;
use crate::tables::PortKey;

/// By port where packets come in, by device where they leave: a VLAN is a port and a device of its own. One that does not exist asks nothing.
#[test]
fn maximum_segment_sizes_are_those_of_ports_and_their_devices() {
    let most = |ipv4, ipv6| MaxMss { ipv4, ipv6 };
    let mut world = World::two_ports().vlan(9, "eth0.100", 2, 100);
    assert_eq!((world.compile().features.max_mss, world.compile().tables.clamps_out.len()), (false, 0));
    let mut wanted = world.desired.node.interfaces.clone();
    let named = |name: &str, max_mss| Interface { name: name.to_owned(), max_mss, ..wanted[0].clone() };
    let others = [named("eth0.100", most(None, Some(1_380))), named("eth7", most(Some(1_000), None))];
    wanted[1].max_mss = most(Some(1_400), None);
    wanted.retain(|interface| interface.name != "eth0.100");
    world.desired.node.interfaces = wanted.into_iter().chain(others).collect();

    let compiled = world.compile();
    assert!(compiled.features.max_mss);
    let port = |ifindex, vlan| compiled.tables.ports[&PortKey { ifindex: IfIndex(ifindex), vlan }].id;
    let (eth1, vlan) = (most(Some(1_400), None), most(None, Some(1_380)));
    assert_eq!(compiled.tables.clamps_in, [(port(3, None), eth1), (port(2, Some(100)), vlan)].into());
    assert_eq!(compiled.tables.clamps_out, [(IfIndex(3), eth1), (IfIndex(9), vlan)].into());
}
