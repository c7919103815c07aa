//! The way of a shard through the tiers of a cascade.

use std::time::Duration;

use super::open_shard::OpenShard;
use super::{Lease, ShardScheduler};
use crate::ShardIndex;

impl ShardScheduler {
    /// Adds a shard whose earlier tiers are done, with the prompts that are left for this tier; returns false
    /// if the shard is known already.
    pub fn offer_from(&mut self, tier: u32, shard: ShardIndex, num_prompts: u32, num_bytes: u64) -> bool {
        if self.committed.contains(shard) || self.open.contains_key(&shard) {
            return false;
        }
        self.open.insert(shard, OpenShard::new(tier, num_prompts, num_bytes));
        true
    }

    /// Takes a shard to its next tier, which gets `num_prompts` prompts with `num_bytes` of text. Returns the
    /// other leases that this ends; `None` if the lease is stale.
    pub fn tier_done(
        &mut self,
        lease: Lease,
        num_prompts: u32,
        num_bytes: u64,
        now: Duration,
    ) -> Option<Vec<Lease>> {
        let shard = self.open.get_mut(&lease.shard)?;
        let active = shard.take(lease.attempt)?;
        let (tier, superseded) = (shard.tier, std::mem::take(&mut shard.leases));
        *shard =
            OpenShard { num_leases: shard.num_leases, ..OpenShard::new(tier + 1, num_prompts, num_bytes) };
        self.note_success(&active, tier);
        self.recent_durations.note(tier, now.saturating_sub(active.begun_at));
        let end = |active: super::ActiveLease| {
            self.release(&active);
            Lease { shard: lease.shard, attempt: active.attempt }
        };
        Some(superseded.into_iter().map(end).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Assignment, Failure, Role, SchedulePolicy, ShardSet, Work, WorkerState};

    const NOW: Duration = Duration::ZERO;

    /// Two encoders and two decoders, with four shards at once each.
    fn scheduler() -> ShardScheduler {
        let policy = SchedulePolicy { shards_per_worker: 4, ..SchedulePolicy::default() };
        let mut scheduler = ShardScheduler::new(policy, ShardSet::default());
        for (role, prefix) in [(Role::Encoder, "e"), (Role::Decoder, "d")] {
            let names: Vec<String> = (0..2).map(|index| format!("{prefix}{index}")).collect();
            scheduler.set_workers(role, &names, NOW);
        }
        scheduler
    }

    fn decoder(scheduler: &ShardScheduler, assignment: &Assignment) -> String {
        scheduler.endpoint(assignment.pair.decoder).to_owned()
    }

    /// Leases everything that can be leased. Decoders refuse the tiers named here.
    fn lease_all(scheduler: &mut ShardScheduler, refused: &[(&str, u32)]) -> Vec<(u32, String)> {
        let mut leased = Vec::new();
        while let Some(assignment) = scheduler.next(NOW) {
            let decoder = decoder(scheduler, &assignment);
            if refused.contains(&(decoder.as_str(), assignment.tier)) {
                scheduler.failed(assignment.lease, Failure::Refused(Role::Decoder), NOW);
            } else {
                leased.push((assignment.tier, decoder));
            }
        }
        leased
    }

    #[test]
    fn a_worker_that_refuses_a_tier_works_at_others_and_is_asked_again_with_one_shard() {
        let mut scheduler = scheduler();
        for shard in (0..8).map(ShardIndex) {
            scheduler.offer(shard, 8, 800);
        }
        let first = lease_all(&mut scheduler, &[("d1", 0)]);
        assert_eq!(first, vec![(0, "d0".to_owned()); 4], "it has no more room");
        let done = scheduler.open.iter().find(|(_, shard)| !shard.leases.is_empty()).unwrap();
        let done = Lease { shard: *done.0, attempt: done.1.leases[0].attempt };
        assert_eq!(scheduler.tier_done(done, 2, 200, NOW), Some(vec![]));
        let second = scheduler.next(NOW).unwrap();
        assert_eq!((second.tier, decoder(&scheduler, &second).as_str()), (1, "d1"), "it has nothing to do");
        scheduler.progress(second.lease, 1, 1, NOW);
        let found = scheduler.workers(NOW).find(|worker| worker.endpoint == "d1");
        assert_eq!(found.map(|worker| worker.state), Some(WorkerState::Ready));

        let later = Duration::from_secs(60);
        let asked = std::iter::from_fn(|| scheduler.next(later)).map(|assignment| assignment.pair.decoder);
        let asked: Vec<_> = asked.collect();
        let num_asked = asked.iter().filter(|&&decoder| decoder == second.pair.decoder).count();
        assert_eq!(num_asked, 1, "there is room and work for more");
    }

    #[test]
    fn shards_that_wait_for_workers_of_their_tier_hold_up_no_others() {
        let mut scheduler = scheduler();
        for shard in (0..6).map(ShardIndex) {
            scheduler.offer_from(1, shard, 8, 800);
        }
        for shard in (6..8).map(ShardIndex) {
            scheduler.offer(shard, 8, 800);
        }
        let mut leased = lease_all(&mut scheduler, &[("d0", 1), ("d1", 0)]);
        leased.sort_unstable();
        let expected = [vec![(0, "d0".to_owned()); 2], vec![(1, "d1".to_owned()); 4]].concat();
        assert_eq!(leased, expected, "two shards of the second tier wait");
        assert_eq!(scheduler.lacking_role(NOW), None);
    }

    #[test]
    fn a_tier_that_is_done_ends_its_other_leases_and_begins_the_next_afresh() {
        let mut scheduler = scheduler();
        scheduler.offer(ShardIndex(0), 8, 800);
        let first = scheduler.next(NOW).unwrap();
        let other = Lease { attempt: 9, ..first.lease };
        assert_eq!(scheduler.tier_done(other, 1, 1, NOW), None, "there is no such lease");
        scheduler.tier_done(first.lease, 3, 300, NOW).unwrap();
        assert_eq!(scheduler.tier_done(first.lease, 3, 300, NOW), None, "it is stale");
        let second = scheduler.next(NOW).unwrap();
        assert_eq!((second.tier, second.lease.attempt), (1, 2), "attempts are counted on");
        assert_eq!(second.work, Work::Commit { accused: vec![] });
        assert!(scheduler.committed(second.lease, NOW).is_first);
        assert!(!scheduler.offer_from(1, ShardIndex(0), 1, 1), "it is committed");
    }
}
