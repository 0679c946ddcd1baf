//! Other brokers as far as a test needs them: who they say that they are, at which address.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_quorum::wire::message;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::Peers;
use super::wire::{Standing, Told};
use crate::net::{Connecting, Listener, Network, SocketOptions};

/// What is at an address; nobody, if it is not named.
#[derive(Debug, Clone)]
pub enum At {
    Silence,
    Process(Standing),
}

#[derive(Debug, Clone, Default)]
pub struct World(Arc<Mutex<BTreeMap<&'static str, At>>>);

impl World {
    pub fn put(&self, address: &'static str, what: At) {
        self.0.lock().insert(address, what);
    }

    fn at(&self, address: &str) -> Option<At> {
        self.0.lock().get(address).cloned()
    }
}

impl Network for World {
    fn bind(&self, _: SocketAddr, _: SocketOptions) -> io::Result<Listener> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn connect(&self, address: String) -> Connecting {
        let world = self.clone();
        Box::pin(async move {
            match world.at(&address) {
                None => Err(io::ErrorKind::ConnectionRefused.into()),
                Some(At::Silence) => std::future::pending().await,
                Some(At::Process(_)) => {
                    let (here, there) = tokio::io::duplex(1 << 10);
                    tokio::spawn(answer(there, world, address));
                    Ok(Box::new(here) as Box<dyn crate::net::ByteStream>)
                }
            }
        })
    }
}

/// Says who it is, to whatever question, or nothing more.
async fn answer(mut stream: DuplexStream, world: World, address: String) {
    while let Ok(length) = stream.read_u32().await {
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await.unwrap();
        let Some(At::Process(standing)) = world.at(&address) else { return std::future::pending().await };
        // The correlation id comes behind the API's key and version.
        let body = [&frame[4..8], &message(Told::Standing(standing), &[]).unwrap()].concat();
        stream.write_u32(body.len() as u32).await.unwrap();
        stream.write_all(&body).await.unwrap();
    }
}

pub fn peers(world: &Arc<World>) -> Peers {
    let text =
        "node.id=1\nlisteners=PLAINTEXT://one:1\nlog.dirs=/data\ncontroller.quorum.voters=1@one:1,2@two:1";
    let parsed = BrokerConfig::from_properties(&properties::parse(text).unwrap()).unwrap();
    Peers::new(&parsed.config, &[], world.clone())
}
