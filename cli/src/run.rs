//! `baton run`: a job from a file or flags to a summary and an exit code. All three roles run in this
//! process, or only the coordinator, against a cluster.
//!
//! Owns terminal output. The roles are those of the services, joined by the same gRPC contracts; a job's
//! flags are `baton-coordinator`'s.

mod in_process;
mod machine;
mod terminal;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use baton_bundle::Bundle;
use baton_coordinator::flags::{ClusterArgs, DispatchArgs, JobArgs};
use baton_coordinator::process::{EXIT_CODES, exit_code};
use baton_coordinator::status_page::{JobTitle, routes};
use baton_coordinator::{
    Cluster, CoordinatorError, JobReport, JobWatch, PreparedJob, Shutdown, signals, tiers_said,
};
use baton_job::JobSpec;
use baton_proto::{Connections, SecurityArgs};
use baton_telemetry::{HttpServer, MetricsRegistry, Readiness, tell};
use tokio::sync::watch;

pub(crate) use in_process::{InProcessWorkers, run_unwatched};
pub(crate) use machine::MachineArgs;
pub(crate) use terminal::show_tiers;

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
        if let Some(tiers) = tiers_said(&spec.tiers) {
            tell!("cascade: {tiers}");
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
    let workers = tokio::select! {
        workers = args.machine.load_workers(spec, args.dispatch.shards_in_flight) => workers?,
        () = signals::asked_to_stop(shutdown.clone()) => {
            tell!("stopped before the models were loaded; the same command starts again");
            signals::exit_interrupted()
        }
    };
    workers.run(async |cluster| run_watched(job, cluster, args, job_watch, shutdown).await).await
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
    tokio::spawn(server.with_pages(routes(title, job_watch.status.subscribe())).serve());
    Ok(())
}
