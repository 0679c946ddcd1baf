//! Hands out producer ids (KIP-98) from blocks that the controller gives to this broker (KIP-730).

use std::time::Duration;

use firn_metadata::decide::producer_ids::ProducerIdBlock;
use tokio::sync::Mutex;

use firn_quorum::quorum::ProposeError;

use crate::peers::ask_error::AskError;
use crate::peers::membership::Membership;
use crate::peers::wire::{ControllerAsk, ControllerTold};

/// How long a block may take: elections may come in between.
const BLOCK_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub struct ProducerIds {
    /// What is left of the current block.
    block: Mutex<Option<ProducerIdBlock>>,
}

impl ProducerIds {
    /// A producer id that nobody has, nor ever had.
    pub async fn next(&self, membership: &Membership, broker_id: i32) -> Result<i64, AskError> {
        let mut block = self.block.lock().await;
        let mut left = match block.take().filter(|left| left.length > 0) {
            Some(left) => left,
            None => {
                let ask = ControllerAsk::ProducerIds { broker_id };
                match membership.ask_controller(&ask, BLOCK_PATIENCE).await? {
                    ControllerTold::ProducerIds(block) => block,
                    _ => return Err(ProposeError::NotController.into()),
                }
            }
        };
        let id = left.first;
        left.first += 1;
        left.length -= 1;
        *block = Some(left);
        Ok(id)
    }
}
