//! Who is held against whom, and the ratios that come of it. A ratio above 1 speaks for ours.

use super::figure::Quartiles;
use crate::result::{BenchResult, ProgRow, RateRow};

/// Below this a net cost is the noise of the harness and no ratio to it means anything, ns.
const NOISE_NS: f64 = 1.0;

/// The device or generator is of this project.
pub(crate) fn is_ours(dut: &str) -> bool {
    let name = dut.strip_prefix("generator/").unwrap_or(dut);
    let backend = ["live", "xsk", "packet"].iter().any(|backend| {
        name.strip_prefix(backend).is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric()))
    });
    name.starts_with("margay") || name.starts_with("pktgen") || (dut.starts_with("generator/") && backend)
}

/// The row is a generator's, not a device's.
pub(crate) fn is_generator(row: &RateRow) -> bool {
    row.dut.starts_with("generator/")
}

/// The case that does the same work in the usual way, where it was measured too.
pub(crate) fn of_case<'a>(result: &'a BenchResult, row: &ProgRow) -> Option<&'a ProgRow> {
    let name = row.rival.as_ref()?;
    result.prog.iter().find(|other| other.case == *name)
}

/// How many times dearer the rival is. Within each round where both have the same rounds: a slow moment of the machine hits
/// both and drops out.
pub(crate) fn cost_ratio(row: &ProgRow, rival: &ProgRow) -> Option<Quartiles> {
    if row.ns_net < NOISE_NS || rival.ns_net < NOISE_NS {
        return None;
    }
    let paired = row.net_ns.len() == rival.net_ns.len() && row.net_ns.iter().all(|ns| *ns >= NOISE_NS);
    if paired && !row.net_ns.is_empty() {
        let ratios: Vec<f64> = rival.net_ns.iter().zip(&row.net_ns).map(|(theirs, ours)| theirs / ours).collect();
        return Quartiles::of(&ratios);
    }
    let ratio = rival.ns_net / row.ns_net;
    Some(Quartiles { p25: ratio, median: ratio, p75: ratio })
}

/// The row that this one is held against: the rival that it names, else the baseline of its scenario; same frames and cores,
/// same flows where there is one of them.
pub(crate) fn of_rate<'a>(result: &'a BenchResult, row: &RateRow) -> Option<&'a RateRow> {
    let comparable = |other: &&RateRow| {
        other.frame_bytes == row.frame_bytes
            && other.dut != row.dut
            && is_generator(other) == is_generator(row)
            && cores(other) == cores(row)
            && match &row.rival {
                // The same work, if with other packets: a service's address is none that a router is sent.
                Some(rival) => other.dut == *rival,
                None => other.baseline && !row.baseline && other.scenario == row.scenario,
            }
    };
    let candidates = || result.rates.iter().filter(comparable);
    // Of several baselines, the plain one.
    let plain = |other: &&RateRow| other.dut.starts_with("kernel") || other.dut.ends_with("sendmmsg");
    let best = |flows: Option<u64>| {
        let fitting = move || candidates().filter(move |other| flows.is_none_or(|flows| other.flows == flows));
        fitting().find(plain).or_else(|| fitting().next())
    };
    // A generator's baseline is measured with one flow only: its rate does not hang on the flows.
    best(Some(row.flows)).or_else(|| best(None).filter(|other| is_generator(other)))
}

/// The same on one core, for a row of several.
pub(crate) fn on_one_core<'a>(result: &'a BenchResult, row: &RateRow) -> Option<&'a RateRow> {
    let same = |other: &&RateRow| {
        cores(other) == 1
            && other.dut == row.dut
            && other.scenario == row.scenario
            && other.frame_bytes == row.frame_bytes
            && other.flows == row.flows
    };
    if cores(row) > 1 { result.rates.iter().find(same) } else { None }
}

fn cores(row: &RateRow) -> u32 {
    row.cores.unwrap_or(1)
}

/// How many times the baseline's rate.
pub(crate) fn rate_ratio(row: &RateRow, rival: &RateRow) -> Option<f64> {
    (row.median > 0.0 && rival.median > 0.0).then(|| row.median / rival.median)
}

/// The device that the searches and latencies of `dut` are held against, among those measured: the rival that its rates name,
/// else the kernel.
pub(crate) fn of_dut<'a>(
    result: &'a BenchResult,
    dut: &str,
    mut duts: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let named = result.rates.iter().find(|row| row.dut == dut).and_then(|row| row.rival.as_deref());
    match named {
        Some(rival) => duts.find(|other| *other == rival),
        None => duts.find(|other| other.starts_with("kernel")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, net: &[f64]) -> ProgRow {
        let ns_net = Quartiles::of(net).unwrap().median;
        ProgRow { case: name.to_owned(), ns_net, net_ns: net.to_vec(), ..ProgRow::default() }
    }

    #[test]
    fn a_slow_round_of_both_leaves_the_ratio() {
        let (ours, theirs) = (case("a", &[10.0, 30.0, 10.0]), case("b", &[40.0, 120.0, 40.0]));
        let ratio = cost_ratio(&ours, &theirs).unwrap();
        assert_eq!((ratio.p25, ratio.median, ratio.p75), (4.0, 4.0, 4.0));
    }

    #[test]
    fn noise_gives_no_ratio() {
        assert_eq!(cost_ratio(&case("a", &[0.3]), &case("b", &[40.0])), None);
        assert_eq!(cost_ratio(&case("a", &[40.0]), &case("b", &[-0.3])), None);
    }

    #[test]
    fn ours_are_told_from_rivals() {
        for dut in ["margay-forward", "generator/live", "generator/xsk, 2 cores", "generator/live-2c"] {
            assert!(is_ours(dut), "{dut}");
        }
        for dut in ["kernel-forward", "generator/sendmmsg", "generator/packetgen-x", "xdp-forward", "generator/trafgen"]
        {
            assert!(!is_ours(dut), "{dut}");
        }
    }
}
