//! Several members: they elect, agree, lose their leader, fall behind, and come and go.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

use std::time::Duration;

use firn_quorum::log_store::SnapshotLimits;
use firn_quorum::quorum::ProposeError;
use firn_records::batch::batches;
use firn_storage::simulated::PowerCut;
use tokio::time::Instant;
use world::{World, change, creation, failure, files, has, wait_for};

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

/// A disk that was put back from a copy, or whose log was cut because it had rotted: what the leader thought to be there is not.
#[tokio::test(start_paused = true)]
async fn who_has_lost_entries_gets_them_again_and_the_leader_goes_on() {
    let mut world = World::founded(3, no_snapshots()).await;
    let leader = world.leader().await;
    let robbed = (leader + 1) % 3;
    change(world.quorum(leader), &creation(0)).await.unwrap();
    world.agreed().await;
    let before = world.machines[robbed].disk.after_power_cut(PowerCut::KeepAll);
    for number in 1..20 {
        change(world.quorum(leader), &creation(number)).await.unwrap();
    }
    world.agreed().await;
    let term = world.quorum(leader).progress().term;
    world.crash(robbed, PowerCut::KeepAll).await;
    world.machines[robbed].disk = before;
    world.start(robbed).await.unwrap();
    change(world.quorum(leader), &creation(20)).await.unwrap();
    assert_eq!(world.agreed().await.topic_count(), 21);
    assert_eq!(world.quorum(leader).progress().term, term);
    assert_eq!(world.leader().await, leader);
}

/// Two members agree on entries, and one of them comes back on a disk from before: with the third, which was away, it is a majority
/// that knows nothing of them. That cannot be undone, but whoever has them still says so, and keeps them.
#[tokio::test(start_paused = true)]
async fn what_a_majority_has_lost_is_told_of_by_who_has_it() {
    for is_restarted in [true, false] {
        let mut world = World::founded(3, no_snapshots()).await;
        let (keeper, restored, away) = (0, 1, 2);
        change(world.quorum(world.leader().await), &creation(0)).await.unwrap();
        world.agreed().await;
        world.crash(away, PowerCut::KeepAll).await;
        // So that the copy knows of the term, and no vote is lost with it.
        change(world.quorum(world.leader().await), &creation(1)).await.unwrap();
        world.agreed().await;
        let before = world.machines[restored].disk.after_power_cut(PowerCut::KeepAll);
        for number in 2..5 {
            change(world.quorum(world.leader().await), &creation(number)).await.unwrap();
        }
        world.agreed().await;
        match is_restarted {
            true => world.crash(keeper, PowerCut::KeepAll).await,
            false => world.cut_off(keeper),
        }
        world.crash(restored, PowerCut::KeepAll).await;
        world.machines[restored].disk = before;
        world.start(restored).await.unwrap();
        world.start(away).await.unwrap();
        let leader = world.leader().await;
        assert_ne!(leader, keeper);
        change(world.quorum(leader), &creation(10)).await.unwrap();
        world.heal();
        if is_restarted {
            world.start(keeper).await.unwrap();
        }
        let error = failure(world.quorum(keeper)).await;
        assert!(error.contains("were agreed on") && error.contains("Keep a copy"), "{error}");
        let log = |world: &World| {
            let disk = &world.machines[keeper].disk;
            files(disk, ".log").iter().map(|file| disk.contents(file).unwrap()).collect::<Vec<_>>()
        };
        let kept = log(&world);
        world.crash(keeper, PowerCut::DropUnsynced).await;
        change(world.quorum(world.leader().await), &creation(12)).await.unwrap();
        world.start(keeper).await.unwrap();
        failure(world.quorum(keeper)).await;
        assert_eq!(log(&world), kept, "it keeps them");
    }
}

/// Who leads reads what another lacks, finds that it has rotted, and ends; the others have it.
#[tokio::test(start_paused = true)]
async fn a_rotten_entry_ends_the_member_that_reads_it_alone() {
    let mut world = World::founded(3, no_snapshots()).await;
    let leader = world.leader().await;
    let behind = (leader + 1) % 3;
    world.crash(behind, PowerCut::KeepAll).await;
    for number in 0..20 {
        change(world.quorum(leader), &creation(number)).await.unwrap();
    }
    world.agreed().await;
    let disk = &world.machines[leader].disk;
    let segment = files(disk, ".log").pop().unwrap();
    // The last one, for others may have been read for it before.
    let length = disk.contents(&segment).unwrap().len() as u64;
    assert!(disk.flip_bit(&segment, length - 10, 3));
    world.start(behind).await.unwrap();
    let error = failure(world.quorum(leader)).await;
    assert!(error.contains("the log is damaged") && error.contains("empty directory"), "{error}");
    world.crash(leader, PowerCut::KeepAll).await;
    let next = world.leader().await;
    change(world.quorum(next), &creation(20)).await.unwrap();
    assert_eq!(world.agreed().await.topic_count(), 21);
}

/// Whatever bit of one member's log has rotted while all were away: the others go on with all that was agreed on, and that one says
/// so, or has it from them again.
#[tokio::test(start_paused = true)]
async fn no_bit_of_one_log_takes_the_others_down() {
    let mut world = World::founded(3, no_snapshots()).await;
    let leader = world.leader().await;
    change(world.quorum(leader), &creation(0)).await.unwrap();
    world.agreed().await;
    for at in 0..3 {
        world.crash(at, PowerCut::KeepAll).await;
    }
    let disks: Vec<_> = world.machines.iter().map(|machine| machine.disk.after_kill()).collect();
    let segment = files(&disks[1], ".log").pop().unwrap();
    let contents = disks[1].contents(&segment).unwrap();
    let sizes = batches(&contents).map(|found| found.unwrap().0.size_in_bytes() as u64);
    let starts = sizes.scan(0, |at, size| Some(std::mem::replace(at, *at + size)));
    // Where its checksum does not reach, and some of the bytes that it covers.
    let bytes = starts.flat_map(|start| (0..20).chain((20..100).step_by(20)).map(move |at| start + at));
    let mut refused = 0;
    for byte in bytes {
        for (machine, disk) in world.machines.iter_mut().zip(&disks) {
            machine.disk = disk.after_kill();
        }
        assert!(world.machines[1].disk.flip_bit(&segment, byte, (byte % 8) as u8));
        refused += usize::from(world.start(1).await.is_err());
        for at in [0, 2] {
            world.start(at).await.unwrap();
        }
        let leader = world.leader().await;
        change(world.quorum(leader), &creation(1)).await.unwrap();
        assert_eq!(world.agreed().await.topic_count(), 2, "byte {byte}");
        for at in 0..3 {
            world.crash(at, PowerCut::KeepAll).await;
        }
    }
    assert!(refused > 0, "nothing was noticed");
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
        world.take_in(alone, at).await;
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
    world.take_in(old, 3).await;
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
