//! The program that takes this run's packets out of an interface's traffic, and its XSKMAP.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};

use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{Link, MapCore as _, MapFlags, MapHandle, Xdp, XdpFlags};

use crate::interface::Interface;
use crate::umem::Receiver;

#[allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    dead_code,
    non_camel_case_types,
    non_upper_case_globals,
    clippy::all,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::undocumented_unsafe_blocks,
    reason = "generated"
)]
mod skel {
    include!(concat!(env!("OUT_DIR"), "/pktgen_rx.skel.rs"));
}

/// Why packets cannot be taken from an interface.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedirectError {
    /// The kernel refused the program.
    #[error("cannot load the receiving program: {0} (run as root or with CAP_BPF and CAP_NET_ADMIN)")]
    Load(libbpf_rs::Error),
    /// The interface has a program already.
    #[error("{interface} has an XDP program already (see `ip link show {interface}`): receive on another interface")]
    Busy {
        /// Interface.
        interface: String,
    },
    /// The driver refused the program.
    #[error("cannot attach to {interface}: {source}")]
    Attach {
        /// Interface.
        interface: String,
        /// Why.
        source: libbpf_rs::Error,
    },
    /// The socket was not accepted.
    #[error("cannot register the socket of queue {queue}: {source}")]
    Register {
        /// Queue.
        queue: u32,
        /// Why.
        source: libbpf_rs::Error,
    },
}

/// How XDP programs run on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// On the kernel's packet buffers, behind the driver.
    Generic,
}

/// The attached program; it is detached on drop, and by the kernel when the process dies.
#[derive(Debug)]
pub struct Redirect {
    _link: Link,
    sockets: MapHandle,
    mode: XdpMode,
}

impl Redirect {
    /// Loads the program for runs with this magic and attaches it: native where the driver can, else generic.
    ///
    /// # Errors
    /// [`RedirectError`].
    pub fn attach(interface: &Interface, magic: u32) -> Result<Self, RedirectError> {
        let mut object = MaybeUninit::uninit();
        let mut open = skel::PktgenRxSkelBuilder::default().open(&mut object).map_err(RedirectError::Load)?;
        if let Some(rodata) = open.maps.rodata_data.as_mut() {
            rodata.magic = magic.to_be();
        }
        let skel = open.load().map_err(RedirectError::Load)?;
        let name = interface.name().to_owned();
        let index = i32::try_from(interface.index()).unwrap_or(0);
        let link = skel.progs.pktgen_rx.attach_xdp(index).map_err(|source| {
            if matches!(source.kind(), libbpf_rs::ErrorKind::AlreadyExists)
                || io::Error::last_os_error().raw_os_error() == Some(libc::EBUSY)
            {
                RedirectError::Busy { interface: name.clone() }
            } else {
                RedirectError::Attach { interface: name.clone(), source }
            }
        })?;
        let query = Xdp::new(skel.progs.pktgen_rx.as_fd()).query(index, XdpFlags::NONE);
        let mode = match query {
            Ok(answer) if answer.skb_prog_id != 0 => XdpMode::Generic,
            _ => XdpMode::Native,
        };
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

/// Of linux/netdev.h.
const NETDEV_XDP_ACT_BASIC: u64 = 1;
const NETDEV_XDP_ACT_XSK_ZEROCOPY: u64 = 8;

/// What the driver of an interface says it can do (netdev netlink family, kernel 6.3 and newer), without attaching anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// XDP programs run in the driver.
    pub native: bool,
    /// AF_XDP works on the driver's own buffers.
    pub zero_copy: bool,
    /// A program is attached now.
    pub attached: Option<XdpMode>,
}

/// Asks the kernel; `None` where it is too old to tell.
pub fn features(interface: &Interface, any_fd: BorrowedFd<'_>) -> Option<Features> {
    let answer = Xdp::new(any_fd).query(i32::try_from(interface.index()).ok()?, XdpFlags::NONE).ok()?;
    let has = |bit: u64| answer.feature_flags & bit != 0;
    let attached = match (answer.drv_prog_id | answer.hw_prog_id, answer.skb_prog_id) {
        (0, 0) => None,
        (0, _) => Some(XdpMode::Generic),
        _ => Some(XdpMode::Native),
    };
    Some(Features { native: has(NETDEV_XDP_ACT_BASIC), zero_copy: has(NETDEV_XDP_ACT_XSK_ZEROCOPY), attached })
}
