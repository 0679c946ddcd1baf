//! Which objects serve and which are garbage, as a table.

use proptest::prelude::*;

use super::*;
use crate::lineage::EpochStart;

fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
    let entries = entries.iter().map(|&(epoch, start_offset)| EpochStart { epoch, start_offset });
    LeaderEpochs::new(entries.collect()).unwrap()
}

fn object(base_offset: i64, last_offset: i64, leader_epoch: i32, log_bytes: u64) -> ObjectName {
    ObjectName { base_offset, last_offset, leader_epoch, max_timestamp: 0, log_bytes }
}

fn compacted(to: i64) -> Facts {
    compacted_in(to, None)
}

fn compacted_in(to: i64, epoch: Option<i32>) -> Facts {
    Facts::Read { leader_epochs: epochs(&[(1, 0)]), compaction: Compaction { to, epoch } }
}

fn chosen(objects: &[(ObjectName, Facts)], start_offset: i64, history: &LeaderEpochs) -> Selection {
    let view = View { start_offset, end_offset: i64::MAX, leader_epochs: history, keys_end: i64::MAX };
    select(&objects.iter().cloned().collect(), &view)
}

fn served(selection: &Selection) -> Vec<(i64, i64, i64)> {
    selection.chain.iter().map(|link| (link.from, link.to, link.name.base_offset)).collect()
}

#[test]
fn a_plain_chain_is_judged_by_names_alone() {
    let objects = [
        (object(0, 9, 1, 5), Facts::Unread),
        (object(10, 14, 1, 5), Facts::Unread),
        (object(20, 29, 2, 5), Facts::Unread),
    ];
    let selection = chosen(&objects, 3, &epochs(&[(1, 0), (2, 15)]));
    assert_eq!(served(&selection), [(3, 10, 0), (10, 15, 10), (20, 30, 20)]);
    assert!(selection.garbage.is_empty() && selection.needs_footer.is_empty());
    assert_eq!(selection.holes(), [(15, 20)]);
    assert_eq!((selection.first_run(), selection.last_run()), (Some((3, 15)), Some((20, 30))));
    assert_eq!([0, 3, 12, 15, 25].map(|offset| selection.served_until(offset)), [0, 15, 15, 15, 30]);
}

#[test]
fn overlaps_wait_for_footers_and_then_one_serves() {
    let (long, inside, across) = (object(0, 19, 1, 50), object(5, 9, 1, 10), object(15, 29, 1, 40));
    let unread = [long, inside, across].map(|name| (name, Facts::Unread));
    let selection = chosen(&unread, 0, &epochs(&[(1, 0)]));
    assert_eq!(selection.needs_footer.len(), 3);
    assert!(selection.chain.is_empty() && selection.garbage.is_empty());
    let read = [long, inside, across].map(|name| (name, compacted(-1)));
    let selection = chosen(&read, 0, &epochs(&[(1, 0)]));
    assert_eq!(served(&selection), [(0, 15, 0), (15, 30, 15)]);
    assert_eq!(selection.garbage, [(inside, Garbage::Superseded)].into());
}

#[test]
fn the_further_compacted_object_wins_however_short_and_old() {
    let (whole, first, second) = (object(0, 19, 1, 99), object(0, 9, 1, 3), object(10, 19, 1, 2));
    let objects = [(whole, compacted(-1)), (first, compacted(20)), (second, compacted(20))];
    let selection = chosen(&objects, 0, &epochs(&[(1, 0)]));
    assert_eq!(served(&selection), [(0, 10, 0), (10, 20, 10)]);
    assert_eq!(selection.garbage, [(whole, Garbage::Superseded)].into());
    // Merged later, under a larger dirty offset: one object again.
    let merged = object(0, 19, 1, 4);
    let objects =
        [(whole, compacted(-1)), (first, compacted(20)), (second, compacted(20)), (merged, compacted(40))];
    assert_eq!(served(&chosen(&objects, 0, &epochs(&[(1, 0)]))), [(0, 20, 0)]);
}

