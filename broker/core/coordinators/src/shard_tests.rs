//! Life cycles of groups, as tables of what goes in and comes out.
use super::*;
use crate::requests::*;

fn shard() -> GroupShard {
    let mut shard = GroupShard::new(GroupConfig { initial_rebalance_delay_ms: 0, ..GroupConfig::default() });
    shard.finish_load(0);
    shard
}

fn join(member_id: &str, instance: Option<&str>, random: u128) -> JoinRequest {
    JoinRequest {
        group_id: "g".into(),
        member_id: member_id.into(),
        group_instance_id: instance.map(str::to_owned),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        require_known_member_id: true,
        supports_skipping_assignment: true,
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff"))],
        random,
        room: usize::MAX,
    }
}

fn member(id: &str, generation: i32) -> MemberOfGroup {
    MemberOfGroup { group_id: "g".into(), member_id: id.into(), group_instance_id: None, generation }
}

fn commit(id: &str, generation: i32) -> CommitRequest {
    let offset = OffsetToCommit {
        topic_id: TopicId::ZERO,
        topic: "t".into(),
        partition: 0,
        offset: 5,
        leader_epoch: 0,
        metadata: None,
    };
    CommitRequest { member: member(id, generation), retention_time_ms: None, offsets: vec![offset] }
}

fn joined_of(effects: &[Effect]) -> JoinReply {
    let joins = effects.iter().filter_map(|effect| match effect {
        Effect::Reply { reply: Reply::Join(reply), .. } => Some(reply.clone()),
        _ => None,
    });
    joins.last().expect("a join reply")
}

fn append_of(effects: &[Effect]) -> u64 {
    let mut ids = effects.iter().filter_map(|effect| match effect {
        Effect::Append { id, .. } => Some(*id),
        Effect::Reply { .. } => None,
    });
    ids.next().expect("an append")
}

/// One member, stable in generation 1.
fn stable(shard: &mut GroupShard, instance: Option<&str>) -> String {
    let mut reply = joined_of_or_tick(shard, join("", instance, 1));
    if reply.error == Some(GroupError::MemberIdRequired) {
        reply = joined_of_or_tick(shard, join(&reply.member_id, instance, 1));
    }
    assert_eq!((reply.error, reply.generation, reply.members.len()), (None, 1, 1));
    let effects = sync(shard, &reply.member_id, 1);
    let id = append_of(&effects);
    assert_eq!(effects.len(), 1, "no reply before the assignment is stored");
    let effects = shard.appended(0, id, Ok(()));
    assert!(
        matches!(&effects[..], [Effect::Reply { reply: Reply::Sync(Ok(got)), .. }] if &got.assignment[..] == b"all")
    );
    reply.member_id
}

fn joined_of_or_tick(shard: &mut GroupShard, request: JoinRequest) -> JoinReply {
    let mut effects = shard.join(0, request, 1);
    effects.extend(shard.tick(0));
    joined_of(&effects)
}

fn sync(shard: &mut GroupShard, id: &str, generation: i32) -> Vec<Effect> {
    let assignments = vec![(id.to_owned(), Bytes::from_static(b"all"))];
    shard.sync(
        0,
        SyncRequest { member: member(id, generation), protocol_type: None, protocol_name: None, assignments },
        2,
    )
}

fn only(effects: Vec<Effect>) -> Reply {
    match effects.into_iter().next() {
        Some(Effect::Reply { reply, .. }) => reply,
        other => panic!("expected a reply, got {other:?}"),
    }
}

