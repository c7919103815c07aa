//! Small models with tokens of their own: imported and run alone, and beside an LLM with a new projector.

use std::fs;
use std::path::Path;

use baton_bundle::{
    Bundle, BundleError, MANIFEST_FILE, SLM_CHANGES, StoredWeights, WeightDtype, write_manifest,
    write_safetensors,
};
use baton_job::Mode;

use crate::bundle::{write_aligned_bundle, write_marian};
use crate::command::{Ended, Job, baton, imported_small_model};

const NUM_RECORDS: usize = 20;

#[test]
fn an_imported_small_model_runs_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = imported_small_model(directory.path());

    let job = Job::of_records(NUM_RECORDS).with_bundle(&bundle);
    job.run_expecting(0);
    let outputs = job.outputs();
    let distinct: std::collections::BTreeSet<&str> =
        outputs.iter().map(|row| row["output"].as_str().unwrap()).collect();
    assert!(distinct.len() > NUM_RECORDS / 2, "the model tells prompts apart: {distinct:?}");

    let by_one = Job::of_records(NUM_RECORDS).with_bundle(&bundle).with_flags(&[
        "--encode-batch-tokens",
        "1",
        "--decode-slots",
        "1",
    ]);
    by_one.run_expecting(0);
    assert_eq!(by_one.outputs(), outputs);

    let refused = Job::of_records(1).with_bundle(&bundle).with_flags(&["--mode", "hybrid"]).run();
    refused.assert_error(&["hybrid", "slm"]);
}

/// A model of several languages, from the files of its directory to output rows.
#[test]
fn a_marian_directory_becomes_a_bundle_that_writes_the_language_that_a_job_asks_for() {
    let directory = tempfile::tempdir().unwrap();
    let (source, bundle) = (directory.path().join("opus-mt-en-ROMANCE"), directory.path().join("bundle"));
    write_marian(&source, 3);
    let import = |target: &str| {
        let mut import = baton();
        import.args(["bundle", "import-slm", "--source-language", "en", "--target-language", target]);
        Ended::from(import.arg("--from").arg(&source).arg("--out").arg(&bundle).output().unwrap())
    };
    import("fr").assert_error(&["no language `fr`", "fra, por", "--target-language"]);
    let imported = import("fra");
    assert_eq!(imported.code, Some(0), "{}", imported.stderr);
    let shown = baton().args(["bundle", "show"]).arg(&bundle).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("languages  fra, por"), "{shown}");
    let proposed = Bundle::open(&bundle).unwrap().manifest().generation[&Mode::Slm].to_string();
    assert!(proposed.contains("by_sentence = true"), "it learned from sentences: {proposed}");

    let run = |flags: &[&str]| {
        let flags = [&["--max-new-tokens", "12"], flags].concat();
        let job = Job::of_records(NUM_RECORDS).with_bundle(&bundle).with_flags(&flags);
        job.run_expecting(0);
        job.outputs()
    };
    let texts = |rows: &[serde_json::Value]| -> Vec<String> {
        rows.iter().map(|row| row["output"].as_str().unwrap().to_owned()).collect()
    };
    let outputs = run(&[]);
    let distinct: std::collections::BTreeSet<String> = texts(&outputs).into_iter().collect();
    assert!(distinct.len() > NUM_RECORDS / 2, "the model tells prompts apart: {distinct:?}");
    assert_eq!(run(&["--encode-batch-tokens", "1", "--decode-slots", "1"]), outputs);
    assert_eq!(texts(&run(&["--target-language", "fra"])), texts(&outputs));
    assert_ne!(texts(&run(&["--target-language", "por"])), texts(&outputs));

    for (flags, pieces) in [
        (["--target-language", "xx"], ["no language `xx`", "fra, por"]),
        (["--source-language", "fra"], ["not told the source language", "`fra`"]),
    ] {
        let refused = Job::of_records(1).with_bundle(&bundle).with_flags(&flags).run();
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        refused.assert_error(&pieces);
    }
}

