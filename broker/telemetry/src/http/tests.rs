//! What the doors answer, and what they do not put up with. The clock is stopped: it moves on when nothing else does.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;

/// Longer than anyone may be late.
const EVER: Duration = Duration::from_secs(600);

struct Ailing;

impl Observed for Ailing {
    fn metrics(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>> {
        // More than any socket takes without being read.
        Box::pin(async { format!("{}up 1\n", "# a comment\n".repeat(2 << 20)) })
    }

    fn healthy(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Err("the log directory /data failed".to_owned())
    }
}

async fn start(shutdown: impl Future<Output = ()> + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let doors = Doors::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = doors.address().unwrap();
    (address, tokio::spawn(serve(doors, Arc::new(Ailing), shutdown)))
}

async fn send(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn ask(address: SocketAddr, path: &str) -> String {
    let mut stream =
        send(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

/// A connection that was answered, and stays.
async fn stay(address: SocketAddr) -> TcpStream {
    let mut stream = send(address, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut reply = Vec::new();
    while !reply.ends_with(b"ok\n") {
        assert!(stream.read_buf(&mut reply).await.unwrap() > 0);
    }
    stream
}

#[tokio::test(start_paused = true)]
async fn the_doors_answer() {
    let (address, server) = start(std::future::pending()).await;
    let metrics = ask(address, "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.ends_with("up 1\n"));
    assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    let ready = ask(address, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("/data failed"), "{ready}");
    assert!(ask(address, "/other").await.starts_with("HTTP/1.1 404"));
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn who_sends_half_a_request_or_none_is_closed() {
    let (address, server) = start(std::future::pending()).await;
    for half in ["", "GET /met", "GET /metrics HTTP/1.1\r\nhost: "] {
        let mut stream = send(address, half).await;
        let mut reply = Vec::new();
        timeout(EVER, stream.read_to_end(&mut reply)).await.unwrap().ok();
    }
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn nobody_keeps_the_doors_from_closing() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (address, server) = start(async { drop(stopped.await) }).await;
    let half = send(address, "GET /metrics HTTP/1.1\r\nhost: ").await;
    let unread = send(address, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
    // Connections are accepted in their order.
    let idle = stay(address).await;
    stop.send(()).unwrap();
    timeout(LAST_ANSWER_PATIENCE * 2, server).await.unwrap().unwrap();
    drop((half, unread, idle));
}

#[tokio::test(start_paused = true)]
async fn only_so_many_are_served_at_a_time_and_the_next_when_one_has_gone() {
    let (address, server) = start(std::future::pending()).await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        held.push(stay(address).await);
    }
    let mut next = pin!(stay(address));
    assert!(timeout(Duration::from_secs(1), &mut next).await.is_err(), "one too many");
    drop(held.pop());
    timeout(Duration::from_secs(1), next).await.unwrap();
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_not_used_for_ever_nor_by_who_does_not_read() {
    let (address, server) = start(std::future::pending()).await;
    let mut unread = send(address, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
    sleep(CONNECTION_AGE_MAX + LAST_ANSWER_PATIENCE * 2).await;
    let mut reply = String::new();
    let read = timeout(EVER, unread.read_to_string(&mut reply)).await.unwrap();
    assert!(read.is_err() || !reply.ends_with("up 1\n"), "an answer that nobody read for so long is cut off");
    server.abort();
}
