//! `baton bench`: measures the decode loop, the encoder and whole jobs on this machine.

#![allow(clippy::print_stdout, reason = "its report is its output")]

mod coordinator;
mod job;
mod null_worker;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use baton_bench::{
    DecodeBench, DecodeResult, EncodeBench, EncodeResult, LanguageModel, Machine, PartTime, peak_memory_bytes,
};
use baton_bundle::{Bundle, ModelConfig};
use baton_model::Compute;
use baton_worker::WeightsFlag;
use serde::Serialize;

#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, clap::Subcommand)]
enum BenchCommand {
    /// The decode loop: tokens a second, a step's time by part, share of the matrix product rate.
    Decode(DecodeArgs),
    /// The encoder: prompt tokens a second through the LLM, the projector and the fusion.
    Encode(EncodeArgs),
    /// Whole jobs, by mode, beside the time of their models alone.
    Job(job::JobBenchArgs),
    /// The coordinator alone, with workers that have no models.
    Coordinator(coordinator::CoordinatorBenchArgs),
}

#[derive(Debug, clap::Args)]
struct DecodeArgs {
    /// Hugging Face directory of the writing model, such as a bundle's slm/ or llm/. Example:
    /// models/en-it/slm
    #[arg(long, value_name = "DIR", conflicts_with = "config", required_unless_present = "config")]
    model: Option<PathBuf>,
    /// Random weights of the shape in this config.json instead. Example: models/en-it/slm/config.json
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Rows at once; several values are measured one after the other. Example: 1,8,32,128
    #[arg(long, value_name = "ROWS", value_delimiter = ',', default_value = "32")]
    batch: Vec<usize>,
    /// Tokens of each prompt.
    #[arg(long, value_name = "TOKENS", default_value_t = 64)]
    prompt_tokens: usize,
    /// Tokens that each row writes.
    #[arg(long, value_name = "TOKENS", default_value_t = 64)]
    new_tokens: usize,
    /// Prompts as JSON, a list of lists of token ids that end with the same token, instead of random prompts.
    /// Sets --batch.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["batch", "prompt_tokens"])]
    prompts: Option<PathBuf>,
    /// File for the rows' outputs as JSON, a list of lists of token ids.
    #[arg(long, value_name = "FILE")]
    write_tokens: Option<PathBuf>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, clap::Args)]
