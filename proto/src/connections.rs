//! Connections to other processes, and within this one.
//!
//! Owns the cache of connections, each call's bearer token, and the explanation why a process cannot be
//! reached. An endpoint is `http://host:port`, `https://host:port`, `unix:/path/to/socket`, or `local:name`
//! for a service in this process.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::{Channel, Endpoint};

use crate::diagnosis::explain;
use crate::security::{AuthToken, ClientSecurity};
use crate::transport::{CONNECTION_WINDOW_NUM_BYTES, Keepalive, STREAM_WINDOW_NUM_BYTES};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection without a call for this long is forgotten: replicas come and go under new addresses. Streams
/// that run over it continue.
const MAX_IDLE: Duration = Duration::from_secs(600);

/// Connections to a local service that wait to be accepted.
const LOCAL_BACKLOG: usize = 16;
/// Bytes in flight over a local connection, each way.
const LOCAL_BUFFER_NUM_BYTES: usize = 1 << 20;

const NO_PANIC: &str = "no holder of this lock panics";

/// An endpoint that cannot be connected to in any case.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEndpoint {
    /// It is not a URI.
    #[error(
        "`{endpoint}` is not an endpoint: write http://host:port, https://host:port or unix:/path/to/socket"
    )]
    Syntax {
        /// The given text.
        endpoint: String,
        /// The parser's error.
        #[source]
        source: tonic::transport::Error,
    },
    /// The endpoint is of an unknown kind.
    #[error(
        "`{endpoint}` is not an endpoint: write http://host:port, https://host:port or unix:/path/to/socket"
    )]
    Scheme {
        /// The given text.
        endpoint: String,
    },
    /// The endpoint needs TLS, but this process trusts no authority.
    #[error(
        "`{endpoint}` needs TLS: name the authority of its certificate by --tls-ca, or write http:// if it \
         has none"
    )]
    NoAuthority {
        /// The given text.
        endpoint: String,
    },
    /// The endpoint is plain, but this process must use TLS.
    #[error("`{endpoint}` is not encrypted, but --tls-ca is given: write https://, or leave --tls-ca away")]
    NotEncrypted {
        /// The given text.
        endpoint: String,
    },
    /// No service of this process has that name.
    #[error("`{endpoint}` is not a service of this process")]
    UnknownLocal {
        /// The given text.
        endpoint: String,
    },
}

/// Connections by endpoint. Each is made at its first use, shared by all streams, and made again when it is
/// lost. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    security: ClientSecurity,
    keepalive: Keepalive,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    channels: HashMap<String, CachedChannel>,
    local_services: HashMap<String, mpsc::Sender<io::Result<DuplexStream>>>,
}

#[derive(Debug)]
struct CachedChannel {
    channel: Channel,
    last_asked_for: Instant,
}

/// A connection for a generated client. Calls over it carry the bearer token. A call that cannot be made ends
/// with a status that says what to check.
#[derive(Debug, Clone)]
pub struct Connection {
    channel: Channel,
    endpoint: Arc<str>,
    token: Option<AuthToken>,
}

impl Connections {
    /// Connections with the credentials and the trust of `security`.
    #[must_use]
    pub fn new(security: ClientSecurity) -> Self {
        Self::with_keepalive(security, Keepalive::default())
    }

    pub(crate) fn with_keepalive(security: ClientSecurity, keepalive: Keepalive) -> Self {
        Self { shared: Arc::new(Shared { security, keepalive, state: Mutex::default() }) }
    }

