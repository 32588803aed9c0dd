//! What an index is to hold, beside a hash map, and where hashes crowd.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

proptest! {
    #[test]
    fn it_holds_what_a_hash_map_holds(seed: u64, operations in 1..6000usize, spread in 8..32u32) {
        let mut index = Index::new(10_000, 5_000).unwrap();
        let mut twin: HashMap<u32, u32> = HashMap::new();
        let mut free: Vec<u32> = Vec::new();
        let mut state = seed | 1;
        for _ in 0..operations {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // Few hash bits make long runs of equal homes and equal hashes.
            let hash = ((state >> 33) as u32) << (32 - spread);
            if state >> 62 == 0 && !twin.is_empty() {
                let slot = *twin.keys().nth(state as usize % twin.len()).unwrap();
                twin.remove(&slot);
                index.remove(slot);
                free.push(slot);
            } else if state >> 60 == 15 && !twin.is_empty() {
                let slot = *twin.keys().nth(state as usize % twin.len()).unwrap();
                let hash = twin.remove(&slot).unwrap();
                let new = free.pop().unwrap_or(either(twin.len() as u32 + 1));
                index.replace(slot, new);
                prop_assert_eq!(index.find(hash, |s| s == slot), None);
                prop_assert_eq!(index.find(hash, |s| s == new), Some(new));
                twin.insert(new, hash);
                free.push(slot);
            } else {
                let slot = free.pop().unwrap_or(either(twin.len() as u32));
                let is_alone = index.find(hash, |_| true).is_none();
                if state >> 61 & 1 == 0 && index.insert_plainly(hash, slot) {
                    prop_assert!(is_alone);
                } else if state >> 63 == 0 {
                    index.insert(hash, slot).unwrap();
                } else {
                    let found = index.find_or_insert(hash, slot, |s| s == slot);
                    prop_assert_eq!(found.unwrap(), None);
                }
                let found = index.find_or_insert(hash, slot, |s| s == slot);
                prop_assert_eq!(found.unwrap(), Some(slot));
                twin.insert(slot, hash);
            }
            prop_assert_eq!(index.live, twin.len());
        }
        for (&slot, &hash) in &twin {
            prop_assert_eq!(index.find(hash, |s| s == slot), Some(slot));
            prop_assert!(index.candidate(hash).is_some());
            prop_assert_eq!(index.find(hash ^ 1, |s| s == slot), None);
        }
        // And loses all, perhaps in the midst of growing.
        for (&slot, &hash) in &twin {
            index.remove(slot);
            prop_assert_eq!(index.find(hash, |s| s == slot), None);
        }
        prop_assert_eq!(index.live, 0);
        let left = index.region.as_slice().iter().filter(|bucket| bucket.state != 0);
        prop_assert_eq!(left.count(), 0);
    }
}

/// Slots of both kinds, the first and the second of a line in turn.
fn either(number: u32) -> u32 {
    number >> 1 | (number & 1) << 31
}

fn goes_on(index: &Index) -> usize {
    index.region.as_slice().iter().filter(|bucket| bucket.goes_on()).count()
}

#[test]
fn a_plain_insertion_is_refused_where_there_is_more_to_it() {
    let mut index = Index::new(2000, 2000).unwrap();
    let hash = |home: u32, tag: u32| home << SMALLEST_SHIFT | tag;
    assert!(!index.insert_plainly(hash(5, 0), 0), "the first");
    index.insert(hash(5, 0), 0).unwrap();
    assert!(!index.insert_plainly(hash(5, 0), 1), "one like it is there");
    for slot in 1..CELLS as u32 {
        assert!(index.insert_plainly(hash(5, slot), slot));
    }
    assert!(!index.insert_plainly(hash(5, 10), 10), "no room at home");
    index.insert(hash(5, 10), 10).unwrap();
    index.remove(3);
    assert!(!index.insert_plainly(hash(5, 11), 3), "something had to go on from there");
    index.insert(hash(5, 11), 3).unwrap();
    // The homes behind, in turn.
    let other = |slot: u32| hash(8 + slot % 100, slot);
    let mut slots = 11..2000;
    let plain = slots.by_ref().take_while(|&slot| index.insert_plainly(other(slot), slot)).count();
    assert_eq!((plain + 11, index.unmoved), (SMALLEST * MOST_PER_HOME, 0), "it has to grow");
    index.insert(other(1), 1999).unwrap();
    while index.unmoved > 0 {
        let slot = slots.next().unwrap();
        assert!(!index.insert_plainly(other(slot), slot), "it grows");
        index.insert(other(slot), slot).unwrap();
    }
    assert!(index.insert_plainly(hash(0, 7), slots.next().unwrap()));
    for slot in 0..11 {
        assert_eq!(index.find(hash(5, if slot == 3 { 11 } else { slot }), |s| s == slot), Some(slot));
    }
    index.clear();
    assert!(!index.insert_plainly(1, 0), "the first again");
    let mut index = Index::new(3, 3).unwrap();
    index.insert(hash(0, 0), 0).unwrap();
    let plain = (1..10).take_while(|&slot| index.insert_plainly(hash(slot, slot), slot)).count();
    assert_eq!(plain, 2, "it is full");
}

