//! What a config is: its name, type, default, allowed values, and whether this broker obeys it.

use std::fmt;

use crate::throttled_replicas::ThrottledReplicas;

/// A config's type, as DescribeConfigs reports it (Kafka's `ConfigDef.Type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigType {
    Boolean,
    String,
    Int,
    Short,
    Long,
    Double,
    List,
    Class,
    Password,
}

impl ConfigType {
    /// The number that stands for it in a DescribeConfigs response.
    pub fn code(self) -> i8 {
        match self {
            ConfigType::Boolean => 1,
            ConfigType::String => 2,
            ConfigType::Int => 3,
            ConfigType::Short => 4,
            ConfigType::Long => 5,
            ConfigType::Double => 6,
            ConfigType::List => 7,
            ConfigType::Class => 8,
            ConfigType::Password => 9,
        }
    }
}

/// Which values a config takes, beyond its type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Allowed {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    /// -1 for the codec's own default, or a level of the range.
    LevelOrDefault(i64, i64),
    Ratio(f64, f64),
    Positive,
    /// One of these, spelled exactly.
    OneOf(&'static [&'static str]),
    /// Any number of these, each at most once.
    ListOf(&'static [&'static str]),
    /// `*`, or `partition:broker` pairs (KIP-73).
    ThrottledReplicas,
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Allowed::Any => f.write_str("any value of its type"),
            Allowed::AtLeast(least) => write!(f, "at least {least}"),
            Allowed::Between(least, most) => write!(f, "between {least} and {most}"),
            Allowed::LevelOrDefault(least, most) => write!(f, "between {least} and {most}, or -1"),
            Allowed::Ratio(least, most) => write!(f, "between {least} and {most}"),
            Allowed::Positive => f.write_str("more than 0"),
            Allowed::OneOf(names) => write!(f, "one of {}", names.join(", ")),
            Allowed::ListOf(names) => write!(f, "a comma-separated list of {}", names.join(", ")),
            Allowed::ThrottledReplicas => f.write_str("* or partition:broker pairs separated by commas"),
        }
    }
}

/// What this broker does with a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    Obeyed,
    /// Only the default is taken, because this broker cannot do what another value asks for. The reason is a clause
    /// that goes after "refused: ".
    Refused(&'static str),
}

/// When a broker's config may change. A topic's configs all change at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// Read once, at start.
    ReadOnly,
    /// By IncrementalAlterConfigs on one broker.
    PerBroker,
    /// By IncrementalAlterConfigs on one broker, or as the default of all (resource name "").
    ClusterWide,
}

/// A broker's config that gives a topic's config its default, and what one of its units is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerSynonym {
    pub name: &'static str,
    /// Factor from the broker's unit to the topic's: 60,000 for minutes to milliseconds.
    pub factor: i64,
}

/// One config of topics or of brokers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConfigDefinition {
    pub name: &'static str,
    pub config_type: ConfigType,
    /// As text; `None` is Kafka's null: another config or the broker decides.
    pub default: Option<&'static str>,
    pub allowed: Allowed,
    pub doc: &'static str,
    /// Topic configs only: where the default comes from, first found wins.
    pub synonyms: &'static [BrokerSynonym],
    pub support: Support,
    pub update: Update,
}

impl ConfigDefinition {
    pub(crate) const fn new(
        name: &'static str,
        config_type: ConfigType,
        default: Option<&'static str>,
        allowed: Allowed,
        doc: &'static str,
    ) -> Self {
        Self {
            name,
            config_type,
            default,
            allowed,
            doc,
            synonyms: &[],
            support: Support::Obeyed,
            update: Update::ReadOnly,
        }
    }

    pub(crate) const fn synonyms(mut self, synonyms: &'static [BrokerSynonym]) -> Self {
        self.synonyms = synonyms;
        self
    }

    pub(crate) const fn refused(mut self, reason: &'static str) -> Self {
        self.support = Support::Refused(reason);
        self
    }

