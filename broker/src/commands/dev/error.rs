//! Why brokers for development do not start, or have ended.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum DevError {
    #[error("--brokers 0: there must be one at least")]
    NoBroker,
    #[error(
        "--port 0 with --brokers {brokers}: each broker must be told where the others are; name the port of the first, the others take those after it"
    )]
    AnyPort { brokers: u16 },
    #[error(
        "{flag} {first} with --brokers {brokers}: the last would need port {last}, and 65535 is the highest"
    )]
    Ports { flag: &'static str, first: u16, brokers: u16, last: u32 },
    #[error("--zones: a zone has no name; write them as --zones a,b,c")]
    NamelessZone,
    #[error("cannot use {path}: {source}")]
    Path { path: PathBuf, source: io::Error },
    #[error(
        "cannot keep data in {path}: its name must be UTF-8, and without a comma, which separates log.dirs"
    )]
    Name { path: PathBuf },
    #[error("{path} is in use: another firn dev runs there; stop it, or choose another directory by --data")]
    InUse { path: PathBuf },
    #[error("cannot start broker {id}: {source}")]
    Start { id: u16, source: io::Error },
    #[error(
        "broker {id} {how} before all were ready, and the others were stopped; what it said is marked [broker {id}]"
    )]
    NotReady { id: u16, how: String },
    #[error("no broker is left")]
    NoneLeft,
    #[error("stopped before all brokers were ready")]
    Interrupted,
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
}
