//! A broker that has gone for good is put out of the cluster: of its registration, and then of its vote in the quorum.
//!
//! Order: the registration goes first, in one change that is refused if the broker is there. A crash in between leaves a member
//! without a broker, which votes as before if it is there at all; asked once more, the controller takes the vote away. Whoever
//! comes back after all asks for a vote as if it were new, and registers in the next epoch.

use firn_metadata::decide::DecisionError;
use firn_metadata::decide::brokers::unregister_broker;
use firn_metadata::decide::partitions::Rules;
use firn_metadata::image::Image;
use firn_quorum::quorum::{ProposeError, Quorum};

use super::membership::Membership;

/// Unregisters a broker, as the controller.
pub async fn unregister(membership: &Membership, broker_id: i32) -> Result<(), ProposeError> {
    let quorum = membership.quorum().ok_or(ProposeError::NotController)?;
    let decide =
        |image: &Image| unregister_broker(image, Rules { config: &membership.config_of(image) }, broker_id);
    let unregistered = quorum.propose(decide).await;
    match &unregistered {
        Ok(()) => {
            membership.forget(broker_id);
            tracing::info!(broker = broker_id, "unregistered");
        }
        // It may have been, by one who did not come to the end.
        Err(ProposeError::Refused(DecisionError::BrokerIdNotRegistered(_))) => {}
        Err(_) => return unregistered,
    }
    // Of one who was never registered nothing is taken: it may be about to be.
    let was_registered = quorum.image().last_broker_epoch(broker_id).is_some();
    match was_registered && take_vote(membership, quorum, broker_id).await? {
        true => Ok(()),
        false => unregistered,
    }
}

/// Takes its vote, and its place among those that are to have one. Whether there was any.
async fn take_vote(membership: &Membership, quorum: &Quorum, broker_id: i32) -> Result<bool, ProposeError> {
    let _alone = membership.joining().alone(quorum).await?;
    let members = quorum.members().ok_or(ProposeError::NotController)?;
    let is_back = quorum.image().broker(broker_id).is_some();
    let (gone, stay): (Vec<_>, Vec<_>) =
        members.voters.iter().map(|known| &known.member).partition(|member| member.broker_id == broker_id);
    if is_back || stay.is_empty() {
        return Ok(false);
    }
    if !gone.is_empty() {
        quorum.change_voters(stay.iter().map(|member| member.id())).await?;
        tracing::info!(broker = broker_id, voters = stay.len(), "has no vote in the quorum any more");
    }
    let observers = members.observers.iter().map(|known| &known.member);
    let observers: Vec<u64> =
        observers.filter(|member| member.broker_id == broker_id).map(|member| member.id()).collect();
    let had_any = !gone.is_empty() || !observers.is_empty();
    if !observers.is_empty() {
        quorum.forget(observers).await?;
    }
    Ok(had_any)
}
