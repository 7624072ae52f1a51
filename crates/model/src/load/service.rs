//! Lowering of `margay.io/v1`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use ipnet::IpNet;

use super::Item;
use super::check::{Checker, family, is_link_local};
use super::diagnostic::Report;
use super::health::health;
use super::quic::quic;
use super::vrf::RESERVED;
use crate::denylist::{Denied, Denylist};
use crate::desired::{
    Backend, Encap, Failsafe, Gateway, Interface, KernelRoutes, MaxMss, Node, RouteAction, Service, StaticRoute,
    Tunnel, TunnelKind, protocol,
};
use crate::document::Path;
use crate::ids::Ids;
use crate::network::Mac;
use crate::resources::common::Cidr;
use crate::resources::margay::{
    DenylistSpec, EncapSpec, EncapType, FailsafePort, InterfaceSpec, MaxMssSpec, NodeSpec, SessionAffinity,
    StaticRouteSpec, TunnelSpec, TunnelType, VirtualServiceSpec,
};

/// Most interfaces of a node.
const MAX_INTERFACES: usize = 63;
/// Most VIPs (address, port, protocol) of a node.
const MAX_VIPS: usize = Ids::LAST_VIP as usize;
/// Most backends of all services together, each once a VIP.
const MAX_BACKENDS: usize = Ids::LAST_BACKEND as usize;
/// How long a client stays with its backend unless told otherwise, and at most, as in Kubernetes: three hours, and a day.
const AFFINITY_SECONDS: u32 = 10_800;
const MAX_AFFINITY_SECONDS: u32 = 86_400;
/// Most QUIC server IDs of all services together, each once a VIP.
const MAX_QUIC_SERVERS: usize = tables::quic::SERVERS_MAX;
/// Shortest prefixes of VIPs: a typing error that takes in a continent is told of.
const SHORTEST_VIP4: u8 = 8;
const SHORTEST_VIP6: u8 = 16;
/// Most prefixes of all denylists together.
const MAX_DENYLIST: usize = 1 << 20;
/// Most tunnel peers of all tunnels together.
const MAX_TUNNEL_PEERS: usize = 16_384;
/// Most inner sources of all tunnels together.
const MAX_TUNNEL_SOURCES: usize = 8_192;
/// Most next hops of one route: its buckets.
const MAX_NEXT_HOPS: usize = 64;
/// Longest time until a changed slot counts as unchanged, in seconds: a year.
const MAX_SETTLE: u32 = 31_536_000;
/// Largest VXLAN network identifier (RFC 7348 section 5).
const MAX_VNI: u32 = (1 << 24) - 1;