    pub(crate) const fn cluster_wide(mut self) -> Self {
        self.update = Update::ClusterWide;
        self
    }

    pub(crate) const fn per_broker(mut self) -> Self {
        self.update = Update::PerBroker;
        self
    }

    /// True when the value must not be shown to anyone.
    pub fn sensitive(&self) -> bool {
        self.config_type == ConfigType::Password
    }

    /// Reads and checks a value: its type, its range, and that this broker can obey it.
    pub fn parse(&self, text: &str) -> Result<ConfigValue, ConfigError> {
        let value = self.typed(text)?;
        self.check(&value, text)?;
        if let Support::Refused(reason) = self.support
            && !self.is_default(&value)
        {
            return Err(self.refuse(
                text,
                format!("refused: {reason}; allowed is its default, '{}'", self.default.unwrap_or("")),
            ));
        }
        Ok(value)
    }

    /// The error for a value of this config, with what is allowed.
    pub fn refuse(&self, value: &str, reason: impl Into<String>) -> ConfigError {
        let shown = if self.sensitive() { "[hidden]".to_owned() } else { value.chars().take(200).collect() };
        ConfigError::Invalid { name: self.name.to_owned(), value: shown, reason: reason.into() }
    }

    fn is_default(&self, value: &ConfigValue) -> bool {
        self.default.is_some_and(|text| self.typed(text).is_ok_and(|default| default == *value))
    }

    fn typed(&self, text: &str) -> Result<ConfigValue, ConfigError> {
        let trimmed = text.trim();
        let number =
            |least: i64, most: i64, kind: &str| match trimmed.parse::<i64>() {
                Ok(number) if (least..=most).contains(&number) => Ok(ConfigValue::Integer(number)),
                _ => Err(self
                    .refuse(text, format!("it is not a number of type {kind}; allowed is {}", self.allowed))),
            };
        match self.config_type {
            ConfigType::Boolean if trimmed.eq_ignore_ascii_case("true") => Ok(ConfigValue::Boolean(true)),
            ConfigType::Boolean if trimmed.eq_ignore_ascii_case("false") => Ok(ConfigValue::Boolean(false)),
            ConfigType::Boolean => Err(self.refuse(text, "it is not a boolean; allowed is true or false")),
            ConfigType::Short => number(i64::from(i16::MIN), i64::from(i16::MAX), "short (16 bits)"),
            ConfigType::Int => number(i64::from(i32::MIN), i64::from(i32::MAX), "int (32 bits)"),
            ConfigType::Long => number(i64::MIN, i64::MAX, "long (64 bits)"),
            ConfigType::Double => match trimmed.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(ConfigValue::Double(number)),
                _ => Err(self.refuse(text, format!("it is not a number; allowed is {}", self.allowed))),
            },
            ConfigType::List => Ok(ConfigValue::List(split_list(trimmed))),
            ConfigType::String | ConfigType::Class | ConfigType::Password => {
                Ok(ConfigValue::Text(trimmed.to_owned()))
            }
        }
    }

    fn check(&self, value: &ConfigValue, text: &str) -> Result<(), ConfigError> {
        let good = match (self.allowed, value) {
            (Allowed::Any, _) => true,
            (Allowed::AtLeast(least), ConfigValue::Integer(number)) => *number >= least,
            (Allowed::Between(least, most), ConfigValue::Integer(number)) => (least..=most).contains(number),
            (Allowed::LevelOrDefault(least, most), ConfigValue::Integer(number)) => {
                *number == -1 || (least..=most).contains(number)
            }
            (Allowed::Ratio(least, most), ConfigValue::Double(number)) => (least..=most).contains(number),
            (Allowed::Positive, ConfigValue::Double(number)) => *number > 0.0,
            (Allowed::OneOf(names), ConfigValue::Text(name)) => names.contains(&name.as_str()),
            (Allowed::ListOf(names), ConfigValue::List(items)) => {
                items.iter().enumerate().all(|(index, item)| {
                    names.contains(&item.as_str()) && !items.iter().take(index).any(|other| other == item)
                })
            }
            (Allowed::ThrottledReplicas, ConfigValue::List(items)) => {
                ThrottledReplicas::read(items).is_some()
            }
            _ => false,
        };
        if good { Ok(()) } else { Err(self.refuse(text, format!("allowed is {}", self.allowed))) }
    }
}

