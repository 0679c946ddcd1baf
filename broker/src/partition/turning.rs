//! Clients that have heard of an election before this broker has, which is to lead.
//!
//! A broker that hands over names its heir to whoever writes to it (KIP-951), and the heir reads the same metadata a moment later than
//! clients come, as likely as not. Refused, they would pause for `retry.backoff.ms`, which is a hundred times as long.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::waiting::{Watch, Watched};
use super::{Partition, replica::Role};

impl Partition {
    /// Waits, up to `deadline`, for this broker to lead the partition; whether it does. Not where it led last, for there it is the client
    /// that has not heard of the election, nor where somebody has waited in vain since the last one.
    pub async fn until_led(self: &Arc<Self>, deadline: Instant) -> bool {
        let turned = Arc::new(Notify::new());
        let id = {
            let mut state = self.state.lock();
            match state.role {
                Role::Follows(_) if state.may_be_next && state.log.is_some() => {}
                _ => return false,
            }
            state.readers.add(Watched::Turned, &turned)
        };
        let _watch = Watch { partition: self.clone(), id };
        let is_over = tokio::time::timeout_at(deadline, turned.notified()).await.is_err();
        let mut state = self.state.lock();
        state.may_be_next &= !is_over;
        self.leader(&state).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use firn_storage::producers::AppendOrigin;
    use futures_util::poll;

    use super::super::tests::{assigned, flake, three, turn_all};
    use super::super::{Acks, PartitionError};
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    fn append(to: &Arc<Partition>) -> Result<i64, PartitionError> {
        Ok(to.append(&flake(), AppendOrigin::Client, Acks::Leader, 1)?.appended.last_offset)
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_before_the_election_is_known_here_waits_for_it() {
        let replicas = three();
        let [one, two, _] = &replicas;
        turn_all(&replicas, &assigned(1, 1, &[1, 2, 3], &[1, 2, 3]));
        let begun = Instant::now();
        let mut waiting = Box::pin(two.until_led(begun + PATIENCE));
        assert!(poll!(&mut waiting).is_pending() && append(two).is_err());
        turn_all(&replicas, &assigned(2, 2, &[1, 2, 3], &[2, 3]));
        assert!(waiting.await, "it leads now");
        append(two).unwrap();
        assert!(
            !one.until_led(begun + PATIENCE).await,
            "who led last has clients that have not heard of the election"
        );
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody waits longer than for the election");
    }

    #[tokio::test(start_paused = true)]
    async fn one_waits_in_vain_for_an_election_that_does_not_come() {
        let replicas = three();
        let [_, _, three] = &replicas;
        turn_all(&replicas, &assigned(1, 1, &[1, 2, 3], &[1, 2, 3]));
        let wait = async || {
            let begun = Instant::now();
            (three.until_led(begun + PATIENCE).await, begun.elapsed())
        };
        assert_eq!(wait().await, (false, PATIENCE));
        assert_eq!(wait().await, (false, Duration::ZERO), "whoever comes next is told at once");
        turn_all(&replicas, &assigned(2, 2, &[1, 2, 3], &[2, 3]));
        assert_eq!(wait().await, (false, PATIENCE), "another election, another wait");
    }
}
