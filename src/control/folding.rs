//! When blocks of the FIB that changes have led out of their cache lines are brought back.
//!
//! What a change makes superfluous is free only when the last packet has left it, so the successor lies elsewhere and a look-up
//! of it loads a second line. Changes themselves bring back what earlier ones have left; behind the last one somebody has to. No
//! I/O: the clock comes in.

use std::time::{Duration, Instant};

/// Without a change for so long, it is quiet.
const QUIET: Duration = Duration::from_secs(1);
/// Under changes without end, it is done this long after the first.
const AT_LAST: Duration = Duration::from_secs(5);
/// Between one step and the next: running packets leave within it.
const STEP: Duration = Duration::from_millis(20);

/// What is due when.
#[derive(Debug, Default)]
pub(super) struct Folding {
    /// The first change that nothing was brought back after.
    first: Option<Instant>,
    due: Option<Instant>,
}

impl Folding {
    /// The FIB has changed.
    pub(super) fn changed(&mut self, now: Instant) {
        let first = *self.first.get_or_insert(now);
        self.due = Some((now + QUIET).min(first + AT_LAST));
    }

    /// When [`is_due`](Self::is_due).
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due
    }

    /// A step is to be taken.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// A step was taken; more are to follow where it did not finish.
    pub(super) fn stepped(&mut self, finished: bool, now: Instant) {
        self.first = None;
        self.due = (!finished).then_some(now + STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_quiet_and_not_for_ever() {
        let start = Instant::now();
        let mut folding = Folding::default();
        assert_eq!(folding.next_due(), None);
        folding.changed(start);
        assert!(!folding.is_due(start) && folding.is_due(start + QUIET));
        let mut now = start;
        while !folding.is_due(now) {
            folding.changed(now);
            now += QUIET / 2;
        }
        assert_eq!(now - start, AT_LAST, "changes come twice as often as it is quiet");
        folding.stepped(false, now);
        assert_eq!(folding.next_due(), Some(now + STEP));
        folding.stepped(true, now + STEP);
        assert_eq!(folding.next_due(), None);
        folding.changed(now + STEP);
        assert_eq!(folding.next_due(), Some(now + STEP + QUIET), "from the beginning");
    }
}
