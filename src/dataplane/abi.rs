//! The types of `bpf/abi.h` as the object's BTF tells them, and their bytes.
//!
//! The only definition of a layout is `abi.h`; a type here is generated, and only `encode` builds one.
#![expect(unsafe_code, reason = "plain-old-data structs of the object are viewed as bytes")]

use std::mem::MaybeUninit;

#[expect(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::undocumented_unsafe_blocks,
    reason = "generated"
)]
mod skel {
    include!(concat!(env!("OUT_DIR"), "/xdp_uplink.skel.rs"));
}

pub use skel::types;

/// A type that is shared with the programs byte for byte.
///
/// # Safety
/// Every byte of the type belongs to an integer field: no padding, no pointer, every bit pattern valid. `abi.h` keeps
/// padding explicit and asserts each size.
pub(super) unsafe trait Abi: Copy + Default {}

macro_rules! abi {
    ($($name:ident),* $(,)?) => {
        $(
            // SAFETY: integers and arrays of them only, padding explicit in abi.h and asserted there.
            unsafe impl Abi for types::$name {}
        )*
    };
}
abi!(
    adjacency,
    backend,
    clamp,
    filter_op,
    group,
    hash_bucket,
    next_hop,
    pkt_count,
    port,
    port_counters,
    punt_meta,
    source_range,
    trace,
    tunnel_peer,
    tunnel_peer_key,
    vip,
    vip_address,
    vlan_port_key,
    xdp_md,
);
// SAFETY: an integer.
unsafe impl Abi for u32 {}
// SAFETY: an integer.
unsafe impl Abi for u64 {}

/// The bytes of `value`, as the kernel sees them.
pub(super) fn bytes_of<T: Abi>(value: &T) -> &[u8] {
    // SAFETY: `Abi` promises that all bytes are initialised, and the slice borrows `value`.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// A `T` from exactly its bytes; `None` where the length differs.
pub(super) fn from_bytes<T: Abi>(bytes: &[u8]) -> Option<T> {
    if bytes.len() != size_of::<T>() {
        return None;
    }
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the source has size_of::<T>() bytes, the destination is a T of our own, and every bit pattern is a T.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), value.as_mut_ptr().cast::<u8>(), size_of::<T>());
        Some(value.assume_init())
    }
}
