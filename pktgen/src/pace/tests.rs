//! Schedules by a clock that is only counted.

use super::*;
use proptest::prelude::*;

/// Due times of the first `count` frames of each thread, together and in order.
fn dues(pace: &Pace, threads: u32, count: usize, len: usize) -> Vec<u64> {
    let mut all: Vec<u64> = (0..threads)
        .flat_map(|thread| {
            let mut schedule = Schedule::new(pace, thread, threads);
            std::iter::repeat_with(move || {
                let due = schedule.due_ns(None).unwrap();
                schedule.advance(len);
                due
            })
            .take(count)
            .collect::<Vec<_>>()
        })
        .collect();
    all.sort_unstable();
    all
}

fn packets(shape: Shape) -> Pace {
    Pace { shape, unit: Unit::Packets }
}

#[test]
fn without_a_rate_nothing_is_due_later() {
    let mut schedule = Schedule::new(&Pace::MAX, 0, 1);
    schedule.advance(60);
    assert_eq!(schedule.due_ns(Some(7)), None);
}

#[test]
fn bits_count_what_the_layer_says() {
    // 60 bytes and the FCS are 512 bits, and 672 bits on the wire: 1.488 Mpps of 1 Gbit/s.
    assert_eq!((Unit::BitsL2.of(60), Unit::BitsL1.of(60)), (512.0, 672.0));
    assert_eq!(Unit::BitsL1.total(10, 600), 6720.0);
    let pace = Pace { shape: Shape::Constant { rate: 1e9 }, unit: Unit::BitsL1 };
    assert_eq!(dues(&pace, 1, 3, 60), [0, 672, 1344]);
    assert_eq!(dues(&pace, 1, 3, 1514), [0, 12_304, 24_608]);
}

#[test]
fn bursts_are_back_to_back_and_threads_take_turns() {
    let pace = packets(Shape::Bursts { frames: 3, every: Duration::from_micros(10) });
    assert_eq!(dues(&pace, 1, 7, 60), [0, 0, 0, 10_000, 10_000, 10_000, 20_000]);
    assert_eq!(dues(&pace, 2, 3, 60), [0, 0, 0, 10_000, 10_000, 10_000]);
    assert_eq!(pace.requested(Duration::from_secs(1)), Some(300_000.0));
}

#[test]
fn steps_follow_each_other_and_the_last_one_stays() {
    let (slow, fast) = ((1000.0, Duration::from_millis(3)), (1e6, Duration::from_millis(1)));
    let pace = packets(Shape::Steps { steps: vec![slow, fast] });
    let due = dues(&pace, 1, 6, 60);
    assert_eq!(due, [0, 1_000_000, 2_000_000, 3_000_000, 3_001_000, 3_002_000]);
    // 3 packets in 3 ms, then one a microsecond for 2 ms.
    assert_eq!(pace.requested(Duration::from_millis(5)), Some(2003.0 / 0.005));
}

#[test]
fn a_trace_keeps_its_times_at_another_speed() {
    let mut schedule = Schedule::new(&packets(Shape::Trace { speed: 2.0 }), 0, 1);
    assert_eq!(schedule.due_ns(Some(1_000_001)), Some(500_001));
    assert!(schedule.delayed(CATCH_UP_NS + 5, Some(1_000_001)));
    assert_eq!(schedule.due_ns(Some(2_000_000)), Some(1_000_005 + CATCH_UP_NS));
    // 10 us late at 1 ms: 5 us later, as the trace has it, 1 us of it is made up for.
    assert!(!schedule.delayed(10_000, Some(2_000_000)));
    assert_eq!(schedule.due_ns(Some(2_000_000)), Some(1_010_005 + CATCH_UP_NS));
    assert_eq!(schedule.due_ns(Some(2_010_000)), Some(1_014_005 + CATCH_UP_NS));
    assert_eq!(schedule.on_time_ns(Some(2_010_000)), Some(1_005_005 + CATCH_UP_NS));
}

#[test]
fn impossible_paces_are_refused() {
    let second = Duration::from_secs(1);
    for shape in [
        Shape::Constant { rate: 0.0 },
        Shape::Constant { rate: -1.0 },
        Shape::Constant { rate: f64::NAN },
        Shape::Constant { rate: f64::INFINITY },
        Shape::Constant { rate: 1e10 },
        Shape::Poisson { rate: 0.0, seed: 1 },
        Shape::Bursts { frames: 0, every: second },
        Shape::Bursts { frames: 1, every: Duration::ZERO },
        Shape::Ramp { from: 0.0, to: 1.0, over: second },
        Shape::Ramp { from: 1.0, to: 2.0, over: Duration::ZERO },
        Shape::Steps { steps: Vec::new() },
        Shape::Steps { steps: vec![(1.0, second), (0.0, second)] },
        Shape::Trace { speed: 0.0 },
    ] {
        assert!(packets(shape.clone()).check().is_err(), "{shape:?}");
    }
    assert!(packets(Shape::Constant { rate: PPS_MAX }).check().is_ok());
}

