//! Records that cannot be processed: each becomes one error row with its place and reason, and harms no
//! other.

use serde_json::Value;

use crate::bundle::MAX_PROMPT_TOKENS;
use crate::command::{Job, corpus};

/// Code, line and id of each error row.
fn summary(errors: &[Value]) -> Vec<(String, u64, Option<String>)> {
    let row = |row: &Value| {
        let id = row["id"].as_str().map(str::to_owned);
        (row["code"].as_str().unwrap().to_owned(), row["line"].as_u64().unwrap(), id)
    };
    errors.iter().map(row).collect()
}

fn error(code: &str, line: u64, id: Option<&str>) -> (String, u64, Option<String>) {
    (code.to_owned(), line, id.map(str::to_owned))
}

#[test]
fn each_bad_record_is_one_error_row_and_the_others_are_outputs() {
    let long = "x".repeat(MAX_PROMPT_TOKENS);
    let longest = "x".repeat(MAX_PROMPT_TOKENS - 2); // two tokens of the template beside it
    let huge = "y".repeat(3000);
    let mut lines: Vec<Vec<u8>> = vec![
        br#"{"id":"good-1","text":"a small tool"}"#.to_vec(),
        br#"{"id":"broken","text":"#.to_vec(),
        br#"{"id":"fieldless","txt":"a"}"#.to_vec(),
        br#"{"id":"empty","text":" "}"#.to_vec(),
        br#"{"id":"number","text":7}"#.to_vec(),
        b"{\"id\":\"latin1\",\"text\":\"caff\xe8\"}".to_vec(),
        format!(r#"{{"id":"long","text":"{long}"}}"#).into_bytes(),
        format!(r#"{{"id":"longest","text":"{longest}"}}"#).into_bytes(),
        format!(r#"{{"id":"huge","text":"{huge}"}}"#).into_bytes(),
        br#"["not","an","object"]"#.to_vec(),
        br#"{"id":"good-1","text":"the id again"}"#.to_vec(),
        "{\"id\":\"special\",\"text\":\"</s> caffè ☕ <s>\"}".as_bytes().to_vec(),
    ];
    lines.iter_mut().for_each(|line| line.push(b'\n'));
    let job = Job::new().with_input("corpus.jsonl", lines.concat()).with_flags(&[
        "--records-per-shard",
        "4",
        "--max-text-bytes",
        "2000",
    ]);
    let ended = job.run_expecting(3);
    assert!(ended.stderr.contains("4 succeeded, 8 failed"), "{}", ended.stderr);

    let outputs = job.outputs();
    let ids: Vec<&str> = outputs.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["good-1", "longest", "good-1", "special"]);
    let errors = job.errors();
    assert_eq!(
        summary(&errors),
        [
            error("invalid_json", 2, None),
            error("missing_field", 3, Some("fieldless")),
            error("empty_text", 4, Some("empty")),
            error("wrong_type", 5, Some("number")),
            error("invalid_utf8", 6, None),
            error("prompt_too_long", 7, Some("long")),
            error("text_too_long", 9, Some("huge")),
            error("wrong_type", 10, None),
        ]
    );
    for row in &errors {
        assert!(row["input"].as_str().unwrap().ends_with("corpus.jsonl"), "{row}");
        let message = row["message"].as_str().unwrap();
        assert!(
            !message.contains("xxxx") && !message.contains("yyyy"),
            "no record text in messages: {message}"
        );
    }
}

#[test]
fn a_job_whose_records_all_fail_still_has_its_parts() {
    let job = Job::new().with_input("a.jsonl", "{}\n{}\n{}\n");
    job.run_expecting(3);
    assert_eq!((job.outputs().len(), job.errors().len(), job.num_parts()), (0, 3, 1));
    assert!(job.is_finished());
}

#[test]
fn an_empty_input_is_a_complete_job_without_parts() {
    let job = Job::new().with_input("a.jsonl", "");
    let ended = job.run_expecting(0);
    assert!(ended.stderr.contains("the inputs have no records"), "{}", ended.stderr);
    assert_eq!(job.num_parts(), 0);
    assert!(job.is_finished());
}

#[test]
fn too_many_errors_fail_the_job_and_keep_the_committed_parts() {
    let job = Job::new()
        .with_input("a.jsonl", format!("{}{{}}\n{{}}\n", corpus(6)))
        .with_flags(&["--max-error-rate", "0.2"]);
    let ended = job.run_expecting(1);
    ended.assert_error(&["2 of 8 records failed", "max_error_rate = 0.2"]);
    assert_eq!((job.num_parts(), job.is_finished()), (1, false));

    // A limit is no part of the output: with another limit, the job continues.
    let job = job.without_flags().with_flags(&["--max-error-rate", "0.5"]);
    job.run_expecting(3);
    assert!(job.is_finished());
}

#[test]
fn csv_and_tsv_and_txt_are_read_by_their_names() {
    let job = Job::new()
        .with_input("a.csv", "id,text\n1,\"two, words\"\n2\n")
        .with_input("b.tsv", "id\ttext\n3\ta \"quote\n")
        .with_input("c.txt", "plain line\n\n");
    job.run_expecting(3);
    let outputs = job.outputs();
    let ids: Vec<&str> = outputs.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids[..2], ["1", "3"]);
    assert!(ids[2].ends_with("c.txt:1") && ids[3].ends_with("c.txt:2"), "{ids:?}");
    assert_eq!(outputs[3]["output"], "", "a blank line stays one");
    let codes: Vec<String> = summary(&job.errors()).into_iter().map(|(code, _, _)| code).collect();
    assert_eq!(codes, ["invalid_row"]);
}
