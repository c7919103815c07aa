//! The `baton` command end to end: real processes, a real bundle (tiny, with random weights), real files.
//!
//! The tests check guarantees to users: every record is in exactly one of outputs and errors; bytes depend
//! neither on machine settings nor on processes that die; refusals say what to do; exit codes are right.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod bad_input;
mod broken_inputs;
mod bundle;
mod cascade;
mod command;
mod determinism;
mod disk_full;
mod distillation;
mod doctor;
mod documents;
mod eval;
mod formats;
mod generation;
mod generation_options;
mod guides;
mod languages;
mod llm_mode;
mod parquet;
mod quality;
mod recipes;
mod refusals;
mod restart;
mod reuse;
mod s3;
mod sentences;
mod services;
mod shortlists;
mod small_models;
mod terms;
mod texts;
