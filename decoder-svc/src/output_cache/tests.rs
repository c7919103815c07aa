//! Outputs are found again, and no fault of a cache is more than a miss.

use std::fs;
use std::path::{Path, PathBuf};

use baton_generation::{FinishReason, GenerationOptions};
use baton_reuse::{NUM_HOOKS, ScopeParts, SegmentKeys};
use baton_text::View;

use super::*;

fn scope(bundle_digest: &str) -> Scope {
    let generation = GenerationOptions::default();
    let (mode, arithmetic) = ("hybrid", "f32 on a CPU");
    Scope::of(&ScopeParts { bundle_digest, mode, task: None, generation: &generation, arithmetic })
}

fn key(number: u32) -> SegmentKey {
    SegmentKeys::new("").of_view(&View { text: &number.to_string(), terms: Vec::new() }, None)
}

fn keys(numbers: impl IntoIterator<Item = u32>) -> Vec<SegmentKey> {
    numbers.into_iter().map(key).collect()
}

fn outputs(number: u32) -> SegmentOutputs {
    let output = |output: String, score| SegmentOutput {
        alternative: Alternative { output, score, output_tokens: 3, finish_reason: FinishReason::Stop },
        log_probabilities: LogProbabilities { mean: score / 3.0, worst: score },
    };
    [output(format!("uno {number}"), -0.1), output("due".to_owned(), -1.0 / f64::from(number + 1))].into()
}

fn shard(numbers: impl IntoIterator<Item = u32>) -> Vec<(SegmentKey, SegmentOutputs)> {
    numbers.into_iter().map(|number| (key(number), outputs(number))).collect()
}

async fn cache(directory: &Path) -> OutputCache {
    let store = Store::open(Location::Local(directory.to_owned())).await.unwrap();
    OutputCache::new(store, LabelledCounter::new("problem"))
}

/// The files of a cache of this kind.
fn files(directory: &Path, kind: &str) -> Vec<PathBuf> {
    let below = |path: PathBuf| fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path());
    let scopes = below(directory.to_owned()).filter(|path| !path.ends_with(".baton-tmp"));
    scopes.flat_map(|scope| below(scope.join(kind))).flat_map(below).collect()
}

#[tokio::test]
async fn outputs_are_found_again_to_the_last_bit_and_only_in_their_scope() {
    let directory = tempfile::tempdir().unwrap();
    cache(directory.path()).await.save(scope("a"), 5, shard(0..40)).await;
    let later = cache(directory.path()).await;
    let found = later.find(scope("a"), &keys(2..45)).await;
    assert_eq!((found.outputs.len(), found.oldest_day), (38, Some(5)));
    assert!((2..40).all(|number| found.outputs[&key(number)] == outputs(number)));
    assert!(later.find(scope("b"), &keys(0..40)).await.outputs.is_empty());
    assert!(later.find(scope("a"), &keys(100..140)).await.outputs.is_empty());
    assert!(later.find(scope("a"), &[]).await.outputs.is_empty());
}

#[tokio::test]
async fn a_shard_lies_in_the_packs_of_both_shards_that_it_was_made_of() {
    let directory = tempfile::tempdir().unwrap();
    let earlier = cache(directory.path()).await;
    earlier.save(scope("a"), 5, shard(0..40)).await;
    earlier.save(scope("a"), 6, shard(40..80)).await;
    let found = cache(directory.path()).await.find(scope("a"), &keys(20..60)).await;
    assert_eq!((found.outputs.len(), found.oldest_day), (40, Some(5)));
}

#[tokio::test]
async fn hooks_name_the_newest_pack_and_a_removed_one_is_no_problem() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(directory.path()).await;
    cache.save(scope("a"), 5, shard(0..40)).await;
    let first = files(directory.path(), "packs");
    cache.save(scope("a"), 6, shard(0..40)).await;
    assert_eq!(files(directory.path(), "packs").len(), 2);
    assert_eq!(files(directory.path(), "hooks").len(), NUM_HOOKS);
    first.iter().for_each(|pack| fs::remove_file(pack).unwrap());
    assert_eq!(cache.find(scope("a"), &keys(0..40)).await.oldest_day, Some(6));
    files(directory.path(), "packs").iter().for_each(|pack| fs::remove_file(pack).unwrap());
    let other = self::cache(directory.path()).await;
    assert!(other.find(scope("a"), &keys(0..40)).await.outputs.is_empty());
    assert_eq!(other.problems.of("damaged").get(), 0);
}

#[tokio::test]
async fn damaged_objects_are_counted_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    cache(directory.path()).await.save(scope("a"), 5, shard(0..40)).await;
    let [pack] = &files(directory.path(), "packs")[..] else { panic!("one pack") };
    let mut bytes = fs::read(pack).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(pack, bytes).unwrap();
    let damaged = cache(directory.path()).await;
    assert!(damaged.find(scope("a"), &keys(0..40)).await.outputs.is_empty());
    assert_eq!(damaged.problems.of("damaged").get(), 1);

    for hook in files(directory.path(), "hooks") {
        fs::write(hook, "../../etc/passwd").unwrap();
    }
    let damaged = cache(directory.path()).await;
    assert!(damaged.find(scope("a"), &keys(0..40)).await.outputs.is_empty());
    assert_eq!(damaged.problems.of("damaged").get(), NUM_HOOKS as u64);

    damaged.save(scope("a"), 5, shard(0..40)).await;
    assert_eq!(damaged.find(scope("a"), &keys(0..40)).await.outputs.len(), 40, "mended");
    assert_eq!(files(directory.path(), "packs").len(), 1);
}

#[tokio::test]
async fn a_cache_that_fails_is_left_alone_for_a_while() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(directory.path()).await;
    fs::write(directory.path().join(scope("a").to_string()), "in the way").unwrap();
    cache.save(scope("a"), 5, shard(0..40)).await;
    assert_eq!(cache.problems.of("unreachable").get(), 1);
    cache.save(scope("b"), 5, shard(0..40)).await;
    assert!(files(directory.path(), "packs").is_empty() && cache.rests());
}

#[tokio::test]
async fn writers_at_the_same_time_leave_whole_packs() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (cache(directory.path()).await, cache(directory.path()).await);
    tokio::join!(
        one.save(scope("a"), 5, shard(0..40)),
        other.save(scope("a"), 5, shard((0..40).rev())),
        one.save(scope("a"), 5, shard(1..41)),
        other.save(scope("a"), 5, shard(40..80)),
    );
    assert_eq!(files(directory.path(), "packs").len(), 3, "equal outputs are one object");
    let found = cache(directory.path()).await.find(scope("a"), &keys(1..40)).await;
    assert_eq!(found.outputs.len(), 39);
    assert!(
        found.outputs.iter().all(|(found, kept)| (1..40).any(|n| key(n) == *found && outputs(n) == *kept))
    );
}

#[tokio::test]
async fn outputs_that_json_cannot_hold_are_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(directory.path()).await;
    let mut infinite = outputs(0).to_vec();
    infinite[1].log_probabilities.worst = f64::NEG_INFINITY;
    cache.save(scope("a"), 5, vec![(key(0), infinite.into())]).await;
    assert!(files(directory.path(), "packs").is_empty());
    assert!(cache.find(scope("a"), &keys(0..1)).await.outputs.is_empty());
}
