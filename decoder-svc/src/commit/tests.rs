//! Every point at which an attempt can die, and every race between two attempts.

use baton_job::{FailureCode, FinishReason, KeptFields, PartFormat, RecordFailure};
use baton_quality::Signals;
use baton_store::Location;

use super::*;

const SHARD: ShardIndex = ShardIndex(7);

fn source(line: u64) -> RecordSource {
    RecordSource { uri: "a.jsonl".into(), line }
}

/// The row of an output.
pub(crate) fn row(id: String, output: String) -> OutputRow {
    OutputRow {
        id,
        output,
        score: -0.25,
        prompt_tokens: 5,
        llm_prompt_tokens: 7,
        output_tokens: 3,
        finish_reason: FinishReason::Stop,
        warnings: Vec::new(),
        quality: None,
        signals: None,
        tier: None,
        alternatives: Vec::new(),
        origin: None,
        fields: KeptFields::default(),
    }
}

fn output(line: u64) -> Outcome {
    let row = row(format!("r{line}"), format!("riga {line}"));
    Outcome::Output { source: source(line), row, review: None, judgement: None, terms: TermCounts::default() }
}

fn failure(line: u64) -> Outcome {
    let message = "the text is empty or only white space".into();
    Outcome::Failed(RecordFailure { source: source(line), id: None, code: FailureCode::EmptyText, message })
}

/// Commits without a review.
async fn commit(
    store: &Store,
    shard: ShardIndex,
    parts: &PartOptions,
    outcomes: &[Outcome],
) -> Result<Commit, CommitError> {
    super::commit(store, shard, (parts, None), (outcomes, &[])).await
}

/// Three records; the second failed.
fn outcomes() -> Vec<Outcome> {
    vec![output(1), failure(2), output(3)]
}

async fn empty_store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Location::parse(directory.path().to_str().unwrap()).unwrap()).await.unwrap();
    (directory, store)
}

/// Puts an object where an earlier attempt would have.
async fn leave(store: &Store, key: &str, bytes: Bytes) {
    assert_eq!(store.create(key, bytes).await.unwrap(), CreateOutcome::Created);
}

/// Every object of the store, by key.
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
    commit(&store, SHARD, &PartOptions::default(), &outcomes()).await.unwrap();
    contents(&store).await
}

#[tokio::test]
async fn a_commit_leaves_verdict_errors_and_part() {
    let (_directory, store) = empty_store().await;
    let commit = commit(&store, SHARD, &PartOptions::default(), &outcomes()).await.unwrap();
    assert!(!commit.already_committed);
    let Verdict { records, failed, outputs, .. } = &commit.verdict;
    assert_eq!((*records, failed.len(), outputs.rows), (3, 1, 2));
    assert_eq!((outputs.prompt_tokens, outputs.llm_prompt_tokens, outputs.output_tokens), (10, 14, 6));

    let keys: Vec<String> = contents(&store).await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["_baton/shards/000007.json", "errors/part-000007.jsonl", "part-000007.jsonl"]);
}

#[tokio::test]
async fn parts_have_the_jobs_format_and_verdicts_the_places_of_failed_records() {
    let (_directory, store) = empty_store().await;
    let format: PartFormat = "jsonl.zst".parse().unwrap();
    let parts = PartOptions { format, has_origin: true, ..PartOptions::default() };
    let commit = commit(&store, SHARD, &parts, &outcomes()).await.unwrap();
    assert_eq!(commit.verdict.failed_at, [1]);
    let part = store.get("part-000007.jsonl.zst").await.unwrap().unwrap();
    let rows = format.reader(Box::new(std::io::Cursor::new(part))).unwrap();
    let origins: Vec<_> = rows.map(|row| row.unwrap().origin.unwrap()).collect();
    assert_eq!(origins, [source(1), source(3)]);
}

#[tokio::test]
async fn a_shard_without_failures_has_no_error_object_and_one_without_outputs_an_empty_part() {
    let (_directory, store) = empty_store().await;
    commit(&store, SHARD, &PartOptions::default(), &[output(1)]).await.unwrap();
    assert_eq!(store.get(&errors_key(SHARD)).await.unwrap(), None);
    let other = ShardIndex(8);
    commit(&store, other, &PartOptions::default(), &[failure(1)]).await.unwrap();
    assert_eq!(store.get(&part_key(other, PartFormat::default())).await.unwrap(), Some(Bytes::new()));
}

