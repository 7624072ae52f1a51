//! AF_XDP sockets and the frames that they share with the kernel: the only file that touches this memory.
//!
//! A [`Frame`] is the right to touch one chunk. It cannot be copied: it is moved into [`Sender::send`] or
//! [`Receiver::give_back`], when the kernel owns the chunk, and comes back from [`Sender::alloc`] (after completion) or
//! [`Receiver::receive`]. The two halves of a socket have frames of their own and may live on two threads; a
//! frame of one half is refused by the other.
#![expect(unsafe_code, reason = "the memory is shared with the kernel")]

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

/// Frames taken from or given to a ring at once.
pub const BURST: usize = 64;
/// Entries of each ring, and frames of each half.
const RING: u32 = 2048;
/// The kernel takes a queue back from a closed socket a moment later.
const RELEASE_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes in front of a packet that belong to XDP programs.
const HEADROOM: usize = 256;
/// A chunk is at most a page.
const CHUNK_MAX: usize = 4096;
/// Chunks of a packet: enough for 9,000 bytes of payload and every header.
const PARTS_MAX: usize = 3;
/// Of linux/if_xdp.h.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
/// Of a descriptor: the packet goes on in the next one.
const XDP_PKT_CONTD: u32 = 1;

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Frames of this length do not fit a page.
    #[error("frames of {0} bytes do not fit into UMEM chunks of a page")]
    TooLong(usize),
    /// xsk-rs refused a ring or chunk size.
    #[error("cannot set up UMEM: {0} (it needs CAP_NET_RAW, and locked memory: see ulimit -l)")]
    Setup(String),
    /// The kernel refused to bind.
    #[error("cannot bind an AF_XDP socket to queue {queue} of {interface}: {source} ({hint})")]
    Bind {
        /// Interface.
        interface: String,
        /// Queue.
        queue: u32,
        /// What the kernel answered.
        source: io::Error,
        /// What to do about it.
        hint: &'static str,
    },
}

/// The right to touch one chunk of a UMEM.
#[derive(Debug)]
#[must_use = "a frame that is not given back is lost to its socket"]
pub struct Frame {
    desc: FrameDesc,
    owner: u64,
}

impl Frame {
    /// Bytes of the packet in it.
    pub fn len(&self) -> usize {
        self.desc.lengths().data()
    }

    /// True where the packet goes on in the next frame of its ring.
    pub fn goes_on(&self) -> bool {
        self.desc.has_more_frames()
    }

    /// True before anything has been written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the kernel counted on a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct KernelCounts {
    /// Packets dropped, for want of memory or because they did not fit.
    pub rx_dropped: u64,
    /// Packets dropped because the RX ring was full: the receiver was too slow.
    pub rx_ring_full: u64,
    /// Times that the fill ring was empty.
    pub fill_ring_empty: u64,
    /// Descriptors that the kernel would not send.
    pub tx_invalid: u64,
}

impl std::ops::AddAssign for KernelCounts {
    fn add_assign(&mut self, other: Self) {
        self.rx_dropped += other.rx_dropped;
        self.rx_ring_full += other.rx_ring_full;
        self.fill_ring_empty += other.fill_ring_empty;
        self.tx_invalid += other.tx_invalid;
    }
}

/// Both halves of one socket.
#[derive(Debug)]
pub struct Opened {
    /// Sends.
    pub sender: Sender,
    /// Receives; keep it alive while sending, its fill ring too.
    pub receiver: Receiver,
    /// Whether the driver works on the frames themselves.
    pub zero_copy: bool,
}

/// Binds a socket to `queue` of the interface in the caller's network namespace: zero-copy where the driver can, else copy.
/// No XDP program is loaded. `longest` is the longest packet in bytes.
///
/// # Errors
/// [`OpenError`].
pub fn open(interface: &str, queue: u32, longest: usize) -> Result<Opened, OpenError> {
    open_deep(interface, queue, longest, RING)
}

