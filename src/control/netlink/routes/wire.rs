//! Messages about routes and nexthop objects, attribute by attribute. Pure.
//!
//! The crate's own types are not used for them: they know no nexthop objects, and of a route they make a list of owned
//! attributes, which for a million routes is the greater part of the work. Attributes come from the crate's iterator.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use model::network::IfIndex;
use netlink_packet_core::{
    DefaultNla, Emitable as _, NLM_F_APPEND, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NlaBuffer, NlasIterator, parse_i32, parse_ip, parse_u32,
};
use smallvec::SmallVec;

/// Types of messages (linux/rtnetlink.h).
mod rtm {
    pub(super) const NEWLINK: u16 = 16;
    pub(super) const DELLINK: u16 = 17;
    pub(super) const GETLINK: u16 = 18;
    pub(super) const DELADDR: u16 = 21;
    pub(super) const NEWROUTE: u16 = 24;
    pub(super) const DELROUTE: u16 = 25;
    pub(super) const GETROUTE: u16 = 26;
    pub(super) const NEWNEXTHOP: u16 = 104;
    pub(super) const DELNEXTHOP: u16 = 105;
    pub(super) const GETNEXTHOP: u16 = 106;
}

/// Attributes of a route (linux/rtnetlink.h).
mod rta {
    pub(super) const DST: u16 = 1;
    pub(super) const OIF: u16 = 4;
    pub(super) const GATEWAY: u16 = 5;
    pub(super) const PRIORITY: u16 = 6;
    pub(super) const PREFSRC: u16 = 7;
    pub(super) const METRICS: u16 = 8;
    pub(super) const MULTIPATH: u16 = 9;
    pub(super) const FLOW: u16 = 11;
    pub(super) const TABLE: u16 = 15;
    pub(super) const VIA: u16 = 18;
    pub(super) const NEWDST: u16 = 19;
    pub(super) const ENCAP_TYPE: u16 = 21;
    pub(super) const NH_ID: u16 = 30;
}

/// Attributes of a nexthop object (linux/nexthop.h).
mod nha {
    pub(super) const ID: u16 = 1;
    pub(super) const GROUP: u16 = 2;
    pub(super) const BLACKHOLE: u16 = 4;
    pub(super) const OIF: u16 = 5;
    pub(super) const GATEWAY: u16 = 6;
    pub(super) const ENCAP_TYPE: u16 = 7;
    pub(super) const FDB: u16 = 11;
}

/// Attributes of an address (linux/if_addr.h).
const IFA_LOCAL: u16 = 2;

/// Types of routes (linux/rtnetlink.h).
mod rtn {
    pub(super) const UNICAST: u8 = 1;
    pub(super) const BLACKHOLE: u8 = 6;
    pub(super) const UNREACHABLE: u8 = 7;
    pub(super) const PROHIBIT: u8 = 8;
    pub(super) const THROW: u8 = 9;
}

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// A route that the kernel has made for one flow.
const RTM_F_CLONED: u32 = 0x200;
/// Interface is up, as its administrator wants it.
const IFF_UP: u32 = 1;
/// Routes by router advertisements, which are never equals of others.
const RTPROT_RA: u8 = 9;
/// Routes by the kernel itself.
const RTPROT_KERNEL: u8 = 2;
/// Alignment of what lies in a multipath attribute.
const RTNH_ALIGN: usize = 4;

/// One way out of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Hop {
    pub(super) gateway: Option<IpAddr>,
    pub(super) ifindex: IfIndex,
    pub(super) weight: u32,
}

/// What a route does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    /// Sends them out by its hops.
    Unicast,
    /// Drops.
    Blackhole,
    /// Drops, and says that there is no route.
    Unreachable,
    /// Drops, and says that it is prohibited.
    Prohibit,
    /// Leaves them to the host: another table is asked, or something is put around them that margay does not put.
    Host,
}

/// A route without its prefix and metric. Routes with equal bodies are one to the kernel, too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Body {
    pub(super) action: Action,
    /// Nexthop object that says where it leads; 0 for none.
    pub(super) next_hop: u32,
    /// Ascending; empty where a nexthop object says it.
    pub(super) hops: SmallVec<[Hop; 1]>,
    /// IPv6: gateways of such routes to one prefix of one metric make one route (`rt6_qualify_for_ecmp`).
    pub(super) joins: bool,
    /// IPv4: source of packets that the node sends itself; a route goes with it.
    pub(super) source: Option<IpAddr>,
    /// IPv4: what else tells routes apart.
    pub(super) rest: u64,
}

