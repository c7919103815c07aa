//! Lexical shortlists: a job's outputs with them, and jobs that cannot have them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use baton_bundle::{Bundle, MANIFEST_FILE, SLM_SHORTLIST, verify, write_manifest};
use serde_json::Value;

use crate::bundle::write_aligned_bundle;
use crate::command::{Ended, Job, baton};

const NUM_RECORDS: usize = 20;
const NUM_FREQUENT: u64 = 4;
const MAGIC: u64 = 0xF11A_48D5_0134_17F5;

/// Adds a shortlist in which each token has the two after it, in a circle.
fn add_shortlist(bundle: &Path) {
    let vocab_size = Bundle::open(bundle).unwrap().small_model().unwrap().1.vocab_size as u32;
    let lists = (0..vocab_size).flat_map(|token| [(token + 1) % vocab_size, (token + 2) % vocab_size]);
    let offsets = (0..=u64::from(vocab_size)).map(|token| 2 * token);
    let header = [MAGIC, 0, NUM_FREQUENT, 2, u64::from(vocab_size) + 1, 2 * u64::from(vocab_size)];
    let words = header.into_iter().chain(offsets).flat_map(u64::to_le_bytes);
    let bytes: Vec<u8> = words.chain(lists.flat_map(u32::to_le_bytes)).collect();
    fs::write(bundle.join(SLM_SHORTLIST), bytes).unwrap();
    seal(bundle);
    verify(bundle).unwrap();
}

/// Writes the manifest anew, for the files as they are.
fn seal(bundle: &Path) {
    let manifest = serde_json::from_slice(&fs::read(bundle.join(MANIFEST_FILE)).unwrap()).unwrap();
    write_manifest(bundle, manifest).unwrap();
}

fn outputs(bundle: &Path, flags: &[&str]) -> Vec<Value> {
    let job = Job::of_records(NUM_RECORDS).with_bundle(bundle).with_flags(flags);
    job.run_expecting(0);
    job.outputs()
}

#[test]
fn outputs_with_a_shortlist_depend_on_no_batch_and_are_others_than_without() {
    let directory = tempfile::tempdir().unwrap();
    write_aligned_bundle(directory.path(), 3, false);
    add_shortlist(directory.path());
    for mode in ["slm", "hybrid"] {
        for method in [&[][..], &["--beams", "3"], &["--temperature", "1", "--n-best", "2"]] {
            let flags = [&["--mode", mode, "--max-new-tokens", "12"], method].concat();
            let all = outputs(directory.path(), &flags);
            let flags = [&flags[..], &["--shortlist", "true"]].concat();
            let listed = outputs(directory.path(), &flags);
            assert_ne!(listed, all, "{flags:?}");
            let slots = ["--encode-batch-tokens", "1", "--decode-slots", "3"];
            assert_eq!(outputs(directory.path(), &[&flags[..], &slots].concat()), listed, "{flags:?}");
        }
    }
}

#[test]
fn a_shortlist_narrows_the_tokens_of_each_output_to_those_of_its_prompt() {
    let directory = tempfile::tempdir().unwrap();
    write_aligned_bundle(directory.path(), 3, false);
    add_shortlist(directory.path());
    let distinct = |flags: &[&str]| -> BTreeSet<char> {
        let rows = outputs(directory.path(), &[&["--mode", "slm"], flags].concat());
        rows.iter().flat_map(|row| row["output"].as_str().unwrap().chars()).collect()
    };
    let (all, listed) = (distinct(&[]), distinct(&["--shortlist", "true"]));
    assert!(listed.len() < all.len(), "{listed:?}, {all:?}");
    let glossary = ["--shortlist", "true", "--term", "record=Ωmega"];
    let _ = distinct(&glossary); // a term is spelled with tokens that no list has
}

#[test]
fn a_job_or_a_bundle_that_asks_for_a_shortlist_that_is_not_there_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    write_aligned_bundle(directory.path(), 3, false);
    let job = Job::of_records(1).with_bundle(directory.path());
    let refused = job.with_flags(&["--mode", "slm", "--shortlist", "true"]).run();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    refused.assert_error(&["has no `slm/lex.bin`", "shortlist"]);

    add_shortlist(directory.path());
    let path = directory.path().join(SLM_SHORTLIST);
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut verify = baton();
    let verified = Ended::from(verify.args(["bundle", "verify"]).arg(directory.path()).output().unwrap());
    verified.assert_error(&["slm/lex.bin", "has sha256"]);
    seal(directory.path());
    let broken = Job::of_records(1).with_bundle(directory.path());
    broken.with_flags(&["--mode", "slm", "--shortlist", "true"]).run().assert_error(&["lexical shortlist"]);
    fs::remove_file(&path).unwrap();
    Job::of_records(1).with_bundle(directory.path()).run().assert_error(&["slm/lex.bin", "is missing"]);
}
