//! A first SIGINT or SIGTERM ends a run between two trials, so that its labs are taken down; a second one ends it at once.

use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use tokio::signal::unix::{SignalKind, signal};

/// Whether the run shall end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    asked: Arc<AtomicBool>,
}

impl Stop {
    /// Takes the signals from now on.
    ///
    /// # Errors
    /// The kernel does not allow it.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let stop = Self::default();
        let asked = Arc::clone(&stop.asked);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("signals")?;
        let (mut interrupt, mut terminate) = {
            let _guard = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        std::thread::spawn(move || {
            runtime.block_on(async move {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if asked.swap(true, Ordering::Relaxed) {
                        exit(130);
                    }
                    eprintln!("ending after this trial, to leave nothing behind");
                }
            });
        });
        Ok(stop)
    }

    /// # Errors
    /// The run shall end.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.asked.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }
}
