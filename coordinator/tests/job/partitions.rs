//! Several coordinators on one job.

use std::time::Duration;

use baton_coordinator::{Cluster, JobOutcome, JobWatch, Shutdown};
use tokio::sync::watch;

use crate::support::{Scene, Script};

#[tokio::test]
async fn partitions_share_the_shards_and_the_last_writes_the_manifest() {
    let whole = Scene::new(Script::new());
    whole.run().await.unwrap();

    let scene = Scene::new(Script::new());
    let first = scene.run_partition("1/2").await.unwrap();
    assert_eq!((first.outcome, first.totals.records, first.job_has_ended), (JobOutcome::Complete, 4, false));
    assert_eq!(scene.attempts(), [(1, 1), (3, 1)]);
    assert_eq!(scene.output("_SUCCESS"), None);
    let second = scene.run_partition("0/2").await.unwrap();
    assert_eq!((second.totals.records, second.resumed.records, second.job_has_ended), (6, 0, true));
    assert_eq!(scene.attempts().len(), 5, "each shard was leased once");
    for shard in 0..5 {
        let name = format!("part-00000{shard}.jsonl");
        assert_eq!(scene.output(&name), whole.output(&name));
    }
    let parts = |scene: &Scene| {
        let manifest: serde_json::Value = serde_json::from_str(&scene.output("_SUCCESS").unwrap()).unwrap();
        (manifest["parts"].clone(), manifest["totals"].clone())
    };
    assert_eq!(parts(&scene), parts(&whole));
}

#[tokio::test]
async fn partitions_that_run_and_end_at_once_write_one_manifest() {
    for _ in 0..10 {
        let scene = Scene::new(Script::new());
        let runs = tokio::join!(
            scene.run_partition("0/3"),
            scene.run_partition("1/3"),
            scene.run_partition("2/3"),
            scene.run_partition("2/3"), // by mistake
        );
        let reports = [runs.0.unwrap(), runs.1.unwrap(), runs.2.unwrap(), runs.3.unwrap()];
        assert!(reports.iter().all(|report| report.outcome == JobOutcome::Complete));
        assert!(reports.iter().any(|report| report.job_has_ended));
        let manifest: serde_json::Value = serde_json::from_str(&scene.output("_SUCCESS").unwrap()).unwrap();
        assert_eq!(
            (&manifest["totals"]["records"], manifest["parts"].as_array().unwrap().len()),
            (&10.into(), 5)
        );
    }
}

#[tokio::test]
async fn a_partition_that_is_run_again_finds_its_work_done() {
    let scene = Scene::new(Script::new());
    scene.run_partition("0/2").await.unwrap();
    scene.seen.lock().unwrap().clear();
    let again = scene.run_partition("0/2").await.unwrap();
    assert_eq!((again.totals.records, again.resumed.records, again.was_complete), (6, 6, false));
    assert!(scene.attempts().is_empty());
}

#[tokio::test]
async fn a_partition_without_shards_completes_and_may_end_the_job() {
    let scene = Scene::of_corpus("{\"text\":\"line\"}\n");
    scene.add_encoder("encoder", Script::new(), None);
    let empty = scene.run_partition("1/2").await.unwrap();
    assert_eq!((empty.totals.records, empty.job_has_ended), (0, false));
    assert!(scene.run_partition("0/2").await.unwrap().job_has_ended);
    assert!(scene.run_partition("1/2").await.unwrap().was_complete);
}

#[tokio::test]
async fn a_coordinator_without_workers_notices_that_another_has_done_its_work() {
    let scene = Scene::new(Script::new());
    let (lonely_job, watch) = (scene.open("0/1").await.unwrap(), JobWatch::default());
    let (nobody, shutdown) = (watch::Sender::new(Vec::new()), watch::channel(Shutdown::No).1);
    let cluster = Cluster::new(scene.connections.clone(), nobody.subscribe(), nobody.subscribe());
    let lonely = lonely_job.run(cluster, &scene.options, &watch, shutdown);
    let (lonely, busy) = tokio::join!(lonely, scene.run());
    let (lonely, busy) = (lonely.unwrap(), busy.unwrap());
    assert_eq!((lonely.outcome, lonely.totals), (JobOutcome::Complete, busy.totals));
    assert_eq!(scene.attempts().len(), 5, "each shard was leased once");
}

#[tokio::test]
async fn a_partition_finishes_the_shards_of_a_silent_one_and_ends_the_job() {
    let whole = Scene::new(Script::new());
    whole.run().await.unwrap();

    let mut scene = Scene::new(Script::new());
    scene.options.take_over_after = Some(Duration::from_millis(40));
    let report = scene.run_partition("1/2").await.unwrap();
    assert_eq!(
        (report.outcome, report.totals.records, report.job_has_ended),
        (JobOutcome::Complete, 10, true)
    );
    assert_eq!(scene.attempts().len(), 5, "each shard was leased once");
    for shard in 0..5 {
        let name = format!("part-00000{shard}.jsonl");
        assert_eq!(scene.output(&name), whole.output(&name));
    }
    assert!(scene.output("_SUCCESS").is_some());
}

#[tokio::test]
async fn partitions_that_finish_each_others_shards_agree_on_every_part() {
    let whole = Scene::new(Script::new());
    whole.run().await.unwrap();

    let mut scene = Scene::new(Script::new());
    scene.options.take_over_after = Some(Duration::from_millis(1)); // they meet all the time
    let (first, second) = tokio::join!(scene.run_partition("0/2"), scene.run_partition("1/2"));
    assert!(first.unwrap().job_has_ended && second.unwrap().job_has_ended);
    for shard in 0..5 {
        let name = format!("part-00000{shard}.jsonl");
        assert_eq!(scene.output(&name), whole.output(&name));
    }
}

#[tokio::test]
async fn a_partition_that_waits_for_others_stops_on_request() {
    let mut scene = Scene::new(Script::new());
    scene.options.take_over_after = Some(Duration::from_secs(3600));
    let (wish, shutdown) = watch::channel(Shutdown::No);
    let (job, job_watch) = (scene.open("1/2").await.unwrap(), JobWatch::default());
    let mut status = job_watch.status.subscribe();
    let run = job.run(scene.cluster(), &scene.options, &job_watch, shutdown);
    let stop = async {
        status.wait_for(|status| status.progress.committed.records == 4).await.unwrap();
        wish.send_replace(Shutdown::Drain);
    };
    let (report, ()) = tokio::join!(run, stop);
    let report = report.unwrap();
    assert_eq!((report.totals.records, report.job_has_ended), (4, false));
}
