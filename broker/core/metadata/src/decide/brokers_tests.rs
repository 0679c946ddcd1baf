//! Registration at first, again, and by another; and leaving.

use firn_model::broker_config::BrokerConfig;

use super::*;
use crate::decide::testing::{apply, code, create, image_of, registration, topic};

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

#[test]
fn a_broker_leaves_when_it_holds_nothing() {
    let mut image = image_of(2);
    let creation = create(&image, &[topic("a", 1, 2)]);
    let empty = image.clone();
    apply(&mut image, &creation);
    let error = unregister_broker(&image, 1).unwrap_err();
    assert!(code(&error) == "InvalidRequest" && error.to_string().contains("'a'"), "{error}");
    let mut image = empty;
    let leaving = unregister_broker(&image, 1).unwrap();
    apply(&mut image, &leaving);
    assert!(image.broker(1).is_none());
    assert_eq!(code(&unregister_broker(&image, 1).unwrap_err()), "BrokerIdNotRegistered");
}
