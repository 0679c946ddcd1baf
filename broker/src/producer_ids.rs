//! Hands out producer ids (KIP-98) from blocks that the controller gives to this broker (KIP-730).

use firn_metadata::decide::producer_ids::{ProducerIdBlock, allocate_producer_ids};
use tokio::sync::Mutex;

use firn_quorum::quorum::ProposeError;

use crate::controller::Controller;

#[derive(Debug, Default)]
pub struct ProducerIds {
    /// What is left of the current block.
    block: Mutex<Option<ProducerIdBlock>>,
}

impl ProducerIds {
    /// A producer id that nobody has, nor ever had.
    pub async fn next(&self, controller: &Controller, node_id: i32) -> Result<i64, ProposeError> {
        let mut block = self.block.lock().await;
        let mut left = match block.take().filter(|left| left.length > 0) {
            Some(left) => left,
            None => controller.propose(|image| allocate_producer_ids(image, node_id)).await?,
        };
        let id = left.first;
        left.first += 1;
        left.length -= 1;
        *block = Some(left);
        Ok(id)
    }
}
