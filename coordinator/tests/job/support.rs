//! Encoders that follow a test's script. They are reached within the process and commit to a real output
//! directory.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_coordinator::{Cluster, CoordinatorError, JobReport, JobWatch, PreparedJob, RunOptions, Shutdown};
use baton_job::layout::{broken_input_key, errors_key, part_key, verdict_key};
use baton_job::{Backoff, JobSpec, PartFormat, PartSummary, Partition, SchedulePolicy, ShardLimits, Verdict};
use baton_proto::wire::encoder_server::{Encoder, EncoderServer};
use baton_proto::wire::{
    EncodeShardRequest, Entry, GetEncoderInfoRequest, GetEncoderInfoResponse, ShardEvent, ShardReceipt,
    encode_shard_request, entry, shard_event,
};
use baton_proto::{Connections, FailureOrigin, Refusal, ServerSecurity, ShardAttempt};
use baton_store::{Location, Store};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// An encoder's action in one attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Act {
    /// Commits the shard. Records that arrive as failures stay failures, and a text with `poison` breaks the
    /// attempt.
    Commit,
    /// Accepts the shard and then fails.
    Break,
    /// The same, caused by the decoder.
    BreakDecoder,
    /// Accepts the shard and then reports that the output store fails.
    FailStore,
    /// Accepts the shard and then fails permanently.
    GiveUp,
    /// Refuses the shard: no room.
    Busy,
    /// Refuses the shard: about to stop.
    Drain,
    /// Refuses the shard for good: another bundle.
    Refuse,
    /// Commits the shard after another coordinator has reported that the first input is broken.
    CommitBesideBreak,
    /// Commits the shard after two minutes in which no process could run.
    Stall,
    /// Commits the shard, and reports more failed records than it has.
    Miscount,
    /// Accepts the shard, then neither answers nor ends the stream.
    Hang,
}

/// The encoders' actions, by shard and attempt; without an entry they commit.
pub(crate) type Script = HashMap<(u32, u32), Act>;

/// An attempt that reached an encoder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) shard: u32,
    pub(crate) attempt: u32,
    pub(crate) encoder: String,
    pub(crate) decoder: String,
    pub(crate) is_probe: bool,
    pub(crate) num_entries: u32,
}

struct ScriptedEncoder {
    name: String,
    script: Script,
    always: Option<Act>,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Kept so that hanging streams stay open.
    hanging: Mutex<Vec<mpsc::Sender<Result<ShardEvent, Status>>>>,
}

