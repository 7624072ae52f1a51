//! The cases: a configuration, a frame, and which of its bits tell flows apart.
//!
//! Configurations go the whole way, resources' model -> compile -> tables -> maps, so a case measures what a user gets.
//! Interfaces are made up: nothing is attached and nothing leaves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::desired::{
    AttachMode, Backend, Desired, Encap, EndpointInterface, HostEndpoint, Interface, Peers, Policy, Rule, RuleAction,
    Service, protocol,
};
use model::network::{IfIndex, Link, Mac, Network};
use model::rib::{BgpRoute, Rib};
use model::verdict::{DropReason, Verdict};

/// The loopback interface, where BPF_PROG_TEST_RUN has packets come in.
pub(super) const INGRESS: IfIndex = IfIndex(1);
const EGRESS: IfIndex = IfIndex(2);
/// Flows of the random cases, prefixes behind them, and entries of the kernel's tables.
pub(super) const MANY: u32 = 65_536;
const BACKENDS: u16 = 100;
const DENIED: u32 = 10_000;

/// What is measured.
#[derive(Clone, Debug)]
pub(super) enum Subject {
    /// The pipeline with this configuration; the frame must end so.
    Pipeline(Box<World>, Verdict),
    /// A hit of the kernel's hash map, 4-byte keys.
    KernelHash,
    /// A hit of the kernel's LPM trie, /24 prefixes.
    KernelLpm,
}

/// Which 16 bits of the frame differ from flow to flow.
#[derive(Clone, Copy, Debug)]
pub(super) enum Vary {
    /// The last two bytes of the IPv4 source.
    Source,
    /// The middle two bytes of the IPv4 destination: a /24 each.
    DestinationNet,
}

/// One case.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) subject: Subject,
    /// In the notation of `packet`.
    pub(super) frame: String,
    /// One flow where absent.
    pub(super) vary: Option<Vary>,
    /// The pipeline puts an outer header in front.
    pub(super) encapsulates: bool,
}

/// The inputs of compile.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) desired: Desired,
    pub(super) network: Network,
    pub(super) rib: Rib,
}

const ETH: &str = "eth 02::ff > 02::1";

fn tcp4(source: &str, destination: &str) -> String {
    format!("{ETH} / ip4 {source} > {destination} / tcp 40000 > 80 / data 10")
}

const GATEWAY4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2));
const GATEWAY6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2));
const VIP4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x10));
/// Behind the IPv6 gateway: the IPv6 backends.
const BACKENDS6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0), 48));
/// Interface addresses.
const ADDRESSES: [(IfIndex, IpNet); 4] = [
    (INGRESS, IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 1), 24))),
    (INGRESS, IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 64))),
    (EGRESS, IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 1, 0, 1), 24))),
    (EGRESS, IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1), 64))),
];

fn v4(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(n))
}

/// `count` prefixes of 24 bits from `first` on.
fn slash24(first: u32, count: u32) -> impl Iterator<Item = IpNet> {
    (0..count).filter_map(move |n| IpNet::new(v4(first + (n << 8)), 24).ok())
}

/// 100.0.0.0/24 and the 65,535 prefixes behind it.
pub(super) fn many_prefixes() -> impl Iterator<Item = IpNet> {
    slash24(0x6400_0000, MANY)
}

/// A router with two ports and 65,536 prefixes behind one gateway.
fn router() -> World {
    let mut world = World { desired: Desired::default(), network: Network::default(), rib: Rib::default() };
    for (index, name) in [(INGRESS, "in"), (EGRESS, "out")] {
        let mac = Mac([2, 0, 0, 0, 0, index.0 as u8]);
        let link = Link { name: name.to_owned(), mac, mtu: 1500, up: true, rx_queues: 1, vlan: None };
        world.network.links.insert(index, link);
        world.desired.node.interfaces.push(Interface { name: name.to_owned(), mode: AttachMode::Native });
    }
    world.network.addresses.extend(ADDRESSES);
    for gateway in [GATEWAY4, GATEWAY6] {
        world.network.neighbors.insert((EGRESS, gateway), Mac([2, 0, 0, 0, 0, 0xfe]));
    }
    let via = |gateway: IpAddr| BgpRoute { gateways: vec![gateway], internal: false };
    world.rib.bgp.extend(many_prefixes().map(|prefix| (prefix, via(GATEWAY4))));
    world.rib.bgp.insert(BACKENDS6, via(GATEWAY6));
    world
}

