//! Whether the cores of a lab were there: a hypervisor that takes one away for milliseconds overflows the queues of every device
//! under test, and a drop-free load is a figure of the machine then.
//!
//! A thread on each core sleeps for a millisecond at a time at real-time priority, which neither the generator nor a polling
//! thread of the kernel delays for long, and notes how late it wakes up: what `cyclictest` of rt-tests does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

use crate::result::Stalls;

/// Between two looks. Costs a core less than half a percent, whatever device it works for.
const PERIOD: Duration = Duration::from_millis(1);
/// Being this late is a stall. A veth pair's queue of 256 packets bears it up to 256 kpps.
const STALL: Duration = Duration::from_millis(1);
/// Above every thread of a lab, below those that the kernel cannot do without.
const PRIORITY: u8 = 50;

/// A watch over some cores, which ends with the value.
#[derive(Debug)]
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Option<Stalls>>>,
}

impl Watch {
    /// Watches `cores` from now on.
    pub(crate) fn start(cores: impl IntoIterator<Item = usize>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let threads = cores.into_iter().map(|core| {
            let over = Arc::clone(&over);
            thread::spawn(move || watch(core, &over))
        });
        Self { threads: threads.collect(), over }
    }

    /// What there was, core by core. A core that may not be watched at real-time priority is left out.
    pub(crate) fn end(mut self) -> Vec<Stalls> {
        self.over.store(true, Ordering::Relaxed);
        self.threads.drain(..).filter_map(|thread| thread.join().ok().flatten()).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn watch(core: usize, over: &AtomicBool) -> Option<Stalls> {
    if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        return None;
    }
    real_time(PRIORITY)?;
    let start = Instant::now();
    let mut tally = Tally::default();
    while !over.load(Ordering::Relaxed) {
        let asleep = Instant::now();
        thread::sleep(PERIOD);
        tally.add(asleep.elapsed().saturating_sub(PERIOD));
    }
    Some(tally.stalls(core, start.elapsed()))
}

/// Gives the calling thread a real-time priority; `None`: it may not have one.
fn real_time(priority: u8) -> Option<()> {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let priority = ThreadPriority::Crossplatform(priority.try_into().ok()?);
    set_thread_priority_and_policy(thread_native_id(), priority, policy).ok()
}

/// Times that a core was away.
#[derive(Debug, Default)]
struct Tally {
    stalls: u32,
    away: Duration,
    longest: Duration,
}

impl Tally {
    fn add(&mut self, late: Duration) {
        if late >= STALL {
            self.stalls += 1;
            self.away += late;
        }
        self.longest = self.longest.max(late);
    }

    fn stalls(&self, core: usize, watched: Duration) -> Stalls {
        let seconds = watched.as_secs_f64().max(f64::MIN_POSITIVE);
        let round = |value: f64| (value * 100.0).round() / 100.0;
        Stalls {
            core: u32::try_from(core).unwrap_or(u32::MAX),
            per_second: round(f64::from(self.stalls) / seconds),
            percent: round(self.away.as_secs_f64() / seconds * 100.0),
            longest_ms: round(self.longest.as_secs_f64() * 1e3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_by_a_millisecond_is_a_stall() {
        let mut tally = Tally::default();
        for micros in [10, 999, 1000, 7500] {
            tally.add(Duration::from_micros(micros));
        }
        let stalls = tally.stalls(3, Duration::from_secs(2));
        assert_eq!(stalls, Stalls { core: 3, per_second: 1.0, percent: 0.43, longest_ms: 7.5 });
    }

    /// A thread that nothing of lower priority gets past is to a watch what a hypervisor is. Needs root, as every lab does.
    #[test]
    fn a_core_that_is_taken_away_is_told() {
        const AWAY: Duration = Duration::from_millis(30);
        let core = core_affinity::get_core_ids().unwrap().first().unwrap().id;
        let watch = Watch::start([core]);
        let thief = thread::spawn(move || {
            assert!(core_affinity::set_for_current(core_affinity::CoreId { id: core }));
            real_time(PRIORITY + 1).unwrap();
            // The watch has begun by then, whenever its thread got to run.
            thread::sleep(Duration::from_millis(200));
            let start = Instant::now();
            while start.elapsed() < AWAY {
                std::hint::spin_loop();
            }
        });
        thief.join().unwrap();
        let stalls = watch.end();
        assert_eq!(stalls.len(), 1);
        assert_eq!(stalls[0].core as usize, core);
        assert!(stalls[0].longest_ms > 25.0 && stalls[0].per_second > 0.0 && stalls[0].percent > 0.0, "{stalls:?}");
    }
}
