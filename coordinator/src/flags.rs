//! The flags of a job and of running it, the same for `baton run` and `baton-coordinator`.
//!
//! A job comes from a file and flags: flags win, and both fill the same [`JobSpec`]. Every flag is also an
//! environment variable.

use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_bundle::{BundleManifest, DEFAULT_TEMPLATE, LanguageChoice, TextTokenizer};
use baton_generation::Setting;
use baton_job::{
    Format, GenerationLayer, GenerationOptions, JobError, JobFile, JobSpec, Mode, PartFormat, Partition,
    SchedulePolicy, Separator,
};
use baton_store::Location;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::value_parser;

use crate::generation_flags::GenerationArgs;
use crate::glossary;
use crate::{CoordinatorError, EndpointList, RunOptions};

/// The job: a file, flags, or a file with flags that overrule it.
#[derive(Debug, Clone, clap::Args)]
pub struct JobArgs {
    /// Job file in TOML, with the fields `bundle`, `inputs`, `output`, `text_field`, `[generation]`,
    /// `[shard]` and the others below. Paths in it are relative to the current directory.
    #[arg(value_name = "JOB.toml", env = "BATON_JOB_FILE")]
    job_file: Option<PathBuf>,

    /// Directory of the bundle. Example: models/en-it
    #[arg(long, value_name = "DIR", env = "BATON_BUNDLE", help_heading = "Job")]
    bundle: Option<String>,
    /// Input file, directory, prefix or glob; may be given more than once. .jsonl, .ndjson, .csv, .tsv or
    /// .txt, plain, .gz or .zst; - is standard input, with --format. Examples: --input 'corpus/*.jsonl.gz';
    /// --input s3://bucket/corpus/
    #[arg(
        long = "input",
        alias = "inputs",
        value_name = "PATTERN",
        env = "BATON_INPUT",
        help_heading = "Job"
    )]
    inputs: Vec<String>,
    /// Directory or prefix for the parts and error rows; created if absent. Examples: out; s3://bucket/out
    #[arg(long, value_name = "DIR", env = "BATON_OUTPUT", help_heading = "Job")]
    output: Option<String>,
    /// Skips the unchanged inputs of finished jobs whose outputs lie directly below DIR. A nightly job then
    /// takes only inputs that are new since the last successful night. Example: s3://corpora/nightly
    #[arg(long, value_name = "DIR", env = "BATON_SKIP_DONE", help_heading = "Job")]
    skip_done: Option<String>,
    /// Models that read and write. hybrid: the large model reads, the small one writes; slm: the small one
    /// alone; llm: the large one alone; verified: the large one, for which the small one drafts. Default: the
    /// bundle's first.
    #[arg(
        long,
        value_name = "MODE",
        env = "BATON_MODE",
        help_heading = "Job",
        value_parser = PossibleValuesParser::new(Mode::ALL.map(Mode::as_str))
            .map(|name| name.parse::<Mode>().expect("a possible value is a mode")),
    )]
    mode: Option<Mode>,
    /// Name of the bundle's prompt template. Default: default.
    #[arg(long, value_name = "TEMPLATE", env = "BATON_TASK", help_heading = "Job")]
    task: Option<String>,
    /// Share of failed records above which the job fails, 0 to 1; each partition counts its own. Default: 1,
    /// never. Example: 0.01
    #[arg(long, value_name = "SHARE", env = "BATON_MAX_ERROR_RATE", help_heading = "Job")]
    max_error_rate: Option<f64>,

    /// Field or column with the text; a.b for a nested field. Default: text.
    #[arg(long, value_name = "NAME", env = "BATON_TEXT_FIELD", help_heading = "Records")]
    text_field: Option<String>,
    /// Field or column with the record's id. Default: id, else custom_id, else file and line.
    #[arg(long, value_name = "NAME", env = "BATON_ID_FIELD", help_heading = "Records")]
    id_field: Option<String>,
    /// Format of all inputs. Default: by each file's name.
    #[arg(
        long,
        value_name = "FORMAT",
        env = "BATON_FORMAT",
        help_heading = "Records",
        value_parser = PossibleValuesParser::new(Format::names(Format::reads))
            .map(|name| Format::named(&name).expect("a possible value is a format")),
    )]
    format: Option<Format>,
    /// The byte between the cells of tables: one character, or tab. Default: the separator in a first line
    /// `sep=;`, else a comma in .csv, a tab in .tsv. Example: --separator ';'
    #[arg(long, value_name = "CHARACTER", env = "BATON_SEPARATOR", help_heading = "Records")]
    separator: Option<Separator>,
    /// Copies all fields of a record, including its text, into its output row: under the key `fields`, or, in
    /// Parquet parts of inputs with columns, as columns. Default: false. Example: --keep-fields
    #[arg(
        long,
        value_name = "BOOL",
        env = "BATON_KEEP_FIELDS",
        num_args = 0..=1,
        default_missing_value = "true",
        help_heading = "Records",
    )]
    keep_fields: Option<bool>,
    /// Writes each record's input file and line (or row) into its output row, as `input` and `line`. Default:
    /// false. Example: --origin
    #[arg(
        long,
        value_name = "BOOL",
        env = "BATON_ORIGIN",
        num_args = 0..=1,
        default_missing_value = "true",
        help_heading = "Records",
    )]
    origin: Option<bool>,
    /// Format of parts: jsonl, jsonl.gz, jsonl.zst or parquet. Default: jsonl.
    #[arg(long, value_name = "FORMAT", env = "BATON_OUTPUT_FORMAT", help_heading = "Records")]
    output_format: Option<PartFormat>,
    /// Longest text, bytes; a longer text becomes an error row. Default: 262144.
    #[arg(long, value_name = "BYTES", env = "BATON_MAX_TEXT_BYTES", help_heading = "Records")]
    max_text_bytes: Option<u64>,
    /// Maximum of records in a part. Default: 256.
    #[arg(long, value_name = "RECORDS", env = "BATON_RECORDS_PER_SHARD", help_heading = "Records")]
    records_per_shard: Option<u32>,
    /// Maximum of input bytes in a part, uncompressed; a larger row is alone in its part. Default: 1048576.
    #[arg(long, value_name = "BYTES", env = "BATON_BYTES_PER_SHARD", help_heading = "Records")]
    bytes_per_shard: Option<u64>,

    /// A file of terms and their translations: .csv or .tsv (source, target, and `exact` for words that must
    /// match in capitals and endings), or .tbx. A term without a target is not translated. Example:
    /// --glossary terms.csv
    #[arg(long, value_name = "FILE", env = "BATON_GLOSSARY", help_heading = "Generation")]
    glossary: Option<PathBuf>,
    #[command(flatten)]
    generation: GenerationArgs,
}

