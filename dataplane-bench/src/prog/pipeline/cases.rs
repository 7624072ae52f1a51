//! The cases of the pipeline: a configuration, a frame, which of its bits tell flows apart, and how it must end.

use model::verdict::{DropReason, Verdict};

use super::worlds::{self, EGRESS, MANY, World};
use crate::prog::baseline::keys::Routes;
use crate::prog::bench::Label;
use crate::prog::kernel::Vary;
use crate::result::Scale;

type Make = Box<dyn Fn() -> World>;

/// A configuration, the one that was in force before it, and its cases.
pub(super) struct Setting {
    pub(super) before: Option<Make>,
    pub(super) world: Make,
    pub(super) cases: Vec<Case>,
}

/// Which part of the pipeline a figure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it, with its counters.
    Path,
    /// Link layer, IP, ports.
    Parse,
    /// From a parsed packet to its next hop.
    Fib,
    /// From a parsed packet to what is denied of its destination.
    Denied,
}

impl Part {
    /// The program without the part, and the program with it.
    pub(super) fn programs(self) -> (&'static str, &'static str) {
        match self {
            Self::Path => ("bench_frame", "bench_path"),
            Self::Parse => ("bench_frame", "bench_parse"),
            Self::Fib => ("bench_parse", "bench_fib"),
            Self::Denied => ("bench_parse", "bench_denied"),
        }
    }
}

/// Which bits of the frame differ from flow to flow, and how many flows there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flows {
    One,
    /// The last two bytes of the IPv4 source, then the source port of what is behind it.
    Ip4Source(u32),
    /// Destinations other than the frame's.
    To(Destined),
}

/// Where packets of many destinations go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Destined {
    /// Into the prefixes of a full table, IPv4 or IPv6.
    Routed(Routes),
    /// To each of so many VIPs.
    Vips(u32),
}

impl Destined {
    pub(super) fn is_ip6(self) -> bool {
        matches!(self, Self::Routed(routes) if routes.is_ip6())
    }

    /// A power of two.
    fn count(self) -> u32 {
        match self {
            Self::Routed(routes) => u32::try_from(routes.addresses()).unwrap_or(1),
            Self::Vips(vips) => vips.next_power_of_two(),
        }
    }
}

/// Offsets from the start of an untagged frame (RFC 791 §3.1, RFC 8200 §3).
const IP4_CHECKSUM: usize = 14 + 10;
const IP4_DESTINATION: usize = 14 + 16;
const IP6_DESTINATION: usize = 14 + 24;

impl Flows {
    pub(super) fn vary(self) -> Option<Vary> {
        match self {
            Self::One | Self::To(_) => None,
            Self::Ip4Source(_) => Some(Vary::IP4_SOURCE),
        }
    }

    /// Where destinations are written, their bytes, and where the checksum is that covers them.
    pub(super) fn destinations(self) -> Option<(Destined, [usize; 3])> {
        match self {
            Self::To(destined) if destined.is_ip6() => Some((destined, [IP6_DESTINATION, 16, 0])),
            Self::To(destined) => Some((destined, [IP4_DESTINATION, 4, IP4_CHECKSUM])),
            _ => None,
        }
    }

    /// How many; a power of two.
    pub(super) fn count(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Ip4Source(count) => count,
            Self::To(destined) => destined.count(),
        }
    }
}

/// One case.
pub(super) struct Case {
    pub(super) label: Label,
    pub(super) part: Part,
    /// In the notation of `packet`.
    pub(super) frame: String,
    pub(super) flows: Flows,
    /// How the whole pipeline must end.
    pub(super) verdict: Verdict,
}

impl Case {
    fn of(self, part: Part) -> Self {
        Self { part, ..self }
    }

    fn flows(self, flows: Flows) -> Self {
        Self { flows, ..self }
    }

    fn ends(self, verdict: Verdict) -> Self {
        Self { verdict, ..self }
    }

    fn rival(self, case: &'static str) -> Self {
        Self { label: Label { rival: Some(case), ..self.label }, ..self }
    }

    fn scale(self, family: &str, unit: &str, value: u32) -> Self {
        let scale = Scale { family: family.to_owned(), unit: unit.to_owned(), value: value.into() };
        Self { label: Label { scale: Some(scale), ..self.label }, ..self }
    }
}

/// One that forwards one flow, to begin with.
fn case(name: &str, about: &str, frame: String) -> Case {
    Case {
        label: Label { case: name.to_owned(), about: about.to_owned(), ..Label::default() },
        part: Part::Path,
        frame,
        flows: Flows::One,
        verdict: Verdict::Redirect(EGRESS),
    }
}

