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

/// A directory that has served the broker's last incarnation knows of it; a copy that was made before does not.
#[test]
fn a_copy_from_before_is_refused() {
    let mut image = Image::default();
    let on = |incarnation, noted: &[u128]| Registration {
        directory_ids: vec!["disk".to_owned()],
        noted: Some([("disk".to_owned(), noted.iter().map(|id| (Uuid::from_u128(*id), 0)).collect())].into()),
        ..registration(5, incarnation)
    };
    // The third tried to register, and did not come so far.
    for next in [on(1, &[1]), on(2, &[1, 2]), on(4, &[1, 2, 3, 4])] {
        let registered = register(&image, &next).unwrap();
        apply(&mut image, &registered);
    }
    for stale in [on(5, &[1, 2, 5]), on(5, &[5])] {
        let error = register(&image, &stale).unwrap_err();
        assert!(error.to_string().contains("from before"), "{error}");
    }
    let other = Registration { directory_ids: vec!["new".to_owned()], noted: Some([].into()), ..on(7, &[]) };
    assert!(register(&image, &other).is_ok());
    assert!(register(&image, &on(4, &[1, 2, 3, 4])).is_ok_and(|again| again.records.is_empty()));
}

/// An earlier release tells its directories of nothing. So what they do not know of while it runs does not count against them.
#[test]
fn a_broker_of_an_earlier_release_may_come_and_go() {
    let mut image = Image::default();
    let on = |incarnation, noted: Option<&[u128]>| Registration {
        directory_ids: vec!["disk".to_owned()],
        noted: noted.map(|noted| {
            [("disk".to_owned(), noted.iter().map(|id| (Uuid::from_u128(*id), 0)).collect())].into()
        }),
        ..registration(5, incarnation)
    };
    // Before an upgrade, after it, back again, and after the next.
    for next in [on(1, None), on(2, Some(&[2])), on(3, None), on(4, Some(&[2, 4]))] {
        let registered = register(&image, &next).unwrap();
        apply(&mut image, &registered);
    }
    // A copy from before the first upgrade, which that release did not mark.
    assert!(register(&image, &on(5, Some(&[5]))).is_err());
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
