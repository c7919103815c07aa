//! The coordinator against an encoder that does what a test's script says, over a real socket and a real output directory.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_coordinator::{
    CoordinatorError, JobOutcome, JobReport, PreparedJob, Progress, RunOptions, Shutdown, WorkerPair,
};
use baton_job::layout::{part_key, verdict_key};
use baton_job::{JobSpec, LeasePolicy, PartSummary, ShardLimits, Verdict};
use baton_proto::ShardAttempt;
use baton_proto::wire::encoder_server::{Encoder, EncoderServer};
use baton_proto::wire::{
    EncodeShardRequest, GetEncoderInfoRequest, GetEncoderInfoResponse, ShardEvent, ShardReceipt,
    encode_shard_request, entry, shard_event,
};
use baton_store::{Location, Store};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// What the encoder does with one attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    /// Commits the shard; records that arrive as failures stay failures.
    Commit,
    /// Fails in a way that may pass.
    Stumble,
    /// Fails in a way that will not pass.
    Refuse,
    /// Neither answers nor ends the stream.
    Hang,
}

/// What the encoder does, by shard and attempt; otherwise it commits.
type Script = HashMap<(u32, u32), Act>;

struct ScriptedEncoder {
    script: Script,
    seen: Arc<Mutex<Vec<(u32, u32)>>>,
    /// Held so that hanging streams stay open.
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
        let mut requests = request.into_inner();
        let Some(encode_shard_request::Message::Header(header)) = requests.message().await?.unwrap().message
        else {
            return Err(Status::invalid_argument("no header"));
        };
        let attempt = ShardAttempt::try_from(header.shard.unwrap())?;
        let key = (attempt.lease.shard.0, attempt.lease.attempt);
        self.seen.lock().unwrap().push(key);
        let (events, stream) = mpsc::channel(1);
        match self.script.get(&key).copied().unwrap_or(Act::Commit) {
            Act::Stumble => return Err(Status::unavailable("stumbled")),
            Act::Refuse => return Err(Status::failed_precondition("another bundle")),
            Act::Hang => self.hanging.lock().unwrap().push(events),
            Act::Commit => {
                let receipt = commit(&attempt, requests).await?;
                let event = Some(shard_event::Event::Receipt(receipt));
                events.send(Ok(ShardEvent { event })).await.unwrap();
            }
        }
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Commits a shard as a decoder would, with the record's text as its output row.
async fn commit(
    attempt: &ShardAttempt,
    mut requests: Streaming<EncodeShardRequest>,
) -> Result<ShardReceipt, Status> {
    let (mut part, mut rows, mut failed) = (Vec::new(), 0, Vec::new());
    while let Some(request) = requests.message().await? {
        let Some(encode_shard_request::Message::Entries(batch)) = request.message else {
            panic!("entries expected")
        };
        for item in batch.entries {
            match item.entry.unwrap() {
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
    let verdict = Verdict { shard, records: rows + failed.len() as u64, failed, outputs };
    let store = Store::open(Location::parse(&attempt.output_location).unwrap()).await.unwrap();
    let _ = store.create(&verdict_key(shard), verdict.to_json().into()).await.unwrap();
    let _ = store.create(&part_key(shard), part.into()).await.unwrap();
    Ok(ShardReceipt {
        records: verdict.records as u32,
        failed_records: verdict.failed.len() as u32,
        part_num_bytes: verdict.outputs.bytes,
        part_sha256: verdict.outputs.sha256,
        ..ShardReceipt::default()
    })
}

/// A job of ten records in shards of two, and an encoder.
struct Scene {
    directory: TempDir,
    seen: Arc<Mutex<Vec<(u32, u32)>>>,
    pair: WorkerPair,
    options: RunOptions,
}

impl Scene {
    fn new(script: Script) -> Scene {
        let directory = tempfile::tempdir().unwrap();
        let lines: String = (0..10).map(|index| format!("{{\"text\":\"line {index}\"}}\n")).collect();
        fs::write(directory.path().join("corpus.jsonl"), lines).unwrap();
        let socket = directory.path().join("encoder.sock");
        let connections = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let encoder = ScriptedEncoder { script, seen: Arc::clone(&seen), hanging: Mutex::default() };
        tokio::spawn(
            baton_proto::server().add_service(EncoderServer::new(encoder)).serve_with_incoming(connections),
        );
        let encoder_endpoint = format!("unix:{}", socket.display());
        let pair = WorkerPair { encoder_endpoint, decoder_endpoint: "unix:/nowhere".to_owned() };
        let lease_policy = LeasePolicy {
            lease_ttl: Duration::from_millis(200),
            max_attempts: 3,
            initial_backoff: Duration::from_millis(1),
            ..LeasePolicy::default()
        };
        let options =
            RunOptions { max_shards_in_flight_per_worker: 2, lease_policy, grace_period: Duration::ZERO };
        Scene { directory, seen, pair, options }
    }

    fn spec(&self) -> JobSpec {
        let path = |name: &str| self.directory.path().join(name).to_str().unwrap().to_owned();
        JobSpec {
            bundle: "bundle".to_owned(),
            inputs: vec![path("corpus.jsonl")],
            output: path("out"),
            shard: ShardLimits { max_records: 2, ..ShardLimits::default() },
            ..JobSpec::default()
        }
    }

    async fn run(&self) -> Result<JobReport, CoordinatorError> {
        self.run_until(Shutdown::No).await
    }

    async fn run_until(&self, wish: Shutdown) -> Result<JobReport, CoordinatorError> {
        let job = PreparedJob::open(self.spec(), "digest").await?;
        let (progress, _) = watch::channel(Progress::default());
        let (_shutdown_sender, shutdown) = watch::channel(wish);
        job.run(std::slice::from_ref(&self.pair), &self.options, &progress, shutdown).await
    }

    /// Shards and attempts that reached the encoder, in order of shard.
    fn attempts(&self) -> Vec<(u32, u32)> {
        let mut seen = self.seen.lock().unwrap().clone();
        seen.sort_unstable();
        seen
    }

    fn output(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.directory.path().join("out").join(name)).ok()
    }
}

#[tokio::test]
async fn every_shard_is_leased_once_and_the_manifest_is_written_last() {
    let scene = Scene::new(Script::new());
    let report = scene.run().await.unwrap();
    assert_eq!(report.outcome, JobOutcome::Complete);
    assert_eq!((report.totals.shards, report.totals.records, report.totals.outputs), (5, 10, 10));
    assert_eq!(scene.attempts(), (0..5).map(|shard| (shard, 1)).collect::<Vec<_>>());
    assert_eq!(scene.output("part-000003.jsonl").unwrap(), "line 6\nline 7\n");
    assert!(scene.output("_SUCCESS").unwrap().contains("part-000004.jsonl"));

    let again = scene.run().await.unwrap();
    assert!(again.was_complete);
    assert_eq!(scene.attempts().len(), 5, "nothing was leased again");
}

#[tokio::test]
async fn a_restarted_job_leases_only_what_is_not_committed() {
    let scene = Scene::new(Script::new());
    scene.run().await.unwrap();
    for name in ["_SUCCESS", "part-000001.jsonl", "part-000004.jsonl"] {
        fs::remove_file(scene.directory.path().join("out").join(name)).unwrap();
    }
    scene.seen.lock().unwrap().clear();
    let report = scene.run().await.unwrap();
    assert_eq!(scene.attempts(), [(1, 1), (4, 1)]);
    assert_eq!((report.totals.records, report.resumed.records), (10, 6));
}

#[tokio::test]
async fn an_attempt_that_fails_is_followed_by_another() {
    let scene = Scene::new(Script::from([((2, 1), Act::Stumble), ((2, 2), Act::Stumble)]));
    assert_eq!(scene.run().await.unwrap().outcome, JobOutcome::Complete);
    assert_eq!(scene.attempts().iter().filter(|(shard, _)| *shard == 2).count(), 3);
}

#[tokio::test]
async fn a_worker_that_falls_silent_loses_its_lease() {
    let scene = Scene::new(Script::from([((0, 1), Act::Hang)]));
    assert_eq!(scene.run().await.unwrap().outcome, JobOutcome::Complete);
    assert!(scene.attempts().contains(&(0, 1)) && scene.attempts().contains(&(0, 2)));
}

#[tokio::test]
async fn a_shard_that_fails_too_often_fails_the_job() {
    let script = (1..=3).map(|attempt| ((1, attempt), Act::Stumble)).collect();
    let scene = Scene::new(script);
    let error = scene.run().await.unwrap_err().to_string();
    assert_eq!(error, "shard 000001 failed for good in attempt 3: stumbled");
    assert_eq!(scene.output("_SUCCESS"), None);
}

#[tokio::test]
async fn a_refusal_fails_the_job_at_once() {
    let scene = Scene::new(Script::from([((0, 1), Act::Refuse)]));
    let error = scene.run().await.unwrap_err().to_string();
    assert_eq!(error, "shard 000000 failed for good in attempt 1: another bundle");
}

#[tokio::test]
async fn a_job_asked_to_stop_is_interrupted_and_goes_on_later() {
    let scene = Scene::new(Script::new());
    let report = scene.run_until(Shutdown::Drain).await.unwrap();
    assert_eq!((report.outcome, report.totals.records), (JobOutcome::Interrupted, 0));
    assert_eq!(scene.run().await.unwrap().outcome, JobOutcome::Complete);
}

#[tokio::test]
async fn shards_that_outlast_the_grace_period_are_given_up() {
    let scene = Scene::new((0..5).map(|shard| ((shard, 1), Act::Hang)).collect());
    let job = PreparedJob::open(scene.spec(), "digest").await.unwrap();
    let (progress, _) = watch::channel(Progress::default());
    let (wish, shutdown) = watch::channel(Shutdown::No);
    let seen = Arc::clone(&scene.seen);
    let ask_to_stop = async {
        while seen.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        wish.send_replace(Shutdown::Drain);
    };
    let pair = std::slice::from_ref(&scene.pair);
    let (report, ()) = tokio::join!(job.run(pair, &scene.options, &progress, shutdown), ask_to_stop);
    assert_eq!(report.unwrap().outcome, JobOutcome::Interrupted);
}

#[tokio::test]
async fn a_part_beyond_the_input_is_reported() {
    let scene = Scene::new(Script::new());
    scene.run().await.unwrap();
    let out = scene.directory.path().join("out");
    fs::remove_file(out.join("_SUCCESS")).unwrap();
    fs::copy(out.join("part-000000.jsonl"), out.join("part-000009.jsonl")).unwrap();
    let verdict = scene.output("_baton/shards/000000.json").unwrap().replace("\"shard\":0", "\"shard\":9");
    fs::write(out.join("_baton/shards/000009.json"), verdict).unwrap();
    let error = scene.run().await.unwrap_err().to_string();
    assert!(error.starts_with("part-000009.jsonl exists, but the input has only 5 shards"), "{error}");
}

#[tokio::test]
async fn a_job_that_is_only_prepared_writes_nothing() {
    let scene = Scene::new(Script::new());
    PreparedJob::open(scene.spec(), "digest").await.unwrap();
    assert_eq!(scene.output("_baton/job.json"), None);
    scene.run().await.unwrap();
    let error = PreparedJob::open(scene.spec(), "another digest").await.unwrap_err().to_string();
    assert!(error.contains("the bundle was digest, now another digest"), "{error}");
}
