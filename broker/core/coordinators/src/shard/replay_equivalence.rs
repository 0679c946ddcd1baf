//! Property: what the log holds is what the live shard knows, whatever is asked and whichever appends fail.
use super::*;
use crate::requests::*;
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};

/// One step: what to do, and three dice.
type Step = (u8, u8, u8, u8);

#[derive(Default, Clone)]
struct Known {
    member_id: String,
    generation: i32,
}

struct World {
    shard: GroupShard,
    now_ms: i64,
    /// Six members each of two groups; the last two of each are static.
    known: Vec<Known>,
    asked: BTreeMap<u64, usize>,
    answered: BTreeSet<u64>,
    appends: VecDeque<(u64, Vec<OffsetsRecord>)>,
    log: Vec<OffsetsRecord>,
}

const MEMBERS: usize = 6;
const TOPICS: [&str; 3] = ["t", "u", "v"];

fn subscription(topic: &str) -> Bytes {
    let mut bytes = b"\0\0\0\0\0\x01\0\x01".to_vec();
    bytes.extend_from_slice(topic.as_bytes());
    bytes.extend_from_slice(b"\xff\xff\xff\xff");
    bytes.into()
}

impl World {
    fn new() -> Self {
        let config = GroupConfig {
            initial_rebalance_delay_ms: 1_000,
            max_size: 5,
            offsets_retention_ms: 100_000,
            offsets_retention_check_interval_ms: 20_000,
            ..GroupConfig::default()
        };
        let mut shard = GroupShard::new(config);
        shard.finish_load(0);
        Self {
            shard,
            now_ms: 0,
            known: vec![Known::default(); 2 * MEMBERS],
            asked: BTreeMap::new(),
            answered: BTreeSet::new(),
            appends: VecDeque::new(),
            log: Vec::new(),
        }
    }

