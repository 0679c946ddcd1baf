//! Property: once faults stop, whoever lives is in one stable generation and has what its leader assigned.
use super::*;
use crate::requests::*;
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Away,
    Joining,
    Syncing,
    Settled(Bytes),
}

/// A consumer as its library behaves.
#[derive(Debug, Clone)]
struct Client {
    alive: bool,
    phase: Phase,
    member_id: String,
    generation: i32,
    instance: Option<String>,
    /// The only answer it listens to.
    awaits: Option<u64>,
}

struct World {
    shard: GroupShard,
    now_ms: i64,
    clients: Vec<Client>,
    asked: Vec<usize>,
    answered: BTreeSet<u64>,
    appends: VecDeque<(u64, Vec<OffsetsRecord>)>,
    log: Vec<OffsetsRecord>,
}

const CLIENTS: usize = 6;

impl World {
    fn new() -> Self {
        let mut shard = GroupShard::new(GroupConfig::default());
        shard.finish_load(0);
        let client = |slot: usize| Client {
            alive: false,
            phase: Phase::Away,
            member_id: String::new(),
            generation: -1,
            instance: (slot >= 4).then(|| format!("i{slot}")),
            awaits: None,
        };
        Self {
            shard,
            now_ms: 0,
            clients: (0..CLIENTS).map(client).collect(),
            asked: Vec::new(),
            answered: BTreeSet::new(),
            appends: VecDeque::new(),
            log: Vec::new(),
        }
    }