const ETH: &str = "eth 02::ff > 02::1";
const CLIENT: &str = "198.51.100.7";
/// Its last two bytes are free for the number of a flow.
const CLIENTS: &str = "198.51.0.0";
const FAR: &str = "100.0.0.9";

/// 64 bytes.
fn tcp4(source: &str, destination: &str) -> String {
    format!("{ETH} / ip4 {source} > {destination} / tcp 40000 > 80 / data 10")
}

/// What opens connections of many clients.
fn syn4() -> String {
    format!("{ETH} / ip4 {CLIENTS} > 192.0.2.10 / tcp 0 > 80 S / data 10")
}

fn tcp6(destination: &str) -> String {
    format!("{ETH} / ip6 2001:db8:9::7 > {destination} / tcp 40000 > 80")
}

/// Every configuration, in the order of the report.
pub(super) fn all() -> Vec<Setting> {
    let mut settings = vec![
        setting(|| worlds::router(1), forwarding()),
        setting(worlds::vlan_router, vlan()),
        setting(worlds::full_router, fib()),
        setting(|| worlds::balancer(100), balancing()),
        setting(|| worlds::balancer_of_vips(4_000, 8), many_vips()),
        setting(|| worlds::balancer(99), after_change()).after(|| worlds::balancer(100)),
        setting(|| worlds::balancer(100), all_changed()).after(|| worlds::balancer(1)),
        setting(|| worlds::policy(1), vec![policy(1)]),
        setting(|| worlds::policy(10), vec![policy(10)]),
        setting(|| worlds::policy(100), vec![policy(100)]),
        setting(|| worlds::policy(1000), vec![policy(1000)]),
        setting(worlds::denylist, denylist()),
        setting(worlds::million_denied, million_denied()),
        setting(worlds::tunnel_end, tunnels()),
        setting(|| worlds::balancer(100), FLOW_COUNTS.map(sweep_flows).into()),
        setting(|| worlds::balancer_remembering(100), FLOW_COUNTS.map(sweep_remembered).into())
            .after(|| worlds::balancer_remembering(1)),
    ];
    settings.extend(VIP_COUNTS.map(|vips| setting(move || worlds::balancer_of_vips(vips, 8), sweep_vips(vips).into())));
    settings
}

fn setting(world: impl Fn() -> World + 'static, cases: Vec<Case>) -> Setting {
    Setting { before: None, world: Box::new(world), cases }
}

impl Setting {
    /// In force after another one.
    fn after(self, before: impl Fn() -> World + 'static) -> Self {
        Self { before: Some(Box::new(before)), ..self }
    }
}

fn forwarding() -> Vec<Case> {
    vec![
        case("parse/ip4-tcp", "stage: Ethernet, IPv4 with checksum, ports", tcp4(CLIENT, FAR)).of(Part::Parse),
        case("parse/ip6-tcp", "stage: Ethernet, IPv6, ports", tcp6("2400::9")).of(Part::Parse),
        case("forward/hot", "IPv4, few routes, one flow", tcp4(CLIENT, FAR)).rival("baseline/fib-lookup-router"),
        case("forward/ip6-hot", "IPv6, few routes, one flow", tcp6("2400::9")),
        case("forward/pass-local", "for the node itself", tcp4(CLIENT, "10.0.0.1")).ends(Verdict::Pass),
    ]
}

fn vlan() -> Vec<Case> {
    let frame = format!("eth 02::ff > 02::1 / vlan 100 / ip4 {CLIENT} > {FAR} / tcp 40000 > 80 / data 10");
    vec![case("forward/vlan", "comes tagged, leaves untagged", frame)]
}

fn fib() -> Vec<Case> {
    let (ip4, ip6) =
        (Flows::To(Destined::Routed(Routes::Ip4Million)), Flows::To(Destined::Routed(Routes::Ip6TwoHundredThousand)));
    let (any4, any6) = (tcp4(CLIENT, "0.0.0.0"), tcp6("::"));
    vec![
        case("fib/v4-hot", "stage: 10^6 prefixes, one destination", tcp4(CLIENT, FAR)).of(Part::Fib),
        case("fib/v4-1m-random", "stage: 10^6 prefixes, 2^20 addresses in them", any4.clone())
            .of(Part::Fib)
            .flows(ip4)
            .rival("baseline/dir24-8-1m-random"),
        case("fib/v6-hot", "stage: 200,000 prefixes, one destination", tcp6("2400::9")).of(Part::Fib),
        case("fib/v6-200k-random", "stage: 200,000 prefixes, 2^18 addresses in them", any6.clone())
            .of(Part::Fib)
            .flows(ip6)
            .rival("baseline/lpm6-200k-random"),
        case("forward/1m-random", "10^6 prefixes, 250 next hops, 2^20 addresses", any4).flows(ip4).rival("forward/hot"),
        case("forward/ip6-200k-random", "200,000 prefixes, 250 next hops, 2^18 addresses", any6)
            .flows(ip6)
            .rival("forward/ip6-hot"),
    ]
}

