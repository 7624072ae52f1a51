//! One agent a pin directory.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Holds a pin directory until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct PinLock {
    _directory: File,
}

/// Why the directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// An agent runs on it.
    #[error("{0}: an agent is running on this pin directory; stop it first, or use another --pin-dir")]
    Held(PathBuf),
    /// It cannot be opened.
    #[error("{path}: {source}")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl PinLock {
    /// Takes the directory, which exists.
    ///
    /// # Errors
    /// [`LockError::Held`] where another process has it.
    pub fn take(directory: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Open { path: directory.to_owned(), source };
        let file = File::open(directory).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _directory: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Held(directory.to_owned())),
            Err(error) => Err(failed(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_once() {
        let directory = tempfile::tempdir().unwrap();
        let held = PinLock::take(directory.path()).unwrap();
        assert!(matches!(PinLock::take(directory.path()), Err(LockError::Held(_))));
        drop(held);
        PinLock::take(directory.path()).unwrap();
        assert!(matches!(PinLock::take(&directory.path().join("absent")), Err(LockError::Open { .. })));
    }
}
