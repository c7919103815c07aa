//! The commit of a shard: verdict, error rows, part, each created conditionally and in this order.
//!
//! Owns the rule that makes output exactly once without a database. Whoever creates the verdict first decides which records failed;
//! whoever comes later obeys it, so every attempt makes the same error rows and the same part. A crash between any two steps leaves
//! nothing that the next attempt does not complete to the same bytes. The shard is committed when its part exists.

use std::collections::HashSet;

use baton_job::layout::{errors_key, part_key, verdict_key};
use baton_job::{JobError, PartSummary, RecordSource, ShardIndex, Verdict};
use baton_store::{CreateOutcome, Store, StoreError};
use bytes::Bytes;

use crate::collector::Outcome;

/// A committed shard.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Commit {
    pub(crate) verdict: Verdict,
    /// True where another attempt had created the part.
    pub(crate) already_committed: bool,
}

/// Why a shard could not be committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The store failed.
    #[error("cannot commit shard {shard}")]
    Store {
        /// The shard.
        shard: ShardIndex,
        /// The cause.
        #[source]
        source: StoreError,
    },
    /// What another attempt left cannot be used.
    #[error("cannot commit shard {shard}")]
    Left {
        /// The shard.
        shard: ShardIndex,
        /// What is wrong with it.
        #[source]
        source: JobError,
    },
    /// The verdict wants an output that this attempt does not have. Another attempt may have it.
    #[error(
        "the verdict of shard {shard} has an output for {uri}, line {line}, which failed in this attempt"
    )]
    OutputMissing {
        /// The shard.
        shard: ShardIndex,
        /// Input of the record.
        uri: String,
        /// Line of the record.
        line: u64,
    },
    /// This attempt generated other bytes than the one that made the verdict.
    #[error(
        "shard {shard} came out as {found}, its verdict has {expected}: the first attempt ran another version of Baton \
         or another kind of processor, so go on where it ran, or use another output directory"
    )]
    OtherBytes {
        /// The shard.
        shard: ShardIndex,
        /// sha256 in the verdict.
        expected: String,
        /// sha256 of what this attempt made.
        found: String,
    },
}

/// Commits `outcomes`, one per record in record order, as shard `shard` of the job in `store`.
///
/// Dropping the future between two steps is a crash at that point: safe, and completed by the next attempt.
pub(crate) async fn commit(
    store: &Store,
    shard: ShardIndex,
    outcomes: &[Outcome],
) -> Result<Commit, CommitError> {
    let store_error = |source| CommitError::Store { shard, source };
    let (own_verdict, own_part) = judge(shard, outcomes);
    let created =
        store.create(&verdict_key(shard), own_verdict.to_json().into()).await.map_err(store_error)?;
    let (verdict, part) = match created {
        CreateOutcome::Created => (own_verdict, own_part),
        CreateOutcome::AlreadyExists => {
            let verdict = read_verdict(store, shard).await?;
            if is_committed(store, &verdict).await? {
                return Ok(Commit { verdict, already_committed: true });
            }
            let part = part_by(&verdict, outcomes)?;
            (verdict, part)
        }
    };
    if !verdict.failed.is_empty() {
        // Whoever wins this race, the rows are the verdict's.
        let _ = store.create(&errors_key(shard), verdict.error_rows().into()).await.map_err(store_error)?;
    }
    match store.create(&part_key(shard), part).await.map_err(store_error)? {
        CreateOutcome::Created => Ok(Commit { verdict, already_committed: false }),
        CreateOutcome::AlreadyExists => {
            is_committed(store, &verdict).await?;
            Ok(Commit { verdict, already_committed: true })
        }
    }
}

/// The verdict and part of an attempt that comes first.
fn judge(shard: ShardIndex, outcomes: &[Outcome]) -> (Verdict, Bytes) {
    let mut failed = Vec::new();
    let mut part = Vec::new();
    let (mut rows, mut prompt_tokens, mut output_tokens) = (0, 0, 0);
    for outcome in outcomes {
        match outcome {
            Outcome::Output { row, .. } => {
                part.extend(row.to_json_line());
                rows += 1;
                prompt_tokens += u64::from(row.prompt_tokens);
                output_tokens += u64::from(row.output_tokens);
            }
            Outcome::Failed(failure) => failed.push(failure.clone()),
        }
    }
    let outputs = PartSummary { prompt_tokens, output_tokens, ..PartSummary::of(&part, rows) };
    (Verdict { shard, records: outcomes.len() as u64, failed, outputs }, part.into())
}

/// The part that an earlier attempt's verdict calls for, made from this attempt's outcomes: the rows of all records that the verdict
/// does not list as failed.
fn part_by(verdict: &Verdict, outcomes: &[Outcome]) -> Result<Bytes, CommitError> {
    let shard = verdict.shard;
    let failed: HashSet<&RecordSource> = verdict.failed.iter().map(|failure| &failure.source).collect();
    let mut part = Vec::new();
    let mut rows = 0;
    for outcome in outcomes {
        match outcome {
            Outcome::Output { source, .. } if failed.contains(source) => {}
            Outcome::Failed(failure) if failed.contains(&failure.source) => {}
            Outcome::Output { row, .. } => {
                part.extend(row.to_json_line());
                rows += 1;
            }
            Outcome::Failed(failure) => {
                let RecordSource { uri, line } = failure.source.clone();
                return Err(CommitError::OutputMissing { shard, uri, line });
            }
        }
    }
    let found = PartSummary::of(&part, rows).sha256;
    if found != verdict.outputs.sha256 {
        return Err(CommitError::OtherBytes { shard, expected: verdict.outputs.sha256.clone(), found });
    }
    Ok(part.into())
}

async fn read_verdict(store: &Store, shard: ShardIndex) -> Result<Verdict, CommitError> {
    let key = verdict_key(shard);
    let bytes =
        store.get(&key).await.map_err(|source| CommitError::Store { shard, source })?.unwrap_or_default();
    Verdict::from_json(shard, &bytes).map_err(|source| CommitError::Left { shard, source })
}

/// Whether the part exists; if it does, it must be the verdict's.
async fn is_committed(store: &Store, verdict: &Verdict) -> Result<bool, CommitError> {
    let shard = verdict.shard;
    let part = store.get(&part_key(shard)).await.map_err(|source| CommitError::Store { shard, source })?;
    let Some(part) = part else { return Ok(false) };
    verdict.check_part(&part).map_err(|source| CommitError::Left { shard, source })?;
    Ok(true)
}

#[cfg(test)]
mod tests;
