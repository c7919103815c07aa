//! The limits of the work that a service takes on.

/// Bounds on the shards of a service. The default suits a role that shares its process with the coordinator,
/// which then bounds the work in flight.
#[derive(Debug, Clone, Copy)]
pub struct WorkerLimits {
    /// Shards worked on at once.
    pub max_open_shards: usize,
    /// Bytes of texts, ids and kept fields, all open shards together.
    pub max_record_num_bytes: usize,
}

impl Default for WorkerLimits {
    fn default() -> Self {
        Self { max_open_shards: usize::MAX, max_record_num_bytes: usize::MAX }
    }
}
