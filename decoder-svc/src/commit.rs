//! The commit of a shard: verdict, error rows, part, each created conditionally and in this order.
//!
//! Owns the rule that makes output exactly once without a database. The first verdict decides which records
//! failed. Every later attempt obeys it, so every attempt makes the same error rows and the same part. A
//! crash between any two steps leaves nothing that the next attempt does not complete to the same bytes. The
//! shard is committed when its part exists.
//!
//! Another kind of processor may round differently. A later attempt there obeys the verdict, but makes other
//! bytes than its sums promise. It then creates an *amendment*: a verdict on the same records with its own
//! sums, under a key with its part's hash. Then it tries to create its part. One part is created, and its
//! hash tells which verdict holds.

use std::borrow::Cow;
use std::collections::HashSet;

use baton_formats::{OutputRow, PartOptions, ReviewRow, RowError, worst_rows};
use baton_job::layout::{amendment_key, errors_key, part_key, review_key, verdict_key};
use baton_job::{
    JobError, PartSummary, RecordSource, ShardIndex, TermCounts, TierSums, Verdict, WarningCounts, sha256_hex,
};
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
    /// Objects of another attempt are unusable.
    #[error("cannot commit shard {shard}")]
    Left {
        /// The shard.
        shard: ShardIndex,
        /// The problem.
        #[source]
        source: JobError,
    },
    /// The parts' format cannot hold the row.
    #[error("cannot write the part of shard {shard}")]
    Row {
        /// The shard.
        shard: ShardIndex,
        /// The row, and its content.
        #[source]
        source: RowError,
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
    /// The results of a cascade's tiers do not make a whole shard.
    #[error(
        "the results of the tiers of shard {shard} do not fit together; they were changed after Baton wrote \
         them, so use another output directory"
    )]
    TiersDisagree {
        /// The shard.
        shard: ShardIndex,
    },
}

/// Commits `outcomes`, one per record in record order, as shard `shard` of the job in `store`. Those of a
/// cascade were sorted out by its `tiers`.
///
/// Dropping the future between two steps is a crash at that point: safe, and completed by the next attempt.
pub(crate) async fn commit(
    store: &Store,
    shard: ShardIndex,
    (parts, review): (&PartOptions, Option<f64>),
    (outcomes, tiers): (&[Outcome], &[TierSums]),
) -> Result<Commit, CommitError> {
    let store_error = |source| CommitError::Store { shard, source };
    let (own_verdict, own_part) = judge(shard, parts, outcomes)?;
    let own_verdict = Verdict { tiers: tiers.to_vec(), ..own_verdict };
    let part_key = part_key(shard, parts.format);
    let created =
        store.create(&verdict_key(shard), own_verdict.to_json().into()).await.map_err(store_error)?;
    let (verdict, part) = match created {
        CreateOutcome::Created => (own_verdict, own_part),
        CreateOutcome::AlreadyExists => {
            let first = read_verdict(store, shard, &verdict_key(shard)).await?;
            if let Some(verdict) = verdict_of_part(store, &first, &part_key).await? {
                return Ok(Commit { verdict, already_committed: true });
            }
            let (outputs, part) = part_by(&first, parts, outcomes)?;
            let verdict = first.amended(outputs);
            if verdict.outputs.sha256 != first.outputs.sha256 {
                let key = amendment_key(shard, &verdict.outputs.sha256);
                let _ = store.create(&key, verdict.to_json().into()).await.map_err(store_error)?;
            }
            (verdict, part)
        }
    };
    if !verdict.failed.is_empty() {
        // Whichever attempt wins this race, the rows are the verdict's.
        let _ = store.create(&errors_key(shard), verdict.error_rows().into()).await.map_err(store_error)?;
    }
    let reviewed = review.map(|review| review_rows(&verdict, review, outcomes)).unwrap_or_default();
    if !reviewed.is_empty() {
        let _ = store.create(&review_key(shard), reviewed.into()).await.map_err(store_error)?;
    }
    match store.create(&part_key, part).await.map_err(store_error)? {
        CreateOutcome::Created => Ok(Commit { verdict, already_committed: false }),
        CreateOutcome::AlreadyExists => {
            let winner = verdict_of_part(store, &verdict, &part_key).await?;
            Ok(Commit { verdict: winner.unwrap_or(verdict), already_committed: true })
        }
    }
}

