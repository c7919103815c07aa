//! One attempt at one shard, as the coordinator sees it: a stream to an encoder that ends with a receipt.

use std::sync::Arc;

use baton_job::{Lease, Shard};
use baton_proto::wire::encoder_client::EncoderClient;
use baton_proto::wire::{
    EncodeShardHeader, EncodeShardRequest, ShardProgress, ShardReceipt, encode_shard_request, shard_event,
};
use baton_proto::{MAX_MESSAGE_NUM_BYTES, ShardAttempt, entry_batches};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// What an attempt needs.
pub(crate) struct AttemptRequest {
    pub(crate) encoder: Channel,
    pub(crate) decoder_endpoint: String,
    pub(crate) attempt: ShardAttempt,
    pub(crate) shard: Arc<Shard>,
}

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) struct AttemptFailure {
    pub(crate) reason: String,
    /// Whether another attempt may succeed.
    pub(crate) is_retryable: bool,
}

/// Runs an attempt to its receipt, reporting progress on the way. Dropping the future cancels it on all sides.
pub(crate) async fn run_attempt(
    request: AttemptRequest,
    progress: mpsc::Sender<(Lease, ShardProgress)>,
) -> Result<ShardReceipt, AttemptFailure> {
    use encode_shard_request::Message;
    let AttemptRequest { encoder, decoder_endpoint, attempt, shard } = request;
    let lease = attempt.lease;
    let header = EncodeShardHeader { shard: Some(attempt.into()), decoder_endpoint };
    let mut messages = vec![Message::Header(header)];
    messages.extend(entry_batches(&shard).map(Message::Entries));
    let requests = messages.into_iter().map(|message| EncodeShardRequest { message: Some(message) });

    let mut encoder = EncoderClient::new(encoder)
        .max_decoding_message_size(MAX_MESSAGE_NUM_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_NUM_BYTES);
    let mut events = encoder.encode_shard(tokio_stream::iter(requests)).await?.into_inner();
    while let Some(event) = events.message().await? {
        match event.event {
            Some(shard_event::Event::Progress(totals)) => {
                let _ = progress.send((lease, totals)).await; // if nobody listens, we are about to be cancelled
            }
            Some(shard_event::Event::Receipt(receipt)) => return Ok(receipt),
            None => return Err(Status::internal("an event without content").into()),
        }
    }
    Err(Status::unavailable("the encoder's stream ended without a receipt").into())
}

impl From<Status> for AttemptFailure {
    fn from(status: Status) -> Self {
        // What the callee says about the request or about its own state will not change by asking again.
        let is_retryable = !matches!(
            status.code(),
            Code::InvalidArgument
                | Code::FailedPrecondition
                | Code::Unimplemented
                | Code::PermissionDenied
                | Code::Unauthenticated
        );
        AttemptFailure { reason: status.message().to_owned(), is_retryable }
    }
}
