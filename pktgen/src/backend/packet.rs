//! AF_PACKET TX ring (PACKET_TX_RING, TPACKET_V2) without qdisc: works on every interface, jumbo frames included.
//!
//! The ring is shared memory in blocks; a slot's first word says whose it is. A slot is written only while it is ours
//! (TP_STATUS_AVAILABLE) and belongs to the kernel from the moment it says TP_STATUS_SEND_REQUEST until it has been sent.
#![expect(unsafe_code, reason = "the ring is shared with the kernel, and its set-up takes raw memory")]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::{AddressFamily, SendFlags, SocketType, send, socket};

use super::{Tx, TxError};
use crate::clock::now_ns;
use crate::interface::Interface;
use crate::source::Written;

/// Slots of a ring: one ring in flight beside the burst that is being written.
const SLOTS: usize = 1024;
/// Frames given to the kernel at once.
const BURST: usize = 256;
/// A block is contiguous memory: not so long that the kernel has none.
const BLOCK_BYTES: usize = 64 << 10;
/// From the start of a slot to its frame: struct tpacket2_hdr, aligned (TPACKET2_HDRLEN - sizeof(struct sockaddr_ll)).
const HEAD: usize = 32;
/// Offset of `tp_len` in struct tpacket2_hdr; the status is at 0.
const LEN_AT: usize = 4;
const TPACKET_ALIGNMENT: usize = 16;

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up an AF_PACKET TX ring on {interface}, {what}: {source} ({hint})")]
pub struct PacketError {
    interface: String,
    what: &'static str,
    source: io::Error,
    hint: &'static str,
}

/// A socket with its ring.
#[derive(Debug)]
pub struct PacketRing {
    socket: OwnedFd,
    base: NonNull<u8>,
    bytes: usize,
    /// Bytes of a block and of a slot, and slots of a block.
    block: usize,
    slot: usize,
    per_block: usize,
    count: usize,
    /// Slot that is written next; those before it up to `pushed` are marked as the kernel's.
    turn: usize,
    pushed: usize,
}

// SAFETY: the mapping belongs to this ring alone and is tied to no thread.
unsafe impl Send for PacketRing {}