/// Gaps of a Poisson process are exponential: mean and standard deviation are the same, and two threads' gaps differ.
#[test]
fn poisson_gaps_are_exponential() {
    let pace = packets(Shape::Poisson { rate: 1e6, seed: 3 });
    for threads in [1, 2] {
        let due = dues(&pace, threads, 200_000 / threads as usize, 60);
        let gaps: Vec<f64> = due.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 1000.0).abs() < 20.0, "{threads} threads: mean {mean}");
        assert!((variance.sqrt() - 1000.0).abs() < 20.0, "{threads} threads: deviation {}", variance.sqrt());
    }
    assert_ne!(dues(&pace, 1, 10, 60), dues(&packets(Shape::Poisson { rate: 1e6, seed: 4 }), 1, 10, 60));
    assert_eq!(dues(&pace, 1, 10, 60), dues(&pace, 1, 10, 60));
}

proptest! {
    /// Delays of the sender are made up for at a rate that is a quarter higher, never by a burst; ones that add up to more than
    /// the limit are given up on, whole.
    #[test]
    fn delays_are_made_up_for_gently(delays in proptest::collection::vec((1..200u64, 0..60_000_000u64), 1..8)) {
        let mut schedule = Schedule::new(&Pace::constant_pps(1e6), 0, 1);
        let mut given_up = 0;
        for (frames, late) in delays {
            let due = schedule.due_ns(None).unwrap();
            let behind = due - schedule.on_time_ns(None).unwrap() + late;
            if schedule.delayed(late, None) {
                prop_assert!(behind + 1 >= CATCH_UP_NS, "{} ns given up on", behind);
                given_up += behind;
            } else {
                prop_assert!(behind <= CATCH_UP_NS + 1);
            }
            prop_assert!(schedule.postponed_ns().abs_diff(given_up) <= 8);
            let mut last = schedule.due_ns(None).unwrap();
            prop_assert!(last.abs_diff(due + late) <= 2, "{} after a delay of {} at {}", last, late, due);
            for _ in 0..frames {
                schedule.advance(60);
                let due = schedule.due_ns(None).unwrap();
                prop_assert!((799..=1001).contains(&(due - last)), "a gap of {} ns", due - last);
                last = due;
            }
        }
        // Five times the limit later, nothing is late any more.
        for _ in 0..500_000 {
            schedule.advance(60);
        }
        prop_assert_eq!(schedule.due_ns(None), schedule.on_time_ns(None));
    }

    /// By any time, never more frames are due than the rate allows, and never one too few, however many threads share it.
    #[test]
    fn a_constant_rate_is_exact(rate in 1.0..1e8f64, threads in 1..8u32) {
        let count = 500;
        for (index, due) in dues(&packets(Shape::Constant { rate }), threads, count, 60).into_iter().enumerate() {
            let nominal = index as f64 * 1e9 / rate;
            prop_assert!(due as f64 >= nominal - 1e-3 * nominal.max(1.0) / 1e3, "{} before {}", due, nominal);
            prop_assert!(due as f64 <= nominal + 2.0 + nominal * 1e-9, "{} after {}", due, nominal);
        }
    }

    /// The number due at any time is the integral of the rate, on ramps up and down and on stairs.
    #[test]
    fn what_is_due_is_the_integral_of_the_rate(
        from in 1e3..1e6f64, to in 1e3..1e6f64, millis in 1..50u64, threads in 1..4u32, stairs: bool,
    ) {
        let over = Duration::from_millis(millis);
        let shape = if stairs { Shape::Steps { steps: vec![(from, over), (to, over)] } } else { Shape::Ramp { from, to, over } };
        let pace = packets(shape);
        prop_assert!(pace.check().is_ok());
        let all = dues(&pace, threads, 400, 60);
        for (index, due) in all.iter().enumerate().skip(1) {
            let allowed = pace.requested(Duration::from_nanos(*due)).unwrap() * *due as f64 / 1e9;
            prop_assert!((allowed - index as f64).abs() <= 0.01, "{} due of {}", index, allowed);
        }
        prop_assert!(all.is_sorted());
    }

    /// Frames of many sizes fill exactly the bits asked for.
    #[test]
    fn bits_are_exact_whatever_the_sizes(rate in 1e6..1e10f64, sizes in proptest::collection::vec(60..9000usize, 2..100)) {
        let mut schedule = Schedule::new(&Pace { shape: Shape::Constant { rate }, unit: Unit::BitsL2 }, 0, 1);
        let mut bits = 0.0;
        for len in sizes {
            let due = schedule.due_ns(None).unwrap() as f64;
            let nominal = bits * 1e9 / rate;
            prop_assert!((due - nominal).abs() <= 1.0 + nominal * 1e-9);
            bits += Unit::BitsL2.of(len);
            schedule.advance(len);
        }
    }

    /// Gaps and their errors are those of the departures, and merging threads loses none.
    #[test]
    fn departures_are_measured_against_the_schedule(late in proptest::collection::vec(0..900u64, 2..50)) {
        let mut one = Departures::default();
        let mut worst = 0;
        let mut before = None;
        for (index, late) in late.iter().enumerate() {
            let due = index as u64 * 1000;
            one.record(due, due + late);
            if let Some(before) = before {
                worst = worst.max(late.abs_diff(before));
            }
            before = Some(*late);
        }
        let count = late.len() as u64 - 1;
        prop_assert_eq!(one.errors().count, count);
        prop_assert_eq!(one.errors().max, worst);
        let mut two = Departures::default();
        two.merge(&one);
        two.merge(&one);
        prop_assert_eq!(two.gaps().count, 2 * count);
    }
}
