//! Inputs that are damaged, or change after they were listed.

use baton_coordinator::{JobOutcome, JobReport, JobWatch, Shutdown};
use baton_job::BrokenKind;
use tokio::sync::watch;

use crate::support::{Act, Scene, Script};

/// Inputs in order: `a.jsonl` with three records, `b.jsonl.gz`, which breaks, and `corpus.jsonl` with ten.
fn scene() -> Scene {
    let scene = Scene::new(Script::new());
    scene.add_input("a.jsonl", lines("a", 3));
    // A file that is no archive breaks at its first byte; this one breaks after its first member, with four
    // records.
    let mut archive = GZIP_OF_FOUR_RECORDS.to_vec();
    archive.extend(&GZIP_OF_FOUR_RECORDS[..20]);
    scene.add_input("b.jsonl.gz", archive);
    scene
}

fn lines(name: &str, count: usize) -> String {
    (0..count).map(|index| format!("{{\"text\":\"{name} {index}\"}}\n")).collect()
}

/// `lines("b", 4)` by `gzip -n`.
const GZIP_OF_FOUR_RECORDS: &[u8] = &[
    31, 139, 8, 0, 0, 0, 0, 0, 0, 3, 171, 86, 42, 73, 173, 40, 81, 178, 82, 74, 82, 48, 80, 170, 229, 170,
    70, 112, 13, 81, 185, 70, 168, 92, 99, 32, 23, 0, 112, 233, 194, 69, 60, 0, 0, 0,
];

fn rows(scene: &Scene) -> Vec<String> {
    let parts = (0..20).filter_map(|shard| scene.output(&format!("part-{shard:06}.jsonl")));
    parts.flat_map(|part| part.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// The committed rows of [`scene`]: from `b`, only those in shards that had ended before the break.
fn expected_rows() -> Vec<String> {
    let names = ["a 0", "a 1", "a 2", "b 0", "b 1", "b 2"].map(str::to_owned);
    names.into_iter().chain((0..10).map(|index| format!("line {index}"))).collect()
}

fn assert_broken(report: &JobReport) {
    assert_eq!(report.outcome, JobOutcome::InputsBroken);
    let broken = &report.broken[0];
    assert!(broken.uri.ends_with("b.jsonl.gz") && broken.kind == BrokenKind::Damaged, "{broken:?}");
    assert_eq!((report.broken.len(), broken.records_read, broken.records_kept), (1, 4, 3));
}

#[tokio::test]
async fn a_damaged_input_ends_there_and_the_others_are_finished() {
    let scene = scene();
    for _ in 0..2 {
        assert_broken(&scene.run().await.unwrap());
        assert_eq!(rows(&scene), expected_rows());
        assert_eq!(scene.output("_SUCCESS"), None);
        assert!(scene.output("_baton/broken/000001.json").unwrap().contains("\"records_read\": 4"));
    }
    scene.remove_output("part-000001.jsonl");
    scene.remove_output("part-000004.jsonl");
    assert_broken(&scene.run().await.unwrap());
    assert_eq!(rows(&scene), expected_rows());
}

#[tokio::test]
async fn partitions_agree_on_where_a_damaged_input_ends() {
    let scene = scene();
    for partition in ["1/3", "0/3", "2/3"] {
        assert_broken(&scene.run_partition(partition).await.unwrap());
    }
    assert_eq!(rows(&scene), expected_rows());
    assert_eq!(scene.output("_SUCCESS"), None);
}

/// Lists the inputs, changes one of them, and runs the job.
async fn run_changed(scene: &Scene, partition: &str) -> JobReport {
    let job = scene.open(partition).await.unwrap();
    scene.add_input("b.jsonl", lines("other", 7));
    let (_wish, shutdown) = watch::channel(Shutdown::No);
    job.run(scene.cluster(), &scene.options, &JobWatch::default(), shutdown).await.unwrap()
}

fn scene_with_plain_input() -> Scene {
    let scene = Scene::new(Script::new());
    scene.add_input("a.jsonl", lines("a", 3));
    scene.add_input("b.jsonl", lines("b", 4));
    scene
}

#[tokio::test]
async fn a_changed_input_is_dropped_and_the_others_are_finished() {
    let scene = scene_with_plain_input();
    let report = run_changed(&scene, "0/1").await;
    assert_eq!((report.outcome, report.num_unread_inputs), (JobOutcome::InputsBroken, 0));
    assert_eq!((report.broken[0].kind, report.broken[0].records_read), (BrokenKind::Changed, 0));
    let expected = expected_rows().into_iter().filter(|row| !row.starts_with('b'));
    assert_eq!(rows(&scene), expected.collect::<Vec<_>>());
    assert_eq!(scene.output("_SUCCESS"), None);

    let error = scene.run().await.unwrap_err();
    assert_eq!(error.exit_code(), 4, "another try changes nothing: {error}");
    assert!(error.to_string().contains("b.jsonl had"), "{error}");
}

#[tokio::test]
async fn a_partition_stops_at_an_input_that_changed_since_another_may_have_read_it_before() {
    let scene = scene_with_plain_input();
    let report = run_changed(&scene, "0/2").await;
    assert_eq!((report.outcome, report.num_unread_inputs), (JobOutcome::InputsBroken, 1));
    assert!(report.broken_inputs().unwrap().contains("1 inputs after it were left unread"));
    assert!(rows(&scene).iter().all(|row| row.starts_with('a')), "{:?}", rows(&scene));
}

#[tokio::test]
async fn a_job_with_an_input_that_another_coordinator_found_broken_has_no_manifest() {
    let scene = Scene::new(Script::from([((0, 1), Act::CommitBesideBreak)]));
    let error = scene.run().await.unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert!(error.to_string().starts_with("input corpus.jsonl changed while it was read"), "{error}");
    assert_eq!(scene.output("_SUCCESS"), None);
    assert_eq!(rows(&scene).len(), 10, "what was read is done");
}

#[tokio::test]
async fn a_field_that_no_row_has_stops_the_job_before_it_begins() {
    let scene = Scene::of_corpus(&lines("x", 3));
    scene.add_input("d.jsonl", "{\"body\":\"x\",\"lang\":\"en\"}\n");
    let error = scene.open("0/1").await.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(
        error.to_string().contains("d.jsonl has no field `text`; its fields are: `body`, `lang`"),
        "{error}"
    );
    assert_eq!(scene.output("_baton/job.json"), None);
}
