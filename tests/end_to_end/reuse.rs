//! Outputs that are not written again: those of equal segments in a job, and those in a cache. The bytes of a
//! job are the same either way.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::bundle::write_aligned_bundle;
use crate::command::{Ended, Job};

/// Segments by the origin of their outputs.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    segments: u64,
    repeated: u64,
    remembered: u64,
    cached: u64,
}

impl Counts {
    fn of(job: &Job) -> Counts {
        let manifest = fs::read(job.output().join("_SUCCESS")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let count = |name: &str| manifest["timings"]["last_run_reuse"][name].as_u64().unwrap_or_default();
        Counts {
            segments: count("segments"),
            repeated: count("repeated"),
            remembered: count("remembered"),
            cached: count("cached"),
        }
    }

    fn decoded(&self) -> u64 {
        self.segments - self.repeated - self.remembered - self.cached
    }
}

/// JSONL of these texts.
fn lines(texts: impl IntoIterator<Item = String>) -> String {
    let line = |(number, text): (usize, String)| format!("{{\"id\":\"r{number}\",\"text\":\"{text}\"}}\n");
    texts.into_iter().enumerate().map(line).collect()
}

fn text(number: usize) -> String {
    let words = ["archive", "of small tools", "reads mail", "and writes", "logs quickly"];
    format!("{} {} {number}", words[number % 5], words[number / 5 % 5])
}

fn job(texts: impl IntoIterator<Item = String>, cache: Option<&TempDir>) -> Job {
    let job = Job::new().with_input("corpus.jsonl", lines(texts)).with_flags(&["--records-per-shard", "40"]);
    match cache {
        Some(cache) => job.with_flags(&["--cache", cache.path().to_str().unwrap()]),
        None => job,
    }
}

/// Everything but the record of the job, which names its inputs.
fn bytes(job: &Job) -> BTreeMap<String, Vec<u8>> {
    let mut contents = job.contents();
    contents.remove("_baton/job.json").unwrap();
    contents
}

#[test]
fn a_second_night_decodes_only_what_has_changed_and_has_the_same_bytes_as_without_a_cache() {
    let cache = tempfile::tempdir().unwrap();
    let first = job((0..200).map(text), Some(&cache));
    first.run_expecting(0);
    assert_eq!(Counts::of(&first), Counts { segments: 200, repeated: 0, remembered: 0, cached: 0 });

    let again = job((0..200).map(text), Some(&cache));
    let Ended { stderr, .. } = again.run_expecting(0);
    assert_eq!(Counts::of(&again), Counts { segments: 200, repeated: 0, remembered: 0, cached: 200 });
    assert!(stderr.contains("100.0 % of 200 segments reused"), "{stderr}");
    assert!(bytes(&again) == bytes(&first));

    let changed = |number| text(if number % 20 == 7 { number + 1000 } else { number });
    let second_night = job((0..200).map(changed), Some(&cache));
    second_night.run_expecting(0);
    assert_eq!(Counts::of(&second_night).decoded(), 10);
    let without = job((0..200).map(changed), None);
    without.run_expecting(0);
    assert_eq!(Counts::of(&without).decoded(), 200);
    assert!(bytes(&second_night) == bytes(&without));

    // Ten lines before all others: the shards have shifted.
    let shifted = job((2000..2010).chain(0..200).map(changed), Some(&cache));
    shifted.run_expecting(0);
    assert_eq!(Counts::of(&shifted).decoded(), 10);
}

#[test]
fn equal_segments_of_several_shards_are_decoded_once() {
    let texts = || (0..64).map(|number| text(number % 4));
    let flags = ["--records-per-shard", "8", "--shards-in-flight", "1"];
    let repetitive = Job::new().with_input("corpus.jsonl", lines(texts())).with_flags(&flags);
    repetitive.run_expecting(0);
    let expected = Counts { segments: 64, repeated: 32, remembered: 28, cached: 0 };
    assert_eq!(Counts::of(&repetitive), expected, "four are decoded");

    let distinct = Job::new().with_input("corpus.jsonl", lines((0..4).map(text)));
    distinct.run_expecting(0);
    let output = |row: &Value| row["output"].clone();
    let outputs: Vec<Value> = distinct.outputs().iter().map(output).collect();
    let expected: Vec<&Value> = outputs.iter().cycle().take(64).collect();
    assert_eq!(
        repetitive.outputs().iter().map(output).collect::<Vec<_>>().iter().collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn other_options_and_samples_find_nothing() {
    let cache = tempfile::tempdir().unwrap();
    let run = |flags: &[&str]| {
        let job = job((0..40).map(text), Some(&cache)).with_flags(flags);
        job.run_expecting(0);
        Counts::of(&job)
    };
    assert_eq!(run(&["--max-new-tokens", "6"]).cached, 0);
    assert_eq!(run(&["--max-new-tokens", "7"]).cached, 0);
    assert_eq!(run(&["--max-new-tokens", "6", "--unprotected", "emoji"]).cached, 40, "no text has one");
    let before = num_files(cache.path());
    for _ in 0..2 {
        assert_eq!(
            run(&["--temperature", "0.7"]),
            Counts { segments: 40, repeated: 0, remembered: 0, cached: 0 }
        );
    }
    assert_eq!(num_files(cache.path()), before);
}

fn num_files(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { num_files(&path) } else { 1 }).sum()
}

#[test]
fn jobs_at_the_same_time_share_a_cache() {
    let cache = tempfile::tempdir().unwrap();
    let jobs = [(0..120), (40..160), (0..120)].map(|range| job(range.map(text), Some(&cache)));
    let running = jobs.each_ref().map(Job::start);
    for child in running {
        let ended = Ended::from(child.wait_with_output().unwrap());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    assert!(bytes(&jobs[0]) == bytes(&jobs[2]));
    let after = job((0..160).map(text), Some(&cache));
    after.run_expecting(0);
    assert_eq!(Counts::of(&after).cached, 160);
    let without = job((0..160).map(text), None);
    without.run_expecting(0);
    assert!(bytes(&after) == bytes(&without));
}

#[test]
fn a_damaged_cache_changes_no_byte_and_is_mended() {
    let cache = tempfile::tempdir().unwrap();
    let run = || {
        let job = job((0..80).map(text), Some(&cache));
        job.run_expecting(0);
        job
    };
    let first = run();
    damage(cache.path());
    let second = run();
    assert_eq!(Counts::of(&second).cached, 0);
    assert!(bytes(&second) == bytes(&first));
    assert_eq!(Counts::of(&run()).cached, 80);
}

/// Changes a byte of every object.
fn damage(directory: &Path) {
    for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            damage(&path);
        } else {
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x20;
            fs::write(&path, bytes).unwrap();
        }
    }
}

#[test]
fn a_sentence_that_is_read_in_its_record_is_found_only_in_an_equal_record() {
    let (directory, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bundle = directory.path().join("bundle");
    write_aligned_bundle(&bundle, 3, false);
    let run = |texts: &[&str], context: &str, cache: Option<&TempDir>| {
        let texts = texts.iter().map(|&text| text.to_owned());
        let flags = ["--by-sentence", "--reader-context", context, "--max-new-tokens", "6"];
        let job = job(texts, cache).with_bundle(&bundle).with_flags(&flags);
        job.run_expecting(0);
        job
    };
    let (night, next_night) = (
        ["Reads mail. Writes logs.", "Small tools. Reads mail."],
        ["Reads mail. Writes logs.", "Old tools. Reads mail."],
    );
    for (context, num_cached) in [("record", 2), ("segment", 2)] {
        run(&night, context, Some(&cache));
        let cached = run(&next_night, context, Some(&cache));
        assert_eq!(Counts::of(&cached).cached, num_cached, "{context}");
        assert!(bytes(&cached) == bytes(&run(&next_night, context, None)), "{context}");
    }
}
