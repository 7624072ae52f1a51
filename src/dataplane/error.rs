//! What can go wrong between the tables and the kernel.

use std::io;
use std::path::PathBuf;

use model::desired::AttachMode;

/// Failure of a dataplane operation; the tables and programs in force stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pin directory is not on a BPF file system and none could be mounted.
    #[error("{path}: no BPF file system, and mounting one failed: {source} (as root: mount -t bpf bpf {path})")]
    Bpffs {
        /// Where it was looked for.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A file operation in the pin directory failed.
    #[error("{path}: {source}")]
    Pin {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The object could not be opened, or the kernel refused a map or the program.
    #[error("loading the XDP program: {source} (run as root or with CAP_BPF and CAP_NET_ADMIN)")]
    Load {
        /// Cause.
        source: libbpf_rs::Error,
    },
    /// The object lacks a map that the process needs: program and process are of different builds.
    #[error("the XDP object has no map '{0}'")]
    NoMap(&'static str),
    /// A map operation failed.
    #[error("map {map}: {operation}: {source}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What was tried.
        operation: &'static str,
        /// Cause.
        source: libbpf_rs::Error,
    },
    /// A table has more entries than its map.
    #[error("{table}: {wanted} entries wanted, the limit is {limit}")]
    Full {
        /// Name of the map.
        table: &'static str,
        /// Entries wanted.
        wanted: usize,
        /// Its limit.
        limit: usize,
    },
    /// The program could not be attached.
    #[error("interface {interface}: attaching in {} mode: {source}{}", mode_name(*mode), attach_hint(*mode, source))]
    Attach {
        /// Interface name.
        interface: String,
        /// Mode asked for.
        mode: AttachMode,
        /// Cause.
        source: io::Error,
    },
    /// The program could not be run on a packet.
    #[error("running the program on a packet of {len} bytes: {source}")]
    TestRun {
        /// Length of the frame.
        len: usize,
        /// Cause.
        source: libbpf_rs::Error,
    },
    /// Asked of a dataplane that has no generation in force yet.
    #[error("no generation is in force yet")]
    NotApplied,
    /// The kernel gave bytes of another layout than the program's.
    #[error("map {0}: entry of unexpected size")]
    Layout(&'static str),
}

fn mode_name(mode: AttachMode) -> &'static str {
    match mode {
        AttachMode::Native => "native",
        AttachMode::Generic => "generic",
    }
}

fn attach_hint(mode: AttachMode, source: &io::Error) -> &'static str {
    match (mode, source.raw_os_error()) {
        (_, Some(libc::EBUSY)) => " (another XDP program is attached: ip link show, then ip link set dev ... xdp off)",
        (AttachMode::Native, Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
            " (the driver has no native XDP, or not with this MTU or these offloads; mode: generic is slower but always there)"
        }
        _ => "",
    }
}
