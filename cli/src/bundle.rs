//! `baton bundle`: import an LLM or a small model, let a bundle's LLM write, show a bundle, verify it.

use std::io::{self, Write};
use std::path::PathBuf;

use baton_bundle::{
    AddedLlm, Arithmetic, Bundle, BundleManifest, CompactBase, CompactOptions, LlmPart, LlmWriter,
    ModelMemory, PartSummary, SlmPart, Task, WeightDtype, WeightFormat, add_llm, arithmetic_of_llm,
    arithmetic_of_mode, balanced_ranges, block_weights, compact, memory_of_decoder, memory_of_encoder,
    memory_of_encoder_part, summarize, verify as verify_bundle,
};
use baton_import::{ImportOptions, SlmImportOptions, import_llm, import_slm};
use baton_job::Mode;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::HumanBytes;
use serde::Serialize;

/// Arguments of `baton bundle`.
#[derive(Debug, Args)]
pub(crate) struct BundleArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Import a public LLM, from a GGUF file or a Hugging Face directory, as the `llm/` of a bundle.
    ///
    /// The same source and dtype give the same bytes every time. Quantized GGUF weights are dequantized.
    ImportLlm(ImportLlmArgs),
    /// Import a public small model as a bundle that works alone, in mode `slm`; `baton run` can use it at
    /// once.
    ///
    /// The source's files tell its tokenizer, the tokens around a text, and how to generate outputs.
    ImportSlm(ImportSlmArgs),
    /// Let the LLM of a bundle write too: adds mode `llm`, and on request `verified`, to its bundle.json.
    ///
    /// The LLM writes unchanged, with --prompt-end, --eos-token and --max-new-tokens, or as another bundle
    /// fine-tuned it, with --from. The small model still reads the LLM that it was trained on.
    AddLlm(AddLlmArgs),
    /// Make a smaller copy of a bundle: its small model in int8, or with --base only the changes of training.
    ///
    /// Embeddings, norms, biases and the other parts stay unchanged; llm/ becomes a link. Int8 rounds, so
    /// measure the copy before you serve it.
    Compact(CompactArgs),
    /// Show the parts of a bundle, its arithmetic and its memory. Reads only headers.
    Show(ShowArgs),
    /// Verify a bundle: every hash, every tensor, tokenizers, templates. Reads every byte.
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
struct ImportLlmArgs {
    /// A .gguf file, or a directory with config.json, safetensors and tokenizer.json.
    /// Example: `SmolLM2-135M-Instruct.Q4_1.gguf`.
    #[arg(long)]
    from: PathBuf,
    /// Directory to create; it appears complete or not at all. Example: `models/en-it/llm`.
    #[arg(long)]
    out: PathBuf,
    /// Number type of the written tensors: f32 is exact, bf16 rounds and takes half the space.
    #[arg(long, value_enum, default_value_t = ImportDtype::F32)]
    dtype: ImportDtype,
}

#[derive(Debug, Args)]
struct ImportSlmArgs {
    /// A directory with config.json, safetensors and the tokenizer's files, a .gguf file, or a directory of a
    /// Firefox student. Example: `flan-t5-small`.
    #[arg(long)]
    from: PathBuf,
    /// The bundle's directory to create; it appears complete or not at all. Example: `models/flan-t5-small`.
    #[arg(long)]
    out: PathBuf,
    /// The language that the model reads, for translation: ISO 639, or the code of a model with several
    /// languages. Example: en.
    #[arg(long, value_name = "CODE", requires = "target_language")]
    source_language: Option<String>,
    /// The language that it writes. Example: it.
    #[arg(long, value_name = "CODE", requires = "source_language")]
    target_language: Option<String>,
    /// The language of a model that summarizes or rewrites. Example: en.
    #[arg(
        long,
        value_name = "CODE",
        required_unless_present = "source_language",
        conflicts_with = "source_language"
    )]
    language: Option<String>,
    /// The prompt, if it has more than the text; `\n` is a line end. The tokenizer's tokens around a text are
    /// added. A decoder-only model needs a template, whose last token begins the output. Example: 'summarize:
    /// {text}'.
    #[arg(long)]
    template: Option<String>,
    /// The token that ends an output, if config.json names none or several. Example: '<|im_end|>'.
    #[arg(long)]
    eos_token: Option<String>,
    /// Longest prompt in tokens. Default: 512, or the room that the model's positions leave.
    #[arg(long)]
    max_prompt_tokens: Option<usize>,
    /// Longest output in tokens. Default: 256.
    #[arg(long)]
    max_new_tokens: Option<usize>,
    /// The bundle's name. Default: the source's.
    #[arg(long)]
    name: Option<String>,
    /// Number type of the written tensors. Default: the source's.
    #[arg(long, value_enum)]
    dtype: Option<ImportDtype>,
    /// The model's licence, an SPDX expression. Example: Apache-2.0.
    #[arg(long)]
    licence: Option<String>,
    /// The model's author, and where it was published.
    #[arg(long, requires = "licence")]
    origin: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ImportDtype {
    F32,
    Bf16,
}

