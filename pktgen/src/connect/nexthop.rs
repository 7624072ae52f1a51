//! Where packets to a target go first: the kernel's route and the Ethernet address of its next hop.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use packet::layer::Mac;

use crate::interface::Interface;

/// How long the next hop may take to answer ARP or neighbour discovery.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often the neighbour table is looked at meanwhile.
const INTERVAL: Duration = Duration::from_millis(20);

/// Why there is no next hop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NextHopError {
    /// The kernel cannot be asked.
    #[error("cannot ask the kernel for routes: {0}")]
    Netlink(io::Error),
    /// It has no route.
    #[error("no route to {target}: {source} (add one with `ip route`, or give --dst-mac)")]
    NoRoute {
        /// Target.
        target: IpAddr,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The route leaves by another interface.
    #[error(
        "the route to {target} leaves by interface {index}, not by {interface} (run on that one, or give --dst-mac)"
    )]
    OtherInterface {
        /// Target.
        target: IpAddr,
        /// Where the route leads.
        index: u32,
        /// The interface of the run.
        interface: String,
    },
    /// The next hop does not answer.
    #[error("{hop} on {interface} does not answer ARP or neighbour discovery: is it up? (--dst-mac does without)")]
    Silent {
        /// Next hop.
        hop: IpAddr,
        /// The interface.
        interface: String,
    },
}

/// The Ethernet address of the next hop to `target` on `interface`, which the kernel resolves where it does not know it.
///
/// # Errors
/// [`NextHopError`].
pub fn resolve(interface: &Interface, target: IpAddr) -> Result<Mac, NextHopError> {
    let mut netlink = Netlink::open().map_err(NextHopError::Netlink)?;
    let (index, gateway) = netlink.route(target)?;
    if index != interface.index() {
        let interface = interface.name().to_owned();
        return Err(NextHopError::OtherInterface { target, index, interface });
    }
    let hop = gateway.unwrap_or(target);
    if let Some(mac) = netlink.neighbor(index, hop).map_err(NextHopError::Netlink)? {
        return Ok(mac);
    }
    netlink.probe(index, hop).map_err(NextHopError::Netlink)?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        std::thread::sleep(INTERVAL);
        if let Some(mac) = netlink.neighbor(index, hop).map_err(NextHopError::Netlink)? {
            return Ok(mac);
        }
    }
    Err(NextHopError::Silent { hop, interface: interface.name().to_owned() })
}

struct Netlink(Socket);

impl Netlink {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Sends a request that has one answer; `None`: an acknowledgment without content.
    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Option<RouteNetlinkMessage>> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let (answer, _) = self.0.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
            NetlinkPayload::Error(error) => match error.code {
                None => Ok(None),
                Some(code) => Err(io::Error::from_raw_os_error(code.get().abs())),
            },
            _ => Ok(None),
        }
    }

    /// Interface and gateway of the route to a target.
    fn route(&mut self, target: IpAddr) -> Result<(u32, Option<IpAddr>), NextHopError> {
        let no_route = |source| NextHopError::NoRoute { target, source };
        let mut message = RouteMessage::default();
        message.header.address_family = family(target);
        message.header.destination_prefix_length = if target.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(target.into()));
        let answer = self.ask(RouteNetlinkMessage::GetRoute(message), 0).map_err(no_route)?;
        let Some(RouteNetlinkMessage::NewRoute(route)) = answer else {
            return Err(no_route(io::ErrorKind::NotFound.into()));
        };
        let mut index = 0;
        let mut gateway = None;
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::Oif(oif) => index = oif,
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(address.into()),
                RouteAttribute::Gateway(RouteAddress::Inet6(address)) => gateway = Some(address.into()),
                // An IPv6 next hop of an IPv4 route (RFC 8950).
                RouteAttribute::Via(netlink_packet_route::route::RouteVia::Inet6(address)) => {
                    gateway = Some(address.into());
                }
                _ => {}
            }
        }
        Ok((index, gateway))
    }

    /// What the neighbour table says, where it says something that can be used.
    fn neighbor(&mut self, index: u32, hop: IpAddr) -> io::Result<Option<Mac>> {
        let answer = match self.ask(RouteNetlinkMessage::GetNeighbour(neighbor(index, hop)), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            answer => answer?,
        };
        let Some(RouteNetlinkMessage::NewNeighbour(entry)) = answer else { return Ok(None) };
        if matches!(entry.header.state, NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None) {
            return Ok(None);
        }
        Ok(entry.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(address) => Mac::try_from(address.as_slice()).ok(),
            _ => None,
        }))
    }

    /// Has the kernel resolve an address (NTF_USE: as if it had a packet to send).
    fn probe(&mut self, index: u32, hop: IpAddr) -> io::Result<()> {
        let mut message = neighbor(index, hop);
        message.header.flags = NeighbourFlags::Use;
        self.ask(RouteNetlinkMessage::NewNeighbour(message), NLM_F_ACK | NLM_F_CREATE).map(drop)
    }
}

fn neighbor(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(address)));
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
