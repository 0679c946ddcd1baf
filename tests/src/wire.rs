//! Bytes on a socket, below any client library: for readiness, and for input that no client would send.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const IO_DEADLINE: Duration = Duration::from_secs(10);

/// Puts Kafka's size in front of a request.
pub fn framed(request: &[u8]) -> Vec<u8> {
    let mut frame = (request.len() as i32).to_be_bytes().to_vec();
    frame.extend_from_slice(request);
    frame
}

/// A request header, version 1, and a body.
pub fn request(api_key: i16, version: i16, correlation_id: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&api_key.to_be_bytes());
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&correlation_id.to_be_bytes());
    bytes.extend_from_slice(&4i16.to_be_bytes());
    bytes.extend_from_slice(b"test");
    bytes.extend_from_slice(body);
    bytes
}

/// A connection with deadlines on every read and write.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
}

impl Connection {
    pub fn open(address: &str) -> std::io::Result<Connection> {
        let address: SocketAddr = address.parse().expect("a numeric address");
        let stream = TcpStream::connect_timeout(&address, IO_DEADLINE)?;
        stream.set_read_timeout(Some(IO_DEADLINE))?;
        stream.set_write_timeout(Some(IO_DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream })
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next answer without its size; an error once the peer has closed.
    pub fn receive(&mut self) -> std::io::Result<Vec<u8>> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let size = i32::from_be_bytes(size);
        assert!((0..=100 << 20).contains(&size), "an answer of {size} bytes");
        let mut answer = vec![0; size as usize];
        self.stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    /// Sends one framed request and gives the answer after its correlation id.
    pub fn ask(&mut self, api_key: i16, version: i16, body: &[u8]) -> std::io::Result<Vec<u8>> {
        const CORRELATION_ID: i32 = 77;
        self.send(&framed(&request(api_key, version, CORRELATION_ID, body)))?;
        let answer = self.receive()?;
        assert_eq!(answer.get(..4), Some(&CORRELATION_ID.to_be_bytes()[..]), "the correlation id comes back");
        Ok(answer[4..].to_vec())
    }

    /// Whether the peer has closed the connection (or does so within the deadline) without another byte.
    pub fn closed_by_peer(&mut self) -> bool {
        let mut rest = [0; 1];
        match self.stream.read(&mut rest) {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// Whether a broker answers ApiVersions there now.
pub fn answers(address: &str) -> bool {
    let ask = || Connection::open(address)?.ask(18, 0, &[]);
    ask().is_ok_and(|answer| answer.starts_with(&[0, 0]))
}

/// The value of one sample in a broker's `/metrics`, summed over its labels; None when there is no such name.
pub fn metric(http_address: &str, name: &str) -> Option<f64> {
    let (status, body) = http_get(http_address, "/metrics").expect("the side port answers");
    assert_eq!(status, 200, "{body}");
    let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let samples = body.lines().filter(is_it);
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
    samples.map(|line| value(line).expect("a sample")).reduce(|sum, value| sum + value)
}

/// One GET over HTTP: status and body.
pub fn http_get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut connection = Connection::open(address)?;
    connection
        .send(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    connection.stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Ok((status, body.to_owned()))
}