/// Splits a list as Kafka does: at commas, blanks around items dropped, and an empty text is an empty list.
pub fn split_list(text: &str) -> Vec<String> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Vec::new();
    }
    trimmed.split(',').map(|item| item.trim().to_owned()).collect()
}

/// A config's value, read.
#[derive(Debug, Clone, PartialEq)]
pub enum ConfigValue {
    Boolean(bool),
    Integer(i64),
    Double(f64),
    Text(String),
    List(Vec<String>),
}

/// The value as a Rust type; `None` when it is of another type, or does not fit.
impl ConfigValue {
    pub fn boolean(&self) -> Option<bool> {
        if let ConfigValue::Boolean(value) = self { Some(*value) } else { None }
    }

    pub fn long(&self) -> Option<i64> {
        if let ConfigValue::Integer(value) = self { Some(*value) } else { None }
    }

    pub fn int(&self) -> Option<i32> {
        self.long().and_then(|value| i32::try_from(value).ok())
    }

    pub fn short(&self) -> Option<i16> {
        self.long().and_then(|value| i16::try_from(value).ok())
    }

    pub fn double(&self) -> Option<f64> {
        if let ConfigValue::Double(value) = self { Some(*value) } else { None }
    }

    pub fn text(&self) -> Option<&str> {
        if let ConfigValue::Text(value) = self { Some(value) } else { None }
    }

    pub fn list(&self) -> Option<&[String]> {
        if let ConfigValue::List(items) = self { Some(items) } else { None }
    }
}

/// Kafka's spelling, which DescribeConfigs reports.
impl fmt::Display for ConfigValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigValue::Boolean(value) => write!(f, "{value}"),
            ConfigValue::Integer(value) => write!(f, "{value}"),
            // Java writes a double with a decimal point, and large ones with an exponent.
            ConfigValue::Double(value) if value.abs() >= 1e7 => write!(f, "{value:E}"),
            ConfigValue::Double(value) => write!(f, "{value:?}"),
            ConfigValue::Text(value) => f.write_str(value),
            ConfigValue::List(items) => f.write_str(&items.join(",")),
        }
    }
}

/// Why a config is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("Invalid value '{value}' for configuration {name}: {reason}")]
    Invalid { name: String, value: String, reason: String },
    #[error("Unknown {scope} config name: {name}{}", hint(nearest))]
    Unknown { scope: &'static str, name: String, nearest: Option<&'static str> },
    #[error("The configurations {first} and {second} do not fit together: {reason}")]
    Conflict { first: String, second: String, reason: String },
    #[error("Configuration {name} is missing: {reason}")]
    Missing { name: String, reason: String },
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default()
}

/// The known name that is most likely meant by an unknown one: the fewest edits away, and not more than a third of it.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let longest = name.len().min(100);
    known
        .map(|candidate| (edits(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= (longest / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance between two names; names past 100 characters are far from everything.
fn edits(from: &str, to: &str) -> usize {
    if from.len() > 100 || to.len() > 100 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, left) in from.bytes().enumerate() {
        let mut diagonal = line;
        let mut previous = line + 1;
        for (cell, right) in row.iter_mut().skip(1).zip(to.bytes()) {
            let cost = (diagonal + usize::from(left != right)).min(*cell + 1).min(previous + 1);
            diagonal = *cell;
            *cell = cost;
            previous = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or(from.len())
}

#[cfg(test)]
#[path = "config_definition_tests.rs"]
mod tests;