/// Epoch 1 went on to offset 40 on a branch that parts from ours at 25, and compacted what lies before 25 by what lies behind.
#[test]
fn what_was_compacted_by_lost_records_serves_last() {
    let name = |bytes| object(0, 19, 1, bytes);
    let (written, ours, lost, more_lost) = (name(9), name(8), name(7), name(6));
    let facts = [
        (written, compacted_in(-1, None)),
        (ours, compacted_in(25, Some(1))),
        (lost, compacted_in(30, Some(1))),
        (more_lost, compacted_in(40, Some(1))),
    ];
    let history = epochs(&[(1, 0), (2, 25)]);
    let serves = |objects: &[(ObjectName, Facts)], history: &LeaderEpochs| {
        chosen(objects, 0, history).chain.iter().map(|link| link.name).collect::<Vec<_>>()
    };
    assert_eq!(serves(&facts, &epochs(&[(1, 0)])), [more_lost], "to whom nothing of it is lost");
    assert_eq!(serves(&facts, &history), [ours]);
    let selection = chosen(&facts[..1], 0, &history);
    assert_eq!(selection.chain[0].name, written);
    assert_eq!(serves(&[facts[0].clone(), facts[3].clone()], &history), [written]);
    assert_eq!(
        serves(&facts[2..], &history),
        [lost],
        "of two that may lack something the one that lacks less"
    );
    assert_eq!(serves(&facts[3..], &history), [more_lost], "better than nothing");
    // Compacted again, by what is ours.
    let again = [facts[2].clone(), (name(5), compacted_in(28, Some(2)))];
    assert_eq!(serves(&again, &history), [name(5)]);
    assert_eq!(
        serves(&[(written, compacted(-1)), (ours, compacted(99))], &history),
        [ours],
        "who does not say"
    );
}

#[test]
fn a_deposed_leader_collects_nothing_that_is_compacted_by_newer_records() {
    let (written, cleaned) = (object(0, 19, 1, 9), object(0, 19, 1, 5));
    let objects = [(written, compacted(-1)), (cleaned, compacted_in(30, Some(2)))];
    let selection = chosen(&objects, 0, &epochs(&[(1, 0)]));
    assert_eq!(selection.newer, [cleaned]);
    assert_eq!(selection.chain[0].name, cleaned);
}

#[test]
fn what_another_replica_would_choose_is_needed() {
    let name = |bytes| object(0, 19, 1, bytes);
    let objects: BTreeMap<ObjectName, Facts> = [
        (name(9), compacted(-1)),
        (name(8), compacted_in(25, Some(1))),
        (name(7), compacted_in(30, Some(1))),
        (object(20, 29, 1, 4), compacted_in(30, Some(1))),
        (object(20, 29, 1, 3), compacted_in(40, Some(1))),
    ]
    .into();
    let history = epochs(&[(1, 0)]);
    let view = View { start_offset: 0, end_offset: 50, leader_epochs: &history, keys_end: i64::MAX };
    let needed = |parts_at| needed_after(&parts_at, &objects, &view).into_iter().collect::<Vec<_>>();
    assert_eq!(
        needed(50..=50),
        [name(7), object(20, 29, 1, 3)],
        "who has all of it needs what the leader chooses"
    );
    assert_eq!(needed(25..=25), [name(8), object(20, 29, 1, 4)]);
    assert_eq!(needed(20..=20), [name(9)], "of what begins later it has nothing");
    assert_eq!(needed(0..=50), [name(9), object(20, 29, 1, 4)], "nobody knows what it has");
}