#[test]
fn a_hybrid_with_a_new_projector_writes_the_bytes_of_its_small_model() {
    let directory = tempfile::tempdir().unwrap();
    let new = directory.path().join("new");
    write_aligned_bundle(&new, 3, true);
    let outputs = |bundle: &std::path::Path, mode: &str| {
        let job = Job::of_records(NUM_RECORDS).with_bundle(bundle).with_flags(&["--mode", mode]);
        job.run_expecting(0);
        job.outputs()
    };
    let written = |rows: &[serde_json::Value]| -> Vec<[serde_json::Value; 3]> {
        rows.iter().map(|row| ["id", "output", "score"].map(|field| row[field].clone())).collect()
    };
    let (alone, hybrid) = (outputs(&new, "slm"), outputs(&new, "hybrid"));
    assert_eq!(written(&alone), written(&hybrid));

    let trained = directory.path().join("trained");
    write_aligned_bundle(&trained, 3, false);
    assert_ne!(written(&outputs(&trained, "hybrid")), written(&hybrid), "what the LLM reads counts");
    assert_eq!(written(&outputs(&trained, "slm")), written(&alone));
    assert!(fs::exists(trained.join("projector/model.safetensors")).unwrap());
}

#[test]
fn weights_in_two_files_write_the_same_as_their_sum() {
    let directory = tempfile::tempdir().unwrap();
    let [base, trained, copy] = ["base", "trained", "copy"].map(|name| directory.path().join(name));
    write_aligned_bundle(&base, 3, false);
    write_aligned_bundle(&trained, 13, false);
    let mut compact = baton();
    compact.args(["bundle", "compact"]).arg(&trained).arg("--base").arg(&base).arg("--out").arg(&copy);
    let compacted = Ended::from(compact.output().unwrap());
    assert_eq!(compacted.code, Some(0), "{}", compacted.stderr);
    assert!(copy.join(SLM_CHANGES).exists());
    let mut verify = baton();
    let verified = Ended::from(verify.args(["bundle", "verify"]).arg(&copy).output().unwrap());
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);

    // The same numbers in one file, in place of the trained ones.
    let weights = "slm/model.safetensors";
    let bundle = Bundle::open(&copy).unwrap();
    let (_, config) = bundle.small_model().unwrap();
    let sums = StoredWeights::open(&copy.join(weights)).unwrap();
    let sum = |name: &str| Ok::<_, BundleError>(sums.read(name)?.to_f32());
    write_safetensors(&trained.join(weights), &config.tensor_shapes(), WeightDtype::F32, sum).unwrap();
    let manifest = serde_json::from_slice(&fs::read(trained.join(MANIFEST_FILE)).unwrap()).unwrap();
    write_manifest(&trained, manifest).unwrap();

    let outputs = |bundle: &Path, mode: &str| {
        let job = Job::of_records(NUM_RECORDS).with_bundle(bundle).with_flags(&["--mode", mode]);
        job.run_expecting(0);
        job.outputs()
    };
    for mode in ["slm", "hybrid"] {
        let written = outputs(&copy, mode);
        assert_eq!(written, outputs(&trained, mode), "{mode}");
        assert_ne!(written, outputs(&base, mode), "{mode}");
    }

    fs::remove_file(copy.join(SLM_CHANGES)).unwrap();
    let without = Job::of_records(1).with_bundle(&copy).run();
    without.assert_error(&[SLM_CHANGES, "is missing"]);
}

#[test]
fn a_job_that_cannot_read_whole_records_is_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    write_aligned_bundle(directory.path(), 3, false);
    let alone = Job::of_records(1).with_bundle(directory.path());
    let refused = alone.with_flags(&["--mode", "slm", "--reader-context", "record"]).run();
    refused.assert_error(&["cannot read whole records in mode slm", "reader_context"]);
    let by_tokens = Job::of_records(1).with_flags(&["--reader-context", "record"]).run();
    by_tokens.assert_error(&["cannot read whole records in mode hybrid", "alignment"]);
}
