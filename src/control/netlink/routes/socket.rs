//! Sockets of the kernel's routes: one that hears of changes, one for each dump.

use std::future::poll_fn;
use std::io;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket as _, SocketAddr, TokioSocket};
use rtnetlink::MulticastGroup;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use tracing::debug;

use super::wire::{Dumped, request};

/// Largest datagram. Dumps come in at most 32 KiB; a notification is one message, whose largest attribute has 64 KiB.
const DATAGRAM: usize = 160 * 1024;

/// What a socket had to say.
#[derive(Debug)]
pub(super) enum Heard<'a> {
    /// Messages.
    Datagram(&'a [u8]),
    /// Notifications were lost: there was no room for them.
    Overrun,
    /// Nothing more for now.
    Nothing,
}

/// A netlink socket that is never waited for while the runtime has other work.
pub(super) struct Netlink {
    socket: TokioSocket,
    buffer: Vec<u8>,
    /// What [`readable`](Self::readable) has received.
    waiting: Option<io::Result<usize>>,
}

impl Netlink {
    /// A socket that hears of `groups` from now on and has room for `room` bytes of what is not read yet; what the kernel
    /// counts for a route is about 1 KB. More room than net.core.rmem_max needs CAP_NET_ADMIN.
    pub(super) fn listening(groups: &[MulticastGroup], room: usize) -> io::Result<Self> {
        let netlink = Self::open()?;
        let socket = netlink.socket.socket_ref();
        if let Err(error) = set_socket_recv_buffer_size_force(socket, room) {
            debug!(%error, "the receive buffer is bounded by net.core.rmem_max");
            set_socket_recv_buffer_size(socket, room)?;
        }
        for group in groups {
            socket.add_membership(*group as u32)?;
        }
        Ok(netlink)
    }

    /// A socket that dumps are asked for on.
    pub(super) fn asking() -> io::Result<Self> {
        let netlink = Self::open()?;
        // Without it the kernel dumps every table, and the others are left out here.
        if let Err(error) = netlink.socket.socket_ref().set_netlink_get_strict_chk(true) {
            debug!(%error, "the kernel does not filter dumps");
        }
        Ok(netlink)
    }

    fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM], waiting: None })
    }

    /// Asks for a dump.
    pub(super) fn ask(&self, what: Dumped, table: u32, sequence: u32) -> io::Result<()> {
        self.socket.socket_ref().send_to(&request(what, table, sequence), &SocketAddr::new(0, 0), 0).map(drop)
    }

    /// Waits until there is something to hear.
    pub(super) async fn readable(&mut self) {
        if self.waiting.is_none() {
            let received = poll_fn(|cx| {
                let mut room = self.buffer.as_mut_slice();
                let received = self.socket.poll_recv(cx, &mut room);
                let left = room.len();
                received.map_ok(|()| DATAGRAM - left)
            });
            self.waiting = Some(received.await);
        }
    }

    /// The next datagram.
    pub(super) fn hear(&mut self) -> io::Result<Heard<'_>> {
        let received = self.waiting.take();
        match received.unwrap_or_else(|| self.socket.socket_ref().recv(&mut self.buffer.as_mut_slice(), 0)) {
            // What fills the buffer may have been cut off, and as much is lost as if there had been no room.
            Ok(DATAGRAM..) => Ok(Heard::Overrun),
            Ok(length) => Ok(Heard::Datagram(self.buffer.get(..length).unwrap_or_default())),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Heard::Overrun),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Heard::Datagram(&[])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Heard::Nothing),
            Err(error) => Err(error),
        }
    }
}
