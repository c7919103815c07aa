//! What to do, from a job file and flags: flags win, and both fill the same [`JobSpec`].

use std::path::PathBuf;

use anyhow::{Context, bail};
use baton_bundle::{Bundle, GenerationMode};
use baton_job::{InputFormat, JobSpec, Mode};
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;

/// The job: a file, flags, or a file with flags that overrule it.
#[derive(Debug, clap::Args)]
pub(crate) struct JobArgs {
    /// Job file in TOML, with the fields `bundle`, `inputs`, `output`, `text_field`, `[generation]`, `[shard]` and the others below.
    /// Paths in it are relative to the current directory.
    #[arg(value_name = "JOB.toml")]
    job_file: Option<PathBuf>,

    /// Directory of the bundle. Example: models/en-it
    #[arg(long, value_name = "DIR", help_heading = "Job")]
    bundle: Option<String>,
    /// Input file, directory or glob; may be given more than once. .jsonl, .ndjson, .csv, .tsv or .txt, plain, .gz or .zst.
    /// Example: --input 'corpus/*.jsonl.gz'
    #[arg(long = "input", value_name = "PATTERN", help_heading = "Job")]
    inputs: Vec<String>,
    /// Directory for the parts and error rows; made if absent. Example: out
    #[arg(long, value_name = "DIR", help_heading = "Job")]
    output: Option<String>,
    /// Who reads and who writes: the large and the small model, or the small one alone. Default: hybrid.
    #[arg(long, value_name = "MODE", help_heading = "Job", value_parser = PossibleValuesParser::new(["hybrid", "slm"])
        .map(|name| name.parse::<Mode>().expect("a possible value is a mode")))]
    mode: Option<Mode>,
    /// Name of the bundle's prompt template. Default: default.
    #[arg(long, value_name = "TEMPLATE", help_heading = "Job")]
    task: Option<String>,
    /// Share of records that may fail before the job does, 0 to 1. Default: 1, never. Example: 0.01
    #[arg(long, value_name = "SHARE", help_heading = "Job")]
    max_error_rate: Option<f64>,

    /// Field or column with the text. Default: text.
    #[arg(long, value_name = "NAME", help_heading = "Records")]
    text_field: Option<String>,
    /// Field or column with the record's id. Default: id, else custom_id, else file and line.
    #[arg(long, value_name = "NAME", help_heading = "Records")]
    id_field: Option<String>,
    /// Format of all inputs. Default: told from each file's name.
    #[arg(long, value_name = "FORMAT", help_heading = "Records", value_parser = PossibleValuesParser::new(["jsonl", "csv", "tsv", "txt"])
        .map(|name| format_named(&name)))]
    format: Option<InputFormat>,
    /// Copies a record's other fields into its output row. Default: false. Example: --keep-fields
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Records")]
    keep_fields: Option<bool>,
    /// A longer text becomes an error row, bytes. Default: 262144.
    #[arg(long, value_name = "BYTES", help_heading = "Records")]
    max_text_bytes: Option<u64>,
    /// Records in a part at most. Default: 256.
    #[arg(long, value_name = "RECORDS", help_heading = "Records")]
    records_per_shard: Option<u32>,

    /// Longest output, tokens. Default and upper bound: the bundle's limit. Example: 64
    #[arg(long, value_name = "TOKENS", help_heading = "Generation")]
    max_new_tokens: Option<u32>,
    /// Longest output relative to its prompt, tokens per prompt token. Default: no such limit. Example: 2.5
    #[arg(long, value_name = "RATIO", help_heading = "Generation")]
    max_new_tokens_per_prompt_token: Option<f32>,
    /// Shortest output, tokens. Default: 0.
    #[arg(long, value_name = "TOKENS", help_heading = "Generation")]
    min_new_tokens: Option<u32>,
}

impl JobArgs {
    /// The job that file and flags describe, validated.
    pub(crate) fn to_spec(&self) -> anyhow::Result<JobSpec> {
        let mut spec = match &self.job_file {
            None => JobSpec::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the job file {}", path.display()))?;
                JobSpec::from_toml(&text, &path.display().to_string())?
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
                bail!(
                    "{} missing; give a job file or these flags (see `baton run --help`)",
                    missing.join(", ")
                );
            }
        }
        spec.validate()?;
        Ok(spec)
    }

    fn overrule(&self, spec: &mut JobSpec) {
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
        set(&mut spec.max_text_bytes, &self.max_text_bytes);
        set(&mut spec.shard.max_records, &self.records_per_shard);
        set(&mut spec.generation.min_new_tokens, &self.min_new_tokens);
        set(&mut spec.task, &self.task.clone().map(Some));
        set(&mut spec.id_field, &self.id_field.clone().map(Some));
        set(&mut spec.format, &self.format.map(Some));
        set(&mut spec.generation.max_new_tokens, &self.max_new_tokens.map(Some));
        let ratio = &mut spec.generation.max_new_tokens_per_prompt_token;
        set(ratio, &self.max_new_tokens_per_prompt_token.map(Some));
    }
}

/// Refuses, before any work, a job that the bundle's models would refuse shard by shard.
pub(crate) fn check_bundle_serves(bundle: &Bundle, spec: &JobSpec) -> anyhow::Result<()> {
    let manifest = bundle.manifest();
    let mode = match spec.mode {
        Mode::Hybrid => GenerationMode::Hybrid,
        Mode::Slm => GenerationMode::Slm,
    };
    if !manifest.modes.contains(&mode) {
        let trained: Vec<String> = manifest.modes.iter().map(ToString::to_string).collect();
        bail!(
            "bundle {} is not trained for mode {mode}; try --mode {}",
            spec.bundle,
            trained.join(" or --mode ")
        );
    }
    if let Some(task) = &spec.task
        && !manifest.templates.contains_key(task)
    {
        let names: Vec<&str> = manifest.templates.keys().map(String::as_str).collect();
        bail!("bundle {} has no prompt template `{task}`; it has: {}", spec.bundle, names.join(", "));
    }
    let (wanted, limit) = (spec.generation.min_new_tokens as usize, manifest.limits.max_new_tokens);
    if wanted > limit {
        bail!("min_new_tokens is {wanted}, but bundle {} writes at most {limit} tokens", spec.bundle);
    }
    Ok(())
}

fn format_named(name: &str) -> InputFormat {
    match name {
        "jsonl" => InputFormat::Jsonl,
        "csv" => InputFormat::Csv,
        "tsv" => InputFormat::Tsv,
        _ => InputFormat::Txt, // the last of the possible values
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        job: JobArgs,
    }

    fn spec(args: &[&str]) -> anyhow::Result<JobSpec> {
        Command::try_parse_from(["run"].iter().chain(args))?.job.to_spec()
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
    fn flags_overrule_the_job_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "bundle = 'b'\ninputs = ['x']\noutput = 'o'\nkeep_fields = true\n[generation]\nmax_new_tokens = 9\n";
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().to_str().unwrap();
        let args = [path, "--output", "p", "--keep-fields=false", "--mode", "slm", "--format", "tsv"];
        let spec = spec(&args).unwrap();
        assert_eq!((spec.bundle.as_str(), spec.output.as_str()), ("b", "p"));
        assert_eq!((spec.keep_fields, spec.mode, spec.format), (false, Mode::Slm, Some(InputFormat::Tsv)));
        assert_eq!(spec.generation.max_new_tokens, Some(9));
    }

    #[test]
    fn what_is_missing_is_named_as_flags() {
        let error = spec(&["--input", "x"]).unwrap_err().to_string();
        assert!(error.starts_with("--bundle DIR, --output DIR missing"), "{error}");
    }
}