/// A route of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) table: u32,
    pub(super) prefix: IpNet,
    pub(super) metric: u32,
    pub(super) body: Body,
}

/// How a new route stands to others of its prefix and metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// There is no other.
    Only,
    /// In the place of the first.
    Replace,
    /// After the others.
    Last,
    /// Before the others.
    First,
}

/// A nexthop object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NextHop {
    /// One way out.
    Hop(Hop),
    /// Drops.
    Blackhole,
    /// Something that is left to the host.
    Host,
    /// Other objects with their weights.
    Group(SmallVec<[(u32, u32); 4]>),
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    NewRoute(Route, Place),
    DelRoute(Route),
    /// `None`: of no use here.
    NewNextHop(u32, Option<NextHop>),
    DelNextHop(u32),
    /// An interface that is administratively up or not; one that is gone is not.
    Link {
        ifindex: IfIndex,
        up: bool,
    },
    AddressGone {
        ifindex: IfIndex,
        address: IpAddr,
    },
    /// The end of a dump.
    Done,
    /// The kernel refuses what was asked, with this errno.
    Refused(i32),
    /// A part of a dump that holds nothing of use.
    Ignored,
}

/// Bytes from the kernel that cannot be what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a netlink message of type {0} is malformed")]
pub struct Malformed(u16);

/// A message with what its header says.
pub(super) struct Received {
    pub(super) message: Message,
    /// Of the request that it answers.
    pub(super) sequence: u32,
    /// What is dumped has changed meanwhile.
    pub(super) interrupted: bool,
}

/// Visits every message of a datagram.
///
/// # Errors
/// At the first malformed one; those before it have been visited.
pub(super) fn messages(mut datagram: &[u8], mut visit: impl FnMut(Received)) -> Result<(), Malformed> {
    while !datagram.is_empty() {
        let buffer = NetlinkBuffer::new_checked(datagram).map_err(|_| Malformed(0))?;
        let (kind, flags) = (buffer.message_type(), buffer.flags());
        let message = message(kind, flags, buffer.payload()).ok_or(Malformed(kind))?;
        let interrupted = flags & NLM_F_DUMP_INTR != 0;
        visit(Received { message, sequence: buffer.sequence_number(), interrupted });
        let length = (buffer.length() as usize).next_multiple_of(RTNH_ALIGN);
        datagram = datagram.get(length..).unwrap_or_default();
    }
    Ok(())
}

fn message(kind: u16, flags: u16, payload: &[u8]) -> Option<Message> {
    Some(match kind {
        rtm::NEWROUTE => route(payload)?.map_or(Message::Ignored, |route| Message::NewRoute(route, place(flags))),
        rtm::DELROUTE => route(payload)?.map_or(Message::Ignored, Message::DelRoute),
        rtm::NEWNEXTHOP => {
            let (id, next_hop) = next_hop(payload)?;
            Message::NewNextHop(id, next_hop)
        }
        rtm::DELNEXTHOP => Message::DelNextHop(next_hop(payload)?.0),
        rtm::NEWLINK | rtm::DELLINK => link(kind == rtm::NEWLINK, payload)?,
        rtm::DELADDR => address_gone(payload)?,
        // It ends with an errno where the dump has failed; from kernels that say nothing, with nothing.
        NLMSG_DONE => match payload.get(..4).map_or(Ok(0), parse_i32).ok()? {
            0.. => Message::Done,
            errno => Message::Refused(-errno),
        },
        // Zero is an acknowledgement, which nobody asks for here.
        NLMSG_ERROR => match parse_i32(payload.get(..4)?).ok()? {
            0 => Message::Ignored,
            errno => Message::Refused(-errno),
        },
        _ => Message::Ignored,
    })
}

fn place(flags: u16) -> Place {
    match flags {
        _ if flags & NLM_F_REPLACE != 0 => Place::Replace,
        _ if flags & NLM_F_APPEND != 0 => Place::Last,
        _ if flags & NLM_F_EXCL != 0 => Place::Only,
        _ => Place::First,
    }
}

fn attributes(bytes: &[u8]) -> impl Iterator<Item = Option<NlaBuffer<&[u8]>>> {
    NlasIterator::new(bytes).map(Result::ok)
}

