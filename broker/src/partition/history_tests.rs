//! What a follower does whose history is another one than its leader's.

use firn_storage::producers::AppendOrigin;

use super::super::tests::{ask, assigned, catch_up, contents, flake, high_watermarks, three, turn_all};
use super::*;
use crate::partition::Acks;

/// What was not committed may be on one disk and not on another; the next leader's history is everybody's.
#[tokio::test]
async fn a_follower_cuts_what_its_leader_does_not_have_and_nothing_that_is_committed() {
    let replicas = three();
    let [one, two, three] = &replicas;
    turn_all(&replicas, &assigned(1, 1, &[1, 2, 3], &[1, 2, 3]));
    one.append(&flake(), AppendOrigin::Client, Acks::All, 1).unwrap();
    catch_up(one, two).await;
    catch_up(one, three).await;
    let lost = one.append(&flake(), AppendOrigin::Client, Acks::All, 1).unwrap().awaited.unwrap();
    one.append(&flake(), AppendOrigin::Client, Acks::All, 1).unwrap();
    // One has three records, two has two, and three, which leads now, has one.
    let at = two.position(1).unwrap();
    let only = one.with_log(|log| log.read(1, 2, 1_000, true)).unwrap().unwrap().read().unwrap();
    two.append_fetched(at.leader_epoch, &only, 1).unwrap();
    turn_all(&replicas, &assigned(3, 2, &[1, 2, 3], &[3, 2]));
    assert!(lost.await.is_err(), "whoever waits is told that it comes from elsewhere");
    assert!(two.append_fetched(1, &only, 1).is_err(), "what an earlier leader sent comes too late");
    three.append(&flake(), AppendOrigin::Client, Acks::All, 1).unwrap();
    catch_up(three, two).await;
    catch_up(three, one).await;
    assert_eq!(contents(one), contents(three));
    assert_eq!(contents(two), contents(three));
    assert_eq!(three.offsets().unwrap().log_end, 2);
    assert!(high_watermarks(&replicas).iter().all(|committed| *committed >= 1));
    let ends = one.with_log(|log| [1, 2].map(|epoch| log.epoch_end_offset(epoch))).unwrap();
    assert_eq!(ends, [Some((1, 1)), Some((2, 2))]);
}

/// A leader that wrote nothing leaves no trace of its epoch on a disk that follows one of before.
#[tokio::test]
async fn who_led_and_wrote_nothing_follows_records_of_before() {
    let replicas = three();
    let [one, two, _] = &replicas;
    turn_all(&replicas, &assigned(1, 1, &[1, 2, 3], &[1, 2]));
    one.append(&flake(), AppendOrigin::Client, Acks::Leader, 1)
        .unwrap()
        .awaited
        .unwrap()
        .await
        .unwrap()
        .unwrap();
    two.turn(&assigned(2, 2, &[1, 2, 3], &[2]));
    one.turn(&assigned(2, 2, &[1, 2, 3], &[2]));
    turn_all(&replicas, &assigned(1, 3, &[1, 2, 3], &[1]));
    catch_up(one, two).await;
    assert_eq!(contents(one), contents(two));
}

/// The leader has deleted what it has instead, and cannot tell that the follower's is another history.
#[tokio::test]
async fn what_the_leader_cannot_compare_any_more_is_never_taken_for_committed() {
    let replicas = three();
    let [one, two, three] = &replicas;
    turn_all(&replicas, &assigned(1, 1, &[1, 2, 3], &[1, 2, 3]));
    one.append(&flake(), AppendOrigin::Client, Acks::Leader, 1).unwrap();
    catch_up(one, two).await;
    catch_up(one, three).await;
    // Four records that nobody else has.
    for _ in 0..4 {
        one.append(&flake(), AppendOrigin::Client, Acks::Leader, 1).unwrap();
    }
    turn_all(&replicas, &assigned(2, 2, &[1, 2, 3], &[2, 3]));
    for _ in 0..6 {
        two.append(&flake(), AppendOrigin::Client, Acks::Leader, 1).unwrap();
        catch_up(two, three).await;
    }
    two.with_log(|log| log.delete_records_before(4)).unwrap().unwrap();
    let is_right = || {
        let Offsets { log_start, high_watermark, .. } = one.offsets().unwrap();
        let epochs = |of: &Partition| {
            let epoch_of = |offset| of.with_log(|log| log.epoch_for_offset(offset)).unwrap();
            (log_start.max(1)..high_watermark).map(epoch_of).collect::<Vec<_>>()
        };
        assert!(epochs(one).iter().all(|epoch| *epoch == Some(2)), "{:?}", one.offsets());
        high_watermark
    };
    let ReplicaRead::Diverged(_, parts_at) = ask(two, one) else { panic!("{:?}", one.position(2)) };
    one.cut(2, parts_at).unwrap();
    let at = one.position(2).unwrap();
    assert_eq!((at.offset, at.last_epoch), (4, 1), "its history is another one, and nobody knows");
    let ReplicaRead::Records(offsets, slice) = ask(two, one) else { panic!("{at:?}") };
    one.append_fetched(2, &slice.read().unwrap(), 1).unwrap().unwrap().await.unwrap().unwrap();
    let start = one.follow_offsets(2, offsets.high_watermark, offsets.log_start).unwrap();
    assert_eq!((start, is_right()), (Some(4), 1));
    one.follow_log_start(2, 4).unwrap();
    assert_eq!(is_right(), 4);
    catch_up(two, one).await;
    assert_eq!(is_right(), 7);
    assert_eq!(contents(one), contents(two));
}
