//! By name, by id, twice, and what must stay.

use super::*;
use crate::decide::testing::{apply, code, config, image_with};
use crate::record::{ConfigRecord, ConfigResource};

fn named(name: &str) -> TopicSelector {
    TopicSelector::Name(name.to_owned())
}

#[test]
fn topics_go_by_name_and_by_id() {
    let mut image = image_with(&[("a", 2), ("b", 1), ("c", 1)]);
    let b = image.topic("b").unwrap().id;
    let decision = delete_topics(&image, &[named("a"), TopicSelector::Id(b)], &BrokerConfig::default());
    let names: Vec<_> = decision.reply.iter().map(|deletion| deletion.outcome.clone().unwrap().0).collect();
    assert_eq!(names, [TopicName::from("a"), TopicName::from("b")]);
    apply(&mut image, &decision);
    assert_eq!(image.topics().map(|topic| &*topic.name).collect::<Vec<_>>(), ["c"]);
}

#[test]
fn what_cannot_be_deleted_is_told_and_the_rest_goes() {
    let image = image_with(&[("a", 1), ("b", 1), ("c", 1), ("__consumer_offsets", 1)]);
    let (id, b) = (image.topic("a").unwrap().id, image.topic("b").unwrap().id);
    let wishes = [
        named("a"),
        named("b"),
        TopicSelector::Id(b),
        named("c"),
        named("c"),
        named("nobody"),
        TopicSelector::Id(TopicId::ZERO),
        named("__consumer_offsets"),
        TopicSelector::Unclear { name: Some("a".to_owned()), id },
        TopicSelector::Unclear { name: None, id: TopicId::ZERO },
    ];
    let decision = delete_topics(&image, &wishes, &BrokerConfig::default());
    let codes: Vec<_> =
        decision.reply.iter().map(|d| d.outcome.as_ref().err().map(code).unwrap_or_default()).collect();
    let invalid = "InvalidRequest";
    // Of the same topic by name and id each is answered, of the same name twice there is one answer.
    assert_eq!(
        codes,
        [
            "",
            invalid,
            invalid,
            invalid,
            "UnknownTopicOrPartition",
            "UnknownTopicId",
            invalid,
            invalid,
            invalid
        ]
    );
    assert_eq!(decision.records.len(), 1, "what is named twice stays");
    let off = config(&[("delete.topic.enable", "false")]);
    let refused = delete_topics(&image, &[named("a")], &off);
    assert_eq!(code(refused.reply[0].outcome.as_ref().unwrap_err()), "TopicDeletionDisabled");
    assert!(refused.records.is_empty());
}

#[test]
fn what_the_store_may_hold_of_a_deleted_topic_is_remembered_until_it_has_gone() {
    let mut image = image_with(&[("a", 2), ("b", 1)]);
    let (a, b) = (image.topic("a").unwrap().id, image.topic("b").unwrap().id);
    let with_store = config(&[("firn.store.url", "memory://")]);
    let decision = delete_topics(&image, &[named("a")], &with_store);
    apply(&mut image, &decision);
    assert_eq!(image.remote_deletes().collect::<Vec<_>>(), [(a, &TopicName::from("a"))]);
    let mut replayed = Image::default();
    replayed.apply_all(&image.to_records()).unwrap();
    assert!(replayed.has_remote_delete(a), "a snapshot remembers it too");

    let without = delete_topics(&image, &[named("b")], &BrokerConfig::default());
    assert_eq!(without.records.len(), 1, "without a store, and never tiered, there is nothing to remember");
    let decision = finish_remote_deletes(&image, &[b]);
    apply(&mut image, &decision);
    assert!(image.has_remote_delete(a), "another topic's objects have gone");
    let decision = finish_remote_deletes(&image, &[a]);
    apply(&mut image, &decision);
    assert_eq!(image.remote_deletes().count(), 0);
    assert!(finish_remote_deletes(&image, &[a]).records.is_empty(), "once is enough");
}

#[test]
fn a_topic_that_asked_for_the_tier_in_capitals_is_tiered_too() {
    let mut image = image_with(&[("a", 1)]);
    assert!(!image.asks_for_tier("a"));
    let config = ConfigRecord {
        resource: ConfigResource::topic("a"),
        name: "remote.storage.enable".to_owned(),
        value: Some("TRUE".to_owned()),
    };
    image.apply(&MetadataRecord::Config(config)).unwrap();
    let decision = delete_topics(&image, &[named("a")], &BrokerConfig::default());
    assert_eq!(decision.records.len(), 2, "its objects are remembered, though there is no store now");
}
