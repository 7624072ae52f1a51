//! The table against a list of prefixes that is gone through from the longest to the shortest.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::block::ROOTS;
use super::*;

/// Memory with so many words behind the lines of root references.
fn memory<F: Family>(words: usize) -> Arc<Vec<AtomicU32>> {
    Arc::new((0..F::FIRST_BLOCK + words).map(|_| AtomicU32::new(0)).collect())
}

/// xorshift64*: the tests are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn key(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

/// What the table should answer: every length, from the longest.
struct Naive {
    routes: HashMap<(u128, u8), u16>,
    lengths: [u32; 129],
}

impl Naive {
    fn set(&mut self, key: u128, length: u8, group: Option<u16>) -> Option<u16> {
        let before = match group {
            Some(group) => self.routes.insert((key, length), group),
            None => self.routes.remove(&(key, length)),
        };
        let count = &mut self.lengths[usize::from(length)];
        *count = *count + u32::from(group.is_some()) - u32::from(before.is_some());
        before
    }

    fn find(&self, key: u128) -> u16 {
        let lengths = (0..=128).rev().filter(|length| self.lengths[usize::from(*length)] > 0);
        lengths
            .filter_map(|length| self.routes.get(&(Slot::new(key, length).base, length)))
            .next()
            .copied()
            .unwrap_or(0)
    }
}

/// Prefixes near each other, so that they cover each other and share blocks, and some anywhere.
fn prefix<F: Family>(random: &mut Random) -> (u128, u8) {
    let clusters = [0x0a00_0000_u128 << 96, 0xc0a8_0000 << 96, 0x2001_0db8 << 96, 0xffff_fff0 << 96, 0];
    let length = match random.below(4096) {
        // Each is a store for every slot of the first array that it covers.
        0 => random.below(u64::from(ROOT_BITS)) as u8,
        1..512 => F::BITS,
        512..2048 => 24 - random.below(6) as u8,
        _ => ROOT_BITS + random.below(u64::from(F::BITS - ROOT_BITS) + 1) as u8,
    };
    let spread = match random.below(4) {
        0 => random.key(),
        1 => random.key() >> 12,
        2 => random.key() >> 20 & !(u128::MAX >> 40) | random.key() & 0xff,
        _ => random.key() >> 26,
    };
    let base = clusters[random.below(5) as usize];
    let key = F::left(F::from_left(base ^ spread));
    (Slot::new(key, length).base, length)
}

/// Few groups, so that neighbours are often the same; one in eight does not fit in a byte.
fn group(random: &mut Random) -> u16 {
    let group = 1 + random.below(40) as u16;
    if group.is_multiple_of(8) { group + 1000 } else { group }
}

/// Blocks that references lead to, and those that wait, are what the arena counts.
fn check_memory<F: Family>(fib: &mut Fib<F, Arc<Vec<AtomicU32>>>) {
    let mut blocks = Vec::new();
    let mut away = 0;
    for place in 0..ROOTS {
        let before = blocks.len();
        fib.blocks_below(slot_of(place), fib.root(place), 0, &mut blocks).expect("a table");
        let outside = blocks.get(before).is_some_and(|((index, _), _)| *index >= F::FIRST_BLOCK);
        away += usize::from(outside && F::ROOTS_A_LINE < LINE);
    }
    let deepest = blocks.iter().map(|(_, level)| level + 1).max().unwrap_or(0);
    let levels: Vec<usize> = (0..deepest).map(|level| blocks.iter().filter(|(_, of)| *of == level).count()).collect();
    assert_eq!(*fib.depth(), Depth { levels, away });
    let mut blocks: Vec<Block> = blocks.into_iter().map(|(block, _)| block).collect();
    let elsewhere = |blocks: &[Block]| -> usize {
        let blocks = blocks.iter().filter(|(index, _)| *index >= F::FIRST_BLOCK);
        blocks.map(|(_, words)| words.next_multiple_of(2)).sum()
    };
    assert_eq!(fib.usage().words, F::FIRST_BLOCK + elsewhere(&blocks) + elsewhere(&fib.retired.0));
    let beside = blocks.iter().chain(&fib.retired.0).filter(|(index, _)| *index < F::FIRST_BLOCK);
    assert_eq!(fib.arena.words_beside_roots(), beside.map(|(_, words)| words).sum::<usize>());
    blocks.extend(&fib.retired.0);
    blocks.sort_unstable();
    assert!(blocks.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "blocks overlap");
}

