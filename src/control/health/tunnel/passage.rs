//! One check via tunnel: a socket whose packets are known by it, and what their fate says of the outcome.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use model::desired::protocol;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, UdpSocket};

use super::sent::{Fate, Key, Sent};
use super::{DEVICE, family, routing};
use crate::control::health::probe::words;
use crate::control::health::ways::Way;

/// Any port of a host: nothing is sent there.
const DISCARD: u16 = 9;

/// The way of one check, from its socket to its end.
pub(in crate::control::health) struct Passage {
    sent: Arc<Sent>,
    mark: u32,
    backend: IpAddr,
    way: Way,
    /// What its packets are known by, once it has a socket, and its number.
    key: Option<(Key, u64)>,
}

impl Passage {
    pub(super) fn new(sent: Arc<Sent>, mark: u32, backend: IpAddr, way: Way) -> Self {
        Self { sent, mark, backend, way, key: None }
    }

    /// A socket for a connection.
    ///
    /// # Errors
    /// What is wrong, in the words that the operator gets; likewise below.
    pub(in crate::control::health) fn stream(&mut self, to: SocketAddr) -> Result<TcpSocket, String> {
        let socket = self.socket(to.ip(), Type::STREAM, Protocol::TCP)?;
        self.known_by_port(&socket, protocol::TCP)?;
        Ok(TcpSocket::from_std_stream(socket.into()))
    }

    /// A socket for datagrams.
    pub(in crate::control::health) fn datagram(&mut self, to: SocketAddr) -> Result<UdpSocket, String> {
        let socket = self.socket(to.ip(), Type::DGRAM, Protocol::UDP)?;
        self.known_by_port(&socket, protocol::UDP)?;
        UdpSocket::from_std(socket.into()).map_err(|error| words(&error))
    }

    /// A socket for an echo request with this token.
    pub(in crate::control::health) fn raw(&mut self, to: SocketAddr, token: u64) -> Result<UdpSocket, String> {
        let protocol = if to.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
        let socket = self.socket(to.ip(), Type::RAW, protocol)?;
        let number = if to.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
        self.known_by(&socket, number, |_| token)?;
        UdpSocket::from_std(std::os::fd::OwnedFd::from(socket).into()).map_err(|error| words(&error))
    }

    fn socket(&self, to: IpAddr, kind: Type, protocol: Protocol) -> Result<Socket, String> {
        let source = SocketAddr::new(self.source(to)?, 0);
        let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let open = || {
            let socket = Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol))?;
            socket.set_mark(self.mark)?;
            socket.bind(&source.into())?;
            Ok::<_, io::Error>(socket)
        };
        open().map_err(|error| format!("no socket at {}: {}", source.ip(), words(&error)))
    }

    /// The address that the kernel would speak to the backend from; where it has no route, or the VIP is of the other family, one of the
    /// interface that packets leave by.
    fn source(&self, to: IpAddr) -> Result<IpAddr, String> {
        let of_kernel = (self.backend.is_ipv4() == to.is_ipv4()).then(|| kernels_source(self.backend).ok()).flatten();
        let none = || format!("no {} address on the interface towards it, from which to ask {to}", family(to));
        of_kernel.or(self.way.source).ok_or_else(none)
    }

    fn known_by_port(&mut self, socket: &Socket, protocol: u8) -> Result<(), String> {
        self.known_by(socket, protocol, |local| local.port().into())
    }

    /// Before its first packet.
    fn known_by(&mut self, socket: &Socket, protocol: u8, tag: impl Fn(SocketAddr) -> u64) -> Result<(), String> {
        let local = socket.local_addr().map_err(|error| words(&error))?.as_socket().ok_or("no address")?;
        let key = Key { protocol, source: local.ip(), tag: tag(local) };
        self.key = Some((key, self.sent.begin(key, self.way.backend)));
        Ok(())
    }

    /// What became of its packets.
    fn fate(&self) -> Fate {
        self.key.map(|(key, _)| self.sent.fate(&key)).unwrap_or_default()
    }

    /// What nothing having come back means, after that has been said.
    pub(in crate::control::health) fn silence(&self, to: SocketAddr, said: String) -> String {
        match (self.fate(), self.way.encap) {
            (Fate { problem: Some(problem), .. }, _) => problem,
            (Fate { left: false, .. }, _) => elsewhere(),
            (_, None) => format!("{said}: the backend may not have {} on its loopback", to.ip()),
            (_, Some(encap)) => {
                format!("{said}: the backend may not take {encap} off, or not have {} on its loopback", to.ip())
            }
        }
    }

    /// What an outcome means: nothing is well of which no packet has left, whatever came from elsewhere.
    pub(in crate::control::health) fn judge(&self, outcome: Result<(), String>) -> Result<(), String> {
        match self.fate() {
            Fate { left: false, problem } => outcome.and_then(|()| Err(problem.unwrap_or_else(elsewhere))),
            Fate { left: true, .. } => outcome,
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if let Some((key, number)) = self.key {
            self.sent.end(key, number);
        }
    }
}

fn elsewhere() -> String {
    format!(
        "its packets do not come to {DEVICE}: is there a rule ahead of {}, or one that changes marks?",
        routing::PRIORITY
    )
}

/// Asks without sending anything.
fn kernels_source(to: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect((to, DISCARD))?;
    Ok(socket.local_addr()?.ip())
}
