//! The job spec: the user's request, as a TOML file or built from flags.
//!
//! Owns the fields, their defaults and their validation. [`OutputDefinition`] is the part that defines output
//! bytes; `_baton/job.json` records only that. Locations (`bundle`, `inputs`, `output`) are not part of it,
//! because the bundle's digest and the input listing are recorded instead; `max_error_rate` is a policy.
//! A `cache` changes no byte. Machine settings (workers, windows, batch sizes, lease times) change no byte
//! either, and belong to the services, not to the spec.

use std::fmt;
use std::ops::RangeInclusive;

use baton_formats::{BatchOptions, Format, KeepFields, LanguageFields, PartFormat, ReaderOptions, Separator};
use baton_generation::{GenerationLayer, GenerationOptions};
use serde::{Deserialize, Serialize};

use crate::{Cascade, Escalations, JobError, Mode, Tier};

/// The longest text that a job may allow: with its id and some fields, it fits into one message between the
/// processes.
pub const MAX_TEXT_NUM_BYTES: u64 = 3 * MIB + MIB / 2;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// A job: bundle, inputs, output directory, and options.
///
/// Every field has a default, so a job file may leave fields to flags; [`JobSpec::validate`] decides whether
/// the whole is complete. `G` is the generation options: resolved, or in a [`JobFile`] as the file has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, bound(deserialize = "G: Default + Deserialize<'de>"))]
pub struct JobSpec<G = GenerationOptions> {
    /// Directory or URI of the bundle.
    pub bundle: String,
    /// Input files, directories or globs.
    #[serde(alias = "input")]
    pub inputs: Vec<String>,
    /// Directory or URI that parts are committed to.
    pub output: String,
    /// Directory or URI. The job skips the inputs of finished jobs whose outputs lie directly below it.
    pub skip_done: Option<String>,
    /// Directory or URI of a cache of outputs, which jobs share: segments that an earlier job has written in
    /// the same way are not written again. Default: none.
    pub cache: Option<String>,
    /// The job fails if more than this share of its records failed, 0 to 1. Default 1: never.
    pub max_error_rate: f64,
    /// The mode: which models read and write. Default: the first of the bundle's modes; hybrid in most.
    pub mode: Mode,
    /// Modes that write one after the other, in place of one mode. Default: none.
    pub cascade: Option<Cascade>,
    /// The outputs whose records go on to the next tier of a cascade.
    pub escalate: Escalations,
    /// The tiers that these two and the bundle add up to, the last with `mode` and `generation`. Empty
    /// without a cascade.
    #[serde(skip)]
    pub tiers: Vec<Tier>,
    /// Name of the bundle's prompt template. Default: the bundle's default template.
    pub task: Option<String>,
    /// Field or column with the text. Default: `text`.
    pub text_field: String,
    /// Field or column with the record's id. Default: `id`, else `custom_id`, else file and line.
    pub id_field: Option<String>,
    /// Field or column with terms of the record's own, which precede the job's. Default: none.
    pub glossary_field: Option<String>,
    /// Format of all inputs. Default: by each file's name.
    pub format: Option<Format>,
    /// The byte between the cells of tables: one character, or `tab`. Default: a first line `sep=;`, else the
    /// format's own.
    pub separator: Option<Separator>,
    /// Copies a record's other fields into its output row. Default: false.
    pub keep_fields: bool,
    /// Writes each record's input and line (or row) into its output row. Default: false.
    pub origin: bool,
    /// The format of parts: `jsonl`, `jsonl.zst`, `jsonl.gz`, `parquet`. Default: `jsonl`.
    pub output_format: PartFormat,
    /// Longest text, bytes of UTF-8; a longer text becomes an error row. Default: 256 KiB.
    pub max_text_bytes: u64,
    /// The generation options.
    pub generation: G,
    /// The limits of shards.
    pub shard: ShardLimits,
}

/// A job file. It has only its own generation options, because bundle and flags have options too.
pub type JobFile = JobSpec<GenerationLayer>;

/// The part of a [`JobSpec`] that defines output bytes, as recorded in `_baton/job.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the fields are those of `JobSpec`
pub struct OutputDefinition {
    pub mode: Mode,
    #[serde(default)]
    pub tiers: Vec<Tier>,
    pub task: Option<String>,
    pub text_field: String,
    pub id_field: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub glossary_field: Option<String>,
    pub format: Option<Format>,
    #[serde(default)]
    pub separator: Option<Separator>,
    pub keep_fields: bool,
    #[serde(default)]
    pub origin: bool,
    #[serde(default)]
    pub output_format: PartFormat,
    pub max_text_bytes: u64,
    pub generation: GenerationOptions,
    pub shard: ShardLimits,
}