    fn token(&mut self, slot: usize) -> u64 {
        let token = self.asked.len() as u64;
        self.asked.insert(token, slot);
        token
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append { id, records } => self.appends.push_back((id, records)),
                Effect::Reply { token, reply } => {
                    assert!(self.answered.insert(token), "token {token} is answered twice");
                    let known = &mut self.known[self.asked[&token]];
                    if let Reply::Join(joined) = reply {
                        if joined.error.is_none() {
                            known.generation = joined.generation;
                        }
                        if !joined.member_id.is_empty() {
                            known.member_id = joined.member_id;
                        }
                    }
                }
            }
        }
    }

    fn group(slot: usize) -> String {
        format!("g{}", slot / MEMBERS)
    }

    fn instance(slot: usize) -> Option<String> {
        (slot % MEMBERS >= MEMBERS - 2).then(|| format!("i{slot}"))
    }

    fn member(&self, slot: usize) -> MemberOfGroup {
        MemberOfGroup {
            group_id: Self::group(slot),
            member_id: self.known[slot].member_id.clone(),
            group_instance_id: Self::instance(slot),
            generation: self.known[slot].generation,
        }
    }

    fn step(&mut self, (what, a, b, c): Step) {
        let slot = usize::from(a) % self.known.len();
        let token = match what {
            0..=22 => 0,
            _ => self.token(slot),
        };
        let now_ms = self.now_ms;
        let group_id = Self::group(slot);
        let effects = match what {
            0..=15 => return self.appended(!c.is_multiple_of(5)),
            16..=22 => {
                self.now_ms += i64::from(b) * if c < 16 { 1_000 } else { 20 };
                self.shard.tick(self.now_ms)
            }
            23..=40 => self.shard.join(now_ms, self.join_request(slot, b, c, token), token),
            41..=55 => {
                let assigned = |known: &Known| (known.member_id.clone(), Bytes::from(vec![b, c]));
                let assignments = self.known.iter().map(assigned).collect();
                let member = self.member(slot);
                let request = SyncRequest { member, protocol_type: None, protocol_name: None, assignments };
                self.shard.sync(now_ms, request, token)
            }
            56..=60 => self.shard.heartbeat(now_ms, self.member(slot), token),
            61..=63 => {
                let MemberOfGroup { member_id, group_instance_id, .. } = self.member(slot);
                let members = vec![LeavingMember { member_id, group_instance_id }];
                self.shard.leave(now_ms, LeaveRequest { group_id, members }, token)
            }
            64..=72 => {
                let member = if c.is_multiple_of(3) {
                    MemberOfGroup {
                        group_id,
                        member_id: String::new(),
                        group_instance_id: None,
                        generation: -1,
                    }
                } else {
                    self.member(slot)
                };
                let offset = OffsetToCommit {
                    topic_id: TopicId::ZERO,
                    topic: TOPICS[usize::from(b) % 3].into(),
                    partition: i32::from(c % 2),
                    offset: now_ms,
                    leader_epoch: 1,
                    metadata: None,
                };
                let retention_time_ms = (b > 250).then_some(30_000);
                let request = CommitRequest { member, retention_time_ms, offsets: vec![offset] };
                self.shard.commit_offsets(now_ms, request, token)
            }
            73..=75 => {
                let partitions = vec![(TOPICS[usize::from(b) % 3].to_owned(), i32::from(c % 2))];
                self.shard.delete_offsets(DeleteOffsetsRequest { group_id, partitions }, token)
            }
            76..=77 => self.shard.delete_groups(vec![group_id, "none".into()], token),
            _ => {
                let topic = TOPICS[usize::from(b) % 3].to_owned();
                self.shard.topics_deleted(&BTreeMap::from([(topic, TopicId::ZERO)]), token)
            }
        };
        self.take(effects);
    }

    fn join_request(&self, slot: usize, b: u8, c: u8, token: u64) -> JoinRequest {
        let fresh = b.is_multiple_of(4);
        let topic = TOPICS[usize::from(c / 16) % 3];
        JoinRequest {
            group_id: Self::group(slot),
            member_id: if fresh { String::new() } else { self.known[slot].member_id.clone() },
            group_instance_id: Self::instance(slot),
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            require_known_member_id: b & 8 == 0,
            supports_skipping_assignment: b & 16 == 0,
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: if b & 32 == 0 { 10_000 } else { -1 },
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), subscription(topic)), ("sticky".into(), Bytes::new())],
            random: u128::from(token),
            room: usize::MAX,
        }
    }

    fn appended(&mut self, stored: bool) {
        let Some((id, records)) = self.appends.pop_front() else { return };
        if stored {
            self.log.extend(records);
        }
        let outcome = if stored { Ok(()) } else { Err(AppendFailure::NotAvailable) };
        let effects = self.shard.appended(self.now_ms, id, outcome);
        self.take(effects);
    }

    /// What must hold between any two steps.
    fn check(&self) {
        let shard = &self.shard;
        for name in shard.durable.keys().chain(shard.offsets.keys()) {
            assert!(shard.groups.contains_key(name), "{name} has records and is not known");
        }
        for pending in shard.pending.values().filter(|pending| !matches!(pending.then, Then::Reply { .. })) {
            let all = pending.groups.iter().all(|name| shard.groups.contains_key(name));
            assert!(all, "{:?} is forgotten while its record is on its way", pending.groups);
        }
        for (name, group) in &shard.groups {
            let waiting = group.members.values().filter(|member| member.awaiting_join.is_some()).count();
            assert_eq!(group.awaiting_join, waiting, "{name}: members that wait");
            let leads = group.leader.as_ref().is_some_and(|id| group.members.contains_key(id));
            assert!(group.members.is_empty() || leads, "{name}: no leader among its members");
            for id in group.static_members.values() {
                assert!(group.members.contains_key(id), "{name}: an instance of nobody");
            }
            for (id, member) in &group.members {
                let timer = Timer::Session { group: name.clone(), member: id.clone() };
                let waits = member.awaiting_join.is_some() || member.awaiting_sync.is_some();
                assert!(
                    shard.timers.is_set(&timer) || (waits && !member.is_new),
                    "{name}: {id} would stay for ever"
                );
            }
            let joining = group.state != GroupState::PreparingRebalance
                || shard.timers.is_set(&Timer::Join { group: name.clone() });
            assert!(joining, "{name}: the join phase has no end");
            let syncing = group.state != GroupState::CompletingRebalance
                || group.assigning
                || shard.timers.is_set(&Timer::Sync { group: name.clone() });
            assert!(syncing, "{name}: the sync phase has no end");
            let expires = shard.next_expiration(name, group).is_none()
                || shard.timers.is_set(&Timer::Expiration { group: name.clone() });
            assert!(
                expires
                    || group.members.is_empty()
                        && !shard.durable.contains_key(name)
                        && !shard.offsets.contains_key(name),
                "{name}: its offsets would stay for ever"
            );
            if group.state == GroupState::Stable && !shard.in_flight.contains_key(name) {
                let stored = &shard.durable[name];
                assert_eq!(
                    &group.value(None, stored.state_timestamp_ms),
                    stored,
                    "{name}: told what is not stored"
                );
            }
        }
    }

    fn finish(mut self) {
        let mut again = GroupShard::new(self.shard.config.clone());
        for record in &self.log {
            again.replay(record.key.clone(), record.value.clone()).expect("our record");
        }
        assert_eq!(again.durable, self.shard.durable);
        assert_eq!(again.offsets, self.shard.offsets);
        let effects = self.shard.unload();
        self.take(effects);
        assert_eq!(self.answered.len(), self.asked.len(), "every request is answered");
        assert_eq!(self.shard.counts(), GroupCounts::default());
        assert_eq!(self.shard.next_deadline(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_replayed_equals_the_live_state(steps in prop::collection::vec((0u8..80, any::<u8>(), any::<u8>(), any::<u8>()), 1..250)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check();
        }
        world.finish();
    }
}