pub(super) fn node(item: &Item<NodeSpec>, report: &mut Report) -> Node {
    let mut check = Checker { document: &item.document, report };
    let (spec, at) = (&item.spec, Path::spec());
    let default = Node::default();
    let interfaces = interfaces(spec, &at.key("interfaces"), &mut check);
    let mut workers = BTreeSet::new();
    for (i, core) in spec.cores.workers.iter().enumerate() {
        if !workers.insert(core) {
            check.error(&at.key("cores").key("workers").index(i), format!("core {core} is listed twice"));
        }
    }
    let (slow, encap, checks) = (at.key("slowPath"), at.key("encap"), at.key("healthChecks"));
    let prefix_v4 = spec.encap.source_prefix_ipv4;
    let prefix_v4 = prefix_v4.map(|cidr| source_prefix(cidr, false, &encap.key("sourcePrefixIPv4"), &mut check));
    let prefix_v6 = spec.encap.source_prefix_ipv6;
    let prefix_v6 = prefix_v6.map(|cidr| source_prefix(cidr, true, &encap.key("sourcePrefixIPv6"), &mut check));
    if let Some(port) = spec.encap.vxlan_port {
        check.range(&encap.key("vxlanPort"), port, 1, u16::MAX);
    }
    if let Some(port) = spec.encap.gue_port {
        check.range(&encap.key("guePort"), port, 1, u16::MAX);
    }
    let vxlan_port = spec.encap.vxlan_port.unwrap_or(default.vxlan_port);
    let gue_port = spec.encap.gue_port.unwrap_or(default.gue_port);
    if vxlan_port == gue_port {
        let field = if spec.encap.gue_port.is_some() { "guePort" } else { "vxlanPort" };
        let message = format!("VXLAN and GUE cannot both have UDP port {gue_port}");
        check.error_help(&encap.key(field), message, "give each a port of its own");
    }
    if let Some(source) = spec.encap.source_ipv4 {
        check.host_address(&encap.key("sourceIPv4"), source.0.into(), "the source of packets");
    }
    if let Some(source) = spec.encap.source_ipv6 {
        check.host_address(&encap.key("sourceIPv6"), source.0.into(), "the source of packets");
    }
    if spec.router_id.is_some_and(|id| id.0.is_unspecified()) {
        check.error(&at.key("routerID"), "must not be zero (RFC 6286 section 2.1)");
    }
    let mut range = |path: &Path, value: Option<u32>, default, min, max| match value {
        Some(value) => check.range(path, value, min, max),
        None => default,
    };
    let mut node = Node {
        name: item.document.name.clone(),
        router_id: spec.router_id.map(|id| id.0),
        interfaces,
        control_core: spec.cores.control.map(usize::from),
        worker_cores: spec.cores.workers.iter().map(|core| usize::from(*core)).collect(),
        slow_path_queues: range(&slow.key("queues"), spec.slow_path.queues, default.slow_path_queues, 1, 64),
        punt_rate: range(&slow.key("rate"), spec.slow_path.rate, default.punt_rate, 1, 10_000_000),
        flow_table_entries: range(
            &at.key("flowTable").key("entries"),
            spec.flow_table.entries,
            default.flow_table_entries,
            1024,
            1 << 24,
        ),
        settle: match range(
            &at.key("flowTable").key("settleSeconds"),
            spec.flow_table.settle_seconds,
            3_600,
            0,
            MAX_SETTLE,
        ) {
            0 => None,
            seconds => Some(Duration::from_secs(seconds.into())),
        },
        kernel_routes: kernel_routes(spec, &at.key("kernelRoutes"), &mut range),
        check_mark: range(&checks.key("mark"), spec.health_checks.mark, default.check_mark, 1, u32::MAX),
        check_table: range(&checks.key("table"), spec.health_checks.table, default.check_table, 1, u32::MAX),
        vxlan_port,
        gue_port,
        encap_source_v4: spec.encap.source_ipv4.map(|a| a.0),
        encap_source_v6: spec.encap.source_ipv6.map(|a| a.0),
        encap_prefix_v4: prefix_v4,
        encap_prefix_v6: prefix_v6,
        failsafe_inbound: failsafe(
            spec.failsafe_inbound_host_ports.as_deref(),
            &at.key("failsafeInboundHostPorts"),
            default.failsafe_inbound,
            &mut check,
        ),
        failsafe_outbound: failsafe(
            spec.failsafe_outbound_host_ports.as_deref(),
            &at.key("failsafeOutboundHostPorts"),
            default.failsafe_outbound,
            &mut check,
        ),
    };
    check_table(&node, &checks.key("table"), &mut check);
    let alternatives = node.asks_for_alternatives();
    if let Some(routes) = &mut node.kernel_routes {
        routes.alternatives = alternatives;
    }
    node
}

/// Refuses a table for health checks that has another use: everything that takes it goes to a backend.
fn check_table(node: &Node, at: &Path, check: &mut Checker<'_>) {
    let (table, help) = (node.check_table, "take another number");
    if let Some((_, name)) = RESERVED.iter().find(|(reserved, _)| *reserved == table) {
        check.error_help(at, format!("table {table} is the kernel's own ({name})"), help);
    } else if node.kernel_routes.is_some_and(|routes| routes.table == table) {
        check.error_help(at, format!("table {table} is that of kernelRoutes"), help);
    }
}

