//! UpdateFeatures: the cluster has no feature that is switched on or off by its level (KIP-584, KIP-1022).
//!
//! What brokers of two releases can do together follows from the format of the metadata (`record.rs`), and no level has to be
//! raised after an upgrade. So ApiVersions tells of no feature, and a level is refused as Kafka refuses that of a feature which it
//! does not know.

use super::DecisionError;

/// How a level may change, by Kafka's `FeatureUpdate.UpgradeType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeType {
    Upgrade,
    SafeDowngrade,
    UnsafeDowngrade,
}

impl UpgradeType {
    /// By its number on the wire.
    pub fn from_code(code: i8) -> Option<Self> {
        match code {
            1 => Some(UpgradeType::Upgrade),
            2 => Some(UpgradeType::SafeDowngrade),
            3 => Some(UpgradeType::UnsafeDowngrade),
            _ => None,
        }
    }
}

/// A level that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureUpdate {
    pub name: String,
    pub level: i16,
    /// `None`: none that Kafka knows.
    pub upgrade_type: Option<UpgradeType>,
}

/// Whether a feature can be at this level: at none but 0, which is off.
pub fn check(update: &FeatureUpdate) -> Result<(), DecisionError> {
    let FeatureUpdate { name, level, upgrade_type } = update;
    let refuse = |reason: &str| {
        let refused = format!("Invalid update version {level} for feature {name}. {reason}");
        Err(DecisionError::InvalidUpdateVersion(refused))
    };
    match (upgrade_type, level) {
        (None, _) => refuse("It can be upgraded (1), or downgraded safely (2) or unsafely (3)."),
        (Some(_), ..0) => refuse("A feature version cannot be less than 0."),
        (Some(_), 0) => Ok(()),
        (Some(_), 1..) => refuse("The brokers do not support this feature, and need none for an upgrade."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::code;

    #[test]
    fn what_does_not_exist_has_no_level() {
        let update = |level, upgrade| FeatureUpdate {
            name: "metadata.version".to_owned(),
            level,
            upgrade_type: UpgradeType::from_code(upgrade),
        };
        for (level, upgrade, is_so) in [
            (25, 1, false),
            (25, 2, false),
            (25, 3, false),
            (0, 2, true),
            (0, 3, true),
            (-1, 1, false),
            (25, 0, false),
            (0, 4, false),
        ] {
            let checked = check(&update(level, upgrade));
            assert_eq!(checked.is_ok(), is_so, "{level} {upgrade}: {checked:?}");
            if let Err(refused) = checked {
                assert_eq!(code(&refused), "InvalidUpdateVersion");
                assert!(refused.to_string().contains("metadata.version"), "{refused}");
            }
        }
    }
}
