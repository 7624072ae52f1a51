//! TCP connections as tasks: each reports to the speaker what happens on one connection, and holds nothing else.
//!
//! Output is bounded by whoever queues it: [`Outbox::room`] says whether more may be made. Input is bounded by whoever takes it
//! in: a task reads no more before [`Outbox::read_on`]. A connection whose outbox is dropped sends what is left and then closes without
//! resetting it, so that a last NOTIFICATION arrives.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bgp::rib::Link;
use bgp::{ConnectionId, Direction, NextHops, PeerId};
use bytes::{Buf as _, Bytes, BytesMut};
use futures::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tracing::debug;

use super::socket::{self, Distance};

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the peer may take to close after we have.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Bytes queued for a peer beyond which no more UPDATEs are made.
const OUTBOX_BYTES: usize = 256 * 1024;

/// What happens on connections.
#[derive(Debug)]
pub(super) enum Report {
    /// A connection is up.
    Connected(PeerId, Box<Connected>),
    /// We could not connect.
    ConnectFailed(PeerId, io::Error),
    /// Somebody has connected to a listener.
    Accepted(TcpStream, SocketAddr),
    /// Bytes have arrived.
    Received(PeerId, ConnectionId, Bytes),
    /// The connection is gone.
    Closed(PeerId, ConnectionId),
    /// There is room in the outbox again.
    Room(PeerId, ConnectionId),
    /// The peer takes no bytes (RFC 9687).
    SendHoldExpired(PeerId, ConnectionId),
}

/// A connection that is up.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) stream: TcpStream,
    pub(super) direction: Direction,
    pub(super) place: Place,
}

/// Where a connection ends on our side.
#[derive(Debug)]
pub(super) struct Place {
    /// Our addresses on its interface.
    pub(super) local: Vec<IpAddr>,
    /// Its link, where the peer is on it.
    pub(super) link: Option<Link>,
    /// The next hops that we announce on it: its own address and the first global one of the other family.
    pub(super) next_hops: NextHops,
}

/// Where and how to connect.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) peer: SocketAddr,
    /// The interface that it is on, where its address is link-local.
    pub(super) interface: Option<String>,
    pub(super) source: Option<IpAddr>,
    pub(super) distance: Distance,
    pub(super) password: Option<String>,
}

/// Connects and reports how that went.
pub(super) async fn connect(target: Target, id: PeerId, reports: mpsc::Sender<Report>) {
    let peer = target.peer.ip();
    let connecting = async {
        let socket = socket::connecting(peer, target.source, target.distance, target.password.as_deref())?;
        let mut place = target.peer;
        if let (SocketAddr::V6(place), Some(interface)) = (&mut place, &target.interface) {
            place.set_scope_id(socket::interface_index(&socket, interface)?);
        }
        let stream = TcpSocket::from_std_stream(socket).connect(place).await?;
        Connected::new(stream, Direction::Outgoing).await
    };
    let result = timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let report = match result {
        Ok(connected) => Report::Connected(id, Box::new(connected)),
        Err(error) => Report::ConnectFailed(id, error),
    };
    let _ = reports.send(report).await;
}

/// Index of the interface that a link-local address is on; 0 for any other address.
pub(super) fn scope(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V6(address) => address.scope_id(),
        SocketAddr::V4(_) => 0,
    }
}

/// Reports a connection that a peer has made.
pub(super) async fn greet(stream: TcpStream, id: PeerId, reports: mpsc::Sender<Report>) {
    match Connected::new(stream, Direction::Incoming).await {
        Ok(connected) => {
            let _ = reports.send(Report::Connected(id, Box::new(connected))).await;
        }
        Err(error) => debug!(%error, "an accepted connection is gone already"),
    }
}

impl Connected {
    /// Finds out which addresses of ours a new connection has to do with.
    async fn new(stream: TcpStream, direction: Direction) -> io::Result<Self> {
        let place = Place::of(&stream).await?;
        Ok(Self { stream, direction, place })
    }
}

/// An address of an interface of ours.
struct Local {
    interface: u32,
    address: IpAddr,
    /// What it reaches without a gateway.
    network: IpNet,
}

