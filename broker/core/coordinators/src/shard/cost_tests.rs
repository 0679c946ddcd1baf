//! Prints what many groups and one big group cost. Nothing is asserted of time; `--nocapture` shows it.
use super::*;
use crate::requests::*;
use std::time::Instant;

fn commit(group: &str, now_ms: i64, shard: &mut GroupShard) -> Vec<Effect> {
    let member = MemberOfGroup {
        group_id: group.into(),
        member_id: String::new(),
        group_instance_id: None,
        generation: -1,
    };
    let offset = |partition| OffsetToCommit {
        topic_id: TopicId::ZERO,
        topic: "t".into(),
        partition,
        offset: 1,
        leader_epoch: -1,
        metadata: None,
    };
    let request = CommitRequest { member, retention_time_ms: None, offsets: (0..10).map(offset).collect() };
    shard.commit_offsets(now_ms, request, 0)
}

fn store(shard: &mut GroupShard, now_ms: i64, effects: Vec<Effect>) -> usize {
    let ids = effects.iter().filter_map(|effect| match effect {
        Effect::Append { id, .. } => Some(*id),
        Effect::Reply { .. } => None,
    });
    ids.map(|id| shard.appended(now_ms, id, Ok(()))).count()
}

#[test]
fn ten_thousand_groups_expire_only_as_they_are_due() {
    let config = GroupConfig::default();
    let (retention, interval) = (config.offsets_retention_ms, config.offsets_retention_check_interval_ms);
    let mut shard = GroupShard::new(config);
    shard.finish_load(0);
    let started = Instant::now();
    for group in 0..10_000 {
        // One in ten is older than the rest by two checks.
        let now_ms = if group % 10 == 0 { 0 } else { 2 * interval };
        let effects = commit(&format!("g{group}"), now_ms, &mut shard);
        store(&mut shard, now_ms, effects);
    }
    println!("10,000 groups commit 100,000 offsets in {:?}", started.elapsed());
    let started = Instant::now();
    assert!(shard.tick(retention - 1).is_empty());
    println!("a tick with nothing due takes {:?}", started.elapsed());
    let started = Instant::now();
    let effects = shard.tick(retention);
    let due = store(&mut shard, retention, effects);
    println!("1,000 groups expire in {:?}", started.elapsed());
    assert_eq!((due, shard.counts().offsets), (1_000, 90_000));
}

#[test]
fn a_group_of_a_thousand_members_rebalances() {
    let mut shard = GroupShard::new(GroupConfig::default());
    shard.finish_load(0);
    let started = Instant::now();
    for member in 0..1_000u64 {
        let request = JoinRequest {
            group_id: "g".into(),
            member_id: String::new(),
            group_instance_id: None,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            require_known_member_id: false,
            supports_skipping_assignment: true,
            session_timeout_ms: 45_000,
            rebalance_timeout_ms: 300_000,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::from(vec![0; 200]))],
            random: u128::from(member),
            room: usize::MAX,
        };
        assert!(shard.join(0, request, member).is_empty());
    }
    println!("1,000 members join in {:?}", started.elapsed());
    let started = Instant::now();
    let mut joined = shard.tick(3_000);
    joined.extend(shard.tick(6_000));
    println!("the generation begins in {:?}", started.elapsed());
    assert_eq!(joined.len(), 1_000);
    let started = Instant::now();
    let mut waiting = Vec::new();
    for effect in joined {
        let Effect::Reply { token, reply: Reply::Join(reply) } = effect else { panic!("no join reply") };
        let member = MemberOfGroup {
            group_id: "g".into(),
            member_id: reply.member_id,
            group_instance_id: None,
            generation: reply.generation,
        };
        let assigned = |member: JoinedMember| (member.member_id, Bytes::from(vec![1; 100]));
        let assignments = reply.members.into_iter().map(assigned).collect();
        let request = SyncRequest { member, protocol_type: None, protocol_name: None, assignments };
        waiting.extend(shard.sync(6_000, request, token));
    }
    let [Effect::Append { id, .. }] = waiting[..] else { panic!("one append") };
    let synced = shard.appended(6_000, id, Ok(()));
    println!("1,000 members sync in {:?}", started.elapsed());
    assert_eq!(synced.len(), 1_000);
}
