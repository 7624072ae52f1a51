//! The pin directory: where maps and links outlive the process.
//!
//! ```text
//! PIN_DIR/v<ABI>/<map>             one file a shared map
//! PIN_DIR/v<ABI>/links/<ifindex>   one file an interface
//! ```
//! The ABI version is part of the path: a build with another layout makes maps of its own and never reads these.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::network::IfIndex;

use super::abi::types;
use super::error::Error;
use super::link::XdpLink;

/// A prepared pin directory.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    root: PathBuf,
}

const ABI_VERSION: u32 = types::limits::ABI_VERSION.0;

fn pin_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Pin { path, source }
}

fn on_bpffs(path: &Path) -> io::Result<bool> {
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    Ok(rustix::fs::statfs(path)?.f_type == BPF_FS_MAGIC)
}

/// The nearest ancestor of `path` that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"))
}

impl Pins {
    /// Makes `root` ready for pins; mounts the BPF file system at `/sys/fs/bpf` where that is where `root` lies and
    /// nothing is mounted.
    pub(super) fn prepare(root: &Path) -> Result<Self, Error> {
        let standard = Path::new("/sys/fs/bpf");
        let mounted = |path: &Path| on_bpffs(existing(path));
        let bpffs = |source| Error::Bpffs { path: root.to_owned(), source };
        if !mounted(root).map_err(bpffs)? {
            let bpffs = |source| Error::Bpffs { path: standard.to_owned(), source };
            if !root.starts_with(standard) {
                return Err(Error::Bpffs { path: root.to_owned(), source: io::ErrorKind::NotFound.into() });
            }
            rustix::mount::mount("bpf", standard, "bpf", rustix::mount::MountFlags::empty(), None)
                .map_err(|errno| bpffs(errno.into()))?;
            tracing::info!(path = %standard.display(), "mounted the BPF file system");
        }
        let pins = Self { root: root.to_owned() };
        let links = pins.links_dir();
        fs::create_dir_all(&links).map_err(pin_error(&links))?;
        Ok(pins)
    }

    /// Where the maps are.
    pub(super) fn maps_dir(&self) -> PathBuf {
        self.root.join(format!("v{ABI_VERSION}"))
    }

    fn links_dir(&self) -> PathBuf {
        self.maps_dir().join("links")
    }

    /// Where the link of an interface is.
    pub(super) fn link(&self, ifindex: IfIndex) -> PathBuf {
        self.links_dir().join(ifindex.to_string())
    }

    /// Interfaces that have a pinned link.
    pub(super) fn linked(&self) -> Result<Vec<IfIndex>, Error> {
        let dir = self.links_dir();
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).map_err(pin_error(&dir))? {
            let name = entry.map_err(pin_error(&dir))?.file_name();
            found.extend(name.to_string_lossy().parse().ok().map(IfIndex));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Removes a pin; one that is gone already is fine.
    pub(super) fn remove(path: &Path) -> Result<(), Error> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(pin_error(path)(e)),
            _ => Ok(()),
        }
    }
}

/// What [`detach_all`] took away.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Detached {
    /// Interfaces that carried the program.
    pub interfaces: Vec<IfIndex>,
    /// Maps that were unpinned.
    pub maps: usize,
}

/// Takes the program off every interface and removes all pins of this ABI version below `root`, whoever made them.
///
/// # Errors
/// [`Error::Pin`] where a file cannot be removed or a link cannot be detached.
pub fn detach_all(root: &Path) -> Result<Detached, Error> {
    let pins = Pins { root: root.to_owned() };
    let mut detached = Detached::default();
    if !pins.maps_dir().exists() {
        return Ok(detached);
    }
    for ifindex in pins.linked()? {
        let path = pins.link(ifindex);
        match XdpLink::open(&path).and_then(|link| link.detach()) {
            Ok(()) => detached.interfaces.push(ifindex),
            // The interface is gone and the link with it.
            Err(e) if e.raw_os_error() == Some(libc::ENOLINK) || e.raw_os_error() == Some(libc::ENODEV) => {}
            Err(e) => return Err(pin_error(&path)(e)),
        }
        Pins::remove(&path)?;
    }
    let dir = pins.maps_dir();
    for entry in fs::read_dir(&dir).map_err(pin_error(&dir))? {
        let path = entry.map_err(pin_error(&dir))?.path();
        if path.is_dir() {
            fs::remove_dir(&path).map_err(pin_error(&path))?;
        } else {
            Pins::remove(&path)?;
            detached.maps += 1;
        }
    }
    fs::remove_dir(&dir).map_err(pin_error(&dir))?;
    // Other ABI versions may live beside it; the root goes with the last of them.
    let _ = fs::remove_dir(root);
    Ok(detached)
}
