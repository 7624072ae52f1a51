//! The frames of one worker and the AF_XDP sockets that share them.
//!
//! A [`Frame`] is the right to touch one chunk of the UMEM. It cannot be copied: it is moved into [`Socket::fill`] or
//! [`Socket::tx`], when the kernel owns the chunk, and comes back from [`Socket::rx`] or [`Socket::complete`]. At any time
//!
//! ```text
//! free + held by the worker + in the kernel = frames of the UMEM
//! ```
//!
//! which debug builds check ([`Umem::check`]). Sockets are only ever added to a UMEM: libxdp leaves the descriptor of the
//! first one open until the UMEM goes, the kernel gives frames of a closed socket back at a time that nobody is told,
//! and all sockets of a UMEM are zero-copy or none is. So whoever wants to take one away makes a new UMEM.
#![expect(unsafe_code, reason = "the memory is shared with the kernel")]

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use xsk_rs::config::{
    BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, SocketConfigBuilder, UmemConfig,
};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue};

use super::meta::META_LEN;

/// Frames taken from or given to a ring at once.
pub(super) const BURST: usize = 64;
/// A page: the most that XDP takes without multi-buffer, so no frame that the program sees is too long.
const FRAME_BYTES: u32 = 4096;
/// Size of a fill ring, which is kept full, and of a receive ring: the default rate limit lets a burst of 1000 through.
const FILL_RING: u32 = 1024;
/// Size of a transmit ring and of its completion ring.
const TX_RING: u32 = 256;
/// Frames that one socket can tie up in the kernel.
pub(super) const FRAMES_PER_SOCKET: u32 = FILL_RING + TX_RING;

/// The right to touch one frame.
#[derive(Debug)]
#[must_use = "a frame that is not given back is lost to the UMEM"]
pub(super) struct Frame {
    desc: FrameDesc,
    umem: u64,
}

/// Frames taken from a receive ring at once.
pub(super) type Burst = Vec<Frame>;

/// A piece of memory cut into frames.
#[derive(Debug)]
pub(super) struct Umem {
    inner: xsk_rs::Umem,
    /// Tells the frames of two UMEMs apart.
    id: u64,
    /// Exposed address of the first byte, and the length.
    base: usize,
    bytes: usize,
    /// Descriptor of each frame as it was made: packet data behind the full headroom.
    homes: Box<[FrameDesc]>,
    /// Indices into `homes`.
    free: Vec<usize>,
    in_kernel: usize,
}

