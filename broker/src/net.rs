//! The network seam: the only file of the broker that names sockets, and asks for the addresses of names.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is the seam: the machine's own network"
)]

use std::fmt::Debug;
use std::fs::File;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use firn_model::broker_config::settings::NetworkSettings;
use firn_storage::disk::DiskFile;
use firn_storage::read::LogSlice;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

mod byte_stream;

pub use byte_stream::ByteStream;
use byte_stream::Halves;

/// A part of a reply: bytes that the broker made, or batches that lie in a log's file.
#[derive(Debug)]
pub enum Chunk {
    Bytes(Bytes),
    /// Records in memory, cold ones or such as were converted for an old client: many bytes, for which others may wait.
    Records(Bytes),
    Log(LogSlice),
}

/// Most bytes that one `sendfile` call is asked to move, so that one connection does not hold a thread for long.
const SENDFILE_BYTES_MAX: usize = 1 << 20;

/// Most bytes of a reply that are copied out of logs, so that small batches leave together with what announces them: one
/// system call, one packet and one wake-up of the client instead of two. Memory that a client which stops reading holds.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// How sockets are set up. `None` leaves a buffer's size to the system, which fits it to the connection.
#[derive(Debug, Clone, Copy)]
pub struct SocketOptions {
    /// Connections that may wait to be accepted.
    pub backlog: u32,
    pub send_buffer_bytes: Option<u32>,
    pub receive_buffer_bytes: Option<u32>,
}

impl SocketOptions {
    /// As the broker's configuration says.
    pub fn of(network: &NetworkSettings) -> Self {
        let bytes = |value: i32| u32::try_from(value).ok();
        Self {
            backlog: u32::try_from(network.socket_listen_backlog_size).unwrap_or(1),
            send_buffer_bytes: bytes(network.socket_send_buffer_bytes),
            receive_buffer_bytes: bytes(network.socket_receive_buffer_bytes),
        }
    }
}

/// A connection that is being made.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn ByteStream>>> + Send>>;

/// Where brokers listen, and reach each other.
pub trait Network: Send + Sync + Debug {
    fn bind(&self, address: SocketAddr, options: SocketOptions) -> io::Result<Listener>;

    /// Connects to a host and port.
    fn connect(&self, address: String) -> Connecting;

    /// The address of a host that is to be listened on. A network without names has addresses only.
    fn resolve(&self, host: &str, port: u16) -> io::Result<SocketAddr> {
        let address: IpAddr =
            host.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok((address, port).into())
    }

    /// The name of this machine, for clients to connect to (Kafka's default).
    fn own_host(&self) -> String {
        Ipv4Addr::LOCALHOST.to_string()
    }
}

/// The machine's own network.
#[derive(Debug)]
pub struct SystemNetwork;

impl Network for SystemNetwork {
    fn bind(&self, address: SocketAddr, options: SocketOptions) -> io::Result<Listener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart must not wait until the connections of before are forgotten.
        socket.set_reuseaddr(true)?;
        // Connections inherit both sizes; the receiving one has to be there before they are made, for it decides how
        // large a window they may announce.
        if let Some(bytes) = options.send_buffer_bytes {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = options.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.bind(address)?;
        Ok(Listener::Sockets(socket.listen(options.backlog)?))
    }

    fn connect(&self, address: String) -> Connecting {
        Box::pin(async move {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            Ok(Box::new(socket) as Box<dyn ByteStream>)
        })
    }

