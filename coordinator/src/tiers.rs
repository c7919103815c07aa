//! The open shards of a job: which entries of a shard its next attempt gets.
//!
//! Without a cascade that is the whole shard. With one, a tier gets the records that the tier before has let
//! through; what stays of the others lies in the store. A restarted coordinator finds there how far a shard
//! has come.

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_job::layout::{TIER_PREFIX, tier_key, tier_of_key};
use baton_job::{Record, Shard, ShardEntry, ShardIndex, ShardSet, Tier, TierResult, Work};
use baton_proto::TierAttempt;

use crate::CoordinatorError;
use crate::prepare::PreparedJob;
use crate::share::Share;

/// The number of tiers that are done, by shard: of shards that are not committed.
pub(crate) type TiersDone = BTreeMap<ShardIndex, u32>;

/// A shard that is not committed, as far as it has come.
#[derive(Debug, Clone)]
pub(crate) struct OpenShard {
    /// The entries of its present tier, numbered from 0; at the first tier, all.
    pub(crate) shard: Arc<Shard>,
    /// The tier, from 0; 0 without a cascade.
    pub(crate) tier: u32,
    /// Entries of the whole shard.
    pub(crate) num_entries: u32,
    /// Positions in the whole shard of the present entries; empty at the first tier.
    positions: Vec<u32>,
}

/// The tiers of a job in one line, as in `slm, below 0.62 hybrid`; `None` without a cascade.
#[must_use]
pub fn tiers_said(tiers: &[Tier]) -> Option<String> {
    let mut said = tiers.first()?.name.clone();
    for pair in tiers.windows(2) {
        let below = pair[0].threshold.map(|limit| limit.to_string()).unwrap_or_default();
        said.push_str(&format!(", below {below} {}", pair[1].name));
    }
    Some(said)
}

impl OpenShard {
    /// A shard before its first tier.
    pub(crate) fn whole(shard: Shard) -> Self {
        let num_entries = u32::try_from(shard.entries.len()).expect("shard.records_per_shard is a u32");
        OpenShard { shard: Arc::new(shard), tier: 0, num_entries, positions: Vec::new() }
    }

    /// The shard at its next tier, which gets the records at these positions of the whole shard. `None` if
    /// the present tier does not have them all.
    pub(crate) fn escalated(&self, positions: &[u32]) -> Option<OpenShard> {
        let record = |(index_in_shard, position): (u32, &u32)| {
            let place = match self.positions.is_empty() {
                true => *position as usize,
                false => self.positions.binary_search(position).ok()?,
            };
            match self.shard.entries.get(place)? {
                ShardEntry::Prompt(record) => {
                    Some(ShardEntry::Prompt(Record { index_in_shard, ..record.clone() }))
                }
                ShardEntry::Failed(_) => None,
            }
        };
        let entries = (0..).zip(positions).map(record).collect::<Option<Vec<ShardEntry>>>()?;
        let has_entries = !entries.is_empty() && positions.windows(2).all(|pair| pair[0] < pair[1]);
        has_entries.then(|| OpenShard {
            shard: Arc::new(Shard { entries, ..*self.shard }),
            tier: self.tier + 1,
            num_entries: self.num_entries,
            positions: positions.to_vec(),
        })
    }

    pub(crate) fn num_prompts(&self) -> u32 {
        self.shard.prompts().count() as u32 // at most shard.records_per_shard, a u32
    }

    /// Bytes of the texts of its prompts.
    pub(crate) fn num_bytes(&self) -> u64 {
        self.shard.prompts().map(|record| record.text.len() as u64).sum()
    }

    /// Entries that earlier tiers are done with.
    pub(crate) fn num_done(&self) -> u32 {
        self.num_entries - self.shard.entries.len() as u32 // some of all
    }

    /// The tier of an attempt at this work.
    pub(crate) fn tier_attempt(&self, tiers: &[Tier], work: &Work) -> Option<TierAttempt> {
        let tier = tiers.get(self.tier as usize)?;
        let positions = match work {
            Work::Commit { .. } => self.positions.clone(),
            Work::Probe { .. } => Vec::new(), // it creates nothing
        };
        Some(TierAttempt { number: self.tier, name: tier.name.clone(), threshold: tier.threshold, positions })
    }
}

