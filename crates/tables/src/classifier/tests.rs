use proptest::prelude::*;

use super::*;

fn holds(area: &Area, point: Point) -> bool {
    area.iter().zip(point).all(|((first, last), rank)| (*first..=*last).contains(&rank))
}

fn linear(rules: &[Rule], point: Point) -> Option<u32> {
    rules.iter().filter(|rule| holds(&rule.area, point)).map(|rule| rule.answer).min()
}

/// Points where answers can change: corners, and just outside of them.
fn corners(rules: &[Rule], ranks: [u32; DIMENSIONS]) -> impl Iterator<Item = Point> + '_ {
    rules.iter().flat_map(move |rule| {
        (0..16u32).flat_map(move |corner| {
            [0i32, 1].map(|out| {
                let mut point = [0; DIMENSIONS];
                for (dimension, rank) in point.iter_mut().enumerate() {
                    let (first, last) = rule.area[dimension];
                    let high = corner >> dimension & 1 == 1;
                    let at = if high { i32::from(last) + out } else { i32::from(first) - out };
                    *rank = at.clamp(0, ranks[dimension] as i32 - 1) as u16;
                }
                point
            })
        })
    })
}

fn rule(ranks: [u32; DIMENSIONS]) -> impl Strategy<Value = Area> {
    ranks.map(|ranks| {
        let ranks = ranks as u16;
        prop_oneof![
            Just((0, ranks - 1)),
            (0..ranks).prop_map(|rank| (rank, rank)),
            (0..ranks, 0..ranks).prop_map(|(a, b)| (a.min(b), a.max(b))),
        ]
    })
}

fn rules(areas: impl IntoIterator<Item = Area>, boxes_each: u32) -> Vec<Rule> {
    areas.into_iter().zip(0..).map(|(area, n)| Rule { area, answer: n / boxes_each }).collect()
}

fn check(rules: &[Rule], ranks: [u32; DIMENSIONS]) -> Classifier {
    let classifier = build(rules, ranks).unwrap();
    for point in corners(rules, ranks) {
        assert_eq!(find(&classifier.words, &classifier.roots, point), linear(rules, point), "{point:?}");
    }
    classifier
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_first_match_is_found(
        areas in prop::collection::vec(rule([40, 300, 17, 3]), 0..200),
        boxes_each in 1u32..4,
    ) {
        check(&rules(areas, boxes_each), [40, 300, 17, 3]);
    }
}

const ALL: Area = [(0, 9); DIMENSIONS];

#[test]
fn no_rule_matches_nothing() {
    let classifier = build(&[], [10; DIMENSIONS]).unwrap();
    assert_eq!(classifier, Classifier::default());
    assert_eq!(find(&classifier.words, &classifier.roots, [1, 2, 3, 4]), None);
}

#[test]
fn what_never_matches_first_takes_no_memory() {
    let one = check(&rules([ALL], 1), [10; DIMENSIONS]);
    let part = |n: u16| [(n % 10, 9), (0, 9), (n % 7, 8), (3, 3)];
    let many = check(&rules([ALL].into_iter().chain((0..1_000).map(part)), 1), [10; DIMENSIONS]);
    assert_eq!(many, one);
    let twice = check(&rules((0..1_000).map(|_| part(3)), 1), [10; DIMENSIONS]);
    assert_eq!(twice.stats.fullest, 1);
}

/// Every two of them have points in common that are not in a third, whatever the cut.
#[test]
fn rules_that_overlap_everywhere_are_told() {
    let ranks = [2_000, 2_000, 2, 2];
    let cross = |n: u16| [(n, 2_000 - 1 - n), (1_000 - n, 1_000 + n), (0, 1), (0, 1)];
    check(&rules((0..20).map(cross), 1), ranks);
    let nested = (1..900u16).rev().map(|n| [(1_000 - n, 1_000 + n), (n, 2_000 - n), (0, 1), (0, 1)]);
    match build(&rules(nested.rev(), 1), ranks) {
        Ok(classifier) => assert!(classifier.stats.fullest <= LEAF_MAX),
        Err(TooLarge { boxes }) => assert!(boxes > LEAF_MAX),
    }
}

