//! Every point at which an attempt at a tier can die, and every race between two attempts.

use baton_job::layout::verdict_key;
use baton_job::{FailureCode, Judgement, PartOptions, RecordFailure, RecordSource, TermCounts};
use baton_store::Location;
use baton_worker::MemoryBudget;
use bytes::Bytes;

use super::*;
use crate::commit::tests::row;
use crate::commit::{Commit, commit};

const SHARD: ShardIndex = ShardIndex(7);

fn source(position: u32) -> RecordSource {
    RecordSource { uri: "a.jsonl".into(), line: u64::from(position) + 1 }
}

/// An output of the entry at this position of the shard.
fn output(position: u32, text: &str, estimate: f64) -> Outcome {
    let row = row(format!("r{position}"), format!("{text} {position}"));
    let row = OutputRow { score: -0.123_456_789, ..row };
    let judgement = Some(Judgement { estimate: Some(estimate), mean_logprob: -0.5 });
    Outcome::Output { source: source(position), row, review: None, judgement, terms: TermCounts::default() }
}

fn failed(position: u32, code: FailureCode) -> Outcome {
    Outcome::Failed(RecordFailure { source: source(position), id: None, code, message: "x".into() })
}

/// Of six entries, the first tier keeps the second and third, and cannot help with the last.
fn first_outcomes() -> Vec<Outcome> {
    vec![
        output(0, "uno", 0.2),
        output(1, "uno", 0.9),
        output(2, "uno", 0.5),
        failed(3, FailureCode::PromptTooLong),
        output(4, "uno", 0.1),
        failed(5, FailureCode::EmptyText),
    ]
}

fn first_tier() -> TierAttempt {
    let threshold = Some("0.5".parse().unwrap());
    TierAttempt { number: 0, name: "slm".into(), threshold, positions: Vec::new() }
}

/// The second tier of three.
fn second_tier() -> TierAttempt {
    let threshold = Some("0.5".parse().unwrap());
    TierAttempt { number: 1, name: "hybrid".into(), threshold, positions: vec![0, 3, 4] }
}

fn second_outcomes() -> Vec<Outcome> {
    vec![output(0, "due", 0.4), output(3, "due", 0.7), output(4, "due", 0.6)]
}

fn last_tier() -> TierAttempt {
    TierAttempt { number: 2, name: "llm".into(), threshold: None, positions: vec![0] }
}

fn last_outcomes() -> Vec<Outcome> {
    vec![failed(0, FailureCode::ProcessingFailed)]
}

async fn empty_store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Location::parse(directory.path().to_str().unwrap()).unwrap()).await.unwrap();
    (directory, store)
}

async fn end(store: &Store, tier: &TierAttempt, outcomes: Vec<Outcome>) -> Result<TierEnd, CommitError> {
    let mut memory = MemoryBudget::new(usize::MAX).share();
    end_tier(store, SHARD, (tier, outcomes), &mut memory).await
}

/// Ends the attempt, and commits the shard if that is its end.
async fn end_and_commit(store: &Store, tier: &TierAttempt, outcomes: Vec<Outcome>) -> Option<Commit> {
    match end(store, tier, outcomes).await.unwrap() {
        TierEnd::GoesOn(_) => None,
        TierEnd::Done(WholeShard { outcomes, tiers }) => {
            let parts = PartOptions { has_tier: true, ..PartOptions::default() };
            Some(commit(store, SHARD, (&parts, None), (&outcomes, &tiers)).await.unwrap())
        }
    }
}

/// The attempts of an undisturbed shard.
fn attempts() -> [(TierAttempt, Vec<Outcome>); 3] {
    [(first_tier(), first_outcomes()), (second_tier(), second_outcomes()), (last_tier(), last_outcomes())]
}

async fn contents(store: &Store) -> Vec<(String, Bytes)> {
    let mut contents = Vec::new();
    for object in store.list("").await.unwrap() {
        let bytes = store.get(&object.key).await.unwrap().unwrap();
        contents.push((object.key, bytes));
    }
    contents
}

async fn undisturbed() -> Vec<(String, Bytes)> {
    let (_directory, store) = empty_store().await;
    for (tier, outcomes) in attempts() {
        end_and_commit(&store, &tier, outcomes).await;
    }
    contents(&store).await
}

