//! Which brokers decide on the metadata together, and how soon one that falls silent is missed.

use super::layers::ConfigLayers;
use super::settings::invalid;
use crate::config_definition::ConfigError;

/// The metadata quorum, and the brokers' heartbeats to its leader, the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumSettings {
    /// The brokers that have a vote from when they join, by id; this one observes if it is not among them, and is alone if there are
    /// none.
    pub voters: Vec<Voter>,
    /// How long the controller may be silent before others stand for election.
    pub election_timeout_ms: i32,
    pub heartbeat_interval_ms: i32,
    /// A broker that has been silent for so long is put behind a fence.
    pub session_timeout_ms: i32,
}

/// A broker with a vote, and where the others find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    pub broker_id: i32,
    /// Host and port.
    pub address: String,
}

pub(super) fn quorum(layers: &ConfigLayers, node_id: i32) -> Result<QuorumSettings, ConfigError> {
    let (heartbeat, session) = ("broker.heartbeat.interval.ms", "broker.session.timeout.ms");
    let settings = QuorumSettings {
        voters: voters(layers, node_id)?,
        election_timeout_ms: layers.int("controller.quorum.election.timeout.ms")?,
        heartbeat_interval_ms: layers.int(heartbeat)?,
        session_timeout_ms: layers.int(session)?,
    };
    if settings.session_timeout_ms <= settings.heartbeat_interval_ms {
        let reason =
            format!("it must be larger than {heartbeat}, which is {}", settings.heartbeat_interval_ms);
        return Err(invalid(session, settings.session_timeout_ms, &reason));
    }
    Ok(settings)
}

fn voters(layers: &ConfigLayers, node_id: i32) -> Result<Vec<Voter>, ConfigError> {
    let key = "controller.quorum.voters";
    let texts = layers.list(key)?;
    let refuse = |reason: &str| Err(invalid(key, texts.join(","), reason));
    let mut voters: Vec<Voter> = Vec::with_capacity(texts.len());
    for text in &texts {
        let Some(voter) = parse(text) else {
            return refuse("allowed are brokers of the cluster as id@host:port, separated by commas");
        };
        if voters.iter().any(|other| other.broker_id == voter.broker_id) {
            return refuse(&format!("broker {} stands in it twice", voter.broker_id));
        }
        voters.push(voter);
    }
    voters.sort_by_key(|voter| voter.broker_id);
    if matches!(&*voters, [only] if only.broker_id == node_id) {
        voters.clear();
    }
    Ok(voters)
}

impl QuorumSettings {
    /// Whether a broker has a vote from when it joins.
    pub fn is_listed(&self, broker_id: i32) -> bool {
        self.voters.iter().any(|voter| voter.broker_id == broker_id)
    }
}

fn parse(text: &str) -> Option<Voter> {
    let (id, address) = text.split_once('@')?;
    let (host, port) = address.rsplit_once(':')?;
    let broker_id = id.trim().parse::<i32>().ok().filter(|id| *id >= 0)?;
    let port = port.trim().parse::<u16>().ok().filter(|port| *port > 0)?;
    let host = host.trim();
    (!host.is_empty()).then(|| Voter { broker_id, address: format!("{host}:{port}") })
}
