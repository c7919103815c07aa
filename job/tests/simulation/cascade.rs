//! A cascade from the view of scheduling: which prompts of a shard its tiers get, and what is stored of them.

use std::collections::BTreeMap;

use baton_job::{Lease, ShardIndex, Work};

/// The stored result of a tier, in numbers of the whole shard's prompts.
#[derive(Debug, Clone, PartialEq)]
struct Stored {
    escalated: Vec<u32>,
    failed: Vec<u32>,
}

/// The end of an attempt at a tier.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    /// The next tier gets these prompts.
    GoesOn(Vec<u32>),
    /// The shard is committed; these of its prompts failed.
    Committed(Vec<u32>),
}

#[derive(Debug)]
pub(crate) struct Tiers {
    seed: u64,
    num_tiers: u32,
    stored: BTreeMap<(ShardIndex, u32), Stored>,
    /// The coordinator's knowledge: the tier and the prompts of each open shard.
    open: BTreeMap<ShardIndex, (u32, Vec<u32>)>,
}

impl Tiers {
    pub(crate) fn new(seed: u64, num_tiers: u32) -> Tiers {
        Tiers { seed, num_tiers, stored: BTreeMap::new(), open: BTreeMap::new() }
    }

    /// Notes that a coordinator has just read a shard. Returns its tier, as the store has it, and the number
    /// of prompts that are left.
    pub(crate) fn read(&mut self, shard: ShardIndex, num_prompts: u32) -> (u32, u32) {
        let (mut tier, mut prompts) = (0, (0..num_prompts).collect::<Vec<u32>>());
        while let Some(stored) = self.stored.get(&(shard, tier)).filter(|stored| !stored.escalated.is_empty())
        {
            (tier, prompts) = (tier + 1, stored.escalated.clone());
        }
        let num_prompts = prompts.len() as u32;
        self.open.insert(shard, (tier, prompts));
        (tier, num_prompts)
    }

    /// The prompts of an attempt, by their numbers in the whole shard.
    pub(crate) fn prompts_of(&self, lease: Lease, tier: u32, work: &Work) -> Vec<u32> {
        let (open_tier, prompts) = &self.open[&lease.shard];
        assert_eq!(*open_tier, tier, "an attempt is made at the shard's tier");
        match work {
            Work::Commit { accused } => {
                let numbered = (0..).zip(prompts);
                numbered.filter(|(place, _)| !accused.contains(place)).map(|(_, &prompt)| prompt).collect()
            }
            Work::Probe { prompts: range } => prompts[range.start as usize..range.end as usize].to_vec(),
        }
    }

    /// Ends an attempt at the prompts `written`; those of its tier that are not among them failed.
    pub(crate) fn end(&mut self, shard: ShardIndex, tier: u32, of_tier: &[u32], written: &[u32]) -> End {
        let failed: Vec<u32> = of_tier.iter().copied().filter(|prompt| !written.contains(prompt)).collect();
        let goes_on = |prompt: &u32| tier + 1 < self.num_tiers && self.is_escalated(shard, tier, *prompt);
        let own = Stored { escalated: written.iter().copied().filter(goes_on).collect(), failed };
        let stored = self.stored.entry((shard, tier)).or_insert(own).clone();
        if !stored.escalated.is_empty() {
            return End::GoesOn(stored.escalated);
        }
        let all = (0..=tier).filter_map(|tier| self.stored.get(&(shard, tier)));
        let mut failed: Vec<u32> = all.flat_map(|stored| stored.failed.clone()).collect();
        failed.sort_unstable();
        End::Committed(failed)
    }

    /// Notes that the coordinator has taken the shard to its next tier.
    pub(crate) fn go_on(&mut self, shard: ShardIndex, tier: u32, prompts: Vec<u32>) {
        self.open.insert(shard, (tier, prompts));
    }

    /// The prompts of a shard's present tier.
    pub(crate) fn of_tier(&self, shard: ShardIndex) -> Vec<u32> {
        self.open[&shard].1.clone()
    }

    /// A third of the prompts go on, always the same ones.
    fn is_escalated(&self, shard: ShardIndex, tier: u32, prompt: u32) -> bool {
        let mixed = self.seed ^ (u64::from(shard.0) << 40) ^ (u64::from(tier) << 20) ^ u64::from(prompt);
        mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62 == 0 || mixed.is_multiple_of(7)
    }
}
