//! An encoder without models, for measuring coordinators: it receives a shard over gRPC, commits its texts
//! unchanged by the commit protocol, and answers with a receipt.

use std::time::Duration;

use baton_job::layout::{part_key, verdict_key};
use baton_job::{PartFormat, PartSummary, RecordFailure, Verdict};
use baton_proto::ShardAttempt;
use baton_proto::wire::encoder_server::Encoder;
use baton_proto::wire::{
    EncodeShardRequest, GetEncoderInfoRequest, GetEncoderInfoResponse, ShardEvent, ShardReceipt,
    encode_shard_request, entry, shard_event,
};
use baton_store::Store;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// The worker; it stands for an encoder and its decoder.
#[derive(Debug, Clone)]
pub(super) struct NullWorker {
    pub(super) store: Store,
    /// Added to each call to the store, as a far store would.
    pub(super) store_latency: Duration,
}

#[tonic::async_trait]
impl Encoder for NullWorker {
    type EncodeShardStream = ReceiverStream<Result<ShardEvent, Status>>;

    async fn get_info(
        &self,
        _: Request<GetEncoderInfoRequest>,
    ) -> Result<Response<GetEncoderInfoResponse>, Status> {
        Ok(Response::new(GetEncoderInfoResponse::default()))
    }

    async fn encode_shard(
        &self,
        request: Request<Streaming<EncodeShardRequest>>,
    ) -> Result<Response<Self::EncodeShardStream>, Status> {
        let (events, stream) = mpsc::channel(1);
        let worker = self.clone();
        tokio::spawn(async move {
            let receipt = worker.commit(request.into_inner()).await;
            let event =
                receipt.map(|receipt| ShardEvent { event: Some(shard_event::Event::Receipt(receipt)) });
            let _ = events.send(event).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl NullWorker {
    /// Commits a shard: the verdict, then the part, each created conditionally.
    async fn commit(&self, mut requests: Streaming<EncodeShardRequest>) -> Result<ShardReceipt, Status> {
        use encode_shard_request::Message;
        let (mut attempt, mut part, mut rows, mut failed) = (None, Vec::new(), 0, Vec::new());
        while let Some(request) = requests.message().await? {
            match request.message {
                Some(Message::Header(header)) => {
                    let header = header.shard.ok_or_else(|| Status::invalid_argument("no header"))?;
                    attempt = Some(ShardAttempt::try_from(header)?);
                }
                Some(Message::Entries(batch)) => {
                    for entry in batch.entries {
                        match entry.entry {
                            Some(entry::Entry::Record(record)) => {
                                part.extend_from_slice(record.text.as_bytes());
                                part.push(b'\n');
                                rows += 1;
                            }
                            Some(entry::Entry::Failure(failure)) => {
                                let (_, failure): (u32, RecordFailure) = failure.try_into()?;
                                failed.push(failure);
                            }
                            None => return Err(Status::invalid_argument("an empty entry")),
                        }
                    }
                }
                None => return Err(Status::invalid_argument("an empty message")),
            }
        }
        let attempt = attempt.ok_or_else(|| Status::invalid_argument("no header"))?;
        let shard = attempt.lease.shard;
        let verdict = Verdict {
            shard,
            records: rows + failed.len() as u64,
            failed,
            failed_at: Vec::new(),
            outputs: PartSummary::of(&part, rows),
            tiers: Vec::new(),
        };
        let part_key = part_key(shard, PartFormat::default());
        let objects = [(verdict_key(shard), verdict.to_json()), (part_key, part)];
        for (key, bytes) in objects.into_iter().filter(|_| !attempt.is_probe) {
            sleep(self.store_latency).await;
            let created = self.store.create(&key, bytes.into()).await;
            let _ = created.map_err(|error| Status::unavailable(error.to_string()))?;
        }
        Ok(ShardReceipt {
            records: verdict.records as u32,
            failed_records: verdict.failed.len() as u32,
            part_num_bytes: verdict.outputs.bytes,
            part_sha256: verdict.outputs.sha256,
            ..ShardReceipt::default()
        })
    }
}
