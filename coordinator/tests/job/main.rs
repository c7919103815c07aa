//! The coordinator against encoders that follow a test's script, over real streams and a real output
//! directory.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod broken_inputs;
mod check;
mod failures;
mod new_inputs;
mod partitions;
mod report;
mod run_job;
mod support;