/// The distribution of shards to workers. These options change no output byte.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Dispatch")]
pub struct DispatchArgs {
    /// This process's share of the job, which N processes run together: I/N, with I from 0. All name the same
    /// inputs and output; the last one to end completes the job. In a Kubernetes Indexed Job:
    /// $(JOB_COMPLETION_INDEX)/N. Example: 0/4
    #[arg(long, value_name = "I/N", env = "BATON_PARTITION", default_value_t = Partition::WHOLE)]
    pub partition: Partition,
    /// Shards that one decoder works on at once. Each is held in memory. Encoders share them; if there are
    /// more encoders than decoders, this is the number per encoder.
    #[arg(
        long,
        value_name = "SHARDS",
        env = "BATON_SHARDS_IN_FLIGHT",
        default_value_t = 4,
        value_parser = value_parser!(u32).range(1..=1024),
    )]
    pub shards_in_flight: u32,
    /// If a shard reports nothing for this long, other workers get it, seconds. Must exceed the longest pause
    /// of a worker.
    #[arg(
        long,
        value_name = "SECONDS",
        env = "BATON_LEASE_TTL_S",
        default_value_t = 60,
        value_parser = value_parser!(u64).range(1..=86_400),
    )]
    pub lease_ttl_s: u64,
    /// Attempts at a shard that may break before Baton searches the shard, record by record, for the record
    /// that breaks them.
    #[arg(
        long,
        value_name = "ATTEMPTS",
        env = "BATON_MAX_ATTEMPTS",
        default_value_t = 4,
        value_parser = value_parser!(u32).range(1..=100),
    )]
    pub max_attempts: u32,
    /// Time for shards in flight to finish after an interrupt, seconds.
    #[arg(long, value_name = "SECONDS", env = "BATON_GRACE_PERIOD_S", default_value_t = 30)]
    pub grace_period_s: u64,
    /// Once this partition is done, finishes shards of partitions that have committed nothing for this time,
    /// seconds: their machines may be lost. Ends with the whole job. Default: ends with its own partition.
    /// Example: --take-over-after-s 60
    #[arg(
        long,
        value_name = "SECONDS",
        env = "BATON_TAKE_OVER_AFTER_S",
        value_parser = value_parser!(u64).range(1..=86_400)
    )]
    pub take_over_after_s: Option<u64>,
    /// Ends with exit code 0 although some records failed: for schedulers that know nothing between success
    /// and failure. --max-error-rate bounds the number of failed records.
    #[arg(long, env = "BATON_ACCEPT_FAILED_RECORDS")]
    pub accept_failed_records: bool,
}

