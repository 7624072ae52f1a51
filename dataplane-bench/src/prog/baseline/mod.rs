//! The kernel's primitives: what a table, a helper or a redirect costs, measured beside everything else.
//!
//! Each case is a program of `bpf/baseline.bpf.c` that takes the next of its keys and does one thing with it; the same
//! program without the thing is subtracted. Before anything is timed, a sample of the answers is compared with answers
//! computed here; while it is timed, every packet's outcome is.

mod check;
mod dir24;
pub(super) mod keys;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;

use anyhow::Context;
use libbpf_rs::{MapCore, MapFlags, OpenObject};

use super::bench::{Bench, Keeps, Label, Subject};
use super::kernel::{Control, HEAD_BYTES, Loaded, action, fill, image};
use super::sandbox::Sandbox;
use crate::result::Scale;
use check::Check;
use dir24::Dir24_8;
use keys::{CELLS, DESTINATION, Keys, N_1M, N_64K, Routes, Sets};

/// One primitive.
struct Primitive {
    case: &'static str,
    about: &'static str,
    program: &'static str,
    keys: Keys,
    /// XDP action of every packet.
    action: u32,
    check: Check,
    /// The maps that the program looks in, beside the keys.
    tables: &'static [Table],
}

/// A map of the object that has to be sized and filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Table {
    Hash64k,
    Hash1m,
    Lru64k,
    Lru1m,
    LruFull,
    Trie(Routes),
    Array16m,
    Dir24,
    Dir8,
    Counters,
    Devices,
    Callees,
}

/// Entries of the LRU map that inserts evict from.
const LRU_ENTRIES: usize = N_64K;
/// An LRU map evicts before the last entry is used, since each core keeps some free ones for itself.
const LRU_SLACK: usize = N_64K;
/// Entries of a page of the paged arrays (`lookup.h`).
const PAGE_ENTRIES: usize = 4096;

impl Table {
    const ALL: [Self; 16] = [
        Self::Hash64k,
        Self::Hash1m,
        Self::Lru64k,
        Self::Lru1m,
        Self::LruFull,
        Self::Trie(Routes::Ip4Thousand),
        Self::Trie(Routes::Ip4HundredThousand),
        Self::Trie(Routes::Ip4Million),
        Self::Trie(Routes::Ip6Thousand),
        Self::Trie(Routes::Ip6TwoHundredThousand),
        Self::Array16m,
        Self::Dir24,
        Self::Dir8,
        Self::Counters,
        Self::Devices,
        Self::Callees,
    ];

    /// Name of the map and its entries.
    fn map(self, dir: Option<&Dir24_8>) -> (&'static str, usize) {
        match self {
            Self::Hash64k => ("hash_64k", N_64K),
            Self::Hash1m => ("hash_1m", N_1M),
            Self::Lru64k => ("lru_64k", N_64K + LRU_SLACK),
            Self::Lru1m => ("lru_1m", N_1M + LRU_SLACK),
            Self::LruFull => ("lru_full", LRU_ENTRIES),
            Self::Trie(routes @ Routes::Ip4Thousand) => ("lpm4_1k", routes.count()),
            Self::Trie(routes @ Routes::Ip4HundredThousand) => ("lpm4_100k", routes.count()),
            Self::Trie(routes @ Routes::Ip4Million) => ("lpm4_1m", routes.count()),
            Self::Trie(routes @ Routes::Ip6Thousand) => ("lpm6_1k", routes.count()),
            Self::Trie(routes @ Routes::Ip6TwoHundredThousand) => ("lpm6_200k", routes.count()),
            Self::Array16m => ("array_16m", CELLS / PAGE_ENTRIES),
            Self::Dir24 => ("dir24", (1 << 24) / PAGE_ENTRIES),
            Self::Dir8 => ("dir8", dir.map_or(1, |dir| dir.second.len().div_ceil(PAGE_ENTRIES).max(1))),
            Self::Counters => ("counters", 64),
            Self::Devices => ("devices", 1),
            Self::Callees => ("callees", 1),
        }
    }

