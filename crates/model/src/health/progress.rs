//! Rise and fall: how verdicts follow from the outcomes of checks.

use super::{HealthCheck, Standing};

/// What is known of one target and how far it is on its way to something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    standing: Standing,
    /// Outcomes in a row that speak against the standing.
    against: u32,
}

impl Progress {
    /// Nothing is known: the first outcome decides.
    pub fn starting() -> Self {
        Self { standing: Standing::Starting, against: 0 }
    }

    /// It was in use before anything was asked, and is until as many checks fail in a row as of any other.
    pub fn in_use() -> Self {
        Self { standing: Standing::Up, against: 0 }
    }

    /// What is known.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// How many outcomes in a row have spoken against what is known.
    pub fn against(&self) -> u32 {
        self.against
    }

    /// Takes an outcome in; true where the standing is another one now. A reason is that of the check that decided.
    pub fn learn(&mut self, check: &HealthCheck, outcome: Result<(), &str>) -> bool {
        let needed = match (&self.standing, outcome) {
            (Standing::Starting, _) => 1,
            (Standing::Up, Err(_)) => check.fall,
            (Standing::Down(_), Ok(())) => check.rise,
            (Standing::Up, Ok(())) | (Standing::Down(_), Err(_)) => {
                self.against = 0;
                return false;
            }
        };
        self.against += 1;
        if self.against < needed {
            return false;
        }
        self.against = 0;
        self.standing = match outcome {
            Ok(()) => Standing::Up,
            Err(reason) => Standing::Down(reason.to_owned()),
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::{Probe, Via};
    use super::*;

    fn check(rise: u32, fall: u32) -> HealthCheck {
        HealthCheck {
            probe: Probe::Tcp,
            via: Via::Direct,
            port: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise,
            fall,
            jitter_percent: 10,
        }
    }

    fn learn(progress: &mut Progress, check: &HealthCheck, outcomes: &str) -> String {
        let learn = |outcome| {
            progress.learn(check, if outcome == '+' { Ok(()) } else { Err("no answer") });
            if progress.standing().is_up() { 'U' } else { 'd' }
        };
        outcomes.chars().map(learn).collect()
    }

    #[test]
    fn the_first_outcome_decides_and_then_rise_and_fall_count() {
        let check = check(2, 3);
        let mut progress = Progress::starting();
        assert_eq!(learn(&mut progress, &check, "+--+---+-++--"), "UUUUUUddddUUU");
        let mut progress = Progress::starting();
        assert_eq!(learn(&mut progress, &check, "-+-++"), "ddddU");
        let mut progress = Progress::in_use();
        assert_eq!(learn(&mut progress, &check, "--"), "UU", "one lost answer after a restart takes nobody out");
        assert_eq!(progress.against(), 2);
        assert_eq!(learn(&mut progress, &check, "-"), "d");
        assert_eq!(*progress.standing(), Standing::Down("no answer".to_owned()));
    }

    /// The standing by the definition alone: whoever is up after an outcome was up before it, unless the last `rise` outcomes since
    /// it went down were good, and so on.
    fn by_definition(rise: usize, fall: usize, in_use: bool, outcomes: &[bool]) -> Vec<bool> {
        let mut standings = Vec::new();
        let mut up = in_use;
        let mut since = 0;
        for end in 1..=outcomes.len() {
            let (outcome, needed) = (outcomes[end - 1], if up { fall } else { rise });
            let first = end == 1 && !in_use;
            let run = outcomes[since..end].iter().rev().take_while(|other| **other == outcome).count();
            if first || (outcome != up && run >= needed) {
                up = outcome;
                since = end;
            }
            standings.push(up);
        }
        standings
    }

    proptest! {
        #[test]
        fn standings_are_those_of_the_definition(
            (rise, fall) in (1u32..6, 1u32..6),
            in_use: bool,
            outcomes in proptest::collection::vec(any::<bool>(), 0..200),
        ) {
            let check = check(rise, fall);
            let mut progress = if in_use { Progress::in_use() } else { Progress::starting() };
            let learn = |good: &bool| {
                let before = progress.clone();
                let changed = progress.learn(&check, if *good { Ok(()) } else { Err("x") });
                assert_eq!(changed, before.standing() != progress.standing());
                progress.standing().is_up()
            };
            let standings: Vec<bool> = outcomes.iter().map(learn).collect();
            prop_assert_eq!(standings, by_definition(rise as usize, fall as usize, in_use, &outcomes));
        }

        /// No verdict without a full run of outcomes that agree: between two changes lie at least rise or fall outcomes.
        #[test]
        fn nothing_flaps_faster_than_rise_and_fall(
            (rise, fall) in (1u32..6, 1u32..6),
            outcomes in proptest::collection::vec(any::<bool>(), 0..200),
        ) {
            let check = check(rise, fall);
            let mut progress = Progress::in_use();
            let mut run = 0;
            for good in outcomes {
                run += 1;
                if progress.learn(&check, if good { Ok(()) } else { Err("x") }) {
                    let least = if good { rise } else { fall };
                    prop_assert!(run >= least);
                    run = 0;
                }
            }
        }
    }
}