impl Local {
    fn of(message: &AddressMessage) -> Option<Self> {
        // IFA_LOCAL is our side of a point-to-point link, where IFA_ADDRESS is the other one.
        let local = message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let address = message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        Some(Self {
            interface: message.header.index,
            address: local.or(address)?,
            network: IpNet::new(address.or(local)?, message.header.prefix_len).ok()?.trunc(),
        })
    }
}

impl Place {
    async fn of(stream: &TcpStream) -> io::Result<Self> {
        let (own, peer) = (stream.local_addr()?, stream.peer_addr()?.ip());
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let netlink = tokio::spawn(connection);
        let messages = handle.address().get().execute().try_collect::<Vec<_>>().await.map_err(io::Error::other);
        netlink.abort();
        Ok(Self::among(&messages?.iter().filter_map(Local::of).collect::<Vec<_>>(), own, peer))
    }

    /// The place of the address `own` among all that we have.
    fn among(all: &[Local], own: SocketAddr, peer: IpAddr) -> Self {
        // A link-local address may be that of several interfaces.
        let (scope, own) = (scope(own), own.ip());
        let is_own = |local: &&Local| local.address == own && (scope == 0 || local.interface == scope);
        let interface = all.iter().find(is_own).map(|local| local.interface);
        let here: Vec<&Local> = all.iter().filter(|local| Some(local.interface) == interface).collect();
        let networks: Vec<IpNet> = here.iter().map(|local| local.network).collect();
        let link = interface
            .filter(|_| !own.is_loopback() && networks.iter().any(|network| network.contains(&peer)))
            .map(|interface| Link { interface, networks });
        let v4 = here.iter().find_map(|local| match local.address {
            IpAddr::V4(address) if !address.is_loopback() => Some(address),
            _ => None,
        });
        let of_ipv6 = |link_local: bool| {
            here.iter().find_map(|local| match local.address {
                IpAddr::V6(address) if !address.is_loopback() && address.is_unicast_link_local() == link_local => {
                    Some(address)
                }
                _ => None,
            })
        };
        let (v4, v6) = match own {
            IpAddr::V4(own) => (Some(own), of_ipv6(false)),
            // The global address is the next hop beside a link-local one; without any, the latter stands for both.
            IpAddr::V6(own) if own.is_unicast_link_local() => (v4, of_ipv6(false).or(Some(own))),
            IpAddr::V6(own) => (v4, Some(own)),
        };
        let link_local = of_ipv6(true).filter(|_| link.is_some());
        let local = if here.is_empty() { vec![own] } else { here.iter().map(|local| local.address).collect() };
        Self { local, link, next_hops: NextHops { v4, v6, link_local, over_ipv6: own.is_ipv6() } }
    }
}

/// The sending end of a connection. Dropping it closes the connection once everything has been sent.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: mpsc::UnboundedSender<Bytes>,
    level: Arc<Level>,
}

#[derive(Debug, Default)]
struct Level {
    bytes: AtomicUsize,
    wanted: AtomicBool,
    read_on: Notify,
}

impl Outbox {
    /// Queues a message. Those that a session needs to live are small and always taken.
    pub(super) fn send(&self, message: Bytes) {
        self.level.bytes.fetch_add(message.len(), Ordering::Relaxed);
        // A connection that has ended has reported so.
        let _ = self.queue.send(message);
    }

    /// What was last received has been taken in: more may be read.
    pub(super) fn read_on(&self) {
        self.level.read_on.notify_one();
    }

    /// May more be made? Where not, [`Report::Room`] will tell.
    pub(super) fn room(&self) -> bool {
        let room = self.level.bytes.load(Ordering::Relaxed) < OUTBOX_BYTES;
        if !room {
            self.level.wanted.store(true, Ordering::Relaxed);
        }
        room
    }
}

