//! What the process must be allowed to do, asked before anything is touched.

use rustix::thread::{CapabilitySet, capabilities};

/// The process may not do what it has to.
#[derive(Debug, thiserror::Error)]
#[error("not permitted: {} missing; run as root, or give the process these capabilities", .0.join(" and "))]
pub struct PrivilegeError(Vec<&'static str>);

/// Checks that programs can be loaded and attached and AF_XDP sockets opened.
///
/// # Errors
/// The capabilities that are missing. CAP_SYS_ADMIN stands for CAP_BPF, as it does in the kernel.
pub fn check() -> Result<(), PrivilegeError> {
    // Where the kernel does not say, it will say no by itself.
    let held = capabilities(None).map_or(CapabilitySet::all(), |sets| sets.effective);
    let missing: Vec<&'static str> = [
        ("CAP_BPF", CapabilitySet::BPF | CapabilitySet::SYS_ADMIN),
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
        ("CAP_NET_RAW", CapabilitySet::NET_RAW),
    ]
    .into_iter()
    .filter(|(_, any)| !held.intersects(*any))
    .map(|(name, _)| name)
    .collect();
    if missing.is_empty() { Ok(()) } else { Err(PrivilegeError(missing)) }
}
