//! Where a broker's config comes from: its file, the cluster's dynamic default, or its own dynamic config.

use std::collections::BTreeMap;

use super::definitions::definition;
use crate::config_definition::{ConfigError, ConfigValue};

/// Who set a config's value. The order is Kafka's precedence: the first that has a value wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigSource {
    DynamicTopic,
    DynamicBroker,
    DynamicDefaultBroker,
    StaticBroker,
    Default,
}

impl ConfigSource {
    /// The number that stands for it in a DescribeConfigs response.
    pub fn code(self) -> i8 {
        match self {
            ConfigSource::DynamicTopic => 1,
            ConfigSource::DynamicBroker => 2,
            ConfigSource::DynamicDefaultBroker => 3,
            ConfigSource::StaticBroker => 4,
            ConfigSource::Default => 5,
        }
    }
}

/// A broker's configs as they were written, by who wrote them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConfigLayers {
    pub(crate) from_file: BTreeMap<String, String>,
    pub(crate) cluster_default: BTreeMap<String, String>,
    pub(crate) own: BTreeMap<String, String>,
}

impl ConfigLayers {
    /// Each layer that sets this config, strongest first.
    pub fn all(&self, name: &str) -> Vec<(&str, ConfigSource)> {
        [
            (&self.own, ConfigSource::DynamicBroker),
            (&self.cluster_default, ConfigSource::DynamicDefaultBroker),
            (&self.from_file, ConfigSource::StaticBroker),
        ]
        .into_iter()
        .filter_map(|(layer, source)| layer.get(name).map(|value| (value.as_str(), source)))
        .collect()
    }

    /// The text that counts, if anyone set it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.own
            .get(name)
            .or_else(|| self.cluster_default.get(name))
            .or_else(|| self.from_file.get(name))
            .map(String::as_str)
    }

    /// The value that counts, or the default; `None` when there is neither.
    pub(crate) fn value(&self, name: &str) -> Result<Option<ConfigValue>, ConfigError> {
        let definition = definition(name)?;
        self.get(name).or(definition.default).map(|text| definition.parse(text)).transpose()
    }

    pub(crate) fn boolean(&self, name: &str) -> Result<bool, ConfigError> {
        self.typed(name, ConfigValue::boolean)
    }

    pub(crate) fn short(&self, name: &str) -> Result<i16, ConfigError> {
        self.typed(name, ConfigValue::short)
    }

    pub(crate) fn int(&self, name: &str) -> Result<i32, ConfigError> {
        self.typed(name, ConfigValue::int)
    }

    pub(crate) fn long(&self, name: &str) -> Result<i64, ConfigError> {
        self.typed(name, ConfigValue::long)
    }

    pub(crate) fn double(&self, name: &str) -> Result<f64, ConfigError> {
        self.typed(name, ConfigValue::double)
    }

    /// A text that nobody needs to set; an empty one counts as not set.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, ConfigError> {
        let value = self.value(name)?;
        Ok(value.as_ref().and_then(ConfigValue::text).filter(|text| !text.is_empty()).map(str::to_owned))
    }

    pub(crate) fn list(&self, name: &str) -> Result<Vec<String>, ConfigError> {
        let value = self.value(name)?;
        Ok(value.as_ref().and_then(ConfigValue::list).unwrap_or_default().to_vec())
    }

    fn typed<T>(&self, name: &str, read: impl Fn(&ConfigValue) -> Option<T>) -> Result<T, ConfigError> {
        self.value(name)?.as_ref().and_then(read).ok_or_else(|| ConfigError::Missing {
            name: name.to_owned(),
            reason: "it has no default".to_owned(),
        })
    }
}
