//! Registration at first, again, and by another; and leaving.

use firn_model::broker_config::BrokerConfig;

use super::*;
use crate::decide::create_topics::NewTopic;
use crate::decide::lifecycle::fence;
use crate::decide::testing::{apply, code, create, image_of, registration, topic};
use crate::image::NO_LEADER;

fn register(image: &Image, registration: &Registration) -> Result<Decision<i64>, DecisionError> {
    register_broker(image, Rules { config: &BrokerConfig::default() }, registration)
}

#[test]
fn each_incarnation_has_the_next_epoch() {
    let mut image = Image::default();
    for (incarnation, epoch) in [(1, 0), (2, 1), (3, 2)] {
        let decision = register(&image, &registration(5, incarnation)).unwrap();
        assert_eq!(decision.reply, epoch);
        apply(&mut image, &decision);
    }
    let same = register(&image, &registration(5, 3)).unwrap();
    assert_eq!((same.records.len(), same.reply), (0, 2), "a repeated registration writes nothing");
    let moved = Registration { rack: Some("b".to_owned()), ..registration(5, 3) };
    assert_eq!(register(&image, &moved).unwrap().reply, 3);
}

#[test]
fn a_broker_that_cannot_be_is_refused() {
    let image = image_of(2);
    assert_eq!(code(&register(&image, &registration(-1, 9)).unwrap_err()), "InvalidRequest");
    let twin = register(&image, &registration(7, 1001)).unwrap_err();
    assert_eq!(code(&twin), "DuplicateBrokerRegistration");
}

fn unregister(image: &Image, broker_id: i32) -> Result<Decision<()>, DecisionError> {
    unregister_broker(image, Rules { config: &BrokerConfig::default() }, broker_id)
}

fn fence_it(image: &mut Image, broker_id: i32) {
    let fenced = fence(image, Rules { config: &BrokerConfig::default() }, broker_id);
    apply(image, &fenced);
}

#[test]
fn a_broker_leaves_when_it_has_stopped() {
    let mut image = image_of(2);
    let creation = create(&image, &[topic("a", 1, 2)]);
    apply(&mut image, &creation);
    assert_eq!(code(&unregister(&image, 7).unwrap_err()), "BrokerIdNotRegistered");
    let running = unregister(&image, 1).unwrap_err();
    assert!(code(&running) == "InvalidRequest" && running.to_string().contains("running"), "{running}");
    fence_it(&mut image, 1);
    let leaving = unregister(&image, 1).unwrap();
    apply(&mut image, &leaving);
    assert!(image.broker(1).is_none());
    let partition = image.topic("a").unwrap().partition(0).unwrap();
    assert!(partition.replicas.contains(&1), "its replicas are moved by another request: {partition:?}");
    assert_eq!((&*partition.isr, &*partition.elr, partition.leader), (&[0][..], &[][..], 0));
    assert_eq!(code(&unregister(&image, 1).unwrap_err()), "BrokerIdNotRegistered");
    // What it said before is told from what it says when it comes back, also after a snapshot.
    let mut image = {
        let mut replayed = Image::default();
        replayed.apply_all(&image.to_records()).unwrap();
        assert!(replayed == image);
        replayed
    };
    let back = register(&image, &registration(1, 70)).unwrap();
    assert_eq!(back.reply, 1);
    apply(&mut image, &back);
    assert_eq!(image.topic("a").unwrap().partition(0).unwrap().isr, [0]);
}

#[test]
fn who_alone_has_records_stays() {
    let mut image = image_of(2);
    let configs = vec![("min.insync.replicas".to_owned(), Some("2".to_owned()))];
    let creation = create(&image, &[NewTopic { configs, ..topic("a", 1, 2) }, topic("b", 1, 1)]);
    apply(&mut image, &creation);
    let alone = image.topic("b").unwrap().partition(0).unwrap().leader;
    let other = 1 - alone;
    fence_it(&mut image, alone);
    let refused = unregister(&image, alone).unwrap_err();
    assert!(code(&refused) == "InvalidRequest" && refused.to_string().contains("b-0"), "{refused}");
    // Both have stopped, and both have all of `a`: one of them may go for good.
    fence_it(&mut image, other);
    let both = image.topic("a").unwrap().partition(0).unwrap();
    assert_eq!((both.isr.len(), both.elr.len()), (0, 2));
    let leaving = unregister(&image, other).unwrap();
    apply(&mut image, &leaving);
    let left = image.topic("a").unwrap().partition(0).unwrap();
    assert_eq!((&*left.elr, left.leader), (&[alone][..], NO_LEADER));
    assert_eq!(code(&unregister(&image, alone).unwrap_err()), "InvalidRequest");
}
