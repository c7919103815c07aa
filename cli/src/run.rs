//! `baton run`: a job from a file or flags to a summary and an exit code. All three roles run in this
//! process, or only the coordinator, against a cluster.
//!
//! Owns terminal output. The roles are those of the services, joined by the same gRPC contracts; a job's
//! flags are `baton-coordinator`'s.

mod in_process;
mod terminal;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use baton_bundle::Bundle;
use baton_coordinator::flags::{ClusterArgs, DispatchArgs, JobArgs};
use baton_coordinator::process::{EXIT_CODES, exit_code};
use baton_coordinator::status_page::{JobTitle, pages};
use baton_coordinator::{Cluster, CoordinatorError, JobReport, JobWatch, PreparedJob, Shutdown, signals};
use baton_decoder_svc::{DecoderConfig, DecoderError};
use baton_encoder_svc::EncoderConfig;
use baton_job::JobSpec;
use baton_model::Compute;
use baton_proto::{Connections, SecurityArgs};
use baton_telemetry::{HttpServer, MetricsRegistry, Readiness, tell};
use baton_worker::{ComputeArgs, WorkerLimits, weights_num_bytes};
use clap::value_parser;
use tokio::sync::watch;

pub(crate) use in_process::InProcessWorkers;

const EXAMPLES: &str = "\
Examples:
  baton run --bundle models/en-it --input corpus.jsonl --output out
  baton run job.toml --max-new-tokens 64
  baton run job.toml --encoders http://gpu:7001 --decoders dns://decoders:7002";

/// Arguments of `baton run`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXIT_CODES}\n\n{EXAMPLES}"))]
pub(crate) struct RunArgs {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    dispatch: DispatchArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Address and port of a live status page, and of /metrics. Default: none. Example: 127.0.0.1:9464
    #[arg(long, value_name = "ADDRESS", env = "BATON_HTTP_LISTEN", help_heading = "Telemetry")]
    http_listen: Option<SocketAddr>,
    #[command(flatten)]
    security: SecurityArgs,
}

/// The use of this machine if no cluster is named. These settings change no output byte.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Machine")]
struct MachineArgs {
    /// Prompt tokens encoded in one pass of the large model. More tokens need more memory. Default: 1024, on
    /// a GPU 16384.
    #[arg(
        long,
        value_name = "TOKENS",
        env = "BATON_ENCODE_BATCH_TOKENS",
        value_parser = value_parser!(u32).range(1..=1_048_576),
    )]
    encode_batch_tokens: Option<u32>,
    /// Sequences that one engine decodes at once; at least the number of beams or samples of one record.
    /// Default: 64, on a GPU 512.
    #[arg(
        long,
        value_name = "ROWS",
        env = "BATON_DECODE_SLOTS",
        value_parser = value_parser!(u32).range(1..=65_536),
    )]
    decode_slots: Option<u32>,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// Runs `baton run`.
///
/// # Errors
/// The job cannot start, or failed.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    match run_job(args) {
        Ok(report) => {
            if let Some(broken) = report.broken_inputs() {
                tell!("error: {broken}");
            }
            Ok(exit_code(&report, args.dispatch.accept_failed_records))
        }
        Err(error) => match error.downcast_ref().map(CoordinatorError::exit_code) {
            Some(code) => {
                tell!("error: {error:#}");
                Ok(ExitCode::from(code))
            }
            None => Err(error),
        },
    }
}

fn run_job(args: &RunArgs) -> anyhow::Result<JobReport> {
    let (spec, digest) = args.job.to_spec()?;
    let cluster = args.cluster.encoders.clone().zip(args.cluster.decoders.clone());
    if cluster.is_none() {
        Bundle::open(Path::new(&spec.bundle))?; // its files are there
    }
    // Encoder and decoder run side by side. More threads per product would also split its sums differently,
    // which would change output bytes.
    baton_model::set_num_threads(1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2) // they only move messages; the models have threads of their own
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let report = runtime.block_on(async {
        let job = PreparedJob::open(spec.clone(), &digest, args.dispatch.partition).await?;
        if let Some(report) = job.finished_report().await? {
            return Ok(report);
        }
        let generation = spec.generation.said();
        if !generation.is_empty() {
            tell!("generation: {generation}");
        }
        let on_signal = |wish| match wish {
            Shutdown::Now => tell!("stopped; the same command continues where it stopped"),
            _ => tell!("finishing the shards in flight; interrupt again to stop at once"),
        };
        let shutdown = signals::watch_signals(on_signal).context("cannot catch signals")?;
        let job_watch = JobWatch::default();
        if let Some(address) = args.http_listen {
            serve_pages(address, &job, &job_watch).await?;
        }
        match cluster {
            Some((encoders, decoders)) => {
                let connections = Connections::new(args.security.load()?.client);
                let cluster = Cluster::discover(connections, encoders, decoders);
                run_watched(&job, cluster, args, &job_watch, shutdown).await
            }
            None => run_in_process(&job, &spec, args, &job_watch, shutdown).await,
        }
    })?;
    let suffix = spec.output_format.suffix();
    terminal::show_summary(&report, (&spec.output, &suffix), args.dispatch.partition);
    Ok(report)
}

