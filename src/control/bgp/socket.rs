//! Sockets for BGP: the options that a session's security rests on, and the only raw calls of the control thread.
//!
//! No crate in use wraps TCP MD5 (RFC 2385) or the minimum TTL (RFC 5082), so `setsockopt` is called here directly.
#![expect(unsafe_code, reason = "setsockopt of options that no crate wraps")]

use std::ffi::{c_int, c_void};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockRef, Socket, Type};

/// Network control, the class that routers put BGP into (RFC 4594 §3.1: CS6).
const TRAFFIC_CLASS: u32 = 0xc0;
/// TTL that GTSM sends with (RFC 5082 §3).
const MAX_TTL: u8 = 255;
/// Connections that the kernel completes before they are accepted.
const BACKLOG: c_int = 128;

/// How far away the other side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distance {
    /// On a connected network: an external peer without further word.
    Connected,
    /// GTSM: at most this many hops away.
    Hops(u8),
    /// Anywhere: an internal peer.
    Any,
}

/// A socket that will connect to a peer.
///
/// # Errors
/// Of the calls that make it; binding to `source` fails where this node does not have that address.
pub(super) fn connecting(
    peer: IpAddr,
    source: Option<IpAddr>,
    distance: Distance,
    password: Option<&str>,
) -> io::Result<std::net::TcpStream> {
    let socket = Socket::new(domain(peer), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if let Some(source) = source {
        // The address, not a port, is what matters: the kernel may share the port number.
        socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
    }
    if let Some(password) = password {
        set_md5(&socket, peer, password)?;
    }
    session(&socket, peer, distance)?;
    Ok(socket.into())
}

/// A listening socket, for one family only.
///
/// # Errors
/// Of the calls that make it, `bind` in the first place.
pub(super) fn listening(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(domain(address.ip()), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Index of an interface in the network namespace of a socket.
///
/// # Errors
/// There is none with this name.
pub(super) fn interface_index(socket: &impl AsFd, name: &str) -> io::Result<u32> {
    Ok(rustix::net::netdevice::name_to_index(socket, name)?)
}

/// Lets the handshake of peers with GTSM through: a SYN-ACK has the TTL of the listener.
pub(super) fn answer_gtsm(listener: &impl AsFd, ipv6: bool) -> io::Result<()> {
    set_ttl(listener, ipv6, MAX_TTL)
}

/// Options of an established or connecting session with `peer`.
pub(super) fn session(socket: &impl AsFd, peer: IpAddr, distance: Distance) -> io::Result<()> {
    let options = SockRef::from(socket);
    options.set_tcp_nodelay(true)?;
    let ipv6 = peer.is_ipv6();
    if ipv6 {
        options.set_tclass_v6(TRAFFIC_CLASS)?;
    } else {
        options.set_tos_v4(TRAFFIC_CLASS)?;
    }
    match distance {
        Distance::Connected => set_ttl(socket, ipv6, 1),
        Distance::Hops(hops) => {
            set_ttl(socket, ipv6, MAX_TTL)?;
            let minimum = c_int::from(MAX_TTL) - c_int::from(hops.max(1)) + 1;
            let (level, name) =
                if ipv6 { (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT) } else { (libc::IPPROTO_IP, libc::IP_MINTTL) };
            set(socket, level, name, &minimum)
        }
        Distance::Any => Ok(()),
    }
}

/// Sets the TCP MD5 key for packets from `peer` (RFC 2385); an empty key removes it.
///
/// # Errors
/// `InvalidInput` for a key over 80 bytes, else of `setsockopt`.
pub(super) fn set_md5(socket: &impl AsFd, peer: IpAddr, key: &str) -> io::Result<()> {
    let mut sig = Md5Sig {
        address: SockAddr::from(SocketAddr::new(peer, 0)).as_storage(),
        flags: 0,
        prefix_length: 0,
        key_length: 0,
        interface: 0,
        key: [0; libc::TCP_MD5SIG_MAXKEYLEN],
    };
    let room = sig
        .key
        .get_mut(..key.len())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a TCP MD5 password has at most 80 bytes"))?;
    room.copy_from_slice(key.as_bytes());
    sig.key_length = u16::try_from(key.len()).unwrap_or(0);
    set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &sig)
}

/// `struct tcp_md5sig` of linux/tcp.h, which `libc` lacks.
#[repr(C)]
struct Md5Sig {
    address: SockAddrStorage,
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: c_int,
    key: [u8; libc::TCP_MD5SIG_MAXKEYLEN],
}

const _: () = assert!(size_of::<Md5Sig>() == 128 + 8 + 80);

fn domain(address: IpAddr) -> Domain {
    if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 }
}

fn set_ttl(socket: &impl AsFd, ipv6: bool, ttl: u8) -> io::Result<()> {
    let options = SockRef::from(socket);
    if ipv6 { options.set_unicast_hops_v6(ttl.into()) } else { options.set_ttl_v4(ttl.into()) }
}

fn set<T>(socket: &impl AsFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is borrowed for the call, and `value` points to `length` readable bytes that live through it.
    let result = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, std::ptr::from_ref(value).cast::<c_void>(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_accepted_by_the_kernel() {
        for (peer, listen) in [("127.0.0.1", "127.0.0.1:0"), ("::1", "[::1]:0")] {
            let peer: IpAddr = peer.parse().unwrap();
            let listener = listening(listen.parse().unwrap()).unwrap();
            answer_gtsm(&listener, peer.is_ipv6()).unwrap();
            set_md5(&listener, peer, "secret").unwrap();
            set_md5(&listener, peer, "").unwrap();
            for distance in [Distance::Connected, Distance::Hops(1), Distance::Any] {
                connecting(peer, Some(peer), distance, Some("secret")).unwrap();
            }
        }
    }

    #[test]
    fn a_password_that_is_too_long_is_refused() {
        let listener = listening("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = set_md5(&listener, "127.0.0.1".parse().unwrap(), &"x".repeat(81)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        set_md5(&listener, "127.0.0.1".parse().unwrap(), &"x".repeat(80)).unwrap();
    }
}