impl Umem {
    /// Maps memory for `frames` frames and registers it with the kernel.
    ///
    /// # Errors
    /// What `mmap` or the registration answered; `ENOBUFS` where RLIMIT_MEMLOCK is too small.
    pub(super) fn new(frames: NonZeroU32) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let config = umem_config()?;
        let (inner, homes) = xsk_rs::Umem::new(config, frames, false).map_err(io_error)?;
        let first = homes.first().copied().ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: `first` belongs to this UMEM, which no socket has yet, so the kernel does not write to it.
        let data = unsafe { inner.data(&first) };
        // The address was given to the kernel when the memory was registered: its provenance is exposed for good.
        let base = data.contents().as_ptr().expose_provenance() - first.addr();
        Ok(Self {
            inner,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            base,
            bytes: homes.len() * FRAME_BYTES as usize,
            free: (0..homes.len()).rev().collect(),
            homes: homes.into_boxed_slice(),
            in_kernel: 0,
        })
    }

    /// Frames of the UMEM.
    pub(super) fn len(&self) -> usize {
        self.homes.len()
    }

    /// Frames ready for use.
    pub(super) fn free_frames(&self) -> usize {
        self.free.len()
    }

    /// Frames that the kernel owns.
    pub(super) fn in_kernel(&self) -> usize {
        self.in_kernel
    }

    /// Takes a free frame, empty.
    pub(super) fn alloc(&mut self) -> Option<Frame> {
        let desc = self.free.pop().and_then(|index| self.homes.get(index)).copied()?;
        Some(Frame { desc, umem: self.id })
    }

    /// Gives a frame back.
    pub(super) fn free(&mut self, frame: Frame) {
        self.assert_own(&frame, frame.desc.addr(), 0);
        self.release(&frame.desc);
    }

    /// The packet.
    pub(super) fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        self.range(frame, frame.desc.addr(), frame.desc.lengths().data())
    }

    /// What the program wrote in front of the packet. Meaningful only for a frame that came from [`Socket::rx`].
    pub(super) fn meta<'a>(&'a self, frame: &'a Frame) -> Option<&'a [u8; META_LEN]> {
        // Headroom of 256 bytes lies in front of every packet; a program that used it up has left no room for metadata.
        if frame.desc.addr() % FRAME_BYTES as usize <= META_LEN {
            return None;
        }
        self.range(frame, frame.desc.addr() - META_LEN, META_LEN).first_chunk()
    }

    /// The packet, to be changed in place.
    pub(super) fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let len = frame.desc.lengths().data();
        self.range_mut(frame, len)
    }

    /// The packet and the room behind it, up to the end of the frame. What is written there counts after
    /// [`Umem::resize`].
    pub(super) fn room_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let capacity = capacity(frame);
        self.range_mut(frame, capacity)
    }

    /// Sets the length of the packet; bytes that it gains hold whatever was there before. False where they do not fit.
    #[must_use]
    pub(super) fn resize(&self, frame: &mut Frame, len: usize) -> bool {
        if len > capacity(frame) {
            return false;
        }
        self.assert_own(frame, frame.desc.addr(), len);
        // SAFETY: the frame is of this UMEM, not owned by the kernel, and borrowed exclusively.
        unsafe { self.inner.data_mut(&mut frame.desc) }.cursor().set_pos(len);
        true
    }

    /// Makes `bytes` the packet. False where they do not fit.
    #[must_use]
    pub(super) fn write(&self, frame: &mut Frame, bytes: &[u8]) -> bool {
        let fits = self.resize(frame, bytes.len());
        if fits {
            self.bytes_mut(frame).copy_from_slice(bytes);
        }
        fits
    }

    fn range_mut<'a>(&'a self, frame: &'a mut Frame, len: usize) -> &'a mut [u8] {
        let at = frame.desc.addr();
        self.assert_own(frame, at, len);
        let start = std::ptr::with_exposed_provenance_mut::<u8>(self.base + at);
        // SAFETY: `at..at + len` lies in the region, which lives as long as `self`. `frame` is the only right to its chunk
        // and is borrowed exclusively; the kernel owns the chunk only after the frame has been moved into a ring.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    fn range<'a>(&'a self, frame: &'a Frame, at: usize, len: usize) -> &'a [u8] {
        self.assert_own(frame, at, len);
        let start = std::ptr::with_exposed_provenance::<u8>(self.base + at);
        // SAFETY: as in `range_mut`, with a shared borrow of the frame.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// A frame of another UMEM, or a range outside of this one, would be another's memory.
    fn assert_own(&self, frame: &Frame, at: usize, len: usize) {
        assert!(
            frame.umem == self.id && at + len <= self.bytes,
            "frame at {at} of UMEM {} used in {}",
            frame.umem,
            self.id
        );
    }

    /// Panics in debug builds where frames were lost or doubled; `held` is what the worker knows to have.
    pub(super) fn check(&self, held: usize) {
        debug_assert_eq!(
            self.free.len() + self.in_kernel + held,
            self.homes.len(),
            "frames lost: {} free, {} in the kernel, {held} held",
            self.free.len(),
            self.in_kernel
        );
    }

    fn release(&mut self, desc: &FrameDesc) {
        self.free.push(desc.addr() / FRAME_BYTES as usize);
        debug_assert!(self.free.len() <= self.homes.len(), "a frame was given back twice");
    }
}

