//! The table against a list of prefixes that is gone through from the longest to the shortest.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::*;

fn memory(words: usize) -> Arc<Vec<AtomicU32>> {
    Arc::new((0..ROOT_WORDS + words).map(|_| AtomicU32::new(0)).collect())
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

/// Blocks that references lead to, and those that wait, are what the arena counts.
fn check_memory<F: Family>(fib: &mut Fib<F, Arc<Vec<AtomicU32>>>) {
    let mut blocks = Vec::new();
    for place in 0..ROOT_WORDS {
        fib.blocks_below(slot_of(place), fib.root(place), &mut blocks).expect("a table");
    }
    let rounded = |blocks: &[Block]| blocks.iter().map(|(_, words)| words.next_multiple_of(2)).sum::<usize>();
    assert_eq!(fib.usage().words, FIRST_BLOCK + rounded(&blocks) + rounded(&fib.retired.0));
    blocks.extend(&fib.retired.0);
    blocks.sort_unstable();
    assert!(blocks.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "blocks overlap");
}

/// Operations of the long test: two families, this many in all.
const OPERATIONS: u32 = 10_000_000;

fn many_operations<F: Family>(seed: u64) {
    let mut random = Random(seed);
    let mut fib = Fib::<F, _>::new(memory(1 << 20));
    let mut naive = Naive { routes: HashMap::new(), lengths: [0; 129] };
    let mut live: Vec<(u128, u8)> = Vec::new();
    for operation in 0..OPERATIONS / 2 {
        match random.below(8) {
            // Grows to some thousands and stays there.
            0 if random.below(4000) >= live.len() as u64 => {
                let (key, length) = prefix::<F>(&mut random);
                let group = 1 + random.below(40) as u16;
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
                let group = 1 + random.below(40) as u16;
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
    let retired = fib.retired();
    fib.reclaim(retired);
    assert_eq!(fib.usage().words, FIRST_BLOCK, "memory is lost");
    assert!(fib.answers().is_empty());
}

#[test]
fn ip4_answers_as_the_list_does() {
    many_operations::<Ip4>(0x5eed_0004);
}

#[test]
fn ip6_answers_as_the_list_does() {
    many_operations::<Ip6>(0x5eed_0006);
}

#[test]
fn the_ends_of_the_address_space_and_of_lengths() {
    let mut fib = Fib::<Ip4, _>::new(memory(1 << 16));
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

    let mut fib = Fib::<Ip6, _>::new(memory(1 << 16));
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
    let mut fib = Fib::<Ip4, _>::new(memory(BLOCK_REACH + 100));
    let mut refused = None;
    for number in 0..1000u32 {
        let address = 0x0a00_0000 + number * 0x1_0000;
        match fib.insert(address, 24, 7) {
            Ok(before) => assert_eq!(before, None),
            Err(full) => {
                assert!(full.to_string().starts_with("the table is full"), "{full}");
                refused = Some(address);
                break;
            }
        }
    }
    let refused = refused.expect("100 words do not hold 1000 prefixes");
    assert_eq!((find::<Ip4>(fib.words(), refused), fib.get(refused, 24)), (0, None));
    assert_eq!(find::<Ip4>(fib.words(), 0x0a00_0001), 7);
    check_memory(&mut fib);
    // What is taken away makes room, once its readers have gone.
    fib.remove(0x0a00_0000, 24).unwrap();
    let retired = fib.retired();
    assert!(!retired.is_empty());
    fib.reclaim(retired);
    assert_eq!(fib.insert(refused, 24, 9).unwrap(), None);
    assert_eq!(find::<Ip4>(fib.words(), refused), 9);
}

#[test]
fn a_successor_takes_a_table_over_and_changes_only_differences() {
    let mut random = Random(11);
    let words = memory(1 << 20);
    let mut fib = Fib::<Ip6, _>::new(Arc::clone(&words));
    for _ in 0..3000 {
        let (key, length) = prefix::<Ip6>(&mut random);
        fib.insert(key, length, 1 + random.below(40) as u16).unwrap();
        let retired = fib.retired();
        fib.reclaim(retired);
    }
    let retired = fib.retired();
    fib.reclaim(retired);
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
    let mut fib = Fib::<Ip4, _>::new(memory(1 << 12));
    fib.insert(0x0a00_0000, 8, 1).unwrap();
    fib.insert(0x0a00_0000, 24, 2).unwrap();
    let answers = fib.answers();
    assert_eq!(answers[0], ((0x0a00_0000, 24), 2));
    assert!(answers.iter().skip(1).all(|(_, group)| *group == 1));
    let addresses: u64 = answers.iter().map(|((_, length), _)| 1u64 << (32 - length)).sum();
    assert_eq!(addresses, 1 << 24);
}

/// Readers look up addresses of four kinds while a writer changes what is around them: two that never change, one that
/// changes between two groups, and one that comes and goes. Freed memory is used anew only after each reader has passed a
/// quiet moment, as after an RCU grace period.
#[test]
fn readers_see_the_old_answer_or_the_new_one() {
    const READERS: usize = 2;
    const CHANGES: u64 = 60_000;
    let words = memory(1 << 18);
    let mut fib = Fib::<Ip4, _>::new(Arc::clone(&words));
    fib.insert(0x0a00_0000, 8, 1).unwrap();
    fib.insert(0x0a01_0000, 24, 2).unwrap();
    fib.insert(0x0a01_0180, 25, 3).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let quiet: Arc<Vec<AtomicU64>> = Arc::new((0..READERS).map(|_| AtomicU64::new(0)).collect());
    let readers: Vec<_> = (0..READERS)
        .map(|reader| {
            let (words, over, quiet) = (Arc::clone(&words), Arc::clone(&over), Arc::clone(&quiet));
            thread::spawn(move || {
                let mut random = Random(reader as u64 + 1);
                let mut seen = HashMap::new();
                while !over.load(Ordering::Relaxed) {
                    for _ in 0..64 {
                        let (address, allowed): (u32, &[u16]) = match random.below(4) {
                            0 => (0x0a02_0000 + random.below(1 << 16) as u32, &[1, 20, 21]),
                            1 => (0x0a01_0000 + random.below(256) as u32, &[2]),
                            2 => (0x0a01_0180 + random.below(64) as u32, &[3, 30]),
                            _ => (0x0a01_3f00 + random.below(256) as u32, &[1, 40, 41]),
                        };
                        let group = find::<Ip4>(&words, address);
                        assert!(allowed.contains(&group), "{address:x} is at {group}");
                        *seen.entry(group).or_insert(0u64) += 1;
                    }
                    quiet[reader].fetch_add(1, Ordering::SeqCst);
                }
                seen
            })
        })
        .collect();
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
            let before: Vec<u64> = quiet.iter().map(|count| count.load(Ordering::SeqCst)).collect();
            // Two passes: the first may have begun before the blocks were retired.
            while quiet.iter().zip(&before).any(|(count, before)| count.load(Ordering::SeqCst) < before + 2) {
                thread::yield_now();
            }
            fib.reclaim(retired);
        }
    }
    over.store(true, Ordering::Relaxed);
    let mut seen = HashMap::new();
    for reader in readers {
        for (group, count) in reader.join().unwrap() {
            *seen.entry(group).or_insert(0) += count;
        }
    }
    for group in [1, 2, 3, 20, 21, 30, 40, 41] {
        assert!(seen.contains_key(&group), "no reader ever saw {group}: {seen:?}");
    }
    check_memory(&mut fib);
}
