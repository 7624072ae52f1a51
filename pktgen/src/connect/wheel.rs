//! A hashed timing wheel (Varghese and Lauck, SOSP 1987, scheme 6): a timer costs one push to set and nothing to change.
//!
//! Timers are not cancelled: whoever they wake up looks whether its time has come, and sets another. So a connection
//! whose deadline moves with every packet has one timer in the wheel, not one a packet.

/// Length of a tick.
const TICK_NS: u64 = 1_000_000;
/// Ticks of a round; later timers stay for further rounds.
const SLOTS: usize = 4096;

/// A timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// Whose it is.
    pub key: u32,
    /// When it fires, rounded up.
    pub tick: u64,
}

/// The timers of one thread.
#[derive(Debug)]
pub struct Wheel {
    slots: Vec<Vec<Timer>>,
    /// The next tick that has not fired.
    next: u64,
}

/// The tick that a time falls into: a timer never fires before its time.
pub fn tick(ns: u64) -> u64 {
    ns.div_ceil(TICK_NS)
}

impl Wheel {
    /// Without timers, at `now_ns`.
    pub fn new(now_ns: u64) -> Self {
        Self { slots: vec![Vec::new(); SLOTS], next: tick(now_ns) }
    }

    /// Sets a timer; one for a time that has passed fires at the next call. Returns its tick.
    pub fn set(&mut self, key: u32, at_ns: u64) -> u64 {
        let tick = tick(at_ns).max(self.next);
        if let Some(slot) = self.slots.get_mut(slot(tick)) {
            slot.push(Timer { key, tick });
        }
        tick
    }

    /// Appends every timer whose time has come to `fired`.
    pub fn fire(&mut self, now_ns: u64, fired: &mut Vec<Timer>) {
        // The tick that has begun, not the one that a time in it is rounded up to.
        let now = now_ns / TICK_NS;
        if now < self.next {
            return;
        }
        // After a pause of more than a round every slot is looked at once.
        let rounds = (now - self.next + 1).min(SLOTS as u64);
        for tick in self.next..self.next + rounds {
            if let Some(slot) = self.slots.get_mut(slot(tick)) {
                slot.retain(|timer| {
                    let due = timer.tick <= now;
                    if due {
                        fired.push(*timer);
                    }
                    !due
                });
            }
        }
        self.next = now + 1;
    }
}

fn slot(tick: u64) -> usize {
    usize::try_from(tick % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    proptest! {
        /// Every timer fires once, not before its time, and at the first look after it.
        #[test]
        fn timers_fire_once(delays in proptest::collection::vec(0..20_000u64, 1..100), steps in proptest::collection::vec(1..6000u64, 1..50)) {
            let mut wheel = Wheel::new(0);
            let due: Vec<_> = delays.iter().zip(0..).map(|(delay, key)| wheel.set(key, delay * MS - delay.min(&1) * 500_000)).collect();
            let (mut now, mut last, mut seen) = (0, None, vec![false; due.len()]);
            for step in steps {
                let mut fired = Vec::new();
                wheel.fire(now * MS, &mut fired);
                for timer in fired {
                    prop_assert!(!std::mem::replace(&mut seen[timer.key as usize], true));
                    prop_assert!(timer.tick <= now && last.is_none_or(|last| timer.tick > last));
                }
                for (key, tick) in due.iter().enumerate() {
                    prop_assert_eq!(seen[key], *tick <= now);
                }
                last = Some(now);
                now += step;
            }
        }
    }

    #[test]
    fn a_time_in_the_past_fires_next() {
        let mut wheel = Wheel::new(10 * MS);
        let mut fired = Vec::new();
        wheel.fire(10 * MS, &mut fired);
        assert_eq!(wheel.set(7, 3 * MS), 11);
        wheel.fire(11 * MS, &mut fired);
        assert_eq!(fired, [Timer { key: 7, tick: 11 }]);
    }
}
