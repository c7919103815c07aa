//! A cache of outputs in a store: finds the packs of a shard, and adds new ones.
//!
//! It only saves work. An object that is unreachable, late or damaged counts as missing, and a shard's
//! outputs are the same with and without the cache. `baton_reuse` owns the names and the content of its
//! objects. Any number of decoders and jobs may use one cache at the same time: packs never change, and a
//! hook names one whole pack or another.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_job::Alternative;
use baton_quality::LogProbabilities;
use baton_reuse::{
    KeptOutput, Pack, PackError, PackName, Recent, Scope, SegmentKey, hook_object, hooks, pack_object,
    packs_named,
};
use baton_store::{CreateOutcome, Location, Store, StoreError};
use baton_telemetry::LabelledCounter;
use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use tokio::time::{Instant, timeout};

use crate::joined::{SegmentOutput, SegmentOutputs};

/// A pack of this age is written anew when it is used, so that a rule of the bucket may remove old objects.
pub(crate) const PACK_DAYS: u64 = 7;

/// A shard waits at most this long for what may be found: less than most shards take to be decoded.
const FIND_DEADLINE: Duration = Duration::from_secs(3);
/// The end of a shard waits at most this long for what is added.
const SAVE_DEADLINE: Duration = Duration::from_secs(5);
/// After a failure, the cache is left alone for this long.
const REST: Duration = Duration::from_secs(30);
/// Bytes of packs, as they are stored, that are kept in memory: a shard whose boundaries have shifted lies in
/// two packs, and its neighbour needs one of them again.
const RECENT_PACKS_NUM_BYTES: usize = 16 * 1024 * 1024;
/// Caches that are open at once: one for each of the jobs that a decoder works for.
const MAX_OPEN_CACHES: usize = 4;

const NO_PANIC: &str = "no holder of this lock panics";

/// The caches of a decoder's jobs.
#[derive(Debug)]
pub(crate) struct OutputCaches {
    /// By their places, the last opened one last.
    open: tokio::sync::Mutex<Vec<(String, Arc<OutputCache>)>>,
    problems: LabelledCounter,
}

/// One cache.
#[derive(Debug)]
pub(crate) struct OutputCache {
    store: Store,
    recent_packs: Mutex<Recent<PackName, Bytes>>,
    rests_until: Mutex<Option<Instant>>,
    problems: LabelledCounter,
}

/// A shard's outputs in a cache.
#[derive(Debug, Default)]
pub(crate) struct FoundOutputs {
    pub(crate) outputs: HashMap<SegmentKey, SegmentOutputs>,
    /// The day of the oldest pack among those that had some.
    pub(crate) oldest_day: Option<u64>,
}

impl OutputCaches {
    /// No cache is open yet.
    pub(crate) fn new(problems: LabelledCounter) -> Self {
        Self { open: tokio::sync::Mutex::default(), problems }
    }

    /// The cache at a place; `None` if it cannot be opened.
    pub(crate) async fn at(&self, location: &str) -> Option<Arc<OutputCache>> {
        let mut open = self.open.lock().await;
        if let Some((_, cache)) = open.iter().find(|(place, _)| place == location) {
            return Some(Arc::clone(cache));
        }
        let store = match Location::parse(location) {
            Ok(place) => Store::open(place).await,
            Err(error) => Err(error),
        };
        match store {
            Ok(store) => {
                let cache = Arc::new(OutputCache::new(store, self.problems.clone()));
                if open.len() >= MAX_OPEN_CACHES {
                    open.remove(0);
                }
                open.push((location.to_owned(), Arc::clone(&cache)));
                Some(cache)
            }
            Err(error) => {
                self.problems.of("unreachable").inc();
                tracing::warn!(%error, location, "cannot open the cache of outputs, working without it");
                None
            }
        }
    }
}

impl OutputCache {
    pub(crate) fn new(store: Store, problems: LabelledCounter) -> Self {
        let recent_packs = Mutex::new(Recent::new(RECENT_PACKS_NUM_BYTES));
        Self { store, recent_packs, rests_until: Mutex::default(), problems }
    }

    /// The outputs of those of these segments that a pack with the same hooks has.
    pub(crate) async fn find(&self, scope: Scope, keys: &[SegmentKey]) -> FoundOutputs {
        if keys.is_empty() || self.rests() {
            return FoundOutputs::default();
        }
        match timeout(FIND_DEADLINE, self.look_up(scope, keys)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => self.rest("unreachable", Some(&error)),
            Err(_) => self.rest("late", None),
        }
    }

    /// Adds the outputs of a shard.
    pub(crate) async fn save(&self, scope: Scope, today: u64, outputs: Vec<(SegmentKey, SegmentOutputs)>) {
        if self.rests() {
            return;
        }
        match timeout(SAVE_DEADLINE, self.add(scope, today, outputs)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.rest("unreachable", Some(&error)),
            Err(_) => self.rest("late", None),
        }
    }

