//! UnregisterBroker (KIP-631, KIP-746): a broker that has gone for good belongs to the cluster no more.

use std::sync::Arc;

use firn_protocol::frame::Request;
use firn_protocol::library::messages::{ApiKey, UnregisterBrokerRequest, UnregisterBrokerResponse};

use crate::api::errors::Failure;
use crate::api::{Answer, ApiError, reply};
use crate::context::Context;
use crate::peers::unregistration::unregister;

pub async fn handle(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: UnregisterBrokerRequest = request.decode(ApiKey::UnregisterBroker)?;
    let body = UnregisterBrokerResponse::default().with_error_message(None);
    let body = match unregister(&context.membership, asked.broker_id.0).await.map_err(Failure::from) {
        Ok(()) => body,
        Err(failure) => body.with_error_code(failure.code.code()).with_error_message(failure.text()),
    };
    reply(ApiKey::UnregisterBroker, &request.header, &body)
}
