//! What stands behind a flag: times, offsets and pairs, as people write them.

use chrono::DateTime;
use firn_client::consumer::Start;

/// Parses `key=value`, of a config.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    pair(text, "retention.ms=60000")
}

/// Parses `key=value`, of a record's header.
pub(crate) fn header(text: &str) -> Result<(String, String), String> {
    pair(text, "trace-id=4bf92f")
}

fn pair(text: &str, example: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err(format!("expected KEY=VALUE, for example {example}")),
    }
}

/// Where reading begins in each partition: a number, or Kafka's names for either end.
pub(crate) fn offset(text: &str) -> Result<Start, String> {
    match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        number => match number.parse() {
            Ok(offset) if offset >= 0 => Ok(Start::Offset(offset)),
            _ => Err("expected an offset, which is 0 or more, or earliest or latest".to_owned()),
        },
    }
}

/// Milliseconds since 1970, of a number of them or of a date with a time.
pub(crate) fn time(text: &str) -> Result<i64, String> {
    let known = text.parse().or_else(|_| datetime(text)).ok().filter(|time| *time >= 0);
    let expected = "expected milliseconds since 1970, or a time such as 2026-01-31T12:00:00Z";
    known.ok_or_else(|| expected.to_owned())
}

/// Milliseconds since 1970, of a date with a time; of UTC unless a zone is given.
pub(crate) fn datetime(text: &str) -> Result<i64, String> {
    let time = text.split_once('T').map_or("", |(_, time)| time);
    let zoned = match time.strip_suffix('Z') {
        Some(_) => text.trim_end_matches('Z').to_owned() + "+0000",
        None if time.contains(['+', '-']) => text.to_owned(),
        None => format!("{text}+0000"),
    };
    let parsed = DateTime::parse_from_str(&zoned, "%Y-%m-%dT%H:%M:%S%.f%#z");
    parsed
        .map(|time| time.timestamp_millis())
        .map_err(|_| "expected YYYY-MM-DDThh:mm:ss.sss, for example 2026-01-31T12:00:00.000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_keys_with_values() {
        assert_eq!(key_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(key_value("=b").is_err() && key_value("a").unwrap_err().ends_with("retention.ms=60000"));
        assert!(header("a").unwrap_err().ends_with("trace-id=4bf92f"));
    }

    #[test]
    fn offsets_are_numbers_or_names() {
        assert_eq!(offset("earliest"), Ok(Start::Earliest));
        assert_eq!(offset("latest"), Ok(Start::Latest));
        assert_eq!(offset("7"), Ok(Start::Offset(7)));
        assert!(offset("-1").unwrap_err().contains("0 or more") && offset("first").is_err());
    }

    #[test]
    fn times_are_milliseconds_or_dates() {
        assert_eq!(time("1500"), Ok(1500));
        assert_eq!(time("1970-01-01T00:00:01.5"), Ok(1500));
        assert_eq!(time("1970-01-01T01:00:00Z"), Ok(3_600_000));
        for wrong in ["-1", "1969-12-31T00:00:00Z", "yesterday", ""] {
            assert!(time(wrong).unwrap_err().contains("2026-01-31T12:00:00Z"), "{wrong}");
        }
    }

    #[test]
    fn datetimes_are_of_utc_unless_they_have_a_zone() {
        assert_eq!(datetime("1970-01-01T00:00:01.500"), Ok(1500));
        assert_eq!(datetime("1970-01-01T00:00:01.500Z"), Ok(1500));
        assert_eq!(datetime("1970-01-01T01:00:00.000+01:00"), Ok(0));
        assert_eq!(datetime("1970-01-01T01:00:00.000+0100"), Ok(0));
        assert!(datetime("1970-01-01").is_err() && datetime("yesterday").is_err());
    }
}
