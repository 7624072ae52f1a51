//! When which target is asked, and what is known of each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::{Progress, Standing, Target};

/// First checks of targets that nothing is known of begin within this time: what waits for them is not used meanwhile.
const START_SPREAD: Duration = Duration::from_millis(100);

/// One target for as long as it is scheduled; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckId(u64);

/// What is known of a target and of its last check.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What is known.
    pub progress: Progress,
    /// Since when.
    pub since: Instant,
    /// When the last check ended, how long it took, and what came of it.
    pub last: Option<(Instant, Duration, Result<(), String>)>,
    /// Checks that succeeded.
    pub succeeded: u64,
    /// Checks that failed.
    pub failed: u64,
}

#[derive(Debug)]
struct Entry {
    target: Target,
    report: Report,
    /// When it is due; while it is being checked, when it was.
    due: Instant,
    checked_now: bool,
    /// It has a place of its own in the interval.
    spread: bool,
}

/// Spreads checks over time. Two targets with the same interval are asked at different times from the start, and drift apart further by
/// the jitter; one target is never asked twice at a time.
#[derive(Debug)]
pub struct Schedule {
    ids: BTreeMap<Target, CheckId>,
    entries: BTreeMap<CheckId, Entry>,
    due: BTreeSet<(Instant, CheckId)>,
    next_id: u64,
    rng: Rng,
}

impl Schedule {
    /// Nothing to check yet. `seed` decides about the spreading alone.
    pub fn new(seed: u64) -> Self {
        Self {
            ids: BTreeMap::new(),
            entries: BTreeMap::new(),
            due: BTreeSet::new(),
            next_id: 0,
            rng: Rng::with_seed(seed),
        }
    }

    /// Checks these from now on and no others. With each new one comes whether it is in use: it stays so until checks have failed, and is
    /// not asked before others. What is known of those that stay, stays.
    pub fn follow(&mut self, wanted: &BTreeMap<Target, bool>, now: Instant) {
        let gone: Vec<Target> = self.ids.keys().filter(|target| !wanted.contains_key(*target)).cloned().collect();
        for id in gone.iter().filter_map(|target| self.ids.remove(target)) {
            if let Some(entry) = self.entries.remove(&id) {
                self.due.remove(&(entry.due, id));
            }
        }
        for (target, in_use) in wanted {
            if !self.ids.contains_key(target) {
                self.add(target.clone(), *in_use, now);
            }
        }
    }

    fn add(&mut self, target: Target, in_use: bool, now: Instant) {
        let id = CheckId(self.next_id);
        self.next_id += 1;
        let interval = target.check.interval;
        let spread = if in_use { interval } else { interval.min(START_SPREAD) };
        let due = now + spread.mul_f64(self.rng.f64());
        let progress = if in_use { Progress::in_use() } else { Progress::starting() };
        let report = Report { progress, since: now, last: None, succeeded: 0, failed: 0 };
        self.ids.insert(target.clone(), id);
        self.due.insert((due, id));
        self.entries.insert(id, Entry { target, report, due, checked_now: false, spread: in_use });
    }

    /// How many targets there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True where there is nothing to check.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// When the next check is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The check that has been due for longest, if any is, with when it was due. It is under way then, until [`finished`](Self::finished).
    pub fn take_due(&mut self, now: Instant) -> Option<(CheckId, Target, Instant)> {
        let (due, id) = *self.due.first().filter(|(due, _)| *due <= now)?;
        self.due.remove(&(due, id));
        let entry = self.entries.get_mut(&id)?;
        entry.checked_now = true;
        Some((id, entry.target.clone(), due))
    }

    /// Takes in what came of a check that began `took` ago. The target with what is known of it now, and whether it stands differently;
    /// `None` where it is no longer wanted.
    pub fn finished(
        &mut self,
        id: CheckId,
        took: Duration,
        outcome: Result<(), String>,
        now: Instant,
    ) -> Option<(&Target, &Report, bool)> {
        let entry = self.entries.get_mut(&id).filter(|entry| entry.checked_now)?;
        let check = &entry.target.check;
        let report = &mut entry.report;
        match outcome {
            Ok(()) => report.succeeded += 1,
            Err(_) => report.failed += 1,
        }
        let changed = report.progress.learn(check, outcome.as_ref().copied().map_err(String::as_str));
        if changed {
            report.since = now;
        }
        report.last = Some((now, took, outcome));
        // Targets that began together are spread over the interval once they have been judged.
        let share = if entry.spread {
            let jitter = f64::from(check.jitter_percent) / 100.0;
            1.0 + jitter * (2.0 * self.rng.f64() - 1.0)
        } else {
            1.0 - self.rng.f64()
        };
        // From the beginning of this check, so that slow answers do not slow the rhythm; what is late is not made up for.
        let wait = check.interval.mul_f64(share).saturating_sub(took);
        entry.checked_now = false;
        entry.spread = true;
        entry.due = now + wait;
        self.due.insert((entry.due, id));
        Some((&entry.target, &entry.report, changed))
    }