fn kernel_routes(
    spec: &NodeSpec,
    at: &Path,
    range: &mut impl FnMut(&Path, Option<u32>, u32, u32, u32) -> u32,
) -> Option<KernelRoutes> {
    let (spec, default) = (&spec.kernel_routes, KernelRoutes::default());
    let routes = KernelRoutes {
        table: range(&at.key("table"), spec.table, default.table, 1, u32::MAX),
        audit_seconds: range(&at.key("auditSeconds"), spec.audit_seconds, default.audit_seconds, 0, 86_400),
        ..default
    };
    spec.enabled.unwrap_or(true).then_some(routes)
}

fn interfaces(spec: &NodeSpec, at: &Path, check: &mut Checker<'_>) -> Vec<Interface> {
    if spec.interfaces.is_empty() {
        check.error(at, "must list at least one interface");
    }
    check.at_most(at, spec.interfaces.len(), MAX_INTERFACES, "interfaces");
    let mut seen = BTreeSet::new();
    for (i, interface) in spec.interfaces.iter().enumerate() {
        let path = at.index(i).key("name");
        check.interface_name(&path, &interface.name);
        if !seen.insert(&interface.name) {
            check.error(&path, format!("interface '{}' is listed twice", interface.name));
        }
    }
    let mut interface = |(index, i): (usize, &InterfaceSpec)| Interface {
        name: i.name.clone(),
        mode: i.mode,
        source_validation: i.source_validation,
        vrf: i.vrf.clone(),
        max_mss: max_mss(&i.max_mss, &at.index(index).key("maxMSS"), check),
    };
    spec.interfaces.iter().enumerate().map(&mut interface).collect()
}

/// What fits every path is the least: datagrams of 576 bytes (RFC 1122 §3.3.3) and links of 1,280 (RFC 8200 §5). Smaller segments are many,
/// and do not help. The largest is what fits a packet.
fn max_mss(spec: &MaxMssSpec, at: &Path, check: &mut Checker<'_>) -> MaxMss {
    let mut within = |field, value: Option<u32>, least: u16, most: u16| {
        let value = check.range(&at.key(field), value?, least.into(), most.into());
        u16::try_from(value).ok()
    };
    MaxMss { ipv4: within("ipv4", spec.ipv4, 536, 65_495), ipv6: within("ipv6", spec.ipv6, 1_220, 65_475) }
}

fn failsafe(
    ports: Option<&[FailsafePort]>,
    at: &Path,
    default: Vec<Failsafe>,
    check: &mut Checker<'_>,
) -> Vec<Failsafe> {
    let Some(ports) = ports else { return default };
    let mut result = Vec::with_capacity(ports.len());
    for (i, port) in ports.iter().enumerate() {
        let path = at.index(i);
        let protocol = check.transport(&path.key("protocol"), &port.protocol);
        check.range(&path.key("port"), port.port, 1, u16::MAX);
        let net = port.net.map(|net| check.calico_prefix(&path.key("net"), net));
        if let Some(protocol) = protocol {
            result.push(Failsafe { protocol, port: port.port, net });
        }
    }
    result
}

/// VIPs by prefix, port and protocol, with the document that has each.
type Vips<'a> = HashMap<(IpNet, Option<u16>, Option<u8>), (&'a Item<VirtualServiceSpec>, Path)>;

pub(super) fn services(items: &[Item<VirtualServiceSpec>], report: &mut Report) -> Vec<Service> {
    let mut vips: Vips<'_> = HashMap::new();
    let mut services: Vec<Service> = Vec::with_capacity(items.len());
    for item in items {
        services.extend(service(item, &mut vips, report));
    }
    backends_at_vips(items, &vips, report);
    let backends: usize = services.iter().map(|s| s.backends.len() * s.addresses.len()).sum();
    let servers = |service: &Service| service.quic.as_ref().map_or(0, |quic| quic.servers.len());
    let servers: usize = services.iter().map(|service| servers(service) * service.addresses.len()).sum();
    if let Some(last) = items.last() {
        let mut check = Checker { document: &last.document, report };
        check.at_most(&Path::default(), vips.len(), MAX_VIPS, "VIPs (address, port, protocol) on a node");
        check.at_most(&Path::default(), backends, MAX_BACKENDS, "backends, each once a VIP, on a node");
        check.at_most(&Path::default(), servers, MAX_QUIC_SERVERS, "QUIC server IDs, each once a VIP, on a node");
    }
    services.sort_by(|a, b| a.name.cmp(&b.name));
    services
}