    fn fill(self, loaded: &Loaded, sets: &mut Sets, dir: Option<&Dir24_8>, sandbox: &Sandbox) -> anyhow::Result<()> {
        let map = loaded.map(self.map(dir).0)?;
        let number = |number: u32| number.to_ne_bytes().to_vec();
        let numbers = |count: usize| (0..count as u32).map(move |key| (number(key), number(!key)));
        match self {
            Self::Hash64k | Self::Lru64k => fill(&map, numbers(N_64K)),
            Self::Hash1m | Self::Lru1m => fill(&map, numbers(N_1M)),
            Self::Trie(routes) => fill(
                &map,
                sets.routes(routes).iter().map(|(length, network, next_hop)| {
                    let network = network.to_be_bytes();
                    let address =
                        if Keys::In(routes).is_ip6() { &network[..] } else { network.get(12..).unwrap_or(&[]) };
                    ([&u32::from(length).to_ne_bytes()[..], address].concat(), number(next_hop))
                }),
            ),
            Self::Array16m => {
                let cell =
                    |page: u32| (0..PAGE_ENTRIES as u32).flat_map(move |i| number(!(page * PAGE_ENTRIES as u32 + i)));
                pages(&map, (0..(CELLS / PAGE_ENTRIES) as u32).map(|page| cell(page).collect()))
            }
            Self::Dir24 => pages(&map, page16(dir.map(|dir| &dir.first))),
            Self::Dir8 => pages(&map, page16(dir.map(|dir| &dir.second))),
            Self::LruFull | Self::Counters => Ok(()),
            Self::Devices => Ok(map.update(&number(0), &number(sandbox.egress), MapFlags::ANY)?),
            Self::Callees => {
                let callee = loaded.program("bench_tail_callee")?;
                Ok(map.update(&number(0), &callee.as_fd().as_raw_fd().to_ne_bytes(), MapFlags::ANY)?)
            }
        }
        .with_context(|| format!("filling {self:?}"))
    }
}

/// Bytes of the pages of a table of 16-bit entries, the last one padded.
fn page16(entries: Option<&Vec<u16>>) -> impl Iterator<Item = Vec<u8>> + '_ {
    entries.into_iter().flat_map(|entries| entries.chunks(PAGE_ENTRIES)).map(|page| {
        let mut bytes: Vec<u8> = page.iter().flat_map(|entry| entry.to_ne_bytes()).collect();
        bytes.resize(PAGE_ENTRIES * 2, 0);
        bytes
    })
}

fn pages(map: &impl MapCore, pages: impl Iterator<Item = Vec<u8>>) -> anyhow::Result<()> {
    for (index, page) in (0u32..).zip(pages) {
        map.update(&index.to_ne_bytes(), &page, MapFlags::ANY)?;
    }
    Ok(())
}

/// Every primitive, in the order of the report.
fn all() -> Vec<Primitive> {
    use Keys as K;
    use Table as T;
    let case = |case, about, program, keys, check, tables| {
        let action = if matches!(check, Check::Absent) { action::DROP } else { action::PASS };
        Primitive { case, about, program, keys, action, check, tables }
    };
    let redirects = |primitive: Primitive| Primitive { action: action::REDIRECT, ..primitive };
    vec![
        case("empty", "a program that returns at once; net: twice the same", EMPTY, K::One, Check::None, &[]),
        case("hash-hit-hot", "hash map of 65,536, one key", "bench_hash_64k", K::One, Check::Complement, &[T::Hash64k]),
        case("hash-hit-64k", "the same, all keys", "bench_hash_64k", K::Below64k, Check::Complement, &[T::Hash64k]),
        case("hash-hit-1m", "hash map of 2^20, all keys", "bench_hash_1m", K::Below1m, Check::Complement, &[T::Hash1m]),
        case(
            "hash-miss",
            "hash map of 65,536, as many other keys",
            "bench_hash_64k",
            K::Absent,
            Check::Absent,
            &[T::Hash64k],
        ),
        case(
            "lru-hit-hot",
            "LRU hash map with 65,536 keys, one key",
            "bench_lru_64k",
            K::One,
            Check::Complement,
            &[T::Lru64k],
        ),
        case("lru-hit-64k", "the same, all keys", "bench_lru_64k", K::Below64k, Check::Complement, &[T::Lru64k]),
        case(
            "lru-hit-1m",
            "LRU hash map with 2^20 keys, all keys",
            "bench_lru_1m",
            K::Below1m,
            Check::Complement,
            &[T::Lru1m],
        ),
        case(
            "lru-insert",
            "full LRU hash map of 65,536, a new key each time: one goes, one comes",
            "bench_lru_insert",
            K::Below1m,
            Check::Evicts,
            &[T::LruFull],
        ),
        trie("lpm4-1k", "LPM trie, 1,000 prefixes, 65,536 addresses", "bench_lpm4_1k", Routes::Ip4Thousand),
        trie("lpm4-100k", "LPM trie, 100,000 prefixes, 2^18 addresses", "bench_lpm4_100k", Routes::Ip4HundredThousand),
        trie("lpm4-1m-random", "LPM trie, 10^6 prefixes, 2^20 addresses", "bench_lpm4_1m", Routes::Ip4Million),
        trie("lpm6-1k", "LPM trie, IPv6, 1,000 prefixes, 65,536 addresses", "bench_lpm6_1k", Routes::Ip6Thousand),
        trie(
            "lpm6-200k-random",
            "LPM trie, IPv6, 200,000 prefixes, 2^18 addresses",
            "bench_lpm6_200k",
            Routes::Ip6TwoHundredThousand,
        ),
        case(
            "dir24-8-1m-random",
            "DIR-24-8 in array maps: the prefixes and addresses of lpm4-1m-random",
            "bench_dir24_8",
            K::In(Routes::Ip4Million),
            Check::NextHop(Routes::Ip4Million),
            &[T::Dir24, T::Dir8],
        ),
        case("array-hot", "array map of 64 MiB, one element", "bench_array", K::One, Check::Complement, &[T::Array16m]),
        case(
            "array-16m-random",
            "the same, 2^20 of its 2^24 elements",
            "bench_array",
            K::Cells,
            Check::Complement,
            &[T::Array16m],
        ),
        case(
            "percpu-counter",
            "counter in a per-CPU array of 64",
            "bench_percpu_counter",
            K::Counters,
            Check::Counts,
            &[T::Counters],
        ),
        case(
            "fib-lookup-forward",
            "bpf_fib_lookup: route, neighbour, rules",
            "bench_fib_lookup",
            K::Destination,
            Check::Neighbour,
            &[],
        ),
        redirects(case(
            "fib-lookup-router",
            "parse, bpf_fib_lookup, TTL, both MACs, redirect",
            "bench_router",
            K::Destination,
            Check::Neighbour,
            &[],
        )),
        redirects(case("redirect", "bpf_redirect, without what follows it", "bench_redirect", K::One, Check::Key, &[])),
        redirects(case(
            "redirect-map",
            "bpf_redirect_map to a DEVMAP, without what follows it",
            "bench_redirect_map",
            K::One,
            Check::Key,
            &[T::Devices],
        )),
        case(
            "adjust-head",
            "bpf_xdp_adjust_head twice: 20 bytes out and back",
            "bench_adjust_head",
            K::One,
            Check::Key,
            &[],
        ),
        case(
            "adjust-tail",
            "bpf_xdp_adjust_tail twice: 20 bytes out and back",
            "bench_adjust_tail",
            K::One,
            Check::Key,
            &[],
        ),
        case("ktime", "bpf_ktime_get_ns", "bench_ktime", K::One, Check::Clock, &[]),
        case("jiffies", "bpf_jiffies64", "bench_jiffies", K::One, Check::Jiffies, &[]),
        case("csum-diff", "bpf_csum_diff of 4 bytes", "bench_csum_diff", K::Below64k, Check::Checksum, &[]),
        case("tail-call", "tail call, constant index", "bench_tail_call", K::One, Check::Key, &[T::Callees]),
    ]
}

