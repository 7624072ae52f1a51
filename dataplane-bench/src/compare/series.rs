//! More than two results: into how few groups of equals they fall.
//!
//! As in jumpavg of FD.io CSIT, groups are chosen by minimum description length: a new group must pay for its own mean and
//! deviation with a shorter description of the values in it. So no fixed percentage decides, and a slow round is no group.

use super::items::{Item, Values};

/// Deviations below this share of the mean are taken as this, or equal values would be described for nothing.
const LEAST_DEVIATION: f64 = 0.005;

/// Results `first..=last`, by position, that do not differ.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(super) struct Group {
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) mean: f64,
}

/// Splits the values of successive results of one item; empty where a result has no series of values.
pub(super) fn groups(results: &[&Item]) -> Vec<Group> {
    let values = |item: &&Item| match &item.values {
        Values::Many(values) => Some(values.clone()),
        Values::Between(..) | Values::One(_) => None,
    };
    let Some(values) = results.iter().map(values).collect::<Option<Vec<_>>>() else { return Vec::new() };
    let total = values.iter().map(Vec::len).sum::<usize>() as f64;
    // The cheapest description of the first `end` results, and where its last group begins.
    let mut best: Vec<(f64, usize)> = vec![(0.0, 0)];
    for end in 1..=values.len() {
        let option = |first: usize| {
            let before = best.get(first).map_or(f64::INFINITY, |(bits, _)| *bits);
            (before + bits(values.get(first..end).unwrap_or_default(), total), first)
        };
        let cheapest = (0..end).map(option).min_by(|a, b| a.0.total_cmp(&b.0));
        best.push(cheapest.unwrap_or((f64::INFINITY, 0)));
    }
    let mut groups = Vec::new();
    let mut end = values.len();
    while end > 0 {
        let first = best.get(end).map_or(0, |(_, first)| *first);
        let mean = mean(values.get(first..end).unwrap_or_default());
        groups.push(Group { first, last: end - 1, mean });
        end = first;
    }
    groups.reverse();
    groups
}

fn mean(results: &[Vec<f64>]) -> f64 {
    let count = results.iter().map(Vec::len).sum::<usize>();
    results.iter().flatten().sum::<f64>() / count.max(1) as f64
}

/// Bits to describe values of one group: normal around their mean, and half of log2(n) for each of mean, deviation and boundary.
fn bits(results: &[Vec<f64>], total: f64) -> f64 {
    let mean = mean(results);
    let count = results.iter().map(Vec::len).sum::<usize>() as f64;
    let squares: f64 = results.iter().flatten().map(|value| (value - mean).powi(2)).sum();
    let deviation = (squares / count.max(1.0)).sqrt().max(mean.abs() * LEAST_DEVIATION).max(f64::MIN_POSITIVE);
    let normal = count * (deviation * (2.0 * std::f64::consts::PI).sqrt()).log2()
        + squares / (2.0 * deviation * deviation) * std::f64::consts::LOG2_E;
    normal + 1.5 * total.max(2.0).log2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figure::Unit;

    fn split(means: &[f64]) -> Vec<(usize, usize)> {
        let mut random = fastrand::Rng::with_seed(3);
        let items: Vec<Item> = means
            .iter()
            .map(|mean| {
                let values = (0..9).map(|_| mean * (0.98 + 0.04 * random.f64())).collect();
                let (name, values) = ("x".to_owned(), Values::Many(values));
                Item { name, unit: Unit::NsPerPacket, lower_is_better: true, least: 1.0, values }
            })
            .collect();
        groups(&items.iter().collect::<Vec<_>>()).iter().map(|group| (group.first, group.last)).collect()
    }

    #[test]
    fn equals_are_one_group_and_a_jump_begins_another() {
        assert_eq!(split(&[100.0; 6]), [(0, 5)]);
        assert_eq!(split(&[100.0, 100.0, 100.0, 110.0, 110.0]), [(0, 2), (3, 4)]);
        assert_eq!(split(&[100.0, 80.0, 100.0]), [(0, 0), (1, 1), (2, 2)]);
        assert_eq!(split(&[5.0]), [(0, 0)]);
        assert_eq!(groups(&[]), []);
    }
}
