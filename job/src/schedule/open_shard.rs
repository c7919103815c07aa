//! A shard that is not committed yet: its attempts so far, and its current leases.

use std::ops::Range;
use std::time::Duration;

use super::fleet::Pair;
use super::search::Search;

/// An attempt's work on its shard. Prompts are counted within the shard from 0, without entries that failed
/// while they were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Processes and commits it.
    Commit {
        /// Prompts that travel as failures, because they broke every attempt that had them.
        accused: Vec<u32>,
    },
    /// Processes some of its prompts and commits nothing.
    Probe {
        /// The prompts; never empty.
        prompts: Range<u32>,
    },
}

#[derive(Debug)]
pub(super) struct OpenShard {
    /// The tier that its attempts are made for. All its leases are of this tier.
    pub(super) tier: u32,
    /// Prompts that the tier gets.
    pub(super) num_prompts: u32,
    /// Bytes of text, of all prompts.
    pub(super) num_bytes: u64,
    pub(super) stage: SearchStage,
    pub(super) ready_at: Duration,
    pub(super) leases: Vec<ActiveLease>,
    /// The workers of its last failure.
    pub(super) avoid: Option<Pair>,
    /// Attempts at the whole shard that broke since it was offered or last searched.
    pub(super) broken_attempts: u32,
    pub(super) store_failures: u32,
    pub(super) num_searches: u32,
    /// The number of attempts of any shard that had succeeded when the last search began.
    pub(super) successes_before_search: u64,
    pub(super) is_given_up: bool,
    pub(super) num_leases: u32,
}

#[derive(Debug)]
pub(super) enum SearchStage {
    Whole { accused: Vec<u32> },
    Searching(Search),
}

#[derive(Debug, Clone)]
pub(super) struct ActiveLease {
    pub(super) attempt: u32,
    pub(super) pair: Pair,
    pub(super) begun_at: Duration,
    pub(super) deadline: Duration,
    /// Whether the encoder ever reported about it.
    pub(super) was_taken_on: bool,
    /// Whether it has its workers alone.
    pub(super) alone: bool,
    pub(super) num_prompts: u32,
    pub(super) num_bytes: u64,
    /// The bytes among these that are not encoded yet; and below, not decoded.
    pub(super) to_encode_num_bytes: u64,
    pub(super) to_decode_num_bytes: u64,
}

impl OpenShard {
    pub(super) fn new(tier: u32, num_prompts: u32, num_bytes: u64) -> OpenShard {
        OpenShard {
            tier,
            num_prompts,
            num_bytes,
            stage: SearchStage::Whole { accused: Vec::new() },
            ready_at: Duration::ZERO,
            leases: Vec::new(),
            avoid: None,
            broken_attempts: 0,
            store_failures: 0,
            num_searches: 0,
            successes_before_search: 0,
            is_given_up: false,
            num_leases: 0,
        }
    }

    /// Whether the shard waits for an attempt.
    pub(super) fn is_waiting(&self) -> bool {
        self.leases.is_empty() && !self.is_given_up
    }

    pub(super) fn is_ready(&self, now: Duration) -> bool {
        self.is_waiting() && self.ready_at <= now
    }

    /// The next attempt's work.
    pub(super) fn work(&self) -> Work {
        match &self.stage {
            SearchStage::Whole { accused } => Work::Commit { accused: accused.clone() },
            SearchStage::Searching(search) => {
                Work::Probe { prompts: search.next().expect("a search that is over was concluded") }
            }
        }
    }

    /// Whether the next attempt decides about one record. It then has its workers alone, so that nothing else
    /// can break it and it breaks nothing else.
    pub(super) fn must_be_alone(&self) -> bool {
        let SearchStage::Searching(search) = &self.stage else { return false };
        search.next().is_some_and(|range| range.len() == 1)
    }

    pub(super) fn lease(&mut self, pair: Pair, now: Duration, lease_ttl: Duration) -> &ActiveLease {
        let num_prompts = match self.work() {
            Work::Commit { accused } => self.num_prompts - accused.len() as u32,
            Work::Probe { prompts } => prompts.len() as u32,
        };
        let num_bytes = share(self.num_bytes, num_prompts, self.num_prompts);
        self.num_leases += 1;
        self.leases.push(ActiveLease {
            attempt: self.num_leases,
            pair,
            begun_at: now,
            deadline: now + lease_ttl,
            was_taken_on: false,
            alone: self.must_be_alone(),
            num_prompts,
            num_bytes,
            to_encode_num_bytes: num_bytes,
            to_decode_num_bytes: num_bytes,
        });
        self.leases.last().expect("it was just added")
    }

    pub(super) fn active(&mut self, attempt: u32) -> Option<&mut ActiveLease> {
        self.leases.iter_mut().find(|lease| lease.attempt == attempt)
    }

    pub(super) fn take(&mut self, attempt: u32) -> Option<ActiveLease> {
        let position = self.leases.iter().position(|lease| lease.attempt == attempt)?;
        Some(self.leases.remove(position))
    }

    /// Begins a search, after `num_successes` successful attempts of any shard, earlier runs included.
    pub(super) fn begin_search(&mut self, num_successes: u64) {
        self.num_searches += 1;
        self.successes_before_search = num_successes;
        self.stage = SearchStage::Searching(Search::new(self.num_prompts));
        self.conclude_search_if_over(num_successes);
    }

    /// Returns to whole attempts, without the records that the search accused, once nothing is left to probe.
    ///
    /// If every record of the shard is accused and nothing else succeeded, the records are not the cause:
    /// then none is considered poisonous.
    pub(super) fn conclude_search_if_over(&mut self, num_successes: u64) {
        let SearchStage::Searching(search) = &self.stage else { return };
        if search.next().is_some() {
            return;
        }
        let mut accused = search.clone().into_accused();
        let is_contrasted = match self.num_prompts {
            1 => num_successes > 0,
            num_prompts => {
                (accused.len() as u32) < num_prompts || num_successes > self.successes_before_search
            }
        };
        if !is_contrasted {
            accused.clear();
        }
        self.stage = SearchStage::Whole { accused };
        self.broken_attempts = 0;
    }
}

impl ActiveLease {
    /// Notes how many prompts are done. Returns by how many bytes that reduces the encoder's and the
    /// decoder's load.
    pub(super) fn advance(&mut self, num_encoded: u32, num_decoded: u32) -> (u64, u64) {
        let left = |num_done: u32| {
            share(self.num_bytes, self.num_prompts.saturating_sub(num_done), self.num_prompts)
        };
        let to_encode = left(num_encoded).min(self.to_encode_num_bytes);
        let to_decode = left(num_decoded).min(self.to_decode_num_bytes);
        let lighter = (self.to_encode_num_bytes - to_encode, self.to_decode_num_bytes - to_decode);
        (self.to_encode_num_bytes, self.to_decode_num_bytes) = (to_encode, to_decode);
        lighter
    }
}

/// The share of `num_bytes` that `part` of `whole` prompts have, on average.
fn share(num_bytes: u64, part: u32, whole: u32) -> u64 {
    if whole == 0 { 0 } else { (u128::from(num_bytes) * u128::from(part) / u128::from(whole)) as u64 }
}
