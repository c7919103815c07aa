//! Jobs that must not run: each is refused with one line that says why, and nothing already committed is
//! touched.

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
fn a_changed_input_is_refused_by_name_with_the_code_of_broken_inputs() {
    let job = Job::of_records(16);
    job.run_expecting(0);
    let job = job.with_input("corpus.jsonl", corpus(17)).with_input("more.jsonl", corpus(1));
    job.run_expecting(4).assert_error(&["another job", "corpus.jsonl had", "more.jsonl is new"]);
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
    ended.assert_error(&["includes the output directory", "inputs/out"]);
    assert!(!output.exists(), "nothing was begun");
}

#[test]
fn a_place_that_is_spelled_wrongly_is_refused_and_makes_no_directory() {
    let here = tempfile::tempdir().unwrap();
    let run = |flag: &str, place: &str| {
        let mut command = baton();
        command.current_dir(here.path()).arg("run");
        for (other, value) in [("--bundle", "b"), ("--input", "i.txt"), ("--output", "o")] {
            command.args([other, if other == flag { place } else { value }]);
        }
        Ended::from(command.output().unwrap())
    };
    for (place, said) in [
        ("s3:/bucket/x", "write s3://bucket/x"),
        ("s3//bucket/x", "write s3://bucket/x"),
        ("gs://bucket/x", "unknown scheme `gs`"),
        ("file:x", "absolute"),
    ] {
        let ended = run("--bundle", place);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        ended.assert_error(&[place, said]);
    }
    run("--bundle", "s3://bucket/bundle").assert_error(&["s3://bucket/bundle is not local", "copy it"]);
    assert_eq!(fs::read_dir(here.path()).unwrap().count(), 0);

    let job = Job::of_records(1);
    for place in ["s3:/bucket/x", "S3:bucket", "s3a://bucket/x"] {
        let mut command = job.command_to(std::path::Path::new(place));
        let ended = Ended::from(command.current_dir(here.path()).output().unwrap());
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        ended.assert_error(&[place, "write s3://bucket"]);
    }
    assert_eq!(fs::read_dir(here.path()).unwrap().count(), 0);
}

#[test]
fn a_file_uri_names_the_directory_itself() {
    let job = Job::of_records(1);
    let uri = format!("file:{}", job.output().display());
    let ended = Ended::from(job.command_to(std::path::Path::new(&uri)).output().unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(job.is_finished());
}

#[test]
fn a_missing_temporary_directory_is_noticed_before_the_work() {
    let job = Job::of_records(1);
    let ended = Ended::from(job.command().env("TMPDIR", "/no/such/directory").output().unwrap());
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    ended.assert_error(&["temporary file", "TMPDIR"]);
    assert!(!job.output().join("_baton").exists(), "nothing was begun");
    assert!(!ended.stderr.contains("loading models"), "{}", ended.stderr);
}

#[test]
fn a_malformed_endpoint_is_told_from_a_missing_region() {
    let mut command = baton();
    command.args(["run", "--input", "s3://in/x.jsonl", "--output", "s3://out/x", "--bundle"]);
    command.arg(crate::bundle::shared_bundle()).env("AWS_ENDPOINT_URL", "localhost:8333");
    let ended = Ended::from(command.env_remove("AWS_REGION").output().unwrap());
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    ended.assert_error(&["AWS_ENDPOINT_URL is no endpoint", "localhost:8333", "http://HOST:PORT"]);
}

#[test]
fn more_engines_than_there_is_room_for_are_capped_and_said() {
    let job = Job::of_records(4).with_flags(&["--engines", "500"]);
    let ended = job.run_expecting(0);
    assert!(ended.stderr.contains("500 engines are more than there is room for"), "{}", ended.stderr);
}

#[test]
fn options_that_the_bundle_lacks_are_usage_errors() {
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
    fs::write(&job_file, "bundle = 'b'\ninputz = ['x']\n").unwrap();
    usage(&[job_file.to_str().unwrap()]).assert_error(&["job.toml, line 2", "`inputz`"]);
    fs::write(&job_file, "bundle = 'b'\ninputs = ['x']\noutput = 'o'\nmax_error_rate = 2.0\n").unwrap();
    usage(&[job_file.to_str().unwrap()]).assert_error(&["max_error_rate", "0.0 to 1.0"]);
}
