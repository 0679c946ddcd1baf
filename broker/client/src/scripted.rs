//! A broker of few words, for tests: it answers frames over TCP as a test tells it to.

use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use firn_protocol::library::messages::api_versions_response::ApiVersion;
use firn_protocol::library::messages::{ApiKey, ApiVersionsResponse, RequestHeader, ResponseHeader};
use firn_protocol::library::protocol::{Decodable, Encodable, HeaderVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One request as it came.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) api: ApiKey,
    version: i16,
    correlation_id: i32,
    body: Bytes,
}

impl Call {
    pub(crate) fn request<R: Decodable>(&self) -> R {
        R::decode(&mut self.body.clone(), self.version).unwrap()
    }

    pub(crate) fn reply<R: Encodable + HeaderVersion>(&self, reply: &R) -> Option<BytesMut> {
        let mut body = BytesMut::new();
        let header = ResponseHeader::default().with_correlation_id(self.correlation_id);
        header.encode(&mut body, R::header_version(self.version)).unwrap();
        reply.encode(&mut body, self.version).unwrap();
        Some(body)
    }
}

/// What a test answers to a call: header and body of a reply, or none to hang up.
pub(crate) type Script = Box<dyn FnMut(&Call) -> Option<BytesMut> + Send>;

/// Listens on a port of its own, for as many connections as come, and gives its `host:port`. It speaks the newest
/// version of `apis` that the library does.
pub(crate) async fn listen(apis: &'static [ApiKey], script: impl FnOnce(&str) -> Script) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let script = Arc::new(Mutex::new(script(&address)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, apis, Arc::clone(&script)));
        }
    });
    address
}

async fn serve(mut stream: TcpStream, apis: &'static [ApiKey], script: Arc<Mutex<Script>>) {
    while let Ok(length) = stream.read_u32().await {
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await.unwrap();
        let mut body = Bytes::from(frame);
        let key = i16::from_be_bytes([body[0], body[1]]);
        let version = i16::from_be_bytes([body[2], body[3]]);
        let api = ApiKey::try_from(key).unwrap();
        let header = RequestHeader::decode(&mut body, api.request_header_version(version)).unwrap();
        let call = Call { api, version, correlation_id: header.correlation_id, body };
        let reply = match api {
            ApiKey::ApiVersions => call.reply(&versions(apis)),
            _ => script.lock().unwrap()(&call),
        };
        let Some(reply) = reply else { return };
        let mut framed = BytesMut::new();
        framed.put_u32(u32::try_from(reply.len()).unwrap());
        framed.put_slice(&reply);
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}

fn versions(apis: &[ApiKey]) -> ApiVersionsResponse {
    let apis = apis.iter().map(|api| {
        let range = api.valid_versions();
        ApiVersion::default()
            .with_api_key(*api as i16)
            .with_min_version(range.min)
            .with_max_version(range.max)
    });
    ApiVersionsResponse::default().with_api_keys(apis.collect())
}
