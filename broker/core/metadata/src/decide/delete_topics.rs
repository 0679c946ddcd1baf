//! DeleteTopics: by name, or by id.

use std::collections::BTreeSet;

use firn_model::broker_config::BrokerConfig;
use firn_model::ids::{TopicId, TopicName, is_internal_topic};
use firn_model::repeated::repeated;

use super::{Decision, DecisionError};
use crate::image::{Image, Topic};
use crate::record::{MetadataRecord, RemoteDeleteState, RemoveTopicRecord};

/// Which topic a request means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicSelector {
    Name(String),
    Id(TopicId),
    /// Both, which need not be the same topic, or neither.
    Unclear {
        name: Option<String>,
        id: TopicId,
    },
}

/// What became of one topic of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// As the request named it.
    pub selector: TopicSelector,
    /// The topic that it was, or why it stays.
    pub outcome: Result<(TopicName, TopicId), DecisionError>,
}

/// Decides on a DeleteTopics request, topic by topic, in its order. A topic that is named twice stays: what the request
/// means is not clear. It is answered once for each way in which it is named, as in Kafka.
pub fn delete_topics(
    image: &Image,
    topics: &[TopicSelector],
    broker: &BrokerConfig,
) -> Decision<Vec<Deletion>> {
    let mut decision = Decision { records: Vec::new(), reply: Vec::with_capacity(topics.len()) };
    let named = topics.iter().filter_map(|selector| find(image, selector).ok());
    let twice = repeated(named.map(|topic| topic.id));
    let mut answered = BTreeSet::new();
    for selector in topics.iter().filter(|selector| answered.insert(*selector)) {
        let outcome = find(image, selector).and_then(|topic| check(topic, broker)).and_then(|topic| {
            if twice.contains(&topic.id) {
                let reason = format!("Topic '{}' is in the request more than once", topic.name);
                return Err(DecisionError::InvalidRequest(reason));
            }
            decision.records.push(MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id: topic.id }));
            if may_have_objects(image, topic, broker) {
                let marked = MetadataRecord::remote_delete(topic.id, &topic.name, RemoteDeleteState::Marked);
                decision.records.push(marked);
            }
            Ok((topic.name.clone(), topic.id))
        });
        decision.reply.push(Deletion { selector: selector.clone(), outcome });
    }
    decision
}

/// Whether the topic is tiered, or may have been: what it left in the store does not show in its configs.
fn may_have_objects(image: &Image, topic: &Topic, broker: &BrokerConfig) -> bool {
    let has_store = broker.tier.enabled && broker.tier.store_url.is_some();
    has_store || image.asks_for_tier(&topic.name)
}

/// Decides that the objects of these deleted topics have gone. What is not waited for any more is passed over.
pub fn finish_remote_deletes(image: &Image, gone: &[TopicId]) -> Decision<()> {
    let gone: BTreeSet<TopicId> = gone.iter().copied().collect();
    let finished = image
        .remote_deletes()
        .filter(|(id, _)| gone.contains(id))
        .map(|(id, name)| MetadataRecord::remote_delete(id, name, RemoteDeleteState::Finished));
    Decision { records: finished.collect(), reply: () }
}

fn find<'a>(image: &'a Image, selector: &TopicSelector) -> Result<&'a Topic, DecisionError> {
    match selector {
        TopicSelector::Name(name) => image
            .topic(name)
            .map(|topic| &**topic)
            .ok_or_else(|| DecisionError::UnknownTopicOrPartition(format!("There is no topic '{name}'"))),
        TopicSelector::Id(id) => image
            .topic_by_id(*id)
            .map(|topic| &**topic)
            .ok_or_else(|| DecisionError::UnknownTopicId(format!("There is no topic with id {id}"))),
        TopicSelector::Unclear { .. } => {
            let reason = "A topic is deleted by its name or by its id: give one of them, and not both";
            Err(DecisionError::InvalidRequest(reason.to_owned()))
        }
    }
}

fn check<'a>(topic: &'a Topic, broker: &BrokerConfig) -> Result<&'a Topic, DecisionError> {
    if !broker.topics.delete_enable {
        let reason = "Topics cannot be deleted: delete.topic.enable is false";
        return Err(DecisionError::TopicDeletionDisabled(reason.to_owned()));
    }
    if is_internal_topic(&topic.name) {
        let reason =
            format!("Topic '{}' belongs to the broker, which needs it: it cannot be deleted", topic.name);
        return Err(DecisionError::InvalidRequest(reason));
    }
    Ok(topic)
}

#[cfg(test)]
mod tests;
