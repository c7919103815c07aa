//! A job from its first shard to its manifest, its interruption and its restart.

use std::fs;
use std::sync::Arc;

use crate::support::{Act, Scene, Script};
use baton_coordinator::{JobOutcome, JobWatch, Shutdown};
use tokio::sync::watch;

#[tokio::test]
async fn every_shard_is_leased_once_and_the_manifest_is_written_last() {
    let scene = Scene::new(Script::new());
    let report = scene.run().await.unwrap();
    assert_eq!((report.outcome, report.job_has_ended), (JobOutcome::Complete, true));
    assert_eq!((report.totals.shards, report.totals.records, report.totals.outputs), (5, 10, 10));
    assert_eq!(scene.attempts(), (0..5).map(|shard| (shard, 1)).collect::<Vec<_>>());
    assert_eq!(scene.output("part-000003.jsonl").unwrap(), "line 6\nline 7\n");
    assert!(scene.output("_SUCCESS").unwrap().contains("part-000004.jsonl"));

    let again = scene.run().await.unwrap();
    assert!(again.was_complete && again.totals == report.totals);
    assert_eq!(scene.attempts().len(), 5, "nothing was leased again");
}

#[tokio::test]
async fn a_restarted_job_leases_only_uncommitted_shards() {
    let scene = Scene::new(Script::new());
    scene.run().await.unwrap();
    for name in ["_SUCCESS", "part-000001.jsonl", "part-000004.jsonl"] {
        scene.remove_output(name);
    }
    scene.seen.lock().unwrap().clear();
    let report = scene.run().await.unwrap();
    assert_eq!(scene.attempts(), [(1, 1), (4, 1)]);
    assert_eq!((report.totals.records, report.resumed.records), (10, 6));
}

#[tokio::test]
async fn a_job_stops_on_request_and_continues_later() {
    let scene = Scene::new(Script::new());
    let report = scene.run_with("0/1", &JobWatch::default(), Shutdown::Drain).await.unwrap();
    assert_eq!((report.outcome, report.totals.records), (JobOutcome::Interrupted, 0));
    assert_eq!(scene.run().await.unwrap().outcome, JobOutcome::Complete);
}

#[tokio::test]
async fn shards_that_outlast_the_grace_period_are_given_up() {
    let scene = Scene::new((0..5).map(|shard| ((shard, 1), Act::Hang)).collect());
    let job = scene.open("0/1").await.unwrap();
    let (wish, shutdown) = watch::channel(Shutdown::No);
    let seen = Arc::clone(&scene.seen);
    let ask_to_stop = async {
        while seen.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        wish.send_replace(Shutdown::Drain);
    };
    let watch = JobWatch::default();
    let (report, ()) = tokio::join!(job.run(scene.cluster(), &scene.options, &watch, shutdown), ask_to_stop);
    assert_eq!(report.unwrap().outcome, JobOutcome::Interrupted);
}

#[tokio::test]
async fn a_part_beyond_the_input_is_reported() {
    let scene = Scene::new(Script::new());
    scene.run().await.unwrap();
    scene.remove_output("_SUCCESS");
    let out = scene.directory.path().join("out");
    fs::copy(out.join("part-000000.jsonl"), out.join("part-000009.jsonl")).unwrap();
    let verdict = scene.output("_baton/shards/000000.json").unwrap().replace("\"shard\":0", "\"shard\":9");
    fs::write(out.join("_baton/shards/000009.json"), verdict).unwrap();
    let error = scene.run().await.unwrap_err().to_string();
    assert!(error.starts_with("part-000009.jsonl exists, but the input has only 5 shards"), "{error}");
}

#[tokio::test]
async fn a_job_that_is_only_prepared_writes_nothing() {
    let scene = Scene::new(Script::new());
    scene.open("0/1").await.unwrap();
    assert_eq!(scene.output("_baton/job.json"), None);
    scene.run().await.unwrap();
    let another =
        baton_coordinator::PreparedJob::open(scene.spec(), "another digest", "0/1".parse().unwrap());
    let error = another.await.unwrap_err().to_string();
    assert!(error.contains("the bundle was digest, now another digest"), "{error}");
}

#[tokio::test]
async fn the_sums_of_an_amended_shard_are_those_that_its_part_follows() {
    use baton_job::layout::amendment_key;
    use baton_job::{PartSummary, ShardIndex, Verdict, sha256_hex};

    let scene = Scene::new(Script::new());
    scene.run().await.unwrap();
    scene.remove_output("_SUCCESS");
    // A decoder on another kind of processor has written other bytes, after an amendment that says so.
    let (shard, part) = (ShardIndex(2), b"LINE 4\nLINE 5!\n");
    let first = scene.output("_baton/shards/000002.json").unwrap();
    let amended = Verdict::from_json(shard, first.as_bytes()).unwrap().amended(PartSummary::of(part, 2));
    let out = scene.directory.path().join("out");
    fs::create_dir_all(out.join("_baton/amendments")).unwrap();
    fs::write(out.join(amendment_key(shard, &sha256_hex(part))), amended.to_json()).unwrap();
    fs::write(out.join(amendment_key(shard, &sha256_hex(b"never committed"))), amended.to_json()).unwrap();
    fs::write(out.join("part-000002.jsonl"), part).unwrap();

    let report = scene.run().await.unwrap();
    assert_eq!(report.totals.output_bytes, 10 * 7 + 1);
    let manifest = scene.output("_SUCCESS").unwrap();
    assert!(manifest.contains(&sha256_hex(part)), "{manifest}");
}
