//! XDP live frames: BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES (kernel 5.18), the fastest way without a driver of
//! its own.
//!
//! User space writes a chunk of frames to the slots of an array map that it shares with the program; one call sends
//! them all, page by page, each when it is due. A call costs some 20 µs (it makes a pool of pages and takes it down), so a
//! chunk is long; but not longer than the L2 cache, through which each frame goes twice. While the program waits for a frame,
//! soft interrupts are off on its core: waits in there must be short.
#![expect(unsafe_code, reason = "the slots are shared with the kernel, and BPF_PROG_TEST_RUN takes raw memory")]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr::NonNull;

use libbpf_rs::MapHandle;
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_sys::{
    BPF_XDP, XDP_FLAGS_SKB_MODE, bpf_link_create, bpf_link_create_opts, bpf_prog_test_run_opts, bpf_test_run_opts,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{Tx, TxError};
use crate::interface::Interface;
use crate::receive::redirect::features;
use crate::source::Written;

skeleton!("pktgen_live");

/// BPF_F_TEST_XDP_LIVE_FRAMES of linux/bpf.h.
const LIVE_FRAMES: u32 = 1 << 1;
/// What a page takes beside the headroom of XDP, the test run's own head and the room for `skb_shared_info`.
pub const FRAME_MAX: usize = 3_400;
/// Index of the loopback interface in a new network namespace.
const LOOPBACK: i32 = 1;
/// Bytes of a slot before the frame: `struct slot` of the program.
const HEAD: usize = 16;
/// Bytes of all slots: they stay in L2 between writing and sending.
const CHUNK_BYTES: usize = 320 << 10;
/// Slots of a chunk.
const SLOTS: std::ops::RangeInclusive<usize> = 64..=4096;
/// Frames between two looks at signals and the scheduler; the kernel takes at most 256.
const BATCH_MAX: u32 = 64;

/// Why live frames cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {
    /// The driver does not take redirected frames.
    #[error("{interface} takes no redirected frames: {hint}")]
    NoTarget {
        /// Interface.
        interface: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The kernel refused the program or its memory.
    #[error("cannot load the live-frame program: {0} (run as root or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)")]
    Load(libbpf_rs::Error),
    /// The slots cannot be shared.
    #[error("cannot map the slots of the live-frame program: {0}")]
    Map(io::Error),
    /// There is nothing to attach the program to.
    #[error(
        "cannot attach the live-frame program in a network namespace of its own: {0} (run as root or with CAP_SYS_ADMIN)"
    )]
    Anchor(io::Error),
    /// Too long for a page.
    #[error("live frames have at most {FRAME_MAX} bytes, not {0}: use --backend packet or xsk")]
    TooLong(usize),
}

/// Memory of an array map, shared with the programs that use it.
#[derive(Debug)]
struct Shared {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory belongs to the mapping, which nothing else in this process uses; it is tied to no thread.
unsafe impl Send for Shared {}

impl Shared {
    fn new(map: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let bytes = bytes.next_multiple_of(rustix::param::page_size());
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let base = unsafe { mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, map, 0) }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Self { base, bytes })
    }

    /// The bytes. Only between calls of the program: it writes to them while it runs.
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping has that many bytes, zeroed by the kernel; the program that shares it runs only inside
        // `Live::run`, which borrows `Live` and so this exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.bytes) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that was made in `new`; nobody can use it any more.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// Holds the program in the kernel's XDP dispatcher. A test run of a program that is in no use puts it there and takes it out
/// again, and waits for an RCU grace period each time: 10 ms and more for a call that takes one. Attached to something it
/// stays in; it is attached, in generic mode, to the loopback interface of a network namespace made for it, which is down.
#[derive(Debug)]
struct Anchor {
    _link: OwnedFd,
    /// The namespace lives as long as this.
    _namespace: OwnedFd,
}