    /// What is known of every target.
    pub fn standings(&self) -> impl Iterator<Item = (&Target, &Standing)> {
        self.entries.values().map(|entry| (&entry.target, entry.report.progress.standing()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use super::super::{HealthCheck, Probe, Via};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn target(n: u32) -> Target {
        let check = HealthCheck {
            probe: Probe::Tcp,
            via: Via::Direct,
            port: None,
            interval: 2 * SECOND,
            timeout: SECOND,
            rise: 2,
            fall: 3,
            jitter_percent: 10,
        };
        Target { address: IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)), vip: None, port: 80, check: Arc::new(check) }
    }

    fn wanted(targets: u32, in_use: bool) -> BTreeMap<Target, bool> {
        (0..targets).map(|n| (target(n), in_use)).collect()
    }

    /// Runs a schedule on a clock of its own: who was asked when. Every answer takes `took`.
    fn run(schedule: &mut Schedule, from: Instant, time: Duration, took: Duration) -> Vec<(Duration, Target)> {
        let mut asked = Vec::new();
        let mut under_way: BTreeSet<(Instant, CheckId)> = BTreeSet::new();
        loop {
            let ends = under_way.first().map(|(end, _)| *end);
            let Some(now) = [ends, schedule.next_due()].into_iter().flatten().min() else { return asked };
            if now > from + time {
                return asked;
            }
            if ends == Some(now) {
                let (end, id) = under_way.pop_first().unwrap();
                schedule.finished(id, took, Ok(()), end);
            } else {
                let (id, target, due) = schedule.take_due(now).unwrap();
                assert_eq!(due, now, "nothing is late");
                asked.push((now - from, target));
                under_way.insert((now + took, id));
            }
        }
    }

    #[test]
    fn checks_are_spread_and_never_in_step() {
        let now = Instant::now();
        for in_use in [true, false] {
            let mut schedule = Schedule::new(1);
            schedule.follow(&wanted(1000, in_use), now);
            let asked = run(&mut schedule, now, 20 * SECOND, SECOND / 100);
            if !in_use {
                let first = asked.iter().take(1000).map(|(at, _)| *at).max().unwrap();
                assert!(first <= START_SPREAD, "{first:?}: nobody waits for a first verdict");
            }
            // 1000 targets every 2 s are 50 in 100 ms.
            let mut buckets = [0; 200];
            asked.iter().for_each(|(at, _)| buckets[at.as_millis() as usize / 100] += 1);
            let later = &buckets[if in_use { 0 } else { 40 }..];
            assert!(later.iter().all(|count| (20..=90).contains(count)), "{later:?}");
        }
    }

    #[test]
    fn a_target_keeps_its_rhythm() {
        let now = Instant::now();
        let mut schedule = Schedule::new(2);
        schedule.follow(&wanted(50, true), now);
        let mut times: BTreeMap<Target, Vec<Duration>> = BTreeMap::new();
        for (at, target) in run(&mut schedule, now, 60 * SECOND, SECOND / 2) {
            times.entry(target).or_default().push(at);
        }
        for times in times.values() {
            assert!((27..=34).contains(&times.len()), "{}", times.len());
            let gaps = times.windows(2).skip(1).map(|pair| pair[1] - pair[0]);
            for gap in gaps {
                assert!((1800..=2200).contains(&gap.as_millis()), "{gap:?}: 2 s and at most a tenth off");
            }
        }
    }

    #[test]
    fn what_is_known_outlives_changes_of_others() {
        let now = Instant::now();
        let mut schedule = Schedule::new(3);
        schedule.follow(&wanted(2, false), now);
        let later = now + SECOND;
        let (first, ..) = schedule.take_due(later).unwrap();
        let (second, other, _) = schedule.take_due(later).unwrap();
        assert_eq!(schedule.take_due(later), None, "nobody is asked twice at a time");
        let (down, report, changed) = schedule.finished(first, SECOND, Err("refused".to_owned()), later).unwrap();
        assert!(changed && *report.progress.standing() == Standing::Down("refused".to_owned()));
        let down = down.clone();
        schedule.follow(&[(down.clone(), true), (target(9), true)].into(), later);
        assert!(schedule.finished(second, SECOND, Ok(()), later).is_none(), "{other:?} is not wanted any more");
        let standings: BTreeMap<_, _> = schedule.standings().collect();
        assert_eq!(standings[&down], &Standing::Down("refused".to_owned()), "whatever it is said to be");
        assert_eq!(standings[&target(9)], &Standing::Up, "in use");
        assert_eq!((schedule.len(), schedule.is_empty()), (2, false));
    }

    #[test]
    fn one_that_never_answers_stalls_nobody() {
        let now = Instant::now();
        let mut schedule = Schedule::new(4);
        schedule.follow(&wanted(100, true), now);
        let (silent, ..) = schedule.take_due(now + 2 * SECOND).unwrap();
        let asked = run(&mut schedule, now, 20 * SECOND, SECOND / 100);
        assert!(asked.len() >= 99 * 9, "{}", asked.len());
        let (_, report, _) =
            schedule.finished(silent, 20 * SECOND, Err("timeout".to_owned()), now + 20 * SECOND).unwrap();
        assert_eq!(report.failed, 1);
        assert!(schedule.next_due().is_some_and(|due| due <= now + 20 * SECOND), "and is asked again at once");
    }
}