/// The same, with rings and frames for `depth` packets on the receiving side: what comes while the receiver is not scheduled
/// must fit in there. It is rounded up to a power of two.
///
/// # Errors
/// [`OpenError`].
pub fn open_deep(interface: &str, queue: u32, longest: usize, depth: u32) -> Result<Opened, OpenError> {
    let deadline = Instant::now() + RELEASE_PATIENCE;
    loop {
        let opened = match bind(interface, queue, longest, depth, BindFlags::XDP_ZEROCOPY) {
            Err(OpenError::Bind { source, .. }) if refuses_zero_copy(&source) => {
                bind(interface, queue, longest, depth, BindFlags::XDP_COPY)
            }
            other => other,
        };
        match opened {
            Err(OpenError::Bind { source, .. })
                if source.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
            {
                std::thread::sleep(RELEASE_PATIENCE / 100);
            }
            other => return other,
        }
    }
}

/// `EINVAL` may also mean that there is no such queue; the second try answers that again.
fn refuses_zero_copy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL))
}

fn bind(interface: &str, queue: u32, longest: usize, depth: u32, mode: BindFlags) -> Result<Opened, OpenError> {
    let setup = |error: &dyn std::error::Error| {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        OpenError::Setup(format!("{error}{cause}"))
    };
    let chunk = [2048u32, 4096].into_iter().find(|chunk| longest + HEADROOM <= *chunk as usize);
    let parts = longest.div_ceil(CHUNK_MAX - HEADROOM);
    if parts > PARTS_MAX {
        return Err(OpenError::TooLong(longest));
    }
    let several = if parts > 1 { BindFlags::XDP_USE_SG } else { BindFlags::empty() };
    let chunk = chunk.unwrap_or(CHUNK_MAX as u32);
    let ring = QueueSize::new(RING).map_err(|e| setup(&e))?;
    let depth = depth.checked_next_power_of_two().unwrap_or(RING);
    let deep = QueueSize::new(depth).map_err(|e| setup(&e))?;
    let umem_config = UmemConfig::builder()
        .frame_size(FrameSize::new(chunk).map_err(|e| setup(&e))?)
        .fill_queue_size(deep)
        .comp_queue_size(ring)
        .build()
        .map_err(|e| setup(&e))?;
    let count = NonZeroU32::new(RING + depth).unwrap_or(NonZeroU32::MIN);
    let (umem, mut homes) = Umem::new(umem_config, count, false).map_err(|e| setup(&e))?;
    let config = SocketConfig::builder()
        .rx_queue_size(deep)
        .tx_queue_size(ring)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(mode | several | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let refused = |source: io::Error| OpenError::Bind {
        interface: interface.to_owned(),
        queue,
        hint: match source.raw_os_error() {
            Some(libc::EBUSY) => "another process has a socket on this queue: stop it",
            Some(libc::EPERM) => "run as root or with CAP_NET_RAW and CAP_NET_ADMIN",
            Some(libc::ENODEV) => "no such interface in this network namespace, or it is down",
            Some(libc::EINVAL) => "the interface has no such queue",
            Some(libc::ENOBUFS | libc::ENOMEM) => "raise the limit of locked memory, ulimit -l",
            _ => "is the interface up, and does its driver support AF_XDP?",
        },
        source,
    };
    let name: Interface = interface.parse().map_err(|_| refused(io::ErrorKind::InvalidInput.into()))?;
    // SAFETY: the UMEM was made above and has no socket yet, so nothing else uses it or its rings.
    let bound = unsafe { Socket::new(config, &umem, &name, queue) };
    let (tx, rx, rings) = bound.map_err(|error| {
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
        let code = source.and_then(io::Error::raw_os_error);
        refused(code.map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error))
    })?;
    raise_budget(tx.fd().as_raw_fd());
    let (fill, comp) = rings.ok_or_else(|| refused(io::Error::from_raw_os_error(libc::EBUSY)))?;
    let received = homes.split_off(usize::try_from(RING).unwrap_or(0).min(homes.len()));
    let owner = next_owner();
    let free = homes.into_iter().map(|desc| Frame { desc, owner }).collect();
    let sender = Sender { umem: umem.clone(), tx, comp, free, owner, scratch: Vec::with_capacity(BURST), in_kernel: 0 };
    let owner = next_owner();
    let mut receiver = Receiver {
        umem,
        rx,
        fill,
        owner,
        taken: [FrameDesc::default(); BURST],
        given: Vec::with_capacity(received.len()),
    };
    let mut frames: Vec<Frame> = received.into_iter().map(|desc| Frame { desc, owner }).collect();
    receiver.give_back(&mut frames);
    Ok(Opened { sender, receiver, zero_copy: mode.contains(BindFlags::XDP_ZEROCOPY) })
}

