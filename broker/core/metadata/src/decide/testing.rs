//! What the decisions' tests share: images with brokers and topics, made by the decisions themselves.

use firn_model::broker_config::BrokerConfig;
use firn_model::ids::TopicId;
use uuid::Uuid;

use super::brokers::{Registration, register_broker};
use super::create_topics::{CreatedTopics, NewTopic, create_topics};
use super::partitions::Rules;
use super::{Decision, DecisionError};
use crate::image::Image;
use crate::invariants;
use crate::record::Endpoint;

/// Ids 1, 2, 3 …
pub(crate) fn ids() -> impl FnMut() -> TopicId {
    let mut next = 0u128;
    move || {
        next += 1;
        TopicId(Uuid::from_u128(next))
    }
}

pub(crate) fn registration(broker_id: i32, incarnation: u128) -> Registration {
    Registration {
        broker_id,
        incarnation_id: Uuid::from_u128(incarnation),
        endpoints: vec![Endpoint {
            listener: "PLAINTEXT".to_owned(),
            host: "localhost".to_owned(),
            port: 9092,
        }],
        rack: None,
        directory_ids: Vec::new(),
        was_stopped_cleanly: true,
        is_robbed: false,
        noted: None,
    }
}

/// Brokers 0, 1, 2 …
pub(crate) fn image_of(brokers: i32) -> Image {
    let mut image = Image::default();
    for id in 0..brokers {
        let rules = Rules { config: &BrokerConfig::default() };
        let decision = register_broker(&image, rules, &registration(id, 1000 + id as u128)).unwrap();
        image.apply_all(&decision.records).unwrap();
    }
    image
}

pub(crate) fn config(properties: &[(&str, &str)]) -> BrokerConfig {
    let properties = properties.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    BrokerConfig::from_properties(&properties).unwrap().config
}

pub(crate) fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> NewTopic {
    NewTopic { name: name.to_owned(), num_partitions, replication_factor, ..NewTopic::default() }
}

pub(crate) fn create(image: &Image, topics: &[NewTopic]) -> Decision<CreatedTopics> {
    create_topics(image, topics, false, &BrokerConfig::default(), &mut ids())
}

/// One broker, and these topics with so many partitions.
pub(crate) fn image_with(topics: &[(&str, i32)]) -> Image {
    let mut image = image_of(1);
    let topics: Vec<_> = topics.iter().map(|(name, partitions)| topic(name, *partitions, 1)).collect();
    let decision = create(&image, &topics);
    apply(&mut image, &decision);
    image
}

pub(crate) fn apply<R>(image: &mut Image, decision: &Decision<R>) {
    image.apply_all(&decision.records).unwrap();
    assert_eq!(invariants::violated(image), None);
}

/// The error's variant, which is its code's name.
pub(crate) fn code(error: &DecisionError) -> String {
    format!("{error:?}").split('(').next().unwrap_or_default().to_owned()
}