/// Lets every reader finish, and every block that moves for it.
fn settle<F: Family>(fib: &mut Fib<F, Arc<Vec<AtomicU32>>>) {
    while !fib.retired.is_empty() {
        let retired = fib.retired();
        fib.reclaim(retired);
    }
}

/// Operations of the long test: two families, this many in all.
const OPERATIONS: u32 = 10_000_000;

fn many_operations<F: Family>(seed: u64) {
    let mut random = Random(seed);
    let mut fib = Fib::<F, _>::new(memory::<F>(1 << 20));
    let mut naive = Naive { routes: HashMap::new(), lengths: [0; 129] };
    let mut live: Vec<(u128, u8)> = Vec::new();
    for operation in 0..OPERATIONS / 2 {
        match random.below(8) {
            // Grows to some thousands and stays there.
            0 if random.below(4000) >= live.len() as u64 => {
                let (key, length) = prefix::<F>(&mut random);
                let group = group(&mut random);
                let before = fib.insert(F::from_left(key), length, group).unwrap();
                assert_eq!(before, naive.set(key, length, Some(group)));
                if before.is_none() {
                    live.push((key, length));
                }
            }
            1 if !live.is_empty() => {
                let (key, length) = live.swap_remove(random.below(live.len() as u64) as usize);
                assert_eq!(fib.remove(F::from_left(key), length).unwrap(), naive.set(key, length, None));
            }
            2 if !live.is_empty() => {
                let (key, length) = live[random.below(live.len() as u64) as usize];
                let group = group(&mut random);
                let before = fib.insert(F::from_left(key), length, group).unwrap();
                assert_eq!(before, naive.set(key, length, Some(group)));
            }
            _ => {
                // At, before and behind the ends of prefixes, and anywhere.
                let key = match live.get(random.below(live.len() as u64 + 1) as usize) {
                    Some((key, length)) => match random.below(4) {
                        0 => *key,
                        1 => Slot::new(*key, *length).last(),
                        2 => key.wrapping_sub(1),
                        _ => Slot::new(*key, *length).last().wrapping_add(random.key() >> 100),
                    },
                    None => random.key(),
                };
                let address = F::from_left(key);
                assert_eq!(find::<F>(fib.words(), address), naive.find(F::left(address)), "{address:x?}");
            }
        }
        if operation % 512 == 0 {
            let retired = fib.retired();
            fib.reclaim(retired);
        }
        if operation % (OPERATIONS / 8) == 0 {
            check_memory(&mut fib);
        }
    }
    for (key, length) in live {
        fib.remove(F::from_left(key), length).unwrap();
    }
    settle(&mut fib);
    assert_eq!(fib.usage().words, F::FIRST_BLOCK, "memory is lost");
    check_memory(&mut fib);
    assert!(fib.answers().is_empty());
}

#[test]
fn ip4_answers_as_the_list_does() {
    many_operations::<Ip4>(0x5eed_0004);
}

#[test]
fn dense_ip4_answers_as_the_list_does() {
    many_operations::<Ip4Dense>(0x5eed_0014);
}

#[test]
fn ip6_answers_as_the_list_does() {
    many_operations::<Ip6>(0x5eed_0006);
}

