//! Where the control thread runs. Threads inherit the affinity of the one that starts them, so workers are started with
//! the process's own.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tracing::warn;

std::thread_local! {
    /// The affinity before the thread was pinned.
    static BEFORE: std::cell::RefCell<Option<CpuSet>> = const { std::cell::RefCell::new(None) };
}

/// Pins the calling thread to a core, as far as the process may use it.
pub(super) fn pin(core: usize) {
    let before = sched_getaffinity(None).ok();
    if core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        BEFORE.with(|cell| *cell.borrow_mut() = before);
    } else {
        warn!(core, "the control thread cannot be pinned to this core; it runs on any");
    }
}

/// Runs `work` with the affinity that the thread had before it was pinned.
pub(super) fn unpinned<T>(work: impl FnOnce() -> T) -> T {
    let Some(before) = BEFORE.with(|cell| *cell.borrow()) else { return work() };
    let pinned = sched_getaffinity(None).ok();
    let _ = sched_setaffinity(None, &before);
    let result = work();
    if let Some(pinned) = pinned {
        let _ = sched_setaffinity(None, &pinned);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_started_from_a_pinned_thread_are_not_pinned() {
        std::thread::spawn(|| {
            let all = sched_getaffinity(None).unwrap();
            let core = (0..CpuSet::MAX_CPU).find(|core| all.is_set(*core)).unwrap();
            pin(core);
            assert_eq!(sched_getaffinity(None).unwrap().count(), 1);
            let inherited = unpinned(|| std::thread::spawn(|| sched_getaffinity(None).unwrap().count()));
            assert_eq!(inherited.join().unwrap(), all.count());
            assert_eq!(sched_getaffinity(None).unwrap().count(), 1, "pinned again");
        })
        .join()
        .unwrap();
    }
}
