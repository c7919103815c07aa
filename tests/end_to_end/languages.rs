//! Languages that the records of a corpus name: one job writes many, each as a job of that language alone.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::bundle::{write_marian, write_nllb};
use crate::command::{Ended, Job, baton};

const TEXTS: [&str; 2] = ["uma cor e outra", "small tools read 1,234.5 lines"];

/// A bundle of a model with random weights, imported with these languages.
fn imported(directory: &Path, write: fn(&Path, u64), [source, target]: [&str; 2]) -> PathBuf {
    let (model, bundle) = (directory.join("model"), directory.join("bundle"));
    write(&model, 3);
    let mut import = baton();
    import.args(["bundle", "import-slm", "--source-language", source, "--target-language", target]);
    let ended = Ended::from(import.arg("--from").arg(&model).arg("--out").arg(&bundle).output().unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    bundle
}

/// The records of `rows`: fields beside id and text.
fn corpus(rows: &[Value]) -> String {
    let record = |(number, fields): (usize, &Value)| {
        TEXTS.map(|text| {
            let mut row = json!({ "id": format!("{number}: {text}"), "text": text });
            row.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            format!("{row}\n")
        })
    };
    rows.iter().enumerate().flat_map(record).collect()
}

fn job(bundle: &Path, rows: &[Value], flags: &[&str]) -> Job {
    let flags = [&["--max-new-tokens", "12", "--records-per-shard", "5"], flags].concat();
    Job::new().with_input("corpus.jsonl", corpus(rows)).with_bundle(bundle).with_flags(&flags)
}

const FIELDS: [&str; 4] = ["--source-language-field", "lang", "--target-language-field", "to"];

#[test]
fn records_of_many_languages_are_written_as_jobs_of_one_language_write_them() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = imported(directory.path(), write_nllb, ["eng_Latn", "fra_Latn"]);
    let choices = [
        (json!({}), [None, None]),
        (json!({ "lang": "por_Latn" }), [Some("por_Latn"), None]),
        (json!({ "to": "deu_Latn" }), [None, Some("deu_Latn")]),
        (json!({ "lang": " ", "to": null }), [None, None]),
        (json!({ "lang": "por_Latn", "to": "deu_Latn" }), [Some("por_Latn"), Some("deu_Latn")]),
        (json!({ "lang": "deu_Latn", "to": "eng_Latn" }), [Some("deu_Latn"), Some("eng_Latn")]),
    ];
    let rows: Vec<Value> = choices.iter().map(|(row, _)| row.clone()).collect();
    let together = job(&bundle, &rows, &FIELDS);
    together.run_expecting(0);
    let outputs = together.outputs();
    let texts = |rows: &[Value]| -> Vec<String> {
        rows.iter().map(|row| row["output"].as_str().unwrap().to_owned()).collect()
    };
    for ((_, [source, target]), found) in choices.iter().zip(texts(&outputs).chunks(TEXTS.len())) {
        let sides = [("--source-language", source), ("--target-language", target)];
        let flags = sides.into_iter().filter_map(|(flag, code)| Some([flag, (*code)?]));
        let alone = job(&bundle, &[json!({})], &flags.flatten().collect::<Vec<_>>());
        alone.run_expecting(0);
        assert_eq!(texts(&alone.outputs()), found, "{source:?} to {target:?}");
    }
    let distinct: std::collections::BTreeSet<String> = texts(&outputs).into_iter().collect();
    assert_eq!(distinct.len(), (choices.len() - 1) * TEXTS.len(), "{distinct:?}");
    let numbers: Vec<bool> = texts(&outputs).chunks(2).map(|texts| texts[1].contains("1.234,5")).collect();
    assert_eq!(numbers, [false, false, true, false, false, false], "from English into German: {outputs:?}");

    let slots = ["--encode-batch-tokens", "1", "--decode-slots", "1"];
    let by_one = job(&bundle, &rows, &[&FIELDS[..], &slots].concat());
    by_one.run_expecting(0);
    assert_eq!(by_one.outputs(), outputs);
}

#[test]
fn a_language_that_the_bundle_lacks_fails_its_record_alone() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = imported(directory.path(), write_nllb, ["eng_Latn", "fra_Latn"]);
    let rows = [json!({ "to": "deu_Latn" }), json!({ "to": "de" }), json!({ "to": 7 })];
    let job = job(&bundle, &rows, &["--target-language-field", "to"]);
    job.run_expecting(3);
    assert_eq!(job.outputs().len(), TEXTS.len());
    let errors = job.errors();
    assert_eq!(errors.len(), 2 * TEXTS.len());
    assert_eq!((&errors[0]["code"], &errors[2]["code"]), (&json!("unknown_language"), &json!("wrong_type")));
    assert_eq!(
        errors[0]["message"],
        "field `to` is `de`, a language that the bundle lacks; it has 202, such as deu_Latn, ace_Arab, \
         ace_Latn, acm_Arab, acq_Arab, aeb_Arab, afr_Latn, ajp_Arab"
    );
    assert!(errors[2]["message"].as_str().unwrap().contains("field `to` is a number"), "{errors:?}");
}

#[test]
fn fields_that_can_name_no_language_are_refused_before_the_job() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = imported(directory.path(), write_marian, ["en", "fra"]);
    for (flags, pieces) in [
        (["--source-language-field", "lang"], ["not told the source language", "field `lang`"]),
        (["--target-language-field", "nowhere"], ["no field `nowhere`", "--target-language-field"]),
    ] {
        let refused = job(&bundle, &[json!({ "lang": "en" })], &flags).run();
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        refused.assert_error(&pieces);
    }
    let without_languages = Job::of_records(1).with_flags(&["--target-language-field", "lang"]).run();
    without_languages.assert_error(&["no languages to choose from"]);
}
