//! One connection to one broker: pipelined requests, versions negotiated once, a deadline on every call.
//!
//! A single task owns the stream. Callers queue whole frames, so a call that is dropped half way never leaves half a
//! frame on the wire. A broker answers in the order of the requests; a reply out of order ends the connection, since
//! every later reply would be misread.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader,
};
use firn_protocol::library::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use firn_protocol::{bounds, versions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::error::Error;

/// Requests that may wait for the stream before callers wait for room.
const QUEUED_REQUESTS_MAX: usize = 64;
/// The first version with flexible fields, which every broker since Kafka 2.4 serves.
const API_VERSIONS_VERSION: i16 = 3;

/// Limits and identity of a connection.
#[derive(Debug, Clone)]
pub struct ConnectionOptions {
    pub client_id: String,
    /// How long connecting, and each call, may take.
    pub deadline: Duration,
    /// The longest reply that is read, in bytes; a longer one ends the connection.
    pub frame_bytes_max: usize,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            client_id: "firn".to_owned(),
            deadline: Duration::from_secs(30),
            frame_bytes_max: 128 * 1024 * 1024,
        }
    }
}

/// A live connection. Dropping it closes the stream.
#[derive(Debug)]
pub struct Connection {
    peer: String,
    options: ConnectionOptions,
    requests: mpsc::Sender<Queued>,
    state: Arc<Mutex<State>>,
    versions: BTreeMap<i16, (i16, i16)>,
    task: AbortHandle,
}

