//! Flags to jobs: what overrules what, and what is refused.

use baton_job::{Format, GenerationLayer, GenerationOptions, JobFile, JobSpec, Mode, Partition};
use clap::Parser;

use super::resolve::generation;
use super::{ClusterArgs, DispatchArgs, JobArgs};
use crate::CoordinatorError;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    dispatch: DispatchArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

fn parse(args: &[&str]) -> Result<Command, clap::Error> {
    Command::try_parse_from(["run"].iter().chain(args))
}

/// The job of these flags with a bundle that proposes nothing.
fn spec(args: &[&str]) -> Result<JobSpec, CoordinatorError> {
    let job = parse(args).unwrap().job;
    let file = job.described()?;
    let in_flags = job.generation.layer().unwrap();
    let generation = generation(&GenerationLayer::default(), &[&file.generation, &in_flags])?;
    Ok(file.resolved(generation))
}

fn layer(toml: &str) -> GenerationLayer {
    JobFile::from_toml(&format!("[generation]\n{toml}"), "job.toml").unwrap().generation
}

#[test]
fn flags_alone_make_a_job() {
    let args = ["--bundle", "b", "--input", "x.csv", "--input", "y.csv", "--output", "o", "--keep-fields"];
    let spec = spec(&args).unwrap();
    assert_eq!(spec.inputs, ["x.csv", "y.csv"]);
    assert!(spec.keep_fields);
    assert_eq!(spec.generation, JobSpec::default().generation);
}

#[test]
fn flags_have_the_names_of_job_files_too() {
    let args = ["--bundle", "b", "--inputs", "x", "--output", "o", "--bytes-per-shard", "9"];
    let spec = spec(&args).unwrap();
    assert_eq!((spec.inputs, spec.shard.bytes_per_shard), (vec!["x".to_owned()], 9));
}

#[test]
fn flags_overrule_the_job_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "bundle = 'b'\ninputs = ['x']\noutput = 'o'\nkeep_fields = \
        true\n[generation]\nmax_new_tokens = 9\n";
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap();
    let args = [path, "--output", "p", "--keep-fields=false", "--mode", "slm", "--format", "tsv"];
    let spec = spec(&args).unwrap();
    assert_eq!((spec.bundle.as_str(), spec.output.as_str()), ("b", "p"));
    assert_eq!(
        (spec.keep_fields, spec.mode, spec.format),
        (false, Mode::Slm, Some(Format::named("tsv").unwrap()))
    );
    assert_eq!(spec.generation.max_new_tokens, Some(9));
}

#[test]
fn a_bundles_proposal_completes_the_jobs_options() {
    let proposed = layer("beams = 4\ncopy_bias = 6.0");
    let merged = |file: &str, flags: &str| generation(&proposed, &[&layer(file), &layer(flags)]).unwrap();
    assert_eq!((merged("", "").beams, merged("", "").copy_bias), (4, 6.0));
    assert_eq!(merged("length_penalty = 0.5", "beams = 8").length_penalty, 0.5);
    assert_eq!((merged("copy_bias = 0.0", "").beams, merged("copy_bias = 0.0", "").copy_bias), (4, 0.0));
    assert_eq!(merged("", "beams = 1\ncopy_bias = 0.0"), GenerationOptions::default());
}

#[test]
fn an_option_that_contradicts_the_bundles_proposal_is_refused_with_a_remedy() {
    let proposed = layer("beams = 4\nmax_new_tokens = 9");
    let message = |own: &str| {
        let error = generation(&proposed, &[&layer(""), &layer(own)]).unwrap_err();
        assert!(error.is_usage_error());
        error.to_string()
    };
    for own in ["seed = 7", "min_new_tokens = 10", "n_best = 5"] {
        let message = message(own);
        let (option, value) = own.split_once(" = ").unwrap();
        assert!(message.starts_with(&format!("`generation.{option}` is {value}; ")), "{message}");
        assert!(message.contains("the bundle proposes max_new_tokens = 9, beams = 4"), "{message}");
    }
    for own in ["beams = 2\nn_best = 3", "temperature = 0.5\nlength_penalty = 2", "beams = 1\nseed = 7"] {
        assert!(
            !message(own).contains("bundle"),
            "the bundle's proposal has no part in it: {}",
            message(own)
        );
    }
}

#[test]
fn missing_values_are_named_as_flags() {
    let error = spec(&["--input", "x"]).unwrap_err();
    assert!(error.is_usage_error());
    assert!(error.to_string().starts_with("--bundle DIR, --output DIR missing"), "{error}");
}

#[test]
fn a_text_limit_beyond_a_message_is_refused_with_the_reason() {
    let args = ["--bundle", "b", "--input", "x", "--output", "o", "--max-text-bytes", "16000000"];
    let error = spec(&args).unwrap_err();
    assert!(error.is_usage_error() && error.to_string().contains("one message of 4 MiB"), "{error}");
}

#[test]
fn a_cluster_needs_both_encoders_and_decoders() {
    assert!(parse(&[]).unwrap().cluster.encoders.is_none());
    assert!(parse(&["--encoders", "http://a:1"]).is_err());
    assert!(parse(&["--encoders", "http://a:1", "--decoders", "dns://d:2"]).is_ok());
    assert!(parse(&["--encoders", "a", "--decoders", "dns://d:2"]).is_err());
}

#[test]
fn a_partition_is_parsed_and_the_default_is_the_whole_job() {
    assert!(parse(&[]).unwrap().dispatch.partition.is_whole());
    assert_eq!(parse(&["--partition", "1/3"]).unwrap().dispatch.partition, Partition::new(1, 3).unwrap());
    assert!(parse(&["--partition", "3/3"]).is_err());
}

#[test]
fn a_cascade_and_a_mode_exclude_each_other_and_flags_win() {
    let both = ["--mode", "slm", "--cascade", "slm,hybrid", "--escalate", "20%"];
    assert!(parse(&both).is_err());
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let write = |lines: &str| {
        let text = format!("bundle = 'b'\ninputs = ['x']\noutput = 'o'\n{lines}");
        std::fs::write(file.path(), text).unwrap();
    };
    write("cascade = 'slm,hybrid'\nescalate = '20%'\n");
    let in_file = spec(&[path]).unwrap();
    assert_eq!(in_file.cascade.unwrap().to_string(), "slm,hybrid");
    let by_flag = spec(&[path, "--escalate", "-0.9"]).unwrap();
    assert_eq!(by_flag.escalate.to_string(), "-0.9");
    let plain = spec(&[path, "--mode", "slm"]).unwrap();
    assert!(plain.cascade.is_none() && plain.escalate.is_empty() && plain.mode == Mode::Slm);

    write("mode = 'slm'\ncascade = 'slm,hybrid'\nescalate = '20%'\n");
    let error = spec(&[path]).unwrap_err().to_string();
    assert!(error.contains("`mode` is \"slm\"; allowed: only without `cascade`"), "{error}");
    write("mode = 'slm'\n");
    let by_flags = spec(&[path, "--cascade", "hybrid,hybrid:beams=4", "--escalate", "0.5"]).unwrap();
    assert_eq!(by_flags.cascade.unwrap().to_string(), "hybrid,hybrid:beams=4");
    let error = spec(&[path, "--cascade", "slm,hybrid"]).unwrap_err().to_string();
    assert!(error.contains("with `escalate`"), "{error}");
}