/// A rule of a packet filter: prefixes, ranges of ports, a protocol.
#[derive(Clone, Copy)]
struct Filter {
    source: (u32, u8),
    destination: (u32, u8),
    source_ports: (u16, u16),
    destination_ports: (u16, u16),
    protocol: Option<u8>,
}

/// Filters in the manner of ClassBench's seeds (Taylor and Turner, INFOCOM 2005): how often each field is a wildcard, exact or a range, and
/// how long prefixes are.
fn filters(kind: &str, count: usize, seed: u64) -> Vec<Filter> {
    let mut state = seed;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut below = move |end: u64| next() % end;
    // In a hundred: wildcard source, wildcard destination, wildcard destination port, range of destination ports, a source port.
    let (any_source, any_destination, any_port, range, source_port) = match kind {
        "acl" => (12, 2, 20, 15, 1),
        "fw" => (30, 35, 30, 20, 20),
        "ipc" => (12, 15, 40, 10, 15),
        _ => (10, 95, 20, 10, 0),
    };
    let pools: [Vec<u32>; 2] = [0, 1].map(|_| (0..count.div_ceil(4).max(4)).map(|_| below(1 << 32) as u32).collect());
    let mut filters = Vec::new();
    while filters.len() < count {
        let mut prefix = |side: usize, any: u64| {
            if below(100) < any {
                return (0, 0);
            }
            let base = pools[side][below(pools[side].len() as u64) as usize];
            let length = [32, 32, 32, 30, 28, 27, 26, 24, 24, 24, 22, 20, 16, 16, 12, 8][below(16) as usize];
            let address = base ^ if length > 20 { below(1 << 12) as u32 } else { 0 };
            (address & u32::MAX.checked_shl(32 - length).unwrap_or(0), length as u8)
        };
        let (source, destination) = (prefix(0, any_source), prefix(1, any_destination));
        let well_known = [80, 443, 22, 25, 53, 123, 161, 389, 3306, 8080];
        let destination_ports = match below(100) {
            n if n < any_port => (0, u16::MAX),
            n if n < any_port + range => match below(3) {
                0 => (1024, u16::MAX),
                1 => (0, 1023),
                _ => {
                    let first = below(60_000) as u16;
                    (first, first + below(5_000) as u16)
                }
            },
            _ if below(2) == 0 => {
                let port = well_known[below(10) as usize];
                (port, port)
            }
            _ => {
                let port = below(65_536) as u16;
                (port, port)
            }
        };
        let source_ports = if below(100) < source_port { (1024, u16::MAX) } else { (0, u16::MAX) };
        let protocol = [Some(6), Some(6), Some(6), Some(17), Some(17), None][below(6) as usize];
        filters.push(Filter { source, destination, source_ports, destination_ports, protocol });
    }
    filters
}

/// Numbers for prefixes: each stands for itself and all behind it that are within it.
struct Prefixes(Vec<(u32, u8)>);

impl Prefixes {
    fn new(prefixes: impl Iterator<Item = (u32, u8)>) -> Self {
        let mut all: Vec<(u32, u8)> = prefixes.filter(|(_, length)| *length > 0).collect();
        all.sort_unstable();
        all.dedup();
        Self(all)
    }

    fn holds(outer: (u32, u8), address: u32) -> bool {
        (outer.0 ^ address) & u32::MAX.checked_shl(32 - u32::from(outer.1)).unwrap_or(0) == 0
    }

    fn side(&self, prefix: (u32, u8)) -> (u16, u16) {
        if prefix.1 == 0 {
            return (0, self.0.len() as u16);
        }
        let at = self.0.binary_search(&prefix).unwrap();
        let within = self.0[at..].iter().take_while(|inner| Self::holds(prefix, inner.0)).count();
        (at as u16 + 1, (at + within) as u16)
    }

    fn rank(&self, address: u32) -> u16 {
        let before = self.0.partition_point(|(base, _)| *base <= address);
        (0..before).rev().take(4_096).find(|at| Self::holds(self.0[*at], address)).map_or(0, |at| at as u16 + 1)
    }

    fn ranks(&self) -> u32 {
        self.0.len() as u32 + 1
    }
}

/// Bounds between which nothing changes.
struct Bounds(Vec<u32>);