    async fn look_up(&self, scope: Scope, keys: &[SegmentKey]) -> Result<FoundOutputs, StoreError> {
        let hooks = hooks(keys.iter().copied());
        let named = hooks.iter().map(|&hook| async move { self.store.get(&hook_object(scope, hook)).await });
        let named = try_join_all(named).await?;
        let (names, num_unreadable) = packs_named(named.into_iter().flatten());
        if num_unreadable > 0 {
            self.problems.of("damaged").inc_by(num_unreadable);
            tracing::warn!(num_unreadable, cache = %self.store.location(), "hooks name no pack");
        }
        let packs = try_join_all(names.iter().map(|name| self.pack(scope, name))).await?;
        let wanted: Arc<HashSet<SegmentKey>> = Arc::new(keys.iter().copied().collect());
        let mut found = FoundOutputs::default();
        for (name, bytes) in names.into_iter().zip(packs) {
            let Some(bytes) = bytes else { continue }; // an old one, which a rule of the bucket removed
            let (wanted, read) = (Arc::clone(&wanted), bytes.clone());
            let pack =
                off_the_runtime(move || Pack::read(&read, &name, scope, |key| wanted.contains(&key))).await;
            match pack {
                Ok(pack) => {
                    let num_bytes = bytes.len();
                    self.recent_packs.lock().expect(NO_PANIC).insert(name, bytes, num_bytes);
                    found.add(pack);
                }
                Err(error) => self.note_damaged(&name, &error),
            }
        }
        Ok(found)
    }

    async fn pack(&self, scope: Scope, name: &PackName) -> Result<Option<Bytes>, StoreError> {
        let remembered = self.recent_packs.lock().expect(NO_PANIC).get(name);
        if remembered.is_some() {
            return Ok(remembered);
        }
        self.store.get(&pack_object(scope, name)).await
    }

    async fn add(
        &self,
        scope: Scope,
        today: u64,
        outputs: Vec<(SegmentKey, SegmentOutputs)>,
    ) -> Result<(), StoreError> {
        let to_keep = move || {
            let kept = outputs.into_iter().map(|(key, outputs)| (key, kept(&outputs)));
            let kept =
                kept.filter(|(_, outputs)| outputs.iter().all(KeptOutput::is_finite)).collect::<Vec<_>>();
            let hooks = hooks(kept.iter().map(|(key, _)| *key));
            (hooks, Pack::object(scope, today, kept))
        };
        let (hooks, (name, bytes)) = off_the_runtime(to_keep).await;
        if hooks.is_empty() {
            return Ok(());
        }
        // First the pack: a hook never names what is not there.
        let (pack, bytes) = (pack_object(scope, &name), Bytes::from(bytes));
        let created = self.store.create(&pack, bytes.clone()).await?;
        if created == CreateOutcome::AlreadyExists && self.store.get(&pack).await?.as_ref() != Some(&bytes) {
            self.store.put(&pack, bytes).await?; // it is damaged
        }
        let content = Bytes::from(name.to_string());
        let put = hooks.into_iter().map(|hook| {
            let content = content.clone();
            async move { self.store.put(&hook_object(scope, hook), content).await }
        });
        join_all(put).await.into_iter().collect()
    }

    fn note_damaged(&self, name: &PackName, error: &PackError) {
        self.problems.of("damaged").inc();
        tracing::warn!(%error, pack = %name, cache = %self.store.location(), "left a pack alone");
    }

    /// Leaves the cache alone for a while, and finds nothing.
    fn rest<T: Default>(&self, problem: &'static str, error: Option<&StoreError>) -> T {
        self.problems.of(problem).inc();
        *self.rests_until.lock().expect(NO_PANIC) = Some(Instant::now() + REST);
        let reason = error.map_or_else(|| "no answer in time".to_owned(), ToString::to_string);
        let cache = self.store.location();
        tracing::warn!(reason, %cache, rest = ?REST, "working without the cache of outputs for a while");
        T::default()
    }

    fn rests(&self) -> bool {
        self.rests_until.lock().expect(NO_PANIC).is_some_and(|end| Instant::now() < end)
    }
}

impl FoundOutputs {
    /// Adds a pack's outputs. If two packs have a segment, they have the same for it.
    fn add(&mut self, pack: Pack) {
        if pack.outputs.is_empty() {
            return;
        }
        self.oldest_day = Some(self.oldest_day.map_or(pack.day, |day| day.min(pack.day)));
        let outputs = pack.outputs.into_iter().map(|(key, kept)| (key, outputs_of(kept)));
        self.outputs.extend(outputs);
    }
}

fn kept(outputs: &[SegmentOutput]) -> Vec<KeptOutput> {
    let kept = |output: &SegmentOutput| {
        let SegmentOutput { alternative, log_probabilities: LogProbabilities { mean, worst } } =
            output.clone();
        let Alternative { output: text, score, output_tokens: tokens, finish_reason } = alternative;
        KeptOutput { text, score, tokens, finish_reason, mean, worst }
    };
    outputs.iter().map(kept).collect()
}

fn outputs_of(kept: Vec<KeptOutput>) -> SegmentOutputs {
    let output = |kept| {
        let KeptOutput { text: output, score, tokens: output_tokens, finish_reason, mean, worst } = kept;
        let alternative = Alternative { output, score, output_tokens, finish_reason };
        SegmentOutput { alternative, log_probabilities: LogProbabilities { mean, worst } }
    };
    kept.into_iter().map(output).collect()
}

/// Compresses or reads a pack, which takes a few milliseconds.
async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("packing does not panic and is not aborted")
}

#[cfg(test)]
mod tests;
