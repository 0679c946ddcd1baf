//! What clients are told where a KIP fixed the words: static leaders (KIP-814), states (KIP-518), retention (KIP-211).
use super::*;

/// Two static members, stable in one generation, the leader first.
fn static_pair(bench: &mut Bench) -> (JoinReply, JoinReply) {
    let protocols = [("range", SUBSCRIBED)];
    let (one, two) = (bench.join_as("", Some("a"), &protocols), bench.join_as("", Some("b"), &protocols));
    bench.pass(0);
    let (one, two) = (bench.joined(one), bench.joined(two));
    let first_leads = one.leader == one.member_id;
    let (leader, follower) = if first_leads { (one, two) } else { (two, one) };
    bench.sync(&follower, &[]);
    bench.sync(&leader, &[(&leader.member_id, b"L"), (&follower.member_id, b"F")]);
    bench.stored(Ok(()));
    (leader, follower)
}

fn instance_of(bench: &mut Bench, member: &JoinReply) -> String {
    let described = bench.describe();
    let found = described.members.into_iter().find(|one| one.member_id == member.member_id);
    found.and_then(|one| one.group_instance_id).expect("a static member")
}

#[test]
fn a_static_leader_that_comes_back_is_told_not_to_assign() {
    for (leads, skips) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut bench = Bench::new(0, 9);
        let (leader, follower) = static_pair(&mut bench);
        let old = if leads { &leader } else { &follower };
        let instance = instance_of(&mut bench, old);
        let mut request = bench.join_request("", Some(&instance), &[("range", SUBSCRIBED)]);
        request.supports_skipping_assignment = skips;
        let token = bench.run(|shard, now_ms, token| shard.join(now_ms, request, token));
        assert!(!bench.replies.contains_key(&token), "not before it is stored");
        bench.stored(Ok(()));
        let reply = bench.joined(token);
        let case = format!("leads {leads}, skips {skips}: {reply:?}");
        assert_eq!(reply.generation, old.generation, "{case}");
        assert_ne!(reply.member_id, old.member_id, "{case}");
        // A client of old that were told that it leads would assign anew, in a generation that has its assignment.
        let expected_leader = match (leads, skips) {
            (true, true) => &reply.member_id,
            _ => &leader.member_id,
        };
        assert_eq!(&reply.leader, expected_leader, "{case}");
        assert_eq!(reply.skip_assignment, leads && skips, "{case}");
        assert_eq!(reply.members.len(), if leads && skips { 2 } else { 0 }, "{case}");
        let synced = bench.sync(&reply, &[]);
        assert_eq!(bench.synced(synced), Ok(if leads { &b"L"[..] } else { &b"F"[..] }), "{case}");
        assert_eq!(bench.heartbeat(old), Err(GroupError::UnknownMemberId), "{case}");
        let fenced = MemberOfGroup {
            group_instance_id: Some(instance),
            ..Bench::member(&old.member_id, old.generation)
        };
        let commit = bench.commit(fenced, &["t"]);
        assert_eq!(bench.committed(commit), [Some(GroupError::FencedInstanceId)], "{case}");
    }
}

