//! Followers that keep up, fall behind, and come back; and what is committed meanwhile.

use super::*;

const LAG_MAX: Duration = Duration::from_millis(1_000);
/// A log start that all followers have reached.
const ANYWHERE: i64 = -1;

const fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Broker 1 leads 2 and 3, at least two of which have to be in sync; its log has ten records, all committed.
fn leader(isr: &[i32]) -> Leader {
    let beginning = Beginning {
        broker_id: 1,
        replicas: vec![1, 2, 3],
        settled_replicas: 3,
        isr: isr.to_vec(),
        min_isr: 2,
        lag_max: LAG_MAX,
        lease: Duration::ZERO,
        log_end: 10,
        high_watermark: 10,
    };
    Leader::new(beginning, at(0))
}

/// Whom the leader reports as in sync, if it has news.
fn news(leader: &mut Leader, log_end: i64, now: Duration) -> Option<Vec<i32>> {
    let report = leader.report(ANYWHERE, log_end, now, |_| true)?;
    Some(report.isr.into_iter().map(|(id, _)| id).collect())
}

#[test]
fn a_record_is_committed_once_all_in_sync_have_it() {
    let mut leader = leader(&[1, 2, 3]);
    leader.flushed(12);
    assert!(leader.fetched(2, 7, 12, 12, at(1)));
    assert_eq!(leader.high_watermark(), 10, "3 has not fetched");
    leader.fetched(3, 8, 11, 12, at(2));
    assert_eq!(leader.high_watermark(), 11);
    leader.fetched(3, 8, 12, 12, at(3));
    assert_eq!(leader.high_watermark(), 12);
    // What the leader has not on stable storage itself is not committed either.
    leader.fetched(2, 7, 15, 15, at(4));
    leader.fetched(3, 8, 15, 15, at(4));
    assert_eq!(leader.high_watermark(), 12);
    leader.flushed(15);
    assert_eq!(leader.high_watermark(), 15);
    // It does not go back with a follower that was cut.
    leader.fetched(3, 9, 4, 15, at(5));
    assert_eq!(leader.high_watermark(), 15);
    assert!(!leader.fetched(9, 1, 15, 15, at(6)), "no replica");
    assert!(!leader.fetched(3, 8, 15, 15, at(6)), "it has been started anew since");
}

/// A follower is heard of only while there is something for it.
#[test]
fn who_lacked_nothing_has_as_long_as_any_for_what_comes_then() {
    let mut leader = leader(&[1, 2, 3]);
    leader.fetched(2, 7, 10, 10, at(1));
    leader.fetched(3, 8, 9, 10, at(1));
    leader.fetched(3, 8, 10, 10, at(2));
    assert_eq!(news(&mut leader, 10, at(59_000)), None, "both have everything");
    leader.appended_from(10, at(60_000));
    leader.flushed(12);
    leader.fetched(2, 7, 11, 12, at(60_001));
    leader.appended_from(12, at(60_500));
    assert_eq!(news(&mut leader, 13, at(61_000)), None);
    assert_eq!(news(&mut leader, 13, at(61_001)), Some(vec![1]), "neither had all that was there at 60,500");
}

#[test]
fn who_falls_behind_leaves_and_who_catches_up_comes_back() {
    let mut leader = leader(&[1, 2, 3]);
    leader.flushed(20);
    leader.fetched(2, 7, 20, 20, at(900));
    assert_eq!(news(&mut leader, 20, at(1_000)), None, "3 has as long as any");
    assert_eq!(news(&mut leader, 20, at(1_001)), Some(vec![1, 2]));
    let report = Report { isr: vec![(1, -1), (2, 7)], withdraws: false };
    assert_eq!(leader.report(ANYWHERE, 20, at(1_001), |_| true), Some(report.clone()));
    leader.fetched(3, 8, 20, 20, at(1_400));
    leader.flushed(25);
    let again = leader.report(ANYWHERE, 25, at(1_500), |_| true);
    assert_eq!(again, Some(report), "it says the same until it is answered");
    leader.fetched(2, 7, 25, 25, at(1_500));
    assert_eq!(leader.high_watermark(), 20, "3 counts until the controller has agreed");
    leader.settled(&[1, 2]);
    assert_eq!(leader.high_watermark(), 25);
    assert_eq!(news(&mut leader, 25, at(1_500)), None);

    leader.fetched(3, 8, 24, 25, at(1_600));
    assert_eq!(news(&mut leader, 25, at(1_600)), None, "it lacks what is committed");
    leader.fetched(3, 8, 25, 25, at(1_700));
    assert_eq!(
        leader.report(ANYWHERE, 25, at(1_700), |in_sync| in_sync != (3, 8)),
        None,
        "nobody would take it in"
    );
    assert_eq!(news(&mut leader, 25, at(1_700)), Some(vec![1, 2, 3]));
    leader.flushed(30);
    leader.fetched(2, 7, 30, 30, at(1_800));
    assert_eq!(leader.high_watermark(), 25, "3 counts from the question on");
}

