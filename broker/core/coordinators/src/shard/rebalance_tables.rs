//! Rebalances, deletions and expiry, step by step, where Kafka's clients depend on the order.
use super::*;
use crate::requests::*;
use std::collections::VecDeque;

/// A shard, the replies by token, and the appends that wait.
struct Bench {
    shard: GroupShard,
    now_ms: i64,
    tokens: u64,
    replies: BTreeMap<u64, Reply>,
    appends: VecDeque<u64>,
}

const RETENTION_MS: i64 = 1_000_000;
const INTERVAL_MS: i64 = 10_000;

impl Bench {
    fn new(initial_rebalance_delay_ms: i64, max_size: usize) -> Self {
        let config = GroupConfig {
            initial_rebalance_delay_ms,
            max_size,
            offsets_retention_ms: RETENTION_MS,
            offsets_retention_check_interval_ms: INTERVAL_MS,
            assignment_bytes_max: 1_000,
            commit_offsets_max: 3,
            ..GroupConfig::default()
        };
        let mut shard = GroupShard::new(config);
        shard.finish_load(0);
        Self { shard, now_ms: 0, tokens: 0, replies: BTreeMap::new(), appends: VecDeque::new() }
    }

    fn run(&mut self, act: impl FnOnce(&mut GroupShard, i64, u64) -> Vec<Effect>) -> u64 {
        self.tokens += 1;
        let effects = act(&mut self.shard, self.now_ms, self.tokens);
        self.take(effects);
        self.tokens
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append { id, .. } => self.appends.push_back(id),
                Effect::Reply { token, reply } => {
                    assert!(self.replies.insert(token, reply).is_none(), "answered twice");
                }
            }
        }
    }

    fn stored(&mut self, outcome: Result<(), AppendFailure>) {
        let id = self.appends.pop_front().expect("an append");
        let effects = self.shard.appended(self.now_ms, id, outcome);
        self.take(effects);
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        let effects = self.shard.tick(self.now_ms);
        self.take(effects);
    }

    fn join_as(&mut self, id: &str, instance: Option<&str>, protocols: &[(&str, &'static [u8])]) -> u64 {
        let request = self.join_request(id, instance, protocols);
        self.run(|shard, now_ms, token| shard.join(now_ms, request, token))
    }

    fn join_request(
        &self,
        id: &str,
        instance: Option<&str>,
        protocols: &[(&str, &'static [u8])],
    ) -> JoinRequest {
        let protocols =
            protocols.iter().map(|(name, bytes)| ((*name).to_owned(), Bytes::from_static(bytes))).collect();
        JoinRequest {
            group_id: "g".into(),
            member_id: id.into(),
            group_instance_id: instance.map(str::to_owned),
            client_id: "c".into(),
            client_host: "/h".into(),
            require_known_member_id: false,
            supports_skipping_assignment: true,
            session_timeout_ms: 30_000,
            rebalance_timeout_ms: 60_000,
            protocol_type: "consumer".into(),
            protocols,
            random: u128::from(self.tokens),
            room: usize::MAX,
        }
    }

    fn join(&mut self, id: &str) -> u64 {
        self.join_as(id, None, &[("range", SUBSCRIBED)])
    }

    fn joined(&self, token: u64) -> JoinReply {
        match self.replies.get(&token) {
            Some(Reply::Join(reply)) => reply.clone(),
            other => panic!("no join reply: {other:?}"),
        }
    }

    fn sync(&mut self, of: &JoinReply, assigned: &[(&str, &'static [u8])]) -> u64 {
        let request = SyncRequest {
            member: Self::member(&of.member_id, of.generation),
            protocol_type: None,
            protocol_name: None,
            assignments: assigned
                .iter()
                .map(|(id, bytes)| ((*id).to_owned(), Bytes::from_static(bytes)))
                .collect(),
        };
        self.run(|shard, now_ms, token| shard.sync(now_ms, request, token))
    }

    fn synced(&self, token: u64) -> Result<&[u8], GroupError> {
        match self.replies.get(&token) {
            Some(Reply::Sync(reply)) => reply.as_ref().map(|got| &got.assignment[..]).map_err(|error| *error),
            other => panic!("no sync reply: {other:?}"),
        }
    }

    fn member(id: &str, generation: i32) -> MemberOfGroup {
        MemberOfGroup { group_id: "g".into(), member_id: id.into(), group_instance_id: None, generation }
    }

    fn heartbeat(&mut self, of: &JoinReply) -> Result<(), GroupError> {
        let member = Self::member(&of.member_id, of.generation);
        let token = self.run(|shard, now_ms, token| shard.heartbeat(now_ms, member, token));
        match self.replies.remove(&token) {
            Some(Reply::Heartbeat(outcome)) => outcome,
            other => panic!("no heartbeat reply: {other:?}"),
        }
    }

    fn leave(&mut self, id: &str) {
        let members = vec![LeavingMember { member_id: id.into(), group_instance_id: None }];
        let request = LeaveRequest { group_id: "g".into(), members };
        self.run(|shard, now_ms, token| shard.leave(now_ms, request, token));
    }

    fn commit(&mut self, member: MemberOfGroup, topics: &[&str]) -> u64 {
        let offset = |topic: &&str| OffsetToCommit {
            topic_id: TopicId::ZERO,
            topic: (*topic).to_owned(),
            partition: 0,
            offset: 7,
            leader_epoch: -1,
            metadata: None,
        };
        let offsets = topics.iter().map(offset).collect();
        let request = CommitRequest { member, retention_time_ms: None, offsets };
        self.run(|shard, now_ms, token| shard.commit_offsets(now_ms, request, token))
    }

    fn committed(&self, token: u64) -> Vec<Option<GroupError>> {
        match self.replies.get(&token) {
            Some(Reply::Commit(outcomes)) => outcomes.iter().map(|one| one.error).collect(),
            other => panic!("no commit reply: {other:?}"),
        }
    }

    fn describe(&mut self) -> DescribedGroup {
        let token = self.run(|shard, _, token| shard.describe(&["g".into()], token));
        match self.replies.remove(&token) {
            Some(Reply::Describe(mut groups)) => groups.remove(0),
            other => panic!("no description: {other:?}"),
        }
    }

    /// Groups in the state named.
    fn listed(&mut self, state: &str, kind: &str) -> usize {
        let token = self.run(|shard, _, token| shard.list(&[state.into()], &[kind.into()], token));
        match self.replies.remove(&token) {
            Some(Reply::List(groups)) => groups.len(),
            other => panic!("no list: {other:?}"),
        }
    }

    fn delete(&mut self) -> u64 {
        self.run(|shard, _, token| shard.delete_groups(vec!["g".into()], token))
    }

    fn deleted(&self, token: u64) -> Option<GroupError> {
        match self.replies.get(&token) {
            Some(Reply::DeleteGroups(groups)) => groups[0].1,
            other => panic!("no deletion: {other:?}"),
        }
    }

    /// Two members, stable in one generation, the leader first.
    fn pair(&mut self) -> (JoinReply, JoinReply) {
        let (one, two) = (self.join(""), self.join(""));
        self.pass(0);
        let (one, two) = (self.joined(one), self.joined(two));
        let (leader, follower) = if one.members.is_empty() { (two, one) } else { (one, two) };
        self.sync(&follower, &[]);
        self.sync(&leader, &[(&leader.member_id, b"L"), (&follower.member_id, b"F")]);
        self.stored(Ok(()));
        (leader, follower)
    }
}

const SUBSCRIBED: &[u8] = b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff";
const SIMPLE: &str = "";

#[test]
fn a_follower_waits_for_the_leaders_assignment_and_a_late_one_gets_it_at_once() {
    let mut bench = Bench::new(0, 9);
    let (one, two) = (bench.join(""), bench.join(""));
    bench.pass(0);
    let (leader, follower) = (bench.joined(one), bench.joined(two));
    assert_eq!((leader.members.len(), follower.members.len()), (2, 0));
    let early = bench.sync(&follower, &[]);
    assert!(!bench.replies.contains_key(&early));
    let led = bench.sync(&leader, &[(&follower.member_id, b"F")]);
    assert!(!bench.replies.contains_key(&led), "not told before it is stored");
    assert!(bench.describe().members.iter().all(|member| member.assignment.is_empty()));
    bench.stored(Ok(()));
    assert_eq!((bench.synced(early), bench.synced(led)), (Ok(&b"F"[..]), Ok(&b""[..])));
    let late = bench.sync(&follower, &[]);
    assert_eq!(bench.synced(late), Ok(&b"F"[..]));
    assert_eq!(bench.describe().protocol, "range");
    assert_eq!((bench.listed("stable", "Classic"), bench.listed("stable", "consumer")), (1, 0));
}

#[test]
fn an_assignment_that_cannot_be_stored_is_shown_to_nobody() {
    let mut bench = Bench::new(0, 9);
    let one = bench.join("");
    bench.pass(0);
    let leader = bench.joined(one);
    let token = bench.sync(&leader, &[(&leader.member_id, b"L")]);
    bench.stored(Err(AppendFailure::NotAvailable));
    assert_eq!(bench.synced(token), Err(GroupError::CoordinatorNotAvailable));
    let described = bench.describe();
    assert_eq!(described.state, GroupState::PreparingRebalance);
    assert!(described.members[0].assignment.is_empty());
    let again = bench.join(&leader.member_id);
    assert_eq!(bench.joined(again).generation, 2);
}

#[test]
fn a_leader_that_leaves_is_followed_by_another() {
    let mut bench = Bench::new(0, 9);
    let (leader, follower) = bench.pair();
    bench.leave(&leader.member_id);
    assert_eq!(bench.heartbeat(&follower), Err(GroupError::RebalanceInProgress));
    let described = bench.describe();
    assert_eq!((described.state, described.protocol.as_str()), (GroupState::PreparingRebalance, ""));
    assert_eq!(&described.members[0].assignment[..], b"F", "what it still holds is shown");
    let again = bench.join(&follower.member_id);
    let reply = bench.joined(again);
    assert_eq!((reply.generation, &reply.leader, reply.members.len()), (2, &follower.member_id, 1));
}

#[test]
fn only_changed_metadata_or_the_leader_starts_a_rebalance() {
    let mut bench = Bench::new(0, 9);
    let (leader, follower) = bench.pair();
    let same = bench.join(&follower.member_id);
    assert_eq!(bench.joined(same).generation, 1, "a follower with nothing new is told where it is");
    let changed = bench.join_as(&follower.member_id, None, &[("range", b"other")]);
    assert!(!bench.replies.contains_key(&changed));
    let led = bench.join(&leader.member_id);
    let reply = bench.joined(led);
    assert_eq!(reply.generation, 2);
    let metadata = |of: &&JoinedMember| of.member_id == follower.member_id;
    assert_eq!(reply.members.iter().find(metadata).map(|of| &of.metadata[..]), Some(&b"other"[..]));
    let forced = bench.join(&leader.member_id);
    assert_eq!(bench.joined(forced).generation, 2, "the same reply again while the others sync");
}

#[test]
fn a_cooperative_upgrade_goes_over_the_protocol_that_all_speak() {
    let mut bench = Bench::new(0, 9);
    let old = bench.join("");
    let new = bench.join_as("", None, &[("cooperative-sticky", b"c"), ("range", b"r")]);
    bench.pass(0);
    assert_eq!(bench.joined(new).protocol_name.as_deref(), Some("range"));
    let (old, new) = (bench.joined(old).member_id, bench.joined(new).member_id);
    let both: &[(&str, &[u8])] = &[("cooperative-sticky", b"c"), ("range", b"r")];
    bench.join_as(&old, None, both);
    let reply = bench.join_as(&new, None, &[("cooperative-sticky", b"c2"), ("range", b"r")]);
    assert_eq!(bench.joined(reply).protocol_name.as_deref(), Some("cooperative-sticky"));
    let alien = bench.join_as("", None, &[("roundrobin", b"")]);
    assert_eq!(bench.joined(alien).error, Some(GroupError::InconsistentGroupProtocol));
}

#[test]
fn joins_prolong_the_initial_delay_up_to_the_rebalance_timeout() {
    let mut bench = Bench::new(3_000, 9);
    let one = bench.join("");
    bench.pass(2_000);
    bench.join("");
    bench.pass(1_000);
    assert!(!bench.replies.contains_key(&one), "the second join bought another delay");
    bench.pass(2_999);
    assert!(!bench.replies.contains_key(&one));
    bench.pass(1);
    assert_eq!(bench.joined(one).members.len(), 2);
}

#[test]
fn a_full_group_refuses_and_keeps_who_is_in() {
    let mut bench = Bench::new(0, 2);
    let (leader, follower) = bench.pair();
    let third = bench.join("");
    assert_eq!(bench.joined(third).error, Some(GroupError::GroupMaxSizeReached));
    assert_eq!((bench.heartbeat(&leader), bench.heartbeat(&follower)), (Ok(()), Ok(())));
}

#[test]
fn a_first_join_that_is_retried_keeps_its_deadline() {
    let mut bench = Bench::new(0, 9);
    let (leader, _) = bench.pair();
    let first = bench.join_as("", None, &[("range", SUBSCRIBED)]);
    let newcomer = bench.shard.groups["g"].members.iter().find(|(_, member)| member.is_new);
    let id = newcomer.map(|(id, _)| id.clone()).expect("a new member");
    bench.join(&id);
    assert_eq!(bench.joined(first).error, Some(GroupError::RebalanceInProgress));
    let timer = Timer::Session { group: "g".into(), member: id };
    assert!(bench.shard.timers.is_set(&timer));
    assert_eq!(bench.heartbeat(&leader), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_static_member_is_replaced_once_that_is_stored_and_not_if_it_cannot_be() {
    let mut bench = Bench::new(0, 9);
    let (one, two) = (
        bench.join_as("", Some("i"), &[("range", SUBSCRIBED)]),
        bench.join_as("", Some("j"), &[("range", SUBSCRIBED)]),
    );
    bench.pass(0);
    let (one, two) = (bench.joined(one), bench.joined(two));
    bench.sync(&two, &[]);
    bench.sync(&one, &[(&one.member_id, b"1"), (&two.member_id, b"2")]);
    bench.stored(Ok(()));
    let again = bench.join_as("", Some("i"), &[("range", SUBSCRIBED)]);
    let other = bench.join_as("", Some("j"), &[("range", SUBSCRIBED)]);
    assert_eq!(bench.appends.len(), 1, "the second record builds on the first");
    assert_eq!(bench.heartbeat(&one), Ok(()), "the old member holds its place until then");
    bench.stored(Err(AppendFailure::NotAvailable));
    assert_eq!(bench.joined(again).error, Some(GroupError::CoordinatorNotAvailable));
    assert_eq!(bench.heartbeat(&one), Ok(()));
    bench.stored(Ok(()));
    assert_eq!((bench.joined(other).error, bench.joined(other).generation), (None, 1));
    assert!(!bench.joined(other).skip_assignment, "only a leader is told to skip");
    let leader = bench.join_as("", Some("i"), &[("range", SUBSCRIBED)]);
    bench.stored(Ok(()));
    let reply = bench.joined(leader);
    assert_eq!((reply.skip_assignment, reply.members.len(), &reply.leader), (true, 2, &reply.member_id));
    assert_eq!(bench.heartbeat(&one), Err(GroupError::UnknownMemberId));
    let late = bench.sync(&reply, &[]);
    assert_eq!(bench.synced(late), Ok(&b"1"[..]), "it has its place's assignment");
}

#[test]
fn a_member_that_leaves_while_its_assignment_is_stored_does_not_come_back() {
    let mut bench = Bench::new(0, 9);
    let one = bench.join("");
    bench.pass(0);
    let leader = bench.joined(one);
    bench.sync(&leader, &[]);
    bench.leave(&leader.member_id);
    bench.stored(Ok(()));
    bench.stored(Ok(()));
    let described = bench.describe();
    assert_eq!((described.state, described.members.len()), (GroupState::Empty, 0));
}

#[test]
fn everyone_who_waits_is_told_when_the_partition_moves() {
    let mut bench = Bench::new(0, 9);
    let (leader, follower) = bench.pair();
    let joining = bench.join(&leader.member_id);
    let committing = bench.commit(Bench::member(&follower.member_id, 1), &["t"]);
    let effects = bench.shard.unload();
    bench.take(effects);
    assert_eq!(bench.joined(joining).error, Some(GroupError::NotCoordinator));
    assert_eq!(bench.committed(committing), [Some(GroupError::NotCoordinator)]);
    assert_eq!(bench.shard.next_deadline(), None);
}

#[test]
fn offsets_of_topics_that_are_consumed_cannot_be_deleted() {
    let mut bench = Bench::new(0, 9);
    let (leader, _) = bench.pair();
    bench.commit(Bench::member(&leader.member_id, 1), &["t", "u"]);
    bench.stored(Ok(()));
    let partitions = vec![("t".to_owned(), 0), ("u".to_owned(), 0), ("none".to_owned(), 0)];
    let request = DeleteOffsetsRequest { group_id: "g".into(), partitions };
    let token = bench.run(|shard, _, token| shard.delete_offsets(request, token));
    bench.stored(Ok(()));
    let Some(Reply::DeleteOffsets(Ok(outcomes))) = bench.replies.get(&token) else { panic!("no deletion") };
    let errors: Vec<_> = outcomes.iter().map(|one| one.error).collect();
    assert_eq!(errors, [Some(GroupError::GroupSubscribedToTopic), None, None]);
    assert_eq!(bench.shard.counts().offsets, 1);
    let topics = BTreeMap::from([("t".to_owned(), TopicId::ZERO)]);
    let token = bench.run(|shard, _, token| shard.topics_deleted(&topics, token));
    assert_eq!(bench.shard.counts().offsets, 1, "not gone before that is stored");
    bench.stored(Ok(()));
    assert_eq!(bench.replies.get(&token), Some(&Reply::TopicsDeleted(Ok(()))));
    assert_eq!(bench.shard.counts().offsets, 0);
}

#[test]
fn a_group_shows_dead_while_it_is_deleted_and_lives_on_where_that_fails() {
    let mut bench = Bench::new(0, 9);
    bench.commit(Bench::member(SIMPLE, -1), &["t"]);
    bench.stored(Ok(()));
    for outcome in [Err(AppendFailure::NotAvailable), Ok(())] {
        let token = bench.delete();
        assert_eq!((bench.describe().state, bench.listed("dead", "classic")), (GroupState::Dead, 1));
        let twice = bench.delete();
        assert_eq!(bench.deleted(twice), Some(GroupError::GroupIdNotFound));
        let join = bench.join("");
        assert_eq!(bench.joined(join).error, Some(GroupError::CoordinatorNotAvailable));
        let commit = bench.commit(Bench::member(SIMPLE, -1), &["t"]);
        assert_eq!(bench.committed(commit), [Some(GroupError::CoordinatorNotAvailable)]);
        bench.stored(outcome);
        assert_eq!(bench.deleted(token), outcome.err().map(AppendFailure::error));
        assert_eq!(bench.listed("empty", "classic"), usize::from(outcome.is_err()));
    }
    assert_eq!(bench.describe().error, Some(GroupError::GroupIdNotFound));
}

#[test]
fn what_a_client_sends_has_bounds() {
    let mut bench = Bench::new(0, 9);
    let (long, many) = ("x".repeat(250), ["t", "u", "v", "w"]);
    let simple = || Bench::member(SIMPLE, -1);
    let token = bench.commit(simple(), &[&long, "", "a/b"]);
    assert_eq!(bench.committed(token), [Some(GroupError::UnknownTopicOrPartition); 3]);
    let token = bench.commit(simple(), &many);
    assert_eq!(bench.committed(token), [Some(GroupError::InvalidCommitOffsetSize); 4]);
    let one = bench.join("");
    bench.pass(0);
    let leader = bench.joined(one);
    let token = bench.sync(&leader, &[("x", &[0; 1_000])]);
    assert_eq!(bench.synced(token), Err(GroupError::InvalidRequest));
}

#[test]
fn offsets_expire_when_nobody_consumes_them_and_the_group_goes_last() {
    let mut bench = Bench::new(0, 9);
    let (leader, follower) = bench.pair();
    bench.commit(Bench::member(&leader.member_id, 1), &["t", "u"]);
    bench.stored(Ok(()));
    for _ in 0..RETENTION_MS / 20_000 + 2 {
        bench.pass(20_000);
        assert_eq!((bench.heartbeat(&leader), bench.heartbeat(&follower)), (Ok(()), Ok(())));
    }
    bench.stored(Ok(()));
    assert_eq!(bench.shard.counts().offsets, 1, "only the topic that nobody subscribes to");
    for id in [&leader.member_id, &follower.member_id] {
        bench.leave(id);
    }
    bench.stored(Ok(()));
    bench.pass(RETENTION_MS - 1);
    assert!(bench.appends.is_empty(), "the time counts from when the group became empty");
    bench.pass(INTERVAL_MS + 1);
    bench.stored(Ok(()));
    assert_eq!(bench.shard.counts(), GroupCounts::default());
    bench.pass(INTERVAL_MS);
    assert_eq!(bench.shard.next_deadline(), None, "nothing is left to look at");
}

#[path = "kip_tables.rs"]
mod kip_tables;