/// The addresses of a cluster's workers.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// Encoders, separated by commas: http://HOST:PORT, https://HOST:PORT, unix:/path/to/socket, or
    /// dns://NAME:PORT for all addresses of a name, resolved every few seconds. Example:
    /// dns://baton-encoder:7001
    #[arg(long, value_name = "LIST", env = "BATON_ENCODERS", requires = "decoders")]
    pub encoders: Option<EndpointList>,
    /// Decoders, in the same form, under addresses that encoders can reach. Example: dns://baton-decoder:7002
    #[arg(long, value_name = "LIST", env = "BATON_DECODERS", requires = "encoders")]
    pub decoders: Option<EndpointList>,
}

impl DispatchArgs {
    /// The options in these flags.
    #[must_use]
    pub fn options(&self) -> RunOptions {
        let policy = SchedulePolicy {
            lease_ttl: Duration::from_secs(self.lease_ttl_s),
            max_attempts: self.max_attempts,
            shards_per_worker: self.shards_in_flight,
            // Coordinators of one job then do not retry in step.
            jitter_seed: u64::from(std::process::id()),
            ..SchedulePolicy::default()
        };
        RunOptions {
            policy,
            grace_period: Duration::from_secs(self.grace_period_s),
            take_over_after: self.take_over_after_s.map(Duration::from_secs),
            ..RunOptions::default()
        }
    }
}

impl JobArgs {
    /// The job from file and flags, completed by the bundle's proposed generation options, and the bundle's
    /// digest. Of the bundle, only the manifest is read. Values that its models would refuse shard by shard
    /// are refused here, before any work.
    ///
    /// # Errors
    /// The job file cannot be read or parsed, something is missing, or a value is not allowed. Or the
    /// manifest cannot be read, or the bundle lacks a mode or template that the job names.
    pub fn to_spec(&self) -> Result<(JobSpec, String), CoordinatorError> {
        let mut file = self.described()?;
        file.bundle = Location::parse_local(&file.bundle)?.to_string_lossy().into_owned();
        Location::parse(&file.output)?;
        let (manifest, digest) = baton_bundle::read_manifest(Path::new(&file.bundle))?;
        if !self.says_mode() {
            file.mode = manifest.modes[0]; // as its services have it; a manifest has one
        }
        let proposed = manifest.generation.get(&file.mode).cloned().unwrap_or_default();
        let mut in_flags = self.generation.layer().map_err(JobError::from)?;
        if let Some(path) = &self.glossary {
            let task = &manifest.task;
            let mut terms = match in_flags.terms {
                Setting::To(terms) => terms,
                Setting::Unset | Setting::Cleared => Vec::new(),
            };
            terms.extend(glossary::entries(path, task.source_language(), task.target_language())?);
            in_flags.terms = Setting::To(terms);
        }
        let generation = generation(&proposed, [&file.generation, &in_flags])?;
        let spec = file.resolved(generation);
        match misfit(&manifest, &spec).or_else(|| unknown_stop_token(&manifest, &spec)) {
            Some(problem) => Err(CoordinatorError::BundleMisfit { bundle: spec.bundle, problem }),
            None => Ok((spec, digest)),
        }
    }

