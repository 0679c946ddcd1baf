//! Several members: they elect, agree, lose their leader, fall behind, and come and go.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

use std::time::Duration;

use firn_quorum::log_store::SnapshotLimits;
use firn_quorum::quorum::ProposeError;
use firn_storage::simulated::PowerCut;
use tokio::time::Instant;
use world::{World, change, creation, files, has, wait_for};

mod world;

fn no_snapshots() -> SnapshotLimits {
    SnapshotLimits { bytes_max: u64::MAX, interval_ms: 0, entries_kept: 1_000 }
}

#[tokio::test(start_paused = true)]
async fn what_one_is_told_all_have_in_the_same_bytes() {
    let world = World::founded(3, no_snapshots()).await;
    let leader = world.leader().await;
    for number in 0..20 {
        change(world.quorum(leader), &creation(number)).await.unwrap();
    }
    for at in world.running().filter(|at| *at != leader) {
        let refused = change(world.quorum(at), &creation(99)).await;
        assert!(matches!(refused, Err(ProposeError::NotController)), "{refused:?}");
    }
    let image = world.agreed().await;
    assert_eq!(image.topic_count(), 20);
    let bytes = |at: usize| {
        let disk = &world.machines[at].disk;
        files(disk, ".log").iter().map(|file| disk.contents(file).unwrap()).collect::<Vec<_>>()
    };
    wait_for("the last entry on every disk", || (bytes(0) == bytes(1) && bytes(1) == bytes(2)).then_some(()))
        .await;
    let ends: Vec<_> = world.running().map(|at| world.quorum(at).progress().end_offset).collect();
    assert_eq!(ends[0], ends[1]);
    let members = world.quorum(leader).members().unwrap();
    assert_eq!((members.voters.len(), members.observers.len()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_acknowledged_is_lost_with_the_leader_and_another_leads_within_a_second() {
    for cut in [PowerCut::DropUnsynced, PowerCut::TornLastWrite { seed: 3 }, PowerCut::KeepAll] {
        let mut world = World::founded(3, no_snapshots()).await;
        let mut number = 0;
        for _ in 0..6 {
            let leader = world.leader().await;
            for _ in 0..4 {
                change(world.quorum(leader), &creation(number)).await.unwrap();
                number += 1;
            }
            let died = Instant::now();
            world.crash(leader, cut).await;
            world.leader().await;
            assert!(died.elapsed() <= Duration::from_millis(1_000), "{:?}", died.elapsed());
            world.start(leader).await.unwrap();
        }
        let image = world.agreed().await;
        assert!((0..number).all(|number| has(&image, number)), "{cut:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_a_majority_changes_nothing_and_comes_back_in_line() {
    let world = World::founded(3, no_snapshots()).await;
    let old = world.leader().await;
    change(world.quorum(old), &creation(0)).await.unwrap();
    world.cut_off(old);
    let lonely = world.quorum(old).clone();
    let attempt = tokio::spawn(async move { change(&lonely, &creation(1)).await });
    let new = world.leader().await;
    assert_ne!(new, old);
    change(world.quorum(new), &creation(2)).await.unwrap();
    world.heal();
    let outcome = attempt.await.unwrap();
    assert!(matches!(outcome, Err(ProposeError::NotController | ProposeError::TimedOut)), "{outcome:?}");
    let image = world.agreed().await;
    assert!(has(&image, 0) && !has(&image, 1) && has(&image, 2));
    assert!(world.quorum(old).progress().term > 1);
}

#[tokio::test(start_paused = true)]
async fn who_has_missed_what_was_purged_gets_a_snapshot() {
    let limits = SnapshotLimits { bytes_max: 2_000, interval_ms: 0, entries_kept: 2 };
    let mut world = World::founded(3, limits).await;
    let leader = world.leader().await;
    let behind = (leader + 1) % 3;
    world.crash(behind, PowerCut::KeepAll).await;
    for number in 0..40 {
        change(world.quorum(leader), &creation(number)).await.unwrap();
    }
    let disk = world.machines[leader].disk.clone();
    wait_for("a snapshot", || (!files(&disk, ".checkpoint").is_empty()).then_some(())).await;
    world.start(behind).await.unwrap();
    assert_eq!(world.agreed().await.topic_count(), 40);
    change(world.quorum(world.leader().await), &creation(100)).await.unwrap();
    assert!(has(&world.agreed().await, 100));
    // It has what it was sent on its own disk.
    world.crash(behind, PowerCut::DropUnsynced).await;
    world.start(behind).await.unwrap();
    assert!(world.quorum(behind).image().topic_count() > 30);
}

#[tokio::test(start_paused = true)]
async fn members_come_and_go() {
    let mut world = World::founded(1, no_snapshots()).await;
    let alone = world.leader().await;
    change(world.quorum(alone), &creation(0)).await.unwrap();
    let mut larger = World::new(4, no_snapshots());
    larger.board = world.board.clone();
    world.machines.extend(larger.machines.drain(1..));
    for at in 1..4 {
        world.start(at).await.unwrap();
        world.quorum(alone).take_in(world.member(at)).await.unwrap();
    }
    let observers = world.quorum(alone).members().unwrap().observers.len();
    assert_eq!(observers, 3);
    let ids: Vec<_> = (0..4).map(|at| world.member(at).id()).collect();
    world.quorum(alone).change_voters(ids[..3].to_vec()).await.unwrap();
    change(world.quorum(alone), &creation(1)).await.unwrap();
    world.agreed().await;
    // Who is no voter any more leads no more either.
    world.quorum(alone).change_voters(ids[1..].to_vec()).await.unwrap();
    world.crash(alone, PowerCut::KeepAll).await;
    let leader = world.leader().await;
    change(world.quorum(leader), &creation(2)).await.unwrap();
    let image = world.agreed().await;
    assert!((0..3).all(|number| has(&image, number)));
}

/// A change of the voters has two halves, and between them both the old and the new are needed.
#[tokio::test(start_paused = true)]
async fn what_a_leader_has_left_half_done_the_next_one_completes() {
    let mut world = World::founded(3, no_snapshots()).await;
    let mut larger = World::new(4, no_snapshots());
    larger.board = world.board.clone();
    world.machines.extend(larger.machines.drain(3..));
    // As long as it is no member, the new one knows no leader.
    let old = world.leader().await;
    world.start(3).await.unwrap();
    world.quorum(old).take_in(world.member(3)).await.unwrap();
    let ids: Vec<_> = (0..4).map(|at| world.member(at).id()).collect();
    let (quorum, wanted) = (world.quorum(old).clone(), ids.clone());
    let changing = tokio::spawn(async move { quorum.change_voters(wanted).await });
    let others: Vec<usize> = (0..4).filter(|at| *at != old).collect();
    let half = || others.iter().all(|at| world.quorum(*at).voters().is_none()).then_some(());
    wait_for("the first half", half).await;
    changing.abort();
    world.crash(old, PowerCut::KeepAll).await;
    let new = world.leader().await;
    wait_for("what it leads", || world.quorum(new).progress().leads.then_some(())).await;
    assert_eq!(world.quorum(new).voters(), None, "nobody completes it unasked");
    world.quorum(new).complete_change().await.unwrap();
    assert_eq!(world.quorum(new).voters(), Some(ids.into_iter().collect()));
    change(world.quorum(new), &creation(0)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_over_without_a_gap() {
    let world = World::founded(3, no_snapshots()).await;
    let old = world.leader().await;
    change(world.quorum(old), &creation(0)).await.unwrap();
    world.agreed().await;
    let heir = (old + 1) % 3;
    let asked = Instant::now();
    world.quorum(old).hand_over(&world.member(heir)).await.unwrap();
    wait_for("the heir", || world.quorum(heir).progress().leads.then_some(())).await;
    assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
    change(world.quorum(heir), &creation(1)).await.unwrap();
}

/// Its votes and entries are gone: counted as the one before, it makes a majority with who may lack what was agreed on.
#[tokio::test(start_paused = true)]
async fn a_wiped_disk_is_no_majority_with_one_that_remembers() {
    for (is_renamed, leads) in [(true, false), (false, true)] {
        let mut world = World::founded(3, no_snapshots()).await;
        let leader = world.leader().await;
        change(world.quorum(leader), &creation(0)).await.unwrap();
        world.agreed().await;
        let wiped = (leader + 1) % 3;
        world.crash(wiped, PowerCut::KeepAll).await;
        world.machines[wiped].disk = Default::default();
        if is_renamed {
            world.machines[wiped].directory_id = "another".to_owned();
        }
        world.crash(leader, PowerCut::KeepAll).await;
        world.start(wiped).await.unwrap();
        let left = (0..3).find(|at| *at != leader && *at != wiped).unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(world.quorum(left).progress().leads, leads, "renamed: {is_renamed}");
    }
}
