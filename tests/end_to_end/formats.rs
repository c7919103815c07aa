//! Formats of inputs and parts, and the file that a job's parts become.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::command::{Ended, Job, baton, corpus};

/// Collects a job's parts into `file` beside them and gives the bytes.
fn collect(job: &Job, file: &str, flags: &[&str]) -> Vec<u8> {
    let path = job.output().with_file_name(file);
    let ended =
        Ended::from(baton().arg("collect").arg(job.output()).arg(&path).args(flags).output().unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    fs::read(path).unwrap()
}

fn rows(jsonl: &[u8]) -> Vec<Value> {
    let lines = std::str::from_utf8(jsonl).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn parts_of_every_format_have_the_same_rows_and_the_same_bytes_on_every_machine() {
    let flags = ["--keep-fields", "--origin"];
    let plain = Job::of_records(20).with_flags(&flags);
    plain.run_expecting(0);
    let expected = plain.outputs();
    assert_eq!((expected.len(), &expected[7]["line"]), (20, &Value::from(8)));
    assert!(expected[7]["input"].as_str().unwrap().ends_with("corpus.jsonl"));
    for format in ["jsonl.gz", "jsonl.zst"] {
        let job = Job::of_records(20).with_flags(&flags).with_flags(&["--output-format", format]);
        job.run_expecting(0);
        let suffix = format!(".{format}");
        assert!(job.contents().contains_key(&format!("part-000002{suffix}")), "{format}");
        let mut found = rows(&collect(&job, "all.jsonl", &[]));
        for (row, expected) in found.iter_mut().zip(&expected) {
            row["input"] = expected["input"].clone(); // another directory
        }
        assert_eq!(found, expected, "{format}");

        let again = job.output().with_file_name("again");
        let ended = job.command_to(&again).args(["--decode-slots", "3"]).output().unwrap();
        assert!(ended.status.success());
        for part in 0..3 {
            let name = format!("part-00000{part}{suffix}");
            assert!(fs::read(again.join(&name)).unwrap() == job.contents()[&name], "{name}");
        }
    }
}

#[test]
fn a_collected_file_has_failed_records_where_they_stood_if_asked() {
    let text = "{\"id\":\"a\",\"text\":\"one\"}\n{}\n{\"id\":\"c\",\"text\":\" \"}\n{\"id\":\"d\",\"text\":\"four\"}\n{";
    let job = Job::new().with_input("a.jsonl", text).with_flags(&["--records-per-shard", "2"]);
    job.run_expecting(3);
    let code = |row: &Value| row["code"].as_str().map(str::to_owned);
    let collected = rows(&collect(&job, "all.jsonl", &["--errors"]));
    let codes: Vec<Option<String>> = collected.iter().map(code).collect();
    let expected = [None, Some("missing_field"), Some("empty_text"), None, Some("invalid_json")];
    assert_eq!(codes, expected.map(|code| code.map(str::to_owned)));
    assert_eq!(rows(&collect(&job, "outputs.jsonl", &[])).len(), 2);

    let table = String::from_utf8(collect(&job, "all.csv", &["--errors", "--separator", ";"])).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 6);
    assert!(lines[0].starts_with("id;output;score;") && lines[0].ends_with(";error;message"), "{table}");
    assert!(lines[1].starts_with("a;") && lines[3].contains(";empty_text;"), "{table}");
}

#[test]
fn an_impossible_collection_is_refused_and_leaves_no_file() {
    let job = Job::of_records(3);
    let file = job.output().with_file_name("all.jsonl");
    let collect = |out: &Path, flags: &[&str]| {
        Ended::from(baton().arg("collect").arg(out).arg(&file).args(flags).output().unwrap())
    };
    collect(&job.output(), &[]).assert_error(&["holds no Baton job"]);
    job.run_expecting(0);
    fs::rename(job.output().join("_SUCCESS"), job.output().join("_moved")).unwrap();
    collect(&job.output(), &[]).assert_error(&["is not finished"]);
    fs::rename(job.output().join("_moved"), job.output().join("_SUCCESS")).unwrap();
    assert!(!file.exists());
    assert_eq!(collect(&job.output(), &[]).code, Some(0));
    collect(&job.output(), &[]).assert_error(&["exists; use --force"]);
    assert_eq!(collect(&job.output(), &["--force"]).code, Some(0));
}

#[test]
fn records_of_the_same_id_are_reported() {
    let job = Job::new().with_input("a.jsonl", corpus(3)).with_input("b.jsonl", corpus(2));
    let ended = job.run_expecting(0);
    assert!(ended.stderr.contains("2 records have an id that an earlier record has"), "{}", ended.stderr);
}

#[test]
fn batch_requests_are_answered_in_their_shape_in_an_output_and_an_error_file() {
    let request = |id: &str, extra: &str| {
        let body = format!(
            "{{\"model\":\"any\",\"messages\":[{{\"role\":\"user\",\"content\":\"a tool\"}}]{extra}}}"
        );
        format!(
            "{{\"custom_id\":\"{id}\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{body}}}\n"
        )
    };
    let lines = request("a", "")
        + &request("b", ",\"temperature\":0.7")
        + &request("c", ",\"temperature\":0,\"max_tokens\":1");
    let job = Job::new().with_input("requests.jsonl", lines).with_flags(&["--format", "batch"]);
    job.run_expecting(3);
    let errors = job.output().with_file_name("errors.jsonl");
    let flags = ["--format", "batch", "--error-file", errors.to_str().unwrap()];
    let answers = rows(&collect(&job, "answers.jsonl", &flags));
    let ids: Vec<&Value> = answers.iter().map(|answer| &answer["custom_id"]).collect();
    assert_eq!(ids, ["a", "c"]);
    let (output, body) = (&job.outputs()[0], &answers[0]["response"]["body"]);
    assert_eq!(body["choices"][0]["message"]["content"], output["output"]);
    assert_eq!(body["usage"]["completion_tokens"], output["output_tokens"]);
    assert_eq!(body["model"], "any");
    assert!(output["output_tokens"].as_u64().unwrap() > 1);
    let limited = &answers[1]["response"]["body"];
    assert_eq!(limited["choices"][0]["finish_reason"], "length");
    assert_eq!(limited["usage"]["completion_tokens"], 1);
    let errors = rows(&fs::read(errors).unwrap());
    assert_eq!((errors.len(), &errors[0]["custom_id"]), (1, &Value::from("b")));
    assert!(errors[0]["error"]["message"].as_str().unwrap().contains("temperature"), "{errors:?}");
}

#[test]
fn standard_input_is_an_input_of_its_own_and_goes_with_no_partition() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("lines");
    fs::write(&input, "a small tool\nanother one\n").unwrap();
    let run = |flags: &[&str]| {
        let mut command = baton();
        command.arg("run").arg("--bundle").arg(crate::bundle::shared_bundle()).args(["--input", "-"]);
        command.arg("--output").arg(directory.path().join("out")).args(flags);
        Ended::from(command.stdin(fs::File::open(&input).unwrap()).output().unwrap())
    };
    run(&[]).assert_error(&["-: unknown input format", "--format"]);
    run(&["--format", "txt", "--partition", "0/2"]).assert_error(&["standard input is read once"]);
    assert_eq!(run(&["--format", "txt"]).code, Some(0));
    let part = rows(&fs::read(directory.path().join("out/part-000000.jsonl")).unwrap());
    assert_eq!((part.len(), &part[1]["id"]), (2, &Value::from("-:2")));
    let again = run(&["--format", "txt"]);
    assert!(again.code == Some(0) && again.stderr.contains("was complete before"), "{}", again.stderr);
    fs::write(&input, "other\n").unwrap();
    run(&["--format", "txt"]).assert_error(&["input - "]);
}