/// The task of one connection, to be spawned, and its outbox.
pub(super) fn run(
    stream: TcpStream,
    peer: PeerId,
    id: ConnectionId,
    send_hold: Duration,
    reports: mpsc::Sender<Report>,
) -> (Outbox, impl Future<Output = ()>) {
    let (queue, receiver) = mpsc::unbounded_channel();
    let level = Arc::new(Level::default());
    let outbox = Outbox { queue, level: Arc::clone(&level) };
    let task = async move {
        let (mut reader, mut writer) = stream.into_split();
        let end = tokio::select! {
            () = read(&mut reader, peer, id, &level, &reports) => Report::Closed(peer, id),
            end = write(&mut writer, receiver, &level, send_hold, peer, id, &reports) => match end {
                // The speaker is done with this connection: let the last words arrive before the socket goes, which would
                // reset the connection while input is unread.
                Ok(()) => {
                    let _ = writer.shutdown().await;
                    let _ = timeout(LINGER, discard(&mut reader)).await;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => Report::SendHoldExpired(peer, id),
                Err(_) => {
                    // The peer has closed; what it said before, a NOTIFICATION mostly, may still be unread.
                    let _ = timeout(LINGER, read(&mut reader, peer, id, &level, &reports)).await;
                    Report::Closed(peer, id)
                }
            },
        };
        let _ = reports.send(end).await;
    };
    (outbox, task)
}

/// Reports what arrives until the peer closes, and reads on when that has been taken in: what else there is waits in the socket,
/// and the peer with it.
async fn read(
    reader: &mut OwnedReadHalf,
    peer: PeerId,
    id: ConnectionId,
    level: &Level,
    reports: &mpsc::Sender<Report>,
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        match reader.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                if reports.send(Report::Received(peer, id, buffer.split().freeze())).await.is_err() {
                    return;
                }
                level.read_on.notified().await;
            }
        }
    }
}

