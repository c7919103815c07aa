//! How Baton's processes are connected: one setting of tonic for all of them.
//!
//! Owns message sizes, HTTP/2 windows, keepalive, and the cache of connections. An endpoint is `http://host:port`, or
//! `unix:/path/to/socket` between roles on one machine.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use tonic::transport::{Channel, Endpoint, Server};

/// Largest message that is accepted: gRPC's customary limit.
pub const MAX_MESSAGE_NUM_BYTES: usize = 4 << 20;

/// Payload after which a sender begins a new message. Far enough under the limit that framing and metadata fit beside it.
pub const TARGET_MESSAGE_NUM_BYTES: usize = 1 << 20;

/// Bytes a stream may have in flight unread. This is the queue between an encoder and its decoder: larger hides more latency, and
/// costs this much memory per shard in flight.
const STREAM_WINDOW_NUM_BYTES: u32 = 1 << 20;

/// The same for all streams of a connection, so that a dozen stalled shards do not stall the others.
const CONNECTION_WINDOW_NUM_BYTES: u32 = 16 << 20;

/// A peer that has vanished without closing its socket is noticed after an interval and a timeout.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// An endpoint that is not a URI.
#[derive(Debug, thiserror::Error)]
#[error("`{endpoint}` is not an endpoint: write http://host:port or unix:/path/to/socket")]
pub struct InvalidEndpoint {
    /// What was given.
    pub endpoint: String,
    /// What the parser said.
    #[source]
    pub source: tonic::transport::Error,
}

/// Connections by endpoint, each made at its first use, shared by all streams, and made again by itself when lost.
#[derive(Debug, Default)]
pub struct Connections {
    channels: Mutex<HashMap<String, Channel>>,
}

impl Connections {
    /// The connection to `endpoint`. Does not wait: the first call over it connects.
    ///
    /// # Errors
    /// `endpoint` is not a URI.
    pub fn to(&self, endpoint: &str) -> Result<Channel, InvalidEndpoint> {
        // Held for a map look-up or the parsing of a URI, never across an await.
        let mut channels = self.channels.lock().expect("no holder of this lock panics");
        if let Some(channel) = channels.get(endpoint) {
            return Ok(channel.clone());
        }
        let channel = Endpoint::from_shared(endpoint.to_owned())
            .map_err(|source| InvalidEndpoint { endpoint: endpoint.to_owned(), source })?
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_NUM_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_NUM_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_lazy();
        channels.insert(endpoint.to_owned(), channel.clone());
        Ok(channel)
    }
}

/// A server with Baton's settings, to which services are added.
#[must_use]
pub fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_NUM_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_NUM_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}