    /// Whether flags or job file name a mode.
    fn says_mode(&self) -> bool {
        let says = |path| std::fs::read_to_string(path).is_ok_and(|text| JobFile::says_mode(&text));
        self.mode.is_some() || self.job_file.as_ref().is_some_and(says)
    }

    /// The job file, overruled by all flags except the generation options, and validated.
    fn described(&self) -> Result<JobFile, CoordinatorError> {
        let mut spec = match &self.job_file {
            None => JobFile::default(),
            Some(path) => {
                let failed = |source| CoordinatorError::JobFile { path: path.clone(), source };
                let text = std::fs::read_to_string(path).map_err(failed)?;
                JobFile::from_toml(&text, &path.display().to_string())?
            }
        };
        self.overrule(&mut spec);
        if self.job_file.is_none() {
            let needed = [
                ("--bundle DIR", spec.bundle.is_empty()),
                ("--input PATTERN", spec.inputs.is_empty()),
                ("--output DIR", spec.output.is_empty()),
            ];
            let missing: Vec<&str> =
                needed.iter().filter(|(_, is_missing)| *is_missing).map(|(flag, _)| *flag).collect();
            if !missing.is_empty() {
                return Err(CoordinatorError::MissingFlags { flags: missing.join(", ") });
            }
        }
        spec.validate_fields()?;
        Ok(spec)
    }

    fn overrule(&self, spec: &mut JobFile) {
        fn set<T: Clone>(field: &mut T, flag: &Option<T>) {
            if let Some(value) = flag {
                field.clone_from(value);
            }
        }
        if !self.inputs.is_empty() {
            spec.inputs.clone_from(&self.inputs);
        }
        set(&mut spec.bundle, &self.bundle);
        set(&mut spec.output, &self.output);
        set(&mut spec.mode, &self.mode);
        set(&mut spec.max_error_rate, &self.max_error_rate);
        set(&mut spec.text_field, &self.text_field);
        set(&mut spec.keep_fields, &self.keep_fields);
        set(&mut spec.origin, &self.origin);
        set(&mut spec.output_format, &self.output_format);
        set(&mut spec.max_text_bytes, &self.max_text_bytes);
        set(&mut spec.shard.records_per_shard, &self.records_per_shard);
        set(&mut spec.shard.bytes_per_shard, &self.bytes_per_shard);
        set(&mut spec.skip_done, &self.skip_done.clone().map(Some));
        set(&mut spec.task, &self.task.clone().map(Some));
        set(&mut spec.id_field, &self.id_field.clone().map(Some));
        set(&mut spec.format, &self.format.map(Some));
        set(&mut spec.separator, &self.separator.map(Some));
    }
}

/// The bundle's proposal, overruled by the job's own layers: file and flags, in this order.
fn generation(
    proposed: &GenerationLayer,
    own: [&GenerationLayer; 2],
) -> Result<GenerationOptions, CoordinatorError> {
    GenerationOptions::from_layers([proposed, own[0], own[1]]).map_err(|problem| {
        // The proposal contributes to the problem if the problem vanishes or changes without it.
        match GenerationOptions::from_layers(own) {
            Err(without) if without == problem => JobError::from(problem).into(),
            _ => CoordinatorError::ProposedGeneration { proposed: proposed.to_string(), problem },
        }
    })
}

