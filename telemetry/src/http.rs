//! The HTTP port: metrics for Prometheus, pages for probes, and further pages of a process.
//!
//! Plain HTTP without credentials, because the kubelet's probes and Prometheus use that. The pages show no
//! secrets.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::{MetricsRegistry, Readiness};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why there is no HTTP port.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for HTTP; choose another --http-listen, or `none`")]
pub struct HttpServerError {
    /// The address.
    pub address: SocketAddr,
    /// The cause.
    #[source]
    pub source: std::io::Error,
}

/// A bound HTTP port.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    local_address: SocketAddr,
    pages: Router,
}

impl HttpServer {
    /// Binds the port of `/metrics`, `/livez` and `/readyz`. Nothing is answered before
    /// [`serve`](Self::serve).
    ///
    /// # Errors
    /// The port cannot be bound.
    pub async fn bind(
        address: SocketAddr,
        metrics: MetricsRegistry,
        readiness: watch::Receiver<Readiness>,
    ) -> Result<Self, HttpServerError> {
        let failed = |source| HttpServerError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local_address = listener.local_addr().map_err(failed)?;
        let pages = Router::new()
            .route("/metrics", get(show_metrics).with_state(metrics))
            // A process that answers is alive: a model thread that dies ends its process.
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(show_readiness).with_state(readiness));
        Ok(Self { listener, local_address, pages })
    }

    /// The bound address, with the port that the system chose for port 0.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Adds pages.
    ///
    /// # Panics
    /// A page of that path exists.
    #[must_use]
    pub fn with_pages(self, pages: Router) -> Self {
        Self { pages: self.pages.merge(pages), ..self }
    }

    /// Serves until the future is dropped.
    pub async fn serve(self) {
        // Never ends, and reports failed accepts itself.
        let _ = axum::serve(self.listener, self.pages).await;
    }
}

async fn show_metrics(State(metrics): State<MetricsRegistry>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.to_text())
}

async fn show_readiness(State(readiness): State<watch::Receiver<Readiness>>) -> impl IntoResponse {
    match &*readiness.borrow() {
        Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Readiness::NotReady(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn page(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        page
    }

    #[tokio::test]
    async fn pages_follow_the_state_of_the_process() {
        let (state, readiness) = watch::channel(Readiness::not_ready("loading models"));
        let metrics = MetricsRegistry::new("encoder");
        let server = HttpServer::bind(([127, 0, 0, 1], 0).into(), metrics, readiness).await.unwrap();
        let address = server.local_address();
        let server = server.with_pages(Router::new().route("/hello", get(|| async { "hello" })));
        tokio::spawn(server.serve());

        assert!(page(address, "/livez").await.starts_with("HTTP/1.1 200"));
        let ready = page(address, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("loading models"), "{ready}");
        state.send_replace(Readiness::Ready);
        assert!(page(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        let metrics = page(address, "/metrics").await;
        assert!(metrics.contains("openmetrics-text") && metrics.contains("baton_build_info"), "{metrics}");
        assert!(page(address, "/hello").await.ends_with("hello"));
        assert!(page(address, "/other").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let (_state, readiness) = watch::channel(Readiness::Ready);
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = HttpServer::bind(address, MetricsRegistry::new("encoder"), readiness).await.unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