/// Refuses backends whose packets would come back.
fn backends_at_vips(items: &[Item<VirtualServiceSpec>], vips: &Vips<'_>, report: &mut Report) {
    let prefixes: HashMap<IpNet, &(&Item<VirtualServiceSpec>, Path)> =
        vips.iter().map(|((prefix, ..), place)| (*prefix, place)).collect();
    let lengths: BTreeSet<u8> = prefixes.keys().map(IpNet::prefix_len).collect();
    for item in items {
        for (i, backend) in item.spec.backends.iter().enumerate() {
            let address = backend.address.0;
            let around = lengths.iter().rev().filter_map(|length| IpNet::new(address, *length).ok());
            let Some((prefix, (owner, path))) = around.into_iter().find_map(|net| prefixes.get_key_value(&net.trunc()))
            else {
                continue;
            };
            let at = Path::spec().key("backends").index(i).key("address");
            let place = owner.document.place(path);
            let message = if *prefix == IpNet::from(address) {
                format!("{address} is a VIP address of {place}")
            } else {
                format!("{address} is in {prefix}, VIP addresses of {place}")
            };
            report.error_help(&item.document, &at, message, "packets for it would come back: use the server's own");
        }
    }
}

fn service<'a>(item: &'a Item<VirtualServiceSpec>, vips: &mut Vips<'a>, report: &mut Report) -> Option<Service> {
    let mut check = Checker { document: &item.document, report };
    let (spec, at) = (&item.spec, Path::spec());
    if let Some(port) = spec.port {
        check.range(&at.key("port"), port, 1, u16::MAX);
    }
    let protocol = match &spec.protocol {
        Some(protocol) => check.transport(&at.key("protocol"), protocol).map(Some),
        None => {
            if spec.port.is_some() && check.document.is_sound(&at.key("protocol")) {
                let help = "write TCP, UDP or SCTP, or take 'port' away for a service of everything";
                check.error_help(&at.key("port"), "a port needs 'protocol'", help);
            }
            Some(None)
        }
    };
    if spec.addresses.is_empty() {
        check.error(&at.key("addresses"), "must list at least one address");
    }
    for (i, address) in spec.addresses.iter().enumerate() {
        let path = at.key("addresses").index(i);
        let Some(prefix) = vip_prefix(*address, &path, &mut check) else { continue };
        let sound = check.document.is_sound(&at.key("port")) && check.document.is_sound(&at.key("protocol"));
        let Some(protocol) = protocol.filter(|_| sound) else { continue };
        if let Some((other, place)) = vips.get(&(prefix, spec.port, protocol)) {
            let place = other.document.place(place);
            let message = format!("{} is already a VIP of {place}", spoken(prefix, spec));
            check.error_help(&path, message, "a VIP belongs to one service: merge the backends, or take one away");
        } else {
            vips.insert((prefix, spec.port, protocol), (item, path));
        }
    }
    let backends = backends(item, &mut check);
    let unasked = match (spec.port, protocol) {
        (None, _) => Some("a service without one"),
        (_, Some(Some(protocol::SCTP))) => Some("an SCTP service"),
        _ => None,
    };
    let health = spec.health_check.as_ref().and_then(|spec| health(spec, unasked, &mut check));
    let quic = quic(item, protocol, &mut check);
    Some(Service {
        name: item.document.name.clone(),
        addresses: spec.addresses.iter().map(|a| a.prefix()).collect(),
        port: spec.port,
        protocol: protocol?,
        advertise: spec.advertise.unwrap_or(true),
        health,
        affinity: affinity(spec, &mut check),
        quic,
        backends,
    })
}