/// A route; `Some(None)` where it is none that packets of others are forwarded by: of another type of service than 0, by
/// source, of one flow, to the node itself, to many, or within a link.
fn route(payload: &[u8]) -> Option<Option<Route>> {
    let (header, rest) = payload.split_first_chunk::<12>()?;
    let [family, length, source_length, tos, table, protocol, scope, kind, flags @ ..] = *header;
    let v4 = match family {
        AF_INET => true,
        AF_INET6 => false,
        _ => return Some(None),
    };
    let action = match kind {
        rtn::UNICAST => Action::Unicast,
        rtn::BLACKHOLE => Action::Blackhole,
        rtn::UNREACHABLE => Action::Unreachable,
        rtn::PROHIBIT => Action::Prohibit,
        rtn::THROW => Action::Host,
        _ => return Some(None),
    };
    if tos != 0 || source_length != 0 || u32::from_ne_bytes(flags) & RTM_F_CLONED != 0 {
        return Some(None);
    }
    let mut destination = if v4 { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let (mut table, mut metric, mut source, mut next_hop, mut encapsulates) = (u32::from(table), 0, None, 0, false);
    let (mut gateway, mut ifindex, mut hops) = (None, IfIndex(0), SmallVec::<[Hop; 1]>::new());
    let mut other = None::<DefaultHasher>;
    for attribute in attributes(rest) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            rta::DST => destination = parse_ip(value).ok()?,
            rta::OIF => ifindex = IfIndex(parse_u32(value).ok()?),
            rta::GATEWAY => gateway = Some(parse_ip(value).ok()?),
            rta::VIA => gateway = Some(via(value)?),
            rta::PRIORITY => metric = parse_u32(value).ok()?,
            rta::PREFSRC => source = Some(parse_ip(value).ok()?),
            rta::MULTIPATH => encapsulates |= multipath(value, &mut hops)?,
            rta::TABLE => table = parse_u32(value).ok()?,
            rta::ENCAP_TYPE | rta::NEWDST => encapsulates = true,
            rta::NH_ID => next_hop = parse_u32(value).ok()?,
            kind @ (rta::METRICS | rta::FLOW) => (kind, value).hash(other.get_or_insert_default()),
            _ => {}
        }
    }
    let prefix = IpNet::new(destination, length).ok()?.trunc();
    if destination.is_ipv4() != v4 || !is_forwarded(prefix) {
        return Some(None);
    }
    if hops.is_empty() && (gateway.is_some() || ifindex.0 != 0) {
        hops.push(Hop { gateway, ifindex, weight: 1 });
    }
    if next_hop != 0 || action != Action::Unicast {
        hops.clear();
    }
    hops.sort_unstable();
    let joins = !v4
        && next_hop == 0
        && action == Action::Unicast
        && !matches!(protocol, RTPROT_RA | RTPROT_KERNEL)
        && hops.iter().all(|hop| hop.gateway.is_some());
    // Routes of IPv6 that differ in nothing but these are one route.
    let rest = if v4 {
        let mut hasher = other.unwrap_or_default();
        (protocol, scope).hash(&mut hasher);
        hasher.finish()
    } else {
        0
    };
    let action = if encapsulates { Action::Host } else { action };
    let body = Body { action, next_hop, hops, joins, source: source.filter(|_| v4), rest };
    Some(Some(Route { table, prefix, metric, body }))
}

/// Link-local and multicast destinations are not routed.
fn is_forwarded(prefix: IpNet) -> bool {
    let length = prefix.prefix_len();
    let (link_local, multicast) = match prefix.addr() {
        IpAddr::V4(address) => (address.is_link_local() && length >= 16, address.is_multicast() && length >= 4),
        IpAddr::V6(address) => (address.is_unicast_link_local() && length >= 10, address.is_multicast() && length >= 8),
    };
    !link_local && !multicast
}

/// A gateway of any family (`struct rtvia`).
fn via(value: &[u8]) -> Option<IpAddr> {
    let (family, address) = value.split_first_chunk::<2>()?;
    let length = match u8::try_from(u16::from_ne_bytes(*family)).ok()? {
        AF_INET => 4,
        AF_INET6 => 16,
        _ => return None,
    };
    parse_ip(address.get(..length)?).ok()
}