fn balancing() -> Vec<Case> {
    let udp = format!("{ETH} / ip4 {CLIENT} > 192.0.2.10 / udp 40000 > 80 / data 22");
    let family = "load balancer, IPv4";
    vec![
        case("lb/ipip4-hot", "VIP with 100 IPIP backends, one flow", tcp4(CLIENT, "192.0.2.10"))
            .scale(family, "flows", 1),
        case("lb/ipip4-64k", "the same VIP, 65,536 flows", tcp4(CLIENTS, "192.0.2.10"))
            .flows(Flows::Ip4Source(MANY))
            .scale(family, "flows", MANY)
            .rival("baseline/lru-hit-64k"),
        case("lb/ipip4-1m", "the same VIP, 2^20 flows", tcp4(CLIENTS, "192.0.2.10"))
            .flows(Flows::Ip4Source(1 << 20))
            .scale(family, "flows", 1 << 20)
            .rival("baseline/lru-hit-1m"),
        case("lb/ipip4-new", "every packet opens a flow, 2^24 of them", syn4())
            .flows(Flows::Ip4Source(1 << 24))
            .scale(family, "flows", 1 << 24)
            .rival("baseline/lru-insert"),
        case("lb/ipip6-hot", "IPv6 in IPv6, one flow", tcp6("2001:db8:100::10")),
        case("lb/ip4-on-ip6-hot", "IPv4 VIP, IPv6 backends, one flow", tcp4(CLIENT, "192.0.2.11")),
        case("lb/vxlan-hot", "VXLAN backends, one flow", tcp4(CLIENT, "192.0.2.12")),
        case("lb/l2-hot", "direct server return by L2 rewrite, one flow", tcp4(CLIENT, "192.0.2.13")),
        case(
            "lb/ipip4-tx-hot",
            "backends by the port that the packet came in by, one flow",
            tcp4(CLIENT, "192.0.2.14"),
        )
        .ends(Verdict::Tx),
        case("lb/udp-hot", "UDP, IPIP backends, one flow", udp),
        case("lb/no-vip", "the same node, a packet for none of its VIPs", tcp4(CLIENT, FAR)).rival("forward/hot"),
    ]
}

/// As many VIPs as the table is made for.
fn many_vips() -> Vec<Case> {
    let case = case("lb/ipip4-hot-4000-vips", "4,000 VIPs with 8 backends each, one flow", tcp4(CLIENT, "192.0.2.10"));
    vec![case.rival("lb/ipip4-hot")]
}

/// One of the backends is gone, and with it the slots of others that have changed.
fn after_change() -> Vec<Case> {
    let about = "one of 100 backends has gone, 65,536 flows, those of changed slots remembered";
    let case = case("lb/ipip4-64k-after-change", about, tcp4(CLIENTS, "192.0.2.10"));
    vec![case.flows(Flows::Ip4Source(MANY)).rival("baseline/lru-hit-64k")]
}

/// Ninety-nine backends are new, and nearly every slot has changed.
fn all_changed() -> Vec<Case> {
    let hot = "99 of 100 backends are new, one flow, remembered";
    let many = "the same, 65,536 flows, all remembered in a table of 262,144";
    let new = "the same, every packet opens a flow, 2^24 of them, in a table that is full";
    vec![
        case("lb/remembered-hot", hot, tcp4(CLIENT, "192.0.2.10")),
        case("lb/remembered-64k", many, tcp4(CLIENTS, "192.0.2.10"))
            .flows(Flows::Ip4Source(MANY))
            .rival("baseline/lru-hit-64k"),
        case("lb/remembered-new", new, syn4()).flows(Flows::Ip4Source(1 << 24)).rival("baseline/lru-insert"),
    ]
}

/// Points of the curves that are measured where a sweep is asked for.
const FLOW_COUNTS: [u32; 12] =
    [1, 4, 16, 64, 256, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, worlds::MOST_FLOWS];