#[derive(Debug, Args)]
struct AddLlmArgs {
    /// The bundle's directory. Example: `data/runs/en-it/bundle`.
    bundle: PathBuf,
    /// A bundle of the same LLM whose settings for writing are taken, with its adapter if it has one: the
    /// result of `baton train --llm` with `lora`. Example: `data/runs/en-it-llm/bundle`.
    #[arg(
        long, required_unless_present = "prompt_end",
        conflicts_with_all = ["prompt_end", "eos_token", "max_new_tokens"]
    )]
    from: Option<PathBuf>,
    /// The text after a prompt, before the LLM writes; `\n` is a line end. Example:
    /// '\n<|im_start|>assistant\n'.
    #[arg(long, requires = "eos_token", requires = "max_new_tokens")]
    prompt_end: Option<String>,
    /// The token that ends the LLM's outputs; if it has several end tokens, the one that ends an answer.
    /// Example: '<|im_end|>'.
    #[arg(long, requires = "prompt_end")]
    eos_token: Option<String>,
    /// Longest output, in tokens of the LLM. Example: 256.
    #[arg(long, requires = "prompt_end")]
    max_new_tokens: Option<usize>,
    /// Add mode `verified` too: the small model drafts for the LLM. Both need the same tokenizer.
    #[arg(long)]
    verified: bool,
}

#[derive(Debug, Args)]
struct CompactArgs {
    /// The bundle's directory. Example: `data/runs/en-pt/bundle`.
    bundle: PathBuf,
    /// A bundle of the small model from which training started. The copy has its weights, and the differences
    /// in slm/changes.safetensors. Example: `bundles/en-pt`.
    #[arg(long)]
    base: Option<PathBuf>,
    /// Store the differences of matrices as products of this rank, where that takes less room; a low rank
    /// loses some of what training changed. Default: whole differences, in int8. Example: 64.
    #[arg(long, requires = "base", value_parser = clap::value_parser!(u16).range(1..))]
    rank: Option<u16>,
    /// Share of each difference that is kept. Less than 1 lies between the base and the trained model, and so
    /// keeps more of what the base could do. Example: 0.5.
    #[arg(long, requires = "base", default_value_t = 1.0)]
    share: f32,
    /// Directory to create; it appears complete or not at all. Example: `models/en-pt`.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// The bundle's directory. Example: `models/en-it`.
    bundle: PathBuf,
    /// Print the manifest, the digest and the parts as JSON.
    #[arg(long)]
    json: bool,
    /// Tokens of a batch, for the memory that it takes.
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    batch_tokens: usize,
    /// Parts that an encoder's LLM is split into, by --device or --blocks of the encoder: the memory of each.
    #[arg(long, value_name = "PARTS", default_value_t = 1)]
    parts: usize,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The bundle's directory. Example: `models/en-it`.
    bundle: PathBuf,
}

