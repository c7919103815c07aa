//! The coordinator's process; see `baton_coordinator::process`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    baton_coordinator::process::run(&baton_coordinator::process::CoordinatorArgs::parse())
}