const VIP_COUNTS: [u32; 7] = [1, 4, 16, 64, 256, 1_024, 4_000];

/// So many flows to one VIP, for all of which its ring answers.
fn sweep_flows(flows: u32) -> Case {
    let about = format!("{flows} flows to one VIP with 100 backends, its ring unchanged");
    case(&format!("sweep/flows-{flows}"), &about, tcp4(CLIENTS, "192.0.2.10"))
        .flows(Flows::Ip4Source(flows))
        .scale("VIP", "flows", flows)
        .rival("forward/hot")
}

/// The same, every one of them remembered.
fn sweep_remembered(flows: u32) -> Case {
    let about = format!("{flows} flows to one VIP, 99 of 100 backends new: all remembered in a table of 2^23");
    case(&format!("sweep/remembered-{flows}"), &about, tcp4(CLIENTS, "192.0.2.10"))
        .flows(Flows::Ip4Source(flows))
        .scale("VIP, all slots changed", "flows", flows)
        .rival("forward/hot")
}

/// So many VIPs: packets for one, and for one after the other.
fn sweep_vips(vips: u32) -> [Case; 2] {
    let name = |which: &str| format!("sweep/vips-{vips}-{which}");
    [
        case(&name("one"), &format!("{vips} VIPs with 8 backends each, one flow"), tcp4(CLIENT, "192.0.2.10"))
            .scale("one flow", "VIPs", vips)
            .rival("forward/hot"),
        case(&name("all"), &format!("{vips} VIPs, each packet for another"), tcp4(CLIENT, "0.0.0.0"))
            .flows(Flows::To(Destined::Vips(vips)))
            .scale("all VIPs in turn", "VIPs", vips)
            .rival("forward/hot"),
    ]
}

fn policy(rules: u32) -> Case {
    let about = format!("{rules} denied source prefixes, none matches");
    case(&format!("policy/{rules}-rules"), &about, tcp4(CLIENT, FAR))
        .scale("policy", "rules", rules)
        .rival("forward/hot")
}

fn denylist() -> Vec<Case> {
    let dropped = |reason| Verdict::Drop(reason);
    vec![
        case("denylist/miss-hot", "10,000 /24, one source, not among them", tcp4(CLIENT, FAR)).rival("forward/hot"),
        case("denylist/miss-64k", "the same, 65,536 sources", tcp4(CLIENTS, FAR)).flows(Flows::Ip4Source(MANY)),
        case("drop/denylist", "source among 10,000 /24", tcp4("203.0.7.7", FAR)).ends(dropped(DropReason::Denylist)),
        case("drop/blackhole", "blackhole route", tcp4(CLIENT, "198.18.0.9")).ends(dropped(DropReason::Blackhole)),
        case(
            "drop/ip4-csum",
            "wrong IPv4 header checksum",
            format!("{ETH} / ip4 {CLIENT} > {FAR} csum=0x1234 / tcp 40000 > 80 / data 10"),
        )
        .ends(dropped(DropReason::Ip4Csum)),
    ]
}

fn million_denied() -> Vec<Case> {
    let flows = Flows::To(Destined::Routed(Routes::Ip4Million));
    let dropped = Verdict::Drop(DropReason::Denylist);
    vec![
        case(
            "policy/denylist-1m-random",
            "stage: 10^6 denied prefixes, 2^20 addresses in them",
            tcp4(CLIENT, "0.0.0.0"),
        )
        .of(Part::Denied)
        .flows(flows)
        .ends(dropped)
        .rival("baseline/lpm4-1m-random"),
        case("policy/denylist-1m-drop", "the same, and dropped", tcp4(CLIENT, "0.0.0.0")).flows(flows).ends(dropped),
    ]
}

fn tunnels() -> Vec<Case> {
    let inner = format!("ip4 {CLIENT} > {FAR} / tcp 40000 > 80 / data 24");
    let ipip = format!("{ETH} / ip4 10.0.0.7 > 10.0.0.1 / {inner}");
    let vxlan =
        format!("{ETH} / ip4 10.0.0.7 > 10.0.0.1 / udp 50000 > 4789 / vxlan vni=4096 / eth 02::7 > 02::8 / {inner}");
    vec![
        case("tunnel/decap-ipip", "IPIP from a known peer, then forwarded", ipip),
        case("tunnel/decap-vxlan", "VXLAN from a known peer, then forwarded", vxlan),
        case("tunnel/plain", "the same node, no tunnel packet", tcp4(CLIENT, FAR)).rival("forward/hot"),
    ]
}
