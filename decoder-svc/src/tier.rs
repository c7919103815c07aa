//! The end of an attempt at a tier of a cascade, before the commit.
//!
//! A tier with a next one creates its result conditionally, and the first result decides: every attempt,
//! whatever it has written itself, goes on with the records that the result names. If no record goes on, the
//! results of all tiers together are the outcomes of the whole shard, which are committed like any others. A
//! crash between two steps leaves nothing that the next attempt does not complete to the same bytes.

use baton_job::layout::tier_key;
use baton_job::{KeptOutput, OutputRow, ShardIndex, TierHead, TierResult, TierSums};
use baton_proto::TierAttempt;
use baton_store::{CreateOutcome, Store};
use baton_worker::MemoryShare;

use crate::collector::Outcome;
use crate::commit::CommitError;

/// The end of an attempt at a tier.
#[derive(Debug, PartialEq)]
pub(crate) enum TierEnd {
    /// Some records go on to the next tier: their positions in the shard.
    GoesOn(Vec<u32>),
    /// All records are done.
    Done(WholeShard),
}

/// The outcomes of a shard, and the tiers that it went through.
#[derive(Debug, PartialEq)]
pub(crate) struct WholeShard {
    /// Of every entry of the shard, in order.
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) tiers: Vec<TierSums>,
}

/// Ends an attempt at a tier, given the outcomes of its entries. The outputs that earlier tiers have kept
/// count as the shard's memory from now on.
pub(crate) async fn end_tier(
    store: &Store,
    shard: ShardIndex,
    (tier, outcomes): (&TierAttempt, Vec<Outcome>),
    memory: &mut MemoryShare,
) -> Result<TierEnd, CommitError> {
    let mut own = own_result(shard, tier, outcomes);
    if tier.threshold.is_some() {
        own = first_result(store, own).await?;
        if !own.head.escalated.is_empty() {
            return Ok(TierEnd::GoesOn(own.head.escalated));
        }
    }
    let mut results = Vec::new();
    for number in 0..tier.number {
        let result = read_result(store, number, shard).await?;
        memory.settle(memory.num_bytes() + num_bytes(&result));
        results.push(result);
    }
    let follows = results.last().is_none_or(|before| before.head.escalated == tier.positions);
    results.push(own);
    let whole = if follows { merged(results) } else { None };
    whole.map(TierEnd::Done).ok_or(CommitError::TiersDisagree { shard })
}

/// The result of an attempt that comes first.
fn own_result(shard: ShardIndex, tier: &TierAttempt, outcomes: Vec<Outcome>) -> TierResult {
    let (mut escalated, mut failed, mut failed_at, mut kept) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut sums =
        TierSums { name: tier.name.clone(), records: outcomes.len() as u64, ..TierSums::default() };
    for (entry, outcome) in (0..).zip(outcomes) {
        let at = tier.position_of(entry);
        match outcome {
            Outcome::Output { source, row, review, judgement, terms } => {
                sums.prompt_tokens += u64::from(row.prompt_tokens);
                sums.llm_prompt_tokens += u64::from(row.llm_prompt_tokens);
                sums.output_tokens += row.total_output_tokens();
                let goes_on = tier.threshold.is_some_and(|threshold| threshold.escalates(judgement));
                if let Some(estimate) = judgement.and_then(|judgement| judgement.estimate) {
                    sums.estimates.note(estimate);
                    if goes_on {
                        sums.escalated_estimates.note(estimate);
                    }
                }
                match goes_on {
                    true => escalated.push(at),
                    false => {
                        let row = OutputRow { tier: Some(tier.name.clone()), ..row };
                        kept.push(KeptOutput { at, source, row, review, terms });
                    }
                }
            }
            // Another tier may succeed.
            Outcome::Failed(failure) if tier.threshold.is_some() && failure.code.depends_on_generation() => {
                escalated.push(at);
            }
            Outcome::Failed(failure) => {
                failed.push(failure);
                failed_at.push(at);
            }
        }
    }
    (sums.outputs, sums.escalated) = (kept.len() as u64, escalated.len() as u64);
    TierResult { head: TierHead { shard, tier: tier.number, escalated, failed, failed_at, sums }, kept }
}

/// Creates a tier's result, or reads that of the attempt that was first.
async fn first_result(store: &Store, own: TierResult) -> Result<TierResult, CommitError> {
    let TierHead { shard, tier, .. } = own.head;
    let created = store.create(&tier_key(tier, shard), own.to_bytes().into()).await;
    match created.map_err(|source| CommitError::Store { shard, source })? {
        CreateOutcome::Created => Ok(own),
        CreateOutcome::AlreadyExists => read_result(store, tier, shard).await,
    }
}

async fn read_result(store: &Store, tier: u32, shard: ShardIndex) -> Result<TierResult, CommitError> {
    let bytes = store.get(&tier_key(tier, shard)).await;
    let bytes = bytes.map_err(|source| CommitError::Store { shard, source })?.unwrap_or_default();
    TierResult::from_bytes(tier, shard, bytes).map_err(|source| CommitError::Left { shard, source })
}

/// The outcomes of a whole shard: each position has one outcome in one of the results. `None` if that is not
/// so.
fn merged(results: Vec<TierResult>) -> Option<WholeShard> {
    let num_entries = usize::try_from(results.first()?.head.sums.records).ok()?;
    let mut places: Vec<Option<Outcome>> = vec![None; num_entries];
    let mut tiers = Vec::new();
    for TierResult { head, kept } in results {
        let failed = head.failed_at.into_iter().zip(head.failed.into_iter().map(Outcome::Failed));
        let kept = kept.into_iter().map(|KeptOutput { at, source, row, review, terms }| {
            (at, Outcome::Output { source, row, review, judgement: None, terms })
        });
        for (at, outcome) in failed.chain(kept) {
            let place = places.get_mut(at as usize).filter(|place| place.is_none())?;
            *place = Some(outcome);
        }
        tiers.push(head.sums);
    }
    let outcomes = places.into_iter().collect::<Option<_>>()?;
    Some(WholeShard { outcomes, tiers })
}

fn num_bytes(result: &TierResult) -> usize {
    let of_review = |kept: &KeptOutput| kept.review.as_ref().map_or(0, |review| review.source.len());
    let of_output = |kept: &KeptOutput| {
        let KeptOutput { row, .. } = kept;
        size_of::<KeptOutput>() + row.id.len() + row.output.len() + row.fields.num_bytes() + of_review(kept)
    };
    result.kept.iter().map(of_output).sum()
}

#[cfg(test)]
mod tests;