/// The limits of a shard. Every role that works on a shard holds it in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShardLimits {
    /// Maximum of entries in a shard. Default: 256.
    #[serde(alias = "max_records")]
    pub records_per_shard: u32,
    /// Maximum of bytes of input rows in a shard, uncompressed; a larger row is alone in its shard. Default:
    /// 1 MiB.
    #[serde(alias = "max_bytes")]
    pub bytes_per_shard: u64,
}

impl<G: Default> Default for JobSpec<G> {
    fn default() -> Self {
        JobSpec {
            bundle: String::new(),
            inputs: Vec::new(),
            output: String::new(),
            skip_done: None,
            cache: None,
            max_error_rate: 1.0,
            mode: Mode::default(),
            cascade: None,
            escalate: Escalations::default(),
            tiers: Vec::new(),
            task: None,
            text_field: "text".into(),
            id_field: None,
            glossary_field: None,
            format: None,
            separator: None,
            keep_fields: false,
            origin: false,
            output_format: PartFormat::default(),
            max_text_bytes: 256 * KIB,
            generation: G::default(),
            shard: ShardLimits::default(),
        }
    }
}

impl Default for ShardLimits {
    fn default() -> Self {
        ShardLimits { records_per_shard: 256, bytes_per_shard: MIB }
    }
}

impl JobFile {
    /// Whether a job file names a mode. A file that does not parse names none.
    #[must_use]
    pub fn says_mode(text: &str) -> bool {
        text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("mode"))
    }

    /// Parses a job file. `origin` is the file's name, for messages. Only the values of generation options
    /// are checked, because flags may still fill in fields.
    ///
    /// # Errors
    /// [`JobError::SpecSyntax`] for anything that is not TOML or not a field of this type, and for a
    /// generation option that is not allowed.
    pub fn from_toml(text: &str, origin: &str) -> Result<JobFile, JobError> {
        toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start).min(text.len());
            JobError::SpecSyntax {
                origin: origin.to_owned(),
                line: 1 + text.as_bytes()[..offset].iter().filter(|&&byte| byte == b'\n').count(),
                message: error.message().replace('\n', " "),
            }
        })
    }

    /// The job with resolved generation options.
    #[must_use]
    pub fn resolved(self, generation: GenerationOptions) -> JobSpec {
        JobSpec {
            generation,
            bundle: self.bundle,
            inputs: self.inputs,
            output: self.output,
            skip_done: self.skip_done,
            cache: self.cache,
            max_error_rate: self.max_error_rate,
            mode: self.mode,
            cascade: self.cascade,
            escalate: self.escalate,
            tiers: self.tiers,
            task: self.task,
            text_field: self.text_field,
            id_field: self.id_field,
            glossary_field: self.glossary_field,
            format: self.format,
            separator: self.separator,
            keep_fields: self.keep_fields,
            origin: self.origin,
            output_format: self.output_format,
            max_text_bytes: self.max_text_bytes,
            shard: self.shard,
        }
    }
}

impl<G> JobSpec<G> {
    /// Checks every field but the generation options.
    ///
    /// # Errors
    /// [`JobError::SpecValue`] for the first field whose value is not allowed.
    pub fn validate_fields(&self) -> Result<(), JobError> {
        non_empty("bundle", &self.bundle)?;
        if self.inputs.is_empty() {
            return Err(not_allowed("inputs", "[]", "at least one file, directory or glob"));
        }
        self.inputs.iter().try_for_each(|input| non_empty("inputs", input))?;
        non_empty("output", &self.output)?;
        self.skip_done.iter().try_for_each(|prefix| non_empty("skip_done", prefix))?;
        self.cache.iter().try_for_each(|prefix| non_empty("cache", prefix))?;
        if !(0.0..=1.0).contains(&self.max_error_rate) {
            return Err(not_allowed("max_error_rate", self.max_error_rate, "0.0 to 1.0"));
        }
        self.validate_cascade()?;
        self.task.iter().try_for_each(|task| non_empty("task", task))?;
        non_empty("text_field", &self.text_field)?;
        self.id_field.iter().try_for_each(|field| non_empty("id_field", field))?;
        self.glossary_field.iter().try_for_each(|field| non_empty("glossary_field", field))?;
        if !(1..=MAX_TEXT_NUM_BYTES).contains(&self.max_text_bytes) {
            let allowed =
                format!("1 to {MAX_TEXT_NUM_BYTES}, because a record travels in one message of 4 MiB");
            return Err(not_allowed("max_text_bytes", self.max_text_bytes, &allowed));
        }
        in_range("shard.records_per_shard", u64::from(self.shard.records_per_shard), 1..=65_536)?;
        in_range("shard.bytes_per_shard", self.shard.bytes_per_shard, 1..=64 * MIB)
    }
}

