//! The worst outputs of a job, for a reader: `review.jsonl`, merged from what the shards' decoders left.

use std::io::{BufWriter, Seek, Write};

use baton_formats::{ReviewRow, worst_rows};
use baton_job::layout::{REVIEW_KEY, REVIEW_PREFIX, review_key, shard_of_review_key};
use baton_job::{JobError, ShardIndex, ShardSet};
use futures_util::StreamExt;
use futures_util::stream;

use crate::CoordinatorError;
use crate::prepare::{CONCURRENT_READS, PreparedJob};

/// Creates `review.jsonl`; that of another coordinator stands as well. The shards are committed.
///
/// Of a number of rows, twice as many are held in memory; of a threshold, none.
pub(crate) async fn write_review(job: &PreparedJob, review: f64) -> Result<(), CoordinatorError> {
    let add = |shards: &mut ShardSet, key: &str| shards.extend(shard_of_review_key(key));
    let shards = job.store.fold_keys(REVIEW_PREFIX, ShardSet::default(), add).await?;
    let spool_error = |source| CoordinatorError::Spool { source };
    let mut spool = BufWriter::new(tempfile::tempfile().map_err(spool_error)?);
    let mut worst: Vec<ReviewRow> = Vec::new();
    let read = |shard: ShardIndex| async move {
        let key = review_key(shard);
        let bytes = job.store.get(&key).await?.unwrap_or_default();
        Ok::<_, CoordinatorError>((key, bytes))
    };
    let mut objects = stream::iter(shards.iter().map(read)).buffered(CONCURRENT_READS);
    while let Some(object) = objects.next().await {
        let (key, bytes) = object?;
        if review < 1.0 {
            spool.write_all(&bytes).map_err(spool_error)?;
            continue;
        }
        for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let row = serde_json::from_slice(line).map_err(|source| {
                let (key, what) = (key.clone(), "list of outputs to review");
                JobError::CorruptObject { key, what, source }
            })?;
            worst.push(row);
        }
        if worst.len() as f64 >= 2.0 * review {
            worst = worst_rows(worst, review);
        }
    }
    if review >= 1.0 {
        for row in worst_rows(worst, review) {
            spool.write_all(&row.to_json_line()).map_err(spool_error)?;
        }
    }
    let mut file = spool.into_inner().map_err(|error| spool_error(error.into_error()))?;
    file.rewind().map_err(spool_error)?;
    let _ = job.store.create_from(REVIEW_KEY, file).await?;
    Ok(())
}
