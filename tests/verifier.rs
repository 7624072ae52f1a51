//! Every feature set passes the verifier, within a budget that the repository keeps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use margay::dataplane::{Dataplane, Reasons};
use model::network::IfIndex;
use model::tables::{Features, Parameters, Tables};
use model::verdict::{DropReason, PuntReason};

/// Instructions that the verifier may walk for the full set; the kernel's limit is 1,000,000.
const BUDGET: &str = include_str!("verifier-budget.toml");

const LOOPBACK: IfIndex = IfIndex(1);

fn budget(name: &str) -> u32 {
    let table: toml::Table = BUDGET.parse().unwrap();
    table[name].as_integer().unwrap().try_into().unwrap()
}

/// The smallest set, the full one, each feature alone and each one missing.
fn feature_sets() -> Vec<(String, Features)> {
    type Set = fn(&mut Features, bool);
    let setters: [(&str, Set); 14] = [
        ("decap_ipip", |f, on| f.decap_ipip = on),
        ("decap_vxlan", |f, on| f.decap_vxlan = on),
        ("decap_gue", |f, on| f.decap_gue = on),
        ("denied_sources", |f, on| f.denied_sources = on),
        ("denied_destinations", |f, on| f.denied_destinations = on),
        ("filter", |f, on| f.filter = on),
        ("vip", |f, on| f.vip = on),
        ("quic", |f, on| f.quic = on),
        ("affinity", |f, on| f.affinity = on),
        ("vlan", |f, on| f.vlan = on),
        ("slow_path", |f, on| f.slow_path = on),
        ("source_validation", |f, on| f.source_validation = on),
        ("max_mss", |f, on| f.max_mss = on),
        ("vrf", |f, on| f.vrf = on),
    ];
    let mut sets = vec![("smallest".to_owned(), Features::default()), ("full".to_owned(), Features::FULL)];
    for (name, set) in setters {
        let mut only = Features::default();
        set(&mut only, true);
        let mut without = Features::FULL;
        set(&mut without, false);
        sets.push((format!("only {name}"), only));
        sets.push((format!("without {name}"), without));
    }
    sets
}

/// The verifiers of kernels before 6.12 forget less of what makes no difference, and walk more.
fn is_old_kernel() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap()) < (6, 12)
}

mod root {
    use super::*;

    #[test]
    fn every_feature_set_loads_within_the_budget() {
        let mut dataplane = Dataplane::open_unpinned().unwrap();
        for (name, features) in feature_sets() {
            dataplane
                .apply(&Tables::default(), features, &Parameters::default(), &[])
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            let walked = dataplane.verified_instructions().unwrap();
            dataplane.explain(&[0; 64], LOOPBACK).unwrap_or_else(|e| panic!("{name}, explaining: {e}"));
            dataplane.encapsulator().unwrap_or_else(|e| panic!("{name}, encapsulating: {e}"));
            println!("{name}: {walked} instructions verified");
            let budget = budget(match name.as_str() {
                _ if is_old_kernel() => "older",
                "smallest" => "smallest",
                _ => "full",
            });
            assert!(walked <= budget, "{name}: {walked} instructions, the budget is {budget}");
        }
    }
}

#[test]
fn reasons_of_the_object_are_those_of_the_model() {
    let reasons = Reasons::read().unwrap();
    let drops: Vec<_> = reasons.drops.iter().map(|r| r.name.as_str()).collect();
    let punts: Vec<_> = reasons.punts.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(drops, DropReason::ALL.iter().map(|r| r.name()).collect::<Vec<_>>());
    assert_eq!(punts, PuntReason::ALL.iter().map(|r| r.name()).collect::<Vec<_>>());
    assert!(reasons.drops.iter().chain(&reasons.punts).all(|r| r.help.len() > 8));
}
