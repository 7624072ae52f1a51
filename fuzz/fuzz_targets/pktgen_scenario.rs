//! Any text is a scenario or a list of errors with places; what a scenario describes is written within its frame, the same twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pktgen::scenario::file::Loaded;
use pktgen::traffic::Plan;

fuzz_target!(|text: &str| {
    let loaded = match Loaded::parse("fuzz.yaml", text) {
        Ok(loaded) => loaded,
        Err(errors) => {
            assert!(!errors.is_empty() && errors.iter().all(|error| !error.message.is_empty()));
            return;
        }
    };
    let plan = Plan::new(&loaded.scenario, 1).expect("a scenario that was accepted can be sent");
    let mut frames = [vec![0; plan.longest()], vec![0xff; plan.longest()]];
    for flow in [0, plan.flows() / 2, plan.flows() - 1] {
        for seq in [0, 1, u32::MAX] {
            let [a, b] = frames.each_mut().map(|frame| plan.write(flow, seq, 7, frame).len);
            assert_eq!(a, b);
            assert!((1..=plan.longest()).contains(&a));
            assert_eq!(frames[0][..a], frames[1][..b]);
        }
    }
});
