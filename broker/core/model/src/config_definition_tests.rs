//! Values of every type, at and past their limits; and the guess at a misspelled name.

use super::*;

fn definition(config_type: ConfigType, allowed: Allowed) -> ConfigDefinition {
    ConfigDefinition::new("a.key", config_type, Some("1"), allowed, "A key.")
}

#[test]
fn values_are_read_as_their_type_and_written_as_kafka_writes_them() {
    use ConfigType::*;
    for (config_type, text, written) in [
        (Boolean, " TRUE ", "true"),
        (Boolean, "false", "false"),
        (Short, "32767", "32767"),
        (Int, "-5", "-5"),
        (Long, "9223372036854775807", "9223372036854775807"),
        (Double, "0.5", "0.5"),
        (Double, "1", "1.0"),
        (Double, "1.7976931348623157E308", "1.7976931348623157E308"),
        (List, " a , b,c", "a,b,c"),
        (List, "", ""),
        (String, " x ", "x"),
    ] {
        let value = definition(config_type, Allowed::Any).parse(text).unwrap();
        assert_eq!(value.to_string(), written, "{config_type:?} {text:?}");
    }
}

#[test]
fn a_bad_value_is_refused_with_key_value_and_what_is_allowed() {
    use ConfigType::*;
    for (config_type, allowed, text, says) in [
        (Boolean, Allowed::Any, "yes", "true or false"),
        (Short, Allowed::Any, "32768", "short"),
        (Int, Allowed::AtLeast(0), "2147483648", "at least 0"),
        (Int, Allowed::AtLeast(0), "-1", "at least 0"),
        (Int, Allowed::Between(1, 17), "18", "between 1 and 17"),
        (Int, Allowed::LevelOrDefault(1, 9), "0", "or -1"),
        (Long, Allowed::Any, "1e3", "long"),
        (Long, Allowed::Any, "", "long"),
        (Double, Allowed::Ratio(0.0, 1.0), "1.01", "between 0 and 1"),
        (Double, Allowed::Any, "NaN", "not a number"),
        (String, Allowed::OneOf(&["a", "b"]), "c", "one of a, b"),
        (List, Allowed::ListOf(&["a", "b"]), "a,c", "list of a, b"),
        (List, Allowed::ListOf(&["a", "b"]), "a,a", "list of a, b"),
        (List, Allowed::ThrottledReplicas, "0:1,x", "partition:broker"),
        (List, Allowed::ThrottledReplicas, "*,0:1", "partition:broker"),
    ] {
        let error = definition(config_type, allowed).parse(text).unwrap_err().to_string();
        assert!(error.contains("a.key") && error.contains(text) && error.contains(says), "{error}");
    }
}

#[test]
fn throttled_replicas_are_a_star_or_pairs() {
    for good in ["", "*", "0:1", "0:1, 12:3"] {
        definition(ConfigType::List, Allowed::ThrottledReplicas).parse(good).unwrap();
    }
}

#[test]
fn a_config_we_cannot_obey_takes_its_default_alone() {
    let refused = ConfigDefinition::new("a.key", ConfigType::Boolean, Some("false"), Allowed::Any, "A key.")
        .refused("it would need wings");
    assert_eq!(refused.parse("FALSE"), Ok(ConfigValue::Boolean(false)));
    let error = refused.parse("true").unwrap_err().to_string();
    assert!(error.contains("it would need wings") && error.contains("'false'"), "{error}");
}

#[test]
fn a_secret_is_not_shown_in_an_error() {
    let secret = definition(ConfigType::Password, Allowed::OneOf(&[]));
    let error = secret.parse("hunter2").unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_misspelled_name_finds_its_neighbour() {
    let known = ["retention.ms", "retention.bytes", "segment.ms"];
    assert_eq!(nearest("retention.m", known.into_iter()), Some("retention.ms"));
    assert_eq!(nearest("retentoin.bytes", known.into_iter()), Some("retention.bytes"));
    assert_eq!(nearest("something.else.entirely", known.into_iter()), None);
    assert_eq!(nearest(&"x".repeat(1000), known.into_iter()), None);
    assert_eq!(edits("kitten", "sitting"), 3);
}
