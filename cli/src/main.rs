//! The `baton` command: runs jobs, trains, evaluates, and manages bundles.
//!
//! Owns argument parsing, logging and exit codes; everything else is in the libraries.

mod bench;
mod bundle;
mod collect;
mod completions;
mod doctor;
mod eval;
mod job;
mod plan;
mod run;
mod train;

use std::process::ExitCode;

use baton_telemetry::{LogArgs, tell};
use clap::{Parser, Subcommand};

/// The large model reads, the small model writes: bulk translation and summarization with LLM-to-SLM models.
#[derive(Debug, Parser)]
#[command(name = "baton", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Translate or summarize a corpus.
    Run(Box<run::RunArgs>),
    /// Put all parts of a finished job into one file.
    Collect(collect::CollectArgs),
    /// Look after the output of a job.
    Job(job::JobCommandArgs),
    /// Read a job's inputs, and report their content and every failure. Writes nothing.
    Plan(Box<plan::PlanArgs>),
    /// Train projector and small model from pairs of texts, or fine-tune the LLM on them.
    Train(train::TrainArgs),
    /// Measure quality and speed of bundles on a test set.
    Eval(eval::EvalArgs),
    /// Import, extend, show and verify bundles.
    Bundle(bundle::BundleArgs),
    /// Measure the decode loop, the encoder and whole jobs on this machine.
    Bench(bench::BenchArgs),
    /// Check whether this machine can run a job: CPU, memory, store, bundle, ports.
    Doctor(doctor::DoctorArgs),
    /// Write a shell's completions to standard output.
    Completions(completions::CompletionsArgs),
    /// Write manual pages.
    Manual(completions::ManualArgs),
}

fn main() -> ExitCode {
    baton_worker::settle_libraries();
    let cli = Cli::parse();
    let _logging = match cli.log.init("warn", "cli") {
        Ok(logging) => logging,
        Err(error) => {
            tell!("error: {}", baton_proto::error_chain(&error));
            return ExitCode::from(2);
        }
    };
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Collect(args) => collect::run(&args),
        Command::Job(args) => job::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Bundle(args) => bundle::run(args).map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => {
            completions::completions(&args);
            Ok(ExitCode::SUCCESS)
        }
        Command::Manual(args) => completions::manual(&args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        tell!("error: {error:#}");
        ExitCode::FAILURE
    })
}