/// Hops of a multipath route (`struct rtnexthop`, each with attributes of its own); true where one of them encapsulates.
fn multipath(mut value: &[u8], hops: &mut SmallVec<[Hop; 1]>) -> Option<bool> {
    let mut encapsulates = false;
    while let Some((header, _)) = value.split_first_chunk::<8>() {
        let [l0, l1, _flags, weight, i0, i1, i2, i3] = *header;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let ifindex = IfIndex(u32::from_ne_bytes([i0, i1, i2, i3]));
        let mut hop = Hop { gateway: None, ifindex, weight: u32::from(weight) + 1 };
        for attribute in attributes(value.get(8..length)?) {
            let attribute = attribute?;
            match attribute.kind() {
                rta::GATEWAY => hop.gateway = Some(parse_ip(attribute.value()).ok()?),
                rta::VIA => hop.gateway = Some(via(attribute.value())?),
                rta::ENCAP_TYPE | rta::NEWDST => encapsulates = true,
                _ => {}
            }
        }
        hops.push(hop);
        value = value.get(length.next_multiple_of(RTNH_ALIGN)..).unwrap_or_default();
    }
    Some(encapsulates)
}

/// A nexthop object; those that are not for routes (`fdb`) are `None`. Where a resilient group has its buckets is the
/// kernel's affair: its weights are what counts here.
fn next_hop(payload: &[u8]) -> Option<(u32, Option<NextHop>)> {
    let (_, rest) = payload.split_first_chunk::<8>()?;
    let (mut id, mut hop, mut group) = (None, Hop { gateway: None, ifindex: IfIndex(0), weight: 1 }, None);
    let (mut blackhole, mut encapsulates, mut bridge) = (false, false, false);
    for attribute in attributes(rest) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            nha::ID => id = Some(parse_u32(value).ok()?),
            nha::GROUP => group = Some(members(value)?),
            nha::BLACKHOLE => blackhole = true,
            nha::OIF => hop.ifindex = IfIndex(parse_u32(value).ok()?),
            nha::GATEWAY => hop.gateway = Some(parse_ip(value).ok()?),
            nha::ENCAP_TYPE => encapsulates = true,
            nha::FDB => bridge = true,
            _ => {}
        }
    }
    let next_hop = match group {
        _ if bridge => None,
        Some(group) => Some(NextHop::Group(group)),
        None if blackhole => Some(NextHop::Blackhole),
        None if encapsulates => Some(NextHop::Host),
        None => Some(NextHop::Hop(hop)),
    };
    Some((id?, next_hop))
}

/// `struct nexthop_grp`: the weight less one, its upper byte since Linux 6.12.
fn members(value: &[u8]) -> Option<SmallVec<[(u32, u32); 4]>> {
    let (members, rest) = value.as_chunks::<8>();
    let member = |[a, b, c, d, low, high, _, _]: &[u8; 8]| {
        (u32::from_ne_bytes([*a, *b, *c, *d]), u32::from(u16::from_le_bytes([*low, *high])) + 1)
    };
    rest.is_empty().then(|| members.iter().map(member).collect())
}

fn link(present: bool, payload: &[u8]) -> Option<Message> {
    let header = payload.first_chunk::<16>()?;
    let [family, _, _, _, i0, i1, i2, i3, f0, f1, f2, f3, ..] = *header;
    // The same group carries the ports of bridges.
    if family != AF_UNSPEC {
        return Some(Message::Ignored);
    }
    let up = present && u32::from_ne_bytes([f0, f1, f2, f3]) & IFF_UP != 0;
    Some(Message::Link { ifindex: IfIndex(u32::from_ne_bytes([i0, i1, i2, i3])), up })
}

fn address_gone(payload: &[u8]) -> Option<Message> {
    let ([family, _, _, _, index @ ..], rest) = payload.split_first_chunk::<8>()?;
    if *family != AF_INET {
        return Some(Message::Ignored);
    }
    for attribute in attributes(rest) {
        let attribute = attribute?;
        if attribute.kind() == IFA_LOCAL {
            let address = parse_ip(attribute.value()).ok()?;
            return Some(Message::AddressGone { ifindex: IfIndex(u32::from_ne_bytes(*index)), address });
        }
    }
    Some(Message::Ignored)
}

/// What can be dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dumped {
    Links,
    NextHops,
    Routes4,
    Routes6,
}

impl Dumped {
    /// What routes refer to, and is dumped before them.
    pub(super) const BEFORE: [Self; 2] = [Self::Links, Self::NextHops];
    /// What is dumped of each table.
    pub(super) const OF_TABLE: [Self; 2] = [Self::Routes4, Self::Routes6];
}