#[tokio::test]
async fn records_go_on_until_a_tier_is_sure_of_them_and_the_last_one_commits_all() {
    let (_directory, store) = empty_store().await;
    let goes_on = end(&store, &first_tier(), first_outcomes()).await.unwrap();
    assert_eq!(goes_on, TierEnd::GoesOn(vec![0, 3, 4]), "below the threshold, or failed");
    assert_eq!(end(&store, &second_tier(), second_outcomes()).await.unwrap(), TierEnd::GoesOn(vec![0]));
    assert_eq!(store.get(&verdict_key(SHARD)).await.unwrap(), None, "nothing is committed yet");

    let verdict = end_and_commit(&store, &last_tier(), last_outcomes()).await.unwrap().verdict;
    assert_eq!((verdict.records, verdict.outputs.rows, verdict.failed_at), (6, 4, vec![0, 5]));
    let sums: Vec<_> =
        verdict.tiers.iter().map(|tier| (tier.records, tier.outputs, tier.escalated)).collect();
    assert_eq!(sums, [(6, 2, 3), (3, 2, 1), (1, 0, 0)]);
    assert_eq!(verdict.tiers[0].output_tokens, 12, "of all that it wrote");
    assert_eq!(verdict.outputs.output_tokens, 12, "of all that is there");
    assert_eq!(verdict.tiers[0].escalated_estimates.mean(), Some(0.15));
    assert_eq!(verdict.tiers[1].estimates.count, 3);

    let part = store.get("part-000007.jsonl").await.unwrap().unwrap();
    let rows: Vec<OutputRow> =
        std::str::from_utf8(&part).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let rows: Vec<_> = rows.iter().map(|row| (row.output.as_str(), row.tier.as_deref().unwrap())).collect();
    assert_eq!(
        rows,
        [("uno 1", "slm"), ("uno 2", "slm"), ("due 3", "hybrid"), ("due 4", "hybrid")],
        "in the order of the input"
    );
}

#[tokio::test]
async fn a_crash_after_any_step_is_completed_to_the_same_bytes() {
    let expected = undisturbed().await;
    let keys = [tier_key(0, SHARD), tier_key(1, SHARD), verdict_key(SHARD)];
    for num_steps_done in 0..=keys.len() {
        let (_directory, store) = empty_store().await;
        for key in &keys[..num_steps_done] {
            let (_, bytes) = expected.iter().find(|(name, _)| name == key).unwrap();
            assert_eq!(store.create(key, bytes.clone()).await.unwrap(), CreateOutcome::Created);
        }
        // A coordinator that knows of no result begins at the first tier again.
        for (tier, outcomes) in attempts() {
            end_and_commit(&store, &tier, outcomes).await;
        }
        assert_eq!(contents(&store).await, expected, "after {num_steps_done} steps");
    }
}

#[tokio::test]
async fn a_later_attempt_obeys_the_first_result_on_which_records_go_on() {
    let expected = undisturbed().await;
    let (_directory, store) = empty_store().await;
    end(&store, &first_tier(), first_outcomes()).await.unwrap();
    let other = vec![
        output(0, "UNO", 0.9),
        output(1, "UNO", 0.1),
        output(2, "UNO", 0.1),
        output(3, "UNO", 0.9),
        failed(4, FailureCode::Poisonous),
        failed(5, FailureCode::EmptyText),
    ];
    assert_eq!(end(&store, &first_tier(), other).await.unwrap(), TierEnd::GoesOn(vec![0, 3, 4]));
    end(&store, &second_tier(), second_outcomes()).await.unwrap();
    end_and_commit(&store, &last_tier(), last_outcomes()).await.unwrap();
    assert_eq!(contents(&store).await, expected);
}

#[tokio::test]
async fn racing_attempts_at_a_tier_agree_on_its_records() {
    let (_directory, store) = empty_store().await;
    let mut other = first_outcomes();
    other[0] = output(0, "UNO", 0.9);
    let (first, second) = (first_tier(), first_tier());
    let (one, two) = tokio::join!(end(&store, &first, first_outcomes()), end(&store, &second, other));
    assert_eq!(one.unwrap(), two.unwrap());
}

#[tokio::test]
async fn a_shard_of_which_nothing_goes_on_is_committed_at_once() {
    let (_directory, store) = empty_store().await;
    let all_good = vec![output(0, "uno", 0.9), failed(1, FailureCode::Poisonous), output(2, "uno", 0.8)];
    let commit = end_and_commit(&store, &first_tier(), all_good.clone()).await.unwrap();
    assert_eq!((commit.verdict.outputs.rows, commit.verdict.failed_at), (2, vec![1]));
    assert_eq!(commit.verdict.tiers.len(), 1, "no other tier had anything to do");
    let again = end_and_commit(&store, &first_tier(), all_good).await.unwrap();
    assert!(again.already_committed);
}

#[tokio::test]
async fn results_that_do_not_fit_together_are_reported_and_nothing_is_committed() {
    let (_directory, store) = empty_store().await;
    end(&store, &first_tier(), first_outcomes()).await.unwrap();
    let elsewhere = TierAttempt { positions: vec![0, 1, 4], threshold: None, ..second_tier() };
    let error = end(&store, &elsewhere, second_outcomes()).await.unwrap_err();
    assert!(matches!(&error, CommitError::TiersDisagree { .. }), "{error}");
    let (_directory, store) = empty_store().await;
    let error = end(&store, &last_tier(), last_outcomes()).await.unwrap_err();
    assert!(matches!(&error, CommitError::Left { .. }), "no result of the tiers before: {error}");
    assert_eq!(store.list("").await.unwrap().len(), 0);
}