/// How long clients stay, where they do.
fn affinity(spec: &VirtualServiceSpec, check: &mut Checker<'_>) -> Option<Duration> {
    let at = Path::spec().key("sessionAffinityConfig");
    let stays = spec.session_affinity == Some(SessionAffinity::ClientIp);
    if spec.session_affinity_config.is_some() && !stays && check.document.is_sound(&Path::spec().key("sessionAffinity"))
    {
        check.error_help(&at, "only sessionAffinity ClientIP has it", "write sessionAffinity: ClientIP");
    }
    let of_client = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = of_client.and_then(|config| config.timeout_seconds).unwrap_or(AFFINITY_SECONDS);
    let seconds = check.range(&at.key("clientIP").key("timeoutSeconds"), seconds, 1, MAX_AFFINITY_SECONDS);
    stays.then(|| Duration::from_secs(seconds.into()))
}

/// A VIP as messages name it.
fn spoken(prefix: IpNet, spec: &VirtualServiceSpec) -> String {
    let address = if is_one(prefix) { prefix.addr().to_string() } else { prefix.to_string() };
    match (spec.port, &spec.protocol) {
        (Some(port), Some(protocol)) => format!("{address} port {port} {protocol}"),
        (_, Some(protocol)) => format!("{address} {protocol}"),
        (_, None) => address,
    }
}

/// True for one address.
fn is_one(prefix: IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

/// An address or a prefix whose packets can be forwarded; `None` where it is not to be compared with others.
fn vip_prefix(cidr: Cidr, at: &Path, check: &mut Checker<'_>) -> Option<IpNet> {
    let prefix = check.prefix(at, cidr);
    if is_one(prefix) {
        check.host_address(at, prefix.addr(), "a VIP");
        if is_link_local(prefix.addr()) {
            check.error(at, format!("{} is link-local: packets for it are not forwarded", prefix.addr()));
        }
        return Some(prefix);
    }
    let shortest = if prefix.addr().is_ipv4() { SHORTEST_VIP4 } else { SHORTEST_VIP6 };
    if prefix.prefix_len() < shortest {
        check
            .error(at, format!("VIP prefixes of {} are /{shortest} at least, this is {prefix}", family(prefix.addr())));
        return None;
    }
    for address in [prefix.network(), prefix.broadcast()] {
        check.host_address(at, address, "a VIP");
        if is_link_local(address) {
            check.error(at, format!("{address} is link-local: packets for it are not forwarded"));
        }
    }
    Some(prefix)
}

fn backends(item: &Item<VirtualServiceSpec>, check: &mut Checker<'_>) -> Vec<Backend> {
    let (spec, at) = (&item.spec, Path::spec().key("backends"));
    if spec.backends.is_empty() {
        let help = Some("its packets are dropped until there is one".to_owned());
        check.warning(&at, "the service has no backends", help);
    }
    if let Some(encap) = &spec.encap {
        encap_fields(encap, &Path::spec().key("encap"), check);
    }
    let mut seen = HashMap::new();
    let mut service_lacks = BTreeSet::new();
    let mut result = Vec::with_capacity(spec.backends.len());
    for (i, backend) in spec.backends.iter().enumerate() {
        let path = at.index(i);
        check.host_address(&path.key("address"), backend.address.0, "a backend");
        if let Some(first) = seen.insert(backend.address.0, i) {
            let message = format!("{} is already backends[{first}] of this service", backend.address.0);
            check.error_help(&path.key("address"), message, "give one of them the sum of the weights");
        }
        if let Some(weight) = backend.weight {
            check.range(&path.key("weight"), weight, 1, 1000);
        }
        let weight = u16::try_from(backend.weight.unwrap_or(1)).unwrap_or(1000);
        if let Some(encap) = &backend.encap {
            encap_fields(encap, &path.key("encap"), check);
        }
        match encap(spec.encap.as_ref(), backend.encap.as_ref()) {
            Ok(encap) => result.push(Backend {
                address: backend.address.0,
                weight,
                encap,
                drain: backend.drain.unwrap_or(false),
            }),
            Err(lacking) => {
                let own = backend.encap.is_some();
                let path = if own { path.key("encap") } else { Path::spec().key("encap") };
                for field in lacking {
                    // Said of the service once, not for each of its backends.
                    if own || service_lacks.insert(field) {
                        check.error(&path, format!("type VXLAN needs '{field}'"));
                    }
                }
            }
        }
    }
    result
}

/// What can be judged of an encapsulation by itself.
fn encap_fields(encap: &EncapSpec, at: &Path, check: &mut Checker<'_>) {
    if !check.document.is_sound(&at.key("type")) {
        return;
    }
    if encap.kind == EncapType::Vxlan {
        if let Some(vni) = encap.vni {
            check.range(&at.key("vni"), vni, 0, MAX_VNI);
        }
        if let Some(mac) = &encap.mac {
            match mac.parse::<Mac>() {
                Err(error) => check.error(&at.key("mac"), error.to_string()),
                Ok(Mac([first, ..])) if first & 1 == 1 => {
                    check.error(&at.key("mac"), format!("{mac} is a group address, not that of one device"));
                }
                Ok(mac) if mac == Mac::default() => check.error(&at.key("mac"), "must not be zero"),
                Ok(_) => {}
            }
        }
    } else {
        for (name, set) in [("vni", encap.vni.is_some()), ("mac", encap.mac.is_some())] {
            if set {
                check.error(&at.key(name), "only type VXLAN has it");
            }
        }
    }
}

/// The encapsulation towards one backend: its own, completed from the service's where both are VXLAN; else the names of the
/// fields that it lacks.
fn encap(service: Option<&EncapSpec>, backend: Option<&EncapSpec>) -> Result<Encap, Vec<&'static str>> {
    let Some(own) = backend.or(service) else { return Ok(Encap::Ipip) };
    match own.kind {
        EncapType::Ipip => return Ok(Encap::Ipip),
        EncapType::Gue => return Ok(Encap::Gue),
        EncapType::L2 => return Ok(Encap::L2),
        EncapType::Vxlan => {}
    }
    let service = service.filter(|s| s.kind == EncapType::Vxlan);
    let vni = own.vni.or_else(|| service?.vni);
    let mac = own.mac.as_ref().or_else(|| service?.mac.as_ref());
    match (vni, mac) {
        // A wrong address is told of where it stands.
        (Some(vni), Some(mac)) => Ok(Encap::Vxlan { vni: vni.min(MAX_VNI), mac: mac.parse().unwrap_or_default() }),
        (vni, mac) => {
            let absent = [("vni", vni.is_none()), ("mac", mac.is_none())];
            Err(absent.into_iter().filter(|(_, absent)| *absent).map(|(name, _)| name).collect())
        }
    }
}

