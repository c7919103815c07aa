//! `baton bench coordinator`: the coordinator alone, with workers that have no models.
//!
//! Each number of records is measured in a process of its own, which has coordinator and workers; CPU time
//! and peak memory are those of both. Numbers depend on how fast the disk syncs: name a directory on another
//! disk, or on a memory file system to exclude the disk.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use baton_bench::{Machine, peak_memory_bytes};
use baton_coordinator::{Cluster, JobReport, JobWatch, PreparedJob, RunOptions, Shutdown};
use baton_job::layout::MANIFEST_KEY;
use baton_job::{JobSpec, Partition, SchedulePolicy, ShardLimits};
use baton_proto::wire::encoder_server::EncoderServer;
use baton_proto::{Connections, MAX_MESSAGE_NUM_BYTES, ServerSecurity};
use baton_store::{Location, Store};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::describe_machine;
use super::null_worker::NullWorker;

/// In this time one worker in a hundred is replaced.
const CHANGE_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct CoordinatorBenchArgs {
    /// Records of the corpus; several numbers are measured one after the other.
    #[arg(long, value_name = "RECORDS", value_delimiter = ',', default_value = "100000,1000000")]
    records: Vec<u64>,
    /// Records of a part.
    #[arg(long, value_name = "RECORDS", default_value_t = 256)]
    records_per_shard: u32,
    /// Encoders, and as many decoders. Each minute, one in a hundred leaves and a new one comes.
    #[arg(
        long,
        value_name = "WORKERS",
        default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..=10_000),
    )]
    workers: u32,
    /// Shards in flight per worker.
    #[arg(long, value_name = "SHARDS", default_value_t = 4)]
    shards_in_flight: u32,
    /// Time that each call of a worker to the store takes longer, milliseconds; S3 takes about 30.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    store_latency_ms: u64,
    /// Threads of the async runtime; the corpus is read on one more.
    #[arg(long, value_name = "THREADS", default_value_t = 2)]
    threads: usize,
    /// Directory for corpus and output, which are removed afterwards.
    #[arg(long, value_name = "DIR", default_value = "/tmp")]
    directory: PathBuf,
}

/// Runs `baton bench coordinator`.
pub(super) fn run(args: &CoordinatorBenchArgs) -> anyhow::Result<()> {
    if let [num_records] = args.records[..] {
        return measure(args, num_records);
    }
    println!("{}; {} workers", describe_machine(&Machine::this()), args.workers);
    println!(
        "{:>10}  {:>8}  {:>10}  {:>16}  {:>8}  {:>17}",
        "records", "seconds", "records/s", "CPU s / million", "peak MiB", "shards, resumed s"
    );
    for num_records in &args.records {
        let status = Command::new(std::env::current_exe()?)
            .args(["bench", "coordinator", "--records", &num_records.to_string()])
            .args(["--records-per-shard", &args.records_per_shard.to_string()])
            .args(["--workers", &args.workers.to_string()])
            .args(["--shards-in-flight", &args.shards_in_flight.to_string()])
            .args(["--store-latency-ms", &args.store_latency_ms.to_string()])
            .args(["--threads", &args.threads.to_string()])
            .arg("--directory")
            .arg(&args.directory)
            .status()?;
        ensure!(status.success(), "the run of {num_records} records failed");
    }
    Ok(())
}

fn measure(args: &CoordinatorBenchArgs, num_records: u64) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir_in(&args.directory)
        .with_context(|| format!("cannot write to {}", args.directory.display()))?;
    write_corpus(&scratch.path().join("corpus.jsonl"), num_records)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(args.threads).enable_all().build()?;
    let (started, cpu_before) = (Instant::now(), cpu_seconds());
    let report = runtime.block_on(run_job(args, scratch.path()))?;
    let (seconds, cpu_seconds) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu_before);
    ensure!(report.totals.outputs == num_records && report.job_has_ended, "{report:?}");
    let peak_mib = peak_memory_bytes().unwrap_or_default() as f64 / f64::from(1 << 20);

    // All parts are there, as after a restart at the very end: the coordinator lists them and reads verdicts.
    std::fs::remove_file(scratch.path().join("out").join(MANIFEST_KEY))?;
    let resumed_at = Instant::now();
    let resumed = runtime.block_on(run_job(args, scratch.path()))?;
    ensure!(resumed.totals == report.totals && resumed.resumed == report.totals, "{resumed:?}");
    println!(
        "{num_records:>10}  {seconds:>8.1}  {:>10.0}  {:>16.2}  {peak_mib:>8.0}  {:>9}, {:>6.1}",
        num_records as f64 / seconds,
        cpu_seconds * 1e6 / num_records as f64,
        report.totals.shards,
        resumed_at.elapsed().as_secs_f64(),
    );
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

async fn run_job(args: &CoordinatorBenchArgs, scratch: &Path) -> anyhow::Result<JobReport> {
    let path = |name: &str| scratch.join(name).display().to_string();
    let spec = JobSpec {
        bundle: "none".to_owned(),
        inputs: vec![path("corpus.jsonl")],
        output: path("out"),
        shard: ShardLimits { records_per_shard: args.records_per_shard, ..ShardLimits::default() },
        ..JobSpec::default()
    };
    let store = Store::open(Location::parse(&spec.output)?).await?;
    let worker = NullWorker { store, store_latency: Duration::from_millis(args.store_latency_ms) };
    let connections = Connections::default();
    let (encoders, known_encoders) = watch::channel(Vec::new());
    let (decoders, known_decoders) = watch::channel(Vec::new());
    let mut number = 0;
    let mut add = |count: u32| -> anyhow::Result<()> {
        for _ in 0..count {
            let name = format!("null-{number}");
            let server = EncoderServer::new(worker.clone()).max_decoding_message_size(MAX_MESSAGE_NUM_BYTES);
            let router = baton_proto::server(&ServerSecurity::default())?.add_service(server);
            tokio::spawn(router.serve_with_incoming(connections.listen_locally(&name)));
            encoders.send_modify(|all: &mut Vec<String>| all.push(format!("local:{name}")));
            decoders.send_modify(|all: &mut Vec<String>| all.push(format!("http://{name}:1")));
            number += 1;
        }
        Ok(())
    };
    add(args.workers)?;
    let policy = SchedulePolicy { shards_per_worker: args.shards_in_flight, ..SchedulePolicy::default() };
    let options = RunOptions { policy, ..RunOptions::default() };
    let job = PreparedJob::open(spec, "digest", Partition::WHOLE).await?;
    let (_wish, shutdown) = watch::channel(Shutdown::No);
    let cluster = Cluster::new(connections.clone(), known_encoders, known_decoders);
    let watch = JobWatch::default();
    let run = job.run(cluster, &options, &watch, shutdown);
    tokio::pin!(run);
    let mut changes = interval(CHANGE_INTERVAL);
    changes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    changes.tick().await; // the first comes at once
    loop {
        tokio::select! {
            report = &mut run => return Ok(report?),
            _ = changes.tick() => {
                let num_replaced = args.workers.div_ceil(100);
                add(num_replaced)?;
                for known in [&encoders, &decoders] {
                    known.send_modify(|all| drop(all.drain(..num_replaced as usize)));
                }
            }
        }
    }
}

/// CPU time of this process so far, seconds; 0 without Linux's /proc.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command's name, in parentheses, may contain spaces; utime and stime are fields 14 and 15.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: f64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0 // Linux has counted in hundredths of a second to user space since long
}