/// The first of two equal reports may come last, and be taken.
#[test]
fn what_was_reported_counts_until_the_epoch_has_moved() {
    let mut leader = leader(&[1, 2]);
    leader.fetched(3, 8, 10, 10, at(1));
    assert_eq!(news(&mut leader, 10, at(1)), Some(vec![1, 2, 3]));
    leader.refused();
    leader.flushed(20);
    leader.fetched(2, 7, 20, 20, at(2));
    assert_eq!(leader.high_watermark(), 10);
    let withdrawal = Report { isr: vec![(1, -1), (2, -1)], withdraws: true };
    assert_eq!(leader.report(ANYWHERE, 20, at(3), |_| true), Some(withdrawal));
    leader.settled(&[1, 2]);
    assert_eq!(leader.high_watermark(), 20);
}

#[test]
fn a_follower_of_a_busy_leader_is_in_sync_though_it_never_has_all() {
    let mut leader = leader(&[1, 2, 3]);
    let mut end = 10;
    for step in 1..100 {
        let now = at(step * 100);
        // Each fetch has all that there was at the one before.
        for follower in [2, 3] {
            leader.fetched(follower, 7, end, end + 5, now);
        }
        end += 5;
        leader.flushed(end);
        assert_eq!(news(&mut leader, end, now), None, "at {now:?}");
    }
}

#[test]
fn who_has_not_fetched_from_this_leader_is_not_taken_in() {
    let mut leader = leader(&[1, 2]);
    // As far as the high watermark that this leader knows, and not as far as its own log.
    let mut behind = Leader { high_watermark: 4, ..leader.clone() };
    behind.fetched(3, 8, 9, 10, at(1));
    assert_eq!(news(&mut behind, 10, at(1)), None);
    leader.fetched(3, 8, 10, 10, at(1));
    assert_eq!(news(&mut leader, 10, at(1)), Some(vec![1, 2, 3]));
}

#[test]
fn histories_part_where_a_follower_ends_or_anywhere_before() {
    let mut leader = leader(&[1, 2, 3]);
    assert_eq!(leader.parts_at(), [0..=10, 0..=10]);
    leader.fetched(2, 7, 12, 15, at(1));
    leader.fetched(3, 8, 4, 15, at(1));
    assert_eq!(leader.parts_at(), [12..=12, 4..=4]);
    leader.reassigned(&[1, 2, 3, 4], 3, 15, at(2));
    assert_eq!(leader.parts_at(), [12..=12, 4..=4, 0..=10]);
}

#[test]
fn records_are_deleted_once_all_in_sync_have_done_so() {
    let mut leader = leader(&[1, 2]);
    assert_eq!(leader.low_watermark(5), -1, "nobody has said anything");
    leader.starts_at(2, 3);
    leader.starts_at(3, 0);
    assert_eq!(leader.low_watermark(5), 3);
    leader.starts_at(2, 6);
    assert_eq!(leader.low_watermark(5), 5);
    leader.settled(&[1, 2, 3]);
    assert_eq!(leader.low_watermark(5), 0);
    leader.set_min_isr(1);
    leader.settled(&[1]);
    assert_eq!(leader.low_watermark(7), 7);
}

#[test]
fn with_too_few_in_sync_nothing_is_committed() {
    let mut leader = leader(&[1]);
    assert!(!leader.is_writable());
    leader.flushed(20);
    assert_eq!(leader.high_watermark(), 10);
    leader.set_min_isr(1);
    assert!(leader.is_writable());
    assert_eq!(leader.high_watermark(), 20);
}

#[test]
fn readers_are_sent_to_a_replica_in_sync_that_has_what_they_want() {
    let mut leader = leader(&[1, 2]);
    assert_eq!(leader.nearest(5, &[2, 3]), None, "nobody is known to have anything");
    for (id, end) in [(2, 10), (3, 10)] {
        leader.fetched(id, 7, end, 10, at(1));
        leader.starts_at(id, 4);
    }
    assert_eq!(leader.nearest(5, &[2, 3]), Some(2), "3 is not in sync");
    assert_eq!(leader.nearest(5, &[3]), None);
    assert_eq!(leader.nearest(5, &[]), None);
    assert_eq!(
        [leader.nearest(3, &[2]), leader.nearest(11, &[2])],
        [None, None],
        "it starts at 4, and ends at 10"
    );
    assert_eq!(leader.nearest(10, &[2]), Some(2), "what comes next is read there, too");
    leader.settled(&[1, 2, 3]);
    leader.fetched(3, 7, 12, 12, at(2));
    assert_eq!(leader.nearest(10, &[2, 3]), Some(3), "it has more");
}

