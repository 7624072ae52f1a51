//! The program that takes this run's packets out of an interface's traffic, its counts and its XSKMAP.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;

use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{Link, MapCore as _, MapFlags, MapHandle, ProgramMut, Xdp, XdpFlags};

use super::{Check, Options};
use crate::interface::Interface;
use crate::umem::Receiver;

skeleton!("pktgen_rx");

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
    /// The counts cannot be read.
    #[error("cannot read the counts of the receiving program: {0}")]
    Counts(libbpf_rs::Error),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// On the kernel's packet buffers, behind the driver.
    Generic,
}

/// Attaches a program: native where the driver can, else generic.
pub(crate) fn attach(program: &ProgramMut<'_>, interface: &Interface) -> Result<(Link, XdpMode), RedirectError> {
    let name = interface.name().to_owned();
    let index = i32::try_from(interface.index()).unwrap_or(0);
    let link = program.attach_xdp(index).map_err(|source| {
        if matches!(source.kind(), libbpf_rs::ErrorKind::AlreadyExists)
            || io::Error::last_os_error().raw_os_error() == Some(libc::EBUSY)
        {
            RedirectError::Busy { interface: name.clone() }
        } else {
            RedirectError::Attach { interface: name.clone(), source }
        }
    })?;
    let mode = match Xdp::new(program.as_fd()).query(index, XdpFlags::NONE) {
        Ok(answer) if answer.skb_prog_id != 0 => XdpMode::Generic,
        _ => XdpMode::Native,
    };
    Ok((link, mode))
}

/// What the program counted: packets of this run, whatever became of them afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Arrivals {
    /// Packets.
    pub packets: u64,
    /// Bytes of frames, without FCS.
    pub bytes: u64,
    /// CLOCK_MONOTONIC in nanoseconds at the first packet and at one of the last; `timed` packets came after the first.
    pub span_ns: Option<(u64, u64)>,
    /// See `span_ns`.
    pub timed: u64,
    /// Packets whose arrival could not be noted, for want of room in front of them.
    pub unnoted: u64,
}

impl Arrivals {
    /// Packets a second over the time of `span_ns`; `None` for runs too short to tell.
    pub fn rate_pps(&self) -> Option<f64> {
        let (first, last) = self.span_ns?;
        (last > first).then(|| self.timed as f64 * 1e9 / (last - first) as f64)
    }

    fn add_cpu(&mut self, cpu: skel::types::arrivals) {
        if cpu.packets == 0 {
            return;
        }
        self.packets += cpu.packets;
        self.bytes += cpu.bytes;
        self.timed += cpu.timed;
        self.unnoted += cpu.unnoted;
        let (first, last) = self.span_ns.unwrap_or((cpu.first_ns, cpu.last_ns));
        self.span_ns = Some((first.min(cpu.first_ns), last.max(cpu.last_ns)));
    }
}

/// The attached program; it is detached on drop, and by the kernel when the process dies.
#[derive(Debug)]
pub struct Redirect {
    _link: Link,
    sockets: MapHandle,
    arrivals: MapHandle,
    mode: XdpMode,
}

impl Redirect {
    /// Loads the program for runs with this magic and attaches it: native where the driver can, else generic.
    ///
    /// # Errors
    /// [`RedirectError`].
    pub fn attach(interface: &Interface, magic: u32, options: &Options) -> Result<Self, RedirectError> {
        let mut object = MaybeUninit::uninit();
        let mut open = skel::PktgenRxSkelBuilder::default().open(&mut object).map_err(RedirectError::Load)?;
        if let Some(rodata) = open.maps.rodata_data.as_mut() {
            rodata.magic = magic.to_be();
            rodata.count_only = u8::from(options.check != Check::Full);
            rodata.count_any = u8::from(options.check == Check::Any);
            rodata.note_arrival = u8::from(options.latency);
        }
        let skel = open.load().map_err(RedirectError::Load)?;
        let (link, mode) = attach(&skel.progs.pktgen_rx, interface)?;
        let sockets = MapHandle::try_from(&skel.maps.sockets).map_err(RedirectError::Load)?;
        let arrivals = MapHandle::try_from(&skel.maps.arrivals).map_err(RedirectError::Load)?;
        Ok(Self { _link: link, sockets, arrivals, mode })
    }

    /// How it runs.
    pub fn mode(&self) -> XdpMode {
        self.mode
    }

    /// What it has counted so far.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn arrivals(&self) -> Result<Arrivals, RedirectError> {
        let cpus = self.arrivals.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY).map_err(RedirectError::Counts)?;
        let mut total = Arrivals::default();
        for cpu in cpus.into_iter().flatten() {
            total.add_cpu(arrivals_of(&cpu));
        }
        Ok(total)
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

/// The map's value is six u64.
fn arrivals_of(bytes: &[u8]) -> skel::types::arrivals {
    let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
    let mut next = || words.next().unwrap_or(0);
    skel::types::arrivals {
        packets: next(),
        bytes: next(),
        first_ns: next(),
        last_ns: next(),
        timed: next(),
        unnoted: next(),
    }
}

/// Of linux/netdev.h.
const NETDEV_XDP_ACT_BASIC: u64 = 1;
const NETDEV_XDP_ACT_NDO_XMIT: u64 = 4;
const NETDEV_XDP_ACT_XSK_ZEROCOPY: u64 = 8;

/// What the driver of an interface says it can do (netdev netlink family, kernel 6.3 and newer), without attaching anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// XDP programs run in the driver.
    pub native: bool,
    /// Frames can be redirected to it; a veth says so while the other end has an XDP program or GRO.
    pub redirect_target: bool,
    /// AF_XDP works on the driver's own buffers.
    pub zero_copy: bool,
    /// A program is attached now.
    pub attached: Option<XdpMode>,
}

/// Asks the kernel; `None` where it is too old to tell.
pub fn features(interface: &Interface) -> Option<Features> {
    let answer = Xdp::new(interface.as_fd()).query(i32::try_from(interface.index()).ok()?, XdpFlags::NONE).ok()?;
    let has = |bit: u64| answer.feature_flags & bit != 0;
    let attached = match (answer.drv_prog_id | answer.hw_prog_id, answer.skb_prog_id) {
        (0, 0) => None,
        (0, _) => Some(XdpMode::Generic),
        _ => Some(XdpMode::Native),
    };
    Some(Features {
        native: has(NETDEV_XDP_ACT_BASIC),
        redirect_target: has(NETDEV_XDP_ACT_NDO_XMIT),
        zero_copy: has(NETDEV_XDP_ACT_XSK_ZEROCOPY),
        attached,
    })
}