/// Sends what is queued until the outbox is dropped.
///
/// # Errors
/// `TimedOut` where the peer has taken nothing for `send_hold`.
async fn write(
    writer: &mut OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Bytes>,
    level: &Level,
    send_hold: Duration,
    peer: PeerId,
    id: ConnectionId,
    reports: &mpsc::Sender<Report>,
) -> io::Result<()> {
    while let Some(mut message) = queue.recv().await {
        let length = message.len();
        while message.has_remaining() {
            match timeout(send_hold, writer.write_buf(&mut message)).await {
                Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        let left = level.bytes.fetch_sub(length, Ordering::Relaxed).saturating_sub(length);
        if left < OUTBOX_BYTES / 2 && level.wanted.swap(false, Ordering::Relaxed) {
            let _ = reports.send(Report::Room(peer, id)).await;
        }
    }
    Ok(())
}

async fn discard(reader: &mut OwnedReadHalf) {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    while matches!(reader.read_buf(&mut buffer).await, Ok(n) if n > 0) {
        buffer.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const PEER: PeerId = PeerId(3);
    const ID: ConnectionId = ConnectionId(7);
    const LONG: Duration = Duration::from_secs(60);

    /// Runs a test with both ends of a connection.
    fn with_connection<F: Future<Output = ()>>(test: impl FnOnce(TcpStream, TcpStream) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
            test(ours.unwrap(), theirs.unwrap().0).await;
        });
    }

    #[test]
    fn a_peer_that_takes_nothing_is_given_up() {
        with_connection(|ours, theirs| async move {
            let (reports, mut inbox) = mpsc::channel(8);
            let (outbox, task) = run(ours, PEER, ID, Duration::from_millis(200), reports);
            tokio::spawn(task);
            let mut queued = 0;
            // What the kernel takes is not the peer's doing, so there has to be more.
            while queued < 64 << 20 {
                outbox.send(Bytes::from(vec![0; 1 << 20]));
                queued += 1 << 20;
            }
            assert!(!outbox.room());
            let report = timeout(LONG, inbox.recv()).await.unwrap();
            assert!(matches!(report, Some(Report::SendHoldExpired(PEER, ID))), "{report:?}");
            drop(theirs);
        });
    }

    #[test]
    fn room_is_reported_once_it_was_missed() {
        with_connection(|ours, theirs| async move {
            let (reports, mut inbox) = mpsc::channel(8);
            let (outbox, task) = run(ours, PEER, ID, LONG, reports);
            tokio::spawn(task);
            while outbox.room() {
                outbox.send(Bytes::from(vec![0; 4096]));
            }
            tokio::spawn(async move { discard(&mut theirs.into_split().0).await });
            let report = timeout(LONG, inbox.recv()).await.unwrap();
            assert!(matches!(report, Some(Report::Room(PEER, ID))), "{report:?}");
            assert!(outbox.room());
        });
    }

    #[test]
    fn no_more_is_read_than_is_taken_in() {
        const BYTES: usize = 64 << 20;
        with_connection(|ours, mut theirs| async move {
            let (reports, mut inbox) = mpsc::channel(8);
            let (outbox, task) = run(ours, PEER, ID, LONG, reports);
            tokio::spawn(task);
            let writer = tokio::spawn(async move {
                theirs.write_all(&vec![1; BYTES]).await.unwrap();
                theirs
            });
            let mut received = 0;
            while received < BYTES {
                let report = timeout(LONG, inbox.recv()).await.unwrap();
                let Some(Report::Received(PEER, ID, bytes)) = report else { panic!("{report:?}") };
                if received == 0 {
                    let more = timeout(Duration::from_millis(300), inbox.recv()).await;
                    assert!(more.is_err(), "{more:?}");
                    assert!(!writer.is_finished(), "the peer waits");
                }
                received += bytes.len();
                outbox.read_on();
            }
            writer.await.unwrap();
        });
    }

    #[test]
    fn last_words_arrive_although_input_is_unread() {
        with_connection(|ours, mut theirs| async move {
            let (reports, inbox) = mpsc::channel(1);
            let (outbox, task) = run(ours, PEER, ID, LONG, reports);
            tokio::spawn(task);
            theirs.write_all(&[1; 100_000]).await.unwrap();
            outbox.send(Bytes::from_static(b"goodbye"));
            drop((outbox, inbox));
            let mut received = Vec::new();
            timeout(LONG, theirs.read_to_end(&mut received)).await.unwrap().unwrap();
            assert_eq!(received, b"goodbye");
        });
    }

    #[test]
    fn a_connection_over_loopback_has_its_own_address_as_next_hop_and_no_link() {
        with_connection(|ours, _theirs| async move {
            let place = Place::of(&ours).await.unwrap();
            assert!(place.local.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
            assert_eq!(place.next_hops.v4, Some(Ipv4Addr::LOCALHOST));
            assert_eq!(place.link, None);
        });
    }

    #[test]
    fn a_place_has_a_link_where_the_peer_is_on_a_network_of_the_interface() {
        let local = |interface, network: &str| {
            let network: IpNet = network.parse().unwrap();
            Local { interface, address: network.addr(), network: network.trunc() }
        };
        let all = [
            local(1, "127.0.0.1/8"),
            local(2, "fe80::2/64"),
            local(2, "192.0.2.1/24"),
            local(2, "2001:db8::1/64"),
            local(3, "2001:db8:3::1/64"),
            local(4, "fe80::2/64"),
        ];
        let place = |own: &str, peer: &str| Place::among(&all, own.parse().unwrap(), peer.parse().unwrap());
        let next_hops = |v6: &str, link_local: bool, over_ipv6| NextHops {
            v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
            v6: Some(v6.parse().unwrap()),
            link_local: link_local.then(|| "fe80::2".parse().unwrap()),
            over_ipv6,
        };
        let here = place("192.0.2.1:1", "192.0.2.7");
        assert_eq!(here.link.as_ref().map(|link| (link.interface, link.networks.len())), Some((2, 3)));
        assert_eq!(here.next_hops, next_hops("2001:db8::1", true, false));
        assert_eq!(place("[2001:db8::1]:1", "2001:db8::7").next_hops, next_hops("2001:db8::1", true, true));
        // Further away, nobody knows our link-local address.
        let away = place("[2001:db8::1]:1", "2001:db8:9::7");
        assert_eq!((away.link, away.next_hops), (None, next_hops("2001:db8::1", false, true)));
        let alone = place("[2001:db8:3::1]:1", "2001:db8:3::2").next_hops;
        assert_eq!((alone.v4, alone.link_local), (None, None));
        // One link-local address on two links.
        assert_eq!(place("[fe80::2%2]:1", "fe80::7").next_hops, next_hops("2001:db8::1", true, true));
        let unnumbered = place("[fe80::2%4]:1", "fe80::7");
        assert_eq!(unnumbered.link.map(|link| link.interface), Some(4));
        assert_eq!(unnumbered.next_hops, NextHops { v4: None, ..next_hops("fe80::2", true, true) });
    }
}