#[test]
fn the_ends_of_the_address_space_and_of_lengths() {
    let mut fib = Fib::<Ip4, _>::new(memory::<Ip4>(1 << 16));
    for (address, length, group) in [
        (0, 0, 1),
        (0, 1, 2),
        (0x8000_0000, 1, 3),
        (0xffff_ffff, 32, 4),
        (0, 32, 5),
        (0xffff_fffe, 31, 6),
        (0x0a00_0000, 18, 7),
        (0x0a00_0000, 19, 8),
    ] {
        assert_eq!(fib.insert(address, length, group).unwrap(), None);
    }
    let answers = [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_fffd, 0xffff_fffe, 0xffff_ffff, 0x0a00_1fff, 0x0a00_2000]
        .map(|address| find::<Ip4>(fib.words(), address));
    assert_eq!(answers, [5, 2, 2, 3, 3, 6, 4, 8, 7]);
    // Host bits do not count.
    assert_eq!(fib.get(0x0a00_1234, 19), Some(8));
    assert_eq!(fib.remove(0x0a00_1234, 19).unwrap(), Some(8));
    assert_eq!(find::<Ip4>(fib.words(), 0x0a00_0001), 7);
    assert_eq!(fib.longest(0x0a00_0001), Some(((0x0a00_0000, 18), 7)));
    assert_eq!(fib.remove(0, 1).unwrap(), Some(2));
    assert_eq!(find::<Ip4>(fib.words(), 1), 1, "the default route");
    assert_eq!(fib.remove(0, 0).unwrap(), Some(1));
    assert_eq!(find::<Ip4>(fib.words(), 1), 0);

    let mut fib = Fib::<Ip6, _>::new(memory::<Ip6>(1 << 16));
    let host = 0x2001_0db8_0000_0000_0000_0000_0000_0001;
    for (address, length, group) in
        [(0, 0, 1), (host, 128, 2), (host, 64, 3), (host, 127, 4), (host, 65, 5), (host, 63, 6)]
    {
        assert_eq!(fib.insert(address, length, group).unwrap(), None);
    }
    let answers = [host, host - 1, host + 1, host | 1 << 63, host | 1 << 64, host | 1 << 65]
        .map(|address| find::<Ip6>(fib.words(), address));
    assert_eq!(answers, [2, 4, 5, 3, 6, 1]);
}

#[test]
fn a_full_table_answers_as_before() {
    let mut fib = Fib::<Ip4, _>::new(memory::<Ip4>(BLOCK_REACH + 100));
    // More values than fit beside the root references: every one makes a block anew.
    let address = |number: u32| 0x0a00_0000 + number * 0x100;
    let group = |number: u32| 1 + (number % 7) as u16;
    let full = |fib: &mut Fib<Ip4, _>| {
        (0..1000).find(|number| match fib.insert(address(*number), 24, group(*number)) {
            Ok(_) => false,
            Err(full) => full.to_string().starts_with("the table is full"),
        })
    };
    let refused = full(&mut fib).expect("100 words do not hold 1000 prefixes");
    assert_eq!((find::<Ip4>(fib.words(), address(refused)), fib.get(address(refused), 24)), (0, None));
    assert!((0..refused).all(|number| find::<Ip4>(fib.words(), address(number) + 9) == group(number)));
    check_memory(&mut fib);
    // What has been retired makes room, once its readers have gone.
    let retired = fib.retired();
    assert!(!retired.is_empty());
    fib.reclaim(retired);
    assert_eq!(fib.insert(address(refused), 24, group(refused)).unwrap(), None);
    assert_eq!(find::<Ip4>(fib.words(), address(refused)), group(refused));
    // That there is room again and again has an end all the same.
    let mut last = refused;
    while let Some(refused) = full(&mut fib).filter(|refused| *refused > last) {
        last = refused;
        settle(&mut fib);
    }
    assert!(last < 1000);
    check_memory(&mut fib);
}

/// The last block that there is room for lies where the program may look.
#[test]
fn a_table_filled_to_the_brim_answers_from_its_last_block() {
    for more in 0..64 {
        let mut fib = Fib::<Ip4, _>::new(memory::<Ip4>(BLOCK_REACH + more));
        let mut known = Vec::new();
        for number in 0..1000u32 {
            let (address, group) = (0x0a00_0000 + number * 0x101, 1 + (number % 7) as u16);
            if fib.insert(address, 32, group).is_err() {
                break;
            }
            known.push((address, group));
            // Before the block goes home: the last place is only for a while that of one.
            for (address, group) in &known {
                assert_eq!(find::<Ip4>(fib.words(), *address), *group, "{address:#x} with {more} words more");
            }
            let retired = fib.retired();
            fib.reclaim(retired);
        }
        assert!(known.len() < 1000, "it is full");
    }
}

