//! The program that takes packets to the client prefix out of an interface's traffic, so that the kernel, which knows nothing
//! of the clients, neither answers nor forwards them.

use std::mem::MaybeUninit;
use std::net::IpAddr;

use ipnet::IpNet;
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{Link, MapCore as _, MapFlags, MapHandle};

use crate::interface::Interface;
use crate::receive::redirect::{self, RedirectError, XdpMode};
use crate::umem::Receiver;

skeleton!("pktgen_connect");

/// The attached program; it is detached on drop, and by the kernel when the process dies.
#[derive(Debug)]
pub struct Filter {
    _link: Link,
    sockets: MapHandle,
    mode: XdpMode,
}

impl Filter {
    /// Loads the program for packets of `protocol` (and ICMP errors) to `clients` and attaches it: native where the driver can,
    /// else generic.
    ///
    /// # Errors
    /// [`RedirectError`].
    pub fn attach(interface: &Interface, clients: IpNet, protocol: u8) -> Result<Self, RedirectError> {
        let mut object = MaybeUninit::uninit();
        let mut open = skel::PktgenConnectSkelBuilder::default().open(&mut object).map_err(RedirectError::Load)?;
        if let Some(rodata) = open.maps.rodata_data.as_mut() {
            rodata.v6 = clients.addr().is_ipv6().into();
            rodata.protocol = protocol;
            rodata.net = words(clients.network());
            rodata.mask = words(clients.netmask());
        }
        let skel = open.load().map_err(RedirectError::Load)?;
        let (link, mode) = redirect::attach(&skel.progs.pktgen_connect, interface)?;
        let sockets = MapHandle::try_from(&skel.maps.sockets).map_err(RedirectError::Load)?;
        Ok(Self { _link: link, sockets, mode })
    }

    /// How it runs.
    pub fn mode(&self) -> XdpMode {
        self.mode
    }

    /// Sends the packets of `queue` to this socket.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn register(&self, queue: u32, receiver: &Receiver) -> Result<(), RedirectError> {
        self.sockets
            .update(&queue.to_ne_bytes(), &receiver.raw_fd().to_ne_bytes(), MapFlags::ANY)
            .map_err(|source| RedirectError::Register { queue, source })
    }
}

/// An address as the words that lie in a packet; the first for IPv4.
fn words(address: IpAddr) -> [u32; 4] {
    let mut octets = [0; 16];
    match address {
        IpAddr::V4(address) => octets.iter_mut().zip(address.octets()).for_each(|(place, byte)| *place = byte),
        IpAddr::V6(address) => octets = address.octets(),
    }
    let (words, _) = octets.as_chunks::<4>();
    let mut words = words.iter().map(|word| u32::from_ne_bytes(*word));
    std::array::from_fn(|_| words.next().unwrap_or(0))
}