/// Runs `baton bundle`.
///
/// # Errors
/// The source or the bundle is missing, broken, or does not fit; the message says what to do.
pub(crate) fn run(args: BundleArgs) -> anyhow::Result<()> {
    match execute(args.command, &mut io::stdout().lock()) {
        Err(error) if is_closed_pipe(&error) => Ok(()), // `| head` has read enough
        result => result,
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn execute(command: Command, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Command::ImportLlm(args) => import(args, out),
        Command::ImportSlm(args) => import_small(args, out),
        Command::AddLlm(args) => add(args, out),
        Command::Compact(CompactArgs { bundle, base, rank, share, out: target }) => {
            let base = base.map(|bundle| CompactBase { bundle, rank: rank.map(usize::from), share });
            let copy = compact(&CompactOptions { bundle, base, out: target })?;
            let size = |bytes: u64| HumanBytes(bytes).to_string();
            let slm = summarize(&copy)?.into_iter().find(|part| part.path == "slm");
            let slm = slm.map_or(0, |slm| slm.num_bytes);
            writeln!(out, "{}: slm {}, digest {}", copy.directory().display(), size(slm), copy.digest())?;
            Ok(())
        }
        Command::Show(args) => show(&args, out),
        Command::Verify(args) => {
            let bundle = verify_bundle(&args.bundle)?;
            let num_files = bundle.manifest().files.len();
            writeln!(
                out,
                "{}: {num_files} files verified, digest {}",
                args.bundle.display(),
                bundle.digest()
            )?;
            Ok(())
        }
    }
}

fn import(args: ImportLlmArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let dtype = args.dtype.into();
    let (source, target) = (args.from.display().to_string(), args.out.display().to_string());
    let summary = import_llm(&ImportOptions { from: args.from, out: args.out, dtype })?;
    writeln!(
        out,
        "imported {source} to {target}: {}, {} layers, d {}, vocabulary {}, {} parameters",
        summary.config.family().model_type(),
        summary.config.num_hidden_layers,
        summary.config.hidden_size,
        summary.config.vocab_size,
        millions(summary.num_parameters),
    )?;
    Ok(())
}

impl From<ImportDtype> for WeightDtype {
    fn from(dtype: ImportDtype) -> Self {
        match dtype {
            ImportDtype::F32 => WeightDtype::F32,
            ImportDtype::Bf16 => WeightDtype::Bf16,
        }
    }
}

fn import_small(args: ImportSlmArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let task = match (args.source_language, args.target_language, args.language) {
        (Some(source), Some(target), _) => Task::Translation { source, target },
        (_, _, Some(language)) => Task::Summarization { language },
        _ => anyhow::bail!("name --source-language and --target-language, or --language"),
    };
    let (source, target) = (args.from.display().to_string(), args.out.display().to_string());
    let bundle = import_slm(&SlmImportOptions {
        from: args.from,
        out: args.out,
        name: args.name,
        task,
        template: args.template.map(|template| template.replace("\\n", "\n")),
        eos_token: args.eos_token,
        max_prompt_tokens: args.max_prompt_tokens,
        max_new_tokens: args.max_new_tokens,
        dtype: args.dtype.map(WeightDtype::from),
        licence: args.licence,
        origin: args.origin,
    })?;
    let (_, config) = bundle.small_model()?;
    writeln!(
        out,
        "imported {source} to {target}: {}, {} layers, d {}, vocabulary {}, digest {}",
        config.family().model_type(),
        config.num_hidden_layers,
        config.hidden_size,
        config.vocab_size,
        bundle.digest(),
    )?;
    Ok(())
}

fn add(args: AddLlmArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let AddLlmArgs { bundle, from, prompt_end, eos_token, max_new_tokens, verified } = args;
    let written = prompt_end.zip(eos_token).zip(max_new_tokens);
    let added = match (from, written) {
        (Some(from), _) => AddedLlm::Of(from),
        (None, Some(((prompt_end, eos_token), max_new_tokens))) => {
            let prompt_end = prompt_end.replace("\\n", "\n");
            AddedLlm::AsItIs(LlmWriter { prompt_end, eos_token, max_new_tokens })
        }
        (None, None) => anyhow::bail!("name --from, or --prompt-end, --eos-token and --max-new-tokens"),
    };
    let added = add_llm(&bundle, &added, verified)?;
    writeln!(out, "{}: modes {}, digest {}", bundle.display(), modes(added.manifest()), added.digest())?;
    Ok(())
}

fn modes(manifest: &BundleManifest) -> String {
    manifest.modes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn show(args: &ShowArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let bundle = Bundle::open(&args.bundle)?;
    let parts = summarize(&bundle)?;
    let arithmetic = arithmetic_by_reader(&bundle)?;
    let memory = memory_by_mode(&bundle, args.parts)?;
    if args.json {
        let json = serde_json::json!({
            "digest": bundle.digest(),
            "parts": parts,
            "arithmetic": arithmetic.iter().map(|(name, a)| serde_json::json!({
                "mode": name,
                "parameters": a.parameters,
                "flops_per_prompt_token": a.flops_per_prompt_token(),
                "flops_per_generated_token": a.flops_per_generated_token(),
            })).collect::<Vec<_>>(),
            "memory": memory,
            "manifest": bundle.manifest(),
        });
        writeln!(out, "{json:#}")?;
        return Ok(());
    }
    let manifest = bundle.manifest();
    writeln!(out, "name       {}", manifest.name)?;
    writeln!(out, "task       {}", manifest.task)?;
    writeln!(out, "modes      {}", modes(manifest))?;
    if let Some(fusion) = manifest.fusion {
        writeln!(out, "fusion     {fusion}")?;
    }
    writeln!(
        out,
        "limits     {} prompt tokens, {} new tokens",
        manifest.limits.max_prompt_tokens, manifest.limits.max_new_tokens
    )?;
    for (mode, options) in &manifest.generation {
        writeln!(out, "generation {mode}: {options}")?;
    }
    for (name, template) in &manifest.templates {
        writeln!(out, "template   {name}: {template:?}")?;
    }
    for (name, template) in manifest.slm.iter().flat_map(|slm| &slm.templates) {
        writeln!(out, "slm reads  {name}: {template:?}")?;
    }
    if let Some(SlmPart { languages: Some(languages), .. }) = &manifest.slm {
        let codes: Vec<&str> = languages.tokens.keys().map(String::as_str).collect();
        writeln!(out, "languages  {}", codes.join(", "))?;
        for (side, code) in [("source", &languages.source), ("target", &languages.target)] {
            if let Some(code) = code {
                writeln!(out, "{side:<10} {code}, unless a job says --{side}-language")?;
            }
        }
    }
    if let Some(LlmPart { writer: Some(LlmWriter { prompt_end, max_new_tokens, .. }), .. }) = &manifest.llm {
        writeln!(out, "llm        goes on after {prompt_end:?}, {max_new_tokens} new tokens")?;
    }
    writeln!(out, "digest     {}", bundle.digest())?;
    writeln!(out)?;
    write_table(&parts_table(&parts), out)?;
    writeln!(out)?;
    write_table(&arithmetic_table(&arithmetic), out)?;
    writeln!(out)?;
    write_table(&memory_table(&memory, args.batch_tokens), out)?;
    writeln!(out)?;
    for part in parts {
        if let Some(origin) = part.origin {
            writeln!(out, "{:<10} from {origin}", part.path)?;
        }
    }
    Ok(())
}

/// The modes that the bundle serves, and its LLM alone for comparison.
fn arithmetic_by_reader(bundle: &Bundle) -> anyhow::Result<Vec<(String, Arithmetic)>> {
    let modes = bundle.manifest().modes.iter().filter(|&&mode| mode != Mode::Llm);
    let small = modes.map(|&mode| Ok((mode.to_string(), arithmetic_of_mode(bundle, mode)?)));
    let llm = bundle.llm().ok().map(|_| Ok(("llm".to_owned(), arithmetic_of_llm(bundle)?)));
    small.chain(llm).collect()
}

fn parts_table(parts: &[PartSummary]) -> Vec<[String; 6]> {
    let header = ["part", "shape", "parameters", "dtype", "size", "licence"].map(str::to_owned);
    let rows = parts.iter().map(|part| {
        [
            part.path.to_owned(),
            part.description.clone(),
            millions(part.num_parameters),
            part.dtypes.join(", "),
            HumanBytes(part.num_bytes).to_string(),
            part.licence.clone().unwrap_or_else(|| "not stated".to_owned()),
        ]
    });
    std::iter::once(header).chain(rows).collect()
}

fn arithmetic_table(arithmetic: &[(String, Arithmetic)]) -> Vec<[String; 4]> {
    let header = ["mode", "parameters", "MFLOP a prompt token", "MFLOP a generated token"].map(str::to_owned);
    let megaflops = |flops: u64| format!("{:.1}", flops as f64 / 1e6);
    let rows = arithmetic.iter().map(|(name, arithmetic)| {
        [
            name.clone(),
            millions(arithmetic.parameters),
            megaflops(arithmetic.flops_per_prompt_token()),
            megaflops(arithmetic.flops_per_generated_token()),
        ]
    });
    std::iter::once(header).chain(rows).collect()
}

/// The memory of a service's models for a mode and a format of weights, on one engine.
#[derive(Debug, Serialize)]
struct ServiceMemory {
    mode: Mode,
    service: String,
    weights: WeightFormat,
    #[serde(flatten)]
    memory: ModelMemory,
}

/// Of each service, mode and format; a service without models is left out.
fn memory_by_mode(bundle: &Bundle, num_parts: usize) -> anyhow::Result<Vec<ServiceMemory>> {
    let parts = match num_parts {
        1 => Vec::new(),
        _ => {
            let (part, llm) = bundle.llm()?;
            balanced_ranges(&block_weights(llm)[..part.layers], num_parts)?
        }
    };
    let mut all = Vec::new();
    for &mode in &bundle.manifest().modes {
        for weights in WeightFormat::ALL {
            let mut services = match mode.reads_llm() {
                true => parts
                    .iter()
                    .map(|blocks| {
                        let name = format!("encoder, blocks {}..{}", blocks.start, blocks.end);
                        Ok((name, memory_of_encoder_part(bundle, (mode, weights), blocks.clone())?))
                    })
                    .collect::<anyhow::Result<Vec<_>>>()?,
                false => Vec::new(),
            };
            if services.is_empty() {
                services.push(("encoder".to_owned(), memory_of_encoder(bundle, mode, weights)?));
            }
            services.push(("decoder".to_owned(), memory_of_decoder(bundle, mode, weights)?));
            let used = services.into_iter().filter(|(_, memory)| memory.weights > 0);
            all.extend(used.map(|(service, memory)| ServiceMemory { mode, service, weights, memory }));
        }
    }
    Ok(all)
}

fn memory_table(all: &[ServiceMemory], batch_tokens: usize) -> Vec<[String; 7]> {
    let batch = format!("with {batch_tokens} tokens");
    let header = ["mode", "service", "weights", "weights' size", "a token", batch.as_str(), "cache a token"];
    let rows = all.iter().map(|ServiceMemory { mode, service, weights, memory }| {
        let size = |bytes: u64| HumanBytes(bytes).to_string();
        [
            mode.to_string(),
            service.clone(),
            weights.name().to_owned(),
            size(memory.weights),
            size(memory.per_token),
            size(memory.of_engines(1, batch_tokens)),
            if memory.cache_per_token > 0 { size(memory.cache_per_token) } else { "-".to_owned() },
        ]
    });
    std::iter::once(header.map(str::to_owned)).chain(rows).collect()
}

/// One line a row, columns aligned.
fn write_table<const COLUMNS: usize>(lines: &[[String; COLUMNS]], out: &mut impl Write) -> io::Result<()> {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    for line in lines {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn millions(count: u64) -> String {
    format!("{:.2} M", count as f64 / 1e6)
}