impl PacketRing {
    /// A ring for frames up to `longest` bytes on `interface` of the caller's network namespace.
    ///
    /// # Errors
    /// [`PacketError`].
    pub fn new(interface: &Interface, longest: usize) -> Result<Self, PacketError> {
        let failed = |what, source: io::Error| PacketError {
            interface: interface.name().to_owned(),
            what,
            hint: match source.raw_os_error() {
                Some(libc::EPERM) => "run as root or with CAP_NET_RAW",
                Some(libc::ENOMEM | libc::ENOBUFS) => "there is not enough contiguous memory",
                Some(libc::ENODEV | libc::ENXIO) => "see `ip link`",
                _ => "see packet(7)",
            },
            source,
        };
        // Protocol 0: nothing is received.
        let socket = socket(AddressFamily::PACKET, SocketType::RAW, None).map_err(|e| failed("socket", e.into()))?;
        let fd = socket.as_raw_fd();
        option(fd, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V2 as c_int))
            .map_err(|e| failed("version", e))?;
        option(fd, libc::PACKET_QDISC_BYPASS, &1).map_err(|e| failed("qdisc bypass", e))?;
        // What the kernel finds malformed is skipped, not waited for.
        option(fd, libc::PACKET_LOSS, &1).map_err(|e| failed("loss", e))?;
        let slot = (HEAD + longest).next_multiple_of(TPACKET_ALIGNMENT);
        let block = slot.next_power_of_two().max(BLOCK_BYTES);
        let per_block = block / slot;
        let blocks = SLOTS.div_ceil(per_block);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let request = libc::tpacket_req {
            tp_block_size: number(block),
            tp_block_nr: number(blocks),
            tp_frame_size: number(slot),
            tp_frame_nr: number(per_block * blocks),
        };
        option(fd, libc::PACKET_TX_RING, &request).map_err(|e| failed("ring", e))?;
        let bytes = block * blocks;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping of the socket's ring, at an address that the kernel chooses.
        let base = unsafe { mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, socket.as_fd(), 0) };
        let base = base.map_err(|e| failed("mapping", e.into()))?;
        let base = NonNull::new(base.cast()).ok_or_else(|| failed("mapping", io::ErrorKind::OutOfMemory.into()))?;
        let ring = Self { socket, base, bytes, block, slot, per_block, count: per_block * blocks, turn: 0, pushed: 0 };
        bind(&ring.socket, interface.index()).map_err(|e| failed("bind", e))?;
        Ok(ring)
    }

    fn at(&self, index: usize) -> usize {
        index / self.per_block * self.block + index % self.per_block * self.slot
    }

    fn status(&self, index: usize) -> &AtomicU32 {
        // SAFETY: a slot lies in the mapping, is aligned to 16 bytes, and its first word is only ever used atomically.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(self.at(index)).cast()) }
    }

    /// Slots that the kernel has and has not sent.
    fn in_kernel(&self) -> usize {
        let busy = |index: &usize| {
            let status = self.status(*index).load(Ordering::Acquire);
            status & (libc::TP_STATUS_SEND_REQUEST | libc::TP_STATUS_SENDING) != 0
        };
        (0..self.count).filter(busy).count()
    }

    fn kick(&self) -> Result<(), TxError> {
        match send(&self.socket, &[], SendFlags::DONTWAIT) {
            // No memory or a full device queue: the slots stay ours to send, and the next call goes on with them.
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

impl Tx for PacketRing {
    fn slot(&mut self) -> Option<&mut [u8]> {
        if self.pushed >= BURST {
            return None;
        }
        let status = self.status(self.turn).load(Ordering::Acquire);
        if status & (libc::TP_STATUS_SEND_REQUEST | libc::TP_STATUS_SENDING) != 0 {
            return None;
        }
        let (at, room) = (self.at(self.turn) + HEAD, self.slot - HEAD);
        // SAFETY: the slot lies in the mapping, the kernel does not touch it while its status says that it is available, and
        // the borrow of `self` keeps everybody else from it.
        Some(unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(at), room) })
    }

    fn push(&mut self, frame: Written, _due_ns: u64) {
        let len = u32::try_from(frame.len).unwrap_or(0);
        // SAFETY: as for the status; the kernel reads the word after it has seen the status.
        let place = unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(self.at(self.turn) + LEN_AT).cast()) };
        place.store(len, Ordering::Relaxed);
        self.status(self.turn).store(libc::TP_STATUS_SEND_REQUEST, Ordering::Release);
        self.turn = (self.turn + 1) % self.count;
        self.pushed += 1;
    }

    fn flush(&mut self, _departed: &mut dyn FnMut(u64)) -> Result<(), TxError> {
        self.pushed = 0;
        self.kick()
    }

    fn settle(&mut self, patience_ns: u64) -> u64 {
        let deadline = now_ns().saturating_add(patience_ns);
        loop {
            let left = self.in_kernel();
            if left == 0 || now_ns() >= deadline || self.kick().is_err() {
                return u64::try_from(left).unwrap_or(u64::MAX);
            }
            std::thread::yield_now();
        }
    }

    fn waits(&self) -> bool {
        false
    }
}

impl Drop for PacketRing {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that was made in `new`; nobody can use it any more.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

fn option<T>(fd: c_int, name: c_int, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: the value is plain data of the option's type and length.
    let code = unsafe { libc::setsockopt(fd, libc::SOL_PACKET, name, std::ptr::from_ref(value).cast(), len) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn bind(socket: &OwnedFd, index: u32) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain data, for which zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
    address.sll_ifindex = i32::try_from(index).unwrap_or(0);
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
    // SAFETY: the address is a sockaddr_ll of that length.
    let code = unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), len) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
