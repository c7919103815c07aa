//! The shards of a job that one pass over its inputs does.

use std::sync::Arc;

use baton_job::{Partition, ShardIndex, ShardSet};

/// A coordinator's own shards, or those that it finishes for others.
#[derive(Debug, Clone)]
pub(crate) enum Share {
    Own(Partition),
    TakenOver(Arc<ShardSet>),
}

impl Share {
    pub(crate) fn has(&self, shard: ShardIndex) -> bool {
        match self {
            Share::Own(partition) => partition.owns(shard),
            Share::TakenOver(shards) => shards.contains(shard),
        }
    }
}