struct EncodeArgs {
    /// Bundle whose LLM and projector are measured. Example: models/en-it
    #[arg(long, value_name = "DIR")]
    bundle: PathBuf,
    /// Prompts to encode in a round.
    #[arg(long, value_name = "PROMPTS", default_value_t = 128)]
    prompts: usize,
    /// Tokens of each prompt.
    #[arg(long, value_name = "TOKENS", default_value_t = 64)]
    prompt_tokens: usize,
    /// Maximum of tokens in one packed batch.
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    batch_tokens: usize,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, clap::Args)]
struct CommonArgs {
    /// Number format of the weights; several are measured one after the other. auto: the fastest on this CPU.
    #[arg(long, value_name = "FORMAT", value_delimiter = ',', default_value = "auto")]
    weights: Vec<WeightsFlag>,
    /// Single-threaded engines that share the work. Default: one per CPU.
    #[arg(long, value_name = "ENGINES")]
    engines: Option<usize>,
    /// Measured rounds, after one that does not count; the median is shown.
    #[arg(long, value_name = "ROUNDS", default_value_t = 5)]
    rounds: usize,
    /// Writes all numbers as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl CommonArgs {
    fn engines(&self) -> usize {
        self.engines.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

/// All results of one call, as JSON.
#[derive(Serialize)]
struct Report<T> {
    machine: Machine,
    engines: usize,
    peak_memory_bytes: Option<u64>,
    results: Vec<Measured<T>>,
}

#[derive(Serialize)]
struct Measured<T> {
    weights: &'static str,
    #[serde(flatten)]
    result: T,
}

pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    baton_model::set_num_threads(1); // each engine is one thread
    match &args.command {
        BenchCommand::Decode(args) => decode(args),
        BenchCommand::Encode(args) => encode(args),
        BenchCommand::Job(args) => job::run(args),
        BenchCommand::Coordinator(args) => coordinator::run(args),
    }
}

fn decode(args: &DecodeArgs) -> anyhow::Result<()> {
    let (model, config_path) = match (&args.model, &args.config) {
        (Some(directory), _) => (LanguageModel::Directory(directory.clone()), directory.join("config.json")),
        (None, Some(file)) => (LanguageModel::Random(Box::new(ModelConfig::read(file)?)), file.clone()),
        (None, None) => bail!("give --model DIR or --config FILE"),
    };
    let config = ModelConfig::read(&config_path)?;
    let prompt_sets: Vec<Vec<Vec<u32>>> = match &args.prompts {
        Some(file) => vec![read_json(file)?],
        None => args
            .batch
            .iter()
            .map(|&rows| (0..rows).map(|row| prompt(row, args.prompt_tokens, config.vocab_size)).collect())
            .collect(),
    };
    let machine = Machine::this();
    println!("{}", describe(&machine, args.common.engines()));
    println!(
        "{} blocks, d {}, ff {}, {} heads ({} for keys and values), vocabulary {}; {} new tokens a row",
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.vocab_size,
        args.new_tokens
    );
    let mut results = Vec::new();
    for weights in &args.common.weights {
        let compute = weights.on_cpu();
        for prompts in &prompt_sets {
            let result = baton_bench::decode(&DecodeBench {
                model: model.clone(),
                compute,
                engines: args.common.engines(),
                prompts: prompts.clone(),
                new_tokens: args.new_tokens,
                rounds: args.common.rounds,
            })?;
            show_decode(compute, &result);
            results.push(Measured { weights: compute.weights_name(), result });
        }
    }
    if let (Some(path), Some(last)) = (&args.write_tokens, results.last()) {
        write_json(path, &last.result.tokens)?;
    }
    finish(machine, &args.common, results)
}

fn encode(args: &EncodeArgs) -> anyhow::Result<()> {
    let bundle = Bundle::open(&args.bundle)?;
    let machine = Machine::this();
    println!("{}", describe(&machine, args.common.engines()));
    let (llm, config) = bundle.llm()?;
    println!(
        "LLM: {} of {} blocks, d {}; {} prompts of {} tokens in batches of {} tokens",
        llm.layers,
        config.num_hidden_layers,
        config.hidden_size,
        args.prompts,
        args.prompt_tokens,
        args.batch_tokens
    );
    let mut results = Vec::new();
    for weights in &args.common.weights {
        let compute = weights.on_cpu();
        let prompts =
            (0..args.prompts).map(|row| prompt(row, args.prompt_tokens, config.vocab_size)).collect();
        let bench = EncodeBench {
            compute,
            engines: args.common.engines(),
            prompts,
            batch_tokens: args.batch_tokens,
            rounds: args.common.rounds,
        };
        let result = baton_bench::encode(&bundle, &bench)?;
        show_encode(compute, &result);
        results.push(Measured { weights: compute.weights_name(), result });
    }
    finish(machine, &args.common, results)
}

/// Token ids without meaning; the last is the same in all prompts.
fn prompt(row: usize, len: usize, vocab_size: usize) -> Vec<u32> {
    let token = |place: usize| ((row * 7919 + place * 104_729) % (vocab_size - 3) + 3) as u32;
    (0..len.saturating_sub(1)).map(token).chain([1]).collect()
}

fn describe(machine: &Machine, engines: usize) -> String {
    format!("{}; {engines} engines of one thread", describe_machine(machine))
}

fn describe_machine(machine: &Machine) -> String {
    let Machine { cpu, cpus, platform, baton_version, .. } = machine;
    format!("{cpu}, {cpus} CPUs, {platform}; baton {baton_version}")
}

fn show_decode(compute: Compute, result: &DecodeResult) {
    println!(
        "\n{}, batch {}: {:.0} tokens/s, {:.0} without prefill; {:.0} % of the matrix product rate ({:.0} \
         GOP/s a thread)",
        compute.weights_name(),
        result.batch,
        result.tokens_per_second,
        result.decode_tokens_per_second,
        result.share_of_matmul_rate * 100.0,
        result.matmul_operations_per_second / 1e9,
    );
    let rest = result.step_rest_milliseconds;
    println!("  a step, ms:  {}, selection and bookkeeping {rest:.3}", describe_parts(&result.step_parts));
    println!("  prefill, ms: {}", describe_parts(&result.prefill_parts));
}

fn show_encode(compute: Compute, result: &EncodeResult) {
    println!(
        "\n{}: {:.0} prompt tokens/s; {:.0} % of the matrix product rate ({:.0} GOP/s a thread)",
        compute.weights_name(),
        result.tokens_per_second,
        result.share_of_matmul_rate * 100.0,
        result.matmul_operations_per_second / 1e9,
    );
    println!("  a round, ms: {}", describe_parts(&result.parts));
}

fn describe_parts(parts: &[PartTime]) -> String {
    let parts = parts.iter().filter(|part| part.milliseconds > 0.0);
    parts.map(|part| format!("{} {:.3}", part.part, part.milliseconds)).collect::<Vec<_>>().join(", ")
}

fn finish<T: Serialize>(
    machine: Machine,
    args: &CommonArgs,
    results: Vec<Measured<T>>,
) -> anyhow::Result<()> {
    let peak_memory_bytes = peak_memory_bytes();
    if let Some(bytes) = peak_memory_bytes {
        println!("\npeak memory {} MB", bytes / 1_000_000);
    }
    if let Some(path) = &args.json {
        write_json(path, &Report { machine, engines: args.engines(), peak_memory_bytes, results })?;
    }
    Ok(())
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a list of prompts", path.display()))
}

fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("numbers are plain data")?;
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}
