//! What members of all groups take of the memory is bounded, those included that never come back.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

#[allow(dead_code, reason = "shared by several suites")]
mod world;

use std::time::Duration;

use bytes::Bytes;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::join_group_request::JoinGroupRequestProtocol;
use firn_protocol::library::messages::leave_group_request::MemberIdentity;
use firn_protocol::library::messages::{
    FindCoordinatorRequest, GroupId, JoinGroupRequest, LeaveGroupRequest,
};
use firn_protocol::library::protocol::StrBytes;
use firn_storage::simulated::SimulatedDisk;
use tokio::time::Instant;

fn join(group: &str, metadata: usize) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(StrBytes::from_static_str("range"))
        .with_metadata(Bytes::from(vec![0; metadata]));
    JoinGroupRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
        .with_session_timeout_ms(1_800_000)
        .with_rebalance_timeout_ms(1_800_000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_refused_once_all_groups_together_have_no_room() {
    let node = world::try_start_with("firn.groups.members.bytes=1048576\n", "/data", SimulatedDisk::new());
    let (node, client) = world::met(node.await.unwrap()).await;
    let wanted =
        FindCoordinatorRequest::default().with_coordinator_keys(vec![StrBytes::from_static_str("g-0")]);
    client.call(&wanted).await.unwrap();
    let full = ResponseError::GroupMaxSizeReached.code();
    let mut given = Vec::new();
    // The first answer of each is an id, which nobody comes back with.
    let refused = loop {
        let group = format!("g-{}", given.len());
        let told = client.call(&join(&group, 10)).await.unwrap();
        if told.error_code == full {
            break group;
        }
        assert_eq!(told.error_code, ResponseError::MemberIdRequired.code());
        given.push((group, told.member_id));
        assert!(given.len() < 20_000, "a bound of 1 MiB");
    };
    assert!(given.len() > 500, "{} members in 1 MiB", given.len());
    let large = client.call(&join("g-0", 2 << 20)).await.unwrap();
    assert_eq!(large.error_code, full, "larger than all that there is");

    // Who leaves makes room.
    for (group, member_id) in given.into_iter().take(20) {
        let leaving = MemberIdentity::default().with_member_id(member_id);
        let leave = LeaveGroupRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(group)))
            .with_members(vec![leaving]);
        assert_eq!(client.call(&leave).await.unwrap().error_code, 0);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.call(&join(&refused, 10)).await.unwrap().error_code == full {
        assert!(Instant::now() < deadline, "there is room again");
    }
    node.stop().await;
}
