//! One setting of tonic for all of Baton's processes: message sizes, HTTP/2 windows, keepalive.

use std::time::Duration;

use tonic::transport::Server;

use crate::{SecurityError, ServerSecurity};

/// Largest accepted message: gRPC's customary limit.
pub const MAX_MESSAGE_NUM_BYTES: usize = 4 << 20;

/// Payload after which a sender begins a new message, far enough below the limit to leave room for framing
/// and metadata.
pub const TARGET_MESSAGE_NUM_BYTES: usize = 1 << 20;

/// Maximum of entries in a shard, as in the job spec; a service is prepared to hold this many places.
pub const MAX_ENTRIES_PER_SHARD: u32 = 65_536;

/// Bytes that a stream may have in flight unread. This is the queue between an encoder and its decoder. A
/// larger one hides more latency, and costs this much memory per shard in flight.
pub(crate) const STREAM_WINDOW_NUM_BYTES: u32 = 1 << 20;

/// The same for all streams of a connection, so that a dozen stalled shards do not stall the others.
pub(crate) const CONNECTION_WINDOW_NUM_BYTES: u32 = 16 << 20;

/// Streams of one connection that a server works on at once. A coordinator has one connection to each
/// encoder, an encoder one to each decoder. Services bound their open shards themselves, so this only stops a
/// runaway caller.
const MAX_STREAMS_PER_CONNECTION: u32 = 4096;

/// Detects a peer that has vanished without closing its socket, on both sides: by HTTP/2 pings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keepalive {
    /// A ping is sent after this long without received data.
    pub(crate) interval: Duration,
    /// A ping that is not answered within this time ends the connection, and all its streams.
    pub(crate) timeout: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), timeout: Duration::from_secs(10) }
    }
}

/// A server with Baton's settings, to which services are added.
///
/// # Errors
/// The certificates cannot be used.
pub fn server(security: &ServerSecurity) -> Result<Server, SecurityError> {
    let Keepalive { interval, timeout } = Keepalive::default();
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_NUM_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_NUM_BYTES)
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(interval))
        .http2_keepalive_timeout(Some(timeout));
    match security.tls.clone() {
        None => Ok(server),
        Some(tls) => server.tls_config(tls).map_err(SecurityError::server_tls),
    }
}