/// A router with a VIP and 100 backends reached by IPIP.
fn balancer(vip: IpAddr, backend: impl Fn(u16) -> IpAddr, flows: u32) -> World {
    let mut world = router();
    let backends = (1..=BACKENDS).map(|n| Backend { address: backend(n), weight: 1, encap: Encap::Ipip });
    world.desired.services.push(Service {
        name: "web".to_owned(),
        addresses: vec![vip],
        port: 80,
        protocol: protocol::TCP,
        advertise: true,
        backends: backends.collect(),
    });
    world.desired.node.flow_table_entries = flows;
    world
}

fn balancer4(flows: u32) -> World {
    balancer(VIP4, |n| v4(0x6400_0000 + (u32::from(n) << 8) + 1), flows)
}

fn balancer6() -> World {
    let backend = |n: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, n));
    balancer(VIP6, backend, MANY)
}

/// A router whose port has 100 rules that deny one source prefix each, none of them the packet's.
fn policy() -> World {
    let mut world = router();
    let deny = |net: IpNet| Rule {
        action: RuleAction::Deny,
        ip_version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: Peers { nets: vec![net], ..Peers::default() },
        destination: Peers::default(),
    };
    let name = "in".to_owned();
    let rules = slash24(0xcb00_0000, 100).map(deny).collect();
    world.desired.policies.push(Policy { name: "deny".to_owned(), endpoints: vec![name.clone()], rules });
    let interface = EndpointInterface::Named(name.clone());
    world.desired.host_endpoints.push(HostEndpoint { name, interface, labels: Default::default() });
    world
}

fn denylist() -> World {
    let mut world = router();
    world.desired.denylist = slash24(0xcb00_0000, DENIED).collect();
    world
}

/// Every case, in the order of the report.
pub(super) fn all() -> Vec<Case> {
    let out = Verdict::Redirect(EGRESS);
    let case = |name, about, subject, frame: String| {
        let encapsulates = matches!(&subject, Subject::Pipeline(world, _) if !world.desired.services.is_empty());
        Case { name, about, subject, frame, vary: None, encapsulates }
    };
    let pipeline = |world: World, verdict| Subject::Pipeline(Box::new(world), verdict);
    let client = "198.51.100.7";
    let many_clients = "198.51.0.0";
    let (near, far) = ("10.0.0.1", "100.0.0.9");
    let vip6 = format!("{ETH} / ip6 2001:db8:9::7 > 2001:db8:100::10 / tcp 40000 > 80");
    let varied = |vary, case| Case { vary: Some(vary), ..case };
    vec![
        case("kernel/hash-hot", "bpf_map_lookup_elem, hash of 65,536, one key", Subject::KernelHash, tcp4(client, far)),
        varied(
            Vary::DestinationNet,
            case("kernel/hash-64k", "the same, 65,536 keys", Subject::KernelHash, tcp4(client, far)),
        ),
        case(
            "kernel/lpm-hot",
            "bpf_map_lookup_elem, trie of 65,536 /24, one key",
            Subject::KernelLpm,
            tcp4(client, far),
        ),
        varied(
            Vary::DestinationNet,
            case("kernel/lpm-64k", "the same, 65,536 keys", Subject::KernelLpm, tcp4(client, far)),
        ),
        case("parse/pass-local", "for the node itself", pipeline(router(), Verdict::Pass), tcp4(client, near)),
        case("forward/hot", "65,536 /24, one destination", pipeline(router(), out), tcp4(client, far)),
        varied(
            Vary::DestinationNet,
            case("forward/64k-random", "65,536 /24, a destination in each", pipeline(router(), out), tcp4(client, far)),
        ),
        case(
            "lb/ipip4-hot",
            "VIP with 100 backends, one flow",
            pipeline(balancer4(MANY), out),
            tcp4(client, "192.0.2.10"),
        ),
        varied(
            Vary::Source,
            case(
                "lb/ipip4-64k",
                "the same, 65,536 flows, flow table of 262,144",
                pipeline(balancer4(4 * MANY), out),
                tcp4(many_clients, "192.0.2.10"),
            ),
        ),
        case("lb/ipip6-hot", "IPv6 in IPv6, one flow", pipeline(balancer6(), out), vip6),
        case("policy/100-rules", "100 source prefixes, none matches", pipeline(policy(), out), tcp4(client, far)),
        case("denylist/miss", "10,000 /24, source not among them", pipeline(denylist(), out), tcp4(client, far)),
        case(
            "drop/denylist",
            "10,000 /24, source among them",
            pipeline(denylist(), Verdict::Drop(DropReason::Denylist)),
            tcp4("203.0.7.7", far),
        ),
    ]
}