/// Whether a root reference's block lies beside it.
fn is_home(fib: &Fib<Ip4, Arc<Vec<AtomicU32>>>, address: u32) -> bool {
    let place = place_of(Ip4::left(address));
    let (index, _) = read::size_of(fib.words(), fib.root(place)).expect("a block");
    index / LINE == root_word::<Ip4>(place) / LINE
}

#[test]
fn blocks_lie_beside_their_root_references() {
    let words = memory::<Ip4>(1 << 12);
    let mut fib = Fib::<Ip4, _>::new(Arc::clone(&words));
    let (even, odd) = (0x0a00_0000, 0x0a00_4000);
    let insert = |fib: &mut Fib<Ip4, _>, first: u32, number: u32| {
        fib.insert(first + number * 0x200, 24, 1001 + number as u16).unwrap();
    };
    // The first version has its place there, the next one only when the readers of the first have gone.
    insert(&mut fib, even, 0);
    assert!(is_home(&fib, even) && fib.is_settled());
    insert(&mut fib, even, 1);
    assert!(!is_home(&fib, even));
    assert_eq!(*fib.depth(), Depth { levels: vec![1], away: 1 });
    let retired = fib.retired();
    fib.reclaim(retired);
    assert!(is_home(&fib, even) && !fib.is_settled());
    assert_eq!(*fib.depth(), Depth { levels: vec![1], away: 0 });
    assert!(!fib.retired.is_empty(), "where it was before");
    // Two blocks share what is left of a line: 14 words.
    (0..4).for_each(|number| insert(&mut fib, odd, number));
    settle(&mut fib);
    assert!(is_home(&fib, even) && is_home(&fib, odd));
    (2..8).for_each(|number| insert(&mut fib, even, number));
    settle(&mut fib);
    assert!(!is_home(&fib, even) && is_home(&fib, odd), "10 and 6 words");
    (1..4).for_each(|number| assert!(fib.remove(odd + number * 0x200, 24).unwrap().is_some()));
    settle(&mut fib);
    assert!(is_home(&fib, even) && is_home(&fib, odd), "10 and 3 words");
    check_memory(&mut fib);
    // A successor counts them where they are.
    let usage = fib.usage();
    let mut successor = Fib::<Ip4, _>::adopt(words).unwrap();
    assert_eq!(successor.usage().words, usage.words);
    check_memory(&mut successor);
}

#[test]
fn a_successor_takes_a_table_over_and_changes_only_differences() {
    let mut random = Random(11);
    let words = memory::<Ip6>(1 << 20);
    let mut fib = Fib::<Ip6, _>::new(Arc::clone(&words));
    for _ in 0..3000 {
        let (key, length) = prefix::<Ip6>(&mut random);
        fib.insert(key, length, group(&mut random)).unwrap();
        let retired = fib.retired();
        fib.reclaim(retired);
    }
    settle(&mut fib);
    let (routes, answers, usage) = (fib.routes().collect::<Vec<_>>(), fib.answers(), fib.usage());
    drop(fib);
    let mut fib = Fib::<Ip6, _>::adopt(Arc::clone(&words)).unwrap();
    assert_eq!((fib.answers(), fib.usage().words), (answers, usage.words));
    fib.replace(routes.clone()).unwrap();
    assert_eq!(fib.stores(), 0, "nothing is different");
    let (address, length) = routes.iter().map(|(prefix, _)| *prefix).find(|(_, length)| *length == 128).unwrap();
    let fewer = routes.iter().copied().filter(|(prefix, _)| *prefix != (address, length));
    fib.replace(fewer).unwrap();
    assert_eq!(fib.stores(), 1);
    check_memory(&mut fib);
    // Prefixes that answer as what covers them change nothing, however many they are.
    let stores = fib.stores();
    let (far, group) = (0x3fff_u128 << 112, 7);
    fib.insert(far, 32, group).unwrap();
    assert!((0..200).all(|n| fib.insert(far | n << 80, 48, group).unwrap().is_none()));
    fib.remove(far, 32).unwrap();
    let hole = fib.stores();
    assert!(hole > stores + 1, "what the 200 do not cover");
    fib.insert(far, 32, group).unwrap();
    let whole = fib.stores();
    assert!((0..200).all(|n| fib.remove(far | n << 80, 48).unwrap() == Some(group)));
    assert_eq!((fib.stores(), find::<Ip6>(fib.words(), far)), (whole, group));
    // What no table is, is not taken over.
    words[5].store(Ref(1 << 28 | 0x0fff_fffe).0, Ordering::Relaxed);
    assert!(Fib::<Ip6, _>::adopt(words).is_none());
}

