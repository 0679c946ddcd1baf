//! Creates topics, for clients and for brokers: where the decision is made.

use std::collections::{BTreeMap, BTreeSet};

use firn_metadata::decide::create_topics::{CreatedTopic, CreatedTopics, NewTopic, create_topics};
use firn_metadata::decide::{Decision, DecisionError};
use firn_metadata::image::Image;
use firn_model::broker_config::BrokerConfig;
use firn_model::ids::TopicId;

use crate::environment::Random;

/// An id for a topic, a directory or a cluster, which are spelled alike.
pub fn new_id(random: &dyn Random) -> TopicId {
    TopicId(random.uuid())
}

/// Decides as `create_topics` does, but takes no topic of several replicas: nobody would copy what the leader has, and it
/// would count as copied.
pub fn create(
    image: &Image,
    topics: &[NewTopic],
    validate_only: bool,
    config: &BrokerConfig,
    random: &dyn Random,
) -> Decision<CreatedTopics> {
    let decide =
        |topics: &[NewTopic]| create_topics(image, topics, validate_only, config, &mut || new_id(random));
    let all = decide(topics);
    let is_replicated = |created: &CreatedTopic| created.replication_factor > 1;
    let refused: BTreeSet<String> = all
        .reply
        .iter()
        .filter(|(_, created)| created.as_ref().is_ok_and(is_replicated))
        .map(|(name, _)| name.clone())
        .collect();
    if refused.is_empty() {
        return all;
    }
    let rest: Vec<NewTopic> = topics.iter().filter(|topic| !refused.contains(&topic.name)).cloned().collect();
    let mut rest = decide(&rest);
    let mut taken: BTreeMap<String, _> = std::mem::take(&mut rest.reply).into_iter().collect();
    let too_many = || {
        let reason =
            "Brokers do not copy partitions from each other yet: the replication factor can only be 1";
        Err(DecisionError::InvalidReplicationFactor(reason.to_owned()))
    };
    let names = all.reply.into_iter().map(|(name, _)| name);
    rest.reply = names
        .map(|name| {
            let created = taken.remove(&name).unwrap_or_else(too_many);
            (name, created)
        })
        .collect();
    rest
}

#[cfg(test)]
mod tests {
    use firn_metadata::decide::brokers::{Registration, register_broker};
    use firn_metadata::decide::partitions::Rules;

    use super::*;
    use crate::environment::Environment;

    #[test]
    fn a_topic_of_several_replicas_is_refused_and_those_beside_it_are_not() {
        let (mut image, config) = (Image::default(), BrokerConfig::default());
        for broker_id in 0..2 {
            let registration = Registration {
                broker_id,
                incarnation_id: uuid::Uuid::from_u128(broker_id as u128 + 1),
                endpoints: Vec::new(),
                rack: None,
                directory_ids: Vec::new(),
            };
            let decision = register_broker(&image, Rules { config: &config }, &registration).unwrap();
            image.apply_all(&decision.records).unwrap();
        }
        let topic = |name: &str, replication_factor| NewTopic {
            name: name.to_owned(),
            num_partitions: 1,
            replication_factor,
            ..NewTopic::default()
        };
        let topics = [topic("a", 1), topic("b", 2), topic("c", 3), topic("d", 1)];
        let random = Environment::system().random;
        let decision = create(&image, &topics, false, &config, random.as_ref());
        let told: Vec<_> = decision.reply.iter().map(|(name, one)| (name.as_str(), one.is_ok())).collect();
        assert_eq!(told, [("a", true), ("b", false), ("c", false), ("d", true)]);
        image.apply_all(&decision.records).unwrap();
        assert!(image.topic("a").is_some() && image.topic("b").is_none() && image.topic("d").is_some());
    }
}