impl Anchor {
    fn new(program: &OwnedFd) -> io::Result<Self> {
        // In a thread of its own: the caller stays in its namespace.
        let attached = std::thread::scope(|scope| scope.spawn(|| Self::attach(program)).join());
        attached.unwrap_or_else(|_| Err(io::Error::other("the thread that makes a namespace panicked")))
    }

    fn attach(program: &OwnedFd) -> io::Result<Self> {
        // SAFETY: only the network namespace of this thread changes, which ends with this function; no table of descriptors.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        let namespace = File::open("/proc/thread-self/ns/net")?.into();
        let options = bpf_link_create_opts {
            sz: size_of::<bpf_link_create_opts>() as _,
            flags: XDP_FLAGS_SKB_MODE,
            ..Default::default()
        };
        // SAFETY: the program is open, and the options are of the size they say.
        let link = unsafe { bpf_link_create(program.as_raw_fd(), LOOPBACK, BPF_XDP, &raw const options) };
        if link < 0 {
            return Err(io::Error::from_raw_os_error(-link));
        }
        // SAFETY: a new descriptor that nobody else has.
        Ok(Self { _link: unsafe { OwnedFd::from_raw_fd(link) }, _namespace: namespace })
    }
}

/// One program with its slots. Everything is given back on drop; the pages of frames still under way, when they arrive.
#[derive(Debug)]
pub struct Live {
    program: OwnedFd,
    _anchor: Anchor,
    slots: Shared,
    /// `next` of the program.
    next: Shared,
    stride: usize,
    count: usize,
    /// Slots with frames, and how many of them have been sent.
    pushed: usize,
    sent: usize,
    /// Longest frame of the chunk: what the kernel makes every frame of, before the program cuts it.
    longest: usize,
    template: Vec<u8>,
    batch: u32,
    timed: bool,
    /// A frame of the chunk has a due time.
    scheduled: bool,
}

impl Live {
    /// Loads the program for frames up to `longest` bytes on `interface`. `timed`: departures are told, and written into
    /// frames that have a place for them; costs a reading of the clock each. `batch`: frames that leave together.
    ///
    /// # Errors
    /// [`LiveError`].
    pub fn new(interface: &Interface, longest: usize, timed: bool, batch: u32) -> Result<Self, LiveError> {
        if features(interface).is_some_and(|features| !features.redirect_target) {
            let hint = if interface.driver().as_deref() == Some("veth") {
                "the other end of a veth pair needs an XDP program, or GRO: ethtool -K PEER gro on"
            } else {
                "its driver has no ndo_xdp_xmit, or not now: use --backend xsk or packet"
            };
            return Err(LiveError::NoTarget { interface: interface.name().to_owned(), hint });
        }
        if longest > FRAME_MAX {
            return Err(LiveError::TooLong(longest));
        }
        let room = longest.max(64).next_multiple_of(8);
        let stride = HEAD + room;
        let count = (CHUNK_BYTES / stride).clamp(*SLOTS.start(), *SLOTS.end());
        let mut object = MaybeUninit::uninit();
        let mut open = skel::PktgenLiveSkelBuilder::default().open(&mut object).map_err(LiveError::Load)?;
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        open.maps.slots.set_value_size(number(stride)).map_err(LiveError::Load)?;
        open.maps.slots.set_max_entries(number(count)).map_err(LiveError::Load)?;
        if let Some(rodata) = open.maps.rodata_data.as_mut() {
            rodata.room = number(room);
            rodata.slot_count = number(count);
            rodata.ifindex = interface.index();
            rodata.timed = timed.into();
        }
        let skel = open.load().map_err(LiveError::Load)?;
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(LiveError::Map);
        let map = |map: &libbpf_rs::Map<'_>| MapHandle::try_from(map).map_err(LiveError::Load);
        let slots = Shared::new(map(&skel.maps.slots)?.as_fd(), stride * count).map_err(LiveError::Map)?;
        let next = Shared::new(map(&skel.maps.bss)?.as_fd(), size_of::<u32>()).map_err(LiveError::Map)?;
        let program = own(skel.progs.pktgen_live.as_fd())?;
        let template = vec![0; room];
        let batch = batch.clamp(1, BATCH_MAX);
        let anchor = Anchor::new(&program).map_err(LiveError::Anchor)?;
        Ok(Self {
            program,
            _anchor: anchor,
            slots,
            next,
            stride,
            count,
            pushed: 0,
            sent: 0,
            longest: 0,
            template,
            batch,
            timed,
            scheduled: false,
        })
    }