#[test]
fn a_member_lives_commits_and_dies() {
    let mut shard = shard();
    let id = stable(&mut shard, None);
    assert_eq!(only(shard.heartbeat(1, member(&id, 1), 3)), Reply::Heartbeat(Ok(())));
    assert_eq!(
        only(shard.heartbeat(1, member(&id, 2), 3)),
        Reply::Heartbeat(Err(GroupError::IllegalGeneration))
    );
    assert_eq!(
        only(shard.heartbeat(1, member("x", 1), 3)),
        Reply::Heartbeat(Err(GroupError::UnknownMemberId))
    );
    let append = append_of(&shard.commit_offsets(1, commit(&id, 1), 4));
    let fetch = FetchRequest { group_id: "g".into(), partitions: None };
    assert_eq!(
        only(shard.fetch_offsets(&fetch, 5)),
        Reply::Fetch(Vec::new()),
        "not visible before it is stored"
    );
    shard.appended(1, append, Ok(()));
    assert!(matches!(only(shard.fetch_offsets(&fetch, 5)), Reply::Fetch(found) if found.len() == 1));
    assert!(
        matches!(only(shard.delete_groups(vec!["g".into()], 6)), Reply::DeleteGroups(of) if of[0].1 == Some(GroupError::NonEmptyGroup))
    );
    let effects = shard.tick(10_001);
    shard.appended(10_001, append_of(&effects), Ok(()));
    assert_eq!(shard.counts().groups, BTreeMap::from([(GroupState::Empty, 1)]));
    let week = GroupConfig::default().offsets_retention_ms + 700_000;
    let effects = shard.tick(week);
    shard.appended(week, append_of(&effects), Ok(()));
    assert_eq!(shard.counts(), GroupCounts::default(), "nothing is left after the retention");
}

/// A topic's deletion is told to the groups late: by then another may have its name.
#[test]
fn a_deletion_takes_no_offset_of_the_topic_that_came_after() {
    let [old, new] = [b"the one that was", b"the one that is."].map(|bytes| TopicId::from_bytes(*bytes));
    let of = |topic_id| {
        let mut request = commit("", -1);
        request.offsets[0].topic_id = topic_id;
        request
    };
    let deleted = BTreeMap::from([("t".to_owned(), old)]);
    for (first, second, gone) in [
        (Some(old), None, true),
        (None, Some(old), true),
        (Some(TopicId::ZERO), None, true),
        (Some(new), None, false),
        (Some(old), Some(new), false),
        (None, Some(new), false),
    ] {
        let mut shard = shard();
        if let Some(stored) = first {
            let append = append_of(&shard.commit_offsets(0, of(stored), 1));
            shard.appended(0, append, Ok(()));
        }
        let on_its_way = second.map(|id| append_of(&shard.commit_offsets(0, of(id), 2)));
        let effects = shard.topics_deleted(&deleted, 3);
        if let Some(append) = on_its_way {
            shard.appended(0, append, Ok(()));
        }
        if gone {
            shard.appended(0, append_of(&effects), Ok(()));
        } else {
            assert_eq!(only(effects), Reply::TopicsDeleted(Ok(())), "{first:?} {second:?}");
        }
        assert_eq!(shard.counts().offsets, usize::from(!gone), "{first:?} {second:?}");
    }
}

#[test]
fn what_cannot_be_stored_is_refused_and_not_seen() {
    let mut shard = shard();
    let append = append_of(&shard.commit_offsets(0, commit("", -1), 1));
    let reply = only(shard.appended(0, append, Err(AppendFailure::NotAvailable)));
    assert!(matches!(reply, Reply::Commit(of) if of[0].error == Some(GroupError::CoordinatorNotAvailable)));
    assert_eq!(shard.counts(), GroupCounts::default());
}

#[test]
fn a_static_member_returns_without_a_rebalance_and_fences_the_old_one() {
    let mut shard = shard();
    let old = stable(&mut shard, Some("i"));
    let append = append_of(&shard.join(1, join("", Some("i"), 2), 7));
    let reply = joined_of(&shard.appended(1, append, Ok(())));
    assert_eq!((reply.error, reply.generation, reply.skip_assignment), (None, 1, true));
    let fenced = MemberOfGroup { group_instance_id: Some("i".into()), ..member(&old, 1) };
    assert_eq!(only(shard.heartbeat(1, fenced, 8)), Reply::Heartbeat(Err(GroupError::FencedInstanceId)));
    assert_eq!(only(shard.heartbeat(1, member(&reply.member_id, 1), 8)), Reply::Heartbeat(Ok(())));
}