#[test]
fn a_lost_branch_serves_only_what_it_shares() {
    let history = epochs(&[(1, 0), (2, 5)]);
    let (shared, lost, ours) = (object(0, 9, 1, 1), object(10, 19, 1, 1), object(5, 12, 2, 1));
    let objects = [(shared, Facts::Unread), (lost, Facts::Unread), (ours, Facts::Unread)];
    let selection = chosen(&objects, 0, &history);
    assert_eq!(served(&selection), [(0, 5, 0), (5, 13, 5)]);
    assert_eq!(selection.garbage, [(lost, Garbage::LostBranch)].into());
}

#[test]
fn a_deposed_leader_judges_nothing_newer() {
    let newer = object(5, 12, 2, 1);
    let objects = [(object(0, 9, 1, 1), Facts::Unread), (newer, Facts::Unread)];
    let selection = chosen(&objects, 0, &epochs(&[(1, 0)]));
    assert_eq!(selection.newer, [newer]);
    assert!(selection.garbage.is_empty());
}

#[test]
fn damage_serves_nothing_and_goes_once_replaced() {
    let (damaged, whole) = (object(0, 9, 1, 5), object(0, 9, 1, 4));
    let selection = chosen(&[(damaged, Facts::Damaged)], 0, &epochs(&[(1, 0)]));
    assert!(selection.chain.is_empty() && selection.garbage.is_empty());
    let selection = chosen(&[(damaged, Facts::Damaged), (whole, Facts::Unread)], 0, &epochs(&[(1, 0)]));
    assert_eq!(selection.garbage, [(damaged, Garbage::Superseded)].into());
    let selection = chosen(&[(damaged, Facts::Damaged)], 10, &epochs(&[(1, 0)]));
    assert_eq!(selection.garbage, [(damaged, Garbage::BelowStart)].into());
}

proptest! {
    /// Against the plainest statement of the rule: at each offset, the greatest object that is true there serves.
    #[test]
    fn the_sweep_does_what_the_rule_says(
        objects in prop::collection::btree_map((0i64..30, 0i64..12, 1i32..4, 1u64..3), (-1i64..40, 1i32..4), 0..12),
        starts in prop::collection::vec(1i64..15, 2),
        start_offset in 0i64..20,
        end_offset in 20i64..50,
        keys_end in 0i64..40,
    ) {
        let history = epochs(&[(1, 0), (2, starts[0]), (3, starts[0] + starts[1])]);
        let objects: BTreeMap<ObjectName, Facts> = objects.into_iter().map(|((base, length, epoch, bytes), (to, in_epoch))| {
            (object(base, base + length, epoch, bytes), compacted_in(to, (to > 0).then_some(in_epoch)))
        }).collect();
        let view = View { start_offset, end_offset, leader_epochs: &history, keys_end };
        let selection = select(&objects, &view);
        prop_assert!(selection.needs_footer.is_empty());
        for offset in start_offset..end_offset {
            let true_here = |name: &ObjectName| name.covers(offset) && match history.standing(name, None) {
                Standing::Whole => true,
                Standing::Until(end) => offset < end,
                _ => false,
            };
            let compaction = |name: &ObjectName| match objects[name] {
                Facts::Read { compaction, .. } => compaction,
                _ => Compaction::NONE,
            };
            let is_ours = |by: &Compaction| by.to <= keys_end && by.epoch.is_none_or(|epoch| {
                history.end_of(epoch).is_some_and(|end| by.to <= end)
            });
            let best = objects.keys().filter(|name| true_here(name)).max_by_key(|name| {
                let by = compaction(name);
                let clean = if is_ours(&by) { (true, by.to) } else { (false, -by.to) };
                (clean, rank(name, Compacted::ByThisBranch(0)))
            });
            let serving = selection.link_at(offset).filter(|link| link.from <= offset).map(|link| &link.name);
            prop_assert_eq!(serving, best);
            if let Some(name) = serving {
                prop_assert!(!selection.garbage.contains_key(name));
            }
        }
        for pair in selection.chain.windows(2) {
            prop_assert!(pair[0].from < pair[0].to && pair[0].to <= pair[1].from);
        }
    }
}
