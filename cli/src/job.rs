//! `baton job check`: whether a job's output is what its records say.

#![allow(clippy::print_stdout, reason = "the result is what the command is asked for")]

use std::process::ExitCode;

use anyhow::Context;
use baton_coordinator::OutputCheck;
use clap::Subcommand;
use indicatif::{HumanBytes, HumanCount};

/// Problems shown; the others are counted.
const MAX_PROBLEMS_SHOWN: usize = 50;

const EXIT_CODES: &str = "\
Exit codes:
  0  the job is finished, and its output is what its records say
  1  something is damaged or missing, or cannot be reached
  3  all that is there is right, but the job is not finished";

/// Arguments of `baton job`.
#[derive(Debug, clap::Args)]
pub(crate) struct JobCommandArgs {
    #[command(subcommand)]
    command: JobCommand,
}

#[derive(Debug, Subcommand)]
enum JobCommand {
    /// Check every part and error file of an output against its verdict and the manifest.
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
struct CheckArgs {
    /// Output directory or prefix of a job. Examples: out; s3://bucket/out
    #[arg(value_name = "OUT")]
    output: String,
}

/// Runs `baton job`.
///
/// # Errors
/// There is no job, or the store does not answer.
pub(crate) fn run(args: &JobCommandArgs) -> anyhow::Result<ExitCode> {
    let JobCommand::Check(CheckArgs { output }) = &args.command;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let check = runtime.context("cannot start the async runtime")?.block_on(OutputCheck::of(output))?;
    for problem in check.problems.iter().take(MAX_PROBLEMS_SHOWN) {
        println!("{problem}");
    }
    if check.problems.len() > MAX_PROBLEMS_SHOWN {
        println!("... and {} more problems", check.problems.len() - MAX_PROBLEMS_SHOWN);
    }
    let totals = &check.totals;
    println!(
        "{output}: {}, {} sound parts with {} rows and {} failed records, {}",
        if check.is_finished { "finished" } else { "not finished" },
        HumanCount(totals.shards),
        HumanCount(totals.outputs),
        HumanCount(totals.errors),
        HumanBytes(totals.output_bytes),
    );
    Ok(match (check.problems.is_empty(), check.is_finished) {
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::from(3),
        (false, _) => ExitCode::FAILURE,
    })
}
