//! The pipeline's XSKMAP: port and receive queue to AF_XDP socket.
#![expect(unsafe_code, reason = "raw BPF calls: the map belongs to the dataplane, only its descriptor is here")]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use model::tables::PortId;

use crate::dataplane::types;

/// Receive queues a port in the map.
pub(super) const QUEUES_PER_PORT: u32 = types::limits::QUEUES_PER_PORT.0;

/// Key of a port's queue.
pub(super) fn key(port: PortId, queue: u32) -> u32 {
    port.0.saturating_mul(QUEUES_PER_PORT).saturating_add(queue)
}

/// A handle of the map. The kernel takes a socket out by itself when the socket is closed.
#[derive(Debug)]
pub(super) struct XskMap(OwnedFd);

impl XskMap {
    pub(super) fn new(map: OwnedFd) -> Self {
        Self(map)
    }

    /// Frames of `key` go to `socket` from now on.
    ///
    /// # Errors
    /// What the kernel answered, `E2BIG` for a key beyond the map.
    pub(super) fn insert(&self, key: u32, socket: RawFd) -> io::Result<()> {
        let (key, value) = (&raw const key, &raw const socket);
        // SAFETY: key and value of an XSKMAP are 4 bytes each and outlive the call.
        check(unsafe {
            libbpf_sys::bpf_map_update_elem(
                self.0.as_raw_fd(),
                key.cast::<c_void>(),
                value.cast::<c_void>(),
                u64::from(libbpf_sys::BPF_ANY),
            )
        })
    }

    /// Frames of `key` fall back as their punt reason says.
    ///
    /// # Errors
    /// What the kernel answered; a key that was not there is no error.
    pub(super) fn remove(&self, key: u32) -> io::Result<()> {
        let key = &raw const key;
        // SAFETY: the key of an XSKMAP is 4 bytes and outlives the call.
        let done = check(unsafe { libbpf_sys::bpf_map_delete_elem(self.0.as_raw_fd(), key.cast::<c_void>()) });
        done.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
    }
}

/// libbpf returns the negative error number.
fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}
