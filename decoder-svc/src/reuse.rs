//! The outputs that an attempt at a shard does not decode, and those that it leaves for later ones.
//!
//! A decoder remembers recent outputs of each job it works for, so equal segments of several shards are
//! decoded once on it. A job's cache (`output_cache.rs`) has those of earlier jobs. Both go by the keys of
//! `baton_reuse`. Only outputs of greedy decoding and beam search have keys, and failures are never kept.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use baton_job::ReuseCounts;
use baton_proto::{FoundPrompts, ShardAttempt, WireError};
use baton_reuse::{Recent, Scope, ScopeParts, SegmentKey};

use crate::joined::{Generated, SegmentOutputs};
use crate::memory::outputs_num_bytes;
use crate::metrics::DecoderMetrics;
use crate::output_cache::{FoundOutputs, OutputCache, OutputCaches, PACK_DAYS};

/// Bytes of the outputs that a decoder remembers: those of about 100,000 sentences. More finds repetitions
/// that are further apart.
const RECENT_NUM_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of a remembered output beside itself: its key, and its share of the maps.
const RECENT_OVERHEAD_NUM_BYTES: usize = 128;

const NO_PANIC: &str = "no holder of this lock panics";

/// Outputs that a decoder need not write again, of all shards.
#[derive(Debug)]
pub(crate) struct KnownOutputs {
    /// Of the model that writes.
    arithmetic: String,
    recent: Mutex<Recent<(Scope, SegmentKey), SegmentOutputs>>,
    caches: OutputCaches,
}

/// The part of one attempt.
#[derive(Debug, Default)]
pub(crate) struct ShardReuse {
    /// Empty if the shard has no keys.
    keys: Vec<SegmentKey>,
    /// By the number of the key.
    outputs: Vec<Option<Known>>,
    /// By row: the number of its key.
    numbers: Vec<u32>,
    counts: ReuseCounts,
    /// `None` if the shard has no keys.
    kept_at: Option<KeptAt>,
}

/// Where the outputs of a shard are kept.
#[derive(Debug)]
struct KeptAt {
    /// In memory.
    job_scope: Scope,
    /// In the cache.
    scope: Scope,
    cache: Option<Arc<OutputCache>>,
    /// The day of the oldest pack that was used.
    oldest_day: Option<u64>,
}

#[derive(Debug, Clone)]
struct Known {
    outputs: SegmentOutputs,
    origin: Origin,
    is_in_cache: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Decoded,
    Remembered,
    Cached,
}

impl KnownOutputs {
    pub(crate) fn new(arithmetic: String, metrics: &DecoderMetrics) -> Self {
        let recent = Mutex::new(Recent::new(RECENT_NUM_BYTES));
        Self { arithmetic, recent, caches: OutputCaches::new(metrics.cache_problems.clone()) }
    }

    /// Looks for the outputs of an attempt's prompts.
    pub(crate) async fn look_up(&self, attempt: &ShardAttempt, keys: Vec<SegmentKey>) -> ShardReuse {
        let scope = Scope::of(&ScopeParts {
            bundle_digest: &attempt.bundle_digest,
            mode: attempt.mode.as_str(),
            task: attempt.task.as_deref(),
            generation: &attempt.generation,
            arithmetic: &self.arithmetic,
        });
        let job_scope = scope.of_job(&attempt.job_id);
        let cache = match &attempt.cache_location {
            Some(location) => self.caches.at(location).await,
            None => None,
        };
        // Even if all are remembered: what the cache lacks is to be added.
        let in_cache = match &cache {
            Some(cache) => cache.find(scope, &keys).await,
            None => FoundOutputs::default(),
        };
        let mut recent = self.recent.lock().expect(NO_PANIC);
        let mut known = |key: &SegmentKey| {
            let cached = in_cache.outputs.get(key);
            let is_in_cache = cached.is_some();
            let (outputs, origin) = match recent.get(&(job_scope, *key)) {
                Some(outputs) => (outputs, Origin::Remembered),
                None => (Arc::clone(cached?), Origin::Cached),
            };
            Some(Known { outputs, origin, is_in_cache })
        };
        ShardReuse {
            outputs: keys.iter().map(&mut known).collect(),
            keys,
            kept_at: Some(KeptAt { job_scope, scope, cache, oldest_day: in_cache.oldest_day }),
            ..ShardReuse::default()
        }
    }

