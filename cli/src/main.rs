//! The `baton` command: run a job, train a small model, look after bundles.
//!
//! Owns argument parsing, logging and exit codes; everything else is in the libraries.

mod bundle;
mod environment;
mod run;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The large model reads, the small model writes: bulk translation and summarization with LLM-to-SLM models.
#[derive(Debug, Parser)]
#[command(name = "baton", version, max_term_width = 100)]
struct Cli {
    /// What to log on stderr, in the syntax of tracing's EnvFilter, for example `info` or `baton_coordinator=debug`.
    #[arg(long, global = true, env = "BATON_LOG", default_value = "warn")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Translate or summarize a corpus.
    Run(run::RunArgs),
    /// Train projector and small model from pairs of texts.
    Train(train::TrainArgs),
    /// Import, show and verify bundles.
    Bundle(bundle::BundleArgs),
}

fn main() -> ExitCode {
    environment::settle_libraries();
    let cli = Cli::parse();
    if let Err(error) = environment::init_logging(&cli.log) {
        eprintln!("error: --log {}: {error}", cli.log);
        return ExitCode::from(2);
    }
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Bundle(args) => bundle::run(args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