impl PreparedJob {
    /// The tiers that are done of shards that are not `committed`.
    pub(crate) async fn tiers_done(
        &self,
        share: &Share,
        committed: &ShardSet,
    ) -> Result<TiersDone, CoordinatorError> {
        if self.spec.tiers.is_empty() {
            return Ok(TiersDone::new());
        }
        let add = |(done, share, committed): &mut (TiersDone, Share, ShardSet), key: &str| {
            let Some((tier, shard)) = tier_of_key(key) else { return };
            if share.has(shard) && !committed.contains(shard) {
                let num_done = done.entry(shard).or_default();
                *num_done = (*num_done).max(tier.saturating_add(1));
            }
        };
        let state = (TiersDone::new(), share.clone(), committed.clone());
        Ok(self.store.fold_keys(TIER_PREFIX, state, add).await?.0)
    }

    /// A shard as far as it has come, of which so many tiers are done. If the store does not answer now, the
    /// shard begins anew: an attempt at a tier finds the tier's result.
    pub(crate) async fn open_shard(
        &self,
        shard: Shard,
        num_done: u32,
    ) -> Result<OpenShard, CoordinatorError> {
        let whole = OpenShard::whole(shard);
        match self.after_tiers(&whole, num_done).await {
            Err(CoordinatorError::Store(error)) if error.is_retryable() => Ok(whole),
            open => open,
        }
    }

    async fn after_tiers(&self, whole: &OpenShard, num_done: u32) -> Result<OpenShard, CoordinatorError> {
        let mut open = whole.clone();
        let num_followed = u32::try_from(self.spec.tiers.len()).unwrap_or(u32::MAX).saturating_sub(1);
        for tier in 0..num_done.min(num_followed) {
            let index = open.shard.index;
            let Some(bytes) = self.store.get(&tier_key(tier, index)).await? else { break };
            let result = TierResult::from_bytes(tier, index, bytes)?;
            // Where no record goes on, an attempt at the same tier commits the shard.
            let Some(next) = open.escalated(&result.head.escalated) else { break };
            open = next;
        }
        Ok(open)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use baton_job::{FailureCode, RecordFailure, RecordSource};

    use super::*;

    /// Four records, and behind the first of them a row that is none.
    pub(crate) fn shard() -> Shard {
        let source = |line| RecordSource { uri: "a.txt".into(), line };
        let record =
            |index| ShardEntry::Prompt(Record::new(index, format!("r{index}"), source(index.into()), "x"));
        let failed = RecordFailure {
            source: source(1),
            id: None,
            code: FailureCode::InvalidJson,
            message: String::new(),
        };
        let entries = vec![record(0), ShardEntry::Failed(failed), record(2), record(3), record(4)];
        Shard { index: ShardIndex(5), first_entry: 500, entries }
    }

    fn ids(open: &OpenShard) -> Vec<(u32, &str)> {
        open.shard.prompts().map(|record| (record.index_in_shard, record.id.as_str())).collect()
    }

    #[test]
    fn each_tier_gets_the_records_that_the_one_before_let_through() {
        let whole = OpenShard::whole(shard());
        assert_eq!((whole.num_prompts(), whole.num_bytes(), whole.num_done()), (4, 4, 0));
        let second = whole.escalated(&[0, 3, 4]).unwrap();
        assert_eq!((ids(&second), second.num_done()), (vec![(0, "r0"), (1, "r3"), (2, "r4")], 2));
        let third = second.escalated(&[3]).unwrap();
        assert_eq!((ids(&third), third.tier, third.num_entries), (vec![(0, "r3")], 2, 5));
        assert_eq!(third.shard.first_entry, 500, "random numbers follow from a record's place in the job");
    }

    #[test]
    fn records_that_a_tier_did_not_have_cannot_go_on() {
        let whole = OpenShard::whole(shard());
        for positions in [&[][..], &[1], &[9], &[3, 0], &[3, 3]] {
            assert!(whole.escalated(positions).is_none(), "{positions:?}");
        }
        assert!(whole.escalated(&[0, 3]).unwrap().escalated(&[4]).is_none());
    }
}
