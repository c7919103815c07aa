//! The check of an output against its records.

use std::fs;

use baton_coordinator::OutputCheck;

use crate::support::{Scene, Script};

const CORPUS: &str = "{\"text\":\"one\"}\nnot JSON\n{\"text\":\"two\"}\n{\"text\":\"three\"}\nnor this\n";

async fn finished() -> Scene {
    let scene = Scene::of_corpus(CORPUS);
    scene.add_encoder("encoder", Script::new(), None);
    scene.run().await.unwrap();
    scene
}

async fn check(scene: &Scene) -> OutputCheck {
    OutputCheck::of(&scene.spec().output).await.unwrap()
}

#[tokio::test]
async fn a_sound_output_has_the_sums_of_its_manifest() {
    let scene = finished().await;
    let sound = check(&scene).await;
    assert_eq!((sound.is_finished, &sound.problems), (true, &Vec::new()));
    assert_eq!((sound.totals.outputs, sound.totals.errors), (3, 2));
    scene.remove_output("_SUCCESS");
    let unfinished = check(&scene).await;
    assert_eq!(unfinished, OutputCheck { is_finished: false, ..sound });
}

#[tokio::test]
async fn each_damage_is_named_by_its_object() {
    let damages: [(&str, Option<&str>, &str); 6] = [
        ("part-000001.jsonl", Some("twO\nthree\n"), "part-000001.jsonl is not what its verdict states"),
        ("part-000001.jsonl", None, "part-000001.jsonl is missing"),
        ("part-000009.jsonl", Some("x"), "part-000009.jsonl has no verdict"),
        ("errors/part-000000.jsonl", Some("{}"), "errors/part-000000.jsonl is not what its verdict states"),
        ("errors/part-000000.jsonl", None, "errors/part-000000.jsonl is missing"),
        ("errors/part-000007.jsonl", Some("{}"), "errors/part-000007.jsonl has no part"),
    ];
    for (object, content, problem) in damages {
        let scene = finished().await;
        let path = scene.directory.path().join("out").join(object);
        match content {
            Some(content) => fs::write(path, content).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        let problems = check(&scene).await.problems;
        assert!(problems.iter().any(|said| said.starts_with(problem)), "{problem}: {problems:?}");
    }
}

#[tokio::test]
async fn a_directory_without_a_job_is_no_output() {
    let scene = Scene::of_corpus(CORPUS);
    let error = OutputCheck::of(&scene.spec().output).await.unwrap_err().to_string();
    assert!(error.contains("holds no Baton job"), "{error}");
}
