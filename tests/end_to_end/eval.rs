//! `baton eval` on the tiny bundle: jobs are run, joined with the test set and reported as text, JSON and a
//! plot.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bundle::shared_bundle;
use crate::command::{Ended, baton};

/// Five records, of which the third is too long for the bundle.
fn write_test_set(directory: &TempDir) {
    let record = |index: usize| {
        let source = if index == 2 { "long ".repeat(40) } else { format!("tool number {index}") };
        json!({ "id": format!("r{index}"), "source": source, "target": format!("strumento {index}") })
            .to_string()
    };
    let lines: Vec<String> = (0..5).map(record).collect();
    fs::write(directory.path().join("test.jsonl"), lines.join("\n")).unwrap();
}

/// The command in `directory`, with its standard output.
fn eval(directory: &TempDir, arguments: &[&str]) -> (Ended, String) {
    let mut command = baton();
    command.current_dir(directory.path()).args(["eval", "--resamples", "50"]).args(arguments);
    let output = command.output().unwrap();
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    (Ended::from(output), stdout)
}

fn bundle() -> &'static str {
    shared_bundle().to_str().unwrap()
}

#[test]
fn a_bundle_is_run_and_reported_beside_the_baseline_as_text_json_and_plot() {
    let directory = tempfile::tempdir().unwrap();
    write_test_set(&directory);
    let files = ["--json", "eval.json", "--plot", "eval.svg", "--output", "out"];
    let run_flags = ["--", "--decode-slots", "2"];
    let arguments =
        [[bundle(), "--test", "test.jsonl", "--baseline"].as_slice(), &files, &run_flags].concat();
    let (ended, text) = eval(&directory, &arguments);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for piece in
        ["5 records", "BLEU|nrefs:1|case:mixed|eff:no|tok:13a", "tiny hybrid", "source copied", "GFLOP"]
    {
        assert!(text.contains(piece), "`{piece}` is not in: {text}");
    }
    let report: Value =
        serde_json::from_str(&fs::read_to_string(directory.path().join("eval.json")).unwrap()).unwrap();
    let system = &report["systems"][0];
    assert_eq!(system["scores"]["failures"]["failed"], 1);
    assert!(system["records_per_second"].as_f64().unwrap() > 0.0);
    // The prompt's attention alone costs more than this.
    assert!(system["flops_per_record"].as_f64().unwrap() > 1e4);
    assert!(report["systems"][1]["records_per_second"].is_null());
    assert!(fs::read_to_string(directory.path().join("eval.svg")).unwrap().contains("tiny hybrid"));
    assert!(directory.path().join("out/tiny-hybrid/_SUCCESS").exists());

    let (ended, text_again) = eval(&directory, &arguments);
    assert!(ended.stderr.contains("was complete before"), "{}", ended.stderr);
    let costs = text_again.lines().find(|line| line.contains(" M") && line.starts_with("tiny hybrid"));
    assert!(costs.is_some_and(|line| line.split_whitespace().nth(2) == Some("-")), "no rate: {text_again}");
}

#[test]
fn outputs_that_exist_are_scored_without_a_bundle() {
    let directory = tempfile::tempdir().unwrap();
    write_test_set(&directory);
    let rows: Vec<String> = (0..5)
        .map(|i| json!({ "id": format!("r{i}"), "output": format!("strumento {i}") }).to_string())
        .collect();
    fs::write(directory.path().join("outputs.jsonl"), rows.join("\n")).unwrap();
    let arguments = ["--test", "test.jsonl", "--metrics", "rouge", "--outputs", "perfect=outputs.jsonl"];
    let (ended, text) = eval(&directory, &arguments);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(text.contains("ROUGE-L") && text.contains("100.00 [100.00, 100.00]"), "{text}");
}

#[test]
fn invalid_evaluations_are_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    write_test_set(&directory);
    fs::write(directory.path().join("other.jsonl"), "{\"id\":\"x\",\"output\":\"y\"}\n").unwrap();
    for (arguments, piece) in [
        ([bundle(), "--mode", "slm7"].as_slice(), "serves hybrid"),
        (&["--metrics", "bleu"], "there is nothing to evaluate"),
        (&[], "name the metrics with --metrics"),
        (&["--metrics", "bleu", "--outputs", "a=other.jsonl"], "is it of another corpus?"),
        (&[bundle(), "--", "--no-such-flag"], "--no-such-flag"),
    ] {
        let all = [["--test", "test.jsonl"].as_slice(), arguments].concat();
        let (ended, _) = eval(&directory, &all);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains(piece), "`{piece}` is not in: {}", ended.stderr);
    }
}
