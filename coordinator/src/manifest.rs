//! The end of a job: the report for people, then `_SUCCESS`. The coordinator that finds all parts makes both
//! from the verdicts.

use std::io::{BufWriter, Cursor, Read, Seek};
use std::time::{SystemTime, UNIX_EPOCH};

use baton_job::layout::{MANIFEST_KEY, part_key};
use baton_job::{BrokenInput, ManifestBuilder, ManifestPieces, ShardIndex, ShardSet, Timings};
use futures_util::StreamExt;
use futures_util::stream;

use crate::CoordinatorError;
use crate::final_report::{FailureKinds, RunFigures};
use crate::prepare::{CONCURRENT_READS, PreparedJob};
use crate::review::write_review;

/// Ends a job of `num_shards` shards if all of them are committed, including those of other partitions.
/// Returns whether they are.
///
/// Every coordinator asks after its own last commit, so the last one to ask finds all parts. If two ask at
/// once, the first to create the manifest ends the job; the other's manifest is the same. If any coordinator
/// found an input broken, the job has no manifest.
pub(crate) async fn end_job(
    job: &PreparedJob,
    num_shards: u32,
    run: &RunFigures,
) -> Result<bool, CoordinatorError> {
    if !job.partition.is_whole() {
        let found = job.list_parts().await?;
        job.check_no_stray_part(&found, num_shards)?;
        if found.len() < u64::from(num_shards) {
            return Ok(false);
        }
    }
    let broken: Vec<BrokenInput> = job.broken_inputs().await?.into_values().collect();
    if !broken.is_empty() {
        return Err(CoordinatorError::InputsBroken { broken });
    }
    if let Some(review) = job.spec.generation.review {
        write_review(job, review).await?;
    }
    let amended = &job.list_amended().await?;
    let shards = (0..num_shards).map(ShardIndex);
    let mut verdicts =
        stream::iter(shards.map(|shard| job.verdict(shard, amended))).buffered(CONCURRENT_READS);
    let spool_error = |source| CoordinatorError::Spool { source };
    let spool = tempfile::tempfile().map_err(spool_error)?; // so that memory stays flat
    let mut manifest = ManifestBuilder::new(job.spec.output_format, BufWriter::new(spool));
    let mut failures = FailureKinds::default();
    while let Some(verdict) = verdicts.next().await {
        let verdict = verdict?;
        manifest.add(&verdict).map_err(spool_error)?;
        failures.add(&verdict);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let timings = Timings {
        finished_unix_seconds: now.as_secs(),
        last_run_seconds: run.seconds(),
        last_run_reuse: run.reuse(),
    };
    job.create_report(manifest.totals(), failures, run, now.as_secs()).await?;
    let ManifestPieces { head, parts, tail } = manifest.finish(job.record.bundle_digest.clone(), timings);
    let mut parts = parts.into_inner().map_err(|error| spool_error(error.into_error()))?;
    parts.rewind().map_err(spool_error)?;
    let manifest = Cursor::new(head).chain(parts).chain(tail);
    let _ = job.store.create_from(MANIFEST_KEY, manifest).await?; // another coordinator's stands as well
    Ok(true)
}

impl PreparedJob {
    /// Refuses parts beyond the input.
    pub(crate) fn check_no_stray_part(
        &self,
        found: &ShardSet,
        num_shards: u32,
    ) -> Result<(), CoordinatorError> {
        match found.last() {
            Some(shard) if shard.0 >= num_shards => Err(CoordinatorError::StrayPart {
                key: part_key(shard, self.spec.output_format),
                num_shards: num_shards.into(),
            }),
            _ => Ok(()),
        }
    }
}
