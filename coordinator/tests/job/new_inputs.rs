//! Jobs that skip the inputs of finished jobs.

use baton_coordinator::{CoordinatorError, JobOutcome, JobReport, JobWatch, PreparedJob, Shutdown};
use baton_job::Partition;
use tokio::sync::watch;

use crate::support::{Scene, Script};

/// The night `name` over all present files, with its output below `nights/`.
async fn night(scene: &Scene, name: &str, partition: Partition) -> Result<JobReport, CoordinatorError> {
    night_with(scene, name, partition, Shutdown::No).await
}

async fn night_with(
    scene: &Scene,
    name: &str,
    partition: Partition,
    wish: Shutdown,
) -> Result<JobReport, CoordinatorError> {
    let mut spec = scene.spec();
    let nights = spec.output.replace("/out", "/nights");
    spec.output = format!("{nights}/{name}");
    spec.skip_done = Some(nights);
    let job = PreparedJob::open(spec, "digest", partition).await?;
    let (_sender, shutdown) = watch::channel(wish);
    job.run(scene.cluster(), &scene.options, &JobWatch::default(), shutdown).await
}

async fn whole_night(scene: &Scene, name: &str) -> JobReport {
    night(scene, name, Partition::WHOLE).await.unwrap()
}

#[tokio::test]
async fn a_night_skips_the_inputs_of_successful_nights() {
    let scene = Scene::of_corpus("{\"text\":\"first\"}\n");
    scene.add_encoder("encoder", Script::new(), None);
    assert_eq!(whole_night(&scene, "1").await.totals.records, 1);
    scene.add_input("second.jsonl", "{\"text\":\"two\"}\n{\"text\":\"three\"}\n");
    assert_eq!(whole_night(&scene, "2").await.totals.records, 2);
    let nothing = whole_night(&scene, "3").await;
    assert_eq!(
        (nothing.outcome, nothing.totals.records, nothing.job_has_ended),
        (JobOutcome::Complete, 0, true)
    );
    scene.add_input("second.jsonl", "{\"text\":\"another text\"}\n");
    assert_eq!(whole_night(&scene, "4").await.totals.records, 1, "a changed file is new");
}

#[tokio::test]
async fn the_next_night_takes_the_inputs_of_a_failed_one() {
    let scene = Scene::of_corpus("{\"text\":\"first\"}\n");
    scene.add_encoder("encoder", Script::new(), None);
    let stopped = night_with(&scene, "1", Partition::WHOLE, Shutdown::Drain).await.unwrap();
    assert_eq!(stopped.outcome, JobOutcome::Interrupted);
    scene.add_input("second.jsonl", "{\"text\":\"two\"}\n");
    assert_eq!(whole_night(&scene, "2").await.totals.records, 2);
    // A night ignores inputs that arrive after its beginning.
    assert_eq!(whole_night(&scene, "1").await.totals.records, 1);
}

#[tokio::test]
async fn partitions_of_a_night_agree_on_its_inputs_while_files_arrive() {
    let scene = Scene::of_corpus("{\"text\":\"first\"}\n{\"text\":\"b\"}\n{\"text\":\"c\"}\n");
    scene.add_encoder("encoder", Script::new(), None);
    let [first, second] = [0, 1].map(|index| Partition::new(index, 2).unwrap());
    assert!(!night(&scene, "1", first).await.unwrap().job_has_ended);
    scene.add_input("second.jsonl", "{\"text\":\"two\"}\n");
    assert!(night(&scene, "1", second).await.unwrap().job_has_ended);
    assert_eq!(whole_night(&scene, "2").await.totals.records, 1);
}

#[tokio::test]
async fn a_night_compares_itself_with_the_night_before() {
    let scene = Scene::of_corpus("{\"text\":\"first\"}\n");
    scene.add_encoder("encoder", Script::new(), None);
    let report = |name: &str| -> serde_json::Value {
        let path = scene.directory.path().join("nights").join(name).join("_REPORT.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    whole_night(&scene, "1").await;
    assert_eq!(report("1")["before"], serde_json::Value::Null);
    scene.add_input("second.jsonl", "{\"text\":\"two\"}\n{\"text\":\"three\"}\n");
    whole_night(&scene, "2").await;
    let before = &report("2")["before"];
    assert!(before["output"].as_str().unwrap().ends_with("/nights/1"));
    assert_eq!(before["totals"]["records"], 1);
}
