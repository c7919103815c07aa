//! `baton bench job`: whole jobs, in this process or on a running cluster, by mode, beside the time of their
//! models alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use baton_bench::{BareLoop, BareLoopConfig, Machine, median, peak_memory_bytes};
use baton_bundle::{Bundle, Reading};
use baton_coordinator::flags::ClusterArgs;
use baton_coordinator::{Cluster, JobReport, PreparedJob};
use baton_decoder_svc::DecoderConfig;
use baton_decoding::Generation;
use baton_encoder_svc::EncoderConfig;
use baton_job::{GenerationOptions, JobSpec, Mode, Partition};
use baton_model::Compute;
use baton_proto::{Connections, SecurityArgs};
use baton_worker::{ComputeArgs, WorkerLimits, pair_num_bytes};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use serde_json::Value;

use super::{describe, write_json};
use crate::run::{InProcessWorkers, run_unwatched};

#[derive(Debug, clap::Args)]
pub(super) struct JobBenchArgs {
    /// Bundle to run. Example: models/en-it
    #[arg(long, value_name = "DIR")]
    bundle: PathBuf,
    /// Records, one JSON object a line. Example: data/en-it/test.jsonl
    #[arg(long, value_name = "FILE.jsonl")]
    input: PathBuf,
    /// Field with the text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_field: String,
    /// Modes to compare, one after the other in every round. Default: the bundle's first. Example: hybrid,llm
    #[arg(
        long, value_name = "MODES", value_delimiter = ',',
        value_parser = PossibleValuesParser::new(Mode::ALL.map(Mode::as_str))
            .map(|name| name.parse::<Mode>().expect("a possible value is a mode"))
    )]
    modes: Vec<Mode>,
    /// Exactly this many tokens per record, which compares modes at equal lengths. Default: each output ends
    /// where its model ends it.
    #[arg(long, value_name = "TOKENS")]
    new_tokens: Option<u32>,
    /// Only this many records, from the first.
    #[arg(long, value_name = "RECORDS")]
    records: Option<usize>,
    /// Sequences that one engine decodes at once.
    #[arg(long, value_name = "ROWS", default_value_t = 64)]
    decode_slots: usize,
    /// Measured rounds; medians are shown.
    #[arg(long, value_name = "ROUNDS", default_value_t = 3)]
    rounds: usize,
    /// Does not measure the models alone.
    #[arg(long)]
    no_bare_loop: bool,
    /// Writes all numbers as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    security: SecurityArgs,
}

/// One mode's numbers: medians over rounds.
#[derive(Debug, Serialize)]
struct ModeResult {
    mode: &'static str,
    seconds: f64,
    records_per_second: f64,
    output_tokens_per_second: f64,
    output_tokens_per_record: f64,
    /// The models alone, on the same cores, fed from memory: seconds of the encoder and of the decode loop.
    bare_encode_seconds: Option<f64>,
    bare_decode_seconds: Option<f64>,
    /// The bare loop's time as a share of the job's.
    share_of_bare_loop: Option<f64>,
    draft_acceptance_rate: Option<f64>,
    tokens_per_llm_pass: Option<f64>,
    all_seconds: Vec<f64>,
}

#[derive(Serialize)]
struct JobBenchReport {
    machine: Machine,
    weights: &'static str,
    engines: usize,
    records: usize,
    new_tokens: Option<u32>,
    separate_processes: bool,
    peak_memory_bytes: Option<u64>,
    results: Vec<ModeResult>,
}

/// The settings of all modes.
struct Bench<'a> {
    args: &'a JobBenchArgs,
    bundle: Bundle,
    compute: Compute,
    engines: usize,
    texts: Vec<String>,
    directory: tempfile::TempDir,
}

/// A mode and its measurements so far.
struct Measured {
    mode: Mode,
    bare: Option<BareLoop>,
    prompts: Vec<Reading>,
    generation: Arc<Generation>,
    reports: Vec<JobReport>,
    encode_seconds: Vec<f64>,
    decode_seconds: Vec<f64>,
}