const EMPTY: &str = "bench_empty";

fn trie(case: &'static str, about: &'static str, program: &'static str, routes: Routes) -> Primitive {
    let tables: &[Table] = match routes {
        Routes::Ip4Thousand => &[Table::Trie(Routes::Ip4Thousand)],
        Routes::Ip4HundredThousand => &[Table::Trie(Routes::Ip4HundredThousand)],
        Routes::Ip4Million => &[Table::Trie(Routes::Ip4Million)],
        Routes::Ip6Thousand => &[Table::Trie(Routes::Ip6Thousand)],
        Routes::Ip6TwoHundredThousand => &[Table::Trie(Routes::Ip6TwoHundredThousand)],
    };
    let (keys, check) = (Keys::In(routes), Check::NextHop(routes));
    Primitive { case, about, program, keys, action: action::PASS, check, tables }
}

impl Primitive {
    fn label(&self) -> Label {
        let case = format!("baseline/{}", self.case);
        let rival = (self.program == "bench_dir24_8").then_some("baseline/lpm4-1m-random");
        Label { case, about: self.about.to_owned(), baseline: true, rival, scale: self.scale() }
    }

    /// Tables of several sizes are points of a curve.
    fn scale(&self) -> Option<Scale> {
        let (family, unit, value) = match (self.check, self.tables) {
            (Check::NextHop(routes), [Table::Trie(_)]) if self.keys.is_ip6() => {
                ("LPM trie, IPv6", "prefixes", routes.count())
            }
            (Check::NextHop(routes), [Table::Trie(_)]) => ("LPM trie, IPv4", "prefixes", routes.count()),
            (Check::Complement, [Table::Hash64k | Table::Hash1m]) => ("hash hit", "flows", self.keys.count()),
            (Check::Complement, [Table::Lru64k | Table::Lru1m]) => ("LRU hash hit", "flows", self.keys.count()),
            _ => return None,
        };
        Some(Scale { family: family.to_owned(), unit: unit.to_owned(), value: value as f64 })
    }

    /// The program without the primitive.
    fn harness(&self) -> &'static str {
        match self.program {
            EMPTY => EMPTY,
            "bench_router" => "bench_routed",
            _ if self.keys.is_ip6() => "bench_key6",
            _ => "bench_key4",
        }
    }
}