/// Bytes from the start of the packet to the end of its frame.
fn capacity(frame: &Frame) -> usize {
    FRAME_BYTES as usize - frame.desc.addr() % FRAME_BYTES as usize
}

/// An AF_XDP socket on one receive queue of one interface.
#[derive(Debug)]
pub(super) struct Socket {
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    comp: CompQueue,
    /// Frames in the fill ring or being received into.
    filled: u32,
    /// Frames on the transmit ring or being sent.
    sending: u32,
    scratch: Box<[FrameDesc; BURST]>,
}

/// What the kernel has counted for a socket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KernelCounts {
    pub(super) rx_dropped: u64,
    pub(super) rx_ring_full: u64,
    pub(super) fill_empty: u64,
}

impl Socket {
    /// Binds a socket to queue `queue` of the interface called `name` in the caller's network namespace and fills its fill
    /// ring. No XDP program is loaded or attached. `zero_copy` says what is asked for by the first socket of a
    /// UMEM; the kernel holds all further ones to it.
    ///
    /// # Errors
    /// What the kernel answered; `EOPNOTSUPP` or `EINVAL` where the driver has no zero-copy.
    pub(super) fn bind(umem: &mut Umem, name: &str, queue: u32, zero_copy: bool) -> io::Result<Self> {
        let interface: Interface = name.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
        let config = socket_config(zero_copy)?;
        // SAFETY: libxdp loads no program (INHIBIT_PROG_LOAD), which is all that the contract asks for.
        let (tx, rx, rings) =
            unsafe { xsk_rs::Socket::new(config, &umem.inner, &interface, queue) }.map_err(io_error)?;
        // No rings of its own: this UMEM already has a socket on the queue.
        let (fill, comp) = rings.ok_or_else(|| io::Error::from_raw_os_error(libc::EBUSY))?;
        let scratch = Box::new([FrameDesc::default(); BURST]);
        let mut socket = Self { rx, tx, fill, comp, filled: 0, sending: 0, scratch };
        socket.fill(umem);
        Ok(socket)
    }

    /// Descriptor for the XSKMAP.
    pub(super) fn raw_fd(&self) -> RawFd {
        self.rx.fd().as_raw_fd()
    }

    /// Takes up to [`BURST`] received frames; appended to `burst`.
    pub(super) fn rx(&mut self, umem: &mut Umem, burst: &mut Burst) -> usize {
        // SAFETY: the descriptors are overwritten by the ring; every frame on it was moved into `fill` of this UMEM.
        let count = unsafe { self.rx.consume(self.scratch.as_mut_slice()) };
        self.filled = self.filled.saturating_sub(count as u32);
        umem.in_kernel -= count;
        burst.extend(self.scratch.iter().take(count).map(|desc| Frame { desc: *desc, umem: umem.id }));
        count
    }

    /// Moves free frames into the fill ring until it is full. The ring is never left empty: a driver that finds no frame
    /// drops, and some leak buffers even where nothing is received.
    pub(super) fn fill(&mut self, umem: &mut Umem) {
        loop {
            let want = (FILL_RING.saturating_sub(self.filled) as usize).min(BURST).min(umem.free.len());
            if want == 0 {
                break;
            }
            let Some(slots) = self.scratch.get_mut(..want) else { break };
            let start = umem.free.len() - want;
            for (slot, index) in slots.iter_mut().zip(umem.free.drain(start..)) {
                if let Some(home) = umem.homes.get(index) {
                    *slot = *home;
                }
            }
            // SAFETY: the frames were free, are no longer on the free list and belong to this UMEM.
            let done = unsafe { self.fill.produce(slots) };
            umem.in_kernel += done;
            self.filled += done as u32;
            if done < want {
                for desc in slots.iter().skip(done) {
                    umem.free.push(desc.addr() / FRAME_BYTES as usize);
                }
                break;
            }
        }
    }