/// It led before, may not know of this leader yet, and would go on telling groups what they had committed.
#[test]
fn who_may_still_lead_by_its_own_account_is_waited_for() {
    let beginning = Beginning {
        broker_id: 1,
        replicas: vec![1, 2, 3],
        settled_replicas: 3,
        isr: vec![1, 2, 3],
        min_isr: 2,
        lag_max: LAG_MAX,
        lease: Duration::from_millis(5_000),
        log_end: 10,
        high_watermark: 10,
    };
    let mut leader = Leader::new(beginning, at(100));
    leader.fetched(2, 7, 10, 10, at(200));
    leader.fetched(2, 7, 12, 12, at(5_050));
    assert_eq!(news(&mut leader, 12, at(5_100)), None);
    assert_eq!(news(&mut leader, 12, at(5_101)), Some(vec![1, 2]), "its lease is over");
}

/// A partition of one replica gets two more: it is written to meanwhile, and they come to be in sync once they have it all.
#[test]
fn replicas_that_come_have_nothing_until_they_have_fetched_it() {
    let beginning = Beginning {
        broker_id: 1,
        replicas: vec![1],
        settled_replicas: 1,
        isr: vec![1],
        min_isr: 2,
        lag_max: LAG_MAX,
        lease: Duration::ZERO,
        log_end: 10,
        high_watermark: 10,
    };
    let mut leader = Leader::new(beginning, at(0));
    assert!(!leader.has_followers() && !leader.fetched(2, 7, 0, 10, at(1)), "2 is no replica yet");
    leader.reassigned(&[1, 2, 3], 1, 10, at(2));
    leader.settled(&[1]);
    assert!(leader.has_followers());
    assert_eq!((leader.min_isr(), leader.is_writable()), (1, true));
    leader.flushed(12);
    assert_eq!(leader.high_watermark(), 12);
    assert!(leader.fetched(2, 7, 0, 12, at(3)));
    assert_eq!(news(&mut leader, 12, at(3)), None);
    leader.fetched(2, 7, 12, 12, at(4));
    assert_eq!(news(&mut leader, 12, at(4)), Some(vec![1, 2]));
    // What is known of 2 stays while the move goes on.
    leader.reassigned(&[1, 2, 3], 1, 12, at(5));
    leader.settled(&[1, 2]);
    leader.flushed(13);
    assert_eq!(leader.high_watermark(), 12, "2 has not fetched");
    leader.fetched(2, 7, 13, 13, at(6));
    leader.fetched(3, 8, 13, 13, at(6));
    assert_eq!(news(&mut leader, 13, at(6)), Some(vec![1, 2, 3]));
    // All are there: from now on two have to be in sync.
    leader.reassigned(&[1, 2, 3], 3, 13, at(7));
    leader.settled(&[1, 2, 3]);
    assert_eq!((leader.min_isr(), leader.high_watermark()), (2, 13));
}

/// Otherwise it could lead, and what was deleted everywhere would be there again.
#[test]
fn who_has_not_deleted_what_is_deleted_does_not_come_back() {
    let mut leader = leader(&[1, 2]);
    leader.fetched(3, 8, 10, 10, at(1));
    leader.starts_at(3, 4);
    let joins = |leader: &mut Leader, log_start| leader.report(log_start, 10, at(1), |_| true).is_some();
    assert!(!leader.has_caught_up(3, 5) && !joins(&mut leader, 5));
    leader.starts_at(3, 5);
    assert!(leader.has_caught_up(3, 5) && joins(&mut leader, 5));
}

#[test]
fn nothing_is_deleted_for_good_while_too_few_are_in_sync() {
    let mut leader = leader(&[1, 2]);
    leader.starts_at(2, 4);
    assert_eq!([leader.low_watermark(3), leader.low_watermark(5)], [3, 4], "2 starts at 4");
    leader.settled(&[1]);
    assert_eq!(leader.low_watermark(5), -1, "2 may lead, and has not deleted it");
    leader.starts_at(2, 5);
    leader.settled(&[1, 2]);
    assert_eq!(leader.low_watermark(5), 5);
}