/// A prefix that outer sources are taken from: of this family, with more than one address, all of them a host's.
fn source_prefix(cidr: Cidr, ipv6: bool, at: &Path, check: &mut Checker<'_>) -> IpNet {
    let prefix = check.prefix(at, cidr);
    let (family, shortest) = if ipv6 { ("IPv6", 32) } else { ("IPv4", 8) };
    if prefix.addr().is_ipv6() != ipv6 {
        check.error(at, format!("must be an {family} prefix, is {prefix}"));
        return prefix;
    }
    let longest = prefix.max_prefix_len() - 1;
    if prefix.prefix_len() < shortest || prefix.prefix_len() > longest {
        check.error(at, format!("must be /{shortest} to /{longest}, is /{}", prefix.prefix_len()));
    }
    for address in [prefix.network(), prefix.broadcast()] {
        check.host_address(at, address, "the source of packets");
        if is_link_local(address) {
            check.error(at, format!("{address} is link-local: no packet from there is forwarded"));
        }
    }
    prefix
}

/// Peers by encapsulation and prefix, with the document that has each.
type TunnelPeers<'a> = HashMap<(TunnelKind, IpNet), (&'a Item<TunnelSpec>, Path)>;

pub(super) fn tunnels(items: &[Item<TunnelSpec>], report: &mut Report) -> Vec<Tunnel> {
    let mut seen: TunnelPeers<'_> = HashMap::new();
    let mut sources_of_all = 0;
    let mut result = Vec::with_capacity(items.len());
    let at = Path::spec();
    for item in items {
        let mut check = Checker { document: &item.document, report };
        let spec = &item.spec;
        if !check.document.is_sound(&at.key("type")) {
            continue;
        }
        let kind = match (spec.kind, spec.vni) {
            (TunnelType::Ipip | TunnelType::Gue, vni) => {
                if vni.is_some() {
                    check.error(&at.key("vni"), "only type VXLAN has it");
                }
                Some(if spec.kind == TunnelType::Gue { TunnelKind::Gue } else { TunnelKind::Ipip })
            }
            (TunnelType::Vxlan, Some(vni)) => {
                Some(TunnelKind::Vxlan { vni: check.range(&at.key("vni"), vni, 0, MAX_VNI) })
            }
            (TunnelType::Vxlan, None) => {
                check.error(&at, "type VXLAN needs 'vni'");
                None
            }
        };
        let Some(kind) = kind else { continue };
        if spec.peers.is_empty() {
            check.error(&at.key("peers"), "must list at least one prefix");
        }
        let mut peers = Vec::with_capacity(spec.peers.len());
        for (i, peer) in spec.peers.iter().enumerate() {
            let path = at.key("peers").index(i);
            let prefix = check.prefix(&path, *peer);
            if let Some((other, place)) = seen.get(&(kind, prefix)) {
                let place = other.document.place(place);
                check.error(&path, format!("{prefix} is already a peer of {place} with the same encapsulation"));
            } else {
                seen.insert((kind, prefix), (item, path));
            }
            peers.push(prefix);
        }
        check.at_most(&at.key("peers"), seen.len(), MAX_TUNNEL_PEERS, "tunnel peers on a node");
        let sources = spec.sources.as_deref().map(|sources| inner_sources(sources, &at.key("sources"), &mut check));
        sources_of_all += sources.as_ref().map_or(0, Vec::len);
        check.at_most(&at.key("sources"), sources_of_all, MAX_TUNNEL_SOURCES, "inner sources of tunnels on a node");
        result.push(Tunnel { name: item.document.name.clone(), kind, peers, sources });
    }
    result.sort_by(|a, b| a.name.cmp(&b.name));
    result
}

