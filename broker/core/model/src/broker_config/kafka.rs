//! What Kafka takes for its broker configs that this broker does not obey: a value of another type, or out of range, is
//! a mistake here too.

use crate::config_definition::{Allowed, ConfigDefinition, ConfigType};

/// Every config of Kafka 4.3.1's `KafkaConfig`, read out of its classes, one a line:
/// `name|type|default|dynamic or read-only|least..greatest`.
pub(super) static KAFKA: &str = include_str!("kafka_4_3_configs.txt");

/// The type and range that Kafka gives this config; `None` if Kafka 4.3 does not have it.
pub(super) fn find(name: &str) -> Option<ConfigDefinition> {
    KAFKA.lines().find_map(|row| {
        let mut columns = row.split('|');
        let name = columns.next().filter(|known| *known == name)?;
        let config_type = config_type(columns.next()?)?;
        let allowed = columns.nth(2).and_then(|range| allowed(config_type, range)).unwrap_or(Allowed::Any);
        Some(ConfigDefinition::new(name, config_type, None, allowed, ""))
    })
}

fn config_type(name: &str) -> Option<ConfigType> {
    Some(match name {
        "BOOLEAN" => ConfigType::Boolean,
        "STRING" => ConfigType::String,
        "INT" => ConfigType::Int,
        "SHORT" => ConfigType::Short,
        "LONG" => ConfigType::Long,
        "DOUBLE" => ConfigType::Double,
        "LIST" => ConfigType::List,
        "CLASS" => ConfigType::Class,
        "PASSWORD" => ConfigType::Password,
        _ => return None,
    })
}

/// Reads `least..most`, of which the greatest may be missing.
fn allowed(config_type: ConfigType, range: &str) -> Option<Allowed> {
    let (least, most) = range.split_once("..")?;
    if config_type == ConfigType::Double {
        return Some(Allowed::Ratio(least.parse().ok()?, most.parse().ok()?));
    }
    let least = least.parse().ok()?;
    if most.is_empty() {
        Some(Allowed::AtLeast(least))
    } else {
        Some(Allowed::Between(least, most.parse().ok()?))
    }
}
