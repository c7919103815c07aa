//! The flags of a job and of running it, the same for `baton run` and `baton-coordinator`.
//!
//! A job comes from a file and flags: flags win, and both fill the same [`baton_job::JobSpec`] (`resolve`).
//! Every flag is also an environment variable.

mod cascade;
mod resolve;

use std::path::PathBuf;
use std::time::Duration;

use baton_job::{Cascade, Escalations, Format, Mode, PartFormat, Partition, SchedulePolicy, Separator};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::value_parser;

use crate::generation_flags::GenerationArgs;
use crate::{EndpointList, Prices, RunOptions};

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
    /// .txt, each plain, .gz or .zst; or .parquet. - is standard input, with --format. Examples: --input
    /// 'corpus/*.jsonl.gz'; --input s3://bucket/corpus/
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
    /// Cache of outputs, which jobs share: segments that an earlier job has written with the same bundle and
    /// options are not written again. Changes no output. Example: s3://corpora/cache
    #[arg(long, value_name = "DIR", env = "BATON_CACHE", help_heading = "Job")]
    cache: Option<String>,
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
    /// Several modes in place of one, the cheapest first, separated by commas: the first writes all records,
    /// and each of the others those that the one before was not sure of. A mode may have generation options
    /// of its own. Examples: --cascade slm,hybrid,llm; --cascade hybrid,hybrid:beams=4
    #[arg(long, value_name = "TIERS", env = "BATON_CASCADE", conflicts_with = "mode", help_heading = "Job")]
    cascade: Option<Cascade>,
    /// The records that go on to the next tier of a cascade. A share: the worst outputs, by the bundle's
    /// calibration. From 0 to 1: those with a lower estimate of quality. Below 0: those with a lower mean
    /// log-probability. One value for all tiers, or one for each but the last. Examples: --escalate 20%;
    /// --escalate 0.7,0.5; --escalate -0.9
    #[arg(
        long,
        value_name = "SHARE|THRESHOLD",
        env = "BATON_ESCALATE",
        allow_hyphen_values = true,
        help_heading = "Job"
    )]
    escalate: Option<Escalations>,
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
    /// Field or column with terms of the record's own, which precede the job's: a list of `disk=disco` or of
    /// [source, target], a map, or a text with `;` between its terms. Default: none. Example:
    /// --glossary-field terms
    #[arg(long, value_name = "NAME", env = "BATON_GLOSSARY_FIELD", help_heading = "Records")]
    glossary_field: Option<String>,
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
    /// Price of an encoder, an hour, in any currency: the report in the output then says what the run cost.
    /// Example: --encoder-price 2.40
    #[arg(long, value_name = "PRICE", env = "BATON_ENCODER_PRICE", value_parser = price)]
    pub encoder_price: Option<f64>,
    /// Price of a decoder, an hour, in the same currency. Example: --decoder-price 0.17
    #[arg(long, value_name = "PRICE", env = "BATON_DECODER_PRICE", value_parser = price)]
    pub decoder_price: Option<f64>,
}

/// Parses a price.
///
/// # Errors
/// It is no number of at least 0.
pub fn price(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(price) if price.is_finite() && price >= 0.0 => Ok(price),
        _ => Err("give a number of at least 0, without a currency".to_owned()),
    }
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
            prices: Prices { encoder_per_hour: self.encoder_price, decoder_per_hour: self.decoder_price },
            ..RunOptions::default()
        }
    }
}

#[cfg(test)]
mod tests;
