//! `baton completions` and `baton manual`: the command's definitions, for shells and for `man`.

use std::io;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::Cli;

/// Arguments of `baton completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell. Example for bash: baton completions bash > ~/.local/share/bash-completion/completions/baton
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `baton manual`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManualArgs {
    /// Directory for the pages, baton.1 and one for each subcommand. Created if absent.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Writes the completions to standard output.
pub(crate) fn completions(args: &CompletionsArgs) {
    clap_complete::generate(args.shell, &mut Cli::command(), "baton", &mut io::stdout());
}

/// Writes the manual's pages.
///
/// # Errors
/// The directory cannot be written.
pub(crate) fn manual(args: &ManualArgs) -> anyhow::Result<()> {
    let failed = || format!("cannot write manual pages to {}", args.directory.display());
    std::fs::create_dir_all(&args.directory).with_context(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.directory).with_context(failed)
}