    fn remember(&self, key: (Scope, SegmentKey), outputs: &SegmentOutputs) {
        let num_bytes = outputs_num_bytes(outputs) + RECENT_OVERHEAD_NUM_BYTES;
        self.recent.lock().expect(NO_PANIC).insert(key, Arc::clone(outputs), num_bytes);
    }
}

impl ShardReuse {
    /// The prompts whose outputs are known.
    pub(crate) fn found(&self) -> FoundPrompts {
        FoundPrompts::of(self.outputs.iter().map(Option::is_some))
    }

    /// Bytes of the known outputs.
    pub(crate) fn num_bytes(&self) -> usize {
        self.outputs.iter().flatten().map(|known| outputs_num_bytes(&known.outputs)).sum()
    }

    /// Notes that the next row decodes the prompt of this number.
    pub(crate) fn begin(&mut self, number: u32) -> Result<(), WireError> {
        self.counts.segments += 1;
        self.numbers.push(number);
        self.check(number)
    }

    /// The outputs of the prompt of this number, in place of the next row.
    pub(crate) fn reuse(&mut self, number: u32) -> Result<SegmentOutputs, WireError> {
        self.begin(number)?;
        let expected = "reused prompts that were found";
        let known = self.outputs.get(number as usize).and_then(Option::as_ref);
        let known = known.ok_or(WireError::UnexpectedMessage { expected })?;
        match known.origin {
            Origin::Remembered => self.counts.remembered += 1,
            Origin::Cached => self.counts.cached += 1,
            Origin::Decoded => return Err(WireError::UnexpectedMessage { expected }),
        }
        Ok(Arc::clone(&known.outputs))
    }

    /// Notes a segment that shares a row.
    pub(crate) fn repeat(&mut self) {
        self.counts.segments += 1;
        self.counts.repeated += 1;
    }

    /// Keeps what a row has written.
    pub(crate) fn finish(&mut self, row: u32, generated: &Generated, known: &KnownOutputs) {
        let number = self.numbers[row as usize] as usize;
        let (Some(&key), Some(kept_at), Ok(outputs)) = (self.keys.get(number), &self.kept_at, generated)
        else {
            return;
        };
        known.remember((kept_at.job_scope, key), outputs);
        let (outputs, origin) = (Arc::clone(outputs), Origin::Decoded);
        self.outputs[number] = Some(Known { outputs, origin, is_in_cache: false });
    }

    /// Segments by the origin of their outputs.
    pub(crate) fn counts(&self) -> ReuseCounts {
        self.counts
    }

    /// Adds the shard's outputs to the job's cache, unless they are in it and will stay. A cache that fails
    /// changes nothing.
    pub(crate) async fn save(self) {
        let Self { keys, outputs, kept_at, .. } = self;
        let Some(KeptAt { scope, cache: Some(cache), oldest_day, .. }) = kept_at else { return };
        let today = days_since_1970();
        let are_all_kept = outputs.iter().flatten().all(|known| known.is_in_cache);
        if are_all_kept && oldest_day.is_none_or(|day| today.saturating_sub(day) < PACK_DAYS) {
            return;
        }
        let outputs = outputs.into_iter().map(|known| known.map(|known| known.outputs));
        let outputs = keys.into_iter().zip(outputs).filter_map(|(key, outputs)| Some((key, outputs?)));
        cache.save(scope, today, outputs.collect()).await;
    }

    fn check(&self, number: u32) -> Result<(), WireError> {
        match self.keys.is_empty() || (number as usize) < self.keys.len() {
            true => Ok(()),
            false => Err(WireError::UnexpectedMessage { expected: "prompts with numbers of keys" }),
        }
    }
}

fn days_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / (24 * 60 * 60)
}

#[cfg(test)]
mod tests;
