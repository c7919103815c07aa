//! Workers that fail, vanish, have no room or do not fit, and records that break workers.

use std::time::Duration;

use crate::support::{Act, Scene, Script};
use baton_coordinator::{JobOutcome, JobWatch, Shutdown};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_attempt_that_fails_is_followed_by_another() {
    let scene = Scene::new(Script::from([((2, 1), Act::Break), ((2, 2), Act::BreakDecoder)]));
    assert_eq!(scene.run().await.unwrap().outcome, JobOutcome::Complete);
    assert_eq!(scene.attempts().iter().filter(|(shard, _)| *shard == 2).count(), 3);
    assert!(scene.seen().iter().all(|seen| !seen.is_probe));
}

#[tokio::test]
async fn a_worker_that_falls_silent_loses_its_lease() {
    let scene = Scene::new(Script::from([((0, 1), Act::Hang)]));
    let watch = JobWatch::default();
    assert_eq!(scene.run_with("0/1", &watch, Shutdown::No).await.unwrap().outcome, JobOutcome::Complete);
    assert!(scene.attempts().contains(&(0, 1)) && scene.attempts().contains(&(0, 2)));
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_the_whole_machine_costs_no_lease() {
    let mut scene = Scene::new(Script::from([((0, 1), Act::Stall)]));
    scene.options.policy.lease_ttl = Duration::from_secs(60);
    scene.options.policy.min_straggler_age = Duration::from_secs(3600);
    assert_eq!(scene.run().await.unwrap().outcome, JobOutcome::Complete);
    assert_eq!(scene.attempts(), (0..5).map(|shard| (shard, 1)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_receipt_that_cannot_be_true_is_an_attempt_that_broke() {
    let scene = Scene::new(Script::from([((2, 1), Act::Miscount)]));
    let report = scene.run().await.unwrap();
    assert_eq!((report.outcome, report.totals.records), (JobOutcome::Complete, 10));
    assert!(scene.attempts().contains(&(2, 2)), "the attempt after it finds the part");
}

#[tokio::test]
async fn workers_without_room_or_about_to_stop_are_asked_again_and_cost_no_attempt() {
    let acts = |act| move |attempt| ((1, attempt), act);
    let script = (1..=8).map(acts(Act::Busy)).chain((9..=16).map(acts(Act::Drain))).collect();
    let scene = Scene::new(script);
    assert_eq!(scene.run().await.unwrap().outcome, JobOutcome::Complete);
    assert!(scene.attempts().contains(&(1, 17)));
    assert!(scene.seen().iter().all(|seen| !seen.is_probe));
}

#[tokio::test]
async fn an_encoder_of_another_bundle_is_passed_over() {
    let mut scene = Scene::new(Script::new());
    scene.options.policy.rest.max = Duration::from_secs(3600);
    scene.add_encoder("other", Script::new(), Some(Act::Refuse));
    assert_eq!(scene.run().await.unwrap().outcome, JobOutcome::Complete);
    let refused = scene.seen().iter().filter(|seen| seen.encoder == "other").count();
    assert!((1..=2).contains(&refused), "it has room for two, and was asked {refused} times");
}

#[tokio::test]
async fn a_refusal_by_all_workers_fails_the_job_at_once() {
    let scene = Scene::of_corpus("{\"text\":\"line\"}\n");
    scene.add_encoder("other", Script::new(), Some(Act::Refuse));
    let error = scene.run().await.unwrap_err().to_string();
    assert!(error.starts_with("shard 000000 failed for good in attempt 1: another bundle"), "{error}");
}

#[tokio::test]
async fn a_failure_that_no_attempt_can_mend_fails_the_job_at_once() {
    let scene = Scene::new(Script::from([((0, 1), Act::GiveUp)]));
    let error = scene.run().await.unwrap_err().to_string();
    assert!(error.starts_with("shard 000000 failed for good in attempt 1: the disk is full"), "{error}");
    assert_eq!(scene.output("_SUCCESS"), None);
}

#[tokio::test]
async fn a_store_that_stays_broken_fails_the_job_and_accuses_no_record() {
    let scene = Scene::of_corpus("{\"text\":\"line\"}\n");
    scene.add_encoder("encoder", Script::new(), Some(Act::FailStore));
    let error = scene.run().await.unwrap_err().to_string();
    assert!(error.starts_with("shard 000000 failed for good in attempt 5: no store"), "{error}");
    assert!(scene.seen().iter().all(|seen| !seen.is_probe));
}

#[tokio::test]
async fn a_poisonous_record_ends_as_an_error_row_and_not_as_a_dead_job() {
    let lines: Vec<String> = (0..20)
        .map(|index| {
            let text = if index == 6 { "poison".to_owned() } else { format!("line {index}") };
            format!("{{\"id\":\"r{index}\",\"text\":\"{text}\"}}\n")
        })
        .collect();
    let scene = Scene::of_corpus(&lines.concat());
    scene.add_encoder("one", Script::new(), None);
    scene.add_encoder("two", Script::new(), None);
    let report = timeout(DEADLINE, scene.run()).await.unwrap().unwrap();
    assert_eq!(report.outcome, JobOutcome::CompleteWithFailures);
    assert_eq!((report.totals.outputs, report.totals.errors), (19, 1));
    let row = scene.output("errors/part-000003.jsonl").unwrap();
    assert!(row.contains("\"id\":\"r6\",\"code\":\"poisonous\"") && row.lines().count() == 1, "{row}");
    assert_eq!(scene.output("part-000003.jsonl").unwrap(), "line 7\n");
    let probes: Vec<u32> =
        scene.seen().iter().filter(|seen| seen.is_probe).map(|seen| seen.num_entries).collect();
    assert_eq!(probes, [1; 4], "three accuse one record, one acquits the other");
}

#[tokio::test]
async fn a_job_waits_for_workers_says_so_and_continues_when_they_come() {
    let scene = Scene::of_corpus("{\"text\":\"line\"}\n");
    let watch = JobWatch::default();
    let mut status = watch.status.subscribe();
    let come = async {
        status
            .wait_for(|status| status.obstacle.as_deref() == Some("no encoder is known yet, waiting for one"))
            .await
            .unwrap();
        scene.add_encoder("late", Script::new(), None);
    };
    let run = scene.run_with("0/1", &watch, Shutdown::No);
    let (report, ()) = timeout(DEADLINE, async { tokio::join!(run, come) }).await.unwrap();
    assert_eq!(report.unwrap().outcome, JobOutcome::Complete);
}

#[tokio::test]
async fn an_unreachable_worker_keeps_the_job_waiting_with_the_reason() {
    let scene = Scene::of_corpus("{\"text\":\"line\"}\n");
    scene.encoders.send_replace(vec!["unix:/no/such/socket".to_owned()]);
    let watch = JobWatch::default();
    let mut status = watch.status.subscribe();
    let come = async {
        let is_told = |status: &baton_coordinator::JobStatus| {
            status.obstacle.as_deref().is_some_and(|obstacle| obstacle.contains("/no/such/socket"))
        };
        status.wait_for(is_told).await.unwrap();
        scene.encoders.send_replace(Vec::new());
        scene.add_encoder("late", Script::new(), None);
    };
    let run = scene.run_with("0/1", &watch, Shutdown::No);
    let (report, ()) = timeout(DEADLINE, async { tokio::join!(run, come) }).await.unwrap();
    assert_eq!(report.unwrap().outcome, JobOutcome::Complete);
}

#[tokio::test]
async fn a_straggler_near_the_end_is_leased_twice() {
    let mut scene = Scene::new(Script::from([((4, 1), Act::Hang)]));
    scene.options.policy.lease_ttl = Duration::from_secs(3600);
    scene.decoders.send_replace(vec!["http://decoder:1".to_owned(), "http://decoder:2".to_owned()]);
    let report = timeout(DEADLINE, scene.run()).await.unwrap().unwrap();
    assert_eq!(report.outcome, JobOutcome::Complete);
    let seen = scene.seen();
    let decoders: Vec<&str> =
        seen.iter().filter(|seen| seen.shard == 4).map(|seen| seen.decoder.as_str()).collect();
    assert!(decoders.len() == 2 && decoders[0] != decoders[1], "{decoders:?}");
}
