//! The process `baton-coordinator`: its flags, its pages, its exit code.

use std::process::ExitCode;
use std::time::Duration;

use baton_job::Partition;
use baton_proto::{Connections, SecurityArgs, error_chain};
use baton_telemetry::{HttpServer, MetricsRegistry, Readiness, TelemetryArgs, tell};
use clap::Parser;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::flags::{ClusterArgs, DispatchArgs, JobArgs};
use crate::signals::{INTERRUPTED, asked_to_stop, watch_signals};
use crate::status_page::{JobTitle, routes};
use crate::tiers::tiers_said;
use crate::{
    BROKEN_INPUTS, Cluster, CoordinatorError, JobOutcome, JobReport, JobStatus, JobWatch, PreparedJob,
    Shutdown,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The interval of logging progress.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The exit codes of a job's process, for help texts.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    every record succeeded; of a partition, every record of it
  1    the job cannot start, or failed; committed shards stay, and the same command continues from there
  2    the flags or the job file are wrong, or do not fit the bundle or the input; nothing was started
  3    the job, or this partition, is complete, but some records failed: see errors/ in the output directory;
       with --accept-failed-records the code is 0
  4    an input is damaged, or changed since the job began; the other inputs are done, there is no _SUCCESS,
       and another try changes nothing: mend the input and run the job into a new output directory
  130  interrupted; the same command continues where it stopped

Signals:
  SIGINT, SIGTERM or SIGHUP finishes the shards in flight and stops; a second one stops at once.";

/// Runs a job, or a partition of one, on a cluster: reads the corpus, gives its shards to encoders and
/// decoders, writes the manifest.
#[derive(Debug, Parser)]
#[command(name = "baton-coordinator", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct CoordinatorArgs {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    dispatch: DispatchArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
    #[command(flatten)]
    security: SecurityArgs,
}

/// Runs the process to its exit code. All its messages are log lines.
#[must_use]
pub fn run(args: &CoordinatorArgs) -> ExitCode {
    let _logging = match args.telemetry.log.init("info", "coordinator") {
        Ok(logging) => logging,
        Err(error) => {
            tell!("error: {}", error_chain(&error));
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the async runtime");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run_job(args));
    runtime.shutdown_background(); // a thread that waits for the network is not waited for
    match result {
        Ok(report) => exit_code(&report, args.dispatch.accept_failed_records),
        Err(error) => {
            tracing::error!(error = error_chain(error.as_ref()), "the job failed");
            match error.downcast_ref::<CoordinatorError>() {
                Some(error) => ExitCode::from(error.exit_code()),
                None if error.is::<baton_proto::SecurityError>() => ExitCode::from(2),
                None => ExitCode::FAILURE,
            }
        }
    }
}

/// The exit code of a job that did not fail.
#[must_use]
pub fn exit_code(report: &JobReport, accepts_failed_records: bool) -> ExitCode {
    match report.outcome {
        JobOutcome::Complete => ExitCode::SUCCESS,
        JobOutcome::CompleteWithFailures if accepts_failed_records => ExitCode::SUCCESS,
        JobOutcome::CompleteWithFailures => ExitCode::from(3),
        JobOutcome::InputsBroken => ExitCode::from(BROKEN_INPUTS),
        JobOutcome::Interrupted => ExitCode::from(INTERRUPTED),
    }
}

async fn run_job(args: &CoordinatorArgs) -> Result<JobReport, BoxError> {
    let shutdown = watch_signals(|wish| match wish {
        Shutdown::Now => tracing::warn!("interrupted twice, stopping at once"),
        _ => tracing::info!("finishing the shards in flight"),
    })?;
    let (spec, digest) = args.job.to_spec()?;
    let missing = || CoordinatorError::MissingFlags { flags: "--encoders LIST, --decoders LIST".to_owned() };
    let (encoders, decoders) =
        args.cluster.encoders.clone().zip(args.cluster.decoders.clone()).ok_or_else(missing)?;
    let connections = Connections::new(args.security.load()?.client);

    let job_watch = JobWatch::default();
    let readiness = watch::Sender::new(Readiness::not_ready("preparing the job"));
    let title = watch::Sender::new(None);
    if let Some(address) = args.telemetry.http_listen.address() {
        let metrics = MetricsRegistry::new("coordinator");
        job_watch.metrics.register(&metrics);
        let server = HttpServer::bind(address, metrics, readiness.subscribe()).await?;
        tracing::info!(address = %server.local_address(), "serving the status page");
        tokio::spawn(server.with_pages(routes(title.subscribe(), job_watch.status.subscribe())).serve());
    }
    let partition = args.dispatch.partition;
    let (output, generation) = (spec.output.clone(), spec.generation.said());
    let cascade = tiers_said(&spec.tiers);
    let job = tokio::select! {
        job = PreparedJob::open(spec, &digest, partition) => job?,
        () = asked_to_stop(shutdown.clone()) => return Ok(JobReport::not_begun()),
    };
    title.send_replace(Some(JobTitle::of(&job)));
    readiness.send_replace(Readiness::Ready);
    tracing::info!(output, %partition, %generation, cascade, "the job begins");

    let log = tokio::spawn(log_progress(job_watch.status.subscribe()));
    let cluster = Cluster::discover(connections, encoders, decoders);
    let result = job.run(cluster, &args.dispatch.options(), &job_watch, shutdown).await;
    log.abort();
    let report = result?;
    log_report(&report, partition);
    if let Some(broken) = report.broken_inputs() {
        tracing::error!(error = broken, "inputs are broken");
    }
    Ok(report)
}

async fn log_progress(status: watch::Receiver<JobStatus>) {
    let mut ticks = interval(LOG_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // the first comes at once
    loop {
        ticks.tick().await;
        let status = status.borrow().clone();
        tracing::info!(
            records = status.progress.done_records(),
            expected = status.progress.expected_records(),
            failed = status.progress.committed.errors,
            records_per_second = status.records_per_second.round(),
            in_flight = status.shards.in_flight,
            waiting = status.shards.waiting,
            seconds_left = status.time_left().map(|left| left.as_secs()),
            "progress"
        );
    }
}

fn log_report(report: &JobReport, partition: Partition) {
    let totals = &report.totals;
    tracing::info!(
        %partition,
        outcome = ?report.outcome,
        job_has_ended = report.job_has_ended,
        was_complete = report.was_complete,
        shards = totals.shards,
        succeeded = totals.outputs,
        failed = totals.errors,
        output_tokens = totals.output_tokens,
        warnings = %totals.warnings,
        term_adherence = totals.terms.adherence(),
        drafted_tokens = report.drafts.drafted_tokens,
        accepted_tokens = report.drafts.accepted_tokens,
        llm_passes = report.drafts.llm_passes,
        segments = report.reuse.segments,
        reused_segments = report.reuse.reused(),
        seconds = report.elapsed.as_secs_f64(),
        "the coordinator is done"
    );
}
