//! Creates topics, for clients and for brokers: where the decision is made.

use firn_metadata::decide::Decision;
use firn_metadata::decide::create_topics::{CreatedTopics, NewTopic, create_topics};
use firn_metadata::image::Image;
use firn_model::broker_config::BrokerConfig;
use firn_model::ids::TopicId;

use crate::environment::Random;

/// An id for a topic, a directory or a cluster, which are spelled alike.
pub fn new_id(random: &dyn Random) -> TopicId {
    TopicId(random.uuid())
}

/// Decides as `create_topics` does, with ids from `random`.
pub fn create(
    image: &Image,
    topics: &[NewTopic],
    validate_only: bool,
    config: &BrokerConfig,
    random: &dyn Random,
) -> Decision<CreatedTopics> {
    create_topics(image, topics, validate_only, config, &mut || new_id(random))
}
