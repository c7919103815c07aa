//! Outputs of jobs as training pairs.

use std::fs;

use baton_trainer::{PairFiles, TrainConfig, TrainError, TrainEvent, train};

use crate::{COLOURS, config, quietly, workspace};

/// The row of a job that kept its fields.
fn row(text: &str, output: &str, finish_reason: &str) -> String {
    let fields = serde_json::json!({ "text": text });
    serde_json::json!({ "id": "1", "output": output, "finish_reason": finish_reason, "fields": fields })
        .to_string()
}

#[test]
fn the_output_directory_of_a_job_is_a_set_of_training_pairs() {
    let workspace = workspace();
    let at = |name: &str| workspace.path().join(name);
    fs::create_dir_all(at("out/errors")).unwrap();
    let whole: Vec<String> = COLOURS.iter().map(|(red, rosso)| row(red, rosso, "stop")).collect();
    fs::write(at("out/part-000000.jsonl"), whole.join("\n")).unwrap();
    let cut_short = [row("red", "ros", "length"), row("red", "", "stop"), row("green", "verde", "stop")];
    fs::write(at("out/part-000001.jsonl.zst"), zstd::encode_all(cut_short.join("\n").as_bytes(), 0).unwrap())
        .unwrap();
    fs::write(at("out/errors/part-000000.jsonl"), "{\"code\":\"empty_text\"}\n").unwrap();
    fs::write(at("out/_SUCCESS"), "{}").unwrap();

    let place = |name: &str| at(name).to_string_lossy().into_owned();
    let mut config = TrainConfig {
        train: PairFiles::One(place("out")),
        dev: PairFiles::Many(vec![place("out/part-*1.jsonl.zst"), place("out/part-000000.jsonl")]),
        source_field: "fields.text".into(),
        target_field: "output".into(),
        ..config(workspace.path(), 2)
    };
    crate::shape(&mut config).vocab_size = 330;
    let mut prepared = None;
    train(&config, &at("run"), |event| {
        if let TrainEvent::Prepared { train_pairs, train_pairs_left_out, validation_pairs, .. } = event {
            prepared = Some((*train_pairs, *train_pairs_left_out, *validation_pairs));
        }
        quietly(event)
    })
    .unwrap();
    assert_eq!(prepared, Some((7, 2, 7)));
}

#[test]
fn a_glob_that_matches_nothing_is_named() {
    let workspace = workspace();
    let train_files = PairFiles::from(workspace.path().join("none-*.jsonl"));
    let config = TrainConfig { train: train_files, ..config(workspace.path(), 2) };
    let error = train(&config, &workspace.path().join("run"), quietly).unwrap_err();
    assert!(matches!(error, TrainError::Pairs { .. }), "{error}");
    assert!(error.to_string().contains("none-*.jsonl names no file"), "{error}");
}