fn inner_sources(sources: &[Cidr], at: &Path, check: &mut Checker<'_>) -> Vec<IpNet> {
    if sources.is_empty() {
        check.error_help(at, "must list at least one prefix", "leave 'sources' out to accept any inner source");
    }
    let mut seen = HashMap::new();
    let mut prefix = |(i, cidr): (usize, &Cidr)| {
        let path = at.index(i);
        let prefix = check.prefix(&path, *cidr);
        if let Some(first) = seen.insert(prefix, i) {
            check.error(&path, format!("{prefix} is already sources[{first}]"));
        }
        prefix
    };
    sources.iter().enumerate().map(&mut prefix).collect()
}

pub(super) fn routes(items: &[Item<StaticRouteSpec>], report: &mut Report) -> Vec<StaticRoute> {
    let mut seen: BTreeMap<(Option<&str>, IpNet), &Item<StaticRouteSpec>> = BTreeMap::new();
    let mut result = Vec::with_capacity(items.len());
    for item in items {
        let mut check = Checker { document: &item.document, report };
        let at = Path::spec().key("prefix");
        let prefix = check.prefix(&at, item.spec.prefix);
        let key = (item.spec.vrf.as_deref(), prefix);
        if let Some(other) = seen.get(&key) {
            let message = format!("{prefix} is already routed by {}", other.document.place(&at));
            check.error_help(&at, message, "put all next hops into one StaticRoute");
        } else {
            seen.insert(key, item);
        }
        if let Some(action) = route_action(&item.spec, prefix, &mut check) {
            let (advertise, vrf) = (item.spec.advertise.unwrap_or(false), item.spec.vrf.clone());
            result.push(StaticRoute { name: item.document.name.clone(), prefix, action, advertise, vrf });
        }
    }
    result.sort_by(|a, b| a.name.cmp(&b.name));
    result
}