fn misfit(manifest: &BundleManifest, spec: &JobSpec) -> Option<String> {
    let mode = spec.mode;
    if !manifest.modes.contains(&mode) {
        let served: Vec<&str> = manifest.modes.iter().map(|mode| mode.as_str()).collect();
        return Some(format!("does not serve mode {mode}; try --mode {}", served.join(" or --mode ")));
    }
    if let Some(task) = &spec.task
        && !manifest.template_names().any(|name| name == task)
    {
        let names: Vec<&str> = manifest.template_names().map(String::as_str).collect();
        return Some(format!("has no prompt template `{task}`; it has: {}", names.join(", ")));
    }
    if let Some(problem) = language_problem(manifest, spec) {
        return Some(problem);
    }
    if let Some(problem) = manifest.problem_of_context(mode, &spec.generation) {
        return Some(problem);
    }
    let limit = manifest.max_new_tokens(mode);
    let too_long = spec.generation.check_limit(u32::try_from(limit).unwrap_or(u32::MAX)).err()?;
    Some(format!("writes at most {limit} tokens, but min_new_tokens is {}", too_long.value))
}

/// The problem with the languages that the job names.
fn language_problem(manifest: &BundleManifest, spec: &JobSpec) -> Option<String> {
    let languages = LanguageChoice::of(&spec.generation);
    if languages == LanguageChoice::default() {
        return None;
    }
    let template = spec.task.as_deref().unwrap_or(DEFAULT_TEMPLATE);
    let slm = manifest.slm.as_ref().filter(|_| spec.mode.uses_slm());
    match slm.and_then(|slm| Some((slm, slm.templates.get(template)?))) {
        Some((slm, template)) => {
            let problem = slm.language_problem(template, &languages)?;
            Some(format!("cannot serve the job's languages: {problem}"))
        }
        None => Some(format!("has no languages to choose from in mode {}", spec.mode)),
    }
}

/// A stop token that the writer's tokenizer lacks. If the bundle's tokenizer is not at hand, a decoder
/// reports it.
fn unknown_stop_token(manifest: &BundleManifest, spec: &JobSpec) -> Option<String> {
    if spec.generation.stop_tokens.is_empty() {
        return None;
    }
    let file = manifest.output_tokenizer(spec.mode);
    let tokenizer = TextTokenizer::open(&Path::new(&spec.bundle).join(file)).ok()?;
    let unknown = spec.generation.stop_tokens.iter().find(|token| tokenizer.token_id(token).is_none())?;
    Some(format!(
        "has no token {unknown:?} in its output tokenizer; name one of {file}, or use --stop-string"
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

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
        let generation = generation(&GenerationLayer::default(), [&file.generation, &in_flags])?;
        Ok(file.resolved(generation))
    }

    fn layer(toml: &str) -> GenerationLayer {
        JobFile::from_toml(&format!("[generation]\n{toml}"), "job.toml").unwrap().generation
    }

    #[test]
    fn flags_alone_make_a_job() {
        let args =
            ["--bundle", "b", "--input", "x.csv", "--input", "y.csv", "--output", "o", "--keep-fields"];
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
        let merged = |file: &str, flags: &str| generation(&proposed, [&layer(file), &layer(flags)]).unwrap();
        assert_eq!((merged("", "").beams, merged("", "").copy_bias), (4, 6.0));
        assert_eq!(merged("length_penalty = 0.5", "beams = 8").length_penalty, 0.5);
        assert_eq!((merged("copy_bias = 0.0", "").beams, merged("copy_bias = 0.0", "").copy_bias), (4, 0.0));
        assert_eq!(merged("", "beams = 1\ncopy_bias = 0.0"), GenerationOptions::default());
    }

    #[test]
    fn an_option_that_contradicts_the_bundles_proposal_is_refused_with_a_remedy() {
        let proposed = layer("beams = 4\nmax_new_tokens = 9");
        let message = |own: &str| {
            let error = generation(&proposed, [&layer(""), &layer(own)]).unwrap_err();
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
}
