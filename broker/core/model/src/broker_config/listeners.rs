//! Where a broker listens and what it tells clients to connect to: `listeners`, `advertised.listeners`, and the older
//! `port`, `host.name`, `advertised.host.name` and `advertised.port`.

use std::fmt;

use super::definitions::definition;
use super::layers::ConfigLayers;
use crate::config_definition::{ConfigError, split_list};

/// One address, under a name that the broker's other configs may refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// In capitals, as Kafka compares them.
    pub name: String,
    /// Empty: all of the machine's addresses.
    pub host: String,
    pub port: u16,
}

/// Kafka's spelling, which `listeners` takes.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listener { name, host, port } = self;
        if host.contains(':') {
            write!(f, "{name}://[{host}]:{port}")
        } else {
            write!(f, "{name}://{host}:{port}")
        }
    }
}

/// What this broker binds, what it advertises, and what it was asked for and will not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listeners {
    pub(crate) bound: Vec<Listener>,
    /// Listeners for the controllers' own traffic.
    pub(crate) controllers: Vec<Listener>,
    pub(crate) advertised: Vec<Listener>,
}

/// Reads all of it. Only PLAINTEXT listeners can be served.
pub(crate) fn read(layers: &ConfigLayers) -> Result<Listeners, ConfigError> {
    let controller_names: Vec<String> =
        layers.list("controller.listener.names")?.iter().map(|name| name.to_ascii_uppercase()).collect();
    let protocols = protocols(layers)?;
    let text = match layers.get("listeners") {
        Some(text) => text.to_owned(),
        None => of_old(layers, "host.name", "port", "")?.unwrap_or_else(|| "PLAINTEXT://:9092".to_owned()),
    };
    let (controllers, bound): (Vec<_>, Vec<_>) = parse("listeners", &text)?
        .into_iter()
        .partition(|listener| controller_names.contains(&listener.name));
    if bound.is_empty() {
        return Err(refuse(
            "listeners",
            &text,
            "it names no listener for clients; allowed is, say, PLAINTEXT://:9092",
        ));
    }
    for listener in &bound {
        only_plaintext(listener, &protocols, &text)?;
    }
    let advertised = advertised(layers, &bound, &controller_names)?;
    Ok(Listeners { bound, controllers, advertised })
}

fn advertised(
    layers: &ConfigLayers,
    bound: &[Listener],
    controller_names: &[String],
) -> Result<Vec<Listener>, ConfigError> {
    let first = bound.first();
    let text = match layers.get("advertised.listeners") {
        Some(text) => Some(text.to_owned()),
        None => {
            let port = first.map(|listener| listener.port.to_string()).unwrap_or_default();
            of_old(layers, "advertised.host.name", "advertised.port", &port)?
        }
    };
    let Some(text) = text else {
        routable(bound)?;
        return Ok(bound.to_vec());
    };
    let mut advertised = parse("advertised.listeners", &text)?;
    // Kafka's own file advertises the controllers' listener, too. No client connects to it.
    advertised.retain(|listener| !controller_names.contains(&listener.name));
    for listener in &advertised {
        if !bound.iter().any(|other| other.name == listener.name) {
            let reason = format!("{} is not one of the names in listeners", listener.name);
            return Err(refuse("advertised.listeners", &text, reason));
        }
        if matches!(listener.host.as_str(), "" | "0.0.0.0" | "::") {
            let reason = "a client cannot connect to every address: name the host that clients reach";
            return Err(refuse("advertised.listeners", &text, reason));
        }
    }
    // A listener that is not advertised by name is advertised as it is bound.
    let rest = bound.iter().filter(|listener| !advertised.iter().any(|other| other.name == listener.name));
    let rest: Vec<Listener> = rest.cloned().collect();
    routable(&rest)?;
    Ok(advertised.into_iter().chain(rest).collect())
}

/// What is advertised as it is bound must be an address that clients can connect to. An empty host is: the machine's
/// name then stands for it.
fn routable(listeners: &[Listener]) -> Result<(), ConfigError> {
    match listeners.iter().find(|listener| matches!(listener.host.as_str(), "0.0.0.0" | "::")) {
        None => Ok(()),
        Some(listener) => {
            let reason = "a client cannot connect to every address: leave the host out to have this machine's name advertised, or set advertised.listeners";
            Err(refuse("listeners", &listener.to_string(), reason))
        }
    }
}