fn route_action(spec: &StaticRouteSpec, prefix: IpNet, check: &mut Checker<'_>) -> Option<RouteAction> {
    let at = Path::spec();
    let (blackhole, prohibit) = (spec.blackhole == Some(true), spec.prohibit == Some(true));
    match (&spec.next_hops, blackhole, prohibit) {
        (Some(_), false, false) => {}
        (None, true, false) => return Some(RouteAction::Blackhole),
        (None, false, true) => return Some(RouteAction::Prohibit),
        (None, false, false) => {
            check.error(&at, "needs one of nextHops, blackhole: true and prohibit: true");
            return None;
        }
        _ => {
            check.error(&at, "only one of nextHops, blackhole and prohibit can be set");
            return None;
        }
    }
    let hops = spec.next_hops.as_deref().unwrap_or_default();
    let at = at.key("nextHops");
    if hops.is_empty() {
        check.error(&at, "must list at least one next hop");
    }
    check.at_most(&at, hops.len(), MAX_NEXT_HOPS, "next hops");
    let mut seen = BTreeSet::new();
    let mut gateways = Vec::with_capacity(hops.len());
    for (i, hop) in hops.iter().enumerate() {
        let path = at.index(i);
        let address = hop.address.0;
        check.host_address(&path.key("address"), address, "a gateway");
        if address.is_ipv4() != prefix.addr().is_ipv4() && check.document.is_sound(&Path::spec().key("prefix")) {
            let (ours, theirs) = (family(prefix.addr()), family(address));
            check.error(&path.key("address"), format!("{address} is {theirs}, the route {prefix} is {ours}"));
        }
        match &hop.interface {
            Some(name) => check.interface_name(&path.key("interface"), name),
            None if is_link_local(address) => {
                check.error(&path, format!("the link-local gateway {address} needs 'interface'"));
            }
            None => {}
        }
        if !seen.insert((address, &hop.interface)) {
            check.error(&path.key("address"), format!("{address} is listed twice"));
        }
        if let Some(weight) = hop.weight {
            check.range(&path.key("weight"), weight, 1, 256);
        }
        let weight = u16::try_from(hop.weight.unwrap_or(1)).unwrap_or(256);
        gateways.push(Gateway { address, interface: hop.interface.clone(), weight });
    }
    Some(RouteAction::Via(gateways))
}

/// What all Denylists deny.
pub(super) fn denylist(items: &[Item<DenylistSpec>], report: &mut Report) -> Denylist {
    let mut all = Vec::new();
    for item in items {
        let mut check = Checker { document: &item.document, report };
        let DenylistSpec { sources, destinations } = &item.spec;
        if sources.is_empty() && destinations.is_empty() {
            check.error(&Path::spec(), "needs 'sources' or 'destinations'");
        }
        for (field, list, denied) in
            [("sources", sources, Denied::SOURCE), ("destinations", destinations, Denied::DESTINATION)]
        {
            all.extend(list.iter().map(|prefix| (prefix.prefix(), denied)));
            denied_prefixes(&Path::spec().key(field), list, &mut check);
            check.at_most(&Path::spec().key(field), all.len(), MAX_DENYLIST, "denied prefixes on a node");
        }
    }
    all.into_iter().collect()
}

fn denied_prefixes(at: &Path, list: &[Cidr], check: &mut Checker<'_>) {
    // Lists of a million prefixes are nearly always right: no path is built for those that are.
    let looks_wrong = |prefix: &Cidr| prefix.has_host_bits() || prefix.0.prefix_len() == 0;
    for (i, prefix) in list.iter().enumerate().filter(|(_, prefix)| looks_wrong(prefix)) {
        let path = at.index(i);
        let prefix = check.prefix(&path, *prefix);
        if prefix.prefix_len() == 0 {
            check.warning(&path, format!("every {} packet is dropped", family(prefix.addr())), None);
        }
    }
}
