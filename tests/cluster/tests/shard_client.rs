//! A coordinator of one shard, written out: a test sends each message itself.

use std::path::Path;

use baton_bundle::Bundle;
use baton_job::{GenerationOptions, Lease, Mode, Record, RecordSource, Shard, ShardEntry, ShardIndex};
use baton_proto::wire::encoder_client::EncoderClient;
use baton_proto::wire::{
    EncodeShardHeader, EncodeShardRequest, ShardEvent, ShardReceipt, encode_shard_request, shard_event,
};
use baton_proto::{Connections, ShardAttempt, entry_batches, wire};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::bundle::shared_bundle;

/// A shard under way: its header is sent, its entries may be.
pub(crate) struct OpenShard {
    requests: Option<mpsc::Sender<EncodeShardRequest>>,
    events: Streaming<ShardEvent>,
}

/// `num_records` short records.
pub(crate) fn shard(num_records: u32) -> Shard {
    let record = |index: u32| {
        let source = RecordSource { uri: "corpus.txt".to_owned(), line: u64::from(index) + 1 };
        let text = format!("record number {index}");
        ShardEntry::Prompt(Record::new(index, format!("r{index}"), source, text))
    };
    Shard { index: ShardIndex(0), first_entry: 0, entries: (0..num_records).map(record).collect() }
}

/// An attempt at a shard of `num_records` that is committed to `output`.
pub(crate) fn attempt(output: &Path, num_records: u32) -> ShardAttempt {
    ShardAttempt {
        job_id: "test".to_owned(),
        lease: Lease { shard: ShardIndex(0), attempt: 1 },
        num_entries: num_records,
        bundle_digest: Bundle::open(shared_bundle()).unwrap().digest().to_owned(),
        output_location: output.to_str().unwrap().to_owned(),
        cache_location: None,
        mode: Mode::Hybrid,
        task: None,
        generation: GenerationOptions { retry_beams: 0, ..GenerationOptions::default() }, // fits one slot
        is_probe: false,
        tier: None,
        parts: baton_job::PartOptions::default(),
        first_entry: 0,
    }
}

impl OpenShard {
    /// Sends the header to an encoder.
    pub(crate) async fn open(
        encoder_endpoint: &str,
        decoder_endpoint: &str,
        attempt: ShardAttempt,
    ) -> Result<OpenShard, Status> {
        let decoder_endpoint = decoder_endpoint.to_owned();
        let header = EncodeShardHeader { shard: Some(attempt.into()), decoder_endpoint };
        let (requests, stream) = mpsc::channel(4);
        requests.send(request(encode_shard_request::Message::Header(header))).await.unwrap();
        let connection = Connections::default().to(encoder_endpoint).unwrap();
        let response = EncoderClient::new(connection).encode_shard(ReceiverStream::new(stream)).await?;
        Ok(OpenShard { requests: Some(requests), events: response.into_inner() })
    }

    /// Sends entries, and closes the stream.
    pub(crate) async fn send_all(&mut self, shard: &Shard) {
        let requests = self.requests.take().unwrap();
        for batch in entry_batches(shard) {
            // An encoder that refuses the shard ends the stream; its status says why.
            let _ = requests.send(request(encode_shard_request::Message::Entries(batch))).await;
        }
    }

    /// Sends one record as one message, however large.
    pub(crate) async fn send_text(&mut self, text: String) {
        let source = Some(RecordSource { uri: "corpus.txt".to_owned(), line: 1 }.into());
        let record = wire::Record { source, id: "r0".to_owned(), text, ..wire::Record::default() };
        let entry = wire::Entry { entry: Some(wire::entry::Entry::Record(record)) };
        let batch = wire::EntryBatch { entries: vec![entry] };
        let _ =
            self.requests.take().unwrap().send(request(encode_shard_request::Message::Entries(batch))).await;
    }

    /// Waits for the receipt.
    pub(crate) async fn receipt(&mut self) -> Result<ShardReceipt, Status> {
        while let Some(event) = self.events.message().await? {
            if let Some(shard_event::Event::Receipt(receipt)) = event.event {
                return Ok(receipt);
            }
        }
        panic!("the stream ended without a receipt");
    }

    /// Waits for the first event: the shard is being decoded.
    pub(crate) async fn first_event(&mut self) {
        self.events.message().await.unwrap().expect("an event");
    }
}

fn request(message: encode_shard_request::Message) -> EncodeShardRequest {
    EncodeShardRequest { message: Some(message) }
}
