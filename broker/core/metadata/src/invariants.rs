//! What is true of every image, whatever was applied: run by tests and by simulations after each step.

use firn_model::ids::TopicId;

use crate::image::{Image, NO_LEADER, Partition};
use crate::record::ResourceKind;

/// The first invariant that does not hold, in words.
pub fn violated(image: &Image) -> Option<String> {
    [
        names_and_ids_agree,
        partitions_are_sound,
        who_leads_is_there_and_who_can_does,
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

/// Each partition has replicas, an ISR among them, and a leader in the ISR or none; none moves on that has moved.
fn partitions_are_sound(image: &Image) -> Option<String> {
    image.topics.values().find_map(|topic| {
        let unsound = topic
            .partitions
            .iter()
            .enumerate()
            .find_map(|(index, partition)| Some((index, partition.unsound()?)));
        unsound.map(|(index, reason)| format!("{}-{index}: {reason}", topic.name))
    })
}

/// No partition is led by a broker that is behind the fence, or not registered, and none waits for a leader that is there.
fn who_leads_is_there_and_who_can_does(image: &Image) -> Option<String> {
    let is_there = |id: i32| image.broker(id).is_some_and(|broker| !broker.fenced);
    let wrong = |partition: &Partition| match partition.leader {
        NO_LEADER => partition.isr.iter().chain(&partition.elr).any(|id| is_there(*id)),
        leader => !is_there(leader),
    };
    image.topics.values().find_map(|topic| {
        let index = topic.partitions.iter().position(|partition| wrong(partition))?;
        Some(format!("{}-{index} is not led by who could lead it: {:?}", topic.name, topic.partitions[index]))
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