/// Every case there is.
pub(super) fn labels() -> Vec<Label> {
    all().iter().map(Primitive::label).collect()
}

/// Loads the programs of the cases that `wanted` names, fills their tables and checks their answers.
pub(super) fn prepare(wanted: impl Fn(&str) -> bool, sandbox: &Sandbox) -> anyhow::Result<Vec<Bench>> {
    let cases: Vec<Primitive> = all().into_iter().filter(|case| wanted(&case.label().case)).collect();
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    let mut sets = Sets::default();
    let uses = |table| cases.iter().any(|case| case.tables.contains(&table));
    let dir = if uses(Table::Dir24) {
        let tables = Dir24_8::build(&sets.routes(Routes::Ip4Million))?;
        check::dir24(&tables, &mut sets)?;
        Some(tables)
    } else {
        None
    };
    let places = Places::of(&cases, &mut sets);

    let mut programs: Vec<&str> = cases.iter().flat_map(|case| [case.program, case.harness()]).collect();
    if uses(Table::Callees) {
        programs.push("bench_tail_callee");
    }
    let loaded = Loaded::load(image!("baseline"), &programs, |open| {
        for table in Table::ALL {
            let (map, entries) = table.map(dir.as_ref());
            size(open, map, if uses(table) { Some(entries) } else { None })?;
        }
        size(open, "keys4", Some(places.keys4.len().max(1)))?;
        size(open, "keys6", Some(places.keys6.len().max(1)))?;
        sandbox.tell(open)
    })?;
    places.write(&loaded)?;
    for table in Table::ALL.into_iter().filter(|table| uses(*table)) {
        table.fill(&loaded, &mut sets, dir.as_ref(), sandbox)?;
    }
    let subject = Rc::new(Subject { loaded, _keeps: Keeps::Nothing });
    let mut benches = Vec::with_capacity(cases.len());
    for case in &cases {
        let mut bench = places.bench(case, &subject, sandbox)?;
        case.check
            .run(&mut bench, case.keys, &mut sets, sandbox)
            .with_context(|| format!("case {} does not do what it says", bench.label.case))?;
        benches.push(bench);
    }
    Ok(benches)
}

/// Sizes a map, or leaves it out: some of them take 100 MB.
fn size(open: &mut OpenObject, name: &str, entries: Option<usize>) -> anyhow::Result<()> {
    let mut map = open.maps_mut().find(|map| map.name() == name).with_context(|| format!("no map {name}"))?;
    match entries {
        Some(entries) => map.set_max_entries(u32::try_from(entries)?)?,
        None => map.set_autocreate(false)?,
    }
    Ok(())
}

/// Where each set of keys lies in the maps of keys.
#[derive(Debug, Default)]
struct Places {
    keys4: Vec<u64>,
    keys6: Vec<u128>,
    /// First key and number of keys.
    at: BTreeMap<Keys, (usize, usize)>,
}

impl Places {
    fn of(cases: &[Primitive], sets: &mut Sets) -> Self {
        let mut places = Self::default();
        for case in cases {
            if places.at.contains_key(&case.keys) {
                continue;
            }
            let keys = sets.keys(case.keys);
            let first = if case.keys.is_ip6() { places.keys6.len() } else { places.keys4.len() };
            places.at.insert(case.keys, (first, keys.len()));
            if case.keys.is_ip6() {
                places.keys6.extend(keys.iter());
            } else {
                places.keys4.extend(keys.iter().map(|key| *key as u64));
            }
        }
        places
    }

    fn write(&self, loaded: &Loaded) -> anyhow::Result<()> {
        let index = |index: u32| index.to_ne_bytes().to_vec();
        let keys4 = self.keys4.iter().map(|key| key.to_ne_bytes().to_vec());
        fill(&loaded.map("keys4")?, (0u32..).map(index).zip(keys4))?;
        let keys6 = self.keys6.iter().map(|key| key.to_be_bytes().to_vec());
        fill(&loaded.map("keys6")?, (0u32..).map(index).zip(keys6))
    }

    fn bench(&self, case: &Primitive, subject: &Rc<Subject>, sandbox: &Sandbox) -> anyhow::Result<Bench> {
        let (first, count) = *self.at.get(&case.keys).context("a case without keys")?;
        let control =
            Control { next: 0, mask: u32::try_from(count - 1)?, first: u32::try_from(first)?, expected: case.action };
        Ok(Bench {
            label: case.label(),
            subject: Rc::clone(subject),
            without: case.harness(),
            with: case.program,
            frame: vec![0; HEAD_BYTES],
            frame_state: None,
            ingress: Some(sandbox.ingress),
            control,
        })
    }
}

/// The route that `baseline/fib-lookup-forward` looks up.
pub(super) fn destination() -> Ipv4Addr {
    Ipv4Addr::from(DESTINATION)
}
