//! What is true of every image, whatever was applied: run by tests and by simulations after each step.

use firn_model::ids::TopicId;

use crate::image::Image;
use crate::record::ResourceKind;

/// The first invariant that does not hold, in words.
pub fn violated(image: &Image) -> Option<String> {
    [
        names_and_ids_agree,
        partitions_are_sound,
        configs_belong_to_something,
        brokers_are_themselves,
        no_living_topic_loses_its_objects,
    ]
    .iter()
    .find_map(|invariant| invariant(image))
}

/// Each topic is found by its name and by its id, and is the same; the count of partitions is right.
fn names_and_ids_agree(image: &Image) -> Option<String> {
    if image.topic_ids.size() != image.topics.size() {
        return Some(format!("{} names, but {} topics", image.topic_ids.size(), image.topics.size()));
    }
    for (name, id) in image.topic_ids.iter() {
        match image.topics.get(id) {
            Some(topic) if topic.name == *name && topic.id == *id && *id != TopicId::ZERO => {}
            other => return Some(format!("'{name}' has id {id}, under which is {other:?}")),
        }
    }
    let partitions: usize = image.topics.values().map(|topic| topic.partitions.len()).sum();
    (partitions != image.partition_count)
        .then(|| format!("{partitions} partitions, counted as {}", image.partition_count))
}

/// Each partition has replicas, an ISR among them, and a leader in the ISR or none.
fn partitions_are_sound(image: &Image) -> Option<String> {
    image.topics.values().find_map(|topic| {
        let unsound = topic
            .partitions
            .iter()
            .enumerate()
            .find_map(|(index, partition)| Some((index, partition.check().err()?)));
        unsound.map(|(index, reason)| format!("{}-{index}: {reason}", topic.name))
    })
}

/// No config outlives its topic, and none is kept that says nothing.
fn configs_belong_to_something(image: &Image) -> Option<String> {
    image.configs.iter().find_map(|(resource, overrides)| {
        let orphan =
            resource.kind == ResourceKind::Topic && !image.topic_ids.contains_key(resource.name.as_str());
        (orphan || overrides.is_empty()).then(|| format!("{resource:?} is left over"))
    })
}

/// Objects are deleted of deleted topics alone.
fn no_living_topic_loses_its_objects(image: &Image) -> Option<String> {
    let mut marked = image.remote_deletes();
    let (id, name) = marked.find(|(id, _)| image.topics.contains_key(id))?;
    Some(format!("topic '{name}' exists, and its objects are to be deleted under its id {id}"))
}

/// Brokers are kept under their own ids.
fn brokers_are_themselves(image: &Image) -> Option<String> {
    image
        .brokers
        .iter()
        .find(|(id, broker)| **id != broker.id)
        .map(|(id, _)| format!("broker {id} is another"))
}