impl Drop for Connection {
    /// A peer that reads nothing would otherwise hold the stream, and what is being written to it.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The next correlation id is taken by the task that writes, so that ids follow the order on the wire.
#[derive(Debug)]
struct Queued {
    /// Size, header and body, with room for the correlation id.
    frame: BytesMut,
    reply: oneshot::Sender<Bytes>,
    /// False for what a broker does not answer: the reply is then empty, and comes when the frame is on its way.
    answered: bool,
}

#[derive(Debug, Default)]
struct State {
    in_flight: VecDeque<(i32, oneshot::Sender<Bytes>)>,
    ended: Option<String>,
}

/// The length of a frame's size.
const SIZE_BYTES: usize = 4;
/// Where the correlation id lies in a frame: after size, api key and version.
const CORRELATION_ID_AT: usize = SIZE_BYTES + 4;

impl Connection {
    /// Connects over TCP and learns which versions the broker speaks.
    #[expect(
        clippy::disallowed_types,
        reason = "[`Self::over`] is the seam: this is the machine's own network"
    )]
    pub async fn connect(address: &str, options: ConnectionOptions) -> Result<Self, Error> {
        check_address(address)?;
        let failed = |reason: String| Error::Connect { address: address.to_owned(), reason };
        let stream = timeout(options.deadline, tokio::net::TcpStream::connect(address))
            .await
            .map_err(|_| failed(format!("no answer within {} ms", options.deadline.as_millis())))?
            .map_err(|error| failed(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
        Self::over(stream, address.to_owned(), options).await
    }

    /// Speaks Kafka over any stream: the seam for TLS and for simulated networks.
    pub async fn over<S>(stream: S, peer: String, options: ConnectionOptions) -> Result<Self, Error>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let mut connection = Self::unnegotiated(stream, peer, options);
        connection.versions = connection.negotiate().await?;
        Ok(connection)
    }

    /// The same without a word about versions: for `send` alone.
    pub fn unnegotiated<S>(stream: S, peer: String, options: ConnectionOptions) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (requests, queue) = mpsc::channel(QUEUED_REQUESTS_MAX);
        let state = Arc::new(Mutex::new(State::default()));
        let task = tokio::spawn(run(stream, queue, Arc::clone(&state), options.frame_bytes_max));
        let task = task.abort_handle();
        Self { peer, options, requests, state, versions: BTreeMap::new(), task }
    }

    /// The version in which a request of this kind would be sent.
    pub fn version_of<R: Request>(&self) -> Result<i16, Error> {
        let common = self.versions.get(&R::KEY).and_then(|(first, last)| {
            let known = R::VERSIONS.max;
            let newest = ApiKey::try_from(R::KEY).map_or(known, |api| versions::newest(api, known));
            let version = newest.min(*last);
            (version >= R::VERSIONS.min.max(*first)).then_some(version)
        });
        common.ok_or_else(|| Error::Unsupported { peer: self.peer.clone(), api: api_name(R::KEY) })
    }

    /// Sends a request in the newest common version and waits for its reply.
    pub async fn call<R: Request>(&self, request: &R) -> Result<R::Response, Error> {
        self.call_within(request, self.options.deadline).await
    }

    /// As `call`, for what a broker holds back on purpose, or what is worth less patience.
    pub async fn call_within<R: Request>(
        &self,
        request: &R,
        deadline: Duration,
    ) -> Result<R::Response, Error> {
        let version = self.version_of::<R>()?;
        let frame = self.frame(request, version)?;
        let mut reply = self.exchange(R::KEY, frame, true, deadline).await?;
        ResponseHeader::decode(&mut reply, R::Response::header_version(version))
            .map_err(|error| self.malformed(R::KEY, &error))?;
        self.decode(R::KEY, version, reply)
    }

    /// Sends a request that brokers do not answer, which is a Produce with `acks=0`, and waits until it is written.
    pub async fn tell<R: Request>(&self, request: &R) -> Result<(), Error> {
        let frame = self.frame(request, self.version_of::<R>()?)?;
        self.exchange(R::KEY, frame, false, self.options.deadline).await.map(drop)
    }

    /// Sends a body to an API of which this crate knows nothing, and returns that of the reply. Its headers are those of
    /// before flexible versions.
    pub async fn send(
        &self,
        key: i16,
        version: i16,
        body: &[u8],
        deadline: Duration,
    ) -> Result<Bytes, Error> {
        let header = self.header(key, version);
        let frame = self.framed(key, |bytes| header.encode(bytes, 1).map(|()| bytes.put_slice(body)))?;
        let mut reply = self.exchange(key, frame, true, deadline).await?;
        ResponseHeader::decode(&mut reply, 0).map_err(|error| self.malformed(key, &error))?;
        Ok(reply)
    }

    /// Whether calls may still be answered.
    pub fn is_open(&self) -> bool {
        lock(&self.state).ended.is_none()
    }

    async fn negotiate(&self) -> Result<BTreeMap<i16, (i16, i16)>, Error> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("firn"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let key = ApiVersionsRequest::KEY;
        let frame = self.frame(&request, API_VERSIONS_VERSION)?;
        let mut reply = self.exchange(key, frame, true, self.options.deadline).await?;
        ResponseHeader::decode(&mut reply, 0).map_err(|error| self.malformed(key, &error))?;
        // A broker that does not speak this version answers in version 0, with its own versions (KIP-511).
        let refused = reply.get(..2) == Some(&ResponseError::UnsupportedVersion.code().to_be_bytes()[..]);
        let version = if refused { 0 } else { API_VERSIONS_VERSION };
        let versions: ApiVersionsResponse = self.decode(key, version, reply)?;
        if !refused {
            crate::error::check(versions.error_code, None, || {
                format!("learn the versions of {}", self.peer)
            })?;
        }
        Ok(versions.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect())
    }

    /// Returns the reply from its correlation id on.
    async fn exchange(
        &self,
        key: i16,
        frame: BytesMut,
        answered: bool,
        deadline: Duration,
    ) -> Result<Bytes, Error> {
        let (reply, replied) = oneshot::channel();
        let exchange = async {
            self.requests.send(Queued { frame, reply, answered }).await.map_err(|_| self.closed())?;
            replied.await.map_err(|_| self.closed())
        };
        timeout(deadline, exchange).await.map_err(|_| Error::Timeout {
            peer: self.peer.clone(),
            api: api_name(key),
            deadline_ms: deadline.as_millis(),
        })?
    }

    /// A broker is not trusted with lengths: what would take unreasonably more memory than was sent is an error.
    fn decode<T: Decodable>(&self, key: i16, version: i16, mut body: Bytes) -> Result<T, Error> {
        let version = spelled(key, version);
        if let Ok(api) = ApiKey::try_from(key) {
            bounds::check_response(api, version, &body).map_err(|error| self.malformed(key, &error))?;
        }
        T::decode(&mut body, version).map_err(|error| self.malformed(key, &error))
    }

    fn frame<R: Request>(&self, request: &R, version: i16) -> Result<BytesMut, Error> {
        let header = self.header(R::KEY, version);
        self.framed(R::KEY, |bytes| {
            header.encode(bytes, R::header_version(version))?;
            request.encode(bytes, spelled(R::KEY, version))
        })
    }

    fn header(&self, key: i16, version: i16) -> RequestHeader {
        RequestHeader::default()
            .with_request_api_key(key)
            .with_request_api_version(version)
            .with_client_id(Some(StrBytes::from_string(self.options.client_id.clone())))
    }

    /// What `encode` writes, behind its size.
    fn framed<E: ToString>(
        &self,
        key: i16,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<BytesMut, Error> {
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        encode(&mut frame).map_err(|error| self.malformed(key, &error))?;
        let size = i32::try_from(frame.len() - SIZE_BYTES).map_err(|error| self.malformed(key, &error))?;
        let mut place = &mut frame[..SIZE_BYTES];
        place.put_i32(size);
        Ok(frame)
    }

    fn closed(&self) -> Error {
        let reason = lock(&self.state).ended.clone().unwrap_or_else(|| "the connection is closed".to_owned());
        Error::Closed { peer: self.peer.clone(), reason }
    }

    fn malformed(&self, key: i16, reason: &impl ToString) -> Error {
        Error::Malformed { peer: self.peer.clone(), api: api_name(key), reason: reason.to_string() }
    }
}

