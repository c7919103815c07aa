//! Parquet in and out of a job, with files of other libraries.

use std::fs;
use std::path::Path;

use baton_formats::RowFile;
use serde_json::{Map, Value};

use crate::command::{Ended, Job, baton};

/// 60 rows; 6 have no text, and one has a text that is too long for the bundle.
fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/fixtures").join(name)).unwrap()
}

fn rows(file: &Path) -> Vec<Map<String, Value>> {
    RowFile::open(file).unwrap().map(|row| row.unwrap().1).collect()
}

fn expected() -> Vec<Map<String, Value>> {
    serde_json::from_slice(&fixture("expected.json")).unwrap()
}

fn collect(job: &Job, file: &str, flags: &[&str]) -> Vec<Map<String, Value>> {
    let path = job.output().with_file_name(file);
    let ended =
        Ended::from(baton().arg("collect").arg(job.output()).arg(&path).args(flags).output().unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    rows(&path)
}

fn keeping(name: &str) -> Job {
    let flags = ["--keep-fields", "--origin", "--output-format", "parquet", "--records-per-shard", "16"];
    Job::new().with_input("rows.parquet", fixture(name)).with_flags(&flags)
}

#[test]
fn columns_reach_parquet_parts_with_their_types_and_the_parts_have_the_same_bytes_each_time() {
    let job = keeping("duckdb.parquet");
    let ended = job.run_expecting(3);
    assert!(ended.stderr.contains("7 failed"), "{}", ended.stderr);
    let contents = job.contents();
    for shard in 0..4 {
        assert!(contents.contains_key(&format!("part-00000{shard}.parquet")), "{:?}", contents.keys());
    }
    let errors = job.errors();
    assert_eq!((errors.len(), &errors[0]["line"], &errors[0]["code"]), (7, &8.into(), &"wrong_type".into()));

    let expected = expected();
    let found = collect(&job, "all.parquet", &[]);
    assert_eq!(found.len(), 53);
    for row in &found {
        let record = &expected[row["id"].as_str().unwrap().parse::<usize>().unwrap()];
        assert_eq!(row["line"], record["id"].as_u64().unwrap() + 1, "the number of its row");
        for column in ["text", "lang", "tags", "doc"] {
            assert_eq!(row[column], record[column], "{column} of {}", row["id"]);
        }
        assert_eq!(row["fields.score"], record["score"], "the job's own column has the name");
        assert!(row["output"].is_string() && row["prompt_tokens"].is_u64() && row["warnings"].is_array());
    }
    let as_json = collect(&job, "all.jsonl", &[]);
    assert_eq!(as_json[9]["fields"]["doc"], found[9]["doc"]);
    let table = collect(&job, "all.csv", &["--errors"]);
    assert_eq!(
        (table.len(), table[5]["lang"].as_str(), table[7]["error"].as_str()),
        (60, found[5]["lang"].as_str(), Some("wrong_type"))
    );
    let with_errors = collect(&job, "errors.parquet", &["--errors"]);
    assert_eq!(
        (with_errors.len(), &with_errors[7]["output"], &with_errors[7]["line"]),
        (60, &Value::Null, &8.into())
    );

    let again = job.output().with_file_name("again");
    let ended = job.command_to(&again).args(["--decode-slots", "3"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(3));
    for (key, bytes) in contents.iter().filter(|(key, _)| key.starts_with("part-")) {
        assert!(fs::read(again.join(key)).unwrap() == *bytes, "{key}");
    }
    let ended = job.run_expecting(3);
    assert!(ended.stderr.contains("was complete before"), "{}", ended.stderr);
}

#[test]
fn a_killed_job_continues_with_the_same_columns() {
    let whole = keeping("polars.parquet");
    whole.run_expecting(3);
    let part = |number: usize| format!("part-00000{number}.parquet");
    // The second shard looks as if it had never been committed.
    let job = keeping("polars.parquet");
    job.run_expecting(3);
    for key in ["_SUCCESS", &part(1), "_baton/shards/000001.json", "errors/part-000001.jsonl"] {
        fs::remove_file(job.output().join(key)).unwrap();
    }
    job.run_expecting(3);
    let origin = |job: &Job| job.inputs().display().to_string();
    assert_ne!(origin(&job), origin(&whole));
    let rows_of = |job: &Job| {
        let mut rows = rows(&job.output().join(part(1)));
        rows.iter_mut().for_each(|row| drop(row.remove("input")));
        rows
    };
    assert_eq!(rows_of(&job), rows_of(&whole));
    assert_eq!(job.num_parts(), 4);
}

#[test]
fn an_input_of_parquet_makes_rows_of_json_and_inputs_of_json_make_a_column_of_objects() {
    let job = Job::new().with_input("rows.parquet", fixture("spark-snappy.parquet")).with_flags(&[
        "--keep-fields",
        "--text-field",
        "doc.body",
    ]);
    job.run_expecting(3);
    let outputs = job.outputs();
    let record = &expected()[10];
    assert_eq!((&outputs[9]["id"], &outputs[9]["fields"]["doc"]), (&"10".into(), &record["doc"]));

    let lines = "{\"text\":\"a tool\",\"n\":7}\n{\"text\":\"a game\",\"m\":[1]}\n";
    let flags = ["--keep-fields", "--output-format", "parquet"];
    let job = Job::new().with_input("a.jsonl", lines).with_flags(&flags);
    job.run_expecting(0);
    let rows = rows(&job.output().join("part-000000.parquet"));
    assert_eq!(rows[1]["fields"], "{\"text\":\"a game\",\"m\":[1]}");
    assert_eq!(collect(&job, "all.jsonl", &[])[0]["fields"]["n"], 7);
}

#[test]
fn a_wrong_column_and_columns_that_do_not_go_together_stop_the_job_before_it_begins() {
    let job = keeping("pandas.parquet").with_flags(&["--text-field", "body"]);
    job.run_expecting(2).assert_error(&["has no field `body`", "`lang`", "`text`"]);
    assert!(!job.output().exists() || job.num_parts() == 0);

    let job = keeping("pandas.parquet").with_input("b.csv", "id,text,score\n1,a,high\n");
    job.run_expecting(2).assert_error(&["column `score` is Utf8 in one input and Float64 in another"]);
    assert!(!job.output().join("_baton/job.json").exists());
}

#[test]
fn a_damaged_file_is_a_failure_of_the_input_and_the_others_are_done() {
    let cut = fixture("duckdb.parquet");
    let job = keeping("polars.parquet").with_input("cut.parquet", &cut[..cut.len() / 2]);
    let ended = job.run_expecting(4);
    assert!(ended.stderr.contains("cut.parquet cannot be read to its end"), "{}", ended.stderr);
    assert!(!job.is_finished() && job.num_parts() == 4);

    let mut damaged = fixture("pyarrow-v2-zstd.parquet");
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0);
    let job = Job::new().with_input("rows.parquet", damaged).with_flags(&["--keep-fields"]);
    let ended = job.run_expecting(4);
    assert!(ended.stderr.contains("Parquet data"), "{}", ended.stderr);
}
