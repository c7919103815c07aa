//! The end of a job: `_SUCCESS`, made from the verdicts and written last.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use baton_job::layout::MANIFEST_KEY;
use baton_job::{Manifest, ShardIndex, Timings, Totals};

use crate::{CoordinatorError, PreparedJob};

/// Writes the manifest of a job whose `num_shards` shards are all committed, and returns its totals. If another coordinator wrote it
/// first, that one stands: it has the same parts.
pub(crate) async fn write_manifest(
    job: &PreparedJob,
    num_shards: u32,
    elapsed: Duration,
) -> Result<Totals, CoordinatorError> {
    let mut manifest = Manifest::new(job.record.bundle_digest.clone());
    for shard in (0..num_shards).map(ShardIndex) {
        manifest.add(&job.verdict(shard).await?);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    manifest.timings =
        Timings { finished_unix_seconds: now.as_secs(), last_run_seconds: elapsed.as_secs_f64() };
    let _ = job.store.create(MANIFEST_KEY, manifest.to_json().into()).await?;
    Ok(manifest.totals)
}
