//! The raw calls of checks via tunnel: a TUN device is made, frames leave by an interface of their own.
#![expect(unsafe_code, reason = "an ioctl and an address that no crate in use wraps")]

use std::ffi::{c_char, c_int, c_short};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use model::network::IfIndex;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Packets, and the end of the device.
pub(super) const INTEREST: Interest = Interest::READABLE.add(Interest::ERROR);

/// Makes a TUN device of this name, which is gone with its descriptor. Each read from it is one IP packet.
///
/// # Errors
/// Of the calls that make it: `EBUSY` where there is a device of this name.
pub(super) fn open_tun(name: &str) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    // SAFETY: ifreq is plain data, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1);
    room.zip(name.bytes()).for_each(|(to, byte)| *to = byte as c_char);
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_TUN_EXCL) as c_short;
    // SAFETY: the descriptor is open, and the request is an ifreq that lives through the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    checked(result)?;
    // SAFETY: an OwnedFd is one open descriptor, and is closed when it is dropped.
    unsafe { AsyncFd::register_with_interest(device, INTEREST) }.map_err(io::Error::from)
}

/// Sends frames; receives none.
#[derive(Debug)]
pub(super) struct Frames(OwnedFd);

impl Frames {
    /// Opens the socket.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(Self(rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?))
    }

    /// Sends a frame by an interface, as it is.
    ///
    /// # Errors
    /// Of `sendto`: no such interface, one that is down, a full queue.
    pub(super) fn send(&self, ifindex: IfIndex, frame: &[u8]) -> io::Result<()> {
        // SAFETY: sockaddr_ll is plain data, for which zero is valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
        address.sll_ifindex = c_int::try_from(ifindex.0).map_err(io::Error::other)?;
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open, the frame is readable for its length, and the address is a sockaddr_ll of that length.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                std::ptr::from_ref(&address).cast(),
                length,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn checked(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
