//! The workers and shards of a schedule, as its seed draws them.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::faults::Faults;

/// A poisonous record's effect on an attempt with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Poison {
    KillsDecoder,
    KillsEncoder,
    IsRejected,
    HangsDecoder,
}

#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) num_prompts: u32,
    pub(crate) poisonous: BTreeMap<u32, Poison>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Worker {
    pub(crate) is_member: bool,
    /// The tier that it does not serve.
    pub(crate) refused_tier: Option<u32>,
    pub(crate) dead_until: Duration,
    pub(crate) stalled_until: Duration,
    /// Attempts since its death that found it dead.
    pub(crate) knocks: u32,
    pub(crate) died_at: Duration,
}

pub(crate) fn workers(rng: &mut ChaCha8Rng, faults: Faults) -> BTreeMap<String, Worker> {
    let mut workers = BTreeMap::new();
    for (prefix, count) in [("e", rng.random_range(1..4)), ("d", rng.random_range(1..5))] {
        for index in 0..count {
            // The first worker of each role serves all tiers.
            let refused_tier = (faults.cascade && index > 0).then_some(index % 2);
            let worker = Worker { is_member: true, refused_tier, ..Worker::default() };
            workers.insert(format!("{prefix}{index}"), worker);
        }
    }
    workers
}

pub(crate) fn shards(rng: &mut ChaCha8Rng, faults: Faults) -> Vec<Shard> {
    // If everything fails, no record can be blamed. The first shard is therefore sound, and so is one
    // record of each larger one.
    let mut shards = vec![Shard { num_prompts: 5, poisonous: BTreeMap::new() }];
    for _ in 0..rng.random_range(1..30) {
        let num_prompts = rng.random_range(0..20);
        shards.push(Shard { num_prompts, poisonous: BTreeMap::new() });
    }
    if faults.poison {
        for _ in 0..rng.random_range(0..4) {
            let shard = rng.random_range(1..shards.len());
            let shard = &mut shards[shard];
            let most = if shard.num_prompts > 1 { shard.num_prompts - 1 } else { shard.num_prompts };
            if shard.poisonous.len() < most as usize {
                let poisons =
                    [Poison::KillsDecoder, Poison::KillsEncoder, Poison::IsRejected, Poison::HangsDecoder];
                let poison = poisons[rng.random_range(0..poisons.len())];
                shard.poisonous.insert(rng.random_range(0..shard.num_prompts), poison);
            }
        }
    }
    shards
}