/// Runs `baton bench job`.
///
/// # Errors
/// The bundle or the input cannot be used, or a job fails.
pub(super) fn run(args: &JobBenchArgs) -> anyhow::Result<()> {
    let bundle = Bundle::open(&args.bundle)?;
    let modes = if args.modes.is_empty() { vec![bundle.manifest().modes[0]] } else { args.modes.clone() };
    if let Some(mode) = modes.iter().find(|mode| !bundle.manifest().modes.contains(mode)) {
        bail!("bundle {} does not serve mode {mode}", args.bundle.display());
    }
    ensure!(args.rounds > 0, "--rounds is at least 1");
    let compute = args.compute.compute()?;
    let pair = modes.iter().map(|&mode| pair_num_bytes(&bundle, mode, compute)).max();
    let engines = args.compute.engines(&[compute], pair.unwrap_or_default());
    let texts = read_texts(args)?;
    let bench = Bench { args, bundle, compute, engines, texts, directory: tempfile::tempdir()? };
    bench.write_corpus()?;
    let machine = Machine::this();
    println!("{}, weights {}", describe(&machine, engines), compute.weights_name());
    let place = if args.cluster.encoders.is_some() { "on the cluster" } else { "in this process" };
    println!("{} records, {} rounds, jobs {place}", bench.texts.len(), args.rounds);

    let mut measured = modes.iter().map(|&mode| bench.prepare(mode)).collect::<anyhow::Result<Vec<_>>>()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for round in 0..=args.rounds {
        for mode in &mut measured {
            let report = runtime.block_on(bench.run_job(mode.mode, round))?;
            let bare =
                mode.bare.as_mut().map(|bare| bare.round(&mode.prompts, &mode.generation)).transpose()?;
            if round == 0 {
                continue; // it warms up
            }
            mode.reports.push(report);
            if let Some(bare) = bare {
                mode.encode_seconds.push(bare.encode.as_secs_f64());
                mode.decode_seconds.push(bare.decode.as_secs_f64());
            }
        }
    }
    let results: Vec<ModeResult> = measured.iter().map(ModeResult::of).collect();
    results.iter().for_each(|result| result.show(&results[0]));
    if let Some(path) = &args.json {
        let report = JobBenchReport {
            machine,
            weights: compute.weights_name(),
            engines,
            records: bench.texts.len(),
            new_tokens: args.new_tokens,
            separate_processes: args.cluster.encoders.is_some(),
            peak_memory_bytes: peak_memory_bytes(),
            results,
        };
        write_json(path, &report)?;
    }
    Ok(())
}

fn read_texts(args: &JobBenchArgs) -> anyhow::Result<Vec<String>> {
    let path = args.input.display();
    let file = std::fs::read_to_string(&args.input).with_context(|| format!("cannot read {path}"))?;
    let text = |(index, line): (usize, &str)| -> anyhow::Result<String> {
        let place = || format!("{path}, line {}", index + 1);
        let row: Value = serde_json::from_str(line).with_context(place)?;
        let text = row.get(&args.text_field).and_then(Value::as_str).map(str::to_owned);
        text.with_context(|| {
            format!("{}: there is no text in field `{}`; name it with --text-field", place(), args.text_field)
        })
    };
    let lines = file.lines().enumerate().take(args.records.unwrap_or(usize::MAX));
    let texts: Vec<String> = lines.map(text).collect::<anyhow::Result<_>>()?;
    ensure!(!texts.is_empty(), "{path} has no records");
    Ok(texts)
}

