//! The search against devices whose answer is known, and against the reference implementation.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::search::simulate::{Device, Simulated};

/// What `tests/reference/generate.py` wrote.
#[derive(Deserialize)]
struct Reference {
    min_load: f64,
    max_load: f64,
    devices: BTreeMap<String, Device>,
    goals: BTreeMap<String, Vec<ReferenceGoal>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct ReferenceGoal {
    loss_ratio: f64,
    exceed_ratio: f64,
    width: f64,
    initial_trial_s: f64,
    final_trial_s: f64,
    duration_sum_s: f64,
    preceding_targets: u32,
    expansion: u32,
}

#[derive(Deserialize)]
struct Case {
    device: String,
    goals: String,
    result: ReferenceResult,
}

#[derive(Deserialize)]
struct ReferenceResult {
    goals: Vec<ReferenceBounds>,
    trials: usize,
    seconds: f64,
    packets: u64,
}

#[derive(Deserialize)]
struct ReferenceBounds {
    lower: Option<f64>,
    upper: Option<f64>,
    conditional_throughput: Option<f64>,
}

impl ReferenceGoal {
    fn goal(&self) -> Goal {
        Goal {
            name: String::new(),
            loss_ratio: self.loss_ratio,
            exceed_ratio: self.exceed_ratio,
            width: self.width,
            initial_trial_s: self.initial_trial_s,
            final_trial_s: self.final_trial_s,
            duration_sum_s: self.duration_sum_s,
            preceding_targets: self.preceding_targets,
            expansion: self.expansion,
        }
    }
}

/// Equal but for the last digits, which the mathematical library of the machine decides.
#[track_caller]
fn same(ours: Option<f64>, theirs: Option<f64>, what: &str) {
    let equal = match (ours, theirs) {
        (Some(ours), Some(theirs)) => (ours / theirs - 1.0).abs() < 1e-9,
        (ours, theirs) => ours == theirs,
    };
    assert!(equal, "{what}: {ours:?}, the reference says {theirs:?}");
}

#[test]
fn the_reference_implementation_finds_the_same_over_the_same_trials() {
    let reference: Reference = serde_json::from_str(include_str!("../../../tests/reference/mlrsearch.json")).unwrap();
    assert!(reference.cases.len() >= 80);
    for case in &reference.cases {
        let what = format!("{}, {}", case.device, case.goals);
        let mut device = Simulated::new(reference.devices[&case.device].clone());
        let goals: Vec<Goal> = reference.goals[&case.goals].iter().map(ReferenceGoal::goal).collect();
        let config = Config { limit_s: 1e6, ..Config::new(reference.min_load, reference.max_load) };
        let found = search(&goals, &config, &mut device).unwrap();
        for (goal, (ours, theirs)) in found.goals.iter().zip(&case.result.goals).enumerate() {
            same(ours.lower_pps, theirs.lower, &format!("{what}: lower bound of goal {goal}"));
            same(ours.upper_pps, theirs.upper, &format!("{what}: upper bound of goal {goal}"));
            let throughput = ours.conditional_throughput_pps;
            same(throughput, theirs.conditional_throughput, &format!("{what}: conditional throughput of goal {goal}"));
        }
        assert_eq!(found.trials.len(), case.result.trials, "{what}: trials");
        same(Some(found.seconds), Some(case.result.seconds), &format!("{what}: seconds"));
        let packets: u64 = found.trials.iter().map(|trial| trial.outcome.wanted).sum();
        same(Some(packets as f64), Some(case.result.packets as f64), &format!("{what}: packets"));
        assert_eq!(found.end, End::Done, "{what}");
    }
}

fn quick_goal(loss_ratio: f64, exceed_ratio: f64, width: f64) -> Goal {
    Goal { loss_ratio, exceed_ratio, width, duration_sum_s: 5.0, ..Goal::ndr() }
}

#[test]
fn published_goals_are_what_they_say() {
    assert_eq!(Goal::ndr().deviations().len(), 2);
    assert_eq!(Goal::pdr().deviations().len(), 3);
    assert_eq!(Goal::rfc2544().deviations(), Vec::<String>::new());
    for goal in [Goal::ndr(), Goal::pdr(), Goal::rfc2544()] {
        goal.check::<()>().unwrap();
    }
}

#[test]
fn a_goal_without_a_lower_bound_says_so_and_may_end_the_search() {
    let device = || Simulated::new(Device::Step { capacity: 0.0 });
    let config = Config::new(1e4, 1e6);
    let patient = search(&[Goal::ndr(), Goal::pdr()], &config, &mut device()).unwrap();
    assert_eq!(patient.end, End::Done);
    for goal in &patient.goals {
        assert_eq!((goal.lower_pps, goal.upper_pps, goal.conditional_throughput_pps), (None, Some(1e4), None));
        assert!(goal.reached && !goal.is_regular());
    }
    let hasty = search(&[Goal::ndr(), Goal::pdr()], &Config { fail_fast: true, ..config }, &mut device()).unwrap();
    assert_eq!(hasty.end, End::NoLowerBound);
    assert!(hasty.trials.len() <= patient.trials.len());
}

#[test]
fn a_search_out_of_time_tells_what_it_knows() {
    let mut device = Simulated::new(Device::Step { capacity: 3e5 });
    let config = Config { limit_s: 12.0, ..Config::new(1e4, 1e6) };
    let found = search(&[Goal::ndr()], &config, &mut device).unwrap();
    assert_eq!(found.end, End::OutOfTime);
    assert_eq!(found.seconds, 12.0);
    assert!(!found.goals[0].reached && !found.goals[0].is_regular());
}

#[test]
fn the_warm_up_is_made_and_ignored() {
    // A device that loses in its first trial only.
    let device = Device::Noisy { capacity: 2e6, factors: [vec![0.0], vec![1.0; 500]].concat() };
    let config = Config::new(1e4, 1e6);
    let warm = search(&[Goal::ndr()], &config, &mut Simulated::new(device.clone())).unwrap();
    assert_eq!(warm.trials[0].why, Why::Warmup);
    assert_eq!((warm.goals[0].lower_pps, warm.goals[0].upper_pps), (Some(1e6), None));
    let cold = search(&[Goal::ndr()], &Config { warmup_s: 0.0, ..config }, &mut Simulated::new(device)).unwrap();
    assert_ne!(cold.trials[0].why, Why::Warmup);
    assert!(cold.trials.len() > warm.trials.len());
}

#[test]
fn a_failed_trial_ends_the_search_with_its_error() {
    struct Broken;
    impl Trials for Broken {
        type Error = &'static str;

        fn trial(&mut self, _: f64, _: f64) -> Result<Outcome, &'static str> {
            Err("cable out")
        }
    }
    let error = search(&[Goal::ndr()], &Config::new(1.0, 2.0), &mut Broken).unwrap_err();
    assert!(matches!(error, Error::Trial("cable out")));
}