impl Bounds {
    fn new(ranges: impl Iterator<Item = (u32, u32)>) -> Self {
        let mut all: Vec<u32> = ranges.flat_map(|(first, last)| [first, last + 1]).chain([0]).collect();
        all.sort_unstable();
        all.dedup();
        Self(all)
    }

    fn rank(&self, value: u32) -> u16 {
        (self.0.partition_point(|bound| *bound <= value) - 1) as u16
    }

    fn side(&self, (first, last): (u32, u32)) -> (u16, u16) {
        (self.rank(first), self.rank(last))
    }
}

fn services(filter: &Filter) -> Vec<(u32, u32)> {
    let (first, last) = (u32::from(filter.destination_ports.0), u32::from(filter.destination_ports.1));
    match filter.protocol {
        Some(protocol) => vec![(u32::from(protocol) << 16 | first, u32::from(protocol) << 16 | last)],
        None if (first, last) == (0, 0xffff) => vec![(0, 0xff_ffff)],
        None => [6, 17].map(|protocol| (protocol << 16 | first, protocol << 16 | last)).to_vec(),
    }
}

/// Figures, meaningful in a release build.
#[test]
#[ignore = "figures, meaningful in a release build"]
fn figures() {
    for (kind, count) in
        ["acl", "fw", "ipc", "calico"].into_iter().flat_map(|kind| [10, 1_000, 10_000].map(|n| (kind, n)))
    {
        let filters = filters(kind, count, 0x5eed);
        let sources = Prefixes::new(filters.iter().map(|f| f.source));
        let destinations = Prefixes::new(filters.iter().map(|f| f.destination));
        let ports = Bounds::new(filters.iter().flat_map(services));
        let source_ports = Bounds::new(filters.iter().map(|f| (f.source_ports.0.into(), f.source_ports.1.into())));
        let ranks = [sources.ranks(), destinations.ranks(), ports.0.len() as u32, source_ports.0.len() as u32];
        assert!(ranks.iter().all(|ranks| *ranks <= RANKS_MAX));
        let rules: Vec<Rule> = (1..)
            .zip(&filters)
            .flat_map(|(answer, f)| {
                let (from, to) = (sources.side(f.source), destinations.side(f.destination));
                let of = source_ports.side((f.source_ports.0.into(), f.source_ports.1.into()));
                services(f)
                    .into_iter()
                    .map(|service| ports.side(service))
                    .map(move |service| Rule { area: [from, to, service, of], answer })
                    .collect::<Vec<_>>()
            })
            .collect();
        let began = std::time::Instant::now();
        let built = build(&rules, ranks);
        let took = began.elapsed();
        let Ok(classifier) = built else {
            println!("{kind} {count}: {built:?} ranks {ranks:?}");
            continue;
        };
        let mut state = 1u64;
        let points: Vec<Point> = (0..1 << 16)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let filter = filters[(state >> 33) as usize % filters.len()];
                let noise = (state >> 20) as u32;
                let inside =
                    |(base, length): (u32, u8)| base | noise & u32::MAX.checked_shr(length.into()).unwrap_or(0);
                let service = u32::from(filter.protocol.unwrap_or(6)) << 16 | u32::from(filter.destination_ports.0);
                [
                    sources.rank(inside(filter.source)),
                    destinations.rank(inside(filter.destination)),
                    ports.rank(service),
                    source_ports.rank(u32::from(filter.source_ports.0)),
                ]
            })
            .collect();
        let wrong = points
            .iter()
            .take(2_000)
            .filter(|point| find(&classifier.words, &classifier.roots, **point) != linear(&rules, **point))
            .count();
        assert_eq!(wrong, 0);
        let began = std::time::Instant::now();
        let sum: u64 = (0..16)
            .flat_map(|_| &points)
            .map(|point| u64::from(find(&classifier.words, &classifier.roots, *point).unwrap_or(0)))
            .sum();
        let each = began.elapsed().as_nanos() as f64 / (16.0 * points.len() as f64);
        println!(
            "{kind} {count}: {} trees, {:?}, {} KB, {took:?} to build, {each:.1} ns, ranks {ranks:?} ({sum})",
            classifier.roots.len(),
            classifier.stats,
            classifier.words.len() / 128,
        );
    }
}