impl<G> JobSpec<G> {
    fn validate_cascade(&self) -> Result<(), JobError> {
        let escalate = || format!("{:?}", self.escalate.to_string());
        match &self.cascade {
            None if self.escalate.is_empty() => Ok(()),
            None => Err(not_allowed("escalate", escalate(), "only with `cascade`")),
            Some(cascade) if self.escalate.is_empty() => {
                let allowed = "with `escalate`: a share such as 20%, or a threshold";
                Err(not_allowed("cascade", format!("{:?}", cascade.to_string()), allowed))
            }
            Some(cascade) if self.escalate.behind(cascade.tiers().len()).is_none() => {
                let num_steps = cascade.tiers().len() - 1;
                let allowed = format!("one value, or {num_steps}: one behind each tier but the last");
                Err(not_allowed("escalate", escalate(), &allowed))
            }
            Some(_) => Ok(()),
        }
    }
}

impl JobSpec {
    /// Checks every field.
    ///
    /// # Errors
    /// [`JobError::SpecValue`] for the first field whose value is not allowed, [`JobError::Generation`] for
    /// the first generation option.
    pub fn validate(&self) -> Result<(), JobError> {
        self.validate_fields()?;
        Ok(self.generation.validate()?)
    }

    /// The modes in which records are written, each once: that of the job, or those of its tiers.
    pub fn modes(&self) -> Vec<Mode> {
        let mut modes: Vec<Mode> = self.tiers.iter().map(|tier| tier.mode).collect();
        modes.push(self.mode);
        modes.sort_unstable();
        modes.dedup();
        modes
    }

    /// The part that defines output bytes.
    pub fn output_definition(&self) -> OutputDefinition {
        OutputDefinition {
            mode: self.mode,
            tiers: self.tiers.clone(),
            task: self.task.clone(),
            text_field: self.text_field.clone(),
            id_field: self.id_field.clone(),
            glossary_field: self.glossary_field.clone(),
            format: self.format,
            separator: self.separator,
            keep_fields: self.keep_fields,
            origin: self.origin,
            output_format: self.output_format,
            max_text_bytes: self.max_text_bytes,
            generation: self.generation.clone(),
            shard: self.shard.clone(),
        }
    }

    /// This job's options, in the terms of batch requests.
    fn batch_options(&self) -> BatchOptions {
        let generation = serde_json::to_value(&self.generation).expect("options are plain data");
        let own = |name: &str, absent: serde_json::Value| match &generation[name] {
            serde_json::Value::Null => absent,
            value => value.clone(),
        };
        let values = [
            ("temperature", own("temperature", 0.0.into())),
            ("top_p", own("top_p", 1.0.into())),
            ("seed", own("seed", serde_json::Value::Null)),
            ("n", own("n_best", 1.into())),
            ("stop", own("stop_strings", serde_json::Value::Null)),
            ("frequency_penalty", 0.into()),
            ("presence_penalty", 0.into()),
            ("response_format", serde_json::json!({ "type": "text" })),
        ];
        BatchOptions {
            values: values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            max_new_tokens: generation["max_new_tokens"].as_u64(),
        }
    }

    /// The options for reading inputs.
    pub fn reader_options(&self) -> ReaderOptions {
        ReaderOptions {
            text_field: self.text_field.clone(),
            id_field: self.id_field.clone(),
            language_fields: LanguageFields {
                source: self.generation.source_language_field.clone(),
                target: self.generation.target_language_field.clone(),
            },
            glossary_field: self.glossary_field.clone(),
            format: self.format,
            separator: self.separator,
            keep: if self.keep_fields { KeepFields::AsJson } else { KeepFields::No },
            batch: self.batch_options(),
            max_text_bytes: usize::try_from(self.max_text_bytes).unwrap_or(usize::MAX),
        }
    }
}

fn not_allowed(field: &'static str, value: impl fmt::Display, allowed: &str) -> JobError {
    JobError::SpecValue { field, value: value.to_string(), allowed: allowed.to_owned() }
}

fn non_empty(field: &'static str, value: &str) -> Result<(), JobError> {
    if value.is_empty() { Err(not_allowed(field, "\"\"", "a non-empty string")) } else { Ok(()) }
}