/// The verdict and part of an attempt that comes first.
fn judge(
    shard: ShardIndex,
    parts: &PartOptions,
    outcomes: &[Outcome],
) -> Result<(Verdict, Bytes), CommitError> {
    let (mut failed, mut failed_at, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    let (mut prompt_tokens, mut llm_prompt_tokens, mut output_tokens) = (0, 0, 0);
    let (mut warnings, mut terms) = (WarningCounts::default(), TermCounts::default());
    for (position, outcome) in (0..).zip(outcomes) {
        match outcome {
            Outcome::Output { source, row, terms: found, .. } => {
                terms.add(found);
                prompt_tokens += u64::from(row.prompt_tokens);
                llm_prompt_tokens += u64::from(row.llm_prompt_tokens);
                output_tokens += row.total_output_tokens();
                warnings.add_row(&row.warnings);
                rows.push(match parts.has_origin {
                    true => Cow::Owned(OutputRow { origin: Some(source.clone()), ..row.clone() }),
                    false => Cow::Borrowed(row),
                });
            }
            Outcome::Failed(failure) => {
                failed.push(failure.clone());
                failed_at.push(position);
            }
        }
    }
    let part =
        parts.part(rows.iter().map(Cow::as_ref)).map_err(|source| CommitError::Row { shard, source })?;
    let sums = PartSummary::of(&part, rows.len() as u64);
    let outputs = PartSummary { prompt_tokens, llm_prompt_tokens, output_tokens, warnings, terms, ..sums };
    let records = outcomes.len() as u64;
    Ok((Verdict { shard, records, failed, failed_at, outputs, tiers: Vec::new() }, part.into()))
}

/// The part that an earlier attempt's verdict demands, made from this attempt's outcomes: the rows of all
/// records that the verdict does not list as failed.
fn part_by(
    verdict: &Verdict,
    parts: &PartOptions,
    outcomes: &[Outcome],
) -> Result<(PartSummary, Bytes), CommitError> {
    let shard = verdict.shard;
    let failed: HashSet<&RecordSource> = verdict.failed.iter().map(|failure| &failure.source).collect();
    let is_output = |outcome: &&Outcome| match outcome {
        Outcome::Output { source, .. } => !failed.contains(source),
        Outcome::Failed(failure) => !failed.contains(&failure.source),
    };
    let outputs: Vec<Outcome> = outcomes.iter().filter(is_output).cloned().collect();
    if let Some(Outcome::Failed(failure)) =
        outputs.iter().find(|outcome| matches!(outcome, Outcome::Failed(_)))
    {
        let RecordSource { uri, line } = failure.source.clone();
        return Err(CommitError::OutputMissing { shard, uri, line });
    }
    let (own_verdict, part) = judge(shard, parts, &outputs)?;
    Ok((own_verdict.outputs, part))
}

/// The worst outputs of a shard, of records that did not fail by its verdict. On another kind of processor
/// estimates may differ in their last digit, so the first attempt's rows stand.
fn review_rows(verdict: &Verdict, review: f64, outcomes: &[Outcome]) -> Vec<u8> {
    let failed: HashSet<&RecordSource> = verdict.failed.iter().map(|failure| &failure.source).collect();
    let rows = outcomes.iter().filter_map(|outcome| match outcome {
        Outcome::Output { source, review, .. } if !failed.contains(source) => review.as_deref().cloned(),
        _ => None,
    });
    worst_rows(rows.collect(), review).iter().flat_map(ReviewRow::to_json_line).collect()
}

async fn read_verdict(store: &Store, shard: ShardIndex, key: &str) -> Result<Verdict, CommitError> {
    let bytes =
        store.get(key).await.map_err(|source| CommitError::Store { shard, source })?.unwrap_or_default();
    Verdict::from_json(shard, &bytes).map_err(|source| CommitError::Left { shard, source })
}

/// The verdict that the shard's part follows: `verdict`, or an amendment; `None` if there is no part. A part
/// that follows none was changed.
async fn verdict_of_part(
    store: &Store,
    verdict: &Verdict,
    part_key: &str,
) -> Result<Option<Verdict>, CommitError> {
    let shard = verdict.shard;
    let store_error = |source| CommitError::Store { shard, source };
    let Some(part) = store.get(part_key).await.map_err(store_error)? else { return Ok(None) };
    let Err(mismatch) = verdict.check_part(part_key, &part) else { return Ok(Some(verdict.clone())) };
    let sha256 = sha256_hex(&part);
    let amendment = amendment_key(shard, &sha256);
    if store.head(&amendment).await.map_err(store_error)?.is_some() {
        return read_verdict(store, shard, &amendment).await.map(Some);
    }
    // Our own verdict may be the amendment, and the part the first verdict's.
    let first = read_verdict(store, shard, &verdict_key(shard)).await?;
    if first.outputs.sha256 == sha256 {
        return Ok(Some(first));
    }
    Err(CommitError::Left { shard, source: mismatch })
}

#[cfg(test)]
pub(crate) mod tests;
