//! Generation options, from the user's setting to their effect: flags, job files, bundles.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bundle::{MAX_NEW_TOKENS, shared_bundle, write_bundle};
use crate::command::{Ended, Job, baton};

/// A bundle whose manifest is changed.
fn bundle_with(change: impl FnOnce(&mut Value)) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    write_bundle(&directory.path().join("bundle"), 1);
    let path = directory.path().join("bundle/bundle.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    std::fs::write(&path, manifest.to_string()).unwrap();
    directory
}

/// A job over one record whose file says this under `[generation]`.
fn job_file(generation: &str) -> (Job, Command) {
    let job = Job::of_records(1);
    let path = job.inputs().parent().unwrap().join("job.toml");
    let [bundle, inputs, output] = [shared_bundle(), &job.inputs(), &job.output()].map(Path::to_owned);
    let text = format!(
        "bundle = {bundle:?}\ninputs = [{inputs:?}]\noutput = {output:?}\n[generation]\n{generation}\n"
    );
    std::fs::write(&path, text).unwrap();
    let mut command = baton();
    command.arg("run").arg(path);
    (job, command)
}

#[test]
fn values_that_no_model_can_obey_are_refused_in_flags_and_in_job_files() {
    for (option, value, range) in [
        ("temperature", "nan", "0.000001 to 1000"),
        ("temperature", "inf", "0.000001 to 1000"),
        ("temperature", "1e-40", "0.000001 to 1000"),
        ("top_p", "nan", "0.000001 to 1"),
        ("copy_bias", "nan", "0 to 10000"),
        ("repetition_penalty", "inf", "0.01 to 100"),
        ("repetition_penalty", "1e-45", "0.01 to 100"),
        ("length_penalty", "-inf", "-8 to 8"),
        ("max_new_tokens_per_prompt_token", "inf", "0.001 to 1000"),
        ("beams", "-1", "1 to 64"),
        ("beams", "100", "1 to 64"),
    ] {
        let says = format!("`generation.{option}` is {value}; allowed: {range}");
        let flag = format!("--{}", option.replace('_', "-"));
        let ended = Job::of_records(1).with_flags(&[&flag, value]).run_expecting(2);
        ended.assert_error(&["job spec", &says]);
        assert!(ended.stderr.ends_with(&format!("{range}\n")), "and nothing else: {}", ended.stderr);

        let (job, mut command) = job_file(&format!("max_new_tokens = 5\n{option} = {value}"));
        let ended = Ended::from(command.output().unwrap());
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        ended.assert_error(&["job.toml, line 6: ", &says]);
        assert!(!job.output().exists(), "nothing was begun");
    }
}

#[test]
fn a_flag_resets_an_option_of_job_file_and_bundle() {
    let directory = bundle_with(|manifest| {
        manifest["generation"] =
            json!({ "hybrid": { "beams": 3, "length_penalty": 0.5, "max_new_tokens": 4 } });
    });
    let bundle = directory.path().join("bundle");

    let generation = |flags: &[&str]| {
        let (job, mut command) = job_file("no_repeat_ngram = 3\nstop_strings = ['q']");
        command.arg("--bundle").arg(&bundle).args(flags);
        let ended = Ended::from(command.output().unwrap());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let line = ended.stderr.lines().find_map(|line| line.strip_prefix("generation: ")).unwrap_or("");
        let record: Value = serde_json::from_slice(&job.contents()["_baton/job.json"]).unwrap();
        (line.to_owned(), record["spec"]["generation"].clone())
    };
    let (line, _) = generation(&[]);
    let all =
        "max_new_tokens = 4, beams = 3, length_penalty = 0.5, no_repeat_ngram = 3, stop_strings = [\"q\"]";
    assert_eq!(line, all);
    let (line, recorded) = generation(&["--beams", "none", "--stop-string", "", "--no-repeat-ngram=none"]);
    assert_eq!(line, "max_new_tokens = 4");
    assert_eq!((&recorded["beams"], &recorded["length_penalty"]), (&json!(1), &json!(1.0)));
    assert_eq!(recorded["stop_strings"], json!([]));
    let (line, recorded) = generation(&["--max-new-tokens", "none"]);
    assert_eq!((line, &recorded["max_new_tokens"]), (all.replace("max_new_tokens = 4, ", ""), &Value::Null));
}

#[test]
fn a_conflict_with_the_bundles_proposal_names_it_and_any_other_does_not() {
    let directory = bundle_with(|manifest| manifest["generation"] = json!({ "hybrid": { "beams": 3 } }));
    let bundle = directory.path().join("bundle");
    let refused = |flags: &[&str]| Job::of_records(1).with_bundle(&bundle).with_flags(flags).run_expecting(2);
    refused(&["--seed", "7"]).assert_error(&["`generation.seed` is 7", "the bundle proposes beams = 3"]);
    for flags in [["--n-best", "65"].as_slice(), &["--beams", "2", "--n-best", "3"]] {
        let ended = refused(flags);
        ended.assert_error(&["`generation.n_best` is "]);
        assert!(!ended.stderr.contains("proposes"), "{}", ended.stderr);
    }
}

#[test]
fn relative_limits_count_the_prompt_without_the_large_models_suffix() {
    let directory = bundle_with(|manifest| manifest["llm"]["writer"]["prompt_end"] = json!("of eleven b<s>"));
    let bundle = directory.path().join("bundle");
    for mode in ["hybrid", "llm", "verified"] {
        let flags = ["--max-new-tokens-per-prompt-token", "0.5", "--min-new-tokens-per-prompt-token", "0.5"];
        let job = Job::of_records(20).with_bundle(&bundle).with_flags(&["--mode", mode]).with_flags(&flags);
        job.run_expecting(0);
        let mut num_below_the_bundles_limit = 0;
        for row in job.outputs() {
            let [prompt, output] =
                ["prompt_tokens", "output_tokens"].map(|count| row[count].as_u64().unwrap());
            let limit = MAX_NEW_TOKENS as u64;
            assert!((prompt / 2..=prompt.div_ceil(2)).contains(&output) || output == limit, "{mode}: {row}");
            num_below_the_bundles_limit += u64::from(output < limit);
        }
        assert!(num_below_the_bundles_limit > 3, "{mode}");
    }
}
