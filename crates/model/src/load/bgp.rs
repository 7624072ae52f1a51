//! Lowering of BGPConfiguration and BGPPeer to what this node does.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::Item;
use super::check::{Checker, is_link_local};
use super::diagnostic::Report;
use super::policy::selector;
use crate::desired::{Bgp, BgpPeer, Community, Node};
use crate::document::Path;
use crate::document::deserialize::one_of;
use crate::resources::calico::{
    BgpConfigurationSpec, BgpPeerSpec, BindMode, LoadBalancerAggregation, NextHopMode, PrefixAdvertisement,
    SourceAddress,
};
use crate::resources::common::{Duration, NumberOrText};

/// Calico's autonomous system where none is configured.
const DEFAULT_ASN: u32 = 64_512;
/// BGP's port (RFC 4271 section 8.2.1).
const DEFAULT_PORT: u16 = 179;
/// A third of the hold time that BIRD offers.
const DEFAULT_KEEPALIVE_SECONDS: u16 = 80;
/// BIRD's restart time.
const DEFAULT_RESTART_SECONDS: u16 = 120;
/// A third of the longest hold time (RFC 4271 section 4.2).
const MAX_KEEPALIVE_SECONDS: u16 = 21_845;
/// Restart time has 12 bits (RFC 4724 section 3).
const MAX_RESTART_SECONDS: u16 = 4095;
/// TCP MD5 keys (RFC 2385) as Linux takes them.
const MAX_PASSWORD: usize = 80;
/// What margay reads from a BGPPeer's annotations.
const PASSIVE: &str = "margay.io/passive";
pub(super) const PASSWORD: &str = "margay.io/password";

/// The node that the configuration is lowered for.
pub(super) struct Me<'a> {
    pub(super) name: &'a str,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) node: Option<&'a Node>,
}

pub(super) fn bgp(
    configurations: &[Item<BgpConfigurationSpec>],
    peers: &[Item<BgpPeerSpec>],
    me: &Me<'_>,
    report: &mut Report,
) -> Option<Bgp> {
    let specific = format!("node.{}", me.name);
    let mut general = None;
    let mut own = None;
    for item in configurations {
        let mut check = Checker { document: &item.document, report };
        let settings = settings(&item.spec, &mut check);
        match item.document.name.as_str() {
            "default" => general = Some(settings),
            name if name == specific => own = Some(settings),
            name if name.starts_with("node.") => {}
            name => {
                let message = format!("'{name}' configures no node");
                check.error(
                    &Path::default().key("metadata").key("name"),
                    format!("{message}: it is default or node.<name>"),
                );
            }
        }
    }
    let peers = lower_peers(peers, me, report);
    if general.is_none() && own.is_none() && peers.is_empty() {
        return None;
    }
    let (general, own) = (general.unwrap_or_default(), own.unwrap_or_default());
    Some(Bgp {
        asn: own.asn.or(general.asn).unwrap_or(DEFAULT_ASN),
        listen_port: own.listen_port.or(general.listen_port).unwrap_or(DEFAULT_PORT),
        advertise: own.advertise.or(general.advertise).unwrap_or_default(),
        communities: own.communities.or(general.communities).unwrap_or_default(),
        peers,
        alternatives: me.node.is_some_and(Node::asks_for_alternatives),
    })
}

/// What one BGPConfiguration sets.
#[derive(Default)]
struct Settings {
    asn: Option<u32>,
    listen_port: Option<u16>,
    advertise: Option<Vec<IpNet>>,
    communities: Option<Vec<(IpNet, Vec<Community>)>>,
}

fn settings(spec: &BgpConfigurationSpec, check: &mut Checker<'_>) -> Settings {
    let at = Path::spec();
    unsupported_settings(spec, check);
    if let Some(port) = spec.listen_port {
        check.range(&at.key("listenPort"), port, 1, u16::MAX);
    }
    let mut advertise: Option<Vec<IpNet>> = None;
    for (field, blocks) in [
        ("serviceClusterIPs", &spec.service_cluster_ips),
        ("serviceExternalIPs", &spec.service_external_ips),
        ("serviceLoadBalancerIPs", &spec.service_load_balancer_ips),
    ] {
        for (i, block) in blocks.iter().enumerate() {
            let prefix = check.calico_prefix(&at.key(field).index(i).key("cidr"), block.cidr);
            let list = advertise.get_or_insert_default();
            if !list.contains(&prefix) {
                list.push(prefix);
            }
        }
    }
    if !spec.communities.is_empty() && spec.prefix_advertisements.is_empty() {
        check.error(&at.key("communities"), "no prefixAdvertisements refer to them");
    }
    let mut named = HashMap::new();
    for (i, community) in spec.communities.iter().enumerate() {
        let path = at.key("communities").index(i);
        match parse_community(&community.value) {
            Some(value) => drop(named.insert(community.name.as_str(), value)),
            None => check.error(&path.key("value"), not_a_community(&community.value)),
        }
    }
    let advertisements = spec.prefix_advertisements.iter().enumerate();
    let communities =
        advertisements.map(|(i, a)| advertisement(a, &at.key("prefixAdvertisements").index(i), &named, check));
    let communities: Vec<_> = communities.collect();
    Settings {
        asn: spec.as_number.as_ref().and_then(|asn| as_number(asn, &at.key("asNumber"), check)),
        listen_port: spec.listen_port,
        advertise,
        communities: (!communities.is_empty()).then_some(communities),
    }
}

