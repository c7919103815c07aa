//! Inputs that are damaged, or that change while the job reads them. Each is reported by name, with its own
//! exit code, and harms no other input.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::command::{Ended, Job, corpus};

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// Ids of all output rows that begin so.
fn ids(job: &Job, prefix: &str) -> Vec<String> {
    let outputs = job.outputs();
    let ids = outputs.iter().map(|row| row["id"].as_str().unwrap().to_owned());
    ids.filter(|id| id.starts_with(prefix)).collect()
}

/// Records `NAME0`, `NAME1`, ... whose lines are so long that the reader cannot have many at once.
fn long_lines(name: char, num_records: usize) -> String {
    let padding = "x".repeat(8000);
    let line =
        |index| format!("{{\"id\":\"{name}{index}\",\"text\":\"mail {index}\",\"pad\":\"{padding}\"}}\n");
    (0..num_records).map(line).collect()
}

#[test]
fn a_cut_or_mislabelled_archive_fails_by_name_and_the_other_inputs_are_finished() {
    let archive = gzip(&corpus(40));
    let mut corrupt = archive.clone();
    let word = archive.windows(5).rposition(|bytes| bytes == b"small").unwrap();
    corrupt[word] ^= 1; // another letter, which only the checksum at the end tells
    let cut = archive[..archive.len() / 2].to_vec();
    let zip = b"PK\x03\x04 and more of a zip archive".to_vec();
    for (what, bytes) in [("cut", cut), ("corrupt", corrupt), ("plain", corpus(9).into_bytes()), ("zip", zip)]
    {
        let job = Job::new()
            .with_input("a.jsonl.gz", bytes)
            .with_input("b.txt", "the next file\nand its end\n")
            .with_flags(&["--records-per-shard", "8", "--accept-failed-records"]);
        let ended = job.run_expecting(4);
        ended.assert_error(&["a.jsonl.gz cannot be read to its end", "records read", "new output directory"]);
        assert!(!job.is_finished(), "{what}");
        assert!(job.errors().is_empty(), "{what}: it is no failed record");
        let of_text =
            job.outputs().iter().filter(|row| row["id"].as_str().unwrap().contains("b.txt:")).count();
        assert_eq!(of_text, 2, "{what}");
        assert_eq!(
            ids(&job, "r").len() % 8,
            0,
            "{what}: no shard mixes its last records with another input's"
        );

        let contents = job.contents();
        job.run_expecting(4);
        assert_eq!(job.contents(), contents, "{what}: another try changes nothing");
    }
}

#[test]
fn an_input_that_changes_while_it_is_read_fails_by_name_and_the_other_inputs_are_finished() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 3] = [
        ("cut off", |path| OpenOptions::new().write(true).open(path).unwrap().set_len(1_000_000).unwrap()),
        ("appended to", |path| {
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            file.write_all(long_lines('z', 1).as_bytes()).unwrap();
        }),
        ("rewritten", |path| fs::write(path, long_lines('z', 200)).unwrap()),
    ];
    for (what, change) in changes {
        let job = Job::new()
            .with_input("a.jsonl", long_lines('a', 200))
            .with_input("b.jsonl", long_lines('b', 12))
            .with_flags(&["--records-per-shard", "8"]);
        let mut child = job.start();
        job.wait_for_parts(1, &mut child);
        change(&job.inputs().join("a.jsonl"));
        let ended = Ended::from(child.wait_with_output().unwrap());
        assert_eq!(ended.code, Some(4), "{what}: {}", ended.stderr);
        ended.assert_error(&["a.jsonl changed while it was read", "new output directory"]);
        assert!(!job.is_finished(), "{what}");
        assert_eq!(ids(&job, "b").len(), 12, "{what}");
        assert!(ids(&job, "z").is_empty(), "{what}: nothing new was mixed in");
        let of_changed = ids(&job, "a").len();
        assert!(of_changed.is_multiple_of(8) && of_changed < 200, "{what}: {of_changed}");
        assert!(job.errors().is_empty(), "{what}: no half line became a record");

        job.run_expecting(4).assert_error(&["another job", "a.jsonl"]);
    }
}

#[test]
fn a_wrong_field_name_stops_before_anything_is_begun_and_names_the_fields_there_are() {
    let job = Job::of_records(20).with_flags(&["--text-field", "txt"]);
    job.run_expecting(2).assert_error(&[
        "corpus.jsonl has no field `txt`",
        "`id`, `lang`, `text`",
        "--text-field",
    ]);
    assert!(!job.output().join("_baton").exists());
    Job::of_records(20).run_expecting(0);
}

#[test]
fn a_plan_reads_everything_names_each_problem_and_writes_nothing() {
    let archive = gzip(&corpus(40));
    let job = Job::new()
        .with_input("a.jsonl", corpus(6) + "{\n{\"id\":1,\"text\":\"\"}\n")
        .with_input("b.jsonl.gz", &archive[..archive.len() / 2]);
    let plan = |job: &Job| {
        let run = job.command();
        let args = run.get_args().skip(1); // but for `run`
        crate::command::baton().arg("plan").args(args).output().unwrap()
    };
    let output = plan(&job);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    for piece in
        ["a.jsonl: 8 records", "1 x invalid_json, first on line 7", "1 x empty_text", "BROKEN: line "]
    {
        assert!(said.contains(piece), "{piece} is not in {said}");
    }
    assert!(!job.output().exists());
    assert_eq!(plan(&Job::of_records(9)).status.code(), Some(0));
}

#[test]
fn a_plan_measures_a_sample_and_estimates_the_whole_job() {
    let job = Job::of_records(40);
    let run = job.command();
    let plan = |flags: &[&str]| {
        let args = run.get_args().skip(1); // but for `run`
        crate::command::baton().arg("plan").args(args).args(flags).output().unwrap()
    };
    let output = plan(&["--calibrate", "10", "--price-per-hour", "3600"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    for piece in ["sample: 10 records in", "estimate: about", "output tokens, cost "] {
        assert!(said.contains(piece), "{piece} is not in {said}");
    }
    assert!(!job.output().exists());
    assert_eq!(plan(&["--price-per-hour", "1"]).status.code(), Some(2), "a price needs a measurement");
}
