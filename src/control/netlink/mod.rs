//! Links, addresses and neighbours from the kernel, and requests to resolve neighbours.
//!
//! Promise: the receiver sees one [`Change::Snapshot`] and then every later change in order; when notifications were
//! lost (the socket's buffer overran), a new snapshot. The groups are joined before the dump, so nothing falls between;
//! a notification older than the dump is replayed over it, which ends in the same state.
//! Resolution is the kernel's own ARP and ND: nothing is answered here, results come back as changes.

mod decode;
pub mod routes;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ethtool::{EthtoolAttr, EthtoolChannelAttr, EthtoolHandle, EthtoolHeader};
use futures::{Stream, StreamExt, TryStreamExt};
use model::network::{IfIndex, Network};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use tokio::sync::mpsc;
use tracing::{debug, warn};

pub use decode::{Change, NeighborEntry};

/// Why the kernel's view cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// A request was refused.
    #[error("netlink request failed: {0}")]
    Request(#[from] rtnetlink::Error),
    /// The socket closed.
    #[error("the netlink socket was closed")]
    Closed,
}

/// Pause before the sockets are opened again after an error.
const RETRY: Duration = Duration::from_secs(1);

/// Follows the kernel until the receiver is gone. `wrap` puts a change into the receiver's type.
pub async fn follow<E>(events: mpsc::Sender<E>, wrap: impl Fn(Change) -> E) {
    while !events.is_closed() {
        if let Err(error) = follow_once(&events, &wrap).await {
            warn!(%error, "lost the kernel's notifications, starting over");
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// One pair of sockets, from the dump until they fail or the receiver is gone.
async fn follow_once<E>(events: &mpsc::Sender<E>, wrap: &impl Fn(Change) -> E) -> Result<(), NetlinkError> {
    let (notifier, _, mut notifications) = rtnetlink::new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ])?;
    let (requester, requests, _) = rtnetlink::new_connection()?;
    let (ethtool_requester, ethtool, _) = ethtool::new_connection()?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(notifier);
    tasks.spawn(requester);
    tasks.spawn(ethtool_requester);

    let kernel = Kernel { requests, ethtool };
    let deliver = async |change| events.send(wrap(change)).await.is_ok();
    if !deliver(Change::Snapshot(kernel.snapshot().await?)).await {
        return Ok(());
    }
    loop {
        let (message, _) = tokio::select! {
            notification = notifications.next() => notification.ok_or(NetlinkError::Closed)?,
            () = events.closed() => return Ok(()),
        };
        let change = match message.payload {
            NetlinkPayload::Overrun(_) => {
                debug!("netlink notifications were lost, reading everything again");
                Some(Change::Snapshot(kernel.snapshot().await?))
            }
            NetlinkPayload::InnerMessage(message) => kernel.change(message).await,
            _ => None,
        };
        if let Some(change) = change
            && !deliver(change).await
        {
            return Ok(());
        }
    }
}

/// The request side of the sockets.
struct Kernel {
    requests: rtnetlink::Handle,
    ethtool: EthtoolHandle,
}

impl Kernel {
    async fn snapshot(&self) -> Result<Network, NetlinkError> {
        let mut network = Network::default();
        let queues = self.rx_queues(None).await;
        let mut links = Box::pin(self.requests.link().get().execute());
        while let Some(message) = links.try_next().await? {
            if let Some((index, mut link)) = decode::link(&message) {
                link.rx_queues = queues.get(&index).copied().unwrap_or(1);
                network.links.insert(index, link);
            }
        }
        let mut addresses = Box::pin(self.requests.address().get().execute());
        while let Some(message) = addresses.try_next().await? {
            network.addresses.extend(decode::address(&message));
        }
        let mut neighbors = Box::pin(self.requests.neighbours().get().execute());
        while let Some(message) = neighbors.try_next().await? {
            match decode::neighbor(&message, false) {
                Some((index, address, NeighborEntry::Resolved(mac))) => {
                    network.neighbors.insert((index, address), mac);
                }
                Some((index, address, NeighborEntry::Failed)) => {
                    network.failed.insert((index, address));
                }
                _ => {}
            }
        }
        Ok(network)
    }

    async fn change(&self, message: RouteNetlinkMessage) -> Option<Change> {
        match message {
            RouteNetlinkMessage::NewLink(message) => {
                let (index, mut link) = decode::link(&message)?;
                link.rx_queues = self.rx_queues(Some(&link.name)).await.get(&index).copied().unwrap_or(1);
                Some(Change::Link(index, Some(link)))
            }
            RouteNetlinkMessage::DelLink(message) => decode::link(&message).map(|(index, _)| Change::Link(index, None)),
            RouteNetlinkMessage::NewAddress(message) => {
                decode::address(&message).map(|(ifindex, net)| Change::Address { ifindex, net, present: true })
            }
            RouteNetlinkMessage::DelAddress(message) => {
                decode::address(&message).map(|(ifindex, net)| Change::Address { ifindex, net, present: false })
            }
            RouteNetlinkMessage::NewNeighbour(message) => decode::neighbor(&message, false)
                .map(|(ifindex, address, entry)| Change::Neighbor { ifindex, address, entry }),
            RouteNetlinkMessage::DelNeighbour(message) => decode::neighbor(&message, true)
                .map(|(ifindex, address, entry)| Change::Neighbor { ifindex, address, entry }),
            _ => None,
        }
    }

    /// Receive queues in use, of one interface or of all. IFLA_NUM_RX_QUEUES counts the allocated ones, which for veth is
    /// more than can be bound; a driver without channels has one that matters.
    async fn rx_queues(&self, name: Option<&str>) -> BTreeMap<IfIndex, u32> {
        let mut ethtool = self.ethtool.clone();
        let Ok(replies) = ethtool.channel().get(name).execute().await else {
            return BTreeMap::new();
        };
        let mut queues = BTreeMap::new();
        let mut replies = Box::pin(replies);
        while let Some(Ok(reply)) = replies.next().await {
            let (mut index, mut count) = (None, 0);
            for attribute in &reply.payload.nlas {
                match attribute {
                    EthtoolAttr::Channel(EthtoolChannelAttr::Header(header)) => {
                        index = header.iter().find_map(|field| match field {
                            EthtoolHeader::DevIndex(index) => Some(IfIndex(*index)),
                            _ => None,
                        });
                    }
                    EthtoolAttr::Channel(EthtoolChannelAttr::RxCount(n) | EthtoolChannelAttr::CombinedCount(n)) => {
                        count += n
                    }
                    _ => {}
                }
            }
            queues.extend(index.map(|index| (index, count.max(1))));
        }
        queues
    }
}

/// Asks the kernel to resolve neighbours and to keep them fresh.
#[derive(Clone)]
pub struct Resolver {
    requests: rtnetlink::Handle,
}

impl Resolver {
    /// Opens a request socket, served by the current runtime.
    pub fn new() -> Result<Self, NetlinkError> {
        let (connection, requests, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { requests })
    }

    /// Starts resolution of `address` on `ifindex`. With `managed`, the kernel also keeps probing the entry
    /// (NTF_EXT_MANAGED, since 5.16; older kernels ignore the attribute); without, an entry so kept is let go.
    /// Returns when the kernel has taken the request, not when the neighbour has answered.
    pub async fn resolve(&self, ifindex: IfIndex, address: IpAddr, managed: bool) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = ifindex.0;
        message.header.state = NeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        let destination = match address {
            IpAddr::V4(address) => {
                message.header.family = AddressFamily::Inet;
                NeighbourAddress::Inet(address)
            }
            IpAddr::V6(address) => {
                message.header.family = AddressFamily::Inet6;
                NeighbourAddress::Inet6(address)
            }
        };
        message.attributes.push(NeighbourAttribute::Destination(destination));
        if managed {
            message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        }
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
        let mut handle = self.requests.clone();
        outcome(handle.request(request)?).await
    }
}

/// The kernel's answer to a request that returns nothing but success.
async fn outcome(
    mut replies: impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin,
) -> Result<(), NetlinkError> {
    while let Some(reply) = replies.next().await {
        if let NetlinkPayload::Error(error) = reply.payload
            && error.code.is_some()
        {
            return Err(rtnetlink::Error::NetlinkError(error).into());
        }
    }
    Ok(())
}