    fn token(&mut self, slot: usize) -> u64 {
        let token = self.asked.len() as u64;
        self.asked.push(slot);
        token
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append { id, records } => self.appends.push_back((id, records)),
                Effect::Reply { token, reply } => {
                    assert!(self.answered.insert(token), "token {token} is answered twice");
                    let slot = self.asked[token as usize];
                    if self.clients[slot].alive && self.clients[slot].awaits == Some(token) {
                        self.clients[slot].awaits = None;
                        self.answer(slot, reply);
                    }
                }
            }
        }
    }

    fn answer(&mut self, slot: usize, reply: Reply) {
        let client = &mut self.clients[slot];
        let error = match reply {
            Reply::Join(joined) if joined.error == Some(GroupError::MemberIdRequired) => {
                client.member_id = joined.member_id;
                client.phase = Phase::Away;
                return;
            }
            Reply::Join(joined) => match joined.error {
                Some(error) => error,
                None => {
                    client.member_id.clone_from(&joined.member_id);
                    client.generation = joined.generation;
                    client.phase = Phase::Syncing;
                    return self.sync(slot, &joined);
                }
            },
            Reply::Sync(Ok(got)) => {
                client.phase = Phase::Settled(got.assignment);
                return;
            }
            Reply::Heartbeat(Ok(())) => return,
            Reply::Sync(Err(error)) | Reply::Heartbeat(Err(error)) => error,
            other => panic!("nobody asked for {other:?}"),
        };
        client.phase = Phase::Away;
        if matches!(error, GroupError::UnknownMemberId | GroupError::FencedInstanceId) {
            client.member_id.clear();
        }
    }

    fn member(&self, slot: usize) -> MemberOfGroup {
        let client = &self.clients[slot];
        MemberOfGroup {
            group_id: "g".into(),
            member_id: client.member_id.clone(),
            group_instance_id: client.instance.clone(),
            generation: client.generation,
        }
    }

    fn sync(&mut self, slot: usize, joined: &JoinReply) {
        let bytes = |id: &str| Bytes::from(format!("{id}@{}", joined.generation));
        let mut assignments: Vec<_> = joined
            .members
            .iter()
            .map(|member| (member.member_id.clone(), bytes(&member.member_id)))
            .collect();
        if joined.skip_assignment {
            assignments.clear();
        }
        let token = self.token(slot);
        self.clients[slot].awaits = Some(token);
        let member = self.member(slot);
        let request = SyncRequest { member, protocol_type: None, protocol_name: None, assignments };
        let effects = self.shard.sync(self.now_ms, request, token);
        self.take(effects);
    }

    fn act(&mut self, slot: usize) {
        let client = &self.clients[slot];
        if !client.alive || client.awaits.is_some() {
            return;
        }
        let settled = matches!(client.phase, Phase::Settled(_));
        let token = self.token(slot);
        self.clients[slot].awaits = Some(token);
        let effects = if settled {
            self.shard.heartbeat(self.now_ms, self.member(slot), token)
        } else {
            self.clients[slot].phase = Phase::Joining;
            let member = self.member(slot);
            let request = JoinRequest {
                group_id: "g".into(),
                member_id: member.member_id,
                group_instance_id: member.group_instance_id,
                client_id: "c".into(),
                client_host: "/127.0.0.1".into(),
                require_known_member_id: true,
                supports_skipping_assignment: true,
                session_timeout_ms: 10_000,
                rebalance_timeout_ms: 30_000,
                protocol_type: "consumer".into(),
                protocols: vec![("range".into(), Bytes::new())],
                random: u128::from(token),
                room: usize::MAX,
            };
            self.shard.join(self.now_ms, request, token)
        };
        self.take(effects);
    }

    fn stored(&mut self, outcome: Result<(), AppendFailure>) {
        if let Some((id, records)) = self.appends.pop_front() {
            if outcome.is_ok() {
                self.log.extend(records);
            }
            let effects = self.shard.appended(self.now_ms, id, outcome);
            self.take(effects);
        }
    }

    /// The coordinator moves: what was on its way is lost, and another shard is loaded from the log.
    fn reload(&mut self) {
        let effects = self.shard.unload();
        self.take(effects);
        self.appends.clear();
        self.shard = GroupShard::new(GroupConfig::default());
        for record in &self.log {
            self.shard.replay(record.key.clone(), record.value.clone()).expect("our record");
        }
        let effects = self.shard.finish_load(self.now_ms);
        self.take(effects);
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        let effects = self.shard.tick(self.now_ms);
        self.take(effects);
    }

    fn fault(&mut self, (what, slot, dice): (u8, usize, u8)) {
        match what {
            0 | 1 => self.clients[slot].alive = true,
            2 => {
                // It crashes and forgets everything but its configuration; it may come back.
                let client = &mut self.clients[slot];
                let instance = client.instance.take();
                *client = Client {
                    alive: dice.is_multiple_of(2),
                    phase: Phase::Away,
                    member_id: String::new(),
                    generation: -1,
                    instance,
                    awaits: None,
                };
            }
            3 => {
                // Its connection breaks: it asks again, under the same id.
                self.clients[slot].awaits = None;
                self.clients[slot].phase = Phase::Away;
            }
            4 if self.clients[slot].alive => {
                let MemberOfGroup { group_id, member_id, group_instance_id, .. } = self.member(slot);
                let client = &mut self.clients[slot];
                client.alive = false;
                client.phase = Phase::Away;
                client.awaits = None;
                client.member_id.clear();
                let token = self.token(slot);
                let members = vec![LeavingMember { member_id, group_instance_id }];
                let effects = self.shard.leave(self.now_ms, LeaveRequest { group_id, members }, token);
                self.take(effects);
            }
            5 => self.stored(Err(AppendFailure::NotAvailable)),
            6 => self.stored(Ok(())),
            8 if dice < 64 => self.reload(),
            7 => self.pass(i64::from(dice) * 60),
            _ => self.act(slot),
        }
    }

    fn heal(&mut self) {
        // Longer than a new member may wait for its join, and two rebalances.
        for _ in 0..420 {
            for slot in 0..CLIENTS {
                self.act(slot);
            }
            while !self.appends.is_empty() {
                self.stored(Ok(()));
            }
            self.pass(1_000);
        }
    }

    fn check(mut self) {
        self.heal();
        let alive: Vec<_> = self.clients.iter().filter(|client| client.alive).collect();
        let ids: BTreeSet<_> = alive.iter().map(|client| client.member_id.clone()).collect();
        if let Some(group) = self.shard.groups.get("g") {
            let members: BTreeSet<_> = group.members.keys().cloned().collect();
            assert_eq!(members, ids, "the members are those who live");
            let state = if alive.is_empty() { GroupState::Empty } else { GroupState::Stable };
            assert_eq!(group.state, state);
            for client in &alive {
                assert_eq!(client.generation, group.generation, "one generation");
                let held = &group.members[&client.member_id].assignment;
                assert_eq!(client.phase, Phase::Settled(held.clone()), "its own assignment");
                // Static members take over what was assigned to their place, so the id in the bytes may be an older one.
                let text = String::from_utf8(held.to_vec()).expect("text");
                let own = client.instance.is_some() || text.starts_with(&client.member_id);
                assert!(own && text.ends_with(&format!("@{}", group.generation)), "{text}");
            }
        } else {
            assert!(alive.is_empty(), "the group is there for those who live");
        }
        let effects = self.shard.unload();
        self.take(effects);
        assert_eq!(self.answered.len(), self.asked.len(), "every request is answered");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn who_lives_settles_in_one_generation(faults in prop::collection::vec((0u8..20, 0..CLIENTS, any::<u8>()), 1..150)) {
        let mut world = World::new();
        for fault in faults {
            world.fault(fault);
        }
        world.check();
    }
}
