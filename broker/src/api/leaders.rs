//! Who leads a partition, told to a client that asked another broker, and where that one is: so it need not ask (KIP-951).

use std::collections::BTreeSet;
use std::sync::Arc;

use firn_metadata::image::{Image, NO_LEADER, Partition, Topic};
use firn_metadata::record::Endpoint;
use firn_model::ids::TopicId;
use firn_quorum::machine::Published;
use uuid::Uuid;

use crate::connection::Peer;
use crate::context::Context;
use crate::replication::KNOWN_WITHIN;

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

/// A partition as requests name it: its topic by the id, or, if that is nil, by the name.
pub type Place<'a> = (&'a str, Uuid, i32);

/// Waits for the metadata to say that another leads all of these, which this broker does not lead any more.
pub async fn until_known(context: &Context, places: &[Place<'_>]) {
    let is_led_here = |image: &Image, place: &Place<'_>| {
        partition(image, *place).is_some_and(|partition| partition.leader == context.node_id)
    };
    let known = |now: &Published| !places.iter().any(|place| is_led_here(&now.image, place));
    if !context.controller.holds(known) {
        // A broker that has lost touch with the controller waits in vain.
        tokio::time::timeout(KNOWN_WITHIN, context.controller.wait_until(known)).await.ok();
    }
}

fn partition<'a>(image: &'a Image, (name, id, index): Place<'_>) -> Option<&'a Partition> {
    let topic: Option<&Arc<Topic>> = match id.is_nil() {
        true => image.topic(name),
        false => image.topic_by_id(TopicId(id)),
    };
    topic?.partition(index).map(Arc::as_ref)
}

impl<'a> Leaders<'a> {
    pub fn new(context: &Context, peer: &'a Peer) -> Self {
        let (image, node_id) = (context.controller.image(), context.node_id);
        Self { image, node_id, peer, named: BTreeSet::new() }
    }

    /// Id and epoch of the leader of a partition. `None` where there is nobody else to ask.
    pub fn of(&mut self, place: Place<'_>) -> Option<(i32, i32)> {
        let partition = partition(&self.image, place)?;
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