    /// The scheme of network endpoints for addresses that were looked up: `https` with `--tls-ca`, else
    /// `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.shared.security.tls.is_some() { "https" } else { "http" }
    }

    /// The connection to `endpoint`. Does not wait: the first call over it connects. Must be called on a
    /// tokio runtime.
    ///
    /// # Errors
    /// `endpoint` is no endpoint, or its scheme contradicts the security flags.
    pub fn to(&self, endpoint: &str) -> Result<Connection, InvalidEndpoint> {
        let now = Instant::now();
        // The lock is held for a map look-up or the parsing of a URI, never across an await.
        let mut state = self.shared.state.lock().expect(NO_PANIC);
        let channel = match state.channels.get_mut(endpoint) {
            Some(cached) => {
                cached.last_asked_for = now;
                cached.channel.clone()
            }
            None => {
                let channel = self.open(endpoint, &state)?;
                state.channels.retain(|_, cached| now - cached.last_asked_for < MAX_IDLE);
                let cached = CachedChannel { channel: channel.clone(), last_asked_for: now };
                state.channels.insert(endpoint.to_owned(), cached);
                channel
            }
        };
        // Only network peers need a token; within one machine, the file system or the process protects a
        // service.
        let token = self.shared.security.token.clone().filter(|_| endpoint.starts_with("http"));
        Ok(Connection { channel, endpoint: endpoint.into(), token })
    }

    /// Makes `local:name` an endpoint of these connections and their clones, and returns the incoming
    /// connections for a server. Nothing is visible outside of the process.
    pub fn listen_locally(&self, name: &str) -> ReceiverStream<io::Result<DuplexStream>> {
        let (connect, incoming) = mpsc::channel(LOCAL_BACKLOG);
        self.shared.state.lock().expect(NO_PANIC).local_services.insert(format!("local:{name}"), connect);
        ReceiverStream::new(incoming)
    }

    fn open(&self, endpoint: &str, state: &State) -> Result<Channel, InvalidEndpoint> {
        let named = || endpoint.to_owned();
        match endpoint.split_once(':') {
            Some(("local", _)) => {
                let connect = state.local_services.get(endpoint);
                let connect = connect.ok_or_else(|| InvalidEndpoint::UnknownLocal { endpoint: named() })?;
                Ok(self
                    .settings(Endpoint::from_static("http://local"))
                    .connect_with_connector_lazy(tower::service_fn(local_connector(connect.clone()))))
            }
            Some(("unix" | "http", _)) => {
                if endpoint.starts_with("http") && self.shared.security.tls.is_some() {
                    return Err(InvalidEndpoint::NotEncrypted { endpoint: named() });
                }
                Ok(self.settings(parse(endpoint)?).connect_lazy())
            }
            Some(("https", _)) => {
                let tls = self.shared.security.tls.clone();
                let tls = tls.ok_or_else(|| InvalidEndpoint::NoAuthority { endpoint: named() })?;
                let secured = parse(endpoint)?.tls_config(tls);
                let secured =
                    secured.map_err(|source| InvalidEndpoint::Syntax { endpoint: named(), source })?;
                Ok(self.settings(secured).connect_lazy())
            }
            _ => Err(InvalidEndpoint::Scheme { endpoint: named() }),
        }
    }

    fn settings(&self, endpoint: Endpoint) -> Endpoint {
        let Keepalive { interval, timeout } = self.shared.keepalive;
        endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_NUM_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_NUM_BYTES)
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .keep_alive_while_idle(true)
    }
}

fn parse(endpoint: &str) -> Result<Endpoint, InvalidEndpoint> {
    Endpoint::from_shared(endpoint.to_owned())
        .map_err(|source| InvalidEndpoint::Syntax { endpoint: endpoint.to_owned(), source })
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<DuplexStream>>> + Send>>;

fn local_connector(
    connect: mpsc::Sender<io::Result<DuplexStream>>,
) -> impl FnMut(http::Uri) -> Connecting + Send + 'static {
    move |_| {
        let connect = connect.clone();
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(LOCAL_BUFFER_NUM_BYTES);
            let sent = connect.send(Ok(theirs)).await;
            sent.map_err(|_| io::Error::new(io::ErrorKind::ConnectionRefused, "the service has ended"))?;
            Ok(TokioIo::new(ours))
        })
    }
}

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.channel.poll_ready(context).map_err(|error| explain(&self.endpoint, &error))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(token) = &self.token {
            token.inject(request.headers_mut());
        }
        let response = self.channel.call(request);
        let endpoint = Arc::clone(&self.endpoint);
        Box::pin(async move { response.await.map_err(|error| explain(&endpoint, &error)) })
    }
}

#[cfg(test)]
mod tests;
