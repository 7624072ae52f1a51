//! Waiting until no program can be looking at retired memory.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::thread::{self, JoinHandle};

use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapType};
use tables::fib::{Family, Fib, Retired};

use super::error::Error;
use super::mapped::Mapped;

/// A table whose retired memory waits for its readers.
pub(super) trait Waits {
    /// What has become superfluous since this was last asked.
    fn retired(&mut self) -> Retired;
    /// Takes back what no reader looks at any more.
    fn reclaim(&mut self, retired: Retired);
}

impl<F: Family> Waits for Fib<F, Mapped> {
    fn retired(&mut self) -> Retired {
        Fib::retired(self)
    }

    fn reclaim(&mut self, retired: Retired) {
        Fib::reclaim(self, retired);
    }
}

/// Tables that wait together, always in the same order.
pub(super) type All<'a> = Vec<&'a mut dyn Waits>;

/// Waits for the readers of several tables at once. The kernel waits for running programs when an entry of a map of maps is replaced,
/// before the call returns: that is asked of a map that nobody else knows.
#[derive(Debug)]
pub(super) struct Grace {
    outer: MapHandle,
    inner: MapHandle,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// By table.
    retired: Vec<Retired>,
    thread: JoinHandle<Result<(), libbpf_rs::Error>>,
}

impl Grace {
    pub(super) fn new() -> Result<Self, Error> {
        let failed = |source| Error::Map { map: "grace", operation: "create", source };
        let mut opts = libbpf_rs::libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as libbpf_rs::libbpf_sys::size_t,
            ..Default::default()
        };
        let inner = MapHandle::create(MapType::Array, Some("grace_inner"), 4, 4, 1, &opts).map_err(failed)?;
        opts.inner_map_fd = inner.as_fd().as_raw_fd() as u32;
        let outer = MapHandle::create(MapType::ArrayOfMaps, Some("grace"), 4, 4, 1, &opts).map_err(failed)?;
        Ok(Self { outer, inner, waiting: None })
    }

    /// True while readers are waited for.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Forgets what of these tables waits: they are in new memory.
    pub(super) fn forget(&mut self, tables: impl Fn(usize) -> bool) {
        let retired = self.waiting.iter_mut().flat_map(|waiting| waiting.retired.iter_mut().enumerate());
        retired.filter(|(table, _)| tables(*table)).for_each(|(_, retired)| *retired = Retired::default());
    }

    /// Takes memory back whose readers have gone.
    pub(super) fn poll(&mut self, all: &mut All<'_>) {
        if self.waiting.as_ref().is_some_and(|waiting| waiting.thread.is_finished()) {
            self.finish(all);
        }
    }

    /// Starts to wait for the readers of what has been retired, on a thread of its own; nothing to do while one waits.
    pub(super) fn begin(&mut self, all: &mut All<'_>) {
        self.poll(all);
        if self.waiting.is_some() {
            return;
        }
        let retired: Vec<Retired> = all.iter_mut().map(|table| table.retired()).collect();
        if retired.iter().all(Retired::is_empty) {
            return;
        }
        let maps = MapHandle::try_from(&self.outer).and_then(|outer| Ok((outer, MapHandle::try_from(&self.inner)?)));
        let thread = thread::spawn(move || {
            let (outer, inner) = maps?;
            let inner = inner.as_fd().as_raw_fd();
            outer.update(&0u32.to_ne_bytes(), &inner.to_ne_bytes(), MapFlags::ANY)
        });
        self.waiting = Some(Waiting { retired, thread });
    }

    /// Waits for everything that has been retired, and for what is retired when blocks move to where it was.
    pub(super) fn wait(&mut self, all: &mut All<'_>) {
        self.finish(all);
        self.begin(all);
        while self.waiting.is_some() {
            self.finish(all);
            self.begin(all);
        }
    }

    fn finish(&mut self, all: &mut All<'_>) {
        let Some(waiting) = self.waiting.take() else { return };
        match waiting.thread.join() {
            Ok(Ok(())) => all.iter_mut().zip(waiting.retired).for_each(|(table, retired)| table.reclaim(retired)),
            // Without the kernel's word the memory stays unused; a larger map takes over when there is none left.
            Ok(Err(error)) => tracing::error!(%error, "waiting for running programs failed"),
            Err(_) => tracing::error!("waiting for running programs failed"),
        }
    }
}
