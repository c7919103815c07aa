//! Leases that are far older than typical ones: near the end of a job they are doubled.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::fleet::Wish;
use super::open_shard::{OpenShard, SearchStage};
use super::{Assignment, ShardScheduler};

/// Durations of a tier's last leases; the typical duration is taken from them.
const NUM_RECENT: usize = 64;

/// Durations of the last successful leases, by tier: a large model takes longer than a small one.
#[derive(Debug, Default)]
pub(super) struct RecentDurations(BTreeMap<u32, VecDeque<Duration>>);

impl RecentDurations {
    pub(super) fn note(&mut self, tier: u32, duration: Duration) {
        let durations = self.0.entry(tier).or_default();
        if durations.len() == NUM_RECENT {
            durations.pop_front();
        }
        durations.push_back(duration);
    }

    /// The median of a tier; `None` while nothing is known.
    fn typical(&self, tier: u32) -> Option<Duration> {
        let mut durations: Vec<Duration> = self.0.get(&tier)?.iter().copied().collect();
        let middle = durations.len() / 2;
        Some(*durations.select_nth_unstable(middle).1)
    }
}

impl ShardScheduler {
    /// Leases a straggler a second time, if nothing else waits for the workers. A shard that broke an attempt
    /// may be late for a reason of its own, and takes its turns one by one.
    pub(super) fn double(&mut self, now: Duration) -> Option<Assignment> {
        if !self.input_has_ended || self.open.values().any(OpenShard::is_waiting) {
            return None;
        }
        let may_be_doubled = |shard: &OpenShard| {
            shard.broken_attempts == 0
                && matches!(shard.stage, SearchStage::Whole { .. })
                && shard.leases.len() == 1
                && self.straggler_age(shard.tier).is_some_and(|age| shard.leases[0].begun_at + age <= now)
        };
        let (&shard, straggler) = self
            .open
            .iter()
            .filter(|(_, shard)| may_be_doubled(shard))
            .min_by_key(|(_, shard)| shard.leases[0].begun_at)?;
        let slow = straggler.leases[0].pair;
        let wish = Wish { avoid: Some(slow), not_decoder: Some(slow.decoder), ..Wish::of(straggler.tier) };
        let pair = self.fleet.place(wish, now, &self.policy)?;
        Some(self.lease(shard, pair, now))
    }

    /// The age from which a lease of a tier counts as a straggler; `None` before the end, or while nothing is
    /// known.
    pub(super) fn straggler_age(&self, tier: u32) -> Option<Duration> {
        let typical = self.recent_durations.typical(tier).filter(|_| self.input_has_ended)?;
        Some((typical * self.policy.straggler_factor).max(self.policy.min_straggler_age))
    }
}
