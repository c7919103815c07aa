//! The one door to the places where corpora are read and outputs are committed.
//!
//! [`Store`] is a directory of immutable objects with an atomic conditional create: if several writers create
//! one key, exactly one succeeds, and nobody ever sees half an object. All of Baton's exactly-once semantics
//! rest on that operation; `conformance` states the guarantees of each backend. [`list_inputs`] and
//! [`open_input`] read the corpus, which may lie anywhere.
//!
//! This crate knows keys and bytes. It does not know shards, records or parts.
//!
//! Two backends: a local directory, whose operations run on the runtime's blocking threads, and a prefix of
//! an S3 bucket. Dropping a future does not stop a write, which then completes or fails unseen; since creates
//! are atomic and repeatable, that is safe.

#[cfg(test)]
mod conformance;
mod error;
mod inputs;
mod key;
mod local;
mod location;
mod object;
mod s3;
mod store;

pub use error::StoreError;
pub use inputs::{
    InputFile, InputRanges, is_input_changed, is_named_by, list_inputs, open_input, open_ranges, open_read,
};
pub use location::Location;
pub use object::{CreateOutcome, ObjectMeta};
pub use s3::S3Failure;
pub use store::Store;