/// Also what a client never comes back for counts: ids that it was given, and members whose connection is gone.
#[test]
fn members_are_refused_when_there_is_no_room_for_them() {
    let mut shard = shard();
    assert_eq!(shard.members_bytes(), 0);
    let with_room = |member_id: &str, random, room| JoinRequest { room, ..join(member_id, None, random) };
    let refused = joined_of(&shard.join(0, with_room("", 1, 100), 1));
    assert_eq!((refused.error, shard.members_bytes()), (Some(GroupError::GroupMaxSizeReached), 0));
    let given = joined_of(&shard.join(0, with_room("", 1, 1_000), 2));
    let expected = shard.members_bytes();
    assert!(given.error == Some(GroupError::MemberIdRequired) && expected > 100, "{expected}");
    assert!(shard.join(0, with_room(&given.member_id, 1, 1_000), 3).len() <= 1);
    let joined = shard.members_bytes();
    assert!(joined > expected, "{joined}");
    let more = JoinRequest {
        protocols: vec![("range".into(), Bytes::from(vec![0; 2_000]))],
        ..with_room(&given.member_id, 1, 1_500)
    };
    let refused = shard.join(0, more, 4);
    assert!(
        refused.iter().any(|effect| matches!(
            effect,
            Effect::Reply { token: 4, reply: Reply::Join(reply) }
                if reply.error == Some(GroupError::GroupMaxSizeReached)
        )),
        "{refused:?}"
    );
    assert_eq!(shard.members_bytes(), 0, "as in Kafka, who does not fit leaves");
    for number in 0..1_000 {
        shard.join(0, with_room("", 2 + number, usize::MAX), 5);
    }
    assert!(shard.members_bytes() > 100_000);
    shard.tick(i64::MAX / 2);
    assert_eq!(shard.members_bytes(), 0, "ids that nobody comes back with are forgotten");
}

#[test]
fn a_second_member_makes_the_first_rejoin() {
    let mut shard = shard();
    let first = stable(&mut shard, None);
    let second = JoinRequest { require_known_member_id: false, ..join("", None, 2) };
    assert!(shard.join(1, second, 9).is_empty());
    assert_eq!(
        only(shard.heartbeat(1, member(&first, 1), 3)),
        Reply::Heartbeat(Err(GroupError::RebalanceInProgress))
    );
    let effects = shard.join(1, join(&first, None, 0), 10);
    assert_eq!(effects.len(), 2);
    assert_eq!(joined_of(&effects).generation, 2);
    assert_eq!(shard.unload().len(), 0);
}

#[test]
fn a_replayed_shard_knows_what_the_live_one_stored() {
    let mut live = shard();
    let id = stable(&mut live, None);
    let append = append_of(&live.commit_offsets(1, commit(&id, 1), 4));
    live.appended(1, append, Ok(()));
    let loaded = || {
        let mut again = GroupShard::new(live.config.clone());
        for (name, value) in &live.durable {
            again.replay(records::group_key(name), Some(records::group_value(value))).unwrap();
        }
        again.finish_load(0);
        again
    };
    assert_eq!(loaded().durable, live.durable);
    assert_eq!(only(loaded().heartbeat(1, member(&id, 1), 3)), Reply::Heartbeat(Ok(())));
    // Nobody speaks after this load: the load alone must have set the session's timer.
    assert!(
        loaded().tick(10_001).iter().any(|effect| matches!(effect, Effect::Append { .. })),
        "sessions run after a load"
    );
}

#[test]
fn an_unused_member_id_that_leaves_starts_no_rebalance() {
    let mut shard = shard();
    let id = stable(&mut shard, None);
    let pending = joined_of(&shard.join(1, join("", None, 2), 5)).member_id;
    let members = vec![LeavingMember { member_id: pending, group_instance_id: None }];
    let reply = only(shard.leave(1, LeaveRequest { group_id: "g".into(), members }, 6));
    assert!(matches!(reply, Reply::Leave(Ok(of)) if of[0].error.is_none()));
    assert_eq!(only(shard.heartbeat(1, member(&id, 1), 3)), Reply::Heartbeat(Ok(())));
}
