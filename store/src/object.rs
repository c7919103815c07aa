//! An object's metadata, known without reading it.

use std::fs::Metadata;
use std::time::UNIX_EPOCH;

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its key, relative to the store.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Changes when the content does.
    pub etag: String,
}

/// The outcome of a conditional create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a create may have been lost to another writer"]
pub enum CreateOutcome {
    /// The object is ours and durable.
    Created,
    /// The object exists and was not touched. It is another writer's, or our own: if the answer to a create
    /// on S3 is lost, the repeated request finds the object of the first. If the difference matters, compare
    /// bytes.
    AlreadyExists,
}

/// A local file's tag: its modification time in nanoseconds and its size, both hexadecimal.
pub(crate) fn etag_of(metadata: &Metadata) -> String {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    format!("{:x}-{:x}", modified.unwrap_or_default().as_nanos(), metadata.len())
}
