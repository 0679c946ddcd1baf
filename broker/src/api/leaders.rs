//! Who leads a partition, told to a client that asked another broker, and where that one is: so it need not ask (KIP-951).

use std::collections::BTreeSet;
use std::sync::Arc;

use firn_metadata::image::{Image, NO_LEADER, Topic};
use firn_metadata::record::Endpoint;
use firn_model::ids::TopicId;
use uuid::Uuid;

use crate::connection::Peer;
use crate::context::Context;

/// The leaders that one reply names.
pub struct Leaders<'a> {
    image: Image,
    node_id: i32,
    peer: &'a Peer,
    named: BTreeSet<i32>,
}

/// A broker as a client finds it that came in as this one did.
pub struct Named<'a> {
    pub id: i32,
    pub endpoint: &'a Endpoint,
    pub rack: Option<&'a str>,
}

impl<'a> Leaders<'a> {
    pub fn new(context: &Context, peer: &'a Peer) -> Self {
        let (image, node_id) = (context.controller.image(), context.node_id);
        Self { image, node_id, peer, named: BTreeSet::new() }
    }

    /// Id and epoch of the leader of a partition, whose topic is known by its id, or, if that is nil, by its name. `None`
    /// where there is nobody else to ask.
    pub fn of(&mut self, name: &str, id: Uuid, partition: i32) -> Option<(i32, i32)> {
        let topic: Option<&Arc<Topic>> = match id.is_nil() {
            true => self.image.topic(name),
            false => self.image.topic_by_id(TopicId(id)),
        };
        let partition = topic?.partition(partition)?;
        if partition.leader == NO_LEADER || partition.leader == self.node_id {
            return None;
        }
        self.named.insert(partition.leader);
        Some((partition.leader, partition.leader_epoch))
    }

    /// Where they are that were named.
    pub fn named(&self) -> impl Iterator<Item = Named<'_>> {
        self.named.iter().filter_map(|id| {
            let broker = self.image.broker(*id)?;
            let endpoint = broker.endpoint(&self.peer.listener)?;
            Some(Named { id: *id, endpoint, rack: broker.rack.as_deref() })
        })
    }
}