    fn resolve(&self, host: &str, port: u16) -> io::Result<SocketAddr> {
        (host, port).to_socket_addrs()?.next().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// Where the name cannot be resolved even here it would serve nobody, and the loopback address serves clients of this
    /// machine.
    fn own_host(&self) -> String {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        if self.resolve(&name, 0).is_ok() {
            return name;
        }
        tracing::warn!(
            name,
            "the name of this machine cannot be resolved: only clients of this machine can connect; set advertised.listeners"
        );
        Ipv4Addr::LOCALHOST.to_string()
    }
}

/// The next connection, and who made it.
pub type Accepting<'a> =
    Pin<Box<dyn Future<Output = io::Result<(Box<dyn ByteStream>, SocketAddr)>> + Send + 'a>>;

/// Takes connections from another network than the machine's.
pub trait Accept: Send + Sync + Debug {
    fn local_address(&self) -> io::Result<SocketAddr>;
    fn accept(&self) -> Accepting<'_>;
}

#[derive(Debug)]
pub enum Listener {
    Sockets(TcpListener),
    Streams(Box<dyn Accept>),
}

impl Listener {
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        match self {
            Listener::Sockets(listener) => listener.local_addr(),
            Listener::Streams(listener) => listener.local_address(),
        }
    }

    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Listener::Sockets(listener) => {
                let (socket, peer) = listener.accept().await?;
                // Replies leave at once: a client that waits for one must not wait for Nagle's timer as well.
                socket.set_nodelay(true)?;
                Ok((Stream::new(Transport::Socket(socket)), peer))
            }
            Listener::Streams(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::new(Transport::Halves(Halves::new(stream))), peer))
            }
        }
    }
}

/// What carries a connection's bytes.
#[derive(Debug)]
enum Transport {
    Socket(TcpStream),
    Halves(Halves),
}

/// One client's connection.
#[derive(Debug)]
pub struct Stream {
    transport: Transport,
    /// Bytes that the socket has taken, in all.
    written: AtomicU64,
}

impl Stream {
    fn new(transport: Transport) -> Self {
        Self { transport, written: AtomicU64::new(0) }
    }

    /// Bytes that the socket has taken, in all: what tells a slow reader from one that has stopped.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Waits until bytes are there to read (or the peer is gone). Holds no buffer while it waits.
    pub async fn readable(&self) -> io::Result<()> {
        match &self.transport {
            Transport::Socket(socket) => socket.readable().await,
            Transport::Halves(halves) => halves.readable().await,
        }
    }

    /// Reads what is there, at most `limit` bytes, behind what `buffer` holds. Returns 0 when the peer will send no
    /// more, and `WouldBlock` when nothing is there yet.
    pub fn try_read(&self, buffer: &mut BytesMut, limit: usize) -> io::Result<usize> {
        match &self.transport {
            Transport::Socket(socket) => socket.try_read_buf(&mut bytes::BufMut::limit(buffer, limit)),
            Transport::Halves(halves) => halves.try_read(buffer, limit),
        }
    }

    /// Writes all of `chunks`, in order. Bytes and small batches leave together; large ones go from the page cache to
    /// the socket.
    pub async fn write(&self, chunks: Vec<Chunk>) -> io::Result<()> {
        let mut waiting: Vec<Bytes> = Vec::new();
        let mut copied = 0;
        for chunk in chunks {
            match chunk {
                Chunk::Bytes(bytes) | Chunk::Records(bytes) => waiting.push(bytes),
                Chunk::Log(slice) => {
                    if copied + slice.len > COPIED_BYTES_MAX {
                        self.write_bytes(&mut waiting).await?;
                        copied = 0;
                    }
                    match (&self.transport, slice.file.as_deref().and_then(DiskFile::file)) {
                        (Transport::Socket(socket), Some(file)) if slice.len > COPIED_BYTES_MAX => {
                            self.send_file(socket, file, &slice).await?;
                        }
                        _ => {
                            copied += slice.len;
                            waiting.push(slice.read()?);
                        }
                    }
                }
            }
        }
        self.write_bytes(&mut waiting).await
    }