#[test]
fn growing_leaves_no_bucket_that_goes_on_for_nothing() {
    let hash = |slot: u32| slot.wrapping_mul(0x9e37_79b9) ^ slot.wrapping_mul(0x85eb_ca6b).rotate_left(13);
    let mut index = Index::new(200_000, 200_000).unwrap();
    let mut most_at_growth = 0;
    for slot in 0..120_000 {
        let homes = index.homes();
        index.insert(hash(slot), slot).unwrap();
        if index.homes() > homes {
            most_at_growth = most_at_growth.max(goes_on(&index));
        }
    }
    assert_eq!(index.unmoved, 0, "the last growth has ended");
    let after = goes_on(&index);
    assert!(most_at_growth > 100 && after < most_at_growth / 4, "{after} of {most_at_growth}");
    for slot in 0..120_000 {
        assert_eq!(index.find(hash(slot), |s| s == slot), Some(slot));
        index.remove(slot);
    }
    assert_eq!((index.live, goes_on(&index)), (0, 0));
    assert!(index.region.as_slice().iter().all(|bucket| bucket.state == 0));
}

#[test]
fn an_index_so_big_that_tags_tell_where_cells_move_loses_nothing_while_it_grows() {
    let hash = |slot: u32| slot.wrapping_mul(0x9e37_79b9) ^ slot.wrapping_mul(0x85eb_ca6b).rotate_left(13);
    let mut index = Index::new(900_000, 450_000).unwrap();
    let is_left = |slot: u32, next: u32| !slot.is_multiple_of(3) || next - slot < 1000;
    for slot in 0..900_000u32 {
        index.insert(hash(slot), either(slot)).unwrap();
        if slot >= 1000 && slot % 3 == 1 {
            index.remove(either(slot - 1000));
        }
        if slot % 10_000 == 0 && index.unmoved != 0 {
            let found =
                (0..slot).filter(|&one| index.find(hash(one), |s| s == either(one)).is_some()).count();
            assert_eq!(found, (0..slot).filter(|&one| is_left(one, slot)).count(), "at {slot}");
        }
    }
    assert!(index.shift < u16::BITS, "{}", index.shift);
    assert!(index.octets() <= 900_000 * 2 / 3 / MOST_PER_HOME * 2 * 64, "{}", index.octets());
    for slot in 0..900_000 {
        let is_there = index.find(hash(slot), |s| s == either(slot)).is_some();
        assert_eq!(is_there, is_left(slot, 899_999), "{slot}");
        assert_eq!(index.find(hash(slot), |s| s == either(slot) ^ 1 << 20), None);
        if is_there {
            index.remove(either(slot));
        }
    }
    assert_eq!((index.live, goes_on(&index)), (0, 0));
    assert!(index.region.as_slice().iter().all(|bucket| bucket.state == 0));
}

#[test]
fn what_crowds_at_the_last_homes_is_not_lost_when_the_index_grows() {
    for (most, hash) in [(1000, u32::MAX), (1000, u32::MAX >> 1), (5000, u32::MAX - 1)] {
        let mut index = Index::new(most + 700, most + 700).unwrap();
        let fitted = (0..700).take_while(|&slot| index.insert(hash, slot).is_ok()).count() as u32;
        assert!(fitted >= 650, "{fitted}");
        for slot in 0..fitted {
            assert_eq!(index.find(hash, |s| s == slot), Some(slot), "{slot} of {fitted}");
        }
        // Others make it grow on, past those that crowd.
        let others: Vec<u32> = (0..most as u32).map(|number| number.wrapping_mul(0x9E37_79B9) >> 1).collect();
        for (&other, slot) in others.iter().zip(fitted..) {
            index.insert(other, slot).unwrap();
        }
        for slot in 0..fitted {
            assert_eq!(index.find(hash, |s| s == slot), Some(slot), "{slot} of {fitted}, among others");
            index.remove(slot);
        }
        for (&other, slot) in others.iter().zip(fitted..) {
            assert_eq!(index.find(other, |s| s == slot), Some(slot));
        }
        assert_eq!(index.live, others.len());
    }
}

#[test]
fn what_does_not_fit_is_refused_and_what_is_there_stays() {
    let mut index = Index::new(2000, 2000).unwrap();
    let hash = u32::MAX - 6;
    let fitted = (0..2000).take_while(|&slot| index.insert(hash, slot).is_ok()).count() as u32;
    assert!((600..2000).contains(&fitted), "{fitted}");
    for slot in 0..fitted {
        assert_eq!(index.find(hash, |s| s == slot), Some(slot));
        index.remove(slot);
    }
    assert_eq!((index.live, index.find(hash, |_| true), goes_on(&index)), (0, None, 0));
}