    /// Runs the program over the slots that have not been sent yet, and notes how far it came.
    fn run(&mut self) -> io::Result<()> {
        let first = u32::try_from(self.sent).unwrap_or(u32::MAX);
        if let Some(next) = self.next.bytes().first_chunk_mut::<4>() {
            *next = first.to_ne_bytes();
        }
        let mut options = bpf_test_run_opts {
            sz: size_of::<bpf_test_run_opts>() as _,
            data_in: self.template.as_ptr().cast(),
            data_size_in: self.longest as u32,
            repeat: (self.pushed - self.sent) as i32,
            flags: LIVE_FRAMES,
            batch_size: self.batch,
            ..Default::default()
        };
        // SAFETY: the options are of the size they say and point to `template`, which is at least as long as the longest frame.
        // The program and its maps are open, and the borrow of `self` keeps everybody else from the slots.
        let code = unsafe { bpf_prog_test_run_opts(self.program.as_raw_fd(), &raw mut options) };
        let next = self.next.bytes().first_chunk::<4>().copied().unwrap_or(first.to_ne_bytes());
        self.sent = usize::try_from(u32::from_ne_bytes(next)).unwrap_or(0).min(self.pushed);
        if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
    }
}

impl Tx for Live {
    fn slot(&mut self) -> Option<&mut [u8]> {
        if self.pushed == self.count || self.sent > 0 {
            return None;
        }
        let at = self.pushed * self.stride;
        self.slots.bytes().get_mut(at + HEAD..at + self.stride)
    }

    fn push(&mut self, frame: Written, due_ns: u64) {
        let at = self.pushed * self.stride;
        let time_at = frame.late.map_or(0, |late| late.time_at);
        let csum_at = frame.late.and_then(|late| late.csum_at).unwrap_or(0);
        let len = u16::try_from(frame.len).unwrap_or(u16::MAX);
        let marks = u64::from(len) | u64::from(time_at) << 16 | u64::from(csum_at) << 32;
        let Some(head) = self.slots.bytes().get_mut(at..at + HEAD) else { return };
        let (due, rest) = head.split_at_mut(8);
        due.copy_from_slice(&due_ns.to_ne_bytes());
        rest.copy_from_slice(&marks.to_le_bytes());
        self.longest = self.longest.max(frame.len);
        self.scheduled |= due_ns > 0;
        self.pushed += 1;
    }

    fn flush(&mut self, departed: &mut dyn FnMut(u64)) -> Result<(), TxError> {
        if self.pushed == 0 {
            return Ok(());
        }
        let before = self.sent;
        let result = self.run();
        let (stride, sent) = (self.stride, self.sent);
        if self.timed || self.scheduled {
            for slot in self.slots.bytes().chunks_exact(stride).take(sent).skip(before) {
                if let Some((left, _)) = slot.split_first_chunk::<8>() {
                    departed(u64::from_ne_bytes(*left));
                }
            }
        }
        // An interrupted call leaves frames for the next one.
        if sent == self.pushed || result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted) {
            (self.pushed, self.sent, self.longest, self.scheduled) = (0, 0, 0, false);
        }
        Ok(result?)
    }

    fn settle(&mut self, _patience_ns: u64) -> u64 {
        0
    }

    fn waits(&self) -> bool {
        true
    }
}