/// What people write in place of `host:port`, told in words rather than by a resolver that fails.
fn check_address(address: &str) -> Result<(), Error> {
    let refuse = |reason| Err(Error::Address { address: address.to_owned(), reason });
    if let Some((scheme, rest)) = address.split_once("://") {
        return refuse(format!("leave '{scheme}://' away, it is HOST:PORT alone, for example {rest}"));
    }
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(()),
        Some((_, port)) if !port.chars().all(|letter| letter.is_ascii_digit()) || port.is_empty() => {
            refuse(format!("'{port}' is no port: it is HOST:PORT, for example 127.0.0.1:9092"))
        }
        Some(_) => refuse("it is HOST:PORT, for example 127.0.0.1:9092, with a port up to 65535".to_owned()),
        None => refuse(format!("it has no port, for example {address}:9092")),
    }
}

/// The version as which the library spells `version`.
fn spelled(key: i16, version: i16) -> i16 {
    ApiKey::try_from(key).map_or(version, |api| versions::spelled_as(api, version))
}

fn api_name(key: i16) -> String {
    ApiKey::try_from(key).map_or_else(|()| format!("API {key}"), |api| format!("{api:?}"))
}

/// The state is whole between any two statements that hold the lock, so a poisoned lock is safe to go on with.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run<S>(stream: S, queue: mpsc::Receiver<Queued>, state: Arc<Mutex<State>>, frame_bytes_max: usize)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    let reason = tokio::select! {
        reason = write_requests(writer, queue, &state) => reason,
        reason = read_replies(reader, &state, frame_bytes_max) => reason,
    };
    let mut state = lock(&state);
    state.ended = Some(reason);
    state.in_flight.clear();
}

async fn write_requests<W: AsyncWrite>(
    writer: W,
    mut queue: mpsc::Receiver<Queued>,
    state: &Mutex<State>,
) -> String {
    let mut writer = std::pin::pin!(writer);
    let mut correlation_id = 0_i32;
    while let Some(Queued { mut frame, reply, answered }) = queue.recv().await {
        correlation_id = correlation_id.wrapping_add(1);
        if let Some(mut place) = frame.get_mut(CORRELATION_ID_AT..CORRELATION_ID_AT + 4) {
            place.put_i32(correlation_id);
        }
        let mut unanswered = Some(reply);
        if let Some(reply) = unanswered.take_if(|_| answered) {
            lock(state).in_flight.push_back((correlation_id, reply));
        }
        if let Err(error) = writer.write_all(&frame).await {
            return error.to_string();
        }
        if let Err(error) = writer.flush().await {
            return error.to_string();
        }
        if let Some(reply) = unanswered {
            drop(reply.send(Bytes::new()));
        }
    }
    "the client closed it".to_owned()
}

async fn read_replies<R: AsyncRead>(reader: R, state: &Mutex<State>, frame_bytes_max: usize) -> String {
    let mut reader = std::pin::pin!(reader);
    loop {
        let size = match reader.read_i32().await {
            Ok(size) => size,
            Err(error) => return error.to_string(),
        };
        if size.to_be_bytes() == *b"HTTP" {
            return "it speaks HTTP, not Kafka: that may be the port of its metrics".to_owned();
        }
        let Some(length) = usize::try_from(size).ok().filter(|length| (4..=frame_bytes_max).contains(length))
        else {
            return format!("a reply of {size} bytes is outside 4 to {frame_bytes_max}");
        };
        // Room is made as the bytes come, not as the length claims.
        let mut frame = Vec::new();
        match (&mut reader).take(length as u64).read_to_end(&mut frame).await {
            Ok(read) if read == length => {}
            Ok(read) => return format!("the stream ended after {read} of {length} bytes of a reply"),
            Err(error) => return error.to_string(),
        }
        let frame = Bytes::from(frame);
        let found = frame.clone().get_i32();
        let Some((expected, reply)) = lock(state).in_flight.pop_front() else {
            return format!("reply {found} answers no request");
        };
        if expected != found {
            return format!("reply {found} came where {expected} was due");
        }
        // Who no longer waits has met its deadline: the reply is of no use to anyone.
        drop(reply.send(frame));
    }
}

#[cfg(test)]
mod tests;