#[tonic::async_trait]
impl Encoder for ScriptedEncoder {
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
        assert!(request.metadata().contains_key("traceparent"), "every attempt is traced");
        let mut requests = request.into_inner();
        let Some(encode_shard_request::Message::Header(header)) = requests.message().await?.unwrap().message
        else {
            return Err(Status::invalid_argument("no header"));
        };
        let attempt = ShardAttempt::try_from(header.shard.unwrap())?;
        let key = (attempt.lease.shard.0, attempt.lease.attempt);
        self.seen.lock().unwrap().push(Seen {
            shard: key.0,
            attempt: key.1,
            encoder: self.name.clone(),
            decoder: header.decoder_endpoint,
            is_probe: attempt.is_probe,
            num_entries: attempt.num_entries,
        });
        let act = self.always.or_else(|| self.script.get(&key).copied()).unwrap_or(Act::Commit);
        match act {
            Act::Busy => return Err(Refusal::Busy.status("no room")),
            Act::Drain => return Err(Refusal::Draining.status("leaving")),
            Act::Refuse => return Err(Status::failed_precondition("another bundle")),
            _ => {}
        }
        let (events, stream) = mpsc::channel(1);
        if act == Act::Hang {
            self.hanging.lock().unwrap().push(events);
            return Ok(Response::new(ReceiverStream::new(stream)));
        }
        tokio::spawn(async move {
            let outcome = match act {
                Act::Break => Err(Status::unavailable("stumbled")),
                Act::BreakDecoder => Err(FailureOrigin::Decoder.mark(Status::unavailable("stumbled"))),
                Act::FailStore => Err(FailureOrigin::Store.mark(Status::unavailable("no store"))),
                Act::GiveUp => Err(Status::failed_precondition("the disk is full")),
                Act::CommitBesideBreak => {
                    let broken = "{\"uri\":\"corpus.jsonl\",\"kind\":\"changed\",\"records_read\":1,\
                                  \"records_kept\":0,\"reason\":\"x\"}";
                    let store =
                        Store::open(Location::parse(&attempt.output_location).unwrap()).await.unwrap();
                    let _ = store.create(&broken_input_key(0), broken.into()).await.unwrap();
                    process(&attempt, requests).await
                }
                Act::Stall => {
                    tokio::time::advance(Duration::from_secs(120)).await;
                    process(&attempt, requests).await
                }
                Act::Miscount => process(&attempt, requests)
                    .await
                    .map(|receipt| ShardReceipt { failed_records: receipt.records + 1, ..receipt }),
                _ => process(&attempt, requests).await,
            };
            let event =
                outcome.map(|receipt| ShardEvent { event: Some(shard_event::Event::Receipt(receipt)) });
            let _ = events.send(event).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Commits a shard as a decoder would, with the record's text as its output row, or probes it.
async fn process(
    attempt: &ShardAttempt,
    mut requests: Streaming<EncodeShardRequest>,
) -> Result<ShardReceipt, Status> {
    let (mut part, mut rows, mut failed) = (Vec::new(), 0, Vec::new());
    while let Some(request) = requests.message().await? {
        let Some(encode_shard_request::Message::Entries(batch)) = request.message else {
            panic!("entries expected")
        };
        for Entry { entry } in batch.entries {
            match entry.unwrap() {
                entry::Entry::Record(record) if record.text.contains("poison") => {
                    return Err(Status::internal("the model thread died"));
                }
                entry::Entry::Record(record) => {
                    part.extend(format!("{}\n", record.text).into_bytes());
                    rows += 1;
                }
                entry::Entry::Failure(failure) => {
                    let (_, failure): (u32, baton_job::RecordFailure) = failure.try_into()?;
                    failed.push(failure);
                }
            }
        }
    }
    let shard = attempt.lease.shard;
    assert_eq!(rows + failed.len() as u64, u64::from(attempt.num_entries));
    let outputs = PartSummary::of(&part, rows);
    let (records, failed_at, tiers) = (rows + failed.len() as u64, Vec::new(), Vec::new());
    let verdict = Verdict { shard, records, failed, failed_at, outputs, tiers };
    if !attempt.is_probe {
        let store = Store::open(Location::parse(&attempt.output_location).unwrap()).await.unwrap();
        let _ = store.create(&verdict_key(shard), verdict.to_json().into()).await.unwrap();
        if !verdict.failed.is_empty() {
            let _ = store.create(&errors_key(shard), verdict.error_rows().into()).await.unwrap();
        }
        let _ = store.create(&part_key(shard, PartFormat::default()), part.into()).await.unwrap();
    }
    Ok(ShardReceipt {
        records: verdict.records as u32,
        failed_records: verdict.failed.len() as u32,
        part_num_bytes: verdict.outputs.bytes,
        part_sha256: verdict.outputs.sha256,
        ..ShardReceipt::default()
    })
}

/// A job of ten records in shards of two, and encoders.
pub(crate) struct Scene {
    pub(crate) directory: TempDir,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    pub(crate) connections: Connections,
    pub(crate) encoders: watch::Sender<Vec<String>>,
    pub(crate) decoders: watch::Sender<Vec<String>>,
    pub(crate) options: RunOptions,
}

impl Scene {
    /// One encoder with this script, and one decoder.
    pub(crate) fn new(script: Script) -> Scene {
        let lines: String = (0..10).map(|index| format!("{{\"text\":\"line {index}\"}}\n")).collect();
        let scene = Scene::of_corpus(&lines);
        scene.add_encoder("encoder", script, None);
        scene
    }

    /// No encoder yet.
    pub(crate) fn of_corpus(lines: &str) -> Scene {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("corpus.jsonl"), lines).unwrap();
        let pauses = Backoff { initial: Duration::from_millis(1), max: Duration::from_millis(20) };
        let policy = SchedulePolicy {
            lease_ttl: Duration::from_millis(300),
            max_attempts: 3,
            max_store_attempts: 5,
            retry: pauses,
            rest: pauses,
            busy: pauses,
            shards_per_worker: 2,
            min_straggler_age: Duration::from_millis(50),
            ..SchedulePolicy::default()
        };
        Scene {
            directory,
            seen: Arc::default(),
            connections: Connections::default(),
            encoders: watch::Sender::new(Vec::new()),
            decoders: watch::Sender::new(vec!["http://decoder:1".to_owned()]),
            options: RunOptions {
                policy,
                grace_period: Duration::ZERO,
                search_others_after: Duration::from_millis(50),
                ..RunOptions::default()
            },
        }
    }

    /// Another input, beside `corpus.jsonl`.
    pub(crate) fn add_input(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.directory.path().join(name), contents).unwrap();
    }

    pub(crate) fn add_encoder(&self, name: &str, script: Script, always: Option<Act>) {
        let (seen, hanging) = (Arc::clone(&self.seen), Mutex::default());
        let encoder = ScriptedEncoder { name: name.to_owned(), script, always, seen, hanging };
        let incoming = self.connections.listen_locally(name);
        let mut server = baton_proto::server(&ServerSecurity::default()).unwrap();
        tokio::spawn(server.add_service(EncoderServer::new(encoder)).serve_with_incoming(incoming));
        self.encoders.send_modify(|encoders| encoders.push(format!("local:{name}")));
    }

    pub(crate) fn spec(&self) -> JobSpec {
        let path = |name: &str| self.directory.path().join(name).to_str().unwrap().to_owned();
        JobSpec {
            bundle: "bundle".to_owned(),
            inputs: vec![path("*.jsonl*")],
            output: path("out"),
            shard: ShardLimits { records_per_shard: 2, ..ShardLimits::default() },
            ..JobSpec::default()
        }
    }

    pub(crate) fn cluster(&self) -> Cluster {
        Cluster::new(self.connections.clone(), self.encoders.subscribe(), self.decoders.subscribe())
    }

    pub(crate) async fn open(&self, partition: &str) -> Result<PreparedJob, CoordinatorError> {
        let partition: Partition = partition.parse().unwrap();
        PreparedJob::open(self.spec(), "digest", partition).await
    }

    pub(crate) async fn run(&self) -> Result<JobReport, CoordinatorError> {
        self.run_partition("0/1").await
    }

    pub(crate) async fn run_partition(&self, partition: &str) -> Result<JobReport, CoordinatorError> {
        self.run_with(partition, &JobWatch::default(), Shutdown::No).await
    }

    pub(crate) async fn run_with(
        &self,
        partition: &str,
        watch: &JobWatch,
        wish: Shutdown,
    ) -> Result<JobReport, CoordinatorError> {
        let job = self.open(partition).await?;
        let (_shutdown_sender, shutdown) = watch::channel(wish);
        job.run(self.cluster(), &self.options, watch, shutdown).await
    }

    /// The attempts that reached the encoders, in order of shard and attempt.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let mut seen = self.seen.lock().unwrap().clone();
        seen.sort_unstable();
        seen
    }

    /// Shards and attempts that reached the encoders, in that order.
    pub(crate) fn attempts(&self) -> Vec<(u32, u32)> {
        self.seen().iter().map(|seen| (seen.shard, seen.attempt)).collect()
    }

    pub(crate) fn output(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.directory.path().join("out").join(name)).ok()
    }

    pub(crate) fn remove_output(&self, name: &str) {
        fs::remove_file(self.directory.path().join("out").join(name)).unwrap();
    }
}
