//! UpdateFeatures (KIP-584, KIP-1022): there is nothing to switch, which ApiVersions says, too.

use firn_metadata::decide::features::{FeatureUpdate, UpgradeType, check};
use firn_protocol::frame::Request;
use firn_protocol::library::messages::update_features_request::FeatureUpdateKey;
use firn_protocol::library::messages::update_features_response::UpdatableFeatureResult;
use firn_protocol::library::messages::{ApiKey, UpdateFeaturesRequest, UpdateFeaturesResponse};

use crate::api::errors::Failure;
use crate::api::{Answer, ApiError, reply};

/// All or nothing: version 2 tells of the first that is refused, the versions before of each.
pub fn update(request: Request) -> Result<Answer, ApiError> {
    let update: UpdateFeaturesRequest = request.decode(ApiKey::UpdateFeatures)?;
    let version = request.header.api_version;
    let wish = |key: &FeatureUpdateKey| FeatureUpdate {
        name: key.feature.to_string(),
        level: key.max_version_level,
        upgrade_type: match (version, key.allow_downgrade) {
            (0, true) => Some(UpgradeType::SafeDowngrade),
            (0, false) => Some(UpgradeType::Upgrade),
            _ => UpgradeType::from_code(key.upgrade_type),
        },
    };
    let checked = update.feature_updates.iter().map(|key| (key, check(&wish(key)).map_err(Failure::from)));
    let checked: Vec<_> = checked.collect();
    let body = UpdateFeaturesResponse::default().with_error_message(None);
    let body = if version >= 2 {
        match checked.into_iter().find_map(|(_, checked)| checked.err()) {
            None => body,
            Some(failure) => body.with_error_code(failure.code.code()).with_error_message(failure.text()),
        }
    } else {
        let results = checked.into_iter().map(|(key, checked)| {
            let row = UpdatableFeatureResult::default().with_feature(key.feature.clone());
            match checked {
                Ok(()) => row.with_error_message(None),
                Err(failure) => row.with_error_code(failure.code.code()).with_error_message(failure.text()),
            }
        });
        body.with_results(results.collect())
    };
    reply(ApiKey::UpdateFeatures, &request.header, &body)
}
