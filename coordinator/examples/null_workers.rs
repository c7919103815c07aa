//! Measures the coordinator's speed and memory without models. The workers of this job only receive each
//! shard over gRPC, commit its unchanged texts by the commit protocol, and answer with a receipt.
//!
//! ```text
//! cargo run --release -p baton-coordinator --example null_workers -- --records 100000,1000000,10000000
//! ```
//!
//! Each size runs in its own process, which contains coordinator and workers; peak memory is that of both.
//! Numbers depend on how fast the disk syncs: name a directory on another disk, or on a memory file system to
//! exclude the disk.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use baton_coordinator::{Cluster, JobReport, JobWatch, PreparedJob, RunOptions, Shutdown};
use baton_job::layout::{part_key, verdict_key};
use baton_job::{JobSpec, PartFormat, PartSummary, Partition, SchedulePolicy, ShardLimits, Verdict};
use baton_proto::wire::encoder_server::{Encoder, EncoderServer};
use baton_proto::wire::{
    EncodeShardRequest, GetEncoderInfoRequest, GetEncoderInfoResponse, ShardEvent, ShardReceipt,
    encode_shard_request, entry, shard_event,
};
use baton_proto::{Connections, MAX_MESSAGE_NUM_BYTES, ServerSecurity, ShardAttempt};
use baton_store::{Location, Store};
use clap::Parser;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Measures the coordinator with workers that do nothing.
#[derive(Debug, Parser)]
struct Args {
    /// Records of the corpus; several sizes are compared.
    #[arg(long, value_delimiter = ',', default_value = "100000,1000000")]
    records: Vec<u64>,
    #[arg(long, default_value_t = 256)]
    records_per_shard: u32,
    /// Shards in flight.
    #[arg(long, default_value_t = 16)]
    shards_in_flight: u32,
    /// Threads of the async runtime; the corpus is read on one more.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Directory for corpus and output, which are removed afterwards.
    #[arg(long, default_value = "/tmp")]
    directory: PathBuf,
}

fn main() -> Result<(), BoxError> {
    let args = Args::parse();
    let [num_records] = args.records[..] else {
        println!("{:>10}  {:>8}  {:>10}  {:>8}", "records", "seconds", "records/s", "peak MiB");
        for num_records in &args.records {
            let status = Command::new(std::env::current_exe()?)
                .args(["--records", &num_records.to_string()])
                .args(["--records-per-shard", &args.records_per_shard.to_string()])
                .args(["--shards-in-flight", &args.shards_in_flight.to_string()])
                .args(["--threads", &args.threads.to_string()])
                .arg("--directory")
                .arg(&args.directory)
                .status()?;
            if !status.success() {
                return Err(format!("the run of {num_records} records failed").into());
            }
        }
        return Ok(());
    };
    let scratch = tempfile::tempdir_in(&args.directory)?;
    write_corpus(&scratch.path().join("corpus.jsonl"), num_records)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(args.threads).enable_all().build()?;
    let started = Instant::now();
    let report = runtime.block_on(run(&args, scratch.path()))?;
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!((report.totals.outputs, report.job_has_ended), (num_records, true));
    let rate = num_records as f64 / seconds;
    println!("{num_records:>10}  {seconds:>8.1}  {rate:>10.0}  {:>8.0}", peak_memory_mib());
    Ok(())
}

fn write_corpus(path: &Path, num_records: u64) -> std::io::Result<()> {
    let mut corpus = BufWriter::new(File::create(path)?);
    for index in 0..num_records {
        writeln!(
            corpus,
            r#"{{"id":"r{index}","text":"a short record, such as titles are: number {index}","lang":"en"}}"#
        )?;
    }
    corpus.flush()
}

async fn run(args: &Args, scratch: &Path) -> Result<JobReport, BoxError> {
    let path = |name: &str| scratch.join(name).display().to_string();
    let spec = JobSpec {
        bundle: "none".to_owned(),
        inputs: vec![path("corpus.jsonl")],
        output: path("out"),
        shard: ShardLimits { records_per_shard: args.records_per_shard, ..ShardLimits::default() },
        ..JobSpec::default()
    };
    let connections = Connections::default();
    let store = Store::open(Location::parse(&spec.output)?).await?;
    let server = EncoderServer::new(NullWorker { store }).max_decoding_message_size(MAX_MESSAGE_NUM_BYTES);
    let router = baton_proto::server(&ServerSecurity::default())?.add_service(server);
    tokio::spawn(router.serve_with_incoming(connections.listen_locally("null")));

    let cluster =
        Cluster::fixed(connections, vec!["local:null".to_owned()], vec!["http://null:1".to_owned()]);
    let policy = SchedulePolicy { shards_per_worker: args.shards_in_flight, ..SchedulePolicy::default() };
    let options = RunOptions { policy, ..RunOptions::default() };
    let job = PreparedJob::open(spec, "digest", Partition::WHOLE).await?;
    let (_wish, shutdown) = watch::channel(Shutdown::No);
    Ok(job.run(cluster, &options, &JobWatch::default(), shutdown).await?)
}

struct NullWorker {
    store: Store,
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
        let store = self.store.clone();
        tokio::spawn(async move {
            let receipt = commit(&store, request.into_inner()).await;
            let event =
                receipt.map(|receipt| ShardEvent { event: Some(shard_event::Event::Receipt(receipt)) });
            let _ = events.send(event).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Commits a shard: the verdict, then the part, each created conditionally.
async fn commit(store: &Store, mut requests: Streaming<EncodeShardRequest>) -> Result<ShardReceipt, Status> {
    use encode_shard_request::Message;
    let (mut attempt, mut part, mut rows) = (None, Vec::new(), 0);
    while let Some(request) = requests.message().await? {
        match request.message {
            Some(Message::Header(header)) => {
                let header = header.shard.ok_or_else(|| Status::invalid_argument("no header"))?;
                attempt = Some(ShardAttempt::try_from(header)?);
            }
            Some(Message::Entries(batch)) => {
                for entry in batch.entries {
                    if let Some(entry::Entry::Record(record)) = entry.entry {
                        part.extend_from_slice(record.text.as_bytes());
                        part.push(b'\n');
                        rows += 1;
                    }
                }
            }
            None => return Err(Status::invalid_argument("an empty message")),
        }
    }
    let shard = attempt.ok_or_else(|| Status::invalid_argument("no header"))?.lease.shard;
    let verdict = Verdict {
        shard,
        records: rows,
        failed: Vec::new(),
        failed_at: Vec::new(),
        outputs: PartSummary::of(&part, rows),
    };
    let failed = |error: baton_store::StoreError| Status::unavailable(error.to_string());
    let _ = store.create(&verdict_key(shard), verdict.to_json().into()).await.map_err(failed)?;
    let _ = store.create(&part_key(shard, PartFormat::default()), part.into()).await.map_err(failed)?;
    Ok(ShardReceipt {
        records: rows as u32,
        part_num_bytes: verdict.outputs.bytes,
        part_sha256: verdict.outputs.sha256,
        ..ShardReceipt::default()
    })
}

/// This process's peak resident memory; 0 without Linux's /proc.
fn peak_memory_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}
