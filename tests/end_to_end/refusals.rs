//! Jobs that must not run: each is refused with one line that says why, and nothing already committed is touched.

use std::fs;

use crate::bundle::write_bundle;
use crate::command::{Ended, Job, baton, corpus};

#[test]
fn a_changed_spec_is_refused_with_the_field_and_both_values() {
    let job = Job::of_records(16);
    job.run_expecting(0);
    let contents = job.contents();
    let job = job.with_flags(&["--max-new-tokens", "7"]);
    job.run_expecting(1).assert_error(&["another job", "max_new_tokens", "null", "7"]);
    assert_eq!(job.contents(), contents);
}

#[test]
fn a_changed_input_is_refused_by_name() {
    let job = Job::of_records(16);
    job.run_expecting(0);
    let job = job.with_input("corpus.jsonl", corpus(17)).with_input("more.jsonl", corpus(1));
    job.run_expecting(1).assert_error(&["another job", "corpus.jsonl had", "more.jsonl is new"]);
}

#[test]
fn another_bundle_is_refused() {
    let job = Job::of_records(16);
    job.run_expecting(0);
    let other = tempfile::tempdir().unwrap();
    write_bundle(other.path(), 2);
    let job = job.with_bundle(other.path());
    job.run_expecting(1).assert_error(&["another job", "the bundle was"]);
}

#[test]
fn a_directory_with_other_files_is_no_output_directory() {
    let job = Job::of_records(1);
    fs::create_dir_all(job.output()).unwrap();
    fs::write(job.output().join("thesis.tex"), "years of work").unwrap();
    job.run_expecting(1).assert_error(&["not empty", "thesis.tex", "empty directory"]);
    assert_eq!(fs::read(job.output().join("thesis.tex")).unwrap(), b"years of work");
}

#[test]
fn a_corrupt_or_missing_bundle_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    write_bundle(directory.path(), 1);
    let weights = directory.path().join("slm/model.safetensors");
    let job = Job::of_records(1).with_bundle(directory.path());

    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, &bytes).unwrap();
    job.run_expecting(1).assert_error(&["slm/model.safetensors", "sha256"]);

    fs::write(&weights, &bytes[..last]).unwrap();
    job.run_expecting(1).assert_error(&["slm/model.safetensors", "bytes"]);

    fs::remove_file(&weights).unwrap();
    job.run_expecting(1).assert_error(&["slm/model.safetensors"]);
    assert!(!job.output().join("_baton").exists(), "nothing was begun");
}

#[test]
fn an_input_that_is_absent_or_of_no_known_format_is_named() {
    let job = Job::new();
    job.run_expecting(2).assert_error(&["inputs matches no file"]);
    let job = job.with_input("notes.docx", "x");
    job.run_expecting(2).assert_error(&["notes.docx", "unknown input format"]);
}

#[test]
fn an_output_directory_among_the_inputs_is_refused() {
    let job = Job::of_records(1);
    let output = job.inputs().join("out");
    let ended = Ended::from(job.command_to(&output).output().unwrap());
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    ended.assert_error(&["takes in the output directory", "inputs/out"]);
    assert!(!output.exists(), "nothing was begun");
}

#[test]
fn what_the_bundle_does_not_offer_is_a_usage_error() {
    Job::of_records(1).with_flags(&["--task", "foo"]).run_expecting(2).assert_error(&["template `foo`"]);
    let job = Job::of_records(1).with_flags(&["--min-new-tokens", "9999"]);
    job.run_expecting(2).assert_error(&["min_new_tokens is 9999"]);
}

#[test]
fn wrong_flags_and_job_files_are_usage_errors() {
    let usage = |args: &[&str]| {
        let ended = Ended::from(baton().arg("run").args(args).output().unwrap());
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        ended
    };
    usage(&["--no-such-flag"]);
    for flag in ["--decode-slots", "--shards-in-flight", "--encode-batch-tokens"] {
        for value in ["0", "99999999999"] {
            assert!(usage(&[flag, value]).stderr.contains(flag));
        }
    }
    usage(&[]).assert_error(&["--bundle DIR", "--input PATTERN", "--output DIR"]);
    usage(&["no-such-job.toml"]).assert_error(&["no-such-job.toml"]);

    let directory = tempfile::tempdir().unwrap();
    let job_file = directory.path().join("job.toml");
    fs::write(&job_file, "bundle = 'b'\ninput = 'x'\n").unwrap();
    usage(&[job_file.to_str().unwrap()]).assert_error(&["job.toml, line 2", "`input`"]);
    fs::write(&job_file, "bundle = 'b'\ninputs = ['x']\noutput = 'o'\nmax_error_rate = 2.0\n").unwrap();
    usage(&[job_file.to_str().unwrap()]).assert_error(&["max_error_rate", "0.0 to 1.0"]);
}