async fn run_in_process(
    job: &PreparedJob,
    spec: &JobSpec,
    args: &RunArgs,
    job_watch: &JobWatch,
    shutdown: watch::Receiver<Shutdown>,
) -> anyhow::Result<JobReport> {
    let mut workers = tokio::select! {
        workers = load_workers(spec, args) => workers?,
        () = signals::asked_to_stop(shutdown.clone()) => {
            tell!("stopped before the models were loaded; the same command starts again");
            signals::exit_interrupted()
        }
    };
    let result = tokio::select! {
        result = run_watched(job, workers.cluster(), args, job_watch, shutdown) => result,
        failure = workers.failure() => Err(failure),
    };
    workers.stop().await;
    result
}

async fn load_workers(spec: &JobSpec, args: &RunArgs) -> anyhow::Result<InProcessWorkers> {
    // A flipped bit in a weight would only show as bad text, so every byte is checked, at disk speed.
    tell!("verifying bundle {}", spec.bundle);
    let bundle_path = PathBuf::from(&spec.bundle);
    let bundle = tokio::task::spawn_blocking(move || baton_bundle::verify(&bundle_path)).await??;
    tell!("loading models");
    let compute = args.machine.compute.compute()?;
    let engines = args.machine.compute.engines(compute, weights_num_bytes(&bundle));
    let decoder = args
        .decoder(&bundle, (compute, engines), spec)?
        .with_room_for(&bundle, spec.generation.sequences_per_record() as usize)?;
    InProcessWorkers::start(&bundle, args.encoder((compute, engines), spec), decoder).await
}

/// Runs the job while the terminal shows its progress.
async fn run_watched(
    job: &PreparedJob,
    cluster: Cluster,
    args: &RunArgs,
    job_watch: &JobWatch,
    shutdown: watch::Receiver<Shutdown>,
) -> anyhow::Result<JobReport> {
    let options = args.dispatch.options();
    let show = terminal::show_progress(job_watch.status.subscribe());
    let result = tokio::select! {
        result = job.run(cluster, &options, job_watch, shutdown) => result,
        never = show => match never {},
    };
    Ok(result?)
}

async fn serve_pages(address: SocketAddr, job: &PreparedJob, job_watch: &JobWatch) -> anyhow::Result<()> {
    let metrics = MetricsRegistry::new("coordinator");
    job_watch.metrics.register(&metrics);
    let readiness = watch::channel(Readiness::Ready).1;
    let server = HttpServer::bind(address, metrics, readiness).await?;
    tell!("status page: http://{}/", server.local_address());
    let title = watch::channel(Some(JobTitle::of(job))).1;
    tokio::spawn(server.with_pages(pages(title, job_watch.status.subscribe())).serve());
    Ok(())
}

impl RunArgs {
    fn encoder(&self, machine: (Compute, usize), spec: &JobSpec) -> EncoderConfig {
        let suited = EncoderConfig::for_device(spec.mode, machine);
        let batch_tokens = self.machine.encode_batch_tokens;
        let max_batch_tokens = batch_tokens.map_or(suited.max_batch_tokens, |tokens| tokens as usize);
        EncoderConfig { max_batch_tokens, limits: self.limits(), ..suited }
    }

    fn decoder(
        &self,
        bundle: &Bundle,
        machine: (Compute, usize),
        spec: &JobSpec,
    ) -> Result<DecoderConfig, DecoderError> {
        let suited = DecoderConfig::for_device(bundle, spec.mode, machine)?;
        let max_slots = self.machine.decode_slots.map_or(suited.max_slots, |slots| slots as usize);
        Ok(DecoderConfig { max_slots, limits: self.limits(), ..suited })
    }

    /// Within one process, only the coordinator bounds the work in flight.
    fn limits(&self) -> WorkerLimits {
        WorkerLimits {
            max_open_shards: self.dispatch.shards_in_flight as usize,
            max_record_num_bytes: usize::MAX,
        }
    }
}
