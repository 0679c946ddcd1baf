//! Values of a broker's file that stand elsewhere: `${env:NAME}`, `${file:PATH:KEY}` and `${directory:PATH:FILE}`, by Kafka's own
//! providers (KIP-297, KIP-421, KIP-632, KIP-887).
//!
//! Whoever calls looks where a value stands. As in Kafka, what stands there is taken as it is, and a reference to a provider that is not
//! named by `config.providers` is no reference.

use std::collections::BTreeMap;

const PROVIDERS: &str = "config.providers";
/// Directories, below which files may be read; any, if it is not set.
const ALLOWED_PATHS: &str = "allowed.paths";

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// In an environment variable.
    Variable(&'a str),
    /// Behind a key of a properties file.
    Property { file: &'a str, key: &'a str },
    /// It is all that is in a file of a directory.
    File { directory: &'a str, name: &'a str },
}

/// Why a file's values cannot be put together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    #[error("config.providers names '{provider}', and config.providers.{provider}.class is not set")]
    NoClass { provider: String },
    #[error(
        "config.providers.{provider}.class={class} is not known; those of Kafka are: EnvVarConfigProvider, FileConfigProvider, DirectoryConfigProvider"
    )]
    UnknownClass { provider: String, class: String },
    #[error("{name} is not known: of a provider of files {ALLOWED_PATHS} may be set")]
    UnknownParameter { name: String },
    #[error("{name}: {reference} names no key: write {form}")]
    Malformed { name: String, reference: String, form: &'static str },
    #[error("{name}: {reference} lies outside of config.providers.{provider}.param.{ALLOWED_PATHS}")]
    Forbidden { name: String, reference: String, provider: String },
    #[error("{name}: {reference} cannot be resolved: {reason}")]
    Missing { name: String, reference: String, reason: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Variables,
    Properties,
    Files,
}

impl Kind {
    /// By the class's name, in whichever package: Kafka's is `org.apache.kafka.common.config.provider`.
    fn of(class: &str) -> Option<Self> {
        match class.rsplit('.').next().unwrap_or(class) {
            "EnvVarConfigProvider" => Some(Self::Variables),
            "FileConfigProvider" => Some(Self::Properties),
            "DirectoryConfigProvider" => Some(Self::Files),
            _ => None,
        }
    }

    fn form(self) -> &'static str {
        match self {
            Self::Variables => "${provider:NAME}",
            Self::Properties => "${provider:FILE:KEY}",
            Self::Files => "${provider:DIRECTORY:FILE}",
        }
    }
}

#[derive(Debug)]
struct Provider {
    kind: Kind,
    allowed: Option<Vec<String>>,
}

/// The properties with every reference replaced by what `look_up` finds there, and without what the providers themselves are told.
pub fn resolve(
    properties: BTreeMap<String, String>,
    look_up: impl Fn(Place<'_>) -> Result<String, String>,
) -> Result<BTreeMap<String, String>, ProviderError> {
    let Some(named) = properties.get(PROVIDERS) else { return Ok(properties) };
    let mut providers = BTreeMap::new();
    for name in named.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        providers.insert(name, provider(&properties, name)?);
    }
    let is_told = |name: &str| {
        name.strip_prefix(PROVIDERS).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let others = properties.iter().filter(|(name, _)| !is_told(name));
    others.map(|(name, value)| Ok((name.clone(), replaced(name, value, &providers, &look_up)?))).collect()
}

fn provider(properties: &BTreeMap<String, String>, name: &str) -> Result<Provider, ProviderError> {
    let class = properties.get(&format!("{PROVIDERS}.{name}.class"));
    let class = class.ok_or_else(|| ProviderError::NoClass { provider: name.to_owned() })?;
    let unknown = || ProviderError::UnknownClass { provider: name.to_owned(), class: class.clone() };
    let kind = Kind::of(class.trim()).ok_or_else(unknown)?;
    let mut provider = Provider { kind, allowed: None };
    let prefix = format!("{PROVIDERS}.{name}.param.");
    for (key, value) in properties.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix)) {
        match key.strip_prefix(&prefix) {
            Some(ALLOWED_PATHS) if kind != Kind::Variables => {
                let paths = value.split(',').map(str::trim).filter(|path| !path.is_empty());
                provider.allowed = Some(paths.map(str::to_owned).collect());
            }
            _ => return Err(ProviderError::UnknownParameter { name: key.clone() }),
        }
    }
    Ok(provider)
}

