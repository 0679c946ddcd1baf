//! Who has a vote, changed while brokers run.

#![allow(dead_code, reason = "each suite uses a part of it")]

use std::collections::BTreeSet;

use firn::node::Node;
use firn_client::connection::Connection;
use firn_protocol::library::messages::{AddRaftVoterRequest, RemoveRaftVoterRequest};
use firn_quorum::members::MemberState;
use uuid::Uuid;

use crate::brokers::wait_for;

/// Waits until these vote and those observe, as the controller has it.
pub async fn members(nodes: &[Node], voters: BTreeSet<i32>, observers: BTreeSet<i32>) {
    let ids = |known: &[MemberState]| known.iter().map(|known| known.member.broker_id).collect();
    let are_so = || {
        let members = nodes.iter().find_map(|node| node.context.controller.members())?;
        let found: (BTreeSet<i32>, BTreeSet<i32>) = (ids(&members.voters), ids(&members.observers));
        (found == (voters.clone(), observers.clone())).then_some(())
    };
    wait_for(&format!("voters {voters:?}, observers {observers:?}"), are_so).await;
}

pub fn set<const N: usize>(ids: [i32; N]) -> BTreeSet<i32> {
    BTreeSet::from(ids)
}

pub fn directory(node: &Node) -> Uuid {
    let id = &node.context.log_dirs.first().dir.identity().directory_id;
    firn_model::ids::TopicId::parse(id).unwrap().0
}

pub async fn give(client: &Connection, broker: i32, directory: Uuid) -> (i16, String) {
    let request = AddRaftVoterRequest::default()
        .with_cluster_id(None)
        .with_voter_id(broker)
        .with_voter_directory_id(directory)
        .with_timeout_ms(10_000);
    let told = client.call(&request).await.unwrap();
    (told.error_code, told.error_message.map(|text| text.to_string()).unwrap_or_default())
}

pub async fn take_vote(client: &Connection, broker: i32, directory: Uuid) -> (i16, String) {
    let request = RemoveRaftVoterRequest::default()
        .with_cluster_id(None)
        .with_voter_id(broker)
        .with_voter_directory_id(directory);
    let told = client.call(&request).await.unwrap();
    (told.error_code, told.error_message.map(|text| text.to_string()).unwrap_or_default())
}