#[tokio::test]
async fn a_crash_after_any_step_is_completed_to_the_same_bytes() {
    let expected = undisturbed().await;
    let order = [verdict_key(SHARD), errors_key(SHARD), part_key(SHARD, PartFormat::default())];
    for num_steps_done in 0..=order.len() {
        let (_directory, store) = empty_store().await;
        for key in &order[..num_steps_done] {
            let (_, bytes) = expected.iter().find(|(name, _)| name == key).unwrap();
            leave(&store, key, bytes.clone()).await;
        }
        let commit = commit(&store, SHARD, &PartOptions::default(), &outcomes()).await.unwrap();
        assert_eq!(commit.already_committed, num_steps_done == order.len(), "after {num_steps_done} steps");
        assert_eq!(contents(&store).await, expected, "after {num_steps_done} steps");
    }
}

#[tokio::test]
async fn a_later_attempt_obeys_the_verdict_on_records_that_it_could_decode() {
    let expected = undisturbed().await;
    let (_directory, store) = empty_store().await;
    let (_, verdict) = expected.iter().find(|(key, _)| *key == verdict_key(SHARD)).unwrap();
    leave(&store, &verdict_key(SHARD), verdict.clone()).await;

    let all_decoded = [output(1), output(2), output(3)];
    commit(&store, SHARD, &PartOptions::default(), &all_decoded).await.unwrap();
    assert_eq!(contents(&store).await, expected);
}

#[tokio::test]
async fn a_later_attempt_without_an_output_that_the_verdict_wants_commits_nothing() {
    let (_directory, store) = empty_store().await;
    let (verdict, part) = judge(SHARD, &PartOptions::default(), &outcomes()).unwrap();
    leave(&store, &verdict_key(SHARD), verdict.to_json().into()).await;

    let unlucky = [output(1), failure(2), failure(3)];
    let error = commit(&store, SHARD, &PartOptions::default(), &unlucky).await.unwrap_err();
    assert!(matches!(&error, CommitError::OutputMissing { line: 3, .. }), "{error}");
    assert_eq!(store.get(&part_key(SHARD, PartFormat::default())).await.unwrap(), None);

    // Once the part exists, the same attempt learns that the shard is committed.
    leave(&store, &part_key(SHARD, PartFormat::default()), part).await;
    assert!(commit(&store, SHARD, &PartOptions::default(), &unlucky).await.unwrap().already_committed);
}

/// The second record failed, and the third has another output than in [`outcomes`].
fn other_outcomes() -> Vec<Outcome> {
    let mut outcomes = outcomes();
    let Outcome::Output { row, .. } = &mut outcomes[2] else { panic!("the third is an output") };
    row.output = "riga tre".to_owned();
    outcomes
}

#[tokio::test]
async fn an_attempt_that_makes_other_bytes_amends_the_sums_before_it_creates_its_part() {
    let (_directory, store) = empty_store().await;
    let (first, _) = judge(SHARD, &PartOptions::default(), &other_outcomes()).unwrap();
    leave(&store, &verdict_key(SHARD), first.to_json().into()).await;

    let amended = commit(&store, SHARD, &PartOptions::default(), &outcomes()).await.unwrap();
    assert!(!amended.already_committed);
    let (own, part) = judge(SHARD, &PartOptions::default(), &outcomes()).unwrap();
    assert_eq!(amended.verdict, own, "the same records failed");
    assert_eq!(store.get(&part_key(SHARD, PartFormat::default())).await.unwrap(), Some(part));
    let key = amendment_key(SHARD, &own.outputs.sha256);
    assert_eq!(store.get(&key).await.unwrap(), Some(own.to_json().into()));

    // Every later attempt, whatever bytes it makes, finds the verdict that matches the part.
    for outcomes in [outcomes(), other_outcomes()] {
        let late = commit(&store, SHARD, &PartOptions::default(), &outcomes).await.unwrap();
        assert!(late.already_committed);
        assert_eq!(late.verdict, own);
    }
}

#[tokio::test]
async fn an_amendment_does_not_change_which_records_failed() {
    let (_directory, store) = empty_store().await;
    let (first, _) = judge(SHARD, &PartOptions::default(), &other_outcomes()).unwrap();
    leave(&store, &verdict_key(SHARD), first.to_json().into()).await;
    let all_decoded = [output(1), output(2), output(3)];
    let amended = commit(&store, SHARD, &PartOptions::default(), &all_decoded).await.unwrap().verdict;
    assert_eq!((amended.failed, amended.outputs.rows), (first.failed.clone(), 2));
    assert_eq!(store.get(&errors_key(SHARD)).await.unwrap(), Some(first.error_rows().into()));
}

