//! The coordinator against encoders that follow a test's script, over real streams and a real output
//! directory.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod broken_inputs;
mod failures;
mod new_inputs;
mod partitions;
mod run_job;
mod support;
