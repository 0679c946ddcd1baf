//! Properties of clients, which Kafka's tools take from files and flags: what a connection makes of them, and what is
//! refused rather than quietly left out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use firn_client::connection::ConnectionOptions;
use firn_model::properties;

use crate::command::Failure;

pub(crate) type Given = Vec<(String, String)>;

/// The file that scripts hand to every tool of Kafka's.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub(crate) struct CommandConfig {
    /// A properties file for the client, of which client.id and request.timeout.ms are obeyed; without TLS or SASL yet.
    #[arg(long, value_name = "FILE")]
    command_config: Option<PathBuf>,
}

impl CommandConfig {
    pub(crate) fn options(&self) -> Result<ConnectionOptions, Failure> {
        options(&self.command_config.as_deref().map(read).transpose()?.unwrap_or_default())
    }
}

/// What a properties file holds.
pub(crate) fn read(path: &Path) -> Result<Given, Failure> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let found = properties::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(found.into_iter().collect())
}

/// How a client with these properties connects. The last of a key counts.
pub(crate) fn options(given: &[(String, String)]) -> Result<ConnectionOptions, Failure> {
    let mut options = ConnectionOptions::default();
    for (key, value) in given {
        match key.as_str() {
            // A password must not go out in the clear because nobody read that it should not.
            "security.protocol" if !value.trim().eq_ignore_ascii_case("PLAINTEXT") => {
                return Err(format!(
                    "security.protocol={value}: there is no TLS or SASL yet, only PLAINTEXT"
                )
                .into());
            }
            "client.id" => options.client_id.clone_from(value),
            "request.timeout.ms" => options.deadline = milliseconds(key, value)?,
            _ => {}
        }
    }
    Ok(options)
}

/// Whether `options` has taken care of this property, or a flag that must be given has.
pub(crate) fn is_of_connections(key: &str) -> bool {
    matches!(key, "bootstrap.servers" | "security.protocol" | "client.id" | "request.timeout.ms")
        || key.starts_with("ssl.")
        || key.starts_with("sasl.")
}

pub(crate) fn milliseconds(key: &str, value: &str) -> Result<Duration, String> {
    let number = value.trim().parse();
    let wrong = |_| format!("{key} cannot be {value}: expected a number of milliseconds");
    number.map(Duration::from_millis).map_err(wrong)
}

/// Takes the names of classes whose work is done here without them, and refuses others.
pub(crate) fn class(name: &str, known: &[&str]) -> Result<String, String> {
    if known.iter().any(|known| name.trim().rsplit(['.', '$']).next() == Some(known)) {
        return Ok(name.to_owned());
    }
    let known = known.join(" and ");
    Err(format!(
        "it names a Java class to load, and Firn has no Java; {known} can be named, and change nothing"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> Given {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_connection_takes_its_name_and_deadline_and_no_secrets() {
        let taken =
            [("client.id", "mine"), ("request.timeout.ms", "5000"), ("security.protocol", "plaintext")];
        let options = options(&given(&taken)).unwrap();
        assert_eq!((options.client_id.as_str(), options.deadline), ("mine", Duration::from_secs(5)));
        for protocol in ["SSL", "SASL_PLAINTEXT", "SASL_SSL"] {
            let told = super::options(&given(&[("security.protocol", protocol)])).unwrap_err().to_string();
            assert_eq!(
                told,
                format!("security.protocol={protocol}: there is no TLS or SASL yet, only PLAINTEXT")
            );
        }
        assert!(super::options(&given(&[("request.timeout.ms", "soon")])).is_err());
    }

    #[test]
    fn classes_are_taken_where_they_change_nothing() {
        let known = ["StringDeserializer"];
        assert!(class("org.apache.kafka.common.serialization.StringDeserializer", &known).is_ok());
        assert!(class("com.example.MyStringDeserializer", &known).unwrap_err().contains("no Java"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        assert!(
            read(Path::new("/nowhere.properties")).unwrap_err().to_string().contains("/nowhere.properties")
        );
    }
}