#[tokio::test]
async fn an_attempt_that_died_between_amendment_and_part_leaves_nothing_that_holds_others_up() {
    for finisher in [outcomes(), other_outcomes()] {
        let (_directory, store) = empty_store().await;
        let (first, _) = judge(SHARD, &PartOptions::default(), &other_outcomes()).unwrap();
        let (amendment, _) = judge(SHARD, &PartOptions::default(), &outcomes()).unwrap();
        leave(&store, &verdict_key(SHARD), first.to_json().into()).await;
        let key = amendment_key(SHARD, &amendment.outputs.sha256);
        leave(&store, &key, amendment.to_json().into()).await;
        let commit = commit(&store, SHARD, &PartOptions::default(), &finisher).await.unwrap();
        let (own, part) = judge(SHARD, &PartOptions::default(), &finisher).unwrap();
        assert_eq!((commit.verdict, commit.already_committed), (own, false));
        assert_eq!(store.get(&part_key(SHARD, PartFormat::default())).await.unwrap(), Some(part));
    }
}

#[tokio::test]
async fn one_of_racing_attempts_with_different_bytes_wins_and_all_report_its_sums() {
    let (_directory, store) = empty_store().await;
    let (ours, theirs, parts) = (outcomes(), other_outcomes(), PartOptions::default());
    let (one, other) =
        tokio::join!(commit(&store, SHARD, &parts, &ours), commit(&store, SHARD, &parts, &theirs));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(one.already_committed != other.already_committed);
    assert_eq!(one.verdict, other.verdict);
    let part = store.get(&part_key(SHARD, PartFormat::default())).await.unwrap().unwrap();
    one.verdict.check_part("the part", &part).unwrap();
}

#[tokio::test]
async fn a_part_that_was_changed_is_reported() {
    let (_directory, store) = empty_store().await;
    commit(&store, SHARD, &PartOptions::default(), &outcomes()).await.unwrap();
    store.put(&part_key(SHARD, PartFormat::default()), Bytes::from_static(b"{}\n")).await.unwrap();
    let error = commit(&store, SHARD, &PartOptions::default(), &outcomes()).await.unwrap_err();
    assert!(matches!(&error, CommitError::Left { .. }), "{error}");
}

#[tokio::test]
async fn one_of_racing_attempts_commits_and_all_agree() {
    let expected = undisturbed().await;
    let (_directory, store) = empty_store().await;
    let (outcomes, parts) = (outcomes(), PartOptions::default());
    let race = [(); 3].map(|()| commit(&store, SHARD, &parts, &outcomes));
    let [first, second, third] = race;
    let (first, second, third) = tokio::join!(first, second, third);
    let commits = [first.unwrap(), second.unwrap(), third.unwrap()];
    assert_eq!(commits.iter().filter(|commit| !commit.already_committed).count(), 1);
    assert!(commits.iter().all(|commit| commit.verdict == commits[0].verdict));
    assert_eq!(contents(&store).await, expected);
}

/// Two outputs, the second worse than the first.
fn reviewed() -> Vec<Outcome> {
    let with_review = |(line, quality): (u64, f64)| match output(line) {
        Outcome::Output { source, row, .. } => {
            let review = ReviewRow {
                id: row.id.clone(),
                quality,
                source: "a line".into(),
                output: row.output.clone(),
                warnings: Vec::new(),
                signals: signals(),
                origin: source.clone(),
            };
            let review = Some(Box::new(review));
            Outcome::Output { source, row, review, judgement: None, terms: TermCounts::default() }
        }
        failed @ Outcome::Failed(_) => failed,
    };
    [(1, 0.75), (3, 0.25)].into_iter().map(with_review).collect()
}

fn signals() -> Signals {
    Signals {
        mean_logprob: -0.5,
        worst_logprob: -1.0,
        length_ratio: 1.0,
        repetition: 0.0,
        copied: 0.0,
        language: 0.0,
        warnings: 0,
        cut: false,
        source_words: 2,
    }
}

#[tokio::test]
async fn the_worst_outputs_are_there_before_the_part_and_stay_the_first_attempts() {
    let ids = |bytes: &Bytes| {
        let rows =
            std::str::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap());
        rows.map(|row: ReviewRow| row.id).collect::<Vec<_>>()
    };
    for (review, expected) in [(1.0, vec!["r3"]), (9.0, vec!["r3", "r1"]), (0.8, vec!["r1", "r3"])] {
        let (_directory, store) = empty_store().await;
        let parts = PartOptions::default();
        super::commit(&store, SHARD, (&parts, Some(review)), (&reviewed(), &[])).await.unwrap();
        let rows = store.get("_baton/review/000007.jsonl").await.unwrap().unwrap();
        assert_eq!(ids(&rows), expected);
        super::commit(&store, SHARD, (&parts, Some(review)), (&reviewed(), &[])).await.unwrap();
    }
    let (_directory, store) = empty_store().await;
    super::commit(&store, SHARD, (&PartOptions::default(), Some(0.1)), (&reviewed(), &[])).await.unwrap();
    assert_eq!(store.get("_baton/review/000007.jsonl").await.unwrap(), None, "none is that bad");
}