fn replaced(
    name: &str,
    value: &str,
    providers: &BTreeMap<&str, Provider>,
    look_up: &impl Fn(Place<'_>) -> Result<String, String>,
) -> Result<String, ProviderError> {
    let mut text = String::new();
    let mut rest = value;
    while let Some((before, behind)) = rest.split_once("${") {
        text.push_str(before);
        let found = behind.split_once('}').and_then(|(inner, after)| {
            let (provider, place) = inner.split_once(':')?;
            Some((provider, providers.get(provider)?, place, after))
        });
        let Some((provider, of, place, after)) = found else {
            text.push_str("${");
            rest = behind;
            continue;
        };
        let reference = || format!("${{{provider}:{place}}}");
        let (path, key) = place.split_once(':').unwrap_or(("", place));
        let is_whole = !key.is_empty() && path.is_empty() == (of.kind == Kind::Variables);
        if !is_whole {
            let form = of.kind.form();
            return Err(ProviderError::Malformed { name: name.to_owned(), reference: reference(), form });
        }
        if of.allowed.as_ref().is_some_and(|allowed| !allowed.iter().any(|one| lies_below(path, one))) {
            let (name, provider) = (name.to_owned(), provider.to_owned());
            return Err(ProviderError::Forbidden { name, reference: reference(), provider });
        }
        let place = match of.kind {
            Kind::Variables => Place::Variable(key),
            Kind::Properties => Place::Property { file: path, key },
            Kind::Files => Place::File { directory: path, name: key },
        };
        let missing =
            |reason| ProviderError::Missing { name: name.to_owned(), reference: reference(), reason };
        text.push_str(&look_up(place).map_err(missing)?);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

/// Whether a path is a directory, or lies in it, by its text.
fn lies_below(path: &str, directory: &str) -> bool {
    let goes_up = path.split('/').any(|part| part == "..");
    let below = path.strip_prefix(directory.trim_end_matches('/'));
    !goes_up && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::parse;

    const NAMED: &str = "config.providers=env, file,dir\n\
        config.providers.env.class=org.apache.kafka.common.config.provider.EnvVarConfigProvider\n\
        config.providers.file.class=org.apache.kafka.common.config.provider.FileConfigProvider\n\
        config.providers.file.param.allowed.paths=/etc/firn,/run/secrets/\n\
        config.providers.dir.class=DirectoryConfigProvider\n";

    fn resolved(text: &str) -> Result<BTreeMap<String, String>, ProviderError> {
        resolve(parse(text).unwrap(), |place| match place {
            Place::Variable("POD") => Ok("7".to_owned()),
            Place::Variable("NEXT") => Ok("${env:POD}".to_owned()),
            Place::Property { file, key } => Ok(format!("{key} of {file}")),
            Place::File { directory, name } => Ok(format!("{directory}/{name}")),
            Place::Variable(_) => Err("it is not set".to_owned()),
        })
    }

    #[test]
    fn a_value_is_put_together_from_where_it_stands() {
        for (value, whole) in [
            ("${env:POD}", "7"),
            ("ice-${env:POD}.${env:POD}:9092", "ice-7.7:9092"),
            ("${file:/etc/firn/keys.properties:a:b}", "a:b of /etc/firn/keys.properties"),
            ("${file:/run/secrets/x:y}", "y of /run/secrets/x"),
            ("${dir:/mnt:password}", "/mnt/password"),
            // What stands there is no reference, and neither is what names nobody.
            ("${env:NEXT}", "${env:POD}"),
            ("${other:POD} ${env} ${ $} ${env:POD", "${other:POD} ${env} ${ $} ${env:POD"),
        ] {
            let found = resolved(&format!("{NAMED}node.id={value}\n")).unwrap();
            assert_eq!(found, BTreeMap::from([("node.id".to_owned(), whole.to_owned())]), "{value}");
        }
        let plain = "node.id=${env:POD}\n";
        assert_eq!(resolved(plain).unwrap(), parse(plain).unwrap(), "nobody is named");
    }

    #[test]
    fn what_cannot_be_resolved_is_said_with_what_to_do() {
        for (text, said) in [
            ("a=${env:GONE}", "a: ${env:GONE} cannot be resolved: it is not set"),
            ("a=${env:/x:POD}", "a: ${env:/x:POD} names no key: write ${provider:NAME}"),
            ("a=${file:/etc/firn/x}", "write ${provider:FILE:KEY}"),
            ("a=${dir:/mnt:}", "write ${provider:DIRECTORY:FILE}"),
            ("a=${file:/etc/firnest:k}", "outside of config.providers.file.param.allowed.paths"),
            ("a=${file:/etc/firn/../passwd:k}", "outside of config.providers.file.param.allowed.paths"),
            ("config.providers=vault", "config.providers.vault.class is not set"),
            ("config.providers.env.class=com.example.Vault", "com.example.Vault is not known"),
            (
                "config.providers.env.param.allowlist.pattern=P.*",
                "config.providers.env.param.allowlist.pattern is not known",
            ),
            ("config.providers.dir.param.more=x", "config.providers.dir.param.more is not known"),
        ] {
            let refused = resolved(&format!("{NAMED}{text}\n")).unwrap_err().to_string();
            assert!(refused.contains(said), "{text}: {refused}");
        }
    }
}
