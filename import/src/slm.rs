//! Import of a public small model as a bundle of its own: `slm/` and a manifest, in the mode `slm`.
//!
//! The model reads its own tokens. Its prompt is the tokenizer's output for a text, special tokens included,
//! or a template that the caller gives. The model's files supply the rest: the token that begins an output,
//! the one that ends it, and how to generate outputs (`generation_config.json`).

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use baton_bundle::{
    Alignment, Bundle, BundleManifest, DEFAULT_TEMPLATE, DirectoryInProgress, Limits, MANIFEST_FORMAT,
    ModelConfig, PartOrigin, SlmPart, TEXT_PLACEHOLDER, Task, WeightDtype, io_error, read_bytes,
    write_atomically, write_manifest,
};
use baton_job::{GenerationLayer, Mode};
use serde_json::{Map, Value};

use crate::slm_template::SlmTokenizer;
use crate::{ImportError, open_checkpoint, write_weights};

/// Tokens that an imported model reads and writes at most, if neither the caller nor its positions say less.
const USUAL_MAX_PROMPT_TOKENS: usize = 512;
const USUAL_MAX_NEW_TOKENS: usize = 256;

/// The model to import as a bundle, and facts that its files do not state.
#[derive(Debug, Clone)]
pub struct SlmImportOptions {
    /// A directory with `config.json`, safetensors and `tokenizer.json`, a `.gguf` file, or a directory with
    /// a student of Marian's.
    pub from: PathBuf,
    /// The bundle's directory to create; must not exist, or be empty.
    pub out: PathBuf,
    /// The bundle's name. Default: that of the source.
    pub name: Option<String>,
    /// The model's task.
    pub task: Task,
    /// The prompt template, with `{text}`. Default: the text alone. Special tokens that the model's tokenizer
    /// puts around a text are added where the template lacks them. A decoder-only model needs one: its last
    /// token begins the output.
    pub template: Option<String>,
    /// The token that ends an output, where the config names none or several.
    pub eos_token: Option<String>,
    /// Longest prompt, in tokens.
    pub max_prompt_tokens: Option<usize>,
    /// Longest output, in tokens.
    pub max_new_tokens: Option<usize>,
    /// Number type of the written tensors. Default: the source's.
    pub dtype: Option<WeightDtype>,
    /// SPDX expression.
    pub licence: Option<String>,
    /// The model's author, and where it was published.
    pub origin: Option<String>,
}

/// Imports a small model; the bundle appears complete or not at all.
///
/// # Errors
/// As for [`crate::import_llm`]; or the model's files and the options leave open what begins or ends an
/// output, or the template cannot be used.
pub fn import_slm(options: &SlmImportOptions) -> Result<Bundle, ImportError> {
    let mut checkpoint = open_checkpoint(&options.from)?;
    let directory = DirectoryInProgress::create(&options.out)?;
    let slm = directory.path().join("slm");
    fs::create_dir(&slm).map_err(io_error("create", &slm))?;
    for (name, bytes) in checkpoint.side_files()? {
        write_atomically(&slm.join(name), &bytes)?;
    }
    let tokenizer = SlmTokenizer::read(&options.from, &slm)?;
    let mut config = checkpoint.config().clone();
    config.dtype = options.dtype.unwrap_or(config.dtype);
    let template = tokenizer.settle(options.template.as_deref(), &mut config)?;
    if let Some(token) = &options.eos_token {
        config.eos_token_ids = vec![tokenizer.id(token)?];
    }
    let generation = proposed_generation(options)?;
    let manifest = manifest(options, &config, (&tokenizer, template), generation)?;
    write_weights(checkpoint.as_mut(), &config, &slm)?;
    write_manifest(directory.path(), manifest)?;
    directory.finish()?;
    Ok(Bundle::open(&options.out)?)
}

