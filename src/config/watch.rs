//! Ticks when the configuration directory may have changed.
//!
//! Editors write a new file and rename it over the old one, and Kubernetes swaps a symbolic link beside the files, so it is the
//! directory that is watched, never a file. Reads are no changes. A burst of events becomes one tick, [`QUIET`] after the last
//! of them but not later than [`LONGEST`] after the first.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::UnboundedSender;

use super::Error;

/// Silence that ends a burst.
const QUIET: Duration = Duration::from_millis(200);
/// Longest time that a burst without silence holds a tick back.
const LONGEST: Duration = Duration::from_secs(2);

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    /// Dropping it ends the channel that the thread reads, and with it the thread.
    _inotify: RecommendedWatcher,
}

/// Watches the directory `dir`, or the directory of the file `dir`, and sends a tick for each burst of changes in it.
///
/// # Errors
/// [`Error::Watch`] when it cannot be watched: it does not exist, or inotify's limits are reached.
pub fn watch(dir: &Path, ticks: UnboundedSender<()>) -> Result<Watcher, Error> {
    let failed = |source| Error::Watch { path: dir.to_owned(), source };
    let (events, received) = channel();
    let mut inotify = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error, an overflow of the queue above all, may hide a change.
        if event.as_ref().map_or(true, |event| is_change(&event.kind)) {
            // Only the thread below receives; it is gone when nobody wants ticks.
            let _ = events.send(());
        }
    })
    .map_err(failed)?;
    let directory = match dir.parent() {
        Some(parent) if dir.is_file() => parent,
        _ => dir,
    };
    inotify.watch(directory, RecursiveMode::NonRecursive).map_err(failed)?;
    thread::Builder::new()
        .name("config-watch".to_owned())
        .spawn(move || debounce(&received, &ticks))
        .map_err(|error| failed(notify::Error::io(error)))?;
    Ok(Watcher { _inotify: inotify })
}

fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// Turns bursts into ticks until either side has gone.
fn debounce(events: &Receiver<()>, ticks: &UnboundedSender<()>) {
    while events.recv().is_ok() {
        let deadline = Instant::now() + LONGEST;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match events.recv_timeout(QUIET.min(left)) {
                Ok(()) if !left.is_zero() => {}
                Ok(()) | Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        if ticks.send(()).is_err() {
            return;
        }
    }
}