fn in_range(field: &'static str, value: u64, allowed: RangeInclusive<u64>) -> Result<(), JobError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(not_allowed(field, value, &format!("{} to {}", allowed.start(), allowed.end())))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn valid() -> JobSpec {
        JobSpec {
            bundle: "bundle".into(),
            inputs: vec!["corpus.jsonl".into()],
            output: "out".into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_job_file_needs_only_bundle_inputs_and_output() {
        let text = "bundle = 'bundle'\ninputs = ['corpus.jsonl']\noutput = 'out'\n";
        let file = JobFile::from_toml(text, "job.toml").unwrap();
        let spec = file.resolved(GenerationOptions::default());
        assert_eq!(spec, valid());
        spec.validate().unwrap();
    }

    #[test]
    fn sections_and_names_are_read_from_toml() {
        let text = "mode = 'slm'\nformat = 'tsv'\n[generation]\nbeams = 4\n[shard]\nrecords_per_shard = 8\n";
        let file = JobFile::from_toml(text, "job.toml").unwrap();
        assert_eq!((file.mode, file.format), (Mode::Slm, Some(Format::named("tsv").unwrap())));
        assert_eq!(file.generation.to_string(), "beams = 4", "what it says, and no default");
        assert_eq!(file.shard, ShardLimits { records_per_shard: 8, bytes_per_shard: MIB });
    }

    #[test]
    fn names_that_flags_and_earlier_job_files_have_are_known_too() {
        let text =
            "input = ['a']\n[generation]\nstop_string = ['x']\n[shard]\nmax_records = 8\nmax_bytes = 9\n";
        let file = JobFile::from_toml(text, "job.toml").unwrap();
        assert_eq!(
            (file.inputs, file.generation.to_string()),
            (vec!["a".into()], "stop_strings = [\"x\"]".into())
        );
        assert_eq!(file.shard, ShardLimits { records_per_shard: 8, bytes_per_shard: 9 });
        let twice = JobFile::from_toml("[shard]\nmax_records = 8\nrecords_per_shard = 8\n", "job.toml");
        assert!(twice.unwrap_err().to_string().contains("duplicate field"));
    }

    #[test]
    fn a_generation_option_that_is_not_allowed_is_reported_with_file_and_line() {
        let error = JobFile::from_toml("mode = 'slm'\n[generation]\nbeams = 4\ntop_p = nan\n", "job.toml");
        assert_eq!(
            error.unwrap_err().to_string(),
            "job.toml, line 4: `generation.top_p` is nan; allowed: 0.000001 to 1"
        );
    }

    #[test]
    fn an_unknown_field_is_reported_with_file_and_line() {
        let error =
            JobFile::from_toml("bundle = 'b'\ntxet_field = 'x'\n", "job.toml").unwrap_err().to_string();
        assert!(error.starts_with("job.toml, line 2: unknown field `txet_field`"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn an_unknown_mode_is_reported_with_the_allowed_ones() {
        let error = JobFile::from_toml("\nmode = 'fast'\n", "job.toml").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("`hybrid`") && error.contains("`slm`"), "{error}");
        assert_eq!(
            "fast".parse::<Mode>().unwrap_err().to_string(),
            "job spec: `mode` is \"fast\"; allowed: hybrid, slm, llm, verified"
        );
    }

    #[test]
    fn each_bad_value_names_its_field() {
        type Spoil = fn(&mut JobSpec);
        let cases: [(&str, Spoil); 9] = [
            ("bundle", |spec| spec.bundle.clear()),
            ("inputs", |spec| spec.inputs.clear()),
            ("output", |spec| spec.output.clear()),
            ("max_error_rate", |spec| spec.max_error_rate = f64::NAN),
            ("text_field", |spec| spec.text_field.clear()),
            ("max_text_bytes", |spec| spec.max_text_bytes = 0),
            ("max_text_bytes", |spec| spec.max_text_bytes = 4 * MIB),
            ("shard.records_per_shard", |spec| spec.shard.records_per_shard = 0),
            ("generation.max_new_tokens", |spec| spec.generation.max_new_tokens = Some(0)),
        ];
        for (field, spoil) in cases {
            let mut spec = valid();
            spoil(&mut spec);
            let error = spec.validate().unwrap_err().to_string();
            assert!(error.starts_with(&format!("job spec: `{field}` is ")), "{error}");
        }
    }

    #[test]
    fn a_cascade_needs_as_many_escalations_as_it_has_steps() {
        let with = |cascade: &str, escalate: &str| {
            let mut spec = valid();
            spec.cascade = (!cascade.is_empty()).then(|| cascade.parse().unwrap());
            spec.escalate = escalate.parse().unwrap_or_default();
            spec.validate().map_err(|error| error.to_string())
        };
        for (cascade, escalate) in
            [("slm,hybrid", "20%"), ("slm,hybrid,llm", "20%"), ("slm,hybrid,llm", "20%,0.5")]
        {
            with(cascade, escalate).unwrap();
        }
        assert!(with("", "20%").unwrap_err().contains("only with `cascade`"));
        assert!(with("slm,hybrid", "").unwrap_err().contains("with `escalate`"));
        assert!(with("slm,hybrid,llm", "1%,2%,3%").unwrap_err().contains("one value, or 2"));
        let text = "cascade = 'slm,hybrid:beams=4'\nescalate = 0.25\n";
        let file = JobFile::from_toml(text, "job.toml").unwrap();
        assert_eq!(file.cascade.unwrap().to_string(), "slm,hybrid:beams=4");
        assert_eq!(file.escalate.to_string(), "0.25");
    }
}