/// In copy mode one call sends 32 frames unless told otherwise (kernel 6.18 and newer; an older one sends what it always did).
fn raise_budget(socket: RawFd) {
    let budget = RING;
    let len = libc::socklen_t::try_from(size_of_val(&budget)).unwrap_or(0);
    // SAFETY: the option takes an integer of that length.
    unsafe { libc::setsockopt(socket, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, (&raw const budget).cast(), len) };
}

fn next_owner() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The sending half of a socket.
#[derive(Debug)]
pub struct Sender {
    umem: Umem,
    tx: TxQueue,
    comp: CompQueue,
    free: Vec<Frame>,
    owner: u64,
    scratch: Vec<FrameDesc>,
    in_kernel: usize,
}

impl Sender {
    /// Takes a free frame; `None` until the kernel completes some. The rings have room for every frame of this half, so
    /// a frame in hand can always be sent: there is nothing to take back.
    pub fn alloc(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    /// Frames that can be taken.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Gives back a frame that was not sent.
    pub fn free(&mut self, frame: Frame) {
        if frame.owner == self.owner {
            self.free.push(frame);
        }
    }

    /// The bytes of a frame's chunk, to be written; empty where it is another socket's.
    pub fn room<'f>(&'f self, frame: &'f mut Frame) -> &'f mut [u8] {
        if frame.owner != self.owner {
            return &mut [];
        }
        // SAFETY: the frame is of this half of the UMEM, not owned by the kernel (a `Frame` exists only then), and borrowed
        // exclusively.
        let mut data = unsafe { self.umem.data_mut(&mut frame.desc) };
        data.cursor().set_pos(usize::MAX);
        let bytes = data.contents_mut();
        let (at, len) = (bytes.as_mut_ptr(), bytes.len());
        // SAFETY: the same bytes, for as long as the frame is borrowed and the UMEM exists.
        unsafe { std::slice::from_raw_parts_mut(at, len) }
    }

    /// The packet in `frame` has `len` bytes; `more`: it goes on in the frame that is submitted after it.
    pub fn set_len(&self, frame: &mut Frame, len: usize, more: bool) {
        if frame.owner == self.owner {
            // SAFETY: as in `room`; only the length of the descriptor is changed.
            unsafe { self.umem.data_mut(&mut frame.desc) }.cursor().set_pos(len);
            frame.desc.set_options(if more { XDP_PKT_CONTD } else { 0 });
        }
    }

    /// Moves frames to the TX ring; the kernel sends them with the next [`kick`](Self::kick) at the latest.
    pub fn submit(&mut self, frames: &mut Vec<Frame>) {
        frames.retain(|frame| frame.owner == self.owner);
        self.scratch.clear();
        self.scratch.extend(frames.drain(..).map(|frame| frame.desc));
        // SAFETY: each descriptor was the only right to its chunk and has just been moved out of its `Frame`.
        let sent = unsafe { self.tx.produce(&self.scratch) };
        // The ring has room for all of them; were it otherwise, they go back.
        let owner = self.owner;
        let all = if sent == 0 { 0 } else { self.scratch.len() };
        self.free.extend(self.scratch.drain(..).skip(all).map(|desc| Frame { desc, owner }));
        self.in_kernel += sent;
    }

    /// Wakes the kernel up where it asks for it (in copy mode it always does) until it has taken the ring or cannot go on.
    ///
    /// # Errors
    /// What the kernel answered; frames that it has not taken stay on the ring for the next time.
    pub fn kick(&mut self) -> io::Result<()> {
        let mut left = usize::MAX;
        while self.in_kernel > 0 && self.tx.needs_wakeup() {
            // SAFETY: the socket is open as long as its TX ring, which `self` holds.
            let socket = unsafe { BorrowedFd::borrow_raw(self.tx.fd().as_raw_fd()) };
            let answer = send(socket, &[], SendFlags::DONTWAIT);
            self.reclaim();
            let queued = self.queued();
            match answer {
                // The budget of a call was used up: it goes on as long as it gets on.
                Ok(_) | Err(Errno::AGAIN) if queued > 0 && queued < left => left = queued,
                Ok(_) | Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.reclaim();
        Ok(())
    }

    /// Frames on the TX ring that the kernel has not looked at.
    fn queued(&mut self) -> usize {
        usize::try_from(RING - self.tx.nb_free_exact().min(RING)).unwrap_or(0)
    }

    /// Takes back what the kernel has completed.
    pub fn reclaim(&mut self) {
        let mut done = [FrameDesc::default(); BURST];
        loop {
            // SAFETY: the completion ring returns chunks that this half put on the TX ring, and the kernel is done with them.
            let count = unsafe { self.comp.consume(&mut done) };
            if count == 0 {
                return;
            }
            let owner = self.owner;
            self.free.extend(done.into_iter().take(count).map(|desc| Frame { desc, owner }));
            self.in_kernel = self.in_kernel.saturating_sub(count);
        }
    }

    /// Frames that the kernel has not completed.
    pub fn in_kernel(&self) -> usize {
        self.in_kernel
    }
}

/// The receiving half of a socket.
#[derive(Debug)]
pub struct Receiver {
    umem: Umem,
    rx: RxQueue,
    fill: FillQueue,
    owner: u64,
    taken: [FrameDesc; BURST],
    given: Vec<FrameDesc>,
}

impl Receiver {
    /// Appends up to [`BURST`] received frames to `frames`; returns how many.
    pub fn receive(&mut self, frames: &mut Vec<Frame>) -> usize {
        // SAFETY: the RX ring returns chunks that this half put on the fill ring, and the kernel is done with them.
        let count = unsafe { self.rx.consume(&mut self.taken) };
        let owner = self.owner;
        frames.extend(self.taken.iter().take(count).map(|desc| Frame { desc: *desc, owner }));
        count
    }

    /// Lets `read` see the packet.
    pub fn read<T>(&self, frame: &Frame, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        if frame.owner != self.owner {
            return None;
        }
        // SAFETY: the frame is of this half of the UMEM and not owned by the kernel; nobody writes while it is borrowed.
        let data = unsafe { self.umem.data(&frame.desc) };
        Some(read(data.contents()))
    }

    /// Moves frames to the fill ring for the kernel to receive into.
    pub fn give_back(&mut self, frames: &mut Vec<Frame>) {
        frames.retain(|frame| frame.owner == self.owner);
        // The ring holds all frames of this half, so there is always room.
        self.given.clear();
        self.given.extend(frames.drain(..).map(|frame| frame.desc));
        // SAFETY: each descriptor was the only right to its chunk and has just been moved out of its `Frame`.
        unsafe { self.fill.produce(&self.given) };
    }

    /// Wakes the kernel up where it waits for the fill ring.
    ///
    /// # Errors
    /// What `poll` answered.
    pub fn kick(&mut self) -> io::Result<()> {
        if self.fill.needs_wakeup() {
            self.fill.wakeup(self.rx.fd_mut(), 0)?;
        }
        Ok(())
    }

    /// What the kernel has counted on this socket, both halves.
    ///
    /// # Errors
    /// What `getsockopt` answered.
    pub fn kernel_counts(&self) -> io::Result<KernelCounts> {
        let counts = self.rx.fd().xdp_statistics()?;
        Ok(KernelCounts {
            rx_dropped: counts.rx_dropped(),
            rx_ring_full: counts.rx_ring_full(),
            fill_ring_empty: counts.rx_fill_ring_empty_descs(),
            tx_invalid: counts.tx_invalid_descs(),
        })
    }

    /// Descriptor for the XSKMAP.
    pub fn raw_fd(&self) -> RawFd {
        self.rx.fd().as_raw_fd()
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as its RX ring, which `self` holds.
        unsafe { BorrowedFd::borrow_raw(self.raw_fd()) }
    }
}
