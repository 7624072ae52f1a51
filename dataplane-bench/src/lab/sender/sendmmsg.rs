//! The sender that anyone would write first: an AF_PACKET socket, and as many frames a system call as sendmmsg takes. It
//! is what generators are held against.
#![expect(unsafe_code, reason = "sendmmsg and the link-layer address of bind take raw memory")]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use super::Sent;

/// Frames of a system call.
pub(crate) const BATCH: usize = 64;
/// System calls between two looks at the clock.
const ROUNDS: usize = 16;

/// A socket bound to one interface, and the frames that it sends over and over.
#[derive(Debug)]
pub(crate) struct Sender {
    socket: OwnedFd,
    frames: Vec<Vec<u8>>,
}

impl Sender {
    /// Opens a socket on an interface of the caller's namespace for these frames, of which each batch sends the first
    /// [`BATCH`], repeated where there are fewer.
    ///
    /// # Errors
    /// No privilege, or no such interface.
    pub(crate) fn open(ifindex: u32, frames: Vec<Vec<u8>>) -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            rustix::net::AddressFamily::PACKET,
            rustix::net::SocketType::RAW,
            rustix::net::SocketFlags::CLOEXEC,
            // Protocol 0: nothing is received.
            None,
        )?;
        // SAFETY: sockaddr_ll is plain data, for which zero is valid.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET.try_into().map_err(io::Error::other)?;
        address.sll_ifindex = ifindex.try_into().map_err(io::Error::other)?;
        let length = size_of::<libc::sockaddr_ll>().try_into().map_err(io::Error::other)?;
        // SAFETY: the address outlives the call, and `length` is its size.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        if bound != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket, frames })
    }

    /// Sends as fast as it goes for this long.
    ///
    /// # Errors
    /// What the kernel answered. A full queue is no error: those frames are tried again.
    pub(crate) fn run(&mut self, duration: Duration) -> io::Result<Sent> {
        let mut vectors: Vec<libc::iovec> = self
            .frames
            .iter()
            .cycle()
            .take(BATCH)
            .map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: mmsghdr is plain data, for which zero is valid.
                let mut message: libc::mmsghdr = unsafe { zeroed() };
                message.msg_hdr.msg_iov = vector;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        let count = libc::c_uint::try_from(messages.len()).map_err(io::Error::other)?;
        let start = Instant::now();
        let mut packets = 0u64;
        while start.elapsed() < duration {
            for _ in 0..ROUNDS {
                // SAFETY: `messages` has `count` entries, each of which points to one of `vectors`, which point to frames;
                // all of them outlive the call, and sendmmsg only reads what the vectors point to.
                let sent = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
                match u64::try_from(sent) {
                    Ok(sent) => packets += sent,
                    Err(_) => match io::Error::last_os_error() {
                        error if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                        error => return Err(error),
                    },
                }
            }
        }
        Ok(Sent { packets, seconds: start.elapsed().as_secs_f64() })
    }
}
