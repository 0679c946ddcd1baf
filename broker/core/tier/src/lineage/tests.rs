//! A history of leaders as a table.

use super::*;

fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
    let entries = entries.iter().map(|&(epoch, start_offset)| EpochStart { epoch, start_offset });
    LeaderEpochs::new(entries.collect()).unwrap()
}

fn object(base_offset: i64, last_offset: i64, leader_epoch: i32) -> ObjectName {
    ObjectName { base_offset, last_offset, leader_epoch, max_timestamp: -1, log_bytes: 1 }
}

#[test]
fn a_history_tells_its_own_objects_from_those_of_a_lost_branch() {
    let history = epochs(&[(1, 0), (2, 5), (4, 20)]);
    for (name, standing) in [
        (object(0, 4, 1), Standing::Whole),
        (object(0, 9, 2), Standing::Whole),
        (object(5, 30, 4), Standing::Whole),
        // Epoch 1 went on to offset 9 on the lost branch; what was written before offset 5 is ours as well.
        (object(0, 9, 1), Standing::Until(5)),
        (object(5, 9, 1), Standing::Lost),
        (object(0, 9, 3), Standing::NeedsEpochs),
        (object(0, 9, 5), Standing::Newer),
    ] {
        assert_eq!(history.standing(&name, None), standing, "{name}");
    }
    // Epoch 3 wrote from offset 8 on and lost; until there, its leader had what we have.
    let theirs = epochs(&[(1, 0), (2, 5), (3, 8)]);
    assert_eq!(history.standing(&object(0, 9, 3), Some(&theirs)), Standing::Until(8));
    assert_eq!(history.standing(&object(8, 9, 3), Some(&epochs(&[(3, 8)]))), Standing::Lost);
}

#[test]
fn the_name_alone_does_not_bound_an_unknown_epoch() {
    // By the name, epoch 2 could be ours up to offset 8. Its own history says that it left us at 5.
    let history = epochs(&[(1, 0), (3, 8)]);
    assert_eq!(history.standing(&object(0, 9, 2), None), Standing::NeedsEpochs);
    assert_eq!(history.standing(&object(0, 9, 2), Some(&epochs(&[(1, 0), (2, 5)]))), Standing::Until(5));
}

#[test]
fn a_history_knows_its_own_keys() {
    let history = epochs(&[(1, 10), (2, 25), (4, 40)]);
    for (to, epoch, keys) in [
        (-1, None, Keys::Ours),
        (99, None, Keys::Ours),
        (25, Some(1), Keys::Ours),
        (26, Some(1), Keys::Lost),
        (26, Some(2), Keys::Ours),
        (41, Some(2), Keys::Lost),
        (41, Some(3), Keys::Lost),
        (99, Some(4), Keys::Ours),
        (99, Some(5), Keys::Newer),
        // Before the history begins nothing can be told.
        (10, Some(0), Keys::Ours),
        (11, Some(0), Keys::Lost),
    ] {
        assert_eq!(history.keys(&Compaction { to, epoch }), keys, "{to} in {epoch:?}");
        assert_eq!(LeaderEpochs::default().keys(&Compaction { to, epoch }), Keys::Ours);
    }
    // A replica may have got an epoch's records without the first, which were compacted before they came.
    assert_eq!(epochs(&[(1, 0), (2, 28)]).keys(&history.compaction(27)), Keys::Ours);
    assert_eq!(history.compaction(26), Compaction { to: 26, epoch: Some(2) });
    assert_eq!(history.compaction(25), Compaction { to: 25, epoch: Some(1) });
    assert_eq!(history.compaction(10), Compaction { to: 10, epoch: None });
    assert_eq!(history.compaction(0), Compaction { to: 0, epoch: None });
}

#[test]
fn epochs_own_ranges() {
    let history = epochs(&[(1, 10), (2, 15), (4, 20)]);
    assert_eq!(
        [9, 10, 14, 15, 99].map(|offset| history.epoch_at(offset)),
        [None, Some(1), Some(1), Some(2), Some(4)]
    );
    assert_eq!([0, 1, 2, 3, 4].map(|e| history.end_of(e)), [None, Some(15), Some(20), None, Some(i64::MAX)]);
    assert_eq!(history.slice(16, 19), epochs(&[(2, 15)]));
    assert_eq!(history.slice(12, 20), history);
    assert_eq!(LeaderEpochs::default().standing(&object(0, 9, 3), None), Standing::Whole);
}

#[test]
fn a_checkpoint_with_idle_leaders_is_read() {
    let entries = [(1, 0), (2, 5), (3, 5), (4, 9), (5, 9)];
    let entries = entries.map(|(epoch, start_offset)| EpochStart { epoch, start_offset });
    assert_eq!(LeaderEpochs::from_checkpoint(entries), epochs(&[(1, 0), (3, 5), (5, 9)]));
    for bad in [[(2, 0), (1, 5)], [(1, 5), (2, 5)], [(-1, 0), (1, 5)]] {
        let bad = bad.map(|(epoch, start_offset)| EpochStart { epoch, start_offset });
        assert_eq!(LeaderEpochs::new(bad.to_vec()), None);
    }
}
