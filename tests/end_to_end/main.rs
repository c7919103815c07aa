//! The `baton` command end to end: real processes, a real bundle (tiny, with random weights), real files.
//!
//! What is checked is what a user relies on: every record in exactly one of outputs and errors, the same
//! bytes whatever the machine settings and whatever dies on the way, refusals that say what to do, and the
//! exit codes.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod bad_input;
mod broken_inputs;
mod bundle;
mod command;
mod determinism;
mod disk_full;
mod distillation;
mod eval;
mod formats;
mod generation;
mod generation_options;
mod guides;
mod llm_mode;
mod refusals;
mod restart;
mod s3;
mod sentences;
mod services;
mod small_models;