    /// Puts a frame on the transmit ring; [`Socket::kick`] sends it off. A full ring gives it back.
    ///
    /// # Errors
    /// The frame itself.
    pub(super) fn tx(&mut self, umem: &mut Umem, frame: Frame) -> Result<(), Frame> {
        umem.assert_own(&frame, frame.desc.addr(), frame.desc.lengths().data());
        // SAFETY: the frame is of this UMEM and is moved in: nobody touches it until the completion ring returns it.
        if unsafe { self.tx.produce_one(&frame.desc) } == 0 {
            return Err(frame);
        }
        umem.in_kernel += 1;
        self.sending += 1;
        Ok(())
    }

    /// Takes sent frames back to the free list.
    pub(super) fn complete(&mut self, umem: &mut Umem) {
        while self.sending > 0 {
            // SAFETY: the descriptors are overwritten by the ring; every frame on it was moved into `tx` of this UMEM.
            let count = unsafe { self.comp.consume(self.scratch.as_mut_slice()) };
            self.sending = self.sending.saturating_sub(count as u32);
            umem.in_kernel -= count;
            for desc in self.scratch.iter().take(count) {
                umem.release(desc);
            }
            if count < BURST {
                break;
            }
        }
    }

    /// Tells the kernel of frames on the transmit and fill rings where it asks to be told. Copy mode sends a bounded
    /// batch a call (32 frames by default), so this goes on while the ring gets shorter. An error (the interface is down or
    /// gone) leaves frames on the ring, which shows once it is full.
    pub(super) fn kick(&mut self) {
        if self.fill.needs_wakeup() {
            let _ = self.fill.wakeup(self.rx.fd_mut(), 0);
        }
        let mut unsent = self.unsent();
        while unsent > 0 && self.tx.needs_wakeup() && self.tx.wakeup().is_ok() {
            let left = self.unsent();
            if left >= unsent {
                break;
            }
            unsent = left;
        }
    }

    /// Frames on the transmit ring that the kernel has not taken yet.
    pub(super) fn unsent(&mut self) -> u32 {
        if self.sending == 0 { 0 } else { TX_RING.saturating_sub(self.tx.nb_free_exact()) }
    }

    /// What the kernel has counted.
    pub(super) fn kernel_counts(&self) -> KernelCounts {
        self.rx.fd().xdp_statistics().map_or_else(
            |_| KernelCounts::default(),
            |counts| KernelCounts {
                rx_dropped: counts.rx_dropped(),
                rx_ring_full: counts.rx_ring_full(),
                fill_empty: counts.rx_fill_ring_empty_descs(),
            },
        )
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the queues keep the socket, and with it the descriptor, open as long as `self` lives.
        unsafe { BorrowedFd::borrow_raw(self.raw_fd()) }
    }
}

fn umem_config() -> io::Result<UmemConfig> {
    UmemConfig::builder()
        .frame_size(FrameSize::new(FRAME_BYTES).map_err(io::Error::other)?)
        .fill_queue_size(ring(FILL_RING)?)
        .comp_queue_size(ring(TX_RING)?)
        .build()
        .map_err(io::Error::other)
}

fn socket_config(zero_copy: bool) -> io::Result<SocketConfig> {
    let copy = if zero_copy { BindFlags::XDP_ZEROCOPY } else { BindFlags::XDP_COPY };
    Ok(SocketConfigBuilder::new()
        .rx_queue_size(ring(FILL_RING)?)
        .tx_queue_size(ring(TX_RING)?)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(copy | BindFlags::XDP_USE_NEED_WAKEUP)
        .build())
}

fn ring(size: u32) -> io::Result<QueueSize> {
    QueueSize::new(size).map_err(io::Error::other)
}

/// xsk-rs hides the error number in the source of its own error.
fn io_error(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    let number = error.source().and_then(|s| s.downcast_ref::<io::Error>()).and_then(io::Error::raw_os_error);
    number.map_or_else(|| io::Error::other(error), io::Error::from_raw_os_error)
}