fn manifest(
    options: &SlmImportOptions,
    config: &ModelConfig,
    (tokenizer, template): (&SlmTokenizer, String),
    generation: GenerationLayer,
) -> Result<BundleManifest, ImportError> {
    let refused = |reason: String| ImportError::UnsupportedSource { path: options.from.clone(), reason };
    let bos = config
        .bos_token_id
        .ok_or_else(|| refused(format!("its config.json has no `{}`", config.field_name("bos_token_id"))))?;
    let &[eos] = config.eos_token_ids.as_slice() else {
        let ids = &config.eos_token_ids;
        return Err(refused(format!(
            "its config.json has {} tokens that end an output ({ids:?}); name one with --eos-token",
            ids.len()
        )));
    };
    let max_new_tokens = options.max_new_tokens.unwrap_or(USUAL_MAX_NEW_TOKENS);
    let room = config.max_positions().map(|positions| positions.saturating_sub(max_new_tokens));
    let usual = room.unwrap_or(USUAL_MAX_PROMPT_TOKENS).min(USUAL_MAX_PROMPT_TOKENS);
    let from = options.from.canonicalize().unwrap_or_else(|_| options.from.clone());
    let name = if from.is_dir() { from.file_name() } else { from.file_stem() };
    let name = name.map(|name| name.to_string_lossy().into_owned());
    let origin = options.origin.clone().or_else(|| name.clone()).unwrap_or_default();
    let part = |licence: &String| {
        let (path, licence, origin) = ("slm".to_owned(), licence.clone(), origin.clone());
        PartOrigin { path, licence, origin }
    };
    let is_empty = generation == GenerationLayer::default();
    Ok(BundleManifest {
        format: MANIFEST_FORMAT,
        name: options.name.clone().or(name).unwrap_or_else(|| "small-model".to_owned()),
        task: options.task.clone(),
        llm: None,
        projector: None,
        slm: Some(SlmPart {
            family: config.family(),
            d_model: config.hidden_size,
            vocab_size: config.vocab_size,
            prompt_attention: config.prompt_attention(),
            bos_token: tokenizer.token(bos)?,
            eos_token: tokenizer.token(eos)?,
            tokenizer: tokenizer.kind(),
            templates: BTreeMap::from([(DEFAULT_TEMPLATE.to_owned(), template)]),
        }),
        fusion: None,
        alignment: Alignment::Characters,
        modes: vec![Mode::Slm],
        templates: BTreeMap::new(),
        generation: (!is_empty).then_some((Mode::Slm, generation)).into_iter().collect(),
        limits: Limits {
            max_prompt_tokens: options.max_prompt_tokens.unwrap_or(usual),
            max_slm_prompt_tokens: None,
            max_new_tokens,
        },
        parts: options.licence.iter().map(part).collect(),
        training: Map::new(),
        files: BTreeMap::new(),
    })
}

/// How the model's makers generate outputs, as far as it is worth a default: `generation_config.json` beside
/// the weights, where there is one.
fn proposed_generation(options: &SlmImportOptions) -> Result<GenerationLayer, ImportError> {
    const NAMES: [(&str, &str); 4] = [
        ("num_beams", "beams"),
        ("length_penalty", "length_penalty"),
        ("no_repeat_ngram_size", "no_repeat_ngram"),
        ("repetition_penalty", "repetition_penalty"),
    ];
    let path = options.from.join("generation_config.json");
    if !path.exists() {
        return Ok(GenerationLayer::default());
    }
    let refused = |reason: String| ImportError::UnsupportedSource { path: path.clone(), reason };
    let theirs: Map<String, Value> =
        serde_json::from_slice(&read_bytes(&path)?).map_err(|error| refused(error.to_string()))?;
    let has_beams = theirs.get("num_beams").and_then(Value::as_u64).is_some_and(|beams| beams > 1);
    let ours = NAMES.iter().filter(|(_, ours)| has_beams || *ours != "length_penalty");
    let ours: Map<String, Value> = ours
        .filter_map(|(theirs_name, ours)| Some(((*ours).to_owned(), theirs.get(*theirs_name)?.clone())))
        .filter(|(_, value)| !value.is_null() && value.as_f64() != Some(0.0))
        .collect();
    serde_json::from_value(Value::Object(ours)).map_err(|error| refused(error.to_string()))
}

/// The template's text around [`TEXT_PLACEHOLDER`].
pub(crate) fn around_text(template: &str) -> Option<(&str, &str)> {
    template.split_once(TEXT_PLACEHOLDER)
}
