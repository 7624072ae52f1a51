//! An array map as memory: plain loads and stores instead of system calls.
#![expect(unsafe_code, reason = "the memory is the kernel's map")]

use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use tables::fib::Words;

/// The words of a value of a `BPF_F_MMAPABLE` array map, shared with the programs in the kernel.
#[derive(Debug)]
pub(super) struct Mapped {
    base: NonNull<AtomicU32>,
    words: usize,
}

// SAFETY: the memory is reached by atomic operations alone, and stays mapped while the value lives, on whatever thread.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps one value of a map whose values have `words` words: a whole number of pages, where there are several.
    ///
    /// # Errors
    /// What the kernel says: the map is not mmapable, or smaller.
    pub(super) fn new(map: impl AsFd, words: usize, index: usize) -> io::Result<Self> {
        let bytes = words.checked_mul(size_of::<AtomicU32>()).ok_or(io::ErrorKind::InvalidInput)?;
        let offset = bytes.checked_mul(index).ok_or(io::ErrorKind::InvalidInput)? as u64;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of this process.
        let base = unsafe {
            mmap(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, map.as_fd(), offset)
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { base, words })
    }

    /// The same memory as words of 64 bits. A caller uses one of the two.
    pub(super) fn long_words(&self) -> &[AtomicU64] {
        // SAFETY: as for `words`, half as many; a page is aligned to eight bytes, too.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().cast(), self.words / 2) }
    }
}

impl Words for Mapped {
    fn words(&self) -> &[AtomicU32] {
        // SAFETY: the mapping has so many words, is aligned to a page, lives as long as `self`, and is only ever used
        // atomically; any bits are an AtomicU32.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.words) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and no reference into it outlives `self`. An error would
        // leave the memory mapped, which is harmless.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.words * size_of::<AtomicU32>()) };
    }
}