fn unsupported_settings(spec: &BgpConfigurationSpec, check: &mut Checker<'_>) {
    let at = Path::spec();
    if spec.node_to_node_mesh_enabled == Some(true) {
        check.not_enforced(
            &at.key("nodeToNodeMeshEnabled"),
            "the node-to-node mesh; write false, and a BGPPeer for each session",
        );
    }
    let disaggregated = spec.service_load_balancer_aggregation == Some(LoadBalancerAggregation::Disabled);
    for (field, set) in [
        ("logSeverityScreen", spec.log_severity_screen.as_deref().is_some_and(|level| !["", "Info"].contains(&level))),
        ("bindMode", spec.bind_mode == Some(BindMode::NodeIP)),
        ("serviceLoadBalancerAggregation", disaggregated),
        ("nodeMeshPassword", spec.node_mesh_password.is_some()),
        ("nodeMeshMaxRestartTime", spec.node_mesh_max_restart_time.is_some()),
        ("ignoredInterfaces", !spec.ignored_interfaces.is_empty()),
        ("localWorkloadPeeringIPV4", spec.local_workload_peering_ipv4.is_some()),
        ("localWorkloadPeeringIPV6", spec.local_workload_peering_ipv6.is_some()),
        ("programClusterRoutes", spec.program_cluster_routes.is_some()),
        ("ipv4NormalRoutePriority", spec.ipv4_normal_route_priority.is_some()),
        ("ipv6NormalRoutePriority", spec.ipv6_normal_route_priority.is_some()),
    ] {
        if set {
            check.not_enforced(&at.key(field), field);
        }
    }
}

fn advertisement(
    spec: &PrefixAdvertisement,
    at: &Path,
    named: &HashMap<&str, Community>,
    check: &mut Checker<'_>,
) -> (IpNet, Vec<Community>) {
    let prefix = check.calico_prefix(&at.key("cidr"), spec.cidr);
    let mut communities = Vec::with_capacity(spec.communities.len());
    for (i, text) in spec.communities.iter().enumerate() {
        match named.get(text.as_str()).copied().or_else(|| parse_community(text)) {
            Some(community) => communities.push(community),
            None => {
                let message = format!("'{text}' is neither a name in spec.communities nor a community");
                check.error_help(&at.key("communities").index(i), message, "communities are aa:nn or aa:nn:mm");
            }
        }
    }
    communities.sort_unstable();
    communities.dedup();
    (prefix, communities)
}

