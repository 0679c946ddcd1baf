//! Each key of the table, set to something other than its default, changes what the broker reads, or is refused.

use super::definitions::definitions;
use super::*;
use crate::config_definition::{Allowed, ConfigDefinition, ConfigType, Support};

type Properties = &'static [(&'static str, &'static str)];

/// Keys whose other values need company, or are refused: what stands beside them, and the value.
#[rustfmt::skip] // one config a line
const SPECIAL: &[(&str, Properties, &str)] = &[
    ("advertised.host.name", &[], "elsewhere"),
    ("advertised.listeners", &[], "PLAINTEXT://elsewhere:9092"),
    ("advertised.port", &[("advertised.host.name", "elsewhere")], "1234"),
    ("broker.id", &[], "5"),
    ("controller.listener.names", &[("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"), ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT")], "CONTROLLER"),
    ("controller.quorum.voters", &[], "0@a:1,1@b:1"),
    ("firn.remote.storage.enable", &[("firn.store.url", "memory:")], "true"),
    ("firn.store.url", &[], "memory:"),
    ("host.name", &[], "elsewhere"),
    ("listener.security.protocol.map", &[("listeners", "INSIDE://:9092")], "INSIDE:PLAINTEXT"),
    ("listeners", &[], "PLAINTEXT://127.0.0.1:1234"),
    ("max.connections.per.ip.overrides", &[], "127.0.0.1:7"),
    ("remote.log.storage.system.enable", &[("firn.store.url", "memory:")], "false"),
    ("socket.request.max.bytes", &[], "1000"),
];

/// Keys that say what is so anyway, or are not for the file; any other value is refused.
const REFUSED: &[(&str, &str)] = &[
    ("controller.quorum.bootstrap.servers", "a:1,b:1"),
    ("cordoned.log.dirs", "*"),
    ("firn.broker.drain", "true"),
    ("firn.controller.voter", "true"),
    ("process.roles", "controller"),
];

fn read(properties: &[(&str, &str)]) -> Result<BrokerConfig, ConfigError> {
    let map = properties.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    // As it was written tells nothing of what is obeyed.
    let blank = |parsed: Parsed| BrokerConfig { layers: ConfigLayers::default(), ..parsed.config };
    BrokerConfig::from_properties(&map).map(blank)
}

/// A value of the key that is allowed, and not the default.
fn another(definition: &ConfigDefinition) -> String {
    let default = definition.default.unwrap_or_default();
    let number: i64 = default.parse().unwrap_or(0);
    let candidates = match (definition.config_type, definition.allowed) {
        (ConfigType::Boolean, _) => vec!["true".to_owned(), "false".to_owned()],
        (_, Allowed::OneOf(names) | Allowed::ListOf(names)) => {
            names.iter().map(|name| (*name).to_owned()).collect()
        }
        (ConfigType::Double, _) => vec!["0.25".to_owned()],
        (ConfigType::Int | ConfigType::Long | ConfigType::Short, _) => {
            [number.saturating_add(1), number.saturating_sub(1), 7].map(|number| number.to_string()).to_vec()
        }
        _ => vec!["/another".to_owned()],
    };
    let other = candidates.into_iter().find(|text| {
        text != default && ConfigDefinition { support: Support::Obeyed, ..*definition }.parse(text).is_ok()
    });
    other.unwrap_or_else(|| panic!("{} needs a value of its own", definition.name))
}

#[test]
fn every_key_changes_what_the_broker_obeys_or_is_refused() {
    let mut ignored = Vec::new();
    for definition in definitions() {
        let name = definition.name;
        if let Some((_, value)) = REFUSED.iter().find(|(key, _)| *key == name) {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            continue;
        }
        let (beside, value) = match SPECIAL.iter().find(|(key, ..)| *key == name) {
            Some((_, beside, value)) => (*beside, (*value).to_owned()),
            None => (&[][..], another(definition)),
        };
        let with_it = read(&[beside, &[(name, &value)]].concat());
        match definition.support {
            Support::Refused(reason) => {
                let error = with_it.unwrap_err().to_string();
                assert!(error.contains(name) && error.contains(reason), "{error}");
            }
            Support::Obeyed => {
                if with_it.is_err() || with_it == read(beside) {
                    ignored.push(format!("{name}={value}: {:?}", with_it.err()));
                }
            }
        }
    }
    assert!(ignored.is_empty(), "these change nothing: {ignored:?}");
}

#[test]
fn what_is_not_obeyed_is_told_at_the_start_and_refused_when_altered() {
    for name in unused::unused_names() {
        let told = BrokerConfig::from_properties(&BTreeMap::from([(name.to_owned(), "1".to_owned())]));
        match told {
            Ok(parsed) => assert!(parsed.warnings.iter().any(|warning| warning.contains(name)), "{name}"),
            Err(error) => assert!(error.to_string().contains(name), "{error}"),
        }
        let refused = BrokerConfig::check_dynamic(name, Some("1"), false).unwrap_err().to_string();
        assert!(refused.contains(name) && refused.contains("no effect"), "{refused}");
    }
}