    async fn write_bytes(&self, waiting: &mut Vec<Bytes>) -> io::Result<()> {
        let socket = match &self.transport {
            Transport::Socket(socket) => socket,
            Transport::Halves(halves) => {
                for bytes in waiting.drain(..) {
                    halves.write(bytes, |count| self.count(count)).await?;
                }
                return Ok(());
            }
        };
        let mut first = 0;
        while first < waiting.len() {
            let slices: Vec<io::IoSlice<'_>> =
                waiting[first..].iter().take(64).map(|bytes| io::IoSlice::new(bytes)).collect();
            let mut written = match socket.try_write_vectored(&slices) {
                Ok(0) if slices.iter().any(|slice| !slice.is_empty()) => {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.writable().await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.count(written);
            while first < waiting.len() && written >= waiting[first].len() {
                written -= waiting[first].len();
                first += 1;
            }
            if first < waiting.len() {
                waiting[first].advance(written);
            }
        }
        waiting.clear();
        Ok(())
    }

    fn count(&self, written: usize) {
        self.written.fetch_add(written as u64, Ordering::Relaxed);
    }

    async fn send_file(&self, socket: &TcpStream, file: &File, slice: &LogSlice) -> io::Result<()> {
        let mut offset = slice.position;
        let end = offset + slice.len as u64;
        while offset < end {
            let count = ((end - offset) as usize).min(SENDFILE_BYTES_MAX);
            let sent = socket
                .async_io(Interest::WRITABLE, || {
                    rustix::fs::sendfile(socket.as_fd(), file, Some(&mut offset), count)
                        .map_err(io::Error::from)
                })
                .await?;
            self.count(sent);
            if sent == 0 {
                // The frame's length has been sent already: only closing the connection tells the client the truth.
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "a log file ended before its slice",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use firn_storage::disk::{Disk, OpenMode};
    use firn_storage::real_disk::RealDisk;
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Sizes of an accepted connection's buffers (send, receive), as the kernel tells them: twice what was asked for.
    async fn sizes(options: SocketOptions) -> (usize, usize) {
        let listener = SystemNetwork.bind("127.0.0.1:0".parse().unwrap(), options).unwrap();
        let client = TcpStream::connect(listener.local_address().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let (Stream { transport: Transport::Socket(stream), .. }, _) = accepted.unwrap() else {
            panic!("no socket")
        };
        drop(client.unwrap());
        (
            rustix::net::sockopt::socket_send_buffer_size(&stream).unwrap(),
            rustix::net::sockopt::socket_recv_buffer_size(&stream).unwrap(),
        )
    }

    #[tokio::test]
    async fn connections_have_the_buffers_that_were_configured() {
        let options = SocketOptions {
            backlog: 50,
            send_buffer_bytes: Some(20_000),
            receive_buffer_bytes: Some(30_000),
        };
        assert_eq!(sizes(options).await, (40_000, 60_000));
        let (send, receive) =
            sizes(SocketOptions { send_buffer_bytes: None, receive_buffer_bytes: None, ..options }).await;
        assert!(send > 40_000 && receive > 60_000, "the system's own: {send}, {receive}");
    }

    /// Small batches are copied and large ones sent from the file: either way the client gets every byte in its place,
    /// however the sizes follow each other.
    #[tokio::test]
    async fn a_reply_of_bytes_and_batches_of_any_size_arrives_in_order() {
        let log: Vec<u8> = (0..200_000u32).flat_map(|number| number.to_be_bytes()).collect();
        let path = std::env::temp_dir().join(format!("firn-net-{}", std::process::id()));
        std::fs::write(&path, &log).unwrap();
        let file = RealDisk.open(&path, OpenMode::Read).unwrap();
        std::fs::remove_file(&path).unwrap();
        let lengths =
            [0, 1, 700, COPIED_BYTES_MAX - 701, 1, COPIED_BYTES_MAX, COPIED_BYTES_MAX + 1, 5, 400_000, 9];
        let (mut chunks, mut expected, mut position) = (Vec::new(), Vec::new(), 0);
        for len in lengths {
            chunks.push(Chunk::Bytes(Bytes::from(format!("batch of {len}:"))));
            expected.extend_from_slice(format!("batch of {len}:").as_bytes());
            chunks.push(Chunk::Log(LogSlice::of_file(file.clone(), position, len)));
            expected.extend_from_slice(&log[position as usize..position as usize + len]);
            position += len as u64;
        }
        let options = SocketOptions { backlog: 1, send_buffer_bytes: None, receive_buffer_bytes: None };
        let listener = SystemNetwork.bind("127.0.0.1:0".parse().unwrap(), options).unwrap();
        let client = TcpStream::connect(listener.local_address().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let (mut client, (stream, _)) = (client.unwrap(), accepted.unwrap());
        let mut arrived = Vec::new();
        let write = async move {
            stream.write(chunks).await.unwrap();
            stream.written()
        };
        let (written, read) = tokio::join!(write, client.read_to_end(&mut arrived));
        assert_eq!((written, read.unwrap()), (expected.len() as u64, expected.len()));
        assert!(arrived == expected, "bytes are out of their place");
    }
}