#[test]
fn nonsense_is_refused_before_anything_is_measured() {
    let mut device = Simulated::new(Device::Step { capacity: 1.0 });
    let good = Goal::ndr();
    for (goal, config, text) in [
        (Goal { loss_ratio: 1.0, ..good.clone() }, Config::new(1.0, 2.0), "loss ratio"),
        (Goal { exceed_ratio: -0.1, ..good.clone() }, Config::new(1.0, 2.0), "exceed ratio"),
        (Goal { width: 0.0, ..good.clone() }, Config::new(1.0, 2.0), "width"),
        (Goal { final_trial_s: 0.5, ..good.clone() }, Config::new(1.0, 2.0), "shorter than the initial"),
        (Goal { duration_sum_s: 0.5, ..good.clone() }, Config::new(1.0, 2.0), "duration sum"),
        (Goal { duration_sum_s: f64::NAN, ..good.clone() }, Config::new(1.0, 2.0), "duration sum"),
        (Goal { expansion: 1, ..good.clone() }, Config::new(1.0, 2.0), "expansion"),
        (Goal { preceding_targets: 0, ..good.clone() }, Config::new(1.0, 2.0), "preceding"),
        (good.clone(), Config::new(0.0, 2.0), "least load"),
        (good.clone(), Config::new(2.0, 2.0), "greatest load"),
        (good.clone(), Config { warmup_s: -1.0, ..Config::new(1.0, 2.0) }, "warm-up"),
        (good.clone(), Config { limit_s: f64::NAN, ..Config::new(1.0, 2.0) }, "time limit"),
    ] {
        let error = search(&[goal], &config, &mut device).unwrap_err().to_string();
        assert!(error.contains(text), "{text}: {error}");
    }
    assert!(search(&[], &Config::new(1.0, 2.0), &mut device).is_err());
    assert_eq!(device.trials, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Loss that grows with the load: the load from which on a trial is bad lies between the bounds.
    #[test]
    fn a_monotone_curve_is_bounded(
        low in 0.0..1.0_f64, span in 0.01..1.0_f64, loss in 0.001..1.0_f64,
        ratio in 0.0..0.2_f64, exceed in prop_oneof![Just(0.0), Just(0.5), 0.0..0.9], width in 0.002..0.2_f64,
    ) {
        let (min, max) = (1e4_f64, 1e7_f64);
        let low = min * (max / min).powf(low);
        let high = low * (1.0 + span);
        let mut device = Simulated::new(Device::Knee { low, high, loss });
        let found = search(&[quick_goal(ratio, exceed, width)], &Config::new(min, max), &mut device).unwrap();
        prop_assert_eq!(found.end, End::Done);
        prop_assert!(device.range.0 >= min && device.range.1 <= max, "{:?}", device.range);
        prop_assert!(found.seconds < 600.0, "{} s", found.seconds);
        let goal = &found.goals[0];
        prop_assert!(goal.reached);
        let mut again = Simulated::new(Device::Knee { low, high, loss });
        let mut bad = |load: f64| again.trial(load, 1.0).unwrap().loss_ratio() > ratio;
        match (goal.lower_pps, goal.upper_pps) {
            (Some(lower), Some(upper)) => {
                prop_assert!(!bad(lower) && bad(upper), "{lower} {upper}");
                prop_assert!(upper - lower <= width * upper * (1.0 + 1e-9), "{lower} {upper}");
                let throughput = goal.conditional_throughput_pps.unwrap();
                prop_assert!(throughput <= lower && throughput >= lower * (1.0 - ratio), "{throughput} {lower}");
            }
            (Some(lower), None) => prop_assert!(lower == max && !bad(max)),
            (None, Some(upper)) => prop_assert!(upper == min && bad(min)),
            (None, None) => prop_assert!(false, "no bounds"),
        }
    }

    /// Whatever a device does, a search ends, stays within its limits and answers in order.
    #[test]
    fn any_device_is_survived(
        capacity in 0.0..2e6_f64, factors in proptest::collection::vec(0.0..1.5_f64, 1..30),
        exceed in 0.0..0.9_f64, ratio in 0.0..0.9_f64,
    ) {
        let mut device = Simulated::new(Device::Noisy { capacity, factors });
        let goals = [quick_goal(0.0, exceed, 0.01), quick_goal(ratio, 0.5, 0.05)];
        let config = Config { limit_s: 1e5, ..Config::new(1e4, 1e6) };
        let found = search(&goals, &config, &mut device).unwrap();
        prop_assert_eq!(found.end, End::Done);
        prop_assert!(device.range.0 >= 1e4 && device.range.1 <= 1e6, "{:?}", device.range);
        for goal in &found.goals {
            prop_assert!(goal.reached);
            prop_assert!(goal.lower_pps.zip(goal.upper_pps).is_none_or(|(lower, upper)| lower < upper));
        }
    }
}
