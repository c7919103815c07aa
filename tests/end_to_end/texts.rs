//! Texts that come back whole from a model that writes noise: units, terms, texts in other languages, and the
//! job's reports about them.

use std::fs;

use serde_json::Value;

use crate::command::{Job, imported_small_model};

const CORPUS: &str = r#"{"id": "unit", "text": "Cannot open the file {name} on the hard disk of the server."}
{"id": "terms", "text": "Hard disks are read from https://example.org/a/b by Baton."}
{"id": "target", "text": "La biblioteca comunale resta chiusa durante i lavori che cominciano domani."}
{"id": "number", "text": "It has 481, 516, 234, 207, 953, 618, 349, 872, 164 and 790 parts."}
"#;

/// A job of the corpus with a model of random weights, English to Italian.
fn job(directory: &std::path::Path, flags: &[&str]) -> Job {
    let bundle = imported_small_model(directory);
    Job::new().with_input("a.jsonl", CORPUS).with_bundle(&bundle).with_flags(flags)
}

fn output<'a>(rows: &'a [Value], id: &str) -> &'a Value {
    rows.iter().find(|row| row["id"] == id).unwrap()
}

#[test]
fn units_and_terms_are_in_the_output_and_its_warnings_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let glossary = directory.path().join("terms.csv");
    fs::write(&glossary, "source,target\nhard disk,disco rigido\nBaton,\n").unwrap();
    for method in [&["--beams", "1"][..], &["--beams", "3"], &["--temperature", "1"]] {
        let flags = [&["--glossary", glossary.to_str().unwrap()], method].concat();
        let job = job(directory.path(), &flags);
        let ended = job.run_expecting(0);
        let rows = job.outputs();
        let text = |id| output(&rows, id)["output"].as_str().unwrap().to_owned();
        for (id, unit) in [
            ("unit", "{name}"),
            ("unit", "disco rigido"),
            ("terms", "Disco rigido"),
            ("terms", "https://example.org/a/b"),
            ("terms", "Baton"),
        ] {
            let count = text(id).to_lowercase().matches(&unit.to_lowercase()).count();
            assert_eq!(count, 1, "{unit} in {:?}, {method:?}", text(id));
        }
        assert!(rows.iter().all(|row| !row["output"].as_str().unwrap().contains('\u{FFFD}')));
        let counted = rows.iter().flat_map(|row| row["warnings"].as_array().cloned().unwrap_or_default());
        let counted = counted.filter(|warning| warning == "already_in_target_language").count();
        let manifest: Value = serde_json::from_slice(&job.contents()["_SUCCESS"]).unwrap();
        assert_eq!(manifest["totals"]["warnings"]["already_in_target_language"], counted);
        assert_eq!(counted, 1);
        assert!(ended.stderr.contains("1 already_in_target_language"), "{}", ended.stderr);
    }
}

#[test]
fn texts_in_the_target_language_are_copied_or_fail_as_the_job_says() {
    let directory = tempfile::tempdir().unwrap();
    let job_copying = job(directory.path(), &["--other-language", "copy"]);
    job_copying.run_expecting(0);
    let rows = job_copying.outputs();
    let target = output(&rows, "target");
    assert!(target["output"].as_str().unwrap().starts_with("La biblioteca comunale"), "{target}");
    assert_eq!(target["warnings"][0], "already_in_target_language");

    let job_failing = job(directory.path(), &["--other-language", "error", "--accept-failed-records"]);
    job_failing.run_expecting(0);
    let errors = job_failing.errors();
    assert_eq!(errors[0]["id"], "target");
    assert!(errors[0]["message"].as_str().unwrap().contains("already_in_target_language"), "{errors:?}");
}

#[test]
fn a_strict_job_has_no_output_with_a_number_at_a_guessed_place() {
    let directory = tempfile::tempdir().unwrap();
    let lenient = job(directory.path(), &[]);
    lenient.run_expecting(0);
    let rows = lenient.outputs();
    let is_guessed = |row: &Value| {
        row["warnings"].as_array().is_some_and(|all| all.iter().any(|one| one == "number_placed"))
    };
    let row = output(&rows, "number");
    assert!(is_guessed(row), "noise has fewer numbers: {row}");
    assert!(["481", "790"].iter().all(|number| row["output"].as_str().unwrap().contains(number)), "{row}");

    let strict = job(directory.path(), &["--strict", "--accept-failed-records"]);
    strict.run_expecting(0);
    assert!(strict.errors().iter().any(|row| row["id"] == "number"));
    assert!(strict.outputs().iter().all(|row| !is_guessed(row)));
}

#[test]
fn an_output_with_flaws_is_written_once_more_and_the_better_one_stays() {
    let directory = tempfile::tempdir().unwrap();
    let num_flawed = |rows: &[Value]| {
        let is_flaw = |warning: &Value| {
            ["placed", "removed", "looping", "empty_output"]
                .iter()
                .any(|name| warning.as_str().unwrap().ends_with(name))
        };
        let of_row = |row: &Value| {
            row["warnings"].as_array().map_or(0, |all| all.iter().filter(|w| is_flaw(w)).count())
        };
        rows.iter().map(of_row).sum::<usize>()
    };
    let once = job(directory.path(), &["--retry-beams", "0"]);
    once.run_expecting(0);
    let twice = job(directory.path(), &[]);
    twice.run_expecting(0);
    let rows = twice.outputs();
    assert!(num_flawed(&once.outputs()) > 0, "noise has flaws");
    assert_ne!(once.outputs(), rows);
    assert!(num_flawed(&rows) <= num_flawed(&once.outputs()));
    for flags in [["--decode-slots", "4"], ["--records-per-shard", "1"], ["--encode-batch-tokens", "1"]] {
        let other = job(directory.path(), &flags);
        other.run_expecting(0);
        assert_eq!(other.outputs(), rows, "{flags:?}");
    }
}

#[test]
fn an_invalid_glossary_is_refused_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let glossary = directory.path().join("terms.csv");
    fs::write(&glossary, "disk,disco\nhost,server,maybe\n").unwrap();
    let ended = job(directory.path(), &["--glossary", glossary.to_str().unwrap()]).run();
    ended.assert_error(&["terms.csv, line 2", "maybe"]);
}