/// A request for a dump; of routes, those of one table where the socket checks strictly.
pub(super) fn request(what: Dumped, table: u32, sequence: u32) -> Vec<u8> {
    let routes = |family: u8| {
        let mut body = vec![0; 12];
        if let Some(first) = body.first_mut() {
            *first = family;
        }
        body.extend(attribute(rta::TABLE, &table.to_ne_bytes()));
        body
    };
    let (message_type, body) = match what {
        Dumped::Links => (rtm::GETLINK, vec![0; 16]),
        Dumped::NextHops => (rtm::GETNEXTHOP, vec![0; 8]),
        Dumped::Routes4 => (rtm::GETROUTE, routes(AF_INET)),
        Dumped::Routes6 => (rtm::GETROUTE, routes(AF_INET6)),
    };
    let mut header = NetlinkHeader::default();
    header.message_type = message_type;
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = sequence;
    header.length = (header.buffer_len() + body.len()) as u32;
    let mut bytes = vec![0; header.buffer_len()];
    header.emit(&mut bytes);
    bytes.extend(body);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute = DefaultNla::new(kind, value.to_vec());
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn octets(address: &str) -> Vec<u8> {
        match address.parse().unwrap() {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        }
    }

    /// An RTM_NEWROUTE of the main table.
    fn bytes(family: u8, length: u8, kind: u8, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut payload = vec![family, length, 0, 0, 254, 3, 0, kind, 0, 0, 0, 0];
        payload.extend(attributes.iter().flat_map(|(kind, value)| attribute(*kind, value)));
        payload
    }

    fn hop(gateway: &str, ifindex: u32, weight: u32) -> Hop {
        Hop { gateway: Some(gateway.parse().unwrap()), ifindex: IfIndex(ifindex), weight }
    }

    fn in_multipath(ifindex: u32, weight: u8, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let attributes: Vec<u8> = attributes.iter().flat_map(|(kind, value)| attribute(*kind, value)).collect();
        let mut bytes = ((attributes.len() + 8) as u16).to_ne_bytes().to_vec();
        bytes.extend([0, weight - 1]);
        bytes.extend(ifindex.to_ne_bytes());
        bytes.extend(attributes);
        bytes
    }

    #[test]
    fn a_route_is_read_with_its_gateway_of_either_family() {
        let attributes = [
            (rta::DST, octets("203.0.113.0")),
            (rta::GATEWAY, octets("192.0.2.1")),
            (rta::OIF, 7u32.to_ne_bytes().to_vec()),
            (rta::PRIORITY, 20u32.to_ne_bytes().to_vec()),
            (rta::TABLE, 1000u32.to_ne_bytes().to_vec()),
        ];
        let read = route(&bytes(AF_INET, 24, rtn::UNICAST, &attributes)).unwrap().unwrap();
        assert_eq!((read.prefix, read.metric, read.table), (net("203.0.113.0/24"), 20, 1000));
        assert_eq!(read.body.hops.as_slice(), [hop("192.0.2.1", 7, 1)]);
        let via = [[AF_INET6, 0].as_slice(), &octets("fe80::1")].concat();
        let attributes = [(rta::VIA, via), (rta::OIF, 7u32.to_ne_bytes().to_vec())];
        let read = route(&bytes(AF_INET, 0, rtn::UNICAST, &attributes)).unwrap().unwrap();
        assert_eq!((read.prefix, read.table), (net("0.0.0.0/0"), 254));
        assert_eq!(read.body.hops.as_slice(), [hop("fe80::1", 7, 1)]);
    }

    #[test]
    fn hops_of_a_multipath_route_come_sorted_with_their_weights() {
        let hops = [
            in_multipath(9, 3, &[(rta::GATEWAY, octets("192.0.2.9"))]),
            in_multipath(8, 1, &[(rta::GATEWAY, octets("192.0.2.1"))]),
        ]
        .concat();
        let read = route(&bytes(AF_INET, 0, rtn::UNICAST, &[(rta::MULTIPATH, hops)])).unwrap().unwrap();
        assert_eq!(read.body.hops.as_slice(), [hop("192.0.2.1", 8, 1), hop("192.0.2.9", 9, 3)]);
        let mpls = in_multipath(9, 1, &[(rta::GATEWAY, octets("192.0.2.9")), (rta::ENCAP_TYPE, vec![1, 0])]);
        let read = route(&bytes(AF_INET, 0, rtn::UNICAST, &[(rta::MULTIPATH, mpls)])).unwrap().unwrap();
        assert_eq!(read.body.action, Action::Host, "margay puts no labels on");
    }

    #[test]
    fn what_is_not_for_forwarding_is_ignored() {
        let ignored = |payload: &[u8]| assert_eq!(route(payload), Some(None), "{payload:?}");
        for kind in [2, 3, 4, 5, 10, 11] {
            ignored(&bytes(AF_INET, 0, kind, &[]));
        }
        ignored(&bytes(AF_INET6, 10, rtn::UNICAST, &[(rta::DST, octets("fe80::"))]));
        ignored(&bytes(AF_INET6, 8, rtn::UNICAST, &[(rta::DST, octets("ff00::"))]));
        ignored(&bytes(AF_INET, 4, rtn::UNICAST, &[(rta::DST, octets("224.0.0.0"))]));
        ignored(&bytes(AF_INET, 16, rtn::UNICAST, &[(rta::DST, octets("169.254.0.0"))]));
        ignored(&bytes(7, 0, rtn::UNICAST, &[]));
        let mut with_tos = bytes(AF_INET, 0, rtn::UNICAST, &[]);
        with_tos[3] = 4;
        ignored(&with_tos);
        let mut cloned = bytes(AF_INET6, 0, rtn::UNICAST, &[]);
        cloned[8..12].copy_from_slice(&RTM_F_CLONED.to_ne_bytes());
        ignored(&cloned);
        let default = route(&bytes(AF_INET, 0, rtn::BLACKHOLE, &[])).unwrap().unwrap();
        assert_eq!(default.prefix, net("0.0.0.0/0"));
    }

    #[test]
    fn nexthop_objects_of_all_kinds() {
        let object = |attributes: &[(u16, Vec<u8>)]| {
            let id = (nha::ID, 5u32.to_ne_bytes().to_vec());
            let all = std::iter::once(&id).chain(attributes);
            let mut payload = vec![AF_INET, 0, 0, 0, 0, 0, 0, 0];
            payload.extend(all.flat_map(|(kind, value)| attribute(*kind, value)));
            let (id, next_hop) = next_hop(&payload).unwrap();
            assert_eq!(id, 5);
            next_hop
        };
        let oif = (nha::OIF, 3u32.to_ne_bytes().to_vec());
        let gateway = (nha::GATEWAY, octets("fe80::9"));
        assert_eq!(object(&[oif.clone(), gateway.clone()]), Some(NextHop::Hop(hop("fe80::9", 3, 1))));
        assert_eq!(object(&[(nha::BLACKHOLE, vec![])]), Some(NextHop::Blackhole));
        assert_eq!(object(&[oif.clone(), (nha::ENCAP_TYPE, vec![1, 0])]), Some(NextHop::Host));
        assert_eq!(object(&[gateway, (nha::FDB, vec![])]), None);
        let group = [[1, 0, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 254, 1, 0, 0]].concat();
        let members = if cfg!(target_endian = "little") { [(1, 1), (2, 511)] } else { [(1 << 24, 1), (2 << 24, 511)] };
        assert_eq!(object(&[(nha::GROUP, group)]), Some(NextHop::Group(SmallVec::from_slice(&members))));
    }

    #[test]
    fn datagrams_of_any_bytes_are_read_or_refused() {
        proptest::proptest!(|(datagram: Vec<u8>, kind in proptest::sample::select(vec![16u16, 21, 24, 25, 104, 105, 2, 3]))| {
            let _ = messages(&datagram, |_| {});
            let mut framed = (datagram.len() as u32 + 16).to_ne_bytes().to_vec();
            framed.extend(kind.to_ne_bytes());
            framed.extend([0; 10]);
            framed.extend(&datagram);
            let _ = messages(&framed, |_| {});
        });
    }

    #[test]
    fn a_request_is_a_message_that_can_be_read() {
        for what in Dumped::BEFORE.into_iter().chain(Dumped::OF_TABLE) {
            let bytes = request(what, 254, 9);
            let mut seen = 0;
            messages(&bytes, |received| {
                assert_eq!((received.message, received.sequence), (Message::Ignored, 9));
                seen += 1;
            })
            .unwrap();
            assert_eq!(seen, 1);
        }
    }
}
