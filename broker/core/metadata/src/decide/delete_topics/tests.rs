//! By name, by id, twice, and what must stay.

use super::*;
use crate::decide::testing::{apply, code, config, image_with};

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
    let image = image_with(&[("a", 1), ("__consumer_offsets", 1)]);
    let id = image.topic("a").unwrap().id;
    let wishes = [
        named("a"),
        TopicSelector::Id(id),
        named("nobody"),
        TopicSelector::Id(TopicId::ZERO),
        named("__consumer_offsets"),
    ];
    let decision = delete_topics(&image, &wishes, &BrokerConfig::default());
    let codes: Vec<_> =
        decision.reply.iter().map(|d| d.outcome.as_ref().err().map(code).unwrap_or_default()).collect();
    assert_eq!(codes, ["", "InvalidRequest", "UnknownTopicOrPartition", "UnknownTopicId", "InvalidRequest"]);
    assert_eq!(decision.records.len(), 1);
    let off = config(&[("delete.topic.enable", "false")]);
    let refused = delete_topics(&image, &[named("a")], &off);
    assert_eq!(code(refused.reply[0].outcome.as_ref().unwrap_err()), "TopicDeletionDisabled");
    assert!(refused.records.is_empty());
}
