//! Blocks follow each other, and belong to brokers that are there.

use super::*;
use crate::decide::testing::{apply, code, image_of};

#[test]
fn blocks_follow_each_other() {
    let mut image = image_of(2);
    for (broker_id, first) in [(0, 0), (1, 1000), (0, 2000)] {
        let decision = allocate_producer_ids(&image, broker_id).unwrap();
        assert_eq!(decision.reply, ProducerIdBlock { first, length: 1000 });
        apply(&mut image, &decision);
    }
    assert_eq!(image.next_producer_id(), 3000);
}

#[test]
fn a_stranger_and_an_empty_store_of_ids_are_refused() {
    let mut image = image_of(1);
    assert_eq!(code(&allocate_producer_ids(&image, 7).unwrap_err()), "BrokerIdNotRegistered");
    let last = ProducerIdsRecord { broker_id: 0, next_producer_id: i64::MAX - 999 };
    image.apply(&MetadataRecord::ProducerIds(last)).unwrap();
    assert_eq!(code(&allocate_producer_ids(&image, 0).unwrap_err()), "UnknownServerError");
}
