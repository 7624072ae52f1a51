//! XDP links: attach with an explicit mode, pin, replace the program in place, find again after a restart.
//!
//! libbpf's own wrapper neither takes attach flags nor tells which interface a pinned link belongs to.
#![expect(unsafe_code, reason = "raw bpf(2) calls")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use model::desired::AttachMode;
use model::network::IfIndex;

/// A program on an interface, alive as long as it is open or pinned.
#[derive(Debug)]
pub(super) struct XdpLink {
    fd: OwnedFd,
}

fn owned(ret: libc::c_int) -> io::Result<OwnedFd> {
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so `ret` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(ret) })
}

fn checked(ret: libc::c_int) -> io::Result<()> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

impl XdpLink {
    /// Attaches `program` to `ifindex` in exactly this mode.
    ///
    /// # Errors
    /// The kernel's: `EBUSY` where another program is attached, `EOPNOTSUPP` where the driver has no native XDP.
    pub(super) fn attach(program: BorrowedFd<'_>, ifindex: IfIndex, mode: AttachMode) -> io::Result<Self> {
        let flags = match mode {
            AttachMode::Native => libbpf_sys::XDP_FLAGS_DRV_MODE,
            AttachMode::Generic => libbpf_sys::XDP_FLAGS_SKB_MODE,
        };
        let opts = libbpf_sys::bpf_link_create_opts {
            sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
            flags,
            ..Default::default()
        };
        let target = i32::try_from(ifindex.0).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: both descriptors are valid for the call and `opts` outlives it.
        let ret =
            unsafe { libbpf_sys::bpf_link_create(program.as_raw_fd(), target, libbpf_sys::BPF_XDP, &raw const opts) };
        Ok(Self { fd: owned(ret)? })
    }

    /// Opens a pinned link.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = c_path(path)?;
        // SAFETY: `path` is a NUL-terminated string that outlives the call.
        Ok(Self { fd: owned(unsafe { libbpf_sys::bpf_obj_get(path.as_ptr()) })? })
    }

    /// Pins the link, so that it outlives the process.
    pub(super) fn pin(&self, path: &Path) -> io::Result<()> {
        let path = c_path(path)?;
        // SAFETY: the descriptor is ours and `path` is a NUL-terminated string that outlives the call.
        checked(unsafe { libbpf_sys::bpf_obj_pin(self.fd.as_raw_fd(), path.as_ptr()) })
    }

    /// Replaces the program in one step: each packet meets the old or the new one.
    pub(super) fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: both descriptors are valid for the call; a null `opts` asks for no flags.
        checked(unsafe { libbpf_sys::bpf_link_update(self.fd.as_raw_fd(), program.as_raw_fd(), std::ptr::null()) })
    }

    /// Takes the program off the interface, whoever else holds the link.
    pub(super) fn detach(&self) -> io::Result<()> {
        // SAFETY: the descriptor is ours.
        checked(unsafe { libbpf_sys::bpf_link_detach(self.fd.as_raw_fd()) })
    }

    /// The interface that the link sits on; `None` once that interface is gone.
    pub(super) fn ifindex(&self) -> io::Result<Option<IfIndex>> {
        let mut info = libbpf_sys::bpf_link_info::default();
        let mut len = size_of::<libbpf_sys::bpf_link_info>() as u32;
        // SAFETY: `info` is `len` bytes of plain data that the kernel fills at most.
        checked(unsafe {
            libbpf_sys::bpf_obj_get_info_by_fd(self.fd.as_raw_fd(), (&raw mut info).cast(), &raw mut len)
        })?;
        // SAFETY: every member of the union is plain integers; for a link of type XDP it is `xdp`.
        let ifindex = unsafe { info.__bindgen_anon_1.xdp.ifindex };
        Ok((info.type_ == libbpf_sys::BPF_LINK_TYPE_XDP && ifindex != 0).then_some(IfIndex(ifindex)))
    }
}

impl AsFd for XdpLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Instructions that the verifier walked when it admitted `program`; the measure of how close it is to the limit.
pub(super) fn verified_instructions(program: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut len = size_of::<libbpf_sys::bpf_prog_info>() as u32;
    // SAFETY: `info` is `len` zeroed bytes, so that it asks for no array, and the kernel fills at most as many.
    checked(unsafe { libbpf_sys::bpf_obj_get_info_by_fd(program.as_raw_fd(), (&raw mut info).cast(), &raw mut len) })?;
    Ok(info.verified_insns)
}
