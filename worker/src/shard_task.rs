//! The task that works on one shard, and what a service says of itself.

use std::{fmt::Display, future::Future};

use baton_bundle::Bundle;
use baton_job::Mode;
use baton_proto::wire::{ShardEvent, WorkerInfo};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{Instrument, Span};

use crate::ShardPermit;
use crate::admission::refuse_draining;

/// Events that wait for a slow caller. They are totals, so a few suffice.
const EVENT_QUEUE: usize = 8;

/// Where a shard's task sends its events.
pub type EventSender = mpsc::Sender<Result<ShardEvent, Status>>;

/// Runs `work` on a shard in a task of its own; its events, and its error if it fails, are the stream. A caller that drops the stream
/// cancels the work, as does the end of a drain.
pub fn spawn_shard<F, E>(
    span: Span,
    permit: ShardPermit,
    work: impl FnOnce(EventSender) -> F,
) -> ReceiverStream<Result<ShardEvent, Status>>
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Status> + Display + Send,
{
    let (events, stream) = mpsc::channel(EVENT_QUEUE);
    let work = work(events.clone());
    let task = async move {
        let status = tokio::select! {
            () = events.closed() => return tracing::info!("cancelled by the caller"),
            () = permit.cancelled() => refuse_draining(),
            result = work => match result {
                Ok(()) => return,
                Err(error) => error.into(),
            }
        };
        // What it means is up to the coordinator, which reports it.
        tracing::info!(code = ?status.code(), error = status.message(), "failed");
        drop(permit); // a caller that is slow to read does not keep the shard open
        let _ = events.send(Err(status)).await;
    };
    tokio::spawn(task.instrument(span));
    ReceiverStream::new(stream)
}

/// What a service that has loaded `bundle` for jobs of `mode` says of itself.
#[must_use]
pub fn worker_info(bundle: &Bundle, mode: Mode) -> WorkerInfo {
    let manifest = bundle.manifest();
    let served = manifest.modes.iter().filter(|other| other.is_served_with(mode));
    let d_slm = manifest.slm.as_ref().filter(|_| mode.uses_slm()).map_or(0, |slm| slm.d_model);
    WorkerInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        bundle_digest: bundle.digest().to_owned(),
        modes: served.map(ToString::to_string).collect(),
        max_prompt_tokens: manifest.limits.max_prompt_tokens as u32,
        max_new_tokens: manifest.max_new_tokens(mode) as u32,
        d_slm: d_slm as u32,
    }
}
