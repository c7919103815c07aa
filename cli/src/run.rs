//! `baton run`: the three roles in one process, from a job file or flags to a summary and an exit code.
//!
//! Owns flags, terminal output and exit codes. The roles are those that run as services, joined by the same gRPC contracts.

mod in_process;
mod job;
mod terminal;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use baton_bundle::Bundle;
use baton_coordinator::{CoordinatorError, JobOutcome, JobReport, PreparedJob, Progress, RunOptions};
use baton_decoder_svc::DecoderConfig;
use baton_encoder_svc::EncoderConfig;
use baton_job::{JobError, JobSpec};
use baton_store::StoreError;
use clap::value_parser;
use tokio::sync::watch;

use in_process::InProcessWorkers;
pub(crate) use job::JobArgs;

const EXIT_CODES: &str = "\
Exit codes:
  0    every record succeeded
  1    the job cannot start, or failed; what was committed stays, and the same command goes on from there
  2    the flags or the job file are wrong, or do not fit the bundle or the input; nothing was started
  3    the job is complete, but some records failed: see errors/ in the output directory
  130  interrupted; the same command goes on where it was

Signals:
  SIGINT, SIGTERM or SIGHUP finishes the shards in flight and stops; a second one stops at once.

Examples:
  baton run --bundle models/en-it --input corpus.jsonl --output out
  baton run job.toml --max-new-tokens 64";

/// Arguments of `baton run`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    machine: MachineArgs,
}

/// How this machine is used. None of it changes an output byte.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Machine")]
struct MachineArgs {
    /// Prompt tokens encoded in one pass of the large model. More cost memory.
    #[arg(long, value_name = "TOKENS", default_value_t = 1024, value_parser = value_parser!(u32).range(1..=1_048_576))]
    encode_batch_tokens: u32,
    /// Rows decoded at once.
    #[arg(long, value_name = "ROWS", default_value_t = 64, value_parser = value_parser!(u32).range(1..=65_536))]
    decode_slots: u32,
    /// Shards processed at once. Each is held in memory.
    #[arg(long, value_name = "SHARDS", default_value_t = 4, value_parser = value_parser!(u32).range(1..=1024))]
    shards_in_flight: u32,
    /// How long shards in flight may take to finish after an interrupt, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace_seconds: u64,
}

/// Runs `baton run`.
///
/// # Errors
/// The job cannot start, or failed.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let spec = match args.job.to_spec() {
        Ok(spec) => spec,
        Err(error) => return Ok(refuse_usage(&error)),
    };
    let bundle = Bundle::open(Path::new(&spec.bundle))?;
    if let Err(error) = job::check_bundle_serves(&bundle, &spec) {
        return Ok(refuse_usage(&error));
    }
    // Encoder and decoder run side by side. More threads in one product would also split its sums otherwise, and with them the bytes.
    baton_model::set_num_threads(1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2) // they only move messages; the models have threads of their own
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let job = match runtime.block_on(PreparedJob::open(spec.clone(), bundle.digest())) {
        Err(error) if is_wrong_usage(&error) => return Ok(refuse_usage(&error.into())),
        prepared => prepared?,
    };
    let report = runtime.block_on(run_job(job, &spec, &args.machine))?;
    Ok(match report.outcome {
        JobOutcome::Complete => ExitCode::SUCCESS,
        JobOutcome::CompleteWithFailures => ExitCode::from(3),
        JobOutcome::Interrupted => ExitCode::from(130),
    })
}

/// Whether a job that cannot be prepared was described wrongly, rather than met by a broken disk or network.
fn is_wrong_usage(error: &CoordinatorError) -> bool {
    matches!(
        error,
        CoordinatorError::Job(JobError::SpecValue { .. } | JobError::UnknownFormat { .. })
            | CoordinatorError::Store(
                StoreError::InvalidLocation { .. }
                    | StoreError::InvalidPattern { .. }
                    | StoreError::NoInput { .. }
            )
            | CoordinatorError::OutputAmongInputs { .. }
    )
}

fn refuse_usage(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(2)
}

async fn run_job(job: PreparedJob, spec: &JobSpec, machine: &MachineArgs) -> anyhow::Result<JobReport> {
    if let Some(report) = job.finished_report().await? {
        terminal::show_summary(&report, &spec.output);
        return Ok(report);
    }
    let shutdown = terminal::watch_signals()?;
    // A flipped bit in a weight would only show as bad text, so every byte is checked, at disk speed.
    eprintln!("verifying bundle {}", spec.bundle);
    let bundle_path = PathBuf::from(&spec.bundle);
    let bundle = tokio::task::spawn_blocking(move || baton_bundle::verify(&bundle_path)).await??;
    eprintln!("loading models");
    let mut workers = InProcessWorkers::start(&bundle, machine.encoder(), machine.decoder()).await?;

    let (progress_sender, progress) = watch::channel(Progress::default());
    let display = tokio::spawn(terminal::show_progress(progress));
    let (pair, options) = ([workers.pair().clone()], machine.run_options());
    let result = tokio::select! {
        result = job.run(&pair, &options, &progress_sender, shutdown) => result.map_err(anyhow::Error::from),
        failure = workers.failure() => Err(failure),
    };
    drop(progress_sender);
    display.await?;
    workers.stop().await;
    let report = result?;
    terminal::show_summary(&report, &spec.output);
    Ok(report)
}

impl MachineArgs {
    fn encoder(&self) -> EncoderConfig {
        EncoderConfig { max_batch_tokens: self.encode_batch_tokens as usize, ..EncoderConfig::cpu() }
    }

    fn decoder(&self) -> DecoderConfig {
        DecoderConfig { max_slots: self.decode_slots as usize, ..DecoderConfig::cpu() }
    }

    fn run_options(&self) -> RunOptions {
        RunOptions {
            max_shards_in_flight_per_worker: self.shards_in_flight as usize,
            grace_period: Duration::from_secs(self.grace_seconds),
            ..RunOptions::default()
        }
    }
}