fn parse_community(text: &str) -> Option<Community> {
    let parts: Vec<&str> = text.split(':').collect();
    if parts.iter().any(|p| p.is_empty() || !p.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    match parts.as_slice() {
        [a, b] => Some(Community::Standard(a.parse().ok()?, b.parse().ok()?)),
        [a, b, c] => Some(Community::Large(a.parse().ok()?, b.parse().ok()?, c.parse().ok()?)),
        _ => None,
    }
}

fn not_a_community(text: &str) -> String {
    format!("'{text}' is not a community: aa:nn of 16 bits each, or aa:nn:mm of 32 bits each")
}

/// A number, or RFC 5396's dotted notation.
fn as_number(value: &NumberOrText, at: &Path, check: &mut Checker<'_>) -> Option<u32> {
    let number = match value {
        NumberOrText::Number(n) => u32::try_from(*n).ok(),
        NumberOrText::Text(text) => match text.split_once('.') {
            Some((high, low)) => match (high.parse::<u16>(), low.parse::<u16>()) {
                (Ok(high), Ok(low)) => Some(u32::from(high) << 16 | u32::from(low)),
                _ => None,
            },
            None => text.parse().ok(),
        },
    };
    let number = number.filter(|n| *n > 0 && *n < u32::MAX);
    if number.is_none() {
        let message = format!("'{value}' is not an AS number");
        check.error_help(at, message, "write 1 to 4294967294, or two 16-bit halves in quotes: \"64512.10\"");
    }
    number
}

fn lower_peers(items: &[Item<BgpPeerSpec>], me: &Me<'_>, report: &mut Report) -> Vec<BgpPeer> {
    // Calico looks at the peers of all nodes first and at those of this node then; the first of an address is taken.
    let mut ordered: Vec<&Item<BgpPeerSpec>> = items.iter().collect();
    ordered.sort_by_key(|item| {
        let global = item.spec.node.is_none() && item.spec.node_selector.is_none();
        (!global, item.document.name.as_str())
    });
    let mut taken: HashMap<(IpAddr, Option<String>, u16), &Item<BgpPeerSpec>> = HashMap::new();
    let mut result: Vec<BgpPeer> = Vec::new();
    for item in ordered {
        let mut check = Checker { document: &item.document, report };
        let Some(peer) = peer(item, me, &mut check) else { continue };
        let at = Path::spec().key("peerIP");
        let place = (peer.address, peer.interface.clone(), peer.port);
        if let Some(first) = taken.get(&place) {
            let message = format!("{} is already a peer of this node: {}", peer.address, first.document.place(&at));
            check.warning(&at, message, Some("this BGPPeer has no effect: take one of them away".to_owned()));
            continue;
        }
        // The kernel looks a key up by the address alone.
        if result.iter().any(|other| other.address == peer.address && other.password != peer.password) {
            let message =
                format!("another peer at {} has another password: there is one for each address", peer.address);
            check.error(&Path::default().key("metadata").key("annotations").key(PASSWORD), message);
        }
        taken.insert(place, item);
        result.push(peer);
    }
    result.sort_by(|a, b| a.name.cmp(&b.name));
    result
}

/// The peer, if it is this node's and right.
fn peer(item: &Item<BgpPeerSpec>, me: &Me<'_>, check: &mut Checker<'_>) -> Option<BgpPeer> {
    let (spec, at) = (&item.spec, Path::spec());
    unsupported_peer_fields(spec, check);
    let mine = is_mine(spec, me, check);
    let place = match &spec.peer_ip {
        Some(text) => peer_place(text, &at.key("peerIP"), check),
        None => {
            if spec.peer_selector.is_none() && spec.local_workload_selector.is_none() {
                check.error(&at, "needs the field 'peerIP'");
            }
            None
        }
    };
    let asn = match &spec.as_number {
        Some(asn) => as_number(asn, &at.key("asNumber"), check),
        None => {
            check.error(&at, "needs the field 'asNumber'");
            None
        }
    };
    let keepalive = seconds(spec.keepalive_time, &at.key("keepaliveTime"), 1, MAX_KEEPALIVE_SECONDS, check);
    let restart = seconds(spec.max_restart_time, &at.key("maxRestartTime"), 0, MAX_RESTART_SECONDS, check);
    if let Some(hops) = spec.ttl_security {
        check.range(&at.key("ttlSecurity"), hops, 1, u8::MAX);
    }
    let (passive, password) = annotations(item, check);
    let source = match (spec.source_address, &place) {
        (Some(SourceAddress::UseNodeIp), Some(peer)) if mine && peer.interface.is_none() => {
            node_address(peer.address, me, &at.key("sourceAddress"), check)
        }
        _ => None,
    };
    let Place { address, interface, port } = place?;
    if let Some(name) = &interface
        && let Some(vrf) = me.node.filter(|_| mine).and_then(|node| node.vrf_of(name))
    {
        check.error(&at.key("peerIP"), format!("{name} is in VRF {vrf}: BGP is in the default VRF only"));
    }
    let asn = asn?;
    mine.then(|| BgpPeer {
        name: item.document.name.clone(),
        address,
        interface,
        port,
        asn,
        passive,
        source,
        keepalive_seconds: keepalive.unwrap_or(DEFAULT_KEEPALIVE_SECONDS),
        restart_seconds: restart.unwrap_or(DEFAULT_RESTART_SECONDS),
        password,
        ttl_security: spec.ttl_security,
    })
}

fn is_mine(spec: &BgpPeerSpec, me: &Me<'_>, check: &mut Checker<'_>) -> bool {
    let at = Path::spec();
    let node = spec.node.as_deref().filter(|n| !n.is_empty());
    let labels = spec.node_selector.as_deref().filter(|s| !s.is_empty());
    match (node, labels) {
        (Some(_), Some(_)) => {
            check.error(&at.key("nodeSelector"), "node and nodeSelector cannot both be set");
            false
        }
        (Some(node), None) => node == me.name,
        (None, Some(text)) => {
            selector(text, &at.key("nodeSelector"), check).is_some_and(|selector| selector.matches(me.labels))
        }
        (None, None) => true,
    }
}

fn unsupported_peer_fields(spec: &BgpPeerSpec, check: &mut Checker<'_>) {
    let at = Path::spec();
    for (field, set) in [
        ("peerSelector", spec.peer_selector.as_deref().is_some_and(|s| !s.is_empty())),
        ("localWorkloadSelector", spec.local_workload_selector.as_deref().is_some_and(|s| !s.is_empty())),
        ("localASNumber", spec.local_as_number.is_some()),
        ("nextHopMode", spec.next_hop_mode.is_some_and(|mode| mode != NextHopMode::Auto)),
        ("keepOriginalNextHop", spec.keep_original_next_hop == Some(true)),
        ("numAllowedLocalASNumbers", spec.num_allowed_local_as_numbers.is_some_and(|n| n != 0)),
        ("reachableBy", spec.reachable_by.as_deref().is_some_and(|s| !s.is_empty())),
        ("filters", !spec.filters.is_empty()),
    ] {
        if set {
            check.not_enforced(&at.key(field), field);
        }
    }
    if spec.password.is_some() {
        check.error_help(
            &at.key("password"),
            "not enforced yet: passwords in Kubernetes secrets",
            format!("write the annotation {PASSWORD}"),
        );
    }
}

/// `ip`, `ip:port` or `[ipv6]:port`.
/// Where a peer is.
struct Place {
    address: IpAddr,
    interface: Option<String>,
    port: u16,
}

fn peer_place(text: &str, at: &Path, check: &mut Checker<'_>) -> Option<Place> {
    // The zone of RFC 4007 stands between the address and what closes it.
    let (plain, interface) = match text.split_once('%') {
        Some((before, after)) => {
            let (interface, rest) = after.split_at(after.find(']').unwrap_or(after.len()));
            check.interface_name(at, interface);
            (format!("{before}{rest}"), Some(interface.to_owned()))
        }
        None => (text.to_owned(), None),
    };
    let address = match plain.parse::<IpAddr>() {
        Ok(address) => Some((address, DEFAULT_PORT)),
        Err(_) => plain.parse::<SocketAddr>().ok().map(|s| (s.ip(), s.port())),
    };
    let Some((address, port)) = address else {
        let help = "write 192.0.2.1, 192.0.2.1:1790, 2001:db8::1 or [2001:db8::1]:1790";
        check.error_help(at, format!("'{text}' is not a peer's address"), help);
        return None;
    };
    if port == 0 {
        check.error(at, "the port must be 1 to 65535, is 0");
    } else {
        check.host_address(at, address, "a peer");
    }
    let link_local = address.is_ipv6() && is_link_local(address);
    if link_local && interface.is_none() {
        check.error_help(
            at,
            format!("{address} is link-local and needs its interface"),
            format!("write {address}%eth0"),
        );
    } else if !link_local && interface.is_some() {
        check.error(at, format!("{address} is not link-local and has no interface"));
    }
    Some(Place { address, interface, port })
}

fn seconds(value: Option<Duration>, at: &Path, min: u16, max: u16, check: &mut Checker<'_>) -> Option<u16> {
    let Duration(value) = value?;
    if value.subsec_nanos() != 0 {
        check.error(at, "must be whole seconds");
        return None;
    }
    let seconds = check.range(at, value.as_secs(), u64::from(min), u64::from(max));
    u16::try_from(seconds).ok()
}

/// The node's own address of the peer's family.
fn node_address(peer: IpAddr, me: &Me<'_>, at: &Path, check: &mut Checker<'_>) -> Option<IpAddr> {
    let (field, address) = match peer {
        IpAddr::V4(_) => ("sourceIPv4", me.node.and_then(|n| n.encap_source_v4).map(IpAddr::from)),
        IpAddr::V6(_) => ("sourceIPv6", me.node.and_then(|n| n.encap_source_v6).map(IpAddr::from)),
    };
    if address.is_none() && me.node.is_some() {
        let help = format!("set spec.encap.{field} of the Node, or leave sourceAddress out");
        check.error_help(at, "the node's address is not known", help);
    }
    address
}

fn annotations(item: &Item<BgpPeerSpec>, check: &mut Checker<'_>) -> (bool, Option<String>) {
    let at = Path::default().key("metadata").key("annotations");
    let mut passive = false;
    let mut password = None;
    for (key, value) in &item.metadata.annotations {
        let path = at.key(key);
        match key.as_str() {
            PASSIVE => match value.as_str() {
                "true" => passive = true,
                "false" => {}
                _ => check.error(&path, format!("must be \"true\" or \"false\", is \"{value}\"")),
            },
            PASSWORD => {
                if value.is_empty() || value.len() > MAX_PASSWORD {
                    check.error(&path, format!("a password has 1 to {MAX_PASSWORD} bytes, this has {}", value.len()));
                }
                password = Some(value.clone());
            }
            _ if key.starts_with("margay.io/") => {
                check.error_help(
                    &path,
                    format!("margay knows no annotation '{key}'"),
                    one_of(key, &[PASSIVE, PASSWORD]),
                );
            }
            _ => {}
        }
    }
    (passive, password)
}
