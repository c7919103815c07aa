//! Estimates of quality: fitted into a bundle, written into rows, and the worst outputs for a reader.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::command::{Ended, Job, baton, imported_small_model};

const NUM_RECORDS: usize = 240;

/// Records of all lengths; a random model's outputs share more with some references than with others.
fn test_set() -> String {
    let words = ["the", "editor", "opens", "long", "documents", "from", "another", "disk"];
    let record = |index: usize| {
        let source: Vec<&str> =
            (0..=index % 11).map(|at| words[(index * 7 + at * 5) % words.len()]).collect();
        let target: String =
            (0..=index % 9).map(|at| char::from(b'a' + ((index + at * at) % 26) as u8)).collect();
        let source = source.join(" ");
        json!({ "id": format!("r{index}"), "text": source, "source": source, "target": target }).to_string()
    };
    (0..NUM_RECORDS).map(record).collect::<Vec<_>>().join("\n")
}

pub(crate) fn fit(directory: &Path, bundle: &Path) -> Ended {
    let test = directory.join("test.jsonl");
    fs::write(&test, test_set()).unwrap();
    let mut eval = baton();
    eval.arg("eval").arg(bundle).arg("--test").arg(&test).args([
        "--resamples",
        "10",
        "--fit-quality",
        "--json",
    ]);
    Ended::from(eval.arg(directory.join("eval.json")).output().unwrap())
}

fn job(bundle: &Path, flags: &[&str]) -> Job {
    Job::new().with_input("a.jsonl", test_set()).with_bundle(bundle).with_flags(flags)
}

fn rows(bytes: &[u8]) -> Vec<Value> {
    std::str::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_estimate_is_fitted_into_the_bundle_and_finds_the_worst_outputs() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = imported_small_model(directory.path());
    let refused = job(&bundle, &["--quality", "estimate"]).run();
    assert_eq!(refused.code, Some(2));
    refused.assert_error(&["no estimate of quality for mode slm", "--fit-quality"]);

    let fitted = fit(directory.path(), &bundle);
    assert_eq!(fitted.code, Some(0), "{}", fitted.stderr);
    let manifest: Value = serde_json::from_slice(&fs::read(bundle.join("bundle.json")).unwrap()).unwrap();
    let model = &manifest["quality"]["slm"];
    assert_eq!((model["metric"].as_str(), model["records"].as_u64()), (Some("chrF2"), Some(240)));
    let report: Value =
        serde_json::from_slice(&fs::read(directory.path().join("eval.json")).unwrap()).unwrap();
    assert_eq!(report["quality"][0]["model"]["auc"], model["auc"]);
    assert_eq!(model["calibration"].as_array().unwrap().len(), 10);

    let mut reviews = Vec::new();
    for shard in ["7", "100"] {
        let job = job(&bundle, &["--quality", "estimate", "--review", "9", "--records-per-shard", shard]);
        job.run_expecting(0);
        let review = rows(&job.contents()["review.jsonl"]);
        let mut estimates: Vec<f64> =
            job.outputs().iter().map(|row| row["quality"].as_f64().unwrap()).collect();
        estimates.sort_by(f64::total_cmp);
        let reviewed: Vec<f64> = review.iter().map(|row| row["quality"].as_f64().unwrap()).collect();
        assert_eq!(reviewed, estimates[..9]);
        assert!(review.iter().all(|row| row["source"].is_string() && row["signals"]["copied"].is_number()));
        let without_input =
            |row: &Value| [&row["id"], &row["quality"], &row["output"], &row["line"]].map(Value::clone);
        reviews.push(review.iter().map(without_input).collect::<Vec<_>>());
    }
    assert_eq!(reviews[0], reviews[1], "whatever the shards are");

    let threshold = model["quantiles"][20].as_f64().unwrap().to_string();
    let job = job(&bundle, &["--review", &threshold, "--output-format", "parquet"]);
    job.run_expecting(0);
    let review = rows(&job.contents()["review.jsonl"]);
    assert!((10..100).contains(&review.len()), "about a fifth: {}", review.len());
    let ids: Vec<usize> =
        review.iter().map(|row| row["id"].as_str().unwrap()[1..].parse().unwrap()).collect();
    assert!(ids.is_sorted(), "in the job's order: {ids:?}");
}

#[test]
fn signals_need_no_estimate() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = imported_small_model(directory.path());
    for method in [&["--beams", "1"][..], &["--beams", "3"], &["--temperature", "1"]] {
        let flags = [&["--quality", "signals"], method].concat();
        let job = job(&bundle, &flags);
        job.run_expecting(0);
        for row in job.outputs() {
            assert_eq!(row.get("quality"), None);
            let number = |name: &str| row["signals"][name].as_f64().unwrap();
            assert!(
                number("worst_logprob") <= number("mean_logprob") + 1e-3 && number("mean_logprob") < 0.0,
                "{row}"
            );
        }
    }
}
