//! The report of a finished job.

use baton_coordinator::{JobWatch, PreparedJob, Prices, Shutdown};
use baton_job::Partition;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{Scene, Script};

const CORPUS: &str = "{\"text\":\"one\"}\nnot JSON </script>\n{\"text\":\"two\"}\n{\"text\": 3}\nnor this\n";

/// The report of a job over this corpus.
async fn report(scene: &Scene) -> Value {
    scene.run().await.unwrap();
    serde_json::from_str(&scene.output("_REPORT.json").unwrap()).unwrap()
}

#[tokio::test]
async fn a_report_counts_failures_by_kind_with_the_first_of_each() {
    let mut scene = Scene::of_corpus(CORPUS);
    scene.add_encoder("encoder", Script::new(), None);
    scene.options.prices = Prices { encoder_per_hour: Some(7.5), decoder_per_hour: None };
    let report = report(&scene).await;
    assert_eq!((&report["totals"]["records"], &report["totals"]["errors"]), (&json!(5), &json!(3)));
    let kinds = report["failures"].as_array().unwrap();
    let kind =
        |place: usize| (kinds[place]["code"].as_str().unwrap(), kinds[place]["records"].as_u64().unwrap());
    assert_eq!((kinds.len(), kind(0), kind(1)), (2, ("invalid_json", 2), ("wrong_type", 1)));
    assert_eq!(kinds[0]["examples"][1]["line"], 5);
    assert_eq!(report["run"]["records"], 5);
    assert_eq!(report["run"]["cost"]["encoder_per_hour"], 7.5);
    let page = scene.output("_REPORT.html").unwrap();
    assert!(page.contains("\"invalid_json\"") && !page.contains("not JSON <"), "{page}");
}

#[tokio::test]
async fn a_job_that_fails_for_its_errors_has_no_report() {
    let scene = Scene::of_corpus(CORPUS);
    scene.add_encoder("encoder", Script::new(), None);
    let mut spec = scene.spec();
    spec.max_error_rate = 0.5;
    let job = PreparedJob::open(spec, "digest", Partition::WHOLE).await.unwrap();
    let (_wish, shutdown) = watch::channel(Shutdown::No);
    job.run(scene.cluster(), &scene.options, &JobWatch::default(), shutdown).await.unwrap_err();
    assert_eq!((scene.output("_REPORT.json"), scene.output("_SUCCESS")), (None, None));
}

#[tokio::test]
async fn a_restart_between_report_and_manifest_leaves_the_report() {
    let scene = Scene::new(Script::new());
    let first = report(&scene).await;
    scene.remove_output("_SUCCESS");
    assert_eq!(report(&scene).await, first);
    assert!(scene.output("_SUCCESS").is_some());
}