#[test]
fn what_prefixes_are_read_back_cover_what_was_put_in() {
    let mut fib = Fib::<Ip4, _>::new(memory::<Ip4>(1 << 12));
    fib.insert(0x0a00_0000, 8, 1).unwrap();
    fib.insert(0x0a00_0000, 24, 2).unwrap();
    let answers = fib.answers();
    assert_eq!(answers[0], ((0x0a00_0000, 24), 2));
    assert!(answers.iter().skip(1).all(|(_, group)| *group == 1));
    let addresses: u64 = answers.iter().map(|((_, length), _)| 1u64 << (32 - length)).sum();
    assert_eq!(addresses, 1 << 24);
}

/// Threads that look up all the time and tell when they have passed a quiet moment, as programs in the kernel do to RCU.
struct Readers {
    over: Arc<AtomicBool>,
    quiet: Arc<Vec<AtomicU64>>,
    threads: Vec<thread::JoinHandle<HashMap<u16, u64>>>,
}

impl Readers {
    const COUNT: usize = 2;

    /// `look` draws an address and tells which groups it may have.
    fn start(words: &Arc<Vec<AtomicU32>>, look: fn(&mut Random) -> (u32, &'static [u16])) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let quiet: Arc<Vec<AtomicU64>> = Arc::new((0..Self::COUNT).map(|_| AtomicU64::new(0)).collect());
        let reader = |reader: usize| {
            let (words, over, quiet) = (Arc::clone(words), Arc::clone(&over), Arc::clone(&quiet));
            thread::spawn(move || {
                let mut random = Random(reader as u64 + 1);
                let mut seen = HashMap::new();
                while !over.load(Ordering::Relaxed) {
                    for _ in 0..64 {
                        let (address, allowed) = look(&mut random);
                        let group = find::<Ip4>(&words, address);
                        assert!(allowed.contains(&group), "{address:x} is at {group}");
                        *seen.entry(group).or_insert(0u64) += 1;
                    }
                    quiet[reader].fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                }
                seen
            })
        };
        let threads = (0..Self::COUNT).map(reader).collect();
        Self { over, quiet, threads }
    }

    /// Waits until no reader can be where it was when this was called.
    fn pass(&self) {
        let before: Vec<u64> = self.quiet.iter().map(|count| count.load(Ordering::SeqCst)).collect();
        // Two passes: the first may have begun before.
        while self.quiet.iter().zip(&before).any(|(count, before)| count.load(Ordering::SeqCst) < before + 2) {
            assert!(self.threads.iter().all(|thread| !thread.is_finished()), "a reader has met a wrong answer");
            thread::yield_now();
        }
    }

    /// How often each group was seen.
    fn stop(self) -> HashMap<u16, u64> {
        self.over.store(true, Ordering::Relaxed);
        let mut seen = HashMap::new();
        for reader in self.threads {
            for (group, count) in reader.join().unwrap() {
                *seen.entry(group).or_insert(0) += count;
            }
        }
        seen
    }
}

/// Readers look up addresses of four kinds while a writer changes what is around them: two that never change, one that
/// changes between two groups, and one that comes and goes. Freed memory is used anew only after each reader has passed a
/// quiet moment, as after an RCU grace period.
#[test]
fn readers_see_the_old_answer_or_the_new_one() {
    const CHANGES: u64 = 60_000;
    let words = memory::<Ip4>(1 << 18);
    let mut fib = Fib::<Ip4, _>::new(Arc::clone(&words));
    fib.insert(0x0a00_0000, 8, 1).unwrap();
    fib.insert(0x0a01_0000, 24, 2).unwrap();
    fib.insert(0x0a01_0180, 25, 3).unwrap();
    let readers = Readers::start(&words, |random| match random.below(4) {
        0 => (0x0a02_0000 + random.below(1 << 16) as u32, &[1, 20, 21]),
        1 => (0x0a01_0000 + random.below(256) as u32, &[2]),
        2 => (0x0a01_0180 + random.below(64) as u32, &[3, 30]),
        _ => (0x0a01_3f00 + random.below(256) as u32, &[1, 40, 41]),
    });
    let mut random = Random(99);
    for change in 0..CHANGES {
        let other = random.below(2) as u16;
        let (near, far) = (0x0a02_0000 + random.below(1 << 16) as u32, 0x0a01_0180 + random.below(64) as u32);
        let length = 18 + random.below(15) as u8;
        match random.below(5) {
            0 => fib.insert(near, length, 20 + other).map(drop),
            1 => fib.insert(far, length.max(26), if other == 0 { 30 } else { 3 }).map(drop),
            2 => fib.insert(0x0a01_3f00, 24, 40 + other).map(drop),
            3 => fib.remove(0x0a01_3f00, 24).map(drop),
            _ => fib.remove(near, length).map(drop),
        }
        .unwrap();
        if change % 64 == 0 {
            let retired = fib.retired();
            readers.pass();
            fib.reclaim(retired);
        }
    }
    let seen = readers.stop();
    for group in [1, 2, 3, 20, 21, 30, 40, 41] {
        assert!(seen.contains_key(&group), "no reader ever saw {group}: {seen:?}");
    }
    check_memory(&mut fib);
}

/// All changes are in the two blocks of one line, and after each one the block comes home, so that the same 14 words are written
/// over and over beside the references that every look-up begins with.
#[test]
fn readers_of_a_line_that_is_written_all_the_time() {
    const CHANGES: u64 = 5_000;
    let words = memory::<Ip4>(1 << 10);
    let mut fib = Fib::<Ip4, _>::new(Arc::clone(&words));
    fib.insert(0x0a00_0000, 8, 1).unwrap();
    let slash24 = |number: u64| 0x0a01_0000 + 0x1000 * number as u32;
    let readers = Readers::start(&words, |random| {
        let number = random.below(8);
        let (inside, address) = (random.below(2) == 0, 0x0a01_0000 + 0x1000 * number as u32 + random.below(256) as u32);
        match (inside, number % 2) {
            (false, _) => (address + 0x100, &[1]),
            (true, 0) => (address, &[1, 20, 21]),
            (true, _) => (address, &[1, 30, 31]),
        }
    });
    let mut random = Random(7);
    let mut homecomings = 0;
    for _ in 0..CHANGES {
        let number = random.below(8);
        let group = 20 + 10 * (number % 2) as u16 + random.below(2) as u16;
        match random.below(3) {
            0 => fib.remove(slash24(number), 24).map(drop),
            _ => fib.insert(slash24(number), 24, group).map(drop),
        }
        .unwrap();
        while !fib.retired.is_empty() {
            let retired = fib.retired();
            readers.pass();
            fib.reclaim(retired);
            homecomings += u64::from(!fib.retired.is_empty());
        }
    }
    let seen = readers.stop();
    for group in [1, 20, 21, 30, 31] {
        assert!(seen.contains_key(&group), "no reader ever saw {group}: {seen:?}");
    }
    assert!(homecomings > CHANGES / 4, "{homecomings}");
    check_memory(&mut fib);
}
