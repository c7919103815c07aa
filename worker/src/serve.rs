//! Serving gRPC beside a model thread, and the task that works on one shard.

use std::{fmt::Display, future::Future};

use baton_bundle::Bundle;
use baton_proto::wire::{ShardEvent, WorkerInfo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::Status;
use tonic::transport::server::{Connected, Router};
use tracing::{Instrument, Span};

use crate::{ModelThread, ModelThreadError};

/// Events that wait for a slow caller. They are totals, so a few suffice.
const EVENT_QUEUE: usize = 8;

/// Where a shard's task sends its events.
pub type EventSender = mpsc::Sender<Result<ShardEvent, Status>>;

/// Why a service ended that was not asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The server failed.
    #[error("the gRPC server failed")]
    Server {
        /// The cause.
        #[source]
        source: tonic::transport::Error,
    },
    /// The model thread died. The process should end: its shards are leased elsewhere.
    #[error(transparent)]
    ModelThread(#[from] ModelThreadError),
}

/// Serves `router` on accepted connections until `shutdown` resolves. Streams in flight are then finished first, and when it
/// returns, the model thread, which ends with the last queue that the router's handlers hold, runs no more.
///
/// # Errors
/// The server fails, or the model thread dies.
pub async fn serve<IO, E>(
    router: Router,
    mut model_thread: ModelThread,
    incoming: impl Stream<Item = Result<IO, E>>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    tokio::select! {
        biased;
        served = router.serve_with_incoming_shutdown(incoming, shutdown) => {
            served.map_err(|source| ServeError::Server { source })?;
        }
        () = model_thread.ended() => return Err(model_thread.failure().into()),
    }
    // The server is gone and with it the last queue, as soon as its streams have noticed.
    model_thread.ended().await;
    Ok(())
}

/// Runs `work` on a shard in a task of its own; its events, and its error if it fails, are the stream. A caller that drops the stream
/// cancels the work.
pub fn spawn_shard<F, E>(
    span: Span,
    work: impl FnOnce(EventSender) -> F,
) -> ReceiverStream<Result<ShardEvent, Status>>
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Status> + Display + Send,
{
    let (events, stream) = mpsc::channel(EVENT_QUEUE);
    let work = work(events.clone());
    let task = async move {
        tokio::select! {
            () = events.closed() => tracing::debug!("cancelled"),
            result = work => if let Err(error) = result {
                tracing::debug!(%error, "failed"); // the coordinator decides what it means, and reports it
                let _ = events.send(Err(error.into())).await;
            }
        }
    };
    tokio::spawn(task.instrument(span));
    ReceiverStream::new(stream)
}

/// What a service that has loaded `bundle` says of itself.
#[must_use]
pub fn worker_info(bundle: &Bundle) -> WorkerInfo {
    let manifest = bundle.manifest();
    WorkerInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        bundle_digest: bundle.digest().to_owned(),
        modes: manifest.modes.iter().map(ToString::to_string).collect(),
        max_prompt_tokens: manifest.limits.max_prompt_tokens as u32,
        max_new_tokens: manifest.limits.max_new_tokens as u32,
        d_slm: manifest.slm.d_model as u32,
    }
}