/// The address that Kafka's keys from before `listeners` describe, if either of them is set.
fn of_old(
    layers: &ConfigLayers,
    host_key: &str,
    port_key: &str,
    port_default: &str,
) -> Result<Option<String>, ConfigError> {
    if layers.get(host_key).is_none() && layers.get(port_key).is_none() {
        return Ok(None);
    }
    let host = layers.text(host_key)?.unwrap_or_default();
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let port = match layers.get(port_key) {
        Some(port) => port.trim().to_owned(),
        None if port_default.is_empty() => "9092".to_owned(),
        None => port_default.to_owned(),
    };
    if port.parse::<u16>().is_err() {
        return Err(refuse(port_key, &port, "allowed is a port from 0 to 65535"));
    }
    // Advertising a port alone leaves the host to the broker, which a listener text cannot say.
    if host.is_empty() && port_key == "advertised.port" {
        return Err(refuse(
            port_key,
            &port,
            "set advertised.host.name with it, or advertised.listeners instead",
        ));
    }
    Ok(Some(format!("PLAINTEXT://{host}:{port}")))
}

fn parse(key: &str, text: &str) -> Result<Vec<Listener>, ConfigError> {
    let mut listeners: Vec<Listener> = Vec::new();
    for item in split_list(text) {
        let listener = parse_one(&item).ok_or_else(|| {
            refuse(key, text, format!("'{item}' is not NAME://host:port, such as PLAINTEXT://:9092"))
        })?;
        for other in &listeners {
            if other.name == listener.name {
                return Err(refuse(
                    key,
                    text,
                    format!("{} is there twice: each listener needs its own name", other.name),
                ));
            }
            if key == "listeners"
                && other.port == listener.port
                && other.port != 0
                && other.host == listener.host
            {
                return Err(refuse(key, text, format!("port {} is there twice", other.port)));
            }
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

fn parse_one(item: &str) -> Option<Listener> {
    let (name, address) = item.split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let good_name = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    let good_host =
        host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':' | b'%'));
    if !good_name || !good_host {
        return None;
    }
    Some(Listener { name: name.to_ascii_uppercase(), host: host.to_owned(), port: port.parse().ok()? })
}

/// `listener.security.protocol.map`, names in capitals.
fn protocols(layers: &ConfigLayers) -> Result<Vec<(String, String)>, ConfigError> {
    let key = "listener.security.protocol.map";
    split_list(&layers.text(key)?.unwrap_or_default())
        .iter()
        .map(|item| match item.split_once(':') {
            Some((name, protocol)) => {
                Ok((name.trim().to_ascii_uppercase(), protocol.trim().to_ascii_uppercase()))
            }
            None => Err(refuse(key, item, "allowed is NAME:PROTOCOL, separated by commas")),
        })
        .collect()
}

fn only_plaintext(
    listener: &Listener,
    protocols: &[(String, String)],
    text: &str,
) -> Result<(), ConfigError> {
    let protocol =
        protocols.iter().find(|(name, _)| *name == listener.name).map(|(_, protocol)| protocol.as_str());
    match protocol {
        Some("PLAINTEXT") => Ok(()),
        Some(other) => {
            let reason = format!(
                "{} asks for {other}, which this broker does not speak yet; allowed is PLAINTEXT, \
                 and serving in the clear what was meant to be encrypted would be worse than not starting",
                listener.name
            );
            Err(refuse("listeners", text, reason))
        }
        None => {
            let reason = format!(
                "{} has no protocol: add {}:PLAINTEXT to listener.security.protocol.map",
                listener.name, listener.name
            );
            Err(refuse("listeners", text, reason))
        }
    }
}

fn refuse(key: &str, value: &str, reason: impl Into<String>) -> ConfigError {
    match definition(key) {
        Ok(definition) => definition.refuse(value, reason),
        Err(error) => error,
    }
}
