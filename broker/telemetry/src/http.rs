//! The side doors: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever keeps the process alive.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

/// What is looked at through the doors.
pub trait Observed: Send + Sync + 'static {
    /// All metrics, in Prometheus' text format.
    fn metrics(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>>;
    /// `Err` says why the process should be started anew.
    fn healthy(&self) -> Result<(), String>;
    /// `Err` says why no client should be sent here.
    fn ready(&self) -> Result<(), String>;
}

/// Serves the doors on `listener` until `shutdown` resolves.
pub async fn serve(
    listener: TcpListener,
    observed: Arc<dyn Observed>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let doors = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(observed);
    axum::serve(listener, doors).with_graceful_shutdown(shutdown).await
}

/// Binds the address of the doors.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

async fn metrics(State(observed): State<Arc<dyn Observed>>) -> Response {
    let text = observed.metrics().await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn healthz(State(observed): State<Arc<dyn Observed>>) -> Response {
    answer(observed.healthy())
}

async fn readyz(State(observed): State<Arc<dyn Observed>>) -> Response {
    answer(observed.ready())
}

fn answer(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    struct Ailing;

    impl Observed for Ailing {
        fn metrics(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>> {
            Box::pin(async { "up 1\n".to_owned() })
        }

        fn healthy(&self) -> Result<(), String> {
            Ok(())
        }

        fn ready(&self) -> Result<(), String> {
            Err("the log directory /data failed".to_owned())
        }
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply
    }

    #[tokio::test]
    async fn the_doors_answer() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Arc::new(Ailing), std::future::pending()));
        let metrics = ask(address, "/metrics").await;
        assert!(metrics.starts_with("HTTP/1.1 200") && metrics.ends_with("up 1\n"), "{metrics}");
        assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let ready = ask(address, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("/data failed"), "{ready}");
        assert!(ask(address, "/other").await.starts_with("HTTP/1.1 404"));
        server.abort();
    }
}
