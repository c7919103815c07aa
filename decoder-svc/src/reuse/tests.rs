//! Outputs that a shard finds, those that it leaves, and their numbers.

use std::path::Path;

use baton_generation::{FinishReason, GenerationOptions};
use baton_job::{Alternative, Lease, Mode, PartOptions, ShardIndex};
use baton_quality::LogProbabilities;
use baton_reuse::SegmentKeys;
use baton_text::View;

use super::*;
use crate::joined::SegmentOutput;

fn attempt(job: &str, cache: Option<&Path>) -> ShardAttempt {
    ShardAttempt {
        job_id: job.to_owned(),
        lease: Lease { shard: ShardIndex(0), attempt: 1 },
        num_entries: 3,
        bundle_digest: "d".to_owned(),
        output_location: "out".to_owned(),
        cache_location: cache.map(|path| path.to_str().unwrap().to_owned()),
        mode: Mode::Hybrid,
        task: None,
        generation: GenerationOptions::default(),
        parts: PartOptions::default(),
        first_entry: 0,
        is_probe: false,
        tier: None,
    }
}

fn keys(texts: &[&'static str]) -> Vec<SegmentKey> {
    let key = |text: &&'static str| SegmentKeys::new("").of_view(&View { text, terms: Vec::new() }, None);
    texts.iter().map(key).collect()
}

fn generated(text: &str) -> Generated {
    let (output, finish_reason) = (text.to_owned(), FinishReason::Stop);
    let alternative = Alternative { output, score: -0.5, output_tokens: 2, finish_reason };
    Ok([SegmentOutput { alternative, log_probabilities: LogProbabilities { mean: -0.25, worst: -0.4 } }]
        .into())
}

fn known() -> KnownOutputs {
    KnownOutputs::new("f32 on a CPU".to_owned(), &DecoderMetrics::default())
}

/// Decodes what is not found, as what it is. Returns the texts of all outputs.
async fn run(
    known: &KnownOutputs,
    attempt: &ShardAttempt,
    texts: &[&'static str],
) -> (Vec<String>, ReuseCounts) {
    let mut shard = known.look_up(attempt, keys(texts)).await;
    let found = shard.found();
    let mut outputs = Vec::new();
    for (number, text) in (0..).zip(texts) {
        let generated = match found.has(number) {
            true => Ok(shard.reuse(number).unwrap()),
            false => {
                shard.begin(number).unwrap();
                let generated = generated(text);
                shard.finish(number, &generated, known);
                generated
            }
        };
        outputs.push(generated.unwrap()[0].alternative.output.clone());
    }
    let counts = shard.counts();
    shard.save().await;
    (outputs, counts)
}

#[tokio::test]
async fn a_job_remembers_its_segments_and_another_job_does_not() {
    let known = known();
    let (outputs, counts) = run(&known, &attempt("one", None), &["a", "b"]).await;
    assert_eq!(
        (outputs, counts),
        (vec!["a".into(), "b".into()], ReuseCounts { segments: 2, ..ReuseCounts::default() })
    );
    let (outputs, counts) = run(&known, &attempt("one", None), &["b", "c"]).await;
    assert_eq!(outputs, ["b", "c"]);
    assert_eq!(counts, ReuseCounts { segments: 2, remembered: 1, ..ReuseCounts::default() });
    let (_, counts) = run(&known, &attempt("other", None), &["b", "c"]).await;
    assert_eq!(counts.reused(), 0);
    let beams = GenerationOptions { beams: 2, ..GenerationOptions::default() };
    let (_, counts) = run(&known, &ShardAttempt { generation: beams, ..attempt("one", None) }, &["b"]).await;
    assert_eq!(counts.reused(), 0);
}

#[tokio::test]
async fn another_job_on_another_decoder_finds_what_the_cache_has() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Some(directory.path());
    run(&known(), &attempt("one", cache), &["a", "b", "c"]).await;
    let (outputs, counts) = run(&known(), &attempt("other", cache), &["c", "d", "a"]).await;
    assert_eq!(outputs, ["c", "d", "a"]);
    assert_eq!(counts, ReuseCounts { segments: 3, cached: 2, ..ReuseCounts::default() });
    let (_, counts) = run(&known(), &attempt("third", cache), &["c", "d", "a"]).await;
    assert_eq!(counts.cached, 3, "what was missing was added");
    let elsewhere = KnownOutputs::new("int8 on a CPU".to_owned(), &DecoderMetrics::default());
    assert_eq!(run(&elsewhere, &attempt("fourth", cache), &["a"]).await.1.reused(), 0);
}

#[tokio::test]
async fn a_shard_that_is_all_in_the_cache_adds_nothing_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let num_files = || walk(directory.path());
    run(&known(), &attempt("one", Some(directory.path())), &["a", "b"]).await;
    let before = num_files();
    run(&known(), &attempt("other", Some(directory.path())), &["b", "a"]).await;
    assert_eq!(num_files(), before);
    run(&known(), &attempt("third", Some(directory.path())), &["b", "a", "new"]).await;
    assert!(num_files() > before);
}

fn walk(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { walk(&path) } else { 1 }).sum()
}

#[tokio::test]
async fn failures_are_not_kept() {
    let known = known();
    let mut shard = known.look_up(&attempt("one", None), keys(&["a"])).await;
    shard.begin(0).unwrap();
    shard.finish(0, &Err("it broke"), &known);
    assert_eq!(run(&known, &attempt("one", None), &["a"]).await.1.reused(), 0);
}

#[tokio::test]
async fn a_cache_that_cannot_be_opened_costs_nothing_but_the_outputs() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let below_a_file = file.path().join("cache");
    let (outputs, counts) = run(&known(), &attempt("one", Some(&below_a_file)), &["a"]).await;
    assert_eq!((outputs, counts.reused()), (vec!["a".to_owned()], 0));
}

#[tokio::test]
async fn prompts_that_were_not_found_cannot_be_reused() {
    let known = known();
    run(&known, &attempt("one", None), &["a"]).await;
    let mut shard = known.look_up(&attempt("one", None), keys(&["b", "a"])).await;
    assert!(shard.reuse(0).is_err() && shard.reuse(2).is_err() && shard.begin(2).is_err());
    assert!(shard.reuse(1).is_ok());
    assert!(ShardReuse::default().reuse(0).is_err(), "a shard without keys");
}