#[test]
fn a_group_is_listed_and_described_by_its_state() {
    let states = ["Empty", "PreparingRebalance", "CompletingRebalance", "Stable"];
    let mut bench = Bench::new(100, 9);
    let shown = |bench: &mut Bench| {
        let described = bench.describe();
        let in_state = described.state.name();
        for state in states {
            assert_eq!(
                bench.listed(state, "classic"),
                usize::from(state == in_state),
                "{state} in {in_state}"
            );
            let lower = state.to_lowercase();
            assert_eq!(
                bench.listed(&lower, "classic"),
                usize::from(state == in_state),
                "{lower} in {in_state}"
            );
        }
        let metadata = described.members.iter().map(|member| member.metadata.len()).sum::<usize>();
        (in_state.to_owned(), described.protocol, described.members.len(), metadata > 0)
    };
    let expected = |state: &str, protocol: &str, members, metadata| {
        (state.to_owned(), protocol.to_owned(), members, metadata)
    };
    let joining = bench.join("");
    assert_eq!(shown(&mut bench), expected("PreparingRebalance", "", 1, false));
    bench.pass(100);
    let leader = bench.joined(joining);
    assert_eq!(shown(&mut bench), expected("CompletingRebalance", "", 1, false));
    bench.sync(&leader, &[(&leader.member_id, b"L")]);
    assert_eq!(shown(&mut bench), expected("CompletingRebalance", "", 1, false), "until it is stored");
    bench.stored(Ok(()));
    assert_eq!(shown(&mut bench), expected("Stable", "range", 1, true));
    let again = bench.join(&leader.member_id);
    let leader = bench.joined(again);
    assert_eq!(leader.generation, 2);
    let described = bench.describe();
    assert_eq!(described.state, GroupState::CompletingRebalance);
    assert_eq!(&described.members[0].assignment[..], b"L", "what it still holds is shown");
    let commit = bench.commit(Bench::member(&leader.member_id, 1), &["t"]);
    assert_eq!(bench.committed(commit), [Some(GroupError::IllegalGeneration)]);
    let commit = bench.commit(Bench::member(&leader.member_id, 2), &["t"]);
    assert_eq!(bench.committed(commit), [Some(GroupError::RebalanceInProgress)]);
    let synced = bench.sync(&leader, &[(&leader.member_id, b"L")]);
    bench.stored(Ok(()));
    assert_eq!(bench.synced(synced), Ok(&b"L"[..]));
    let commit = bench.commit(Bench::member(&leader.member_id, 2), &["t"]);
    bench.stored(Ok(()));
    assert_eq!(bench.committed(commit), [None]);
    bench.leave(&leader.member_id);
    bench.stored(Ok(()));
    assert_eq!(shown(&mut bench), expected("Empty", "", 0, false));
}

#[test]
fn an_empty_groups_offsets_expire_together_counted_from_when_it_became_empty() {
    let mut bench = Bench::new(0, 9);
    let one = bench.join("");
    bench.pass(0);
    let leader = bench.joined(one);
    bench.sync(&leader, &[(&leader.member_id, b"L")]);
    bench.stored(Ok(()));
    bench.commit(Bench::member(&leader.member_id, 1), &["t", "u"]);
    bench.stored(Ok(()));
    // However old the offsets are, the group's own retention begins here.
    bench.pass(20_000);
    bench.leave(&leader.member_id);
    bench.stored(Ok(()));
    let emptied_at = bench.now_ms;
    // An administrator sets one offset while the group is empty. It changes nobody's retention, not even its own.
    bench.pass(RETENTION_MS / 2);
    bench.commit(Bench::member(SIMPLE, -1), &["u"]);
    bench.stored(Ok(()));
    bench.pass(emptied_at + RETENTION_MS - 1 - bench.now_ms);
    assert_eq!((bench.appends.len(), bench.shard.offsets["g"].len()), (0, 2));
    bench.pass(1 + INTERVAL_MS);
    bench.stored(Ok(()));
    assert!(!bench.shard.held("g"), "both went, and the group with them");
}

#[test]
fn offsets_without_a_group_expire_each_from_its_commit() {
    let mut bench = Bench::new(0, 9);
    bench.commit(Bench::member(SIMPLE, -1), &["t"]);
    bench.stored(Ok(()));
    bench.pass(RETENTION_MS / 2);
    bench.commit(Bench::member(SIMPLE, -1), &["u"]);
    bench.stored(Ok(()));
    bench.pass(RETENTION_MS / 2);
    bench.stored(Ok(()));
    let left: Vec<_> = bench.shard.offsets["g"].keys().map(|(topic, _)| topic.as_str()).collect();
    assert_eq!(left, ["u"]);
    bench.pass(RETENTION_MS / 2);
    bench.stored(Ok(()));
    assert!(!bench.shard.held("g"));
}
