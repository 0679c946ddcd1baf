//! A relay between a client and a broker that keeps every byte the client sent.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

#[derive(Debug, Clone, Default)]
pub struct Recording(Arc<Mutex<Vec<Vec<u8>>>>);

impl Recording {
    /// Whether these bytes went over one connection in one piece.
    pub fn contains(&self, bytes: &[u8]) -> bool {
        let connections = self.0.lock().expect("not poisoned");
        connections.iter().any(|sent| sent.windows(bytes.len()).any(|window| window == bytes))
    }
}

/// Listens on `port` of the loopback and passes everything to `target`, for as long as the test runs.
pub fn start(port: u16, target: String) -> Recording {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("bind the relay");
    let recording = Recording::default();
    let kept = recording.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(broker) = TcpStream::connect(&target) else { continue };
            let number = {
                let mut connections = kept.0.lock().expect("not poisoned");
                connections.push(Vec::new());
                connections.len() - 1
            };
            let (client_end, broker_end) =
                (client.try_clone().expect("clone a socket"), broker.try_clone().expect("clone a socket"));
            let recorded = kept.clone();
            std::thread::spawn(move || {
                pass(client, broker, |bytes| {
                    recorded.0.lock().expect("not poisoned")[number].extend_from_slice(bytes);
                });
            });
            std::thread::spawn(move || pass(broker_end, client_end, |_| {}));
        }
    });
    recording
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut seen: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(bytes @ 1..) = from.read(&mut buffer) {
        seen(&buffer[..bytes]);
        if to.write_all(&buffer[..bytes]).is_err() {
            break;
        }
    }
    // Either side may have gone first; both ends are closed now.
    to.shutdown(Shutdown::Both).unwrap_or_default();
    from.shutdown(Shutdown::Both).unwrap_or_default();
}