impl Bench<'_> {
    fn corpus(&self) -> PathBuf {
        self.directory.path().join("corpus.jsonl")
    }

    fn write_corpus(&self) -> anyhow::Result<()> {
        let lines: String =
            self.texts.iter().map(|text| format!("{}\n", serde_json::json!({ "text": text }))).collect();
        Ok(std::fs::write(self.corpus(), lines)?)
    }

    /// Loads the bare loop of a mode, and tokenizes its prompts.
    fn prepare(&self, mode: Mode) -> anyhow::Result<Measured> {
        let manifest = self.bundle.manifest();
        let reader = self.bundle.prompt_reader(mode, None)?;
        let mut prompts = Vec::new();
        for text in &self.texts {
            let prompt = reader.read(text)?;
            if prompt.excess(manifest.limits).is_none() {
                prompts.push(prompt); // a job makes an error row of the others
            }
        }
        let config = self.decoder(mode)?;
        let bare = (!self.args.no_bare_loop && mode != Mode::Verified).then(|| {
            let config = BareLoopConfig {
                mode,
                compute: self.compute,
                engines: self.engines,
                max_batch_tokens: EncoderConfig::cpu().max_batch_tokens,
                max_slots: config.max_slots,
                max_cache_tokens: config.max_cache_tokens,
                max_prefill_tokens: config.max_prefill_tokens,
            };
            BareLoop::load(&self.bundle, config)
        });
        let (min, max) = match self.args.new_tokens {
            Some(tokens) => (tokens as usize, tokens as usize),
            None => (0, manifest.max_new_tokens(mode)),
        };
        Ok(Measured {
            mode,
            bare: bare.transpose()?,
            prompts,
            generation: Arc::new(Generation::of_new_tokens(min, max)),
            reports: Vec::new(),
            encode_seconds: Vec::new(),
            decode_seconds: Vec::new(),
        })
    }

    fn decoder(&self, mode: Mode) -> anyhow::Result<DecoderConfig> {
        let (compute, engines, max_slots) = (self.compute, self.engines, self.args.decode_slots);
        let config =
            DecoderConfig { compute, engines, max_slots, mode, limits: limits(), ..DecoderConfig::cpu() };
        Ok(config.with_room_for(&self.bundle, 1)?)
    }

    async fn run_job(&self, mode: Mode, round: usize) -> anyhow::Result<JobReport> {
        let output = self.directory.path().join(format!("{mode}-{round}"));
        let spec = JobSpec {
            bundle: path_string(&self.args.bundle),
            inputs: vec![path_string(&self.corpus())],
            output: path_string(&output),
            mode,
            generation: GenerationOptions {
                retry_beams: 0, // speed depends on lengths alone
                max_new_tokens: self.args.new_tokens,
                min_new_tokens: self.args.new_tokens.unwrap_or(0),
                ..GenerationOptions::default()
            },
            ..JobSpec::default()
        };
        let job = PreparedJob::open(spec, self.bundle.digest(), Partition::default()).await?;
        let report = match self.args.cluster.encoders.clone().zip(self.args.cluster.decoders.clone()) {
            Some((encoders, decoders)) => {
                let connections = Connections::new(self.args.security.load()?.client);
                run_unwatched(&job, Cluster::discover(connections, encoders, decoders)).await?
            }
            None => {
                let (compute, engines) = (self.compute, self.engines);
                let devices = vec![compute];
                let encoder =
                    EncoderConfig { devices, engines, mode, limits: limits(), ..EncoderConfig::cpu() };
                let workers =
                    InProcessWorkers::start(&self.bundle, vec![(encoder, self.decoder(mode)?)]).await?;
                workers.run(async |cluster| run_unwatched(&job, cluster).await).await?
            }
        };
        ensure!(report.totals.outputs > 0, "no record of the job succeeded: see {}", output.display());
        std::fs::remove_dir_all(&output)?;
        Ok(report)
    }
}

fn limits() -> WorkerLimits {
    WorkerLimits { max_record_num_bytes: usize::MAX, ..WorkerLimits::default() }
}

fn path_string(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl ModeResult {
    fn of(measured: &Measured) -> Self {
        let all_seconds: Vec<f64> =
            measured.reports.iter().map(|report| report.elapsed.as_secs_f64()).collect();
        let seconds = median(all_seconds.clone());
        let report = measured.reports.last().expect("there is a round at least");
        let totals = &report.totals;
        let of_bare = |seconds: &[f64]| (!seconds.is_empty()).then(|| median(seconds.to_vec()));
        let (encode, decode) = (of_bare(&measured.encode_seconds), of_bare(&measured.decode_seconds));
        let rate = report.drafts.acceptance_rate();
        Self {
            mode: measured.mode.as_str(),
            seconds,
            records_per_second: totals.outputs as f64 / seconds,
            output_tokens_per_second: totals.output_tokens as f64 / seconds,
            output_tokens_per_record: totals.output_tokens as f64 / totals.outputs as f64,
            bare_encode_seconds: encode,
            bare_decode_seconds: decode,
            share_of_bare_loop: encode.zip(decode).map(|(encode, decode)| (encode + decode) / seconds),
            draft_acceptance_rate: rate,
            tokens_per_llm_pass: rate.map(|_| report.drafts.tokens_per_llm_pass()),
            all_seconds,
        }
    }

    fn show(&self, first: &ModeResult) {
        println!(
            "\n{}: {:.2} s, {:.1} records/s, {:.0} output tokens/s, {:.1} tokens a record; {:.2}x the \
             records/s of {}",
            self.mode,
            self.seconds,
            self.records_per_second,
            self.output_tokens_per_second,
            self.output_tokens_per_record,
            self.records_per_second / first.records_per_second,
            first.mode,
        );
        if let (Some(encode), Some(decode), Some(share)) =
            (self.bare_encode_seconds, self.bare_decode_seconds, self.share_of_bare_loop)
        {
            println!(
                "  the models alone: encode {encode:.2} s, decode {decode:.2} s; the job reaches {:.0} % of \
                 that",
                share * 100.0
            );
        }
        if let (Some(rate), Some(per_pass)) = (self.draft_acceptance_rate, self.tokens_per_llm_pass) {
            println!(
                "  drafts: {:.1} % accepted, {per_pass:.2} tokens per pass of the large model",
                rate * 100.0
            );
        }
    }
}
